//! Generated kernels: their shared object, and calls through pointers to functions of any number of arguments.

use super::ExecError;
use isoflop_kernels::artifact::{Artifact, Target};
use libloading::Library;

/// The most buffer arguments a generated kernel may have.
pub const MAX_ARGS: usize = 64;

/// A generated kernel's entry. Its machine code stays loaded as long as the [`Library`] it came from.
#[derive(Clone, Copy)]
pub struct Entry(*const ());

// SAFETY: an address of code.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

/// Opens the artifact's shared object, or nothing if it has none, after a check that this machine can run it.
pub fn open(artifact: &Artifact) -> Result<Option<Library>, ExecError> {
    let Some(path) = artifact.kernels_path() else { return Ok(None) };
    check_target(&artifact.manifest.target)?;
    // SAFETY: the object was hashed when the artifact was opened and comes from our compiler, which emits no
    // initialisers; its kernels touch only what they are passed.
    let library = unsafe { Library::new(&path) }
        .map_err(|error| ExecError::Load { path, message: error.to_string() })?;
    Ok(Some(library))
}

/// The entry of kernel `symbol`.
pub fn entry(library: &Library, artifact: &Artifact, symbol: &str) -> Result<Entry, ExecError> {
    // SAFETY: only the address is taken here; calls are answered for in `Entry::call`.
    let found = unsafe { library.get::<*const ()>(symbol.as_bytes()) };
    match found.map(|address| *address) {
        Ok(address) if !address.is_null() => Ok(Entry(address)),
        _ => Err(ExecError::Symbol {
            symbol: symbol.to_string(),
            path: artifact.kernels_path().unwrap_or_else(|| artifact.dir.clone()),
        }),
    }
}

fn check_target(target: &Target) -> Result<(), ExecError> {
    let refuse = |missing: String| {
        Err(ExecError::Target { triple: target.triple.clone(), cpu: target.cpu.clone(), missing })
    };
    let arch = target.triple.split('-').next().unwrap_or_default();
    if arch != std::env::consts::ARCH {
        return refuse(format!("it is {}", std::env::consts::ARCH));
    }
    let level = match target.cpu.as_str() {
        "x86-64-v3" => &["avx2", "fma"][..],
        "x86-64-v4" => &["avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"],
        _ => &[],
    };
    let named = target.features.split(',').filter_map(|feature| feature.strip_prefix('+'));
    match named.chain(level.iter().copied()).find(|feature| has_feature(feature) == Some(false)) {
        Some(missing) => refuse(format!("its CPU lacks {missing}")),
        None => Ok(()),
    }
}

/// Whether this CPU has a feature, where it is one that generated code may depend on.
#[cfg(target_arch = "x86_64")]
fn has_feature(llvm_name: &str) -> Option<bool> {
    macro_rules! known {
        ($($name:tt)*) => {
            match llvm_name {
                $($name => Some(std::arch::is_x86_feature_detected!($name)),)*
                _ => None,
            }
        };
    }
    known!("sse3" "ssse3" "sse4.1" "sse4.2" "avx" "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt" "popcnt" "avx512f"
        "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512ifma" "avx512vbmi" "avx512vnni" "avx512bf16" "avx512fp16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_feature(_llvm_name: &str) -> Option<bool> {
    None
}

/// Calls `$address` with as many pointers as `$args` has: one `if` for each count, from those `used` so far.
macro_rules! call_with {
    ($address:expr, $args:ident, $begin:ident, $end:ident; $($used:ident)*;) => {
        if let [$($used),*] = *$args {
            // SAFETY: the compiler gives a kernel of this many arguments exactly this signature.
            let kernel = unsafe {
                std::mem::transmute::<*const (), unsafe extern "C" fn($(call_with!(@pointer $used),)* i64, i64)>($address)
            };
            // SAFETY: the caller's.
            return unsafe { kernel($($used,)* $begin, $end) };
        }
    };
    ($address:expr, $args:ident, $begin:ident, $end:ident; $($used:ident)*; $next:ident $($rest:ident)*) => {
        call_with!($address, $args, $begin, $end; $($used)*;);
        call_with!($address, $args, $begin, $end; $($used)* $next; $($rest)*);
    };
    (@pointer $used:ident) => { *mut u8 };
}

impl Entry {
    /// Calls the kernel on rows `begin..end`.
    ///
    /// # Safety
    /// The library is loaded, `args` are at most [`MAX_ARGS`] and just those of this kernel, each valid for what the
    /// kernel does with these rows, and nobody else writes what it reads or touches what it writes meanwhile.
    pub unsafe fn call(self, args: &[*mut u8], begin: i64, end: i64) {
        call_with!(self.0, args, begin, end; ;
            a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 a10 a11 a12 a13 a14 a15 a16 a17 a18 a19 a20 a21 a22 a23 a24 a25
            a26 a27 a28 a29 a30 a31 a32 a33 a34 a35 a36 a37 a38 a39 a40 a41 a42 a43 a44 a45 a46 a47 a48 a49
            a50 a51 a52 a53 a54 a55 a56 a57 a58 a59 a60 a61 a62 a63);
        unreachable!("a kernel with {} arguments was loaded", args.len());
    }
}
