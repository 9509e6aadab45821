//! `isoflop compile --target sm_90`: kernels for an NVIDIA GPU as PTX, as machine code, and what they need of it.

use super::{Stage, emit};
use crate::cli::Format;
use crate::output;
use isoflop_compiler::driver::{CompileOptions, ProgramPlan, PtxKernel, compile_ptx};
use isoflop_compiler::lower::lower_for;
use isoflop_compiler::machine::{Arch, Cuda, Machine};
use isoflop_compiler::mlir::{self, Emit, Resources, Target};
use isoflop_compiler::ptx::{self, Accesses};
use isoflop_sweeps::device::{Device, Unit};
use miette::{IntoDiagnostic, miette};
use std::str::FromStr;

/// What `--target` names.
#[derive(Clone, Debug)]
pub enum CodeTarget {
    Cpu(Target),
    Cuda(Arch),
}

impl FromStr for CodeTarget {
    type Err = String;

    fn from_str(name: &str) -> Result<CodeTarget, String> {
        if let Ok(arch) = name.parse() {
            return Ok(CodeTarget::Cuda(arch));
        }
        name.parse().map(CodeTarget::Cpu).map_err(|_| {
            format!(
                "allowed are {} for a CPU and {} for a GPU",
                Target::NAMES.join(", "),
                Arch::NAMES.join(", ")
            )
        })
    }
}

impl CodeTarget {
    pub fn for_llvm(&self) -> Target {
        match self {
            CodeTarget::Cpu(target) => target.clone(),
            CodeTarget::Cuda(arch) => Target::cuda(*arch),
        }
    }

    /// Device whose costs and multiprocessors count where none is named.
    pub fn device(&self) -> &'static str {
        match self {
            CodeTarget::Cpu(_) => "cpu",
            CodeTarget::Cuda(Arch::Sm80) => "a100-80g",
            CodeTarget::Cuda(Arch::Sm90 | Arch::Sm90a) => "h100-sxm",
        }
    }
}

/// Does what is to be printed go with the target?
///
/// # Errors
/// For a stage of GPUs without one, and for artifacts of GPUs.
pub fn check(target: &CodeTarget, stage: Option<Stage>, shows: bool) -> miette::Result<()> {
    match target {
        CodeTarget::Cpu(_) if stage.is_some_and(Stage::needs_gpu) => {
            Err(miette!("PTX is for a GPU: name one with --target {}", Arch::NAMES.join(", ")))
        }
        CodeTarget::Cuda(arch) if !shows => Err(miette!(
            "an artifact holds code for a CPU; for {arch} print a stage with --emit: ptx, cubin, sass-stats, plan, mlir, llvm"
        )),
        _ => Ok(()),
    }
}

/// The GPU that kernels of this architecture are spread over.
///
/// # Errors
/// When the device is a CPU.
pub fn machine(arch: Arch, device: &Device) -> miette::Result<Machine> {
    if device.unit != Unit::Device {
        return Err(miette!(
            "the device `{}` is one core of a CPU, and --target {arch} needs a GPU's, such as h100-sxm",
            device.name
        ));
    }
    Ok(Machine::Cuda(Cuda { arch, multiprocessors: device.cores }))
}

/// The training step of this plan for a GPU, as one of the stages.
pub fn show(
    plan: &ProgramPlan,
    machine: Machine,
    arch: Arch,
    stage: Stage,
    compiler: &CompileOptions,
    format: Format,
) -> miette::Result<Vec<u8>> {
    let train = lower_for(&plan.fused, &machine).into_diagnostic()?;
    let text = match stage {
        Stage::Plan => emit::program(&train.program),
        Stage::Mlir => emit::kernels(&train, compiler, None)?,
        Stage::Llvm => emit::kernels(&train, compiler, Some(Emit::LlvmIr))?,
        _ => {
            let kernels =
                compile_ptx(&[&train], arch, &compiler.cache, compiler.threads).into_diagnostic()?;
            let module = ptx::join(kernels.iter().map(|k| k.ptx.as_str()));
            if !matches!(stage, Stage::Cubin | Stage::SassStats) {
                return Ok(module.into_bytes());
            }
            let assembled = mlir::assemble(&module, arch, &mlir::ptxas()).into_diagnostic()?;
            match stage {
                Stage::Cubin => return Ok(assembled.cubin),
                _ => stats(&kernels, &assembled.kernels, format)?,
            }
        }
    };
    Ok(text.into_bytes())
}

/// What each kernel needs, as a table or JSON.
fn stats(kernels: &[PtxKernel], resources: &[Resources], format: Format) -> miette::Result<String> {
    let of = |r: &Resources| -> Accesses {
        kernels.iter().find(|k| k.symbol == r.kernel).map(|k| ptx::accesses(&k.ptx)).unwrap_or_default()
    };
    let mut resources: Vec<&Resources> = resources.iter().collect();
    resources.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    if format == Format::Json {
        let kernel = |r: &&Resources| {
            let a = of(r);
            serde_json::json!({
                "kernel": r.kernel, "registers": r.registers, "spill_stores": r.spill_stores,
                "spill_loads": r.spill_loads, "shared_memory": r.shared_memory, "loads": a.loads,
                "loads_of_16_bytes": a.wide_loads, "stores": a.stores, "stores_of_16_bytes": a.wide_stores,
            })
        };
        let all: Vec<serde_json::Value> = resources.iter().map(kernel).collect();
        return serde_json::to_string_pretty(&all).map(|text| text + "\n").into_diagnostic();
    }
    let headings =
        ["kernel", "registers", "spills", "shared memory", "loads of 16 bytes", "stores of 16 bytes"];
    let mut table = output::table(&headings, 1);
    for r in resources {
        let a = of(r);
        table.add_row([
            r.kernel.clone(),
            r.registers.to_string(),
            format!("{} B", r.spill_stores + r.spill_loads),
            format!("{} B", r.shared_memory),
            format!("{} of {}", a.wide_loads, a.loads),
            format!("{} of {}", a.wide_stores, a.stores),
        ]);
    }
    Ok(format!("{table}\n"))
}
