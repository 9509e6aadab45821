//! `isoflop plan`: every run of a sweep before anything is spent.

use super::plan_cluster;
use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use isoflop_compiler::config::ModelConfig;
use isoflop_sweeps::cluster::estimate;
use isoflop_sweeps::cluster::file::Cluster;
use isoflop_sweeps::device::{Device, Source};
use isoflop_sweeps::file::Sweep;
use isoflop_sweeps::plan::Plan;
use isoflop_sweeps::{compile, display, file, plan};
use miette::{IntoDiagnostic, miette};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop plan sweeps/examples/gopher.toml --device a100-80g
  isoflop plan sweeps/examples/nano.toml --output json
  isoflop plan sweeps/examples/gopher.toml --cluster sweeps/examples/cluster.toml --layouts

Memory is what one device holds to train the run in one piece, from the compiled memory plan. Peak RSS is the most
resident memory that `isoflop train` comes to with one thread, scratch and the program included; the JSON output says what
each further thread adds. Time is a prediction from the device's description: products of matrices at a fixed share of
the peak, memory traffic, launches.")]
pub struct Args {
    /// The sweep file
    #[arg(value_hint = ValueHint::FilePath)]
    sweep: PathBuf,
    /// Predict for this device instead of the sweep's: cpu, a100-40g, a100-80g, h100-sxm, h200, v100,
    /// or a TOML file
    #[arg(long, conflicts_with = "cluster")]
    device: Option<String>,
    /// Plan for the cluster that this TOML file describes: layouts, memory of a GPU, time, GPU hours, cost
    #[arg(long, value_hint = ValueHint::FilePath)]
    cluster: Option<PathBuf>,
    /// With --cluster: also the fastest layout of each number of GPUs
    #[arg(long, requires = "cluster")]
    layouts: bool,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// Reads a sweep and plans it, with predictions for its device or `device`.
pub fn planned(path: &Path, device: Option<&str>) -> miette::Result<(Sweep, Plan, Source)> {
    let sweep = file::read(path)?;
    let mut plan = plan::plan(&sweep).map_err(|e| miette!("{}: {e}", path.display()))?;
    let (device, source) = Device::find(device.unwrap_or(&sweep.plan.device)).into_diagnostic()?;
    compile::predict(&mut plan, &sweep, &device).map_err(|e| miette!("{}: {e}", path.display()))?;
    Ok((sweep, plan, source))
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    crate::heap::keep();
    if let Some(cluster) = &args.cluster {
        return on_cluster(args, cluster);
    }
    let (_, plan, source) = planned(&args.sweep, args.device.as_deref())?;
    match args.output {
        Format::Json => output::json(&plan)?,
        Format::Table => output::print(&table(&plan, &source))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn on_cluster(args: &Args, cluster: &Path) -> miette::Result<ExitCode> {
    let cluster = Cluster::read(cluster).into_diagnostic()?;
    let sweep = file::read(&args.sweep)?;
    let in_file = |e: &dyn std::fmt::Display| miette!("{}: {e}", args.sweep.display());
    let plan = plan::plan(&sweep).map_err(|e| in_file(&e))?;
    let plan = estimate::plan(&plan, &cluster).map_err(|e| in_file(&e))?;
    match args.output {
        Format::Json => output::json(&plan)?,
        Format::Table => output::print(&plan_cluster::tables(&plan, &cluster, args.layouts))?,
    }
    let all = plan.runs.iter().all(|run| run.chosen.is_some());
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `8L 16x32 d512 ff2048`.
fn shape(m: &ModelConfig) -> String {
    format!("{}L {}x{} d{} ff{}", m.n_layers, m.n_heads, m.d_head, m.d_model, m.d_ff)
}

fn table(plan: &Plan, source: &Source) -> String {
    let device = plan.device.as_deref().unwrap_or("?");
    let described = match source {
        Source::BuiltIn => String::new(),
        Source::File(path) => format!(", described in {}", path.display()),
        Source::Calibrated(path) => format!(", calibrated in {}", path.display()),
    };
    let flops = format!("FLOPs ({})", plan.flops_convention);
    let mut table = output::table(
        &[
            "run",
            "layers heads width",
            "params",
            "non-emb.",
            "tokens",
            &flops,
            "steps",
            "batch tokens",
            "peak lr",
            "memory",
            "peak RSS",
            "time",
        ],
        2,
    );
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "?".into());
    for run in &plan.runs {
        table.add_row([
            run.id.clone(),
            shape(&run.model),
            display::count(run.params),
            display::count(run.params_non_embedding),
            display::count(run.tokens),
            format!("{:.3e}", run.flops),
            run.steps.to_string(),
            run.batch_tokens.to_string(),
            format!("{:.2e}", run.schedule.lr),
            or_unknown(run.memory_bytes.map(display::bytes)),
            run.peak_rss_bytes.map_or_else(|| "-".into(), display::bytes),
            or_unknown(run.seconds.map(display::seconds)),
        ]);
    }
    let total: f64 = plan.runs.iter().map(|r| r.flops).sum();
    let seconds: Option<f64> = plan.runs.iter().map(|r| r.seconds).sum();
    let mut text = format!(
        "{table}\n{}: {} runs, {total:.3e} FLOPs ({}), predicted {} on one `{device}`{described}\n",
        plan.sweep,
        plan.runs.len(),
        plan.flops_convention,
        or_unknown(seconds.map(display::seconds)),
    );
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}
