/* parts.h — what every kind of tokenizer file becomes.
 *
 *   text ─ added tokens found ─▶ gaps ─ normalizer, pre-tokenizer ─▶ spans ─ model.segment ─▶ ids
 *   ids ─ pieces ─▶ spans ─ decoder ─▶ text
 *
 * A reader (json_file, byte_files, spm_file) fills it and knows nothing of encoding; what encodes (tokenizer.c and
 * below) knows nothing of files. */
#ifndef TRIMPOT_TOK_PARTS_H
#define TRIMPOT_TOK_PARTS_H

#include "worker/data/tokenizer/added.h"
#include "worker/data/tokenizer/charsmap.h"
#include "worker/data/tokenizer/model.h"
#include "worker/data/tokenizer/steps.h"

struct tokenizer {
    char *path, *describe;
    const char *kind; /* "byte-level BPE", … */
    struct tok_model model;
    struct tok_steps normalizer, pre_tokenizer, decoder;
    struct tok_charsmap charsmap;
    struct tok_added_set added;
    struct ids prefix, suffix; /* what the post-processor puts around a document */
    bool has_template;
    int32_t bos, eos, pad;
    int32_t size; /* largest id + 1 */
};

#endif
