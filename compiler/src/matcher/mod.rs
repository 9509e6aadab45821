//! Puts library calls in the place of subgraphs, by example: a pattern is an ordinary graph made by the same code that
//! made the model, and its derivative by the same autodiff, so a pattern cannot drift from what it must match.
//!
//! The forward pattern is found from its root down. Its gradient shares the forward's nodes; it is found by following
//! consumers of values already bound. Matching runs before `simplify`, on what the builder and autodiff wrote.

mod attention;
mod head;

pub use attention::match_attention;
pub use head::match_head;

use crate::autodiff::vjp;
use crate::graph::{Graph, Op, Value};
use petgraph::stable_graph::NodeIndex;

/// What a call computes, and its gradient, as the model and autodiff write them.
struct Pattern {
    graph: Graph,
    /// Operands of the call, in order.
    inputs: Vec<Value>,
    out: Value,
    /// The gradient of `out` that comes in: an input of the pattern, or a constant.
    dout: Value,
    /// Gradients of those inputs that have one.
    grads: Vec<Value>,
    /// Id of the first node that autodiff made.
    first_gradient: u32,
}

/// A pattern found in a graph.
struct Occurrence {
    operands: Vec<Value>,
    out: Value,
    gradient: Option<Gradient>,
    /// Which value of the graph stands for which of the pattern.
    binding: Binding,
}

struct Gradient {
    dout: Value,
    results: Vec<Value>,
}

impl Pattern {
    /// `graph` computes `out` from `inputs`; gradients flow to `wrt`.
    fn new(mut graph: Graph, inputs: Vec<Value>, out: Value, dout: Value, wrt: &[Value]) -> Pattern {
        let first_gradient = graph.node(out.node).id + 1;
        let grads: Vec<Value> = match vjp(&mut graph, &[(out, dout)], wrt) {
            Ok(found) => found.into_iter().flatten().collect(),
            // Patterns are made of differentiable primitives; without gradients nothing but the forward matches.
            Err(_) => Vec::new(),
        };
        // Autodiff may leave nodes that nothing needs; the graph may have lost them already.
        for (k, &v) in grads.iter().chain([&out]).enumerate() {
            graph.output(&k.to_string(), v);
        }
        graph.remove_dead();
        Pattern { graph, inputs, out, dout, grads, first_gradient }
    }

    /// This pattern with its result at `root`, and its gradient where all of it is there.
    fn find(&self, g: &Graph, root: NodeIndex) -> Option<Occurrence> {
        let mut binding = Binding::new(&self.graph);
        if !binding.unify_down(&self.graph, g, self.out, root.into()) {
            return None;
        }
        let forward = binding.trail.len();
        let all = binding.chase(&self.graph, g, self.first_gradient);
        let bound = |binding: &Binding, list: &[Value]| -> Option<Vec<Value>> {
            list.iter().map(|&v| binding.get(v)).collect()
        };
        let gradient = match (all && !self.grads.is_empty(), binding.get(self.dout)) {
            (true, Some(dout)) => bound(&binding, &self.grads).map(|results| Gradient { dout, results }),
            _ => None,
        };
        if gradient.is_none() {
            binding.undo_to(forward);
        }
        let operands = bound(&binding, &self.inputs)?;
        Some(Occurrence { operands, out: root.into(), gradient, binding })
    }

    /// Whether nothing outside an occurrence uses a value inside it, so that a call leaves none of its nodes alive.
    /// Constants and indices may be shared: they cost nothing.
    fn stands_alone(&self, g: &Graph, found: &Occurrence) -> bool {
        let mut inside = vec![false; g.index_bound()];
        let of_pattern = |n: NodeIndex| found.binding.get(n.into());
        for v in self.graph.nodes().node_indices().filter_map(of_pattern) {
            inside[v.node.index()] = true;
        }
        for v in found.operands.iter().chain(found.gradient.iter().map(|d| &d.dout)) {
            inside[v.node.index()] = false;
        }
        let results = || found.gradient.iter().flat_map(|d| &d.results).chain([&found.out]);
        let hidden = |n: NodeIndex| {
            inside[n.index()]
                && !matches!(g.op(n), Op::Constant { .. } | Op::Iota { .. })
                && results().all(|r| r.node != n)
        };
        let live = g.live();
        let used = |n: NodeIndex| g.consumers(n).iter().any(|c| live[c.index()] && !inside[c.index()]);
        !g.nodes().node_indices().any(|n| hidden(n) && used(n))
            && g.outputs.iter().all(|o| !hidden(o.value.node))
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
