//! The planner's estimates beside published training runs: parameters, days, and seconds of a step.
//!
//! tests/golden/published.csv has one run a row with its source. What a source does not state is our reading of it: the
//! micro-batch and stages of the H100 rows of Megatron-Core, the interleaving of Narayanan et al. 2021, the shape of MT-NLG,
//! the micro-batch of OPT. No row has a factor of its own. Rows marked `held-out` took no part in fitting the factors.

use isoflop_sweeps::cluster::efficiency::Efficiency;
use isoflop_sweeps::cluster::layout::{Attention, Kernels, Layout, Recompute};
use isoflop_sweeps::cluster::memory::StateBytes;
use isoflop_sweeps::cluster::time::{Machine, Software, step_time};
use isoflop_sweeps::cluster::transformer::Transformer;
use isoflop_sweeps::device::Device;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Debug, Deserialize)]
struct Row {
    source: String,
    url: String,
    model: String,
    n_layers: usize,
    d_model: usize,
    n_heads: usize,
    n_kv_heads: usize,
    d_ff: usize,
    gated: String,
    tied: String,
    seq_len: usize,
    vocab_size: usize,
    /// As published, with its digits.
    params: String,
    gpu: String,
    gpus: usize,
    tensor: usize,
    sequence_parallel: String,
    pipeline: usize,
    interleave: usize,
    micro_batch: usize,
    batch: usize,
    zero: u8,
    recompute: Recompute,
    attention: Attention,
    kernels: Kernels,
    overlaps: String,
    gradient_bytes: f64,
    /// `MFU`, `HFU`: TFLOP/s of a GPU without and with recomputation; `tokens/s`: of a GPU.
    measure: String,
    value: f64,
    days_300b: Option<f64>,
    #[serde(rename = "use")]
    usage: String,
}

fn yes(text: &str) -> bool {
    assert!(["yes", "no"].contains(&text), "{text}");
    text == "yes"
}

fn rows() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/published.csv");
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

impl Row {
    fn transformer(&self) -> Transformer {
        Transformer {
            n_layers: self.n_layers,
            d_model: self.d_model,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            d_head: self.d_model / self.n_heads,
            d_ff: self.d_ff,
            gated: yes(&self.gated),
            relative: false,
            tied: yes(&self.tied),
            vocab_size: self.vocab_size,
            seq_len: self.seq_len,
        }
    }

    fn machine(&self) -> Machine {
        let device = Device::built_in(&self.gpu).unwrap();
        let training = device.training.unwrap();
        Machine {
            peak: device.peak_flops.bf16.unwrap(),
            memory_bandwidth: device.memory.bandwidth,
            memory_bytes: device.memory.bytes,
            gpus_per_node: 8,
            intra_node: training.intra_node,
            // 200 Gb/s a GPU beside A100s, 400 Gb/s beside H100s.
            inter_node: if self.gpu.starts_with("h100") { 50e9 } else { 25e9 },
            products: training.products,
            attention: training.attention,
        }
    }

    fn predicted(&self, efficiency: &Efficiency) -> f64 {
        let data = self.gpus / (self.tensor * self.pipeline);
        let layout = Layout {
            data,
            tensor: self.tensor,
            sequence_parallel: yes(&self.sequence_parallel),
            pipeline: self.pipeline,
            interleave: self.interleave,
            zero: self.zero,
            recompute: self.recompute,
            micro_batch: self.micro_batch,
            accumulation: (self.batch as f64 / (data * self.micro_batch) as f64).round().max(1.0) as usize,
        };
        let software = Software {
            attention: self.attention,
            kernels: self.kernels,
            overlaps: yes(&self.overlaps),
            gradient_bytes: self.gradient_bytes,
        };
        // Batches that copies cannot share equally are scaled to what they do.
        let planned = (layout.data * layout.micro_batch * layout.accumulation) as f64;
        let time = step_time(&self.transformer(), &layout, &self.machine(), &software, efficiency);
        time.seconds() * self.batch as f64 / planned
    }

    fn measured(&self) -> f64 {
        let tokens = (self.batch * self.seq_len) as f64;
        let model = self.transformer();
        let of_layers = model.flops_per_token() - 6.0 * model.table_weights();
        let flops = match self.measure.as_str() {
            "tokens/s" => return tokens / (self.value * self.gpus as f64),
            // The causal half of attention, as the Llama team counts.
            "MFU" if model.gated => {
                let attention = 6.0 * (self.n_layers * self.d_model * self.seq_len) as f64;
                model.flops_per_token() - attention
            }
            "MFU" => model.flops_per_token(),
            // Narayanan et al. 2021: the layers' forward pass once more.
            "HFU" => model.flops_per_token() + of_layers / 3.0,
            other => panic!("{other}"),
        };
        tokens * flops / (self.gpus as f64 * self.value * 1e12)
    }

    fn error(&self, efficiency: &Efficiency) -> f64 {
        self.predicted(efficiency) / self.measured() - 1.0
    }
}

