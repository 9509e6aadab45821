//! Constructors of well-typed nodes. They panic on operands that do not fit, because a caller in this crate got its
//! arithmetic wrong; text from outside goes through the parser, which reports instead.

use super::infer::infer;
use super::op::{Axes, Binary, Comparison, Op, ReduceKind, Role, Unary};
use super::types::TensorType;
use super::{Graph, Value};
use isoflop_kernels::DType;

impl Graph {
    fn push(&mut self, op: Op, operands: &[Value], declared: &[TensorType]) -> Value {
        let types: Vec<&TensorType> = operands.iter().map(|&v| self.ty(v)).collect();
        let results = match infer(&op, &types, declared) {
            Ok(r) => r,
            Err(e) => panic!("{}: {e}", self.name),
        };
        self.add(op, operands, &results).into()
    }

    /// A node of any operation whose result type follows from its operands.
    pub fn apply(&mut self, op: Op, operands: &[Value]) -> Value {
        self.push(op, operands, &[])
    }

    /// A node of any operation, with the result type said by the caller.
    pub fn apply_typed(&mut self, op: Op, operands: &[Value], result: TensorType) -> Value {
        self.push(op, operands, &[result])
    }

    pub fn new_input(&mut self, name: &str, ty: TensorType, role: Role) -> Value {
        self.push(Op::Input { name: name.to_string(), role }, &[], &[ty])
    }

    pub fn constant(&mut self, value: f64, ty: TensorType) -> Value {
        self.push(Op::Constant { value }, &[], &[ty])
    }

    /// A constant of the type of `like`.
    pub fn constant_like(&mut self, value: f64, like: Value) -> Value {
        let ty = self.ty(like).clone();
        self.constant(value, ty)
    }

    pub fn iota(&mut self, axis: usize, ty: TensorType) -> Value {
        self.push(Op::Iota { axis }, &[], &[ty])
    }

    pub fn unary(&mut self, u: Unary, x: Value) -> Value {
        self.push(Op::Unary(u), &[x], &[])
    }

    pub fn binary(&mut self, b: Binary, x: Value, y: Value) -> Value {
        self.push(Op::Binary(b), &[x, y], &[])
    }

    pub fn add2(&mut self, x: Value, y: Value) -> Value {
        self.binary(Binary::Add, x, y)
    }

    pub fn sub(&mut self, x: Value, y: Value) -> Value {
        self.binary(Binary::Sub, x, y)
    }

    pub fn mul(&mut self, x: Value, y: Value) -> Value {
        self.binary(Binary::Mul, x, y)
    }

    pub fn div(&mut self, x: Value, y: Value) -> Value {
        self.binary(Binary::Div, x, y)
    }

    /// `x * factor`, element by element.
    pub fn scale(&mut self, x: Value, factor: f64) -> Value {
        let c = self.constant_like(factor, x);
        self.mul(x, c)
    }

    pub fn compare(&mut self, c: Comparison, x: Value, y: Value) -> Value {
        self.push(Op::Compare(c), &[x, y], &[])
    }

    pub fn select(&mut self, condition: Value, on_true: Value, on_false: Value) -> Value {
        self.push(Op::Select, &[condition, on_true, on_false], &[])
    }

    pub fn cast(&mut self, x: Value, dtype: DType) -> Value {
        let shape = self.ty(x).shape.clone();
        self.push(Op::Cast, &[x], &[TensorType { dtype, shape }])
    }

    /// `x` repeated to `shape`; axis k of `x` is axis `dims[k]` of the result.
    pub fn broadcast(&mut self, x: Value, dims: &[usize], shape: &[usize]) -> Value {
        let ty = TensorType::new(self.ty(x).dtype, shape);
        self.push(Op::Broadcast { dims: Axes::from_slice(dims) }, &[x], &[ty])
    }

    pub fn reshape(&mut self, x: Value, shape: &[usize]) -> Value {
        let ty = TensorType::new(self.ty(x).dtype, shape);
        self.push(Op::Reshape, &[x], &[ty])
    }

    pub fn transpose(&mut self, x: Value, perm: &[usize]) -> Value {
        self.push(Op::Transpose { perm: Axes::from_slice(perm) }, &[x], &[])
    }

    pub fn slice(&mut self, x: Value, starts: &[usize], limits: &[usize]) -> Value {
        let op = Op::Slice { starts: Axes::from_slice(starts), limits: Axes::from_slice(limits) };
        self.push(op, &[x], &[])
    }

    /// The part `start..limit` of one axis, whole in the others.
    pub fn slice_axis(&mut self, x: Value, axis: usize, start: usize, limit: usize) -> Value {
        let shape = self.ty(x).shape.clone();
        let mut starts: Axes = shape.iter().map(|_| 0).collect();
        let mut limits: Axes = shape.iter().copied().collect();
        starts[axis] = start;
        limits[axis] = limit;
        self.slice(x, &starts, &limits)
    }

    pub fn pad(&mut self, x: Value, low: &[usize], high: &[usize], value: f64) -> Value {
        let op = Op::Pad { low: Axes::from_slice(low), high: Axes::from_slice(high), value };
        self.push(op, &[x], &[])
    }

    pub fn concat(&mut self, parts: &[Value], axis: usize) -> Value {
        self.push(Op::Concat { axis }, parts, &[])
    }

    pub fn reduce(&mut self, kind: ReduceKind, x: Value, axes: &[usize]) -> Value {
        self.push(Op::Reduce { kind, axes: Axes::from_slice(axes) }, &[x], &[])
    }

    pub fn reduce_sum(&mut self, x: Value, axes: &[usize]) -> Value {
        self.reduce(ReduceKind::Sum, x, axes)
    }

    /// [m, k] times [n, k] transposed: [m, n]. What a linear layer with weights [out, in] computes.
    pub fn linear(&mut self, x: Value, w: Value) -> Value {
        self.dot(x, w, [&[], &[]], [&[1], &[1]])
    }

    pub fn dot(&mut self, l: Value, r: Value, batch: [&[usize]; 2], contract: [&[usize]; 2]) -> Value {
        let op = Op::Dot {
            lhs_batch: Axes::from_slice(batch[0]),
            rhs_batch: Axes::from_slice(batch[1]),
            lhs_contract: Axes::from_slice(contract[0]),
            rhs_contract: Axes::from_slice(contract[1]),
        };
        self.push(op, &[l, r], &[])
    }

    pub fn gather(&mut self, table: Value, indices: Value) -> Value {
        self.push(Op::Gather, &[table, indices], &[])
    }

    pub fn scatter_add(&mut self, indices: Value, updates: Value, vocab: usize) -> Value {
        self.push(Op::ScatterAdd { vocab }, &[indices, updates], &[])
    }

    /// `base` plus the updates.
    pub fn scatter_add_to(&mut self, base: Value, indices: Value, updates: Value) -> Value {
        let vocab = self.ty(base).shape.first().copied().unwrap_or(0);
        self.push(Op::ScatterAdd { vocab }, &[indices, updates, base], &[])
    }
}
