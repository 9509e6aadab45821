//! What differs between a kernel for a CPU and one for a GPU: the function around the loops, where they begin and how far
//! they step, and how buffers are addressed. What is inside the loops is the same.
//!
//! A CPU kernel runs rows `lo..hi` of a task, one element at a time, and LLVM makes vectors of that. A GPU kernel runs over
//! all rows: groups of lanes take rows in turn, and each lane takes `vector` neighbouring elements at once.

use super::grid::Grid;
use super::scalar::{Names, memory, register};
use isoflop_kernels::DType;
use std::fmt::Write;

/// A value in registers: one name, or one for each element that a lane takes at once.
pub type Value = Vec<String>;

/// The name of element `i` of a value; a value with one name is the same for all elements.
pub fn at(value: &[String], i: usize) -> &str {
    &value[if value.len() == 1 { 0 } else { i }]
}

/// First index, end and step of a loop.
#[derive(Clone, Debug)]
pub struct Range {
    pub from: String,
    pub to: String,
    pub step: String,
}

impl Range {
    pub fn of(from: &str, to: &str, step: &str) -> Range {
        Range { from: from.into(), to: to.into(), step: step.into() }
    }
}

/// Rows, or flat elements, that a task or a group of lanes runs over.
pub fn rows(grid: Option<&Grid>) -> Range {
    match grid {
        None => Range::of("%lo", "%hi", "%c1"),
        Some(_) => Range::of("%first", "%rows", "%stride"),
    }
}

/// Columns of a row, up to `width`.
pub fn columns(grid: Option<&Grid>, width: &str) -> Range {
    match grid {
        None => Range::of("%c0", width, "%c1"),
        Some(_) => Range::of("%firstcol", width, "%colstep"),
    }
}

/// Elements that one lane takes at once.
pub fn vector(grid: Option<&Grid>) -> usize {
    grid.map_or(1, |g| g.vector)
}

/// The type of every buffer argument.
pub fn memref(names: &Names, d: DType) -> String {
    let space = if names.cuda { ", 1" } else { "" };
    format!("memref<1099511627776x{}{space}>", memory(d))
}

pub fn argument(names: &Names, name: &str, d: DType) -> String {
    format!("{name}: {} {{llvm.noalias, llvm.align = 64 : i64}}", memref(names, d))
}

/// The function of a kernel, with what its loops need to know before `inner`.
pub fn function(names: &Names, grid: Option<&Grid>, name: &str, args: &[String], inner: &str) -> String {
    let mut list = args.join(", ");
    if !list.is_empty() {
        list.push_str(", ");
    }
    let Some(grid) = grid else {
        return format!(
            "func.func @{name}({list}%lo64: i64, %hi64: i64) attributes {{passthrough = [[\"prefer-vector-width\", \"512\"]]}} {{\n\
             %lo = arith.index_cast %lo64 : i64 to index\n%hi = arith.index_cast %hi64 : i64 to index\n\
             %c0 = arith.constant 0 : index\n%c1 = arith.constant 1 : index\n{inner}return\n}}\n"
        );
    };
    let mut globals = String::new();
    let mut shared = String::new();
    for (d, elements) in &names.shared {
        let (ty, element) = (format!("memref<{elements}x{}, 3>", register(*d)), d.name());
        let _ = writeln!(globals, "memref.global \"private\" @{name}_{element} : {ty}");
        let _ = writeln!(shared, "%shared_{element} = memref.get_global @{name}_{element} : {ty}");
    }
    let Grid { threads, lanes, vector, .. } = grid;
    format!(
        "{globals}func.func @{name}({list}%rows64: i64) attributes {{passthrough = [[\"nvvm.reqntid\", \"{threads}\"]]}} {{\n\
         %rows = arith.index_cast %rows64 : i64 to index\n\
         %c0 = arith.constant 0 : index\n%c1 = arith.constant 1 : index\n\
         %vector = arith.constant {vector} : index\n%lanes = arith.constant {lanes} : index\n\
         %thread32 = nvvm.read.ptx.sreg.tid.x : i32\n%thread = arith.index_castui %thread32 : i32 to index\n\
         %block32 = nvvm.read.ptx.sreg.ctaid.x : i32\n%block = arith.index_castui %block32 : i32 to index\n\
         %blocks32 = nvvm.read.ptx.sreg.nctaid.x : i32\n%blocks = arith.index_castui %blocks32 : i32 to index\n\
         {}{shared}{inner}return\n}}\n",
        places(grid)
    )
}

