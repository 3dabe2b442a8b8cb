/* The fixed tree against MPI_Allreduce: one vector of floats, alternating in the same run, so that a noisy machine hurts
 * both alike. Prints the median of each, their ratio, and bus bandwidth = bytes / s · 2(P−1)/P.
 *
 *   mpirun -n P bench_reduce [MEGABYTES] [ROUNDS] [shared|messages]
 *
 * MPI's own entry points are looked up at run time: nothing here links MPI, as in the program itself. */
#include <dlfcn.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "collectives/tree.h"
#include "kernels/backend.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

static const char *environment(const char *name) { return getenv(name); }

static status no_share(struct comm *c, size_t bytes, void **peers)
{
    (void)c, (void)bytes, (void)peers;
    FAIL(ST_NOT_BUILT, "not wanted");
}

/* Open MPI's handles are addresses of these objects (its mpi.h, OMPI_PREDEFINED_GLOBAL). */
struct mpi {
    int (*allreduce)(const void *, void *, int, void *, void *, void *);
    void *in_place, *real, *sum, *world;
};

static status find_mpi(struct mpi *m)
{
    void *f = dlsym(RTLD_DEFAULT, "MPI_Allreduce");
    *m = (struct mpi){.in_place = (void *)1,
                      .real = dlsym(RTLD_DEFAULT, "ompi_mpi_float"),
                      .sum = dlsym(RTLD_DEFAULT, "ompi_mpi_op_sum"),
                      .world = dlsym(RTLD_DEFAULT, "ompi_mpi_comm_world")};
    if (!f || !m->real || !m->sum || !m->world) FAIL(ST_NOT_BUILT, "no Open MPI in this process; start with mpirun");
    memcpy(&m->allreduce, &f, sizeof f);
    return ST_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

static status measure(struct comm *c, int64_t count, int rounds)
{
    struct mpi mpi;
    TRY(find_mpi(&mpi));
    struct arena tensors, pinned;
    struct tree_reduce t;
    struct stream *s;
    TRY(backend_cpu.dev.stream_open(&s, 1));
    mallopt(M_MMAP_THRESHOLD, 128 << 10); /* undoes what a stream sets for the whole process: MPI as it is without us */
    mallopt(M_TRIM_THRESHOLD, 128 << 10);
    mallopt(M_TOP_PAD, 128 << 10);
    arena_init(&tensors, "reduction");
    arena_init(&pinned, "staging");
    tree_reduce_init(&t, c, &backend_cpu, c->size, count, DT_F32);
    tree_reduce_layout(&t, &tensors, &pinned);
    void *memory = mem_alloc(arena_need(&tensors) + ARENA_ALIGN);
    arena_bind(&tensors, memory);
    tree_reduce_layout(&t, &tensors, &pinned);
    size_t bytes = (size_t)count * sizeof(float);
    void *x_memory, *y_memory; /* as tensors have it: in huge pages */
    TRY(backend_cpu.dev.alloc(MEM_HOST, bytes, &x_memory));
    TRY(backend_cpu.dev.alloc(MEM_HOST, bytes, &y_memory));
    float *x = x_memory, *y = y_memory;
    double *tree_s = mem_alloc((size_t)rounds * sizeof *tree_s), *mpi_s = mem_alloc((size_t)rounds * sizeof *mpi_s);
    for (int64_t i = 0; i < count; i++) x[i] = y[i] = (float)(i % 1000) * 1e-9f;

    for (int round = -1; round < rounds; round++) { /* the first is warm-up */
        TRY(c->fn->barrier(c));
        double start = clock_s();
        TRY(tree_reduce(&t, s, &x_memory, 1, x, count));
        TRY(c->fn->barrier(c));
        double middle = clock_s();
        if (mpi.allreduce(mpi.in_place, y, (int)count, mpi.real, mpi.sum, mpi.world)) FAIL(ST_PEER, "MPI_Allreduce failed");
        TRY(c->fn->barrier(c));
        if (round < 0) continue;
        tree_s[round] = middle - start;
        mpi_s[round] = clock_s() - middle;
    }
    double bus = 2.0 * (c->size - 1) / c->size;
    double tree = median(tree_s, rounds), library = median(mpi_s, rounds);
    if (c->rank == 0)
        printf("ranks %d  %.0f MB  %-8s  tree %.4f s (%.2f GB/s)  MPI_Allreduce %.4f s (%.2f GB/s)  ratio %.3f\n", c->size,
               (double)bytes / 1e6, t.by.fn->name, tree, (double)bytes * bus / tree * 1e-9, library, (double)bytes * bus / library * 1e-9,
               tree / library);
    backend_cpu.dev.free(MEM_HOST, x, bytes);
    backend_cpu.dev.free(MEM_HOST, y, bytes);
    free(tree_s);
    free(mpi_s);
    free(memory);
    arena_release(&tensors);
    arena_release(&pinned);
    tree_reduce_release(&t);
    backend_cpu.dev.stream_close(s);
    return ST_OK;
}

int main(int argc, char **argv)
{
    char path[PATH_MAX] = "";
    struct launch l;
    struct comm c;
    int64_t megabytes = argc > 1 ? atoi(argv[1]) : 64;
    int rounds = argc > 2 ? atoi(argv[2]) : 9;
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n > 0) *strrchr(path, '/') = 0;
    status st = launch_detect(NULL, environment, &l);
    if (!st) st = comm_open(&l, path, &c);
    if (st) {
        log_error("%s", status_message());
        return st;
    }
    log_init(c.rank, c.size, LOG_INFO);
    struct comm_table messages = *c.fn;
    messages.share = no_share;
    if (argc > 3 && strcmp(argv[3], "messages") == 0) c.fn = &messages;
    return comm_end(&c, measure(&c, megabytes * 1000000 / 4, rounds > 0 ? rounds : 1));
}
