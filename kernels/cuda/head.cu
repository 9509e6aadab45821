// The cross entropy of a chunk of logits and its gradient in their place: what the head computes between its products.
//
//   x       ELEMENT (float, bf16) [rows, stride], of a row the first `vocab` are logits; stride a multiple of 8, x aligned to
//           16 bytes
//   losses  f32 [rows]: ln sum_c exp(x_c) - x_target, in nats; without a target in 0..vocab ln sum_c exp(x_c - max)
//   with gradients, x_c becomes scale (softmax(x)_c - [c = target])
#include "vector.cuh"

typedef ELEMENT T;
constexpr int THREADS = 256;
constexpr int N = Vector<T>::N;

// Adds exp(x - largest) to a sum that is relative to `largest`, which may grow.
struct Running {
    float largest = -INFINITY, sum = 0.0f;

    DEVICE void add(float x) {
        if (x > largest) {
            sum *= exp2_approx((largest - x) * LOG2_E);
            largest = x;
        }
        sum += exp2_approx((x - largest) * LOG2_E);
    }
};

// Grid (rows). Shared memory: 8 f32.
extern "C" __global__ void __launch_bounds__(THREADS)
    head_cross_entropy(Global<T> x, Global<const int> targets, Global<float> losses, int vocab, int stride, float scale,
                       int gradients) {
    Shared<float> scratch = shared_at<float>(0);
    Global<T> row = x + (long long)blockIdx.x * stride;
    int whole = vocab / N * N;
    Running own;
    for (int c = threadIdx.x * N; c < whole; c += THREADS * N) {
        Vector<T> values(row + c);
        for (int n = 0; n < N; n++) own.add(values.of[n]);
    }
    int rest = whole + threadIdx.x;
    if (rest < vocab) own.add(value_at<T>(row, rest));
    float largest = block_max(own.largest, scratch);
    float part = own.sum == 0.0f ? 0.0f : own.sum * exp2_approx((own.largest - largest) * LOG2_E);
    float sum = block_sum(part, scratch);
    int target = targets[blockIdx.x];
    bool named = target >= 0 && target < vocab;
    if (threadIdx.x == 0) losses[blockIdx.x] = logf(sum) - (named ? value_at<T>(row, target) - largest : 0.0f);
    if (gradients == 0) return;
    __syncthreads();
    float factor = scale / sum;
    auto gradient = [&](float value, int c) {
        return exp2_approx((value - largest) * LOG2_E) * factor - (c == target ? scale : 0.0f);
    };
    for (int c = threadIdx.x * N; c < whole; c += THREADS * N) {
        Vector<T> values(row + c);
        for (int n = 0; n < N; n++) values.of[n] = gradient(values.of[n], c + n);
        values.store(row + c);
    }
    if (rest < vocab) row[rest] = From<T>::f32(gradient(value_at<T>(row, rest), rest));
}

// Grid (1). Shared memory: 8 f64. The mean of the rows' losses, added in f64.
extern "C" __global__ void __launch_bounds__(THREADS) head_loss_mean(Global<const float> losses, Global<float> loss, int rows) {
    double sum = 0.0;
    for (int row = threadIdx.x; row < rows; row += THREADS) {
        float of_row = losses[row];
        sum += of_row;
    }
    sum = block_sum(sum, shared_at<double>(0));
    if (threadIdx.x == 0) loss[0] = (float)(sum / rows);
}

EXPORT(head_cross_entropy)
EXPORT(head_loss_mean)
