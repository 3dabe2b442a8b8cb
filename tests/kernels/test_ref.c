/* The reference against itself: backward ops against central differences of the forward ops, in float64. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/ref/kit.h"

enum { MAX_SLOTS = 4 };

/* One pair of ops: L = Σ seed·output of the forward op, and dL/d(input) from the backward op for each input. */
struct pair {
    struct kit k;
    status (*forward)(struct pair *p);  /* fills `output` */
    status (*backward)(struct pair *p); /* reads `seed`, fills grad[] */
    tensor output, seed;
    tensor input[MAX_SLOTS], grad[MAX_SLOTS];
    const char *name[MAX_SLOTS];
    int n;
    union op_args bwd;
};

static struct stream *ref;

static void add_input(struct pair *p, const char *name, tensor input, tensor grad)
{
    p->name[p->n] = name;
    p->input[p->n] = input;
    p->grad[p->n++] = grad;
}

static double objective(struct pair *p)
{
    assert_int_equal(p->forward(p), ST_OK);
    struct mat y = mat_load(&p->output), c = mat_load(&p->seed);
    double sum = 0;
    for (int64_t i = 0; i < y.rows * y.cols; i++) sum += y.v[i] * c.v[i];
    mat_free(y), mat_free(c);
    return sum;
}

/* Relative in the norm of the whole gradient of an input. */
static void check_pair(struct pair *p, const char *what)
{
    objective(p);
    status st = p->backward(p);
    if (st) fail_msg("%s: %s", what, status_message());
    for (int s = 0; s < p->n; s++) {
        double error = 0, norm = 0, *x = p->input[s].data;
        const double *g = p->grad[s].data, h = 1e-5;
        for (int64_t i = 0; i < tensor_count(&p->input[s]); i++) {
            double keep = x[i];
            x[i] = keep + h;
            double up = objective(p);
            x[i] = keep - h;
            double down = objective(p);
            x[i] = keep;
            double want = (up - down) / (2 * h);
            error += (want - g[i]) * (want - g[i]);
            norm += want * want;
        }
        if (!(sqrt(error) <= 1e-6 * sqrt(norm)))
            fail_msg("%s: the gradient of %s is off by %.3g of its norm", what, p->name[s], sqrt(error / norm));
    }
    kit_release(&p->k);
}

static struct pair start(void)
{
    struct pair p = {0};
    p.k.f64 = true;
    p.k.value = DT_F64;
    p.k.state = 99;
    return p;
}

/* ---- rmsnorm ---------------------------------------------------------------------------------------------------- */

static status rms_forward(struct pair *p) { return op_rmsnorm_fwd(ref, &p->k.args.rmsnorm_fwd); }

static status rms_backward(struct pair *p)
{
    struct rmsnorm_bwd_args *b = &p->bwd.rmsnorm_bwd;
    memset(b->dw.data, 0, (size_t)b->dw.dim[0] * sizeof(double));
    return op_rmsnorm_bwd(ref, b);
}

static void test_rmsnorm(void **state)
{
    (void)state;
    for (int unit = 0; unit < 2; unit++) {
        struct pair p = start();
        struct rmsnorm_fwd_args *f = &p.k.args.rmsnorm_fwd;
        *f = (struct rmsnorm_fwd_args){.x = kit_act(&p.k, 4, 7, 2),
                                       .w = kit_act(&p.k, 0, 7, 1),
                                       .y = kit_act(&p.k, 4, 7, 0),
                                       .rstd = kit_act(&p.k, 0, 4, 0),
                                       .eps = 1e-3f,
                                       .unit_offset = unit};
        p.output = f->y;
        p.seed = kit_act(&p.k, 4, 7, 1);
        p.bwd.rmsnorm_bwd = (struct rmsnorm_bwd_args){.dy = p.seed,
                                                      .x = f->x,
                                                      .w = f->w,
                                                      .rstd = f->rstd,
                                                      .dx = kit_act(&p.k, 4, 7, 0),
                                                      .dw = kit_act(&p.k, 0, 7, 0),
                                                      .unit_offset = unit};
        p.forward = rms_forward, p.backward = rms_backward;
        add_input(&p, "x", f->x, p.bwd.rmsnorm_bwd.dx);
        add_input(&p, "w", f->w, p.bwd.rmsnorm_bwd.dw);
        check_pair(&p, "rmsnorm");
    }
}

