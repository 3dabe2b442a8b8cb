/* The verbs around configurations: ls, cp, cat, validate; and version. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "configs/shipped.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "launcher/verbs.h"

enum { SHIPPED_LIMIT = 1 << 20 }; /* bytes; ours have a few hundred, or thousand */

/* What a shipped file says of itself: its first line, when that is a comment; a script's follows the #! line. */
static char *first_comment(const char *path)
{
    char *text = NULL, *line = NULL;
    if (file_read(path, SHIPPED_LIMIT, &text, NULL) == ST_OK) {
        const char *from = strncmp(text, "#!", 2) == 0 ? text + strcspn(text, "\n") : text;
        from += *from == '\n';
        if (*from == '#') {
            from += 1 + strspn(from + 1, " ");
            line = mem_printf("%.*s", (int)strcspn(from, "\r\n"), from);
        }
    }
    free(text);
    return line;
}

static status run_ls(const struct cli *c, struct comm *comm)
{
    (void)comm;
    int n = 0, shown = 0;
    struct shipped *files = shipped_list(c->shipped_dir, &n);
    const char *prefix = c->n_args ? c->args[0] : "";
    for (int i = 0; i < n; i++) {
        if (strncmp(files[i].name, prefix, strlen(prefix)) != 0) continue;
        char *about = first_comment(files[i].path);
        printf(about ? "%-44s %s\n" : "%s\n", files[i].name, about);
        free(about);
        shown++;
    }
    shipped_free(files, n);
    if (n == 0) FAIL(ST_IO, "%s: no recipes there; keep the binary beside its source tree or its share folder", c->shipped_dir);
    if (shown == 0) FAIL(ST_USAGE, "argument 2 ('%s'): no recipe's name begins so; `trimpot ls` lists all %d", prefix, n);
    return ST_OK;
}

static status run_cat(const struct cli *c, struct comm *comm)
{
    (void)comm;
    struct shipped f;
    char *text = NULL;
    size_t bytes = 0;
    TRY(shipped_find(c->shipped_dir, c->args[0], &f));
    status st = file_read(f.path, SHIPPED_LIMIT, &text, &bytes);
    if (!st) fwrite(text, 1, bytes, stdout);
    shipped_release(&f);
    free(text);
    return st;
}

/* A folder as the target means a file there, of the same name. */
static char *target_path(const char *target, const char *from)
{
    const char *slash = target[0] && target[strlen(target) - 1] == '/' ? "" : "/";
    return file_is_dir(target) ? mem_printf("%s%s%s", target, slash, strrchr(from, '/') + 1) : mem_strdup(target);
}

static status copy(const struct cli *c, const struct shipped *f, const char *to)
{
    if (file_exists(to) && !c->force) FAIL(ST_USAGE, "argument 3 ('%s'): exists; choose another name, or --force replaces it", to);
    TRY(file_copy(f->path, to));
    struct buf word = {0};
    buf_shell_path(&word, to);
    log_note("copied to %s; edit it, then: %s %s", to, shipped_command(f), word.data);
    buf_release(&word);
    return ST_OK;
}

static status run_cp(const struct cli *c, struct comm *comm)
{
    (void)comm;
    struct shipped f;
    TRY(shipped_find(c->shipped_dir, c->args[0], &f));
    char *to = target_path(c->args[1], f.path);
    status st = copy(c, &f, to);
    free(to);
    shipped_release(&f);
    return st;
}

static status run_validate(const struct cli *c, struct comm *comm)
{
    (void)comm;
    const char *file = c->n_args ? c->args[0] : c->config;
    if (c->n_args && c->config) FAIL(ST_USAGE, "trimpot validate: '%s' and --config %s: one of them", c->args[0], c->config);
    struct config_args args = {.config = file,
                               .model = c->model,
                               .data = c->data,
                               .output = c->output,
                               .overrides = c->overrides,
                               .override_at = c->override_at,
                               .n_overrides = c->n_overrides,
                               .shipped_dir = c->shipped_dir};
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
        printf("{\"version\":\"%s\",\"build\":\"%s\",\"ranks\":%d,\"comm\":\"%s\"}\n", TRIMPOT_VERSION, build, comm->size, comm->fn->name);
    else
        printf("trimpot %s (build %s)\n", TRIMPOT_VERSION, build);
    return ST_OK;
}

const struct verb verb_ls = {
    .name = "ls",
    .line = "list the shipped recipes and batch scripts",
    .arguments = "[PREFIX]",
    .help = "examples:\n"
            "  trimpot ls\n"
            "  trimpot ls llama3_2/\n"
            "  trimpot ls slurm/\n",
    .max_args = 1,
    .run = run_ls,
};

const struct verb verb_cp = {
    .name = "cp",
    .line = "copy a shipped recipe or batch script to a file of your own",
    .arguments = "NAME FILE_OR_DIR",
    .help = "examples:\n"
            "  trimpot cp llama3_2/1B_lora my.yaml\n"
            "  trimpot run lora_finetune --config my.yaml\n"
            "\n"
            "  trimpot cp slurm/srun.sbatch my.sbatch\n"
            "  sbatch my.sbatch\n",
    .options = CLI_FORCE,
    .min_args = 2,
    .max_args = 2,
    .run = run_cp,
};

const struct verb verb_cat = {
    .name = "cat",
    .line = "print a shipped recipe or batch script",
    .arguments = "NAME",
    .help = "examples:\n"
            "  trimpot cat llama3_2/1B_lora\n"
            "  trimpot cat slurm/mpirun.sbatch\n",
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
