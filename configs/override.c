/* override.c — key=value and ~key of the command line, applied to the tree in order. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "configs/schema.h"
#include "configs/ynode.h"

/* dataset[0].packed is dataset.0.packed */
static char *normal_path(const char *key, size_t n)
{
    char *path = mem_alloc(2 * n + 1), *o = path;
    for (size_t i = 0; i < n; i++) {
        if (key[i] == '[' && o != path)
            *o++ = '.';
        else if (key[i] != ']' && key[i] != '[')
            *o++ = key[i];
    }
    *o = 0;
    return path;
}

static bool path_is_valid(const char *path)
{
    size_t n = strlen(path);
    if (!n || n > 200 || path[0] == '.' || path[n - 1] == '.' || strstr(path, "..")) return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)path[i]) && path[i] != '_' && path[i] != '.') return false;
    return true;
}

/* The node that holds `dotted`'s last step, made on the way where nothing stands yet. NULL after a problem. */
static struct ynode *descend(struct ynode *root, char *dotted, char **last, struct place at, struct problems *p)
{
    struct ynode *n = root;
    char *rest = dotted, *step;
    while ((step = strsep(&rest, ".")) && rest) {
        struct ynode *next = NULL;
        if (n->kind == YNODE_LIST) {
            char *end;
            long i = strtol(step, &end, 10);
            if (*end || i < 0 || i >= n->n_child) {
                problem_add(p, &at, "%s is a list of %d: say %s.0, … , not %s.%s", n->key ? n->key : "this", n->n_child,
                            n->key ? n->key : "KEY", n->key ? n->key : "KEY", step);
                return NULL;
            }
            next = n->child[i];
        } else if (!(next = ynode_find(n, step)) || (next->kind == YNODE_SCALAR && ynode_is_null(next))) {
            next = ynode_new(YNODE_MAP, at);
            ynode_put(n, step, next, at);
        }
        if (next->kind == YNODE_SCALAR) {
            problem_add(p, &at, "%s is the single value %s and has no %s", step, ynode_shown(next), rest);
            return NULL;
        }
        n = next;
    }
    *last = step;
    return n;
}

/* What it leaves is told, but for what had no effect before. */
static void leave_out(struct ynode *group, const char *section, const char *key, const struct component *component, struct buf *told)
{
    const struct row *row = schema_row(section, key);
    if (!row || row->effect != NO_EFFECT)
        buf_printf(told, "%s%s.%.80s (%s takes none)", told->len ? ", " : "", section, key, component->path);
    ynode_drop(group, key);
}

/* optimizer=torch.optim.SGD: the new component keeps the arguments it has, and loses the others. */
static void set_component(struct ynode *group, const char *section, struct ynode *value, struct place at, struct buf *told)
{
    struct component component;
    if (component_find(section, value->text, &component))
        for (int i = group->n_child - 1; i >= 0; i--) {
            const char *key = group->child[i]->key;
            if (strcmp(key, "_component_") && !component_takes(&component, key)) leave_out(group, section, key, &component, told);
        }
    ynode_put(group, "_component_", value, at);
}

static void merge(struct ynode *into, struct ynode *from)
{
    while (from->n_child) {
        struct ynode *value = from->child[--from->n_child], *old = ynode_find(into, value->key);
        if (old && old->kind == YNODE_MAP && value->kind == YNODE_MAP) {
            merge(old, value);
            ynode_free(value);
        } else {
            char *key = mem_strdup(value->key);
            ynode_put(into, key, value, value->key_at);
            free(key);
        }
    }
}

/* The three below own `value`. `section`: the path names a group that has a component; else NULL. */
static void put_in_map(struct ynode *map, const char *key, const char *section, struct ynode *value, struct place at, struct problems *p)
{
    struct ynode *old = ynode_find(map, key);
    if (section && value->kind == YNODE_SCALAR && !ynode_is_null(value)) {
        if (!old || old->kind != YNODE_MAP) {
            old = ynode_new(YNODE_MAP, at);
            ynode_put(map, key, old, at);
        }
        set_component(old, section, value, at, &p->left_out);
    } else if (old && old->kind == YNODE_MAP && value->kind == YNODE_MAP) {
        merge(old, value);
        ynode_free(value);
    } else {
        ynode_put(map, key, value, at);
    }
}

static void put_in_list(struct ynode *list, const char *key, const char *section, struct ynode *value, struct place at, struct problems *p)
{
    char *end;
    long i = strtol(key, &end, 10);
    struct ynode *item = *end || i < 0 || i >= list->n_child ? NULL : list->child[i];
    if (!item) {
        const char *name = list->key ? list->key : "it";
        problem_add(p, &at, "%s is a list of %d: say %s.0.%s", name, list->n_child, name, key);
    } else if (section && value->kind == YNODE_SCALAR && item->kind == YNODE_MAP) {
        set_component(item, section, value, at, &p->left_out);
        return;
    } else {
        ynode_swap_content(item, value);
    }
    ynode_free(value);
}

void override_set(struct ynode *root, const char *dotted, struct ynode *value, struct place at, struct problems *p)
{
    char *path = mem_strdup(dotted), *last = NULL;
    const char *section = schema_section_of(dotted);
    struct ynode *holder = descend(root, path, &last, at, p);
    if (!holder)
        ynode_free(value);
    else if (holder->kind == YNODE_LIST)
        put_in_list(holder, last, section, value, at, p);
    else
        put_in_map(holder, last, section, value, at, p);
    free(path);
}

static void drop(struct ynode *root, const char *key, struct place at, struct problems *p)
{
    char *path = normal_path(key, strlen(key));
    char *dot = strrchr(path, '.');
    struct ynode *holder = root;
    if (dot) {
        *dot = 0;
        holder = ynode_find_path(root, path);
    }
    const char *last = dot ? dot + 1 : path;
    if (holder && ynode_find(holder, last)) {
        ynode_drop(holder, last);
    } else {
        const char *names[64];
        int n = 0;
        for (int i = 0; holder && holder->kind == YNODE_MAP && i < holder->n_child && n < 64; i++) names[n++] = holder->child[i]->key;
        const char *near = text_nearest(last, names, n);
        problem_add(p, &at, "there is no %s to delete%s%s%s%s%s", key, near ? "; did you mean ~" : "", near && dot ? path : "",
                    near && dot ? "." : "", near ? near : "", near ? "?" : "");
    }
    free(path);
}

void override_apply(struct ynode *root, const char *argument, int number, struct problems *p)
{
    struct place at = {.name = argument, .argument = number};
    if (argument[0] == '~') {
        drop(root, argument + 1, at, p);
        return;
    }
    const char *equals = strchr(argument, '=');
    if (argument[0] == '+') {
        problem_add(p, &at, "write it without the +: a key is set whether or not the file has it");
        return;
    }
    if (!equals) {
        problem_add(p, &at, "expected key=value or ~key");
        return;
    }
    char *path = normal_path(argument, (size_t)(equals - argument));
    if (!path_is_valid(path)) {
        problem_add(p, &at, "%s is no key: keys look like seed or optimizer.lr", text_shown(path));
    } else {
        struct ynode *value = ynode_read(equals + 1, strlen(equals + 1), at, p);
        if (value) override_set(root, path, value, at, p);
    }
    free(path);
}
