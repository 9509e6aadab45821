//! What the actions of a case do.

use super::case::Case;
use super::machine::{self, Job};
use super::plan;
use crate::autodiff::vjp;
use crate::cost::CostModel;
use crate::fuse::FusionLog;
use crate::fuse::body::is_item;
use crate::fuse::decision::Outcome;
use crate::fuse::shuffle::Shuffle;
use crate::graph::{Graph, Op, Role, Value};
use crate::interp::{Precision, Tensor, interpret_in};
use crate::lower::{LowerError, lower};
use crate::passes::pipeline::{self, Options};
use crate::passes::{Context, Pass, Registry};
use crate::recompute::budget::Search;
use crate::text::{number, parse, parse_unverified, print};
use crate::verify::verify;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

pub enum Action {
    Parse,
    Verify,
    Interpret(Precision),
    /// The kernels after these passes, and what fusion decided.
    Kernels {
        passes: Vec<Pass>,
        decisions: bool,
    },
    /// The program that the graph lowers to after these passes.
    Plan(Vec<Pass>),
    /// What runs again after the passes of every model so that the program takes no more bytes.
    Budget(u64),
    /// Machine code after these passes, held to the interpreter.
    RunCpu(Vec<Pass>),
    /// The graph after these passes.
    Passes(Vec<Pass>),
}

/// What an action gives at once, or machine code that must run first.
pub enum Made {
    Text(String),
    Job(Box<Job>),
}

impl Action {
    /// `interpret f32`, `run cpu legalize,outline`, `simplify,cse`, ...
    pub fn parse(text: &str, registry: &Registry) -> Result<Action, String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let passes = |list: &str, default: &str| {
            let list = if list.trim().is_empty() { default } else { list };
            registry.parse_list(list).map_err(|e| e.to_string())
        };
        Ok(match (word, rest.trim()) {
            ("parse", "") => Action::Parse,
            ("verify", "") => Action::Verify,
            ("interpret", "") => Action::Interpret(Precision::F64),
            ("interpret", "f32") => Action::Interpret(Precision::F32),
            ("kernels", list) => Action::Kernels { passes: passes(list, "fuse")?, decisions: false },
            ("explain", list) => Action::Kernels { passes: passes(list, "fuse")?, decisions: true },
            ("budget", bytes) => {
                let bad = |_| format!("`budget {bytes}`: the budget is a whole number of bytes");
                Action::Budget(bytes.parse().map_err(bad)?)
            }
            ("plan", list) => Action::Plan(passes(list, "default")?),
            ("run", list) if list == "cpu" || list.starts_with("cpu ") => {
                Action::RunCpu(passes(&list["cpu".len()..], "default")?)
            }
            _ => Action::Passes(passes(text, "")?),
        })
    }

    /// `number` tells machine code of this case from that of others.
    pub fn make(&self, case: &Case, number: usize) -> Result<Made, String> {
        let text = case.text();
        let read = || {
            let g = parse(&text, "input").map_err(|e| e.to_string())?;
            if case.wants_gradients() { with_gradients(g) } else { Ok(g) }
        };
        let made = match self {
            Action::Parse => canonical(&read()?)?,
            Action::Verify => {
                let g = parse_unverified(&text, "input").map_err(|e| e.to_string())?;
                match verify(&g) {
                    Ok(()) => "ok".into(),
                    Err(problems) => problems.iter().map(|p| format!("{p}\n")).collect(),
                }
            }
            Action::Interpret(precision) => interpreted(case, &read()?, *precision)?,
            Action::Kernels { passes, decisions } => {
                let (g, log) = after(case, read()?, passes)?;
                let log = log.ok_or("`fuse` is not among the passes")?;
                kernels(&g, &log, *decisions)
            }
            Action::Plan(passes) => {
                let (g, _) = after(case, read()?, passes)?;
                plan::text(&lower(&g).map_err(|e| e.to_string())?)
            }
            Action::Budget(bytes) => {
                let (g, _) = after(
                    case,
                    read()?,
                    &Registry::default().parse_list("default").map_err(|e| e.to_string())?,
                )?;
                budget(&g, *bytes).map_err(|e| e.to_string())?
            }
            Action::RunCpu(passes) => {
                let g = read()?;
                let given = inputs(case, &g)?;
                let truth = interpret_in(&g, &given, Precision::F64).map_err(|e| e.to_string())?;
                let (g, _) = after(case, g, passes)?;
                let tolerance = machine::tolerance(case)?;
                return Job::new(g, number, given, truth, tolerance).map(|job| Made::Job(Box::new(job)));
            }
            Action::Passes(passes) => canonical(&after(case, read()?, passes)?.0)?,
        };
        Ok(Made::Text(made))
    }
}

