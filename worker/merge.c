#include "worker/merge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "worker/adapter.h"

/* ---- into what --------------------------------------------------------------------------------------------------------------- */

static const char DEQUANTISED[] = "dequantized";

static bool into_codes(const struct session *x) { return x->cfg->merge_base && !strcmp(x->cfg->merge_base, DEQUANTISED); }
static bool into_other(const struct session *x) { return merge_other(x->cfg) != NULL; }
static bool merges(const struct session *x) { return x->use == SESSION_TRAIN && !x->model.plan.full; }

const char *merge_other(const struct config *c) { return c->merge_base && strcmp(c->merge_base, DEQUANTISED) ? c->merge_base : NULL; }

bool merge_is_declined(const struct session *x) { return merges(x) && x->cfg->save_adapter_weights_only; }

bool merge_is_adapter_only(const struct session *x) { return merge_is_declined(x) || (merges(x) && x->bnb.is && !x->cfg->merge_base); }

const char *merge_dir(const struct session *x)
{
    return merges(x) && into_other(x) ? x->cfg->merge_base : x->cfg->checkpointer.checkpoint_dir;
}

const struct st_entry *merge_source(const struct session *x, const struct param *p)
{
    if (param_is_trained(p) || p->rewritten) return NULL;
    if (adapter_replaces(x, p)) return p->source;
    if (merges(x) && into_other(x)) return p->original;
    return p->stored || (p->kind == PARAM_NF4 && merges(x) && into_codes(x)) ? NULL : p->source;
}

/* A relative of the model would be merged into without a word: its shapes are the same. Tokens may have been added to, so embeddings are
 * not looked at. */
static status check_same(const struct session *x)
{
    const struct param_store *ps = &x->model.params;
    const double FEW = 0.01;
    for (int i = 0; i < ps->n; i++) {
        const struct param *p = &ps->p[i];
        if (!p->original || !p->source || (!p->packed.codes && p->rank != 1)) continue;
        double strays = bnb_strays(&p->packed, p->source, p->original);
        if (strays > FEW)
            FAIL(
                ST_CONFIG_RUNTIME,
                "merge_base: %s is not the model that was quantised: %.0f %% of the values of %s that were looked at are others than those of "
                "%s; name that model, or \"%s\" for what the codes stand for",
                x->cfg->merge_base, 100 * strays, p->name, x->cfg->checkpointer.checkpoint_dir, DEQUANTISED);
    }
    return ST_OK;
}

/* The same parameters, of another directory that has them unquantised. */
static status find_originals(struct session *x)
{
    struct param_store *ps = &x->model.params, other = {.be = ps->be, .act = ps->act, .n = ps->n};
    const char *dir = x->cfg->merge_base;
    other.p = mem_alloc((size_t)(ps->n + 1) * sizeof *other.p);
    memcpy(other.p, ps->p, (size_t)ps->n * sizeof *other.p);
    for (int i = 0; i < other.n; i++) {
        if (other.p[i].kind == PARAM_NF4) other.p[i].kind = PARAM_FROZEN;
        other.p[i].stored = false;
    }
    status st = x->originals.n ? ST_OK : st_open(dir, "model", &x->originals);
    if (!st) st = param_store_match(&other, &x->originals, dir, x->shape.tied || x->shape.untied, false);
    for (int i = 0; i < ps->n && !st; i++)
        if (ps->p[i].kind != PARAM_ADAPTER) ps->p[i].original = other.p[i].source;
    free(other.p);
    return st ? st : check_same(x);
}

static status check_other(const struct session *x)
{
    struct bnb_config bnb;
    char type[sizeof x->hf.model_type];
    const char *dir = x->cfg->merge_base;
    TRY(hf_config_model_type(dir, type, sizeof type));
    if (strcmp(type, x->hf.model_type))
        FAIL(ST_CONFIG_RUNTIME, "merge_base: %s is a %s model, and %s a %s one; name the model that was quantised", dir, type,
             x->cfg->checkpointer.checkpoint_dir, x->hf.model_type);
    TRY(bnb_config_read(dir, &bnb));
    bool quantised = bnb.is;
    bnb_config_free(&bnb);
    if (quantised)
        FAIL(ST_CONFIG_RUNTIME,
             "merge_base: %s is quantised too, and what is merged is never quantised again: that would lose of what was learnt; name the "
             "original model, or \"%s\" for what the codes stand for",
             dir, DEQUANTISED);
    return ST_OK;
}

status merge_open(struct session *x)
{
    const char *asked = x->cfg->merge_base, *dir = x->cfg->checkpointer.checkpoint_dir;
    if (!merges(x) || !asked) return ST_OK;
    if (into_codes(x) && !x->model.plan.frozen.nf4)
        FAIL(ST_CONFIG_RUNTIME, "merge_base: %s, but the base is not quantised: its adapter is merged into it as it is; delete the key",
             asked);
    if (into_codes(x)) return ST_OK;
    if (!x->bnb.is)
        FAIL(ST_CONFIG_RUNTIME, "merge_base: %s, but %s is not quantised and is what its adapter is merged into; delete the key", asked,
             dir);
    TRY(check_other(x));
    return find_originals(x);
}

void merge_note(const struct session *x)
{
    if (!merges(x) || merge_is_declined(x)) return;
    if (merge_is_adapter_only(x))
        log_note(
            "merge    none: the base is quantised, and its original is not known; merge_base=DIR (the model that was quantised) merges "
            "into that");
    else if (into_codes(x))
        log_note("merge    into the dequantised base, as asked: its rounding to 4 bits stays in the export");
    else if (into_other(x))
        log_note("merge    into %s", x->cfg->merge_base);
}

