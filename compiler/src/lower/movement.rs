//! MLIR text of kernels that move data in a pattern of their own (transpose, slice, pad, concatenate, broadcasts and
//! reductions over inner axes) and of those that finish a reduction over rows.
//!
//! These are plain loops over the elements of the result. Trained models hardly run any: products take strides, and
//! attention is a library call.

use super::kernel::{KernelSpec, Kind};
use super::region::{argument, function, load, store};
use super::scalar::{Names, combine, constant};
use crate::fuse::body::neutral;
use crate::graph::{Axes, Op, ReduceKind, TensorType};
use isoflop_kernels::DType;
use std::fmt::Write;

/// The function of a `Move` or `Finish` kernel. Arguments: operands, then the result.
pub fn emit(spec: &KernelSpec, name: &str) -> String {
    let mut e = Emitter { names: Names::default(), out: String::new() };
    match &spec.kind {
        Kind::Move { op, operands, result } => {
            let mut args: Vec<String> =
                operands.iter().enumerate().map(|(i, t)| argument(&format!("%in{i}"), t.dtype)).collect();
            args.push(argument("%out", result.dtype));
            e.movement(op, operands, result);
            function(name, &args, &e.out)
        }
        Kind::Finish { parts, width, max, dtype } => {
            let args = [argument("%in0", *dtype), argument("%out", *dtype)];
            e.finish(*parts, *width, if *max { ReduceKind::Max } else { ReduceKind::Sum }, *dtype);
            function(name, &args, &e.out)
        }
        Kind::Region(_) => unreachable!("regions have an emitter of their own"),
    }
}

fn strides(shape: &[usize]) -> Axes {
    let mut s: Axes = shape.iter().map(|_| 1).collect();
    for k in (0..shape.len().saturating_sub(1)).rev() {
        s[k] = s[k + 1] * shape[k + 1];
    }
    s
}

struct Emitter {
    names: Names,
    out: String,
}

impl Emitter {
    fn index(&mut self, value: usize) -> String {
        let v = self.names.fresh();
        let _ = writeln!(self.out, "{v} = arith.constant {value} : index");
        v
    }

    fn binary(&mut self, op: &str, a: &str, b: &str) -> String {
        let v = self.names.fresh();
        let _ = writeln!(self.out, "{v} = arith.{op} {a}, {b} : index");
        v
    }

    /// Coordinates of element `flat` of a row-major tensor of this shape.
    fn coordinates(&mut self, flat: &str, shape: &[usize]) -> Vec<String> {
        let s = strides(shape);
        let mut rest = flat.to_string();
        let mut out = Vec::new();
        for k in 0..shape.len() {
            let stride = self.index(s[k]);
            out.push(self.binary("divui", &rest, &stride));
            rest = self.binary("remui", &rest, &stride);
        }
        out
    }

    /// Sum over k of coordinates[k] * strides[k].
    fn offset(&mut self, coordinates: &[String], strides: &[usize]) -> String {
        let mut sum = "%c0".to_string();
        for (c, &s) in coordinates.iter().zip(strides) {
            let stride = self.index(s);
            let part = self.binary("muli", c, &stride);
            sum = self.binary("addi", &sum, &part);
        }
        sum
    }

    fn movement(&mut self, op: &Op, operands: &[TensorType], result: &TensorType) {
        self.out.push_str("scf.for %row = %lo to %hi step %c1 {\n");
        let at = self.coordinates("%row", &result.shape);
        let d = result.dtype;
        let value = match op {
            Op::Constant { value } => constant(&mut self.out, &mut self.names, *value, d),
            Op::Iota { axis } => {
                let int = self.names.fresh();
                let _ = writeln!(self.out, "{int} = arith.index_cast {} : index to i32", at[*axis]);
                if d.is_float() {
                    let v = self.names.fresh();
                    let _ = writeln!(
                        self.out,
                        "{v} = arith.sitofp {int} : i32 to {}",
                        super::scalar::register(d)
                    );
                    v
                } else {
                    int
                }
            }
            Op::Transpose { perm } => {
                let s = strides(&operands[0].shape);
                let moved: Vec<usize> = perm.iter().map(|&p| s[p]).collect();
                let index = self.offset(&at, &moved);
                load(&mut self.out, &mut self.names, "%in0", &index, d)
            }
            Op::Broadcast { dims } => {
                let s = strides(&operands[0].shape);
                let picked: Vec<String> = dims.iter().map(|&k| at[k].clone()).collect();
                let index = self.offset(&picked, &s);
                load(&mut self.out, &mut self.names, "%in0", &index, d)
            }
            Op::Slice { starts, .. } => {
                let s = strides(&operands[0].shape);
                let first: usize = starts.iter().zip(&s).map(|(a, b)| a * b).sum();
                let first = self.index(first);
                let index = self.offset(&at, &s);
                let index = self.binary("addi", &index, &first);
                load(&mut self.out, &mut self.names, "%in0", &index, d)
            }
            Op::Pad { low, value, .. } => {
                let fill = constant(&mut self.out, &mut self.names, *value, d);
                self.within(0, &operands[0], &at, low, &fill)
            }
            Op::Concat { axis } => {
                let mut value = constant(&mut self.out, &mut self.names, 0.0, d);
                let mut low: Axes = at.iter().map(|_| 0).collect();
                for (k, t) in operands.iter().enumerate() {
                    value = self.within(k, t, &at, &low, &value);
                    low[*axis] += t.shape[*axis];
                }
                value
            }
            Op::Reduce { kind, axes } => self.reduce(*kind, axes, &operands[0], &at),
            _ => unreachable!("{} is not a movement", op.mnemonic()),
        };
        store(&mut self.out, &mut self.names, &value, "%out", "%row", d);
        self.out.push_str("}\n");
    }

