/* loss.c — cross entropy over one chunk of logits, in place: two passes over a row, which stays in cache between them.
 *
 * Pass 1 goes by chunks small enough for the first cache: the chunk's maximum, then its sum of exponentials relative to
 * the running maximum. Pass 2 writes exp(z − lse) − onehot. Sums have elem.h's fixed order. */
#include "kernels/cpu/elem.h"

#include <math.h>

enum { LOSS_CHUNK = 2048 };

static inline vf masked_load(const void *row, dtype dt, int64_t i, int64_t n, float cap)
{
    vf z = vf_soft_cap(vec_load(row, dt, i, n), cap);
    return n - i >= VW ? z : vf_pick(vm_first(n - i), z, vf_set(-INFINITY));
}

/* The largest of elements [from, to). Four at a time: one maximum would wait for the last. */
static inline __attribute__((always_inline)) float chunk_top(const void *row, dtype dt, int64_t from, int64_t to, float cap)
{
    enum { CHAINS = 4 };
    vf high[CHAINS];
    int64_t i = from;
    for (int c = 0; c < CHAINS; c++) high[c] = vf_set(-INFINITY);
    for (; i + CHAINS * VW <= to; i += CHAINS * VW)
        for (int c = 0; c < CHAINS; c++) high[c] = vf_max(vf_soft_cap(vec_load(row, dt, i + c * VW, i + (c + 1) * VW), cap), high[c]);
    for (; i < to; i += VW) high[0] = vf_max(masked_load(row, dt, i, to, cap), high[0]);
    for (int c = 1; c < CHAINS; c++) high[0] = vf_max(high[c], high[0]);
    return vf_top(high[0]);
}

/* Σ exp(z − top) of elements [from, to). */
static inline __attribute__((always_inline)) float chunk_sum(const void *row, dtype dt, int64_t from, int64_t to, float cap, float top)
{
    lanes total = {0};
    int64_t n = to - from, whole = n / SUM_LANES * SUM_LANES;
    FOR_LANES(i, p, whole)
    total.part[p] = total.part[p] + vf_exp(vf_soft_cap(vec_load(row, dt, from + i, from + i + VW), cap) - vf_set(top));
    FOR_LANES(i, p, n - whole)
    total.part[p] = total.part[p] + vf_exp(masked_load(row, dt, from + whole + i, to, cap) - vf_set(top));
    return lanes_total(total);
}

static inline __attribute__((always_inline)) float row_lse(const void *row, dtype dt, int64_t n, float cap)
{
    float top = -INFINITY, sum = 0.0f;
    for (int64_t from = 0; from < n; from += LOSS_CHUNK) {
        int64_t to = from + LOSS_CHUNK < n ? from + LOSS_CHUNK : n;
        float high = chunk_top(row, dt, from, to, cap);
        if (high > top) {
            sum *= vf_first(vf_exp(vf_set(top - high)));
            top = high;
        }
        sum += chunk_sum(row, dt, from, to, cap, top);
    }
    return top + logf(sum);
}

static inline vf with_cap(vf dz, vf z, float cap)
{
    if (cap == 0.0f) return dz;
    vf t = z / vf_set(cap);
    return dz * (vf_set(1.0f) - t * t);
}

static inline __attribute__((always_inline)) void row_grad(void *row, dtype dt, int64_t n, float cap, float lse, int32_t label)
{
    int64_t at = label / VW * VW, i = 0;
    vf z = vf_soft_cap(vec_load(row, dt, at, n), cap);
    float lane[VW];
    vf_store(lane, vf_exp(z - vf_set(lse)));
    lane[label - at] -= 1.0f;
    vf labelled = with_cap(vf_load(lane), z, cap);
    for (; i < n; i += VW) {
        int64_t end = i + VW <= n ? i + VW : n;
        z = vf_soft_cap(vec_load(row, dt, i, end), cap);
        vec_store(row, dt, i, end, with_cap(vf_exp(z - vf_set(lse)), z, cap));
    }
    vec_store(row, dt, at, n, labelled);
}

static inline __attribute__((always_inline)) void loss_row(const struct loss_args *l, int64_t r, dtype dt)
{
    int64_t n = l->z.dim[1];
    void *row = row_of(&l->z, r);
    int32_t label = l->labels[r];
    float z = vf_first(vf_soft_cap(vec_load(row, dt, label, label + 1), l->cap));
    float lse = l->cap == 0.0f ? row_lse(row, dt, n, 0.0f) : row_lse(row, dt, n, l->cap);
    ((float *)l->loss.data)[r] = lse - z;
    if (l->forward_only) return;
    if (l->cap == 0.0f)
        row_grad(row, dt, n, 0.0f, lse, label);
    else
        row_grad(row, dt, n, l->cap, lse, label);
}

static void loss_row_f32(const void *arg, int64_t r) { loss_row(arg, r, DT_F32); }
static void loss_row_bf16(const void *arg, int64_t r) { loss_row(arg, r, DT_BF16); }

status CPU_FN(loss)(struct stream *s, const struct loss_args *l)
{
    team_for(elem_threads(s, l->z.dim[0] * l->z.dim[1]), l->z.dim[0], l->z.dt == DT_F32 ? loss_row_f32 : loss_row_bf16, l);
    return ST_OK;
}
