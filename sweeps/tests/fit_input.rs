//! Tables of others: known layouts, units, logs, groups, and what is derived, left out or warned about.

mod synthetic;

use isoflop_sweeps::fit::input::{ColumnMap, Input, ReadOptions, read_bytes};
use isoflop_sweeps::fit::{FitOptions, WarningCode, fit_input};
use synthetic::{LAW, sound};

fn mapped(text: &str, map: &[&str]) -> Input {
    let map = ColumnMap::parse(map.iter().copied()).expect("a map");
    let options = ReadOptions { map, ..Default::default() };
    read_bytes("points.csv", text.as_bytes(), &options).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn read(text: &str) -> Input {
    mapped(text, &[])
}

fn codes(input: &Input) -> Vec<WarningCode> {
    input.warnings.iter().map(|w| w.code).collect()
}

/// N, D, C and loss of the law at a grid of sizes and lengths.
fn points() -> Vec<[f64; 4]> {
    let sizes = [44e6, 117e6, 417e6, 1.4e9, 7.1e9];
    let ratios = [3.0, 10.0, 30.0, 100.0];
    let at = |(n, r): (f64, f64)| [n, n * r, 6.0 * n * n * r, LAW.loss(n, n * r)];
    sizes.iter().flat_map(|n| ratios.map(|r| at((*n, r)))).collect()
}

/// A CSV with this header, whose rows are made of N, D, C, loss.
fn csv(header: &str, row: impl Fn(usize, [f64; 4]) -> String) -> String {
    let rows: Vec<String> = points().into_iter().enumerate().map(|(i, p)| row(i, p)).collect();
    format!("{header}\n{}\n", rows.join("\n"))
}

/// Every run has the law's numbers, to rounding.
#[track_caller]
fn check(input: &Input, layout: &str) {
    assert_eq!(input.source.layout, layout);
    assert_eq!(input.runs.len(), points().len());
    for (run, [n, d, c, loss]) in input.runs.iter().zip(points()) {
        for (found, wanted) in [(run.params, n), (run.tokens, d), (run.flops, c)] {
            assert!((found / wanted - 1.0).abs() < 1e-12, "{found} {wanted}");
        }
        assert_eq!(run.validation_loss, Some(loss));
    }
    let report = fit_input(input, &FitOptions { bootstrap: 0, ..Default::default() }).expect("a fit");
    let fit = report.fits.iter().find(|f| f.fit.approach == 3).expect("approach 3");
    assert!((fit.fit.exponents.a - LAW.exponents().a).abs() < 1e-4, "{:?}", fit.fit.exponents);
}

#[test]
fn layouts_are_known_by_their_headers() {
    check(&read(&csv("C,N,D,loss", |_, [n, d, c, l]| format!("{c},{n},{d},{l}"))), "C, N, D, loss");
    check(
        &read(&csv("tokens,params,budget,loss", |_, [n, d, c, l]| format!("{d},{n},{c},{l}"))),
        "tokens, params, budget, loss",
    );
    check(
        &read(&csv("Model Size,Training FLOP,loss", |_, [n, _, c, l]| format!("{n:?},{c:?},{l}"))),
        "Model Size, Training FLOP, loss",
    );
    check(
        &read(&csv(",Model Size,Training Tokens,Training FLOP,loss", |i, [n, d, c, l]| {
            format!("{i},{n:?},{d:?},{c:?},{l}")
        })),
        "Model Size, Training FLOP, loss",
    );
    check(
        &read(&csv("run,n_params,tokens,step,c4_en_ce_loss,pile_ce_loss,n_rows", |i, [n, d, _, l]| {
            format!("r{i},{n},{d},{},{l},{},7", i * 5, l - 0.5)
        })),
        "olmo ladder",
    );
    check(
        &read(&csv("Parameters, Train-Tokens ,Val_Loss", |_, [n, d, _, l]| format!("{n},{d},{l}"))),
        "by name",
    );
}

#[test]
fn json_lines_and_arrays_hold_the_same() {
    let object = |(i, [n, d, _, l]): (usize, [f64; 4])| {
        format!(
            "{{\"run_name\":\"w-{}\",\"params_active_precise\":{n},\"width\":256,\"tokens\":{d},\"step\":{i},\"final_loss\":{l}}}",
            i / 4
        )
    };
    let objects: Vec<String> = points().into_iter().enumerate().map(object).collect();
    let lines = read(&objects.join("\n"));
    check(&lines, "gemstones");
    // Each row is an end of its own, though a run has four.
    assert_eq!(codes(&lines), [WarningCode::RepeatedRuns]);
    assert_eq!(lines.runs[1].id, "w-0#2");
    let array = read(&format!("[\n{}\n]\n", objects.join(",\n")));
    assert_eq!(array.runs, lines.runs);
    assert_eq!(array.source.rows.each, lines.source.rows.each);
    let python = read(&format!(
        "{}\n{{\"run_name\":\"x NaN\",\"params_active_precise\":1e7,\"tokens\":1e9,\"final_loss\":NaN}}",
        objects[..4].join("\n")
    ));
    assert_eq!((python.runs.len(), python.source.left_out.listed[0].id.as_str()), (4, "x NaN"));
}

#[test]
fn this_tools_own_table_is_read_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.csv");
    let runs = sound();
    isoflop_sweeps::fit::write_runs(&path, &runs).unwrap();
    let input = read(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(input.source.layout, "isoflop runs.csv");
    assert_eq!(input.source.budgets, "column");
    let same = |a: &isoflop_sweeps::fit::RunRecord| {
        (a.id.clone(), a.params, a.tokens, a.flops, a.budget, a.validation_loss)
    };
    assert_eq!(input.runs.iter().map(same).collect::<Vec<_>>(), runs.iter().map(same).collect::<Vec<_>>());
}

#[test]
fn an_export_of_weights_and_biases_gives_runs_and_curves() {
    let runs = sound();
    let mut text = "Name,State,_step,config.n_params,summary.tokens,train/loss,val/loss\n".to_string();
    for (run, curve) in runs.iter().zip(synthetic::curves(&LAW, &runs, false, 0.0)) {
        let state = if run.id == runs[3].id { "crashed" } else { "finished" };
        for p in curve.points.iter().rev() {
            let [train, validation] =
                [p.train_loss, p.validation_loss].map(|l| l.map(|l| l.to_string()).unwrap_or_default());
            text +=
                &format!("{},{state},{},{},{},{train},{validation}\n", run.id, p.step, run.params, p.tokens);
        }
    }
    let input = read(&text);
    assert_eq!((input.source.layout.as_str(), input.source.logs), ("weights and biases", Some(35)));
    assert_eq!((input.runs.len(), input.curves.len()), (34, 34));
    assert_eq!((input.runs[3].id.as_str(), input.runs[3].tokens), (runs[4].id.as_str(), runs[4].tokens));
    assert_eq!(input.runs[3].validation_loss, Some(LAW.loss(runs[4].params, runs[4].tokens)));
    let curve = &input.curves[3];
    assert_eq!((curve.run.as_str(), curve.points.len()), (runs[4].id.as_str(), 120));
    assert!(curve.points.windows(2).all(|p| p[0].step < p[1].step && p[0].tokens < p[1].tokens));
    assert_eq!(curve.points.iter().filter(|p| p.validation_loss.is_some()).count(), 24);
    let left_out = &input.source.left_out.listed;
    assert_eq!((left_out[0].id.as_str(), left_out[0].why.as_str()), (runs[3].id.as_str(), "failed"));
    let report = fit_input(&input, &FitOptions { bootstrap: 0, ..Default::default() }).unwrap();
    assert!(report.fits.iter().any(|f| f.fit.approach == 1), "{:?}", report.warnings);
    assert!(report.inputs.curves_blake3.is_some());
}

#[test]
fn numbers_may_have_units_and_separators() {
    let text =
        "params;tokens (B);loss\n1.5B;30;2.5\n44M;3;3.1\n\"1,234,567,890\";2.5e1;2.6\n400 million;5;2.8\n";
    let input = read(text);
    let found: Vec<_> = input.runs.iter().map(|r| (r.params, r.tokens)).collect();
    assert_eq!(found, [(1.5e9, 3e10), (44e6, 3e9), (1_234_567_890.0, 2.5e10), (4e8, 5e9)]);
    assert_eq!(input.source.scales["tokens"], 1e9);
}

#[test]
fn what_is_computed_is_said() {
    let derived = |header: &str, row: &str| read(&format!("{header}\n{row}\n")).source.derived;
    assert_eq!(derived("N,D,loss", "1e8,2e9,3"), ["flops = 6 params tokens"]);
    assert_eq!(derived("N,C,loss", "1e8,1e18,3"), ["tokens = flops / (6 params)"]);
    assert_eq!(derived("D,C,loss", "1e8,1e18,3"), ["params = flops / (6 tokens)"]);
    assert_eq!(derived("N,budget,loss", "1e8,1e18,3"), ["flops = budget", "tokens = budget / (6 params)"]);
    assert!(derived("N,D,C,loss", "1e8,2e9,1.2e18,3").is_empty());
}

#[test]
fn equal_compute_makes_budgets() {
    let runs = sound();
    let rows: Vec<String> = runs
        .iter()
        .map(|r| format!("{},{:.4e},{}", r.params, r.flops, r.validation_loss.unwrap_or_default()))
        .collect();
    let input = read(&format!("Model Size,Training FLOP,loss\n{}\n", rows.join("\n")));
    assert_eq!(input.source.budgets, "equal compute");
    let budgets: std::collections::BTreeSet<_> =
        input.runs.iter().filter_map(|r| Some(r.budget?.to_bits())).collect();
    assert_eq!(budgets.len(), 5);
    let spread = read(&csv("N,D,loss", |i, [n, d, _, l]| format!("{n},{},{l}", d * (1.0 + 0.02 * i as f64))));
    assert_eq!(spread.source.budgets, "none");
}

#[test]
fn groups_are_fitted_apart() {
    let text = csv("N,D,loss,corpus", |i, [n, d, _, l]| {
        format!("{n},{d},{l},c4\n{n},{d},{},pile\n{n},{d},2.{i},\"one size\"", 0.5 * l)
    });
    let text = text.replace("2.1,\"one size\"", "2.1,\"tiny\"");
    let input = mapped(&text, &["group=corpus"]);
    let report =
        fit_input(&input, &FitOptions { bootstrap: 0, approaches: vec![3], ..Default::default() }).unwrap();
    let groups: Vec<_> = report.fits.iter().map(|f| f.group.as_deref().unwrap_or("")).collect();
    assert_eq!(groups, ["c4", "pile", "one size"]);
    let law = |k: usize| match report.fits[k].fit.params {
        isoflop_sweeps::fit::Params::Loss(law) => law,
        ref other => panic!("{other:?}"),
    };
    assert!((law(1).e / law(0).e - 0.5).abs() < 1e-3);
    let tiny = report.warnings.iter().find(|w| w.group.as_deref() == Some("tiny")).expect("a warning");
    assert_eq!(tiny.warning.code, WarningCode::ApproachUnavailable);
    assert_eq!(report.inputs.groups.len(), 3);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), ["fits", "inputs", "warnings"]);
    assert_eq!(serde_json::from_value::<isoflop_sweeps::fit::FitDocument>(json).unwrap(), report);
}

