/* nf4.cu — quantise moves 2·sizeof(w) + 1/2 bytes per element: the mean of the blocks' maxima must be known before the first of them is
 * coded. Dequantise moves sizeof(w) + 1/2 + 1/64 bytes per element.
 *
 *   w  |8|8|8|8|8|8|8|8|…     a thread has eight elements, eight threads a block of 64 that shares one absmax, and a thread
 *                             block goes through a group of 256 such blocks that share one nested scale, 32 at a time
 *
 * A warp reads 128 bytes of codes and writes 1024 or 512 of weights: each of its accesses is one stretch of memory, or one of every
 * row that it ends in where the rows that are written lie apart. */
#include "kernels/cuda/eight.h"
#include "kernels/cuda/one.h"
#include "kernels/cuda/ordered.h"
#include "kernels/quant_maps.h"

#define QUANT_TABLE(name, count) static __device__ const float device_##name[count]
#include "kernels/quant_tables.h"

enum { THREADS = 256, EACH = 8, AT_ONCE = THREADS / EACH, PASS = THREADS * (int)EIGHT, PASSES = 4, WARPS = THREADS / (int)WARP };
static_assert((int)EACH * (int)EIGHT == (int)NF4_BLOCK, "eight threads for each block of elements");
static_assert((int)THREADS == (int)NF4_NESTED_BLOCK && (int)THREADS == (int)ORDERED_THREADS, "a thread for each block of a group");

/* This thread's eight of a block of the group that begins at `begin`, and how many of eight there are. */
static __device__ inline int64_t first_of(int64_t begin, int block)
{
    return begin + block * (int64_t)NF4_BLOCK + threadIdx.x % EACH * (int)EIGHT;
}

static __device__ inline int lanes_of(int64_t first, int64_t n)
{
    int64_t left = n - first;
    return left < 0 ? 0 : left < EIGHT ? (int)left : (int)EIGHT;
}

/* The absmax of the block to which this thread's eight belong: the same in its eight threads. */
static __device__ inline float block_absmax(const float x[EIGHT])
{
    float top = 0;
#pragma unroll
    for (int j = 0; j < EIGHT; j++) top = vf_max(top, vf_abs(x[j]));
    for (int half = EACH / 2; half; half /= 2) top = vf_max(top, __shfl_xor_sync(0xffffffffu, top, half));
    return top;
}

static __device__ inline void load_eight(const void *w, dtype dt, int64_t first, int64_t n, float x[EIGHT])
{
    struct eight raw = eight_load(w, dt, first, 0, lanes_of(first, n));
#pragma unroll
    for (int j = 0; j < EIGHT; j++) x[j] = eight_value(raw, dt, j);
}

/* nested[group] = the group's sum of absmax, until the mean is known. */
static __global__ void __launch_bounds__(THREADS) nf4_sum(const void *w, dtype dt, int64_t n, float *nested)
{
    __shared__ float absmax[NF4_NESTED_BLOCK];
    __shared__ double stage[2 * ORDERED_TILE];
    int64_t begin = (int64_t)blockIdx.x * NF4_GROUP, blocks = (n - begin + NF4_BLOCK - 1) / NF4_BLOCK;
    for (int block = threadIdx.x / EACH; block < NF4_NESTED_BLOCK; block += AT_ONCE) {
        float x[EIGHT];
        load_eight(w, dt, first_of(begin, block), n, x);
        float top = block_absmax(x);
        if (threadIdx.x % EACH == 0) absmax[block] = top;
    }
    __syncthreads();
    double sum =
        ordered_sum(blocks < NF4_NESTED_BLOCK ? blocks : (int64_t)NF4_NESTED_BLOCK, stage, [=](int64_t i) { return (double)absmax[i]; });
    if (threadIdx.x == 0) nested[blockIdx.x] = (float)sum;
}

static __global__ void __launch_bounds__(THREADS) nf4_mean(const float *nested, int64_t groups, int64_t blocks, float *offset)
{
    __shared__ double stage[2 * ORDERED_TILE];
    double sum = ordered_sum(groups, stage, [=](int64_t i) { return (double)nested[i]; });
    if (threadIdx.x == 0) *offset = blocks ? (float)(sum / (double)blocks) : 0.0f;
}

