#include "worker/data/rows/rows.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"
#include "worker/data/rows/rows_bytes.h"
#include "worker/data/rows/rows_csv.h"

static bool is_space(unsigned char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static status add_span(struct rows *r, size_t at, size_t end, size_t line)
{
    if (end - at > INT32_MAX || line > UINT32_MAX)
        FAIL(ST_DATA, "%s:%zu: a row of %zu bytes is too long; split it", r->name, line, end - at);
    if (r->n == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 256;
        r->spans = mem_grow(r->spans, (size_t)r->cap * sizeof *r->spans);
    }
    r->spans[r->n++] = (struct row_span){.at = at, .bytes = (uint32_t)(end - at), .line = (uint32_t)line};
    return ST_OK;
}

/* Skips white space from `at`, counting lines. */
static size_t skip_space(const struct rows *r, size_t at, size_t *line)
{
    for (; at < r->bytes && is_space(r->data[at]); at++) *line += r->data[at] == '\n';
    return at;
}

/* One past the string that opens at data[at], or n when it does not close. */
static size_t skip_string(const unsigned char *data, size_t at, size_t n, size_t *line)
{
    for (at++; at < n; at++) {
        if (data[at] == '\\') {
            at++;
            if (at < n) *line += data[at] == '\n';
        } else if (data[at] == '"') {
            return at + 1;
        } else {
            *line += data[at] == '\n';
        }
    }
    return n;
}

/* One past the value at `at`: where a comma or the closing bracket of the list around it stands. */
static size_t skip_value(const struct rows *r, size_t at, size_t *line)
{
    int64_t depth = 0;
    while (at < r->bytes) {
        unsigned char c = r->data[at];
        if (c == '"') {
            at = skip_string(r->data, at, r->bytes, line);
            continue;
        }
        if (depth == 0 && (c == ',' || c == ']')) break;
        if (c == '{' || c == '[') depth++;
        if ((c == '}' || c == ']') && depth > 0) depth--;
        *line += c == '\n';
        at++;
    }
    return at;
}

static status scan_array(struct rows *r, size_t at, size_t line)
{
    at = skip_space(r, at + 1, &line);
    if (at < r->bytes && r->data[at] == ']') FAIL(ST_DATA, "%s: an empty list; put at least one row in it", r->name);
    for (;;) {
        size_t begin = at, begin_line = line;
        at = skip_value(r, at, &line);
        if (at >= r->bytes)
            FAIL(ST_DATA,
                 "%s:%zu: the list is not closed: the file ends in or after row %lld, which begins on this line; is "
                 "it cut short?",
                 r->name, begin_line, (long long)r->n + 1);
        size_t end = at;
        while (end > begin && is_space(r->data[end - 1])) end--;
        if (end == begin) FAIL(ST_DATA, "%s:%zu: expected a row, found '%c'; remove the extra comma", r->name, line, r->data[at]);
        TRY(add_span(r, begin, end, begin_line));
        bool last = r->data[at] == ']';
        at = skip_space(r, at + 1, &line);
        if (last) break;
    }
    if (at < r->bytes) FAIL(ST_DATA, "%s:%zu: text after the end of the list; remove it", r->name, line);
    return ST_OK;
}

static status scan_lines(struct rows *r, size_t at)
{
    for (size_t line = 1; at < r->bytes; line++) {
        const unsigned char *newline = memchr(r->data + at, '\n', r->bytes - at);
        size_t next = newline ? (size_t)(newline - r->data) + 1 : r->bytes, begin = at, end = next;
        while (begin < end && is_space(r->data[begin])) begin++;
        while (end > begin && is_space(r->data[end - 1])) end--;
        if (end > begin) TRY(add_span(r, begin, end, line));
        at = next;
    }
    return ST_OK;
}

/* Lines end with \n, \r\n or \r. */
static status scan_text(struct rows *r, size_t at)
{
    for (size_t line = 1; at < r->bytes; line++) {
        size_t end = at;
        while (end < r->bytes && r->data[end] != '\n' && r->data[end] != '\r') end++;
        TRY(add_span(r, at, end, line));
        if (end + 1 < r->bytes && r->data[end] == '\r' && r->data[end + 1] == '\n') end++;
        at = end + 1;
    }
    return ST_OK;
}

static status scan(struct rows *r)
{
    static const unsigned char bom[] = {0xEF, 0xBB, 0xBF};
    size_t at = r->bytes >= sizeof bom && !memcmp(r->data, bom, sizeof bom) ? sizeof bom : 0, line = 1;
    TRY(bytes_judge(r));
    if (r->kind == ROWS_TEXT) {
        TRY(scan_text(r, at));
    } else if (r->kind != ROWS_JSON) {
        TRY(csv_scan(r, at, add_span));
    } else {
        size_t first = skip_space(r, at, &line);
        r->lines = first >= r->bytes || r->data[first] != '[';
        if (r->lines)
            TRY(scan_lines(r, at));
        else
            TRY(scan_array(r, first, line));
    }
    if (r->n == 0) FAIL(ST_DATA, "%s: the file is empty; give a file with at least one row", r->name);
    return ST_OK;
}

status rows_scan(struct rows *r, const char *name, const void *data, size_t bytes, enum rows_kind kind)
{
    *r = (struct rows){.name = name, .data = data, .bytes = bytes, .kind = kind};
    status st = scan(r);
    if (st) rows_close(r);
    return st;
}

status rows_open(struct rows *r, const char *path, enum rows_kind kind)
{
    struct file_map map;
    *r = (struct rows){0};
    TRY(file_map_open(&map, path));
    *r = (struct rows){.name = map.path, .data = map.data, .bytes = map.bytes, .kind = kind, .map = map};
    status st = scan(r);
    if (st) rows_close(r);
    return st;
}

void rows_close(struct rows *r)
{
    free(r->spans);
    csv_close(r);
    file_map_close(&r->map);
    *r = (struct rows){0};
}

/* Brackets nested deeper than the limit never reach the recursive parser. */
static bool too_deep(const unsigned char *data, size_t n)
{
    int64_t depth = 0;
    size_t line = 0;
    for (size_t i = 0; i < n;) {
        if (data[i] == '"') {
            i = skip_string(data, i, n, &line);
            continue;
        }
        if (data[i] == '{' || data[i] == '[') depth++;
        if ((data[i] == '}' || data[i] == ']') && depth > 0) depth--;
        if (depth > ROWS_MAX_DEPTH) return true;
        i++;
    }
    return false;
}

static status get_text(const struct rows *r, const struct row_span *s, json_t **row)
{
    const char *text = (const char *)r->data + s->at;
    size_t bad;
    if (!text_is_utf8(text, s->bytes, &bad))
        FAIL(ST_DATA, "%s:%u: byte %zu of the line (0x%02x) is not UTF-8: %s", r->name, s->line, bad + 1, (unsigned char)text[bad],
             bytes_remedy(r, s->at));
    *row = json_object();
    if (!*row || json_object_set_new(*row, "text", json_stringn(text, s->bytes))) FAIL(ST_OOM, "out of host memory");
    return ST_OK;
}

/* Integers stay integers, for templates that print them, unless one is too large for that. */
static json_t *load(const char *text, size_t n, json_error_t *error)
{
    size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    json_t *value = json_loadb(text, n, flags, error);
    if (value || json_error_code(error) != json_error_numeric_overflow) return value;
    return json_loadb(text, n, flags | JSON_DECODE_INT_AS_REAL, error);
}

status rows_parse(const char *text, size_t n, json_t **value)
{
    json_error_t error;
    *value = NULL;
    if (too_deep((const unsigned char *)text, n)) FAIL(ST_DATA, "brackets nested more than %d deep; flatten it", ROWS_MAX_DEPTH);
    *value = load(text, n, &error);
    if (!*value) FAIL(ST_DATA, "column %d: not valid JSON: %s", error.column, error.text);
    return ST_OK;
}

status rows_get(const struct rows *r, int64_t i, json_t **row)
{
    const struct row_span *s = &r->spans[i];
    *row = NULL;
    if (r->kind == ROWS_TEXT) return get_text(r, s, row);
    if (r->kind != ROWS_JSON) return csv_get(r, s, row);
    if (too_deep(r->data + s->at, s->bytes))
        FAIL(ST_DATA, "%s:%u: brackets nested more than %d deep; flatten the row", r->name, s->line, ROWS_MAX_DEPTH);
    json_error_t error;
    *row = load((const char *)r->data + s->at, s->bytes, &error);
    if (!*row) {
        size_t bad;
        const char *text = (const char *)r->data + s->at;
        if (!text_is_utf8(text, s->bytes, &bad))
            FAIL(ST_DATA, "%s:%u: byte %zu of the row (0x%02x) is not UTF-8: %s", r->name, s->line, bad + 1, (unsigned char)text[bad],
                 bytes_remedy(r, s->at));
        FAIL(ST_DATA, "%s:%u: column %d of the row: not valid JSON: %s%s", r->name,
             s->line + (unsigned)(error.line > 0 ? error.line - 1 : 0), error.column, error.text,
             r->lines ? "; every line must be one complete row" : "");
    }
    return ST_OK;
}

/* The beginning of a string, cut between characters, without control characters. */
static const char *excerpt(const json_t *v, char out[24])
{
    const char *s = json_string_value(v);
    size_t n = json_string_length(v), most = 20;
    if (n > most) {
        while (most > 0 && ((unsigned char)s[most] & 0xC0) == 0x80) most--;
        n = most;
    }
    for (size_t i = 0; i < n; i++) out[i] = (unsigned char)s[i] < 0x20 ? '?' : s[i];
    out[n] = 0;
    return out;
}

const char *json_says(const json_t *v)
{
    char text[24];
    static _Thread_local char ring[4][48];
    static _Thread_local int next;
    char *out = ring[next++ % 4];
    size_t size = sizeof ring[0];
    if (!v)
        snprintf(out, size, "nothing");
    else if (json_is_string(v))
        snprintf(out, size, "the string \"%s\"", excerpt(v, text));
    else if (json_is_array(v))
        snprintf(out, size, "a list of %zu", json_array_size(v));
    else if (json_is_object(v))
        snprintf(out, size, "an object of %zu", json_object_size(v));
    else if (json_is_number(v))
        snprintf(out, size, "the number %.15g", json_number_value(v));
    else
        snprintf(out, size, "%s", json_is_true(v) ? "true" : json_is_false(v) ? "false" : "null");
    return out;
}

/* One bound of a slice: "", "N", "-N", "N%". Returns the text after it, NULL when malformed. */
static const char *slice_bound(const char *s, int64_t n, int64_t absent, int64_t *out)
{
    *out = absent;
    if (*s == ':' || *s == ']') return s;
    if (!isdigit((unsigned char)*s) && *s != '-') return NULL;
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (end == s || errno) return NULL;
    if (*end == '%') {
        if (v < -100 || v > 100) return NULL;
        v = (long long)rint((double)v * (double)n / 100.0);
        end++;
    }
    if (v < 0) v = n + v < 0 ? 0 : n + v;
    *out = v > n ? n : v;
    return end;
}

status rows_slice(const char *split, int64_t n, int64_t *first, int64_t *end)
{
    *first = 0;
    *end = n;
    if (!split || !strcmp(split, "train")) return ST_OK;
    const char *open = strchr(split, '[');
    size_t name = open ? (size_t)(open - split) : strlen(split);
    if (strchr(split, '+') || name != 5 || strncmp(split, "train", 5))
        FAIL(ST_CONFIG_RUNTIME,
             "dataset.split: '%s': local files have the one split 'train'; name other files in "
             "data_files, or take a part as train[:95%%]",
             split);
    const char *s = slice_bound(open + 1, n, 0, first);
    if (s && *s == ':')
        s = slice_bound(s + 1, n, n, end);
    else
        s = NULL;
    if (!s || strcmp(s, "]"))
        FAIL(ST_CONFIG_RUNTIME,
             "dataset.split: '%s' is malformed; write train, train[:95%%], train[95%%:] or "
             "train[100:200]",
             split);
    if (*first >= *end) FAIL(ST_CONFIG_RUNTIME, "dataset.split: '%s' of %lld rows is empty; widen the bounds", split, (long long)n);
    return ST_OK;
}
