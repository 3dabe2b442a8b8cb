/* yaml.c — libyaml events to nodes, and the ways YAML can be hostile refused. */
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "configs/ynode.h"

struct reader {
    yaml_parser_t yaml;
    struct place origin;
    struct problems *problems;
    int nodes;
    bool stop; /* reported, nothing more can be read */
};

static struct place mark_place(const struct reader *r, const yaml_mark_t *mark)
{
    struct place at = r->origin;
    if (!at.argument) {
        at.line = (int)mark->line + 1;
        at.column = (int)mark->column + 1;
    }
    return at;
}

static bool next_event(struct reader *r, yaml_event_t *event)
{
    if (yaml_parser_parse(&r->yaml, event)) return true;
    const yaml_mark_t *mark = r->yaml.error == YAML_READER_ERROR ? NULL : &r->yaml.problem_mark;
    struct place at = mark ? mark_place(r, mark) : r->origin;
    if (mark)
        problem_add(r->problems, &at, "not YAML: %s%s%s%s", r->yaml.context ? r->yaml.context : "", r->yaml.context ? ": " : "",
                    r->yaml.problem ? r->yaml.problem : "cannot be parsed", at.argument ? " (put quotes around the value)" : "");
    else
        problem_add(r->problems, &at, "not YAML: %s at byte %zu", r->yaml.problem ? r->yaml.problem : "unreadable", r->yaml.problem_offset);
    r->stop = true;
    return false;
}

/* Anchors and tags change what a reader sees elsewhere; the schema needs neither. */
static void refuse_decoration(struct reader *r, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (event->type == YAML_SCALAR_EVENT) anchor = event->data.scalar.anchor, tag = event->data.scalar.tag;
    if (event->type == YAML_SEQUENCE_START_EVENT) anchor = event->data.sequence_start.anchor, tag = event->data.sequence_start.tag;
    if (event->type == YAML_MAPPING_START_EVENT) anchor = event->data.mapping_start.anchor, tag = event->data.mapping_start.tag;
    struct place at = mark_place(r, &event->start_mark);
    if (anchor) problem_add(r->problems, &at, "anchors (&%.40s) are not used here: refer to a value as ${its.key}", (const char *)anchor);
    if (tag) problem_add(r->problems, &at, "tags (%.60s) are not used here: the type of a value comes from its key", (const char *)tag);
}

static struct ynode *read_value(struct reader *r, yaml_event_t *event, int depth);

static struct ynode *read_scalar(struct reader *r, const yaml_event_t *event)
{
    struct place at = mark_place(r, &event->start_mark);
    const char *text = (const char *)event->data.scalar.value;
    size_t n = event->data.scalar.length;
    if (strlen(text) != n) {
        problem_add(r->problems, &at, "the text contains a NUL byte");
        r->stop = true;
    } else if (n > YNODE_MAX_TEXT) {
        problem_add(r->problems, &at, "the text is longer than %d bytes", (int)YNODE_MAX_TEXT);
        r->stop = true;
    }
    return ynode_scalar(text, event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE, at);
}

static void read_list(struct reader *r, struct ynode *list, int depth)
{
    for (yaml_event_t event; !r->stop && next_event(r, &event); yaml_event_delete(&event)) {
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return;
        }
        struct ynode *value = read_value(r, &event, depth + 1);
        if (value) ynode_append(list, value);
    }
}

static void add_pair(struct reader *r, struct ynode *map, const struct ynode *key, struct ynode *value)
{
    struct ynode *first = ynode_find(map, key->text);
    if (!strcmp(key->text, "<<") && key->plain) {
        problem_add(r->problems, &key->at, "merge keys (<<) are not used here: write the keys out");
    } else if (first) {
        problem_add(r->problems, &key->at, "%s is given twice, first in line %d: keep one", text_shown(key->text), first->key_at.line);
    } else {
        ynode_put(map, key->text, value, key->at);
        return;
    }
    ynode_free(value);
}

