/* block.h — one decoder block as two tables, made once per model from its shape: slots (what there is) and steps (what is
 * done). No step asks for a family, nor why it runs, nor where its slots and parameters live.
 *
 *   slots   x ──norm 1──▶ n1 ──q,k,v──▶ q k v ──rope, attention──▶ o ──o──▶ branch ┐
 *           └──────────────────────────────────────────────────────────────────────┴─norm 2─▶ x2, n2
 *           n2 ──gate, up──▶ gate up ──product──▶ hid ──down──▶ branch ┐
 *           x2 ────────────────────────────────────────────────────────┴─ norm 1 of the next layer ─▶ x, n1
 *
 * A residual add is the norm's that reads the sum (`base` + `delta` → `in`): norm 2 makes x2, and the x of a layer is made by
 * its own norm 1 from x2 and branch of the layer `behind`; x of layer 0 is the embedding's, and what the last layer leaves
 * (block_out) is added by the head, for the rows it needs. What a model has more is more rows: norms of q and k, norms of what a
 * branch adds (its `delta`).
 *
 * Columns. A slot may be a range of columns of another one: where the files hold q, k and v as one tensor, one product writes
 * the slot that owns, and rope and attention read their columns of it, rows as far apart as the owner is wide.
 *
 *   owner  [ q: H·D | k: K·D | v: K·D ]      gate_up  [ gate: F | up: F ]
 *
 * So it is with x·Aᵀ of adapters that read one slot, where nothing drops elements of it and the A's lie side by side in every
 * layer (rows of param_store.h): one step writes the owner, [ v: R | k: R | q: R ] as the A's lie, and the projections read
 * their columns.
 *
 * Where the backend joins products that lie side by side (joins_products), x·Aᵀ has its place behind x itself, in the room that
 * x's rows have, and dy·s·B behind dy:
 *
 *   [ x | v: R | k: R | q: R | pad ] · [ W | s·B ]ᵀ          [ dy | dy·s·B ] · [ W ; A ]
 *
 * each one product; weights lie so where they can (param_join). It is two products still
 *
 *   where x is dropped of      W reads x, A what is left of it: no row has both; and t·A is masked before it is added
 *   q and k, backward, where   their norms take rows of heads without anything between them (per_head, block_steps.c), in the
 *   they are normed            buffers that hold their gradients
 *   in the head                the room would lie behind logits, in the widest rows there are, and in what is often the embedding
 *
 * What attention reads has the room that its gradients have: rows are as far apart in one as in the other. (What is said of columns
 * holds: fused q, k and v have their room behind all three.)
 *
 * Sets of slots are bits of owners; a step says what its forward reads and writes, and what its backward reads (`saved`).
 * Everything else follows: what of a layer must be recomputed, in which order, and which backward steps are for nothing
 * because nothing trained lies before them (`flows`).
 *
 * Gradients. A slot's gradient has a place that its row names: one of the few buffers that all layers share, or the slot's own
 * memory (gate and up: backward has no later use for them). Slots that share a place are alive one after the other:
 *
 *   d_x  residual stream: x, x2, and what is added to it: the gradient of a sum is that of both of its terms
 *   d_n  n1, n2, and, where a norm stands before the sum, branch
 *   d_q d_k d_v (one buffer of columns where the slots are), d_o, d_h
 *
 * Tiles. Steps that follow each other and work on each token by itself may be a stretch that is walked tile by tile: a few tokens
 * forward through all of its steps, then the next few; backward the same, each tile with what it needs of the stretch recomputed. What
 * only the stretch reads and writes then lives for one tile: its slots and their gradients are as long as that. Steps see rows of the
 * tile; a contribution to a gradient is complete with the last tile (pass.more), so that sums over tokens are sums of tiles' sums.
 *
 *           n2 ─┬─[ gate up ─▶ hid ─▶ down ]─▶ branch         tokens 0 … N−1 of n2 and branch,
 *               ├─[ gate up ─▶ hid ─▶ down ]─▶                one tile of gate, up, hid and of their gradients
 *               └─[ gate up ─▶ hid ─▶ down ]─▶
 *
 * Every step writes the gradients of what it reads, but for those it is told to add to (`adds_dx`: q, k and v read one n1, and
 * in backward v comes first). */
#ifndef TRIMPOT_BLOCK_H
#define TRIMPOT_BLOCK_H

#include "worker/memory/act_store.h"
#include "worker/memory/phase.h"

struct model;
struct pass;

/* What may have parameters in a block, in the order of execution; each layer has those that its model's shape asks for. */
enum {
    LINEAR_Q, /* all of q|k|v where they are fused: then there is no k, v */
    LINEAR_K,
    LINEAR_V,
    LINEAR_O,
    LINEAR_GATE, /* gate|up where they are fused */
    LINEAR_UP,
    LINEAR_DOWN,
    LINEAR_PER_LAYER
};
/* The first of the projections that read the slot which `which` reads; they follow each other. */
static inline int linear_first(int which) { return which <= LINEAR_V ? LINEAR_Q : which == LINEAR_UP ? LINEAR_GATE : which; }

