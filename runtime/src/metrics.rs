//! The numbers of a run: `metrics.csv`, equal byte for byte whenever the run is repeated, and `timings.csv`, never.
//!
//! A row is written every `max(1, steps / 500)` steps, after every validation, and after the last step. Its
//! `train_loss` is the mean over the steps since the row before, summed in f64 in the order of the steps; a checkpoint
//! carries the unfinished sum. A resumed run first cuts `metrics.csv` back to the rows of its checkpoint.

use crate::config::RunConfig;
use crate::rundir::{At, FileError, RunDir, open_append, replace};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One row of `metrics.csv`. Numbers are printed as the shortest text that reads back to the same number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Optimiser steps done.
    pub step: u64,
    /// Training tokens seen.
    pub tokens: u64,
    /// Training FLOPs by the convention named in `metrics.json`.
    pub flops: f64,
    /// Nats per token, mean over the steps since the row before.
    pub train_loss: f64,
    /// Nats per token, mean over all validation sequences; empty where none was due.
    pub validation_loss: Option<f64>,
    /// Of this step.
    pub lr: f64,
    /// Global norm of this step's gradients before clipping.
    pub grad_norm: f32,
}

const COLUMNS: [&str; 7] = ["step", "tokens", "flops", "train_loss", "validation_loss", "lr", "grad_norm"];
const TIMING_COLUMNS: [&str; 5] = ["step", "wall_s", "tokens_per_s", "mfu", "attempt"];

#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {message}", path.display())]
    Csv { path: PathBuf, message: String },
}

/// Steps between two rows of `metrics.csv` in a run of `steps` steps.
pub fn row_every(steps: u64) -> u64 {
    (steps / 500).max(1)
}

/// Reads all whole rows of a `metrics.csv`, also of a run that is going on: an unfinished last line is left out.
pub fn read_rows(path: &Path) -> Result<Vec<Row>, MetricsError> {
    let bytes = fs::read(path).at("read", path)?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    csv::Reader::from_reader(&bytes[..whole])
        .deserialize()
        .collect::<Result<_, _>>()
        .map_err(|e| MetricsError::Csv { path: path.into(), message: e.to_string() })
}

/// Appends to the metric files of a run.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    timings_path: PathBuf,
    timings: File,
    line: Vec<u8>,
    rows: u64,
    loss_sum: f64,
    loss_count: u64,
}

/// Where a checkpoint leaves off: its step, the rows up to it, and the unfinished mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    pub step: u64,
    pub rows: u64,
    pub loss_sum: f64,
    pub loss_count: u64,
}

impl Metrics {
    /// Starts the files of a run anew (position at step 0), or cuts them back to `from`. Rows that should be there
    /// and are not are counted in a line of `warnings`.
    pub fn open(
        run: &RunDir,
        config: &RunConfig,
        from: Position,
        warnings: &mut Vec<String>,
    ) -> Result<Metrics, MetricsError> {
        let path = run.metrics();
        let mut text = line(&path, |w| w.write_record(COLUMNS))?;
        let mut rows = 0;
        if from.step > 0 && path.exists() {
            for row in read_rows(&path)?.iter().take_while(|r| r.step <= from.step) {
                text.extend(line(&path, |w| w.serialize(row))?);
                rows += 1;
            }
        }
        if rows != from.rows {
            warnings.push(format!(
                "{}: {rows} rows up to step {} where the checkpoint counted {}: the file was changed or removed \
                 since; the run goes on without them",
                path.display(),
                from.step,
                from.rows
            ));
        }
        replace(&path, &text, true)?;
        let sidecar = run.metrics_sidecar();
        let mut json = serde_json::to_vec_pretty(&describe(config))
            .map_err(|e| MetricsError::Csv { path: sidecar.clone(), message: e.to_string() })?;
        json.push(b'\n');
        replace(&sidecar, &json, false)?;

        let timings_path = run.timings();
        if !timings_path.exists() {
            replace(&timings_path, &line(&timings_path, |w| w.write_record(TIMING_COLUMNS))?, false)?;
        }
        Ok(Metrics {
            file: open_append(&path)?,
            path,
            timings: open_append(&timings_path)?,
            timings_path,
            line: Vec::with_capacity(256),
            rows,
            loss_sum: from.loss_sum,
            loss_count: from.loss_count,
        })
    }

    /// Counts the train loss of one step.
    pub fn add(&mut self, loss: f32) {
        self.loss_sum += f64::from(loss);
        self.loss_count += 1;
    }

    /// Mean train loss since the last row.
    pub fn mean_loss(&self) -> f64 {
        self.loss_sum / self.loss_count.max(1) as f64
    }

