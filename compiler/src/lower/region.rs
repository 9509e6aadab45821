//! MLIR text of a kernel over rows and columns.
//!
//! For each row of the task: one column loop per phase, in which full-level values are computed in registers, row
//! reductions accumulate and results are stored; between the loops, row-level values. A value needed in two phases is
//! computed again, unless it is a result of the kernel: then it is read back, still in the nearest cache.

use super::kernel::{KernelSpec, Output, partial, phase_roots};
use super::lanes::{across, wait};
use super::scalar::{Names, combine, constant, register};
use super::shell::{self, Range, Value, argument, columns, function, load, rows, store, vector};
use super::values::{Emitter, Known};
use crate::fuse::body::{Body, Level, Reduction, neutral};
use crate::graph::{Op, ReduceKind};
use isoflop_kernels::DType;
use rustc_hash::FxHashMap;
use std::fmt::Write;

/// The function of a region kernel, under this name. Arguments: inputs, then the outputs that are not in place.
pub fn emit(spec: &KernelSpec, body: &Body, name: &str) -> String {
    let mut e = Emitter {
        body,
        outputs: &spec.outputs,
        depths: body.depths(),
        grid: spec.grid.as_ref(),
        names: Names::new(spec.grid.is_some()),
        text: Default::default(),
        known: Default::default(),
        phase: 0,
        input_refs: (0..body.inputs.len()).map(|i| format!("%in{i}")).collect(),
        output_refs: Vec::new(),
    };
    let mut args: Vec<String> = Vec::new();
    for (r, t) in e.input_refs.iter().zip(&body.input_types) {
        args.push(argument(&e.names, r, t.dtype));
    }
    for (k, o) in spec.outputs.iter().enumerate() {
        match o.in_place {
            Some(input) => e.output_refs.push(e.input_refs[input].clone()),
            None => {
                e.output_refs.push(format!("%out{k}"));
                args.push(argument(&e.names, &format!("%out{k}"), o.ty.dtype));
            }
        }
    }
    let inner = if body.split.is_some() { e.rows(spec) } else { e.flat(spec) };
    function(&e.names, e.grid, name, &args, &inner)
}

fn reduce_kind(op: &Op) -> ReduceKind {
    match op {
        Op::Reduce { kind, .. } => *kind,
        _ => ReduceKind::Sum,
    }
}

