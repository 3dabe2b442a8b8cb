/* config.json: 4.x and 5.x spellings folded into one struct, refusing what would silently compute
 * something else. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/bnb.h"
#include "checkpoints/hf.h"
#include "checkpoints/hf_rope.h"
#include "checkpoints/jdoc.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

enum { CONFIG_BYTES = 16 << 20 };
static const int64_t max_size = INT32_MAX;

/* Keys whose mathematics trimpot lacks, and the one value under which they change nothing. */
static const struct {
    const char *key;
    double neutral;
} refused[] = {
    {"embedding_multiplier", 1}, {"residual_multiplier", 1}, {"logits_scaling", 1},   {"logit_scale", 1},
    {"num_local_experts", 1},    {"num_experts", 1},         {"n_routed_experts", 1}, {"use_bidirectional_attention", 0},
};

static bool is_number(const json_t *v, double x) { return json_is_number(v) && json_number_value(v) == x; }

static status check_refused(const struct jdoc *d)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const json_t *v = jdoc_get(d, refused[i].key);
        if (v && !is_number(v, refused[i].neutral) && !json_is_false(v))
            FAIL(ST_NOT_BUILT, "%s: %s is %s; trimpot does not compute that (only %g, or no such key)", d->path, refused[i].key,
                 jdoc_show(v), refused[i].neutral);
    }
    return ST_OK;
}

static status check_quantised(const struct jdoc *d)
{
    struct bnb_config c;
    TRY(bnb_config_of(d, &c));
    bnb_config_free(&c);
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
        if (on && strstr(key, "drop")) buf_printf(&found, "%s%.40s %s", found.len ? ", " : "", key, jdoc_show(v));
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
        {"num_hidden_layers", &c->layers, HF_MAX_LAYERS, true},
        {"num_attention_heads", &c->heads, max_size, true},
        {"num_key_value_heads", &c->kv_heads, max_size, false},
        {"head_dim", &c->head_dim, max_size, false},
        {"max_position_embeddings", &c->max_positions, max_size, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].required) TRY(jdoc_need(d, rows[i].key));
        TRY(jdoc_i64(d, rows[i].key, 1, rows[i].hi, rows[i].out));
    }
    return ST_OK;
}

/* Parameters × 16 bytes must fit 63 bits, so that later code may multiply sizes freely. */
static status check_products(const char *path, const struct hf_config *c)
{
    int64_t width, attn, mlp, layer, all, embed;
    bool bad = __builtin_mul_overflow(c->heads, c->head_dim, &width);
    bad = bad || __builtin_mul_overflow(width, c->hidden_size, &attn) || __builtin_mul_overflow(attn, 4, &attn);
    bad = bad || __builtin_mul_overflow(c->intermediate_size, c->hidden_size, &mlp) || __builtin_mul_overflow(mlp, 3, &mlp);
    bad = bad || __builtin_add_overflow(attn, mlp, &layer) || __builtin_mul_overflow(layer, c->layers, &all);
    bad = bad || __builtin_mul_overflow(c->vocab_size, c->hidden_size, &embed) || __builtin_mul_overflow(embed, 2, &embed);
    bad = bad || __builtin_add_overflow(all, embed, &all) || __builtin_mul_overflow(all, 16, &all);
    if (bad || width > max_size)
        FAIL(ST_CORRUPT, "%s: the sizes (vocab %lld, hidden %lld, intermediate %lld, layers %lld, heads %lld × %lld) are impossible", path,
             (long long)c->vocab_size, (long long)c->hidden_size, (long long)c->intermediate_size, (long long)c->layers,
             (long long)c->heads, (long long)c->head_dim);
    return ST_OK;
}

status hf_config_check(const char *path, const struct hf_config *c)
{
    if (c->heads % c->kv_heads)
        FAIL(ST_CORRUPT, "%s: num_attention_heads %lld is no multiple of num_key_value_heads %lld", path, (long long)c->heads,
             (long long)c->kv_heads);
    if (c->head_dim % 2) FAIL(ST_CORRUPT, "%s: head size %lld is odd; rotary positions need pairs", path, (long long)c->head_dim);
    return check_products(path, c);
}

/* A number that null sets to none. */
static status real_or_none(const struct jdoc *d, const char *key, double hi, double *out)
{
    *out = json_is_null(json_object_get(d->o, key)) ? 0 : HF_ABSENT;
    return jdoc_real(d, key, 0, hi, out);
}

static status flag_or_absent(const struct jdoc *d, const char *key, int *out)
{
    bool flag = false;
    TRY(jdoc_flag(d, key, &flag));
    *out = jdoc_get(d, key) ? flag : HF_ABSENT;
    return ST_OK;
}

static status read_layer_types(const struct jdoc *d, struct hf_config *c)
{
    const json_t *types = jdoc_get(d, "layer_types");
    if (!types) return ST_OK;
    if (!json_is_array(types) || json_array_size(types) != (size_t)c->layers)
        FAIL(ST_CORRUPT, "%s: layer_types is %s, not a list of num_hidden_layers = %lld names", d->path, jdoc_show(types),
             (long long)c->layers);
    c->has_layer_types = true;
    for (int64_t i = 0; i < c->layers; i++) {
        const json_t *t = json_array_get(types, (size_t)i);
        if (!json_is_string(t)) FAIL(ST_CORRUPT, "%s: layer_types[%lld] is %s, not a name", d->path, (long long)i, jdoc_show(t));
        c->slides[i] = strcmp(json_string_value(t), "sliding_attention") == 0;
        if (!c->slides[i] && strcmp(json_string_value(t), "full_attention") != 0)
            FAIL(ST_NOT_BUILT, "%s: layer_types[%lld] is %s; only full_attention and sliding_attention are built", d->path, (long long)i,
                 jdoc_show(t));
    }
    return ST_OK;
}

