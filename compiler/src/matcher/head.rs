//! The head of the model with its cross entropy: logits, their loss, and the gradients of what they are made of.

use super::{Gradient, Pattern};
use crate::graph::{Graph, HeadCall, Library, Op, Role, TensorType, Value};
use crate::model::layers;
use isoflop_kernels::cpu::head::Head;
use petgraph::stable_graph::NodeIndex;

/// Every mean cross entropy of a linear layer without bias becomes a call, together with its gradients where the loss
/// is what was differentiated (its own gradient is the constant 1). Left alone where something else reads the logits or
/// what is made of them. Returns how many losses were found alone, and how many with gradients.
pub fn match_head(g: &mut Graph) -> (usize, usize) {
    let mut count = (0, 0);
    for root in g.topological() {
        let Some(call) = head_dims(g, root) else { continue };
        let pattern = pattern(call);
        let Some(found) = pattern.find(g, root).filter(|found| pattern.stands_alone(g, found)) else {
            continue;
        };
        if let Some(scope) = g.node(root).scope.clone() {
            g.set_scope(&scope);
        }
        let gradients = found.gradient.map_or(vec![], |Gradient { results, .. }| results);
        let library =
            if gradients.is_empty() { Library::HeadLoss(call) } else { Library::HeadLossGrad(call) };
        let replaced: Vec<Value> = [found.out].into_iter().chain(gradients).collect();
        let types: Vec<TensorType> = replaced.iter().map(|&v| g.ty(v).clone()).collect();
        let made = g.add(Op::Call(library), &found.operands, &types);
        if replaced.len() == 1 {
            count.0 += 1
        } else {
            count.1 += 1
        }
        for (k, v) in replaced.into_iter().enumerate() {
            g.replace(v, Value { node: made, result: k as u16 });
        }
    }
    if count != (0, 0) {
        g.remove_dead();
    }
    count
}

/// `root` is the last node of something shaped like a mean cross entropy: a scalar whose first operands lead down to a
/// product of matrices, the logits.
fn head_dims(g: &Graph, root: NodeIndex) -> Option<HeadCall> {
    if !matches!(g.op(root), Op::Binary(_)) || g.ty(root.into()).rank() != 0 {
        return None;
    }
    let mut n = root;
    // mul, reduce_sum, sub, log, reduce_sum, exp, sub, dot
    for _ in 0..7 {
        n = g.operands(n).first()?.node;
    }
    if !matches!(g.op(n), Op::Dot { .. }) {
        return None;
    }
    let operands = g.operands(n);
    match (&g.ty(operands[0]).shape[..], &g.ty(n.into()).shape[..]) {
        (&[_, width], &[rows, vocab]) if rows > 0 && width > 0 && vocab > 0 => {
            Some(HeadCall { rows, width, vocab, chunk: chunk(rows, width, vocab) })
        }
        _ => None,
    }
}

fn pattern(c: HeadCall) -> Pattern {
    let mut g = Graph::new("head_loss");
    let h = g.new_input("h", TensorType::f32(&[c.rows, c.width]), Role::Data);
    let table = g.new_input("table", TensorType::f32(&[c.vocab, c.width]), Role::Data);
    let targets = g.new_input("targets", TensorType::i32(&[c.rows]), Role::Data);
    let logits = layers::linear(&mut g, h, table, None);
    let loss = layers::cross_entropy(&mut g, logits, targets);
    let seed = g.constant_like(1.0, loss);
    Pattern::new(g, vec![h, table, targets], loss, seed, &[h, table])
}

/// How many rows have their logits at once.
///
/// In a core's cache: 128, so that the table, packed again for each chunk, is used 2 * 128 times for every element packed;
/// less where there would be fewer than 8 tasks.
///
/// From memory: each chunk after the first reads and writes the gradient of the table, 8 bytes for each of its elements,
/// against 3 products of 2 * chunk FLOPs for the same element. With 16 FLOPs in the time of a byte (two cores of 118
/// GFLOP/s, 15 GB/s) that is 8 * 16 / (6 * 512) = 4 % at 512 rows if nothing hides it, and 1 % at 2048. 512 rows of 32000
/// logits are 65 MB, so larger chunks are for batches of many rows, whose activations outweigh them anyway. Even small
/// batches have two chunks: memory is planned for the larger of forward and backward, and the logits are its peak.
fn chunk(rows: usize, width: usize, vocab: usize) -> usize {
    let largest = if Head::fits_locally(width, vocab) {
        (rows / 8).next_multiple_of(16).clamp(32, Head::LOCAL_ROWS)
    } else if rows > Head::LOCAL_ROWS {
        (rows / 16).clamp(512, 2048).min(rows.div_ceil(2))
    } else {
        rows
    };
    // Chunks of equal height.
    rows.div_ceil(rows.div_ceil(largest))
}
