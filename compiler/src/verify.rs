//! Is a graph well formed?
//!
//! What every pass may assume, and must leave behind:
//!
//! * Every node has an id no other node has.
//! * A node's operands stand at positions 0, 1, ... n-1, one at each, and each names a result its producer has.
//! * The types of a node's results are those `infer` gives for its operands.
//! * No value depends on itself.
//! * `inputs` lists every input node once; no two inputs share a name.
//! * Every output is a value of the graph; no two outputs share a name.
//! * An output named like a state input is that state's next value and has its type. No output is named like a table
//!   or a data input: the host could not tell them apart.
//! * What holds of a graph holds of the region of every fused node; its inputs are plain data.
//!
//! All problems are reported, not the first.

use crate::graph::infer::infer;
use crate::graph::{Graph, Op, Role, TensorType};
use crate::text::value_name;
use petgraph::Direction;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};

/// One broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Ids of the fused nodes whose regions it is in, outermost first.
    pub within: Vec<u32>,
    /// The node it is about; none where it is about the graph.
    pub node: Option<u32>,
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for id in &self.within {
            write!(f, "in the region of %{id}: ")?;
        }
        if let Some(id) = self.node {
            write!(f, "%{id}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Every problem of the graph, in order of node ids.
pub fn verify(g: &Graph) -> Result<(), Vec<Problem>> {
    let mut v = Verifier { g, problems: vec![], within: vec![] };
    v.graph();
    if v.problems.is_empty() { Ok(()) } else { Err(v.problems) }
}

struct Verifier<'a> {
    g: &'a Graph,
    problems: Vec<Problem>,
    within: Vec<u32>,
}

impl Verifier<'_> {
    fn report(&mut self, node: Option<NodeIndex>, message: String) {
        let node = node.map(|n| self.g.node(n).id);
        self.problems.push(Problem { within: self.within.clone(), node, message });
    }

    fn graph(&mut self) {
        let g = self.g;
        let mut order: Vec<NodeIndex> = g.nodes().node_indices().collect();
        order.sort_by_key(|&n| g.node(n).id);
        for w in order.windows(2).filter(|w| g.node(w[0]).id == g.node(w[1]).id) {
            let (a, b) = (g.op(w[0]).mnemonic(), g.op(w[1]).mnemonic());
            self.report(Some(w[0]), format!("two nodes have this id, {a} and {b}"));
        }
        for &n in &order {
            self.node(n);
        }
        self.cycles(&order);
        self.inputs(&order);
        self.outputs();
    }

    fn node(&mut self, n: NodeIndex) {
        let g = self.g;
        let node = g.node(n);
        let edges: Vec<_> = g.nodes().edges_directed(n, Direction::Incoming).collect();
        let mut positions: Vec<u16> = edges.iter().map(|e| e.weight().position).collect();
        positions.sort_unstable();
        if positions.iter().enumerate().any(|(k, &p)| k != p as usize) {
            self.report(
                Some(n),
                format!(
                    "operands stand at positions {positions:?}; each of 0..{} must be taken once",
                    edges.len()
                ),
            );
            return;
        }
        let operands = g.operands(n);
        let mut types: Vec<&TensorType> = Vec::with_capacity(operands.len());
        for v in &operands {
            match g.node(v.node).results.get(v.result as usize) {
                Some(t) => types.push(t),
                None => {
                    let (from, has) = (g.node(v.node).id, g.node(v.node).results.len());
                    self.report(Some(n), format!("uses result {} of %{from}, which has {has}", v.result));
                    return;
                }
            }
        }
        if let Op::Fused { region } = &node.op {
            let before = self.problems.len();
            let mut within = self.within.clone();
            within.push(node.id);
            let mut inner = Verifier { g: region, problems: vec![], within };
            inner.graph();
            for (k, &i) in region.inputs.iter().enumerate() {
                if matches!(region.nodes().node_weight(i).map(|n| &n.op), Some(Op::Input { role, .. }) if *role != Role::Data)
                {
                    inner.report(Some(i), format!("input {k} of a region has a role; only data is allowed"));
                }
            }
            self.problems.extend(inner.problems);
            if self.problems.len() > before {
                return;
            }
        }
        match infer(&node.op, &types, &node.results) {
            Err(message) => self.report(Some(n), message),
            Ok(results) if results != node.results => {
                let show = |t: &[TensorType]| t.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(", ");
                let (gives, says) = (show(&results), show(&node.results));
                self.report(Some(n), format!("{} gives {gives}, the node says {says}", node.op.mnemonic()));
            }
            Ok(_) => {}
        }
    }

    fn cycles(&mut self, order: &[NodeIndex]) {
        let reached: FxHashSet<NodeIndex> = self.g.topological().into_iter().collect();
        let left: Vec<String> = order
            .iter()
            .filter(|n| !reached.contains(n))
            .map(|&n| format!("%{}", self.g.node(n).id))
            .collect();
        if !left.is_empty() {
            self.report(None, format!("these nodes are in a cycle or follow one: {}", left.join(", ")));
        }
    }

    fn inputs(&mut self, order: &[NodeIndex]) {
        let g = self.g;
        let mut listed: FxHashSet<NodeIndex> = FxHashSet::default();
        for &n in &g.inputs {
            match g.nodes().node_weight(n).map(|node| &node.op) {
                Some(Op::Input { .. }) if listed.insert(n) => {}
                Some(Op::Input { .. }) => self.report(Some(n), "is listed twice among the inputs".into()),
                Some(_) => self.report(Some(n), "is listed among the inputs but is none".into()),
                None => self.report(None, format!("the inputs name node index {}, which is gone", n.index())),
            }
        }
        let mut names: FxHashSet<&str> = FxHashSet::default();
        for &n in order {
            let Some(name) = g.input_name(n) else { continue };
            if !listed.contains(&n) {
                self.report(Some(n), format!("the input {name} is not listed among the inputs"));
            }
            if !names.insert(name) {
                self.report(Some(n), format!("another input is also named {name}"));
            }
        }
    }

    fn outputs(&mut self) {
        let g = self.g;
        let inputs: FxHashMap<&str, NodeIndex> = g
            .inputs
            .iter()
            .filter(|&&n| g.nodes().contains_node(n))
            .filter_map(|&n| g.input_name(n).map(|name| (name, n)))
            .collect();
        let mut names: FxHashSet<&str> = FxHashSet::default();
        for o in &g.outputs {
            if !names.insert(&o.name) {
                self.report(None, format!("two outputs are named {}", o.name));
            }
            let Some(ty) =
                g.nodes().node_weight(o.value.node).and_then(|n| n.results.get(o.value.result as usize))
            else {
                self.report(
                    None,
                    format!("output {} is {}, which is no value", o.name, value_name(g, o.value)),
                );
                continue;
            };
            // The results of a region go by position; what they are called means nothing.
            if !self.within.is_empty() {
                continue;
            }
            let Some(&input) = inputs.get(o.name.as_str()) else { continue };
            let Op::Input { role, .. } = g.op(input) else { continue };
            let state = g.node(input).results.first();
            match role {
                Role::State(_) if state == Some(ty) => {}
                Role::State(_) => {
                    let wanted = state.map_or("nothing".into(), |t| t.to_string());
                    self.report(
                        None,
                        format!(
                            "output {} is the next value of a state of type {wanted}, but has type {ty}",
                            o.name
                        ),
                    );
                }
                Role::Data | Role::Table(_) => {
                    self.report(None, format!("output {} has the name of an input that is no state", o.name));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Operand, Unary, Value};
    use petgraph::visit::EdgeRef;

    fn messages(g: &Graph) -> Vec<String> {
        verify(g).err().unwrap_or_default().iter().map(|p| p.to_string()).collect()
    }

    fn chain() -> (Graph, Value, Value) {
        let mut g = Graph::new("g");
        let x = g.new_input("x", TensorType::f32(&[2]), Role::Data);
        let y = g.add2(x, x);
        g.output("y", y);
        (g, x, y)
    }

    #[test]
    fn a_missing_operand() {
        let (mut g, _, y) = chain();
        let e = g.nodes().edges_directed(y.node, Direction::Incoming).find(|e| e.weight().position == 0);
        let e = e.map(|e| e.id());
        g.nodes_mut().remove_edge(e.unwrap());
        assert_eq!(messages(&g), ["%1: operands stand at positions [1]; each of 0..1 must be taken once"]);
    }

    #[test]
    fn a_result_that_is_not_there() {
        let (mut g, x, y) = chain();
        g.set_operand(y.node, 1, Value { node: x.node, result: 3 });
        assert_eq!(messages(&g), ["%1: uses result 3 of %0, which has 1"]);
    }

    #[test]
    fn an_output_whose_node_was_removed() {
        let (mut g, x, y) = chain();
        let z = g.unary(Unary::Neg, x);
        g.output("z", z);
        g.nodes_mut().remove_node(z.node);
        assert_eq!(messages(&g), ["output z is %?, which is no value"]);
        g.nodes_mut().remove_node(x.node);
        assert_eq!(messages(&g).len(), 3, "{:?}", messages(&g));
        let _ = y;
    }

    #[test]
    fn inputs_that_are_not_listed_or_twice() {
        let (mut g, x, y) = chain();
        g.inputs = vec![];
        assert_eq!(messages(&g), ["%0: the input x is not listed among the inputs"]);
        g.inputs = vec![x.node, x.node, y.node];
        let found = messages(&g);
        assert_eq!(
            found,
            ["%0: is listed twice among the inputs", "%1: is listed among the inputs but is none"]
        );
    }

    #[test]
    fn a_cycle_made_by_hand() {
        let (mut g, _, y) = chain();
        let z = g.unary(Unary::Neg, y);
        g.set_operand(y.node, 0, z);
        assert_eq!(messages(&g), ["these nodes are in a cycle or follow one: %1, %2"]);
        assert_eq!(g.nodes().edges_directed(y.node, Direction::Incoming).count(), 2);
        assert!(g.nodes().edge_weights().all(|&Operand { result, .. }| result == 0));
    }
}
