/* act_store.h — where activations live between forward and backward, decided per layer and slot.
 *
 *              slot:   x    n1   q    k    v    o  …
 *   layer 0          [own][ · ][own][own][own][own]      own: kept until the backward of its layer
 *   layer 1          [own][ · ][own][own][own][own]        · : in the slot's one shared buffer, recomputed in backward
 *   shared                [n1]                                 by the same steps that wrote it in forward
 *
 * The block asks act(store, layer, slot) and never knows which. `owner` remembers whose values a shared buffer holds, so
 * that the last layer, or any layer just recomputed, is not recomputed again. Offloading is a third policy: copy-out
 * starts in act_written, and a prefetch of the layer below belongs into act_missing's caller of the layer above. */
#ifndef TRIMPOT_ACT_STORE_H
#define TRIMPOT_ACT_STORE_H

#include "kernels/backend.h"
#include "kernels/base/arena.h"

enum { ACT_MAX_SLOTS = 32 };

/* How much of a layer is recomputed: a ladder. */
enum act_rung {
    ACT_RUNG_NONE,     /* keep all */
    ACT_RUNG_PRODUCTS, /* norms and products: no matrix product is repeated (default) */
    ACT_RUNG_BLOCK,    /* whole block: keep its input only */
    ACT_RUNG_FORWARD,  /* no backward will come (eval, generate): share everything */
};

struct act_slot {
    const char *name;
    int64_t width;          /* elements per token; 0 = the slot is not used by this model */
    dtype dt;
    enum act_rung from;     /* recomputed on this rung and above; ACT_RUNG_FORWARD = never */
    bool carry;             /* the residual stream between layers: has layers + 1 values, layer l writes l + 1 */
};

struct act_store {
    const struct act_slot *slot;
    int n_slots;
    int64_t layers, capacity; /* tokens the buffers hold */
    int64_t tokens;         /* of the micro-batch now in them */
    enum act_rung *rung;    /* per layer */
    void **own;             /* [(layers + 1)·n_slots], NULL = shared */
    void *shared[ACT_MAX_SLOTS];
    int64_t owner[ACT_MAX_SLOTS]; /* layer whose values the shared buffer holds, -1 none */
};

/* every: 0 = all layers on `rung`; k > 0 = only layers with (l + 1) mod k = 0, the others on ACT_RUNG_PRODUCTS. */
void act_store_init(struct act_store *a, const struct act_slot *slots, int n_slots, int64_t layers, int64_t capacity,
                    enum act_rung rung, int64_t every);
void act_store_layout(struct act_store *a, struct arena *kept, struct arena *scratch);
void act_store_release(struct act_store *a);

void act_begin(struct act_store *a, int64_t tokens); /* a new micro-batch: nothing is valid */

/* The slot's view for this layer, [tokens, width]. */
tensor act(const struct act_store *a, int64_t layer, int slot);

/* Bit set of slots whose values for this layer are not there now (shared and owned by another layer). */
uint32_t act_missing(const struct act_store *a, int64_t layer);

/* Forward or recomputation has just written these slots of this layer. */
void act_written(struct act_store *a, int64_t layer, uint32_t slots);

#endif
