//! `isoflop submit`: a sweep to Slurm.

use crate::cli::Format;
use crate::output;
use crate::progress::Progress;
use crate::verbs::{jobs, plan::planned};
use clap::ValueHint;
use isoflop_sweeps::cluster::estimate;
use isoflop_sweeps::cluster::file::Cluster;
use isoflop_sweeps::file::{self, SlurmSpec, Sweep};
use isoflop_sweeps::plan::{self, Plan};
use isoflop_sweeps::slurm::command::Slurm;
use isoflop_sweeps::slurm::layouts::Layouts;
use isoflop_sweeps::slurm::submit::{Context, Proposal, Shown, Which, dry_run};
use isoflop_sweeps::slurm::{self, nodes, probe};
use isoflop_sweeps::study::Study;
use isoflop_sweeps::{data, local};
use miette::{IntoDiagnostic, miette};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop submit sweep.toml --out studies/one --dry-run
  isoflop submit sweep.toml --out studies/one
  isoflop submit sweep.toml --out studies/big --cluster cluster.toml --check

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
    /// Plan every run for the cluster that this TOML file describes, as `isoflop plan --cluster` does, and ask for its layout
    #[arg(long, value_hint = ValueHint::FilePath)]
    cluster: Option<PathBuf>,
    /// With --cluster: each job only checks, on all of its GPUs' ranks, that the layout holds where it runs
    #[arg(long, requires = "cluster")]
    check: bool,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    if let Some(cluster) = &args.cluster {
        return with_layouts(args, cluster);
    }
    let (sweep, plan, _) = planned(&args.sweep, None)?;
    let spec = spec(args, &sweep)?;
    slurm::check_owner(&args.out).map_err(|e| miette!("{e}"))?;
    let slurm = Slurm::new();
    if args.dry_run {
        return preview(args, &plan, &spec, &slurm, &Layouts::default());
    }
    let text = text(args)?;
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
    submitted(args, &study, &plan, &spec, &slurm)
}

fn spec(args: &Args, sweep: &Sweep) -> miette::Result<SlurmSpec> {
    sweep.slurm.clone().ok_or_else(|| {
        miette!("{}: [executor] has no kind = \"slurm\", which `isoflop submit` needs", args.sweep.display())
    })
}

fn text(args: &Args) -> miette::Result<String> {
    std::fs::read_to_string(&args.sweep).map_err(|e| miette!("cannot read {}: {e}", args.sweep.display()))
}

/// Submits runs on GPUs, each with the layout that is best for it on the described cluster.
fn with_layouts(args: &Args, file: &Path) -> miette::Result<ExitCode> {
    if !args.check && !args.dry_run {
        return Err(miette!(
            "isoflop trains on CPUs only until now: with --cluster say --check, and each job ends when all of its ranks \
             have checked their layout, or --dry-run"
        ));
    }
    let sweep = file::read(&args.sweep)?;
    let spec = spec(args, &sweep)?;
    let in_sweep = |e: &dyn std::fmt::Display| miette!("{}: {e}", args.sweep.display());
    let mut cluster = Cluster::read(file).into_diagnostic()?;
    if let Some(names) = &spec.partition {
        cluster.keep_partitions(names).map_err(|known| {
            in_sweep(&format!("`executor.partition` is `{names}`; {} describes: {known}", file.display()))
        })?;
    }
    let mut plan = plan::plan(&sweep).map_err(|e| in_sweep(&e))?;
    let on_cluster = estimate::plan(&plan, &cluster).map_err(|e| in_sweep(&e))?;
    if let Some(run) = on_cluster.runs.iter().find(|run| run.chosen.is_none()) {
        return Err(in_sweep(&format!("{} does not fit {}: {}", run.id, cluster.name, run.reason)));
    }
    let layouts = Layouts::of(&plan, &on_cluster, &cluster);
    plan.cluster = Some(cluster.name.clone());
    for run in &mut plan.runs {
        run.seconds = layouts.of_run(&run.id).map(|l| l.step_seconds * run.steps as f64);
    }
    slurm::check_owner(&args.out).map_err(|e| miette!("{e}"))?;
    let slurm = Slurm::new();
    let layouts = layouts.probe(&slurm, &spec).map_err(|e| miette!("{e}"))?;
    if args.dry_run {
        return preview(args, &plan, &spec, &slurm, &layouts);
    }
    let study = Study::new(&args.out);
    let _lock = study.lock().map_err(|e| miette!("{e}"))?;
    study.adopt(&text(args)?, &plan).map_err(|e| miette!("{e}"))?;
    let study = slurm::absolute(&study).map_err(|e| miette!("{e}"))?;
    layouts.write(&study).map_err(|e| miette!("{e}"))?;
    submitted(args, &study, &plan, &spec, &slurm)
}

/// Submits what is ready, and says so.
fn submitted(
    args: &Args,
    study: &Study,
    plan: &Plan,
    spec: &SlurmSpec,
    slurm: &Slurm,
) -> miette::Result<ExitCode> {
    let report = jobs::submit_prepared(study, plan, spec, slurm, Which::Rest).map_err(|e| miette!("{e}"))?;
    match args.output {
        Format::Json => output::json(&report)?,
        Format::Table => jobs::lines(&report, &args.out).iter().try_for_each(|line| output::line(line))?,
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
    plan: &Plan,
    spec: &SlurmSpec,
    slurm: &Slurm,
    layouts: &Layouts,
) -> miette::Result<ExitCode> {
    let cluster = layouts.usual(slurm, spec).map_err(|e| miette!("{e}"))?;
    let study = Study::new(std::path::absolute(&args.out).into_diagnostic()?);
    let worker = jobs::worker(spec).map_err(|e| miette!("{e}"))?;
    let context = Context { slurm, study: &study, plan, spec, cluster: &cluster, layouts, worker: &worker };
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
    nodes::in_words(&proposal.left_out).iter().try_for_each(|words| output::line(words))?;
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
