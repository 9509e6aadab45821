//! Common subexpressions: nodes with equal operations, operands and types become one.
//!
//! One walk in topological order. Of equal nodes the one with the smallest id stays, with that node's scope. Inputs
//! and fused regions equal only themselves.

use crate::graph::{Graph, Op, Operand, Operands, Value};
use petgraph::Direction;
use petgraph::stable_graph::NodeIndex;
use petgraph::visit::EdgeRef;
use rustc_hash::{FxHashMap, FxHasher};
use smallvec::{SmallVec, smallvec};
use std::hash::{Hash, Hasher};

pub fn run(g: &mut Graph) {
    let mut seen: FxHashMap<u64, SmallVec<[NodeIndex; 1]>> = FxHashMap::default();
    let mut merged_into: FxHashMap<NodeIndex, NodeIndex> = FxHashMap::default();
    for n in g.topological() {
        if matches!(g.op(n), Op::Input { .. } | Op::Fused { .. }) {
            continue;
        }
        let operands = ordered_operands(g, n);
        let mut hasher = FxHasher::default();
        (g.op(n).key(), &operands, &g.node(n).results).hash(&mut hasher);
        let bucket = seen.entry(hasher.finish()).or_default();
        let same = |&m: &NodeIndex| {
            let (a, b) = (g.node(m), g.node(n));
            a.results == b.results && a.op.same_as(&b.op) && ordered_operands(g, m) == operands
        };
        match bucket.iter().copied().find(same) {
            None => bucket.push(n),
            Some(kept) => {
                merged_into.insert(n, kept);
                move_uses(g, n, kept);
                if g.node(n).id < g.node(kept).id {
                    let (id, scope) = (g.node(n).id, g.node(n).scope.clone());
                    let node = &mut g.nodes_mut()[kept];
                    node.id = id;
                    node.scope = scope;
                }
                g.nodes_mut().remove_node(n);
            }
        }
    }
    for o in &mut g.outputs {
        if let Some(&kept) = merged_into.get(&o.value.node) {
            o.value.node = kept;
        }
    }
}

/// Operands with those of a commutative operation in ascending order.
fn ordered_operands(g: &Graph, n: NodeIndex) -> Operands {
    let mut operands = g.operands(n);
    if matches!(g.op(n), Op::Binary(b) if b.commutes()) {
        operands.sort_unstable();
    }
    operands
}

/// Every use of a result of `from` by a node becomes a use of the same result of `to`.
fn move_uses(g: &mut Graph, from: NodeIndex, to: NodeIndex) {
    while let Some((e, consumer, operand)) =
        g.nodes().edges_directed(from, Direction::Outgoing).next().map(|e| (e.id(), e.target(), *e.weight()))
    {
        g.nodes_mut().remove_edge(e);
        g.nodes_mut().add_edge(to, consumer, operand);
    }
}

/// Every use of result 0 of `from` by a node becomes a use of `to`; the consumers, in the order of the edges. Takes
/// edges from the front of their list, so the whole costs no more than the number of uses.
pub(super) fn redirect(g: &mut Graph, from: NodeIndex, to: Value) -> SmallVec<[NodeIndex; 8]> {
    let mut consumers = smallvec![];
    while let Some((e, consumer, position)) = g
        .nodes()
        .edges_directed(from, Direction::Outgoing)
        .next()
        .map(|e| (e.id(), e.target(), e.weight().position))
    {
        g.nodes_mut().remove_edge(e);
        g.nodes_mut().add_edge(to.node, consumer, Operand { position, result: to.result });
        consumers.push(consumer);
    }
    consumers
}
