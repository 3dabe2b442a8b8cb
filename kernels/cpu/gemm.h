/* gemm.h — inside of the matrix product: gemm.c cuts it into tiles, gemm_bf16.c runs a tile through oneDNN's bf16
 * primitives, panel.c (compiled per instruction set) moves tiles between dtypes. */
#ifndef TRIMPOT_CPU_GEMM_H
#define TRIMPOT_CPU_GEMM_H

#include "kernels/cpu/cpu.h"

enum {
    TILE_M = 512, /* largest tile of C: rows, columns, columns when K is split or A transposed */
    TILE_N = 640,
    TILE_WIDE = 1024,
    TILE_K = 256, /* widened operands go through f32 blocks of this depth */
};

/* A block of C while it is summed: f32, rows of `ld` elements. */
struct tile {
    float *data;
    int64_t ld, rows, cols;
};

struct panel_fns {
    /* dst [rows, cols] = src, exactly. */
    void (*widen)(const bf16 *src, int64_t ld, int64_t rows, int64_t cols, float *dst, int64_t dst_ld);
    /* t = bias + c, either may be absent (data NULL); c may be t itself. c and bias start at the tile's corner. */
    void (*begin)(const struct tile *t, const tensor *c, const tensor *bias);
    /* c = t[0] + t[1] + … in this order, one rounding; the parts lie `stride` elements apart. */
    void (*end)(const struct tile *t, int parts, int64_t stride, const tensor *c);
};

status gemm_cpu(struct stream *s, const struct gemm_args *g, const struct panel_fns *fns);

/* One product on one tile: c = alpha·op(a)·op(b) + beta·c, bf16 × bf16 → f32, on the calling thread. */
struct bf16_product {
    int64_t m, n, k, lda, ldb, ldc;
    bool ta, tb, accumulate;
    float alpha;
};
/* Between enter and leave no cached primitive is destroyed. */
void gemm_bf16_enter(void);
void gemm_bf16_leave(void);
/* scratch: GEMM_BF16_SCRATCH bytes. Returns oneDNN's status. */
int gemm_bf16_run(const struct bf16_product *p, const bf16 *a, const bf16 *b, float *c, void *scratch);
enum { GEMM_BF16_SCRATCH = 1 << 20 };

#endif
