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

static inline float row_lse(const void *row, dtype dt, int64_t n, float cap)
{
    float top = -INFINITY, sum = 0.0f;
    for (int64_t from = 0; from < n; from += LOSS_CHUNK) {
        int64_t to = from + LOSS_CHUNK < n ? from + LOSS_CHUNK : n;
        vf high = vf_set(-INFINITY);
        for (int64_t i = from; i < to; i += VW) high = vf_max(masked_load(row, dt, i, to, cap), high);
        float chunk_top = vf_top(high);
        if (chunk_top > top) {
            sum *= vf_first(vf_exp(vf_set(top - chunk_top)));
            top = chunk_top;
        }
        lanes total = {0};
        FOR_LANES(i, p, to - from)
        total.part[p] = total.part[p] + vf_exp(masked_load(row, dt, from + i, to, cap) - vf_set(top));
        sum += lanes_total(total);
    }
    return top + logf(sum);
}

static inline void row_grad(void *row, dtype dt, int64_t n, float cap, float lse, int32_t label)
{
    int64_t at = label / VW * VW;
    for (int64_t i = 0; i < n; i += VW) {
        vf z = vf_soft_cap(vec_load(row, dt, i, n), cap), dz = vf_exp(z - vf_set(lse));
        if (i == at) {
            float lane[VW];
            vf_store(lane, dz);
            lane[label - at] -= 1.0f;
            dz = vf_load(lane);
        }
        if (cap != 0.0f) {
            vf t = z / vf_set(cap);
            dz = dz * (vf_set(1.0f) - t * t);
        }
        vec_store(row, dt, i, n, dz);
    }
}

static inline __attribute__((always_inline)) void loss_row(const struct loss_args *l, int64_t r, dtype dt)
{
    int64_t n = l->z.dim[1];
    void *row = row_of(&l->z, r);
    int32_t label = l->labels[r];
    float z = vf_first(vf_soft_cap(vec_load(row, dt, label, label + 1), l->cap));
    float lse = row_lse(row, dt, n, l->cap);
    ((float *)l->loss.data)[r] = lse - z;
    if (!l->forward_only) row_grad(row, dt, n, l->cap, lse, label);
}

static void loss_row_f32(const void *arg, int64_t r) { loss_row(arg, r, DT_F32); }
static void loss_row_bf16(const void *arg, int64_t r) { loss_row(arg, r, DT_BF16); }

status CPU_FN(loss)(struct stream *s, const struct loss_args *l)
{
    team_for(elem_threads(s, l->z.dim[0] * l->z.dim[1]), l->z.dim[0], l->z.dt == DT_F32 ? loss_row_f32 : loss_row_bf16, l);
    return ST_OK;
}
