//! Fusion that needs no more memory than the operations one by one, to a page.
//!
//! A merged kernel starts when its last operand is there and ends for all its results at once, so a merge can make a
//! value live longer. Nearly always what fusion keeps out of memory is far more. Where it is not, the merge that
//! carried the arena over the unfused program's is found by bisection and refused.

use super::body::{is_free, is_item};
use super::decision::Outcome;
use super::{Attempt, Limits};
use crate::graph::{Graph, Op, Shape, Value};
use crate::lower::schedule::{Policy, Update, schedule};
use isoflop_kernels::program::ALIGN;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};

/// Merges refused for memory before all merging is given up.
const MAX_REFUSALS: usize = 64;
/// What a merge may add: partial sums of a few bytes are no reason to read a tensor twice, and memory comes in pages.
pub const PAGE: u64 = 4096;

/// The result of `attempt` with `limits` and as few more as keep its arena within that of the unfused program. Graphs that have no
/// code as they stand are fused with `limits` alone.
pub fn within_unfused(g: &Graph, mut limits: Limits, attempt: impl Fn(&Limits) -> Attempt) -> Attempt {
    let mut result = attempt(&limits);
    let Some(mut bytes) = result.arena() else { return result };
    if bytes <= floor(g) {
        return result;
    }
    let unfused = attempt(&Limits { merges: 0, ..limits.clone() });
    let Some(allowed) = unfused.arena().map(|bytes| bytes + PAGE) else { return result };
    for _ in 0..MAX_REFUSALS {
        if bytes <= allowed {
            return result;
        }
        let is_fused = |o: Outcome| matches!(o, Outcome::Fused { .. });
        let (mut fits, mut exceeds) =
            (0, result.log.decisions.iter().filter(|d| is_fused(d.outcome)).count());
        while exceeds - fits > 1 {
            let merges = (fits + exceeds) / 2;
            let part = attempt(&Limits { merges, ..limits.clone() });
            if part.arena().is_some_and(|bytes| bytes <= allowed) { fits = merges } else { exceeds = merges }
        }
        let Some(culprit) = exceeds.checked_sub(1).map(|i| &result.log.decisions[i]) else { break };
        limits.apart.insert((culprit.producer, culprit.consumer));
        result = attempt(&limits);
        bytes = result.arena().unwrap_or(u64::MAX);
    }
    unfused
}

/// Bytes that the unfused program holds between two operations at least, in whichever order it runs: values that are
/// made and not yet read for the last time. Operations that write over an operand need no more.
fn floor(g: &Graph) -> u64 {
    let mut g = g.clone();
    // What kernels make in registers is no part of the program: nobody waits for it, and it takes no bytes.
    for n in g.topological() {
        let reader = |&c: &NodeIndex| is_item(g.op(c)) || is_free(g.op(c));
        if is_free(g.op(n)) && g.consumers(n).iter().all(reader) {
            let node = &mut g.nodes_mut()[n];
            node.id = 0;
            node.results[0].shape = Shape::from_slice(&[0]);
        }
    }
    let next_states = g.outputs.iter().filter_map(|o| {
        let writer = g.behind_views(o.value).node;
        g.input(&o.name).filter(|i| i.node != writer).map(|i| Update { input: i.node, writer })
    });
    let updates: Vec<Update> = next_states.collect();
    let of = |policy| most_alive(&g, &schedule(&g, &updates, policy).0);
    of(Policy::Id).min(of(Policy::LeastMemory))
}

/// The most bytes between two nodes of this order, inputs and outputs left out.
fn most_alive(g: &Graph, order: &[NodeIndex]) -> u64 {
    let outputs: FxHashSet<Value> = g.outputs.iter().map(|o| g.behind_views(o.value)).collect();
    let mut last: FxHashMap<Value, usize> = FxHashMap::default();
    for (place, &n) in order.iter().enumerate() {
        if !matches!(g.op(n), Op::Reshape) {
            last.extend(g.operands(n).into_iter().map(|v| (g.behind_views(v), place)));
        }
    }
    let mut change = vec![0i128; order.len() + 1];
    for (place, &n) in order.iter().enumerate() {
        if matches!(g.op(n), Op::Input { .. } | Op::Reshape) || is_free(g.op(n)) {
            continue;
        }
        for (k, ty) in g.node(n).results.iter().enumerate() {
            let v = Value { node: n, result: k as u16 };
            if let Some(&end) = last.get(&v).filter(|_| !outputs.contains(&v)) {
                let bytes = i128::from(ty.bytes().next_multiple_of(ALIGN));
                change[place] += bytes;
                change[end] -= bytes;
            }
        }
    }
    let mut alive = 0;
    let live = change.into_iter().map(|c| {
        alive += c;
        alive
    });
    live.max().map_or(0, |most| u64::try_from(most).unwrap_or(0))
}
