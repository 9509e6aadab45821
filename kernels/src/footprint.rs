//! What a process holds at its peak while it runs programs, part by part: computed from the programs alone, so that a plan
//! can say it and a run can be held to it.
//!
//! Every part is something that is allocated: buffers at their places, what each thread keeps for itself, and what the
//! host keeps beside them. The code itself is the one part that is measured and not computed ([`COMMAND`],
//! [`WORKER`]).

use crate::cpu::dispatch;
use crate::program::{ALIGN, Call, Launch, Program, Space};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Blocks from this size on are aligned to it and backed by huge pages where the system has them.
pub const HUGE_PAGE: u64 = 2 << 20;

/// Bytes of a block that holds `bytes`: what is allocated, cleared and so resident.
pub fn block_bytes(bytes: u64) -> u64 {
    let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGN };
    bytes.max(1).checked_next_multiple_of(align).unwrap_or(u64::MAX)
}

/// What a program has resident when it trains, apart from what a [`Footprint`] computes. Measured, docs/measurements.md
/// says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Pages of mapped files: its code and that of the libraries it loads. Which pages are mapped beside those that are
    /// used is the kernel's choice; processes share them.
    pub files: u64,
    /// Its own heap and stack, and tables that were relocated.
    pub private: u64,
}

/// The `isoflop` command, with the compiler in it.
pub const COMMAND: Base = Base { files: 33_500_000, private: 2_550_000 };

/// The worker, without it.
pub const WORKER: Base = Base { files: 5_400_000, private: 450_000 };

/// Stack, thread-local storage and heap of one more thread.
pub const FURTHER_THREAD_BYTES: u64 = 50_000;

/// The peak of resident memory of a process that trains, in bytes, part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Parameters and optimiser moments.
    pub state: u64,
    /// Inputs, outputs and constant tables.
    pub inputs: u64,
    /// Temporary values: the arena of the program with the largest one.
    pub arena: u64,
    /// What blocks of whole huge pages take beyond that.
    pub rounding: u64,
    /// Tokens and targets of a batch as the host draws them.
    pub batch: u64,
    /// Buffers and launches as the runtime keeps them.
    pub programs: u64,
    /// Code, and what else does not depend on the model.
    pub base: Base,
    /// What each thread keeps: transposed and packed operands, rows of scores.
    pub scratch: u64,
    /// What each thread but the first takes beside that.
    pub further_thread: u64,
}

impl Footprint {
    /// What a process that has `base` holds while it runs these programs.
    pub fn of<'a>(programs: impl IntoIterator<Item = &'a Program> + Clone, base: Base) -> Footprint {
        let programs = || programs.clone().into_iter();
        let mut seen = HashSet::new();
        let (mut state, mut inputs, mut batch) = (0, 0, 0);
        for buffer in programs().flat_map(|p| &p.buffers).filter(|b| b.space != Space::Arena) {
            if !seen.insert(&buffer.name) {
                continue;
            }
            let bytes = buffer.bytes().next_multiple_of(ALIGN);
            match buffer.space {
                Space::State => state += bytes,
                _ => inputs += bytes,
            }
            if matches!(buffer.name.as_str(), "tokens" | "targets") {
                batch += bytes;
            }
        }
        let arena = programs().map(|p| p.arena_bytes).max().unwrap_or(0);
        Footprint {
            state,
            inputs,
            arena,
            rounding: block_bytes(state + inputs) + block_bytes(arena) - state - inputs - arena,
            batch,
            programs: programs().map(described_bytes).sum(),
            base,
            scratch: ThreadScratch::of(programs()).bytes(),
            further_thread: FURTHER_THREAD_BYTES,
        }
    }

    /// Bytes that the runtime allocates for buffers.
    pub fn buffers(&self) -> u64 {
        self.state + self.inputs + self.arena + self.rounding
    }

    /// The peak of one thread.
    pub fn of_one_thread(&self) -> u64 {
        self.buffers() + self.batch + self.programs + self.base.files + self.base.private + self.scratch
    }

    /// What each further thread adds.
    pub fn of_each_further_thread(&self) -> u64 {
        self.scratch + self.further_thread
    }

    /// The peak with so many threads.
    pub fn peak(&self, threads: usize) -> u64 {
        self.of_one_thread() + (threads.max(1) as u64 - 1) * self.of_each_further_thread()
    }
}

/// Bytes that a program takes as data: as it was read, as the executor keeps it, and made ready to run.
fn described_bytes(program: &Program) -> u64 {
    // glibc's malloc: 8 bytes before each piece, multiples of 16, 32 at least.
    let piece = |bytes: usize| (bytes + 8).next_multiple_of(16).max(32) as u64;
    let mut bytes = 0;
    for buffer in &program.buffers {
        bytes += 2 * (size_of_val(buffer) as u64 + piece(buffer.name.len()) + piece(8 * buffer.shape.len()));
    }
    for Launch { call, args, label, .. } in &program.launches {
        let own = match call {
            Call::Grouped { kernels } => piece(4 * kernels.len()),
            _ => 0,
        };
        bytes += 2 * (size_of::<Launch>() as u64 + own + piece(4 * args.len()) + piece(label.len()));
        // Addresses in place of ids, and numbers of tasks.
        bytes += size_of::<Launch>() as u64 + own + piece(8 * args.len()) + piece(8);
    }
    for kernel in &program.kernels {
        bytes += 2 * (size_of_val(kernel) as u64 + piece(kernel.symbol.len()));
    }
    bytes
}

/// Scratch memory that one thread keeps from task to task, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadScratch {
    /// Transposed operands of products, by their place in a chain: the largest of all chains.
    pub transposed: Vec<usize>,
    /// Rows of scores and packed heads of attention, or a chunk's logits: whichever is larger.
    pub kernels: usize,
    /// Packed operands a and b of products.
    pub packing: [usize; 2],
}

impl ThreadScratch {
    /// What a thread that takes part in these programs comes to need.
    pub fn of<'a>(programs: impl IntoIterator<Item = &'a Program>) -> ThreadScratch {
        let mut all = ThreadScratch::default();
        for program in programs {
            for chain in &program.chains {
                for (member, launch) in chain.members().enumerate() {
                    let Some(Call::Gemm(gemm)) = program.launches.get(launch).map(|l| &l.call) else {
                        continue;
                    };
                    let rows = (gemm.m as u64 / chain.rows.max(1)).saturating_mul(chain.rows_per_task);
                    let direct = gemm.over_transposed_b();
                    if direct.is_some() {
                        let slots = all.transposed.len().max(member + 1);
                        all.transposed.resize(slots, 0);
                        let bytes = gemm.n * gemm.k * size_of::<f32>();
                        all.transposed[member] = all.transposed[member].max(bytes);
                    }
                    all.pack(direct.unwrap_or(*gemm).packing_bytes_of_rows(rows.min(gemm.m as u64) as usize));
                }
            }
            // Those of chains too: the profiled step runs every launch alone.
            for launch in &program.launches {
                let (kernels, packing) = dispatch::scratch_bytes(&launch.call);
                all.kernels = all.kernels.max(kernels);
                all.pack(packing);
            }
        }
        all
    }

    /// All of it.
    pub fn bytes(&self) -> u64 {
        (self.transposed.iter().sum::<usize>() + self.kernels + self.packing.iter().sum::<usize>()) as u64
    }

    fn pack(&mut self, [a, b]: [usize; 2]) {
        self.packing = [self.packing[0].max(a), self.packing[1].max(b)];
    }
}
