#include "worker/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"

static const char PREFIX[] = "base_model.model.";
enum { LISTED = 20 };

static const char *adapter_dir(const struct session *x) { return x->cfg->checkpointer.adapter_checkpoint; }

static status check_config(const struct session *x)
{
    const char *dir = adapter_dir(x);
    const struct peft_config *p = &x->peft;
    if (x->cfg->model.lora.use_dora && !p->use_dora && x->use == SESSION_TRAIN)
        FAIL(ST_USAGE,
             "model.use_dora: true, but %s/adapter_config.json says use_dora: false, and training goes on with the adapter as it is; set "
             "model.use_dora=false, or begin without an adapter",
             dir);
    if (p->frozen_b && x->use == SESSION_TRAIN)
        FAIL(ST_NOT_BUILT,
             "%s/adapter_config.json: init_lora_weights is \"mica\", whose B stays as it is in training, which is not "
             "built; such adapters can be evaluated and merged",
             dir);
    if (peft_targets(p, "model.embed_tokens"))
        FAIL(ST_NOT_BUILT,
             "%s/adapter_config.json: target_modules selects model.embed_tokens; adapters on the embedding "
             "(lora_embedding_A, lora_embedding_B) are not built",
             dir);
    return ST_OK;
}

/* An adapter on a head that is the embedding changes the head alone, as in PEFT, and so does a copy of either: they are two tensors
 * from here on, and an export has both. */
static void untie_head(struct session *x)
{
    bool head = peft_targets(&x->peft, "lm_head") || peft_saves(&x->peft, "lm_head"), embed = peft_saves(&x->peft, "model.embed_tokens");
    if (!x->shape.tied || !(head || embed)) return;
    x->shape.tied = false;
    x->shape.untied = true;
    if (x->comm->rank == 0)
        log_note("adapter  %s changes the %s, which config.json ties to the %s%s: an export has a head of its own", adapter_dir(x),
                 head ? "head" : "embedding", head ? "embedding" : "head",
                 head && embed ? ", and has one of each"
                 : head        ? ", which stays as it is"
                               : ", which stays");
}

/* model.rank_pattern, alpha_pattern and modules_to_save. */
static status take_patterns(struct session *x)
{
    const struct config_lora *l = &x->cfg->model.lora;
    x->peft = (struct peft_config){.r = l->rank, .lora_alpha = l->alpha};
    for (int of_ranks = 0; of_ranks < 2; of_ranks++)
        for (int i = 0; i < (of_ranks ? l->n_rank_pattern : l->n_alpha_pattern); i++) {
            const struct config_pair *p = of_ranks ? &l->rank_pattern[i] : &l->alpha_pattern[i];
            if (peft_pattern_add(&x->peft, of_ranks, "model", p->key, strtod(p->value, NULL)))
                return status_prefix(ST_USAGE, "the configuration");
        }
    for (int i = 0; i < l->n_modules_to_save; i++) peft_saved_add(&x->peft, l->modules_to_save[i]);
    return ST_OK;
}

static unsigned adapted_by(const struct config_lora *l)
{
    static const struct {
        unsigned module, bit;
    } ATTN[] = {{MODULE_Q, 1u << LINEAR_Q}, {MODULE_K, 1u << LINEAR_K}, {MODULE_V, 1u << LINEAR_V}, {MODULE_O, 1u << LINEAR_O}};
    unsigned bits = (l->mlp ? 1u << LINEAR_GATE | 1u << LINEAR_UP | 1u << LINEAR_DOWN : 0) | (l->output ? LORA_ON_HEAD : 0);
    for (size_t i = 0; i < sizeof ATTN / sizeof *ATTN; i++)
        if (l->attn_modules & ATTN[i].module) bits |= ATTN[i].bit;
    return bits;
}

void adapter_plan(const struct session *x, struct model_plan *p)
{
    const struct config_lora *l = &x->cfg->model.lora;
    const struct peft_config *read = x->has_adapter ? &x->peft : NULL;
    bool train = x->use == SESSION_TRAIN;
    p->lora = x->cfg->recipe == RECIPE_LORA || read;
    p->peft = read;
    p->patterns = read || l->n_rank_pattern || l->n_alpha_pattern ? &x->peft : NULL;
    p->saved = p->lora && train ? &x->peft : NULL;
    p->adapted = adapted_by(l);
    p->rank = l->rank;
    p->alpha = l->alpha;
    p->dropout = train ? l->dropout : 0;
    p->rslora = read ? read->use_rslora : l->use_rslora;
    p->dora = read ? read->use_dora : l->use_dora;
    p->start = read || !train ? START_UNIFORM : l->start;
    p->b_lr_ratio = isnan(l->plus_ratio) ? 0 : l->plus_ratio;
}

