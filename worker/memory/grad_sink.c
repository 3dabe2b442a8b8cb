#include "worker/memory/grad_sink.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"

static int64_t longest_of(const struct param_store *params)
{
    int64_t longest = 0;
    for (int i = 0; i < params->n; i++)
        if (param_is_trained(&params->p[i]) && params->p[i].count > longest) longest = params->p[i].count;
    return longest;
}

void grad_sink_init(struct grad_sink *g, struct param_store *params, struct comm *comm, struct stream *s, dtype dt, int leaves, int micros,
                    status (*consume)(void *, int, tensor), void *owner)
{
    *g = (struct grad_sink){.params = params, .s = s, .dt = dt, .leaves = leaves, .micros = micros, .consume = consume, .owner = owner};
    g->lo = (int)((int64_t)leaves * comm->rank / comm->size);
    g->hi = (int)((int64_t)leaves * (comm->rank + 1) / comm->size);
    /* Leaves of several micro-batches cannot pass tensor by tensor through the scratch: one buffer more. */
    g->depth = consume ? 0 : tree_depth(leaves, g->lo, g->hi) + (micros > 1 && g->hi - g->lo > 1);
    g->seen = mem_alloc((size_t)(params->n + 1) * sizeof *g->seen);
    g->touched = mem_alloc((size_t)(params->n + 1) * sizeof *g->touched);
    g->held_at = mem_alloc((size_t)(params->n + 1) * sizeof *g->held_at);
    tree_reduce_init(&g->reduce, comm, params->be, leaves, consume ? longest_of(params) : params->flat_count, dt);
}

/* Places of the gradients that stay open, and the longest of those and of the others. Returns the elements held. */
static int64_t place_held(struct grad_sink *g, int64_t *largest, int64_t *largest_held)
{
    int64_t at = 0;
    *largest = *largest_held = 0;
    for (int i = 0; i < g->params->n; i++) {
        const struct param *p = &g->params->p[i];
        if (!param_is_trained(p)) continue;
        int64_t *longest = p->held ? largest_held : largest;
        if (p->count > *longest) *longest = p->count;
        if (!p->held) continue;
        g->held_at[i] = at;
        at += (p->count + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    }
    return at;
}

void grad_sink_layout(struct grad_sink *g, struct arena *gradients, struct arena *scratch, struct arena *comm_scratch,
                      struct arena *staging)
{
    int64_t flat = g->params->flat_count, largest, largest_held, held = place_held(g, &largest, &largest_held);
    for (int i = 0; i < g->depth; i++)
        g->buffer[i] = arena_take(gradients, (size_t)flat * dtype_bytes(g->dt), "gradients, %s, partial sum %d", dtype_name(g->dt), i);
    if (g->consume || (g->hi - g->lo > 1 && g->micros == 1)) {
        struct arena *a = g->consume ? gradients : scratch;
        g->scratch = arena_take(a, (size_t)largest * dtype_bytes(g->dt), "largest gradient, %s", dtype_name(g->dt));
        if (held) g->held = arena_take(a, (size_t)held * dtype_bytes(g->dt), "gradients that stay open, %s", dtype_name(g->dt));
    }
    tree_reduce_layout(&g->reduce, comm_scratch, staging);
}

void grad_sink_release(struct grad_sink *g)
{
    tree_reduce_release(&g->reduce);
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
}

status grad_micro_begin(struct grad_sink *g)
{
    memset(g->seen, 0, (size_t)g->params->n * sizeof *g->seen);
    if (g->micro) return ST_OK;
    memset(g->touched, 0, (size_t)g->params->n * sizeof *g->touched);
    if (g->consume) return ST_OK;
    struct tree_node *top = g->n_nodes ? &g->node[g->n_nodes - 1] : NULL;
    g->right = g->micros == 1 && top && tree_is_node(g->leaves, top->lo, g->leaf + 1);
    if (g->right) return ST_OK;
    assert(g->n_nodes < g->depth);
    g->node[g->n_nodes++] = (struct tree_node){g->leaf, g->leaf + 1};
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
    if (g->consume) {
        int64_t n = tensor_count(&t);
        TRY(tree_reduce(&g->reduce, g->s, &t.data, 1, t.data, n, (struct range){0, n}));
        return g->consume(g->owner, param, flattened(t));
    }
    return g->right ? add(g->s, t, place(g, param, g->buffer[g->n_nodes - 1])) : ST_OK;
}

status grad_done(struct grad_sink *g, int param)
{
    g->seen[param]++;
    return g->seen[param] == g->params->p[param].uses ? complete(g, param) : ST_OK;
}

static status merge(struct grad_sink *g)
{
    while (g->n_nodes >= 2) {
        struct tree_node *a = &g->node[g->n_nodes - 2], *b = &g->node[g->n_nodes - 1];
        if (!tree_is_node(g->leaves, a->lo, b->hi)) break;
        int64_t n = g->params->flat_count;
        TRY(add(g->s, tensor_1d(g->buffer[g->n_nodes - 1], g->dt, n), tensor_1d(g->buffer[g->n_nodes - 2], g->dt, n)));
        a->hi = b->hi;
        g->n_nodes--;
    }
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
    g->leaf++;
    if (g->consume) return ST_OK;
    if (g->right) g->node[g->n_nodes - 1].hi = g->leaf;
    g->right = false;
    return merge(g);
}

status grad_reduce(struct grad_sink *g)
{
    if (g->consume || (g->reduce.comm->size == 1 && g->n_nodes == 1)) return ST_OK;
    int64_t n = g->params->flat_count;
    return tree_reduce(&g->reduce, g->s, g->buffer, g->n_nodes, g->buffer[0], n, (struct range){0, n});
}

tensor grad_of(const struct grad_sink *g, int param) { return flattened(place(g, param, g->buffer[0])); }

tensor grad_all(const struct grad_sink *g) { return tensor_1d(g->buffer[0], g->dt, g->params->flat_count); }

bool grad_held(const struct grad_sink *g, int param) { return !g->consume && param_is_trained(&g->params->p[param]); }
