//! The order in which a program computes the nodes of its graph.

use crate::graph::{Graph, Op};
use petgraph::Direction;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A state buffer updated in place: its writer must come after every other reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// The input node of the old value.
    pub input: NodeIndex,
    /// The node that overwrites it.
    pub writer: NodeIndex,
}

/// Producers before consumers, readers of a state before its writer, and among the ready the smallest id first (the
/// order of the model, since a fused node has the id of its first member). Updates that would close a cycle are given
/// back: their state needs a copy.
pub fn schedule(g: &Graph, updates: &[Update]) -> (Vec<NodeIndex>, Vec<Update>) {
    let mut active = updates.to_vec();
    let mut dropped = Vec::new();
    loop {
        let order = attempt(g, &active);
        if order.len() == g.nodes.node_count() {
            return (order, dropped);
        }
        let mut done = vec![false; g.index_bound()];
        for n in &order {
            done[n.index()] = true;
        }
        // Some stuck writer waits for a reader that waits for it.
        let Some(stuck) = active.iter().position(|u| !done[u.writer.index()]) else {
            return (order, dropped);
        };
        dropped.push(active.remove(stuck));
    }
}

fn attempt(g: &Graph, updates: &[Update]) -> Vec<NodeIndex> {
    let mut after: FxHashMap<NodeIndex, Vec<NodeIndex>> = FxHashMap::default();
    let mut waiting = vec![0usize; g.index_bound()];
    for u in updates {
        for reader in readers_through_views(g, u.input) {
            if reader != u.writer {
                after.entry(reader).or_default().push(u.writer);
                waiting[u.writer.index()] += 1;
            }
        }
    }
    let mut ready = BinaryHeap::new();
    for n in g.nodes.node_indices() {
        waiting[n.index()] += g.nodes.edges_directed(n, Direction::Incoming).count();
        if waiting[n.index()] == 0 {
            ready.push(Reverse((g.node(n).id, n)));
        }
    }
    let mut order = Vec::with_capacity(g.nodes.node_count());
    while let Some(Reverse((_, n))) = ready.pop() {
        order.push(n);
        let next = g.nodes.neighbors_directed(n, Direction::Outgoing);
        let forced = after.get(&n).into_iter().flatten().copied();
        for m in next.chain(forced) {
            waiting[m.index()] -= 1;
            if waiting[m.index()] == 0 {
                ready.push(Reverse((g.node(m).id, m)));
            }
        }
    }
    order
}

/// Nodes that read this buffer, also through reshapes, which are views.
fn readers_through_views(g: &Graph, n: NodeIndex) -> Vec<NodeIndex> {
    let mut out = Vec::new();
    for c in g.consumers(n) {
        if matches!(g.op(c), Op::Reshape) {
            out.extend(readers_through_views(g, c));
        } else {
            out.push(c);
        }
    }
    out
}
