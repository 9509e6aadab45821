//! Reverse-mode differentiation as a graph transformation over the primitive operations: gradients are more nodes of
//! the same graph.
//!
//! Ties of `max` and `min` give the whole gradient to the first operand; `reduce_max` gives it to every element that
//! equals the maximum.

use crate::graph::{Axes, Binary, Comparison, Graph, Op, ReduceKind, TensorType, Unary, Value};
use isoflop_kernels::DType;
use petgraph::stable_graph::NodeIndex;
use smallvec::SmallVec;
use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum AutodiffError {
    #[error("no gradient is defined through {op} (node %{id}): differentiate before passes form such nodes")]
    NotDifferentiable { op: &'static str, id: u32 },
    #[error("a gradient starts from a scalar, found {0}")]
    NotScalar(String),
}

/// d loss / d w for every w, zeros where loss does not depend on w.
pub fn gradients(g: &mut Graph, loss: Value, wrt: &[Value]) -> Result<Vec<Value>, AutodiffError> {
    let ty = g.ty(loss).clone();
    if ty.rank() != 0 {
        return Err(AutodiffError::NotScalar(ty.to_string()));
    }
    g.set_scope("loss/grad");
    let seed = g.constant(1.0, ty);
    let found = vjp(g, &[(loss, seed)], wrt)?;
    Ok(found.into_iter().zip(wrt).map(|(d, &w)| d.unwrap_or_else(|| g.constant_like(0.0, w))).collect())
}

/// Vector-Jacobian product: given cotangents of some values, the cotangents of `wrt`; `None` where nothing flows.
pub fn vjp(
    g: &mut Graph,
    seeds: &[(Value, Value)],
    wrt: &[Value],
) -> Result<Vec<Option<Value>>, AutodiffError> {
    let order = g.topological();
    let bound = g.index_bound();
    // Only nodes that depend on something in wrt get a cotangent.
    let mut needs = vec![false; bound];
    for w in wrt {
        needs[w.node.index()] = true;
    }
    for &n in &order {
        if !needs[n.index()] {
            needs[n.index()] = g.operands(n).iter().any(|v| needs[v.node.index()]);
        }
    }
    let mut cotangent: Vec<Option<Value>> = vec![None; bound];
    for &(v, d) in seeds {
        accumulate(g, &mut cotangent, v, d);
    }
    for &n in order.iter().rev() {
        let Some(d) = cotangent[n.index()] else { continue };
        if matches!(g.op(n), Op::Input { .. }) {
            continue;
        }
        if let Some(scope) = g.node(n).scope.clone() {
            g.set_scope(&format!("{scope}/grad"));
        }
        let operands = g.operands(n);
        let wanted: SmallVec<[bool; 4]> = operands.iter().map(|v| needs[v.node.index()]).collect();
        for (position, contribution) in rule(g, n, d, &operands, &wanted)? {
            accumulate(g, &mut cotangent, operands[position], contribution);
        }
    }
    Ok(wrt.iter().map(|w| cotangent[w.node.index()]).collect())
}

fn accumulate(g: &mut Graph, cotangent: &mut [Option<Value>], v: Value, d: Value) {
    let i = v.node.index();
    cotangent[i] = Some(match cotangent[i] {
        Some(sum) => g.add2(sum, d),
        None => d,
    });
}

type Contributions = SmallVec<[(usize, Value); 3]>;

/// Contributions of node `n` with cotangent `d` to those of its operands that are wanted.
fn rule(
    g: &mut Graph,
    n: NodeIndex,
    d: Value,
    operands: &[Value],
    wanted: &[bool],
) -> Result<Contributions, AutodiffError> {
    let mut out: Contributions = SmallVec::new();
    let result: Value = n.into();
    let op = g.op(n).clone();
    let mut give = |position: usize, v: Value| out.push((position, v));
    match op {
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } | Op::Compare(_) => {}
        Op::Unary(u) => {
            if wanted[0]
                && let Some(v) = unary_rule(g, u, d, operands[0], result)
            {
                give(0, v);
            }
        }
        Op::Binary(b) => {
            for (position, _) in wanted.iter().enumerate().filter(|(_, w)| **w) {
                let v = binary_rule(g, b, position, d, [operands[0], operands[1]], result);
                give(position, v);
            }
        }
        Op::Select => {
            let zero = g.constant_like(0.0, d);
            if wanted[1] {
                give(1, g.select(operands[0], d, zero));
            }
            if wanted[2] {
                give(2, g.select(operands[0], zero, d));
            }
        }
        Op::Cast => {
            let from = g.ty(operands[0]).dtype;
            if wanted[0] && from.is_float() && g.ty(d).dtype != DType::Bool {
                give(0, g.cast(d, from));
            }
        }
        Op::Broadcast { dims } => {
            let repeated: Axes = (0..g.ty(d).rank()).filter(|k| !dims.contains(k)).collect();
            let v = if repeated.is_empty() { d } else { g.reduce_sum(d, &repeated) };
            give(0, v);
        }
        Op::Reshape => {
            let shape = g.ty(operands[0]).shape.clone();
            give(0, g.reshape(d, &shape));
        }
        Op::Transpose { perm } => {
            let mut inverse: Axes = perm.clone();
            for (k, &p) in perm.iter().enumerate() {
                inverse[p] = k;
            }
            give(0, g.transpose(d, &inverse));
        }
        Op::Slice { starts, limits } => {
            let shape = g.ty(operands[0]).shape.clone();
            let high: Axes = shape.iter().zip(&limits).map(|(n, l)| n - l).collect();
            give(0, g.pad(d, &starts, &high, 0.0));
        }
        Op::Pad { low, .. } => {
            let shape = g.ty(operands[0]).shape.clone();
            let limits: Axes = low.iter().zip(&shape).map(|(l, n)| l + n).collect();
            give(0, g.slice(d, &low, &limits));
        }
        Op::Concat { axis } => {
            let mut start = 0;
            for (position, &part) in operands.iter().enumerate() {
                let limit = start + g.ty(part).shape[axis];
                if wanted[position] {
                    give(position, g.slice_axis(d, axis, start, limit));
                }
                start = limit;
            }
        }
        Op::Reduce { kind, axes } => {
            let shape = g.ty(operands[0]).shape.clone();
            let kept: Axes = (0..shape.len()).filter(|k| !axes.contains(k)).collect();
            let spread = g.broadcast(d, &kept, &shape);
            give(
                0,
                match kind {
                    ReduceKind::Sum => spread,
                    ReduceKind::Max => {
                        let largest = g.broadcast(result, &kept, &shape);
                        let hit = g.compare(Comparison::Eq, operands[0], largest);
                        let zero = g.constant_like(0.0, spread);
                        g.select(hit, spread, zero)
                    }
                },
            );
        }
        Op::Dot { lhs_batch, rhs_batch, lhs_contract, rhs_contract } => {
            if wanted[0] {
                let other = (operands[1], &rhs_batch, &rhs_contract);
                give(0, dot_rule(g, d, (operands[0], &lhs_batch, &lhs_contract), other, true));
            }
            if wanted[1] {
                let other = (operands[0], &lhs_batch, &lhs_contract);
                give(1, dot_rule(g, d, (operands[1], &rhs_batch, &rhs_contract), other, false));
            }
        }
        Op::Gather => {
            if wanted[0] {
                let vocab = g.ty(operands[0]).shape[0];
                give(0, g.scatter_add(operands[1], d, vocab));
            }
        }
        Op::ScatterAdd { .. } => {
            if wanted[1] {
                give(1, g.gather(d, operands[0]));
            }
            if operands.len() > 2 {
                give(2, d);
            }
        }
        // Summing a replicated result's cotangents over the group (Megatron's f and g, Shoeybi et al. 2019).
        Op::AllReduce { ref group } => give(0, g.apply(Op::AllReduce { group: group.clone() }, &[d])),
        Op::AllGather { ref group } => {
            let ty = g.ty(operands[0]).clone();
            give(0, g.apply_typed(Op::ReduceScatter { group: group.clone() }, &[d], ty));
        }
        Op::ReduceScatter { ref group } => {
            let ty = g.ty(operands[0]).clone();
            give(0, g.apply_typed(Op::AllGather { group: group.clone() }, &[d], ty));
        }
        Op::Fused { .. } | Op::Call(_) => {
            return Err(AutodiffError::NotDifferentiable { op: op.mnemonic(), id: g.node(n).id });
        }
    }
    out.retain(|(position, _)| wanted[*position]);
    Ok(out)
}

