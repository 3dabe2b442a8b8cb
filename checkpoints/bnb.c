#include "checkpoints/bnb.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/jdoc.h"
#include "kernels/base/text.h"
#include "kernels/quant_maps.h"

enum { CONFIG_BYTES = 16 << 20, STATE_BYTES = 1 << 16, MAX_SKIPS = 65536 };

#define REMEDY "use the original, unquantised model: model.quantize_base=true (or a qlora_ component) quantises it to NF4 while loading"

static const struct {
    const char *name;
    dtype dt;
} DTYPES[] = {{"uint8", DT_U8}, {"float32", DT_F32}, {"bfloat16", DT_BF16}, {"float16", DT_F16}};

static bool find_dtype(const char *name, dtype *out)
{
    for (size_t i = 0; i < sizeof DTYPES / sizeof *DTYPES; i++)
        if (!strcmp(DTYPES[i].name, name)) {
            *out = DTYPES[i].dt;
            return true;
        }
    return false;
}

/* ---- quantization_config --------------------------------------------------------------------------------------------------- */

/* Where the tools that quantise say so. */
static const char *const SECTIONS[] = {"quantization_config", "compression_config", "quantization"};

static status refuse_other(const struct jdoc *d, const char *key, const json_t *v)
{
    const json_t *method = json_object_get(v, "quant_method");
    FAIL(ST_NOT_BUILT, "%s: %s%s%s: the weights are already quantised, in a way that is not read (4-bit bitsandbytes NF4 is); " REMEDY,
         d->path, key, method ? " by " : "", method ? jdoc_show(method) : "");
}

/* Fields that mean nothing to 4 bits: int8's, and one of placing modules on devices. What they hold is only checked for its type. */
static bool is_of_8_bits(const char *key)
{
    return !strcmp(key, "llm_int8_threshold") || !strcmp(key, "llm_int8_has_fp16_weight") ||
           !strcmp(key, "llm_int8_enable_fp32_cpu_offload");
}

static status check_keys(const struct jdoc *q)
{
    static const char *const known[] = {"quant_method",
                                        "load_in_4bit",
                                        "_load_in_4bit",
                                        "load_in_8bit",
                                        "_load_in_8bit",
                                        "bnb_4bit_quant_type",
                                        "bnb_4bit_use_double_quant",
                                        "bnb_4bit_compute_dtype",
                                        "bnb_4bit_quant_storage",
                                        "llm_int8_skip_modules"};
    const char *key;
    json_t *v;
    json_object_foreach(q->o, key, v)
    {
        bool is = is_of_8_bits(key) || json_is_null(v);
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) is = is || !strcmp(known[i], key);
        if (!is)
            FAIL(ST_NOT_BUILT, "%s: %s%s is %s; nobody here knows what it changes. If nothing, delete the key; else " REMEDY, q->path,
                 q->in, key, jdoc_show(v));
    }
    bool flag;
    double threshold;
    TRY(jdoc_flag(q, "llm_int8_has_fp16_weight", &flag));
    TRY(jdoc_flag(q, "llm_int8_enable_fp32_cpu_offload", &flag));
    return jdoc_real(q, "llm_int8_threshold", -1e30, 1e30, &threshold);
}

static status read_dtype(const struct jdoc *q, const char *key, bool codes, dtype *out)
{
    char name[32] = "";
    TRY(jdoc_string(q, key, name, sizeof name));
    if (!*name) return ST_OK;
    if (!find_dtype(name, out) || (*out == DT_U8 && !codes))
        FAIL(ST_NOT_BUILT, "%s: %s%s is \"%s\"; %sfloat32, bfloat16 and float16 are read", q->path, q->in, key, name,
             codes ? "uint8, " : "");
    return ST_OK;
}

