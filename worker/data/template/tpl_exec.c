/* Statements: what they write, and the scopes they make. As in Jinja, `if` makes none; every round of a loop, every
 * macro and every block whose text is caught makes one. */
#include <string.h>

#include "worker/data/template/tpl_tree.h"

struct frame *frame_new(struct render *r, struct frame *parent, const struct node *body)
{
    struct frame *f = pool_take(&r->pool, sizeof *f);
    *f = (struct frame){.parent = parent};
    for (size_t i = 0; body && i < body->n_fresh; i++) {
        struct word name = r->t->symbol[body->fresh[i]];
        struct value text = value_text(&r->pool, name.p, name.n, TEMPLATE_ITSELF);
        frame_set(r, f, body->fresh[i], value_undefined(r, (struct value){0}, text));
    }
    return f;
}

status tpl_capture(struct render *r, struct frame *f, const struct node *body, struct value *out)
{
    struct build text = {.r = r}, *outer = r->out;
    r->out = &text;
    TRY(tpl_exec(r, f, body));
    r->out = outer;
    *out = build_done(&text);
    return ST_OK;
}

/* ---- assignment -------------------------------------------------------------------------------------------------- */

static status assign_attr(struct render *r, struct frame *f, const struct node *target, struct value v)
{
    struct value of;
    const struct value *there = frame_get(f, target->symbol);
    if (there)
        of = *there;
    else
        TRY(tpl_global(r, target->symbol, &of));
    r->line = target->line;
    if (of.kind != V_NAMESPACE) return tpl_fail(r, "cannot assign an attribute of something that is no namespace");
    TRY(namespace_check(r, target->value));
    return dict_put(r, of.d, target->value, v);
}

status tpl_assign(struct render *r, struct frame *f, const struct node *target, struct value v)
{
    if (target->kind == N_NAMESPACE_ATTR) return assign_attr(r, f, target, v);
    if (target->kind == N_NAME) {
        frame_set(r, f, target->symbol, v);
        return ST_OK;
    }
    const struct value *items;
    size_t n;
    TRY(value_items(r, v, &items, &n));
    if (n != target->n) return tpl_fail(r, "%zu values for %zu variables", n, target->n);
    for (size_t i = 0; i < n; i++) TRY(tpl_assign(r, f, target->v[i], items[i]));
    return ST_OK;
}

static status exec_set(struct render *r, struct frame *f, const struct node *n)
{
    struct value v;
    TRY(tpl_eval(r, f, n->a, &v));
    return tpl_assign(r, f, n->target, v);
}

static status exec_set_block(struct render *r, struct frame *f, const struct node *n)
{
    struct value v;
    TRY(tpl_capture(r, frame_new(r, f, n->b), n->b, &v));
    if (r->flow != FLOW_ON) return ST_OK;
    if (n->a) TRY(tpl_apply_filters(r, f, n->a, v, &v));
    return tpl_assign(r, f, n->target, v);
}

/* ---- plain statements -------------------------------------------------------------------------------------------- */

static status exec_body(struct render *r, struct frame *f, const struct node *n)
{
    for (size_t i = 0; i < n->n && r->flow == FLOW_ON; i++) TRY(tpl_exec(r, f, n->v[i]));
    return ST_OK;
}

static status exec_print(struct render *r, struct frame *f, const struct node *n)
{
    struct value v;
    TRY(tpl_eval(r, f, n->a, &v));
    return print_value(r->out, v);
}

static status exec_if(struct render *r, struct frame *f, const struct node *n)
{
    for (size_t i = 0; i < n->n; i += 2) {
        struct value test;
        TRY(tpl_eval(r, f, n->v[i], &test));
        if (value_true(test)) return tpl_exec(r, f, n->v[i + 1]);
    }
    return n->c ? tpl_exec(r, f, n->c) : ST_OK;
}

static status exec_leave(struct render *r, struct frame *f, const struct node *n)
{
    (void)f;
    r->flow = n->kind == N_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
    return ST_OK;
}

static status exec_filter_block(struct render *r, struct frame *f, const struct node *n)
{
    struct value v;
    struct frame *inner = frame_new(r, f, n->b);
    TRY(tpl_capture(r, inner, n->b, &v));
    if (r->flow != FLOW_ON) return ST_OK;
    TRY(tpl_apply_filters(r, inner, n->a, v, &v));
    return print_value(r->out, v);
}

/* The values are evaluated outside the scope that they open. */
static status exec_with(struct render *r, struct frame *f, const struct node *n)
{
    struct frame *inner = frame_new(r, f, n->b);
    for (size_t i = 0; i < n->n; i += 2) {
        struct value v;
        TRY(tpl_eval(r, f, n->v[i + 1], &v));
        TRY(tpl_assign(r, inner, n->v[i], v));
    }
    return tpl_exec(r, inner, n->b);
}

/* The bytes are marked, so that they are found wherever a macro or a block carries them. */
static status exec_generation(struct render *r, struct frame *f, const struct node *n)
{
    size_t begin = r->out->n;
    TRY(tpl_exec(r, frame_new(r, f, n->b), n->b));
    for (size_t i = begin; i < r->out->n; i++) r->out->o[i] |= TPL_GENERATED;
    return ST_OK;
}

/* ---- macros ------------------------------------------------------------------------------------------------------ */

