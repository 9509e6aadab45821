//! `isoflop propose`: the next runs that tell most about a target for a budget, as a sweep file.

use super::fit_args::{FitArgs, shown};
use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use isoflop_sweeps::family::FamilyName;
use isoflop_sweeps::fit::design::{NoiseFrom, Quantity, Target};
use isoflop_sweeps::fit::input::count;
use isoflop_sweeps::fit::{FitDocument, format_count};
use isoflop_sweeps::propose::{FittedRuns, Outlook, Proposal, Request, Template, of_fit, propose};
use isoflop_sweeps::results;
use miette::miette;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop propose points.csv --budget 1e21 --runs 6 --target nstar@1e23 --out next.toml
  isoflop propose studies/nano --budget 3e12 --runs 5 --target loss@1e14 --out next.toml
  isoflop propose --fit fit.json --base sweep.toml --budget 1e21 --runs 6 --target nstar@1e23

The budget is that of all runs together. Runs are those that can be planned: sizes of the family and shapes between them
with round token counts, none smaller, shorter or cheaper than the least of the fitted runs. The set that leaves the
shortest interval of the target is chosen by the covariance of approach 3, and compared with runs equally spaced along
N*(C). Both are tried out: losses of old and new runs are drawn from the fitted law with the noise of the fitted runs, and
fitted again.
With --fit the fitted table lies beside fit.json, or is named as well.")]
pub struct Args {
    /// A study or a table to fit first; with --fit what was fitted, where it is not beside it
    #[arg(value_hint = ValueHint::AnyPath, required_unless_present = "fit")]
    fitted: Option<PathBuf>,
    /// FLOPs of all proposed runs together, by the convention of the fitted runs
    #[arg(long, value_parser = count)]
    budget: f64,
    /// How many runs
    #[arg(long)]
    runs: usize,
    /// What is wanted: nstar@FLOPs or loss@FLOPs
    #[arg(long, value_parser = target)]
    target: Target,
    /// The fit.json of an earlier fit
    #[arg(long, value_hint = ValueHint::FilePath)]
    fit: Option<PathBuf>,
    /// Only this group of the fit
    #[arg(long)]
    group: Option<String>,
    /// The sweep whose training, data and family are taken; else that of the study
    #[arg(long, value_hint = ValueHint::FilePath)]
    base: Option<PathBuf>,
    /// Without a sweep: the family of the shapes, gopher (the default) or nano
    #[arg(long, value_parser = super::allocate::family, conflicts_with = "base")]
    family: Option<FamilyName>,
    /// Without a sweep: the vocabulary of the shapes; else the family's own
    #[arg(long, conflicts_with = "base")]
    vocab: Option<usize>,
    /// Least and most tokens for a parameter; else as the fitted runs have
    #[arg(long, value_name = "LOW,HIGH", value_parser = ratios)]
    tokens_per_param: Option<[f64; 2]>,
    /// Draws of the check by simulation; 0 for none
    #[arg(long, default_value_t = 200)]
    check_repeats: usize,
    /// Write the sweep file here
    #[arg(long, value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: FitArgs,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

fn target(text: &str) -> Result<Target, String> {
    text.parse().map_err(|_| "expected nstar@FLOPs or loss@FLOPs, such as nstar@1e23".to_string())
}

fn ratios(text: &str) -> Result<[f64; 2], String> {
    let (low, high) = text.split_once(',').ok_or("expected two numbers, such as 5,200")?;
    Ok([count(low)?, count(high)?])
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let (document, fitted) = known(args)?;
    let template = template(args, &document)?;
    let request = Request {
        document: &document,
        group: args.group.as_deref(),
        runs: &fitted.of_group(args.group.as_deref()),
        template: &template,
        target: args.target,
        budget: args.budget,
        count: args.runs,
        tokens_per_param: args.tokens_per_param,
        repeats: args.check_repeats,
    };
    let proposal = propose(&request)?;
    if let Some(path) = &args.out {
        results::write_text(path, &proposal.sweep).map_err(|e| miette!("{e}"))?;
    }
    match args.output {
        Format::Json => output::json(&proposal)?,
        Format::Table => output::print(&tables(&proposal, args.out.as_deref()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The fit with its runs: read, or made of what is given.
fn known(args: &Args) -> miette::Result<(FitDocument, FittedRuns)> {
    match (&args.fit, &args.fitted) {
        (Some(fit), given) => {
            let document = results::read_fit(fit).map_err(shown)?;
            let runs = of_fit(&document, fit, given.as_deref(), &args.how.reading()?)?;
            Ok((document, runs))
        }
        (None, Some(given)) => args.how.fitted_runs(given),
        (None, None) => Err(miette!("give a fit.json with --fit, or runs to fit")),
    }
}

/// `--base`, or the sweep of the study that was fitted, or usual values of a family.
fn template(args: &Args, document: &FitDocument) -> miette::Result<Template> {
    let study = match (&args.fit, &args.fitted) {
        (_, Some(given)) if given.is_dir() => Some(given.as_path()),
        (Some(fit), None) if document.inputs.source.is_study() => fit.parent(),
        _ => None,
    };
    let own = study.map(|dir| dir.join("sweep.toml")).filter(|path| path.is_file());
    if let Some(path) = args.base.as_ref().or(own.as_ref()) {
        let option = args.family.map(|_| "--family").or(args.vocab.map(|_| "--vocab"));
        if let Some(option) = option {
            return Err(miette!(
                "{option} is for fits without a sweep; {} says the family. Give another sweep with --base",
                path.display()
            ));
        }
        return Ok(Template::read(path)?);
    }
    if let Some(vocab) = args.vocab.filter(|v| !(1..=1 << 24).contains(v)) {
        return Err(miette!("--vocab: found {vocab}, expected 1 to 16777216 tokens"));
    }
    Ok(Template::usual(args.family.unwrap_or(FamilyName::Gopher), args.vocab))
}

fn tables(p: &Proposal, out: Option<&Path>) -> String {
    let convention = p.flops_convention.name();
    let flops = format!("FLOPs ({convention})");
    let mut runs = output::table(&["run", "layers heads width", "params", "tokens", &flops, "alone"], 2);
    for r in &p.runs {
        runs.add_row([
            r.id.clone(),
            format!("{}L {}x{} d{} ff{}", r.n_layers, r.n_heads, r.d_head, r.d_model, r.d_ff),
            format_count(r.params),
            format_count(r.tokens as f64),
            format!("{:.3e}", r.flops),
            format!("{:.2}x", r.alone),
        ]);
    }
    let show: &dyn Fn(f64) -> String = match p.target.quantity {
        Quantity::Nstar => &|v| format_count(v),
        Quantity::Loss => &|v| format!("{v:.4}"),
    };
    let interval = |ends: [f64; 2]| format!("{} to {}", show(ends[0]), show(ends[1]));
    let mut outlooks =
        output::table(&["design", "FLOPs", "predicted", "narrower", "simulated", "narrower"], 1);
    let mut add = |name: &str, o: &Outlook, first: bool| {
        let times = |v: f64| if first { String::new() } else { format!("{v:.2}x") };
        outlooks.add_row([
            name.to_string(),
            if first { String::new() } else { format!("{:.2e}", o.flops) },
            interval(o.predicted),
            times(o.predicted_narrower),
            o.simulated.map(|s| interval(s.interval)).unwrap_or_default(),
            o.simulated_narrower.map(times).unwrap_or_default(),
        ]);
    };
    add("fitted runs", &p.fitted, true);
    add("and the proposed", &p.proposed, false);
    add("and as many along N*(C)", &p.frontier, false);
    let resampled = p.resampled.map(|ends| format!(", {} by its resamples", interval(ends)));
    let noise = match p.noise_from {
        NoiseFrom::Residuals => "residuals",
        NoiseFrom::Repeats => "repeats",
    };
    let drawn = p.fitted.simulated.map(|s| format!("; {} draws of the simulation", s.drawn));
    let mut text = format!(
        "{} by the fit: {}{}\n{runs}\n{} of {} candidates, {:.3e} of {:.3e} FLOPs ({convention})\n{outlooks}\n\
         {:.0} % intervals; noise of a run {:.2} % by {noise}{}\n",
        p.target,
        show(p.value),
        resampled.unwrap_or_default(),
        p.runs.len(),
        p.candidates,
        p.flops,
        p.budget,
        100.0 * p.level,
        100.0 * p.noise.deviation,
        drawn.unwrap_or_default(),
    );
    for warning in &p.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    match out {
        Some(path) => text.push_str(&format!("written to {}\n", path.display())),
        None => text.push_str("nothing was written; --out SWEEP.toml writes the sweep\n"),
    }
    text
}
