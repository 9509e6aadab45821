//! The only module that names `mlir_sys`: owned handles around the MLIR and LLVM C interfaces, safe to call from the rest.
//!
//! Every handle frees what it owns when dropped, and none leaves the thread that made it.
//!
//! LLVM and MLIR are linked statically, as `mlir-sys` does by itself, and dialects and passes are registered one by one so that
//! the linker drops the rest. Start-up of a program that does nothing, and its size (LLVM 22.1.8, Debian 12, medians of 50):
//! 6.2 ms and 91 MB this way when stripped; 10.8 ms and 234 MB with `mlirRegisterAllDialects`; 29.5 ms and 0.5 MB with
//! libMLIR.so and libLLVM.so, whose relocations are all made at start; 1.1 ms with neither.

mod llvm_c;

use super::diagnostics::{Diagnostic, Severity};
use llvm_c::*;
use mlir_sys::*;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::Once;

/// What a target machine writes.
#[derive(Clone, Copy)]
pub(super) enum FileType {
    Assembly = 0,
    Object = 1,
}

/// Registers targets and passes with LLVM's process-wide tables; cheap after the first call.
fn initialise() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: these functions only fill process-wide registries, and `Once` makes it happen on one thread, once.
        unsafe {
            LLVMInitializeX86TargetInfo();
            LLVMInitializeX86Target();
            LLVMInitializeX86TargetMC();
            LLVMInitializeX86AsmPrinter();
            LLVMInitializeX86AsmParser();
            LLVMInitializeAArch64TargetInfo();
            LLVMInitializeAArch64Target();
            LLVMInitializeAArch64TargetMC();
            LLVMInitializeAArch64AsmPrinter();
            LLVMInitializeAArch64AsmParser();
            LLVMInitializeNVPTXTargetInfo();
            LLVMInitializeNVPTXTarget();
            LLVMInitializeNVPTXTargetMC();
            LLVMInitializeNVPTXAsmPrinter();
            mlirRegisterTransformsCanonicalizer();
            mlirRegisterTransformsCSE();
            mlirRegisterTransformsLoopInvariantCodeMotion();
            mlirRegisterConversionLowerAffinePass();
            mlirRegisterConversionConvertVectorToSCF();
            mlirRegisterConversionConvertVectorToLLVMPass();
            mlirRegisterConversionConvertMathToLLVMPass();
            mlirRegisterConversionConvertMathToLibmPass();
            mlirRegisterMemRefExpandStridedMetadataPass();
            mlirRegisterConversionSCFToControlFlowPass();
            mlirRegisterConversionFinalizeMemRefToLLVMConversionPass();
            mlirRegisterConversionArithToLLVMConversionPass();
            mlirRegisterConversionConvertFuncToLLVMPass();
            mlirRegisterConversionConvertControlFlowToLLVMPass();
            mlirRegisterConversionConvertIndexToLLVMPass();
            mlirRegisterConversionUBToLLVMConversionPass();
            mlirRegisterConversionReconcileUnrealizedCastsPass();
        }
    });
}

fn string_ref(text: &str) -> MlirStringRef {
    MlirStringRef { data: text.as_ptr().cast(), length: text.len() }
}

/// Copies a string that LLVM allocated and frees it; empty for null.
///
/// # Safety
/// `message` is null or a string that `LLVMDisposeMessage` may free.
unsafe fn take_message(message: *mut c_char) -> String {
    if message.is_null() {
        return String::new();
    }
    // SAFETY: not null, and by this function's contract a NUL-terminated string that is ours to free.
    unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        LLVMDisposeMessage(message);
        text
    }
}

/// Appends a chunk of printed text to the `Vec<u8>` behind `user`.
unsafe extern "C" fn append_chunk(chunk: MlirStringRef, user: *mut c_void) {
    if chunk.length > 0 {
        // SAFETY: every caller in this file passes a live `Vec<u8>`, and MLIR passes `length` readable bytes.
        unsafe {
            let out = &mut *user.cast::<Vec<u8>>();
            out.extend_from_slice(std::slice::from_raw_parts(chunk.data.cast(), chunk.length));
        }
    }
}

