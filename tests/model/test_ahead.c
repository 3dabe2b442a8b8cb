/* NF4 weights a layer ahead: what is dequantised when, and what is not again; and that the numbers are those of one linear at a time. A
 * backend that says of the CPU that it has memory and time of its own, and that it joins products, counts what it passes on. */
#include "tests/model/trainer.h"

enum { LAYERS = 5, LINEARS = 7, BATCHES = 2, RUN = 4 };

static struct {
    int ahead, late; /* linears: while another layer is worked on; of the layer that is entered */
    int copies;      /* of adapters, to a layer's buffer */
} count;
static const struct param_store *watched;

static bool decoding(const struct stream *s) { return s->name && !strcmp(s->name, "decode"); }

static status counted_dequantize(struct stream *s, const struct nf4_args *q)
{
    const struct param *p = watched->p;
    assert_true(decoding(s));
    while (p->nf4.codes.data != q->codes.data) p++;
    if (p->layer == watched->inside)
        count.late++;
    else
        count.ahead++;
    return backend_cpu.ops.nf4_dequantize(s, q);
}

static status counted_axpy(struct stream *s, const struct axpy_args *a)
{
    if (decoding(s)) count.copies++;
    return backend_cpu.ops.axpy(s, a);
}

static struct backend apart;

static status apart_stream_open(struct stream **out, int threads)
{
    TRY(backend_cpu.dev.stream_open(out, threads));
    (*out)->be = &apart;
    return ST_OK;
}

static void open_apart(void)
{
    apart = backend_cpu;
    apart.tensors_in = MEM_DEVICE;
    apart.joins_products = true;
    apart.dev.stream_open = apart_stream_open;
    apart.ops.nf4_dequantize = counted_dequantize;
    apart.ops.axpy = counted_axpy;
}

static void deep(struct model_shape *s) { s->layers = LAYERS; }

static void open_on(struct tiny *t, const struct way *w, const struct corpus *c, const struct backend *be, enum act_rung rung, bool in_bwd)
{
    struct model_plan plan = plan_of(w);
    plan.acts.rung = rung;
    tiny_open(t, w, &plan, c, be, DT_F32, 1, in_bwd);
}

/* Layers that were dequantised since it was asked last, all of them whole; those of them that were waited for. */
static void expect(const char *when, int layers, int late, int copied)
{
    if (count.ahead + count.late != layers * LINEARS || count.late != late * LINEARS || count.copies != copied * LINEARS * 2)
        fail_msg("%s: %d linears ahead and %d late, %d copies", when, count.ahead, count.late, count.copies);
    memset(&count, 0, sizeof count);
}

static const struct way all_adapted = {"QLoRA",
                                       "llama",
                                       true,
                                       .also = deep,
                                       .optimizer = CONFIG_ADAMW,
                                       .lr = 5e-3,
                                       .plan = {.lora = true, .frozen.nf4 = true, .adapted = LORA_ALL, .rank = 8, .alpha = 16}};

static void nothing_twice(void **state)
{
    static struct corpus c;
    struct tiny t;
    (void)state;
    corpus_make(&c, BATCHES);
    open_apart();
    for (int rung = ACT_RUNG_PRODUCTS; rung <= ACT_RUNG_BLOCK; rung++) {
        open_on(&t, &all_adapted, &c, &apart, rung, false);
        watched = &t.m.params;
        memset(&count, 0, sizeof count);
        tiny_launch(&t);
        /* Down and up: each turn leaves two layers there, but the first. Adapters are with them. */
        expect("first step", LAYERS + 3 * (LAYERS - 2), 1, LAYERS + 3 * (LAYERS - 2));
        tiny_launch(&t);
        expect("second step", 4 * (LAYERS - 2), 0, 4 * (LAYERS - 2) + 2);
        tiny_collect(&t), tiny_collect(&t);
        tiny_loss(&t); /* no backward: the last two are there when the first are asked for */
        expect("evaluation", LAYERS - 2 + LAYERS, 1, LAYERS - 2 + 2 + LAYERS);
        tiny_close(&t);
    }
}

/* Nothing is fetched for layers whose backward does not come. */
static void not_below(void **state)
{
    static const struct way w = {"QLoRA on top",
                                 "llama",
                                 true,
                                 .also = deep,
                                 .optimizer = CONFIG_SGD,
                                 .lr = 0.03,
                                 .plan = {.lora = true, .frozen.nf4 = true},
                                 .adapter = "{\"peft_type\":\"LORA\",\"target_modules\":[\"q_proj\"],\"layers_to_transform\":[3,4]}"};
    static struct corpus c;
    struct tiny t;
    (void)state;
    corpus_make(&c, BATCHES);
    open_apart();
    open_on(&t, &w, &c, &apart, ACT_RUNG_PRODUCTS, false);
    watched = &t.m.params;
    memset(&count, 0, sizeof count);
    tiny_launch(&t);
    expect("adapters in the last layers", BATCHES * LAYERS, BATCHES, 0);
    tiny_collect(&t);
    tiny_close(&t);
}

/* Updated, evaluated, with steps within the backward: the numbers of the CPU, to the bit. */
static void same_numbers(void **state)
{
    static struct corpus c;
    struct tiny here, there;
    (void)state;
    open_apart();
    for (int in_bwd = 0; in_bwd < 2; in_bwd++)
        for (int rung = ACT_RUNG_PRODUCTS; rung <= ACT_RUNG_BLOCK; rung++) {
            corpus_make(&c, in_bwd ? 1 : BATCHES);
            open_on(&here, &all_adapted, &c, &backend_cpu, rung, in_bwd);
            open_on(&there, &all_adapted, &c, &apart, rung, in_bwd);
            watched = &there.m.params;
            for (int k = 0; k < RUN; k++) {
                tiny_launch(&here), tiny_launch(&there);
                double a = tiny_collect(&here).loss, b = tiny_collect(&there).loss;
                double c_loss = tiny_loss(&here), d_loss = tiny_loss(&there);
                if (a != b || c_loss != d_loss)
                    fail_msg("step %d, in_bwd %d, rung %d: losses %.9g and %.9g, then %.9g and %.9g", k, in_bwd, rung, a, b, c_loss,
                             d_loss);
            }
            tiny_close(&here), tiny_close(&there);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_twice), cmocka_unit_test(not_below), cmocka_unit_test(same_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
