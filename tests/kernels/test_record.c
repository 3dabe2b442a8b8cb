/* The recorder over a backend that only notes what reaches it: what is queued, in which order, and as what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/text.h"
#include "kernels/record.h"

#define OK(call) assert_int_equal(call, ST_OK)

/* ---- a backend that takes notes --------------------------------------------------------------------------------------------- */

struct graph {
    char text[4096];
};

static struct {
    char text[1 << 14];      /* what has been queued, in order: a letter each */
    struct graph *capturing; /* … into this */
    int made, closed;
    const char *fails; /* "graph_begin", "graph_end", or what noted() is told */
} note;

static status noted(const char *what)
{
    char *to = note.capturing ? note.capturing->text : note.text;
    size_t room = note.capturing ? sizeof note.capturing->text : sizeof note.text;
    if (note.fails && !strcmp(note.fails, what)) FAIL(ST_DEVICE, "%s failed", what);
    assert_true(strlen(to) + strlen(what) < room);
    strcat(to, what);
    return ST_OK;
}

static status note_axpy(struct stream *s, const struct axpy_args *a)
{
    assert_false(s->recorded);
    return noted(a->scale == 1 ? "a" : "b");
}
static status note_rope(struct stream *s, const struct rope_args *a) { return (void)s, assert_int_equal(a->positions, 0), noted("r"); }
static status note_attn(struct stream *s, const struct attn_fwd_args *a)
{
    (void)s;
    assert_null(a->docs.start.host);
    assert_null(a->docs.past.host);
    assert_null(a->key_start.host);
    assert_non_null(a->docs.start.dev);
    return noted("t");
}
static status note_copy(struct stream *s, void *dst, const void *src, size_t n)
{
    return (void)s, (void)dst, (void)src, (void)n, noted("c");
}
static status note_zero(struct stream *s, void *dst, size_t n) { return (void)s, (void)dst, (void)n, noted("z"); }
static status note_record(struct event *e, struct stream *s) { return (void)e, noted(s->recorder ? "E" : "e"); }
static status note_wait(struct event *e, struct stream *s, const char *label) { return (void)e, (void)s, (void)label, noted("W"); }
static status note_call(struct stream *s, status (*fn)(void *), void *arg) { return (void)s, (void)fn, (void)arg, noted("H"); }
static status note_sync(struct stream *s, const char *label) { return (void)s, (void)label, noted("S"); }

static status note_begin(struct stream *s)
{
    assert_false(s->recorded);
    if (note.fails && !strcmp(note.fails, "graph_begin")) FAIL(ST_DEVICE, "graph_begin failed");
    assert_null(note.capturing);
    note.capturing = calloc(1, sizeof *note.capturing);
    return ST_OK;
}

static status note_end(struct stream *s, struct graph **out)
{
    struct graph *g = note.capturing;
    (void)s;
    assert_non_null(g);
    note.capturing = NULL;
    *out = NULL;
    if (note.fails && !strcmp(note.fails, "graph_end")) {
        free(g);
        FAIL(ST_OOM, "graph_end failed");
    }
    note.made++;
    *out = g;
    return ST_OK;
}

static status note_launch(struct graph *g, struct stream *s)
{
    (void)s;
    TRY(noted("<"));
    strcat(note.text, g->text);
    return noted(">");
}

static void note_close(struct graph *g)
{
    note.closed++;
    free(g);
}

static const struct backend notes = {.name = "notes",
                                     .tensors_in = MEM_DEVICE,
                                     .ops = {.axpy = note_axpy, .rope = note_rope, .attn_fwd = note_attn},
                                     .dev = {.copy = note_copy,
                                             .zero = note_zero,
                                             .event_record = note_record,
                                             .event_wait = note_wait,
                                             .host_call = note_call,
                                             .sync = note_sync,
                                             .graph_begin = note_begin,
                                             .graph_end = note_end,
                                             .graph_launch = note_launch,
                                             .graph_close = note_close}};

/* ---- calls ------------------------------------------------------------------------------------------------------------------ */

static struct stream compute, other;
static struct recorder *r;
static struct arena arena;
static void *memory;
static char place[1 << 16];

static int set_up(void **state)
{
    (void)state;
    memset(&note, 0, sizeof note);
    compute = other = (struct stream){.be = &notes};
    OK(record_open(&r, &compute));
    arena_init(&arena, "host");
    record_layout(r, &arena);
    memory = mem_alloc(arena_need(&arena));
    memset(memory, 0xa5, arena_need(&arena)); /* an arena promises nothing */
    arena_bind(&arena, memory);
    record_layout(r, &arena);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    record_close(r);
    assert_int_equal(note.made, note.closed);
    assert_null(compute.recorder);
    assert_ptr_equal(compute.be, &notes);
    arena_release(&arena);
    free(memory);
    return 0;
}