static status read_skips(const struct jdoc *q, struct bnb_config *c)
{
    const json_t *v = jdoc_get(q, "llm_int8_skip_modules");
    size_t n = json_array_size(v);
    if (!v) return ST_OK;
    if (!json_is_array(v) || n > MAX_SKIPS)
        FAIL(ST_CORRUPT, "%s: %sllm_int8_skip_modules is %s, not a list of at most %d modules", q->path, q->in, jdoc_show(v), MAX_SKIPS);
    c->skip = mem_alloc((n + 1) * sizeof *c->skip);
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(v, i);
        const char *name = json_string_value(entry);
        if (!name || !*name) FAIL(ST_CORRUPT, "%s: %sllm_int8_skip_modules[%zu] is %s, not a module", q->path, q->in, i, jdoc_show(entry));
        if (strpbrk(name, "*+?()[]{}|^$\\"))
            FAIL(ST_NOT_BUILT, "%s: %sllm_int8_skip_modules[%zu] is %s, a regular expression; name the modules one by one", q->path, q->in,
                 i, jdoc_show(entry));
        c->skip[c->n_skip++] = mem_strdup(name);
    }
    return ST_OK;
}

static status read_section(const struct jdoc *q, struct bnb_config *c)
{
    char type[32] = "fp4"; /* as bitsandbytes takes it where it is not said */
    bool four = false, eight = false;
    TRY(jdoc_flag(q, "_load_in_8bit", &eight));
    TRY(jdoc_flag(q, "load_in_8bit", &eight));
    TRY(jdoc_flag(q, "_load_in_4bit", &four));
    TRY(jdoc_flag(q, "load_in_4bit", &four));
    if (eight) FAIL(ST_NOT_BUILT, "%s: %sload_in_8bit is true: weights of 8 bits are not read (4-bit NF4 is); " REMEDY, q->path, q->in);
    if (!four) FAIL(ST_NOT_BUILT, "%s: %sload_in_4bit is not true, so that nothing says what is quantised; " REMEDY, q->path, q->in);
    TRY(jdoc_string(q, "bnb_4bit_quant_type", type, sizeof type));
    if (strcmp(type, "nf4"))
        FAIL(ST_NOT_BUILT, "%s: %sbnb_4bit_quant_type is \"%s\"%s; only nf4 is read; " REMEDY, q->path, q->in, type,
             jdoc_get(q, "bnb_4bit_quant_type") ? "" : ", as it is not said");
    TRY(check_keys(q));
    *c = (struct bnb_config){.is = true, .storage = DT_U8, .compute = DT_F32};
    TRY(jdoc_flag(q, "bnb_4bit_use_double_quant", &c->nested));
    TRY(read_dtype(q, "bnb_4bit_quant_storage", true, &c->storage));
    TRY(read_dtype(q, "bnb_4bit_compute_dtype", false, &c->compute));
    return read_skips(q, c);
}

static status read_config(const struct jdoc *d, struct bnb_config *c)
{
    for (size_t i = 0; i < sizeof SECTIONS / sizeof *SECTIONS; i++) {
        json_t *v = jdoc_get(d, SECTIONS[i]);
        const json_t *method = json_object_get(v, "quant_method");
        if (!v || json_is_false(v)) continue;
        bool four = json_is_true(json_object_get(v, "load_in_4bit")) || json_is_true(json_object_get(v, "load_in_8bit"));
        bool ours = method ? json_is_string(method) && !strcmp(json_string_value(method), "bitsandbytes") : four;
        if (i || !json_is_object(v) || !ours) return refuse_other(d, SECTIONS[i], v);
        struct jdoc q = {d->path, "quantization_config.", v};
        TRY(read_section(&q, c));
    }
    return ST_OK;
}

status bnb_config_of(const struct jdoc *d, struct bnb_config *out)
{
    *out = (struct bnb_config){0};
    status st = read_config(d, out);
    if (st) bnb_config_free(out);
    return st;
}

