/* Nothing in a step waits: what the host asks of the device, counted. What crosses ranks is queued while there is backward to come.
 * And what a step that is not usable leaves behind: nothing, although the next one is launched before anybody knows. */
#include "collectives/transport.h"
#include "tests/model/trainer.h"

enum { RUN = 6, POISONED = 2 };

/* ---- the CPU, counted ----------------------------------------------------------------------------------------------------- */

static struct backend counted;
static struct {
    int syncs, event_syncs, sumsq, decide, admit, update, attention; /* the last: backward */
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
COUNTED(attention, attn_bwd)
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
    counted.ops.attn_bwd = counted_attn_bwd;
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

/* ---- behind the backward ------------------------------------------------------------------------------------------------------- */

/* Two ranks of which the other does what this one does, at once: its partial sums are mine, and what it adds is twice mine. */
enum { RANKS = 2 };
static struct {
    const struct stream *on;
    int n;
    int at[1 << 12]; /* count.attention when it was queued */
} exchange;

static status mirrored_exchange(struct transport *x, const struct round *r, void *const *from)
{
    assert_int_equal(x->ranks[1].n, 1);
    exchange.on = x->stream;
    assert_in_range(exchange.n, 0, sizeof exchange.at / sizeof *exchange.at - 1);
    if (r->number == 0) exchange.at[exchange.n++] = count.attention;
    memcpy((float *)x->landing + x->ranks[1].first * x->each, (const float *)from[0] + r->at[0], (size_t)r->count[0] * sizeof(float));
    return ST_OK;
}

static status mirrored_gather(struct transport *x, const struct round *r, void *to)
{
    (void)x;
    for (int64_t e = 0; e < r->count[1]; e++) ((float *)to)[r->at[1] + e] *= 2;
    return ST_OK;
}

static status mirrored_all_gather(struct comm *c, const void *mine, void *all, size_t bytes)
{
    for (int r = 0; r < c->size; r++) memmove((char *)all + (size_t)r * bytes, mine, bytes);
    return ST_OK;
}

/* As on a device: what a call of the host failed with is told to who waits for something recorded behind it on that stream. */
static struct {
    struct stream *on;
    struct event *behind;
    status st;
} lost;

static status lost_host_call(struct stream *s, status (*fn)(void *), void *arg)
{
    status st = fn(arg);
    if (st) lost.on = s, lost.st = st;
    return ST_OK;
}

static status lost_event_record(struct event *e, struct stream *s)
{
    if (s == lost.on) lost.behind = e;
    return backend_cpu.dev.event_record(e, s);
}

static status lost_event_sync(struct event *e, const char *label)
{
    if (e == lost.behind) FAIL(lost.st, "%s: the peer is gone", label);
    return backend_cpu.dev.event_sync(e, label);
}

static status broken_all_gather(struct comm *c, const void *mine, void *all, size_t bytes)
{
    (void)c, (void)mine, (void)all, (void)bytes;
    return ST_PEER;
}

static const struct transport_table mirrored = {
    .name = "mirror", .piece = TRANSPORT_QUEUED_PIECE, .queued = true, .exchange = mirrored_exchange, .gather = mirrored_gather};
static struct device_links mirror = {.fn = &mirrored, .what = "mirror"};
static const struct comm_table mirrored_calls = {.name = "mirror", .all_gather = mirrored_all_gather};
static const struct comm two = {.fn = &mirrored_calls, .size = RANKS, .local_size = RANKS, .links = &mirror};

/* Steps of two ranks, in buckets; the gradient is twice that of one. first, all: backwards of attention that were queued when the first
 * bucket was exchanged, and in the step; of its last micro-batch: last. */
static void check_buckets_of(const struct way *w, const struct corpus *c, int64_t bucket, int *first, int *last, int *all)
{
    struct model_plan plan = plan_of(w);
    struct tiny one, both;
    open_way(&one, w, c, &backend_cpu, false);
    tiny_launch(&one);
    count_anew();
    counted.tensors_in = MEM_DEVICE;
    tiny_open_among(&both, w, &plan, c, &counted, DT_F32, 2, false, &(struct tiny_ranks){&two, bucket});
    memset(&count, 0, sizeof count);
    exchange.n = 0;
    tiny_launch(&both);
    assert_int_equal(count.syncs + count.event_syncs, 0);
    assert_ptr_equal(exchange.on, both.across);
    *first = exchange.at[0];
    *last = count.attention / c->n_batches;
    *all = count.attention;
    int64_t n = one.m.params.flat_count;
    assert_int_equal(exchange.n, bucket ? (n + bucket - 1) / bucket : 1);
    for (int i = 0; i < one.m.params.n; i++) {
        const struct param *p = &one.m.params.p[i];
        for (int64_t e = p->flat; param_is_trained(p) && e < p->flat + p->count; e++)
            if (both.first_gradient[e] != 2 * one.first_gradient[e])
                fail_msg("%s, buckets of %lld: %s is %g, not twice %g", w->name, (long long)bucket, p->name, both.first_gradient[e],
                         one.first_gradient[e]);
    }
    tiny_collect(&one);
    tiny_collect(&both);
    assert_int_equal(count.syncs, 0);
    tiny_close(&one);
    tiny_close(&both);
}

/* The first bucket is on its way before the lowest layer's backward is queued, and not before the last micro-batch: of accumulated
 * gradients nothing is complete earlier. Without a bucket's size, behind everything. */
static void reduced_behind_the_backward(void **state)
{
    (void)state;
    static struct corpus c;
    for (int i = 0; i < N_WAYS; i++)
        for (int batches = 1; batches <= 4; batches *= 4) {
            int first, last, all;
            corpus_make(&c, batches);
            check_buckets_of(&ways[i], &c, 0, &first, &last, &all);
            assert_int_equal(first, all);
            check_buckets_of(&ways[i], &c, 512, &first, &last, &all);
            bool one_layer = ways[i].adapter && strstr(ways[i].adapter, "[1]"); /* nothing above it is trained */
            if (first < all - last || first > all - !one_layer)
                fail_msg("%s: the first bucket was exchanged after %d of %d backwards of attention, of which %d are the last's",
                         ways[i].name, first, all, last);
        }
}

/* What fails on the way over the ranks ends the run when the step is told: the compute stream alone would not say it. */
static void failures_across_are_told(void **state)
{
    (void)state;
    static struct corpus c;
    struct model_plan plan = plan_of(&ways[0]);
    struct comm_table calls = {.name = "broken", .all_gather = broken_all_gather};
    struct comm broken = two;
    struct step_result result;
    struct tiny t;
    broken.fn = &calls;
    corpus_make(&c, 1);
    count_anew();
    counted.tensors_in = MEM_DEVICE;
    counted.dev.host_call = lost_host_call;
    counted.dev.event_record = lost_event_record;
    counted.dev.event_sync = lost_event_sync;
    exchange.n = 0;
    memset(&lost, 0, sizeof lost);
    tiny_open_among(&t, &ways[0], &plan, &c, &counted, DT_F32, 2, false, &(struct tiny_ranks){&broken, 4096});
    tiny_launch(&t);
    assert_ptr_equal(lost.on, t.across);
    assert_int_equal(trainer_collect(&t.trainer, &result), ST_PEER);
    tiny_close(&t);
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
        cmocka_unit_test(reduced_behind_the_backward),
        cmocka_unit_test(failures_across_are_told),
        cmocka_unit_test(skipped_steps_leave_nothing),
        cmocka_unit_test(refusals_last),
        cmocka_unit_test(empty_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
