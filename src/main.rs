//! The `isoflop` command: parses the command line, calls the libraries, prints. Nothing else lives here.

mod cli;
#[cfg(feature = "study")]
mod heap;
mod output;
#[cfg(feature = "study")]
mod progress;
mod verbs;
#[cfg(feature = "study")]
mod watch;

use clap::Parser;
use std::io::IsTerminal;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Messages keep their lines whole where a program may read them. The hook is set once, so this cannot fail.
    let _ = miette::set_hook(Box::new(|_| {
        let wrap = std::io::stderr().is_terminal();
        Box::new(miette::MietteHandlerOpts::new().wrap_lines(wrap).build())
    }));
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(report) => {
            output::note(&format!("{report:?}"));
            ExitCode::from(1)
        }
    }
}
