//! The graph: petgraph's stable directed graph, a node for an operation and an edge for an operand.
//!
//! Every node has an id of its own that survives passes and the text form, so that two dumps of one graph can be
//! compared line by line.

pub mod build;
mod canonical;
pub mod infer;
pub mod op;
pub mod types;

pub use op::{Axes, Binary, Comparison, HeadCall, Library, Op, ReduceKind, RelAttentionCall, Role, Unary};
pub use types::{Shape, TensorType};

pub use petgraph::stable_graph::NodeIndex;

use petgraph::Direction;
use petgraph::stable_graph::StableDiGraph;
use petgraph::visit::EdgeRef;
use smallvec::SmallVec;
use std::sync::Arc;

/// One result of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    pub node: NodeIndex,
    pub result: u16,
}

impl From<NodeIndex> for Value {
    fn from(node: NodeIndex) -> Self {
        Value { node, result: 0 }
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    /// Unique in its graph, kept by passes and by the text form.
    pub id: u32,
    pub op: Op,
    /// Types of the results; one for every primitive.
    pub results: SmallVec<[TensorType; 1]>,
    /// Where the node came from, for people: `layers.0.attention`.
    pub scope: Option<Arc<str>>,
}

/// An operand: which position of the consumer, which result of the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    pub position: u16,
    pub result: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub name: String,
    pub value: Value,
}

#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub name: String,
    nodes: StableDiGraph<Node, Operand>,
    /// Input nodes, in the order of the signature.
    pub inputs: Vec<NodeIndex>,
    pub outputs: Vec<Output>,
    next_id: u32,
    scope: Option<Arc<str>>,
    /// Nothing has changed since [`Graph::canonicalize`].
    canonical: bool,
}

pub type Operands = SmallVec<[Value; 4]>;

impl Graph {
    pub fn new(name: &str) -> Self {
        Graph { name: name.to_string(), ..Default::default() }
    }

    /// Nodes added from here on carry this scope.
    pub fn set_scope(&mut self, scope: &str) {
        self.canonical = false;
        self.scope = Some(Arc::from(scope));
    }

    /// Nodes added from here on carry the scope of `n`, or none if it has none.
    pub fn set_scope_of(&mut self, n: NodeIndex) {
        self.canonical = false;
        self.scope = self.nodes[n].scope.clone();
    }

    /// Nodes and edges as they are kept.
    pub fn nodes(&self) -> &StableDiGraph<Node, Operand> {
        &self.nodes
    }

    /// Nodes and edges, for changes that no other method makes. The caller keeps positions of operands unique, ids too.
    pub fn nodes_mut(&mut self) -> &mut StableDiGraph<Node, Operand> {
        self.canonical = false;
        &mut self.nodes
    }

    /// Adds a node without looking at its types; `build` has the constructors that infer them.
    pub fn add(&mut self, op: Op, operands: &[Value], results: &[TensorType]) -> NodeIndex {
        let id = self.next_id;
        let scope = self.scope.clone();
        self.add_with_id(id, op, operands, results, scope)
    }

    /// As [`Graph::add`], with an id of the caller's choice (parsers and copies). The id must be new.
    pub fn add_with_id(
        &mut self,
        id: u32,
        op: Op,
        operands: &[Value],
        results: &[TensorType],
        scope: Option<Arc<str>>,
    ) -> NodeIndex {
        self.insert(Node { id, op, results: SmallVec::from(results), scope }, operands)
    }

    /// Adds a whole node. Its id must be new.
    fn insert(&mut self, node: Node, operands: &[Value]) -> NodeIndex {
        self.canonical = false;
        self.next_id = self.next_id.max(node.id + 1);
        let is_input = matches!(node.op, Op::Input { .. });
        let node = self.nodes.add_node(node);
        for (position, v) in operands.iter().enumerate() {
            self.nodes.add_edge(v.node, node, Operand { position: position as u16, result: v.result });
        }
        if is_input {
            self.inputs.push(node);
        }
        node
    }

    pub fn output(&mut self, name: &str, value: Value) {
        self.canonical = false;
        self.outputs.push(Output { name: name.to_string(), value });
    }

    pub fn node(&self, n: NodeIndex) -> &Node {
        &self.nodes[n]
    }

    pub fn op(&self, n: NodeIndex) -> &Op {
        &self.nodes[n].op
    }

    pub fn ty(&self, v: Value) -> &TensorType {
        &self.nodes[v.node].results[v.result as usize]
    }

    /// Operands in order of position.
    pub fn operands(&self, n: NodeIndex) -> Operands {
        let mut out: Operands = SmallVec::new();
        for e in self.nodes.edges_directed(n, Direction::Incoming) {
            let p = e.weight().position as usize;
            if out.len() <= p {
                out.resize(p + 1, Value { node: n, result: u16::MAX });
            }
            out[p] = Value { node: e.source(), result: e.weight().result };
        }
        out
    }

    /// What a chain of reshapes shows.
    pub fn behind_views(&self, mut v: Value) -> Value {
        while matches!(self.op(v.node), Op::Reshape) {
            v = self.operands(v.node)[0];
        }
        v
    }

    /// (consumer, position) of every use of `v` by a node, in ascending order of consumer index. Graph outputs are not counted.
    pub fn uses(&self, v: Value) -> SmallVec<[(NodeIndex, u16); 4]> {
        let mut out: SmallVec<[(NodeIndex, u16); 4]> = self
            .nodes
            .edges_directed(v.node, Direction::Outgoing)
            .filter(|e| e.weight().result == v.result)
            .map(|e| (e.target(), e.weight().position))
            .collect();
        out.sort_unstable();
        out
    }

