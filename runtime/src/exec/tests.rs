//! An executor on hand-built programs, with a shared object that the system's C compiler makes.

use super::*;
use isoflop_kernels::artifact::Target;
use isoflop_kernels::cpu::attention::{RelAttention, reference};
use isoflop_kernels::cpu::gemm::Gemm;
use isoflop_kernels::cpu::head::Head;
use isoflop_kernels::footprint::{Footprint, WORKER};
use isoflop_kernels::program::{ALIGN, Buffer, Chain, GeneratedKernel, Launch};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const KERNELS_C: &str = r#"
#include <stdint.h>
void scale(float *x, float *lr, float *y, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) y[i] = lr[0] * x[i];
}
void add(float *x, float *y, float *out, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) out[i] = x[i] + y[i];
}
void total(float *x, float *out, int64_t begin, int64_t end) {
    float sum = 0;
    for (int64_t i = 0; i < 96 * 40; i++) sum += x[i];
    for (int64_t row = begin; row < end; row++) out[row] = sum;
}
"#;

fn compile(source: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (c, so) = (dir.path().join("kernels.c"), dir.path().join("kernels.so"));
    std::fs::write(&c, source).unwrap();
    let status =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&so).arg(&c).status().unwrap();
    assert!(status.success());
    std::fs::read(so).unwrap()
}

fn here() -> Target {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    Target { triple, cpu: "generic".into(), features: String::new() }
}

fn write(parent: &Path, programs: &[Program], kernels: Option<&[u8]>, target: &Target) -> Artifact {
    Artifact::write(parent, programs, kernels, &serde_json::json!({}), target).unwrap()
}

/// A program under construction; arena buffers lie behind each other.
struct Builder(Program);

impl Builder {
    fn new(name: &str) -> Builder {
        Builder(Program {
            name: name.into(),
            buffers: vec![],
            arena_bytes: 0,
            arena_lower_bound: 0,
            kernels: vec![],
            launches: vec![],
            chains: vec![],
        })
    }

    fn buffer(&mut self, name: &str, dtype: DType, shape: &[usize], space: Space, init: Option<Init>) -> u32 {
        let mut buffer = Buffer { name: name.into(), dtype, shape: shape.to_vec(), space, offset: 0, init };
        if space == Space::Arena {
            buffer.offset = self.0.arena_bytes;
            self.0.arena_bytes += buffer.bytes().next_multiple_of(ALIGN);
        }
        self.0.buffers.push(buffer);
        self.0.buffers.len() as u32 - 1
    }

    fn f32(&mut self, name: &str, shape: &[usize], space: Space) -> u32 {
        self.buffer(name, DType::F32, shape, space, None)
    }

    fn kernel(&mut self, symbol: &str, n_args: u32, rows: u64, rows_per_task: u64) -> Call {
        self.0.kernels.push(GeneratedKernel {
            symbol: symbol.into(),
            n_args,
            rows,
            rows_per_task,
            operations: 0,
            cuda: None,
        });
        Call::Generated { kernel: self.0.kernels.len() as u32 - 1 }
    }

    fn launch(&mut self, wave: u32, call: Call, args: &[u32]) {
        let label = format!("launch {}", self.0.launches.len());
        self.0.launches.push(Launch { call, args: args.to_vec(), wave, label, flops: 0, bytes: 0 });
    }
}

const VOCAB: usize = 50;
const ROWS: usize = 96;
const WIDTH: usize = 40;

