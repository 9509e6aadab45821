//! Plans of the sweeps we ship, of every rule, and of the runs that nano models were tried with.

use isoflop_sweeps::file;
use isoflop_sweeps::plan::{Plan, plan};
use std::path::Path;

fn example(name: &str) -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    plan(&file::read(&path).expect("the example is right")).expect("the example has a plan")
}

const HEAD: &str = "[sweep]\nname = \"t\"\n";

fn planned(text: &str) -> Plan {
    let text = format!("{HEAD}{text}");
    plan(&file::parse(Path::new("t.toml"), &text).expect("a sweep")).expect("a plan")
}

#[track_caller]
fn close(found: f64, expected: f64, relative: f64) {
    assert!((found / expected - 1.0).abs() < relative, "{found:e} is not {expected:e} within {relative:e}");
}

#[test]
fn nano_has_three_budgets_of_five_sizes_and_no_warnings() {
    let plan = example("nano.toml");
    assert_eq!(plan.warnings, [] as [&str; 0]);
    for budget in [1e11, 3e11, 1e12] {
        let runs: Vec<_> = plan.runs.iter().filter(|r| r.budget == Some(budget)).collect();
        assert!(runs.len() >= 5, "{budget:e} has {} runs", runs.len());
        for run in &runs {
            // Whole steps: within half a step of the budget.
            close(run.flops, budget, 0.5 / run.steps as f64 + 1e-9);
            assert_eq!(run.tokens, run.steps * run.batch_tokens);
            assert!(run.steps >= 20 && run.batch_tokens <= 2048, "{}", run.id);
        }
        // The expected optimum, and the minima of our trial (21k, 21k, 35k), lie inside.
        let params = |f: fn(u64, u64) -> u64, from| runs.iter().fold(from, |n, r| f(n, r.params));
        assert!(params(u64::min, u64::MAX) < 21_336 && params(u64::max, 0) > 35_104);
    }
}

#[test]
fn gopher_is_the_published_recipe() {
    let plan = example("gopher.toml");
    let ids: Vec<&str> = plan.runs.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "d3e11-n44M-s0",
            "d3e11-n117M-s0",
            "d3e11-n417M-s0",
            "d3e11-n1.4B-s0",
            "d3e11-n7.1B-s0",
            "d3e11-n280B-s0"
        ]
    );
    let rates: Vec<f64> = plan.runs.iter().map(|r| r.schedule.lr).collect();
    assert_eq!(rates, [6e-4, 6e-4, 2e-4, 2e-4, 1.2e-4, 4e-5]);
    let batches: Vec<u64> = plan.runs.iter().map(|r| r.batch_tokens).collect();
    assert_eq!(batches, [262_144, 262_144, 262_144, 262_144, 2_097_152, 3_145_728]);
    assert_eq!(plan.runs[0].params, 43_663_872);
    assert_eq!(plan.runs[0].schedule.warmup_steps, 1_500);
    close(plan.runs[5].flops, 5.03e23, 2e-3);
    close(plan.runs[5].tokens as f64, 300e9, 1e-5);
}

/// Sizes and tokens of a trial with 1,024 tokens a step at the least budget and 2,048 above.
#[test]
fn named_sizes_meet_the_budget_to_half_a_step() {
    let tried = [
        (1e11, 1024, "7.5k", 7_504, 2_168),
        (1e11, 1024, "21k", 21_336, 762),
        (1e11, 1024, "230k", 230_464, 70),
        (1e12, 2048, "35k", 35_104, 2_318),
        (1e12, 2048, "2.7M", 2_708_640, 30),
    ];
    for (budget, batch, size, params, steps) in tried {
        let plan = planned(&format!(
            "[family]\nname = \"nano\"\n[plan]\nkind = \"isoflop\"\nflops = [{budget:e}]\nsizes = [\"{size}\"]\n\
             [train]\nbatch_tokens = {batch}\nlr = {{ rule = \"width\", base = 0.16 }}\n"
        ));
        let run = &plan.runs[0];
        assert_eq!((run.params, run.batch_tokens), (params, batch));
        assert!(run.steps.abs_diff(steps) <= 1, "{size}: {} steps, tried with {steps}", run.steps);
        assert_eq!(run.schedule.lr, 0.16 / run.model.d_model as f64);
        assert_eq!(run.id, format!("c{budget:e}-n{size}-s0"));
    }
}

#[test]
fn the_step_law_sets_batch_and_rate() {
    let plan = planned(
        "[family]\nname = \"gopher\"\n[plan]\nkind = \"grid\"\nsizes = [\"1.4B\"]\ntokens = [30e9]\n\
         [train]\nbatch_tokens = { rule = \"step-law\" }\nlr = { rule = \"step-law\", scale = 0.5 }\n",
    );
    let run = &plan.runs[0];
    // 0.58 * (3e10)^0.571 = 549 thousand tokens, 268 sequences, rounded to a power of two.
    assert_eq!(run.batch, 256);
    close(
        run.schedule.lr,
        0.5 * 1.79 * (run.params as f64).powf(-0.713) * (run.tokens as f64).powf(0.307),
        1e-12,
    );
}

