/* NF4 weights of a directory (tests/truth/golden/nf4, make_nf4.py): dequantised to the bits that bitsandbytes gives, where they are used
 * in place and where they are copied; the codes that we would have made; and what is refused, by name. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>

#include "kernels/base/text.h"
#include "kernels/quant_maps.h"
#include "tests/ref/kit.h"
#include "worker/memory/param_store.h"

#define GOLDEN TRIMPOT_SOURCE_DIR "/tests/truth/golden/"

#define MUST(expr)                                                                                                                         \
    do {                                                                                                                                   \
        if (expr) fail_msg("%s: %s", #expr, status_message());                                                                             \
    } while (0)

static struct stream *s;
static struct backend apart; /* the CPU with memory of its own: nothing is used in place */

static status apart_stream_open(struct stream **out, int threads)
{
    TRY(backend_cpu.dev.stream_open(out, threads));
    (*out)->be = &apart;
    return ST_OK;
}

/* A store of one weight, loaded and dequantised to f32. */
struct one {
    struct param_store ps;
    struct stage stage;
    struct stream *s;
    struct arena arena[3];
    void *memory[3];
};

static void lay_out(struct one *o)
{
    param_store_layout(&o->ps, &o->arena[0], &o->arena[1], &o->arena[2]);
    stage_layout(&o->stage, &o->arena[2], &o->arena[2]);
}

static struct param *one_open(struct one *o, const struct backend *be, dtype act, const struct bnb_config *c, const struct st_set *files,
                              const char *name, int64_t rows, int64_t cols)
{
    *o = (struct one){.s = NULL};
    MUST(be->dev.stream_open(&o->s, 1));
    param_store_init(&o->ps, be, act, DT_F32, false, &(struct param_policy){.in_turn = true});
    o->ps.bnb = c;
    int id = param_add(&o->ps, PARAM_NF4, rows, cols, "%s", name);
    struct param *p = &o->ps.p[id];
    p->stored = true;
    p->source = st_find(files, name);
    assert_non_null(p->source);
    MUST(param_stored_find(&o->ps, p, files, p->source, NULL));
    param_store_index(&o->ps);
    MUST(stage_init(&o->stage, o->s, param_load_bytes(&o->ps)));
    for (int i = 0; i < 3; i++) arena_init(&o->arena[i], "test");
    lay_out(o);
    for (int i = 0; i < 3; i++) arena_bind(&o->arena[i], o->memory[i] = calloc(1, arena_need(&o->arena[i]) + 1));
    lay_out(o);
    MUST(param_store_load(&o->ps, &o->stage, 1));
    return p;
}

static void one_close(struct one *o)
{
    param_store_release(&o->ps);
    stage_release(&o->stage);
    o->ps.be = NULL;
    s->be->dev.stream_close(o->s);
    for (int i = 0; i < 3; i++) free(o->memory[i]), arena_release(&o->arena[i]);
}

static uint32_t crc_of(struct one *o, const struct param *p)
{
    tensor w;
    MUST(param_acquire(&o->ps, o->s, (int)(p - o->ps.p), &w));
    uint32_t crc = kit_crc32(w.data, (size_t)p->count * 4);
    param_done(&o->ps, (int)(p - o->ps.p));
    return crc;
}

static json_t *read_json(const char *path)
{
    json_error_t e;
    json_t *root = json_load_file(path, 0, &e);
    if (!root) fail_msg("%s: %s", path, e.text);
    return root;
}

static dtype dtype_called(const char *name) { return !strcmp(name, "bfloat16") ? DT_BF16 : !strcmp(name, "uint8") ? DT_U8 : DT_F32; }

