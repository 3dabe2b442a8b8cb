/* keys.h — which keys of a row and of a message mean something, and what. Private to rows/ but for struct unused.
 *
 * Every key of every row is looked at. The shape's own columns are content; what the table knows is honoured or refused;
 * whatever else has a value is collected and told once per data set. */
#ifndef TRIMPOT_KEYS_H
#define TRIMPOT_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "kernels/base/status.h"

/* Names of keys that nothing uses: sorted, each once, the first UNUSED_MOST in the alphabet of all that came. So the
 * union of several sets does not depend on which thread saw which row. */
enum { UNUSED_MOST = 64 };
struct key_names {
    char **v;
    int n;
    bool more;
};
struct unused {
    struct key_names columns, in_messages;
};

void unused_merge(struct unused *into, const struct unused *from);
void unused_release(struct unused *u);
/* "FILE: columns not used: id, source; in messages: id" as a note; nothing when there are none. */
void unused_report(const char *file, const struct unused *u);

/* Where a key stands: a bit each. */
enum key_place { IN_CHAT = 1, IN_PAIR = 2, IN_TEXT = 4, IN_MESSAGE = 8 };

enum key_use {
    USE_SYSTEM,    /* the first system message */
    USE_HISTORY,   /* turns before the row's own */
    USE_CONTEXT,   /* what the prompt speaks about */
    USE_TOOLS,     /* descriptions for the chat template */
    USE_FUNCTIONS, /* the same, without their wrapping */
    USE_REASONING, /* of the answer, or of the message it stands in */
    USE_CALLS,     /* tool_calls */
    USE_CALL,      /* function_call: one of them, without its wrapping */
    USE_EXTRA,     /* of a message: a chat template may render it */
    USE_PASSED,    /* of a message: goes with it */
    USE_WEIGHT,    /* 0 or 1 times the loss */
    USE_TRAIN,     /* trained on or not, whatever the masking strategy says */
    USE_MASKED,    /* true: not trained on */
    USE_CONTENT,   /* of another shape: refused unless empty, or the configuration says which columns count */
    USE_REFUSED,   /* would be lost: refused unless empty */
};

struct key {
    const char *name;
    unsigned places;
    enum key_use use;
    const char *remedy; /* of USE_CONTENT and USE_REFUSED */
};

/* Whatever the letter case; NULL: means nothing there. */
const struct key *key_find(const char *name, enum key_place place);

/* A column of a row: by its exact name, else by one that differs in letter case only. */
json_t *row_column(const json_t *row, const char *name);

/* Of a value that would be lost: whether there is anything in it. */
bool is_said(const json_t *v);
bool is_blank(const char *s, size_t n); /* white space only */

/* Collects a key that nothing uses; nulls are nothing. */
void unused_add(struct key_names *set, const char *name, const json_t *value);

/* What the flags of one message or row say: the name of the key that said so, NULL: nothing did. */
struct flags {
    const char *off, *on;
};
/* `place` ("messages[1].", "" for the row) begins the message. In a row, words will do: CSV has no numbers. ST_DATA for
 * a value that is neither 0, 1, true nor false, and when two flags contradict each other. */
status flags_read(struct flags *f, const struct key *key, const char *name, const json_t *value, const char *place);

status refuse_said(const struct key *key, const char *name, const json_t *value, const char *place);

#endif
