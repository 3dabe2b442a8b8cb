/* dataset.c — building the documents and items, and answering for them. */
#include "worker/data/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <xxhash.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/team.h"
#include "kernels/base/text.h"
#include "worker/data/dataset_bad.h"
#include "worker/data/dataset_source.h"
#include "worker/data/dataset_store.h"
#include "worker/data/order.h"

enum { BATCH = 1024 }; /* rows rendered between two appends */

static void append(struct ids *a, const int32_t *v, size_t n)
{
    if (a->n + n > a->cap) {
        size_t cap = a->cap ? a->cap : 4096;
        while (cap < a->n + n) cap *= 2;
        a->v = mem_grow(a->v, cap * sizeof *a->v);
        a->cap = cap;
    }
    if (n) memcpy(a->v + a->n, v, n * sizeof *v);
    a->n += n;
}

static int64_t count_supervised(const int32_t *labels, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += labels[i] != -100;
    return count;
}

/* Appends a rendered document with its labels shifted; the documents it becomes are added to `out`. */
static void add_document(struct dataset *d, const struct rendered *r, const struct rendered_document *doc, int64_t max, struct spans *out)
{
    struct span s = {.at = (int64_t)d->ids.n, .n = (int64_t)doc->n, .row = d->stats.rows - 1};
    static const int32_t none = -100;
    append(&d->ids, r->ids.v + doc->at, doc->n);
    append(&d->labels, r->target.v + doc->at + 1, doc->n - 1);
    append(&d->labels, &none, 1);
    if (max < 0 || s.n <= max) {
        spans_push(out, s);
        return;
    }
    for (int64_t from = 0; from < s.n; from += max) {
        int64_t n = s.n - from < max ? s.n - from : max;
        if (count_supervised(d->labels.v + s.at + from, n)) spans_push(out, span_part(&s, from, n));
    }
}

static bool is_supervised(const struct rendered *r, const struct rendered_document *doc)
{
    for (size_t i = 1; i < doc->n; i++)
        if (r->target.v[doc->at + i] != -100) return true;
    return false;
}

static status fail_too_long(const struct source *s, int64_t i, int64_t n)
{
    char *place = source_place(s, i);
    status st = status_fail(ST_DATA,
                            "%s: the row has %lld tokens, more than tokenizer.max_seq_len=%lld; raise it, or set "
                            "on_too_long to truncate, drop or split",
                            place, (long long)n, (long long)s->c->tokenizer.max_seq_len);
    free(place);
    return st;
}

enum fate { FATE_UNSUPERVISED, FATE_TOO_LONG, FATE_KEPT, FATE_TRUNCATED };

/* What becomes of one document of a row. split_pack: packs cut it, so its length is no matter here. */
static enum fate take_document(struct dataset *d, const struct source *s, bool split_pack, struct rendered *r,
                               struct rendered_document *doc, struct spans *out)
{
    const struct config *c = s->c;
    int64_t max = c->tokenizer.max_seq_len;
    bool too_long = max > 0 && (int64_t)doc->n > max, truncated = false;
    if (too_long && c->on_too_long == TOO_LONG_DROP) return FATE_TOO_LONG;
    bool cuts = too_long && c->on_too_long == TOO_LONG_SPLIT && !split_pack;
    if (too_long && c->on_too_long == TOO_LONG_TRUNCATE && !split_pack)
        truncated = render_truncate(&s->rendering, source_is_chat(s), max, c->tokenizer.truncate_left, r, doc);
    if (!is_supervised(r, doc)) return FATE_UNSUPERVISED;
    add_document(d, r, doc, cuts ? max : -1, out);
    return truncated ? FATE_TRUNCATED : FATE_KEPT;
}

/* A row counts once, by the best of its documents. */
static status take_row(struct dataset *d, const struct source *s, int64_t i, bool split_pack, struct rendered *r, struct spans *out)
{
    int64_t max = s->c->tokenizer.max_seq_len;
    enum fate best = FATE_UNSUPERVISED;
    d->stats.rows++;
    for (int k = 0; k < r->n; k++) {
        if (max > 0 && (int64_t)r->documents[k].n > max && s->c->on_too_long == TOO_LONG_ERROR)
            return fail_too_long(s, i, (int64_t)r->documents[k].n);
        enum fate fate = take_document(d, s, split_pack, r, &r->documents[k], out);
        if (fate > best) best = fate;
    }
    d->stats.kept += best >= FATE_KEPT;
    d->stats.truncated += best == FATE_TRUNCATED;
    d->stats.dropped += best == FATE_TOO_LONG;
    d->stats.unsupervised += best == FATE_UNSUPERVISED;
    d->stats.turns_apart += r->n - 1;
    d->stats.written_specials += r->written_specials;
    return ST_OK;
}

