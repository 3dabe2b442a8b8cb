/* bench_gpu — kernels of a device backend at the sizes of a real model's step, one JSON object per line as they come.
 *
 *      bench_gpu [cuda|emu] [8b|1b|0.5b|tiny] [gemm|attn|slices|elem|head|step|host|nf4]     default: cuda 8b, all groups
 *
 * The first line is the device, what a copy on it moves per second (read and written) and what its product of 8192³ reaches. Then
 * for each kernel the milliseconds of a call among many that are queued behind each other, the FLOPs or the bytes that it must move
 * over that time, and their share: of that product or copy, and of the published rate where gpu_table.c has the device. Operands
 * are random: zeros are faster. A kernel that fails says so in its line, and the next one is tried. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "kernels/base/text.h"
#include "kernels/gpu.h"

static const struct shape {
    const char *name;
    int64_t tokens, length, width, ffn, heads, kv_heads, head_dim, vocab, rows, product;
} SHAPES[] = {
    {"8b", 8192, 4096, 4096, 14336, 32, 8, 128, 128256, 4096, 8192},
    {"1b", 16384, 4096, 2048, 8192, 32, 8, 64, 128256, 4096, 8192},
    {"0.5b", 16384, 4096, 896, 4864, 14, 2, 64, 151936, 4096, 8192},
    {"tiny", 40, 20, 32, 48, 2, 1, 16, 100, 8, 32}, /* to see that it runs: on the emulated device */
};

static struct stream *s, *beside;
static struct event *done;
static const struct shape *m;
static const struct gpu *published; /* NULL: not in the table */
static double copy_rate, product_rate;

/* ---- memory --------------------------------------------------------------------------------------------------------------- */

static void die(void)
{
    fprintf(stderr, "bench_gpu: %s\n", status_message());
    exit(ST_FAIL);
}

static struct block {
    void *p;
    size_t bytes;
} blocks[64];
static int n_blocks;

static void *memory(size_t bytes)
{
    struct block *b = &blocks[n_blocks++];
    b->bytes = bytes;
    if (s->be->dev.alloc(MEM_DEVICE, bytes, &b->p)) die();
    return b->p;
}

static void drop_all(void)
{
    while (n_blocks) {
        n_blocks--;
        s->be->dev.free(MEM_DEVICE, blocks[n_blocks].p, blocks[n_blocks].bytes);
    }
}

static tensor made(dtype dt, int64_t lines, int64_t cols)
{
    tensor t = tensor_2d(memory((size_t)(lines * cols) * dtype_bytes(dt)), dt, lines, cols), flat = tensor_1d(t.data, dt, lines * cols);
    bool number = dt == DT_F32 || dt == DT_BF16;
    if (number ? op_init(s, &(struct init_args){.w = flat, .bound = 1, .normal = true, .key = (uint64_t)n_blocks})
               : s->be->dev.zero(s, t.data, (size_t)(lines * cols) * dtype_bytes(dt)))
        die();
    return t;
}

static tensor flat(tensor t) { return tensor_1d(t.data, t.dt, tensor_count(&t)); }

/* The same bytes on the device; streams read no ordinary memory. */
static void *brought(const void *host, size_t bytes)
{
    void *there = memory(bytes), *pinned;
    if (s->be->dev.alloc(MEM_PINNED, bytes, &pinned)) die();
    memcpy(pinned, host, bytes);
    if (s->be->dev.copy(s, there, pinned, bytes) || s->be->dev.sync(s, "setting up")) die();
    s->be->dev.free(MEM_PINNED, pinned, bytes);
    return there;
}

/* Element i is first + step·i, modulo wrap where that is not 0; on the device. */
static void *counted(int64_t n, size_t size, int64_t first, int64_t step, int64_t wrap)
{
    void *host = mem_alloc((size_t)n * size);
    for (int64_t i = 0; i < n; i++) {
        int64_t v = first + step * i;
        if (wrap) v %= wrap;
        memcpy((char *)host + (size_t)i * size, &v, size);
    }
    void *there = brought(host, (size_t)n * size);
    free(host);
    return there;
}

static int32_t *counted32(int64_t n, int64_t step, int64_t wrap) { return counted(n, 4, 0, step, wrap); }