/// The graph with the gradient of every f32 input, `d.x` of an input `x`. Its cotangent is an input `d.y` for each output
/// `y`, but 1 for an output named `loss`.
fn with_gradients(mut g: Graph) -> Result<Graph, String> {
    let inputs = g.inputs.clone();
    let is_float = |g: &Graph, v: Value| g.ty(v).dtype.is_float();
    let mut seeds = vec![];
    let mut outputs = g.outputs.clone();
    outputs.retain(|o| is_float(&g, o.value));
    for o in outputs {
        let ty = g.ty(o.value).clone();
        let seed = match o.name.as_str() {
            "loss" => g.constant(1.0, ty),
            name => g.new_input(&format!("d.{name}"), ty, Role::Data),
        };
        seeds.push((o.value, seed));
    }
    let wrt: Vec<Value> = inputs.into_iter().map(Value::from).filter(|&v| is_float(&g, v)).collect();
    let found = vjp(&mut g, &seeds, &wrt).map_err(|e| e.to_string())?;
    for (v, d) in wrt.into_iter().zip(found) {
        let name = format!("d.{}", g.input_name(v.node).unwrap_or_default());
        if let Some(d) = d {
            g.output(&name, d);
        }
    }
    Ok(g)
}

/// The text of a graph, which parses back to itself.
fn canonical(g: &Graph) -> Result<String, String> {
    let printed = print(g);
    match parse(&printed, "printed").map(|g| print(&g)) {
        Ok(again) if again == printed => Ok(printed),
        again => Err(format!("what was printed does not parse back to itself: {again:?}\n{printed}")),
    }
}

/// The graph after these passes, verified after each, and what fusion decided if it was among them.
fn after(case: &Case, mut g: Graph, passes: &[Pass]) -> Result<(Graph, Option<FusionLog>), String> {
    let options = Options { verify: true, ..Options::default() };
    let mut context = Context { shuffle: shuffle(case)?, ..Context::default() };
    pipeline::run(&mut g, passes, &options, &mut context).map_err(|e| e.to_string())?;
    Ok((g, context.fusion))
}

/// The seed of a line `// shuffle = 7`, by which `fuse` then merges.
fn shuffle(case: &Case) -> Result<Option<Shuffle>, String> {
    let Some(line) = case.settings("shuffle").next() else { return Ok(None) };
    let seed = line.trim_start_matches('=').trim();
    let seed = seed.parse().map_err(|e| format!("shuffle {seed}: {e}"))?;
    Ok(Some(Shuffle { seed }))
}

fn kernels(g: &Graph, log: &FusionLog, decisions: bool) -> String {
    let mut out = String::new();
    for d in log.decisions.iter().filter(|_| decisions) {
        let pair = if d.siblings { "beside" } else { "into" };
        let outcome = match d.outcome {
            Outcome::Fused { .. } => format!("fused, {} bytes saved", d.bytes_saved),
            Outcome::Refused(reason) => serde_json::to_string(&reason).unwrap_or_default().replace('"', ""),
        };
        let _ = writeln!(out, "%{} {pair} %{}: {outcome}", d.producer, d.consumer);
    }
    for n in g.topological() {
        let Op::Fused { region } = g.op(n) else { continue };
        let _ = writeln!(out, "kernel %{}: {}", g.node(n).id, items(region).join(" "));
    }
    out
}

