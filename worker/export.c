#include "worker/export.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "kernels/quant_maps.h"
#include "worker/adapter.h"
#include "worker/merge.h"
#include "worker/start.h"

static const size_t SHARD_BYTES = (size_t)5000000000u;
enum { PIECE = 1 << 20 };

static struct st_declare declare(const struct param *p, const char *name, dtype dt)
{
    return (struct st_declare){.name = name, .dt = dt, .rank = p->rank, .dim = {p->dim[0], p->rank == 2 ? p->dim[1] : 0}};
}

/* ---- one weight as it leaves -------------------------------------------------------------------------------------------- */

static const struct linear *linear_of(const struct model *m, int w)
{
    for (int64_t l = 0; l < m->shape.layers; l++)
        for (int i = 0; i < LINEAR_PER_LAYER; i++)
            if (m->layers[l].linear[i].w == w) return &m->layers[l].linear[i];
    return m->head.w == w ? &m->head : NULL;
}

/* Rows [first, first + n) of a weight; `first` begins an NF4 group of nested scales. Vectors are one column. */
struct piece {
    int64_t first, n, cols;
};

static tensor rows_of(tensor t, const struct piece *r) { return tensor_part(t, r->first * r->cols, r->n * r->cols); }

static struct nf4_args nf4_rows(const struct nf4_args *all, const struct piece *r)
{
    int64_t at = r->first * r->cols;
    struct nf4_sizes n = nf4_sizes(r->n * r->cols);
    struct nf4_args q = *all;
    q.codes = tensor_part(all->codes, at / 2, n.codes);
    if (all->absmax.data) {
        q.absmax = tensor_part(all->absmax, at / NF4_BLOCK, n.blocks);
        return q;
    }
    q.absmax_q = tensor_part(all->absmax_q, at / NF4_BLOCK, n.blocks);
    q.nested = tensor_part(all->nested, at / NF4_GROUP, n.nested);
    return q;
}

static status to_f32(struct session *x, const struct param *p, const struct piece *r, tensor wide)
{
    struct axpy_args a = {.y = wide, .scale = 1};
    const struct st_entry *e = merge_source(x, p);
    if (e) {
        a.x = rows_of(tensor_1d((void *)(uintptr_t)e->data, e->dt, p->count), r);
        TRY(stage_raw(&x->stage, a.x.data, (size_t)a.x.dim[0] * dtype_bytes(a.x.dt), &a.x.data));
    } else if (p->kind == PARAM_NF4) {
        struct nf4_args q = nf4_rows(&p->nf4, r);
        q.w = wide;
        return op_nf4_dequantize(x->s, &q);
    } else if (param_has_room(p)) {
        a.x = tensor_rows(&p->value, r->first, r->n);
        a.y = tensor_2d(wide.data, wide.dt, r->n, r->cols);
    } else
        a.x = rows_of(p->master.data ? p->master : p->value, r);
    return op_axpy(x->s, &a);
}

/* Rows of W + s·B·A get the lengths that were learnt: of those of this W, which for an NF4 base is the one it was made from. */
static status bring_to_length(struct session *x, const struct linear *l, const struct piece *r, tensor rows)
{
    tensor to = tensor_part(x->model.params.p[l->magnitude].value, r->first, r->n), from = tensor_1d(x->lengths, DT_F32, r->n);
    TRY(op_row_dot(x->s, &(struct row_dot_args){.x = rows, .y = rows, .out = from, .root = true}));
    return op_rescale_fwd(x->s, &(struct rescale_fwd_args){.u = rows, .y = rows, .to = to, .from = from, .by_row = true});
}

