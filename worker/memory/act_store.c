#include "worker/memory/act_store.h"

#include <assert.h>
#include <stdlib.h>

#include "kernels/base/text.h"

/* ---- policy ------------------------------------------------------------------------------------------------------------- */

static enum act_rung rung_of(const struct config *c)
{
    static const enum act_rung RUNG[] = {[RECOMPUTE_NONE] = ACT_RUNG_NONE,
                                         [RECOMPUTE_PRODUCTS] = ACT_RUNG_PRODUCTS,
                                         [RECOMPUTE_FFN] = ACT_RUNG_FFN,
                                         [RECOMPUTE_ATTENTION] = ACT_RUNG_INPUTS,
                                         [RECOMPUTE_BLOCK] = ACT_RUNG_BLOCK};
    if (c->recompute != RECOMPUTE_AUTO) return RUNG[c->recompute];
    return c->ac_mode == AC_FULL || c->ac_mode == AC_SELECTIVE ? ACT_RUNG_BLOCK : ACT_RUNG_PRODUCTS;
}

struct act_policy act_policy_of(const struct config *c)
{
    return (struct act_policy){.rung = rung_of(c),
                               .every = c->ac_mode == AC_SELECTIVE ? c->ac_option : 0,
                               .offload = c->enable_activation_offloading,
                               .apart = c->activation_offloading_use_streams,
                               .tile = c->mlp_tile_tokens > 0 ? c->mlp_tile_tokens : 0};
}

/* ---- memory ------------------------------------------------------------------------------------------------------------- */

/* Offloading has its events, and streams where it is to have its own. */
static status open_ring(struct act_store *a, const struct act_policy *policy)
{
    const struct device *dev = &a->be->dev;
    struct act_ring *r = &a->ring;
    if (!policy->offload || a->be->tensors_in != MEM_DEVICE) return ST_OK;
    r->places = a->layers < ACT_PLACES ? a->layers : ACT_PLACES;
    r->host = mem_alloc((size_t)(a->layers * a->n_slots) * sizeof *r->host);
    TRY(dev->event_open(&r->left));
    for (int k = 0; k < ACT_PLACES; k++) {
        TRY(dev->event_open(&r->sent[k]));
        TRY(dev->event_open(&r->filled[k]));
    }
    if (!policy->apart) return ST_OK;
    TRY(dev->stream_open(&r->out, 1));
    TRY(dev->stream_open(&r->in, 1));
    r->out->name = "activations out";
    r->in->name = "activations in";
    return ST_OK;
}

status act_store_init(struct act_store *a, const struct backend *be, const struct act_slot *slots, int n_slots, int64_t layers,
                      int64_t capacity, const struct act_policy *policy)
{
    *a = (struct act_store){
        .be = be, .slot = slots, .n_slots = n_slots, .layers = layers, .capacity = capacity, .lowest = policy->lowest, .inside = -1};
    a->tile = policy->tile && policy->tile < capacity ? policy->tile : capacity;
    a->rung = mem_alloc((size_t)layers * sizeof *a->rung);
    a->own = mem_alloc((size_t)(layers * n_slots) * sizeof *a->own);
    for (int64_t l = 0; l < layers; l++) a->rung[l] = policy->every > 0 && (l + 1) % policy->every ? ACT_RUNG_PRODUCTS : policy->rung;
    for (int i = 0; i < ACT_MAX_SLOTS; i++) a->owner[i] = -1;
    return open_ring(a, policy);
}

void act_store_release(struct act_store *a)
{
    struct act_ring *r = &a->ring;
    for (int k = 0; k < ACT_PLACES; k++) {
        if (r->sent[k]) a->be->dev.event_close(r->sent[k]);
        if (r->filled[k]) a->be->dev.event_close(r->filled[k]);
    }
    if (r->left) a->be->dev.event_close(r->left);
    if (r->out) a->be->dev.stream_close(r->out);
    if (r->in) a->be->dev.stream_close(r->in);
    free(r->host);
    free(a->rung);
    free(a->own);
    *a = (struct act_store){0};
}

static size_t slot_bytes(const struct act_store *a, int slot)
{
    int64_t tokens = a->slot[slot].tiled ? a->tile : a->capacity;
    return (size_t)(tokens * (a->slot[slot].width + a->slot[slot].room)) * dtype_bytes(a->slot[slot].dt);
}

/* Has the slot memory of its own in the layer? */
static bool is_kept(const struct act_store *a, int64_t layer, int slot)
{
    return !a->slot[slot].tiled && a->rung[layer] < a->slot[slot].from;
}

static bool has_memory(const struct act_store *a, int slot) { return a->slot[slot].width && a->slot[slot].of == slot; }

/* ---- layout -------------------------------------------------------------------------------------------------------------- */

/* Does the layer leave the device after its forward and come back for its backward? */
static bool travels(const struct act_store *a, int64_t layer)
{
    return a->ring.places && layer >= a->lowest && layer + a->ring.places < a->layers;
}

int64_t act_offloaded(const struct act_store *a)
{
    int64_t n = 0;
    for (int64_t l = 0; l < a->layers; l++) n += travels(a, l);
    return n;
}

static void *take(const struct act_store *a, int slot, struct arena *arena, const char *as)
{
    return arena_take(arena, slot_bytes(a, slot), "%s%s", as, a->slot[slot].name);
}

