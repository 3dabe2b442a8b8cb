/* pretokenise.h — the kinds of pre-tokenizer step: they cut, and write spaces and bytes as vocabularies have them. */
#ifndef TRIMPOT_TOK_PRETOKENISE_H
#define TRIMPOT_TOK_PRETOKENISE_H

#include "worker/data/tokenizer/steps.h"

enum tok_behaviour { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_MERGED_PREVIOUS, SPLIT_MERGED_NEXT, SPLIT_CONTIGUOUS };
enum tok_prepend { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };

tok_step_run step_split; /* regex, options: enum tok_behaviour, flag: invert */
tok_step_run step_prefix_space;
tok_step_run step_bytes;     /* GPT-2 alphabet */
tok_step_run step_metaspace; /* text: replacement, options: enum tok_prepend; the split is a step_split */

extern const char TOK_PATTERN_GPT2[]; /* what ByteLevel splits by */

/* Appends the GPT-2 alphabet form of bytes, as step_bytes writes it. */
void tok_bytes_to_alphabet(struct buf *b, const char *bytes, size_t n);

#endif
