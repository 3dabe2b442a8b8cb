/* The backward pass of the whole model against central differences of its loss, in float64 over the reference: the block
 * table, the head's chunks, tied embeddings, adapters, dropout, NF4 beneath, whichever parameter it is. */
#include "tests/model/trainer.h"

enum { SINGLES = 3 };

/* Steps of the stencil, as norms: error terms are of the order of STEP⁴ and 1e-16·loss/STEP. */
static const double STEP = 3e-4, BOUND = 1e-6;

static double *values(struct tiny *t, int id) { return t->m.params.p[id].value.data; }

/* Row lengths are constants to the backward pass: they stay what they were. */
static void hold_lengths(struct tiny *t)
{
    for (int64_t i = 0; i < tiny_linears(t); i++) {
        struct linear *l = tiny_linear(t, i);
        if (l->magnitude >= 0) l->lengths->as_of = t->m.params.p[l->a].written + t->m.params.p[l->b].written;
    }
}

/* Sum of the losses with the parameter moved by `by` along `direction`. */
static double moved(struct tiny *t, int id, const double *direction, double by)
{
    int64_t n = t->m.params.p[id].count;
    size_t bytes = (size_t)n * sizeof(double);
    double *keep = mem_alloc(bytes);
    memcpy(keep, values(t, id), bytes);
    for (int64_t e = 0; e < n; e++) values(t, id)[e] += by * direction[e];
    MUST(param_store_refresh(&t->m.params, t->s, id));
    hold_lengths(t);
    double loss = tiny_loss(t);
    memcpy(values(t, id), keep, bytes);
    free(keep);
    MUST(param_store_refresh(&t->m.params, t->s, id));
    hold_lengths(t);
    return loss;
}

static double slope(struct tiny *t, int id, const double *direction)
{
    double h = 0;
    for (int64_t e = 0; e < t->m.params.p[id].count; e++) h += direction[e] * direction[e];
    h = STEP / sqrt(h);
    double near = moved(t, id, direction, h) - moved(t, id, direction, -h);
    double far = moved(t, id, direction, 2 * h) - moved(t, id, direction, -2 * h);
    return (8 * near - far) / (12 * h);
}

static double compare(struct tiny *t, int id, const double *direction, const char *which)
{
    const struct param *p = &t->m.params.p[id];
    const double *g = t->first_gradient + p->flat;
    double along = 0, norm = 0, length = 0;
    for (int64_t e = 0; e < p->count; e++) {
        along += g[e] * direction[e];
        norm += g[e] * g[e];
        length += direction[e] * direction[e];
    }
    double seen = slope(t, id, direction), error = fabs(seen - along) / sqrt(norm * length / (double)p->count);
    if (!(error <= BOUND))
        fail_msg("%s: %s, %s: backward says %.12g, central differences %.12g", t->way->name, p->name, which, along, seen);
    return error;
}

/* All of the tensor along random signs, then its largest and some random elements alone. */
static double check_param(struct tiny *t, int id)
{
    const struct param *p = &t->m.params.p[id];
    const double *g = t->first_gradient + p->flat;
    double *direction = mem_alloc((size_t)p->count * sizeof(double));
    int64_t largest = 0;
    for (int64_t e = 0; e < p->count; e++) {
        direction[e] = draw((uint64_t)id, (uint64_t)e) & 1 ? 1 : -1;
        if (fabs(g[e]) > fabs(g[largest])) largest = e;
    }
    double worst = compare(t, id, direction, "random signs");
    for (int i = 0; i < SINGLES; i++) {
        int64_t e = i ? draw((uint64_t)id, (uint64_t)(p->count + i)) % p->count : largest;
        memset(direction, 0, (size_t)p->count * sizeof(double));
        direction[e] = 1;
        worst = fmax(worst, compare(t, id, direction, "one element"));
    }
    free(direction);
    return worst;
}

static void central_differences(void **state)
{
    static struct corpus c;
    (void)state;
    corpus_make(&c, 2);
    for (int i = 0; i < N_WAYS; i++) {
        struct tiny t;
        struct model_plan plan = plan_of(&ways[i]);
        double worst = 0;
        int tensors = 0;
        tiny_open(&t, &ways[i], &plan, &c, &backend_ref, DT_F64, 1, false);
        tiny_pass(&t);
        tiny_keep_gradient(&t);
        /* Every tensor outside the blocks and of the first and the last block; of an adapter on some modules, all. */
        for (int id = 0; id < t.m.params.n; id++) {
            if (!param_is_trained(&t.m.params.p[id])) continue;
            if (!ways[i].adapter && strstr(t.m.params.p[id].name, "layers.1.")) continue;
            worst = fmax(worst, check_param(&t, id));
            tensors++;
        }
        printf("%-32s %3d tensors, worst %.1e of %.0e\n", ways[i].name, tensors, worst, BOUND);
        assert_true(tensors >= 5);
        tiny_close(&t);
    }
}

/* ---- one step, cut differently: the same sums but for the last bits of float64 ------------------------------------------ */

struct cut {
    int batches;
    int64_t head_rows;
    enum act_rung rung;
    int64_t every, tile;
};

static void pass_cut(const struct way *w, const struct cut *cut, double *loss, double **gradient, int64_t *n)
{
    static struct corpus c;
    struct tiny t;
    struct model_plan plan = w->plan;
    plan.acts.rung = cut->rung;
    plan.acts.every = cut->every;
    plan.head_rows = cut->head_rows;
    plan.acts.tile = cut->tile;
    corpus_make(&c, cut->batches);
    tiny_open(&t, w, &plan, &c, &backend_ref, DT_F64, 1, false);
    tiny_pass(&t);
    tiny_keep_gradient(&t);
    *loss = tiny_loss(&t);
    *gradient = t.first_gradient;
    *n = t.m.params.flat_count;
    t.first_gradient = NULL;
    tiny_close(&t);
}

static void cuts(void **state)
{
    static const struct cut table[] = {
        {1, 1, ACT_RUNG_PRODUCTS, 0}, {1, 3, ACT_RUNG_NONE, 0},     {1, 64, ACT_RUNG_BLOCK, 0},
        {2, 5, ACT_RUNG_BLOCK, 2},    {4, 7, ACT_RUNG_BLOCK, 0},    {8, 2, ACT_RUNG_NONE, 0},
        {1, 3, ACT_RUNG_NONE, 0, 16}, {2, 5, ACT_RUNG_BLOCK, 0, 4}, {8, 7, ACT_RUNG_INPUTS, 3, 1},
    };
    (void)state;
    for (int i = 0; i < N_WAYS; i++) {
        double loss = 0, *gradient = NULL;
        for (size_t k = 0; k < sizeof table / sizeof *table; k++) {
            double other, *g, error = 0, norm = 0;
            int64_t n;
            pass_cut(&ways[i], &table[k], &other, &g, &n);
            if (!k) {
                loss = other;
                gradient = g;
                continue;
            }
            for (int64_t e = 0; e < n; e++) {
                error += (g[e] - gradient[e]) * (g[e] - gradient[e]);
                norm += gradient[e] * gradient[e];
            }
            free(g);
            if (!(fabs(other - loss) <= 1e-13 * loss && sqrt(error) <= 1e-12 * sqrt(norm)))
                fail_msg("%s in %d batches, head rows %d, tiles of %d: loss %.17g, was %.17g; gradients %.1e apart", ways[i].name,
                         table[k].batches, (int)table[k].head_rows, (int)table[k].tile, other, loss, sqrt(error / norm));
        }
        free(gradient);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(central_differences), cmocka_unit_test(cuts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
