//! `isoflop train`: one run directory from wherever it stands to its end.

use crate::output;
use clap::ValueHint;
use isoflop_kernels::footprint::{COMMAND, WORKER};
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
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
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
