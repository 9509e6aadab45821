//! What each operation computes, one function of plain loops for each.

use super::numeric::{compare, convert, float, integer, unary, whole};
use super::{InterpError, Tensor};
use super::{attention, head};
use crate::graph::{Axes, Binary, Library, Node, Op, ReduceKind, Shape, TensorType};
use isoflop_kernels::DType;
use std::rc::Rc;

/// The results of one node that is neither an input nor a fused region. The node is well formed.
pub(super) fn apply(node: &Node, operands: &[Rc<Tensor>]) -> Result<Vec<Tensor>, InterpError> {
    let id = node.id;
    let result = |data| Tensor::new(&node.results[0], data);
    let to = &node.results[0];
    let x = |k: usize| -> &Tensor { &operands[k] };
    let data = match &node.op {
        Op::Constant { value } => vec![convert(*value, to.dtype); to.elements()],
        Op::Iota { axis } => iota(to, *axis),
        Op::Unary(u) => x(0).data.iter().map(|&a| unary(*u, a, to.dtype)).collect(),
        Op::Binary(b) if to.dtype == DType::I32 => {
            let pairs = x(0).data.iter().zip(&x(1).data);
            let error = || InterpError::DivisionByZero { node: id };
            pairs
                .map(|(&a, &c)| integer(*b, a as i64, c as i64).ok_or_else(error))
                .collect::<Result<_, _>>()?
        }
        Op::Binary(b) => x(0).data.iter().zip(&x(1).data).map(|(&a, &c)| float(*b, a, c)).collect(),
        Op::Compare(c) => {
            x(0).data.iter().zip(&x(1).data).map(|(a, b)| f64::from(compare(*c, *a, *b))).collect()
        }
        Op::Select => {
            let branches = x(1).data.iter().zip(&x(2).data);
            x(0).data.iter().zip(branches).map(|(&c, (&a, &b))| if c != 0.0 { a } else { b }).collect()
        }
        Op::Cast => x(0).data.iter().map(|&a| convert(a, to.dtype)).collect(),
        Op::Reshape => x(0).data.clone(),
        Op::Broadcast { dims } => {
            let own = strides(&x(0).shape);
            let mut along = vec![0; to.rank()];
            dims.iter().zip(&own).for_each(|(&d, &s)| along[d] = s);
            read(x(0), &to.shape, &along, 0)
        }
        Op::Transpose { perm } => {
            let own = strides(&x(0).shape);
            let along: Vec<usize> = perm.iter().map(|&p| own[p]).collect();
            read(x(0), &to.shape, &along, 0)
        }
        Op::Slice { starts, .. } => {
            let own = strides(&x(0).shape);
            read(x(0), &to.shape, &own, offset(starts, &own))
        }
        Op::Pad { low, value, .. } => {
            let mut out = vec![convert(*value, to.dtype); to.elements()];
            let own = strides(&to.shape);
            write(&mut out, x(0), &own, offset(low, &own));
            out
        }
        Op::Concat { axis } => {
            let mut out = vec![0.0; to.elements()];
            let own = strides(&to.shape);
            let mut start = 0;
            for part in operands {
                write(&mut out, part, &own, start * own[*axis]);
                start += part.shape[*axis];
            }
            out
        }
        Op::Reduce { kind, axes } => reduce(*kind, axes, x(0), to),
        Op::Dot { lhs_batch, rhs_batch, lhs_contract, rhs_contract } => {
            dot(x(0), x(1), [lhs_batch, rhs_batch], [lhs_contract, rhs_contract], to)
        }
        Op::Gather => {
            let width: usize = x(0).shape[1..].iter().product();
            let mut out = Vec::with_capacity(to.elements());
            for &index in &x(1).data {
                let row = row(index, x(0).shape[0], id)?;
                out.extend_from_slice(&x(0).data[row * width..(row + 1) * width]);
            }
            out
        }
        Op::ScatterAdd { vocab } => {
            let width: usize = x(1).shape[x(0).shape.len()..].iter().product();
            let mut out = operands.get(2).map_or_else(|| vec![0.0; to.elements()], |base| base.data.clone());
            for (k, &index) in x(0).data.iter().enumerate() {
                let row = row(index, *vocab, id)?;
                let from = &x(1).data[k * width..(k + 1) * width];
                out[row * width..(row + 1) * width].iter_mut().zip(from).for_each(|(o, u)| *o += u);
            }
            out.iter().map(|&s| whole(s, to.dtype)).collect()
        }
        Op::AllReduce { .. } => x(0).data.clone(),
        Op::AllGather { .. } | Op::ReduceScatter { .. } => {
            let (a, b) = (x(0).shape[0], to.shape[0]);
            if a != b {
                let members = a.max(b) / a.min(b);
                return Err(InterpError::GroupTooLarge { node: id, op: node.op.mnemonic(), members });
            }
            x(0).data.clone()
        }
        Op::Call(Library::RelAttention(c)) => {
            let results = attention::forward(c, [x(0), x(1), x(2), x(3)].map(|t| &t.data[..]));
            return Ok(results.into_iter().zip(&node.results).map(|(d, t)| Tensor::new(t, d)).collect());
        }
        Op::Call(Library::RelAttentionGrad(c)) => {
            let given = std::array::from_fn(|k| &x(k).data[..]);
            let results = attention::backward(c, given);
            return Ok(results.into_iter().zip(&node.results).map(|(d, t)| Tensor::new(t, d)).collect());
        }
        Op::Call(Library::HeadLoss(c) | Library::HeadLossGrad(c)) => {
            let gradients = matches!(node.op, Op::Call(Library::HeadLossGrad(_)));
            let results = head::loss(c, [x(0), x(1), x(2)].map(|t| &t.data[..]), gradients);
            return Ok(results.into_iter().zip(&node.results).map(|(d, t)| Tensor::new(t, d)).collect());
        }
        Op::Input { .. } | Op::Fused { .. } => return Ok(vec![]),
    };
    Ok(vec![result(data)])
}

