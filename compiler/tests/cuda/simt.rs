//! Runs CUDA kernels on the CPU: builds their sources with kernels/cuda/shim, and launches grids on memory with guards.

use isoflop_kernels::DType;
use isoflop_kernels::cuda::{Argument, Call, Launch, Role};
use libloading::Library;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

/// Bytes before and after a region that nobody may touch, and what they hold.
const GUARD: usize = 256;
const GUARD_BYTE: u8 = 0xa5;
/// What memory holds before it is written: NaN as bf16, as f32 and as f64.
pub const POISON: u8 = 0xff;

/// Memory of the device, aligned to 16 bytes.
pub struct Region {
    storage: Vec<u128>,
    bytes: usize,
}

impl Region {
    pub fn new(bytes: usize) -> Self {
        let storage = vec![u128::from_ne_bytes([GUARD_BYTE; 16]); (bytes + 2 * GUARD).div_ceil(16)];
        let mut region = Region { storage, bytes };
        region.bytes_mut().fill(POISON);
        region
    }

    /// With values as a type keeps them.
    pub fn of(values: &[f64], dtype: DType) -> Self {
        let mut region = Self::new(values.len() * dtype.bytes());
        for (to, &x) in region.bytes_mut().chunks_mut(dtype.bytes()).zip(values) {
            match dtype {
                DType::F32 => to.copy_from_slice(&(x as f32).to_ne_bytes()),
                DType::Bf16 => to.copy_from_slice(&to_bf16(x as f32).to_ne_bytes()),
                DType::I32 => to.copy_from_slice(&(x as i32).to_ne_bytes()),
                _ => panic!("no regions of {dtype}"),
            }
        }
        region
    }

    pub fn address(&self) -> u64 {
        self.storage.as_ptr() as u64 + GUARD as u64
    }

    fn all(&self) -> &[u8] {
        // SAFETY: any byte of the vector may be read.
        unsafe { std::slice::from_raw_parts(self.storage.as_ptr().cast(), self.storage.len() * 16) }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.all()[GUARD..][..self.bytes]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: any byte of the vector may be written.
        let all = unsafe {
            std::slice::from_raw_parts_mut(self.storage.as_mut_ptr().cast::<u8>(), self.storage.len() * 16)
        };
        &mut all[GUARD..][..self.bytes]
    }

    /// Elements as f64.
    pub fn values(&self, dtype: DType) -> Vec<f64> {
        let element = |b: &[u8]| match dtype {
            DType::F32 => f64::from(f32::from_ne_bytes([b[0], b[1], b[2], b[3]])),
            DType::Bf16 => f64::from(f32::from_bits(u32::from(u16::from_ne_bytes([b[0], b[1]])) << 16)),
            _ => panic!("no values of {dtype}"),
        };
        self.bytes().chunks(dtype.bytes()).map(element).collect()
    }

    fn guards_are_whole(&self) -> bool {
        let all = self.all();
        all[..GUARD].iter().chain(&all[GUARD + self.bytes..]).all(|&b| b == GUARD_BYTE)
    }
}

/// To nearest, ties to even.
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// `x` as a type keeps it.
pub fn rounded(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(x as f32),
        DType::Bf16 => f64::from(f32::from_bits(u32::from(to_bf16(x as f32)) << 16)),
        _ => x,
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/cuda")
}

