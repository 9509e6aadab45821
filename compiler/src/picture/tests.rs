//! Both pictures of a small graph, and of a model.

use super::*;
use crate::config::{ModelConfig, StepConfig};
use crate::driver::{OptimizeOptions, optimize};
use crate::graph::Graph;
use crate::model::training_graph;
use crate::passes::pipeline;
use crate::text::parse;

fn fused() -> (Graph, Graph) {
    let before =
        "graph @\"a \\\"quoted\\\" <name>\"(%x: f32[64,128], %\"w\\\\1\": f32[128,32]) -> (f32[64,32]) {
        %2 = exp %x @\"layers.0.<b>\"
        %3 = mul %2, %2 @\"layers.0.<b>\"
        %4 = dot %3, %\"w\\\\1\" {lhs_batch=[], rhs_batch=[], lhs_contract=[1], rhs_contract=[0]} @head
        return \"</script>\" = %4
    }";
    let after = "graph @g(%x: f32[64,128], %w: f32[128,32]) -> (f32[64,32]) {
        %3 = fused @region(%p0: f32[64,128] = %x) {
            %2 = exp %p0 @layers.0.b
            %3 = mul %2, %2 @layers.0.b
            return r0 = %3
        } : f32[64,128] @layers.0.b
        %4 = dot %3, %w {lhs_batch=[], rhs_batch=[], lhs_contract=[1], rhs_contract=[0]} @head
        return y = %4
    }";
    (parse(before, "before").expect("a graph"), parse(after, "after").expect("a graph"))
}

#[test]
fn graphviz_text_says_sizes_kernels_and_names() {
    let (before, after) = fused();
    let text = dot(&before, &after);
    let (first, second) = text.split_once("digraph after {").expect("two graphs");
    assert!(
        first.starts_with("digraph before {\n  label=\"a \\\"quoted\\\" <name>, before fusion\""),
        "{first}"
    );
    assert!(
        first.contains("n1 [label=\"%\\\"w\\\\\\\\1\\\" input\\nf32[128,32]\", shape=ellipse"),
        "{first}"
    );
    assert!(first.contains("n4 [label=\"%4 dot\\nf32[64,32]\\nhead\", shape=component"), "{first}");
    assert!(first.contains("n0 -> n2 [label=\"32.8 kB\"];") && !first.contains("cluster"), "{first}");
    let (kernel, rest) = second.split_once("  }\n").expect("a kernel");
    assert!(kernel.contains("subgraph cluster_0 {\n    label=\"kernel %3 layers.0.b\""), "{kernel}");
    assert!(
        kernel.contains("%3/2 exp") && kernel.contains("%3/3 mul") && !kernel.contains("dot"),
        "{kernel}"
    );
    // Operands of the kernel go to what reads them inside, and its result comes from what computes it.
    assert!(rest.contains("n0 -> n2 ") && rest.contains("n3 -> n4 [label=\"32.8 kB\"]"), "{rest}");
    assert!(rest.contains("n4 -> n5 [label=\"8.19 kB\"]") && rest.contains("shape=house"), "{rest}");
    assert_eq!(text, dot(&before, &after));
    assert_eq!(text.matches('{').count(), text.matches('}').count());
}

#[test]
fn names_in_the_page_stay_names() {
    let (before, after) = fused();
    let page = html("<i>model</i>", &before, &after).expect("a page");
    assert!(page.contains("&lt;i&gt;model&lt;&#x2f;i&gt;"), "{page}");
    assert!(!page.contains("<b>") && !page.contains("<i>model"));
    // The page's own two scripts end, and nothing else does.
    assert_eq!(page.matches("</script>").count(), 2);
    assert_eq!(page.matches("<svg").count(), 2);
    for (view, nodes, edges) in [("before", 6, 6), ("after", 6, 6)] {
        assert_eq!(page.matches(&format!("id=\"{view}-n")).count(), nodes, "{view}");
        assert_eq!(page.matches(&format!("id=\"{view}-e")).count(), edges, "{view}");
    }
    assert_eq!(page.matches("class=\"kernel\"").count() - page.matches("<li class=\"kernel\"").count(), 1);
    for forbidden in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(forbidden), "the page holds {forbidden}");
    }
    assert_eq!(page, html("<i>model</i>", &before, &after).expect("a page"));
}

#[test]
fn every_operation_of_a_model_is_drawn_in_its_kernel() {
    let model = ModelConfig::gopher(2, 2, 8, 16, 64, 16);
    let step = StepConfig::new(2);
    let optimized = |disable: &[&str]| {
        let disable = disable.iter().map(|d| (*d).to_owned()).collect();
        let pipeline = pipeline::Options { disable, ..Default::default() };
        let mut g = training_graph(&model, &step).expect("a model");
        optimize(&mut g, &OptimizeOptions { pipeline, ..Default::default() }).expect("passes");
        g
    };
    let (before, after) = (optimized(&["fuse"]), optimized(&[]));
    let page = html("model", &before, &after).expect("a page");
    let drawn = |view: &str| page.matches(&format!("id=\"{view}-n")).count();
    assert_eq!(drawn("before"), before.nodes().node_count() + before.outputs.len());
    let kernels = after.op_counts()["fused"];
    assert_eq!(page.matches("id=\"after-k").count(), kernels);
    assert!(drawn("after") > kernels && !page.contains("NaN") && !page.contains("inf\""));
    let text = dot(&before, &after);
    assert_eq!(text.matches("subgraph cluster_").count(), kernels);
}
