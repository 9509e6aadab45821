//! A real model small enough for tests: a bigram table with Adam, its programs written by hand, its kernels compiled
//! from `kernels.c` by the system's C compiler.

use isoflop_kernels::DType;
use isoflop_kernels::artifact::{Artifact, Target};
use isoflop_kernels::program::{Buffer, Call, GeneratedKernel, Init, Launch, Program, Space};
use isoflop_runtime::config::{DataConfig, Decay, RunConfig, Schedule};
use isoflop_runtime::data::shard::ShardWriter;
use isoflop_runtime::rundir::RunDir;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const VOCAB: usize = 64;
pub const BATCH: usize = 4;
pub const SEQ_LEN: usize = 16;
const TOKENS: usize = BATCH * SEQ_LEN;

/// Writes artifact and data into `root` and a run `root/runs/<id>` that uses them.
pub fn run_dir(root: &Path, config: RunConfig) -> RunDir {
    let run = RunDir::new(root.join("runs").join(&config.id));
    fs::create_dir_all(run.root()).unwrap();
    fs::write(run.config(), toml::to_string(&config).unwrap()).unwrap();
    run
}

pub fn config(root: &Path, id: &str, steps: u64) -> RunConfig {
    RunConfig {
        id: id.into(),
        artifact: artifact(root),
        seed: 11,
        steps,
        batch: BATCH,
        seq_len: SEQ_LEN,
        vocab_size: VOCAB,
        schedule: Schedule { lr: 0.02, warmup_steps: 20, decay: Decay::Cosine, final_fraction: 0.1 },
        betas: [0.9, 0.95],
        data: DataConfig {
            train: vec![data(root, "train", 200_000)],
            validation: vec![data(root, "validation", 2_000)],
            validation_sequences: 10,
            fingerprint: None,
        },
        validate_every: 70,
        checkpoint_every: 30,
        keep_checkpoints: 2,
        flops_per_token: 1.1e4,
        flops_convention: "6nd".into(),
        peak_flops: Some(1e11),
        threads: 2,
        diverged_above: 50.0,
        tensorboard: false,
    }
}

/// Tokens of a chain in which each token has four likely successors: about ln 4 nats per token can be learnt.
fn data(root: &Path, kind: &str, count: usize) -> PathBuf {
    let path = root.join(format!("{kind}.tok"));
    if !path.exists() {
        let mut state = kind.len() as u64;
        let mut token = 0u32;
        let tokens: Vec<u32> = (0..count)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                token = (token * 5 + 7 * (state >> 62) as u32 + 1) % VOCAB as u32;
                token
            })
            .collect();
        let mut writer = ShardWriter::create(&path, VOCAB).unwrap();
        writer.push(&tokens).unwrap();
        writer.finish().unwrap();
    }
    path
}

fn artifact(root: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tiny/kernels.c");
    let object = root.join("kernels.so");
    let compiled = Command::new("cc")
        .args(["-O2", "-fno-math-errno", "-shared", "-fPIC", "-o"])
        .args([&object, &source])
        .arg("-lm")
        .status()
        .expect("the tests need a C compiler named cc");
    assert!(compiled.success());
    let target =
        Target { triple: "x86_64-unknown-linux-gnu".into(), cpu: "x86-64".into(), features: String::new() };
    let model = serde_json::json!({"kind": "bigram", "vocab_size": VOCAB});
    let code = fs::read(&object).unwrap();
    Artifact::write(&root.join("artifacts"), &[train_program(), eval_program()], Some(&code), &model, &target)
        .unwrap()
        .dir
}

fn buffer(
    name: &str,
    dtype: DType,
    shape: &[usize],
    space: Space,
    offset: u64,
    init: Option<Init>,
) -> Buffer {
    Buffer { name: name.into(), dtype, shape: shape.into(), space, offset, init }
}

