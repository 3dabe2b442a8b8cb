/* The methods of lists, tuples, dicts and numbers. The sandbox is the immutable one: what changes them is closed. */
#include "worker/data/template/tpl_methods.h"

static status list_index(struct call *c, struct value *out)
{
    const struct list *l = c->self.l;
    for (size_t i = 0; i < l->n; i++) {
        bool same;
        TRY(value_equal(c->r, l->v[i], c->arg[0], &same));
        if (!same) continue;
        *out = value_int((int64_t)i);
        return ST_OK;
    }
    return tpl_fail(c->r, "'index': the value is not in the list");
}

static status list_count(struct call *c, struct value *out)
{
    int64_t n = 0;
    for (size_t i = 0; i < c->self.l->n; i++) {
        bool same;
        TRY(value_equal(c->r, c->self.l->v[i], c->arg[0], &same));
        n += same;
    }
    *out = value_int(n);
    return ST_OK;
}

static status list_copy(struct call *c, struct value *out)
{
    *out = c->self;
    return ST_OK;
}

static status dict_get_method(struct call *c, struct value *out)
{
    TRY(tpl_spend(c->r, c->self.d->n));
    TRY(dict_check_key(c->r, c->arg[0]));
    const struct value *v = dict_get(c->r, c->self.d, c->arg[0]);
    *out = v ? *v : c->arg[1].kind == V_ABSENT ? value_none() : c->arg[1];
    return ST_OK;
}

static status view(struct call *c, int what, struct value *out)
{
    struct view *v = pool_take(&c->r->pool, sizeof *v);
    *v = (struct view){.dict = c->self.d, .what = what};
    *out = (struct value){.kind = V_VIEW, .origin = c->self.origin, .view = v};
    return ST_OK;
}

static status dict_keys(struct call *c, struct value *out) { return view(c, VIEW_KEYS, out); }
static status dict_values(struct call *c, struct value *out) { return view(c, VIEW_VALUES, out); }
static status dict_items(struct call *c, struct value *out) { return view(c, VIEW_ITEMS, out); }

const struct builtin tpl_list_methods[] = {
    {"index", "/ value", list_index, false},
    {"count", "/ value", list_count, false},
    {"copy", "/", list_copy, false},
    {"append", NULL, NULL, true},
    {"clear", NULL, NULL, true},
    {"extend", NULL, NULL, true},
    {"insert", NULL, NULL, true},
    {"pop", NULL, NULL, true},
    {"remove", NULL, NULL, true},
    {"reverse", NULL, NULL, true},
    {"sort", NULL, NULL, true},
    {NULL, NULL, NULL, false},
};
const struct builtin tpl_tuple_methods[] = {
    {"index", "/ value", list_index, false},
    {"count", "/ value", list_count, false},
    {NULL, NULL, NULL, false},
};
const struct builtin tpl_dict_methods[] = {
    {"get", "/ key ?default", dict_get_method, false},
    {"items", "/", dict_items, false},
    {"keys", "/", dict_keys, false},
    {"values", "/", dict_values, false},
    {"copy", "/", list_copy, false},
    {"fromkeys", NULL, NULL, false},
    {"clear", NULL, NULL, true},
    {"pop", NULL, NULL, true},
    {"popitem", NULL, NULL, true},
    {"setdefault", NULL, NULL, true},
    {"update", NULL, NULL, true},
    {NULL, NULL, NULL, false},
};
/* Python's numbers have attributes that no chat template asks for. */
const struct builtin tpl_number_methods[] = {
    {"real", NULL, NULL, false},        {"imag", NULL, NULL, false},       {"numerator", NULL, NULL, false},
    {"denominator", NULL, NULL, false}, {"conjugate", NULL, NULL, false},  {"as_integer_ratio", NULL, NULL, false},
    {"bit_length", NULL, NULL, false},  {"bit_count", NULL, NULL, false},  {"from_bytes", NULL, NULL, false},
    {"to_bytes", NULL, NULL, false},    {"is_integer", NULL, NULL, false}, {"hex", NULL, NULL, false},
    {"fromhex", NULL, NULL, false},     {NULL, NULL, NULL, false},
};
