//! The graph before and after fusion as one HTML page that loads nothing: drawn here, walked through by its script.

use super::layout::{Gaps, Layout, Size, layered};
use super::scene::{Edge, Node, Scene, Shape, size};
use crate::graph::Graph;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, HtmlEscape, Value};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page could not be made: a defect of its template.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("the template of the picture cannot be filled in: {0}")]
    Template(#[from] minijinja::Error),
    #[error("the details of the picture cannot be written: {0}")]
    Details(#[from] serde_json::Error),
}

/// Pixels a letter takes, about; of labels in 12 pixels.
const LETTER: f64 = 7.4;
/// Height of an operation: one line of text.
const LINE: f64 = 24.0;
/// Between the frame of a kernel and what is in it; its name stands above.
const PADDING: f64 = 12.0;
const TITLE: f64 = 20.0;
const INSIDE: Gaps = Gaps { beside: 12.0, below: 18.0 };
const BETWEEN: Gaps = Gaps { beside: 26.0, below: 46.0 };
/// Edges longer than this are drawn faintly: most lead from the forward to the backward pass.
const FAR: f64 = 500.0;

/// What the template is filled with. Fields that hold HTML are marked `safe` there.
#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    style: &'static str,
    script: &'static str,
    views: Vec<View>,
    details: String,
}

/// One graph on the page.
#[derive(Serialize)]
struct View {
    name: &'static str,
    label: String,
    /// The whole drawing and a margin.
    r#box: String,
    svg: String,
}

/// What the script knows of a view, beside the drawing. Lists are short: names would be most of the page.
#[derive(Serialize)]
struct Details<'a> {
    nodes: Vec<NodeDetails<'a>>,
    /// From, to, index of the result, bytes.
    edges: Vec<(usize, usize, u16, String)>,
    kernels: Vec<KernelDetails<'a>>,
    /// Scopes and the places of all that is in them: x, y, width, height.
    scopes: BTreeMap<&'a str, [f64; 4]>,
}

#[derive(Serialize)]
struct NodeDetails<'a> {
    name: &'a str,
    op: &'static str,
    kind: &'static str,
    scope: &'a str,
    /// Type and bytes of each result.
    results: Vec<(String, String)>,
    text: &'a str,
    kernel: Option<usize>,
    /// Of the middle.
    at: (f64, f64),
}

#[derive(Serialize)]
struct KernelDetails<'a> {
    name: &'a str,
    scope: &'a str,
    /// The first operation and how many there are.
    nodes: (usize, usize),
}

/// Left upper corner, width and height.
#[derive(Clone, Copy)]
struct Rect {
    x: f64,
    y: f64,
    size: Size,
}

impl Rect {
    fn middle(self) -> (f64, f64) {
        (self.x + self.size.width / 2.0, self.y + self.size.height / 2.0)
    }
}

/// A scene with places.
struct Drawing {
    scene: Scene,
    nodes: Vec<Rect>,
    /// Frames, in the order of regions.
    kernels: Vec<Rect>,
    whole: Size,
}

