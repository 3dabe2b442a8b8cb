/* model.h — the decoder: its parameters, its scratch, forward and backward of one micro-batch.
 *
 *   ids → embed → x of layer 0 → block 0 → … → block L−1 → x2 + branch, of supervised rows only → final norm → logits chunk
 *                                                              │                                                │ loss, dz
 *   dx of layer 0 ← block 0 ← … ← block L−1 ← dx ← scatter ←───┘←──────────────── norm backward ←── dz·W ←──────┘
 *
 * What a block is made of is block.h's: tables of slots and steps, built once. Gradient of the residual stream: one buffer
 * (block_dx), in place from the top to the bottom. */
#ifndef TRIMPOT_MODEL_H
#define TRIMPOT_MODEL_H

#include "worker/memory/act_store.h"
#include "worker/memory/grad_sink.h"
#include "worker/memory/kv_cache.h"
#include "worker/memory/param_store.h"
#include "worker/model/block.h"
#include "worker/model/family.h"

/* Lengths of the rows of W, squared, and of W + s·B·A (magnitude.c). */
struct row_lengths {
    tensor square, now; /* [out] f32 */
    bool measured;      /* `square` is there … */
    unsigned as_of;     /* … and `now`, of A and B as they were then (param.written) */
};

/* One projection with its optional bias and LoRA adapter; numbers of parameters, -1 = absent. */
/* A fused linear some of whose projections have adapters: each has its rows of B and its columns, the rest of B stays zero.
 *
 *            rank of q   of v              A: q's rows above v's, so that PEFT reads it as one adapter of both ranks
 *   rows q  [   B_q    |  0  ]
 *   rows k  [    0     |  0  ]
 *   rows v  [    0     | B_v ] */
enum { LINEAR_PARTS = 2 };
struct linear_part {
    int64_t first, rows;
};

struct linear {
    const char *module; /* "self_attn.q_proj", as PEFT names it within its layer */
    int w, bias, a, b, magnitude;
    struct row_lengths *lengths; /* with a magnitude */
    int64_t in, out, rank;
    struct linear_part part[LINEAR_PARTS];
    int parts;     /* 0: one adapter for all rows; else rank / parts for each of these */
    float scale;   /* s = α/r */
    float dropout; /* of the adapter's input */
    uint32_t site; /* for the dropout's random numbers */
    bool tiled;    /* it sees a tile of tokens at a time */
};

struct layer {
    struct linear linear[LINEAR_PER_LAYER]; /* w = -1: not in this model */
    int norm[NORM_PER_LAYER];               /* numbers of parameters, -1 = not in this model */
    int64_t window;
    int rope; /* which of the model's tables */
    struct block_use use;
};

/* What is trained, and how. */
struct model_plan {
    bool full; /* train every weight */
    bool lora;
    struct param_policy frozen;
    unsigned adapted; /* bit per LINEAR_*, plus LORA_ON_HEAD; of a fused one, the bits of all its parts */
    int64_t rank;
    double alpha, dropout;
    bool rslora, dora;
    int start;                          /* of adapters (enum lora_start): what is not drawn by itself, worker/start.h makes */
    double b_lr_ratio;                  /* learning rate of B (and magnitudes) over A's; 0: the same */
    const struct peft_config *patterns; /* ranks and alphas by module, or NULL: those above */
    const struct peft_config *saved;    /* which modules are trained whole beside adapters, or NULL: none */
    const struct peft_config *peft;     /* targets of a loaded adapter, instead of those above */
    struct act_policy acts;             /* but for `lowest`, which is the model's */
    int64_t head_rows;                  /* rows of a logits chunk */
};
enum { LORA_ON_HEAD = 1 << LINEAR_PER_LAYER };

/* Sizes of the largest micro-batch, known before step 1. cached: tokens of the key/value cache, 0 = none. */
struct batch_bounds {
    int64_t tokens, docs, doc_tokens, supervised, cached;
};

/* A micro-batch, assembled. Arrays live where tensors live. */
struct batch {
    struct docs docs;
    const int32_t *ids;     /* [n_tokens] */
    const int32_t *rows;    /* [supervised] rows that have a label … */
    const int32_t *labels;  /* [supervised] … and the label */
    struct rows_at rows_at; /* [supervised] … and where in which document they are */
    int64_t supervised;
    struct ints key_start;     /* [n_docs] with a cache: where the keys of a document begin in it … */
    const int32_t *cache_rows; /* [n_tokens] … and the row of each token; else NULL */
};

struct model {
    struct model_shape shape;
    struct model_plan plan;
    struct batch_bounds bounds;
    const struct backend *be;
    dtype act; /* of activations; statistics are f32, or f64 over the reference */
    dtype stat;
    struct param_store params;
    struct act_store acts;
    struct kv_cache cache;
    struct layer *layers;
    struct block *block;
    int embed, final_norm;
    int64_t lora_rank; /* the largest of the adapters' ranks, 0 = no adapters */
    int64_t lowest;    /* first layer with something trained, or layers: backward goes down to it */
    struct linear head;
    struct rope_table {
        tensor cos, sin;
    } rope[2]; /* [doc_tokens, rope_dims/2] each; the second only where it differs */
    int n_ropes;
    float embed_scale; /* 0 = none */
    /* scratch, one of each */
    tensor grad[BLOCK_MAX_GRADS]; /* as block->grads */
    tensor lora_t, dropped;
    /* adapters with magnitudes (magnitude.c) */
    struct row_lengths *lengths; /* one for each linear */
    void *row_products, *row_gram, *rescaled;
    int64_t rescale_room; /* elements behind a row of `rescaled` */
    /* head: compacted rows */
    tensor head_x, head_delta, head_n, head_rstd, head_dn, head_z, head_lora;
    tensor loss;   /* [supervised] of the whole micro-batch */
    size_t spared; /* bytes of head_z that others have, too */
};

