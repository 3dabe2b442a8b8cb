#include "kernels/record.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"

enum {
    LIST_BYTES = 256 << 10, /* a longer stretch is cut into pieces */
    FEWEST = 2,             /* calls that a graph is worth */
    SEEN = 8192,            /* hashes of what came once, in sets of … */
    SET = 4,
    BUCKETS = 2 * RECORD_GRAPHS,   /* of what is known */
    BLOCK_BYTES = 1 << 10,         /* the bytes of what is known lie in chains of blocks */
    BLOCKS = 16384,                /* 16 KiB of a list on average */
    LONG = 4 * (int)RECORD_GRAPHS, /* pieces for which a graph was of no use until it may give way: were it sooner, a cycle that is
                                    * larger than the cache would make every graph anew */
};

/* ---- what is written down ------------------------------------------------------------------------------------------------- */

#define CALL_OF(name, args) CALL_##name,
enum call_kind { TRIMPOT_OPS(CALL_OF) CALL_COPY, CALL_ZERO };

struct call {
    int32_t kind, bytes; /* of the arguments, which follow */
};

struct move {
    void *dst;
    const void *src;
    size_t bytes;
};

struct known {
    uint64_t hash;
    int64_t used; /* the piece it was used for last */
    struct graph *graph;
    size_t bytes;
    int first; /* block */
    int next;  /* known or spare, -1: the last */
};

struct recorder {
    struct backend be;           /* the stream's within a stretch … */
    const struct backend *inner; /* … and otherwise */
    struct stream *s;
    char *list; /* [LIST_BYTES] */
    size_t used;
    int calls;
    uint64_t *seen;      /* [SEEN], by hash; 0: nothing */
    struct known *known; /* [RECORD_GRAPHS] */
    int *bucket;         /* [BUCKETS], -1: empty */
    int spare;
    char *blocks;    /* [BLOCKS][BLOCK_BYTES] */
    int *next_block; /* [BLOCKS] */
    int spare_block, n_spare_blocks;
    struct record_counts counts;
};

/* ---- what is known -------------------------------------------------------------------------------------------------------- */

static int *bucket_of(struct recorder *r, uint64_t hash) { return &r->bucket[hash / 2 % BUCKETS]; }

static size_t in_block(size_t bytes, size_t at) { return bytes - at < BLOCK_BYTES ? bytes - at : BLOCK_BYTES; }

static bool is_list(const struct recorder *r, const struct known *k)
{
    size_t at = 0;
    for (int b = k->first; at < k->bytes; b = r->next_block[b], at += BLOCK_BYTES)
        if (memcmp(r->blocks + (size_t)b * BLOCK_BYTES, r->list + at, in_block(k->bytes, at))) return false;
    return true;
}

static struct known *find(struct recorder *r, uint64_t hash)
{
    for (int i = *bucket_of(r, hash); i >= 0; i = r->known[i].next) {
        struct known *k = &r->known[i];
        if (k->hash == hash && k->bytes == r->used && is_list(r, k)) return k;
    }
    return NULL;
}

static int blocks_of(size_t bytes) { return (int)((bytes + BLOCK_BYTES - 1) / BLOCK_BYTES); }

static void forget(struct recorder *r, int i)
{
    struct known *k = &r->known[i];
    int *at = bucket_of(r, k->hash);
    while (*at != i) at = &r->known[*at].next;
    *at = k->next;
    r->inner->dev.graph_close(k->graph);
    for (int n = blocks_of(k->bytes), b = k->first; n > 0; n--) {
        int next = r->next_block[b];
        r->next_block[b] = r->spare_block;
        r->spare_block = b;
        r->n_spare_blocks++;
        b = next;
    }
    *k = (struct known){.next = r->spare};
    r->spare = i;
    r->counts.dropped++;
}

/* Room for one more, and for the list's bytes. */
static bool have_room(struct recorder *r)
{
    while (r->spare < 0 || r->n_spare_blocks < blocks_of(r->used)) {
        int oldest = -1;
        for (int i = 0; i < RECORD_GRAPHS; i++)
            if (r->known[i].graph && (oldest < 0 || r->known[i].used < r->known[oldest].used)) oldest = i;
        if (oldest < 0 || r->counts.pieces - r->known[oldest].used < LONG) return false;
        forget(r, oldest);
    }
    return true;
}

