//! Values that the forward pass makes and the backward pass reads, in groups that are alike in every layer.

use crate::graph::{Graph, Op, Value};
use crate::text;
use petgraph::Direction;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};

/// The two passes of a fused training graph, and what is kept from one to the other.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Producers before consumers.
    pub order: Vec<NodeIndex>,
    /// By node: the loss depends on it, or is made by it.
    pub forward: Vec<bool>,
    /// All values that are kept.
    pub values: FxHashSet<Value>,
    /// Those of them that there is a choice about, in the order in which the forward pass makes them first.
    pub groups: Vec<Group>,
}

/// Values of one meaning, one for each layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Scope with `*` for numbers, and the operation: `layers.*.gelu mul`.
    pub name: String,
    /// In the order of the forward pass.
    pub values: Vec<Value>,
    /// Of all values together.
    pub bytes: u64,
}

/// Groups smaller than this share of all that is kept are not worth a choice.
const SMALLEST_SHARE: u64 = 2000;

impl Kept {
    /// `None` for a graph without a loss, and where nothing is kept.
    pub fn of(g: &Graph) -> Option<Kept> {
        let loss = g.output_named("loss")?;
        let order = g.topological();
        let mut forward = vec![false; g.index_bound()];
        let mut stack = vec![loss.node];
        while let Some(n) = stack.pop() {
            if !std::mem::replace(&mut forward[n.index()], true) {
                stack.extend(g.nodes().neighbors_directed(n, Direction::Incoming));
            }
        }
        // No choice: outputs are in memory anyway, and what makes the loss runs once.
        let outputs: FxHashSet<NodeIndex> = g.outputs.iter().map(|o| shown(g, o.value).node).collect();
        let mut values: FxHashSet<Value> = FxHashSet::default();
        for &n in order.iter().filter(|n| !forward[n.index()]) {
            for v in g.operands(n).into_iter().filter(|v| forward[v.node.index()]) {
                let v = shown(g, v);
                if !matches!(g.op(v.node), Op::Input { .. }) {
                    values.insert(v);
                }
            }
        }
        let mut groups: Vec<Group> = Vec::new();
        let mut at: FxHashMap<String, usize> = FxHashMap::default();
        for &n in order.iter().filter(|n| !outputs.contains(n)) {
            for k in 0..g.node(n).results.len() {
                let v = Value { node: n, result: k as u16 };
                if !values.contains(&v) {
                    continue;
                }
                let ty = g.ty(v);
                let name = name(g, v);
                let next = groups.len();
                let group = *at.entry(format!("{name} {ty}")).or_insert(next);
                if group == next {
                    groups.push(Group { name, values: Vec::new(), bytes: 0 });
                }
                groups[group].values.push(v);
                groups[group].bytes += ty.bytes();
            }
        }
        let total: u64 = groups.iter().map(|g| g.bytes).sum();
        groups.retain(|g| g.bytes * SMALLEST_SHARE >= total);
        (!groups.is_empty()).then_some(Kept { order, forward, values, groups })
    }
}

/// What a chain of reshapes shows.
pub fn shown(g: &Graph, mut v: Value) -> Value {
    while matches!(g.op(v.node), Op::Reshape) {
        v = g.operands(v.node)[0];
    }
    v
}

/// The operation that makes a value, inside a region too.
pub fn operation(g: &Graph, v: Value) -> &'static str {
    match g.op(v.node) {
        Op::Fused { region } => {
            region.outputs.get(v.result as usize).map_or("fused", |o| region.op(o.value.node).mnemonic())
        }
        op => op.mnemonic(),
    }
}

fn name(g: &Graph, v: Value) -> String {
    let scope = g.node(v.node).scope.as_deref().unwrap_or("");
    format!("{} {}", text::any_layer(scope), operation(g, v)).trim_start().to_string()
}
