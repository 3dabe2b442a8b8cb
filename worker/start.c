#include "worker/start.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "worker/export.h"
#include "worker/factor.h"

static enum lora_start kind_of(const struct session *x) { return (enum lora_start)(x->model.plan.start & START_KINDS); }
static int rounds_of(const struct session *x) { return x->model.plan.start >> START_ROUNDS; }
static bool of_weights(const struct session *x) { return start_is_of_weights(x->model.plan.start); }

static bool is_computed(const struct session *x) { return of_weights(x) || kind_of(x) == START_ORTHOGONAL; }

/* ---- adapters, one after the other -------------------------------------------------------------------------------------------- */

struct adapter {
    const struct linear *l;
    const struct param *w, *a, *b;
};

static bool adapter_at(const struct session *x, int64_t k, struct adapter *out)
{
    const struct model *m = &x->model;
    const struct linear *l =
        k < m->shape.layers * LINEAR_PER_LAYER ? &m->layers[k / LINEAR_PER_LAYER].linear[k % LINEAR_PER_LAYER] : &m->head;
    if (l->a < 0) return false;
    *out = (struct adapter){l, &m->params.p[l->w], &m->params.p[l->a], &m->params.p[l->b]};
    return true;
}

static int64_t places(const struct session *x) { return x->model.shape.layers * LINEAR_PER_LAYER + 1; }

#define EACH_ADAPTER(x, k, ad)                                                                                                             \
    for (int64_t k = 0; k < places(x); k++)                                                                                                \
        if (adapter_at(x, k, &(ad)))

status start_check(const struct session *x)
{
    struct adapter ad;
    if (of_weights(x) && x->bnb.is)
        FAIL(ST_CONFIG_RUNTIME,
             "model.init_lora_weights: the base loses what its adapter starts as, and %s is quantised already; start with true, gaussian "
             "or orthogonal, or from the original, unquantised model",
             x->cfg->checkpointer.checkpoint_dir);
    EACH_ADAPTER(x, k, ad)
    {
        long long rank = ad.l->rank, out = ad.l->out, in = ad.l->in;
        if (of_weights(x) && (rank > out || rank > in))
            FAIL(ST_USAGE,
                 "model.init_lora_weights: %s is [%lld, %lld], which has no %lld parts to start from: its rank must not exceed %lld",
                 ad.w->name, out, in, rank, out < in ? out : in);
        if (kind_of(x) == START_ORTHOGONAL && rank % 2)
            FAIL(ST_USAGE, "model.init_lora_weights: orthogonal halves the rank between A and B, and that of %s is %lld: it must be even",
                 ad.w->name, rank);
    }
    return ST_OK;
}

/* ---- memory ---------------------------------------------------------------------------------------------------------------------- */

void start_layout(struct session *x, struct arena *host)
{
    struct start *s = &x->start;
    int64_t room = 0, pair = 0, weight = 0;
    struct adapter ad;
    if (!is_computed(x)) return;
    EACH_ADAPTER(x, k, ad)
    {
        int64_t need = factor_room(ad.l->out, ad.l->in, ad.l->rank, kind_of(x) == START_PISSA && !rounds_of(x));
        if (need > room) room = need;
        if (ad.a->count + ad.b->count > pair) pair = ad.a->count + ad.b->count;
        if (param_extent(ad.w) > weight) weight = param_extent(ad.w);
    }
    s->room = arena_take(host, (size_t)room * sizeof *s->room, "a weight taken apart, f64");
    s->pair = arena_take(host, (size_t)pair * sizeof *s->pair, "an adapter, f32");
    if (!of_weights(x)) return;
    s->kept = arena_take(host, (size_t)x->model.params.flat_count * sizeof *s->kept, "adapters as they started, f32");
    if (x->stage.apart)
        s->weight = arena_take(host, (size_t)weight * dtype_bytes(x->model.act), "a weight taken apart, %s", dtype_name(x->model.act));
}

float *start_kept(const struct session *x) { return x->start.kept; }

/* ---- the factors -------------------------------------------------------------------------------------------------------------------- */

/* a, b: where they go, on the host. */
static status make(struct session *x, const struct adapter *ad, float *a, float *b)
{
    struct factor f = {.w = ad->w->value,
                       .rank = ad->l->rank,
                       .scale = (double)ad->l->scale,
                       .key = rng_key(x->seed, RNG_INIT, (uint32_t)ad->l->a, 0),
                       .room = x->start.room,
                       .a = a,
                       .b = b};
    if (kind_of(x) == START_ORTHOGONAL) {
        factor_orthogonal(&f);
        return ST_OK;
    }
    const void *host;
    TRY(stage_look(&x->stage, f.w.data, (size_t)param_extent(ad->w) * dtype_bytes(f.w.dt), x->start.weight, &host));
    f.w.data = (void *)(uintptr_t)host;
    if (kind_of(x) == START_OLORA) return factor_qr(&f);
    return rounds_of(x) ? factor_subspace(&f, rounds_of(x)) : factor_principal(&f);
}

/* Every rank's share of them. Local: a failure is agreed on before anything crosses ranks. */
static status make_mine(struct session *x)
{
    int64_t turn = 0;
    struct adapter ad;
    TRY(factor_ready());
    EACH_ADAPTER(x, k, ad)
    {
        log_progress("start", k + 1, places(x));
        if (turn++ % x->comm->size == x->comm->rank) TRY(make(x, &ad, x->start.kept + ad.a->flat, x->start.kept + ad.b->flat));
    }
    log_progress("start", places(x), places(x));
    return ST_OK;
}

