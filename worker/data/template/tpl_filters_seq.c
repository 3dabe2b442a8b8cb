/* Filters of sequences and mappings. Those that Python makes generators of give iterators: they may be read once. */
#include <string.h>

#include "worker/data/template/tpl_methods.h"

/* ---- attributes of items ----------------------------------------------------------------------------------------- */

/* "a.b.0" of an item, as the filters' `attribute` reads it; V_ABSENT and None: the item itself. */
static status dotted(struct render *r, struct value attribute, struct value otherwise, struct value *item)
{
    if (attribute.kind == V_ABSENT || attribute.kind == V_NONE) return ST_OK;
    if (!is_string(attribute)) {
        TRY(value_item(r, *item, attribute, item));
        if (item->kind == V_UNDEFINED && otherwise.kind != V_ABSENT && otherwise.kind != V_NONE) *item = otherwise;
        return ST_OK;
    }
    const struct str *s = attribute.s;
    for (size_t from = 0, to; from <= s->n; from = to + 1) {
        int64_t index = 0;
        bool number = false;
        for (to = from; to < s->n && s->p[to] != '.'; to++) {
            number = (number || to == from) && s->p[to] >= '0' && s->p[to] <= '9' && to - from < 18;
            if (number) index = index * 10 + (s->p[to] - '0');
        }
        struct value part = number ? value_int(index) : str_cut(r, attribute, from, to);
        TRY(value_item(r, *item, part, item));
        if (item->kind == V_UNDEFINED && otherwise.kind != V_ABSENT && otherwise.kind != V_NONE) *item = otherwise;
    }
    return ST_OK;
}

static status fold_case(struct render *r, bool case_sensitive, struct value *v)
{
    return case_sensitive || !is_string(*v) ? ST_OK : str_case(r, *v, CASE_LOWER, v);
}

/* What `sort` sorts by: a list of the attributes between commas. As in Jinja it is a list for one attribute and for the
 * item itself too: equal items need no order then. */
static status sort_key(struct render *r, struct value attribute, bool case_sensitive, struct value *item)
{
    struct list l = {0};
    size_t n = is_string(attribute) ? attribute.s->n : 0;
    for (size_t from = 0, to; from <= n; from = to + 1) {
        struct value key = *item, part = attribute;
        for (to = from; to < n && attribute.s->p[to] != ','; to++) continue;
        if (is_string(attribute)) part = str_cut(r, attribute, from, to);
        TRY(dotted(r, part, (struct value){0}, &key));
        TRY(fold_case(r, case_sensitive, &key));
        TRY(list_push(r, &l, key));
    }
    *item = value_list(r, l, V_LIST, TEMPLATE_ITSELF);
    return ST_OK;
}

/* A copy of the items, with their keys, in order. */
static status sorted(struct call *c, const struct value *items, size_t n, struct value *keys, bool reverse, struct value *out)
{
    struct list l = {0};
    for (size_t i = 0; i < n; i++) TRY(list_push(c->r, &l, items[i]));
    TRY(value_sort(c->r, l.v, keys, n, reverse));
    *out = value_list(c->r, l, V_LIST, c->self.origin);
    return ST_OK;
}

/* The items by one attribute. */
static status keys_of(struct call *c, const struct value *items, size_t n, struct value attribute, struct value otherwise,
                      bool case_sensitive, struct list *keys)
{
    for (size_t i = 0; i < n; i++) {
        struct value key = items[i];
        TRY(dotted(c->r, attribute, otherwise, &key));
        TRY(fold_case(c->r, case_sensitive, &key));
        TRY(list_push(c->r, keys, key));
    }
    return ST_OK;
}

/* ---- order ------------------------------------------------------------------------------------------------------- */

status filter_sort(struct call *c, struct value *out)
{
    const struct value *items;
    struct list keys = {0};
    size_t n;
    TRY(value_items(c->r, c->self, &items, &n));
    for (size_t i = 0; i < n; i++) {
        struct value key = items[i];
        TRY(sort_key(c->r, c->arg[2], arg_true(c, 1), &key));
        TRY(list_push(c->r, &keys, key));
    }
    return sorted(c, items, n, keys.v, arg_true(c, 0), out);
}

