/* act_store with a ring: what is queued where, and which of it waits for what, on a backend that writes down what it is asked for; where
 * the slots of a layer are; and that a copy in has a layer's whole backward of time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/text.h"
#include "worker/memory/act_store.h"
#include "worker/memory/plan.h"

#define MUST(expr)                                                                                                                         \
    do {                                                                                                                                   \
        if (expr) fail_msg("%s: %s", #expr, status_message());                                                                             \
    } while (0)

/* ---- a backend that writes down ------------------------------------------------------------------------------------------- */

enum { LAYERS = 5, TOKENS = 6, CAPACITY = 8 };

struct event {
    int number;
};

static struct {
    struct buf text;
    int streams, events; /* open */
    int made;
} seen;

static struct act_store *watched;

static status noted_stream_open(struct stream **out, int threads)
{
    *out = mem_alloc(sizeof **out);
    (*out)->threads = threads;
    seen.streams++;
    return ST_OK;
}

static void noted_stream_close(struct stream *s)
{
    free(s);
    seen.streams--;
}

static status noted_event_open(struct event **out)
{
    *out = mem_alloc(sizeof **out);
    (*out)->number = seen.made++;
    seen.events++;
    return ST_OK;
}

static void noted_event_close(struct event *e)
{
    free(e);
    seen.events--;
}

/* "out", "in", or the stream of the layers. */
static const char *stream_name(const struct stream *s) { return s->name ? strrchr(s->name, ' ') + 1 : "s"; }

static status noted_record(struct event *e, struct stream *s)
{
    buf_printf(&seen.text, " %s!%d", stream_name(s), e->number);
    return ST_OK;
}

static status noted_wait(struct event *e, struct stream *s, const char *label)
{
    assert_true(strlen(label) > 0);
    buf_printf(&seen.text, " %s?%d", stream_name(s), e->number);
    return ST_OK;
}

static const int *layer_of_host(const void *p)
{
    static int layer;
    for (layer = 0; layer < LAYERS; layer++)
        for (int slot = 0; slot < watched->n_slots; slot++)
            if (p == watched->ring.host[layer * watched->n_slots + slot]) return &layer;
    return NULL;
}

static status noted_copy(struct stream *s, void *dst, const void *src, size_t bytes)
{
    const int *out = layer_of_host(dst);
    int out_of = out ? *out : -1;
    const int *in = layer_of_host(src);
    if (out_of >= 0)
        buf_printf(&seen.text, " %s:%d→%zu", stream_name(s), out_of, bytes);
    else
        buf_printf(&seen.text, " %s:%d←%zu", stream_name(s), *in, bytes);
    memcpy(dst, src, bytes);
    return ST_OK;
}

static status plain_alloc(enum mem_kind kind, size_t bytes, void **out)
{
    (void)kind;
    *out = aligned_alloc(64, (bytes + 63) / 64 * 64);
    return ST_OK;
}

static void plain_free(enum mem_kind kind, void *p, size_t bytes)
{
    (void)kind, (void)bytes;
    free(p);
}

static struct backend noting(enum mem_kind tensors_in)
{
    return (struct backend){.name = "noting",
                            .tensors_in = tensors_in,
                            .dev = {.alloc = plain_alloc,
                                    .free = plain_free,
                                    .stream_open = noted_stream_open,
                                    .stream_close = noted_stream_close,
                                    .event_open = noted_event_open,
                                    .event_close = noted_event_close,
                                    .event_record = noted_record,
                                    .event_wait = noted_wait,
                                    .copy = noted_copy}};
}

/* ---- a store ---------------------------------------------------------------------------------------------------------------- */

/* x is kept on every rung, q where blocks are not recomputed, n1 nowhere; qa is columns of q. */
enum { X, Q, N1, QA, SLOTS };
static const struct act_slot slots[SLOTS] = {
    {"x", 16, 0, DT_F32, ACT_RUNG_FORWARD, X, 0, false},
    {"q", 8, 8, DT_BF16, ACT_RUNG_BLOCK, Q, 0, false},
    {"n1", 16, 0, DT_F32, ACT_RUNG_PRODUCTS, N1, 0, false},
    {"qa", 4, 0, DT_BF16, ACT_RUNG_BLOCK, Q, 4, false},
};
enum { X_BYTES = CAPACITY * 16 * 4, Q_BYTES = CAPACITY * 16 * 2, N1_BYTES = X_BYTES };

struct fixture {
    struct backend be;
    struct plan plan;
    struct act_store a;
    struct stream s;
};

static void layout(struct fixture *f)
{
    act_store_layout(&f->a, &f->plan.arena[PLAN_ACTIVATIONS], &f->plan.arena[PLAN_SCRATCH], &f->plan.arena[PLAN_OFFLOADED]);
}

