/* bind.c — the tree of nodes read against the schema into struct config: recipe, components, defaults, values. */
#include <stdlib.h>
#include <string.h>

#include "configs/schema.h"

enum { DATASETS_MAX = 8 };

static const struct ynode *section_node(const struct bound *b, const char *section)
{
    const struct ynode *n = ynode_find(b->root, section);
    return n && ynode_is_null(n) ? NULL : n;
}

const struct ynode *bound_written(const struct bound *b, const char *path)
{
    for (int i = 0; i < schema_n; i++)
        if (!strcmp(schema[i].path, path)) return b->written[i];
    return NULL;
}

struct place bound_place(const struct bound *b, const char *key, const struct ynode **node)
{
    *node = bound_written(b, key);
    if (!*node) *node = ynode_find_path(b->root, key);
    if (*node) return (*node)->at;
    struct place file = b->root->at;
    file.line = 0;
    return file;
}

/* ---- recipe ---- */

static bool is_lora(const char *recipe) { return !strncmp(recipe, "lora", 4); }

static bool recipe_is_known(const struct bound *b, const char *name, const struct place *at)
{
    const struct row *row = schema_row("", "recipe");
    const char *names[32];
    int n = 0;
    for (; n < row->n_choices && n < 32; n++) {
        names[n] = row->choices[n].name;
        if (strcmp(names[n], name)) continue;
        if (row->choices[n].refused) problem_add(b->problems, at, "recipe %s: %s", name, row->choices[n].refused);
        return !row->choices[n].refused;
    }
    const char *near = text_nearest(name, names, n);
    if (near)
        problem_add(b->problems, at, "there is no recipe %s; did you mean %s?", text_shown(name), near);
    else
        problem_add(b->problems, at, "there is no recipe %s: full_finetune and lora_finetune are", text_shown(name));
    return false;
}

/* Without a recipe: what the model's keys say. */
static const char *inferred(const struct bound *b)
{
    const struct ynode *model = section_node(b, "model"), *path = ynode_find(model, "_component_");
    struct component c;
    if (path && path->kind == YNODE_SCALAR && component_find("model", path->text, &c))
        return c.kind == ADAPT_NONE ? "full_finetune" : "lora_finetune";
    for (int i = 0; model && model->kind == YNODE_MAP && i < model->n_child; i++) {
        const char *key = model->child[i]->key;
        if (strstr(key, "lora") || (schema_row("model", key) && strcmp(key, "init"))) return "lora_finetune";
    }
    return "full_finetune";
}

static void settle_recipe(struct bound *b, const char *given)
{
    const struct ynode *written = section_node(b, "recipe");
    const char *in_file = written && written->kind == YNODE_SCALAR ? written->text : NULL;
    struct place command_line = {.name = "recipe"};
    if (given && !recipe_is_known(b, given, &command_line)) given = NULL;
    if (in_file && !recipe_is_known(b, in_file, &written->at)) in_file = NULL;
    if (given && in_file && is_lora(given) != is_lora(in_file))
        problem_add(b->problems, &written->at, "recipe is %s, but the command line says %s: they train different things", in_file, given);
    const char *name = given ? given : in_file ? in_file : inferred(b);
    b->c->recipe_name = mem_strdup(name);
    b->c->recipe = is_lora(name) ? RECIPE_LORA : RECIPE_FULL;
    b->c->single_device = strstr(name, "_single_device") != NULL;
}

/* ---- components ---- */

static void unknown_component(const struct bound *b, const char *section, const struct ynode *n)
{
    const char *near = component_nearest(section, n->text);
    if (near)
        problem_add(b->problems, &n->at, "%s._component_: %s is not known; did you mean %s?", section, ynode_shown(n), near);
    else
        problem_add(b->problems, &n->at, "%s._component_: %s is not known (`trimpot run --help` lists them)", section, ynode_shown(n));
}

/* The component of a group; the path as written (caller owns), NULL if there is none. One that cannot be had takes any
 * argument: it is complained about once. */
static char *find_component(struct bound *b, const char *section, const struct ynode *group, struct component *out)
{
    component_absent(section, b->c->recipe, out);
    const struct ynode *n = ynode_find(group, "_component_");
    if (!n || ynode_is_null(n)) {
        const struct section *s = schema_section(section);
        if (group && group->n_child && s->component_needed)
            problem_add(b->problems, &group->key_at, "%s needs its _component_ (%s)", section, s->sentence);
        return NULL;
    }
    struct component found;
    if (n->kind != YNODE_SCALAR) {
        problem_add(b->problems, &n->at, "%s._component_ is %s: expected a dotted path", section, ynode_shown(n));
        return NULL;
    }
    bool known = component_find(section, n->text, &found);
    if (!known)
        unknown_component(b, section, n);
    else if (found.refused)
        problem_add(b->problems, &n->at, "%s._component_: %s is refused: %s", section, n->text, found.refused);
    if (!known || found.refused) {
        out->args = NULL;
        return NULL;
    }
    if (found.note) buf_printf(&b->notes, "%s%s (%s)", b->notes.len ? ", " : "", n->text, found.note);
    *out = found;
    return mem_strdup(n->text);
}