#[test]
fn rows_left_out_are_counted_and_named() {
    let mut text = csv("run,status,N,D,loss", |i, [n, d, _, l]| format!("r{i},finished,{n},{d},{l}"));
    text += "a,running,1e8,2e9,3\nb,FAILED,1e8,2e9,\nc,finished,1e8,2e9,NaN\nd,finished,1e8,2e9,\ne,finished,,2e9,3\nf,finished,1e8,nan,3\ng,finished,1e8,2e9,inf\nh,odd,1e8,2e9,3\n";
    let input = read(&text);
    let left_out = &input.source.left_out;
    assert_eq!((input.runs.len(), left_out.count), (21, 7));
    let named: Vec<_> = left_out.listed.iter().map(|l| (l.id.as_str(), l.why.as_str())).collect();
    let wanted = [
        ("a", "not finished"),
        ("b", "failed"),
        ("c", "loss is not a number"),
        ("d", "no loss"),
        ("e", "no params"),
        ("f", "no tokens"),
        ("g", "loss is not a number"),
    ];
    assert_eq!(named, wanted);
    assert_eq!(codes(&input), [WarningCode::RunsLeftOut, WarningCode::UnknownStatus]);
    assert!(input.warnings[0].message.contains("2 loss is not a number"), "{}", input.warnings[0].message);
    assert_eq!(input.warnings[0].value, 7.0);
}