/* The largest x of the thread block, in all of its threads. scratch: WARPS floats. */
static __device__ inline float largest(float x, float *scratch)
{
    x = warp_max(x);
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
    __syncthreads();
    return warp_max(scratch[threadIdx.x % WARPS]);
}

/* The number of thresholds below y, found by bisection. */
static __device__ inline uint32_t code_of(const float *thresholds, float y)
{
    int index = 0;
#pragma unroll
    for (int step = 8; step; step /= 2)
        if (thresholds[index + step - 1] < y) index += step;
    return (uint32_t)index;
}

/* The nearest entry of the map; an exact midpoint takes the even index. Exact in f64. */
static __device__ inline uint8_t nearest_code(const float *map, float y)
{
    int low = 0, high = 255;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (map[middle] <= y)
            low = middle;
        else
            high = middle;
    }
    double below = (double)y - (double)map[low], above = (double)map[high] - (double)y;
    return (uint8_t)(above < below || (above == below && high % 2 == 0) ? high : low);
}

/* Eight codes, the first in the high nibble of the first byte. */
static __device__ inline void store_codes(uint8_t *codes, int64_t first, int lanes, uint32_t word)
{
    uint8_t *to = codes + first / 2;
    if (lanes == EIGHT && (uintptr_t)to % 4 == 0) {
        *(uint32_t *)to = word;
        return;
    }
    for (int k = 0; k < (lanes + 1) / 2; k++) to[k] = (uint8_t)(word >> 8 * k);
}

static __global__ void __launch_bounds__(THREADS)
    nf4_encode(const void *w, dtype dt, int64_t n, uint8_t *codes, uint8_t *absmax_q, float *nested, const float *offset)
{
    __shared__ float thresholds[16], map[256], absmax[NF4_NESTED_BLOCK], scratch[WARPS];
    if (threadIdx.x < 15) thresholds[threadIdx.x] = device_nf4_threshold[threadIdx.x];
    map[threadIdx.x] = device_dynamic_map_signed[threadIdx.x];
    __syncthreads();
    int64_t begin = (int64_t)blockIdx.x * NF4_GROUP, block0 = (int64_t)blockIdx.x * NF4_NESTED_BLOCK;
    for (int block = threadIdx.x / EACH; block < NF4_NESTED_BLOCK; block += AT_ONCE) {
        float x[EIGHT];
        int64_t first = first_of(begin, block);
        load_eight(w, dt, first, n, x);
        float top = block_absmax(x), inverse = top > 0 ? 1.0f / top : 0.0f;
        uint32_t word = 0;
#pragma unroll
        for (int j = 0; j < EIGHT; j++) word |= code_of(thresholds, x[j] * inverse) << (j % 2 ? 4 * (j - 1) : 4 * (j + 1));
        store_codes(codes, first, lanes_of(first, n), word);
        if (threadIdx.x % EACH == 0) absmax[block] = top;
    }
    __syncthreads();
    bool is = begin + (int64_t)threadIdx.x * NF4_BLOCK < n;
    float mine = is ? absmax[threadIdx.x] - *offset : 0.0f;
    float scale = largest(fabsf(mine), scratch);
    if (is) absmax_q[block0 + threadIdx.x] = nearest_code(map, scale > 0 ? mine / scale : 0.0f);
    if (threadIdx.x == 0) nested[blockIdx.x] = scale;
}

status nf4_quantize_cuda(struct stream *s, const struct nf4_args *q)
{
    int64_t n = tensor_count(&q->w);
    struct nf4_sizes size = nf4_sizes(n);
    unsigned groups = (unsigned)size.nested;
    float *nested = (float *)q->nested.data, *offset = (float *)q->offset.data;
    if (groups) TRY(LAUNCH(nf4_sum, groups, THREADS, 0, s, q->w.data, q->w.dt, n, nested));
    TRY(LAUNCH(nf4_mean, 1, ORDERED_THREADS, 0, s, nested, size.nested, size.blocks, offset));
    if (!groups) return ST_OK;
    return LAUNCH(nf4_encode, groups, THREADS, 0, s, q->w.data, q->w.dt, n, (uint8_t *)q->codes.data, (uint8_t *)q->absmax_q.data, nested,
                  offset);
}

