//! What work costs on a device, by formula: bytes by the memory level they come from, products, attention and
//! elementwise operations by their rates, launches by a fixed time.
//!
//! A launch takes the longer of its arithmetic and its traffic, plus the fixed time: the roofline model of Williams,
//! Waterman & Patterson 2009, with one roof for each memory level. It knows no overlap between launches. The numbers
//! come from whoever calls: this crate reads no files.

mod residency;

use crate::fuse::body::Body;
use crate::graph::{Binary, Op, Unary};
use isoflop_kernels::cpu::dispatch;
use isoflop_kernels::cpu::gemm::Gemm;
use isoflop_kernels::program::{Call, Launch, Program};
use residency::Residency;
use serde::{Deserialize, Serialize};

/// A cache, as one thread sees it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    pub bytes: u64,
    /// Read or written by one thread.
    pub bytes_per_us: f64,
}

/// Rates of one thread of a CPU, or of a whole GPU, whose `threads` is then 1. 1 byte/us is 1 MB/s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostModel {
    /// The smallest first.
    pub caches: Vec<Cache>,
    /// To and from memory, by one thread.
    pub memory_bytes_per_us: f64,
    /// To and from memory, by all threads together.
    pub memory_bytes_per_us_shared: f64,
    /// Of products of large matrices.
    pub product_flops_per_us: f64,
    /// Least of a product's dimensions at which it reaches half of that rate.
    pub product_half_dim: f64,
    /// Of relative attention.
    pub attention_flops_per_us: f64,
    /// Of generated kernels, counted as [`operations`] does.
    pub operations_per_us: f64,
    /// Fixed time of one launch.
    pub launch_us: f64,
    /// Threads that share the tasks of a launch.
    pub threads: usize,
}

impl Default for CostModel {
    /// One core of the device `cpu` in `sweeps/devices`, which a test of that crate compares.
    fn default() -> Self {
        CostModel {
            caches: vec![
                Cache { bytes: 1 << 20, bytes_per_us: 110e3 },
                Cache { bytes: 32 << 20, bytes_per_us: 79e3 },
            ],
            memory_bytes_per_us: 27e3,
            memory_bytes_per_us_shared: 40e3,
            product_flops_per_us: 112.1e3,
            product_half_dim: 4.0,
            attention_flops_per_us: 70.8e3,
            operations_per_us: 43.07e3,
            launch_us: 0.02,
            threads: 1,
        }
    }
}

/// What a launch is expected to take, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LaunchCost {
    pub compute_us: f64,
    pub traffic_us: f64,
    pub launch_us: f64,
}

impl LaunchCost {
    pub fn us(&self) -> f64 {
        self.compute_us.max(self.traffic_us) + self.launch_us
    }
}

impl CostModel {
    /// Bytes that one thread moves in a microsecond where `working_set` bytes were touched since it last saw them.
    pub fn bytes_per_us(&self, working_set: u64) -> f64 {
        let level = self.caches.iter().find(|c| working_set <= c.bytes);
        level.map_or(self.memory_bytes_per_us, |c| c.bytes_per_us)
    }

    /// Reading or writing a value of this size once, where nothing else was touched since its last use.
    pub fn transfer_us(&self, bytes: u64) -> f64 {
        bytes as f64 / self.bytes_per_us(bytes)
    }

    /// Computing an elementwise operation on so many elements, operands and result in registers.
    pub fn operation_us(&self, op: &Op, elements: usize) -> f64 {
        (operations(op) * elements as u64) as f64 / self.operations_per_us
    }

    /// FLOPs per microsecond of this product on one thread. A product with a short dimension cannot keep the
    /// arithmetic units busy: the share reached is d / (d + `product_half_dim`) for its least dimension d.
    pub fn product_rate(&self, g: &Gemm) -> f64 {
        self.rate([g.m, g.n, g.k])
    }

    fn rate(&self, [m, n, k]: [usize; 3]) -> f64 {
        let least = m.min(n).min(k).max(1) as f64;
        self.product_flops_per_us * least / (least + self.product_half_dim)
    }

    /// The cost of every launch of a program that is called again and again, as a training step is: what a call leaves
    /// in the caches, the next one finds there.
    pub fn program(&self, program: &Program) -> Vec<LaunchCost> {
        let mut residency = Residency::new(program);
        for launch in &program.launches {
            residency.touch(launch, |_, _| ());
        }
        program.launches.iter().map(|launch| self.launch(program, launch, &mut residency)).collect()
    }

    /// Seconds of one call of a program.
    pub fn seconds(&self, program: &Program) -> f64 {
        self.program(program).iter().map(LaunchCost::us).sum::<f64>() * 1e-6
    }

