/* config.json in both spellings, its refusals, and the files an export carries over. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "checkpoints/hf.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

static char dir[256];

static int setup(void **unused)
{
    (void)unused;
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/trimpot-hf-XXXXXX", base ? base : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **unused)
{
    (void)unused;
    return file_remove_tree(dir) ? -1 : 0;
}

#define SIZES                                                                                                                              \
    "\"vocab_size\":1000,\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":3,\"num_attention_"                            \
    "heads\":4"
#define BNB   "\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true,\"bnb_4bit_quant_type\":\"nf4\","
#define LLAMA "{\"model_type\":\"llama\"," SIZES

static struct hf_config good(const char *json)
{
    struct hf_config c;
    status st = hf_config_parse("config.json", json, strlen(json), &c);
    if (st) fail_msg("%s: %s", json, status_message());
    return c;
}

/* What is not said stays so: only the family knows its meaning (tests/model/test_family.c). */
static void absent(void **unused)
{
    (void)unused;
    struct hf_config c = good(LLAMA ",\"max_position_embeddings\":null,\"tie_word_embeddings\":null}");
    assert_string_equal(c.model_type, "llama");
    assert_string_equal(c.hidden_act, "");
    assert_string_equal(c.architecture, "");
    assert_true(c.kv_heads == 0 && c.head_dim == 0 && c.max_positions == 0 && c.rms_norm_eps == HF_ABSENT);
    assert_true(c.tie_word_embeddings == HF_ABSENT && c.attention_bias == HF_ABSENT && c.mlp_bias == HF_ABSENT);
    assert_true(c.sliding_window == HF_ABSENT && c.max_window_layers == HF_ABSENT && c.use_sliding_window == HF_ABSENT);
    assert_true(c.query_pre_attn_scalar == 0 && c.attn_cap == HF_ABSENT && c.head_cap == HF_ABSENT && !c.has_layer_types);
    assert_true(c.ropes == HF_ROPE_UNSAID && c.rope[0].type == ROPE_DEFAULT && c.rope[0].theta == 0 && c.rope[0].partial == 1);
    assert_true(c.bos == -1 && c.pad == -1 && c.n_eos == 0);
    /* null says "none" where that is a value */
    c = good(LLAMA ",\"sliding_window\":null,\"attn_logit_softcapping\":null,\"final_logit_softcapping\":30.0}");
    assert_true(c.sliding_window == 0 && c.attn_cap == 0 && c.head_cap == 30);
}

/* What bnb.h reads is no reason to refuse a model; of 8 bits' own fields only the types are looked at. */
static void quantised_to_nf4(void **unused)
{
    (void)unused;
    good(LLAMA "," BNB "\"bnb_4bit_compute_dtype\":\"bfloat16\",\"bnb_4bit_quant_storage\":\"uint8\",\"llm_int8_threshold\":6.0,"
               "\"llm_int8_has_fp16_weight\":false,\"llm_int8_enable_fp32_cpu_offload\":true,\"llm_int8_skip_modules\":[\"lm_head\"],"
               "\"_load_in_4bit\":true,\"_load_in_8bit\":false,\"load_in_8bit\":false}}");
    good(LLAMA ",\"quantization_config\":null}");
}

