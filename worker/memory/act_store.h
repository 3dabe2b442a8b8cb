/* act_store.h — where activations live between forward and backward, decided per layer and slot.
 *
 *              slot:   x    n1   q    k    v    o  …
 *   layer 0          [own][ · ][own][own][own][own]      own: kept until the backward of its layer
 *   layer 1          [own][ · ][own][own][own][own]        · : in the slot's one shared buffer, recomputed in backward
 *   shared                [n1]                                 by the same steps that wrote it in forward
 *
 * The block asks act(store, layer, slot) and never knows which. `owner` remembers whose values a shared buffer holds, so
 * that the last layer, or any layer just recomputed, is not recomputed again.
 *
 * Who walks a layer says so: act_enter before its first step, act_leave after its last, forward and backward; what it does in
 * between is enqueued on `s`.
 *
 * Offloading is the third policy. The kept slots of layer l, on whatever rung, are in place l mod R of a ring of R ≥ 2, and while
 * other layers have that place, in pinned memory (streams: `out` and `in`; README.md draws it):
 *
 *   enter(l, FORWARD)    s waits for the copy-out of layer l − R, whose place in the ring l writes now
 *   leave(l, FORWARD)    event on s; out waits for it and copies l's kept slots out to pinned memory
 *   enter(l, BACKWARD)   s waits for the copy-in of l, started one layer earlier; act_missing sees l's slots as there
 *   leave(l, BACKWARD)   event on s; in waits for it and copies l − R in, over the place that l has left
 *
 * so that no step waits for a copy it does not need, and when all layers have been walked nothing is on its way any more. What holds
 * for every policy: after leave(l, FORWARD) the slots of l stay readable on `s` until enter(l + 2): the sum at the end of a block is
 * made by the next one. The last R layers need no copy, nor do those below the lowest whose backward comes. */
#ifndef TRIMPOT_ACT_STORE_H
#define TRIMPOT_ACT_STORE_H

#include "configs/config.h"
#include "kernels/backend.h"
#include "kernels/base/arena.h"
#include "worker/memory/phase.h"

enum { ACT_MAX_SLOTS = 64, ACT_PLACES = 2 };

typedef uint64_t slot_set; /* a bit per slot; columns of a slot count as their owner */

/* How much of a layer is recomputed: a ladder. */
enum act_rung {
    ACT_RUNG_NONE,     /* keep all */
    ACT_RUNG_PRODUCTS, /* norms and products: no matrix product is repeated (default) */
    ACT_RUNG_FFN,      /* gate and up, too */
    ACT_RUNG_INPUTS,   /* q, k and v, too: what attention reads; what it made of them stays, so that it is not run again */
    ACT_RUNG_BLOCK,    /* whole block: keep its input only */
    ACT_RUNG_FORWARD,  /* no backward will come (eval, generate): share everything */
};

struct act_slot {
    const char *name;
    int64_t width; /* elements per token; 0 = the slot is not used by this model */
    int64_t room;  /* elements behind them in every row, for others: columns from `width` on, or a scratch of its gradient */
    dtype dt;
    enum act_rung from; /* recomputed on this rung and above; ACT_RUNG_FORWARD = never */
    int of;             /* the slot whose memory this is: itself, or the owner of … */
    int64_t column;     /* … the columns from this one on, which this slot is a view of */
    bool tiled;         /* its values live for a tile of tokens only: shared and recomputed on every rung */
};

struct act_policy {
    enum act_rung rung;
    int64_t every;  /* 0 = all layers on `rung`; k > 0 = only layers with (l + 1) mod k = 0, the others on ACT_RUNG_PRODUCTS */
    bool offload;   /* where tensors have memory of their own; elsewhere nothing is gained and nothing is done */
    bool apart;     /* its copies on streams of their own; else on the layers' */
    int64_t lowest; /* no backward comes below this layer */
    int64_t tile;   /* tokens of a tile; 0 where no slot is tiled */
};

/* Offloading: what has left, and how it comes and goes. */
struct act_ring {
    int64_t places;                                      /* R per slot; 0: every layer has its own, and nothing below is used */
    void **host;                                         /* [layers·n_slots] pinned; NULL: stays */
    struct stream *out, *in;                             /* NULL: the stream of the layers */
    struct event *left;                                  /* the layer that is left has done all it does with its place */
    struct event *sent[ACT_PLACES], *filled[ACT_PLACES]; /* what was in the place is out; is in again */
    bool used;                                           /* by this micro-batch: its backward comes */
};

struct act_store {
    const struct backend *be;
    const struct act_slot *slot;
    int n_slots;
    int64_t layers, capacity; /* tokens the buffers hold */
    int64_t tile;             /* … and those of tiled slots */
    int64_t tokens;           /* of the micro-batch now in them */
    int64_t first, count;     /* of these, those that are looked at: all, or a tile's */
    int64_t lowest;           /* layer whose backward comes */
    enum act_rung *rung;      /* per layer */
    void **own;               /* [layers·n_slots], NULL = shared; with a ring, the layer's place in it */
    void *shared[ACT_MAX_SLOTS];
    int64_t owner[ACT_MAX_SLOTS]; /* layer whose values the shared buffer holds, -1 none */
    int64_t inside;               /* the layer between enter and leave, -1 none */
    struct act_ring ring;
};

/* What a configuration asks for; `lowest` follows from what is trained. */
struct act_policy act_policy_of(const struct config *c);

status act_store_init(struct act_store *a, const struct backend *be, const struct act_slot *slots, int n_slots, int64_t layers,
                      int64_t capacity, const struct act_policy *policy);
void act_store_layout(struct act_store *a, struct arena *kept, struct arena *scratch, struct arena *offloaded);
void act_store_release(struct act_store *a);

/* A new micro-batch: nothing is valid. backward: its layers will be walked back, down to the lowest. */
void act_begin(struct act_store *a, int64_t tokens, bool backward);

status act_enter(struct act_store *a, struct stream *s, int64_t layer, enum phase phase);
status act_leave(struct act_store *a, struct stream *s, int64_t layer, enum phase phase);

/* From here on act shows these tokens alone, which tiled slots have in their first rows: at most a tile of them. Whoever walks a layer
 * tile by tile goes back to all. */
void act_look(struct act_store *a, int64_t first, int64_t count);

/* The slot's view for this layer, [tokens, width]; columns have the owner's distance between rows. */
tensor act(const struct act_store *a, int64_t layer, int slot);

/* Slots whose values for this layer are not there now (shared and owned by another layer; tiled ones never are). */
slot_set act_missing(const struct act_store *a, int64_t layer);

/* Slots that have no memory of their own in this layer: missing, once another layer has been walked. */
slot_set act_shared(const struct act_store *a, int64_t layer);

/* How many layers leave the device between forward and backward. */
int64_t act_offloaded(const struct act_store *a);

/* Forward or recomputation has just written these slots of this layer. */
void act_written(struct act_store *a, int64_t layer, slot_set slots);

#endif
