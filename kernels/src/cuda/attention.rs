//! Relative attention on CUDA: buffers and launches of its versions.
//!
//! Buffers are those of [`crate::cpu::attention`], of one element type (lse: f32). The backward pass has a workspace:
//! `delta` and `key_sums` [batch heads, seq], `distance_sums` [heads, seq], `partials` [splits, heads, 2 d_head], all f32.

use super::{
    Argument, Buffer, Call, Kernel, Launch, MOST, MOST_BLOCKS, Role, ShapeError, Source, buffer, count,
    element,
};
use crate::DType;
use crate::cpu::attention::RelAttention;
use Argument::{Buffer as Named, I32};

/// Which kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// Plain loops; f32 and bf16.
    V0,
    /// Tensor cores of Ampere, scores never in global memory; bf16.
    V1,
}

/// The versions there are for an element type, the plainest first.
pub fn versions(dtype: DType) -> Vec<Version> {
    match dtype {
        DType::F32 => vec![Version::V0],
        DType::Bf16 => vec![Version::V0, Version::V1],
        _ => vec![],
    }
}

/// Rows of keys and of distances whose part of du and dv one block makes.
const SPLIT_ROWS: usize = 512;
/// Rows that a block of version 0 takes: 4 warps, 4 rows each.
const ROWS_V0: usize = 16;
/// Queries, keys or distances of a tile of version 1.
const TILE: usize = 64;

/// Bytes of shared memory of version 1's kernels, by their layouts: forward, dq, dkv, drel.
fn shared_v1(d_head: usize) -> [usize; 4] {
    let tile = TILE * d_head * 2;
    // Of each warp: 16 rows of 56 floats.
    let band = |warps: usize| warps * 16 * 56 * 4;
    let square = TILE * TILE * 2;
    // Seven tiles, and two floats for each row.
    let backward = 7 * tile + band(8) + 2 * TILE * 4;
    [4 * tile + band(4), backward + square + TILE * 88 * 2, backward + 2 * square, backward + square]
}

/// A call's shape, checked.
struct Shape {
    dims: RelAttention,
    dtype: DType,
    seq: i32,
    heads: i32,
    batch: i32,
    defines: Vec<(&'static str, String)>,
}

impl Shape {
    fn new(dims: &RelAttention, dtype: DType, version: Version) -> Result<Self, ShapeError> {
        if ![32, 64, 128].contains(&dims.d_head) {
            return Err(ShapeError::HeadSize { found: dims.d_head, allowed: "32, 64 and 128" });
        }
        let int = |what, found| count(what, found, MOST).map(|n| n as i32);
        if version == Version::V1 && dtype != DType::Bf16 {
            return Err(ShapeError::Element { found: dtype, allowed: "bf16" });
        }
        count("heads", dims.heads, MOST_BLOCKS)?;
        count("batch", dims.batch, MOST_BLOCKS)?;
        int("batch * seq_len * heads", dims.batch * dims.seq * dims.heads)?;
        let defines = vec![
            ("ELEMENT", element(dtype)?.to_string()),
            ("D_HEAD", dims.d_head.to_string()),
            ("SPLIT_ROWS", SPLIT_ROWS.to_string()),
        ];
        let (seq, heads, batch) =
            (int("seq_len", dims.seq)?, int("heads", dims.heads)?, int("batch", dims.batch)?);
        Ok(Shape { dims: *dims, dtype, seq, heads, batch, defines })
    }

    fn launch(&self, source: Source, entry: &'static str, grid: [usize; 3]) -> Launch {
        Launch {
            kernel: Kernel { source, entry, defines: self.defines.clone() },
            // Each factor is at most one of the numbers that were checked.
            grid: grid.map(|n| n as u32),
            threads: 128,
            shared_bytes: 0,
            arguments: vec![],
        }
    }

    /// A kernel of version 1 with `shared` bytes of shared memory. Its source compares its own layout with the macros.
    fn tiled(&self, source: Source, entry: &'static str, batch: usize, shared: usize) -> Launch {
        let sizes = shared_v1(self.dims.d_head).map(|n| n.to_string());
        let names = match source {
            Source::RelAttentionV1 => &["SHARED_BYTES"][..],
            _ => &["", "SHARED_BYTES_DQ", "SHARED_BYTES_DKV", "SHARED_BYTES_DREL"],
        };
        let mut defines = vec![("D_HEAD", self.dims.d_head.to_string())];
        defines.extend(names.iter().copied().zip(sizes).filter(|(name, _)| !name.is_empty()));
        let grid = [self.dims.seq.div_ceil(TILE), self.dims.heads, batch];
        let launch = self.launch(source, entry, grid);
        let kernel = Kernel { defines, ..launch.kernel };
        let threads = if source == Source::RelAttentionV1 { 128 } else { 256 };
        Launch { kernel, threads, shared_bytes: shared as u32, ..launch }
    }

    fn buffers(&self) -> Vec<Buffer> {
        let RelAttention { batch, seq, heads, d_head } = self.dims;
        let width = heads * d_head;
        vec![
            buffer("qkv", self.dtype, batch * seq * 3 * width, Role::Input),
            buffer("rel", self.dtype, seq * width, Role::Input),
            buffer("u", self.dtype, width, Role::Input),
            buffer("v", self.dtype, width, Role::Input),
        ]
    }