static status share(struct session *x)
{
    int64_t turn = 0;
    struct adapter ad;
    EACH_ADAPTER(x, k, ad)
    {
        int owner = (int)(turn++ % x->comm->size);
        TRY(x->comm->fn->bcast(x->comm, x->start.kept + ad.a->flat, (size_t)ad.a->count * sizeof *x->start.kept, owner));
        TRY(x->comm->fn->bcast(x->comm, x->start.kept + ad.b->flat, (size_t)ad.b->count * sizeof *x->start.kept, owner));
    }
    return ST_OK;
}

/* ---- into the model --------------------------------------------------------------------------------------------------------------- */

static status put(struct session *x, const struct param *p, const float *values)
{
    return stage_in(&x->stage, p->value.data, values, (size_t)p->count * sizeof *values);
}

/* W −= s·B·A, with A and B as they are in tensor memory now. */
static status subtract(struct session *x, const struct adapter *ad)
{
    int64_t rows = export_rows(ad->w), n;
    for (int64_t first = 0; first < ad->l->out; first += n) {
        n = ad->l->out - first < rows ? ad->l->out - first : rows;
        tensor part = tensor_rows(&ad->w->value, first, n), wide = tensor_2d(x->wide, DT_F32, n, ad->l->in);
        TRY(op_axpy(x->s, &(struct axpy_args){.x = part, .y = wide, .scale = 1}));
        TRY(op_gemm(x->s, &(struct gemm_args){
                              .a = tensor_rows(&ad->b->value, first, n), .b = ad->a->value, .c = wide, .alpha = -ad->l->scale, .beta = 1}));
        TRY(op_axpy(x->s, &(struct axpy_args){.x = wide, .y = part, .scale = 1}));
    }
    return ST_OK;
}

/* resumed: A and B are further by now, and step aside while the base gets what it had. */
static status enter(struct session *x, const struct adapter *ad, bool resumed)
{
    float *a = x->start.pair, *b = a + ad->a->count;
    const float *a0 = x->start.kept, *b0 = a0;
    if (kind_of(x) == START_ORTHOGONAL) {
        TRY(make(x, ad, a, b));
        TRY(put(x, ad->a, a));
        return put(x, ad->b, b);
    }
    if (resumed) {
        TRY(stage_out(&x->stage, a, ad->a->value.data, (size_t)ad->a->count * sizeof *a));
        TRY(stage_out(&x->stage, b, ad->b->value.data, (size_t)ad->b->count * sizeof *b));
    }
    TRY(put(x, ad->a, a0 + ad->a->flat));
    TRY(put(x, ad->b, b0 + ad->b->flat));
    TRY(subtract(x, ad));
    if (!resumed) return ST_OK;
    TRY(put(x, ad->a, a));
    return put(x, ad->b, b);
}

static status enter_all(struct session *x, bool resumed)
{
    struct adapter ad;
    EACH_ADAPTER(x, k, ad) TRY(enter(x, &ad, resumed));
    TRY(param_store_refresh_all(&x->model.params, x->s));
    magnitude_forget(&x->model);
    if (!resumed) TRY(model_start(&x->model, x->s)); /* again: of these weights and adapters */
    return x->be->dev.sync(x->s, "start of adapters");
}

status start_settle(struct session *x, bool resumed)
{
    if (!is_computed(x) || (resumed && !of_weights(x))) return ST_OK;
    if (of_weights(x) && !resumed) {
        memset(x->start.kept, 0, (size_t)x->model.params.flat_count * sizeof *x->start.kept);
        TRY(comm_agree(x->comm, make_mine(x)));
        TRY(share(x));
    }
    return enter_all(x, resumed);
}

/* ---- out again ------------------------------------------------------------------------------------------------------------------------ */

static bool is_b(const struct param *p) { return strstr(p->name, ".lora_B.") != NULL; }

bool start_doubles(const struct session *x, const struct param *p) { return x->start.kept && (is_b(p) || strstr(p->name, ".lora_A.")); }

struct st_declare start_declare(const struct session *x, const struct param *p)
{
    struct st_declare d = {.name = p->name, .dt = DT_F32, .rank = p->rank, .dim = {p->dim[0], p->rank == 2 ? p->dim[1] : 0}};
    if (start_doubles(x, p)) d.dim[is_b(p)] *= 2;
    return d;
}

void start_portable(const struct session *x, const struct param *p, const float *now, float *out)
{
    const float *then = x->start.kept + p->flat;
    int64_t rank = p->dim[1];
    if (p->rank == 1) {
        memcpy(out, now, (size_t)p->count * sizeof *out);
        return;
    }
    if (!is_b(p)) {
        memcpy(out, now, (size_t)p->count * sizeof *out);
        memcpy(out + p->count, then, (size_t)p->count * sizeof *out);
        return;
    }
    for (int64_t o = 0; o < p->dim[0]; o++)
        for (int64_t k = 0; k < rank; k++) {
            out[2 * o * rank + k] = now[o * rank + k];
            out[(2 * o + 1) * rank + k] = -then[o * rank + k];
        }
}

/* s stays what it is: α/r, or α/√r. */
void start_scaled(const struct session *x, int64_t *rank, double *alpha)
{
    if (!x->start.kept) return;
    *rank *= 2;
    *alpha *= x->model.plan.rslora ? sqrt(2) : 2;
}
