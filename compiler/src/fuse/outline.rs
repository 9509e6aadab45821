//! From a cluster to a `fused` node that holds a graph of its own.

use super::Member;
use super::body::{Resolved, resolve};
use crate::graph::{Graph, Op, Role, TensorType, Value};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// Replaces these nodes by one `fused` node whose region is a copy of them and of the free nodes they read. It takes
/// the id of the first, so that dumps before and after compare and the order of the program stays.
pub fn outline(g: &mut Graph, nodes: &[NodeIndex], is_output: &[bool], members: &mut BTreeMap<u32, Member>) {
    let mut region = Graph::new("region");
    let mut operands: Vec<Value> = Vec::new();
    // From values of `g` to values of the region.
    let mut copied: FxHashMap<Value, Value> = FxHashMap::default();
    // Inputs first, in the order of reading.
    for &n in nodes {
        for v in g.operands(n) {
            if let Resolved::Value(from, _) = resolve(g, v)
                && !nodes.contains(&from.node)
                && !copied.contains_key(&from)
            {
                let name = format!("p{}", operands.len());
                copied.insert(from, region.new_input(&name, g.ty(from).clone(), Role::Data));
                operands.push(from);
            }
        }
    }
    for &n in nodes {
        let mut args: SmallVec<[Value; 4]> = SmallVec::new();
        for v in g.operands(n) {
            args.push(copy_operand(g, &mut region, &mut copied, v));
        }
        let node = g.node(n);
        let made = region.add(node.op.clone(), &args, &node.results);
        copied.insert(n.into(), made.into());
    }
    let mut results: Vec<Value> = Vec::new();
    let mut types: Vec<TensorType> = Vec::new();
    for &n in nodes {
        let v = Value::from(n);
        let leaves = is_output[n.index()]
            || g.uses(v).iter().any(|&(user, _)| read_outside(g, nodes, is_output, user));
        if leaves {
            region.output(&format!("r{}", results.len()), copied[&v]);
            results.push(v);
            types.push(g.ty(v).clone());
        }
    }
    let id = nodes.iter().map(|&n| g.node(n).id).min().unwrap_or(0);
    for &n in nodes {
        let result = results.iter().position(|v| v.node == n).map(|k| k as u16);
        members.insert(g.node(n).id, Member { kernel: id, result });
    }
    let scope = nodes.last().and_then(|&n| g.node(n).scope.clone());
    let fused = g.add_with_id(id, Op::Fused { region: Box::new(region) }, &operands, &types, scope);
    for (k, &v) in results.iter().enumerate() {
        g.replace(v, Value { node: fused, result: k as u16 });
    }
    for &n in nodes.iter().rev() {
        if g.consumers(n).is_empty() {
            g.remove(n);
        }
    }
}

/// The region's copy of an operand, making the free nodes on the way.
fn copy_operand(g: &Graph, region: &mut Graph, copied: &mut FxHashMap<Value, Value>, v: Value) -> Value {
    if let Some(&done) = copied.get(&v) {
        return done;
    }
    let node = g.node(v.node);
    let mut args: SmallVec<[Value; 1]> = SmallVec::new();
    for from in g.operands(v.node) {
        args.push(copy_operand(g, region, copied, from));
    }
    let made: Value = region.add(node.op.clone(), &args, &node.results).into();
    copied.insert(v, made);
    made
}

/// Is this reader, or through a broadcast one of its readers, outside these nodes?
fn read_outside(g: &Graph, nodes: &[NodeIndex], is_output: &[bool], reader: NodeIndex) -> bool {
    if nodes.contains(&reader) {
        return false;
    }
    if !matches!(g.op(reader), Op::Broadcast { .. }) {
        return true;
    }
    is_output[reader.index()] || g.consumers(reader).iter().any(|&c| read_outside(g, nodes, is_output, c))
}
