/* rows.cu — gather and scatter move 2·C·sizeof(type) + 4 bytes per row: bits, whatever they mean. */
#include "kernels/cuda/pack.h"

/* m: the packed side. GATHER: dst[i] = src[rows[i]], else dst[rows[i]] = src[i]. */
template <class T, bool GATHER, bool V>
static __global__ void copy_rows(struct sheet m, view<const T> src, view<T> dst, const int32_t *rows)
{
    constexpr int N = LANES<T>;
    struct spot at = spot_of<N>(m);
    if (at.left <= 0) return;
    int64_t there = rows[at.row], from = GATHER ? there : at.row, to = GATHER ? at.row : there;
    put<V>(dst.row(to) + at.col, take<V, N>(src.row(from) + at.col, at.left), at.left);
}

template <class T, bool GATHER> static status copy_rows_of(struct stream *s, const struct rows_args *a)
{
    struct layout l = layout_of({&a->src, &a->dst}, false);
    tensor packed = GATHER ? a->dst : a->src;
    packed.dim[0] = a->n;
    if (!tensor_count(&packed)) return ST_OK;
    struct sheet m = sheet_of(&packed, l);
    WITH_BOOL(l.aligned, V, {
        TRY(LAUNCH((copy_rows<T, GATHER, V>), m.grid, m.block, 0, s, m, view_of<const T>(&a->src, l), view_of<T>(&a->dst, l), a->rows));
    });
    return ST_OK;
}

status gather_rows_cuda(struct stream *s, const struct rows_args *a)
{
    return a->src.dt == DT_F32 ? copy_rows_of<uint32_t, true>(s, a) : copy_rows_of<uint16_t, true>(s, a);
}

status scatter_rows_cuda(struct stream *s, const struct rows_args *a)
{
    return a->src.dt == DT_F32 ? copy_rows_of<uint32_t, false>(s, a) : copy_rows_of<uint16_t, false>(s, a);
}
