//! `isoflop allocate`: how a fitted law spends a compute budget, and the model that comes nearest.

use super::fit::estimate;
use super::fit_args::{FitArgs, shown};
use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use isoflop_sweeps::family::FamilyName;
use isoflop_sweeps::fit::allocate::{Allocation, allocate};
use isoflop_sweeps::fit::input::count;
use isoflop_sweeps::fit::{format_count, format_flops};
use isoflop_sweeps::results::{self, Wanted};
use miette::miette;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop allocate --budget 1e21,1e22 --fit fit.json
  isoflop allocate --budget 5.76e23 points.csv --vocab 32000

The law is that of approach 3. N*, D* and the loss have the intervals of the fit's resamples. The shape is the one
of the family whose parameters come nearest to N*; its tokens are what the budget then leaves.")]
pub struct Args {
    /// A study or a table to fit first, in place of --fit
    #[arg(value_hint = ValueHint::AnyPath, conflicts_with = "fit", required_unless_present = "fit")]
    runs: Option<PathBuf>,
    /// Budgets in FLOPs, by the convention of the fitted runs
    #[arg(long, value_delimiter = ',', value_parser = count, required = true)]
    budget: Vec<f64>,
    /// The fit.json of an earlier fit
    #[arg(long, value_hint = ValueHint::FilePath)]
    fit: Option<PathBuf>,
    /// Only this group of the fit
    #[arg(long)]
    group: Option<String>,
    /// Family of the shape: gopher or nano
    #[arg(long, default_value = "gopher", value_parser = family)]
    family: FamilyName,
    /// Vocabulary of the shape; else the family's own
    #[arg(long)]
    vocab: Option<usize>,
    #[command(flatten)]
    how: FitArgs,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// A family by its name.
pub fn family(name: &str) -> Result<FamilyName, String> {
    FamilyName::ALL
        .into_iter()
        .find(|f| f.name() == name)
        .ok_or_else(|| "expected gopher or nano".to_string())
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let document = match (&args.fit, &args.runs) {
        (Some(path), _) => results::read_fit(path).map_err(shown)?,
        (None, Some(runs)) => args.how.fitted(runs, None, Wanted::default())?,
        (None, None) => return Err(miette!("give a fit.json with --fit, or runs to fit")),
    };
    let mut base = args.family.base();
    base.vocab_size = args.vocab.unwrap_or(base.vocab_size);
    if base.vocab_size == 0 || base.vocab_size > 1 << 24 {
        return Err(miette!("--vocab: found {}, expected 1 to 16777216 tokens", base.vocab_size));
    }
    let found = allocate(&document, &args.budget, args.group.as_deref(), args.family, &base);
    if found.is_empty() {
        let groups: Vec<&str> = document.fits.iter().filter_map(|f| f.group.as_deref()).collect();
        return Err(match &args.group {
            Some(group) => miette!("no law of approach 3 for the group `{group}`; the fit has {groups:?}"),
            None => miette!(
                "the fit has no law of approach 3 with an optimum: fit with --approach 3, and read its warnings"
            ),
        });
    }
    match args.output {
        Format::Json => output::json(&found)?,
        Format::Table => output::print(&tables(&found))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn tables(found: &[Allocation]) -> String {
    let grouped = found.iter().any(|a| a.group.is_some());
    let headings = ["FLOPs", "N*", "D*", "D*/N*", "loss"];
    let names: Vec<&str> = grouped.then_some("group").into_iter().chain(headings).collect();
    let mut best = output::table(&names, names.len() - 5);
    let mut shapes = output::table(&["FLOPs", "layers heads width", "params", "tokens", "loss"], 2);
    for a in found {
        let cells = [
            format_flops(a.flops),
            estimate(&a.params, &format_count),
            estimate(&a.tokens, &format_count),
            estimate(&a.tokens_per_param, &|v| format!("{v:.1}")),
            estimate(&a.loss, &|v| format!("{v:.4}")),
        ];
        best.add_row(a.group.clone().into_iter().chain(cells).collect::<Vec<_>>());
        let s = &a.shape;
        let name = s.name.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
        shapes.add_row([
            format_flops(a.flops),
            format!("{}L {}x{} d{} ff{}{name}", s.n_layers, s.n_heads, s.d_head, s.d_model, s.d_ff),
            format_count(s.params),
            format_count(s.tokens),
            estimate(&s.loss, &|v| format!("{v:.4}")),
        ]);
    }
    let mut text = format!("{best}\nnearest shapes:\n{shapes}\n");
    for a in found.iter().filter(|a| a.extrapolation > 10.0) {
        text.push_str(&format!(
            "warning: {} FLOPs are {} times the largest fitted run; the intervals hold only if the law does\n",
            format_flops(a.flops),
            format_count(a.extrapolation)
        ));
    }
    text
}
