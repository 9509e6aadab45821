//! Rules for operations that move elements, and for reductions.

use super::{Rewrite, Rewriter};
use crate::graph::{Axes, Binary, Op, Operands, ReduceKind, Shape, TensorType, Value};
use crate::interp::numeric;
use isoflop_kernels::DType;
use petgraph::stable_graph::NodeIndex;

impl Rewriter<'_> {
    pub(super) fn shape(&mut self, n: NodeIndex, x: &[Value]) -> Option<Rewrite> {
        let ty = self.ty(n.into()).clone();
        let first = *x.first()?;
        match self.g.op(n).clone() {
            Op::Broadcast { dims } => self.broadcast(&dims, first, &ty),
            Op::Reshape => self.reshape(first, &ty),
            Op::Transpose { perm } => self.transpose(n, &perm, first, &ty),
            Op::Slice { starts, limits } => self.slice(n, &starts, &limits, first, &ty),
            Op::Pad { low, high, value } => self.pad(&low, &high, value, first, &ty),
            Op::Concat { axis } => self.concat(axis, x),
            Op::Reduce { kind, axes } => self.reduce(n, kind, &axes, first, &ty),
            _ => None,
        }
    }

    fn broadcast(&self, dims: &Axes, x: Value, ty: &TensorType) -> Option<Rewrite> {
        match self.op(x) {
            _ if self.ty(x) == ty => Rewrite::value(x),
            Op::Constant { value } => Rewrite::constant(*value),
            Op::Broadcast { dims: inner } => {
                let dims = inner.iter().map(|&d| dims[d]).collect();
                Rewrite::op(Op::Broadcast { dims }, &[self.operand(x)])
            }
            _ => None,
        }
    }

    fn reshape(&self, x: Value, ty: &TensorType) -> Option<Rewrite> {
        match self.op(x) {
            _ if self.ty(x) == ty => Rewrite::value(x),
            Op::Constant { value } => Rewrite::constant(*value),
            Op::Reshape => Rewrite::op(Op::Reshape, &[self.operand(x)]),
            Op::Broadcast { dims } if dims.is_empty() => {
                Rewrite::op(Op::Broadcast { dims: Axes::new() }, &[self.operand(x)])
            }
            _ => None,
        }
    }

    fn transpose(&mut self, n: NodeIndex, perm: &Axes, x: Value, ty: &TensorType) -> Option<Rewrite> {
        if perm.windows(2).all(|w| w[0] < w[1]) {
            return Rewrite::value(x);
        }
        match self.op(x).clone() {
            Op::Constant { value } => return Rewrite::constant(value),
            Op::Transpose { perm: inner } => {
                let perm = perm.iter().map(|&p| inner[p]).collect();
                return Rewrite::op(Op::Transpose { perm }, &[self.operand(x)]);
            }
            Op::Iota { axis } => {
                let axis = perm.iter().position(|&p| p == axis)?;
                return Rewrite::op(Op::Iota { axis }, &[]);
            }
            Op::Broadcast { dims } => {
                // Result axis of each axis of the source, and the axes of the source in order of result axes.
                let to: Axes = dims.iter().filter_map(|d| perm.iter().position(|p| p == d)).collect();
                let mut order: Axes = (0..to.len()).collect();
                order.sort_unstable_by_key(|&k| to[k]);
                let mut source = self.operand(x);
                if order.windows(2).any(|w| w[0] > w[1]) {
                    let s = self.ty(source);
                    let shape = order.iter().map(|&k| s.shape[k]).collect();
                    let small = TensorType { dtype: s.dtype, shape };
                    source = self.add(n, Op::Transpose { perm: order.clone() }, &[source], small);
                }
                let dims = order.iter().map(|&k| to[k]).collect();
                return Rewrite::op(Op::Broadcast { dims }, &[source]);
            }
            Op::Dot { .. } => {
                if let Some(rewrite) = self.transpose_of_dot(perm, x) {
                    return Some(rewrite);
                }
            }
            _ => {}
        }
        // Only axes of extent 1 change places: the elements stay where they are.
        let moving: Axes = (0..perm.len()).filter(|&k| ty.shape[k] != 1).map(|k| perm[k]).collect();
        if moving.windows(2).all(|w| w[0] < w[1]) {
            return Rewrite::op(Op::Reshape, &[x]);
        }
        None
    }

    fn slice(
        &mut self,
        n: NodeIndex,
        starts: &Axes,
        limits: &Axes,
        x: Value,
        ty: &TensorType,
    ) -> Option<Rewrite> {
        if self.ty(x) == ty {
            return Rewrite::value(x);
        }
        match self.op(x).clone() {
            Op::Constant { value } => Rewrite::constant(value),
            Op::Slice { starts: inner, .. } => {
                let moved = |a: &Axes| a.iter().zip(&inner).map(|(a, s)| a + s).collect();
                Rewrite::op(Op::Slice { starts: moved(starts), limits: moved(limits) }, &[self.operand(x)])
            }
            Op::Pad { low, .. } => {
                let source = self.operand(x);
                let shape = &self.ty(source).shape;
                let inside = (0..low.len()).all(|k| starts[k] >= low[k] && limits[k] <= low[k] + shape[k]);
                let moved = |a: &Axes| a.iter().zip(&low).map(|(a, l)| a - l).collect();
                inside
                    .then(|| Op::Slice { starts: moved(starts), limits: moved(limits) })
                    .and_then(|op| Rewrite::op(op, &[source]))
            }
            Op::Concat { axis } => {
                let mut from = 0;
                for part in self.g.operands(x.node) {
                    let extent = self.ty(part).shape[axis];
                    if starts[axis] >= from && limits[axis] <= from + extent {
                        let moved = |a: &Axes| {
                            let mut a = a.clone();
                            a[axis] -= from;
                            a
                        };
                        return Rewrite::op(
                            Op::Slice { starts: moved(starts), limits: moved(limits) },
                            &[part],
                        );
                    }
                    from += extent;
                }
                None
            }
            Op::Broadcast { dims } => {
                let mut source = self.operand(x);
                let s = self.ty(source).clone();
                let part = |a: &Axes| dims.iter().map(|&d| a[d]).collect::<Axes>();
                let (starts, limits) = (part(starts), part(limits));
                let shape: Shape = starts.iter().zip(&limits).map(|(s, l)| l - s).collect();
                if shape != s.shape {
                    let ty = TensorType { dtype: s.dtype, shape };
                    source = self.add(n, Op::Slice { starts, limits }, &[source], ty);
                }
                Rewrite::op(Op::Broadcast { dims }, &[source])
            }
            _ => None,
        }
    }

    fn pad(&self, low: &Axes, high: &Axes, value: f64, x: Value, ty: &TensorType) -> Option<Rewrite> {
        match self.op(x) {
            _ if self.ty(x) == ty => Rewrite::value(x),
            Op::Constant { value: inner } if inner.to_bits() == value.to_bits() => Rewrite::constant(value),
            Op::Pad { low: l, high: h, value: inner } if inner.to_bits() == value.to_bits() => {
                let sum = |a: &Axes, b: &Axes| a.iter().zip(b).map(|(a, b)| a + b).collect();
                Rewrite::op(Op::Pad { low: sum(low, l), high: sum(high, h), value }, &[self.operand(x)])
            }
            _ => None,
        }
    }

    fn concat(&self, axis: usize, parts: &[Value]) -> Option<Rewrite> {
        if let [one] = parts {
            return Rewrite::value(*one);
        }
        if let Some(value) = self.constant(parts[0])
            && parts.iter().all(|&p| self.constant(p).is_some_and(|c| c.to_bits() == value.to_bits()))
        {
            return Rewrite::constant(value);
        }
        self.concat_of_slices(axis, parts).or_else(|| self.concat_of_concat(axis, parts))
    }

    /// Neighbouring slices of one tensor, in order: one slice.
    fn concat_of_slices(&self, axis: usize, parts: &[Value]) -> Option<Rewrite> {
        let slice = |v: Value| match self.op(v) {
            Op::Slice { starts, limits } => Some((self.operand(v), starts, limits)),
            _ => None,
        };
        let (source, starts, first_limits) = slice(parts[0])?;
        let mut limits = first_limits.clone();
        for &p in &parts[1..] {
            let (x, s, l) = slice(p)?;
            let elsewhere_equal = (0..s.len()).all(|k| k == axis || s[k] == starts[k] && l[k] == limits[k]);
            if x != source || s[axis] != limits[axis] || !elsewhere_equal {
                return None;
            }
            limits[axis] = l[axis];
        }
        Rewrite::op(Op::Slice { starts: starts.clone(), limits }, &[source])
    }

    /// Parts that are concatenations along the same axis, for this node only, give their parts.
    fn concat_of_concat(&self, axis: usize, parts: &[Value]) -> Option<Rewrite> {
        let nested =
            |v: Value| matches!(self.op(v), Op::Concat { axis: a } if *a == axis) && self.used_once(v);
        if !parts.iter().any(|&p| nested(p)) {
            return None;
        }
        let mut all = Operands::new();
        for &p in parts {
            match nested(p) {
                true => all.extend(self.g.operands(p.node)),
                false => all.push(p),
            }
        }
        Some(Rewrite::Op(Op::Concat { axis }, all))
    }

    fn reduce(
        &mut self,
        n: NodeIndex,
        kind: ReduceKind,
        axes: &Axes,
        x: Value,
        ty: &TensorType,
    ) -> Option<Rewrite> {
        if axes.is_empty() {
            return Rewrite::value(x);
        }
        let from = self.ty(x).clone();
        if axes.iter().all(|&a| from.shape[a] == 1) {
            return Rewrite::op(Op::Reshape, &[x]);
        }
        let count: usize = axes.iter().map(|&a| from.shape[a]).product();
        let reorders = kind == ReduceKind::Max || ty.dtype == DType::I32 || self.inexact;
        match self.op(x).clone() {
            Op::Constant { value } => self.reduce_constant(kind, count, value, ty.dtype),
            Op::Reduce { kind: inner, axes: first } if inner == kind && reorders => {
                let source = self.operand(x);
                let rank = self.ty(source).rank();
                let kept: Axes = (0..rank).filter(|k| !first.contains(k)).collect();
                let mut all: Axes = first.iter().copied().chain(axes.iter().map(|&a| kept[a])).collect();
                all.sort_unstable();
                Rewrite::op(Op::Reduce { kind, axes: all }, &[source])
            }
            Op::Transpose { perm } if reorders => {
                let kept: Axes = (0..perm.len()).filter(|k| !axes.contains(k)).map(|k| perm[k]).collect();
                if kept.windows(2).any(|w| w[0] > w[1]) {
                    return None;
                }
                let mut axes: Axes = axes.iter().map(|&a| perm[a]).collect();
                axes.sort_unstable();
                Rewrite::op(Op::Reduce { kind, axes }, &[self.operand(x)])
            }
            Op::Broadcast { dims } if reorders => self.reduce_broadcast(n, kind, axes, &dims, x, ty),
            _ => None,
        }
    }

    fn reduce_constant(&self, kind: ReduceKind, count: usize, value: f64, dtype: DType) -> Option<Rewrite> {
        let value = numeric::convert(value, dtype);
        match kind {
            ReduceKind::Max if count > 0 => Rewrite::constant(value),
            ReduceKind::Max => Rewrite::constant(numeric::convert(f64::NEG_INFINITY, dtype)),
            ReduceKind::Sum if dtype == DType::I32 => {
                Rewrite::constant((count as i64).wrapping_mul(value as i64) as i32 as f64)
            }
            ReduceKind::Sum => {
                // Every partial sum is a whole number that the type has, or the sum may round.
                let limit = if dtype == DType::Bf16 { 256.0 } else { 16_777_216.0 };
                let sum = count as f64 * value;
                let exact = value.fract() == 0.0 && sum.abs() <= limit;
                (exact || self.inexact && value.is_finite()).then(|| Rewrite::constant(sum))?
            }
        }
    }

    /// Axes that only repeat are not walked: a maximum ignores them, a sum becomes a product with their count.
    fn reduce_broadcast(
        &mut self,
        n: NodeIndex,
        kind: ReduceKind,
        axes: &Axes,
        dims: &Axes,
        x: Value,
        ty: &TensorType,
    ) -> Option<Rewrite> {
        let repeats: usize =
            axes.iter().filter(|a| !dims.contains(a)).map(|&a| self.ty(x).shape[a]).product();
        if axes.iter().all(|a| dims.contains(a)) || repeats == 0 || repeats > i32::MAX as usize {
            return None;
        }
        let rank = self.ty(x).rank();
        let mut value = self.operand(x);
        let source = self.ty(value).clone();
        let own: Axes = (0..dims.len()).filter(|&k| axes.contains(&dims[k])).collect();
        let kept: Axes = (0..dims.len()).filter(|k| !own.contains(k)).collect();
        let small = TensorType { dtype: ty.dtype, shape: kept.iter().map(|&k| source.shape[k]).collect() };
        if !own.is_empty() {
            value = self.add(n, Op::Reduce { kind, axes: own }, &[value], small.clone());
        }
        if kind == ReduceKind::Sum {
            let count = self.add(n, Op::Constant { value: repeats as f64 }, &[], small.clone());
            value = self.add(n, Op::Binary(Binary::Mul), &[value, count], small);
        }
        // Where the kept axes of the source stand in the result.
        let left: Axes = (0..rank).filter(|k| !axes.contains(k)).collect();
        let dims = kept.iter().filter_map(|&k| left.iter().position(|&l| l == dims[k])).collect();
        Rewrite::op(Op::Broadcast { dims }, &[value])
    }
}
