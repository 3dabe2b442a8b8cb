/* The reduction, round by round: a slice of what every rank owns is brought to it, added there by an op, and spread.
 *
 *   vector   |own of rank 0        |own of rank 1        |own of rank 2        |        `each` elements of every owner
 *   round 0  |====|                |====|                |====|                         a round, so that memory is bounded
 *   round 1       |====|                |====|                |====|                    and all ranks are always busy
 *
 * Where tensors are host memory the transport reads and writes them, and the op what the transport brought. Elsewhere three
 * pinned buffers stand between them; a stream runs in order, so that one of each is enough:
 *
 *   node ─copy▶ send ═exchange▶ rows ─▶ landing ─copy▶ rows ─op▶ out ─copy▶ spread ─▶ sum ═gather▶ spread ─copy▶ out
 *
 * Where the ranks' devices are joined nothing leaves them, and the host only queues; sums are spread when all rounds are over:
 *
 *   node ═exchange▶ rows ─op▶ out, for each round; out ═gather▶ out */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "collectives/tree.h"
#include "kernels/base/text.h"

enum { LINE = 16 }; /* f32 of a cache line: slices start on one */
_Static_assert((int)TREE_MAX_NODES <= (int)TREE_SUM_MINE && (int)TREE_MAX_NODES <= (int)TREE_SUM_OPEN, "one op adds what a rank may bring");

/* ---- shape ---------------------------------------------------------------------------------------------------------- */

/* Nodes of every rank in order, and how many sums are merged after each. */
static void arrange(struct tree_reduce *t)
{
    struct tree_node stack[TREE_MAX_NODES + 1];
    int P = t->comm->size, depth = 0;
    for (int r = 0; r < P; r++) {
        struct tree_node nodes[TREE_MAX_NODES];
        int n = tree_cover(t->leaves, t->leaves / P * r, t->leaves / P * (r + 1), nodes);
        if (n > t->max_nodes) t->max_nodes = n;
        t->ranks[r] = (struct tree_rank){.first = t->n_nodes, .n = n};
        for (int i = 0; i < n; i++, t->n_nodes++) {
            unsigned char merges = 0;
            assert(depth <= TREE_MAX_NODES);
            for (stack[depth++] = nodes[i]; depth > 1 && tree_is_node(t->leaves, stack[depth - 2].lo, stack[depth - 1].hi); merges++) {
                stack[depth - 2].hi = stack[depth - 1].hi;
                depth--;
            }
            if (t->n_nodes < TREE_SUM_NODES) t->sum.merges[t->n_nodes] = merges;
        }
    }
    assert(depth == 1);
}

