//! Which kept values to compute again, so that a training step fits into a memory budget at little cost in time.
//!
//! The search is greedy over groups of values that are alike in every layer: each step gives up the group that lowers
//! the planned peak most for the time it costs, with a new plan after every step. Where no group lowers it any more,
//! values that are still kept in every layer are kept in every k-th only. The last step then takes only as many of its
//! values as the budget needs, the first layers' before the last, and steps that have become needless are undone. What
//! is found meets the budget; that no cheaper choice does is not guaranteed (the problem is a knapsack with
//! dependencies).

use super::kept::Kept;
use super::rerun::rerun;
use crate::cost::{CostModel, operations};
use crate::graph::{Graph, Library, Op, Value};
use crate::lower::product::gemm_of;
use crate::lower::{LowerError, Lowered, least_arena, lower};
use isoflop_kernels::cpu::attention::RelAttention;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashSet;
use serde::Serialize;

/// A choice of what to compute again, and what it means.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Of the whole training program: `Program::total_bytes`.
    pub bytes: u64,
    /// Time of the kernels that run again, by the cost model.
    pub extra_us: f64,
    /// Empty for the program without a budget.
    pub rerun: Vec<Rerun>,
}

/// Values of one group that the backward pass computes again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rerun {
    /// Such as `layers.*.gelu mul`.
    pub group: String,
    pub values: usize,
    /// Values of the group.
    pub of: usize,
    /// Of the values that are no longer kept.
    pub bytes: u64,
}

/// Which values of a group are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// All but the first `n`.
    From(usize),
    /// One in `k`, the first of them.
    Every(usize),
}

impl Keep {
    fn keeps(self, index: usize) -> bool {
        match self {
            Keep::From(n) => index >= n,
            Keep::Every(k) => index.is_multiple_of(k),
        }
    }
}

/// A choice for every group.
#[derive(Clone, Debug)]
struct State {
    keep: Vec<Keep>,
    /// Bytes alive at once, those outside the arena too: what a perfect placement would take.
    alive: u64,
    us: f64,
}

/// A state whose program has been planned.
struct Step {
    state: State,
    bytes: u64,
}

/// Distances between kept values that are tried where every layer's value is kept at first.
const DISTANCES: [usize; 10] = [2, 3, 4, 5, 6, 8, 10, 12, 16, 24];

/// The search over one fused training graph.
pub struct Search<'a> {
    g: &'a Graph,
    cost: &'a CostModel,
    kept: Option<Kept>,
    /// Bytes outside the arena, which no choice changes.
    outside: u64,
}

impl<'a> Search<'a> {
    /// `planned` is the program of `g` as it stands.
    pub fn new(g: &'a Graph, planned: &Lowered, cost: &'a CostModel) -> Self {
        let outside = planned.program.total_bytes() - planned.program.arena_bytes;
        Search { g, cost, kept: Kept::of(g), outside }
    }

    /// The training step within `budget` bytes: its graph, its program and what runs again in it. Where no choice gets
    /// there, `None` and the program of the choice that needs least.
    pub fn fit(&self, budget: u64) -> Result<(Option<Point>, Graph, Lowered), LowerError> {
        let Some(kept) = &self.kept else { return Ok((None, self.g.clone(), lower(self.g)?)) };
        let steps = self.descend(kept, budget)?;
        let fitting = steps.iter().filter(|s| s.bytes <= budget);
        let Some(step) = fitting.min_by(|a, b| a.state.us.total_cmp(&b.state.us)) else {
            let (graph, lowered) = match steps.iter().min_by_key(|s| s.bytes) {
                Some(least) => self.planned(kept, &least.state)?,
                None => (self.g.clone(), lower(self.g)?),
            };
            return Ok((None, graph, lowered));
        };
        let mut target = budget;
        for _ in 0..3 {
            // A placement may take more than what is alive at once; then a little less is asked for.
            let state = self.refine(kept, step.state.clone(), target)?;
            let (graph, lowered) = self.planned(kept, &state)?;
            let bytes = lowered.program.total_bytes();
            if bytes <= budget {
                return Ok((Some(self.point(kept, &state, bytes)), graph, lowered));
            }
            target = target.saturating_sub(bytes - budget);
        }
        let (graph, lowered) = self.planned(kept, &step.state)?;
        Ok((Some(self.point(kept, &step.state, step.bytes)), graph, lowered))
    }

    /// From no recomputation to the least memory: each point needs less than the one before and takes longer.
    pub fn curve(&self) -> Result<Vec<Point>, LowerError> {
        let Some(kept) = &self.kept else { return Ok(Vec::new()) };
        let steps = self.descend(kept, 0)?;
        let mut points: Vec<Point> = steps.iter().map(|s| self.point(kept, &s.state, s.bytes)).collect();
        points.sort_by(|a, b| a.extra_us.total_cmp(&b.extra_us).then(a.bytes.cmp(&b.bytes)));
        let mut least = u64::MAX;
        points.retain(|p| {
            let needs_less = p.bytes < least;
            least = least.min(p.bytes);
            needs_less
        });
        Ok(points)
    }

