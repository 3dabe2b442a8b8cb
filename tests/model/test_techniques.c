/* What must never change a bit, on the CPU backend: recomputation, optimizer in backward, threads; and the paranoid wrapper,
 * which poisons what nobody wrote and guards what nobody may touch, sees nothing in any way to train. */
#include "tests/model/trainer.h"

enum { FEW = 3 };

struct technique {
    const char *name;
    enum act_rung rung;
    int64_t every;
    bool in_bwd, paranoid;
    int threads;
    int64_t tile;
};

static const struct technique plain = {"plain", ACT_RUNG_NONE, .threads = 1},
                              techniques[] = {
                                  {"norms and products recomputed", ACT_RUNG_PRODUCTS, .threads = 1},
                                  {"gate and up recomputed", ACT_RUNG_FFN, .threads = 1},
                                  {"what attention reads recomputed", ACT_RUNG_INPUTS, .threads = 1},
                                  {"that of every third block", ACT_RUNG_INPUTS, 3, .threads = 1},
                                  {"that, and optimizer in backward", ACT_RUNG_INPUTS, .in_bwd = true, .threads = 1},
                                  {"blocks recomputed", ACT_RUNG_BLOCK, .threads = 1},
                                  {"every second block recomputed", ACT_RUNG_BLOCK, 2, .threads = 1},
                                  {"optimizer in backward", ACT_RUNG_NONE, .in_bwd = true, .threads = 1},
                                  {"both", ACT_RUNG_BLOCK, .in_bwd = true, .threads = 1},
                                  {"two threads", ACT_RUNG_NONE, .threads = 2},
                                  {"under guard", ACT_RUNG_INPUTS, .paranoid = true, .threads = 1},
                                  {"both, under guard", ACT_RUNG_BLOCK, .in_bwd = true, .paranoid = true, .threads = 1},
};

enum { TILE = 6, MOST = 60 }; /* tokens: two tiles and more in most batches; more than there are in any */
static const struct technique in_tiles = {"tiles", ACT_RUNG_FFN, .threads = 1, .tile = TILE},
                              tiled[] = {
                                  {"tiles, all else kept", ACT_RUNG_NONE, .threads = 1, .tile = TILE},
                                  {"tiles, what attention reads recomputed", ACT_RUNG_INPUTS, .threads = 1, .tile = TILE},
                                  {"tiles, blocks recomputed", ACT_RUNG_BLOCK, .threads = 1, .tile = TILE},
                                  {"tiles, every second block recomputed", ACT_RUNG_BLOCK, 2, .threads = 1, .tile = TILE},
                                  {"tiles, optimizer in backward", ACT_RUNG_PRODUCTS, .in_bwd = true, .threads = 1, .tile = TILE},
                                  {"tiles, two threads", ACT_RUNG_FFN, .threads = 2, .tile = TILE},
                                  {"tiles, blocks, under guard", ACT_RUNG_BLOCK, .in_bwd = true, .paranoid = true, .threads = 1,
                                   .tile = TILE},
};
/* One tile that holds them all is no other sum. */
static const struct technique one_tile[] = {{"one tile", ACT_RUNG_PRODUCTS, .threads = 1, .tile = MOST},
                                            {"one tile, blocks recomputed", ACT_RUNG_BLOCK, .in_bwd = true, .threads = 1, .tile = MOST}};

static void train_with(struct tiny *t, const struct way *w, const struct technique *how, const struct corpus *c, dtype act)
{
    struct model_plan plan = plan_of(w);
    plan.acts.rung = how->rung;
    plan.acts.every = how->every;
    plan.acts.tile = how->tile;
    tiny_open(t, w, &plan, c, how->paranoid ? paranoid_wrap(&backend_cpu) : &backend_cpu, act, how->threads, how->in_bwd);
    tiny_run(t, FEW);
}

#define COUNT(list) (sizeof(list) / sizeof *(list))

static void bits(const struct way *w, dtype act, int batches, const struct technique *first, const struct technique *others, size_t n)
{
    static struct corpus c;
    struct tiny base, x;
    corpus_make(&c, batches);
    train_with(&base, w, first, &c, act);
    for (size_t k = 0; k < n; k++) {
        const struct technique *how = &others[k];
        if (batches > 1 && (how->in_bwd || how->threads > 1 || how->paranoid)) continue;
        /* The guard poisons 13 MB of workspace before each op: once per way to train and dtype. */
        if (how->paranoid && how->in_bwd != (act == DT_BF16)) continue;
        train_with(&x, w, how, &c, act);
        if (memcmp(x.loss, base.loss, sizeof x.loss))
            fail_msg("%s, %s, %d batches: losses differ with: %s", w->name, dtype_name(act), batches, how->name);
        size_t bytes = (size_t)base.m.params.flat_count * dtype_bytes(base.m.params.trained_dt);
        if (memcmp(x.m.params.flat, base.m.params.flat, bytes))
            fail_msg("%s, %s, %d batches: weights differ with: %s", w->name, dtype_name(act), batches, how->name);
        tiny_close(&x);
    }
    tiny_close(&base);
}

static void same_bits(void **state)
{
    (void)state;
    for (int i = 0; i < N_WAYS; i++)
        for (int batches = 1; batches <= 8; batches *= 8) {
            bits(&ways[i], DT_F32, batches, &plain, techniques, COUNT(techniques));
            bits(&ways[i], DT_BF16, batches, &plain, techniques, COUNT(techniques));
        }
}

static void same_bits_in_tiles(void **state)
{
    (void)state;
    for (int i = 0; i < N_WAYS; i++)
        for (int batches = 1; batches <= 8; batches *= 8) {
            bits(&ways[i], batches == 1 ? DT_F32 : DT_BF16, batches, &in_tiles, tiled, COUNT(tiled));
            bits(&ways[i], batches == 1 ? DT_BF16 : DT_F32, batches, &plain, one_tile, COUNT(one_tile));
        }
}

/* The test above must be able to fail: another seed's dropout, or a weight one bit off, is another run. */
static void bits_can_differ(void **state)
{
    static struct corpus c;
    struct tiny a, b;
    (void)state;
    corpus_make(&c, 1);
    train_with(&a, &ways[0], &plain, &c, DT_F32);
    struct model_plan plan = plan_of(&ways[0]);
    tiny_open(&b, &ways[0], &plan, &c, &backend_cpu, DT_F32, 1, false);
    ((float *)b.m.params.p[b.m.layers[1].linear[LINEAR_UP].w].value.data)[7] *= 1.001f;
    tiny_run(&b, FEW);
    assert_memory_not_equal(a.loss, b.loss, sizeof a.loss);
    tiny_close(&a);
    tiny_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_bits), cmocka_unit_test(same_bits_in_tiles),
                                       cmocka_unit_test(bits_can_differ)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
