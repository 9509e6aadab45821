//! Links the command at a fixed address: LLVM's tables hold half a million pointers, and relocating them at every start
//! would take longer than most verbs do.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let fixed_is_possible = std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux")
        && std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu");
    if fixed_is_possible {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