fn launch(call: Call, args: &[u32], wave: u32, label: &str) -> Launch {
    Launch { call, args: args.into(), wave, label: label.into(), flops: 0, bytes: 0 }
}

fn kernel(symbol: &str, n_args: u32, rows: u64, rows_per_task: u64) -> GeneratedKernel {
    GeneratedKernel { symbol: symbol.into(), n_args, rows, rows_per_task, operations: 0, cuda: None }
}

fn train_program() -> Program {
    let (f32, i32) = (DType::F32, DType::I32);
    let table = [VOCAB, VOCAB];
    let state = |name: &str, init| buffer(name, f32, &table, Space::State, 0, Some(init));
    let input = |name: &str| buffer(name, f32, &[], Space::Input, 0, None);
    let rows_bytes = (TOKENS * VOCAB * 4) as u64;
    Program {
        name: "train".into(),
        buffers: vec![
            buffer("tokens", i32, &[BATCH, SEQ_LEN], Space::Input, 0, None),
            buffer("targets", i32, &[BATCH, SEQ_LEN], Space::Input, 0, None),
            input("lr"),
            input("bias_correction1"),
            input("bias_correction2"),
            state("param.table", Init::Normal { std: 0.02 }),
            state("adam_m.table", Init::Zeros),
            state("adam_v.table", Init::Zeros),
            buffer("rows", f32, &[TOKENS, VOCAB], Space::Arena, 0, None),
            buffer("gradient", f32, &table, Space::Arena, rows_bytes, None),
            buffer("loss", f32, &[], Space::Output, 0, None),
            buffer("grad_norm", f32, &[], Space::Output, 0, None),
        ],
        arena_bytes: rows_bytes + (VOCAB * VOCAB * 4) as u64,
        arena_lower_bound: rows_bytes + (VOCAB * VOCAB * 4) as u64,
        kernels: vec![
            kernel("loss_and_gradient", 3, 1, 1),
            kernel("norm", 2, 1, 1),
            kernel("adam", 7, VOCAB as u64, 10),
        ],
        chains: vec![],
        launches: vec![
            launch(Call::Gather { rows: TOKENS, width: VOCAB, vocab: VOCAB }, &[5, 0, 8], 0, "logits"),
            launch(Call::Generated { kernel: 0 }, &[8, 1, 10], 1, "loss"),
            launch(
                Call::ScatterAdd { rows: TOKENS, width: VOCAB, vocab: VOCAB, accumulate: false },
                &[0, 8, 9],
                2,
                "gradient",
            ),
            launch(Call::Generated { kernel: 1 }, &[9, 11], 3, "grad_norm"),
            launch(Call::Generated { kernel: 2 }, &[5, 6, 7, 9, 2, 3, 4], 4, "adam"),
        ],
    }
}

fn eval_program() -> Program {
    let arena_bytes = (TOKENS * VOCAB * 4) as u64;
    Program {
        name: "eval".into(),
        buffers: vec![
            buffer("tokens", DType::I32, &[BATCH, SEQ_LEN], Space::Input, 0, None),
            buffer("targets", DType::I32, &[BATCH, SEQ_LEN], Space::Input, 0, None),
            buffer(
                "param.table",
                DType::F32,
                &[VOCAB, VOCAB],
                Space::State,
                0,
                Some(Init::Normal { std: 0.02 }),
            ),
            buffer("rows", DType::F32, &[TOKENS, VOCAB], Space::Arena, 0, None),
            buffer("loss", DType::F32, &[], Space::Output, 0, None),
        ],
        arena_bytes,
        arena_lower_bound: arena_bytes,
        kernels: vec![kernel("loss_only", 3, 1, 1)],
        chains: vec![],
        launches: vec![
            launch(Call::Gather { rows: TOKENS, width: VOCAB, vocab: VOCAB }, &[2, 0, 3], 0, "logits"),
            launch(Call::Generated { kernel: 0 }, &[3, 1, 4], 1, "loss"),
        ],
    }
}
