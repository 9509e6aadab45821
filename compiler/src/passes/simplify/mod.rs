//! Rewrites of single nodes and their neighbours, to a fixed point.
//!
//! Rules look at a node and its operands and answer with what the node should be. A queue holds the nodes a rewrite
//! may have opened to another rule, so the work is in proportion to the rewrites and not to the graph. Every rule
//! removes a node, moves work to a smaller tensor, or moves a broadcast towards the outputs, so the queue runs empty.
//!
//! In its exact form no rule changes a bit of any float but the sign of a zero (`x + 0` is `x`). `x * 0` stays: it is
//! NaN for an infinite x.

mod elementwise;
mod product;
mod shape;

use super::cse::redirect;
use crate::graph::infer::Types;
use crate::graph::{Graph, Op, Operand, Operands, TensorType, Value};
use petgraph::Direction;
use petgraph::stable_graph::NodeIndex;
use petgraph::visit::EdgeRef;
use std::collections::VecDeque;

/// Only what keeps every bit.
pub fn run(g: &mut Graph) {
    Rewriter::new(g, false).run();
}

/// All rules, also those that round otherwise than the graph did.
pub fn fold(g: &mut Graph) {
    Rewriter::new(g, true).run();
}

/// What a rule wants a node to be.
enum Rewrite {
    /// A value that is already there.
    Value(Value),
    /// Another operation with the same result type.
    Op(Op, Operands),
}

impl Rewrite {
    fn op(op: Op, operands: &[Value]) -> Option<Rewrite> {
        Some(Rewrite::Op(op, Operands::from_slice(operands)))
    }

    fn constant(value: f64) -> Option<Rewrite> {
        Rewrite::op(Op::Constant { value }, &[])
    }

    fn value(v: Value) -> Option<Rewrite> {
        Some(Rewrite::Value(v))
    }
}

struct Rewriter<'g> {
    g: &'g mut Graph,
    queue: VecDeque<NodeIndex>,
    queued: Vec<bool>,
    is_output: Vec<bool>,
    next_id: u32,
    /// May rules change rounding?
    inexact: bool,
}

impl<'g> Rewriter<'g> {
    fn new(g: &'g mut Graph, inexact: bool) -> Self {
        let bound = g.index_bound();
        let mut is_output = vec![false; bound];
        g.outputs.iter().for_each(|o| is_output[o.value.node.index()] = true);
        let next_id = g.nodes().node_weights().map(|n| n.id + 1).max().unwrap_or(0);
        let queue: VecDeque<NodeIndex> = g.topological().into();
        Rewriter { g, queue, queued: vec![true; bound], is_output, next_id, inexact }
    }

    fn run(&mut self) {
        // Rules are made to end. Were two ever to undo each other, this stops them with the graph still right.
        let mut budget = 64 * (self.queue.len() + 64);
        while let Some(n) = self.queue.pop_front() {
            self.queued[n.index()] = false;
            if self.g.nodes().contains_node(n) && self.step(n) {
                budget -= 1;
                if budget == 0 {
                    debug_assert!(false, "simplify does not end on graph {}", self.g.name);
                    return;
                }
            }
        }
    }

    /// Looks at one node; whether it was rewritten.
    fn step(&mut self, n: NodeIndex) -> bool {
        if matches!(self.g.op(n), Op::Input { .. }) {
            return false;
        }
        if !self.is_output[n.index()] && !self.is_used(n) {
            self.remove(n);
            return true;
        }
        let operands = self.g.operands(n);
        let Some(rewrite) = self.rewrite(n, &operands) else { return false };
        match rewrite {
            Rewrite::Value(v) => self.replace(n, v),
            Rewrite::Op(op, operands) => self.become_op(n, op, &operands),
        }
        true
    }

    fn rewrite(&mut self, n: NodeIndex, operands: &[Value]) -> Option<Rewrite> {
        match self.g.op(n) {
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => {
                self.elementwise(n, operands)
            }
            Op::Broadcast { .. }
            | Op::Reshape
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::Reduce { .. } => self.shape(n, operands),
            Op::Dot { .. } => self.product(n, operands),
            _ => None,
        }
    }

