/* bench_optim [threads [elements]] — the optimizer's step with 8-bit states beside the one with f32 states, in one run: nanoseconds per
 * element, bytes moved per second, and the ratio of the two. bench_optim.sh puts bitsandbytes on the same cores beside it. */
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

static double best(const struct update_args *u)
{
    double least = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double from = clock_s();
        if (op_update(s, u)) exit(ST_FAIL);
        double took = clock_s() - from;
        if (!i || took < least) least = took;
    }
    return least;
}

static double one(dtype dt, bool eight)
{
    struct seg seg = {.at = 0, .count = n, .lr_mult = 1, .wd_mult = 1, .eight = eight};
    struct update_args u = {.kind = OPTIM_ADAMW,
                            .w = made(dt, n, 0.02f),
                            .g = made(DT_F32, n, 1e-3f),
                            .scalars = tensor_1d(&scalars, DT_F64, STEP_SCALARS),
                            .segs = {&seg, &seg, 1},
                            .wd = 0.01f,
                            .beta1 = 0.9f,
                            .beta2 = 0.999f,
                            .eps = 1e-8f,
                            .sr = true};
    tensor *states[] = {&u.m, &u.v, &u.m8, &u.v8, &u.m_absmax, &u.v_absmax};
    for (int k = eight ? 2 : 0; k < (eight ? 6 : 2); k++)
        *states[k] = made(!eight || k > 3 ? DT_F32 : DT_U8, k > 3 ? n / STATE_BLOCK : n, 0);
    double seconds = best(&u), bytes = 2.0 * (double)dtype_bytes(dt) + 4 + (eight ? 4 + 16.0 / STATE_BLOCK : 16);
    printf("adamw %-4s weights, %-5s states  %7.3f ns/element  %6.1f GB/s\n", dtype_name(dt), eight ? "8-bit" : "f32",
           seconds / (double)n * 1e9, bytes * (double)n / seconds / 1e9);
    dropped(u.w), dropped(u.g);
    for (int k = 0; k < 6; k++) dropped(*states[k]);
    return seconds;
}

int main(int argc, char **argv)
{
    if (argc > 2) n = atoll(argv[2]) / STATE_BLOCK * STATE_BLOCK;
    if (backend_cpu.dev.stream_open(&s, argc > 1 ? atoi(argv[1]) : 1)) return 1;
    printf("%s, %d threads, %lld elements\n", backend_cpu.describe(), s->threads, (long long)n);
    for (int i = 0; i < 2; i++) {
        double wide = one(i ? DT_BF16 : DT_F32, false), eight = one(i ? DT_BF16 : DT_F32, true);
        printf("ratio %s: 8-bit / f32 states = %.2f\n", i ? "bf16" : "f32", eight / wide);
    }
    backend_cpu.dev.stream_close(s);
    return 0;
}
