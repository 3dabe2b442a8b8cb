/* test_factor.c — a weight taken apart: not what LAPACK says, but what makes factors the right ones, for shapes of either kind and in
 * pieces. W' is what is left, W − s·B·A. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/base/philox.h"
#include "kernels/base/text.h"
#include "worker/factor.h"

/* One weight, its factors, and what is left. */
struct taken {
    int64_t out, in, rank;
    struct factor f;
    double *left; /* [out, in] */
};

static float draw(uint64_t i) { return (float)((double)(philox(99, i, 0).v[0]) / 4294967296.0 - 0.5); }

/* Decaying singular values: a product of [out, k] and [k, in], whose k-th column is 0.8^k. apart: columns between rows. */
static void fill(struct taken *t, int64_t apart, dtype dt)
{
    int64_t k_most = t->out < t->in ? t->out : t->in, ld = t->in + apart;
    float *w = mem_alloc((size_t)(t->out * ld) * sizeof *w);
    bf16 *narrow = dt == DT_BF16 ? (bf16 *)w : NULL;
    if (k_most > 24) k_most = 24;
    for (int64_t o = 0; o < t->out; o++)
        for (int64_t c = 0; c < ld; c++) {
            double sum = 0, size = 1;
            for (int64_t k = 0; c < t->in && k < k_most; k++, size *= 0.8)
                sum += size * (double)draw((uint64_t)(o * 64 + k)) * (double)draw((uint64_t)(1 << 20 | (c * 64 + k)));
            if (narrow)
                narrow[o * ld + c] = c < t->in ? bf16_round((float)sum) : 0x7fc0;
            else
                w[o * ld + c] = c < t->in ? (float)sum : NAN;
        }
    t->f.w = tensor_2d(w, dt, t->out, t->in);
    t->f.w.ld = ld;
}

static void prepare(struct taken *t, int64_t out, int64_t in, int64_t rank, double scale, bool principal)
{
    *t = (struct taken){.out = out, .in = in, .rank = rank, .f = {.rank = rank, .scale = scale, .key = 5}};
    t->f.room = mem_alloc((size_t)factor_room(out, in, rank, principal) * sizeof(double));
    t->f.a = mem_alloc((size_t)(rank * in) * sizeof(float));
    t->f.b = mem_alloc((size_t)(out * rank) * sizeof(float));
    t->left = mem_alloc((size_t)(out * in) * sizeof(double));
}

static double weight(const struct taken *t, int64_t o, int64_t c)
{
    int64_t i = o * t->f.w.ld + c;
    return t->f.w.dt == DT_BF16 ? (double)bf16_widen(((bf16 *)t->f.w.data)[i]) : (double)((float *)t->f.w.data)[i];
}

static void subtract(struct taken *t)
{
    for (int64_t o = 0; o < t->out; o++)
        for (int64_t c = 0; c < t->in; c++) {
            double sum = 0;
            for (int64_t k = 0; k < t->rank; k++) sum += (double)t->f.b[o * t->rank + k] * (double)t->f.a[k * t->in + c];
            t->left[o * t->in + c] = weight(t, o, c) - t->f.scale * sum;
        }
}

static void let_go(struct taken *t)
{
    free(t->f.w.data);
    free(t->f.room);
    free(t->f.a);
    free(t->f.b);
    free(t->left);
}

/* [rank, rank] of products: of B's columns, or of A's rows. */
static double inner(const struct taken *t, bool of_b, int64_t i, int64_t j)
{
    double sum = 0;
    for (int64_t o = 0; of_b && o < t->out; o++) sum += (double)t->f.b[o * t->rank + i] * (double)t->f.b[o * t->rank + j];
    for (int64_t c = 0; !of_b && c < t->in; c++) sum += (double)t->f.a[i * t->in + c] * (double)t->f.a[j * t->in + c];
    return sum;
}

/* Largest |x| of Bᵀ·W' and W'·Aᵀ. */
static double overlap(const struct taken *t)
{
    double most = 0;
    for (int64_t k = 0; k < t->rank; k++) {
        for (int64_t c = 0; c < t->in; c++) {
            double sum = 0;
            for (int64_t o = 0; o < t->out; o++) sum += (double)t->f.b[o * t->rank + k] * t->left[o * t->in + c];
            most = fmax(most, fabs(sum));
        }
        for (int64_t o = 0; o < t->out; o++) {
            double sum = 0;
            for (int64_t c = 0; c < t->in; c++) sum += (double)t->f.a[k * t->in + c] * t->left[o * t->in + c];
            most = fmax(most, fabs(sum));
        }
    }
    return most;
}

