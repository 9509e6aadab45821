//! Random graphs for machine code: loops of every kind, long enough to be cut into tasks, with values that stay small so
//! that rounding stays small.
//!
//! What jumps (comparisons, casts to integers) is applied only to exact values, which are the same bits in every
//! precision: inputs, indices, and what moves them or picks among them.

use isoflop_compiler::autodiff::gradients;
use isoflop_compiler::graph::{Axes, Binary, Comparison, Graph, ReduceKind, Role, TensorType, Unary, Value};
use isoflop_kernels::DType;
use isoflop_kernels::program::Init;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Index inputs lie in 0..INDICES.
pub const INDICES: usize = 3;
const LARGEST: usize = 60_000;
/// Magnitudes above this are brought back by a tanh.
const BOUND: f64 = 16.0;

#[derive(Clone, Copy)]
struct Known {
    value: Value,
    /// No element is larger in magnitude.
    bound: f64,
    exact: bool,
}

struct Generator {
    g: Graph,
    rng: ChaCha8Rng,
    values: Vec<Known>,
    indices: Value,
    smooth: bool,
}

/// The graph of this seed; its name and the names of its inputs and outputs start with `g<seed>`. A smooth one has a
/// gradient that rounding does not make jump.
pub fn graph(seed: u64, smooth: bool) -> Graph {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut pick = |from: &[usize]| from[rng.random_range(0..from.len())];
    let (rows, columns) = match pick(&[0, 1, 2]) {
        0 => (pick(&[1, 2, 3, 5]), pick(&[1, 2, 3, 7, 16, 33])),
        1 => (pick(&[3, 17, 64]), pick(&[1, 5, 33, 64])),
        _ => (pick(&[67, 131, 523]), pick(&[65, 97])),
    };
    let outer = pick(&[1, 2, 3]);
    let size = 4 + pick(&[0, 4, 8, 12, 20]);
    let mut g = Graph::new(&format!("g{seed}"));
    let mut values = Vec::new();
    let shapes: [&[usize]; 6] =
        [&[rows, columns], &[rows, columns], &[rows], &[columns], &[outer, rows, columns], &[]];
    for (k, shape) in shapes.iter().enumerate() {
        let value = g.new_input(&format!("g{seed}.x{k}"), TensorType::f32(shape), Role::Data);
        values.push(Known { value, bound: 2.0, exact: true });
    }
    let indices = g.new_input(&format!("g{seed}.indices"), TensorType::i32(&[rows]), Role::Data);
    for (k, shape) in shapes[..3].iter().enumerate() {
        let (name, role) = (format!("g{seed}.state{k}"), Role::State(Init::Zeros));
        let value = g.new_input(&name, TensorType::f32(shape), role);
        values.push(Known { value, bound: 2.0, exact: true });
    }
    let mut made = Generator { g, rng, values, indices, smooth };
    for _ in 0..size {
        let from = made.rng.random_range(0..2) * made.values.len().saturating_sub(5);
        let x = made.values[made.rng.random_range(from..made.values.len())];
        let y = made.step(x);
        if made.shape(y).iter().product::<usize>() <= LARGEST && made.shape(y).len() <= 4 {
            made.values.push(y);
        }
    }
    if smooth {
        made.gradients(seed);
    } else {
        made.outputs(seed);
    }
    made.g
}

impl Generator {
    fn shape(&self, x: Known) -> Vec<usize> {
        self.g.ty(x.value).shape.to_vec()
    }

    fn one_of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    fn unary(&mut self, u: Unary, x: Value) -> Value {
        self.g.unary(u, x)
    }

    fn plus(&mut self, x: Value, c: f64) -> Value {
        let c = self.g.constant_like(c, x);
        self.g.add2(x, c)
    }

    /// |x| + c; x^2 + c where a gradient must not jump.
    fn above(&mut self, x: Value, c: f64) -> Value {
        let x = if self.smooth { self.g.mul(x, x) } else { self.unary(Unary::Abs, x) };
        self.plus(x, c)
    }