static void store_open(struct fixture *f, enum mem_kind tensors_in, const struct act_policy *policy)
{
    *f = (struct fixture){.be = noting(tensors_in)};
    buf_release(&seen.text);
    memset(&seen, 0, sizeof seen);
    buf_text(&seen.text, "");
    watched = &f->a;
    MUST(act_store_init(&f->a, &f->be, slots, SLOTS, LAYERS, CAPACITY, policy));
    plan_init(&f->plan, &f->be, BUDGET_NONE);
    layout(f);
    MUST(plan_bind(&f->plan));
    layout(f);
}

static void store_close(struct fixture *f)
{
    act_store_release(&f->a);
    plan_release(&f->plan);
    assert_int_equal(seen.streams, 0);
    assert_int_equal(seen.events, 0);
    buf_release(&seen.text);
}

/* What is queued, of every layer walked: "F2" and so on where it is entered, ";" where it is left. */
static void walk(struct fixture *f, bool backward)
{
    act_begin(&f->a, TOKENS, backward);
    for (int64_t l = 0; l < LAYERS; l++) {
        MUST(act_enter(&f->a, &f->s, l, PHASE_FORWARD));
        buf_printf(&seen.text, " F%lld", (long long)l);
        MUST(act_leave(&f->a, &f->s, l, PHASE_FORWARD));
    }
    for (int64_t l = LAYERS - 1; backward && l >= f->a.lowest; l--) {
        MUST(act_enter(&f->a, &f->s, l, PHASE_BACKWARD));
        buf_printf(&seen.text, " B%lld", (long long)l);
        MUST(act_leave(&f->a, &f->s, l, PHASE_BACKWARD));
    }
}

static void expect(const char *transcript)
{
    if (strcmp(seen.text.data, transcript)) fail_msg("queued:%s\nexpected:%s", seen.text.data, transcript);
}

static const struct act_policy apart = {.rung = ACT_RUNG_BLOCK, .offload = true, .apart = true};

/* ---- tests ------------------------------------------------------------------------------------------------------------------ */

/* Events: 0 left; 1 sent and 2 filled of place 0; 3 sent and 4 filled of place 1. Six tokens of eight are copied. */
static void queued(void **state)
{
    struct fixture f;
    (void)state;
    store_open(&f, MEM_DEVICE, &apart);
    assert_int_equal(seen.streams, 2);
    walk(&f, true);
    expect(" F0 s!0 out?0 out:0→384 out!1 F1 s!0 out?0 out:1→384 out!3"
           " s?1 F2 s!0 out?0 out:2→384 out!1 s?3 F3 s?1 F4"
           " B4 s!0 in?0 in:2←384 in!2 B3 s!0 in?0 in:1←384 in!4 s?2 B2 s!0 in?0 in:0←384 in!2 s?4 B1 s?2 B0");
    store_close(&f);
}

static void on_one_stream(void **state)
{
    struct fixture f;
    struct act_policy policy = apart;
    (void)state;
    policy.apart = false;
    store_open(&f, MEM_DEVICE, &policy);
    assert_int_equal(seen.streams, 0);
    walk(&f, true);
    expect(" F0 s!0 s?0 s:0→384 s!1 F1 s!0 s?0 s:1→384 s!3"
           " s?1 F2 s!0 s?0 s:2→384 s!1 s?3 F3 s?1 F4"
           " B4 s!0 s?0 s:2←384 s!2 B3 s!0 s?0 s:1←384 s!4 s?2 B2 s!0 s?0 s:0←384 s!2 s?4 B1 s?2 B0");
    store_close(&f);
}

/* A layer's copies out overlap the next layer's forward, those in the backward of the layer before it: between the start of one and
 * who waits for it another layer is walked, whatever is kept. And every copy is waited for before the walk is over. */
static void a_layer_ahead(void **state)
{
    (void)state;
    for (int every = 0; every <= 3; every++)
        for (int rung = ACT_RUNG_NONE; rung <= ACT_RUNG_BLOCK; rung++) {
            struct fixture f;
            struct act_policy policy = {(unsigned)rung, every, true, true, 0, 0};
            store_open(&f, MEM_DEVICE, &policy);
            walk(&f, true);
            int walked = 0, started[5] = {0}, open[5] = {0}, waits = 0, copies = 0;
            for (char *saved, *word = strtok_r(seen.text.data, " ", &saved); word; word = strtok_r(NULL, " ", &saved)) {
                char *mark = strpbrk(word, "!?");
                int event = mark ? atoi(mark + 1) : 0;
                walked += *word == 'F' || *word == 'B';
                if (!mark || !event) {
                    copies += strchr(word, ':') != NULL;
                    continue;
                }
                assert_int_equal(open[event], *mark == '?'); /* recorded once, waited for once */
                open[event] = *mark == '!';
                if (*mark == '!') started[event] = walked;
                if (*mark == '?') assert_int_equal(walked - started[event], 1);
                waits += *mark == '?';
            }
            assert_int_equal(waits, 2 * (LAYERS - ACT_PLACES));
            for (int event = 1; event < 5; event++) assert_false(open[event]);
            int kept = 0;
            for (int64_t l = 0; l < LAYERS - ACT_PLACES; l++)
                for (int slot = 0; slot < QA; slot++) kept += f.a.rung[l] < slots[slot].from;
            assert_int_equal(copies, 2 * kept);
            store_close(&f);
        }
}

