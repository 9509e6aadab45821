//! The graph before and after fusion as text for Graphviz.

use super::scene::{Scene, Shape, size};
use crate::graph::Graph;
use std::fmt::Write;

/// Two directed graphs, `before` and `after`: `dot -Tpdf` draws a page for each. Operations are boxes, those of one kernel
/// inside a frame; library calls are components, inputs ellipses, outputs houses, constants plain text. An edge says how
/// many bytes it carries.
pub fn dot(before: &Graph, after: &Graph) -> String {
    let mut out = String::new();
    for (name, g) in [("before", before), ("after", after)] {
        digraph(&mut out, name, &g.name, &Scene::of(g));
    }
    out
}

fn digraph(out: &mut String, name: &str, title: &str, scene: &Scene) {
    let label = quoted(&format!("{title}, {name} fusion"));
    let _ =
        writeln!(out, "digraph {name} {{\n  label={label}; labelloc=t; rankdir=TB; fontname=\"sans-serif\";");
    let _ = writeln!(out, "  node [shape=box, fontname=\"sans-serif\", fontsize=11];");
    let _ = writeln!(out, "  edge [fontname=\"sans-serif\", fontsize=9, color=\"#666666\"];");
    for (k, region) in scene.regions.iter().enumerate() {
        let label = quoted(&format!("kernel {} {}", region.name, region.scope));
        let _ = writeln!(out, "  subgraph cluster_{k} {{");
        let _ = writeln!(
            out,
            "    label={label}; style=\"rounded,filled\"; color=\"#0069a8\"; fillcolor=\"#eaf3f9\";"
        );
        for n in region.nodes.clone() {
            node(out, "    ", scene, n);
        }
        out.push_str("  }\n");
    }
    for n in (0..scene.nodes.len()).filter(|&n| scene.nodes[n].region.is_none()) {
        node(out, "  ", scene, n);
    }
    for e in &scene.edges {
        let _ = writeln!(out, "  n{} -> n{} [label={}];", e.from, e.to, quoted(&size(e.bytes)));
    }
    out.push_str("}\n");
}

fn node(out: &mut String, indent: &str, scene: &Scene, n: usize) {
    let node = &scene.nodes[n];
    let look = match node.shape {
        Shape::Input => ", shape=ellipse",
        Shape::Free => ", shape=plaintext",
        Shape::Operation => "",
        Shape::Library => ", shape=component, style=filled, fillcolor=\"#fdeee2\"",
        Shape::Output => ", shape=house",
    };
    let types: Vec<String> = node.types.iter().map(|t| t.to_string()).collect();
    let lines = [format!("{} {}", node.name, node.op), types.join(" "), node.scope.clone()];
    let lines: Vec<&str> = lines.iter().map(String::as_str).filter(|l| !l.is_empty()).collect();
    let tooltip = if node.text.is_empty() { &node.name } else { &node.text };
    let label = quoted(&lines.join("\n"));
    let _ = writeln!(out, "{indent}n{n} [label={label}{look}, tooltip={}];", quoted(tooltip));
}

/// A quoted string of the language. Backslashes are doubled, because labels have escapes of their own.
fn quoted(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
