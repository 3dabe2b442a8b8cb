/* Expressions to values. */
#include <string.h>

#include "worker/data/template/tpl_tree.h"

/* ---- variables --------------------------------------------------------------------------------------------------- */

void frame_set(struct render *r, struct frame *f, int symbol, struct value v)
{
    for (int i = 0; i < f->n; i++)
        if (f->v[i].symbol == symbol) {
            f->v[i].value = v;
            return;
        }
    if (f->n == f->cap) {
        int cap = f->cap ? f->cap * 2 : 4;
        struct binding *grown = pool_take(&r->pool, (size_t)cap * sizeof *grown);
        if (f->n) memcpy(grown, f->v, (size_t)f->n * sizeof *grown);
        f->v = grown;
        f->cap = cap;
    }
    f->v[f->n++] = (struct binding){symbol, v};
}

const struct value *frame_get(const struct frame *f, int symbol)
{
    for (; f; f = f->parent)
        for (int i = 0; i < f->n; i++)
            if (f->v[i].symbol == symbol) return &f->v[i].value;
    return NULL;
}

static status eval_name(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    const struct value *v = frame_get(f, n->symbol);
    if (v)
        *out = *v;
    else
        TRY(tpl_global(r, n->symbol, out));
    return ST_OK;
}

/* ---- displays ---------------------------------------------------------------------------------------------------- */

static status eval_const(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    (void)r;
    (void)f;
    *out = n->value;
    return ST_OK;
}

static status eval_list(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct list l = {0};
    for (size_t i = 0; i < n->n; i++) {
        struct value item;
        TRY(tpl_eval(r, f, n->v[i], &item));
        TRY(list_push(r, &l, item));
    }
    *out = value_list(r, l, n->kind == N_TUPLE ? V_TUPLE : V_LIST, TEMPLATE_ITSELF);
    return ST_OK;
}

static status eval_dict(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct dict *d = pool_take(&r->pool, sizeof *d);
    *d = (struct dict){0};
    for (size_t i = 0; i < n->n; i += 2) {
        struct value key, value;
        TRY(tpl_eval(r, f, n->v[i], &key));
        TRY(tpl_eval(r, f, n->v[i + 1], &value));
        TRY(dict_check_key(r, key));
        TRY(dict_put(r, d, key, value));
    }
    *out = (struct value){.kind = V_DICT, .d = d};
    return ST_OK;
}

/* ---- lookups ----------------------------------------------------------------------------------------------------- */

static status eval_attr(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct value of;
    TRY(tpl_eval(r, f, n->a, &of));
    r->line = n->line;
    return value_attr(r, of, n->value, out);
}

static status eval_item(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct value of, index;
    TRY(tpl_eval(r, f, n->a, &of));
    TRY(tpl_eval(r, f, n->b, &index));
    r->line = n->line;
    return value_item(r, of, index, out);
}

static status eval_slice(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct value of, bounds[3] = {{0}, {0}, {0}};
    TRY(tpl_eval(r, f, n->a, &of));
    for (int i = 0; i < 3; i++)
        if (n->v[i]) TRY(tpl_eval(r, f, n->v[i], &bounds[i]));
    r->line = n->line;
    return value_slice(r, of, bounds, out);
}

/* ---- calls, filters, tests --------------------------------------------------------------------------------------- */

static status push_named(struct render *r, struct dict *named, struct value key, struct value value)
{
    if (dict_get(r, named, key)) return tpl_fail(r, "an argument is given twice by name");
    return dict_put(r, named, key, value);
}

static status spread(struct render *r, struct frame *f, const struct call_args *a, struct list *l, struct dict *named)
{
    struct value v;
    const struct value *items;
    size_t n;
    if (a->star) {
        TRY(tpl_eval(r, f, a->star, &v));
        TRY(value_items(r, v, &items, &n));
        for (size_t i = 0; i < n; i++) TRY(list_push(r, l, items[i]));
    }
    if (!a->star_star) return ST_OK;
    TRY(tpl_eval(r, f, a->star_star, &v));
    if (v.kind != V_DICT) return tpl_fail(r, "argument after ** must be a mapping, not '%s'", kind_names[v.kind]);
    for (size_t i = 0; i < v.d->n; i++) {
        if (!is_string(v.d->v[i].key)) return tpl_fail(r, "the names of arguments must be strings");
        TRY(push_named(r, named, v.d->v[i].key, v.d->v[i].value));
    }
    return ST_OK;
}

status tpl_eval_args(struct render *r, struct frame *f, const struct call_args *a, struct args *out)
{
    struct list l = {0};
    struct dict named = {0};
    struct value v;
    for (size_t i = 0; i < a->n; i++) {
        TRY(tpl_eval(r, f, a->v[i], &v));
        TRY(list_push(r, &l, v));
    }
    for (size_t i = 0; i < a->n_named; i++) {
        TRY(tpl_eval(r, f, a->named[i].node, &v));
        TRY(push_named(r, &named, a->named[i].name, v));
    }
    if (a->star || a->star_star) TRY(spread(r, f, a, &l, &named));
    *out = (struct args){l.v, l.n, named.v, named.n};
    return ST_OK;
}

static status eval_call(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct value what;
    struct args args;
    TRY(tpl_eval(r, f, n->a, &what));
    TRY(tpl_eval_args(r, f, n->args, &args));
    r->line = n->line;
    return value_call(r, what, &args, out);
}