static status axpy(int64_t n, float scale)
{
    tensor t = tensor_1d(place, DT_F32, n);
    return op_axpy(&compute, &(struct axpy_args){.x = t, .y = t, .scale = scale});
}

static status zero(void) { return compute.be->dev.zero(&compute, place, 64); }

/* "aaz" of a stretch: n is what tells it from others. What reached the backend since the last one. */
static const char *stretch(int64_t n)
{
    note.text[0] = '\0';
    record_begin(&compute);
    OK(axpy(n, 1));
    OK(axpy(n, 2));
    OK(zero());
    assert_string_equal(note.text, "");
    OK(record_end(&compute, ST_OK));
    return note.text;
}

static void the_second_time_it_is_a_graph(void **state)
{
    (void)state;
    assert_string_equal(stretch(8), "abz");
    assert_string_equal(stretch(9), "abz");
    assert_string_equal(stretch(8), "<abz>");
    assert_string_equal(stretch(8), "<abz>");
    assert_string_equal(stretch(10), "abz");
    assert_string_equal(stretch(9), "<abz>");
    struct record_counts n = record_counts(r);
    assert_int_equal(n.stretches, 6);
    assert_int_equal(n.calls, 18);
    assert_int_equal(n.pieces, 6);
    assert_int_equal(n.launched, 3);
    assert_int_equal(n.made, 2);
    assert_int_equal(n.plain, 3);
    assert_int_equal(note.made, 2);
}

static void nothing_is_recorded_without_one(void **state)
{
    (void)state;
    struct axpy_args a = {.x = tensor_1d(place, DT_F32, 4), .y = tensor_1d(place, DT_F32, 4), .scale = 1};
    for (int i = 0; i < 4; i++) {
        record_begin(&other);
        OK(op_axpy(&other, &a));
        assert_int_equal(strlen(note.text), i + 1);
        OK(record_end(&other, ST_OK));
    }
    assert_int_equal(record_end(&other, ST_OOM), ST_OOM);
    assert_string_equal(note.text, "aaaa");
}

static void a_single_call_is_no_graph(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        record_begin(&compute);
        OK(zero());
        OK(compute.be->dev.copy(&compute, place, place, 0)); /* is nothing */
        OK(record_end(&compute, ST_OK));
    }
    assert_string_equal(note.text, "zzzz");
}

/* ---- what makes two stretches one --------------------------------------------------------------------------------------------- */

struct packed {
    int32_t start[3], keys[2];
};

static struct attn_fwd_args attention(const struct packed *host)
{
    static const struct packed there = {{0, 3, 8}, {0, 8}};
    tensor q = tensor_2d(place, DT_F32, 8, 8), lse = tensor_2d(place, DT_F32, 8, 2);
    return (struct attn_fwd_args){.q = q,
                                  .k = tensor_2d(place, DT_F32, 16, 8),
                                  .v = tensor_2d(place, DT_F32, 16, 8),
                                  .o = q,
                                  .lse = lse,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .head_dim = 4,
                                  .scale = 1,
                                  .docs = {.n_docs = 2, .n_tokens = 8, .longest = 5, .positions = 5, .start = {host->start, there.start}},
                                  .key_start = {host->keys, there.keys}};
}

static const char *attends(const struct attn_fwd_args *a)
{
    note.text[0] = '\0';
    record_begin(&compute);
    OK(op_attn_fwd(&compute, a));
    OK(zero());
    OK(record_end(&compute, ST_OK));
    return note.text;
}

static void host_twins_are_judged_and_left_out(void **state)
{
    (void)state;
    struct packed one = {{0, 3, 8}, {0, 8}}, two = {{0, 5, 8}, {0, 8}}, bad = {{0, 3, 9}, {0, 8}};
    struct attn_fwd_args a = attention(&one), b = attention(&two), wrong = attention(&bad), longer = a;
    assert_string_equal(attends(&a), "tz");
    assert_string_equal(attends(&b), "<tz>"); /* other documents, where the same array says so */
    record_begin(&compute);
    assert_int_equal(op_attn_fwd(&compute, &wrong), ST_SHAPE);
    OK(record_end(&compute, ST_OK));
    longer.docs.longest = 6;
    assert_string_equal(attends(&longer), "tz");
    static const int32_t elsewhere[3] = {0, 3, 8};
    a.docs.start.dev = elsewhere;
    assert_string_equal(attends(&a), "tz");
}