struct batch {
    struct rendered rows[BATCH];
    status st[BATCH];
    char *message[BATCH]; /* of the thread that failed */
};

enum { BLOCK = 16 }; /* rows rendered at a time */
struct batch_work {
    const struct source *s;
    int64_t first;
    int n;
    struct batch *b;
    struct source_work *work; /* one per thread */
};

static void render_block(const void *arg, int64_t block)
{
    const struct batch_work *r = arg;
    struct source_work *work = &r->work[team_rank()];
    for (int i = (int)block * BLOCK; i < r->n && i < ((int)block + 1) * BLOCK; i++) {
        r->b->st[i] = source_row(r->s, r->first + i, work, &r->b->rows[i]);
        r->b->message[i] = r->b->st[i] ? mem_strdup(status_message()) : NULL;
    }
}

/* Which thread sees which row is chance: what they gather must not depend on it. */
static void render_batch(const struct source *s, int64_t first, int n, struct batch *b, struct unused *unused)
{
    int threads = n > 2 * BLOCK ? team_size() : 1;
    struct batch_work r = {s, first, n, b, mem_alloc((size_t)threads * sizeof *r.work)};
    team_each(threads, (n + BLOCK - 1) / BLOCK, render_block, &r);
    for (int i = 0; i < threads; i++) {
        unused_merge(unused, &r.work[i].chat.unused);
        source_work_release(&r.work[i]);
    }
    free(r.work);
}

/* A row that its reader refused is put aside; other failures are not the row's. */
static status put_aside(struct dataset *d, const struct source *s, int64_t i, status st, const char *message, struct bad_rows *bad)
{
    if (st != ST_DATA) return status_fail(st, "%s", message);
    bad_rows_add(bad, s, i, message);
    d->stats.rows++;
    d->stats.skipped++;
    return ST_OK;
}

/* Rows in file order, however many threads rendered them. */
static status add_rows(struct dataset *d, const struct source *s, bool split_pack, struct spans *out, struct bad_rows *bad,
                       struct unused *unused)
{
    struct batch *b = mem_alloc(sizeof *b);
    int64_t total = s->end - s->first;
    status st = ST_OK;
    for (int64_t at = 0; at < total && !st; at += BATCH) {
        int n = (int)(total - at < BATCH ? total - at : BATCH);
        render_batch(s, at, n, b, unused);
        for (int i = 0; i < n; i++) {
            if (!st && b->st[i])
                st = put_aside(d, s, at + i, b->st[i], b->message[i], bad);
            else if (!st)
                st = take_row(d, s, at + i, split_pack, &b->rows[i], out);
            free(b->message[i]);
        }
        log_progress("tokenising", at + n, total);
    }
    for (int i = 0; i < BATCH; i++) rendered_release(&b->rows[i]);
    free(b);
    return st;
}

/* All rows have been read: what was wrong with them, and what nothing used. */
static status judge(struct dataset *d, const struct source *s, const struct bad_rows *bad, const struct unused *unused)
{
    int64_t rows = s->end - s->first;
    if (bad->n && (!bad->keep || bad->n == rows)) return bad_rows_fail(bad, rows);
    char *files = mem_printf("%s%s", s->files[0].name, s->n_files > 1 ? ", …" : "");
    bad_rows_warn(bad, files, rows);
    unused_report(files, unused);
    free(files);
    if (bad->n) buf_add(&d->skipped, bad->kept.data, bad->kept.len);
    return ST_OK;
}

static status add_set(struct dataset *d, const struct config *c, const struct config_dataset *set, const struct chat_format *format)
{
    int64_t max = c->tokenizer.max_seq_len;
    struct source s;
    struct spans documents = {0};
    struct bad_rows bad = {.keep = set->on_bad_row == BAD_ROW_SKIP};
    struct unused unused = {0};
    if (set->packed && max < 1) FAIL(ST_CONFIG_RUNTIME, "dataset.packed needs tokenizer.max_seq_len: the length of a pack");
    TRY(source_open(&s, c, set, format));
    bool split = set->split_across_pack < 0 ? !source_is_chat(&s) : set->split_across_pack > 0;
    status st = add_rows(d, &s, set->packed && split, &documents, &bad, &unused);
    if (!st) st = judge(d, &s, &bad, &unused);
    if (!st && set->packed) {
        pack(&documents, max, split, &d->spans, &d->items);
    } else if (!st) {
        for (int64_t i = 0; i < documents.n; i++) {
            starts_push(&d->items, d->spans.n);
            spans_push(&d->spans, documents.v[i]);
        }
    }
    if (source_is_chat(&s) && !d->has_chats) {
        d->has_chats = true;
        d->template_text = s.template_text;
        s.template_text = NULL;
    }
    free(documents.v);
    bad_rows_release(&bad);
    unused_release(&unused);
    source_close(&s);
    return st;
}

