//! Losses that fitted laws predict for targets, beside measured losses and beside the guess of no law at all.

use super::document::{DocumentFit, DocumentWarning, FitDocument};
use super::downstream::{Downstream, beyond_data};
use super::input::{Target, Targets};
use super::nearest::Nearest;
use super::options::{LossColumn, ParamCount};
use super::records::RunRecord;
use super::result::{Estimate, Warning, WarningCode};
use super::warnings::human;
use serde::{Deserialize, Serialize};

/// Compute beyond the largest run by more than this factor is flagged.
const FAR: f64 = 10.0;

/// The losses that a fit predicts for a table of targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// The table's name without its folder, and its blake3.
    pub file: String,
    pub blake3: String,
    pub rows: Vec<Prediction>,
    /// Rows with a measured loss.
    pub measured: usize,
    /// Mean of |predicted - measured| / measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// The same when each is predicted by the loss of the nearest fitted run in (ln N, ln D).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_error: Option<f64>,
    /// Rows with a measured accuracy, the mean of |predicted - measured|, and the same of the nearest fitted runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracies: Option<AccuracyErrors>,
}

/// How far predicted accuracies are from measured ones, as shares from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AccuracyErrors {
    /// Rows with a measured accuracy.
    pub measured: usize,
    /// Mean of |predicted - measured|.
    pub error: f64,
    /// The same when each is predicted by the accuracy of the nearest fitted run in (ln N, ln D).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_error: Option<f64>,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub id: String,
    /// N and D: given, or the law's optimum where compute alone was.
    pub params: f64,
    pub tokens: f64,
    pub flops: f64,
    /// Whether N and D are the law's optimum.
    pub at_optimum: bool,
    /// In the unit of the fitted losses. The interval is the law's; a single run scatters about it.
    pub loss: Estimate,
    /// FLOPs over those of the largest fitted run.
    pub extrapolation: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<f64>,
    /// (predicted - measured) / measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// The loss of the nearest fitted run; none where compute alone was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f64>,
    /// Of a task whose accuracies were fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<PredictedAccuracy>,
}

/// The accuracy of one target through both steps, as shares from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PredictedAccuracy {
    /// With the interval of both steps; one evaluation scatters about it.
    #[serde(flatten)]
    pub predicted: Estimate,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<f64>,
    /// predicted - measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// The accuracy of the nearest fitted run; none where compute alone was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f64>,
}

/// Predicts every target by every law of the loss in N and D that may speak of it, and warns of what is far away.
/// `runs` are those fitted, with their groups; groups are empty without groups.
pub fn predict(document: &mut FitDocument, runs: &[RunRecord], groups: &[String], targets: &Targets) {
    let (mut rows, mut found) = (Vec::new(), Vec::new());
    let laws = document.fits.iter().filter(|f| f.fit.params.loss(1e9, 1e9).is_some());
    for law in laws {
        let inputs = document.fitted().find(|(group, _)| *group == law.group.as_deref()).map(|(_, i)| i);
        let Some(inputs) = inputs else { continue };
        let own: Vec<&RunRecord> = (0..runs.len())
            .filter(|&i| law.group.is_none() || groups.get(i) == law.group.as_ref())
            .map(|i| &runs[i])
            .collect();
        let known = known(&own, document.inputs.options.loss, document.inputs.options.params);
        let task = document.downstream.iter().find(|d| d.group == law.group);
        let accuracies =
            task.map(|t| Nearest::new(t.points.iter().map(|p| (p.params, p.tokens, p.accuracy))));
        let task = task.zip(accuracies);
        let from = rows.len();
        let meant = |t: &&Target| t.group.is_none() || law.group.is_none() || t.group == law.group;
        for target in targets.targets.iter().filter(meant) {
            let k = inputs.flops_per_param_token;
            let row = one(law, target, &known, k, inputs.flops[1]);
            let accuracy = task.as_ref().and_then(|(task, known)| accuracy(task, target, known, k));
            rows.extend(row.map(|row| Prediction { accuracy, ..row }));
        }
        if let Some((task, _)) = &task {
            let losses: Vec<(String, f64)> =
                rows[from..].iter().map(|r: &Prediction| (r.id.clone(), r.loss.value)).collect();
            let group = law.group.clone();
            found.extend(beyond_data(task, &losses).map(|warning| DocumentWarning { warning, group }));
        }
    }
    let pairs: Vec<(f64, Option<f64>)> = rows
        .iter()
        .filter_map(|row: &Prediction| {
            let measured = row.measured?;
            Some((row.error?.abs(), row.baseline.map(|b| (b / measured - 1.0).abs())))
        })
        .collect();
    let mean = |values: Vec<f64>| {
        let n = values.len() as f64;
        (n > 0.0).then(|| values.iter().sum::<f64>() / n)
    };
    let predictions = Predictions {
        file: targets.file.clone(),
        blake3: targets.blake3.clone(),
        measured: pairs.len(),
        error: mean(pairs.iter().map(|p| p.0).collect()),
        baseline_error: mean(pairs.iter().filter_map(|p| p.1).collect()),
        accuracies: accuracy_errors(&rows),
        rows,
    };
    let general = warnings(&predictions, targets);
    document.warnings.extend(general.into_iter().map(|warning| DocumentWarning { warning, group: None }));
    document.warnings.extend(found);
    document.predictions = Some(predictions);
}

/// The fitted runs, which guess what a law predicts.
fn known(runs: &[&RunRecord], loss: LossColumn, params: ParamCount) -> Nearest {
    Nearest::new(runs.iter().filter_map(|r| {
        let loss = if loss == LossColumn::Validation { r.validation_loss } else { r.train_loss };
        let n = if params == ParamCount::Total { Some(r.params) } else { r.params_non_embedding };
        Some((n?, r.tokens, loss?))
    }))
}

