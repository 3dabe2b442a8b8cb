/* config.json: 4.x and 5.x spellings folded into one struct, refusing what would silently compute
 * something else. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/hf.h"
#include "checkpoints/jdoc.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

enum { CONFIG_BYTES = 16 << 20, MAX_LAYERS = 65536 };
static const int64_t max_size = INT32_MAX;

/* The library's values of absent keys, by model_type; the last row serves every other type. */
static const struct defaults {
    const char *model_type;
    double theta, eps;
    int64_t max_positions, sliding_window, max_window_layers;
    bool tied;
    bool window_needs_switch; /* sliding_window counts only with use_sliding_window: true */
} defaults[] = {
    {"llama", 1e4, 1e-6, 2048, 0, 0, false, true},      {"mistral", 1e4, 1e-6, 131072, 4096, 0, false, false},
    {"qwen2", 1e4, 1e-6, 32768, 4096, 28, false, true}, {"qwen3", 1e4, 1e-6, 32768, 4096, 28, false, true},
    {"gemma", 1e4, 1e-6, 8192, 0, 0, true, true},       {"gemma2", 1e4, 1e-6, 8192, 4096, 0, true, false},
    {"phi3", 1e4, 1e-5, 4096, 0, 0, false, false},      {NULL, 1e4, 1e-6, 2048, 0, 0, false, false},
};

static const struct defaults *defaults_of(const char *model_type)
{
    const struct defaults *d = defaults;
    while (d->model_type && strcmp(d->model_type, model_type) != 0) d++;
    return d;
}

/* Keys whose mathematics trimpot lacks, and the one value under which they change nothing. */
static const struct {
    const char *key;
    double neutral;
} refused[] = {
    {"embedding_multiplier", 1}, {"residual_multiplier", 1}, {"logits_scaling", 1},   {"logit_scale", 1},
    {"num_local_experts", 1},    {"num_experts", 1},         {"n_routed_experts", 1},
};

static bool is_number(const json_t *v, double x) { return json_is_number(v) && json_number_value(v) == x; }

static status check_refused(const struct jdoc *d)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const json_t *v = jdoc_get(d, refused[i].key);
        if (v && !is_number(v, refused[i].neutral) && !json_is_false(v))
            FAIL(ST_NOT_BUILT, "%s: %s is %s; trimpot does not compute that (only %g, or no such key)", d->path,
                 refused[i].key, jdoc_show(v), refused[i].neutral);
    }
    return ST_OK;
}

/* Where the tools that quantise say so. */
static status check_quantised(const struct jdoc *d)
{
    static const char *const keys[] = {"quantization_config", "compression_config", "quantization"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *v = jdoc_get(d, keys[i]), *method = json_object_get(v, "quant_method");
        if (!v || json_is_false(v)) continue;
        FAIL(ST_NOT_BUILT,
             "%s: %s%s%s: the weights are already quantised, which is not read; use the original, unquantised model: "
             "model.quantize_base=true (or a qlora_ component) quantises it to NF4 while loading",
             d->path, keys[i], method ? " by " : "", method ? jdoc_show(method) : "");
    }
    return ST_OK;
}

/* Dropouts have many names (attention_dropout, resid_pdrop, drop_path_rate, …) and act in training only. */
static void list_dropouts(const struct jdoc *d, struct hf_config *c)
{
    struct buf found = {0};
    const char *key;
    json_t *v;
    json_object_foreach(d->o, key, v)
    {
        bool on = json_is_true(v) || (json_is_number(v) && !is_number(v, 0));
        if (on && strstr(key, "drop"))
            buf_printf(&found, "%s%.40s %s", found.len ? ", " : "", key, jdoc_show(v));
    }
    if (found.len) snprintf(c->dropouts, sizeof c->dropouts, "%s", found.data);
    buf_release(&found);
}

