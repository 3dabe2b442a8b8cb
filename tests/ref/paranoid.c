#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "kernels/base/text.h"
#include "tests/ref/ref.h"

enum mode { IN, OUT, INOUT };

/* What an op does with one tensor of its args. */
struct role {
    const char *name;
    size_t at;
    enum mode mode;
    const char *alias; /* inputs that may be the same memory, each name followed by a space */
    size_t flag;       /* offset of a float or bool that turns OUT into INOUT when not zero */
    size_t flag_bytes;
    size_t only_with; /* offset of the tensor without which this one is not touched */
    bool partial;     /* need not be written whole */
};

/* clang-format off */
#define ROLE(args, member, ...)                                                                                        \
    {                                                                                                                  \
#member, offsetof(struct args##_args, member), __VA_ARGS__                                                     \
    }
#define WHEN(args, member)                                                                                             \
    .flag = offsetof(struct args##_args, member), .flag_bytes = sizeof((struct args##_args *)0)->member
#define MAX_ROLES 12

static const struct role gemm_roles[MAX_ROLES] = {
    ROLE(gemm, a, IN),  ROLE(gemm, b, IN),    ROLE(gemm, a2, IN),
    ROLE(gemm, b2, IN), ROLE(gemm, bias, IN), ROLE(gemm, c, OUT, WHEN(gemm, beta)),
};
static const struct role embed_fwd_roles[MAX_ROLES] = {ROLE(embed, table, IN), ROLE(embed, y, OUT)};
static const struct role embed_bwd_roles[MAX_ROLES] = {ROLE(embed, table, INOUT), ROLE(embed, y, IN)};
static const struct role rmsnorm_fwd_roles[MAX_ROLES] = {
    ROLE(rmsnorm_fwd, x, IN),
    ROLE(rmsnorm_fwd, delta, IN),
    ROLE(rmsnorm_fwd, w, IN),
    ROLE(rmsnorm_fwd, y, OUT),
    ROLE(rmsnorm_fwd, rstd, OUT),
    ROLE(rmsnorm_fwd, sum, OUT, "x delta ", .only_with = offsetof(struct rmsnorm_fwd_args, delta)),
};
static const struct role rmsnorm_bwd_roles[MAX_ROLES] = {
    ROLE(rmsnorm_bwd, dy, IN),    ROLE(rmsnorm_bwd, x, IN),        ROLE(rmsnorm_bwd, w, IN),
    ROLE(rmsnorm_bwd, rstd, IN),  ROLE(rmsnorm_bwd, residual, IN), ROLE(rmsnorm_bwd, dx, OUT, "dy residual "),
    ROLE(rmsnorm_bwd, dw, INOUT),
};
static const struct role rope_roles[MAX_ROLES] = {ROLE(rope, q, INOUT), ROLE(rope, k, INOUT), ROLE(rope, cos, IN),
                                                  ROLE(rope, sin, IN)};
static const struct role attn_fwd_roles[MAX_ROLES] = {
    ROLE(attn_fwd, q, IN),  ROLE(attn_fwd, k, IN),    ROLE(attn_fwd, v, IN),
    ROLE(attn_fwd, o, OUT), ROLE(attn_fwd, lse, OUT),
};
static const struct role attn_bwd_roles[MAX_ROLES] = {
    ROLE(attn_bwd, fwd.q, IN), ROLE(attn_bwd, fwd.k, IN),   ROLE(attn_bwd, fwd.v, IN),
    ROLE(attn_bwd, fwd.o, IN), ROLE(attn_bwd, fwd.lse, IN), ROLE(attn_bwd, d_o, IN),
    ROLE(attn_bwd, dq, OUT),   ROLE(attn_bwd, dk, OUT),     ROLE(attn_bwd, dv, OUT),
};
static const struct role glu_fwd_roles[MAX_ROLES] = {
    ROLE(glu_fwd, gate, IN),
    ROLE(glu_fwd, up, IN),
    ROLE(glu_fwd, h, OUT),
};
static const struct role glu_bwd_roles[MAX_ROLES] = {
    ROLE(glu_bwd, gate, IN),        ROLE(glu_bwd, up, IN), ROLE(glu_bwd, dh, IN), ROLE(glu_bwd, dgate, OUT, "gate "),
    ROLE(glu_bwd, dup, OUT, "up "),
};
static const struct role loss_roles[MAX_ROLES] = {ROLE(loss, z, INOUT), ROLE(loss, loss, OUT)};
static const struct role soft_cap_roles[MAX_ROLES] = {ROLE(soft_cap, z, INOUT)};
static const struct role gather_rows_roles[MAX_ROLES] = {ROLE(rows, src, IN), ROLE(rows, dst, OUT, .partial = true)};
static const struct role scatter_rows_roles[MAX_ROLES] = {ROLE(rows, src, IN), ROLE(rows, dst, INOUT)};
static const struct role dropout_roles[MAX_ROLES] = {
    ROLE(dropout, x, IN),
    ROLE(dropout, plan, IN),
    ROLE(dropout, y, OUT, "x ", WHEN(dropout, accumulate)),
};
static const struct role axpy_roles[MAX_ROLES] = {
    ROLE(axpy, x, IN),
    ROLE(axpy, y, OUT, "x ", WHEN(axpy, accumulate)),
};
static const struct role colsum_roles[MAX_ROLES] = {ROLE(colsum, x, IN), ROLE(colsum, out, INOUT)};
static const struct role row_dot_roles[MAX_ROLES] = {
    ROLE(row_dot, x, IN), ROLE(row_dot, y, IN), ROLE(row_dot, add, IN), ROLE(row_dot, out, OUT),
};
static const struct role rescale_fwd_roles[MAX_ROLES] = {
    ROLE(rescale_fwd, u, IN), ROLE(rescale_fwd, to, IN), ROLE(rescale_fwd, from, IN), ROLE(rescale_fwd, bias, IN),
    ROLE(rescale_fwd, y, OUT, "u ", WHEN(rescale_fwd, accumulate)),
};
static const struct role rescale_bwd_roles[MAX_ROLES] = {
    ROLE(rescale_bwd, dy, IN), ROLE(rescale_bwd, u, IN), ROLE(rescale_bwd, to, IN), ROLE(rescale_bwd, from, IN),
    ROLE(rescale_bwd, du, OUT, "u dy "), ROLE(rescale_bwd, d_to, INOUT),
};
static const struct role tree_sum_roles[MAX_ROLES] = {
    ROLE(tree_sum, rows, IN),
    ROLE(tree_sum, mine[0], IN),
    ROLE(tree_sum, mine[1], IN),
    ROLE(tree_sum, mine[2], IN),
    ROLE(tree_sum, out, OUT, "mine[0] mine[1] mine[2] "),
};
static const struct role loss_sum_roles[MAX_ROLES] = {ROLE(loss_sum, loss, IN), ROLE(loss_sum, out, OUT)};
static const struct role sumsq_segs_roles[MAX_ROLES] = {ROLE(sumsq_segs, g, IN), ROLE(sumsq_segs, partial, INOUT)};
static const struct role step_decide_roles[MAX_ROLES] = {
    ROLE(step_decide, plan, IN), ROLE(step_decide, losses, IN), ROLE(step_decide, partial, IN), ROLE(step_decide, scalars, INOUT),
};
static const struct role step_admit_roles[MAX_ROLES] = {
    ROLE(step_admit, plan, IN), ROLE(step_admit, partial, IN), ROLE(step_admit, scalars, INOUT),
};
static const struct role update_roles[MAX_ROLES] = {
    ROLE(update, g, IN),    ROLE(update, scalars, IN), ROLE(update, w, INOUT),    ROLE(update, master, INOUT),
    ROLE(update, m, INOUT), ROLE(update, v, INOUT),    ROLE(update, work, INOUT),
    ROLE(update, m8, INOUT), ROLE(update, v8, INOUT),  ROLE(update, m_absmax, INOUT), ROLE(update, v_absmax, INOUT),
};
static const struct role nf4_quantize_roles[MAX_ROLES] = {
    ROLE(nf4, w, IN), ROLE(nf4, codes, OUT), ROLE(nf4, absmax_q, OUT), ROLE(nf4, nested, OUT), ROLE(nf4, offset, OUT),
};
static const struct role nf4_dequantize_roles[MAX_ROLES] = {
    ROLE(nf4, w, OUT), ROLE(nf4, codes, IN), ROLE(nf4, absmax_q, IN), ROLE(nf4, nested, IN), ROLE(nf4, offset, IN),
    ROLE(nf4, absmax, IN),
};
static const struct role init_roles[MAX_ROLES] = {ROLE(init, w, OUT)};
/* clang-format on */

/* ---- memory of a tensor: rows of `bytes`, `step` apart ------------------------------------------------------------
 */

struct span {
    const struct role *role;
    char *base;
    size_t rows, bytes, step;
    dtype dt;
    enum mode mode;
    uint64_t before; /* IN: hash of the rows; otherwise of the gaps between them */
};

static uint64_t hash_rows(const struct span *s)
{
    uint64_t h = 0;
    for (size_t i = 0; i < s->rows; i++) h = XXH3_64bits_withSeed(s->base + i * s->step, s->bytes, h);
    return h;
}

static bool interleaved(const struct span *a, const struct span *b)
{
    return a->rows && b->rows && a->base < b->base + b->rows * b->step && b->base < a->base + a->rows * a->step;
}

/* What follows `at` bytes into a row of s: the end of other columns of the same matrix that may be written and lie over it, or
 * else the start of the next of them (`*written` tells which). */
static size_t next_edge(const struct span *s, const struct span *all, int n, size_t at, bool *written)
{
    size_t edge = s->step;
    *written = false;
    for (int i = 0; i < n; i++) {
        if (&all[i] == s || all[i].mode == IN || all[i].step != s->step || !interleaved(&all[i], s)) continue;
        bool after = all[i].base >= s->base;
        size_t shift = after ? (size_t)(all[i].base - s->base) : s->step - (size_t)(s->base - all[i].base) % s->step;
        size_t from = shift % s->step, end = from + all[i].bytes;
        if (from <= at && at < end) {
            *written = true;
            return end < s->step ? end : s->step;
        }
        if (at < from && from < edge) edge = from;
    }
    return edge;
}

/* Between the rows, but for columns beside them that the op writes too. */
static uint64_t hash_gaps(const struct span *s, const struct span *all, int n)
{
    uint64_t h = 0;
    for (size_t i = 0; i + 1 < s->rows; i++)
        for (size_t at = s->bytes, edge; at < s->step; at = edge) {
            bool written;
            edge = next_edge(s, all, n, at, &written);
            if (!written) h = XXH3_64bits_withSeed(s->base + i * s->step + at, edge - at, h);
        }
    return h;
}

/* A quiet NaN that no arithmetic makes. u8 has no NaN: bytes are filled but cannot be told from real ones. */
static size_t poison_of(dtype dt, uint8_t out[8])
{
    static const uint64_t f64 = 0x7ff8dead5eadbeefull;
    static const uint32_t f32 = 0x7fd5ead1u;
    static const uint16_t half = 0x7fd5u;
    memset(out, 0xa5, 8);
    switch (dt) {
    case DT_F64:
        memcpy(out, &f64, 8);
        return 8;
    case DT_F32:
        memcpy(out, &f32, 4);
        return 4;
    case DT_BF16:
    case DT_F16:
        memcpy(out, &half, 2);
        return 2;
    default:
        return 1;
    }
}

static void poison(const struct span *s)
{
    uint8_t pattern[8];
    size_t size = poison_of(s->dt, pattern);
    for (size_t i = 0; i < s->rows; i++)
        for (size_t b = 0; b + size <= s->bytes; b += size) memcpy(s->base + i * s->step + b, pattern, size);
}

static bool still_poisoned(const struct span *s, size_t *row, size_t *column)
{
    uint8_t pattern[8];
    size_t size = poison_of(s->dt, pattern);
    if (size == 1) return false;
    for (*row = 0; *row < s->rows; ++*row)
        for (*column = 0; *column < s->bytes / size; ++*column)
            if (!memcmp(s->base + *row * s->step + *column * size, pattern, size)) return true;
    return false;
}

static bool overlaps(const struct span *a, const struct span *b)
{
    if (!a->rows || !b->rows || !a->bytes || !b->bytes) return false;
    const char *a_end = a->base + (a->rows - 1) * a->step + a->bytes;
    const char *b_end = b->base + (b->rows - 1) * b->step + b->bytes;
    if (a->base >= b_end || b->base >= a_end) return false;
    if (a->step != b->step || a->bytes == a->step) return true;
    size_t shift = a->base < b->base ? (size_t)(b->base - a->base) : (size_t)(a->base - b->base);
    size_t offset = shift % a->step, low = a->base < b->base ? a->bytes : b->bytes, high = a->base < b->base ? b->bytes : a->bytes;
    return offset < low || offset + high > a->step; /* columns of one matrix, side by side, do not overlap */
}

static bool set_in(const void *args, size_t at, size_t bytes)
{
    static const char zero[8];
    return bytes && memcmp((const char *)args + at, zero, bytes) != 0;
}

static int collect(const struct role *roles, const void *args, struct span out[MAX_ROLES])
{
    int n = 0;
    for (int i = 0; i < MAX_ROLES && roles[i].name; i++) {
        const struct role *r = &roles[i];
        const tensor *t = (const tensor *)((const char *)args + r->at);
        if (!t->data || (r->only_with && !((const tensor *)((const char *)args + r->only_with))->data)) continue;
        struct span *s = &out[n++];
        size_t size = dtype_bytes(t->dt);
        int64_t cols = t->dim[t->rank - 1];
        *s = (struct span){r,
                           t->data,
                           cols ? (size_t)(tensor_count(t) / cols) : 0,
                           (size_t)cols * size,
                           (size_t)(t->rank == 1 ? cols : t->ld) * size,
                           t->dt,
                           r->mode,
                           0};
        if (set_in(args, r->flag, r->flag_bytes)) s->mode = INOUT;
    }
    return n;
}

static bool listed(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = list; at && (at = strstr(at, name)); at += n)
        if ((at == list || at[-1] == ' ') && at[n] == ' ') return true;
    return false;
}