/* Odd sizes, groups of scales, another code book, codes called bf16; f32, bf16 and f16 in between, subnormal f16 too. */
static void parts_are_bit_exact(void **state)
{
    struct st_set files;
    (void)state;
    MUST(st_open(GOLDEN "nf4/parts.safetensors", NULL, &files));
    json_t *told = read_json(GOLDEN "nf4/parts.json"), *v;
    const char *name;
    int books = 0, n = 0;
    json_object_foreach(told, name, v)
    {
        struct bnb_config c = {.is = true,
                               .nested = json_is_true(json_object_get(v, "nested")),
                               .storage = dtype_called(json_string_value(json_object_get(v, "storage")))};
        uint32_t want = (uint32_t)json_integer_value(json_object_get(v, "crc32"));
        char *whole = mem_printf("%s.weight", name);
        for (int copied = 0; copied < 2; copied++) {
            struct one o;
            struct param *p = one_open(&o, copied ? &apart : &backend_cpu, DT_F32, &c, &files, whole,
                                       json_integer_value(json_object_get(v, "rows")), json_integer_value(json_object_get(v, "cols")));
            if (p->mapped != (!copied && !p->packed.map)) fail_msg("%s: %s", name, p->mapped ? "in place" : "copied");
            if (crc_of(&o, p) != want) fail_msg("%s, %s: other bits than bitsandbytes'", name, copied ? "copied" : "in place");
            books += p->packed.map != NULL;
            one_close(&o);
        }
        free(whole);
        n++;
    }
    assert_true(n == 6 && books == 2);
    json_decref(told);
    st_close(&files);
}

/* The mean of the scales is summed in another order there, and codes of scales are looked up in 65,536 cells of [-1, 1]
 * (numerics.md §15.2): one that lies that near to the middle of two codes may become either. */
static void scales_agree(const struct param *p, const float *x, const uint8_t *ours, float nested, float offset)
{
    const uint8_t *theirs = p->nf4.absmax_q.data;
    double theirs_mean = (double)p->packed.state.offset, mean = (double)offset;
    assert_true(fabs(mean - theirs_mean) <= 2 * ulp_of(DT_F32, mean));
    for (int64_t b = 0; b < p->nf4.absmax_q.dim[0]; b++) {
        if (ours[b] == theirs[b]) continue;
        float top = 0;
        for (int64_t i = 64 * b; i < p->count && i < 64 * b + 64; i++) top = fmaxf(top, fabsf(x[i]));
        double y = ((double)top - mean) / (double)nested;
        double between = ((double)dynamic_map_signed[ours[b]] + (double)dynamic_map_signed[theirs[b]]) / 2;
        if (abs(ours[b] - theirs[b]) != 1 || fabs(y - between) > 0x1p-15)
            fail_msg("%s: scale %lld has code %d here, %d there, and %.9g is %.2g from between", p->name, (long long)b, ours[b], theirs[b],
                     y, y - between);
    }
}

/* Every weight of a directory, and our codes of its original: numerics.md §8.2 leaves ties open, and there are none here. */
static void directory(const char *name, bool nested, dtype was)
{
    struct st_set files, originals;
    struct bnb_config c;
    char *dir = mem_printf(GOLDEN "nf4/%s/model", name), *path = mem_printf(GOLDEN "nf4/%s/golden.json", name);
    json_t *golden = read_json(path), *v;
    char *base = mem_printf(GOLDEN "%s/model", json_string_value(json_object_get(golden, "family")));
    const char *weight;
    MUST(bnb_config_read(dir, &c));
    assert_true(c.is && c.nested == nested && c.storage == DT_U8 && c.compute == DT_F32);
    MUST(st_open(dir, "model", &files));
    MUST(st_open(base, "model", &originals));
    json_object_foreach(json_object_get(golden, "decoded"), weight, v)
    {
        const struct st_entry *w = st_find(&originals, weight);
        struct one o;
        struct param *p = one_open(&o, &backend_cpu, DT_F32, &c, &files, weight, w->dim[0], w->dim[1]);
        assert_true(p->packed.state.dt == was && p->nf4.through == was);
        if (crc_of(&o, p) != (uint32_t)json_integer_value(v)) fail_msg("%s %s: other bits than bitsandbytes'", name, weight);

        struct nf4_sizes n = nf4_sizes(p->count);
        float *x = mem_alloc((size_t)p->count * 4), offset, *scale = mem_alloc((size_t)n.nested * 4);
        uint8_t *codes = mem_alloc((size_t)n.codes), *absmax = mem_alloc((size_t)n.blocks);
        for (int64_t i = 0; i < p->count; i++) x[i] = (float)ref_round(was, (double)((const float *)w->data)[i]);
        MUST(op_nf4_quantize(s, &(struct nf4_args){tensor_1d(x, DT_F32, p->count), tensor_1d(codes, DT_U8, n.codes),
                                                   tensor_1d(absmax, DT_U8, n.blocks), tensor_1d(scale, DT_F32, n.nested),
                                                   tensor_1d(&offset, DT_F32, 1)}));
        if (memcmp(codes, p->nf4.codes.data, (size_t)n.codes)) fail_msg("%s %s: we make other codes", name, weight);
        if (nested) scales_agree(p, x, absmax, scale[0], offset);
        free(x), free(codes), free(absmax), free(scale);
        one_close(&o);
    }
    json_decref(golden);
    bnb_config_free(&c);
    st_close(&files), st_close(&originals);
    free(dir), free(path), free(base);
}

