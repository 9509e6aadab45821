//! What a person asks of a fit, on the command line or in `[fit]` of a sweep file, laid over the usual options.

use super::error::FitError;
use super::options::{
    FitOptions, IntervalMethod, LawForm, LossColumn, MinimumMethod, Objective, ParamCount, Starts,
};
use serde::{Deserialize, Serialize};

/// A law by its name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedLaw {
    Chinchilla,
    EqualExponents,
    Kaplan,
    Compute,
}

impl From<NamedLaw> for LawForm {
    fn from(name: NamedLaw) -> LawForm {
        match name {
            NamedLaw::Chinchilla => LawForm::Chinchilla,
            NamedLaw::EqualExponents => LawForm::EqualExponents,
            NamedLaw::Kaplan => LawForm::Kaplan,
            NamedLaw::Compute => LawForm::Compute,
        }
    }
}

/// A kind of interval: one of two methods for those of resamples, or profiles beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntervalKind {
    Percentile,
    Bca,
    Profile,
}

/// Options by their names on the command line and in a sweep file; what is not asked for stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    pub approaches: Option<Vec<u8>>,
    /// The law of approach 3; at most one of `form`, `fix_e` and `tie_exponents`.
    pub form: Option<NamedLaw>,
    /// Approach 3 with this E, in nats per token.
    pub fix_e: Option<f64>,
    /// Approach 3 with alpha = beta.
    pub tie_exponents: bool,
    /// Other laws beside it.
    pub also: Option<Vec<NamedLaw>>,
    pub objective: Option<Objective>,
    pub delta: Option<f64>,
    pub starts: Option<Starts>,
    pub minimum: Option<MinimumMethod>,
    pub interval: Vec<IntervalKind>,
    pub stratify: Option<bool>,
    pub seed_weights: Option<bool>,
    pub bootstrap: Option<usize>,
    pub level: Option<f64>,
    pub seed: Option<u64>,
    pub loss: Option<LossColumn>,
    pub params: Option<ParamCount>,
    pub targets: Option<Vec<f64>>,
}

impl Asked {
    /// The options of a fit, those not asked for being `usual`.
    ///
    /// # Errors
    /// [`FitError::BadOption`] with the name of an option that is outside its range or contradicts another.
    pub fn over(self, usual: FitOptions) -> Result<FitOptions, FitError> {
        let bad = |option, found: &str, allowed| {
            Err(FitError::BadOption { option, found: found.to_string(), allowed })
        };
        let form = match (self.form, self.fix_e, self.tie_exponents) {
            (Some(_), Some(_), _) => return bad("fix_e", "given beside `form`", ONE_LAW),
            (Some(_), _, true) => return bad("tie_exponents", "given beside `form`", ONE_LAW),
            (_, Some(_), true) => return bad("tie_exponents", "given beside `fix_e`", ONE_LAW),
            (Some(form), ..) => form.into(),
            (_, Some(e), _) => LawForm::FixedE(e),
            (.., true) => LawForm::EqualExponents,
            _ => usual.form,
        };
        let has = |kind| self.interval.contains(&kind);
        let intervals = match (has(IntervalKind::Percentile), has(IntervalKind::Bca)) {
            (true, true) => {
                return bad("interval", "percentile and bca", "one of them, and profile beside it if wanted");
            }
            (true, false) => IntervalMethod::Percentile,
            (false, true) => IntervalMethod::Bca,
            (false, false) => usual.intervals,
        };
        let variants = self.also.map(|laws| laws.into_iter().map(LawForm::from).collect());
        let options = FitOptions {
            approaches: self.approaches.unwrap_or(usual.approaches),
            bootstrap: self.bootstrap.unwrap_or(usual.bootstrap),
            level: self.level.unwrap_or(usual.level),
            seed: self.seed.unwrap_or(usual.seed),
            loss: self.loss.unwrap_or(usual.loss),
            params: self.params.unwrap_or(usual.params),
            targets: self.targets.unwrap_or(usual.targets),
            objective: self.objective.unwrap_or(usual.objective),
            delta: self.delta.unwrap_or(usual.delta),
            form,
            variants: variants.unwrap_or(usual.variants),
            starts: self.starts.unwrap_or(usual.starts),
            intervals,
            stratified: self.stratify.unwrap_or(usual.stratified),
            profile: has(IntervalKind::Profile) || usual.profile,
            minimum: self.minimum.unwrap_or(usual.minimum),
            seed_weights: self.seed_weights.unwrap_or(usual.seed_weights),
            downstream: usual.downstream,
        };
        options.check()?;
        Ok(options)
    }
}

const ONE_LAW: &str = "one of `form`, `fix_e` and `tie_exponents`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_for_stays_and_the_rest_is_changed() {
        let usual = FitOptions { level: 0.5, stratified: true, profile: true, ..FitOptions::default() };
        assert_eq!(Asked::default().over(usual.clone()).unwrap(), usual);
        let asked = Asked {
            fix_e: Some(1.7),
            also: Some(vec![NamedLaw::Kaplan]),
            interval: vec![IntervalKind::Percentile],
            stratify: Some(false),
            targets: Some(vec![1e20]),
            ..Asked::default()
        };
        let found = asked.over(usual.clone()).unwrap();
        let wanted = FitOptions {
            form: LawForm::FixedE(1.7),
            variants: vec![LawForm::Kaplan],
            intervals: IntervalMethod::Percentile,
            stratified: false,
            targets: vec![1e20],
            ..usual
        };
        assert_eq!(found, wanted);
    }

    #[test]
    fn contradictions_and_values_out_of_range_are_named() {
        let says = |asked: Asked, wanted: &str| match asked.over(FitOptions::default()) {
            Err(FitError::BadOption { option, .. }) => assert_eq!(option, wanted),
            other => panic!("{wanted}: {other:?}"),
        };
        let form = Some(NamedLaw::Kaplan);
        says(Asked { form, fix_e: Some(1.0), ..Asked::default() }, "fix_e");
        says(Asked { form, tie_exponents: true, ..Asked::default() }, "tie_exponents");
        says(Asked { fix_e: Some(1.0), tie_exponents: true, ..Asked::default() }, "tie_exponents");
        says(Asked { fix_e: Some(-1.0), ..Asked::default() }, "fix_e");
        says(Asked { form: Some(NamedLaw::Compute), ..Asked::default() }, "form");
        let interval = vec![IntervalKind::Bca, IntervalKind::Percentile];
        says(Asked { interval, ..Asked::default() }, "interval");
        says(Asked { delta: Some(0.0), ..Asked::default() }, "delta");
        says(Asked { level: Some(1.0), ..Asked::default() }, "level");
    }
}