/* One forward/backward: where it runs, on what, for which step. sink NULL = forward only. */
struct pass {
    struct model *m;
    struct stream *s;
    const struct batch *batch;
    struct grad_sink *sink;
    uint64_t seed;
    tensor plan; /* the step's (struct step_plan), which dropout reads; no data: nothing is dropped */
    bool more;   /* the head, between chunks, and blocks, between tiles: this contribution is not complete yet */
};

/* Numbers all parameters; no memory. */
status model_init(struct model *m, const struct backend *be, const struct model_shape *shape, const struct model_plan *plan,
                  const struct batch_bounds *bounds, dtype act, bool masters);
void model_layout(struct model *m, struct arena *frozen, struct arena *trained, struct arena *kept, struct arena *scratch,
                  struct arena *offloaded);
/* During layout, after model_layout: memory of the logits' chunk, for what is used only while the head computes nothing; false: no room. */
bool model_spare(struct model *m, size_t bytes, void **out);
status model_prepare(struct model *m, struct stage *g); /* after binding: RoPE tables */
status model_start(struct model *m, struct stream *s);  /* after loading: what trained parameters start with that follows from weights */
void model_release(struct model *m);

/* The blocks only: what the last one leaves is there for model_logits (block_out). */
status model_forward(struct pass *p);

/* loss_sum [1] f64 = the token losses of this micro-batch, rows in order. With a sink, gradients of the *sum* are put. */
status model_run(struct pass *p, tensor loss_sum);

/* Logits [n, vocab] of the given rows of the micro-batch, soft cap and all, f32 or bf16, into the head's chunk buffer
 * (n ≤ head_rows); forward only. */
status model_logits(struct pass *p, const int32_t *rows, int64_t n, tensor *logits);

/* linear.c: y = x·Wᵀ + b + s·drop(x)·Aᵀ·Bᵀ; with a magnitude m whose W + s·B·A has rows of length N, that plus (m/N − 1)⊙u, where
 * u = drop(x)·Wᵀ + s·drop(x)·Aᵀ·Bᵀ. */
struct linear_io {
    struct rows_at rows; /* of the rows of x, for dropout */
    tensor x, h;         /* h [N, R] keeps drop(x)·Aᵀ for backward */
    tensor all;          /* forward, joined: what lies behind x, h with others of its kind */
    tensor room;         /* backward, joined: [N, R] behind dy; data NULL: there is none */
    tensor y;            /* forward; data NULL: only h is wanted */
    tensor dy, dx;       /* backward; dx.data NULL: not wanted */
    bool adds_dx;        /* dx += instead of = */
    bool h_there;        /* forward: h is written already */
};
status linear_fwd(struct pass *p, const struct linear *l, const struct linear_io *io);
/* h = x·Aᵀ alone, of an adapted linear; row: of all whose A's lie side by side with its own, in one product. */
status linear_inner(struct pass *p, const struct linear *l, tensor x, tensor h, bool row);
/* For block_build. The largest rank of this linear in any layer, 0: no layer adapts it. */
int64_t linear_largest_rank(const struct model *m, int which);
/* How many of the projections `first` … `last` are adapted, in every layer with the same ranks; 0: they differ, or something is
 * dropped of x. `row`: their A's lie side by side. Those that no layer adapts do not count. */
int linears_alike(const struct model *m, int first, int last, bool *row);
/* dx = or += dy·W + LoRA's part; gradients of W, b, A, B go to the sink. */
status linear_bwd(struct pass *p, const struct linear *l, const struct linear_io *io);
bool linear_needs_input(const struct model *m, const struct linear *l); /* does backward read x? */
bool linear_is_trained(const struct model *m, const struct linear *l);  /* anything of it */

/* magnitude.c, for linear.c and model.c. */
void magnitude_open(struct model *m); /* when all linears are there */
void magnitude_add(struct model *m, struct linear *l, const char *module);
void magnitude_layout(struct model *m, struct arena *scratch, bool backward);
void magnitude_forget(struct model *m);                    /* frozen weights changed: their lengths do */
status magnitude_start(struct model *m, struct stream *s); /* those that were not loaded: the lengths themselves */
/* l->lengths->now is that of the A and B there are. Between enter and leave of its layer. */
status magnitude_lengths(struct model *m, struct stream *s, const struct linear *l);
/* [rows, out] for one projection at a time, and columns behind it as many as the rank (data NULL: there are none); in training. */
tensor magnitude_room(const struct model *m, const struct linear *l, int64_t rows, tensor *behind);

/* The backward of a norm with parameter `id`, whose weight and gradient it fills in. */
status norm_bwd(struct pass *p, int id, struct rmsnorm_bwd_args *a);

/* head.c */
status head_loss(struct pass *p, tensor sum); /* after model_forward; writes block_dx when there is a sink */

#endif