/// Runs an MLIR printing function with a callback that collects its text.
fn printed(print: impl FnOnce(MlirStringCallback, *mut c_void)) -> String {
    let mut bytes: Vec<u8> = Vec::new();
    print(Some(append_chunk), (&raw mut bytes).cast());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Version of the LLVM that is linked in, such as `22.1.8`.
pub(super) fn version() -> String {
    let (mut major, mut minor, mut patch) = (0, 0, 0);
    // SAFETY: three valid pointers to unsigned integers.
    unsafe { LLVMGetVersion(&mut major, &mut minor, &mut patch) };
    format!("{major}.{minor}.{patch}")
}

/// Triple, CPU name and feature string of this machine, as LLVM detects them.
pub(super) fn host() -> (String, String, String) {
    // SAFETY: each call returns a fresh string that `take_message` frees.
    unsafe {
        (
            take_message(LLVMGetDefaultTargetTriple()),
            take_message(LLVMGetHostCPUName()),
            take_message(LLVMGetHostCPUFeatures()),
        )
    }
}

type Collected = RefCell<Vec<Diagnostic>>;

/// Turns an MLIR diagnostic with its notes into ours.
///
/// # Safety
/// `diagnostic` is alive: we are inside the handler it was passed to.
unsafe fn read_diagnostic(diagnostic: MlirDiagnostic) -> Diagnostic {
    // SAFETY: by this function's contract; locations and notes live as long as the diagnostic.
    unsafe {
        let location = mlirDiagnosticGetLocation(diagnostic);
        let position = read_position(location);
        let severity = match mlirDiagnosticGetSeverity(diagnostic) {
            mlir_sys::MlirDiagnosticSeverity_MlirDiagnosticError => Severity::Error,
            mlir_sys::MlirDiagnosticSeverity_MlirDiagnosticWarning => Severity::Warning,
            _ => Severity::Note,
        };
        let note = |index| {
            let note = mlirDiagnosticGetNote(diagnostic, index);
            printed(|callback, user| mlirDiagnosticPrint(note, callback, user))
        };
        // MLIR repeats the whole function in its generic form; the quoted line says where.
        let notes = (0..mlirDiagnosticGetNumNotes(diagnostic))
            .map(note)
            .filter(|note| !note.starts_with("see current operation"))
            .collect();
        let message = printed(|callback, user| mlirDiagnosticPrint(diagnostic, callback, user));
        Diagnostic { severity, position, message, notes }
    }
}

/// Line and column, both from 1, of a location in the parsed text.
///
/// # Safety
/// The context of `location` is alive.
unsafe fn read_position(location: MlirLocation) -> Option<(usize, usize)> {
    // SAFETY: by this function's contract, and the kind of location is checked before its fields are read.
    unsafe {
        if !mlirLocationIsAFileLineColRange(location) {
            return None;
        }
        let line = mlirLocationFileLineColRangeGetStartLine(location);
        let column = mlirLocationFileLineColRangeGetStartColumn(location);
        Some((usize::try_from(line).ok()?, usize::try_from(column).ok()?))
    }
}

unsafe extern "C" fn on_mlir_diagnostic(diagnostic: MlirDiagnostic, user: *mut c_void) -> MlirLogicalResult {
    // SAFETY: `user` is the box owned by the `Context` that this handler is attached to; the diagnostic is alive during the call.
    unsafe { (*user.cast::<Collected>()).borrow_mut().push(read_diagnostic(diagnostic)) };
    MlirLogicalResult { value: 1 }
}

unsafe extern "C" fn on_llvm_diagnostic(info: LLVMDiagnosticInfoRef, user: *mut c_void) {
    // SAFETY: `user` is the box owned by the `LlvmModule` of this LLVM context; `info` is alive during the call.
    unsafe {
        // Optimisation remarks come by here as well, hundreds a module.
        if LLVMGetDiagInfoSeverity(info) == LLVMDiagnosticSeverity_LLVMDSError {
            let message = take_message(LLVMGetDiagInfoDescription(info));
            (*user.cast::<Collected>()).borrow_mut().push(Diagnostic::error(message.trim()));
        }
    }
}

/// An MLIR context with the dialects of CPU and GPU kernels, single-threaded: callers run several contexts side by side instead.
pub(super) struct Context {
    raw: MlirContext,
    diagnostics: Box<Collected>,
}

impl Context {
    pub(super) fn new() -> Context {
        initialise();
        let diagnostics: Box<Collected> = Box::default();
        // SAFETY: the registry outlives its one use and is destroyed once; the context copies it. The handler's user data is a
        // heap box that moves with, and is dropped after, the context.
        unsafe {
            let registry = mlirDialectRegistryCreate();
            for dialect in [
                mlirGetDialectHandle__affine__(),
                mlirGetDialectHandle__arith__(),
                mlirGetDialectHandle__cf__(),
                mlirGetDialectHandle__func__(),
                mlirGetDialectHandle__index__(),
                mlirGetDialectHandle__llvm__(),
                mlirGetDialectHandle__math__(),
                mlirGetDialectHandle__memref__(),
                mlirGetDialectHandle__nvvm__(),
                mlirGetDialectHandle__scf__(),
                mlirGetDialectHandle__ub__(),
                mlirGetDialectHandle__vector__(),
            ] {
                mlirDialectHandleInsertDialect(dialect, registry);
            }
            let raw = mlirContextCreateWithRegistry(registry, false);
            mlirDialectRegistryDestroy(registry);
            mlirRegisterAllLLVMTranslations(raw);
            let user = (&raw const *diagnostics).cast_mut().cast();
            mlirContextAttachDiagnosticHandler(raw, Some(on_mlir_diagnostic), user, None);
            Context { raw, diagnostics }
        }
    }

    fn take_diagnostics(&self) -> Vec<Diagnostic> {
        self.diagnostics.take()
    }

    /// Parses and verifies a module.
    pub(super) fn parse(&self, text: &str) -> Result<Module<'_>, Vec<Diagnostic>> {
        // MLIR's lexer reads up to a NUL and asserts that one follows the text.
        let Ok(text) = CString::new(text) else {
            return Err(vec![Diagnostic::error("the MLIR text contains a NUL byte")]);
        };
        let source = MlirStringRef { data: text.as_ptr(), length: text.as_bytes().len() };
        // SAFETY: the context is alive and `source` is readable, with a NUL behind it, during the call.
        let raw = unsafe { mlirModuleCreateParse(self.raw, source) };
        let diagnostics = self.take_diagnostics();
        if raw.ptr.is_null() { Err(diagnostics) } else { Ok(Module { raw, context: self }) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once; modules borrow the context, so none is left.
        unsafe { mlirContextDestroy(self.raw) };
    }
}

/// A parsed MLIR module.
pub(super) struct Module<'c> {
    raw: MlirModule,
    context: &'c Context,
}

