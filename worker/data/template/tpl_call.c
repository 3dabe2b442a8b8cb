/* Calls: a built-in's arguments by name and position, and everything that can be called. */
#include <string.h>

#include "worker/data/template/tpl_tree.h"

const struct builtin *builtin_find(const struct builtin *table, struct word name)
{
    for (; table->name; table++)
        if (word_is(name, table->name)) return table;
    return NULL;
}

/* ---- binding ----------------------------------------------------------------------------------------------------- */

struct param {
    struct word name;
    bool optional;
};

/* "old new ?count" to a list; the number of it. */
static size_t params_of(const char *text, struct param out[TPL_MAX_ARGS])
{
    size_t n = 0;
    for (const char *p = text; *p && n < TPL_MAX_ARGS;) {
        bool optional = *p == '?';
        p += optional;
        size_t len = strcspn(p, " ");
        out[n++] = (struct param){{p, len}, optional};
        p += len + (p[len] == ' ');
    }
    return n;
}

static bool same_word(struct word w, struct value s) { return w.n == s.s->n && !memcmp(w.p, s.s->p, w.n); }

static status bind_named(struct call *c, const char *what, const struct param *params, size_t n, bool by_position)
{
    for (size_t k = 0; k < c->given->n_named; k++) {
        struct value name = c->given->named[k].key;
        size_t i = 0;
        while (i < n && !same_word(params[i].name, name)) i++;
        int shown = name.s->n > 60 ? 60 : (int)name.s->n;
        if (by_position || i == n) return tpl_fail(c->r, "%s '%s' takes no argument named '%.*s'", what, c->what->name, shown, name.s->p);
        if (c->arg[i].kind != V_ABSENT)
            return tpl_fail(c->r, "%s '%s' gets its argument '%.*s' twice", what, c->what->name, shown, name.s->p);
        c->arg[i] = c->given->named[k].value;
    }
    return ST_OK;
}

static status bind(struct call *c, const char *what)
{
    struct param params[TPL_MAX_ARGS];
    bool by_position = c->what->params[0] == '/';
    size_t n = params_of(c->what->params + (by_position ? 1 + (c->what->params[1] == ' ') : 0), params);
    if (c->given->n > n) return tpl_fail(c->r, "%s '%s' takes at most %zu arguments, %zu are given", what, c->what->name, n, c->given->n);
    for (size_t i = 0; i < c->given->n; i++) c->arg[i] = c->given->v[i];
    TRY(bind_named(c, what, params, n, by_position));
    for (size_t i = 0; i < n; i++)
        if (c->arg[i].kind == V_ABSENT && !params[i].optional)
            return tpl_fail(c->r, "%s '%s' lacks its argument '%.*s'", what, c->what->name, (int)params[i].name.n, params[i].name.p);
    return ST_OK;
}

status builtin_call(struct render *r, const char *what, const struct builtin *b, struct value self, const struct args *a, struct value *out)
{
    struct call c = {.r = r, .what = b, .self = self, .given = a};
    if (b->params) TRY(bind(&c, what));
    return b->fn(&c, out);
}

/* ---- reading arguments ------------------------------------------------------------------------------------------- */

bool arg_given(const struct call *c, int i) { return c->arg[i].kind != V_ABSENT && c->arg[i].kind != V_NONE; }

bool arg_true(const struct call *c, int i) { return value_true(c->arg[i]); }

status arg_int(struct call *c, int i, int64_t otherwise, int64_t *out)
{
    *out = otherwise;
    if (!arg_given(c, i)) return ST_OK;
    if (c->arg[i].kind == V_UNDEFINED) return tpl_fail_undefined(c->r, c->arg[i]);
    if (!is_integral(c->arg[i])) return tpl_fail(c->r, "'%s' needs an integer, not '%s'", c->what->name, kind_names[c->arg[i].kind]);
    *out = value_integer(c->arg[i]);
    return ST_OK;
}

status arg_str(struct call *c, int i, const char *otherwise, struct value *out)
{
    if (c->arg[i].kind == V_ABSENT) {
        *out = value_text(&c->r->pool, otherwise, strlen(otherwise), TEMPLATE_ITSELF);
        return ST_OK;
    }
    *out = c->arg[i];
    if (!is_string(*out)) return tpl_fail(c->r, "'%s' needs a string, not '%s'", c->what->name, kind_names[out->kind]);
    return ST_OK;
}

/* ---- what can be called ------------------------------------------------------------------------------------------ */

static status call_joiner(struct render *r, struct cycle *j, struct value *out)
{
    *out = j->at++ ? *j->v : value_text(&r->pool, "", 0, TEMPLATE_ITSELF);
    return ST_OK;
}

status value_call(struct render *r, struct value what, const struct args *a, struct value *out)
{
    static const struct args none;
    switch (what.kind) {
    case V_BOUND:
        return builtin_call(r, "function", what.bound->what, what.bound->self, a ? a : &none, out);
    case V_MACRO:
        return tpl_macro_call(r, what.macro, a, out);
    case V_LOOP:
        if (a->n != 1 || a->n_named) return tpl_fail(r, "loop() takes one argument");
        return tpl_loop_again(r, what.loop, a->v[0], out);
    case V_JOINER:
        return call_joiner(r, what.cycle, out);
    case V_UNDEFINED:
        return tpl_fail_undefined(r, what);
    default:
        return tpl_fail(r, "'%s' object is not callable", kind_names[what.kind]);
    }
}