status bnb_config_read(const char *dir, struct bnb_config *out)
{
    char *path = mem_printf("%s/config.json", dir), *text = NULL;
    json_t *root = NULL;
    size_t n;
    status st;
    *out = (struct bnb_config){0};
    TRY_DONE(file_read(path, CONFIG_BYTES, &text, &n));
    TRY_DONE(jdoc_parse(path, text, n, &root, NULL));
    struct jdoc d = {path, "", root};
    st = bnb_config_of(&d, out);
done:
    json_decref(root);
    free(text);
    free(path);
    return st;
}

void bnb_config_free(struct bnb_config *c)
{
    for (int i = 0; i < c->n_skip; i++) free(c->skip[i]);
    free(c->skip);
    *c = (struct bnb_config){0};
}

/* As transformers 5: a name up to the boundary of a module, or the end of a name. (Up to 4.x "mlp" also named every …mlp.…: what files
 * hold tells which was meant, and bnb_find compares.) */
bool bnb_quantises(const struct bnb_config *c, const char *module)
{
    size_t n = strlen(module);
    for (int i = 0; i < c->n_skip; i++) {
        size_t k = strlen(c->skip[i]);
        if (k > n) continue;
        if (!strcmp(module + n - k, c->skip[i])) return false;
        if (!strncmp(module, c->skip[i], k) && (module[k] == '.' || module[k - 1] == '.')) return false;
    }
    return true;
}

/* ---- the state beside a weight ------------------------------------------------------------------------------------------------ */

static status read_shape(const struct jdoc *d, struct bnb_state *s)
{
    const json_t *shape = jdoc_get(d, "shape"), *rows = json_array_get(shape, 0), *cols = json_array_get(shape, 1);
    s->rows = json_integer_value(rows);
    s->cols = json_integer_value(cols);
    int64_t n;
    if (json_array_size(shape) != 2 || !json_is_integer(rows) || !json_is_integer(cols) || s->rows < 1 || s->cols < 1 ||
        __builtin_mul_overflow(s->rows, s->cols, &n) || n > INT64_MAX / 16)
        FAIL(ST_CORRUPT, "%s: shape is %s, not two sizes", d->path, shape ? jdoc_show(shape) : "missing");
    return ST_OK;
}

static status check_block(const struct jdoc *d, const char *key, int64_t want)
{
    int64_t size = 0;
    TRY(jdoc_need(d, key));
    TRY(jdoc_i64(d, key, 1, INT32_MAX, &size));
    if (size != want)
        FAIL(ST_NOT_BUILT, "%s: %s is %lld; only blocks of %lld are read; quantise the model again with that (the default), or " REMEDY,
             d->path, key, (long long)size, (long long)want);
    return ST_OK;
}

static status read_nested(const struct jdoc *d, struct bnb_state *s)
{
    char type[32] = "";
    double offset = 0;
    s->nested = jdoc_get(d, "nested_blocksize") || jdoc_get(d, "nested_dtype") || jdoc_get(d, "nested_offset");
    if (!s->nested) return ST_OK;
    TRY(check_block(d, "nested_blocksize", NF4_NESTED_BLOCK));
    TRY(jdoc_need(d, "nested_offset"));
    TRY(jdoc_real(d, "nested_offset", -3e38, 3e38, &offset));
    s->offset = (float)offset;
    TRY(jdoc_string(d, "nested_dtype", type, sizeof type));
    if (strcmp(type, "float32")) FAIL(ST_NOT_BUILT, "%s: nested_dtype is \"%s\", where only float32 is read", d->path, type);
    return ST_OK;
}

