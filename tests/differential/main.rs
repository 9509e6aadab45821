//! Random graphs through machine code, by the default passes and by others in other orders, against the interpreter in
//! f64. The arena and the outputs hold NaN before every run, so that what is read before it is written shows.
//!
//! `DIFFERENTIAL_SEEDS=1000..1200 cargo test --release --test differential` runs other seeds; `cargo run --release
//! --example fuzz` goes on until something is wrong.
#![cfg(feature = "study")]

mod case;
mod generate;
mod layers;
mod machine;
mod shrink;

use case::{Case, Variant, case, filetest, inputs};
use isoflop_compiler::graph::{Op, Unary};
use isoflop_compiler::passes::Pass;
use isoflop_compiler::text::{MNEMONICS, parse_all, print};
use machine::{Kind, Tally, Workshop, Wrong};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use shrink::shrink;

/// Seeds whose graphs were once compiled wrong.
const REGRESSIONS: &[u64] = &[1601];
const SEEDS: std::ops::Range<u64> = 0..2000;

/// Judges all cases and prints those that are wrong, as filetests.
#[track_caller]
fn agree(cases: &[Case]) -> Tally {
    let workshop = Workshop::new(&[]).expect("a temporary folder");
    let (found, tally) = workshop.judge(cases, 2);
    let mut report = String::new();
    for (case, wrong) in cases.iter().zip(&found) {
        if let Some(first) = wrong.first() {
            let what: Vec<String> =
                wrong.iter().map(|w| format!("// variant {}: {}\n", w.variant, w.what)).collect();
            report += &format!(
                "// {}\n{}{}\n",
                case.graph.name,
                what.concat(),
                filetest(case, &case.variants[first.variant])
            );
        }
    }
    let failed = found.iter().filter(|w| !w.is_empty()).count();
    println!("{failed} wrong of {tally:?}");
    assert!(report.is_empty(), "{report}");
    tally
}

/// A kernel for every operation as the graph has them.
fn unfused() -> Variant {
    Variant { passes: ["legalize", "outline"].map(String::from).to_vec(), shuffle: None }
}

/// Operations that occur in no random graph: groups of processes, and nodes that passes form.
fn not_generated(tally: &Tally) -> Vec<&'static str> {
    let processes = ["all_reduce", "all_gather", "reduce_scatter"];
    let formed = ["fused", "rel_attention", "rel_attention_grad", "head_loss", "head_loss_grad"];
    let expected = MNEMONICS.iter().copied().filter(|m| !formed.contains(m) && !processes.contains(m));
    expected.filter(|m| !tally.operations.contains_key(m)).collect()
}

#[test]
fn what_was_wrong_stays_right() {
    let graphs = parse_all(include_str!("regressions.graph"), "regressions.graph").expect("graphs");
    let mut cases = vec![];
    for (k, graph) in graphs.into_iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(k as u64);
        let given = inputs(&graph, &mut rng);
        let variants = vec![Variant::default_passes(), unfused(), Variant::random(&mut rng)];
        cases.push(Case { graph, given, variants });
    }
    for mut case in REGRESSIONS.iter().map(|&seed| case(seed)) {
        case.variants.extend([Variant::default_passes(), unfused()]);
        cases.push(case);
    }
    agree(&cases);
}

#[test]
fn a_failing_case_is_made_small_and_runs_as_a_filetest() {
    // In the place of a bug: a root of at least three elements, when `cse` is among the passes.
    let fails = |c: &Case| {
        let root =
            |n| matches!(c.graph.op(n), Op::Unary(Unary::Rsqrt)) && c.graph.ty(n.into()).elements() >= 3;
        c.variants[0].passes.iter().any(|p| p == "cse") && c.graph.nodes().node_indices().any(root)
    };
    let mut failing = (0..200).map(case).filter(fails);
    let first = failing.next().expect("a graph with a root");
    let small = shrink(&first, 0, &fails);
    let shown = print(&small.graph);
    assert!(fails(&small), "{shown}");
    assert!(first.graph.nodes().node_count() > 10);
    assert_eq!(small.graph.nodes().node_count(), 2, "{shown}");
    assert!(small.graph.ty(small.graph.outputs[0].value).elements() <= 4, "{shown}");
    assert_eq!(small.variants[0].passes.len(), 3, "{:?}", small.variants);

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("small.graph");
    std::fs::write(&path, filetest(&small, &small.variants[0])).expect("written");
    let check = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_isoflop"));
        let output = command.args(["opt", "--check"]).arg(&path).args(more).output().expect("started");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (passed, said) = check(&["--bless"]);
    assert!(passed && said.contains("1 actions, 0 failed"), "{said}");
    assert!(check(&[]).0);
}

/// A pass that is wrong: cosines become sines.
const WRONG: Pass = Pass {
    name: "wrong",
    description: "cosines become sines",
    changes_rounding: false,
    run: |g, _| {
        for n in g.nodes_mut().node_weights_mut().filter(|n| matches!(n.op, Op::Unary(Unary::Cos))) {
            n.op = Op::Unary(Unary::Sin);
        }
    },
};

#[test]
fn what_a_wrong_pass_breaks_is_found_and_made_small() {
    let workshop = Workshop::new(&[WRONG]).expect("a temporary folder");
    let passes = ["fold", "wrong", "cse", "dce", "legalize", "fuse"].map(String::from).to_vec();
    let cases = (0..25)
        .map(|seed| Case { variants: vec![Variant { passes: passes.clone(), shuffle: None }], ..case(seed) });
    let cases: Vec<Case> = cases.collect();
    let (found, _) = workshop.judge(&cases, 2);
    let value = |w: &Wrong| w.kind == Kind::Value;
    let place = found.iter().position(|w| w.iter().any(value)).expect("a cosine");
    assert!(found.iter().flatten().all(value), "{found:?}");
    let small = shrink(&cases[place], 0, &|c| workshop.judge_one(c).iter().any(value));
    let nodes: Vec<&str> = small.graph.topological().iter().map(|&n| small.graph.op(n).mnemonic()).collect();
    assert_eq!(nodes, ["input", "cos"], "{}", print(&small.graph));
    assert_eq!(small.graph.ty(small.graph.outputs[0].value).elements(), 1);
    assert_eq!(small.variants[0].passes, ["wrong", "legalize", "fuse"]);
}

#[test]
fn machine_code_agrees_with_the_interpreter() {
    let seeds = match std::env::var("DIFFERENTIAL_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("DIFFERENTIAL_SEEDS is FROM..TO");
            from.parse().expect("a number")..to.parse().expect("a number")
        }
        Err(_) => SEEDS,
    };
    let cases: Vec<Case> = seeds.map(case).collect();
    let tally = agree(&cases);
    if cases.len() < 1000 {
        return;
    }
    assert_eq!(not_generated(&tally), Vec::<&str>::new());
    assert!(tally.vague * 50 < tally.outputs, "{} of {} outputs were not judged", tally.vague, tally.outputs);
    for (what, n) in [("chains", tally.chains), ("groups", tally.grouped), ("squares", tally.squares)] {
        assert!(n >= 100, "only {n} {what}");
    }
}