static void directories_are_bit_exact(void **state)
{
    (void)state;
    directory("double", true, DT_BF16);
    directory("single", false, DT_F16);
}

static void modules(void **state)
{
    struct bnb_config c;
    (void)state;
    MUST(bnb_config_read(GOLDEN "nf4/single/model", &c));
    assert_true(bnb_quantises(&c, "model.layers.0.mlp.down_proj") && !bnb_quantises(&c, "model.layers.1.mlp.down_proj"));
    assert_true(!bnb_quantises(&c, "model.layers.0.self_attn.q_proj") && bnb_quantises(&c, "model.layers.1.self_attn.q_proj"));
    bnb_config_free(&c);
    char *names[] = {"model.layers.1", "up_proj", "mlp"};
    c = (struct bnb_config){.skip = names, .n_skip = 3}; /* boundaries; ends; and not: a name in the middle */
    assert_true(!bnb_quantises(&c, "model.layers.1.mlp.gate_proj") && bnb_quantises(&c, "model.layers.11.mlp.gate_proj"));
    assert_true(!bnb_quantises(&c, "model.layers.2.mlp.up_proj") && bnb_quantises(&c, "model.layers.2.mlp.gate_proj"));
}

/* ---- refused -------------------------------------------------------------------------------------------------------------------- */

/* Tensors of one weight, [2, 64]. */
struct made {
    const char *dtype; /* of the weight */
    int bytes;
    const char *state;                   /* NULL: none */
    int absmax, nested, map, nested_map; /* elements; 0: no such tensor */
    const char *absmax_dtype;
    float code1, scale0; /* quant_map[1], nested_absmax[0] or absmax[0] */
};

static unsigned char *image(const struct made *m, size_t *bytes)
{
    struct buf header = {0}, data = {0};
    float zeros[300] = {0};
    bool wide = !strcmp(m->absmax_dtype, "F32");
    buf_text(&header, "{");
#define PUT(name, type, count, at, n)                                                                                                      \
    do {                                                                                                                                   \
        buf_printf(&header, "%s\"w.weight%s\":{\"dtype\":\"%s\",\"shape\":[%d%s],\"data_offsets\":[%zu,%zu]}", header.len > 1 ? "," : "",  \
                   name, type, count, *(name) ? "" : ",1", data.len, data.len + (size_t)(n));                                              \
        buf_add(&data, (const char *)(at), (size_t)(n));                                                                                   \
    } while (0)
    float book[16];
    memcpy(book, nf4_map, sizeof book);
    book[1] = m->code1;
    PUT("", m->dtype, m->bytes / (!strcmp(m->dtype, "U8") ? 1 : !strcmp(m->dtype, "F16") ? 2 : 4), zeros, m->bytes);
    if (m->state) PUT(".quant_state.bitsandbytes__nf4", "U8", (int)strlen(m->state), m->state, strlen(m->state));
    if (m->map) PUT(".quant_map", "F32", m->map, book, m->map * 4);
    zeros[0] = m->scale0;
    if (m->absmax) PUT(".absmax", m->absmax_dtype, m->absmax, zeros, m->absmax * (wide ? 4 : 1));
    if (m->nested) PUT(".nested_absmax", "F32", m->nested, zeros, m->nested * 4);
    if (m->nested_map) PUT(".nested_quant_map", "F32", m->nested_map, dynamic_map_signed, m->nested_map * 4);
    buf_text(&header, "}");
    unsigned char *out = malloc(*bytes = 8 + header.len + data.len);
    for (int i = 0; i < 8; i++) out[i] = (unsigned char)(header.len >> (8 * i));
    memcpy(out + 8, header.data, header.len);
    memcpy(out + 8 + header.len, data.data, data.len);
    buf_release(&header), buf_release(&data);
    return out;
}

