/* cublaslt.cc — the part of cuBLASLt that kernels/cuda/gemm_lt.c calls, on the CPU.
 *
 * D = alpha·op(A)·op(B) + beta·C (+ bias), all in columns. Arguments are judged as the library judges them, and refused with its codes;
 * a product that it takes is queued on its stream like a kernel. Sums are f32: one chain of fma over k per element and part of a split
 * K, parts added in order.
 *
 * Algorithms differ in what they may assume (16 or 4 bytes of alignment: bf16 at odd places is not supported) and in how they split
 * K, so in their bits. Those that add in place, or round parts to D's type, are offered first to whoever does not forbid them: the
 * former add in another order at every call.
 *
 * TRIMPOT_EMU_SUMS=1: K is walked in an order drawn from the seed and the call's shape, as if by kernels of another library. A call
 * repeated gives the same bits, as on a GPU; the same rows in a call of another size do not. */
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include <immintrin.h>

#include <cublasLt.h>

#include "tests/emu/capture.h"
#include "tests/emu/emu.h"

namespace
{

/* ---- what the library's opaque structs hold here ---------------------------------------------------------------------------- */

struct layout {
    int64_t type, order;
    uint64_t rows, cols;
    int64_t ld;
};

struct desc {
    int32_t compute, scale, pointer_mode, op[2], bias_type;
    uint32_t epilogue;
    const void *bias;
};

struct preference {
    uint64_t workspace;
    uint32_t reduction, align[4]; /* A B C D */
};

struct algo {
    uint64_t magic;
    uint32_t reduction, splits, align;
    int64_t types;
};

enum : uint64_t { MAGIC = 0x7472696d706f7431 };

template <class T, class O> T &inside(O *opaque)
{
    static_assert(sizeof(T) <= sizeof(O));
    return *reinterpret_cast<T *>(opaque);
}

const struct layout &of(cublasLtMatrixLayout_t l) { return inside<layout>(l); }

size_t size_of(int64_t type) { return type == CUDA_R_16BF ? 2 : 4; }

float widen(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}

uint16_t narrow(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

float read(const void *p, int64_t type, size_t at)
{
    return type == CUDA_R_16BF ? widen(((const uint16_t *)p)[at]) : ((const float *)p)[at];
}

void write(void *p, int64_t type, size_t at, float x)
{
    if (type == CUDA_R_16BF)
        ((uint16_t *)p)[at] = narrow(x);
    else
        ((float *)p)[at] = x;
}

/* ---- a call, judged ---------------------------------------------------------------------------------------------------------- */

struct call {
    struct layout a, b, c;
    struct desc desc;
    int64_t m, n, k;
};

struct shape {
    uint64_t rows, cols;
};

shape turned(const layout &l, int32_t op) { return op == CUBLAS_OP_N ? shape{l.rows, l.cols} : shape{l.cols, l.rows}; }

cublasStatus_t judge(call &q, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                     cublasLtMatrixLayout_t out)
{
    if (!d || !a || !b || !c || !out) return CUBLAS_STATUS_INVALID_VALUE;
    q = {of(a), of(b), of(out), inside<desc>(d), 0, 0, 0};
    for (const layout &l : {q.a, q.b, q.c, of(c)})
        if (!l.rows || !l.cols || l.ld < (int64_t)l.rows) return CUBLAS_STATUS_INVALID_VALUE;
    shape left = turned(q.a, q.desc.op[0]), right = turned(q.b, q.desc.op[1]);
    if (left.cols != right.rows || left.rows != q.c.rows || right.cols != q.c.cols) return CUBLAS_STATUS_INVALID_VALUE;
    if (of(c).rows != q.c.rows || of(c).cols != q.c.cols) return CUBLAS_STATUS_INVALID_VALUE;
    if (q.desc.compute != CUBLAS_COMPUTE_32F || q.desc.scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    bool half = q.a.type == CUDA_R_16BF && q.b.type == CUDA_R_16BF, full = q.a.type == CUDA_R_32F && q.b.type == CUDA_R_32F;
    if (of(c).type != q.c.type || (q.c.type != CUDA_R_32F && q.c.type != CUDA_R_16BF)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!half && !(full && q.c.type == CUDA_R_32F)) return CUBLAS_STATUS_NOT_SUPPORTED;
    bool bias = q.desc.epilogue == CUBLASLT_EPILOGUE_BIAS;
    if (!bias && q.desc.epilogue != CUBLASLT_EPILOGUE_DEFAULT) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (bias && (!q.desc.bias || (q.desc.bias_type != -1 && q.desc.bias_type != q.c.type))) return CUBLAS_STATUS_NOT_SUPPORTED;
    q.m = (int64_t)left.rows, q.n = (int64_t)right.cols, q.k = (int64_t)left.cols;
    return CUBLAS_STATUS_SUCCESS;
}

bool ld_aligned(const layout &l, uint32_t bytes) { return l.cols <= 1 || (uint64_t)l.ld * size_of(l.type) % bytes == 0; }

int64_t types_of(const call &q) { return q.a.type << 16 | q.c.type; }

size_t workspace_of(const algo &x, const call &q) { return x.splits > 1 ? (size_t)x.splits * (size_t)(q.m * q.n) * sizeof(float) : 0; }

/* Of a call, not of the pointers, which the library does not see before it runs. */
cublasStatus_t fits(const algo &x, const call &q)
{
    if (x.magic != MAGIC || x.types != types_of(q)) return CUBLAS_STATUS_INVALID_VALUE;
    for (const layout &l : {q.a, q.b, q.c})
        if (!ld_aligned(l, x.align)) return CUBLAS_STATUS_NOT_SUPPORTED;
    return (int64_t)x.splits > q.k ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

std::vector<algo> offers(const call &q, const preference &p)
{
    struct {
        uint32_t reduction, splits;
    } kinds[] = {
        {CUBLASLT_REDUCTION_SCHEME_INPLACE, 4},      {CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 2},  {CUBLASLT_REDUCTION_SCHEME_NONE, 1},
        {CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 2}, {CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 4},
    };
    if (q.k >= 4096 && q.m * q.n <= 256 * 256) std::swap(kinds[2], kinds[4]);
    std::vector<algo> list;
    for (uint32_t align : {16u, 4u})
        for (auto kind : kinds) {
            algo x = {MAGIC, kind.reduction, kind.splits, align, types_of(q)};
            bool promised = (kind.reduction & p.reduction) == kind.reduction && workspace_of(x, q) <= p.workspace;
            for (uint32_t bytes : p.align) promised &= bytes >= align;
            if (promised && fits(x, q) == CUBLAS_STATUS_SUCCESS) list.push_back(x);
        }
    return list;
}

/* ---- a product --------------------------------------------------------------------------------------------------------------- */

struct product {
    call q;
    algo how;
    const void *a, *b, *c;
    void *d;
    float alpha, beta;
    float *parts; /* in the workspace, when K is split */
};

/* Columns of D are walked in ROWS-high, COLS-wide blocks: ROWS elements of a column lie side by side. */
enum { ROWS = 16, COLS = 6 };

std::vector<int64_t> order_of(const call &q)
{
    static const bool shuffled = getenv("TRIMPOT_EMU_SUMS") && atoi(getenv("TRIMPOT_EMU_SUMS"));
    static const uint64_t salt = shuffled ? emu_random(EMU_SUMS) : 0;
    std::vector<int64_t> order((size_t)q.k);
    for (int64_t i = 0; i < q.k; i++) order[(size_t)i] = i;
    uint64_t state = salt ^ (uint64_t)(q.m * 1000003 + q.n * 10007 + q.k * 101 + q.desc.op[0] * 7 + q.desc.op[1]);
    for (int64_t i = q.k - 1; shuffled && i > 0; i--) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(order[(size_t)i], order[(state >> 33) % (uint64_t)(i + 1)]);
    }
    return order;
}

/* Blocks of `wide` of an operand's outer dimension, each [k][wide] in f32, k as `order` says; zero beyond the edge. */
std::vector<float> packed(const void *data, const layout &l, bool depth_is_row, int64_t outer, const std::vector<int64_t> &order, int wide)
{
    int64_t blocks = (outer + wide - 1) / wide, k = (int64_t)order.size();
    std::vector<float> room((size_t)(blocks * k * wide));
    for (int64_t i = 0; i < outer; i++) {
        float *to = &room[(size_t)(i / wide * k * wide + i % wide)];
        for (int64_t j = 0; j < k; j++, to += wide) {
            int64_t row = depth_is_row ? order[(size_t)j] : i, col = depth_is_row ? i : order[(size_t)j];
            *to = read(data, l.type, (size_t)(col * l.ld + row));
        }
    }
    return room;
}

void block(const float *left, const float *right, int64_t k, float sums[COLS][ROWS])
{
    __m256 sum[COLS][2];
    for (int c = 0; c < COLS; c++) sum[c][0] = sum[c][1] = _mm256_setzero_ps();
    for (int64_t j = 0; j < k; j++, left += ROWS, right += COLS) {
        __m256 low = _mm256_loadu_ps(left), high = _mm256_loadu_ps(left + 8);
#pragma GCC unroll 6
        for (int c = 0; c < COLS; c++) {
            __m256 x = _mm256_broadcast_ss(right + c);
            sum[c][0] = _mm256_fmadd_ps(x, low, sum[c][0]);
            sum[c][1] = _mm256_fmadd_ps(x, high, sum[c][1]);
        }
    }
    for (int c = 0; c < COLS; c++) {
        _mm256_storeu_ps(sums[c], sum[c][0]);
        _mm256_storeu_ps(sums[c] + 8, sum[c][1]);
    }
}

void finish(const product &p, int64_t row, int64_t col, float sum)
{
    const call &q = p.q;
    size_t at = (size_t)(col * q.c.ld + row);
    float x = p.alpha * sum;
    if (p.beta != 0) x += p.beta * read(p.c, q.c.type, at);
    if (q.desc.epilogue == CUBLASLT_EPILOGUE_BIAS) x += read(q.desc.bias, q.c.type, (size_t)row);
    write(p.d, q.c.type, at, x);
}

/* Adds the parts of a split K. In place: whoever comes first. */
void join(const product &p)
{
    const call &q = p.q;
    size_t count = (size_t)(q.m * q.n), splits = p.how.splits;
    bool rounds = p.how.reduction == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE && q.c.type == CUDA_R_16BF;
    size_t first = p.how.reduction == CUBLASLT_REDUCTION_SCHEME_INPLACE ? (size_t)emu_random(EMU_SUMS) % splits : 0;
    for (size_t i = 0; i < count; i++) {
        float sum = 0;
        for (size_t s = 0; s < splits; s++) {
            float part = p.parts[(s + first) % splits * count + i];
            sum += rounds ? widen(narrow(part)) : part;
        }
        finish(p, (int64_t)i % q.m, (int64_t)i / q.m, sum);
    }
}

cudaError_t run(const product &p)
{
    const call &q = p.q;
    std::vector<int64_t> order = order_of(q);
    std::vector<float> left = packed(p.a, q.a, q.desc.op[0] != CUBLAS_OP_N, q.m, order, ROWS);
    std::vector<float> right = packed(p.b, q.b, q.desc.op[1] == CUBLAS_OP_N, q.n, order, COLS);
    int64_t step = (q.k + p.how.splits - 1) / p.how.splits;
    for (int64_t part = 0; part < (int64_t)p.how.splits; part++) {
        int64_t from = std::min(part * step, q.k), depth = std::min(step, q.k - from);
        for (int64_t col = 0; col < q.n; col += COLS)
            for (int64_t row = 0; row < q.m; row += ROWS) {
                float sums[COLS][ROWS];
                block(&left[(size_t)(row * q.k + from * ROWS)], &right[(size_t)(col * q.k + from * COLS)], depth, sums);
                for (int64_t c = 0; c < COLS && col + c < q.n; c++)
                    for (int64_t r = 0; r < ROWS && row + r < q.m; r++) {
                        if (p.parts)
                            p.parts[part * q.m * q.n + (col + c) * q.m + row + r] = sums[c][r];
                        else
                            finish(p, row + r, col + c, sums[c][r]);
                    }
            }
    }
    if (p.parts) join(p);
    return cudaSuccess;
}

template <class T> cublasStatus_t put(T &member, const void *buffer, size_t bytes)
{
    if (!buffer || bytes != sizeof member) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&member, buffer, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace

/* ---- the library's functions ------------------------------------------------------------------------------------------------- */

struct cublasLtContext {
    uint64_t magic;
};

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = nullptr;
    if (capture_forbids("cublasLtCreate")) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = new cublasLtContext{MAGIC};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    if (!handle || handle->magic != MAGIC) return CUBLAS_STATUS_NOT_INITIALIZED;
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion(void) { return CUBLAS_VERSION; }

const char *cublasLtGetStatusName(cublasStatus_t code)
{
    switch (code) {
#define NAME(code)                                                                                                                         \
    case code:                                                                                                                             \
        return #code
        NAME(CUBLAS_STATUS_SUCCESS);
        NAME(CUBLAS_STATUS_NOT_INITIALIZED);
        NAME(CUBLAS_STATUS_ALLOC_FAILED);
        NAME(CUBLAS_STATUS_INVALID_VALUE);
        NAME(CUBLAS_STATUS_EXECUTION_FAILED);
        NAME(CUBLAS_STATUS_NOT_SUPPORTED);
    default:
        return "CUBLAS_STATUS of another kind";
    }
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t l, size_t bytes, cudaDataType type, uint64_t rows, uint64_t cols,
                                                 int64_t ld)
{
    if (bytes < sizeof(layout)) return CUBLAS_STATUS_ALLOC_FAILED;
    inside<layout>(l) = {type, CUBLASLT_ORDER_COL, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t d, size_t bytes, cublasComputeType_t compute, cudaDataType_t scale)
{
    if (bytes < sizeof(desc)) return CUBLAS_STATUS_ALLOC_FAILED;
    inside<desc>(d) = {compute, scale, CUBLASLT_POINTER_MODE_HOST, {CUBLAS_OP_N, CUBLAS_OP_N}, -1, CUBLASLT_EPILOGUE_DEFAULT, nullptr};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t opaque, cublasLtMatmulDescAttributes_t attribute, const void *buffer,
                                              size_t bytes)
{
    desc &d = inside<desc>(opaque);
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return put(d.op[0], buffer, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return put(d.op[1], buffer, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return put(d.epilogue, buffer, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return put(d.bias, buffer, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return put(d.bias_type, buffer, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t p, size_t bytes)
{
    if (bytes < sizeof(preference)) return CUBLAS_STATUS_ALLOC_FAILED;
    inside<preference>(p) = {0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque, cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *buffer, size_t bytes)
{
    preference &p = inside<preference>(opaque);
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return put(p.workspace, buffer, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return put(p.reduction, buffer, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return put(p.align[0], buffer, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return put(p.align[1], buffer, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return put(p.align[2], buffer, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return put(p.align[3], buffer, bytes);
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out,
                                              cublasLtMatmulPreference_t p, int wanted, cublasLtMatmulHeuristicResult_t results[], int *n)
{
    if (!handle || handle->magic != MAGIC) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (wanted <= 0 || !p || !results || !n) return CUBLAS_STATUS_INVALID_VALUE;
    call q;
    *n = 0;
    cublasStatus_t e = judge(q, d, a, b, c, out);
    if (e) return e;
    std::vector<algo> list = offers(q, inside<preference>(p));
    for (size_t i = 0; i < list.size() && *n < wanted; i++) {
        cublasLtMatmulHeuristicResult_t &r = results[(*n)++];
        r = {};
        inside<algo>(&r.algo) = list[i];
        r.workspaceSize = workspace_of(list[i], q);
        r.wavesCount = 1;
    }
    return *n ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out, const cublasLtMatmulAlgo_t *how,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    if (!handle || handle->magic != MAGIC) return CUBLAS_STATUS_NOT_INITIALIZED;
    call q;
    cublasStatus_t e = judge(q, d, a, b, c, out);
    const algo &x = inside<const algo>(how);
    if (!e) e = fits(x, q);
    if (!e) result->workspaceSize = workspace_of(x, q);
    return result->state = e;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t d, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *out, cublasLtMatrixLayout_t out_layout,
                              const cublasLtMatmulAlgo_t *how, void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    if (!handle || handle->magic != MAGIC) return CUBLAS_STATUS_NOT_INITIALIZED;
    product p = {{}, {}, a, b, c, out, *(const float *)alpha, *(const float *)beta, nullptr};
    cublasStatus_t e = judge(p.q, d, a_layout, b_layout, c_layout, out_layout);
    if (e) return e;
    if (!a || !b || !out || !how || (p.beta != 0 && !c) || (p.beta != 0 && of(c_layout).ld != p.q.c.ld)) return CUBLAS_STATUS_INVALID_VALUE;
    p.how = inside<const algo>(how);
    e = fits(p.how, p.q);
    if (e) return e;
    for (const void *at : {a, b, (const void *)out, p.beta != 0 ? c : nullptr})
        if ((uintptr_t)at % p.how.align) return CUBLAS_STATUS_INVALID_VALUE;
    size_t need = workspace_of(p.how, p.q);
    if (need > workspace_bytes || (need && (!workspace || (uintptr_t)workspace % 16))) return CUBLAS_STATUS_INVALID_VALUE;
    if (need) p.parts = (float *)workspace;
    return emu_enqueue(stream, "cublasLtMatmul", [p] { return run(p); }) ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}