/* Without a backward nothing leaves, and no layer waits; nor does what lies below the lowest layer whose backward comes. */
static void only_for_backward(void **state)
{
    struct fixture f;
    struct act_policy policy = apart;
    (void)state;
    store_open(&f, MEM_DEVICE, &policy);
    walk(&f, false);
    expect(" F0 F1 F2 F3 F4");
    store_close(&f);
    policy.lowest = 2;
    store_open(&f, MEM_DEVICE, &policy);
    assert_int_equal(act_offloaded(&f.a), 1);
    walk(&f, true);
    expect(" F0 F1 F2 s!0 out?0 out:2→384 out!1 F3 s?1 F4 B4 s!0 in?0 in:2←384 in!2 B3 s?2 B2");
    store_close(&f);
}

/* Where host and device are one, or the model is no deeper than the ring, nothing is copied; there, nothing is opened either. */
static void not_here(void **state)
{
    struct fixture f;
    (void)state;
    store_open(&f, MEM_HOST, &apart);
    assert_int_equal(seen.streams + seen.events, 0);
    assert_int_equal(act_offloaded(&f.a), 0);
    assert_int_equal(f.plan.arena[PLAN_OFFLOADED].used, 0);
    assert_int_equal(f.plan.arena[PLAN_ACTIVATIONS].used, LAYERS * X_BYTES);
    walk(&f, true);
    expect(" F0 F1 F2 F3 F4 B4 B3 B2 B1 B0");
    store_close(&f);
}

/* A tiled slot has room for a tile, on the lowest rung too, and nobody finds it there; others are looked at a tile at a time. */
static void tiles(void **state)
{
    enum { WHOLE, TILED, COLUMNS, N };
    static const struct act_slot some[N] = {{"whole", 8, 0, DT_F32, ACT_RUNG_BLOCK, WHOLE, 0, false},
                                            {"tiled", 8, 8, DT_F32, ACT_RUNG_BLOCK, TILED, 0, true},
                                            {"columns", 4, 0, DT_F32, ACT_RUNG_BLOCK, TILED, 2, true}};
    struct backend be = noting(MEM_HOST);
    (void)state;
    for (int64_t tile = 3; tile < 2 * CAPACITY; tile += CAPACITY) {
        int64_t most = tile < CAPACITY ? tile : CAPACITY;
        struct act_store a;
        struct plan plan;
        struct act_policy policy = {ACT_RUNG_NONE, 0, false, false, 0, tile};
        MUST(act_store_init(&a, &be, some, N, LAYERS, CAPACITY, &policy));
        plan_init(&plan, &be, BUDGET_NONE);
        for (int pass = 0; pass < 2; pass++) {
            act_store_layout(&a, &plan.arena[PLAN_ACTIVATIONS], &plan.arena[PLAN_SCRATCH], &plan.arena[PLAN_OFFLOADED]);
            if (pass) break;
            assert_int_equal(plan.arena[PLAN_ACTIVATIONS].used, LAYERS * CAPACITY * 8 * 4);
            assert_int_equal(plan.arena[PLAN_SCRATCH].used, most * 16 * 4);
            MUST(plan_bind(&plan));
        }
        act_begin(&a, TOKENS, true);
        act_written(&a, 1, 1 << WHOLE | 1 << TILED);
        assert_int_equal(act_missing(&a, 1), 1 << TILED);
        tensor all = act(&a, 1, WHOLE);
        assert_int_equal(all.dim[0], TOKENS);
        act_look(&a, 3, 2);
        tensor rows = act(&a, 1, WHOLE), own = act(&a, 1, TILED), columns = act(&a, 4, COLUMNS);
        assert_true(rows.dim[0] == 2 && own.dim[0] == 2 && columns.dim[0] == 2 && columns.dim[1] == 4 && columns.ld == 16);
        assert_ptr_equal(rows.data, (float *)all.data + 3 * 8);
        assert_ptr_equal(own.data, a.shared[TILED]);
        assert_ptr_equal(columns.data, (float *)own.data + 2);
        act_begin(&a, TOKENS, true);
        assert_int_equal(act(&a, 1, WHOLE).dim[0], TOKENS);
        act_store_release(&a);
        plan_release(&plan);
    }
}

