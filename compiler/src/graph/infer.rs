//! Result types of operations, and what is wrong with operands that have none. The builder, the parser and the
//! verifier all ask here, so there is one rule for each operation.

use super::op::{Axes, HeadCall, Library, Op, RelAttentionCall, Unary};
use super::types::{Shape, TensorType};
use isoflop_kernels::DType;
use smallvec::{SmallVec, smallvec};

pub type Types = SmallVec<[TensorType; 1]>;

/// The result types of `op` on operands of these types. `declared` is what the text or the builder says the result
/// is; operations that need it (inputs, constants, iota, broadcast, reshape, cast) take it from there.
pub fn infer(op: &Op, operands: &[&TensorType], declared: &[TensorType]) -> Result<Types, String> {
    let arity = match op {
        Op::Input { .. } | Op::Constant { .. } | Op::Iota { .. } => Some(0),
        Op::Binary(_) | Op::Compare(_) | Op::Dot { .. } | Op::Gather => Some(2),
        // A base may be the third.
        Op::ScatterAdd { .. } => Some(if operands.len() == 3 { 3 } else { 2 }),
        Op::Select => Some(3),
        Op::Concat { .. } | Op::Fused { .. } => None,
        Op::Call(Library::RelAttention(_)) => Some(4),
        Op::Call(Library::RelAttentionGrad(_)) => Some(7),
        Op::Call(Library::HeadLoss(_) | Library::HeadLossGrad(_)) => Some(3),
        _ => Some(1),
    };
    if let Some(n) = arity
        && operands.len() != n
    {
        return Err(format!("{} takes {n} operands, found {}", op.mnemonic(), operands.len()));
    }
    match op {
        Op::Input { .. } => Ok(smallvec![one(op, declared)?.clone()]),
        Op::Constant { .. } => Ok(smallvec![one(op, declared)?.clone()]),
        Op::Iota { axis } => {
            let t = one(op, declared)?;
            axis_in(op, *axis, t)?;
            Ok(smallvec![t.clone()])
        }
        Op::Unary(u) => {
            let t = operands[0];
            let arithmetic = matches!(u, Unary::Neg | Unary::Abs | Unary::StopGradient);
            if !(t.dtype.is_float() || arithmetic && t.dtype == DType::I32) {
                return Err(format!("{} does not take {}", op.mnemonic(), t.dtype));
            }
            Ok(smallvec![t.clone()])
        }
        Op::Binary(_) => {
            equal(op, operands[0], operands[1])?;
            if operands[0].dtype == DType::Bool {
                return Err(format!("{} does not take bool", op.mnemonic()));
            }
            Ok(smallvec![operands[0].clone()])
        }
        Op::Compare(_) => {
            equal(op, operands[0], operands[1])?;
            Ok(smallvec![TensorType { dtype: DType::Bool, shape: operands[0].shape.clone() }])
        }
        Op::Select => {
            equal(op, operands[1], operands[2])?;
            if operands[0].dtype != DType::Bool || operands[0].shape != operands[1].shape {
                return Err(format!("select's condition is {}, its branches {}", operands[0], operands[1]));
            }
            Ok(smallvec![operands[1].clone()])
        }
        Op::Cast => {
            let t = one(op, declared)?;
            if t.shape != operands[0].shape {
                return Err(format!("cast keeps the shape: {} to {t}", operands[0]));
            }
            Ok(smallvec![t.clone()])
        }
        Op::Broadcast { dims } => broadcast(op, dims, operands[0], one(op, declared)?),
        Op::Reshape => {
            let t = one(op, declared)?;
            if t.dtype != operands[0].dtype || t.elements() != operands[0].elements() {
                return Err(format!("reshape keeps type and element count: {} to {t}", operands[0]));
            }
            Ok(smallvec![t.clone()])
        }
        Op::Transpose { perm } => {
            let t = operands[0];
            let mut seen: Axes = perm.clone();
            seen.sort_unstable();
            if seen.len() != t.rank() || seen.iter().enumerate().any(|(i, &p)| i != p) {
                return Err(format!("perm {perm:?} is not a permutation of the {} axes of {t}", t.rank()));
            }
            let shape: Shape = perm.iter().map(|&p| t.shape[p]).collect();
            Ok(smallvec![TensorType { dtype: t.dtype, shape }])
        }
        Op::Slice { starts, limits } => {
            let t = operands[0];
            if starts.len() != t.rank() || limits.len() != t.rank() {
                return Err(format!("slice of {t} needs {} starts and limits", t.rank()));
            }
            let mut shape = Shape::new();
            for k in 0..t.rank() {
                if starts[k] > limits[k] || limits[k] > t.shape[k] {
                    return Err(format!("slice {}..{} of axis {k} of {t}", starts[k], limits[k]));
                }
                shape.push(limits[k] - starts[k]);
            }
            Ok(smallvec![TensorType { dtype: t.dtype, shape }])
        }
        Op::Pad { low, high, .. } => {
            let t = operands[0];
            if low.len() != t.rank() || high.len() != t.rank() {
                return Err(format!("pad of {t} needs {} lows and highs", t.rank()));
            }
            let shape: Shape = (0..t.rank()).map(|k| low[k] + t.shape[k] + high[k]).collect();
            Ok(smallvec![TensorType { dtype: t.dtype, shape }])
        }
        Op::Concat { axis } => concat(op, *axis, operands),
        Op::Reduce { axes, .. } => {
            let t = operands[0];
            if !axes.windows(2).all(|w| w[0] < w[1]) || axes.last().is_some_and(|&a| a >= t.rank()) {
                return Err(format!("axes {axes:?} must be ascending axes of {t}"));
            }
            if !t.dtype.is_float() && t.dtype != DType::I32 {
                return Err(format!("{} does not take {}", op.mnemonic(), t.dtype));
            }
            let shape: Shape = (0..t.rank()).filter(|k| !axes.contains(k)).map(|k| t.shape[k]).collect();
            Ok(smallvec![TensorType { dtype: t.dtype, shape }])
        }
        Op::Dot { lhs_batch, rhs_batch, lhs_contract, rhs_contract } => {
            dot(operands[0], operands[1], [lhs_batch, rhs_batch], [lhs_contract, rhs_contract])
        }
        Op::Gather => {
            let (table, indices) = (operands[0], operands[1]);
            if indices.dtype != DType::I32 || table.rank() == 0 {
                return Err(format!("gather takes a table and i32 indices, found {table} and {indices}"));
            }
            let shape = indices.shape.iter().chain(&table.shape[1..]).copied().collect();
            Ok(smallvec![TensorType { dtype: table.dtype, shape }])
        }
        Op::ScatterAdd { vocab } => {
            let (indices, updates) = (operands[0], operands[1]);
            let k = indices.rank();
            if indices.dtype != DType::I32 || updates.rank() < k || updates.shape[..k] != indices.shape[..] {
                return Err(format!(
                    "scatter_add takes i32 indices and updates of the indices' shape and more, found {indices} and {updates}"
                ));
            }
            let shape = std::iter::once(*vocab).chain(updates.shape[k..].iter().copied()).collect();
            let result = TensorType { dtype: updates.dtype, shape };
            match operands.get(2) {
                Some(base) if **base != result => {
                    Err(format!("scatter_add gives {result}; its base cannot be {base}"))
                }
                _ => Ok(smallvec![result]),
            }
        }
        Op::AllReduce { .. } => Ok(smallvec![operands[0].clone()]),
        Op::AllGather { .. } | Op::ReduceScatter { .. } => {
            let (t, r) = (operands[0], one(op, declared)?);
            let gathers = matches!(op, Op::AllGather { .. });
            let (small, large) = if gathers { (t, r) } else { (r, t) };
            let fits = small.dtype == large.dtype
                && small.rank() == large.rank()
                && small.rank() > 0
                && small.shape[1..] == large.shape[1..]
                && small.shape[0] > 0
                && large.shape[0] % small.shape[0] == 0;
            if !fits {
                return Err(format!("{} cannot turn {t} into {r}: axis 0 must be a multiple", op.mnemonic()));
            }
            Ok(smallvec![r.clone()])
        }
        Op::Fused { region } => {
            if region.inputs.len() != operands.len() {
                return Err(format!(
                    "the region has {} inputs, the node {} operands",
                    region.inputs.len(),
                    operands.len()
                ));
            }
            for (k, (&i, t)) in region.inputs.iter().zip(operands).enumerate() {
                if region.ty(i.into()) != *t {
                    return Err(format!("operand {k} is {t}, the region's input {}", region.ty(i.into())));
                }
            }
            Ok(region.outputs.iter().map(|o| region.ty(o.value).clone()).collect())
        }
        Op::Call(Library::RelAttention(c)) => {
            let want = attention_types(c);
            same(op, operands, &want[..4])?;
            Ok(smallvec![want[4].clone(), want[5].clone()])
        }
        Op::Call(Library::RelAttentionGrad(c)) => {
            let want = attention_types(c);
            same(op, &operands[..6], &want)?;
            same(op, &operands[6..], &want[4..5])?;
            Ok(want[..4].iter().cloned().collect())
        }
        Op::Call(Library::HeadLoss(c) | Library::HeadLossGrad(c)) => {
            let HeadCall { rows, width, vocab, chunk } = *c;
            if [rows, width, vocab, chunk].contains(&0) {
                return Err(format!("{}: rows, width, vocab and chunk must be at least 1", op.mnemonic()));
            }
            let (h, table) = (TensorType::f32(&[rows, width]), TensorType::f32(&[vocab, width]));
            same(op, operands, &[h.clone(), table.clone(), TensorType::i32(&[rows])])?;
            let loss = TensorType::f32(&[]);
            Ok(match op {
                Op::Call(Library::HeadLoss(_)) => smallvec![loss],
                _ => [loss, h, table].into_iter().collect(),
            })
        }
    }
}

