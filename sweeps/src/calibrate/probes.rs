//! The programs that calibration measures: products, attention, arithmetic and traffic of generated kernels.

use super::machine::Machine;
use super::{CalibrateError, Measurement, repeat, saturation, timed};
use crate::compile::options;
use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::{compile, compile_programs};
use isoflop_compiler::lower::{Lowered, lower};
use isoflop_compiler::passes::by_name;
use isoflop_compiler::text::parse;
use isoflop_kernels::artifact::Artifact;
use isoflop_kernels::program::Call;
use isoflop_runtime::exec::Executor;
use std::path::Path;

/// Rows of the measured products, and their least dimensions.
const ROWS: usize = 256;
const DIMS: [usize; 5] = [16, 32, 64, 128, 256];
/// Floats of the arithmetic probe: its two buffers stay in the second cache.
const CHAIN: usize = 16 * 1024;
/// Tiny launches of the launch probe.
const LAUNCHES: usize = 200;

pub struct Probes {
    artifact: Artifact,
    executor: Executor,
    model: Artifact,
    /// Where bytes come from, and the floats of each of the three arrays that show it.
    levels: Vec<(String, usize)>,
}

impl Probes {
    pub fn compile(machine: &Machine, scratch: &Path) -> Result<Probes, CalibrateError> {
        let mut levels: Vec<(String, usize)> =
            machine.caches.iter().map(|c| (c.name.clone(), floats(0.5 * c.bytes))).collect();
        let largest = machine.caches.last().map_or(32e6, |c| c.bytes);
        // Far more than any cache holds, and no more than a small machine has.
        let bytes = (4.0 * largest).max(128e6).min(0.25 * machine.memory_bytes);
        levels.push(("memory".to_owned(), floats(bytes)));

        let mut texts = vec![(chain(), true), (tiny(), false)];
        texts.extend(DIMS.map(|d| (product(d), true)));
        texts.extend(levels.iter().enumerate().map(|(i, &(_, n))| (triad(i, n), true)));
        let lowered: Vec<Lowered> =
            texts.iter().map(|(text, fuse)| program(text, *fuse)).collect::<Result<_, _>>()?;
        let options = options(&scratch.join("artifacts"));
        let programs: Vec<&Lowered> = lowered.iter().collect();
        let artifact = compile_programs(&programs, &serde_json::Value::Null, &options)?.artifact;
        let executor = Executor::load(&artifact, 1)?;
        let step = StepConfig::new(8);
        let model = compile(&model(), &step, &options)?.artifact;
        Ok(Probes { artifact, executor, model, levels })
    }

    /// Seconds of one of many launches of one task.
    pub fn launch(&mut self, all: &mut Vec<Measurement>) -> Result<f64, CalibrateError> {
        let executor = &mut self.executor;
        let m = repeat("a launch of one task", "s", 1, LAUNCHES as f64, || {
            let mut result = Ok(());
            let seconds = timed(|| result = executor.run("tiny"));
            result?;
            Ok(seconds)
        })?;
        all.push(m);
        Ok(all.last().map_or(0.0, |m| m.median))
    }

    /// FLOP/s of large products, and the least dimension that reaches half of it.
    pub fn products(&mut self, all: &mut Vec<Measurement>) -> Result<(f64, f64), CalibrateError> {
        let mut points = Vec::new();
        for d in DIMS {
            let name = format!("product{d}");
            let flops =
                self.executor.program(&name).map_or(0, |p| p.launches.iter().map(|l| l.flops).sum::<u64>());
            let what = format!("product of {ROWS}x{d} and {d}x{}", 4 * d);
            let m = self.rate(&name, &what, "FLOP/s", flops as f64)?;
            points.push((d as f64, m.median));
            all.push(m);
        }
        Ok(saturation(&points))
    }

    /// FLOP/s of attention, forward and backward, in a training step.
    pub fn attention(&mut self, all: &mut Vec<Measurement>) -> Result<f64, CalibrateError> {
        let mut executor = Executor::load(&self.model, 1)?;
        executor.init_state(0)?;
        for correction in ["bias_correction1", "bias_correction2"] {
            executor.set_input_f32(correction, &[1.0])?;
        }
        let is_attention =
            |c: &Call| matches!(c, Call::RelAttentionForward(_) | Call::RelAttentionBackward(_));
        let program = executor.program("train");
        let launches: Vec<usize> = program
            .map(|p| {
                p.launches.iter().enumerate().filter(|(_, l)| is_attention(&l.call)).map(|(i, _)| i).collect()
            })
            .unwrap_or_default();
        let flops: u64 = program.map_or(0, |p| launches.iter().map(|&i| p.launches[i].flops).sum());
        let m = repeat("relative attention, 4 heads of 32", "FLOP/s", 1, flops as f64, || {
            let times = executor.profile("train")?;
            Ok(launches.iter().map(|&i| times[i].nanoseconds as f64 * 1e-9).sum())
        })?;
        all.push(m);
        Ok(all.last().map_or(0.0, |m| m.median))
    }

    /// Operations a second of a generated kernel whose data are in a cache.
    pub fn operations(&mut self, all: &mut Vec<Measurement>) -> Result<f64, CalibrateError> {
        let operations =
            self.executor.program("chain").map_or(0, |p| p.kernels.iter().map(|k| k.operations).sum::<u64>());
        let m = self.rate("chain", "operations of a generated kernel", "operations/s", operations as f64)?;
        all.push(m);
        Ok(all.last().map_or(0.0, |m| m.median))
    }

