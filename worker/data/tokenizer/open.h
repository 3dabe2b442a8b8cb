/* open.h — all from memory, as the fuzzers and the table of bad files need it. */
#ifndef TRIMPOT_TOK_OPEN_H
#define TRIMPOT_TOK_OPEN_H

#include "worker/data/tokenizer/tokenizer.h"

struct tok_source {
    const char *path, *kind; /* path is for messages; kind: "tokenizer.json", "vocab.json", "tiktoken", "sentencepiece" */
    const char *data;
    size_t n;
    const char *merges; /* of a vocab.json */
    size_t merges_n;
    /* Texts of files beside it, each may be NULL; specials: a tokenizer.json whose added tokens are taken. */
    const char *config, *special_map, *added, *model_config, *specials;
    const char *family, *model_type; /* of the hint */
};
status tokenizer_from_memory(const struct tok_source *s, struct tokenizer **out);

#endif
