/* The verbs around configurations: ls, cp, cat, validate; and version. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "launcher/verbs.h"

enum { RECIPE_LIMIT = 1 << 20 }; /* bytes; ours have a few hundred */

/* What a recipe says of itself: its first line, when that is a comment. */
static char *first_comment(const char *recipes_dir, const char *name)
{
    char *path = NULL, *text = NULL, *line = NULL;
    if (config_recipe_path(recipes_dir, name, &path) == ST_OK && file_read(path, RECIPE_LIMIT, &text, NULL) == ST_OK &&
        text[0] == '#') {
        char *from = text + 1 + strspn(text + 1, " ");
        from[strcspn(from, "\r\n")] = 0;
        line = mem_strdup(from);
    }
    free(path);
    free(text);
    return line;
}

static status run_ls(const struct cli *c, struct comm *comm)
{
    (void)comm;
    int n = 0;
    char **names = config_recipes(c->recipes_dir, &n);
    const char *prefix = c->n_args ? c->args[0] : "";
    int shown = 0;
    for (int i = 0; i < n; i++) {
        if (strncmp(names[i], prefix, strlen(prefix)) == 0) {
            char *about = first_comment(c->recipes_dir, names[i]);
            printf(about ? "%-44s %s\n" : "%s\n", names[i], about);
            free(about);
            shown++;
        }
        free(names[i]);
    }
    free(names);
    if (n == 0) FAIL(ST_IO, "%s: no recipes there; keep the binary beside its source tree or its share folder", c->recipes_dir);
    if (shown == 0) FAIL(ST_USAGE, "argument 2 ('%s'): no recipe's name begins so; `trimpot ls` lists all %d", prefix, n);
    return ST_OK;
}

static status run_cat(const struct cli *c, struct comm *comm)
{
    (void)comm;
    char *path = NULL, *text = NULL;
    size_t bytes = 0;
    status st = config_recipe_path(c->recipes_dir, c->args[0], &path);
    if (!st) st = file_read(path, RECIPE_LIMIT, &text, &bytes);
    if (!st) fwrite(text, 1, bytes, stdout);
    free(path);
    free(text);
    return st;
}

/* A folder as the target, or a name without .yaml, means a file there. */
static char *target_path(const char *target, const char *recipe)
{
    const char *slash = strrchr(recipe, '/');
    if (file_is_dir(target)) return mem_printf("%s/%s.yaml", target, slash ? slash + 1 : recipe);
    return mem_strdup(target);
}

static status run_cp(const struct cli *c, struct comm *comm)
{
    (void)comm;
    char *from = NULL, *to = target_path(c->args[1], c->args[0]);
    status st = config_recipe_path(c->recipes_dir, c->args[0], &from);
    if (!st && file_exists(to) && !c->force)
        st = status_fail(ST_USAGE, "argument 3 ('%s'): exists; choose another name, or --force replaces it", to);
    if (!st) st = file_copy(from, to);
    struct buf word = {0};
    buf_shell_path(&word, to);
    if (!st) log_note("copied to %s; edit it, then: trimpot validate %s", to, word.data);
    buf_release(&word);
    free(from);
    free(to);
    return st;
}

static status run_validate(const struct cli *c, struct comm *comm)
{
    (void)comm;
    const char *file = c->n_args ? c->args[0] : c->config;
    if (c->n_args && c->config) FAIL(ST_USAGE, "trimpot validate: '%s' and --config %s: one of them", c->args[0], c->config);
    struct config_args args = {.config = file, .model = c->model, .data = c->data, .output = c->output,
                               .overrides = c->overrides, .override_at = c->override_at, .n_overrides = c->n_overrides,
                               .recipes_dir = c->recipes_dir};
    struct config *config = NULL;
    TRY(config_load(&args, false, &config));
    if (c->print_config) {
        char *text = config_text(config);
        fputs(text, stdout);
        free(text);
    } else {
        printf("%s: valid\n", file ? file : "command line");
    }
    config_free(config);
    return ST_OK;
}

static status run_version(const struct cli *c, struct comm *comm)
{
    const char *build = *TRIMPOT_BUILD_ID ? TRIMPOT_BUILD_ID : "unknown";
    if (comm->rank != 0) return ST_OK;
    if (c->json)
        printf("{\"version\":\"%s\",\"build\":\"%s\",\"ranks\":%d,\"comm\":\"%s\"}\n", TRIMPOT_VERSION, build, comm->size,
               comm->fn->name);
    else
        printf("trimpot %s (build %s)\n", TRIMPOT_VERSION, build);
    return ST_OK;
}

const struct verb verb_ls = {
    .name = "ls",
    .line = "list the shipped recipes",
    .arguments = "[PREFIX]",
    .help = "examples:\n"
            "  trimpot ls\n"
            "  trimpot ls llama3_2/\n",
    .max_args = 1,
    .run = run_ls,
};

const struct verb verb_cp = {
    .name = "cp",
    .line = "copy a shipped recipe to a file of your own",
    .arguments = "RECIPE FILE_OR_DIR",
    .help = "examples:\n"
            "  trimpot cp llama3_2/1B_lora my.yaml\n"
            "  trimpot run lora_finetune --config my.yaml\n",
    .options = CLI_FORCE,
    .min_args = 2,
    .max_args = 2,
    .run = run_cp,
};

const struct verb verb_cat = {
    .name = "cat",
    .line = "print a shipped recipe",
    .arguments = "RECIPE",
    .help = "examples:\n"
            "  trimpot cat llama3_2/1B_lora\n",
    .min_args = 1,
    .max_args = 1,
    .run = run_cat,
};

const struct verb verb_validate = {
    .name = "validate",
    .line = "check a configuration without running it",
    .arguments = "FILE_OR_RECIPE [key=value …]",
    .help = "Names every error of the file and of the command line, each with its place and the nearest valid key.\n"
            "\n"
            "examples:\n"
            "  trimpot validate my.yaml\n"
            "  trimpot validate llama3_2/1B_lora --model DIR --data rows.jsonl batch_size=8 --print-config\n",
    .options = CLI_CONFIG | CLI_MODEL | CLI_DATA | CLI_OUTPUT | CLI_PRINT_CONFIG,
    .max_args = 1,
    .overrides = true,
    .paths = true,
    .run = run_validate,
};

const struct verb verb_version = {
    .name = "version",
    .line = "print version and build",
    .arguments = "",
    .help = "examples:\n"
            "  trimpot version\n"
            "  mpirun -n 2 trimpot version --json\n",
    .options = CLI_JSON,
    .every_rank = true,
    .run = run_version,
};