/* The largest singular value of W', from below: power iteration. */
static double largest(const struct taken *t)
{
    double *x = mem_alloc((size_t)t->in * sizeof *x), *y = mem_alloc((size_t)t->out * sizeof *y), size = 0;
    for (int64_t c = 0; c < t->in; c++) x[c] = (double)draw((uint64_t)c);
    for (int round = 0; round < 30; round++) {
        double sum = 0;
        for (int64_t o = 0; o < t->out; o++) {
            y[o] = 0;
            for (int64_t c = 0; c < t->in; c++) y[o] += t->left[o * t->in + c] * x[c];
        }
        for (int64_t c = 0; c < t->in; c++) {
            x[c] = 0;
            for (int64_t o = 0; o < t->out; o++) x[c] += t->left[o * t->in + c] * y[o];
            sum += x[c] * x[c];
        }
        size = sqrt(sqrt(sum));
        for (int64_t c = 0; c < t->in && sum > 0; c++) x[c] /= sqrt(sum);
    }
    free(x);
    free(y);
    return size;
}

/* f32 factors of a matrix whose singular values are at most s·σ: their rounding, over the longer side. */
static double slack(const struct taken *t)
{
    double sigma = t->f.scale * inner(t, true, 0, 0);
    return 0x1p-22 * sigma * sqrt((double)(t->out > t->in ? t->out : t->in));
}

/* U·√(Σ/s) and √(Σ/s)·Vᵀ: orthogonal, of equal lengths, falling; nothing of W' is left in what they span; and nothing of W' is larger
 * than the least that was taken. */
static void is_principal(struct taken *t, double beyond)
{
    subtract(t);
    double bound = slack(t);
    for (int64_t i = 0; i < t->rank; i++) {
        assert_true(fabs(inner(t, true, i, i) - inner(t, false, i, i)) <= bound / t->f.scale);
        if (i) assert_true(inner(t, true, i, i) <= inner(t, true, i - 1, i - 1) + bound);
        for (int64_t j = 0; j < i; j++) assert_true(fabs(inner(t, true, i, j)) + fabs(inner(t, false, i, j)) <= 2 * bound / t->f.scale);
    }
    double root = sqrt(inner(t, true, 0, 0));
    assert_true(overlap(t) <= root * (bound + beyond));
    assert_true(largest(t) <= t->f.scale * inner(t, true, t->rank - 1, t->rank - 1) + bound + beyond);
}

static const struct {
    int64_t out, in, rank, apart;
    double scale;
    dtype dt;
} shapes[] = {
    {6, 9, 2, 0, 1, DT_F32},    {9, 6, 3, 0, 2, DT_F32},    {1, 5, 1, 0, 1, DT_F32},     {7, 7, 7, 0, 0.5, DT_F32},
    {40, 31, 8, 5, 2, DT_BF16}, {24, 48, 5, 3, 1, DT_BF16}, {33, 8100, 4, 0, 2, DT_F32}, {8100, 33, 4, 7, 0.25, DT_F32}, /* in pieces */
};
#define EACH_SHAPE(i) for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)

static void principal(void **state)
{
    (void)state;
    EACH_SHAPE(i)
    {
        struct taken t;
        prepare(&t, shapes[i].out, shapes[i].in, shapes[i].rank, shapes[i].scale, true);
        fill(&t, shapes[i].apart, shapes[i].dt);
        assert_int_equal(factor_principal(&t.f), ST_OK);
        is_principal(&t, 0);
        let_go(&t);
    }
}

