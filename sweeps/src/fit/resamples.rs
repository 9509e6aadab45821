//! The laws of all resamples in fit.json, so that intervals of any quantity can be read off it later.

use super::params::{KaplanParams, LossParams, Params};
use super::result::Cloud;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// Parameters of each resample's law, in the order of `names`. Written on one line, with eight digits.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Resamples {
    pub names: Vec<String>,
    pub draws: Vec<Vec<f64>>,
    /// For BCa intervals: the laws of all runs but a few.
    #[serde(default)]
    pub jackknife: Vec<Vec<f64>>,
}

impl Resamples {
    /// None where there are no resamples.
    pub(crate) fn of(cloud: &Cloud) -> Option<Resamples> {
        let first = cloud.draws.first()?;
        let rows = |laws: &[Params]| {
            laws.iter().map(|law| law.named().into_iter().map(|(_, v)| rounded(v)).collect()).collect()
        };
        Some(Resamples {
            names: first.named().into_iter().map(|(name, _)| name.to_string()).collect(),
            draws: rows(&cloud.draws),
            jackknife: rows(&cloud.jackknife),
        })
    }

    /// The laws; empty where the names are not those of a law of N and D.
    pub(crate) fn cloud(&self) -> Cloud {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let law = |row: &Vec<f64>| match (names.as_slice(), row.as_slice()) {
            (["E", "A", "B", "alpha", "beta"], &[e, a, b, alpha, beta]) => {
                Some(Params::Loss(LossParams { e, a, b, alpha, beta }))
            }
            (["N_c", "D_c", "alpha_N", "alpha_D"], &[n_c, d_c, alpha_n, alpha_d]) => {
                Some(Params::Kaplan(KaplanParams { n_c, d_c, alpha_n, alpha_d }))
            }
            _ => None,
        };
        let laws = |rows: &[Vec<f64>]| rows.iter().filter_map(law).collect();
        Cloud { draws: laws(&self.draws), jackknife: laws(&self.jackknife) }
    }
}

/// To eight digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.7e}").parse().unwrap_or(value)
}

impl Serialize for Resamples {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = |rows: &[Vec<f64>]| {
            let each: Vec<String> = rows
                .iter()
                .map(|row| {
                    format!("[{}]", row.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(","))
                })
                .collect();
            each.join(",")
        };
        let names: Vec<String> = self.names.iter().map(|n| format!("\"{n}\"")).collect();
        let text = format!(
            "{{\"names\":[{}],\"draws\":[{}],\"jackknife\":[{}]}}",
            names.join(","),
            rows(&self.draws),
            rows(&self.jackknife)
        );
        RawValue::from_string(text).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resamples_are_one_line_and_read_back() {
        let law = |e| Params::Loss(LossParams { e, a: 406.4, b: 4.107e2, alpha: 0.34, beta: 0.28 });
        let cloud = Cloud { draws: vec![law(1.69), law(1.0 / 3.0)], jackknife: vec![] };
        let resamples = Resamples::of(&cloud).unwrap();
        let text = serde_json::to_string_pretty(&[&resamples]).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        let again: Vec<Resamples> = serde_json::from_str(&text).unwrap();
        assert_eq!(again[0], resamples);
        let Params::Loss(third) = again[0].cloud().draws[1] else { panic!("{text}") };
        assert_eq!(third.e, 0.33333333);
        assert_eq!(Resamples::of(&Cloud::default()), None);
    }
}
