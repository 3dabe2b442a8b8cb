/* family.h — what a config.json means: sizes, flags and numbers.
 *
 * What is a family's own stands in its row of configs/families.c. The block never asks which family it runs. */
#ifndef TRIMPOT_FAMILY_H
#define TRIMPOT_FAMILY_H

#include "checkpoints/hf.h"
#include "configs/families.h"
#include "kernels/ops.h"

enum { MODEL_MAX_LAYERS = HF_MAX_LAYERS };

/* All that the block builder is told (block.h): sizes, flags and numbers, never a name. */
struct model_shape {
    const struct family *family;
    int64_t layers, width, ffn, heads, kv_heads, head_dim, vocab, max_positions; /* L C F H K D V */
    float eps;
    enum act_kind act;
    float attn_scale;         /* of q·kᵀ: D^-½ unless the family says otherwise */
    float attn_cap, head_cap; /* soft caps of scores and logits, 0 = none */
    float embed_scale;        /* of the embedding's rows, rounded to the activations' dtype; 0 = none */
    bool qkv_bias;
    bool qk_norm;                      /* q and k are normed per head before RoPE */
    bool post_norms;                   /* a norm after attention and after the MLP, before the residual add */
    bool unit_offset;                  /* norms multiply by 1 + w */
    bool fused_qkv, fused_gate_up;     /* one tensor in the files: rows q|k|v, gate|up */
    bool tied;                         /* the head is the embedding */
    bool untied;                       /* config.json says tied, the files say otherwise */
    int64_t window;                    /* tokens a sliding layer sees, 0 = none slides */
    uint8_t sliding[MODEL_MAX_LAYERS]; /* 1 = this layer sees the window and turns by rope[1] */
    struct hf_rope rope[2];            /* of global layers; of sliding layers (equal where the family has one) */
};

/* Reads dir/config.json. ST_NOT_BUILT for an unknown or refused family, naming the known ones: that is judged before
 * anything else in the file. family_shape is its second half: it gives absent keys the family's meaning; `dir` is for the
 * message. */
status family_open(const char *dir, struct hf_config *hf, struct model_shape *out);
status family_shape(const char *dir, const struct hf_config *hf, struct model_shape *out);

/* What a configuration calls the model: torchtune's module and checkpointer name, NULL where it says nothing. ST_SHAPE when
 * dir/config.json is of another family. */
status family_agrees(const char *dir, const struct model_shape *m, const char *module, const char *checkpointer);

/* Tied in config.json, but the files hold two different tensors: both are kept, with a warning. */
void family_settle_head(const char *dir, const struct st_set *files, struct model_shape *m);

/* Inverse frequencies f'_j of one of the shape's ropes, j < head_dim·partial/2, in f64 rounded once to f32. longest: tokens of the longest document of
 * the run, which decides for all of them how far dynamic scaling stretches (transformers decides per forward call; up to
 * max_positions both are the same). cos and sin are to be multiplied by its `attention`. */
void family_rope_frequencies(const struct model_shape *m, const struct hf_rope *r, int64_t longest, float *out);

/* 2 where sliding layers turn otherwise than the others, else 1. */
int family_ropes(const struct model_shape *m);

/* The longest document that the positions were made for, stretching included: beyond it a warning is due. */
int64_t family_longest(const struct model_shape *m);

#endif