impl Module<'_> {
    /// The module in MLIR's canonical text form.
    pub(super) fn to_text(&self) -> String {
        // SAFETY: the module is alive.
        printed(|callback, user| unsafe {
            mlirOperationPrint(mlirModuleGetOperation(self.raw), callback, user)
        })
    }

    /// Runs a textual pass pipeline such as `canonicalize,cse`, anchored on `builtin.module`.
    pub(super) fn run(&mut self, pipeline: &str) -> Result<(), Vec<Diagnostic>> {
        let mut message: Vec<u8> = Vec::new();
        // SAFETY: the pass manager is made, used and destroyed here; the context and module outlive it, the string is readable.
        let (parsed, succeeded) = unsafe {
            let manager = mlirPassManagerCreate(self.context.raw);
            let parsed = mlirOpPassManagerAddPipeline(
                mlirPassManagerGetAsOpPassManager(manager),
                string_ref(pipeline),
                Some(append_chunk),
                (&raw mut message).cast(),
            );
            let succeeded = parsed.value != 0
                && mlirPassManagerRunOnOp(manager, mlirModuleGetOperation(self.raw)).value != 0;
            mlirPassManagerDestroy(manager);
            (parsed.value != 0, succeeded)
        };
        let mut diagnostics = self.context.take_diagnostics();
        if !parsed {
            diagnostics.push(Diagnostic::error(&String::from_utf8_lossy(&message)));
        }
        if succeeded { Ok(()) } else { Err(diagnostics) }
    }

    /// Kinds and positions of the operations at the module's top level, such as `func.func`.
    pub(super) fn top_level(&self) -> Vec<(String, Option<(usize, usize)>)> {
        let mut found = Vec::new();
        // SAFETY: the module is alive and not changed during the walk; identifiers and locations live in its context.
        unsafe {
            let mut op = mlirBlockGetFirstOperation(mlirModuleGetBody(self.raw));
            while !op.ptr.is_null() {
                let name = mlirIdentifierStr(mlirOperationGetName(op));
                let name = std::slice::from_raw_parts(name.data.cast::<u8>(), name.length);
                let position = read_position(mlirOperationGetLocation(op));
                found.push((String::from_utf8_lossy(name).into_owned(), position));
                op = mlirOperationGetNextInBlock(op);
            }
        }
        found
    }

    /// Translates a module of the LLVM dialect into LLVM IR in a context of its own.
    pub(super) fn to_llvm(&self) -> Result<LlvmModule, Vec<Diagnostic>> {
        let diagnostics: Box<Collected> = Box::default();
        // SAFETY: the new LLVM context is disposed of here or by `LlvmModule`; the handler's box lives as long as the context.
        unsafe {
            let context = LLVMContextCreate();
            let user = (&raw const *diagnostics).cast_mut().cast();
            // Without a handler LLVM ends the process on an error.
            LLVMContextSetDiagnosticHandler(context, Some(on_llvm_diagnostic), user);
            let module = mlirTranslateModuleToLLVMIR(mlirModuleGetOperation(self.raw), context);
            if module.is_null() {
                LLVMContextDispose(context);
                return Err(self.context.take_diagnostics());
            }
            Ok(LlvmModule { module, context, diagnostics })
        }
    }
}

