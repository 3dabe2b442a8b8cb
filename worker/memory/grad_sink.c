#include "worker/memory/grad_sink.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"

/* Buffers of partial sums: more leaves than that are summed in a row. */
enum { MAX_LEAVES = 64 };

/* ---- what a step is divided into ---------------------------------------------------------------------------------------- */

int64_t grad_micro_batches(const struct config *c, int64_t ranks) { return c->gradient_accumulation_steps * ranks; }
bool grad_steps_at_once(const struct config *c) { return c->optimizer_in_bwd; }

status grad_divide(const struct config *c, int64_t ranks, int64_t resumed, int64_t *micro_batches, int64_t *leaves)
{
    int64_t m = resumed ? resumed : grad_micro_batches(c, ranks);
    if (m % ranks)
        FAIL(ST_CONFIG_RUNTIME,
             "the checkpoint's step has %lld micro-batches, which %lld ranks cannot share equally; use a number of "
             "ranks that divides %lld",
             (long long)m, (long long)ranks, (long long)m);
    int64_t v = c->virtual_ranks > 0 ? c->virtual_ranks : m;
    while (c->virtual_ranks <= 0 && v > MAX_LEAVES && v > ranks && (v > MAX_LEAVES || m % v || v % ranks)) v--;
    if (m % v || v % ranks)
        FAIL(ST_CONFIG_RUNTIME, "virtual_ranks: %lld must divide the %lld micro-batches of a step and be a multiple of the %lld ranks",
             (long long)v, (long long)m, (long long)ranks);
    *micro_batches = m;
    *leaves = v;
    return ST_OK;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------- */

static int64_t longest_of(const struct param_store *params)
{
    int64_t longest = 0;
    for (int i = 0; i < params->n; i++)
        if (param_is_trained(&params->p[i]) && params->p[i].count > longest) longest = params->p[i].count;
    return longest;
}

status grad_sink_init(struct grad_sink *g, struct param_store *params, struct comm *comm, struct stream *s, struct stream *across,
                      const struct grad_sizes *sizes, status (*consume)(void *, int, tensor), void *owner)
{
    int leaves = sizes->leaves, micros = sizes->micros;
    assert(!consume || across == s);
    *g = (struct grad_sink){.params = params,
                            .s = s,
                            .across = across,
                            .dt = sizes->dt,
                            .leaves = leaves,
                            .micros = micros,
                            .consume = consume,
                            .owner = owner};
    g->lo = (int)((int64_t)leaves * comm->rank / comm->size);
    g->hi = (int)((int64_t)leaves * (comm->rank + 1) / comm->size);
    /* Leaves of several micro-batches cannot pass tensor by tensor through the scratch: one buffer more. */
    g->depth = consume ? 0 : tree_depth(leaves, g->lo, g->hi) + (micros > 1 && g->hi - g->lo > 1);
    g->seen = mem_alloc((size_t)(params->n + 1) * sizeof *g->seen);
    g->touched = mem_alloc((size_t)(params->n + 1) * sizeof *g->touched);
    g->held_at = mem_alloc((size_t)(params->n + 1) * sizeof *g->held_at);
    buckets_init(&g->buckets, params, across == s ? 0 : sizes->bucket);
    tree_reduce_init(&g->reduce, comm, params->be, leaves, consume ? longest_of(params) : g->buckets.size, g->dt);
    return s->be->dev.event_open(&g->ready);
}

static int64_t place_next(int64_t *at, int64_t count)
{
    int64_t here = *at;
    *at += (count + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    return here;
}

/* Places of the gradients that stay open, those of a layer in the places of every other one's; and the longest of the others. Returns
 * the elements held. */
static int64_t place_held(struct grad_sink *g, int64_t *largest)
{
    const struct param *p = g->params->p;
    int64_t of_none = 0, of_layer = 0, most = 0, layer = -1;
    *largest = 0;
    for (int i = 0; i < g->params->n; i++) {
        if (!param_is_trained(&p[i])) continue;
        if (!p[i].held) {
            if (p[i].count > *largest) *largest = p[i].count;
            continue;
        }
        if (p[i].layer != layer) of_layer = 0;
        layer = p[i].layer;
        g->held_at[i] = place_next(layer < 0 ? &of_none : &of_layer, p[i].count);
        if (layer >= 0 && of_layer > most) most = of_layer;
    }
    for (int i = 0; i < g->params->n; i++)
        if (p[i].layer >= 0) g->held_at[i] += of_none;
    return of_none + most;
}

void grad_sink_layout(struct grad_sink *g, struct arena *gradients, struct arena *scratch, struct arena *comm_scratch,
                      struct arena *staging)
{
    int64_t flat = g->params->flat_count, largest, held = place_held(g, &largest);
    for (int i = 0; i < g->depth; i++)
        g->buffer[i] = arena_take(gradients, (size_t)flat * dtype_bytes(g->dt), "gradients, %s, partial sum %d", dtype_name(g->dt), i);
    if (g->consume || (g->hi - g->lo > 1 && g->micros == 1)) {
        struct arena *a = g->consume ? gradients : scratch;
        if (largest) g->scratch = arena_take(a, (size_t)largest * dtype_bytes(g->dt), "largest gradient, %s", dtype_name(g->dt));
        if (held) g->held = arena_take(a, (size_t)held * dtype_bytes(g->dt), "gradients that stay open, %s", dtype_name(g->dt));
    }
    tree_reduce_layout(&g->reduce, comm_scratch, staging);
}

void grad_sink_release(struct grad_sink *g)
{
    if (g->ready) g->s->be->dev.event_close(g->ready);
    tree_reduce_release(&g->reduce);
    buckets_release(&g->buckets);
    free(g->seen);
    free(g->touched);
    free(g->held_at);
    *g = (struct grad_sink){0};
}

void grad_step_begin(struct grad_sink *g)
{
    g->n_nodes = 0;
    g->leaf = g->lo;
    g->micro = 0;
    g->closing = false;
}

static void open_leaf(struct grad_sink *g)
{
    struct tree_node *top = g->n_nodes ? &g->node[g->n_nodes - 1] : NULL;
    g->right = g->micros == 1 && top && tree_is_node(g->leaves, top->lo, g->leaf + 1);
    if (g->right) return;
    assert(g->n_nodes < g->depth);
    g->node[g->n_nodes++] = (struct tree_node){g->leaf, g->leaf + 1};
}

/* How many partial sums there are when the leaf in progress is complete and merged: it ends the topmost. */
static int remaining(const struct grad_sink *g)
{
    int n = g->n_nodes;
    while (n >= 2 && tree_is_node(g->leaves, g->node[n - 2].lo, g->leaf + 1)) n--;
    return n;
}

status grad_micro_begin(struct grad_sink *g)
{
    g->open = -1;
    memset(g->seen, 0, (size_t)g->params->n * sizeof *g->seen);
    if (!g->micro) memset(g->touched, 0, (size_t)g->params->n * sizeof *g->touched);
    if (g->consume) return ST_OK;
    if (!g->micro) open_leaf(g);
    g->closing = g->leaf + 1 == g->hi && g->micro + 1 == g->micros;
    if (!g->closing) return ST_OK;
    g->height = g->n_nodes;
    g->remain = remaining(g);
    buckets_begin(&g->buckets);
    return ST_OK;
}

static tensor place(const struct grad_sink *g, int param, void *flat)
{
    const struct param *p = &g->params->p[param];
    void *at = (char *)flat + (size_t)p->flat * dtype_bytes(g->dt);
    return p->rank == 2 ? tensor_2d(at, g->dt, p->dim[0], p->dim[1]) : tensor_1d(at, g->dt, p->count);
}

static tensor flattened(tensor t) { return tensor_1d(t.data, t.dt, tensor_count(&t)); }

static tensor target(const struct grad_sink *g, int param)
{
    if (!g->consume && !g->right) return place(g, param, g->buffer[g->n_nodes - 1]);
    tensor t = place(g, param, g->scratch);
    t.data = g->params->p[param].held ? (char *)g->held + (size_t)g->held_at[param] * dtype_bytes(g->dt) : g->scratch;
    return t;
}

tensor grad_acquire(struct grad_sink *g, int param, bool *accumulate)
{
    *accumulate = g->touched[param];
    g->touched[param] = true;
    if ((g->consume || g->right) && !g->params->p[param].held) {
        assert(g->open < 0 || g->open == param); /* what stays open beside others is held */
        g->open = param;
    }
    return target(g, param);
}

status grad_acquire_zeroed(struct grad_sink *g, int param, tensor *out)
{
    bool accumulate;
    *out = grad_acquire(g, param, &accumulate);
    return accumulate ? ST_OK : g->s->be->dev.zero(g->s, out->data, (size_t)tensor_count(out) * dtype_bytes(out->dt));
}

static status add(struct stream *s, tensor x, tensor y)
{
    return op_axpy(s, &(struct axpy_args){.x = flattened(x), .y = flattened(y), .scale = 1, .accumulate = true});
}

static status complete(struct grad_sink *g, int param)
{
    tensor t = target(g, param);
    if (g->open == param) g->open = -1;
    if (g->consume) {
        int64_t n = tensor_count(&t);
        TRY(tree_reduce(&g->reduce, g->s, &t.data, 1, t.data, n));
        return g->consume(g->owner, param, flattened(t));
    }
    if (g->right) TRY(add(g->s, t, place(g, param, g->buffer[g->n_nodes - 1])));
    if (g->closing) buckets_complete(&g->buckets, &g->params->p[param]);
    return ST_OK;
}

status grad_done(struct grad_sink *g, int param)
{
    g->seen[param]++;
    return g->seen[param] == g->params->p[param].uses ? complete(g, param) : ST_OK;
}

static void *from(const struct grad_sink *g, int buffer, struct range r)
{
    return (char *)g->buffer[buffer] + (size_t)r.lo * dtype_bytes(g->dt);
}

/* Of `height` partial sums the topmost are added down, until so many remain. */
static status merge(const struct grad_sink *g, struct range r, int height, int remain)
{
    int64_t n = range_count(r);
    for (int i = height - 1; i >= remain; i--) TRY(add(g->s, tensor_1d(from(g, i, r), g->dt, n), tensor_1d(from(g, i - 1, r), g->dt, n)));
    return ST_OK;
}

/* The leaf in progress is complete. The step's last one is merged bucket by bucket. */
static status close_leaf(struct grad_sink *g)
{
    int remain = remaining(g);
    if (!g->closing) TRY(merge(g, (struct range){0, g->params->flat_count}, g->n_nodes, remain));
    g->n_nodes = remain;
    g->node[remain - 1].hi = g->leaf + 1;
    return ST_OK;
}

status grad_micro_end(struct grad_sink *g)
{
    for (int i = 0; i < g->params->n; i++) {
        const struct param *p = &g->params->p[i];
        if (!param_is_trained(p) || g->seen[i] == p->uses) continue;
        if (!g->touched[i]) {
            tensor t = target(g, i);
            TRY(g->s->be->dev.zero(g->s, t.data, (size_t)p->count * dtype_bytes(g->dt)));
        }
        TRY(complete(g, i));
    }
    if (++g->micro < g->micros) return ST_OK;
    g->micro = 0;
    if (!g->consume) TRY(close_leaf(g));
    g->leaf++;
    g->right = false;
    return ST_OK;
}

/* ---- over the ranks ------------------------------------------------------------------------------------------------------- */

static status reduce(struct grad_sink *g, struct range r)
{
    void *node[TREE_MAX_NODES];
    int64_t n = range_count(r);
    for (int i = 0; i < g->remain; i++) node[i] = from(g, i, r);
    return tree_reduce(&g->reduce, g->across, node, g->remain, node[0], n);
}

static status send_complete(struct grad_sink *g)
{
    const struct device *dev = &g->s->be->dev;
    int first = g->buckets.taken;
    while (buckets_take(&g->buckets)) TRY(merge(g, bucket_range(&g->buckets, g->buckets.taken - 1), g->height, g->remain));
    if (g->buckets.taken == first) return ST_OK;
    if (g->across != g->s) {
        TRY(dev->event_record(g->ready, g->s));
        TRY(dev->event_wait(g->ready, g->across, "gradients ready"));
    }
    for (int k = first; k < g->buckets.taken; k++) TRY(reduce(g, bucket_range(&g->buckets, k)));
    return ST_OK;
}

status grad_send(struct grad_sink *g) { return g->closing && g->across != g->s ? send_complete(g) : ST_OK; }

status grad_reduce(struct grad_sink *g)
{
    if (g->consume) return ST_OK;
    /* The bucket of the lowest tensor is always left: none is sent behind its layer. */
    assert(g->closing && g->leaf == g->hi && (g->buckets.taken < g->buckets.n || !g->buckets.n));
    TRY(send_complete(g));
    assert(g->buckets.taken == g->buckets.n);
    g->closing = false;
    return ST_OK;
}

tensor grad_of(const struct grad_sink *g, int param) { return flattened(place(g, param, g->buffer[0])); }

tensor grad_all(const struct grad_sink *g) { return tensor_1d(g->buffer[0], g->dt, g->params->flat_count); }

bool grad_held(const struct grad_sink *g, int param) { return !g->consume && param_is_trained(&g->params->p[param]); }
