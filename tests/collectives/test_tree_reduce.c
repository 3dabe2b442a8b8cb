/* The reduction over P ranks, which are threads of this process: every P that divides V, through messages and through
 * shared memory, equal to the recursive definition bit for bit. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "collectives/comm_self.h"
#include "collectives/tree.h"
#include "kernels/backend.h"
#include "kernels/base/text.h"
#include "tests/collectives/reference.h"

enum { RANKS_MAX = 48, COUNT = 1500 };

/* A world of threads: ranks publish their pointers, meet, and copy from each other. */
struct world {
    pthread_barrier_t barrier;
    const char *send[RANKS_MAX];
    const size_t *send_offset[RANKS_MAX];
    char *segment;
    bool sharing;
};

struct job {
    struct world *world;
    int rank, size, leaves;
    int64_t count;
    bool staged;
    int parts; /* calls, one after the other, each for a vector of its own */
    float *out;
    status st;
    char message[200];
};

static void meet(struct comm *c) { pthread_barrier_wait(&((struct world *)c->impl)->barrier); }

static status threads_all_to_all(struct comm *c, const void *send, const size_t *send_bytes, const size_t *send_offset, void *recv,
                                 const size_t *recv_bytes, const size_t *recv_offset)
{
    struct world *w = c->impl;
    (void)send_bytes;
    w->send[c->rank] = send;
    w->send_offset[c->rank] = send_offset;
    meet(c);
    for (int r = 0; r < c->size; r++) memmove((char *)recv + recv_offset[r], w->send[r] + w->send_offset[r][c->rank], recv_bytes[r]);
    meet(c);
    return ST_OK;
}

static status threads_all_gather_in_place(struct comm *c, void *data, const size_t *bytes, const size_t *offset)
{
    struct world *w = c->impl;
    w->send[c->rank] = data;
    meet(c);
    for (int r = 0; r < c->size; r++)
        if (r != c->rank) memcpy((char *)data + offset[r], w->send[r] + offset[r], bytes[r]);
    meet(c);
    return ST_OK;
}

static status threads_share(struct comm *c, size_t bytes, void **peers)
{
    struct world *w = c->impl;
    if (!w->sharing) FAIL(ST_NOT_BUILT, "several hosts");
    if (c->rank == 0) w->segment = mem_alloc(bytes * (size_t)c->size);
    meet(c);
    for (int r = 0; r < c->size; r++) peers[r] = w->segment + bytes * (size_t)r;
    return ST_OK;
}

static const struct comm_table threads_table = {
    .name = "threads",
    .all_to_all = threads_all_to_all,
    .all_gather_in_place = threads_all_gather_in_place,
    .share = threads_share,
};

/* A stream that sees what its rank adds. Its backend is the CPU, or a device that differs from it by its word only: then all
 * goes through staging. */
struct spy {
    struct stream base;
    const float *node; /* its first */
    int64_t lo, hi;    /* of the vector: what op_tree_sum was given; −1: nothing, −2: not one range in ascending order */
};

static status spied_tree_sum(struct stream *s, const struct tree_sum_args *t)
{
    struct spy *spy = (struct spy *)s;
    int64_t lo = (const float *)t->mine[0].data - spy->node, hi = lo + t->out.dim[0];
    if (spy->lo == -1) spy->lo = spy->hi = lo;
    if (lo != spy->hi) spy->lo = -2;
    spy->hi = hi;
    return backend_cpu.ops.tree_sum(s, t);
}

static struct backend host, device;

/* Half of the ranks work with two threads each (not under the thread sanitizer, which cannot see OpenMP's barriers). */
#ifdef __SANITIZE_THREAD__
enum { THREADS = 1 };
#else
enum { THREADS = 2 };
#endif

/* The sum of a node of this rank's cover. */
static float *node_values(struct tree_node node, int64_t count)
{
    float *v = mem_alloc((size_t)count * sizeof *v);
    for (int64_t e = 0; e < count; e++) v[e] = tree_value(node.lo, node.hi, e);
    return v;
}