    fn is_used(&self, n: NodeIndex) -> bool {
        self.g.nodes().edges_directed(n, Direction::Outgoing).next().is_some()
    }

    /// Has the value one use, by a node?
    fn used_once(&self, v: Value) -> bool {
        !self.is_output[v.node.index()]
            && self.g.nodes().edges_directed(v.node, Direction::Outgoing).take(2).count() == 1
    }

    fn op(&self, v: Value) -> &Op {
        self.g.op(v.node)
    }

    fn ty(&self, v: Value) -> &TensorType {
        self.g.ty(v)
    }

    /// The one number a value is full of.
    fn constant(&self, v: Value) -> Option<f64> {
        match self.op(v) {
            Op::Constant { value } => Some(*value),
            _ => None,
        }
    }

    /// The first operand of a value's node.
    fn operand(&self, v: Value) -> Value {
        self.g.operands(v.node)[0]
    }

    /// A new node in the scope of `like`.
    fn add(&mut self, like: NodeIndex, op: Op, operands: &[Value], ty: TensorType) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        let scope = self.g.node(like).scope.clone();
        let types: Types = smallvec::smallvec![ty];
        let n = self.g.add_with_id(id, op, operands, &types, scope);
        if self.queued.len() <= n.index() {
            self.queued.resize(n.index() + 1, false);
            self.is_output.resize(n.index() + 1, false);
        }
        // The index of a removed node may serve again.
        self.queued[n.index()] = false;
        self.is_output[n.index()] = false;
        self.push(n);
        n.into()
    }

    fn push(&mut self, n: NodeIndex) {
        if !std::mem::replace(&mut self.queued[n.index()], true) {
            self.queue.push_back(n);
        }
    }

    fn become_op(&mut self, n: NodeIndex, op: Op, operands: &[Value]) {
        let old = self.g.operands(n);
        while let Some(e) = self.g.nodes().edges_directed(n, Direction::Incoming).next().map(|e| e.id()) {
            self.g.nodes_mut().remove_edge(e);
        }
        self.g.nodes_mut()[n].op = op;
        for (position, v) in operands.iter().enumerate() {
            self.g.nodes_mut().add_edge(v.node, n, Operand { position: position as u16, result: v.result });
        }
        old.iter().for_each(|v| self.lost_a_use(v.node));
        self.push(n);
        let consumers = self.g.consumers(n);
        self.push_by_id(consumers.to_vec());
    }

    /// In order of ids: the order of work, and with it the ids of new nodes, follows from the text of the graph alone.
    fn push_by_id(&mut self, mut nodes: Vec<NodeIndex>) {
        nodes.sort_by_key(|&n| self.g.node(n).id);
        nodes.into_iter().for_each(|n| self.push(n));
    }

    fn replace(&mut self, n: NodeIndex, v: Value) {
        let consumers = redirect(self.g, n, v);
        self.push_by_id(consumers.to_vec());
        if std::mem::replace(&mut self.is_output[n.index()], false) {
            self.g.outputs.iter_mut().filter(|o| o.value.node == n).for_each(|o| o.value = v);
            self.is_output[v.node.index()] = true;
        }
        self.remove(n);
    }

    fn remove(&mut self, n: NodeIndex) {
        let operands = self.g.operands(n);
        self.g.nodes_mut().remove_node(n);
        operands.iter().for_each(|v| self.lost_a_use(v.node));
    }

    /// `n` may be dead now, and a rule that asks who else reads it may apply.
    fn lost_a_use(&mut self, n: NodeIndex) {
        self.push(n);
        if matches!(self.g.op(n), Op::Dot { .. } | Op::Concat { .. } | Op::Pad { .. }) {
            let readers = self.g.consumers(n);
            self.push_by_id(readers.to_vec());
        }
    }
}
