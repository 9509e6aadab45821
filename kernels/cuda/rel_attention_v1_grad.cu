// Relative attention, version 1, backward: three kernels, each the owner of what it writes. bf16, formulas and shapes of
// rel_attention_v0.cu; delta, key_sums and distance_sums as in rel_attention_sums.cu.
//
//   rel_attention_v1_dq    a block owns 64 queries, and goes through the keys up to them
//   rel_attention_v1_dkv   a block owns 64 keys, and goes through the queries from them on
//   rel_attention_v1_drel  a block owns 64 distances of a head, and goes through all tile pairs of all sequences that have them
//
// Each makes p and ds of a tile pair anew. 8 warps: warp w makes rows 16 (w % 4).. and columns 32 (w / 4).. of them, from
// (q + u) k^T, the band (q + v) R^T as in rel_attention_v1.cu, and dout val^T. They go to shared memory as bf16; then warp w makes
// rows 16 (w % 4).. and half the columns of a product with them.
#include "tile.cuh"

constexpr int THREADS = 256;
constexpr int KSTEPS = D / 16;
constexpr int HALF = D / 2;     // columns of a warp's result
constexpr int PARTS = D / 32;   // 16 of these columns at a time
constexpr int TILE_BYTES = TILE * D * 2;
constexpr int SKEW_STRIDE = 88;  // columns of ds by distance: 80 are used, and rows are 11 pieces apart

// Shared memory. What is last differs: P and DS; DS and SKEW; W.
constexpr int QUERIES_U = 0, QUERIES_V = TILE_BYTES, DOUT = 2 * TILE_BYTES, KEYS = 3 * TILE_BYTES, VALUES = 4 * TILE_BYTES,
              REL = 5 * TILE_BYTES, BAND = 7 * TILE_BYTES, ROWS = BAND + 8 * 16 * BAND_STRIDE * 4, LAST = ROWS + 2 * TILE * 4;
constexpr int SQUARE = TILE * TILE * 2;
static_assert(LAST + SQUARE + TILE * SKEW_STRIDE * 2 == SHARED_BYTES_DQ, "the launch gives another amount of shared memory");
static_assert(LAST + 2 * SQUARE == SHARED_BYTES_DKV, "the launch gives another amount of shared memory");
static_assert(LAST + SQUARE == SHARED_BYTES_DREL, "the launch gives another amount of shared memory");

DEVICE Shared<bf16> tile_at(int byte) { return shared_at<bf16>(byte); }
DEVICE Shared<bf16> rel_slot(int chunk) { return tile_at(REL + (chunk & 1) * TILE_BYTES); }

struct Inputs {
    Global<const bf16> qkv, rel, u, v, dout;
    Global<const float> lse, delta;
    Sequence of;

    DEVICE void copy_part(int byte, int part, int tile) const {
        copy_tile<THREADS>(tile_at(byte), qkv, of.qkv(part), 3 * of.width(), tile * TILE, of.seq);
    }
    DEVICE void copy_dout(int tile) const { copy_tile<THREADS>(tile_at(DOUT), dout, of.out(), of.width(), tile * TILE, of.seq); }
    // A chunk without distances becomes zeros: zeros are multiplied with it.
    DEVICE void copy_rel(int chunk) const {
        copy_tile<THREADS>(rel_slot(chunk), rel, of.rel(), -of.width(), chunk * TILE, chunk < 0 ? 0 : of.seq);
    }
    // lse in base 2 and delta of the tile's queries; rows past the end get p = 0 and ds = 0.
    DEVICE void load_rows(int tile) const {
        Shared<float> rows = shared_at<float>(ROWS);
        if (threadIdx.x < TILE) {
            int i = tile * TILE + threadIdx.x;
            float own_lse = INFINITY, own_delta = 0.0f;
            if (i < of.seq) {
                own_lse = value_at<float>(lse, of.row(i)) * LOG2_E;
                own_delta = value_at<float>(delta, of.row(i));
            }
            rows[threadIdx.x] = own_lse;
            rows[TILE + threadIdx.x] = own_delta;
        }
    }
    // q, which was copied to the place of q + u, becomes q + u and q + v. Each thread changes what it copied.
    DEVICE void add_biases() const {
        constexpr int PIECES = D / 8;
        for (int k = threadIdx.x; k < TILE * PIECES; k += THREADS) {
            int row = k / PIECES, column = k % PIECES * 8;
            uint4 q = load_16(tile_at(QUERIES_U) + at<D>(row, column));
            uint4 a = load_16(u + (of.head * D + column)), b = load_16(v + (of.head * D + column));
            store_16(tile_at(QUERIES_U) + at<D>(row, column),
                     uint4{add_bf16(q.x, a.x), add_bf16(q.y, a.y), add_bf16(q.z, a.z), add_bf16(q.w, a.w)});
            store_16(tile_at(QUERIES_V) + at<D>(row, column),
                     uint4{add_bf16(q.x, b.x), add_bf16(q.y, b.y), add_bf16(q.z, b.z), add_bf16(q.w, b.w)});
        }
    }
};