fn one(law: &DocumentFit, target: &Target, known: &Nearest, k: f64, most: f64) -> Option<Prediction> {
    let fit = &law.fit;
    let (params, tokens) = target.size.or_else(|| fit.optimum_at(target.flops, k))?;
    let loss = match target.size {
        Some(_) => fit.loss_at(params, tokens)?,
        // Every resample has an optimum of its own.
        None => Estimate {
            value: fit.params.loss(params, tokens)?,
            interval: fit.interval_of(&|law| {
                let best = law.optimum(target.flops, k).and_then(|(n, d)| law.loss(n, d));
                best.unwrap_or(f64::NAN)
            }),
        },
    };
    Some(Prediction {
        group: law.group.clone(),
        id: target.id.clone(),
        params,
        tokens,
        flops: target.flops,
        at_optimum: target.size.is_none(),
        extrapolation: target.flops / most,
        measured: target.loss,
        error: target.loss.map(|measured| loss.value / measured - 1.0),
        baseline: target.size.and_then(|(n, d)| known.loss(n, d)),
        loss,
        accuracy: None,
    })
}

/// The accuracy of a target of a task; `known` are the accuracies of its runs.
fn accuracy(task: &Downstream, target: &Target, known: &Nearest, k: f64) -> Option<PredictedAccuracy> {
    let predicted = match target.size {
        Some((n, d)) => task.accuracy_at(n, d)?,
        None => task.accuracy_at_optimum(target.flops, k)?,
    };
    Some(PredictedAccuracy {
        predicted,
        measured: target.accuracy,
        error: target.accuracy.map(|measured| predicted.value - measured),
        baseline: target.size.and_then(|(n, d)| known.loss(n, d)),
    })
}

fn accuracy_errors(rows: &[Prediction]) -> Option<AccuracyErrors> {
    let measured: Vec<&PredictedAccuracy> =
        rows.iter().filter_map(|r| r.accuracy.as_ref()).filter(|a| a.measured.is_some()).collect();
    let mean = |values: Vec<f64>| {
        let n = values.len() as f64;
        (n > 0.0).then(|| values.iter().sum::<f64>() / n)
    };
    let baseline = |a: &&PredictedAccuracy| Some((a.baseline? - a.measured?).abs());
    Some(AccuracyErrors {
        measured: measured.len(),
        error: mean(measured.iter().filter_map(|a| Some(a.error?.abs())).collect())?,
        baseline_error: mean(measured.iter().filter_map(baseline).collect()),
    })
}

fn warnings(predictions: &Predictions, targets: &Targets) -> Vec<Warning> {
    let mut found = Vec::new();
    let left_out = &targets.left_out;
    if left_out.count > 0 {
        found.push(Warning {
            code: WarningCode::RunsLeftOut,
            value: left_out.count as f64,
            message: format!(
                "{} rows of {} have no size to predict: {}.",
                left_out.count,
                targets.file,
                left_out.summary()
            ),
        });
    }
    let far = predictions.rows.iter().filter(|r| r.extrapolation > FAR).count();
    let furthest = predictions.rows.iter().map(|r| r.extrapolation).fold(0.0, f64::max);
    if far > 0 {
        found.push(Warning {
            code: WarningCode::Extrapolation,
            value: furthest,
            message: format!(
                "{far} of {} targets are beyond 10 times the compute of the largest run, the furthest {} times: their intervals hold only if the law does.",
                predictions.rows.len(),
                human(furthest)
            ),
        });
    }
    if let (Some(error), Some(baseline)) = (predictions.error, predictions.baseline_error)
        && error >= baseline
    {
        found.push(Warning {
            code: WarningCode::HeldOutError,
            value: error,
            message: format!(
                "The law misses the measured losses of {} by {:.1} %, the nearest fitted runs by {:.1} %: it predicts no better than no law.",
                targets.file,
                100.0 * error,
                100.0 * baseline
            ),
        });
    }
    found
}

impl Predictions {
    /// A CSV with a row for each prediction.
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "id,group,params,tokens,flops,at_optimum,loss,low,high,extrapolation,measured,error,baseline",
        );
        let tasks = self.rows.iter().any(|r| r.accuracy.is_some());
        text.push_str(if tasks {
            ",accuracy,accuracy_low,accuracy_high,measured_accuracy,accuracy_error,accuracy_baseline\n"
        } else {
            "\n"
        });
        let optional = |v: Option<f64>| v.map(|v| format!("{v:?}")).unwrap_or_default();
        for r in &self.rows {
            let mut cells = vec![
                quoted(&r.id),
                quoted(r.group.as_deref().unwrap_or("")),
                format!("{:?}", r.params),
                format!("{:?}", r.tokens),
                format!("{:?}", r.flops),
                r.at_optimum.to_string(),
                format!("{:?}", r.loss.value),
                optional(r.loss.interval.map(|i| i[0])),
                optional(r.loss.interval.map(|i| i[1])),
                format!("{:?}", r.extrapolation),
                optional(r.measured),
                optional(r.error),
                optional(r.baseline),
            ];
            if tasks {
                let a = r.accuracy.as_ref();
                let end = |i: usize| a.and_then(|a| a.predicted.interval).map(|ends| ends[i]);
                cells.extend([
                    optional(a.map(|a| a.predicted.value)),
                    optional(end(0)),
                    optional(end(1)),
                    optional(a.and_then(|a| a.measured)),
                    optional(a.and_then(|a| a.error)),
                    optional(a.and_then(|a| a.baseline)),
                ]);
            }
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        text
    }
}

fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    }
}
