//! `isoflop opt`: passes over graphs in text form, and files of cases.

use super::{filetest, passes};
use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use isoflop_compiler::opt::opt;
use isoflop_compiler::passes::Registry;
use miette::miette;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop opt model.graph --passes simplify,cse,dce --print-after-all
  isoflop compile model.toml --emit graph | isoflop opt - --passes default --stop-after fold > folded.graph
  isoflop opt folded.graph --resume-from cse --time-passes
  isoflop opt --check tests/filetests --filter simplify
  isoflop opt --list

--passes takes the names of passes; `default` stands for those that every model goes through. Graphs are printed on
standard output; dumps, counts and times on standard error.")]
pub struct Args {
    /// Graphs in text form; `-` reads standard input. With --check, files of cases and folders of them
    #[arg(value_name = "FILE.graph", value_hint = ValueHint::AnyPath, required_unless_present = "list")]
    files: Vec<PathBuf>,
    /// Passes in order, separated by commas; none only checks and prints
    #[arg(long, default_value = "")]
    passes: String,
    /// Begin with this pass of --passes, or of `default`: the graph is a dump made after the passes before
    #[arg(long, value_name = "PASS")]
    resume_from: Option<String>,
    /// List the passes
    #[arg(long)]
    list: bool,
    /// Run the cases of the files, and print what differs from their CHECK lines
    #[arg(long, conflicts_with_all = ["list", "passes", "resume_from"])]
    check: bool,
    /// Write what was found into the CHECK lines
    #[arg(long, requires = "check")]
    bless: bool,
    /// Only cases in whose `PATH:LINE ACTION` this occurs
    #[arg(long, value_name = "TEXT", requires = "check")]
    filter: Option<String>,
    /// How times and lists are printed
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    flags: passes::Flags,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    if args.list {
        passes::list(args.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        if args.flags.any() {
            return Err(miette!(
                "a case names its passes itself; options about passes do not go with --check"
            ));
        }
        return filetest::run(&args.files, args.filter.as_deref(), args.bless);
    }
    let [file] = &args.files[..] else {
        return Err(miette!("one file at a time; only --check takes several"));
    };
    let name = file.display().to_string();
    let mut text = String::new();
    let read = match name.as_str() {
        "-" => std::io::stdin().read_to_string(&mut text).map(drop),
        _ => std::fs::read_to_string(file).map(|t| text = t),
    };
    read.map_err(|e| miette!("cannot read {name}: {e}"))?;
    let options = args.flags.options(args.resume_from.clone());
    let (graphs, traces) =
        opt(&Registry::default(), &text, &name, &args.passes, &options).map_err(|e| miette!("{e}"))?;
    output::print(&graphs)?;
    args.flags.report(&traces, args.output)?;
    Ok(ExitCode::SUCCESS)
}
