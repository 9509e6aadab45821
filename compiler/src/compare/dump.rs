//! A dump: every different kernel once, and for each program what it runs. Written as JSON, a line each operation, so
//! that `diff` reads it too.

use super::{Totals, body};
use crate::driver::ProgramPlan;
use crate::lower::Lowered;
use crate::text::any_layer;
use isoflop_kernels::program::{Call, Launch};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thiserror::Error;

/// Version of the format, raised when an older reader would misread a dump.
pub const FORMAT: u32 = 1;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum DumpError {
    #[error("is no dump of `isoflop kernels dump`: {0}")]
    NoDump(String),
    #[error(
        "is a dump of format {found}; this isoflop reads format {FORMAT}. Make both dumps with one isoflop, or let \
         `isoflop kernels diff --rev` make them"
    )]
    Format { found: u64 },
    #[error("two different models are called `{name}` with batch {batch}; a dump names a model once")]
    Ambiguous { name: String, batch: usize },
}

/// What one compiler makes of some models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    pub format: u32,
    pub made_with: MadeWith,
    pub programs: Vec<ProgramDump>,
    /// In the order in which the programs first run them.
    pub kernels: Vec<Kernel>,
}

/// The options that decide what is generated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeWith {
    /// Whose costs decide what is fused.
    pub device: String,
    pub disabled_passes: Vec<String>,
    /// CPU that machine code was made for, if any was.
    pub target: Option<String>,
}

/// One program of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgramDump {
    pub model: String,
    /// Sequences of a step.
    pub batch: usize,
    /// `train` or `eval`.
    pub program: String,
    pub totals: Totals,
    /// Generated kernels, in the order in which they run first.
    pub kernels: Vec<KernelUse>,
    /// Calls into the library, likewise.
    pub calls: Vec<CallUse>,
}

impl ProgramDump {
    /// `44M batch 128 train`.
    pub fn name(&self) -> String {
        format!("{} batch {} {}", self.model, self.batch, self.program)
    }
}

/// How a program uses one kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelUse {
    /// `Kernel::id`.
    pub kernel: String,
    /// How often it runs; each of a grouped launch counts.
    pub times: u64,
    /// Rows of all these times.
    pub rows: u64,
    /// Bytes of the arguments that are read, each once a launch.
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// Labels of the launches with layers as `*`, in the order of the program.
    pub labels: Vec<String>,
}

/// How a program uses one call with one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallUse {
    /// The call with all it depends on.
    pub call: String,
    pub times: u64,
    pub flops: u64,
    pub bytes: u64,
    pub labels: Vec<String>,
}

/// A generated kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// Kind and hash of the two texts.
    pub id: String,
    /// `rows`, `flat`, `finish`, or the operation of a movement.
    pub kind: String,
    /// What it computes.
    pub body: Vec<String>,
    /// What that becomes.
    pub mlir: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

/// What machine code a kernel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    pub instructions: u64,
    /// Of these, on several numbers at once.
    pub vector: u64,
    /// Of these, on one floating-point number.
    pub scalar: u64,
    /// Fused multiply-adds, of either.
    pub fma: u64,
    /// Size of the machine code, without constants.
    pub bytes: u64,
}

impl Dump {
    pub fn new(made_with: MadeWith) -> Dump {
        Dump { format: FORMAT, made_with, programs: Vec::new(), kernels: Vec::new() }
    }

    /// Adds the training step and the loss of a model. The same model a second time is left out.
    ///
    /// # Errors
    /// When another model has this name and batch.
    pub fn add(&mut self, model: &str, batch: usize, plan: &ProgramPlan) -> Result<(), DumpError> {
        for lowered in [&plan.train, &plan.eval] {
            let program = self.program(model, batch, lowered);
            match self.programs.iter().find(|p| p.name() == program.name()) {
                Some(same) if *same == program => {}
                Some(_) => return Err(DumpError::Ambiguous { name: model.to_owned(), batch }),
                None => self.programs.push(program),
            }
        }
        Ok(())
    }

    fn program(&mut self, model: &str, batch: usize, lowered: &Lowered) -> ProgramDump {
        let p = &lowered.program;
        let mut ids: FxHashMap<&str, String> = FxHashMap::default();
        let mut kernels: Vec<KernelUse> = Vec::new();
        let mut calls: Vec<CallUse> = Vec::new();
        for launch in &p.launches {
            let generated: &[u32] = match &launch.call {
                Call::Generated { kernel } => std::slice::from_ref(kernel),
                Call::Grouped { kernels } => kernels,
                call => {
                    library_call(&mut calls, call, launch);
                    continue;
                }
            };
            let mut args = &launch.args[..];
            for &k in generated {
                let spec = &lowered.kernels[k as usize];
                let symbol = p.kernels[k as usize].symbol.as_str();
                let id = ids.entry(symbol).or_insert_with(|| self.kernel(lowered, k)).clone();
                let at = kernels.iter().position(|u| u.kernel == id).unwrap_or_else(|| {
                    let (times, rows, bytes_read, bytes_written) = (0, 0, 0, 0);
                    kernels.push(KernelUse {
                        kernel: id,
                        times,
                        rows,
                        bytes_read,
                        bytes_written,
                        labels: Vec::new(),
                    });
                    kernels.len() - 1
                });
                let of_this;
                (of_this, args) = args.split_at(spec.n_args().min(args.len()));
                let bytes = |wanted: &dyn Fn(&(bool, bool)) -> bool| -> u64 {
                    let uses = spec.reads_and_writes();
                    let wanted = of_this.iter().zip(&uses).filter(|(_, u)| wanted(u)).map(|(b, _)| b);
                    let distinct: BTreeSet<_> = wanted.collect();
                    distinct.iter().map(|&&b| p.buffers[b as usize].bytes()).sum()
                };
                let used = &mut kernels[at];
                used.times += 1;
                used.rows += spec.rows as u64;
                used.bytes_read += bytes(&|u| u.0);
                used.bytes_written += bytes(&|u| u.1);
                label(&mut used.labels, launch);
            }
        }
        let (model, program) = (model.to_owned(), p.name.clone());
        ProgramDump { model, batch, program, totals: Totals::of(lowered), kernels, calls }
    }