static void read_map(struct reader *r, struct ynode *map, int depth)
{
    struct ynode *key = NULL;
    for (yaml_event_t event; !r->stop && next_event(r, &event); yaml_event_delete(&event)) {
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            break;
        }
        struct ynode *node = read_value(r, &event, depth + 1);
        if (!node) continue;
        if (!key && node->kind != YNODE_SCALAR) {
            problem_add(r->problems, &node->at, "a key must be a single word, not %s", ynode_shown(node));
            r->stop = true;
            ynode_free(node);
        } else if (!key) {
            key = node;
        } else {
            add_pair(r, map, key, node);
            ynode_free(key);
            key = NULL;
        }
    }
    ynode_free(key);
}

/* NULL after an alias (reported; a null stands in for it, so that keys and values stay in step) is never returned;
 * NULL means stop. */
static struct ynode *read_value(struct reader *r, yaml_event_t *event, int depth)
{
    struct place at = mark_place(r, &event->start_mark);
    if (++r->nodes > YNODE_MAX_NODES || depth > YNODE_MAX_DEPTH) {
        if (depth > YNODE_MAX_DEPTH)
            problem_add(r->problems, &at, "nested deeper than %d levels", (int)YNODE_MAX_DEPTH);
        else
            problem_add(r->problems, &at, "more than %d values", (int)YNODE_MAX_NODES);
        r->stop = true;
        return NULL;
    }
    refuse_decoration(r, event);
    struct ynode *n = NULL;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return read_scalar(r, event);
    case YAML_ALIAS_EVENT:
        problem_add(r->problems, &at, "aliases (*%.40s) are not used here: refer to a value as ${its.key}",
                    (const char *)event->data.alias.anchor);
        return ynode_null(at);
    case YAML_SEQUENCE_START_EVENT:
        n = ynode_new(YNODE_LIST, at);
        read_list(r, n, depth);
        return n;
    case YAML_MAPPING_START_EVENT:
        n = ynode_new(YNODE_MAP, at);
        read_map(r, n, depth);
        return n;
    default:
        r->stop = true;
        return NULL;
    }
}

static struct ynode *read_documents(struct reader *r)
{
    struct ynode *root = NULL;
    bool end = false;
    for (yaml_event_t event; !r->stop && !end && next_event(r, &event); yaml_event_delete(&event)) {
        switch (event.type) {
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            break;
        case YAML_STREAM_END_EVENT:
            end = true;
            break;
        default:
            if (root) {
                struct place at = mark_place(r, &event.start_mark);
                problem_add(r->problems, &at, "a second document begins here: one file, one configuration");
                r->stop = true;
            } else {
                root = read_value(r, &event, 0);
            }
        }
    }
    return root;
}

struct ynode *ynode_read(const char *text, size_t bytes, struct place origin, struct problems *p)
{
    if (bytes > YNODE_MAX_BYTES) {
        problem_add(p, &origin, "%zu bytes: a configuration has at most %d", bytes, (int)YNODE_MAX_BYTES);
        return NULL;
    }
    struct reader r = {.origin = origin, .problems = p};
    if (!yaml_parser_initialize(&r.yaml)) {
        problem_add(p, &origin, "the YAML parser found no memory");
        return NULL;
    }
    size_t mark =
        bytes >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0; /* which editors put in front; libyaml looks for it only when it guesses */
    yaml_parser_set_encoding(&r.yaml, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.yaml, (const unsigned char *)text + mark, bytes - mark);
    struct ynode *root = read_documents(&r);
    yaml_parser_delete(&r.yaml);
    if (r.stop) {
        ynode_free(root);
        return NULL;
    }
    if (!root) root = origin.argument ? ynode_null(origin) : ynode_new(YNODE_MAP, origin);
    if (!origin.argument && root->kind == YNODE_SCALAR && ynode_is_null(root)) {
        ynode_free(root);
        root = ynode_new(YNODE_MAP, origin);
    }
    if (!origin.argument && root->kind != YNODE_MAP) {
        problem_add(p, &root->at, "the file holds %s, not keys with values", ynode_shown(root));
        ynode_free(root);
        return NULL;
    }
    return root;
}
