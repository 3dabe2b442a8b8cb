/* rescale.cu — forward moves 2·sizeof(act) bytes per element, and one more sizeof(act) to accumulate; backward 3·sizeof(act). */
#include "kernels/cuda/columns.h"

/* c = to / from of N columns from c on, or of a row. */
template <bool V, int N> static __device__ inline pack<float, N> ratios(const float *to, const float *from, int64_t at, int left)
{
    pack<float, N> a = take<V, N>(to + at, left), b = take<V, N>(from + at, left);
    for (int i = 0; i < N; i++) a.at[i] = formula_ratio(a.at[i], b.at[i]);
    return a;
}

template <class T> static __device__ inline float at_or_zero(const T *p, int64_t i) { return p ? widen(p[i]) : 0.0f; }

/* y may be u: a thread writes what it has read. B: of the bias, which may be absent. */
template <class T, class B, bool ACCUMULATE, bool V>
static __global__ void rescale(struct sheet m, view<const T> u, view<T> y, const float *to, const float *from, bool by_row, const B *bias)
{
    constexpr int N = LANES<T>;
    struct spot at = spot_of<N>(m);
    if (at.left <= 0) return;
    pack<T, N> x = take<V, N>(u.row(at.row) + at.col, at.left), old = {};
    pack<float, N> by = {};
    if (by_row) {
        float one = formula_ratio(to[at.row], from[at.row]);
        for (int i = 0; i < N; i++) by.at[i] = one;
    } else {
        by = ratios<V, N>(to, from, at.col, at.left);
    }
    if (ACCUMULATE) old = take<V, N>((const T *)y.row(at.row) + at.col, at.left);
    for (int i = 0; i < N; i++) {
        float add = ACCUMULATE ? widen(old.at[i]) : i < at.left ? at_or_zero(bias, at.col + i) : 0.0f;
        x.at[i] = narrow<T>(formula_rescale(widen(x.at[i]), add, by.at[i], ACCUMULATE));
    }
    put<V>(y.row(at.row) + at.col, x, at.left);
}

status rescale_fwd_cuda(struct stream *s, const struct rescale_fwd_args *a)
{
    tensor none = tensor_1d(NULL, DT_F32, 0);
    struct layout l = layout_of({&a->u, &a->y, a->by_row ? &none : &a->to, a->by_row ? &none : &a->from}, false);
    struct sheet m = sheet_of(&a->u, l);
    if (!tensor_count(&a->u)) return ST_OK;
    WITH_TYPE(a->u.dt, T, {
        WITH_TYPE(a->bias.data ? a->bias.dt : DT_F32, B, {
            WITH_BOOL(a->accumulate, ACCUMULATE, {
                WITH_BOOL(l.aligned, V, {
                    TRY(LAUNCH((rescale<T, B, ACCUMULATE, V>), m.grid, m.block, 0, s, m, view_of<const T>(&a->u, l), view_of<T>(&a->y, l),
                               (const float *)a->to.data, (const float *)a->from.data, a->by_row, (const B *)a->bias.data));
                });
            });
        });
    });
    return ST_OK;
}

/* Writes du where it fetches: once per element, by the thread that has read what du may lie over. */
template <class T, bool V> struct rescale_term {
    static constexpr int N = LANES<T>, AHEAD = sizeof(T) == 2 ? 1 : 2; /* more does not fit into registers */
    typedef pack<float, N> fetched;
    view<const T> dy, u;
    view<T> du;
    const float *to, *from;
    bool accumulate;
    __device__ T one(T dy, T u, float to, float from, float *of_to) const
    {
        float d = widen(dy);
        *of_to = formula_ratio(d * widen(u), from);
        return narrow<T>(formula_rescale_du(d, formula_ratio(to, from), accumulate));
    }
    __device__ fetched fetch(int64_t row, int64_t col, int left) const
    {
        const T *g = dy.row(row) + col, *x = u.row(row) + col;
        T *out = du.row(row) + col;
        pack<float, N> of_to = {};
        if constexpr (V) {
            pack<T, N> a = take<V, N>(g, left), b = take<V, N>(x, left);
            pack<float, N> a_to = take<V, N>(to + col, left), a_from = take<V, N>(from + col, left);
            for (int i = 0; i < N; i++) a.at[i] = one(a.at[i], b.at[i], a_to.at[i], a_from.at[i], &of_to.at[i]);
            put<V>(out, a, left);
        } else {
            for (int i = 0; i < N; i++)
                if (i < left) out[i] = one(g[i], x[i], to[col + i], from[col + i], &of_to.at[i]);
        }
        return of_to;
    }
    __device__ float term(const fetched &of_to, int i) const { return of_to.at[i]; }
};

extern "C" cuda_workspace_fn rescale_bwd_cuda_workspace;
size_t rescale_bwd_cuda_workspace(const struct work_bounds *w)
{
    int64_t widest = w->vocab;
    for (int64_t width : {w->width, 2 * w->ffn, (w->heads + 2 * w->kv_heads) * w->head_dim})
        if (width > widest) widest = width;
    return column_workspace(widest);
}

status rescale_bwd_cuda(struct stream *s, const struct rescale_bwd_args *a)
{
    void *partial;
    struct layout l = layout_of({&a->dy, &a->u, &a->du, &a->to, &a->from}, false);
    if (!tensor_count(&a->u)) return ST_OK;
    struct column_cut k = column_cut_of(a->u.dim[0], a->u.dim[1], l.lanes);
    TRY(stream_workspace(s, (size_t)(k.groups * k.ld) * sizeof(float), "rescale_bwd", &partial));
    WITH_TYPE(a->u.dt, T, {
        WITH_BOOL(l.aligned, V, {
            rescale_term<T, V> term = {view_of<const T>(&a->dy, l), view_of<const T>(&a->u, l),  view_of<T>(&a->du, l),
                                       (const float *)a->to.data,   (const float *)a->from.data, a->accumulate};
            TRY(LAUNCH((column_partials<rescale_term<T, V>>), k.grid, k.block, 0, s, k, term, (float *)partial));
        });
    });
    return column_finish(s, (const float *)partial, k.groups, k.ld, k.cols, (float *)a->d_to.data);
}
