//! `[fit]` of a sweep file: every key changes its option and no other, and without keys a fit is the usual one.

use isoflop_sweeps::file;
use isoflop_sweeps::fit::{
    FitOptions, IntervalMethod, LawForm, LossColumn, MinimumMethod, Objective, ParamCount, Starts,
};
use std::path::Path;

fn fit(lines: &str) -> FitOptions {
    let text = format!(
        "[sweep]\nname = \"t\"\n[family]\nname = \"nano\"\n[plan]\nkind = \"grid\"\ntokens = [1e8]\n\
         [train]\nbatch_tokens = 1024\nlr = 1e-3\n[fit]\n{lines}\n"
    );
    file::parse(Path::new("t.toml"), &text).unwrap_or_else(|e| panic!("{lines}: {e}")).fit
}

#[test]
fn every_key_changes_its_option_and_no_other() {
    type Change = fn(&mut FitOptions);
    let keys: [(&str, Change); 20] = [
        ("", |_| ()),
        ("approaches = [3]", |o| o.approaches = vec![3]),
        ("form = \"kaplan\"", |o| o.form = LawForm::Kaplan),
        ("form = \"equal-exponents\"", |o| o.form = LawForm::EqualExponents),
        ("fix_e = 1.69", |o| o.form = LawForm::FixedE(1.69)),
        ("tie_exponents = true", |o| o.form = LawForm::EqualExponents),
        ("also = [\"kaplan\", \"compute\"]", |o| o.variants = vec![LawForm::Kaplan, LawForm::Compute]),
        ("objective = \"mse-linear\"", |o| o.objective = Objective::MseLinear),
        ("delta = 0.01", |o| o.delta = 0.01),
        ("starts = \"grid\"", |o| o.starts = Starts::Grid),
        ("minimum = \"akima\"", |o| o.minimum = MinimumMethod::Akima),
        ("interval = [\"percentile\"]", |o| o.intervals = IntervalMethod::Percentile),
        ("interval = [\"bca\", \"profile\"]", |o| o.profile = true),
        ("stratify = true", |o| o.stratified = true),
        ("seed_weights = true", |o| o.seed_weights = true),
        ("bootstrap = 0", |o| o.bootstrap = 0),
        ("level = 0.5\nseed = 7", |o| (o.level, o.seed) = (0.5, 7)),
        ("loss = \"train\"", |o| o.loss = LossColumn::Train),
        ("params = \"non-embedding\"", |o| o.params = ParamCount::NonEmbedding),
        ("targets = [1e12, 1e13]", |o| o.targets = vec![1e12, 1e13]),
    ];
    for (lines, change) in keys {
        let mut wanted = FitOptions::default();
        change(&mut wanted);
        assert_eq!(fit(lines), wanted, "{lines}");
    }
}
