//! `profile.csv`: where the time of one step of a run went, launch by launch.
//!
//! It is an ordinary step of the run with each launch alone between barriers, so its numbers are those of any step. Like
//! `timings.csv` it never repeats.

use crate::exec::LaunchTime;
use crate::metrics::MetricsError;
use crate::rundir::replace;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The optimiser step that is profiled: the first ones find nothing in the caches.
pub const PROFILED_STEP: u64 = 3;

/// One launch of the program `train`, in the program's order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub launch: usize,
    /// As [`LaunchTime::kind`].
    pub kind: String,
    pub label: String,
    pub wave: u32,
    pub tasks: usize,
    pub threads: usize,
    pub seconds: f64,
    pub flops: u64,
    pub bytes: u64,
}

/// Writes the profile of a step that ran with so many threads, replacing an earlier one.
pub fn write(path: &Path, times: &[LaunchTime], threads: usize) -> Result<(), MetricsError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let wrong = |message: String| MetricsError::Csv { path: path.into(), message };
    for (launch, t) in times.iter().enumerate() {
        let row = Row {
            launch,
            kind: t.kind.clone(),
            label: t.label.clone(),
            wave: t.wave,
            tasks: t.tasks,
            threads,
            seconds: t.nanoseconds as f64 / 1e9,
            flops: t.flops,
            bytes: t.bytes,
        };
        writer.serialize(row).map_err(|e| wrong(e.to_string()))?;
    }
    let text = writer.into_inner().map_err(|e| wrong(e.to_string()))?;
    Ok(replace(path, &text, false)?)
}

/// Reads a profile.
pub fn read(path: &Path) -> Result<Vec<Row>, MetricsError> {
    let wrong = |e: csv::Error| MetricsError::Csv { path: path.into(), message: e.to_string() };
    csv::Reader::from_path(path).map_err(wrong)?.deserialize().collect::<Result<_, _>>().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.csv");
        let time = |kind: &str, nanoseconds| LaunchTime {
            label: "layers.0.ff1, \"first\"".into(),
            kind: kind.into(),
            wave: 3,
            tasks: 16,
            nanoseconds,
            flops: 10,
            bytes: 20,
        };
        write(&path, &[time("gemm", 1500), time("copy", 1)], 2).unwrap();
        let rows = read(&path).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].launch, rows[0].seconds, rows[0].threads), (0, 1.5e-6, 2));
        assert_eq!((rows[1].kind.as_str(), rows[1].label.as_str()), ("copy", "layers.0.ff1, \"first\""));
        std::fs::write(&path, "launch,kind\n0,gemm\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("profile.csv"));
    }
}
