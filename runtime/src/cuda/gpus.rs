//! Which GPUs this machine has, and which kernels each of them runs.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute};
use serde::Serialize;

/// The oldest driver whose PTX the compiler writes: 8.0, which CUDA 12.0 brought.
const OLDEST_DRIVER: i32 = 12_000;

/// Why no GPU can be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    #[error("no CUDA driver: libcuda.so.1 is not on this machine, or the loader does not find it")]
    NoDriver,
    #[error(
        "the CUDA driver is too old: it is of CUDA {}, kernels need one of CUDA {} or later",
        version(*found), version(OLDEST_DRIVER)
    )]
    OldDriver { found: i32 },
    #[error("the CUDA driver finds no GPU ({message})")]
    NoGpu { message: String },
    #[error("the CUDA driver could not {what}: {message}")]
    Driver { what: &'static str, message: String },
}

/// `12.4` of 12040.
fn version(number: i32) -> String {
    format!("{}.{}", number / 1_000, number % 1_000 / 10)
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    pub index: i32,
    pub name: String,
    /// Major and minor.
    pub compute_capability: (i32, i32),
    pub memory_bytes: u64,
    pub multiprocessors: i32,
    pub l2_bytes: i32,
    /// Shared memory that one block can ask for.
    pub shared_bytes_per_block: i32,
    /// Registers of a multiprocessor, 32 bits each.
    pub registers: i32,
    pub kernels: Kernels,
}

/// The kernels that a GPU runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kernels", content = "architecture")]
pub enum Kernels {
    /// Machine code for it.
    Native(&'static str),
    /// PTX of an older architecture, which the driver translates when a program is loaded.
    Translated(&'static str),
    /// It is older than every kernel there is.
    None,
}

impl Kernels {
    /// Of a compute capability: code runs on later minor versions of its major one, PTX on everything later, and what is for
    /// sm_90a on 9.0 alone (CUDA C++ Programming Guide, "Application Compatibility").
    pub fn of((major, minor): (i32, i32)) -> Kernels {
        match (major, minor) {
            (9, 0) => Kernels::Native("sm_90a"),
            (8, _) => Kernels::Native("sm_80"),
            (9.., _) => Kernels::Translated("sm_90"),
            _ => Kernels::None,
        }
    }
}

impl std::fmt::Display for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kernels::Native(arch) => write!(f, "kernels for {arch}"),
            Kernels::Translated(arch) => write!(f, "kernels for {arch}, translated by the driver"),
            Kernels::None => f.write_str("no kernels: they need compute capability 8.0 or later"),
        }
    }
}

/// The driver and its GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpus {
    /// The newest CUDA that the driver can run, `13.0`.
    pub cuda: String,
    pub gpus: Vec<Gpu>,
}

/// Asks the driver.
///
/// # Errors
/// Where there is none, it is too old, it finds no GPU, or a call of it fails.
pub fn gpus() -> Result<Gpus, CudaError> {
    // SAFETY: loads a library by its name and lets it go again; its initialisers are those of the system's driver.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    let failed = |what| move |e: DriverError| CudaError::Driver { what, message: message(e) };
    let mut cuda = 0;
    // SAFETY: writes one integer, and may be called before cuInit.
    unsafe { sys::cuDriverGetVersion(&mut cuda) }.result().map_err(failed("say its version"))?;
    if cuda < OLDEST_DRIVER {
        return Err(CudaError::OldDriver { found: cuda });
    }
    result::init().map_err(|e| match e.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => CudaError::NoGpu { message: message(e) },
        _ => failed("start")(e),
    })?;
    let count = result::device::get_count().map_err(failed("count its GPUs"))?;
    let gpus =
        (0..count).map(|index| gpu(index).map_err(failed("describe a GPU"))).collect::<Result<_, _>>()?;
    Ok(Gpus { cuda: version(cuda), gpus })
}

fn gpu(index: i32) -> Result<Gpu, DriverError> {
    use CUdevice_attribute as A;
    let device = result::device::get(index)?;
    // SAFETY: `device` is one that the driver just gave.
    let value = |attribute| unsafe { result::device::get_attribute(device, attribute) };
    let compute_capability = (
        value(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        value(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    Ok(Gpu {
        index,
        name: result::device::get_name(device)?,
        compute_capability,
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device)? } as u64,
        multiprocessors: value(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        l2_bytes: value(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        shared_bytes_per_block: value(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        registers: value(A::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR)?,
        kernels: Kernels::of(compute_capability),
    })
}

/// The driver's name of an error and its sentence, as far as it has them.
fn message(e: DriverError) -> String {
    match (e.error_name(), e.error_string()) {
        (Ok(name), Ok(sentence)) => format!("{}: {}", name.to_string_lossy(), sentence.to_string_lossy()),
        _ => format!("{:?}", e.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_has_its_kernels_or_none() {
        for (capability, kernels) in [
            ((7, 5), Kernels::None),
            ((8, 0), Kernels::Native("sm_80")),
            ((8, 9), Kernels::Native("sm_80")),
            ((9, 0), Kernels::Native("sm_90a")),
            ((10, 0), Kernels::Translated("sm_90")),
            ((12, 1), Kernels::Translated("sm_90")),
        ] {
            assert_eq!(Kernels::of(capability), kernels, "{capability:?}");
        }
    }

    #[test]
    fn an_old_driver_is_named_with_what_is_needed() {
        let said = CudaError::OldDriver { found: 11_080 }.to_string();
        assert!(said.contains("CUDA 11.8") && said.contains("CUDA 12.0 or later"), "{said}");
    }
}