struct Lane {
    int warp, g, t, row, column;  // row, column: the first of the warp's part of a tile pair

    DEVICE Lane() {
        warp = threadIdx.x / 32;
        g = threadIdx.x % 32 / 4;
        t = threadIdx.x % 4;
        row = warp % 4 * 16;
        column = warp / 4 * 32;
    }
};

// c += rows first.. of the left tile by 32 rows of the transposed right one.
DEVICE void scores(float (&c)[4][4], Shared<const bf16> a_tile, Shared<const bf16> b_tile, const Lane& lane) {
#pragma unroll
    for (int k = 0; k < KSTEPS; k++) {
        unsigned a[4], b[4];
        left<D>(a, a_tile, lane.row, 16 * k);
#pragma unroll
        for (int n = 0; n < 2; n++) {
            right_transposed<D>(b, b_tile, lane.column + 16 * n, 16 * k);
            mma_bf16(c[2 * n], a, b[0], b[1]);
            mma_bf16(c[2 * n + 1], a, b[2], b[3]);
        }
    }
}

// p and ds of the warp's part of a tile pair whose distances are 64 delta + r - c. Element e of lane (g, t) in group n is row
// g + 8 (e / 2), column 8 n + 2 t + e % 2 of that part. All of the block's tiles are there.
DEVICE void pairs(float (&p)[4][4], float (&ds)[4][4], int delta, const Lane& lane) {
    Shared<float> band = shared_at<float>(BAND) + lane.warp * 16 * BAND_STRIDE;
    Shared<float> rows = shared_at<float>(ROWS);
    // Keys 32..64 need columns 1..48 of the rows' band, keys 0..32 columns 33..80.
    int first = lane.column == 0 ? 2 : 0;
    {
        float c[6][4] = {};
#pragma unroll
        for (int k = 0; k < KSTEPS; k++) {
            unsigned a[4], b[4];
            left<D>(a, tile_at(QUERIES_V), lane.row, 16 * k);
#pragma unroll
            for (int n = 0; n < 3; n++) {
                int row = lane.row + 16 * (first + n);
                right_transposed<D>(b, rel_slot(row < TILE ? delta - 1 : delta), row % TILE, 16 * k);
                mma_bf16(c[2 * n], a, b[0], b[1]);
                mma_bf16(c[2 * n + 1], a, b[2], b[3]);
            }
        }
        for (int n = 0; n < 3; n++) {
            float two[2][4];
            for (int e = 0; e < 8; e++) two[e / 4][e % 4] = c[2 * n + e / 4][e % 4];
            store_band(band, 16 * n, two);
        }
        __syncwarp();
    }
    for (int n = 0; n < 4; n++) {
        for (int e = 0; e < 4; e++) p[n][e] = ds[n][e] = 0.0f;
    }
    scores(p, tile_at(QUERIES_U), tile_at(KEYS), lane);
    scores(ds, tile_at(DOUT), tile_at(VALUES), lane);
    float scale = rsqrtf((float)D);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = lane.g + 8 * half;
        float lse = rows[lane.row + row], own_delta = rows[TILE + lane.row + row];
#pragma unroll
        for (int n = 0; n < 4; n++) {
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
                int column = 8 * n + 2 * lane.t + e % 2;
                float position = band[row * BAND_STRIDE + row + 64 - lane.column - column - 16 * first];
                bool future = delta == 0 && lane.column + column > lane.row + row;
                p[n][e] = future ? 0.0f : exp2_approx((p[n][e] + position) * scale * LOG2_E - lse);
                ds[n][e] = p[n][e] * (ds[n][e] - own_delta) * scale;
            }
        }
    }
}

