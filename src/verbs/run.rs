//! `isoflop run`: a sweep on this machine.

use crate::progress::Progress;
use crate::{output, verbs::plan::planned};
use clap::ValueHint;
use isoflop_sweeps::local::{self, Options};
use isoflop_sweeps::study::Study;
use isoflop_sweeps::{data, display};
use miette::{IntoDiagnostic, miette};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop run sweeps/examples/nano.toml --out studies/nano --jobs 2

Ctrl-C lets every run save and stop. The same command goes on with what is not finished, and compiles only what was
not compiled. Results do not depend on --jobs or --threads. Exit codes: 0 every run finished or diverged, 1 a run
failed, 75 stopped and to be continued.")]
pub struct Args {
    /// The sweep file
    #[arg(value_hint = ValueHint::FilePath)]
    sweep: PathBuf,
    /// The study's directory, new or of this sweep
    #[arg(long, value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Runs at the same time, instead of the sweep's number; by default one for each core
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Threads of each run; by default the cores divided by the jobs
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Compile and write the run directories, but train nothing: `isoflop train` can start them, here or elsewhere
    #[arg(long)]
    prepare_only: bool,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let (sweep, plan, _) = planned(&args.sweep, None)?;
    let text = std::fs::read_to_string(&args.sweep)
        .map_err(|e| miette!("cannot read {}: {e}", args.sweep.display()))?;
    let vocab_size = sweep.sizes.iter().map(|s| s.model.vocab_size).min().unwrap_or_default();
    let data = data::resolve(sweep.data.as_ref(), sweep.train.validation_sequences, vocab_size)
        .map_err(|e| miette!("{}: {e}", args.sweep.display()))?;

    let study = Study::new(&args.out);
    let _lock = study.lock().map_err(|e| miette!("{e}"))?;
    study.adopt(&text, &plan).map_err(|e| miette!("{e}"))?;

    // Asked to stop before it begins, the executor prepares every run and starts none.
    let stop = Arc::new(AtomicBool::new(args.prepare_only));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).into_diagnostic()?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.map(usize::from).or(sweep.jobs).unwrap_or(cores);
    let worker = std::env::current_exe().map_err(|e| miette!("cannot find this program itself: {e}"))?;
    let options = Options { jobs, threads: args.threads.map(usize::from), worker, stop: &stop };
    let mut progress = Progress::new(&plan, jobs);
    let summary = local::run(&study, &sweep, &plan, &data, &options, &mut |event| progress.show(&event));
    progress.close();
    let summary = summary.map_err(|e| miette!("{e}"))?;
    output::line(&format!(
        "{}: {} finished, {} diverged, {} failed, {} left; {}",
        plan.sweep,
        summary.finished,
        summary.diverged,
        summary.failed,
        summary.left,
        display::seconds(progress.elapsed().as_secs_f64()),
    ))?;
    let out = args.out.display();
    if args.prepare_only {
        output::line(&format!("train each directory of {out}/runs with `isoflop train`"))?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(if summary.failed > 0 {
        output::line(&format!(
            "`isoflop status {out}` says why runs failed; the same command tries them again"
        ))?;
        ExitCode::from(1)
    } else if summary.left > 0 {
        output::line("the same command goes on with what is left")?;
        ExitCode::from(isoflop_runtime::train::EXIT_CONTINUE as u8)
    } else if summary.finished == 0 {
        output::line("no run finished, so there is nothing to fit: lower the learning rate")?;
        ExitCode::SUCCESS
    } else {
        output::line(&format!("next: isoflop fit {out}; isoflop report {out}"))?;
        ExitCode::SUCCESS
    })
}
