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
    p = good("{\"alora_invocation_tokens\":null,\"alpha_pattern\":{},\"arrow_config\":null,\"auto_mapping\":null,"
             "\"base_model_name_or_path\":\"m/b\",\"bias\":\"none\",\"corda_config\":null,\"ensure_weight_tying\":false,"
             "\"eva_config\":null,\"exclude_modules\":null,\"fan_in_fan_out\":false,\"inference_mode\":true,"
             "\"init_lora_weights\":\"eva\",\"layer_replication\":null,\"layers_pattern\":null,\"layers_to_transform\":"
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

/* By the end of a name, at a dot or not, as PEFT has it. */
static void saved(void **unused)
{
    (void)unused;
    struct peft_config p = good(LORA ",\"modules_to_save\":[\"lm_head\",\"norm\",\"0.mlp.up_proj\"]}");
    assert_true(peft_saves(&p, "lm_head"));
    assert_true(peft_saves(&p, "model.norm"));
    assert_true(peft_saves(&p, "model.layers.3.input_layernorm"));
    assert_true(peft_saves(&p, "model.layers.10.mlp.up_proj"));
    assert_false(peft_saves(&p, "model.layers.1.mlp.up_proj"));
    assert_false(peft_saves(&p, "model.embed_tokens"));
    assert_false(peft_saves(&p, "norm.x"));
    peft_config_free(&p);
    p = good(LORA ",\"modules_to_save\":null}");
    assert_false(peft_saves(&p, "lm_head"));
    peft_config_free(&p);
}

/* Other members that select or assign: what of them is on which module. */
static void selection(void **unused)
{
    (void)unused;
    static const struct {
        const char *more, *path;
        bool match;
    } rows[] = {
        {"\"layers_to_transform\":[1]", "model.layers.1.self_attn.q_proj", true},
        {"\"layers_to_transform\":[1]", "model.layers.11.self_attn.q_proj", false},
        {"\"layers_to_transform\":1", "model.layers.1.self_attn.v_proj", true},
        {"\"layers_to_transform\":1", "model.layers.1.self_attn.k_proj", false},
        {"\"layers_to_transform\":[]", "model.layers.7.self_attn.q_proj", true},
        {"\"layers_to_transform\":[],\"layers_pattern\":\"layers\"", "model.layers.7.self_attn.q_proj", true},
        {"\"layers_to_transform\":[-1]", "model.layers.1.self_attn.q_proj", false},
        {"\"layers_to_transform\":[0,2],\"layers_pattern\":\"layers\"", "model.layers.2.self_attn.q_proj", true},
        {"\"layers_to_transform\":[0,2],\"layers_pattern\":\"h\"", "model.layers.2.self_attn.q_proj", false},
        {"\"layers_to_transform\":[0,2],\"layers_pattern\":[\"h\",\"layers\"]", "model.layers.2.self_attn.q_proj", true},
        {"\"layers_to_transform\":[0,2],\"layers_pattern\":\"\"", "model.layers.2.self_attn.q_proj", true},
        {"\"target_modules\":[\"lm_head\",\"q_proj\"],\"layers_to_transform\":[0]", "lm_head", true},
        {"\"target_modules\":[\"model.layers.3.mlp.up_proj\",\"q_proj\"],\"layers_to_transform\":[0]", "model.layers.3.mlp.up_proj", true},
        {"\"exclude_modules\":[\"q_proj\"]", "model.layers.0.self_attn.q_proj", false},
        {"\"exclude_modules\":[\"q_proj\"]", "model.layers.0.self_attn.v_proj", true},
        {"\"exclude_modules\":[\"layers.0.self_attn.q_proj\"]", "model.layers.1.self_attn.q_proj", true},
        {"\"exclude_modules\":[\"layers.0.self_attn.q_proj\"]", "model.layers.0.self_attn.q_proj", false},
        {"\"exclude_modules\":\".*layers\\\\.[01]\\\\..*\"", "model.layers.1.self_attn.q_proj", false},
        {"\"exclude_modules\":\".*layers\\\\.[01]\"", "model.layers.1.self_attn.q_proj", true}, /* fullmatch */
        {"\"exclude_modules\":\"\"", "model.layers.1.self_attn.q_proj", true},
        {"\"exclude_modules\":[]", "model.layers.1.self_attn.q_proj", true},
        {"\"target_modules\":\"all-linear\",\"exclude_modules\":[\"up_proj\"]", "model.layers.0.mlp.up_proj", false},
        {"\"target_modules\":\"all-linear\",\"exclude_modules\":[\"up_proj\"]", "model.layers.0.mlp.down_proj", true},
        {"\"target_modules\":\"all-linear\"", "model.embed_tokens", false},
        {"\"target_modules\":[\"embed_tokens\"]", "model.embed_tokens", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *json = mem_printf(LORA ",%s}", rows[i].more);
        struct peft_config p = good(json);
        if (peft_targets(&p, rows[i].path) != rows[i].match) fail_msg("%s on %s", rows[i].more, rows[i].path);
        peft_config_free(&p);
        free(json);
    }
}

static void patterns(void **unused)
{
    (void)unused;
    struct peft_config p = good(LORA ",\"rank_pattern\":{\"layers.1.self_attn.q_proj\":4,\"q_proj\":2,\"v_.*\":3,\"mlp\":5,"
                                     "\"^model.layers.0.self_attn.o_proj\":7,\"^k_proj\":8},\"r\":6,\"lora_alpha\":12,"
                                     "\"alpha_pattern\":{\"(q|k)_proj\":1.5,\"self_attn.q_proj\":9}}");
    static const struct {
        const char *path;
        int64_t r;
        double alpha;
    } rows[] = {
        {"model.layers.1.self_attn.q_proj", 4, 1.5}, {"model.layers.11.self_attn.q_proj", 2, 1.5},
        {"model.layers.0.self_attn.v_proj", 3, 12},  {"model.layers.0.self_attn.k_proj", 6, 1.5},
        {"model.layers.0.mlp.up_proj", 6, 12},       {"model.layers.0.self_attn.qq_proj", 6, 12},
        {"model.layers.0.self_attn.o_proj", 7, 12},  {"lm_head", 6, 12},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t r = peft_rank(&p, rows[i].path);
        double alpha = peft_alpha(&p, rows[i].path);
        if (r != rows[i].r || alpha != rows[i].alpha) fail_msg("%s: r %lld, alpha %g", rows[i].path, (long long)r, alpha);
    }
    peft_config_free(&p);
}

/* Loading such an adapter leaves the base alone in PEFT, so it is a plain adapter. */
static void inits(void **unused)
{
    (void)unused;
    static const char *const plain[] = {"true",         "false",   "null",           "\"gaussian\"",
                                        "\"Gaussian\"", "\"eva\"", "\"orthogonal\"", "\"lora_ga\""};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        char *json =
            mem_printf(LORA ",\"init_lora_weights\":%s,\"loftq_config\":{\"loftq_bits\":4},\"eva_config\":{\"rho\":2.0}}", plain[i]);
        struct peft_config p = good(json);
        assert_false(p.frozen_b);
        peft_config_free(&p);
        free(json);
    }
    struct peft_config p = good(LORA ",\"init_lora_weights\":\"mica\"}");
    assert_true(p.frozen_b);
    peft_config_free(&p);
    p = good(LORA ",\"task_type\":null,\"a_new_field\":null,\"another\":{},\"third\":[],\"fourth\":false,\"fifth\":\"\"}");
    peft_config_free(&p);
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
    {LORA ",\"modules_to_save\":\"lm_head\"}", ST_CORRUPT, "modules_to_save is \"lm_head\"; it must be a list of module names"},
    {LORA ",\"modules_to_save\":[\"\"]}", ST_CORRUPT, "modules_to_save[0] is \"\", not a module name"},
    {LORA ",\"rank_pattern\":[4]}", ST_CORRUPT, "rank_pattern is [4]"},
    {LORA ",\"rank_pattern\":{\"q_proj\":0}}", ST_CORRUPT, "rank_pattern.q_proj is 0"},
    {LORA ",\"rank_pattern\":{\"q_proj\":null}}", ST_CORRUPT, "rank_pattern.q_proj is missing"},
    {LORA ",\"rank_pattern\":{\"q_proj\":4.5}}", ST_CORRUPT, "rank_pattern.q_proj is 4.5"},
    {LORA ",\"rank_pattern\":{\"(q\":4}}", ST_CORRUPT, "rank_pattern has the regular expression \"(q\", which is wrong at byte 2"},
    {LORA ",\"alpha_pattern\":{\"q_proj\":\"4\"}}", ST_CORRUPT, "alpha_pattern.q_proj is \"4\""},
    {LORA ",\"exclude_modules\":{}}", ST_CORRUPT, "exclude_modules is {}"},
    {LORA ",\"exclude_modules\":[3]}", ST_CORRUPT, "exclude_modules[0] is 3"},
    {LORA ",\"exclude_modules\":\"*\"}", ST_CORRUPT, "exclude_modules has the regular expression \"*\""},
    {LORA ",\"layers_to_transform\":\"0\"}", ST_CORRUPT, "layers_to_transform is \"0\""},
    {LORA ",\"layers_to_transform\":[0,true]}", ST_CORRUPT, "layers_to_transform[1] is true"},
    {LORA ",\"layers_pattern\":\"layers\"}", ST_CORRUPT, "layers_pattern is \"layers\", but layers_to_transform"},
    {LORA ",\"layers_to_transform\":[0],\"layers_pattern\":[7]}", ST_CORRUPT, "layers_pattern[0] is 7"},
    {LORA ",\"layers_to_transform\":[0],\"layers_pattern\":\"(\"}", ST_CORRUPT, "layers_pattern has the regular expression"},
    {LORA ",\"target_modules\":\".*q\",\"layers_to_transform\":0}", ST_CORRUPT, "layers_to_transform goes only with a list"},
    {LORA ",\"target_modules\":\"all-linear\",\"layers_pattern\":\"h\"}", ST_CORRUPT, "layers_pattern goes only with a list"},
    {LORA ",\"init_lora_weights\":\"pissa\"}", ST_NOT_BUILT, "init_lora_weights is \"pissa\": PEFT takes the initial A and B out"},
    {LORA ",\"init_lora_weights\":\"pissa_niter_16\"}", ST_NOT_BUILT, "path_initial_model_for_weight_conversion"},
    {LORA ",\"init_lora_weights\":\"corda\"}", ST_NOT_BUILT, "init_lora_weights is \"corda\""},
    {LORA ",\"init_lora_weights\":\"olora\"}", ST_NOT_BUILT, "init_lora_weights is \"olora\""},
    {LORA ",\"init_lora_weights\":\"OLoRA\"}", ST_NOT_BUILT, "merge_and_unload"},
    {LORA ",\"init_lora_weights\":\"loftq\"}", ST_NOT_BUILT, "quantised"},
    {LORA ",\"init_lora_weights\":\"EVA\"}", ST_CORRUPT, "init_lora_weights is \"EVA\", which PEFT does not know"},
    {LORA ",\"init_lora_weights\":\"evaluate\"}", ST_CORRUPT, "init_lora_weights"},
    {LORA ",\"init_lora_weights\":1}", ST_CORRUPT, "init_lora_weights is 1"},
    {LORA ",\"new_method\":true}", ST_NOT_BUILT, "unknown fields, which may change the adapter's mathematics: new_method (true)"},
    {LORA ",\"a\":{\"b\":1},\"c\":0.5,\"d\":null}", ST_NOT_BUILT, "a ({\"b\":1}), c (0.5); remove them"},
    {LORA ",\"kasa_config\":{\"beta\":0.1}}", ST_NOT_BUILT, "kasa_config"},
    {LORA ",\"use_bdlora\":{\"nblocks\":2}}", ST_NOT_BUILT, "use_bdlora"},
    {LORA ",\"bias\":\"lora_only\"}", ST_NOT_BUILT, "bias is \"lora_only\""},
    {"{\"peft_type\":\"LORA\",\"task_type\":\"SEQ_2_SEQ_LM\"}", ST_NOT_BUILT, "task_type"},
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
        if (st != bad[i].st || !strstr(status_message(), bad[i].says) || p.target.rule || p.exclude.rule || p.rank_pattern.rule)
            fail_msg("row %zu %s: %d '%s', wanted %d '%s'", i, bad[i].json, st, st ? status_message() : "", bad[i].st, bad[i].says);
    }
}

