/* ops.h — one contract per operation. The function type is the only declaration; a backend fills `struct ops`.
 *
 * Callers use the front door `op_NAME(stream, &args)` (ops.c): it checks shapes and dtypes once for all backends
 * (ST_SHAPE, naming op and both shapes) and dispatches. Backends hold loops only and may assume checked arguments.
 *
 * Common rules
 *  - act = dtype of activations: f32 or bf16 (f64 for `ref`, which reads and writes f32/bf16 storage but computes in
 *    f64; see tests/ref). Elementwise arithmetic widens to f32 and rounds once per stored output.
 *  - Outputs never alias inputs unless the contract says "in place".
 *  - The arguments are copied by the call and read when the stream gets there: they point to memory where tensors live, and
 *    to nothing else but the host twins of `struct ints`, which only the call itself reads.
 *  - Deterministic: the bits do not depend on the number of threads; sums run over fixed partitions.
 *  - N tokens of the micro-batch, C width, F ffn width, H heads, K kv heads, D head size, V vocabulary, R rank.
 *  - `=` overwrites, `+=` accumulates.
 */
/* clang-format off */
#ifndef TRIMPOT_OPS_H
#define TRIMPOT_OPS_H

#include "kernels/base/status.h"
#include "kernels/base/tensor.h"

struct stream;

/* An array of which the host has a twin: `dev` lives where tensors live and is what loops read; `host` serves the front
 * door's checks, and says the same. Both may be one address. A backend that has graphs is given NULL for it (record.h). */
struct ints { const int32_t *host, *dev; };

/* Of every row (token) on its own, where tensors live: its position in its document, and its document's global sample
 * index. Any range of rows is a valid view: rows_from(r, n) is r from row n on. */
struct rows_at { const int32_t *position; const int64_t *sample; };

BOTH struct rows_at rows_from(struct rows_at r, int64_t n)
{
    return (struct rows_at){r.position ? r.position + n : NULL, r.sample ? r.sample + n : NULL};
}

/* The micro-batch: documents laid end to end, never padded. Token t of document i sits at row start[i] + t and has
 * position past[i] + t. past: the tokens of each document that earlier batches brought (generation); NULL, as in all
 * training: none.
 *
 * n_docs, longest and positions are bounds: documents may be empty, as those behind the last one are (start = n_tokens), and none
 * need be as long. They and n_tokens are all of the documents that a launch may depend on (grids, plans, workspace, which kernel):
 * what the twins `host` hold is for the front door's checks alone. So a call that is recorded and run again serves any documents
 * within the bounds, and where bounds are taken from few classes (worker/batch.c), few calls serve all. Where n_docs·longest =
 * n_tokens, all documents are as long as the longest. */
struct docs {
    int64_t n_docs, n_tokens;
    int64_t longest;    /* no document has more tokens in this batch … */
    int64_t positions;  /* … and with their past: all positions are below */
    struct ints start;  /* [n_docs + 1], ascending, start[0] = 0, start[n_docs] = n_tokens */
    struct ints past;   /* [n_docs] or NULL; forward ops without dropout only */
    struct rows_at rows; /* [n_tokens] */
};

/* The classes that such bounds come in: powers of two, of tokens from 128 on. */
BOTH int64_t docs_class(int64_t n)
{
    int64_t p = 1;
    while (p < n) p *= 2;
    return p;
}
BOTH int64_t tokens_class(int64_t n) { return docs_class(n < 128 ? 128 : n); }

/* Matrix product: C = alpha·op(A)·op(B) + A2·op(B2) + bias + beta·C.
 * op(A) is [M, K]: A is [M, K], or [K, M] when ta. op(B) is [K, N]: B is [K, N], or [N, K] when tb.
 * A2 [M, K2] and B2 (same tb as B) are an optional second product (the LoRA path) added in the same f32 accumulator;
 * data == NULL when absent; never by two rounded products. bias [N] f32 or act, added to every row. One rounding per element of C.
 * dtypes: A, B, A2, B2 each f32 or bf16 (bf16 × bf16 accumulates in f32; mixed pairs are widened to f32); C f32 or
 * bf16. beta is 0 or 1 (0: C is not read). Rows may be strided (ld). */
struct gemm_args {
    tensor a, b, c, a2, b2, bias;
    bool ta, tb;
    float alpha, beta;
};
typedef status op_gemm_fn(struct stream *s, const struct gemm_args *g);

