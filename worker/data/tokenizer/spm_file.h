/* spm_file.h — reads a SentencePiece .model, as SentencePiece itself or as a class of transformers uses it. Messages
 * get the path from the caller. */
#ifndef TRIMPOT_TOK_SPM_FILE_H
#define TRIMPOT_TOK_SPM_FILE_H

#include "worker/data/tokenizer/parts.h"
#include "worker/data/tokenizer/pretokenise.h"

enum tok_spm_as {
    SPM_AS_NOTHING,    /* the class does not read such files */
    SPM_AS_ITSELF,     /* as the package sentencepiece */
    SPM_AS_LLAMA,      /* the pieces alone: merges in the order of ids, byte fallback, ▁ by a Metaspace, no unknown piece */
    SPM_AS_CODE_LLAMA, /* the same with an unknown piece */
    SPM_AS_GEMMA,      /* the same with ▁ by a Replace, and never one in front */
    SPM_AS_BACKEND,    /* what TokenizersBackend makes of the file's own settings */
};

struct tok_spm_rules {
    enum tok_spm_as as;
    enum tok_prepend prepend; /* of the Metaspace */
};
status tok_read_spm(struct tokenizer *t, const unsigned char *data, size_t n, struct tok_spm_rules rules);

#endif