/// Elements from one index to the next along each axis, row-major.
fn strides(shape: &[usize]) -> Shape {
    let mut out = Shape::from_elem(1, shape.len());
    for k in (0..shape.len().saturating_sub(1)).rev() {
        out[k] = out[k + 1] * shape[k + 1];
    }
    out
}

fn offset(at: &[usize], strides: &[usize]) -> usize {
    at.iter().zip(strides).map(|(a, s)| a * s).sum()
}

/// Calls `f` with `base + sum of index * stride` for every index of `shape`, in row-major order.
fn walk(shape: &[usize], along: &[usize], base: usize, f: &mut impl FnMut(usize)) {
    match (shape, along) {
        ([n, rest @ ..], [s, more @ ..]) => (0..*n).for_each(|i| walk(rest, more, base + i * s, f)),
        _ => f(base),
    }
}

/// The tensor of `shape` whose element at an index is `x[base + index . along]`.
fn read(x: &Tensor, shape: &[usize], along: &[usize], base: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(shape.iter().product());
    walk(shape, along, base, &mut |at| out.push(x.data[at]));
    out
}

/// The element of `x` at an index goes to `out[base + index . along]`.
fn write(out: &mut [f64], x: &Tensor, along: &[usize], base: usize) {
    let mut from = x.data.iter();
    walk(&x.shape, along, base, &mut |at| {
        if let Some(&v) = from.next() {
            out[at] = v;
        }
    });
}

fn iota(to: &TensorType, axis: usize) -> Vec<f64> {
    let mut along = vec![0; to.rank()];
    along[axis] = 1;
    let mut out = Vec::with_capacity(to.elements());
    walk(&to.shape, &along, 0, &mut |index| out.push(convert(index as f64, to.dtype)));
    out
}

fn reduce(kind: ReduceKind, axes: &Axes, x: &Tensor, to: &TensorType) -> Vec<f64> {
    let start = match kind {
        ReduceKind::Sum => 0.0,
        ReduceKind::Max => convert(f64::NEG_INFINITY, to.dtype),
    };
    let mut out = vec![start; to.elements()];
    let mut kept = strides(&to.shape).into_iter();
    let along: Vec<usize> =
        (0..x.shape.len()).map(|k| if axes.contains(&k) { 0 } else { kept.next().unwrap_or(0) }).collect();
    let mut from = x.data.iter();
    walk(&x.shape, &along, 0, &mut |at| {
        let v = from.next().copied().unwrap_or(0.0);
        out[at] = match kind {
            ReduceKind::Sum => out[at] + v,
            ReduceKind::Max => float(Binary::Max, out[at], v),
        };
    });
    out.iter().map(|&s| whole(s, to.dtype)).collect()
}

/// Offsets into a tensor of this shape of every index over `axes`, in row-major order of the axes as listed.
fn offsets(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    let own = strides(shape);
    let extents: Shape = axes.iter().map(|&k| shape[k]).collect();
    let along: Shape = axes.iter().map(|&k| own[k]).collect();
    let mut out = Vec::with_capacity(extents.iter().product());
    walk(&extents, &along, 0, &mut |at| out.push(at));
    out
}

fn dot(l: &Tensor, r: &Tensor, batch: [&Axes; 2], contract: [&Axes; 2], to: &TensorType) -> Vec<f64> {
    let free = |t: &Tensor, side: usize| -> Axes {
        (0..t.shape.len()).filter(|k| !batch[side].contains(k) && !contract[side].contains(k)).collect()
    };
    let (l_free, r_free) = (offsets(&l.shape, &free(l, 0)), offsets(&r.shape, &free(r, 1)));
    let l_terms = offsets(&l.shape, contract[0]);
    let r_terms = offsets(&r.shape, contract[1]);
    let mut out = Vec::with_capacity(to.elements());
    for (lb, rb) in offsets(&l.shape, batch[0]).into_iter().zip(offsets(&r.shape, batch[1])) {
        for i in &l_free {
            for j in &r_free {
                let terms = l_terms.iter().zip(&r_terms);
                out.push(terms.map(|(a, b)| l.data[lb + i + a] * r.data[rb + j + b]).sum());
            }
        }
    }
    out
}

fn row(index: f64, extent: usize, node: u32) -> Result<usize, InterpError> {
    if index >= 0.0 && index < extent as f64 {
        return Ok(index as usize);
    }
    Err(InterpError::IndexOutOfRange { node, index, extent })
}
