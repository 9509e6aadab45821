//! `isoflop compile`: artifacts of a sweep or a model, or any stage on the way to them as text.

mod emit;
mod explain;

use crate::cli::Format;
use crate::output;
use clap::{ValueEnum, ValueHint};
use isoflop_compiler::config::{AdamW, ModelConfig, StepConfig};
use isoflop_compiler::driver::{CompileOptions, compile, plan_program};
use isoflop_compiler::mlir::Emit;
use isoflop_compiler::{model, text};
use isoflop_sweeps::{compile::options, file, plan};
use miette::{IntoDiagnostic, miette};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop compile sweeps/examples/nano.toml --out studies/nano/artifacts
  isoflop compile sweeps/examples/gopher.toml --size 44M --emit plan
  isoflop compile sweeps/examples/nano.toml --size 21k --explain fusion

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
    /// Print why the compiler did what it did
    #[arg(long, value_enum, conflicts_with = "emit")]
    explain: Option<Topic>,
    /// How decisions are printed
    #[arg(long, value_enum, default_value_t, requires = "explain")]
    output: Format,
    /// Folder for the artifacts
    #[arg(long, default_value = "artifacts", value_hint = ValueHint::DirPath)]
    out: PathBuf,
}

/// What can be printed on the way to machine code.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stage {
    /// The training step as built: forward, backward, clip, AdamW
    Graph,
    /// The same after the passes, with fused regions
    Fused,
    /// The memory plan and the launches
    Plan,
    /// The kernels in MLIR
    Mlir,
    /// The kernels in LLVM IR
    Llvm,
    /// The kernels in assembly
    Asm,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Topic {
    /// Each decision to merge two kernels or not
    Fusion,
}

/// A model with its step, and what to call it.
struct Job {
    name: String,
    model: ModelConfig,
    step: StepConfig,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let jobs = jobs(args)?;
    let shows = args.emit.is_some() || args.explain.is_some();
    if shows && jobs.len() > 1 {
        let names: Vec<&str> = jobs.iter().map(|j| j.name.as_str()).collect();
        return Err(miette!("choose one of the {} sizes with --size: {}", jobs.len(), names.join(", ")));
    }
    let compiler = options(&args.out);
    for job in &jobs {
        if shows {
            output::print(&show(args, job, &compiler)?)?;
            continue;
        }
        let compiled =
            compile(&job.model, &job.step, &compiler).map_err(|e| miette!("size `{}`: {e}", job.name))?;
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
        let step = StepConfig { batch: args.batch, optimizer: AdamW::default(), output_gradients: false };
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
        .map(|run| Job { name: run.size.clone(), model: run.model.clone(), step: run.step() })
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
    if args.size.is_some() && (args.emit.is_some() || args.explain.is_some()) {
        jobs.truncate(1);
    }
    Ok(jobs)
}

fn show(args: &Args, job: &Job, compiler: &CompileOptions) -> miette::Result<String> {
    if matches!(args.emit, Some(Stage::Graph)) {
        return Ok(text::print(&model::training_graph(&job.model, &job.step).into_diagnostic()?));
    }
    let plan = plan_program(&job.model, &job.step).map_err(|e| miette!("size `{}`: {e}", job.name))?;
    match args.emit {
        Some(Stage::Fused) => Ok(text::print(&plan.fused)),
        Some(Stage::Plan) => Ok(emit::program(&plan.train.program)),
        Some(Stage::Mlir) => emit::kernels(&plan, compiler, None),
        Some(Stage::Llvm) => emit::kernels(&plan, compiler, Some(Emit::LlvmIr)),
        Some(Stage::Asm) => emit::kernels(&plan, compiler, Some(Emit::Asm)),
        Some(Stage::Graph) | None => explain::fusion(&plan, args.output),
    }
}