static status read_sizes(const struct jdoc *d, struct hf_config *c)
{
    const struct {
        const char *key;
        int64_t *out;
        int64_t hi;
        bool required;
    } rows[] = {
        {"vocab_size", &c->vocab_size, max_size, true},
        {"hidden_size", &c->hidden_size, max_size, true},
        {"intermediate_size", &c->intermediate_size, max_size, true},
        {"num_hidden_layers", &c->layers, MAX_LAYERS, true},
        {"num_attention_heads", &c->heads, max_size, true},
        {"num_key_value_heads", &c->kv_heads, max_size, false},
        {"head_dim", &c->head_dim, max_size, false},
        {"max_position_embeddings", &c->max_positions, max_size, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].required) TRY(jdoc_need(d, rows[i].key));
        TRY(jdoc_i64(d, rows[i].key, 1, rows[i].hi, rows[i].out));
    }
    if (!c->kv_heads) c->kv_heads = c->heads;
    if (c->heads % c->kv_heads)
        FAIL(ST_CORRUPT, "%s: num_attention_heads %lld is no multiple of num_key_value_heads %lld", d->path,
             (long long)c->heads, (long long)c->kv_heads);
    if (!c->head_dim && c->hidden_size % c->heads)
        FAIL(ST_CORRUPT, "%s: hidden_size %lld is no multiple of num_attention_heads %lld, and head_dim is not given",
             d->path, (long long)c->hidden_size, (long long)c->heads);
    if (!c->head_dim) c->head_dim = c->hidden_size / c->heads;
    if (c->head_dim % 2)
        FAIL(ST_CORRUPT, "%s: head size %lld is odd; rotary positions need pairs", d->path, (long long)c->head_dim);
    return ST_OK;
}

/* Parameters × 16 bytes must fit 63 bits, so that later code may multiply sizes freely. */
static status check_products(const char *path, const struct hf_config *c)
{
    int64_t width, attn, mlp, layer, all, embed;
    bool bad = __builtin_mul_overflow(c->heads, c->head_dim, &width);
    bad = bad || __builtin_mul_overflow(width, c->hidden_size, &attn) || __builtin_mul_overflow(attn, 4, &attn);
    bad = bad || __builtin_mul_overflow(c->intermediate_size, c->hidden_size, &mlp) ||
          __builtin_mul_overflow(mlp, 3, &mlp);
    bad = bad || __builtin_add_overflow(attn, mlp, &layer) || __builtin_mul_overflow(layer, c->layers, &all);
    bad = bad || __builtin_mul_overflow(c->vocab_size, c->hidden_size, &embed) ||
          __builtin_mul_overflow(embed, 2, &embed);
    bad = bad || __builtin_add_overflow(all, embed, &all) || __builtin_mul_overflow(all, 16, &all);
    if (bad || width > max_size)
        FAIL(
            ST_CORRUPT,
            "%s: the sizes (vocab %lld, hidden %lld, intermediate %lld, layers %lld, heads %lld × %lld) are impossible",
            path, (long long)c->vocab_size, (long long)c->hidden_size, (long long)c->intermediate_size,
            (long long)c->layers, (long long)c->heads, (long long)c->head_dim);
    return ST_OK;
}

static status read_llama3(const struct jdoc *d, struct hf_rope *r)
{
    static const char *const keys[] = {"factor", "low_freq_factor", "high_freq_factor",
                                       "original_max_position_embeddings"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) TRY(jdoc_need(d, keys[i]));
    TRY(jdoc_real(d, "factor", 1, 1e6, &r->factor));
    TRY(jdoc_real(d, "low_freq_factor", 1e-6, 1e6, &r->low));
    TRY(jdoc_real(d, "high_freq_factor", 1e-6, 1e6, &r->high));
    TRY(jdoc_i64(d, "original_max_position_embeddings", 1, max_size, &r->original));
    if (r->high <= r->low)
        FAIL(ST_CORRUPT, "%s: %shigh_freq_factor %g must exceed low_freq_factor %g", d->path, d->in, r->high, r->low);
    return ST_OK;
}

