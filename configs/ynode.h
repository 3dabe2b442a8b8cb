/* ynode.h — a configuration as written: nodes that remember where they stand.
 *
 *     file ──ynode_read──▶ tree ──override_apply──▶ tree ──interpolate──▶ tree ──bind_all──▶ struct config
 *
 * Nothing here knows a key: types are the schema's business. Everything read is outside data; depth, node count and
 * text length are bounded, and every complaint goes to `struct problems`, so that a person sees all of them at once. */
#ifndef TRIMPOT_YNODE_H
#define TRIMPOT_YNODE_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/text.h"

enum {
    YNODE_MAX_BYTES = 1 << 20, /* of a file */
    YNODE_MAX_TEXT = 1 << 16,  /* of a scalar, also after interpolation */
    YNODE_MAX_NODES = 5000,
    YNODE_MAX_DEPTH = 16,
    PROBLEMS_SHOWN = 100,
};

/* argument > 0: number of a command-line override, `name` its text. line 0 and no argument: an option, `name` says it.
 * `name` is borrowed from the caller of config_load. */
struct place {
    const char *name;
    int line, column, argument;
};

struct problem {
    struct place at;
    char *text;
    int order; /* of discovery */
};

struct problems {
    struct problem list[PROBLEMS_SHOWN];
    int count;           /* may exceed what is kept */
    bool unknown_key;    /* one was misspelt, or its value was refused: what seems missing may be meant by it */
    struct buf left_out; /* no problem, but worth a word: keys of the file that the command line's component does not take */
};

void problem_add(struct problems *p, const struct place *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* One line each, "FILE:LINE:COL: …" in the order of the file, then those of the command line. */
void problems_write(struct problems *p, struct buf *out);
void problems_release(struct problems *p);

enum ynode_kind { YNODE_SCALAR, YNODE_LIST, YNODE_MAP };

struct ynode {
    enum ynode_kind kind;
    char *key; /* in a map */
    struct place key_at, at;
    char *text;             /* scalar */
    bool plain;             /* unquoted: only then null, ~, None and nothing mean null */
    bool literal;           /* an option's own bytes: neither ${…} nor a leading ~/ means anything in them */
    unsigned char expanded; /* interpolation: 0 not yet, 1 in progress, 2 done, 3 failed */
    struct ynode **child;
    int n_child, cap_child;
};

struct ynode *ynode_new(enum ynode_kind kind, struct place at);
struct ynode *ynode_scalar(const char *text, bool plain, struct place at);
struct ynode *ynode_literal(const char *text, struct place at);
struct ynode *ynode_null(struct place at);
void ynode_free(struct ynode *n);
bool ynode_is_null(const struct ynode *n);
struct ynode *ynode_find(const struct ynode *map, const char *key); /* NULL if absent or not a map */
struct ynode *ynode_find_path(const struct ynode *root, const char *dotted);
void ynode_put(struct ynode *map, const char *key, struct ynode *value, struct place key_at); /* replaces; owns value */
void ynode_drop(struct ynode *map, const char *key);
void ynode_append(struct ynode *list, struct ynode *value);
void ynode_swap_content(struct ynode *a, struct ynode *b); /* everything but key and key_at */

/* What a message calls the value: 'text' (clipped, control characters shown as ?), "a list", "a group of keys". A ring
 * of 8 static buffers per thread. */
const char *ynode_shown(const struct ynode *n);
const char *text_shown(const char *text);

/* YAML text to a tree; NULL (with a problem) if it cannot be read at all. An empty document is an empty map for a file
 * (argument == 0), null for an argument. */
struct ynode *ynode_read(const char *text, size_t bytes, struct place origin, struct problems *p);

/* key=value, ~key: changes the tree. number: place.argument of its values. */
void override_apply(struct ynode *root, const char *argument, int number, struct problems *p);
/* The same with the pieces at hand: for options that stand for a key. Owns value. */
void override_set(struct ynode *root, const char *dotted, struct ynode *value, struct place at, struct problems *p);

/* Replaces ${a.b} in every scalar that is not literal by the value written at a.b, or by that key's default. Cycles are
 * problems. */
void interpolate(struct ynode *root, struct problems *p);

#endif
