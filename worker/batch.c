#include "worker/batch.h"

struct batch_bounds batch_bounds_of(const struct dataset *d, int64_t n)
{
    return (struct batch_bounds){.tokens = dataset_longest(d, n), .docs = dataset_most_documents(d, n),
                                 .doc_tokens = dataset_longest_document(d), .supervised = dataset_most_supervised(d, n)};
}

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

struct batch_bounds batch_bounds_max(struct batch_bounds a, struct batch_bounds b)
{
    return (struct batch_bounds){max64(a.tokens, b.tokens), max64(a.docs, b.docs), max64(a.doc_tokens, b.doc_tokens),
                                 max64(a.supervised, b.supervised), max64(a.cached, b.cached)};
}

void batcher_layout(struct batcher *b, const struct batch_bounds *n, struct arena *a)
{
    b->ids = arena_take(a, (size_t)n->tokens * 4, "token ids");
    b->start = arena_take(a, (size_t)(n->docs + 1) * 4, "document offsets");
    b->sample = arena_take(a, (size_t)n->docs * 8, "document numbers");
    b->rows = arena_take(a, (size_t)n->supervised * 4, "supervised rows");
    b->labels = arena_take(a, (size_t)n->supervised * 4, "labels");
    if (!n->cached) return;
    b->past = arena_take(a, (size_t)n->docs * 4, "cached tokens");
    b->key_start = arena_take(a, (size_t)n->docs * 4, "cache offsets");
    b->cache_rows = arena_take(a, (size_t)n->tokens * 4, "cache rows");
}

static int64_t clip(const struct item_order *o, int64_t first, int64_t n)
{
    int64_t items = dataset_items(o->data);
    return first >= items ? 0 : first + n > items ? items - first : n;
}

static int64_t documents(const struct item_order *o, int64_t position, const struct document **docs)
{
    return dataset_item(o->data, dataset_order(o->data, o->seed, o->shuffle, o->epoch, position), docs);
}

static void append(struct batcher *b, const struct document *d)
{
    struct docs *g = &b->batch.docs;
    int32_t at = (int32_t)g->n_tokens;
    b->start[g->n_docs] = at;
    b->sample[g->n_docs++] = d->sample;
    for (int64_t t = 0; t < d->n; t++) {
        b->ids[at + t] = d->ids[t];
        if (d->labels[t] < 0) continue;
        b->rows[b->batch.supervised] = at + (int32_t)t;
        b->labels[b->batch.supervised++] = d->labels[t];
    }
    g->n_tokens += d->n;
    g->longest = max64(g->longest, d->n);
    b->start[g->n_docs] = (int32_t)g->n_tokens;
}

void batch_fill(struct batcher *b, const struct item_order *order, int64_t first, int64_t n)
{
    b->batch = (struct batch){.docs = {.start = b->start, .sample = b->sample}, .ids = b->ids, .rows = b->rows, .labels = b->labels};
    n = clip(order, first, n);
    for (int64_t i = 0; i < n; i++) {
        const struct document *docs;
        int64_t n_docs = documents(order, first + i, &docs);
        for (int64_t d = 0; d < n_docs; d++) append(b, &docs[d]);
    }
}

void batch_count(const struct item_order *order, int64_t first, int64_t n, int64_t *tokens, int64_t *supervised)
{
    *tokens = *supervised = 0;
    n = clip(order, first, n);
    for (int64_t i = 0; i < n; i++) {
        const struct document *docs;
        int64_t n_docs = documents(order, first + i, &docs);
        for (int64_t d = 0; d < n_docs; d++) {
            *tokens += docs[d].n;
            for (int64_t t = 0; t < docs[d].n; t++) *supervised += docs[d].labels[t] >= 0;
        }
    }
}
