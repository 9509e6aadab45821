//! The head with its cross entropy, by its formulas.
//!
//! With x_i = table h_i the logits of row i:
//!
//! ```text
//! loss  = 1/rows sum_i (ln sum_c exp(x_ic - max_i) - (x_i,target - max_i))      max_i = max_c x_ic
//! dx_ic = 1/rows (exp(x_ic - max_i) / sum_k exp(x_ik - max_i) - [c = target_i])
//! ```

use crate::graph::HeadCall;

/// loss, and with `gradients` dh and dtable, from h, table and targets. A target outside the vocabulary names no logit:
/// the second term of its row is 0.
pub(super) fn loss(call: &HeadCall, given: [&[f64]; 3], gradients: bool) -> Vec<Vec<f64>> {
    let [h, table, targets] = given;
    let (width, scale) = (call.width, 1.0 / call.rows as f64);
    let row = |of: &[f64], i: usize| -> Vec<f64> { of[i * width..][..width].to_vec() };
    let mut sum = 0.0;
    let (mut dh, mut dtable) = (vec![0.0; h.len()], vec![0.0; table.len()]);
    for i in 0..call.rows {
        let own = row(h, i);
        let logit = |c: usize| -> f64 { row(table, c).iter().zip(&own).map(|(t, h)| t * h).sum() };
        let logits: Vec<f64> = (0..call.vocab).map(logit).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let z: f64 = logits.iter().map(|x| (x - max).exp()).sum();
        let is_target = |c: usize| targets[i] == c as f64;
        let picked: f64 = (0..call.vocab).filter(|&c| is_target(c)).map(|c| logits[c] - max).sum();
        sum += z.ln() - picked;
        for (c, x) in logits.iter().enumerate().filter(|_| gradients) {
            let d = scale * ((x - max).exp() / z - f64::from(is_target(c)));
            for k in 0..width {
                dh[i * width + k] += d * table[c * width + k];
                dtable[c * width + k] += d * own[k];
            }
        }
    }
    let mut results = vec![vec![sum * scale]];
    if gradients {
        results.extend([dh, dtable]);
    }
    results
}
