/* matrix.h — which keys work together, as the README shows it: the table's values that have a row there, against each other. */
#ifndef TRIMPOT_COMBOS_MATRIX_H
#define TRIMPOT_COMBOS_MATRIX_H

#include "kernels/base/file.h"
#include "tests/combos/draw.h"

#define MATRIX_BEGIN "<!-- combinations: build/test_combos --matrix README.md -->\n"
#define MATRIX_END   "<!-- end of combinations -->\n"

struct shown {
    int facet, value;
};

static inline int matrix_rows(struct shown *rows)
{
    int n = 0;
    for (int a = 0; a < FACETS; a++)
        for (int i = 0; i < values_of(a); i++)
            if (facets[a].value[i].shown) rows[n++] = (struct shown){a, i};
    return n;
}

static inline const char *why_of(const struct refusal *r) { return r->why ? r->why : r->reason; }

/* Its letter: one for each reason, in the order in which they come. */
static inline int letter_of(const char **reasons, int *n, const struct refusal *r)
{
    int i = 0;
    while (i < *n && strcmp(reasons[i], why_of(r))) i++;
    if (i == *n) reasons[(*n)++] = why_of(r);
    return 'a' + i;
}

static inline void matrix_text(const struct drawing *d, struct buf *out)
{
    struct shown rows[FLAT];
    const char *reasons[REFUSALS];
    int n = matrix_rows(rows), n_reasons = 0;
    buf_printf(out, MATRIX_BEGIN "| | |");
    for (int i = 1; i < n; i++) buf_printf(out, " %d |", i);
    buf_printf(out, "\n|--:|---|");
    for (int i = 1; i < n; i++) buf_printf(out, ":-:|");
    for (int i = 0; i < n; i++) {
        buf_printf(out, "\n| %d | %s |", i + 1, facets[rows[i].facet].value[rows[i].value].shown);
        for (int k = 0; k < i; k++) {
            const struct refusal *r = d->refused[flat_of(rows[i].facet, rows[i].value)][flat_of(rows[k].facet, rows[k].value)];
            if (rows[i].facet == rows[k].facet)
                buf_printf(out, " |");
            else if (!r)
                buf_printf(out, " ✓ |");
            else
                buf_printf(out, " %c |", letter_of(reasons, &n_reasons, r));
        }
        for (int k = i; k < n - 1; k++) buf_printf(out, " |");
    }
    buf_printf(out, "\n\n");
    for (int i = 0; i < n_reasons; i++) buf_printf(out, "%c: %s%s", 'a' + i, reasons[i], i == n_reasons - 1 ? ".\n" : ";\n");
    buf_printf(out, MATRIX_END);
}

/* Into the file, where the matrix was; or to standard output. */
static inline int matrix_write(const struct drawing *d, const char *path)
{
    struct buf matrix = {0}, whole = {0};
    char *text = NULL;
    size_t n;
    matrix_text(d, &matrix);
    if (!path) {
        fputs(matrix.data, stdout);
        return 0;
    }
    if (file_read(path, 1 << 20, &text, &n)) return fprintf(stderr, "%s\n", status_message()), 1;
    const char *begin = strstr(text, MATRIX_BEGIN), *end = strstr(text, MATRIX_END);
    if (!begin || !end) return fprintf(stderr, "%s has no place for the matrix: %s", path, MATRIX_BEGIN), 1;
    buf_add(&whole, text, (size_t)(begin - text));
    buf_text(&whole, matrix.data);
    buf_text(&whole, end + strlen(MATRIX_END));
    status st = file_replace(path, whole.data, whole.len);
    if (st) fprintf(stderr, "%s\n", status_message());
    buf_release(&matrix);
    buf_release(&whole);
    free(text);
    return st;
}

#endif