    /// Element `at - low` of operand `k` where that exists, else `otherwise`.
    fn within(&mut self, k: usize, t: &TensorType, at: &[String], low: &[usize], otherwise: &str) -> String {
        if t.elements() == 0 {
            return otherwise.to_string();
        }
        let mut inside: Option<String> = None;
        let mut shifted = Vec::new();
        for (axis, c) in at.iter().enumerate() {
            let first = self.index(low[axis]);
            let extent = self.index(t.shape[axis]);
            let moved = self.binary("subi", c, &first);
            let test = self.names.fresh();
            // Unsigned: below the first wraps around to far above the last.
            let _ = writeln!(self.out, "{test} = arith.cmpi ult, {moved}, {extent} : index");
            inside = Some(match inside {
                None => test,
                Some(so_far) => {
                    let both = self.names.fresh();
                    let _ = writeln!(self.out, "{both} = arith.andi {so_far}, {test} : i1");
                    both
                }
            });
            shifted.push(moved);
        }
        let index = self.offset(&shifted, &strides(&t.shape));
        let memref = format!("%in{k}");
        let Some(inside) = inside else {
            return load(&mut self.out, &mut self.names, &memref, &index, t.dtype);
        };
        let safe = self.names.fresh();
        let _ = writeln!(self.out, "{safe} = arith.select {inside}, {index}, %c0 : index");
        let value = load(&mut self.out, &mut self.names, &memref, &safe, t.dtype);
        let picked = self.names.fresh();
        let ty = super::scalar::register(t.dtype);
        let _ = writeln!(self.out, "{picked} = arith.select {inside}, {value}, {otherwise} : {ty}");
        picked
    }

    fn reduce(&mut self, kind: ReduceKind, axes: &Axes, t: &TensorType, at: &[String]) -> String {
        let s = strides(&t.shape);
        let kept: Vec<usize> = (0..t.rank()).filter(|k| !axes.contains(k)).map(|k| s[k]).collect();
        let base = self.offset(at, &kept);
        let extents: Vec<usize> = axes.iter().map(|&a| t.shape[a]).collect();
        let count = self.index(extents.iter().product());
        let start = constant(&mut self.out, &mut self.names, neutral(kind), t.dtype);
        let (result, ty) = (self.names.fresh(), super::scalar::register(t.dtype));
        let _ = writeln!(
            self.out,
            "{result} = scf.for %k = %c0 to {count} step %c1 iter_args(%acc = {start}) -> ({ty}) {{"
        );
        let inner = self.coordinates("%k", &extents);
        let steps: Vec<usize> = axes.iter().map(|&a| s[a]).collect();
        let offset = self.offset(&inner, &steps);
        let index = self.binary("addi", &base, &offset);
        let v = load(&mut self.out, &mut self.names, "%in0", &index, t.dtype);
        let sum = combine(&mut self.out, &mut self.names, kind, "%acc", &v, t.dtype);
        let _ = writeln!(self.out, "scf.yield {sum} : {ty}\n}}");
        result
    }

    fn finish(&mut self, parts: usize, width: usize, kind: ReduceKind, d: DType) {
        let (n, w) = (self.index(parts), self.index(width));
        self.out.push_str("scf.for %row = %lo to %hi step %c1 {\n");
        let start = constant(&mut self.out, &mut self.names, neutral(kind), d);
        let (result, ty) = (self.names.fresh(), super::scalar::register(d));
        let _ = writeln!(
            self.out,
            "{result} = scf.for %k = %c0 to {n} step %c1 iter_args(%acc = {start}) -> ({ty}) {{"
        );
        let first = self.binary("muli", "%k", &w);
        let index = self.binary("addi", &first, "%row");
        let v = load(&mut self.out, &mut self.names, "%in0", &index, d);
        let sum = combine(&mut self.out, &mut self.names, kind, "%acc", &v, d);
        let _ = writeln!(self.out, "scf.yield {sum} : {ty}\n}}");
        store(&mut self.out, &mut self.names, &result, "%out", "%row", d);
        self.out.push_str("}\n");
    }
}
