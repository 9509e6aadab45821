//! What a study has cost and will cost: time at work, the part of it that was done twice, and what is left.

use crate::plan::PlannedRun;
use crate::status::{RunRow, is_done};
use isoflop_runtime::rundir::RunDir;
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;
use std::time::SystemTime;

/// Of what the hours are that are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Of processes that train, whatever they have: a study on this machine.
    #[default]
    Worker,
    /// Of CPUs of jobs.
    Cpu,
    /// Of GPUs of jobs.
    Gpu,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unit::Worker => "worker",
            Unit::Cpu => "CPU",
            Unit::Gpu => "GPU",
        })
    }
}

/// Of one run or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Work {
    /// Times that runs were started.
    pub attempts: u64,
    pub steps_done: u64,
    /// Steps that were done and lost, because an attempt ended after its last checkpoint.
    pub steps_wasted: u64,
    /// Of what the hours below are.
    pub unit: Unit,
    pub hours_used: f64,
    /// Of `hours_used`, what went into steps that were lost.
    pub hours_wasted: f64,
    /// By the measured speed of each run, else by its prediction; none where neither is known.
    pub hours_left: Option<f64>,
    /// Of one run, at work all the time. Of many, until the last ends, if as many go on at once as now; none while none is
    /// at work.
    pub seconds_to_end: Option<f64>,
}

/// Of `timings.csv`.
struct Row {
    step: u64,
    wall_s: f64,
    tokens_per_s: f64,
    attempt: u64,
}

/// Where one attempt began and came to.
#[derive(Debug)]
struct Stretch {
    attempt: u64,
    from: u64,
    to: u64,
    seconds: f64,
}

/// Attempts at a run, by its own timings, which no attempt cuts back. What was done after an attempt's last row is not
/// known: at most a five-hundredth of the run.
fn stretches(rows: &[Row], batch_tokens: u64) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = Vec::new();
    for row in rows {
        match all.last_mut().filter(|s| s.attempt == row.attempt) {
            Some(stretch) => (stretch.to, stretch.seconds) = (row.step, row.wall_s),
            None => {
                // The first row's speed is that since the attempt began.
                let steps = (row.tokens_per_s * row.wall_s / batch_tokens.max(1) as f64).round() as u64;
                let from = row.step.saturating_sub(steps);
                all.push(Stretch { attempt: row.attempt, from, to: row.step, seconds: row.wall_s });
            }
        }
    }
    all
}

/// Steps and seconds that went into steps which a later attempt did again.
fn wasted(stretches: &[Stretch]) -> (u64, f64) {
    let lost = stretches.windows(2).map(|pair| {
        let steps = pair[0].to.saturating_sub(pair[1].from).min(pair[0].to - pair[0].from.min(pair[0].to));
        let whole = (pair[0].to.saturating_sub(pair[0].from)).max(1);
        (steps, pair[0].seconds * steps as f64 / whole as f64)
    });
    lost.fold((0, 0.0), |(steps, seconds), (s, t)| (steps + s, seconds + t))
}

/// What one run has cost. Its job has `units` CPUs or GPUs.
fn of_run(run: &PlannedRun, row: &RunRow, stretches: &[Stretch], units: f64, unit: Unit) -> Work {
    // From 0 on: the sum of no numbers would be -0.
    let seconds = stretches.iter().fold(0.0, |sum, s| sum + s.seconds);
    let (steps_wasted, seconds_wasted) = wasted(stretches);
    let measured = (row.tokens_per_s > 0.0).then(|| run.batch_tokens as f64 / row.tokens_per_s);
    let step_seconds = measured.or(run.seconds.map(|s| s / run.steps.max(1) as f64));
    let left = match is_done(row.state) {
        true => Some(0.0),
        false => step_seconds.map(|s| s * row.steps.saturating_sub(row.step) as f64),
    };
    Work {
        attempts: stretches.len() as u64,
        steps_done: row.step,
        steps_wasted,
        unit,
        hours_used: seconds * units / 3_600.0,
        hours_wasted: seconds_wasted * units / 3_600.0,
        hours_left: left.map(|s| s * units / 3_600.0),
        seconds_to_end: left,
    }
}

/// What runs have cost together, each with whether it is at work now.
pub fn total(runs: impl IntoIterator<Item = (Work, bool)>) -> Work {
    let mut all = Work { hours_left: Some(0.0), ..Work::default() };
    let (mut left, mut longest, mut at_work) = (0.0f64, 0.0f64, 0usize);
    for (one, is_at_work) in runs {
        all.unit = one.unit;
        all.attempts += one.attempts;
        all.steps_done += one.steps_done;
        all.steps_wasted += one.steps_wasted;
        all.hours_used += one.hours_used;
        all.hours_wasted += one.hours_wasted;
        all.hours_left = all.hours_left.zip(one.hours_left).map(|(a, b)| a + b);
        at_work += usize::from(is_at_work);
        left += one.seconds_to_end.unwrap_or(f64::NAN);
        longest = longest.max(one.seconds_to_end.unwrap_or(0.0));
    }
    all.seconds_to_end = (at_work > 0 && left.is_finite()).then(|| (left / at_work as f64).max(longest));
    all
}

/// What the timings of runs say, kept for as long as the files do not change.
#[derive(Debug, Default)]
pub struct Timings {
    read: HashMap<String, Known>,
}

/// The stretches of one run, and length and time of the file that told them.
#[derive(Debug, Default)]
struct Known {
    version: (u64, Option<SystemTime>),
    stretches: Vec<Stretch>,
}

impl Timings {
    /// What a run has cost. A file of timings that cannot be read counts for nothing: it is only a report.
    pub fn work(&mut self, run: &PlannedRun, row: &RunRow, dir: &Path, units: f64, unit: Unit) -> Work {
        let path = RunDir::new(dir).timings();
        let version = std::fs::metadata(&path).map_or((0, None), |m| (m.len(), m.modified().ok()));
        let known = self.read.entry(run.id.clone()).or_default();
        if known.version != version {
            *known = Known { version, stretches: stretches(&read(&path), run.batch_tokens) };
        }
        of_run(run, row, &known.stretches, units, unit)
    }
}

fn read(path: &Path) -> Vec<Row> {
    let Ok(bytes) = std::fs::read(path) else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let [step, wall_s, tokens_per_s, _, attempt] = fields.as_slice() else { return None };
        let (step, attempt) = (step.parse().ok()?, attempt.parse().ok()?);
        Some(Row { step, wall_s: wall_s.parse().ok()?, tokens_per_s: tokens_per_s.parse().ok()?, attempt })
    };
    text.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_again_is_wasted() {
        let row = |step, wall_s, attempt| Row { step, wall_s, tokens_per_s: 100.0, attempt };
        // Ten tokens a step, so ten steps a second: killed at 40, goes on from 25; stopped at 60 and continued there.
        let rows = [row(10, 1.0, 1), row(40, 4.0, 1), row(30, 0.5, 2), row(60, 3.5, 2), row(80, 2.0, 3)];
        let found = stretches(&rows, 10);
        let short: Vec<_> = found.iter().map(|s| (s.from, s.to)).collect();
        assert_eq!(short, [(0, 40), (25, 60), (60, 80)]);
        assert_eq!(wasted(&found), (15, 1.5));
        assert_eq!(wasted(&found[1..]), (0, 0.0));
    }
}