status filter_dictsort(struct call *c, struct value *out)
{
    struct value by;
    struct list items = {0}, keys = {0};
    TRY(arg_str(c, 1, "key", &by));
    if (!str_is(by, "key") && !str_is(by, "value")) return tpl_fail(c->r, "filter 'dictsort' sorts by 'key' or by 'value'");
    if (c->self.kind == V_UNDEFINED) return tpl_fail_undefined(c->r, c->self);
    if (c->self.kind != V_DICT) return tpl_fail(c->r, "filter 'dictsort' needs a dict, not '%s'", kind_names[c->self.kind]);
    for (size_t i = 0; i < c->self.d->n; i++) {
        struct pair *p = &c->self.d->v[i];
        struct value key = str_is(by, "key") ? p->key : p->value;
        TRY(tpl_spend(c->r, 128));
        TRY(fold_case(c->r, arg_true(c, 0), &key));
        TRY(list_push(c->r, &items, value_pair(c->r, p->key, p->value)));
        TRY(list_push(c->r, &keys, key));
    }
    return sorted(c, items.v, items.n, keys.v, arg_true(c, 2), out);
}

status filter_unique(struct call *c, struct value *out)
{
    const struct value *items;
    struct list keys = {0}, seen = {0}, l = {0};
    size_t n;
    TRY(value_items(c->r, c->self, &items, &n));
    TRY(keys_of(c, items, n, c->arg[1], (struct value){0}, arg_true(c, 0), &keys));
    for (size_t i = 0; i < n; i++) {
        bool there = false;
        if (keys.v[i].kind == V_LIST || keys.v[i].kind == V_DICT)
            return tpl_fail(c->r, "filter 'unique': a '%s' cannot be compared by its hash", kind_names[keys.v[i].kind]);
        for (size_t k = 0; k < seen.n && !there; k++) TRY(value_equal(c->r, seen.v[k], keys.v[i], &there));
        if (there) continue;
        TRY(list_push(c->r, &seen, keys.v[i]));
        TRY(list_push(c->r, &l, items[i]));
    }
    *out = value_iter(c->r, l, c->self.origin);
    return ST_OK;
}

status filter_reverse(struct call *c, struct value *out)
{
    const struct value *items;
    struct list l = {0};
    size_t n;
    if (is_string(c->self)) return value_slice(c->r, c->self, (struct value[3]){{0}, {0}, value_int(-1)}, out);
    TRY(value_items(c->r, c->self, &items, &n));
    while (n) TRY(list_push(c->r, &l, items[--n]));
    *out = c->self.kind == V_ITER ? value_list(c->r, l, V_LIST, c->self.origin) : value_iter(c->r, l, c->self.origin);
    return ST_OK;
}

static status extreme(struct call *c, bool most, struct value *out)
{
    const struct value *items;
    struct list keys = {0};
    size_t n, best = 0;
    TRY(value_items(c->r, c->self, &items, &n));
    if (!n) {
        *out = value_undefined_hint(c->r, "no item is the least or the most: the sequence is empty");
        return ST_OK;
    }
    TRY(keys_of(c, items, n, c->arg[1], (struct value){0}, arg_true(c, 0), &keys));
    for (size_t i = 1; i < n; i++) {
        bool better;
        struct value a = keys.v[best], b = keys.v[i];
        TRY(most ? value_less(c->r, a, b, &better) : value_less(c->r, b, a, &better));
        if (better) best = i;
    }
    *out = items[best];
    return ST_OK;
}

status filter_min(struct call *c, struct value *out) { return extreme(c, false, out); }
status filter_max(struct call *c, struct value *out) { return extreme(c, true, out); }

static status push_group(struct call *c, struct list *groups, struct list group)
{
    struct value key = group.v[0];
    TRY(dotted(c->r, c->arg[0], c->arg[1], &key));
    struct value pair = value_pair(c->r, key, value_list(c->r, group, V_LIST, c->self.origin));
    ((struct list *)pair.l)->group = true;
    return list_push(c->r, groups, pair);
}

