//! The sweep file as it is written: every key, its type and its default, before rules are checked against each other.
//!
//! Values keep their place in the file ([`Spanned`]) wherever a later check may want to point at them.

use crate::family::FamilyName;
use crate::fit::{IntervalKind, LossColumn, MinimumMethod, NamedLaw, Objective, ParamCount, Starts};
use isoflop_compiler::count::Convention;
use isoflop_runtime::config::Decay;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_spanned::Spanned;
use std::fmt;
use std::marker::PhantomData;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepFile {
    pub sweep: SweepTable,
    pub family: Spanned<FamilyTable>,
    pub plan: PlanTable,
    pub train: TrainTable,
    /// Left out where a sweep is only planned and compiled.
    #[serde(default)]
    pub data: Option<DataTable>,
    #[serde(default)]
    pub executor: ExecutorTable,
    #[serde(default)]
    pub fit: FitTable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepTable {
    /// Letters, digits, `.`, `_` and `-`.
    pub name: Spanned<String>,
    /// Every point is trained once with each of these.
    #[serde(default)]
    pub seeds: Option<Spanned<Vec<u64>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FamilyTable {
    #[serde(default)]
    pub name: Option<Spanned<FamilyName>>,
    #[serde(default)]
    pub vocab_size: Option<Spanned<usize>>,
    #[serde(default)]
    pub seq_len: Option<Spanned<usize>>,
    #[serde(default = "yes")]
    pub tied_embeddings: bool,
    #[serde(default)]
    pub bias: bool,
    #[serde(default)]
    pub rms_eps: Option<Spanned<f64>>,
    #[serde(default)]
    pub init_std: Option<Spanned<f64>>,
    /// Explicit shapes, in place of or beside those of a named family.
    #[serde(default)]
    pub shape: Vec<Spanned<ShapeTable>>,
}

fn yes() -> bool {
    true
}

/// One model of its own shape; what it leaves out comes from `[family]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeTable {
    /// By default the parameter count in short, as `44M`.
    #[serde(default)]
    pub name: Option<Spanned<String>>,
    pub n_layers: usize,
    pub n_heads: usize,
    pub d_head: usize,
    pub d_model: usize,
    /// Four times `d_model` by default.
    #[serde(default)]
    pub d_ff: Option<usize>,
    #[serde(default)]
    pub vocab_size: Option<usize>,
    #[serde(default)]
    pub seq_len: Option<usize>,
    #[serde(default)]
    pub tied_embeddings: Option<bool>,
    #[serde(default)]
    pub bias: Option<bool>,
    #[serde(default)]
    pub lr: Option<Spanned<f64>>,
    #[serde(default)]
    pub batch_tokens: Option<Spanned<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanKind {
    /// FLOP budgets times sizes; tokens follow.
    Isoflop,
    /// Sizes times token counts.
    Grid,
    /// Runs named one by one.
    List,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanTable {
    pub kind: Spanned<PlanKind>,
    /// Budgets in FLOPs, counted by `convention`.
    #[serde(default)]
    pub flops: Option<Spanned<Vec<f64>>>,
    #[serde(default)]
    pub convention: Option<Convention>,
    /// How many sizes around each budget's expected optimum, or names, or all when left out.
    #[serde(default)]
    pub sizes: Option<Spanned<NumberOr<Vec<Spanned<String>>>>>,
    /// Ratio of parameters between neighbouring sizes when `sizes` is a number.
    #[serde(default)]
    pub spacing: Option<Spanned<f64>>,
    /// Where the optimum is expected when `sizes` is a number.
    #[serde(default)]
    pub tokens_per_param: Option<Spanned<f64>>,
    /// Token counts of a grid.
    #[serde(default)]
    pub tokens: Option<Spanned<Vec<f64>>>,
    /// The runs of a list.
    #[serde(default)]
    pub run: Vec<Spanned<RunTable>>,
    /// Points with fewer optimiser steps are left out.
    #[serde(default)]
    pub min_steps: Option<u64>,
    /// Device that predicted times are for: a built-in name or a TOML file.
    #[serde(default)]
    pub device: Option<Spanned<String>>,
}

/// One run of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunTable {
    /// Name of a size of the family.
    pub size: Spanned<String>,
    pub tokens: Spanned<f64>,
    /// In place of those of `[sweep]`.
    #[serde(default)]
    pub seeds: Option<Spanned<Vec<u64>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainTable {
    pub batch_tokens: Spanned<NumberOr<BatchTable>>,
    pub lr: Spanned<NumberOr<LrTable>>,
    #[serde(default)]
    pub schedule: ScheduleTable,
    #[serde(default)]
    pub optimizer: OptimizerTable,
    /// Validations of a run, evenly spread; the last step always has one.
    #[serde(default)]
    pub validations: Option<Spanned<u64>>,
    /// Sequences of one validation.
    #[serde(default)]
    pub validation_sequences: Option<Spanned<usize>>,
    /// Checkpoints of a run, evenly spread; the last step always has one.
    #[serde(default)]
    pub checkpoints: Option<Spanned<u64>>,
    #[serde(default)]
    pub keep_checkpoints: Option<Spanned<usize>>,
    /// Most memory that the program of a step may take, as `2GB`; values are computed again instead of kept where it
    /// would take more.
    #[serde(default)]
    pub memory_budget: Option<Spanned<String>>,
    /// Train loss in nats per token above which a run is given up.
    #[serde(default)]
    pub diverged_above: Option<Spanned<f64>>,
    #[serde(default)]
    pub tensorboard: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchRule {
    Fixed,
    StepLaw,
    Published,
}

/// Tokens of one step.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchTable {
    pub rule: Spanned<BatchRule>,
    /// For `fixed`.
    #[serde(default)]
    pub tokens: Option<Spanned<u64>>,
    /// Limits of `step-law`.
    #[serde(default)]
    pub min: Option<Spanned<u64>>,
    #[serde(default)]
    pub max: Option<Spanned<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LrRule {
    Fixed,
    PerSize,
    Width,
    StepLaw,
    Published,
}

/// Peak learning rate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LrTable {
    pub rule: Spanned<LrRule>,
    /// For `fixed`.
    #[serde(default)]
    pub lr: Option<Spanned<f64>>,
    /// For `width`: the rate is `base / d_model`.
    #[serde(default)]
    pub base: Option<Spanned<f64>>,
    /// For `per-size`: one rate for each size name.
    #[serde(default)]
    pub sizes: Option<Spanned<toml::map::Map<String, toml::Value>>>,
    /// Factor on the rate of any rule.
    #[serde(default)]
    pub scale: Option<Spanned<f64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleTable {
    /// Share of all steps.
    #[serde(default)]
    pub warmup: Option<Spanned<f64>>,
    /// Steps, in place of a share.
    #[serde(default)]
    pub warmup_steps: Option<Spanned<u64>>,
    #[serde(default)]
    pub decay: Option<Decay>,
    /// The last rate as a fraction of the peak.
    #[serde(default, rename = "final")]
    pub final_fraction: Option<Spanned<f64>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    #[default]
    Adamw,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerTable {
    #[serde(default)]
    pub kind: OptimizerKind,
    #[serde(default)]
    pub betas: Option<Spanned<[f64; 2]>>,
    #[serde(default)]
    pub eps: Option<Spanned<f64>>,
    #[serde(default)]
    pub weight_decay: Option<Spanned<f64>>,
    #[serde(default)]
    pub clip: Option<Spanned<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataTable {
    /// A prepared folder (with manifest.json) or one token file, from the working directory.
    pub train: Spanned<String>,
    /// A token file; a prepared folder brings its own.
    #[serde(default)]
    pub validation: Option<Spanned<String>>,
    /// The tokenizer that a prepared folder must have been made with: `bytes`, or a tokenizer.json.
    #[serde(default)]
    pub tokenizer: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecutorKind {
    #[default]
    Local,
    Slurm,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorTable {
    #[serde(default)]
    pub kind: ExecutorKind,
    /// Runs at the same time; by default one for each core.
    #[serde(default)]
    pub jobs: Option<Spanned<usize>>,
    #[serde(default)]
    pub partition: Option<Spanned<String>>,
    #[serde(default)]
    pub account: Option<Spanned<String>>,
    #[serde(default)]
    pub qos: Option<Spanned<String>>,
    #[serde(default)]
    pub constraint: Option<Spanned<String>>,
    /// Of one job, in one of Slurm's forms or as `4h`; by default from the predicted time of each run.
    #[serde(default)]
    pub time_limit: Option<Spanned<String>>,
    #[serde(default)]
    pub cpus_per_task: Option<Spanned<u32>>,
    /// Of one job, as `4GB`; by default from the planned memory of each run.
    #[serde(default)]
    pub mem: Option<Spanned<String>>,
    /// Runs of one array at the same time; by default as many as the cluster lets.
    #[serde(default)]
    pub max_running: Option<Spanned<u32>>,
    /// The program that trains, where the nodes have another one than the login node.
    #[serde(default)]
    pub worker: Option<Spanned<String>>,
    /// Options of sbatch, passed on as they are.
    #[serde(default)]
    pub sbatch: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitTable {
    #[serde(default)]
    pub approaches: Option<Spanned<Vec<u8>>>,
    /// The law of approach 3; in its place `fix_e` or `tie_exponents`.
    #[serde(default)]
    pub form: Option<Spanned<NamedLaw>>,
    #[serde(default)]
    pub fix_e: Option<Spanned<f64>>,
    #[serde(default)]
    pub tie_exponents: Option<Spanned<bool>>,
    /// Other laws beside it.
    #[serde(default)]
    pub also: Option<Vec<NamedLaw>>,
    #[serde(default)]
    pub objective: Option<Objective>,
    /// Width of the quadratic part of the Huber terms.
    #[serde(default)]
    pub delta: Option<Spanned<f64>>,
    #[serde(default)]
    pub starts: Option<Starts>,
    #[serde(default)]
    pub minimum: Option<MinimumMethod>,
    #[serde(default)]
    pub interval: Option<Spanned<Vec<IntervalKind>>>,
    #[serde(default)]
    pub stratify: Option<bool>,
    #[serde(default)]
    pub seed_weights: Option<bool>,
    #[serde(default)]
    pub bootstrap: Option<Spanned<usize>>,
    /// Share of resamples inside an interval.
    #[serde(default)]
    pub level: Option<Spanned<f64>>,
    #[serde(default)]
    pub seed: Option<u64>,
    #[serde(default)]
    pub loss: Option<LossColumn>,
    #[serde(default)]
    pub params: Option<ParamCount>,
    /// FLOPs to extrapolate to.
    #[serde(default)]
    pub targets: Option<Spanned<Vec<f64>>>,
}

/// A plain number, or something longer. Unlike serde's untagged enums it keeps the places of what is inside.
#[derive(Debug)]
pub enum NumberOr<T> {
    Number(f64),
    Other(T),
}

/// Says what the longer form is, for messages.
pub trait LongForm: Sized {
    const EXPECTING: &'static str;
}

impl LongForm for Vec<Spanned<String>> {
    const EXPECTING: &'static str = "a number of sizes or a list of size names";
}

impl LongForm for BatchTable {
    const EXPECTING: &'static str = "a number of tokens or a table { rule = \"step-law\" }";
}

impl LongForm for LrTable {
    const EXPECTING: &'static str = "a learning rate or a table { rule = \"width\", base = 0.16 }";
}

impl<'de, T: LongForm + Deserialize<'de>> Deserialize<'de> for NumberOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: LongForm + Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = NumberOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTING)
            }

            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Self::Value, E> {
                Ok(NumberOr::Number(v as f64))
            }

            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Self::Value, E> {
                Ok(NumberOr::Number(v as f64))
            }

            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Self::Value, E> {
                Ok(NumberOr::Number(v))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(NumberOr::Other)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                T::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(NumberOr::Other)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}
