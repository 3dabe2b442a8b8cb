#include "worker/data/dataset_bad.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"

/* The message without its FILE:LINE. */
static const char *reason_of(const char *message, const char *file)
{
    size_t n = strlen(file);
    if (strncmp(message, file, n) || message[n] != ':') return message;
    const char *rest = message + n + 1;
    while (isdigit((unsigned char)*rest)) rest++;
    return strncmp(rest, ": ", 2) ? message : rest + 2;
}

/* How long the number is that begins at p, or 0: digits of names ("UTF-8", "WINDOWS-1252", "k2") are not numbers. */
static size_t number_at(const char *reason, const char *p)
{
    bool named = p > reason && (isalnum((unsigned char)p[-1]) || (p[-1] == '-' && p - 1 > reason && isalnum((unsigned char)p[-2])));
    if (!isdigit((unsigned char)*p) || named) return 0;
    if (p[0] == '0' && p[1] == 'x') return 2 + strspn(p + 2, "0123456789abcdef");
    size_t n = strspn(p, "0123456789");
    return p[n] == '.' ? n + 1 + strspn(p + n + 1, "0123456789") : n;
}

/* How long the text is that a message quotes from the row at p, or 0: from after the opening quote to its closing one. */
static size_t quoted_at(const char *reason, const char *p)
{
    static const char *const before[] = {"the string \"", "near '"};
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        size_t n = strlen(before[i]);
        if ((size_t)(p - reason) >= n && !strncmp(p - n, before[i], n)) return strcspn(p, i ? "'" : "\"");
    }
    return 0;
}

/* What rows with the same fault have in common: their own text and numbers go. */
static char *kind_of(const char *reason)
{
    enum { MOST = 200 };
    struct buf b = {0};
    buf_text(&b, "");
    for (const char *p = reason; *p && b.len < MOST; p++) {
        size_t quoted = quoted_at(reason, p), number = quoted ? 0 : number_at(reason, p);
        if (quoted)
            buf_text(&b, "…");
        else if (number)
            buf_text(&b, "N");
        else
            buf_add(&b, p, 1);
        if (quoted + number) p += quoted + number - 1;
    }
    return b.data;
}

static void count_reason(struct bad_rows *b, const char *reason)
{
    char *kind = kind_of(reason);
    for (int i = 0; i < b->n_reasons; i++) {
        if (strcmp(b->reasons[i].text, kind)) continue;
        b->reasons[i].n++;
        free(kind);
        return;
    }
    if (b->n_reasons < BAD_REASONS) {
        b->reasons[b->n_reasons].text = kind;
        b->reasons[b->n_reasons++].n = 1;
        return;
    }
    b->other_reasons++;
    free(kind);
}

/* A row of JSON as it stands in the file, on one line: a line's end outside strings is only space. */
static void put_verbatim(struct buf *out, const char *text, size_t n)
{
    size_t from = out->len;
    buf_add(out, text, n);
    for (size_t i = from; i < out->len; i++)
        if (out->data[i] == '\n' || out->data[i] == '\r') out->data[i] = ' ';
}

static void put_json(struct buf *out, const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    buf_text(out, text ? text : "null");
    free(text);
}

static void put_text(struct buf *out, const char *text, size_t n)
{
    struct buf tame = {0};
    buf_text(&tame, "");
    buf_tame(&tame, text, n);
    json_t *v = json_stringn(tame.data, tame.len);
    put_json(out, v);
    json_decref(v);
    buf_release(&tame);
}

static void keep_row(struct bad_rows *b, const struct rows *file, int64_t row, const char *reason)
{
    const struct row_span *span = &file->spans[row];
    const char *raw = (const char *)file->data + span->at;
    json_t *json;
    bool readable = rows_get(file, row, &json) == ST_OK;
    buf_text(&b->kept, "{\"file\":");
    put_text(&b->kept, file->name, strlen(file->name));
    buf_printf(&b->kept, ",\"line\":%u,\"reason\":", span->line);
    put_text(&b->kept, reason, strlen(reason));
    buf_text(&b->kept, ",\"row\":");
    if (!readable)
        put_text(&b->kept, raw, span->bytes);
    else if (file->kind == ROWS_JSON)
        put_verbatim(&b->kept, raw, span->bytes);
    else
        put_json(&b->kept, json);
    buf_text(&b->kept, "}\n");
    json_decref(json);
}

/* Messages may be long; the end of one is cut between characters. */
static void name_row(struct buf *out, const char *message)
{
    enum { SHOWN = 400 };
    size_t n = strlen(message);
    bool cut = n > SHOWN;
    if (cut) n = SHOWN;
    while (cut && n && ((unsigned char)message[n] & 0xC0) == 0x80) n--;
    buf_text(out, out->len ? "\n  " : "  ");
    buf_tame(out, message, n);
    buf_text(out, cut ? " …" : "");
}

void bad_rows_add(struct bad_rows *b, const struct source *s, int64_t i, const char *message)
{
    int64_t row;
    const struct rows *file = source_locate(s, i, &row);
    const char *reason = reason_of(message, file->name);
    if (b->n++ < BAD_ROWS_NAMED) name_row(&b->named, message);
    count_reason(b, reason);
    if (b->keep) keep_row(b, file, row, reason);
}

void bad_rows_release(struct bad_rows *b)
{
    for (int i = 0; i < b->n_reasons; i++) free(b->reasons[i].text);
    buf_release(&b->named);
    buf_release(&b->kept);
    *b = (struct bad_rows){0};
}

static void list_reasons(const struct bad_rows *b, struct buf *out)
{
    for (int i = 0; i < b->n_reasons; i++) {
        buf_printf(out, "\n  %lld × ", (long long)b->reasons[i].n);
        buf_tame(out, b->reasons[i].text, strlen(b->reasons[i].text));
    }
    if (b->other_reasons) buf_printf(out, "\n  %lld × other reasons", (long long)b->other_reasons);
}

status bad_rows_fail(const struct bad_rows *b, int64_t rows)
{
    struct buf why = {0};
    const char *one = b->named.data + strspn(b->named.data, " ");
    if (b->n == 1 && rows == 1) FAIL(ST_DATA, "%s", one);
    if (b->n == 1)
        FAIL(ST_DATA, "%s (the only bad row of %lld; mend it, or leave it out with dataset.on_bad_row=skip)", one, (long long)rows);
    list_reasons(b, &why);
    status st = status_fail(ST_DATA,
                            "%lld of %lld rows cannot be used%s:\n%s\nby reason:%s\nmend them, or leave them out "
                            "with dataset.on_bad_row=skip, which writes them to output_dir/skipped_rows.jsonl",
                            (long long)b->n, (long long)rows, b->n > BAD_ROWS_NAMED ? "; the first of them" : "", b->named.data, why.data);
    buf_release(&why);
    return st;
}

void bad_rows_warn(const struct bad_rows *b, const char *file, int64_t rows)
{
    struct buf why = {0};
    if (!b->n) return;
    list_reasons(b, &why);
    log_warn("%s: %lld of %lld rows are left out (dataset.on_bad_row=skip):%s", file, (long long)b->n, (long long)rows, why.data);
    buf_release(&why);
}
