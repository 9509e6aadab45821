// Relative attention, version 1, forward: tensor cores of Ampere, scores never in global memory. bf16, formulas and shapes of
// rel_attention_v0.cu.
//
// A block takes 64 queries of one head, a warp 16 of them, and goes through tiles of 64 keys from the first to its own. With
// DELTA = query tile - key tile, the distances of a tile pair are 64 DELTA + r - c, -63 <= r - c <= 63: the chunks DELTA - 1 and
// DELTA of 64 rows of R each, and the next pair needs the chunk below. A warp's 16 rows meet 79 of these distances, so its
// (q + v) R^T has 80 columns where (q + u) k^T has 64. It goes to shared memory in two parts and comes back along diagonals:
// column b of row r belongs to key r + 64 - b. Softmax runs along (Milakov & Gimelshein 2018), in base 2.
//
// Grid (seq / 64, heads, batch), the longest rows first. Copies of the values overlap with the scores, those of the next keys
// and distances with the product by the values.
#include "tile.cuh"

constexpr int THREADS = 128;
constexpr int KSTEPS = D / 16;
constexpr int TILE_BYTES = TILE * D * 2;
constexpr int KEYS = 0, VALUES = TILE_BYTES, REL = 2 * TILE_BYTES, BAND = 4 * TILE_BYTES;
static_assert(BAND + 4 * 16 * BAND_STRIDE * 4 == SHARED_BYTES, "the launch gives another amount of shared memory");

// Chunk m of R lies in slot m % 2.
DEVICE Shared<bf16> rel_slot(int chunk) { return shared_at<bf16>(REL + (chunk & 1) * TILE_BYTES); }