static struct rows_at rows_of_tokens(void) { return (struct rows_at){counted32(m->tokens, 1, m->length), counted(m->tokens, 8, 1, 1, 0)}; }

/* The workspace that calls within the largest shapes need. */
static status prepare(bool deterministic)
{
    const int64_t n = m->tokens;
    struct work_bounds w = {.dt = DT_BF16,
                            .tokens = n,
                            .docs = 8 * n / m->length,
                            .doc_tokens = 2 * m->length,
                            .deterministic = deterministic,
                            .width = m->width,
                            .ffn = m->ffn,
                            .heads = m->heads,
                            .kv_heads = m->kv_heads,
                            .head_dim = m->head_dim,
                            .vocab = m->vocab,
                            .rank = 16,
                            .head_rows = 4 * m->rows,
                            .threads = 1};
    if (s->workspace) s->be->dev.free(MEM_DEVICE, s->workspace, s->workspace_bytes);
    s->workspace = NULL;
    TRY(s->be->prepare(s, &w));
    return s->workspace_bytes ? s->be->dev.alloc(MEM_DEVICE, s->workspace_bytes, &s->workspace) : ST_OK;
}

/* ---- time ------------------------------------------------------------------------------------------------------------------- */

typedef status call_fn(const void *args);

/* Seconds of one call among enough of them for 50 ms; < 0 when it fails. */
static double timed(call_fn *call, const void *args)
{
    for (int calls = 1, warm = 2;; calls *= 4, warm = 0) {
        double from = 0;
        for (int i = -warm; i < calls; i++) {
            if (i == 0 && s->be->dev.sync(s, "warming up")) return -1;
            if (i == 0) from = clock_s();
            if (call(args)) return -1;
        }
        if (s->be->dev.sync(s, "measuring")) return -1;
        double took = clock_s() - from;
        if (took > 0.05 || calls > 1000 || m->product < 1000) return took / calls;
    }
}

struct cost {
    double flops, bytes; /* of one call; one of them is 0 */
};

static void report(const char *kernel, struct cost c, double seconds)
{
    char why[400];
    if (seconds < 0) {
        snprintf(why, sizeof why, "%s", status_message());
        for (char *p = why; *p; p++)
            if (*p == '"' || *p == '\\' || (unsigned char)*p < 32) *p = ' ';
        printf("{\"kernel\":\"%s\",\"failed\":\"%s\"}\n", kernel, why);
    } else {
        double rate = (c.flops + c.bytes) / seconds, of = c.flops > 0 ? product_rate : copy_rate;
        printf("{\"kernel\":\"%s\",\"ms\":%.5g,\"%s\":%.5g,\"share_of_%s\":%.4f", kernel, 1e3 * seconds, c.flops > 0 ? "tflops" : "gbs",
               rate / (c.flops > 0 ? 1e12 : 1e9), c.flops > 0 ? "product" : "copy", of > 0 ? rate / of : 0);
        if (published) printf(",\"share_of_published\":%.4f", rate / (c.flops > 0 ? 1e12 * published->tflops : 1e12 * published->hbm_tb));
        printf("}\n");
    }
    fflush(stdout);
}

#define CALLS(name, args)                                                                                                                  \
    __attribute__((unused)) static status call_##name(const void *a) { return op_##name(s, (const struct args##_args *)a); }
TRIMPOT_OPS(CALLS)

#define MEASURE(kernel, op, cost, args) report(kernel, cost, timed(call_##op, args))
#define MOVES(b)                        ((struct cost){.bytes = (double)(b)})
#define COMPUTES(f)                     ((struct cost){.flops = (double)(f)})

/* ---- limits ------------------------------------------------------------------------------------------------------------------ */

struct copied {
    void *to, *from;
    size_t bytes;
};

static status call_copy(const void *a)
{
    const struct copied *c = a;
    return s->be->dev.copy(s, c->to, c->from, c->bytes);
}

/* Depth of A2·B2 beside A·B: none; in memory of its own; right behind A's columns and B's, as adapters lie (joins_products). */
struct second {
    int64_t depth;
    bool behind;
};

static void halves(int64_t rows, int64_t depth, struct second more, tensor *first, tensor *second)
{
    tensor whole = made(DT_BF16, rows, depth + (more.behind ? more.depth : 0));
    *first = tensor_columns(&whole, 0, depth);
    if (more.depth) *second = more.behind ? tensor_columns(&whole, depth, more.depth) : made(DT_BF16, rows, more.depth);
}

