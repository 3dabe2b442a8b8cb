#include "worker/generate.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "kernels/base/text.h"

struct candidate {
    float z;
    int32_t id;
};

struct batch_bounds generate_bounds(int64_t n, int64_t prompt, int64_t fresh)
{
    return (struct batch_bounds){
        .tokens = n * prompt, .docs = n, .doc_tokens = prompt + fresh, .supervised = n, .cached = n * (prompt + fresh)};
}

/* Larger logit first, smaller id on ties. */
static int by_logit(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->z != y->z) return x->z < y->z ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

static float logit(tensor z, int64_t i)
{
    return z.dt == DT_F32    ? ((const float *)z.data)[i]
           : z.dt == DT_BF16 ? bf16_widen(((const bf16 *)z.data)[i])
                             : (float)((const double *)z.data)[i];
}

static int32_t greedy(tensor row)
{
    int32_t best = 0;
    for (int64_t i = 1; i < row.dim[0]; i++)
        if (logit(row, i) > logit(row, best)) best = (int32_t)i;
    return best;
}

static int32_t draw(tensor row, const struct generate_options *o, uint64_t sequence, uint64_t position, struct candidate *c)
{
    int64_t n = row.dim[0], keep = o->top_k > 0 && o->top_k < n ? o->top_k : n;
    for (int64_t i = 0; i < n; i++) c[i] = (struct candidate){logit(row, i), (int32_t)i};
    qsort(c, (size_t)n, sizeof *c, by_logit);
    double sum = 0, mass = 0;
    for (int64_t i = 0; i < keep; i++) sum += exp(((double)c[i].z - c[0].z) / o->temperature);
    int64_t last = 0;
    for (; last < keep && mass < o->top_p * sum; last++) mass += exp(((double)c[last].z - c[0].z) / o->temperature);
    philox4 r = philox(rng_key(o->seed, RNG_SAMPLE, 0, 0), position, sequence);
    double at = (double)r.v[0] / 4294967296.0 * mass;
    for (int64_t i = 0; i < last; i++) {
        at -= exp(((double)c[i].z - c[0].z) / o->temperature);
        if (at < 0) return c[i].id;
    }
    return c[last ? last - 1 : 0].id;
}

static status find_ends(const struct session *x, struct ids *ends)
{
    int32_t *trained = NULL;
    int n = 0;
    if (x->has_adapter) TRY(hf_generation_ends(x->cfg->checkpointer.adapter_checkpoint, &trained, &n));
    for (int i = 0; i < n; i++) ids_push(ends, trained[i]);
    for (int i = 0; i < x->hf.n_eos; i++) ids_push(ends, x->hf.eos[i]);
    ids_push(ends, tokenizer_eos(x->tok));
    free(trained);
    return ST_OK;
}

static bool is_end(const struct ids *ends, int32_t id)
{
    for (size_t i = 0; i < ends->n; i++)
        if (ends->v[i] == id) return true;
    return false;
}

/* What is new of each unfinished sequence as one batch, whose supervised rows are their last tokens; which[row] = its
 * sequence. A finished one is an empty document. Returns how many are unfinished. */
static status assemble(struct session *x, const struct ids *sequences, const int64_t *past, const bool *done, int64_t n, int64_t *which,
                       int64_t *active)
{
    struct batcher *b = &x->batcher;
    struct batch_arrays *h;
    TRY(batch_next(b, &h));
    for (int64_t i = 0; i < n; i++) {
        batch_append(b, sequences[i].v, NULL, done[i] ? past[i] : (int64_t)sequences[i].n, past[i], i);
        if (done[i]) continue;
        h->rows[b->batch.supervised] = (int32_t)b->batch.docs.n_tokens - 1;
        which[b->batch.supervised++] = i;
    }
    *active = b->batch.supervised;
    return batch_send(b);
}

struct choice {
    const struct generate_options *o;
    struct candidate *work; /* [vocab] */
    void *room;             /* a row of logits on the host */
};

static status next_token(struct session *x, const struct choice *c, tensor z, int64_t r, int64_t sequence, size_t at, int32_t *id)
{
    size_t bytes = (size_t)x->shape.vocab * dtype_bytes(z.dt);
    const void *row;
    TRY(stage_look(&x->stage, (char *)z.data + (size_t)(r * z.ld) * dtype_bytes(z.dt), bytes, c->room, &row));
    tensor logits = tensor_1d((void *)(uintptr_t)row, z.dt, x->shape.vocab);
    *id = c->o->temperature > 0 ? draw(logits, c->o, (uint64_t)sequence, at, c->work) : greedy(logits);
    return ST_OK;
}

status generate(struct session *x, struct ids *sequences, int64_t n, const struct generate_options *o)
{
    status st = ST_OK;
    struct ids ends = {0};
    if (x->hf.generation_fault[0]) FAIL(ST_CORRUPT, "%s; it says where answers end: correct it or delete it", x->hf.generation_fault);
    bool *done = mem_alloc((size_t)n * sizeof *done);
    int64_t *which = mem_alloc((size_t)n * sizeof *which), *past = mem_alloc((size_t)n * sizeof *past), active;
    struct choice c = {o, mem_alloc((size_t)x->shape.vocab * sizeof *c.work), mem_alloc((size_t)x->shape.vocab * 8)};
    TRY_DONE(find_ends(x, &ends));
    for (int64_t i = 0; i < n; i++) done[i] = sequences[i].n == 0;
    for (int64_t t = 0; t < o->max_new_tokens; t++) {
        TRY_DONE(assemble(x, sequences, past, done, n, which, &active));
        if (!active) break;
        tensor z;
        struct pass p = {.m = &x->model, .s = x->s, .batch = &x->batcher.batch};
        log_progress("generate", t + 1, o->max_new_tokens);
        TRY_DONE(model_forward(&p));
        for (int64_t first = 0; first < active; first += x->model.plan.head_rows) {
            int64_t rows = active - first < x->model.plan.head_rows ? active - first : x->model.plan.head_rows;
            TRY_DONE(model_logits(&p, p.batch->rows + first, rows, &z));
            for (int64_t r = 0; r < rows; r++) {
                int64_t i = which[first + r];
                int32_t id;
                TRY_DONE(next_token(x, &c, z, r, i, sequences[i].n, &id));
                past[i] = (int64_t)sequences[i].n;
                done[i] = is_end(&ends, id);
                if (!done[i]) ids_push(&sequences[i], id);
            }
        }
    }
done:
    free(ends.v);
    free(done);
    free(which);
    free(past);
    free(c.work);
    free(c.room);
    return st;
}
