#include "worker/model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

/* ---- parameters ----------------------------------------------------------------------------------------------------- */

/* One parameter or projection of a block. */
struct part {
    int linear, norm; /* LINEAR_* or NORM_*, the other -1 */
    const char *name; /* in the files, after "model.layers.N." */
    int64_t in, out;  /* of a norm: out channels */
    bool bias;
    unsigned bits; /* of model_plan.adapted */
};
enum { MAX_PARTS = LINEAR_PER_LAYER + NORM_PER_LAYER };

#define NORM(which, name, width)                                                                                                           \
    parts[n++] = (struct part) { -1, which, name, 0, width, false, 0 }
#define LINEAR(which, name, in, out, bias, bits)                                                                                           \
    parts[n++] = (struct part) { which, -1, name, in, out, bias, bits }

/* The parameters of a block, in the order of execution, which is the order of the flat index and of every checkpoint. */
static int list_parts(const struct model_shape *s, struct part parts[MAX_PARTS])
{
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim, c = s->width, f = s->ffn;
    int n = 0;
    NORM(NORM_1, "input_layernorm", c);
    if (s->fused_qkv)
        LINEAR(LINEAR_Q, "self_attn.qkv_proj", c, q + 2 * kv, s->qkv_bias, 1u << LINEAR_Q | 1u << LINEAR_K | 1u << LINEAR_V);
    else {
        LINEAR(LINEAR_Q, "self_attn.q_proj", c, q, s->qkv_bias, 1u << LINEAR_Q);
        LINEAR(LINEAR_K, "self_attn.k_proj", c, kv, s->qkv_bias, 1u << LINEAR_K);
        LINEAR(LINEAR_V, "self_attn.v_proj", c, kv, s->qkv_bias, 1u << LINEAR_V);
    }
    if (s->qk_norm) {
        NORM(NORM_Q, "self_attn.q_norm", s->head_dim);
        NORM(NORM_K, "self_attn.k_norm", s->head_dim);
    }
    LINEAR(LINEAR_O, "self_attn.o_proj", q, c, false, 1u << LINEAR_O);
    if (s->post_norms) NORM(NORM_POST_1, "post_attention_layernorm", c);
    NORM(NORM_2, s->post_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm", c);
    if (s->fused_gate_up)
        LINEAR(LINEAR_GATE, "mlp.gate_up_proj", c, 2 * f, false, 1u << LINEAR_GATE | 1u << LINEAR_UP);
    else {
        LINEAR(LINEAR_GATE, "mlp.gate_proj", c, f, false, 1u << LINEAR_GATE);
        LINEAR(LINEAR_UP, "mlp.up_proj", c, f, false, 1u << LINEAR_UP);
    }
    LINEAR(LINEAR_DOWN, "mlp.down_proj", f, c, false, 1u << LINEAR_DOWN);
    if (s->post_norms) NORM(NORM_POST_2, "post_feedforward_layernorm", c);
    return n;
}

#undef NORM
#undef LINEAR

/* Standard deviation of a randomly initialised model (`model.init: random`), as transformers' initializer_range. */
static const float INIT_RANGE = 0.02f;

static int add_weight(struct model *m, enum param_kind kind, int64_t d0, int64_t d1, enum param_init init, const char *name)
{
    int id = param_add(&m->params, kind, d0, d1, "%s", name);
    m->params.p[id].init = init;
    m->params.p[id].init_bound = INIT_RANGE;
    return id;
}

static bool is_saved(const struct model *m, const char *module) { return m->plan.saved && peft_saves(m->plan.saved, module); }

/* otherwise: of a module that is trained neither with all others nor by name. */
static enum param_kind kind_of(const struct model *m, const char *module, enum param_kind otherwise)
{
    return is_saved(m, module) ? PARAM_SAVED : m->plan.full && otherwise == PARAM_FROZEN ? PARAM_TRAINED : otherwise;
}

static int add_norm(struct model *m, int64_t width, const char *module)
{
    char name[128];
    snprintf(name, sizeof name, "%s.weight", module);
    return add_weight(m, kind_of(m, module, PARAM_FROZEN), width, 0, m->shape.unit_offset ? PARAM_INIT_ZERO : PARAM_INIT_ONE, name);
}

static bool adapted(const struct model *m, unsigned bit, const char *module)
{
    const struct model_plan *plan = &m->plan;
    if (!plan->lora) return false;
    return plan->peft ? peft_targets(plan->peft, module) : (plan->adapted & bit) != 0;
}

/* Those of its projections that are to have adapters; none: all, or not fused. */
static void find_parts(const struct model *m, struct linear *l, unsigned bits)
{
    const struct model_shape *s = &m->shape;
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const struct linear_part rows[] = {[LINEAR_Q] = {0, q}, [LINEAR_K] = {q, kv}, [LINEAR_V] = {q + kv, kv}};
    if (m->plan.peft || !(bits & 1u << LINEAR_K) || (m->plan.adapted & bits) == bits) return;
    for (int i = LINEAR_Q; i <= LINEAR_V; i++)
        if (m->plan.adapted & 1u << i) l->part[l->parts++] = rows[i];
}

static void add_adapter(struct model *m, struct linear *l, const char *module, unsigned bits)
{
    const struct model_plan *plan = &m->plan;
    int64_t rank = plan->patterns ? peft_rank(plan->patterns, module) : plan->rank;
    double alpha = plan->patterns ? peft_alpha(plan->patterns, module) : plan->alpha;
    if (bits & (bits - 1)) find_parts(m, l, bits);
    l->rank = l->parts ? l->parts * rank : rank;
    l->scale = (float)(alpha / (plan->rslora ? sqrt((double)rank) : (double)rank));
    if (l->rank > m->lora_rank) m->lora_rank = l->rank;
    l->dropout = (float)plan->dropout;
    l->a = param_add(&m->params, PARAM_ADAPTER, l->rank, l->in, "base_model.model.%s.lora_A.weight", module);
    l->b = param_add(&m->params, PARAM_ADAPTER, l->out, l->rank, "base_model.model.%s.lora_B.weight", module);
    struct param *a = &m->params.p[l->a], *b = &m->params.p[l->b];
    a->init = PARAM_INIT_UNIFORM;
    a->init_bound = (float)(1 / sqrt((double)l->in));
    if (plan->start == START_GAUSSIAN) {
        a->init = PARAM_INIT_NORMAL;
        a->init_bound = (float)(1 / (double)rank);
    }
    m->params.p[l->w].rewritten = start_is_of_weights(plan->start);
    b->init = PARAM_INIT_ZERO;
    b->scale = l->scale;
    if (plan->dora) magnitude_add(m, l, module);
}

static struct linear absent(void) { return (struct linear){.w = -1, .bias = -1, .a = -1, .b = -1, .magnitude = -1}; }

/* name: that of the module within `module`. */
static struct linear add_linear(struct model *m, enum param_kind frozen, const char *module, const struct part *part, uint32_t site)
{
    struct linear l = absent();
    char name[128];
    l.module = part->name;
    l.in = part->in;
    l.out = part->out;
    l.site = site;
    snprintf(name, sizeof name, "%s.weight", module);
    l.w = add_weight(m, kind_of(m, module, frozen), l.out, l.in, PARAM_INIT_NORMAL, name);
    m->params.p[l.w].stored = m->params.p[l.w].kind == PARAM_NF4 && m->plan.frozen.stored;
    m->params.p[l.w].once = m->params.p[l.w].stored && !m->plan.frozen.stored->nested;
    snprintf(name, sizeof name, "%s.bias", module);
    if (part->bias) l.bias = add_weight(m, kind_of(m, module, PARAM_FROZEN), l.out, 0, PARAM_INIT_ZERO, name);
    if (adapted(m, part->bits, module)) add_adapter(m, &l, module, part->bits);
    return l;
}

/* One product may then read the A's of the adapters that read one input. */
static void chain_adapters(struct model *m, const struct layer *layer)
{
    for (int i = 0, last = -1; i < LINEAR_PER_LAYER; i++) {
        int a = layer->linear[i].a;
        if (linear_first(i) == i) last = -1;
        if (a < 0) continue;
        m->params.p[a].next = last;
        last = a;
    }
}

static enum param_kind block_kind(const struct model *m, const char *module)
{
    if (m->plan.frozen.stored) return bnb_quantises(m->plan.frozen.stored, module) ? PARAM_NF4 : PARAM_FROZEN;
    return m->plan.frozen.nf4 ? PARAM_NF4 : m->plan.full ? PARAM_TRAINED : PARAM_FROZEN;
}

static void add_layer(struct model *m, int64_t index, const struct part *parts, int n)
{
    const struct model_shape *s = &m->shape;
    struct layer *layer = &m->layers[index];
    int first = m->params.n;
    layer->window = s->sliding[index] ? s->window : 0;
    layer->rope = s->sliding[index] && m->n_ropes == 2;
    for (int i = 0; i < LINEAR_PER_LAYER; i++) layer->linear[i] = absent();
    for (int i = 0; i < NORM_PER_LAYER; i++) layer->norm[i] = -1;
    for (int i = 0; i < n; i++) {
        const struct part *part = &parts[i];
        char name[112];
        snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)index, part->name);
        if (part->norm >= 0)
            layer->norm[part->norm] = add_norm(m, part->out, name);
        else
            layer->linear[part->linear] =
                add_linear(m, block_kind(m, name), name, part, (uint32_t)(index * LINEAR_PER_LAYER + part->linear + 1));
    }
    chain_adapters(m, layer);
    for (int i = first; i < m->params.n; i++) {
        m->params.p[i].layer = index;
        if (index < m->lowest && param_is_trained(&m->params.p[i])) m->lowest = index;
    }
}

