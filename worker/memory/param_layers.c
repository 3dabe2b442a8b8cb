/* param_layers.c — what of frozen weights comes and goes: the adapters beside them, and NF4 weights dequantised a layer ahead. */
#include <assert.h>
#include <stdlib.h>

#include "kernels/base/text.h"
#include "worker/memory/param_store.h"

enum { PLACE_ALIGN = 128 }; /* elements: of a weight within its layer's buffer */

/* ---- adapters beside weights --------------------------------------------------------------------------------------------- */

void param_join(struct param_store *ps, int w, int a, int b, int64_t beside, int64_t column)
{
    struct param *p = ps->p;
    assert(p[w].kind == PARAM_FROZEN || param_is_ahead(ps, &p[w]));
    assert(p[a].kind == PARAM_ADAPTER && p[b].kind == PARAM_ADAPTER);
    p[w].beside = beside;
    p[w].under = p[a].dim[0];
    p[a].joins = p[b].joins = w;
    p[a].column = -1;
    p[b].column = column;
}

void param_joined(const struct param_store *ps, int w, tensor *beside, tensor *under)
{
    const struct param *p = &ps->p[w];
    *beside = *under = (tensor){0};
    if (!p->beside) return;
    *beside = tensor_columns(&p->value, p->dim[1], p->beside);
    *under = tensor_rows(&p->value, p->dim[0], p->under);
}

/* The second copy of an adapter's A or s·B. */
static status second_copy(const struct param_store *ps, struct stream *s, const struct param *p)
{
    tensor beside, to;
    param_joined(ps, p->joins, &beside, &to);
    if (p->column >= 0) to = tensor_columns(&beside, p->column, p->dim[1]);
    return op_axpy(s, &(struct axpy_args){.x = p->work, .y = to, .scale = 1});
}

static struct param_layer *buffer_of(struct param_store *ps, int64_t layer) { return &ps->buffer[layer % PARAM_LAYERS]; }

/* The working copies were written on s: what is made of them elsewhere follows now, or when its layer is entered. */
static status follow(struct param_store *ps, struct stream *s, struct param *p)
{
    p->written++;
    if (p->joins < 0) return ST_OK;
    if (!param_is_ahead(ps, &ps->p[p->joins])) return second_copy(ps, s, p);
    struct param_layer *b = buffer_of(ps, p->layer);
    if (b->layer == p->layer) b->current = false;
    ps->behind = true;
    return ST_OK;
}

status param_store_second_copies(struct param_store *ps, struct stream *s, int64_t lo, int64_t hi)
{
    for (int i = 0; i < ps->n; i++) {
        struct param *p = &ps->p[i];
        if (p->kind == PARAM_ADAPTER && p->flat < hi && p->flat + p->count > lo) TRY(follow(ps, s, p));
    }
    return ST_OK;
}

status param_store_refresh(struct param_store *ps, struct stream *s, int id)
{
    struct param *p = &ps->p[id];
    if (p->kind < PARAM_ADAPTER) return ST_OK;
    if (param_is_copied(ps, p))
        TRY(op_axpy(s, &(struct axpy_args){.x = tensor_1d(p->value.data, p->value.dt, p->count),
                                           .y = tensor_1d(p->work.data, p->work.dt, p->count),
                                           .scale = p->scale}));
    return follow(ps, s, p);
}

status param_store_refresh_all(struct param_store *ps, struct stream *s)
{
    for (int i = 0; i < ps->n; i++) TRY(param_store_refresh(ps, s, i));
    return ST_OK;
}

/* ---- layers of NF4 weights: opened, laid out --------------------------------------------------------------------------------- */

static void find_layers(struct param_store *ps)
{
    ps->layers = 0;
    for (int i = 0; i < ps->n; i++)
        if (ps->p[i].layer >= ps->layers) ps->layers = ps->p[i].layer + 1;
    ps->lowest = ps->layers;
    ps->first_of = mem_alloc((size_t)(ps->layers + 1) * sizeof *ps->first_of);
    for (int i = 0; i < ps->n; i++) {
        const struct param *p = &ps->p[i];
        if (p->layer < 0) continue;
        if (i == 0 || ps->p[i - 1].layer != p->layer) ps->first_of[p->layer] = i;
        ps->first_of[p->layer + 1] = i + 1;
        if (param_is_trained(p) && p->layer < ps->lowest) ps->lowest = p->layer;
    }
}

status param_store_open(struct param_store *ps)
{
    const struct device *dev = &ps->be->dev;
    bool any = false;
    for (int i = 0; i < ps->n && !any; i++) any = param_is_ahead(ps, &ps->p[i]);
    if (!any) return ST_OK;
    find_layers(ps);
    TRY(dev->stream_open(&ps->decode, 1));
    ps->decode->name = "decode";
    TRY(dev->event_open(&ps->updated));
    for (int k = 0; k < PARAM_LAYERS; k++) {
        TRY(dev->event_open(&ps->buffer[k].filled));
        TRY(dev->event_open(&ps->buffer[k].left));
    }
    return ST_OK;
}