static __device__ inline uint32_t load_codes(const uint8_t *codes, int64_t first, int lanes)
{
    const uint8_t *from = codes + first / 2;
    if (lanes == EIGHT && (uintptr_t)from % 4 == 0) return *(const uint32_t *)from;
    uint32_t word = 0;
    for (int k = 0; k < (lanes + 1) / 2; k++) word |= (uint32_t)from[k] << 8 * k;
    return word;
}

/* Rows `ld` apart. The first element of a thread block's stretch lies in a row that is found once; from there on 32 bits serve. */
struct rows {
    int64_t ld, begin, row; /* of the stretch, and its row */
    uint32_t cols, col;
};

static __device__ inline struct rows rows_from(int64_t begin, int64_t cols, int64_t ld)
{
    int64_t row = begin / cols;
    return {ld, begin, row, (uint32_t)cols, (uint32_t)(begin - row * cols)};
}

/* Eight, from the flat element `first` on: in one piece where a row has all of them. */
static __device__ inline void store_apart(const struct rows &r, void *w, dtype dt, int64_t first, int lanes, const struct eight &x)
{
    uint32_t at = (uint32_t)(first - r.begin) + r.col, row = at / r.cols, col = at - row * r.cols;
    for (int from = 0; from < lanes; col = 0, row++) {
        uint32_t room = r.cols - col;
        int to = room < (uint32_t)(lanes - from) ? from + (int)room : lanes;
        eight_store(w, dt, (r.row + row) * r.ld + col - from, from, to, x);
        from = to;
    }
}

/* once: scales that were not quantised again, or NULL. */
template <bool APART>
static __global__ void __launch_bounds__(THREADS)
    nf4_decode(const uint8_t *codes, const uint8_t *absmax_q, const float *nested, const float *offset, const float *once, dtype through,
               int64_t n, void *w, dtype dt, int64_t cols, int64_t ld)
{
    __shared__ float values[16], map[256];
    if (threadIdx.x < 16) values[threadIdx.x] = device_nf4_map[threadIdx.x];
    map[threadIdx.x] = device_dynamic_map_signed[threadIdx.x];
    __syncthreads();
    int64_t first = (int64_t)blockIdx.x * PASSES * PASS + threadIdx.x * EIGHT;
    uint32_t word[PASSES];
    float absmax[PASSES];
#pragma unroll
    for (int p = 0; p < PASSES; p++) {
        int64_t at = first + p * PASS;
        int lanes = lanes_of(at, n);
        word[p] = load_codes(codes, at, lanes);
        absmax[p] = 0.0f;
        if (lanes) absmax[p] = once ? once[at / NF4_BLOCK] : map[absmax_q[at / NF4_BLOCK]] * nested[at / NF4_GROUP] + *offset;
    }
    struct rows rows = {};
    if (APART) rows = rows_from((int64_t)blockIdx.x * PASSES * PASS, cols, ld);
#pragma unroll
    for (int p = 0; p < PASSES; p++) {
        float x[EIGHT];
#pragma unroll
        for (int j = 0; j < EIGHT; j++)
            x[j] = formula_through(values[word[p] >> (j % 2 ? 4 * (j - 1) : 4 * (j + 1)) & 15] * absmax[p], through);
        int64_t at = first + p * PASS;
        if (APART)
            store_apart(rows, w, dt, at, lanes_of(at, n), eight_narrow(dt, x));
        else
            eight_store(w, dt, at, 0, lanes_of(at, n), eight_narrow(dt, x));
    }
}

template <bool APART> static status decode(struct stream *s, const struct nf4_args *q, int64_t n)
{
    return LAUNCH((nf4_decode<APART>), (unsigned)((n + PASSES * PASS - 1) / (PASSES * PASS)), THREADS, 0, s, (const uint8_t *)q->codes.data,
                  (const uint8_t *)q->absmax_q.data, (const float *)q->nested.data, (const float *)q->offset.data,
                  (const float *)q->absmax.data, q->through, n, q->w.data, q->w.dt, q->w.dim[1], q->w.ld);
}

status nf4_dequantize_cuda(struct stream *s, const struct nf4_args *q)
{
    int64_t n = tensor_count(&q->w);
    if (!n) return ST_OK;
    return q->w.rank == 2 && q->w.ld != q->w.dim[1] ? decode<true>(s, q, n) : decode<false>(s, q, n);
}
