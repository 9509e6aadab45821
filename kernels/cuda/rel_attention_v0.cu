// Relative attention, version 0: the formulas as plain loops. What later versions are measured and checked against.
//
// With scale = 1 / sqrt(D_HEAD), for j <= i and R_t the row seq - 1 - t of rel:
//   s_ij = ((q_i + u).k_j + (q_i + v).R_{i-j}) scale     p_ij = exp(s_ij - lse_i)     out_i = sum_j p_ij val_j
//   ds_ij = p_ij (dout_i.val_j - delta_i) scale          delta_i = dout_i.out_i
// Compiled for each D_HEAD (a multiple of 32) and ELEMENT (float, bf16); sums are f32.
//
//   qkv, dqkv [batch seq, 3 heads D_HEAD]   rel, drel [seq, heads D_HEAD]   u, v [heads, D_HEAD]
//   out, dout [batch seq, heads D_HEAD]     lse, delta, key_sums [batch heads, seq] f32   distance_sums [heads, seq] f32
//
// A block has 4 warps, a warp ROWS rows, one after another. Grids: (seq / (4 ROWS), heads, batch), and of
// rel_attention_v0_drel (seq / (4 ROWS), heads, 1). Every sum has one owner, so nothing depends on timing.
#include "device.cuh"

typedef ELEMENT T;
constexpr int ROWS = 4;
constexpr int OWN = D_HEAD / 32;  // columns of a row that a lane sums: lane, lane + 32, ...

struct Place {
    int seq, heads, head, batch;

    DEVICE long long width() const { return (long long)heads * D_HEAD; }
    DEVICE long long qkv(int part, int i) const { return (((long long)batch * seq + i) * 3 + part) * width() + head * D_HEAD; }
    DEVICE long long out(int i) const { return ((long long)batch * seq + i) * width() + head * D_HEAD; }
    DEVICE long long rel(int distance) const { return (long long)(seq - 1 - distance) * width() + head * D_HEAD; }
    DEVICE long long row(int i) const { return ((long long)batch * heads + head) * seq + i; }
    DEVICE int bias() const { return head * D_HEAD; }
};

DEVICE Place place_of(int seq, int heads) { return {seq, heads, (int)blockIdx.y, (int)blockIdx.z}; }
DEVICE int first_row() { return (blockIdx.x * 4 + threadIdx.x / 32) * ROWS; }
DEVICE float scale() { return rsqrtf((float)D_HEAD); }

// s_ij
DEVICE float score(const Place& at, Global<const T> qkv, Global<const T> rel, Global<const T> u, Global<const T> v, int i, int j) {
    float sum = 0.0f;
#pragma unroll 8
    for (int c = 0; c < D_HEAD; c++) {
        float q = value_at<T>(qkv, at.qkv(0, i) + c);
        sum += (q + value_at<T>(u, at.bias() + c)) * value_at<T>(qkv, at.qkv(1, j) + c);
        sum += (q + value_at<T>(v, at.bias() + c)) * value_at<T>(rel, at.rel(i - j) + c);
    }
    return sum * scale();
}

extern "C" __global__ void __launch_bounds__(128, 4)
    rel_attention_v0_forward(Global<const T> qkv, Global<const T> rel, Global<const T> u, Global<const T> v, Global<T> out,
                             Global<float> lse, int seq, int heads) {
    Place at = place_of(seq, heads);
    int lane = threadIdx.x % 32;
    for (int i = first_row(); i < min(first_row() + ROWS, seq); i++) {
        float largest = -INFINITY, sum = 0.0f, row[OWN] = {};
        for (int start = 0; start <= i; start += 32) {
            int own = start + lane;
            float s = own <= i ? score(at, qkv, rel, u, v, i, own) : -INFINITY;
            float next = max(largest, warp_max(s));
            float p = expf(s - next), keep = expf(largest - next);
            largest = next;
            sum = sum * keep + warp_sum(p);
            for (int n = 0; n < OWN; n++) row[n] *= keep;
#pragma unroll 1
            for (int j = start; j <= min(start + 31, i); j++) {
                float p_j = __shfl_sync(0xffffffffu, p, j - start);
                for (int n = 0; n < OWN; n++) row[n] += p_j * value_at<T>(qkv, at.qkv(2, j) + lane + 32 * n);
            }
        }
        for (int n = 0; n < OWN; n++) out[at.out(i) + lane + 32 * n] = From<T>::f32(row[n] / sum);
        if (lane == 0) lse[at.row(i)] = largest + logf(sum);
    }
}

// p_ij and ds_ij
struct Pair {
    float p, ds;
};
DEVICE Pair pair(const Place& at, Global<const T> qkv, Global<const T> rel, Global<const T> u, Global<const T> v,
                 Global<const float> lse, Global<const float> delta, Global<const T> dout, int i, int j) {
    float p = expf(score(at, qkv, rel, u, v, i, j) - value_at<float>(lse, at.row(i)));
    float dp = 0.0f;
#pragma unroll 8
    for (int c = 0; c < D_HEAD; c++) dp += value_at<T>(dout, at.out(i) + c) * value_at<T>(qkv, at.qkv(2, j) + c);
    return {p, p * (dp - value_at<float>(delta, at.row(i))) * scale()};
}