impl Drop for Module<'_> {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once, before the context it borrows.
        unsafe { mlirModuleDestroy(self.raw) };
    }
}

/// LLVM's code generator for one triple, CPU and feature set: O3, position-independent code.
pub(super) struct Machine {
    raw: *mut OpaqueTargetMachine,
    triple: CString,
    _not_send: PhantomData<*mut ()>,
}

impl Machine {
    /// Errors with LLVM's message when it has no generator for the triple.
    pub(super) fn new(triple: &str, cpu: &str, features: &str) -> Result<Machine, String> {
        initialise();
        let c_string = |text: &str| CString::new(text).map_err(|_| format!("`{text}` contains a NUL byte"));
        let (triple, cpu, features) = (c_string(triple)?, c_string(cpu)?, c_string(features)?);
        let mut target = ptr::null_mut();
        let mut error = ptr::null_mut();
        // SAFETY: all strings are NUL-terminated and alive during the calls; `target` is only used after success.
        let raw = unsafe {
            if LLVMGetTargetFromTriple(triple.as_ptr(), &mut target, &mut error) != 0 {
                return Err(take_message(error));
            }
            LLVMCreateTargetMachine(
                target,
                triple.as_ptr(),
                cpu.as_ptr(),
                features.as_ptr(),
                CODEGEN_AGGRESSIVE,
                RELOC_PIC,
                CODE_MODEL_SMALL,
            )
        };
        if raw.is_null() {
            return Err("LLVM made no target machine".into());
        }
        Ok(Machine { raw, triple, _not_send: PhantomData })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once.
        unsafe { LLVMDisposeTargetMachine(self.raw) };
    }
}

/// A module of LLVM IR with the context that owns its types.
pub(super) struct LlvmModule {
    module: LLVMModuleRef,
    context: LLVMContextRef,
    diagnostics: Box<Collected>,
}

impl LlvmModule {
    /// Makes every function a kernel that a GPU can launch.
    pub(super) fn make_kernels(&mut self) {
        // SAFETY: the module is alive; the walk ends with its last function.
        unsafe {
            let mut function = LLVMGetFirstFunction(self.module);
            while !function.is_null() {
                if LLVMIsDeclaration(function) == 0 {
                    LLVMSetFunctionCallConv(function, CALL_PTX_KERNEL);
                }
                function = LLVMGetNextFunction(function);
            }
        }
    }

