//! Graph to canonical text.

use super::attributes::{Attribute, attributes, input_attributes};
use super::lex::is_bare;
use crate::graph::{Graph, Op, Value};
use petgraph::stable_graph::NodeIndex;
use std::borrow::Cow;
use std::fmt::Write;

/// A signature or a `return` longer than this is printed one entry a line.
const LINE: usize = 110;

/// The canonical text of a graph. Also prints graphs the verifier refuses, for people to look at: what has no text
/// (an operand that is missing) appears as `%?`.
pub fn print(g: &Graph) -> String {
    let mut out = String::new();
    let head = format!("graph @{}(", name(&g.name));
    let inputs: Vec<String> =
        g.inputs.iter().enumerate().map(|(k, &n)| declaration(g, n) + &suffix(g, n, k)).collect();
    let types: Vec<String> = g.outputs.iter().map(|o| ty(g, o.value)).collect();
    list(&mut out, &head, &inputs, &format!(") -> ({}) {{", types.join(", ")), "");
    body(&mut out, g, "  ");
    out.push_str("}\n");
    out
}

/// One node as in [`print`], without indentation or line end (a fused region still spans lines).
pub fn print_node(g: &Graph, n: NodeIndex) -> String {
    let mut out = String::new();
    node(&mut out, g, n, "");
    out.truncate(out.trim_end().len());
    out
}

fn body(out: &mut String, g: &Graph, indent: &str) {
    let order = g.topological();
    let mut printed = vec![false; g.index_bound()];
    order.iter().for_each(|n| printed[n.index()] = true);
    let mut in_cycles: Vec<NodeIndex> = g.nodes().node_indices().filter(|n| !printed[n.index()]).collect();
    in_cycles.sort_unstable_by_key(|&n| g.node(n).id);
    for &n in order.iter().chain(&in_cycles) {
        if !matches!(g.op(n), Op::Input { .. }) {
            node(out, g, n, indent);
        }
    }
    let outputs: Vec<String> =
        g.outputs.iter().map(|o| format!("{} = {}", name(&o.name), value_name(g, o.value))).collect();
    let head = if outputs.is_empty() { "return" } else { "return " };
    list(out, &format!("{indent}{head}"), &outputs, "", indent);
}

/// `head a, b, c tail` on one line if it fits, else an entry a line.
fn list(out: &mut String, head: &str, entries: &[String], tail: &str, indent: &str) {
    let width = head.len() + tail.len() + entries.iter().map(|e| e.chars().count() + 2).sum::<usize>();
    if width <= LINE || entries.len() < 2 {
        let _ = writeln!(out, "{head}{}{tail}", entries.join(", "));
        return;
    }
    let _ = writeln!(out, "{}", head.trim_end_matches(' '));
    for (k, e) in entries.iter().enumerate() {
        let comma = if k + 1 < entries.len() { "," } else { "" };
        let _ = writeln!(out, "{indent}    {e}{comma}");
    }
    if !tail.is_empty() {
        let _ = writeln!(out, "{indent}{tail}");
    }
}

fn node(out: &mut String, g: &Graph, n: NodeIndex, indent: &str) {
    let node = g.node(n);
    let _ = write!(out, "{indent}%{}", node.id);
    if node.results.len() != 1 {
        let _ = write!(out, ":{}", node.results.len());
    }
    let _ = write!(out, " = {}", node.op.mnemonic());
    let operands = g.operands(n);
    if let Op::Fused { region } = &node.op {
        let label = if region.name.is_empty() { String::new() } else { format!(" @{}", name(&region.name)) };
        let given = region.inputs.iter().enumerate().map(|(k, &i)| {
            let operand = operands.get(k).map_or("%?".into(), |&v| value_name(g, v));
            format!("{} = {operand}{}", declaration(region, i), suffix(region, i, k))
        });
        let given: Vec<String> = given.collect();
        let head = std::mem::take(out);
        let (before, line) = head.split_at(head.rfind('\n').map_or(0, |i| i + 1));
        out.push_str(before);
        list(out, &format!("{line}{label}("), &given, ") {", indent);
        body(out, region, &format!("{indent}  "));
        let _ = write!(out, "{indent}}}");
    } else {
        for (k, &v) in operands.iter().enumerate() {
            let _ = write!(out, "{}{}", if k > 0 { ", " } else { " " }, value_name(g, v));
        }
        braces(out, &attributes(&node.op));
    }
    match &node.results[..] {
        [t] => {
            let _ = write!(out, " : {t}");
        }
        many => {
            let many: Vec<String> = many.iter().map(|t| t.to_string()).collect();
            let _ = write!(out, " : ({})", many.join(", "));
        }
    }
    scope(out, g, n);
    out.push('\n');
}

