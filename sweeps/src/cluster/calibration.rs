//! A cluster's calibration: measured steps beside expected ones, and the factor written into the cluster's file.

use super::file::{Calibration, Cluster};
use super::layout::Layout;
use super::time::{Software, step_time};
use super::transformer::Transformer;
use crate::fit::checks::median;
use crate::plan::{Plan, PlannedRun};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    #[error("{}:{line}: {message}", path.display())]
    Row { path: PathBuf, line: u64, message: String },
    #[error("{}: {message}", path.display())]
    File { path: PathBuf, message: String },
    #[error("{} has no rows below its header run,layout,step_seconds", path.display())]
    Empty { path: PathBuf },
}

/// One line of the file of measured steps.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    run: String,
    layout: String,
    step_seconds: f64,
}

/// The measured steps of one run with one layout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    pub run: String,
    pub layout: Layout,
    pub steps: usize,
    /// Median.
    pub seconds: f64,
    pub expected_seconds: f64,
    /// Measured over expected.
    pub ratio: f64,
}

/// A calibration and what it is made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibrated {
    pub calibration: Calibration,
    pub measured: Vec<Measured>,
    /// What `calibration.error` is: with one layout how far single steps lie from their median, with more how far each lies
    /// from what the others predict for it.
    pub error_is: &'static str,
}

/// Reads steps measured by any trainer: CSV with the columns run (an id or a size of the sweep), layout (as a plan prints
/// it) and step_seconds, a line for each step.
///
/// # Errors
/// A file that cannot be read, a run that the sweep has not, a layout that is none or not for this run: with the line.
pub fn calibrate(plan: &Plan, cluster: &Cluster, path: &Path) -> Result<Calibrated, CalibrationError> {
    let in_file = |message: String| CalibrationError::File { path: path.to_owned(), message };
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(|e| in_file(e.to_string()))?;
    let headers = reader.headers().map_err(|e| in_file(e.to_string()))?.clone();
    let mut groups: Vec<(&PlannedRun, Layout, Vec<f64>)> = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| in_file(e.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |message: String| CalibrationError::Row { path: path.to_owned(), line, message };
        let row: Row = record.deserialize(Some(&headers)).map_err(|e| wrong(e.to_string()))?;
        let run = find(plan, &row.run).map_err(&wrong)?;
        let layout: Layout = row.layout.parse().map_err(&wrong)?;
        if !(row.step_seconds > 0.0 && row.step_seconds.is_finite()) {
            return Err(wrong(format!(
                "`step_seconds` is {}; it must be a number above 0",
                row.step_seconds
            )));
        }
        let share = layout.data * layout.micro_batch * layout.accumulation;
        if share != run.batch {
            return Err(wrong(format!(
                "`{layout}` trains on {share} sequences a step, {} on {}",
                run.id, run.batch
            )));
        }
        match groups.iter_mut().find(|(r, l, _)| r.id == run.id && *l == layout) {
            Some((_, _, steps)) => steps.push(row.step_seconds),
            None => groups.push((run, layout, vec![row.step_seconds])),
        }
    }
    if groups.is_empty() {
        return Err(CalibrationError::Empty { path: path.to_owned() });
    }
    Ok(of_groups(&groups, cluster))
}

fn find<'p>(plan: &'p Plan, name: &str) -> Result<&'p PlannedRun, String> {
    let found = plan.runs.iter().find(|r| r.id == name).or_else(|| plan.runs.iter().find(|r| r.size == name));
    found.ok_or_else(|| {
        let mut sizes: Vec<&str> = plan.runs.iter().map(|r| r.size.as_str()).collect();
        sizes.dedup();
        format!("`run` is `{name}`; it must be the id of a run, or a size: {}", sizes.join(", "))
    })
}

fn of_groups(groups: &[(&PlannedRun, Layout, Vec<f64>)], cluster: &Cluster) -> Calibrated {
    let one = |(run, layout, steps): &(&PlannedRun, Layout, Vec<f64>)| {
        let model = Transformer::from(&run.model);
        let time = step_time(&model, layout, &cluster.machine, &Software::OURS, &cluster.efficiency);
        let (seconds, expected_seconds) = (median(steps.clone()), time.seconds());
        let ratio = seconds / expected_seconds;
        Measured {
            run: run.id.clone(),
            layout: *layout,
            steps: steps.len(),
            seconds,
            expected_seconds,
            ratio,
        }
    };
    let measured: Vec<Measured> = groups.iter().map(one).collect();
    let ratios: Vec<f64> = measured.iter().map(|m| m.ratio).collect();
    let (error, error_is) = match groups {
        [(_, _, steps)] => {
            let middle = median(steps.clone());
            let spread = steps.iter().map(|s| (s / middle - 1.0).abs()).fold(0.0, f64::max);
            (spread, "spread of the steps of one layout")
        }
        _ => {
            let others = |i: usize| {
                let rest = ratios.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, r)| *r);
                median(rest.collect())
            };
            let left_out = (0..ratios.len()).map(|i| (others(i) / ratios[i] - 1.0).abs());
            (left_out.fold(0.0, f64::max), "largest error where each layout is predicted from the others")
        }
    };
    let steps = measured.iter().map(|m| m.steps).sum();
    Calibrated { calibration: Calibration { factor: median(ratios), error, steps }, measured, error_is }
}

/// The text of a cluster's file with this calibration in place of its own; everything else stays as it is, comments too.
///
/// # Errors
/// Where the text is no TOML.
pub fn with_calibration(text: &str, c: &Calibration) -> Result<String, toml_edit::TomlError> {
    let mut file: toml_edit::DocumentMut = text.parse()?;
    let digits = |x: f64| toml_edit::value((x * 1e6).round() / 1e6);
    let table = file.entry("calibration").or_insert_with(toml_edit::table);
    table["factor"] = digits(c.factor);
    table["error"] = digits(c.error);
    table["steps"] = toml_edit::value(c.steps as i64);
    Ok(file.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_comments_and_gets_one_calibration() {
        let text = "# mine\nname = \"c\" # short\n\n[[partition]]\nname = \"gpu\"\n";
        let first = Calibration { factor: 1.25, error: 0.03, steps: 20 };
        let once = with_calibration(text, &first).unwrap();
        assert!(once.starts_with(text) && once.contains("[calibration]\nfactor = 1.25\n"), "{once}");
        let twice = with_calibration(&once, &Calibration { factor: 0.75, ..first }).unwrap();
        assert_eq!(once.replace("1.25", "0.75"), twice);
        assert!(with_calibration("name = ", &first).is_err());
    }
}
