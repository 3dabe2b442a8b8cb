/* ckpt_state.h — a state for checkpoint tests: every element is a function of (seed, class, index), so that what was
 * loaded can be judged without keeping what was saved. */
#ifndef TRIMPOT_TEST_CKPT_STATE_H
#define TRIMPOT_TEST_CKPT_STATE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/ckpt.h"

enum { STATE_CLASSES = 5 };

struct state_vector {
    char *data;
    size_t element;
    int64_t stored;
};

struct state {
    struct state_vector *vectors; /* on the heap: copies of a state share them */
    struct ckpt_class classes[STATE_CLASSES];
    struct ckpt_tensor tensors[2];
    struct ckpt_state s;
    char meta[128];
};

static inline size_t state_bytes(const struct state *st, int k) { return (size_t)st->vectors[k].stored * st->vectors[k].element; }

static inline status state_check(const struct state_vector *v, int64_t at, int64_t n)
{
    if (at < 0 || n < 1 || n > v->stored - at || (size_t)n * v->element > 4 << 20)
        FAIL(ST_FAIL, "%lld elements at %lld of %lld are asked for", (long long)n, (long long)at, (long long)v->stored);
    return ST_OK;
}

static inline status state_read(void *owner, int64_t at, int64_t n, void *to_host)
{
    const struct state_vector *v = owner;
    TRY(state_check(v, at, n));
    memcpy(to_host, v->data + (size_t)at * v->element, (size_t)n * v->element);
    return ST_OK;
}

static inline status state_write(void *owner, int64_t at, int64_t n, const void *from_host)
{
    const struct state_vector *v = owner;
    TRY(state_check(v, at, n));
    memcpy(v->data + (size_t)at * v->element, from_host, (size_t)n * v->element);
    return ST_OK;
}

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
        size_t n = state_bytes(st, k);
        unsigned char *p = (unsigned char *)st->vectors[k].data;
        for (size_t i = 0; i < n; i++) p[i] = (unsigned char)(state_word(seed, (uint64_t)k, i / 8) >> (i % 8 * 8));
    }
    st->s.step = (int64_t)seed;
    snprintf(st->meta, sizeof st->meta, "{\"seed\": %llu,\n  \"lr\": 0.1, \"text\": \"a\\nb\"}", (unsigned long long)seed);
}

/* The first differing class of the loaded state, or -1. */
static inline int state_differs(const struct state *st, uint64_t seed)
{
    for (int k = 0; k < STATE_CLASSES; k++) {
        size_t n = state_bytes(st, k);
        const unsigned char *p = (const unsigned char *)st->vectors[k].data;
        for (size_t i = 0; i < n; i++)
            if (p[i] != (unsigned char)(state_word(seed, (uint64_t)k, i / 8) >> (i % 8 * 8))) return k;
    }
    return -1;
}

/* `count` elements in the first class; others are shorter, one is empty, one has an element for 256. */
static inline void state_init(struct state *st, int64_t count)
{
    *st = (struct state){
        .vectors = calloc(STATE_CLASSES, sizeof *st->vectors),
        .classes = {{"weights", DT_BF16, count, 1},
                    {"master", DT_F32, count, 1},
                    {"none", DT_F32, 0, 1},
                    {"codes", DT_U8, count / 3, 1},
                    {"absmax", DT_F32, count, 256}},
        .tensors = {{"model.embed.weight", 2, {count / 8, 4}, 0}, {"model.norm.weight", 1, {count / 2}, count / 2}},
    };
    for (int k = 0; k < STATE_CLASSES; k++) {
        struct ckpt_class *c = &st->classes[k];
        int64_t stored = (c->count + c->per - 1) / c->per;
        st->vectors[k] = (struct state_vector){calloc((size_t)stored + 1, dtype_bytes(c->dt)), dtype_bytes(c->dt), stored};
        c->owner = &st->vectors[k];
        c->read = state_read;
        c->write = state_write;
    }
    st->s = (struct ckpt_state){
        .classes = st->classes, .n_classes = STATE_CLASSES, .tensors = st->tensors, .n_tensors = 2, .meta_json = st->meta};
}

static inline void state_release(struct state *st)
{
    for (int k = 0; k < STATE_CLASSES; k++) free(st->vectors[k].data);
    free(st->vectors);
}

#endif