    fn tamed(&mut self, value: Value, bound: f64) -> Known {
        if bound > BOUND {
            return Known { value: self.unary(Unary::Tanh, value), bound: 1.0, exact: false };
        }
        Known { value, bound, exact: false }
    }

    /// Some value, repeated to the shape of `x` where it is smaller; a constant where none fits.
    fn partner(&mut self, x: Known, exact: bool) -> Known {
        let shape = self.shape(x);
        for _ in 0..8 {
            let y = self.values[self.rng.random_range(0..self.values.len())];
            let small = self.shape(y);
            if exact && !y.exact {
                continue;
            }
            if small == shape {
                return y;
            }
            let from_back = self.rng.random();
            if let Some(dims) = subsequence(&small, &shape, from_back) {
                return Known { value: self.g.broadcast(y.value, &dims, &shape), ..y };
            }
        }
        let bound = self.one_of(&[0.0, 0.5, 1.0, 3.0]);
        Known { value: self.g.constant_like(bound, x.value), bound, exact: true }
    }

    fn step(&mut self, x: Known) -> Known {
        let shape = self.shape(x);
        let rank = shape.len();
        match self.rng.random_range(0..26) {
            0..=3 => self.function(x),
            4..=8 => self.arithmetic(x),
            9 | 10 if x.exact => self.choice(x),
            11 if x.exact => self.integers(x),
            12 => {
                let wide = self.g.cast(x.value, DType::F64);
                let wide = self.unary(Unary::Tanh, wide);
                Known { value: self.g.cast(wide, DType::F32), bound: 1.0, exact: false }
            }
            13..=16 if rank > 0 => self.reduction(x),
            17 if rank > 0 => self.normalised(x),
            18..=20 if rank > 0 => self.movement(x),
            21 | 22 if rank > 1 => self.product(x),
            23 if rank > 0 => self.lookup(x),
            24 if rank > 0 => {
                let axis = self.rng.random_range(0..rank);
                let dtype = self.one_of(&[DType::F32, DType::I32]);
                let index = self.g.iota(axis, TensorType::new(dtype, &shape));
                let index = if dtype == DType::I32 { self.g.cast(index, DType::F32) } else { index };
                let value = self.g.scale(index, 1.0 / 1024.0);
                let value = self.g.add2(value, x.value);
                Known { value, bound: x.bound + 1.0, exact: false }
            }
            _ => self.arithmetic(x),
        }
    }

    fn function(&mut self, x: Known) -> Known {
        let (v, b) = (x.value, x.bound);
        let (value, bound) = match self.rng.random_range(0..9) {
            0 => return Known { value: self.unary(Unary::Neg, v), ..x },
            1 if !self.smooth || x.exact => return Known { value: self.unary(Unary::Abs, v), ..x },
            2 => return Known { value: self.unary(Unary::StopGradient, v), ..x },
            1 | 3 => (self.unary(Unary::Tanh, v), 1.0),
            4 => {
                let u = self.one_of(&[Unary::Sin, Unary::Cos]);
                (self.unary(u, v), 1.0)
            }
            5 => {
                let t = self.unary(Unary::Tanh, v);
                (self.unary(Unary::Exp, t), 2.8)
            }
            6 => {
                let a = self.above(v, 0.5);
                (self.unary(Unary::Log, a), 0.7 + b)
            }
            7 => {
                let a = self.above(v, 0.25);
                (self.unary(Unary::Sqrt, a), 0.5 + b)
            }
            _ => {
                let a = self.above(v, 0.25);
                (self.unary(Unary::Rsqrt, a), 2.0)
            }
        };
        self.tamed(value, bound)
    }