static void llama3_in_both_spellings(void **unused)
{
    (void)unused;
    static const char *const spellings[] = {
        LLAMA ",\"num_key_value_heads\":2,\"rope_theta\":500000.0,\"torch_dtype\":\"bfloat16\",\"rope_scaling\":{"
              "\"factor\":32.0,"
              "\"high_freq_factor\":4.0,\"low_freq_factor\":1.0,\"original_max_position_embeddings\":8192,\"rope_"
              "type\":\"llama3\"},"
              "\"tie_word_embeddings\":true,\"eos_token_id\":[1,8,9],\"bos_token_id\":0,\"architectures\":["
              "\"LlamaForCausalLM\"]}",
        LLAMA ",\"num_key_value_heads\":2,\"dtype\":\"bfloat16\",\"rope_parameters\":{\"factor\":32.0,\"rope_theta\":500000,"
              "\"high_freq_factor\":4.0,\"low_freq_factor\":1.0,\"original_max_position_embeddings\":8192,\"rope_type\":"
              "\"llama3\"},"
              "\"tie_word_embeddings\":true,\"eos_token_id\":[1,8,9],\"bos_token_id\":0,\"architectures\":["
              "\"LlamaForCausalLM\"],"
              "\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\"],\"rope_scaling\":null}",
    };
    for (size_t i = 0; i < 2; i++) {
        struct hf_config c = good(spellings[i]);
        assert_true(c.rope[0].type == ROPE_LLAMA3 && c.rope[0].factor == 32 && c.rope[0].low == 1 && c.rope[0].high == 4);
        assert_true(c.rope[0].original == 8192 && c.rope[0].theta == 5e5);
        assert_true(c.tie_word_embeddings && c.kv_heads == 2 && c.bos == 0 && c.n_eos == 3 && c.eos[2] == 9);
        assert_string_equal(c.torch_dtype, "bfloat16");
        assert_string_equal(c.architecture, "LlamaForCausalLM");
    }
}

static void layers_and_ropes_by_type(void **unused)
{
    (void)unused;
    struct hf_config c = good(LLAMA ",\"sliding_window\":128,\"max_window_layers\":2,\"use_sliding_window\":true,"
                                    "\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\"]}");
    assert_true(c.sliding_window == 128 && c.max_window_layers == 2 && c.use_sliding_window == 1 && c.has_layer_types);
    assert_true(!c.slides[0] && c.slides[1] && !c.slides[2]);
    c = good(LLAMA ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":8.0,\"rope_theta\":1e6},"
                   "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":10000.0}}}");
    assert_true(c.ropes == HF_ROPE_BY_TYPE && c.rope[0].type == ROPE_LINEAR && c.rope[0].factor == 8 && c.rope[0].theta == 1e6);
    assert_true(c.rope[1].type == ROPE_DEFAULT && c.rope[1].theta == 1e4 && c.rope[1].factor == 1);
    c = good(LLAMA ",\"rope_theta\":5e5,\"rope_local_base_freq\":1e4,\"sliding_window_pattern\":6,"
                   "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2}}");
    assert_true(c.ropes == HF_ROPE_SCALING && c.rope[0].theta == 5e5 && c.local_theta == 1e4 && c.sliding_window_pattern == 6);
}

static void longrope_by_its_names(void **unused)
{
    (void)unused;
    static const char *const names[] = {"longrope", "su", "yarn"};
    for (size_t i = 0; i < 3; i++) {
        char *text = mem_printf(LLAMA ",\"max_position_embeddings\":131072,\"original_max_position_embeddings\":4096,"
                                      "\"rope_scaling\":{\"type\":\"%s\",\"short_factor\":[1,1.5],\"long_factor\":[2,64]}}",
                                names[i]);
        struct hf_config c = good(text);
        assert_true(c.rope[0].type == ROPE_LONGROPE && c.rope[0].n_stretch == 2 && c.rope[0].original == 4096);
        assert_true(c.rope[0].stretch[0][1] == 1.5f && c.rope[0].stretch[1][1] == 64);
        assert_int_equal(hf_rope_settle("config.json", &c.rope[0], c.max_positions), ST_OK);
        assert_true(c.rope[0].factor == 32 && c.rope[0].attention > 1.190238 && c.rope[0].attention < 1.190239);
        free(text);
    }
}

static void old_and_odd_but_legal(void **unused)
{
    (void)unused;
    struct hf_config c = good(LLAMA ",\"pad_token_id\":-1,\"bos_token_id\":null,\"eos_token_id\":2}");
    assert_true(c.pad == -1 && c.bos == -1 && c.n_eos == 1 && c.eos[0] == 2);
    c = good(LLAMA ",\"pad_token_id\":1000}");
    assert_int_equal(c.pad, -1);
    c = good(LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},\"attention_dropout\":0.0,\"pretraining_tp\":1}");
    assert_true(c.rope[0].type == ROPE_LINEAR && c.rope[0].factor == 2);
    c = good(LLAMA ",\"rope_theta\":10000.0,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000.0}}");
    assert_true(c.rope[0].type == ROPE_DEFAULT && c.rope[0].theta == 1e4);
}