static void *run_rank(void *argument)
{
    struct job *j = argument;
    struct comm c = {
        .fn = &threads_table, .rank = j->rank, .size = j->size, .local_rank = j->rank, .local_size = j->size, .impl = j->world};
    struct tree_node cover[TREE_MAX_NODES];
    float *nodes[TREE_MAX_NODES];
    int each = j->leaves / j->size, n = tree_cover(j->leaves, each * j->rank, each * (j->rank + 1), cover);
    for (int i = 0; i < n; i++) nodes[i] = node_values(cover[i], j->count);

    struct arena tensors, pinned;
    struct tree_reduce t;
    void *memory[2];
    struct spy s = {.base = {.be = j->staged ? &device : &host, .threads = j->rank % 2 ? THREADS : 1}};
    arena_init(&tensors, "tensors");
    arena_init(&pinned, "pinned");
    tree_reduce_init(&t, &c, s.base.be, j->leaves, j->count, DT_F32);
    tree_reduce_layout(&t, &tensors, &pinned);
    for (int i = 0; i < 2; i++) {
        struct arena *a = i ? &pinned : &tensors;
        memory[i] = aligned_alloc(ARENA_ALIGN, arena_need(a) + ARENA_ALIGN);
        arena_bind(a, memory[i]);
    }
    tree_reduce_layout(&t, &tensors, &pinned);
    float *out = j->rank % 2 ? j->out : nodes[0]; /* both ways of calling */
    for (int i = 0; i < j->parts && !j->st; i++) {
        int64_t from = j->count * i / j->parts, count = j->count * (i + 1) / j->parts - from;
        struct range due = own(count, j->rank, j->size);
        void *at[TREE_MAX_NODES];
        for (int k = 0; k < n; k++) at[k] = nodes[k] + from;
        s.node = at[0];
        s.lo = s.hi = -1;
        j->st = tree_reduce(&t, &s.base, at, n, out + from, count);
        if (!j->st && j->size > 1 && (range_count(due) ? s.lo != due.lo || s.hi != due.hi : s.lo != -1))
            j->st = status_fail(ST_FAIL, "it adds [%lld, %lld) and owns [%lld, %lld)", (long long)s.lo, (long long)s.hi, (long long)due.lo,
                                (long long)due.hi);
    }
    if (j->st) snprintf(j->message, sizeof j->message, "%s", status_message());
    if (out != j->out) memcpy(j->out, out, (size_t)j->count * sizeof(float));

    for (int i = 0; i < n; i++) free(nodes[i]);
    for (int i = 0; i < 2; i++) free(memory[i]);
    arena_release(&tensors);
    arena_release(&pinned);
    tree_reduce_release(&t);
    return NULL;
}

struct way {
    bool sharing, staged;
    int parts;
};
static const struct way ways[] = {{true, false, 1}, {false, false, 1}, {true, true, 1}, {false, true, 3}, {true, false, 5}};
enum { N_WAYS = sizeof ways / sizeof *ways };

/* One reduction; compares every rank's result with `expected`. */
static void check(int leaves, int size, const struct way *way, int64_t count, const float *expected)
{
    struct world w = {.sharing = way->sharing};
    struct job jobs[RANKS_MAX];
    pthread_t threads[RANKS_MAX];
    pthread_barrier_init(&w.barrier, NULL, (unsigned)size);
    for (int r = 0; r < size; r++) {
        jobs[r] = (struct job){.world = &w,
                               .rank = r,
                               .size = size,
                               .leaves = leaves,
                               .count = count,
                               .staged = way->staged,
                               .parts = way->parts,
                               .out = mem_alloc((size_t)count * sizeof(float))};
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &jobs[r]), 0);
    }
    for (int r = 0; r < size; r++) {
        pthread_join(threads[r], NULL);
        if (jobs[r].st || memcmp(jobs[r].out, expected, (size_t)count * sizeof(float)) != 0)
            fail_msg("V=%d P=%d %lld elements, rank %d, %s%s, %d parts: %s", leaves, size, (long long)count, r,
                     way->sharing ? "shared" : "messages", way->staged ? ", staged" : "", way->parts,
                     jobs[r].st ? jobs[r].message : "another sum");
        free(jobs[r].out);
    }
    pthread_barrier_destroy(&w.barrier);
    free(w.segment);
}

static void check_all_ranks(int leaves, int64_t count)
{
    float *expected = node_values((struct tree_node){0, leaves}, count);
    for (int size = 1; size <= leaves && size <= RANKS_MAX; size++)
        if (leaves % size == 0)
            for (int i = 0; i < N_WAYS; i++) check(leaves, size, &ways[i], count, expected);
    free(expected);
}

static void test_every_rank_count(void **state)
{
    (void)state;
    static const int leaves[] = {1, 2, 3, 4, 6, 7, 8, 12, 16, 48};
    for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++) check_all_ranks(leaves[i], COUNT);
}

/* Shorter than the ranks' shares; not a multiple of anything; longer than a piece of either path. */
static void test_lengths(void **state)
{
    (void)state;
    static const int64_t counts[] = {1, 17, 511, 131071, 131073, 400001, 1048577};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) check_all_ranks(i < 3 ? 8 : 3, counts[i]);
}

static void test_wrong_calls(void **state)
{
    (void)state;
    struct comm c;
    struct tree_reduce t;
    struct stream s = {.be = &host, .threads = 1};
    float x = 1;
    void *nodes[2] = {&x, &x};
    comm_self_open(&c);
    tree_reduce_init(&t, &c, &host, 4, 1, DT_F32);
    assert_int_equal(tree_reduce(&t, &s, nodes, 2, &x, 1), ST_FAIL);
    assert_int_equal(tree_reduce(&t, &s, nodes, 1, &x, 2), ST_FAIL);
    assert_int_equal(tree_reduce(&t, &s, nodes, 1, &x, 1), ST_OK);
    tree_reduce_release(&t);
}

int main(void)
{
    struct stream *s;
    if (backend_cpu.dev.stream_open(&s, 1)) return 1; /* chooses the instruction set */
    host = device = backend_cpu;
    host.ops.tree_sum = device.ops.tree_sum = spied_tree_sum;
    device.tensors_in = MEM_DEVICE;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_rank_count), cmocka_unit_test(test_lengths),
                                       cmocka_unit_test(test_wrong_calls)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    backend_cpu.dev.stream_close(s);
    return failed;
}
