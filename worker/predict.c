#include "worker/predict.h"

#include <math.h>

#include "kernels/base/text.h"

static const char *const PART[PREDICT_PARTS] = {
    [PREDICT_GEMM] = "gemm",
    [PREDICT_ADAPTERS] = "adapters",
    [PREDICT_ATTENTION] = "attention",
    [PREDICT_ELEMENTWISE] = "elementwise",
    [PREDICT_HEAD] = "head",
    [PREDICT_OPTIMIZER] = "optimizer",
    [PREDICT_NF4] = "nf4",
    [PREDICT_OFFLOAD] = "offloading",
    [PREDICT_COMM] = "communication",
};

/* ---- what there is to do ------------------------------------------------------------------------------------------------ */

struct work {
    double linears, head, adapters;      /* parameters: of all blocks' products, of the head's, of adapters */
    double magnitudes, rescaled;         /* what adapters with magnitudes multiply again; and elements per token that they rescale */
    double head_again, head_rescaled;    /* the same of the head's */
    double seen;                         /* Σ over layers of twice the keys that a token's query meets, on average */
    double supervised;                   /* share of the tokens */
    double micro_tokens, step_tokens;    /* of one rank */
    double update_bytes, gradient_bytes; /* of one rank's step */
    double paged_bytes;                  /* states that come and go in it, each way */
    double hosted_bytes;                 /* where the host steps: gradients that go to it, which is more than comes back */
    double offloaded;                    /* bytes per token, each way */
    double recomputed, attention_again;  /* shares of the blocks' products, and of attention, that run forward twice */
    double layers, width, ffn, q, kv, head_dim, vocab, length;
    bool full, nf4;
    int ranks;
};

static double count_of(const struct model *m, int id) { return id < 0 ? 0 : (double)m->params.p[id].count; }

/* Dropped, the weight meets two inputs and two gradients. */
static double multiplied_again(const struct linear *a, double weight) { return a->magnitude < 0 ? 0 : (a->dropout > 0 ? 3 : 1) * weight; }

static void count_parameters(const struct model *m, struct work *w)
{
    for (int64_t l = 0; l < m->shape.layers; l++)
        for (int i = 0; i < LINEAR_PER_LAYER; i++) {
            const struct linear *a = &m->layers[l].linear[i];
            w->linears += count_of(m, a->w);
            w->adapters += count_of(m, a->a) + count_of(m, a->b);
            w->magnitudes += multiplied_again(a, count_of(m, a->w));
            w->rescaled += a->magnitude < 0 ? 0 : (double)a->out;
        }
    w->adapters += count_of(m, m->head.a) + count_of(m, m->head.b);
    w->head = (double)(m->shape.vocab * m->shape.width);
    w->head_again = multiplied_again(&m->head, w->head);
    w->head_rescaled = m->head.magnitude < 0 ? 0 : (double)m->shape.vocab;
}

/* Twice the keys that a query of a document of n tokens meets on average, itself included as a half: n without a window. */
static double keys_met(double n, double window) { return window <= 0 || n <= window ? n : 2 * window - window * window / n; }

/* Documents weigh by their tokens: Σ n·met(n) / Σ n. */
struct data_shape data_shape_of(const struct session *x)
{
    double tokens = 0, met = 0, met_sliding = 0, lengths = 0, window = (double)x->shape.window;
    if (!x->data) {
        double length = (double)x->model.bounds.doc_tokens;
        return (struct data_shape){length, length, keys_met(length, window), 1, length};
    }
    for (int64_t i = 0; i < dataset_items(x->data); i++) {
        const struct document *docs;
        int64_t n = dataset_item(x->data, i, &docs);
        for (int64_t k = 0; k < n; k++) {
            double length = (double)docs[k].n;
            tokens += length;
            lengths += length * length;
            met += length * keys_met(length, 0);
            met_sliding += length * keys_met(length, window);
        }
    }
    const struct dataset_stats *stats = dataset_stats(x->data);
    return (struct data_shape){.length = lengths / tokens,
                               .met = met / tokens,
                               .met_sliding = met_sliding / tokens,
                               .supervised = (double)stats->supervised / (double)stats->tokens,
                               .item = tokens / (double)dataset_items(x->data)};
}

