//! Random graphs over rows and columns, where reductions, broadcasts and elementwise operations meet in one kernel.

use isoflop_compiler::graph::{
    Axes, Binary, Comparison, Graph, Op, ReduceKind, Role, TensorType, Unary, Value,
};
use isoflop_kernels::DType;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Row lengths around everything a grid is chosen by: vectors, warps, blocks.
pub const COLUMNS: [usize; 18] =
    [1, 2, 3, 4, 6, 12, 20, 32, 33, 64, 100, 128, 132, 256, 516, 768, 1028, 4100];
const ROWS: [usize; 7] = [1, 2, 3, 5, 17, 40, 70];

/// About `size` operations on [rows, columns] and what is broadcast to it or reduced from it.
pub fn random_rows(seed: u64, size: usize) -> Graph {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let columns = COLUMNS[rng.random_range(0..COLUMNS.len())];
    let rows =
        if columns > 1000 { ROWS[rng.random_range(0..4)] } else { ROWS[rng.random_range(0..ROWS.len())] };
    let mut g = Graph::new("rows");
    let full = [rows, columns];
    let mut input = |name: &str, shape: &[usize], role| g.new_input(name, TensorType::f32(shape), role);
    let mut wide = vec![
        input("x", &full, Role::Data),
        input("y", &full, Role::State(isoflop_kernels::program::Init::Zeros)),
    ];
    let mut outer = vec![input("r", &[rows], Role::Data)];
    let inner = [input("c", &[columns], Role::Data)];
    let scalar = input("s", &[], Role::Data);
    let (mut others, mut updated) = (vec![], None);
    for _ in 0..size {
        let x = wide[rng.random_range(wide.len().saturating_sub(3)..wide.len())];
        let made = match rng.random_range(0..16) {
            0..=2 => elementwise(&mut g, &mut rng, x, &wide),
            3 => {
                let r = outer[rng.random_range(0..outer.len())];
                let b = g.broadcast(r, &[0], &full);
                g.mul(x, b)
            }
            4 => {
                let b = g.broadcast(inner[0], &[1], &full);
                g.mul(x, b)
            }
            5 => {
                let b = g.broadcast(scalar, &[], &full);
                g.add2(x, b)
            }
            6..=8 => {
                let v = reduce(&mut g, &mut rng, x, &[1]);
                let v = g.unary(Unary::Tanh, v);
                outer.push(v);
                let b = g.broadcast(v, &[0], &full);
                g.add2(x, b)
            }
            9 => {
                others.push(reduce(&mut g, &mut rng, x, &[0]));
                continue;
            }
            10 => {
                others.push(reduce(&mut g, &mut rng, x, &[0, 1]));
                continue;
            }
            11 => {
                let r = outer[rng.random_range(0..outer.len())];
                others.push(reduce(&mut g, &mut rng, r, &[0]));
                continue;
            }
            12 => {
                let index = g.iota(rng.random_range(0..2), TensorType::f32(&full));
                let limit = g.constant_like([2.0, 5.0][rng.random_range(0..2)], index);
                let test = g.compare(Comparison::Lt, index, limit);
                let y = wide[rng.random_range(0..wide.len())];
                g.select(test, x, y)
            }
            13 => {
                let to = [DType::Bf16, DType::F64][rng.random_range(0..2)];
                let narrow = g.cast(x, to);
                others.push(narrow);
                g.cast(narrow, DType::F32)
            }
            14 => {
                let y = wide[rng.random_range(0..wide.len())];
                let test = g.compare(Comparison::ALL[rng.random_range(0..6)], x, y);
                others.push(test);
                g.select(test, y, x)
            }
            _ => {
                let (e, r) = (g.unary(Unary::Tanh, x), reduce(&mut g, &mut rng, x, &[1]));
                outer.push(r);
                updated = Some(e);
                e
            }
        };
        wide.push(made);
    }
    for (k, &v) in
        wide.iter().rev().take(2).chain(outer.last()).chain(others.iter().rev().take(3)).enumerate()
    {
        g.output(&format!("out{k}"), v);
    }
    if let Some(v) = updated {
        g.output("y", v);
    }
    g
}

fn elementwise(g: &mut Graph, rng: &mut impl Rng, x: Value, all: &[Value]) -> Value {
    let y = all[rng.random_range(0..all.len())];
    match rng.random_range(0..12) {
        0 => g.add2(x, y),
        1 => g.mul(x, y),
        2 => g.binary(Binary::Sub, x, y),
        3 => g.binary(Binary::Max, x, y),
        4 => g.binary(Binary::Min, x, y),
        5 => g.unary(Unary::Tanh, x),
        6 => {
            let t = g.unary(Unary::Tanh, x);
            g.unary(Unary::Exp, t)
        }
        7 => g.unary([Unary::Sin, Unary::Cos][rng.random_range(0..2)], x),
        8 => {
            let square = g.mul(x, x);
            let one = g.constant_like(1.0, x);
            let above = g.add2(square, one);
            g.unary([Unary::Log, Unary::Sqrt, Unary::Rsqrt][rng.random_range(0..3)], above)
        }
        9 => g.unary([Unary::Neg, Unary::Abs][rng.random_range(0..2)], x),
        10 => {
            let square = g.mul(y, y);
            let one = g.constant_like(1.0, x);
            let above = g.add2(square, one);
            g.div(x, above)
        }
        _ => {
            let eight = g.constant_like(8.0, x);
            let scaled = g.mul(x, eight);
            let whole = g.cast(scaled, DType::I32);
            let again = g.cast(whole, DType::F32);
            g.unary(Unary::Tanh, again)
        }
    }
}

/// A mean rather than a sum, so that values stay moderate.
fn reduce(g: &mut Graph, rng: &mut impl Rng, x: Value, axes: &[usize]) -> Value {
    let kind = if rng.random_range(0..3) == 0 { ReduceKind::Max } else { ReduceKind::Sum };
    let count: usize = axes.iter().map(|&a| g.ty(x).shape[a]).product();
    let sum = g.apply(Op::Reduce { kind, axes: axes.iter().copied().collect::<Axes>() }, &[x]);
    if kind == ReduceKind::Max {
        return sum;
    }
    let scale = g.constant_like(1.0 / count as f64, sum);
    g.mul(sum, scale)
}