    fn outputs(&self, role: Role) -> [Buffer; 2] {
        let rows = self.dims.batch * self.dims.seq * self.dims.heads;
        [buffer("out", self.dtype, rows * self.dims.d_head, role), buffer("lse", DType::F32, rows, role)]
    }

    /// Threads that share a row of d_head elements, 16 bytes each.
    fn lanes(&self) -> usize {
        self.dims.d_head * self.dtype.bytes() / 16
    }
}

fn named(names: &[&'static str], ints: &[i32]) -> Vec<Argument> {
    names.iter().map(|&n| Named(n)).chain(ints.iter().map(|&n| I32(n))).collect()
}

/// `out` and `lse` from `qkv`, `rel`, `u` and `v`.
pub fn forward(dims: &RelAttention, dtype: DType, version: Version) -> Result<Call, ShapeError> {
    let shape = Shape::new(dims, dtype, version)?;
    let launch = match version {
        Version::V0 => shape.launch(
            Source::RelAttentionV0,
            "rel_attention_v0_forward",
            [dims.seq.div_ceil(ROWS_V0), dims.heads, dims.batch],
        ),
        Version::V1 => {
            let [shared, ..] = shared_v1(dims.d_head);
            shape.tiled(Source::RelAttentionV1, "rel_attention_v1_forward", dims.batch, shared)
        }
    };
    let arguments = named(&["qkv", "rel", "u", "v", "out", "lse"], &[shape.seq, shape.heads]);
    let mut buffers = shape.buffers();
    buffers.extend(shape.outputs(Role::Output));
    Ok(Call { buffers, launches: vec![Launch { arguments, ..launch }] })
}

/// `dqkv`, `drel`, `du` and `dv` from `qkv`, `rel`, `u`, `v`, `out`, `lse` and `dout`.
pub fn backward(dims: &RelAttention, dtype: DType, version: Version) -> Result<Call, ShapeError> {
    let shape = Shape::new(dims, dtype, version)?;
    let RelAttention { batch, seq, heads, d_head } = *dims;
    let (rows, width) = (batch * seq * heads, heads * d_head);
    let splits = (batch * seq).div_ceil(SPLIT_ROWS);
    let mut buffers = shape.buffers();
    buffers.extend(shape.outputs(Role::Input));
    buffers.extend([
        buffer("dout", dtype, rows * d_head, Role::Input),
        buffer("dqkv", dtype, rows * 3 * d_head, Role::Output),
        buffer("drel", dtype, seq * width, Role::Output),
        buffer("du", dtype, width, Role::Output),
        buffer("dv", dtype, width, Role::Output),
        buffer("delta", DType::F32, rows, Role::Workspace),
        buffer("key_sums", DType::F32, rows, Role::Workspace),
        buffer("distance_sums", DType::F32, seq * heads, Role::Workspace),
        buffer("partials", DType::F32, splits * heads * 2 * d_head, Role::Workspace),
    ]);

    let tokens = shape.batch * shape.seq;
    let mut launches = vec![Launch {
        arguments: named(&["out", "dout", "delta"], &[shape.seq, shape.heads, tokens]),
        ..shape.launch(
            Source::RelAttentionSums,
            "rel_attention_delta",
            [rows.div_ceil(128 / shape.lanes()), 1, 1],
        )
    }];
    let blocks = seq.div_ceil(ROWS_V0);
    let [_, shared_dq, shared_dkv, shared_drel] = shared_v1(d_head);
    let plain = |entry, batch| shape.launch(Source::RelAttentionV0, entry, [blocks, heads, batch]);
    let tiled = |entry, batch, shared| shape.tiled(Source::RelAttentionV1Grad, entry, batch, shared);
    let [dq, dkv, drel] = match version {
        Version::V0 => [
            plain("rel_attention_v0_dq", batch),
            plain("rel_attention_v0_dkv", batch),
            plain("rel_attention_v0_drel", 1),
        ],
        Version::V1 => [
            tiled("rel_attention_v1_dq", batch, shared_dq),
            tiled("rel_attention_v1_dkv", batch, shared_dkv),
            tiled("rel_attention_v1_drel", 1, shared_drel),
        ],
    };
    let sizes = [shape.seq, shape.heads, shape.batch];
    for (launch, written, sizes) in [
        (dq, &["dqkv"][..], &sizes[..2]),
        (dkv, &["dqkv", "key_sums"], &sizes[..2]),
        (drel, &["drel", "distance_sums"], &sizes),
    ] {
        let read = ["qkv", "rel", "u", "v", "lse", "delta", "dout"];
        let names: Vec<&'static str> = read.iter().chain(written).copied().collect();
        launches.push(Launch { arguments: named(&names, sizes), ..launch });
    }
    launches.push(Launch {
        arguments: named(
            &["qkv", "rel", "key_sums", "distance_sums", "partials"],
            &[shape.seq, shape.heads, tokens],
        ),
        // 128 threads have 16 bytes of elements each, as f32.
        shared_bytes: (128 * 16 / dtype.bytes() * 4) as u32,
        ..shape.launch(Source::RelAttentionSums, "rel_attention_bias_partials", [splits, heads, 1])
    });
    launches.push(Launch {
        arguments: named(&["partials", "du", "dv"], &[shape.heads, splits as i32]),
        ..shape.launch(Source::RelAttentionSums, "rel_attention_bias_finish", [heads, 1, 1])
    });
    Ok(Call { buffers, launches })
}
