/* What lies beside the weights of an export: what it carries over byte for byte, and what it says of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "checkpoints/hf.h"
#include "checkpoints/jedit.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

static char root[64];

static const char *at(const char *name) /* a ring of 8 */
{
    static char ring[8][512];
    static unsigned next;
    char *out = ring[next++ % 8];
    snprintf(out, sizeof ring[0], "%s/%s", root, name);
    return out;
}

static void put(const char *name, const char *text)
{
    char *dir = mem_strdup(at(name));
    *strrchr(dir, '/') = 0;
    assert_int_equal(file_mkdirs(dir), ST_OK);
    free(dir);
    assert_int_equal(file_replace(at(name), text, strlen(text)), ST_OK);
}

static void holds(const char *name, const char *want) /* NULL: there is no such file */
{
    char *text;
    if (!want) {
        if (file_exists(at(name))) fail_msg("%s is there", name);
        return;
    }
    if (file_read(at(name), 1 << 20, &text, NULL)) fail_msg("%s", status_message());
    if (strcmp(text, want)) fail_msg("%s: '%s' where '%s' is wanted", name, text, want);
    free(text);
}

static int setup(void **state)
{
    (void)state;
    strcpy(root, "/tmp/trimpot-side-XXXXXX");
    if (!mkdtemp(root)) return -1;
    put("base/config.json", "{\"bos_token_id\": 1, \"eos_token_id\": 2}");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return file_remove_tree(root);
}

static void export(struct hf_export e)
{
    assert_int_equal(file_remove_tree(at("out")), ST_OK);
    if (hf_copy_side_files(at("base"), at("out"), &e)) fail_msg("%s", status_message());
}

/* One value changes, every other byte stays. */
static void edits(void **state)
{
    (void)state;
    static const struct {
        const char *from, *key, *value, *to;
    } rows[] = {
        {"{\"a\":1,\"b\" : 2 }", "b", "[3, 4]", "{\"a\":1,\"b\" : [3, 4] }"},
        {"{ \"b\": [1, [2, \"]\\\"\"], {\"b\": 5}] , \"a\": 1}", "b", "7", "{ \"b\": 7 , \"a\": 1}"},
        {"{\"x\": {\"b\": \"}\"}, \"y\": \"\\\"b\\\":\", \"b\": null}", "b", "\"s\"",
         "{\"x\": {\"b\": \"}\"}, \"y\": \"\\\"b\\\":\", \"b\": \"s\"}"},
        {"\n{\n}\n", "b", "1", "\n{\n  \"b\": 1\n}\n"},
        {"{\"bb\": 1}", "b", "true", "{\n  \"b\": true,\"bb\": 1}"},
        {"{\"a\": \"b\", \"b\":-1e5}", "b", "0", "{\"a\": \"b\", \"b\":0}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf text = {0};
        buf_text(&text, rows[i].from);
        jedit_set(&text, rows[i].key, rows[i].value);
        assert_string_equal(text.data, rows[i].to);
        buf_release(&text);
    }
}

static void dtypes(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } rows[] = {
        {"{ \"torch_dtype\" : \"bfloat16\" , \"eps\":1e-05}", "{ \"torch_dtype\" : \"float32\" , \"eps\":1e-05}"},
        {"{\"x\": {\"torch_dtype\": \"a\"}, \"dtype\": null}", "{\"x\": {\"torch_dtype\": \"a\"}, \"dtype\": \"float32\"}"},
        {"{\"torch_dtype\":\"a\\\"\", \"dtype\":\"b\"}\n", "{\"torch_dtype\":\"float32\", \"dtype\":\"float32\"}\n"},
        {"{\"k\": \"torch_dtype\"}", "{\n  \"torch_dtype\": \"float32\",\"k\": \"torch_dtype\"}"},
        {"{}", "{\n  \"torch_dtype\": \"float32\"}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        put("base/config.json", rows[i].from);
        export((struct hf_export){.dtype = "float32"});
        holds("out/config.json", rows[i].to);
        export((struct hf_export){0});
        holds("out/config.json", rows[i].from);
    }
    put("base/config.json", "{\"a\":");
    assert_int_equal(hf_copy_side_files(at("base"), at("out"), &(struct hf_export){.dtype = "float32"}), ST_CORRUPT);
}

static void carried(void **state)
{
    (void)state;
    put("base/tokenizer.json", "T");
    put("base/tokenizer_config.json", "{\"chat_template\": \"old\"}");
    put("base/chat_template.jinja", "{{ x }}");
    put("base/secrets.txt", "no");
    put("base/additional_chat_templates/tool.jinja", "{{ t }}");
    put("base/additional_chat_templates/other.py", "no");
    put("base/generation_config.json", "{\"eos_token_id\": 2,  \"x\": 1}");
    export((struct hf_export){0});
    holds("out/tokenizer.json", "T");
    holds("out/tokenizer_config.json", "{\"chat_template\": \"old\"}");
    holds("out/chat_template.jinja", "{{ x }}");
    holds("out/additional_chat_templates/tool.jinja", "{{ t }}");
    holds("out/generation_config.json", "{\"eos_token_id\": 2,  \"x\": 1}");
    holds("out/secrets.txt", NULL);
    holds("out/additional_chat_templates/other.py", NULL);
}

/* What was trained to end an answer joins what ended one before. */
static void ends(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } rows[] = {
        {NULL, "{\n  \"bos_token_id\": 1,\n  \"eos_token_id\": [2, 7, 9]\n}\n"},
        {"{\"eos_token_id\": 2, \"x\":1e-05}", "{\"eos_token_id\": [2, 7, 9], \"x\":1e-05}"},
        {"{\"eos_token_id\": [9, 4]}", "{\"eos_token_id\": [9, 4, 7]}"},
        {"{\"eos_token_id\":[7,9]}", "{\"eos_token_id\":[7,9]}"},
        {"{\"eos_token_id\": null}", "{\"eos_token_id\": [7, 9]}"},
        {"{\"_from_model_config\": true, \"eos_token_id\": 2}", "{\"_from_model_config\": false, \"eos_token_id\": [2, 7, 9]}"},
        {"{}", "{\n  \"eos_token_id\": [7, 9]}"},
        {"no JSON", "{\n  \"bos_token_id\": 1,\n  \"eos_token_id\": [2, 7, 9]\n}\n"},
    };
    const int32_t ids[] = {7, 9};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unlink(at("base/generation_config.json"));
        if (rows[i].from) put("base/generation_config.json", rows[i].from);
        export((struct hf_export){.end_ids = ids, .n_end = 2});
        holds("out/generation_config.json", rows[i].to);
        holds("out/config.json", "{\"bos_token_id\": 1, \"eos_token_id\": 2}");
    }
    int32_t *found;
    int n;
    put("base/generation_config.json", "{\"eos_token_id\": [3, 5], \"max_length\": 1000000000000000019884624838656}");
    assert_int_equal(hf_generation_ends(at("base"), &found, &n), ST_OK);
    assert_true(n == 2 && found[0] == 3 && found[1] == 5);
    free(found);
    assert_int_equal(hf_generation_ends(at("out/none"), &found, &n), ST_OK);
    assert_true(n == 0 && !found);
}