    /// The id of a kernel, which is added if it is new.
    fn kernel(&mut self, lowered: &Lowered, k: u32) -> String {
        let spec = &lowered.kernels[k as usize];
        let (body, mlir) = (body::operations(spec), body::mlir(spec));
        let mut hasher = blake3::Hasher::new();
        for line in body.iter().chain(&mlir) {
            hasher.update(line.as_bytes()).update(b"\n");
        }
        let id = format!("{}-{}", spec.kind(), &hasher.finalize().to_hex()[..12]);
        if self.kernels.iter().all(|k| k.id != id) {
            let kind = spec.kind().to_owned();
            self.kernels.push(Kernel { id: id.clone(), kind, body, mlir, code: None });
        }
        id
    }

    /// As JSON with a line each operation.
    ///
    /// # Errors
    /// When serde refuses, which no dump makes it do.
    pub fn to_text(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads what [`to_text`](Dump::to_text) wrote.
    ///
    /// # Errors
    /// When the text is no dump, or one of another format.
    pub fn parse(text: &str) -> Result<Dump, DumpError> {
        #[derive(Deserialize)]
        struct Head {
            format: u64,
        }
        let no_dump = |e: serde_json::Error| DumpError::NoDump(e.to_string());
        let head: Head = serde_json::from_str(text).map_err(no_dump)?;
        if head.format != u64::from(FORMAT) {
            return Err(DumpError::Format { found: head.format });
        }
        let dump: Dump = serde_json::from_str(text).map_err(no_dump)?;
        let known: BTreeSet<&str> = dump.kernels.iter().map(|k| k.id.as_str()).collect();
        let mut uses = dump.programs.iter().flat_map(|p| &p.kernels);
        match uses.find(|u| !known.contains(u.kernel.as_str())) {
            Some(u) => {
                Err(DumpError::NoDump(format!("a program runs `{}`, which it does not hold", u.kernel)))
            }
            None => Ok(dump),
        }
    }
}

fn label(labels: &mut Vec<String>, launch: &Launch) {
    let label = any_layer(&launch.label);
    if !labels.contains(&label) {
        labels.push(label);
    }
}

fn library_call(calls: &mut Vec<CallUse>, call: &Call, launch: &Launch) {
    let call = words(call);
    let at = calls.iter().position(|c| c.call == call).unwrap_or_else(|| {
        calls.push(CallUse { call, times: 0, flops: 0, bytes: 0, labels: Vec::new() });
        calls.len() - 1
    });
    let used = &mut calls[at];
    used.times += 1;
    used.flops += launch.flops;
    used.bytes += launch.bytes;
    label(&mut used.labels, launch);
}

/// A library call with everything it depends on but the pointers.
fn words(call: &Call) -> String {
    match call {
        Call::Generated { .. } | Call::Grouped { .. } => String::new(),
        Call::Gemm(g) | Call::GemmSquares(g) => {
            let strides = |s: [usize; 3]| s.map(|n| n.to_string()).join(",");
            let add = if g.accumulate { " added" } else { "" };
            let squares = if matches!(call, Call::GemmSquares(_)) { " and squares" } else { "" };
            let (a, b, c) = (strides(g.a), strides(g.b), strides(g.c));
            format!("gemm {}x{}x{}x{} a[{a}] b[{b}] c[{c}]{add}{squares}", g.batch, g.m, g.n, g.k)
        }
        Call::RelAttentionForward(a) | Call::RelAttentionBackward(a) => {
            let way = if matches!(call, Call::RelAttentionForward(_)) { "forward" } else { "backward" };
            format!("attention {way}: {} sequences of {}, {} heads of {}", a.batch, a.seq, a.heads, a.d_head)
        }
        Call::Head(h) => {
            let gradients = if h.gradients { " and gradients" } else { "" };
            format!(
                "head loss{gradients}: {} rows of {}, vocabulary {}, {} at once",
                h.rows, h.width, h.vocab, h.chunk
            )
        }
        Call::Gather { rows, width, vocab } => format!("gather {rows} rows of {width} from {vocab}"),
        Call::ScatterAdd { rows, width, vocab, accumulate } => {
            let add = if *accumulate { " added" } else { "" };
            format!("scatter-add {rows} rows of {width} to {vocab}{add}")
        }
        Call::Copy { bytes } => format!("copy {bytes} bytes"),
    }
}
