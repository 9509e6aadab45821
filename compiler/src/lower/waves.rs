//! Waves: launches that touch no byte another of the same wave writes may run side by side.

use isoflop_kernels::program::{Buffer, BufferId, Space};
use rustc_hash::FxHashMap;

pub struct Waves<'a> {
    buffers: &'a [Buffer],
    wave: u32,
    /// Buffers outside the arena that the wave touches, and whether one of its launches writes them.
    named: FxHashMap<BufferId, bool>,
    /// Arena ranges the wave reads and writes.
    reads: Vec<(u64, u64)>,
    writes: Vec<(u64, u64)>,
}

impl<'a> Waves<'a> {
    pub fn new(buffers: &'a [Buffer]) -> Self {
        Waves { buffers, wave: 0, named: FxHashMap::default(), reads: Vec::new(), writes: Vec::new() }
    }

    /// The wave of the next launch: the current one, or a new one where it conflicts.
    pub fn place(&mut self, args: &[BufferId], written: &[bool]) -> u32 {
        if args.iter().zip(written).any(|(&b, &w)| self.conflicts(b, w)) {
            self.wave += 1;
            self.named.clear();
            self.reads.clear();
            self.writes.clear();
        }
        for (&b, &w) in args.iter().zip(written) {
            let buffer = &self.buffers[b as usize];
            if buffer.space == Space::Arena {
                let range = (buffer.offset, buffer.offset + buffer.bytes());
                if w { self.writes.push(range) } else { self.reads.push(range) }
            } else {
                *self.named.entry(b).or_insert(false) |= w;
            }
        }
        self.wave
    }

    fn conflicts(&self, b: BufferId, writes: bool) -> bool {
        let buffer = &self.buffers[b as usize];
        if buffer.space != Space::Arena {
            return self.named.get(&b).is_some_and(|&written| written || writes);
        }
        let (start, end) = (buffer.offset, buffer.offset + buffer.bytes());
        let overlaps = |list: &[(u64, u64)]| list.iter().any(|&(s, e)| s < end && start < e);
        overlaps(&self.writes) || (writes && overlaps(&self.reads))
    }
}
