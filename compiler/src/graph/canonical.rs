//! A graph in the order of its text: what parsing gives of what printing gave.

use super::{Graph, Node, Op, Value};
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use smallvec::SmallVec;

impl Graph {
    /// Rebuilds the graph as parsing its own text would: inputs first, then every node in topological order, operands
    /// in order of position, no gaps among node indices, the next id one more than the largest, no scope for new nodes.
    /// Regions too. So a pass that is given a dump does what it did in the pipeline that wrote the dump.
    ///
    /// A graph with a cycle, or with inputs outside its signature, has no such text and stays as it is.
    pub fn canonicalize(&mut self) {
        if self.canonical {
            return;
        }
        let order = self.topological();
        let is_input = |n: &NodeIndex| matches!(self.op(*n), Op::Input { .. });
        let whole = order.len() == self.nodes.node_count();
        if !whole || order.iter().filter(|n| is_input(n)).count() != self.inputs.len() {
            return;
        }
        let listed: Vec<NodeIndex> =
            self.inputs.iter().copied().chain(order.iter().copied().filter(|n| !is_input(n))).collect();
        let mut moved = vec![NodeIndex::end(); self.index_bound()];
        let mut g = Graph::new(&self.name);
        g.nodes = StableDiGraph::with_capacity(self.nodes.node_count(), self.nodes.edge_count());
        for n in listed {
            let mut operands: SmallVec<[(u16, Value); 4]> = self
                .nodes
                .edges_directed(n, Direction::Incoming)
                .map(|e| {
                    let v = Value { node: moved[e.source().index()], result: e.weight().result };
                    (e.weight().position, v)
                })
                .collect();
            operands.sort_unstable_by_key(|o| o.0);
            let operands: SmallVec<[Value; 4]> = operands.into_iter().map(|o| o.1).collect();
            let empty = Node { id: 0, op: Op::Select, results: SmallVec::new(), scope: None };
            let mut node = std::mem::replace(&mut self.nodes[n], empty);
            if let Op::Fused { region } = &mut node.op {
                region.canonicalize();
            }
            moved[n.index()] = g.insert(node, &operands);
        }
        for o in std::mem::take(&mut self.outputs) {
            let value = Value { node: moved[o.value.node.index()], result: o.value.result };
            g.output(&o.name, value);
        }
        *self = g;
        self.canonical = true;
    }

    /// [`topological`](Self::topological) of a canonical graph. Nodes that are no inputs lie in that order already, so
    /// that only the inputs have to be put between them: the next one comes before a node that reads it, or whose id is
    /// larger, and otherwise after.
    pub(super) fn canonical_order(&self) -> Vec<NodeIndex> {
        let mut inputs = self.inputs.clone();
        inputs.sort_unstable_by_key(|&n| (self.nodes[n].id, n));
        // Input nodes are the first in the graph: the place of each among the sorted, by index.
        let mut rank = vec![0; inputs.len()];
        inputs.iter().enumerate().for_each(|(place, n)| rank[n.index()] = place + 1);
        let mut order = Vec::with_capacity(self.nodes.node_count());
        let mut taken = 0;
        for n in self.nodes.node_indices().skip(inputs.len()) {
            let read = self.nodes.neighbors_directed(n, Direction::Incoming);
            let read = read.filter_map(|p| rank.get(p.index())).max().copied().unwrap_or(0);
            let id = self.nodes[n].id;
            while taken < inputs.len() && (taken < read || self.nodes[inputs[taken]].id < id) {
                order.push(inputs[taken]);
                taken += 1;
            }
            order.push(n);
        }
        order.extend_from_slice(&inputs[taken..]);
        order
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::Graph;
    use crate::text::{parse, print};

    /// Everything a pass can see.
    fn seen(g: &Graph) -> String {
        format!("{:?}", Graph { canonical: false, ..g.clone() })
    }

    #[test]
    fn is_what_parsing_the_text_gives() {
        let text = "graph @g(%x: f32[4], %y: f32[4] {id=9}) -> (f32[4], f32[4]) {
            %7 = add %x, %y
            %3 = exp %7
            %5 = neg %x
            %4 = mul %3, %5
            %8 = sub %3, %4
            return a = %8, b = %3
        }";
        let mut g = parse(text, "g").unwrap();
        g.set_scope("left over");
        let [exp, neg] = [3, 5].map(|id| g.nodes.node_indices().find(|&n| g.node(n).id == id).unwrap());
        // Leaves a gap among the indices, an id that nobody has, and an operand whose edge is the newest.
        let tanh = g.unary(crate::graph::Unary::Tanh, neg.into());
        g.replace(neg.into(), exp.into());
        g.set_operand(tanh.node, 0, exp.into());
        g.remove(tanh.node);
        g.remove(neg);
        assert_ne!(seen(&g), seen(&parse(&print(&g), "again").unwrap()));
        let printed = print(&g);
        g.canonicalize();
        assert_eq!(print(&g), printed);
        assert_eq!(seen(&g), seen(&parse(&printed, "again").unwrap()));
    }

