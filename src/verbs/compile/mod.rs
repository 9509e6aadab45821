//! `isoflop compile`: artifacts of a sweep or a model, or any stage on the way to them as text.

mod emit;
mod explain;
mod explain_memory;
mod explain_value;
mod gpu;

use super::passes;
use crate::cli::Format;
use crate::output;
use clap::{ValueEnum, ValueHint};
use gpu::CodeTarget;
use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::{
    CompileError, CompileOptions, OptimizeOptions, ProgramPlan, compile, compile_plan, optimized_step,
    plan_program_with,
};
use isoflop_compiler::graph::Graph;
use isoflop_compiler::mlir::Emit;
use isoflop_compiler::passes::pipeline;
use isoflop_compiler::{model, picture, text};
use isoflop_sweeps::device::Device;
use isoflop_sweeps::{compile::options, display, file, plan};
use miette::{IntoDiagnostic, miette};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop compile sweeps/examples/nano.toml --out studies/nano/artifacts
  isoflop compile sweeps/examples/gopher.toml --size 44M --emit plan
  isoflop compile sweeps/examples/gopher.toml --size 44M --emit html > 44M.html
  isoflop compile sweeps/examples/nano.toml --size 21k --explain fusion
  isoflop compile sweeps/examples/nano.toml --size 21k --explain fusion --device h100-sxm
  isoflop compile sweeps/examples/nano.toml --size 21k --explain layers.0.gelu
  isoflop compile sweeps/examples/nano.toml --size 21k --explain memory --memory-budget 2MB
  isoflop compile model.toml --disable-pass recompute --emit plan --time-passes
  isoflop compile model.toml --target sm_90 --emit ptx > kernels.ptx
  isoflop compile model.toml --target sm_80 --emit sass-stats
  isoflop compile model.toml --stop-after fold > folded.graph

A MODEL.toml holds the keys n_layers, n_heads, d_head, d_model, d_ff, vocab_size and seq_len at its top.")]
pub struct Args {
    /// A sweep file, or the description of one model
    #[arg(value_name = "SWEEP.toml|MODEL.toml", value_hint = ValueHint::FilePath)]
    input: PathBuf,
    /// Only this size of the sweep
    #[arg(long)]
    size: Option<String>,
    /// Sequences of a step, for a model file
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Print a stage of the compilation instead of writing artifacts
    #[arg(long, value_enum)]
    emit: Option<Stage>,
    /// Print why the compiler did what it did: `fusion` is each decision to merge two kernels or not; `memory` is what
    /// the memory of a step is for and what less of it would cost in time; a node id such as
    /// %42, an operation, or part of a scope says where its values are and why
    #[arg(long, value_name = "fusion|memory|OP", conflicts_with = "emit")]
    explain: Option<Topic>,
    /// Machine that kernels are made for: native, x86-64, x86-64-v2, x86-64-v3, x86-64-v4, aarch64, or a GPU, sm_80,
    /// sm_90, sm_90a
    #[arg(long, value_name = "NAME", default_value = "native")]
    target: CodeTarget,
    /// Choose what to fuse by the costs of this device: cpu, a100-40g, a100-80g, h100-sxm, h200, v100, or a TOML file
    /// [default: the built-in cpu; a100-80g for sm_80, h100-sxm for sm_90 and sm_90a]
    #[arg(long)]
    device: Option<String>,
    /// How decisions and times are printed
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    /// Most memory that the program of a step may take, as 2GB; values are computed again where it would take more
    #[arg(long, value_name = "SIZE", value_parser = display::parse_bytes)]
    memory_budget: Option<u64>,
    /// Folder for the artifacts
    #[arg(long, default_value = "artifacts", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    #[command(flatten)]
    passes: passes::Flags,
}

/// What can be printed on the way to machine code.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stage {
    /// The training step as built: forward, backward, clip, AdamW
    Graph,
    /// The same after the passes, with fused regions
    Fused,
    /// The graph before and after fusion for Graphviz: two digraphs
    Dot,
    /// The same as a page for a browser, to walk through and search
    Html,
    /// The memory plan and the launches
    Plan,
    /// The kernels in MLIR
    Mlir,
    /// The kernels in LLVM IR
    Llvm,
    /// The kernels in assembly
    Asm,
    /// The kernels in PTX, as one module; with --target sm_80, sm_90 or sm_90a
    Ptx,
    /// The kernels as machine code of a GPU, in one CUBIN
    Cubin,
    /// Registers, spills, shared memory and accesses to memory of each kernel on a GPU
    SassStats,
}