static const char *rotates(int64_t positions, const int32_t *at)
{
    note.text[0] = '\0';
    tensor table = tensor_2d(place, DT_F32, 16, 2);
    record_begin(&compute);
    OK(op_rope(&compute, &(struct rope_args){.q = tensor_2d(place, DT_F32, 8, 4),
                                             .cos = table,
                                             .sin = table,
                                             .heads = 1,
                                             .kv_heads = 1,
                                             .head_dim = 4,
                                             .positions = positions,
                                             .rows = {.position = at}}));
    OK(zero());
    OK(record_end(&compute, ST_OK));
    return note.text;
}

static void what_only_the_door_reads_is_left_out(void **state)
{
    (void)state;
    static const int32_t here[8], there[8];
    assert_string_equal(rotates(7, here), "rz");
    assert_string_equal(rotates(9, here), "<rz>");
    assert_string_equal(rotates(7, there), "rz");
}

/* Two sets of arguments with the same members and other bytes between them. */
static void padding_is_no_difference(void **state)
{
    (void)state;
#ifdef __has_builtin
#if __has_builtin(__builtin_clear_padding)
    tensor t = tensor_1d(place, DT_F32, 4);
    for (int i = 0; i < 2; i++) {
        struct axpy_args a;
        memset(&a, i ? 0x5a : 0xa5, sizeof a);
        a.x = a.y = t;
        a.scale = 1;
        a.accumulate = true;
        record_begin(&compute);
        OK(op_axpy(&compute, &a));
        OK(zero());
        OK(record_end(&compute, ST_OK));
    }
    assert_string_equal(note.text, "az<az>");
    return;
#endif
#endif
    skip();
}

/* Two lists that differ in the last call only, far behind the first block of their bytes. */
static void the_last_byte_counts(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++)
        for (int last = 1; last <= 2; last++) {
            note.text[0] = '\0';
            record_begin(&compute);
            for (int i = 0; i < 40; i++) OK(axpy(4, 1));
            OK(axpy(4, (float)last));
            OK(record_end(&compute, ST_OK));
            size_t n = strlen(note.text);
            assert_int_equal(note.text[n - 1 - (round > 0)], last == 1 ? 'a' : 'b');
        }
    assert_int_equal(record_counts(r).made, 2);
}

/* ---- what ends a piece -------------------------------------------------------------------------------------------------------------- */

static void others_come_behind_what_is_written_down(void **state)
{
    (void)state;
    static const char *const EXPECTED[] = {"abEabWHzbSeaz", "<ab>E<ab>WH<zb>Se<az>", "<ab>E<ab>WH<zb>Se<az>"};
    for (int i = 0; i < 3; i++) {
        note.text[0] = '\0';
        record_begin(&compute);
        const struct device *dev = &compute.be->dev;
        OK(axpy(4, 1));
        OK(axpy(4, 2));
        OK(dev->event_record(NULL, &compute));
        OK(axpy(4, 1));
        OK(axpy(4, 2));
        OK(dev->event_wait(NULL, &compute, "something"));
        OK(dev->host_call(&compute, NULL, NULL));
        OK(zero());
        OK(axpy(4, 2));
        OK(dev->sync(&compute, "all"));
        OK(dev->event_record(NULL, &other)); /* another stream's, at once */
        OK(axpy(4, 1));
        OK(zero());
        OK(record_end(&compute, ST_OK));
        /* "ab" comes twice in the first round already */
        assert_string_equal(note.text, i ? EXPECTED[i] : "abE<ab>WHzbSeaz");
    }
    assert_int_equal(record_counts(r).stretches, 3);
    assert_int_equal(record_counts(r).pieces, 12);
}

static void a_long_stretch_is_cut(void **state)
{
    (void)state;
    enum { MANY = 4000 };
    for (int round = 0; round < 3; round++) {
        note.text[0] = '\0';
        record_begin(&compute);
        for (int i = 0; i < MANY; i++) OK(axpy(4 + i, 1));
        OK(record_end(&compute, ST_OK));
        int calls = 0;
        for (const char *c = note.text; *c; c++) calls += *c == 'a';
        assert_int_equal(calls, MANY);
    }
    struct record_counts n = record_counts(r);
    assert_true(n.pieces > 3);
    assert_int_equal(n.pieces % 3, 0);
    assert_int_equal(n.launched, n.pieces / 3 * 2);
}