// Columns 16 first..16 end of a warp's band of distances.
DEVICE void position(const unsigned (&qv)[KSTEPS][4], Shared<float> band, int warp, int delta, int first, int end) {
#pragma unroll
    for (int group = first; group < end; group++) {
        float c[2][4] = {};
        int row = 16 * (warp + group);
        Shared<const bf16> chunk = rel_slot(row < TILE ? delta - 1 : delta);
#pragma unroll
        for (int k = 0; k < KSTEPS; k++) {
            unsigned b[4];
            right_transposed<D>(b, chunk, row % TILE, 16 * k);
            mma_bf16(c[0], qv[k], b[0], b[1]);
            mma_bf16(c[1], qv[k], b[2], b[3]);
        }
        store_band(band, 16 * (group % 3), c);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    rel_attention_v1_forward(Global<const bf16> qkv, Global<const bf16> rel, Global<const bf16> u, Global<const bf16> v,
                             Global<bf16> out, Global<float> lse, int seq, int heads) {
    Sequence of = {seq, heads, (int)blockIdx.y, (int)blockIdx.z};
    int tile = gridDim.x - 1 - blockIdx.x;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    long long stride = 3 * of.width();
    Shared<bf16> keys = shared_at<bf16>(KEYS), values = shared_at<bf16>(VALUES);
    Shared<float> band = shared_at<float>(BAND) + warp * 16 * BAND_STRIDE;

    auto copy_keys = [&](int j) { copy_tile<THREADS>(keys, qkv, of.qkv(1), stride, j * TILE, seq); };
    auto copy_rel = [&](int chunk) { copy_tile<THREADS>(rel_slot(chunk), rel, of.rel(), -of.width(), chunk * TILE, seq); };

    // Queries pass through the place of the values.
    copy_tile<THREADS>(values, qkv, of.qkv(0), stride, tile * TILE, seq);
    copy_keys(0);
    copy_rel(tile);
    copy_rel(tile - 1);
    cp_async_commit();
    cp_async_wait(0);
    __syncthreads();
    unsigned qu[KSTEPS][4], qv[KSTEPS][4];
#pragma unroll
    for (int k = 0; k < KSTEPS; k++) {
        unsigned q[4];
        left<D>(q, values, 16 * warp, 16 * k);
        for (int r = 0; r < 4; r++) {
            int column = of.head * D + 16 * k + 2 * t + r / 2 * 8;
            qu[k][r] = add_bf16(q[r], load_4(u + column));
            qv[k][r] = add_bf16(q[r], load_4(v + column));
        }
    }

    float o[D / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    float scale = LOG2_E * rsqrtf((float)D);
    for (int j = 0; j <= tile; j++) {
        int delta = tile - j;
        // The keys and distances are there, and nobody needs the old values.
        cp_async_wait(0);
        __syncthreads();
        copy_tile<THREADS>(values, qkv, of.qkv(2), stride, j * TILE, seq);
        cp_async_commit();

        float s[8][4] = {};
#pragma unroll
        for (int k = 0; k < KSTEPS; k++) {
#pragma unroll
            for (int n = 0; n < 4; n++) {
                unsigned b[4];
                right_transposed<D>(b, keys, 16 * n, 16 * k);
                mma_bf16(s[2 * n], qu[k], b[0], b[1]);
                mma_bf16(s[2 * n + 1], qu[k], b[2], b[3]);
            }
        }
        // Keys 32..64 need columns 1..48 of the band, keys 0..32 columns 33..80.
        auto add_band = [&](int first) {
#pragma unroll
            for (int n = first; n < first + 4; n++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int row = g + e / 2 * 8, column = row + 64 - (8 * n + 2 * t + e % 2);
                    float position = band[row * BAND_STRIDE + (column >= 48 ? column - 48 : column)];
                    float score = (s[n][e] + position) * scale;
                    bool future = delta == 0 && 8 * n + 2 * t + e % 2 > 16 * warp + row;
                    s[n][e] = future ? -INFINITY : score;
                }
            }
        };
        position(qv, band, warp, delta, 0, 3);
        __syncwarp();
        add_band(4);
        __syncwarp();
        position(qv, band, warp, delta, 3, 5);
        __syncwarp();
        add_band(0);

        // The values are there, and nobody needs these keys and the farther distances.
        cp_async_wait(0);
        __syncthreads();
        if (j < tile) {
            copy_keys(j + 1);
            copy_rel(delta - 2);
        }
        cp_async_commit();

#pragma unroll
        for (int half = 0; half < 2; half++) {
            float next = largest[half];
            for (int n = 0; n < 8; n++) next = max(next, max(s[n][2 * half], s[n][2 * half + 1]));
            next = row_max(next);
            float keep = exp2_approx(largest[half] - next);
            largest[half] = next;
            sum[half] *= keep;
            for (int n = 0; n < D / 8; n++) {
                o[n][2 * half] *= keep;
                o[n][2 * half + 1] *= keep;
            }
            for (int n = 0; n < 8; n++) {
                for (int e = 2 * half; e < 2 * half + 2; e++) {
                    s[n][e] = exp2_approx(s[n][e] - next);
                    sum[half] += s[n][e];
                }
            }
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            unsigned p[4] = {pack_bf16(s[2 * k][0], s[2 * k][1]), pack_bf16(s[2 * k][2], s[2 * k][3]),
                             pack_bf16(s[2 * k + 1][0], s[2 * k + 1][1]), pack_bf16(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                unsigned b[4];
                right<D>(b, values, 16 * n, 16 * k);
                mma_bf16(o[2 * n], p, b[0], b[1]);
                mma_bf16(o[2 * n + 1], p, b[2], b[3]);
            }
        }
    }

    // The output passes through the place of the keys, a warp's rows by the warp alone, to leave 16 bytes at a time.
    cp_async_wait(0);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float all = row_sum(sum[half]), inverse = 1.0f / all;
        int row = 16 * warp + g + 8 * half, i = tile * TILE + row;
        for (int n = 0; n < D / 8; n++) {
            unsigned pair = pack_bf16(o[n][2 * half] * inverse, o[n][2 * half + 1] * inverse);
            store_4(keys + at<D>(row, 8 * n + 2 * t), pair);
        }
        if (t == 0 && i < seq) lse[of.row(i)] = largest[half] * LN_2 + logf(all);
    }
    __syncwarp();
    for (int k = lane; k < 16 * (D / 8); k += 32) {
        int row = 16 * warp + k / (D / 8), column = k % (D / 8) * 8, i = tile * TILE + row;
        if (i < seq) store_16(out + (of.out() + i * of.width() + column), load_16(keys + at<D>(row, column)));
    }
}

EXPORT(rel_attention_v1_forward)
