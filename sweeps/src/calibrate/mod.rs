//! Measures this machine's CPU and describes it as a device, so that predictions are its own.
//!
//! All but the peak and the empty phase is measured with the programs' own kernels, compiled and executed as a training
//! step is. Values are medians of repetitions: other work on the machine lengthens some of them, and shows in the spread.

mod machine;
mod probes;

use crate::device::{Cache, Device, Efficiency, Memory, Peaks, Precision, Unit};
use isoflop_compiler::driver::CompileError;
use isoflop_kernels::cpu::peak;
use isoflop_runtime::exec::ExecError;
use isoflop_runtime::pool::Pool;
use machine::Machine;
use probes::Probes;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    #[error("a kernel to measure cannot be compiled: {0}")]
    Compile(#[from] CompileError),
    #[error("a kernel to measure cannot be run: {0}")]
    Exec(#[from] ExecError),
    #[error("a graph to measure is not valid, which is a fault of isoflop: {0}")]
    Graph(String),
    #[error("cannot start {threads} threads: {source}")]
    Threads { threads: usize, source: std::io::Error },
    #[error("{what} took no time that the clock can see; try again on a machine with a finer clock")]
    NoTime { what: String },
}

/// One figure: the median of its repetitions, and where the tenth and the nine tenths of them lie.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    pub what: String,
    /// `FLOP/s`, `bytes/s`, `operations/s` or `s`.
    pub unit: &'static str,
    pub threads: usize,
    pub median: f64,
    pub low: f64,
    pub high: f64,
    pub repetitions: usize,
}

/// A calibrated device and what it was made from.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    pub device: Device,
    pub measurements: Vec<Measurement>,
}

impl Calibration {
    /// The device file, with every measurement as a comment at its head.
    ///
    /// # Errors
    /// When the values have no TOML form, which no measured value lacks.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let mut text = String::from(
            "# Written by `isoflop calibrate`. Medians; in brackets a tenth and nine tenths of the repetitions.\n",
        );
        for m in &self.measurements {
            let threads =
                if m.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", m.threads) };
            text.push_str(&format!(
                "# {}, {threads}: {:.3e} {} ({:.3e} to {:.3e}, {} repetitions)\n",
                m.what, m.median, m.unit, m.low, m.high, m.repetitions
            ));
        }
        Ok(text + &self.device.to_toml()?)
    }
}

/// How long one figure is measured, and how often at least.
const SPENT: Duration = Duration::from_millis(150);
const LEAST: usize = 7;

/// Repeats `f`, which returns the seconds of a repetition of so much work, and gives the rate.
fn repeat(
    what: &str,
    unit: &'static str,
    threads: usize,
    work: f64,
    mut f: impl FnMut() -> Result<f64, CalibrateError>,
) -> Result<Measurement, CalibrateError> {
    f()?;
    let began = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < LEAST || began.elapsed() < SPENT {
        seconds.push(f()?);
    }
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share).round() as usize];
    let of = |s: f64| if unit == "s" { s / work } else { work / s };
    let (median, ends) = (of(at(0.5)), [of(at(0.1)), of(at(0.9))]);
    if !(median.is_finite() && median > 0.0) {
        return Err(CalibrateError::NoTime { what: what.to_owned() });
    }
    Ok(Measurement {
        what: what.to_owned(),
        unit,
        threads,
        median,
        low: ends[0].min(ends[1]),
        high: ends[0].max(ends[1]),
        repetitions: seconds.len(),
    })
}

fn timed(f: impl FnOnce()) -> f64 {
    let began = Instant::now();
    f();
    began.elapsed().as_secs_f64()
}

