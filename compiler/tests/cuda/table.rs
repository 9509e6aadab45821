//! What the hand-written CUDA kernels take of a GPU, for each size of the Gopher family: tests/golden/cuda_kernels.csv. A
//! register more that costs a block, a spill, or an access that is no longer 16 bytes wide shows here.
//!
//! `BLESS=1 cargo test --release -p isoflop-compiler --test cuda table` writes what was found.

use isoflop_kernels::cuda::table::{self, Model, Row};
use std::path::{Path, PathBuf};

/// Rae et al. 2021, Table 1: name, heads, d_head, d_model.
const GOPHER: [(&str, usize, usize, usize); 6] = [
    ("44M", 16, 32, 512),
    ("117M", 12, 64, 768),
    ("417M", 12, 128, 1_536),
    ("1.4B", 16, 128, 2_048),
    ("7.1B", 32, 128, 4_096),
    ("280B", 128, 128, 16_384),
];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn models() -> Vec<Model> {
    let model = |(name, heads, d_head, d_model): (&str, usize, usize, usize)| Model {
        name: name.into(),
        heads,
        d_head,
        d_model,
        seq_len: 2_048,
        vocab_size: 32_000,
    };
    GOPHER.into_iter().map(model).collect()
}

/// The cells of a kernel in the table of docs/cuda.md.
fn on_the_page(row: &Row, d_head: usize) -> String {
    let Row { kernel, registers, shared_bytes, blocks_per_multiprocessor, accesses, .. } = row;
    let (wide, narrow) = (accesses.wide, accesses.narrow);
    format!(
        "| `{kernel}` | {d_head} | {registers} | {shared_bytes} | {blocks_per_multiprocessor} | {wide} | {narrow} |"
    )
}

#[test]
fn kernels_take_of_a_gpu_what_the_table_says() {
    let rows = table::rows(&models()).expect("the compilers that scripts/setup.sh fetches");
    let page = std::fs::read_to_string(root("docs/cuda.md")).expect("a page");
    let mut missing = vec![];
    for row in &rows {
        assert_eq!((row.spill_bytes, row.accesses.local), (0, 0), "{row:?}");
        assert!(row.blocks_per_multiprocessor >= 1, "{row:?}");
        let tiled = row.kernel.contains("_v1_");
        assert_eq!(row.accesses.products > 0, tiled, "{row:?}");
        let d_head = GOPHER.iter().find(|m| m.0 == row.model).map_or(0, |m| m.2);
        if tiled && row.arch.name() == "sm_90a" {
            missing.extend(Some(on_the_page(row, d_head)).filter(|line| !page.contains(line)));
        }
    }
    let found: String = rows.iter().map(|row| row.csv() + "\n").collect();
    let found = format!("{}\n{found}", table::COLUMNS);
    let golden = root("tests/golden/cuda_kernels.csv");
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        std::fs::write(golden, found).expect("written");
    } else {
        let expected = std::fs::read_to_string(golden).expect("a table; BLESS=1 writes it");
        let differ: Vec<_> = expected.lines().zip(found.lines()).filter(|(e, f)| e != f).take(20).collect();
        let counts = (expected.lines().count(), found.lines().count());
        assert!(expected == found, "lines (expected, found): {counts:?}; first that differ: {differ:#?}");
    }
    assert!(missing.is_empty(), "docs/cuda.md lacks\n{}", missing.join("\n"));
}