/* σ falls by 0.8 or more from one to the next, and each round by the square of that: after 64 what is missing of it is below f32. */
static void subspace(void **state)
{
    (void)state;
    EACH_SHAPE(i)
    {
        struct taken t, best;
        prepare(&t, shapes[i].out, shapes[i].in, shapes[i].rank, shapes[i].scale, false);
        prepare(&best, shapes[i].out, shapes[i].in, shapes[i].rank, shapes[i].scale, true);
        fill(&t, shapes[i].apart, shapes[i].dt);
        fill(&best, shapes[i].apart, shapes[i].dt);
        assert_int_equal(factor_subspace(&t.f, 64), ST_OK);
        assert_int_equal(factor_principal(&best.f), ST_OK);
        is_principal(&t, 1e-5 * t.f.scale * inner(&t, true, 0, 0));
        subtract(&best);
        double most = 0;
        for (int64_t k = 0; k < t.out * t.in; k++) most = fmax(most, fabs(t.left[k] - best.left[k]));
        assert_true(most <= slack(&t) + 1e-5 * t.f.scale * inner(&t, true, 0, 0));
        assert_int_equal(factor_subspace(&t.f, 0), ST_OK); /* no round: rougher, orthogonal all the same */
        subtract(&t);
        assert_true(fabs(inner(&t, true, 0, t.rank - 1)) <= slack(&t) / t.f.scale || t.rank == 1);
        let_go(&t);
        let_go(&best);
    }
}

static void qr(void **state)
{
    (void)state;
    EACH_SHAPE(i)
    {
        struct taken t;
        prepare(&t, shapes[i].out, shapes[i].in, shapes[i].rank, 1, false);
        fill(&t, shapes[i].apart, shapes[i].dt);
        assert_int_equal(factor_qr(&t.f), ST_OK);
        subtract(&t);
        for (int64_t k = 0; k < t.rank; k++) {
            for (int64_t j = 0; j <= k; j++) assert_true(fabs(inner(&t, true, k, j) - (k == j)) <= 1e-5);
            for (int64_t c = 0; c < k; c++) assert_true(t.f.a[k * t.in + c] == 0);
            /* the first columns are taken whole; of all, what Q spans */
            for (int64_t o = 0; o < t.out; o++) assert_true(fabs(t.left[o * t.in + k]) <= 1e-5);
            for (int64_t c = 0; c < t.in; c++) {
                double sum = 0;
                for (int64_t o = 0; o < t.out; o++) sum += (double)t.f.b[o * t.rank + k] * t.left[o * t.in + c];
                assert_true(fabs(sum) <= 1e-5);
            }
        }
        let_go(&t);
    }
}

/* Of nothing, and of less than what is asked for: numbers, and nothing added. */
static void of_little(void **state)
{
    (void)state;
    for (int ones = 0; ones < 2; ones++)
        for (int how = 0; how < 3; how++) {
            struct taken t;
            prepare(&t, 12, 10, 4, 2, true);
            float *w = mem_alloc(120 * sizeof *w);
            for (int i = 0; i < 120; i++) w[i] = (float)ones;
            t.f.w = tensor_2d(w, DT_F32, 12, 10);
            assert_int_equal(how == 0 ? factor_principal(&t.f) : how == 1 ? factor_subspace(&t.f, 2) : factor_qr(&t.f), ST_OK);
            if (how == 2) t.f.scale = 1;
            subtract(&t);
            for (int i = 0; i < 120; i++) assert_true(fabs(t.left[i]) <= 1e-5);
            let_go(&t);
        }
}

static void orthogonal(void **state)
{
    struct taken t, other;
    (void)state;
    prepare(&t, 50, 30, 6, 1, false);
    fill(&t, 0, DT_F32);
    factor_orthogonal(&t.f);
    for (int64_t o = 0; o < 50; o++)
        for (int64_t c = 0; c < 30; c++) {
            double sum = 0;
            for (int64_t k = 0; k < 6; k++) sum += (double)t.f.b[o * 6 + k] * (double)t.f.a[k * 30 + c];
            assert_true(fabs(sum) <= 1e-7);
        }
    assert_true(inner(&t, true, 0, 0) > 0.01 && inner(&t, false, 0, 0) > 0.01);
    prepare(&other, 50, 30, 6, 1, false);
    fill(&other, 0, DT_F32);
    factor_orthogonal(&other.f);
    assert_memory_equal(t.f.a, other.f.a, 180 * sizeof(float));
    other.f.key++;
    factor_orthogonal(&other.f);
    assert_memory_not_equal(t.f.a, other.f.a, 180 * sizeof(float));
    let_go(&t);
    let_go(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(principal), cmocka_unit_test(subspace), cmocka_unit_test(qr),
                                       cmocka_unit_test(of_little), cmocka_unit_test(orthogonal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