static void places(void **state)
{
    static const struct {
        enum act_rung rung;
        int64_t every;
        size_t kept, scratch, offloaded;
    } rows[] = {
        {ACT_RUNG_NONE, 0, 2 * (X_BYTES + Q_BYTES + N1_BYTES), 0, 3 * (X_BYTES + Q_BYTES + N1_BYTES)},
        {ACT_RUNG_PRODUCTS, 0, 2 * (X_BYTES + Q_BYTES), N1_BYTES, 3 * (X_BYTES + Q_BYTES)},
        {ACT_RUNG_BLOCK, 0, 2 * X_BYTES, Q_BYTES + N1_BYTES, 3 * X_BYTES},
        /* Layers 1 and 3 are recomputed: no other layer has their place of q. */
        {ACT_RUNG_BLOCK, 2, 2 * X_BYTES + Q_BYTES, Q_BYTES + N1_BYTES, 3 * X_BYTES + 2 * Q_BYTES},
        {ACT_RUNG_BLOCK, 3, 2 * (X_BYTES + Q_BYTES), Q_BYTES + N1_BYTES, 3 * X_BYTES + 2 * Q_BYTES},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fixture f;
        struct act_policy policy = {rows[i].rung, rows[i].every, true, true, 0, 0};
        store_open(&f, MEM_DEVICE, &policy);
        assert_int_equal(f.plan.arena[PLAN_ACTIVATIONS].used, rows[i].kept);
        assert_int_equal(f.plan.arena[PLAN_SCRATCH].used, rows[i].scratch);
        assert_int_equal(f.plan.arena[PLAN_OFFLOADED].used, rows[i].offloaded);
        act_begin(&f.a, TOKENS, true);
        for (int64_t l = 0; l + 1 < LAYERS; l++) {
            tensor x = act(&f.a, l, X), next = act(&f.a, l + 1, X), q = act(&f.a, l, Q), qa = act(&f.a, l, QA);
            assert_ptr_not_equal(x.data, next.data);
            if (l + ACT_PLACES < LAYERS) assert_ptr_equal(x.data, act(&f.a, l + ACT_PLACES, X).data);
            assert_ptr_equal((char *)q.data + 4 * 2, qa.data);
            assert_int_equal(act_missing(&f.a, l) >> Q & 1, f.a.rung[l] >= ACT_RUNG_BLOCK);
        }
        store_close(&f);
    }
}

/* What a layer has written is there again in its backward, although others have had its place; a shorter micro-batch as well. */
static void values(void **state)
{
    struct fixture f;
    struct act_policy policy = apart;
    (void)state;
    policy.rung = ACT_RUNG_PRODUCTS;
    store_open(&f, MEM_DEVICE, &policy);
    for (int64_t tokens = CAPACITY; tokens > 0; tokens -= 3) {
        act_begin(&f.a, tokens, true);
        size_t x = (size_t)tokens * 16 * 4, q = (size_t)tokens * 16 * 2;
        for (int64_t l = 0; l < LAYERS; l++) {
            MUST(act_enter(&f.a, &f.s, l, PHASE_FORWARD));
            memset(act(&f.a, l, X).data, (int)(10 * tokens + l), x);
            memset(act(&f.a, l, Q).data, (int)(10 * tokens + l + 100), q);
            MUST(act_leave(&f.a, &f.s, l, PHASE_FORWARD));
        }
        for (int64_t l = LAYERS - 1; l >= 0; l--) {
            MUST(act_enter(&f.a, &f.s, l, PHASE_BACKWARD));
            const unsigned char *has_x = act(&f.a, l, X).data, *has_q = act(&f.a, l, Q).data;
            for (size_t i = 0; i < x; i++) assert_int_equal(has_x[i], (unsigned char)(10 * tokens + l));
            for (size_t i = 0; i < q; i++) assert_int_equal(has_q[i], (unsigned char)(10 * tokens + l + 100));
            memset(act(&f.a, l, Q).data, 0, q); /* backward writes gradients over it */
            MUST(act_leave(&f.a, &f.s, l, PHASE_BACKWARD));
        }
    }
    store_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queued),   cmocka_unit_test(on_one_stream), cmocka_unit_test(a_layer_ahead), cmocka_unit_test(only_for_backward),
        cmocka_unit_test(not_here), cmocka_unit_test(tiles),         cmocka_unit_test(places),        cmocka_unit_test(values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