/* W, or W + s·B·A in f32, rounded once. `wide` holds the piece in f32; the result lies in `out`. */
static status weight(struct session *x, int id, const struct piece *r, tensor wide, tensor out)
{
    const struct param *p = &x->model.params.p[id];
    const struct linear *l = linear_of(&x->model, id);
    TRY(to_f32(x, p, r, wide));
    if (l && l->a >= 0) {
        const struct param *a = &x->model.params.p[l->a], *b = &x->model.params.p[l->b];
        tensor c = tensor_2d(wide.data, DT_F32, r->n, r->cols);
        TRY(op_gemm(x->s,
                    &(struct gemm_args){.a = tensor_rows(&b->value, r->first, r->n), .b = a->value, .c = c, .alpha = l->scale, .beta = 1}));
        if (l->magnitude >= 0) TRY(bring_to_length(x, l, r, c));
    }
    return out.data == wide.data ? ST_OK : op_axpy(x->s, &(struct axpy_args){.x = wide, .y = out, .scale = 1});
}

/* Rows of a piece: about PIECE elements, in whole NF4 groups, so that no copy of a large tensor is ever made. */
int64_t export_rows(const struct param *p)
{
    int64_t cols = p->dim[1], unit = NF4_GROUP;
    while (unit > 1 && unit / 2 * cols % NF4_GROUP == 0) unit /= 2;
    int64_t rows = PIECE / (unit * cols) * unit;
    return rows < unit ? unit : rows;
}

int64_t export_piece(const struct param_store *ps)
{
    int64_t most = 0;
    for (int i = 0; i < ps->n; i++) {
        const struct param *p = &ps->p[i];
        int64_t rows = export_rows(p), count = (rows < p->dim[0] ? rows : p->dim[0]) * p->dim[1];
        if (count > most) most = count;
    }
    return most;
}

int64_t export_most_rows(const struct param_store *ps)
{
    int64_t most = 0;
    for (int i = 0; i < ps->n; i++) {
        const struct param *p = &ps->p[i];
        int64_t rows = export_rows(p);
        if (rows > p->dim[0]) rows = p->dim[0];
        if (p->rank == 2 && p->kind != PARAM_ADAPTER && rows > most) most = rows;
    }
    return most;
}

static status put_weight(struct session *x, struct st_writer *w, int id, dtype dt, void *room)
{
    const struct param *p = &x->model.params.p[id];
    struct piece r = {.cols = p->dim[1]};
    for (int64_t rows = export_rows(p); r.first < p->dim[0]; r.first += r.n) {
        r.n = p->dim[0] - r.first < rows ? p->dim[0] - r.first : rows;
        int64_t count = r.n * r.cols;
        size_t bytes = (size_t)count * dtype_bytes(dt);
        const void *made;
        TRY(weight(x, id, &r, tensor_1d(x->wide, DT_F32, count), tensor_1d(x->narrow, dt, count)));
        TRY(stage_look(&x->stage, x->narrow, bytes, room, &made));
        TRY(st_writer_add(w, made, bytes));
        const struct st_entry *e = merge_source(x, p);
        if (e && (e != p->source || !p->mapped))
            param_forget(e, (size_t)(r.first * r.cols) * dtype_bytes(e->dt), (size_t)(r.first * r.cols + count) * dtype_bytes(e->dt));
    }
    return ST_OK;
}

/* ---- what lies beside the weights ----------------------------------------------------------------------------------------- */

/* What the export says of the training: the tokenizer and the template that were used, and where answers end. */
struct said {
    struct hf_export e;
    int32_t ends[8];
};

static void say(const struct session *x, const char *dtype_name, struct said *s)
{
    const struct config *c = x->cfg;
    const char *text = NULL;
    int n = x->data ? dataset_end_marks(x->data, x->tok, s->ends, (int)(sizeof s->ends / sizeof *s->ends)) : 0;
    if (x->data && dataset_chat_template(x->data, &text) && !text) {
        log_note("export: no chat template gives the text that was trained on, so the export has none");
        text = "";
    }
    s->e = (struct hf_export){.dtype = dtype_name,
                              .unquantised = x->bnb.is,
                              .untied = x->shape.untied,
                              .tokenizer = c->tokenizer.path,
                              .merges_file = c->tokenizer.merges_file,
                              .chat_template = text,
                              .end_ids = s->ends,
                              .n_end = n};
}

/* ---- directories ---------------------------------------------------------------------------------------------------------- */

