//! `isoflop opt --check`: files of cases, with machine code compiled and run in this process.

use crate::output;
use isoflop_compiler::driver::{CompileOptions, compile_programs};
use isoflop_compiler::filetest::{Harness, Job, Outputs, check};
use isoflop_compiler::lower::Lowered;
use isoflop_compiler::passes::Registry;
use isoflop_kernels::DType;
use isoflop_runtime::exec::{ExecError, Executor};
use miette::{IntoDiagnostic, miette};
use std::path::PathBuf;
use std::process::ExitCode;

/// Checks the cases and prints what differs; or, blessing, writes what was found.
pub fn run(paths: &[PathBuf], filter: Option<&str>, bless: bool) -> miette::Result<ExitCode> {
    let registry = Registry::default();
    let harness = Harness { registry: &registry, execute: Some(&execute), filter, bless };
    let report = check(paths, &harness).into_diagnostic()?;
    for failure in &report.failures {
        output::line(&format!("{failure}\n"))?;
    }
    for file in report.files.iter().filter(|f| f.blessed) {
        output::line(&format!("blessed {}", file.path.display()))?;
    }
    let (files, actions, failed) = (report.files.len(), report.actions(), report.failures.len());
    output::line(&format!("{files} files, {actions} actions, {failed} failed"))?;
    if actions == 0 {
        return Err(miette!("no case is called `{}`", filter.unwrap_or_default()));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All programs in one artifact, each run once.
fn execute(jobs: &[Job]) -> Vec<Result<Outputs, String>> {
    match load(jobs) {
        Ok(mut exec) => jobs.iter().map(|job| run_job(&mut exec, job).map_err(|e| e.to_string())).collect(),
        Err(message) => jobs.iter().map(|_| Err(message.clone())).collect(),
    }
}

fn load(jobs: &[Job]) -> Result<Executor, String> {
    let folder = tempfile::tempdir().map_err(|e| format!("cannot create a temporary folder: {e}"))?;
    let programs: Vec<&Lowered> = jobs.iter().map(|j| &j.lowered).collect();
    let options: CompileOptions = isoflop_sweeps::compile::options(folder.path());
    let compiled =
        compile_programs(&programs, &serde_json::Value::Null, &options).map_err(|e| e.to_string())?;
    // The library stays mapped when its file is gone.
    Executor::load(&compiled.artifact, 1).map_err(|e| e.to_string())
}

fn run_job(exec: &mut Executor, job: &Job) -> Result<Outputs, ExecError> {
    for input in &job.inputs {
        let floats: Vec<f32> = input.value.data.iter().map(|&x| x as f32).collect();
        match input.value.dtype {
            DType::I32 => {
                let numbers: Vec<i32> = input.value.data.iter().map(|&x| x as i32).collect();
                exec.set_input_i32(&input.name, &numbers, i32::MAX as usize)?;
            }
            _ if input.is_state => exec.state_mut(&input.name)?.copy_from_slice(&floats),
            _ => exec.set_input_f32(&input.name, &floats)?,
        }
    }
    // What is read before it is written shows.
    exec.poison();
    exec.run(&job.lowered.program.name)?;
    let read = |(name, is_state): &(String, bool)| {
        let values = if *is_state { exec.state(name)? } else { exec.read_f32(name)? };
        Ok((name.clone(), values.to_vec()))
    };
    job.outputs.iter().map(read).collect()
}