impl Stage {
    /// Is it of a GPU alone?
    fn needs_gpu(self) -> bool {
        matches!(self, Stage::Ptx | Stage::Cubin | Stage::SassStats)
    }
}

/// What can be explained.
#[derive(Clone, Debug)]
enum Topic {
    Fusion,
    Memory,
    /// Values by id, operation or scope.
    Values(String),
}

impl From<&str> for Topic {
    fn from(word: &str) -> Topic {
        match word {
            "fusion" => Topic::Fusion,
            "memory" => Topic::Memory,
            other => Topic::Values(other.to_owned()),
        }
    }
}

/// A model with its step, and what to call it.
struct Job {
    name: String,
    model: ModelConfig,
    step: StepConfig,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    crate::heap::keep();
    let jobs = jobs(args)?;
    let stops = args.passes.stop_after.is_some();
    if stops && (args.emit.is_some() || args.explain.is_some()) {
        return Err(miette!(
            "--stop-after prints the graph after that pass; --emit and --explain need what comes later"
        ));
    }
    let shows = args.emit.is_some() || args.explain.is_some() || stops;
    if shows && jobs.len() > 1 {
        let names: Vec<&str> = jobs.iter().map(|j| j.name.as_str()).collect();
        return Err(miette!("choose one of the {} sizes with --size: {}", jobs.len(), names.join(", ")));
    }
    gpu::check(&args.target, args.emit, shows)?;
    let compiler = CompileOptions { target: args.target.for_llvm(), ..options(&args.out) };
    for job in &jobs {
        if shows {
            output::bytes(&show(args, job, &compiler)?)?;
            continue;
        }
        let compiled = if args.passes.any() || args.device.is_some() {
            let plan = planned(args, job)?;
            compile_plan(&plan, &job.model, &job.step, &compiler)
        } else {
            compile(&job.model, &job.step, &compiler)
        };
        let compiled = compiled.map_err(|e| in_size(job, e))?;
        output::line(&format!(
            "{} batch {}: {} ({} kernels, {} compiled now)",
            job.name,
            job.step.batch,
            compiled.artifact.dir.display(),
            compiled.kernels_total,
            compiled.kernels_compiled
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The different models and steps of the input.
fn jobs(args: &Args) -> miette::Result<Vec<Job>> {
    let path = &args.input;
    if let Some(model) = file::read_model(path)? {
        if let Some(size) = &args.size {
            return Err(miette!("{} is one model and has no size `{size}`", path.display()));
        }
        let step = StepConfig { memory_budget: args.memory_budget, ..StepConfig::new(args.batch) };
        return Ok(vec![Job { name: path.display().to_string(), model, step }]);
    }
    let sweep = file::read(path)?;
    let plan = plan::plan(&sweep).map_err(|e| miette!("{}: {e}", path.display()))?;
    let steps = isoflop_sweeps::compile::steps(&plan.runs);
    let wanted = |size: &str| args.size.as_ref().is_none_or(|s| s == size);
    let mut jobs: Vec<Job> = steps
        .distinct
        .iter()
        .filter(|run| wanted(&run.size))
        .map(|run| {
            let step = run.step();
            let memory_budget = args.memory_budget.or(step.memory_budget);
            let step = StepConfig { memory_budget, ..step };
            Job { name: run.size.clone(), model: run.model.clone(), step }
        })
        .collect();
    if jobs.is_empty() {
        let mut names: Vec<String> = Vec::new();
        for run in &plan.runs {
            if !names.contains(&run.size) {
                names.push(run.size.clone());
            }
        }
        let size = args.size.as_deref().unwrap_or_default();
        let hint = file::nearest(size, &names).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        return Err(miette!("{} plans no size `{size}`{hint} It has: {}", path.display(), names.join(", ")));
    }
    let shows = args.emit.is_some() || args.explain.is_some() || args.passes.stop_after.is_some();
    if args.size.is_some() && shows {
        jobs.truncate(1);
    }
    Ok(jobs)
}

fn in_size(job: &Job, e: CompileError) -> miette::Report {
    miette!("size `{}`: {e}", job.name)
}

/// The device whose costs decide what is fused. Without a wish it is the one that comes with the program, calibrated or
/// not: artifacts are the same on every machine.
fn device(args: &Args) -> miette::Result<Device> {
    match &args.device {
        Some(name) => Ok(Device::find(name).into_diagnostic()?.0),
        None => Device::built_in(args.target.device()).into_diagnostic(),
    }
}

fn optimize(args: &Args) -> miette::Result<OptimizeOptions> {
    let cost = device(args)?.cost(1);
    Ok(OptimizeOptions { pipeline: args.passes.options(None), cost, ..OptimizeOptions::default() })
}

/// The programs of a job, after the passes that were asked for, which are reported.
fn planned(args: &Args, job: &Job) -> miette::Result<ProgramPlan> {
    let plan = plan_program_with(&job.model, &job.step, &optimize(args)?).map_err(|e| in_size(job, e))?;
    args.passes.report(&plan.traces, args.output)?;
    Ok(plan)
}

fn show(args: &Args, job: &Job, compiler: &CompileOptions) -> miette::Result<Vec<u8>> {
    if let (CodeTarget::Cuda(arch), Some(stage)) = (&args.target, args.emit)
        && !matches!(stage, Stage::Graph | Stage::Fused | Stage::Dot | Stage::Html)
    {
        let plan = planned(args, job)?;
        let machine = gpu::machine(*arch, &device(args)?)?;
        return gpu::show(&plan, machine, *arch, stage, compiler, args.output)
            .map_err(|e| e.wrap_err(format!("size `{}`", job.name)));
    }
    shown(args, job, compiler).map(String::into_bytes)
}

fn shown(args: &Args, job: &Job, compiler: &CompileOptions) -> miette::Result<String> {
    if matches!(args.emit, Some(Stage::Graph)) {
        return Ok(text::print(&model::training_graph(&job.model, &job.step).into_diagnostic()?));
    }
    if args.passes.stop_after.is_some() {
        let (g, _, trace) =
            optimized_step(&job.model, &job.step, &optimize(args)?).map_err(|e| in_size(job, e))?;
        args.passes.report(&[trace], args.output)?;
        return Ok(text::print(&g));
    }
    let plan = planned(args, job)?;
    match args.emit {
        Some(Stage::Fused) => Ok(text::print(&plan.fused)),
        Some(Stage::Dot) => Ok(picture::dot(&before_fusion(args, job)?, &plan.fused)),
        Some(Stage::Html) => {
            picture::html(&job.name, &before_fusion(args, job)?, &plan.fused).into_diagnostic()
        }
        Some(Stage::Plan) => Ok(emit::program(&plan.train.program)),
        Some(Stage::Mlir) => emit::kernels(&plan.train, compiler, None),
        Some(Stage::Llvm) => emit::kernels(&plan.train, compiler, Some(Emit::LlvmIr)),
        Some(Stage::Asm) => emit::kernels(&plan.train, compiler, Some(Emit::Asm)),
        Some(Stage::Graph | Stage::Ptx | Stage::Cubin | Stage::SassStats) | None => {
            explained(args, job, &plan)
        }
    }
}

fn explained(args: &Args, job: &Job, plan: &ProgramPlan) -> miette::Result<String> {
    let device = device(args)?.name;
    match &args.explain {
        Some(Topic::Values(wanted)) => {
            explain_value::values(plan, &before_fusion(args, job)?, wanted, args.output)
        }
        Some(Topic::Memory) => {
            let options = optimize(args)?;
            let step = StepConfig { memory_budget: None, ..job.step.clone() };
            let unlimited = match plan.recomputed {
                Some(_) => &plan_program_with(&job.model, &step, &options).map_err(|e| in_size(job, e))?,
                None => plan,
            };
            explain_memory::memory(plan, unlimited, &options.cost, &device, args.output)
        }
        Some(Topic::Fusion) | None => explain::fusion(plan, &device, args.output),
    }
}

/// The training graph as `fuse` finds it.
fn before_fusion(args: &Args, job: &Job) -> miette::Result<Graph> {
    let mut options = optimize(args)?;
    let mut disable = std::mem::take(&mut options.pipeline.disable);
    disable.push("fuse".to_owned());
    options.pipeline = pipeline::Options { disable, ..pipeline::Options::default() };
    let (before, ..) = optimized_step(&job.model, &job.step, &options).map_err(|e| in_size(job, e))?;
    Ok(before)
}
