/* sources.c — where rows come from: local files of one kind per data set; hub names need a local copy. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/schema.h"

static bool same_text(const char *a, const char *b) { return a == b || (a && b && !strcmp(a, b)); }

static bool is_container(const char *source)
{
    return source && (!strcmp(source, "json") || !strcmp(source, "csv") || !strcmp(source, "text"));
}

static const char *container_of(const char *file)
{
    static const struct {
        const char *suffix, *source;
    } of[] = {{".json", "json"}, {".jsonl", "json"}, {".ndjson", "json"}, {".csv", "csv"}, {".tsv", "csv"}, {".txt", "text"}};
    const char *dot = strrchr(file, '.');
    for (size_t i = 0; dot && i < sizeof of / sizeof *of; i++)
        if (!strcasecmp(dot, of[i].suffix)) return of[i].source;
    return NULL;
}

static void settle_source(const struct bound *b, struct config_dataset *set, const char *section)
{
    const char *found = NULL;
    char key[64];
    snprintf(key, sizeof key, "%s.data_files", section);
    for (int i = 0; i < set->n_data_files; i++) {
        const char *source = is_container(set->source) ? set->source : container_of(set->data_files[i]);
        const struct ynode *n;
        struct place at = bound_place(b, key, &n);
        if (!source) {
            problem_add(b->problems, &at, "%s: %s has none of the endings .json .jsonl .csv .tsv .txt; say %s.source: json, csv or text",
                        key, text_shown(set->data_files[i]), section);
            return;
        }
        if (found && strcmp(found, source)) {
            problem_add(b->problems, &at, "%s mixes %s and %s files; make dataset a list of groups", key, found, source);
            return;
        }
        found = source;
    }
    if (found && !same_text(found, set->source)) {
        free(set->source);
        set->source = mem_strdup(found);
    }
}

static void need_data(const struct bound *b, const struct config_dataset *set, const char *section)
{
    char key[64];
    const struct ynode *n;
    if (set->n_data_files || b->no_rows || b->problems->unknown_key) return;
    snprintf(key, sizeof key, "%s", section);
    struct place at = bound_place(b, key, &n);
    if (set->source && !is_container(set->source))
        problem_add(b->problems, &at, "%s: %s is a hub data set and nothing is downloaded: name a local copy with %s.data_files%s", section,
                    text_shown(set->source), section, strcmp(section, "dataset") ? "" : " or --data FILE");
    else
        problem_add(b->problems, &at, "%s.data_files is missing: name the file with the rows%s", section,
                    strcmp(section, "dataset") ? "" : ", or pass --data FILE");
}

/* Validation rows come from the training files unless it names its own: a --data FILE serves both splits. */
static void share_files(struct config *c)
{
    struct config_dataset *t = &c->dataset[0], *v = &c->dataset_val;
    if (!c->has_val || v->n_data_files || c->n_dataset != 1 || !t->n_data_files || is_container(v->source)) return;
    if (v->component && !same_text(v->component, t->component)) return;
    v->data_files = mem_alloc((size_t)t->n_data_files * sizeof *v->data_files);
    for (int i = 0; i < t->n_data_files; i++) v->data_files[i] = mem_strdup(t->data_files[i]);
    v->n_data_files = t->n_data_files;
}

void sources_settle(const struct bound *b)
{
    struct config *c = b->c;
    for (int i = 0; i < c->n_dataset; i++) {
        char section[32] = "dataset";
        if (c->n_dataset > 1) snprintf(section, sizeof section, "dataset.%d", i);
        need_data(b, &c->dataset[i], section);
        settle_source(b, &c->dataset[i], section);
    }
    share_files(c);
    if (!c->has_val) return;
    need_data(b, &c->dataset_val, "dataset_val");
    settle_source(b, &c->dataset_val, "dataset_val");
}