static void measure_data(const struct session *x, const struct data_shape *d, struct work *w)
{
    const struct model_shape *m = &x->shape;
    double sliding = 0;
    for (int64_t l = 0; l < m->layers; l++) sliding += m->sliding[l] && m->window > 0;
    w->length = d->length;
    w->seen = ((double)m->layers - sliding) * d->met + sliding * d->met_sliding;
    w->supervised = d->supervised;
    w->micro_tokens = d->item * (double)x->cfg->batch_size;
    w->step_tokens = w->micro_tokens * (double)x->trainer.accumulation;
}

/* An update reads the gradient and reads and writes the parameter, its master and its states; adapters also write a copy. */
static void count_updates(const struct session *x, struct work *w)
{
    const struct param_store *ps = &x->model.params;
    const struct optim *o = &x->trainer.optim;
    double trained = 0;
    for (int i = 0; i < ps->n; i++) trained += param_is_trained(&ps->p[i]) ? (double)ps->p[i].count : 0;
    double each = 4 + 2.0 * (double)dtype_bytes(w->full ? ps->trained_dt : DT_F32) + (ps->masters ? 8 : 0) +
                  (w->full || ps->act == DT_F32 ? 0 : (double)dtype_bytes(ps->act));
    w->update_bytes = each * trained;
    for (int k = 0; k < STATE_VECTORS; k++) w->update_bytes += 2 * (double)state_bytes(&o->vector[k]);
    w->gradient_bytes = 4 * trained;
    w->paged_bytes = (double)pager_away_bytes(&o->pager);
    w->hosted_bytes = o->host.down ? 4 * trained : 0;
}

static struct work work_of(const struct session *x, const struct data_shape *d)
{
    const struct model_shape *m = &x->shape;
    const struct model_plan *p = &x->model.plan;
    struct work w = {.layers = (double)m->layers,
                     .width = (double)m->width,
                     .ffn = (double)m->ffn,
                     .q = (double)(m->heads * m->head_dim),
                     .kv = (double)(m->kv_heads * m->head_dim),
                     .head_dim = (double)m->head_dim,
                     .vocab = (double)m->vocab,
                     .attention_again = p->acts.rung < ACT_RUNG_BLOCK ? 0
                                        : p->acts.every > 1           ? 1.0 / (double)p->acts.every
                                                                      : 1,
                     .offloaded = (double)arena_need(&x->plan.arena[PLAN_OFFLOADED]) / (double)x->model.bounds.tokens,
                     .full = p->full,
                     .nf4 = p->frozen.nf4,
                     .ranks = x->comm->size};
    count_parameters(&x->model, &w);
    w.recomputed = w.attention_again;
    for (int64_t l = 0; l < m->layers && p->acts.rung < ACT_RUNG_BLOCK; l++) w.recomputed += (double)block_again(&x->model, l) / w.linears;
    measure_data(x, d, &w);
    count_updates(x, &w);
    return w;
}

/* ---- rates -------------------------------------------------------------------------------------------------------------- */

struct point {
    double x, y;
};

/* Straight lines over log x between points, level beyond them. */
static double between(const struct point *p, int n, double x)
{
    if (x <= p[0].x) return p[0].y;
    for (int i = 1; i < n; i++)
        if (x < p[i].x) return p[i - 1].y + (p[i].y - p[i - 1].y) * log(x / p[i - 1].x) / log(p[i].x / p[i - 1].x);
    return p[n - 1].y;
}

/* Share of the best measured product that a model's large products reach, by its width. */
static double gemm_share(double width)
{
    static const struct point SHARE[] = {{896, 0.80}, {2048, 0.85}, {4096, 0.88}};
    return between(SHARE, 3, width);
}

/* TFLOP/s of causal attention by length, counted half, where a product reaches 798: cuDNN 9.19 for heads of 128 (those of 512
 * tokens from an older one), a guess for heads of 64. Head sizes between lie between. */