/// Which rows and columns are this thread's.
fn places(grid: &Grid) -> String {
    let Grid { threads, lanes, vector, .. } = grid;
    let groups = threads / lanes;
    if grid.flat {
        return format!(
            "%threads = arith.constant {threads} : index\n\
             %before = arith.muli %block, %threads : index\n%global = arith.addi %before, %thread : index\n\
             %first = arith.muli %global, %vector : index\n\
             %atonce = arith.constant {} : index\n%stride = arith.muli %blocks, %atonce : index\n\
             %isfirst = arith.cmpi eq, %thread, %c0 : index\n",
            threads * vector
        );
    }
    format!(
        "%groups = arith.constant {groups} : index\n\
         %lane = arith.remui %thread, %lanes : index\n%groupofblock = arith.divui %thread, %lanes : index\n\
         %before = arith.muli %block, %groups : index\n%first = arith.addi %before, %groupofblock : index\n\
         %stride = arith.muli %blocks, %groups : index\n\
         %firstcol = arith.muli %lane, %vector : index\n%colstep = arith.constant {} : index\n\
         %isfirst = arith.cmpi eq, %lane, %c0 : index\n",
        lanes * vector
    )
}

/// Elements of one access: as many as make 16 bytes.
fn access(d: DType, elements: usize) -> usize {
    elements.min(16 / d.bytes())
}

/// Loads `elements` neighbours from `index` on, as the kernel's register type.
pub fn load(
    out: &mut String,
    names: &mut Names,
    memref: &str,
    index: &str,
    d: DType,
    elements: usize,
) -> Value {
    let ty = self::memref(names, d);
    let mut values = Vec::with_capacity(elements);
    if elements == 1 {
        let v = names.fresh();
        let _ = writeln!(out, "{v} = memref.load {memref}[{index}] : {ty}");
        values.push(v);
    }
    let step = access(d, elements);
    for first in (0..elements).step_by(step).filter(|_| elements > 1) {
        let at = offset(out, names, index, first);
        let (v, bytes) = (names.fresh(), step * d.bytes());
        let part = format!("vector<{step}x{}>", memory(d));
        let _ =
            writeln!(out, "{v} = vector.load {memref}[{at}] {{alignment = {bytes} : i64}} : {ty}, {part}");
        for k in 0..step {
            let one = names.fresh();
            let _ = writeln!(out, "{one} = vector.extract {v}[{k}] : {} from {part}", memory(d));
            values.push(one);
        }
    }
    if d != DType::Bool {
        return values;
    }
    let to_bit = |v: String| {
        let bit = names.fresh();
        let _ = writeln!(out, "{bit} = arith.trunci {v} : i8 to i1");
        bit
    };
    values.into_iter().map(to_bit).collect()
}

/// Stores `elements` neighbours from `index` on.
pub fn store(
    out: &mut String,
    names: &mut Names,
    value: &[String],
    memref: &str,
    index: &str,
    d: DType,
    elements: usize,
) {
    let mut value = value.to_vec();
    if d == DType::Bool {
        for v in &mut value {
            let byte = names.fresh();
            let _ = writeln!(out, "{byte} = arith.extui {v} : i1 to i8");
            *v = byte;
        }
    }
    let ty = self::memref(names, d);
    if elements == 1 {
        let _ = writeln!(out, "memref.store {}, {memref}[{index}] : {ty}", value[0]);
        return;
    }
    let step = access(d, elements);
    for first in (0..elements).step_by(step) {
        let at_index = offset(out, names, index, first);
        let (v, bytes) = (names.fresh(), step * d.bytes());
        let part = format!("vector<{step}x{}>", memory(d));
        let list: Vec<&str> = (first..first + step).map(|k| at(&value, k)).collect();
        let _ = writeln!(out, "{v} = vector.from_elements {} : {part}", list.join(", "));
        let _ = writeln!(
            out,
            "vector.store {v}, {memref}[{at_index}] {{alignment = {bytes} : i64}} : {ty}, {part}"
        );
    }
}

/// `index` and so many more.
pub fn offset(out: &mut String, names: &mut Names, index: &str, more: usize) -> String {
    if more == 0 {
        return index.to_owned();
    }
    let (c, sum) = (names.fresh(), names.fresh());
    let _ = writeln!(out, "{c} = arith.constant {more} : index\n{sum} = arith.addi {index}, {c} : index");
    sum
}