/// embedded = table[tokens]; y = embedded W; z = lr * embedded + y; loss = sum z; gradient of the table from z, and a
/// copy of z to look at. Waves 0 to 4.
fn small_program() -> Program {
    let mut p = Builder::new("train");
    let tokens = p.buffer("tokens", DType::I32, &[ROWS], Space::Input, None);
    let lr = p.f32("lr", &[], Space::Input);
    let normal = Some(Init::Normal { std: 0.5 });
    let table = p.buffer("param.table", DType::F32, &[VOCAB, WIDTH], Space::State, normal);
    let w = p.buffer("param.w", DType::F32, &[WIDTH, WIDTH], Space::State, normal);
    p.buffer("adam_m.w", DType::F32, &[WIDTH, WIDTH], Space::State, Some(Init::Zeros));
    p.buffer("param.gain", DType::F32, &[WIDTH], Space::State, Some(Init::Ones));
    p.buffer("rel_pos", DType::F32, &[8, WIDTH], Space::Table, Some(Init::RelativeSinusoid));
    let [embedded, y, scaled, z] =
        ["embedded", "y", "scaled", "z"].map(|n| p.f32(n, &[ROWS, WIDTH], Space::Arena));
    let loss = p.f32("loss", &[], Space::Output);
    let grad = p.f32("grad.table", &[VOCAB, WIDTH], Space::Output);
    let z_copy = p.f32("z_copy", &[ROWS, WIDTH], Space::Output);
    let product = Gemm {
        batch: 1,
        m: ROWS,
        n: WIDTH,
        k: WIDTH,
        a: [0, WIDTH, 1],
        b: [0, WIDTH, 1],
        c: [0, WIDTH, 1],
        accumulate: false,
    };
    let count = (ROWS * WIDTH) as u64;
    let (scale, add) = (p.kernel("scale", 3, count, 1000), p.kernel("add", 3, count, 333));
    let total = p.kernel("total", 2, 1, 1);
    p.launch(0, Call::Gather { rows: ROWS, width: WIDTH, vocab: VOCAB }, &[table, tokens, embedded]);
    p.launch(1, Call::Gemm(product), &[embedded, w, y]);
    p.launch(1, scale, &[embedded, lr, scaled]);
    p.launch(2, add, &[scaled, y, z]);
    p.launch(3, total, &[z, loss]);
    p.launch(
        3,
        Call::ScatterAdd { rows: ROWS, width: WIDTH, vocab: VOCAB, accumulate: false },
        &[tokens, z, grad],
    );
    p.launch(3, Call::Copy { bytes: count * 4 }, &[z, z_copy]);
    p.0
}

fn tokens() -> Vec<i32> {
    (0..ROWS).map(|i| ((i * i + 3 * i) % VOCAB) as i32).collect()
}

#[test]
fn waves_of_generated_and_library_kernels() {
    let parent = tempfile::tempdir().unwrap();
    let artifact = write(parent.path(), &[small_program()], Some(&compile(KERNELS_C)), &here());
    let planned = Footprint::of(&artifact.programs, WORKER).buffers();
    assert_eq!(Executor::load(&artifact, 1).unwrap().allocated_bytes(), planned);
    let mut results = Vec::new();
    for threads in [1, 2, 3] {
        let mut executor = Executor::load(&artifact, threads).unwrap();
        executor.init_state(7).unwrap();
        executor.set_input_i32("tokens", &tokens(), VOCAB).unwrap();
        executor.set_input_f32("lr", &[0.25]).unwrap();
        for _ in 0..20 {
            executor.poison();
            executor.run("train").unwrap();
        }
        let outputs: Vec<Vec<f32>> =
            executor.output_names().iter().map(|name| executor.read_f32(name).unwrap().to_vec()).collect();
        let (table, w) = (executor.state("param.table").unwrap(), executor.state("param.w").unwrap());
        let mut sum = 0.0;
        let mut grad = vec![0.0f64; VOCAB * WIDTH];
        for (i, token) in tokens().into_iter().enumerate() {
            let row = &table[token as usize * WIDTH..][..WIDTH];
            for j in 0..WIDTH {
                let y: f64 = (0..WIDTH).map(|k| row[k] as f64 * w[k * WIDTH + j] as f64).sum();
                let z = 0.25 * row[j] as f64 + y;
                assert!((outputs[2][i * WIDTH + j] as f64 - z).abs() < 1e-5);
                grad[token as usize * WIDTH + j] += z;
                sum += z;
            }
        }
        assert!((outputs[0][0] as f64 - sum).abs() < 1e-2, "{} and {sum}", outputs[0][0]);
        assert!(outputs[1].iter().zip(&grad).all(|(&got, want)| (got as f64 - want).abs() < 1e-4));
        results.push(outputs);
    }
    for other in &results[1..] {
        let same =
            other.iter().flatten().zip(results[0].iter().flatten()).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "the number of threads changed the result");
    }
}