status export_model(struct session *x, const char *dir)
{
    if (merge_is_adapter_only(x))
        FAIL(ST_USAGE,
             "%s is quantised, so that nothing says what the adapter is to be merged into: give merge_base=DIR, the model that was "
             "quantised, or merge_base=dequantized, or save_adapter_weights_only=true for the adapter itself",
             x->cfg->checkpointer.checkpoint_dir);
    const struct param_store *ps = &x->model.params;
    dtype dt = x->model.act;
    status st = ST_OK;
    struct st_writer *w = NULL;
    struct st_declare *tensors = mem_alloc((size_t)(ps->n + 1) * sizeof *tensors);
    int *ids = mem_alloc((size_t)(ps->n + 1) * sizeof *ids), n = 0, next;
    void *room = mem_alloc(x->stage.apart ? (size_t)export_piece(ps) * dtype_bytes(dt) : 0);
    for (int i = 0; i < ps->n; i++) {
        if (ps->p[i].kind == PARAM_ADAPTER) continue;
        tensors[n] = declare(&ps->p[i], ps->p[i].name, dt);
        ids[n++] = i;
    }
    TRY_DONE(file_mkdirs(dir));
    TRY_DONE(st_writer_open(dir, "model", tensors, n, SHARD_BYTES, &w));
    for (int done = 1; (next = st_writer_next(w)) >= 0; done++) {
        log_progress("export", done, n);
        TRY_DONE(put_weight(x, w, ids[next], dt, room));
    }
    st = st_writer_close(w, true);
    w = NULL;
    TRY_DONE(st);
    struct said said;
    say(x, dt == DT_BF16 ? "bfloat16" : "float32", &said);
    TRY_DONE(hf_copy_side_files(merge_dir(x), dir, &said.e));
    if (!x->model.plan.full) st = merge_probe(x, dir);
done:
    if (w) st_writer_close(w, false);
    free(room);
    free(tensors);
    free(ids);
    return st;
}

static void add_target(struct peft_config *p, const struct linear *l)
{
    if (l->a < 0) return;
    const char *dot = strrchr(l->module, '.');
    peft_target_add(p, dot ? dot + 1 : l->module);
}

/* Without an adapter_config.json all layers are adapted alike. */
static void add_targets(const struct session *x, struct peft_config *p)
{
    for (int i = 0; i < LINEAR_PER_LAYER; i++) add_target(p, &x->model.layers[0].linear[i]);
    add_target(p, &x->model.head);
}

static status add_patterns(const struct session *x, struct peft_config *p)
{
    const struct peft_rules *ranks = &x->peft.rank_pattern, *alphas = &x->peft.alpha_pattern;
    for (int i = 0; i < ranks->n + alphas->n; i++) {
        bool of_ranks = i < ranks->n;
        const struct peft_rule *r = of_ranks ? &ranks->rule[i] : &alphas->rule[i - ranks->n];
        int64_t rank = (int64_t)r->value;
        double alpha = r->value;
        start_scaled(x, &rank, &alpha);
        TRY(peft_pattern_add(p, of_ranks, "export", r->text, of_ranks ? (double)rank : alpha));
    }
    return ST_OK;
}

/* On some projections of a fused linear: for PEFT one adapter of their ranks together, with the same alpha / rank. */
static status add_parts(const struct session *x, struct peft_config *p)
{
    for (int i = 0; i < LINEAR_PER_LAYER; i++) {
        const struct linear *l = &x->model.layers[0].linear[i];
        const char *dot = l->module ? strrchr(l->module, '.') : NULL;
        if (!l->parts) continue;
        TRY(peft_pattern_add(p, true, "export", dot + 1, (double)(l->parts * p->r)));
        TRY(peft_pattern_add(p, false, "export", dot + 1, l->parts * p->lora_alpha));
    }
    return ST_OK;
}

