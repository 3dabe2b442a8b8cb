/* The exchange around the ordered sum. Two ways to bring the partials together, the same sum, the same bits:
 *
 *   shared     ranks of one host    stage piece k | sum own share of k−1 | copy out k−2 | meet     one meeting a piece
 *   messages   any ranks            all-to-all of shares | ordered sum | all-gather
 *
 * A rank's part of the shared segment: its meeting counter in a line of its own, then two of each of
 *   stage      its nodes' piece, read by the others (its own share stays where it is)
 *   sum        its share of the sum, read by all
 * A buffer written at iteration k is read at k+1 and written again at k+2, so that one meeting per iteration is enough,
 * and none after the last: the next call's first meeting stands before its first sum. */
#include <assert.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "collectives/tree.h"
#include "kernels/base/team.h"
#include "kernels/backend.h"

enum {
    LINE = 16,                    /* floats of a cache line: shares start on one */
    BLOCK = 512,                  /* elements summed at a time, in the first-level cache */
    PIECE_SHARED = 128 * 1024,    /* floats; what is staged stays in the second-level cache */
    PIECE_MESSAGES = 1024 * 1024, /* messages of 512 KB at 8 ranks */
};

struct tree_rank {
    int first, n;                 /* its nodes among all */
    struct team_word *meetings;   /* shared: how many it has come to, */
    float *stage[2], *sum[2];     /* and its buffers */
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t whole_lines(int64_t n) { return (n + LINE - 1) / LINE * LINE; }

/* ---- shape ---------------------------------------------------------------------------------------------------------- */

/* Nodes of every rank in order, and how many sums are merged after each. While measuring it only counts. */
static void arrange(struct tree_reduce *t)
{
    struct tree_node stack[TREE_MAX_NODES + 1];
    int P = t->comm->size, depth = 0;
    t->n_nodes = t->max_nodes = 0;
    for (int r = 0; r < P; r++) {
        struct tree_node nodes[TREE_MAX_NODES];
        int n = tree_cover(t->leaves, t->leaves / P * r, t->leaves / P * (r + 1), nodes);
        if (n > t->max_nodes) t->max_nodes = n;
        if (t->ranks) t->ranks[r] = (struct tree_rank){.first = t->n_nodes, .n = n};
        for (int i = 0; i < n; i++, t->n_nodes++) {
            unsigned char merges = 0;
            assert(depth <= TREE_MAX_NODES);
            for (stack[depth++] = nodes[i]; depth > 1 && tree_is_node(t->leaves, stack[depth - 2].lo, stack[depth - 1].hi);
                 merges++) {
                stack[depth - 2].hi = stack[depth - 1].hi;
                depth--;
            }
            if (t->merges) t->merges[t->n_nodes] = merges;
        }
    }
    assert(depth == 1);
}

static void set_piece(struct tree_reduce *t, int64_t piece)
{
    t->piece = whole_lines(least(piece, t->longest));
    t->shard = whole_lines((t->piece + t->comm->size - 1) / t->comm->size);
}

/* Maps the segment all ranks share, if they can. Done by the first reduction and not earlier: there all ranks are known
 * to have come through their start. */
static status connect(struct tree_reduce *t)
{
    struct comm *c = t->comm;
    struct tree_reduce small = *t;
    t->connected = true;
    set_piece(&small, PIECE_SHARED / t->max_nodes);
    int64_t stage = t->max_nodes * small.piece;
    size_t bytes = (size_t)(LINE + 2 * stage + 2 * small.shard) * sizeof(float);
    status st = c->fn->share(c, bytes, t->parts);
    if (st == ST_NOT_BUILT) return ST_OK;
    TRY(st);
    for (int r = 0; r < c->size; r++) {
        struct tree_rank *rank = &t->ranks[r];
        rank->meetings = t->parts[r];
        rank->stage[0] = (float *)t->parts[r] + LINE;
        rank->stage[1] = rank->stage[0] + stage;
        rank->sum[0] = rank->stage[1] + stage;
        rank->sum[1] = rank->sum[0] + small.shard;
    }
    t->piece = small.piece;
    t->shard = small.shard;
    t->shared = true;
    return ST_OK;
}

void tree_reduce_init(struct tree_reduce *t, struct comm *c, int leaves, int64_t max_count, struct arena *a)
{
    size_t P = (size_t)c->size;
    assert(leaves > 0 && leaves % c->size == 0 && max_count > 0);
    *t = (struct tree_reduce){.comm = c, .leaves = leaves, .longest = max_count, .n_nodes = 1, .max_nodes = 1};
    if (c->size == 1) return;
    arrange(t);
    set_piece(t, PIECE_MESSAGES / t->max_nodes);
    size_t nodes = (size_t)t->n_nodes;
    t->ranks = arena_take(a, P * sizeof *t->ranks, "reduction: ranks");
    t->parts = arena_take(a, P * sizeof *t->parts, "reduction: shared parts");
    t->merges = arena_take(a, nodes, "reduction: order");
    t->source = arena_take(a, nodes * sizeof *t->source, "reduction: partials");
    t->extent = arena_take(a, 4 * P * sizeof *t->extent, "reduction: messages");
    t->scratch = arena_take(a, nodes * (size_t)t->shard * sizeof(float), "reduction scratch");
    if (t->ranks) arrange(t);
}

/* ---- arithmetic ----------------------------------------------------------------------------------------------------- */

/* to may be a. */
static void add(float *to, const float *a, const float *b, int n)
{
#pragma omp simd
    for (int i = 0; i < n; i++) to[i] = a[i] + b[i];
}

static void sum_block(const struct tree_reduce *t, int64_t at, int n, float *out)
{
    float partial[TREE_MAX_NODES][BLOCK];
    const float *top[TREE_MAX_NODES + 1];
    int depth = 0;
    for (int i = 0; i < t->n_nodes; i++) {
        top[depth++] = t->source[i] + at;
        for (int m = t->merges[i]; m > 0; m--, depth--) {
            bool last = i == t->n_nodes - 1 && m == 1;
            float *to = last ? out : partial[depth - 2];
            add(to, top[depth - 2], top[depth - 1], n);
            top[depth - 2] = to;
        }
    }
}

struct sum {
    const struct tree_reduce *t;
    int64_t count;
    float *out;
};

static void sum_part(const void *arg, int64_t i)
{
    const struct sum *s = arg;
    sum_block(s->t, i * BLOCK, (int)least(BLOCK, s->count - i * BLOCK), s->out + i * BLOCK);
}

/* T(0, leaves) of `count` elements of the sources; out may be one of them. */
static void ordered_sum(const struct tree_reduce *t, int64_t count, float *out, int threads)
{
    struct sum s = {t, count, out};
    team_for(count > 8 * BLOCK ? threads : 1, (count + BLOCK - 1) / BLOCK, sum_part, &s);
}

enum { PART = 16 * 1024 };
struct copied {
    float *to;
    const float *from;
    int64_t count;
};

static void copy_part(const void *arg, int64_t i)
{
    const struct copied *c = arg;
    memcpy(c->to + i * PART, c->from + i * PART, (size_t)least(PART, c->count - i * PART) * sizeof(float));
}

static void copy(float *to, const float *from, int64_t count, int threads)
{
    struct copied c = {to, from, count};
    team_for(count > 2 * PART ? threads : 1, (count + PART - 1) / PART, copy_part, &c);
}

/* ---- exchange ------------------------------------------------------------------------------------------------------- */

/* A rank's share of a piece of `length` elements. */
struct share { int64_t lo, hi; };

static struct share share_of(const struct tree_reduce *t, int rank, int64_t length)
{
    return (struct share){least(t->shard * rank, length), least(t->shard * (rank + 1), length)};
}

static void wait_for(struct team_word *counter, uint32_t value)
{
    uint32_t now = atomic_load_explicit(&counter->value, memory_order_acquire);
    while ((int32_t)(now - value) < 0) now = team_wait(counter, now);
}

/* Returns when every rank has come. All that it wrote before is then visible here. */
static void meet(struct tree_reduce *t)
{
    uint32_t mine = ++t->meetings;
    struct team_word *word = t->ranks[t->comm->rank].meetings;
    atomic_store_explicit(&word->value, mine, memory_order_release);
    team_changed(word);
    for (int r = 0; r < t->comm->size; r++) wait_for(t->ranks[r].meetings, mine);
}

static void stage_piece(const struct tree_reduce *t, float *const *nodes, int64_t at, int64_t length, float *stage, int threads)
{
    struct share own = share_of(t, t->comm->rank, length);
    for (int i = 0; i < t->ranks[t->comm->rank].n; i++, stage += t->piece) {
        copy(stage, nodes[i] + at, own.lo, threads);
        copy(stage + own.hi, nodes[i] + at + own.hi, length - own.hi, threads);
    }
}

static void sum_piece(const struct tree_reduce *t, float *const *nodes, int64_t at, int64_t length, int turn, int threads)
{
    int me = t->comm->rank;
    struct share own = share_of(t, me, length);
    for (int r = 0; r < t->comm->size; r++)
        for (int i = 0; i < t->ranks[r].n; i++)
            t->source[t->ranks[r].first + i] =
                r == me ? nodes[i] + at + own.lo : t->ranks[r].stage[turn] + i * t->piece + own.lo;
    ordered_sum(t, own.hi - own.lo, t->ranks[me].sum[turn], threads);
}

static void copy_out(const struct tree_reduce *t, float *out, int64_t length, int turn, int threads)
{
    for (int r = 0; r < t->comm->size; r++) {
        struct share s = share_of(t, r, length);
        copy(out + s.lo, t->ranks[r].sum[turn], s.hi - s.lo, threads);
    }
}

static void reduce_shared(struct tree_reduce *t, float *const *nodes, float *out, int64_t count, int threads)
{
    int64_t pieces = (count + t->piece - 1) / t->piece;
    for (int64_t k = 0; k < pieces + 2; k++) {
        int64_t at = k * t->piece, before = at - t->piece, oldest = before - t->piece;
        int turn = (int)(k & 1);
        if (k < pieces) stage_piece(t, nodes, at, least(t->piece, count - at), t->ranks[t->comm->rank].stage[turn], threads);
        if (k > 0 && k <= pieces) sum_piece(t, nodes, before, least(t->piece, count - before), !turn, threads);
        if (k > 1) copy_out(t, out + oldest, least(t->piece, count - oldest), turn, threads);
        if (k <= pieces) meet(t);
    }
}

/* Node i of every rank that has one: share j of mine to rank j, my share of theirs into the scratch. */
static status exchange_nodes(struct tree_reduce *t, const float *node, int i, int64_t length)
{
    struct comm *c = t->comm;
    size_t *to_bytes = t->extent, *to_at = to_bytes + c->size, *from_bytes = to_at + c->size, *from_at = from_bytes + c->size;
    struct share own = share_of(t, c->rank, length);
    for (int r = 0; r < c->size; r++) {
        struct share s = share_of(t, r, length);
        to_bytes[r] = node ? (size_t)(s.hi - s.lo) * sizeof(float) : 0;
        to_at[r] = (size_t)s.lo * sizeof(float);
        from_bytes[r] = i < t->ranks[r].n ? (size_t)(own.hi - own.lo) * sizeof(float) : 0;
        from_at[r] = (size_t)(t->ranks[r].first + i) * (size_t)t->shard * sizeof(float);
    }
    return c->fn->all_to_all(c, node ? node : t->scratch, to_bytes, to_at, t->scratch, from_bytes, from_at);
}

static status reduce_messages(struct tree_reduce *t, float *const *nodes, float *out, int64_t count, int threads)
{
    struct comm *c = t->comm;
    size_t *bytes = t->extent, *offset = bytes + c->size;
    for (int i = 0; i < t->n_nodes; i++) t->source[i] = t->scratch + i * t->shard;
    for (int64_t at = 0; at < count; at += t->piece) {
        int64_t length = least(t->piece, count - at);
        for (int i = 0; i < t->max_nodes; i++)
            TRY(exchange_nodes(t, i < t->ranks[c->rank].n ? nodes[i] + at : NULL, i, length));
        struct share own = share_of(t, c->rank, length);
        ordered_sum(t, own.hi - own.lo, out + at + own.lo, threads);
        for (int r = 0; r < c->size; r++) {
            struct share s = share_of(t, r, length);
            bytes[r] = (size_t)(s.hi - s.lo) * sizeof(float);
            offset[r] = (size_t)s.lo * sizeof(float);
        }
        TRY(c->fn->all_gather_in_place(c, out + at, bytes, offset));
    }
    return ST_OK;
}

status tree_reduce(struct tree_reduce *t, struct stream *s, float *const *nodes, int n_nodes, float *out, int64_t count)
{
    int expected = t->comm->size == 1 ? 1 : t->ranks[t->comm->rank].n;
    int threads = s && s->threads > 0 ? s->threads : 1;
    if (n_nodes != expected)
        FAIL(ST_FAIL, "reduction: rank %d of %d brings %d nodes of a tree of %d leaves, its cover has %d", t->comm->rank,
             t->comm->size, n_nodes, t->leaves, expected);
    if (s) TRY(s->be->dev.sync(s, "reduction"));
    if (t->comm->size > 1 && !t->connected) TRY(connect(t));
    if (t->comm->size == 1) {
        if (out != nodes[0]) copy(out, nodes[0], count, threads);
    } else if (t->shared) {
        reduce_shared(t, nodes, out, count, threads);
    } else {
        TRY(reduce_messages(t, nodes, out, count, threads));
    }
    return ST_OK;
}