static struct known *keep(struct recorder *r, uint64_t hash, struct graph *g)
{
    int i = r->spare, *last = NULL;
    struct known *k = &r->known[i];
    r->spare = k->next;
    *k = (struct known){.hash = hash, .graph = g, .bytes = r->used, .next = *bucket_of(r, hash)};
    *bucket_of(r, hash) = i;
    for (size_t at = 0; at < r->used; at += BLOCK_BYTES) {
        int b = r->spare_block;
        r->spare_block = r->next_block[b];
        r->n_spare_blocks--;
        memcpy(r->blocks + (size_t)b * BLOCK_BYTES, r->list + at, in_block(r->used, at));
        *(last ? last : &k->first) = b;
        last = &r->next_block[b];
    }
    return k;
}

/* ---- queueing what is written down ------------------------------------------------------------------------------------------ */

typedef status play_fn(struct recorder *r, const void *args);

#define PLAY_OP(name, args_)                                                                                                               \
    static status play_##name(struct recorder *r, const void *args) { return r->inner->ops.name(r->s, args); }
TRIMPOT_OPS(PLAY_OP)

static status play_copy(struct recorder *r, const void *args)
{
    const struct move *m = args;
    return r->inner->dev.copy(r->s, m->dst, m->src, m->bytes);
}

static status play_zero(struct recorder *r, const void *args)
{
    const struct move *m = args;
    return r->inner->dev.zero(r->s, m->dst, m->bytes);
}

#define PLAY_SLOT(name, args) [CALL_##name] = play_##name,
static play_fn *const PLAY[] = {TRIMPOT_OPS(PLAY_SLOT)[CALL_COPY] = play_copy, [CALL_ZERO] = play_zero};

static status play(struct recorder *r)
{
    for (size_t at = 0; at < r->used;) {
        const struct call *c = (const void *)(r->list + at);
        TRY(PLAY[c->kind](r, c + 1));
        at += sizeof *c + (size_t)c->bytes;
    }
    return ST_OK;
}

static status make(struct recorder *r, struct graph **out)
{
    const struct device *dev = &r->inner->dev;
    TRY(dev->graph_begin(r->s));
    status st = play(r);
    if (!st) return dev->graph_end(r->s, out);
    /* The stream must be one again; what comes of that is told to nobody. */
    char *message = mem_strdup(status_message());
    if (!dev->graph_end(r->s, out)) dev->graph_close(*out);
    (void)status_fail(st, "%s", message);
    free(message);
    return st;
}

/* Whether it came before; then it has. The oldest of its set gives way. */
static bool see(struct recorder *r, uint64_t hash)
{
    uint64_t *set = &r->seen[hash / 2 % (SEEN / SET) * SET];
    for (int i = 0; i < SET; i++)
        if (set[i] == hash) return true;
    memmove(set + 1, set, (SET - 1) * sizeof *set);
    set[0] = hash;
    return false;
}

static status queue(struct recorder *r)
{
    uint64_t hash = XXH3_64bits(r->list, r->used) | 1; /* 0: nothing was seen; so its other bits say where it goes */
    struct known *k = find(r, hash);
    r->counts.pieces++;
    if (!k && (!see(r, hash) || r->calls < FEWEST || !have_room(r))) {
        r->counts.plain++;
        return play(r);
    }
    if (!k) {
        struct graph *g;
        TRY(make(r, &g));
        k = keep(r, hash, g);
        r->counts.made++;
    }
    k->used = r->counts.pieces;
    r->counts.launched++;
    return r->inner->dev.graph_launch(k->graph, r->s);
}

/* The stream is one like any other, or what is queued on it is written down. */
static void set_recorded(struct recorder *r, bool is)
{
    r->s->recorded = is;
    r->s->be = is ? &r->be : r->inner;
}

static void empty(struct recorder *r)
{
    r->used = 0;
    r->calls = 0;
}

static status settle(struct recorder *r)
{
    if (!r->used) return ST_OK;
    set_recorded(r, false);
    status st = queue(r);
    set_recorded(r, true);
    empty(r);
    return st;
}