// The warp's part of a square [64, 64] of bf16.
DEVICE void store_square(Shared<bf16> to, const float (&x)[4][4], const Lane& lane) {
    for (int n = 0; n < 4; n++) {
        for (int half = 0; half < 2; half++) {
            store_4(to + at<TILE>(lane.row + lane.g + 8 * half, lane.column + 8 * n + 2 * lane.t),
                    pack_bf16(x[n][2 * half], x[n][2 * half + 1]));
        }
    }
}

// c += 16 rows of a square, or of its transpose, by the warp's half of the columns of a tile.
template <bool TRANSPOSED>
DEVICE void product(float (&c)[2 * PARTS][4], Shared<const bf16> square, Shared<const bf16> tile, const Lane& lane) {
#pragma unroll
    for (int k = 0; k < 4; k++) {
        unsigned a[4], b[4];
        if (TRANSPOSED) {
            left_transposed<TILE>(a, square, lane.row, 16 * k);
        } else {
            left<TILE>(a, square, lane.row, 16 * k);
        }
#pragma unroll
        for (int n = 0; n < PARTS; n++) {
            right<D>(b, tile, lane.warp / 4 * HALF + 16 * n, 16 * k);
            mma_bf16(c[2 * n], a, b[0], b[1]);
            mma_bf16(c[2 * n + 1], a, b[2], b[3]);
        }
    }
}

// The block's result of 64 rows goes through a tile of shared memory to rows first..seq of a matrix, 16 bytes at a time. Row r
// of the matrix starts at to[base + r stride].
DEVICE void store_rows(Shared<bf16> tile, const float (&c)[2 * PARTS][4], const Lane& lane, Global<bf16> to, long long base,
                       long long stride, int first, int seq) {
    constexpr int PIECES = D / 8;
    __syncthreads();
    for (int n = 0; n < 2 * PARTS; n++) {
        for (int half = 0; half < 2; half++) {
            store_4(tile + at<D>(lane.row + lane.g + 8 * half, lane.warp / 4 * HALF + 8 * n + 2 * lane.t),
                    pack_bf16(c[n][2 * half], c[n][2 * half + 1]));
        }
    }
    __syncthreads();
    for (int k = threadIdx.x; k < TILE * PIECES; k += THREADS) {
        int row = k / PIECES, column = k % PIECES * 8;
        if (first + row < seq) store_16(to + (base + (first + row) * stride + column), load_16(tile + at<D>(row, column)));
    }
}

