/* added.h — added tokens: found in text leftmost longest before anything else happens to it. */
#ifndef TRIMPOT_TOK_ADDED_H
#define TRIMPOT_TOK_ADDED_H

#include "worker/data/tokenizer/steps.h"

struct tok_added {
    char *text, *form; /* owned; form: as normalised text has it, NULL if that is the same */
    size_t n, form_n;
    int32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
};

struct tok_added_set {
    struct tok_added *v;
    int32_t n;
    struct tok_trie all, raw, normalized; /* value: index into v; raw: those that are not normalized */
    struct tok_map by_id;
    bool all_raw; /* all are looked for in the text as it was written, whatever they say */
};

/* An id may be shared with a model piece, not with another added token; the same token again is ignored. */
status tok_added_add(struct tok_added_set *a, struct tok_added token, const char *text, size_t n);
const struct tok_added *tok_added_find(const struct tok_added_set *a, const char *text, size_t n);
const struct tok_added *tok_added_of_id(const struct tok_added_set *a, int32_t id);
/* Builds what finds them; after normalizer and added tokens are complete. */
status tok_added_finish(struct tok_added_set *a, const struct tok_steps *normalizer);
void tok_added_release(struct tok_added_set *a);

/* Special tokens: found nowhere, or where no byte of theirs is quoted (one flag per byte of the text, 0 or 1; NULL:
 * none is). */
struct tok_specials {
    bool found;
    const unsigned char *quoted;
};

struct tok_scan {
    size_t search, last; /* where to look next; end of the last token found */
    size_t at, end;      /* of the token, with the white space it swallows */
    size_t start;        /* at, or `last` where the token before swallowed the beginning of this one */
    const struct tok_added *token;
};
/* The next added token of the trie, one of the set's; false: there is no more, and last is where to go on. */
bool tok_added_next(const struct tok_added_set *a, const struct tok_trie *trie, const char *text, size_t n, struct tok_specials specials,
                    struct tok_scan *s);

#endif
