/* gemm_lt.c — one product through cuBLASLt.
 *
 * A row-major matrix is its transpose in the library's columns, so the product is asked for as Cᵀ = op(B)ᵀ·op(A)ᵀ, and nothing moves:
 *
 *      ours                               the library's
 *      C [M, N]                           D [N, M], ld the same
 *      B [K, N], or [N, K] when tb        A, as it is when not tb, transposed when tb
 *      A [M, K], or [K, M] when ta        B, as it is when not ta, transposed when ta
 *      bias [N], to every row             bias [N], to every column: EPILOGUE_BIAS
 *
 * f32 is CUBLAS_COMPUTE_32F, without TF32; bf16 accumulates in f32. Parts of a split K are added by a second kernel in f32
 * (REDUCTION_SCHEME_COMPUTE_TYPE), never in place, by whoever comes first, or in bf16.
 *
 * Which algorithm: the first that the library's heuristic offers for the shape. That is a function of GPU, library and call alone
 * (alignments count up to 16 bytes, which the arena gives to all it holds), so the same call has the same bits in every run, rank
 * and place in memory. Timed algorithms are only taken where a file names them: gemm_choices.c.
 *
 * Descriptors and algorithm of a call are made once and found again: calls differ from batch to batch by their tokens only. */
#include "kernels/cuda/gemm_lt.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/philox.h"

enum { CALLS = 1024, CANDIDATES = 8, ALIGNED = 16 };
#define SLOW_FLOP 1e9 /* from here on a product that the library does not take is worth a word */

struct call_key {
    int64_t m, n, k, lda, ldb, ldc;
    uint64_t traits;
};

struct call {
    struct call_key key; /* m == 0: free */
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t a, b, c; /* of our operands */
    cublasLtMatmulAlgo_t algo;
    bool none; /* the library offers nothing */
};

struct gemm_context {
    cublasLtHandle_t lt;
    struct gemm_choices *choices;
    bool warned; /* that a product is slow: once */
    int n_calls;
    struct call call[CALLS]; /* open addressing; all are forgotten when three quarters are taken */
};

/* ---- codes ------------------------------------------------------------------------------------------------------------------ */

/* The device's own error, where there is one, says more. */
static status lt_status(cublasStatus_t e, const char *what)
{
    if (e == CUBLAS_STATUS_SUCCESS) return ST_OK;
    TRY(cuda_status(cudaPeekAtLastError(), what));
    return status_fail(e == CUBLAS_STATUS_ALLOC_FAILED ? ST_OOM : ST_DEVICE, "%s: %s", what, cublasLtGetStatusName(e));
}

#define LT(expr, what) TRY(lt_status(expr, what))

static void context_close(struct gemm_context *g)
{
    if (g->lt) cublasLtDestroy(g->lt);
    gemm_choices_close(g->choices);
    free(g);
}

/* The stream's, made at its first product and closed with it: most streams have none. */
static status context_of(struct stream *stream, struct gemm_context **out)
{
    struct cuda_stream *s = cuda_stream(stream);
    *out = s->gemm;
    if (s->gemm) return ST_OK;
    struct gemm_context *g = calloc(1, sizeof *g);
    if (!g) FAIL(ST_OOM, "gemm: no memory for %zu bytes of descriptors", sizeof *g);
    status st = gemm_choices_open(&g->choices);
    if (!st) st = lt_status(cublasLtCreate(&g->lt), "cublasLtCreate");
    if (st) {
        context_close(g);
        return st;
    }
    s->gemm_close = context_close;
    *out = s->gemm = g;
    return ST_OK;
}

/* ---- what distinguishes calls ------------------------------------------------------------------------------------------------ */

bool gemm_lt_takes(const struct gemm_args *g)
{
    if (g->a2.data || g->a.dt != g->b.dt || !g->a.data || !g->a.dim[g->ta ? 0 : 1]) return false;
    if (g->bias.data && (g->bias.dt != g->c.dt || (uintptr_t)g->bias.data % ALIGNED)) return false;
    return g->c.dt == DT_F32 || g->a.dt == DT_BF16;
}