// Grid (seq / 64, heads, batch), the longest rows first.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    rel_attention_v1_dq(Global<const bf16> qkv, Global<const bf16> rel, Global<const bf16> u, Global<const bf16> v,
                        Global<const float> lse, Global<const float> delta, Global<const bf16> dout, Global<bf16> dqkv, int seq,
                        int heads) {
    Lane lane;
    int tile = gridDim.x - 1 - blockIdx.x;
    Inputs in = {qkv, rel, u, v, dout, lse, delta, {seq, heads, (int)blockIdx.y, (int)blockIdx.z}};
    Shared<bf16> square = tile_at(LAST), skewed = tile_at(LAST + SQUARE);
    in.copy_part(QUERIES_U, 0, tile);
    in.copy_dout(tile);
    in.copy_rel(tile);
    cp_async_commit();
    // ds by distance: row r has key j in column r % 16 + 64 - j, and zeros elsewhere.
    for (int k = threadIdx.x; k < TILE * SKEW_STRIDE / 8; k += THREADS) store_16(skewed + 8 * k, uint4{0, 0, 0, 0});
    in.load_rows(tile);
    cp_async_wait(0);
    in.add_biases();

    float c[2 * PARTS][4] = {};
    for (int j = 0; j <= tile; j++) {
        int distance = tile - j;
        __syncthreads();
        in.copy_part(KEYS, 1, j);
        in.copy_part(VALUES, 2, j);
        in.copy_rel(distance - 1);
        cp_async_commit();
        cp_async_wait(0);
        __syncthreads();
        float p[4][4], ds[4][4];
        pairs(p, ds, distance, lane);
        store_square(square, ds, lane);
        for (int n = 0; n < 4; n++) {
            for (int e = 0; e < 4; e++) {
                int row = lane.g + e / 2 * 8, key = lane.column + 8 * n + 2 * lane.t + e % 2;
                skewed[(lane.row + row) * SKEW_STRIDE + row + 64 - key] = From<bf16>::f32(ds[n][e]);
            }
        }
        __syncthreads();
        product<false>(c, square, tile_at(KEYS), lane);
#pragma unroll
        for (int k = 0; k < 5; k++) {
            unsigned a[4], b[4];
            int own = threadIdx.x % 32, row = lane.row + 16 * k;
            ldmatrix_x4(a, skewed + ((lane.row + own % 16) * SKEW_STRIDE + 16 * k + own / 16 * 8));
            Shared<const bf16> chunk = rel_slot(row < TILE ? distance - 1 : distance);
#pragma unroll
            for (int n = 0; n < PARTS; n++) {
                right<D>(b, chunk, lane.warp / 4 * HALF + 16 * n, row % TILE);
                mma_bf16(c[2 * n], a, b[0], b[1]);
                mma_bf16(c[2 * n + 1], a, b[2], b[3]);
            }
        }
    }
    store_rows(tile_at(KEYS), c, lane, dqkv, in.of.qkv(0), 3 * in.of.width(), tile * TILE, seq);
}

