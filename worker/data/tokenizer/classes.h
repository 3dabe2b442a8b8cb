/* classes.h — what bare files leave unsaid, by what somebody called them. Data only. */
#ifndef TRIMPOT_TOK_CLASSES_H
#define TRIMPOT_TOK_CLASSES_H

#include "configs/families.h"
#include "worker/data/tokenizer/byte_files.h"
#include "worker/data/tokenizer/spm_file.h"

/* By torchtune's component or by model_type; family_tokens_plain for names nobody knows. NULL: name is NULL. */
const struct family_tokens *tok_family_find(const char *name);
const struct family_tokens *tok_family_guess(const struct tokenizer *t); /* by the end token it has */
const char *tok_split_pattern(enum token_split split);                   /* NULL: not byte-level */
/* Adds its specials, each at its own id in the vocabulary or at the next free one. */
status tok_family_specials(struct tokenizer *t, const struct family_tokens *family);

/* By tokenizer_class of tokenizer_config.json, as transformers 5 builds such a class from bare files. */
struct tok_class {
    const char *name;    /* without "Fast" */
    const char *pattern; /* of vocab.json + merges.txt; NULL: it reads no such files */
    bool nfc;
    enum tok_prefix prefix; /* with add_prefix_space */
    enum tok_spm_as spm;
    bool bos_added;
    const char *bos, *eos, *unk, *pad, *mask;
    const char *const *more; /* further special tokens; NULL-terminated */
};
const struct tok_class *tok_class_find(const char *name); /* NULL: not built */
void tok_class_names(struct buf *b, bool spm);            /* those that read such files, with commas */
/* True for a model_type whose files transformers reads without regard to the class. */
bool tok_reads_as_backend(const char *model_type);

/* Files that are known and not read. */
struct tok_foreign {
    const char *file, *format;
};
extern const struct tok_foreign TOK_FOREIGN[];                           /* ends with a NULL */
const char *tok_foreign_tiktoken(int32_t ranks, const char *model_type); /* whose vocabulary that is; NULL: Llama 3's */

#endif
