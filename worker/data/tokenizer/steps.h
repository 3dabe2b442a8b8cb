/* steps.h — a list of steps and what runs it. Normalizer, pre-tokenizer and decoder are such lists, and their steps are
 * one kind of thing, spans in and spans out: HF's Replace is the same code as normalizer and as decoder. The kinds of
 * step are in normalise.h, pretokenise.h and decode.h. */
#ifndef TRIMPOT_TOK_STEPS_H
#define TRIMPOT_TOK_STEPS_H

#include "worker/data/tokenizer/charsmap.h"
#include "worker/data/tokenizer/pattern.h"
#include "worker/data/tokenizer/spans.h"
#include "worker/data/tokenizer/table.h"

struct tok_step;
typedef status tok_step_run(const struct tok_step *s, struct tok_matcher *m, const struct tok_spans *in, struct tok_spans *out);

struct tok_step { /* the declaration of each kind says which members it reads */
    tok_step_run *run;
    struct tok_regex *regex; /* owned */
    char *text;              /* owned */
    size_t text_n;
    int left, right, options;
    bool flag;
    const struct tok_charsmap *charsmap; /* SentencePiece's; lives in the tokenizer */
    const struct tok_trie *keep;         /* likewise: pieces the charsmap must not touch */
};

struct tok_steps {
    struct tok_step *v;
    int n;
};
struct tok_step *tok_steps_add(struct tok_steps *s, tok_step_run *run); /* valid until the next add */
void tok_step_text(struct tok_step *s, const char *text, size_t n);     /* copies */
void tok_steps_release(struct tok_steps *s);

/* Memory of one call. Zero-initialise; grows and is reused from text to text. */
struct tok_pass {
    struct tok_spans in, out;
    struct tok_matcher matcher;
};
void tok_pass_release(struct tok_pass *p);
/* Runs all steps over p->in; the result is in p->in. */
status tok_steps_run(const struct tok_steps *s, struct tok_pass *p);

#endif
