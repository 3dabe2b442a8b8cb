/* What follows from a shape's flags: names and numbers of parameters, tables that hold together, memory as the specification
 * counts it, refusals. That the mathematics is right is shown by the other tests here, which train every one of these shapes. */
#include "tests/model/trainer.h"

static struct model_shape shape_with(void (*also)(struct model_shape *))
{
    struct way w = {.family = "llama", .also = also};
    return shape_of(&w);
}

static status open_model(struct model *m, const struct model_shape *s, const struct model_plan *plan, dtype act)
{
    struct batch_bounds bounds = {.tokens = 64, .docs = 1, .doc_tokens = 64, .supervised = 64};
    return model_init(m, &backend_cpu, s, plan, &bounds, act, false);
}

/* ---- names: those of transformers' models, in the order of execution ------------------------------------------------------ */

static const char *const LLAMA[] = {"input_layernorm",  "self_attn.q_proj",
                                    "self_attn.k_proj", "self_attn.v_proj",
                                    "self_attn.o_proj", "post_attention_layernorm",
                                    "mlp.gate_proj",    "mlp.up_proj",
                                    "mlp.down_proj",    NULL};
static const char *const QK_NORMS[] = {"input_layernorm",  "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                       "self_attn.q_norm", "self_attn.k_norm", "self_attn.o_proj", "post_attention_layernorm",
                                       "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",    NULL};
static const char *const POST_NORMS[] = {"input_layernorm",
                                         "self_attn.q_proj",
                                         "self_attn.k_proj",
                                         "self_attn.v_proj",
                                         "self_attn.o_proj",
                                         "post_attention_layernorm",
                                         "pre_feedforward_layernorm",
                                         "mlp.gate_proj",
                                         "mlp.up_proj",
                                         "mlp.down_proj",
                                         "post_feedforward_layernorm",
                                         NULL};
static const char *const FUSED[] = {
    "input_layernorm", "self_attn.qkv_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_up_proj", "mlp.down_proj", NULL};

static void check_names(const struct model_shape *s, const char *const *names)
{
    struct model m;
    struct model_plan plan = {.full = true, .head_rows = 8};
    MUST(open_model(&m, s, &plan, DT_F32));
    int id = 0;
    assert_string_equal(m.params.p[id++].name, "model.embed_tokens.weight");
    for (int64_t l = 0; l < s->layers; l++)
        for (int i = 0; names[i]; i++) {
            char want[128];
            snprintf(want, sizeof want, "model.layers.%d.%s.weight", (int)l, names[i]);
            assert_string_equal(m.params.p[id++].name, want);
        }
    assert_string_equal(m.params.p[id++].name, "model.norm.weight");
    assert_string_equal(m.params.p[id++].name, "lm_head.weight");
    assert_int_equal(id, m.params.n);
    for (int i = 0; i < m.params.n; i++)
        if (m.params.p[i].rank == 1) assert_int_equal(m.params.p[i].init, s->unit_offset ? PARAM_INIT_ZERO : PARAM_INIT_ONE);
    model_release(&m);
}

static void names(void **state)
{
    struct model_shape plain = shape_with(NULL), qk = shape_with(qk_norms), post = shape_with(post_norms), phi = shape_with(fused);
    (void)state;
    check_names(&plain, LLAMA);
    check_names(&qk, QK_NORMS);
    check_names(&post, POST_NORMS);
    check_names(&phi, FUSED);
}

/* ---- tables ------------------------------------------------------------------------------------------------------------------ */

/* Whatever a step reads, an earlier one has written; whatever backward reads is there; every gradient has a place. */
static void check_tables(const struct model *m)
{
    const struct block *b = m->block;
    slot_set there = (slot_set)1 << b->x, stream = there | (slot_set)1 << b->x2 | (slot_set)1 << b->delta;
    for (int i = 0; i < b->n_slots; i++) {
        const struct act_slot *s = &b->slot[i], *owner = &b->slot[s->of];
        assert_true(owner->of == s->of && s->column >= 0 && s->column + s->width <= owner->width && s->dt == owner->dt);
        assert_true(b->grad[i] < b->n_grads);
        if (b->grad[i] >= 0 && s->of == i) assert_int_equal(b->grads[b->grad[i]].width, s->width);
    }
    for (int i = 0; i < b->n_steps; i++) {
        const struct step *st = &b->step[i];
        slot_set reads = st->sum ? st->terms : st->reads;
        assert_true(st->fwd && (st->fwd == step_inner_fwd ? !st->bwd && !st->out : st->bwd && st->out));
        assert_true(!(st->out & ~st->writes) && !(st->sum & ~st->writes));
        if (reads & ~there) fail_msg("%s reads what is not there: %llx", st->name, (unsigned long long)(reads & ~there));
        there |= st->writes;
        if (st->saved & ~there) fail_msg("%s saves what nobody writes", st->name);
    }
    assert_true(!(stream & ~there));
    for (int64_t l = 0; l < m->shape.layers; l++) assert_true(!(m->layers[l].use.needs & ~there));
}