    /// Appends a row and begins a new mean.
    pub fn write(&mut self, row: &Row) -> Result<(), MetricsError> {
        self.line.clear();
        append(&mut self.line, &self.path, |w| w.serialize(row))?;
        self.file.write_all(&self.line).at("append to", &self.path)?;
        (self.rows, self.loss_sum, self.loss_count) = (self.rows + 1, 0.0, 0);
        Ok(())
    }

    /// Appends a row to `timings.csv`: seconds since this attempt began, tokens per second since its row before, model
    /// FLOPs utilisation where a peak is known, and the attempt's number.
    pub fn write_timing(
        &mut self,
        step: u64,
        wall_s: f64,
        tokens_per_s: f64,
        mfu: Option<f64>,
        attempt: u64,
    ) -> Result<(), MetricsError> {
        self.line.clear();
        let rounded = |x: f64, unit: f64| (x * unit).round() / unit;
        let row =
            (step, rounded(wall_s, 1e6), rounded(tokens_per_s, 10.0), mfu.map(|m| rounded(m, 1e6)), attempt);
        append(&mut self.line, &self.timings_path, |w| w.serialize(row))?;
        Ok(self.timings.write_all(&self.line).at("append to", &self.timings_path)?)
    }

    /// Waits until all rows are on the disk, and says where they end: for a checkpoint made after `step`.
    pub fn sync(&mut self, step: u64) -> Result<Position, MetricsError> {
        self.file.sync_data().at("sync", &self.path)?;
        Ok(Position { step, rows: self.rows, loss_sum: self.loss_sum, loss_count: self.loss_count })
    }
}

fn append(
    out: &mut Vec<u8>,
    path: &Path,
    write: impl FnOnce(&mut csv::Writer<&mut Vec<u8>>) -> csv::Result<()>,
) -> Result<(), MetricsError> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(out);
    write(&mut writer)
        .and_then(|()| Ok(writer.flush()?))
        .map_err(|e| MetricsError::Csv { path: path.into(), message: e.to_string() })
}

fn line(
    path: &Path,
    write: impl FnOnce(&mut csv::Writer<&mut Vec<u8>>) -> csv::Result<()>,
) -> Result<Vec<u8>, MetricsError> {
    let mut out = Vec::new();
    append(&mut out, path, write)?;
    Ok(out)
}

/// `metrics.json`: what the columns mean. Depends on the configuration only.
fn describe(config: &RunConfig) -> serde_json::Value {
    json!({
        "run": config.id,
        "row_every": row_every(config.steps),
        "flops_convention": config.flops_convention,
        "flops_per_token": config.flops_per_token,
        "peak_flops_per_thread": config.peak_flops,
        "metrics.csv": {
            "step": "optimiser steps done",
            "tokens": "training tokens seen",
            "flops": "training FLOPs by flops_convention: flops_per_token * tokens",
            "train_loss": "nats per token, mean over the steps since the row before",
            "validation_loss": "nats per token, mean over the validation sequences; empty where none was due",
            "lr": "learning rate of this step",
            "grad_norm": "global L2 norm of this step's gradients before clipping"
        },
        "timings.csv": {
            "step": "optimiser steps done",
            "wall_s": "seconds since this attempt began",
            "tokens_per_s": "training tokens per second since this attempt's row before",
            "mfu": "flops_per_token by flops_convention, times tokens_per_s, over peak_flops of all threads; \
                    empty where config.toml names no peak_flops",
            "attempt": "number of the run's owner, one more with each start"
        },
        "profile.csv": {
            "launch": "place in the program `train`, of whose third step this is",
            "seconds": "wall time of the launch alone between barriers, on `threads` threads",
            "flops": "floating-point operations of its products of matrices",
            "bytes": "every distinct argument once"
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_exactly_and_a_torn_line_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.csv");
        let row = Row {
            step: 3,
            tokens: 384,
            flops: 6.31e23,
            train_loss: 0.1 + 0.2,
            validation_loss: None,
            lr: 1.0 / 3.0,
            grad_norm: 0.1,
        };
        let mut text = line(&path, |w| w.write_record(COLUMNS)).unwrap();
        text.extend(line(&path, |w| w.serialize(row)).unwrap());
        text.extend(line(&path, |w| w.serialize(Row { validation_loss: Some(5.5), ..row })).unwrap());
        assert_eq!(
            String::from_utf8(text.clone()).unwrap(),
            "step,tokens,flops,train_loss,validation_loss,lr,grad_norm\n\
             3,384,6.31e23,0.30000000000000004,,0.3333333333333333,0.1\n\
             3,384,6.31e23,0.30000000000000004,5.5,0.3333333333333333,0.1\n"
        );
        fs::write(&path, &text[..text.len() - 3]).unwrap();
        assert_eq!(read_rows(&path).unwrap(), [row]);
    }
}
