//! The back half of lowering: MLIR text to LLVM IR, assembly or an object file for a CPU, and objects to a shared object;
//! for a GPU, assembly is PTX.
//!
//! Functions are compiled with bare pointers: a `memref` argument of static shape becomes one pointer, `index` and `i64` a
//! 64-bit integer, so that Rust calls a kernel as `extern "C" fn(*const f32, ..., i64, i64)`. A memref argument with a dynamic
//! dimension (`memref<?xf32>`) has no bare-pointer form and is refused; `UNBOUNDED` is the extent to write instead.
//!
//! For equal text and target the output is byte-identical, on any thread and in any process.

mod diagnostics;
mod ffi;
mod link;
mod ptxas;
mod target;

pub use diagnostics::{Diagnostic, Severity};
pub use link::link_shared;
pub use ptxas::{Assembled, CUDA_HOME, Resources, assemble, ptxas, ptxas_below};
pub use target::Target;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Extent of a 1-D memref argument whose length the kernel is told at run time: `memref<1099511627776xf32>` (2^40 elements).
///
/// Bare pointers need a static shape, but nothing reads the extent of the outermost dimension.
pub const UNBOUNDED: u64 = 1 << 40;

/// What `compile` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// The module parsed, verified and printed in MLIR's canonical form.
    Mlir,
    /// The module after the pass pipeline, in MLIR's LLVM dialect.
    LlvmDialect,
    /// LLVM IR after O3 for the target.
    LlvmIr,
    /// Assembly text of the target.
    Asm,
    /// A relocatable, position-independent object file.
    Object,
}

/// A compiled module: an object file for `Emit::Object`, UTF-8 text otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub emit: Emit,
    pub bytes: Vec<u8>,
}

impl Output {
    /// The text; none for an object file.
    pub fn text(&self) -> Option<&str> {
        if self.emit == Emit::Object { None } else { std::str::from_utf8(&self.bytes).ok() }
    }
}

/// Why a module did not become code.
///
/// `Parse`, `Lower`, `Translate` and `Assemble` are faults of the MLIR text, `Target` and `UnknownTarget` of the chosen machine,
/// `NoLinker`, `NoAssembler` and `Io` of this installation.
#[derive(Debug, thiserror::Error)]
pub enum MlirError {
    #[error("the MLIR text does not parse or verify\n{rendered}")]
    Parse { diagnostics: Vec<Diagnostic>, rendered: String },
    #[error("the MLIR text does not lower to the LLVM dialect\n{rendered}")]
    Lower { diagnostics: Vec<Diagnostic>, rendered: String },
    #[error("the LLVM dialect does not translate to LLVM IR\n{rendered}")]
    Translate { diagnostics: Vec<Diagnostic>, rendered: String },
    #[error("LLVM generated no code for {target}\n{rendered}")]
    Codegen { target: Target, diagnostics: Vec<Diagnostic>, rendered: String },
    #[error("LLVM has no code generator for target {target}: {message}")]
    Target { target: Target, message: String },
    #[error("unknown target `{found}`; allowed are {}", Target::NAMES.join(", "))]
    UnknownTarget { found: String },
    #[error(
        "no C compiler driver `cc` on the PATH to link kernels with; install one (Debian, Ubuntu: `apt-get install gcc`)"
    )]
    NoLinker,
    #[error("`cc` could not link the kernels ({status})\n{stderr}")]
    Link { status: String, stderr: String },
    #[error(
        "no `ptxas` to make GPU code of PTX with: run scripts/setup.sh, which puts it into third_party/cuda, or name the \
         folder of CUDA 13 in {CUDA_HOME}; `--emit ptx` needs none"
    )]
    NoAssembler,
    #[error("`ptxas` could not assemble the kernels ({status})\n{stderr}")]
    Assemble { status: String, stderr: String },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

/// From scalar and vector loops on memrefs down to the LLVM dialect.
///
/// Loop-invariant code motion comes first because LLVM cannot hoist loads past stores it cannot prove apart. `math` goes to
/// LLVM intrinsics where there is one (sqrt, exp, log, sin, cos, fma; vectorisable or libm calls) and to libm calls for the
/// rest (erf, atan). The affine step is for the index arithmetic that `expand-strided-metadata` leaves.
const PIPELINE: &str = "canonicalize,cse,loop-invariant-code-motion,\
    func.func(convert-vector-to-scf{full-unroll=true}),canonicalize,cse,\
    convert-vector-to-llvm{reassociate-fp-reductions=true},\
    func.func(convert-math-to-llvm),convert-math-to-libm,\
    expand-strided-metadata,lower-affine,convert-scf-to-cf,finalize-memref-to-llvm,convert-arith-to-llvm,\
    convert-func-to-llvm{use-bare-ptr-memref-call-conv=true},convert-cf-to-llvm,convert-index-to-llvm,convert-ub-to-llvm,\
    reconcile-unrealized-casts,canonicalize,cse";

