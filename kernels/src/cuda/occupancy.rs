//! How many blocks of a kernel a multiprocessor holds at once, by the rules of the CUDA C++ Programming Guide, "Compute
//! Capabilities", and of NVIDIA's occupancy calculator.
//!
//! Registers are given to warps in units of 256, and warps to a multiprocessor's four parts evenly, so the registers hold a
//! multiple of 4 warps. Shared memory is given in units of 128 bytes, and the system keeps 1 KiB of each block's.

use super::Arch;

/// What one multiprocessor has.
struct Limits {
    registers: u32,
    warps: u32,
    blocks: u32,
    shared_bytes: u32,
    shared_bytes_of_block: u32,
}

fn limits(arch: Arch) -> Limits {
    match arch {
        Arch::Sm80 => Limits {
            registers: 65_536,
            warps: 64,
            blocks: 32,
            shared_bytes: 164 << 10,
            shared_bytes_of_block: 163 << 10,
        },
        Arch::Sm90a => Limits {
            registers: 65_536,
            warps: 64,
            blocks: 32,
            shared_bytes: 228 << 10,
            shared_bytes_of_block: 227 << 10,
        },
    }
}

/// Blocks of `threads` threads, each with `registers` registers, and `shared_bytes` of shared memory, that a multiprocessor
/// holds; 0 if it cannot hold one.
pub fn blocks_per_multiprocessor(arch: Arch, threads: u32, registers: u32, shared_bytes: u32) -> u32 {
    let has = limits(arch);
    if threads == 0 || threads > 1024 || registers > 255 || shared_bytes > has.shared_bytes_of_block {
        return 0;
    }
    let warps = threads.div_ceil(32);
    let of_warp = (registers.max(1) * 32).next_multiple_of(256);
    let by_registers = has.registers / of_warp / 4 * 4 / warps;
    let by_shared = has.shared_bytes / (shared_bytes.next_multiple_of(128) + 1024);
    has.blocks.min(has.warps / warps).min(by_registers).min(by_shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_binds() {
        let of =
            |arch, threads, registers, shared| blocks_per_multiprocessor(arch, threads, registers, shared);
        // Threads: 2,048. Blocks: 32.
        assert_eq!([of(Arch::Sm80, 256, 32, 0), of(Arch::Sm80, 32, 32, 0)], [8, 32]);
        // Registers: 255 count as 256, 8 warps of them fill the file; 72 of 256 threads: 28 warps, 3 blocks.
        assert_eq!([of(Arch::Sm90a, 256, 255, 0), of(Arch::Sm90a, 128, 255, 0)], [1, 2]);
        assert_eq!(of(Arch::Sm90a, 256, 72, 0), 3);
        // Shared memory, with 1 KiB of the system's for each block.
        assert_eq!([of(Arch::Sm80, 128, 64, 81 << 10), of(Arch::Sm80, 128, 64, (81 << 10) + 1)], [2, 1]);
        assert_eq!([of(Arch::Sm80, 128, 64, 163 << 10), of(Arch::Sm80, 128, 64, 164 << 10)], [1, 0]);
        assert_eq!(of(Arch::Sm90a, 128, 64, 227 << 10), 1);
    }
}
