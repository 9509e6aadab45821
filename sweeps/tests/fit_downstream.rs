//! Accuracies of tasks: both steps found again from fresh draws, intervals that hold the truth, predictions, and tables
//! of several tasks.

mod synthetic;

use isoflop_sweeps::fit::input::{ColumnMap, Input, ReadOptions, Task, read_bytes, read_targets};
use isoflop_sweeps::fit::{
    Downstream, DownstreamOptions, FitDocument, FitOptions, FitStatus, LossParams, Objective, Sigmoid,
    fit_input, predict,
};
use isoflop_sweeps::report::{FigureFormat, ReportInput, ReportSource, figures, render};
use std::fmt::Write;
use synthetic::Noise;

/// A task's loss in bits per byte, and its accuracy.
const LAW: LossParams = LossParams { e: 0.55, a: 60.0, b: 180.0, alpha: 0.32, beta: 0.3 };
const TASK: Sigmoid = Sigmoid { floor: 0.25, ceiling: 0.95, k: 8.0, midpoint: 0.85 };

/// A ladder of six sizes at five lengths; log losses scatter by `noise`, accuracies by ten times that.
fn ladder(noise: f64, seed: u64) -> String {
    let mut random = Noise::new(seed);
    let mut text = "run,N,D,loss,accuracy\n".to_string();
    for n in [1e8, 1.9e8, 3.7e8, 7.6e8, 1.3e9, 3.2e9] {
        for ratio in [10.0, 20.0, 40.0, 100.0, 200.0] {
            let d = n * ratio;
            let loss = LAW.loss(n, d) * (noise * random.next()).exp();
            let accuracy = (TASK.accuracy(loss) + 10.0 * noise * random.next()).clamp(0.0, 1.0);
            let _ = writeln!(text, "{n:e}-{ratio},{n},{d},{loss},{accuracy}");
        }
    }
    text
}

fn read(table: &str) -> Input {
    read_bytes("ladder.csv", table.as_bytes(), &ReadOptions::default()).expect("a table")
}

fn options() -> FitOptions {
    FitOptions { approaches: vec![3], bootstrap: 200, ..Default::default() }
}

fn fitted(table: &str, options: &FitOptions) -> Downstream {
    let document = fit_input(&read(table), options).expect("a fit");
    document.downstream.into_iter().next().unwrap_or_else(|| panic!("{:#?}", document.warnings))
}

#[test]
fn exact_runs_give_back_both_steps() {
    let chance = DownstreamOptions { chance: [(String::new(), 0.25)].into(), ..Default::default() };
    for (objective, downstream) in [
        (Objective::HuberLog, DownstreamOptions::default()),
        (Objective::MseLog, DownstreamOptions::default()),
        (Objective::HuberLog, chance),
    ] {
        let options = FitOptions { objective, downstream, bootstrap: 0, ..options() };
        let found = fitted(&ladder(0.0, 0), &options);
        assert_eq!((found.status, found.n, found.without_accuracy), (FitStatus::Converged, 30, 0));
        for (value, wanted) in [
            (found.sigmoid.floor, TASK.floor),
            (found.sigmoid.ceiling, TASK.ceiling),
            (found.sigmoid.k, TASK.k),
            (found.sigmoid.midpoint, TASK.midpoint),
        ] {
            assert!((value / wanted - 1.0).abs() < 1e-4, "{:?}", found.sigmoid);
        }
        let (n, d) = (7e9, 4e12);
        let truth = TASK.accuracy(LAW.loss(n, d));
        assert!((found.accuracy_at(n, d).expect("a law of N and D").value - truth).abs() < 1e-5);
        assert!(found.residual < 1e-6);
    }
}

#[test]
fn intervals_of_chained_predictions_hold_the_truth_about_as_often_as_they_say() {
    let (n, d) = (7e9, 4e12);
    let truth = TASK.accuracy(LAW.loss(n, d));
    let (mut hits, mut floors, draws) = (0, 0, 60);
    for seed in 0..draws {
        let found = fitted(&ladder(0.001, 1000 + seed), &FitOptions { seed, ..options() });
        let [low, high] = found.accuracy_at(n, d).and_then(|a| a.interval).expect("an interval");
        assert!(low < high && (0.0..=1.0).contains(&low) && high <= 1.0);
        hits += u32::from(low <= truth && truth <= high);
        let [low, high] = found.intervals["floor"];
        floors += u32::from(low <= TASK.floor && TASK.floor <= high);
    }
    // 90 % intervals: below 44 of 60 is one in ten thousand, were they right.
    assert!(hits >= 44 && floors >= 44, "{hits} and {floors} of {draws}");
}

