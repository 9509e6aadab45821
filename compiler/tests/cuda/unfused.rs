//! Relative attention one operation after another, each result rounded to a type: whose error a fused kernel may have.

use super::simt::rounded;
use isoflop_compiler::graph::RelAttentionCall;
use isoflop_kernels::DType;

/// Results by name, like those of the interpreter's nodes.
pub struct Unfused {
    pub out: Vec<f64>,
    pub lse: Vec<f64>,
    pub dqkv: Vec<f64>,
    pub drel: Vec<f64>,
    pub du: Vec<f64>,
    pub dv: Vec<f64>,
}

pub struct Given<'a> {
    pub qkv: &'a [f64],
    pub rel: &'a [f64],
    pub u: &'a [f64],
    pub v: &'a [f64],
    /// Of the forward pass, for the backward.
    pub out: &'a [f64],
    pub lse: &'a [f64],
    pub dout: &'a [f64],
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Both passes. Every tensor that a program of single operations would store is rounded to `dtype` (lse and delta to f32);
/// sums inside an operation are exact.
pub fn attention(call: &RelAttentionCall, x: &Given, dtype: DType) -> Unfused {
    let RelAttentionCall { batch, seq, heads, d_head: d } = *call;
    let (width, r) = (heads * d, |x: f64| rounded(x, dtype));
    let scale = 1.0 / (d as f64).sqrt();
    let zeros = |like: &[f64]| vec![0.0; like.len()];
    let mut y = Unfused {
        out: zeros(x.out),
        lse: zeros(x.lse),
        dqkv: zeros(x.qkv),
        drel: zeros(x.rel),
        du: zeros(x.u),
        dv: zeros(x.v),
    };
    for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        let qkv_at = |part: usize, i: usize| ((b * seq + i) * 3 + part) * width + h * d;
        let rel_at = |t: usize| (seq - 1 - t) * width + h * d;
        let out_at = |i: usize| (b * seq + i) * width + h * d;
        let biased = |i: usize, bias: &[f64]| -> Vec<f64> {
            (0..d).map(|c| r(x.qkv[qkv_at(0, i) + c] + bias[h * d + c])).collect()
        };
        for i in 0..seq {
            let (qu, qv) = (biased(i, x.u), biased(i, x.v));
            let score = |j: usize| {
                let content = r(dot(&qu, &x.qkv[qkv_at(1, j)..][..d]));
                let position = r(dot(&qv, &x.rel[rel_at(i - j)..][..d]));
                r(r(content + position) * scale)
            };
            let s: Vec<f64> = (0..=i).map(score).collect();
            let max = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = s.iter().map(|s| (s - max).exp()).sum();
            y.lse[(b * heads + h) * seq + i] = rounded(max + sum.ln(), DType::F32);
            let p: Vec<f64> = s.iter().map(|s| r((s - max).exp() / sum)).collect();
            for c in 0..d {
                y.out[out_at(i) + c] = r((0..=i).map(|j| p[j] * x.qkv[qkv_at(2, j) + c]).sum());
            }
            let dout = &x.dout[out_at(i)..][..d];
            let delta = rounded(dot(dout, &x.out[out_at(i)..][..d]), DType::F32);
            let lse = x.lse[(b * heads + h) * seq + i];
            for (j, s) in s.iter().enumerate() {
                let p = r((s - lse).exp());
                let dp = r(dot(dout, &x.qkv[qkv_at(2, j)..][..d]));
                let ds = r(r(p * r(dp - delta)) * scale);
                for c in 0..d {
                    let (k, rel) = (x.qkv[qkv_at(1, j) + c], x.rel[rel_at(i - j) + c]);
                    y.dqkv[qkv_at(0, i) + c] += ds * (k + rel);
                    y.dqkv[qkv_at(1, j) + c] += ds * qu[c];
                    y.dqkv[qkv_at(2, j) + c] += p * dout[c];
                    y.drel[rel_at(i - j) + c] += ds * qv[c];
                    y.du[h * d + c] += ds * k;
                    y.dv[h * d + c] += ds * rel;
                }
            }
        }
    }
    for values in [&mut y.dqkv, &mut y.drel, &mut y.du, &mut y.dv] {
        values.iter_mut().for_each(|x| *x = r(*x));
    }
    y
}