#define ONCE "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"bfloat16\",\"shape\":[2,64]}"
#define TWICE                                                                                                                              \
    "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"bfloat16\",\"shape\":[2,64],\"nested_blocksize\":256,\"nested_dtype\":"          \
    "\"float32\",\"nested_offset\":0.25}"
#define STATE(text) "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"bfloat16\",\"shape\":[2,64]," text "}"
#define CODE1       -0.69619280099868774f

static const struct {
    struct made m;
    bool nested;
    status st;
    const char *says;
} refusals[] = {
    {{"U8", 64, ONCE, 2, 0, 16, 0, "F32", CODE1, 1}, false, ST_OK, ""},
    {{"U8", 64, TWICE, 2, 1, 16, 256, "U8", CODE1, 1}, true, ST_OK, ""},
    {{"U8", 64, NULL, 2, 0, 16, 0, "F32", CODE1, 1}, false, ST_CORRUPT, "w.weight.quant_state.bitsandbytes__nf4 is missing"},
    {{"F32", 64, NULL, 0, 0, 0, 0, "F32", CODE1, 1}, false, ST_CORRUPT, "quant_state.bitsandbytes__nf4 is missing"},
    {{"U8", 64, ONCE, 0, 0, 16, 0, "F32", CODE1, 1}, false, ST_CORRUPT, "w.weight.absmax is missing"},
    {{"U8", 64, ONCE, 3, 0, 16, 0, "F32", CODE1, 1}, false, ST_CORRUPT, "w.weight.absmax is F32 [3]; for this weight it must be F32 [2]"},
    {{"U8", 64, ONCE, 2, 0, 16, 0, "U8", CODE1, 1}, false, ST_CORRUPT, "absmax is U8 [2]; for this weight it must be F32 [2]"},
    {{"U8", 64, ONCE, 2, 0, 0, 0, "F32", CODE1, 1}, false, ST_CORRUPT, "w.weight.quant_map is missing"},
    {{"U8", 64, ONCE, 2, 0, 15, 0, "F32", CODE1, 1}, false, ST_CORRUPT, "quant_map is F32 [15]"},
    {{"U8", 64, ONCE, 2, 0, 16, 0, "F32", -0.5f, 1}, false, ST_NOT_BUILT, "quant_map[1] is -0.5 where NF4's is -0.696192801"},
    {{"U8", 63, ONCE, 2, 0, 16, 0, "F32", CODE1, 1}, false, ST_CORRUPT, "has 63 bytes of codes; [2, 64] in 4 bits are 64"},
    {{"F16", 64, ONCE, 2, 0, 16, 0, "F32", CODE1, 1}, false, ST_CORRUPT, "w.weight is F16, but bnb_4bit_quant_storage says uint8"},
    {{"U8", 64, ONCE, 2, 0, 16, 0, "F32", CODE1, INFINITY}, false, ST_CORRUPT, "w.weight.absmax[0] is inf"},
    {{"U8", 64, TWICE, 2, 1, 16, 256, "U8", CODE1, NAN}, true, ST_CORRUPT, "w.weight.nested_absmax[0] is"},
    {{"U8", 64, TWICE, 2, 0, 16, 256, "U8", CODE1, 1}, true, ST_CORRUPT, "w.weight.nested_absmax is missing"},
    {{"U8", 64, TWICE, 2, 1, 16, 0, "U8", CODE1, 1}, true, ST_CORRUPT, "w.weight.nested_quant_map is missing"},
    {{"U8", 64, TWICE, 2, 2, 16, 256, "U8", CODE1, 1}, true, ST_CORRUPT, "nested_absmax is F32 [2]"},
    {{"U8", 64, TWICE, 2, 1, 16, 255, "U8", CODE1, 1}, true, ST_CORRUPT, "nested_quant_map is F32 [255]"},
    {{"U8", 64, TWICE, 2, 1, 16, 256, "U8", CODE1, 1},
     false,
     ST_CORRUPT,
     "with double quantisation, but bnb_4bit_use_double_quant is false"},
    {{"U8", 64, ONCE, 2, 0, 16, 0, "F32", CODE1, 1},
     true,
     ST_CORRUPT,
     "without double quantisation, but bnb_4bit_use_double_quant is true"},
    {{"U8", 64, STATE("\"nested_blocksize\":256,\"nested_dtype\":\"float32\""), 2, 1, 16, 256, "U8", CODE1, 1},
     true,
     ST_CORRUPT,
     "nested_offset is missing"},
    {{"U8", 64, STATE("\"nested_blocksize\":128,\"nested_dtype\":\"float32\",\"nested_offset\":0"), 2, 1, 16, 256, "U8", CODE1, 1},
     true,
     ST_NOT_BUILT,
     "nested_blocksize is 128; only blocks of 256"},
    {{"U8", 64, STATE("\"nested_blocksize\":256,\"nested_dtype\":\"float16\",\"nested_offset\":0"), 2, 1, 16, 256, "U8", CODE1, 1},
     true,
     ST_NOT_BUILT,
     "nested_dtype is \"float16\""},
    {{"U8", 64, STATE("\"rotated\":true"), 2, 0, 16, 0, "F32", CODE1, 1}, false, ST_NOT_BUILT, "rotated is true; nobody here knows"},
    {{"U8", 64, "{\"quant_type\":\"nf4\",\"blocksize\":128,\"dtype\":\"bfloat16\",\"shape\":[2,64]}", 2, 0, 16, 0, "F32", CODE1, 1},
     false,
     ST_NOT_BUILT,
     "blocksize is 128; only blocks of 64"},
    {{"U8", 64, "{\"quant_type\":\"fp4\",\"blocksize\":64,\"dtype\":\"bfloat16\",\"shape\":[2,64]}", 2, 0, 16, 0, "F32", CODE1, 1},
     false,
     ST_NOT_BUILT,
     "quant_type is \"fp4\""},
    {{"U8", 64, "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"float64\",\"shape\":[2,64]}", 2, 0, 16, 0, "F32", CODE1, 1},
     false,
     ST_NOT_BUILT,
     "dtype is \"float64\""},
    {{"U8", 64, "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"bfloat16\",\"shape\":[128]}", 2, 0, 16, 0, "F32", CODE1, 1},
     false,
     ST_CORRUPT,
     "shape is [128], not two sizes"},
    {{"U8", 64, "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"bfloat16\",\"shape\":[64,2]}", 2, 0, 16, 0, "F32", CODE1, 1},
     false,
     ST_SHAPE,
     "was [64, 2] before it was quantised, but config.json asks for [2, 64]"},
    {{"U8", 64, "not JSON", 2, 0, 16, 0, "F32", CODE1, 1}, false, ST_CORRUPT, "w.weight.quant_state.bitsandbytes__nf4"},
};