    /// Distinct consumers of any result of `n`, ascending.
    pub fn consumers(&self, n: NodeIndex) -> SmallVec<[NodeIndex; 4]> {
        let mut out: SmallVec<[NodeIndex; 4]> =
            self.nodes.neighbors_directed(n, Direction::Outgoing).collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Every node, producers before consumers; among the ready the smallest id first, so the order is canonical.
    pub fn topological(&self) -> Vec<NodeIndex> {
        if self.canonical { self.canonical_order() } else { self.order_by_id() }
    }

    /// [`topological`](Self::topological) of any graph.
    fn order_by_id(&self) -> Vec<NodeIndex> {
        use std::cmp::Reverse;
        use std::collections::BinaryHeap;
        let mut waiting = vec![0u32; self.nodes.capacity().0.max(self.index_bound())];
        // Id and index in one number, which compares faster than a pair.
        let key = |n: NodeIndex| Reverse(u64::from(self.nodes[n].id) << 32 | n.index() as u64);
        let mut ready = BinaryHeap::new();
        for n in self.nodes.node_indices() {
            let degree = self.nodes.edges_directed(n, Direction::Incoming).count() as u32;
            waiting[n.index()] = degree;
            if degree == 0 {
                ready.push(key(n));
            }
        }
        let mut order = Vec::with_capacity(self.nodes.node_count());
        while let Some(Reverse(key_of_n)) = ready.pop() {
            let n = NodeIndex::new(key_of_n as u32 as usize);
            order.push(n);
            for m in self.nodes.neighbors_directed(n, Direction::Outgoing) {
                waiting[m.index()] -= 1;
                if waiting[m.index()] == 0 {
                    ready.push(key(m));
                }
            }
        }
        order
    }

    /// How urgent each node is, by index: the smallest id among itself and all that follow from it. Copies made late,
    /// with large ids, are as urgent as what reads them.
    pub fn urgencies(&self) -> Vec<u32> {
        let mut urgency = vec![u32::MAX; self.index_bound()];
        for &n in self.topological().iter().rev() {
            let of_consumers =
                self.nodes.neighbors_directed(n, Direction::Outgoing).map(|c| urgency[c.index()]);
            urgency[n.index()] = of_consumers.min().unwrap_or(u32::MAX).min(self.node(n).id);
        }
        urgency
    }

    /// One more than the largest node index: the length of a table indexed by node.
    pub fn index_bound(&self) -> usize {
        self.nodes.node_indices().next_back().map_or(0, |n| n.index() + 1)
    }

    /// Every use of `from`, graph outputs included, becomes a use of `to`.
    pub fn replace(&mut self, from: Value, to: Value) {
        if from == to {
            return;
        }
        self.canonical = false;
        for (consumer, position) in self.uses(from) {
            self.set_operand(consumer, position, to);
        }
        for o in self.outputs.iter_mut().filter(|o| o.value == from) {
            o.value = to;
        }
    }

    /// Operand `position` of `consumer` becomes `to`.
    pub fn set_operand(&mut self, consumer: NodeIndex, position: u16, to: Value) {
        self.canonical = false;
        let old = self
            .nodes
            .edges_directed(consumer, Direction::Incoming)
            .find(|e| e.weight().position == position)
            .map(|e| e.id());
        if let Some(e) = old {
            self.nodes.remove_edge(e);
        }
        self.nodes.add_edge(to.node, consumer, Operand { position, result: to.result });
    }

    /// Removes a node nobody uses.
    pub fn remove(&mut self, n: NodeIndex) {
        debug_assert!(self.nodes.neighbors_directed(n, Direction::Outgoing).next().is_none());
        self.canonical = false;
        if matches!(self.op(n), Op::Input { .. }) {
            self.inputs.retain(|&i| i != n);
        }
        self.nodes.remove_node(n);
    }

    /// For every node whether an output needs it, or it is an input: those are the signature.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.index_bound()];
        let mut stack: Vec<NodeIndex> = self.outputs.iter().map(|o| o.value.node).collect();
        stack.extend(&self.inputs);
        while let Some(n) = stack.pop() {
            if !std::mem::replace(&mut live[n.index()], true) {
                stack.extend(self.nodes.neighbors_directed(n, Direction::Incoming));
            }
        }
        live
    }

    /// Removes every node that is not [`live`](Self::live). Returns how many.
    pub fn remove_dead(&mut self) -> usize {
        let live = self.live();
        let before = self.nodes.node_count();
        self.nodes.retain_nodes(|_, n| live[n.index()]);
        let removed = before - self.nodes.node_count();
        self.canonical &= removed == 0;
        removed
    }

    pub fn input_name(&self, n: NodeIndex) -> Option<&str> {
        match self.op(n) {
            Op::Input { name, .. } => Some(name),
            _ => None,
        }
    }

    pub fn input(&self, name: &str) -> Option<Value> {
        self.inputs.iter().copied().find(|&n| self.input_name(n) == Some(name)).map(Value::from)
    }

    pub fn output_named(&self, name: &str) -> Option<Value> {
        self.outputs.iter().find(|o| o.name == name).map(|o| o.value)
    }

    /// Nodes by mnemonic, for reports and tests.
    pub fn op_counts(&self) -> std::collections::BTreeMap<&'static str, usize> {
        let mut counts = std::collections::BTreeMap::new();
        for n in self.nodes.node_weights() {
            *counts.entry(n.op.mnemonic()).or_insert(0) += 1;
        }
        counts
    }
}