/* ---- defaults and values ---- */

static void set_defaults(const struct bound *b, const char *section, const struct component *component, void *base)
{
    char text[128];
    for (int i = 0; i < schema_n; i++) {
        const struct row *row = &schema[i];
        if (!row->size || !row_in_section(row, section) || row->derived) continue;
        const char *def = row->def_lora && b->c->recipe == RECIPE_LORA ? row->def_lora : row->def;
        if (component && component_default(component, row_key(row), text, sizeof text)) def = text;
        if (def && strcmp(row->path, "recipe")) value_read_text(row, def, base);
    }
}

static void bind_value(struct bound *b, const struct row *row, const struct ynode *n, void *base)
{
    struct problems *p = b->problems;
    if (!value_read(row, n, base, p) || row->effect == ACCEPTED || value_is(row, n, row->def)) return;
    if (row->effect == LATER)
        problem_add(p, &n->at, "%s: %s is not built yet: %s", row->path, ynode_shown(n), row->reason);
    else if (row->effect == REFUSED)
        problem_add(p, &n->at, "%s: %s is refused: %s", row->path, ynode_shown(n), row->reason);
    else
        buf_printf(&b->notes, "%s%s (%s)", b->notes.len ? ", " : "", row->path, row->reason);
}

static void unknown_key(struct bound *b, const char *section, const struct ynode *n, const struct component *component)
{
    const char *dot = *section ? "." : "", *reason = *section ? NULL : schema_foreign(n->key);
    b->problems->unknown_key = true;
    if (reason) {
        problem_add(b->problems, &n->key_at, "%s: %s", n->key, reason);
        return;
    }
    char *near = schema_suggest(section, n->key, component);
    problem_add(b->problems, &n->key_at, "unknown key %s%s%.80s%s%s%s", section, dot, n->key, near ? "; did you mean " : "",
                near ? near : "", near ? "?" : " (`trimpot run --help` lists them)");
    free(near);
}

static void bind_group(struct bound *b, const char *section, const struct ynode *group, const struct component *component, void *base,
                       bool track)
{
    for (int i = 0; i < group->n_child; i++) {
        const struct ynode *n = group->child[i];
        const struct row *row = schema_row(section, n->key);
        if (!strcmp(n->key, "_component_") && schema_section(section)->component) continue;
        if (!row) {
            unknown_key(b, section, n, component);
        } else if (!component_takes(component, n->key)) {
            b->problems->unknown_key = true;
            problem_add(b->problems, &n->key_at, "%s%s takes no %s: it takes %s", component->path ? component->path : section,
                        component->path ? "" : " without _component_", n->key, component->args);
        } else {
            bind_value(b, row, n, base);
            if (track) b->written[row - schema] = n;
        }
    }
}

static void bind_section(struct bound *b, const char *section, struct component *component, char **path)
{
    const struct ynode *group = section_node(b, section);
    struct component scratch;
    if (!component) component = &scratch;
    if (group && group->kind != YNODE_MAP) {
        problem_add(b->problems, &group->at, "%s is %s: expected a group of keys%s", section, ynode_shown(group),
                    group->kind == YNODE_SCALAR && schema_section(section)->component ? ", with the path as its _component_" : "");
        group = NULL;
    }
    char *text = find_component(b, section, group, component);
    if (path)
        *path = text;
    else
        free(text);
    set_defaults(b, section, component, b->c);
    if (group) bind_group(b, section, group, component, b->c, true);
}

/* ---- data sets ---- */

static void bind_dataset(struct bound *b, const char *section, const struct ynode *group, struct config_dataset *set,
                         struct component *component, bool track)
{
    if (group && group->kind != YNODE_MAP) {
        problem_add(b->problems, &group->at, "%s is %s: expected a group of keys", section, ynode_shown(group));
        group = NULL;
    }
    set->component = find_component(b, section, group, component);
    set->kind = (enum data_kind)component->kind;
    set_defaults(b, section, component, set);
    if (group) bind_group(b, section, group, component, set, track);
    if (set->train_on_input >= 0) set->masking = set->train_on_input ? MASK_TRAIN_ON_ALL : MASK_TRAIN_ON_ASSISTANT;
}