/* An adapter on some of a fused linear's projections has zeros in B that must stay: plain LoRA keeps them. */
static status check_fused(const struct model_plan *plan, const struct part *parts, int n)
{
    bool plain = plan->start <= START_GAUSSIAN && !plan->patterns && !plan->rslora && !plan->dora;
    for (int i = 0; plan->lora && !plan->peft && !plain && i < n; i++) {
        unsigned some = plan->adapted & parts[i].bits;
        if (some && some != parts[i].bits)
            FAIL(
                ST_USAGE,
                "model.lora_attn_modules names some of q_proj, k_proj and v_proj, but this model has them as one tensor, %s: on a part of "
                "it only plain adapters are built, without use_rslora, use_dora, init_lora_weights and patterns; name all three, or leave these out",
                parts[i].name);
    }
    return ST_OK;
}

/* A weight has either its adapter or a copy that is trained; of a pair that is one tensor, nobody asked for the other. */
static status check_saved(struct model *m)
{
    for (int i = 0; i < m->params.n; i++) {
        const struct param *p = &m->params.p[i];
        if (p->kind != PARAM_SAVED) continue;
        if (m->shape.tied && i == m->embed)
            FAIL(ST_USAGE,
                 "model.modules_to_save: embed_tokens: this model ties its output head to its embedding, so that training one would "
                 "change both; take the name out");
        if ((m->plan.frozen.nf4 || m->plan.frozen.stored) && p->layer >= 0 && p->rank == 2)
            FAIL(ST_USAGE,
                 "model.modules_to_save selects %s, which is held in 4 bits; of such a base only the embedding, the "
                 "head and norms can be trained whole",
                 p->name);
    }
    for (int64_t k = 0; k <= m->shape.layers * LINEAR_PER_LAYER; k++) {
        const struct linear *l =
            k < m->shape.layers * LINEAR_PER_LAYER ? &m->layers[k / LINEAR_PER_LAYER].linear[k % LINEAR_PER_LAYER] : &m->head;
        if (l->a >= 0 && m->params.p[l->w].kind == PARAM_SAVED)
            FAIL(ST_USAGE, "model.modules_to_save selects %s, which has an adapter: a module is trained either whole or by its adapter",
                 m->params.p[l->w].name);
    }
    return ST_OK;
}

