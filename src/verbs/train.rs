//! `isoflop train`: one run directory from wherever it stands to its end.

use crate::output;
use clap::ValueHint;
use isoflop_kernels::footprint::{COMMAND, WORKER};
use isoflop_runtime::check::{PATIENCE, check};
use isoflop_runtime::placement::Placement;
use isoflop_runtime::train::{Options, stop_on_signals, train};
use miette::{IntoDiagnostic, miette};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop train studies/nano/runs/c1e11-n21k-s0 --threads 2

SIGTERM, SIGINT and SIGUSR2 finish the step, save and stop; the same command continues, bit for bit.
Exit codes: 0 finished, 1 failed, 75 stopped and to be continued, 76 diverged, 77 owned by another process.")]
pub struct Args {
    /// A directory with config.toml
    #[arg(value_hint = ValueHint::DirPath)]
    run_dir: PathBuf,
    /// Threads, instead of the configuration's number; results do not depend on it
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Stop after this many steps of this call, saved and to be continued
    #[arg(long, value_name = "N")]
    stop_after_steps: Option<u64>,
    /// Of a run with a layout.toml: look whether this process, and as rank 0 all of the job's, stand where the layout wants
    /// them, then stop; nothing is trained
    #[arg(long, conflicts_with_all = ["threads", "stop_after_steps"])]
    check: bool,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    if args.check {
        return checked(args);
    }
    let options = Options {
        threads: args.threads.map(usize::from),
        stop: stop_on_signals().into_diagnostic()?,
        stop_after_steps: args.stop_after_steps,
        base: if cfg!(feature = "study") { COMMAND } else { WORKER },
        progress: &mut |_| {},
        warn: &mut |line| output::note(&format!("warning: {line}")),
    };
    let code = match train(&args.run_dir, options) {
        Ok(outcome) => outcome.exit_code(),
        Err(e) => {
            output::note(&format!("{:?}", miette!("{e}")));
            e.exit_code()
        }
    };
    Ok(ExitCode::from(code as u8))
}

fn checked(args: &Args) -> miette::Result<ExitCode> {
    let place = Placement::here().into_diagnostic()?;
    match check(&args.run_dir, &place, PATIENCE) {
        Ok(words) => {
            if place.rank == 0 {
                output::note(&words);
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(e) => {
            output::note(&format!("{:?}", miette!("{e}")));
            Ok(ExitCode::from(e.exit_code() as u8))
        }
    }
}
