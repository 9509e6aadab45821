//! Random networks: products with row-wise work between them, their gradients, and an optimiser over equal matrices.
//! What the lowering does with these beyond single kernels: chains over rows, squares summed by products, groups.

use isoflop_compiler::autodiff::gradients;
use isoflop_compiler::graph::{Graph, ReduceKind, Role, TensorType, Unary, Value};
use isoflop_kernels::program::Init;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct Layers {
    g: Graph,
    rng: ChaCha8Rng,
    prefix: String,
    weights: Vec<Value>,
    outputs: usize,
}

/// The network of this seed. Rows from 2 to 520, odd counts among them; every seed in two also trains.
pub fn network(seed: u64) -> Graph {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let prefix = format!("g{seed}");
    let mut pick = |from: &[usize]| from[rng.random_range(0..from.len())];
    let rows = pick(&[2, 7, 31, 64, 130, 255, 256, 257, 300, 384, 512, 520]);
    let width = pick(&[4, 8, 17, 32, 48]);
    let depth = pick(&[1, 2, 2, 3]);
    let trains = pick(&[0, 1]) == 1;
    let mut g = Graph::new(&prefix);
    let role = if pick(&[0, 1]) == 1 { Role::State(Init::Zeros) } else { Role::Data };
    let x = g.new_input(&format!("{prefix}.x"), TensorType::f32(&[rows, width]), role);
    let mut l = Layers { g, rng, prefix, weights: vec![], outputs: 0 };
    let mut y = x;
    for _ in 0..depth {
        y = l.block(y);
    }
    if trains {
        l.train(y);
    } else {
        l.output(y);
        if role != Role::Data && l.rng.random() {
            // The new state is the result: what was the old one may be written over.
            let name = format!("{}.x", l.prefix);
            let next = if l.rng.random() { l.g.add2(x, y) } else { y };
            l.g.output(&name, next);
        }
    }
    l.g
}

impl Layers {
    fn one_in(&mut self, n: usize) -> bool {
        self.rng.random_range(0..n) == 0
    }

    fn output(&mut self, v: Value) {
        let name = format!("{}.y{}", self.prefix, self.outputs);
        self.outputs += 1;
        self.g.output(&name, v);
    }

    fn weight(&mut self, shape: &[usize]) -> Value {
        let name = format!("{}.w{}", self.prefix, self.weights.len());
        let w = self.g.new_input(&name, TensorType::f32(shape), Role::State(Init::Zeros));
        self.weights.push(w);
        w
    }

    /// x times a weight of either orientation, divided by the width.
    fn product(&mut self, x: Value, n: usize) -> Value {
        let k = self.g.ty(x).shape[1];
        let y = if self.rng.random() {
            let w = self.weight(&[n, k]);
            self.g.dot(x, w, [&[], &[]], [&[1], &[1]])
        } else {
            let w = self.weight(&[k, n]);
            self.g.dot(x, w, [&[], &[]], [&[1], &[0]])
        };
        self.g.scale(y, 1.0 / (k as f64).sqrt())
    }

    /// Two products with work on rows around them, and a residual sum; of the width of x.
    fn block(&mut self, x: Value) -> Value {
        let width = self.g.ty(x).shape[1];
        let inner = [width, width, 2 * width, 3 * width + 1][self.rng.random_range(0..4)];
        let mut y = if self.rng.random() { self.row_wise(x) } else { x };
        y = self.product(y, inner);
        for _ in 0..self.rng.random_range(0..3) {
            y = self.row_wise(y);
        }
        self.look(y);
        y = self.product(y, width);
        if self.one_in(4) {
            y = self.row_wise(y);
        }
        if self.one_in(4) { self.g.unary(Unary::Tanh, y) } else { self.g.add2(x, y) }
    }

