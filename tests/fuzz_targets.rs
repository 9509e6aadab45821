//! The bodies of the fuzz targets over damaged files: bytes changed, cut out, repeated, and files put together of two.
//!
//! `FUZZ_SEEDS=fuzz/corpus cargo test --release --test fuzz_targets` also writes the whole files there, for libFuzzer to
//! begin with.
#![cfg(feature = "study")]

#[path = "../fuzz/targets.rs"]
mod targets;

use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::plan_program;
use isoflop_kernels::artifact::{Artifact, Target};
use isoflop_kernels::program::{Call, Program};
use isoflop_runtime::data::shard::ShardHeader;
use isoflop_runtime::data::{TokenFile, TokenWidth};
use isoflop_runtime::exec::Executor;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::path::{Path, PathBuf};

/// Files below a folder with this extension; there are some.
fn corpus(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    let mut open: Vec<PathBuf> = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut found = vec![];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no file .{extension} in {folder}");
    found.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

#[derive(Clone, Debug)]
enum Damage {
    Byte(Index, u8),
    Cut(Index, u8),
    Repeat(Index, u8),
    Splice(Index, Index),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let any_damage = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        // Digits and punctuation keep more files readable than any byte does.
        (any::<Index>(), prop::sample::select(b"0123456789[](){}=,.-%:\"\n".to_vec()))
            .prop_map(|(at, byte)| Damage::Byte(at, byte)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, n)| Damage::Cut(at, n)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, n)| Damage::Repeat(at, n)),
        (any::<Index>(), any::<Index>()).prop_map(|(file, at)| Damage::Splice(file, at)),
    ];
    prop::collection::vec(any_damage, 0..4)
}

fn damaged(corpus: &[Vec<u8>], file: Index, damages: &[Damage]) -> Vec<u8> {
    let mut bytes = file.get(corpus).clone();
    for damage in damages {
        if bytes.is_empty() {
            return bytes;
        }
        match damage {
            Damage::Byte(at, byte) => *at.get_mut(&mut bytes) = *byte,
            Damage::Cut(at, n) => {
                let from = at.index(bytes.len());
                bytes.drain(from..bytes.len().min(from + *n as usize));
            }
            Damage::Repeat(at, n) => {
                let from = at.index(bytes.len());
                let part = bytes[from..bytes.len().min(from + *n as usize)].to_vec();
                bytes.splice(from..from, part);
            }
            Damage::Splice(other, at) => {
                let other = other.get(corpus);
                bytes.truncate(at.index(bytes.len()));
                bytes.extend_from_slice(&other[bytes.len().min(other.len())..]);
            }
        }
    }
    bytes
}

/// Runs a target over the files, and over this many damaged ones; proptest shows the smallest one that fails.
fn fuzz(name: &str, corpus: &[Vec<u8>], cases: u32, target: fn(&[u8])) {
    if let Some(folder) = std::env::var_os("FUZZ_SEEDS") {
        let folder = Path::new(&folder).join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        for file in corpus {
            let path = folder.join(&blake3::hash(file).to_hex()[..16]);
            std::fs::write(path, file).expect("written");
        }
    }
    corpus.iter().for_each(|file| target(file));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&(any::<Index>(), damage()), |(file, damages)| {
        target(&damaged(corpus, file, &damages));
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn graph_text() {
    fuzz("graph_text", &corpus("tests/filetests", "graph"), 3000, targets::graph_text);
}

#[test]
fn sweep_file() {
    let mut files = corpus("sweeps/examples", "toml");
    files.extend(corpus("sweeps/tests", "toml"));
    fuzz("sweep_file", &files, 2000, targets::sweep_file);
}

/// The length of a manifest, a manifest, and programs.
fn artifact_file(programs: &[Program]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let target =
        Target { triple: "x86_64-unknown-linux-gnu".into(), cpu: "x86-64".into(), features: "".into() };
    let made = Artifact::write(folder.path(), programs, None, &serde_json::json!({ "a": 1 }), &target);
    let made = made.expect("an artifact");
    assert!(Executor::load(&made, 1).is_ok());
    let read = |name: &str| std::fs::read(made.dir.join(name)).expect("a file");
    let (manifest, programs) = (read("manifest.json"), read("programs.json"));
    [&(manifest.len() as u32).to_le_bytes()[..], &manifest, &programs].concat()
}

#[test]
fn artifact() {
    let model = ModelConfig::gopher(1, 2, 4, 8, 16, 8);
    let step = StepConfig::new(2);
    let plan = plan_program(&model, &step).expect("a plan");
    // Library calls only: without machine code there are no kernels to load.
    let programs = [plan.train.program, plan.eval.program].map(|mut p| {
        p.launches.retain(|l| !matches!(l.call, Call::Generated { .. } | Call::Grouped { .. }));
        p.kernels.clear();
        p.chains.clear();
        p
    });
    assert!(programs[0].launches.len() > 10);
    let each = programs[0].launches.iter().map(|launch| {
        let mut p = programs[0].clone();
        p.launches = vec![launch.clone()];
        artifact_file(&[p])
    });
    let files: Vec<Vec<u8>> =
        [artifact_file(&programs), artifact_file(&[])].into_iter().chain(each).collect();
    fuzz("artifact", &files, 2000, targets::artifact);
}

#[test]
fn shard() {
    let payload: Vec<u8> = (0..48).map(|k| k % 3).collect();
    let own = |width: TokenWidth| {
        let count = (payload.len() / width.bytes()) as u64;
        let header = ShardHeader { width, vocab_size: 70_000, count, blake3: blake3::hash(&payload) };
        [&header.to_bytes()[..], &payload].concat()
    };
    let mut files = [TokenWidth::U8, TokenWidth::U16, TokenWidth::U32].map(own).to_vec();
    assert!(files.iter().all(|f| ShardHeader::parse(f, f.len() as u64, Path::new("x")).is_ok()));
    for (magic, version, width) in [(20240520u32, 1u32, 2), (20240801, 7, 4)] {
        let mut file = [magic, version, payload.len() as u32 / width].map(u32::to_le_bytes).concat();
        file.resize(1024, 0);
        file.extend(&payload);
        files.push(file);
    }
    // Megatron's index of two sequences, whose tokens are as many bytes as itself.
    let mut index = b"MMIDIDX\0\0".to_vec();
    index.extend(1u64.to_le_bytes());
    index.push(1);
    index.extend([2u64, 1].map(u64::to_le_bytes).concat());
    index.extend([50u32, 16].map(u32::to_le_bytes).concat());
    index.extend([0u64, 50, 2].map(u64::to_le_bytes).concat());
    assert_eq!(index.len(), 66);
    files.push(index);
    let folder = tempfile::tempdir().expect("a folder");
    for file in &files {
        let [path, index] = ["x.bin", "x.idx"].map(|name| folder.path().join(name));
        for path in [&path, &index] {
            std::fs::write(path, file).expect("written");
        }
        let opened = TokenFile::open(&path).expect("a file of tokens");
        assert!(opened.count() >= 12);
    }
    fuzz("shard", &files, 2000, targets::shard);
}

#[test]
fn runs_table() {
    let mut files = corpus("sweeps/tests/tables", "csv");
    files.extend(corpus("sweeps/tests/tables", "jsonl"));
    files.extend(corpus("sweeps/tests/tables", "json"));
    fuzz("runs_table", &files, 2000, targets::runs_table);
}
