//! A generated kernel as text: what it computes, and the MLIR it becomes.
//!
//! Names depend on the kernel alone, and number the results of each operation apart, so that one operation more renames
//! few others.

use super::rename::with_names;
use crate::fuse::body::{Access, Body, Level, Source};
use crate::graph::Op;
use crate::lower::kernel::{KernelSpec, Kind, partial};
use crate::lower::mlir_function;
use crate::text;
use std::collections::{BTreeMap, HashMap};

/// What the kernel computes, a line each operation. Says all that the code depends on, as `KernelSpec::canonical` does.
pub fn operations(spec: &KernelSpec) -> Vec<String> {
    match &spec.kind {
        Kind::Region(body) => region(spec, body),
        Kind::Move { op, operands, result } => {
            let operands: Vec<String> =
                operands.iter().enumerate().map(|(k, t)| format!("in{k}: {t}")).collect();
            vec![operands.join(", "), format!("return {} : {result}", text::operation(op))]
        }
        Kind::Finish { parts, width, max, dtype } => {
            let how = if *max { "largest" } else { "sum" };
            vec![
                format!("in0: {dtype}[{parts},{width}]"),
                format!("return {how} over parts : {dtype}[{width}]"),
            ]
        }
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Full => "element",
        Level::Outer => "row",
        Level::Inner => "column",
        Level::Scalar => "scalar",
    }
}

fn region(spec: &KernelSpec, body: &Body) -> Vec<String> {
    let mut lines = vec![match body.split {
        Some(_) => format!("rows of {} columns", body.columns()),
        None => "elements".to_owned(),
    }];
    if spec.outputs.iter().any(|o| partial(body, &body.items[o.item]).is_some()) {
        lines.push(format!("{} rows a task", spec.rows_per_task));
    }
    lines.extend(body.input_types.iter().enumerate().map(|(k, t)| format!("in{k}: {}", t.dtype)));
    let mut taken: HashMap<&str, usize> = HashMap::new();
    let names: Vec<String> = body
        .items
        .iter()
        .map(|item| {
            let word = item.op.mnemonic();
            let count = taken.entry(word).or_default();
            *count += 1;
            format!("%{word}{}", *count - 1)
        })
        .collect();
    for (k, item) in body.items.iter().enumerate() {
        let sources: Vec<String> = item.sources.iter().map(|s| source(body, s, &names)).collect();
        let (of, to) = (level(item.level), level(body.result_level(k)));
        let word = match &item.op {
            Op::Reduce { .. } => item.op.mnemonic().to_owned(),
            op => text::operation(op),
        };
        let mut line = format!("{} = {word} {} : {of}", names[k], sources.join(", "));
        if of != to {
            line += &format!(" -> {to}");
        }
        line += &match (item.operand, item.result.dtype) {
            (operand, result) if operand == result => format!(" {result}"),
            (operand, result) => format!(" {operand} -> {result}"),
        };
        lines.push(line);
    }
    lines.extend(spec.outputs.iter().map(|o| {
        let over = o.in_place.map(|k| format!(" over in{k}")).unwrap_or_default();
        format!("return {} : {}{over}", names[o.item], o.ty.dtype)
    }));
    lines
}

fn source(body: &Body, source: &Source, names: &[String]) -> String {
    let read = |name: &str, access: Access| match access {
        Access::Direct => name.to_owned(),
        Access::Prefix => format!("{name}[row]"),
        Access::Suffix => format!("{name}[column]"),
        Access::Splat => format!("{name}[]"),
    };
    match *source {
        Source::Item { index, access } => read(&names[index], access),
        Source::Input { index, access } => read(&format!("in{index}"), access),
        Source::Constant(value) => text::number(value),
        // The last axis is 1.
        Source::Iota(axis) => format!("index[-{}]", body.full.len() - axis),
    }
}