/* Which layers see how far, and what shapes the scores. */
static status read_attention(const struct jdoc *d, struct hf_config *c)
{
    c->sliding_window = json_is_null(json_object_get(d->o, "sliding_window")) ? 0 : HF_ABSENT;
    c->max_window_layers = HF_ABSENT;
    TRY(jdoc_i64(d, "sliding_window", 0, max_size, &c->sliding_window));
    TRY(jdoc_i64(d, "max_window_layers", 0, max_size, &c->max_window_layers));
    TRY(jdoc_i64(d, "sliding_window_pattern", 1, max_size, &c->sliding_window_pattern));
    TRY(flag_or_absent(d, "use_sliding_window", &c->use_sliding_window));
    TRY(jdoc_real(d, "query_pre_attn_scalar", 1e-6, 1e9, &c->query_pre_attn_scalar));
    TRY(real_or_none(d, "attn_logit_softcapping", 1e9, &c->attn_cap));
    TRY(real_or_none(d, "final_logit_softcapping", 1e9, &c->head_cap));
    return read_layer_types(d, c);
}

/* A null id is none; so is a negative one (old Llama 2 files), and a pad id beyond the vocabulary, as nothing pads. */
static status token_id(const struct jdoc *d, const char *key, const json_t *v, int64_t vocab, int32_t *out)
{
    int64_t id = json_is_integer(v) ? json_integer_value(v) : INT64_MAX;
    if (id >= vocab && !(json_is_integer(v) && strcmp(key, "pad_token_id") == 0))
        FAIL(ST_CORRUPT, "%s: %s is %s; it must be an integer below vocab_size %lld", d->path, key, jdoc_show(v), (long long)vocab);
    *out = id < 0 || id >= vocab ? -1 : (int32_t)id;
    return ST_OK;
}

static status read_token_ids(const struct jdoc *d, struct hf_config *c)
{
    const json_t *bos = jdoc_get(d, "bos_token_id"), *pad = jdoc_get(d, "pad_token_id"), *eos = jdoc_get(d, "eos_token_id");
    if (bos) TRY(token_id(d, "bos_token_id", bos, c->vocab_size, &c->bos));
    if (pad) TRY(token_id(d, "pad_token_id", pad, c->vocab_size, &c->pad));
    if (!eos) return ST_OK;
    size_t n = json_is_array(eos) ? json_array_size(eos) : 1, max = sizeof c->eos / sizeof *c->eos;
    if (n > max) FAIL(ST_CORRUPT, "%s: eos_token_id lists %zu ids, at most %zu are taken", d->path, n, max);
    c->n_eos = 0;
    for (size_t i = 0; i < n; i++) {
        TRY(token_id(d, "eos_token_id", json_is_array(eos) ? json_array_get(eos, i) : eos, c->vocab_size, &c->eos[c->n_eos]));
        c->n_eos += c->eos[c->n_eos] >= 0;
    }
    return ST_OK;
}

static status read_config(const struct jdoc *d, struct hf_config *c)
{
    char type[sizeof c->model_type] = "";
    TRY(jdoc_need(d, "model_type"));
    TRY(jdoc_string(d, "model_type", type, sizeof type));
    *c = (struct hf_config){.rms_norm_eps = HF_ABSENT, .bos = -1, .pad = -1};
    memcpy(c->model_type, type, sizeof type);
    const json_t *arch = jdoc_get(d, "architectures");
    const char *first = json_string_value(json_array_get(arch, 0));
    if (arch && (!first || strlen(first) >= sizeof c->architecture))
        FAIL(ST_CORRUPT, "%s: architectures is %s; it must be a list that begins with a class name", d->path, jdoc_show(arch));
    if (first) snprintf(c->architecture, sizeof c->architecture, "%s", first);
    TRY(check_quantised(d));
    TRY(check_refused(d));
    TRY(read_sizes(d, c));
    TRY(jdoc_string(d, "hidden_act", c->hidden_act, sizeof c->hidden_act));
    TRY(jdoc_string(d, "hidden_activation", c->hidden_activation, sizeof c->hidden_activation));
    TRY(jdoc_string(d, "torch_dtype", c->torch_dtype, sizeof c->torch_dtype));
    TRY(jdoc_string(d, "dtype", c->torch_dtype, sizeof c->torch_dtype));
    TRY(jdoc_real(d, "rms_norm_eps", 0, 1, &c->rms_norm_eps));
    TRY(flag_or_absent(d, "tie_word_embeddings", &c->tie_word_embeddings));
    TRY(flag_or_absent(d, "attention_bias", &c->attention_bias));
    TRY(flag_or_absent(d, "mlp_bias", &c->mlp_bias));
    TRY(hf_ropes_read(d, c));
    TRY(read_attention(d, c));
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
    if (!st)
        *c = with;
    else
        snprintf(c->generation_fault, sizeof c->generation_fault, "%s", status_message());
    json_decref(root);
}

status hf_config_read(const char *dir, struct hf_config *out)
{
    char *path = mem_printf("%s/config.json", dir), *generation = mem_printf("%s/generation_config.json", dir), *text = NULL;
    size_t n;
    status st;
    if (!file_is_dir(dir)) FAIL_DONE(ST_IO, "%s: no such directory; a model is a directory with config.json and safetensors", dir);
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
    if (!file_is_dir(dir)) FAIL_DONE(ST_IO, "%s: no such directory; a model is a directory with config.json and safetensors", dir);
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
        log_warn("%s/config.json: %s: not applied; the base model is trained without dropout (evaluation never uses it)", dir, c->dropouts);
    if (c->generation_fault[0])
        log_warn("%s; the token ids of config.json are used, and `trimpot generate` will refuse this model", c->generation_fault);
}
