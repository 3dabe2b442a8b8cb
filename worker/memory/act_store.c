#include "worker/memory/act_store.h"

#include <assert.h>
#include <stdlib.h>

#include "kernels/base/text.h"

void act_store_init(struct act_store *a, const struct act_slot *slots, int n_slots, int64_t layers, int64_t capacity, enum act_rung rung,
                    int64_t every)
{
    *a = (struct act_store){.slot = slots, .n_slots = n_slots, .layers = layers, .capacity = capacity, .inside = -1};
    a->rung = mem_alloc((size_t)layers * sizeof *a->rung);
    a->own = mem_alloc((size_t)(layers * n_slots) * sizeof *a->own);
    for (int64_t l = 0; l < layers; l++) a->rung[l] = every > 0 && (l + 1) % every ? ACT_RUNG_PRODUCTS : rung;
    for (int i = 0; i < ACT_MAX_SLOTS; i++) a->owner[i] = -1;
}

void act_store_release(struct act_store *a)
{
    free(a->rung);
    free(a->own);
    *a = (struct act_store){0};
}

static size_t slot_bytes(const struct act_store *a, int slot)
{
    return (size_t)(a->capacity * (a->slot[slot].width + a->slot[slot].room)) * dtype_bytes(a->slot[slot].dt);
}

/* Has the slot memory of its own in the layer? */
static bool is_kept(const struct act_store *a, int64_t layer, int slot) { return a->rung[layer] < a->slot[slot].from; }

static bool has_memory(const struct act_store *a, int slot) { return a->slot[slot].width && a->slot[slot].of == slot; }

void act_store_layout(struct act_store *a, struct arena *kept, struct arena *scratch)
{
    for (int slot = 0; slot < a->n_slots; slot++) {
        bool any_shared = false;
        for (int64_t l = 0; has_memory(a, slot) && l < a->layers; l++) {
            if (is_kept(a, l, slot))
                a->own[l * a->n_slots + slot] = arena_take(kept, slot_bytes(a, slot), "kept %s", a->slot[slot].name);
            else
                any_shared = true;
        }
        if (any_shared) a->shared[slot] = arena_take(scratch, slot_bytes(a, slot), "shared %s", a->slot[slot].name);
    }
}

void act_begin(struct act_store *a, int64_t tokens)
{
    a->tokens = tokens;
    a->inside = -1;
    for (int i = 0; i < ACT_MAX_SLOTS; i++) a->owner[i] = -1;
}

status act_enter(struct act_store *a, struct stream *s, int64_t layer, enum phase phase)
{
    (void)s, (void)phase;
    assert(a->inside < 0);
    a->inside = layer;
    return ST_OK;
}

status act_leave(struct act_store *a, struct stream *s, int64_t layer, enum phase phase)
{
    (void)s, (void)phase;
    assert(a->inside == layer);
    a->inside = -1;
    return ST_OK;
}

tensor act(const struct act_store *a, int64_t layer, int slot)
{
    const struct act_slot *row = &a->slot[slot], *owner = &a->slot[row->of];
    void *own = a->own[layer * a->n_slots + row->of];
    tensor t = tensor_2d(own ? own : a->shared[row->of], owner->dt, a->tokens, owner->width + owner->room);
    return tensor_columns(&t, row->column, row->width);
}

slot_set act_missing(const struct act_store *a, int64_t layer)
{
    slot_set missing = 0;
    for (int slot = 0; slot < a->n_slots; slot++)
        if (has_memory(a, slot) && !is_kept(a, layer, slot) && a->owner[slot] != layer) missing |= (slot_set)1 << slot;
    return missing;
}

void act_written(struct act_store *a, int64_t layer, slot_set slots)
{
    for (int slot = 0; slot < a->n_slots; slot++)
        if (slots >> slot & 1) a->owner[slot] = layer;
}
