// CUDA's vocabulary on the CPU: what `device.cuh` has as PTX, here as C++ that does the same lane by lane.
//
// Sources are compiled as C++17 with -DISOFLOP_SIMT. Each kernel says EXPORT(name) after its body, and `simt_launch` runs it.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "machine.hpp"

#define __global__
#define __launch_bounds__(...)
#define DEVICE inline
#define threadIdx simt::thread_index
#define blockIdx simt::machine->block_index
#define blockDim simt::machine->block
#define gridDim simt::machine->grid

namespace simt {

enum class Space { Global, Shared };

template <class T, Space SPACE>
struct Pointer;

template <class T, Space SPACE>
void touch(const Pointer<T, SPACE>& pointer, size_t bytes, bool writes);

// An element in memory that is watched.
template <class T, Space SPACE>
struct Element {
    Pointer<T, SPACE> place;
    using Value = std::remove_const_t<T>;

    operator Value() const {
        touch(place, sizeof(T), false);
        return *place.to;
    }
    const Element& operator=(Value value) const {
        touch(place, sizeof(T), true);
        *place.to = value;
        return *this;
    }
    const Element& operator=(const Element& other) const { return *this = Value(other); }
    const Element& operator+=(Value value) const { return *this = Value(*this) + value; }
};

template <class T, Space SPACE>
struct Pointer {
    T* to = nullptr;
    Buffer* buffer = nullptr;

    Pointer() = default;
    Pointer(T* to, Buffer* buffer) : to(to), buffer(buffer) {}
    explicit Pointer(T* to) : to(to), buffer(SPACE == Space::Global ? find_buffer(to) : nullptr) {}
    template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
    Pointer(const Pointer<U, SPACE>& other) : to(other.to), buffer(other.buffer) {}

    Element<T, SPACE> operator[](int64_t index) const { return {*this + index}; }
    Pointer operator+(int64_t index) const { return {to + index, buffer}; }
    explicit operator bool() const { return to != nullptr; }
};

template <class T, Space SPACE>
void touch(const Pointer<T, SPACE>& pointer, size_t bytes, bool writes) {
    if constexpr (SPACE == Space::Shared) {
        touch_shared(pointer.to, bytes, writes, machine->current);
    } else {
        touch_global(pointer.buffer, pointer.to, bytes, writes);
    }
}

}  // namespace simt

template <class T>
using Global = simt::Pointer<T, simt::Space::Global>;
template <class T>
using Shared = simt::Pointer<T, simt::Space::Shared>;

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

// What is at `byte` of the block's shared memory.
template <class T>
Shared<T> shared_at(int byte) {
    return Shared<T>(reinterpret_cast<T*>(simt::machine->shared + byte));
}
// A global address that came as a number.
template <class T>
Global<T> global_at(unsigned long long address) {
    return Global<T>(reinterpret_cast<T*>(address));
}

#define DEFINE_VECTOR(NAME, TYPE)                                       \
    template <class T, simt::Space SPACE>                               \
    TYPE load_##NAME(const simt::Pointer<T, SPACE>& p) {                \
        simt::touch(p, sizeof(TYPE), false);                            \
        TYPE value;                                                     \
        memcpy(&value, (const void*)p.to, sizeof value);                \
        return value;                                                   \
    }                                                                   \
    template <class T, simt::Space SPACE>                               \
    void store_##NAME(const simt::Pointer<T, SPACE>& p, TYPE value) {   \
        simt::touch(p, sizeof(TYPE), true);                             \
        memcpy((void*)p.to, &value, sizeof value);                      \
    }
DEFINE_VECTOR(16, uint4)
DEFINE_VECTOR(4, unsigned)
#undef DEFINE_VECTOR
template <class T, simt::Space SPACE>
void store_8(const simt::Pointer<T, SPACE>& p, float first, float second) {
    simt::touch(p, 8, true);
    float pair[2] = {first, second};
    memcpy((void*)p.to, pair, sizeof pair);
}

#define __syncthreads() simt::wait_as(simt::State::AtBarrier, __LINE__)
#define __syncwarp() simt::sync_warp(__LINE__)
#define __shfl_xor_sync(mask, value, lanes) simt::shuffle(value, simt::machine->current % 32 ^ (lanes), __LINE__)
#define __shfl_sync(mask, value, lane) simt::shuffle(value, (lane) % 32, __LINE__)
#define __ballot_sync(mask, condition) simt::ballot(condition, __LINE__)

