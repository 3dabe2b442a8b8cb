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
    buf_printf(&b, "%lld rows: %lld kept (%lld truncated), %lld too long, %lld unsupervised; %lld tokens, %.1f %% "
               "supervised; document lengths %lld / %lld / %lld (median / 90 %% / longest)", (long long)s->rows,
               (long long)s->kept, (long long)s->truncated, (long long)s->dropped, (long long)s->unsupervised,
               (long long)s->tokens, 100.0 * (double)s->supervised / (double)s->tokens, (long long)lengths[n / 2],
               (long long)lengths[n - 1 - n / 10], (long long)lengths[n - 1]);
    if (s->skipped) buf_printf(&b, "; %lld skipped as bad", (long long)s->skipped);
    if (dataset_items(d) != n) buf_printf(&b, "; %lld packs", (long long)dataset_items(d));
    free(lengths);
    return b.data;
}

status dataset_prompt(const struct dataset *d, int64_t item, const struct tokenizer *tok, struct ids *prompt, char **answer)
{
    const struct document *doc;
    dataset_item(d, item, &doc);
    const struct span *s = &d->spans.v[doc - d->documents];
    for (int64_t i = 0; i < s->body; i++) ids_push(prompt, doc->ids[i]);
    *answer = tokenizer_decode(tok, doc->ids + s->body, (size_t)(s->body_end - s->body), true, NULL);
    return ST_OK;
}

static status show_text(const struct tokenizer *tok, const json_t *text, bool specials, struct rendered *r)
{
    rendered_clear(r);
    const char *s = json_string_value(text);
    size_t n = json_string_length(text);
    TRY(specials ? tokenizer_encode_document(tok, s, n, &r->ids) : tokenizer_encode(tok, s, n, false, &r->ids));
    for (size_t i = 0; i < r->ids.n; i++) ids_push(&r->target, r->ids.v[i]);
    return ST_OK;
}

struct viewer {
    struct source source;
    struct source_work work;
    struct rendered rendered;
    bool detected;
};

static status show_row(struct viewer *v, const struct tokenizer *tok, const char *family, const json_t *row,
                       bool specials)
{
    struct source *s = &v->source;
    if (json_is_string(row)) return show_text(tok, row, specials, &v->rendered);
    if (!v->detected) {
        TRY(shape_detect(s->set, row, &s->shape));
        TRY(rendering_init(&s->rendering, s->c, s->set, tok, family));
        v->detected = true;
    }
    return source_render(s, row, &v->work, &v->rendered);
}

status dataset_each_row(const struct config *c, const struct config_dataset *set, const struct tokenizer *tok,
                        const char *family, const char *path, bool specials,
                        status (*show)(void *context, const struct dataset_row *row), void *context)
{
    struct viewer v = {.source = {.c = c, .set = set}};
    struct rows file;
    enum rows_kind kind;
    status st = ST_OK;
    TRY(source_kind(set, path, &kind));
    TRY(rows_open(&file, path, kind));
    for (int64_t i = 0; i < file.n && !st; i++) {
        json_t *row;
        TRY_DONE(rows_get(&file, i, &row));
        st = show_row(&v, tok, family, row, specials);
        json_decref(row);
        if (st) st = status_prefix(st, "%s:%u", file.name, file.spans[i].line);
        else st = show(context, &(struct dataset_row){.line = file.spans[i].line, .ids = v.rendered.ids.v,
                                                      .target = v.rendered.target.v,
                                                      .n = (int64_t)v.rendered.ids.n});
    }
done:
    rows_close(&file);
    rendering_release(&v.source.rendering);
    source_work_release(&v.work);
    rendered_release(&v.rendered);
    return st;
}
