#include "worker/model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"

/* ---- parameters ----------------------------------------------------------------------------------------------------- */

static const char *const LINEARS[LINEAR_PER_LAYER] = {
    [LINEAR_Q] = "self_attn.q_proj",   [LINEAR_K] = "self_attn.k_proj", [LINEAR_V] = "self_attn.v_proj",
    [LINEAR_O] = "self_attn.o_proj",   [LINEAR_GATE] = "mlp.gate_proj",
    [LINEAR_UP] = "mlp.up_proj",      [LINEAR_DOWN] = "mlp.down_proj",
};

/* Standard deviation of a randomly initialised model (`model.init: random`), as transformers' initializer_range. */
static const float INIT_RANGE = 0.02f;

static int add_weight(struct model *m, enum param_kind kind, int64_t d0, int64_t d1, const char *name)
{
    int id = param_add(&m->params, kind, d0, d1, "%s", name);
    struct param *p = &m->params.p[id];
    p->init = d1 ? PARAM_INIT_NORMAL : strstr(name, ".bias") ? PARAM_INIT_ZERO : PARAM_INIT_ONE;
    p->init_bound = INIT_RANGE;
    return id;
}

static bool adapted(const struct model *m, unsigned bit, const char *module)
{
    const struct model_plan *plan = &m->plan;
    if (!plan->lora) return false;
    return plan->peft ? peft_targets(plan->peft, module) : (plan->adapted & bit) != 0;
}

static void add_adapter(struct model *m, struct linear *l, const char *module)
{
    const struct model_plan *plan = &m->plan;
    l->rank = plan->peft ? peft_rank(plan->peft, module) : plan->rank;
    double alpha = plan->peft ? peft_alpha(plan->peft, module) : plan->alpha;
    l->scale = (float)(alpha / (plan->rslora ? sqrt((double)l->rank) : (double)l->rank));
    if (l->rank > m->lora_rank) m->lora_rank = l->rank;
    l->dropout = (float)plan->dropout;
    l->lora_a = param_add(&m->params, PARAM_ADAPTER, l->rank, l->in, "base_model.model.%s.lora_A.weight", module);
    l->lora_b = param_add(&m->params, PARAM_ADAPTER, l->out, l->rank, "base_model.model.%s.lora_B.weight", module);
    struct param *a = &m->params.p[l->lora_a], *b = &m->params.p[l->lora_b];
    a->init = PARAM_INIT_UNIFORM;
    a->init_bound = (float)(1 / sqrt((double)l->in));
    b->init = PARAM_INIT_ZERO;
    b->scale = l->scale;
}

static struct linear add_linear(struct model *m, enum param_kind kind, const char *module, int64_t in, int64_t out, bool bias,
                                unsigned bit, uint32_t site)
{
    struct linear l = {.in = in, .out = out, .bias = -1, .lora_a = -1, .lora_b = -1, .site = site};
    char name[128];
    snprintf(name, sizeof name, "%s.weight", module);
    l.w = add_weight(m, kind, out, in, name);
    snprintf(name, sizeof name, "%s.bias", module);
    if (bias) l.bias = add_weight(m, m->plan.full ? PARAM_TRAINED : PARAM_FROZEN, out, 0, name);
    if (adapted(m, bit, module)) add_adapter(m, &l, module);
    return l;
}

static void add_layer(struct model *m, int64_t index)
{
    const struct model_shape *s = &m->shape;
    struct layer *layer = &m->layers[index];
    enum param_kind kind = m->plan.full ? PARAM_TRAINED : PARAM_FROZEN, linear = m->plan.nf4 ? PARAM_NF4 : kind;
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim, c = s->width, f = s->ffn;
    int first = m->params.n;
    const int64_t in[LINEAR_PER_LAYER] = {c, c, c, q, c, c, f}, out[LINEAR_PER_LAYER] = {q, kv, kv, c, f, f, c};
    char name[128];
    layer->window = s->sliding[index] ? s->window : 0;
    layer->rope = s->sliding[index] && m->n_ropes == 2;
    snprintf(name, sizeof name, "model.layers.%lld.input_layernorm.weight", (long long)index);
    layer->norm1 = add_weight(m, kind, c, 0, name);
    for (int i = 0; i < LINEAR_PER_LAYER; i++) {
        if (i == LINEAR_GATE) {
            snprintf(name, sizeof name, "model.layers.%lld.post_attention_layernorm.weight", (long long)index);
            layer->norm2 = add_weight(m, kind, c, 0, name);
        }
        snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)index, LINEARS[i]);
        layer->linear[i] = add_linear(m, linear, name, in[i], out[i], s->qkv_bias && i <= LINEAR_V, 1u << i,
                                      (uint32_t)(index * LINEAR_PER_LAYER + i + 1));
    }
    for (int i = first; i < m->params.n && index < m->lowest; i++)
        if (param_is_trained(&m->params.p[i])) m->lowest = index;
}