/* y[N,C] = scale·table[ids[n], :]. table f32 or bf16, y act, rounded once; scale 0 = none. */
struct embed_args { tensor table; const int32_t *ids; int64_t n; tensor y; float scale; };
typedef status op_embed_fwd_fn(struct stream *s, const struct embed_args *e);
/* table(f32 gradient)[ids[n], :] += scale·y[n, :] in ascending n; y holds dy. */
typedef status op_embed_bwd_fn(struct stream *s, const struct embed_args *e);

/* sum = x + delta (delta absent: sum is not written), rstd = 1/sqrt(mean(sum²) + eps), y = sum·rstd·w.
 * The norm reads the *rounded* sum. x, delta, sum, y [N,C] act; w [C] f32 or act; rstd [N] f32. `unit_offset`: w + 1.
 * sum may alias x or delta. */
struct rmsnorm_fwd_args { tensor x, delta, sum, w, y, rstd; float eps; bool unit_offset; };
typedef status op_rmsnorm_fwd_fn(struct stream *s, const struct rmsnorm_fwd_args *r);

/* dx = rstd·(g − x̂·mean_c(g·x̂)) + residual, g = dy·w, x̂ = x·rstd; residual [N,C] act is optional and may alias dx.
 * dw [C] f32 (optional) += Σ_rows dy·x̂, rows summed in fixed blocks. dx may alias dy. */
struct rmsnorm_bwd_args { tensor dy, x, w, rstd, residual, dx, dw; bool unit_offset; };
typedef status op_rmsnorm_bwd_fn(struct stream *s, const struct rmsnorm_bwd_args *r);

/* In place on q [N, heads·D] and k [N, kv_heads·D] act, or on q alone: rotates the first `cos.dim[1]*2` channels of every
 * head, half-split layout, by the row's position (all are < positions). cos, sin [≥ positions, d/2] f32. inverse: −θ (the
 * backward pass). */
struct rope_args { tensor q, k, cos, sin; int64_t heads, kv_heads, head_dim, positions; struct rows_at rows; bool inverse; };
typedef status op_rope_fn(struct stream *s, const struct rope_args *r);

/* Causal attention inside each document (flash scheme). q [N, H·D], k, v [N, K·D], o [N, H·D] act; lse [N, H] f32.
 * Query head h reads kv head h·K/H. window: 0 = none, else i − j < window. cap: 0 = none, else soft cap.
 * key_start [n_docs] (forward only; needed with docs.past): k, v [any, K·D] are a cache, where document i has its
 * past[i] + length keys from row key_start[i] on. */
struct attn_fwd_args {
    tensor q, k, v, o, lse;
    int64_t heads, kv_heads, head_dim, window;
    float scale, cap;
    struct docs docs;
    struct ints key_start;
};
typedef status op_attn_fwd_fn(struct stream *s, const struct attn_fwd_args *a);
/* dq, dk, dv = gradients; heads of a group are summed in ascending order. `fwd` holds q, k, v, o, lse as saved. */
struct attn_bwd_args { struct attn_fwd_args fwd; tensor d_o, dq, dk, dv; };
typedef status op_attn_bwd_fn(struct stream *s, const struct attn_bwd_args *a);

enum act_kind { ACT_SILU, ACT_GELU_TANH };
/* h = act(gate)·up, all [N,F] act. */
struct glu_fwd_args { tensor gate, up, h; enum act_kind kind; };
typedef status op_glu_fwd_fn(struct stream *s, const struct glu_fwd_args *g);
/* dup = dh·act(gate), dgate = dh·up·act'(gate). dgate may alias gate and dup may alias up. */
struct glu_bwd_args { tensor gate, up, dh, dgate, dup; enum act_kind kind; };
typedef status op_glu_bwd_fn(struct stream *s, const struct glu_bwd_args *g);

/* One logits chunk, in place: z [n, V] act → dz = softmax(z) − onehot(label) (soft cap: · (1 − (z/c)²)).
 * loss[n] f32 = lse(z) − z_label per row. `forward_only`: z is left undefined. Labels are never −100 here: rows were
 * compacted. */
struct loss_args { tensor z; const int32_t *labels; tensor loss; float cap; bool forward_only; };
typedef status op_loss_fn(struct stream *s, const struct loss_args *l);

/* In place on z [n, V] act: z = cap·tanh(z/cap), cap > 0: logits that leave without a loss. */
struct soft_cap_args { tensor z; float cap; };
typedef status op_soft_cap_fn(struct stream *s, const struct soft_cap_args *c);