void param_layers_release(struct param_store *ps)
{
    if (!ps->decode) return;
    const struct device *dev = &ps->be->dev;
    struct event *const events[] = {ps->updated, ps->buffer[0].filled, ps->buffer[0].left, ps->buffer[1].filled, ps->buffer[1].left};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i]) dev->event_close(events[i]);
    dev->stream_close(ps->decode);
    free(ps->first_of);
}

/* Elements of the layer's weights; where `data` is, they get their places in it. */
static int64_t place_layer(struct param_store *ps, int64_t layer, char *data)
{
    int64_t at = 0;
    for (int i = ps->first_of[layer]; i < ps->first_of[layer + 1]; i++) {
        struct param *p = &ps->p[i];
        bool here = param_is_ahead(ps, p), elsewhere = p->kind == PARAM_FROZEN && p->rank == 2; /* quantised in another layer */
        if (!here && !elsewhere) continue;
        if (here) p->value = param_shaped(p, data ? data + (size_t)at * dtype_bytes(ps->act) : NULL, ps->act);
        at += (param_extent(p) + PLACE_ALIGN - 1) / PLACE_ALIGN * PLACE_ALIGN;
    }
    return at;
}

/* Adapters share a layer's buffer with those of other layers, and the zeros between them: all layers are laid out alike. */
static bool adapters_join(const struct param_store *ps)
{
    for (int i = ps->first_of[0]; i < ps->first_of[1]; i++)
        if (ps->p[i].joins >= 0) return true;
    return false;
}

void param_layers_layout(struct param_store *ps, struct arena *scratch)
{
    int64_t most = 0;
    if (!ps->decode) return;
    for (int64_t l = 0; l < ps->layers; l++) {
        int64_t count = place_layer(ps, l, NULL);
        if (count > most) most = count;
        assert(!adapters_join(ps) || count == most);
    }
    ps->layer_count = most;
    for (int k = 0; k < PARAM_LAYERS; k++) {
        struct param_layer *b = &ps->buffer[k];
        b->layer = -1;
        b->data = arena_take(scratch, (size_t)most * dtype_bytes(ps->act), "layer of dequantised weights%s, %s",
                             adapters_join(ps) ? " and adapters" : "", dtype_name(ps->act));
    }
    for (int64_t l = 0; l < ps->layers; l++) place_layer(ps, l, buffer_of(ps, l)->data);
}

status param_layers_clear(struct param_store *ps, struct stream *s)
{
    for (int k = 0; k < PARAM_KEPT; k++) ps->kept[k].id = -1;
    if (!ps->decode) return ST_OK;
    for (int k = 0; k < PARAM_LAYERS; k++) {
        ps->buffer[k].layer = -1;
        TRY(ps->be->dev.zero(s, ps->buffer[k].data, (size_t)ps->layer_count * dtype_bytes(ps->act)));
    }
    ps->behind = true;
    return ST_OK;
}

/* ---- walked ------------------------------------------------------------------------------------------------------------------ */

static status put_layer(struct param_store *ps, int64_t layer, bool weights)
{
    for (int i = ps->first_of[layer]; i < ps->first_of[layer + 1]; i++) {
        const struct param *p = &ps->p[i];
        struct nf4_args q = p->nf4;
        q.w = p->value;
        bool decodes = weights && param_is_ahead(ps, p);
        if (decodes) TRY(ps->replaced ? param_fetch(ps->replaced, p, p->value) : op_nf4_dequantize(ps->decode, &q));
        if (p->joins >= 0) TRY(second_copy(ps, ps->decode, p));
    }
    return ST_OK;
}

/* Begins what the layer's buffer lacks of it. s: whose work has written what is read here, and has read what is overwritten. */
static status fill(struct param_store *ps, struct stream *s, int64_t layer)
{
    const struct device *dev = &ps->be->dev;
    struct param_layer *b = buffer_of(ps, layer);
    bool weights = b->layer != layer;
    if (!weights && b->current) return ST_OK;
    if (ps->behind) {
        TRY(dev->event_record(ps->updated, s));
        TRY(dev->event_wait(ps->updated, ps->decode, "adapters updated"));
        ps->behind = false;
    }
    TRY(dev->event_wait(b->left, ps->decode, "layer left"));
    TRY(put_layer(ps, layer, weights));
    b->layer = layer;
    b->current = b->filling = true;
    return dev->event_record(b->filled, ps->decode);
}

status param_enter(struct param_store *ps, struct stream *s, int64_t layer, enum phase phase)
{
    int64_t next = phase == PHASE_FORWARD ? layer + 1 : layer - 1;
    struct param_layer *b = buffer_of(ps, layer);
    if (!ps->decode) return ST_OK;
    assert(ps->inside < 0);
    ps->inside = layer;
    TRY(fill(ps, s, layer));
    if (b->filling) TRY(ps->be->dev.event_wait(b->filled, s, "layer decoded"));
    b->filling = false;
    return next < ps->layers && (phase == PHASE_FORWARD || next >= ps->lowest) ? fill(ps, s, next) : ST_OK;
}

status param_leave(struct param_store *ps, struct stream *s, int64_t layer, enum phase phase)
{
    (void)phase;
    if (!ps->decode) return ST_OK;
    assert(ps->inside == layer);
    ps->inside = -1;
    return ps->be->dev.event_record(buffer_of(ps, layer)->left, s);
}
