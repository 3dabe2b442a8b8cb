#include "kernels/base/tensor.h"

#include <math.h>
#include <stdio.h>

static const struct {
    const char *name;
    size_t bytes;
} table[DT_COUNT] = {
    [DT_F32] = {"f32", 4}, [DT_BF16] = {"bf16", 2}, [DT_F16] = {"f16", 2}, [DT_F64] = {"f64", 8},
    [DT_I32] = {"i32", 4}, [DT_I64] = {"i64", 8},   [DT_U8] = {"u8", 1},
};

size_t dtype_bytes(dtype dt) { return table[dt].bytes; }
const char *dtype_name(dtype dt) { return table[dt].name; }

const char *tensor_text(const tensor *t)
{
    static _Thread_local char ring[8][96];
    static _Thread_local unsigned next;
    char *out = ring[next++ % 8];
    size_t at = 0, cap = sizeof ring[0];
    at += (size_t)snprintf(out, cap, "[");
    for (int i = 0; i < t->rank && at < cap; i++) at += (size_t)snprintf(out + at, cap - at, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    if (at < cap) snprintf(out + at, cap - at, "] %s", dtype_name(t->dt));
    return out;
}

float f16_widen(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023;
    if (exponent == 31) return f32_from_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return f32_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float x = ldexpf((float)mantissa, -24);
    return sign ? -x : x;
}
