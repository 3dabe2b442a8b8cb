#include "checkpoints/jedit.h"

#include <stdlib.h>
#include <string.h>

static const char *skip_space(const char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r') p++;
    return p;
}

static const char *skip_string(const char *p) /* p at the opening quote; returns behind the closing one */
{
    for (p++; *p != '"'; p++)
        if (*p == '\\') p++;
    return p + 1;
}

static const char *skip_value(const char *p)
{
    if (*p == '"') return skip_string(p);
    if (*p != '{' && *p != '[') return p + strcspn(p, ",}] \t\r\n");
    int depth = 0;
    do {
        if (*p == '"') {
            p = skip_string(p);
            continue;
        }
        depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
        p++;
    } while (depth);
    return p;
}

/* Where the value of a top-level key begins; NULL if absent. */
static const char *find_value(const char *text, const char *key)
{
    size_t n = strlen(key);
    const char *p = skip_space(skip_space(text) + 1);
    while (*p == '"') {
        const char *end = skip_string(p), *value = skip_space(skip_space(end) + 1);
        if ((size_t)(end - p) == n + 2 && memcmp(p + 1, key, n) == 0) return value;
        p = skip_space(skip_value(value));
        if (*p == ',') p = skip_space(p + 1);
    }
    return NULL;
}

/* The bytes between two places of the text give way to `fresh`. */
static void splice(struct buf *text, const char *from, const char *to, const char *fresh)
{
    struct buf out = {0};
    buf_add(&out, text->data, (size_t)(from - text->data));
    buf_text(&out, fresh);
    buf_text(&out, to);
    buf_release(text);
    *text = out;
}

bool jedit_replace(struct buf *text, const char *key, const char *value)
{
    const char *v = find_value(text->data, key);
    if (v) splice(text, v, skip_value(v), value);
    return v != NULL;
}

void jedit_remove(struct buf *text, const char *key)
{
    const char *v = find_value(text->data, key);
    if (!v) return;
    const char *end = skip_value(v), *after = skip_space(end), *begin = v;
    size_t n = strlen(key) + 2;
    while (memcmp(begin, "\"", 1) || strncmp(begin + 1, key, n - 2) || begin[n - 1] != '"') begin--;
    if (*after == ',') { /* up to the next pair; else, of the last one, with the comma before it */
        splice(text, begin, skip_space(after + 1), "");
        return;
    }
    while (begin[-1] != ',' && begin[-1] != '{') begin--;
    splice(text, begin[-1] == ',' ? begin - 1 : begin, end, "");
}

void jedit_set(struct buf *text, const char *key, const char *value)
{
    if (jedit_replace(text, key, value)) return;
    const char *inside = strchr(text->data, '{') + 1;
    char *pair = mem_printf("\n  \"%s\": %s%s", key, value, *skip_space(inside) == '}' ? "" : ",");
    splice(text, inside, inside, pair);
    free(pair);
}
