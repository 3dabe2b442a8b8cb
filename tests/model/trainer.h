/* trainer.h — a whole tiny model trained on any backend: what a session is, without files.
 *
 *   corpus (8 documents, Philox) → batches → model over backend_cpu in f32 or bf16, or over backend_ref in float64
 *
 * All of it is the worker's own code; only the backend and the dtype differ. */
#ifndef TRIMPOT_TESTS_TRAINER_H
#define TRIMPOT_TESTS_TRAINER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "collectives/comm_self.h"
#include "kernels/base/philox.h"
#include "kernels/base/text.h"
#include "tests/ref/ref.h"
#include "worker/memory/plan.h"
#include "worker/trainer.h"

#define MUST(expr)                                                                                                                         \
    do {                                                                                                                                   \
        status must_ = (expr);                                                                                                             \
        if (must_) fail_msg("%s: %s", #expr, status_message());                                                                            \
    } while (0)

enum { DOCS = 8, STEPS = 20, VOCAB = 61, LORA_ALL = LORA_ON_HEAD - 1 };

/* ---- data ------------------------------------------------------------------------------------------------------------ */

struct corpus {
    int n_batches;
    int64_t supervised; /* of all batches: the step's mean is over these */
    struct batch batch[DOCS];
    struct batch_bounds bounds;
    int32_t ids[DOCS * 16], start[2 * DOCS], rows[DOCS * 16], labels[DOCS * 16], position[DOCS * 16], row_position[DOCS * 16];
    int64_t sample[DOCS * 16], row_sample[DOCS * 16];
};

static inline uint32_t draw(uint64_t key, uint64_t at) { return philox(key, at / 4, 0).v[at % 4]; }

static inline int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

/* The same 8 documents of 1 … 13 tokens, laid into 1, 2, 4 or 8 batches. Two thirds of the labels count; the last
 * document has none, so that with 8 batches one is empty of labels. */
static inline void corpus_make(struct corpus *c, int n_batches)
{
    static const int length[DOCS] = {5, 13, 1, 7, 9, 2, 11, 3};
    int64_t token = 0, row = 0;
    *c = (struct corpus){.n_batches = n_batches};
    for (int d = 0, b = -1; d < DOCS; d++) {
        if (d % (DOCS / n_batches) == 0) {
            b++;
            c->batch[b] =
                (struct batch){.docs = {.start = {c->start + d + b, c->start + d + b}, .rows = {c->position + token, c->sample + token}},
                               .ids = c->ids + token,
                               .rows = c->rows + row,
                               .labels = c->labels + row,
                               .rows_at = {c->row_position + row, c->row_sample + row}};
        }
        struct batch *batch = &c->batch[b];
        struct docs *docs = &batch->docs;
        for (int t = 0; t < length[d]; t++, token++) {
            c->ids[token] = (int32_t)(draw(11, (uint64_t)token) % VOCAB);
            c->position[token] = t;
            c->sample[token] = 100 + 3 * d;
            if (d == DOCS - 1 || draw(12, (uint64_t)token) % 3 == 0) continue;
            c->rows[row] = (int32_t)(docs->n_tokens + t);
            c->row_position[row] = t;
            c->row_sample[row] = c->sample[token];
            c->labels[row++] = (int32_t)(draw(13, (uint64_t)token) % VOCAB);
            batch->supervised++;
        }
        docs->n_tokens += length[d];
        docs->longest = docs->positions = max_of(docs->longest, length[d]);
        int32_t *start = c->start + (docs->start.dev - c->start);
        start[++docs->n_docs] = (int32_t)docs->n_tokens;
        c->bounds = (struct batch_bounds){max_of(c->bounds.tokens, docs->n_tokens), max_of(c->bounds.docs, docs->n_docs),
                                          max_of(c->bounds.doc_tokens, docs->longest), max_of(c->bounds.supervised, batch->supervised)};
    }
    c->supervised = row;
}

/* ---- ways to train --------------------------------------------------------------------------------------------------- */

struct tiny_paging {
    int64_t resident, window, small;
    bool host; /* it steps there */
};

struct way {
    const char *name;
    const char *family;
    bool tied, masters, narrow_states; /* the last two: when the activations are bf16 */
    int64_t window;
    enum rope_type rope;
    struct model_plan plan; /* rung and head_rows are filled in where they are 0 */
    const char *adapter;    /* adapter_config.json, in place of the plan's modules and ranks */
    enum config_optim optimizer;
    double lr, decay, momentum;
    bool nesterov;
    void (*also)(struct model_shape *s); /* what the family's shape lacks, to have blocks of every kind */
    bool eight;                          /* with an 8-bit optimizer: codes of tensors from 300 elements on */
    const struct tiny_paging *paging;
};

/* ---- shapes that no family of today has, put together from flags. Caps and windows are so small that they bite. ---------- */

static inline void qk_norms(struct model_shape *s) { s->qk_norm = true; }

/* embed_scale is a bf16 number: rounding it is test_shapes'. */
static inline void post_norms(struct model_shape *s)
{
    s->post_norms = s->unit_offset = true;
    s->act = ACT_GELU_TANH;
    s->attn_scale = 0.5f;
    s->attn_cap = 2;
    s->head_cap = 3;
    s->embed_scale = 5.65625f;
    s->window = 4;
    s->sliding[0] = s->sliding[2] = 1;
}

static inline void two_ropes(struct model_shape *s)
{
    post_norms(s);
    s->qk_norm = true;
    s->attn_cap = s->head_cap = 0;
    s->rope[1].theta = 10;
    s->rope[1].type = ROPE_DEFAULT;
}

static inline void fused(struct model_shape *s)
{
    s->fused_qkv = s->fused_gate_up = true;
    s->window = 6;
    s->sliding[1] = 1;
}

/* Learning rates that move the loss clearly in 20 steps and are not on the edge: there, rounding grows from step to step
 * whatever the code does. */
static const struct way ways[] = {
    {"llama3 full AdamW", "llama", true, .rope = ROPE_LLAMA3, .plan = {.full = true}, .optimizer = CONFIG_ADAMW, .lr = 3e-3, .decay = 0.1,
     .masters = true},
    {"llama2 full Adam", "llama", false, .plan = {.full = true}, .optimizer = CONFIG_ADAM, .lr = 1e-3, .decay = 0.01,
     .narrow_states = true},
    {"qwen2 yarn full SGD", "qwen2", true, .rope = ROPE_YARN, .plan = {.full = true}, .optimizer = CONFIG_SGD, .lr = 0.004, .momentum = 0.9,
     .nesterov = true},
    {"qwen2 untied windowed SGD", "qwen2", false, .window = 4, .rope = ROPE_LINEAR, .plan = {.full = true}, .optimizer = CONFIG_SGD,
     .lr = 0.01},
    {"llama3 LoRA AdamW", "llama", true, .rope = ROPE_LLAMA3, .optimizer = CONFIG_ADAMW, .lr = 5e-3, .decay = 0.01,
     .plan = {.lora = true, .adapted = LORA_ALL, .rank = 4, .alpha = 8, .dropout = 0.2}},
    {"llama2 LoRA on q, v, head, SGD", "llama", false, .optimizer = CONFIG_SGD, .lr = 0.03, .momentum = 0.9,
     .plan = {.lora = true, .adapted = 1 << LINEAR_Q | 1 << LINEAR_V | LORA_ON_HEAD, .rank = 3, .alpha = 3, .dropout = 0.1}},
    {"qwen2 QLoRA AdamW", "qwen2", true, .optimizer = CONFIG_ADAMW, .lr = 5e-3,
     .plan = {.lora = true, .frozen.nf4 = true, .adapted = LORA_ALL, .rank = 4, .alpha = 4, .dropout = 0.1, .rslora = true}},
    /* Layers and modules that an adapter leaves out, ranks that differ from linear to linear. */
    {"llama2 LoRA on some modules", "llama", false, .optimizer = CONFIG_ADAMW, .lr = 5e-3, .plan = {.lora = true, .dropout = 0.1},
     .adapter = "{\"peft_type\":\"LORA\",\"target_modules\":\".*(1.*(q|down)|2.*(q|o|gate))_proj|lm_head\",\"r\":3,"
                "\"rank_pattern\":{\"2.*(o|q)_proj\":5,\"lm_head\":2},\"alpha_pattern\":{\"gate_proj\":9}}"},
    {"qwen2 QLoRA on layer 1", "qwen2", true, .optimizer = CONFIG_SGD, .lr = 0.03,
     .plan = {.lora = true, .frozen.nf4 = true, .dropout = 0.1, .rslora = true},
     .adapter = "{\"peft_type\":\"LORA\",\"target_modules\":[\"k_proj\",\"v_proj\",\"up_proj\",\"down_proj\"],"
                "\"layers_to_transform\":[1]}"},
    /* Nothing is dropped and the A's lie side by side: x·Aᵀ of q, k, v and of gate, up in one product. */
    {"llama2 LoRA in rows, AdamW", "llama", false, .optimizer = CONFIG_ADAMW, .lr = 3e-3, .decay = 0.01,
     .plan = {.lora = true, .adapted = LORA_ALL | LORA_ON_HEAD, .rank = 8, .alpha = 8}},
    {"qwen2 QLoRA in rows, SGD", "qwen2", true, .optimizer = CONFIG_SGD, .lr = 0.03, .momentum = 0.9,
     .plan = {.lora = true, .frozen.nf4 = true},
     .adapter = "{\"peft_type\":\"LORA\",\"target_modules\":[\"q_proj\",\"v_proj\",\"gate_proj\",\"up_proj\"],\"r\":8,"
                "\"lora_alpha\":16,\"rank_pattern\":{\"v_proj\":16}}"},
    {"q, k norms, LoRA AdamW", "llama", true, .also = qk_norms, .optimizer = CONFIG_ADAMW, .lr = 3e-3, .decay = 0.01,
     .plan = {.lora = true, .adapted = LORA_ALL, .rank = 4, .alpha = 8, .dropout = 0.1}},
    {"post norms and caps, full AdamW", "llama", true, .also = post_norms, .plan = {.full = true}, .optimizer = CONFIG_ADAMW, .lr = 3e-3,
     .masters = true},
    {"post norms and caps, QLoRA SGD", "qwen2", false, .also = post_norms, .optimizer = CONFIG_SGD, .lr = 0.05, .momentum = 0.9,
     .plan = {.lora = true, .frozen.nf4 = true, .adapted = LORA_ALL | LORA_ON_HEAD, .rank = 4, .alpha = 4, .dropout = 0.1}},
    {"two ropes, full SGD", "llama", true, .also = two_ropes, .rope = ROPE_LINEAR, .plan = {.full = true}, .optimizer = CONFIG_SGD,
     .lr = 0.004},
    {"fused, full Adam", "llama", false, .also = fused, .plan = {.full = true}, .optimizer = CONFIG_ADAM, .lr = 1e-3, .masters = true},
    /* Magnitudes: where nothing is dropped, and where it is; over NF4; on the head; above biases. */
    {"llama2 DoRA in rows, AdamW", "llama", false, .optimizer = CONFIG_ADAMW, .lr = 3e-3, .decay = 0.01,
     .plan = {.lora = true, .dora = true, .adapted = LORA_ALL | LORA_ON_HEAD, .rank = 8, .alpha = 8}},
    {"qwen2 DoRA AdamW", "qwen2", true, .optimizer = CONFIG_ADAMW, .lr = 3e-3,
     .plan = {.lora = true, .dora = true, .adapted = LORA_ALL, .rank = 4, .alpha = 8, .dropout = 0.2, .rslora = true}},
    {"fused, QDoRA SGD", "qwen2", false, .also = fused, .optimizer = CONFIG_SGD, .lr = 0.03, .momentum = 0.9,
     .plan = {.lora = true, .dora = true, .frozen.nf4 = true, .adapted = LORA_ALL | LORA_ON_HEAD, .rank = 4, .alpha = 4, .dropout = 0.1}},
    {"qwen2 QDoRA on some modules", "qwen2", true, .also = qk_norms, .optimizer = CONFIG_SGD, .lr = 0.03, .momentum = 0.9,
     .plan = {.lora = true, .dora = true, .frozen.nf4 = true, .dropout = 0.1},
     .adapter = "{\"peft_type\":\"LORA\",\"target_modules\":[\"q_proj\",\"o_proj\",\"down_proj\"],\"r\":4,\"lora_alpha\":8,"
                "\"layers_to_transform\":[0,2],\"use_dora\":true,\"rank_pattern\":{\"o_proj\":6}}"},
    {"fused, QLoRA AdamW", "qwen2", true, .also = fused, .optimizer = CONFIG_ADAMW, .lr = 5e-3,
     .plan = {.lora = true, .frozen.nf4 = true, .adapted = LORA_ALL, .rank = 4, .alpha = 8, .dropout = 0.1}},
};
enum { N_WAYS = sizeof ways / sizeof *ways };

static inline struct model_shape shape_of(const struct way *r)
{
    struct hf_config hf = {.hidden_act = "silu",
                           .vocab_size = VOCAB,
                           .hidden_size = 32,
                           .intermediate_size = 44,
                           .layers = 3,
                           .heads = 4,
                           .kv_heads = 2,
                           .head_dim = 8,
                           .max_positions = 64,
                           .rms_norm_eps = 1e-5,
                           .tie_word_embeddings = r->tied,
                           .use_sliding_window = r->window > 0,
                           .sliding_window = r->window,
                           .max_window_layers = 1,
                           .rope = {{.type = r->rope,
                                     .theta = 100,
                                     .factor = 4,
                                     .low = 1,
                                     .high = 4,
                                     .original = 32,
                                     .partial = 1,
                                     .attention = r->rope == ROPE_YARN ? 1.25 : 1}}};
    struct model_shape shape;
    snprintf(hf.model_type, sizeof hf.model_type, "%s", r->family);
    MUST(family_shape("(test)", &hf, &shape));
    if (r->also) r->also(&shape);
    return shape;
}

/* ---- a tiny model, and its trainer ----------------------------------------------------------------------------------- */

struct tiny {
    const struct way *way;
    const struct corpus *corpus;
    const struct backend *be;
    struct stream *s, *across;
    struct comm comm;
    struct config config;
    struct peft_config peft; /* of a way with an adapter */
    struct model m;
    struct trainer trainer;
    struct stage stage;
    struct plan plan;
    int64_t step, told;     /* launched; collected */
    double loss[STEPS];     /* token means */
    double *first_gradient; /* [flat_count] of step 0, unscaled */
};

static inline void tiny_layout(struct tiny *t)
{
    struct arena *a = t->plan.arena;
    model_layout(&t->m, &a[PLAN_FROZEN], &a[PLAN_TRAINED], &a[PLAN_ACTIVATIONS], &a[PLAN_SCRATCH], &a[PLAN_OFFLOADED]);
    trainer_layout(&t->trainer, a);
    size_t raw = t->stage.raw_bytes;
    stage_layout(&t->stage, raw ? arena_take(&a[PLAN_SCRATCH], raw, "bytes of files") : NULL, &a[PLAN_STAGING]);
    t->s->workspace = arena_take(&a[PLAN_WORKSPACE], t->s->workspace_bytes, "workspace");
}

static inline struct config config_of(const struct way *r)
{
    const struct tiny_paging paging = r->paging ? *r->paging : (struct tiny_paging){-1};
    return (struct config){.stochastic_rounding = true,
                           .clip_grad_norm = NAN,
                           .optimizer = {.kind = r->optimizer,
                                         .lr = r->lr,
                                         .weight_decay = r->decay,
                                         .beta1 = 0.9,
                                         .beta2 = 0.99,
                                         .eps = 1e-8,
                                         .momentum = r->momentum,
                                         .min_8bit_size = 300,
                                         .quantize_embeddings = true,
                                         .is_paged = r->paging && !paging.host,
                                         .on_host = paging.host,
                                         .host_window = paging.window,
                                         .paged_resident = paging.resident,
                                         .paged_window = paging.window,
                                         .min_paged_size = paging.small,
                                         .nesterov = r->nesterov}};
}

/* Weights of a size that makes every path count, instead of the 0.02 of a real model; vectors and B away from 1 and 0. */
static inline void tiny_init_weights(struct tiny *t)
{
    struct param_store *ps = &t->m.params;
    for (int i = 0; i < ps->n; i++)
        if (ps->p[i].init == PARAM_INIT_NORMAL) ps->p[i].init_bound = 0.2f;
    MUST(param_store_load(ps, &t->stage, 42));
    MUST(model_start(&t->m, t->s));
    for (int i = 0; i < ps->n; i++) {
        struct param *p = &ps->p[i];
        if (p->init != PARAM_INIT_ONE && p->init != PARAM_INIT_ZERO && p->init != PARAM_INIT_LENGTH) continue;
        tensor noise = tensor_1d(mem_alloc((size_t)p->count * 4), DT_F32, p->count), value = p->value;
        value = tensor_1d(value.data, value.dt, p->count);
        MUST(op_init(t->s, &(struct init_args){.w = noise, .bound = 0.1f, .normal = true, .key = (uint64_t)i}));
        MUST(op_axpy(t->s, &(struct axpy_args){.x = noise, .y = value, .scale = 1, .accumulate = true}));
        tensor master = tensor_1d(p->master.data, p->master.dt, p->count);
        if (p->master.data) MUST(op_axpy(t->s, &(struct axpy_args){.x = value, .y = master, .scale = 1}));
        free(noise.data);
    }
    MUST(param_store_refresh_all(ps, t->s));
}

/* One of the ranks of `comm`, which all train on such a corpus; their gradients cross in buckets of so many elements, on a stream of
 * their own. comm NULL: there is but one. */
struct tiny_ranks {
    const struct comm *comm;
    int64_t bucket;
};

/* plan: of the recipe, with the rung and the head's chunk this test is about. */
static inline void tiny_open_among(struct tiny *t, const struct way *r, const struct model_plan *wanted, const struct corpus *c,
                                   const struct backend *be, dtype act, int threads, bool in_bwd, const struct tiny_ranks *ranks)
{
    *t = (struct tiny){.way = r, .corpus = c, .be = be, .config = config_of(r)};
    struct model_shape shape = shape_of(r);
    struct model_plan plan = *wanted;
    if (r->adapter) {
        MUST(peft_config_parse("adapter_config.json", r->adapter, strlen(r->adapter), &t->peft));
        plan.peft = plan.patterns = &t->peft;
    }
    bool wide = act == DT_F64, narrow = act == DT_BF16;
    comm_self_open(&t->comm);
    if (ranks->comm) t->comm = *ranks->comm;
    MUST(be->dev.stream_open(&t->s, threads));
    t->across = t->s;
    if (t->comm.size > 1) MUST(be->dev.stream_open(&t->across, threads));
    MUST(model_init(&t->m, be, &shape, &plan, &c->bounds, act, narrow && r->masters));
    int64_t micros = (int64_t)c->n_batches * t->comm.size;
    struct trainer_sizes sizes = {micros, micros, ranks->bucket, wide ? DT_F64 : narrow && r->narrow_states ? DT_BF16 : DT_F32, in_bwd};
    MUST(stage_init(&t->stage, t->s, param_load_bytes(&t->m.params)));
    MUST(trainer_init(&t->trainer, &t->config, &t->m, &t->comm, t->s, t->across, &sizes));
    MUST(be->prepare(t->s, &(struct work_bounds){.dt = act,
                                                 .tokens = c->bounds.tokens,
                                                 .doc_tokens = c->bounds.doc_tokens,
                                                 .width = shape.width,
                                                 .ffn = shape.ffn,
                                                 .heads = shape.heads,
                                                 .kv_heads = shape.kv_heads,
                                                 .head_dim = shape.head_dim,
                                                 .vocab = shape.vocab,
                                                 .rank = t->m.lora_rank,
                                                 .head_rows = plan.head_rows,
                                                 .threads = threads}));
    plan_init(&t->plan, be, BUDGET_NONE);
    tiny_layout(t);
    MUST(plan_bind(&t->plan));
    tiny_layout(t);
    MUST(model_prepare(&t->m, &t->stage));
    tiny_init_weights(t);
    MUST(optim_zero(&t->trainer.optim, &t->stage));
    MUST(trainer_set_applied(&t->trainer, 0));
    t->first_gradient = mem_alloc((size_t)t->m.params.flat_count * sizeof(double));
}

static inline void tiny_open(struct tiny *t, const struct way *r, const struct model_plan *wanted, const struct corpus *c,
                             const struct backend *be, dtype act, int threads, bool in_bwd)
{
    tiny_open_among(t, r, wanted, c, be, act, threads, in_bwd, &(struct tiny_ranks){0});
}

static inline struct model_plan plan_of(const struct way *r)
{
    struct model_plan plan = r->plan;
    plan.acts.rung = ACT_RUNG_PRODUCTS;
    plan.head_rows = 7;
    return plan;
}

static inline void tiny_close(struct tiny *t)
{
    free(t->first_gradient);
    peft_config_free(&t->peft);
    trainer_release(&t->trainer);
    model_release(&t->m);
    plan_release(&t->plan);
    stage_release(&t->stage);
    if (t->across != t->s) t->be->dev.stream_close(t->across);
    t->be->dev.stream_close(t->s);
}

static inline struct linear *tiny_linear(struct tiny *t, int64_t i)
{
    return i ? &t->m.layers[(i - 1) / LINEAR_PER_LAYER].linear[(i - 1) % LINEAR_PER_LAYER] : &t->m.head;
}
static inline int64_t tiny_linears(const struct tiny *t) { return t->m.shape.layers * LINEAR_PER_LAYER + 1; }

/* `to` starts from exactly the numbers of `from`, of whatever dtype: NF4 from the same codes. */
static inline void tiny_copy(struct tiny *to, const struct tiny *from)
{
    for (int i = 0; i < to->m.params.n; i++) {
        struct param *p = &to->m.params.p[i], *q = &from->m.params.p[i];
        if (p->kind == PARAM_NF4) {
            memcpy(p->nf4.codes.data, q->nf4.codes.data, (size_t)q->nf4.codes.dim[0]);
            memcpy(p->nf4.absmax_q.data, q->nf4.absmax_q.data, (size_t)q->nf4.absmax_q.dim[0]);
            memcpy(p->nf4.nested.data, q->nf4.nested.data, (size_t)q->nf4.nested.dim[0] * 4);
            memcpy(p->nf4.offset.data, q->nf4.offset.data, 4);
            continue;
        }
        tensor x = q->master.data ? q->master : q->value;
        MUST(op_axpy(to->s, &(struct axpy_args){.x = tensor_1d(x.data, x.dt, q->count),
                                                .y = tensor_1d(p->value.data, p->value.dt, p->count),
                                                .scale = 1}));
    }
    magnitude_forget(&to->m);
    MUST(param_store_refresh_all(&to->m.params, to->s));
}

static inline double element(tensor t, int64_t i)
{
    if (t.dt == DT_F64) return ((const double *)t.data)[i];
    return t.dt == DT_F32 ? (double)((const float *)t.data)[i] : (double)bf16_widen(((const bf16 *)t.data)[i]);
}

static inline struct pass tiny_batch(struct tiny *t, int i)
{
    return (struct pass){.m = &t->m, .s = t->s, .batch = &t->corpus->batch[i], .seed = 7, .plan = t->trainer.plan};
}

/* All micro-batches of the step last begun, forward: the sum of the token losses. */
static inline double tiny_loss(struct tiny *t)
{
    double sum = 0;
    for (int i = 0; i < t->corpus->n_batches; i++) {
        struct pass p = tiny_batch(t, i);
        double *part = (double *)t->trainer.losses.data + i;
        MUST(model_run(&p, tensor_1d(part, DT_F64, 1)));
        sum += *part;
    }
    return sum;
}

/* All micro-batches of a step: the gradient of the sum of the token losses is in the sink. */
static inline void tiny_pass(struct tiny *t)
{
    MUST(trainer_begin(&t->trainer, &(struct step_start){.step = t->step, .supervised = t->corpus->supervised, .lr = t->way->lr}));
    for (int i = 0; i < t->corpus->n_batches; i++) {
        struct pass p = tiny_batch(t, i);
        p.sink = &t->trainer.sink;
        MUST(trainer_micro(&t->trainer, &p, i));
    }
    MUST(trainer_reduce(&t->trainer, 0));
}

static inline void tiny_keep_gradient(struct tiny *t)
{
    for (int i = 0; i < t->m.params.n; i++) {
        const struct param *p = &t->m.params.p[i];
        if (!grad_held(&t->trainer.sink, i)) continue;
        tensor g = grad_of(&t->trainer.sink, i);
        for (int64_t e = 0; e < p->count; e++) t->first_gradient[p->flat + e] = element(g, e);
    }
}

/* The step is queued; tiny_collect reads what it came to. */
static inline void tiny_launch(struct tiny *t)
{
    tiny_pass(t);
    if (t->step == 0) tiny_keep_gradient(t);
    MUST(trainer_update(&t->trainer));
    t->step++;
}

static inline struct step_result tiny_collect(struct tiny *t)
{
    struct step_result result;
    MUST(trainer_collect(&t->trainer, &result));
    t->loss[t->told++] = result.loss;
    return result;
}

/* As a session trains: a step is told when the next one is launched. */
static inline void tiny_run(struct tiny *t, int steps)
{
    while (t->told < steps) {
        if (t->step < steps) tiny_launch(t);
        if (t->step == steps || trainer_in_flight(&t->trainer) == TRAINER_SLOTS) assert_true(tiny_collect(t).usable);
    }
}

#endif