// The queries' part of dqkv: dq_i = sum over j of ds_ij (k_j + R_{i-j}).
extern "C" __global__ void __launch_bounds__(128, 4)
    rel_attention_v0_dq(Global<const T> qkv, Global<const T> rel, Global<const T> u, Global<const T> v, Global<const float> lse,
                        Global<const float> delta, Global<const T> dout, Global<T> dqkv, int seq, int heads) {
    Place at = place_of(seq, heads);
    int lane = threadIdx.x % 32;
    for (int i = first_row(); i < min(first_row() + ROWS, seq); i++) {
        float row[OWN] = {};
        for (int start = 0; start <= i; start += 32) {
            int own = start + lane;
            float ds = own <= i ? pair(at, qkv, rel, u, v, lse, delta, dout, i, own).ds : 0.0f;
#pragma unroll 1
            for (int j = start; j <= min(start + 31, i); j++) {
                float ds_j = __shfl_sync(0xffffffffu, ds, j - start);
                for (int n = 0; n < OWN; n++) {
                    int c = lane + 32 * n;
                    row[n] += ds_j * (value_at<T>(qkv, at.qkv(1, j) + c) + value_at<T>(rel, at.rel(i - j) + c));
                }
            }
        }
        for (int n = 0; n < OWN; n++) dqkv[at.qkv(0, i) + lane + 32 * n] = From<T>::f32(row[n]);
    }
}

// The keys' and values' parts of dqkv, and key_sums_j = sum over i of ds_ij.
extern "C" __global__ void __launch_bounds__(128, 4)
    rel_attention_v0_dkv(Global<const T> qkv, Global<const T> rel, Global<const T> u, Global<const T> v, Global<const float> lse,
                         Global<const float> delta, Global<const T> dout, Global<T> dqkv, Global<float> key_sums, int seq,
                         int heads) {
    Place at = place_of(seq, heads);
    int lane = threadIdx.x % 32;
    for (int j = first_row(); j < min(first_row() + ROWS, seq); j++) {
        float dk[OWN] = {}, dval[OWN] = {}, sum = 0.0f;
        for (int start = j; start < seq; start += 32) {
            int own = start + lane;
            Pair pairs = own < seq ? pair(at, qkv, rel, u, v, lse, delta, dout, own, j) : Pair{0.0f, 0.0f};
            sum += warp_sum(pairs.ds);
#pragma unroll 1
            for (int i = start; i < min(start + 32, seq); i++) {
                float p_i = __shfl_sync(0xffffffffu, pairs.p, i - start);
                float ds_i = __shfl_sync(0xffffffffu, pairs.ds, i - start);
                for (int n = 0; n < OWN; n++) {
                    int c = lane + 32 * n;
                    dk[n] += ds_i * (value_at<T>(qkv, at.qkv(0, i) + c) + value_at<T>(u, at.bias() + c));
                    dval[n] += p_i * value_at<T>(dout, at.out(i) + c);
                }
            }
        }
        for (int n = 0; n < OWN; n++) {
            dqkv[at.qkv(1, j) + lane + 32 * n] = From<T>::f32(dk[n]);
            dqkv[at.qkv(2, j) + lane + 32 * n] = From<T>::f32(dval[n]);
        }
        if (lane == 0) key_sums[at.row(j)] = sum;
    }
}

// drel, and distance_sums_t = the sum of ds_ij over the batch and i - j = t.
extern "C" __global__ void __launch_bounds__(128, 4)
    rel_attention_v0_drel(Global<const T> qkv, Global<const T> rel, Global<const T> u, Global<const T> v, Global<const float> lse,
                          Global<const float> delta, Global<const T> dout, Global<T> drel, Global<float> distance_sums, int seq,
                          int heads, int batch) {
    int lane = threadIdx.x % 32;
    for (int t = first_row(); t < min(first_row() + ROWS, seq); t++) {
        Place at = place_of(seq, heads);
        float row[OWN] = {}, sum = 0.0f;
        for (at.batch = 0; at.batch < batch; at.batch++) {
            for (int start = t; start < seq; start += 32) {
                int own = start + lane;
                float ds = own < seq ? pair(at, qkv, rel, u, v, lse, delta, dout, own, own - t).ds : 0.0f;
                sum += warp_sum(ds);
#pragma unroll 1
                for (int i = start; i < min(start + 32, seq); i++) {
                    float ds_i = __shfl_sync(0xffffffffu, ds, i - start);
                    for (int n = 0; n < OWN; n++) {
                        int c = lane + 32 * n;
                        row[n] += ds_i * (value_at<T>(qkv, at.qkv(0, i) + c) + value_at<T>(v, at.bias() + c));
                    }
                }
            }
        }
        for (int n = 0; n < OWN; n++) drel[at.rel(t) + lane + 32 * n] = From<T>::f32(row[n]);
        if (lane == 0) distance_sums[(long long)at.head * seq + t] = sum;
    }
}

EXPORT(rel_attention_v0_forward)
EXPORT(rel_attention_v0_dq)
EXPORT(rel_attention_v0_dkv)
EXPORT(rel_attention_v0_drel)