#[test]
fn a_long_list_of_rows_left_out_is_cut_but_counted() {
    let mut text = csv("N,D,loss", |_, [n, d, _, l]| format!("{n},{d},{l}"));
    text += &"1e8,2e9,NaN\n".repeat(500);
    let left_out = read(&text).source.left_out;
    assert_eq!((left_out.count, left_out.listed.len()), (500, 100));
}

#[test]
fn losses_worse_than_a_guess_are_found() {
    let text = csv("N,D,loss", |i, [n, d, _, l]| format!("{n},{d},{}", if i == 2 { 14.5 } else { l }));
    let input = read(&text);
    assert_eq!(codes(&input), [WarningCode::LossAboveUniform]);
    let options = ReadOptions { vocab_size: Some(32_000.0), ..Default::default() };
    let known = read_bytes("points.csv", text.as_bytes(), &options).unwrap();
    assert_eq!((known.runs.len(), codes(&known)), (19, vec![WarningCode::RunsLeftOut]));
    assert!(known.source.left_out.listed[0].why.contains("uniform guess over 32000 tokens"));
}

#[test]
fn compute_that_is_no_multiple_of_size_and_tokens_is_found() {
    let text =
        csv("N,D,C,loss", |i, [n, d, c, l]| format!("{n},{d},{},{l}", c * (1.0 + 0.1 * (i % 5) as f64)));
    let input = read(&text);
    assert_eq!(codes(&input), [WarningCode::MixedConventions]);
    assert!((input.warnings[0].value - 1.4).abs() < 1e-9);
}

