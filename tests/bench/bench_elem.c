/* Elementwise ops at the sizes of a 0.5B model's step, as bytes moved per second, and as a share of what a plain copy
 * of as many bytes reaches on the same threads in the same minute. Usage: bench_elem [threads] [op] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

enum { N = 512, C = 896, F = 4864, HEADS = 14, D = 64, WEIGHTS = 8 << 20 };

static struct stream *s;
static dtype act;
static int32_t position[N], ids[N];
static int64_t sample[N];
static const struct rows_at rows = {position, sample};

static tensor made(dtype dt, int64_t lines, int64_t cols)
{
    size_t bytes = (size_t)(lines * cols) * dtype_bytes(dt);
    void *p = NULL;
    if (backend_cpu.dev.alloc(MEM_HOST, bytes, &p)) exit(ST_OOM);
    tensor t = tensor_2d(p, dt, lines, cols), flat = tensor_1d(p, dt, lines * cols);
    struct init_args i = {flat, 1, false, 1, 0};
    if (dt == DT_U8)
        memset(p, 0x5a, bytes);
    else if (op_init(s, &i))
        exit(ST_FAIL);
    return t;
}

static void dropped(tensor t) { backend_cpu.dev.free(MEM_HOST, t.data, (size_t)tensor_count(&t) * dtype_bytes(t.dt)); }
static tensor flat(tensor t) { return tensor_1d(t.data, t.dt, tensor_count(&t)); }
static double bytes_of(tensor t) { return (double)tensor_count(&t) * (double)dtype_bytes(t.dt); }

/* Best of `rounds` runs, in seconds. */
#define BEST(seconds, rounds, call)                                                                                                        \
    for (int round_ = 0; round_ < (rounds); round_++) {                                                                                    \
        double from_ = clock_s();                                                                                                          \
        if (call) exit(ST_FAIL);                                                                                                           \
        double took_ = clock_s() - from_;                                                                                                  \
        if (!round_ || took_ < seconds) seconds = took_;                                                                                   \
    }

/* bytes read and written per second by a copy that moves `bytes` in all */
static double copy_rate(double bytes)
{
    size_t half = (size_t)bytes / 2;
    void *a = NULL, *b = NULL;
    if (backend_cpu.dev.alloc(MEM_HOST, half, &a) || backend_cpu.dev.alloc(MEM_HOST, half, &b)) exit(ST_OOM);
    memset(a, 1, half);
    double seconds = 0;
    BEST(seconds, 7, s->be->dev.copy(s, b, a, half));
    backend_cpu.dev.free(MEM_HOST, a, half);
    backend_cpu.dev.free(MEM_HOST, b, half);
    return bytes / seconds;
}

#define REPORT(name, bytes, call)                                                                                                          \
    do {                                                                                                                                   \
        if (only && strcmp(only, name)) break;                                                                                             \
        double seconds_ = 0, limit_ = copy_rate(bytes);                                                                                    \
        BEST(seconds_, 9, call);                                                                                                           \
        printf("%-14s %-4s %8.3f ms %8.2f GB/s  %4.0f %% of a copy\n", name, dtype_name(act), seconds_ * 1e3, (bytes) / seconds_ / 1e9,    \
               100 * (bytes) / seconds_ / limit_);                                                                                         \
    } while (0)

