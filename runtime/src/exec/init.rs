//! Initial values of state and tables, the same bits on every machine.
//!
//! Logarithms and sines come from crate `libm`, not from the system's mathematics library, whose last bits differ
//! between versions.

use isoflop_kernels::program::Init;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Fills `values`, of shape `shape`, as `init` says. `seed` and `name` choose the stream of normal numbers.
pub fn fill(values: &mut [f32], shape: &[usize], init: Init, seed: u64, name: &str) {
    match init {
        Init::Zeros => values.fill(0.0),
        Init::Ones => values.fill(1.0),
        Init::Normal { std } => normal(values, std, seed, name),
        Init::RelativeSinusoid => relative_sinusoid(values, shape),
    }
}

/// Box-Muller over ChaCha12, keyed by blake3 of the seed's eight little-endian bytes and the name.
fn normal(values: &mut [f32], std: f64, seed: u64, name: &str) {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
    let mut random = ChaCha12Rng::from_seed(*hasher.finalize().as_bytes());
    // 53 bits; the half keeps the logarithm's argument above 0.
    let mut uniform = || ((random.next_u64() >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64);
    for pair in values.chunks_mut(2) {
        let radius = libm::sqrt(-2.0 * libm::log(uniform())) * std;
        let (sin, cos) = libm::sincos(std::f64::consts::TAU * uniform());
        pair[0] = (radius * cos) as f32;
        if let Some(second) = pair.get_mut(1) {
            *second = (radius * sin) as f32;
        }
    }
}

/// Shape [seq_len, d_model]: row p, for distance t = seq_len - 1 - p, holds sin(t w_k) in its first half and cos(t w_k)
/// in its second, w_k = 10000^(-2k/d_model). Dai et al. 2019.
fn relative_sinusoid(values: &mut [f32], shape: &[usize]) {
    let d_model = shape.last().copied().unwrap_or(1).max(1);
    let seq_len = values.len() / d_model;
    let half = d_model.div_ceil(2);
    for (p, row) in values.chunks_mut(d_model).enumerate() {
        let distance = (seq_len - 1 - p) as f64;
        for (j, value) in row.iter_mut().enumerate() {
            let angle = |k: usize| distance * libm::pow(10000.0, -2.0 * k as f64 / d_model as f64);
            *value = if j < half { libm::sin(angle(j)) } else { libm::cos(angle(j - half)) } as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_the_right_moments_and_depend_on_seed_and_name() {
        let draw = |seed, name| {
            let mut values = vec![0.0; 100_001];
            fill(&mut values, &[100_001], Init::Normal { std: 0.02 }, seed, name);
            values
        };
        let values = draw(1, "param.a");
        let n = values.len() as f64;
        let moment = |power: i32| values.iter().map(|&x| (x as f64 / 0.02).powi(power)).sum::<f64>() / n;
        // Five standard errors of each moment of a standard normal: sqrt(1, 2, 15, 96)/sqrt(n).
        for (power, expected, variance) in [(1, 0.0, 1.0f64), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            assert!(
                (moment(power) - expected).abs() < 5.0 * (variance / n).sqrt(),
                "moment {power}: {}",
                moment(power)
            );
        }
        assert_eq!(values, draw(1, "param.a"));
        assert_ne!(values, draw(2, "param.a"));
        assert_ne!(values, draw(1, "param.b"));
    }

    /// The stream is part of what a seed means: a change here changes every published run.
    #[test]
    fn first_numbers_of_a_stream_stay_as_they_are() {
        let mut values = [0.0; 4];
        fill(&mut values, &[4], Init::Normal { std: 1.0 }, 0, "param.embedding");
        assert_eq!(values, [1.0027167, 0.781725, 0.3347037, -0.24523291]);
    }

    #[test]
    fn sinusoid_rows_run_from_the_farthest_distance_to_zero() {
        let (seq_len, d_model) = (7, 6);
        let mut values = vec![0.0; seq_len * d_model];
        fill(&mut values, &[seq_len, d_model], Init::RelativeSinusoid, 0, "rel_pos");
        for p in 0..seq_len {
            let distance = (seq_len - 1 - p) as f64;
            for k in 0..3 {
                let angle = distance / 10000f64.powf(2.0 * k as f64 / 6.0);
                assert!((values[p * d_model + k] as f64 - angle.sin()).abs() < 1e-7);
                assert!((values[p * d_model + 3 + k] as f64 - angle.cos()).abs() < 1e-7);
            }
        }
        assert_eq!(values[36..], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    }
}
