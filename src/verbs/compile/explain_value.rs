//! `isoflop compile --explain OP`: where values of the training step are, in memory or in registers, and why.

use crate::cli::Format;
use crate::output;
use isoflop_compiler::driver::ProgramPlan;
use isoflop_compiler::fuse::body::is_free;
use isoflop_compiler::fuse::decision::Outcome;
use isoflop_compiler::graph::{Graph, NodeIndex, Op, Value};
use isoflop_kernels::program::{BufferId, Space};
use isoflop_sweeps::{display, file};
use miette::{IntoDiagnostic, miette};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};

/// Names shown where no value matches.
const NEAR: usize = 8;

/// What is said of one value.
#[derive(Debug, Serialize)]
struct Placed {
    /// Node of the graph before fusion; `%42#1` is the second result of a node.
    value: String,
    op: &'static str,
    scope: Option<String>,
    r#type: String,
    bytes: u64,
    /// In memory; none for a value that is only ever in registers.
    memory: Option<Memory>,
    /// Kernels that hold it in registers.
    registers: Vec<Kernel>,
    /// Why it is where it is.
    why: Vec<String>,
    /// Nodes that read it, through views and what kernels make in registers.
    readers: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Memory {
    buffer: String,
    space: Space,
    /// Bytes from the start of the arena; none outside it.
    offset: Option<u64>,
    /// First and last launch that touch the buffer.
    launches: Option<[usize; 2]>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Kernel {
    /// Id of its `fused` node.
    node: u32,
    symbol: String,
}

/// Every value that `wanted` names: a node id (`%42`), an operation, or part of a scope. `before` is the training graph
/// as it was before fusion.
pub fn values(plan: &ProgramPlan, before: &Graph, wanted: &str, format: Format) -> miette::Result<String> {
    let matches: Vec<NodeIndex> =
        before.topological().into_iter().filter(|&n| is_meant(before, n, wanted)).collect();
    if matches.is_empty() {
        return Err(no_match(before, wanted));
    }
    let explained = Explained::new(plan, before);
    let all: Vec<Placed> = matches
        .into_iter()
        .flat_map(|n| (0..before.node(n).results.len()).map(move |k| Value { node: n, result: k as u16 }))
        .map(|v| explained.value(v))
        .collect();
    if format == Format::Json {
        return serde_json::to_string_pretty(&all).map(|text| text + "\n").into_diagnostic();
    }
    Ok(table(&all))
}

fn is_meant(g: &Graph, n: NodeIndex, wanted: &str) -> bool {
    let node = g.node(n);
    if let Some(id) = wanted.strip_prefix('%') {
        return g.input_name(n) == Some(id) || id.parse() == Ok(node.id);
    }
    node.op.mnemonic() == wanted || node.scope.as_deref().is_some_and(|s| s.contains(wanted))
}

fn no_match(g: &Graph, wanted: &str) -> miette::Report {
    if let Some(id) = wanted.strip_prefix('%') {
        let ids = || g.nodes().node_weights().map(|n| n.id);
        let Ok(number) = id.parse::<u32>() else {
            let names: Vec<String> =
                g.inputs.iter().filter_map(|&n| g.input_name(n)).map(str::to_owned).collect();
            let hint = file::nearest(id, &names).map(|n| format!(", did you mean `%{n}`?"));
            return miette!(
                "`{wanted}` is neither a node id such as %42 nor an input{}",
                hint.unwrap_or_default()
            );
        };
        let below = ids().filter(|&i| i < number).max();
        let above = ids().filter(|&i| i > number).min();
        let near: Vec<String> = [below, above].into_iter().flatten().map(|i| format!("%{i}")).collect();
        return miette!(
            "there is no node {wanted} after the passes, which may have removed it; the nearest are {}",
            near.join(" and ")
        );
    }
    let mut names: BTreeSet<String> = g.nodes().node_weights().map(|n| n.op.mnemonic().to_owned()).collect();
    names.extend(g.nodes().node_weights().filter_map(|n| n.scope.as_deref()).map(str::to_owned));
    // Parts of scopes are valid too: `gelu` of `layers.0.gelu`.
    let parts: Vec<String> = names.iter().flat_map(|n| n.split('.')).map(str::to_owned).collect();
    names.extend(parts);
    let names: Vec<String> = names.into_iter().collect();
    let hint = file::nearest(wanted, &names).map(|n| format!(", did you mean `{n}`?")).unwrap_or_default();
    let starts = wanted.chars().next();
    let near: Vec<&str> =
        names.iter().filter(|n| n.chars().next() == starts).take(NEAR).map(String::as_str).collect();
    let near = if near.is_empty() { String::new() } else { format!(" Names like it: {}.", near.join(", ")) };
    miette!(
        "nothing in the training step is called `{wanted}`{hint}{near} --explain takes `fusion`, a node id such as %42, \
         an operation such as `mul`, or part of a scope such as `layers.0`"
    )
}

/// What explanations look up.
struct Explained<'a> {
    plan: &'a ProgramPlan,
    g: &'a Graph,
    /// Does the loss depend on this node?
    forward: Vec<bool>,
    /// Why two kernels, by the ids of their nodes, stayed two.
    refusals: HashMap<(u32, u32), &'static str>,
    launches: HashMap<BufferId, [usize; 2]>,
}

impl<'a> Explained<'a> {
    fn new(plan: &'a ProgramPlan, g: &'a Graph) -> Self {
        let mut forward = vec![false; g.index_bound()];
        let mut stack: Vec<NodeIndex> = g.output_named("loss").into_iter().map(|v| v.node).collect();
        while let Some(n) = stack.pop() {
            if !std::mem::replace(&mut forward[n.index()], true) {
                stack.extend(g.operands(n).into_iter().map(|v| v.node));
            }
        }
        let kernel = |id: u32| plan.fusion.members.get(&id).map(|m| m.kernel);
        let mut refusals = HashMap::new();
        for d in &plan.fusion.decisions {
            if let (Outcome::Refused(reason), Some(a), Some(b)) =
                (d.outcome, kernel(d.producer), kernel(d.consumer))
            {
                refusals.insert((a, b), reason.sentence());
                refusals.insert((b, a), reason.sentence());
            }
        }
        let mut launches: HashMap<BufferId, [usize; 2]> = HashMap::new();
        for (i, launch) in plan.train.program.launches.iter().enumerate() {
            for &b in &launch.args {
                launches.entry(b).or_insert([i, i])[1] = i;
            }
        }
        Explained { plan, g, forward, refusals, launches }
    }

