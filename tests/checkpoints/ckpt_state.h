/* ckpt_state.h — a state for checkpoint tests: every element is a function of (seed, class, index), so that what was
 * loaded can be judged without keeping what was saved. */
#ifndef TRIMPOT_TEST_CKPT_STATE_H
#define TRIMPOT_TEST_CKPT_STATE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/ckpt.h"

enum { STATE_CLASSES = 4 };

struct state {
    struct ckpt_class classes[STATE_CLASSES];
    struct ckpt_tensor tensors[2];
    struct ckpt_state s;
    char meta[128];
};

static inline uint64_t state_word(uint64_t seed, uint64_t k, uint64_t i)
{
    uint64_t x = seed * 0x9E3779B97F4A7C15u + k * 0xBF58476D1CE4E5B9u + i * 0x94D049BB133111EBu;
    x ^= x >> 29;
    x *= 0xD6E8FEB86659FD93u;
    return x ^ x >> 32;
}

static inline void state_fill(struct state *st, uint64_t seed)
{
    for (int k = 0; k < STATE_CLASSES; k++) {
        size_t n = (size_t)st->classes[k].count * dtype_bytes(st->classes[k].dt);
        unsigned char *p = st->classes[k].data;
        for (size_t i = 0; i < n; i++) p[i] = (unsigned char)(state_word(seed, (uint64_t)k, i / 8) >> (i % 8 * 8));
    }
    st->s.step = (int64_t)seed;
    snprintf(st->meta, sizeof st->meta, "{\"seed\": %llu,\n  \"lr\": 0.1, \"text\": \"a\\nb\"}",
             (unsigned long long)seed);
}

/* The first differing class of the loaded state, or -1. */
static inline int state_differs(const struct state *st, uint64_t seed)
{
    for (int k = 0; k < STATE_CLASSES; k++) {
        size_t n = (size_t)st->classes[k].count * dtype_bytes(st->classes[k].dt);
        const unsigned char *p = st->classes[k].data;
        for (size_t i = 0; i < n; i++)
            if (p[i] != (unsigned char)(state_word(seed, (uint64_t)k, i / 8) >> (i % 8 * 8))) return k;
    }
    return -1;
}

/* `count` elements in the first class; the others are shorter, one is empty. */
static inline void state_init(struct state *st, int64_t count)
{
    *st = (struct state){
        .classes = {{"weights", DT_BF16, count, NULL},
                    {"master", DT_F32, count, NULL},
                    {"none", DT_F32, 0, NULL},
                    {"codes", DT_U8, count / 3, NULL}},
        .tensors = {{"model.embed.weight", 2, {count / 8, 4}, 0}, {"model.norm.weight", 1, {count / 2}, count / 2}},
    };
    for (int k = 0; k < STATE_CLASSES; k++)
        st->classes[k].data = calloc((size_t)st->classes[k].count + 1, dtype_bytes(st->classes[k].dt));
    st->s = (struct ckpt_state){.classes = st->classes,
                                .n_classes = STATE_CLASSES,
                                .tensors = st->tensors,
                                .n_tensors = 2,
                                .meta_json = st->meta};
}

static inline void state_release(struct state *st)
{
    for (int k = 0; k < STATE_CLASSES; k++) free(st->classes[k].data);
}

#endif