/* ---- writing down ------------------------------------------------------------------------------------------------------------- */

static status write_call(struct recorder *r, enum call_kind kind, size_t bytes, void **args)
{
    struct call c = {(int32_t)kind, (int32_t)bytes};
    if (r->used + sizeof c + bytes > LIST_BYTES) TRY(settle(r));
    memcpy(r->list + r->used, &c, sizeof c);
    *args = r->list + r->used + sizeof c;
    r->used += sizeof c + bytes;
    r->calls++;
    r->counts.calls++;
    return ST_OK;
}

/* What follows the arguments is aligned, and no bytes between members differ by chance where the compiler can see to it: elsewhere
 * fewer stretches are found again. */
#define WHOLE_WORDS(name, args) _Static_assert(sizeof(struct args##_args) % 8 == 0 && _Alignof(struct args##_args) <= 8, #name);
TRIMPOT_OPS(WHOLE_WORDS)
#ifdef __has_builtin
#if __has_builtin(__builtin_clear_padding)
#define CLEAR_PADDING(p) __builtin_clear_padding(p)
#endif
#endif
#ifndef CLEAR_PADDING
#define CLEAR_PADDING(p) (void)(p)
#endif

/* What the front door alone reads, by the kind of call. */
static void leave_out_attn_fwd(void *args)
{
    struct attn_fwd_args *a = args;
    a->docs.start.host = a->docs.past.host = a->key_start.host = NULL;
}
static void leave_out_attn_bwd(void *args) { leave_out_attn_fwd(&((struct attn_bwd_args *)args)->fwd); }
static void leave_out_rope(void *args) { ((struct rope_args *)args)->positions = 0; }
static void leave_out_sumsq_segs(void *args) { ((struct sumsq_segs_args *)args)->segs.host = NULL; }
static void leave_out_update(void *args) { ((struct update_args *)args)->segs.host = NULL; }

static void (*const LEAVE_OUT[])(void *args) = {
    [CALL_attn_fwd] = leave_out_attn_fwd,     [CALL_attn_bwd] = leave_out_attn_bwd, [CALL_rope] = leave_out_rope,
    [CALL_sumsq_segs] = leave_out_sumsq_segs, [CALL_update] = leave_out_update,     [CALL_ZERO] = NULL};