static status read_state(const struct jdoc *d, struct bnb_state *s)
{
    static const char *const known[] = {"quant_type", "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype", "nested_offset"};
    char type[32] = "", dt[32] = "";
    const char *key;
    json_t *v;
    json_object_foreach(d->o, key, v)
    {
        bool is = json_is_null(v);
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) is = is || !strcmp(known[i], key);
        if (!is) FAIL(ST_NOT_BUILT, "%s: %.64s is %s; nobody here knows what it changes", d->path, key, jdoc_show(v));
    }
    TRY(jdoc_string(d, "quant_type", type, sizeof type));
    if (strcmp(type, "nf4")) FAIL(ST_NOT_BUILT, "%s: quant_type is \"%s\"; only nf4 is read; " REMEDY, d->path, type);
    TRY(check_block(d, "blocksize", NF4_BLOCK));
    TRY(jdoc_string(d, "dtype", dt, sizeof dt));
    if (!find_dtype(dt, &s->dt) || s->dt == DT_U8)
        FAIL(ST_NOT_BUILT, "%s: dtype is \"%s\"; weights that were float32, bfloat16 or float16 are read", d->path, dt);
    TRY(read_shape(d, s));
    return read_nested(d, s);
}

status bnb_state_parse(const char *where, const char *text, size_t n, struct bnb_state *out)
{
    json_t *root;
    *out = (struct bnb_state){0};
    TRY(jdoc_parse(where, text, n, &root, NULL));
    struct jdoc d = {where, "", root};
    status st = read_state(&d, out);
    json_decref(root);
    return st;
}

/* ---- the tensors of a weight --------------------------------------------------------------------------------------------------- */

static const char NF4_STATE[] = ".quant_state.bitsandbytes__nf4", FP4_STATE[] = ".quant_state.bitsandbytes__fp4";

static const struct st_entry *beside(const struct st_set *files, const char *name, const char *end)
{
    char *whole = mem_printf("%s%s", name, end);
    const struct st_entry *e = st_find(files, whole);
    free(whole);
    return e;
}

bool bnb_is_quantised(const struct st_set *files, const char *name)
{
    return beside(files, name, NF4_STATE) || beside(files, name, FP4_STATE);
}

/* What bnb_find goes through. */
struct finding {
    const struct st_set *files;
    const struct st_entry *weight;
    bool *taken;
};

static const struct st_entry *take(const struct finding *f, const char *end)
{
    const struct st_entry *e = beside(f->files, f->weight->name, end);
    if (e && f->taken) f->taken[e - f->files->entries] = true;
    return e;
}

static status need(const struct finding *f, const char *end, dtype dt, int64_t count, const struct st_entry **out)
{
    const struct st_entry *e = *out = take(f, end);
    if (!e)
        FAIL(ST_CORRUPT, "%s: %s%s is missing: the weight is quantised, and cannot be read without it; fetch or save the directory again",
             f->weight->file, f->weight->name, end);
    if (e->known && e->dt == dt && e->rank == 1 && e->dim[0] == count) return ST_OK;
    FAIL(ST_CORRUPT, "%s: %s is %s [%lld]%s; for this weight it must be %s [%lld]; fetch or save the directory again", e->file, e->name,
         e->dtype_text, (long long)e->dim[0], e->rank == 1 ? "" : " of another rank", dt == DT_U8 ? "U8" : "F32", (long long)count);
}

static status read_beside(const struct finding *f, struct bnb_state *state)
{
    const struct st_entry *w = f->weight, *e = take(f, NF4_STATE);
    if (!e && take(f, FP4_STATE)) FAIL(ST_NOT_BUILT, "%s: %s is quantised to FP4; only NF4 is read; " REMEDY, w->file, w->name);
    if (!e && w->known && (w->dt == DT_F32 || w->dt == DT_BF16 || w->dt == DT_F16) && w->rank == 2 && w->dim[1] != 1)
        FAIL(ST_CORRUPT,
             "%s: %s is not quantised (%s), but config.json's quantization_config says that it is: name its module in "
             "llm_int8_skip_modules",
             w->file, w->name, w->dtype_text);
    if (!e) FAIL(ST_CORRUPT, "%s: %s%s is missing; fetch or save the directory again", w->file, w->name, NF4_STATE);
    if (!e->known || e->dt != DT_U8 || e->bytes > STATE_BYTES)
        FAIL(ST_CORRUPT, "%s: %s is %s of %zu bytes, not a short text in U8", e->file, e->name, e->dtype_text, e->bytes);
    char *where = mem_printf("%s: %s", e->file, e->name);
    status st = bnb_state_parse(where, e->data, e->bytes, state);
    free(where);
    return st;
}

