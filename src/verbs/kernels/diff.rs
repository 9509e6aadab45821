//! `isoflop kernels diff`: two dumps side by side, or two revisions of the compiler.

use super::dump::{make, read};
use super::models::Selection;
use super::revision::{BUILD, Revision};
use super::show;
use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use isoflop_compiler::compare::{Dump, difference};
use isoflop_compiler::passes::pipeline;
use miette::miette;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop kernels diff before.json after.json
  isoflop kernels diff before.json after.json --mlir --exit-code
  isoflop kernels diff --rev HEAD
  isoflop kernels diff --rev main --rev HEAD --size 44M,280B --code
  isoflop kernels diff --rev HEAD~1 sweeps/examples/nano.toml

A kernel whose text changed is found again at the same labels of the same programs. Kernels that changed in the same way
but for numbers, as those of other widths do, are shown once.

--rev compiles a revision of the git repository around the current folder, which takes minutes the first time: binaries
are kept by commit in the user's cache folder, under revisions/. One revision is compared with this isoflop, as it was
built; two with each other. Without files they dump all sizes of the Gopher and nano families.")]
pub struct Args {
    /// Two dumps, before and after; with --rev sweep files and descriptions of models
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Compare what the compiler of this revision generates; a second time, with what that one generates
    #[arg(long, value_name = "REV")]
    rev: Vec<String>,
    /// With --rev, a shell command that builds isoflop in a checkout and leaves it at $CARGO_TARGET_DIR/release/isoflop
    #[arg(long, value_name = "COMMAND", default_value = BUILD, requires = "rev")]
    build: String,
    /// With --rev, leave this pass out
    #[arg(long, value_name = "PASS", requires = "rev")]
    disable_pass: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Show what changed in the MLIR of kernels that compute something else, too
    #[arg(long)]
    mlir: bool,
    /// End with 1 where something differs and with 2 after an error
    #[arg(long)]
    exit_code: bool,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    match compare(args) {
        Ok(equal) => Ok(if args.exit_code && !equal { ExitCode::from(1) } else { ExitCode::SUCCESS }),
        Err(report) if args.exit_code => {
            output::note(&format!("{report:?}"));
            Ok(ExitCode::from(2))
        }
        Err(report) => Err(report),
    }
}

/// Prints the difference; true where there is none.
fn compare(args: &Args) -> miette::Result<bool> {
    let (before, after) = dumps(args)?;
    let found = difference(&before, &after);
    match args.output {
        Format::Json => output::json(&found)?,
        Format::Table => output::print(&show::text(&found, args.mlir, colour()))?,
    }
    Ok(found.is_equal())
}

fn dumps(args: &Args) -> miette::Result<(Dump, Dump)> {
    let of_revision =
        |rev: &Revision| rev.dump(&args.files, &args.selection, &args.disable_pass, &args.build);
    match &args.rev[..] {
        [] => {
            if args.selection.any() {
                return Err(miette!(
                    "two dumps are compared as they are; what is compiled is for `isoflop kernels dump` or --rev to say"
                ));
            }
            let [before, after] = &args.files[..] else {
                let n = args.files.len();
                return Err(miette!("{n} dumps are given; it takes two, before and after, or --rev"));
            };
            Ok((read(before)?, read(after)?))
        }
        [before] => {
            let before = of_revision(&Revision::find(before)?)?;
            let disable = args.disable_pass.clone();
            let pipeline = pipeline::Options { disable, ..pipeline::Options::default() };
            Ok((before, make(&args.files, &args.selection, pipeline, &|_| Ok(()))?))
        }
        [before, after] => {
            // Both are looked for before one is built.
            let (before, after) = (Revision::find(before)?, Revision::find(after)?);
            Ok((of_revision(&before)?, of_revision(&after)?))
        }
        more => Err(miette!("--rev is given {} times; it takes one revision or two", more.len())),
    }
}

fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
