/* eight.h — eight neighbours of a flat vector of f32 or bf16, read or written by one thread: 16 bytes at a time where the view
 * allows it, else one element at a time. What is read stays as it lay until it is asked for, so that a thread's loads run together. */
#ifndef TRIMPOT_CUDA_EIGHT_H
#define TRIMPOT_CUDA_EIGHT_H

#include "kernels/cuda/cuda.h"

enum { EIGHT = 8 };

struct alignas(16) eight {
    uint32_t word[EIGHT]; /* f32: one each; bf16: two in each of the first four, the lower half first */
};

static __device__ inline bool on_16_bytes(const void *p) { return (uintptr_t)p % 16 == 0; }

static __device__ inline float eight_value(const struct eight &x, dtype dt, int j)
{
    if (dt == DT_F32) return f32_from_bits(x.word[j]);
    return bf16_widen((bf16)(x.word[j / 2] >> 16 * (j % 2)));
}

static __device__ inline void eight_set(struct eight &x, int j, bf16 h) { x.word[j / 2] |= (uint32_t)h << 16 * (j % 2); }

/* Elements [first + from, first + to) of the vector at `data` to places [from, to), zeros to the others; 0 ≤ from ≤ to ≤ 8. */
static __device__ inline struct eight eight_load(const void *data, dtype dt, int64_t first, int from, int to)
{
    struct eight x = {};
    if (dt == DT_F32) {
        const uint32_t *p = (const uint32_t *)data + first;
        if (to - from == EIGHT && on_16_bytes(p)) {
            *(uint4 *)x.word = *(const uint4 *)p;
            *(uint4 *)(x.word + 4) = *(const uint4 *)(p + 4);
            return x;
        }
#pragma unroll
        for (int j = 0; j < EIGHT; j++)
            if (j >= from && j < to) x.word[j] = p[j];
        return x;
    }
    const bf16 *p = (const bf16 *)data + first;
    if (to - from == EIGHT && on_16_bytes(p)) {
        *(uint4 *)x.word = *(const uint4 *)p;
        return x;
    }
#pragma unroll
    for (int j = 0; j < EIGHT; j++)
        if (j >= from && j < to) eight_set(x, j, p[j]);
    return x;
}

static __device__ inline void eight_store(void *data, dtype dt, int64_t first, int from, int to, const struct eight &x)
{
    if (dt == DT_F32) {
        uint32_t *p = (uint32_t *)data + first;
        if (to - from == EIGHT && on_16_bytes(p)) {
            *(uint4 *)p = *(const uint4 *)x.word;
            *(uint4 *)(p + 4) = *(const uint4 *)(x.word + 4);
            return;
        }
#pragma unroll
        for (int j = 0; j < EIGHT; j++)
            if (j >= from && j < to) p[j] = x.word[j];
        return;
    }
    bf16 *p = (bf16 *)data + first;
    if (to - from == EIGHT && on_16_bytes(p)) {
        *(uint4 *)p = *(const uint4 *)x.word;
        return;
    }
#pragma unroll
    for (int j = 0; j < EIGHT; j++)
        if (j >= from && j < to) p[j] = (bf16)(x.word[j / 2] >> 16 * (j % 2));
}

/* Rounded to nearest. */
static __device__ inline struct eight eight_narrow(dtype dt, const float value[EIGHT])
{
    struct eight x = {};
#pragma unroll
    for (int j = 0; j < EIGHT; j++)
        if (dt == DT_F32)
            x.word[j] = f32_bits(value[j]);
        else
            eight_set(x, j, bf16_round(value[j]));
    return x;
}

#endif