static status add_head(struct model *m)
{
    const struct model_shape *s = &m->shape;
    const struct part part = {.name = "lm_head", .in = s->width, .out = s->vocab, .bits = LORA_ON_HEAD};
    m->final_norm = add_norm(m, s->width, "model.norm");
    m->params.p[m->final_norm].held = true;
    if (!s->tied) {
        m->head = add_linear(m, PARAM_FROZEN, "lm_head", &part, (uint32_t)(s->layers * LINEAR_PER_LAYER + 1));
        if (m->head.a >= 0) m->params.p[m->head.a].held = m->params.p[m->head.b].held = true;
        if (m->head.magnitude >= 0) m->params.p[m->head.magnitude].held = true;
        return ST_OK;
    }
    m->head = absent();
    m->head.w = m->embed;
    m->head.in = s->width;
    m->head.out = s->vocab;
    m->params.p[m->embed].uses = 2;
    m->params.p[m->embed].held = true;
    if (is_saved(m, "lm_head"))
        FAIL(ST_USAGE,
             "model.modules_to_save: lm_head: this model ties its output head to its embedding, so that training one would change "
             "both; take the name out");
    if (adapted(m, LORA_ON_HEAD, "lm_head"))
        FAIL(ST_USAGE, "apply_lora_to_output: true, but this model ties its output head to its embedding, so that an adapter "
                       "on one would change both; set model.apply_lora_to_output=false");
    return ST_OK;
}

