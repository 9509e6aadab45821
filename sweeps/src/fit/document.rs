//! fit.json: the fits of all groups, their warnings, and what they rest on, down to the hash of every row.

use super::downstream::{self, Downstream};
use super::error::FitError;
use super::fit_runs;
use super::input::{Input, RowsLeftOut, Source};
use super::options::FitOptions;
use super::predict::Predictions;
use super::records::{Curve, RunRecord};
use super::resamples::Resamples;
use super::result::{Fit, FitReport, HeldOut, Inputs, SeedNoise, Variant, Warning, WarningCode};
use serde::{Deserialize, Serialize};

/// Everything that `isoflop fit` found. The same input and options give the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitDocument {
    pub fits: Vec<DocumentFit>,
    pub warnings: Vec<DocumentWarning>,
    pub inputs: DocumentInputs,
    /// Accuracies of tasks, where the table has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downstream: Vec<Downstream>,
    /// Where targets were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predictions: Option<Predictions>,
}

/// One approach's result, for one group where there are groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentFit {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(flatten)]
    pub fit: Fit,
    /// Approach 3: the law of every resample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resamples: Option<Resamples>,
    /// Approach 3: the largest budget predicted from the smaller ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// Approach 3: the fit without outliers, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_outliers: Option<Box<Fit>>,
    /// Approach 3: other laws that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
    /// Approach 3: what repeats say about noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_noise: Option<SeedNoise>,
}

/// A warning, and the group it is about where there are groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentWarning {
    #[serde(flatten)]
    pub warning: Warning,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// What was fitted, with which options, by which version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentInputs {
    /// The version of isoflop.
    pub version: String,
    /// The table of runs.
    pub source: Source,
    pub options: FitOptions,
    /// blake3 over the training curves given; none without curves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curves_blake3: Option<String>,
    /// What was fitted; for groups see `groups`.
    #[serde(flatten)]
    pub fitted: Option<Inputs>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupInputs>,
}

/// What was fitted of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupInputs {
    pub group: String,
    #[serde(flatten)]
    pub fitted: Inputs,
}

/// The runs and curves of one group.
#[derive(Default)]
struct Group {
    name: Option<String>,
    runs: Vec<RunRecord>,
    accuracies: Vec<Option<f64>>,
    curves: Vec<Curve>,
}

impl FitDocument {
    /// The document of a study's fit.
    pub fn of_study(
        report: &FitReport,
        curves: &[Curve],
        options: &FitOptions,
        source: Source,
    ) -> FitDocument {
        let mut document = FitDocument::empty(curves, options, source);
        document.add(None, report.clone());
        document
    }

    fn empty(curves: &[Curve], options: &FitOptions, source: Source) -> FitDocument {
        FitDocument {
            fits: Vec::new(),
            warnings: Vec::new(),
            inputs: DocumentInputs {
                version: env!("CARGO_PKG_VERSION").to_string(),
                source,
                options: options.clone(),
                curves_blake3: (!curves.is_empty()).then(|| hash(curves)),
                fitted: None,
                groups: Vec::new(),
            },
            downstream: Vec::new(),
            predictions: None,
        }
    }

    fn add(&mut self, group: Option<&str>, report: FitReport) {
        let group = group.map(str::to_string);
        let FitReport {
            fits,
            warnings,
            mut held_out,
            mut without_outliers,
            mut variants,
            seed_noise,
            inputs,
        } = report;
        let asked = self.inputs.options.bootstrap;
        let least = fits.iter().filter_map(|f| Some(f.bootstrap?.resamples)).min();
        if let Some(drawn) = least.filter(|drawn| *drawn < asked) {
            let message =
                format!("With {} runs intervals rest on {drawn} resamples in place of {asked}.", inputs.used);
            let warning = Warning { code: WarningCode::FewerResamples, message, value: drawn as f64 };
            self.warnings.push(DocumentWarning { warning, group: group.clone() });
        }
        if let Some(b) = fits.iter().filter_map(|f| f.bootstrap).find(|b| b.linear) {
            let message = format!(
                "With {} runs the {} resamples of approach 3 were not fitted anew: each is a Newton step from the fit, with runs drawn in blocks.",
                inputs.used, b.resamples
            );
            let (code, value) = (WarningCode::FewerResamples, b.resamples as f64);
            self.warnings
                .push(DocumentWarning { warning: Warning { code, message, value }, group: group.clone() });
        }
        for fit in fits {
            let third = fit.approach == 3;
            self.fits.push(DocumentFit {
                group: group.clone(),
                resamples: Resamples::of(&fit.cloud),
                fit,
                held_out: if third { held_out.take() } else { None },
                without_outliers: if third { without_outliers.take().map(Box::new) } else { None },
                variants: if third { std::mem::take(&mut variants) } else { Vec::new() },
                seed_noise: seed_noise.filter(|_| third),
            });
        }
        let named = |warning| DocumentWarning { warning, group: group.clone() };
        self.warnings.extend(warnings.into_iter().map(named));
        match group {
            Some(group) => self.inputs.groups.push(GroupInputs { group, fitted: inputs }),
            None => self.inputs.fitted = Some(inputs),
        }
    }