/* Of its rows, as far as it counts. */
static uint32_t aligned(const tensor *t)
{
    uintptr_t p = (uintptr_t)t->data | ALIGNED;
    if (t->dim[0] > 1) p |= (uintptr_t)t->ld * dtype_bytes(t->dt);
    return (uint32_t)(p & -p);
}

static uint64_t traits_of(const struct gemm_args *g)
{
    uint64_t t =
        g->ta | g->tb << 1 | (g->a.dt == DT_BF16) << 2 | (g->c.dt == DT_BF16) << 3 | (g->bias.data != NULL) << 4 | (g->beta != 0) << 5;
    return t | aligned(&g->a) << 8 | aligned(&g->b) << 16 | aligned(&g->c) << 24;
}

static struct call_key key_of(const struct gemm_args *g)
{
    int64_t m = g->c.dim[0], n = g->c.dim[1], k = g->a.dim[g->ta ? 0 : 1];
    return (struct call_key){m, n, k, g->a.ld, g->b.ld, g->c.ld, traits_of(g)};
}

/* The call's place: where it is, or where it goes. */
static struct call *place_of(struct gemm_context *x, const struct call_key *key)
{
    uint64_t word[sizeof *key / 8], hash = 0;
    memcpy(word, key, sizeof *key);
    for (size_t i = 0; i < sizeof word / sizeof *word; i++) hash = rng_mix(hash ^ word[i]);
    size_t at = hash % CALLS;
    while (x->call[at].key.m && memcmp(&x->call[at].key, key, sizeof *key)) at = (at + 1) % CALLS;
    return &x->call[at];
}

/* ---- descriptors ------------------------------------------------------------------------------------------------------------- */

static cudaDataType_t type_of(dtype dt) { return dt == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

static status layout(cublasLtMatrixLayoutOpaque_t *l, const tensor *t)
{
    return lt_status(cublasLtMatrixLayoutInit(l, type_of(t->dt), (uint64_t)t->dim[1], (uint64_t)t->dim[0], t->ld),
                     "cublasLtMatrixLayoutInit");
}

static status describe(struct call *c, const struct gemm_args *g)
{
    cublasOperation_t a = g->tb ? CUBLAS_OP_T : CUBLAS_OP_N, b = g->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = g->bias.data ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    static const char what[] = "cublasLtMatmulDescSetAttribute";
    LT(cublasLtMatmulDescInit(&c->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescInit");
    LT(cublasLtMatmulDescSetAttribute(&c->desc, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a), what);
    LT(cublasLtMatmulDescSetAttribute(&c->desc, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b), what);
    LT(cublasLtMatmulDescSetAttribute(&c->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue), what);
    if (g->bias.data) {
        cudaDataType_t type = type_of(g->bias.dt);
        LT(cublasLtMatmulDescSetAttribute(&c->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type), what);
        LT(cublasLtMatmulDescSetAttribute(&c->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g->bias.data, sizeof g->bias.data), what);
    }
    TRY(layout(&c->a, &g->a));
    TRY(layout(&c->b, &g->b));
    return layout(&c->c, &g->c);
}

/* What an algorithm may assume, and may not do. */
static status prefer(cublasLtMatmulPreferenceOpaque_t *p, const struct gemm_args *g)
{
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        uint32_t value;
    } set[] = {
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, aligned(&g->b)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, aligned(&g->a)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, aligned(&g->c)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, aligned(&g->c)},
    };
    static const char what[] = "cublasLtMatmulPreferenceSetAttribute";
    uint64_t workspace = GEMM_LT_BYTES;
    LT(cublasLtMatmulPreferenceInit(p), "cublasLtMatmulPreferenceInit");
    LT(cublasLtMatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace), what);
    for (size_t i = 0; i < sizeof set / sizeof *set; i++)
        LT(cublasLtMatmulPreferenceSetAttribute(p, set[i].attribute, &set[i].value, sizeof set[i].value), what);
    return ST_OK;
}

