//! The product kernel for AVX-512: register tiles over operands that are packed only where that pays.
//!
//! Sums are cut along k alone, in chunks that depend on k alone, and each element of c is one chain of FMAs per chunk:
//! a product has the same bits however its rows and columns are cut into tasks.

pub mod pack;
mod tile;

use super::Gemm;
use pack::Panel;
use std::arch::x86_64::__m512;
use std::cell::RefCell;
use std::ops::Range;
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

/// Lines of one set that an operand read in place may need at once: all but one of L1's ways, and of L2's all but what
/// the other operand needs. Copying costs about 0.3 cycles an element, up to 4 % of the arithmetic on 128 columns.
const L1_WAYS: usize = 7;
const L2_WAYS: usize = 6;
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

/// Whether this kernel takes the product, by shape and CPU only.
pub fn handles(g: &Gemm) -> bool {
    *AVAILABLE && takes(g)
}

/// Whether this kernel is made for the product: all but those with hardly any columns.
pub fn takes(g: &Gemm) -> bool {
    g.c[2] == 1 && g.n >= 4
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

/// Of ROWS rows that are `stride` floats apart, how many lie in the same set of L1 (64 sets of lines of 64 bytes).
fn rows_in_one_set(stride: usize) -> usize {
    let set = |row: usize| row * stride / LANES % 64;
    (0..ROWS).map(|i| (0..ROWS).filter(|&j| set(i) == set(j)).count()).max().unwrap_or(0)
}

/// Of `rows` lines that are `stride` floats apart, how many lie in the same set of L2 (2048 sets of lines of 64 bytes).
fn lines_in_one_set(stride: usize, rows: usize) -> usize {
    // Powers of two decide: after 2^15 floats the sets repeat.
    rows >> (15 - stride.max(1).trailing_zeros().min(15))
}

/// Rows cut into blocks of at most ROWS and of nearly equal length, the longer ones first.
#[derive(Clone, Copy)]
struct Blocks {
    count: usize,
    rows: usize,
    longer: usize,
}

impl Blocks {
    fn of(m: usize) -> Blocks {
        let count = m.div_ceil(ROWS);
        Blocks { count, rows: m / count.max(1), longer: m % count.max(1) }
    }

    fn start(self, block: usize) -> usize {
        block * self.rows + block.min(self.longer)
    }
}

/// How the operands of a product are read: by its shape and strides alone.
#[derive(Clone, Copy)]
struct Way {
    blocks: Blocks,
    /// Blocks of a that are got ready at once.
    group: usize,
    source: SourceOfA,
    b_in_place: bool,
    /// Steps of k and columns of c that are taken at once.
    k_step: usize,
    n_step: usize,
}

impl Way {
    fn of(g: &Gemm) -> Way {
        let ([_, a_row, a_col], [_, b_row, b_col]) = (g.a, g.b);
        let even = |whole: usize, most: usize, unit: usize| {
            whole.div_ceil(whole.div_ceil(most).max(1)).next_multiple_of(unit).max(unit)
        };
        let k_step = even(g.k, MAX_K, LANES);
        let source = match (a_row, a_col) {
            (row, 1) if rows_in_one_set(row) > L1_WAYS => SourceOfA::Copied,
            (_, 1) => SourceOfA::InPlace,
            (1, col) if lines_in_one_set(col, k_step) <= L2_WAYS => SourceOfA::InPlace,
            _ => SourceOfA::Packed,
        };
        let blocks = Blocks::of(g.m);
        // What is read hardly more than once is not worth packing; what all of many rows read is worth a good place.
        let b_ways = match blocks.count {
            0..=2 => usize::MAX,
            3..=24 => L2_WAYS,
            _ => L2_WAYS / 3,
        };
        let b_in_place = b_col == 1 && lines_in_one_set(b_row, k_step) <= b_ways;
        let group = if source == SourceOfA::Packed { MAX_BLOCKS } else { 1 };
        Way { blocks, group, source, b_in_place, k_step, n_step: even(g.n, MAX_COLS, COLS) }
    }

    /// Vectors of scratch for `rows` rows of a, in `blocks` blocks, and k steps.
    fn vectors_of_a(&self, rows: usize, blocks: usize, k: usize) -> usize {
        match self.source {
            SourceOfA::InPlace => 0,
            SourceOfA::Copied => rows * copied_stride(k) / LANES,
            SourceOfA::Packed => (rows * k).div_ceil(LANES) + blocks,
        }
    }

    /// Vectors of scratch for n columns of b and k steps.
    fn vectors_of_b(&self, n: usize, k: usize) -> usize {
        if self.b_in_place { 0 } else { k * n.div_ceil(LANES) }
    }
}

/// Bytes of packing space that [`run`] takes of its thread for a and for b of this product.
pub fn packing_bytes(g: &Gemm) -> [usize; 2] {
    let way = Way::of(g);
    let (k, n, blocks) = (way.k_step.min(g.k), way.n_step.min(g.n), way.group.min(way.blocks.count));
    let a = way.vectors_of_a(way.blocks.start(blocks), blocks, k);
    [a, way.vectors_of_b(n, k)].map(|vectors| vectors * size_of::<__m512>())
}

/// Makes room on this thread for so many bytes of packed a and b, so that no product of theirs grows it.
pub fn reserve_packing([a, b]: [usize; 2]) {
    SCRATCH.with_borrow_mut(|scratch| {
        for (space, bytes) in [(&mut scratch.a, a), (&mut scratch.b, b)] {
            space.reserve_exact((bytes / size_of::<__m512>()).saturating_sub(space.len()));
        }
    });
}

/// Bytes of packed a and b that this thread holds now.
#[cfg(test)]
pub fn packed_bytes() -> [usize; 2] {
    SCRATCH.with_borrow(|scratch| [&scratch.a, &scratch.b].map(|space| size_of_val(&space[..])))
}

/// A product, its operands and how they are read.
struct Product<'a> {
    g: &'a Gemm,
    a: View,
    b: View,
    c: *mut f32,
    way: Way,
}