#[test]
fn shapes_of_ones_own_may_have_heads_that_do_not_fill_the_width() {
    let plan = planned(
        "seeds = [3, 4]\n[family]\nvocab_size = 1000\nseq_len = 64\nbias = true\n\
         [[family.shape]]\nname = \"odd\"\nn_layers = 3\nn_heads = 5\nd_head = 12\nd_model = 48\nd_ff = 100\n\
         lr = 1e-3\nbatch_tokens = 640\n\
         [plan]\nkind = \"grid\"\ntokens = [64000]\n\
         [train]\nbatch_tokens = { rule = \"published\" }\nlr = { rule = \"per-size\", sizes = { odd = 0.002 } }\n",
    );
    let ids: Vec<&str> = plan.runs.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids, ["d6.4e4-nodd-s3", "d6.4e4-nodd-s4"]);
    let run = &plan.runs[0];
    let (l, d, a, f, v) = (3, 48, 60, 100, 1000);
    let weights = l * (5 * d * a + 2 * d * f) + v * d;
    assert_eq!(run.params, weights + l * (2 * d + 2 * a) + d + l * (4 * a + 2 * d + f) + v);
    assert_eq!((run.batch, run.steps, run.schedule.lr), (10, 100, 0.002));
}

#[test]
fn a_list_is_planned_run_by_run() {
    let plan = planned(
        "seeds = [5]\n[family]\nname = \"nano\"\n\
         [[family.shape]]\nname = \"mine\"\nn_layers = 3\nn_heads = 2\nd_head = 16\nd_model = 40\n\
         [plan]\nkind = \"list\"\n\
         [[plan.run]]\nsize = \"mine\"\ntokens = 3e6\nseeds = [1, 0]\n\
         [[plan.run]]\nsize = \"21k\"\ntokens = 5e6\n\
         [[plan.run]]\nsize = \"mine\"\ntokens = 1e6\n\
         [train]\nbatch_tokens = 1024\n\
         lr = { rule = \"per-size\", sizes = { mine = 0.002, 21k = 0.001 } }\n",
    );
    let runs: Vec<_> = plan.runs.iter().map(|r| (r.id.as_str(), r.steps, r.schedule.lr)).collect();
    let ids = ["d3e6-nmine-s1", "d3e6-nmine-s0", "d5e6-n21k-s5", "d1e6-nmine-s5"];
    let steps = [2930, 2930, 4883, 977];
    let rates = [0.002, 0.002, 0.001, 0.002];
    assert_eq!(runs, (0..4).map(|i| (ids[i], steps[i], rates[i])).collect::<Vec<_>>());
    assert!(plan.runs.iter().all(|r| r.tokens == r.steps * 1024 && r.budget.is_none()));
    assert_eq!(plan.warnings, [] as [&str; 0]);
}

#[test]
fn short_runs_are_left_out_and_named() {
    let plan = planned(
        "[family]\nname = \"nano\"\n[plan]\nkind = \"isoflop\"\nflops = [1e11]\n\
         [train]\nbatch_tokens = 2048\nlr = 0.001\n",
    );
    assert!(plan.runs.iter().all(|r| r.steps >= 20));
    assert!(plan.warnings.iter().any(|w| w.contains("c1e11-n2.7M-s0 (3 steps)")), "{:?}", plan.warnings);
    assert!(plan.warnings.iter().any(|w| w.contains("1 budgets")), "{:?}", plan.warnings);
}

#[test]
fn a_plan_without_runs_says_what_to_do() {
    let text = format!(
        "{HEAD}[family]\nname = \"gopher\"\n[plan]\nkind = \"isoflop\"\nflops = [1e12]\n[train]\n\
         batch_tokens = {{ rule = \"published\" }}\nlr = {{ rule = \"published\" }}\n"
    );
    let sweep = file::parse(Path::new("t.toml"), &text).expect("a sweep");
    let message = plan(&sweep).expect_err("nothing fits").to_string();
    assert!(message.contains("raise the budgets") && message.contains("min_steps"), "{message}");
}

#[test]
fn plans_are_equal_byte_for_byte_and_ids_unique() {
    let json = || serde_json::to_string(&example("nano.toml")).expect("JSON");
    assert_eq!(json(), json());
    let plan = example("nano.toml");
    let ids: std::collections::HashSet<_> = plan.runs.iter().map(|r| &r.id).collect();
    assert_eq!(ids.len(), plan.runs.len());
    let back: Plan = serde_json::from_str(&json()).expect("a plan");
    assert_eq!(back, plan);
}