enum { NORM_1, NORM_Q, NORM_K, NORM_POST_1, NORM_2, NORM_POST_2, NORM_PER_LAYER };

enum { BLOCK_MAX_STEPS = 24, BLOCK_MAX_GRADS = 8, GRAD_X = 0 /* the residual stream's */, GRAD_SELF = -1 };

struct step {
    const char *name;
    /* want: what of `writes` is asked for */
    status (*fwd)(struct pass *p, int64_t layer, const struct step *st, slot_set want);
    status (*bwd)(struct pass *p, int64_t layer, const struct step *st); /* NULL, and no `out`: done by those that read `writes` */
    int linear, norm;                                                    /* whose parameters: LINEAR_*, NORM_*; -1 = none */
    union {                                                              /* slots, by role */
        struct {
            int in, y, rstd;
            int base, delta; /* in = base + delta, -1: `in` is some other step's */
            bool behind;     /* base and delta are those of the layer before */
            int64_t heads;   /* norms so many ranges of columns each on its own */
        } norm;
        struct {
            int x, y, inner, all;
            bool adds_dx, inner_there;
        } linear; /* inner: x·Aᵀ; there: an earlier step writes it; all: of all that read x, right behind it, or -1 */
        struct {
            int x, h, first, last;
            bool row;
        } inner; /* of LINEAR_* first … last; row: their A's lie side by side, that of `last` first */
        struct {
            int q, k;
        } rope; /* in place */
        struct {
            int q, k, v, o, lse;
        } attn;
        struct {
            int gate, up, h;
        } glu;
    } at;
    slot_set reads, writes, saved;
    slot_set out;        /* of `writes`: that whose gradient backward begins with */
    slot_set sum, terms; /* a norm's `in` that it makes, if that is not there, from these instead of reading it */
};

struct block {
    struct act_slot slot[ACT_MAX_SLOTS];
    int grad[ACT_MAX_SLOTS]; /* where the gradient of an owner lives: a row of `grads`, or GRAD_SELF */
    int n_slots;
    struct step step[BLOCK_MAX_STEPS];
    int n_steps;
    struct {
        int first, end; /* steps; empty: all steps see all tokens */
        slot_set slots;
    } tiled;
    struct {
        const char *name;
        int64_t width, room; /* room: elements behind them in every row */
        bool tiled;
    } grads[BLOCK_MAX_GRADS];
    int n_grads;
    int inner[LINEAR_PER_LAYER];      /* slots of x·Aᵀ */
    int all[LINEAR_PER_LAYER];        /* columns behind x, of x·Aᵀ of all that read x; -1: they lie elsewhere */
    int64_t column[LINEAR_PER_LAYER]; /* of inner in `all` */
    int x, x2, delta;                 /* the residual stream: into the block, after attention, and what its end adds */
};

/* What of it concerns one layer; layers differ in what is trained. */
struct block_use {
    slot_set flows; /* slots whose gradient is wanted: something trained lies before them */
    slot_set needs; /* slots that the backward of this layer reads */
};

/* After the parameters are numbered. ST_NOT_BUILT for shapes that no table expresses. */
status block_build(const struct model *m, struct block *b);
struct block_use block_use_of(const struct model *m, int64_t layer);

status block_fwd(struct pass *p, int64_t layer);
status block_bwd(struct pass *p, int64_t layer); /* block_dx in place */

/* By how many weights the backward of a layer multiplies once more, to have again what was not kept. (None in the last layer, whose
 * values are there still.) */
int64_t block_again(const struct model *m, int64_t layer);

/* The step of attention; elements from row to row of a slot. */
const struct step *block_attention(const struct block *b);
int64_t block_ld(const struct block *b, int slot);

/* What the last layer leaves, [tokens, C] each: the residual stream is their sum. Valid until the next forward, or until its
 * backward begins. */
void block_out(const struct model *m, tensor *x, tensor *delta);

tensor block_dx(const struct model *m); /* gradient of the residual stream, [tokens, C] */

/* A slot's gradient, [tokens, width]. */
tensor block_gradient(const struct model *m, int64_t layer, int slot);
/* `cols` columns right behind it, free between two steps, if there is room for them; else data NULL. */
tensor block_gradient_room(const struct model *m, int64_t layer, int slot, int64_t cols);

/* Steps' functions, for block_build (block_steps.c). */
#define BLOCK_STEP_KINDS(X) X(norm) X(linear) X(rope) X(attn) X(glu)
#define BLOCK_STEP_DECLARE(kind)                                                                                                           \
    status step_##kind##_fwd(struct pass *p, int64_t layer, const struct step *st, slot_set want);                                         \
    status step_##kind##_bwd(struct pass *p, int64_t layer, const struct step *st);
BLOCK_STEP_KINDS(BLOCK_STEP_DECLARE)
#undef BLOCK_STEP_DECLARE
status step_inner_fwd(struct pass *p, int64_t layer, const struct step *st, slot_set want); /* no backward */

#endif