#define WRITE_OP(name, args_)                                                                                                              \
    static status write_##name(struct stream *s, const struct args_##_args *a)                                                             \
    {                                                                                                                                      \
        void *place;                                                                                                                       \
        TRY(write_call(s->recorder, CALL_##name, sizeof *a, &place));                                                                      \
        struct args_##_args *copy = place;                                                                                                 \
        *copy = *a;                                                                                                                        \
        if (LEAVE_OUT[CALL_##name]) LEAVE_OUT[CALL_##name](copy);                                                                          \
        CLEAR_PADDING(copy);                                                                                                               \
        return ST_OK;                                                                                                                      \
    }
TRIMPOT_OPS(WRITE_OP)

static status write_move(struct stream *s, enum call_kind kind, struct move m)
{
    void *place;
    if (!m.bytes) return ST_OK;
    TRY(write_call(s->recorder, kind, sizeof m, &place));
    memcpy(place, &m, sizeof m);
    return ST_OK;
}

/* ---- the table of a stretch: the streams of its calls may be others --------------------------------------------------------------- */

static status record_copy(struct stream *s, void *dst, const void *src, size_t bytes)
{
    return s->recorded ? write_move(s, CALL_COPY, (struct move){dst, src, bytes}) : s->be->dev.copy(s, dst, src, bytes);
}

static status record_zero(struct stream *s, void *dst, size_t bytes)
{
    return s->recorded ? write_move(s, CALL_ZERO, (struct move){dst, NULL, bytes}) : s->be->dev.zero(s, dst, bytes);
}

/* `call`, behind what is written down. */
#define BEHIND(s, call)                                                                                                                    \
    do {                                                                                                                                   \
        struct recorder *r_ = (s)->recorded ? (s)->recorder : NULL;                                                                        \
        if (!r_) return (s)->be->dev.call;                                                                                                 \
        TRY(settle(r_));                                                                                                                   \
        set_recorded(r_, false);                                                                                                           \
        status st_ = r_->inner->dev.call;                                                                                                  \
        set_recorded(r_, true);                                                                                                            \
        return st_;                                                                                                                        \
    } while (0)

static status behind_event_record(struct event *e, struct stream *s) { BEHIND(s, event_record(e, s)); }
static status behind_event_wait(struct event *e, struct stream *s, const char *label) { BEHIND(s, event_wait(e, s, label)); }
static status behind_host_call(struct stream *s, status (*fn)(void *arg), void *arg) { BEHIND(s, host_call(s, fn, arg)); }
static status behind_sync(struct stream *s, const char *label) { BEHIND(s, sync(s, label)); }

static void make_table(struct recorder *r)
{
    const struct ops *in = &r->inner->ops;
    r->be = *r->inner;
#define OP_SLOT(name, args) r->be.ops.name = in->name ? write_##name : NULL;
    TRIMPOT_OPS(OP_SLOT)
    r->be.dev.copy = record_copy;
    r->be.dev.zero = record_zero;
    r->be.dev.event_record = behind_event_record;
    r->be.dev.event_wait = behind_event_wait;
    r->be.dev.host_call = behind_host_call;
    r->be.dev.sync = behind_sync;
    r->be.dev.graph_begin = NULL; /* none within a stretch */
    r->be.dev.graph_end = NULL;
    r->be.dev.graph_launch = NULL;
}

void record_start(struct recorder *r)
{
    assert(!r->s->recorded && r->s->be == r->inner && r->list);
    empty(r);
    r->counts.stretches++;
    set_recorded(r, true);
}

status record_finish(struct recorder *r, status st)
{
    assert(r->s->recorded);
    if (!st) st = settle(r);
    set_recorded(r, false);
    empty(r);
    return st;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------------------- */

status record_open(struct recorder **out, struct stream *s)
{
    struct recorder *r = mem_alloc(sizeof *r);
    assert(s->be->dev.graph_begin && !s->recorder);
    r->inner = s->be;
    r->s = s;
    make_table(r);
    *out = s->recorder = r;
    return ST_OK;
}

void record_layout(struct recorder *r, struct arena *host)
{
    r->list = arena_take(host, LIST_BYTES, "calls written down for a graph");
    r->seen = arena_take(host, SEEN * sizeof *r->seen, "graphs: what is known");
    r->known = arena_take(host, RECORD_GRAPHS * sizeof *r->known, "graphs: what is known");
    r->bucket = arena_take(host, BUCKETS * sizeof *r->bucket, "graphs: what is known");
    r->blocks = arena_take(host, (size_t)BLOCKS * BLOCK_BYTES, "graphs: what is known");
    r->next_block = arena_take(host, BLOCKS * sizeof *r->next_block, "graphs: what is known");
    if (!r->list) return;
    memset(r->seen, 0, SEEN * sizeof *r->seen);
    for (int i = 0; i < BUCKETS; i++) r->bucket[i] = -1;
    for (int i = 0; i < RECORD_GRAPHS; i++) r->known[i] = (struct known){.next = i + 1 < RECORD_GRAPHS ? i + 1 : -1};
    for (int i = 0; i < BLOCKS; i++) r->next_block[i] = i + 1;
    r->spare = r->spare_block = 0;
    r->n_spare_blocks = BLOCKS;
}

void record_close(struct recorder *r)
{
    if (!r) return;
    const struct record_counts *n = &r->counts;
    if (r->s->recorded) set_recorded(r, false);
    if (n->stretches)
        log_debug("graphs: %lld stretches of %lld calls in %lld pieces: %lld launched as graphs (%lld made, %lld dropped), %lld plain",
                  (long long)n->stretches, (long long)n->calls, (long long)n->pieces, (long long)n->launched, (long long)n->made,
                  (long long)n->dropped, (long long)n->plain);
    for (int i = 0; r->list && i < RECORD_GRAPHS; i++)
        if (r->known[i].graph) r->inner->dev.graph_close(r->known[i].graph);
    r->s->recorder = NULL;
    free(r);
}

struct record_counts record_counts(const struct recorder *r) { return r->counts; }