/* dst[i, :] = src[rows[i], :], and dst[rows[i], :] = src[i, :] (other rows of dst untouched). Same dtype. */
struct rows_args { tensor src, dst; const int32_t *rows; int64_t n; };
typedef status op_gather_rows_fn(struct stream *s, const struct rows_args *r);
typedef status op_scatter_rows_fn(struct stream *s, const struct rows_args *r);

/* y = x·mask/(1−p), or y += when accumulate. Mask of element (row at position t of its document, channel c): Philox with
 * rng_key_of(base, step), the row's sample, e = t·C + c, keep iff u32 ≥ ⌊p·2^32⌋. plan [STEP_PLAN] f64, a struct step_plan below:
 * its step is read when the stream gets there, so that the call is the same in every step. y may alias x. */
struct dropout_args { tensor x, y, plan; float p; uint64_t base; struct rows_at rows; bool accumulate; };
typedef status op_dropout_fn(struct stream *s, const struct dropout_args *d);

/* y = scale·x (or y += scale·x when accumulate), flat, any of f32/bf16 (f16 input too) on either side; one rounding.
 * y may alias x when the dtypes are equal. Used for casts, residual adds, working copies, gradient sums. */
struct axpy_args { tensor x, y; float scale; bool accumulate; };
typedef status op_axpy_fn(struct stream *s, const struct axpy_args *a);

/* out [M] f32 += Σ_rows x[n, :]: the bias gradient; fixed row blocks. */
struct colsum_args { tensor x, out; };
typedef status op_colsum_fn(struct stream *s, const struct colsum_args *c);

/* out [M] f32 = add[m] + Σ_c x[m, c]·y[m, c], or its square root when `root` (of less than zero: 0). x, y [M, C] f32 or bf16 each,
 * and may be one; add [M] f32 is optional. */
struct row_dot_args { tensor x, y, add, out; bool root; };
typedef status op_row_dot_fn(struct stream *s, const struct row_dot_args *r);

/* Columns of length `from` brought to length `to`: y = c·u + bias, c = to / from (0 where from is 0: a column of zeros stays one);
 * y += (c − 1)·u when accumulate. u, y [N, C] act; to, from [C] f32; bias [C] f32 or act, optional, not with accumulate. y may alias
 * u. by_row: of rows; to, from [N]. */
struct rescale_fwd_args { tensor u, y, to, from, bias; bool accumulate, by_row; };
typedef status op_rescale_fwd_fn(struct stream *s, const struct rescale_fwd_args *r);
/* Of columns, `from` being a constant: d_to [C] f32 += Σ_rows dy·u / from (0 where from is 0), rows summed in fixed blocks; du = c·dy,
 * or (c − 1)·dy when accumulate. du may alias u or dy. */
struct rescale_bwd_args { tensor dy, u, to, from, du, d_to; bool accumulate; };
typedef status op_rescale_bwd_fn(struct stream *s, const struct rescale_bwd_args *r);

/* out [1] f64 = Σ loss[i], i ascending, in f64: a micro-batch's token losses. */
struct loss_sum_args { tensor loss, out; };
typedef status op_loss_sum_fn(struct stream *s, const struct loss_sum_args *l);

/* The ordered sum of a reduction: out[n] = v_0 + v_1 + … + v_{K−1}, added as `merges` says: for each k in ascending order, v_k
 * is pushed on a stack, then merges[k] times the two on top, a below b, become a + b. One is left in the end. So written, any
 * binary tree over the vectors in order is one such list (collectives/tree.h: the canonical tree, whoever computed its nodes);
 *     ((v_0 + v_1) + v_2) + v_3:  0 1 1 1          (v_0 + v_1) + (v_2 + v_3):  0 1 0 2
 * rows [K, n], strided: v_k is row k, but for first ≤ k < first + n_mine, where it is mine[k − first] [n] and the row is not
 * read. f32; elementwise, one rounding per addition: the same bits on every backend of f32. At most TREE_SUM_OPEN sums are open at a time. out may be any of
 * `mine`. */
enum { TREE_SUM_NODES = 1024, TREE_SUM_MINE = 32, TREE_SUM_OPEN = 32 };
struct tree_sum_args {
    tensor rows, out;
    tensor mine[TREE_SUM_MINE];
    int first, n_mine;
    unsigned char merges[TREE_SUM_NODES];
};
typedef status op_tree_sum_fn(struct stream *s, const struct tree_sum_args *t);

