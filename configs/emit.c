/* emit.c — the schema turned outward: the effective configuration, what changed since, and the reference page. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/scalar.h"
#include "configs/schema.h"

static bool is_written(const struct row *row) { return row->size && !row->derived && row->effect == ACCEPTED; }

/* The component a section reads back to; NULL for the one it has without. */
static const char *component_of(const struct config *c, const char *section, const void *base)
{
    if (!strncmp(section, "dataset", 7)) return ((const struct config_dataset *)base)->component;
    if (!strcmp(section, "tokenizer")) return c->tokenizer.component;
    if (!strcmp(section, "model")) return c->model.component;
    if (!strcmp(section, "checkpointer")) return c->checkpointer.component;
    if (!strcmp(section, "optimizer")) return c->optimizer.component;
    if (!strcmp(section, "lr_scheduler")) return c->schedule.component;
    if (!strcmp(section, "metric_logger") && c->log_stdout_metrics) return "torchtune.training.metric_logging.StdoutLogger";
    return NULL;
}

/* Keys of one section that its component takes. */
static bool belongs(const struct config *c, const struct row *row, const char *section, const void *base)
{
    if (!is_written(row) || !row_in_section(row, section)) return false;
    if (!*section) return true;
    struct component component;
    const char *path = component_of(c, section, base);
    if (!path || !component_find(section, path, &component)) component_absent(section, c->recipe, &component);
    if (!strcmp(section, "lr_scheduler") && !path) return false;
    if (!strcmp(section, "model") && c->recipe == RECIPE_FULL && strcmp(row_key(row), "init")) return false;
    return component_takes(&component, row_key(row));
}

static void write_group(const struct config *c, const char *section, const void *base, int indent, bool item, struct buf *out)
{
    const char *path = component_of(c, section, base);
    int lines = 0;
    if (path) {
        buf_printf(out, "%*s%s_component_: ", item ? indent - 2 : indent, "", item ? "- " : "");
        scalar_quote(path, out);
        buf_text(out, "\n");
        lines++;
    }
    for (int i = 0; i < schema_n; i++) {
        if (!belongs(c, &schema[i], section, base)) continue;
        bool first = item && !lines++;
        buf_printf(out, "%*s%s%s: ", first ? indent - 2 : indent, "", first ? "- " : "", row_key(&schema[i]));
        value_write(&schema[i], base, out);
        buf_text(out, "\n");
    }
}

static void write_datasets(const struct config *c, struct buf *out)
{
    buf_text(out, "dataset:\n");
    for (int i = 0; i < c->n_dataset; i++) write_group(c, "dataset", &c->dataset[i], c->n_dataset > 1 ? 4 : 2, c->n_dataset > 1, out);
}

static void write_section(const struct config *c, const char *section, struct buf *out)
{
    struct buf group = {0};
    if (!strcmp(section, "dataset")) {
        write_datasets(c, out);
        return;
    }
    bool val = !strcmp(section, "dataset_val");
    if (val && !c->has_val) return;
    write_group(c, section, val ? (const void *)&c->dataset_val : c, *section ? 2 : 0, false, &group);
    if (group.len) buf_printf(out, "%s%s%s", section, *section ? ":\n" : "", group.data);
    buf_release(&group);
}

char *config_text(const struct config *c)
{
    struct buf out = {0};
    buf_text(&out, "# The effective configuration: every key that has an effect, defaults included.\n");
    for (int i = 0; i < sections_n; i++) write_section(c, sections[i].name, &out);
    return out.data;
}

/* ---- what changed ---- */

static void compare(const struct row *row, const char *prefix, const void *was, const void *is, struct buf *out, bool *maths)
{
    struct buf old = {0}, new = {0};
    if (!row->size || row->derived || row->resume == RESUME_FREE) return;
    value_write(row, was, &old);
    value_write(row, is, &new);
    if (strcmp(old.data, new.data)) {
        buf_printf(out, "%s%s: %s -> %s\n", prefix, row_key(row), old.data, new.data);
        if (row->resume == RESUME_MATHS) *maths = true;
    }
    buf_release(&old);
    buf_release(&new);
}

static void compare_number(const char *what, int was, int is, struct buf *out, bool *maths)
{
    if (was == is) return;
    buf_printf(out, "%s: %d -> %d\n", what, was, is);
    *maths = true;
}