/* What selects and assigns comes back as it was, in its order. */
static void selection_written(void **unused)
{
    (void)unused;
    char dir[256];
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/trimpot-peft-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    static const char *const rows[] = {
        LORA ",\"target_modules\":[\"q_proj\",\"x\"],\"exclude_modules\":[\"b\",\"a\"],\"layers_to_transform\":[2,0],"
             "\"layers_pattern\":[\"layers\",\"h\"],\"rank_pattern\":{\"z\":3,\"b\":1},\"alpha_pattern\":{\"z\":0.3,\"a\":2}}",
        LORA ",\"target_modules\":\".*(q|v)_proj\",\"exclude_modules\":\".*\\\\.0\\\\..*\"}",
        LORA ",\"target_modules\":\"all-linear\",\"alpha_pattern\":{\"q_proj\":0.1234567890123456}}",
        LORA ",\"layers_to_transform\":1}",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct peft_config p = good(rows[i]), q;
        assert_int_equal(peft_config_write(dir, &p), ST_OK);
        assert_int_equal(peft_config_read(dir, &q), ST_OK);
        const struct peft_rules *a[] = {&p.target, &p.exclude, &p.layers, &p.layers_pattern, &p.rank_pattern, &p.alpha_pattern};
        const struct peft_rules *b[] = {&q.target, &q.exclude, &q.layers, &q.layers_pattern, &q.rank_pattern, &q.alpha_pattern};
        assert_int_equal(p.target_all_linear, q.target_all_linear);
        for (int k = 0; k < 6; k++) {
            assert_int_equal(a[k]->n, b[k]->n);
            assert_int_equal(a[k]->is_regex, b[k]->is_regex);
            for (int j = 0; j < a[k]->n; j++) {
                const struct peft_rule *x = &a[k]->rule[j], *y = &b[k]->rule[j];
                assert_true(x->value == y->value && !x->text == !y->text && (!x->text || !strcmp(x->text, y->text)));
            }
        }
        peft_config_free(&p);
        peft_config_free(&q);
    }
    file_remove_tree(dir);
}

