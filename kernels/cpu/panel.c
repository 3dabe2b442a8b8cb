/* panel.c — a matrix product's tiles on their way in and out: widening, bias, the one rounding. */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/vec.h"

static void panel_widen(const bf16 *src, int64_t ld, int64_t rows, int64_t cols, float *dst, int64_t dst_ld)
{
    for (int64_t r = 0; r < rows; r++, src += ld, dst += dst_ld) {
        int64_t i = 0;
        for (; i + VW <= cols; i += VW) vf_store(dst + i, vf_load_bf16(src + i));
        for (; i < cols; i++) dst[i] = bf16_widen(src[i]);
    }
}

static void panel_begin(const struct tile *t, const tensor *c, const tensor *bias)
{
    size_t step = c->data ? (size_t)c->ld * dtype_bytes(c->dt) : 0;
    for (int64_t r = 0; r < t->rows; r++) {
        const char *old = c->data ? (const char *)c->data + (size_t)r * step : NULL;
        float *row = t->data + r * t->ld;
        for (int64_t i = 0; i < t->cols; i += VW) {
            vf x = bias->data ? vec_load(bias->data, bias->dt, i, t->cols) : vf_zero();
            if (old) x = x + vec_load(old, c->dt, i, t->cols);
            vec_store(row, DT_F32, i, t->cols, x);
        }
    }
}

static void panel_end(const struct tile *t, int parts, int64_t stride, const tensor *c)
{
    size_t step = (size_t)c->ld * dtype_bytes(c->dt);
    for (int64_t r = 0; r < t->rows; r++) {
        const float *row = t->data + r * t->ld;
        char *out = (char *)c->data + (size_t)r * step;
        for (int64_t i = 0; i < t->cols; i += VW) {
            vf x = vec_load(row, DT_F32, i, t->cols);
            for (int part = 1; part < parts; part++) x = x + vec_load(row + part * stride, DT_F32, i, t->cols);
            vec_store(out, c->dt, i, t->cols, x);
        }
    }
}

status CPU_FN(gemm)(struct stream *s, const struct gemm_args *g)
{
    static const struct panel_fns fns = {panel_widen, panel_begin, panel_end};
    return gemm_cpu(s, g, &fns);
}
