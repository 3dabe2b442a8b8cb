/* Functions that every template may call, and the variables that a rendering is given. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/data/template/tpl_tree.h"

static status global_raise(struct call *c, struct value *out)
{
    struct value words;
    (void)out;
    TRY(value_to_str(c->r, c->arg[0], &words));
    int n = words.s->n > 800 ? 800 : (int)words.s->n;
    return tpl_fail(c->r, "the chat template refuses this conversation: %.*s", n, words.s->p);
}

/* What a datetime without a zone prints for these; the rest is the C library's. */
static void spell_out(const char *format, struct buf *out)
{
    for (const char *p = format; *p; p++) {
        if (*p != '%' || !p[1]) {
            buf_add(out, p, 1);
            continue;
        }
        p++;
        if (*p == 'f')
            buf_text(out, "000000");
        else if (*p != 'z' && *p != 'Z')
            buf_add(out, p - 1, 2);
    }
}

static status global_strftime(struct call *c, struct value *out)
{
    struct value format;
    struct buf text = {0};
    struct tm tm;
    time_t now = (time_t)c->r->vars->now;
    char small[256];
    TRY(arg_str(c, 0, "", &format));
    if (format.s->n >= sizeof small || memchr(format.s->p, 0, format.s->n))
        return tpl_fail(c->r, "strftime_now: a format of %zu bytes", format.s->n);
    memcpy(small, format.s->p, format.s->n);
    small[format.s->n] = 0;
    spell_out(small, &text);
    char *made = pool_take(&c->r->pool, 4096);
    size_t n = text.len && localtime_r(&now, &tm) ? strftime(made, 4096, text.data, &tm) : 0;
    buf_release(&text);
    if (!text_is_utf8(made, n, &(size_t){0})) return tpl_fail(c->r, "strftime_now: the locale's text is not UTF-8");
    *out = value_text(&c->r->pool, made, n, TEMPLATE_ITSELF);
    return ST_OK;
}

static status global_range(struct call *c, struct value *out)
{
    int64_t start = 0, stop, step = 1;
    bool one = c->arg[1].kind == V_ABSENT;
    for (int i = 0; i < 3; i++)
        if (c->arg[i].kind == V_NONE) return tpl_fail(c->r, "'range' needs integers, not 'NoneType'");
    TRY(arg_int(c, one ? 1 : 0, 0, &start));
    TRY(arg_int(c, one ? 0 : 1, 0, &stop));
    TRY(arg_int(c, 2, 1, &step));
    if (!step) return tpl_fail(c->r, "'range': the step is zero");
    bool any = step > 0 ? start < stop : start > stop;
    uint64_t span = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop;
    uint64_t size = step > 0 ? (uint64_t)step : -(uint64_t)step, n = any ? (span - 1) / size + 1 : 0;
    if (n > TPL_MAX_RANGE) return tpl_fail(c->r, "'range': more than %d items", TPL_MAX_RANGE);
    struct range *made = pool_take(&c->r->pool, sizeof *made);
    *made = (struct range){start, stop, step, (size_t)n};
    *out = (struct value){.kind = V_RANGE, .range = made};
    return ST_OK;
}

static status put_pairs(struct call *c, struct value from, struct dict *d)
{
    const struct value *items, *pair;
    size_t n, two;
    if (from.kind == V_DICT) {
        for (size_t i = 0; i < from.d->n; i++) TRY(dict_put(c->r, d, from.d->v[i].key, from.d->v[i].value));
        return ST_OK;
    }
    TRY(value_items(c->r, from, &items, &n));
    for (size_t i = 0; i < n; i++) {
        TRY(value_items(c->r, items[i], &pair, &two));
        if (two != 2) return tpl_fail(c->r, "'%s' needs pairs", c->what->name);
        TRY(dict_put(c->r, d, pair[0], pair[1]));
    }
    return ST_OK;
}

status namespace_check(struct render *r, struct value name)
{
    if (is_string(name) && name.s->n && *name.s->p == '_') return tpl_fail(r, "a namespace has no attributes that begin with '_'");
    return ST_OK;
}

static status make_dict(struct call *c, enum kind kind, struct value *out)
{
    struct dict *d = pool_take(&c->r->pool, sizeof *d);
    *d = (struct dict){0};
    if (c->given->n > 1) return tpl_fail(c->r, "'%s' takes one argument by position", c->what->name);
    if (c->given->n) TRY(put_pairs(c, c->given->v[0], d));
    for (size_t i = 0; i < c->given->n_named; i++) TRY(dict_put(c->r, d, c->given->named[i].key, c->given->named[i].value));
    for (size_t i = 0; kind == V_NAMESPACE && i < d->n; i++) TRY(namespace_check(c->r, d->v[i].key));
    *out = (struct value){.kind = (uint8_t)kind, .d = d};
    return ST_OK;
}

