/* Nothing in a step waits: what the host asks of the device, counted. And what a step that is not usable leaves behind: nothing,
 * although the next one is launched before anybody knows. */
#include "tests/model/trainer.h"

enum { RUN = 6, POISONED = 2 };

/* ---- the CPU, counted ----------------------------------------------------------------------------------------------------- */

static struct backend counted;
static struct {
    int syncs, event_syncs, sumsq, decide, admit, update;
} count;

static status counted_stream_open(struct stream **out, int threads)
{
    TRY(backend_cpu.dev.stream_open(out, threads));
    (*out)->be = &counted;
    return ST_OK;
}

static status counted_sync(struct stream *s, const char *label)
{
    count.syncs++;
    return backend_cpu.dev.sync(s, label);
}

static status counted_event_sync(struct event *e, const char *label)
{
    count.event_syncs++;
    return backend_cpu.dev.event_sync(e, label);
}

/* clang-format off */
#define COUNTED(member, name)                                                                                                              \
    static status counted_##name(struct stream *s, const struct name##_args *a)                                                            \
    {                                                                                                                                      \
        count.member++;                                                                                                                    \
        return backend_cpu.ops.name(s, a);                                                                                                 \
    }
COUNTED(sumsq, sumsq_segs)
COUNTED(decide, step_decide)
COUNTED(admit, step_admit)
COUNTED(update, update)
/* clang-format on */

static void count_anew(void)
{
    memset(&count, 0, sizeof count);
    counted = backend_cpu;
    counted.dev.stream_open = counted_stream_open;
    counted.dev.sync = counted_sync;
    counted.dev.event_sync = counted_event_sync;
    counted.ops.sumsq_segs = counted_sumsq_segs;
    counted.ops.step_decide = counted_step_decide;
    counted.ops.step_admit = counted_step_admit;
    counted.ops.update = counted_update;
}

static int trained(const struct tiny *t)
{
    int n = 0;
    for (int i = 0; i < t->m.params.n; i++) n += param_is_trained(&t->m.params.p[i]);
    return n;
}

static void open_way(struct tiny *t, const struct way *w, const struct corpus *c, const struct backend *be, bool in_bwd)
{
    struct model_plan plan = plan_of(w);
    tiny_open(t, w, &plan, c, be, DT_F32, 2, in_bwd);
}

/* No wait from launch to launch, whatever the accumulation, clipping, or parameters; one wait to be told, one step later. */
static void nothing_waits(void **state)
{
    (void)state;
    static struct corpus c;
    for (int i = 0; i < N_WAYS; i++)
        for (int batches = 1; batches <= 8; batches *= 8)
            for (int in_bwd = 0; in_bwd <= (batches == 1); in_bwd++) {
                struct tiny t;
                count_anew();
                corpus_make(&c, batches);
                open_way(&t, &ways[i], &c, &counted, in_bwd);
                t.config.clip_grad_norm = in_bwd ? NAN : 0.01;
                int n = trained(&t);
                for (int k = 0; k < RUN; k++) {
                    memset(&count, 0, sizeof count);
                    tiny_launch(&t);
                    if (count.syncs || count.event_syncs)
                        fail_msg("%s, %d batches, step %d: %d waits before it was launched", ways[i].name, batches, k,
                                 count.syncs + count.event_syncs);
                    if (count.sumsq != (in_bwd ? n : 1) || count.update != (in_bwd ? n : 1) || count.admit != (in_bwd ? n : 0) ||
                        count.decide != 1)
                        fail_msg("%s: %d sums, %d judgements, %d updates of %d tensors", ways[i].name, count.sumsq,
                                 count.admit + count.decide, count.update, n);
                    if (trainer_in_flight(&t.trainer) < TRAINER_SLOTS) continue;
                    assert_true(tiny_collect(&t).usable);
                    assert_true(count.syncs == 0 && count.event_syncs == 1);
                }
                tiny_collect(&t);
                tiny_close(&t);
            }
}

/* ---- a gradient that is not finite ------------------------------------------------------------------------------------------ */