/* No file of the export says another template than the one trained on; the others with a name stay. */
static void templates(void **state)
{
    (void)state;
    static const struct {
        const char *config, *jinja, *to;
    } rows[] = {
        {"{\"a\": 1}", NULL, "{\n  \"chat_template\": \"{{ new \\\"q\\\" }}\",\"a\": 1}"},
        {"{\"a\": 1}", "old", "{\"a\": 1}"},
        {"{\"model_max_length\": 1000000000000000019884624838656}", "old", /* as transformers writes it */
         "{\"model_max_length\": 1000000000000000019884624838656}"},
        {"{\"chat_template\": \"old\", \"a\": 1.50}", NULL, "{\"chat_template\": \"{{ new \\\"q\\\" }}\", \"a\": 1.50}"},
        {"{\"chat_template\": \"old\"}", "older", "{\"chat_template\": \"{{ new \\\"q\\\" }}\"}"},
        {"{\"chat_template\":\"{{ new \\u0022q\\u0022 }}\"}", NULL, "{\"chat_template\":\"{{ new \\u0022q\\u0022 }}\"}"},
        {"{\"chat_template\": [{\"name\": \"default\", \"template\": \"old\"}, {\"name\": \"rag\", \"template\": \"R\"}]}", NULL,
         "{\"chat_template\": [{\"name\": \"default\", \"template\": \"{{ new \\\"q\\\" }}\"}, {\"name\": \"rag\", \"template\": \"R\"}]}"},
        {"{\"chat_template\": [{\"name\": \"a/b\", \"template\": \"R\"}]}", NULL,
         "{\"chat_template\": [{\"name\": \"a/b\", \"template\": \"R\"}, {\"name\": \"default\", \"template\": \"{{ new \\\"q\\\" }}\"}]}"},
    };
    put("base/chat_template.json", "{\"chat_template\": \"old\"}");
    put("base/additional_chat_templates/default.jinja", "old");
    put("base/additional_chat_templates/tool.jinja", "T");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unlink(at("base/chat_template.jinja"));
        put("base/tokenizer_config.json", rows[i].config);
        if (rows[i].jinja) put("base/chat_template.jinja", rows[i].jinja);
        export((struct hf_export){.chat_template = "{{ new \"q\" }}"});
        holds("out/chat_template.jinja", "{{ new \"q\" }}");
        holds("out/tokenizer_config.json", rows[i].to);
        holds("out/chat_template.json", "{\"chat_template\": \"{{ new \\\"q\\\" }}\"}");
        holds("out/additional_chat_templates/default.jinja", NULL);
        holds("out/additional_chat_templates/tool.jinja", "T");
        holds("out/additional_chat_templates/rag.jinja", strstr(rows[i].config, "rag") ? "R" : NULL);
    }
    put("base/tokenizer_config.json", "{\"a\": 1, \"chat_template\": \"old\"}"); /* trained on what no template says */
    export((struct hf_export){.chat_template = ""});
    holds("out/chat_template.jinja", NULL);
    holds("out/chat_template.json", NULL);
    holds("out/additional_chat_templates/tool.jinja", NULL);
    holds("out/tokenizer_config.json", "{\"a\": 1, \"chat_template\": null}");
}

