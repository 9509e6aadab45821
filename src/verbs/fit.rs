//! `isoflop fit`: scaling laws from the finished runs of a study.

use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use isoflop_sweeps::fit::{Fit, FitReport, Params, format_count, format_flops};
use isoflop_sweeps::results;
use isoflop_sweeps::study::Study;
use miette::miette;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:
  isoflop fit studies/nano --targets 1e13,1e14

Writes fit.json. Options that are not given come from [fit] of the study's sweep file.")]
pub struct Args {
    /// The study's directory
    #[arg(value_hint = ValueHint::DirPath)]
    study: PathBuf,
    /// Approaches of Hoffmann et al. 2022: any of 1, 2, 3
    #[arg(long, value_delimiter = ',')]
    approaches: Option<Vec<u8>>,
    /// Resamples for intervals; 0 for none
    #[arg(long)]
    bootstrap: Option<usize>,
    /// FLOPs at which to print the optimum
    #[arg(long, value_delimiter = ',')]
    targets: Option<Vec<f64>>,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let study = Study::new(&args.study);
    let mut options = results::options(&study).map_err(|e| miette!("{e}"))?;
    options.approaches = args.approaches.clone().unwrap_or(options.approaches);
    options.bootstrap = args.bootstrap.unwrap_or(options.bootstrap);
    options.targets = args.targets.clone().unwrap_or(options.targets);
    let report = results::fit(&study, &options).map_err(|e| miette!("{e}"))?;
    match args.output {
        Format::Json => output::json(&report)?,
        Format::Table => output::print(&tables(&report))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `0.48 [0.45, 0.52]`.
fn with_interval(fit: &Fit, name: &str, value: f64) -> String {
    match fit.intervals.get(name) {
        Some([low, high]) => format!("{value:.3} [{low:.3}, {high:.3}]"),
        None => format!("{value:.3}"),
    }
}

fn law(fit: &Fit) -> String {
    match &fit.params {
        Params::Loss(l) => {
            format!("L = {:.3} + {:.4}/N^{:.3} + {:.4}/D^{:.3}", l.e, l.a, l.alpha, l.b, l.beta)
        }
        Params::Power { n_coefficient, d_coefficient } => {
            format!("N* = {n_coefficient:.3e} C^a, D* = {d_coefficient:.3e} C^b")
        }
    }
}

fn tables(report: &FitReport) -> String {
    let mut laws = output::table(&["approach", "N* ~ C^a", "D* ~ C^b", "law"], 4);
    for fit in &report.fits {
        laws.add_row([
            fit.approach.to_string(),
            with_interval(fit, "a", fit.exponents.a),
            with_interval(fit, "b", fit.exponents.b),
            law(fit),
        ]);
    }
    let i = &report.inputs;
    let mut text = format!(
        "{laws}\n{} of {} runs, {} loss, {} parameters, FLOPs by {}\n",
        i.used,
        i.runs,
        i.loss,
        i.parameters,
        i.flops_conventions.join(", ")
    );
    if !i.targets.is_empty() {
        let mut optima = output::table(&["FLOPs", "approach", "N*", "D*"], 1);
        for target in &i.targets {
            // A law with a parameter on its bound has no optimum worth a number.
            for fit in report.fits.iter().filter(|fit| !fit.optimum.is_empty()) {
                let (n, d) = fit.optimum_at(*target, i.flops_per_param_token);
                optima.add_row([
                    format_flops(*target),
                    fit.approach.to_string(),
                    format_count(n),
                    format_count(d),
                ]);
            }
        }
        text.push_str(&format!("{optima}\n"));
    }
    for run in &i.left_out {
        text.push_str(&format!("left out: {} ({})\n", run.id, run.why));
    }
    for warning in &report.warnings {
        text.push_str(&format!("warning: {}\n", warning.message));
    }
    text
}