#define WITH(extra) LLAMA "," extra "}"
#define ROPE(body)  WITH("\"rope_scaling\":{" body "}")

static const struct {
    const char *json;
    status st;
    const char *says;
} bad[] = {
    {"", ST_CORRUPT, "config.json:1:"},
    {"[1]", ST_CORRUPT, "one JSON object"},
    {"{\"a\":1,\"a\":1}", ST_CORRUPT, "duplicate"},
    {"{\"a\":NaN}", ST_CORRUPT, "config.json:1:"},
    {"{}", ST_CORRUPT, "model_type is missing"},
    {"{\"model_type\":7}", ST_CORRUPT, "model_type is 7"},
    {"{\"model_type\":\"a-name-that-is-much-longer-than-any-model-type\"}", ST_CORRUPT, "at most 31 bytes"},
    {"{\"model_type\":\"llama\"}", ST_CORRUPT, "vocab_size is missing"},
    {"{\"model_type\":\"llama\",\"vocab_size\":\"x\"}", ST_CORRUPT, "vocab_size is \"x\""},
    {"{\"model_type\":\"llama\",\"vocab_size\":0}", ST_CORRUPT, "vocab_size is 0"},
    {"{\"model_type\":\"llama\",\"vocab_size\":2147483648}", ST_CORRUPT, "vocab_size is 2147483648"},
    {"{\"model_type\":\"llama\",\"vocab_size\":99999999999999999999}", ST_CORRUPT, "too big"},
    {WITH("\"head_dim\":-2"), ST_CORRUPT, "head_dim is -2"},
    {"{\"model_type\":\"llama\",\"vocab_size\":10,\"hidden_size\":64,\"intermediate_size\":8,\"num_hidden_layers\":"
     "1025,"
     "\"num_attention_heads\":4}",
     ST_CORRUPT, "num_hidden_layers"},
    {WITH("\"rms_norm_eps\":-1"), ST_CORRUPT, "rms_norm_eps"},
    {WITH("\"rms_norm_eps\":true"), ST_CORRUPT, "rms_norm_eps is true"},
    {WITH("\"tie_word_embeddings\":1"), ST_CORRUPT, "true or false"},
    {WITH("\"architectures\":\"X\""), ST_CORRUPT, "architectures"},
    {WITH("\"architectures\":[]"), ST_CORRUPT, "architectures"},
    {WITH("\"rope_theta\":0"), ST_CORRUPT, "rope_theta"},
    {WITH("\"rope_scaling\":[]"), ST_CORRUPT, "rope_scaling is []"},
    {ROPE("\"factor\":2"), ST_CORRUPT, "rope_type is missing"},
    {ROPE("\"rope_type\":\"linear\""), ST_CORRUPT, "factor is missing"},
    {ROPE("\"rope_type\":\"linear\",\"factor\":0"), ST_CORRUPT, "factor is 0"},
    {ROPE("\"rope_type\":\"llama3\",\"factor\":8"), ST_CORRUPT, "low_freq_factor is missing"},
    {ROPE("\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
          "\"original_max_position_embeddings\":8192"),
     ST_CORRUPT, "must exceed"},
    {ROPE("\"rope_type\":\"ntk\",\"factor\":8"), ST_NOT_BUILT, "\"ntk\" is not built"},
    {ROPE("\"type\":\"mrope\",\"mrope_section\":[1,2]"), ST_NOT_BUILT, "\"mrope\" is not built"},
    {ROPE("\"type\":\"dynamic\""), ST_CORRUPT, "factor is missing"},
    {ROPE("\"type\":\"yarn\""), ST_CORRUPT, "factor is missing"},
    {ROPE("\"type\":\"yarn\",\"factor\":0.5"), ST_CORRUPT, "factor is 0.5"},
    {ROPE("\"type\":\"yarn\",\"factor\":4,\"beta_fast\":1,\"beta_slow\":32"), ST_CORRUPT, "beta_fast 1 must"},
    {ROPE("\"type\":\"yarn\",\"factor\":4,\"attention_factor\":0"), ST_CORRUPT, "attention_factor is 0"},
    {ROPE("\"type\":\"yarn\",\"factor\":4,\"truncate\":0"), ST_CORRUPT, "truncate is 0"},
    {WITH("\"original_max_position_embeddings\":1024,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,"
          "\"original_max_position_embeddings\":2048}"),
     ST_CORRUPT, "same value"},
    {WITH("\"rope_parameters\":{\"rope_type\":\"longrope\"}"), ST_CORRUPT, "short_factor is missing"},
    {ROPE("\"type\":\"su\",\"short_factor\":[1,2],\"long_factor\":[1]"), ST_CORRUPT, "2 numbers and long_factor 1"},
    {ROPE("\"type\":\"su\",\"short_factor\":[1,0],\"long_factor\":[1,1]"), ST_CORRUPT, "short_factor[1] is 0"},
    {ROPE("\"type\":\"su\",\"short_factor\":2,\"long_factor\":[1]"), ST_CORRUPT, "short_factor is 2"},
    {WITH("\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"},\"rope_theta\":1e4}"), ST_CORRUPT,
     "has keys beside full_attention"},
    {WITH("\"rope_parameters\":{\"chunked_attention\":{\"rope_type\":\"default\"}}"), ST_NOT_BUILT, "chunked_attention"},
    {WITH("\"rope_theta\":1e4,\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e6}}"), ST_CORRUPT, "keep one"},
    {WITH("\"use_bidirectional_attention\":true"), ST_NOT_BUILT, "use_bidirectional_attention is true"},
    {WITH("\"query_pre_attn_scalar\":0"), ST_CORRUPT, "query_pre_attn_scalar is 0"},
    {WITH("\"attn_logit_softcapping\":-1"), ST_CORRUPT, "attn_logit_softcapping is -1"},
    {WITH("\"rope_theta\":1e4,\"rope_parameters\":{\"rope_theta\":5e5}"), ST_CORRUPT, "keep one"},
    {WITH("\"rope_scaling\":{\"rope_type\":\"default\"},\"rope_parameters\":{\"rope_theta\":5e5}"), ST_CORRUPT, "disagree"},
    {WITH("\"num_local_experts\":8"), ST_NOT_BUILT, "num_local_experts is 8"},
    {WITH("\"quantization_config\":{\"quant_method\":\"hqq\"}"), ST_NOT_BUILT,
     "quantization_config by \"hqq\": the weights are already quantised"},
    {WITH("\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}"), ST_NOT_BUILT, "load_in_4bit is not true"},
    {WITH("\"quantization_config\":{\"load_in_4bit\":true}"), ST_NOT_BUILT, "\"fp4\", as it is not said; only nf4 is read"},
    {WITH("\"quantization_config\":[\"load_in_4bit\"]"), ST_NOT_BUILT, "model.quantize_base=true"},
    {WITH(BNB "\"load_in_8bit\":true}"), ST_NOT_BUILT, "quantization_config.load_in_8bit is true"},
    {WITH(BNB "\"bnb_4bit_quant_storage\":\"int8\"}"), ST_NOT_BUILT, "bnb_4bit_quant_storage is \"int8\"; uint8, float32"},
    {WITH(BNB "\"bnb_4bit_compute_dtype\":\"uint8\"}"), ST_NOT_BUILT, "bnb_4bit_compute_dtype is \"uint8\"; float32"},
    {WITH(BNB "\"bnb_4bit_use_double_quant\":1}"), ST_CORRUPT, "quantization_config.bnb_4bit_use_double_quant is 1"},
    {WITH(BNB "\"llm_int8_skip_modules\":\"lm_head\"}"), ST_CORRUPT, "llm_int8_skip_modules is \"lm_head\", not a list"},
    {WITH(BNB "\"llm_int8_skip_modules\":[\"a\",1]}"), ST_CORRUPT, "llm_int8_skip_modules[1] is 1"},
    {WITH(BNB "\"llm_int8_skip_modules\":[\"layers.(0|1)\"]}"), ST_NOT_BUILT, "a regular expression"},
    {WITH(BNB "\"llm_int8_threshold\":\"high\"}"), ST_CORRUPT, "llm_int8_threshold is \"high\""},
    {WITH(BNB "\"rotation\":8}"), ST_NOT_BUILT, "quantization_config.rotation is 8; nobody here knows"},
    {WITH("\"compression_config\":{\"format\":\"x\"}"), ST_NOT_BUILT, "compression_config"},
    {WITH("\"quantization\":{\"bits\":4}"), ST_NOT_BUILT, "the original, unquantised model"},
    {"{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"gptq\"}}", ST_NOT_BUILT, "\"gptq\""},
    {WITH("\"layer_types\":[\"full_attention\"]"), ST_CORRUPT, "layer_types"},
    {WITH("\"layer_types\":[1,2,3]"), ST_CORRUPT, "layer_types[0] is 1"},
    {WITH("\"layer_types\":[\"linear_attention\",\"full_attention\",\"full_attention\"]"), ST_NOT_BUILT, "linear_attention"},
    {WITH("\"eos_token_id\":1000"), ST_CORRUPT, "below vocab_size 1000"},
    {WITH("\"eos_token_id\":\"</s>\""), ST_CORRUPT, "eos_token_id is \"</s>\""},
    {WITH("\"eos_token_id\":[1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6]"), ST_CORRUPT, "lists 33 ids"},
    {WITH("\"eos_token_id\":[1,null]"), ST_CORRUPT, "eos_token_id is null"},
    {WITH("\"bos_token_id\":1.5"), ST_CORRUPT, "bos_token_id is 1.5"},
    {WITH("\"pad_token_id\":\"x\""), ST_CORRUPT, "pad_token_id"},
};

