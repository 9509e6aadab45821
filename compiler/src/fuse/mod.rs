//! Fusion: a priority queue over pairs of kernels, the pair that saves most time first. Every decision is kept.
//!
//! A cluster is a set of nodes that one generated kernel will compute. Two clusters may merge when one kernel can
//! compute both ([`body::Draft::with`] says so) and the merge closes no cycle. Constants, indices and broadcasts belong to
//! no cluster: each kernel that reads them makes them in registers.

pub mod body;
pub mod decision;
mod order;
mod outline;
mod peak;
pub mod shuffle;

use crate::cost::CostModel;
use crate::graph::{Graph, Op, Value};
use crate::lower::{Lowered, lower};
use body::{Draft, MAX_ARGS, Reading, Resolved, is_item, resolve};
use decision::{Decision, Outcome, Reason};
use order::{Marks, Order, Places};
use outline::outline;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;
use shuffle::Shuffle;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

#[derive(Clone, Debug, Default)]
pub struct FusionLog {
    /// In the order taken; refusals are those between kernels that stayed apart.
    pub decisions: Vec<Decision>,
    /// Where every node of the graph before fusion went that a generated kernel computes, by its id.
    pub members: BTreeMap<u32, Member>,
    /// Kernels with more than one node.
    pub fused_kernels: usize,
    /// Generated kernels in all, of one node or more.
    pub kernels: usize,
}

/// The kernel that computes a node of the graph before fusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Id of the `fused` node.
    pub kernel: u32,
    /// Which of its results the value is; none where it never leaves registers.
    pub result: Option<u16>,
}

/// Values with more readers than this are not looked at for sibling fusion: scalars that every kernel reads.
const MAX_SIBLINGS: usize = 8;

/// Merges what is worth merging and puts a `fused` node in the place of every cluster. With `merge` off each node
/// becomes a kernel of its own: the unfused program that tests compare with, and whose arena no fusion may exceed by more than a page.
/// With a shuffle the pairs are those it chooses, in its order. What was merged comes with its program, which had to be made
/// to know its arena, unless it has none.
pub fn fuse(
    g: &mut Graph,
    cost: &CostModel,
    merge: bool,
    shuffle: Option<Shuffle>,
) -> (FusionLog, Option<Lowered>) {
    if !merge {
        return (attempt(g, cost, &Limits { merges: 0, ..Limits::default() }), None);
    }
    let limits = Limits { shuffle, ..Limits::default() };
    let try_with = |limits: &Limits| {
        let mut fused = g.clone();
        let log = attempt(&mut fused, cost, limits);
        // As it will be after this pass.
        fused.canonicalize();
        Attempt { lowered: lower(&fused).ok(), fused, log }
    };
    let Attempt { fused, log, lowered } = peak::within_unfused(g, limits, try_with);
    *g = fused;
    (log, lowered)
}

/// One way to merge.
struct Attempt {
    fused: Graph,
    log: FusionLog,
    /// None where the graph has no code.
    lowered: Option<Lowered>,
}

impl Attempt {
    fn arena(&self) -> Option<u64> {
        self.lowered.as_ref().map(|l| l.program.arena_bytes)
    }
}

/// What fusion is not to do.
#[derive(Clone)]
struct Limits {
    /// Stop after this many merges.
    merges: usize,
    /// Pairs whose merge would raise the peak, by the ids of their clusters' first nodes.
    apart: FxHashSet<(u32, u32)>,
    /// Choices of a seed in the place of what saves most.
    shuffle: Option<Shuffle>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { merges: usize::MAX, apart: FxHashSet::default(), shuffle: None }
    }
}

fn attempt(g: &mut Graph, cost: &CostModel, limits: &Limits) -> FusionLog {
    let mut fusion = Fusion::new(g);
    let mut decisions = Vec::new();
    if limits.merges > 0 {
        decisions = fusion.run(cost, limits);
    }
    let clusters = fusion.clusters();
    let is_output = fusion.is_output;
    let mut log = FusionLog { decisions, ..Default::default() };
    for nodes in clusters {
        log.kernels += 1;
        log.fused_kernels += (nodes.len() > 1) as usize;
        outline(g, &nodes, &is_output, &mut log.members);
    }
    g.remove_dead();
    log
}

struct Cluster {
    /// In topological order.
    nodes: Vec<u32>,
    version: u32,
}

struct Fusion<'a> {
    g: &'a Graph,
    /// Topological position of each node, by node index.
    position: Vec<u32>,
    fusable: Vec<bool>,
    /// Of the nodes that can be items of a kernel.
    readings: Vec<Option<Reading<'a>>>,
    /// Values each node reads, free nodes looked through.
    reads: Vec<SmallVec<[Value; 4]>>,
    /// Nodes that read any result of each node.
    readers: Vec<SmallVec<[u32; 4]>>,
    is_output: Vec<bool>,
    /// Cluster of each node.
    parent: Vec<u32>,
    clusters: Vec<Cluster>,
    order: Order,
    /// Nodes that `decision` has seen.
    marks: Marks,
    places: Places,
    /// Number of the current search, and of the last search that saw each cluster.
    search: u32,
    seen_at: Vec<u32>,
}