#[test]
fn state_is_initialised_by_seed_and_kept_between_programs() {
    let parent = tempfile::tempdir().unwrap();
    let mut eval = small_program();
    eval.name = "eval".into();
    let artifact = write(parent.path(), &[small_program(), eval], Some(&compile(KERNELS_C)), &here());
    let mut executor = Executor::load(&artifact, 2).unwrap();
    assert_eq!(executor.state_names(), ["param.table", "param.w", "adam_m.w", "param.gain"]);
    executor.init_state(7).unwrap();
    let seven = executor.state("param.w").unwrap().to_vec();
    assert!(executor.state("param.gain").unwrap().iter().all(|&x| x == 1.0));
    assert!(executor.state("adam_m.w").unwrap().iter().all(|&x| x == 0.0));
    executor.init_state(8).unwrap();
    assert_ne!(executor.state("param.w").unwrap(), seven);
    executor.state_mut("param.w").unwrap().copy_from_slice(&seven);
    executor.set_input_i32("tokens", &tokens(), VOCAB).unwrap();
    executor.run("train").unwrap();
    let loss = executor.read_f32("loss").unwrap()[0];
    executor.run("eval").unwrap();
    assert_eq!(executor.read_f32("loss").unwrap(), [loss]);
    let names: Vec<String> = executor.profile("eval").unwrap().into_iter().map(|time| time.kind).collect();
    assert_eq!(
        names,
        ["gather", "gemm", "generated scale", "generated add", "generated total", "scatter-add", "copy"]
    );
    assert_eq!(executor.read_f32("loss").unwrap(), [loss]);
}

#[test]
fn relative_attention_in_a_program() {
    let dims = RelAttention { batch: 2, seq: 33, heads: 2, d_head: 8 };
    let RelAttention { batch, seq, heads, d_head } = dims;
    let mut p = Builder::new("attend");
    let qkv = p.f32("qkv", &[batch * seq, 3 * heads * d_head], Space::Input);
    let rel = p.f32("rel", &[seq, heads * d_head], Space::Input);
    let [u, v] = ["u", "v"].map(|n| p.f32(n, &[heads, d_head], Space::Input));
    let out = p.f32("out", &[batch * seq, heads * d_head], Space::Output);
    let lse = p.f32("lse", &[batch * heads, seq], Space::Output);
    let dout = p.f32("dout", &[batch * seq, heads * d_head], Space::Input);
    let dqkv = p.f32("dqkv", &[batch * seq, 3 * heads * d_head], Space::Output);
    let drel = p.f32("drel", &[seq, heads * d_head], Space::Output);
    let [du, dv] = ["du", "dv"].map(|n| p.f32(n, &[heads, d_head], Space::Output));
    let forward = p.f32("forward_workspace", &[dims.forward_workspace()], Space::Arena);
    let backward = p.f32("backward_workspace", &[dims.backward_workspace()], Space::Arena);
    p.launch(0, Call::RelAttentionForward(dims), &[qkv, rel, u, v, out, lse, forward]);
    p.launch(
        1,
        Call::RelAttentionBackward(dims),
        &[qkv, rel, u, v, out, lse, dout, dqkv, drel, du, dv, backward],
    );
    let program = p.0;

    let values = |buffer: &str, salt: usize| -> Vec<f32> {
        let count = program.buffer(buffer).unwrap().1.elements();
        (0..count).map(|i| ((i * 29 + salt) as f32 * 0.713).sin()).collect()
    };
    let named: Vec<(&str, Vec<f32>)> = ["qkv", "rel", "u", "v", "dout"]
        .iter()
        .enumerate()
        .map(|(salt, &name)| (name, values(name, salt)))
        .collect();
    let parent = tempfile::tempdir().unwrap();
    let artifact = write(parent.path(), std::slice::from_ref(&program), None, &here());
    let wide = |i: usize| named[i].1.iter().map(|&x| x as f64).collect::<Vec<f64>>();
    let inputs = reference::Inputs { qkv: wide(0), rel: wide(1), u: wide(2), v: wide(3) };
    let (forward, backward) =
        (reference::forward(&dims, &inputs), reference::backward(&dims, &inputs, &wide(4)));
    let mut first: Option<Vec<Vec<f32>>> = None;
    for threads in [1, 2] {
        let mut executor = Executor::load(&artifact, threads).unwrap();
        for (name, values) in &named {
            executor.set_input_f32(name, values).unwrap();
        }
        executor.poison();
        executor.run("attend").unwrap();
        let expected = [
            ("out", &forward.out),
            ("lse", &forward.lse),
            ("dqkv", &backward.dqkv),
            ("drel", &backward.drel),
            ("du", &backward.du),
            ("dv", &backward.dv),
        ];
        let mut all = Vec::new();
        for (name, expected) in expected {
            let got = executor.read_f32(name).unwrap();
            let worst = got.iter().zip(expected).map(|(&g, e)| (g as f64 - e).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-4, "{name} differs by {worst}");
            all.push(got.to_vec());
        }
        assert_eq!(first.get_or_insert_with(|| all.clone()), &all);
    }
}

fn loading_fails(programs: &[Program], kernels: Option<&[u8]>, target: &Target) -> (ExecError, TempDir) {
    let parent = tempfile::tempdir().unwrap();
    let artifact = write(parent.path(), programs, kernels, target);
    match Executor::load(&artifact, 1) {
        Err(error) => (error, parent),
        Ok(_) => panic!("loaded what it should refuse"),
    }
}

