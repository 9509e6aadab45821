//! CUDA C++ to machine code by NVRTC, which is a library of this process and needs no GPU.
//!
//! The library is opened when the first kernel is compiled; a program that compiles none runs without it. Equal sources give
//! equal bytes.

use super::home::{self, Missing};
use super::{Arch, HEADERS, Kernel};
use cudarc::nvrtc::sys;
use std::ffi::{CString, c_char, c_int};
use std::path::Path;
use std::sync::OnceLock;

/// The library's name; its number is that of the CUDA release.
const LIBRARY: &str = "libnvrtc.so.13";

#[derive(Debug, thiserror::Error)]
pub enum NvrtcError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("{path}: {reason}")]
    NotALibrary { path: String, reason: String },
    #[error("{file} for {arch}: NVRTC says {status}\n{log}")]
    Refused { file: String, arch: Arch, status: String, log: String },
    #[error("{file}: a 0 byte in the source or a macro")]
    ZeroByte { file: String },
    #[error("{file} for {arch}: no resources of {entry} in NVRTC's log\n{log}")]
    NoSuchEntry { file: String, arch: Arch, entry: String, log: String },
}

/// What a kernel takes of a multiprocessor, by the assembler's own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    pub entry: String,
    /// Of a thread.
    pub registers: u32,
    /// Bytes a thread writes to local memory for want of registers, and reads back.
    pub spill_stores: u32,
    pub spill_loads: u32,
    /// Bytes of local memory of a thread, spills included.
    pub stack: u32,
    /// Static shared memory of a block, in bytes.
    pub static_shared: u32,
}

/// A compiled source.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Machine code, an ELF file.
    pub cubin: Vec<u8>,
    pub ptx: String,
    pub log: String,
    /// Of each entry point.
    pub resources: Vec<Resources>,
}

impl Compiled {
    /// Those of a kernel that this was compiled from for `arch`.
    pub fn resources_of(&self, kernel: &Kernel, arch: Arch) -> Result<&Resources, NvrtcError> {
        let found = self.resources.iter().find(|r| r.entry == kernel.entry);
        found.ok_or_else(|| NvrtcError::NoSuchEntry {
            file: kernel.source.file().into(),
            arch,
            entry: kernel.entry.into(),
            log: self.log.clone(),
        })
    }
}

/// A kernel's source for a machine, with all its entry points.
pub fn compile_kernel(kernel: &Kernel, arch: Arch) -> Result<Compiled, NvrtcError> {
    compile(kernel.source.file(), kernel.source.text(), arch, &kernel.defines)
}

/// A source for a machine. It may include the [`HEADERS`]; `file` is for messages, `defines` are macros.
pub fn compile(
    file: &str,
    source: &str,
    arch: Arch,
    defines: &[(&str, String)],
) -> Result<Compiled, NvrtcError> {
    open()?;
    let text = |s: &str| CString::new(s).map_err(|_| NvrtcError::ZeroByte { file: file.into() });
    let mut options =
        vec![format!("--gpu-architecture={arch}"), "--std=c++17".into(), "--ptxas-options=-v".into()];
    options.extend(defines.iter().map(|(name, value)| format!("--define-macro={name}={value}")));
    let options: Vec<CString> = options.iter().map(|o| text(o)).collect::<Result<_, _>>()?;
    let (names, headers): (Vec<CString>, Vec<CString>) = HEADERS
        .iter()
        .map(|(name, header)| Ok((text(name)?, text(header)?)))
        .collect::<Result<Vec<_>, NvrtcError>>()?
        .into_iter()
        .unzip();
    let pointers = |texts: &[CString]| -> Vec<*const c_char> { texts.iter().map(|t| t.as_ptr()).collect() };
    let (options, headers_at, names_at) = (pointers(&options), pointers(&headers), pointers(&names));
    let (source, name) = (text(source)?, text(file)?);
    let refused = |status: sys::nvrtcResult, log: String| NvrtcError::Refused {
        file: file.into(),
        arch,
        status: format!("{status:?}"),
        log,
    };

    let mut program = Program(std::ptr::null_mut());
    // SAFETY: the library is open, and all strings live until the program is dropped.
    let status = unsafe {
        sys::nvrtcCreateProgram(
            &mut program.0,
            source.as_ptr(),
            name.as_ptr(),
            headers_at.len() as c_int,
            headers_at.as_ptr(),
            names_at.as_ptr(),
        )
    };
    program.checked(status).map_err(|s| refused(s, String::new()))?;
    // SAFETY: the program was made, and the options are zero-terminated.
    let status = unsafe { sys::nvrtcCompileProgram(program.0, options.len() as c_int, options.as_ptr()) };
    let log = program.bytes(sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog);
    let log = log.map(as_text).map_err(|s| refused(s, String::new()))?;
    program.checked(status).map_err(|s| refused(s, log.clone()))?;
    let cubin =
        program.bytes(sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN).map_err(|s| refused(s, log.clone()))?;
    let ptx = program.bytes(sys::nvrtcGetPTXSize, sys::nvrtcGetPTX).map_err(|s| refused(s, log.clone()))?;
    let resources = resources(&log);
    Ok(Compiled { cubin, ptx: as_text(ptx), log, resources })
}