/* The flat arrays have stopped growing: documents may point into them. */
static void finish(struct dataset *d)
{
    starts_push(&d->items, d->spans.n);
    d->documents = mem_grow(d->documents, (size_t)d->spans.n * sizeof *d->documents);
    for (int64_t i = 0; i < d->spans.n; i++) {
        const struct span *s = &d->spans.v[i];
        d->documents[i] = (struct document){d->ids.v + s->at, d->labels.v + s->at, s->n, d->first_sample + i};
    }
    d->stats.tokens = d->stats.supervised = d->stats.longest = 0;
    for (int64_t i = 0; i < dataset_items(d); i++) {
        const struct document *docs;
        int64_t n = dataset_item(d, i, &docs), tokens = 0;
        for (int64_t k = 0; k < n; k++) {
            tokens += docs[k].n;
            d->stats.supervised += count_supervised(docs[k].labels, docs[k].n);
        }
        d->stats.tokens += tokens;
        if (tokens > d->stats.longest) d->stats.longest = tokens;
    }
}

static status fail_nothing(const struct dataset_stats *s)
{
    FAIL(ST_DATA,
         "nothing to train on: of %lld rows %lld have no supervised token within max_seq_len, %lld are too long "
         "and %lld were skipped; raise tokenizer.max_seq_len, or look at masking_strategy, on_too_long and the rows' own "
         "flags",
         (long long)s->rows, (long long)s->unsupervised, (long long)s->dropped, (long long)s->skipped);
}

status dataset_open(const struct config *c, const struct config_dataset *sets, int n_sets, const struct chat_format *format,
                    struct dataset **out)
{
    *out = NULL;
    for (int i = 1; i < n_sets; i++)
        if (sets[i].packed != sets[0].packed)
            FAIL(ST_CONFIG_RUNTIME, "dataset: packed and unpacked sets cannot be mixed; give all the same `packed`");
    json_object_seed(0); /* before threads ask for it */
    struct dataset *d = mem_alloc(sizeof *d);
    status st = ST_OK;
    for (int i = 0; i < n_sets && !st; i++) st = add_set(d, c, &sets[i], format);
    if (!st && d->spans.n == 0) st = fail_nothing(&d->stats);
    if (st) {
        dataset_close(d);
        return st;
    }
    finish(d);
    *out = d;
    return ST_OK;
}

void dataset_close(struct dataset *d)
{
    if (!d) return;
    free(d->ids.v);
    free(d->labels.v);
    free(d->spans.v);
    free(d->items.v);
    free(d->documents);
    buf_release(&d->skipped);
    free(d->template_text);
    free(d);
}

status dataset_save_skipped(const struct dataset *train, const struct dataset *val, const char *path)
{
    const struct buf *first = &train->skipped, *second = val ? &val->skipped : NULL;
    struct buf both = {0};
    buf_text(&both, "");
    if (first->len) buf_add(&both, first->data, first->len);
    if (second && second->len) buf_add(&both, second->data, second->len);
    status st = ST_OK;
    if (both.len)
        st = file_replace(path, both.data, both.len);
    else if (file_exists(path))
        st = file_remove_tree(path); /* an earlier run's */
    buf_release(&both);
    return st;
}

/* Rows of spans [first, end): a split or packed row counts once. */
static int64_t count_rows(const struct dataset *d, int64_t first, int64_t end)
{
    int64_t rows = 0;
    for (int64_t i = first; i < end; i++) rows += i == first || d->spans.v[i].row != d->spans.v[i - 1].row;
    return rows;
}

