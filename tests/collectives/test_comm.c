/* What comm promises, on whatever this process was started as: bare in ctest, under mpirun by reduce.sh and comm.sh.
 *
 *   test_comm                       every call against its definition, and "hash V=… 0123456789abcdef WAY" of reductions
 *   test_comm agree RANK CODE       rank RANK fails with CODE where all agree
 *   test_comm alone RANK CODE       rank RANK fails while the others wait in a collective
 *   test_comm same CODE             all ranks fail in the same words
 *   test_comm stop                  all ranks stop on request, without a vote
 *   test_comm exit RANK CODE        rank RANK calls exit() where it should not
 *   test_comm steps N SECONDS       N steps of a pretended run, with that peer_timeout
 *   test_comm killed RANK [NAME]    rank RANK dies by SIGKILL while the others, deaf to TERM, wait in a reduction, on GPUs of NAME
 *   test_comm differ                the ranks hold different configurations
 *   test_comm gpu NAME              reductions on the GPUs of that backend, through NCCL (once in many rounds) and through the hosts
 *   test_comm fast NAME             there, with NCCL's own sum
 *   test_comm where                 each rank says which it is, of the world and of its host; then as without */
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "collectives/tree.h"
#include "collectives/watch.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "tests/collectives/reference.h"
#include "tests/ref/fence.h"

