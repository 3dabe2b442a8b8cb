/* Ranks of one host read what others wrote for them:
 *
 *   round k     write slices for their owners | sum own of k−1 | copy out sums of k−2 | meet          one meeting a round
 *
 * A rank's part of the segment: its meeting counter in a line of its own, then two of each of
 *   inbox      a row per node of all ranks, written by the rank that has the node (rows of its own nodes stay untouched)
 *   sum        what it summed, read by all
 * What is written in iteration k is read in k+1 and written again in k+2, so that one meeting per iteration is enough, and none
 * after the last: the next call's first meeting stands before its first sum. */
#include <stdatomic.h>
#include <string.h>

#include "collectives/transport.h"
#include "kernels/base/team.h"

enum {
    LINE_BYTES = 64,
    COPY_PART = 64 << 10, /* bytes that one thread copies at a time */
};

struct copied {
    char *to;
    const char *from;
    size_t bytes;
};

static void copy_part(const void *arg, int64_t i)
{
    const struct copied *c = arg;
    size_t at = (size_t)i * COPY_PART;
    memcpy(c->to + at, c->from + at, c->bytes - at < COPY_PART ? c->bytes - at : COPY_PART);
}

static void copy(void *to, const void *from, size_t bytes, int threads)
{
    struct copied c = {to, from, bytes};
    team_for(bytes > 2 * COPY_PART ? threads : 1, (int64_t)((bytes + COPY_PART - 1) / COPY_PART), copy_part, &c);
}

static size_t inbox_bytes(const struct transport *x) { return (size_t)x->n_nodes * (size_t)x->each * x->element; }
static size_t sum_bytes(const struct transport *x) { return (size_t)x->each * x->element; }

static char *inbox_of(const struct transport *x, int rank, int64_t round)
{
    return (char *)x->parts[rank] + LINE_BYTES + (size_t)(round & 1) * inbox_bytes(x);
}

static char *sum_of(const struct transport *x, int rank, int64_t round)
{
    return (char *)x->parts[rank] + LINE_BYTES + 2 * inbox_bytes(x) + (size_t)(round & 1) * sum_bytes(x);
}

status transport_share(struct transport *x)
{
    return x->comm->fn->share(x->comm, LINE_BYTES + 2 * inbox_bytes(x) + 2 * sum_bytes(x), x->parts);
}

/* The only place where a rank waits for another in shared memory. */
static void wait_for(struct team_word *counter, uint32_t value)
{
    uint32_t now = atomic_load_explicit(&counter->value, memory_order_acquire);
    while ((int32_t)(now - value) < 0) now = team_wait(counter, now);
}

/* Returns when every rank has come. All that it wrote before is then visible here. */
static status shared_turn(struct transport *x)
{
    uint32_t mine = ++x->meetings;
    struct team_word *word = x->parts[x->comm->rank];
    atomic_store_explicit(&word->value, mine, memory_order_release);
    team_changed(word);
    for (int r = 0; r < x->comm->size; r++) wait_for(x->parts[r], mine);
    return ST_OK;
}

/* Begins with the rank behind this one, so that not all write to one. */
static status shared_exchange(struct transport *x, const struct round *r, void *const *from)
{
    int me = x->comm->rank, P = x->comm->size;
    for (int k = 1; k < P; k++) {
        int j = (me + k) % P;
        char *row = inbox_of(x, j, r->number) + (size_t)x->ranks[me].first * (size_t)x->each * x->element;
        for (int i = 0; i < x->ranks[me].n; i++, row += (size_t)x->each * x->element)
            copy(row, (const char *)from[i] + (size_t)r->at[j] * x->element, (size_t)r->count[j] * x->element, x->threads);
    }
    return ST_OK;
}

static void *shared_rows(const struct transport *x, int64_t round) { return inbox_of(x, x->comm->rank, round); }

static void *shared_sum(const struct transport *x, const struct round *r, void *to)
{
    (void)to;
    return sum_of(x, x->comm->rank, r->number);
}

static status shared_gather(struct transport *x, const struct round *r, void *to)
{
    for (int j = 0; j < x->comm->size; j++)
        copy((char *)to + (size_t)r->at[j] * x->element, sum_of(x, j, r->number), (size_t)r->count[j] * x->element, x->threads);
    return ST_OK;
}

const struct transport_table transport_shared = {
    .name = "shared",
    .piece = 128 * 1024, /* what is under way stays in the second-level cache */
    .lag = 1,
    .exchange = shared_exchange,
    .rows = shared_rows,
    .sum = shared_sum,
    .gather = shared_gather,
    .turn = shared_turn,
};
