/* dropout.cu — moves 2·sizeof(act) bytes per element (x → y), 3 to accumulate, 12 per row (position, sample), and 8 (step). */
#include "kernels/cuda/pack.h"

/* Element e of a sample keeps its value when word e % 4 of block e / 4 reaches the threshold. */
static __device__ inline uint32_t word_of(const philox4 &block, int lane)
{
    uint32_t low = lane & 1 ? block.v[1] : block.v[0], high = lane & 1 ? block.v[3] : block.v[2];
    return lane & 2 ? high : low;
}

struct dropping {
    struct dropout_args of;
    uint32_t threshold;
    float scale;
};

/* WHOLE: rows are whole blocks of four elements, so that packs are too. y may be x. */
template <class T, bool ACCUMULATE, bool WHOLE, bool V>
static __global__ void dropout(struct sheet m, view<const T> x, view<T> y, struct dropping d)
{
    constexpr int N = LANES<T>;
    struct spot at = spot_of<N>(m);
    if (at.left <= 0) return;
    pack<T, N> from = take<V, N>(x.row(at.row) + at.col, at.left), to = {};
    if (ACCUMULATE) to = take<V, N>(y.row(at.row) + at.col, at.left);
    uint64_t e = (uint64_t)d.of.rows.position[at.row] * (uint64_t)m.cols + (uint64_t)at.col, key = formula_dropout_key(&d.of);
    uint64_t sample = (uint64_t)d.of.rows.sample[at.row];
    philox4 block = {};
    for (int i = 0; i < N; i++, e++) {
        if (WHOLE ? i % 4 == 0 : i == 0 || e % 4 == 0) block = philox(key, e / 4, sample);
        float old = widen(to.at[i]), fresh = formula_axpy(widen(from.at[i]), old, d.scale, ACCUMULATE);
        to.at[i] = narrow<T>((WHOLE ? block.v[i % 4] : word_of(block, (int)(e % 4))) >= d.threshold ? fresh : old);
    }
    put<V>(y.row(at.row) + at.col, to, at.left);
}

status dropout_cuda(struct stream *s, const struct dropout_args *a)
{
    struct dropping d = {*a, formula_dropout_threshold(a->p), formula_dropout_scale(a->p)};
    struct layout l = layout_of({&a->x, &a->y}, false);
    if (!tensor_count(&a->x)) return ST_OK;
    struct sheet m = sheet_of(&a->x, l);
    WITH_TYPE(a->x.dt, T, {
        WITH_BOOL(a->accumulate, ACCUMULATE, {
            view<const T> x = view_of<const T>(&a->x, l);
            view<T> y = view_of<T>(&a->y, l);
            if (a->x.dim[1] % 4)
                TRY(LAUNCH((dropout<T, ACCUMULATE, false, false>), m.grid, m.block, 0, s, m, x, y, d));
            else
                WITH_BOOL(l.aligned, V, { TRY(LAUNCH((dropout<T, ACCUMULATE, true, V>), m.grid, m.block, 0, s, m, x, y, d)); });
        });
    });
    return ST_OK;
}
