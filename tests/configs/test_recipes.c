/* test_recipes.c — the shipped recipes: found by name from anywhere, and every one of them valid. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "configs/config.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

static const char dir[] = TRIMPOT_SOURCE_DIR "/configs/recipes";

static bool has(char **names, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(names[i], name)) return true;
    return false;
}

static void names_people_know(void **state)
{
    (void)state;
    static const char *const known[] = {
        "llama2/7B_full",
        "llama2/7B_full_low_memory",
        "llama2/7B_lora",
        "llama2/7B_lora_single_device",
        "llama2/7B_qlora_single_device",
        "llama3/8B_full",
        "llama3/8B_qlora_single_device",
        "llama3_1/8B_full",
        "llama3_1/8B_lora_single_device",
        "llama3_2/1B_full",
        "llama3_2/1B_full_single_device",
        "llama3_2/1B_lora",
        "llama3_2/1B_lora_single_device",
        "llama3_2/1B_qlora_single_device",
        "llama3_2/3B_lora",
        "qwen2/0.5B_full",
        "qwen2/0.5B_full_single_device",
        "qwen2/0.5B_lora",
        "qwen2/0.5B_lora_single_device",
        "qwen2/1.5B_lora",
        "qwen2/7B_full",
        "qwen2_5/0.5B_lora_single_device",
        "qwen2_5/1.5B_full",
        "qwen2_5/7B_lora_single_device",
    };
    int n;
    char **names = config_recipes(dir, &n);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!has(names, n, known[i])) fail_msg("%s is not shipped", known[i]);
    for (int i = 1; i < n; i++) assert_true(strcmp(names[i - 1], names[i]) < 0);
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
}

static void check_recipe(const char *name, const struct config *c)
{
    bool single = strstr(name, "single_device") || strstr(name, "low_memory");
    bool low = strstr(name, "full_single_device") || strstr(name, "low_memory");
    assert_int_equal(c->recipe, strstr(name, "lora") ? RECIPE_LORA : RECIPE_FULL);
    assert_int_equal(c->single_device, single);
    assert_int_equal(c->model.adapt, strstr(name, "qlora")  ? ADAPT_QLORA
                                     : strstr(name, "lora") ? ADAPT_LORA
                                                            : ADAPT_NONE);
    assert_int_equal(c->optimizer_in_bwd, low);
    assert_non_null(c->model.family);
    assert_memory_equal(name, c->model.family, strlen(c->model.family));
    assert_int_equal(c->dataset[0].kind, DATA_ALPACA);
    if (c->recipe == RECIPE_LORA) {
        assert_true(c->model.lora.mlp);
        assert_int_equal(c->model.lora.attn_modules, MODULE_Q | MODULE_V | MODULE_O);
        assert_int_equal(c->schedule.kind, SCHEDULE_COSINE);
    }
}

static void every_recipe_is_valid(void **state)
{
    (void)state;
    int n;
    char **names = config_recipes(dir, &n);
    assert_true(n >= 60);
    for (int i = 0; i < n; i++) {
        struct config_args args = {
            .config = names[i], .recipes_dir = dir, .model = "/models/base", .data = "rows.jsonl"};
        struct config *c = NULL;
        if (config_load(&args, false, &c)) fail_msg("%s: %s", names[i], status_message());
        check_recipe(names[i], c);
        char *text = config_text(c);
        struct config *again = NULL;
        if (config_parse_text(names[i], text, strlen(text), NULL, &again))
            fail_msg("%s: %s", names[i], status_message());
        check_recipe(names[i], again);
        config_free(again);
        config_free(c);
        /* as it stands it says what is missing, and nothing else */
        args.model = args.data = NULL;
        assert_int_equal(config_load(&args, false, &c), ST_USAGE);
        assert_non_null(strstr(status_message(), "2 errors"));
        assert_non_null(strstr(status_message(), "--model DIR"));
        assert_non_null(strstr(status_message(), "--data FILE"));
        free(text);
    }
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
}

static void lookup(void **state)
{
    (void)state;
    char *path = NULL;
    assert_int_equal(config_recipe_path(dir, "llama3_2/1B_lora.yaml", &path), ST_OK);
    assert_true(file_exists(path));
    free(path);
    assert_int_equal(config_recipe_path(dir, "llama3_2/1B_lora_single_devise", &path), ST_USAGE);
    assert_non_null(strstr(status_message(), "did you mean llama3_2/1B_lora_single_device?"));
    assert_int_equal(config_recipe_path(dir, "../recipes/llama3_2/1B_lora", &path), ST_USAGE);
    assert_int_equal(config_recipe_path("/nonexistent", "x", &path), ST_USAGE);
    struct config_args args = {.config = "no/such", .recipes_dir = dir};
    struct config *c = NULL;
    assert_int_equal(config_load(&args, false, &c), ST_USAGE);
    args.config = TRIMPOT_SOURCE_DIR; /* a directory is no file */
    assert_int_equal(config_load(&args, false, &c), ST_USAGE);
    assert_null(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_people_know),
        cmocka_unit_test(every_recipe_is_valid),
        cmocka_unit_test(lookup),
    };
    log_init(0, 1, LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
