//! Relative attention.

use super::{Gradient, Pattern};
use crate::graph::{Graph, Library, Op, RelAttentionCall, Role, TensorType, Value};
use crate::model::attention::relative_attention;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;

/// Every relative attention and its gradient becomes a call. Returns how many of each were found.
pub fn match_attention(g: &mut Graph) -> (usize, usize) {
    let mut patterns: FxHashMap<RelAttentionCall, Pattern> = FxHashMap::default();
    let mut count = (0, 0);
    for root in g.topological() {
        let Some(dims) = attention_dims(g, root) else { continue };
        let pattern = patterns.entry(dims).or_insert_with(|| pattern(dims));
        let Some(found) = pattern.find(g, root) else { continue };
        if let Some(scope) = g.node(root).scope.clone() {
            g.set_scope(&scope);
        }
        let types = [g.ty(found.out).clone(), TensorType::f32(&[dims.batch * dims.heads, dims.seq])];
        let call = g.add(Op::Call(Library::RelAttention(dims)), &found.operands, &types);
        count.0 += 1;
        if let Some(Gradient { dout, results }) = found.gradient {
            let types: Vec<TensorType> = results.iter().map(|&v| g.ty(v).clone()).collect();
            let mut operands = found.operands;
            operands.extend([call.into(), Value { node: call, result: 1 }, dout]);
            let grad = g.add(Op::Call(Library::RelAttentionGrad(dims)), &operands, &types);
            for (k, v) in results.into_iter().enumerate() {
                g.replace(v, Value { node: grad, result: k as u16 });
            }
            count.1 += 1;
        }
        g.replace(found.out, call.into());
    }
    if count != (0, 0) {
        // The matched primitives are dead now; later passes should not spend time on them.
        g.remove_dead();
    }
    count
}

/// `root` is the last node of something shaped like attention: reshape of transpose of dot.
fn attention_dims(g: &Graph, root: NodeIndex) -> Option<RelAttentionCall> {
    if !matches!(g.op(root), Op::Reshape) {
        return None;
    }
    let transposed = g.operands(root)[0];
    if !matches!(g.op(transposed.node), Op::Transpose { .. }) || g.ty(transposed).rank() != 4 {
        return None;
    }
    let product = g.operands(transposed.node)[0];
    if !matches!(g.op(product.node), Op::Dot { .. }) {
        return None;
    }
    let shape = &g.ty(transposed).shape;
    Some(RelAttentionCall { batch: shape[0], seq: shape[1], heads: shape[2], d_head: shape[3] })
}

fn pattern(d: RelAttentionCall) -> Pattern {
    let mut g = Graph::new("rel_attention");
    let (tokens, width) = (d.batch * d.seq, d.heads * d.d_head);
    let shapes: [(&str, &[usize]); 4] = [
        ("qkv", &[tokens, 3 * width]),
        ("rel", &[d.seq, width]),
        ("u", &[d.heads, d.d_head]),
        ("v", &[d.heads, d.d_head]),
    ];
    let inputs = shapes.map(|(name, shape)| g.new_input(name, TensorType::f32(shape), Role::Data));
    let dout = g.new_input("dout", TensorType::f32(&[tokens, width]), Role::Data);
    let out = relative_attention(&mut g, d, inputs);
    Pattern::new(g, inputs.to_vec(), out, dout, &inputs)
}