// Grid (seq / 64, heads, batch); the first keys meet the most queries.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    rel_attention_v1_dkv(Global<const bf16> qkv, Global<const bf16> rel, Global<const bf16> u, Global<const bf16> v,
                         Global<const float> lse, Global<const float> delta, Global<const bf16> dout, Global<bf16> dqkv,
                         Global<float> key_sums, int seq, int heads) {
    Lane lane;
    int tile = blockIdx.x, tiles = gridDim.x;
    Inputs in = {qkv, rel, u, v, dout, lse, delta, {seq, heads, (int)blockIdx.y, (int)blockIdx.z}};
    Shared<bf16> p_square = tile_at(LAST), ds_square = tile_at(LAST + SQUARE);
    in.copy_part(KEYS, 1, tile);
    in.copy_part(VALUES, 2, tile);
    in.copy_rel(-1);

    float dk[2 * PARTS][4] = {}, dval[2 * PARTS][4] = {}, sums[4][2] = {};
    for (int i = tile; i < tiles; i++) {
        int distance = i - tile;
        __syncthreads();
        in.copy_part(QUERIES_U, 0, i);
        in.copy_dout(i);
        in.copy_rel(distance);
        cp_async_commit();
        in.load_rows(i);
        cp_async_wait(0);
        in.add_biases();
        __syncthreads();
        float p[4][4], ds[4][4];
        pairs(p, ds, distance, lane);
        store_square(p_square, p, lane);
        store_square(ds_square, ds, lane);
        for (int n = 0; n < 4; n++) {
            for (int e = 0; e < 4; e++) sums[n][e % 2] += ds[n][e];
        }
        __syncthreads();
        product<true>(dval, p_square, tile_at(DOUT), lane);
        product<true>(dk, ds_square, tile_at(QUERIES_U), lane);
    }
    store_rows(tile_at(KEYS), dk, lane, dqkv, in.of.qkv(1), 3 * in.of.width(), tile * TILE, seq);
    store_rows(tile_at(VALUES), dval, lane, dqkv, in.of.qkv(2), 3 * in.of.width(), tile * TILE, seq);

    // Sums over a warp's rows, then over the 4 warps of a column.
    Shared<float> columns = shared_at<float>(BAND);
    for (int n = 0; n < 4; n++) {
        for (int e = 0; e < 2; e++) {
            float sum = sums[n][e];
            for (int lanes = 4; lanes < 32; lanes *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
            if (lane.g == 0) columns[lane.warp % 4 * TILE + lane.column + 8 * n + 2 * lane.t + e] = sum;
        }
    }
    __syncthreads();
    int j = tile * TILE + threadIdx.x;
    if (threadIdx.x < TILE && j < seq) {
        float sum = 0.0f;
        for (int w = 0; w < 4; w++) sum += value_at<float>(columns, w * TILE + threadIdx.x);
        key_sums[in.of.row(j)] = sum;
    }
}

// Grid (seq / 64, heads); the nearest distances have the most pairs. Distances 64 m.. of a tile pair with distances 64 delta +
// r - c lie at delta = m where c <= r, and at delta = m + 1 where c > r, both times in row (r - c) mod 64.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    rel_attention_v1_drel(Global<const bf16> qkv, Global<const bf16> rel, Global<const bf16> u, Global<const bf16> v,
                          Global<const float> lse, Global<const float> delta, Global<const bf16> dout, Global<bf16> drel,
                          Global<float> distance_sums, int seq, int heads, int batch) {
    Lane lane;
    int own = blockIdx.x, tiles = gridDim.x;
    Inputs in = {qkv, rel, u, v, dout, lse, delta, {seq, heads, (int)blockIdx.y, 0}};
    Shared<bf16> square = tile_at(LAST);
    float c[2 * PARTS][4] = {}, sum = 0.0f;
    in.copy_rel(own - 1);
    for (int distance = own; distance <= own + 1 && distance < tiles; distance++) {
        for (int pair = 0; pair < batch * (tiles - distance); pair++) {
            in.of.batch = pair / (tiles - distance);
            int i = distance + pair % (tiles - distance);
            __syncthreads();
            if (pair == 0) in.copy_rel(distance);
            in.copy_part(QUERIES_U, 0, i);
            in.copy_dout(i);
            in.copy_part(KEYS, 1, i - distance);
            in.copy_part(VALUES, 2, i - distance);
            cp_async_commit();
            in.load_rows(i);
            cp_async_wait(0);
            in.add_biases();
            __syncthreads();
            float p[4][4], ds[4][4];
            pairs(p, ds, distance, lane);
            for (int n = 0; n < 4; n++) {
                for (int e = 0; e < 4; e++) {
                    int row = lane.row + lane.g + e / 2 * 8, column = lane.column + 8 * n + 2 * lane.t + e % 2;
                    bool here = distance == own ? column <= row : column > row;
                    square[at<TILE>(row, (row - column) & 63)] = From<bf16>::f32(here ? ds[n][e] : 0.0f);
                }
            }
            __syncthreads();
            product<true>(c, square, tile_at(QUERIES_V), lane);
            for (int r = 0; r < 16; r++) sum += value_at<bf16>(square, at<TILE>(threadIdx.x / 64 * 16 + r, threadIdx.x % 64));
        }
    }
    store_rows(tile_at(KEYS), c, lane, drel, in.of.rel(), -in.of.width(), own * TILE, seq);

    Shared<float> quarters = shared_at<float>(BAND);
    quarters[threadIdx.x] = sum;
    __syncthreads();
    int t = own * TILE + threadIdx.x;
    if (threadIdx.x < TILE && t < seq) {
        float all = 0.0f;
        for (int quarter = 0; quarter < 4; quarter++) all += value_at<float>(quarters, quarter * TILE + threadIdx.x);
        distance_sums[(long long)in.of.head * seq + t] = all;
    }
}

EXPORT(rel_attention_v1_dq)
EXPORT(rel_attention_v1_dkv)
EXPORT(rel_attention_v1_drel)
