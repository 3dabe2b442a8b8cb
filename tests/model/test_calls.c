/* How many calls of the backend a training step makes: each is a launch on a device, however little it does. A backend that
 * counts what it passes on to the CPU's trains a model of 24 layers, LoRA on all linears, for a step. */
#include "tests/model/trainer.h"

enum { LAYERS = 24, COPIES = 0, ZEROS, SYNCS, DEVICE_CALLS };

static struct {
#define COUNTER(name, args) int name;
    TRIMPOT_OPS(COUNTER)
#undef COUNTER
    int device[DEVICE_CALLS];
} calls;

#define COUNT(name, args)                                                                                                                  \
    static status name##_counted(struct stream *s, const struct args##_args *a)                                                            \
    {                                                                                                                                      \
        calls.name++;                                                                                                                      \
        return backend_cpu.ops.name(s, a);                                                                                                 \
    }
TRIMPOT_OPS(COUNT)
#define COUNTED(name, args) .name = name##_counted,

static status counted_copy(struct stream *s, void *dst, const void *src, size_t bytes)
{
    calls.device[COPIES]++;
    return backend_cpu.dev.copy(s, dst, src, bytes);
}

static status counted_zero(struct stream *s, void *dst, size_t bytes)
{
    calls.device[ZEROS]++;
    return backend_cpu.dev.zero(s, dst, bytes);
}

static status counted_sync(struct stream *s, const char *label)
{
    calls.device[SYNCS]++;
    return backend_cpu.dev.sync(s, label);
}

static struct backend counting;

static status counted_stream_open(struct stream **out, int threads)
{
    TRY(backend_cpu.dev.stream_open(out, threads));
    (*out)->be = &counting;
    return ST_OK;
}

static void deep(struct model_shape *s) { s->layers = LAYERS; }

/* A whole step, launched. */
static int count_step(struct tiny *t)
{
    int total = 0;
    memset(&calls, 0, sizeof calls);
    tiny_launch(t);
#define SHOW(name, args)                                                                                                                   \
    if (calls.name) printf("  %-14s %5d\n", #name, calls.name), total += calls.name;
    TRIMPOT_OPS(SHOW)
    printf("  %-14s %5d\n  %-14s %5d\n  %-14s %5d\n", "copy", calls.device[COPIES], "zero", calls.device[ZEROS], "sync",
           calls.device[SYNCS]);
    return total + calls.device[COPIES] + calls.device[ZEROS];
}

static int calls_of(const struct way *w, enum act_rung rung, int64_t tile)
{
    static struct corpus c;
    struct tiny t;
    struct model_plan plan = plan_of(w);
    plan.acts.rung = rung;
    plan.acts.tile = tile;
    plan.head_rows = DOCS * 16;
    corpus_make(&c, 1);
    counting = backend_cpu;
    counting.ops = (struct ops){TRIMPOT_OPS(COUNTED)};
    counting.dev.copy = counted_copy;
    counting.dev.zero = counted_zero;
    counting.dev.sync = counted_sync;
    counting.dev.stream_open = counted_stream_open;
    tiny_open(&t, w, &plan, &c, &counting, DT_F32, 1, false);
    printf("%s\n", w->name);
    int n = count_step(&t);
    printf("  %-14s %5d\n", "all but sync", n);
    tiny_close(&t);
    return n;
}

/* The plan is copied in and the losses summed; at the end square sums of all gradients, the judgement, the update of all that is
 * trained, and what came of it copied out. None of it per parameter. */
enum { OF_STEP = 6 };

static const struct way adapted = {"LoRA on all linears",
                                   "llama",
                                   true,
                                   .optimizer = CONFIG_ADAMW,
                                   .lr = 1e-3,
                                   .also = deep,
                                   .plan = {.lora = true, .adapted = LORA_ALL, .rank = 8, .alpha = 8}};

/* Per layer: forward 16 (2 norms, 11 products of 7 adapted linears, those of q, k, v and of gate, up having one x·Aᵀ, rotation,
 * attention, gate; no add), recomputed 3 (norms and product; none in the last layer) or more, backward 33 (4 products a linear, 2 norms,
 * rotation, attention, gate); in layer 0 nothing lies before q, k, v: 3 products and a norm less. And embedding, head (2
 * gathers, norm, product, loss, zero, product, norm, scatter). */
static void lora(void **state)
{
    (void)state;
    int once = LAYERS * (16 + 33) - 4 + 10 + OF_STEP, again = LAYERS - 1;
    assert_int_equal(calls_of(&adapted, ACT_RUNG_NONE, 0), once);
    assert_int_equal(calls_of(&adapted, ACT_RUNG_PRODUCTS, 0), once + again * 3);
    assert_int_equal(calls_of(&adapted, ACT_RUNG_FFN, 0), once + again * (3 + 3));        /* gate, up, their x·Aᵀ */
    assert_int_equal(calls_of(&adapted, ACT_RUNG_INPUTS, 0), once + again * (3 + 3 + 5)); /* q, k, v, their x·Aᵀ, rotation */
    assert_int_equal(calls_of(&adapted, ACT_RUNG_BLOCK, 0), once + again * (16 - 1));     /* all but what down adds to x2 */
}

/* In tiles, per layer: forward 10 and 6 a tile (gate, up, their x·Aᵀ, gate, down 2), recomputed 2 (norms) and, in the last layer too, 5 a
 * tile (of down its x·Aᵀ alone), backward 20 and 13 a tile. */
static void lora_in_tiles(void **state)
{
    (void)state;
    for (int64_t tile = 51, tiles = 1; tile > 1; tile /= 2, tiles = (51 + tile - 1) / tile)
        assert_int_equal(calls_of(&adapted, ACT_RUNG_FFN, tile), LAYERS * (10 + 20 + 24 * tiles) + 2 * (LAYERS - 1) - 4 + 10 + OF_STEP);
}

/* A weight is dequantised once per layer and pass, however many tiles read it: in the forward, and, but for what is there still of the
 * last layer, in the backward: again where q, k, v and o are (there is one place for them), and nothing lies before q, k, v of layer 0. */
static void decoded_once(void **state)
{
    struct way w = adapted;
    (void)state;
    w.plan.frozen.nf4 = true;
    for (int64_t tile = 6; tile < 51; tile *= 2) {
        calls_of(&w, ACT_RUNG_FFN, tile);
        assert_int_equal(calls.nf4_dequantize, LAYERS * (7 + 7) - 3 - 3);
    }
}

/* No backward runs below the lowest layer with an adapter, nor in it before the first adapted linear: of layer 23's attention
 * half only o's own, and no gradient of what o reads. */
static void adapters_on_top(void **state)
{
    static const struct way w = {"LoRA on o of the last layer",
                                 "llama",
                                 true,
                                 .optimizer = CONFIG_SGD,
                                 .lr = 1e-3,
                                 .also = deep,
                                 .plan = {.lora = true},
                                 .adapter = "{\"peft_type\":\"LORA\",\"target_modules\":\".*layers\\\\.23.*o_proj\",\"r\":3}"};
    (void)state;
    /* down, product, up, gate, norm 2: 5; o: dy·B, A, B */
    assert_int_equal(calls_of(&w, ACT_RUNG_PRODUCTS, 0), LAYERS * 12 + 1 + 5 + 3 + 10 + OF_STEP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lora), cmocka_unit_test(lora_in_tiles), cmocka_unit_test(decoded_once),
                                       cmocka_unit_test(adapters_on_top)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