/// Types of qkv, rel, u, v, out and lse.
fn attention_types(c: &RelAttentionCall) -> [TensorType; 6] {
    let (tokens, d) = (c.batch * c.seq, c.heads * c.d_head);
    [
        TensorType::f32(&[tokens, 3 * d]),
        TensorType::f32(&[c.seq, d]),
        TensorType::f32(&[c.heads, c.d_head]),
        TensorType::f32(&[c.heads, c.d_head]),
        TensorType::f32(&[tokens, d]),
        TensorType::f32(&[c.batch * c.heads, c.seq]),
    ]
}

fn same(op: &Op, found: &[&TensorType], want: &[TensorType]) -> Result<(), String> {
    match found.iter().zip(want).position(|(f, w)| *f != w) {
        Some(k) => Err(format!("operand {k} of {} is {}, must be {}", op.mnemonic(), found[k], want[k])),
        None => Ok(()),
    }
}

fn one<'a>(op: &Op, declared: &'a [TensorType]) -> Result<&'a TensorType, String> {
    match declared {
        [t] => Ok(t),
        _ => Err(format!("{} needs one declared result type, found {}", op.mnemonic(), declared.len())),
    }
}

fn axis_in(op: &Op, axis: usize, t: &TensorType) -> Result<(), String> {
    if axis >= t.rank() {
        return Err(format!("{}: axis {axis} of {t}, which has {} axes", op.mnemonic(), t.rank()));
    }
    Ok(())
}