fn unary_rule(g: &mut Graph, u: Unary, d: Value, x: Value, y: Value) -> Option<Value> {
    Some(match u {
        Unary::Neg => g.unary(Unary::Neg, d),
        Unary::Abs => {
            let zero = g.constant_like(0.0, x);
            let below = g.compare(Comparison::Lt, x, zero);
            let minus = g.unary(Unary::Neg, d);
            g.select(below, minus, d)
        }
        Unary::Exp => g.mul(d, y),
        Unary::Log => g.div(d, x),
        Unary::Tanh => {
            let squares = g.mul(y, y);
            let one = g.constant_like(1.0, y);
            let slope = g.sub(one, squares);
            g.mul(d, slope)
        }
        Unary::Sqrt => {
            let half = g.scale(d, 0.5);
            g.div(half, y)
        }
        Unary::Rsqrt => {
            let y2 = g.mul(y, y);
            let y3 = g.mul(y2, y);
            let slope = g.scale(y3, -0.5);
            g.mul(d, slope)
        }
        Unary::Sin => {
            let c = g.unary(Unary::Cos, x);
            g.mul(d, c)
        }
        Unary::Cos => {
            let s = g.unary(Unary::Sin, x);
            let s = g.unary(Unary::Neg, s);
            g.mul(d, s)
        }
        Unary::StopGradient => return None,
    })
}

