//! `isoflop fit`: scaling laws from the finished runs of a study, or from any table of runs.

use super::fit_accuracy;
use super::fit_args::FitArgs;
use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use isoflop_sweeps::fit::input::count;
use isoflop_sweeps::fit::{
    DocumentFit, Estimate, Exponents, FitDocument, Params, Predictions, format_count, format_flops,
};
use isoflop_sweeps::results::Wanted;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop fit studies/nano --targets 1e13,1e14
  isoflop fit points.csv --approach 3 --output json
  isoflop fit wandb.csv --map params=config.n_params,tokens=tokens,loss=val/loss --out fit.json
  isoflop fit points.csv --predict larger.csv --predictions predicted.csv
  isoflop fit all.jsonl --map group=dataset
  isoflop fit ladder.csv --tasks hellaswag=hs_bpb:hs_acc:0.25,arc=arc_bpb:arc_acc:0.25 --predict larger.csv

RUNS is a study, whose fit.json is written, or a CSV, TSV or JSON table with two of parameters, tokens and FLOPs
and a loss; with accuracies of tasks, a sigmoid of each task's loss. Beside a table nothing is written unless --out says where. Columns are found by their names or by --map.
Options that are not given come from [fit] of the study's sweep file.")]
pub struct Args {
    /// A study's directory, or a table of runs
    #[arg(value_hint = ValueHint::AnyPath)]
    runs: PathBuf,
    #[command(flatten)]
    how: FitArgs,
    /// FLOPs at which to print the optimum
    #[arg(long, value_delimiter = ',', value_parser = count)]
    targets: Option<Vec<f64>>,
    /// Predict the losses of this table: parameters and tokens, or compute alone, for the optimum
    #[arg(long, value_hint = ValueHint::FilePath)]
    predict: Option<PathBuf>,
    /// Write the predictions here as CSV
    #[arg(long, value_hint = ValueHint::FilePath, requires = "predict")]
    predictions: Option<PathBuf>,
    /// Write the fit here, as fit.json
    #[arg(long, value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let wanted = Wanted {
        out: args.out.as_deref(),
        predict: args.predict.as_deref(),
        predictions: args.predictions.as_deref(),
    };
    let document = args.how.fitted(&args.runs, args.targets.as_deref(), wanted)?;
    match args.output {
        Format::Json => output::json(&document)?,
        Format::Table => output::print(&tables(&document))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `0.48 [0.45, 0.52]`.
fn with_interval(intervals: &BTreeMap<String, [f64; 2]>, name: &str, value: f64) -> String {
    match intervals.get(name) {
        Some([low, high]) => format!("{value:.3} [{low:.3}, {high:.3}]"),
        None => format!("{value:.3}"),
    }
}

fn law(params: &Params) -> String {
    match params {
        Params::Loss(l) => {
            format!("L = {:.3} + {:.4}/N^{:.3} + {:.4}/D^{:.3}", l.e, l.a, l.alpha, l.b, l.beta)
        }
        Params::Power { n_coefficient, d_coefficient } => {
            format!("N* = {n_coefficient:.3e} C^a, D* = {d_coefficient:.3e} C^b")
        }
        Params::Kaplan(l) => {
            let rho = l.alpha_n / l.alpha_d;
            format!("L = (({:.3e}/N)^{rho:.3} + {:.3e}/D)^{:.3}", l.n_c, l.d_c, l.alpha_d)
        }
        Params::Compute(l) => format!("L = {:.3} + {:.4}/C^{:.3}", l.e, l.a, l.alpha),
    }
}

/// The cells of a row, after the group's name where there are groups.
pub fn row<const N: usize>(grouped: bool, group: Option<&str>, cells: [String; N]) -> Vec<String> {
    let group = grouped.then(|| group.unwrap_or("").to_string());
    group.into_iter().chain(cells).collect()
}

pub fn headings<'a>(grouped: bool, names: &[&'a str]) -> Vec<&'a str> {
    grouped.then_some("group").into_iter().chain(names.iter().copied()).collect()
}