    /// Verifies the module, sets the machine's triple and data layout, then runs `default<O3>`, on a CPU without loop
    /// unrolling.
    ///
    /// The vectoriser interleaves four vectors by itself. Unrolling harms: done before it, loops of 16 or 32 turn into scalar code
    /// (RMSNorm of 32 columns 7 GB/s rather than 63); done after it, reassociation threads the four sums onto one chain of
    /// FMAs (512 columns: 62 GB/s rather than 92). It also costs 1.5 to 15 times the compile time.
    pub(super) fn optimise(&mut self, machine: &Machine, unroll: bool) -> Result<(), Vec<Diagnostic>> {
        let mut message = ptr::null_mut();
        // SAFETY: the module is alive; the message is always set, and ours to free. LLVM's passes may end the process on
        // IR that does not verify.
        let message = unsafe {
            let broken = LLVMVerifyModule(self.module, VERIFIER_RETURN_STATUS, &mut message) != 0;
            let text = take_message(message);
            broken.then_some(text)
        };
        if message.is_some() {
            return self.outcome(message);
        }
        // SAFETY: module and machine are alive; every object made here is freed here; LLVM copies the strings.
        let message = unsafe {
            LLVMSetTarget(self.module, machine.triple.as_ptr());
            let data = LLVMCreateTargetDataLayout(machine.raw);
            let layout = LLVMCopyStringRepOfTargetData(data);
            LLVMSetDataLayout(self.module, layout);
            LLVMDisposeMessage(layout);
            LLVMDisposeTargetData(data);
            let options = LLVMCreatePassBuilderOptions();
            LLVMPassBuilderOptionsSetLoopUnrolling(options, unroll.into());
            let error = LLVMRunPasses(self.module, c"default<O3>".as_ptr(), machine.raw, options);
            LLVMDisposePassBuilderOptions(options);
            if error.is_null() {
                None
            } else {
                let message = LLVMGetErrorMessage(error);
                let text = CStr::from_ptr(message).to_string_lossy().into_owned();
                LLVMDisposeErrorMessage(message);
                Some(text)
            }
        };
        self.outcome(message)
    }

    /// The module in LLVM's text form.
    pub(super) fn to_text(&self) -> String {
        // SAFETY: the module is alive, and the string is ours to free.
        unsafe { take_message(LLVMPrintModuleToString(self.module)) }
    }

    /// Assembly text or the bytes of an object file.
    pub(super) fn emit(
        &mut self,
        machine: &Machine,
        file_type: FileType,
    ) -> Result<Vec<u8>, Vec<Diagnostic>> {
        let mut error = ptr::null_mut();
        let mut buffer = ptr::null_mut();
        // SAFETY: module and machine are alive; the buffer is read and freed only after success, the message only after failure.
        let (bytes, message) = unsafe {
            let failed = LLVMTargetMachineEmitToMemoryBuffer(
                machine.raw,
                self.module,
                file_type as c_int,
                &mut error,
                &mut buffer,
            ) != 0;
            if failed {
                (Vec::new(), Some(take_message(error)))
            } else {
                let (start, size) = (LLVMGetBufferStart(buffer), LLVMGetBufferSize(buffer));
                let bytes = std::slice::from_raw_parts(start.cast::<u8>(), size).to_vec();
                LLVMDisposeMemoryBuffer(buffer);
                (bytes, None)
            }
        };
        self.outcome(message).map(|()| bytes)
    }

    /// Errors when LLVM returned a message or reported a diagnostic of severity error.
    fn outcome(&self, message: Option<String>) -> Result<(), Vec<Diagnostic>> {
        let mut diagnostics = self.diagnostics.take();
        diagnostics.extend(message.map(|text| Diagnostic::error(text.trim())));
        if diagnostics.is_empty() { Ok(()) } else { Err(diagnostics) }
    }
}

impl Drop for LlvmModule {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once, the module before its context.
        unsafe {
            LLVMDisposeModule(self.module);
            LLVMContextDispose(self.context);
        }
    }
}
