/* Micro-batches of a backend that takes any, and of one that wants few different calls: there they are filled up, and say bounds of
 * their documents in few classes; the documents of the data are the same in both. */
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

enum { UNIT = 64, ANY = 1 };

static const struct batch_bounds bounds = {.tokens = 384, .docs = 11, .doc_tokens = 192, .supervised = 384};

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

static void open_batcher(struct filled *f, int64_t unit, const struct batch_bounds *of_data)
{
    const struct batch_bounds filled = batch_bounds_filled(*of_data, unit), *n = &filled;
    memset(f, 0, sizeof *f);
    f->be = backend_cpu;
    f->be.token_unit = unit;
    MUST(f->be.dev.stream_open(&f->s, 1));
    f->s->be = &f->be;
    plan_init(&f->plan, &f->be, BUDGET_NONE);
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
static const struct batch *fill(struct filled *f, const int *lengths)
{
    static int32_t ids[400], labels[400];
    for (int i = 0; i < 400; i++) ids[i] = labels[i] = 1 + i % 50;
    labels[0] = -100;
    MUST(batch_next(&f->b, NULL));
    for (int i = 0; lengths[i]; i++) batch_append(&f->b, ids, labels, lengths[i], 0, 7 + i);
    MUST(batch_send(&f->b));
    return &f->b.batch;
}

static const struct row {
    int lengths[12];
    int64_t tokens, docs, longest;
} rows[] = {
    {{0}, 0, 0, 0},
    {{64, 0}, 64, 1, 64},
    {{192, 0}, 192, 1, 192},
    {{77, 0}, 128, 2, 128},
    {{3, 5, 0}, 64, 4, 128},
    {{3, 5, 2, 54, 0}, 64, 4, 128},
    {{100, 129, 2, 0}, 256, 4, 192},
    {{9, 9, 9, 9, 9, 0}, 64, 8, 128},
    {{1, 2, 3, 4, 5, 6, 7, 8, 9, 0}, 64, 12, 128},
    {{192, 192, 0}, 384, 2, 192},
    {{192, 191, 0}, 384, 4, 192},
    {{100, 100, 0}, 256, 4, 128},
};
enum { ROWS = sizeof rows / sizeof *rows };

static void same_data(const struct batch *a, const struct batch *b)
{
    size_t tokens = (size_t)a->docs.n_tokens, supervised = (size_t)a->supervised;
    assert_int_equal(a->supervised, b->supervised);
    assert_memory_equal(a->docs.start.dev, b->docs.start.dev, (size_t)(a->docs.n_docs + 1) * 4);
    assert_memory_equal(a->ids, b->ids, tokens * 4);
    assert_memory_equal(a->docs.rows.position, b->docs.rows.position, tokens * 4);
    assert_memory_equal(a->docs.rows.sample, b->docs.rows.sample, tokens * 8);
    assert_memory_equal(a->rows, b->rows, supervised * 4);
    assert_memory_equal(a->labels, b->labels, supervised * 4);
    assert_memory_equal(a->rows_at.position, b->rows_at.position, supervised * 4);
    assert_memory_equal(a->rows_at.sample, b->rows_at.sample, supervised * 8);
}

/* What is behind the tokens of the data: documents no longer than any may be, and then empty ones. */
static void only_fills(const struct batch *b, int64_t docs, int64_t tokens, const struct batch_bounds *most)
{
    const struct docs *d = &b->docs;
    int64_t last = docs;
    assert_true(d->n_docs <= most->docs && d->n_tokens <= most->tokens && d->positions <= most->doc_tokens);
    assert_int_equal(d->start.dev[d->n_docs], d->n_tokens);
    assert_true(d->n_tokens - tokens < UNIT);
    for (int64_t i = docs; i < d->n_docs; i++) {
        int64_t n = d->start.dev[i + 1] - d->start.dev[i];
        assert_true(n >= 0 && n <= d->longest && n <= most->doc_tokens);
        assert_true(n || d->start.dev[i] == d->n_tokens);
        if (n) last = i + 1;
        for (int64_t t = d->start.dev[i]; t < d->start.dev[i + 1]; t++) {
            assert_int_equal(b->ids[t], 0);
            assert_int_equal(d->rows.position[t], t - d->start.dev[i]);
            assert_int_equal(d->rows.sample[t], -1);
        }
    }
    assert_true(last - docs <= (d->n_tokens - tokens + most->doc_tokens - 1) / most->doc_tokens);
}

static void few_classes(void **state)
{
    (void)state;
    for (int i = 0; i < ROWS; i++) {
        struct filled exact, few;
        open_batcher(&exact, ANY, &bounds);
        open_batcher(&few, UNIT, &bounds);
        const struct batch *a = fill(&exact, rows[i].lengths), *b = fill(&few, rows[i].lengths);
        int64_t n = 0, longest = 0, tokens = 0;
        for (; rows[i].lengths[n]; n++) {
            tokens += rows[i].lengths[n];
            if (rows[i].lengths[n] > longest) longest = rows[i].lengths[n];
        }
        assert_int_equal(a->docs.n_docs, n);
        assert_int_equal(a->docs.n_tokens, tokens);
        assert_int_equal(a->docs.longest, longest);
        assert_int_equal(a->docs.positions, longest);
        if (b->docs.n_tokens != rows[i].tokens || b->docs.n_docs != rows[i].docs || b->docs.longest != rows[i].longest)
            fail_msg("row %d: %d tokens, %d documents of up to %d", i, (int)b->docs.n_tokens, (int)b->docs.n_docs, (int)b->docs.longest);
        assert_int_equal(b->docs.positions, b->docs.longest);
        same_data(a, b);
        only_fills(b, n, tokens, &few.b.bounds);
        close_batcher(&exact), close_batcher(&few);
    }
}

/* Rows so short that what fills a batch up takes several documents, whatever was there before. */
static void short_rows(void **state)
{
    (void)state;
    static const struct batch_bounds three = {.tokens = 30, .docs = 3, .doc_tokens = 10, .supervised = 30};
    for (int n = 1; n <= 30; n++) {
        struct filled f;
        int lengths[4] = {n < 10 ? n : 10, n < 10 ? 0 : n < 20 ? n - 10 : 10, n < 20 ? 0 : n - 20, 0};
        int docs = 0;
        while (lengths[docs]) docs++;
        open_batcher(&f, UNIT, &three);
        const struct batch *b = fill(&f, lengths);
        assert_int_equal(b->docs.n_tokens, UNIT);
        assert_int_equal(b->docs.longest, 10);
        only_fills(b, docs, n, &f.b.bounds);
        close_batcher(&f);
    }
}

/* With a cache, documents have rows of it, and are few. */
static void with_a_cache(void **state)
{
    (void)state;
    struct filled f;
    struct batch_bounds cached = bounds;
    cached.cached = 11 * 192;
    open_batcher(&f, UNIT, &cached);
    assert_memory_equal(&f.b.bounds, &cached, sizeof cached);
    const struct docs *d = &fill(&f, (int[]){3, 5, 2, 0})->docs;
    assert_int_equal(d->n_docs, 3);
    assert_int_equal(d->n_tokens, 10);
    assert_int_equal(d->longest, 5);
    close_batcher(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(few_classes), cmocka_unit_test(short_rows), cmocka_unit_test(with_a_cache)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