fn tables(document: &FitDocument) -> String {
    let grouped = !document.inputs.groups.is_empty();
    let names = headings(grouped, &["approach", "N* ~ C^a", "D* ~ C^b", "law"]);
    let mut laws = output::table(&names, names.len());
    for DocumentFit { group, fit, variants, .. } in &document.fits {
        let mut add =
            |name: String, intervals: &BTreeMap<_, _>, exponents: Option<Exponents>, params: &Params| {
                let shown = |name, of: fn(Exponents) -> f64| {
                    exponents.map(|e| with_interval(intervals, name, of(e))).unwrap_or_default()
                };
                let cells = [name, shown("a", |e| e.a), shown("b", |e| e.b), law(params)];
                laws.add_row(row(grouped, group.as_deref(), cells));
            };
        add(fit.approach.to_string(), &fit.intervals, Some(fit.exponents), &fit.params);
        for v in variants {
            add(format!("{} {}", fit.approach, v.law), &v.intervals, v.exponents, &v.params);
        }
    }
    let mut text = format!("{laws}\n");
    let source = &document.inputs.source;
    for (group, i) in document.fitted() {
        let group = group.map(|g| format!("{g}: ")).unwrap_or_default();
        // A table's own rows that were left out before are runs too.
        let runs = if grouped { i.runs } else { i.runs + source.left_out.count };
        text.push_str(&format!(
            "{group}{} of {runs} runs, {} loss, {} parameters, FLOPs by {}\n",
            i.used,
            i.loss,
            i.parameters,
            i.flops_conventions.join(", ")
        ));
    }
    if !source.derived.is_empty() {
        text.push_str(&format!("computed: {}\n", source.derived.join(", ")));
    }
    if !document.inputs.options.targets.is_empty() {
        text.push_str(&format!("{}\n", optima(document, grouped)));
    }
    text.push_str(&fit_accuracy::sigmoids(document, grouped));
    if let Some(predictions) = &document.predictions {
        text.push_str(&predicted(predictions, grouped));
        text.push_str(&fit_accuracy::predicted(predictions, grouped));
    }
    let left_out = document.left_out();
    for run in &left_out.listed {
        text.push_str(&format!("left out: {} ({})\n", run.id, run.why));
    }
    if left_out.count > left_out.listed.len() {
        let more = left_out.count - left_out.listed.len();
        text.push_str(&format!("left out: {more} more\n"));
    }
    for warning in &document.warnings {
        let group = warning.group.as_ref().map(|g| format!("{g}: ")).unwrap_or_default();
        text.push_str(&format!("warning: {group}{}\n", warning.warning.message));
    }
    text
}

fn optima(document: &FitDocument, grouped: bool) -> comfy_table::Table {
    let names = headings(grouped, &["FLOPs", "approach", "N*", "D*"]);
    let mut table = output::table(&names, names.len() - 3);
    for (group, inputs) in document.fitted() {
        for target in &inputs.targets {
            let of_group = document.fits.iter().filter(|f| f.group.as_deref() == group);
            // A law with a parameter on its bound has no optimum worth a number.
            for DocumentFit { fit, .. } in of_group.filter(|f| !f.fit.optimum.is_empty()) {
                let Some((n, d)) = fit.optimum_at(*target, inputs.flops_per_param_token) else { continue };
                let cells =
                    [format_flops(*target), fit.approach.to_string(), format_count(n), format_count(d)];
                table.add_row(row(grouped, group, cells));
            }
        }
    }
    table
}

/// `2.345 [2.333, 2.357]`.
pub fn estimate(value: &Estimate, show: &dyn Fn(f64) -> String) -> String {
    match value.interval {
        Some([low, high]) => format!("{} [{}, {}]", show(value.value), show(low), show(high)),
        None => show(value.value),
    }
}

fn predicted(predictions: &Predictions, grouped: bool) -> String {
    let names = headings(grouped, &["target", "N", "D", "FLOPs", "loss", "measured", "error", "no fit"]);
    let mut table = output::table(&names, names.len() - 7);
    let percent = |v: f64| format!("{:+.2} %", 100.0 * v);
    for r in &predictions.rows {
        let best = if r.at_optimum { "*" } else { "" };
        let cells = [
            r.id.clone(),
            format!("{}{best}", format_count(r.params)),
            format!("{}{best}", format_count(r.tokens)),
            format_flops(r.flops),
            estimate(&r.loss, &|v| format!("{v:.4}")),
            r.measured.map(|v| format!("{v:.4}")).unwrap_or_default(),
            r.error.map(percent).unwrap_or_default(),
            r.baseline.map(|v| format!("{v:.4}")).unwrap_or_default(),
        ];
        table.add_row(row(grouped, r.group.as_deref(), cells));
    }
    let mut text = format!("{table}\n");
    if let Some(error) = predictions.error {
        text.push_str(&format!(
            "mean error of {} measured targets: {:.2} %",
            predictions.measured,
            100.0 * error
        ));
        if let Some(baseline) = predictions.baseline_error {
            text.push_str(&format!("; of the nearest fitted runs: {:.2} %", 100.0 * baseline));
        }
        text.push('\n');
    }
    text
}
