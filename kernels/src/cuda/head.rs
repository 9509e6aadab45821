//! The head's cross entropy on CUDA: what lies between its products.

use super::{Argument, Call, Kernel, Launch, MOST, Role, ShapeError, Source, buffer, count, element};
use crate::DType;
use Argument::{Buffer as Named, F32, I32};

const THREADS: u32 = 256;

/// Elements from one row of logits to the next, so that rows are aligned to 16 bytes.
pub fn stride(vocab: usize) -> usize {
    vocab.next_multiple_of(8)
}

fn launch(
    entry: &'static str,
    dtype: DType,
    blocks: u32,
    arguments: Vec<Argument>,
) -> Result<Launch, ShapeError> {
    let kernel =
        Kernel { source: Source::Head, entry, defines: vec![("ELEMENT", element(dtype)?.to_string())] };
    let shared_bytes = THREADS / 32 * 8;
    Ok(Launch { kernel, grid: [blocks, 1, 1], threads: THREADS, shared_bytes, arguments })
}

/// `losses` f32 [rows] of the logits `x` [rows, [`stride`]] of a chunk and, with `gradients`, in place of the logits their
/// gradient times `scale`. A target outside 0..vocab names no logit, as in [`crate::cpu::head`].
pub fn cross_entropy(
    rows: usize,
    vocab: usize,
    dtype: DType,
    scale: f32,
    gradients: bool,
) -> Result<Call, ShapeError> {
    let blocks = count("rows", rows, MOST)?;
    let [vocab_int, stride_int] = [("vocab_size", vocab), ("stride", stride(vocab))]
        .map(|(what, n)| count(what, n, MOST).map(|n| I32(n as i32)));
    let arguments = vec![
        Named("x"),
        Named("targets"),
        Named("losses"),
        vocab_int?,
        stride_int?,
        F32(scale),
        I32(i32::from(gradients)),
    ];
    Ok(Call {
        buffers: vec![
            buffer("x", dtype, rows * stride(vocab), if gradients { Role::InOut } else { Role::Input }),
            buffer("targets", DType::I32, rows, Role::Input),
            buffer("losses", DType::F32, rows, Role::Output),
        ],
        launches: vec![launch("head_cross_entropy", dtype, blocks, arguments)?],
    })
}

/// `loss` f32 [], the mean of `losses` [rows].
pub fn mean(rows: usize) -> Result<Call, ShapeError> {
    let arguments = vec![Named("losses"), Named("loss"), I32(count("rows", rows, MOST)? as i32)];
    Ok(Call {
        buffers: vec![
            buffer("losses", DType::F32, rows, Role::Input),
            buffer("loss", DType::F32, 1, Role::Output),
        ],
        launches: vec![launch("head_loss_mean", DType::F32, 1, arguments)?],
    })
}
