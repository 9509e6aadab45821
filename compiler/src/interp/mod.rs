//! The reference interpreter. What an operation means is what this computes; every pass and every kernel is held to it.
//!
//! It computes in f64 and in the plainest loops. A value is freed after its last use, so memory follows the largest live
//! set, not the graph.

mod attention;
mod head;
pub(crate) mod numeric;
mod ops;
mod tensor;

pub use tensor::Tensor;

use crate::graph::{Graph, Op, TensorType};
use crate::verify::{Problem, verify};
use petgraph::Direction;
use std::collections::BTreeMap;
use std::rc::Rc;

/// How results are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Every float as an f64, whatever the graph calls it: the meaning of the graph.
    #[default]
    F64,
    /// Every result rounded to the type the graph gives it (f32, bf16), sums inside one operation still in f64.
    F32,
}

/// Largest tensor the interpreter makes, in elements: 2 GiB.
const LARGEST: usize = 1 << 28;

#[derive(Debug, thiserror::Error)]
pub enum InterpError {
    #[error("graph {graph}: input `{input}` ({ty}) was not given; given: {given}")]
    MissingInput { graph: String, input: String, ty: TensorType, given: String },
    #[error("graph {graph}: input `{input}` is {found}, must be {wanted}")]
    WrongInput { graph: String, input: String, found: String, wanted: TensorType },
    #[error("graph {graph} is not well formed: {}", .problems.iter().map(|p| p.to_string()).collect::<Vec<_>>().join("; "))]
    NotWellFormed { graph: String, problems: Vec<Problem> },
    #[error("%{node}: index {index} is outside 0..{extent}")]
    IndexOutOfRange { node: u32, index: f64, extent: usize },
    #[error("%{node}: integer division by zero")]
    DivisionByZero { node: u32 },
    #[error("%{node}: {op} over {members} members; the interpreter is a group of one")]
    GroupTooLarge { node: u32, op: &'static str, members: usize },
    #[error("%{node}: {ty} has more than {LARGEST} elements, too many to interpret")]
    TooLarge { node: u32, ty: TensorType },
}

/// The outputs of a graph by name, in f64.
pub fn interpret(
    graph: &Graph,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, InterpError> {
    interpret_in(graph, inputs, Precision::F64)
}

/// As [`interpret`], with a choice of rounding. Inputs the graph does not have are ignored, so that the inputs of a
/// training graph serve its evaluation graph.
pub fn interpret_in(
    graph: &Graph,
    inputs: &BTreeMap<String, Tensor>,
    precision: Precision,
) -> Result<BTreeMap<String, Tensor>, InterpError> {
    verify(graph).map_err(|problems| InterpError::NotWellFormed { graph: graph.name.clone(), problems })?;
    let mut arguments = Vec::with_capacity(graph.inputs.len());
    for &n in &graph.inputs {
        let (name, wanted) = (graph.input_name(n).unwrap_or_default(), graph.ty(n.into()));
        let Some(t) = inputs.get(name) else {
            return Err(InterpError::MissingInput {
                graph: graph.name.clone(),
                input: name.into(),
                ty: wanted.clone(),
                given: inputs.keys().cloned().collect::<Vec<_>>().join(", "),
            });
        };
        if t.ty() != *wanted || t.data.len() != wanted.elements() {
            return Err(InterpError::WrongInput {
                graph: graph.name.clone(),
                input: name.into(),
                found: format!("{} with {} elements", t.ty(), t.data.len()),
                wanted: wanted.clone(),
            });
        }
        arguments.push(Rc::new(t.clone().rounded(precision)));
    }
    let results = run(graph, arguments, precision)?;
    let unshared = |t: Rc<Tensor>| Rc::try_unwrap(t).unwrap_or_else(|t| (*t).clone());
    Ok(graph.outputs.iter().zip(results).map(|(o, t)| (o.name.clone(), unshared(t))).collect())
}

/// The outputs in order, for arguments in order of the inputs.
fn run(g: &Graph, arguments: Vec<Rc<Tensor>>, precision: Precision) -> Result<Vec<Rc<Tensor>>, InterpError> {
    let mut uses_left = vec![0usize; g.index_bound()];
    for n in g.nodes().node_indices() {
        uses_left[n.index()] = g.nodes().edges_directed(n, Direction::Outgoing).count();
    }
    for o in &g.outputs {
        uses_left[o.value.node.index()] += 1;
    }
    let mut values: Vec<Vec<Rc<Tensor>>> = vec![vec![]; g.index_bound()];
    for (&n, t) in g.inputs.iter().zip(arguments) {
        values[n.index()] = vec![t];
    }
    for n in g.topological() {
        let node = g.node(n);
        if matches!(node.op, Op::Input { .. }) {
            continue;
        }
        if let Some(ty) = node.results.iter().find(|t| t.elements() > LARGEST) {
            return Err(InterpError::TooLarge { node: node.id, ty: ty.clone() });
        }
        let operands = g.operands(n);
        let given: Vec<Rc<Tensor>> =
            operands.iter().map(|v| Rc::clone(&values[v.node.index()][v.result as usize])).collect();
        for v in &operands {
            uses_left[v.node.index()] -= 1;
            if uses_left[v.node.index()] == 0 {
                values[v.node.index()].clear();
            }
        }
        let results = match &node.op {
            Op::Fused { region } => run(region, given, precision)?,
            _ => {
                let results = ops::apply(node, &given)?;
                results.into_iter().map(|t| Rc::new(t.rounded(precision))).collect()
            }
        };
        if uses_left[n.index()] > 0 {
            values[n.index()] = results;
        }
    }
    Ok(g.outputs.iter().map(|o| Rc::clone(&values[o.value.node.index()][o.value.result as usize])).collect())
}

#[cfg(test)]
mod tests;
