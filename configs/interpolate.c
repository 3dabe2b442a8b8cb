/* interpolate.c — ${a.b} inside scalars, resolved after the command line has had its say. */
#include <stdlib.h>
#include <string.h>

#include "configs/schema.h"
#include "configs/ynode.h"

enum { CHAIN_MAX = 64, TOTAL_MAX = 4 << 20 };

struct expansion {
    struct ynode *root;
    struct problems *problems;
    int depth;
    size_t total; /* bytes produced: a short file must not become a large one */
};

static bool expand(struct expansion *x, struct ynode *n);

/* What of its target a reference takes over: whether the text may mean null, and whether it is an option's own bytes. */
struct origin {
    bool plain, literal;
};

/* The text that ${name} stands for; NULL after a problem. */
static const char *lookup(struct expansion *x, const struct ynode *from, const char *name, struct origin *origin)
{
    struct ynode *target = ynode_find_path(x->root, name);
    if (!target) {
        const char *value = schema_default_text(name);
        if (value) {
            *origin = (struct origin){.plain = true};
            return value;
        }
        const char *near = schema_nearest_path(name);
        problem_add(x->problems, &from->at, "${%s} names no key of this file%s%s%s", name, near ? "; did you mean ${" : "",
                    near ? near : "", near ? "}?" : "");
        return NULL;
    }
    if (target->kind != YNODE_SCALAR) {
        problem_add(x->problems, &from->at, "${%s} is %s: only single values can be referred to", name, ynode_shown(target));
        return NULL;
    }
    if (target->expanded == 1) {
        problem_add(x->problems, &from->at, "${%s} leads back to itself", name);
        return NULL;
    }
    if (!expand(x, target)) return NULL;
    *origin = (struct origin){target->plain, target->literal};
    return target->text;
}

static bool name_is_valid(const char *name, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.", name[i])) return false;
    return n > 0 && n < 200 && name[0] != '.';
}

/* One ${…} beginning at `open`: appends its value, returns what follows it; NULL after a problem. */
static const char *expand_one(struct expansion *x, const struct ynode *n, const char *open, struct buf *out, struct origin *origin)
{
    const char *name = open + 2, *close = strchr(name, '}');
    if (!close || !name_is_valid(name, (size_t)(close - name))) {
        problem_add(x->problems, &n->at, "%s: only ${key} and ${group.key} are understood, no resolvers (write \\${ for the characters)",
                    text_shown(open));
        return NULL;
    }
    char *key = strndup(name, (size_t)(close - name));
    const char *value = key ? lookup(x, n, key, origin) : NULL;
    if (value) buf_text(out, value);
    free(key);
    return value ? close + 1 : NULL;
}

static bool expand_text(struct expansion *x, struct ynode *n)
{
    struct buf out = {0};
    struct origin origin = {0};
    bool literal = false; /* the text begins with an option's own bytes */
    const char *s = n->text;
    bool whole = !strncmp(s, "${", 2) && strchr(s, '}') && !strchr(s, '}')[1];
    buf_text(&out, "");
    while (*s) {
        size_t run = strcspn(s, "\\$");
        buf_add(&out, s, run);
        s += run;
        if (!strncmp(s, "\\${", 3)) {
            buf_text(&out, "${");
            s += 3;
        } else if (!strncmp(s, "${", 2)) {
            bool first = !out.len;
            s = expand_one(x, n, s, &out, &origin);
            if (!s) break;
            if (first) literal = origin.literal;
        } else if (*s) {
            buf_add(&out, s++, 1);
        }
        if (out.len > YNODE_MAX_TEXT || x->total + out.len > TOTAL_MAX) {
            problem_add(x->problems, &n->at, "too long once its ${…} are filled in (%d bytes a value, %d in all)", (int)YNODE_MAX_TEXT,
                        (int)TOTAL_MAX);
            s = NULL;
            break;
        }
    }
    x->total += out.len;
    if (s) {
        free(n->text);
        n->text = mem_strdup(out.data);
        n->plain = whole ? origin.plain : n->plain;
        n->literal = literal;
    }
    buf_release(&out);
    return s != NULL;
}

static bool expand(struct expansion *x, struct ynode *n)
{
    if (n->expanded == 2) return true;
    if (n->expanded == 3) return false; /* reported when it was tried first */
    if (n->literal || !strstr(n->text, "${")) {
        n->expanded = 2;
        return true;
    }
    if (++x->depth > CHAIN_MAX) {
        problem_add(x->problems, &n->at, "a chain of more than %d references", (int)CHAIN_MAX);
        x->depth--;
        return false;
    }
    n->expanded = 1;
    bool good = expand_text(x, n);
    n->expanded = good ? 2 : 3;
    x->depth--;
    return good;
}

static void walk(struct expansion *x, struct ynode *n)
{
    if (n->kind == YNODE_SCALAR) expand(x, n);
    for (int i = 0; i < n->n_child; i++) walk(x, n->child[i]);
}

void interpolate(struct ynode *root, struct problems *p)
{
    struct expansion x = {.root = root, .problems = p};
    walk(&x, root);
}
