/* The room's front: compile, ask, render. */
#include "worker/data/template/template.h"

#include <stdlib.h>
#include <string.h>

#include "worker/data/template/tpl_tree.h"

const char *const kind_names[N_KINDS] = {
    "nothing",
    "Undefined",
    "NoneType",
    "bool",
    "int",
    "float",
    "str",
    "list",
    "tuple",
    "dict",
    "dict view",
    "range",
    "generator",
    "Namespace",
    "LoopContext",
    "Macro",
    "builtin_function_or_method",
    "Cycler",
    "Joiner",
};

status template_compile(const char *name, const char *text, size_t n, struct template **out)
{
    struct template *t = mem_alloc(sizeof *t);
    struct tokens tokens = {0};
    status st;
    t->name = mem_strdup(name);
    t->loop_symbol = -1;
    TRY_DONE(tpl_lex(t->name, text, n, &t->pool, &tokens));
    TRY_DONE(tpl_parse(t, &tokens));
    for (int i = 0; i < t->n_symbols; i++)
        if (word_is(t->symbol[i], "loop")) t->loop_symbol = i;
    tpl_find_fresh(t);
    *out = t;
    t = NULL;
done:
    free(tokens.v);
    template_free(t);
    return st;
}

void template_free(struct template *t)
{
    if (!t) return;
    pool_release(&t->pool);
    free(t->symbol);
    free(t->said);
    free(t->name);
    free(t);
}

bool template_mentions(const struct template *t, const char *word)
{
    for (size_t i = 0; i < t->n_said; i++)
        if (word_is(t->said[i], word)) return true;
    return false;
}

bool template_marks_generation(const struct template *t) { return t->marks_generation; }

void template_text_release(struct template_text *t)
{
    buf_release(&t->text);
    free(t->origin);
    free(t->generation);
    *t = (struct template_text){0};
}

/* ---- rendering --------------------------------------------------------------------------------------------------- */

static void add_span(struct template_text *out, size_t begin, size_t end)
{
    if (out->n_generation == out->cap_generation) {
        out->cap_generation = out->cap_generation ? out->cap_generation * 2 : 8;
        out->generation = mem_grow(out->generation, out->cap_generation * sizeof *out->generation);
    }
    out->generation[out->n_generation++] = (struct template_span){begin, end};
}

/* The text to the caller's memory; what {% generation %} marked becomes spans. */
static void hand_over(const struct build *b, struct template_text *out)
{
    buf_clear(&out->text);
    buf_add(&out->text, b->p, b->n);
    out->n_generation = 0;
    if (out->cap_origin < b->n) {
        out->cap_origin = b->n;
        out->origin = mem_grow(out->origin, b->n * sizeof *out->origin);
    }
    size_t begin = 0;
    for (size_t i = 0; i < b->n; i++) {
        bool marked = b->o[i] & TPL_GENERATED, before = i && b->o[i - 1] & TPL_GENERATED;
        if (marked && !before) begin = i;
        if (!marked && before) add_span(out, begin, i);
        out->origin[i] = b->o[i] & ~TPL_GENERATED;
    }
    if (b->n && b->o[b->n - 1] & TPL_GENERATED) add_span(out, begin, b->n);
}

status template_render(const struct template *t, const struct template_vars *vars, struct template_text *out)
{
    struct render r = {.t = t, .vars = vars, .line = 1};
    struct build text = {.r = &r};
    size_t globals = (size_t)t->n_symbols * sizeof *r.global;
    r.out = &text;
    r.global = pool_take(&r.pool, globals);
    memset(r.global, 0, globals);
    status st = tpl_exec(&r, frame_new(&r, NULL, t->body), t->body);
    if (!st) hand_over(&text, out);
    pool_release(&r.pool);
    return st;
}
