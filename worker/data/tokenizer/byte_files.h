/* byte_files.h — reads byte-level files that carry no pipeline of their own: vocab.json + merges.txt, and tiktoken's
 * .model. Messages get the path from the caller. */
#ifndef TRIMPOT_TOK_BYTE_FILES_H
#define TRIMPOT_TOK_BYTE_FILES_H

#include "worker/data/tokenizer/parts.h"

enum tok_prefix { PREFIX_NONE, PREFIX_TEXT, PREFIX_EVERY }; /* a space in front of a text, or of every part of it */

struct tok_byte_rules {
    const char *pattern; /* Oniguruma */
    bool nfc;
    enum tok_prefix prefix;
};
status tok_read_gpt2(struct tokenizer *t, const char *vocab, size_t vocab_n, const char *merges, size_t merges_n,
                     struct tok_byte_rules rules);
status tok_read_tiktoken(struct tokenizer *t, const char *data, size_t n, struct tok_byte_rules rules);

#endif
