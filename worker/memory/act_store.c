#include "worker/memory/act_store.h"

#include <stdlib.h>

#include "kernels/base/text.h"

void act_store_init(struct act_store *a, const struct act_slot *slots, int n_slots, int64_t layers, int64_t capacity,
                    enum act_rung rung, int64_t every)
{
    *a = (struct act_store){.slot = slots, .n_slots = n_slots, .layers = layers, .capacity = capacity};
    a->rung = mem_alloc((size_t)(layers + 1) * sizeof *a->rung);
    a->own = mem_alloc((size_t)((layers + 1) * n_slots) * sizeof *a->own);
    for (int64_t l = 0; l <= layers; l++) a->rung[l] = every > 0 && (l + 1) % every ? ACT_RUNG_PRODUCTS : rung;
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
    return (size_t)(a->capacity * a->slot[slot].width) * dtype_bytes(a->slot[slot].dt);
}

static bool is_kept(const struct act_store *a, int64_t layer, int slot)
{
    if (a->rung[layer] == ACT_RUNG_FORWARD) return false;
    return a->slot[slot].carry || a->rung[layer] < a->slot[slot].from;
}

/* Forward only, the residual stream alternates between two buffers. */
static void layout_carry(struct act_store *a, int slot, struct arena *kept, struct arena *scratch)
{
    bool forward_only = a->rung[0] == ACT_RUNG_FORWARD;
    void *two[2] = {0};
    for (int64_t l = 0; l <= a->layers; l++) {
        void **own = &a->own[l * a->n_slots + slot];
        if (!forward_only) *own = arena_take(kept, slot_bytes(a, slot), "kept %s", a->slot[slot].name);
        else {
            if (l < 2) two[l] = arena_take(scratch, slot_bytes(a, slot), "shared %s", a->slot[slot].name);
            *own = two[l % 2];
        }
    }
}

void act_store_layout(struct act_store *a, struct arena *kept, struct arena *scratch)
{
    for (int slot = 0; slot < a->n_slots; slot++) {
        if (!a->slot[slot].width) continue;
        if (a->slot[slot].carry) {
            layout_carry(a, slot, kept, scratch);
            continue;
        }
        bool any_shared = false;
        for (int64_t l = 0; l < a->layers; l++) {
            if (is_kept(a, l, slot))
                a->own[l * a->n_slots + slot] = arena_take(kept, slot_bytes(a, slot), "kept %s", a->slot[slot].name);
            else any_shared = true;
        }
        if (any_shared) a->shared[slot] = arena_take(scratch, slot_bytes(a, slot), "shared %s", a->slot[slot].name);
    }
}

void act_begin(struct act_store *a, int64_t tokens)
{
    a->tokens = tokens;
    for (int i = 0; i < ACT_MAX_SLOTS; i++) a->owner[i] = -1;
}

tensor act(const struct act_store *a, int64_t layer, int slot)
{
    void *own = a->own[layer * a->n_slots + slot];
    return tensor_2d(own ? own : a->shared[slot], a->slot[slot].dt, a->tokens, a->slot[slot].width);
}

uint32_t act_missing(const struct act_store *a, int64_t layer)
{
    uint32_t missing = 0;
    for (int slot = 0; slot < a->n_slots; slot++)
        if (a->slot[slot].width && !a->slot[slot].carry && !is_kept(a, layer, slot) && a->owner[slot] != layer)
            missing |= 1u << slot;
    return missing;
}

void act_written(struct act_store *a, int64_t layer, uint32_t slots)
{
    for (int slot = 0; slot < a->n_slots; slot++)
        if (slots >> slot & 1) a->owner[slot] = layer;
}
