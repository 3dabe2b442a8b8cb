/* A micro-batch that is filled up (worker/batch.h) is, to the last bit of float64, one that is not: losses and gradients of every way to
 * train are the same. In any precision, what is passed back to the rows that only fill is zero. */
#include "tests/model/trainer.h"

/* One more document without labels. No longer than the longest: RoPE's tables are no larger for it. */
static int64_t fill_up(struct corpus *c, int64_t unit)
{
    struct docs *d = &c->batch[0].docs;
    int64_t from = d->n_tokens, n = (from + unit - 1) / unit * unit - from;
    assert_int_equal(c->n_batches, 1);
    assert_true(n > 0 && n <= d->longest && from + n <= DOCS * 16);
    for (int64_t t = 0; t < n; t++) {
        c->ids[from + t] = 0;
        c->position[from + t] = (int32_t)t;
        c->sample[from + t] = -1;
    }
    d->n_tokens += n;
    c->start[++d->n_docs] = (int32_t)d->n_tokens;
    c->bounds.tokens = d->n_tokens;
    c->bounds.docs++;
    return from;
}

struct outcome {
    double loss, *gradient;
    int64_t n;
};

/* `from`: the first row that only fills; -1: there is none. */
static struct outcome outcome_of(const struct way *w, const struct corpus *c, const struct backend *be, dtype act, int64_t from)
{
    struct tiny t;
    struct model_plan plan = plan_of(w);
    tiny_open(&t, w, &plan, c, be, act, 2, false);
    tiny_pass(&t);
    tiny_keep_gradient(&t);
    tensor dx = block_dx(&t.m);
    for (int64_t r = from < 0 ? dx.dim[0] : from; r < dx.dim[0]; r++)
        for (int64_t i = 0; i < dx.dim[1]; i++) {
            double x = element(dx, r * dx.ld + i);
            if (x != 0) fail_msg("%s: row %d, channel %d gets a gradient of %g", w->name, (int)r, (int)i, x);
        }
    struct outcome o = {element(t.trainer.losses, 0), t.first_gradient, t.m.params.flat_count};
    t.first_gradient = NULL;
    tiny_close(&t);
    return o;
}

static void bit_for_bit(void **state)
{
    static struct corpus bare, filled;
    (void)state;
    corpus_make(&bare, 1), corpus_make(&filled, 1);
    int64_t from = fill_up(&filled, 16);
    for (int i = 0; i < N_WAYS; i++) {
        struct outcome a = outcome_of(&ways[i], &bare, &backend_ref, DT_F64, -1),
                       b = outcome_of(&ways[i], &filled, &backend_ref, DT_F64, from);
        if (a.loss != b.loss) fail_msg("%s: the loss is %.17g, filled up %.17g", ways[i].name, a.loss, b.loss);
        assert_true(a.loss > 0 && a.n == b.n);
        for (int64_t e = 0; e < a.n; e++)
            if (a.gradient[e] != b.gradient[e])
                fail_msg("%s: gradient %d is %.17g, filled up %.17g", ways[i].name, (int)e, a.gradient[e], b.gradient[e]);
        free(a.gradient), free(b.gradient);
    }
}

static void zero_rows(void **state)
{
    static struct corpus filled;
    (void)state;
    corpus_make(&filled, 1);
    int64_t from = fill_up(&filled, 16);
    for (int i = 0; i < N_WAYS; i++)
        for (int narrow = 0; narrow < 2; narrow++)
            free(outcome_of(&ways[i], &filled, &backend_cpu, narrow ? DT_BF16 : DT_F32, from).gradient);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bit_for_bit), cmocka_unit_test(zero_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
