//! What fusion makes of every model of the family, as a table: tests/golden/fusions.csv. A pass that silently stops
//! matching shows here.
//!
//! `BLESS=1 cargo test --release --test fusions` writes what was found; `git diff tests/golden` is what a reviewer reads.
#![cfg(feature = "study")]

use isoflop_compiler::compare::Totals;
use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::plan_program;
use isoflop_compiler::lower::Lowered;
use isoflop_sweeps::{compile, file, plan};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const BLESS: &str = "BLESS=1 cargo test --release --test fusions";
/// Columns that say which program a row is about; the others are counts.
const KEYS: [&str; 4] = ["model", "batch", "target", "program"];

/// Names and values of a row, in the order of the columns.
type Row = Vec<(String, String)>;

struct Model {
    name: String,
    config: ModelConfig,
    step: StepConfig,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn golden() -> PathBuf {
    root().join("tests/golden/fusions.csv")
}

/// The different steps of the two example sweeps, and the configurations of `benches/step.rs`.
fn models() -> Vec<Model> {
    let mut found = Vec::new();
    for sweep in ["nano", "gopher"] {
        let path = root().join(format!("sweeps/examples/{sweep}.toml"));
        let plan = plan::plan(&file::read(&path).expect("a sweep")).expect("a plan");
        for run in compile::steps(&plan.runs).distinct {
            let name = format!("{sweep}-{}", run.size);
            found.push(Model { name, config: run.model.clone(), step: run.step() });
        }
    }
    // Layers, heads, d_head, d_model, vocabulary, sequence, batch.
    for (name, [n_layers, n_heads, d_head, d_model, vocab_size, seq_len, batch]) in [
        ("bench-nano-a", [4, 4, 16, 64, 256, 128, 16]),
        ("bench-nano-b", [4, 4, 32, 128, 256, 128, 16]),
        ("bench-nano-c", [6, 8, 32, 256, 256, 256, 8]),
        ("bench-44m", [8, 16, 32, 512, 32_000, 512, 2]),
    ] {
        let config = ModelConfig::gopher(n_layers, n_heads, d_head, d_model, vocab_size, seq_len);
        let step = StepConfig::new(batch);
        found.push(Model { name: name.to_owned(), config, step });
    }
    found
}

/// One program as a row.
fn row(model: &Model, lowered: &Lowered) -> Row {
    let name = lowered.program.name.clone();
    let keys = [model.name.clone(), model.step.batch.to_string(), "cpu".to_owned(), name];
    let keys = KEYS.into_iter().map(str::to_owned).zip(keys);
    let counts = Totals::of(lowered).columns();
    keys.chain(counts.map(|(name, count)| (name.to_owned(), count.to_string()))).collect()
}

/// The rows of all models, planned on two threads; the largest models are in the middle of the list.
fn rows() -> Vec<Row> {
    let models = models();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(model) = models.get(i) else { return found };
            let plan = plan_program(&model.config, &model.step).expect(&model.name);
            found.push((i, [row(model, &plan.train), row(model, &plan.eval)]));
        }
    };
    let mut found = std::thread::scope(|s| {
        let threads = [s.spawn(work), s.spawn(work)];
        threads.map(|t| t.join().expect("a thread that plans")).concat()
    });
    found.sort_by_key(|(i, _)| *i);
    found.into_iter().flat_map(|(_, rows)| rows).collect()
}

fn write(path: &Path, rows: &[Row]) {
    let mut table = csv::Writer::from_path(path).expect("a file to write");
    table.write_record(rows[0].iter().map(|(name, _)| name)).expect("written");
    for row in rows {
        table.write_record(row.iter().map(|(_, value)| value)).expect("written");
    }
    table.flush().expect("written");
}

fn read(path: &Path) -> Vec<Row> {
    let mut table =
        csv::Reader::from_path(path).unwrap_or_else(|e| panic!("{}: {e}; {BLESS}", path.display()));
    let names: Vec<String> = table.headers().expect("a header").iter().map(str::to_owned).collect();
    let row = |r: csv::StringRecord| names.iter().cloned().zip(r.iter().map(str::to_owned)).collect();
    table.records().map(|r| row(r.expect("a row"))).collect()
}

/// Each difference as model, program, column, expected and found.
fn differences(expected: &[Row], found: &[Row]) -> Vec<String> {
    let key = |row: &Row| row.iter().take(KEYS.len()).map(|(_, v)| v.as_str()).collect::<Vec<_>>().join(" ");
    let value = |row: &Row, name: &str| row.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let mut out = Vec::new();
    for row in expected.iter().filter(|e| found.iter().all(|f| key(f) != key(e))) {
        out.push(format!("{}: in the table, but no longer planned", key(row)));
    }
    for row in found {
        let Some(before) = expected.iter().find(|e| key(e) == key(row)) else {
            out.push(format!("{}: planned, but not in the table", key(row)));
            continue;
        };
        let mut columns: Vec<&String> = before.iter().map(|(n, _)| n).collect();
        columns.extend(row.iter().map(|(n, _)| n).filter(|n| value(before, n).is_none()));
        for column in columns {
            let [e, f] = [before, row].map(|r| value(r, column).unwrap_or_else(|| "no column".to_owned()));
            if e != f {
                out.push(format!("{}: {column}: expected {e}, found {f}", key(row)));
            }
        }
    }
    out
}

#[test]
fn every_model_is_fused_as_the_table_says() {
    let found = rows();
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        write(&golden(), &found);
    }
    let differences = differences(&read(&golden()), &found);
    assert!(
        differences.is_empty(),
        "{}\n{} differences from tests/golden/fusions.csv (model batch target program: column). If they are \
         meant, run {BLESS} and read `git diff tests/golden`",
        differences.join("\n"),
        differences.len()
    );
    let train = found.iter().filter(|r| r[3].1 == "train").count();
    assert_eq!(
        (found.len(), train),
        (48, 24),
        "14 nano steps, 6 Gopher sizes and 4 benches, two programs each"
    );
}

#[test]
fn a_difference_names_program_column_and_values() {
    let row = |values: [&str; 6]| -> Row {
        let names = ["model", "batch", "target", "program", "launches", "gemm"];
        names.iter().zip(values).map(|(n, v)| ((*n).to_owned(), v.to_owned())).collect()
    };
    let [first, other] = ["7", "8"].map(|launches| [row(["44M", "2", "cpu", "train", launches, "3"])]);
    assert_eq!(differences(&first, &first), Vec::<String>::new());
    assert_eq!(differences(&first, &other), ["44M 2 cpu train: launches: expected 7, found 8"]);
    let mut wider = first.clone();
    wider[0].push(("copy".to_owned(), "1".to_owned()));
    assert_eq!(differences(&first, &wider), ["44M 2 cpu train: copy: expected no column, found 1"]);
    let eval = [row(["44M", "2", "cpu", "eval", "7", "3"])];
    assert_eq!(
        differences(&first, &eval),
        [
            "44M 2 cpu train: in the table, but no longer planned",
            "44M 2 cpu eval: planned, but not in the table"
        ]
    );
}