impl Emitter<'_> {
    /// Outputs that are total reductions, with their item and kind: accumulated over the task.
    fn totals(&self) -> Vec<(usize, usize)> {
        let is_total = |o: &Output| partial(self.body, &self.body.items[o.item]) == Some(Reduction::Total);
        self.outputs.iter().enumerate().filter(|(_, o)| is_total(o)).map(|(k, o)| (k, o.item)).collect()
    }

    /// Which task this is, for the place of its partial results.
    fn task_index(&mut self, spec: &KernelSpec) -> String {
        if let Some(grid) = self.grid {
            return if grid.flat { "%block" } else { "%first" }.to_owned();
        }
        let (size, task) = (self.names.fresh(), self.names.fresh());
        let _ = writeln!(self.text[0], "{size} = arith.constant {} : index", spec.rows_per_task);
        let _ = writeln!(self.text[0], "{task} = arith.divui %lo, {size} : index");
        task
    }

    /// One loop over elements.
    fn flat(&mut self, spec: &KernelSpec) -> String {
        let totals = self.totals();
        let starts = self.accumulators(&totals, 0);
        let roots = phase_roots(self.body, self.outputs, &self.depths, 0);
        let mut values: FxHashMap<usize, Value> = FxHashMap::default();
        for &k in &roots {
            let v = match self.body.items[k].op {
                Op::Reduce { .. } => self.source_of_reduction(k),
                _ => self.item(k),
            };
            values.insert(k, v);
        }
        let carried: Vec<String> = (0..totals.len()).map(|i| format!("%acc{i}")).collect();
        let mut next = Vec::new();
        for (i, &(_, item)) in totals.iter().enumerate() {
            let d = self.body.items[item].result.dtype;
            let kind = reduce_kind(&self.body.items[item].op);
            let value = self.fold(kind, &values[&item], d);
            next.push(combine(&mut self.text[2], &mut self.names, kind, &carried[i], &value, d));
        }
        for (k, o) in self.outputs.iter().enumerate() {
            if partial(self.body, &self.body.items[o.item]).is_none() {
                let (memref, elements) = (self.output_refs[k].clone(), vector(self.grid));
                let value = &values[&o.item];
                store(&mut self.text[2], &mut self.names, value, &memref, "%row", o.ty.dtype, elements);
            }
        }
        let types: Vec<&str> =
            totals.iter().map(|&(_, i)| register(self.body.items[i].result.dtype)).collect();
        let loop_body = std::mem::take(&mut self.text[2]);
        let row_text = std::mem::take(&mut self.text[1]);
        let inside = format!("{row_text}{loop_body}");
        let range = rows(self.grid);
        let (text, results) = self.loop_text("%row", &range, &carried, &starts, &next, &types, &inside);
        if !totals.is_empty() {
            let task = self.task_index(spec);
            self.text[0].push_str(&text);
            self.store_totals(&totals, &results, &task);
        } else {
            self.text[0].push_str(&text);
        }
        std::mem::take(&mut self.text[0])
    }

    /// A loop over rows with loops over columns inside.
    fn rows(&mut self, spec: &KernelSpec) -> String {
        let columns = self.body.columns();
        let (width, task) = (self.names.fresh(), self.task_index(spec));
        let _ = writeln!(self.text[0], "{width} = arith.constant {columns} : index");
        let column_base = self.names.fresh();
        let _ = writeln!(self.text[0], "{column_base} = arith.muli {task}, {width} : index");
        for k in 0..self.outputs.len() {
            let item = &self.body.items[self.outputs[k].item];
            if partial(self.body, item) == Some(Reduction::Column) {
                let (kind, d) = (reduce_kind(&item.op), item.result.dtype);
                self.fill_partial(k, &column_base, &width, neutral(kind), d);
            }
        }
        let totals = self.totals();
        let starts = self.accumulators(&totals, 0);
        let carried: Vec<String> = (0..totals.len()).map(|i| format!("%acc{i}")).collect();
        let mut next = carried.clone();
        let base = self.names.fresh();
        let _ = writeln!(self.text[1], "{base} = arith.muli %row, {width} : index");
        let last = self.depths.iter().copied().max().unwrap_or(0);
        for phase in 0..=last {
            self.phase = phase;
            self.column_loop(phase, &width, &base, &column_base, &totals, &mut next);
        }
        // Row-level results, and totals of row-level values: all values first, since a result may overwrite an input.
        let mut stores = Vec::new();
        for k in 0..self.outputs.len() {
            let o = &self.outputs[k];
            let (index, d) = (o.item, o.ty.dtype);
            let item = &self.body.items[index];
            if partial(self.body, item).is_some() {
                if let Some(t) = totals.iter().position(|&(out, _)| out == k)
                    && item.level == Level::Outer
                {
                    let v = self.source_of_reduction(index).swap_remove(0);
                    let kind = reduce_kind(&item.op);
                    next[t] = combine(&mut self.text[1], &mut self.names, kind, &next[t].clone(), &v, d);
                }
            } else if self.body.result_level(index) == Level::Outer {
                stores.push((self.item(index), self.output_refs[k].clone(), d));
            }
        }
        self.store_row(&stores);
        let types: Vec<&str> =
            totals.iter().map(|&(_, i)| register(self.body.items[i].result.dtype)).collect();
        let row_text = std::mem::take(&mut self.text[1]);
        let range = rows(self.grid);
        let (text, results) = self.loop_text("%row", &range, &carried, &starts, &next, &types, &row_text);
        self.text[0].push_str(&text);
        self.store_totals(&totals, &results, &task);
        std::mem::take(&mut self.text[0])
    }

    /// Stores results of a row: on a GPU one lane does, when no lane reads any more what they overwrite.
    fn store_row(&mut self, stores: &[(Value, String, DType)]) {
        let (out, names) = (&mut self.text[1], &mut self.names);
        if let (Some(grid), false) = (self.grid, stores.is_empty()) {
            let over = |o: &Output| o.in_place.is_some() && self.body.result_level(o.item) == Level::Outer;
            if self.outputs.iter().any(over) {
                wait(out, names, grid);
            }
            out.push_str("scf.if %isfirst {\n");
        }
        for (v, memref, d) in stores {
            store(out, names, v, memref, "%row", *d, 1);
        }
        if self.grid.is_some() && !stores.is_empty() {
            out.push_str("}\n");
        }
    }

    /// Stores what was accumulated over all rows in the place of this task.
    fn store_totals(&mut self, totals: &[(usize, usize)], results: &[String], task: &str) {
        for (&(k, item), r) in totals.iter().zip(results) {
            let item = &self.body.items[item];
            let (kind, d) = (reduce_kind(&item.op), item.result.dtype);
            let (out, names, memref) = (&mut self.text[0], &mut self.names, &self.output_refs[k]);
            match self.grid {
                None => store(out, names, std::slice::from_ref(r), memref, task, d, 1),
                Some(grid) => {
                    // What is reduced row by row is the same in every lane.
                    let r = match item.level {
                        Level::Outer => r.clone(),
                        _ => across(out, names, grid, kind, r, d),
                    };
                    out.push_str("scf.if %isfirst {\n");
                    store(out, names, &[r], memref, task, d, 1);
                    out.push_str("}\n");
                }
            }
        }
    }

    /// Initial values of accumulators, in the text of `depth`.
    fn accumulators(&mut self, totals: &[(usize, usize)], depth: usize) -> Vec<String> {
        totals
            .iter()
            .map(|&(_, item)| {
                let item = &self.body.items[item];
                constant(
                    &mut self.text[depth],
                    &mut self.names,
                    neutral(reduce_kind(&item.op)),
                    item.result.dtype,
                )
            })
            .collect()
    }

    fn fill_partial(&mut self, output: usize, base: &str, width: &str, value: f64, d: DType) {
        let start = constant(&mut self.text[0], &mut self.names, value, d);
        let (at, memref) = (self.names.fresh(), self.output_refs[output].clone());
        let Range { from, to, step } = columns(self.grid, width);
        let _ = writeln!(self.text[0], "scf.for %col = {from} to {to} step {step} {{");
        let _ = writeln!(self.text[0], "{at} = arith.addi {base}, %col : index");
        store(&mut self.text[0], &mut self.names, &[start], &memref, &at, d, vector(self.grid));
        self.text[0].push_str("}\n");
    }

    /// The loop of one phase, if anything is to be done in it. Row reductions become known to the row.
    fn column_loop(
        &mut self,
        phase: usize,
        width: &str,
        base: &str,
        column_base: &str,
        totals: &[(usize, usize)],
        next: &mut [String],
    ) {
        let roots = phase_roots(self.body, self.outputs, &self.depths, phase);
        if roots.is_empty() {
            return;
        }
        self.known[2].clear();
        let at = self.names.fresh();
        let _ = writeln!(self.text[2], "{at} = arith.addi {base}, %col : index");
        self.known[2].insert(Known::Element, vec![at.clone()]);
        let mut values = Vec::new();
        for &k in &roots {
            values.push(match self.body.items[k].op {
                Op::Reduce { .. } => self.source_of_reduction(k),
                _ => self.item(k),
            });
        }
        // All values first, then all effects: a result may overwrite an input.
        let (mut carried, mut starts, mut nexts, mut types) = (vec![], vec![], vec![], vec![]);
        let mut reduced = vec![];
        for (&k, v) in roots.iter().zip(&values) {
            let item = &self.body.items[k];
            let d = item.result.dtype;
            let kind = reduce_kind(&item.op);
            match &item.op {
                Op::Reduce { .. } if self.body.reduction(item) == Reduction::Column => {
                    let Some(output) = self.outputs.iter().position(|o| o.item == k) else { continue };
                    let place = self.names.fresh();
                    let _ = writeln!(self.text[2], "{place} = arith.addi {column_base}, %col : index");
                    let (memref, elements) = (self.output_refs[output].clone(), vector(self.grid));
                    let (out, names) = (&mut self.text[2], &mut self.names);
                    let old = load(out, names, &memref, &place, d, elements);
                    let sums: Value = (0..elements)
                        .map(|i| combine(out, names, kind, &old[i], shell::at(v, i), d))
                        .collect();
                    store(out, names, &sums, &memref, &place, d, elements);
                }
                Op::Reduce { .. } => {
                    let acc = self.names.fresh();
                    let start = constant(&mut self.text[1], &mut self.names, neutral(kind), d);
                    let value = self.fold(kind, v, d);
                    nexts.push(combine(&mut self.text[2], &mut self.names, kind, &acc, &value, d));
                    carried.push(acc);
                    starts.push(start);
                    types.push(register(d));
                    reduced.push(k);
                }
                _ => {
                    for o in (0..self.outputs.len()).filter(|&o| self.outputs[o].item == k) {
                        let (memref, elements) = (self.output_refs[o].clone(), vector(self.grid));
                        store(&mut self.text[2], &mut self.names, v, &memref, &at, d, elements);
                    }
                }
            }
        }
        let inside = std::mem::take(&mut self.text[2]);
        let range = columns(self.grid, width);
        let (text, results) = self.loop_text("%col", &range, &carried, &starts, &nexts, &types, &inside);
        self.text[1].push_str(&text);
        for (k, r) in reduced.into_iter().zip(results) {
            let item = &self.body.items[k];
            match totals.iter().position(|&(_, i)| i == k) {
                Some(t) => {
                    let kind = reduce_kind(&item.op);
                    next[t] = combine(
                        &mut self.text[1],
                        &mut self.names,
                        kind,
                        &next[t].clone(),
                        &r,
                        item.result.dtype,
                    );
                }
                None => {
                    let d = item.result.dtype;
                    let r = match self.grid {
                        Some(grid) => {
                            let kind = reduce_kind(&item.op);
                            across(&mut self.text[1], &mut self.names, grid, kind, &r, d)
                        }
                        None => r,
                    };
                    self.known[1].insert(Known::Item(k), vec![r]);
                }
            }
        }
    }

    /// `scf.for` with carried values; returns the text and the names of its results.
    #[allow(clippy::too_many_arguments)]
    fn loop_text(
        &mut self,
        variable: &str,
        Range { from, to, step }: &Range,
        carried: &[String],
        starts: &[String],
        next: &[String],
        types: &[&str],
        inside: &str,
    ) -> (String, Vec<String>) {
        if carried.is_empty() {
            return (format!("scf.for {variable} = {from} to {to} step {step} {{\n{inside}}}\n"), Vec::new());
        }
        let result = self.names.fresh();
        let pairs: Vec<String> = carried.iter().zip(starts).map(|(c, s)| format!("{c} = {s}")).collect();
        let list = types.join(", ");
        let text = format!(
            "{result}:{} = scf.for {variable} = {from} to {to} step {step} iter_args({}) -> ({list}) {{\n{inside}scf.yield {} : {list}\n}}\n",
            carried.len(),
            pairs.join(", "),
            next.join(", "),
        );
        let results = (0..carried.len()).map(|i| format!("{result}#{i}")).collect();
        (text, results)
    }
}