static void compare_component(const char *key, const char *was, const char *is, bool counts, struct buf *out, bool *maths)
{
    if ((!was && !is) || (was && is && !strcmp(was, is))) return;
    buf_printf(out, "%s._component_: %s -> %s\n", key, was ? was : "null", is ? is : "null");
    if (counts) *maths = true;
}

char *config_diff(const char *old_yaml, const struct config *now, bool *changes_maths)
{
    struct config *was = NULL;
    struct buf out = {0};
    char prefix[64];
    *changes_maths = false;
    if (config_parse_text("the old configuration", old_yaml, strlen(old_yaml), NULL, &was)) {
        *changes_maths = true;
        return mem_strdup(status_message());
    }
    for (int i = 0; i < schema_n; i++) {
        const char *dot = strchr(schema[i].path, '.');
        snprintf(prefix, sizeof prefix, "%.*s", dot ? (int)(dot - schema[i].path + 1) : 0, schema[i].path);
        if (!row_is_dataset(&schema[i])) compare(&schema[i], prefix, was, now, &out, changes_maths);
    }
    compare_number("recipe", (int)was->recipe, (int)now->recipe, &out, changes_maths);
    compare_number("number of data sets", was->n_dataset, now->n_dataset, &out, changes_maths);
    for (int k = 0; k < now->n_dataset && k < was->n_dataset; k++) {
        snprintf(prefix, sizeof prefix, now->n_dataset > 1 ? "dataset.%d." : "dataset.", k);
        for (int i = 0; i < schema_n; i++)
            if (row_is_dataset(&schema[i])) compare(&schema[i], prefix, &was->dataset[k], &now->dataset[k], &out, changes_maths);
        compare_number("kind of data", (int)was->dataset[k].kind, (int)now->dataset[k].kind, &out, changes_maths);
    }
    compare_component("optimizer", was->optimizer.component, now->optimizer.component, was->optimizer.kind != now->optimizer.kind, &out,
                      changes_maths);
    compare_component("lr_scheduler", was->schedule.component, now->schedule.component, was->schedule.kind != now->schedule.kind, &out,
                      changes_maths);
    compare_component("tokenizer", was->tokenizer.component, now->tokenizer.component, false, &out, changes_maths);
    compare_component("model", was->model.component, now->model.component, false, &out, changes_maths);
    config_free(was);
    return out.data;
}

/* ---- the reference ---- */

/* Words from column `indent` to 100. */
static void add_wrapped(const char *text, int indent, struct buf *out)
{
    enum { WIDTH = 100 };
    int column = 0;
    for (; *text; text += strspn(text, " ")) {
        int n = (int)strcspn(text, " ");
        if (column && column + 1 + n <= WIDTH) {
            buf_text(out, " ");
            column++;
        } else {
            buf_printf(out, "%s%*s", column ? "\n" : "", indent, "");
            column = indent;
        }
        buf_add(out, text, (size_t)n);
        text += n;
        column += n;
    }
    buf_text(out, "\n");
}

static void add_row(const struct row *row, struct buf *out)
{
    static const char *const word[] = {[ACCEPTED] = NULL, [NO_EFFECT] = "No effect", [LATER] = "Not built yet", [REFUSED] = "Refused"};
    struct buf head = {0}, line = {0};
    value_expects(row, &head);
    buf_printf(out, "  %s\n", row->path);
    buf_printf(&line, "%s", row->sentence);
    if (word[row->effect]) buf_printf(&line, " %s: %s.", word[row->effect], row->reason);
    add_wrapped(line.data, 6, out);
    buf_clear(&line);
    buf_printf(&line, "%s", head.data);
    if (row->required)
        buf_text(&line, "; required");
    else if (row->def)
        buf_printf(&line, "; default %s", row->def);
    if (row->def_lora) buf_printf(&line, ", for LoRA %s", row->def_lora);
    add_wrapped(line.data, 6, out);
    buf_release(&head);
    buf_release(&line);
}

char *config_reference(void)
{
    struct buf out = {0};
    for (int s = 0; s < sections_n; s++) {
        buf_printf(&out, "%s%s\n  %s.\n\n", s ? "\n" : "", s ? sections[s].name : "top level", sections[s].sentence);
        if (sections[s].component && strcmp(sections[s].name, "dataset_val")) {
            buf_text(&out, "  _component_\n");
            component_list(sections[s].name, &out);
        }
        for (int i = 0; i < schema_n && strcmp(sections[s].name, "dataset_val"); i++)
            if (row_in_section(&schema[i], sections[s].name)) add_row(&schema[i], &out);
    }
    return out.data;
}