static status apply(struct render *r, struct frame *f, const struct node *n, const char *what, struct value of, struct value *out)
{
    struct args args;
    TRY(tpl_eval_args(r, f, n->args, &args));
    r->line = n->line;
    if (!n->builtin) {
        int shown = n->value.s->n > 60 ? 60 : (int)n->value.s->n;
        return tpl_fail(r, "no %s is named '%.*s'", what, shown, n->value.s->p);
    }
    return builtin_call(r, what, n->builtin, of, &args, out);
}

static status eval_filter(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct value of;
    TRY(tpl_eval(r, f, n->a, &of));
    return apply(r, f, n, "filter", of, out);
}

static status eval_test(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct value of;
    TRY(tpl_eval(r, f, n->a, &of));
    return apply(r, f, n, "test", of, out);
}

/* A chain of filters over what a block wrote: the innermost has no operand. */
status tpl_apply_filters(struct render *r, struct frame *f, const struct node *n, struct value of, struct value *out)
{
    if (n->a) TRY(tpl_apply_filters(r, f, n->a, of, &of));
    return apply(r, f, n, "filter", of, out);
}

/* ---- operators --------------------------------------------------------------------------------------------------- */

static status eval_not(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct value v;
    TRY(tpl_eval(r, f, n->a, &v));
    *out = value_bool(!value_true(v));
    return ST_OK;
}

static status eval_and_or(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    TRY(tpl_eval(r, f, n->a, out));
    return value_true(*out) == (n->kind == N_AND) ? tpl_eval(r, f, n->b, out) : ST_OK;
}

static status eval_sign(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct value v;
    TRY(tpl_eval(r, f, n->a, &v));
    r->line = n->line;
    TRY(value_negate(r, v, out));
    return n->kind == N_NEG ? ST_OK : value_negate(r, *out, out);
}

static status eval_binary(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct value a, b;
    TRY(tpl_eval(r, f, n->a, &a));
    TRY(tpl_eval(r, f, n->b, &b));
    r->line = n->line;
    return value_binary(r, (enum binary)n->op, a, b, out);
}

static status eval_concat(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct build b = {.r = r};
    for (size_t i = 0; i < n->n; i++) {
        struct value v;
        TRY(tpl_eval(r, f, n->v[i], &v));
        r->line = n->line;
        TRY(print_value(&b, v));
    }
    *out = build_done(&b);
    return ST_OK;
}

static status compare(struct render *r, enum compare op, struct value a, struct value b, bool *out)
{
    bool swap = op == CMP_GT || op == CMP_GE, same = false;
    switch (op) {
    case CMP_EQ:
    case CMP_NE:
        TRY(value_equal(r, a, b, out));
        *out ^= op == CMP_NE;
        return ST_OK;
    case CMP_IN:
    case CMP_NOT_IN:
        TRY(value_contains(r, b, a, out));
        *out ^= op == CMP_NOT_IN;
        return ST_OK;
    default:
        TRY(value_less(r, swap ? b : a, swap ? a : b, out));
        if (!*out && (op == CMP_LE || op == CMP_GE)) TRY(value_equal(r, a, b, &same));
        *out |= same;
        return ST_OK;
    }
}

static status eval_compare(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct value left, right;
    bool holds = true;
    TRY(tpl_eval(r, f, n->a, &left));
    for (size_t i = 0; holds && i < n->n; i++, left = right) {
        TRY(tpl_eval(r, f, n->v[i], &right));
        r->line = n->line;
        TRY(compare(r, (enum compare)n->ops[i], left, right, &holds));
    }
    *out = value_bool(holds);
    return ST_OK;
}

static status eval_cond(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    struct value test;
    TRY(tpl_eval(r, f, n->a, &test));
    if (value_true(test)) return tpl_eval(r, f, n->b, out);
    if (n->c) return tpl_eval(r, f, n->c, out);
    *out = value_undefined_hint(r, "the 'if' of an expression was false and it has no 'else'");
    return ST_OK;
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

typedef status eval_fn(struct render *r, struct frame *f, const struct node *n, struct value *out);
static eval_fn *const evaluators[N_NODE_KINDS] = {
    [N_CONST] = eval_const, [N_NAME] = eval_name,     [N_TUPLE] = eval_list,    [N_LIST] = eval_list,       [N_DICT] = eval_dict,
    [N_ATTR] = eval_attr,   [N_ITEM] = eval_item,     [N_SLICE] = eval_slice,   [N_CALL] = eval_call,       [N_FILTER] = eval_filter,
    [N_TEST] = eval_test,   [N_NOT] = eval_not,       [N_AND] = eval_and_or,    [N_OR] = eval_and_or,       [N_NEG] = eval_sign,
    [N_POS] = eval_sign,    [N_BINARY] = eval_binary, [N_CONCAT] = eval_concat, [N_COMPARE] = eval_compare, [N_COND] = eval_cond,
};

status tpl_eval(struct render *r, struct frame *f, const struct node *n, struct value *out)
{
    r->line = n->line;
    TRY(tpl_spend(r, TPL_NODE_WORK));
    TRY(tpl_enter(r));
    TRY(evaluators[n->kind](r, f, n, out));
    tpl_leave(r);
    return ST_OK;
}