/* PEFT says nothing of a pattern that is no module's. */
static status check_patterns(const struct session *x, const struct peft_rules *all, const char *key)
{
    for (int i = 0; i < all->n; i++) {
        bool used = false;
        for (int k = 0; k < x->model.params.n && !used; k++) {
            const struct param *p = &x->model.params.p[k];
            const char *end = strstr(p->name, ".lora_A.weight");
            if (p->kind != PARAM_ADAPTER || !end) continue;
            char *module = mem_printf("%.*s", (int)(end - p->name - (ptrdiff_t)sizeof PREFIX + 1), p->name + sizeof PREFIX - 1);
            used = peft_pattern_matches(&all->rule[i], module);
            free(module);
        }
        if (!used)
            FAIL(
                ST_USAGE,
                "model.%s: '%s' is no module with an adapter: it must match the end of a name such as model.layers.0.self_attn.q_proj from "
                "a dot on",
                key, all->rule[i].text);
    }
    return ST_OK;
}

/* The module of a weight or bias of the base: "model.norm". */
static void module_of(const struct param *p, char module[sizeof p->name])
{
    snprintf(module, sizeof p->name, "%s", p->name);
    *strrchr(module, '.') = 0;
}

/* One of the names of modules_to_save by itself. */
static bool ends_so(const struct param *p, const char *name)
{
    char module[sizeof p->name];
    module_of(p, module);
    size_t n = strlen(module), k = strlen(name);
    return k <= n && !strcmp(module + n - k, name);
}

static status check_saved(const struct session *x)
{
    for (int i = 0; i < x->peft.saved.n; i++) {
        const char *name = x->peft.saved.rule[i].text;
        bool used = false;
        for (int k = 0; k < x->model.params.n && !used; k++)
            used = x->model.params.p[k].kind == PARAM_SAVED && ends_so(&x->model.params.p[k], name);
        if (!used)
            FAIL(ST_USAGE,
                 "model.modules_to_save: '%s' is no module with weights of its own: names such as lm_head, embed_tokens, model.norm, "
                 "input_layernorm or layers.0.mlp.up_proj are, or the ends of them",
                 name);
    }
    return ST_OK;
}

status adapter_open(struct session *x)
{
    const char *dir = adapter_dir(x);
    if (!dir) return take_patterns(x);
    TRY(peft_config_read(dir, &x->peft));
    TRY(check_config(x));
    untie_head(x);
    TRY(st_open(dir, "adapter_model", &x->adapter));
    x->has_adapter = true;
    return ST_OK;
}

/* ---- tensors of the adapter ---------------------------------------------------------------------------------------------- */

struct report {
    struct buf text;
    int bad;
};

static void complain(struct report *r, const char *what, const char *name, const struct st_entry *e, const struct param *want)
{
    if (++r->bad > LISTED) return;
    buf_printf(&r->text, "\n  %s: %s", what, name);
    if (e && want) {
        buf_printf(&r->text, " is %s [", e->dtype_text);
        for (int i = 0; i < e->rank; i++) buf_printf(&r->text, "%s%lld", i ? ", " : "", (long long)e->dim[i]);
        buf_text(&r->text, "], the model needs [");
        for (int i = 0; i < want->rank; i++) buf_printf(&r->text, "%s%lld", i ? ", " : "", (long long)want->dim[i]);
        buf_text(&r->text, "]");
    }
}

/* Of modules_to_save: what adapter_config.json names must be there. */
static void miss_saved(struct session *x, struct report *r)
{
    for (int i = 0; i < x->model.params.n; i++) {
        const struct param *p = &x->model.params.p[i];
        char module[sizeof p->name];
        if (p->kind == PARAM_ADAPTER) continue;
        module_of(p, module);
        char *name = mem_printf("%s%s", PREFIX, p->name);
        if (peft_saves(&x->peft, module) && !st_find(&x->adapter, name))
            complain(r, "adapter_config.json has this module in modules_to_save, but the file has no", name, NULL, NULL);
        free(name);
    }
}

static void match_adapters(struct session *x, bool *used, struct report *r)
{
    for (int i = 0; i < x->model.params.n; i++) {
        struct param *p = &x->model.params.p[i];
        if (p->kind != PARAM_ADAPTER) continue;
        const struct st_entry *e = st_find(&x->adapter, p->name);
        if (!e) {
            complain(r, "adapter_config.json selects this module, but the file has no", p->name, NULL, NULL);
            continue;
        }
        bool loads = param_dtype_loads(e) || (e->known && e->dt == DT_F64);
        used[e - x->adapter.entries] = true;
        if (!param_shape_agrees(p, e))
            complain(r, "wrong shape", p->name, e, p);
        else if (!loads)
            complain(r, "wrong dtype (F32, F16, BF16 and F64 are read)", p->name, e, p);
        else
            p->source = e;
    }
}

/* ---- tensors of the base that came along ----------------------------------------------------------------------------------- */

/* lm_head.base_layer.weight where the head has an adapter, else lm_head.weight. */
static struct param *base_param(struct session *x, const char *name)
{
    struct model *m = &x->model;
    if (strncmp(name, PREFIX, sizeof PREFIX - 1)) return NULL;
    name += sizeof PREFIX - 1;
    if (!strcmp(name, "model.embed_tokens.weight")) return &m->params.p[m->embed];
    return !strcmp(name, m->head.a >= 0 ? "lm_head.base_layer.weight" : "lm_head.weight") ? &m->params.p[m->head.w] : NULL;
}