/// A decision whose two clusters, by their first nodes then, have no names yet: most refusals are forgotten.
struct Taken {
    decision: Decision,
    first: [u32; 2],
}

/// A pair worth merging: benefit in picoseconds first, then the pair itself so that equal benefits have one order.
type Entry = (u64, Reverse<(u32, u32)>, [u32; 2]);

impl<'a> Fusion<'a> {
    fn new(g: &'a Graph) -> Self {
        let bound = g.index_bound();
        let topological = order::just_in_time(g);
        let mut position = vec![u32::MAX; bound];
        let mut fusable = vec![false; bound];
        let mut readings: Vec<Option<Reading>> = (0..bound).map(|_| None).collect();
        let mut reads = vec![SmallVec::new(); bound];
        let mut readers: Vec<SmallVec<[u32; 4]>> = vec![SmallVec::new(); bound];
        let mut is_output = vec![false; bound];
        for o in &g.outputs {
            is_output[o.value.node.index()] = true;
        }
        let mut places = Places::new(bound);
        let mut clusters = Vec::with_capacity(bound);
        clusters.resize_with(bound, || Cluster { nodes: Vec::new(), version: 0 });
        for (p, &n) in topological.iter().enumerate() {
            let i = n.index();
            position[i] = p as u32;
            if is_item(g.op(n)) {
                let reading = Reading::of(g, n);
                fusable[i] = Draft::with(g, &[n], std::iter::once(&reading), &mut places).is_ok();
                readings[i] = Some(reading);
            }
            let mut list: SmallVec<[Value; 4]> = SmallVec::new();
            for v in g.operands(n) {
                let source = match resolve(g, v) {
                    Resolved::Value(from, _) if fusable[i] => from,
                    Resolved::Value(..) => v,
                    _ => continue,
                };
                if !list.contains(&source) {
                    list.push(source);
                    let r = &mut readers[source.node.index()];
                    if !r.contains(&(i as u32)) {
                        r.push(i as u32);
                    }
                }
            }
            reads[i] = list;
            clusters[i].nodes.push(i as u32);
        }
        let order = Order::new(position.clone());
        let parent = (0..bound as u32).collect();
        let seen_at = vec![0; bound];
        Fusion {
            g,
            position,
            fusable,
            readings,
            reads,
            readers,
            is_output,
            parent,
            clusters,
            order,
            marks: Marks::new(bound),
            places,
            search: 0,
            seen_at,
        }
    }

    /// The cluster that this node is in.
    fn root(&self, i: u32) -> u32 {
        self.parent[i as usize]
    }

    fn run(&mut self, cost: &CostModel, limits: &Limits) -> Vec<Decision> {
        let mut heap: BinaryHeap<Entry> = BinaryHeap::new();
        let mut refused: FxHashMap<(u32, u32), Taken> = FxHashMap::default();
        // With the cluster that the merged one had then.
        let mut fused: Vec<(Taken, u32)> = Vec::new();
        for i in 0..self.clusters.len() as u32 {
            if self.position[i as usize] != u32::MAX && self.fusable[i as usize] {
                self.offer(i, true, cost, limits, &mut heap);
            }
        }
        while let Some((_, Reverse(pair), versions)) = heap.pop() {
            let (a, b) = pair;
            let current = self.parent[a as usize] == a
                && self.parent[b as usize] == b
                && [self.clusters[a as usize].version, self.clusters[b as usize].version] == versions;
            if !current {
                continue;
            }
            // Other merges may have moved the two past each other since the pair was offered.
            let (a, b) = if self.order.at(a) < self.order.at(b) { (a, b) } else { (b, a) };
            let mut decision = self.decision(a, b, cost);
            let first = [a, b].map(|c| self.clusters[c as usize].nodes[0]);
            let ids = (decision.producer, decision.consumer);
            let merged = if limits.apart.contains(&ids) {
                Err(Reason::RaisesPeak)
            } else if limits.shuffle.is_some_and(|s| s.keeps_apart(ids)) {
                Err(Reason::Shuffled)
            } else {
                self.merge(a, b)
            };
            match merged {
                Ok(kept) => {
                    fused.push((Taken { decision, first }, kept));
                    if fused.len() == limits.merges {
                        break;
                    }
                    self.offer(kept, false, cost, limits, &mut heap);
                }
                Err(reason) => {
                    decision.outcome = Outcome::Refused(reason);
                    if !refused.contains_key(&(pair.1, pair.0)) {
                        refused.insert(pair, Taken { decision, first });
                    }
                }
            }
        }
        let mut kept: Vec<_> = refused
            .into_iter()
            .filter(|((a, b), _)| self.parent[*a as usize] == *a && self.parent[*b as usize] == *b)
            .collect();
        kept.sort_by_key(|(pair, _)| *pair);
        let merged = fused.into_iter().map(|(taken, cluster)| {
            let kernel = self.kernel_id(self.root(cluster));
            Decision { outcome: Outcome::Fused { kernel }, ..self.named(taken) }
        });
        merged.chain(kept.into_iter().map(|(_, taken)| self.named(taken))).collect()
    }