static double product(int64_t rows, int64_t cols, int64_t depth, const struct gemm_args *how, struct second more, const char *kernel)
{
    struct gemm_args g = *how;
    halves(g.ta ? depth : rows, g.ta ? rows : depth, more, &g.a, &g.a2);
    halves(g.tb ? cols : depth, g.tb ? depth : cols, more, &g.b, &g.b2);
    g.c = made(g.beta != 0 ? DT_F32 : DT_BF16, rows, cols);
    double flops = 2.0 * (double)rows * (double)cols * (double)(depth + more.depth), seconds = timed(call_gemm, &g);
    if (kernel) report(kernel, COMPUTES(flops), seconds);
    drop_all();
    return seconds > 0 ? flops / seconds : 0;
}

static void limits(const char *device)
{
    size_t bytes = m->product < 1000 ? 4096 : (size_t)1 << 30;
    struct copied c = {made(DT_BF16, 1, (int64_t)bytes / 2).data, made(DT_BF16, 1, (int64_t)bytes / 2).data, bytes};
    double seconds = timed(call_copy, &c);
    copy_rate = seconds > 0 ? 2 * (double)bytes / seconds : 0;
    drop_all();
    product_rate = product(m->product, m->product, m->product, &(struct gemm_args){.tb = true, .alpha = 1}, (struct second){0}, NULL);
    printf("{\"device\":\"%s\",\"shape\":\"%s\",\"gpu\":\"%s\",\"copy_gbs\":%.5g,\"product_tflops\":%.5g}\n", device, m->name,
           published ? published->name : "", copy_rate / 1e9, product_rate / 1e12);
    fflush(stdout);
}

/* ---- groups ------------------------------------------------------------------------------------------------------------------ */

static void gemm(void)
{
    int64_t n = m->tokens, q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    const struct gemm_args forward = {.tb = true, .alpha = 1}, back = {.alpha = 1}, weights = {.ta = true, .alpha = 1, .beta = 1};
    const struct second none = {0};
    product(n, q, m->width, &forward, none, "gemm q");
    product(n, kv, m->width, &forward, none, "gemm k");
    product(n, m->ffn, m->width, &forward, none, "gemm gate");
    product(n, m->width, m->ffn, &forward, none, "gemm down");
    product(n, m->ffn, m->width, &forward, (struct second){64, true}, "gemm gate, adapter behind");
    product(n, m->ffn, m->width, &forward, (struct second){16}, "gemm gate, adapter apart");
    product(n, 16, m->width, &forward, none, "gemm x to rank 16");
    product(n, m->width, m->ffn, &back, none, "gemm d x of gate");
    product(m->ffn, m->width, n, &weights, none, "gemm d weight of gate, f32 +=");
    product(16, m->width, n, &weights, none, "gemm d adapter A, f32 +=");
    product(m->rows, m->vocab, m->width, &forward, none, "gemm head");
    product(m->rows, m->width, m->vocab, &back, none, "gemm d x of head");
}

static void attention(const char *forward, const char *backward, int64_t docs, int64_t length)
{
    int64_t n = docs * length, q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    int32_t *start = mem_alloc((size_t)(docs + 1) * sizeof *start);
    for (int64_t i = 0; i <= docs; i++) start[i] = (int32_t)(i * length);
    const struct docs d = {.n_docs = docs,
                           .n_tokens = n,
                           .longest = length,
                           .positions = length,
                           .start = {start, counted32(docs + 1, length, 0)},
                           .rows = {counted32(n, 1, length), counted(n, 8, 1, 1, 0)}};
    struct attn_fwd_args fwd = {.q = made(DT_BF16, n, q),
                                .k = made(DT_BF16, n, kv),
                                .v = made(DT_BF16, n, kv),
                                .o = made(DT_BF16, n, q),
                                .lse = made(DT_F32, n, m->heads),
                                .heads = m->heads,
                                .kv_heads = m->kv_heads,
                                .head_dim = m->head_dim,
                                .scale = 0.1f,
                                .docs = d};
    double flops = 2.0 * (double)n * (double)length * (double)q; /* the causal half */
    MEASURE(forward, attn_fwd, COMPUTES(flops), &fwd);
    struct attn_bwd_args bwd = {fwd, made(DT_BF16, n, q), made(DT_BF16, n, q), made(DT_BF16, n, kv), made(DT_BF16, n, kv)};
    MEASURE(backward, attn_bwd, COMPUTES(2.5 * flops), &bwd);
    drop_all();
    free(start);
}

