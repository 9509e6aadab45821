//! What a program is: buffers with their places, and an ordered list of kernel launches over them.
//!
//! A program is the compiler's output and the runtime's input. It names every buffer once, gives arena buffers a
//! static offset, and lists launches in waves: launches of one wave touch no byte that another of the same wave
//! writes, so they may run side by side; a barrier stands between waves.
//!
//! Parallelism is part of the program, not of the machine: every launch is cut into a fixed number of tasks that
//! depends on shapes only. Any number of threads therefore produces the same bits.

use crate::DType;
use crate::cpu::attention::RelAttention;
use crate::cpu::gemm::Gemm;
use crate::cpu::head::Head;
use serde::{Deserialize, Serialize};

/// Where a buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Space {
    /// Parameters and optimiser moments: live across steps, shared by all programs of an artifact by name.
    State,
    /// Written by the host before a call: `tokens`, `targets`, `lr`, `bias_correction1`, `bias_correction2`, `rel_pos`.
    Input,
    /// Read by the host after a call: `loss`, `grad_norm`, and `grad.*` where the program was asked for them.
    Output,
    /// Temporary, at a fixed offset of the one arena.
    Arena,
    /// A constant table the runtime fills once when it loads the program.
    Table,
}

/// How a state or table buffer is filled before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Init {
    Zeros,
    Ones,
    /// Normal with mean 0, drawn from a stream seeded by (run seed, buffer name).
    Normal {
        std: f64,
    },
    /// The sinusoidal table of relative positions, shape [seq_len, d_model]. Row p belongs to distance
    /// t = seq_len-1-p, and holds sin(t w_k) in its first half and cos(t w_k) in its second, w_k = 10000^(-2k/d_model),
    /// computed in f64 and rounded once (Dai et al. 2019).
    RelativeSinusoid,
}

/// Index into [`Program::buffers`].
pub type BufferId = u32;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buffer {
    /// Unique. State buffers: `param.<name>`, `adam_m.<name>`, `adam_v.<name>`.
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub space: Space,
    /// Bytes from the start of the arena, a multiple of [`ALIGN`]; 0 outside the arena.
    pub offset: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
}

/// Alignment in bytes of every buffer, as generated kernels assume it.
pub const ALIGN: u64 = 64;

impl Buffer {
    /// Of a program that passed [`Program::check_sizes`].
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Of a program that passed [`Program::check_sizes`].
    pub fn bytes(&self) -> u64 {
        (self.elements() * self.dtype.bytes()) as u64
    }
}

/// A generated kernel: for a CPU a symbol of the artifact's shared object with the C signature
/// `void symbol(void *arg0, ..., void *argN-1, int64_t row_begin, int64_t row_end)`, for a GPU an entry of its PTX.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeneratedKernel {
    pub symbol: String,
    pub n_args: u32,
    /// Rows of the iteration space, cut into tasks of `rows_per_task` (the last may be shorter).
    pub rows: u64,
    pub rows_per_task: u64,
    /// Scalar operations of all rows, about: vector instructions times their width. For predictions of time.
    #[serde(default)]
    pub operations: u64,
    /// How it is launched on a GPU; none in programs for a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaLaunch>,
}

/// The launch of a generated kernel on an NVIDIA GPU, in one dimension. Its entry is
/// `symbol(void *arg0, ..., void *argN-1, int64_t rows)`: every argument a buffer in global memory, then all its rows.
/// Shared memory is part of the code: none is passed to the launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CudaLaunch {
    /// Blocks of the grid. The sizes of partial results follow from it, so no other number will do.
    pub blocks: u32,
    /// Threads of a block, as the code requires them.
    pub threads: u32,
}

impl GeneratedKernel {
    pub fn tasks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_task.max(1)) as usize
    }
}

