// The machine that runs a grid on the CPU: one block after another, each thread a fiber on a stack of its own.
//
// A fiber runs until it needs another thread: at __syncthreads(), or at an operation of its warp (a shuffle, a product of
// matrices). Threads that meet at different places, leave before a barrier, race, or touch memory that is not theirs end the
// launch with a message.
#pragma once
#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <ucontext.h>

#include "shadow.hpp"

namespace simt {

struct Dim {
    unsigned x = 1, y = 1, z = 1;
};

// Memory a kernel may touch.
struct Buffer {
    char* base;
    size_t bytes;
    Shadow shadow;
};

struct Copy {
    char* to;
    const char* from;  // null: zeros
};

enum class State { Ready, AtBarrier, InWarp, Left };

struct Fiber {
    jmp_buf at;
    std::unique_ptr<char[]> stack;
    State state;
    int line;
    std::deque<std::vector<Copy>> groups;  // asynchronous copies that were committed
    std::vector<Copy> open;                // and those that were not
};

struct Warp {
    void* lanes[32];
    unsigned arrived;
    uint32_t epoch;
    const char* what;
    int line;
};

constexpr size_t STACK = 128 << 10;

struct Machine {
    Dim grid, block, block_index;
    std::deque<Buffer> buffers;
    std::vector<char> shared_space;
    char* shared = nullptr;
    size_t shared_bytes = 0;
    Shadow shared_shadow;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    jmp_buf scheduler;
    size_t current = 0;
    uint32_t epoch = 0, launch_start = 0, block_start = 0;
    void (*kernel)(void**) = nullptr;
    void** args = nullptr;
    std::string error;
};

inline __attribute__((tls_model("initial-exec"))) thread_local Machine* machine = nullptr;
inline __attribute__((tls_model("initial-exec"))) thread_local Dim thread_index;

// Ends the launch: back to the scheduler, which gives up all fibers.
[[noreturn]] __attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    Machine& m = *machine;
    char where[128];
    snprintf(where, sizeof where, "block (%u, %u, %u), thread %zu: ", m.block_index.x, m.block_index.y, m.block_index.z, m.current);
    m.error = std::string(where) + text;
    _longjmp(m.scheduler, 2);
}

// From the running fiber to the scheduler, until that picks it again.
__attribute__((noinline)) inline void wait_as(State state, int line) {
    Machine& m = *machine;
    Fiber& own = m.fibers[m.current];
    own.state = state;
    own.line = line;
    if (_setjmp(own.at) == 0) _longjmp(m.scheduler, 1);
}

inline void fiber_main() {
    Machine& m = *machine;
    m.kernel(m.args);
    Fiber& own = m.fibers[m.current];
    if (!own.open.empty() || !own.groups.empty()) fail("leaves with asynchronous copies it has not waited for");
    own.state = State::Left;
    _longjmp(m.scheduler, 1);
}

// Runs the fiber until it waits or leaves.
__attribute__((noinline)) inline bool resume(size_t index, bool first) {
    Machine& m = *machine;
    m.current = index;
    thread_index = {unsigned(index), 0, 0};
    Fiber& fiber = m.fibers[index];
    int back = _setjmp(m.scheduler);
    if (back != 0) return back == 1;
    if (!first) _longjmp(fiber.at, 1);
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.get();
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, fiber_main, 0);
    setcontext(&context);
    return false;
}

// All threads of one block, whose fibers are there. `backward`: the last thread first, to find what depends on the order.
inline bool run_block(bool backward) {
    Machine& m = *machine;
    size_t threads = m.fibers.size();
    m.block_start = ++m.epoch;
    memset(m.shared, 0xff, m.shared_bytes);
    for (Warp& warp : m.warps) warp = Warp{};
    for (Fiber& fiber : m.fibers) {
        fiber.state = State::Ready;
        fiber.open.clear();
        fiber.groups.clear();
    }
    std::vector<bool> started(threads, false);
    for (;;) {
        size_t ran = 0, left = 0, at_barrier = 0;
        for (size_t k = 0; k < threads; k++) {
            size_t index = backward ? threads - 1 - k : k;
            if (m.fibers[index].state != State::Ready) continue;
            ran++;
            bool first = !started[index];
            started[index] = true;
            if (!resume(index, first)) return false;
        }
        for (Fiber& fiber : m.fibers) {
            left += fiber.state == State::Left;
            at_barrier += fiber.state == State::AtBarrier;
        }
        if (left == threads) return true;
        if (ran != 0) continue;
        for (size_t index = 0; index < threads; index++) {
            Fiber &fiber = m.fibers[index], &other = m.fibers[0];
            if (fiber.state != other.state || fiber.line != other.line || fiber.state == State::InWarp) {
                const char* names[] = {"runs", "waits for the block", "waits for its warp", "has left"};
                char text[256];
                snprintf(text, sizeof text, "block (%u, %u, %u) diverges: thread 0 %s (line %d), thread %zu %s (line %d)",
                         m.block_index.x, m.block_index.y, m.block_index.z, names[int(other.state)], other.line, index,
                         names[int(fiber.state)], fiber.line);
                m.error = text;
                return false;
            }
        }
        m.epoch++;
        for (Fiber& fiber : m.fibers) fiber.state = State::Ready;
    }
}

