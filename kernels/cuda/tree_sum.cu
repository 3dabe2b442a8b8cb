/* tree_sum.cu — moves 4·(K + 1) bytes per element.
 *
 * A thread has a group of elements and adds all K vectors in the order of `merges`. The topmost open sum is in its registers, those
 * below it are in shared memory; a vector that is merged at once goes to neither. */
#include "kernels/cuda/cuda.h"

enum { THREADS = 128, AHEAD = 4 }; /* vectors whose loads run together */

static __device__ inline float plus(float a, float b) { return a + b; }
static __device__ inline float4 plus(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

/* V's from element `at` on of vector k. */
template <class V> static __device__ inline const V *vector_at(const struct tree_sum_args &t, int64_t at, int k)
{
    bool mine = k >= t.first && k < t.first + t.n_mine;
    return (const V *)((mine ? (const float *)t.mine[k - t.first].data : (const float *)t.rows.data + k * t.rows.ld) + at);
}

/* `groups` V's from element `at` on. Shared: [open sums − 1][THREADS] V. `out` may be one of the vectors: it is written when all
 * have been read. */
template <class V> static __global__ void __launch_bounds__(THREADS) tree_sum(const struct tree_sum_args t, int64_t at, int64_t groups)
{
    DYNAMIC_SHARED(V, open);
    int64_t e = blockIdx.x * (int64_t)THREADS + threadIdx.x;
    if (e >= groups) return;
    int count = (int)t.rows.dim[0], depth = 0;
    V top = {};
    for (int k0 = 0; k0 < count; k0 += AHEAD) {
        V ahead[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++)
            if (k0 + j < count) ahead[j] = vector_at<V>(t, at, k0 + j)[e];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            if (k0 + j >= count) break;
            int merges = t.merges[k0 + j];
            if (merges == 0) {
                if (k0 + j > 0) open[depth++ * THREADS + threadIdx.x] = top;
                top = ahead[j];
                continue;
            }
            top = plus(top, ahead[j]);
            while (--merges > 0) top = plus(open[--depth * THREADS + threadIdx.x], top);
        }
    }
    ((V *)((float *)t.out.data + at))[e] = top;
}

static bool whole_vectors(const struct tree_sum_args *t)
{
    uintptr_t odd = (uintptr_t)t->rows.data | (uintptr_t)t->out.data | (uintptr_t)t->rows.ld * sizeof(float);
    for (int i = 0; i < t->n_mine; i++) odd |= (uintptr_t)t->mine[i].data;
    return odd % sizeof(float4) == 0;
}

/* The most sums that lie in shared memory at a time: vectors that wait below another. */
static int most_below(const struct tree_sum_args *t)
{
    int depth = 0, most = 0;
    for (int64_t k = 0; k < t->rows.dim[0]; k++) {
        if (k > 0 && t->merges[k] == 0) depth++;
        if (depth > most) most = depth;
        if (t->merges[k] > 1) depth -= t->merges[k] - 1;
    }
    return most;
}

template <class V> static status sum(struct stream *s, const struct tree_sum_args *t, int64_t at, int64_t groups)
{
    if (!groups) return ST_OK;
    size_t shared = (size_t)most_below(t) * THREADS * sizeof(V);
    return LAUNCH(tree_sum<V>, (unsigned)((groups + THREADS - 1) / THREADS), THREADS, shared, s, *t, at, groups);
}

status tree_sum_cuda(struct stream *s, const struct tree_sum_args *t)
{
    int64_t n = t->out.dim[0], fours = whole_vectors(t) ? n / 4 : 0;
    TRY(sum<float4>(s, t, 0, fours));
    return sum<float>(s, t, 4 * fours, n - 4 * fours);
}