#[test]
fn both_steps_share_their_resamples_and_threads_change_nothing() {
    let table = ladder(0.002, 5);
    let on = |threads: usize| {
        let pool = rayon_pool(threads);
        pool.install(|| {
            serde_json::to_string(&fit_input(&read(&table), &options()).expect("a fit")).expect("JSON")
        })
    };
    assert_eq!(on(1), on(3));
    // The first step is approach 3's, to the bit, and so is the interval of what it says.
    let document = fit_input(&read(&table), &FitOptions { targets: vec![1e23], ..options() }).expect("a fit");
    let (fit, task) = (&document.fits[0].fit, &document.downstream[0]);
    assert_eq!(fit.params, task.loss_law);
    let of_fit = fit.optimum.iter().find(|o| o.flops == 1e23).expect("the target");
    let of_task = task.optimum.iter().find(|o| o.flops == 1e23).expect("the target");
    assert_eq!(of_fit.loss.map(|l| l.interval), Some(of_task.loss.interval));
}

fn rayon_pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
}

/// Two tasks side by side, one of them in the table of targets.
fn wide() -> (String, String) {
    let mut random = Noise::new(3);
    let mut text = "run,N,D,hs_bpb,hs_acc,arc_bpb,arc_acc\n".to_string();
    let hard = Sigmoid { floor: 0.2, midpoint: 0.8, ..TASK };
    for n in [1e8, 1.9e8, 3.7e8, 7.6e8, 1.3e9, 3.2e9] {
        for ratio in [10.0, 20.0, 40.0, 100.0, 200.0] {
            let loss = LAW.loss(n, n * ratio) * (1e-3 * random.next()).exp();
            let [easy, hard] = [TASK, hard].map(|s| s.accuracy(loss) + 5e-3 * random.next());
            let gap = if ratio == 10.0 { String::new() } else { hard.to_string() };
            let _ = writeln!(text, "{n:e}-{ratio},{n},{},{loss},{easy},{},{gap}", n * ratio, 1.1 * loss);
        }
    }
    let truth = LAW.loss(7e9, 4e12);
    (text, format!("run,N,D,hs_bpb,hs_acc,loss\ntarget,7B,4T,{truth},{},99\n", TASK.accuracy(truth)))
}

#[test]
fn tasks_side_by_side_are_groups_with_targets_of_their_own() {
    let (table, targets) = wide();
    let tasks = ["hs=hs_bpb:hs_acc", "arc=arc_bpb:arc_acc:0.2"].map(|t| Task::parse(t).expect("a task"));
    let reading = ReadOptions { tasks: tasks.into(), ..Default::default() };
    let input = read_bytes("wide.csv", table.as_bytes(), &reading).expect("a table");
    assert_eq!((input.runs.len(), input.groups.len(), input.accuracies.len()), (60, 60, 60));
    assert_eq!(input.source.columns["loss of arc"], "arc_bpb");
    let chance = DownstreamOptions { chance: [("arc".to_string(), 0.2)].into(), ..Default::default() };
    let mut document = fit_input(&input, &FitOptions { downstream: chance, ..options() }).expect("a fit");
    let names: Vec<_> = document.downstream.iter().filter_map(|d| d.group.as_deref()).collect();
    assert_eq!(names, ["hs", "arc"]);
    let arc = &document.downstream[1];
    assert_eq!((arc.sigmoid.floor, arc.n, arc.without_accuracy), (0.2, 24, 6));
    assert!((arc.sigmoid.midpoint / 1.1 - 0.8).abs() < 0.03, "{:?}", arc.sigmoid);
    assert!(!arc.intervals.contains_key("floor") && arc.fixed == ["floor"]);

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("targets.csv");
    std::fs::write(&path, targets).expect("written");
    let targets = read_targets(&path, &reading, false).expect("targets");
    predict(&mut document, &input.runs, &input.groups, &targets);
    let predictions = document.predictions.as_ref().expect("predictions");
    assert_eq!(predictions.rows.len(), 2);
    let [hs, arc] = &predictions.rows[..] else { panic!("two rows") };
    let accuracy = hs.accuracy.as_ref().expect("an accuracy");
    assert!(accuracy.error.is_some_and(|e| e.abs() < 0.03), "{accuracy:?}");
    assert!(accuracy.baseline.is_some_and(|b| b < accuracy.predicted.value - 0.02), "{accuracy:?}");
    assert!(hs.error.is_some_and(|e| e.abs() < 0.01), "{hs:?}");
    // The table's `loss` is not this task's.
    assert_eq!((arc.measured, arc.accuracy.as_ref().and_then(|a| a.measured)), (None, None));
    assert_eq!(predictions.accuracies.map(|a| a.measured), Some(1));
    let csv = predictions.csv();
    assert!(
        csv.lines()
            .next()
            .is_some_and(|l| l.ends_with(",measured_accuracy,accuracy_error,accuracy_baseline"))
    );
    let columns: Vec<usize> = csv.lines().map(|l| l.split(',').count()).collect();
    assert_eq!(columns, [19, 19, 19]);
}

