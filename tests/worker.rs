//! The worker, built without the compiler: what it is linked with, its size, and that it trains to the same bytes.
//! Also what the full program asks of the machine before it starts.
#![cfg(feature = "study")]

mod lab;

use lab::{Lab, SWEEP, assert_same, isoflop, results, run};
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn, ElfFile64, FileHeader};
use object::{Endianness, Object, ObjectSymbol};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The most that the worker may weigh on a compute node, with its symbol names.
const MOST_BYTES: u64 = 20_000_000;

/// Builds the worker with its symbols. It shares compiled crates with the build of these tests.
fn build() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("worker");
    let shared = isoflop().ancestors().nth(2).expect("target/PROFILE/isoflop");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo
        .args(["build", "--release", "--no-default-features", "--bin", "isoflop", "--target-dir"])
        .arg(&target);
    // An older cargo does not know `build-dir` and compiles everything a second time.
    cargo.args(["--config", &format!("build.build-dir = {:?}", shared.display().to_string())]);
    cargo.args(["--config", "profile.release.package.isoflop.strip = false"]);
    run(cargo).expect_code(0);
    target.join("release/isoflop")
}

/// Names of all symbols of an ELF file, and of the libraries that it loads.
fn symbols_and_libraries(path: &Path) -> (Vec<String>, Vec<String>) {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = ElfFile64::<Endianness>::parse(&bytes[..]).expect("an ELF file");
    let symbols = file.symbols().chain(file.dynamic_symbols()).map(|s| s.name().expect("UTF-8").to_owned());
    let header = FileHeader64::<Endianness>::parse(&bytes[..]).expect("a header");
    let endian = header.endian().expect("a byte order");
    let sections = header.sections(endian, &bytes[..]).expect("sections");
    let (entries, strings) =
        sections.dynamic(endian, &bytes[..]).expect("readable").expect("a dynamic section");
    let strings = sections.strings(endian, &bytes[..], strings).expect("names");
    let needed = entries.iter().filter(|entry| entry.d_tag(endian) == DT_NEEDED);
    let name = |entry: &object::elf::Dyn64<Endianness>| {
        let name = entry.string(endian, strings).expect("a name");
        String::from_utf8(name.to_vec()).expect("UTF-8")
    };
    (symbols.collect(), needed.map(name).collect())
}

#[test]
fn the_worker_has_no_compiler_in_it_and_trains_to_the_same_bytes() {
    let worker = build();
    let bytes = worker.metadata().expect("the worker").len();
    println!("worker: {bytes} bytes");
    assert!(bytes < MOST_BYTES, "the worker has {bytes} bytes");

    let (symbols, libraries) = symbols_and_libraries(&worker);
    let has = |part: &str| symbols.iter().any(|name| name.contains(part));
    assert!(symbols.len() > 1000 && has("isoflop_runtime"), "{} symbols: was it stripped?", symbols.len());
    let starts =
        ["mlir", "LLVM", "_ZN4mlir", "_ZN4llvm", "_ZNK4mlir", "_ZNK4llvm", "_ZTVN4mlir", "_ZTVN4llvm"];
    let foreign: Vec<_> =
        symbols.iter().filter(|name| starts.iter().any(|start| name.starts_with(start))).collect();
    assert!(foreign.is_empty(), "{} symbols of MLIR or LLVM: {:?}", foreign.len(), foreign.first());
    for part in ["isoflop_compiler", "isoflop_sweeps", "mlir_sys"] {
        assert!(!has(part), "{part} is in the worker");
    }
    let compilers =
        libraries.iter().filter(|name| ["MLIR", "LLVM", "stdc++"].iter().any(|l| name.contains(l)));
    assert_eq!(compilers.count(), 0, "{libraries:?}");
    assert!(libraries.iter().any(|name| name.starts_with("libc.so")), "{libraries:?}");

    let lab = Lab::new(SWEEP);
    lab.run_study("study", &[]);
    let expected = results(&lab.path("study/runs"));
    for run_dir in std::fs::read_dir(lab.path("study/runs")).expect("runs") {
        let run_dir = run_dir.expect("an entry").path();
        for name in ["status.json", "metrics.csv", "metrics.json", "timings.csv"] {
            std::fs::remove_file(run_dir.join(name)).expect("a file of the run");
        }
        std::fs::remove_dir_all(run_dir.join("checkpoints")).expect("the checkpoints");
        let run_dir = run_dir.to_str().expect("UTF-8");
        run(lab.command(&worker, &["train", run_dir])).expect_code(0);
        #[cfg(target_os = "linux")]
        its_memory_is_as_planned(Path::new(run_dir));
    }
    assert_same(&results(&lab.path("study/runs")), &expected);

    let refused = run(lab.command(&worker, &["plan", "sweep.toml"])).expect_code(2);
    refused.expect_words(&["unrecognized subcommand 'plan'"]);
}

/// Of these small models nearly all memory is the program's own, a constant that other systems' libraries move: 25 %.
#[cfg(target_os = "linux")]
fn its_memory_is_as_planned(run_dir: &Path) {
    let status = std::fs::read(run_dir.join("status.json")).expect("status.json");
    let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
    let [planned, peak] =
        ["planned_bytes", "peak_bytes"].map(|key| status["memory"][key].as_f64().expect(key));
    println!("the worker: {peak} bytes at its peak, planned {planned}");
    assert!((peak / planned - 1.0).abs() < 0.25, "{status}");
}

#[test]
fn the_full_program_needs_no_installed_compiler() {
    let (_, libraries) = symbols_and_libraries(isoflop());
    let known = [
        "libc.",
        "libm.",
        "libz.",
        "libzstd.",
        "libstdc++.",
        "libgcc_s.",
        "ld-linux",
        "libdl.",
        "libpthread.",
    ];
    let strange: Vec<_> =
        libraries.iter().filter(|name| !known.iter().any(|k| name.starts_with(k))).collect();
    assert!(strange.is_empty(), "{strange:?}");
}