/* Weights that are apart are said to be. */
static void untied(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } rows[] = {
        {"{\"b\": 1e-05, \"tie_word_embeddings\": true, \"a\": [1]}", "{\"b\": 1e-05, \"tie_word_embeddings\": false, \"a\": [1]}"},
        {"{}", "{\n  \"tie_word_embeddings\": false}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        put("base/config.json", rows[i].from);
        export((struct hf_export){.untied = true});
        holds("out/config.json", rows[i].to);
        export((struct hf_export){.untied = false});
        holds("out/config.json", rows[i].from);
    }
}

/* The tokenizer that was used, whole; nothing of the base's beside it. */
static void tokenizers(void **state)
{
    (void)state;
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tokenizer_config.json"};
    static const struct {
        const char *path, *want[5];
    } rows[] = {
        {NULL, {"{base}", "base", NULL, NULL, "{\"b\": 1}"}},
        {"base", {"{base}", "base", NULL, NULL, "{\"b\": 1}"}},
        {"base/original/tokenizer.model", {"{base}", "base", NULL, NULL, "{\"b\": 1}"}},
        {"tik/tokenizer.model", {"{base}", "base", NULL, NULL, "{\"b\": 1}"}},
        {"dir", {"{dir}", NULL, "{v}", "m", "{\"d\": 1}"}},
        {"dir/", {"{dir}", NULL, "{v}", "m", "{\"d\": 1}"}},
        {"dir/tokenizer.json", {"{dir}", NULL, NULL, NULL, "{\"d\": 1}"}},
        {"dir/vocab.json", {NULL, NULL, "{v}", "m", "{\"d\": 1}"}},
        {"dir/my tok.json", {"{mine}", NULL, NULL, NULL, "{\"d\": 1}"}},
        {"dir/sp.model", {NULL, "\nsp", NULL, NULL, "{\"d\": 1}"}},
    };
    put("base/tokenizer.json", "{base}");
    put("base/tokenizer.model", "base");
    put("base/tokenizer_config.json", "{\"b\": 1}");
    put("base/original/tokenizer.model", "\nx");
    put("dir/tokenizer.json", "{dir}");
    put("dir/vocab.json", "{v}");
    put("dir/merges.txt", "m");
    put("dir/my tok.json", " {mine}");
    put("dir/sp.model", "\nsp");
    put("dir/tokenizer_config.json", "{\"d\": 1}");
    put("tik/tokenizer.model", "IQ== 0\n");
    put("dir/my tok.json", "{mine}");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        export((struct hf_export){.tokenizer = rows[i].path ? at(rows[i].path) : NULL});
        for (int k = 0; k < 5; k++) {
            char name[64];
            snprintf(name, sizeof name, "out/%s", names[k]);
            holds(name, rows[i].want[k]);
        }
    }
    put("other/m.txt", "mm");
    export((struct hf_export){.tokenizer = at("dir/my tok.json"), .merges_file = at("other/m.txt")});
    holds("out/vocab.json", "{mine}");
    holds("out/merges.txt", "mm");
    holds("out/tokenizer.json", NULL);
}

/* An adapter's folder gets what a chat needs, and no config.json: it is no model. */
static void adapters(void **state)
{
    (void)state;
    const int32_t id = 7;
    put("base/tokenizer.json", "T");
    struct hf_export e = {.chat_template = "new"};
    assert_int_equal(hf_copy_adapter_files(at("base"), at("out"), &e), ST_OK);
    holds("out/tokenizer.json", "T");
    holds("out/chat_template.jinja", "new");
    holds("out/config.json", NULL);
    holds("out/generation_config.json", NULL);
    e.end_ids = &id, e.n_end = 1;
    assert_int_equal(hf_copy_adapter_files(at("base"), at("out"), &e), ST_OK);
    holds("out/generation_config.json", "{\n  \"bos_token_id\": 1,\n  \"eos_token_id\": [2, 7]\n}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edits),
        cmocka_unit_test_setup_teardown(untied, setup, teardown),
        cmocka_unit_test_setup_teardown(dtypes, setup, teardown),
        cmocka_unit_test_setup_teardown(carried, setup, teardown),
        cmocka_unit_test_setup_teardown(ends, setup, teardown),
        cmocka_unit_test_setup_teardown(templates, setup, teardown),
        cmocka_unit_test_setup_teardown(tokenizers, setup, teardown),
        cmocka_unit_test_setup_teardown(adapters, setup, teardown),
    };
    log_init(0, 1, LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