/// The page as HTML text. The same graphs give the same bytes.
///
/// # Errors
/// A template that cannot be filled in.
pub fn html(title: &str, before: &Graph, after: &Graph) -> Result<String, PictureError> {
    let mut views = Vec::new();
    let mut details = BTreeMap::new();
    let drawings = [("before", before), ("after", after)].map(|(name, g)| (name, Drawing::of(g)));
    for (name, drawing) in &drawings {
        let (operations, kernels) = (drawing.operations(), drawing.kernels.len());
        let label = match kernels {
            0 => format!("{operations} operations"),
            _ => format!("{operations} operations, {kernels} kernels"),
        };
        let Size { width, height } = drawing.whole;
        let r#box = format!("-20 -20 {:.1} {:.1}", width + 40.0, height + 40.0);
        views.push(View { name, label, r#box, svg: drawing.svg(name) });
        details.insert(*name, drawing.details());
    }
    // Inside a script element only `<` could end it.
    let details = serde_json::to_string(&details)?.replace('<', "\\u003c");
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page.html", PAGE)?;
    let page = Page { title, style: STYLE, script: SCRIPT, views, details };
    Ok(environment.get_template("page.html")?.render(Value::from(Serde(&page)))?)
}

impl Drawing {
    fn of(g: &Graph) -> Drawing {
        let scene = Scene::of(g);
        let inner: Vec<Layout> = scene.regions.iter().map(|r| inside(&scene, r.nodes.clone())).collect();
        // What is laid out together: kernels as a whole, and nodes outside them; in the order of nodes.
        let mut units: Vec<Size> = Vec::new();
        let mut unit_of = vec![0; scene.nodes.len()];
        for (n, node) in scene.nodes.iter().enumerate() {
            let continues = node.region.is_some() && n > 0 && scene.nodes[n - 1].region == node.region;
            if !continues {
                units.push(node.region.map_or(box_of(node), |r| {
                    let title = scene.regions[r].name.len() + scene.regions[r].scope.len() + 9;
                    Size {
                        width: inner[r].whole.width.max(title as f64 * LETTER) + 2.0 * PADDING,
                        height: inner[r].whole.height + 2.0 * PADDING + TITLE,
                    }
                }));
            }
            unit_of[n] = units.len() - 1;
        }
        let mut edges: Vec<(usize, usize)> =
            scene.edges.iter().map(|e| (unit_of[e.from], unit_of[e.to])).collect();
        edges.sort_unstable();
        edges.dedup();
        let outer = layered(&units, &edges, BETWEEN);

        let nowhere = Rect { x: 0.0, y: 0.0, size: Size { width: 0.0, height: 0.0 } };
        let mut kernels = vec![nowhere; scene.regions.len()];
        let mut nodes = Vec::new();
        for (n, node) in scene.nodes.iter().enumerate() {
            let unit = unit_of[n];
            let (x, y) = outer.corners[unit];
            let Some(r) = node.region else {
                nodes.push(Rect { x, y, size: units[unit] });
                continue;
            };
            let first = scene.regions[r].nodes.start;
            if n == first {
                kernels[r] = Rect { x, y, size: units[unit] };
            }
            let (u, v) = inner[r].corners[n - first];
            let left = x + (units[unit].width - inner[r].whole.width) / 2.0;
            nodes.push(Rect { x: left + u, y: y + PADDING + TITLE + v, size: box_of(node) });
        }
        Drawing { scene, nodes, kernels, whole: outer.whole }
    }

    fn operations(&self) -> usize {
        let counted = |n: &&Node| matches!(n.shape, Shape::Operation | Shape::Library);
        self.scene.nodes.iter().filter(counted).count()
    }

    fn svg(&self, view: &str) -> String {
        let mut out = String::new();
        for (k, r) in self.kernels.iter().enumerate() {
            let _ = writeln!(
                out,
                "<g class=\"kernel\" id=\"{view}-k{k}\"><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" \
                 height=\"{:.1}\" rx=\"8\"/></g>",
                r.x, r.y, r.size.width, r.size.height
            );
        }
        for (k, e) in self.scene.edges.iter().enumerate() {
            self.edge(&mut out, view, k, e);
        }
        // Above the edges, which would cross them.
        for (r, kernel) in self.kernels.iter().zip(&self.scene.regions) {
            let name = format!("kernel {} {}", kernel.name, kernel.scope);
            let (x, y) = (r.x + PADDING, r.y + 19.0);
            let _ = writeln!(
                out,
                "<text class=\"name\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
                HtmlEscape(name.trim_end())
            );
        }
        for (n, (r, node)) in self.nodes.iter().zip(&self.scene.nodes).enumerate() {
            self.node(&mut out, view, n, *r, node);
        }
        out
    }

    fn edge(&self, out: &mut String, view: &str, k: usize, e: &Edge) {
        let (from, to) = (self.nodes[e.from], self.nodes[e.to]);
        let ((x, _), (u, _)) = (from.middle(), to.middle());
        let (y, v) = (from.y + from.size.height, to.y);
        let bend = ((v - y) / 2.0).clamp(8.0, 90.0);
        let class = if (v - y).hypot(u - x) > FAR { "far" } else { "near" };
        let _ = writeln!(
            out,
            "<path class=\"{class}\" id=\"{view}-e{k}\" d=\"M{x:.1} {y:.1}C{x:.1} {:.1} {u:.1} {:.1} {u:.1} {v:.1}\"/>",
            y + bend,
            v - bend
        );
    }

    fn node(&self, out: &mut String, view: &str, n: usize, r: Rect, node: &Node) {
        let class = match node.shape {
            Shape::Input => "input",
            Shape::Free => "free",
            Shape::Operation => "operation",
            Shape::Library => "library",
            Shape::Output => "output",
        };
        let rounding = if matches!(node.shape, Shape::Input | Shape::Output) { LINE / 2.0 } else { 4.0 };
        let types: Vec<String> = node.types.iter().map(|t| t.to_string()).collect();
        let label = format!("{} {}, {} {}", node.op, node.name, types.join(" "), node.scope);
        let (x, y) = r.middle();
        let _ = writeln!(
            out,
            "<g class=\"node {class}\" id=\"{view}-n{n}\" role=\"button\" tabindex=\"-1\" aria-label=\"{}\">\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"{rounding}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\">{}</text></g>",
            HtmlEscape(label.trim_end()),
            r.x,
            r.y,
            r.size.width,
            r.size.height,
            y + 4.0,
            HtmlEscape(&caption(node))
        );
    }

    fn details(&self) -> Details<'_> {
        let tenth = |x: f64| (x * 10.0).round() / 10.0;
        let mut scopes: BTreeMap<&str, [f64; 4]> = BTreeMap::new();
        scopes.insert("everything", [0.0, 0.0, tenth(self.whole.width), tenth(self.whole.height)]);
        let mut nodes = Vec::new();
        for (node, r) in self.scene.nodes.iter().zip(&self.nodes) {
            let (x, y) = r.middle();
            if !node.scope.is_empty() {
                let all = scopes.entry(prefix(&node.scope)).or_insert([r.x, r.y, 0.0, 0.0]);
                let (right, below) = (all[0] + all[2], all[1] + all[3]);
                let (left, above) = (all[0].min(r.x), all[1].min(r.y));
                let (right, below) = (right.max(r.x + r.size.width), below.max(r.y + r.size.height));
                *all = [left, above, right - left, below - above].map(tenth);
            }
            nodes.push(NodeDetails {
                name: &node.name,
                op: node.op,
                kind: node.shape.word(),
                scope: &node.scope,
                results: node.types.iter().map(|t| (t.to_string(), size(t.bytes()))).collect(),
                text: &node.text,
                kernel: node.region,
                at: (tenth(x), tenth(y)),
            });
        }
        let edges = self.scene.edges.iter().map(|e| (e.from, e.to, e.result, size(e.bytes))).collect();
        let kernels = self.scene.regions.iter();
        let kernels = kernels
            .map(|r| KernelDetails { name: &r.name, scope: &r.scope, nodes: (r.nodes.start, r.nodes.len()) })
            .collect();
        Details { nodes, edges, kernels, scopes }
    }
}

/// The operations of one kernel.
fn inside(scene: &Scene, nodes: std::ops::Range<usize>) -> Layout {
    let sizes: Vec<Size> = scene.nodes[nodes.clone()].iter().map(box_of).collect();
    let within = |e: &&Edge| nodes.contains(&e.from) && nodes.contains(&e.to);
    let edges: Vec<(usize, usize)> =
        scene.edges.iter().filter(within).map(|e| (e.from - nodes.start, e.to - nodes.start)).collect();
    layered(&sizes, &edges, INSIDE)
}

/// What stands in a node.
fn caption(node: &Node) -> String {
    match node.shape {
        Shape::Input | Shape::Output => node.name.clone(),
        _ => format!("{} {}", node.op, node.name),
    }
}

fn box_of(node: &Node) -> Size {
    Size { width: caption(node).chars().count() as f64 * LETTER + 16.0, height: LINE }
}

/// The first word of a scope, or of `layers.0.gelu` the first two: parts of a graph that a list can hold.
fn prefix(scope: &str) -> &str {
    let mut dots = scope.match_indices('.').map(|(i, _)| i);
    let first = dots.next();
    let numbered = first.is_some_and(|i| scope[i + 1..].starts_with(|c: char| c.is_ascii_digit()));
    let end = if numbered { dots.next() } else { first };
    &scope[..end.unwrap_or(scope.len())]
}