/// The operations that a region computes, in its order.
fn items(region: &Graph) -> Vec<&'static str> {
    let ops = region.topological().into_iter().map(|m| region.op(m));
    ops.filter(|op| is_item(op)).map(Op::mnemonic).collect()
}

fn budget(g: &Graph, budget: u64) -> Result<String, LowerError> {
    let cost = CostModel::default();
    let planned = lower(g)?;
    let mut out = format!("{} bytes\n", planned.program.total_bytes());
    let (point, fitted, lowered) = Search::new(g, &planned, &cost).fit(budget)?;
    let bytes = lowered.program.total_bytes();
    let Some(point) = point else {
        let _ = writeln!(out, "at least {bytes} bytes, more than {budget}");
        return Ok(out);
    };
    let _ = writeln!(out, "{bytes} bytes within {budget}");
    for r in &point.rerun {
        let _ = writeln!(out, "again {}: {} of {}, {} bytes", r.group, r.values, r.of, r.bytes);
    }
    // Copies are the nodes that the graph did not have.
    let ids: BTreeSet<u32> = g.nodes().node_weights().map(|n| n.id).collect();
    for n in fitted.topological().into_iter().filter(|&n| !ids.contains(&fitted.node(n).id)) {
        let operand = |v: Value| match fitted.input_name(v.node) {
            Some(name) => format!("%{name}"),
            None if v.result == 0 => format!("%{}", fitted.node(v.node).id),
            None => format!("%{}#{}", fitted.node(v.node).id, v.result),
        };
        let operands: Vec<String> = fitted.operands(n).into_iter().map(operand).collect();
        let what = match fitted.op(n) {
            Op::Fused { region } => items(region).join(" "),
            op => op.mnemonic().to_owned(),
        };
        let node = fitted.node(n);
        let scope = node.scope.as_deref().unwrap_or_default();
        let _ = writeln!(out, "%{} = {what} ({}) @{scope}", node.id, operands.join(", "));
    }
    Ok(out)
}

/// The inputs of lines `// input x = 1, 2, 3`. One number fills any shape; numbers that end with `...` repeat.
fn inputs(case: &Case, g: &Graph) -> Result<BTreeMap<String, Tensor>, String> {
    let mut inputs = BTreeMap::new();
    for line in case.settings("input") {
        let (name, values) =
            line.split_once(" = ").ok_or_else(|| format!("`// input {line}` is not `NAME = NUMBERS`"))?;
        let ty = g.ty(g.input(name).ok_or(format!("the graph has no input {name}"))?);
        let (values, repeat) = match values.trim().strip_suffix("...") {
            Some(values) => (values.trim_end().trim_end_matches(','), true),
            None => (values, false),
        };
        let parsed: Result<Vec<f64>, _> = values.split(',').map(|v| v.trim().parse()).collect();
        let mut values = parsed.map_err(|e| format!("input {name}: {e}"))?;
        if repeat || values.len() == 1 {
            values = values.into_iter().cycle().take(ty.elements()).collect();
        }
        inputs.insert(name.to_string(), Tensor::new(ty, values));
    }
    Ok(inputs)
}

fn interpreted(case: &Case, g: &Graph, precision: Precision) -> Result<String, String> {
    let outputs = interpret_in(g, &inputs(case, g)?, precision).map_err(|e| e.to_string())?;
    let mut out = String::new();
    for o in &g.outputs {
        let t = &outputs[&o.name];
        // Ten digits: mathematical libraries differ in the last ones.
        let shown = t.data.iter().map(|x| number(format!("{x:.9e}").parse().unwrap_or(*x)));
        let _ = writeln!(out, "{}: {} = {}", o.name, t.ty(), shown.collect::<Vec<_>>().join(", "));
    }
    Ok(out)
}