static void refusals(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hf_config c;
        status st = hf_config_parse("config.json", bad[i].json, strlen(bad[i].json), &c);
        if (st != bad[i].st || !strstr(status_message(), bad[i].says) || strncmp(status_message(), "config.json", 11) != 0)
            fail_msg("row %zu %s: %d '%s', wanted %d '%s'", i, bad[i].json, st, st ? status_message() : "", bad[i].st, bad[i].says);
    }
}

static char *at(const char *name)
{
    static char ring[4][400];
    static int next;
    char *p = ring[next++ & 3];
    snprintf(p, 400, "%s/%s", dir, name);
    return p;
}

static void put(const char *name, const char *text) { assert_int_equal(file_replace(at(name), text, strlen(text)), ST_OK); }

static void directory(void **unused)
{
    (void)unused;
    struct hf_config c;
    assert_int_equal(hf_config_read(at("absent"), &c), ST_IO);
    assert_int_equal(hf_config_read(dir, &c), ST_IO);
    put("config.json", WITH("\"eos_token_id\":2,\"bos_token_id\":1"));
    assert_int_equal(hf_config_read(dir, &c), ST_OK);
    assert_true(c.n_eos == 1 && c.eos[0] == 2 && c.bos == 1);
    put("generation_config.json", "{\"eos_token_id\":[5,6],\"temperature\":0.6}");
    assert_int_equal(hf_config_read(dir, &c), ST_OK);
    assert_true(c.n_eos == 2 && c.eos[0] == 5 && c.bos == 1);
    put("generation_config.json", "{\"eos_token_id\":[5,1006]}");
    assert_int_equal(hf_config_read(dir, &c), ST_OK);
    assert_non_null(strstr(c.generation_fault, "generation_config.json: eos_token_id is 1006"));
    assert_true(c.n_eos == 1 && c.eos[0] == 2 && c.bos == 1);
    put("generation_config.json", "{\"eos_token_id\":");
    assert_int_equal(hf_config_read(dir, &c), ST_OK);
    assert_non_null(strstr(c.generation_fault, "generation_config.json:1:"));
    put("generation_config.json", "{}");
    assert_int_equal(hf_config_read(dir, &c), ST_OK);
    assert_string_equal(c.generation_fault, "");
    put("config.json", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    assert_int_equal(hf_config_read(dir, &c), ST_IO);
    assert_non_null(strstr(status_message(), "config.json: a Git LFS pointer"));
}

/* The family is asked for before any size, of nested files too; whatever its length. */
static void model_types(void **unused)
{
    (void)unused;
    static const struct {
        const char *json, *type; /* NULL: an error */
    } rows[] = {
        {"{\"model_type\":\"falcon\"}", "falcon"},
        {"{\"model_type\":\"gemma3\",\"text_config\":{\"model_type\":\"gemma3_text\"}}", "gemma3"},
        {"{\"text_config\":{\"model_type\":\"gemma3_text\"}}", "gemma3_text"},
        {"{\"model_type\":\"a-name-that-is-much-longer-than-any-model-type\"}", "a-name-that-is-much-longer-than-any-model-type"},
        {"{\"text_config\":{}}", NULL},
        {"{\"model_type\":null}", NULL},
        {"{\"model_type\":[\"llama\"]}", NULL},
        {"{\"text_config\":7}", NULL},
        {"[]", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char type[128];
        put("config.json", rows[i].json);
        status st = hf_config_model_type(dir, type, sizeof type);
        assert_int_equal(st, rows[i].type ? ST_OK : ST_CORRUPT);
        if (rows[i].type)
            assert_string_equal(type, rows[i].type);
        else
            assert_non_null(strstr(status_message(), "config.json"));
    }
}

static void dropouts(void **unused)
{
    (void)unused;
    static const struct {
        const char *json, *says;
    } rows[] = {
        {WITH("\"attention_dropout\":0.1"), "attention_dropout 0.1"},
        {WITH("\"attention_dropout\":0.0,\"resid_pdrop\":0,\"embd_pdrop\":null,\"dropout\":false"), ""},
        {WITH("\"resid_pdrop\":0.1,\"embd_pdrop\":0.2,\"hidden_dropout_prob\":0.5,\"layerdrop\":1,\"drop\":\"\""),
         "resid_pdrop 0.1, embd_pdrop 0.2, hidden_dropout_prob 0.5, layerdrop 1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) assert_string_equal(good(rows[i].json).dropouts, rows[i].says);
}

static void yarn_in_both_spellings(void **unused)
{
    (void)unused;
    static const char *const spellings[] = {
        WITH("\"max_position_embeddings\":32768,\"rope_theta\":1e6,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,"
             "\"original_max_position_embeddings\":8192}"),
        WITH("\"max_position_embeddings\":32768,\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":1e6,"
             "\"factor\":null,\"original_max_position_embeddings\":8192,\"beta_fast\":null,\"beta_slow\":0}"),
        WITH("\"max_position_embeddings\":8192,\"rope_theta\":1e6,\"rope_scaling\":{\"rope_type\":\"yarn\",\"type\":\"x\","
             "\"factor\":4,\"mscale\":0.7}"),
    };
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        struct hf_config c = good(spellings[i]);
        assert_int_equal(hf_rope_settle("config.json", &c.rope[0], c.max_positions), ST_OK);
        assert_true(c.rope[0].type == ROPE_YARN && c.rope[0].factor == 4 && c.rope[0].original == 8192 && c.rope[0].theta == 1e6);
        assert_true(c.rope[0].high == 32 && c.rope[0].low == 1 && c.rope[0].truncate);
        assert_true(c.rope[0].attention > 1.138629 && c.rope[0].attention < 1.138630);
    }
    struct hf_config c = good(ROPE("\"type\":\"dynamic\",\"factor\":2.0"));
    assert_int_equal(hf_rope_settle("config.json", &c.rope[0], 4096), ST_OK);
    assert_true(c.rope[0].type == ROPE_DYNAMIC && c.rope[0].factor == 2 && c.rope[0].attention == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent),
        cmocka_unit_test(quantised_to_nf4),
        cmocka_unit_test(llama3_in_both_spellings),
        cmocka_unit_test(layers_and_ropes_by_type),
        cmocka_unit_test(longrope_by_its_names),
        cmocka_unit_test(old_and_odd_but_legal),
        cmocka_unit_test(refusals),
        cmocka_unit_test_setup_teardown(directory, setup, teardown),
        cmocka_unit_test_setup_teardown(model_types, setup, teardown),
        cmocka_unit_test(dropouts),
        cmocka_unit_test(yarn_in_both_spellings),
    };
    log_init(0, 1, LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
