/* segment.h — two ways of cutting a pre-token into pieces (values of tok_model.segment), and the memory they share. */
#ifndef TRIMPOT_TOK_SEGMENT_H
#define TRIMPOT_TOK_SEGMENT_H

#include "worker/data/tokenizer/model.h"

struct tok_symbol;
struct tok_merge;
struct tok_best;

struct tok_work { /* zero-initialise */
    struct tok_symbol *symbols;
    struct tok_merge *heap;
    size_t n_symbols, cap_symbols, n_heap, cap_heap;
    struct tok_best *best;
    size_t cap_best;
};
void tok_work_release(struct tok_work *w);

status tok_bpe_segment(const struct tok_model *m, struct tok_work *w, const struct tok_spans *s, size_t at, size_t n, struct tok_sink *out);
void tok_bpe_words(struct tok_model *m); /* finds out `words`; once the vocabulary is complete */
status tok_unigram_segment(const struct tok_model *m, struct tok_work *w, const struct tok_spans *s, size_t at, size_t n,
                           struct tok_sink *out);

#endif
