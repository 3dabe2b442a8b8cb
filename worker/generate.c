#include "worker/generate.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "kernels/base/text.h"

struct candidate { float z; int32_t id; };

struct batch_bounds generate_bounds(int64_t n, int64_t prompt, int64_t fresh)
{
    return (struct batch_bounds){.tokens = n * prompt, .docs = n, .doc_tokens = prompt + fresh, .supervised = n,
                                 .cached = n * (prompt + fresh)};
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
    return z.dt == DT_F32 ? ((const float *)z.data)[i] : z.dt == DT_BF16 ? bf16_widen(((const bf16 *)z.data)[i]) : (float)((const double *)z.data)[i];
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

/* What is new of each unfinished sequence as one batch; rows = the last token of each, which[row] = its sequence. A
 * finished one is an empty document. Returns how many are unfinished. */
static int64_t assemble(struct session *x, const struct ids *sequences, const bool *done, int64_t n, int64_t *which)
{
    struct batcher *b = &x->batcher;
    struct docs g = {.n_docs = n, .start = b->start, .sample = b->sample, .past = b->past};
    int64_t active = 0;
    b->start[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t past = b->past[i], fresh = done[i] ? 0 : (int64_t)sequences[i].n - past;
        b->key_start[i] = (int32_t)(i * x->model.bounds.doc_tokens);
        b->sample[i] = i;
        for (int64_t t = 0; t < fresh; t++) {
            b->ids[g.n_tokens + t] = sequences[i].v[past + t];
            b->cache_rows[g.n_tokens + t] = b->key_start[i] + (int32_t)(past + t);
        }
        g.n_tokens += fresh;
        if (fresh > g.longest) g.longest = fresh;
        b->start[i + 1] = (int32_t)g.n_tokens;
        if (done[i]) continue;
        b->rows[active] = (int32_t)g.n_tokens - 1;
        which[active++] = i;
    }
    b->batch = (struct batch){.docs = g, .ids = b->ids, .rows = b->rows, .labels = b->labels, .supervised = active,
                              .key_start = b->key_start, .cache_rows = b->cache_rows};
    return active;
}

status generate(struct session *x, struct ids *sequences, int64_t n, const struct generate_options *o)
{
    status st = ST_OK;
    struct ids ends = {0};
    if (x->hf.generation_fault[0]) FAIL(ST_CORRUPT, "%s; it says where answers end: correct it or delete it", x->hf.generation_fault);
    bool *done = mem_alloc((size_t)n * sizeof *done);
    int64_t *which = mem_alloc((size_t)n * sizeof *which), active;
    struct candidate *work = mem_alloc((size_t)x->shape.vocab * sizeof *work);
    TRY_DONE(find_ends(x, &ends));
    for (int64_t i = 0; i < n; i++) {
        done[i] = sequences[i].n == 0;
        x->batcher.past[i] = 0;
    }
    for (int64_t t = 0; t < o->max_new_tokens && (active = assemble(x, sequences, done, n, which)); t++) {
        tensor z;
        struct pass p = {.m = &x->model, .s = x->s, .batch = &x->batcher.batch};
        log_progress("generate", t + 1, o->max_new_tokens);
        TRY_DONE(model_forward(&p));
        for (int64_t first = 0; first < active; first += x->model.plan.head_rows) {
            int64_t rows = active - first < x->model.plan.head_rows ? active - first : x->model.plan.head_rows;
            TRY_DONE(model_logits(&p, x->batcher.rows + first, rows, &z));
            for (int64_t r = 0; r < rows; r++) {
                int64_t i = which[first + r];
                tensor row = tensor_1d((char *)z.data + (size_t)(r * z.ld) * dtype_bytes(z.dt), z.dt, x->shape.vocab);
                int32_t id = o->temperature > 0 ? draw(row, o, (uint64_t)i, sequences[i].n, work) : greedy(row);
                x->batcher.past[i] = (int32_t)sequences[i].n;
                done[i] = is_end(&ends, id);
                if (!done[i]) ids_push(&sequences[i], id);
            }
        }
    }
done:
    free(ends.v);
    free(done);
    free(which);
    free(work);
    return st;
}
