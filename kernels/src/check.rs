//! Whether the sizes that a program names can exist at all: asked once, before anything is computed from them, because a
//! program is read from a file.

use crate::cpu::attention::RelAttention;
use crate::cpu::gemm::Gemm;
use crate::cpu::head::Head;
use crate::program::{Buffer, Call, Program};

/// Elements of the largest buffer: with 4 bytes each, all that a process can address.
const MOST_ELEMENTS: u64 = 1 << 45;
/// Multiply-adds of one call, so that counts of operations stay below 2^64.
const MOST_WORK: u64 = 1 << 60;

impl Program {
    /// Checks that every buffer can exist, and that no size of a launch makes a number that overflows.
    ///
    /// # Errors
    /// Which field of which buffer or launch is too large, and what it is.
    pub fn check_sizes(&self) -> Result<(), String> {
        for buffer in &self.buffers {
            buffer.check_size().map_err(|message| format!("buffer `{}`: {message}", buffer.name))?;
        }
        for (index, launch) in self.launches.iter().enumerate() {
            launch
                .call
                .check_sizes()
                .map_err(|message| format!("launch {index} `{}`: {message}", launch.label))?;
        }
        Ok(())
    }
}

impl Buffer {
    fn check_size(&self) -> Result<(), String> {
        let sizes: Vec<(&str, usize)> = self.shape.iter().map(|&size| ("shape", size)).collect();
        within(&sizes, MOST_ELEMENTS)
            .map_err(|_| format!("`shape` is {:?}; more than 2^45 elements cannot be addressed", self.shape))
    }
}

impl Call {
    fn check_sizes(&self) -> Result<(), String> {
        match *self {
            Call::Generated { .. } | Call::Grouped { .. } | Call::Copy { .. } => Ok(()),
            Call::Gemm(ref gemm) | Call::GemmSquares(ref gemm) => product(gemm),
            Call::RelAttentionForward(RelAttention { batch, seq, heads, d_head })
            | Call::RelAttentionBackward(RelAttention { batch, seq, heads, d_head }) => {
                let sizes = [("batch", batch), ("seq", seq), ("heads", heads), ("d_head", d_head)];
                within(&sizes, MOST_ELEMENTS)?;
                above_zero(&sizes)
            }
            Call::Head(Head { rows, width, vocab, .. }) => {
                let sizes = [("rows", rows), ("width", width), ("vocab", vocab)];
                within(&sizes, MOST_WORK)?;
                within(&[sizes[0], sizes[1]], MOST_ELEMENTS)?;
                within(&[sizes[2], sizes[1]], MOST_ELEMENTS)?;
                above_zero(&sizes)
            }
            Call::Gather { rows, width, vocab } | Call::ScatterAdd { rows, width, vocab, .. } => {
                within(&[("rows", rows), ("width", width)], MOST_ELEMENTS)?;
                within(&[("vocab", vocab), ("width", width)], MOST_ELEMENTS)
            }
        }
    }
}

fn product(g: &Gemm) -> Result<(), String> {
    within(&[("batch", g.batch), ("m", g.m), ("n", g.n), ("k", g.k)], MOST_WORK)?;
    let operands = [("a", g.a, [g.m, g.k]), ("b", g.b, [g.k, g.n]), ("c", g.c, [g.m, g.n])];
    for (name, strides, [rows, cols]) in operands {
        for (size, stride) in [g.batch, rows, cols].into_iter().zip(strides) {
            let reach = (size as u64).saturating_sub(1).checked_mul(stride as u64);
            if reach.is_none_or(|reach| reach > MOST_ELEMENTS) {
                return Err(format!("`{name}` has strides {strides:?}; they reach more than 2^45 elements"));
            }
        }
    }
    Ok(())
}

/// Whether the product of some sizes is at most `most`, a size of 0 counted as 1: no part of the product is larger then.
fn within(sizes: &[(&str, usize)], most: u64) -> Result<(), String> {
    let mut product = 1u64;
    for &(name, size) in sizes {
        product = product.saturating_mul(size.max(1) as u64);
        if product > most {
            let all: Vec<String> = sizes.iter().map(|(name, size)| format!("{name} {size}")).collect();
            return Err(format!("`{name}` is {size}; {} together are more than can be", all.join(", ")));
        }
    }
    Ok(())
}