static void blocks(const char *only)
{
    tensor x = made(act, N, C), y = made(act, N, C), z = made(act, N, C), w = made(DT_F32, 1, C), rstd = made(DT_F32, 1, N);
    tensor gate = made(act, N, F), up = made(act, N, F), h = made(act, N, F), cosines = made(DT_F32, N, D / 2);
    tensor dw = made(DT_F32, 1, C), table = made(act, 1000, C);
    double nc = bytes_of(x), nf = bytes_of(gate);
    struct rmsnorm_fwd_args norm = {x, y, z, flat(w), made(act, N, C), flat(rstd), 1e-6f, false};
    struct rmsnorm_bwd_args back = {.dy = y, .x = x, .w = flat(w), .rstd = flat(rstd), .residual = norm.y, .dx = z};
    struct rope_args rope = {.q = x, .cos = cosines, .sin = cosines, .heads = HEADS, .head_dim = D, .positions = N, .rows = rows};
    struct glu_fwd_args glu = {gate, up, h, ACT_SILU};
    struct glu_bwd_args dglu = {gate, up, h, gate, up, ACT_SILU};
    struct step_plan plan = {0};
    struct dropout_args drop = {x, y, tensor_1d(&plan, DT_F64, STEP_PLAN), 0.1f, 5, rows, false};
    struct axpy_args add = {x, y, 0.5f, true};
    struct colsum_args sum = {x, flat(dw)};
    struct embed_args embed = {table, ids, N, y};
    REPORT("rmsnorm_fwd", 4 * nc, op_rmsnorm_fwd(s, &norm));
    REPORT("rmsnorm_bwd", 4 * nc, op_rmsnorm_bwd(s, &back));
    back.dw = flat(dw);
    REPORT("rmsnorm_bwd+dw", 4 * nc, op_rmsnorm_bwd(s, &back));
    REPORT("rope", 2 * nc, op_rope(s, &rope));
    REPORT("glu_fwd", 3 * nf, op_glu_fwd(s, &glu));
    REPORT("glu_bwd", 5 * nf, op_glu_bwd(s, &dglu));
    REPORT("dropout", 2 * nc, op_dropout(s, &drop));
    REPORT("axpy", 3 * nc, op_axpy(s, &add));
    REPORT("colsum", nc, op_colsum(s, &sum));
    REPORT("embed_fwd", 2 * nc, op_embed_fwd(s, &embed));
    tensor all[] = {x, y, z, w, rstd, gate, up, h, cosines, dw, table, norm.y};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) dropped(all[i]);
}

static void weights(const char *only)
{
    tensor w = made(act, 1, WEIGHTS), g = made(act, 1, WEIGHTS), m = made(act, 1, WEIGHTS), v = made(act, 1, WEIGHTS);
    tensor codes = made(DT_U8, 1, WEIGHTS / 2), absmax = made(DT_U8, 1, WEIGHTS / 64), nested = made(DT_F32, 1, WEIGHTS / 16384);
    tensor one = made(DT_F32, 1, 1), partial = made(DT_F32, 1, WEIGHTS / FLAT_PAGE);
    double n = bytes_of(w);
    struct seg seg = {0, WEIGHTS, 0, 1, 1, 0};
    struct segs segs = {&seg, &seg, 1};
    struct step_scalars scalars = {.usable = 1, .gscale = 1, .lr = (double)1e-3f, .lw = (double)1e-5f, .rate = (double)1e-3f, .c2 = 1};
    struct update_args u = {.kind = OPTIM_ADAMW,
                            .w = flat(w),
                            .g = flat(g),
                            .m = flat(m),
                            .v = flat(v),
                            .scalars = tensor_1d(&scalars, DT_F64, STEP_SCALARS),
                            .segs = segs,
                            .wd = 0.01f,
                            .beta1 = 0.9f,
                            .beta2 = 0.999f,
                            .eps = 1e-8f,
                            .sr = true};
    struct sumsq_segs_args q = {flat(g), flat(partial), segs, 0};
    struct nf4_args nf4 = {flat(w), flat(codes), flat(absmax), flat(nested), flat(one)};
    struct init_args init = {flat(w), 1, true, 1, 0};
    REPORT("adamw", 7 * n, op_update(s, &u));
    REPORT("sumsq", n, op_sumsq_segs(s, &q));
    REPORT("nf4_quantize", 2 * n, op_nf4_quantize(s, &nf4));
    REPORT("nf4_dequantize", n + WEIGHTS / 2.0, op_nf4_dequantize(s, &nf4));
    REPORT("init normal", n, op_init(s, &init));
    init.normal = false;
    REPORT("init uniform", n, op_init(s, &init));
    tensor all[] = {w, g, m, v, codes, absmax, nested, one, partial};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) dropped(all[i]);
}

int main(int argc, char **argv)
{
    const char *only = argc > 2 ? argv[2] : NULL;
    if (backend_cpu.dev.stream_open(&s, argc > 1 ? atoi(argv[1]) : 1)) return 1;
    for (int i = 0; i < N; i++) ids[i] = (i * 37) % 1000;
    printf("%s, %d threads\n", backend_cpu.describe(), s->threads);
    for (int i = 0; i < 2; i++) {
        act = i ? DT_BF16 : DT_F32;
        blocks(only);
        weights(only);
    }
    backend_cpu.dev.stream_close(s);
    return 0;
}