fn binary_rule(g: &mut Graph, b: Binary, position: usize, d: Value, [x, y]: [Value; 2], r: Value) -> Value {
    let other = [y, x][position];
    match (b, position) {
        (Binary::Add, _) | (Binary::Sub, 0) => d,
        (Binary::Sub, _) => g.unary(Unary::Neg, d),
        (Binary::Mul, _) => g.mul(d, other),
        (Binary::Div, 0) => g.div(d, y),
        (Binary::Div, _) => {
            let scaled = g.mul(d, r);
            let quotient = g.div(scaled, y);
            g.unary(Unary::Neg, quotient)
        }
        (Binary::Max | Binary::Min, _) => {
            let order = if b == Binary::Max { Comparison::Ge } else { Comparison::Le };
            let first = g.compare(order, x, y);
            let zero = g.constant_like(0.0, d);
            if position == 0 { g.select(first, d, zero) } else { g.select(first, zero, d) }
        }
        (Binary::Pow, 0) => {
            let one = g.constant_like(1.0, y);
            let less = g.sub(y, one);
            let power = g.binary(Binary::Pow, x, less);
            let slope = g.mul(y, power);
            g.mul(d, slope)
        }
        (Binary::Pow, _) => {
            let log = g.unary(Unary::Log, x);
            let slope = g.mul(log, r);
            g.mul(d, slope)
        }
    }
}

/// Cotangent of `this` operand of a dot, with `other` the second operand: a dot over the other's free axes, then a
/// transpose where the axes do not come out in this operand's order.
fn dot_rule(
    g: &mut Graph,
    d: Value,
    (this, batch, contract): (Value, &Axes, &Axes),
    (other, other_batch, other_contract): (Value, &Axes, &Axes),
    is_lhs: bool,
) -> Value {
    let free = |t: &TensorType, b: &Axes, c: &Axes| -> Axes {
        (0..t.rank()).filter(|k| !b.contains(k) && !c.contains(k)).collect()
    };
    let this_free = free(g.ty(this), batch, contract);
    let other_free = free(g.ty(other), other_batch, other_contract);
    let nb = batch.len();
    // Where this operand's and the other's free axes stand in the cotangent.
    let (this_at, other_at) = if is_lhs { (nb, nb + this_free.len()) } else { (nb + other_free.len(), nb) };
    let d_batch: Axes = (0..nb).collect();
    let d_contract: Axes = (other_at..other_at + other_free.len()).collect();
    let made = g.dot(d, other, [&d_batch, other_batch], [&d_contract, &other_free]);
    debug_assert!(this_at == nb || other_at == nb);
    // `made` has axes: batch, this_free, then the other's contracting axes in ascending order.
    let mut sorted: Axes = other_contract.clone();
    sorted.sort_unstable();
    let mut perm: Axes = (0..g.ty(this).rank()).collect();
    for (k, &axis) in batch.iter().enumerate() {
        perm[axis] = k;
    }
    for (k, &axis) in this_free.iter().enumerate() {
        perm[axis] = nb + k;
    }
    for (k, &axis) in contract.iter().enumerate() {
        let place = sorted.iter().position(|&a| a == other_contract[k]).unwrap_or(k);
        perm[axis] = nb + this_free.len() + place;
    }
    if perm.iter().enumerate().all(|(i, &p)| i == p) { made } else { g.transpose(made, &perm) }
}
