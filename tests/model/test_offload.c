/* Offloading never changes a bit: every way to train, over more layers than the ring has places, with every rung, with streams and
 * without, and with evaluation in between. A backend that says of the CPU that it has memory of its own makes it copy. */
#include "tests/model/trainer.h"

enum { LAYERS = 5, RUN = 3 };

static struct backend apart;
static int copies;

static status apart_stream_open(struct stream **out, int threads)
{
    TRY(backend_cpu.dev.stream_open(out, threads));
    (*out)->be = &apart;
    return ST_OK;
}

static status counted_copy(struct stream *s, void *dst, const void *src, size_t bytes)
{
    copies += s->name && !strncmp(s->name, "activations ", 12);
    return backend_cpu.dev.copy(s, dst, src, bytes);
}

static const struct way *deepened;

static void deep(struct model_shape *s)
{
    if (deepened->also) deepened->also(s);
    s->layers = LAYERS;
}

struct technique {
    enum act_rung rung;
    int64_t every;
    bool offload, streams, in_bwd;
};
static const struct technique plain = {ACT_RUNG_NONE},
                              techniques[] = {
                                  {ACT_RUNG_NONE, 0, true, true, false},    {ACT_RUNG_PRODUCTS, 0, true, false, false},
                                  {ACT_RUNG_PRODUCTS, 0, true, true, true}, {ACT_RUNG_BLOCK, 0, true, true, false},
                                  {ACT_RUNG_FFN, 0, true, false, false},    {ACT_RUNG_INPUTS, 0, true, true, true},
                                  {ACT_RUNG_BLOCK, 2, true, true, false},   {ACT_RUNG_BLOCK, 3, true, false, false},
};

static void train_with(struct tiny *t, const struct way *w, const struct technique *how, const struct corpus *c, dtype act, double *eval)
{
    struct way way = *w;
    deepened = w;
    way.also = deep;
    struct model_plan plan = plan_of(&way);
    plan.acts.rung = how->rung;
    plan.acts.every = how->every;
    plan.acts.offload = how->offload;
    plan.acts.apart = how->streams;
    tiny_open(t, &way, &plan, c, how->offload ? &apart : &backend_cpu, act, 1, how->in_bwd);
    t->way = w;
    for (int k = 0; k < RUN; k++) {
        tiny_launch(t);
        tiny_collect(t);
        eval[k] = tiny_loss(t);
    }
}

static void bits(const struct way *w, dtype act, int batches)
{
    static struct corpus c;
    struct tiny base, x;
    double eval[RUN], other[RUN];
    corpus_make(&c, batches);
    train_with(&base, w, &plain, &c, act, eval);
    size_t bytes = (size_t)base.m.params.flat_count * dtype_bytes(base.m.params.trained_dt);
    for (size_t k = 0; k < sizeof techniques / sizeof *techniques; k++) {
        const struct technique *how = &techniques[k];
        if (batches > 1 && how->in_bwd) continue;
        copies = 0;
        train_with(&x, w, how, &c, act, other);
        bool same = !memcmp(x.loss, base.loss, sizeof x.loss) && !memcmp(other, eval, sizeof eval) &&
                    !memcmp(x.m.params.flat, base.m.params.flat, bytes);
        if (!same) fail_msg("%s, %s, %d batches, rung %d: other bits", w->name, dtype_name(act), batches, (int)how->rung);
        assert_int_equal(act_offloaded(&x.m.acts), LAYERS - ACT_PLACES - (x.m.lowest < 3 ? x.m.lowest : 3));
        assert_true(!how->streams || (copies > 0) == (act_offloaded(&x.m.acts) > 0));
        tiny_close(&x);
    }
    tiny_close(&base);
}

static void same_bits(void **state)
{
    (void)state;
    apart = backend_cpu;
    apart.tensors_in = MEM_DEVICE;
    apart.dev.stream_open = apart_stream_open;
    apart.dev.copy = counted_copy;
    for (int i = 0; i < N_WAYS; i++) {
        bits(&ways[i], DT_F32, 2);
        bits(&ways[i], DT_BF16, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