    /// Id of the fused node that a cluster will become.
    fn kernel_id(&self, c: u32) -> u32 {
        let ids = self.clusters[c as usize].nodes.iter().map(|&n| self.g.node(NodeIndex::new(n as usize)).id);
        ids.min().unwrap_or(0)
    }

    /// Puts every pair that `c` could form on the heap: with producers, consumers, and readers of the same values. At the
    /// beginning, when all offer, only those that the other does not.
    fn offer(
        &self,
        c: u32,
        beginning: bool,
        cost: &CostModel,
        limits: &Limits,
        heap: &mut BinaryHeap<Entry>,
    ) {
        let mut seen: SmallVec<[u32; 16]> = SmallVec::new();
        let mut consider = |other: u32| {
            let other = self.root(other);
            if other == c || !self.fusable[other as usize] || seen.contains(&other) {
                return;
            }
            seen.push(other);
            let (a, b) = if self.order.at(c) < self.order.at(other) { (c, other) } else { (other, c) };
            let decision = self.decision(a, b, cost);
            let picoseconds = (decision.estimated_us * 1e6) as u64;
            let ids = (decision.producer, decision.consumer);
            let benefit = limits.shuffle.map_or(picoseconds, |s| s.priority(ids));
            let versions = [self.clusters[a as usize].version, self.clusters[b as usize].version];
            heap.push((benefit, Reverse((a, b)), versions));
        };
        for &n in &self.clusters[c as usize].nodes {
            for v in &self.reads[n as usize] {
                consider(v.node.index() as u32);
                let readers = &self.readers[v.node.index()];
                if readers.len() <= MAX_SIBLINGS && self.g.ty(*v).rank() > 0 {
                    readers.iter().filter(|&&r| !beginning || r > c).for_each(|&r| consider(r));
                }
            }
            if beginning {
                continue;
            }
            if self.g.node(NodeIndex::new(n as usize)).results[0].rank() > 0 || self.is_scalar(c) {
                self.readers[n as usize].iter().for_each(|&r| consider(r));
            }
        }
    }

    /// All of the cluster works on scalars.
    fn is_scalar(&self, c: u32) -> bool {
        self.clusters[c as usize].nodes.iter().all(|&n| {
            let n = NodeIndex::new(n as usize);
            self.g.node(n).results[0].rank() == 0 && !matches!(self.g.op(n), Op::Reduce { .. })
        })
    }

    /// What merging `a` (earlier) and `b` would save.
    fn decision(&self, a: u32, b: u32, cost: &CostModel) -> Decision {
        let inside = |n: u32| {
            let r = self.root(n);
            r == a || r == b
        };
        let (mut bytes, mut us) = (0u64, cost.launch_us);
        let mut siblings = true;
        let mut counted: SmallVec<[Value; 8]> = SmallVec::new();
        let in_a = &self.clusters[a as usize].nodes;
        let mark = self.marks.next();
        for v in in_a.iter().flat_map(|&n| &self.reads[n as usize]).filter(|v| v.result == 0) {
            self.marks.set(v.node.index(), mark);
        }
        // Marks are for first results, which nearly all are.
        let a_reads = |v: &Value| match v.result {
            0 => self.marks.has(v.node.index(), mark),
            _ => in_a.iter().any(|&n| self.reads[n as usize].contains(v)),
        };
        for &n in &self.clusters[b as usize].nodes {
            for &v in &self.reads[n as usize] {
                if counted.contains(&v) {
                    continue;
                }
                let producer = v.node.index() as u32;
                let size = self.g.ty(v).bytes();
                if self.root(producer) == a {
                    siblings = false;
                    counted.push(v);
                    let escapes = self.is_output[producer as usize]
                        || self.readers[producer as usize].iter().any(|&r| !inside(r));
                    let times = if escapes { 1 } else { 2 };
                    bytes += times * size;
                    us += times as f64 * cost.transfer_us(size);
                } else if a_reads(&v) {
                    counted.push(v);
                    bytes += size;
                    us += cost.transfer_us(size);
                }
            }
        }
        let id = |c: u32| {
            let first = self.clusters[c as usize].nodes[0] as usize;
            self.g.node(NodeIndex::new(first)).id
        };
        Decision {
            producer: id(a),
            consumer: id(b),
            producer_name: String::new(),
            consumer_name: String::new(),
            siblings,
            outcome: Outcome::Fused { kernel: 0 },
            bytes_saved: bytes,
            launches_saved: 1,
            estimated_us: us,
        }
    }

