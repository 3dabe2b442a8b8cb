#include "configs/ynode.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void problem_add(struct problems *p, const struct place *at, const char *fmt, ...)
{
    if (p->count++ >= PROBLEMS_SHOWN) return;
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0) text = mem_strdup("out of host memory");
    va_end(ap);
    p->list[p->count - 1] = (struct problem){*at, text, p->count};
}

static int by_place(const void *a, const void *b)
{
    const struct problem *x = a, *y = b;
    int left[] = {x->at.line ? 0 : 1, x->at.line, x->at.column, x->at.argument, x->order};
    int right[] = {y->at.line ? 0 : 1, y->at.line, y->at.column, y->at.argument, y->order};
    for (int i = 0; i < 5; i++)
        if (left[i] != right[i]) return left[i] < right[i] ? -1 : 1;
    return 0;
}

void problems_write(struct problems *p, struct buf *out)
{
    int n = p->count < PROBLEMS_SHOWN ? p->count : PROBLEMS_SHOWN;
    qsort(p->list, (size_t)n, sizeof *p->list, by_place);
    for (int i = 0; i < n; i++) {
        const struct place *at = &p->list[i].at;
        if (i) buf_text(out, "\n");
        if (at->argument)
            buf_printf(out, "argument %d (%s): ", at->argument, text_shown(at->name));
        else if (at->line)
            buf_printf(out, "%s:%d:%d: ", at->name, at->line, at->column);
        else if (at->name)
            buf_printf(out, "%s: ", at->name);
        buf_text(out, p->list[i].text);
    }
}

void problems_release(struct problems *p)
{
    for (int i = 0; i < p->count && i < PROBLEMS_SHOWN; i++) free(p->list[i].text);
    buf_release(&p->left_out);
    *p = (struct problems){.count = 0};
}

struct ynode *ynode_new(enum ynode_kind kind, struct place at)
{
    struct ynode *n = mem_alloc(sizeof *n);
    n->kind = kind;
    n->at = n->key_at = at;
    return n;
}

struct ynode *ynode_scalar(const char *text, bool plain, struct place at)
{
    struct ynode *n = ynode_new(YNODE_SCALAR, at);
    n->text = mem_strdup(text);
    n->plain = plain;
    return n;
}

struct ynode *ynode_literal(const char *text, struct place at)
{
    struct ynode *n = ynode_scalar(text, false, at);
    n->literal = true;
    return n;
}

struct ynode *ynode_null(struct place at) { return ynode_scalar("null", true, at); }

void ynode_free(struct ynode *n)
{
    if (!n) return;
    for (int i = 0; i < n->n_child; i++) ynode_free(n->child[i]);
    free(n->child);
    free(n->text);
    free(n->key);
    free(n);
}

bool ynode_is_null(const struct ynode *n)
{
    static const char *const spelling[] = {"", "~", "null", "Null", "NULL", "None"};
    if (n->kind != YNODE_SCALAR || !n->plain) return false;
    for (size_t i = 0; i < sizeof spelling / sizeof *spelling; i++)
        if (!strcmp(n->text, spelling[i])) return true;
    return false;
}

static int find_index(const struct ynode *map, const char *key)
{
    if (!map || map->kind != YNODE_MAP) return -1;
    for (int i = 0; i < map->n_child; i++)
        if (!strcmp(map->child[i]->key, key)) return i;
    return -1;
}

struct ynode *ynode_find(const struct ynode *map, const char *key)
{
    int i = find_index(map, key);
    return i < 0 ? NULL : map->child[i];
}

struct ynode *ynode_find_path(const struct ynode *root, const char *dotted)
{
    char *path = mem_strdup(dotted), *rest = path;
    struct ynode *n = (struct ynode *)root;
    for (char *step; n && (step = strsep(&rest, "."));) {
        if (n->kind == YNODE_LIST) {
            char *end;
            long i = strtol(step, &end, 10);
            n = *step && !*end && i >= 0 && i < n->n_child ? n->child[i] : NULL;
        } else {
            n = ynode_find(n, step);
        }
    }
    free(path);
    return n;
}

void ynode_append(struct ynode *list, struct ynode *value)
{
    if (list->n_child == list->cap_child) {
        list->cap_child = list->cap_child ? 2 * list->cap_child : 8;
        list->child = mem_grow(list->child, (size_t)list->cap_child * sizeof *list->child);
    }
    list->child[list->n_child++] = value;
}

void ynode_put(struct ynode *map, const char *key, struct ynode *value, struct place key_at)
{
    free(value->key);
    value->key = mem_strdup(key);
    value->key_at = key_at;
    int i = find_index(map, key);
    if (i < 0) {
        ynode_append(map, value);
        return;
    }
    ynode_free(map->child[i]);
    map->child[i] = value;
}

void ynode_drop(struct ynode *map, const char *key)
{
    int i = find_index(map, key);
    if (i < 0) return;
    ynode_free(map->child[i]);
    memmove(&map->child[i], &map->child[i + 1], (size_t)(map->n_child - i - 1) * sizeof *map->child);
    map->n_child--;
}

void ynode_swap_content(struct ynode *a, struct ynode *b)
{
    struct ynode t = *a;
    *a = *b;
    *b = t;
    char *key = a->key;
    struct place key_at = a->key_at;
    a->key = b->key, a->key_at = b->key_at;
    b->key = key, b->key_at = key_at;
}

const char *text_shown(const char *text)
{
    enum { WIDTH = 60 };
    static _Thread_local char ring[8][WIDTH + 8];
    static _Thread_local unsigned next;
    char *out = ring[next++ % 8], *o = out;
    size_t n = strlen(text), shown = n > WIDTH ? WIDTH : n;
    while (shown < n && shown > 0 && ((unsigned char)text[shown] & 0xc0) == 0x80) shown--; /* whole characters */
    *o++ = '\'';
    for (size_t i = 0; i < shown; i++) *o++ = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    strcpy(o, n > shown ? "…'" : "'");
    return out;
}

const char *ynode_shown(const struct ynode *n)
{
    if (n->kind == YNODE_LIST) return "a list";
    if (n->kind == YNODE_MAP) return "a group of keys";
    return ynode_is_null(n) ? "null" : text_shown(n->text);
}
