/* sdpa_bytes.c — the workspace that attention through cuDNN needs, without cuDNN: what plans of memory print. */
#include "kernels/cuda/sdpa.h"

/* What engines ask for themselves, as observed of cuDNN 9.19 (tests/cuda/sdpa_plans.sh holds it to every model's shape): on
 * Hopper, 128 bytes for each descriptor of a copy engine, 4 to 7 of them per pair of ragged documents. */
static size_t engine_bytes(const struct sdpa_shape *s, int major)
{
    size_t head_rows = (size_t)(s->docs * s->heads * s->tokens), per_head = head_rows * (size_t)s->head_dim;
    size_t t64 = (size_t)(s->tokens + 63) / 64 * 64, pairs = (size_t)s->docs / 2 + 1;
    bool hopper = major == 9, grouped = s->kv_heads < s->heads, reduced = grouped && !s->ragged;
    if (s->way == SDPA_FORWARD) {
        if (!hopper) return 0;
        return s->ragged ? 256 + 512 * (pairs < 33 ? 33 : pairs) : 256;
    }
    size_t bytes = hopper ? 256 : 128;
    if (s->ragged) bytes += pairs * (s->way == SDPA_BACKWARD ? 896 : 768);
    if (s->way == SDPA_DETERMINISTIC) return bytes + 2 * (size_t)(s->docs * s->heads) * t64 * t64 + (reduced ? 4 * per_head : 0);
    return bytes + (reduced ? 4 * per_head : 0) + (hopper ? 0 : 4 * per_head);
}

struct sdpa_bytes sdpa_bytes_of(const struct sdpa_shape *s, int64_t rows, int major)
{
    struct sdpa_bytes b = {.engine = engine_bytes(s, major)};
    if (s->way == SDPA_FORWARD) return b;
    bool all = s->ragged && s->kv_heads < s->heads;
    int64_t group = s->heads / s->kv_heads, each = s->docs * s->tokens * s->heads;
    b.row_sum = 4 * (size_t)(s->ragged ? rows * s->ld[SDPA_LSE] : each);
    if (s->way == SDPA_BACKWARD) b.dq_sum = 4 * (size_t)(s->ragged ? rows * s->ld[SDPA_DQ] : each * s->head_dim);
    if (all) b.dk_all = 4 * (size_t)(rows * s->ld[SDPA_DK] * group), b.dv_all = 4 * (size_t)(rows * s->ld[SDPA_DV] * group);
    return b;
}

size_t sdpa_bytes_sum(const struct sdpa_bytes *b)
{
    return sdpa_round(b->engine) + sdpa_round(b->row_sum) + sdpa_round(b->dq_sum) + sdpa_round(b->dk_all) + sdpa_round(b->dv_all);
}
