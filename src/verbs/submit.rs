//! `isoflop submit`: a sweep to Slurm.

use crate::cli::Format;
use crate::output;
use crate::progress::Progress;
use crate::verbs::{jobs, plan::planned};
use clap::ValueHint;
use isoflop_sweeps::file::SlurmSpec;
use isoflop_sweeps::slurm::command::Slurm;
use isoflop_sweeps::slurm::submit::{Context, Proposal, Shown, Which, dry_run};
use isoflop_sweeps::slurm::{self, probe};
use isoflop_sweeps::study::Study;
use isoflop_sweeps::{data, local};
use miette::{IntoDiagnostic, miette};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop submit sweep.toml --out studies/one --dry-run
  isoflop submit sweep.toml --out studies/one

The sweep needs an [executor] with kind = \"slurm\". Runs with equal resources become arrays within the limits of the
cluster, which are read from it. The same command submits only what is not finished and has no job, whenever and however
the command before ended. Exit codes: 0 everything is done or has a job, 75 the cluster had no room for some, 1 an error, or
runs that were given up.")]
pub struct Args {
    /// The sweep file
    #[arg(value_hint = ValueHint::FilePath)]
    sweep: PathBuf,
    /// The study's directory, new or of this sweep, on a file system that the nodes have too
    #[arg(long, value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Write and submit nothing; print every call of sbatch, its script, and when Slurm would start it
    #[arg(long)]
    dry_run: bool,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let (sweep, plan, _) = planned(&args.sweep, None)?;
    let spec = sweep.slurm.clone().ok_or_else(|| {
        miette!("{}: [executor] has no kind = \"slurm\", which `isoflop submit` needs", args.sweep.display())
    })?;
    slurm::check_owner(&args.out).map_err(|e| miette!("{e}"))?;
    let slurm = Slurm::new();
    if args.dry_run {
        return preview(args, &plan, &spec, &slurm);
    }
    let text = std::fs::read_to_string(&args.sweep)
        .map_err(|e| miette!("cannot read {}: {e}", args.sweep.display()))?;
    let vocab_size = sweep.sizes.iter().map(|s| s.model.vocab_size).min().unwrap_or_default();
    let data = data::resolve(sweep.data.as_ref(), sweep.train.validation_sequences, vocab_size)
        .map_err(|e| miette!("{}: {e}", args.sweep.display()))?;
    let study = Study::new(&args.out);
    let _lock = study.lock().map_err(|e| miette!("{e}"))?;
    // Before anything is compiled: is there a cluster, and would it take these jobs?
    probe::probe(&slurm, &spec).map_err(|e| miette!("{e}"))?;
    study.adopt(&text, &plan).map_err(|e| miette!("{e}"))?;
    let study = slurm::absolute(&study).map_err(|e| miette!("{e}"))?;
    let mut progress = Progress::new(&plan, 1);
    let prepared = local::prepare(&study, &sweep, &plan, &data, &mut |event| progress.show(&event));
    progress.close();
    prepared.map_err(|e| miette!("{e}"))?;
    let report =
        jobs::submit_prepared(&study, &plan, &spec, &slurm, Which::Rest).map_err(|e| miette!("{e}"))?;
    match args.output {
        Format::Json => output::json(&report)?,
        Format::Table => jobs::show(&report, &args.out)?,
    }
    Ok(if !report.given_up.is_empty() {
        ExitCode::from(1)
    } else if report.no_room > 0 {
        ExitCode::from(isoflop_runtime::train::EXIT_CONTINUE as u8)
    } else {
        ExitCode::SUCCESS
    })
}

#[derive(Serialize)]
struct Preview<'a> {
    cluster: &'a probe::Cluster,
    proposal: &'a Proposal,
    calls: &'a [Shown],
}

fn preview(
    args: &Args,
    plan: &isoflop_sweeps::plan::Plan,
    spec: &SlurmSpec,
    slurm: &Slurm,
) -> miette::Result<ExitCode> {
    let cluster = probe::probe(slurm, spec).map_err(|e| miette!("{e}"))?;
    let study = Study::new(std::path::absolute(&args.out).into_diagnostic()?);
    let worker = jobs::worker(spec).map_err(|e| miette!("{e}"))?;
    let context = Context { slurm, study: &study, plan, spec, cluster: &cluster, worker: &worker };
    let (proposal, calls) = dry_run(&context).map_err(|e| miette!("{e}"))?;
    if args.output == Format::Json {
        output::json(&Preview { cluster: &cluster, proposal: &proposal, calls: &calls })?;
        return Ok(ExitCode::SUCCESS);
    }
    for call in &calls {
        let runs = call.what.runs.join(" ");
        output::line(&format!("# {} tasks: {runs}\n{}", call.what.runs.len(), call.command))?;
        if let Some(estimate) = &call.estimate {
            output::line(&format!("# {estimate}"))?;
        }
        output::line(&format!("# job.sh\n{}", call.script))?;
    }
    output::line(&format!(
        "{} {}: {} calls of sbatch in partition {}, {} runs without room; nothing was submitted",
        cluster.config.cluster,
        cluster.config.version,
        calls.len(),
        cluster.partition,
        proposal.no_room
    ))?;
    Ok(ExitCode::SUCCESS)
}
