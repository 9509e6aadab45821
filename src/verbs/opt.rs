//! `isoflop opt`: passes over graphs in text form.

use crate::output;
use clap::ValueHint;
use isoflop_compiler::opt::opt;
use isoflop_compiler::passes::{self, pipeline::Options};
use miette::miette;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop opt model.graph --passes simplify,cse,dce --print-after-all
  isoflop compile model.toml --emit graph | isoflop opt - --passes cse
  isoflop opt --list")]
pub struct Args {
    /// Graphs in text form; `-` reads standard input
    #[arg(value_name = "FILE.graph", value_hint = ValueHint::FilePath, required_unless_present = "list")]
    file: Option<PathBuf>,
    /// Passes in order, separated by commas; none only checks and prints
    #[arg(long, default_value = "")]
    passes: String,
    /// Print the graph after every pass
    #[arg(long)]
    print_after_all: bool,
    /// Print the graph after this pass
    #[arg(long, value_name = "PASS")]
    print_after: Vec<String>,
    /// Leave this pass out
    #[arg(long, value_name = "PASS")]
    disable_pass: Vec<String>,
    /// Run nothing after this pass
    #[arg(long, value_name = "PASS")]
    stop_after: Option<String>,
    /// Verify the graph after every pass
    #[arg(long)]
    verify: bool,
    /// Say how long each pass took
    #[arg(long)]
    time: bool,
    /// List the passes
    #[arg(long)]
    list: bool,
}

fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let file = match &args.file {
        Some(file) if !args.list => file,
        _ => {
            for pass in passes::all() {
                let rounding = if pass.changes_rounding { " (may change rounding)" } else { "" };
                output::line(&format!("{:<12} {}{rounding}", pass.name, pass.description))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    let name = file.display().to_string();
    let mut text = String::new();
    let read = match name.as_str() {
        "-" => std::io::stdin().read_to_string(&mut text).map(drop),
        _ => std::fs::read_to_string(file).map(|t| text = t),
    };
    read.map_err(|e| miette!("cannot read {name}: {e}"))?;
    let options = Options {
        print_after_all: args.print_after_all,
        print_after: args.print_after.clone(),
        verify: args.verify || Options::default().verify,
        disable: args.disable_pass.clone(),
        stop_after: args.stop_after.clone(),
        clock: args.time.then_some(since_start as fn() -> Duration),
    };
    output::print(&opt(&text, &name, &args.passes, &options).map_err(|e| miette!("{e}"))?)?;
    Ok(ExitCode::SUCCESS)
}