/* ---- the end of a step: everything about a range of the flat index, in one call ----------------------------------------
 *
 * Trained tensors have places in one flat index (worker/memory/param_store.h). Gradients, weights and states are vectors in
 * that index; the ops below take views of its elements [lo, lo + E), whatever holds them, and skip what belongs to no tensor:
 *
 *   |seg 0                |seg 1|…|seg 2      |pad|seg 3 …         a (segment, page) is what has a norm partial
 *   |page 0     |page 1     |page 2     |page 3   |
 *
 * No result depends on how a range is cut, but that sums need whole (segment, page)s. */
enum { FLAT_PAGE = 65536 };

/* One trained tensor. partial: its first norm partial, one per page that it touches. Multipliers of learning rate and weight
 * decay. scale: of the working copy, 0 = has none. eight, state: of 8-bit optimizers (op_update). */
struct seg { int64_t at, count, partial; float lr_mult, wd_mult, scale; int32_t eight; int64_t state; };

/* All of them, ascending and apart. The same table twice: `host` is for checks and read during the call only. */
struct segs { const struct seg *host, *dev; int64_t n; };

/* partial[seg.partial + page − seg.at/65536] f32 = Σ g² over the elements of a segment in a page, in a fixed order, for every
 * (segment, page) in [lo, lo + E), none of which the range may cut. Other partials are left alone. g f32 or bf16. A non-finite g
 * makes its partial non-finite. */
struct sumsq_segs_args { tensor g, partial; struct segs segs; int64_t lo; };
typedef status op_sumsq_segs_fn(struct stream *s, const struct sumsq_segs_args *q);

/* What the host knows of a step when it launches it. Both structs hold f64 only: tensors [STEP_PLAN], [STEP_SCALARS] in the
 * ops. It knows `applied` one step late, so it says what follows from either case; the device, which counts, picks. */
struct step_plan {
    double step;              /* 0-based */
    double supervised;        /* tokens, of all micro-batches: losses and gradients are divided by it */
    double max_norm;          /* of the gradient; infinite: not clipped */
    double applied;           /* steps applied for sure; the device may have seen one more */
    double lr, lw;            /* f32(lr), f32(lr·wd) */
    double rate[2], c2[2];    /* f32(lr / (1 − β1^t)), f32(sqrt(1 − β2^t)) for t = applied + 1 and applied + 2 */
};

/* What the device finds. */
struct step_scalars {
    double loss, grad_norm;   /* of the mean: token losses, gradients before clipping */
    double usable;            /* 1: op_update updates. 0: something was not finite, or nothing supervised */
    double applied;           /* usable steps so far, this one included */
    double refused, refused_step; /* first tensor, from 1, that step_admit refused, and its step; 0: none. Nothing is updated
                               * any more after that */
    double gscale, lr, lw, rate, c2, first; /* of this step, for op_update: f32 numbers; first: nothing was applied before */
};
enum { STEP_PLAN = sizeof(struct step_plan) / 8, STEP_SCALARS = sizeof(struct step_scalars) / 8 };

/* The judgement of a step, after its last gradient. losses [ranks, micro-batches] f64, rows may be strided; partial: all.
 *   loss = Σ losses / supervised, grad_norm = sqrt(Σ partial) / supervised, both in f64 in order, 0 where nothing is supervised
 *   usable = supervised > 0, both finite, nothing refused;  gscale = f32(min(1, max_norm / (grad_norm + 1e-6)) / supervised)
 * applied += usable; the rest of `scalars` follows from applied before that. */
struct step_decide_args { tensor plan, scalars, losses, partial; };
typedef status op_step_decide_fn(struct stream *s, const struct step_decide_args *d);
/* Of one tensor, numbered from 0, in the backward (optimizer_in_bwd): as above without clipping, loss and norm, and usable when
 * the tensor's own partials are finite. `applied` stays. */
struct step_admit_args { tensor plan, scalars, partial; int64_t tensor; };
typedef status op_step_admit_fn(struct stream *s, const struct step_admit_args *d);