/* ---- glu -----------------------------------------------------------------------------------------------------------
 */

static status glu_forward(struct pair *p) { return op_glu_fwd(ref, &p->k.args.glu_fwd); }
static status glu_backward(struct pair *p) { return op_glu_bwd(ref, &p->bwd.glu_bwd); }

static void test_glu(void **state)
{
    (void)state;
    for (int kind = ACT_SILU; kind <= ACT_GELU_TANH; kind++) {
        struct pair p = start();
        struct glu_fwd_args *f = &p.k.args.glu_fwd;
        *f = (struct glu_fwd_args){kit_act(&p.k, 5, 9, 3), kit_act(&p.k, 5, 9, 1), kit_act(&p.k, 5, 9, 0), (enum act_kind)kind};
        p.output = f->h;
        p.seed = kit_act(&p.k, 5, 9, 1);
        p.bwd.glu_bwd = (struct glu_bwd_args){f->gate, f->up, p.seed, kit_act(&p.k, 5, 9, 0), kit_act(&p.k, 5, 9, 0), f->kind};
        p.forward = glu_forward, p.backward = glu_backward;
        add_input(&p, "gate", f->gate, p.bwd.glu_bwd.dgate);
        add_input(&p, "up", f->up, p.bwd.glu_bwd.dup);
        check_pair(&p, kind ? "gelu" : "silu");
    }
}

/* ---- attention ------------------------------------------------------------------------------------------------------
 */

static status attn_forward(struct pair *p) { return op_attn_fwd(ref, &p->k.args.attn_fwd); }

static status attn_backward(struct pair *p)
{
    p->bwd.attn_bwd.fwd = p->k.args.attn_fwd;
    return op_attn_bwd(ref, &p->bwd.attn_bwd);
}

static void test_attention(void **state)
{
    (void)state;
    static const struct {
        int64_t tokens, heads, kv, dim, docs, window;
        float cap;
    } shapes[] = {
        {1, 1, 1, 1, 1, 0, 0}, {13, 4, 2, 5, 1, 0, 0}, {14, 2, 1, 4, 3, 0, 0}, {12, 3, 3, 4, 2, 3, 0}, {11, 2, 2, 4, 1, 0, 2},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct pair p = start();
        int64_t n = shapes[i].tokens, q = shapes[i].heads * shapes[i].dim, kv = shapes[i].kv * shapes[i].dim;
        struct attn_fwd_args *f = &p.k.args.attn_fwd;
        *f = (struct attn_fwd_args){.q = kit_act(&p.k, n, q, 1),
                                    .k = kit_act(&p.k, n, kv, 1),
                                    .v = kit_act(&p.k, n, kv, 1),
                                    .o = kit_act(&p.k, n, q, 0),
                                    .lse = kit_act(&p.k, n, shapes[i].heads, 0),
                                    .heads = shapes[i].heads,
                                    .kv_heads = shapes[i].kv,
                                    .head_dim = shapes[i].dim,
                                    .window = shapes[i].window,
                                    .scale = 0.75f,
                                    .cap = shapes[i].cap,
                                    .docs = kit_docs(&p.k, n, shapes[i].docs)};
        p.output = f->o;
        p.seed = kit_act(&p.k, n, q, 1);
        p.bwd.attn_bwd = (struct attn_bwd_args){.d_o = p.seed,
                                                .dq = kit_act(&p.k, n, q, 0),
                                                .dk = kit_act(&p.k, n, kv, 0),
                                                .dv = kit_act(&p.k, n, kv, 0)};
        p.forward = attn_forward, p.backward = attn_backward;
        if (n > 1) { /* one token attends to itself whatever q and k are: their gradients are zero */
            add_input(&p, "q", f->q, p.bwd.attn_bwd.dq);
            add_input(&p, "k", f->k, p.bwd.attn_bwd.dk);
        }
        add_input(&p, "v", f->v, p.bwd.attn_bwd.dv);
        check_pair(&p, "attention");
    }
}

/* ---- loss: its own backward, in place, so the logits are copied first
 * ------------------------------------------------ */

static status loss_run(struct pair *p, bool forward_only)
{
    struct loss_args l = p->k.args.loss;
    struct mat z = mat_load(&p->input[0]);
    l.forward_only = forward_only;
    mat_store(&l.z, z);
    mat_free(z);
    return op_loss(ref, &l);
}