static status read_factor(const struct jdoc *d, struct hf_rope *r)
{
    TRY(jdoc_need(d, "factor"));
    return jdoc_real(d, "factor", 1, 1e6, &r->factor);
}

/* How much YaRN sharpens attention over a context stretched by `factor`. */
static double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

/* numerics.md §2 and, for what it leaves open, transformers: a beta of 0 is "not given", mscale counts only beside
 * mscale_all_dim, a null factor is the ratio of the two lengths. r->original holds max_position_embeddings. */
static status read_yarn(const struct jdoc *d, struct hf_rope *r)
{
    double mscale = 0, mscale_all = 0, positions = (double)r->original;
    r->low = r->high = 0;
    TRY(jdoc_i64(d, "original_max_position_embeddings", 1, max_size, &r->original));
    r->factor = fmax(1, positions / (double)r->original);
    if (!json_is_null(json_object_get(d->o, "factor"))) TRY(read_factor(d, r));
    TRY(jdoc_real(d, "beta_fast", 0, 1e6, &r->high));
    TRY(jdoc_real(d, "beta_slow", 0, 1e6, &r->low));
    TRY(jdoc_real(d, "mscale", 0, 1e6, &mscale));
    TRY(jdoc_real(d, "mscale_all_dim", 0, 1e6, &mscale_all));
    TRY(jdoc_flag(d, "truncate", &r->truncate));
    if (r->high == 0) r->high = 32;
    if (r->low == 0) r->low = 1;
    if (r->high < r->low)
        FAIL(ST_CORRUPT, "%s: %sbeta_fast %g must not be below beta_slow %g", d->path, d->in, r->high, r->low);
    r->attention = yarn_mscale(r->factor, 1);
    if (mscale > 0 && mscale_all > 0)
        r->attention = yarn_mscale(r->factor, mscale) / yarn_mscale(r->factor, mscale_all);
    return jdoc_real(d, "attention_factor", 1e-6, 1e6, &r->attention);
}

static const struct {
    const char *name;
    enum rope_type type;
    status (*read)(const struct jdoc *d, struct hf_rope *r);
} rope_kinds[] = {
    {"default", ROPE_DEFAULT, NULL},        {"linear", ROPE_LINEAR, read_factor}, {"dynamic", ROPE_DYNAMIC, read_factor},
    {"llama3", ROPE_LLAMA3, read_llama3}, {"yarn", ROPE_YARN, read_yarn},
};

/* The object under rope_scaling (4.x) or rope_parameters (5.x). */
static status read_rope_object(const struct jdoc *d, struct hf_rope *r)
{
    char old[32] = "", name[32] = "";
    TRY(jdoc_string(d, "type", old, sizeof old));
    TRY(jdoc_string(d, "rope_type", name, sizeof name));
    if (!name[0]) memcpy(name, old, sizeof name);
    const char *key;
    json_t *v;
    json_object_foreach(d->o, key, v) if (json_is_object(v))
        FAIL(ST_NOT_BUILT, "%s: %s%s: rotary parameters per layer type are not built", d->path, d->in, key);
    if (!name[0] && strcmp(d->in, "rope_scaling.") == 0) FAIL(ST_CORRUPT, "%s: %srope_type is missing", d->path, d->in);
    TRY(jdoc_real(d, "partial_rotary_factor", 1e-3, 1, &r->partial));
    for (size_t i = 0; i < sizeof rope_kinds / sizeof *rope_kinds; i++) {
        if (strcmp(name[0] ? name : "default", rope_kinds[i].name) != 0) continue;
        r->type = rope_kinds[i].type;
        return rope_kinds[i].read ? rope_kinds[i].read(d, r) : ST_OK;
    }
    FAIL(ST_NOT_BUILT, "%s: %srope_type %s is not built; default, linear, dynamic, llama3 and yarn are", d->path, d->in,
         jdoc_show(jdoc_get(d, jdoc_get(d, "rope_type") ? "rope_type" : "type")));
}

