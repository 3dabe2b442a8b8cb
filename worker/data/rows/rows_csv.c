#include "worker/data/rows/rows_csv.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"
#include "worker/data/rows/rows_bytes.h"

enum { MAX_COLUMNS = 4096 };

static char delimiter(const struct rows *r) { return r->kind == ROWS_TSV ? '\t' : ','; }

static bool ends_line(unsigned char c) { return c == '\n' || c == '\r'; }

static bool ends_field(const struct rows *r, size_t at, size_t end)
{
    return at >= end || r->data[at] == (unsigned char)delimiter(r) || ends_line(r->data[at]);
}

/* The quote that closes the field which opens at `at`, or `end`; a doubled one is text. */
static size_t closing_quote(const struct rows *r, size_t at, size_t end)
{
    const unsigned char *p = r->data;
    for (at++; at < end; at++) {
        if (p[at] != '"') continue;
        if (at + 1 >= end || p[at + 1] != '"') return at;
        at++;
    }
    return end;
}

/* One past the field at `at`; a quoted one ends after its closing quote. Its text goes to `out` unless NULL. In TSV, as
 * people write it, a quote is only a quote unless it closes right before a tab or the line's end. */
static status field(const struct rows *r, size_t at, size_t end, size_t *line, struct buf *out, size_t *next)
{
    const unsigned char *p = r->data;
    size_t close = at < end && p[at] == '"' ? closing_quote(r, at, end) : end;
    bool quoted = at < end && p[at] == '"' && (r->kind != ROWS_TSV || (close < end && ends_field(r, close + 1, end)));
    if (!quoted) {
        size_t begin = at;
        while (!ends_field(r, at, end)) at++;
        if (out) buf_add(out, p + begin, at - begin);
        *next = at;
        return ST_OK;
    }
    if (close >= end) FAIL(ST_DATA, "%s:%zu: a quoted value that begins here is not closed", r->name, *line);
    for (at++; at < close; at++) {
        at += p[at] == '"';
        *line += p[at] == '\n';
        if (out) buf_add(out, p + at, 1);
    }
    *next = close + 1;
    if (!out) /* where the record ends is clear all the same; csv_get refuses it, and not the file */
        while (!ends_field(r, *next, end)) ++*next;
    else if (!ends_field(r, *next, end))
        FAIL(ST_DATA, "%s:%zu: '%c' after a closing quote; write a quote inside a value twice", r->name, *line, p[*next]);
    return ST_OK;
}

static status add_column(struct rows *r, const char *name, size_t n, size_t line)
{
    size_t bad;
    if (r->n_columns == MAX_COLUMNS) FAIL(ST_DATA, "%s:%zu: more than %d columns", r->name, line, MAX_COLUMNS);
    if (!text_is_utf8(name, n, &bad) || strlen(name) != n)
        FAIL(ST_DATA, "%s:%zu: the name of column %d is not UTF-8 text: %s", r->name, line, r->n_columns + 1, bytes_remedy(r, 0));
    for (int i = 0; i < r->n_columns; i++)
        if (!strcmp(r->columns[i], name)) FAIL(ST_DATA, "%s:%zu: two columns are called '%s'; rename one", r->name, line, name);
    if (r->n_columns % 16 == 0) r->columns = mem_grow(r->columns, (size_t)(r->n_columns + 16) * sizeof *r->columns);
    r->columns[r->n_columns++] = mem_strdup(name);
    return ST_OK;
}

/* Moves *at past the record's last field; the header's fields become the columns. */
static status record(struct rows *r, size_t *at, size_t *line, bool header)
{
    struct buf name = {0};
    status st = ST_OK;
    for (bool more = true; more && !st;) {
        size_t begin = *line;
        buf_clear(&name);
        buf_text(&name, "");
        st = field(r, *at, r->bytes, line, header ? &name : NULL, at);
        if (!st && header) st = add_column(r, name.data, name.len, begin);
        more = !st && *at < r->bytes && r->data[*at] == (unsigned char)delimiter(r);
        *at += more;
    }
    buf_release(&name);
    return st;
}

static size_t skip_line_end(const struct rows *r, size_t at, size_t *line)
{
    if (at < r->bytes && r->data[at] == '\r') at++;
    if (at < r->bytes && r->data[at] == '\n') at++;
    ++*line;
    return at;
}

status csv_scan(struct rows *r, size_t at, status (*add)(struct rows *r, size_t begin, size_t end, size_t line))
{
    size_t line = 1;
    while (at < r->bytes) {
        size_t begin = at, begin_line = line;
        bool blank = ends_line(r->data[at]), header = !r->n_columns;
        if (!blank) TRY(record(r, &at, &line, header));
        if (!blank && !header) TRY(add(r, begin, at, begin_line));
        at = skip_line_end(r, at, &line);
    }
    if (r->n_columns && !r->n) FAIL(ST_DATA, "%s: a header and no rows; add at least one row", r->name);
    return ST_OK;
}

status csv_get(const struct rows *r, const struct row_span *s, json_t **row)
{
    size_t at = s->at, end = s->at + s->bytes, line = s->line;
    int n = 0;
    struct buf value = {0};
    status st = ST_OK;
    *row = json_object();
    if (!*row) FAIL(ST_OOM, "out of host memory");
    for (bool more = true; more; n++) {
        buf_clear(&value);
        buf_text(&value, "");
        TRY_DONE(field(r, at, end, &line, &value, &at));
        more = at < end;
        at += more;
        if (n < r->n_columns && json_object_set_new(*row, r->columns[n], json_stringn(value.data, value.len)))
            FAIL_DONE(ST_DATA, "%s:%zu: column %s is not UTF-8: %s", r->name, line, r->columns[n], bytes_remedy(r, s->at));
    }
    if (n != r->n_columns)
        FAIL_DONE(ST_DATA, "%s:%u: %d values, but the header names %d columns; quote values that contain %s", r->name, s->line, n,
                  r->n_columns, r->kind == ROWS_TSV ? "a tab or a line's end" : "a comma");
done:
    buf_release(&value);
    if (st) {
        json_decref(*row);
        *row = NULL;
    }
    return st;
}

void csv_close(struct rows *r)
{
    for (int i = 0; i < r->n_columns; i++) free(r->columns[i]);
    free(r->columns);
}
