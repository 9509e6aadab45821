// The instructions of tensor cores and of asynchronous copies, by their lane layouts (PTX ISA 9.0, sections 9.7.14 and 9.7.9).
#pragma once

namespace simt {

struct Product {
    float c[4];
    unsigned a[4], b[2];
};

inline float bf16_half(unsigned pair, int half) { return bits_to_f32(half ? pair & 0xffff0000u : pair << 16); }

// m16n8k16: lane l holds, with g = l / 4 and t = l % 4,
// a[r]: rows g + 8 (r % 2), columns 2 t + 8 (r / 2) and the next; b[r]: rows 2 t + 8 r and the next, column g;
// c[r]: row g + 8 (r / 2), column 2 t + r % 2.
inline void multiply(void** lanes) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const Product& own = *static_cast<Product*>(lanes[lane]);
        int g = lane / 4, t = lane % 4;
        for (int half = 0; half < 2; half++) {
            for (int r = 0; r < 4; r++) a[g + 8 * (r % 2)][2 * t + 8 * (r / 2) + half] = bf16_half(own.a[r], half);
            for (int r = 0; r < 2; r++) b[2 * t + 8 * r + half][g] = bf16_half(own.b[r], half);
        }
    }
    double sum[16][8] = {};
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++) sum[i][j] += double(a[i][k]) * double(b[k][j]);
    for (int lane = 0; lane < 32; lane++) {
        Product& own = *static_cast<Product*>(lanes[lane]);
        for (int r = 0; r < 4; r++)
            own.c[r] = float(own.c[r] + sum[lane / 4 + 8 * (r / 2)][2 * (lane % 4) + r % 2]);
    }
}

struct Loaded {
    const uint16_t* row;
    unsigned r[4];
    bool transposed;
};

// Four 8x8 matrices; lane 8 m + i gives the place of row i of matrix m, and lane l gets of each matrix two elements of
// row l / 4, or of column l / 4 where transposed.
inline void load_matrices(void** lanes) {
    size_t first = machine->current / 32 * 32;
    for (int lane = 0; lane < 32; lane++)
        touch_shared(static_cast<Loaded*>(lanes[lane])->row, 16, false, first + lane);
    for (int lane = 0; lane < 32; lane++) {
        Loaded& own = *static_cast<Loaded*>(lanes[lane]);
        int g = lane / 4, t = lane % 4;
        for (int matrix = 0; matrix < 4; matrix++) {
            auto element = [&](int row, int column) -> unsigned {
                return static_cast<Loaded*>(lanes[8 * matrix + row])->row[column];
            };
            unsigned low = own.transposed ? element(2 * t, g) : element(g, 2 * t);
            unsigned high = own.transposed ? element(2 * t + 1, g) : element(g, 2 * t + 1);
            own.r[matrix] = low | high << 16;
        }
    }
}

template <class T>
void load_matrix_x4(unsigned (&to)[4], const Shared<T>& row, bool transposed, int line) {
    Loaded own{reinterpret_cast<const uint16_t*>(row.to), {}, transposed};
    meet("ldmatrix", line, &own, load_matrices);
    memcpy(to, own.r, sizeof own.r);
}

inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int line) {
    Product own{{c[0], c[1], c[2], c[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    meet("mma.sync", line, &own, multiply);
    memcpy(c, own.c, sizeof own.c);
}

// 16 bytes from global to shared memory that are there only after the wait; until then what is there is not to be read.
template <class T, class U>
void copy_async(const Shared<T>& to, const Global<U>& from, bool valid) {
    Machine& m = *machine;
    touch_shared(to.to, 16, true, m.current);
    if (valid) touch_global(from.buffer, from.to, 16, false);
    memset((void*)to.to, 0xff, 16);
    m.fibers[m.current].open.push_back({(char*)to.to, valid ? (const char*)from.to : nullptr});
}

inline void commit() {
    Fiber& own = machine->fibers[machine->current];
    own.groups.push_back(std::move(own.open));
    own.open.clear();
}

inline void wait_groups(size_t left) {
    Machine& m = *machine;
    Fiber& own = m.fibers[m.current];
    while (own.groups.size() > left) {
        for (const Copy& copy : own.groups.front()) {
            touch_shared(copy.to, 16, true, m.current);
            if (copy.from != nullptr) {
                memcpy(copy.to, copy.from, 16);
            } else {
                memset(copy.to, 0, 16);
            }
        }
        own.groups.pop_front();
    }
}

}  // namespace simt

#define mma_bf16(c, a, b0, b1) simt::multiply_add(c, a, b0, b1, __LINE__)
#define ldmatrix_x4(to, row) simt::load_matrix_x4(to, row, false, __LINE__)
#define ldmatrix_x4_trans(to, row) simt::load_matrix_x4(to, row, true, __LINE__)
#define cp_async_16(to, from, valid) simt::copy_async(to, from, valid)
#define cp_async_commit() simt::commit()
#define cp_async_wait(left) simt::wait_groups(left)
