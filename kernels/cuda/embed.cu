/* embed.cu — forward moves C·(sizeof(table) + sizeof(act)) + 4 bytes per token. Backward reads C·sizeof(act) per token, reads and writes
 * 4·C per id that occurs, and sorts: 8 bytes per token, read and written once per pass. */
#include "kernels/cuda/pack.h"

template <class X, class Y, bool V>
static __global__ void embed_fwd(struct sheet m, view<const X> table, view<Y> y, const int32_t *ids, float scale)
{
    constexpr int N = LANES<X, Y>;
    struct spot at = spot_of<N>(m);
    if (at.left <= 0) return;
    pack<X, N> from = take<V, N>(table.row(ids[at.row]) + at.col, at.left);
    pack<Y, N> to;
    for (int i = 0; i < N; i++) to.at[i] = narrow<Y>(widen(from.at[i]) * scale);
    put<V>(y.row(at.row) + at.col, to, at.left);
}

static float scale_of(const struct embed_args *a) { return a->scale != 0 ? a->scale : 1.0f; }

status embed_fwd_cuda(struct stream *s, const struct embed_args *a)
{
    struct layout l = layout_of({&a->table, &a->y}, false);
    if (!tensor_count(&a->y)) return ST_OK;
    struct sheet m = sheet_of(&a->y, l);
    WITH_TYPE(a->table.dt, X, {
        WITH_TYPE(a->y.dt, Y, {
            WITH_BOOL(l.aligned, V, {
                TRY(LAUNCH((embed_fwd<X, Y, V>), m.grid, m.block, 0, s, m, view_of<const X>(&a->table, l), view_of<Y>(&a->y, l), a->ids,
                           scale_of(a)));
            });
        });
    });
    return ST_OK;
}

/* ---- backward ----------------------------------------------------------------------------------------------------------------
 * Tokens are sorted by (id, n): the keys differ, so there is one order however it is found. Then whoever has the first token of an id
 * adds them all, ascending.
 *
 *     ids 7 2 7 5 2 7  ──▶  keys  2·1 2·4 | 5·3 | 7·0 7·2 7·5  ──▶  table[2] += y[1], y[4]; table[5] += y[3]; table[7] += … */

typedef uint64_t sort_key; /* id above, n below */
constexpr int SORT_RUN = 256, SORT_FAN = 8;

static __device__ inline int32_t id_of(sort_key key) { return (int32_t)(key >> 32); }
static __device__ inline int64_t token_of(sort_key key) { return (int64_t)(uint32_t)key; }

/* Runs of SORT_RUN tokens: a key's place is the number of smaller ones. */
static __global__ void sort_runs(const int32_t *ids, sort_key *to, int64_t n)
{
    __shared__ sort_key keys[SORT_RUN];
    int64_t first = (int64_t)blockIdx.x * SORT_RUN, i = first + threadIdx.x;
    sort_key mine = i < n ? (sort_key)(uint32_t)ids[i] << 32 | (sort_key)i : ~(sort_key)0;
    int place = 0;
    keys[threadIdx.x] = mine;
    __syncthreads();
    for (int j = 0; j < SORT_RUN; j++) place += keys[j] < mine;
    if (i < n) to[first + place] = mine;
}

static __device__ inline int64_t smaller(const sort_key *run, int64_t n, sort_key than)
{
    int64_t low = 0;
    while (low < n) {
        int64_t middle = (low + n) / 2;
        if (run[middle] < than)
            low = middle + 1;
        else
            n = middle;
    }
    return low;
}

/* SORT_FAN sorted runs become one: a key's place is that in its run, and the number of smaller ones in the others. */
static __global__ void merge_runs(const sort_key *from, sort_key *to, int64_t n, int64_t run)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int64_t own = i / run, first = own - own % SORT_FAN, place = first * run + i % run;
    for (int64_t r = first; r < first + SORT_FAN && r * run < n; r++)
        if (r != own) place += smaller(from + r * run, n - r * run < run ? n - r * run : run, from[i]);
    to[place] = from[i];
}

template <class T, bool V>
static __global__ void __launch_bounds__(SHEET_THREADS, 4)
    embed_bwd(struct sheet m, const sort_key *keys, view<float> table, view<const T> y, float scale)
{
    constexpr int N = LANES<T>;
    enum { AHEAD = 4 };
    struct spot at = spot_of<N>(m);
    if (at.left <= 0) return;
    int64_t p = at.row;
    int32_t id = id_of(keys[p]);
    if (p && id_of(keys[p - 1]) == id) return;
    float *to = table.row(id) + at.col;
    pack<float, N> sum = take<V, N>((const float *)to, at.left);
    for (; p + AHEAD <= m.rows && id_of(keys[p + AHEAD - 1]) == id; p += AHEAD) {
        pack<T, N> x[AHEAD];
        for (int k = 0; k < AHEAD; k++) x[k] = take<V, N>(y.row(token_of(keys[p + k])) + at.col, at.left);
        for (int k = 0; k < AHEAD; k++)
            for (int i = 0; i < N; i++) sum.at[i] = vf_fma(scale, widen(x[k].at[i]), sum.at[i]);
    }
    for (; p < m.rows && id_of(keys[p]) == id; p++) {
        pack<T, N> x = take<V, N>(y.row(token_of(keys[p])) + at.col, at.left);
        for (int i = 0; i < N; i++) sum.at[i] = vf_fma(scale, widen(x.at[i]), sum.at[i]);
    }
    put<V>(to, sum, at.left);
}

extern "C" cuda_workspace_fn embed_bwd_cuda_workspace;
size_t embed_bwd_cuda_workspace(const struct work_bounds *w) { return 2 * (size_t)w->tokens * sizeof(sort_key); }

status embed_bwd_cuda(struct stream *s, const struct embed_args *a)
{
    int64_t n = a->n;
    void *scratch;
    if (!tensor_count(&a->y)) return ST_OK;
    TRY(stream_workspace(s, 2 * (size_t)n * sizeof(sort_key), "embed_bwd", &scratch));
    sort_key *keys = (sort_key *)scratch, *other = keys + n;
    dim3 blocks((unsigned)ceil_div(n, SORT_RUN));
    TRY(LAUNCH(sort_runs, blocks, dim3(SORT_RUN), 0, s, a->ids, keys, n));
    for (int64_t run = SORT_RUN; run < n; run *= SORT_FAN) {
        TRY(LAUNCH(merge_runs, blocks, dim3(SORT_RUN), 0, s, (const sort_key *)keys, other, n, run));
        sort_key *sorted = other;
        other = keys;
        keys = sorted;
    }
    struct layout l = layout_of({&a->table, &a->y}, false);
    struct sheet m = sheet_of(&a->y, l);
    WITH_TYPE(a->y.dt, T, {
        WITH_BOOL(l.aligned, V, {
            TRY(LAUNCH((embed_bwd<T, V>), m.grid, m.block, 0, s, m, (const sort_key *)keys, view_of<float>(&a->table, l),
                       view_of<const T>(&a->y, l), scale_of(a)));
        });
    });
    return ST_OK;
}