/// Median and largest of |error|.
fn spread(errors: &[f64]) -> (f64, f64) {
    let mut sizes: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    (sizes[sizes.len() / 2], sizes[sizes.len() - 1])
}

#[test]
fn seconds_of_a_step_are_near_the_published_ones() {
    let efficiency = Efficiency::default();
    let rows = rows();
    assert!(rows.len() >= 25 && rows.iter().all(|r| r.url.starts_with("https://")));
    let mut groups: BTreeMap<(&str, &str, &str), Vec<f64>> = BTreeMap::new();
    let mut far = Vec::new();
    for row in &rows {
        let error = row.error(&efficiency);
        groups.entry((&row.usage, &row.source, &row.gpu)).or_default().push(error);
        if error.abs() > 0.15 {
            far.push(format!(
                "{} {} on {} {}: {:+.1} %",
                row.source,
                row.model,
                row.gpus,
                row.gpu,
                error * 100.0
            ));
        }
    }
    for ((usage, source, gpu), errors) in &groups {
        let (median, worst) = spread(errors);
        let [median, worst] = [median, worst].map(|e| 100.0 * e);
        println!(
            "{usage:8} {source:34} {gpu:10} {:3} runs, median {median:4.1} %, worst {worst:4.1} %",
            errors.len()
        );
    }
    println!("{}", far.join("\n"));
    let of = |usage: &str| -> Vec<f64> {
        groups
            .iter()
            .filter(|((u, ..), _)| usage == "all" || *u == usage)
            .flat_map(|(_, e)| e.clone())
            .collect()
    };
    for usage in ["all", "fit", "held-out"] {
        let errors = of(usage);
        let (median, worst) = spread(&errors);
        println!(
            "{usage}: {} runs, median {:.1} %, worst {:.1} %",
            errors.len(),
            100.0 * median,
            100.0 * worst
        );
        assert!(median <= 0.15 && worst <= 0.30, "{usage}");
    }
}

/// The factors matter: without them the same model is far off.
#[test]
fn the_bound_is_below_every_published_step() {
    let ideal = Efficiency::ideal();
    let errors: Vec<f64> = rows().iter().map(|r| r.error(&ideal)).collect();
    assert!(errors.iter().all(|e| *e < -0.05), "{errors:?}");
}

#[test]
fn parameters_are_the_published_ones() {
    for row in rows() {
        let published: f64 = row.params.parse().unwrap();
        // Half of the last digit that is given, as in `1.7e9`.
        let (mantissa, exponent) = row.params.split_once('e').unwrap_or((&row.params, "0"));
        let decimals = mantissa.split('.').nth(1).map_or(0, str::len) as i32;
        let rounding = 0.5 * 10f64.powi(exponent.parse::<i32>().unwrap() - decimals);
        let t = row.transformer();
        let d = t.d_model as f64;
        // What is no matrix: gains, biases and positions of a GPT are 13 d a layer, 2 d and s d; a gated model has gains.
        let small = if t.gated {
            2.0 * d * t.n_layers as f64
        } else {
            13.0 * d * t.n_layers as f64 + (t.seq_len as f64 + 2.0) * d
        };
        let off = (t.weights() + small - published).abs();
        assert!(
            off <= rounding.max(0.005 * published),
            "{} {}: {:e}",
            row.source,
            row.model,
            t.weights() + small
        );
    }
}

#[test]
fn days_of_narayanan_follow_from_their_throughput() {
    let mut checked = 0;
    for row in rows().iter().filter(|r| r.days_300b.is_some()) {
        let steps = 300e9 / (row.batch * row.seq_len) as f64;
        let days = steps * row.measured() / 86_400.0;
        let published = row.days_300b.unwrap();
        assert!((days / published - 1.0).abs() < 0.03, "{} on {}: {days} {published}", row.model, row.gpus);
        checked += 1;
    }
    assert_eq!(checked, 6);
}

#[test]
fn bytes_of_state_are_the_published_ones() {
    let near = |found: f64, published: f64| {
        assert!((found / published - 1.0).abs() < 0.01, "{found:e} {published:e}")
    };
    // Rajbhandari et al. 2020, figure 1: 7.5 billion parameters on 64 GPUs, fp16 gradients.
    let fp16 = StateBytes { gradients: 2.0, ..StateBytes::MIXED };
    for (zero, published) in [(0, 120e9), (1, 31.4e9), (2, 16.6e9), (3, 1.88e9)] {
        near(fp16.shared(7.5e9, zero, 64).total(), published);
    }
    // Rae et al. 2021: bf16 parameters without a master copy, f32 moments: 2.5 TiB, which is 2.55 before rounding.
    let gopher = StateBytes { gradients: 0.0, optimizer: 8.0, ..StateBytes::MIXED };
    near(gopher.shared(280e9, 0, 1).total(), 2.55 * 2f64.powi(40));
    // f32 gradients: 18 bytes, or 6 + 12/d with the optimiser shared out.
    near(StateBytes::MIXED.shared(1.0, 0, 8).total(), 18.0);
    near(StateBytes::MIXED.shared(1.0, 1, 8).total(), 7.5);
}
