#include "worker/model/family.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "worker/memory/param_store.h"

static status judge(const char *dir, const char *model_type, const struct family **out)
{
    struct buf known = {0};
    *out = family_of_type(model_type);
    if (*out && !(*out)->refused) return ST_OK;
    for (int i = 0; i < families_n; i++)
        if (families[i].model_type && !families[i].refused)
            buf_printf(&known, "%s%s (%s)", known.len ? ", " : "", families[i].model_type, families[i].name);
    status st = status_fail(ST_NOT_BUILT, "%s/config.json: model_type '%s' is not supported%s%s; trimpot trains: %s", dir, model_type,
                            *out ? ": " : "", *out ? (*out)->refused : "", known.data);
    buf_release(&known);
    return st;
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

status family_agrees(const char *dir, const struct model_shape *m, const char *module, const char *checkpointer)
{
    const struct family *f = m->family;
    if (module && !family_has_module(f, module))
        FAIL(ST_SHAPE,
             "model._component_ is of torchtune's module %s, but %s/config.json is of model_type '%s' (%s); name that family's "
             "component, or leave model._component_ out",
             module, dir, f->model_type, f->name);
    if (checkpointer && !family_loads(f, checkpointer))
        FAIL(ST_SHAPE, "checkpointer.model_type is %s, but %s/config.json is of model_type '%s' (%s); correct the key, or leave it out",
             checkpointer, dir, f->model_type, f->name);
    return ST_OK;
}

/* ---- what is not computed ---------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum act_kind act;
} ACTS[] = {{"silu", ACT_SILU}, {"gelu_pytorch_tanh", ACT_GELU_TANH}};

/* hidden_activation goes before hidden_act, which some families' files have in an older sense. */
static status judge_act(const char *dir, const struct hf_config *hf, const struct family *f, enum act_kind *out)
{
    bool newer = hf->hidden_activation[0];
    const char *said = newer ? hf->hidden_activation : hf->hidden_act;
    if (said[0] && strcmp(said, f->hidden_act) && (newer || !f->legacy_act || strcmp(said, f->legacy_act)))
        FAIL(ST_NOT_BUILT, "%s/config.json: %s '%s' is not '%s', the only activation of %s models", dir,
             newer ? "hidden_activation" : "hidden_act", said, f->hidden_act, f->model_type);
    size_t i = 0;
    while (strcmp(ACTS[i].name, f->hidden_act)) i++;
    *out = ACTS[i].act;
    return ST_OK;
}

static status judge_keys(const char *dir, const struct hf_config *hf, const struct family *f)
{
    if ((hf->attention_bias > 0 && !f->qkv_bias) || hf->mlp_bias > 0)
        FAIL(ST_NOT_BUILT, "%s/config.json: %s: true is not supported for %s models", dir, hf->mlp_bias > 0 ? "mlp_bias" : "attention_bias",
             f->model_type);
    if (hf->ropes == HF_ROPE_BY_TYPE && f->absent.local_theta == 0)
        FAIL(ST_NOT_BUILT, "%s/config.json: rope_parameters: rotary parameters per layer type are not built for %s models", dir,
             f->model_type);
    if (hf->ropes == HF_ROPE_PARAMETERS && f->absent.local_theta != 0)
        FAIL(ST_CORRUPT, "%s/config.json: rope_parameters of %s models are given per layer type, as full_attention and sliding_attention",
             dir, f->model_type);
    return ST_OK;
}

/* ---- absent keys ------------------------------------------------------------------------------------------------------- */

static int64_t or_else(int64_t said, int64_t absent, int64_t meant) { return said == absent ? meant : said; }
static double real_or(double said, double absent, double meant) { return said == absent ? meant : said; }

static status fill_sizes(const char *path, const struct family_absent *a, struct hf_config *c)
{
    c->kv_heads = or_else(c->kv_heads, 0, a->kv_heads ? a->kv_heads : c->heads);
    if (!c->head_dim && !a->head_dim && c->hidden_size % c->heads)
        FAIL(ST_CORRUPT, "%s: hidden_size %lld is no multiple of num_attention_heads %lld, and head_dim is not given", path,
             (long long)c->hidden_size, (long long)c->heads);
    c->head_dim = or_else(c->head_dim, 0, a->head_dim ? a->head_dim : c->hidden_size / c->heads);
    c->max_positions = or_else(c->max_positions, 0, a->max_positions);
    c->rms_norm_eps = real_or(c->rms_norm_eps, HF_ABSENT, a->eps);
    return hf_config_check(path, c);
}

/* One rope of a family that turns all layers alike; else the global layers' from rope_scaling and rope_theta, and the sliding
 * layers' own. */
static status fill_ropes(const char *path, const struct family *f, struct hf_config *c, struct hf_rope out[2])
{
    const struct family_absent *a = &f->absent;
    out[0] = c->rope[0];
    out[1] = a->local_theta == 0 ? c->rope[0] : c->rope[1];
    if (a->local_theta != 0 && c->ropes != HF_ROPE_BY_TYPE) out[1].theta = c->local_theta;
    for (int i = 0; i < 2; i++) {
        struct hf_rope *r = &out[i];
        r->theta = real_or(r->theta, 0, i && a->local_theta != 0 ? a->local_theta : a->theta);
        if (r->type == ROPE_LONGROPE) r->original = or_else(r->original, 0, a->original_positions);
        TRY(hf_rope_settle(path, r, c->max_positions));
        int64_t pairs = (int64_t)((double)c->head_dim * r->partial) / 2;
        if (r->type == ROPE_LONGROPE && r->n_stretch != pairs)
            FAIL(ST_CORRUPT, "%s: short_factor and long_factor have %d numbers, but a head turns %lld pairs", path, r->n_stretch,
                 (long long)pairs);
    }
    return ST_OK;
}

/* Which layers slide by the family's rule; layer_types, where a family has it, says it again or otherwise. */
static status fill_window(const char *path, const struct family *f, const struct hf_config *c, struct model_shape *m)
{
    const struct family_absent *a = &f->absent;
    int64_t from = or_else(c->max_window_layers, HF_ABSENT, a->window_from), any = 0;
    int64_t pattern = or_else(c->sliding_window_pattern, 0, a->pattern);
    bool free_pattern = f->slides == SLIDES_ABOVE || f->slides == SLIDES_MOST;
    m->window = f->slides == SLIDES_NEVER ? 0 : or_else(c->sliding_window, HF_ABSENT, a->window);
    if (f->slides == SLIDES_ABOVE && c->use_sliding_window <= 0) m->window = 0;
    for (int64_t l = 0; l < m->layers; l++) {
        bool slides =
            f->slides == SLIDES_ALL || (f->slides == SLIDES_ABOVE && l >= from) || (f->slides == SLIDES_MOST && (l + 1) % pattern != 0);
        m->sliding[l] = slides && (m->window > 0 || f->slides == SLIDES_MOST);
        if (!c->has_layer_types || c->slides[l] == m->sliding[l]) continue;
        if (!free_pattern || (c->slides[l] && !m->window))
            FAIL(ST_NOT_BUILT, "%s: layer_types[%lld] is %s where the other keys give %s; such a pattern is not built for %s models", path,
                 (long long)l, c->slides[l] ? "sliding_attention" : "full_attention",
                 m->sliding[l] ? "sliding_attention" : "full_attention", f->model_type);
        m->sliding[l] = c->slides[l];
    }
    for (int64_t l = 0; l < m->layers; l++) any += m->sliding[l];
    if (any && !m->window)
        FAIL(ST_CORRUPT, "%s: %lld layers slide, but sliding_window is null or 0; give it in tokens", path, (long long)any);
    return ST_OK;
}

status family_shape(const char *dir, const struct hf_config *hf, struct model_shape *out)
{
    const struct family *f;
    struct hf_config c = *hf;
    enum act_kind act = ACT_SILU;
    char *path = mem_printf("%s/config.json", dir);
    status st;
    TRY_DONE(judge(dir, hf->model_type, &f));
    TRY_DONE(judge_act(dir, hf, f, &act));
    TRY_DONE(judge_keys(dir, hf, f));
    const struct family_absent *a = &f->absent;
    TRY_DONE(fill_sizes(path, a, &c));
    double scalar = f->soft_caps ? real_or(c.query_pre_attn_scalar, 0, a->attn_scalar) : (double)c.head_dim;
    *out = (struct model_shape){
        .family = f,
        .layers = c.layers,
        .width = c.hidden_size,
        .ffn = c.intermediate_size,
        .heads = c.heads,
        .kv_heads = c.kv_heads,
        .head_dim = c.head_dim,
        .vocab = c.vocab_size,
        .max_positions = c.max_positions,
        .eps = (float)c.rms_norm_eps,
        .act = act,
        .attn_scale = (float)(1 / sqrt(scalar)),
        .embed_scale = f->embed_scaled ? sqrtf((float)c.hidden_size) : 0,
        .qkv_bias = f->qkv_bias,
        .qk_norm = f->qk_norm,
        .post_norms = f->post_norms,
        .unit_offset = f->unit_offset,
        .fused_qkv = f->fused_qkv,
        .fused_gate_up = f->fused_gate_up,
        .tied = or_else(c.tie_word_embeddings, HF_ABSENT, a->tied),
    };
    if (f->soft_caps) {
        out->attn_cap = (float)real_or(c.attn_cap, HF_ABSENT, a->attn_cap);
        out->head_cap = (float)real_or(c.head_cap, HF_ABSENT, a->head_cap);
    }
    TRY_DONE(fill_ropes(path, f, &c, out->rope));
    TRY_DONE(fill_window(path, f, &c, out));
done:
    free(path);
    return st;
}

/* ---- RoPE -------------------------------------------------------------------------------------------------------------- */

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
        if (r->type == ROPE_LONGROPE) f /= (double)r->stretch[longest > r->original][j];
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
                a->truncate == b->truncate && a->n_stretch == b->n_stretch && !memcmp(a->stretch, b->stretch, sizeof a->stretch);
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
    if (e->dt == DT_F32)
        memcpy(&f, at, sizeof f);
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
