/* Attention of the CUDA backend's own on the emulated device: that a document's bits are its own, whoever lies beside it and wherever its rows
 * begin; what is refused. What every backend must compute is in tests/ref/cases.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/base/philox.h"

enum { HEADS = 4, KV_HEADS = 2, ROOM = 4 << 20 };

static const struct backend *be;
static struct stream *s;
static char *pinned, *device; /* ROOM each; a call takes from their begin */
static size_t taken;

static void ok(status st)
{
    if (st) print_error("%s\n", status_message());
    assert_int_equal(st, ST_OK);
}

static void *place(size_t bytes)
{
    size_t at = taken;
    taken += (bytes + 63) / 64 * 64;
    assert_true(taken <= ROOM);
    return device + at;
}

static char *twin(const void *p) { return pinned + ((const char *)p - device); }

/* Rows [first, first + rows) of an endless matrix that `name` names, `pad` elements between them; no name: nothing yet. */
static tensor matrix(uint64_t name, int64_t first, int64_t rows, int64_t cols, dtype dt, int64_t pad)
{
    tensor t = tensor_2d(NULL, dt, rows, cols);
    t.ld = cols + pad;
    t.data = place((size_t)(rows * t.ld) * dtype_bytes(dt));
    for (int64_t i = 0; i < rows * cols; i++) {
        float x = name ? (float)((int64_t)(rng_mix(name * 1000003 + (uint64_t)(first * cols + i)) >> 40) - (1 << 23)) * 0x1p-23f : NAN;
        char *at = twin(t.data) + (size_t)(i / cols * t.ld + i % cols) * dtype_bytes(dt);
        bf16 half = bf16_round(x);
        memcpy(at, dt == DT_BF16 ? (const void *)&half : &x, dtype_bytes(dt));
    }
    return t;
}

struct shape {
    dtype dt;
    int64_t head_dim, window, pad;
};

enum { MOST = 8 }; /* documents of a call */

/* Documents of these lengths, the first of whose rows is `first`. */
static struct attn_bwd_args call_of(const struct shape *p, int64_t first, const int32_t *lengths, int64_t n_docs)
{
    taken = 0;
    struct docs docs = {.n_docs = n_docs};
    int32_t *start = place((MOST + 1) * sizeof *start), *host = (int32_t *)(void *)twin(start);
    host[0] = 0;
    for (int64_t i = 0; i < n_docs; i++) {
        host[i + 1] = host[i] + lengths[i];
        if (lengths[i] > docs.longest) docs.longest = lengths[i];
    }
    docs.n_tokens = host[n_docs];
    docs.positions = docs.longest;
    docs.start = (struct ints){host, start};
    int64_t n = docs.n_tokens, q = HEADS * p->head_dim, kv = KV_HEADS * p->head_dim;
    struct attn_bwd_args b = {.fwd = {.q = matrix(1, first, n, q, p->dt, p->pad),
                                      .k = matrix(2, first, n, kv, p->dt, p->pad),
                                      .v = matrix(3, first, n, kv, p->dt, p->pad),
                                      .o = matrix(0, 0, n, q, p->dt, p->pad),
                                      .lse = matrix(0, 0, n, HEADS, DT_F32, p->pad),
                                      .heads = HEADS,
                                      .kv_heads = KV_HEADS,
                                      .head_dim = p->head_dim,
                                      .window = p->window,
                                      .scale = 0.25f,
                                      .docs = docs}};
    b.d_o = matrix(4, first, n, q, p->dt, p->pad);
    b.dq = matrix(0, 0, n, q, p->dt, p->pad);
    b.dk = matrix(0, 0, n, kv, p->dt, p->pad), b.dv = matrix(0, 0, n, kv, p->dt, p->pad);
    ok(be->dev.copy(s, device, pinned, taken));
    return b;
}

/* The bits of rows [row, row + n) of all that both passes give, one after the other. */
static char *results(const struct attn_bwd_args *b, int64_t row, int64_t n, size_t *bytes)
{
    ok(op_attn_fwd(s, &b->fwd));
    ok(op_attn_bwd(s, b));
    ok(be->dev.copy(s, pinned, device, taken));
    ok(be->dev.sync(s, "attention"));
    const tensor *outs[] = {&b->fwd.o, &b->fwd.lse, &b->dq, &b->dk, &b->dv};
    char *all = malloc(ROOM);
    assert_non_null(all);
    *bytes = 0;
    for (size_t o = 0; o < sizeof outs / sizeof *outs; o++)
        for (int64_t r = row; r < row + n; r++) {
            size_t size = dtype_bytes(outs[o]->dt), line = (size_t)outs[o]->dim[1] * size;
            memcpy(all + *bytes, twin(outs[o]->data) + (size_t)(r * outs[o]->ld) * size, line);
            *bytes += line;
        }
    return all;
}

