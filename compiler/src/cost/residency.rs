//! How many bytes a program touches between two uses of the same bytes: whether a cache still holds them.

use isoflop_kernels::program::{ALIGN, BufferId, Call, Launch, Program, Space};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Every buffer's last use, measured in bytes touched since the first launch. Arena buffers are known by their place,
/// since a new buffer lies where an old one is still in the cache.
pub struct Residency<'a> {
    program: &'a Program,
    named: FxHashMap<BufferId, u64>,
    /// Ranges of the arena that do not overlap: start to (end, when it was last used).
    arena: BTreeMap<u64, (u64, u64)>,
    now: u64,
}

impl<'a> Residency<'a> {
    pub fn new(program: &'a Program) -> Self {
        Residency { program, named: FxHashMap::default(), arena: BTreeMap::new(), now: 0 }
    }

    /// Runs a launch: `f(bytes, working_set)` is called for each of its arguments with the bytes it moves and the bytes
    /// touched since their last use, its own included; `u64::MAX` where there was none.
    pub fn touch(&mut self, launch: &Launch, mut f: impl FnMut(u64, u64)) {
        let mut args = launch.args.clone();
        args.sort_unstable();
        args.dedup();
        for b in args {
            let bytes = self.moved(launch, b);
            let last = self.last_use(b);
            self.now += bytes;
            f(bytes, last.map_or(u64::MAX, |then| self.now - then));
            self.use_now(b);
        }
    }

    /// Bytes of an argument that a launch moves: of a table only the rows that are named.
    fn moved(&self, launch: &Launch, b: BufferId) -> u64 {
        let bytes = self.program.buffers[b as usize].bytes();
        match launch.call {
            Call::Gather { rows, vocab, .. } if launch.args.first() == Some(&b) && rows < vocab => {
                bytes / vocab as u64 * rows as u64
            }
            _ => bytes,
        }
    }

    fn range(&self, b: BufferId) -> (u64, u64) {
        let buffer = &self.program.buffers[b as usize];
        (buffer.offset, buffer.offset + buffer.bytes().next_multiple_of(ALIGN))
    }

    /// When the part used longest ago was last used.
    fn last_use(&self, b: BufferId) -> Option<u64> {
        if self.program.buffers[b as usize].space != Space::Arena {
            return self.named.get(&b).copied();
        }
        let (start, end) = self.range(b);
        let before = self.arena.range(..=start).next_back().filter(|(_, r)| r.0 > start);
        let inside = self.arena.range(start + 1..end.max(start + 1));
        before.into_iter().chain(inside).map(|(_, r)| r.1).min()
    }

    fn use_now(&mut self, b: BufferId) {
        if self.program.buffers[b as usize].space != Space::Arena {
            self.named.insert(b, self.now);
            return;
        }
        let (start, end) = self.range(b);
        if start == end {
            return;
        }
        // What reaches into the range from the left and out of it to the right stays as it was.
        let left = self.arena.range(..start).next_back().map(|(&s, &r)| (s, r));
        if let Some((s, (e, then))) = left.filter(|(_, r)| r.0 > start) {
            self.arena.insert(s, (start, then));
            if e > end {
                self.arena.insert(end, (e, then));
            }
        }
        let covered: Vec<u64> = self.arena.range(start..end).map(|(&s, _)| s).collect();
        for s in covered {
            if let Some((e, then)) = self.arena.remove(&s)
                && e > end
            {
                self.arena.insert(end, (e, then));
            }
        }
        self.arena.insert(start, (end, self.now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isoflop_kernels::DType;
    use isoflop_kernels::program::Buffer;

    /// Arena buffers of (offset, bytes), and launches over them.
    fn program(places: &[(u64, usize)], launches: &[&[BufferId]]) -> Program {
        let buffer = |&(offset, bytes): &(u64, usize)| Buffer {
            name: format!("b{offset}"),
            dtype: DType::F32,
            shape: vec![bytes / 4],
            space: Space::Arena,
            offset,
            init: None,
        };
        let launch = |args: &&[BufferId]| Launch {
            call: Call::Copy { bytes: 0 },
            args: args.to_vec(),
            wave: 0,
            label: String::new(),
            flops: 0,
            bytes: 0,
        };
        Program {
            name: "train".into(),
            buffers: places.iter().map(buffer).collect(),
            arena_bytes: 1 << 20,
            arena_lower_bound: 0,
            chains: Vec::new(),
            kernels: Vec::new(),
            launches: launches.iter().map(launch).collect(),
        }
    }

    #[test]
    fn distances_are_bytes_touched_since_the_last_use() {
        // The third buffer lies over the end of the first and the start of the second.
        let places = [(0, 256), (256, 256), (128, 256), (512, 64)];
        let p = program(&places, &[&[0], &[1], &[2], &[0, 3], &[1], &[3, 3]]);
        let mut residency = Residency::new(&p);
        let mut seen = Vec::new();
        for launch in &p.launches {
            residency.touch(launch, |bytes, distance| seen.push((bytes, distance)));
        }
        let first = u64::MAX;
        assert_eq!(
            seen,
            [
                (256, first),
                (256, first),
                // Its older half was touched by the first launch, 256 bytes before.
                (256, 512),
                // Half of buffer 0 is as old as that; the other half is buffer 2's.
                (256, 768),
                (64, first),
                (256, 832),
                (64, 320)
            ]
        );
    }
}
