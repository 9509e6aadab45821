// Clipping by global norm and AdamW for all tensors in three launches (Loshchilov & Hutter 2019; decay first, eps outside the
// root). Parameters and moments are f32 and change in place; gradients are GRADIENT (float, bf16).
//
//   table  [tensors, 7] u64: addresses of parameter, first moment, second moment, gradient, and of a bf16 copy of the parameter
//          to be written or 0; elements; 1 where weight decay applies. Addresses are aligned to 16 bytes.
//   chunks [n, 2] u32: tensor, and which CHUNK elements of it. A block takes one.
//   norm   [2] f32: the global norm, and the factor that clips gradients: min(clip / (norm + 1e-6), 1)
//   schedule [3] f32: learning rate, 1 - beta1^step, 1 - beta2^step
#include "vector.cuh"

constexpr int THREADS = 256;
constexpr int STEP = 8;  // elements of a thread at a time: 16 bytes of bf16, twice 16 bytes of f32
constexpr int PARAM = 0, FIRST = 1, SECOND = 2, GRAD = 3, COPY = 4, ELEMENTS = 5, DECAYS = 6;

struct Eight {
    float of[STEP];

    template <class T>
    DEVICE void load(Global<const T> place) {
        constexpr int N = Vector<T>::N;
        for (int part = 0; part < STEP / N; part++) {
            Vector<T> vector(place + part * N);
            for (int n = 0; n < N; n++) of[part * N + n] = vector.of[n];
        }
    }
    template <class T>
    DEVICE void store(Global<T> place) const {
        constexpr int N = Vector<T>::N;
        for (int part = 0; part < STEP / N; part++) {
            Vector<T> vector;
            for (int n = 0; n < N; n++) vector.of[n] = of[part * N + n];
            vector.store(place + part * N);
        }
    }
};

// What a block works on: elements start..end of a tensor.
struct Chunk {
    unsigned long long row[7];
    long long start, end;

    DEVICE Chunk(Global<const unsigned long long> table, Global<const unsigned> chunks) {
        unsigned tensor = chunks[2 * (long long)blockIdx.x], index = chunks[2 * (long long)blockIdx.x + 1];
        for (int n = 0; n < 7; n++) row[n] = table[7 * (long long)tensor + n];
        start = (long long)index * CHUNK;
        end = min(start + CHUNK, (long long)row[ELEMENTS]);
    }
};

// Grid (chunks): the sum of squares of a chunk of gradients.
extern "C" __global__ void __launch_bounds__(THREADS)
    adamw_norm_partials(Global<const unsigned long long> table, Global<const unsigned> chunks, Global<float> partials) {
    Chunk chunk(table, chunks);
    Global<const GRADIENT> gradient = global_at<const GRADIENT>(chunk.row[GRAD]);
    float sum = 0.0f;
    for (long long e = chunk.start + (long long)threadIdx.x * STEP; e < chunk.end; e += THREADS * STEP) {
        if (e + STEP <= chunk.end) {
            Eight g;
            g.load<GRADIENT>(gradient + e);
            for (int n = 0; n < STEP; n++) sum += g.of[n] * g.of[n];
        } else {
#pragma unroll 1
            for (long long rest = e; rest < chunk.end; rest++) {
                float g = value_at<GRADIENT>(gradient, rest);
                sum += g * g;
            }
        }
    }
    sum = block_sum(sum, shared_at<float>(0));
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// Grid (1): norm from the partials, added in f64.
extern "C" __global__ void __launch_bounds__(THREADS)
    adamw_norm_finish(Global<const float> partials, Global<float> norm, int n_partials, float clip) {
    double sum = 0.0;
    for (int k = threadIdx.x; k < n_partials; k += THREADS) {
        float partial = partials[k];
        sum += partial;
    }
    sum = block_sum(sum, shared_at<double>(0));
    if (threadIdx.x == 0) {
        float root = (float)sqrt(sum);
        norm[0] = root;
        norm[1] = min(clip / (root + 1e-6f), 1.0f);
    }
}

struct Rates {
    float clip, step_size, second, keep, beta1, beta2, eps;
};

DEVICE void update(float& p, float& m, float& v, float gradient, const Rates& r) {
    float g = gradient * r.clip;
    m = m * r.beta1 + g * (1.0f - r.beta1);
    v = v * r.beta2 + g * g * (1.0f - r.beta2);
    p = p * r.keep - m * r.step_size / (sqrtf(v * r.second) + r.eps);
}

// Grid (chunks).
extern "C" __global__ void __launch_bounds__(THREADS)
    adamw_update(Global<const unsigned long long> table, Global<const unsigned> chunks, Global<const float> norm,
                 Global<const float> schedule, float beta1, float beta2, float eps, float weight_decay) {
    Chunk chunk(table, chunks);
    Global<float> param = global_at<float>(chunk.row[PARAM]);
    Global<float> first = global_at<float>(chunk.row[FIRST]), second = global_at<float>(chunk.row[SECOND]);
    Global<const GRADIENT> gradient = global_at<const GRADIENT>(chunk.row[GRAD]);
    Global<bf16> copy = global_at<bf16>(chunk.row[COPY]);
    float lr = schedule[0], correction1 = schedule[1], correction2 = schedule[2], clip = norm[1];
    float keep = chunk.row[DECAYS] != 0 ? 1.0f - lr * weight_decay : 1.0f;
    Rates rates = {clip, lr / correction1, 1.0f / correction2, keep, beta1, beta2, eps};
    for (long long e = chunk.start + (long long)threadIdx.x * STEP; e < chunk.end; e += THREADS * STEP) {
        if (e + STEP <= chunk.end) {
            Eight p, m, v, g;
            p.load<float>(param + e);
            m.load<float>(first + e);
            v.load<float>(second + e);
            g.load<GRADIENT>(gradient + e);
            for (int n = 0; n < STEP; n++) update(p.of[n], m.of[n], v.of[n], g.of[n], rates);
            p.store<float>(param + e);
            m.store<float>(first + e);
            v.store<float>(second + e);
            if (chunk.row[COPY] != 0) p.store<bf16>(copy + e);
        } else {
#pragma unroll 1
            for (long long rest = e; rest < chunk.end; rest++) {
                float p = param[rest], m = first[rest], v = second[rest];
                update(p, m, v, value_at<GRADIENT>(gradient, rest), rates);
                param[rest] = p;
                first[rest] = m;
                second[rest] = v;
                if (chunk.row[COPY] != 0) copy[rest] = From<bf16>::f32(p);
            }
        }
    }
}

EXPORT(adamw_norm_partials)
EXPORT(adamw_norm_finish)
EXPORT(adamw_update)
