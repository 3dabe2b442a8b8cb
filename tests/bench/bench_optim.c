/* bench_optim [threads [elements]] — the optimizer's step with 8-bit states beside the one with f32 states: nanoseconds per element, bytes
 * moved per second, and the ratio of the two, whose rounds take turns, so that both meet the same machine. bench_optim.sh puts
 * bitsandbytes on the same cores beside it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/base/log.h"

enum { ROUNDS = 15 };

static struct stream *s;
static int64_t n = 32 << 20;
static struct step_scalars scalars = {.usable = 1, .gscale = 1, .lr = (double)1e-3f, .lw = (double)1e-5f, .rate = (double)1e-3f, .c2 = 1};

/* Small numbers of either sign, as gradients have; not all of one exponent. */
static tensor made(dtype dt, int64_t count, float scale)
{
    tensor t = tensor_1d(NULL, dt, count);
    if (backend_cpu.dev.alloc(MEM_HOST, (size_t)count * dtype_bytes(dt), &t.data)) exit(ST_OOM);
    memset(t.data, 0, (size_t)count * dtype_bytes(dt));
    if (dt != DT_U8 && scale != 0 && op_init(s, &(struct init_args){.w = t, .bound = scale, .normal = true, .key = (uint64_t)count}))
        exit(ST_FAIL);
    return t;
}

static void dropped(tensor t)
{
    if (t.data) backend_cpu.dev.free(MEM_HOST, t.data, (size_t)tensor_count(&t) * dtype_bytes(t.dt));
}

struct way {
    struct update_args u;
    struct seg seg;
    bool eight;
    double best;
};

static void open_way(struct way *y, dtype dt, bool eight)
{
    *y = (struct way){.eight = eight, .seg = {.at = 0, .count = n, .lr_mult = 1, .wd_mult = 1, .eight = eight}};
    y->u = (struct update_args){.kind = OPTIM_ADAMW,
                                .w = made(dt, n, 0.02f),
                                .g = made(DT_F32, n, 1e-3f),
                                .scalars = tensor_1d(&scalars, DT_F64, STEP_SCALARS),
                                .segs = {&y->seg, &y->seg, 1},
                                .wd = 0.01f,
                                .beta1 = 0.9f,
                                .beta2 = 0.999f,
                                .eps = 1e-8f,
                                .sr = true};
    if (!eight) {
        y->u.m = made(DT_F32, n, 0), y->u.v = made(DT_F32, n, 0);
        return;
    }
    y->u.m8 = made(DT_U8, n, 0), y->u.m_absmax = made(DT_F32, n / STATE_BLOCK, 0);
    y->u.v8 = made(DT_U8, n, 0), y->u.v_absmax = made(DT_F32, n / STATE_BLOCK, 0);
}

static void close_way(struct way *y)
{
    tensor all[] = {y->u.w, y->u.g, y->u.m, y->u.v, y->u.m8, y->u.v8, y->u.m_absmax, y->u.v_absmax};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) dropped(all[i]);
}

static void run(struct way *y)
{
    double from = clock_s();
    if (op_update(s, &y->u)) exit(ST_FAIL);
    double took = clock_s() - from;
    if (y->best == 0 || took < y->best) y->best = took;
}

static void compare(dtype dt)
{
    struct way wide, eight;
    open_way(&wide, dt, false), open_way(&eight, dt, true);
    for (int i = 0; i < ROUNDS; i++) run(&wide), run(&eight);
    for (int i = 0; i < 2; i++) {
        const struct way *y = i ? &eight : &wide;
        double bytes = 2.0 * (double)dtype_bytes(dt) + 4 + (y->eight ? 4 + 16.0 / STATE_BLOCK : 16);
        printf("adamw %-4s weights, %-5s states  %7.3f ns/element  %6.1f GB/s\n", dtype_name(dt), y->eight ? "8-bit" : "f32",
               y->best / (double)n * 1e9, bytes * (double)n / y->best / 1e9);
    }
    printf("ratio %s: 8-bit / f32 states = %.2f\n", dtype_name(dt), eight.best / wide.best);
    close_way(&wide), close_way(&eight);
}

int main(int argc, char **argv)
{
    if (argc > 2) n = atoll(argv[2]) / STATE_BLOCK * STATE_BLOCK;
    if (backend_cpu.dev.stream_open(&s, argc > 1 ? atoi(argv[1]) : 1)) return 1;
    printf("%s, %d threads, %lld elements\n", backend_cpu.describe(), s->threads, (long long)n);
    compare(DT_F32);
    compare(DT_BF16);
    backend_cpu.dev.stream_close(s);
    return 0;
}
