/* What comm promises, on whatever this process was started as: bare in ctest, under mpirun by reduce.sh and comm.sh.
 *
 *   test_comm                       every call against its definition, and "hash V=… 0123456789abcdef WAY" of reductions
 *   test_comm agree RANK CODE       rank RANK fails with CODE where all agree
 *   test_comm alone RANK CODE       rank RANK fails while the others wait in a collective
 *   test_comm same CODE             all ranks fail in the same words
 *   test_comm stop                  all ranks stop on request, without a vote
 *   test_comm exit RANK CODE        rank RANK calls exit() where it should not
 *   test_comm steps N SECONDS       N steps of a pretended run, with that peer_timeout
 *   test_comm killed RANK           rank RANK dies by SIGKILL while the others, deaf to TERM, wait in a reduction
 *   test_comm differ                the ranks hold different configurations
 *   test_comm where                 each rank says which it is, of the world and of its host; then as without */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "collectives/tree.h"
#include "collectives/watch.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "tests/collectives/reference.h"

#define CHECK(condition)                                                                      \
    do {                                                                                      \
        if (!(condition)) FAIL(ST_FAIL, "%s:%d: %s is false", __FILE__, __LINE__, #condition); \
    } while (0)

static status check_small(struct comm *c)
{
    int64_t P = c->size, me = c->rank;
    int64_t all[64] = {0}, v[4] = {me, -me, 1, INT64_C(1) << me};
    CHECK(P <= 32);
    for (int op = COMM_MIN; op <= COMM_OR; op++) {
        int64_t w[4];
        const int64_t expected[][4] = {[COMM_MIN] = {0, 1 - P, 1, 1},
                                       [COMM_MAX] = {P - 1, 0, 1, INT64_C(1) << (P - 1)},
                                       [COMM_SUM_I64] = {P * (P - 1) / 2, -P * (P - 1) / 2, P, (INT64_C(1) << P) - 1},
                                       [COMM_OR] = {0, 0, 1, (INT64_C(1) << P) - 1}};
        memcpy(w, v, sizeof w);
        TRY(c->fn->all_reduce_i64(c, w, 4, (enum comm_op)op));
        for (int i = op == COMM_OR ? 2 : 0; i < 4; i++) CHECK(w[i] == expected[op][i]);
    }
    TRY(c->fn->all_gather(c, &me, all, sizeof me));
    for (int r = 0; r < P; r++) CHECK(all[r] == r);
    all[me] = 100 + me;
    TRY(c->fn->all_gather(c, all + me, all, sizeof me)); /* in place */
    for (int r = 0; r < P; r++) CHECK(all[r] == 100 + r);
    int64_t root = me == P - 1 ? 77 : 0;
    TRY(c->fn->bcast(c, &root, sizeof root, (int)P - 1));
    CHECK(root == 77);
    return comm_check_equal(c, "the build", 42);
}

/* Rank r sends r·P + j bytes of value r to rank j. */
static status check_bulk(struct comm *c)
{
    size_t P = (size_t)c->size, me = (size_t)c->rank;
    unsigned char *send = mem_alloc(P * P * P), *recv = mem_alloc(P * P * P);
    size_t sb[32], so[32], rb[32], ro[32], at = 0, to = 0;
    memset(send, (int)me, P * P * P);
    for (size_t j = 0; j < P; j++) {
        sb[j] = me * P + j, so[j] = at, at += sb[j];
        rb[j] = j * P + me, ro[j] = to, to += rb[j];
    }
    TRY(c->fn->all_to_all(c, send, sb, so, recv, rb, ro));
    for (size_t j = 0; j < P; j++)
        for (size_t i = 0; i < rb[j]; i++) CHECK(recv[ro[j] + i] == j);
    size_t end = 0;
    for (size_t j = 0; j < P; j++) sb[j] = 3 * j, so[j] = end, end += sb[j];
    memset(recv, 255, end);
    memset(recv + so[me], (int)me, sb[me]);
    TRY(c->fn->all_gather_in_place(c, recv, sb, so));
    for (size_t j = 0; j < P; j++)
        for (size_t i = 0; i < sb[j]; i++) CHECK(recv[so[j] + i] == j);
    free(send);
    free(recv);
    return c->fn->barrier(c);
}

/* Reduces twice in a row through `c`, checks both against the definition, prints the hash. */
static status check_reduce(struct comm *c, int leaves, int64_t count)
{
    if (leaves % c->size) return ST_OK;
    int each = leaves / c->size;
    struct tree_node cover[TREE_MAX_NODES];
    float *nodes[TREE_MAX_NODES], *expected = mem_alloc((size_t)count * sizeof(float));
    int n = tree_cover(leaves, each * c->rank, each * (c->rank + 1), cover);
    struct arena tensors, pinned; /* nothing is staged: the CPU's tensors are the host's */
    struct tree_reduce t;
    struct stream *s;
    TRY(backend_cpu.dev.stream_open(&s, 1));
    arena_init(&tensors, "reduction");
    arena_init(&pinned, "staging");
    tree_reduce_init(&t, c, &backend_cpu, leaves, count, DT_F32);
    tree_reduce_layout(&t, &tensors, &pinned);
    CHECK(arena_need(&pinned) == 0);
    void *memory = mem_alloc(arena_need(&tensors) + ARENA_ALIGN);
    arena_bind(&tensors, memory);
    tree_reduce_layout(&t, &tensors, &pinned);
    for (int i = 0; i < n; i++) nodes[i] = mem_alloc((size_t)count * sizeof(float));
    for (int64_t e = 0; e < count; e++) expected[e] = tree_value(0, leaves, e);
    for (int again = 0; again < 2; again++) {
        for (int i = 0; i < n; i++)
            for (int64_t e = 0; e < count; e++) nodes[i][e] = tree_value(cover[i].lo, cover[i].hi, e);
        TRY(tree_reduce(&t, s, (void *const *)nodes, n, nodes[0], count, (struct range){0, count}));
        CHECK(memcmp(nodes[0], expected, (size_t)count * sizeof(float)) == 0);
    }
    if (c->rank == 0)
        printf("hash V=%d %016llx %s\n", leaves, (unsigned long long)XXH3_64bits(nodes[0], (size_t)count * sizeof(float)),
               c->size == 1 ? "alone" : t.by.fn->name);
    for (int i = 0; i < n; i++) free(nodes[i]);
    free(expected);
    free(memory);
    arena_release(&tensors);
    arena_release(&pinned);
    tree_reduce_release(&t);
    backend_cpu.dev.stream_close(s);
    return ST_OK;
}

static status no_share(struct comm *c, size_t bytes, void **peers)
{
    (void)c, (void)bytes, (void)peers;
    FAIL(ST_NOT_BUILT, "not here");
}

static status check_all(struct comm *c)
{
    static const struct { int leaves; int64_t count; } reductions[] = {{8, 140000}, {24, 20000}, {16, 20000}, {48, 20000}};
    TRY(check_small(c));
    TRY(check_bulk(c));
    for (int i = 0; i < 2; i++) TRY(check_reduce(c, reductions[i].leaves, reductions[i].count));
    struct comm_table messages = *c->fn;
    struct comm apart = *c;
    messages.share = no_share;
    apart.fn = &messages;
    for (int i = 0; i < 4; i++) TRY(check_reduce(&apart, reductions[i].leaves, reductions[i].count));
    return ST_OK;
}

static status steps(struct comm *c, int n, int timeout)
{
    watch_timeout(timeout);
    for (int step = 1; step <= n; step++) {
        watch_at(WATCH_COMPUTE, step);
        usleep(20000);
        watch_at(WATCH_REDUCE, step);
        TRY(c->fn->barrier(c));
        if (c->rank == 0 && step == 20) puts("steps are made");
        fflush(stdout);
    }
    if (c->rank == 0) puts("all steps are made");
    return ST_OK;
}

static status run(struct comm *c, int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "all";
    int rank = argc > 2 ? atoi(argv[2]) : 0, code = argc > 3 ? atoi(argv[3]) : rank;
    if (strcmp(mode, "agree") == 0)
        return comm_agree(c, c->rank == rank ? status_fail((status)code, "only rank %d failed", rank) : ST_OK);
    if (strcmp(mode, "same") == 0) return comm_agree(c, status_fail((status)code, "every rank says this"));
    if (strcmp(mode, "stop") == 0) FAIL(ST_STOPPED, "stopped on request");
    if (strcmp(mode, "differ") == 0) return comm_check_equal(c, "the configuration", c->rank == c->size - 1);
    if (strcmp(mode, "where") == 0) {
        char host[HOST_NAME_MAX + 1] = "";
        gethostname(host, sizeof host - 1);
        printf("rank %d of %d is %d of %d on %s\n", c->rank, c->size, c->local_rank, c->local_size, host);
        return check_all(c);
    }
    if (strcmp(mode, "killed") == 0) {
        signal(SIGTERM, SIG_IGN);
        if (c->rank == rank) raise(SIGKILL);
        return check_reduce(c, 24, 1000);
    }
    if (strcmp(mode, "steps") == 0) return steps(c, rank, code);
    if (strcmp(mode, "exit") == 0) {
        if (c->rank == rank) exit(code);
        return c->fn->barrier(c);
    }
    if (strcmp(mode, "alone") == 0) {
        if (c->rank == rank) FAIL((status)code, "rank %d failed alone", rank);
        return c->fn->barrier(c);
    }
    return check_all(c);
}

int main(int argc, char **argv)
{
    char path[PATH_MAX] = "";
    struct launch l;
    struct comm c;
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n > 0) *strrchr(path, '/') = 0;
    status st = launch_find(NULL, &l);
    if (!st) st = comm_open(&l, path, &c);
    if (st) {
        log_error("%s", status_message());
        return st;
    }
    log_init(c.rank, c.size, LOG_INFO);
    watch_open(&c);
    return comm_end(&c, run(&c, argc, argv));
}
