//! The calls into the compiler: memory and time of a plan from compiled programs, and the artifacts of a study.

use crate::device::Device;
use crate::file::Sweep;
use crate::plan::{Plan, PlannedRun};
use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::{CompileError, ProgramPlan, driver, plan_program};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// The compiler could not compile the model of `size`.
#[derive(Debug, thiserror::Error)]
#[error("cannot compile size `{size}` with {batch} sequences a step: {source}")]
pub struct SizeError {
    pub size: String,
    pub batch: usize,
    #[source]
    pub source: CompileError,
}

/// The different steps that the runs of a plan take, and for each run the index of its own.
pub struct Steps<'p> {
    pub distinct: Vec<&'p PlannedRun>,
    pub of_run: Vec<usize>,
}

/// Groups runs by what the compiler sees of them: model, batch and optimiser.
pub fn steps(runs: &[PlannedRun]) -> Steps<'_> {
    let mut distinct: Vec<&PlannedRun> = Vec::new();
    let of_run = runs
        .iter()
        .map(|run| {
            let same = |other: &&PlannedRun| {
                other.model == run.model && other.batch == run.batch && other.optimizer == run.optimizer
            };
            distinct.iter().position(|other| same(other)).unwrap_or_else(|| {
                distinct.push(run);
                distinct.len() - 1
            })
        })
        .collect();
    Steps { distinct, of_run }
}

fn for_size<T>(run: &PlannedRun, result: Result<T, CompileError>) -> Result<T, SizeError> {
    result.map_err(|source| SizeError { size: run.size.clone(), batch: run.batch, source })
}

/// The programs of a run's step, without machine code.
///
/// # Errors
/// When the compiler refuses the model.
pub fn programs(model: &ModelConfig, step: &StepConfig) -> Result<ProgramPlan, CompileError> {
    plan_program(model, step)
}

/// Fills in memory and seconds of every run from its compiled memory plan and a device description.
///
/// # Errors
/// When the compiler refuses a model.
pub fn predict(plan: &mut Plan, sweep: &Sweep, device: &Device) -> Result<(), SizeError> {
    let steps = steps(&plan.runs);
    let figures: Vec<(u64, f64, f64)> = steps
        .distinct
        .par_iter()
        .map(|run| {
            let programs = for_size(run, programs(&run.model, &run.step()))?;
            let memory = programs.train.total_bytes();
            Ok((memory, device.seconds(&programs.train), device.seconds(&programs.eval)))
        })
        .collect::<Result<_, SizeError>>()?;
    let of_run = steps.of_run;
    for (run, step) in plan.runs.iter_mut().zip(of_run) {
        let (memory, train, eval) = figures[step];
        let batches = sweep.train.validation_sequences.div_ceil(run.batch) as f64;
        let validations = sweep.train.validations.min(run.steps) as f64;
        run.memory_bytes = Some(memory);
        run.set_seconds(run.steps as f64 * train + validations * batches * eval, device.peak_flops);
    }
    plan.device = Some(device.name.clone());
    let tight: Vec<&str> = plan
        .runs
        .iter()
        .filter(|r| r.memory_bytes.is_some_and(|m| m as f64 > device.memory_bytes))
        .map(|r| r.id.as_str())
        .collect();
    if !tight.is_empty() {
        plan.warnings.push(format!(
            "more than the {} of one `{}`: {}",
            crate::display::bytes(device.memory_bytes as u64),
            device.name,
            tight.join(", ")
        ));
    }
    Ok(())
}

/// Compiles the step of `run` into `artifacts/<hash>` and returns that folder.
///
/// # Errors
/// When the compiler refuses the model or the folder cannot be written.
pub fn artifact(run: &PlannedRun, artifacts: &Path) -> Result<PathBuf, SizeError> {
    for_size(run, driver::compile(&run.model, &run.step(), &driver::Options::new(artifacts)))
}