/* Phi-3's files have it outside, and transformers 5 takes that for every kind; 4 takes the inner one. */
static status read_original(const struct jdoc *d, const struct jdoc *in, struct hf_rope *r)
{
    static const char key[] = "original_max_position_embeddings";
    int64_t outer = 0, inner = 0;
    TRY(jdoc_i64(d, key, 1, max_size, &outer));
    TRY(jdoc_i64(in, key, 1, max_size, &inner));
    if (!outer || (r->type != ROPE_LLAMA3 && r->type != ROPE_YARN)) return ST_OK;
    if (outer != inner)
        FAIL(ST_CORRUPT, "%s: %s is %lld but %s%s is %lld; give both the same value", d->path, key, (long long)outer,
             in->in, key, (long long)inner);
    return ST_OK;
}

static status read_rope(const struct jdoc *d, struct hf_rope *r)
{
    json_t *v4, *v5;
    TRY(jdoc_object(d, "rope_scaling", &v4));
    TRY(jdoc_object(d, "rope_parameters", &v5));
    if (v4 && v5 && !json_equal(v4, v5))
        FAIL(ST_CORRUPT, "%s: rope_scaling and rope_parameters disagree; keep one of them", d->path);
    TRY(jdoc_real(d, "partial_rotary_factor", 1e-3, 1, &r->partial));
    double top = 0, nested = 0;
    TRY(jdoc_real(d, "rope_theta", 1, 1e15, &top));
    if (v4 || v5) {
        struct jdoc in = {d->path, v5 ? "rope_parameters." : "rope_scaling.", v5 ? v5 : v4};
        TRY(read_rope_object(&in, r));
        TRY(read_original(d, &in, r));
        TRY(jdoc_real(&in, "rope_theta", 1, 1e15, &nested));
    }
    if (top != 0 && nested != 0 && top != nested)
        FAIL(ST_CORRUPT, "%s: rope_theta is %g but rope_parameters.rope_theta is %g; keep one of them", d->path, top,
             nested);
    if (top != 0 || nested != 0) r->theta = nested != 0 ? nested : top;
    if (r->type == ROPE_YARN && r->theta <= 1) FAIL(ST_CORRUPT, "%s: yarn needs a rope_theta above 1", d->path);
    return ST_OK;
}

/* Sliding windows as (window, first layer that slides); layer_types, when present, must say the same. */
static status read_window(const struct jdoc *d, const struct defaults *def, struct hf_config *c)
{
    TRY(jdoc_i64(d, "sliding_window", 0, max_size, &c->sliding_window));
    if (json_is_null(json_object_get(d->o, "sliding_window"))) c->sliding_window = 0;
    TRY(jdoc_i64(d, "max_window_layers", 0, MAX_LAYERS, &c->max_window_layers));
    c->use_sliding_window = !def->window_needs_switch && c->sliding_window > 0;
    TRY(jdoc_flag(d, "use_sliding_window", &c->use_sliding_window));
    if (!c->sliding_window) c->use_sliding_window = false;
    if (!c->use_sliding_window) c->sliding_window = c->max_window_layers = 0;

    const json_t *types = jdoc_get(d, "layer_types");
    if (!types) return ST_OK;
    if (!json_is_array(types) || json_array_size(types) != (size_t)c->layers)
        FAIL(ST_CORRUPT, "%s: layer_types is %s, not a list of num_hidden_layers = %lld names", d->path,
             jdoc_show(types), (long long)c->layers);
    for (int64_t i = 0; i < c->layers; i++) {
        const json_t *t = json_array_get(types, (size_t)i);
        const char *want = c->use_sliding_window && i >= c->max_window_layers ? "sliding_attention" : "full_attention";
        if (!json_is_string(t))
            FAIL(ST_CORRUPT, "%s: layer_types[%lld] is %s, not a name", d->path, (long long)i, jdoc_show(t));
        if (strcmp(json_string_value(t), want) != 0)
            FAIL(ST_NOT_BUILT, "%s: layer_types[%lld] is %s where the other keys give %s; such a pattern is not built",
                 d->path, (long long)i, jdoc_show(t), want);
    }
    return ST_OK;
}