/* ---- failures ------------------------------------------------------------------------------------------------------------------------ */

static status failing_stretch(int64_t n)
{
    note.text[0] = '\0';
    record_begin(&compute);
    OK(axpy(n, 1));
    OK(axpy(n, 2));
    return record_end(&compute, ST_OK);
}

static void failures_are_passed_on(void **state)
{
    (void)state;
    static const struct {
        const char *fails, *said;
        status code;
    } CASES[] = {{"graph_begin", "graph_begin failed", ST_DEVICE},
                 {"graph_end", "graph_end failed", ST_OOM},
                 {"b", "b failed", ST_DEVICE},
                 {"<", "< failed", ST_DEVICE}};
    for (int i = 0; i < (int)(sizeof CASES / sizeof *CASES); i++) {
        note.fails = NULL;
        OK(failing_stretch(100 + i));
        note.fails = CASES[i].fails;
        assert_int_equal(failing_stretch(100 + i), CASES[i].code);
        assert_string_equal(status_message(), CASES[i].said);
        assert_null(note.capturing);
        assert_ptr_equal(compute.be, &notes);
        note.fails = NULL;
        OK(failing_stretch(100 + i)); /* and nothing broken is kept */
        assert_string_equal(note.text, "<ab>");
    }
    note.fails = "a";
    assert_int_equal(failing_stretch(7), ST_DEVICE);
    assert_string_equal(note.text, "");
}

static void what_a_failed_stretch_wrote_is_dropped(void **state)
{
    (void)state;
    record_begin(&compute);
    OK(axpy(4, 1));
    assert_int_equal(op_axpy(&compute, &(struct axpy_args){.x = tensor_1d(place, DT_F32, 4), .y = tensor_1d(place, DT_F32, 5)}), ST_SHAPE);
    assert_int_equal(op_gemm(&compute, &(struct gemm_args){0}), ST_NOT_BUILT);
    assert_int_equal(record_end(&compute, ST_SHAPE), ST_SHAPE);
    assert_string_equal(note.text, "");
    assert_string_equal(stretch(4), "abz");
    assert_string_equal(stretch(4), "<abz>");
}

/* ---- what gives way -------------------------------------------------------------------------------------------------------------------- */

/* A cycle that is larger than the cache keeps what it has; what nobody asks for any more makes room. */
static void graphs_are_bounded(void **state)
{
    (void)state;
    enum { MORE = RECORD_GRAPHS + 50 };
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < MORE; i++) stretch(1 + i);
    struct record_counts n = record_counts(r);
    assert_int_equal(n.made, RECORD_GRAPHS);
    assert_int_equal(n.dropped, 0);
    assert_int_equal(n.launched, 3 * RECORD_GRAPHS);
    for (int i = 0; i < 5 * RECORD_GRAPHS; i++) stretch(1);
    for (int i = 0; i < 10; i++) assert_string_equal(stretch(MORE - i), "<abz>");
    n = record_counts(r);
    assert_int_equal(n.dropped, 10);
    assert_int_equal(note.made - note.closed, RECORD_GRAPHS);
    assert_string_equal(stretch(1), "<abz>");  /* in use all the time */
    assert_string_equal(stretch(12), "<abz>"); /* never asked for again, but younger than those that went */
    assert_string_equal(stretch(5), "<abz>");  /* one that went: seen before, made again */
    assert_int_equal(record_counts(r).dropped, 11);
}

static void bytes_are_bounded(void **state)
{
    (void)state;
    enum { LISTS = 300, CALLS = 600 };
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < LISTS; i++) {
            note.text[0] = '\0';
            record_begin(&compute);
            for (int k = 0; k < CALLS; k++) OK(axpy(1 + i, 1));
            OK(record_end(&compute, ST_OK));
        }
    int64_t made = record_counts(r).made;
    assert_in_range(made, 50, LISTS - 1);
    assert_int_equal(record_counts(r).plain, 2 * LISTS - made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_second_time_it_is_a_graph, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_recorded_without_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_single_call_is_no_graph, set_up, tear_down),
        cmocka_unit_test_setup_teardown(host_twins_are_judged_and_left_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_only_the_door_reads_is_left_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(padding_is_no_difference, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_last_byte_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(others_come_behind_what_is_written_down, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_long_stretch_is_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(failures_are_passed_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_a_failed_stretch_wrote_is_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(graphs_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bytes_are_bounded, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