    fn arithmetic(&mut self, x: Known) -> Known {
        let y = self.partner(x, false);
        let b = self.one_of(&Binary::ALL);
        let swapped: bool = self.rng.random();
        let (p, q) = if swapped { (y, x) } else { (x, y) };
        let (value, bound) = match b {
            Binary::Max | Binary::Min if !self.smooth || (p.exact && q.exact) => {
                let value = self.g.binary(b, p.value, q.value);
                return Known { value, bound: p.bound.max(q.bound), exact: p.exact && q.exact };
            }
            Binary::Add | Binary::Max => (self.g.add2(p.value, q.value), p.bound + q.bound),
            Binary::Sub | Binary::Min => (self.g.sub(p.value, q.value), p.bound + q.bound),
            Binary::Mul => (self.g.mul(p.value, q.value), p.bound * q.bound),
            Binary::Div => {
                let d = self.above(q.value, 1.0);
                (self.g.div(p.value, d), p.bound)
            }
            Binary::Pow => {
                let base = self.above(p.value, 0.5);
                let power = self.unary(Unary::Tanh, q.value);
                (self.g.binary(Binary::Pow, base, power), p.bound.max(p.bound * p.bound) + 2.0)
            }
        };
        self.tamed(value, bound)
    }

    fn choice(&mut self, x: Known) -> Known {
        let (y, c) = (self.partner(x, true), self.one_of(&Comparison::ALL));
        let mut hit = self.g.compare(c, x.value, y.value);
        if self.rng.random_range(0..3) == 0 {
            // Bools compare too: false before true.
            let (y, c) = (self.partner(x, true), self.one_of(&Comparison::ALL));
            let other = self.g.compare(Comparison::Lt, y.value, x.value);
            hit = self.g.compare(c, hit, other);
        }
        if self.rng.random_range(0..4) == 0 {
            return Known { value: self.g.cast(hit, DType::F32), bound: 1.0, exact: true };
        }
        let (p, q) = (self.partner(x, false), self.partner(x, false));
        let value = self.g.select(hit, p.value, q.value);
        Known { value, bound: p.bound.max(q.bound), exact: p.exact && q.exact }
    }

    /// Whole numbers, and their sums or largest.
    fn integers(&mut self, x: Known) -> Known {
        let large = self.g.scale(x.value, 8.0);
        let mut i = self.g.cast(large, DType::I32);
        let c = self.g.constant_like(3.0, i);
        let b = self.one_of(&[Binary::Add, Binary::Sub, Binary::Mul, Binary::Max, Binary::Min, Binary::Div]);
        i = self.g.binary(b, i, c);
        let mut elements = 1;
        if self.rng.random() {
            let rank = self.shape(x).len();
            let axes: Axes = (0..rank).filter(|_| self.rng.random()).collect();
            elements = axes.iter().map(|&a| self.shape(x)[a]).product();
            let kind = self.one_of(&[ReduceKind::Sum, ReduceKind::Max]);
            i = self.g.reduce(kind, i, &axes);
        }
        let bound = 8.0 * x.bound * 3.0 + 3.0;
        let f = self.g.cast(i, DType::F32);
        let value = self.g.scale(f, 1.0 / (elements.next_power_of_two() as f64 * 64.0));
        Known { value, bound: bound / 64.0, exact: true }
    }

    fn reduction(&mut self, x: Known) -> Known {
        let shape = self.shape(x);
        let rank = shape.len();
        let axes: Vec<usize> = match self.rng.random_range(0..4) {
            0 | 1 => vec![rank - 1],
            2 => vec![0],
            _ => (0..rank).filter(|_| self.rng.random()).collect(),
        };
        if self.rng.random_range(0..3) == 0 && (!self.smooth || x.exact) {
            return Known { value: self.g.reduce(ReduceKind::Max, x.value, &axes), ..x };
        }
        let sum = self.g.reduce_sum(x.value, &axes);
        let n: usize = axes.iter().map(|&a| shape[a]).product();
        Known { value: self.g.scale(sum, 1.0 / n.max(1) as f64), bound: x.bound, exact: false }
    }