static double attention_rate(bool backward, double head_dim, double length)
{
    static const struct point WIDE[2][6] = {
        {{512, 315}, {2048, 484}, {4096, 591}, {8192, 644}, {16384, 673}, {32768, 688}},
        {{512, 241}, {2048, 370}, {4096, 474}, {8192, 541}, {16384, 579}, {32768, 581}},
    };
    static const struct point NARROW[2][4] = {
        {{512, 215}, {2048, 330}, {4096, 400}, {8192, 430}},
        {{512, 176}, {2048, 270}, {4096, 330}, {8192, 370}},
    };
    const struct point over[] = {{64, between(NARROW[backward], 4, length)}, {128, between(WIDE[backward], 6, length)}};
    return between(over, 2, head_dim);
}

/* What the cores of the GPU's host move of its memory: a guess, of eight channels in a server, of two in other machines. */
static double host_bytes_per_s(const struct gpu *g) { return g->nvlink_gb > 0 ? 200e9 : 60e9; }

enum { MEASURED_ON = 798 }; /* the product's TFLOP/s of the device whose rates stand above */

const struct gpu *predict_rates(const struct session *x, const struct gpu *asked)
{
    /* Of a core: what oneDNN reaches in f32 on AVX2, and what a core reads (memory figures count 0.8 of the published). */
    static const double CORE_TFLOPS = 0.08, CORE_TB = 0.026;
    static struct gpu here;
    const struct gpu *known = asked || x->be->tensors_in != MEM_DEVICE ? asked : gpu_known(x->be->describe());
    if (known) return known;
    if (x->be->tensors_in == MEM_DEVICE) return &gpu_table[0];
    double cores = x->s->threads;
    here = (struct gpu){.name = "cpu",
                        .full = "CPU",
                        .tflops = CORE_TFLOPS * cores,
                        .gemm_tflops = CORE_TFLOPS * cores,
                        .hbm_tb = CORE_TB * (cores < 8 ? cores : 8),
                        .pcie_gb = 10};
    return &here;
}

/* ---- the sum ------------------------------------------------------------------------------------------------------------- */

static double exchange_s(const struct work *w, const struct gpu *g)
{
    double link = 1e9 * (g->nvlink_gb > 0 ? 0.8 * g->nvlink_gb : g->pcie_gb), others = (double)(w->ranks - 1) / w->ranks;
    if (w->ranks == 1) return 0;
    return 2 * others * w->gradient_bytes / link + (2 - others) * w->gradient_bytes / (0.8e12 * g->hbm_tb);
}

/* busy: seconds per token that blocks compute; forward: the share of it before the backward begins. */
static double offload_s(const struct session *x, const struct work *w, const struct gpu *g, double busy, double forward)
{
    double each = w->offloaded / (1e9 * g->pcie_gb);
    if (!x->model.acts.ring.out) return 2 * each;
    return fmax(0, each - forward * busy) + fmax(0, each - (1 - forward) * busy);
}

struct prediction predict(const struct session *x, const struct gpu *g, const struct data_shape *d)
{
    const struct work w = work_of(x, d);
    const double best = 1e12 * g->gemm_tflops, steady = gemm_share(w.width) * best, memory = 1e12 * g->hbm_tb * 2.7 / 3.35;
    const double scale = 1e12 * g->gemm_tflops / MEASURED_ON;
    const double back = w.full ? 4 : 2, passes = 2 + back; /* a frozen weight has no gradient */
    const double score = w.seen * w.q;
    const double moved_fwd = w.layers * (16 * w.width + 4 * (w.q + w.kv) + 6 * w.ffn);
    const double moved_bwd = w.layers * (16 * w.width + 8 * w.q + 4 * w.kv + 11 * w.ffn);
    const double norms_again = (x->model.plan.acts.rung == ACT_RUNG_NONE ? 1 : 1.25) +
                               0.75 * w.attention_again; /* norms and products, always; all but these where blocks are */
    struct prediction p = {.step_tokens = w.step_tokens * w.ranks};