static void bind_datasets(struct bound *b)
{
    struct config *c = b->c;
    const struct ynode *n = section_node(b, "dataset"), *val = section_node(b, "dataset_val");
    bool list = n && n->kind == YNODE_LIST;
    c->n_dataset = list ? n->n_child : 1;
    if (list && (n->n_child == 0 || n->n_child > DATASETS_MAX)) {
        problem_add(b->problems, &n->at, "dataset is a list of %d: expected 1 to %d", n->n_child, (int)DATASETS_MAX);
        c->n_dataset = n->n_child ? DATASETS_MAX : 0;
    }
    for (int i = 0; i < c->n_dataset; i++) bind_dataset(b, "dataset", list ? n->child[i] : n, &c->dataset[i], &b->dataset[i], i == 0);
    c->has_val = val != NULL;
    if (!val) return;
    bind_dataset(b, "dataset_val", val, &c->dataset_val, &b->dataset_val, false);
}

/* ---- everything ---- */

static void bind_top(struct bound *b)
{
    set_defaults(b, "", NULL, b->c);
    for (int i = 0; i < b->root->n_child; i++) {
        const struct ynode *n = b->root->child[i];
        const struct row *row = schema_row("", n->key);
        if (schema_section(n->key) || !strcmp(n->key, "recipe")) continue;
        if (!row) {
            unknown_key(b, "", n, NULL);
            continue;
        }
        bind_value(b, row, n, b->c);
        b->written[row - schema] = n;
    }
}

/* What the class within does not take would be lost on the way to it. */
static void check_inner(struct bound *b)
{
    static const struct component outer = {.args = "optimizer_class offload_gradients minimal_size on_host host_window"};
    const struct row *row = schema_row("optimizer", "optimizer_class");
    struct component inner = {0};
    for (int i = 0; i < row->n_choices; i++)
        if (row->choices[i].value == (int)b->c->optimizer.optimizer_class) component_find("optimizer", row->choices[i].name, &inner);
    for (int i = 0; inner.path && i < schema_n; i++) {
        const char *key = row_key(&schema[i]);
        if (b->written[i] && value_is(&schema[i], b->written[i], schema[i].def)) continue; /* so a saved configuration has it */
        if (!row_in_section(&schema[i], "optimizer") || !b->written[i] || component_takes(&outer, key) || component_takes(&inner, key))
            continue;
        problem_add(b->problems, &b->written[i]->key_at, "%s, which %s steps with (optimizer_class), takes no %s: it takes %s", inner.path,
                    b->optimizer.path, key, inner.args);
    }
}

/* A class within a class brings its own decay, unless one is written: torch's Adam and SGD have none. */
static void settle_optimizer(struct bound *b)
{
    struct config *c = b->c;
    c->optimizer.kind = (enum config_optim)b->optimizer.kind;
    if (!component_takes(&b->optimizer, "optimizer_class")) return;
    c->optimizer.kind = c->optimizer.optimizer_class;
    check_inner(b);
    bool decays = c->optimizer.kind == CONFIG_ADAMW || c->optimizer.kind == CONFIG_ADAMW_8BIT;
    if (!decays && !bound_written(b, "optimizer.weight_decay")) c->optimizer.weight_decay = 0;
}

void bind_all(struct bound *b, const char *recipe)
{
    struct config *c = b->c;
    settle_recipe(b, recipe);
    bind_top(b);
    bind_section(b, "tokenizer", &b->tokenizer, &c->tokenizer.component);
    bind_datasets(b);
    bind_section(b, "model", &b->model, &c->model.component);
    bind_section(b, "checkpointer", NULL, &c->checkpointer.component);
    bind_section(b, "optimizer", &b->optimizer, &c->optimizer.component);
    struct component schedule, logger;
    bind_section(b, "lr_scheduler", &schedule, &c->schedule.component);
    bind_section(b, "loss", NULL, NULL);
    bind_section(b, "metric_logger", &logger, NULL);
    bind_section(b, "profiler", NULL, NULL);
    bind_section(b, "fsdp", NULL, NULL);
    bind_section(b, "tensor_parallel_plan", NULL, NULL);

    settle_optimizer(b);
    c->schedule.kind = (enum config_schedule)schedule.kind;
    c->log_stdout_metrics = logger.kind;
    c->tokenizer.family = b->tokenizer.family;
    c->model.family = b->model.family;
    if (b->model.size) {
        size_t n = strcspn(b->model.size, " ");
        if (n < sizeof c->model.size) memcpy(c->model.size, b->model.size, n);
    }
    c->model.adapt = c->recipe == RECIPE_FULL ? ADAPT_NONE : c->model.quantize_base ? ADAPT_QLORA : ADAPT_LORA;
}
