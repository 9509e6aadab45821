// Kernels of a bigram model, small enough to be read: logits of the next token are one row of a table.
// Every function has the signature of a generated kernel: pointers, then a range of rows.
#include <math.h>
#include <stdint.h>

#define VOCAB 64
#define TOKENS (4 * 16)

// rows: logits [TOKENS, VOCAB], replaced by their gradients; targets [TOKENS]; loss [].
void loss_and_gradient(float *rows, const int32_t *targets, float *loss, int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t i = 0; i < TOKENS; i++) {
        float *x = rows + i * VOCAB, max = x[0], total = 0;
        for (int v = 1; v < VOCAB; v++) max = x[v] > max ? x[v] : max;
        float target = x[targets[i]];
        for (int v = 0; v < VOCAB; v++) total += x[v] = expf(x[v] - max);
        sum += logf(total) + max - target;
        for (int v = 0; v < VOCAB; v++) x[v] = (x[v] / total - (v == targets[i])) / TOKENS;
    }
    *loss = (float)(sum / TOKENS);
}

void loss_only(const float *rows, const int32_t *targets, float *loss, int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t i = 0; i < TOKENS; i++) {
        const float *x = rows + i * VOCAB;
        float max = x[0], total = 0;
        for (int v = 1; v < VOCAB; v++) max = x[v] > max ? x[v] : max;
        for (int v = 0; v < VOCAB; v++) total += expf(x[v] - max);
        sum += logf(total) + max - x[targets[i]];
    }
    *loss = (float)(sum / TOKENS);
}

void norm(const float *gradient, float *grad_norm, int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t i = 0; i < VOCAB * VOCAB; i++) sum += (double)gradient[i] * gradient[i];
    *grad_norm = (float)sqrt(sum);
}

// Adam with betas 0.9 and 0.95. table, m, v, gradient [VOCAB, VOCAB]; lr, c1, c2 [].
void adam(float *table, float *m, float *v, const float *gradient, const float *lr, const float *c1, const float *c2,
          int64_t begin, int64_t end) {
    for (int64_t i = begin * VOCAB; i < end * VOCAB; i++) {
        m[i] = 0.9f * m[i] + 0.1f * gradient[i];
        v[i] = 0.95f * v[i] + 0.05f * gradient[i] * gradient[i];
        table[i] -= *lr * (m[i] / *c1) / (sqrtf(v[i] / *c2) + 1e-8f);
    }
}