static status offers(struct gemm_context *x, struct call *c, const struct gemm_args *g, cublasLtMatmulHeuristicResult_t *found, int *n)
{
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t offer[CANDIDATES] = {0};
    int offered = 0;
    TRY(prefer(&preference, g));
    cublasStatus_t e =
        cublasLtMatmulAlgoGetHeuristic(x->lt, &c->desc, &c->b, &c->a, &c->c, &c->c, &preference, CANDIDATES, offer, &offered);
    *n = 0;
    if (e == CUBLAS_STATUS_NOT_SUPPORTED) return ST_OK;
    LT(e, "cublasLtMatmulAlgoGetHeuristic");
    for (int i = 0; i < offered; i++)
        if (offer[i].state == CUBLAS_STATUS_SUCCESS && offer[i].workspaceSize <= GEMM_LT_BYTES) found[(*n)++] = offer[i];
    return ST_OK;
}

/* ---- the algorithm ----------------------------------------------------------------------------------------------------------- */

static status launch(struct stream *s, struct gemm_context *x, struct call *c, const cublasLtMatmulAlgo_t *algo, const struct gemm_args *g,
                     void *workspace)
{
    return lt_status(cublasLtMatmul(x->lt, &c->desc, &g->alpha, g->b.data, &c->b, g->a.data, &c->a, &g->beta, g->c.data, &c->c, g->c.data,
                                    &c->c, algo, workspace, GEMM_LT_BYTES, cuda_on(s)),
                     "cublasLtMatmul");
}

/* n rounded up to its four leading bits. */
static int64_t eighths(int64_t n)
{
    int64_t unit = 1;
    while (n / unit >= 16) unit *= 2;
    return (n + unit - 1) / unit * unit;
}

static struct gemm_shape shape_of(const struct call_key *key)
{
    return (struct gemm_shape){eighths(key->m), eighths(key->n), eighths(key->k), key->traits};
}

static size_t extent(const tensor *t) { return (size_t)(t->dim[0] * t->ld) * dtype_bytes(t->dt); }

static status stopwatch(struct stream *s, struct gemm_context *x, struct call *c, const cublasLtMatmulAlgo_t *algo,
                        const struct gemm_args *g, void *workspace, cudaEvent_t from, cudaEvent_t to, float *us)
{
    enum { RUNS = 5 };
    TRY(launch(s, x, c, algo, g, workspace));
    TRY(cuda_status(cudaEventRecord(from, cuda_on(s)), "cudaEventRecord"));
    for (int i = 0; i < RUNS; i++) TRY(launch(s, x, c, algo, g, workspace));
    TRY(cuda_status(cudaEventRecord(to, cuda_on(s)), "cudaEventRecord"));
    TRY(cuda_status(cudaEventSynchronize(to), "timing of gemm"));
    TRY(cuda_status(cudaEventElapsedTime(us, from, to), "cudaEventElapsedTime"));
    *us *= 1000.0f / RUNS;
    return ST_OK;
}

/* Random operands: a product of zeros runs faster than any other. */
static status random_operands(struct stream *s, struct gemm_args *g, char *room)
{
    tensor *operand[] = {&g->a, &g->b, &g->c};
    for (int i = 0; i < 3; i++) {
        tensor *t = operand[i], flat = tensor_1d(room, t->dt, t->dim[0] * t->ld);
        room += (extent(t) + GEMM_LT_ALIGN - 1) / GEMM_LT_ALIGN * GEMM_LT_ALIGN;
        t->data = flat.data;
        TRY(s->be->ops.init(s, &(struct init_args){.w = flat, .bound = 1, .key = rng_mix((uint64_t)i)}));
    }
    return ST_OK;
}