/* LoRA+: B and all vectors learn faster than A and whole matrices, and biases do not decay, as in PEFT. */
static void set_rates(struct model *m)
{
    for (int i = 0; i < m->params.n && m->plan.b_lr_ratio > 0; i++) {
        struct param *p = &m->params.p[i];
        if (p->kind < PARAM_ADAPTER) continue;
        if (strstr(p->name, ".lora_B.") || p->rank == 1) p->lr_mult = (float)m->plan.b_lr_ratio;
        if (strstr(p->name, ".bias")) p->wd_mult = 0;
    }
}

static void join_adapters(struct model *m)
{
    for (int64_t l = 0; l < m->shape.layers; l++)
        for (int i = 0; i < LINEAR_PER_LAYER; i++) {
            const struct linear *x = &m->layers[l].linear[i];
            int all = m->block->all[i];
            if (x->rank && all >= 0) param_join(&m->params, x->w, x->a, x->b, m->block->slot[all].width, m->block->column[i]);
        }
}

/* What the steps of tiles read and train comes again with every tile. */
static void keep_for_tiles(struct model *m)
{
    const struct block *b = m->block;
    bool many = m->bounds.tokens > m->plan.acts.tile;
    for (int64_t layer = 0; layer < m->shape.layers; layer++)
        for (int i = b->tiled.first, place = 0; i < b->tiled.end; i++) {
            if (b->step[i].linear < 0) continue;
            struct linear *l = &m->layers[layer].linear[b->step[i].linear];
            const int ids[] = {l->w, l->bias, l->a, l->b, l->magnitude};
            l->tiled = true;
            for (size_t k = 0; many && k < sizeof ids / sizeof *ids; k++)
                if (ids[k] >= 0) m->params.p[ids[k]].held = true;
            if (many) param_keep(&m->params, l->w, place++);
        }
}

static float rounded(dtype act, float x) { return act == DT_BF16 ? bf16_widen(bf16_round(x)) : x; }

status model_init(struct model *m, const struct backend *be, const struct model_shape *shape, const struct model_plan *plan,
                  const struct batch_bounds *bounds, dtype act, bool masters)
{
    *m = (struct model){.shape = *shape,
                        .plan = *plan,
                        .bounds = *bounds,
                        .be = be,
                        .act = act,
                        .stat = act == DT_F64 ? DT_F64 : DT_F32,
                        .lowest = shape->layers,
                        .n_ropes = family_ropes(shape),
                        .embed_scale = rounded(act, shape->embed_scale)};
    struct part parts[MAX_PARTS];
    int n = list_parts(shape, parts);
    dtype trained = plan->full ? act : act == DT_F64 ? DT_F64 : DT_F32;
    param_store_init(&m->params, be, act, trained, masters, &plan->frozen);
    m->layers = mem_alloc((size_t)shape->layers * sizeof *m->layers);
    m->block = mem_alloc(sizeof *m->block);
    TRY(check_fused(plan, parts, n));
    m->embed = add_weight(m, kind_of(m, "model.embed_tokens", PARAM_FROZEN), shape->vocab, shape->width, PARAM_INIT_NORMAL, PARAM_EMBED);
    for (int64_t l = 0; l < shape->layers; l++) add_layer(m, l, parts, n);
    if (param_is_trained(&m->params.p[m->embed])) m->lowest = 0;
    TRY(add_head(m));
    TRY(check_saved(m));
    set_rates(m);
    magnitude_open(m);
    param_store_index(&m->params);
    TRY(block_build(m, m->block));
    for (int64_t l = 0; l < shape->layers; l++) m->layers[l].use = block_use_of(m, l);
    join_adapters(m);
    keep_for_tiles(m);
    TRY(param_store_open(&m->params));
    kv_cache_init(&m->cache, shape->layers, bounds->cached, shape->kv_heads * shape->head_dim, act);
    struct act_policy policy = plan->acts;
    policy.lowest = m->lowest;
    return act_store_init(&m->acts, be, m->block->slot, m->block->n_slots, shape->layers, bounds->tokens, &policy);
}

