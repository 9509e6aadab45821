//! How a kernel is spread over a GPU: threads of a block, lanes that share a row, elements that a lane takes at once, and
//! blocks. All but the number of blocks is part of the kernel's code.

use super::kernel::{KernelSpec, Kind, partial};
use crate::fuse::body::{Access, Body, Level, Source};
use crate::machine::Cuda;
use isoflop_kernels::DType;
use isoflop_kernels::program::CudaLaunch;

/// Threads of a block where rows do not say otherwise.
const THREADS: usize = 256;
/// Threads of a block whose groups of lanes are at most a warp.
const THREADS_OF_WARPS: usize = 128;
const WARP: usize = 32;
/// Threads that a multiprocessor holds at once.
const THREADS_OF_MULTIPROCESSOR: usize = 2048;
/// The same for kernels whose groups each leave a partial result that another kernel adds up: fewer, longer groups.
const THREADS_WITH_PARTIALS: usize = 1024;
/// Rows or vectors that such a group takes, at least.
const WORK_OF_A_PARTIAL: usize = 8;
/// Vectors of a row that one lane takes, before a row gets more lanes than a warp.
const VECTORS_OF_LANE: usize = 4;
/// Columns that a block of a `Finish` kernel adds up side by side.
pub const FINISH_COLUMNS: usize = 32;

/// The spread of one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Of a block, a multiple of `lanes`.
    pub threads: usize,
    /// Threads that share a row: a power of two, `threads` where it is more than a warp.
    pub lanes: usize,
    /// Neighbouring elements that a lane takes at once.
    pub vector: usize,
    pub blocks: usize,
    /// Threads run over elements; otherwise groups of `lanes` run over rows and lanes over columns.
    pub flat: bool,
}

impl Grid {
    /// Of a kernel on this GPU.
    pub fn of(spec: &KernelSpec, gpu: &Cuda) -> Grid {
        match &spec.kind {
            Kind::Region(body) if body.split.is_some() => rows(spec, body, gpu),
            Kind::Region(body) => {
                let vector = vector(body, spec, spec.rows);
                let partials = has_partials(spec, body);
                flat(spec.rows / vector, vector, partials, gpu)
            }
            Kind::Move { .. } => flat(spec.rows, 1, false, gpu),
            Kind::Finish { width: 1, .. } => Grid { blocks: 1, ..flat(1, 1, false, gpu) },
            Kind::Finish { width, .. } => {
                Grid { blocks: width.div_ceil(FINISH_COLUMNS), ..flat(1, 1, false, gpu) }
            }
        }
    }

    /// As a program says it.
    pub fn launch(&self) -> CudaLaunch {
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        CudaLaunch { blocks: size(self.blocks), threads: size(self.threads) }
    }

    /// Groups of lanes: each leaves one partial result where rows are reduced.
    pub fn groups(&self) -> usize {
        if self.flat { self.blocks } else { self.blocks * (self.threads / self.lanes) }
    }
}

fn flat(vectors: usize, vector: usize, partials: bool, gpu: &Cuda) -> Grid {
    let (work, held) = match partials {
        true => (WORK_OF_A_PARTIAL, THREADS_WITH_PARTIALS),
        false => (1, THREADS_OF_MULTIPROCESSOR),
    };
    let most = gpu.multiprocessors.max(1) * (held / THREADS);
    let blocks = vectors.div_ceil(THREADS * work).clamp(1, most);
    Grid { threads: THREADS, lanes: THREADS, vector, blocks, flat: true }
}

fn rows(spec: &KernelSpec, body: &Body, gpu: &Cuda) -> Grid {
    let columns = body.columns();
    let vector = vector(body, spec, columns);
    let vectors = (columns / vector).max(1);
    let partials = has_partials(spec, body);
    // A partial result for each column is added to in memory, and every group has its own: few groups of many lanes.
    let of_lane = if partials { 1 } else { VECTORS_OF_LANE };
    let lanes = if vectors <= WARP * of_lane {
        vectors.next_power_of_two().min(WARP)
    } else {
        vectors.div_ceil(of_lane).next_power_of_two().clamp(2 * WARP, 1024)
    };
    let threads = match lanes {
        l if l > WARP => l,
        _ if partials => WARP,
        _ => THREADS_OF_WARPS,
    };
    let groups = threads / lanes;
    let (work, held) = match partials {
        true => (WORK_OF_A_PARTIAL, THREADS_WITH_PARTIALS),
        false => (1, THREADS_OF_MULTIPROCESSOR),
    };
    let most = gpu.multiprocessors.max(1) * (held / threads);
    let blocks = spec.rows.div_ceil(groups * work).clamp(1, most);
    Grid { threads, lanes, vector, blocks, flat: false }
}

fn has_partials(spec: &KernelSpec, body: &Body) -> bool {
    spec.outputs.iter().any(|o| partial(body, &body.items[o.item]).is_some())
}

/// Elements of a lane: 16 bytes of what is narrowest, at most 8 and at least 4 elements, halved until they divide `length`.
fn vector(body: &Body, spec: &KernelSpec, length: usize) -> usize {
    let mut types = memory_types(body, spec);
    let widest = if types.any(|d| d == DType::Bf16) { 8 } else { 4 };
    [8, 4, 2].into_iter().find(|&v| v <= widest && length > 0 && length.is_multiple_of(v)).unwrap_or(1)
}

/// Element types of what is read and written element by element.
fn memory_types<'a>(body: &'a Body, spec: &'a KernelSpec) -> impl Iterator<Item = DType> + 'a {
    let direct = body.items.iter().filter(|i| i.level == Level::Full).flat_map(|i| &i.sources);
    let read = direct.filter_map(|s| match *s {
        Source::Input { index, access: Access::Direct } => Some(body.input_types[index].dtype),
        _ => None,
    });
    let written = spec.outputs.iter().filter(|o| body.result_level(o.item) == Level::Full);
    read.chain(written.map(|o| o.ty.dtype))
}
