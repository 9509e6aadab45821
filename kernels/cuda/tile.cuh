// Tiles of 64 rows of bf16 in shared memory, and what tensor cores read of them.
//
// A row's 16-byte pieces are permuted by the row's number, so that the 8 rows that ldmatrix reads lie in different banks.
#pragma once
#include "device.cuh"

constexpr int TILE = 64;  // queries, keys and distances of a tile
constexpr int D = D_HEAD;

// Where the element (row, column) of a tile of COLUMNS columns is.
template <int COLUMNS>
DEVICE int at(int row, int column) {
    constexpr int PIECES = COLUMNS / 8;
    int piece = column / 8;
    int place = PIECES >= 8 ? piece ^ (row & 7) : piece ^ ((row >> 1) & (PIECES - 1));
    return row * COLUMNS + place * 8 + column % 8;
}

// Copies rows first..end of a matrix into rows 0.. of a tile of D columns; rows from `end` on, and before 0, become zeros.
// Row r of the matrix starts at from[base + r stride].
template <int THREADS>
DEVICE void copy_tile(Shared<bf16> to, Global<const bf16> from, long long base, long long stride, int first, int end) {
    constexpr int PIECES = D / 8;
    for (int k = threadIdx.x; k < TILE * PIECES; k += THREADS) {
        int row = k / PIECES, column = k % PIECES * 8;
        bool valid = first + row >= 0 && first + row < end;
        cp_async_16(to + at<D>(row, column), from + (valid ? base + (first + row) * stride + column : 0), valid);
    }
}

// The left operand: rows first..first + 16 and columns k..k + 16 of a tile.
template <int COLUMNS>
DEVICE void left(unsigned (&a)[4], Shared<const bf16> tile, int first, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix_x4(a, tile + at<COLUMNS>(first + lane % 16, k + lane / 16 * 8));
}
// The same of the transposed tile: its columns first..first + 16 and rows k..k + 16.
template <int COLUMNS>
DEVICE void left_transposed(unsigned (&a)[4], Shared<const bf16> tile, int first, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix_x4_trans(a, tile + at<COLUMNS>(k + lane / 16 * 8 + lane % 8, first + lane / 8 % 2 * 8));
}
// Right operands for 16 columns of a product with a transposed tile: rows n..n + 16, columns k..k + 16. b[0], b[1] serve the
// first 8, b[2], b[3] the others.
template <int COLUMNS>
DEVICE void right_transposed(unsigned (&b)[4], Shared<const bf16> tile, int n, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix_x4(b, tile + at<COLUMNS>(n + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8));
}
// And of a product with the tile: rows k..k + 16, columns n..n + 16.
template <int COLUMNS>
DEVICE void right(unsigned (&b)[4], Shared<const bf16> tile, int n, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix_x4_trans(b, tile + at<COLUMNS>(k + lane % 16, n + lane / 16 * 8));
}

DEVICE float low_f32(unsigned pair) { return bits_to_f32(pair << 16); }
DEVICE float high_f32(unsigned pair) { return bits_to_f32(pair & 0xffff0000u); }
DEVICE unsigned add_bf16(unsigned a, unsigned b) {
    return pack_bf16(low_f32(a) + low_f32(b), high_f32(a) + high_f32(b));
}

// Sums over the 4 lanes that hold one row of a product.
DEVICE float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
DEVICE float row_max(float x) {
    x = max(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return max(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

// Where q, k and val (part 0, 1, 2) of a sequence's first token are in qkv, for one head, and what else a block needs.
struct Sequence {
    int seq, heads, head, batch;

    DEVICE long long width() const { return (long long)heads * D; }
    DEVICE long long qkv(int part) const { return ((long long)batch * seq * 3 + part) * width() + head * D; }
    DEVICE long long out() const { return (long long)batch * seq * width() + head * D; }
    // Row of distance 0; distances go backwards.
    DEVICE long long rel() const { return (long long)(seq - 1) * width() + head * D; }
    DEVICE long long row(int i) const { return ((long long)batch * heads + head) * seq + i; }
};

// The product q R^T of 16 queries with 64 or more distances is written to rows of `stride` floats and read along its diagonals.
constexpr int BAND_STRIDE = 56;  // 48 columns; rows 24 banks apart

// 16 columns of the band, of which lane 4 g + t holds rows g, g + 8 and columns 2 t, 2 t + 1 of each 8.
DEVICE void store_band(Shared<float> band, int column, const float (&c)[2][4]) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int n = 0; n < 2; n++) {
        for (int half = 0; half < 2; half++) {
            store_8(band + ((g + 8 * half) * BAND_STRIDE + column + 8 * n + 2 * t), c[n][2 * half], c[n][2 * half + 1]);
        }
    }
}