/// Work is shared out by these sizes.
fn above_zero(sizes: &[(&str, usize)]) -> Result<(), String> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, _)) => Err(format!("`{name}` is 0; at least 1 is needed")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::cpu::dispatch;
    use crate::program::{Launch, Space};
    use proptest::prelude::*;

    fn program(shape: Vec<usize>, call: Call) -> Program {
        let buffer =
            Buffer { name: "x".into(), dtype: DType::F32, shape, space: Space::Input, offset: 0, init: None };
        let launch = Launch { call, args: vec![], wave: 0, label: "l".into(), flops: 0, bytes: 0 };
        Program {
            name: "train".into(),
            buffers: vec![buffer],
            arena_bytes: 0,
            arena_lower_bound: 0,
            kernels: vec![],
            launches: vec![launch],
            chains: vec![],
        }
    }

    fn gemm(batch: usize, m: usize, n: usize, k: usize) -> Gemm {
        Gemm { batch, m, n, k, a: [0, k, 1], b: [0, n, 1], c: [0, n, 1], accumulate: false }
    }

    #[test]
    fn the_field_that_is_too_large_is_named() {
        const HUGE: usize = usize::MAX / 2;
        let copy = Call::Copy { bytes: 8 };
        let attention = RelAttention { batch: 2, seq: HUGE, heads: 2, d_head: 0 };
        let head = Head { rows: 4, width: 4, vocab: HUGE, chunk: 1, gradients: true };
        let cases = [
            (program(vec![3, HUGE, 3], copy.clone()), "buffer `x`: `shape` is [3, 9223372036854775807, 3]"),
            (program(vec![1], Call::Gemm(gemm(1, HUGE, 2, 2))), "launch 0 `l`: `m` is 9223372036854775807"),
            (
                program(vec![1], Call::GemmSquares(Gemm { a: [0, HUGE, 1], ..gemm(1, 3, 2, 2) })),
                "`a` has strides",
            ),
            (program(vec![1], Call::RelAttentionForward(attention)), "`seq` is 9223372036854775807"),
            (program(vec![1], Call::RelAttentionBackward(attention)), "`seq` is 9223372036854775807"),
            (program(vec![1], Call::Head(head)), "`vocab` is 9223372036854775807"),
            (
                program(vec![1], Call::RelAttentionBackward(RelAttention { seq: 2, ..attention })),
                "`d_head` is 0",
            ),
            (program(vec![1], Call::Head(Head { width: 0, vocab: 2, ..head })), "`width` is 0"),
            (program(vec![1], Call::Gather { rows: HUGE, width: 0, vocab: 1 }), "`rows` is"),
            (
                program(vec![1], Call::ScatterAdd { rows: 1, width: HUGE, vocab: 1, accumulate: true }),
                "`width` is",
            ),
        ];
        for (program, expected) in cases {
            let message = program.check_sizes().unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(program(vec![0, 7], copy).check_sizes(), Ok(()));
    }

    proptest! {
        /// Where arithmetic overflowed, a size would be another than in 128 bits, or a workspace beyond all bounds.
        #[test]
        fn what_passes_overflows_nowhere(
            dims in proptest::array::uniform4(0u32..46),
            strides in proptest::array::uniform9(0u32..46),
            kind in 0usize..6,
            gradients: bool,
        ) {
            let [p, q, r, s] = dims.map(|bits| 1usize << bits >> 1);
            let [a, b, c] = [0, 3, 6].map(|i| [0, 1, 2].map(|j| 1usize << strides[i + j] >> 1));
            let call = match kind {
                0 => Call::Gemm(Gemm { batch: p, m: q, n: r, k: s, a, b, c, accumulate: false }),
                1 => Call::GemmSquares(Gemm { batch: p, m: q, n: r, k: s, a, b, c, accumulate: false }),
                2 => Call::RelAttentionForward(RelAttention { batch: p, seq: q, heads: r, d_head: s }),
                3 => Call::RelAttentionBackward(RelAttention { batch: p, seq: q, heads: r, d_head: s }),
                4 => Call::Head(Head { rows: p, width: q, vocab: r, chunk: s, gradients }),
                _ => Call::Gather { rows: p, width: q, vocab: r },
            };
            if program(vec![], call.clone()).check_sizes().is_ok() {
                let found: Vec<u128> =
                    dispatch::arguments(&call).unwrap().into_iter().map(|(_, n)| n as u128).collect();
                let of = |sizes: &[usize]| sizes.iter().map(|&n| n as u128).product::<u128>();
                let extent = |strides: [usize; 3], sizes: [usize; 3]| match of(&sizes) {
                    0 => 0,
                    _ => 1 + (0..3).map(|i| (sizes[i] as u128 - 1) * strides[i] as u128).sum::<u128>(),
                };
                let expected = match kind {
                    0 | 1 => vec![extent(a, [p, q, s]), extent(b, [p, s, r]), extent(c, [p, q, r])],
                    2 | 3 => vec![of(&[3, p, q, r, s]), of(&[q, r, s]), of(&[r, s])],
                    4 => vec![of(&[p, q]), of(&[r, q]), of(&[p])],
                    _ => vec![of(&[r, q]), of(&[p]), of(&[p, q])],
                };
                prop_assert_eq!(&found[..3], &expected[..]);
                prop_assert!(found.iter().all(|&n| n < 1 << 62), "{:?}", found);
            }
        }
    }
}