/* The output directory of a run is not its adapter, but says where that is. */
static void one_folder_too_high(void **unused)
{
    (void)unused;
    char dir[256], below[300];
    const char *base = getenv("TMPDIR");
    struct peft_config p = {.r = 1}, q;
    snprintf(dir, sizeof dir, "%s/trimpot-peft-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(peft_config_read(dir, &q), ST_IO);
    snprintf(below, sizeof below, "%s/adapter", dir);
    assert_int_equal(peft_config_write(below, &p), ST_OK);
    assert_int_equal(peft_config_read(dir, &q), ST_IO);
    assert_non_null(strstr(status_message(), "is the output of a run"));
    assert_non_null(strstr(status_message(), below));
    file_remove_tree(dir);
}

static void written_and_read_back(void **unused)
{
    (void)unused;
    char dir[256], path[300], *text;
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/trimpot-peft-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    struct peft_config p = {.r = 16, .lora_alpha = 22.6, .lora_dropout = 0.1, .base_model = mem_strdup("a \"b\""), .use_rslora = true};
    peft_target_add(&p, "q_proj");
    peft_target_add(&p, "v_proj");
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
    assert_true(q.r == 16 && q.lora_alpha == 22.6 && q.lora_dropout == 0.1 && q.use_rslora && q.target.n == 2);
    peft_config_free(&q);
    p.lora_alpha = 32;
    p.target_all_linear = true;
    free(p.base_model);
    p.base_model = NULL;
    assert_int_equal(peft_config_write(dir, &p), ST_OK);
    assert_int_equal(peft_config_read(dir, &q), ST_OK);
    assert_true(q.target_all_linear && q.lora_alpha == 32 && !q.base_model);
    peft_config_free(&q);
    peft_config_free(&p);
    file_remove_tree(dir);
    assert_int_equal(peft_config_read(dir, &q), ST_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields),
        cmocka_unit_test(targets),
        cmocka_unit_test(saved),
        cmocka_unit_test(selection),
        cmocka_unit_test(patterns),
        cmocka_unit_test(inits),
        cmocka_unit_test(refusals),
        cmocka_unit_test(written_and_read_back),
        cmocka_unit_test(selection_written),
        cmocka_unit_test(one_folder_too_high),
    };
    log_init(0, 1, LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
