//! The product kernel for AVX-512: register tiles over operands that are packed only where that pays.
//!
//! Sums are cut along k alone, in chunks that depend on k alone, and each element of c is one chain of FMAs per chunk:
//! a product has the same bits however its rows and columns are cut into tasks.

pub mod pack;
mod tile;

use super::Gemm;
use pack::Block;
use std::arch::x86_64::__m512;
use std::cell::RefCell;
use std::sync::LazyLock;
use tile::{Stream, Tile};

/// Rows of a register tile.
const ROWS: usize = 14;
const LANES: usize = 16;
/// Columns of a register tile, and of a packed panel of b.
const COLS: usize = 2 * LANES;
/// Steps of k taken at once: a block of 14 rows of a (21 KiB) then stays in L1.
const MAX_K: usize = 384;
/// Columns of b packed at once: with MAX_K rows 384 KiB of L2.
const MAX_COLS: usize = 256;
/// Row blocks of a column-major a packed at once: with MAX_K columns 189 KiB of L2.
const MAX_BLOCKS: usize = 9;

/// Streams of prefetches beside a tile: a's next block, b's next chunk, a's next chunk.
const STREAMS: usize = 3;
/// Steps of k that a tile's own prefetches run ahead: L2's latency, and the latency of what lies further away.
const AHEAD: usize = 8;
const FAR_AHEAD: usize = 24;

static AVAILABLE: LazyLock<bool> = LazyLock::new(|| is_x86_feature_detected!("avx512f"));

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { a: Vec::new(), b: Vec::new() }) };
}

/// Packing space of one thread.
struct Scratch {
    a: Vec<__m512>,
    b: Vec<__m512>,
}

/// Whether this kernel takes the product, by shape and CPU only: all but those with hardly any columns.
pub fn handles(g: &Gemm) -> bool {
    *AVAILABLE && g.c[2] == 1 && g.n >= 4
}

/// The place and strides of an operand.
#[derive(Clone, Copy)]
struct View {
    ptr: *const f32,
    row: usize,
    col: usize,
}

impl View {
    /// # Safety
    /// The element must lie in the operand.
    unsafe fn at(self, row: usize, col: usize) -> View {
        // SAFETY: the caller's.
        View { ptr: unsafe { self.ptr.add(row * self.row + col * self.col) }, ..self }
    }
}

/// How the register tile gets a block of rows of a.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceOfA {
    InPlace,
    /// Rows are contiguous, but so far apart that they compete for the same lines of L1: copied, each block before use.
    Copied,
    /// Packed by columns, some blocks at a time.
    Packed,
}

impl SourceOfA {
    fn of(a: View, k_step: usize) -> SourceOfA {
        match (a.row, a.col) {
            (row, 1) if rows_in_one_set(row) > 4 => SourceOfA::Copied,
            (_, 1) => SourceOfA::InPlace,
            (1, col) if lines_in_one_set(col, k_step) <= 6 => SourceOfA::InPlace,
            _ => SourceOfA::Packed,
        }
    }
}

/// Of ROWS rows that are `stride` floats apart, how many lie in the same set of L1 (64 sets of lines of 64 bytes).
fn rows_in_one_set(stride: usize) -> usize {
    let set = |row: usize| row * stride / LANES % 64;
    (0..ROWS).map(|i| (0..ROWS).filter(|&j| set(i) == set(j)).count()).max().unwrap_or(0)
}

/// Of `rows` lines that are `stride` floats apart, how many lie in the same set of L2 (2048 sets of lines of 64 bytes).
fn lines_in_one_set(stride: usize, rows: usize) -> usize {
    // Powers of two decide: after 2^15 floats sets repeat.
    rows >> (15 - stride.max(1).trailing_zeros().min(15))
}

/// c = a * b (+ c) for the first matrix of the batch.
///
/// # Safety
/// The CPU has AVX-512 and c's columns are contiguous ([`handles`]); pointers are as for [`Gemm::run`].
pub unsafe fn run(g: &Gemm, a: *const f32, b: *const f32, c: *mut f32) {
    let a = View { ptr: a, row: g.a[1], col: g.a[2] };
    let b = View { ptr: b, row: g.b[1], col: g.b[2] };
    // SAFETY: the caller's.
    SCRATCH.with_borrow_mut(|scratch| unsafe { blocked(g, a, b, c, scratch) });
}

