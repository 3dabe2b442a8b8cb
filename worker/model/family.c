#include "worker/model/family.h"

#include <math.h>
#include <string.h>

#include "kernels/base/text.h"

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

status family_shape(const char *dir, const struct hf_config *hf, struct model_shape *out)
{
    const struct family *f = find(hf->model_type);
    if (!f)
        FAIL(ST_NOT_BUILT, "%s/config.json: model_type '%s' is unknown; trimpot trains: llama (Llama 2, 3, 3.1, 3.2), "
             "qwen2 (Qwen2, Qwen2.5)", dir, hf->model_type);
    if (f->later)
        FAIL(ST_NOT_BUILT, "%s/config.json: model_type '%s': %s; trimpot trains: llama, qwen2", dir, hf->model_type, f->later);
    if (strcmp(hf->hidden_act, f->hidden_act))
        FAIL(ST_NOT_BUILT, "%s/config.json: hidden_act '%s' is not '%s', the only activation of %s models", dir,
             hf->hidden_act, f->hidden_act, f->model_type);
    if ((hf->attention_bias && !f->qkv_bias) || hf->mlp_bias)
        FAIL(ST_NOT_BUILT, "%s/config.json: %s: true is not supported for %s models", dir,
             hf->mlp_bias ? "mlp_bias" : "attention_bias", f->model_type);
    *out = (struct model_shape){
        .family = f, .layers = hf->layers, .width = hf->hidden_size, .ffn = hf->intermediate_size, .heads = hf->heads,
        .kv_heads = hf->kv_heads, .head_dim = hf->head_dim, .vocab = hf->vocab_size, .max_positions = hf->max_positions,
        .eps = (float)hf->rms_norm_eps, .tied = hf->tie_word_embeddings, .rope = hf->rope,
        .window = hf->use_sliding_window ? hf->sliding_window : 0, .window_from = hf->max_window_layers,
    };
    return ST_OK;
}

void family_rope_frequencies(const struct model_shape *m, float *out)
{
    const struct hf_rope *r = &m->rope;
    int64_t d = (int64_t)((double)m->head_dim * r->partial);
    double low_wavelength = (double)r->original / r->low, high_wavelength = (double)r->original / r->high;
    for (int64_t j = 0; j < d / 2; j++) {
        double f = pow(r->theta, -2.0 * (double)j / (double)d);
        if (r->type == ROPE_LINEAR) f /= r->factor;
        if (r->type == ROPE_LLAMA3) {
            double wavelength = 2 * M_PI / f;
            double smooth = ((double)r->original / wavelength - r->low) / (r->high - r->low);
            if (wavelength > low_wavelength) f /= r->factor;
            else if (wavelength >= high_wavelength) f = (1 - smooth) * f / r->factor + smooth * f;
        }
        out[j] = (float)f;
    }
}

int64_t family_parameters(const struct model_shape *m)
{
    int64_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    int64_t block = m->width * (2 * q + 2 * kv) + 3 * m->width * m->ffn + 2 * m->width + (m->family->qkv_bias ? q + 2 * kv : 0);
    return m->layers * block + m->width + (m->tied ? 1 : 2) * m->vocab * m->width;
}