    /// The steps down from no recomputation, until one fits into `target` bytes or nothing brings anything any more.
    fn descend(&self, kept: &Kept, target: u64) -> Result<Vec<Step>, LowerError> {
        let step = |state: &State| -> Result<Step, LowerError> {
            let bytes = self.planned(kept, state)?.1.program.total_bytes();
            Ok(Step { state: state.clone(), bytes })
        };
        let mut here = self.state(kept, vec![Keep::From(0); kept.groups.len()])?;
        let mut steps = vec![step(&here)?];
        // What giving up each group brought when it was last looked at; a guess at first.
        let mut scores: Vec<(f64, Option<State>)> = vec![(f64::INFINITY, None); kept.groups.len()];
        while steps.last().is_some_and(|s| s.bytes > target) {
            let best = (0..scores.len()).max_by(|&a, &b| scores[a].0.total_cmp(&scores[b].0).then(b.cmp(&a)));
            let Some(best) = best.filter(|&b| scores[b].0 > 0.0) else { break };
            if let Some(next) = scores[best].1.take() {
                here = next;
                steps.push(step(&here)?);
                for (group, score) in scores.iter_mut().enumerate() {
                    let given_up = here.keep[group] != Keep::From(0);
                    // Even what brought nothing may bring something now.
                    *score = (if given_up { 0.0 } else { score.0.max(f64::MIN_POSITIVE) }, None);
                }
                continue;
            }
            let next = self.change(kept, &here, best, Keep::From(kept.groups[best].values.len()))?;
            let gain = here.alive as f64 - next.alive as f64;
            let score = gain / (next.us - here.us).max(self.cost.launch_us);
            scores[best] = if gain > 0.0 { (score, Some(next)) } else { (0.0, None) };
        }
        if steps.last().is_some_and(|s| s.bytes > target) {
            for group in (0..kept.groups.len()).filter(|&group| here.keep[group] == Keep::From(0)) {
                for k in DISTANCES.into_iter().filter(|k| 2 * k <= kept.groups[group].values.len()) {
                    let next = self.change(kept, &here, group, Keep::Every(k))?;
                    if next.alive < here.alive {
                        steps.push(step(&next)?);
                    }
                }
            }
        }
        Ok(steps)
    }

    fn planned(&self, kept: &Kept, state: &State) -> Result<(Graph, Lowered), LowerError> {
        let (graph, _) = self.apply(kept, &state.keep);
        let lowered = lower(&graph)?;
        Ok((graph, lowered))
    }

    /// A cheaper state within `target`, by giving up no more of each group than it takes.
    fn refine(&self, kept: &Kept, mut state: State, target: u64) -> Result<State, LowerError> {
        for group in 0..kept.groups.len() {
            let Keep::From(all @ 1..) = state.keep[group] else { continue };
            let without = self.change(kept, &state, group, Keep::From(0))?;
            if without.alive <= target {
                state = without;
                continue;
            }
            let (mut too_few, mut enough) = (0, all);
            while enough - too_few > 1 {
                let middle = (too_few + enough) / 2;
                let tried = self.change(kept, &state, group, Keep::From(middle))?;
                if tried.alive <= target {
                    (enough, state) = (middle, tried);
                } else {
                    too_few = middle;
                }
            }
        }
        Ok(state)
    }

    fn change(&self, kept: &Kept, from: &State, group: usize, keep: Keep) -> Result<State, LowerError> {
        let mut changed = from.keep.clone();
        changed[group] = keep;
        self.state(kept, changed)
    }

    fn state(&self, kept: &Kept, keep: Vec<Keep>) -> Result<State, LowerError> {
        let (graph, copies) = self.apply(kept, &keep);
        let us = copies.into_iter().fold(0.0, |sum, n| sum + self.us(&graph, n));
        Ok(State { keep, alive: self.outside + least_arena(&graph)?, us })
    }

    fn apply(&self, kept: &Kept, keep: &[Keep]) -> (Graph, Vec<NodeIndex>) {
        let mut saved: FxHashSet<Value> = kept.values.clone();
        for (group, keep) in kept.groups.iter().zip(keep) {
            for (_, v) in group.values.iter().enumerate().filter(|(i, _)| !keep.keeps(*i)) {
                saved.remove(v);
            }
        }
        rerun(self.g, kept, &saved)
    }

    fn point(&self, kept: &Kept, state: &State, bytes: u64) -> Point {
        let mut rerun = Vec::new();
        for (group, keep) in kept.groups.iter().zip(&state.keep) {
            let of = group.values.len();
            let again: Vec<usize> = (0..of).filter(|&i| !keep.keeps(i)).collect();
            if !again.is_empty() {
                let bytes_again = again.iter().map(|&i| self.g.ty(group.values[i]).bytes()).sum();
                rerun.push(Rerun { group: group.name.clone(), values: again.len(), of, bytes: bytes_again });
            }
        }
        Point { bytes, extra_us: state.us, rerun }
    }

    /// Microseconds of one kernel that runs again.
    fn us(&self, g: &Graph, n: NodeIndex) -> f64 {
        let node = g.node(n);
        let sum = |g: &Graph, n: NodeIndex| operations(g.op(n)) * g.ty(n.into()).elements() as u64;
        let compute = match &node.op {
            Op::Reshape => return 0.0,
            Op::Dot { .. } => gemm_of(g, n).map_or(0.0, |p| p.flops() as f64 / self.cost.product_rate(&p)),
            Op::Call(Library::RelAttention(c)) => {
                let dims = RelAttention { batch: c.batch, seq: c.seq, heads: c.heads, d_head: c.d_head };
                dims.forward_flops() as f64 / self.cost.attention_flops_per_us
            }
            Op::Fused { region } => {
                let items = region.nodes().node_indices().map(|n| sum(region, n)).sum::<u64>();
                items as f64 / self.cost.operations_per_us
            }
            _ => sum(g, n) as f64 / self.cost.operations_per_us,
        };
        let read: f64 = g.operands(n).iter().map(|v| self.cost.transfer_us(g.ty(*v).bytes())).sum();
        let written: f64 = node.results.iter().map(|t| self.cost.transfer_us(t.bytes())).sum();
        compute.max(read + written) / self.cost.threads.max(1) as f64 + self.cost.launch_us
    }
}