/* Optimizer step over [lo, lo + E), when scalars say usable; else nothing. w f32 or bf16 (without master: stochastic rounding
 * when sr, else RNE); master f32 optional (then w = RNE(master)); m, v f32 or bf16 (bf16: always stochastic); g f32 or bf16, read
 * as gscale·g; work act, optional: = scale·w in the segments that have one. Key and (flat index) are the counter of a
 * stochastic rounding. Formulas: numerics.md §5.
 *
 * With 8-bit states (m8 is given) segments with `eight` have theirs in codes, the others in m, v f32; either from place `state` on of
 * vectors for the whole index, whatever the range is:
 *
 *   index    |seg 0, eight           |pad|seg 1|pad|seg 2, eight  |     such segments begin at multiples of 256, and the range cuts
 *   m8, v8   |block 0|block 1|block 2    |block 3|block 4     |         none of their blocks of 256 elements
 *   absmax   |   a   |   b   |    c      |   d   |   e        |         m, v |seg 1|
 *
 * state = map[code]·absmax, of dynamic_map_signed for m and dynamic_map_unsigned for v (quant_maps.h). The step is taken with the new m,
 * v as they are in f32; then absmax f32 [Q/256] = max |x| of the block's elements, codes u8 [Q] = the nearest to x/absmax, between two
 * the even one; never zero of m < 0. All in f32: the same codes on every backend. */
enum { STATE_BLOCK = 256 };
enum optim_kind { OPTIM_ADAMW, OPTIM_ADAM, OPTIM_SGD };
struct update_args {
    enum optim_kind kind;
    tensor w, master, g, m, v, work, scalars;
    tensor m8, v8, m_absmax, v_absmax;
    struct segs segs;
    int64_t lo;
    float wd, beta1, beta2, eps; /* SGD: beta1 = momentum, beta2 = dampening */
    bool nesterov, sr;
    uint64_t key_w, key_m, key_v;
};
typedef status op_update_fn(struct stream *s, const struct update_args *u);

/* NF4, block 64 over the flat row-major weight, double quantisation. n elements;
 * codes u8 [(n+1)/2]; absmax_q u8 [blocks]; nested f32 [⌈blocks/256⌉]; offset f32 [1]. Dequantised rows may lie apart; what is
 * between them is left alone. Dequantising also takes scales that were not quantised again: absmax f32 [blocks] instead of the three.
 * through: every value is rounded to f16 or bf16 before it is to w's dtype; f32: it is not. */
struct nf4_args { tensor w; tensor codes, absmax_q, nested, offset, absmax; dtype through; };
typedef status op_nf4_quantize_fn(struct stream *s, const struct nf4_args *q);   /* w f32 or bf16 → codes… */
typedef status op_nf4_dequantize_fn(struct stream *s, const struct nf4_args *q); /* → w, one RNE */

/* w[e] = uniform(−bound, bound), or normal(0, bound) when normal; element e draws Philox(key, (flat0 + e)/4) lane e%4
 * (normal: Box–Muller on lane pairs). */
struct init_args { tensor w; float bound; bool normal; uint64_t key; int64_t flat0; };
typedef status op_init_fn(struct stream *s, const struct init_args *i);

struct ops {
#define TRIMPOT_OPS(X)                                                                             \
    X(gemm, gemm) X(embed_fwd, embed) X(embed_bwd, embed) X(rmsnorm_fwd, rmsnorm_fwd)              \
    X(rmsnorm_bwd, rmsnorm_bwd) X(rope, rope) X(attn_fwd, attn_fwd) X(attn_bwd, attn_bwd)          \
    X(glu_fwd, glu_fwd) X(glu_bwd, glu_bwd) X(loss, loss) X(soft_cap, soft_cap)                    \
    X(gather_rows, rows) X(scatter_rows, rows) X(dropout, dropout) X(axpy, axpy)                   \
    X(colsum, colsum) X(tree_sum, tree_sum) X(loss_sum, loss_sum) X(sumsq_segs, sumsq_segs)        \
    X(step_decide, step_decide) X(step_admit, step_admit) X(update, update)                        \
    X(nf4_quantize, nf4) X(nf4_dequantize, nf4) X(init, init)                                      \
    X(row_dot, row_dot) X(rescale_fwd, rescale_fwd) X(rescale_bwd, rescale_bwd)
#define TRIMPOT_OP_SLOT(name, args) op_##name##_fn *name;
    TRIMPOT_OPS(TRIMPOT_OP_SLOT)
#undef TRIMPOT_OP_SLOT
};

/* The front door: op_gemm(s, &args), op_rmsnorm_fwd(s, &args), … — checks, then dispatches to s->be->ops. */
#define TRIMPOT_OP_DOOR(name, args) status op_##name(struct stream *s, const struct args##_args *a);
TRIMPOT_OPS(TRIMPOT_OP_DOOR)
#undef TRIMPOT_OP_DOOR

/* The first segment that ends after flat element `at`, or n. */
BOTH int64_t segs_after(const struct seg *segs, int64_t n, int64_t at)
{
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (segs[middle].at + segs[middle].count > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

#endif