static status write_adapter_config(const struct session *x, const char *dir)
{
    if (x->has_adapter) {
        struct peft_config same = x->peft;
        if (!same.base_model) same.base_model = x->cfg->checkpointer.checkpoint_dir;
        return peft_config_write(dir, &same);
    }
    const struct model_plan *plan = &x->model.plan;
    struct peft_config p = {.r = plan->rank,
                            .lora_alpha = plan->alpha,
                            .lora_dropout = plan->dropout,
                            .use_rslora = plan->rslora,
                            .use_dora = plan->dora,
                            .base_model = mem_strdup(x->cfg->checkpointer.checkpoint_dir)};
    status st = add_patterns(x, &p);
    for (int i = 0; i < x->peft.saved.n; i++) peft_saved_add(&p, x->peft.saved.rule[i].text);
    start_scaled(x, &p.r, &p.lora_alpha);
    add_targets(x, &p);
    if (!st) st = add_parts(x, &p);
    if (!st) st = peft_config_write(dir, &p);
    peft_config_free(&p);
    return st;
}

/* *room grows to hold them, twice where they are made from what is there. */
static status adapter_values(struct session *x, const struct param *p, void **room, const void **data)
{
    size_t bytes = (size_t)p->count * dtype_bytes(p->value.dt);
    *room = mem_grow(*room, start_doubles(x, p) ? 3 * bytes : bytes);
    TRY(stage_look(&x->stage, p->value.data, bytes, *room, data));
    if (!start_doubles(x, p)) return ST_OK;
    float *out = (float *)*room + p->count;
    start_portable(x, p, *data, out);
    *data = out;
    return ST_OK;
}

/* Those whose name is not their parameter's own it is given in names, for the caller to free. Returns how many there are. */
static int list_adapter(const struct session *x, struct st_declare *tensors, int *ids, char **names)
{
    const struct param_store *ps = &x->model.params;
    int n = 0;
    for (int i = 0; i < ps->n; i++) {
        const struct param *p = &ps->p[i];
        const char *replaced = adapter_replaces(x, p);
        if (p->kind < PARAM_ADAPTER && !replaced) continue;
        tensors[n] = replaced ? declare(p, replaced, p->source->dt) : start_declare(x, p);
        if (p->kind == PARAM_SAVED) tensors[n].name = names[n] = mem_printf("base_model.model.%s", p->name);
        ids[n++] = i;
    }
    return n;
}

status export_adapter(struct session *x, const char *dir)
{
    const struct param_store *ps = &x->model.params;
    status st = ST_OK;
    void *room = NULL;
    struct st_writer *w = NULL;
    struct st_declare *tensors = mem_alloc((size_t)(ps->n + 1) * sizeof *tensors);
    char **names = mem_alloc((size_t)(ps->n + 1) * sizeof *names);
    int *ids = mem_alloc((size_t)(ps->n + 1) * sizeof *ids), n = list_adapter(x, tensors, ids, names), next;
    TRY_DONE(file_mkdirs(dir));
    TRY_DONE(st_writer_open(dir, "adapter_model", tensors, n, 0, &w));
    while ((next = st_writer_next(w)) >= 0) {
        const struct param *p = &ps->p[ids[next]];
        const void *data = p->source ? p->source->data : NULL;
        if (p->kind >= PARAM_ADAPTER) TRY_DONE(adapter_values(x, p, &room, &data));
        TRY_DONE(st_writer_put(w, data));
    }
    st = st_writer_close(w, true);
    w = NULL;
    TRY_DONE(st);
    TRY_DONE(write_adapter_config(x, dir));
    struct said said;
    say(x, NULL, &said);
    TRY_DONE(hf_copy_adapter_files(x->cfg->checkpointer.checkpoint_dir, dir, &said.e));
done:
    if (w) st_writer_close(w, false);
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
    free(room);
    free(tensors);
    free(ids);
    return st;
}

status export_run(struct session *x)
{
    bool lora = !x->model.plan.full;
    char *model = mem_printf("%s/export", x->cfg->output_dir),
         *adapter = mem_printf("%s/%s", x->cfg->output_dir, merge_is_declined(x) ? "export" : "adapter");
    status st = lora ? export_adapter(x, adapter) : ST_OK;
    if (!st && !merge_is_adapter_only(x)) st = export_model(x, model);
    free(model);
    free(adapter);
    return st;
}