static void hostile_tensors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        size_t bytes;
        struct st_set files = {0};
        struct bnb_tensor found;
        struct bnb_config c = {.is = true, .nested = refusals[i].nested, .storage = DT_U8};
        unsigned char *data = image(&refusals[i].m, &bytes);
        MUST(st_parse("f.safetensors", data, bytes, &files.entries, &files.n));
        status st = bnb_find(&c, &files, st_find(&files, "w.weight"), 2, 64, NULL, &found);
        if (!st) st = bnb_check_scales(&found);
        if (st != refusals[i].st || (st && (!strstr(status_message(), refusals[i].says) || !strstr(status_message(), "f.safetensors"))))
            fail_msg("row %zu: %d, %s", i, st, st ? status_message() : "accepted");
        st_entries_free(files.entries, files.n);
        free(data);
    }
}

static int open_all(void **state)
{
    (void)state;
    apart = backend_cpu;
    apart.tensors_in = MEM_DEVICE;
    apart.dev.stream_open = apart_stream_open;
    return kit_stream_open(&backend_cpu, 2, &s);
}

static int close_all(void **state)
{
    (void)state;
    kit_stream_close(s);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_bit_exact),
        cmocka_unit_test(directories_are_bit_exact),
        cmocka_unit_test(modules),
        cmocka_unit_test(hostile_tensors),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
