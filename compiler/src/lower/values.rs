//! MLIR text of the values inside a kernel's loops, the same for every machine: each value once, at the depth of the loop
//! it belongs to, for as many elements as a lane takes at once.

use super::grid::Grid;
use super::kernel::Output;
use super::scalar::{Names, combine, constant, operation, register};
use super::shell::{Value, at, load, offset, vector};
use crate::fuse::body::{Body, Level, Source};
use crate::graph::{Op, ReduceKind};
use isoflop_kernels::DType;
use rustc_hash::FxHashMap;
use std::fmt::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Known {
    Item(usize),
    /// An input at the level it is read.
    Input(usize, Level),
    Constant(u64, DType),
    Iota(usize, Level, DType),
    /// Index of the current element in a full-level buffer.
    Element,
}

/// Text of the loops written so far and the values in scope, by depth: 0 the function, 1 a row, 2 a column.
pub struct Emitter<'a> {
    pub body: &'a Body,
    pub outputs: &'a [Output],
    /// None on a CPU.
    pub grid: Option<&'a Grid>,
    pub depths: Vec<usize>,
    pub names: Names,
    pub text: [String; 3],
    pub known: [FxHashMap<Known, Value>; 3],
    pub phase: usize,
    /// Memref of each input and each output.
    pub input_refs: Vec<String>,
    pub output_refs: Vec<String>,
}

impl Emitter<'_> {
    /// Elements that a lane takes at once of values at `depth`.
    fn elements(&self, depth: usize) -> usize {
        if depth == 2 { vector(self.grid) } else { 1 }
    }

    /// All elements that a lane holds of this value, combined.
    pub fn fold(&mut self, kind: ReduceKind, value: &Value, d: DType) -> String {
        let mut parts: Vec<String> = (0..self.elements(2)).map(|i| at(value, i).to_owned()).collect();
        while parts.len() > 1 {
            let pair = |p: &[String]| combine(&mut self.text[2], &mut self.names, kind, &p[0], &p[1], d);
            parts = parts.chunks(2).map(pair).collect();
        }
        parts.swap_remove(0)
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

    pub fn source_of_reduction(&mut self, k: usize) -> Value {
        let item = &self.body.items[k];
        let d = item.result.dtype;
        let (source, level) = (item.sources[0], item.level);
        self.source(source, level, d)
    }

    /// The value of item `k`, computed here unless it is already known or stored.
    pub fn item(&mut self, k: usize) -> Value {
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
            let (d, elements) = (self.outputs[o].ty.dtype, self.elements(2));
            let v = load(&mut self.text[2], &mut self.names, &memref, &at, d, elements);
            self.known[2].insert(Known::Item(k), v.clone());
            return v;
        }
        let body = self.body;
        let item = &body.items[k];
        let from = item.operand;
        let args: Vec<Value> = item
            .sources
            .iter()
            .enumerate()
            .map(|(i, &s)| {
                // A select's condition is bool, whatever its branches are.
                let d = if matches!(item.op, Op::Select) && i == 0 { DType::Bool } else { from };
                self.source(s, item.level, d)
            })
            .collect();
        let elements = args.iter().map(Vec::len).max().unwrap_or(1);
        let mut v = Vec::with_capacity(elements);
        for i in 0..elements {
            let args: Vec<String> = args.iter().map(|a| at(a, i).to_owned()).collect();
            let (out, to) = (&mut self.text[depth], item.result.dtype);
            v.push(operation(out, &mut self.names, &item.op, &args, from, to));
        }
        self.known[depth].insert(Known::Item(k), v.clone());
        v
    }

    fn source(&mut self, s: Source, level: Level, d: DType) -> Value {
        match s {
            Source::Item { index, .. } => self.item(index),
            Source::Constant(c) => {
                let key = Known::Constant(c.to_bits(), d);
                if let Some(v) = self.known[0].get(&key) {
                    return v.clone();
                }
                let v = vec![constant(&mut self.text[0], &mut self.names, c, d)];
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

    fn input(&mut self, index: usize, level: Level) -> Value {
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
        let elements = self.elements(depth);
        let v = load(&mut self.text[depth], &mut self.names, &memref, &at, d, elements);
        self.known[depth].insert(key, v.clone());
        v
    }

    /// Index of the current element in a full-level buffer.
    pub fn element(&self) -> String {
        match self.body.split {
            None => "%row".to_string(),
            Some(_) => at(&self.known[2][&Known::Element], 0).to_owned(),
        }
    }

    /// The row or column as a number.
    fn index_value(&mut self, axis: usize, level: Level, d: DType) -> Value {
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
        let mut values = Vec::new();
        for i in 0..self.elements(depth) {
            let index = offset(&mut self.text[depth], &mut self.names, name, i);
            values.push(index_as(&mut self.text[depth], &mut self.names, &index, d));
        }
        self.known[depth].insert(key, values.clone());
        values
    }
}

/// An index as a number of this type.
pub fn index_as(out: &mut String, names: &mut Names, index: &str, d: DType) -> String {
    let int = names.fresh();
    let _ = writeln!(out, "{int} = arith.index_cast {index} : index to i32");
    if !d.is_float() {
        return int;
    }
    let v = names.fresh();
    let _ = writeln!(out, "{v} = arith.sitofp {int} : i32 to {}", register(d));
    v
}
