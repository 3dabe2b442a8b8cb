/* bench_attn — the CPU backend's attention and loss.
 *
 *      bench_attn [threads]        default 2
 *
 * For documents of several lengths in Qwen2.5-0.5B's (14 query heads, 2 kv heads of 64) and Llama's (32, 8 of 128; 32,
 * 32 of 128) shapes: time, and GFLOP/s counting the causal half only: 4·D per (query, key) pair forward, 10·D backward.
 * "limit" is one dnnl_sgemm of 512³ on as many threads, measured in between. The loss is given in bytes of logits per
 * second beside a memset of the same buffer. Best of alternating runs; processor time per core in brackets. */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/backend.h"
#include "kernels/base/log.h"

static int threads = 2;
static float *cube[3];

struct spent {
    double wall, cpu;
};

static struct spent clocks(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (struct spent){clock_s(), (double)t.tv_sec + 1e-9 * (double)t.tv_nsec};
}

static void keep_best(struct spent *best, struct spent from)
{
    struct spent now = clocks();
    if (now.wall - from.wall < best->wall) best->wall = now.wall - from.wall;
    if (now.cpu - from.cpu < best->cpu) best->cpu = now.cpu - from.cpu;
}

static void must(status st)
{
    if (!st) return;
    fprintf(stderr, "bench_attn: %s\n", status_message());
    exit(st);
}

static tensor matrix(int64_t rows, int64_t cols, dtype dt)
{
    tensor t = tensor_2d(NULL, dt, rows, cols);
    must(backend_cpu.dev.alloc(MEM_HOST, (size_t)(rows * cols) * dtype_bytes(dt), &t.data));
    for (int64_t i = 0; i < rows * cols; i++) {
        float x = (float)((i * 2654435761u >> 7) % 2001) * 1e-3f - 1.0f;
        if (dt == DT_BF16)
            ((bf16 *)t.data)[i] = bf16_round(x);
        else
            ((float *)t.data)[i] = x;
    }
    return t;
}

static void matrix_free(tensor *t) { backend_cpu.dev.free(MEM_HOST, t->data, (size_t)tensor_count(t) * dtype_bytes(t->dt)); }

static struct stream *stream_for(const struct work_bounds *w)
{
    struct stream *s;
    must(backend_cpu.dev.stream_open(&s, w->threads));
    must(backend_cpu.prepare(s, w));
    must(backend_cpu.dev.alloc(MEM_HOST, s->workspace_bytes, &s->workspace));
    return s;
}

static void stream_done(struct stream *s)
{
    backend_cpu.dev.free(MEM_HOST, s->workspace, s->workspace_bytes);
    backend_cpu.dev.stream_close(s);
}

static void limit(void) { dnnl_sgemm('N', 'T', 512, 512, 512, 1, cube[0], 512, cube[1], 512, 0, cube[2], 512); }