#[test]
fn machine_code_that_cannot_run_here_is_refused() {
    let program = || [small_program()];
    let (error, _) = loading_fails(&program(), None, &here());
    assert!(matches!(error, ExecError::NoKernels { ref symbol, .. } if symbol == "scale"), "{error}");
    let (error, _) = loading_fails(&program(), Some(&compile("void scale(void) {}\n")), &here());
    assert!(matches!(error, ExecError::Symbol { ref symbol, .. } if symbol == "add"), "{error}");
    let (error, _) = loading_fails(&program(), Some(b"not an object"), &here());
    assert!(matches!(error, ExecError::Load { .. }), "{error}");
    let elsewhere = Target { triple: "riscv64-unknown-linux-gnu".into(), ..here() };
    let (error, _) = loading_fails(&program(), Some(&compile(KERNELS_C)), &elsewhere);
    assert!(error.to_string().contains("compile it for this machine"), "{error}");

    let parent = tempfile::tempdir().unwrap();
    let artifact = write(parent.path(), &program(), Some(&compile(KERNELS_C)), &here());
    std::fs::remove_file(artifact.kernels_path().unwrap()).unwrap();
    assert!(matches!(Executor::load(&artifact, 1), Err(ExecError::Load { .. })));
}

fn chain(first: u32, launches: u32, rows: u64, rows_per_task: u64) -> Chain {
    Chain { first, launches, rows, rows_per_task }
}

#[test]
fn programs_that_would_touch_foreign_memory_are_refused() {
    let kernels = compile(KERNELS_C);
    let check = |change: fn(&mut Program), message: &str| {
        let mut program = small_program();
        change(&mut program);
        let (error, _) = loading_fails(&[program], Some(&kernels), &here());
        assert!(error.to_string().contains(message), "{error}");
    };
    check(|p| p.arena_bytes -= 64, "buffer `z`");
    check(|p| p.buffers[8].offset += 4, "offset");
    check(|p| p.launches[0].args[0] = 999, "argument 999 of");
    check(|p| p.launches[1].args.truncate(2), "2 arguments, its call takes 3");
    check(|p| p.launches[2].args.truncate(2), "2 arguments for `scale`, which takes 3");
    check(|p| p.launches[1].args.swap(0, 1), "argument 0 is `param.w`");
    check(|p| p.launches[0].args.swap(0, 1), "argument 0 is `tokens`, i32[96]");
    check(|p| p.launches[6].call = Call::Copy { bytes: 1 << 20 }, "argument 0 is `z`");
    check(|p| p.launches[1].wave = 5, "wave 1 after wave 5");
    check(|p| p.launches[2].call = Call::Generated { kernel: 3 }, "kernel 3 of 3");
    check(|p| p.kernels[0].n_args = 65, "at most 64");
    check(|p| p.chains = vec![chain(6, 2, 96, 48)], "launches 6..8 of 7");
    check(|p| p.chains = vec![chain(1, 2, 96, 0)], "96 rows, 0 for each task");
    check(|p| p.chains = vec![chain(2, 2, 96, 48)], "launch 3 is in wave 2, not 1");
    check(|p| p.chains = vec![chain(5, 1, 96, 48)], "launch 5 cannot be cut by rows");
    check(|p| p.chains = vec![chain(1, 2, 36, 12)], "launch 1 has 96 rows, no multiple of 36");
    check(|p| p.chains = vec![chain(1, 2, 96, 48), chain(2, 1, 96, 48)], "a launch is in two chains");
    check(|p| p.launches[2].call = Call::Grouped { kernels: vec![0, 1] }, "in a group of");
    check(|p| p.launches[2].call = Call::Grouped { kernels: vec![] }, "a group of no kernels");
    check(
        |p| p.launches[2].call = Call::Grouped { kernels: vec![0, 0] },
        "3 arguments for `scale`, which takes 6",
    );

    let mut eval = small_program();
    eval.name = "eval".into();
    eval.buffers[0].shape = vec![2 * ROWS];
    let (error, _) = loading_fails(&[small_program(), eval], Some(&kernels), &here());
    assert!(error.to_string().contains("`tokens` is i32[192] (input) here and i32[96] (input)"), "{error}");
}

