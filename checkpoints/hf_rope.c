#include "checkpoints/hf_rope.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const int64_t max_positions_said = INT32_MAX;

static status read_factor(const struct jdoc *d, struct hf_rope *r)
{
    TRY(jdoc_need(d, "factor"));
    return jdoc_real(d, "factor", 1, 1e6, &r->factor);
}

static status read_llama3(const struct jdoc *d, struct hf_rope *r)
{
    static const char *const keys[] = {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) TRY(jdoc_need(d, keys[i]));
    TRY(jdoc_real(d, "factor", 1, 1e6, &r->factor));
    TRY(jdoc_real(d, "low_freq_factor", 1e-6, 1e6, &r->low));
    TRY(jdoc_real(d, "high_freq_factor", 1e-6, 1e6, &r->high));
    if (r->high <= r->low) FAIL(ST_CORRUPT, "%s: %shigh_freq_factor %g must exceed low_freq_factor %g", d->path, d->in, r->high, r->low);
    return ST_OK;
}

/* A null factor is the ratio of the two lengths: left to hf_rope_settle. */
static status read_ratio(const struct jdoc *d, struct hf_rope *r)
{
    r->factor = 0;
    return json_is_null(json_object_get(d->o, "factor")) ? ST_OK : read_factor(d, r);
}

/* numerics.md §2 and, for what it leaves open, transformers: a beta of 0 is "not given", mscale counts only beside
 * mscale_all_dim. */
static status read_yarn(const struct jdoc *d, struct hf_rope *r)
{
    TRY(read_ratio(d, r));
    TRY(jdoc_real(d, "beta_fast", 0, 1e6, &r->high));
    TRY(jdoc_real(d, "beta_slow", 0, 1e6, &r->low));
    TRY(jdoc_real(d, "mscale", 0, 1e6, &r->mscale));
    TRY(jdoc_real(d, "mscale_all_dim", 0, 1e6, &r->mscale_all));
    TRY(jdoc_flag(d, "truncate", &r->truncate));
    if (r->high == 0) r->high = 32;
    if (r->low == 0) r->low = 1;
    if (r->high < r->low) FAIL(ST_CORRUPT, "%s: %sbeta_fast %g must not be below beta_slow %g", d->path, d->in, r->high, r->low);
    return jdoc_real(d, "attention_factor", 1e-6, 1e6, &r->attention);
}

static status read_stretch(const struct jdoc *d, const char *key, float *out, int *n)
{
    const json_t *list = jdoc_get(d, key);
    size_t count = json_array_size(list);
    if (!json_is_array(list) || !count || count > ROPE_STRETCHES)
        FAIL(ST_CORRUPT, "%s: %s%s is %s, but must be a list of up to %d numbers", d->path, d->in, key, jdoc_show(list), ROPE_STRETCHES);
    for (size_t i = 0; i < count; i++) {
        double x = json_number_value(json_array_get(list, i));
        if (!(x >= 1e-6 && x <= 1e6))
            FAIL(ST_CORRUPT, "%s: %s%s[%zu] is %s, but must be a number above 0", d->path, d->in, key, i,
                 jdoc_show(json_array_get(list, i)));
        out[i] = (float)x;
    }
    *n = (int)count;
    return ST_OK;
}

static status read_longrope(const struct jdoc *d, struct hf_rope *r)
{
    int n_long;
    TRY(jdoc_need(d, "short_factor"));
    TRY(jdoc_need(d, "long_factor"));
    TRY(read_stretch(d, "short_factor", r->stretch[0], &r->n_stretch));
    TRY(read_stretch(d, "long_factor", r->stretch[1], &n_long));
    if (r->n_stretch != n_long)
        FAIL(ST_CORRUPT, "%s: %sshort_factor has %d numbers and long_factor %d", d->path, d->in, r->n_stretch, n_long);
    /* not read_ratio: a factor below 1 only means that nothing is sharpened */
    r->factor = 0;
    TRY(jdoc_real(d, "factor", 1e-6, 1e6, &r->factor));
    return jdoc_real(d, "attention_factor", 1e-6, 1e6, &r->attention);
}