    /// Softmax or RMS norm over the last axis.
    fn normalised(&mut self, x: Known) -> Known {
        let shape = self.shape(x);
        let last = shape.len() - 1;
        let kept: Vec<usize> = (0..last).collect();
        let softmax: bool = self.rng.random();
        if softmax {
            let most = self.g.reduce(ReduceKind::Max, x.value, &[last]);
            let most = if self.smooth { self.unary(Unary::StopGradient, most) } else { most };
            let most = self.g.broadcast(most, &kept, &shape);
            let shifted = self.g.sub(x.value, most);
            let e = self.unary(Unary::Exp, shifted);
            let sum = self.g.reduce_sum(e, &[last]);
            let sum = self.g.broadcast(sum, &kept, &shape);
            return Known { value: self.g.div(e, sum), bound: 1.0, exact: false };
        }
        let squares = self.g.mul(x.value, x.value);
        let sum = self.g.reduce_sum(squares, &[last]);
        let mean = self.g.scale(sum, 1.0 / shape[last] as f64);
        let mean = self.plus(mean, 0.1);
        let scale = self.unary(Unary::Rsqrt, mean);
        let scale = self.g.broadcast(scale, &kept, &shape);
        let value = self.g.mul(x.value, scale);
        self.tamed(value, x.bound * 3.2)
    }

    fn movement(&mut self, x: Known) -> Known {
        let shape = self.shape(x);
        let rank = shape.len();
        let axis = self.rng.random_range(0..rank);
        let value = match self.rng.random_range(0..6) {
            0 => {
                let mut perm: Vec<usize> = (0..rank).collect();
                perm.swap(axis, self.rng.random_range(0..rank));
                self.g.transpose(x.value, &perm)
            }
            1 => {
                let start = self.rng.random_range(0..shape[axis]);
                let limit = self.rng.random_range(start + 1..=shape[axis]);
                self.g.slice_axis(x.value, axis, start, limit)
            }
            2 => {
                let mut pads = || (0..rank).map(|_| self.rng.random_range(0..2)).collect::<Vec<usize>>();
                let (low, high) = (pads(), pads());
                self.g.pad(x.value, &low, &high, 0.5)
            }
            3 => {
                let y = self.partner(x, x.exact);
                let value = self.g.concat(&[x.value, y.value], axis);
                return Known { value, bound: x.bound.max(y.bound), exact: x.exact };
            }
            4 => {
                let mut shape = shape;
                shape.rotate_left(1);
                if self.rng.random() {
                    shape = vec![shape.iter().product()];
                }
                self.g.reshape(x.value, &shape)
            }
            _ => {
                let extent = self.rng.random_range(1..4);
                let at = self.rng.random_range(0..=rank);
                let mut wide = shape;
                wide.insert(at, extent);
                let dims: Vec<usize> = (0..=rank).filter(|&k| k != at).collect();
                self.g.broadcast(x.value, &dims, &wide)
            }
        };
        Known { value, ..x }
    }

    /// A product over one axis with another value of its shape, or with a smaller one that has the axis.
    fn product(&mut self, x: Known) -> Known {
        let shape = self.shape(x);
        let rank = shape.len();
        let axis = self.rng.random_range(0..rank);
        let y = self.values[self.rng.random_range(0..self.values.len())];
        let other = self.shape(y);
        let elements = |shape: &[usize]| shape.iter().product::<usize>() / shape[axis];
        let scaled = |g: &mut Graph, v: Value| g.scale(v, 1.0 / shape[axis] as f64);
        let (d, bound) = match other.iter().position(|&n| n == shape[axis]) {
            // The interpreter computes what nothing reads, too.
            Some(k) if other != shape => {
                let free = other.iter().product::<usize>() / other[k];
                if elements(&shape) * free > LARGEST {
                    return x;
                }
                (self.g.dot(x.value, y.value, [&[], &[]], [&[axis], &[k]]), x.bound * y.bound)
            }
            _ => {
                let y = self.partner(x, false);
                let batch: Vec<usize> = (0..rank).filter(|&k| k != axis).collect();
                (self.g.dot(x.value, y.value, [&batch, &batch], [&[axis], &[axis]]), x.bound * y.bound)
            }
        };
        let elements = self.g.ty(d).elements();
        let value = scaled(&mut self.g, d);
        if elements > LARGEST { x } else { self.tamed(value, bound) }
    }

