//! Rules for `dot`: transposes vanish into its dimension numbers.

use super::{Rewrite, Rewriter};
use crate::graph::{Axes, Op, Value};
use petgraph::Direction;
use petgraph::stable_graph::NodeIndex;
use petgraph::visit::EdgeRef;

impl Rewriter<'_> {
    pub(super) fn product(&mut self, n: NodeIndex, x: &[Value]) -> Option<Rewrite> {
        let Op::Dot { lhs_batch, rhs_batch, lhs_contract, rhs_contract } = self.g.op(n).clone() else {
            return None;
        };
        if let Some((source, batch, contract)) = self.through_transpose(x[0], &lhs_batch, &lhs_contract) {
            let op = Op::Dot { lhs_batch: batch, rhs_batch, lhs_contract: contract, rhs_contract };
            return Rewrite::op(op, &[source, x[1]]);
        }
        if let Some((source, batch, contract)) = self.through_transpose(x[1], &rhs_batch, &rhs_contract) {
            let op = Op::Dot { lhs_batch, rhs_batch: batch, lhs_contract, rhs_contract: contract };
            return Rewrite::op(op, &[x[0], source]);
        }
        None
    }

    /// What is transposed, and the axes in its terms, if its free axes keep their order.
    fn through_transpose(&self, v: Value, batch: &Axes, contract: &Axes) -> Option<(Value, Axes, Axes)> {
        let Op::Transpose { perm } = self.op(v) else { return None };
        let free = (0..perm.len()).filter(|k| !batch.contains(k) && !contract.contains(k));
        let free: Axes = free.map(|k| perm[k]).collect();
        let moved = |axes: &Axes| axes.iter().map(|&k| perm[k]).collect();
        free.windows(2).all(|w| w[0] < w[1]).then(|| (self.operand(v), moved(batch), moved(contract)))
    }

    /// A transpose that exchanges the free axes of a product's two sides is the product with its sides exchanged. For
    /// products that nobody reads but through such a transpose.
    pub(super) fn transpose_of_dot(&self, perm: &Axes, x: Value) -> Option<Rewrite> {
        let Op::Dot { lhs_batch, rhs_batch, lhs_contract, rhs_contract } = self.op(x) else { return None };
        let readers = self.g.nodes().edges_directed(x.node, Direction::Outgoing);
        let exchanges = |e: NodeIndex| matches!(self.g.op(e), Op::Transpose { perm: p } if p == perm);
        if self.is_output[x.node.index()] || !readers.map(|e| e.target()).all(exchanges) {
            return None;
        }
        let sides = self.g.operands(x.node);
        let batch = lhs_batch.len();
        let left = self.ty(sides[0]).rank() - batch - lhs_contract.len();
        let rank = perm.len();
        let exchanged = (0..batch).chain(batch + left..rank).chain(batch..batch + left);
        if !exchanged.eq(perm.iter().copied()) {
            return None;
        }
        let op = Op::Dot {
            lhs_batch: rhs_batch.clone(),
            rhs_batch: lhs_batch.clone(),
            lhs_contract: rhs_contract.clone(),
            rhs_contract: lhs_contract.clone(),
        };
        Rewrite::op(op, &[sides[1], sides[0]])
    }
}
