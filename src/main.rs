//! The `isoflop` command: parses the command line, calls the libraries, prints. Nothing else lives here.

mod cli;
mod output;
#[cfg(feature = "study")]
mod progress;
mod verbs;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(report) => {
            eprintln!("{report:?}");
            ExitCode::from(1)
        }
    }
}