type Key = (String, Vec<(&'static str, String)>);

/// A source as a library of the CPU, built once for each set of macros.
fn library(file: &str, text: &str, defines: &[(&'static str, String)]) -> Arc<Library> {
    type Built = Arc<OnceLock<Arc<Library>>>;
    static BUILT: OnceLock<Mutex<HashMap<Key, Built>>> = OnceLock::new();
    let mut all = BUILT.get_or_init(Mutex::default).lock().expect("no test panicked here");
    let built = all.entry((file.to_string(), defines.to_vec())).or_default().clone();
    drop(all);
    built.get_or_init(|| Arc::new(build(file, text, defines))).clone()
}

fn build(file: &str, text: &str, defines: &[(&'static str, String)]) -> Library {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (source, object) = (folder.path().join(file), folder.path().join("kernel.so"));
    std::fs::write(&source, text).expect("written");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let output = Command::new(compiler)
        .args([
            "-std=c++17",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-fPIC",
            "-shared",
        ])
        // Stacks are switched by longjmp, which a fortified one refuses.
        .args(["-U_FORTIFY_SOURCE", "-DISOFLOP_SIMT", "-x", "c++"])
        .args(defines.iter().map(|(name, value)| format!("-D{name}={value}")))
        .arg("-I")
        .arg(sources())
        .arg("-I")
        .arg(sources().join("shim"))
        .arg(&source)
        .arg("-o")
        .arg(&object)
        .output()
        .expect("a C++ compiler (scripts/setup.sh)");
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: the library was just built from our sources and has no initialisers.
    unsafe { Library::new(&object) }.expect("a library")
}

/// Which block and which thread comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

type Run = unsafe extern "C" fn(
    *const c_void,
    *const [u32; 3],
    u32,
    u32,
    *const *const u64,
    *const [u64; 2],
    c_int,
    c_int,
    *mut c_char,
    usize,
) -> c_int;

/// Runs one grid. Arguments that are buffers are looked up in `named`; addresses in memory may also name `others`.
pub fn launch(
    launch: &Launch,
    text: &str,
    named: &BTreeMap<&'static str, Region>,
    others: &[&Region],
    order: Order,
) -> Result<(), String> {
    let library = library(launch.kernel.source.file(), text, &launch.kernel.defines);
    let words: Vec<u64> = launch
        .arguments
        .iter()
        .map(|a| match a {
            Argument::Buffer(name) => named[name].address(),
            Argument::I32(x) => u64::from(*x as u32),
            Argument::F32(x) => u64::from(x.to_bits()),
        })
        .collect();
    let arguments: Vec<*const u64> = words.iter().map(|w| w as *const u64).collect();
    let regions = || named.values().chain(others.iter().copied());
    let buffers: Vec<[u64; 2]> = regions().map(|r| [r.address(), r.bytes as u64]).collect();
    let mut message = [0; 1024];
    let symbol = format!("{}_export", launch.kernel.entry);
    // SAFETY: the shim has this signature, checks every access of the kernel against the buffers, and writes the message.
    let status = unsafe {
        let run = library.get::<Run>(b"simt_launch").expect("the shim's entry");
        let kernel = library.get::<unsafe extern "C" fn()>(symbol.as_bytes()).expect("an exported kernel");
        run(
            *kernel as *const c_void,
            &launch.grid,
            launch.threads,
            launch.shared_bytes,
            arguments.as_ptr(),
            buffers.as_ptr(),
            buffers.len() as c_int,
            c_int::from(order == Order::Descending),
            message.as_mut_ptr(),
            message.len(),
        )
    };
    assert!(regions().all(Region::guards_are_whole), "{}: a guard was overwritten", launch.kernel.entry);
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the shim ends its message with 0.
    let message = unsafe { CStr::from_ptr(message.as_ptr()) };
    Err(format!("{}: {}", launch.kernel.entry, message.to_string_lossy()))
}

/// Runs a call on inputs by name; the regions of all buffers afterwards.
pub fn run(
    call: &Call,
    inputs: &BTreeMap<&'static str, Vec<f64>>,
    others: &[&Region],
    order: Order,
) -> BTreeMap<&'static str, Region> {
    let mut named = BTreeMap::new();
    for buffer in &call.buffers {
        let region = match buffer.role {
            Role::Input | Role::InOut => {
                let values = inputs.get(buffer.name).unwrap_or_else(|| panic!("no input {}", buffer.name));
                assert_eq!(values.len(), buffer.elements, "{}", buffer.name);
                Region::of(values, buffer.dtype)
            }
            Role::Output | Role::Workspace => Region::new(buffer.elements * buffer.dtype.bytes()),
        };
        named.insert(buffer.name, region);
    }
    for each in &call.launches {
        let before: Vec<(&str, Vec<u8>)> = call
            .buffers
            .iter()
            .filter(|b| b.role == Role::Input)
            .map(|b| (b.name, named[b.name].bytes().to_vec()))
            .collect();
        launch(each, each.kernel.source.text(), &named, others, order).unwrap_or_else(|e| panic!("{e}"));
        for (name, bytes) in before {
            assert!(named[name].bytes() == bytes, "{}: input {name} was written", each.kernel.entry);
        }
    }
    named
}

/// The output of a call as f64.
pub fn output(call: &Call, regions: &BTreeMap<&'static str, Region>, name: &str) -> Vec<f64> {
    let buffer = call.buffers.iter().find(|b| b.name == name).expect("a buffer of the call");
    regions[name].values(buffer.dtype)
}