    /// Adds the accuracies of one group, where it has some.
    fn add_accuracies(&mut self, group: Option<&str>, runs: &[RunRecord], accuracies: &[Option<f64>]) {
        if accuracies.iter().all(Option::is_none) {
            return;
        }
        let warnings = match downstream::fit(runs, accuracies, &self.inputs.options, group) {
            Ok((found, warnings)) => {
                self.downstream.push(found);
                warnings
            }
            Err(warning) => vec![warning],
        };
        let named = |warning| DocumentWarning { warning, group: group.map(str::to_string) };
        self.warnings.extend(warnings.into_iter().map(named));
    }

    /// Gives fits that were read from fit.json their resamples back, on which intervals rest.
    pub(crate) fn restored(mut self) -> FitDocument {
        for fit in &mut self.fits {
            fit.fit.cloud = fit.resamples.as_ref().map(Resamples::cloud).unwrap_or_default();
        }
        self
    }

    /// The fits' inputs: of each group, or the only ones.
    pub fn fitted(&self) -> impl Iterator<Item = (Option<&str>, &Inputs)> {
        let groups = self.inputs.groups.iter().map(|g| (Some(g.group.as_str()), &g.fitted));
        self.inputs.fitted.iter().map(|i| (None, i)).chain(groups)
    }

    /// Rows or runs that were left out, by the reader or by the fits.
    pub fn left_out(&self) -> RowsLeftOut {
        let mut all = self.inputs.source.left_out.clone();
        for (_, inputs) in self.fitted() {
            for run in &inputs.left_out {
                all.add(run.id.clone(), &run.why, run.why.clone());
            }
        }
        all
    }
}

/// Fits a table, each group by itself.
///
/// # Errors
/// As [`fit_runs`]; with groups, when no group can be fitted. A group that cannot be fitted beside others is a warning.
pub fn fit_input(input: &Input, options: &FitOptions) -> Result<FitDocument, FitError> {
    let mut document = FitDocument::empty(&input.curves, options, input.source.clone());
    document
        .warnings
        .extend(input.warnings.iter().map(|w| DocumentWarning { warning: w.clone(), group: None }));
    if input.groups.is_empty() {
        document.add(None, fit_runs(&input.runs, &input.curves, options)?);
        document.add_accuracies(None, &input.runs, &input.accuracies);
        return Ok(document);
    }
    let mut failed = None;
    for group in groups(input) {
        match fit_runs(&group.runs, &group.curves, options) {
            Ok(report) => {
                document.add(group.name.as_deref(), report);
                document.add_accuracies(group.name.as_deref(), &group.runs, &group.accuracies);
            }
            Err(error) => {
                let message = format!("Nothing was fitted: {error}.");
                let (code, value) = (WarningCode::ApproachUnavailable, group.runs.len() as f64);
                document
                    .warnings
                    .push(DocumentWarning { warning: Warning { code, message, value }, group: group.name });
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) if document.fits.is_empty() => Err(error),
        _ => Ok(document),
    }
}

/// Groups in the order in which they appear.
fn groups(input: &Input) -> Vec<Group> {
    let mut order = std::collections::HashMap::new();
    let mut found: Vec<Group> = Vec::new();
    for (i, (run, name)) in input.runs.iter().zip(&input.groups).enumerate() {
        let place = *order.entry(name.as_str()).or_insert_with(|| {
            found.push(Group { name: Some(name.clone()), ..Group::default() });
            found.len() - 1
        });
        found[place].runs.push(run.clone());
        found[place].accuracies.push(input.accuracies.get(i).copied().flatten());
    }
    for group in &mut found {
        let names: std::collections::HashSet<&str> = group.runs.iter().map(|r| r.id.as_str()).collect();
        group.curves = input.curves.iter().filter(|c| names.contains(c.run.as_str())).cloned().collect();
    }
    found
}

/// blake3 over names and numbers of the curves.
fn hash(curves: &[Curve]) -> String {
    let mut hasher = blake3::Hasher::new();
    for curve in curves {
        hasher.update(&(curve.run.len() as u64).to_le_bytes()).update(curve.run.as_bytes());
        for p in &curve.points {
            let missing = f64::NAN;
            let numbers = [
                p.tokens,
                p.flops,
                p.train_loss.unwrap_or(missing),
                p.validation_loss.unwrap_or(missing),
                p.lr.unwrap_or(missing),
            ];
            hasher.update(&p.step.to_le_bytes());
            for number in numbers {
                hasher.update(&number.to_bits().to_le_bytes());
            }
        }
    }
    hasher.finalize().to_hex().to_string()
}