/* A null id is none; so is a negative one (old Llama 2 files), and a pad id beyond the vocabulary, as nothing pads. */
static status token_id(const struct jdoc *d, const char *key, const json_t *v, int64_t vocab, int32_t *out)
{
    int64_t id = json_is_integer(v) ? json_integer_value(v) : INT64_MAX;
    if (id >= vocab && !(json_is_integer(v) && strcmp(key, "pad_token_id") == 0))
        FAIL(ST_CORRUPT, "%s: %s is %s; it must be an integer below vocab_size %lld", d->path, key, jdoc_show(v),
             (long long)vocab);
    *out = id < 0 || id >= vocab ? -1 : (int32_t)id;
    return ST_OK;
}

static status read_token_ids(const struct jdoc *d, struct hf_config *c)
{
    const json_t *bos = jdoc_get(d, "bos_token_id"), *pad = jdoc_get(d, "pad_token_id"),
                 *eos = jdoc_get(d, "eos_token_id");
    if (bos) TRY(token_id(d, "bos_token_id", bos, c->vocab_size, &c->bos));
    if (pad) TRY(token_id(d, "pad_token_id", pad, c->vocab_size, &c->pad));
    if (!eos) return ST_OK;
    size_t n = json_is_array(eos) ? json_array_size(eos) : 1, max = sizeof c->eos / sizeof *c->eos;
    if (n > max) FAIL(ST_CORRUPT, "%s: eos_token_id lists %zu ids, at most %zu are taken", d->path, n, max);
    c->n_eos = 0;
    for (size_t i = 0; i < n; i++) {
        TRY(token_id(d, "eos_token_id", json_is_array(eos) ? json_array_get(eos, i) : eos, c->vocab_size,
                     &c->eos[c->n_eos]));
        c->n_eos += c->eos[c->n_eos] >= 0;
    }
    return ST_OK;
}

static status read_config(const struct jdoc *d, struct hf_config *c)
{
    char type[sizeof c->model_type] = "";
    TRY(jdoc_need(d, "model_type"));
    TRY(jdoc_string(d, "model_type", type, sizeof type));
    const struct defaults *def = defaults_of(type);
    *c = (struct hf_config){.hidden_act = "silu",
                            .max_positions = def->max_positions,
                            .rms_norm_eps = def->eps,
                            .tie_word_embeddings = def->tied,
                            .sliding_window = def->sliding_window,
                            .max_window_layers = def->max_window_layers,
                            .bos = -1,
                            .pad = -1,
                            .rope = {.theta = def->theta, .factor = 1, .partial = 1, .attention = 1, .truncate = true}};
    memcpy(c->model_type, type, sizeof type);
    const json_t *arch = jdoc_get(d, "architectures");
    const char *first = json_string_value(json_array_get(arch, 0));
    if (arch && (!first || strlen(first) >= sizeof c->architecture))
        FAIL(ST_CORRUPT, "%s: architectures is %s; it must be a list that begins with a class name", d->path,
             jdoc_show(arch));
    if (first) snprintf(c->architecture, sizeof c->architecture, "%s", first);
    TRY(check_quantised(d));
    TRY(check_refused(d));
    TRY(read_sizes(d, c));
    TRY(check_products(d->path, c));
    TRY(jdoc_string(d, "hidden_act", c->hidden_act, sizeof c->hidden_act));
    TRY(jdoc_string(d, "hidden_activation", c->hidden_act, sizeof c->hidden_act));
    TRY(jdoc_string(d, "torch_dtype", c->torch_dtype, sizeof c->torch_dtype));
    TRY(jdoc_string(d, "dtype", c->torch_dtype, sizeof c->torch_dtype));
    TRY(jdoc_real(d, "rms_norm_eps", 0, 1, &c->rms_norm_eps));
    TRY(jdoc_flag(d, "tie_word_embeddings", &c->tie_word_embeddings));
    TRY(jdoc_flag(d, "attention_bias", &c->attention_bias));
    TRY(jdoc_flag(d, "mlp_bias", &c->mlp_bias));
    c->rope.original = c->max_positions;
    TRY(read_rope(d, &c->rope));
    TRY(read_window(d, def, c));
    list_dropouts(d, c);
    return read_token_ids(d, c);
}