status filter_groupby(struct call *c, struct value *out)
{
    const struct value *items;
    struct list keys = {0}, groups = {0}, group = {0};
    struct value all;
    size_t n;
    TRY(value_items(c->r, c->self, &items, &n));
    TRY(keys_of(c, items, n, c->arg[0], c->arg[1], arg_true(c, 2), &keys));
    TRY(sorted(c, items, n, keys.v, false, &all));
    for (size_t i = 0; i < n; i++) {
        bool same = false;
        if (i) TRY(value_equal(c->r, keys.v[i - 1], keys.v[i], &same));
        if (i && !same) {
            TRY(push_group(c, &groups, group));
            group = (struct list){0};
        }
        TRY(list_push(c->r, &group, all.l->v[i]));
    }
    if (group.n) TRY(push_group(c, &groups, group));
    *out = value_list(c->r, groups, V_LIST, c->self.origin);
    return ST_OK;
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

status filter_first(struct call *c, struct value *out)
{
    const struct value *items;
    size_t n, at = c->self.kind == V_ITER ? c->self.iter->at : 0;
    TRY(value_items(c->r, c->self, &items, &n));
    if (n)
        *out = items[0];
    else
        *out = value_undefined_hint(c->r, "no item is the first: the sequence is empty");
    if (n && c->self.kind == V_ITER) c->self.iter->at = at + 1;
    return ST_OK;
}

status filter_last(struct call *c, struct value *out)
{
    const struct value *items;
    size_t n;
    if (c->self.kind == V_ITER) return tpl_fail(c->r, "filter 'last': a generator has no last item before it has run");
    TRY(value_items(c->r, c->self, &items, &n));
    if (n)
        *out = items[n - 1];
    else
        *out = value_undefined_hint(c->r, "no item is the last: the sequence is empty");
    return ST_OK;
}

status filter_list(struct call *c, struct value *out)
{
    const struct value *items;
    struct list l = {0};
    TRY(value_items(c->r, c->self, &items, &l.n));
    l.v = (struct value *)items;
    l.cap = l.n;
    *out = value_list(c->r, l, V_LIST, c->self.origin);
    return ST_OK;
}

status filter_items(struct call *c, struct value *out)
{
    struct list l = {0};
    const struct value *items;
    if (c->self.kind != V_UNDEFINED && c->self.kind != V_DICT)
        return tpl_fail(c->r, "filter 'items' needs a mapping, not '%s'", kind_names[c->self.kind]);
    if (c->self.kind == V_DICT) {
        struct view all = {c->self.d, VIEW_ITEMS};
        TRY(value_items(c->r, (struct value){.kind = V_VIEW, .view = &all}, &items, &l.n));
        l.v = (struct value *)items;
    }
    *out = value_iter(c->r, l, c->self.origin);
    return ST_OK;
}

status filter_batch(struct call *c, struct value *out)
{
    const struct value *items;
    struct list all = {0}, part = {0};
    int64_t size;
    size_t n;
    TRY(arg_int(c, 0, 0, &size));
    TRY(value_items(c->r, c->self, &items, &n));
    for (size_t i = 0; i < n; i++) {
        if ((int64_t)part.n == size) {
            TRY(list_push(c->r, &all, value_list(c->r, part, V_LIST, c->self.origin)));
            part = (struct list){0};
        }
        TRY(list_push(c->r, &part, items[i]));
    }
    while (part.n && arg_given(c, 1) && (int64_t)part.n < size) TRY(list_push(c->r, &part, c->arg[1]));
    if (part.n) TRY(list_push(c->r, &all, value_list(c->r, part, V_LIST, c->self.origin)));
    *out = value_iter(c->r, all, c->self.origin);
    return ST_OK;
}

status filter_slice(struct call *c, struct value *out)
{
    const struct value *items;
    struct list all = {0};
    int64_t slices;
    size_t n, at = 0;
    TRY(arg_int(c, 0, 0, &slices));
    TRY(value_items(c->r, c->self, &items, &n));
    if (slices == 0) return tpl_fail(c->r, "filter 'slice': division by zero");
    for (int64_t k = 0; k < slices; k++) {
        struct list part = {0};
        bool extra = k < (int64_t)n % slices;
        for (size_t i = 0; i < n / (size_t)slices + extra; i++) TRY(list_push(c->r, &part, items[at++]));
        if (arg_given(c, 1) && !extra) TRY(list_push(c->r, &part, c->arg[1]));
        TRY(tpl_spend(c->r, 64));
        TRY(list_push(c->r, &all, value_list(c->r, part, V_LIST, c->self.origin)));
    }
    *out = value_iter(c->r, all, c->self.origin);
    return ST_OK;
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

status filter_join(struct call *c, struct value *out)
{
    struct build b = {.r = c->r};
    const struct value *items;
    struct value sep;
    size_t n;
    TRY(value_items(c->r, c->self, &items, &n));
    if (c->arg[0].kind == V_ABSENT) c->arg[0] = value_text(&c->r->pool, "", 0, TEMPLATE_ITSELF);
    TRY(value_to_str(c->r, c->arg[0], &sep));
    for (size_t i = 0; i < n; i++) {
        struct value item = items[i];
        TRY(dotted(c->r, c->arg[1], (struct value){0}, &item));
        if (i) TRY(build_str(&b, sep));
        TRY(print_value(&b, item));
    }
    *out = build_done(&b);
    return ST_OK;
}

status filter_sum(struct call *c, struct value *out)
{
    const struct value *items;
    size_t n;
    *out = c->arg[1].kind == V_ABSENT ? value_int(0) : c->arg[1];
    if (is_string(*out)) return tpl_fail(c->r, "filter 'sum' cannot sum strings: use join");
    TRY(value_items(c->r, c->self, &items, &n));
    for (size_t i = 0; i < n; i++) {
        struct value item = items[i];
        TRY(dotted(c->r, c->arg[0], (struct value){0}, &item));
        TRY(value_binary(c->r, OP_ADD, *out, item, out));
    }
    return ST_OK;
}

/* ---- a filter or test on every item ------------------------------------------------------------------------------ */

/* The filter or test that given argument `at` names, and its own arguments. */
static status named_builtin(struct call *c, size_t at, const struct builtin *table, const char *what, const struct builtin **b,
                            struct args *rest)
{
    struct value name = c->given->v[at];
    if (!is_string(name)) return tpl_fail(c->r, "filter '%s' needs the name of a %s", c->what->name, what);
    *b = builtin_find(table, (struct word){name.s->p, name.s->n});
    if (!*b) return tpl_fail(c->r, "no %s is named '%.*s'", what, name.s->n > 60 ? 60 : (int)name.s->n, name.s->p);
    if (!(*b)->fn) return tpl_fail_unbuilt(c->r, "the %s '%s' is not built here", what, (*b)->name);
    *rest = (struct args){c->given->v + at + 1, c->given->n - at - 1, c->given->named, c->given->n_named};
    return ST_OK;
}

static status map_attribute(struct call *c, const struct value *items, size_t n, struct list *l)
{
    struct value attribute = {0}, otherwise = {0};
    for (size_t i = 0; i < c->given->n_named; i++) {
        struct pair p = c->given->named[i];
        if (str_is(p.key, "attribute"))
            attribute = p.value;
        else if (str_is(p.key, "default"))
            otherwise = p.value;
        else
            return tpl_fail(c->r, "filter 'map' takes no argument of that name");
    }
    if (attribute.kind == V_ABSENT) return tpl_fail(c->r, "filter 'map' needs a filter or attribute=…");
    for (size_t i = 0; i < n; i++) {
        struct value item = items[i];
        TRY(dotted(c->r, attribute, otherwise, &item));
        TRY(list_push(c->r, l, item));
    }
    return ST_OK;
}

status filter_map(struct call *c, struct value *out)
{
    const struct value *items;
    struct list l = {0};
    size_t n = 0;
    if (value_true(c->self)) TRY(value_items(c->r, c->self, &items, &n));
    if (n && !c->given->n) {
        TRY(map_attribute(c, items, n, &l));
    } else if (n) {
        const struct builtin *b;
        struct args rest;
        TRY(named_builtin(c, 0, tpl_filters, "filter", &b, &rest));
        TRY(tpl_enter(c->r));
        for (size_t i = 0; i < n; i++) {
            struct value item;
            TRY(tpl_spend(c->r, TPL_NODE_WORK));
            TRY(builtin_call(c->r, "filter", b, items[i], &rest, &item));
            TRY(list_push(c->r, &l, item));
        }
        tpl_leave(c->r);
    }
    *out = value_iter(c->r, l, c->self.origin);
    return ST_OK;
}

/* Keeps the items, or with `attr` those of them whose attribute, passes a test; without a test: is true. */
static status choose(struct call *c, bool attr, bool keep, struct value *out)
{
    const struct value *items;
    const struct builtin *b = NULL;
    struct args rest;
    struct list l = {0};
    size_t n = 0, at = attr;
    if (value_true(c->self)) TRY(value_items(c->r, c->self, &items, &n));
    if (n && attr && !c->given->n) return tpl_fail(c->r, "filter '%s' needs an attribute", c->what->name);
    if (n && c->given->n > at) TRY(named_builtin(c, at, tpl_tests, "test", &b, &rest));
    TRY(tpl_enter(c->r));
    for (size_t i = 0; i < n; i++) {
        struct value item = items[i], passed;
        TRY(tpl_spend(c->r, TPL_NODE_WORK));
        if (attr) TRY(dotted(c->r, c->given->v[0], (struct value){0}, &item));
        if (b)
            TRY(builtin_call(c->r, "test", b, item, &rest, &passed));
        else
            passed = value_bool(value_true(item));
        if (value_true(passed) == keep) TRY(list_push(c->r, &l, items[i]));
    }
    tpl_leave(c->r);
    *out = value_iter(c->r, l, c->self.origin);
    return ST_OK;
}

status filter_select(struct call *c, struct value *out) { return choose(c, false, true, out); }
status filter_reject(struct call *c, struct value *out) { return choose(c, false, false, out); }
status filter_selectattr(struct call *c, struct value *out) { return choose(c, true, true, out); }
status filter_rejectattr(struct call *c, struct value *out) { return choose(c, true, false, out); }
