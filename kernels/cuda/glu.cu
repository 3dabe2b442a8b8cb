/* glu.cu — forward moves 3·sizeof(act) bytes per element (gate, up → h), backward 5 (gate, up, dh → dgate, dup): 6F and 10F bytes
 * per token in bf16. */
#include "kernels/cuda/pack.h"

template <class T, bool SILU, bool V> static __global__ void glu_fwd(struct sheet m, view<const T> gate, view<const T> up, view<T> h)
{
    constexpr int N = LANES<T>;
    struct spot at = spot_of<N>(m);
    if (at.left <= 0) return;
    pack<T, N> a = take<V, N>(gate.row(at.row) + at.col, at.left), b = take<V, N>(up.row(at.row) + at.col, at.left);
    for (int i = 0; i < N; i++) {
        glu_gate g = formula_gate(widen(a.at[i]), SILU ? ACT_SILU : ACT_GELU_TANH);
        a.at[i] = narrow<T>(g.value * widen(b.at[i]));
    }
    put<V>(h.row(at.row) + at.col, a, at.left);
}

status glu_fwd_cuda(struct stream *s, const struct glu_fwd_args *a)
{
    struct layout l = layout_of({&a->gate, &a->up, &a->h}, true);
    if (!tensor_count(&a->h)) return ST_OK;
    WITH_TYPE(a->h.dt, T, {
        struct sheet m = sheet_of(&a->h, l);
        WITH_BOOL(a->kind == ACT_SILU, SILU, {
            WITH_BOOL(l.aligned, V, {
                TRY(LAUNCH((glu_fwd<T, SILU, V>), m.grid, m.block, 0, s, m, view_of<const T>(&a->gate, l), view_of<const T>(&a->up, l),
                           view_of<T>(&a->h, l)));
            });
        });
    });
    return ST_OK;
}

/* dgate may be gate and dup may be up: a thread writes what it has read. */
template <class T, bool SILU, bool V>
static __global__ void glu_bwd(struct sheet m, view<const T> gate, view<const T> up, view<const T> dh, view<T> dgate, view<T> dup)
{
    constexpr int N = LANES<T>;
    struct spot at = spot_of<N>(m);
    if (at.left <= 0) return;
    pack<T, N> a = take<V, N>(gate.row(at.row) + at.col, at.left), b = take<V, N>(up.row(at.row) + at.col, at.left);
    pack<T, N> d = take<V, N>(dh.row(at.row) + at.col, at.left);
    for (int i = 0; i < N; i++) {
        glu_gate g = formula_gate(widen(a.at[i]), SILU ? ACT_SILU : ACT_GELU_TANH);
        float u = widen(b.at[i]), y = widen(d.at[i]);
        b.at[i] = narrow<T>(y * g.value);
        a.at[i] = narrow<T>(y * u * g.slope);
    }
    put<V>(dup.row(at.row) + at.col, b, at.left);
    put<V>(dgate.row(at.row) + at.col, a, at.left);
}

status glu_bwd_cuda(struct stream *s, const struct glu_bwd_args *a)
{
    struct layout l = layout_of({&a->gate, &a->up, &a->dh, &a->dgate, &a->dup}, true);
    if (!tensor_count(&a->dh)) return ST_OK;
    WITH_TYPE(a->dh.dt, T, {
        struct sheet m = sheet_of(&a->dh, l);
        WITH_BOOL(a->kind == ACT_SILU, SILU, {
            WITH_BOOL(l.aligned, V, {
                TRY(LAUNCH((glu_bwd<T, SILU, V>), m.grid, m.block, 0, s, m, view_of<const T>(&a->gate, l), view_of<const T>(&a->up, l),
                           view_of<const T>(&a->dh, l), view_of<T>(&a->dgate, l), view_of<T>(&a->dup, l)));
            });
        });
    });
    return ST_OK;
}