/// Steps of k and columns that are taken at once.
#[derive(Clone, Copy)]
struct Chunk {
    k0: usize,
    k: usize,
    n0: usize,
    n: usize,
}

/// c = a * b (+ c) for the first matrix of the batch.
///
/// # Safety
/// The CPU has AVX-512 and c's columns are contiguous ([`handles`]); pointers are as for [`Gemm::run`].
pub unsafe fn run(g: &Gemm, a: *const f32, b: *const f32, c: *mut f32) {
    let a = View { ptr: a, row: g.a[1], col: g.a[2] };
    let b = View { ptr: b, row: g.b[1], col: g.b[2] };
    let product = Product { g, a, b, c, way: Way::of(g) };
    SCRATCH.with_borrow_mut(|scratch| {
        for k0 in (0..g.k.max(1)).step_by(product.way.k_step) {
            for n0 in (0..g.n).step_by(product.way.n_step) {
                // SAFETY: the caller's, and the chunk lies within the product.
                unsafe { product.run(product.chunk(k0, n0), scratch) };
            }
        }
    });
}

impl Product<'_> {
    fn chunk(&self, k0: usize, n0: usize) -> Chunk {
        Chunk { k0, k: self.way.k_step.min(self.g.k - k0), n0, n: self.way.n_step.min(self.g.n - n0) }
    }

    /// What comes after a chunk: columns to the right, or the next steps of k from the left.
    fn after(&self, chunk: Chunk) -> Option<Chunk> {
        if chunk.n0 + chunk.n < self.g.n {
            Some(self.chunk(chunk.k0, chunk.n0 + chunk.n))
        } else if chunk.k0 + chunk.k < self.g.k {
            Some(self.chunk(chunk.k0 + chunk.k, 0))
        } else {
            None
        }
    }

    /// Adds a chunk's products to c, or sets c to those of the first chunk.
    ///
    /// # Safety
    /// As [`run`].
    #[target_feature(enable = "avx512f")]
    unsafe fn run(&self, chunk: Chunk, scratch: &mut Scratch) {
        let Chunk { k0, k, n0, n } = chunk;
        // SAFETY: all ranges lie within the operands; the scratch is sized for the panels written to it.
        unsafe {
            let mut streams = self.streams(chunk);
            let b = self.b.at(k0, n0);
            if !self.way.b_in_place {
                reserve(&mut scratch.b, self.way.vectors_of_b(n, k));
                pack::pack_b(b, k, n, scratch.b.as_mut_ptr().cast());
            }
            for first in (0..self.way.blocks.count).step_by(self.way.group) {
                let blocks = first..(first + self.way.group).min(self.way.blocks.count);
                if let Some(stream) = self.next_blocks(chunk, blocks.clone()) {
                    streams[0] = stream;
                }
                let packed = self.prepare(chunk, blocks.clone(), &mut scratch.a);
                for block in blocks {
                    let panel = self.panel(chunk, first, block, packed);
                    // What no stream has fetched comes from further away.
                    let ahead = if k0 == 0 && panel.start == 0 { FAR_AHEAD } else { AHEAD };
                    for j in (0..n).step_by(COLS) {
                        let cols = COLS.min(n - j);
                        let (b, b_row) = if self.way.b_in_place {
                            (b.at(0, j).ptr, b.row)
                        } else {
                            (scratch.b.as_ptr().cast::<f32>().add(j * k), cols.next_multiple_of(LANES))
                        };
                        let c = self.c.add(panel.start * self.g.c[1] + n0 + j);
                        let (c_row, accumulate) = (self.g.c[1], self.g.accumulate || k0 > 0);
                        let tile = Tile { k, a: panel.view, b, b_row, c, c_row, cols, accumulate, ahead };
                        tile.run(panel.rows, &mut streams);
                    }
                }
            }
        }
    }

    /// Whether the next rows of a are fetched block by block. Where its columns are contiguous, lines hold rows of
    /// several blocks, and all rows are fetched together for the next steps of k.
    fn streams_rows(&self) -> bool {
        self.a.col == 1
    }

    /// What is fetched beside a whole chunk: the operands of the next one.
    fn streams(&self, chunk: Chunk) -> [Stream; STREAMS] {
        let mut streams = [Stream::EMPTY; STREAMS];
        let tiles = self.way.blocks.count * chunk.n.div_ceil(COLS);
        if let Some(next) = self.after(chunk) {
            // SAFETY: the next chunk lies within the operands.
            let (a, b) = unsafe { (self.a.at(0, next.k0), self.b.at(next.k0, next.n0)) };
            streams[1] = Stream::over(b, next.k, next.n, tiles, chunk.k);
            if !self.streams_rows() && next.k0 > chunk.k0 {
                streams[2] = Stream::over(a, self.g.m, next.k, tiles, chunk.k);
            }
        }
        streams
    }

    /// What is fetched beside some blocks: the rows of a after them, where nothing else fetches those.
    fn next_blocks(&self, chunk: Chunk, blocks: Range<usize>) -> Option<Stream> {
        let tiles = blocks.len() * chunk.n.div_ceil(COLS);
        let (start, k0, k) = if blocks.end < self.way.blocks.count {
            if !self.streams_rows() && (chunk.k0 > 0 || chunk.n0 > 0) {
                return None;
            }
            (blocks.end, chunk.k0, chunk.k)
        } else {
            let next = self.after(chunk).filter(|_| self.streams_rows())?;
            (0, next.k0, next.k)
        };
        let rows = self.way.blocks.start(start)
            ..self.way.blocks.start((start + self.way.group).min(self.way.blocks.count));
        // SAFETY: the rows and columns lie within a.
        let a = unsafe { self.a.at(rows.start, k0) };
        Some(Stream::over(a, rows.len(), k, tiles, chunk.k))
    }

    /// Copies or packs blocks of a for a chunk where that is how they are read, and returns where to.
    ///
    /// # Safety
    /// As [`run`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn prepare(&self, chunk: Chunk, blocks: Range<usize>, scratch: &mut Vec<__m512>) -> *mut f32 {
        let Chunk { k0, k, .. } = chunk;
        let rows = self.way.blocks.start(blocks.start)..self.way.blocks.start(blocks.end);
        reserve(scratch, self.way.vectors_of_a(rows.len(), blocks.len(), k));
        // SAFETY: the rows lie within a, and the scratch has room for what is written.
        unsafe {
            match self.way.source {
                SourceOfA::InPlace => {}
                SourceOfA::Copied => {
                    let a = self.a.at(rows.start, k0);
                    pack::copy_rows(a, rows.len(), k, scratch.as_mut_ptr().cast(), copied_stride(k));
                }
                SourceOfA::Packed => {
                    let packed = scratch.as_mut_ptr().cast();
                    let mut panels = [Panel::default(); MAX_BLOCKS];
                    for (panel, block) in panels.iter_mut().zip(blocks.clone()) {
                        *panel = self.panel(chunk, blocks.start, block, packed);
                    }
                    pack::pack_a(self.a.at(0, k0), k, &panels[..blocks.len()]);
                }
            }
        }
        scratch.as_mut_ptr().cast()
    }

    /// Where the register tile reads a block of a; `first` is the first of those prepared together.
    ///
    /// # Safety
    /// `packed` is what `prepare` returns for these blocks.
    #[inline]
    unsafe fn panel(&self, chunk: Chunk, first: usize, block: usize, packed: *mut f32) -> Panel {
        let start = self.way.blocks.start(block);
        let rows = self.way.blocks.start(block + 1) - start;
        let view = match self.way.source {
            // SAFETY: the block lies within a.
            SourceOfA::InPlace => unsafe { self.a.at(start, chunk.k0) },
            SourceOfA::Copied => View { ptr: packed, row: copied_stride(chunk.k), col: 1 },
            SourceOfA::Packed => {
                // Panels lie behind each other, each with 16 floats of room for its last store.
                let place = (start - self.way.blocks.start(first)) * chunk.k + (block - first) * LANES;
                // SAFETY: `prepare` has made room.
                View { ptr: unsafe { packed.add(place) }, row: 1, col: rows }
            }
        };
        Panel { start, rows, view }
    }
}

/// Floats between copied rows of k floats: an odd number of lines spreads them over L1.
fn copied_stride(k: usize) -> usize {
    (k.div_ceil(LANES) | 1) * LANES
}

/// Makes room for `vectors` vectors.
fn reserve(space: &mut Vec<__m512>, vectors: usize) {
    if space.len() < vectors {
        // SAFETY: all bits zero is a value of __m512.
        space.resize(vectors, unsafe { std::mem::zeroed() });
    }
}
