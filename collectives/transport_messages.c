/* Messages between any ranks: all-to-all of the slices, all-gather of the sums. */
#include "collectives/transport.h"

/* Node i of every rank that has one: part j of mine to rank j, my part of theirs into its row. */
static status exchange_nodes(struct transport *x, const struct round *r, void *const *from, int i)
{
    int me = x->comm->rank, P = x->comm->size;
    size_t *to_bytes = x->extent, *to_at = to_bytes + P, *from_bytes = to_at + P, *from_at = from_bytes + P;
    bool mine = i < x->ranks[me].n;
    for (int j = 0; j < P; j++) {
        to_bytes[j] = mine && j != me ? (size_t)r->count[j] * x->element : 0;
        to_at[j] = (size_t)r->at[j] * x->element;
        from_bytes[j] = i < x->ranks[j].n && j != me ? (size_t)r->count[me] * x->element : 0;
        from_at[j] = (size_t)(x->ranks[j].first + i) * (size_t)x->each * x->element;
    }
    return x->comm->fn->all_to_all(x->comm, mine ? from[i] : x->landing, to_bytes, to_at, x->landing, from_bytes, from_at);
}

static status messages_exchange(struct transport *x, const struct round *r, void *const *from)
{
    for (int i = 0; i < x->max_nodes; i++) TRY(exchange_nodes(x, r, from, i));
    return ST_OK;
}

static void *messages_rows(const struct transport *x, int64_t round)
{
    (void)round;
    return x->landing;
}

static void *messages_sum(const struct transport *x, const struct round *r, void *to)
{
    return (char *)to + (size_t)r->at[x->comm->rank] * x->element;
}

static status messages_gather(struct transport *x, const struct round *r, void *to)
{
    size_t *bytes = x->extent, *offset = bytes + x->comm->size;
    for (int j = 0; j < x->comm->size; j++) {
        bytes[j] = (size_t)r->count[j] * x->element;
        offset[j] = (size_t)r->at[j] * x->element;
    }
    return x->comm->fn->all_gather_in_place(x->comm, to, bytes, offset);
}

const struct transport_table transport_messages = {
    .name = "messages",
    .piece = 1024 * 1024, /* messages of 512 KB at 8 ranks */
    .exchange = messages_exchange,
    .rows = messages_rows,
    .sum = messages_sum,
    .gather = messages_gather,
};