/* ---- the same? ----------------------------------------------------------------------------------------------------------------- */

enum { PROBES = 2, PROBE_TOKENS = 16, PROBE_ROWS = 4 };

/* The first tokens of some rows, and which of them have their logits compared: the last ones. */
struct probe {
    int32_t ids[PROBE_TOKENS], labels[PROBE_TOKENS];
    int64_t n, rows;
};

struct probing {
    struct session *x;
    struct probe at[PROBES];
    int n;
    char *kept; /* the host's: logits of all probes, dense */
    int64_t rows;
    double worst, largest;
    int64_t agree;
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void choose(struct probing *g)
{
    struct session *x = g->x;
    int64_t rows = least(PROBE_ROWS, least(x->model.plan.head_rows, x->model.bounds.supervised));
    for (int64_t i = 0; x->data && i < dataset_items(x->data) && g->n < PROBES; i++) {
        const struct document *docs;
        struct probe *p = &g->at[g->n];
        if (!dataset_item(x->data, i, &docs)) continue;
        p->n = least(docs[0].n, PROBE_TOKENS);
        p->rows = least(p->n, rows);
        if (p->rows < 1) continue;
        memcpy(p->ids, docs[0].ids, (size_t)p->n * sizeof *p->ids);
        for (int64_t t = 0; t < PROBE_TOKENS; t++) p->labels[t] = t < p->n - p->rows ? -100 : 0;
        g->rows += p->rows;
        g->n++;
    }
}

static status logits_of(struct session *x, const struct probe *p, tensor *logits)
{
    struct pass pass = {.m = &x->model, .s = x->s, .batch = &x->batcher.batch};
    TRY(batch_next(&x->batcher, NULL));
    batch_append(&x->batcher, p->ids, p->labels, p->n, 0, 0);
    TRY(batch_send(&x->batcher));
    TRY(model_forward(&pass));
    return model_logits(&pass, pass.batch->rows, p->rows, logits);
}

static status keep(struct probing *g)
{
    char *to = g->kept;
    for (int i = 0; i < g->n; i++) {
        tensor z;
        TRY(logits_of(g->x, &g->at[i], &z));
        size_t bytes = (size_t)tensor_count(&z) * dtype_bytes(z.dt);
        TRY(stage_out(&g->x->stage, to, z.data, bytes));
        to += bytes;
    }
    return ST_OK;
}

static float logit(const void *row, dtype dt, int64_t i)
{
    return dt == DT_BF16 ? bf16_widen(((const bf16 *)row)[i]) : ((const float *)row)[i];
}

static void compare_row(struct probing *g, const void *before, const void *after, dtype dt)
{
    int64_t vocab = g->x->shape.vocab, best = 0, now = 0;
    for (int64_t i = 0; i < vocab; i++) {
        double a = (double)logit(before, dt, i), b = (double)logit(after, dt, i), d = fabs(a - b);
        if (!(d <= g->worst)) g->worst = d;
        if (fabs(a) > g->largest) g->largest = fabs(a);
        if (a > (double)logit(before, dt, best)) best = i;
        if (b > (double)logit(after, dt, now)) now = i;
    }
    g->agree += best == now;
}

/* room: a row on the host. */
static status compare(struct probing *g, char *room)
{
    struct session *x = g->x;
    const char *kept = g->kept;
    size_t row = (size_t)x->shape.vocab * dtype_bytes(x->model.act);
    for (int i = 0; i < g->n; i++) {
        tensor z;
        TRY(logits_of(x, &g->at[i], &z));
        for (int64_t r = 0; r < g->at[i].rows; r++, kept += row) {
            const void *after;
            TRY(stage_look(&x->stage, (const char *)z.data + (size_t)r * row, row, room, &after));
            compare_row(g, kept, after, z.dt);
        }
    }
    return ST_OK;
}

status merge_probe(struct session *x, const char *dir)
{
    struct probing g = {.x = x};
    struct st_set merged = {0};
    size_t row = (size_t)x->shape.vocab * dtype_bytes(x->model.act);
    status st;
    choose(&g);
    if (!g.n) {
        log_note("merge    not compared with the base and its adapter: there is no row to compare on");
        return ST_OK;
    }
    char *room = mem_alloc(row);
    g.kept = mem_alloc((size_t)g.rows * row);
    TRY_DONE(keep(&g));
    TRY_DONE(st_open(dir, "model", &merged));
    TRY_DONE(param_store_replace(&x->model.params, &x->stage, &merged));
    magnitude_forget(&x->model);
    TRY_DONE(magnitude_start(&x->model, x->s)); /* of weights without adapters: their own lengths, which change nothing */
    TRY_DONE(compare(&g, room));
    if (!isfinite(g.worst)) {
        log_warn("merge    the logits of %lld probe tokens are not finite: the adapter has diverged, and the merged model with it",
                 (long long)g.rows);
        goto done;
    }
    log_note("merge    logits of %lld probe tokens differ by at most %.3g from those of the base with its adapter (the largest is %.3g); "
             "%lld of %lld foretell the same token%s",
             (long long)g.rows, g.worst, g.largest, (long long)g.agree, (long long)g.rows,
             x->model.plan.frozen.nf4 && !into_codes(x) ? "; the base's rounding to 4 bits is part of that" : "");
done:
    st = st ? st : x->be->dev.sync(x->s, "probe");
    st_close(&merged);
    free(g.kept);
    free(room);
    return st;
}
