//! The order in which a program computes the nodes of its graph.

use crate::graph::{Graph, Op, Value};
use petgraph::Direction;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
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

/// Which of the ready nodes comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The smallest id: the order of the model, since a fused node has the id of its first member.
    Id,
    /// The one that frees most, of those that free more than they allocate; else the one whose most urgent consumer has
    /// the smallest id. So a gradient of a weight is taken as soon as it lets an activation go, and what depends on
    /// inputs alone waits until it is needed.
    LeastMemory,
}

/// Producers before consumers, readers of a state before its writer, and among the ready as `policy` says. Updates that
/// would close a cycle are given back: their state needs a copy.
pub fn schedule(g: &Graph, updates: &[Update], policy: Policy) -> (Vec<NodeIndex>, Vec<Update>) {
    let mut active = updates.to_vec();
    let mut dropped = Vec::new();
    loop {
        let order = attempt(g, &active, policy);
        if order.len() == g.nodes().node_count() {
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

fn attempt(g: &Graph, updates: &[Update], policy: Policy) -> Vec<NodeIndex> {
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
    let mut ready = Ready::new(g, updates, policy);
    for n in g.nodes().node_indices() {
        waiting[n.index()] += g.nodes().edges_directed(n, Direction::Incoming).count();
        if waiting[n.index()] == 0 {
            ready.push(n);
        }
    }
    let mut order = Vec::with_capacity(g.nodes().node_count());
    while let Some(n) = ready.pop() {
        order.push(n);
        let next = g.nodes().neighbors_directed(n, Direction::Outgoing);
        let forced = after.get(&n).into_iter().flatten().copied();
        for m in next.chain(forced) {
            waiting[m.index()] -= 1;
            if waiting[m.index()] == 0 {
                ready.push(m);
            }
        }
    }
    order
}

/// The nodes that may come next.
struct Ready<'a> {
    g: &'a Graph,
    urgency: Vec<u32>,
    waits: Vec<bool>,
    queue: BinaryHeap<Reverse<(u32, u32, NodeIndex)>>,
    /// Those that free more than they allocate, by how much. What a node frees only grows, so that the newest of its
    /// entries comes first.
    freeing: BinaryHeap<(u64, Reverse<(u32, NodeIndex)>)>,
    bytes: Option<Bytes>,
}

impl<'a> Ready<'a> {
    fn new(g: &'a Graph, updates: &[Update], policy: Policy) -> Self {
        let (urgency, bytes) = match policy {
            Policy::Id => (vec![0; g.index_bound()], None),
            Policy::LeastMemory => (g.urgencies(), Some(Bytes::new(g, updates))),
        };
        let waits = vec![false; g.index_bound()];
        Ready { g, urgency, waits, queue: BinaryHeap::new(), freeing: BinaryHeap::new(), bytes }
    }

    fn push(&mut self, n: NodeIndex) {
        self.queue.push(Reverse((self.urgency[n.index()], self.g.node(n).id, n)));
        self.waits[n.index()] = true;
        self.offer(n);
    }

    fn offer(&mut self, n: NodeIndex) {
        let freed = self.bytes.as_ref().map_or(0, |b| b.freed_by(n));
        if freed > 0 {
            self.freeing.push((freed, Reverse((self.g.node(n).id, n))));
        }
    }

    fn pop(&mut self) -> Option<NodeIndex> {
        let n = loop {
            let n = match self.freeing.pop() {
                Some((_, Reverse((_, n)))) => n,
                None => self.queue.pop()?.0.2,
            };
            if self.waits[n.index()] {
                break n;
            }
        };
        self.waits[n.index()] = false;
        let last_readers = self.bytes.as_mut().map(|b| b.done(n)).unwrap_or_default();
        for m in last_readers {
            if self.waits[m.index()] {
                self.offer(m);
            }
        }
        Some(n)
    }
}

/// What nodes allocate in the arena, and who has still to read it.
struct Bytes {
    /// By node: bytes of its results, and the slots of the values it reads.
    allocates: Vec<u64>,
    reads: Vec<SmallVec<[u32; 4]>>,
    slots: Vec<Slot>,
}

/// A value in the arena.
#[derive(Clone, Copy)]
struct Slot {
    bytes: u64,
    /// Nodes that have still to read it, and the sum of their indices.
    readers: usize,
    sum: usize,
}

impl Bytes {
    fn new(g: &Graph, updates: &[Update]) -> Self {
        let bound = g.index_bound();
        let mut b =
            Bytes { allocates: vec![0; bound], reads: vec![SmallVec::new(); bound], slots: Vec::new() };
        let mut slot_of: FxHashMap<Value, u32> = FxHashMap::default();
        // Outputs are not in the arena, and what updates a state has its place.
        let outputs: FxHashSet<Value> = g.outputs.iter().map(|o| o.value).collect();
        let writers: FxHashSet<NodeIndex> = updates.iter().map(|u| u.writer).collect();
        for n in g.topological() {
            let mut reads: SmallVec<[u32; 4]> =
                g.operands(n).iter().filter_map(|v| slot_of.get(v).copied()).collect();
            if matches!(g.op(n), Op::Input { .. }) {
                continue;
            }
            if matches!(g.op(n), Op::Reshape) {
                slot_of.extend(reads.first().map(|&shown| (n.into(), shown)));
                continue;
            }
            reads.sort_unstable();
            reads.dedup();
            for &slot in &reads {
                let slot = &mut b.slots[slot as usize];
                (slot.readers, slot.sum) = (slot.readers + 1, slot.sum + n.index());
            }
            b.reads[n.index()] = reads;
            for (k, ty) in g.node(n).results.iter().enumerate() {
                let v = Value { node: n, result: k as u16 };
                if !outputs.contains(&v) && !writers.contains(&n) {
                    slot_of.insert(v, b.slots.len() as u32);
                    b.slots.push(Slot { bytes: ty.bytes(), readers: 0, sum: 0 });
                    b.allocates[n.index()] += ty.bytes();
                }
            }
        }
        b
    }

    /// Bytes less in use after `n` than before it; 0 where there are more.
    fn freed_by(&self, n: NodeIndex) -> u64 {
        let slots = self.reads[n.index()].iter().map(|&s| &self.slots[s as usize]);
        let freed: u64 = slots.filter(|s| s.readers == 1).map(|s| s.bytes).sum();
        freed.saturating_sub(self.allocates[n.index()])
    }

    /// `n` is done. The nodes that are now the last readers of something it read.
    fn done(&mut self, n: NodeIndex) -> SmallVec<[NodeIndex; 4]> {
        let mut last = SmallVec::new();
        for &s in &self.reads[n.index()] {
            let slot = &mut self.slots[s as usize];
            (slot.readers, slot.sum) = (slot.readers - 1, slot.sum - n.index());
            if slot.readers == 1 {
                last.push(NodeIndex::new(slot.sum));
            }
        }
        last
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ModelConfig, StepConfig};
    use crate::driver::{OptimizeOptions, optimize};
    use crate::lower::program::lower_by;
    use crate::model;
    use crate::text;

    fn ids(text: &str, policy: Policy) -> Vec<u32> {
        let g = text::parse(text, "test").expect("a graph");
        let (order, dropped) = schedule(&g, &[], policy);
        assert!(dropped.is_empty());
        order.into_iter().filter(|&n| !matches!(g.op(n), Op::Input { .. })).map(|n| g.node(n).id).collect()
    }

    #[test]
    fn what_frees_more_than_it_takes_comes_first() {
        // %4 is the gradient of the wide %2, %5 that of the small weight: after it %2 can go.
        let text = "graph @g(%x: f32[64,4], %w: f32[8,4]) -> (f32[64,4], f32[8,4]) {
            %2 = dot %x, %w {lhs_batch=[], rhs_batch=[], lhs_contract=[1], rhs_contract=[1]}
            %3 = exp %2
            %4 = dot %3, %w {lhs_batch=[], rhs_batch=[], lhs_contract=[1], rhs_contract=[0]}
            %5 = dot %2, %x {lhs_batch=[], rhs_batch=[], lhs_contract=[0], rhs_contract=[0]}
            %6 = neg %4
            %7 = neg %5
            return dx = %6, dw = %7
        }";
        assert_eq!(ids(text, Policy::Id), [2, 3, 4, 5, 6, 7]);
        assert_eq!(ids(text, Policy::LeastMemory), [2, 3, 5, 4, 6, 7]);
    }

    #[test]
    fn what_depends_on_inputs_alone_waits_until_it_is_needed() {
        let text = "graph @g(%x: f32[4,4], %y: f32[4,4]) -> (f32[4,4]) {
            %2 = dot %y, %y {lhs_batch=[], rhs_batch=[], lhs_contract=[1], rhs_contract=[0]}
            %3 = dot %y, %x {lhs_batch=[], rhs_batch=[], lhs_contract=[1], rhs_contract=[0]}
            %9 = dot %x, %2 {lhs_batch=[], rhs_batch=[], lhs_contract=[1], rhs_contract=[0]}
            %5 = exp %9
            %6 = dot %5, %3 {lhs_batch=[], rhs_batch=[], lhs_contract=[1], rhs_contract=[0]}
            return z = %6
        }";
        assert_eq!(ids(text, Policy::Id), [2, 3, 9, 5, 6]);
        // %9 is as urgent as %5, which reads it; %3 has an id of its own that is smaller.
        assert_eq!(ids(&text.replace("%3", "%7"), Policy::LeastMemory), [2, 9, 5, 7, 6]);
    }

    #[test]
    fn the_better_order_is_taken() {
        let mut better = 0;
        for (n_layers, d_model, vocab_size, batch) in
            [(1, 16, 256, 1), (2, 32, 256, 4), (4, 64, 256, 16), (3, 64, 4000, 1)]
        {
            let model = ModelConfig::gopher(n_layers, d_model / 16, 16, d_model, vocab_size, 64);
            let step = StepConfig::new(batch);
            let train = model::training_graph(&model, &step).expect("a graph");
            for mut g in [train, model::loss_graph(&model, batch)] {
                optimize(&mut g, &OptimizeOptions::default()).expect("passes");
                let arena = |policy| lower_by(&g, policy).expect("a program").program.arena_bytes;
                let (by_id, least) = (arena(Policy::Id), arena(Policy::LeastMemory));
                let taken = crate::lower::lower(&g).expect("a program").program.arena_bytes;
                assert_eq!(taken, by_id.min(least), "{model:?} {batch}");
                better += (taken < by_id) as usize;
            }
        }
        assert!(better > 0, "the order of ids is never beaten");
    }
}