    /// Sometimes an output inside a chain: the value itself, a sum or a maximum over rows or columns.
    fn look(&mut self, y: Value) {
        match self.rng.random_range(0..10) {
            0 => self.output(y),
            1 | 2 => {
                let rows = self.g.ty(y).shape[0];
                let sum = self.g.reduce_sum(y, &[0]);
                let mean = self.g.scale(sum, 1.0 / rows as f64);
                self.output(mean);
            }
            3 => {
                let axis = self.rng.random_range(0..2);
                let most = self.g.reduce(ReduceKind::Max, y, &[axis]);
                self.output(most);
            }
            _ => {}
        }
    }

    fn row_wise(&mut self, x: Value) -> Value {
        let shape = self.g.ty(x).shape.to_vec();
        let columns = shape[1];
        match self.rng.random_range(0..6) {
            0 => self.g.unary(Unary::Tanh, x),
            1 => {
                let t = self.g.unary(Unary::Tanh, x);
                let t = self.g.mul(t, x);
                self.g.scale(t, 0.5)
            }
            2 => {
                let bias = self.weight(&[columns]);
                let bias = self.g.broadcast(bias, &[1], &shape);
                self.g.add2(x, bias)
            }
            3 => {
                let squares = self.g.mul(x, x);
                let sum = self.g.reduce_sum(squares, &[1]);
                let mean = self.g.scale(sum, 1.0 / columns as f64);
                let c = self.g.constant_like(0.1, mean);
                let mean = self.g.add2(mean, c);
                let scale = self.g.unary(Unary::Rsqrt, mean);
                let scale = self.g.broadcast(scale, &[0], &shape);
                self.g.mul(x, scale)
            }
            4 => {
                let most = self.g.reduce(ReduceKind::Max, x, &[1]);
                let most = self.g.unary(Unary::StopGradient, most);
                let most = self.g.broadcast(most, &[0], &shape);
                let shifted = self.g.sub(x, most);
                let e = self.g.unary(Unary::Exp, shifted);
                let sum = self.g.reduce_sum(e, &[1]);
                let sum = self.g.broadcast(sum, &[0], &shape);
                self.g.div(e, sum)
            }
            _ => {
                // Over all rows, which no chain can hold.
                let sum = self.g.reduce_sum(x, &[0]);
                let mean = self.g.scale(sum, 1.0 / shape[0] as f64);
                let mean = self.g.broadcast(mean, &[1], &shape);
                self.g.sub(x, mean)
            }
        }
    }

    /// The mean square of `y` as loss; gradients clipped by their norm; a momentum for each weight.
    fn train(&mut self, y: Value) {
        let n = self.g.ty(y).elements();
        let squares = self.g.mul(y, y);
        let loss = self.g.reduce_sum(squares, &[0, 1]);
        let loss = self.g.scale(loss, 8.0 / n as f64);
        self.output(loss);
        let weights = self.weights.clone();
        let found = gradients(&mut self.g, loss, &weights).expect("a graph of primitives has gradients");
        let mut total = None;
        for &d in &found {
            let axes: Vec<usize> = (0..self.g.ty(d).rank()).collect();
            let squares = self.g.mul(d, d);
            let sum = self.g.reduce_sum(squares, &axes);
            total = Some(total.map_or(sum, |t| self.g.add2(t, sum)));
        }
        let Some(total) = total else { return };
        self.output(total);
        let one = self.g.constant_like(1.0, total);
        let norm = self.g.add2(total, one);
        let clip = self.g.unary(Unary::Rsqrt, norm);
        for (k, (&w, &d)) in weights.iter().zip(&found).enumerate() {
            let shape = self.g.ty(w).shape.to_vec();
            let clip = self.g.broadcast(clip, &[], &shape);
            let clipped = self.g.mul(d, clip);
            let name = format!("{}.m{k}", self.prefix);
            let m = self.g.new_input(&name, TensorType::f32(&shape), Role::State(Init::Zeros));
            let kept = self.g.scale(m, 0.9);
            let m = self.g.add2(kept, clipped);
            self.g.output(&name, m);
            let step = self.g.scale(m, 0.01);
            let w_name = format!("{}.w{k}", self.prefix);
            let w = self.g.sub(w, step);
            self.g.output(&w_name, w);
        }
    }
}
