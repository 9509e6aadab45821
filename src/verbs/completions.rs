//! `isoflop completions`: a script that completes verbs, options and file names.

use crate::cli::Cli;
use crate::output;
use clap::CommandFactory;
use clap_complete::Shell;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  isoflop completions bash > ~/.local/share/bash-completion/completions/isoflop"
)]
pub struct Args {
    shell: Shell,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "isoflop", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
