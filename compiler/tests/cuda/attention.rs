//! Relative attention on CUDA against the interpreter, at shapes that fill no tile.

use super::simt::{Order, output, rounded, run};
use super::unfused::{self, Given};
use isoflop_compiler::graph::{Graph, Library, Op, RelAttentionCall, Role, TensorType};
use isoflop_compiler::interp::{Tensor, interpret};
use isoflop_kernels::DType;
use isoflop_kernels::cpu::attention::RelAttention;
use isoflop_kernels::cuda::attention::{Version, backward, forward};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

type Values = BTreeMap<&'static str, Vec<f64>>;

/// A node's results for inputs of f32, in f64.
fn interpreted(
    op: Library,
    names: &[&'static str],
    results: &[&'static str],
    shapes: &Shapes,
    x: &Values,
) -> Values {
    let mut g = Graph::new("attention");
    let operands: Vec<_> =
        names.iter().map(|n| g.new_input(n, TensorType::f32(&shapes.of(n)), Role::Data)).collect();
    let types: Vec<_> = results.iter().map(|n| TensorType::f32(&shapes.of(n))).collect();
    let node = g.add(Op::Call(op), &operands, &types);
    for (k, name) in results.iter().enumerate() {
        g.output(name, isoflop_compiler::graph::Value { node, result: k as u16 });
    }
    let inputs = names.iter().map(|&n| (n.to_string(), Tensor::f32(&shapes.of(n), x[n].clone()))).collect();
    let mut found = interpret(&g, &inputs).expect("the interpreter runs");
    results.iter().map(|&n| (n, found.remove(n).expect("a result").data)).collect()
}

struct Shapes(RelAttention);

impl Shapes {
    fn of(&self, name: &str) -> Vec<usize> {
        let RelAttention { batch, seq, heads, d_head } = self.0;
        match name {
            "qkv" | "dqkv" => vec![batch * seq, 3 * heads * d_head],
            "rel" | "drel" => vec![seq, heads * d_head],
            "u" | "v" | "du" | "dv" => vec![heads, d_head],
            "lse" => vec![batch * heads, seq],
            _ => vec![batch * seq, heads * d_head],
        }
    }
}

/// Standard normal numbers times `std`, as a type keeps them.
fn normal(rng: &mut ChaCha8Rng, n: usize, std: f64, dtype: DType) -> Vec<f64> {
    let mut one = || {
        let (a, b): (f64, f64) = (rng.random(), rng.random());
        (-2.0 * (1.0 - a).ln()).sqrt() * (2.0 * std::f64::consts::PI * b).cos()
    };
    (0..n).map(|_| rounded(one() * std, dtype)).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt()
}

/// How far results of a type may be from exact ones: twice the error of the unfused computation in the same type, and what
/// rounding leaves where that happens to be lucky, which is likelier the fewer rows there are.
struct Tolerance {
    dtype: DType,
    rows: usize,
}

impl Tolerance {
    #[track_caller]
    fn check(&self, what: &str, found: &[f64], exact: &[f64], unfused: &[f64]) {
        assert!(found.iter().all(|x| x.is_finite()), "{what}: an element was not written");
        let size = (exact.iter().map(|x| x * x).sum::<f64>() + found.len() as f64).sqrt();
        let luck = match self.dtype {
            // Half an ulp.
            DType::Bf16 => 2f64.powi(-9) / (self.rows as f64).sqrt(),
            // Sums of a hundred terms, each rounded.
            _ => 3e-6,
        };
        let allowed = 2.0 * distance(unfused, exact) + luck * size;
        let error = distance(found, exact);
        assert!(error <= allowed, "{what}: error {error:.3e}, allowed {allowed:.3e}, size {size:.3e}");
    }
}

fn check(version: Version, dtype: DType, dims: RelAttention, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shapes = Shapes(dims);
    let RelAttention { batch, seq, heads, d_head } = dims;
    let call = RelAttentionCall { batch, seq, heads, d_head };
    let mut x: Values = ["qkv", "rel", "u", "v", "dout"]
        .into_iter()
        .map(|n| (n, normal(&mut rng, shapes.of(n).iter().product(), 1.0, dtype)))
        .collect();
    let forward_names = ["qkv", "rel", "u", "v"];
    let exact = interpreted(Library::RelAttention(call), &forward_names, &["out", "lse"], &shapes, &x);
    x.insert("out", exact["out"].iter().map(|&x| rounded(x, dtype)).collect());
    x.insert("lse", exact["lse"].iter().map(|&x| rounded(x, DType::F32)).collect());
    let names = ["qkv", "rel", "u", "v", "out", "lse", "dout"];
    let gradients = ["dqkv", "drel", "du", "dv"];
    let exact_gradients = interpreted(Library::RelAttentionGrad(call), &names, &gradients, &shapes, &x);
    let given = Given {
        qkv: &x["qkv"],
        rel: &x["rel"],
        u: &x["u"],
        v: &x["v"],
        out: &x["out"],
        lse: &x["lse"],
        dout: &x["dout"],
    };
    let plain = unfused::attention(&call, &given, dtype);

    let tolerance = Tolerance { dtype, rows: batch * seq * heads };
    let what = |name: &str| format!("{version:?} {dtype} {dims:?} seed {seed} {name}");
    let pass = forward(&dims, dtype, version).expect("a shape there are kernels for");
    let regions = run(&pass, &x, &[], Order::Ascending);
    tolerance.check(&what("out"), &output(&pass, &regions, "out"), &exact["out"], &plain.out);
    tolerance.check(&what("lse"), &output(&pass, &regions, "lse"), &exact["lse"], &plain.lse);
    // The order of blocks and threads changes no bit.
    let again = run(&pass, &x, &[], Order::Descending);
    assert!(["out", "lse"].iter().all(|n| again[n].bytes() == regions[n].bytes()), "{}", what("order"));

    let pass = backward(&dims, dtype, version).expect("a shape there are kernels for");
    let regions = run(&pass, &x, &[], Order::Ascending);
    for (name, plain) in gradients.iter().zip([&plain.dqkv, &plain.drel, &plain.du, &plain.dv]) {
        tolerance.check(&what(name), &output(&pass, &regions, name), &exact_gradients[name], plain);
    }
    let again = run(&pass, &x, &[], Order::Descending);
    assert!(gradients.iter().all(|n| again[n].bytes() == regions[n].bytes()), "{}", what("order"));
}

/// Lengths around tiles of 64, and one token.
const LENGTHS: [usize; 7] = [1, 17, 63, 64, 65, 129, 200];

/// Each length with some of the other extents, each of them with some length.
fn all_lengths(version: Version, dtype: DType, d_head: usize) {
    for (k, seq) in LENGTHS.into_iter().enumerate() {
        let (heads, batch) = ([1, 3][k % 2], [1, 2][(k / 2) % 2]);
        // The plain version is slow, and its tile is 16 rows.
        if version == Version::V0 && seq * seq * d_head > 300_000 {
            continue;
        }
        check(version, dtype, RelAttention { batch, seq, heads, d_head }, (1000 * d_head + k) as u64);
    }
}

#[test]
fn plain_loops_in_f32() {
    for d_head in [32, 64, 128] {
        all_lengths(Version::V0, DType::F32, d_head);
    }
}

#[test]
fn plain_loops_in_bf16() {
    for d_head in [32, 64, 128] {
        all_lengths(Version::V0, DType::Bf16, d_head);
    }
}

#[test]
fn tensor_cores_with_heads_of_32() {
    all_lengths(Version::V1, DType::Bf16, 32);
}

#[test]
fn tensor_cores_with_heads_of_64() {
    all_lengths(Version::V1, DType::Bf16, 64);
}

#[test]
fn tensor_cores_with_heads_of_128() {
    all_lengths(Version::V1, DType::Bf16, 128);
}
