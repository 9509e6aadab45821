//! Accesses to global memory in machine code, counted by their width in what nvdisasm prints.

use super::home::{self, Missing};
use std::collections::BTreeMap;
use std::process::Command;

#[derive(Debug, thiserror::Error)]
pub enum SassError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("nvdisasm: {0}")]
    Io(#[from] std::io::Error),
    #[error("nvdisasm ended with {status}: {message}")]
    Refused { status: std::process::ExitStatus, message: String },
}

/// Instructions of a kernel that read or write global memory, each counted once however often it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accesses {
    /// Of 16 bytes by each thread.
    pub wide: u32,
    /// Of less.
    pub narrow: u32,
    /// Products of matrices on tensor cores.
    pub products: u32,
    /// Reads and writes of local memory.
    pub local: u32,
}

/// The accesses of each entry point of a CUBIN.
pub fn accesses(cubin: &[u8]) -> Result<BTreeMap<String, Accesses>, SassError> {
    let program = home::find("nvdisasm")?;
    let mut file = tempfile::NamedTempFile::with_suffix(".cubin")?;
    std::io::Write::write_all(&mut file, cubin)?;
    let output = Command::new(program).arg("--print-code").arg(file.path()).output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(SassError::Refused { status: output.status, message });
    }
    Ok(count(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines such as `.text.name:` and `  /*0120*/  @P0 LDG.E.128.CONSTANT R4, [R2.64] ;`.
fn count(listing: &str) -> BTreeMap<String, Accesses> {
    let mut found: BTreeMap<String, Accesses> = BTreeMap::new();
    let mut current = None;
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix(".text.").and_then(|l| l.strip_suffix(':')) {
            current = Some(found.entry(name.to_string()).or_default());
        }
        let (Some(of), Some((_, code))) = (current.as_deref_mut(), line.split_once("*/")) else { continue };
        let mut words = code.split_whitespace();
        let Some(operation) = words.find(|w| !w.starts_with('@')) else { continue };
        let parts: Vec<&str> = operation.trim_end_matches(';').split('.').collect();
        match parts[0] {
            "LDG" | "STG" | "LDGSTS" | "LD" | "ST" if parts.contains(&"128") => of.wide += 1,
            "LDG" | "STG" | "LDGSTS" | "LD" | "ST" => of.narrow += 1,
            "HMMA" | "HGMMA" => of.products += 1,
            "LDL" | "STL" => of.local += 1,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::{Arch, nvrtc};

    #[test]
    fn widths_are_told_apart_in_a_kernel() {
        let source = "extern \"C\" __global__ void k(const float4* a, float4* b, float* c) {
            b[threadIdx.x] = a[threadIdx.x];
            c[threadIdx.x] = 1.0f;
        }";
        for arch in Arch::ALL {
            let made = nvrtc::compile("k.cu", source, arch, &[]).expect("compiles");
            let of = accesses(&made.cubin).expect("a listing")["k"];
            assert_eq!(of, Accesses { wide: 2, narrow: 1, products: 0, local: 0 }, "{arch}");
        }
    }
}
