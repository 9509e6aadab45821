//! Causal Transformer-XL attention with relative positions, forward and backward, by its formulas (Dai et al. 2019).
//!
//! For each sequence and head, with q, k, val the head's columns of `qkv` and R_t row `seq-1-t` of `rel`:
//!
//! ```text
//! s_ij  = ((q_i + u).k_j + (q_i + v).R_{i-j}) / sqrt(d_head)    for j <= i
//! p_ij  = exp(s_ij - lse_i)       lse_i = ln sum_j exp(s_ij)       out_i = sum_j p_ij val_j
//! ds_ij = p_ij (dout_i.val_j - dout_i.out_i)
//! ```

use crate::graph::RelAttentionCall;

/// One head of one sequence: where its rows are.
struct Head<'a> {
    call: &'a RelAttentionCall,
    sequence: usize,
    head: usize,
    qkv: &'a [f64],
    rel: &'a [f64],
    u: &'a [f64],
    v: &'a [f64],
}

impl<'a> Head<'a> {
    fn width(&self) -> usize {
        self.call.heads * self.call.d_head
    }

    /// Index in `qkv` of the head's queries (part 0), keys (1) or values (2) of token `i`.
    fn qkv_at(&self, part: usize, i: usize) -> usize {
        ((self.sequence * self.call.seq + i) * 3 + part) * self.width() + self.head * self.call.d_head
    }

    fn qkv(&self, part: usize, i: usize) -> &'a [f64] {
        &self.qkv[self.qkv_at(part, i)..][..self.call.d_head]
    }

    /// Index in `out` or `dout` of token `i`.
    fn out_at(&self, i: usize) -> usize {
        (self.sequence * self.call.seq + i) * self.width() + self.head * self.call.d_head
    }

    /// Index in `rel` of distance `t`.
    fn rel_at(&self, t: usize) -> usize {
        (self.call.seq - 1 - t) * self.width() + self.head * self.call.d_head
    }

    fn lse_at(&self, i: usize) -> usize {
        (self.sequence * self.call.heads + self.head) * self.call.seq + i
    }

    fn bias(&self, of: &'a [f64]) -> &'a [f64] {
        &of[self.head * self.call.d_head..][..self.call.d_head]
    }

    fn scale(&self) -> f64 {
        1.0 / (self.call.d_head as f64).sqrt()
    }

    fn score(&self, i: usize, j: usize) -> f64 {
        let (q, k) = (self.qkv(0, i), self.qkv(1, j));
        let r = &self.rel[self.rel_at(i - j)..][..self.call.d_head];
        let (u, v) = (self.bias(self.u), self.bias(self.v));
        (0..q.len()).map(|c| (q[c] + u[c]) * k[c] + (q[c] + v[c]) * r[c]).sum::<f64>() * self.scale()
    }
}

fn heads<'a>(call: &'a RelAttentionCall, [qkv, rel, u, v]: [&'a [f64]; 4]) -> impl Iterator<Item = Head<'a>> {
    (0..call.batch).flat_map(move |sequence| {
        (0..call.heads).map(move |head| Head { call, sequence, head, qkv, rel, u, v })
    })
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn add_scaled(to: &mut [f64], factor: f64, x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(t, x)| *t += factor * x);
}

/// out and lse from qkv, rel, u, v.
pub(super) fn forward(call: &RelAttentionCall, given: [&[f64]; 4]) -> Vec<Vec<f64>> {
    let tokens = call.batch * call.seq;
    let mut out = vec![0.0; tokens * call.heads * call.d_head];
    let mut lse = vec![0.0; tokens * call.heads];
    for h in heads(call, given) {
        for i in 0..call.seq {
            let scores: Vec<f64> = (0..=i).map(|j| h.score(i, j)).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            lse[h.lse_at(i)] = max + sum.ln();
            let row = &mut out[h.out_at(i)..][..call.d_head];
            for (j, s) in scores.iter().enumerate() {
                add_scaled(row, (s - max).exp() / sum, h.qkv(2, j));
            }
        }
    }
    vec![out, lse]
}

/// dqkv, drel, du, dv from qkv, rel, u, v, out, lse, dout.
pub(super) fn backward(call: &RelAttentionCall, given: [&[f64]; 7]) -> Vec<Vec<f64>> {
    let [qkv, rel, u, v, out, lse, dout] = given;
    let mut dqkv = vec![0.0; qkv.len()];
    let mut drel = vec![0.0; rel.len()];
    let (mut du, mut dv) = (vec![0.0; u.len()], vec![0.0; v.len()]);
    let width = call.d_head;
    for h in heads(call, [qkv, rel, u, v]) {
        let bias_at = h.head * width;
        for i in 0..call.seq {
            let dout = &dout[h.out_at(i)..][..width];
            let delta = product(dout, &out[h.out_at(i)..][..width]);
            for j in 0..=i {
                let p = (h.score(i, j) - lse[h.lse_at(i)]).exp();
                let ds = p * (product(dout, h.qkv(2, j)) - delta) * h.scale();
                let (q, k) = (h.qkv(0, i), h.qkv(1, j));
                let r_at = h.rel_at(i - j);
                let r = &rel[r_at..][..width];
                let with = |bias: &[f64]| -> Vec<f64> { q.iter().zip(bias).map(|(q, b)| q + b).collect() };
                add_scaled(&mut dqkv[h.qkv_at(2, j)..][..width], p, dout);
                add_scaled(&mut dqkv[h.qkv_at(1, j)..][..width], ds, &with(h.bias(u)));
                add_scaled(&mut drel[r_at..][..width], ds, &with(h.bias(v)));
                for part in [k, r] {
                    add_scaled(&mut dqkv[h.qkv_at(0, i)..][..width], ds, part);
                }
                add_scaled(&mut du[bias_at..][..width], ds, k);
                add_scaled(&mut dv[bias_at..][..width], ds, r);
            }
        }
    }
    vec![dqkv, drel, du, dv]
}
