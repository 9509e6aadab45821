//! Rewrites a fused graph so that the backward pass runs kernels of the forward pass again.

use super::kept::Kept;
use crate::fuse::body::{Body, is_item};
use crate::graph::{Graph, Op, TensorType, Value};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};

/// One kernel that runs again.
struct Copy {
    op: Op,
    operands: Vec<Value>,
    /// Results of the original that the copy makes, in order.
    results: Vec<u16>,
    types: Vec<TensorType>,
}

/// The graph in which the backward pass reads `saved` values where they are and has copies of the kernels that make
/// the others, and those copies. A copy computes what it is needed for and starts from the nearest saved values, with
/// the same operations on the same numbers: results have equal bits.
pub fn rerun(g: &Graph, kept: &Kept, saved: &FxHashSet<Value>) -> (Graph, Vec<NodeIndex>) {
    let in_memory = |v: Value| -> bool {
        let v = super::kept::shown(g, v);
        saved.contains(&v) || !kept.forward[v.node.index()] || matches!(g.op(v.node), Op::Input { .. })
    };
    let mut needed: FxHashSet<Value> = FxHashSet::default();
    let mut copies: Vec<(NodeIndex, Copy)> = Vec::new();
    let mut redirected: Vec<(NodeIndex, u16, Value)> = Vec::new();
    // Consumers first: when a node is reached, all that is needed of it is known.
    for &n in kept.order.iter().rev() {
        if !kept.forward[n.index()] {
            for (position, v) in g.operands(n).into_iter().enumerate() {
                if kept.forward[v.node.index()] && !in_memory(v) {
                    needed.insert(v);
                    redirected.push((n, position as u16, v));
                }
            }
            continue;
        }
        let wanted: Vec<u16> = (0..g.node(n).results.len() as u16)
            .filter(|&result| needed.contains(&Value { node: n, result }))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let copy = copy_of(g, n, wanted, saved);
        needed.extend(copy.operands.iter().filter(|v| !in_memory(**v)));
        copies.push((n, copy));
    }
    let mut out = g.clone();
    let mut made: FxHashMap<Value, Value> = FxHashMap::default();
    let mut nodes = Vec::with_capacity(copies.len());
    for (n, copy) in copies.into_iter().rev() {
        let operands: Vec<Value> = copy.operands.iter().map(|v| made.get(v).copied().unwrap_or(*v)).collect();
        let scope = g.node(n).scope.as_deref().unwrap_or("");
        out.set_scope(&format!("{scope}/recompute"));
        let node = out.add(copy.op, &operands, &copy.types);
        for (k, &result) in copy.results.iter().enumerate() {
            made.insert(Value { node: n, result }, Value { node, result: k as u16 });
        }
        nodes.push(node);
    }
    for (n, position, v) in redirected {
        out.set_operand(n, position, made[&v]);
    }
    (out, nodes)
}

fn copy_of(g: &Graph, n: NodeIndex, wanted: Vec<u16>, saved: &FxHashSet<Value>) -> Copy {
    let node = g.node(n);
    let types = |results: &[u16]| results.iter().map(|&r| node.results[r as usize].clone()).collect();
    if let Op::Fused { region } = &node.op {
        let is_saved = |result: u16| saved.contains(&Value { node: n, result });
        let operands = g.operands(n);
        if let Some((region, sources)) = part(region, &wanted, &is_saved) {
            let value = |source: Source| match source {
                Source::Operand(i) => operands[i],
                Source::Saved(result) => Value { node: n, result },
            };
            return Copy {
                op: Op::Fused { region: Box::new(region) },
                operands: sources.into_iter().map(value).collect(),
                types: types(&wanted),
                results: wanted,
            };
        }
    }
    let all: Vec<u16> = (0..node.results.len() as u16).collect();
    Copy { op: node.op.clone(), operands: g.operands(n).to_vec(), types: types(&all), results: all }
}

/// Where the input of a part of a region comes from.
#[derive(Clone, Copy)]
enum Source {
    /// An operand of the whole.
    Operand(usize),
    /// A saved result of the whole.
    Saved(u16),
}

/// The part of a region that makes the results `wanted`, from saved results where it can. `None` where no kernel has
/// that form.
fn part(region: &Graph, wanted: &[u16], is_saved: &impl Fn(u16) -> bool) -> Option<(Graph, Vec<Source>)> {
    let mut saved_at: FxHashMap<NodeIndex, u16> = FxHashMap::default();
    for (k, o) in region.outputs.iter().enumerate().filter(|(k, _)| is_saved(*k as u16)) {
        saved_at.insert(o.value.node, k as u16);
    }
    let mut live = vec![false; region.index_bound()];
    let mut stack: Vec<NodeIndex> = wanted.iter().map(|&k| region.outputs[k as usize].value.node).collect();
    while let Some(n) = stack.pop() {
        if !std::mem::replace(&mut live[n.index()], true) && !saved_at.contains_key(&n) {
            stack.extend(region.operands(n).iter().map(|v| v.node));
        }
    }
    let mut out = Graph::new(&region.name);
    let mut sources = Vec::new();
    let mut made: FxHashMap<NodeIndex, NodeIndex> = FxHashMap::default();
    let order: Vec<NodeIndex> = region.topological().into_iter().filter(|n| live[n.index()]).collect();
    for &n in &order {
        let source = match saved_at.get(&n) {
            Some(&k) => Some(Source::Saved(k)),
            None => region.inputs.iter().position(|&i| i == n).map(Source::Operand),
        };
        if let Some(source) = source {
            let name = format!("p{}", sources.len());
            let input = out.new_input(&name, region.ty(n.into()).clone(), crate::graph::Role::Data);
            made.insert(n, input.node);
            sources.push(source);
        }
    }
    for &n in order.iter() {
        if !made.contains_key(&n) {
            let operands: Vec<Value> = region.operands(n).iter().map(|v| made[&v.node].into()).collect();
            made.insert(n, out.add(region.op(n).clone(), &operands, &region.node(n).results));
        }
    }
    for (k, &w) in wanted.iter().enumerate() {
        out.output(&format!("r{k}"), made[&region.outputs[w as usize].value.node].into());
    }
    let items: Vec<NodeIndex> = out.topological().into_iter().filter(|&n| is_item(out.op(n))).collect();
    Body::of(&out, &items).is_ok().then_some((out, sources))
}
