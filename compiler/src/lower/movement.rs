//! MLIR text of kernels that move data in a pattern of their own (transpose, slice, pad, concatenate, broadcasts and
//! reductions over inner axes) and of those that finish a reduction over rows.
//!
//! These are plain loops over the elements of the result. Trained models hardly run any: products take strides, and
//! attention is a library call.

use super::grid::{FINISH_COLUMNS, Grid};
use super::kernel::{KernelSpec, Kind};
use super::lanes::{across, barrier};
use super::scalar::{Names, combine, constant};
use super::shell::{self, Range, argument, function, rows};
use super::values::index_as;
use crate::fuse::body::neutral;
use crate::graph::{Axes, Op, ReduceKind, TensorType};
use isoflop_kernels::DType;
use std::fmt::Write;

/// The function of a `Move` or `Finish` kernel. Arguments: operands, then the result.
pub fn emit(spec: &KernelSpec, name: &str) -> String {
    let grid = spec.grid.as_ref();
    let mut e = Emitter { grid, names: Names::new(grid.is_some()), out: String::new() };
    match &spec.kind {
        Kind::Move { op, operands, result } => {
            let mut args: Vec<String> = operands
                .iter()
                .enumerate()
                .map(|(i, t)| argument(&e.names, &format!("%in{i}"), t.dtype))
                .collect();
            args.push(argument(&e.names, "%out", result.dtype));
            e.movement(op, operands, result);
            function(&e.names, grid, name, &args, &e.out)
        }
        Kind::Finish { parts, width, max, dtype } => {
            let args = [argument(&e.names, "%in0", *dtype), argument(&e.names, "%out", *dtype)];
            let kind = if *max { ReduceKind::Max } else { ReduceKind::Sum };
            match grid {
                None => e.finish(*parts, *width, kind, *dtype),
                Some(grid) if *width == 1 => e.finish_total(grid, *parts, kind, *dtype),
                Some(grid) => e.finish_columns(grid, *parts, *width, kind, *dtype),
            }
            function(&e.names, grid, name, &args, &e.out)
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

struct Emitter<'a> {
    /// None on a CPU.
    grid: Option<&'a Grid>,
    names: Names,
    out: String,
}

impl Emitter<'_> {
    fn load(&mut self, memref: &str, index: &str, d: DType) -> String {
        shell::load(&mut self.out, &mut self.names, memref, index, d, 1).swap_remove(0)
    }

    fn store(&mut self, value: &str, index: &str, d: DType) {
        shell::store(&mut self.out, &mut self.names, &[value.to_owned()], "%out", index, d, 1);
    }

    /// The loop over the elements of the result, up to its body.
    fn each_row(&mut self) {
        let Range { from, to, step } = rows(self.grid);
        let _ = writeln!(self.out, "scf.for %row = {from} to {to} step {step} {{");
    }

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
        self.each_row();
        let at = self.coordinates("%row", &result.shape);
        let d = result.dtype;
        let value = match op {
            Op::Constant { value } => constant(&mut self.out, &mut self.names, *value, d),
            Op::Iota { axis } => index_as(&mut self.out, &mut self.names, &at[*axis], d),
            Op::Transpose { perm } => {
                let s = strides(&operands[0].shape);
                let moved: Vec<usize> = perm.iter().map(|&p| s[p]).collect();
                let index = self.offset(&at, &moved);
                self.load("%in0", &index, d)
            }
            Op::Broadcast { dims } => {
                let s = strides(&operands[0].shape);
                let picked: Vec<String> = dims.iter().map(|&k| at[k].clone()).collect();
                let index = self.offset(&picked, &s);
                self.load("%in0", &index, d)
            }
            Op::Slice { starts, .. } => {
                let s = strides(&operands[0].shape);
                let first: usize = starts.iter().zip(&s).map(|(a, b)| a * b).sum();
                let first = self.index(first);
                let index = self.offset(&at, &s);
                let index = self.binary("addi", &index, &first);
                self.load("%in0", &index, d)
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
        self.store(&value, "%row", d);
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
            return self.load(&memref, &index, t.dtype);
        };
        let safe = self.names.fresh();
        let _ = writeln!(self.out, "{safe} = arith.select {inside}, {index}, %c0 : index");
        let value = self.load(&memref, &safe, t.dtype);
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
        let v = self.load("%in0", &index, t.dtype);
        let sum = combine(&mut self.out, &mut self.names, kind, "%acc", &v, t.dtype);
        let _ = writeln!(self.out, "scf.yield {sum} : {ty}\n}}");
        result
    }

    fn finish(&mut self, parts: usize, width: usize, kind: ReduceKind, d: DType) {
        let (n, w) = (self.index(parts), self.index(width));
        self.each_row();
        let result = self.sum_of_parts(&Range::of("%c0", &n, "%c1"), &w, "%row", kind, d);
        self.store(&result, "%row", d);
        self.out.push_str("}\n");
    }

    /// The reduction of the parts in `range` of one column.
    fn sum_of_parts(
        &mut self,
        Range { from, to, step }: &Range,
        width: &str,
        column: &str,
        kind: ReduceKind,
        d: DType,
    ) -> String {
        let start = constant(&mut self.out, &mut self.names, neutral(kind), d);
        let (result, ty) = (self.names.fresh(), super::scalar::register(d));
        let _ = writeln!(
            self.out,
            "{result} = scf.for %k = {from} to {to} step {step} iter_args(%acc = {start}) -> ({ty}) {{"
        );
        let first = self.binary("muli", "%k", width);
        let index = self.binary("addi", &first, column);
        let v = self.load("%in0", &index, d);
        let sum = combine(&mut self.out, &mut self.names, kind, "%acc", &v, d);
        let _ = writeln!(self.out, "scf.yield {sum} : {ty}\n}}");
        result
    }

    /// On a GPU, of one column: all threads of a block take parts in turn.
    fn finish_total(&mut self, grid: &Grid, parts: usize, kind: ReduceKind, d: DType) {
        let n = self.index(parts);
        let sum = self.sum_of_parts(&Range::of("%thread", &n, "%lanes"), "%c1", "%c0", kind, d);
        let sum = across(&mut self.out, &mut self.names, grid, kind, &sum, d);
        self.out.push_str("scf.if %isfirst {\n");
        self.store(&sum, "%c0", d);
        self.out.push_str("}\n");
    }

    /// On a GPU: a block takes some columns side by side and cuts the parts among its warps, whose sums meet in shared
    /// memory.
    fn finish_columns(&mut self, grid: &Grid, parts: usize, width: usize, kind: ReduceKind, d: DType) {
        let ty = format!("memref<{}x{}, 3>", grid.threads, super::scalar::register(d));
        let shared = self.names.shared(d, grid.threads);
        let (n, w, columns) = (self.index(parts), self.index(width), self.index(FINISH_COLUMNS));
        let (cuts, last) = (self.index(grid.threads / FINISH_COLUMNS), self.index(width - 1));
        let column_of_block = self.binary("remui", "%thread", &columns);
        let cut = self.binary("divui", "%thread", &columns);
        let before = self.binary("muli", "%block", &columns);
        let column = self.binary("addi", &before, &column_of_block);
        // Threads past the last column add it up once more, so that all meet at the barrier.
        let safe = self.binary("minui", &column, &last);
        let sum = self.sum_of_parts(&Range::of(&cut, &n, &cuts), &w, &safe, kind, d);
        let _ = writeln!(self.out, "memref.store {sum}, {shared}[%thread] : {ty}");
        barrier(&mut self.out);
        let (first, inside, both) = (self.names.fresh(), self.names.fresh(), self.names.fresh());
        let _ = writeln!(
            self.out,
            "{first} = arith.cmpi ult, %thread, {columns} : index\n{inside} = arith.cmpi ult, {column}, {w} : index\n\
             {both} = arith.andi {first}, {inside} : i1\nscf.if {both} {{"
        );
        let mut sum = sum;
        for k in 1..grid.threads / FINISH_COLUMNS {
            let at = shell::offset(&mut self.out, &mut self.names, "%thread", k * FINISH_COLUMNS);
            let other = self.names.fresh();
            let _ = writeln!(self.out, "{other} = memref.load {shared}[{at}] : {ty}");
            sum = combine(&mut self.out, &mut self.names, kind, &sum, &other, d);
        }
        self.store(&sum, &column, d);
        self.out.push_str("}\n");
    }
}