static int64_t whole(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* Elements of each owner in a round: who has a page more than others needs no round more for it. */
static int64_t slice(const struct tree_reduce *t, const struct transport_table *by)
{
    int64_t piece = by->piece / t->max_nodes, P = t->comm->size;
    if (piece > t->longest) piece = t->longest;
    int64_t each = (piece + P - 1) / P;
    return whole(each, each > OWN_PAGE ? OWN_PAGE : LINE);
}

void tree_reduce_init(struct tree_reduce *t, struct comm *c, const struct backend *be, int leaves, int64_t longest, dtype dt)
{
    assert(leaves > 0 && leaves % c->size == 0);
    *t = (struct tree_reduce){
        .comm = c, .leaves = leaves, .dt = dt, .longest = longest > 0 ? longest : 1, .direct = be->tensors_in == MEM_HOST};
    if (c->size == 1) return;
    size_t P = (size_t)c->size;
    const struct transport_table *fn = c->links ? c->links->fn : &transport_messages;
    t->ranks = mem_alloc(P * sizeof *t->ranks);
    arrange(t);
    t->here = mem_alloc(2 * P * sizeof *t->here);
    t->there = mem_alloc(2 * P * sizeof *t->there);
    t->by = (struct transport){.fn = fn,
                               .comm = c,
                               .ranks = t->ranks,
                               .n_nodes = t->n_nodes,
                               .max_nodes = t->max_nodes,
                               .each = slice(t, fn),
                               .element = dtype_bytes(dt),
                               .threads = 1,
                               .parts = mem_alloc(P * sizeof(void *)),
                               .extent = mem_alloc(4 * P * sizeof(size_t)),
                               .links = c->links};
    t->sum.first = t->ranks[c->rank].first;
    t->sum.n_mine = t->ranks[c->rank].n;
}

void tree_reduce_release(struct tree_reduce *t)
{
    for (struct tree_job *j = t->newest ? t->newest->next : NULL, *next; j && j != t->newest; j = next) {
        next = j->next;
        free(j);
    }
    free(t->newest);
    free(t->ranks);
    free(t->here);
    free(t->there);
    free(t->by.parts);
    free(t->by.extent);
    *t = (struct tree_reduce){0};
}

void tree_reduce_layout(struct tree_reduce *t, struct arena *tensors, struct arena *pinned)
{
    if (t->comm->size == 1) return;
    size_t row = (size_t)t->by.each * t->by.element, P = (size_t)t->comm->size;
    t->rows = arena_take(tensors, (size_t)t->n_nodes * row, "reduction: partials");
    t->by.landing = t->rows;
    if (t->direct || t->by.fn->queued) return;
    t->send = arena_take(pinned, (size_t)t->ranks[t->comm->rank].n * P * row, "reduction: partials to send");
    t->landing = t->by.landing = arena_take(pinned, (size_t)t->n_nodes * row, "reduction: partials received");
    t->spread = arena_take(pinned, P * row, "reduction: sums");
}

/* Maps the segment all ranks share, if they can. Done by the first reduction and not earlier: there all ranks are known
 * to have come through their start. */
static status connect(struct tree_reduce *t)
{
    struct transport shared = t->by;
    if (t->n_nodes > TREE_SUM_NODES)
        FAIL(ST_CONFIG_RUNTIME,
             "reduction: %d ranks bring %d partial sums, %d to one sum at most; use fewer ranks, or virtual_ranks "
             "that are a multiple of the ranks and a power of two",
             t->comm->size, t->n_nodes, TREE_SUM_NODES);
    t->connected = true;
    if (t->by.fn->queued) return ST_OK;
    shared.fn = &transport_shared;
    shared.each = slice(t, &transport_shared);
    status st = transport_share(&shared);
    if (st == ST_NOT_BUILT) return ST_OK;
    TRY(st);
    t->by = shared;
    return ST_OK;
}

/* ---- one round ------------------------------------------------------------------------------------------------------ */

/* What rank r adds in round k: `each` elements of its own. */
static struct range slice_of(const struct tree_job *j, int r, int64_t k)
{
    const struct tree_reduce *t = j->t;
    struct range all = own(j->count, r, t->comm->size);
    return range_meet(all, (struct range){all.lo + k * t->by.each, all.lo + (k + 1) * t->by.each});
}

/* Slices of all ranks in round k, where they lie in the vector, or packed behind each other in a buffer. */
static struct round round_of(const struct tree_job *j, int64_t k, bool packed, int64_t *at)
{
    int P = j->t->comm->size;
    struct round r = {.number = k, .at = at, .count = at + P};
    for (int i = 0; i < P; i++) {
        struct range s = slice_of(j, i, k);
        r.at[i] = packed ? i * j->t->by.each : s.lo;
        r.count[i] = range_count(s);
    }
    return r;
}

static char *plus(const struct tree_reduce *t, void *base, int64_t elements) { return (char *)base + elements * (int64_t)t->by.element; }

/* The host's part of a round, when the stream gets there. */
static status send_now(void *job)
{
    struct tree_job *j = job;
    struct tree_reduce *t = j->t;
    void *from[TREE_MAX_NODES];
    struct round r = round_of(j, j->sent++, !t->direct, t->there);
    for (int i = 0; i < t->sum.n_mine; i++) from[i] = t->direct ? j->node[i] : plus(t, t->send, i * t->comm->size * t->by.each);
    t->by.threads = j->threads;
    return t->by.fn->exchange(&t->by, &r, from);
}

static status land_now(void *job)
{
    struct tree_job *j = job;
    struct tree_reduce *t = j->t;
    const void *rows = t->by.fn->rows(&t->by, j->landed++);
    if (rows != t->landing) memcpy(t->landing, rows, (size_t)(t->n_nodes * t->by.each) * t->by.element);
    return ST_OK;
}

static status put_now(void *job)
{
    struct tree_job *j = job;
    struct tree_reduce *t = j->t;
    struct round r = round_of(j, j->put++, true, t->there);
    int me = t->comm->rank;
    void *to = t->by.fn->sum(&t->by, &r, t->spread), *from = plus(t, t->spread, r.at[me]);
    if (to != from) memcpy(to, from, (size_t)r.count[me] * t->by.element);
    return ST_OK;
}

static status take_now(void *job)
{
    struct tree_job *j = job;
    struct tree_reduce *t = j->t;
    struct round r = round_of(j, j->taken++, !t->direct, t->there);
    return t->by.fn->gather(&t->by, &r, t->direct ? j->out : t->spread);
}

static status turn_now(void *job)
{
    struct transport *by = &((struct tree_job *)job)->t->by;
    return by->fn->turn(by);
}

static status send_round(struct stream *s, struct tree_job *j, int64_t k)
{
    const struct tree_reduce *t = j->t;
    struct round r = round_of(j, k, false, t->here);
    for (int i = 0; !t->direct && i < t->sum.n_mine; i++)
        for (int p = 0; p < t->comm->size; p++)
            if (p != t->comm->rank)
                TRY(s->be->dev.copy(s, plus(t, t->send, (i * t->comm->size + p) * t->by.each), plus(t, j->node[i], r.at[p]),
                                    (size_t)r.count[p] * t->by.element));
    return s->be->dev.host_call(s, send_now, j);
}

/* out = the sum of elements [lo, lo + n): of the rows, and of my nodes where they are. */
static status add(struct stream *s, const struct tree_job *j, void *rows, int64_t lo, int64_t n, void *out)
{
    const struct tree_reduce *t = j->t;
    struct tree_sum_args sum = t->sum;
    sum.rows = (tensor){.data = rows, .dt = t->dt, .rank = 2, .dim = {t->n_nodes, n, 1, 1}, .ld = t->by.each};
    sum.out = tensor_1d(out, t->dt, n);
    for (int i = 0; i < sum.n_mine; i++) sum.mine[i] = tensor_1d(plus(t, j->node[i], lo), t->dt, n);
    return n ? op_tree_sum(s, &sum) : ST_OK;
}

static status sum_round(struct stream *s, struct tree_job *j, int64_t k)
{
    struct tree_reduce *t = j->t;
    struct round r = round_of(j, k, false, t->here);
    int me = t->comm->rank;
    int64_t n = r.count[me], lo = r.at[me];
    void *rows = t->direct ? t->by.fn->rows(&t->by, k) : t->rows;
    void *out = t->direct ? t->by.fn->sum(&t->by, &r, j->out) : plus(t, j->out, lo);
    if (!t->direct) {
        TRY(s->be->dev.host_call(s, land_now, j));
        TRY(s->be->dev.copy(s, rows, t->landing, (size_t)(t->n_nodes * t->by.each) * t->by.element));
    }
    TRY(add(s, j, rows, lo, n, out));
    if (t->direct) return ST_OK;
    TRY(s->be->dev.copy(s, plus(t, t->spread, me * t->by.each), out, (size_t)n * t->by.element));
    return s->be->dev.host_call(s, put_now, j);
}

static status take_round(struct stream *s, struct tree_job *j, int64_t k)
{
    const struct tree_reduce *t = j->t;
    TRY(s->be->dev.host_call(s, take_now, j));
    struct round r = round_of(j, k, false, t->here);
    for (int p = 0; !t->direct && p < t->comm->size; p++)
        if (p != t->comm->rank)
            TRY(s->be->dev.copy(s, plus(t, j->out, r.at[p]), plus(t, t->spread, p * t->by.each), (size_t)r.count[p] * t->by.element));
    return ST_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------ */

/* The oldest of the ring, or, when the host has not come to all of that one, one more: nobody waits. */
static struct tree_job *next_job(struct tree_reduce *t)
{
    struct tree_job *j = t->newest ? t->newest->next : NULL;
    if (!j || j->taken < j->rounds) {
        j = mem_alloc(sizeof *j);
        j->next = t->newest ? t->newest->next : j;
        if (t->newest) t->newest->next = j;
    }
    return t->newest = j;
}

static int64_t rounds_of(const struct tree_job *j)
{
    int64_t longest = 0;
    for (int r = 0; r < j->t->comm->size; r++) {
        int64_t n = range_count(own(j->count, r, j->t->comm->size));
        if (n > longest) longest = n;
    }
    return (longest + j->t->by.each - 1) / j->t->by.each;
}

static status run(struct stream *s, struct tree_job *j)
{
    const struct transport_table *by = j->t->by.fn;
    for (int64_t k = 0; k < j->rounds + 2 * by->lag; k++) {
        int64_t before = k - by->lag, oldest = before - by->lag;
        if (k < j->rounds) TRY(send_round(s, j, k));
        if (before >= 0 && before < j->rounds) TRY(sum_round(s, j, before));
        if (oldest >= 0) TRY(take_round(s, j, oldest));
        if (by->turn && k < j->rounds + 2 * by->lag - 1) TRY(s->be->dev.host_call(s, turn_now, j));
    }
    return ST_OK;
}

/* ---- between devices ------------------------------------------------------------------------------------------------- */

/* This rank's own nodes in the order of its cover, then the library's sum over ranks. */
static status run_fast(struct stream *s, const struct tree_job *j)
{
    struct tree_reduce *t = j->t;
    int64_t n = j->count;
    struct tree_sum_args sum = {.n_mine = t->sum.n_mine};
    sum.rows = (tensor){.data = j->out, .dt = t->dt, .rank = 2, .dim = {sum.n_mine, n, 1, 1}, .ld = n}; /* none is read: all are mine */
    sum.out = tensor_1d(j->out, t->dt, n);
    for (int i = 0; i < sum.n_mine; i++) sum.mine[i] = tensor_1d(j->node[i], t->dt, n), sum.merges[i] = i > 0;
    if (!n) return ST_OK;
    if (sum.n_mine > 1 || j->out != j->node[0]) TRY(op_tree_sum(s, &sum));
    return t->by.fn->add(&t->by, j->out, n);
}

static status run_queued(struct stream *s, const struct tree_job *j)
{
    struct tree_reduce *t = j->t;
    int P = t->comm->size, me = t->comm->rank;
    t->by.stream = s;
    if (t->by.links->fast) return run_fast(s, j);
    for (int64_t k = 0; k < j->rounds; k++) {
        struct round r = round_of(j, k, false, t->here);
        TRY(stream_span(s, "exchange", true));
        TRY(t->by.fn->exchange(&t->by, &r, j->node));
        TRY(stream_span(s, "exchange", false));
        TRY(add(s, j, t->rows, r.at[me], r.count[me], plus(t, j->out, r.at[me])));
    }
    struct round all = {.at = t->here, .count = t->here + P};
    for (int r = 0; r < P; r++) {
        struct range mine = own(j->count, r, P);
        all.at[r] = mine.lo;
        all.count[r] = range_count(mine);
    }
    TRY(stream_span(s, "gather", true));
    TRY(t->by.fn->gather(&t->by, &all, j->out));
    return stream_span(s, "gather", false);
}

status tree_reduce(struct tree_reduce *t, struct stream *s, void *const *nodes, int n_nodes, void *out, int64_t count)
{
    int expected = t->comm->size == 1 ? 1 : t->sum.n_mine;
    if (n_nodes != expected)
        FAIL(ST_FAIL, "reduction: rank %d of %d brings %d nodes of a tree of %d leaves, its cover has %d", t->comm->rank, t->comm->size,
             n_nodes, t->leaves, expected);
    if (count < 0 || count > t->longest)
        FAIL(ST_FAIL, "reduction: %lld elements are asked for, the longest vector has %lld", (long long)count, (long long)t->longest);
    if (t->comm->size == 1) return out == nodes[0] ? ST_OK : s->be->dev.copy(s, out, nodes[0], (size_t)count * dtype_bytes(t->dt));
    if (!t->connected) TRY(connect(t));
    struct tree_job *j = next_job(t);
    *j = (struct tree_job){.t = t, .out = out, .count = count, .threads = s->threads > 0 ? s->threads : 1, .next = j->next};
    memcpy(j->node, nodes, (size_t)n_nodes * sizeof *nodes);
    j->rounds = rounds_of(j);
    TRY(stream_span(s, "sum over ranks", true));
    if (t->by.fn->queued) {
        j->taken = j->rounds; /* nothing of it is the host's */
        TRY(run_queued(s, j));
    } else
        TRY(run(s, j));
    return stream_span(s, "sum over ranks", false);
}
