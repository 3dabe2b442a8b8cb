/* generate.h — text from a model: to see what was learned, not to serve it.
 *
 * Sequences of a batch are documents laid end to end: first the prompts, then one new token of each, whose past is in the
 * key/value cache. */
#ifndef TRIMPOT_GENERATE_H
#define TRIMPOT_GENERATE_H

#include "worker/session.h"

struct generate_options {
    int64_t max_new_tokens;
    double temperature; /* 0 = greedy */
    int64_t top_k;      /* 0 = all */
    double top_p;       /* 1 = all */
    uint64_t seed;
};

/* Sizes of a batch of `n` sequences with prompts of at most `prompt` tokens and `fresh` new ones, for session_open. */
struct batch_bounds generate_bounds(int64_t n, int64_t prompt, int64_t fresh);

/* Appends to every sequence until an end token (not appended) or max_new_tokens. Sequence i draws from (seed, i).
 *
 * What ends an answer is what the directories say, as in other programs: eos_token_id of generation_config.json (of
 * config.json, where there is none), the tokenizer's EOS, and with an adapter what its run trained: its own
 * generation_config.json. No token ends an answer by its name. */
status generate(struct session *x, struct ids *sequences, int64_t n, const struct generate_options *o);

#endif
