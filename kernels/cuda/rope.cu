/* rope.cu — moves 2·sizeof(act) bytes per channel that it rotates: 4(q + kv) per token in bf16 where heads are rotated whole, and
 * cos and sin, 4·D bytes per token, from the cache. */
#include "kernels/cuda/pack.h"

struct rope_heads {
    const int32_t *position;
    int64_t tokens;
    int q_heads, heads; /* those of q, and of k after them */
    int head_dim, half;
    bool inverse;
};

/* A thread has one pack of angles of one token, and rotates by it in every y'th head. */
template <class T, bool V>
static __global__ void __launch_bounds__(SHEET_THREADS, 4)
    rope(struct rope_heads r, view<T> q, view<T> k, view<const float> cosines, view<const float> sines)
{
    constexpr int N = LANES<T>;
    int64_t token = (int64_t)blockIdx.x * blockDim.z + threadIdx.z;
    if (token >= r.tokens) return;
    int64_t position = r.position[token];
    for (int j = (int)threadIdx.x * N; j < r.half; j += (int)blockDim.x * N) {
        int left = r.half - j;
        pack<float, N> c = take<V, N>(cosines.row(position) + j, left), sn = take<V, N>(sines.row(position) + j, left);
        for (int i = 0; i < N; i++) sn.at[i] = r.inverse ? vf_zero() - sn.at[i] : sn.at[i];
#pragma unroll 1
        for (int h = (int)threadIdx.y; h < r.heads; h += (int)blockDim.y) {
            T *lower = h < r.q_heads ? q.row(token) + (int64_t)h * r.head_dim : k.row(token) + (int64_t)(h - r.q_heads) * r.head_dim;
            T *at = lower + j, *upper = at + r.half;
            pack<T, N> x = take<V, N>((const T *)at, left), y = take<V, N>((const T *)upper, left);
            for (int i = 0; i < N; i++) {
                float a = widen(x.at[i]), b = widen(y.at[i]);
                x.at[i] = narrow<T>(a * c.at[i] - b * sn.at[i]);
                y.at[i] = narrow<T>(b * c.at[i] + a * sn.at[i]);
            }
            put<V>(at, x, left);
            put<V>(upper, y, left);
        }
    }
}

status rope_cuda(struct stream *s, const struct rope_args *a)
{
    enum { HEADS_EACH = 4 };
    int heads = (int)(a->heads + (a->k.data ? a->kv_heads : 0)), half = (int)a->cos.dim[1];
    struct rope_heads r = {a->rows.position, a->q.dim[0], (int)a->heads, heads, (int)a->head_dim, half, a->inverse};
    struct layout l = layout_of({&a->q, &a->k}, false), angles = layout_of({&a->cos, &a->sin}, false);
    bool aligned = l.aligned && angles.aligned && half % l.lanes == 0 && a->head_dim % l.lanes == 0;
    if (!r.tokens || !half) return ST_OK;
    int x = threads_for(ceil_div(half, l.lanes), SHEET_THREADS), y = threads_for(ceil_div(heads, HEADS_EACH), SHEET_THREADS / x);
    int z = threads_for(SHEET_THREADS / x / y, 64); /* no block is deeper */
    dim3 grid((unsigned)ceil_div(r.tokens, z)), block((unsigned)x, (unsigned)y, (unsigned)z);
    WITH_TYPE(a->q.dt, T, {
        WITH_BOOL(aligned, V, {
            TRY(LAUNCH((rope<T, V>), grid, block, 0, s, r, view_of<T>(&a->q, l), view_of<T>(&a->k, l),
                       view_of<const float>(&a->cos, angles), view_of<const float>(&a->sin, angles)));
        });
    });
    return ST_OK;
}
