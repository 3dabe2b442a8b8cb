#include "tests/ref/ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"

/* ---- numbers -------------------------------------------------------------------------------------------------- */

/* To nearest, ties to even, `digits` significant bits, smallest exponent `least`; overflow to Inf. */
static double round_to(double x, int digits, int least, double largest)
{
    if (!isfinite(x) || x == 0) return x;
    int exponent;
    frexp(x, &exponent);
    int unit = exponent - digits > least ? exponent - digits : least;
    double y = ldexp(rint(ldexp(x, -unit)), unit);
    return fabs(y) > largest ? copysign(INFINITY, x) : y;
}

double ref_round(dtype dt, double x)
{
    switch (dt) {
    case DT_F32:
        return round_to(x, 24, -149, 0x1.fffffep127);
    case DT_BF16:
        return round_to(x, 8, -133, 0x1.fep127);
    case DT_F16:
        return round_to(x, 11, -24, 65504);
    default:
        return x;
    }
}

static double get(const tensor *t, int64_t at)
{
    switch (t->dt) {
    case DT_F64:
        return ((const double *)t->data)[at];
    case DT_F32:
        return (double)((const float *)t->data)[at];
    case DT_BF16: {
        uint32_t bits = (uint32_t)((const uint16_t *)t->data)[at] << 16;
        float x;
        memcpy(&x, &bits, sizeof x);
        return (double)x;
    }
    case DT_F16: {
        uint16_t h = ((const uint16_t *)t->data)[at];
        int exponent = h >> 10 & 31, mantissa = h & 1023;
        double x = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
        if (exponent == 31) x = mantissa ? NAN : INFINITY;
        return h & 0x8000 ? -x : x;
    }
    default:
        return ((const uint8_t *)t->data)[at];
    }
}

/* x is a value f16 can hold. */
static uint16_t f16_bits(double x)
{
    int exponent;
    double size = fabs(x);
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    if (size == 0 || !isfinite(size)) return sign | (uint16_t)(isnan(x) ? 0x7e00 : size != 0 ? 0x7c00 : 0);
    frexp(size, &exponent);
    if (exponent < -13) return sign | (uint16_t)ldexp(size, 24);
    return (uint16_t)(sign + ((exponent + 13) << 10) + (int)ldexp(size, 11 - exponent));
}

static void put(const tensor *t, int64_t at, double x)
{
    x = ref_round(t->dt, x);
    float narrow = (float)x;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    switch (t->dt) {
    case DT_F64:
        ((double *)t->data)[at] = x;
        break;
    case DT_F32:
        ((float *)t->data)[at] = narrow;
        break;
    case DT_BF16:
        ((uint16_t *)t->data)[at] = (uint16_t)(bits >> 16 | (isnan(x) ? 0x40 : 0));
        break;
    case DT_F16:
        ((uint16_t *)t->data)[at] = f16_bits(x);
        break;
    default:
        ((uint8_t *)t->data)[at] = (uint8_t)x;
        break;
    }
}

static int64_t columns_of(const tensor *t) { return t->dim[t->rank - 1]; }

struct mat mat_zero(int64_t rows, int64_t cols) { return (struct mat){rows, cols, mem_alloc((size_t)(rows * cols + 1) * sizeof(double))}; }

struct mat mat_load(const tensor *t)
{
    if (!t->data) return (struct mat){0};
    int64_t cols = columns_of(t), rows = cols ? tensor_count(t) / cols : 0;
    struct mat m = mat_zero(rows, cols);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) AT(m, i, j) = get(t, i * t->ld + j);
    return m;
}

struct mat mat_load_t(const tensor *t, bool transposed)
{
    struct mat m = mat_load(t);
    if (!m.v || !transposed) return m;
    struct mat flipped = mat_zero(m.cols, m.rows);
    for (int64_t i = 0; i < m.rows; i++)
        for (int64_t j = 0; j < m.cols; j++) AT(flipped, j, i) = AT(m, i, j);
    mat_free(m);
    return flipped;
}

void mat_store(const tensor *t, struct mat m)
{
    for (int64_t i = 0; i < m.rows; i++)
        for (int64_t j = 0; j < m.cols; j++) put(t, i * t->ld + j, AT(m, i, j));
}

void mat_free(struct mat m) { free(m.v); }