static status arm(const char *op, struct span *spans, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; spans[i].mode != IN && j < n; j++) {
            if (i == j || !overlaps(&spans[i], &spans[j])) continue;
            bool same = spans[i].base == spans[j].base && spans[i].step == spans[j].step;
            if (spans[j].mode != IN || !same || !listed(spans[i].role->alias, spans[j].role->name))
                FAIL(ST_FAIL, "paranoid: %s: %s overlaps %s", op, spans[i].role->name, spans[j].role->name);
            spans[i].mode = INOUT; /* in place */
            spans[j].mode = INOUT;
        }
    for (int i = 0; i < n; i++) {
        if (spans[i].mode == OUT) poison(&spans[i]);
        spans[i].before = spans[i].mode == IN ? hash_rows(&spans[i]) : hash_gaps(&spans[i], spans, n);
    }
    return ST_OK;
}

static status inspect(const char *op, const struct span *spans, int n)
{
    for (int i = 0; i < n; i++) {
        const struct span *s = &spans[i];
        size_t row, column;
        if (s->mode == IN && hash_rows(s) != s->before) FAIL(ST_FAIL, "paranoid: %s changed its input %s", op, s->role->name);
        if (s->mode != IN && hash_gaps(s, spans, n) != s->before)
            FAIL(ST_FAIL, "paranoid: %s wrote between the rows of %s", op, s->role->name);
        if (s->mode == OUT && !s->role->partial && still_poisoned(s, &row, &column))
            FAIL(ST_FAIL, "paranoid: %s left %s[%zu, %zu] unwritten", op, s->role->name, row, column);
    }
    return ST_OK;
}

