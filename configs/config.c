/* config.c — from a command line to a struct config: file, overrides, references, schema, rules, in that order. */
#include "configs/config.h"

#include <stdlib.h>
#include <string.h>

#include "configs/schema.h"
#include "configs/shipped.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"

static void release_rows(const char *section, void *base)
{
    for (int i = 0; i < schema_n; i++)
        if (schema[i].size && row_in_section(&schema[i], section)) value_free(&schema[i], base);
}

static void release_dataset(struct config_dataset *set)
{
    release_rows("dataset", set);
    free(set->component);
}

void config_free(struct config *c)
{
    if (!c) return;
    for (int i = 0; i < sections_n; i++)
        if (strncmp(sections[i].name, "dataset", 7)) release_rows(sections[i].name, c);
    for (int i = 0; i < c->n_dataset; i++) release_dataset(&c->dataset[i]);
    release_dataset(&c->dataset_val);
    free(c->tokenizer.component);
    free(c->model.component);
    free(c->checkpointer.component);
    free(c->optimizer.component);
    free(c->schedule.component);
    free(c->source);
    free(c->written);
    free(c);
}

/* The configuration is saved as YAML and in checkpoints as JSON: neither can hold other bytes than UTF-8. */
static void apply_setting(struct ynode *root, const struct config_setting *s, struct problems *p)
{
    struct place at = {.name = s->said};
    size_t bad;
    if (!s->value) return;
    if (text_is_utf8(s->value, strlen(s->value), &bad)) {
        override_set(root, s->key, ynode_literal(s->value, at), at, p);
        return;
    }
    problem_add(p, &at, "the name is not UTF-8 at byte %zu; rename it, or make a link to it (ln -s)", bad);
    p->unknown_key = true;
}

/* Options stand for keys, and give way to a key=value after them. */
static void apply_short_form(struct ynode *root, const struct config_args *args, struct problems *p)
{
    const struct config_setting forms[] = {{"checkpointer.checkpoint_dir", args->model, "--model"},
                                           {"dataset.data_files", args->data, "--data"},
                                           {"output_dir", args->output, "--output"}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) apply_setting(root, &forms[i], p);
    for (int i = 0; i < args->n_settings; i++) apply_setting(root, &args->settings[i], p);
}

static bool from_command_line(const struct ynode *n) { return n->at.argument != 0 || n->key_at.argument != 0; }

static bool is_file_of(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    return !strncmp(path, dir, n) && path[n] == '/' && file_exists(path);
}

/* A model brings its tokenizer: beside --model the file's tokenizer.path, a place on the machine of whoever wrote it, gives
 * way to the model's directory, as its checkpoint_dir does; merges belong to that path, and so go with it. Only the command
 * line itself can say otherwise. After interpolation, so that a path in terms of another is judged as what it is. */
static void follow_model(struct ynode *root, const struct config_args *args, bool notes)
{
    struct ynode *group = ynode_find(root, "tokenizer"), *specials = ynode_find(group, "special_tokens_path");
    const char *key = ynode_find(group, "vocab_path") && !ynode_find(group, "path") ? "vocab_path" : "path";
    const char *merges_key = ynode_find(group, "merges_path") ? "merges_path" : "merges_file";
    struct ynode *path = ynode_find(group, key), *merges = ynode_find(group, merges_key);
    struct place at = {.name = "--model"};
    if (!args->model || !path || path->kind != YNODE_SCALAR || ynode_is_null(path) || from_command_line(path)) return;
    if (is_file_of(path->text, args->model)) return;
    if (notes && strcmp(path->text, args->model))
        log_note("--model %s brings its own tokenizer: the file's tokenizer.%s (%s) is not used; tokenizer.path=… beside "
                 "--model would be",
                 text_shown(args->model), key, text_shown(path->text));
    ynode_put(group, key, ynode_literal(args->model, at), at);
    if (merges && !from_command_line(merges)) ynode_drop(group, merges_key);
    bool lost = specials && specials->kind == YNODE_SCALAR && !ynode_is_null(specials) && !from_command_line(specials) &&
                !file_exists(specials->text);
    if (!lost) return;
    if (notes) log_note("tokenizer.special_tokens_path: %s does not exist; left out", text_shown(specials->text));
    ynode_drop(group, "special_tokens_path");
}

/* Values that follow from others, once nothing is wrong with them. */
static void settle(struct bound *b)
{
    struct config *c = b->c;
    c->seed_set = c->seed >= 0;
    c->device_set = c->device != DEVICE_AUTO;
    if (c->enable_activation_checkpointing) c->ac_mode = AC_FULL;
    if (c->ac_mode == AC_AUTO) c->ac_mode = AC_NONE;
    c->enable_activation_checkpointing = c->ac_mode == AC_FULL;
    if (!bound_written(b, "torchtune_templates")) c->torchtune_templates = c->tokenizer.component != NULL;
    if (!c->checkpointer.output_dir) c->checkpointer.output_dir = mem_strdup(c->output_dir);
    if (c->batch_size_val < 0) c->batch_size_val = c->batch_size;
    c->written = mem_alloc((size_t)schema_n * sizeof *c->written);
    for (int i = 0; i < schema_n; i++) c->written[i] = b->written[i] && !ynode_is_null(b->written[i]);
}

