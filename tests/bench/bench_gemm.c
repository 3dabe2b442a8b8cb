/* bench_gemm — the CPU backend's matrix products against plain dnnl_sgemm calls with oneDNN's own threading.
 *
 *      bench_gemm [f32|bf16] [threads] [rows] [layers] [step]        default: f32 2 512 24; step: only the last part
 *
 * First each shape of a Qwen2.5-0.5B LoRA step alone: GFLOP/s and share of the one big dnnl_sgemm (f32) of the same
 * product, both the best of alternating runs. Then all products of one step in order, with weights of their own for
 * every layer: the total against the same products through dnnl_sgemm. Rates are 2·M·N·K / time.
 * Times are wall clock and, beside it, processor time of all threads: on a machine that others use at the same moment
 * only the second compares (the team's threads sleep while they wait; for dnnl_sgemm's set OMP_WAIT_POLICY=passive). */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/backend.h"
#include "kernels/base/log.h"

enum { WIDTH = 896, KV = 128, FFN = 4864, VOCAB = 151936, LAYERS = 24, RANK = 16, LINEARS = 7 };

static struct stream *stream;
static dtype dt = DT_F32;
static int threads = 2;
static int64_t rows = 512;
static int layers = LAYERS;

struct spent {
    double wall, cpu;
};

static struct spent clocks(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (struct spent){clock_s(), (double)t.tv_sec + 1e-9 * (double)t.tv_nsec};
}

static void add_since(struct spent *sum, struct spent from)
{
    struct spent now = clocks();
    sum->wall += now.wall - from.wall;
    sum->cpu += now.cpu - from.cpu;
}

static void keep_best(struct spent *best, struct spent a)
{
    if (a.wall < best->wall) best->wall = a.wall;
    if (a.cpu < best->cpu) best->cpu = a.cpu;
}

static void *memory(int64_t count, dtype type)
{
    void *p;
    size_t bytes = (size_t)count * dtype_bytes(type);
    if (backend_cpu.dev.alloc(MEM_HOST, bytes, &p)) {
        fprintf(stderr, "bench_gemm: %s\n", status_message());
        exit(ST_OOM);
    }
    for (int64_t i = 0; i < count; i++) {
        float x = (float)((i * 2654435761u >> 7) % 2001) * 1e-3f - 1.0f;
        if (type == DT_BF16)
            ((bf16 *)p)[i] = bf16_round(x);
        else
            ((float *)p)[i] = x;
    }
    return p;
}

static tensor matrix(int64_t r, int64_t c, dtype type) { return tensor_2d(memory(r * c, type), type, r, c); }

static double flop(const struct gemm_args *g)
{
    double k = (double)g->a.dim[g->ta ? 0 : 1] + (g->a2.data ? (double)g->a2.dim[1] : 0.0);
    return 2.0 * (double)g->c.dim[0] * (double)g->c.dim[1] * k;
}

typedef void run_fn(const struct gemm_args *g);

static void ours(const struct gemm_args *g)
{
    if (backend_cpu.ops.gemm(stream, g)) {
        fprintf(stderr, "bench_gemm: %s\n", status_message());
        exit(ST_FAIL);
    }
}

/* The same on f32 buffers of the same sizes (in bf16 mode their contents do not matter). */
static void plain(const struct gemm_args *g)
{
    int64_t k = g->a.dim[g->ta ? 0 : 1];
    dnnl_sgemm(g->ta ? 'T' : 'N', g->tb ? 'T' : 'N', g->c.dim[0], g->c.dim[1], k, g->alpha, g->a.data, g->a.ld, g->b.data, g->b.ld, g->beta,
               g->c.data, g->c.ld);
    if (g->a2.data)
        dnnl_sgemm('N', g->tb ? 'T' : 'N', g->c.dim[0], g->c.dim[1], g->a2.dim[1], 1.0f, g->a2.data, g->a2.ld, g->b2.data, g->b2.ld, 1.0f,
                   g->c.data, g->c.ld);
}

struct shape {
    const char *name;
    int64_t m, n, k;
    bool ta, tb;
};