static void bench(int64_t length, int64_t n_docs, int64_t heads, int64_t kv_heads, int64_t d, dtype dt)
{
    int64_t n = length * n_docs;
    int32_t *start = malloc((size_t)(n_docs + 1) * sizeof *start);
    for (int64_t i = 0; i <= n_docs; i++) start[i] = (int32_t)(i * length);
    struct docs docs = {.n_docs = n_docs, .n_tokens = n, .longest = length, .positions = length, .start = {start, start}};
    struct attn_bwd_args b = {.fwd = {.heads = heads, .kv_heads = kv_heads, .head_dim = d, .scale = 0.1f, .docs = docs}};
    tensor *wide[] = {&b.fwd.q, &b.fwd.o, &b.d_o, &b.dq}, *narrow[] = {&b.fwd.k, &b.fwd.v, &b.dk, &b.dv};
    for (int i = 0; i < 4; i++) *wide[i] = matrix(n, heads * d, dt), *narrow[i] = matrix(n, kv_heads * d, dt);
    b.fwd.lse = matrix(n, heads, DT_F32);
    struct work_bounds w = {.dt = dt,
                            .tokens = n,
                            .doc_tokens = length,
                            .width = heads * d,
                            .heads = heads,
                            .kv_heads = kv_heads,
                            .head_dim = d,
                            .threads = threads};
    struct stream *s = stream_for(&w);
    struct spent fwd = {1e30, 1e30}, bwd = fwd, best = fwd;
    double from = clock_s();
    for (int i = 0; i < 3 || (clock_s() - from < 0.7 && i < 50); i++) {
        struct spent t = clocks();
        must(backend_cpu.ops.attn_fwd(s, &b.fwd));
        keep_best(&fwd, t);
        t = clocks();
        must(backend_cpu.ops.attn_bwd(s, &b));
        keep_best(&bwd, t);
        t = clocks();
        limit();
        keep_best(&best, t);
    }
    double pairs = (double)(n_docs * heads) * (double)length * (double)(length + 1) / 2.0 * 1e-9;
    double gflops = 2e-9 * 512 * 512 * 512;
    printf("%5ld x %3ld tokens, %2ld/%2ld heads of %3ld %-4s fwd %7.2f ms %6.1f GFLOP/s [%6.1f]  bwd %8.2f ms %6.1f "
           "[%6.1f]"
           "  limit %6.1f [%6.1f]\n",
           (long)length, (long)n_docs, (long)heads, (long)kv_heads, (long)d, dtype_name(dt), fwd.wall * 1e3,
           pairs * 4.0 * (double)d / fwd.wall, pairs * 4.0 * (double)d / fwd.cpu, bwd.wall * 1e3, pairs * 10.0 * (double)d / bwd.wall,
           pairs * 10.0 * (double)d / bwd.cpu, gflops / best.wall, gflops / best.cpu);
    fflush(stdout);
    stream_done(s);
    for (int i = 0; i < 4; i++) matrix_free(wide[i]), matrix_free(narrow[i]);
    matrix_free(&b.fwd.lse);
    free(start);
}

static void bench_loss(int64_t rows, int64_t vocab, dtype dt)
{
    struct work_bounds w = {.heads = 1, .kv_heads = 1, .head_dim = 1, .threads = threads};
    struct stream *s = stream_for(&w);
    tensor z = matrix(rows, vocab, dt), loss = matrix(1, rows, DT_F32);
    int32_t *labels = calloc((size_t)rows, sizeof *labels);
    struct loss_args l = {.z = z, .labels = labels, .loss = loss};
    struct spent both = {1e30, 1e30}, clear = both;
    for (int i = 0; i < 4; i++) {
        struct spent t = clocks();
        must(backend_cpu.ops.loss(s, &l));
        keep_best(&both, t);
        t = clocks();
        must(backend_cpu.dev.zero(s, z.data, (size_t)(rows * vocab) * dtype_bytes(dt)));
        keep_best(&clear, t);
    }
    double gb = 1e-9 * (double)(rows * vocab) * (double)dtype_bytes(dt);
    printf("loss %ld x %ld %s: %.2f ms, %.2f GB/s of logits [%.2f per core]; memset %.2f GB/s [%.2f]\n", (long)rows, (long)vocab,
           dtype_name(dt), both.wall * 1e3, gb / both.wall, gb / both.cpu, gb / clear.wall, gb / clear.cpu);
    matrix_free(&z);
    matrix_free(&loss);
    free(labels);
    stream_done(s);
}

int main(int argc, char **argv)
{
    if (argc > 1) threads = atoi(argv[1]);
    omp_set_num_threads(threads);
    printf("%s, %d threads\n", backend_cpu.describe(), threads);
    for (int i = 0; i < 3; i++) cube[i] = matrix(512, 512, DT_F32).data;
    for (int dt = 0; dt < 2; dt++) {
        dtype type = dt ? DT_BF16 : DT_F32;
        bench(512, 1, 14, 2, 64, type);
        bench(2048, 1, 14, 2, 64, type);
        bench(128, 4, 14, 2, 64, type);
        bench(40, 13, 14, 2, 64, type);
        bench(512, 1, 32, 8, 128, type);
        bench(512, 1, 32, 32, 128, type);
        bench_loss(256, 151936, type);
    }
    return 0;
}
