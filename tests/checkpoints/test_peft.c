/* adapter_config.json: what is read, matched, refused and written. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "checkpoints/hf.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

static struct peft_config good(const char *json)
{
    struct peft_config p;
    status st = peft_config_parse("adapter_config.json", json, strlen(json), &p);
    if (st) fail_msg("%s: %s", json, status_message());
    return p;
}

#define LORA "{\"peft_type\":\"LORA\""

static void fields(void **unused)
{
    (void)unused;
    struct peft_config p = good(LORA "}"); /* the library's defaults */
    assert_true(p.r == 8 && p.lora_alpha == 8 && p.lora_dropout == 0 && !p.use_rslora && !p.use_dora && !p.base_model);
    assert_true(peft_targets(&p, "model.layers.0.self_attn.q_proj") && peft_targets(&p, "x.v_proj"));
    assert_false(peft_targets(&p, "model.layers.0.self_attn.k_proj"));
    peft_config_free(&p);
    /* as PEFT 0.18 writes it, all neutral fields present */
    p = good(
        "{\"alora_invocation_tokens\":null,\"alpha_pattern\":{},\"arrow_config\":null,\"auto_mapping\":null,"
        "\"base_model_name_or_path\":\"m/b\",\"bias\":\"none\",\"corda_config\":null,\"ensure_weight_tying\":false,"
        "\"eva_config\":null,\"exclude_modules\":null,\"fan_in_fan_out\":false,\"inference_mode\":true,"
        "\"init_lora_weights\":\"pissa\",\"layer_replication\":null,\"layers_pattern\":null,\"layers_to_transform\":"
        "null,"
        "\"loftq_config\":{},\"lora_alpha\":32,\"lora_bias\":false,\"lora_dropout\":0.05,\"megatron_config\":null,"
        "\"megatron_core\":\"megatron.core\",\"modules_to_save\":null,\"peft_type\":\"LORA\",\"peft_version\":\"0.18."
        "0\","
        "\"qalora_group_size\":16,\"r\":16,\"rank_pattern\":{},\"revision\":null,\"target_modules\":[\"o_proj\",\"mlp."
        "up_proj\"],"
        "\"target_parameters\":null,\"task_type\":\"CAUSAL_LM\",\"trainable_token_indices\":null,\"use_dora\":false,"
        "\"use_qalora\":false,\"use_rslora\":true}");
    assert_true(p.r == 16 && p.lora_alpha == 32 && p.lora_dropout == 0.05 && p.use_rslora);
    assert_string_equal(p.base_model, "m/b");
    peft_config_free(&p);
}

static void targets(void **unused)
{
    (void)unused;
    static const struct {
        const char *spec, *path;
        bool match;
    } rows[] = {
        {"[\"q_proj\"]", "model.layers.0.self_attn.q_proj", true},
        {"[\"q_proj\"]", "q_proj", true},
        {"[\"q_proj\"]", "model.layers.0.self_attn.xq_proj", false},
        {"[\"q_proj\"]", "model.q_proj.inner", false},
        {"[\"self_attn.q_proj\"]", "model.layers.0.self_attn.q_proj", true},
        {"[\"model.layers.0.self_attn.q_proj\"]", "model.layers.0.self_attn.q_proj", true},
        {"[\"model.layers.0.self_attn.q_proj\"]", "self_attn.q_proj", false},
        {"[\".*q_proj\"]", "model.q_proj", false},
        {"\"all-linear\"", "model.layers.0.mlp.up_proj", true},
        {"\"all-linear\"", "lm_head", false},
        {"\"ALL-LINEAR\"", "model.x", true},
        {"\".*\\\\.(q|k)_proj\"", "model.layers.3.self_attn.k_proj", true},
        {"\".*\\\\.(q|k)_proj\"", "model.layers.3.self_attn.k_proj_", false},
        {"\"q_proj\"", "model.q_proj", false},
        {"\"q|model.q\"", "model.q", true},
        {"\"(?:model\\\\.)?layers\\\\.[0-2]\\\\..*proj\"", "model.layers.2.mlp.up_proj", true},
        {"\"(?:model\\\\.)?layers\\\\.[0-2]\\\\..*proj\"", "model.layers.3.mlp.up_proj", false},
        {"\"(a+)+b\"", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false}, /* gives up, does not hang */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *json = mem_printf(LORA ",\"target_modules\":%s}", rows[i].spec);
        struct peft_config p = good(json);
        if (peft_targets(&p, rows[i].path) != rows[i].match) fail_msg("%s on %s", rows[i].spec, rows[i].path);
        peft_config_free(&p);
        free(json);
    }
}