/// Measures the CPU with up to `threads` threads. Kernels are compiled below `scratch`; `progress` is told what is
/// measured next.
///
/// # Errors
/// When a kernel cannot be compiled or run.
pub fn calibrate(
    threads: usize,
    scratch: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Calibration, CalibrateError> {
    let machine = Machine::this();
    let mut all = Vec::new();
    let pool_of = |threads| Pool::new(threads).map_err(|source| CalibrateError::Threads { threads, source });
    let mut pools = vec![(1, pool_of(1)?)];
    if threads > 1 {
        pools.push((threads, pool_of(threads)?));
    }

    progress("arithmetic");
    const ROUNDS: usize = 20_000;
    for (n, pool) in &mut pools {
        let n = *n;
        let flops = peak::multiply_adds(1) * ROUNDS as u64 * n as u64;
        let mut step = || {
            Ok(timed(|| {
                pool.run(n, &|_| {
                    std::hint::black_box(peak::multiply_adds(ROUNDS));
                })
            }))
        };
        all.push(repeat("multiply-adds in registers", "FLOP/s", n, flops as f64, &mut step)?);
    }
    let peak_flops = all[0].median;

    progress("shared launches");
    // As many tasks as threads, of a few microseconds each: a phase that ends before the others wake is no phase.
    const TASK: usize = 1_500;
    const PHASES: usize = 50;
    let task = |_| {
        std::hint::black_box(peak::multiply_adds(TASK));
    };
    let mut shared = None;
    let mut alone = 0.0;
    for (n, pool) in &mut pools {
        let n = *n;
        let mut step = || Ok(timed(|| (0..PHASES).for_each(|_| pool.run(n, &task))));
        let m = repeat("a phase of one short task a thread", "s", n, PHASES as f64, &mut step)?;
        match n {
            1 => alone = m.median,
            _ => shared = Some((m.median - alone).max(0.0)),
        }
        all.push(m);
    }
    drop(pools);

    progress("compiling kernels");
    let mut probes = Probes::compile(&machine, scratch)?;
    let launch = probes.launch(&mut all)?;
    progress("products");
    let (products, products_half_dim) = probes.products(&mut all)?;
    progress("attention");
    let attention = probes.attention(&mut all)?;
    progress("generated kernels");
    let operations = probes.operations(&mut all)?;
    progress("caches and memory");
    let bandwidths = probes.bandwidths(&mut all)?;
    let memory = bandwidths.last().copied().unwrap_or(1e9);
    let mut bandwidth_shared = None;
    if threads > 1 {
        progress("memory, all threads");
        bandwidth_shared = Some(probes.shared_bandwidth(threads, &mut all)?);
    }

    let share = |rate: f64| (rate / peak_flops).clamp(1e-3, 1.0);
    let caches = machine.caches.iter().zip(&bandwidths);
    let device = Device {
        name: "cpu".to_owned(),
        description: format!("one core of {}, measured", machine.name),
        unit: Unit::Core,
        cores: threads,
        launch_seconds: rounded(launch),
        // A shared launch is a launch, and what its tasks take longer than one of them alone.
        launch_seconds_shared: shared.map(|s| rounded(launch + s)),
        memory: Memory {
            bytes: machine.memory_bytes,
            bandwidth: rounded(memory),
            bandwidth_shared: bandwidth_shared.map(rounded),
        },
        caches: caches
            .map(|(c, &rate)| Cache { name: c.name.clone(), bytes: c.bytes, bandwidth: rounded(rate) })
            .collect(),
        peak_flops: Peaks { products: Precision::F32, f32: rounded(peak_flops), tf32: None, bf16: None },
        efficiency: Efficiency {
            products: rounded(share(products)),
            products_half_dim: rounded(products_half_dim),
            attention: rounded(share(attention)),
            kernels: rounded(share(operations)),
        },
        training: None,
    };
    Ok(Calibration { device, measurements: all })
}

/// Three digits.
fn rounded(x: f64) -> f64 {
    format!("{x:.2e}").parse().unwrap_or(x)
}

/// Rate of large products and the least dimension that reaches half of it, from rates at least dimensions: the r and h
/// for which r * d / (d + h) misses the rates least, relatively. 1 / rate is linear in 1 / d.
fn saturation(points: &[(f64, f64)]) -> (f64, f64) {
    // Of rate * (a + b / d) - 1, with a = 1 / r and b = h / r.
    let (mut xx, mut xy, mut yy, mut x1, mut y1) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for &(d, rate) in points {
        let (x, y) = (rate, rate / d);
        (xx, xy, yy, x1, y1) = (xx + x * x, xy + x * y, yy + y * y, x1 + x, y1 + y);
    }
    let det = xx * yy - xy * xy;
    let (a, b) = ((x1 * yy - y1 * xy) / det, (y1 * xx - x1 * xy) / det);
    let best = points.iter().map(|p| p.1).fold(0.0, f64::max);
    if a > 0.0 && b > 0.0 && a.is_finite() && b.is_finite() { (1.0 / a, b / a) } else { (best, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturation_finds_the_law_it_is_given() {
        let law = |d: f64| (d, 100e9 * d / (d + 24.0));
        let (rate, half) = saturation(&[16.0, 32.0, 64.0, 256.0].map(law));
        assert!((rate / 100e9 - 1.0).abs() < 1e-9 && (half / 24.0 - 1.0).abs() < 1e-9, "{rate} {half}");
        // Rates that fall with size follow no such law.
        assert_eq!(saturation(&[(16.0, 100.0), (64.0, 50.0)]), (100.0, 1.0));
    }

    #[test]
    fn repetitions_are_enough_and_in_order() {
        let mut n = 0.0;
        let m = repeat("x", "s", 1, 2.0, || {
            n += 1.0;
            std::thread::sleep(Duration::from_millis(25));
            Ok(n)
        });
        let m = m.unwrap();
        assert!(m.repetitions >= LEAST && m.low <= m.median && m.median <= m.high, "{m:?}");
        assert!(repeat("x", "s", 1, 1.0, || Ok(0.0)).unwrap_err().to_string().contains("x took no time"));
    }
}