status dataset_split(struct dataset *d, double fraction, struct dataset **val)
{
    *val = NULL;
    int64_t items = dataset_items(d), moved = (int64_t)ceil(fraction * (double)items);
    if (!(fraction > 0.0) || moved < 1 || moved >= items)
        FAIL(ST_DATA, "dataset_val_fraction=%g of %lld items leaves %s; give more rows or another fraction", fraction, (long long)items,
             moved < 1 ? "none to validate on" : "none to train on");
    struct dataset *v = mem_alloc(sizeof *v);
    int64_t first = d->items.v[items - moved], end = d->spans.n, base = d->spans.v[first].at;
    append(&v->ids, d->ids.v + base, d->ids.n - (size_t)base);
    append(&v->labels, d->labels.v + base, d->labels.n - (size_t)base);
    v->first_sample = d->first_sample + first;
    for (int64_t i = items - moved; i < items; i++) starts_push(&v->items, d->items.v[i] - first);
    for (int64_t i = first; i < end; i++) {
        struct span s = d->spans.v[i];
        s.at -= base;
        spans_push(&v->spans, s);
    }
    v->stats.rows = v->stats.kept = count_rows(d, first, end);
    d->stats.kept = count_rows(d, 0, first);
    d->ids.n = d->labels.n = (size_t)base;
    d->spans.n = first;
    d->items.n = items - moved;
    finish(v);
    finish(d);
    *val = v;
    return ST_OK;
}

bool dataset_chat_template(const struct dataset *d, const char **text)
{
    *text = d->template_text;
    return d->has_chats;
}

const struct dataset_stats *dataset_stats(const struct dataset *d) { return &d->stats; }
int64_t dataset_items(const struct dataset *d) { return d->items.n - 1; }

int64_t dataset_item(const struct dataset *d, int64_t item, const struct document **docs)
{
    *docs = d->documents + d->items.v[item];
    return d->items.v[item + 1] - d->items.v[item];
}

int64_t dataset_order(const struct dataset *d, uint64_t seed, bool shuffle, int64_t epoch, int64_t position)
{
    return shuffle ? order_permute(seed, epoch, dataset_items(d), position) : position;
}

/* ---- bounds on a micro-batch ----------------------------------------------------------------------------------- */

static int64_t item_tokens(const struct document *docs, int64_t n)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += docs[i].n;
    return sum;
}

static int64_t item_supervised(const struct document *docs, int64_t n)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += count_supervised(docs[i].labels, docs[i].n);
    return sum;
}

static int64_t item_documents(const struct document *docs, int64_t n)
{
    (void)docs;
    return n;
}

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The n largest measures together. A batch that runs over an epoch's end may hold an item twice. */
static int64_t largest(const struct dataset *d, int64_t n, int64_t (*measure)(const struct document *, int64_t))
{
    int64_t items = dataset_items(d), total = 0, sum = 0;
    int64_t *v = mem_alloc((size_t)items * sizeof *v);
    for (int64_t i = 0; i < items; i++) {
        const struct document *docs;
        int64_t k = dataset_item(d, i, &docs);
        v[i] = measure(docs, k);
        total += v[i];
    }
    qsort(v, (size_t)items, sizeof *v, descending);
    for (int64_t i = 0; i < n % items; i++) sum += v[i];
    free(v);
    return sum + n / items * total;
}

int64_t dataset_longest(const struct dataset *d, int64_t n) { return largest(d, n, item_tokens); }
int64_t dataset_most_supervised(const struct dataset *d, int64_t n) { return largest(d, n, item_supervised); }
int64_t dataset_most_documents(const struct dataset *d, int64_t n) { return largest(d, n, item_documents); }

int64_t dataset_longest_document(const struct dataset *d)
{
    int64_t longest = 0;
    for (int64_t i = 0; i < d->spans.n; i++)
        if (d->spans.v[i].n > longest) longest = d->spans.v[i].n;
    return longest;
}

/* Lengths go in as well: the same ids cut elsewhere are another data set. Hosts are little-endian. */
uint64_t dataset_hash(const struct dataset *d)
{
    XXH3_state_t *h = XXH3_createState();
    XXH3_64bits_reset(h);
    XXH3_64bits_update(h, d->items.v, (size_t)d->items.n * sizeof *d->items.v);
    for (int64_t i = 0; i < d->spans.n; i++) {
        const struct document *doc = &d->documents[i];
        XXH3_64bits_update(h, &doc->n, sizeof doc->n);
        XXH3_64bits_update(h, doc->ids, (size_t)doc->n * sizeof *doc->ids);
        XXH3_64bits_update(h, doc->labels, (size_t)doc->n * sizeof *doc->labels);
    }
    uint64_t hash = XXH3_64bits_digest(h);
    XXH3_freeState(h);
    return hash;
}