    fn kernel_of(&self, n: NodeIndex) -> Option<u32> {
        self.plan.fusion.members.get(&self.g.node(n).id).map(|m| m.kernel)
    }

    fn kernel(&self, node: u32) -> Kernel {
        let train = &self.plan.train;
        let kernel = train.kernel_of.get(&node).and_then(|&k| train.program.kernels.get(k as usize));
        Kernel { node, symbol: kernel.map(|k| k.symbol.clone()).unwrap_or_default() }
    }

    /// Nodes that read this value, through views and through what kernels make in registers.
    fn readers(&self, v: Value) -> Vec<NodeIndex> {
        let mut found = Vec::new();
        let mut stack = vec![v];
        while let Some(v) = stack.pop() {
            for (n, _) in self.g.uses(v) {
                let op = self.g.op(n);
                if matches!(op, Op::Reshape) || is_free(op) && !self.is_launched(n) {
                    stack.push(n.into());
                } else if !found.contains(&n) {
                    found.push(n);
                }
            }
        }
        found.sort_by_key(|&n| self.g.node(n).id);
        found
    }

    /// A node that stayed as it was and has a buffer of its own.
    fn is_launched(&self, n: NodeIndex) -> bool {
        self.plan.train.buffers.contains_key(&(self.g.node(n).id, 0))
    }

    fn name(&self, n: NodeIndex) -> String {
        let node = self.g.node(n);
        match &node.scope {
            Some(scope) => format!("%{} {} {scope}", node.id, node.op.mnemonic()),
            None => format!("%{} {}", node.id, node.op.mnemonic()),
        }
    }

    fn value(&self, v: Value) -> Placed {
        let (g, node) = (self.g, self.g.node(v.node));
        let member = self.plan.fusion.members.get(&node.id);
        let at = match member {
            Some(m) => m.result.map(|r| (m.kernel, r)),
            None => Some((node.id, v.result)),
        };
        let buffer = at.and_then(|at| self.plan.train.buffers.get(&at)).copied();
        let readers = self.readers(v);
        let mut registers: Vec<Kernel> = match member {
            Some(m) => vec![self.kernel(m.kernel)],
            None if buffer.is_none() => {
                readers.iter().filter_map(|&r| Some(self.kernel(self.kernel_of(r)?))).collect()
            }
            None => Vec::new(),
        };
        registers.sort();
        registers.dedup();
        let ty = g.ty(v);
        let second = if node.results.len() > 1 { format!("#{}", v.result) } else { String::new() };
        Placed {
            value: format!("%{}{second}", node.id),
            op: node.op.mnemonic(),
            scope: node.scope.as_deref().map(str::to_owned),
            r#type: ty.to_string(),
            bytes: ty.bytes(),
            why: self.why(v, buffer.is_some(), &readers),
            memory: buffer.map(|b| self.memory(b)),
            registers,
            readers: readers.iter().map(|&n| self.name(n)).collect(),
        }
    }