// The lanes of a warp meet; the last of them does the operation for all. `own` is what this lane brings and takes.
inline void meet(const char* what, int line, void* own, void (*operation)(void** lanes)) {
    Machine& m = *machine;
    Warp& warp = m.warps[m.current / 32];
    unsigned lane = m.current % 32;
    if (warp.arrived == 0) {
        warp.what = what;
        warp.line = line;
    } else if (strcmp(warp.what, what) != 0 || warp.line != line) {
        fail("the warp diverges: this lane is at %s (line %d), others are at %s (line %d)", what, line, warp.what, warp.line);
    }
    warp.lanes[lane] = own;
    warp.arrived |= 1u << lane;
    if (warp.arrived != 0xffffffffu) return wait_as(State::InWarp, line);
    operation(warp.lanes);
    warp.arrived = 0;
    size_t first = m.current / 32 * 32;
    for (size_t index = first; index < first + 32; index++) m.fibers[index].state = State::Ready;
}

inline Now now(size_t thread) {
    Machine& m = *machine;
    const Warp& warp = m.warps[thread / 32];
    return {m.launch_start, m.block_start, m.epoch, warp.epoch, uint16_t(thread / 32), uint16_t(thread % 32)};
}

[[noreturn]] inline void race(const Access& other, const char* memory, size_t offset, bool writes) {
    Machine& m = *machine;
    bool foreign = other.epoch < m.block_start;
    int warp = other.warp == SEVERAL ? -1 : other.warp, lane = other.lane == SEVERAL ? -1 : other.lane;
    fail("%s byte %zu of %s, which %s %d lane %d touched with nothing between them", writes ? "writes" : "reads", offset, memory,
         foreign ? "another block's warp" : "warp", warp, lane);
}

inline void touch_shared(const void* place, size_t bytes, bool writes, size_t thread) {
    Machine& m = *machine;
    ptrdiff_t offset = (const char*)place - m.shared;
    if (offset < 0 || size_t(offset) + bytes > m.shared_bytes)
        fail("byte %td of shared memory is outside its %zu bytes", offset, m.shared_bytes);
    if (size_t(offset) % bytes != 0) fail("%zu bytes at byte %td of shared memory are not aligned", bytes, offset);
    if (const Access* other = m.shared_shadow.touch(offset, bytes, writes, now(thread), true))
        race(*other, "shared memory", offset, writes);
}

inline Buffer* find_buffer(const void* place) {
    for (Buffer& buffer : machine->buffers)
        if ((const char*)place >= buffer.base && (const char*)place <= buffer.base + buffer.bytes) return &buffer;
    return nullptr;
}

inline void touch_global(Buffer* buffer, const void* place, size_t bytes, bool writes) {
    Machine& m = *machine;
    if (buffer == nullptr) fail("a pointer to no buffer is followed");
    ptrdiff_t offset = (const char*)place - buffer->base;
    long index = 0;
    for (Buffer& other : m.buffers) {
        if (&other == buffer) break;
        index++;
    }
    if (offset < 0 || size_t(offset) + bytes > buffer->bytes)
        fail("%s byte %td of buffer %ld, which has %zu bytes", writes ? "writes" : "reads", offset, index, buffer->bytes);
    if (uintptr_t(place) % bytes != 0) fail("%zu bytes at byte %td of buffer %ld are not aligned", bytes, offset, index);
    char name[32];
    snprintf(name, sizeof name, "buffer %ld", index);
    if (const Access* other = buffer->shadow.touch(offset, bytes, writes, now(m.current), false))
        race(*other, name, offset, writes);
}

}  // namespace simt
