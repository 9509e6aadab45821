//! Dots as calls of the matrix product library: which strides describe a dot, and the transposes that a dot needs
//! when none do. And the operands that an elementwise operation needs written out.

use crate::fuse::body::Body;
use crate::graph::{Axes, Graph, Op, TensorType, Value};
use isoflop_kernels::cpu::gemm::Gemm;
use petgraph::stable_graph::NodeIndex;

/// Row-major strides in elements.
fn strides(t: &TensorType) -> Axes {
    let mut s: Axes = t.shape.iter().map(|_| 1).collect();
    for k in (0..t.rank().saturating_sub(1)).rev() {
        s[k] = s[k + 1] * t.shape[k + 1];
    }
    s
}

/// These axes of `t` walked as one: (extent, stride), or `None` where no single stride does it.
fn collapse(t: &TensorType, axes: &[usize]) -> Option<(usize, usize)> {
    let s = strides(t);
    let mut merged: Option<(usize, usize)> = None;
    for &k in axes.iter().filter(|&&k| t.shape[k] != 1) {
        merged = Some(match merged {
            None => (t.shape[k], s[k]),
            Some((extent, stride)) if stride == s[k] * t.shape[k] => (extent * t.shape[k], s[k]),
            _ => return None,
        });
    }
    Some(merged.unwrap_or((1, 0)))
}

fn free_axes(t: &TensorType, batch: &Axes, contract: &Axes) -> Axes {
    (0..t.rank()).filter(|k| !batch.contains(k) && !contract.contains(k)).collect()
}

/// The library call for this dot, if strides alone describe it.
pub fn gemm_of(g: &Graph, n: NodeIndex) -> Option<Gemm> {
    let Op::Dot { lhs_batch, rhs_batch, lhs_contract, rhs_contract } = g.op(n) else { return None };
    let operands = g.operands(n);
    let (l, r) = (g.ty(operands[0]), g.ty(operands[1]));
    let (batch, l_batch) = collapse(l, lhs_batch)?;
    let (_, r_batch) = collapse(r, rhs_batch)?;
    let (m, l_row) = collapse(l, &free_axes(l, lhs_batch, lhs_contract))?;
    let (k, l_col) = collapse(l, lhs_contract)?;
    let (_, r_row) = collapse(r, rhs_contract)?;
    let (n_cols, r_col) = collapse(r, &free_axes(r, rhs_batch, rhs_contract))?;
    Some(Gemm {
        batch,
        m,
        n: n_cols,
        k,
        a: [l_batch, l_row, l_col],
        b: [r_batch, r_row, r_col],
        c: [m * n_cols, n_cols, 1],
        accumulate: false,
    })
}

/// What has no code as it stands gets operands that give it code.
pub fn legalize(g: &mut Graph) {
    transpose_operands(g);
    write_out_broadcasts(g);
}

/// An elementwise operation whose broadcasts tell different rows from columns reads tensors of its own shape instead.
/// A broadcast of a broadcast is written to memory, so a second one that repeats nothing does it.
fn write_out_broadcasts(g: &mut Graph) {
    for n in g.topological() {
        // In a matrix only one split tells rows from columns.
        if g.ty(n.into()).rank() < 3 || !g.op(n).is_elementwise() || Body::of(g, &[n]).is_ok() {
            continue;
        }
        for (position, v) in g.operands(n).into_iter().enumerate() {
            if matches!(g.op(v.node), Op::Broadcast { .. }) {
                let shape = g.ty(v).shape.clone();
                let all: Axes = (0..shape.len()).collect();
                let written = g.broadcast(v, &all, &shape);
                g.set_operand(n, position as u16, written);
            }
        }
    }
}

/// Puts transposes before every dot that no strides describe: to [batch, free, contracting].
fn transpose_operands(g: &mut Graph) {
    for n in g.topological() {
        if !matches!(g.op(n), Op::Dot { .. }) || gemm_of(g, n).is_some() {
            continue;
        }
        let Op::Dot { lhs_batch, rhs_batch, lhs_contract, rhs_contract } = g.op(n).clone() else { continue };
        let operands = g.operands(n);
        if let Some(scope) = g.node(n).scope.clone() {
            g.set_scope(&scope);
        }
        let sides = [(operands[0], &lhs_batch, &lhs_contract), (operands[1], &rhs_batch, &rhs_contract)];
        let moved = sides.map(|(v, batch, contract)| {
            let free = free_axes(g.ty(v), batch, contract);
            let perm: Axes = batch.iter().chain(&free).chain(contract).copied().collect();
            let already = perm.iter().enumerate().all(|(i, &p)| i == p);
            (if already { v } else { g.transpose(v, &perm) }, batch.len(), free.len(), contract.len())
        });
        let axes = |from: usize, n: usize| (from..from + n).collect::<Axes>();
        let [(l, nb, lf, nc), (r, _, rf, _)] = moved;
        let made: Value = g.apply(
            Op::Dot {
                lhs_batch: axes(0, nb),
                rhs_batch: axes(0, nb),
                lhs_contract: axes(nb + lf, nc),
                rhs_contract: axes(nb + rf, nc),
            },
            &[l, r],
        );
        g.replace(n.into(), made);
        g.remove(n);
    }
}
