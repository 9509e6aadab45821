//! PTX to machine code of a GPU, through NVIDIA's assembler.

use super::MlirError;
use crate::machine::Arch;
use serde::Serialize;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the folder of CUDA's programs.
pub const CUDA_HOME: &str = "ISOFLOP_CUDA_HOME";
/// Where `scripts/setup.sh` puts them.
const FETCHED: &str = "third_party/cuda";

/// What the assembler says of one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resources {
    pub kernel: String,
    /// Of a thread.
    pub registers: u32,
    /// Bytes that a thread stores to and loads from local memory because registers are too few.
    pub spill_stores: u32,
    pub spill_loads: u32,
    /// Bytes of a block.
    pub shared_memory: u32,
}

/// A CUBIN and what its kernels need, in the order of the PTX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    pub cubin: Vec<u8>,
    pub kernels: Vec<Resources>,
}

/// The assembler: below the folder that `ISOFLOP_CUDA_HOME` names, else in `third_party/cuda`, else on the PATH.
pub fn ptxas() -> PathBuf {
    let home = std::env::var_os(CUDA_HOME).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folders = home.iter().map(PathBuf::as_path).chain([Path::new(FETCHED)]);
    folders.into_iter().find_map(ptxas_below).unwrap_or_else(|| "ptxas".into())
}

/// The assembler of CUDA's programs in this folder, as NVIDIA's installer or its Python packages lay them out.
pub fn ptxas_below(folder: &Path) -> Option<PathBuf> {
    let places = ["bin/ptxas", "nvidia/cu13/bin/ptxas"].map(|p| folder.join(p));
    places.into_iter().find(|p| p.is_file())
}

/// Assembles one module for this architecture.
///
/// # Errors
/// `NoAssembler` when there is none, `Assemble` with its message when it fails, `Io` for files.
pub fn assemble(ptx: &str, arch: Arch, ptxas: &Path) -> Result<Assembled, MlirError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| MlirError::Io { path, source }
    };
    let scratch = tempfile::tempdir().map_err(io(&std::env::temp_dir()))?;
    let (source, result) = (scratch.path().join("kernels.ptx"), scratch.path().join("kernels.cubin"));
    std::fs::write(&source, ptx).map_err(io(&source))?;
    let output = Command::new(ptxas)
        .env("LC_ALL", "C")
        .args(["--verbose", "--gpu-name", arch.name(), "--output-file"])
        .args([&result, &source])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => MlirError::NoAssembler,
            _ => MlirError::Io { path: ptxas.to_owned(), source: error },
        })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(MlirError::Assemble {
            status: output.status.to_string(),
            stderr: said.trim().to_owned(),
        });
    }
    let cubin = std::fs::read(&result).map_err(io(&result))?;
    Ok(Assembled { cubin, kernels: resources(&said) })
}

/// What `ptxas --verbose` reports, kernel by kernel.
fn resources(said: &str) -> Vec<Resources> {
    let mut kernels: Vec<Resources> = Vec::new();
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            let (registers, spill_stores, spill_loads, shared_memory) = (0, 0, 0, 0);
            kernels.push(Resources { kernel, registers, spill_stores, spill_loads, shared_memory });
        }
        let Some(last) = kernels.last_mut() else { continue };
        for part in line.rsplit(": ").next().unwrap_or_default().split(',') {
            let number = part.split_whitespace().find_map(|w| w.parse::<u32>().ok());
            let field = match () {
                () if part.contains("spill stores") => &mut last.spill_stores,
                () if part.contains("spill loads") => &mut last.spill_loads,
                () if part.contains("registers") => &mut last.registers,
                () if part.ends_with("smem") => &mut last.shared_memory,
                () => continue,
            };
            *field = number.unwrap_or(*field);
        }
    }
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_from_what_the_assembler_says() {
        let said = "ptxas info    : 0 bytes gmem\n\
                    ptxas info    : Compiling entry function 'a' for 'sm_90'\n\
                    ptxas info    : Function properties for a\n\
                    \x20   8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
                    ptxas info    : Used 20 registers, used 1 barriers, 1024 bytes smem\n\
                    ptxas info    : Compile time = 2.0 ms\n\
                    ptxas info    : Compiling entry function 'b' for 'sm_90'\n\
                    \x20   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
                    ptxas info    : Used 8 registers\n";
        let of = |kernel: &str, registers, spill_stores, spill_loads, shared_memory| Resources {
            kernel: kernel.into(),
            registers,
            spill_stores,
            spill_loads,
            shared_memory,
        };
        assert_eq!(resources(said), [of("a", 20, 4, 12, 1024), of("b", 8, 0, 0, 0)]);
    }

    #[test]
    fn without_an_assembler_the_message_says_what_to_install() {
        let missing = assemble("", Arch::Sm90, Path::new("/nowhere/ptxas")).expect_err("nothing there");
        assert!(missing.to_string().contains("scripts/setup.sh"), "{missing}");
    }
}
