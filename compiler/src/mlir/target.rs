//! The machine that code is generated for: a triple, a CPU name and its features, in LLVM's words.

use super::{MlirError, ffi};
use crate::machine::Arch;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// A target machine. Equal targets give byte-identical code for equal input.
///
/// Made by name only: LLVM falls back to the triple's baseline on a CPU name it does not know, and ends the process on a 32-bit one.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Target {
    /// LLVM triple, such as `x86_64-unknown-linux-gnu`.
    pub triple: String,
    /// LLVM CPU name, such as `x86-64-v3` or `znver4`.
    pub cpu: String,
    /// Comma-separated LLVM features, such as `+avx2,-avx512f`; may be empty.
    pub features: String,
}

const X86_64_TRIPLE: &str = "x86_64-unknown-linux-gnu";
const CUDA_TRIPLE: &str = "nvptx64-nvidia-cuda";
const AARCH64_TRIPLE: &str = "aarch64-unknown-linux-gnu";

impl Target {
    /// The names `parse` takes.
    pub const NAMES: [&str; 6] = ["native", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"];

    /// This machine, with all features its CPU and operating system have. Code for it may not run elsewhere.
    pub fn host() -> Target {
        let (triple, cpu, features) = ffi::host();
        Target { triple, cpu, features }
    }

    /// Any x86-64: SSE2.
    pub fn x86_64() -> Target {
        Target::x86("x86-64")
    }

    /// SSE4.2 and POPCNT: Intel Nehalem (2008), AMD Bulldozer (2011).
    pub fn x86_64_v2() -> Target {
        Target::x86("x86-64-v2")
    }

    /// AVX2, FMA, BMI, F16C: Intel Haswell (2013), AMD Zen (2017). The safe choice for a cluster of mixed nodes.
    pub fn x86_64_v3() -> Target {
        Target::x86("x86-64-v3")
    }

    /// AVX-512 F, BW, CD, DQ and VL: Intel Skylake-X (2017), AMD Zen 4 (2022).
    pub fn x86_64_v4() -> Target {
        Target::x86("x86-64-v4")
    }

    /// Any 64-bit ARM: NEON.
    pub fn aarch64() -> Target {
        Target { triple: AARCH64_TRIPLE.into(), cpu: "generic".into(), features: "+neon".into() }
    }

    /// An NVIDIA GPU. The version of PTX is always named: without, LLVM ends the process where its default is too old.
    pub fn cuda(arch: Arch) -> Target {
        let features = format!("+ptx{}", arch.ptx_version());
        Target { triple: CUDA_TRIPLE.into(), cpu: arch.name().into(), features }
    }

    /// Kernels for it become PTX.
    pub fn is_cuda(&self) -> bool {
        self.triple == CUDA_TRIPLE
    }

    fn x86(level: &str) -> Target {
        Target { triple: X86_64_TRIPLE.into(), cpu: level.into(), features: String::new() }
    }
}

/// Reads one of `Target::NAMES`.
impl FromStr for Target {
    type Err = MlirError;

    fn from_str(name: &str) -> Result<Target, MlirError> {
        match name {
            "native" => Ok(Target::host()),
            "x86-64" => Ok(Target::x86_64()),
            "x86-64-v2" => Ok(Target::x86_64_v2()),
            "x86-64-v3" => Ok(Target::x86_64_v3()),
            "x86-64-v4" => Ok(Target::x86_64_v4()),
            "aarch64" => Ok(Target::aarch64()),
            _ => Err(MlirError::UnknownTarget { found: name.to_owned() }),
        }
    }
}

/// The CPU and triple, for messages: `x86-64-v3 (x86_64-unknown-linux-gnu)`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.cpu, self.triple)
    }
}