/// What a launch executes. Arguments are listed in the order each kernel documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub enum Call {
    /// Index into [`Program::kernels`]; args in the kernel's own order.
    Generated { kernel: u32 },
    /// The same code over different buffers, as one launch: kernels of one symbol, each with rows of its own. args: those
    /// of the first kernel, then those of the second, and so on.
    Grouped { kernels: Vec<u32> },
    /// args: a, b, c.
    Gemm(Gemm),
    /// A product that also sums the squares of what it writes while that is in cache: args a, b, c, squares [tasks],
    /// a sum for each task in the order of tasks.
    GemmSquares(Gemm),
    /// args: qkv, rel, u, v, out, lse, workspace.
    RelAttentionForward(RelAttention),
    /// args: qkv, rel, u, v, out, lse, dout, dqkv, drel, du, dv, workspace.
    RelAttentionBackward(RelAttention),
    /// args: h, table, targets, loss, with gradients dh and dtable, workspace.
    Head(Head),
    /// out[i, :] = table[indices[i], :]. args: table [vocab, width] f32, indices [rows] i32, out [rows, width] f32.
    Gather { rows: usize, width: usize, vocab: usize },
    /// out[v, :] = sum over i with indices[i] = v of updates[i, :], in order of i; with `accumulate` that is added to what
    /// out held, and rows never named keep it, else they are zero.
    /// args: indices [rows] i32, updates [rows, width] f32, out [vocab, width] f32.
    ScatterAdd {
        rows: usize,
        width: usize,
        vocab: usize,
        #[serde(default)]
        accumulate: bool,
    },
    /// args: source, destination; `bytes` copied.
    Copy {
        // In JSON a call's fields stand beside the launch's own, which have `bytes` already.
        #[serde(rename = "copied_bytes")]
        bytes: u64,
    },
}

impl Call {
    /// Whether the call writes argument `arg` of its `args`; none for generated kernels, of which only the compiler knows.
    pub fn writes(&self, arg: usize, args: usize) -> Option<bool> {
        Some(match self {
            Call::Generated { .. } | Call::Grouped { .. } => return None,
            Call::GemmSquares(_) => arg >= 2,
            Call::RelAttentionForward(_) => arg >= 4,
            Call::RelAttentionBackward(_) => arg >= 7,
            Call::Head(_) => arg >= 3,
            // One result, the last argument.
            Call::Gemm(_) | Call::Gather { .. } | Call::ScatterAdd { .. } | Call::Copy { .. } => {
                arg + 1 == args
            }
        })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    #[serde(flatten)]
    pub call: Call,
    pub args: Vec<BufferId>,
    /// Launches with equal wave are independent; waves never decrease along the list.
    pub wave: u32,
    /// For people: what this launch computes, e.g. `layers.0.norm1`.
    pub label: String,
    /// Floating-point operations of products of matrices in this launch, causal half counted.
    pub flops: u64,
    /// Bytes that must move: every distinct argument read or written once.
    pub bytes: u64,
}

/// Launches of one wave that are cut together: task t runs its part of the rows of each, one after another, so that
/// what one launch writes is still in the nearest caches when the next reads it, and no barrier stands between them.
///
/// Members are generated kernels and products. With `rows` rows in the chain a member of f * rows rows of its own does
/// its rows f * begin..f * end for the chain's rows begin..end. Whatever a member reads of another's result lies in
/// the same part of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The first of its launches; the others follow.
    pub first: u32,
    pub launches: u32,
    pub rows: u64,
    pub rows_per_task: u64,
}

impl Chain {
    pub fn tasks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_task.max(1)) as usize
    }

    /// Indices of its launches.
    pub fn members(&self) -> std::ops::Range<usize> {
        self.first as usize..self.first as usize + self.launches as usize
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// `train` or `eval`, or the graph's name.
    pub name: String,
    pub buffers: Vec<Buffer>,
    pub arena_bytes: u64,
    /// The largest set of bytes alive at once: no placement can need less.
    pub arena_lower_bound: u64,
    pub kernels: Vec<GeneratedKernel>,
    pub launches: Vec<Launch>,
    /// By first launch; no launch is in two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<Chain>,
}

impl Program {
    pub fn buffer(&self, name: &str) -> Option<(BufferId, &Buffer)> {
        self.buffers.iter().enumerate().find(|(_, b)| b.name == name).map(|(i, b)| (i as BufferId, b))
    }

    /// Bytes of all buffers in `space`; for the arena its size, not the sum of what shares it.
    pub fn bytes_in(&self, space: Space) -> u64 {
        match space {
            Space::Arena => self.arena_bytes,
            _ => self
                .buffers
                .iter()
                .filter(|b| b.space == space)
                .map(|b| b.bytes().next_multiple_of(ALIGN))
                .sum(),
        }
    }

    /// Bytes the runtime allocates to hold this program: state, inputs, outputs, tables and arena.
    pub fn total_bytes(&self) -> u64 {
        [Space::State, Space::Input, Space::Output, Space::Table, Space::Arena]
            .into_iter()
            .map(|s| self.bytes_in(s))
            .sum()
    }
}