    p.part_s[PREDICT_GEMM] = ((passes + 2 * w.recomputed) * w.linears + 2 * w.magnitudes) / steady;
    p.part_s[PREDICT_ADAPTERS] = 6 * w.adapters / (0.25 * best);
    p.part_s[PREDICT_ATTENTION] = 2 * score * (1 + w.attention_again) / (scale * attention_rate(false, w.head_dim, w.length)) +
                                  5 * score / (scale * attention_rate(true, w.head_dim, w.length));
    p.part_s[PREDICT_ELEMENTWISE] = (norms_again * moved_fwd + moved_bwd + 10 * w.rescaled) / memory;
    p.part_s[PREDICT_HEAD] = w.supervised * ((passes * w.head + 2 * w.head_again) / steady + (8 * w.vocab + 10 * w.head_rescaled) / memory);
    double crosses = w.paged_bytes > w.hosted_bytes ? w.paged_bytes : w.hosted_bytes;
    double update_s = w.update_bytes / (w.hosted_bytes > 0 ? host_bytes_per_s(g) : memory);
    p.part_s[PREDICT_OPTIMIZER] = fmax(update_s, crosses / (1e9 * g->pcie_gb)) / w.step_tokens;
    /* Decoded a layer ahead, what is computed again finds its weights there. */
    if (w.nf4) p.part_s[PREDICT_NF4] = (2 + (x->model.params.ahead ? 0 : w.recomputed)) * 2.53 * w.linears / memory / w.micro_tokens;
    double busy = 0;
    for (int i = 0; i < PREDICT_PARTS; i++) busy += i == PREDICT_HEAD || i == PREDICT_OPTIMIZER ? 0 : p.part_s[i];
    p.part_s[PREDICT_OFFLOAD] = offload_s(x, &w, g, busy, 2 / (passes + 2 * w.recomputed));
    p.part_s[PREDICT_COMM] = exchange_s(&w, g) / w.step_tokens;

    p.model_flops = passes * (w.linears + w.supervised * w.head) + 6 * w.adapters + 6 * score;
    p.flops = p.model_flops + score + w.recomputed * 2 * w.linears + 2 * (w.magnitudes + w.supervised * w.head_again) +
              w.attention_again * 2 * score;
    double token_s = 0;
    for (int i = 0; i < PREDICT_PARTS; i++) token_s += p.part_s[i];
    p.tokens_per_s = w.ranks / token_s;
    p.mfu = p.model_flops / token_s / (1e12 * g->tflops);
    return p;
}

/* ---- telling it --------------------------------------------------------------------------------------------------------- */

static void json_text(const struct prediction *p, const struct gpu *g, double token_s, struct buf *out)
{
    buf_printf(out,
               ",\"prediction\":{\"gpu\":\"%s\",\"measured\":false,\"tokens_per_s\":%.6g,\"mfu\":%.4f,\"step_s\":%.6g,\"step_tokens\":%.0f,"
               "\"gflop_per_token\":%.5g,\"model_gflop_per_token\":%.5g,\"shares\":{",
               g->name, p->tokens_per_s, p->mfu, p->step_tokens / p->tokens_per_s, p->step_tokens, p->flops / 1e9, p->model_flops / 1e9);
    for (int i = 0; i < PREDICT_PARTS; i++) buf_printf(out, "%s\"%s\":%.4f", i ? "," : "", PART[i], p->part_s[i] / token_s);
    buf_text(out, "}}");
}

void predict_text(const struct prediction *p, const struct gpu *g, bool json, struct buf *out)
{
    double token_s = 0;
    for (int i = 0; i < PREDICT_PARTS; i++) token_s += p->part_s[i];
    if (json) {
        json_text(p, g, token_s, out);
        return;
    }
    buf_printf(out, "prediction for %s, %s: computed from published and %s rates, not measured\n", g->name, g->full,
               g->gemm_measured ? "others' measured" : "estimated");
    buf_printf(out, "  %-16s %.0f tokens/s, MFU %.1f %% of %.0f TFLOP/s; a step of %.0f tokens takes %.3g s\n", "speed", p->tokens_per_s,
               100 * p->mfu, g->tflops, p->step_tokens, p->step_tokens / p->tokens_per_s);
    for (int i = 0; i < PREDICT_PARTS; i++)
        if (p->part_s[i] > 0) buf_printf(out, "  %-16s %5.1f %%\n", PART[i], 100 * p->part_s[i] / token_s);
}
