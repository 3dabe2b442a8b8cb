/* soft_cap.cu — moves 2·sizeof(act) bytes per element. */
#include "kernels/cuda/pack.h"

template <class T, bool V> static __global__ void soft_cap(struct sheet m, view<T> z, float cap)
{
    constexpr int N = LANES<T>;
    struct spot at = spot_of<N>(m);
    if (at.left <= 0) return;
    T *p = z.row(at.row) + at.col;
    pack<T, N> x = take<V, N>((const T *)p, at.left);
    for (int i = 0; i < N; i++) x.at[i] = narrow<T>(vf_soft_cap(widen(x.at[i]), cap));
    put<V>(p, x, at.left);
}

status soft_cap_cuda(struct stream *s, const struct soft_cap_args *a)
{
    struct layout l = layout_of({&a->z}, true);
    if (!tensor_count(&a->z)) return ST_OK;
    struct sheet m = sheet_of(&a->z, l);
    WITH_TYPE(a->z.dt, T,
              { WITH_BOOL(l.aligned, V, { TRY(LAUNCH((soft_cap<T, V>), m.grid, m.block, 0, s, m, view_of<T>(&a->z, l), a->cap)); }); });
    return ST_OK;
}
