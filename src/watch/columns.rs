//! The columns of the table: what each shows of a run, and which of them a narrow terminal does without.

use super::screen::eta;
use isoflop_runtime::status::State;
use isoflop_sweeps::display;
use isoflop_sweeps::overview::{Group, RunView};
use isoflop_sweeps::slurm::standing::Verdict;

/// One column.
#[derive(Clone, Copy)]
pub struct Column {
    pub heading: &'static str,
    pub is_number: bool,
    /// Columns with the highest are left out first.
    dispensable: u8,
    /// Only where jobs are known.
    of_jobs: bool,
    pub cell: fn(&RunView) -> String,
}

/// Cells of a bar.
const BAR: usize = 10;
/// Between two columns.
pub const GAP: u16 = 2;

const fn column(heading: &'static str, dispensable: u8, cell: fn(&RunView) -> String) -> Column {
    Column { heading, is_number: false, dispensable, of_jobs: false, cell }
}

const fn number(heading: &'static str, dispensable: u8, cell: fn(&RunView) -> String) -> Column {
    Column { is_number: true, ..column(heading, dispensable, cell) }
}

const ALL: [Column; 10] = [
    column("run", 0, |r| r.row.id.clone()),
    column("state", 0, |r| r.group.to_string()),
    column("", 6, |r| bar(r.row.step, r.row.steps)),
    number("step", 1, |r| format!("{}/{}", r.row.step, r.row.steps)),
    number("loss", 2, |r| loss(r.row.train_loss)),
    number("val loss", 7, |r| loss(r.row.validation_loss)),
    number("tokens/s", 5, |r| {
        if r.row.tokens_per_s > 0.0 { format!("{:.0}", r.row.tokens_per_s) } else { "-".into() }
    }),
    number("ETA", 3, |r| eta(r).map_or_else(|| "-".into(), display::seconds)),
    Column {
        of_jobs: true,
        ..column("job", 4, |r| r.job.as_ref().map_or_else(|| "-".into(), |j| j.id.clone()))
    },
    column("nodes or reason", 1, why),
];

/// The columns that fit, each with its width; the last takes what is left.
pub fn fitting(runs: &[&RunView], has_jobs: bool, width: u16) -> Vec<(Column, u16)> {
    let wide = |column: &Column| {
        let cells = runs.iter().map(|run| (column.cell)(run).chars().count());
        cells.chain([column.heading.chars().count()]).max().unwrap_or(0).min(60) as u16
    };
    let mut columns: Vec<(Column, u16)> =
        ALL.into_iter().filter(|c| has_jobs || !c.of_jobs).map(|c| (c, wide(&c))).collect();
    loop {
        let total: u16 = columns.iter().map(|(_, w)| w + GAP).sum::<u16>().saturating_sub(GAP);
        let least = columns.iter().map(|(c, _)| c.dispensable).max().unwrap_or(0);
        if total <= width || least == 0 {
            return columns;
        }
        let over = total - width;
        // Reasons are cut before a column is left out.
        if let Some((_, w)) = columns.iter_mut().find(|(c, w)| c.heading == "nodes or reason" && *w > 12) {
            *w = w.saturating_sub(over).max(12);
        } else {
            columns.retain(|(c, _)| c.dispensable < least);
        }
    }
}

fn loss(loss: Option<f64>) -> String {
    loss.map_or_else(|| "-".into(), |v| format!("{v:.4}"))
}

/// `████▌░░░░░`, in eighths of a cell.
pub fn bar(done: u64, all: u64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (done.min(all) as u128 * (BAR as u128 * 8) / u128::from(all.max(1))) as usize;
    let part = PARTS[eighths % 8];
    let rest = BAR - eighths / 8 - usize::from(!part.is_empty());
    format!("{}{part}{}", "█".repeat(eighths / 8), "░".repeat(rest))
}

/// Where its job runs, why it waits, or why it ended.
fn why(run: &RunView) -> String {
    let slurm = run.job.as_ref().filter(|_| matches!(run.group, Group::Running | Group::Queued)).map(|job| {
        let reason = Some(job.reason.as_str()).filter(|r| !r.is_empty() && *r != "None");
        let place = Some(job.nodes.as_str()).filter(|n| !n.is_empty()).or(reason);
        let start = job.start.as_ref().filter(|_| run.group == Group::Queued);
        let start = start.map_or_else(String::new, |s| format!(", expected {s}"));
        format!("{}{start}", place.unwrap_or("-"))
    });
    let ended = match run.verdict {
        Some(Verdict::Continues { cause } | Verdict::GivenUp { cause }) => Some(cause.sentence().to_owned()),
        _ => None,
    };
    let own = run.row.reason.clone().filter(|_| matches!(run.row.state, State::Failed | State::Diverged));
    slurm.or(own).or(ended).or_else(|| run.row.reason.clone()).unwrap_or_else(|| "-".into())
}