#[test]
fn a_document_reads_back_and_one_without_accuracies_has_no_word_of_them() {
    let document = fit_input(&read(&ladder(0.001, 2)), &options()).expect("a fit");
    let text = serde_json::to_string(&document).expect("JSON");
    let again: FitDocument = serde_json::from_str(&text).expect("a document");
    let (one, two) = (&document.downstream[0], &again.downstream[0]);
    assert_eq!((&one.curve, &one.optimum, &one.intervals), (&two.curve, &two.optimum, &two.intervals));
    assert!(two.curve.len() > 20 && two.curve.iter().all(|p| p.accuracy.interval.is_some()));
    let table = ladder(0.001, 2);
    let plain = table.lines().map(|l| l.rsplit_once(',').expect("a comma").0.to_string() + "\n");
    let document = fit_input(&read(&plain.collect::<String>()), &options()).expect("a fit");
    let text = serde_json::to_string(&document).expect("JSON");
    assert!(!text.contains("downstream") && !text.contains("accurac"), "{text}");
}

#[test]
fn columns_of_accuracies_are_read_by_name_by_map_and_in_percent() {
    let table = ladder(0.0, 0);
    let percent = |heading: &str, mark: &str| {
        let mut lines = table.lines();
        lines.next();
        let row = |l: &str| {
            let (rest, share) = l.rsplit_once(',').expect("a comma");
            format!("{rest},{}{mark}\n", 100.0 * share.parse::<f64>().expect("a share"))
        };
        format!("run,N,D,loss,{heading}\n") + &lines.map(row).collect::<String>()
    };
    let shares = read(&table).accuracies;
    let same = |input: Input| {
        assert_eq!(input.accuracies.len(), shares.len());
        for (p, q) in input.accuracies.iter().zip(&shares) {
            let (p, q) = (p.expect("a share"), q.expect("a share"));
            assert!((p - q).abs() < 1e-12, "{p} {q}");
        }
    };
    same(read(&percent("accuracy (%)", "")));
    same(read(&percent("accuracy", "%")));
    let map = ColumnMap::parse(["accuracy=acc_norm"]).expect("a map");
    let reading = ReadOptions { map, percent: true, ..Default::default() };
    same(read_bytes("p.csv", percent("acc_norm", "").as_bytes(), &reading).expect("a table"));
    let none = ReadOptions { map: ColumnMap::parse(["accuracy=none"]).expect("a map"), ..Default::default() };
    assert!(read_bytes("p.csv", table.as_bytes(), &none).expect("a table").accuracies.is_empty());
}