status hf_config_parse(const char *path, const char *json, size_t n, struct hf_config *out)
{
    json_t *root;
    *out = (struct hf_config){0};
    TRY(jdoc_parse(path, json, n, &root, NULL));
    struct jdoc d = {path, "", root};
    status st = read_config(&d, out);
    json_decref(root);
    return st;
}

/* Reads one of the directory's files as an object; the caller json_decrefs. */
static status read_object(const char *path, json_t **root)
{
    char *text;
    size_t n;
    *root = NULL;
    TRY(file_read(path, CONFIG_BYTES, &text, &n));
    status st = jdoc_parse(path, text, n, root, NULL);
    free(text);
    return st;
}

/* Its token ids go before config.json's. Nothing else of it is used, so that a broken one need not stop a training. */
static void override_from_generation(const char *path, struct hf_config *c)
{
    json_t *root;
    struct hf_config with = *c;
    if (!file_exists(path)) return;
    status st = read_object(path, &root);
    struct jdoc d = {path, "", root};
    if (!st) st = read_token_ids(&d, &with);
    if (!st) *c = with;
    else snprintf(c->generation_fault, sizeof c->generation_fault, "%s", status_message());
    json_decref(root);
}

status hf_config_read(const char *dir, struct hf_config *out)
{
    char *path = mem_printf("%s/config.json", dir), *generation = mem_printf("%s/generation_config.json", dir),
         *text = NULL;
    size_t n;
    status st;
    if (!file_is_dir(dir))
        FAIL_DONE(ST_IO, "%s: no such directory; a model is a directory with config.json and safetensors", dir);
    TRY_DONE(file_read(path, CONFIG_BYTES, &text, &n));
    TRY_DONE(hf_config_parse(path, text, n, out));
    override_from_generation(generation, out);
done:
    free(text);
    free(path);
    free(generation);
    return st;
}

status hf_config_model_type(const char *dir, char *out, size_t cap)
{
    char *path = mem_printf("%s/config.json", dir);
    json_t *root = NULL, *inner;
    status st;
    *out = 0;
    if (!file_is_dir(dir))
        FAIL_DONE(ST_IO, "%s: no such directory; a model is a directory with config.json and safetensors", dir);
    TRY_DONE(read_object(path, &root));
    struct jdoc d = {path, "", root};
    TRY_DONE(jdoc_object(&d, "text_config", &inner));
    struct jdoc text = {path, "text_config.", inner};
    if (!jdoc_get(&d, "model_type") && inner) TRY_DONE(jdoc_string(&text, "model_type", out, cap));
    if (!*out) TRY_DONE(jdoc_need(&d, "model_type"));
    TRY_DONE(jdoc_string(&d, "model_type", out, cap));
done:
    json_decref(root);
    free(path);
    return st;
}

void hf_config_warn(const char *dir, const struct hf_config *c)
{
    if (c->dropouts[0])
        log_warn("%s/config.json: %s: not applied; the base model is trained without dropout (evaluation never uses it)",
                 dir, c->dropouts);
    if (c->generation_fault[0])
        log_warn("%s; the token ids of config.json are used, and `trimpot generate` will refuse this model",
                 c->generation_fault);
}