    #[test]
    fn every_change_asks_for_it_again() {
        let text = "graph @g(%x: f32[4]) -> (f32[4]) {
            %1 = exp %x
            %2 = neg %1
            %3 = tanh %1
            return a = %2
        }";
        let mut canonical = parse(text, "g").unwrap();
        canonical.canonicalize();
        assert!(canonical.canonical);
        let at = |g: &Graph, id| g.nodes.node_indices().find(|&n| g.node(n).id == id).unwrap();
        let changes: [fn(&mut Graph, [super::NodeIndex; 3]); 9] = [
            |g, _| g.set_scope("s"),
            |g, n| g.set_scope_of(n[0]),
            |g, n| {
                g.unary(crate::graph::Unary::Tanh, n[0].into());
            },
            |g, n| g.output("b", n[0].into()),
            |g, n| g.replace(n[1].into(), n[0].into()),
            |g, n| g.set_operand(n[1], 0, n[2].into()),
            |g, n| g.remove(n[2]),
            |g, n| {
                g.nodes_mut().remove_node(n[2]);
            },
            |g, _| {
                g.remove_dead();
            },
        ];
        for change in changes {
            let mut g = canonical.clone();
            let nodes = [1, 2, 3].map(|id| at(&g, id));
            change(&mut g, nodes);
            assert!(!g.canonical);
            g.canonicalize();
            assert_eq!(seen(&g), seen(&parse(&print(&g), "again").unwrap()));
        }
        canonical.remove_dead();
        canonical.canonicalize();
        canonical.remove_dead();
        assert!(canonical.canonical, "nothing was dead");
    }

    #[test]
    fn the_order_of_a_canonical_graph_is_that_of_any() {
        use crate::config::{ModelConfig, StepConfig};
        use crate::passes::{PIPELINE, by_name};
        let model = ModelConfig::gopher(2, 2, 8, 16, 32, 16);
        let mut g = crate::model::training_graph(&model, &StepConfig::new(2)).unwrap();
        for pass in PIPELINE.iter().filter_map(|name| by_name(name)) {
            g.canonicalize();
            assert_eq!(g.canonical_order(), g.order_by_id(), "before {}", pass.name);
            pass.apply(&mut g);
        }
        // Inputs whose ids are larger than those of what reads them, and than all.
        let text = "graph @g(%x: f32[4] {id=9}, %y: f32[4] {id=2}, %z: f32[4] {id=20}) -> (f32[4]) {
            %7 = add %x, %y
            %3 = exp %7
            %1 = neg %y
            %4 = mul %3, %1
            return a = %4
        }";
        let mut g = parse(text, "g").unwrap();
        g.canonicalize();
        assert_eq!(g.canonical_order(), g.order_by_id());
    }

    #[test]
    fn a_cycle_stays_for_the_verifier() {
        let text =
            "graph @g(%x: f32[4]) -> (f32[4]) { %1 = neg %2 : f32[4] %2 = exp %1 : f32[4] return y = %2 }";
        let mut g = crate::text::parse_unverified(text, "g").unwrap();
        let before = seen(&g);
        g.canonicalize();
        assert_eq!(seen(&g), before);
    }
}
