// What every version of relative attention's backward pass needs beside its own kernels: delta before them, du and dv after.
//
//   delta_i = dout_i.out_i
//   du = sum over j of key_sums_j k_j, key_sums_j = sum over i of ds_ij
//   dv = sum over t of distance_sums_t R_t, distance_sums_t = the sum of ds_ij over the batch and i - j = t
// Shapes as in rel_attention_v0.cu; partials [splits, heads, 2 D_HEAD] f32. Sums are taken in one order: rows of a split by
// thread, threads in a tree, splits in order.
#include "vector.cuh"

typedef ELEMENT T;
constexpr int PER_ACCESS = Vector<T>::N;
constexpr int LANES = D_HEAD / PER_ACCESS;  // threads that share a row, each with 16 bytes of it
constexpr int GROUPS = 128 / LANES;         // rows that a block takes at once
constexpr int SPLIT = SPLIT_ROWS;

// Grid (rows / GROUPS), rows = batch seq heads in the order of out. Row r = (token, head) has its delta at [b, head, i].
extern "C" __global__ void __launch_bounds__(128)
    rel_attention_delta(Global<const T> out, Global<const T> dout, Global<float> delta, int seq, int heads, int tokens) {
    long long row = (long long)blockIdx.x * GROUPS + threadIdx.x / LANES;
    int lane = threadIdx.x % LANES;
    bool valid = row < (long long)tokens * heads;
    float sum = 0.0f;
    if (valid) {
        Vector<T> a(out + (row * D_HEAD + lane * PER_ACCESS));
        Vector<T> b(dout + (row * D_HEAD + lane * PER_ACCESS));
        for (int n = 0; n < PER_ACCESS; n++) sum += a.of[n] * b.of[n];
    }
    for (int lanes = LANES / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    if (valid && lane == 0) {
        int token = (int)(row / heads), head = (int)(row % heads);
        delta[((long long)(token / seq) * heads + head) * seq + token % seq] = sum;
    }
}

// The sum of rows [GROUPS, D_HEAD] in shared memory, into columns of row 0.
DEVICE void add_groups(Shared<float> rows) {
    for (int groups = GROUPS / 2; groups > 0; groups /= 2) {
        __syncthreads();
        for (int k = threadIdx.x; k < groups * D_HEAD; k += 128) {
            float other = rows[k + groups * D_HEAD];
            rows[k] += other;
        }
    }
    __syncthreads();
}

// Grid (splits, heads): partials of rows [SPLIT s, SPLIT (s + 1)) of the batch's keys and of the distances.
// Shared memory: GROUPS D_HEAD f32 = 128 PER_ACCESS f32.
extern "C" __global__ void __launch_bounds__(128)
    rel_attention_bias_partials(Global<const T> qkv, Global<const T> rel, Global<const float> key_sums,
                                Global<const float> distance_sums, Global<float> partials, int seq, int heads, int tokens) {
    int head = blockIdx.y, group = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    Shared<float> rows = shared_at<float>(0);
    Global<float> own = partials + ((long long)blockIdx.x * heads + head) * 2 * D_HEAD;
    int start = blockIdx.x * SPLIT;
    for (int part = 0; part < 2; part++) {
        float sums[PER_ACCESS] = {};
        for (int r = start + group; r < min(start + SPLIT, part == 0 ? tokens : seq); r += GROUPS) {
            float weight;
            Vector<T> row;
            if (part == 0) {
                weight = key_sums[((long long)(r / seq) * heads + head) * seq + r % seq];
                row = Vector<T>(qkv + ((((long long)r * 3 + 1) * heads + head) * D_HEAD + lane * PER_ACCESS));
            } else {
                weight = distance_sums[(long long)head * seq + r];
                row = Vector<T>(rel + (((long long)(seq - 1 - r) * heads + head) * D_HEAD + lane * PER_ACCESS));
            }
            for (int n = 0; n < PER_ACCESS; n++) sums[n] += weight * row.of[n];
        }
        for (int n = 0; n < PER_ACCESS; n++) rows[group * D_HEAD + lane * PER_ACCESS + n] = sums[n];
        add_groups(rows);
        for (int c = threadIdx.x; c < D_HEAD; c += 128) {
            float sum = rows[c];
            own[part * D_HEAD + c] = sum;
        }
        __syncthreads();
    }
}

// Grid (heads): du and dv [heads, D_HEAD] from the partials.
extern "C" __global__ void __launch_bounds__(128)
    rel_attention_bias_finish(Global<const float> partials, Global<T> du, Global<T> dv, int heads, int splits) {
    int head = blockIdx.x;
    for (int c = threadIdx.x; c < 2 * D_HEAD; c += 128) {
        float sum = 0.0f;
        for (int s = 0; s < splits; s++) {
            float part = partials[((long long)s * heads + head) * 2 * D_HEAD + c];
            sum += part;
        }
        if (c < D_HEAD) {
            du[head * D_HEAD + c] = From<T>::f32(sum);
        } else {
            dv[head * D_HEAD + c - D_HEAD] = From<T>::f32(sum);
        }
    }
}

EXPORT(rel_attention_delta)
EXPORT(rel_attention_bias_partials)
EXPORT(rel_attention_bias_finish)