static void tables(void **state)
{
    (void)state;
    for (int i = 0; i < N_WAYS; i++) {
        struct model m;
        struct model_shape s = shape_of(&ways[i]);
        struct model_plan full = {.full = true, .head_rows = 8};
        struct model_plan lora = {.lora = true, .adapted = LORA_ALL, .rank = 8, .alpha = 8, .head_rows = 8};
        MUST(open_model(&m, &s, &full, DT_BF16));
        check_tables(&m);
        model_release(&m);
        MUST(open_model(&m, &s, &lora, DT_BF16));
        check_tables(&m);
        model_release(&m);
    }
}

/* ---- x·Aᵀ of projections that read one slot: one product, where it is the same in every layer ------------------------------- */

#define ON(modules, more) "{\"peft_type\":\"LORA\",\"target_modules\":[" modules "],\"r\":8" more "}"
#define QV                "\"q_proj\",\"v_proj\""

static int products(const struct model *m)
{
    int n = 0;
    for (int k = 0; k < m->block->n_steps; k++) n += m->block->step[k].fwd == step_inner_fwd;
    return n;
}

static void one_product(void **state)
{
    enum { Q_V = 1 << LINEAR_Q | 1 << LINEAR_V };
    static const struct {
        void (*also)(struct model_shape *);
        unsigned adapted;
        int64_t rank;
        double dropout;
        const char *adapter;
        int steps;
    } rows[] = {
        {NULL, LORA_ALL, 8, 0, NULL, 2},
        {NULL, LORA_ALL, 8, 0.1, NULL, 0},
        {NULL, LORA_ALL, 4, 0, NULL, 0}, /* 4·32 elements: the next begins 256 after */
        {NULL, Q_V, 8, 0, NULL, 1},
        {NULL, 1 << LINEAR_K, 8, 0, NULL, 0},
        {qk_norms, LORA_ALL, 16, 0, NULL, 2},
        {fused, LORA_ALL, 8, 0, NULL, 0},
        {.adapter = ON(QV, ""), .steps = 1},
        {.adapter = ON(QV, ",\"rank_pattern\":{\"q_proj\":24}"), .steps = 1},
        {.adapter = ON(QV, ",\"rank_pattern\":{\"1.self_attn.q_proj\":24}"), .steps = 0},
        {.adapter = ON(QV, ",\"layers_to_transform\":[0,2]"), .steps = 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model m;
        struct peft_config peft = {0};
        struct model_shape s = shape_with(rows[i].also);
        struct model_plan plan = {
            .lora = true, .adapted = rows[i].adapted, .rank = rows[i].rank, .alpha = 8, .head_rows = 8, .dropout = rows[i].dropout};
        if (rows[i].adapter) {
            MUST(peft_config_parse("adapter_config.json", rows[i].adapter, strlen(rows[i].adapter), &peft));
            plan.peft = plan.patterns = &peft;
        }
        MUST(open_model(&m, &s, &plan, DT_F32));
        if (products(&m) != rows[i].steps) fail_msg("row %d: %d products, not %d", (int)i, products(&m), rows[i].steps);
        check_tables(&m);
        model_release(&m);
        peft_config_free(&peft);
    }
}

/* Every projection reads its own columns: in float64 the loss is that of a model whose dropout (none now) keeps a product for
 * each, to the last bit. */
static void own_columns(void **state)
{
    static struct corpus c;
    int compared = 0;
    (void)state;
    corpus_make(&c, 1);
    for (int i = 0; i < N_WAYS; i++) {
        double loss[2];
        for (int apart = 0; apart < 2; apart++) {
            struct tiny t;
            struct model_plan plan = plan_of(&ways[i]);
            if (!plan.lora || plan.dropout > 0) break;
            if (apart) plan.dropout = 0.5;
            tiny_open(&t, &ways[i], &plan, &c, &backend_ref, DT_F64, 1, false);
            assert_int_equal(apart, !products(&t.m));
            struct pass p = tiny_batch(&t, 0);
            p.plan = (tensor){0};
            MUST(model_run(&p, tensor_1d(&loss[apart], DT_F64, 1)));
            tiny_close(&t);
            compared += apart;
            if (apart) assert_true(loss[0] > 0 && loss[0] == loss[1]);
        }
    }
    assert_true(compared >= 2);
}

/* numerics.md §13: bytes per token and layer of what is kept, in bf16. */
static void kept_bytes(void **state)
{
    const struct {
        enum act_rung rung;
        int64_t c, q, kv, f, h;
    } rows[] = {{ACT_RUNG_NONE, 4, 2, 2, 3, 1},
                {ACT_RUNG_PRODUCTS, 2, 2, 2, 2, 1},
                {ACT_RUNG_FFN, 2, 2, 2, 0, 1},
                {ACT_RUNG_INPUTS, 2, 1, 0, 0, 1},
                {ACT_RUNG_BLOCK, 1, 0, 0, 0, 0}};
    struct model_shape s = shape_with(NULL);
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model m;
        struct plan p;
        struct model_plan plan = {.full = true, .head_rows = 8, .acts.rung = rows[i].rung};
        MUST(open_model(&m, &s, &plan, DT_BF16));
        plan_init(&p, &backend_cpu, BUDGET_NONE);
        act_store_layout(&m.acts, &p.arena[PLAN_ACTIVATIONS], &p.arena[PLAN_SCRATCH], &p.arena[PLAN_OFFLOADED]);
        int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
        int64_t layer = 2 * (rows[i].c * s.width + rows[i].q * q + rows[i].kv * kv + rows[i].f * s.ffn) + rows[i].h * 4 * (s.heads + 2);
        assert_int_equal(p.arena[PLAN_ACTIVATIONS].used, 64 * s.layers * layer);
        plan_release(&p);
        model_release(&m);
    }
}