void model_release(struct model *m)
{
    act_store_release(&m->acts);
    kv_cache_release(&m->cache);
    param_store_release(&m->params);
    free(m->block);
    free(m->layers);
    free(m->lengths);
    *m = (struct model){0};
}

/* ---- layout --------------------------------------------------------------------------------------------------------- */

static tensor take2(struct arena *a, dtype dt, int64_t rows, int64_t cols, const char *name)
{
    return tensor_2d(arena_take(a, (size_t)(rows * cols) * dtype_bytes(dt), "%s", name), dt, rows, cols);
}

static tensor take1(struct arena *a, dtype dt, int64_t n, const char *name)
{
    return tensor_1d(arena_take(a, (size_t)n * dtype_bytes(dt), "%s", name), dt, n);
}

bool model_spare(struct model *m, size_t bytes, void **out)
{
    size_t most = (size_t)(m->plan.head_rows * m->shape.vocab) * dtype_bytes(m->act), at = m->spared;
    if (at + bytes > most) return false;
    *out = m->head_z.data ? (char *)m->head_z.data + at : NULL;
    m->spared = (at + bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    return true;
}

/* The residual stream's passes from the head to the blocks; the others are nobody's while the head computes. */
static void layout_gradients(struct model *m, struct arena *scratch)
{
    for (int i = 0; i < m->block->n_grads; i++) {
        int64_t tokens = m->block->grads[i].tiled ? m->acts.tile : m->bounds.tokens;
        int64_t cols = m->block->grads[i].width, room = m->block->grads[i].room;
        size_t bytes = (size_t)(tokens * (cols + room)) * dtype_bytes(m->act);
        void *data;
        if (i == GRAD_X || !model_spare(m, bytes, &data)) data = arena_take(scratch, bytes, "%s", m->block->grads[i].name);
        tensor t = tensor_2d(data, m->act, tokens, cols + room);
        m->grad[i] = tensor_columns(&t, 0, cols);
    }
}

static void layout_head(struct model *m, struct arena *scratch, bool backward)
{
    int64_t rows = m->plan.head_rows, c = m->shape.width;
    m->head_x = take2(scratch, m->act, rows, c, "head rows");
    m->head_delta = take2(scratch, m->act, rows, c, "head rows, branch");
    m->head_n = take2(scratch, m->act, rows, c, "head rows, normed");
    m->head_rstd = take1(scratch, m->stat, rows, "head statistics");
    m->head_z = take2(scratch, m->act, rows, m->shape.vocab, "logits chunk");
    m->spared = 0;
    m->loss = take1(scratch, m->stat, m->bounds.supervised > rows ? m->bounds.supervised : rows, "token losses");
    if (backward) m->head_dn = m->head_delta; /* which has been added by then */
    if (m->head.a < 0) return;
    m->head_lora = take2(scratch, m->act, rows, m->head.rank, "head adapter x·Aᵀ");
}

void model_layout(struct model *m, struct arena *frozen, struct arena *trained, struct arena *kept, struct arena *scratch,
                  struct arena *offloaded)
{
    const struct model_shape *s = &m->shape;
    bool backward = m->plan.acts.rung != ACT_RUNG_FORWARD;
    int64_t positions = m->bounds.doc_tokens;
    param_store_layout(&m->params, frozen, trained, scratch);
    act_store_layout(&m->acts, kept, scratch, offloaded);
    kv_cache_layout(&m->cache, kept);
    for (int i = 0; i < m->n_ropes; i++) {
        int64_t half = (int64_t)((double)s->head_dim * s->rope[i].partial) / 2;
        m->rope[i].cos = take2(scratch, DT_F32, positions, half, "RoPE tables");
        m->rope[i].sin = take2(scratch, DT_F32, positions, half, "RoPE tables");
    }
    layout_head(m, scratch, backward);
    if (backward) layout_gradients(m, scratch);
    if (!m->lora_rank) return;
    magnitude_layout(m, scratch, backward);
    int64_t rows = m->bounds.tokens > m->plan.head_rows ? m->bounds.tokens : m->plan.head_rows;
    int64_t q = s->heads * s->head_dim, widest = rows * (q > s->width ? q : s->width);
    int64_t product = s->ffn * (m->plan.acts.tile ? m->acts.tile : rows);
    if (product > widest) widest = product;
    if (backward) m->lora_t = take2(scratch, m->act, rows, m->lora_rank, "adapter dy·B");
    if (backward && m->plan.dropout > 0) m->dropped = take1(scratch, m->act, widest, "adapter input, dropped");
}

/* θ is the f32 product of f32 position and f32 frequency, as every other implementation has it. */
static status fill_rope(struct model *m, struct stage *g, const struct hf_rope *r, struct rope_table *to)
{
    int64_t half = to->cos.dim[1], bytes = tensor_count(&to->cos) * 4;
    float *frequency = mem_alloc((size_t)half * sizeof *frequency);
    float *cos_table = mem_alloc((size_t)bytes), *sin_table = mem_alloc((size_t)bytes);
    float attention = (float)r->attention;
    family_rope_frequencies(&m->shape, r, m->bounds.doc_tokens, frequency);
    for (int64_t t = 0; t < to->cos.dim[0]; t++)
        for (int64_t j = 0; j < half; j++) {
            float theta = (float)t * frequency[j];
            cos_table[t * half + j] = (float)cos((double)theta) * attention;
            sin_table[t * half + j] = (float)sin((double)theta) * attention;
        }
    status st = stage_in(g, to->cos.data, cos_table, (size_t)bytes);
    if (!st) st = stage_in(g, to->sin.data, sin_table, (size_t)bytes);
    free(frequency);
    free(cos_table);
    free(sin_table);
    return st;
}

status model_prepare(struct model *m, struct stage *g)
{
    if (m->shape.rope[0].type == ROPE_LONGROPE && m->bounds.doc_tokens > m->shape.rope[0].original)
        log_note("longrope: the long factors, as the longest row has %lld tokens, in all rows (the model began with %lld positions)",
                 (long long)m->bounds.doc_tokens, (long long)m->shape.rope[0].original);
    if (m->shape.rope[0].type == ROPE_DYNAMIC && m->bounds.doc_tokens > m->shape.max_positions)
        log_note("dynamic RoPE: stretched for %lld tokens, the longest row, in all rows (max_position_embeddings is %lld)",
                 (long long)m->bounds.doc_tokens, (long long)m->shape.max_positions);
    for (int i = 0; i < m->n_ropes; i++) TRY(fill_rope(m, g, &m->shape.rope[i], &m->rope[i]));
    return ST_OK;
}

status model_start(struct model *m, struct stream *s) { return magnitude_start(m, s); }

/* ---- running -------------------------------------------------------------------------------------------------------- */

static struct embed_args embed_args(const struct pass *p, tensor table, tensor y)
{
    return (struct embed_args){.table = table, .ids = p->batch->ids, .n = p->batch->docs.n_tokens, .y = y, .scale = p->m->embed_scale};
}

static status embed(struct pass *p)
{
    struct model *m = p->m;
    tensor table;
    TRY(param_acquire(&m->params, p->s, m->embed, &table));
    struct embed_args a = embed_args(p, table, act(&m->acts, 0, m->block->x));
    TRY(op_embed_fwd(p->s, &a));
    param_done(&m->params, m->embed);
    return ST_OK;
}

static status embed_bwd(struct pass *p)
{
    struct model *m = p->m;
    tensor g;
    if (!param_is_trained(&m->params.p[m->embed])) return ST_OK;
    TRY(grad_send(p->sink));
    TRY(grad_acquire_zeroed(p->sink, m->embed, &g));
    struct embed_args a = embed_args(p, g, block_dx(m));
    TRY(op_embed_bwd(p->s, &a));
    return grad_done(p->sink, m->embed);
}

status model_forward(struct pass *p)
{
    struct model *m = p->m;
    act_begin(&m->acts, p->batch->docs.n_tokens, p->sink != NULL);
    TRY(embed(p));
    for (int64_t l = 0; l < m->shape.layers; l++) TRY(block_fwd(p, l));
    return ST_OK;
}

status model_run(struct pass *p, tensor loss_sum)
{
    struct model *m = p->m;
    /* contributes zeros: grad_micro_end writes those of the gradients */
    if (!p->batch->supervised) return m->be->dev.zero(p->s, loss_sum.data, sizeof(double));
    TRY(model_forward(p));
    TRY(head_loss(p, loss_sum));
    if (!p->sink) return ST_OK;
    for (int64_t l = m->shape.layers - 1; l >= m->lowest; l--) {
        TRY(grad_send(p->sink)); /* of what lies above */
        TRY(block_bwd(p, l));
    }
    return embed_bwd(p);
}
