//! `isoflop report`: a study as one HTML page.

use crate::output;
use clap::ValueHint;
use isoflop_sweeps::results;
use isoflop_sweeps::study::Study;
use miette::miette;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  isoflop report studies/nano\n\nThe page needs no network and no script.")]
pub struct Args {
    /// The study's directory
    #[arg(value_hint = ValueHint::DirPath)]
    study: PathBuf,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let page = results::report(&Study::new(&args.study)).map_err(|e| miette!("{e}"))?;
    output::line(&page.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}