static const struct {
    const char *name;
    enum rope_type type;
    status (*read)(const struct jdoc *d, struct hf_rope *r);
} rope_kinds[] = {
    {"default", ROPE_DEFAULT, NULL},      {"linear", ROPE_LINEAR, read_factor}, {"dynamic", ROPE_DYNAMIC, read_factor},
    {"llama3", ROPE_LLAMA3, read_llama3}, {"yarn", ROPE_YARN, read_yarn},       {"longrope", ROPE_LONGROPE, read_longrope},
};

/* Older names: with two lists of factors, "su" and "yarn" are longrope. */
static const char *present_name(const struct jdoc *d, const char *name)
{
    bool old = strcmp(name, "su") == 0 || (strcmp(name, "yarn") == 0 && jdoc_get(d, "short_factor") && jdoc_get(d, "long_factor"));
    return old ? "longrope" : name;
}

/* Positions before they were stretched. Phi-3's files have them outside, and transformers 5 takes those for every kind; 4 takes
 * the inner ones. */
static status read_original(const struct jdoc *d, const struct jdoc *in, struct hf_rope *r)
{
    static const char key[] = "original_max_position_embeddings";
    int64_t outer = 0, inner = 0;
    bool alone = r->type == ROPE_LONGROPE; /* which may have the outer ones only */
    TRY(jdoc_i64(d, key, 1, max_positions_said, &outer));
    TRY(jdoc_i64(in, key, 1, max_positions_said, &inner));
    if (r->type != ROPE_LLAMA3 && r->type != ROPE_YARN && !alone) return ST_OK;
    if (outer && outer != inner && !(alone && !inner))
        FAIL(ST_CORRUPT, "%s: %s is %lld but %s%s is %lld; give both the same value", d->path, key, (long long)outer, in->in, key,
             (long long)inner);
    r->original = outer ? outer : inner;
    return ST_OK;
}

/* One rope: the object under rope_scaling (4.x), rope_parameters (5.x), or one layer type in it. theta: what stands outside. */
static status read_rope(const struct jdoc *d, const struct jdoc *in, double theta, const char *theta_key, struct hf_rope *r)
{
    char old[32] = "", name[32] = "";
    double nested = 0;
    TRY(jdoc_string(in, "type", old, sizeof old));
    TRY(jdoc_string(in, "rope_type", name, sizeof name));
    if (!name[0]) memcpy(name, old, sizeof name);
    if (!name[0] && strcmp(in->in, "rope_scaling.") == 0) FAIL(ST_CORRUPT, "%s: %srope_type is missing", d->path, in->in);
    const char *kind = present_name(in, name[0] ? name : "default");
    TRY(jdoc_real(in, "partial_rotary_factor", 1e-3, 1, &r->partial));
    TRY(jdoc_real(in, "rope_theta", 1, 1e15, &nested));
    size_t i = 0, n = sizeof rope_kinds / sizeof *rope_kinds;
    while (i < n && strcmp(kind, rope_kinds[i].name) != 0) i++;
    if (i == n)
        FAIL(ST_NOT_BUILT, "%s: %srope_type %s is not built; default, linear, dynamic, llama3, yarn and longrope are", d->path, in->in,
             jdoc_show(jdoc_get(in, jdoc_get(in, "rope_type") ? "rope_type" : "type")));
    r->type = rope_kinds[i].type;
    if (rope_kinds[i].read) TRY(rope_kinds[i].read(in, r));
    if (theta != 0 && nested != 0 && theta != nested)
        FAIL(ST_CORRUPT, "%s: %s is %g but %srope_theta is %g; keep one of them", d->path, theta_key, theta, in->in, nested);
    r->theta = nested != 0 ? nested : theta;
    return read_original(d, in, r);
}

static const char *const layer_kinds[2] = {"full_attention", "sliding_attention"};

