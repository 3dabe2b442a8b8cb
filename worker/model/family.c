#include "worker/model/family.h"

#include <math.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "worker/memory/param_store.h"

static const struct family FAMILIES[] = {
    {.model_type = "llama", .act = ACT_SILU, .hidden_act = "silu"},
    {.model_type = "qwen2", .act = ACT_SILU, .hidden_act = "silu", .qkv_bias = true},
    {.model_type = "mistral", .later = "Mistral is not built yet"},
    {.model_type = "qwen3", .later = "Qwen3 (q/k norms) is not built yet"},
    {.model_type = "gemma", .later = "Gemma is not built yet"},
    {.model_type = "gemma2", .later = "Gemma 2 is not built yet"},
    {.model_type = "phi3", .later = "Phi-3 (fused projections) is not built yet"},
};
enum { N_FAMILIES = sizeof FAMILIES / sizeof *FAMILIES };

static const struct family *find(const char *model_type)
{
    for (int i = 0; i < N_FAMILIES; i++)
        if (!strcmp(FAMILIES[i].model_type, model_type)) return &FAMILIES[i];
    return NULL;
}

static status judge(const char *dir, const char *model_type, const struct family **out)
{
    *out = find(model_type);
    if (*out && !(*out)->later) return ST_OK;
    FAIL(ST_NOT_BUILT, "%s/config.json: model_type '%s' is not supported%s%s; trimpot trains: llama (Llama 2, 3, 3.1, 3.2 and "
         "models of their kind), qwen2 (Qwen2, Qwen2.5)", dir, model_type, *out ? ": " : "", *out ? (*out)->later : "");
}

status family_open(const char *dir, struct hf_config *hf, struct model_shape *out)
{
    char model_type[128];
    const struct family *f;
    TRY(hf_config_model_type(dir, model_type, sizeof model_type));
    TRY(judge(dir, model_type, &f));
    TRY(hf_config_read(dir, hf));
    return family_shape(dir, hf, out);
}

status family_shape(const char *dir, const struct hf_config *hf, struct model_shape *out)
{
    const struct family *f;
    TRY(judge(dir, hf->model_type, &f));
    if (strcmp(hf->hidden_act, f->hidden_act))
        FAIL(ST_NOT_BUILT, "%s/config.json: hidden_act '%s' is not '%s', the only activation of %s models", dir,
             hf->hidden_act, f->hidden_act, f->model_type);
    if ((hf->attention_bias && !f->qkv_bias) || hf->mlp_bias)
        FAIL(ST_NOT_BUILT, "%s/config.json: %s: true is not supported for %s models", dir,
             hf->mlp_bias ? "mlp_bias" : "attention_bias", f->model_type);
    if (hf->layers > MODEL_MAX_LAYERS)
        FAIL(ST_NOT_BUILT, "%s/config.json: %lld layers are more than the %d that are built", dir, (long long)hf->layers, MODEL_MAX_LAYERS);
    *out = (struct model_shape){
        .family = f, .layers = hf->layers, .width = hf->hidden_size, .ffn = hf->intermediate_size, .heads = hf->heads,
        .kv_heads = hf->kv_heads, .head_dim = hf->head_dim, .vocab = hf->vocab_size, .max_positions = hf->max_positions,
        .eps = (float)hf->rms_norm_eps, .act = f->act, .attn_scale = (float)(1 / sqrt((double)hf->head_dim)), .qkv_bias = f->qkv_bias,
        .tied = hf->tie_word_embeddings, .window = hf->use_sliding_window ? hf->sliding_window : 0, .rope = {hf->rope, hf->rope},
    };
    for (int64_t l = 0; l < out->layers; l++) out->sliding[l] = out->window > 0 && l >= hf->max_window_layers;
    return ST_OK;
}

/* The dimension whose pair turns `rotations` times within the original context. */
static double yarn_dimension(const struct hf_rope *r, double d, double rotations)
{
    return d * log((double)r->original / (rotations * 2 * M_PI)) / (2 * log(r->theta));
}