status model_init(struct model *m, const struct backend *be, const struct model_shape *shape, const struct model_plan *plan,
                  const struct batch_bounds *bounds, dtype act, bool masters)
{
    *m = (struct model){.shape = *shape, .plan = *plan, .bounds = *bounds, .be = be, .act = act,
                        .stat = act == DT_F64 ? DT_F64 : DT_F32, .lowest = shape->layers, .n_ropes = family_ropes(shape)};
    dtype trained = plan->full ? act : act == DT_F64 ? DT_F64 : DT_F32;
    param_store_init(&m->params, be, act, trained, masters);
    m->layers = mem_alloc((size_t)shape->layers * sizeof *m->layers);
    enum param_kind kind = plan->full ? PARAM_TRAINED : PARAM_FROZEN;
    m->embed = add_weight(m, kind, shape->vocab, shape->width, PARAM_EMBED);
    for (int64_t l = 0; l < shape->layers; l++) add_layer(m, l);
    m->final_norm = add_weight(m, kind, shape->width, 0, "model.norm.weight");
    if (shape->tied) {
        m->head = (struct linear){.w = m->embed, .in = shape->width, .out = shape->vocab, .bias = -1, .lora_a = -1, .lora_b = -1};
        m->params.p[m->embed].uses = 2;
        m->params.p[m->embed].held = true;
        if (adapted(m, LORA_ON_HEAD, "lm_head"))
            FAIL(ST_USAGE, "apply_lora_to_output: true, but this model ties its output head to its embedding, so that an adapter "
                 "on one would change both; set model.apply_lora_to_output=false");
    } else {
        m->head = add_linear(m, kind, "lm_head", shape->width, shape->vocab, false, LORA_ON_HEAD,
                             (uint32_t)(shape->layers * LINEAR_PER_LAYER + 1));
    }
    m->params.p[m->final_norm].held = true;
    if (m->head.lora_a >= 0) m->params.p[m->head.lora_a].held = m->params.p[m->head.lora_b].held = true;
    param_store_index(&m->params);
    struct act_slot slots[ACT_MAX_SLOTS], *kept = mem_alloc(sizeof slots);
    int n = block_slots(m, slots);
    memcpy(kept, slots, sizeof slots);
    act_store_init(&m->acts, kept, n, shape->layers, bounds->tokens, plan->rung, plan->rung_every);
    kv_cache_init(&m->cache, shape->layers, bounds->cached, shape->kv_heads * shape->head_dim, act);
    return ST_OK;
}

