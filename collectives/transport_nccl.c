/* transport_nccl.c — NCCL between the ranks' GPUs: the only file that calls it, a plugin for each backend of CUDA's kind.
 *
 * NCCL moves data here; it adds only where `reduce: fast` asks for it. Its communicator does not block: a call says that it is done
 * or goes on, and then it is asked until it is done (settle), for no longer than a start may take. A failure that comes later leaves the
 * GPU in a kernel that never ends, and the host behind it; so a thread asks for such and ends the job (guard). Who dies is told by
 * the watch (watch.h), which NCCL need not notice. */
#include <nccl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "collectives/transport.h"
#include "kernels/base/text.h"
#include "kernels/cuda/stream.h"

enum { START_S = 120, ASK_US = 100, GUARD_MS = 250, MOST_BLOCKS = 16 };

struct nccl {
    struct device_links links; /* first */
    struct comm *ranks;
    ncclComm_t comm;
    double limit_s; /* of a call; 0: none */
    char what[32];
    /* the guard: */
    pthread_t guard;
    pthread_mutex_t lock; /* one thread at a time is in NCCL */
    pthread_cond_t changed;
    bool over; /* closing, or its failure is told by who called */
};

static struct nccl *nccl_of(const struct transport *x) { return (struct nccl *)(void *)x->links; }

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static status failed(struct nccl *n, ncclResult_t r, const char *what)
{
    const char *more = ncclGetLastError(n->comm);
    status st = r == ncclRemoteError ? ST_PEER : r == ncclInvalidUsage || r == ncclInvalidArgument ? ST_FAIL : ST_DEVICE;
    FAIL(st, "%s: %s%s%s; NCCL_DEBUG=INFO says more", what, ncclGetErrorString(r), more && *more ? ": " : "", more ? more : "");
}

/* What became of a call that returned r, once it is done; asked at least once, for "no error" may mean that it was begun well. Under
 * the lock. */
static status settle(struct nccl *n, ncclResult_t r, const char *what)
{
    bool first = true;
    for (double start = now_s(); r == ncclInProgress || (first && r == ncclSuccess); first = false) {
        struct timespec pause = {.tv_nsec = ASK_US * 1000};
        if (!first) nanosleep(&pause, NULL);
        ncclResult_t asked = ncclCommGetAsyncError(n->comm, &r);
        if (asked != ncclSuccess) r = asked;
        if (r == ncclInProgress && n->limit_s > 0 && now_s() - start > n->limit_s)
            FAIL(ST_WATCHDOG, "%s: not done after %g s; does a rank or the network between the GPUs block? NCCL_DEBUG=INFO says more", what,
                 n->limit_s);
    }
    return r == ncclSuccess ? ST_OK : failed(n, r, what);
}

/* ---- moving ---------------------------------------------------------------------------------------------------------- */

/* Calls of one group. Once one fails the others are not made, but the group is always ended. */
struct group {
    struct nccl *n;
    cudaStream_t on;
    ncclResult_t r;
};

static struct group group_begin(struct transport *x)
{
    struct group g = {nccl_of(x), cuda_on(x->stream), ncclSuccess};
    pthread_mutex_lock(&g.n->lock);
    g.r = ncclGroupStart();
    return g;
}

static bool group_goes_on(const struct group *g) { return g->r == ncclSuccess || g->r == ncclInProgress; }

static void group_send(struct group *g, const void *from, int64_t count, int peer)
{
    if (count && group_goes_on(g)) g->r = ncclSend(from, (size_t)count, ncclFloat, peer, g->n->comm, g->on);
}

static void group_receive(struct group *g, void *to, int64_t count, int peer)
{
    if (count && group_goes_on(g)) g->r = ncclRecv(to, (size_t)count, ncclFloat, peer, g->n->comm, g->on);
}

static void group_spread(struct group *g, void *data, int64_t count, int root)
{
    if (count && group_goes_on(g)) g->r = ncclBroadcast(data, data, (size_t)count, ncclFloat, root, g->n->comm, g->on);
}

/* A failure ends the job here: what is queued behind it never ends, so that whoever waits for a stream or frees memory, here or on
 * a rank that knows of nothing, would wait for ever. */
static status group_end(struct group *g, const char *what)
{
    ncclResult_t r = ncclGroupEnd();
    status st = settle(g->n, group_goes_on(g) ? r : g->r, what);
    if (st) g->n->over = true;
    pthread_mutex_unlock(&g->n->lock);
    if (st) comm_end(g->n->ranks, st); /* of this rank alone: does not return */
    return st;
}

static float *at(void *base, int64_t element) { return (float *)base + element; }

/* Node i of mine, part j, to rank j; my part of theirs into its row. Of two ranks' calls the first matches the first. */
static status nccl_exchange(struct transport *x, const struct round *r, void *const *from)
{
    int me = x->comm->rank, P = x->comm->size;
    struct group g = group_begin(x);
    for (int k = 1; k < P; k++) {
        int to = (me + k) % P, of = (me - k + P) % P;
        for (int i = 0; i < x->ranks[me].n; i++) group_send(&g, at(from[i], r->at[to]), r->count[to], to);
        for (int i = 0; i < x->ranks[of].n; i++) group_receive(&g, at(x->landing, (x->ranks[of].first + i) * x->each), r->count[me], of);
    }
    return group_end(&g, "reduction: exchanging partial sums");
}