static const struct {
    const char *json;
    status st;
    const char *says;
} bad[] = {
    {"", ST_CORRUPT, "adapter_config.json:1:"},
    {"{}", ST_CORRUPT, "peft_type is missing"},
    {"{\"peft_type\":\"IA3\"}", ST_NOT_BUILT, "peft_type is \"IA3\""},
    {LORA ",\"task_type\":\"SEQ_CLS\"}", ST_NOT_BUILT, "task_type is \"SEQ_CLS\""},
    {LORA ",\"r\":0}", ST_CORRUPT, "r is 0"},
    {LORA ",\"r\":8.0}", ST_CORRUPT, "r is 8.0"},
    {LORA ",\"r\":2000000}", ST_CORRUPT, "r is 2000000"},
    {LORA ",\"lora_alpha\":\"16\"}", ST_CORRUPT, "lora_alpha is \"16\""},
    {LORA ",\"lora_dropout\":1.5}", ST_CORRUPT, "lora_dropout is 1.5"},
    {LORA ",\"use_rslora\":1}", ST_CORRUPT, "use_rslora is 1"},
    {LORA ",\"base_model_name_or_path\":3}", ST_CORRUPT, "base_model_name_or_path"},
    {LORA ",\"target_modules\":7}", ST_CORRUPT, "target_modules is 7"},
    {LORA ",\"target_modules\":[]}", ST_CORRUPT, "target_modules is []"},
    {LORA ",\"target_modules\":[\"q\",3]}", ST_CORRUPT, "target_modules[1] is 3"},
    {LORA ",\"target_modules\":[\"\"]}", ST_CORRUPT, "target_modules[0]"},
    {LORA ",\"target_modules\":\"(q\"}", ST_CORRUPT, "wrong at byte 2"},
    {LORA ",\"fan_in_fan_out\":true}", ST_NOT_BUILT, "fan_in_fan_out is true"},
    {LORA ",\"bias\":\"all\"}", ST_NOT_BUILT, "bias is \"all\""},
    {LORA ",\"lora_bias\":true}", ST_NOT_BUILT, "lora_bias"},
    {LORA ",\"modules_to_save\":[\"lm_head\"]}", ST_NOT_BUILT, "modules_to_save"},
    {LORA ",\"rank_pattern\":{\"q_proj\":4}}", ST_NOT_BUILT, "rank_pattern"},
    {LORA ",\"alpha_pattern\":{\"q_proj\":4}}", ST_NOT_BUILT, "alpha_pattern"},
    {LORA ",\"exclude_modules\":[\"q_proj\"]}", ST_NOT_BUILT, "exclude_modules"},
    {LORA ",\"layers_to_transform\":[0]}", ST_NOT_BUILT, "layers_to_transform"},
    {LORA ",\"trainable_token_indices\":[1]}", ST_NOT_BUILT, "trainable_token_indices"},
    {LORA ",\"ensure_weight_tying\":true}", ST_NOT_BUILT, "ensure_weight_tying"},
    {LORA ",\"target_parameters\":[\"x\"]}", ST_NOT_BUILT, "target_parameters"},
    {LORA ",\"layer_replication\":[[0,4]]}", ST_NOT_BUILT, "layer_replication"},
    {LORA ",\"use_qalora\":true}", ST_NOT_BUILT, "use_qalora"},
    {LORA ",\"alora_invocation_tokens\":[1]}", ST_NOT_BUILT, "alora_invocation_tokens"},
    {LORA ",\"arrow_config\":{\"x\":1}}", ST_NOT_BUILT, "arrow_config"},
    {LORA ",\"megatron_config\":{\"x\":1}}", ST_NOT_BUILT, "megatron_config"},
};

static void refusals(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct peft_config p;
        status st = peft_config_parse("adapter_config.json", bad[i].json, strlen(bad[i].json), &p);
        if (st != bad[i].st || !strstr(status_message(), bad[i].says) || p.target_modules || p.regex)
            fail_msg("row %zu %s: %d '%s', wanted %d '%s'", i, bad[i].json, st, st ? status_message() : "", bad[i].st,
                     bad[i].says);
    }
}

static void written_and_read_back(void **unused)
{
    (void)unused;
    char dir[256], path[300], *text;
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/trimpot-peft-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    char *names[] = {"q_proj", "v_proj"};
    struct peft_config p = {.r = 16,
                            .lora_alpha = 22.6,
                            .lora_dropout = 0.1,
                            .target_modules = names,
                            .n_targets = 2,
                            .base_model = "a \"b\"",
                            .use_rslora = true};
    assert_int_equal(peft_config_write(dir, &p), ST_OK);
    assert_int_equal(file_read(path, 1 << 20, &text, NULL), ST_OK);
    assert_memory_equal(text, "{\n  \"alpha_pattern\": {},\n", 25);
    static const char *const lines[] = {"\"lora_alpha\": 22.6,",
                                        "\"lora_dropout\": 0.1,",
                                        "\"inference_mode\": true,",
                                        "\"target_modules\": [\n    \"q_proj\",\n    \"v_proj\"\n  ],",
                                        "\"r\": 16,",
                                        "\"bias\": \"none\",",
                                        "\"base_model_name_or_path\": \"a \\\"b\\\"\",",
                                        "\"task_type\": \"CAUSAL_LM\","};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (!strstr(text, lines[i])) fail_msg("%s is not in %s", lines[i], text);
    free(text);
    struct peft_config q;
    assert_int_equal(peft_config_read(dir, &q), ST_OK);
    assert_true(q.r == 16 && q.lora_alpha == 22.6 && q.lora_dropout == 0.1 && q.use_rslora && q.n_targets == 2);
    peft_config_free(&q);
    p.lora_alpha = 32;
    p.target_all_linear = true;
    p.base_model = NULL;
    assert_int_equal(peft_config_write(dir, &p), ST_OK);
    assert_int_equal(peft_config_read(dir, &q), ST_OK);
    assert_true(q.target_all_linear && q.lora_alpha == 32 && !q.base_model);
    peft_config_free(&q);
    file_remove_tree(dir);
    assert_int_equal(peft_config_read(dir, &q), ST_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields),
        cmocka_unit_test(targets),
        cmocka_unit_test(refusals),
        cmocka_unit_test(written_and_read_back),
    };
    log_init(0, 1, LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
