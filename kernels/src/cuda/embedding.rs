//! Rows by index and their gradient on CUDA.

use super::{
    Argument, Call, Kernel, Launch, MOST, MOST_BLOCKS, Role, ShapeError, Source, buffer, count, element,
};
use crate::DType;
use Argument::{Buffer as Named, I32};

/// Rows of the gradient that one block owns.
const OWNED: usize = 64;
const THREADS: u32 = 256;
/// Columns of a thread of the scatter.
const COLUMNS: usize = 8;

fn launch(
    entry: &'static str,
    dtype: DType,
    width: usize,
    grid: [u32; 3],
    shared_bytes: u32,
    arguments: Vec<Argument>,
) -> Result<Launch, ShapeError> {
    if width == 0 || !width.is_multiple_of(COLUMNS) {
        return Err(ShapeError::Width { found: width, multiple: COLUMNS });
    }
    let defines = vec![("ELEMENT", element(dtype)?.to_string()), ("OWNED", OWNED.to_string())];
    let kernel = Kernel { source: Source::Embedding, entry, defines };
    Ok(Launch { kernel, grid, threads: THREADS, shared_bytes, arguments })
}

/// `out` [rows, width] = the rows of `table` [vocab, width] that `indices` [rows] name; each must be within 0..vocab.
pub fn gather(rows: usize, width: usize, vocab: usize, dtype: DType) -> Result<Call, ShapeError> {
    let [ints_rows, ints_width] = [count("rows", rows, MOST)? as i32, count("width", width, MOST)? as i32];
    let pieces = (rows * width * dtype.bytes()).div_ceil(16 * THREADS as usize);
    let grid = [count("blocks of the gather", pieces, MOST)?, 1, 1];
    let arguments = vec![Named("table"), Named("indices"), Named("out"), I32(ints_rows), I32(ints_width)];
    Ok(Call {
        buffers: vec![
            buffer("table", dtype, vocab * width, Role::Input),
            buffer("indices", DType::I32, rows, Role::Input),
            buffer("out", dtype, rows * width, Role::Output),
        ],
        launches: vec![launch("embedding_gather", dtype, width, grid, 0, arguments)?],
    })
}

/// `out` f32 [vocab, width] = its old content where `accumulate`, else 0, and the rows of `updates` [rows, width] added where
/// `indices` says, in their order.
pub fn scatter_add(
    rows: usize,
    width: usize,
    vocab: usize,
    dtype: DType,
    accumulate: bool,
) -> Result<Call, ShapeError> {
    let ints = [("rows", rows), ("width", width), ("vocab", vocab)];
    let [rows_int, width_int, vocab_int] = ints.map(|(what, n)| count(what, n, MOST).map(|n| I32(n as i32)));
    let slices = count("slices of columns", width.div_ceil(THREADS as usize * COLUMNS), MOST_BLOCKS)?;
    let grid = [count("blocks of the scatter", vocab.div_ceil(OWNED), MOST)?, slices, 1];
    let arguments = vec![
        Named("indices"),
        Named("updates"),
        Named("out"),
        rows_int?,
        width_int?,
        vocab_int?,
        I32(i32::from(accumulate)),
    ];
    let role = if accumulate { Role::InOut } else { Role::Output };
    Ok(Call {
        buffers: vec![
            buffer("indices", DType::I32, rows, Role::Input),
            buffer("updates", dtype, rows * width, Role::Input),
            buffer("out", DType::F32, vocab * width, role),
        ],
        launches: vec![launch("embedding_scatter_add", dtype, width, grid, (THREADS + 8) * 4, arguments)?],
    })
}