/// # Safety
/// As [`run`].
#[target_feature(enable = "avx512f")]
unsafe fn blocked(g: &Gemm, a: View, b: View, c: *mut f32, scratch: &mut Scratch) {
    let row_blocks = g.m.div_ceil(ROWS);
    let block_start = |block: usize| g.m * block / row_blocks;
    let k_step = g.k.div_ceil(g.k.div_ceil(MAX_K).max(1)).next_multiple_of(LANES).max(LANES);
    let n_step = g.n.div_ceil(g.n.div_ceil(MAX_COLS).max(1)).next_multiple_of(COLS).max(COLS);
    let source = SourceOfA::of(a, k_step);
    let direct_b = b.col == 1 && (row_blocks <= 2 || lines_in_one_set(b.row, k_step) <= 4);
    let by_blocks = source == SourceOfA::Copied || a.col == 1;
    let group = if source == SourceOfA::Packed { MAX_BLOCKS } else { 1 };
    for k0 in (0..g.k.max(1)).step_by(k_step) {
        let k = k_step.min(g.k - k0);
        for n0 in (0..g.n).step_by(n_step) {
            let n = n_step.min(g.n - n0);
            let panels = n.div_ceil(COLS);
            // What comes after this chunk: columns to the right, or the next steps of k from the left.
            let (next_k0, next_n0) = if n0 + n < g.n { (k0, n0 + n) } else { (k0 + k, 0) };
            let (next_k, next_n) = (k_step.min(g.k - next_k0), n_step.min(g.n - next_n0));
            // SAFETY: all ranges lie within the operands; the scratch is sized for the panels written to it.
            unsafe {
                let mut streams = [Stream::EMPTY; STREAMS];
                if next_k > 0 {
                    let tiles = row_blocks * panels;
                    streams[1] = Stream::over(b.at(next_k0, next_n0), next_k, next_n, tiles, k);
                    if !by_blocks && next_k0 > k0 {
                        streams[2] = Stream::over(a.at(0, next_k0), g.m, next_k, tiles, k);
                    }
                }
                let b = b.at(k0, n0);
                if !direct_b {
                    reserve(&mut scratch.b, k * n.div_ceil(LANES));
                    pack::pack_b(b, k, n, scratch.b.as_mut_ptr().cast());
                }
                for first in (0..row_blocks).step_by(group) {
                    let end = (first + group).min(row_blocks);
                    if end < row_blocks {
                        if by_blocks || k0 == 0 && n0 == 0 {
                            let (start, after) =
                                (block_start(end), block_start((end + group).min(row_blocks)));
                            streams[0] =
                                Stream::over(a.at(start, k0), after - start, k, (end - first) * panels, k);
                        }
                    } else if next_k > 0 && by_blocks {
                        let rows = block_start(group.min(row_blocks));
                        streams[0] = Stream::over(a.at(0, next_k0), rows, next_k, (end - first) * panels, k);
                    }
                    let mut blocks = [Block::default(); MAX_BLOCKS];
                    let blocks = &mut blocks[..end - first];
                    let origin = block_start(first);
                    for (i, block) in blocks.iter_mut().enumerate() {
                        let start = block_start(first + i);
                        let rows = block_start(first + i + 1) - start;
                        // Panels lie behind each other, each with 16 floats of room for its last store.
                        *block = Block { start, rows, place: (start - origin) * k + i * LANES };
                    }
                    // An odd number of lines between copied rows spreads them over L1.
                    let stride = (k.div_ceil(LANES) | 1) * LANES;
                    match source {
                        SourceOfA::InPlace => {}
                        SourceOfA::Copied => {
                            let rows = block_start(end) - origin;
                            reserve(&mut scratch.a, rows * stride / LANES);
                            pack::copy_rows(a.at(origin, k0), rows, k, scratch.a.as_mut_ptr().cast(), stride);
                        }
                        SourceOfA::Packed => {
                            let floats = (block_start(end) - origin) * k;
                            reserve(&mut scratch.a, floats.div_ceil(LANES) + blocks.len());
                            pack::pack_a(a.at(0, k0), k, blocks, scratch.a.as_mut_ptr().cast());
                        }
                    }
                    let packed_a: *const f32 = scratch.a.as_ptr().cast();
                    for block in blocks {
                        let a = match source {
                            SourceOfA::InPlace => a.at(block.start, k0),
                            SourceOfA::Copied => View { ptr: packed_a, row: stride, col: 1 },
                            SourceOfA::Packed => {
                                View { ptr: packed_a.add(block.place), row: 1, col: block.rows }
                            }
                        };
                        for j in (0..n).step_by(COLS) {
                            let cols = COLS.min(n - j);
                            let (b, b_row) = if direct_b {
                                (b.at(0, j).ptr, b.row)
                            } else {
                                (scratch.b.as_ptr().cast::<f32>().add(j * k), cols.next_multiple_of(LANES))
                            };
                            let c = c.add(block.start * g.c[1] + n0 + j);
                            let accumulate = g.accumulate || k0 > 0;
                            // What no stream has fetched comes from further away.
                            let ahead = if k0 == 0 && block.start == 0 { FAR_AHEAD } else { AHEAD };
                            let tile = Tile { k, a, b, b_row, c, c_row: g.c[1], cols, accumulate, ahead };
                            tile.run(block.rows, &mut streams);
                        }
                    }
                }
            }
        }
    }
}

/// Makes room for `vectors` vectors.
fn reserve(space: &mut Vec<__m512>, vectors: usize) {
    if space.len() < vectors {
        // SAFETY: all bits zero is a value of __m512.
        space.resize(vectors, unsafe { std::mem::zeroed() });
    }
}
