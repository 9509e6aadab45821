//! What repeats (runs of equal N and D) say about noise, and weights from it.

use super::parametric::Sample;
use super::result::SeedNoise;
use std::collections::BTreeMap;

/// Weights by noise stay within this factor of one.
const MOST: f64 = 10.0;

/// The pooled spread of the log loss within repeats, and how it changes with compute; none without repeats.
pub(crate) fn of_repeats(samples: &[Sample]) -> Option<SeedNoise> {
    let mut groups: BTreeMap<(u64, u64), Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        groups.entry((sample.params.to_bits(), sample.tokens.to_bits())).or_default().push(sample);
    }
    groups.retain(|_, members| members.len() > 1);
    // (ln C, sum of squares, degrees of freedom).
    let spreads: Vec<(f64, f64, f64)> = groups
        .values()
        .map(|members| {
            let n = members.len() as f64;
            let mean = members.iter().map(|s| s.loss.ln()).sum::<f64>() / n;
            let squares = members.iter().map(|s| (s.loss.ln() - mean).powi(2)).sum();
            (members[0].flops.ln(), squares, n - 1.0)
        })
        .collect();
    let freedom: f64 = spreads.iter().map(|s| s.2).sum();
    (freedom > 0.0).then(|| SeedNoise {
        deviation: (spreads.iter().map(|s| s.1).sum::<f64>() / freedom).sqrt(),
        groups: groups.len(),
        runs: groups.values().map(Vec::len).sum(),
        growth: growth(&spreads),
    })
}

/// The exponent of the variance in compute: a line through the logarithms of the groups' variances. Zero with fewer than
/// three groups that differ, or where it is within two standard errors of zero.
fn growth(spreads: &[(f64, f64, f64)]) -> f64 {
    let rows: Vec<(f64, f64, f64)> = spreads
        .iter()
        .filter(|(_, squares, _)| *squares > 0.0)
        .map(|&(x, squares, n)| {
            // ln of a chi-squared over its n has mean about -1/n - 1/(3 n^2) and variance about 2/n + 2/n^2.
            let centred = (squares / n).ln() + 1.0 / n + 1.0 / (3.0 * n * n);
            (x, centred, 1.0 / (2.0 / n + 2.0 / (n * n)))
        })
        .collect();
    if rows.len() < 3 {
        return 0.0;
    }
    let total: f64 = rows.iter().map(|r| r.2).sum();
    let mean = rows.iter().map(|r| r.2 * r.0).sum::<f64>() / total;
    let squares: f64 = rows.iter().map(|r| r.2 * (r.0 - mean).powi(2)).sum();
    let slope = rows.iter().map(|r| r.2 * (r.0 - mean) * r.1).sum::<f64>() / squares;
    if slope.is_finite() && slope.abs() * squares.sqrt() > 2.0 { slope } else { 0.0 }
}

/// Makes each run count inversely to the variance that repeats show at its compute.
pub(crate) fn weigh(samples: &mut [Sample], noise: &SeedNoise) {
    let middle = samples.iter().map(|s| s.flops.ln()).sum::<f64>() / samples.len() as f64;
    for sample in samples {
        let weight = (-noise.growth * (sample.flops.ln() - middle)).exp();
        sample.weight = weight.clamp(1.0 / MOST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(params: f64, loss: f64) -> Sample {
        Sample { record: 0, params, tokens: 1e9, flops: 6e9 * params, budget: None, loss, weight: 1.0 }
    }

    #[test]
    fn repeats_give_the_noise_and_its_growth() {
        assert_eq!(of_repeats(&[sample(1e6, 3.0), sample(2e6, 2.9)]), None);
        let mut samples = Vec::new();
        for i in 0..5 {
            // The deviation halves with every four times the compute: the variance falls as 1 / C.
            let (params, noise) = (1e6 * 4f64.powi(i), 0.02 * 0.5f64.powi(i));
            for k in 0..6 {
                samples.push(sample(params, 3.0 * (noise * (f64::from(k) - 2.5)).exp()));
            }
        }
        let noise = of_repeats(&samples).unwrap();
        assert_eq!((noise.groups, noise.runs), (5, 30));
        assert!((noise.growth + 1.0).abs() < 1e-9, "{noise:?}");
        weigh(&mut samples, &noise);
        assert!((samples[29].weight / samples[17].weight - 10.0 / 1.0).abs() < 1e-9);
        assert!((samples[17].weight - 1.0).abs() < 1e-9);
    }
}