    /// The decision with operation and scope of the two clusters' first nodes.
    fn named(&self, Taken { decision, first }: Taken) -> Decision {
        let [producer_name, consumer_name] = first.map(|n| {
            let node = self.g.node(NodeIndex::new(n as usize));
            match &node.scope {
                Some(scope) => [node.op.mnemonic(), scope].join(" "),
                None => node.op.mnemonic().to_string(),
            }
        });
        Decision { producer_name, consumer_name, ..decision }
    }

    /// Merges `b` into `a`, which stands earlier.
    fn merge(&mut self, a: u32, b: u32) -> Result<u32, Reason> {
        let (x, y) = (&self.clusters[a as usize].nodes, &self.clusters[b as usize].nodes);
        let mut nodes: Vec<u32> = Vec::with_capacity(x.len() + y.len());
        nodes.extend(x);
        nodes.extend(y);
        nodes.sort_unstable_by_key(|&n| self.position[n as usize]);
        let indices: Vec<NodeIndex> = nodes.iter().map(|&n| NodeIndex::new(n as usize)).collect();
        let readings = nodes.iter().filter_map(|&n| self.readings[n as usize].as_ref());
        let draft = Draft::with(self.g, &indices, readings, &mut self.places)?;
        if self.outputs_of(&nodes) + draft.n_inputs() > MAX_ARGS {
            return Err(Reason::TooManyArguments);
        }
        let forward = self.reached(a, b, Direction::Forward).ok_or(Reason::Cycle)?;
        let backward = self.reached(b, a, Direction::Backward).ok_or(Reason::Cycle)?;
        self.order.merge(a, b, forward, backward);
        for n in std::mem::take(&mut self.clusters[b as usize].nodes) {
            self.parent[n as usize] = a;
        }
        let kept = &mut self.clusters[a as usize];
        kept.nodes = nodes;
        kept.version += 1;
        Ok(a)
    }

    fn outputs_of(&self, nodes: &[u32]) -> usize {
        nodes
            .iter()
            .filter(|&&n| {
                self.is_output[n as usize] || self.readers[n as usize].iter().any(|r| !nodes.contains(r))
            })
            .count()
    }

    /// Clusters between `from` and `to` in the order that `from` leads to (or, backward, that lead to it), without the
    /// direct edges between the two. `None` where one of them is `to`.
    fn reached(&mut self, from: u32, to: u32, direction: Direction) -> Option<Vec<u32>> {
        let limit = self.order.at(to);
        self.search += 1;
        let mut seen_at = std::mem::take(&mut self.seen_at);
        let found = self.search_from(from, to, direction, limit, &mut seen_at);
        self.seen_at = seen_at;
        found
    }

    fn search_from(
        &self,
        from: u32,
        to: u32,
        direction: Direction,
        limit: u32,
        seen_at: &mut [u32],
    ) -> Option<Vec<u32>> {
        let mut seen = Vec::new();
        let mut stack = vec![from];
        while let Some(c) = stack.pop() {
            let mut blocked = false;
            let mut visit = |n: u32| {
                let r = self.root(n);
                if r == to {
                    blocked |= c != from;
                } else if r != from
                    && direction.before(self.order.at(r), limit)
                    && seen_at[r as usize] != self.search
                {
                    seen_at[r as usize] = self.search;
                    seen.push(r);
                    stack.push(r);
                }
            };
            for &n in &self.clusters[c as usize].nodes {
                match direction {
                    Direction::Forward => self.readers[n as usize].iter().for_each(|&r| visit(r)),
                    Direction::Backward => {
                        self.reads[n as usize].iter().for_each(|v| visit(v.node.index() as u32))
                    }
                }
            }
            if blocked {
                return None;
            }
        }
        Some(seen)
    }

    fn clusters(&self) -> Vec<Vec<NodeIndex>> {
        let mut live: Vec<u32> = (0..self.clusters.len() as u32)
            .filter(|&c| {
                self.position[c as usize] != u32::MAX
                    && self.parent[c as usize] == c
                    && self.fusable[c as usize]
            })
            .collect();
        live.sort_unstable_by_key(|&c| self.order.at(c));
        let nodes =
            |c: u32| self.clusters[c as usize].nodes.iter().map(|&n| NodeIndex::new(n as usize)).collect();
        live.into_iter().map(nodes).collect()
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Backward,
}

impl Direction {
    fn before(self, at: u32, limit: u32) -> bool {
        match self {
            Direction::Forward => at < limit,
            Direction::Backward => at > limit,
        }
    }
}
