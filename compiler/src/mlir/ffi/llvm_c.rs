//! Declarations from LLVM's C headers that `mlir_sys` has no bindings for: targets, target machines, the pass builder.

use super::{LLVMBool, LLVMMemoryBufferRef, LLVMModuleRef};
use std::ffi::{c_char, c_int};

#[repr(C)]
pub struct OpaqueTarget {
    _private: [u8; 0],
}
#[repr(C)]
pub struct OpaqueTargetMachine {
    _private: [u8; 0],
}
#[repr(C)]
pub struct OpaqueTargetData {
    _private: [u8; 0],
}
#[repr(C)]
pub struct OpaquePassOptions {
    _private: [u8; 0],
}
#[repr(C)]
pub struct OpaqueError {
    _private: [u8; 0],
}

// llvm-c/Target.h, llvm-c/TargetMachine.h, llvm-c/Transforms/PassBuilder.h, llvm-c/Error.h and llvm-c/Analysis.h of LLVM 22.
unsafe extern "C" {
    pub fn LLVMInitializeX86TargetInfo();
    pub fn LLVMInitializeX86Target();
    pub fn LLVMInitializeX86TargetMC();
    pub fn LLVMInitializeX86AsmPrinter();
    pub fn LLVMInitializeX86AsmParser();
    pub fn LLVMInitializeAArch64TargetInfo();
    pub fn LLVMInitializeAArch64Target();
    pub fn LLVMInitializeAArch64TargetMC();
    pub fn LLVMInitializeAArch64AsmPrinter();
    pub fn LLVMInitializeAArch64AsmParser();
    pub fn LLVMInitializeNVPTXTargetInfo();
    pub fn LLVMInitializeNVPTXTarget();
    pub fn LLVMInitializeNVPTXTargetMC();
    pub fn LLVMInitializeNVPTXAsmPrinter();
    pub fn LLVMGetDefaultTargetTriple() -> *mut c_char;
    pub fn LLVMGetHostCPUName() -> *mut c_char;
    pub fn LLVMGetHostCPUFeatures() -> *mut c_char;
    pub fn LLVMGetTargetFromTriple(
        triple: *const c_char,
        target: *mut *mut OpaqueTarget,
        error: *mut *mut c_char,
    ) -> LLVMBool;
    pub fn LLVMCreateTargetMachine(
        target: *mut OpaqueTarget,
        triple: *const c_char,
        cpu: *const c_char,
        features: *const c_char,
        level: c_int,
        reloc: c_int,
        code_model: c_int,
    ) -> *mut OpaqueTargetMachine;
    pub fn LLVMDisposeTargetMachine(machine: *mut OpaqueTargetMachine);
    pub fn LLVMCreateTargetDataLayout(machine: *mut OpaqueTargetMachine) -> *mut OpaqueTargetData;
    pub fn LLVMCopyStringRepOfTargetData(data: *mut OpaqueTargetData) -> *mut c_char;
    pub fn LLVMDisposeTargetData(data: *mut OpaqueTargetData);
    pub fn LLVMTargetMachineEmitToMemoryBuffer(
        machine: *mut OpaqueTargetMachine,
        module: LLVMModuleRef,
        file_type: c_int,
        error: *mut *mut c_char,
        buffer: *mut LLVMMemoryBufferRef,
    ) -> LLVMBool;
    pub fn LLVMVerifyModule(module: LLVMModuleRef, action: c_int, message: *mut *mut c_char) -> LLVMBool;
    pub fn LLVMCreatePassBuilderOptions() -> *mut OpaquePassOptions;
    pub fn LLVMPassBuilderOptionsSetLoopUnrolling(options: *mut OpaquePassOptions, unroll: LLVMBool);
    pub fn LLVMDisposePassBuilderOptions(options: *mut OpaquePassOptions);
    pub fn LLVMRunPasses(
        module: LLVMModuleRef,
        passes: *const c_char,
        machine: *mut OpaqueTargetMachine,
        options: *mut OpaquePassOptions,
    ) -> *mut OpaqueError;
    pub fn LLVMGetErrorMessage(error: *mut OpaqueError) -> *mut c_char;
    pub fn LLVMDisposeErrorMessage(message: *mut c_char);
}

pub const CODEGEN_AGGRESSIVE: c_int = 3;
pub const RELOC_PIC: c_int = 2;
pub const CODE_MODEL_SMALL: c_int = 3;
/// llvm::CallingConv::PTX_Kernel: an entry, rather than a function that entries call.
pub const CALL_PTX_KERNEL: u32 = 71;
pub const VERIFIER_RETURN_STATUS: c_int = 2;
