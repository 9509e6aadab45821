//! `isoflop kernels dump`: every kernel of a set of models as one file.

use super::models::Selection;
use crate::cli::Format;
use crate::output;
use crate::verbs::passes::Flags;
use clap::ValueHint;
use isoflop_compiler::compare::{Dump, MadeWith};
use isoflop_compiler::driver::{OptimizeOptions, plan_program_with};
use isoflop_compiler::mlir::Target;
use isoflop_compiler::passes::pipeline;
use isoflop_sweeps::compile::kernel_cache;
use isoflop_sweeps::device::Device;
use miette::{IntoDiagnostic, miette};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop kernels dump --out before.json
  isoflop kernels dump --size 44M,280B --out large.json
  isoflop kernels dump sweeps/examples/nano.toml --code --target x86-64-v3 --out nano.json
  isoflop kernels dump model.toml --disable-pass recompute > without.json

Without files these are all sizes of the Gopher and nano families. Equal kernels give equal bytes, whichever compiler
generated them: a dump can be kept, compared with `isoflop kernels diff`, or read with diff.")]
pub struct Args {
    /// Sweep files and descriptions of models
    #[arg(value_name = "SWEEP.toml|MODEL.toml", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    /// File to write instead of standard output
    #[arg(long, value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    #[command(flatten)]
    passes: Flags,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    crate::heap::keep();
    if args.passes.stop_after.is_some() {
        return Err(miette!(
            "there are no kernels where --stop-after stops; see `isoflop compile --stop-after`"
        ));
    }
    let report = |traces: &[pipeline::Trace]| args.passes.report(traces, Format::Table);
    let dump = make(&args.files, &args.selection, args.passes.options(None), &report)?;
    let text = dump.to_text().into_diagnostic()?;
    match &args.out {
        None => output::print(&text)?,
        Some(path) => {
            std::fs::write(path, text).map_err(|e| miette!("cannot write {}: {e}", path.display()))?;
            let programs = dump.programs.len();
            output::note(&format!(
                "{}: {} different kernels in {programs} programs",
                path.display(),
                dump.kernels.len()
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a dump.
pub fn read(path: &Path) -> miette::Result<Dump> {
    let text = std::fs::read_to_string(path).map_err(|e| miette!("cannot read {}: {e}", path.display()))?;
    Dump::parse(&text).map_err(|e| miette!("{} {e}", path.display()))
}

/// What this compiler makes of the models.
pub fn make(
    files: &[PathBuf],
    selection: &Selection,
    pipeline: pipeline::Options,
    report: &dyn Fn(&[pipeline::Trace]) -> miette::Result<()>,
) -> miette::Result<Dump> {
    let device = match &selection.device {
        Some(name) => Device::find(name).into_diagnostic()?.0,
        None => Device::built_in("cpu").into_diagnostic()?,
    };
    let target: Target = selection.target.parse().into_diagnostic()?;
    let jobs = selection.jobs(files)?;
    let made_with =
        MadeWith { device: device.name.clone(), disabled_passes: pipeline.disable.clone(), target: None };
    let options = OptimizeOptions { pipeline, cost: device.cost(1), ..OptimizeOptions::default() };
    let mut dump = Dump::new(made_with);
    for job in &jobs {
        let plan = plan_program_with(&job.model, &job.step, &options)
            .map_err(|e| miette!("model `{}`: {e}", job.name))?;
        report(&plan.traces)?;
        dump.add(&job.name, job.step.batch, &plan).into_diagnostic()?;
    }
    if selection.code {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        dump.add_code(&target, &kernel_cache(), threads).into_diagnostic()?;
    }
    Ok(dump)
}
