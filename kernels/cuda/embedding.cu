// Rows of a table by index, and the gradient's way back, in the order of the indices.
//
//   table, updates, out of gather: ELEMENT (float, bf16); indices i32 [rows], each within 0..vocab (whoever writes them checks)
//   gather       out[i, :] = table[indices[i], :]                                       out [rows, width]
//   scatter_add  out[v, :] = (accumulate ? out[v, :] : 0) + sum of updates[i, :] over indices[i] = v, i ascending;
//                out f32 [vocab, width]
// width is a multiple of 8, addresses are aligned to 16 bytes.
#include "vector.cuh"

typedef ELEMENT T;
constexpr int THREADS = 256;
constexpr int COLUMNS = 8;  // of a row, by one thread

// Grid (rows width / (THREADS 16 bytes)).
extern "C" __global__ void __launch_bounds__(THREADS)
    embedding_gather(Global<const T> table, Global<const int> indices, Global<T> out, int rows, int width) {
    constexpr int N = Vector<T>::N;
    long long piece = (long long)blockIdx.x * THREADS + threadIdx.x;
    int per_row = width / N;
    long long row = piece / per_row;
    if (row >= rows) return;
    int index = indices[row];
    int column = (int)(piece % per_row) * N;
    store_16(out + (row * width + column), load_16(table + ((long long)index * width + column)));
}

// Grid (vocab / OWNED, width / (THREADS COLUMNS)). A block owns OWNED rows of out and looks through all indices for them, so
// that no sum has two writers. Shared memory: THREADS + 8 i32.
extern "C" __global__ void __launch_bounds__(THREADS)
    embedding_scatter_add(Global<const int> indices, Global<const T> updates, Global<float> out, int rows, int width, int vocab,
                          int accumulate) {
    constexpr int N = Vector<T>::N;
    Shared<int> found = shared_at<int>(0);  // rows of updates, ascending
    Shared<int> of_warp = shared_at<int>(4 * THREADS);
    int first = blockIdx.x * OWNED, end = min(first + OWNED, vocab);
    int column = (blockIdx.y * THREADS + threadIdx.x) * COLUMNS;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (accumulate == 0 && column < width) {
        for (int row = first; row < end; row++) {
            for (int c = 0; c < COLUMNS; c += 4) store_16(out + ((long long)row * width + column + c), uint4{0, 0, 0, 0});
        }
    }
    for (int start = 0; start < rows; start += THREADS) {
        int row = start + threadIdx.x, index = -1;
        if (row < rows) index = indices[row];
        bool own = index >= first && index < end;
        unsigned owners = __ballot_sync(0xffffffffu, own);
        if (lane == 0) of_warp[warp] = __popc(owners);
        __syncthreads();
        int before = 0, all = 0;
        for (int w = 0; w < THREADS / 32; w++) {
            int count = of_warp[w];
            before += w < warp ? count : 0;
            all += count;
        }
        if (own) found[before + __popc(owners & ((1u << lane) - 1))] = row;
        __syncthreads();
        for (int k = 0; k < all && column < width; k++) {
            int from = found[k];
            int to = indices[from];
            Global<float> sum = out + ((long long)to * width + column);
            for (int c = 0; c < COLUMNS; c += N) {
                Vector<T> update(updates + ((long long)from * width + column + c));
                for (int part = 0; part < N; part += 4) {
                    Vector<float> four(sum + (c + part));
                    for (int n = 0; n < 4; n++) four.of[n] += update.of[part + n];
                    four.store(sum + (c + part));
                }
            }
        }
        __syncthreads();
    }
}

EXPORT(embedding_gather)
EXPORT(embedding_scatter_add)