/* Step POISONED of the run gets a NaN into the last tensor's gradient, or is left out. Everything a resume would see is kept. */
static void run_with(struct tiny *t, const struct way *w, const struct corpus *c, bool poison)
{
    open_way(t, w, c, &backend_cpu, false);
    for (int k = 0; k < RUN; k++) {
        if (k == POISONED && !poison) {
            t->step++;
            continue;
        }
        tiny_pass(t);
        if (k == POISONED) ((float *)t->trainer.sink.buffer[0])[t->m.params.segs.host[0].at] = NAN;
        MUST(trainer_update(&t->trainer));
        t->step++;
        if (trainer_in_flight(&t->trainer) == TRAINER_SLOTS) tiny_collect(t);
    }
    struct step_result last = tiny_collect(t);
    assert_true(last.usable && last.applied == RUN - 1 && !trainer_in_flight(&t->trainer));
}

static void skipped_steps_leave_nothing(void **state)
{
    (void)state;
    static struct corpus c;
    corpus_make(&c, 2);
    for (int i = 0; i < N_WAYS; i++) {
        struct tiny a, b;
        run_with(&a, &ways[i], &c, true);
        run_with(&b, &ways[i], &c, false);
        assert_true(a.told == RUN && b.told == RUN - 1);
        if (memcmp(a.loss, b.loss, POISONED * sizeof(double)) ||
            memcmp(a.loss + POISONED + 1, b.loss + POISONED, (RUN - POISONED - 1) * sizeof(double)))
            fail_msg("%s: other losses than without the skipped step", ways[i].name);
        size_t bytes = (size_t)a.m.params.flat_count * dtype_bytes(a.m.params.trained_dt);
        if (memcmp(a.m.params.flat, b.m.params.flat, bytes)) fail_msg("%s: other weights than without the skipped step", ways[i].name);
        tiny_close(&a);
        tiny_close(&b);
    }
}

/* With optimizer_in_bwd a step cannot be taken back: the tensor and the step are named, one step late, and after that tensor no
 * other moved. */
static void refusals_last(void **state)
{
    (void)state;
    static struct corpus c;
    const struct way *w = &ways[1];
    struct tiny t;
    struct step_result result;
    corpus_make(&c, 1);
    open_way(&t, w, &c, &backend_cpu, true);
    tiny_launch(&t);
    /* Layer 1 turns what goes through it to NaN in the second step: layer 0 is behind it in the backward. */
    for (int i = 0; i < t.m.params.n; i++)
        if (strstr(t.m.params.p[i].name, "layers.1.mlp.gate")) ((float *)t.m.params.p[i].value.data)[3] = INFINITY;
    struct param *first = &t.m.params.p[t.m.layers[0].linear[LINEAR_Q].w];
    size_t bytes = (size_t)first->count * sizeof(float);
    void *keep = memcpy(mem_alloc(bytes), first->value.data, bytes);
    tiny_launch(&t);
    assert_true(tiny_collect(&t).usable);
    tiny_launch(&t);
    assert_memory_equal(first->value.data, keep, bytes);
    assert_int_equal(trainer_collect(&t.trainer, &result), ST_NONFINITE);
    if (strncmp(status_message(), "step 2: the gradient of ", 24)) fail_msg("%s", status_message());
    free(keep);
    tiny_close(&t);
}

/* A step without a supervised token changes nothing, nor does its weight decay. */
static void empty_steps(void **state)
{
    (void)state;
    static struct corpus c;
    for (int in_bwd = 0; in_bwd < 2; in_bwd++) {
        struct tiny t;
        corpus_make(&c, 1);
        open_way(&t, &ways[0], &c, &backend_cpu, in_bwd);
        size_t bytes = (size_t)t.m.params.flat_count * dtype_bytes(t.m.params.trained_dt);
        void *keep = mem_alloc(bytes);
        memcpy(keep, t.m.params.flat, bytes);
        c.supervised = c.batch[0].supervised = 0;
        tiny_launch(&t);
        struct step_result r = tiny_collect(&t);
        assert_true(!r.usable && r.loss == 0 && r.grad_norm == 0 && r.applied == 0);
        assert_memory_equal(keep, t.m.params.flat, bytes);
        free(keep);
        tiny_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_waits),
        cmocka_unit_test(skipped_steps_leave_nothing),
        cmocka_unit_test(refusals_last),
        cmocka_unit_test(empty_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
