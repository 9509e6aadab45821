//! MLIR text of a kernel over rows and columns.
//!
//! For each row of the task: one column loop per phase, in which full-level values are computed in registers, row
//! reductions accumulate and results are stored; between the loops, row-level values. A value needed in two phases is
//! computed again, unless it is a result of the kernel: then it is read back, still in the nearest cache.

use super::kernel::{KernelSpec, Output, partial, phase_roots};
use super::scalar::{Names, combine, constant, memory, operation, register};
use crate::fuse::body::{Body, Level, Reduction, Source, neutral};
use crate::graph::{Op, ReduceKind};
use isoflop_kernels::DType;
use rustc_hash::FxHashMap;
use std::fmt::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Known {
    Item(usize),
    /// An input at the level it is read.
    Input(usize, Level),
    Constant(u64, DType),
    Iota(usize, Level, DType),
    /// Index of the current element in a full-level buffer.
    Element,
}

/// Text of the loops written so far and the values in scope, by depth: 0 the function, 1 a row, 2 a column.
struct Emitter<'a> {
    body: &'a Body,
    outputs: &'a [Output],
    depths: Vec<usize>,
    names: Names,
    text: [String; 3],
    known: [FxHashMap<Known, String>; 3],
    phase: usize,
    /// Memref of each input and each output.
    input_refs: Vec<String>,
    output_refs: Vec<String>,
}

/// The function of a region kernel, under this name. Arguments: inputs, then the outputs that are not in place.
pub fn emit(spec: &KernelSpec, body: &Body, name: &str) -> String {
    let mut e = Emitter {
        body,
        outputs: &spec.outputs,
        depths: body.depths(),
        names: Names::default(),
        text: Default::default(),
        known: Default::default(),
        phase: 0,
        input_refs: (0..body.inputs.len()).map(|i| format!("%in{i}")).collect(),
        output_refs: Vec::new(),
    };
    let mut args: Vec<String> = Vec::new();
    for (r, t) in e.input_refs.iter().zip(&body.input_types) {
        args.push(argument(r, t.dtype));
    }
    for (k, o) in spec.outputs.iter().enumerate() {
        match o.in_place {
            Some(input) => e.output_refs.push(e.input_refs[input].clone()),
            None => {
                e.output_refs.push(format!("%out{k}"));
                args.push(argument(&format!("%out{k}"), o.ty.dtype));
            }
        }
    }
    let inner = if body.split.is_some() { e.rows(spec) } else { e.flat(spec) };
    function(name, &args, &inner)
}

pub fn argument(name: &str, d: DType) -> String {
    format!("{name}: memref<1099511627776x{}> {{llvm.noalias, llvm.align = 64 : i64}}", memory(d))
}

/// A function over rows `%lo..%hi`.
pub fn function(name: &str, args: &[String], inner: &str) -> String {
    let mut list = args.join(", ");
    if !list.is_empty() {
        list.push_str(", ");
    }
    format!(
        "func.func @{name}({list}%lo64: i64, %hi64: i64) attributes {{passthrough = [[\"prefer-vector-width\", \"512\"]]}} {{\n\
         %lo = arith.index_cast %lo64 : i64 to index\n%hi = arith.index_cast %hi64 : i64 to index\n\
         %c0 = arith.constant 0 : index\n%c1 = arith.constant 1 : index\n{inner}return\n}}\n"
    )
}

/// Loads an element, as the kernel's register type.
pub fn load(out: &mut String, names: &mut Names, memref: &str, index: &str, d: DType) -> String {
    let v = names.fresh();
    let _ = writeln!(out, "{v} = memref.load {memref}[{index}] : memref<1099511627776x{}>", memory(d));
    if d != DType::Bool {
        return v;
    }
    let bit = names.fresh();
    let _ = writeln!(out, "{bit} = arith.trunci {v} : i8 to i1");
    bit
}

