//! The sweep file: reading it, refusing what is wrong with it, and what it means once every default is filled in.

pub mod error;
mod resolve;
mod resolve_executor;
mod resolve_fit;
mod resolve_list;
mod resolve_train;
pub mod schema;

pub use error::{FileError, nearest};
pub use schema::PlanKind;

use crate::family::Size;
use crate::fit::FitOptions;
use error::Source;
use isoflop_compiler::config::{AdamW, ModelConfig};
use isoflop_compiler::count::Convention;
use isoflop_runtime::config::Decay;
use std::path::{Path, PathBuf};

/// A sweep file with every default filled in and every name checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    pub name: String,
    pub seeds: Vec<u64>,
    /// The sizes that `[plan] sizes` or the runs of a list name, in their order; else all of the family.
    pub sizes: Vec<Size>,
    pub plan: PlanSpec,
    pub train: TrainSpec,
    pub data: Option<DataSpec>,
    /// Runs at the same time; none means one for each core.
    pub jobs: Option<usize>,
    /// Where `kind = "slurm"`.
    pub slurm: Option<SlurmSpec>,
    pub fit: FitOptions,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PlanSpec {
    pub points: Points,
    pub convention: Convention,
    /// Points with fewer optimiser steps are left out.
    pub min_steps: u64,
    /// Device of the predicted times: a built-in name or a file.
    pub device: String,
}

/// What is trained for how long.
#[derive(Clone, Debug, PartialEq)]
pub enum Points {
    /// Each budget in FLOPs with the sizes chosen for it.
    Isoflop { flops: Vec<f64>, sizes: SizeChoice },
    /// Each size with each number of tokens.
    Grid { tokens: Vec<f64> },
    /// Runs one by one.
    List { runs: Vec<ListedRun> },
}

/// A run that a sweep file names by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedRun {
    /// Position among [`Sweep::sizes`].
    pub size: usize,
    /// Tokens asked for; a plan rounds them to whole steps.
    pub tokens: f64,
    pub seeds: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SizeChoice {
    /// All of [`Sweep::sizes`] for every budget.
    All,
    /// `count` sizes, `spacing` apart in parameters, around the size that would see `tokens_per_param` tokens for each
    /// of its parameters.
    Around { count: usize, spacing: f64, tokens_per_param: f64 },
}

#[derive(Clone, Debug, PartialEq)]
pub struct TrainSpec {
    pub batch: BatchSpec,
    pub lr: LrSpec,
    /// Factor on the rate of any rule.
    pub lr_scale: f64,
    pub warmup: Warmup,
    pub decay: Decay,
    pub final_fraction: f64,
    pub optimizer: AdamW,
    pub validations: u64,
    pub validation_sequences: usize,
    pub checkpoints: u64,
    pub keep_checkpoints: usize,
    /// Bytes; none keeps whatever the backward pass reads.
    pub memory_budget: Option<u64>,
    /// Nats per token; none means three times the loss of a uniform guess.
    pub diverged_above: Option<f64>,
    pub tensorboard: bool,
}

/// Tokens of one step.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchSpec {
    Fixed(u64),
    /// 0.58 D^0.571 (step law, 2025), rounded to a power of two of sequences so that runs share compiled programs.
    StepLaw {
        min: u64,
        max: u64,
    },
    /// One for each of [`Sweep::sizes`].
    PerSize(Vec<u64>),
}

/// Peak learning rate.
#[derive(Clone, Debug, PartialEq)]
pub enum LrSpec {
    Fixed(f64),
    /// One for each of [`Sweep::sizes`].
    PerSize(Vec<f64>),
    /// `base / d_model`.
    Width {
        base: f64,
    },
    /// 1.79 N^-0.713 D^0.307 (step law, 2025).
    StepLaw,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    /// Of all steps.
    Share(f64),
    Steps(u64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct DataSpec {
    pub train: PathBuf,
    pub validation: Option<PathBuf>,
    /// What a prepared folder must have been made with; none accepts any.
    pub tokenizer: Option<PathBuf>,
}

/// What `[executor]` says of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct SlurmSpec {
    pub partition: Option<String>,
    pub account: Option<String>,
    pub qos: Option<String>,
    pub constraint: Option<String>,
    /// Seconds; none follows from the predicted time of each run.
    pub time_limit: Option<u64>,
    pub cpus_per_task: u32,
    /// Bytes; none follows from the planned memory of each run.
    pub mem: Option<u64>,
    pub max_running: Option<u32>,
    /// None is the program that submits.
    pub worker: Option<PathBuf>,
    /// Options of sbatch, each one argument.
    pub sbatch: Vec<String>,
}

/// Reads and checks a sweep file.
///
/// # Errors
/// When the file cannot be read, is not TOML, has an unknown key, or says something that cannot be.
pub fn read(path: &Path) -> Result<Sweep, ReadError> {
    let text = read_text(path)?;
    Ok(parse(path, &text)?)
}

/// As [`read`] for text that is already here; `path` is used in messages only.
///
/// # Errors
/// As [`read`].
pub fn parse(path: &Path, text: &str) -> Result<Sweep, Box<FileError>> {
    let source = Source { file: path, text };
    let file: schema::SweepFile = toml::from_str(text).map_err(|e| source.from_toml(&e))?;
    resolve::resolve(&source, &file)
}

/// Reads the description of one model; none where the file has no `n_layers` at its top, as a sweep has not.
///
/// # Errors
/// As [`read`].
pub fn read_model(path: &Path) -> Result<Option<ModelConfig>, ReadError> {
    let text = read_text(path)?;
    if !toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.contains_key("n_layers")) {
        return Ok(None);
    }
    let source = Source { file: path, text: &text };
    let model: ModelConfig = toml::from_str(&text).map_err(|e| source.from_toml(&e))?;
    model.check().map_err(|why| source.error(0..0, "", why, None))?;
    Ok(Some(model))
}

fn read_text(path: &Path) -> Result<String, ReadError> {
    std::fs::read_to_string(path).map_err(|source| ReadError::File { file: path.to_owned(), source })
}

/// A sweep file could not be read or is wrong.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ReadError {
    #[error("cannot read {}: {source}", file.display())]
    #[diagnostic(help("sweep files that come with isoflop are in sweeps/examples"))]
    File { file: PathBuf, source: std::io::Error },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Wrong(#[from] Box<FileError>),
}