/// Compiles one module of `func.func` kernels, each under its own name, for `target`.
///
/// LLVM vectorises inner loops when pointer arguments carry `{llvm.noalias, llvm.align = 64 : i64}`, when accumulating `addf`
/// carry `fastmath<contract,reassoc,nsz>`, and with 512-bit registers only under
/// `attributes {passthrough = [["prefer-vector-width", "512"]]}`.
///
/// A cast from f32 to bf16 calls `__truncsfbf2` (in GCC's library from version 13) unless the target has AVX512-BF16: round
/// with integer arithmetic instead. Inline assembly is not for kernels: LLVM may crash on faults in it.
///
/// # Errors
/// With MLIR's or LLVM's own diagnostics, each quoting the line of `mlir_text` it is about.
pub fn compile(mlir_text: &str, target: &Target, emit: Emit) -> Result<Output, MlirError> {
    let output = |bytes: Vec<u8>| Ok(Output { emit, bytes });
    let render = |diagnostics: &[Diagnostic]| diagnostics::render(diagnostics, mlir_text);

    let context = ffi::Context::new();
    let mut module =
        context.parse(mlir_text).map_err(|d| MlirError::Parse { rendered: render(&d), diagnostics: d })?;
    if emit == Emit::Mlir {
        return output(module.to_text().into_bytes());
    }
    let lower = |d: Vec<Diagnostic>| MlirError::Lower { rendered: render(&d), diagnostics: d };
    module.run(PIPELINE).map_err(lower)?;
    let left = functions_left(&module);
    if !left.is_empty() {
        return Err(lower(left));
    }
    if emit == Emit::LlvmDialect {
        return output(module.to_text().into_bytes());
    }
    let machine = ffi::Machine::new(&target.triple, &target.cpu, &target.features)
        .map_err(|message| MlirError::Target { target: target.clone(), message })?;
    let mut llvm =
        module.to_llvm().map_err(|d| MlirError::Translate { rendered: render(&d), diagnostics: d })?;
    let codegen = |d: Vec<Diagnostic>| MlirError::Codegen {
        target: target.clone(),
        rendered: render(&d),
        diagnostics: d,
    };
    if target.is_cuda() {
        llvm.make_kernels();
    }
    llvm.optimise(&machine, target.is_cuda()).map_err(codegen)?;
    match emit {
        Emit::Asm => output(llvm.emit(&machine, ffi::FileType::Assembly).map_err(codegen)?),
        Emit::Object => output(llvm.emit(&machine, ffi::FileType::Object).map_err(codegen)?),
        Emit::Mlir | Emit::LlvmDialect | Emit::LlvmIr => output(llvm.to_text().into_bytes()),
    }
}

/// Compiles each text as a module of its own on up to `threads` threads; results are in the order of `texts`.
///
/// A module a kernel keeps every kernel's bytes independent of what it is compiled with, so that each can be cached by itself.
/// It costs 1.4 times the processor time of one module for all; threads share no locks and scale with the cores.
pub fn compile_all<T: AsRef<str> + Sync>(
    texts: &[T],
    target: &Target,
    emit: Emit,
    threads: usize,
) -> Vec<Result<Output, MlirError>> {
    // LLVM recurses deeply on large functions: the 2 MiB that Rust gives a thread are few.
    const STACK_BYTES: usize = 16 << 20;
    let slots: Vec<OnceLock<_>> = texts.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((text, slot)) = texts.get(index).zip(slots.get(index)) else { return };
            slot.get_or_init(|| compile(text.as_ref(), target, emit));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(texts.len()) {
            // Where the system refuses a thread, the others and the loop below do its share.
            let _ = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        }
    });
    work();
    let compiled = slots.into_iter().map(OnceLock::into_inner);
    compiled
        .zip(texts)
        .map(|(slot, text)| slot.unwrap_or_else(|| compile(text.as_ref(), target, emit)))
        .collect()
}

/// An error for each function that the pipeline left as it was, which it does in silence.
fn functions_left(module: &ffi::Module<'_>) -> Vec<Diagnostic> {
    let left = module.top_level().into_iter().filter(|(kind, _)| kind == "func.func");
    left.map(|(_, position)| Diagnostic {
        severity: Severity::Error,
        position,
        message: format!(
            "the signature has no form with bare pointers: a memref argument needs a static shape and no layout \
             (for one of unknown length write memref<{UNBOUNDED}xf32>, not memref<?xf32>)"
        ),
        notes: Vec::new(),
    })
    .collect()
}

/// Version of the LLVM and MLIR that are linked in, such as `22.1.8`; part of what identifies an artifact.
pub fn version() -> String {
    ffi::version()
}