/* ---- numbers ----------------------------------------------------------------------------------------------------------------- */

/* numerics.md §2: c = √C rounded to the model's dtype. */
static void embed_scale(void **state)
{
    static const struct {
        int width;
        float bf16;
    } rows[] = {{2048, 45.25f}, {2304, 48}, {3072, 55.5f}, {3584, 59.75f}, {4608, 68}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model m;
        struct model_plan plan = {.full = true, .head_rows = 8};
        struct model_shape s = shape_with(NULL);
        s.embed_scale = (float)sqrt(rows[i].width);
        MUST(open_model(&m, &s, &plan, DT_F32));
        assert_true(m.embed_scale == s.embed_scale);
        model_release(&m);
        MUST(open_model(&m, &s, &plan, DT_BF16));
        assert_true(m.embed_scale == rows[i].bf16);
        model_release(&m);
    }
}

/* Logits are capped as the loss caps them, and the cap does something. */
static void capped_logits(void **state)
{
    static struct corpus c;
    static const struct way capped = {"capped", "llama", true, .also = post_norms}, *w = &capped;
    struct tiny t;
    tensor z;
    struct model_plan plan = plan_of(w);
    (void)state;
    corpus_make(&c, 1);
    plan.full = true;
    tiny_open(&t, w, &plan, &c, &backend_cpu, DT_F32, 1, false);
    struct pass p = tiny_batch(&t, 0);
    static float with[7 * VOCAB];
    double highest = 0;
    MUST(model_forward(&p));
    MUST(model_logits(&p, c.rows, 7, &z));
    memcpy(with, z.data, sizeof with);
    float cap = t.m.shape.head_cap;
    t.m.shape.head_cap = 0;
    MUST(model_logits(&p, c.rows, 7, &z));
    for (int i = 0; i < 7 * VOCAB; i++) {
        double raw = (double)((float *)z.data)[i], want = (double)cap * tanh(raw / (double)cap);
        assert_true(fabs((double)with[i] - want) <= 6 * 0x1p-24 * fabs(want));
        highest = fmax(highest, fabs(raw));
    }
    assert_true(highest > (double)cap);
    tiny_close(&t);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------------------- */

static void refusals(void **state)
{
    struct model m;
    struct model_shape phi = shape_with(fused), both = phi;
    struct model_plan some = {
        .lora = true, .adapted = 1 << LINEAR_Q | 1 << LINEAR_V, .rank = 2, .alpha = 2, .rslora = true, .head_rows = 8};
    struct model_plan full = {.full = true};
    (void)state;
    assert_int_equal(open_model(&m, &phi, &some, DT_F32), ST_USAGE);
    assert_non_null(strstr(status_message(), "self_attn.qkv_proj"));
    model_release(&m);
    some.adapted |= 1 << LINEAR_K;
    MUST(open_model(&m, &phi, &some, DT_F32));
    for (int i = 0; i < m.params.n; i++)
        if (m.params.p[i].kind == PARAM_ADAPTER) assert_non_null(strstr(m.params.p[i].name, "self_attn.qkv_proj.lora_"));
    model_release(&m);
    both.qk_norm = true;
    assert_int_equal(open_model(&m, &both, &full, DT_F32), ST_NOT_BUILT);
    model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),      cmocka_unit_test(tables),      cmocka_unit_test(one_product),   cmocka_unit_test(own_columns),
        cmocka_unit_test(kept_bytes), cmocka_unit_test(embed_scale), cmocka_unit_test(capped_logits), cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
