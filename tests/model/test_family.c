/* test_family.c — what a config.json means in each family: absent keys, layers that slide, refusals. Expected values are those of
 * the classes in transformers 5. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "worker/model/family.h"

#define SIZES "\"vocab_size\":1000,\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":6,\"num_attention_heads\":32"

static status shape_of(const char *type, const char *more, struct model_shape *m)
{
    struct hf_config hf;
    char *text = mem_printf("{\"model_type\":\"%s\"," SIZES "%s%s}", type, *more ? "," : "", more);
    status st = hf_config_parse("config.json", text, strlen(text), &hf);
    if (!st) st = family_shape("DIR", &hf, m);
    free(text);
    return st;
}

static struct model_shape good(const char *type, const char *more)
{
    struct model_shape m;
    if (shape_of(type, more, &m)) fail_msg("%s {%s}: %s", type, more, status_message());
    return m;
}

static void absent_keys(void **unused)
{
    (void)unused;
    static const struct {
        const char *type;
        int64_t kv_heads, head_dim, max_positions, window;
        double eps, theta, local_theta, attn_scale, attn_cap, head_cap, embed_scale;
        bool tied;
        const char *slides; /* per layer */
    } rows[] = {
        {"llama", 32, 2, 2048, 0, 1e-6, 1e4, 1e4, 0.70710678118654752, 0, 0, 0, false, "......"},
        {"qwen2", 32, 2, 32768, 0, 1e-6, 1e4, 1e4, 0.70710678118654752, 0, 0, 0, false, "......"},
        {"qwen3", 32, 128, 32768, 0, 1e-6, 1e4, 1e4, 0.088388347648318447, 0, 0, 0, false, "......"},
        {"mistral", 8, 2, 131072, 4096, 1e-6, 1e4, 1e4, 0.70710678118654752, 0, 0, 0, false, "ssssss"},
        {"gemma", 16, 256, 8192, 0, 1e-6, 1e4, 1e4, 1.0 / 16, 0, 0, 8, true, "......"},
        {"gemma2", 4, 256, 8192, 4096, 1e-6, 1e4, 1e4, 1.0 / 16, 50, 30, 8, true, "s.s.s."},
        {"gemma3_text", 4, 256, 131072, 4096, 1e-6, 1e6, 1e4, 1.0 / 16, 0, 0, 8, true, "sssss."},
        {"phi3", 32, 2, 4096, 0, 1e-5, 1e4, 1e4, 0.70710678118654752, 0, 0, 0, false, "......"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model_shape m = good(rows[i].type, strcmp(rows[i].type, "phi3") ? "" : "\"sliding_window\":null");
        print_message("%s\n", rows[i].type);
        assert_true(m.kv_heads == rows[i].kv_heads && m.head_dim == rows[i].head_dim && m.max_positions == rows[i].max_positions);
        assert_true(m.window == rows[i].window && m.eps == (float)rows[i].eps && m.tied == rows[i].tied);
        assert_true(m.rope[0].theta == rows[i].theta && m.rope[1].theta == rows[i].local_theta && m.rope[0].attention == 1);
        assert_true(m.attn_scale == (float)rows[i].attn_scale && m.embed_scale == (float)rows[i].embed_scale);
        assert_true(m.attn_cap == (float)rows[i].attn_cap && m.head_cap == (float)rows[i].head_cap);
        for (int l = 0; l < 6; l++) assert_int_equal(m.sliding[l], rows[i].slides[l] == 's');
        assert_int_equal(family_ropes(&m), rows[i].theta == rows[i].local_theta ? 1 : 2);
    }
}

static void said_keys(void **unused)
{
    (void)unused;
    struct model_shape m = good("qwen2", "\"use_sliding_window\":true,\"sliding_window\":128,\"max_window_layers\":4");
    assert_true(m.window == 128 && !m.sliding[3] && m.sliding[4] && m.sliding[5]);
    m = good("qwen3", "\"use_sliding_window\":false,\"sliding_window\":128,\"max_window_layers\":0");
    assert_true(m.window == 0 && !m.sliding[5]);
    m = good("mistral", "\"sliding_window\":null,\"head_dim\":32");
    assert_true(m.window == 0 && !m.sliding[0] && m.head_dim == 32);
    m = good("gemma2", "\"attn_logit_softcapping\":null,\"final_logit_softcapping\":20,\"query_pre_attn_scalar\":144");
    assert_true(m.attn_cap == 0 && m.head_cap == 20 && m.attn_scale == 1.0f / 12);
    m = good("gemma3_text", "\"sliding_window_pattern\":3,\"rope_theta\":5e5,\"rope_local_base_freq\":2e4,"
                            "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8}");
    assert_true(m.sliding[0] && m.sliding[1] && !m.sliding[2] && m.sliding[4] && !m.sliding[5]);
    assert_true(m.rope[0].theta == 5e5 && m.rope[0].type == ROPE_LINEAR && m.rope[1].theta == 2e4 && m.rope[1].type == ROPE_DEFAULT);
    m = good("gemma3_text", "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":8},"
                            "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":3e4}}");
    assert_true(m.rope[0].theta == 1e6 && m.rope[0].factor == 8 && m.rope[1].theta == 3e4 && m.rope[1].factor == 1);
    m = good("gemma3_text", "\"layer_types\":[\"full_attention\",\"sliding_attention\",\"sliding_attention\",\"full_attention\","
                            "\"sliding_attention\",\"full_attention\"]");
    assert_true(!m.sliding[0] && m.sliding[1] && !m.sliding[3] && !m.sliding[5]);
    m = good("gemma", "\"hidden_act\":\"gelu\",\"hidden_activation\":null");
    assert_true(m.act == ACT_GELU_TANH && m.unit_offset);
    m = good("phi3", "\"partial_rotary_factor\":1.0,\"head_dim\":4,\"max_position_embeddings\":8192,\"rope_scaling\":{\"type\":\"su\","
                     "\"short_factor\":[1,2],\"long_factor\":[3,4]},\"sliding_window\":64");
    assert_true(m.rope[0].type == ROPE_LONGROPE && m.rope[0].original == 4096 && m.rope[0].factor == 2 && m.window == 64 && m.sliding[0]);
    assert_true(m.fused_qkv && m.fused_gate_up && fabs(m.rope[0].attention - sqrt(1 + log(2) / log(4096))) < 1e-15);
}