fn equal(op: &Op, a: &TensorType, b: &TensorType) -> Result<(), String> {
    if a != b {
        return Err(format!("{} takes operands of one type, found {a} and {b}", op.mnemonic()));
    }
    Ok(())
}

fn broadcast(op: &Op, dims: &Axes, t: &TensorType, r: &TensorType) -> Result<Types, String> {
    let ascending = dims.windows(2).all(|w| w[0] < w[1]);
    if t.dtype != r.dtype || dims.len() != t.rank() || !ascending {
        return Err(format!("broadcast of {t} to {r}: dims {dims:?} must be {} ascending axes", t.rank()));
    }
    for (k, &d) in dims.iter().enumerate() {
        axis_in(op, d, r)?;
        if t.shape[k] != r.shape[d] {
            return Err(format!("broadcast: axis {k} of {t} has another extent than axis {d} of {r}"));
        }
    }
    Ok(smallvec![r.clone()])
}

fn concat(op: &Op, axis: usize, operands: &[&TensorType]) -> Result<Types, String> {
    let Some(first) = operands.first() else { return Err("concat takes at least one operand".into()) };
    axis_in(op, axis, first)?;
    let mut shape = first.shape.clone();
    shape[axis] = 0;
    for t in operands {
        let fits = t.dtype == first.dtype
            && t.rank() == first.rank()
            && (0..t.rank()).all(|k| k == axis || t.shape[k] == first.shape[k]);
        if !fits {
            return Err(format!("concat along axis {axis}: {t} does not continue {first}"));
        }
        shape[axis] += t.shape[axis];
    }
    Ok(smallvec![TensorType { dtype: first.dtype, shape }])
}

fn dot(l: &TensorType, r: &TensorType, batch: [&Axes; 2], contract: [&Axes; 2]) -> Result<Types, String> {
    let named = |a: &Axes, t: &TensorType, what: &str| match a.iter().find(|&&k| k >= t.rank()) {
        Some(k) => Err(format!("dot: {what} axis {k} of {t}")),
        None => Ok(()),
    };
    for (k, t) in [l, r].into_iter().enumerate() {
        named(batch[k], t, "batch")?;
        named(contract[k], t, "contracting")?;
        let mut all: Axes = batch[k].iter().chain(contract[k]).copied().collect();
        all.sort_unstable();
        if all.windows(2).any(|w| w[0] == w[1]) {
            return Err(format!("dot: an axis of {t} is named twice"));
        }
    }
    let extents = |axes: &Axes, t: &TensorType| axes.iter().map(|&k| t.shape[k]).collect::<Shape>();
    if l.dtype != r.dtype || !l.dtype.is_float() {
        return Err(format!("dot takes operands of one floating type, found {l} and {r}"));
    }
    if extents(batch[0], l) != extents(batch[1], r) || extents(contract[0], l) != extents(contract[1], r) {
        return Err(format!(
            "dot of {l} and {r}: batch axes {:?} and {:?}, contracting axes {:?} and {:?} must have equal extents",
            batch[0], batch[1], contract[0], contract[1]
        ));
    }
    let free = |t: &TensorType, b: &Axes, c: &Axes| {
        (0..t.rank()).filter(|k| !b.contains(k) && !c.contains(k)).map(|k| t.shape[k]).collect::<Shape>()
    };
    let mut shape = extents(batch[0], l);
    shape.extend(free(l, batch[0], contract[0]));
    shape.extend(free(r, batch[1], contract[1]));
    Ok(smallvec![TensorType { dtype: l.dtype, shape }])
}
