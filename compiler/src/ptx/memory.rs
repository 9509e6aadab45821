//! Memory of a kernel that is executed: bounds, alignment, and races. Two threads may not touch the same bytes if one writes
//! them, unless something they both waited at lies between.

/// Who touched a place: when, in barriers passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    pub block: u32,
    pub thread: u32,
    /// Barriers of the block that this thread passed.
    pub barriers: u32,
    /// Barriers of its warp.
    pub warp_barriers: u32,
}

impl Who {
    /// Is nothing known that keeps one access before the other?
    fn races(self, other: Who) -> bool {
        let same_warp = self.thread / 32 == other.thread / 32;
        self.block != other.block
            || (self.thread != other.thread
                && self.barriers == other.barriers
                && !(same_warp && self.warp_barriers != other.warp_barriers))
    }
}

/// Who wrote a place last, and who read it first and last since.
#[derive(Clone, Copy, Debug, Default)]
struct Shadow {
    writer: Option<Who>,
    readers: [Option<Who>; 2],
}

/// Bytes with one address.
pub struct Area<'a> {
    start: u64,
    bytes: &'a mut [u8],
    shadow: Vec<Shadow>,
}

/// All that a kernel can address in one space.
pub struct Memory<'a> {
    areas: Vec<Area<'a>>,
    /// Bytes that are watched as one.
    grain: usize,
}

impl<'a> Memory<'a> {
    /// These arrays, each at its address.
    pub fn new(arrays: impl IntoIterator<Item = (u64, &'a mut [u8])>, words: bool) -> Memory<'a> {
        let grain = if words { 4 } else { 1 };
        let area = |(start, bytes): (u64, &'a mut [u8])| {
            let shadow = vec![Shadow::default(); bytes.len().div_ceil(grain)];
            Area { start, bytes, shadow }
        };
        Memory { areas: arrays.into_iter().map(area).collect(), grain }
    }

    /// The place of `bytes` bytes at an address.
    fn find(&mut self, address: u64, bytes: usize) -> Result<(&mut Area<'a>, usize), String> {
        if !address.is_multiple_of(bytes as u64) {
            return Err(format!("{bytes} bytes at address {address:#x}, which is no multiple of {bytes}"));
        }
        let of =
            |a: &&mut Area| a.start <= address && address + bytes as u64 <= a.start + a.bytes.len() as u64;
        match self.areas.iter_mut().find(of) {
            Some(area) => {
                let at = (address - area.start) as usize;
                Ok((area, at))
            }
            None => Err(format!("{bytes} bytes at address {address:#x}, outside of every buffer")),
        }
    }

    /// Elements of `size` bytes from an address on.
    pub fn load(&mut self, address: u64, size: usize, elements: usize, who: Who) -> Result<Vec<u64>, String> {
        let (bytes, grain) = (size * elements, self.grain);
        let (area, at) = self.find(address, bytes)?;
        for shadow in &mut area.shadow[at / grain..(at + bytes).div_ceil(grain)] {
            if let Some(writer) = shadow.writer.filter(|w| w.races(who)) {
                return Err(race(address, "is read while", writer));
            }
            let first = shadow.readers[0].is_none();
            shadow.readers[usize::from(!first)] = Some(who);
        }
        let element = |c: &[u8]| {
            let mut bits = [0; 8];
            bits[..size].copy_from_slice(c);
            u64::from_le_bytes(bits)
        };
        Ok(area.bytes[at..at + bytes].chunks(size).map(element).collect())
    }

    pub fn store(&mut self, address: u64, size: usize, values: &[u64], who: Who) -> Result<(), String> {
        let (bytes, grain) = (size * values.len(), self.grain);
        let (area, at) = self.find(address, bytes)?;
        for shadow in &mut area.shadow[at / grain..(at + bytes).div_ceil(grain)] {
            let others = shadow.readers.iter().chain([&shadow.writer]).flatten();
            if let Some(other) = others.into_iter().find(|o| o.races(who)) {
                return Err(race(address, "is written while", *other));
            }
            *shadow = Shadow { writer: Some(who), readers: [None; 2] };
        }
        for (chunk, value) in area.bytes[at..at + bytes].chunks_mut(size).zip(values) {
            chunk.copy_from_slice(&value.to_le_bytes()[..size]);
        }
        Ok(())
    }
}

fn race(address: u64, what: &str, other: Who) -> String {
    format!("address {address:#x} {what} thread {} of block {} may touch it", other.thread, other.block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(block: u32, thread: u32, barriers: u32, warp_barriers: u32) -> Who {
        Who { block, thread, barriers, warp_barriers }
    }

    /// Does the second of two threads at one place race with the first?
    fn races(first: Who, writes: [bool; 2], second: Who) -> bool {
        let mut bytes = [0; 16];
        let mut memory = Memory::new([(64, &mut bytes[..])], true);
        let mut touch = |who, writes| match writes {
            true => memory.store(68, 4, &[7], who),
            false => memory.load(68, 4, 1, who).map(drop),
        };
        touch(first, writes[0]).expect("the first");
        touch(second, writes[1]).is_err()
    }

    #[test]
    fn only_barriers_order_threads() {
        let first = who(0, 1, 0, 0);
        for writes in [[true, true], [true, false], [false, true]] {
            assert!(races(first, writes, who(0, 2, 0, 0)), "another lane");
            assert!(races(first, writes, who(1, 1, 0, 0)), "another block");
            assert!(races(first, writes, who(0, 40, 0, 1)), "another warp after a barrier of one warp");
            assert!(!races(first, writes, who(0, 2, 0, 1)), "a barrier of the warp between");
            assert!(!races(first, writes, who(0, 40, 1, 0)), "a barrier of the block between");
            assert!(!races(first, writes, first), "the same thread");
        }
        assert!(!races(first, [false, false], who(1, 0, 0, 0)), "two readers");
    }

    #[test]
    fn bounds_and_alignment_are_checked() {
        let mut bytes = [0; 32];
        let mut memory = Memory::new([(64, &mut bytes[..])], true);
        assert!(memory.load(80, 4, 4, who(0, 0, 0, 0)).is_ok());
        let outside = memory.load(96, 4, 1, who(0, 0, 0, 0)).expect_err("past the end");
        assert!(outside.contains("outside of every buffer"), "{outside}");
        let crooked = memory.store(72, 4, &[0; 4], who(0, 0, 0, 0)).expect_err("not aligned");
        assert!(crooked.contains("no multiple of 16"), "{crooked}");
    }
}