fn declaration(g: &Graph, n: NodeIndex) -> String {
    format!("{}: {}", value_name(g, n.into()), ty(g, n.into()))
}

/// Attributes and scope of an input.
fn suffix(g: &Graph, n: NodeIndex, position: usize) -> String {
    let mut out = String::new();
    let node = g.node(n);
    let id = (node.id as usize != position).then_some(node.id);
    if let Op::Input { role, .. } = &node.op {
        braces(&mut out, &input_attributes(id, role));
    }
    scope(&mut out, g, n);
    out
}

fn scope(out: &mut String, g: &Graph, n: NodeIndex) {
    if let Some(s) = &g.node(n).scope {
        let _ = write!(out, " @{}", name(s));
    }
}

/// An operation and its attributes: `transpose {perm=[1,0]}`.
pub fn operation(op: &Op) -> String {
    let mut out = op.mnemonic().to_owned();
    braces(&mut out, &attributes(op));
    out
}

fn braces(out: &mut String, attributes: &[(&'static str, Attribute)]) {
    for (k, (key, value)) in attributes.iter().enumerate() {
        let _ = write!(out, "{}{key}=", if k > 0 { ", " } else { " {" });
        let _ = match value {
            Attribute::Integer(n) => write!(out, "{n}"),
            Attribute::Number(x) => write!(out, "{}", number(*x)),
            Attribute::Word(w) => write!(out, "{}", name(w)),
            Attribute::List(axes) => {
                let axes: Vec<String> = axes.iter().map(|a| a.to_string()).collect();
                write!(out, "[{}]", axes.join(","))
            }
        };
    }
    if !attributes.is_empty() {
        out.push('}');
    }
}

fn ty(g: &Graph, v: Value) -> String {
    let results = g.nodes().node_weight(v.node).map(|n| &n.results);
    results.and_then(|r| r.get(v.result as usize)).map_or("?".into(), |t| t.to_string())
}

/// `%x` of an input, `%7` of a node, `%7#1` of one of several results.
pub(crate) fn value_name(g: &Graph, v: Value) -> String {
    let Some(node) = g.nodes().node_weight(v.node).filter(|_| v.result != u16::MAX) else {
        return "%?".into();
    };
    match &node.op {
        Op::Input { name: n, .. } => format!("%{}", name(n)),
        _ if node.results.len() == 1 && v.result == 0 => format!("%{}", node.id),
        _ => format!("%{}#{}", node.id, v.result),
    }
}

/// The shortest decimal that reads back as `x`: `1.0`, `1e-6`, `-inf`, `nan`.
pub fn number(x: f64) -> String {
    if x.is_nan() { "nan".into() } else { format!("{x:?}") }
}

/// A scope for all layers: `layers.3.gelu` as `layers.*.gelu`.
pub fn any_layer(scope: &str) -> String {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    scope.split('.').map(|part| if number(part) { "*" } else { part }).collect::<Vec<_>>().join(".")
}

/// A name, quoted where it has to be.
fn name(s: &str) -> Cow<'_, str> {
    if is_bare(s) {
        return s.into();
    }
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out.into()
}
