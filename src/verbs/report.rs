//! `isoflop report`: a study, a table of runs or a fit as one HTML page, and its figures as files.

use super::fit_args::FitArgs;
use crate::output;
use clap::{ValueEnum, ValueHint};
use isoflop_sweeps::fit::input::count;
use isoflop_sweeps::report::FigureFormat;
use isoflop_sweeps::reports;
use miette::miette;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop report studies/nano
  isoflop report studies/nano --figures figures --format svg,png
  isoflop report points.csv --targets 1e22 --out points.html
  isoflop report fit.json --out fit.html

RUNS is a study, whose report.html is written, or a table as for `isoflop fit`, or a fit.json, which has no runs to show.
The page needs no network and no script. Figures are for papers: on white, legible in one of two columns, with their
numbers as CSV beside.")]
pub struct Args {
    /// A study's directory, a table of runs, or a fit.json
    #[arg(value_name = "RUNS", value_hint = ValueHint::AnyPath)]
    runs: PathBuf,
    /// Write the page here; needed but for a study
    #[arg(long, value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    /// Write every figure into this directory too
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    figures: Option<PathBuf>,
    /// How figures are written, beside their CSV
    #[arg(long, value_enum, value_delimiter = ',', default_value = "svg", requires = "figures")]
    format: Vec<Format>,
    /// The group of the table that is shown
    #[arg(long)]
    group: Option<String>,
    /// FLOPs at which to show the optimum
    #[arg(long, value_delimiter = ',', value_parser = count)]
    targets: Option<Vec<f64>>,
    #[command(flatten)]
    how: FitArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Svg,
    Png,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let input = args.how.reported(&args.runs, args.targets.as_deref(), args.group.as_deref())?;
    let page = match &args.out {
        Some(page) => page.clone(),
        None if args.runs.is_dir() => args.runs.join("report.html"),
        None => {
            return Err(miette!(
                "{} is no study: say with --out where the page is written",
                args.runs.display()
            ));
        }
    };
    let formats: Vec<FigureFormat> = args
        .format
        .iter()
        .map(|f| match f {
            Format::Svg => FigureFormat::Svg,
            Format::Png => FigureFormat::Png,
        })
        .collect();
    let figures = args.figures.as_deref().map(|folder| (folder, formats.as_slice()));
    for file in reports::write(&input, &page, figures).map_err(super::fit_args::shown)? {
        output::line(&file.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