#[test]
fn sizes_that_overflow_are_refused_by_name() {
    let mut whole = small_program();
    whole.buffers[2].shape = vec![1 << 62, 1 << 62];
    let (error, _folder) = loading_fails(&[whole], None, &here());
    assert!(error.to_string().contains("buffer `param.table`: `shape` is [4611686018427387904"), "{error}");

    let mut product = small_program();
    let gemm = product.launches.iter_mut().find_map(|l| match &mut l.call {
        Call::Gemm(gemm) => Some(gemm),
        _ => None,
    });
    // Times n and 4 bytes this is 0 in 64 bits.
    gemm.expect("a product").m = 1 << 62;
    let (error, _folder) = loading_fails(&[product], None, &here());
    assert!(error.to_string().contains("`m` is 4611686018427387904"), "{error}");
}

#[test]
fn inputs_are_checked() {
    let parent = tempfile::tempdir().unwrap();
    let artifact = write(parent.path(), &[small_program()], Some(&compile(KERNELS_C)), &here());
    let mut executor = Executor::load(&artifact, 1).unwrap();
    let mut outside = tokens();
    outside[5] = VOCAB as i32;
    // The table has 50 rows, whatever the caller believes.
    let error = executor.set_input_i32("tokens", &outside, 1000).unwrap_err();
    assert_eq!(error.to_string(), "value 50 at position 5 of `tokens` is outside 0..50");
    outside[5] = -1;
    assert!(matches!(
        executor.set_input_i32("tokens", &outside, VOCAB),
        Err(ExecError::Index { value: -1, .. })
    ));
    assert!(matches!(executor.set_input_i32("tokens", &[1], VOCAB), Err(ExecError::Length { found: 1, .. })));
    assert!(matches!(executor.set_input_f32("tokens", &[1.0; ROWS]), Err(ExecError::Type { .. })));
    assert!(matches!(executor.set_input_f32("param.w", &[1.0]), Err(ExecError::UnknownBuffer { .. })));
    let error = executor.read_f32("los").unwrap_err().to_string();
    assert_eq!(error, "no output `los`; the artifact has loss, grad.table, z_copy");
    assert_eq!(executor.run("test").unwrap_err().to_string(), "no program `test`; the artifact has train");
}

#[test]
fn targets_are_held_to_the_vocabulary_of_the_head() {
    let mut p = Builder::new("eval");
    let h = p.f32("h", &[ROWS, WIDTH], Space::Arena);
    let table = p.f32("param.table", &[VOCAB, WIDTH], Space::State);
    let targets = p.buffer("targets", DType::I32, &[ROWS], Space::Input, None);
    let loss = p.f32("loss", &[], Space::Output);
    let head = Head { rows: ROWS, width: WIDTH, vocab: VOCAB, chunk: ROWS, gradients: false };
    let workspace = p.f32("w0", &[head.workspace()], Space::Arena);
    p.launch(0, Call::Head(head), &[h, table, targets, loss, workspace]);
    let limits = index_limits(&[p.0]);
    assert_eq!(limits.into_iter().collect::<Vec<_>>(), [("targets".to_string(), VOCAB)]);
}

/// Every number of arguments up to the limit arrives in order.
#[test]
fn kernels_of_every_number_of_arguments() {
    let mut source = String::from("#include <stdint.h>\n");
    let mut p = Builder::new("count");
    let inputs: Vec<u32> =
        (0..native::MAX_ARGS).map(|i| p.f32(&format!("x{i}"), &[], Space::Input)).collect();
    for n in 1..=native::MAX_ARGS {
        let parameters: String = (0..n).map(|i| format!("float *x{i}, ")).collect();
        let sum: String = (1..n).map(|i| format!(" + {i} * *x{i}")).collect();
        source += &format!("void k{n}({parameters}int64_t b, int64_t e) {{ *x0 = 100 * b + e{sum}; }}\n");
        let out = p.f32(&format!("out{n}"), &[], Space::Output);
        let call = p.kernel(&format!("k{n}"), n as u32, 2, 5);
        p.launch(0, call, &[&[out], &inputs[1..n]].concat());
    }
    let parent = tempfile::tempdir().unwrap();
    let artifact = write(parent.path(), &[p.0], Some(&compile(&source)), &here());
    let mut executor = Executor::load(&artifact, 2).unwrap();
    for i in 0..native::MAX_ARGS {
        executor.set_input_f32(&format!("x{i}"), &[i as f32]).unwrap();
    }
    executor.run("count").unwrap();
    for n in 1..=native::MAX_ARGS {
        let expected: usize = 2 + (1..n).map(|i| i * i).sum::<usize>();
        assert_eq!(executor.read_f32(&format!("out{n}")).unwrap(), [expected as f32], "{n} arguments");
    }
}
