//! A graph as what is drawn: every operation, those inside fused regions too, and which result goes where.

use crate::graph::{Graph, NodeIndex, Op, TensorType, Value};
use crate::text;
use rustc_hash::FxHashMap;

/// How a node is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Input,
    /// A constant or an index: computed where it is read.
    Free,
    Operation,
    /// A product, attention, a gather: code that is called, not generated.
    Library,
    Output,
}

impl Shape {
    fn of(op: &Op) -> Shape {
        match op {
            Op::Input { .. } => Shape::Input,
            Op::Constant { .. } | Op::Iota { .. } => Shape::Free,
            Op::Dot { .. } | Op::Gather | Op::ScatterAdd { .. } | Op::Call(_) => Shape::Library,
            Op::AllReduce { .. } | Op::AllGather { .. } | Op::ReduceScatter { .. } => Shape::Library,
            _ => Shape::Operation,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Shape::Input => "input",
            Shape::Free => "constant",
            Shape::Operation => "operation",
            Shape::Library => "library call",
            Shape::Output => "output",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    /// `%12`, `%tokens`, the name of an output, or `%12/3`, node %3 of kernel %12.
    pub name: String,
    pub op: &'static str,
    pub shape: Shape,
    pub scope: String,
    /// The line of the node in the graph's text; empty for inputs and outputs.
    pub text: String,
    /// Types of the results.
    pub types: Vec<TensorType>,
    /// Index into [`Scene::regions`].
    pub region: Option<usize>,
}

/// One operand: a result of `from` that `to` reads.
#[derive(Clone, Debug)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub result: u16,
    pub bytes: u64,
}

/// A fused node: one generated kernel.
#[derive(Clone, Debug)]
pub struct Region {
    /// `%12`
    pub name: String,
    pub scope: String,
    /// Its operations, one after the other in [`Scene::nodes`].
    pub nodes: std::ops::Range<usize>,
}

/// Nodes stand after what they read; those of a region stand together.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
    pub regions: Vec<Region>,
}

/// A result of a drawn node.
#[derive(Clone, Copy)]
struct Source {
    node: usize,
    result: u16,
    bytes: u64,
}

type Sources = FxHashMap<Value, Source>;

impl Scene {
    pub fn of(g: &Graph) -> Scene {
        let mut scene = Scene::default();
        let mut sources = Sources::default();
        for n in g.topological() {
            let Op::Fused { region } = g.op(n) else {
                scene.node(g, n, &mut sources, None);
                continue;
            };
            let first = scene.nodes.len();
            let operands = g.operands(n);
            let mut inner = Sources::default();
            let given = region.inputs.iter().zip(&operands);
            inner.extend(given.filter_map(|(&i, v)| Some((Value::from(i), *sources.get(v)?))));
            for m in region.topological() {
                if !matches!(region.op(m), Op::Input { .. }) {
                    scene.node(region, m, &mut inner, Some(scene.regions.len()));
                }
            }
            // Most kernels say where they come from as a whole.
            for node in &mut scene.nodes[first..] {
                node.name = format!("%{}/{}", g.node(n).id, node.name.trim_start_matches('%'));
                if node.scope.is_empty() {
                    node.scope = scope(g, n);
                }
            }
            let results = region.outputs.iter().enumerate();
            sources.extend(
                results
                    .filter_map(|(k, o)| Some((Value { node: n, result: k as u16 }, *inner.get(&o.value)?))),
            );
            scene.regions.push(Region {
                name: format!("%{}", g.node(n).id),
                scope: scope(g, n),
                nodes: first..scene.nodes.len(),
            });
        }
        for o in &g.outputs {
            let Some(&source) = sources.get(&o.value) else { continue };
            scene.edge(source, scene.nodes.len());
            scene.nodes.push(Node {
                name: o.name.clone(),
                op: "output",
                shape: Shape::Output,
                scope: String::new(),
                text: String::new(),
                types: vec![g.ty(o.value).clone()],
                region: None,
            });
        }
        scene
    }

    /// Draws one operation, which reads values drawn before.
    fn node(&mut self, g: &Graph, n: NodeIndex, sources: &mut Sources, region: Option<usize>) {
        let node = g.node(n);
        let here = self.nodes.len();
        let input = matches!(node.op, Op::Input { .. });
        for v in g.operands(n) {
            if let Some(&source) = sources.get(&v) {
                self.edge(source, here);
            }
        }
        for (k, t) in node.results.iter().enumerate() {
            let value = Value { node: n, result: k as u16 };
            sources.insert(value, Source { node: here, result: k as u16, bytes: t.bytes() });
        }
        self.nodes.push(Node {
            name: if input { text::value_name(g, n.into()) } else { format!("%{}", node.id) },
            op: node.op.mnemonic(),
            shape: Shape::of(&node.op),
            scope: scope(g, n),
            text: if input { String::new() } else { text::print_node(g, n) },
            types: node.results.to_vec(),
            region,
        });
    }

    fn edge(&mut self, source: Source, to: usize) {
        self.edges.push(Edge { from: source.node, to, result: source.result, bytes: source.bytes });
    }
}

fn scope(g: &Graph, n: NodeIndex) -> String {
    g.node(n).scope.as_deref().unwrap_or_default().to_owned()
}

/// `98.3 kB`: three digits, powers of 1000.
pub fn size(bytes: u64) -> String {
    let (mut x, mut unit) = (bytes as f64, 0);
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    while x >= 999.5 && unit + 1 < UNITS.len() {
        x /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || x >= 99.95 { 0 } else { usize::from(x < 9.995) + 1 };
    format!("{x:.decimals$} {}", UNITS[unit])
}