    fn lookup(&mut self, x: Known) -> Known {
        let shape = self.shape(x);
        let rows = self.g.ty(self.indices).shape[0];
        let scatters: bool = self.rng.random();
        if shape[0] == rows && scatters {
            let mut sums = self.g.scatter_add(self.indices, x.value, INDICES + 1);
            // Not drawn: graphs of older seeds stay as they are otherwise.
            let twice = self.values.len().is_multiple_of(2);
            if twice {
                sums = self.g.scatter_add_to(sums, self.indices, x.value);
            }
            let value = self.g.scale(sums, 1.0 / (rows * (1 + usize::from(twice))) as f64);
            return Known { value, exact: false, ..x };
        }
        if shape[0] >= INDICES && rows * shape[1..].iter().product::<usize>() <= LARGEST {
            return Known { value: self.g.gather(x.value, self.indices), ..x };
        }
        x
    }

    /// The sum of a few values, and its gradient by some of the inputs and states.
    fn gradients(&mut self, seed: u64) {
        let recent: Vec<Known> = self.values.iter().rev().take(6).copied().collect();
        let mut loss = None;
        for _ in 0..self.rng.random_range(1..4) {
            let v = recent[self.rng.random_range(0..recent.len())].value;
            let axes: Vec<usize> = (0..self.g.ty(v).rank()).collect();
            let sum = if axes.is_empty() { v } else { self.g.reduce_sum(v, &axes) };
            loss = Some(loss.map_or(sum, |l| self.g.add2(l, sum)));
        }
        let inputs: Vec<Value> = self.g.inputs.iter().map(|&n| n.into()).collect();
        let floats = inputs.into_iter().filter(|&v| self.g.ty(v).dtype == DType::F32);
        let wrt: Vec<Value> = floats.filter(|_| self.rng.random_range(0..3) > 0).collect();
        let Some(loss) = loss else { return };
        let found = gradients(&mut self.g, loss, &wrt).expect("a graph of primitives has gradients");
        for (k, d) in found.into_iter().enumerate() {
            self.g.output(&format!("g{seed}.d{k}"), d);
        }
        self.g.output(&format!("g{seed}.loss"), loss);
    }

    /// Up to four outputs, and next values for states: computed, exchanged, or none.
    fn outputs(&mut self, seed: u64) {
        let recent: Vec<Value> = self.values.iter().rev().map(|k| k.value).collect();
        for k in 0..self.rng.random_range(1..5) {
            let v = recent[self.rng.random_range(0..recent.len().min(8))];
            self.g.output(&format!("g{seed}.y{k}"), v);
        }
        for k in 0..3 {
            let name = format!("g{seed}.state{k}");
            let Some(old) = self.g.input(&name) else { continue };
            let next: Vec<Value> =
                recent.iter().copied().filter(|&v| self.g.ty(v) == self.g.ty(old)).collect();
            let next = next[self.rng.random_range(0..next.len())];
            let next = match self.rng.random_range(0..4) {
                0 => continue,
                1 => next,
                // As an optimiser does: old and new, element by element.
                _ => {
                    let new = self.g.scale(next, 0.25);
                    self.g.add2(old, new)
                }
            };
            self.g.output(&name, next);
        }
    }
}

/// Where the axes of `small` stand among those of `large`, in order.
fn subsequence(small: &[usize], large: &[usize], from_back: bool) -> Option<Vec<usize>> {
    let mut dims = Vec::new();
    let (mut wanted, mut places): (Vec<usize>, Vec<usize>) = (small.to_vec(), (0..large.len()).collect());
    if from_back {
        wanted.reverse();
        places.reverse();
    }
    let mut places = places.into_iter();
    for n in wanted {
        dims.push(places.find(|&k| large[k] == n)?);
    }
    dims.sort_unstable();
    Some(dims)
}
