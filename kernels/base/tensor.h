/* tensor.h — element types, and a view of somebody else's memory. */
#ifndef TRIMPOT_TENSOR_H
#define TRIMPOT_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/base/both.h"

typedef enum { DT_F32, DT_BF16, DT_F16, DT_F64, DT_I32, DT_I64, DT_U8, DT_COUNT } dtype;

size_t dtype_bytes(dtype dt);
const char *dtype_name(dtype dt); /* "f32", "bf16", … */

/* A row-major view: dim[0] is the slowest. It owns nothing. `ld` is the distance in elements between consecutive
 * rows of the last-but-one dimension (= dim[rank-1] when dense). data == NULL means "not present". */
typedef struct {
    void *data;
    dtype dt;
    int rank;
    int64_t dim[4];
    int64_t ld;
} tensor;

BOTH tensor tensor_1d(void *data, dtype dt, int64_t n) { return (tensor){.data = data, .dt = dt, .rank = 1, .dim = {n, 1, 1, 1}, .ld = n}; }

BOTH tensor tensor_2d(void *data, dtype dt, int64_t rows, int64_t cols)
{
    return (tensor){.data = data, .dt = dt, .rank = 2, .dim = {rows, cols, 1, 1}, .ld = cols};
}

BOTH int64_t tensor_count(const tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    return n;
}

/* Rows [first, first + rows) of a 2-D view. */
BOTH tensor tensor_rows(const tensor *t, int64_t first, int64_t rows)
{
    tensor r = *t;
    r.dim[0] = rows;
    r.data = t->data ? (char *)t->data + (size_t)(first * t->ld) * dtype_bytes(t->dt) : NULL;
    return r;
}

/* Columns [first, first + cols) of a 2-D view; its rows stay as far apart as they were. */
BOTH tensor tensor_columns(const tensor *t, int64_t first, int64_t cols)
{
    tensor r = *t;
    r.dim[1] = cols;
    r.data = t->data ? (char *)t->data + (size_t)first * dtype_bytes(t->dt) : NULL;
    return r;
}

/* Elements [first, first + n) of a dense view, flat. */
BOTH tensor tensor_part(tensor t, int64_t first, int64_t n)
{
    return tensor_1d(t.data ? (char *)t.data + (size_t)first * dtype_bytes(t.dt) : NULL, t.dt, n);
}

/* "[512, 896] f32", for messages; a ring of 8 static buffers per thread. */
const char *tensor_text(const tensor *t);

/* bf16 = the upper 16 bits of an f32. Widening is exact; narrowing rounds to nearest even, keeps NaN a NaN. */
typedef uint16_t bf16;

BOTH uint32_t f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

BOTH float f32_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}

BOTH float bf16_widen(bf16 h) { return f32_from_bits((uint32_t)h << 16); }

BOTH bf16 bf16_round(float x)
{
    uint32_t u = f32_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (bf16)((u >> 16) | 0x40);
    return (bf16)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

/* Stochastic rounding: r uniform in [0, 65535]. NaN and Inf pass through. */
BOTH bf16 bf16_round_sr(float x, uint32_t r)
{
    uint32_t u = f32_bits(x);
    if ((u & 0x7f800000u) == 0x7f800000u) return (bf16)((u >> 16) | ((u & 0x007fffffu) ? 0x40 : 0));
    return (bf16)((u + r) >> 16);
}

float f16_widen(uint16_t h); /* IEEE half, exact */

#endif