static status loss_forward(struct pair *p) { return loss_run(p, true); }

static status loss_backward(struct pair *p)
{
    TRY(loss_run(p, false));
    struct mat dz = mat_load(&p->k.args.loss.z);
    mat_store(&p->grad[0], dz);
    mat_free(dz);
    return ST_OK;
}

static void test_loss(void **state)
{
    (void)state;
    for (int cap = 0; cap < 2; cap++) {
        struct pair p = start();
        tensor z = kit_act(&p.k, 5, 11, 4);
        p.k.args.loss =
            (struct loss_args){kit_act(&p.k, 5, 11, 0), kit_indices(&p.k, 5, 11, false), kit_act(&p.k, 0, 5, 0), cap ? 3 : 0, false};
        p.output = p.k.args.loss.loss;
        p.seed = kit_act(&p.k, 0, 5, 0);
        for (int i = 0; i < 5; i++) ((double *)p.seed.data)[i] = 1;
        p.forward = loss_forward, p.backward = loss_backward;
        add_input(&p, "z", z, kit_act(&p.k, 5, 11, 0));
        check_pair(&p, cap ? "loss with cap" : "loss");
    }
}

/* ---- columns rescaled ---------------------------------------------------------------------------------------------- */

/* What it accumulates on is the same in every run. */
static status rescale_forward(struct pair *p)
{
    const struct rescale_fwd_args *f = &p->k.args.rescale_fwd;
    if (f->accumulate) memset(f->y.data, 0, (size_t)tensor_count(&f->y) * sizeof(double));
    return op_rescale_fwd(ref, f);
}

static status rescale_backward(struct pair *p) { return op_rescale_bwd(ref, &p->bwd.rescale_bwd); }

static void test_rescale(void **state)
{
    (void)state;
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        struct pair p = start();
        struct rescale_fwd_args *f = &p.k.args.rescale_fwd;
        *f = (struct rescale_fwd_args){.u = kit_act(&p.k, 5, 7, 1),
                                       .y = kit_act(&p.k, 5, 7, 0),
                                       .to = kit_act(&p.k, 0, 7, 1),
                                       .from = kit_act(&p.k, 0, 7, 1),
                                       .accumulate = accumulate};
        for (int i = 0; i < 7; i++) ((double *)f->from.data)[i] += 2;
        if (!accumulate) f->bias = kit_act(&p.k, 0, 7, 1);
        p.output = f->y;
        p.seed = kit_act(&p.k, 5, 7, 1);
        p.bwd.rescale_bwd = (struct rescale_bwd_args){.dy = p.seed,
                                                      .u = f->u,
                                                      .to = f->to,
                                                      .from = f->from,
                                                      .du = kit_act(&p.k, 5, 7, 0),
                                                      .d_to = kit_act(&p.k, 0, 7, 0),
                                                      .accumulate = accumulate};
        p.forward = rescale_forward, p.backward = rescale_backward;
        add_input(&p, "u", f->u, p.bwd.rescale_bwd.du);
        add_input(&p, "to", f->to, p.bwd.rescale_bwd.d_to);
        check_pair(&p, accumulate ? "rescale onto what is there" : "rescale");
    }
}

/* ---- linear ops: <A x, y> = <x, Aᵀ y>
 * ---------------------------------------------------------------------------------- */

static double inner(const tensor *a, const tensor *b)
{
    struct mat x = mat_load(a), y = mat_load(b);
    double sum = 0;
    for (int64_t i = 0; i < x.rows * x.cols; i++) sum += x.v[i] * y.v[i];
    mat_free(x), mat_free(y);
    return sum;
}

static tensor copy_of(struct kit *k, const tensor *t)
{
    tensor c = kit_act(k, t->dim[0], t->dim[1], 0);
    struct mat m = mat_load(t);
    mat_store(&c, m);
    mat_free(m);
    return c;
}

