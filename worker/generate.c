#include "worker/generate.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "kernels/base/text.h"

struct candidate { float z; int32_t id; };

struct batch_bounds generate_bounds(int64_t n, int64_t longest)
{
    return (struct batch_bounds){.tokens = n * longest, .docs = n, .doc_tokens = longest, .supervised = n};
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

static bool is_end(const struct session *x, int32_t id)
{
    static const char *const TURN_ENDS[] = {"<|eot_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>"};
    if (id == tokenizer_eos(x->tok)) return true;
    for (int i = 0; i < x->hf.n_eos; i++)
        if (id == x->hf.eos[i]) return true;
    for (size_t i = 0; i < sizeof TURN_ENDS / sizeof *TURN_ENDS; i++)
        if (id == tokenizer_id(x->tok, TURN_ENDS[i])) return true;
    return false;
}

/* The unfinished sequences as one batch; rows = the last token of each. Returns how many. */
static int64_t assemble(struct session *x, const struct ids *sequences, const bool *done, int64_t n, int64_t *which)
{
    struct batcher *b = &x->batcher;
    struct docs g = {.start = b->start, .sample = b->sample};
    b->start[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        if (done[i]) continue;
        int64_t length = (int64_t)sequences[i].n;
        for (int64_t t = 0; t < length; t++) b->ids[g.n_tokens + t] = sequences[i].v[t];
        g.n_tokens += length;
        if (length > g.longest) g.longest = length;
        b->rows[g.n_docs] = (int32_t)g.n_tokens - 1;
        b->sample[g.n_docs] = i;
        which[g.n_docs++] = i;
        b->start[g.n_docs] = (int32_t)g.n_tokens;
    }
    b->batch = (struct batch){.docs = g, .ids = b->ids, .rows = b->rows, .labels = b->labels, .supervised = g.n_docs};
    return g.n_docs;
}

status generate(struct session *x, struct ids *sequences, int64_t n, const struct generate_options *o)
{
    status st = ST_OK;
    bool *done = mem_alloc((size_t)n * sizeof *done);
    int64_t *which = mem_alloc((size_t)n * sizeof *which), active;
    struct candidate *work = mem_alloc((size_t)x->shape.vocab * sizeof *work);
    for (int64_t i = 0; i < n; i++) done[i] = sequences[i].n == 0;
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
                done[i] = is_end(x, id);
                if (!done[i]) ids_push(&sequences[i], id);
            }
        }
    }
done:
    free(done);
    free(which);
    free(work);
    return st;
}
