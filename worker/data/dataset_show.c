/* dataset_show.c — a data set as a person sees it: a sample, a prompt with its answer, rows as ids. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"
#include "worker/data/dataset.h"
#include "worker/data/dataset_source.h"
#include "worker/data/dataset_store.h"

enum { PREVIEW_TOKENS = 512 };

static bool supervised(const struct document *doc, int64_t t) { return t > 0 && doc->labels[t - 1] != -100; }

/* Decodes ever longer prefixes and shows what each run of tokens added: a piece alone may decode differently. */
char *dataset_preview(const struct dataset *d, const struct tokenizer *tok, bool colour)
{
    const struct document *doc;
    dataset_item(d, 0, &doc);
    int64_t n = doc->n < PREVIEW_TOKENS ? doc->n : PREVIEW_TOKENS;
    struct buf b = {0};
    size_t shown = 0;
    for (int64_t t = 0; t < n;) {
        bool on = supervised(doc, t);
        while (t < n && supervised(doc, t) == on) t++;
        size_t bytes;
        char *text = tokenizer_decode(tok, doc->ids, (size_t)t, false, &bytes);
        const char *before = on ? (colour ? "" : "[[") : (colour ? "\033[2m" : "");
        const char *after = on ? (colour ? "" : "]]") : (colour ? "\033[0m" : "");
        buf_text(&b, before);
        if (bytes > shown) buf_tame(&b, text + shown, bytes - shown);
        buf_text(&b, after);
        shown = bytes;
        free(text);
    }
    if (n < doc->n) buf_printf(&b, " … (%lld tokens more)", (long long)(doc->n - n));
    return b.data ? b.data : mem_strdup("");
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

char *dataset_summary(const struct dataset *d)
{
    const struct dataset_stats *s = &d->stats;
    int64_t n = d->spans.n, *lengths = mem_alloc((size_t)n * sizeof *lengths);
    for (int64_t i = 0; i < n; i++) lengths[i] = d->spans.v[i].n;
    qsort(lengths, (size_t)n, sizeof *lengths, ascending);
    struct buf b = {0};
    buf_printf(&b,
               "%lld rows: %lld kept (%lld truncated), %lld too long, %lld unsupervised; %lld tokens, %.1f %% "
               "supervised; document lengths %lld / %lld / %lld (median / 90 %% / longest)",
               (long long)s->rows, (long long)s->kept, (long long)s->truncated, (long long)s->dropped, (long long)s->unsupervised,
               (long long)s->tokens, 100.0 * (double)s->supervised / (double)s->tokens, (long long)lengths[n / 2],
               (long long)lengths[n - 1 - n / 10], (long long)lengths[n - 1]);
    if (s->skipped) buf_printf(&b, "; %lld skipped as bad", (long long)s->skipped);
    if (s->turns_apart)
        buf_printf(&b,
                   "; %lld earlier turns are trained in documents of their own: the template renders them otherwise once "
                   "later ones follow",
                   (long long)s->turns_apart);
    if (s->written_specials) buf_printf(&b, "; %lld special tokens written in texts are tokens", (long long)s->written_specials);
    if (dataset_items(d) != n) buf_printf(&b, "; %lld packs", (long long)dataset_items(d));
    free(lengths);
    return b.data;
}

/* ---- where the model learns to stop ---------------------------------------------------------------------------- */

struct mark {
    int32_t id;
    int64_t n;
};

static int most_first(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    if (x->n != y->n) return x->n < y->n ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

int dataset_end_marks(const struct dataset *d, const struct tokenizer *tok, int32_t *ids, int most)
{
    enum { MARKS = 64 };
    struct mark marks[MARKS];
    int n = 0, kept = 0;
    int64_t runs = 0;
    for (int64_t i = 0; i < d->spans.n; i++) {
        const struct document *doc = &d->documents[i];
        for (int64_t t = 0; t < doc->n; t++) {
            int32_t id = doc->labels[t];
            if (id < 0 || (t + 1 < doc->n && doc->labels[t + 1] >= 0)) continue;
            runs++;
            int k = 0;
            if (!tokenizer_is_special(tok, id) && id != tokenizer_eos(tok)) continue;
            while (k < n && marks[k].id != id) k++;
            if (k == n && n < MARKS) marks[n++] = (struct mark){.id = id};
            if (k < n) marks[k].n++;
        }
    }
    qsort(marks, (size_t)n, sizeof *marks, most_first);
    /* A row that was cut may end anywhere: a mark ends one turn in twenty. */
    while (kept < n && kept < most && marks[kept].n * 20 >= runs) {
        ids[kept] = marks[kept].id;
        kept++;
    }
    return kept;
}