static void attn(void)
{
    attention("attention", "attention backward", m->tokens / m->length, m->length);
    attention("attention, short documents", "attention backward, short documents", 8 * m->tokens / m->length, m->length / 8);
}

/* Backward in an order that is fixed, at lengths around the shape's. */
static void slices(void)
{
    char forward[64], backward[64];
    for (int fixed = 0; fixed < 2; fixed++) {
        for (int64_t length = m->length / 2; length <= 2 * m->length; length *= 2) {
            const char *how = fixed ? ", deterministic" : "";
            snprintf(forward, sizeof forward, "attention T %lld%s", (long long)length, how);
            snprintf(backward, sizeof backward, "attention backward T %lld%s", (long long)length, how);
            if (prepare(fixed)) die();
            attention(forward, backward, m->tokens / length, length);
        }
    }
    if (prepare(false)) die();
}

static void norms(void)
{
    int64_t n = m->tokens, c = m->width;
    tensor x = made(DT_BF16, n, c), y = made(DT_BF16, n, c), z = made(DT_BF16, n, c), out = made(DT_BF16, n, c);
    tensor w = flat(made(DT_F32, 1, c)), rstd = flat(made(DT_F32, 1, n)), dw = flat(made(DT_F32, 1, c));
    int64_t each = n * (8 * c + 4);
    struct rmsnorm_fwd_args forward = {x, y, z, w, out, rstd, 1e-6f, false};
    struct rmsnorm_bwd_args back = {.dy = y, .x = x, .w = w, .rstd = rstd, .residual = z, .dx = out};
    MEASURE("rmsnorm with residual", rmsnorm_fwd, MOVES(each), &forward);
    MEASURE("rmsnorm backward", rmsnorm_bwd, MOVES(each), &back);
    back.dw = dw;
    MEASURE("rmsnorm backward with d weight", rmsnorm_bwd, MOVES(each), &back);
    struct colsum_args sum = {x, dw};
    MEASURE("column sum", colsum, MOVES(2 * n * c), &sum);
    struct axpy_args add = {flat(x), flat(y), 1, true};
    MEASURE("axpy +=", axpy, MOVES(6 * n * c), &add);
    struct dropout_args drop = {x, y, flat(made(DT_F64, 1, STEP_PLAN)), 0.1f, 5, rows_of_tokens(), false};
    MEASURE("dropout", dropout, MOVES(4 * n * c), &drop);
    struct rows_args some = {x, y, counted32(n, 1, 0), n};
    MEASURE("gather rows", gather_rows, MOVES(4 * n * c), &some);
    drop_all();
    struct embed_args embed = {made(DT_BF16, m->vocab, c), counted32(n, 997, m->vocab), n, made(DT_BF16, n, c), 0};
    MEASURE("embedding", embed_fwd, MOVES(4 * n * c), &embed);
    drop_all();
    embed = (struct embed_args){made(DT_F32, m->vocab, c), counted32(n, 997, m->vocab), n, made(DT_BF16, n, c), 0};
    MEASURE("embedding backward", embed_bwd, MOVES(10 * n * c), &embed);
    drop_all();
}

static void mlp(void)
{
    int64_t n = m->tokens, f = m->ffn;
    tensor gate = made(DT_BF16, n, f), up = made(DT_BF16, n, f), h = made(DT_BF16, n, f);
    struct glu_fwd_args forward = {gate, up, h, ACT_SILU};
    struct glu_bwd_args back = {gate, up, h, gate, up, ACT_SILU};
    MEASURE("swiglu", glu_fwd, MOVES(6 * n * f), &forward);
    MEASURE("swiglu backward", glu_bwd, MOVES(10 * n * f), &back);
    drop_all();
}

