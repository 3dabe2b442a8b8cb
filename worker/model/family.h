/* family.h — what a config.json means: sizes, and what is truly its family's own.
 *
 * A family is one row of the table in family.c. The block never asks which family it runs: it sees sizes, flags and
 * parameters that exist or do not. */
#ifndef TRIMPOT_FAMILY_H
#define TRIMPOT_FAMILY_H

#include "checkpoints/hf.h"
#include "kernels/ops.h"

struct family {
    const char *model_type; /* config.json */
    bool qkv_bias;          /* q, k, v have .bias */
    enum act_kind act;
    const char *hidden_act; /* what config.json must say */
    const char *later;      /* not NULL: known, not built yet; the reason */
};

struct model_shape {
    const struct family *family;
    int64_t layers, width, ffn, heads, kv_heads, head_dim, vocab, max_positions; /* L C F H K D V */
    float eps;
    bool tied;
    int64_t window;         /* sliding window in tokens, 0 = none … */
    int64_t window_from;    /* … on layers ≥ this */
    struct hf_rope rope;
};

/* ST_NOT_BUILT for an unknown or later family, naming the known ones. `dir` is for the message. */
status family_shape(const char *dir, const struct hf_config *hf, struct model_shape *out);

/* Inverse frequencies f'_j, j < head_dim·partial/2, in f64 rounded once to f32. */
void family_rope_frequencies(const struct model_shape *m, float *out);

/* Parameters of the model by torchtune's sums, for the header. */
int64_t family_parameters(const struct model_shape *m);

#endif