static status check_weight(const struct bnb_config *c, const struct st_entry *w, const struct bnb_state *s, int64_t rows, int64_t cols)
{
    if (s->rows != rows || s->cols != cols)
        FAIL(ST_SHAPE,
             "%s: %s was [%lld, %lld] before it was quantised, but config.json asks for [%lld, %lld]; check that both come from "
             "the same model",
             w->file, w->name, (long long)s->rows, (long long)s->cols, (long long)rows, (long long)cols);
    if (!w->known || w->dt != c->storage)
        FAIL(ST_CORRUPT, "%s: %s is %s, but bnb_4bit_quant_storage says %s; correct that key of config.json", w->file, w->name,
             w->dtype_text, c->storage == DT_U8 ? "uint8" : dtype_name(c->storage));
    int64_t want = nf4_sizes(rows * cols).codes;
    if ((int64_t)w->bytes != want)
        FAIL(ST_CORRUPT, "%s: %s has %zu bytes of codes; [%lld, %lld] in 4 bits are %lld", w->file, w->name, w->bytes, (long long)rows,
             (long long)cols, (long long)want);
    if (s->nested != c->nested)
        FAIL(ST_CORRUPT, "%s: %s is %s double quantisation, but bnb_4bit_use_double_quant is %s; correct that key of config.json", w->file,
             w->name, s->nested ? "with" : "without", c->nested ? "true" : "false");
    return ST_OK;
}

static float value_at(const struct st_entry *e, int64_t i)
{
    float x;
    memcpy(&x, (const char *)e->data + i * 4, sizeof x);
    return x;
}

/* Every writer of NF4 has the same 16 numbers. */
static status check_map(const struct st_entry *map)
{
    for (int i = 0; i < 16; i++)
        if (!(value_at(map, i) == nf4_map[i]))
            FAIL(ST_NOT_BUILT, "%s: %s[%d] is %.9g where NF4's is %.9g: another code book; " REMEDY, map->file, map->name, i,
                 (double)value_at(map, i), (double)nf4_map[i]);
    return ST_OK;
}

status bnb_find(const struct bnb_config *c, const struct st_set *files, const struct st_entry *weight, int64_t rows, int64_t cols,
                bool *taken, struct bnb_tensor *out)
{
    const struct finding f = {files, weight, taken};
    struct nf4_sizes n = nf4_sizes(rows * cols);
    const struct st_entry *map;
    *out = (struct bnb_tensor){.codes = weight};
    TRY(read_beside(&f, &out->state));
    TRY(check_weight(c, weight, &out->state, rows, cols));
    TRY(need(&f, ".quant_map", DT_F32, 16, &map));
    TRY(check_map(map));
    TRY(need(&f, ".absmax", out->state.nested ? DT_U8 : DT_F32, n.blocks, &out->absmax));
    if (!out->state.nested) return ST_OK;
    TRY(need(&f, ".nested_absmax", DT_F32, n.nested, &out->nested));
    TRY(need(&f, ".nested_quant_map", DT_F32, 256, &map));
    if (memcmp(map->data, dynamic_map_signed, sizeof dynamic_map_signed)) out->map = map;
    return ST_OK;
}

static status check_finite(const struct st_entry *e)
{
    for (int64_t i = 0; e && i < e->dim[0]; i++)
        if (!isfinite(value_at(e, i)))
            FAIL(ST_CORRUPT, "%s: %s[%lld] is %g; fetch or save the directory again", e->file, e->name, (long long)i,
                 (double)value_at(e, i));
    return ST_OK;
}

status bnb_check_scales(const struct bnb_tensor *t)
{
    if (!t->nested) return check_finite(t->absmax);
    TRY(check_finite(t->map));
    return check_finite(t->nested);
}