static void refusals(void **unused)
{
    (void)unused;
    static const struct {
        const char *type, *more;
        status st;
        const char *says;
    } rows[] = {
        {"falcon", "", ST_NOT_BUILT, "DIR/config.json: model_type 'falcon' is not supported; trimpot trains: llama (Llama 2"},
        {"gemma3", "", ST_NOT_BUILT, "it has a part that sees images; save its text part alone"},
        {"llama", "\"num_key_value_heads\":3", ST_CORRUPT, "num_key_value_heads 3"},
        {"llama", "\"num_key_value_heads\":64", ST_CORRUPT, "num_key_value_heads 64"},
        {"llama", "\"head_dim\":15", ST_CORRUPT, "odd"},
        {"llama", "\"head_dim\":67108864", ST_CORRUPT, "impossible"},
        {"llama", "\"hidden_act\":\"gelu\"", ST_NOT_BUILT, "hidden_act 'gelu' is not 'silu', the only activation of llama models"},
        {"gemma2", "\"hidden_activation\":\"gelu\"", ST_NOT_BUILT, "hidden_activation 'gelu' is not 'gelu_pytorch_tanh'"},
        {"qwen3", "\"attention_bias\":true", ST_NOT_BUILT, "attention_bias: true is not supported for qwen3 models"},
        {"phi3", "\"mlp_bias\":true", ST_NOT_BUILT, "mlp_bias: true"},
        {"llama", "\"rope_theta\":1,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}", ST_CORRUPT, "rope_theta above 1"},
        {"qwen3", "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}", ST_NOT_BUILT, "per layer type are not built"},
        {"gemma3_text", "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1e4}", ST_CORRUPT, "are given per layer type"},
        {"gemma3_text", "\"sliding_window\":null", ST_CORRUPT, "5 layers slide, but sliding_window is null"},
        {"llama",
         "\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\",\"full_attention\","
         "\"full_attention\"]",
         ST_NOT_BUILT, "layer_types[1] is sliding_attention where"},
        {"mistral",
         "\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\",\"full_attention\","
         "\"full_attention\"]",
         ST_NOT_BUILT, "layer_types[0] is full_attention where"},
        {"phi3", "\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,2],\"long_factor\":[3,4]}", ST_CORRUPT,
         "short_factor and long_factor have 2 numbers, but a head turns 1 pairs"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model_shape m;
        status st = shape_of(rows[i].type, rows[i].more, &m);
        if (st != rows[i].st || !strstr(status_message(), rows[i].says))
            fail_msg("row %zu %s {%s}: %d '%s', wanted %d '%s'", i, rows[i].type, rows[i].more, st, st ? status_message() : "", rows[i].st,
                     rows[i].says);
    }
}

/* A row that is looked up wrongly, or names what is nowhere, shows here. */
static void the_table(void **unused)
{
    (void)unused;
    int n = 0;
    const struct family_module *m = NULL;
    while ((m = family_module_next(m))) {
        assert_ptr_equal(family_module(m->name), m);
        assert_true(m->refused || (m->speech && m->checkpointer && m->speech->tokens && m->speech->style));
        bool known = !m->speech;
        for (int i = 0; m->speech && i < family_templates_n; i++) known = known || !strcmp(m->speech->template, family_templates[i].name);
        assert_true(known);
        n++;
    }
    assert_true(n >= 15);
    for (int i = 0; i < families_n; i++) {
        if (families[i].model_type) assert_ptr_equal(family_of_type(families[i].model_type), &families[i]);
        if (!families[i].refused) assert_true(families[i].absent.eps > 0 && families[i].absent.theta > 1);
    }
    assert_string_equal(family_module_like("qwen2_5_tokenizer")->name, "qwen2_5");
    assert_string_equal(family_module_like("gemma3_text")->name, "gemma");
    assert_null(family_module_like("falcon"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(absent_keys), cmocka_unit_test(said_keys), cmocka_unit_test(refusals),
                                       cmocka_unit_test(the_table)};
    log_init(0, 1, LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
