//! `isoflop devices`: what this machine can train on.

#[cfg(feature = "study")]
use crate::cli::Format;
use crate::output;
use isoflop_runtime::cuda::gpus::{Gpus, gpus};
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop devices

Of each GPU it says for which architecture it runs kernels. Exit codes: 0 always, also where there is no GPU.")]
pub struct Args {
    #[cfg(feature = "study")]
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// The processor.
#[cfg_attr(feature = "study", derive(serde::Serialize))]
struct Cpu {
    name: String,
    cores: usize,
    /// Widest vectors that kernels use, in bits.
    vector_bits: u32,
}

#[cfg_attr(feature = "study", derive(serde::Serialize))]
struct Devices {
    cpu: Cpu,
    #[cfg_attr(feature = "study", serde(skip_serializing_if = "Option::is_none"))]
    cuda: Option<Gpus>,
    /// Why there are no GPUs.
    #[cfg_attr(feature = "study", serde(skip_serializing_if = "Option::is_none"))]
    cuda_error: Option<String>,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let (cuda, cuda_error) = match gpus() {
        Ok(gpus) => (Some(gpus), None),
        Err(e) => (None, Some(e.to_string())),
    };
    let devices = Devices { cpu: cpu(), cuda, cuda_error };
    #[cfg(feature = "study")]
    if args.output == Format::Json {
        output::json(&devices)?;
        return Ok(ExitCode::SUCCESS);
    }
    #[cfg(not(feature = "study"))]
    let Args {} = args;
    output::print(&words(&devices))?;
    Ok(ExitCode::SUCCESS)
}

fn cpu() -> Cpu {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    #[cfg(target_arch = "x86_64")]
    let vector_bits = match (is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("avx2")) {
        (true, _) => 512,
        (_, true) => 256,
        _ => 128,
    };
    #[cfg(not(target_arch = "x86_64"))]
    let vector_bits = 128;
    Cpu {
        name: name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        vector_bits,
    }
}

fn words(d: &Devices) -> String {
    let c = &d.cpu;
    let mut text = format!("CPU    {}: {} cores, vectors of {} bits\n", c.name, c.cores, c.vector_bits);
    if let Some(cuda) = &d.cuda {
        for g in &cuda.gpus {
            let (major, minor) = g.compute_capability;
            text.push_str(&format!(
                "GPU {}  {}: compute capability {major}.{minor}, {} multiprocessors, {:.1} GB: {}\n",
                g.index,
                g.name,
                g.multiprocessors,
                g.memory_bytes as f64 / 1e9,
                g.kernels
            ));
        }
        text.push_str(&format!("driver for CUDA {}\n", cuda.cuda));
    }
    if let Some(why) = &d.cuda_error {
        text.push_str(&format!("GPU    none: {why}\n"));
    }
    text
}