static void elem(void)
{
    int64_t n = m->tokens, q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim, half = m->head_dim / 2;
    norms();
    mlp();
    struct rope_args rope = {.q = made(DT_BF16, n, q),
                             .k = made(DT_BF16, n, kv),
                             .cos = made(DT_F32, m->length, half),
                             .sin = made(DT_F32, m->length, half),
                             .heads = m->heads,
                             .kv_heads = m->kv_heads,
                             .head_dim = m->head_dim,
                             .positions = m->length,
                             .rows = rows_of_tokens()};
    MEASURE("rope", rope, MOVES(4 * n * (q + kv)), &rope);
    drop_all();
    struct loss_args loss = {made(DT_BF16, m->rows, m->vocab), counted32(m->rows, 331, m->vocab), flat(made(DT_F32, 1, m->rows)), 0, false};
    MEASURE("loss, in place", loss, MOVES(4 * m->rows * m->vocab), &loss);
    drop_all();
}

/* By the rows of a chunk: where products have their full rate. */
static void head(void)
{
    char name[3][64];
    for (int64_t rows = m->rows / 4; rows <= 4 * m->rows; rows *= 2) {
        static const char *const WHAT[] = {"gemm head", "loss, in place", "gemm d x of head"};
        for (int i = 0; i < 3; i++) snprintf(name[i], sizeof name[i], "%s, %lld rows", WHAT[i], (long long)rows);
        product(rows, m->vocab, m->width, &(struct gemm_args){.tb = true, .alpha = 1}, (struct second){0}, name[0]);
        struct loss_args loss = {made(DT_BF16, rows, m->vocab), counted32(rows, 331, m->vocab), flat(made(DT_F32, 1, rows)), 0, false};
        MEASURE(name[1], loss, MOVES(4 * rows * m->vocab), &loss);
        drop_all();
        product(rows, m->width, m->vocab, &(struct gemm_args){.alpha = 1}, (struct second){0}, name[2]);
    }
}

/* What the host pays for a launch, and what it brings and fetches. */
static void host(void)
{
    size_t bytes = m->product < 1000 ? 4096 : (size_t)1 << 28;
    struct axpy_args small = {flat(made(DT_BF16, 1, 64)), flat(made(DT_BF16, 1, 64)), 1, true};
    MEASURE("launch of a small kernel", axpy, MOVES(6 * 64), &small);
    void *there = memory(bytes), *pinned;
    if (s->be->dev.alloc(MEM_PINNED, bytes, &pinned)) die();
    report("copy from the host, pinned", MOVES(bytes), timed(call_copy, &(struct copied){there, pinned, bytes}));
    report("copy to the host, pinned", MOVES(bytes), timed(call_copy, &(struct copied){pinned, there, bytes}));
    s->be->dev.free(MEM_PINNED, pinned, bytes);
    drop_all();
}

static void step(void)
{
    int64_t n = m->product < 1000 ? FLAT_PAGE : (int64_t)1 << 28;
    const struct seg one = {0, n, 0, 1, 1, 0};
    const struct step_scalars scalars = {.usable = 1, .applied = 1, .gscale = 1, .lr = 1e-9, .rate = 1e-9, .c2 = 1};
    struct update_args u = {.kind = OPTIM_ADAMW,
                            .g = flat(made(DT_F32, 1, n)),
                            .w = flat(made(DT_BF16, 1, n)),
                            .m = flat(made(DT_BF16, 1, n)),
                            .v = flat(made(DT_BF16, 1, n)),
                            .scalars = tensor_1d(brought(&scalars, sizeof scalars), DT_F64, STEP_SCALARS),
                            .segs = {&one, brought(&one, sizeof one), 1},
                            .beta1 = 0.9f,
                            .beta2 = 0.999f,
                            .eps = 1e-8f,
                            .sr = true,
                            .key_w = 1,
                            .key_m = 2,
                            .key_v = 3};
    MEASURE("adamw, bf16, stochastic rounding", update, MOVES(16 * n), &u);
    const struct seg eight = {.count = n, .lr_mult = 1, .wd_mult = 1, .eight = 1};
    struct update_args coded = u;
    coded.segs = (struct segs){&eight, brought(&eight, sizeof eight), 1};
    coded.m = coded.v = (tensor){0};
    coded.m8 = flat(made(DT_U8, 1, n)), coded.m_absmax = flat(made(DT_F32, 1, n / STATE_BLOCK));
    coded.v8 = flat(made(DT_U8, 1, n)), coded.v_absmax = flat(made(DT_F32, 1, n / STATE_BLOCK));
    MEASURE("adamw, bf16, 8-bit states", update, MOVES(12 * n + n / 16), &coded);
    struct sumsq_segs_args norm = {u.g, flat(made(DT_F32, 1, (n + FLAT_PAGE - 1) / FLAT_PAGE)), u.segs, 0};
    MEASURE("squares of gradients", sumsq_segs, MOVES(4 * n), &norm);
    struct tree_sum_args tree = {.rows = {.data = u.g.data, .dt = DT_F32, .rank = 2, .dim = {4, n / 4, 1, 1}, .ld = n / 4},
                                 .out = tensor_1d(made(DT_F32, 1, n / 4).data, DT_F32, n / 4),
                                 .merges = {0, 1, 0, 2}};
    MEASURE("ordered sum of 4", tree_sum, MOVES(5 * n), &tree);
    drop_all();
}