void model_release(struct model *m)
{
    free((void *)(uintptr_t)m->acts.slot);
    act_store_release(&m->acts);
    kv_cache_release(&m->cache);
    param_store_release(&m->params);
    free(m->layers);
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

static void layout_backward(struct model *m, struct arena *scratch)
{
    const struct model_shape *s = &m->shape;
    int64_t n = m->bounds.tokens, q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    m->d_x = take2(scratch, m->act, n, s->width, "gradient of x");
    m->d_n = take2(scratch, m->act, n, s->width, "gradient of norms");
    m->d_q = take2(scratch, m->act, n, q, "gradient of q");
    m->d_k = take2(scratch, m->act, n, kv, "gradient of k");
    m->d_v = take2(scratch, m->act, n, kv, "gradient of v");
    m->d_o = take2(scratch, m->act, n, q, "gradient of attention output");
    m->d_h = take2(scratch, m->act, n, s->ffn, "gradient of product");
}

static void layout_head(struct model *m, struct arena *scratch, bool backward)
{
    int64_t rows = m->plan.head_rows, c = m->shape.width;
    m->head_x = take2(scratch, m->act, rows, c, "head rows");
    m->head_n = take2(scratch, m->act, rows, c, "head rows, normed");
    m->head_rstd = take1(scratch, m->stat, rows, "head statistics");
    m->head_z = take2(scratch, m->act, rows, m->shape.vocab, "logits chunk");
    m->loss = take1(scratch, m->stat, m->bounds.supervised > rows ? m->bounds.supervised : rows, "token losses");
    if (backward) m->head_dn = take2(scratch, m->act, rows, c, "head rows, gradient");
    if (m->head.lora_a < 0) return;
    m->head_lora = take2(scratch, m->act, rows, m->head.rank, "head adapter x·Aᵀ");
}

void model_layout(struct model *m, struct arena *frozen, struct arena *trained, struct arena *kept, struct arena *scratch)
{
    const struct model_shape *s = &m->shape;
    bool backward = m->plan.rung != ACT_RUNG_FORWARD;
    int64_t positions = m->bounds.doc_tokens;
    param_store_layout(&m->params, frozen, trained, scratch);
    act_store_layout(&m->acts, kept, scratch);
    kv_cache_layout(&m->cache, kept);
    for (int i = 0; i < m->n_ropes; i++) {
        int64_t half = (int64_t)((double)s->head_dim * s->rope[i].partial) / 2;
        m->rope[i].cos = take2(scratch, DT_F32, positions, half, "RoPE tables");
        m->rope[i].sin = take2(scratch, DT_F32, positions, half, "RoPE tables");
    }
    if (backward) layout_backward(m, scratch);
    layout_head(m, scratch, backward);
    if (!m->lora_rank) return;
    int64_t rows = m->bounds.tokens > m->plan.head_rows ? m->bounds.tokens : m->plan.head_rows;
    int64_t widest = s->ffn > s->width ? s->ffn : s->width, q = s->heads * s->head_dim;
    if (q > widest) widest = q;
    if (backward) m->lora_t = take2(scratch, m->act, rows, m->lora_rank, "adapter dy·B");
    if (backward && m->plan.dropout > 0) m->dropped = take2(scratch, m->act, rows, widest, "adapter input, dropped");
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
    if (m->shape.rope[0].type == ROPE_DYNAMIC && m->bounds.doc_tokens > m->shape.max_positions)
        log_note("dynamic RoPE: stretched for %lld tokens, the longest row, in all rows (max_position_embeddings is %lld)",
                 (long long)m->bounds.doc_tokens, (long long)m->shape.max_positions);
    for (int i = 0; i < m->n_ropes; i++) TRY(fill_rope(m, g, &m->shape.rope[i], &m->rope[i]));
    return ST_OK;
}

/* ---- running -------------------------------------------------------------------------------------------------------- */

static status embed(struct pass *p)
{
    struct model *m = p->m;
    tensor table;
    TRY(param_acquire(&m->params, p->s, m->embed, &table));
    TRY(op_embed_fwd(p->s, &(struct embed_args){.table = table, .ids = p->batch->ids, .n = p->batch->docs.n_tokens,
                                                .y = act(&m->acts, 0, block_slot_x)}));
    param_done(&m->params, m->embed);
    return ST_OK;
}

static status embed_bwd(struct pass *p)
{
    struct model *m = p->m;
    bool accumulate;
    if (!param_is_trained(&m->params.p[m->embed])) return ST_OK;
    tensor g = grad_acquire(p->sink, m->embed, &accumulate);
    if (!accumulate) TRY(m->be->dev.zero(p->s, g.data, (size_t)tensor_count(&g) * dtype_bytes(g.dt)));
    TRY(op_embed_bwd(p->s, &(struct embed_args){.table = g, .ids = p->batch->ids, .n = p->batch->docs.n_tokens,
                                                .y = tensor_2d(m->d_x.data, m->d_x.dt, p->batch->docs.n_tokens, m->d_x.ld)}));
    return grad_done(p->sink, m->embed);
}

status model_forward(struct pass *p)
{
    struct model *m = p->m;
    act_begin(&m->acts, p->batch->docs.n_tokens);
    TRY(embed(p));
    for (int64_t l = 0; l < m->shape.layers; l++) TRY(block_fwd(p, l));
    return ST_OK;
}

status model_run(struct pass *p, double *loss_sum)
{
    struct model *m = p->m;
    *loss_sum = 0;
    if (!p->batch->supervised) return ST_OK; /* contributes zeros: grad_micro_end writes them */
    TRY(model_forward(p));
    TRY(head_loss(p, act(&m->acts, m->shape.layers, block_slot_x), loss_sum));
    if (!p->sink) return ST_OK;
    for (int64_t l = m->shape.layers - 1; l >= m->lowest; l--) TRY(block_bwd(p, l));
    return embed_bwd(p);
}