/* The ring has the places of a slot that some layer keeps. */
static void layout_ring(struct act_store *a, int slot, struct arena *kept, struct arena *offloaded)
{
    void *place[ACT_PLACES];
    bool taken[ACT_PLACES] = {false};
    for (int64_t l = 0; l < a->layers; l++) {
        int64_t k = l % a->ring.places;
        if (!is_kept(a, l, slot)) continue;
        if (!taken[k]) place[k] = take(a, slot, kept, "ring of ");
        taken[k] = true;
        a->own[l * a->n_slots + slot] = place[k];
        if (travels(a, l)) a->ring.host[l * a->n_slots + slot] = take(a, slot, offloaded, "");
    }
}

static void layout_kept(struct act_store *a, int slot, struct arena *kept)
{
    for (int64_t l = 0; l < a->layers; l++)
        if (is_kept(a, l, slot)) a->own[l * a->n_slots + slot] = take(a, slot, kept, "kept ");
}

void act_store_layout(struct act_store *a, struct arena *kept, struct arena *scratch, struct arena *offloaded)
{
    for (int slot = 0; slot < a->n_slots; slot++) {
        bool any_shared = false;
        if (!has_memory(a, slot)) continue;
        for (int64_t l = 0; l < a->layers; l++) any_shared |= !is_kept(a, l, slot);
        if (a->ring.places)
            layout_ring(a, slot, kept, offloaded);
        else
            layout_kept(a, slot, kept);
        if (any_shared) a->shared[slot] = take(a, slot, scratch, "shared ");
    }
}

/* ---- walked -------------------------------------------------------------------------------------------------------------- */

void act_begin(struct act_store *a, int64_t tokens, bool backward)
{
    a->tokens = tokens;
    act_look(a, 0, tokens);
    a->inside = -1;
    a->ring.used = backward;
    for (int i = 0; i < ACT_MAX_SLOTS; i++) a->owner[i] = -1;
}

/* The slots of a layer that travels, as much of them as the micro-batch fills. */
static status copy(const struct act_store *a, struct stream *s, int64_t layer, bool out)
{
    for (int slot = 0; slot < a->n_slots; slot++) {
        const struct act_slot *row = &a->slot[slot];
        int64_t at = layer * a->n_slots + slot;
        if (!has_memory(a, slot) || !is_kept(a, layer, slot)) continue;
        TRY(a->be->dev.copy(s, out ? a->ring.host[at] : a->own[at], out ? a->own[at] : a->ring.host[at],
                            (size_t)(a->tokens * (row->width + row->room)) * dtype_bytes(row->dt)));
    }
    return ST_OK;
}

/* s may write the place of a layer that is forward, and read that of one that is backward. */
status act_enter(struct act_store *a, struct stream *s, int64_t layer, enum phase phase)
{
    const struct act_ring *r = &a->ring;
    assert(a->inside < 0);
    a->inside = layer;
    if (!r->used || !r->places) return ST_OK;
    int64_t place = layer % r->places;
    if (phase == PHASE_FORWARD && travels(a, layer - r->places)) TRY(a->be->dev.event_wait(r->sent[place], s, "activations sent"));
    if (phase == PHASE_BACKWARD && travels(a, layer)) TRY(a->be->dev.event_wait(r->filled[place], s, "activations back"));
    return ST_OK;
}

/* Forward, the layer leaves; backward, the next that has its place comes. */
status act_leave(struct act_store *a, struct stream *s, int64_t layer, enum phase phase)
{
    const struct device *dev = &a->be->dev;
    const struct act_ring *r = &a->ring;
    struct stream *out = r->out ? r->out : s, *in = r->in ? r->in : s;
    int64_t below = layer - r->places;
    assert(a->inside == layer);
    a->inside = -1;
    if (!r->used || !travels(a, phase == PHASE_FORWARD ? layer : below)) return ST_OK;
    TRY(dev->event_record(r->left, s));
    if (phase == PHASE_FORWARD) {
        TRY(dev->event_wait(r->left, out, "activations written"));
        TRY(copy(a, out, layer, true));
        return dev->event_record(r->sent[layer % r->places], out);
    }
    TRY(dev->event_wait(r->left, in, "activations read"));
    TRY(copy(a, in, below, false));
    return dev->event_record(r->filled[layer % r->places], in);
}

/* ---- asked --------------------------------------------------------------------------------------------------------------- */

void act_look(struct act_store *a, int64_t first, int64_t count)
{
    a->first = first;
    a->count = count;
}

tensor act(const struct act_store *a, int64_t layer, int slot)
{
    const struct act_slot *row = &a->slot[slot], *owner = &a->slot[row->of];
    void *own = a->own[layer * a->n_slots + row->of];
    tensor t = tensor_2d(own ? own : a->shared[row->of], owner->dt, a->tokens, owner->width + owner->room);
    t = tensor_rows(&t, row->tiled ? 0 : a->first, a->count);
    return tensor_columns(&t, row->column, row->width);
}

slot_set act_shared(const struct act_store *a, int64_t layer)
{
    slot_set shared = 0;
    for (int slot = 0; slot < a->n_slots; slot++)
        if (has_memory(a, slot) && !is_kept(a, layer, slot)) shared |= (slot_set)1 << slot;
    return shared;
}

slot_set act_missing(const struct act_store *a, int64_t layer)
{
    slot_set missing = act_shared(a, layer);
    for (int slot = 0; slot < a->n_slots; slot++)
        if (a->owner[slot] == layer) missing &= ~((slot_set)1 << slot);
    return missing;
}

void act_written(struct act_store *a, int64_t layer, slot_set slots)
{
    for (int slot = 0; slot < a->n_slots; slot++)
        if (slots >> slot & 1 && !a->slot[slot].tiled) a->owner[slot] = layer;
}
