//! Puts library calls in the place of subgraphs, by example: a pattern is an ordinary graph made by the same code that
//! made the model, and its derivative by the same autodiff, so a pattern cannot drift from what it must match.
//!
//! The forward pattern is found from its root down. Its gradient shares the forward's nodes; it is found by following
//! consumers of values already bound. Matching runs before `simplify`, on what the builder and autodiff wrote.

use crate::autodiff::vjp;
use crate::graph::{Graph, Library, Op, RelAttentionCall, Role, TensorType, Value};
use crate::model::attention::relative_attention;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;

/// Every relative attention and its gradient becomes a call. Returns how many of each were found.
pub fn match_attention(g: &mut Graph) -> (usize, usize) {
    let mut patterns: FxHashMap<RelAttentionCall, Pattern> = FxHashMap::default();
    let mut found = (0, 0);
    for root in g.topological() {
        let Some(dims) = attention_dims(g, root) else { continue };
        let pattern = patterns.entry(dims).or_insert_with(|| Pattern::new(dims));
        let mut binding = Binding::new(&pattern.graph);
        if !binding.unify_down(&pattern.graph, g, pattern.out, root.into()) {
            continue;
        }
        let grads = binding.chase(&pattern.graph, g, pattern.first_gradient) && pattern.grads_bound(&binding);
        let bound = |v: Value| binding.get(v);
        let Some(operands) = pattern.inputs.iter().map(|&v| bound(v)).collect::<Option<Vec<_>>>() else {
            continue;
        };
        let Some(out) = bound(pattern.out) else { continue };
        if let Some(scope) = g.node(root).scope.clone() {
            g.set_scope(&scope);
        }
        let types = [g.ty(out).clone(), TensorType::f32(&[dims.batch * dims.heads, dims.seq])];
        let call = g.add(Op::Call(Library::RelAttention(dims)), &operands, &types);
        found.0 += 1;
        if grads && let Some(dout) = bound(pattern.dout) {
            let old: Vec<Value> = pattern.grads.iter().filter_map(|&v| bound(v)).collect();
            let types: Vec<TensorType> = old.iter().map(|&v| g.ty(v).clone()).collect();
            let mut args = operands;
            args.extend([call.into(), Value { node: call, result: 1 }, dout]);
            let grad = g.add(Op::Call(Library::RelAttentionGrad(dims)), &args, &types);
            for (k, v) in old.into_iter().enumerate() {
                g.replace(v, Value { node: grad, result: k as u16 });
            }
            found.1 += 1;
        }
        g.replace(out, call.into());
    }
    if found != (0, 0) {
        // The matched primitives are dead now; later passes should not spend time on them.
        g.remove_dead();
    }
    found
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

struct Pattern {
    graph: Graph,
    /// qkv, rel, u, v
    inputs: [Value; 4],
    out: Value,
    dout: Value,
    grads: Vec<Value>,
    /// Id of the first node that autodiff made.
    first_gradient: u32,
}

impl Pattern {
    fn new(d: RelAttentionCall) -> Self {
        let mut g = Graph::new("rel_attention");
        let (tokens, width) = (d.batch * d.seq, d.heads * d.d_head);
        let shapes: [&[usize]; 4] =
            [&[tokens, 3 * width], &[d.seq, width], &[d.heads, d.d_head], &[d.heads, d.d_head]];
        let names = ["qkv", "rel", "u", "v"];
        let mut k = 0;
        let inputs = shapes.map(|s| {
            k += 1;
            g.new_input(names[k - 1], TensorType::f32(s), Role::Data)
        });
        let dout = g.new_input("dout", TensorType::f32(&[tokens, width]), Role::Data);
        let out = relative_attention(&mut g, d, inputs);
        let first_gradient = g.node(out.node).id + 1;
        let grads = match vjp(&mut g, &[(out, dout)], &inputs) {
            Ok(found) => found.into_iter().flatten().collect(),
            // Attention is made of differentiable primitives only; without gradients nothing but the forward matches.
            Err(_) => Vec::new(),
        };
        Pattern { graph: g, inputs, out, dout, grads, first_gradient }
    }

    fn grads_bound(&self, b: &Binding) -> bool {
        self.grads.len() == 4 && self.grads.iter().all(|&v| b.get(v).is_some())
    }
}

/// Which value of the target stands for which value of the pattern.
struct Binding {
    of: Vec<Option<Value>>,
    trail: Vec<usize>,
}

impl Binding {
    fn new(pattern: &Graph) -> Self {
        Binding { of: vec![None; pattern.index_bound()], trail: Vec::new() }
    }

    fn get(&self, v: Value) -> Option<Value> {
        self.of[v.node.index()]
    }

    fn bind(&mut self, p: Value, t: Value) {
        self.of[p.node.index()] = Some(t);
        self.trail.push(p.node.index());
    }

    fn undo_to(&mut self, mark: usize) {
        for i in self.trail.drain(mark..) {
            self.of[i] = None;
        }
    }

    /// Binds `p` to `t` and, down through operands, everything they are made of. Undoes itself where it fails.
    fn unify_down(&mut self, pattern: &Graph, g: &Graph, p: Value, t: Value) -> bool {
        let mark = self.trail.len();
        let fits = self.unify(pattern, g, p, t);
        if !fits {
            self.undo_to(mark);
        }
        fits
    }

    fn unify(&mut self, pattern: &Graph, g: &Graph, p: Value, t: Value) -> bool {
        if let Some(bound) = self.get(p) {
            return bound == t;
        }
        if pattern.ty(p) != g.ty(t) {
            return false;
        }
        if matches!(pattern.op(p.node), Op::Input { .. }) {
            self.bind(p, t);
            return true;
        }
        if t.result != 0 || !pattern.op(p.node).same_as(g.op(t.node)) {
            return false;
        }
        self.bind(p, t);
        let (a, b) = (pattern.operands(p.node), g.operands(t.node));
        a.len() == b.len() && a.iter().zip(&b).all(|(&x, &y)| self.unify(pattern, g, x, y))
    }

    /// Binds the nodes from id `first` on through consumers of bound values, until all are bound or none more can be.
    fn chase(&mut self, pattern: &Graph, g: &Graph, first: u32) -> bool {
        let nodes: Vec<NodeIndex> =
            pattern.topological().into_iter().filter(|&n| pattern.node(n).id >= first).collect();
        loop {
            let mut progress = false;
            let mut missing = false;
            for &n in &nodes {
                if self.of[n.index()].is_some() {
                    continue;
                }
                if self.find(pattern, g, n) {
                    progress = true;
                } else {
                    missing = true;
                }
            }
            if !missing {
                return true;
            }
            if !progress {
                return false;
            }
        }
    }

    /// A node of the target that does what `n` does to an operand already bound.
    fn find(&mut self, pattern: &Graph, g: &Graph, n: NodeIndex) -> bool {
        let operands = pattern.operands(n);
        // Constants have no operand to come from; they are bound as operands of others.
        let Some((position, bound)) =
            operands.iter().enumerate().find_map(|(i, &v)| self.get(v).map(|t| (i, t)))
        else {
            return false;
        };
        g.uses(bound)
            .into_iter()
            .filter(|&(_, at)| at as usize == position)
            .any(|(candidate, _)| self.unify_down(pattern, g, n.into(), candidate.into()))
    }
}
