//! The machine that kernels are lowered for, as far as it shapes them: a CPU, or an NVIDIA GPU with its facts as data.

use crate::graph::{Binary, Op, Unary};
use isoflop_kernels::DType;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// What kernels run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Machine {
    /// Tasks of rows for the threads of a CPU.
    #[default]
    Cpu,
    /// Grids of blocks for a GPU.
    Cuda(Cuda),
}

impl Machine {
    /// For messages: `CPU` or `GPU`.
    pub fn name(&self) -> &'static str {
        match self {
            Machine::Cpu => "CPU",
            Machine::Cuda(_) => "GPU",
        }
    }

    /// Can a kernel do this elementwise operation with results of this type? A GPU has instructions for all but powers, and
    /// exponentials and the like of f64.
    pub fn has(&self, op: &Op, d: DType) -> bool {
        match (self, op) {
            (Machine::Cpu, _) => true,
            (_, Op::Binary(Binary::Pow)) => false,
            (_, Op::Unary(Unary::Exp | Unary::Log | Unary::Tanh | Unary::Sin | Unary::Cos)) => {
                d != DType::F64
            }
            _ => true,
        }
    }
}

/// An NVIDIA GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cuda {
    pub arch: Arch,
    /// Streaming multiprocessors: how many blocks of a kernel run at once follows from it. `cores` of a device description.
    pub multiprocessors: usize,
}

/// A GPU architecture that kernels can be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// Ampere: A100.
    Sm80,
    /// Hopper: H100, H200; runs on later ones too.
    Sm90,
    /// Hopper alone, with its own instructions.
    Sm90a,
}

#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown GPU architecture `{found}`; allowed are {}", Arch::NAMES.join(", "))]
pub struct UnknownArch {
    pub found: String,
}

impl Arch {
    pub const ALL: [Arch; 3] = [Arch::Sm80, Arch::Sm90, Arch::Sm90a];
    pub const NAMES: [&str; 3] = ["sm_80", "sm_90", "sm_90a"];

    /// The name that LLVM and ptxas know.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Sm80 => "sm_80",
            Arch::Sm90 => "sm_90",
            Arch::Sm90a => "sm_90a",
        }
    }

    /// Version of PTX that is written, ten times: 8.0, which every driver of CUDA 12 and later reads, and the first
    /// that has `sm_90a`.
    pub fn ptx_version(self) -> u32 {
        80
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads one of [`Arch::NAMES`].
impl FromStr for Arch {
    type Err = UnknownArch;

    fn from_str(name: &str) -> Result<Arch, UnknownArch> {
        let found = Arch::ALL.into_iter().find(|a| a.name() == name);
        found.ok_or_else(|| UnknownArch { found: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for (arch, name) in Arch::ALL.into_iter().zip(Arch::NAMES) {
            assert_eq!((arch.name(), name.parse()), (name, Ok(arch)));
        }
        let message = "sm_75".parse::<Arch>().expect_err("too old").to_string();
        assert_eq!(message, "unknown GPU architecture `sm_75`; allowed are sm_80, sm_90, sm_90a");
    }
}