struct pair {
    struct gemm_args gemm;
    struct nf4_args decode;
};

/* Both at once, each on its stream, and the next pair behind both. */
static status call_pair(const void *a)
{
    const struct pair *p = a;
    TRY(op_nf4_dequantize(beside, &p->decode));
    TRY(s->be->dev.event_record(done, beside));
    TRY(op_gemm(s, &p->gemm));
    return s->be->dev.event_wait(done, s, "decoded");
}

static void nf4(void)
{
    int64_t n = m->ffn * m->width, blocks_of_64 = (n + 63) / 64;
    tensor w = made(DT_BF16, m->ffn, m->width);
    struct nf4_args q = {w, flat(made(DT_U8, 1, (n + 1) / 2)), flat(made(DT_U8, 1, blocks_of_64)),
                         flat(made(DT_F32, 1, (blocks_of_64 + 255) / 256)), flat(made(DT_F32, 1, 1))};
    MEASURE("nf4 encode", nf4_quantize, MOVES(2.516 * (double)n), &q);
    MEASURE("nf4 decode", nf4_dequantize, MOVES(2.516 * (double)n), &q);
    struct pair p = {.gemm = {.tb = true, .alpha = 1}, .decode = q};
    p.gemm.a = made(DT_BF16, m->tokens, m->width);
    p.gemm.b = made(DT_BF16, m->ffn, m->width);
    p.gemm.c = made(DT_BF16, m->tokens, m->ffn);
    double flops = 2.0 * (double)m->tokens * (double)n;
    report("gemm gate", COMPUTES(flops), timed(call_gemm, &p.gemm));
    report("gemm gate, nf4 decode beside it", COMPUTES(flops), timed(call_pair, &p));
    drop_all();
}

static const struct group {
    const char *name;
    void (*run)(void);
} GROUPS[] = {{"gemm", gemm}, {"attn", attn}, {"slices", slices}, {"elem", elem},
              {"head", head}, {"step", step}, {"host", host},     {"nf4", nf4}};

static status open_device(const char *name, const struct backend **be)
{
    TRY(backend_load(name, &(struct backend_place){0, 1}, be));
    TRY((*be)->dev.stream_open(&s, 1));
    TRY((*be)->dev.stream_open(&beside, 1));
    TRY((*be)->dev.event_open(&done));
    return prepare(false);
}

static void close_device(void)
{
    if (s->workspace) s->be->dev.free(MEM_DEVICE, s->workspace, s->workspace_bytes);
    s->be->dev.event_close(done);
    s->be->dev.stream_close(beside);
    s->be->dev.stream_close(s);
}

int main(int argc, char **argv)
{
    const char *shape = argc > 2 ? argv[2] : "8b", *only = argc > 3 ? argv[3] : NULL;
    const struct backend *be;
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        if (!strcmp(SHAPES[i].name, shape)) m = &SHAPES[i];
    if (!m) {
        fprintf(stderr, "bench_gpu: no shape '%s': 8b, 1b, 0.5b, tiny\n", shape);
        return ST_USAGE;
    }
    if (open_device(argc > 1 ? argv[1] : "cuda", &be)) die();
    published = gpu_known(be->describe());
    limits(be->describe());
    for (size_t i = 0; i < sizeof GROUPS / sizeof *GROUPS; i++)
        if (!only || !strcmp(only, GROUPS[i].name)) GROUPS[i].run();
    close_device();
    return 0;
}
