//! A pass from scratch, registered while the program runs: the worked example of docs/adding-a-pass.md.
//!
//! `cargo run --release -p isoflop-compiler --example adding_a_pass`; with `BLESS=1` it writes CHECK lines.

use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::filetest::{Harness, check};
use isoflop_compiler::graph::{Binary, Graph, Op, Value};
use isoflop_compiler::model::training_graph;
use isoflop_compiler::passes::pipeline::{self, Options};
use isoflop_compiler::passes::{Context, Pass, Registry};
use std::error::Error;
use std::path::Path;

/// a + b + b becomes a + 2 b, one operation of a machine that multiplies and adds at once. The gradient of x * x has such
/// sums: one for each of the two operands.
pub const TWICE: Pass =
    Pass { name: "twice", description: "a + b + b becomes a + 2 b", changes_rounding: true, run: twice };

fn twice(g: &mut Graph, _: &mut Context) {
    for n in g.topological() {
        if !matches!(g.op(n), Op::Binary(Binary::Add)) {
            continue;
        }
        let operands = g.operands(n);
        let (l, r) = (operands[0], operands[1]);
        let found = other_term(g, l, r).map(|a| (a, r, l)).or_else(|| other_term(g, r, l).map(|a| (a, l, r)));
        let Some((a, b, sum)) = found else { continue };
        g.set_scope_of(n);
        let two = g.constant_like(2.0, b);
        let double = g.mul(b, two);
        let made = g.add2(a, double);
        g.replace(n.into(), made);
        g.remove(n);
        g.remove(sum.node);
    }
}

/// a, if `sum` is a + b or b + a, and nobody else reads it: otherwise it is computed anyway.
fn other_term(g: &Graph, sum: Value, b: Value) -> Option<Value> {
    let read_once = g.uses(sum).len() == 1 && g.outputs.iter().all(|o| o.value != sum);
    if !matches!(g.op(sum.node), Op::Binary(Binary::Add)) || !read_once {
        return None;
    }
    let terms = g.operands(sum.node);
    match terms.iter().position(|&t| t == b)? {
        0 => Some(terms[1]),
        _ => Some(terms[0]),
    }
}

/// The passes of every model, with ours after `cse`, which makes equal terms one node.
pub const PIPELINE: &str = "match-attention,match-head,fold,cse,twice,dce,recompute,dce,legalize,fuse";

/// Runs the cases beside this file. What differs from their CHECK lines is the error.
pub fn cases(bless: bool) -> Result<usize, Box<dyn Error>> {
    let registry = Registry::with(&[TWICE]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/adding_a_pass");
    let report = check(&[folder], &Harness { registry: &registry, execute: None, filter: None, bless })?;
    let failures: Vec<String> = report.failures.iter().map(|f| f.to_string()).collect();
    if failures.is_empty() { Ok(report.actions()) } else { Err(failures.join("\n").into()) }
}

/// What each pass did to a model's training step.
pub fn on_a_model() -> Result<pipeline::Trace, Box<dyn Error>> {
    let model = ModelConfig::gopher(2, 2, 8, 16, 64, 16);
    let step = StepConfig::new(2);
    let mut g = training_graph(&model, &step)?;
    let passes = Registry::with(&[TWICE]).parse_list(PIPELINE)?;
    let options = Options { verify: true, ..Options::default() };
    Ok(pipeline::run(&mut g, &passes, &options, &mut Context::default())?)
}

#[allow(dead_code)] // A test takes this file as a module, and has a `main` of its own.
fn main() -> Result<(), Box<dyn Error>> {
    let bless = std::env::var_os("BLESS").is_some_and(|v| v == "1");
    println!("{} actions as their CHECK lines say", cases(bless)?);
    print!("{}", on_a_model()?);
    Ok(())
}
