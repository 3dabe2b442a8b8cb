/* The end-to-end oracle: the worker's own model, gradient sink and optimizer over the float64 reference backend, against
 * the same over the CPU backend. Bounds: numerics.md §15. */
#include "tests/model/trainer.h"

struct bounds {
    double loss, gradient, weights;
};

/* f32: numerics.md §15. bf16: the loss as there; a gradient is the end of some 80 roundings in a row, forward and back
 * through three blocks: 2·2^-8·sqrt(80), the factor 2 for what cancels (the gradient of k's bias nearly does). */
static const struct bounds f32_bounds = {1e-5, 1e-4, 1e-4}, bf16_bounds = {1e-2, 7e-2, 3e-2};

static double distance(const char *what, const struct tiny *x, const struct tiny *truth, int id)
{
    const struct param *p = &x->m.params.p[id];
    const struct param *q = &truth->m.params.p[id];
    double error = 0, norm = 0;
    for (int64_t e = 0; e < p->count; e++) {
        bool gradient = *what == 'g';
        double b = gradient ? truth->first_gradient[q->flat + e] : element(q->value, e);
        double a = gradient ? x->first_gradient[p->flat + e] : element(p->master.data ? p->master : p->value, e);
        error += (a - b) * (a - b);
        norm += b * b;
    }
    return sqrt(error / norm);
}

static double compare_tensors(const char *what, const struct tiny *x, const struct tiny *truth, double bound)
{
    double worst = 0;
    for (int i = 0; i < x->m.params.n; i++) {
        if (!param_is_trained(&x->m.params.p[i])) continue;
        double d = distance(what, x, truth, i);
        if (!(d <= bound))
            fail_msg("%s, %s of %s: %g from the float64 run, %g allowed", x->way->name, what, x->m.params.p[i].name, d, bound);
        worst = fmax(worst, d);
    }
    return worst;
}

static double compare_losses(const struct tiny *x, const struct tiny *truth, double bound)
{
    double worst = 0;
    for (int k = 0; k < STEPS; k++) {
        double d = fabs(x->loss[k] - truth->loss[k]) / truth->loss[k];
        if (!(d <= bound))
            fail_msg("%s, step %d: loss %.9g, in float64 %.9g: %g apart, %g allowed", x->way->name, k, x->loss[k], truth->loss[k], d,
                     bound);
        worst = fmax(worst, d);
    }
    return worst;
}

static void follow(const struct way *r, dtype act, struct bounds allowed)
{
    static struct corpus c;
    struct tiny x, truth;
    struct model_plan plan = plan_of(r);
    corpus_make(&c, 4);
    tiny_open(&x, r, &plan, &c, &backend_cpu, act, 1, false);
    tiny_open(&truth, r, &plan, &c, &backend_ref, DT_F64, 1, false);
    tiny_copy(&truth, &x);
    tiny_run(&x, STEPS);
    tiny_run(&truth, STEPS);
    struct bounds seen = {compare_losses(&x, &truth, allowed.loss), compare_tensors("gradient", &x, &truth, allowed.gradient),
                          compare_tensors("weights", &x, &truth, allowed.weights)};
    printf("%-32s %-5s loss %.4f -> %.4f; from float64: loss %.1e, gradient %.1e, weights %.1e\n", r->name, dtype_name(act), x.loss[0],
           x.loss[STEPS - 1], seen.loss, seen.gradient, seen.weights);
    /* A run that learned nothing would prove nothing. */
    assert_true(truth.loss[STEPS - 1] < 0.97 * truth.loss[0]);
    tiny_close(&x);
    tiny_close(&truth);
}

static void f32(void **state)
{
    (void)state;
    for (int i = 0; i < N_WAYS; i++) follow(&ways[i], DT_F32, f32_bounds);
}

static void half(void **state)
{
    (void)state;
    for (int i = 0; i < N_WAYS; i++) follow(&ways[i], DT_BF16, bf16_bounds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(f32), cmocka_unit_test(half)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
