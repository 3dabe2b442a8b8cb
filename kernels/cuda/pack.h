/* pack.h — how the elements of rows are shared out to threads: in packs of 16 bytes.
 *
 *     row 0   |pack 0 |pack 1 |pack 2 |…|rest|        a thread has whole packs: LANES elements of the smallest type that meets, so
 *     row 1   |pack 0 |…                              that each is one access of 16 bytes (two of the larger type)
 *
 * Which thread has which pack follows from shapes and types alone. V, that all packs are aligned and whole, chooses between one access
 * of 16 bytes and LANES single ones and nothing else, so that no bit depends on where a view begins or how far apart its rows are. */
#ifndef TRIMPOT_CUDA_PACK_H
#define TRIMPOT_CUDA_PACK_H

#include <initializer_list>

#include "kernels/cuda/cuda.h"

constexpr int PACK_BYTES = 16, SHEET_THREADS = 256, SHEET_PIECE = 8192;

template <class A, class B = A> constexpr int LANES = PACK_BYTES / (sizeof(A) < sizeof(B) ? sizeof(A) : sizeof(B));

template <class T, int N> struct alignas(PACK_BYTES) pack {
    T at[N];
};

/* The N elements from p on, `left` (> 0) of which are in the row; zeros for the others. */
template <bool V, int N, class T> static __device__ inline pack<T, N> take(const T *p, int left)
{
    if constexpr (V) {
        return *(const pack<T, N> *)ALIGNED(p);
    } else {
        pack<T, N> x = {};
        for (int i = 0; i < N; i++)
            if (i < left) x.at[i] = p[i];
        return x;
    }
}

template <bool V, class T, int N> static __device__ inline void put(T *p, const pack<T, N> &x, int left)
{
    if constexpr (V) {
        *(pack<T, N> *)ALIGNED(p) = x;
    } else {
        for (int i = 0; i < N; i++)
            if (i < left) p[i] = x.at[i];
    }
}

/* Rows of a matrix; of one that is absent too. */
template <class T> struct view {
    T *data;
    int64_t ld;
    __device__ T *row(int64_t r) const { return data + r * ld; }
};

/* A matrix shared out to blocks of x packs along a row by y rows. Where all operands are dense, it is cut into rows of our own, so
 * that narrow and flat ones fill their blocks too. */
struct sheet {
    int64_t rows, count; /* elements in all: the last row of our own is short */
    int cols;
    dim3 grid, block;
};

/* The least power of two that is not below n, at most `limit`. */
static inline int threads_for(int64_t n, int limit)
{
    int threads = 1;
    while (threads < n && threads < limit) threads *= 2;
    return threads;
}

static inline int64_t ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }

/* How the operands of a call lie, which have as many rows and columns. flat: all are dense, so rows are ours to cut. aligned: they are
 * made of whole packs that all begin at multiples of 16 bytes. */
struct layout {
    bool flat, aligned;
    int lanes;
};

static inline bool is_dense(const tensor *t) { return t->rank < 2 || t->ld == t->dim[t->rank - 1]; }

static inline bool is_aligned(const tensor *t, bool flat, int lanes)
{
    int64_t cols = flat ? tensor_count(t) : t->dim[t->rank - 1];
    size_t step = flat || t->rank < 2 || t->dim[0] < 2 ? 0 : (size_t)t->ld * dtype_bytes(t->dt);
    return cols % lanes == 0 && ((uintptr_t)t->data | step) % PACK_BYTES == 0;
}

/* Of those that are there. may_cut: rows mean nothing to the op. */
static inline struct layout layout_of(std::initializer_list<const tensor *> operands, bool may_cut)
{
    struct layout l = {may_cut, true, 1};
    for (const tensor *t : operands) {
        int lanes = PACK_BYTES / (int)dtype_bytes(t->dt);
        if (t->data && lanes > l.lanes) l.lanes = lanes;
        if (t->data && !is_dense(t)) l.flat = false;
    }
    for (const tensor *t : operands) l.aligned = l.aligned && (!t->data || is_aligned(t, l.flat, l.lanes));
    return l;
}

static inline struct sheet sheet_of(const tensor *t, struct layout l)
{
    struct sheet m = {t->dim[0], tensor_count(t), (int)t->dim[t->rank - 1], dim3(1), dim3(1)};
    if (l.flat) {
        m.rows = ceil_div(m.count, SHEET_PIECE);
        m.cols = SHEET_PIECE;
    }
    int64_t packs = ceil_div(m.cols, l.lanes);
    int x = threads_for(packs, SHEET_THREADS), y = SHEET_THREADS / x;
    m.block = dim3((unsigned)x, (unsigned)y);
    m.grid = dim3((unsigned)ceil_div(m.rows, y), (unsigned)ceil_div(packs, x));
    return m;
}

template <class T> static inline view<T> view_of(const tensor *t, struct layout l) { return {(T *)t->data, l.flat ? SHEET_PIECE : t->ld}; }

/* The pack of this thread; none when left ≤ 0. */
struct spot {
    int64_t row;
    int col, left;
};

template <int N> static __device__ inline struct spot spot_of(const struct sheet &m)
{
    struct spot at = {(int64_t)blockIdx.x * blockDim.y + threadIdx.y, (int)(blockIdx.y * blockDim.x + threadIdx.x) * N, 0};
    int64_t end = m.count - at.row * m.cols;
    at.left = (int)(end < m.cols ? end : m.cols) - at.col;
    return at;
}

/* Calls body with NAME = a bool as a constant: WITH_BOOL(aligned, V, { TRY(LAUNCH((kernel<T, V>), …)); }) */
#define WITH_BOOL(value, NAME, ...)                                                                                                        \
    do {                                                                                                                                   \
        if (value) {                                                                                                                       \
            constexpr bool NAME = true;                                                                                                    \
            __VA_ARGS__                                                                                                                    \
        } else {                                                                                                                           \
            constexpr bool NAME = false;                                                                                                   \
            __VA_ARGS__                                                                                                                    \
        }                                                                                                                                  \
    } while (0)

#endif
