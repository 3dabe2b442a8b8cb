/* The reduction over P ranks, which are threads of this process: every P that divides V, through messages and through
 * shared memory, equal to the recursive definition bit for bit. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
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
    float *out;
    status st;
};

static void meet(struct comm *c) { pthread_barrier_wait(&((struct world *)c->impl)->barrier); }

static status threads_all_to_all(struct comm *c, const void *send, const size_t *send_bytes, const size_t *send_offset,
                                 void *recv, const size_t *recv_bytes, const size_t *recv_offset)
{
    struct world *w = c->impl;
    (void)send_bytes;
    w->send[c->rank] = send;
    w->send_offset[c->rank] = send_offset;
    meet(c);
    for (int r = 0; r < c->size; r++)
        memmove((char *)recv + recv_offset[r], w->send[r] + w->send_offset[r][c->rank], recv_bytes[r]);
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

static status no_sync(struct stream *s, const char *label)
{
    (void)s, (void)label;
    return ST_OK;
}

/* Half of the ranks work with two threads each (not under the thread sanitizer, which cannot see OpenMP's barriers). */
static const struct backend host = {.name = "host", .dev.sync = no_sync};
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
    struct comm c = {.fn = &threads_table, .rank = j->rank, .size = j->size, .local_rank = j->rank,
                     .local_size = j->size, .impl = j->world};
    struct tree_node cover[TREE_MAX_NODES];
    float *nodes[TREE_MAX_NODES];
    int each = j->leaves / j->size, n = tree_cover(j->leaves, each * j->rank, each * (j->rank + 1), cover);
    for (int i = 0; i < n; i++) nodes[i] = node_values(cover[i], j->count);

    struct arena a;
    struct tree_reduce t;
    arena_init(&a, "reduction");
    tree_reduce_init(&t, &c, j->leaves, j->count, &a);
    size_t bytes = arena_need(&a);
    void *memory = aligned_alloc(ARENA_ALIGN, bytes ? bytes : ARENA_ALIGN);
    arena_bind(&a, memory);
    tree_reduce_init(&t, &c, j->leaves, j->count, &a);
    struct stream two = {.be = &host, .threads = THREADS};
    bool odd = j->rank % 2; /* both ways of calling */
    j->st = tree_reduce(&t, odd ? &two : NULL, nodes, n, odd ? j->out : nodes[0], j->count);
    if (j->rank % 2 == 0) memcpy(j->out, nodes[0], (size_t)j->count * sizeof(float));

    for (int i = 0; i < n; i++) free(nodes[i]);
    free(memory);
    arena_release(&a);
    return NULL;
}

/* One reduction; compares every rank's result with `expected`. */
static void check(int leaves, int size, bool sharing, int64_t count, const float *expected)
{
    struct world w = {.sharing = sharing};
    struct job jobs[RANKS_MAX];
    pthread_t threads[RANKS_MAX];
    pthread_barrier_init(&w.barrier, NULL, (unsigned)size);
    for (int r = 0; r < size; r++) {
        jobs[r] = (struct job){.world = &w, .rank = r, .size = size, .leaves = leaves, .count = count,
                               .out = mem_alloc((size_t)count * sizeof(float))};
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &jobs[r]), 0);
    }
    for (int r = 0; r < size; r++) {
        pthread_join(threads[r], NULL);
        if (jobs[r].st || memcmp(jobs[r].out, expected, (size_t)count * sizeof(float)) != 0)
            fail_msg("V=%d P=%d rank %d %s: %s", leaves, size, r, sharing ? "shared" : "messages", status_message());
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
            for (int sharing = 0; sharing < 2; sharing++) check(leaves, size, sharing, count, expected);
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

/* Several calls over one segment, with nothing between them. */
static void test_wrong_cover(void **state)
{
    (void)state;
    struct comm c;
    struct tree_reduce t;
    float x = 1, *nodes[2] = {&x, &x};
    comm_self_open(&c);
    tree_reduce_init(&t, &c, 4, 1, NULL);
    assert_int_equal(tree_reduce(&t, NULL, nodes, 2, &x, 1), ST_FAIL);
    assert_int_equal(tree_reduce(&t, NULL, nodes, 1, &x, 1), ST_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_rank_count), cmocka_unit_test(test_lengths),
                                       cmocka_unit_test(test_wrong_cover)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