void ref_philox(uint64_t key, uint64_t low, uint64_t high, uint32_t out[4])
{
    uint32_t c[4] = {(uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32)};
    uint32_t k[2] = {(uint32_t)key, (uint32_t)(key >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t left = (uint64_t)c[0] * 0xD2511F53u, right = (uint64_t)c[2] * 0xCD9E8D57u;
        uint32_t next[4] = {(uint32_t)(right >> 32) ^ c[1] ^ k[0], (uint32_t)right, (uint32_t)(left >> 32) ^ c[3] ^ k[1], (uint32_t)left};
        memcpy(c, next, sizeof c);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

int64_t ref_doc_of(const struct docs *d, int64_t token)
{
    int64_t doc = 0;
    while (d->start.dev[doc + 1] <= token) doc++;
    return doc;
}

int64_t ref_position(const struct docs *d, int64_t token)
{
    int64_t doc = ref_doc_of(d, token);
    return token - d->start.dev[doc] + (d->past.dev ? d->past.dev[doc] : 0);
}

struct ref_keys ref_keys_of(const struct attn_fwd_args *a, int64_t i)
{
    int64_t doc = ref_doc_of(&a->docs, i), position = ref_position(&a->docs, i), hidden = position - a->window + 1;
    int64_t row = a->key_start.dev ? a->key_start.dev[doc] : a->docs.start.dev[doc];
    return (struct ref_keys){row + (a->window && hidden > 0 ? hidden : 0), row + position + 1};
}

/* ---- device: host memory, everything done at once --------------------------------------------------------------- */

struct event {
    double at;
};

static status ref_alloc(enum mem_kind kind, size_t bytes, void **out)
{
    (void)kind;
    *out = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (!*out) FAIL(ST_OOM, "reference backend: cannot allocate %zu bytes", bytes);
    return ST_OK;
}

static void ref_free(enum mem_kind kind, void *p, size_t bytes)
{
    (void)kind, (void)bytes;
    free(p);
}

static status ref_stream_open(struct stream **out, int threads)
{
    *out = mem_alloc(sizeof **out);
    (*out)->be = &backend_ref;
    (*out)->threads = threads;
    return ST_OK;
}

static void ref_stream_close(struct stream *s) { free(s); }

static status ref_event_open(struct event **out)
{
    *out = mem_alloc(sizeof **out);
    return ST_OK;
}

static void ref_event_close(struct event *e) { free(e); }

static status ref_event_record(struct event *e, struct stream *s)
{
    (void)s;
    e->at = clock_s();
    return ST_OK;
}

static status ref_event_elapsed(struct event *from, struct event *to, double *seconds)
{
    *seconds = to->at - from->at;
    return ST_OK;
}

static status ref_copy(struct stream *s, void *dst, const void *src, size_t bytes)
{
    (void)s;
    memmove(dst, src, bytes);
    return ST_OK;
}

static status ref_zero(struct stream *s, void *dst, size_t bytes)
{
    (void)s;
    memset(dst, 0, bytes);
    return ST_OK;
}

static status ref_sync(struct stream *s, const char *label)
{
    (void)s, (void)label;
    return ST_OK;
}

static status ref_event_wait(struct event *e, struct stream *s, const char *label)
{
    (void)e, (void)s, (void)label;
    return ST_OK;
}

static bool ref_event_done(struct event *e) { return (void)e, true; }

static status ref_event_sync(struct event *e, const char *label)
{
    (void)e, (void)label;
    return ST_OK;
}

static status ref_host_call(struct stream *s, status (*fn)(void *arg), void *arg)
{
    (void)s;
    return fn(arg);
}

static status ref_mem_info(enum mem_kind kind, size_t *free_bytes, size_t *total_bytes)
{
    return backend_cpu.dev.mem_info(kind, free_bytes, total_bytes);
}

static status ref_prepare(struct stream *s, const struct work_bounds *w)
{
    (void)w;
    s->workspace_bytes = 0;
    return ST_OK;
}

static size_t ref_library_bytes(const struct work_bounds *w) { return (void)w, 0; }
static const char *ref_describe(void) { return "ref: float64, textbook"; }

#define REF_SLOT(name, args) .name = name##_ref,

const struct backend backend_ref = {
    .name = "ref",
    .tensors_in = MEM_HOST,
    .dev =
        {
            .alloc = ref_alloc,
            .free = ref_free,
            .stream_open = ref_stream_open,
            .stream_close = ref_stream_close,
            .event_open = ref_event_open,
            .event_close = ref_event_close,
            .event_record = ref_event_record,
            .event_wait = ref_event_wait,
            .event_done = ref_event_done,
            .event_sync = ref_event_sync,
            .clock_open = ref_event_open,
            .event_elapsed = ref_event_elapsed,
            .host_call = ref_host_call,
            .copy = ref_copy,
            .zero = ref_zero,
            .sync = ref_sync,
            .mem_info = ref_mem_info,
        },
    .ops = {TRIMPOT_OPS(REF_SLOT)},
    .prepare = ref_prepare,
    .library_bytes = ref_library_bytes,
    .describe = ref_describe,
    .accepts_f64 = true,
};
