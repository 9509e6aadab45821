//! The pipeline on a model's training step: dumps, resuming, and what lowering says of passes left out.

use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::{CompileError, OptimizeOptions, optimize, optimized_step, plan_program_with};
use isoflop_compiler::graph::Graph;
use isoflop_compiler::lower::lower;
use isoflop_compiler::model::training_graph;
use isoflop_compiler::opt::opt;
use isoflop_compiler::passes::pipeline::{Options, Sink};
use isoflop_compiler::passes::{PIPELINE, Pass, Registry};
use isoflop_compiler::text::{parse, print};
use std::sync::{Arc, Mutex};

fn model() -> (ModelConfig, StepConfig) {
    let model =
        ModelConfig { d_ff: 48, bias: true, rms_eps: 1e-5, ..ModelConfig::gopher(2, 2, 8, 16, 40, 12) };
    (model, StepConfig::new(3))
}

/// The graph at the end of the pipeline, and a dump after each pass.
fn through() -> (Graph, Vec<String>) {
    let seen = Arc::new(Mutex::new(vec![]));
    let into = seen.clone();
    let dumps = Sink(Arc::new(move |text: &str| into.lock().unwrap().push(text.to_string())));
    let pipeline = Options { print_after_all: true, verify: true, dumps, ..Options::default() };
    let (model, step) = model();
    let (g, _, _) =
        optimized_step(&model, &step, &OptimizeOptions { pipeline, ..Default::default() }).unwrap();
    let dumps = seen.lock().unwrap().clone();
    (g, dumps)
}

#[test]
fn a_pipeline_resumed_from_any_dump_ends_with_the_same_text() {
    let (last, dumps) = through();
    assert_eq!(dumps.len(), PIPELINE.len());
    for (k, dump) in dumps.iter().enumerate() {
        let Some(next) = PIPELINE.get(k + 1) else { continue };
        let nth = PIPELINE[..=k].iter().filter(|p| *p == next).count() + 1;
        let options = Options { resume_from: Some(format!("{next}:{nth}")), ..Options::default() };
        let (text, traces) = opt(&Registry::default(), dump, "dump", "", &options).unwrap();
        assert_eq!(traces[0].steps.len(), PIPELINE.len() - k - 1);
        assert!(text == print(&last), "resumed from {next} after {}", PIPELINE[k]);
    }
}

#[test]
fn a_fused_graph_read_from_its_text_lowers_to_the_same_program() {
    let (g, dumps) = through();
    assert_eq!(dumps.last().unwrap().split_once('\n').unwrap().1, print(&g));
    let read = parse(&print(&g), "fused").unwrap();
    assert_eq!(lower(&read).unwrap().program, lower(&g).unwrap().program);
}

#[test]
fn opt_default_gives_what_compiling_gives() {
    let (model, step) = model();
    let built = print(&training_graph(&model, &step).unwrap());
    let (text, _) = opt(&Registry::default(), &built, "built", "default", &Options::default()).unwrap();
    assert!(text == print(&through().0));
}

#[test]
fn lowering_names_the_pass_that_was_left_out() {
    let left_out = |pass: &str, text: &str| {
        let mut g = parse(text, "g").unwrap();
        let pipeline = Options { disable: vec![pass.into()], ..Options::default() };
        optimize(&mut g, &OptimizeOptions { pipeline, ..Default::default() }).unwrap();
        lower(&g).unwrap_err().to_string()
    };
    let between = "graph @g(%x: f32[2,3,4], %w: f32[3,5]) -> (f32[2,4,5]) {
        %2 = dot %x, %w {lhs_batch=[], rhs_batch=[], lhs_contract=[1], rhs_contract=[0]}
        return y = %2
    }";
    let message = left_out("legalize", between);
    assert_eq!(
        message,
        "dot (node %2) has no CPU code: no strides of a matrix product describe it; the pass `legalize` must run"
    );
    let crossed = "graph @g(%a: f32[2], %b: f32[2,3]) -> (f32[2,3,4]) {
        %2 = broadcast %a {dims=[0]} : f32[2,3,4]
        %3 = broadcast %b {dims=[0,1]} : f32[2,3,4]
        %4 = add %2, %3
        return y = %4
    }";
    let message = left_out("legalize", crossed);
    assert!(
        message.ends_with("no single loop follows its broadcasts; the pass `legalize` must run"),
        "{message}"
    );
    let message = left_out("fuse", "graph @g(%x: f32[4]) -> (f32[4]) { %1 = exp %x return y = %1 }");
    assert_eq!(
        message,
        "exp (node %1) has no CPU code: elementwise operations become kernels in `fuse` or `outline`; one of the two must run"
    );
}

#[test]
fn a_model_compiles_without_the_passes_it_can_do_without() {
    let (model, step) = model();
    for pass in PIPELINE.into_iter().filter(|p| *p != "fuse" && *p != "legalize") {
        let pipeline = Options { disable: vec![pass.into()], verify: true, ..Options::default() };
        let plan = plan_program_with(&model, &step, &OptimizeOptions { pipeline, ..Default::default() });
        assert!(plan.is_ok(), "without {pass}: {:?}", plan.err());
    }
    let pipeline = Options { disable: vec!["fuse".into()], ..Options::default() };
    let plan = plan_program_with(&model, &step, &OptimizeOptions { pipeline, ..Default::default() });
    assert!(matches!(plan, Err(CompileError::Lower(_))), "{:?}", plan.err());
}

#[test]
fn passes_of_a_caller_run_beside_the_compilers_own() {
    let forget = Pass {
        name: "forget",
        description: "every output becomes the first input",
        changes_rounding: true,
        run: |g, _| {
            let first = g.inputs[0].into();
            g.outputs.iter_mut().for_each(|o| o.value = first);
        },
    };
    let registry = Registry::with(&[forget]);
    let text = "graph @g(%x: f32[4]) -> (f32[4]) { %1 = exp %x return y = %1 }";
    let (out, _) = opt(&registry, text, "g", "forget,dce", &Options::default()).unwrap();
    assert_eq!(out, "graph @g(%x: f32[4]) -> (f32[4]) {\n  return y = %x\n}\n");
    let own = Registry::with(&[Pass { name: "cse", ..forget }]);
    assert_eq!(own.passes().len(), Registry::default().passes().len());
    assert_eq!(opt(&own, text, "g", "cse,dce", &Options::default()).unwrap().0, out);
}