/* Do all ranks bring as much, one behind the other? */
static bool even(const struct round *r, int P)
{
    for (int j = 1; j < P; j++)
        if (r->count[j] != r->count[0] || r->at[j] != r->at[0] + j * r->count[0]) return false;
    return r->count[0] > 0;
}

static status nccl_gather(struct transport *x, const struct round *r, void *to)
{
    int me = x->comm->rank, P = x->comm->size;
    struct group g = group_begin(x);
    if (even(r, P))
        g.r = ncclAllGather(at(to, r->at[me]), at(to, r->at[0]), (size_t)r->count[0], ncclFloat, g.n->comm, g.on);
    else
        for (int j = 0; j < P; j++) group_spread(&g, at(to, r->at[j]), r->count[j], j);
    return group_end(&g, "reduction: gathering sums");
}

static status nccl_add(struct transport *x, void *data, int64_t count)
{
    struct group g = group_begin(x);
    g.r = ncclAllReduce(data, data, (size_t)count, ncclFloat, ncclSum, g.n->comm, g.on);
    return group_end(&g, "reduction: NCCL's sum");
}

static const struct transport_table transport_nccl = {
    .name = "NCCL",
    .piece = TRANSPORT_QUEUED_PIECE,
    .queued = true,
    .exchange = nccl_exchange,
    .gather = nccl_gather,
    .add = nccl_add,
};

/* ---- the guard ------------------------------------------------------------------------------------------------------- */

static void wait_ms(struct nccl *n, int ms)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += ms * 1000000L;
    t.tv_sec += t.tv_nsec / 1000000000L;
    t.tv_nsec %= 1000000000L;
    pthread_cond_timedwait(&n->changed, &n->lock, &t);
}

static void *guard(void *arg)
{
    struct nccl *n = arg;
    status st = ST_OK;
    pthread_mutex_lock(&n->lock);
    while (!n->over && !st) {
        ncclResult_t r = ncclSuccess;
        ncclResult_t asked = ncclCommGetAsyncError(n->comm, &r);
        if (asked == ncclSuccess) asked = r;
        if (asked != ncclSuccess && asked != ncclInProgress) st = failed(n, asked, "reduction between GPUs");
        if (!st) wait_ms(n, GUARD_MS);
    }
    pthread_mutex_unlock(&n->lock);
    if (st) comm_end(n->ranks, st); /* of this rank alone: does not return */
    return NULL;
}

/* ---- opening and closing --------------------------------------------------------------------------------------------- */

static double limit_of_a_start(void)
{
    const char *text = getenv("TRIMPOT_INIT_TIMEOUT");
    return text ? atof(text) : START_S;
}

static status unique_id(struct nccl *n, ncclUniqueId *id)
{
    ncclResult_t r = n->ranks->rank == 0 ? ncclGetUniqueId(id) : ncclSuccess;
    return r == ncclSuccess ? ST_OK : failed(n, r, "joining the GPUs of all ranks");
}

static status join_ranks(struct nccl *n)
{
    struct comm *c = n->ranks;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id = {{0}};
    config.blocking = 0;
    config.maxCTAs = MOST_BLOCKS; /* the rest of the GPU computes */
    TRY(comm_agree(c, unique_id(n, &id)));
    TRY(c->fn->bcast(c, &id, sizeof id, 0));
    ncclResult_t r = ncclCommInitRankConfig(&n->comm, c->size, id, c->rank, &config);
    return comm_agree(c, settle(n, r, "joining the GPUs of all ranks"));
}

static void drop(struct nccl *n)
{
    if (n->comm) ncclCommAbort(n->comm);
    pthread_cond_destroy(&n->changed);
    pthread_mutex_destroy(&n->lock);
    free(n);
}

static void nccl_close(struct device_links *l, bool well)
{
    struct nccl *n = (struct nccl *)(void *)l;
    pthread_mutex_lock(&n->lock);
    n->over = true;
    pthread_cond_signal(&n->changed);
    pthread_mutex_unlock(&n->lock);
    pthread_join(n->guard, NULL);
    /* What is not over in order is broken off: nobody may wait for a rank that does not come. */
    if (well && !settle(n, ncclCommFinalize(n->comm), "parting the GPUs") && ncclCommDestroy(n->comm) == ncclSuccess) n->comm = NULL;
    drop(n);
}

status trimpot_transport_link(struct comm *c, struct device_links **out);
status trimpot_transport_link(struct comm *c, struct device_links **out)
{
    struct nccl *n = mem_alloc(sizeof *n);
    int version = 0;
    n->ranks = c;
    n->limit_s = limit_of_a_start();
    n->links = (struct device_links){.fn = &transport_nccl, .what = n->what, .close = nccl_close};
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->changed, NULL);
    ncclGetVersion(&version);
    snprintf(n->what, sizeof n->what, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    status st = join_ranks(n);
    if (!st && pthread_create(&n->guard, NULL, guard, n)) st = status_fail(ST_FAIL, "cannot start the thread that asks NCCL for failures");
    if (st) {
        drop(n);
        return st;
    }
    *out = &n->links;
    return ST_OK;
}
