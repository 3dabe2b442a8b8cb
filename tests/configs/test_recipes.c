/* test_recipes.c — what is shipped: found by name from anywhere, and every recipe valid. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "configs/config.h"
#include "configs/shipped.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

static const char dir[] = TRIMPOT_SOURCE_DIR "/configs";

static bool has(const struct shipped *files, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(files[i].name, name)) return true;
    return false;
}

static bool is_script(const struct shipped *f) { return !strcmp(shipped_command(f), "sbatch"); }

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
        "slurm/mpirun.sbatch",
        "slurm/srun.sbatch",
    };
    int n;
    struct shipped *files = shipped_list(dir, &n);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!has(files, n, known[i])) fail_msg("%s is not shipped", known[i]);
    /* the recipes, then the scripts */
    for (int i = 1; i < n; i++)
        assert_true(is_script(&files[i - 1]) == is_script(&files[i]) ? strcmp(files[i - 1].name, files[i].name) < 0 : is_script(&files[i]));
    shipped_free(files, n);
}

static void check_recipe(const char *name, const struct config *c)
{
    bool single = strstr(name, "single_device") || strstr(name, "low_memory");
    bool low = strstr(name, "full_single_device") || strstr(name, "low_memory");
    assert_int_equal(c->recipe, strstr(name, "lora") ? RECIPE_LORA : RECIPE_FULL);
    assert_int_equal(c->single_device, single);
    assert_int_equal(c->model.adapt, strstr(name, "qlora") ? ADAPT_QLORA : strstr(name, "lora") ? ADAPT_LORA : ADAPT_NONE);
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
    struct shipped *files = shipped_list(dir, &n);
    assert_true(n >= 60);
    for (int i = 0; i < n && !is_script(&files[i]); i++) {
        const char *name = files[i].name;
        struct config_args args = {.config = name, .shipped_dir = dir, .model = "/models/base", .data = "rows.jsonl"};
        struct config *c = NULL;
        if (config_load(&args, false, &c)) fail_msg("%s: %s", name, status_message());
        check_recipe(name, c);
        char *text = config_text(c);
        struct config *again = NULL;
        if (config_parse_text(name, text, strlen(text), NULL, &again)) fail_msg("%s: %s", name, status_message());
        check_recipe(name, again);
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
    shipped_free(files, n);
}

static void lookup(void **state)
{
    (void)state;
    char *path = NULL;
    assert_int_equal(shipped_recipe(dir, "llama3_2/1B_lora.yaml", &path), ST_OK);
    assert_true(file_exists(path));
    free(path);
    assert_int_equal(shipped_recipe(dir, "llama3_2/1B_lora_single_devise", &path), ST_USAGE);
    assert_non_null(strstr(status_message(), "did you mean llama3_2/1B_lora_single_device?"));
    assert_int_equal(shipped_recipe(dir, "../recipes/llama3_2/1B_lora", &path), ST_USAGE);
    assert_int_equal(shipped_recipe(dir, "llama3_2/1B_lora.sbatch", &path), ST_USAGE);
    assert_int_equal(shipped_recipe(dir, "llama3_2/1B", &path), ST_USAGE);
    assert_int_equal(shipped_recipe("/nonexistent", "x", &path), ST_USAGE);
    assert_null(path);
    struct config_args args = {.config = "no/such", .shipped_dir = dir};
    struct config *c = NULL;
    assert_int_equal(config_load(&args, false, &c), ST_USAGE);
    args.config = TRIMPOT_SOURCE_DIR; /* a directory is no file */
    assert_int_equal(config_load(&args, false, &c), ST_USAGE);
    assert_null(c);
}

static void a_script_is_no_recipe(void **state)
{
    (void)state;
    char *path = NULL;
    static const char *const said[] = {"slurm/srun.sbatch", "slurm/srun"};
    for (int i = 0; i < 2; i++) {
        struct shipped f;
        assert_int_equal(shipped_find(dir, said[i], &f), ST_OK);
        assert_string_equal(f.name, "slurm/srun.sbatch");
        assert_true(file_exists(f.path));
        shipped_release(&f);
        assert_int_equal(shipped_recipe(dir, said[i], &path), ST_USAGE);
        assert_non_null(strstr(status_message(), "a batch script"));
        assert_non_null(strstr(status_message(), "trimpot cp slurm/srun.sbatch FILE"));
        assert_null(path);
    }
    struct shipped f;
    assert_int_equal(shipped_find(dir, "slurm/srun.sbatsh", &f), ST_USAGE);
    assert_non_null(strstr(status_message(), "did you mean slurm/srun.sbatch?"));
    assert_int_equal(shipped_find(dir, "slurm/srun.yaml", &f), ST_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_people_know),
        cmocka_unit_test(every_recipe_is_valid),
        cmocka_unit_test(lookup),
        cmocka_unit_test(a_script_is_no_recipe),
    };
    log_init(0, 1, LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
