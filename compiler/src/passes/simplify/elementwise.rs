//! Rules for elementwise operations.

use super::{Rewrite, Rewriter};
use crate::graph::{Axes, Binary, Op, TensorType, Unary, Value};
use crate::interp::numeric;
use isoflop_kernels::DType;
use petgraph::stable_graph::NodeIndex;
use smallvec::SmallVec;

impl Rewriter<'_> {
    pub(super) fn elementwise(&mut self, n: NodeIndex, x: &[Value]) -> Option<Rewrite> {
        let ty = self.ty(n.into()).clone();
        if let Some(value) = self.value_of(n, x, &ty) {
            return Rewrite::constant(value);
        }
        let rewrite = match *self.g.op(n) {
            Op::Unary(u) => self.unary(u, x[0]),
            Op::Binary(b) => self.binary(b, x, &ty),
            Op::Select => self.select(x),
            Op::Cast => self.cast(x[0], &ty),
            _ => None,
        };
        rewrite.or_else(|| self.below_broadcasts(n, x, &ty))
    }

    /// The number the node is full of, if all its operands are constants.
    fn value_of(&self, n: NodeIndex, x: &[Value], ty: &TensorType) -> Option<f64> {
        let c: SmallVec<[f64; 3]> = x.iter().map(|&v| self.constant(v)).collect::<Option<_>>()?;
        let c: SmallVec<[f64; 3]> =
            c.iter().zip(x).map(|(&c, &v)| numeric::convert(c, self.ty(v).dtype)).collect();
        let value = match *self.g.op(n) {
            Op::Unary(u) => numeric::unary(u, c[0], ty.dtype),
            Op::Binary(b) if ty.dtype == DType::I32 => numeric::integer(b, c[0] as i64, c[1] as i64)?,
            Op::Binary(b) => numeric::float(b, c[0], c[1]),
            Op::Compare(r) => f64::from(numeric::compare(r, c[0], c[1])),
            Op::Cast => numeric::convert(c[0], ty.dtype),
            _ => return None,
        };
        let exact =
            x.iter().zip(&c).all(|(&v, &c)| is_exact(c, self.ty(v).dtype)) && is_exact(value, ty.dtype);
        (exact || self.inexact).then_some(value)
    }

    fn unary(&self, u: Unary, x: Value) -> Option<Rewrite> {
        match (u, self.op(x)) {
            (Unary::StopGradient, _) => Rewrite::value(x),
            (Unary::Neg, Op::Unary(Unary::Neg)) => Rewrite::value(self.operand(x)),
            (Unary::Abs, Op::Unary(Unary::Abs)) => Rewrite::value(x),
            (Unary::Abs, Op::Unary(Unary::Neg)) => Rewrite::op(Op::Unary(u), &[self.operand(x)]),
            _ => None,
        }
    }

    fn negated(&self, v: Value) -> Option<Value> {
        matches!(self.op(v), Op::Unary(Unary::Neg)).then(|| self.operand(v))
    }

    fn binary(&mut self, b: Binary, x: &[Value], ty: &TensorType) -> Option<Rewrite> {
        let (l, r) = (x[0], x[1]);
        let op = Op::Binary;
        // Constants stand on the right, where the rules below look for them.
        if b.commutes() && self.constant(l).is_some() && self.constant(r).is_none() {
            return Rewrite::op(op(b), &[r, l]);
        }
        if let Some(c) = self.constant(r)
            && let Some(rewrite) = self.with_constant(b, l, r, c, ty)
        {
            return Some(rewrite);
        }
        match b {
            Binary::Max | Binary::Min if l == r => Rewrite::value(l),
            Binary::Add => match (self.negated(l), self.negated(r)) {
                (_, Some(r)) => Rewrite::op(op(Binary::Sub), &[l, r]),
                (Some(l), None) => Rewrite::op(op(Binary::Sub), &[r, l]),
                _ => self
                    .add_of_scatter(l, r)
                    .or_else(|| self.add_of_scatter(r, l))
                    .or_else(|| self.add_of_pads(l, r)),
            },
            Binary::Sub => self.negated(r).and_then(|r| Rewrite::op(op(Binary::Add), &[l, r])),
            // On integers -x wraps, and a quotient of two that wrapped is another number.
            Binary::Mul | Binary::Div if ty.dtype.is_float() => match (self.negated(l), self.negated(r)) {
                (Some(l), Some(r)) => Rewrite::op(op(b), &[l, r]),
                _ => None,
            },
            _ => None,
        }
    }

    /// A scatter-add plus `base`: the base takes the updates itself, in the order of the indices, and no tensor full of
    /// zeros is made for them. Not for a base that no memory holds.
    fn add_of_scatter(&self, scatter: Value, base: Value) -> Option<Rewrite> {
        let in_memory =
            !matches!(self.op(base), Op::Constant { .. } | Op::Iota { .. } | Op::Broadcast { .. });
        match self.op(scatter) {
            op @ Op::ScatterAdd { .. } if self.inexact && in_memory && self.used_once(scatter) => {
                let operands = self.g.operands(scatter.node);
                let [indices, updates] = operands[..] else { return None };
                Rewrite::op(op.clone(), &[indices, updates, base])
            }
            _ => None,
        }
    }

    /// `l b c`, where `r` is the node of the constant.
    fn with_constant(&mut self, b: Binary, l: Value, r: Value, c: f64, ty: &TensorType) -> Option<Rewrite> {
        let float = ty.dtype.is_float();
        match b {
            Binary::Add | Binary::Sub if c == 0.0 => return Rewrite::value(l),
            Binary::Mul | Binary::Div | Binary::Pow if c == 1.0 => return Rewrite::value(l),
            Binary::Mul | Binary::Div if c == -1.0 => return Rewrite::op(Op::Unary(Unary::Neg), &[l]),
            Binary::Max if c == f64::NEG_INFINITY && float => return Rewrite::value(l),
            Binary::Min if c == f64::INFINITY && float => return Rewrite::value(l),
            Binary::Pow if c == 0.0 => return Rewrite::constant(1.0),
            Binary::Pow if c == 2.0 && self.inexact => return Rewrite::op(Op::Binary(Binary::Mul), &[l, l]),
            Binary::Div if float && self.inverts(c) => {
                let c = self.add(r.node, Op::Constant { value: 1.0 / c }, &[], ty.clone());
                return Rewrite::op(Op::Binary(Binary::Mul), &[l, c]);
            }
            _ => {}
        }
        if let Some(l) = self.negated(l)
            && matches!(b, Binary::Mul | Binary::Div)
            && float
        {
            let c = self.add(r.node, Op::Constant { value: -c }, &[], ty.clone());
            return Rewrite::op(Op::Binary(b), &[l, c]);
        }
        // (x + a) + c and (x * a) * c
        if self.inexact
            && float
            && matches!(b, Binary::Add | Binary::Mul)
            && matches!(self.op(l), Op::Binary(inner) if *inner == b)
        {
            let inner = self.g.operands(l.node);
            let a = self.constant(inner[1])?;
            let value = numeric::float(b, a, c);
            let c = self.add(r.node, Op::Constant { value }, &[], ty.clone());
            return Rewrite::op(Op::Binary(b), &[inner[0], c]);
        }
        None
    }

    /// Is division by `c` the same as multiplication by 1/c? To the last bit, if `c` is a power of two.
    fn inverts(&self, c: f64) -> bool {
        let power = c.to_bits() & ((1 << 52) - 1) == 0 && (1e-30..1e30).contains(&c.abs());
        power || self.inexact && c.is_normal() && (1.0 / c).is_normal()
    }

    fn select(&self, x: &[Value]) -> Option<Rewrite> {
        match self.constant(x[0]) {
            Some(c) => Rewrite::value(if c != 0.0 { x[1] } else { x[2] }),
            None if x[1] == x[2] => Rewrite::value(x[1]),
            None => None,
        }
    }

    fn cast(&self, x: Value, ty: &TensorType) -> Option<Rewrite> {
        let from = self.ty(x).dtype;
        if from == ty.dtype {
            return Rewrite::value(x);
        }
        if !matches!(self.op(x), Op::Cast) {
            return None;
        }
        let source = self.operand(x);
        let kept_whole = matches!(
            (self.ty(source).dtype, from),
            (DType::Bool, _) | (DType::Bf16, DType::F32 | DType::F64) | (DType::F32 | DType::I32, DType::F64)
        );
        if !kept_whole {
            return None;
        }
        match self.ty(source).dtype == ty.dtype {
            true => Rewrite::value(source),
            false => Rewrite::op(Op::Cast, &[source]),
        }
    }

    /// An operation on broadcasts of equal form is the broadcast of the operation.
    fn below_broadcasts(&mut self, n: NodeIndex, x: &[Value], ty: &TensorType) -> Option<Rewrite> {
        let mut form: Option<(Axes, Value)> = None;
        for &v in x {
            match self.op(v) {
                Op::Constant { .. } => {}
                Op::Broadcast { dims } => {
                    let source = self.operand(v);
                    match &form {
                        None => form = Some((dims.clone(), source)),
                        Some((d, s)) if d == dims && self.ty(*s).shape == self.ty(source).shape => {}
                        Some(_) => return None,
                    }
                }
                _ => return None,
            }
        }
        let (dims, source) = form?;
        let shape = self.ty(source).shape.clone();
        let mut inner: SmallVec<[Value; 4]> = SmallVec::new();
        for &v in x {
            let small = match self.constant(v) {
                Some(value) => {
                    let ty = TensorType { dtype: self.ty(v).dtype, shape: shape.clone() };
                    self.add(v.node, Op::Constant { value }, &[], ty)
                }
                None => self.operand(v),
            };
            inner.push(small);
        }
        let op = self.g.op(n).clone();
        let small = self.add(n, op, &inner, TensorType { dtype: ty.dtype, shape });
        Rewrite::op(Op::Broadcast { dims }, &[small])
    }

    /// Two tensors padded with zeros to stand side by side: the pad of their concatenation.
    fn add_of_pads(&mut self, l: Value, r: Value) -> Option<Rewrite> {
        let (Op::Pad { low: ll, high: lh, value: lv }, Op::Pad { low: rl, high: rh, value: rv }) =
            (self.op(l), self.op(r))
        else {
            return None;
        };
        if *lv != 0.0 || *rv != 0.0 || !self.used_once(l) || !self.used_once(r) {
            return None;
        }
        let (a, b) = (self.operand(l), self.operand(r));
        let rank = ll.len();
        let extent = |v: Value, k: usize| self.ty(v).shape[k];
        let mut differing = (0..rank).filter(|&k| ll[k] != rl[k] || lh[k] != rh[k]);
        let axis = differing.next()?;
        if differing.next().is_some() {
            return None;
        }
        let (parts, mut low, mut high) = if ll[axis] + extent(a, axis) == rl[axis] {
            ([a, b], ll.clone(), lh.clone())
        } else if rl[axis] + extent(b, axis) == ll[axis] {
            ([b, a], ll.clone(), lh.clone())
        } else {
            return None;
        };
        low[axis] = ll[axis].min(rl[axis]);
        high[axis] = lh[axis].min(rh[axis]);
        let mut ty = self.ty(a).clone();
        ty.shape[axis] += extent(b, axis);
        let joined = self.add(l.node, Op::Concat { axis }, &parts, ty);
        Rewrite::op(Op::Pad { low, high, value: 0.0 }, &[joined])
    }
}

/// Is the number one the element type has?
fn is_exact(x: f64, dtype: DType) -> bool {
    x.is_nan() || numeric::stored(x, dtype) == x
}
