//! What the kernel means: the formulas of the module, written as double loops in f64.

use super::RelAttention;

/// Results of [`forward`].
pub struct Forward {
    pub out: Vec<f64>,
    pub lse: Vec<f64>,
}

/// Results of [`backward`].
pub struct Backward {
    pub dqkv: Vec<f64>,
    pub drel: Vec<f64>,
    pub du: Vec<f64>,
    pub dv: Vec<f64>,
}

/// Inputs, in the layouts of the module's table.
#[derive(Clone)]
pub struct Inputs {
    pub qkv: Vec<f64>,
    pub rel: Vec<f64>,
    pub u: Vec<f64>,
    pub v: Vec<f64>,
}

/// Positions in the flat arrays.
struct Index(RelAttention);

impl Index {
    /// `part`: 0 for q, 1 for k, 2 for val.
    fn qkv(&self, part: usize, b: usize, i: usize, h: usize, c: usize) -> usize {
        let Self(d) = self;
        (b * d.seq + i) * 3 * d.heads * d.d_head + (part * d.heads + h) * d.d_head + c
    }

    fn rel(&self, distance: usize, h: usize, c: usize) -> usize {
        let Self(d) = self;
        (d.seq - 1 - distance) * d.heads * d.d_head + h * d.d_head + c
    }

    fn out(&self, b: usize, i: usize, h: usize, c: usize) -> usize {
        let Self(d) = self;
        (b * d.seq + i) * d.heads * d.d_head + h * d.d_head + c
    }
}

/// s_ij for j <= i.
fn scores(dims: &RelAttention, x: &Inputs, b: usize, h: usize, i: usize) -> Vec<f64> {
    let at = Index(*dims);
    let scale = 1.0 / (dims.d_head as f64).sqrt();
    let score = |j: usize| {
        let term = |c: usize| {
            let q = x.qkv[at.qkv(0, b, i, h, c)];
            let (u, v) = (x.u[h * dims.d_head + c], x.v[h * dims.d_head + c]);
            (q + u) * x.qkv[at.qkv(1, b, j, h, c)] + (q + v) * x.rel[at.rel(i - j, h, c)]
        };
        (0..dims.d_head).map(term).sum::<f64>() * scale
    };
    (0..=i).map(score).collect()
}

/// ln sum exp.
fn log_sum_exp(s: &[f64]) -> f64 {
    let max = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + s.iter().map(|s| (s - max).exp()).sum::<f64>().ln()
}

/// `out` and `lse`.
pub fn forward(dims: &RelAttention, x: &Inputs) -> Forward {
    let at = Index(*dims);
    let RelAttention { batch, seq, heads, d_head } = *dims;
    let mut y = Forward { out: vec![0.0; batch * seq * heads * d_head], lse: vec![0.0; batch * heads * seq] };
    for (b, h, i) in triples(batch, heads, seq) {
        let s = scores(dims, x, b, h, i);
        let lse = log_sum_exp(&s);
        y.lse[(b * heads + h) * seq + i] = lse;
        for (j, s) in s.iter().enumerate() {
            for c in 0..d_head {
                y.out[at.out(b, i, h, c)] += (s - lse).exp() * x.qkv[at.qkv(2, b, j, h, c)];
            }
        }
    }
    y
}

/// Gradients of sum(out * dout) with respect to every input.
///
/// With p the softmax, dp_ij = dout_i.val_j and delta_i = dout_i.out_i: ds_ij = p_ij (dp_ij - delta_i) * scale,
/// then dq_i = sum_j ds_ij (k_j + R_{i-j}), dk_j = sum_i ds_ij (q_i + u), dval_j = sum_i p_ij dout_i,
/// dR_t = sum over i - j = t of ds_ij (q_i + v), du = sum ds_ij k_j, dv = sum ds_ij R_{i-j}.
pub fn backward(dims: &RelAttention, x: &Inputs, dout: &[f64]) -> Backward {
    let at = Index(*dims);
    let RelAttention { batch, seq, heads, d_head } = *dims;
    let scale = 1.0 / (d_head as f64).sqrt();
    let mut y = Backward {
        dqkv: vec![0.0; x.qkv.len()],
        drel: vec![0.0; x.rel.len()],
        du: vec![0.0; x.u.len()],
        dv: vec![0.0; x.v.len()],
    };
    for (b, h, i) in triples(batch, heads, seq) {
        let s = scores(dims, x, b, h, i);
        let lse = log_sum_exp(&s);
        let p: Vec<f64> = s.iter().map(|s| (s - lse).exp()).collect();
        let dot =
            |j: usize| (0..d_head).map(|c| dout[at.out(b, i, h, c)] * x.qkv[at.qkv(2, b, j, h, c)]).sum();
        let dp: Vec<f64> = (0..=i).map(dot).collect();
        let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
        for j in 0..=i {
            let ds = p[j] * (dp[j] - delta) * scale;
            for c in 0..d_head {
                let q = x.qkv[at.qkv(0, b, i, h, c)];
                let k = x.qkv[at.qkv(1, b, j, h, c)];
                let r = x.rel[at.rel(i - j, h, c)];
                let hc = h * d_head + c;
                y.dqkv[at.qkv(0, b, i, h, c)] += ds * (k + r);
                y.dqkv[at.qkv(1, b, j, h, c)] += ds * (q + x.u[hc]);
                y.dqkv[at.qkv(2, b, j, h, c)] += p[j] * dout[at.out(b, i, h, c)];
                y.drel[at.rel(i - j, h, c)] += ds * (q + x.v[hc]);
                y.du[hc] += ds * k;
                y.dv[hc] += ds * r;
            }
        }
    }
    y
}

fn triples(batch: usize, heads: usize, seq: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..batch).flat_map(move |b| (0..heads).flat_map(move |h| (0..seq).map(move |i| (b, h, i))))
}
