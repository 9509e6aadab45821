//! `isoflop status`: where the runs of a study stand.

use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use isoflop_sweeps::status::{RunRow, rows};
use isoflop_sweeps::study::Study;
use miette::miette;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  isoflop status studies/nano --output json")]
pub struct Args {
    /// The study's directory
    #[arg(value_hint = ValueHint::DirPath)]
    study: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Status<'a> {
    sweep: &'a str,
    runs: &'a [RunRow],
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    let study = Study::new(&args.study);
    let plan = study.read_plan().map_err(|e| miette!("{e}"))?;
    let rows = rows(&study, &plan).map_err(|e| miette!("{e}"))?;
    match args.output {
        Format::Json => output::json(&Status { sweep: &plan.sweep, runs: &rows })?,
        Format::Table => output::print(&table(&rows))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[RunRow]) -> String {
    let mut table = output::table(&["run", "state", "step", "train loss", "validation loss", "tokens/s"], 2);
    let loss = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
    let word = |row: &RunRow| format!("{:?}", row.state).to_lowercase();
    for row in rows {
        let speed = if row.tokens_per_s > 0.0 { format!("{:.0}", row.tokens_per_s) } else { "-".to_owned() };
        table.add_row([
            row.id.clone(),
            word(row),
            format!("{}/{}", row.step, row.steps),
            loss(row.train_loss),
            loss(row.validation_loss),
            speed,
        ]);
    }
    let mut text = format!("{table}\n");
    for row in rows {
        if let Some(reason) = &row.reason {
            text.push_str(&format!("{}: {}, {reason}\n", row.id, word(row)));
        }
    }
    text
}