static status conclude(struct problems *p)
{
    struct buf lines = {0};
    if (!p->count) return ST_OK;
    problems_write(p, &lines);
    if (p->count == 1)
        status_fail(ST_USAGE, "%s", lines.data);
    else if (p->count <= PROBLEMS_SHOWN)
        status_fail(ST_USAGE, "%d errors in the configuration:\n%s", p->count, lines.data);
    else
        status_fail(ST_USAGE, "%d errors in the configuration, the first %d:\n%s", p->count, (int)PROBLEMS_SHOWN, lines.data);
    buf_release(&lines);
    return ST_USAGE;
}

/* text == NULL: no file. */
static status resolve(const char *name, const char *text, size_t bytes, const struct config_args *args, bool require_paths, bool notes,
                      struct config **out)
{
    static const struct config_args none;
    struct problems problems = {0};
    struct bound b = {.problems = &problems, .no_rows = args && args->no_rows};
    struct place origin = {.name = name};
    if (!args) args = &none;
    *out = NULL;
    struct ynode *root = text ? ynode_read(text, bytes, origin, &problems) : ynode_new(YNODE_MAP, origin);
    if (root) {
        apply_short_form(root, args, &problems);
        for (int i = 0; i < args->n_overrides; i++)
            override_apply(root, args->overrides[i], args->override_at ? args->override_at[i] : i + 1, &problems);
        interpolate(root, &problems);
        follow_model(root, args, notes);
        b.root = root;
        b.c = mem_alloc(sizeof *b.c);
        b.written = mem_alloc((size_t)schema_n * sizeof *b.written);
        bind_all(&b, args->recipe);
        if (name) b.c->source = mem_strdup(name);
        rules_check(&b);
        if (require_paths) rules_check_paths(&b);
        settle(&b);
    }
    if (notes && b.notes.len && !problems.count) log_note("accepted without effect: %s", b.notes.data);
    if (notes && problems.left_out.len && !problems.count) log_note("left out of the file: %s", problems.left_out.data);
    status st = conclude(&problems);
    if (st)
        config_free(b.c);
    else
        *out = b.c;
    free(b.written);
    ynode_free(root);
    buf_release(&b.notes);
    problems_release(&problems);
    return st;
}

status config_parse_text(const char *name, const char *text, size_t bytes, const struct config_args *args, struct config **out)
{
    return resolve(name, text, bytes, args, false, false, out);
}

/* A path to a file, or the name of a shipped recipe. */
static status find_config(const struct config_args *args, char **path)
{
    if (file_exists(args->config) && !file_is_dir(args->config)) {
        *path = mem_strdup(args->config);
        return ST_OK;
    }
    return shipped_recipe(args->shipped_dir, args->config, path);
}

status config_load(const struct config_args *args, bool require_paths, struct config **out)
{
    char *path = NULL, *text = NULL;
    size_t bytes = 0;
    *out = NULL;
    if (!args->config) return resolve(NULL, NULL, 0, args, require_paths, true, out);
    status st = find_config(args, &path);
    if (!st) st = file_read(path, YNODE_MAX_BYTES, &text, &bytes);
    if (!st) st = resolve(path, text, bytes, args, require_paths, true, out);
    free(text);
    free(path);
    return st;
}

/* ---- what was written, and what if it were not so -------------------------------------------------------------------------- */

bool config_wrote(const struct config *c, const char *path)
{
    for (int i = 0; i < schema_n; i++)
        if (!strcmp(schema[i].path, path)) return c->written[i];
    return false;
}

char *config_value(const struct config *c, const char *path)
{
    struct buf text = {0};
    for (int i = 0; i < schema_n && !text.data; i++)
        if (!strcmp(schema[i].path, path) && schema[i].size) value_write(&schema[i], c, &text);
    return text.data;
}

status config_with(const struct config *c, const char *settings, struct config **out)
{
    enum { MOST = 24 };
    char *copy = mem_strdup(settings), *rest = copy, *word, *text = config_text(c);
    const char *overrides[MOST];
    struct config_args args = {.overrides = overrides, .no_rows = true};
    while ((word = strsep(&rest, " ")) && args.n_overrides < MOST)
        if (*word) overrides[args.n_overrides++] = word;
    status st = resolve("the configuration", text, strlen(text), &args, false, false, out);
    if (!st) {
        memcpy((*out)->written, c->written, (size_t)schema_n * sizeof *c->written);
        free((*out)->source);
        (*out)->source = c->source ? mem_strdup(c->source) : NULL;
    }
    free(text);
    free(copy);
    return st;
}