#[test]
fn a_table_with_a_train_loss_only_is_read() {
    let input = read(&csv("N,D,train_loss", |_, [n, d, _, l]| format!("{n},{d},{l}")));
    assert!(!input.has_validation_loss() && input.runs[0].train_loss.is_some());
}

#[test]
fn equal_files_give_equal_hashes_and_rows_theirs() {
    let text = csv("N,D,loss", |_, [n, d, _, l]| format!("{n},{d},{l}"));
    let (plain, crlf) = (read(&text).source, read(&format!("\u{feff}{}", text.replace('\n', "\r\n"))).source);
    assert_eq!(plain.rows, crlf.rows);
    assert_ne!(plain.blake3, crlf.blake3);
    let row = text.lines().nth(3).unwrap();
    assert_eq!(plain.rows.each[2], blake3::hash(row.as_bytes()).to_hex().as_str());
    assert_eq!(plain.blake3, blake3::hash(text.as_bytes()).to_hex().as_str());
}

/// Runs without names are called by their lines, and errors name them, whatever ends the lines.
#[test]
fn lines_are_counted_alike_whatever_ends_them() {
    let text = csv("N,D,loss", |_, [n, d, _, l]| format!("{n},{d},{l}"));
    for text in [text.clone(), text.replace('\n', "\r\n"), format!("\u{feff}{}", text.replace('\n', "\r\n"))]
    {
        let input = read(&text);
        assert_eq!((input.runs[0].id.as_str(), input.runs[19].id.as_str()), ("line 2", "line 21"));
        let bad = text.replacen("417000000", "x", 1);
        let error = read_bytes("p.csv", bad.as_bytes(), &ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("line 10"), "{error}");
    }
}