/// Zero-terminated bytes.
fn as_text(mut bytes: Vec<u8>) -> String {
    bytes.truncate(bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len()));
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Program(sys::nvrtcProgram);

type Size = unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult;
type Get = unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult;

impl Program {
    fn checked(&self, status: sys::nvrtcResult) -> Result<(), sys::nvrtcResult> {
        if status == sys::nvrtcResult::NVRTC_SUCCESS { Ok(()) } else { Err(status) }
    }

    /// One of the program's results.
    fn bytes(&self, size: Size, get: Get) -> Result<Vec<u8>, sys::nvrtcResult> {
        let mut n = 0;
        // SAFETY: the program was made; `get` writes as many bytes as `size` says.
        unsafe {
            self.checked(size(self.0, &mut n))?;
            let mut bytes = vec![0u8; n];
            self.checked(get(self.0, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by nvrtcCreateProgram, and nobody uses it any more.
            unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
        }
    }
}

/// Opens the library where [`home::find`] finds it, and beside it the builtins that it opens by name later. Who asks for an
/// open library by name, as the bindings do, is given that one.
fn open() -> Result<(), NvrtcError> {
    static OPEN: OnceLock<[libloading::Library; 2]> = OnceLock::new();
    if OPEN.get().is_some() {
        return Ok(());
    }
    let path = home::find(LIBRARY)?;
    let library = load(&path)?;
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    // SAFETY: the library is open, and writes two numbers.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    let builtins = load(&home::find(&format!("libnvrtc-builtins.so.{major}.{minor}"))?)?;
    OPEN.get_or_init(|| [library, builtins]);
    Ok(())
}

fn load(path: &Path) -> Result<libloading::Library, NvrtcError> {
    // SAFETY: NVRTC's initialisers only set up the libraries themselves.
    let library = unsafe { libloading::Library::new(path) };
    library.map_err(|e| NvrtcError::NotALibrary { path: path.display().to_string(), reason: e.to_string() })
}

/// What `ptxas -v` says of each entry point.
fn resources(log: &str) -> Vec<Resources> {
    let before = |line: &str, unit: &str| -> Option<u32> {
        let words: Vec<&str> = line.split_once(unit)?.0.split([' ', ',']).collect();
        words.iter().rev().find(|w| !w.is_empty())?.parse().ok()
    };
    let mut found: Vec<Resources> = vec![];
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let entry = rest.split('\'').next().unwrap_or_default().to_string();
            found.push(Resources {
                entry,
                registers: 0,
                spill_stores: 0,
                spill_loads: 0,
                stack: 0,
                static_shared: 0,
            });
        }
        let Some(of) = found.last_mut() else { continue };
        of.stack = before(line, " bytes stack frame").unwrap_or(of.stack);
        of.spill_stores = before(line, " bytes spill stores").unwrap_or(of.spill_stores);
        of.spill_loads = before(line, " bytes spill loads").unwrap_or(of.spill_loads);
        of.registers = before(line, " registers").unwrap_or(of.registers);
        of.static_shared = before(line, " bytes smem").unwrap_or(of.static_shared);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_compiles_to_equal_bytes_and_its_log_is_read() {
        let source = "extern \"C\" __global__ void twice(float* x) { x[threadIdx.x] *= FACTOR; }";
        for arch in Arch::ALL {
            let make = || compile("twice.cu", source, arch, &[("FACTOR", "2.0f".into())]).expect("compiles");
            let made = make();
            assert_eq!(made.cubin[..4], *b"\x7fELF");
            assert_eq!(made.cubin, make().cubin);
            assert!(made.ptx.contains(".entry twice"), "{}", made.ptx);
            let [of] = &made.resources[..] else { panic!("{}", made.log) };
            assert!(of.entry == "twice" && (4..64).contains(&of.registers) && of.spill_stores == 0, "{of:?}");
        }
    }

    #[test]
    fn a_wrong_source_is_refused_with_its_place() {
        let error = compile("wrong.cu", "__global__ void k() {\n  x = 1;\n}", Arch::Sm80, &[]);
        let error = error.expect_err("refused").to_string();
        assert!(error.contains("wrong.cu for sm_80") && error.contains("wrong.cu(2): error"), "{error}");
    }

    #[test]
    fn logs_of_ptxas_are_read() {
        let log = "ptxas info    : Compiling entry function 'a' for 'sm_80'\nptxas info    : Function properties for a\n    \
            8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 400 bytes cmem[0]\n";
        let expected = Resources {
            entry: "a".into(),
            registers: 40,
            spill_stores: 4,
            spill_loads: 12,
            stack: 8,
            static_shared: 1024,
        };
        assert_eq!(resources(log), [expected]);
    }
}
