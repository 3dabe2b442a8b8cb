/* Generation's key/value cache: documents brought in pieces, over several batches, give the residual stream that they give
 * whole. Pieces may be empty, as those of finished sequences are. */
#include "tests/model/trainer.h"

enum { PIECES = 3, WIDTH = 32, TOKENS = DOCS * 16 };

/* Runs [begin, end) of every document d, with begin = length·piece/pieces, and keeps the rows of x that come out. */
static void run_piece(struct tiny *t, const struct batch *whole, int piece, int pieces, double *x)
{
    static int32_t ids[TOKENS], start[DOCS + 1], past[DOCS], key_start[DOCS], cache_rows[TOKENS], from[TOKENS], position[TOKENS];
    struct docs docs = {.n_docs = DOCS, .start = {start, start}, .past = {past, past}, .rows = {position, NULL}};
    for (int d = 0; d < DOCS; d++) {
        int32_t first = whole->docs.start.host[d], length = whole->docs.start.host[d + 1] - first;
        int32_t end = length * (piece + 1) / pieces;
        past[d] = length * piece / pieces;
        key_start[d] = (int32_t)(d * t->m.bounds.doc_tokens);
        for (int32_t at = past[d]; at < end; at++, docs.n_tokens++) {
            ids[docs.n_tokens] = whole->ids[first + at];
            from[docs.n_tokens] = first + at;
            position[docs.n_tokens] = at;
            cache_rows[docs.n_tokens] = key_start[d] + at;
        }
        docs.longest = max_of(docs.longest, end - past[d]);
        docs.positions = max_of(docs.positions, end);
        start[d + 1] = (int32_t)docs.n_tokens;
    }
    struct batch batch = {.docs = docs, .ids = ids, .key_start = {key_start, key_start}, .cache_rows = cache_rows};
    MUST(model_forward(&(struct pass){.m = &t->m, .s = t->s, .batch = &batch}));
    tensor out, delta;
    block_out(&t->m, &out, &delta);
    for (int64_t i = 0; i < docs.n_tokens; i++)
        for (int64_t c = 0; c < WIDTH; c++) x[from[i] * WIDTH + c] = element(out, i * out.ld + c) + element(delta, i * delta.ld + c);
}

static double farthest(const struct way *w, const struct backend *be, dtype act)
{
    static struct corpus c;
    static double whole[TOKENS * WIDTH], pieces[TOKENS * WIDTH];
    struct tiny t;
    double worst = 0;
    corpus_make(&c, 1);
    c.bounds.cached = DOCS * c.bounds.doc_tokens;
    struct model_plan plan = plan_of(w);
    tiny_open(&t, w, &plan, &c, be, act, 1, false);
    memset(pieces, 0, sizeof pieces);
    run_piece(&t, &c.batch[0], 0, 1, whole);
    for (int p = 0; p < PIECES; p++) run_piece(&t, &c.batch[0], p, PIECES, pieces);
    for (int64_t i = 0; i < c.batch[0].docs.n_tokens * WIDTH; i++) worst = fmax(worst, fabs(whole[i] - pieces[i]) / (1 + fabs(whole[i])));
    tiny_close(&t);
    return worst;
}

/* The same sums of up to 13 keys and 44 products in another order, over three layers. */
static void pieces_are_the_whole(void **state)
{
    (void)state;
    for (int i = 0; i < N_WAYS; i++) {
        double exact = farthest(&ways[i], &backend_ref, DT_F64), single = farthest(&ways[i], &backend_cpu, DT_F32);
        if (exact > 1e-13) fail_msg("%s over the reference: off by %g", ways[i].name, exact);
        if (single > 1e-5) fail_msg("%s: off by %g", ways[i].name, single);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pieces_are_the_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