    fn memory(&self, b: BufferId) -> Memory {
        let buffer = &self.plan.train.program.buffers[b as usize];
        Memory {
            buffer: buffer.name.clone(),
            space: buffer.space,
            offset: (buffer.space == Space::Arena).then_some(buffer.offset),
            launches: self.launches.get(&b).copied(),
        }
    }

    fn why(&self, v: Value, in_memory: bool, readers: &[NodeIndex]) -> Vec<String> {
        let op = self.g.op(v.node);
        let mut why = Vec::new();
        match op {
            Op::Input { .. } => why.push("it is an input of the program".to_owned()),
            Op::Reshape => why.push("it is its operand in another shape, and shares its bytes".to_owned()),
            _ if !in_memory && is_free(op) => why.push("every kernel that reads it makes it anew".to_owned()),
            _ if !in_memory && readers.is_empty() => why.push("nothing reads it".to_owned()),
            _ if !in_memory => why.push("the kernel that computes it has all its readers".to_owned()),
            _ if self.kernel_of(v.node).is_none() => {
                why.push(format!("{} writes its result to memory", kind(op)))
            }
            _ => {}
        }
        if !in_memory {
            return why;
        }
        for o in self.g.outputs.iter().filter(|o| o.value == v) {
            why.push(match self.g.input(&o.name) {
                Some(_) => format!("it is the next value of the state {}", o.name),
                None => format!("it is the output {}", o.name),
            });
        }
        let mine = self.kernel_of(v.node);
        for &r in readers {
            let theirs = self.kernel_of(r);
            why.push(match (mine, theirs) {
                (Some(a), Some(b)) if a == b => continue,
                (_, None) => format!("{} reads it: {}", kind(self.g.op(r)), self.name(r)),
                (None, Some(_)) => continue,
                (Some(a), Some(b)) => match self.refusals.get(&(a, b)) {
                    Some(reason) => format!("kernel %{b} reads it, and is another: {reason}"),
                    None => format!("kernel %{b} reads it, and no decision put the two together"),
                },
            });
        }
        let backward = |&&r: &&NodeIndex| !self.forward[r.index()];
        let is_value = !matches!(op, Op::Input { .. });
        if self.forward[v.node.index()] && is_value && readers.iter().any(|r| backward(&r)) {
            why.push("the backward pass needs it".to_owned());
        }
        why.dedup();
        why
    }
}

/// What a node that is no member of a generated kernel is called.
fn kind(op: &Op) -> String {
    match op {
        Op::Dot { .. } => "a product".to_owned(),
        Op::Call(_) => format!("the library call {}", op.mnemonic()),
        _ => format!("{}, which moves data in a pattern of its own,", op.mnemonic()),
    }
}

fn table(all: &[Placed]) -> String {
    let mut table = output::table(&["value", "where", "why", "read by", "size"], 4);
    let (mut in_memory, mut bytes) = (0, 0);
    for p in all {
        let scope = p.scope.as_deref().unwrap_or("");
        let place = match &p.memory {
            Some(m) => {
                in_memory += 1;
                bytes += p.bytes;
                let offset = m
                    .offset
                    .map_or_else(|| format!("{:?}", m.space).to_lowercase(), |o| format!("arena + {o}"));
                let launches = m
                    .launches
                    .map_or_else(|| "no launch".to_owned(), |[a, b]| format!("launches {a} to {b}"));
                format!("memory: {} ({offset})\n{launches}", m.buffer)
            }
            None => {
                let kernels = p.registers.iter().map(|k| format!("registers of %{} {}", k.node, k.symbol));
                kernels.collect::<Vec<_>>().join("\n")
            }
        };
        table.add_row([
            format!("{} {}\n{}\n{scope}", p.value, p.op, p.r#type),
            place,
            p.why.join("\n"),
            p.readers.join("\n"),
            display::bytes(p.bytes),
        ]);
    }
    format!(
        "{table}\n{} values, {in_memory} in memory with {}, {} in registers\n",
        all.len(),
        display::bytes(bytes),
        all.len() - in_memory
    )
}
