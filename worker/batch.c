#include "worker/batch.h"

#include <string.h>

enum { NO_SAMPLE = -1 }; /* of what fills a batch up */

struct batch_bounds batch_bounds_of(const struct dataset *d, int64_t n)
{
    return (struct batch_bounds){.tokens = dataset_longest(d, n),
                                 .docs = dataset_most_documents(d, n),
                                 .doc_tokens = dataset_longest_document(d),
                                 .supervised = dataset_most_supervised(d, n)};
}

status batch_bounds_told(const struct config *cfg, struct batch_bounds *out)
{
    int64_t length = cfg->tokenizer.max_seq_len, n = cfg->batch_size;
    if (length <= 0)
        FAIL(ST_USAGE, "how long are the rows? Give --data FILE, or tokenizer.max_seq_len=N to plan for rows of N tokens each");
    if (length > INT32_MAX / n)
        FAIL(ST_USAGE, "tokenizer.max_seq_len: %lld rows of %lld tokens each are more than the %d that a micro-batch may have",
             (long long)n, (long long)length, INT32_MAX);
    *out = (struct batch_bounds){.tokens = n * length, .docs = n, .doc_tokens = length, .supervised = n * length};
    return ST_OK;
}

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

struct batch_bounds batch_bounds_max(struct batch_bounds a, struct batch_bounds b)
{
    return (struct batch_bounds){max64(a.tokens, b.tokens), max64(a.docs, b.docs), max64(a.doc_tokens, b.doc_tokens),
                                 max64(a.supervised, b.supervised), max64(a.cached, b.cached)};
}

struct batch_bounds batch_bounds_filled(struct batch_bounds b, int64_t unit)
{
    if (unit <= 1 || b.cached || !b.doc_tokens) return b;
    b.tokens = (b.tokens + unit - 1) / unit * unit;
    b.docs += (unit - 1 + b.doc_tokens - 1) / b.doc_tokens;
    return b;
}

/* ---- slots -------------------------------------------------------------------------------------------------------------- */

status batcher_init(struct batcher *b, struct stream *compute, struct stream *copy_in)
{
    *b = (struct batcher){.be = compute->be, .compute = compute, .copy_in = copy_in, .turn = 1};
    for (int i = 0; i < 2; i++) {
        TRY(b->be->dev.event_open(&b->slot[i].arrived));
        TRY(b->be->dev.event_open(&b->slot[i].read));
    }
    return ST_OK;
}

void batcher_release(struct batcher *b)
{
    for (int i = 0; b->be && i < 2; i++) {
        b->be->dev.event_close(b->slot[i].arrived);
        b->be->dev.event_close(b->slot[i].read);
    }
    *b = (struct batcher){0};
}

