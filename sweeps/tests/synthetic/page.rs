//! A study with every section of a report, fitted.

use super::{LAW, curves, sound};
use isoflop_sweeps::fit::diagnostics::diagnose;
use isoflop_sweeps::fit::{FitOptions, RunStatus, fit_runs};
use isoflop_sweeps::report::{PartKind, ReportInput, ReportSource, StepPart, StepTime};

/// A study with every section: noisy runs of a known law, curves, a diverged run, step times, a sweep file.
pub fn study() -> ReportInput {
    let mut runs = sound();
    let curves = curves(&LAW, &runs, false, 0.01);
    runs[5].status = RunStatus::Diverged;
    runs[5].validation_loss = None;
    runs[5].reason = "loss is not a number at step 12 <script>alert(1)</script>".into();
    let options = FitOptions { bootstrap: 100, targets: vec![1e22], ..Default::default() };
    let fit = fit_runs(&runs, &curves, &options).unwrap();
    let diagnostics = fit.approach(3).map(|f| diagnose(&runs, f, &options));
    ReportInput {
        source: ReportSource::Study,
        diagnostics,
        title: "synthetic <study> & \"quotes\"".into(),
        subtitle: "drawn from a known law".into(),
        runs,
        curves,
        fit: Some(fit),
        fit_error: String::new(),
        downstream: None,
        step_times: vec![step_time("small", 1.0), step_time("<large>", 4.0)],
        step_device: "cpu".into(),
        sweep_file: "[sweep]\nname = \"<b>nano</b>\" # </pre><script>alert(2)</script>\n".into(),
    }
}

/// A step with a part of every kind, this many times as long as the smallest.
fn step_time(size: &str, times: f64) -> StepTime {
    let part = |label: &str, kind, ms: f64, predicted: f64| StepPart {
        label: label.into(),
        kind,
        launches: 3,
        seconds: times * ms * 1e-3,
        predicted: Some(predicted * 1e-3),
    };
    let parts = vec![
        part("product ff1", PartKind::Product, 3.0, 3.5),
        part("product ff1 backward", PartKind::Product, 6.0, 7.0),
        part("attention", PartKind::Attention, 2.0, 1.0),
        part("kernel gelu", PartKind::Kernel, 1.0, 0.2),
        part("gather embed", PartKind::Movement, 0.1, 0.1),
    ];
    StepTime { size: size.into(), runs: 2, threads: 1, parts }
}
