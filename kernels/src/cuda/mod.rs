//! Hand-written CUDA kernels: their sources, what launches them for which shapes, and what compiles them without a GPU.
//!
//! The CUDA C++ lies in `kernels/cuda`. A [`Call`] is data: buffers by name and launches in order; who runs it needs
//! nothing else of this module. With the feature `nvrtc`, the module `nvrtc` turns a [`Kernel`] into machine code.
//! `kernels/cuda/shim` runs the same sources on the CPU, which is how tests check them.

pub mod attention;
pub mod embedding;
pub mod head;
pub mod home;
#[cfg(feature = "nvrtc")]
pub mod nvrtc;
pub mod occupancy;
pub mod optimizer;
#[cfg(feature = "nvrtc")]
pub mod sass;
mod source;
#[cfg(feature = "nvrtc")]
pub mod table;

use crate::DType;
pub use source::{HEADERS, Source};
use std::fmt;
use std::str::FromStr;

/// Machines that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// A100.
    Sm80,
    /// H100 and H200, with the instructions that later machines do not have.
    Sm90a,
}

impl Arch {
    pub const ALL: [Arch; 2] = [Arch::Sm80, Arch::Sm90a];

    pub fn name(self) -> &'static str {
        match self {
            Arch::Sm80 => "sm_80",
            Arch::Sm90a => "sm_90a",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|a| a.name() == s);
        known.ok_or_else(|| format!("unknown architecture `{s}`; one of sm_80, sm_90a"))
    }
}

/// What is compiled: one entry point of a source with its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel {
    pub source: Source,
    pub entry: &'static str,
    /// Macros, `-D NAME=VALUE`.
    pub defines: Vec<(&'static str, String)>,
}

/// An argument of a kernel, in the order of its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// The address of the [`Call`]'s buffer of this name.
    Buffer(&'static str),
    I32(i32),
    F32(f32),
}

/// One kernel on a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    pub kernel: Kernel,
    /// Blocks along x, y and z; all of them at least 1.
    pub grid: [u32; 3],
    /// Threads of a block, along x.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes. More than 48 KiB must be allowed by the function's attribute first.
    pub shared_bytes: u32,
    pub arguments: Vec<Argument>,
}

/// Who fills a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Read only.
    Input,
    /// Written, never read before.
    Output,
    /// Read and written.
    InOut,
    /// Any content at entry.
    Workspace,
}

/// Device memory that a call touches, aligned to 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub name: &'static str,
    pub dtype: DType,
    pub elements: usize,
    pub role: Role,
}

/// Launches that follow one another on a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub buffers: Vec<Buffer>,
    pub launches: Vec<Launch>,
}

/// Shapes that no kernel is made for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ShapeError {
    #[error("CUDA kernels: d_head = {found}; allowed are {allowed}")]
    HeadSize { found: usize, allowed: &'static str },
    #[error("CUDA kernels: elements of type {found}; allowed are {allowed}")]
    Element { found: DType, allowed: &'static str },
    #[error(
        "CUDA kernels: rows of {found} elements; they must be a multiple of {multiple}, to be read 16 bytes at a time"
    )]
    Width { found: usize, multiple: usize },
    #[error("CUDA kernels: {what} = {found}; allowed are 1 to {most}")]
    Count { what: &'static str, found: usize, most: usize },
}

/// `found` as a grid extent or an `int` of a kernel.
fn count(what: &'static str, found: usize, most: u32) -> Result<u32, ShapeError> {
    let fits = u32::try_from(found).ok().filter(|&n| n >= 1 && n <= most);
    fits.ok_or(ShapeError::Count { what, found, most: most as usize })
}

/// The most blocks along y and z.
const MOST_BLOCKS: u32 = 65_535;
/// The largest `int`.
const MOST: u32 = i32::MAX as u32;

/// The name of an element type in CUDA C++.
fn element(dtype: DType) -> Result<&'static str, ShapeError> {
    match dtype {
        DType::F32 => Ok("float"),
        DType::Bf16 => Ok("bf16"),
        found => Err(ShapeError::Element { found, allowed: "f32 and bf16" }),
    }
}

fn buffer(name: &'static str, dtype: DType, elements: usize, role: Role) -> Buffer {
    Buffer { name, dtype, elements, role }
}