/* Places of a side's arrays behind `base` (NULL: offsets only). Returns its bytes. */
static size_t place(struct batch_arrays *a, const struct batch_bounds *n, char *base)
{
    size_t at = 0;
    const struct {
        void *where;
        int64_t count;
        size_t size;
        bool used;
    } rows[] = {
        {&a->sample, n->tokens, 8, true},
        {&a->row_sample, n->supervised, 8, true},
        {&a->ids, n->tokens, 4, true},
        {&a->position, n->tokens, 4, true},
        {&a->start, n->docs + 1, 4, true},
        {&a->rows, n->supervised, 4, true},
        {&a->labels, n->supervised, 4, true},
        {&a->row_position, n->supervised, 4, true},
        {&a->past, n->docs, 4, n->cached > 0},
        {&a->key_start, n->docs, 4, n->cached > 0},
        {&a->cache_rows, n->tokens, 4, n->cached > 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        void *here = base && rows[i].used ? base + at : NULL;
        memcpy(rows[i].where, &here, sizeof here);
        if (rows[i].used) at += ((size_t)rows[i].count * rows[i].size + 63) / 64 * 64;
    }
    return at;
}

void batcher_layout(struct batcher *b, const struct batch_bounds *n, struct arena *device, struct arena *staging)
{
    bool apart = b->be->tensors_in == MEM_DEVICE;
    b->bounds = *n;
    for (int i = 0; i < 2; i++) {
        struct batch_slot *s = &b->slot[i];
        s->bytes = place(&s->host, n, NULL);
        s->host_at = arena_take(staging, s->bytes, "micro-batch");
        s->dev_at = apart ? arena_take(device, s->bytes, "micro-batch") : s->host_at;
        place(&s->host, n, s->host_at);
        place(&s->dev, n, s->dev_at);
    }
}

/* Two batches ahead of the device the host waits: nothing else holds it back. */
status batch_next(struct batcher *b, struct batch_arrays **host)
{
    b->turn = !b->turn;
    struct batch_slot *s = &b->slot[b->turn];
    const struct batch_arrays *h = &s->host, *d = &s->dev;
    if (!b->be->dev.event_done(s->arrived)) TRY(b->be->dev.event_sync(s->arrived, "batch sent"));
    b->batch = (struct batch){.docs = {.start = {h->start, d->start}, .past = {h->past, d->past}, .rows = {d->position, d->sample}},
                              .ids = d->ids,
                              .rows = d->rows,
                              .labels = d->labels,
                              .rows_at = {d->row_position, d->row_sample},
                              .key_start = {h->key_start, d->key_start},
                              .cache_rows = d->cache_rows};
    h->start[0] = 0;
    if (host) *host = &s->host;
    return ST_OK;
}

void batch_append(struct batcher *b, const int32_t *ids, const int32_t *labels, int64_t n, int64_t past, int64_t sample)
{
    struct batch_arrays *h = &b->slot[b->turn].host;
    struct docs *g = &b->batch.docs;
    int64_t at = g->n_tokens, fresh = n - past, cache_row = g->n_docs * b->bounds.doc_tokens;
    if (h->past) {
        h->past[g->n_docs] = (int32_t)past;
        h->key_start[g->n_docs] = (int32_t)cache_row;
    }
    for (int64_t t = 0; t < fresh; t++) {
        if (h->past) h->cache_rows[at + t] = (int32_t)(cache_row + past + t);
        h->ids[at + t] = ids ? ids[past + t] : 0;
        h->position[at + t] = (int32_t)(past + t);
        h->sample[at + t] = sample;
        if (!labels || labels[past + t] < 0) continue;
        int64_t row = b->batch.supervised++;
        h->rows[row] = (int32_t)(at + t);
        h->labels[row] = labels[past + t];
        h->row_position[row] = (int32_t)(past + t);
        h->row_sample[row] = sample;
    }
    g->n_tokens += fresh;
    g->longest = max64(g->longest, fresh);
    g->positions = max64(g->positions, n);
    h->start[++g->n_docs] = (int32_t)g->n_tokens;
}

static void fill_up(struct batcher *b)
{
    int64_t unit = b->be->token_unit, after = unit > 1 ? b->batch.docs.n_tokens % unit : 0;
    if (b->slot[b->turn].host.past) return;
    for (int64_t left = after ? unit - after : 0, n; left > 0; left -= n) {
        n = min64(left, b->bounds.doc_tokens);
        batch_append(b, NULL, NULL, n, 0, NO_SAMPLE);
    }
}

static void widen(struct batcher *b)
{
    const struct batch_bounds *most = &b->bounds;
    struct docs *g = &b->batch.docs;
    struct batch_arrays *h = &b->slot[b->turn].host;
    bool full = g->n_tokens == most->tokens && g->longest == most->doc_tokens && g->n_docs * g->longest == g->n_tokens;
    if (b->be->token_unit <= 1 || h->past || g->n_docs <= 1 || full) return;
    int64_t docs = min64(docs_class(g->n_docs), most->docs);
    while (g->n_docs < docs) h->start[++g->n_docs] = (int32_t)g->n_tokens;
    g->longest = g->positions = min64(tokens_class(g->longest), most->doc_tokens);
}

/* All that compute has been given so far read the other slot: this one is read until then at most. */
status batch_send(struct batcher *b)
{
    const struct device *dev = &b->be->dev;
    struct batch_slot *s = &b->slot[b->turn], *other = &b->slot[!b->turn];
    fill_up(b);
    widen(b);
    if (s->dev_at == s->host_at) return ST_OK;
    TRY(dev->event_record(other->read, b->compute));
    TRY(dev->event_wait(s->read, b->copy_in, "batch read"));
    TRY(dev->copy(b->copy_in, s->dev_at, s->host_at, s->bytes));
    TRY(dev->event_record(s->arrived, b->copy_in));
    return dev->event_wait(s->arrived, b->compute, "batch arrived");
}

/* ---- items -------------------------------------------------------------------------------------------------------------- */

static int64_t clip(const struct item_order *o, int64_t first, int64_t n)
{
    int64_t items = dataset_items(o->data);
    return first >= items ? 0 : first + n > items ? items - first : n;
}

static int64_t documents(const struct item_order *o, int64_t position, const struct document **docs)
{
    return dataset_item(o->data, dataset_order(o->data, o->seed, o->shuffle, o->epoch, position), docs);
}

status batch_fill(struct batcher *b, const struct item_order *order, int64_t first, int64_t n)
{
    TRY(batch_next(b, NULL));
    n = clip(order, first, n);
    for (int64_t i = 0; i < n; i++) {
        const struct document *docs;
        int64_t n_docs = documents(order, first + i, &docs);
        for (int64_t d = 0; d < n_docs; d++) batch_append(b, docs[d].ids, docs[d].labels, docs[d].n, 0, docs[d].sample);
    }
    return batch_send(b);
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
