/* What a micro-batch says of its documents: their numbers on a backend that takes any, bounds in few classes on one that wants few
 * different calls; the arrays hold the same documents in both. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "worker/batch.h"
#include "worker/memory/plan.h"

#define MUST(call) assert_int_equal(call, ST_OK)

static const struct batch_bounds bounds = {.tokens = 400, .docs = 11, .doc_tokens = 200, .supervised = 400};

struct filled {
    struct backend be;
    struct stream *s;
    struct plan plan;
    struct batcher b;
};

static void lay(struct filled *f, const struct batch_bounds *n)
{
    batcher_layout(&f->b, n, &f->plan.arena[PLAN_BATCH], &f->plan.arena[PLAN_STAGING]);
}

static void open_batcher(struct filled *f, int64_t unit, const struct batch_bounds *n)
{
    memset(f, 0, sizeof *f);
    f->be = backend_cpu;
    f->be.token_unit = unit;
    MUST(f->be.dev.stream_open(&f->s, 1));
    f->s->be = &f->be;
    plan_init(&f->plan, &f->be);
    MUST(batcher_init(&f->b, f->s, f->s));
    lay(f, n);
    MUST(plan_bind(&f->plan));
    lay(f, n);
}

static void close_batcher(struct filled *f)
{
    batcher_release(&f->b);
    plan_release(&f->plan);
    f->be.dev.stream_close(f->s);
}

/* Documents of these lengths up to a 0, every token of which is supervised but the first. */
static const struct docs *fill(struct filled *f, const int *lengths)
{
    static int32_t ids[400], labels[400];
    for (int i = 0; i < 400; i++) ids[i] = labels[i] = i % 50;
    labels[0] = -100;
    MUST(batch_next(&f->b, NULL));
    for (int i = 0; lengths[i]; i++) batch_append(&f->b, ids, labels, lengths[i], 0, 7 + i);
    MUST(batch_send(&f->b));
    return &f->b.batch.docs;
}

static const struct row {
    int lengths[12];
    int64_t docs, longest; /* the classes */
} rows[] = {
    {{0}, 0, 0},
    {{77, 0}, 1, 77},
    {{200, 0}, 1, 200},
    {{3, 5, 0}, 2, 128},
    {{3, 5, 2, 0}, 4, 128},
    {{100, 129, 2, 0}, 4, 200},
    {{9, 9, 9, 9, 9, 0}, 8, 128},
    {{1, 2, 3, 4, 5, 6, 7, 8, 9, 0}, 11, 128},
    {{200, 200, 0}, 2, 200},
    {{200, 199, 0}, 2, 200},
    {{150, 150, 0}, 2, 200},
};
enum { ROWS = sizeof rows / sizeof *rows };

static void classes(void **state)
{
    (void)state;
    for (int i = 0; i < ROWS; i++) {
        struct filled exact, wide;
        open_batcher(&exact, 1, &bounds);
        open_batcher(&wide, 2, &bounds);
        const struct docs *a = fill(&exact, rows[i].lengths), *b = fill(&wide, rows[i].lengths);
        int64_t n = 0, longest = 0;
        for (; rows[i].lengths[n]; n++) longest = rows[i].lengths[n] > longest ? rows[i].lengths[n] : longest;
        assert_int_equal(a->n_docs, n);
        assert_int_equal(a->longest, longest);
        assert_int_equal(a->positions, longest);
        if (b->n_docs != rows[i].docs || b->longest != rows[i].longest)
            fail_msg("row %d: %d documents of up to %d tokens", i, (int)b->n_docs, (int)b->longest);
        assert_int_equal(b->positions, b->longest);
        assert_int_equal(a->n_tokens, b->n_tokens);
        assert_memory_equal(a->start.dev, b->start.dev, (size_t)(n + 1) * sizeof *a->start.dev);
        for (int64_t d = n; d <= b->n_docs; d++) assert_int_equal(b->start.dev[d], b->n_tokens);
        close_batcher(&exact), close_batcher(&wide);
    }
}

/* With a cache, documents have rows of it, and are few. */
static void with_a_cache(void **state)
{
    (void)state;
    struct filled f;
    struct batch_bounds cached = bounds;
    cached.cached = 11 * 200;
    open_batcher(&f, 64, &cached);
    const struct docs *d = fill(&f, (int[]){3, 5, 2, 0});
    assert_int_equal(d->n_docs, 3);
    assert_int_equal(d->n_tokens, 10);
    assert_int_equal(d->longest, 5);
    close_batcher(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(classes), cmocka_unit_test(with_a_cache)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