/* Finds the fastest of the candidates for the file. Waits for the device, and takes memory that no plan has: only where asked for. */
static status time_offers(struct stream *s, struct gemm_context *x, struct call *c, const struct gemm_args *g, void *workspace,
                          const cublasLtMatmulHeuristicResult_t *offer, int n)
{
    struct gemm_args copy = *g;
    struct gemm_choice best = {.shape = shape_of(&c->key)};
    void *room;
    if (cudaMalloc(&room, extent(&g->a) + extent(&g->b) + extent(&g->c) + 3 * GEMM_LT_ALIGN) != cudaSuccess) {
        cudaGetLastError(); /* not sticky */
        log_debug("gemm: no memory to time %s = %s · %s", tensor_text(&g->c), tensor_text(&g->a), tensor_text(&g->b));
        return ST_OK;
    }
    cudaEvent_t from = NULL, to = NULL;
    status st = ST_OK;
    TRY_DONE(cuda_status(cudaEventCreateWithFlags(&from, cudaEventDefault), "cudaEventCreateWithFlags"));
    TRY_DONE(cuda_status(cudaEventCreateWithFlags(&to, cudaEventDefault), "cudaEventCreateWithFlags"));
    TRY_DONE(random_operands(s, &copy, room));
    for (int i = 0; i < n; i++) {
        float us = 0;
        TRY_DONE(stopwatch(s, x, c, &offer[i].algo, &copy, workspace, from, to, &us));
        if (i == 0) best.first_us = us;
        if (i && !(us < best.fastest_us)) continue;
        best.fastest_us = us;
        best.algo = offer[i].algo;
    }
    st = gemm_choices_put(x->choices, &best);
done:
    if (from) cudaEventDestroy(from);
    if (to) cudaEventDestroy(to);
    cudaFree(room);
    return st;
}

static bool chosen(struct gemm_context *x, struct call *c)
{
    struct gemm_shape q = shape_of(&c->key);
    const struct gemm_choice *found = gemm_choices_find(x->choices, &q);
    if (!found) return false;
    cublasLtMatmulHeuristicResult_t r = {0};
    c->algo = found->algo;
    return cublasLtMatmulAlgoCheck(x->lt, &c->desc, &c->b, &c->a, &c->c, &c->c, &c->algo, &r) == CUBLAS_STATUS_SUCCESS &&
           r.workspaceSize <= GEMM_LT_BYTES;
}

static status choose(struct stream *s, struct gemm_context *x, struct call *c, const struct gemm_args *g, void *workspace)
{
    cublasLtMatmulHeuristicResult_t offer[CANDIDATES];
    enum cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    struct gemm_shape q = shape_of(&c->key);
    int n;
    if (chosen(x, c)) return ST_OK;
    TRY(offers(x, c, g, offer, &n));
    c->none = n == 0;
    if (c->none) {
        double flop = 2.0 * (double)q.m * (double)q.n * (double)q.k;
        if (flop > SLOW_FLOP && !x->warned)
            log_warn("cuBLASLt has no algorithm for %s = %s · %s: a slow kernel computes it", tensor_text(&g->c), tensor_text(&g->a),
                     tensor_text(&g->b));
        x->warned |= flop > SLOW_FLOP;
        return ST_OK;
    }
    c->algo = offer[0].algo;
    if (!gemm_choices_wants(x->choices, &q)) return ST_OK;
    TRY(cuda_status(cudaStreamIsCapturing(cuda_on(s), &capturing), "cudaStreamIsCapturing"));
    return capturing == cudaStreamCaptureStatusNone ? time_offers(s, x, c, g, workspace, offer, n) : ST_OK;
}

static status make(struct stream *s, struct gemm_context *x, const struct call_key *key, const struct gemm_args *g, void *workspace,
                   struct call **out)
{
    struct call made = {.key = *key};
    TRY(describe(&made, g));
    TRY(choose(s, x, &made, g, workspace));
    if (++x->n_calls > CALLS / 4 * 3) {
        memset(x->call, 0, sizeof x->call);
        x->n_calls = 1;
    }
    *out = place_of(x, key);
    **out = made;
    return ST_OK;
}

status gemm_lt(struct stream *s, const struct gemm_args *g, void *workspace, bool *done)
{
    struct gemm_context *x;
    TRY(context_of(s, &x));
    struct call_key key = key_of(g);
    struct call *c = place_of(x, &key);
    if (!c->key.m) TRY(make(s, x, &key, g, workspace, &c));
    *done = !c->none;
    if (c->none) return ST_OK;
    if (g->bias.data)
        LT(cublasLtMatmulDescSetAttribute(&c->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g->bias.data, sizeof g->bias.data),
           "cublasLtMatmulDescSetAttribute");
    return launch(s, x, c, &c->algo, g, workspace);
}