/* ---- the backend ---------------------------------------------------------------------------------------------------
 */

struct paranoid_stream {
    struct stream base;
    struct stream *inner;
};

static const struct backend *inner_backend;

static struct stream *unwrap(struct stream *s) { return ((struct paranoid_stream *)s)->inner; }

/* The bindings of the outer stream reach the inner one; its scratch starts as garbage. */
static struct stream *enter(struct stream *s)
{
    struct stream *inner = unwrap(s);
    inner->workspace = s->workspace;
    inner->workspace_bytes = s->workspace_bytes;
    inner->threads = s->threads;
    if (s->workspace_bytes) memset(s->workspace, 0xff, s->workspace_bytes);
    return inner;
}

#define GUARD(name, args)                                                                                                                  \
    static status name##_paranoid(struct stream *s, const struct args##_args *a)                                                           \
    {                                                                                                                                      \
        struct span spans[MAX_ROLES];                                                                                                      \
        int n = collect(name##_roles, a, spans);                                                                                           \
        TRY(arm(#name, spans, n));                                                                                                         \
        TRY(inner_backend->ops.name(enter(s), a));                                                                                         \
        return inspect(#name, spans, n);                                                                                                   \
    }
TRIMPOT_OPS(GUARD)

static struct backend outer_backend;

static status paranoid_stream_open(struct stream **out, int threads)
{
    struct stream *inner;
    *out = NULL;
    TRY(inner_backend->dev.stream_open(&inner, threads));
    struct paranoid_stream *s = mem_alloc(sizeof *s);
    s->base = *inner;
    s->base.be = &outer_backend;
    s->inner = inner;
    *out = &s->base;
    return ST_OK;
}

static status paranoid_prepare(struct stream *s, const struct work_bounds *w)
{
    struct stream *inner = ((struct paranoid_stream *)s)->inner;
    TRY(inner_backend->prepare(inner, w));
    s->workspace_bytes = inner->workspace_bytes;
    return ST_OK;
}

static void paranoid_stream_close(struct stream *s)
{
    if (!s) return;
    inner_backend->dev.stream_close(unwrap(s));
    free(s);
}

static status paranoid_event_record(struct event *e, struct stream *s) { return inner_backend->dev.event_record(e, unwrap(s)); }
static status paranoid_event_wait(struct event *e, struct stream *s, const char *label)
{
    return inner_backend->dev.event_wait(e, unwrap(s), label);
}
static status paranoid_zero(struct stream *s, void *dst, size_t bytes) { return inner_backend->dev.zero(unwrap(s), dst, bytes); }
static status paranoid_sync(struct stream *s, const char *label) { return inner_backend->dev.sync(unwrap(s), label); }

static status paranoid_copy(struct stream *s, void *dst, const void *src, size_t bytes)
{
    return inner_backend->dev.copy(unwrap(s), dst, src, bytes);
}

/* Fresh memory is never zero by luck. */
static status paranoid_alloc(enum mem_kind kind, size_t bytes, void **out)
{
    TRY(inner_backend->dev.alloc(kind, bytes, out));
    memset(*out, 0xff, bytes);
    return ST_OK;
}

#define PARANOID_SLOT(name, args) .name = name##_paranoid,
#define DROP_MISSING(name, args)                                                                                                           \
    if (!inner->ops.name) outer_backend.ops.name = NULL;

const struct backend *paranoid_wrap(const struct backend *inner)
{
    static char name[64];
    snprintf(name, sizeof name, "paranoid %s", inner->name);
    inner_backend = inner;
    outer_backend = *inner;
    outer_backend.name = name;
    outer_backend.ops = (struct ops){TRIMPOT_OPS(PARANOID_SLOT)};
    TRIMPOT_OPS(DROP_MISSING)
    outer_backend.prepare = paranoid_prepare;
    outer_backend.dev.alloc = paranoid_alloc;
    outer_backend.dev.stream_open = paranoid_stream_open;
    outer_backend.dev.stream_close = paranoid_stream_close;
    outer_backend.dev.event_record = paranoid_event_record;
    outer_backend.dev.event_wait = paranoid_event_wait;
    outer_backend.dev.copy = paranoid_copy;
    outer_backend.dev.zero = paranoid_zero;
    outer_backend.dev.sync = paranoid_sync;
    return &outer_backend;
}
