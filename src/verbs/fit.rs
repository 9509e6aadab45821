//! `isoflop fit`: scaling laws from the finished runs of a study, or from any table of runs.

use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use isoflop_compiler::count::Convention;
use isoflop_sweeps::fit::input::{ColumnMap, ReadOptions};
use isoflop_sweeps::fit::{
    DocumentFit, Fit, FitDocument, FitOptions, LossColumn, ParamCount, Params, format_count, format_flops,
};
use isoflop_sweeps::results::{self, ResultsError};
use isoflop_sweeps::study::Study;
use miette::miette;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop fit studies/nano --targets 1e13,1e14
  isoflop fit points.csv --approach 3 --output json
  isoflop fit wandb.csv --map params=config.n_params,tokens=tokens,loss=val/loss --out fit.json

Example for groups, each fitted apart:
  isoflop fit all.jsonl --map group=dataset

RUNS is a study, whose fit.json is written, or a CSV, TSV or JSON table with two of parameters, tokens and FLOPs
and a loss; beside a table nothing is written unless --out says where. Columns are found by their names or by --map.
Options that are not given come from [fit] of the study's sweep file.")]
pub struct Args {
    /// A study's directory, or a table of runs
    #[arg(value_hint = ValueHint::AnyPath)]
    runs: PathBuf,
    /// Approaches of Hoffmann et al. 2022: 1, 2, 3 or all
    #[arg(long, value_delimiter = ',')]
    approach: Option<Vec<String>>,
    /// Columns of the table: params=COL,tokens=COL,flops=COL,loss=COL,group=COL; `none` for no column
    #[arg(long)]
    map: Vec<String>,
    /// How the table's FLOPs were counted, or are counted where it has none: 6nd, kaplan, ...
    #[arg(long, value_parser = convention)]
    flops_convention: Option<Convention>,
    /// Tokens in the vocabulary: runs with a loss above its logarithm are left out
    #[arg(long)]
    vocab_size: Option<f64>,
    /// Which final loss: validation or train
    #[arg(long, value_parser = kebab::<LossColumn>)]
    loss: Option<LossColumn>,
    /// Which parameters N counts: total or non-embedding
    #[arg(long, value_parser = kebab::<ParamCount>)]
    params: Option<ParamCount>,
    /// Resamples for intervals; 0 for none
    #[arg(long)]
    bootstrap: Option<usize>,
    /// Share of resamples inside an interval
    #[arg(long)]
    level: Option<f64>,
    /// Seed of the resamples
    #[arg(long)]
    seed: Option<u64>,
    /// FLOPs at which to print the optimum
    #[arg(long, value_delimiter = ',')]
    targets: Option<Vec<f64>>,
    /// Write the fit here, as fit.json
    #[arg(long, value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub fn convention(name: &str) -> Result<Convention, String> {
    let names = || Convention::ALL.map(Convention::name).join(", ");
    Convention::ALL
        .into_iter()
        .find(|c| c.name() == name)
        .ok_or_else(|| format!("expected one of {}", names()))
}

/// A value of an enum by the name that sweep files use.
fn kebab<T: serde::de::DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|e| e.to_string())
}

/// 1, 2, 3 or all.
fn approaches(words: &[String]) -> miette::Result<Vec<u8>> {
    let mut found = Vec::new();
    for word in words {
        match word.trim() {
            "all" => found.extend([1, 2, 3]),
            "1" => found.push(1),
            "2" => found.push(2),
            "3" => found.push(3),
            other => return Err(miette!("--approach: found `{other}`, expected 1, 2, 3 or all")),
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// An error with its help, where it has one.
pub fn shown(error: ResultsError) -> miette::Report {
    match error {
        ResultsError::Input(error) => error.into(),
        other => miette!("{other}"),
    }
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let is_study = args.runs.is_dir();
    let study = Study::new(&args.runs);
    let mut options = match is_study {
        true => results::options(&study).map_err(|e| miette!("{e}"))?,
        false => FitOptions::default(),
    };
    if let Some(words) = &args.approach {
        options.approaches = approaches(words)?;
    }
    options.bootstrap = args.bootstrap.unwrap_or(options.bootstrap);
    options.level = args.level.unwrap_or(options.level);
    options.seed = args.seed.unwrap_or(options.seed);
    options.loss = args.loss.unwrap_or(options.loss);
    options.params = args.params.unwrap_or(options.params);
    options.targets = args.targets.clone().unwrap_or(options.targets);
    let out = args.out.as_deref();
    let document = if is_study {
        let only_tables = [("--map", !args.map.is_empty()), ("--vocab-size", args.vocab_size.is_some())];
        let found = only_tables.iter().find(|(_, given)| *given);
        if let Some((flag, _)) = found {
            return Err(miette!("{flag} is for tables; {} is a directory", args.runs.display()));
        }
        if args.flops_convention.is_some() {
            return Err(miette!("--flops-convention is for tables; a study's own is in its plan"));
        }
        results::fit(&study, &options, out).map_err(shown)?.1
    } else {
        let reading = ReadOptions {
            map: ColumnMap::parse(args.map.iter().map(String::as_str))?,
            convention: args.flops_convention,
            vocab_size: args.vocab_size,
        };
        let chosen = [args.loss.is_some(), args.params.is_some()];
        results::fit_table(&args.runs, &reading, &options, chosen, out).map_err(shown)?
    };
    match args.output {
        Format::Json => output::json(&document)?,
        Format::Table => output::print(&tables(&document))?,
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
        Params::Kaplan(l) => {
            let rho = l.alpha_n / l.alpha_d;
            format!("L = (({:.3e}/N)^{rho:.3} + {:.3e}/D)^{:.3}", l.n_c, l.d_c, l.alpha_d)
        }
        Params::Compute(l) => format!("L = {:.3} + {:.4}/C^{:.3}", l.e, l.a, l.alpha),
    }
}

/// The cells of a row, after the group's name where there are groups.
fn row<const N: usize>(grouped: bool, group: Option<&str>, cells: [String; N]) -> Vec<String> {
    let group = grouped.then(|| group.unwrap_or("").to_string());
    group.into_iter().chain(cells).collect()
}

fn headings<'a>(grouped: bool, names: &[&'a str]) -> Vec<&'a str> {
    grouped.then_some("group").into_iter().chain(names.iter().copied()).collect()
}

fn tables(document: &FitDocument) -> String {
    let grouped = !document.inputs.groups.is_empty();
    let names = headings(grouped, &["approach", "N* ~ C^a", "D* ~ C^b", "law"]);
    let mut laws = output::table(&names, names.len());
    for DocumentFit { group, fit, .. } in &document.fits {
        laws.add_row(row(
            grouped,
            group.as_deref(),
            [
                fit.approach.to_string(),
                with_interval(fit, "a", fit.exponents.a),
                with_interval(fit, "b", fit.exponents.b),
                law(fit),
            ],
        ));
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
