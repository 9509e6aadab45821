// Elements that one 16-byte access moves, as f32, and sums over the threads of a block in one order.
#pragma once
#include "device.cuh"

// 4 floats or 8 bf16.
template <class T>
struct Vector {
    static constexpr int N = 16 / sizeof(T);
    float of[N];

    DEVICE Vector() {}
    template <class Place>
    DEVICE explicit Vector(Place place) {
        uint4 loaded = load_16(place);
        unsigned words[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
        for (int n = 0; n < N; n++) {
            if (N == 4) {
                of[n] = bits_to_f32(words[n % 4]);
            } else {
                of[n] = bits_to_f32(n % 2 ? words[n / 2] & 0xffff0000u : words[n / 2] << 16);
            }
        }
    }

    template <class Place>
    DEVICE void store(Place place) const {
        unsigned words[4];
        for (int n = 0; n < 4; n++) words[n] = N == 4 ? f32_to_bits(of[n % N]) : pack_bf16(of[2 * n % N], of[(2 * n + 1) % N]);
        store_16(place, uint4{words[0], words[1], words[2], words[3]});
    }
};

// The sum over the block's threads, for all of them; `scratch` has a T for each warp, at most 32.
template <class T>
DEVICE T block_sum(T x, Shared<T> scratch) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    T sum = 0;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) {
        T of_warp = scratch[warp];
        sum += of_warp;
    }
    return sum;
}
DEVICE float block_max(float x, Shared<float> scratch) {
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    float largest = -INFINITY;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) {
        float of_warp = scratch[warp];
        largest = max(largest, of_warp);
    }
    return largest;
}
