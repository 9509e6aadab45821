//! `isoflop compile`: artifacts of a sweep or a model, or any stage on the way to them as text.

use crate::cli::Format;
use crate::output;
use clap::{ValueEnum, ValueHint};
use isoflop_compiler::config::{AdamW, ModelConfig, StepConfig};
use isoflop_compiler::driver::{CompileOptions, ProgramPlan, compile, plan_program};
use isoflop_compiler::fuse::decision::Outcome;
use isoflop_compiler::mlir::{self, Emit};
use isoflop_compiler::{lower, model, text};
use isoflop_kernels::program::{Call, Program, Space};
use isoflop_sweeps::{compile::options, display, file, plan};
use miette::{IntoDiagnostic, miette};
use std::fmt::Write;
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
        Some(Stage::Plan) => Ok(program(&plan.train.program)),
        Some(Stage::Mlir) => kernels(&plan, compiler, None),
        Some(Stage::Llvm) => kernels(&plan, compiler, Some(Emit::LlvmIr)),
        Some(Stage::Asm) => kernels(&plan, compiler, Some(Emit::Asm)),
        Some(Stage::Graph) | None => decisions(&plan, args.output),
    }
}

/// Every different kernel of the training step, as MLIR or as what it compiles to.
fn kernels(plan: &ProgramPlan, compiler: &CompileOptions, emit: Option<Emit>) -> miette::Result<String> {
    let mut specs: Vec<_> = plan.train.kernels.iter().collect();
    specs.sort_by_cached_key(|s| s.symbol());
    specs.dedup_by_key(|s| s.symbol());
    let texts: Vec<String> = specs.into_iter().map(lower::mlir_function).collect();
    let Some(emit) = emit else { return Ok(texts.join("\n")) };
    let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut out = String::new();
    for compiled in mlir::compile_all(&borrowed, &compiler.target, emit, compiler.threads) {
        out.push_str(compiled.into_diagnostic()?.text().unwrap_or_default());
    }
    Ok(out)
}

/// The memory plan and the launches of a program.
fn program(p: &Program) -> String {
    let mut out = String::new();
    let sizes = [Space::State, Space::Input, Space::Output, Space::Table, Space::Arena]
        .map(|s| format!("{s:?} {}", display::bytes(p.bytes_in(s))));
    let share = p.arena_bytes as f64 / p.arena_lower_bound.max(1) as f64;
    let _ = writeln!(out, "program {}: {}", p.name, sizes.join(", ").to_lowercase().replace("kb", "kB"));
    let _ = writeln!(
        out,
        "arena {} bytes, {share:.3} times the lower bound of {}; {} in all",
        p.arena_bytes,
        p.arena_lower_bound,
        display::bytes(p.total_bytes())
    );
    let _ = writeln!(out, "{:>4} {:>5}  {:<24} {:>14} {:>12}  label", "", "wave", "call", "FLOPs", "bytes");
    for (i, launch) in p.launches.iter().enumerate() {
        let call = match &launch.call {
            Call::Generated { kernel } => {
                p.kernels.get(*kernel as usize).map_or_else(|| "?".to_owned(), |k| k.symbol.clone())
            }
            Call::Gemm(g) => format!("gemm {}x{}x{}x{}", g.batch, g.m, g.n, g.k),
            Call::RelAttentionForward(_) => "attention forward".to_owned(),
            Call::RelAttentionBackward(_) => "attention backward".to_owned(),
            Call::Gather { .. } => "gather".to_owned(),
            Call::ScatterAdd { .. } => "scatter-add".to_owned(),
            Call::Copy { .. } => "copy".to_owned(),
        };
        let (wave, flops, bytes) = (launch.wave, launch.flops, launch.bytes);
        let _ = writeln!(out, "{i:>4} {wave:>5}  {call:<24} {flops:>14} {bytes:>12}  {}", launch.label);
    }
    out
}

/// What fusion decided, pair by pair. Ids are nodes of the graph before fusion.
fn decisions(plan: &ProgramPlan, format: Format) -> miette::Result<String> {
    let log = &plan.fusion;
    if format == Format::Json {
        let all = serde_json::json!({
            "decisions": log.decisions,
            "kernels": log.kernels,
            "fused_kernels": log.fused_kernels,
        });
        return serde_json::to_string_pretty(&all).map(|text| text + "\n").into_diagnostic();
    }
    let headings = ["producer", "consumer", "", "saves", "launches", "estimate"];
    let mut table = output::table(&headings, 3);
    for d in &log.decisions {
        let verdict = match d.outcome {
            Outcome::Fused if d.siblings => "fused, as readers of one value".to_owned(),
            Outcome::Fused => "fused".to_owned(),
            Outcome::Refused(reason) => format!("refused: {}", reason.sentence()),
        };
        table.add_row([
            format!("%{} {}", d.producer, d.producer_name),
            format!("%{} {}", d.consumer, d.consumer_name),
            verdict,
            display::bytes(d.bytes_saved),
            d.launches_saved.to_string(),
            format!("{:.1} us", d.estimated_us),
        ]);
    }
    let fused = log.decisions.iter().filter(|d| d.outcome == Outcome::Fused).count();
    Ok(format!(
        "{table}\n{} pairs looked at, {fused} fused; {} kernels, {} of more than one operation\n",
        log.decisions.len(),
        log.kernels,
        log.fused_kernels
    ))
}