/* Whether an object holds one rope per layer type, and nothing beside them. */
static status by_type(const struct jdoc *in, bool *out)
{
    const char *key;
    json_t *v;
    int types = 0, others = 0;
    json_object_foreach(in->o, key, v)
    {
        bool known = strcmp(key, layer_kinds[0]) == 0 || strcmp(key, layer_kinds[1]) == 0;
        if (json_is_object(v) && !known)
            FAIL(ST_NOT_BUILT, "%s: %s%s: only rotary parameters of full_attention and sliding_attention are built", in->path, in->in, key);
        types += json_is_object(v);
        others += !known && !json_is_null(v);
    }
    if (types && others)
        FAIL(ST_CORRUPT, "%s: %s has keys beside full_attention and sliding_attention; move them into these", in->path, in->in);
    *out = types > 0;
    return ST_OK;
}

static status read_types(const struct jdoc *d, const struct jdoc *in, double theta, struct hf_config *c)
{
    static const char *const inside[2] = {"rope_parameters.full_attention.", "rope_parameters.sliding_attention."};
    const double outer[2] = {theta, c->local_theta};
    static const char *const outer_key[2] = {"rope_theta", "rope_local_base_freq"};
    for (int i = 0; i < 2; i++) {
        json_t *v;
        c->rope[i].theta = outer[i];
        TRY(jdoc_object(in, layer_kinds[i], &v));
        struct jdoc one = {d->path, inside[i], v};
        if (v) TRY(read_rope(d, &one, outer[i], outer_key[i], &c->rope[i]));
    }
    return ST_OK;
}

status hf_ropes_read(const struct jdoc *d, struct hf_config *c)
{
    json_t *v4, *v5;
    bool types = false;
    double theta = 0, partial = 1;
    TRY(jdoc_object(d, "rope_scaling", &v4));
    TRY(jdoc_object(d, "rope_parameters", &v5));
    if (v4 && v5 && !json_equal(v4, v5)) FAIL(ST_CORRUPT, "%s: rope_scaling and rope_parameters disagree; keep one of them", d->path);
    TRY(jdoc_real(d, "partial_rotary_factor", 1e-3, 1, &partial));
    TRY(jdoc_real(d, "rope_theta", 1, 1e15, &theta));
    TRY(jdoc_real(d, "rope_local_base_freq", 1, 1e15, &c->local_theta));
    c->rope[0] = c->rope[1] = (struct hf_rope){.theta = theta, .factor = 1, .partial = partial, .truncate = true};
    if (!v4 && !v5) return ST_OK;
    struct jdoc in = {d->path, v5 ? "rope_parameters." : "rope_scaling.", v5 ? v5 : v4};
    TRY(by_type(&in, &types));
    c->ropes = types ? HF_ROPE_BY_TYPE : v5 ? HF_ROPE_PARAMETERS : HF_ROPE_SCALING;
    return types ? read_types(d, &in, theta, c) : read_rope(d, &in, theta, "rope_theta", &c->rope[0]);
}

/* How much YaRN sharpens attention over a context stretched by `factor`. */
static double yarn_mscale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

static double attention_of(const struct hf_rope *r)
{
    if (r->type == ROPE_YARN && r->mscale > 0 && r->mscale_all > 0)
        return yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all);
    if (r->type == ROPE_YARN) return yarn_mscale(r->factor, 1);
    if (r->type == ROPE_LONGROPE && r->factor > 1) return sqrt(1 + log(r->factor) / log((double)r->original));
    return 1;
}

status hf_rope_settle(const char *path, struct hf_rope *r, int64_t max_positions)
{
    if (!r->original) r->original = max_positions;
    if (r->factor == 0) r->factor = (double)max_positions / (double)r->original;
    if (r->factor < 1) r->factor = 1;
    if (r->type == ROPE_YARN && r->theta <= 1) FAIL(ST_CORRUPT, "%s: yarn needs a rope_theta above 1", path);
    if (r->type == ROPE_LONGROPE && r->original < 2)
        FAIL(ST_CORRUPT, "%s: longrope needs an original_max_position_embeddings above 1", path);
    if (r->attention == 0) r->attention = attention_of(r);
    return ST_OK;
}