    fn launch(&self, program: &Program, launch: &Launch, residency: &mut Residency<'_>) -> LaunchCost {
        let tasks = dispatch::phases(&launch.call, &program.kernels).into_iter().max().unwrap_or(1);
        let threads = self.threads.min(tasks).max(1) as f64;
        let rate = match &launch.call {
            Call::Gemm(g) | Call::GemmSquares(g) => self.product_rate(g),
            Call::RelAttentionForward(_) | Call::RelAttentionBackward(_) => self.attention_flops_per_us,
            Call::Head(h) => self.rate([h.rows.min(h.chunk), h.vocab, h.width]),
            Call::Generated { .. }
            | Call::Grouped { .. }
            | Call::Gather { .. }
            | Call::ScatterAdd { .. }
            | Call::Copy { .. } => self.operations_per_us,
        };
        let generated = |k: u32| program.kernels.get(k as usize).map_or(0, |k| k.operations);
        let work = match &launch.call {
            Call::Generated { kernel } => generated(*kernel),
            Call::Grouped { kernels } => kernels.iter().map(|&k| generated(k)).sum(),
            _ => launch.flops,
        };
        let mut traffic_us = 0.0;
        residency.touch(launch, |bytes, working_set| {
            let one = self.bytes_per_us(working_set);
            let from_memory = self.caches.last().is_none_or(|c| working_set > c.bytes);
            let all = if from_memory {
                (threads * one).min(self.memory_bytes_per_us_shared)
            } else {
                threads * one
            };
            traffic_us += bytes as f64 / all.max(one);
        });
        LaunchCost { compute_us: work as f64 / (rate * threads), traffic_us, launch_us: self.launch_us }
    }
}

/// Vector instructions that one element of this operation takes in a generated kernel, about: transcendental functions
/// are polynomials there, and divisions and roots occupy their unit for several cycles.
pub fn operations(op: &Op) -> u64 {
    match op {
        Op::Unary(Unary::Exp | Unary::Tanh) => 20,
        Op::Unary(Unary::Log | Unary::Sin | Unary::Cos) => 40,
        Op::Unary(Unary::Sqrt | Unary::Rsqrt) | Op::Binary(Binary::Div) => 8,
        Op::Binary(Binary::Pow) => 60,
        Op::Unary(Unary::StopGradient) => 0,
        _ => 1,
    }
}

/// Operations of one launch of a generated kernel with this body.
pub fn operations_of(body: &Body) -> u64 {
    body.items.iter().map(|i| operations(&i.op) * i.work.iter().product::<usize>() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use isoflop_kernels::DType;
    use isoflop_kernels::program::{Buffer, GeneratedKernel, Space};

    fn cost() -> CostModel {
        CostModel {
            caches: vec![
                Cache { bytes: 1000, bytes_per_us: 100.0 },
                Cache { bytes: 10_000, bytes_per_us: 50.0 },
            ],
            memory_bytes_per_us: 10.0,
            memory_bytes_per_us_shared: 15.0,
            product_flops_per_us: 1000.0,
            product_half_dim: 16.0,
            attention_flops_per_us: 500.0,
            operations_per_us: 200.0,
            launch_us: 1.0,
            threads: 1,
        }
    }

    #[test]
    fn a_value_moves_as_fast_as_the_cache_it_fits_in() {
        assert_eq!([1000, 10_000, 20_000].map(|b| cost().transfer_us(b)), [10.0, 200.0, 2000.0]);
    }

    #[test]
    fn a_product_with_a_short_dimension_is_slow() {
        let g = |m, n, k| Gemm { batch: 1, m, n, k, a: [0; 3], b: [0; 3], c: [0; 3], accumulate: false };
        assert_eq!(cost().product_rate(&g(1000, 16, 1000)), 500.0);
        assert!(cost().product_rate(&g(1000, 1000, 1000)) > 980.0);
    }

    /// One generated kernel of so many operations over two state buffers of so many floats, called again and again.
    fn program(operations: u64, floats: usize) -> Program {
        let buffer = |name: &str| Buffer {
            name: name.into(),
            dtype: DType::F32,
            shape: vec![floats],
            space: Space::State,
            offset: 0,
            init: None,
        };
        let kernel = GeneratedKernel {
            symbol: "k".into(),
            n_args: 2,
            rows: 4,
            rows_per_task: 1,
            operations,
            cuda: None,
        };
        let launch = Launch {
            call: Call::Generated { kernel: 0 },
            args: vec![0, 1],
            wave: 0,
            label: String::new(),
            flops: 0,
            bytes: 0,
        };
        Program {
            name: "train".into(),
            buffers: vec![buffer("a"), buffer("b")],
            arena_bytes: 0,
            arena_lower_bound: 0,
            chains: Vec::new(),
            kernels: vec![kernel],
            launches: vec![launch],
        }
    }

    #[test]
    fn a_launch_takes_the_longer_of_arithmetic_and_traffic() {
        // 800 bytes in all stay in the small cache from one call to the next.
        let small = cost().program(&program(4000, 100))[0];
        assert_eq!(small, LaunchCost { compute_us: 20.0, traffic_us: 8.0, launch_us: 1.0 });
        assert_eq!(small.us(), 21.0);
        // 80 kB stay in no cache.
        let large = cost().program(&program(4000, 10_000))[0];
        assert_eq!(large.traffic_us, 8000.0);
        assert_eq!(large.us(), 8001.0);
    }

    #[test]
    fn threads_share_arithmetic_and_memory_as_far_as_tasks_and_bandwidth_go() {
        let threads = CostModel { threads: 16, ..cost() };
        let four_tasks = threads.program(&program(4000, 10_000))[0];
        assert_eq!(four_tasks.compute_us, 5.0);
        assert!((four_tasks.traffic_us - 80_000.0 / 15.0).abs() < 1e-6);
    }
}