static const struct shape shapes[] = {
    {DT_F32, 16, 0, 0}, {DT_BF16, 16, 0, 0}, {DT_BF16, 64, 0, 0}, {DT_BF16, 40, 50, 0}, {DT_BF16, 128, 90, 0}, {DT_BF16, 256, 0, 0},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void test_a_document_has_bits_of_its_own(void **state)
{
    (void)state;
    static const int32_t lengths[] = {67, 1, 131, 0, 30};
    for (int i = 0; i < SHAPES; i++) {
        size_t bytes[2];
        struct attn_bwd_args packed = call_of(&shapes[i], 0, lengths, 5);
        char *among = results(&packed, 68, 131, &bytes[0]);
        struct attn_bwd_args alone = call_of(&shapes[i], 68, lengths + 2, 1);
        char *own = results(&alone, 0, 131, &bytes[1]);
        assert_int_equal(bytes[0], bytes[1]);
        assert_memory_equal(among, own, bytes[0]);
        free(among), free(own);
    }
}

/* Bounds of documents above what there is change no bit: not those of a call's launches that have nothing to do. */
static void test_bounds_do_not_show(void **state)
{
    (void)state;
    static const int32_t lengths[] = {67, 1, 131};
    for (int i = 0; i < SHAPES; i++) {
        size_t bytes[2];
        struct attn_bwd_args b = call_of(&shapes[i], 0, lengths, 3);
        char *exact = results(&b, 0, 199, &bytes[0]);
        b = call_of(&shapes[i], 0, lengths, 3);
        int32_t *start = (int32_t *)(void *)twin(b.fwd.docs.start.dev);
        for (int d = 4; d <= MOST; d++) start[d] = 199;
        ok(be->dev.copy(s, device, pinned, taken));
        b.fwd.docs.n_docs = MOST;
        b.fwd.docs.longest = b.fwd.docs.positions = 256;
        char *bound = results(&b, 0, 199, &bytes[1]);
        assert_int_equal(bytes[0], bytes[1]);
        assert_memory_equal(exact, bound, bytes[0]);
        free(exact), free(bound);
    }
}

/* Rows that begin on 16 bytes come in pieces of 16, others element by element. */
static void test_alignment_does_not_show(void **state)
{
    (void)state;
    static const int32_t lengths[] = {45, 70};
    for (int i = 0; i < SHAPES; i++) {
        size_t bytes[2];
        struct shape apart = shapes[i];
        apart.pad = 3;
        struct attn_bwd_args a = call_of(&shapes[i], 0, lengths, 2);
        char *whole = results(&a, 0, 115, &bytes[0]);
        struct attn_bwd_args b = call_of(&apart, 0, lengths, 2);
        char *single = results(&b, 0, 115, &bytes[1]);
        assert_int_equal(bytes[0], bytes[1]);
        assert_memory_equal(whole, single, bytes[0]);
        free(whole), free(single);
    }
}

/* Scores of a hundred times the cap: the power of two in their tanh would not be finite. */
static void test_scores_far_above_the_cap(void **state)
{
    (void)state;
    static const int32_t lengths[] = {20};
    struct shape p = {DT_F32, 64, 0, 0};
    struct attn_bwd_args b = call_of(&p, 0, lengths, 1);
    b.fwd.scale = 100.0f;
    b.fwd.cap = 2.0f;
    size_t bytes;
    char *all = results(&b, 0, 20, &bytes);
    for (size_t i = 0; i < bytes / sizeof(float); i++) assert_true(isfinite(((const float *)(void *)all)[i]));
    for (int64_t i = 0; i < 20; i++) {
        float lse = ((const float *)(void *)twin(b.fwd.lse.data))[i * HEADS];
        assert_true(lse >= -2.001f && lse <= 2.001f + logf((float)i + 1.0f));
    }
    free(all);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const int32_t lengths[] = {3};
    for (int dt = 0; dt < 2; dt++) {
        struct shape wide = {dt ? DT_BF16 : DT_F32, 257, 0, 0};
        struct attn_bwd_args b = call_of(&wide, 0, lengths, 1);
        assert_int_equal(op_attn_fwd(s, &b.fwd), ST_SHAPE);
        assert_non_null(strstr(status_message(), "heads of 257 channels"));
        assert_int_equal(op_attn_bwd(s, &b), ST_SHAPE);
        assert_non_null(strstr(status_message(), "heads of 257 channels"));
    }
    struct attn_bwd_args b = call_of(&shapes[0], 0, lengths, 1);
    size_t bytes = s->workspace_bytes;
    s->workspace_bytes = 8;
    assert_int_equal(op_attn_bwd(s, &b), ST_FAIL);
    assert_non_null(strstr(status_message(), "attn_bwd"));
    s->workspace_bytes = bytes;
    ok(be->dev.sync(s, "refused"));
}

static int open_device(void **state)
{
    (void)state;
    struct work_bounds w = {.dt = DT_BF16,
                            .tokens = 300,
                            .docs = 8,
                            .doc_tokens = 300,
                            .width = 64,
                            .ffn = 64,
                            .heads = HEADS,
                            .kv_heads = KV_HEADS,
                            .head_dim = 256,
                            .vocab = 64,
                            .rank = 1,
                            .head_rows = 1,
                            .threads = 1};
    ok(backend_load("emu", &(struct backend_place){0, 1}, &be));
    ok(be->dev.stream_open(&s, 1));
    ok(be->prepare(s, &w));
    ok(be->dev.alloc(MEM_DEVICE, s->workspace_bytes, &s->workspace));
    ok(be->dev.alloc(MEM_DEVICE, ROOM, (void **)&device));
    ok(be->dev.alloc(MEM_PINNED, ROOM, (void **)&pinned));
    return 0;
}

static int close_device(void **state)
{
    (void)state;
    be->dev.free(MEM_PINNED, pinned, ROOM);
    be->dev.free(MEM_DEVICE, device, ROOM);
    be->dev.free(MEM_DEVICE, s->workspace, s->workspace_bytes);
    be->dev.stream_close(s);
    return 0;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_document_has_bits_of_its_own),
        cmocka_unit_test(test_bounds_do_not_show),
        cmocka_unit_test(test_alignment_does_not_show),
        cmocka_unit_test(test_scores_far_above_the_cap),
        cmocka_unit_test(test_what_is_refused),
    };
    if (!backend_built("emu")) return 77;
    return cmocka_run_group_tests(tests, open_device, close_device);
}