static void test_adjoints(void **state)
{
    (void)state;
    struct pair p = start();
    tensor x = kit_act(&p.k, 9, 12, 1), y = kit_act(&p.k, 9, 12, 1), ax = copy_of(&p.k, &x), aty = copy_of(&p.k, &y);
    struct docs docs = kit_docs(&p.k, 9, 2);
    struct rope_args r = {.q = ax,
                          .cos = kit_act(&p.k, docs.positions, 2, 1),
                          .sin = kit_act(&p.k, docs.positions, 2, 1),
                          .heads = 2,
                          .head_dim = 6,
                          .positions = docs.positions,
                          .rows = docs.rows};
    assert_int_equal(op_rope(ref, &r), ST_OK);
    r.q = aty, r.inverse = true;
    assert_int_equal(op_rope(ref, &r), ST_OK);
    assert_true(fabs(inner(&ax, &y) - inner(&x, &aty)) < 1e-12);

    struct embed_args e = {kit_act(&p.k, 4, 12, 1), kit_indices(&p.k, 9, 4, false), 9, kit_act(&p.k, 9, 12, 0)};
    assert_int_equal(op_embed_fwd(ref, &e), ST_OK);
    double forward = inner(&e.y, &y);
    struct embed_args b = {kit_act(&p.k, 4, 12, 0), e.ids, 9, y};
    assert_int_equal(op_embed_bwd(ref, &b), ST_OK);
    assert_true(fabs(forward - inner(&e.table, &b.table)) < 1e-12);

    struct step_plan plan = {.step = 2};
    struct dropout_args d = {.x = x, .y = ax, .plan = tensor_1d(&plan, DT_F64, STEP_PLAN), .p = 0.4f, .base = 5, .rows = docs.rows};
    assert_int_equal(op_dropout(ref, &d), ST_OK);
    d.x = y, d.y = aty;
    assert_int_equal(op_dropout(ref, &d), ST_OK);
    assert_true(fabs(inner(&ax, &y) - inner(&x, &aty)) < 1e-12);
    kit_release(&p.k);
}

/* dA = dC·Bᵀ and dB = Aᵀ·dC, as the model uses the op: with alpha, the second product and the bias. */
static status gemm_forward(struct pair *p) { return op_gemm(ref, &p->k.args.gemm); }

static status gemm_backward(struct pair *p)
{
    const struct gemm_args *f = &p->k.args.gemm;
    struct gemm_args da = {.a = p->seed, .b = f->b, .c = p->grad[0], .tb = !f->tb, .alpha = f->alpha};
    struct gemm_args db = {.a = p->seed, .b = f->a, .c = p->grad[1], .ta = true, .alpha = f->alpha};
    struct gemm_args da2 = {.a = p->seed, .b = f->b2, .c = p->grad[2], .tb = !f->tb, .alpha = 1};
    struct colsum_args bias = {p->seed, p->grad[3]};
    TRY(op_gemm(ref, &da));
    TRY(op_gemm(ref, &db));
    TRY(op_gemm(ref, &da2));
    return op_colsum(ref, &bias);
}

static void test_gemm(void **state)
{
    (void)state;
    struct pair p = start();
    struct gemm_args *g = &p.k.args.gemm;
    *g = (struct gemm_args){.a = kit_act(&p.k, 5, 7, 1),
                            .b = kit_act(&p.k, 6, 7, 1),
                            .c = kit_act(&p.k, 5, 6, 0),
                            .tb = true,
                            .a2 = kit_act(&p.k, 5, 3, 1),
                            .b2 = kit_act(&p.k, 6, 3, 1),
                            .bias = kit_act(&p.k, 0, 6, 1),
                            .alpha = 0.5f};
    p.output = g->c;
    p.seed = kit_act(&p.k, 5, 6, 1);
    p.forward = gemm_forward, p.backward = gemm_backward;
    add_input(&p, "a", g->a, kit_act(&p.k, 5, 7, 0));
    add_input(&p, "b", g->b, kit_act(&p.k, 6, 7, 0));
    add_input(&p, "a2", g->a2, kit_act(&p.k, 5, 3, 0));
    add_input(&p, "bias", g->bias, kit_act(&p.k, 0, 6, 0));
    check_pair(&p, "gemm");
}

static int open_ref(void **state)
{
    (void)state;
    return kit_stream_open(&backend_ref, 1, &ref);
}

static int close_ref(void **state)
{
    (void)state;
    kit_stream_close(ref);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm), cmocka_unit_test(test_rmsnorm),  cmocka_unit_test(test_glu),     cmocka_unit_test(test_attention),
        cmocka_unit_test(test_loss), cmocka_unit_test(test_adjoints), cmocka_unit_test(test_rescale),
    };
    return cmocka_run_group_tests(tests, open_ref, close_ref);
}
