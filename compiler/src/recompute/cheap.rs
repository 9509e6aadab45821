//! Recomputation of cheap forward values in the backward pass, so that they need not be kept.
//!
//! An elementwise forward value read by the backward pass is computed again there when that takes reading at most one
//! tensor of its own size: GELU's inner terms from its input, softmax's exponentials from the logits, RMSNorm's
//! normalised values from its input. Values that are in memory anyway, because a product reads them, are read.

use crate::fuse::body::{is_free, is_item};
use crate::graph::{Graph, Op, Value};
use petgraph::Direction;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Returns how many nodes were copied. Without an output named `loss` there is no backward pass and nothing to do.
pub fn recompute(g: &mut Graph) -> usize {
    let Some(loss) = g.output_named("loss") else { return 0 };
    let order = g.topological();
    let bound = g.index_bound();
    let mut forward = vec![false; bound];
    let mut stack = vec![loss.node];
    while let Some(n) = stack.pop() {
        if !std::mem::replace(&mut forward[n.index()], true) {
            stack.extend(g.nodes().neighbors_directed(n, Direction::Incoming));
        }
    }
    let cheap = cheap_values(g, &order, &forward);
    let mut copies: FxHashMap<NodeIndex, NodeIndex> = FxHashMap::default();
    for &n in order.iter().filter(|n| !forward[n.index()]) {
        if !is_item(g.op(n)) && !is_free(g.op(n)) {
            continue;
        }
        for (position, v) in g.operands(n).into_iter().enumerate() {
            if cheap[v.node.index()] {
                let copy = copy_down(g, &cheap, &mut copies, v.node);
                g.set_operand(n, position as u16, copy.into());
            }
        }
    }
    copies.len()
}

/// Forward values worth computing twice.
fn cheap_values(g: &Graph, order: &[NodeIndex], forward: &[bool]) -> Vec<bool> {
    let mut cheap = vec![false; forward.len()];
    // What a copy of the node would read from memory.
    let mut anchors: Vec<SmallVec<[Value; 2]>> = vec![SmallVec::new(); forward.len()];
    for &n in order.iter().filter(|n| forward[n.index()]) {
        let op = g.op(n);
        let v = Value::from(n);
        if !(op.is_elementwise() || matches!(op, Op::Broadcast { .. })) || g.ty(v).rank() < 2 {
            continue;
        }
        let mut reads: SmallVec<[Value; 2]> = SmallVec::new();
        for from in g.operands(n) {
            let i = from.node.index();
            if cheap[i] {
                reads.extend(anchors[i].iter().copied());
            } else if !matches!(g.op(from.node), Op::Constant { .. } | Op::Iota { .. }) {
                reads.push(from);
            }
        }
        reads.sort_unstable();
        reads.dedup();
        let size = g.ty(v).elements();
        let large = reads.iter().filter(|r| g.ty(**r).elements() * 2 > size).count();
        let in_memory_anyway = g.consumers(n).iter().any(|&c| !is_item(g.op(c)) && !is_free(g.op(c)));
        if large <= 1 && reads.len() <= 4 && !in_memory_anyway {
            cheap[n.index()] = true;
            anchors[n.index()] = reads;
        }
    }
    cheap
}

fn copy_down(
    g: &mut Graph,
    cheap: &[bool],
    copies: &mut FxHashMap<NodeIndex, NodeIndex>,
    n: NodeIndex,
) -> NodeIndex {
    if let Some(&done) = copies.get(&n) {
        return done;
    }
    let mut args = g.operands(n);
    for v in args.iter_mut() {
        if cheap[v.node.index()] {
            *v = copy_down(g, cheap, copies, v.node).into();
        }
    }
    let (op, results) = (g.node(n).op.clone(), g.node(n).results.clone());
    if let Some(scope) = g.node(n).scope.clone() {
        g.set_scope(&format!("{scope}/recompute"));
    }
    let copy = g.add(op, &args, &results);
    copies.insert(n, copy);
    copy
}