/// The kernel's MLIR, indented, as a function `kernel`, whose values are called by what makes them. Parses as what it was.
pub fn mlir(spec: &KernelSpec) -> Vec<String> {
    let text = mlir_function(spec).replace(&format!("@{}", spec.symbol()), "@kernel");
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    let mut taken: HashMap<String, usize> = HashMap::new();
    let mut depth = 0usize;
    let mut out = Vec::new();
    for line in text.lines() {
        // `%v4 = arith.addf %v3, ...`; what a loop carries is named in the middle of its line.
        let made = line.split_once(" = ").filter(|(name, _)| name.starts_with('%') && !name.contains(' '));
        let mut operation = made.and_then(|(_, made)| made.split(' ').next());
        let named = with_names(line, |name| {
            if !numbered(name) {
                return name.to_owned();
            }
            let maker = operation.take().filter(|_| !given.contains_key(name)).unwrap_or("carried");
            let word = maker.rsplit('.').next().unwrap_or(maker);
            let fresh = || {
                let count = taken.entry(word.to_owned()).or_default();
                *count += 1;
                format!("%{word}_{}", *count - 1)
            };
            given.entry(name.to_owned()).or_insert_with(fresh).clone()
        });
        if line.starts_with('}') {
            depth = depth.saturating_sub(1);
        }
        out.push(format!("{}{named}", "  ".repeat(depth)));
        depth += usize::from(line.ends_with('{'));
    }
    out
}

/// `%v12`.
fn numbered(name: &str) -> bool {
    name.strip_prefix("%v").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{OptimizeOptions, optimize};
    use crate::lower::lower;

    const NORM: &str = "graph @rms(%x: f32[64,128], %g: f32[128] {role=state, init=ones}) -> (f32[64,128]) {
        %2 = mul %x, %x
        %3 = reduce_sum %2 {axes=[1]}
        %4 = rsqrt %3
        %5 = broadcast %4 {dims=[0]} : f32[64,128]
        %6 = mul %x, %5
        %7 = broadcast %g {dims=[1]} : f32[64,128]
        %8 = mul %6, %7
        return y = %8
    }";

    fn kernel(text: &str) -> KernelSpec {
        let mut g = crate::text::parse(text, "t").unwrap();
        optimize(&mut g, &OptimizeOptions::default()).unwrap();
        lower(&g).unwrap().kernels.remove(0)
    }

    #[test]
    fn a_norm_reads_as_it_is_written() {
        let lines = operations(&kernel(NORM));
        assert_eq!(
            lines,
            [
                "rows of 128 columns",
                "in0: f32",
                "in1: f32",
                "%mul0 = mul in0, in0 : element f32",
                "%reduce_sum0 = reduce_sum %mul0 : element -> row f32",
                "%rsqrt0 = rsqrt %reduce_sum0 : row f32",
                "%mul1 = mul in0, %rsqrt0[row] : element f32",
                "%mul2 = mul %mul1, in1[column] : element f32",
                "return %mul2 : f32",
            ]
        );
    }

    #[test]
    fn ids_of_nodes_change_nothing() {
        let renumbered = NORM.replace("%8", "%80").replace("%3", "%33").replace("%5", "%51");
        let (a, b) = (kernel(NORM), kernel(&renumbered));
        assert_eq!((operations(&a), mlir(&a)), (operations(&b), mlir(&b)));
    }

    #[test]
    fn every_value_of_the_mlir_has_a_name_of_its_own() {
        let spec = kernel(NORM);
        let (before, after) = (mlir_function(&spec), mlir(&spec));
        assert!(before.contains("%v1 ") && after.iter().all(|l| !l.contains("%v")), "{after:#?}");
        let made = |lines: &mut dyn Iterator<Item = &str>| -> Vec<String> {
            lines.filter_map(|l| l.trim().split_once(" = ")).map(|(name, _)| name.to_owned()).collect()
        };
        let (before, after) = (made(&mut before.lines()), made(&mut after.iter().map(String::as_str)));
        let mut different = after.clone();
        different.sort();
        different.dedup();
        assert_eq!((before.len(), before.len()), (after.len(), different.len()));
    }
}
