//! What kernels take of a machine, by size of model: one line for each kernel of a training step.

use super::nvrtc::{self, Compiled, NvrtcError};
use super::occupancy::blocks_per_multiprocessor;
use super::sass::{self, Accesses, SassError};
use super::{Arch, Call, Kernel, Launch, ShapeError, attention, embedding, head, optimizer};
use crate::DType;
use crate::cpu::attention::RelAttention;
use std::collections::BTreeMap;

/// The shape of a model, as far as hand-written kernels see it.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: String,
    pub heads: usize,
    pub d_head: usize,
    pub d_model: usize,
    pub seq_len: usize,
    pub vocab_size: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error(transparent)]
    Compile(#[from] NvrtcError),
    #[error(transparent)]
    Listing(#[from] SassError),
}

/// One kernel of one model on one machine.
#[derive(Clone, Debug)]
pub struct Row {
    pub model: String,
    pub arch: Arch,
    pub dtype: DType,
    pub kernel: &'static str,
    pub threads: u32,
    pub registers: u32,
    pub spill_bytes: u32,
    pub shared_bytes: u32,
    pub blocks_per_multiprocessor: u32,
    pub accesses: Accesses,
}

/// The names of [`Row::csv`]'s columns.
pub const COLUMNS: &str = "model,arch,dtype,kernel,threads,registers,spill_bytes,shared_bytes,blocks_per_sm,global_16_bytes,\
    global_narrower,tensor_core_products";

impl Row {
    pub fn csv(&self) -> String {
        let Row { model, arch, dtype, kernel, threads, registers, spill_bytes, shared_bytes, .. } = self;
        let Accesses { wide, narrow, products, .. } = self.accesses;
        let blocks = self.blocks_per_multiprocessor;
        format!(
            "{model},{arch},{dtype},{kernel},{threads},{registers},{spill_bytes},{shared_bytes},{blocks},{wide},{narrow},{products}"
        )
    }
}

/// Rows of tokens that the head gives logits to at once.
const HEAD_ROWS: usize = 2048;

/// The calls of a step of one sequence with elements of a type.
fn calls(model: &Model, dtype: DType) -> Result<Vec<Call>, ShapeError> {
    let Model { heads, d_head, d_model, seq_len, vocab_size, .. } = *model;
    let dims = RelAttention { batch: 1, seq: seq_len, heads, d_head };
    let step = optimizer::AdamW { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, clip: 1.0 };
    let mut calls = vec![embedding::gather(seq_len, d_model, vocab_size, dtype)?];
    for version in attention::versions(dtype) {
        calls.push(attention::forward(&dims, dtype, version)?);
        calls.push(attention::backward(&dims, dtype, version)?);
    }
    calls.extend([
        head::cross_entropy(HEAD_ROWS, vocab_size, dtype, 1.0, true)?,
        head::mean(seq_len)?,
        embedding::scatter_add(seq_len, d_model, vocab_size, dtype, false)?,
        optimizer::adamw(&step, dtype, 1, optimizer::chunks(&[vocab_size * d_model]).len())?,
    ]);
    Ok(calls)
}

/// All kernels of all models, in order of the models, machines and types; each kernel once.
pub fn rows(models: &[Model]) -> Result<Vec<Row>, TableError> {
    // Entry points of one source and one set of macros are compiled together.
    let mut made: BTreeMap<(Kernel, Arch), (Compiled, BTreeMap<String, Accesses>)> = BTreeMap::new();
    let mut rows = vec![];
    for model in models {
        for arch in Arch::ALL {
            for dtype in [DType::F32, DType::Bf16] {
                let launches = calls(model, dtype)?.into_iter().flat_map(|c| c.launches);
                let mut seen: Vec<Kernel> = vec![];
                for Launch { kernel, threads, shared_bytes, .. } in launches {
                    if seen.contains(&kernel) {
                        continue;
                    }
                    seen.push(kernel.clone());
                    let unit = (Kernel { entry: "", ..kernel.clone() }, arch);
                    if !made.contains_key(&unit) {
                        let compiled = nvrtc::compile_kernel(&kernel, arch)?;
                        let counted = sass::accesses(&compiled.cubin)?;
                        made.insert(unit.clone(), (compiled, counted));
                    }
                    let (compiled, counted) = &made[&unit];
                    let of = compiled.resources_of(&kernel, arch)?;
                    let shared = shared_bytes + of.static_shared;
                    rows.push(Row {
                        model: model.name.clone(),
                        arch,
                        dtype,
                        kernel: kernel.entry,
                        threads,
                        registers: of.registers,
                        spill_bytes: of.spill_stores + of.spill_loads,
                        shared_bytes: shared,
                        blocks_per_multiprocessor: blocks_per_multiprocessor(
                            arch,
                            threads,
                            of.registers,
                            shared,
                        ),
                        accesses: counted.get(kernel.entry).copied().unwrap_or_default(),
                    });
                }
            }
        }
    }
    Ok(rows)
}