static struct value macro_value(struct render *r, struct frame *f, const struct node *n)
{
    struct macro *m = pool_take(&r->pool, sizeof *m);
    *m = (struct macro){.signature = n->signature, .body = n->b, .frame = f};
    return (struct value){.kind = V_MACRO, .macro = m};
}

static status exec_macro(struct render *r, struct frame *f, const struct node *n)
{
    frame_set(r, f, n->symbol, macro_value(r, f, n));
    return ST_OK;
}

static status exec_call_block(struct render *r, struct frame *f, const struct node *n)
{
    struct value what, v;
    struct args args;
    TRY(tpl_eval(r, f, n->a->a, &what));
    TRY(tpl_eval_args(r, f, n->a->args, &args));
    struct pair *named = pool_take(&r->pool, (args.n_named + 1) * sizeof *named);
    if (args.n_named) memcpy(named, args.named, args.n_named * sizeof *named);
    named[args.n_named++] = (struct pair){value_text(&r->pool, "caller", 6, TEMPLATE_ITSELF), macro_value(r, f, n)};
    args.named = named;
    r->line = n->line;
    TRY(value_call(r, what, &args, &v));
    return print_value(r->out, v);
}

static bool named_is(const struct render *r, const struct pair *p, int symbol)
{
    struct word w = r->t->symbol[symbol];
    return p->key.s->n == w.n && !memcmp(p->key.s->p, w.p, w.n);
}

/* Arguments by name that are no parameter: kwargs, the caller, or too many. */
static status bind_rest(struct render *r, struct frame *f, const struct signature *s, const struct args *a, const bool *used)
{
    struct dict *rest = pool_take(&r->pool, sizeof *rest);
    *rest = (struct dict){0};
    int name = s->name.n > 60 ? 60 : (int)s->name.n;
    if (s->takes_caller) frame_set(r, f, s->caller, value_undefined_hint(r, "no caller is defined"));
    for (size_t i = 0; i < a->n_named; i++) {
        if (used[i]) continue;
        if (s->takes_caller && named_is(r, &a->named[i], s->caller))
            frame_set(r, f, s->caller, a->named[i].value);
        else if (s->takes_kwargs)
            TRY(dict_put(r, rest, a->named[i].key, a->named[i].value));
        else
            return tpl_fail(r, "macro '%.*s' takes no argument named '%.*s'", name, s->name.p,
                            a->named[i].key.s->n > 60 ? 60 : (int)a->named[i].key.s->n, a->named[i].key.s->p);
    }
    if (s->takes_kwargs) frame_set(r, f, s->kwargs, (struct value){.kind = V_DICT, .d = rest});
    if (!s->takes_varargs && a->n > s->n)
        return tpl_fail(r, "macro '%.*s' takes at most %zu arguments, %zu are given", name, s->name.p, s->n, a->n);
    if (!s->takes_varargs) return ST_OK;
    struct list more = {0};
    for (size_t i = s->n; i < a->n; i++) TRY(list_push(r, &more, a->v[i]));
    frame_set(r, f, s->varargs, value_list(r, more, V_TUPLE, TEMPLATE_ITSELF));
    return ST_OK;
}

static status bind_parameters(struct render *r, struct frame *f, const struct signature *s, const struct args *a)
{
    bool *used = pool_take(&r->pool, a->n_named + 1);
    memset(used, 0, a->n_named + 1);
    for (size_t i = 0; i < s->n; i++) {
        struct value v = i < a->n ? a->v[i] : (struct value){.kind = V_ABSENT};
        for (size_t k = 0; i >= a->n && k < a->n_named; k++)
            if (named_is(r, &a->named[k], s->symbol[i])) {
                v = a->named[k].value;
                used[k] = true;
            }
        if (v.kind == V_ABSENT && s->otherwise[i]) TRY(tpl_eval(r, f, s->otherwise[i], &v));
        if (v.kind == V_ABSENT) v = value_undefined_hint(r, "a parameter of a macro was not given");
        frame_set(r, f, s->symbol[i], v);
    }
    return bind_rest(r, f, s, a, used);
}

status tpl_macro_call(struct render *r, const struct macro *m, const struct args *a, struct value *out)
{
    struct frame *f = frame_new(r, m->frame, m->body);
    TRY(bind_parameters(r, f, m->signature, a));
    return tpl_capture(r, f, m->body, out);
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

typedef status exec_fn(struct render *r, struct frame *f, const struct node *n);
static exec_fn *const executors[N_NODE_KINDS] = {
    [N_BODY] = exec_body,
    [N_PRINT] = exec_print,
    [N_IF] = exec_if,
    [N_FOR] = tpl_exec_for,
    [N_SET] = exec_set,
    [N_SET_BLOCK] = exec_set_block,
    [N_MACRO] = exec_macro,
    [N_CALL_BLOCK] = exec_call_block,
    [N_FILTER_BLOCK] = exec_filter_block,
    [N_WITH] = exec_with,
    [N_GENERATION] = exec_generation,
    [N_BREAK] = exec_leave,
    [N_CONTINUE] = exec_leave,
};

status tpl_exec(struct render *r, struct frame *f, const struct node *n)
{
    r->line = n->line;
    TRY(tpl_spend(r, TPL_NODE_WORK));
    TRY(tpl_enter(r));
    TRY(executors[n->kind](r, f, n));
    tpl_leave(r);
    return ST_OK;
}
