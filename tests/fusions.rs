//! What fusion makes of every model of the family, as a table: tests/golden/fusions.csv. A pass that silently stops
//! matching shows here.
//!
//! `BLESS=1 cargo test --release --test fusions` writes what was found; `git diff tests/golden` is what a reviewer reads.
#![cfg(feature = "study")]

use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::plan_program;
use isoflop_compiler::lower::Lowered;
use isoflop_compiler::lower::kernel::Kind;
use isoflop_kernels::program::Call;
use isoflop_sweeps::{compile, file, plan};
use std::collections::BTreeSet;
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

/// Launches by what they call. Every call has its column, or this does not compile.
#[derive(Default)]
struct Calls {
    rows: u64,
    flat: u64,
    moves: u64,
    finishes: u64,
    grouped: u64,
    gemm: u64,
    gemm_squares: u64,
    attention_forward: u64,
    attention_backward: u64,
    head_loss: u64,
    head_loss_grad: u64,
    gather: u64,
    scatter_add: u64,
    copy: u64,
}

impl Calls {
    fn of(lowered: &Lowered) -> Calls {
        let mut calls = Calls::default();
        for launch in &lowered.program.launches {
            match &launch.call {
                Call::Generated { kernel } => calls.kernel(lowered, *kernel),
                Call::Grouped { kernels } => {
                    calls.grouped += 1;
                    kernels.iter().for_each(|&k| calls.kernel(lowered, k));
                }
                Call::Gemm(_) => calls.gemm += 1,
                Call::GemmSquares(_) => calls.gemm_squares += 1,
                Call::RelAttentionForward(_) => calls.attention_forward += 1,
                Call::RelAttentionBackward(_) => calls.attention_backward += 1,
                Call::Head(head) if head.gradients => calls.head_loss_grad += 1,
                Call::Head(_) => calls.head_loss += 1,
                Call::Gather { .. } => calls.gather += 1,
                Call::ScatterAdd { .. } => calls.scatter_add += 1,
                Call::Copy { .. } => calls.copy += 1,
            }
        }
        calls
    }

    fn kernel(&mut self, lowered: &Lowered, kernel: u32) {
        match &lowered.kernels[kernel as usize].kind {
            Kind::Region(body) if body.split.is_some() => self.rows += 1,
            Kind::Region(_) => self.flat += 1,
            Kind::Move { .. } => self.moves += 1,
            Kind::Finish { .. } => self.finishes += 1,
        }
    }
}

/// One program as a row. Kernels are counted for each launch that runs them, those of grouped launches too; `kernels` is
/// how many differ. Bytes of launches count every argument once.
fn row(model: &Model, lowered: &Lowered) -> Row {
    let p = &lowered.program;
    let c = Calls::of(lowered);
    let waves: BTreeSet<u32> = p.launches.iter().map(|l| l.wave).collect();
    let symbols: BTreeSet<String> = lowered.kernels.iter().map(|k| k.symbol()).collect();
    let keys = [model.name.clone(), model.step.batch.to_string(), "cpu".to_owned(), p.name.clone()];
    let counts = [
        ("launches", p.launches.len() as u64),
        ("waves", waves.len() as u64),
        ("chains", p.chains.len() as u64),
        ("launches_in_chains", p.chains.iter().map(|c| u64::from(c.launches)).sum()),
        ("grouped_launches", c.grouped),
        ("rows_kernels", c.rows),
        ("flat_kernels", c.flat),
        ("moves", c.moves),
        ("finishes", c.finishes),
        ("kernels", symbols.len() as u64),
        ("gemm", c.gemm),
        ("gemm_squares", c.gemm_squares),
        ("attention_forward", c.attention_forward),
        ("attention_backward", c.attention_backward),
        ("head_loss", c.head_loss),
        ("head_loss_grad", c.head_loss_grad),
        ("gather", c.gather),
        ("scatter_add", c.scatter_add),
        ("copy", c.copy),
        ("flops", p.launches.iter().map(|l| l.flops).sum()),
        ("launch_bytes", p.launches.iter().map(|l| l.bytes).sum()),
        ("arena_bytes", p.arena_bytes),
        ("arena_lower_bound", p.arena_lower_bound),
        ("total_bytes", p.total_bytes()),
    ];
    let keys = KEYS.into_iter().map(str::to_owned).zip(keys);
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