namespace simt {

inline void sync_warp(int line) {
    unsigned nothing = 0;
    meet("__syncwarp", line, &nothing, [](void**) { machine->warps[machine->current / 32].epoch++; });
}

template <class T>
struct Shuffled {
    T value, result;
    unsigned from;
};

template <class T>
T shuffle(T value, unsigned from, int line) {
    Shuffled<T> own{value, value, from};
    meet("a shuffle", line, &own, [](void** lanes) {
        for (int lane = 0; lane < 32; lane++) {
            auto* to = static_cast<Shuffled<T>*>(lanes[lane]);
            to->result = static_cast<Shuffled<T>*>(lanes[to->from])->value;
        }
    });
    return own.result;
}

inline unsigned ballot(bool condition, int line) {
    unsigned own = condition;
    meet("a ballot", line, &own, [](void** lanes) {
        unsigned bits = 0;
        for (int lane = 0; lane < 32; lane++) bits |= *static_cast<unsigned*>(lanes[lane]) << lane;
        for (int lane = 0; lane < 32; lane++) *static_cast<unsigned*>(lanes[lane]) = bits;
    });
    return own;
}

template <class A>
struct Argument {
    static A take(void* at) { return *static_cast<A*>(at); }
};
template <class T>
struct Argument<Pointer<T, Space::Global>> {
    static Global<T> take(void* at) { return Global<T>(*static_cast<T**>(at)); }
};

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(Argument<A>::take(args[I])...);
}
template <class... A>
void call(void (*kernel)(A...), void** args) {
    call(kernel, args, std::index_sequence_for<A...>());
}

}  // namespace simt

#define EXPORT(name) \
    extern "C" void name##_export(void** args) { simt::call(name, args); }

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
using std::max;
using std::min;

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float exp2_approx(float x) { return std::exp2(x); }
inline float bits_to_f32(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
inline unsigned f32_to_bits(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}
// To nearest, ties to even.
inline unsigned short round_bf16(float value) {
    unsigned bits = f32_to_bits(value);
    if (std::isnan(value)) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline unsigned pack_bf16(float low, float high) { return unsigned(round_bf16(high)) << 16 | round_bf16(low); }

#include "tensor.hpp"

// Runs a grid. `buffers` holds base and size of each, 0: all went well, and else `error` has the reason.
extern "C" inline __attribute__((used)) int simt_launch(void (*kernel)(void**), const unsigned grid[3], unsigned threads,
                                                        unsigned shared_bytes, void** args, const uint64_t (*buffers)[2],
                                                        int n_buffers, int backward, char* error, size_t error_bytes) {
    simt::Machine m;
    simt::machine = &m;
    m.grid = {grid[0], grid[1], grid[2]};
    m.block = {threads, 1, 1};
    m.kernel = kernel;
    m.args = args;
    for (int b = 0; b < n_buffers; b++) {
        size_t bytes = buffers[b][1];
        m.buffers.push_back({reinterpret_cast<char*>(buffers[b][0]), bytes, simt::Shadow(bytes)});
    }
    m.shared_space.resize(shared_bytes + 128);
    m.shared = m.shared_space.data() + (128 - uintptr_t(m.shared_space.data()) % 128);
    m.shared_bytes = shared_bytes;
    m.shared_shadow = simt::Shadow(shared_bytes);
    m.fibers.resize(threads);
    for (simt::Fiber& fiber : m.fibers) fiber.stack.reset(new char[simt::STACK]);
    m.warps.resize((threads + 31) / 32);
    m.launch_start = 1;
    uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
    bool well = threads % 32 == 0;
    if (!well) m.error = "blocks are of whole warps";
    for (uint64_t k = 0; well && k < blocks; k++) {
        uint64_t b = backward ? blocks - 1 - k : k;
        m.block_index = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]), unsigned(b / grid[0] / grid[1])};
        well = simt::run_block(backward != 0);
    }
    snprintf(error, error_bytes, "%s", m.error.c_str());
    simt::machine = nullptr;
    return well ? 0 : 1;
}