/* A weight or bias of a module that the adapter has whole. */
static struct param *saved_param(struct session *x, const char *name)
{
    char module[sizeof((struct param *)0)->name];
    if (strncmp(name, PREFIX, sizeof PREFIX - 1)) return NULL;
    name += sizeof PREFIX - 1;
    for (int i = 0; i < x->model.params.n; i++) {
        struct param *p = &x->model.params.p[i];
        if (p->kind == PARAM_ADAPTER || strcmp(p->name, name)) continue;
        module_of(p, module);
        return peft_saves(&x->peft, module) ? p : NULL;
    }
    return NULL;
}

/* False also where the dtypes differ: the adapter's tensor is then used, as PEFT does. */
static bool same_values(const struct st_entry *a, const struct st_entry *b)
{
    return a && b && a->known && b->known && a->dt == b->dt && a->bytes == b->bytes && !memcmp(a->data, b->data, a->bytes);
}

static void take_base(struct session *x, const struct st_entry *e, struct param *p, struct report *r)
{
    const struct param *all = x->model.params.p;
    bool vocabulary = p == &all[x->model.embed] || p == &all[x->model.head.w];
    bool taken = p->source && adapter_replaces(x, p); /* a tied head and embedding are one parameter */
    if (!param_shape_agrees(p, e))
        complain(r, vocabulary ? "wrong shape (was the vocabulary resized? resize the base too)" : "wrong shape", e->name, e, p);
    else if (!param_dtype_loads(e))
        complain(r, "wrong dtype (F32, F16 and BF16 are read)", e->name, e, p);
    else if (same_values(e, p->source))
        return;
    else if (taken)
        complain(r, "this model's head is its embedding, and the adapter brings two different ones", e->name, NULL, NULL);
    else {
        p->source = e;
        if (!x->again) log_note("adapter  %s: %s replaces the base's %s, as in PEFT", adapter_dir(x), e->name, p->name);
    }
}

const char *adapter_replaces(const struct session *x, const struct param *p)
{
    const struct st_entry *all = x->adapter.entries;
    bool ours = x->has_adapter && !param_is_trained(p) && p->source >= all && p->source < all + x->adapter.n;
    return ours ? p->source->name : NULL;
}

static status check_extra(struct session *x, const struct st_entry *e, struct report *r)
{
    if (strstr(e->name, ".lora_embedding_"))
        FAIL(ST_NOT_BUILT, "%s: the tensor %s is an adapter on the embedding, which is not built", e->file, e->name);
    if (strstr(e->name, ".lora_magnitude_vector"))
        FAIL(
            ST_SHAPE,
            "%s: the tensor %s belongs to a DoRA adapter, but adapter_config.json does not say use_dora: true; torchtune leaves it out, and "
            "the magnitudes of q_proj and k_proj in the order of its own rows: save the adapter with PEFT",
            e->file, e->name);
    struct param *p = saved_param(x, e->name);
    if (!p) p = base_param(x, e->name);
    if (p)
        take_base(x, e, p, r);
    else
        complain(r, "adapter_config.json selects no module of this model that would take", e->name, NULL, NULL);
    return ST_OK;
}

status adapter_match(struct session *x)
{
    if (!x->has_adapter && x->model.plan.lora) {
        TRY(check_patterns(x, &x->peft.rank_pattern, "rank_pattern"));
        TRY(check_patterns(x, &x->peft.alpha_pattern, "alpha_pattern"));
        return check_saved(x);
    }
    if (!x->has_adapter) return ST_OK;
    if (!x->model.lora_rank)
        FAIL(ST_SHAPE, "%s/adapter_config.json: target_modules selects no module of this model; is it an adapter of this model?",
             adapter_dir(x));
    struct report r = {0};
    status st = ST_OK;
    bool *used = mem_alloc((size_t)x->adapter.n + 1);
    match_adapters(x, used, &r);
    miss_saved(x, &r);
    for (int i = 0; i < x->adapter.n && !st; i++)
        if (!used[i]) st = check_extra(x, &x->adapter.entries[i], &r);
    free(used);
    if (!st && !r.bad && x->use == SESSION_TRAIN && !x->again)
        log_note("adapter  %s says modules, ranks and alphas (largest rank %lld); model.lora_* only the dropout", adapter_dir(x),
                 (long long)x->model.lora_rank);
    if (r.bad > LISTED) buf_printf(&r.text, "\n  … and %d more", r.bad - LISTED);
    if (!st && r.bad)
        st = status_fail(ST_SHAPE,
                         "%s: adapter_config.json, adapter_model.safetensors and this model do not fit together; is it an "
                         "adapter of this model?%s",
                         adapter_dir(x), r.text.data);
    buf_release(&r.text);
    return st;
}
