//! The calls into the compiler: memory and time of a plan from compiled programs, and the artifacts of a study.

use crate::device::{Device, Unit};
use crate::file::Sweep;
use crate::plan::{Plan, PlannedRun};
use isoflop_compiler::driver::{CompileError, plan_program};
use isoflop_kernels::footprint::{COMMAND, Footprint};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::PathBuf;

/// The compiler could not compile the model of `size`.
#[derive(Debug, thiserror::Error)]
#[error("cannot compile size `{size}` with {batch} sequences a step: {source}")]
pub struct SizeError {
    pub size: String,
    pub batch: usize,
    #[source]
    pub source: Box<CompileError>,
}

/// The different steps that the runs of a plan take, and for each run the index of its own.
pub struct Steps<'p> {
    pub distinct: Vec<&'p PlannedRun>,
    pub of_run: Vec<usize>,
}

/// Groups runs by what the compiler sees of them: model and step.
pub fn steps(runs: &[PlannedRun]) -> Steps<'_> {
    let mut distinct: Vec<&PlannedRun> = Vec::new();
    let of_run = runs
        .iter()
        .map(|run| {
            let same = |other: &&PlannedRun| other.model == run.model && other.step() == run.step();
            distinct.iter().position(same).unwrap_or_else(|| {
                distinct.push(run);
                distinct.len() - 1
            })
        })
        .collect();
    Steps { distinct, of_run }
}

fn for_size<T>(run: &PlannedRun, result: Result<T, CompileError>) -> Result<T, SizeError> {
    result.map_err(|source| SizeError { size: run.size.clone(), batch: run.batch, source: Box::new(source) })
}

/// Fills in memory and seconds of every run from its compiled memory plan and a device description.
///
/// # Errors
/// When the compiler refuses a model.
pub fn predict(plan: &mut Plan, sweep: &Sweep, device: &Device) -> Result<(), SizeError> {
    let steps = steps(&plan.runs);
    let cost = device.cost(1);
    // The deepest model takes longest and goes first, so that no core waits for it at the end.
    let mut order: Vec<usize> = (0..steps.distinct.len()).collect();
    order.sort_by_key(|step| std::cmp::Reverse(steps.distinct[*step].model.n_layers));
    let figures: HashMap<usize, (u64, Footprint, f64, f64)> = order
        .into_par_iter()
        .with_max_len(1)
        .map(|step| {
            let run = steps.distinct[step];
            let planned = for_size(run, plan_program(&run.model, &run.step()))?;
            let seconds = [&planned.train, &planned.eval].map(|l| cost.seconds(&l.program));
            Ok((step, (planned.memory_bytes(), planned.footprint(COMMAND), seconds[0], seconds[1])))
        })
        .collect::<Result<_, SizeError>>()?;
    let of_run = steps.of_run;
    for (run, step) in plan.runs.iter_mut().zip(of_run) {
        let (memory, footprint, train, eval) = figures[&step];
        let batches = sweep.train.validation_sequences.div_ceil(run.batch) as f64;
        let validations = sweep.train.validations.min(run.steps) as f64;
        run.memory_bytes = Some(memory);
        if device.unit == Unit::Core {
            run.peak_rss_bytes = Some(footprint.of_one_thread());
            run.peak_rss_bytes_per_further_thread = Some(footprint.of_each_further_thread());
        }
        run.set_seconds(run.steps as f64 * train + validations * batches * eval, device.peak());
    }
    plan.device = Some(device.name.clone());
    plan.device_description = Some(device.clone());
    let tight: Vec<&str> = plan
        .runs
        .iter()
        .filter(|r| r.memory_bytes.is_some_and(|m| m as f64 > device.memory.bytes))
        .map(|r| r.id.as_str())
        .collect();
    if !tight.is_empty() {
        plan.warnings.push(format!(
            "more than the {} of one `{}`: {}",
            crate::display::bytes(device.memory.bytes as u64),
            device.name,
            tight.join(", ")
        ));
    }
    Ok(())
}

/// What may be deleted and is made again: `$ISOFLOP_CACHE`, else the user's cache folder.
pub fn cache() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("ISOFLOP_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|c| c.join("isoflop")))
        .or_else(|| var("HOME").map(|h| h.join(".cache/isoflop")))
        .unwrap_or_else(|| std::env::temp_dir().join("isoflop-cache"))
}

/// Where compiled kernels are kept for all studies.
pub fn kernel_cache() -> PathBuf {
    cache().join("kernels")
}

#[cfg(feature = "mlir")]
pub use machine_code::{artifact, options};

#[cfg(feature = "mlir")]
mod machine_code {
    use super::{PlannedRun, SizeError, for_size, kernel_cache};
    use isoflop_compiler::driver::{CompileOptions, Compiled, compile};
    use isoflop_compiler::mlir::Target;
    use std::path::Path;

    /// For this machine, into `artifacts`, with the user's cache of kernels.
    pub fn options(artifacts: &Path) -> CompileOptions {
        CompileOptions {
            target: Target::host(),
            artifacts: artifacts.to_owned(),
            cache: kernel_cache(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// Compiles the step of `run` into `<artifacts>/<hash>`.
    ///
    /// # Errors
    /// When the compiler refuses the model or the folder cannot be written.
    pub fn artifact(run: &PlannedRun, options: &CompileOptions) -> Result<Compiled, SizeError> {
        for_size(run, compile(&run.model, &run.step(), options))
    }
}