#define CHECK(condition)                                                                                                                   \
    do {                                                                                                                                   \
        if (!(condition)) FAIL(ST_FAIL, "%s:%d: %s is false", __FILE__, __LINE__, #condition);                                             \
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

/* Memory of one kind, and what lies in it as the host sees it. */
struct held {
    enum mem_kind kind;
    size_t bytes;
    void *at;
};

static status hold(const struct backend *be, enum mem_kind kind, size_t bytes, struct held *out)
{
    *out = (struct held){kind, bytes ? bytes : 1, NULL};
    return be->dev.alloc(kind, out->bytes, &out->at);
}

static void let_go(const struct backend *be, struct held *h) { be->dev.free(h->kind, h->at, h->bytes); }

static status fill(struct stream *s, const struct held *to, struct tree_node node, struct held *pinned)
{
    int64_t count = (int64_t)(to->bytes / sizeof(float));
    for (int64_t e = 0; e < count; e++) ((float *)pinned->at)[e] = tree_value(node.lo, node.hi, e);
    TRY(s->be->dev.copy(s, to->at, pinned->at, to->bytes));
    return s->be->dev.sync(s, "fill");
}

/* Whatever order P nodes are added in, the sum is off by no more than this from that of another order. */
static double off_by_order(int leaves, int64_t e)
{
    double sum = 0;
    for (int leaf = 0; leaf < leaves; leaf++) sum += fabs((double)leaf_value(leaf, e));
    return 2 * leaves * 0x1p-24 * sum;
}

/* Reduces twice in a row on stream s, nodes in tensor memory, and compares with the definition. Leaves the sum in `seen`. */
static status reduce_twice(struct tree_reduce *t, struct stream *s, int64_t count, struct held *seen)
{
    int each = t->leaves / t->comm->size;
    struct tree_node cover[TREE_MAX_NODES];
    struct held nodes[TREE_MAX_NODES];
    void *at[TREE_MAX_NODES];
    int n = tree_cover(t->leaves, each * t->comm->rank, each * (t->comm->rank + 1), cover);
    for (int i = 0; i < n; i++) {
        TRY(hold(s->be, s->be->tensors_in, (size_t)count * sizeof(float), &nodes[i]));
        at[i] = nodes[i].at;
    }
    for (int again = 0; again < 2; again++) {
        for (int i = 0; i < n; i++) TRY(fill(s, &nodes[i], cover[i], seen));
        TRY(tree_reduce(t, s, at, n, at[0], count));
        TRY(s->be->dev.copy(s, seen->at, at[0], seen->bytes));
        TRY(s->be->dev.sync(s, "reduction"));
        bool fast = t->comm->links && t->comm->links->fast;
        for (int64_t e = 0; e < count; e++) {
            double off = fabs((double)((float *)seen->at)[e] - (double)tree_value(0, t->leaves, e));
            CHECK(off <= (fast ? off_by_order(t->leaves, e) : 0));
        }
    }
    for (int i = 0; i < n; i++) let_go(s->be, &nodes[i]);
    return ST_OK;
}

/* Prints the hash of a sum through `c` on that backend. */
static status check_reduce(struct comm *c, const struct backend *be, int leaves, int64_t count)
{
    if (leaves % c->size) return ST_OK;
    struct arena tensors, pinned;
    struct tree_reduce t;
    struct stream *s;
    struct held memory[2], seen;
    arena_init(&tensors, "reduction");
    arena_init(&pinned, "staging");
    TRY(be->dev.stream_open(&s, 1));
    tree_reduce_init(&t, c, be, leaves, count, DT_F32);
    tree_reduce_layout(&t, &tensors, &pinned);
    CHECK(arena_need(&pinned) == 0 || be->tensors_in == MEM_DEVICE); /* nothing is staged where tensors are the host's */
    TRY(hold(be, be->tensors_in, arena_need(&tensors), &memory[0]));
    TRY(hold(be, MEM_PINNED, arena_need(&pinned), &memory[1]));
    arena_bind(&tensors, memory[0].at);
    arena_bind(&pinned, memory[1].at);
    tree_reduce_layout(&t, &tensors, &pinned);
    TRY(hold(be, MEM_PINNED, (size_t)count * sizeof(float), &seen));
    TRY(reduce_twice(&t, s, count, &seen));
    XXH64_hash_t hash = XXH3_64bits(seen.at, seen.bytes);
    TRY(comm_check_equal(c, "the sum", hash));
    if (c->rank == 0) printf("hash V=%d %016llx %s\n", leaves, (unsigned long long)hash, c->size == 1 ? "alone" : t.by.fn->name);
    let_go(be, &seen);
    for (int i = 0; i < 2; i++) let_go(be, &memory[i]);
    arena_release(&tensors);
    arena_release(&pinned);
    tree_reduce_release(&t);
    be->dev.stream_close(s);
    return ST_OK;
}

static status no_share(struct comm *c, size_t bytes, void **peers)
{
    (void)c, (void)bytes, (void)peers;
    FAIL(ST_NOT_BUILT, "not here");
}

/* A device whose memory the host cannot touch, which runs what it is given only when somebody waits. */
static const struct backend *behind_a_fence(void)
{
    setenv("TRIMPOT_FENCE", "any", 1);
    return fence_wrap(&backend_cpu);
}

static const struct {
    int leaves;
    int64_t count;
} reductions[] = {{8, 140000}, {24, 20000}, {16, 20000}, {48, 20000}, {32, 131072}, {12, 70000}};

/* Lengths of which ranks own as much, unlike, or nothing; the hosts' way too, which must give the same. */
static status check_gpu(struct comm *c, const char *name, bool fast)
{
    const struct backend *be;
    TRY(comm_agree(c, backend_load(name, &(struct backend_place){c->local_rank, c->local_size}, &be)));
    if (!fast) TRY(check_reduce(c, be, reductions[1].leaves, reductions[1].count));
    TRY(transport_link(c, be, fast));
    for (int i = 0; i < (int)(sizeof reductions / sizeof *reductions); i++)
        TRY(check_reduce(c, be, reductions[i].leaves, reductions[i].count));
    if (c->size == 1) return ST_OK;
    CHECK(c->links != NULL);
    static struct transport_table small;
    small = *c->links->fn; /* many rounds */
    small.piece = 50000;
    c->links->fn = &small;
    return check_reduce(c, be, reductions[0].leaves, reductions[0].count);
}

static status check_all(struct comm *c)
{
    TRY(check_small(c));
    TRY(check_bulk(c));
    const struct backend *fenced = behind_a_fence();
    TRY(check_reduce(c, &backend_cpu, reductions[0].leaves, reductions[0].count));
    TRY(check_reduce(c, &backend_cpu, reductions[1].leaves, reductions[1].count));
    TRY(check_reduce(c, fenced, reductions[1].leaves, reductions[1].count));
    struct comm_table messages = *c->fn;
    struct comm apart = *c;
    messages.share = no_share;
    apart.fn = &messages;
    for (int i = 0; i < 4; i++) TRY(check_reduce(&apart, &backend_cpu, reductions[i].leaves, reductions[i].count));
    return check_reduce(&apart, fenced, reductions[0].leaves, reductions[0].count);
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

static double thread_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Ranks that wait for one that comes late leave the cores to others. */
static status late(struct comm *c, int rank)
{
    int64_t value = c->rank, all[64];
    CHECK(c->size <= 64);
    double began = thread_s();
    for (int call = 0; call < 4; call++) {
        if (c->rank == rank) usleep(250000);
        if (call == 0) TRY(c->fn->barrier(c));
        if (call == 1) TRY(c->fn->bcast(c, &value, sizeof value, rank));
        if (call == 2) TRY(c->fn->all_gather(c, &value, all, sizeof value));
        if (call == 3) TRY(c->fn->all_reduce_i64(c, &value, 1, COMM_MAX));
    }
    printf("rank %d: busy for %.2f s of about 1\n", c->rank, thread_s() - began);
    CHECK(value == rank && all[c->size - 1] == rank && thread_s() - began < 0.15);
    return ST_OK;
}

static status run(struct comm *c, int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "all";
    int rank = argc > 2 ? atoi(argv[2]) : 0, code = argc > 3 ? atoi(argv[3]) : rank;
    if (strcmp(mode, "agree") == 0) return comm_agree(c, c->rank == rank ? status_fail((status)code, "only rank %d failed", rank) : ST_OK);
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
        const struct backend *be = &backend_cpu;
        if (argc > 3) TRY(backend_load(argv[3], &(struct backend_place){c->local_rank, c->local_size}, &be));
        TRY(transport_link(c, be, false));
        signal(SIGTERM, SIG_IGN);
        if (c->rank == rank) raise(SIGKILL);
        return check_reduce(c, be, 24, 1000);
    }
    if (strcmp(mode, "gpu") == 0 || strcmp(mode, "fast") == 0) return check_gpu(c, argv[2], strcmp(mode, "fast") == 0);
    if (strcmp(mode, "steps") == 0) return steps(c, rank, code);
    if (strcmp(mode, "late") == 0) return late(c, rank);
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