    /// Bytes a second from each cache, and from memory last.
    pub fn bandwidths(&mut self, all: &mut Vec<Measurement>) -> Result<Vec<f64>, CalibrateError> {
        let mut found = Vec::new();
        for (i, (level, n)) in self.levels.clone().into_iter().enumerate() {
            let what = format!("triad over {:.1} MB, {level}", bytes_of(n) * 1e-6);
            let m = self.rate(&format!("triad{i}"), &what, "bytes/s", bytes_of(n))?;
            found.push(m.median);
            all.push(m);
        }
        Ok(found)
    }

    /// Bytes a second from memory to all threads.
    pub fn shared_bandwidth(
        &mut self,
        threads: usize,
        all: &mut Vec<Measurement>,
    ) -> Result<f64, CalibrateError> {
        let Some(last) = self.levels.len().checked_sub(1) else { return Ok(0.0) };
        let n = self.levels[last].1;
        self.executor = Executor::load(&self.artifact, threads)?;
        let what = format!("triad over {:.1} MB, memory", bytes_of(n) * 1e-6);
        let mut m = self.rate(&format!("triad{last}"), &what, "bytes/s", bytes_of(n))?;
        m.threads = threads;
        all.push(m);
        Ok(all.last().map_or(0.0, |m| m.median))
    }

    fn rate(
        &mut self,
        name: &str,
        what: &str,
        unit: &'static str,
        work: f64,
    ) -> Result<Measurement, CalibrateError> {
        let executor = &mut self.executor;
        repeat(what, unit, 1, work, || {
            let mut result = Ok(());
            let seconds = timed(|| result = executor.run(name));
            result?;
            Ok(seconds)
        })
    }
}

fn program(text: &str, fuse: bool) -> Result<Lowered, CalibrateError> {
    let graph = |e: String| CalibrateError::Graph(e);
    let mut g = parse(text, "calibrate").map_err(|e| graph(e.to_string()))?;
    // Nothing is simplified away.
    for pass in ["legalize", if fuse { "fuse" } else { "outline" }].into_iter().filter_map(by_name) {
        pass.apply(&mut g);
    }
    lower(&g).map_err(|e| graph(e.to_string()))
}

/// Floats of one of three arrays that take so many bytes together; rows of 64.
fn floats(bytes: f64) -> usize {
    ((bytes / 12.0) as usize / 64 * 64).max(64)
}

fn bytes_of(floats: usize) -> f64 {
    12.0 * floats as f64
}

/// y = a + 0.5 * b.
fn triad(i: usize, n: usize) -> String {
    format!(
        "graph @triad{i}(%a{i}: f32[{n}], %b{i}: f32[{n}]) -> (f32[{n}]) {{
  %2 = constant {{value=0.5}} : f32[{n}]
  %3 = mul %b{i}, %2
  %4 = add %a{i}, %3
  return triad_of{i} = %4
}}"
    )
}

/// Exponentials, hyperbolic tangents and a division among sums and products, as in GELU and softmax.
fn chain() -> String {
    let n = CHAIN;
    format!(
        "graph @chain(%x: f32[{n}]) -> (f32[{n}]) {{
  %1 = mul %x, %x
  %2 = mul %1, %x
  %3 = add %2, %x
  %4 = tanh %3
  %5 = add %4, %1
  %6 = exp %5
  %7 = add %6, %4
  %8 = mul %7, %6
  %9 = div %8, %6
  %10 = sub %9, %1
  %11 = mul %10, %x
  return chain_of = %11
}}"
    )
}

fn product(d: usize) -> String {
    let (m, n) = (ROWS, 4 * d);
    format!(
        "graph @product{d}(%l{d}: f32[{m},{d}], %r{d}: f32[{d},{n}]) -> (f32[{m},{n}]) {{
  %2 = dot %l{d}, %r{d} {{lhs_batch=[], rhs_batch=[], lhs_contract=[1], rhs_contract=[0]}}
  return product_of{d} = %2
}}"
    )
}

/// One tiny operation after another, each a launch of its own.
fn tiny() -> String {
    let mut text = String::from("graph @tiny(%t: f32[16]) -> (f32[16]) {\n");
    let mut last = "%t".to_owned();
    for i in 1..=LAUNCHES {
        let op = if i % 2 == 0 { "neg" } else { "abs" };
        text.push_str(&format!("  %{i} = {op} {last}\n"));
        last = format!("%{i}");
    }
    text + &format!("  return tiny_of = {last}\n}}")
}

/// Small enough to compile in a second, with attention of a usual shape.
fn model() -> ModelConfig {
    ModelConfig::gopher(1, 4, 32, 128, 256, 128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_becomes_the_launches_it_is_for() {
        let launches = |text: &str, fuse| program(text, fuse).unwrap().program.launches.len();
        assert_eq!(launches(&triad(0, 640), true), 1);
        assert_eq!(launches(&chain(), true), 1);
        assert_eq!(launches(&tiny(), false), LAUNCHES);
        let products = program(&product(16), true).unwrap().program;
        assert_eq!(products.launches.iter().map(|l| l.flops).sum::<u64>(), 2 * 256 * 16 * 64);
        assert_eq!(
            program(&chain(), true).unwrap().program.kernels[0].operations,
            (8 + 2 * 20 + 8) * CHAIN as u64
        );
    }
}