#[test]
fn what_is_no_accuracy_is_refused_with_line_and_remedy() {
    let table = |cell: &str| ladder(0.0, 0) + &format!("odd,1e9,1e10,0.9,{cell}\n");
    let refused = |text: &str, options: &ReadOptions| {
        let error = read_bytes("t.csv", text.as_bytes(), options).expect_err("refused");
        let help = miette::Diagnostic::help(&error).map(|h| h.to_string()).unwrap_or_default();
        format!("{error} / {help}")
    };
    let plain = ReadOptions::default();
    for (cell, words) in [
        (
            "43.2",
            "t.csv: line 32, column `accuracy`: found `43.2`, expected an accuracy from 0 to 1 / if these are percent",
        ),
        ("-0.1", "found `-0.1`, expected an accuracy from 0 to 1"),
        ("1e9", "--map accuracy=none"),
        ("120%", "percent are from 0 to 100"),
        ("good", "found `good`, expected an accuracy from 0 to 1"),
    ] {
        let found = refused(&table(cell), &plain);
        assert!(found.contains(words), "{cell}: {found}");
    }
    for cell in ["", "NaN", "n/a", "inf"] {
        let input = read_bytes("t.csv", table(cell).as_bytes(), &plain).expect("a gap is no error");
        assert_eq!((input.runs.len(), input.accuracies.last()), (31, Some(&None)), "{cell}");
        assert_eq!(fit_input(&input, &options()).expect("a fit").downstream[0].without_accuracy, 1);
    }
    let shares = table("0.5").replace(",0.", ",0.00");
    let found = refused(&shares, &ReadOptions { percent: true, ..Default::default() });
    assert!(found.contains("was read as percent, but its largest value is 0.00"), "{found}");
    for bad in ["hs", "hs=a", "=a:b", "hs=a:b:1.5", "hs=a:b:c", "hs=:b", "hs=a:b:0.1:0.2"] {
        let error = Task::parse(bad).expect_err(bad).to_string();
        assert!(error.contains(bad) && error.contains("NAME=LOSS:ACCURACY"), "{error}");
    }
    let task = Task::parse("t=loss:accuracy").expect("a task");
    let twice = ReadOptions { tasks: vec![task.clone(), task.clone()], ..Default::default() };
    assert!(refused(&table("0.5"), &twice).contains("found `t twice`"));
    for role in ["loss", "accuracy", "group"] {
        let map = ColumnMap::parse([format!("{role}=N").as_str()]).expect("a map");
        let both = ReadOptions { tasks: vec![task.clone()], map, ..Default::default() };
        let found = refused(&table("0.5"), &both);
        assert!(found.contains(&format!("leave out --map {role}=..")), "{found}");
    }
    for (downstream, words) in [
        (DownstreamOptions { ceiling: Some(1.5), ..Default::default() }, "fit option `ceiling` is 1.5"),
        (
            DownstreamOptions { chance: [("x".into(), 1.0)].into(), ..Default::default() },
            "`chance` is 1 for `x`",
        ),
        (DownstreamOptions { delta: Some(-1.0), ..Default::default() }, "`accuracy-delta` is -1"),
    ] {
        let error =
            fit_input(&read(&table("0.5")), &FitOptions { downstream, ..options() }).expect_err("refused");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn the_report_has_accuracy_against_loss_and_compute_with_the_numbers_of_the_fit() {
    let document = fit_input(&read(&ladder(0.002, 9)), &options()).expect("a fit");
    let task = document.downstream[0].clone();
    let study = ReportInput {
        source: ReportSource::Table,
        title: "ladder".into(),
        runs: read(&ladder(0.002, 9)).runs,
        downstream: Some(task.clone()),
        ..Default::default()
    };
    let files = figures(&study, &[FigureFormat::Svg]).expect("figures");
    let text = |name: &str| {
        let file = files.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no {name}"));
        String::from_utf8(file.bytes.clone()).expect("UTF-8")
    };
    let csv = text("accuracy.csv");
    let rows: Vec<Vec<&str>> = csv.lines().map(|l| l.split(',').collect()).collect();
    let of = |what: &str| rows.iter().filter(|r| r[0] == what).cloned().collect::<Vec<_>>();
    assert_eq!((of("run").len(), of("sigmoid").len()), (30, task.curve.len()));
    assert_eq!(of("both steps").len(), task.optimum.len());
    let number = |cell: &str| cell.parse::<f64>().unwrap_or_else(|_| panic!("{cell}"));
    for row in of("sigmoid") {
        assert!((task.sigmoid.accuracy(number(row[5])) - number(row[6])).abs() < 1e-12);
        assert!(number(row[7]) <= number(row[6]) && number(row[6]) <= number(row[8]), "{row:?}");
    }
    for name in ["accuracy-loss.svg", "accuracy-compute.svg"] {
        assert!(text(name).matches("<circle").count() >= 30, "{name}");
        assert!(!text(name).contains("NaN"), "{name}");
    }
    let page = render(&study).expect("a page");
    assert!(page.contains("id=\"accuracy\"") && page.contains("Accuracy in two steps"));
    let none = ReportInput { downstream: None, ..study };
    assert!(
        render(&none).expect("a page").contains("<b>Accuracy in two steps</b>: no accuracies were fitted")
    );
}