/* How far from the frequency as it is (0) to the one of a stretched context (1), for pair j: a ramp between two pairs. */
static double yarn_ramp(const struct hf_rope *r, double d, double j)
{
    double lo = yarn_dimension(r, d, r->high), hi = yarn_dimension(r, d, r->low);
    if (r->truncate) {
        lo = floor(lo);
        hi = ceil(hi);
    }
    lo = fmax(lo, 0);
    hi = fmin(hi, d - 1);
    if (lo == hi) hi += 0.001;
    return fmin(fmax((j - lo) / (hi - lo), 0), 1);
}

static double llama3_frequency(const struct hf_rope *r, double f)
{
    double wavelength = 2 * M_PI / f, original = (double)r->original;
    double smooth = (original / wavelength - r->low) / (r->high - r->low);
    if (wavelength > original / r->low) return f / r->factor;
    if (wavelength < original / r->high) return f;
    return (1 - smooth) * f / r->factor + smooth * f;
}

void family_rope_frequencies(const struct model_shape *m, const struct hf_rope *r, int64_t longest, float *out)
{
    double d = (double)(int64_t)((double)m->head_dim * r->partial), theta = r->theta;
    if (r->type == ROPE_DYNAMIC && longest > m->max_positions)
        theta *= pow(r->factor * (double)longest / (double)m->max_positions - (r->factor - 1), d / (d - 2));
    for (int64_t j = 0; j < (int64_t)d / 2; j++) {
        double f = pow(theta, -2.0 * (double)j / d);
        if (r->type == ROPE_LINEAR) f /= r->factor;
        if (r->type == ROPE_LLAMA3) f = llama3_frequency(r, f);
        if (r->type == ROPE_YARN) {
            double ramp = yarn_ramp(r, d, (double)j);
            f = f / r->factor * ramp + f * (1 - ramp);
        }
        out[j] = (float)f;
    }
}

int family_ropes(const struct model_shape *m)
{
    const struct hf_rope *a = &m->rope[0], *b = &m->rope[1];
    bool same = a->type == b->type && a->theta == b->theta && a->factor == b->factor && a->partial == b->partial &&
                a->original == b->original && a->low == b->low && a->high == b->high && a->attention == b->attention &&
                a->truncate == b->truncate;
    return same ? 1 : 2;
}

int64_t family_longest(const struct model_shape *m)
{
    const struct hf_rope *r = &m->rope[0];
    double positions = (double)m->max_positions;
    if (r->type == ROPE_LINEAR || r->type == ROPE_DYNAMIC) positions *= r->factor;
    if (r->type == ROPE_YARN) positions = fmax(positions, (double)r->original * r->factor);
    return (int64_t)positions;
}

/* ---- tied or not ---------------------------------------------------------------------------------------------------- */

static float value_at(const struct st_entry *e, int64_t i) /* no alignment is promised */
{
    float f;
    uint16_t half;
    const char *at = (const char *)e->data + (size_t)i * dtype_bytes(e->dt);
    if (e->dt == DT_F32) memcpy(&f, at, sizeof f);
    else {
        memcpy(&half, at, sizeof half);
        f = e->dt == DT_F16 ? f16_widen(half) : bf16_widen(half);
    }
    return f;
}

static bool comparable(const struct st_entry *e)
{
    return e->known && e->rank == 2 && (e->dt == DT_F32 || e->dt == DT_BF16 || e->dt == DT_F16);
}

/* Two of different trainings differ within the first row, so that only true copies are read to their end. */
static bool same_values(const struct st_entry *a, const struct st_entry *b)
{
    if (!comparable(a) || !comparable(b) || a->dim[0] != b->dim[0] || a->dim[1] != b->dim[1]) return false;
    if (a->dt == b->dt && memcmp(a->data, b->data, a->bytes) == 0) return true;
    for (int64_t i = 0; i < a->dim[0] * a->dim[1]; i++)
        if (value_at(a, i) != value_at(b, i)) return false;
    return true;
}

void family_settle_head(const char *dir, const struct st_set *files, struct model_shape *m)
{
    const struct st_entry *embed = param_file_entry(files, PARAM_EMBED), *head = param_file_entry(files, PARAM_HEAD);
    if (!m->tied || !embed || !head || same_values(embed, head)) return;
    log_warn("%s: config.json says tie_word_embeddings: true, but %s differs from %s: both are kept, as transformers 5 does", dir,
             head->name, embed->name);
    m->tied = false;
    m->untied = true;
}
