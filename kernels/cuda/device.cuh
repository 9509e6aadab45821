// What kernels are written with: watched pointers, 16-byte accesses, bf16, and the instructions of Ampere's tensor cores.
//
// Each device instruction is one small function. With ISOFLOP_SIMT the same names come from shim/simt.hpp and run on the CPU.
// No header of CUDA is needed.
#pragma once

#ifdef ISOFLOP_SIMT
#include "simt.hpp"
#else

#define DEVICE __device__ __forceinline__
#define EXPORT(name)
#define INFINITY __int_as_float(0x7f800000)

template <class T>
using Global = T* __restrict__;
template <class T>
using Shared = T*;

extern __shared__ __align__(128) unsigned char shared_memory[];

// What is at `byte` of the block's shared memory.
template <class T>
DEVICE T* shared_at(int byte) {
    return reinterpret_cast<T*>(shared_memory + byte);
}
// A global address that came as a number.
template <class T>
DEVICE T* global_at(unsigned long long address) {
    return reinterpret_cast<T*>(__cvta_global_to_generic(address));
}

// 16 bytes, or 4, as one access; the place is aligned to them.
template <class T>
DEVICE uint4 load_16(const T* p) {
    return *reinterpret_cast<const uint4*>(p);
}
template <class T>
DEVICE void store_16(T* p, uint4 value) {
    *reinterpret_cast<uint4*>(p) = value;
}
template <class T>
DEVICE unsigned load_4(const T* p) {
    return *reinterpret_cast<const unsigned*>(p);
}
template <class T>
DEVICE void store_4(T* p, unsigned value) {
    *reinterpret_cast<unsigned*>(p) = value;
}
template <class T>
DEVICE void store_8(T* p, float first, float second) {
    *reinterpret_cast<float2*>(p) = float2{first, second};
}

DEVICE float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float bits_to_f32(unsigned bits) { return __uint_as_float(bits); }
DEVICE unsigned f32_to_bits(float value) { return __float_as_uint(value); }
// To nearest, ties to even.
DEVICE unsigned pack_bf16(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
DEVICE unsigned short round_bf16(float value) { return (unsigned short)pack_bf16(value, 0.0f); }

// c += a b for one 16x8 tile, 16 deep: the lane layout is written out in shim/tensor.hpp.
DEVICE void mma_bf16(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8x8 matrices of 2-byte elements; lane 8 m + i gives the place of row i of matrix m.
template <class T>
DEVICE void ldmatrix_x4(unsigned (&to)[4], const T* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}
template <class T>
DEVICE void ldmatrix_x4_trans(unsigned (&to)[4], const T* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}

// 16 bytes from global to shared memory, without a register and without waiting; zeros where not valid.
template <class T, class U>
DEVICE void cp_async_16(T* to, const U* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all but the last `left` groups of this thread have arrived.
#define cp_async_wait(left) asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory")

#endif

struct bf16 {
    unsigned short bits;
};

DEVICE float to_f32(float x) { return x; }
DEVICE float to_f32(bf16 x) { return bits_to_f32((unsigned)x.bits << 16); }

template <class T>
struct From;
template <>
struct From<float> {
    static DEVICE float f32(float x) { return x; }
};
template <>
struct From<bf16> {
    static DEVICE bf16 f32(float x) { return bf16{round_bf16(x)}; }
};

// A loaded element as f32.
template <class T, class Place>
DEVICE float value_at(Place place, long long index) {
    T element = place[index];
    return to_f32(element);
}

DEVICE float warp_sum(float x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}
DEVICE float warp_max(float x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x = max(x, __shfl_xor_sync(0xffffffffu, x, lanes));
    return x;
}

constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;