pub fn store(out: &mut String, names: &mut Names, value: &str, memref: &str, index: &str, d: DType) {
    let mut value = value.to_string();
    if d == DType::Bool {
        let byte = names.fresh();
        let _ = writeln!(out, "{byte} = arith.extui {value} : i1 to i8");
        value = byte;
    }
    let _ = writeln!(out, "memref.store {value}, {memref}[{index}] : memref<1099511627776x{}>", memory(d));
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
        let mut values: FxHashMap<usize, String> = FxHashMap::default();
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
            next.push(combine(&mut self.text[2], &mut self.names, kind, &carried[i], &values[&item], d));
        }
        for (k, o) in self.outputs.iter().enumerate() {
            if partial(self.body, &self.body.items[o.item]).is_none() {
                let memref = self.output_refs[k].clone();
                store(&mut self.text[2], &mut self.names, &values[&o.item], &memref, "%row", o.ty.dtype);
            }
        }
        let types: Vec<&str> =
            totals.iter().map(|&(_, i)| register(self.body.items[i].result.dtype)).collect();
        let loop_body = std::mem::take(&mut self.text[2]);
        let row_text = std::mem::take(&mut self.text[1]);
        let (text, results) = self.loop_text(
            "%row",
            "%lo",
            "%hi",
            &carried,
            &starts,
            &next,
            &types,
            &format!("{row_text}{loop_body}"),
        );
        if !totals.is_empty() {
            let task = self.task_index(spec);
            self.text[0].push_str(&text);
            for ((k, item), r) in totals.iter().zip(&results) {
                let d = self.body.items[*item].result.dtype;
                let memref = self.output_refs[*k].clone();
                store(&mut self.text[0], &mut self.names, r, &memref, &task, d);
            }
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
                    let v = self.source_of_reduction(index);
                    let kind = reduce_kind(&item.op);
                    next[t] = combine(&mut self.text[1], &mut self.names, kind, &next[t].clone(), &v, d);
                }
            } else if self.body.result_level(index) == Level::Outer {
                stores.push((self.item(index), self.output_refs[k].clone(), d));
            }
        }
        for (v, memref, d) in stores {
            store(&mut self.text[1], &mut self.names, &v, &memref, "%row", d);
        }
        let types: Vec<&str> =
            totals.iter().map(|&(_, i)| register(self.body.items[i].result.dtype)).collect();
        let row_text = std::mem::take(&mut self.text[1]);
        let (text, results) =
            self.loop_text("%row", "%lo", "%hi", &carried, &starts, &next, &types, &row_text);
        self.text[0].push_str(&text);
        for ((k, item), r) in totals.iter().zip(&results) {
            let d = self.body.items[*item].result.dtype;
            let memref = self.output_refs[*k].clone();
            store(&mut self.text[0], &mut self.names, r, &memref, &task, d);
        }
        std::mem::take(&mut self.text[0])
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
        let _ = writeln!(self.text[0], "scf.for %col = %c0 to {width} step %c1 {{");
        let _ = writeln!(self.text[0], "{at} = arith.addi {base}, %col : index");
        store(&mut self.text[0], &mut self.names, &start, &memref, &at, d);
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
        self.known[2].insert(Known::Element, at.clone());
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
                    let memref = self.output_refs[output].clone();
                    let old = load(&mut self.text[2], &mut self.names, &memref, &place, d);
                    let sum = combine(&mut self.text[2], &mut self.names, kind, &old, v, d);
                    store(&mut self.text[2], &mut self.names, &sum, &memref, &place, d);
                }
                Op::Reduce { .. } => {
                    let acc = self.names.fresh();
                    let start = constant(&mut self.text[1], &mut self.names, neutral(kind), d);
                    nexts.push(combine(&mut self.text[2], &mut self.names, kind, &acc, v, d));
                    carried.push(acc);
                    starts.push(start);
                    types.push(register(d));
                    reduced.push(k);
                }
                _ => {
                    for o in (0..self.outputs.len()).filter(|&o| self.outputs[o].item == k) {
                        let memref = self.output_refs[o].clone();
                        store(&mut self.text[2], &mut self.names, v, &memref, &at, d);
                    }
                }
            }
        }
        let inside = std::mem::take(&mut self.text[2]);
        let (text, results) =
            self.loop_text("%col", "%c0", width, &carried, &starts, &nexts, &types, &inside);
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
                    self.known[1].insert(Known::Item(k), r);
                }
            }
        }
    }

    /// `scf.for` with carried values; returns the text and the names of its results.
    #[allow(clippy::too_many_arguments)]
    fn loop_text(
        &mut self,
        variable: &str,
        from: &str,
        to: &str,
        carried: &[String],
        starts: &[String],
        next: &[String],
        types: &[&str],
        inside: &str,
    ) -> (String, Vec<String>) {
        if carried.is_empty() {
            return (format!("scf.for {variable} = {from} to {to} step %c1 {{\n{inside}}}\n"), Vec::new());
        }
        let result = self.names.fresh();
        let pairs: Vec<String> = carried.iter().zip(starts).map(|(c, s)| format!("{c} = {s}")).collect();
        let list = types.join(", ");
        let text = format!(
            "{result}:{} = scf.for {variable} = {from} to {to} step %c1 iter_args({}) -> ({list}) {{\n{inside}scf.yield {} : {list}\n}}\n",
            carried.len(),
            pairs.join(", "),
            next.join(", "),
        );
        let results = (0..carried.len()).map(|i| format!("{result}#{i}")).collect();
        (text, results)
    }

    /// Depth of the text in which values of this level are computed.
    fn depth(&self, level: Level) -> usize {
        match level {
            Level::Full => 2,
            Level::Outer => 1,
            Level::Inner => 2,
            Level::Scalar => 0,
        }
    }

    fn source_of_reduction(&mut self, k: usize) -> String {
        let item = &self.body.items[k];
        let d = item.result.dtype;
        let (source, level) = (item.sources[0], item.level);
        self.source(source, level, d)
    }

    /// The value of item `k`, computed here unless it is already known or stored.
    fn item(&mut self, k: usize) -> String {
        let level = self.body.result_level(k);
        let depth = self.depth(level);
        if let Some(v) = self.known[depth].get(&Known::Item(k)) {
            return v.clone();
        }
        if level == Level::Full
            && self.depths[k] < self.phase
            && let Some(o) = self.outputs.iter().position(|o| o.item == k)
        {
            let memref = self.output_refs[o].clone();
            let at = self.element();
            let v = load(&mut self.text[2], &mut self.names, &memref, &at, self.outputs[o].ty.dtype);
            self.known[2].insert(Known::Item(k), v.clone());
            return v;
        }
        let body = self.body;
        let item = &body.items[k];
        let from = item.operand;
        let args: Vec<String> = item
            .sources
            .iter()
            .enumerate()
            .map(|(i, &s)| {
                // A select's condition is bool, whatever its branches are.
                let d = if matches!(item.op, Op::Select) && i == 0 { DType::Bool } else { from };
                self.source(s, item.level, d)
            })
            .collect();
        let v = operation(&mut self.text[depth], &mut self.names, &item.op, &args, from, item.result.dtype);
        self.known[depth].insert(Known::Item(k), v.clone());
        v
    }

    fn source(&mut self, s: Source, level: Level, d: DType) -> String {
        match s {
            Source::Item { index, .. } => self.item(index),
            Source::Constant(c) => {
                let key = Known::Constant(c.to_bits(), d);
                if let Some(v) = self.known[0].get(&key) {
                    return v.clone();
                }
                let v = constant(&mut self.text[0], &mut self.names, c, d);
                self.known[0].insert(key, v.clone());
                v
            }
            Source::Iota(axis) => self.index_value(axis, level, d),
            Source::Input { index, access } => {
                let at_level = self.body.input_level(access, level);
                self.input(index, at_level)
            }
        }
    }

    fn input(&mut self, index: usize, level: Level) -> String {
        // Without columns every element is a row.
        let depth = if self.body.split.is_none() && level == Level::Full { 2 } else { self.depth(level) };
        let key = Known::Input(index, level);
        if let Some(v) = self.known[depth].get(&key) {
            return v.clone();
        }
        let at = match level {
            Level::Full => self.element(),
            Level::Outer => "%row".to_string(),
            Level::Inner => "%col".to_string(),
            Level::Scalar => "%c0".to_string(),
        };
        let (memref, d) = (self.input_refs[index].clone(), self.body.input_types[index].dtype);
        let v = load(&mut self.text[depth], &mut self.names, &memref, &at, d);
        self.known[depth].insert(key, v.clone());
        v
    }

    /// Index of the current element in a full-level buffer.
    fn element(&self) -> String {
        match self.body.split {
            None => "%row".to_string(),
            Some(_) => self.known[2][&Known::Element].clone(),
        }
    }

    /// The row or column as a number.
    fn index_value(&mut self, axis: usize, level: Level, d: DType) -> String {
        let by_column = self.body.split.is_some() && level == Level::Full && axis + 1 == self.body.full.len();
        let (depth, name) = match (self.body.split, by_column) {
            (None, _) => (2, "%row"),
            (Some(_), true) => (2, "%col"),
            (Some(_), false) => (1, "%row"),
        };
        let key = Known::Iota(axis, if by_column { Level::Full } else { Level::Outer }, d);
        if let Some(v) = self.known[depth].get(&key) {
            return v.clone();
        }
        let int = self.names.fresh();
        let _ = writeln!(self.text[depth], "{int} = arith.index_cast {name} : index to i32");
        let v = if d.is_float() {
            let v = self.names.fresh();
            let _ = writeln!(self.text[depth], "{v} = arith.sitofp {int} : i32 to {}", register(d));
            v
        } else {
            int
        };
        self.known[depth].insert(key, v.clone());
        v
    }
}