static void bench_shape(const struct shape *q)
{
    struct gemm_args g = {.alpha = 1.0f, .ta = q->ta, .tb = q->tb}, f;
    dtype out = q->ta ? DT_F32 : dt;
    g.a = matrix(q->ta ? q->k : q->m, q->ta ? q->m : q->k, dt);
    g.b = matrix(q->tb ? q->n : q->k, q->tb ? q->k : q->n, dt);
    g.c = matrix(q->m, q->n, out);
    f = g;
    if (dt != DT_F32) {
        f.a = matrix(g.a.dim[0], g.a.dim[1], DT_F32);
        f.b = matrix(g.b.dim[0], g.b.dim[1], DT_F32);
        f.c = matrix(q->m, q->n, DT_F32);
    }
    struct spent mine = {1e30, 1e30}, big = mine, total = {0};
    double work = flop(&g) * 1e-9;
    for (int i = 0; i < 3 || (total.wall < 0.5 && i < 40); i++) {
        struct spent a = {0}, b = {0}, from = clocks();
        ours(&g);
        add_since(&a, from);
        add_since(&total, from);
        from = clocks();
        plain(&f);
        add_since(&b, from);
        keep_best(&mine, a);
        keep_best(&big, b);
    }
    printf("%-17s %6ld x%6ld x%6ld %s%s %7.1f GFLOP/s %6.1f %% of dnnl_sgemm; per core %6.1f, %6.1f %%\n", q->name, (long)q->m, (long)q->n,
           (long)q->k, q->ta ? "T" : "N", q->tb ? "T" : "N", work / mine.wall, big.wall / mine.wall * 100.0, work / mine.cpu,
           big.cpu / mine.cpu * 100.0);
    fflush(stdout);
    tensor *all[] = {&g.a, &g.b, &g.c, &f.a, &f.b, &f.c};
    for (int i = 0; i < (dt == DT_F32 ? 3 : 6); i++)
        backend_cpu.dev.free(MEM_HOST, all[i]->data, (size_t)tensor_count(all[i]) * dtype_bytes(all[i]->dt));
}

/* ---- a whole step ------------------------------------------------------------------------------------------- */

static const struct {
    int64_t in, out;
} linears[LINEARS] = {{WIDTH, WIDTH}, {WIDTH, KV}, {WIDTH, KV}, {WIDTH, WIDTH}, {WIDTH, FFN}, {WIDTH, FFN}, {FFN, WIDTH}};

struct linear {
    tensor w, a, b, da, db;
};

struct step {
    struct linear linear[LAYERS][LINEARS];
    tensor head, x[2], y[2], low, logits; /* x, y: one per width, narrow and wide */
    double work;
};

static tensor view(tensor t, int64_t r, int64_t c)
{
    t.dim[0] = r;
    t.dim[1] = t.ld = c;
    return t;
}

static void linear_products(struct step *s, const struct linear *l, run_fn *run)
{
    int64_t in = l->w.dim[1], out = l->w.dim[0];
    tensor x = view(s->x[in == FFN], rows, in), y = view(s->y[out == FFN], rows, out), low = view(s->low, rows, RANK);
    const struct gemm_args calls[] = {
        {.a = x, .b = l->a, .c = low, .tb = true, .alpha = 2.0f},                      /* h = x·Aᵀ */
        {.a = x, .b = l->w, .a2 = low, .b2 = l->b, .c = y, .tb = true, .alpha = 1.0f}, /* y = x·Wᵀ + h·Bᵀ */
        {.a = y, .b = l->b, .c = low, .alpha = 2.0f},                                  /* dh = dy·B */
        {.a = y, .b = l->w, .a2 = low, .b2 = l->a, .c = x, .alpha = 1.0f},             /* dx = dy·W + dh·A */
        {.a = low, .b = x, .c = l->da, .ta = true, .alpha = 1.0f, .beta = 1.0f},       /* dA += dhᵀ·x */
        {.a = y, .b = low, .c = l->db, .ta = true, .alpha = 1.0f, .beta = 1.0f},       /* dB += dyᵀ·h */
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        run(&calls[i]);
        s->work += flop(&calls[i]);
    }
}

static struct spent step_products(struct step *s, run_fn *run)
{
    struct spent spent = {0}, from = clocks();
    s->work = 0.0;
    for (int layer = 0; layer < layers; layer++)
        for (int i = 0; i < LINEARS; i++) linear_products(s, &s->linear[layer][i], run);
    for (int64_t at = 0; at < rows; at += 256) {
        int64_t n = rows - at < 256 ? rows - at : 256;
        tensor x = view(s->x[0], n, WIDTH), z = view(s->logits, n, VOCAB);
        struct gemm_args forward = {.a = x, .b = s->head, .c = z, .tb = true, .alpha = 1.0f};
        struct gemm_args back = {.a = z, .b = s->head, .c = x, .alpha = 1.0f};
        run(&forward);
        run(&back);
        s->work += flop(&forward) + flop(&back);
    }
    add_since(&spent, from);
    return spent;
}

