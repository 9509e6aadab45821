// Who touched each two bytes of a memory last, to find threads of a block, and blocks of a launch, that race.
//
// Time is counted in epochs, one more at each barrier and each new block. Two accesses of which one writes are in order when a
// barrier of the block lies between them, or a __syncwarp() where both threads are of one warp, or when both are of one thread.
// Nothing orders two blocks of one launch.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace simt {

// The moment of an access, and who makes it.
struct Now {
    uint32_t launch_start;  // the first epoch of this launch
    uint32_t block_start;   // and of this block
    uint32_t epoch;
    uint32_t warp_epoch;  // counts the __syncwarp() of the thread's warp
    uint16_t warp;
    uint16_t lane;
};

constexpr uint16_t SEVERAL = 0xffff;

struct Access {
    uint32_t epoch = 0;
    uint32_t warp_epoch = 0;
    uint16_t warp = 0;
    uint16_t lane = 0;

    // Whether this access is over, for everyone, before `now`. `shared`: the memory is of one block only.
    bool before(const Now& now, bool shared) const {
        if (epoch < now.launch_start || (shared && epoch < now.block_start)) return true;
        if (epoch < now.block_start) return false;
        if (epoch < now.epoch) return true;
        if (warp != now.warp) return false;
        return lane == now.lane || warp_epoch < now.warp_epoch;
    }
};

class Shadow {
    struct Cell {
        Access wrote, read;
    };
    std::vector<Cell> cells;

    static Access at(const Now& now) { return {now.epoch, now.warp_epoch, now.warp, now.lane}; }

public:
    explicit Shadow(size_t bytes = 0) : cells((bytes + 1) / 2) {}

    // The access that races with this one, or none.
    const Access* touch(size_t offset, size_t bytes, bool writes, const Now& now, bool shared) {
        for (size_t c = offset / 2; c < (offset + bytes + 1) / 2; c++) {
            Cell& cell = cells[c];
            if (!cell.wrote.before(now, shared)) return &cell.wrote;
            if (writes) {
                if (!cell.read.before(now, shared)) return &cell.read;
                cell.wrote = at(now);
            } else if (cell.read.epoch == now.epoch && cell.read.warp != now.warp) {
                cell.read.warp = SEVERAL;
            } else if (cell.read.epoch == now.epoch && cell.read.warp_epoch == now.warp_epoch && cell.read.lane != now.lane) {
                cell.read.lane = SEVERAL;
            } else if (cell.read.epoch < now.block_start && cell.read.epoch >= now.launch_start && !shared) {
                // Another block has read it: whoever writes it now races, and this block's own reads add nothing.
            } else {
                cell.read = at(now);
            }
        }
        return nullptr;
    }
};

}  // namespace simt
