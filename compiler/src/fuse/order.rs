//! A topological order of clusters that stays valid while clusters merge (after Pearce & Kelly 2006): a merge moves only
//! the clusters between the two that one of them reaches or that reach the other.

use crate::graph::Graph;
use petgraph::Direction;
use petgraph::stable_graph::NodeIndex;
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Producers before consumers, each node as early as its most urgent consumer wants it.
pub fn just_in_time(g: &Graph) -> Vec<NodeIndex> {
    let urgency = g.urgencies();
    let mut waiting = vec![0usize; g.index_bound()];
    let mut ready = BinaryHeap::new();
    for n in g.nodes().node_indices() {
        waiting[n.index()] = g.nodes().edges_directed(n, Direction::Incoming).count();
        if waiting[n.index()] == 0 {
            ready.push(Reverse((urgency[n.index()], g.node(n).id, n)));
        }
    }
    let mut order = Vec::with_capacity(g.nodes().node_count());
    while let Some(Reverse((_, _, n))) = ready.pop() {
        order.push(n);
        for m in g.nodes().neighbors_directed(n, Direction::Outgoing) {
            waiting[m.index()] -= 1;
            if waiting[m.index()] == 0 {
                ready.push(Reverse((urgency[m.index()], g.node(m).id, m)));
            }
        }
    }
    order
}

/// A set of small numbers that is emptied by asking for the next mark.
pub struct Marks {
    of: Vec<Cell<u32>>,
    last: Cell<u32>,
}

impl Marks {
    pub fn new(len: usize) -> Self {
        Marks { of: vec![Cell::new(0); len], last: Cell::new(0) }
    }

    /// A mark that nothing has.
    pub fn next(&self) -> u32 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    pub fn set(&self, i: usize, mark: u32) {
        self.of[i].set(mark);
    }

    pub fn has(&self, i: usize, mark: u32) -> bool {
        self.of[i].get() == mark
    }
}

/// Where nodes stand in the kernel that is being drafted; emptied like [`Marks`].
pub struct Places {
    of: Vec<(u32, Place)>,
    last: u32,
}

/// An item of the kernel, or one of its inputs, by position among them.
#[derive(Clone, Copy)]
pub enum Place {
    Item(usize),
    Input(usize),
}

impl Places {
    pub fn new(len: usize) -> Self {
        Places { of: vec![(0, Place::Item(0)); len], last: 0 }
    }

    pub fn clear(&mut self) {
        self.last += 1;
    }

    pub fn set(&mut self, i: usize, place: Place) {
        self.of[i] = (self.last, place);
    }

    pub fn get(&self, i: usize) -> Option<Place> {
        let (mark, place) = self.of[i];
        (mark == self.last).then_some(place)
    }
}

pub struct Order {
    /// Place of each cluster; places are distinct, not dense.
    place: Vec<u32>,
}

impl Order {
    pub fn new(place: Vec<u32>) -> Self {
        Order { place }
    }

    pub fn at(&self, cluster: u32) -> u32 {
        self.place[cluster as usize]
    }

    /// `a` before `b` become one, named `a`. `forward` are the clusters between them that `a` leads to, `backward`
    /// those that lead to `b`; no cluster is in both, or the merge would close a cycle.
    pub fn merge(&mut self, a: u32, b: u32, mut forward: Vec<u32>, mut backward: Vec<u32>) {
        forward.sort_unstable_by_key(|&c| self.at(c));
        backward.sort_unstable_by_key(|&c| self.at(c));
        let mut places: Vec<u32> =
            forward.iter().chain(&backward).chain(&[a, b]).map(|&c| self.at(c)).collect();
        places.sort_unstable();
        // What leads to b, then the merged cluster, then what a leads to; one place stays empty.
        let sequence = backward.iter().chain(std::iter::once(&a)).chain(&forward);
        for (&c, &p) in sequence.zip(&places) {
            self.place[c as usize] = p;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Clusters that `from` leads to, itself not counted, without the direct edges to `skip`.
    fn reach(edges: &[(u32, u32)], from: u32, skip: u32) -> Vec<u32> {
        let mut seen = vec![];
        let mut stack = vec![from];
        while let Some(c) = stack.pop() {
            for &(_, to) in edges.iter().filter(|e| e.0 == c && !(c == from && e.1 == skip)) {
                if !seen.contains(&to) {
                    seen.push(to);
                    stack.push(to);
                }
            }
        }
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn merges_keep_a_topological_order(
            raw in prop::collection::vec((0u32..30, 0u32..30), 0..60),
            pairs in prop::collection::vec((0u32..30, 0u32..30), 0..60),
        ) {
            let mut edges: Vec<(u32, u32)> =
                raw.iter().filter(|(a, b)| a != b).map(|&(a, b)| (a.min(b), a.max(b))).collect();
            let mut order = Order::new((0..30).collect());
            let mut alive: Vec<u32> = (0..30).collect();
            for (a, b) in pairs {
                if a == b || !alive.contains(&a) || !alive.contains(&b) {
                    continue;
                }
                let (a, b) = if order.at(a) < order.at(b) { (a, b) } else { (b, a) };
                let between = |c: &u32| order.at(*c) > order.at(a) && order.at(*c) < order.at(b);
                let forward = reach(&edges, a, b);
                if forward.contains(&b) {
                    continue;
                }
                let reversed: Vec<(u32, u32)> = edges.iter().map(|&(x, y)| (y, x)).collect();
                let backward = reach(&reversed, b, a);
                let (forward, backward) = (
                    forward.into_iter().filter(between).collect(),
                    backward.into_iter().filter(between).collect(),
                );
                order.merge(a, b, forward, backward);
                alive.retain(|&c| c != b);
                let merged = |c: u32| if c == b { a } else { c };
                edges = edges.iter().map(|&(x, y)| (merged(x), merged(y))).filter(|(x, y)| x != y).collect();
                for &(x, y) in &edges {
                    prop_assert!(order.at(x) < order.at(y), "{x} at {} leads to {y} at {}", order.at(x), order.at(y));
                }
                let mut places: Vec<u32> = alive.iter().map(|&c| order.at(c)).collect();
                places.sort_unstable();
                places.dedup();
                prop_assert_eq!(places.len(), alive.len());
            }
        }
    }
}