static status global_dict(struct call *c, struct value *out) { return make_dict(c, V_DICT, out); }
static status global_namespace(struct call *c, struct value *out) { return make_dict(c, V_NAMESPACE, out); }

static struct value make_cycle(struct render *r, enum kind kind, const struct value *v, size_t n)
{
    struct cycle *made = pool_take(&r->pool, sizeof *made);
    *made = (struct cycle){.v = v, .n = n};
    return (struct value){.kind = (uint8_t)kind, .cycle = made};
}

static status global_cycler(struct call *c, struct value *out)
{
    if (!c->given->n) return tpl_fail(c->r, "'cycler' has nothing to choose from");
    *out = make_cycle(c->r, V_CYCLER, c->given->v, c->given->n);
    return ST_OK;
}

static status global_joiner(struct call *c, struct value *out)
{
    struct value *sep = pool_take(&c->r->pool, sizeof *sep);
    TRY(arg_str(c, 0, ", ", sep));
    *out = make_cycle(c->r, V_JOINER, sep, 1);
    return ST_OK;
}

static status cycler_next(struct call *c, struct value *out)
{
    struct cycle *k = c->self.cycle;
    *out = k->v[k->at];
    k->at = (k->at + 1) % k->n;
    return ST_OK;
}

static status cycler_reset(struct call *c, struct value *out)
{
    c->self.cycle->at = 0;
    *out = value_none();
    return ST_OK;
}

const struct builtin tpl_cycler_methods[] = {
    {"next", "/", cycler_next, false},
    {"reset", "/", cycler_reset, false},
    {"current", NULL, NULL, false},
    {NULL, NULL, NULL, false},
};

const struct builtin tpl_globals[] = {
    {"raise_exception", "message", global_raise, false},
    {"strftime_now", "format", global_strftime, false},
    {"namespace", NULL, global_namespace, false},
    {"range", "/ start ?stop ?step", global_range, false},
    {"dict", NULL, global_dict, false},
    {"cycler", NULL, global_cycler, false},
    {"joiner", "?sep", global_joiner, false},
    {"lipsum", NULL, NULL, false},
    {"self", NULL, NULL, false},
    {NULL, NULL, NULL, false},
};

/* ---- variables --------------------------------------------------------------------------------------------------- */

/* What transformers passes by these names, whatever `extra` holds. */
static status given_variable(struct render *r, struct word name, struct value *out, bool *found)
{
    const struct template_vars *vars = r->vars;
    *found = true;
    if (word_is(name, "messages")) return value_from_messages(r, vars->messages, vars->n_messages, out);
    if (word_is(name, "add_generation_prompt")) {
        *out = value_bool(vars->add_generation_prompt);
        return ST_OK;
    }
    if (word_is(name, "tools") && vars->tools) return value_from_json(r, vars->tools, TEMPLATE_TOOLS, out);
    *found = false;
    return ST_OK;
}

static status find_global(struct render *r, struct word name, struct value *out)
{
    bool found;
    TRY(given_variable(r, name, out, &found));
    if (found) return ST_OK;
    char *text = mem_printf("%.*s", (int)name.n, name.p);
    const json_t *extra = json_object_get(r->vars->extra, text);
    free(text);
    if (extra) return value_from_json(r, extra, TEMPLATE_ITSELF, out);
    if (word_is(name, "tools") || word_is(name, "documents")) { /* passed as None */
        *out = value_none();
        return ST_OK;
    }
    const struct builtin *b = builtin_find(tpl_globals, name);
    if (!b) {
        *out = value_undefined(r, (struct value){0}, value_text(&r->pool, name.p, name.n, TEMPLATE_ITSELF));
        return ST_OK;
    }
    if (!b->fn) return tpl_fail_unbuilt(r, "the global '%s' is not built here", b->name);
    struct bound *bound = pool_take(&r->pool, sizeof *bound);
    *bound = (struct bound){.what = b};
    *out = (struct value){.kind = V_BOUND, .bound = bound};
    return ST_OK;
}

status tpl_global(struct render *r, int symbol, struct value *out)
{
    if (r->global[symbol].kind == V_ABSENT) TRY(find_global(r, r->t->symbol[symbol], &r->global[symbol]));
    *out = r->global[symbol];
    return ST_OK;
}