static void bench_step(void)
{
    struct step *s = calloc(1, sizeof *s);
    for (int layer = 0; layer < layers; layer++)
        for (int i = 0; i < LINEARS; i++) {
            int64_t in = linears[i].in, out = linears[i].out;
            s->linear[layer][i] = (struct linear){matrix(out, in, dt), matrix(RANK, in, dt), matrix(out, RANK, dt),
                                                  matrix(RANK, in, DT_F32), matrix(out, RANK, DT_F32)};
        }
    s->head = matrix(VOCAB, WIDTH, dt);
    for (int i = 0; i < 2; i++) {
        s->x[i] = matrix(rows, i ? FFN : WIDTH, dt);
        s->y[i] = matrix(rows, i ? FFN : WIDTH, dt);
    }
    s->low = matrix(rows, RANK, dt);
    s->logits = matrix(256, VOCAB, dt);
    struct spent mine = {1e30, 1e30}, big = mine;
    for (int i = 0; i < 3; i++) {
        keep_best(&mine, step_products(s, ours));
        if (dt == DT_F32) keep_best(&big, step_products(s, plain));
    }
    double work = s->work * 1e-9;
    printf("step of %ld rows: %.1f GFLOP, %.3f s, %.1f GFLOP/s, %.0f tokens/s; %.1f per core\n", (long)rows, work, mine.wall,
           work / mine.wall, (double)rows / mine.wall, work / mine.cpu);
    if (dt == DT_F32)
        printf("by dnnl_sgemm: %.3f s, %.1f per core; ours goes at %.1f %% of that speed, per core %.1f %%\n", big.wall, work / big.cpu,
               big.wall / mine.wall * 100.0, big.cpu / mine.cpu * 100.0);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "bf16")) dt = DT_BF16;
    if (argc > 2) threads = atoi(argv[2]);
    if (argc > 3) rows = atoi(argv[3]);
    if (argc > 4) layers = atoi(argv[4]) < LAYERS ? atoi(argv[4]) : LAYERS;
    struct work_bounds w = {.dt = dt,
                            .tokens = rows,
                            .doc_tokens = rows,
                            .width = WIDTH,
                            .ffn = FFN,
                            .heads = 14,
                            .kv_heads = 2,
                            .head_dim = 64,
                            .vocab = VOCAB,
                            .rank = RANK,
                            .head_rows = 512,
                            .threads = threads};
    if (backend_cpu.dev.stream_open(&stream, threads)) {
        fprintf(stderr, "bench_gemm: %s\n", status_message());
        return ST_FAIL;
    }
    omp_set_num_threads(threads);
    if (backend_cpu.prepare(stream, &w)) return 1;
    stream->workspace = memory((int64_t)stream->workspace_bytes / 4, DT_F32);
    printf("%s, %d threads, %s\n", backend_cpu.describe(), threads, dtype_name(dt));
    const struct shape shapes[] = {
        {"q, o forward", rows, WIDTH, WIDTH, 0, 1}, {"k, v forward", rows, KV, WIDTH, 0, 1},   {"gate, up forward", rows, FFN, WIDTH, 0, 1},
        {"down forward", rows, WIDTH, FFN, 0, 1},   {"head forward", 256, VOCAB, WIDTH, 0, 1}, {"q, o dx", rows, WIDTH, WIDTH, 0, 0},
        {"k, v dx", rows, WIDTH, KV, 0, 0},         {"gate, up dx", rows, WIDTH, FFN, 0, 0},   {"down dx", rows, FFN, WIDTH, 0, 0},
        {"head dx", 256, WIDTH, VOCAB, 0, 0},       {"x·A", rows, RANK, WIDTH, 0, 1},          {"x·A of down", rows, RANK, FFN, 0, 1},
        {"dy·B", rows, RANK, WIDTH, 0, 0},          {"dy·B of gate", rows, RANK, FFN, 0, 0},   {"dA", RANK, WIDTH, rows, 1, 0},
        {"dA of down", RANK, FFN, rows, 1, 0},      {"dB", WIDTH, RANK, rows, 1, 0},           {"dB of gate", FFN, RANK, rows, 1, 0},
        {"dW of q", WIDTH, WIDTH, rows, 1, 0},      {"dW of gate", FFN, WIDTH, rows, 1, 0},    {"dW of head", VOCAB, WIDTH, 256, 1, 0},
    };
    bool only_step = argc > 5 && !strcmp(argv[5], "step");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes && !only_step; i++) bench_shape(&shapes[i]);
    bench_step();
    return 0;
}
