//! `isoflop simulate`: runs drawn from a known law, and what a design would recover of it.

use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use isoflop_sweeps::file;
use isoflop_sweeps::fit::input::count;
use isoflop_sweeps::fit::simulate::{Noise, Point, Simulation, Sizes, Spread, Summary, grid, isoflop, law};
use isoflop_sweeps::fit::{
    FitDocument, FitOptions, LossParams, Params, RunRecord, format_count, format_flops,
};
use isoflop_sweeps::{plan, results};
use miette::miette;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop simulate --law hoffmann --budgets 6e18,3e19,1e20,6e20,3e21 --sizes 9 --out points.csv
  isoflop simulate --fit fit.json --budgets 1e20,1e21 --sizes 7 --repeat 200 --targets 1e23
  isoflop simulate --law E=1.69,A=406.4,B=410.7,alpha=.34,beta=.28 --sweep sweeps/examples/nano.toml

A design is budgets with sizes, or --tokens with sizes, or the runs that a sweep plans. FLOPs are 6 N D, or the
sweep's own. Losses scatter about the law by --noise, the standard deviation of the log loss. With --repeat nothing
is written: many draws are fitted, and what they find is printed beside what is true.")]
pub struct Args {
    /// The law: E=..,A=..,B=..,alpha=..,beta=.., or hoffmann, or besiroglu
    #[arg(long, required_unless_present = "fit", conflicts_with = "fit")]
    law: Option<String>,
    /// The law that approach 3 found, from this fit.json
    #[arg(long, value_hint = ValueHint::FilePath)]
    fit: Option<PathBuf>,
    /// isoFLOP budgets in FLOPs
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["tokens", "sweep"], value_parser = count)]
    budgets: Vec<f64>,
    /// A number of sizes around each budget's optimum, or parameter counts
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<String>,
    /// Ratio of one size to the next, when --sizes is a number
    #[arg(long, default_value_t = 2.0)]
    spacing: f64,
    /// Token counts of a grid, each with every size
    #[arg(long, value_delimiter = ',', conflicts_with = "sweep", value_parser = count)]
    tokens: Vec<f64>,
    /// The runs that this sweep file plans
    #[arg(long, value_hint = ValueHint::FilePath)]
    sweep: Option<PathBuf>,
    /// Runs of each point
    #[arg(long, default_value_t = 1)]
    repeats_per_point: u64,
    /// Standard deviation of the log loss
    #[arg(long, default_value_t = 0.005)]
    noise: f64,
    /// Share of runs that are outliers
    #[arg(long, default_value_t = 0.0)]
    outliers: f64,
    /// Standard deviation of outliers over that of other runs
    #[arg(long, default_value_t = 6.0)]
    outlier_factor: f64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Fit so many draws and print how they spread
    #[arg(long)]
    repeat: Option<u64>,
    /// FLOPs at which --repeat compares N*; else ten times the largest run
    #[arg(long, value_delimiter = ',', value_parser = count)]
    targets: Vec<f64>,
    /// Write the runs here instead of printing them
    #[arg(long, value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let law = match (&args.law, &args.fit) {
        (Some(text), _) => law(text).map_err(|e| miette!("{e}"))?,
        (None, Some(path)) => law_of(path)?,
        (None, None) => return Err(miette!("give the law: --law or --fit")),
    };
    let simulation = Simulation {
        law,
        points: design(args, &law)?,
        noise: Noise::constant(args.noise),
        outliers: args.outliers,
        outlier_factor: args.outlier_factor,
        seed: args.seed,
    };
    simulation.check().map_err(|e| miette!("{e}"))?;
    match args.repeat {
        Some(0) => return Err(miette!("--repeat: found 0, expected a number of draws such as 200")),
        Some(repeats) => {
            let most = simulation.points.iter().map(|p| p.flops).fold(0.0, f64::max);
            let targets = if args.targets.is_empty() { vec![10.0 * most] } else { args.targets.clone() };
            let options = FitOptions { approaches: vec![2, 3], targets, ..FitOptions::default() };
            let spreads = simulation.repeat(repeats, &options).map_err(|e| miette!("{e}"))?;
            match args.output {
                Format::Json => output::json(&spreads)?,
                Format::Table => output::print(&tables(&spreads))?,
            }
        }
        None => {
            let text = csv(&simulation.draw(0));
            match &args.out {
                Some(path) => results::write_text(path, &text).map_err(|e| miette!("{e}"))?,
                None => output::print(&text)?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The law of approach 3 in a fit.json.
fn law_of(path: &Path) -> miette::Result<LossParams> {
    let document: FitDocument = results::read_fit(path).map_err(|e| miette!("{e}"))?;
    let laws = document.fits.iter().filter_map(|f| match f.fit.params {
        Params::Loss(law) => Some(law),
        _ => None,
    });
    let laws: Vec<LossParams> = laws.collect();
    match laws.as_slice() {
        [law] => Ok(*law),
        found => Err(miette!(
            "{}: has {} laws of approach 3, expected one; give the law itself with --law",
            path.display(),
            found.len()
        )),
    }
}

fn design(args: &Args, law: &LossParams) -> miette::Result<Vec<Point>> {
    if !(1..=10_000).contains(&args.repeats_per_point) {
        return Err(miette!("--repeats-per-point: found {}, expected 1 to 10000", args.repeats_per_point));
    }
    if let Some(path) = &args.sweep {
        return planned(path);
    }
    let sizes = sizes(args)?;
    let positive = |option: &str, values: &[f64]| match values.iter().find(|v| !(v.is_finite() && **v > 0.0))
    {
        Some(bad) => Err(miette!("--{option}: found {bad}, expected a number above 0")),
        None => Ok(()),
    };
    positive("budgets", &args.budgets)?;
    positive("tokens", &args.tokens)?;
    if let Sizes::Given(sizes) = &sizes {
        positive("sizes", sizes)?;
    }
    match (args.budgets.is_empty(), args.tokens.is_empty(), sizes) {
        (false, _, sizes) => Ok(isoflop(law, &args.budgets, &sizes, args.repeats_per_point)),
        (true, false, Sizes::Given(sizes)) => Ok(grid(&sizes, &args.tokens, args.repeats_per_point)),
        (true, false, Sizes::Around { .. }) => {
            Err(miette!("--sizes: a grid needs parameter counts, such as 44M,117M,417M"))
        }
        (true, true, _) => Err(miette!("give the design: --budgets, --tokens or --sweep")),
    }
}

/// One whole number below 1000 is a number of sizes; everything else is sizes.
fn sizes(args: &Args) -> miette::Result<Sizes> {
    if !(args.spacing.is_finite() && args.spacing > 1.0) {
        return Err(miette!("--spacing: found {}, expected a ratio above 1", args.spacing));
    }
    if let [one] = args.sizes.as_slice()
        && let Ok(count @ 1..1000) = one.parse::<usize>()
    {
        return Ok(Sizes::Around { count, spacing: args.spacing });
    }
    match args.sizes.is_empty() {
        true => Ok(Sizes::Around { count: 7, spacing: args.spacing }),
        false => {
            let parsed = args.sizes.iter().map(|s| count(s));
            Ok(Sizes::Given(parsed.collect::<Result<_, _>>().map_err(|e| miette!("--sizes: {e}"))?))
        }
    }
}

fn planned(path: &Path) -> miette::Result<Vec<Point>> {
    let sweep = file::read(path)?;
    let plan = plan::plan(&sweep).map_err(|e| miette!("{}: {e}", path.display()))?;
    let point = |run: plan::PlannedRun| Point {
        id: run.id,
        params: run.params as f64,
        tokens: run.tokens as f64,
        flops: run.flops,
        convention: run.flops_convention.name().to_string(),
        budget: run.budget,
        seed: run.seed,
    };
    Ok(plan.runs.into_iter().map(point).collect())
}

/// A table that `isoflop fit` reads.
fn csv(runs: &[RunRecord]) -> String {
    let mut text = String::from("run,params,tokens,flops,flops_convention,budget,seed,loss\n");
    for run in runs {
        text.push_str(&format!(
            "{},{:?},{:?},{:?},{},{},{},{:?}\n",
            run.id,
            run.params,
            run.tokens,
            run.flops,
            run.flops_convention,
            run.budget.map(|b| format!("{b:?}")).unwrap_or_default(),
            run.seed.unwrap_or(0),
            run.validation_loss.unwrap_or(f64::NAN)
        ));
    }
    text
}

fn tables(spreads: &[Spread]) -> String {
    let mut table =
        output::table(&["approach", "quantity", "truth", "median", "5 % to 95 %", "deviation"], 2);
    for spread in spreads {
        let mut add = |name: String, s: &Summary, show: &dyn Fn(f64) -> String| {
            table.add_row([
                spread.approach.to_string(),
                name,
                show(s.truth),
                show(s.median),
                format!("{} to {}", show(s.range[0]), show(s.range[1])),
                show(s.deviation),
            ]);
        };
        add("a".into(), &spread.a, &|v| format!("{v:.4}"));
        for optimum in &spread.optima {
            add(format!("N* at {}", format_flops(optimum.flops)), &optimum.params, &|v| format_count(v));
        }
    }
    let mut text = format!("{table}\n");
    for spread in spreads {
        text.push_str(&format!(
            "approach {}: {} of {} draws could be fitted\n",
            spread.approach, spread.fitted, spread.drawn
        ));
    }
    text
}
