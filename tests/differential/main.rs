//! Random graphs through machine code, by the default passes and by others in other orders, against the interpreter in
//! f64. The arena and the outputs hold NaN before every run, so that what is read before it is written shows.
//!
//! `DIFFERENTIAL_SEEDS=1000..1200 cargo test --release --test differential` runs other seeds.
#![cfg(feature = "study")]

mod case;
mod generate;
mod layers;
mod machine;

use case::{Case, Variant, case, filetest, inputs};
use isoflop_compiler::text::parse_all;
use machine::{Tally, Workshop, not_generated};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Seeds whose graphs were once compiled wrong.
const REGRESSIONS: &[u64] = &[1601];
const SEEDS: std::ops::Range<u64> = 0..2000;

/// Judges all cases and prints those that are wrong, as filetests.
#[track_caller]
fn agree(cases: &[Case]) -> Tally {
    let workshop = Workshop::new().expect("a temporary folder");
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

#[test]
fn what_was_wrong_stays_right() {
    let graphs = parse_all(include_str!("regressions.graph"), "regressions.graph").expect("graphs");
    let mut cases = vec![];
    for (k, graph) in graphs.into_iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(k as u64);
        let given = inputs(&graph, &mut rng);
        let variants = vec![Variant::default_passes(), Variant::unfused(), Variant::random(&mut rng)];
        cases.push(Case { graph, given, variants });
    }
    for mut case in REGRESSIONS.iter().map(|&seed| case(seed)) {
        case.variants.extend([Variant::default_passes(), Variant::unfused()]);
        cases.push(case);
    }
    agree(&cases);
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
