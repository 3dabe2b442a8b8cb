/* Tokens to statements. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "worker/data/template/tpl_tree.h"

static status fail_at(const struct parser *p, status code, int line, const char *fmt, va_list ap)
{
    char what[512];
    vsnprintf(what, sizeof what, fmt, ap);
    if (code == ST_NOT_BUILT) FAIL(code, "%s:%d: %s: this part of Jinja is not built here", p->t->name, line, what);
    FAIL(code, "%s:%d: %s", p->t->name, line, what);
}

status parse_fail(const struct parser *p, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    status st = fail_at(p, ST_CORRUPT, line, fmt, ap);
    va_end(ap);
    return st;
}

status parse_unbuilt(const struct parser *p, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    status st = fail_at(p, ST_NOT_BUILT, line, fmt, ap);
    va_end(ap);
    return st;
}

const char *token_text(const struct token *t, char out[48])
{
    static const char *const names[] = {[T_EOF] = "the end of the template",
                                        [T_DATA] = "text",
                                        [T_PRINT] = "'{{'",
                                        [T_PRINT_END] = "'}}'",
                                        [T_TAG] = "'{%'",
                                        [T_TAG_END] = "'%}'",
                                        [T_STRING] = "a string",
                                        [T_INT] = "an integer",
                                        [T_FLOAT] = "a number"};
    if (t->kind != T_NAME && t->kind != T_OP) return names[t->kind];
    snprintf(out, 48, "'%.*s'", t->word.n > 40 ? 40 : (int)t->word.n, t->word.p);
    return out;
}

bool take_op(struct parser *p, const char *op)
{
    bool is = at_op(p, op);
    p->at += is;
    return is;
}

bool take_name(struct parser *p, const char *name)
{
    bool is = at_name(p, name);
    p->at += is;
    return is;
}

static status expected(struct parser *p, const char *what)
{
    char got[48];
    return parse_fail(p, p->at->line, "expected %s, got %s", what, token_text(p->at, got));
}

status need_op(struct parser *p, const char *op)
{
    char what[8];
    snprintf(what, sizeof what, "'%s'", op);
    return take_op(p, op) ? ST_OK : expected(p, what);
}

status need_name(struct parser *p, struct word *name)
{
    if (p->at->kind != T_NAME) return expected(p, "a name");
    *name = p->at++->word;
    return ST_OK;
}

status parse_enter(struct parser *p)
{
    if (p->depth == TPL_MAX_NESTING) return parse_fail(p, p->at->line, "nested too deeply (more than %d)", p->depth);
    p->depth++;
    return ST_OK;
}

int parse_symbol(struct parser *p, struct word name)
{
    struct template *t = p->t;
    for (struct signature *s = p->in; s; s = s->around) {
        s->takes_varargs |= word_is(name, "varargs");
        s->takes_kwargs |= word_is(name, "kwargs");
        s->takes_caller |= word_is(name, "caller");
    }
    for (int i = 0; i < t->n_symbols; i++)
        if (t->symbol[i].n == name.n && !memcmp(t->symbol[i].p, name.p, name.n)) return i;
    if (t->n_symbols == t->cap_symbols) {
        t->cap_symbols = t->cap_symbols ? t->cap_symbols * 2 : 32;
        t->symbol = mem_grow(t->symbol, (size_t)t->cap_symbols * sizeof *t->symbol);
    }
    t->symbol[t->n_symbols] = name;
    return t->n_symbols++;
}

struct node *node_new(struct parser *p, enum node_kind kind, int line)
{
    struct node *n = pool_take(&p->t->pool, sizeof *n);
    *n = (struct node){.kind = kind, .line = line};
    return n;
}

status node_done(struct parser *p, struct node *n, struct node **out)
{
    const struct node *child[] = {n->a, n->b, n->c, n->target, n->test};
    for (size_t i = 0; i < sizeof child / sizeof *child; i++)
        if (child[i] && child[i]->depth > n->depth) n->depth = child[i]->depth;
    for (size_t i = 0; i < n->n; i++)
        if (n->v[i] && n->v[i]->depth > n->depth) n->depth = n->v[i]->depth;
    if (++n->depth > TPL_MAX_TREE) return parse_fail(p, n->line, "nested too deeply (more than %d)", TPL_MAX_TREE);
    *out = n;
    return ST_OK;
}

/* ---- bodies ------------------------------------------------------------------------------------------------------ */

static status parse_statement(struct parser *p, struct node **out);

static bool at_any(const struct parser *p, const char *const *names)
{
    for (; names && *names; names++)
        if (at_name(p, *names)) return true;
    return false;
}

/* Up to {% one of `ends`, which is left to the caller; NULL: to the end of the template. */
static status parse_body(struct parser *p, const char *const *ends, struct node **out)
{
    struct node *body = node_new(p, N_BODY, p->at->line), *n;
    struct node_list l = {0};
    TRY(parse_enter(p));
    while (p->at->kind != T_EOF) {
        if (p->at->kind == T_DATA) {
            n = node_new(p, N_CONST, p->at->line);
            n->value = value_text(&p->t->pool, p->at->word.p, p->at->word.n, TEMPLATE_ITSELF);
            p->at++;
            struct node *print = node_new(p, N_PRINT, n->line);
            print->a = n;
            TRY(node_done(p, print, &n));
        } else if (p->at->kind == T_PRINT) {
            struct node *print = node_new(p, N_PRINT, p->at++->line);
            TRY(parse_tuple(p, (struct tuple_rules){0}, &print->a));
            if (p->at->kind != T_PRINT_END) return expected(p, "'}}'");
            p->at++;
            TRY(node_done(p, print, &n));
        } else {
            p->at++;
            if (at_any(p, ends)) break;
            TRY(parse_statement(p, &n));
            if (p->at->kind != T_TAG_END) return expected(p, "'%}'");
            p->at++;
        }
        node_push(p, &l, n);
    }
    if (ends && p->at->kind == T_EOF) return parse_fail(p, p->at->line, "the template ends within a block that %s would close", *ends);
    p->depth--;
    body->v = l.v;
    body->n = l.n;
    return node_done(p, body, out);
}

/* The rest of the tag, a body, and the name of its end; *end: which of `ends` it was. */
static status parse_block(struct parser *p, const char *const *ends, struct node **out, struct word *end)
{
    take_op(p, ":");
    if (p->at->kind != T_TAG_END) return expected(p, "'%}'");
    p->at++;
    TRY(parse_body(p, ends, out));
    return need_name(p, end);
}

/* A body of which nothing but text comes out: break and continue do not cross it. */
static status parse_closed_block(struct parser *p, const char *end, struct node **out)
{
    struct word word;
    int loops = p->loops;
    p->loops = 0;
    TRY(parse_block(p, (const char *const[]){end, NULL}, out, &word));
    p->loops = loops;
    return ST_OK;
}

/* ---- targets ----------------------------------------------------------------------------------------------------- */

static status check_target(struct parser *p, const struct node *n)
{
    if (n->kind == N_NAME || n->kind == N_NAMESPACE_ATTR) return ST_OK;
    if (n->kind != N_TUPLE) return parse_fail(p, n->line, "this cannot be assigned to");
    for (size_t i = 0; i < n->n; i++) TRY(check_target(p, n->v[i]));
    return ST_OK;
}

static status parse_target(struct parser *p, bool namespaces, const char *end, struct node **out)
{
    TRY(parse_tuple(p, (struct tuple_rules){.simple = true, .namespaces = namespaces, .end = end}, out));
    return check_target(p, *out);
}

/* ---- statements -------------------------------------------------------------------------------------------------- */

static status parse_if(struct parser *p, struct node *n)
{
    struct node_list l = {0};
    struct word end;
    p->soft++;
    do {
        struct node *part;
        TRY(parse_tuple(p, (struct tuple_rules){.no_cond = true}, &part));
        node_push(p, &l, part);
        TRY(parse_block(p, (const char *const[]){"endif", "elif", "else", NULL}, &part, &end));
        node_push(p, &l, part);
    } while (word_is(end, "elif"));
    if (word_is(end, "else")) TRY(parse_block(p, (const char *const[]){"endif", NULL}, &n->c, &end));
    p->soft--;
    n->v = l.v;
    n->n = l.n;
    return ST_OK;
}

static status parse_for(struct parser *p, struct node *n)
{
    struct word end;
    TRY(parse_target(p, false, "in", &n->target));
    if (n->target->kind == N_NAME && word_is(p->t->symbol[n->target->symbol], "loop"))
        return parse_fail(p, n->line, "a for loop cannot assign to 'loop'");
    if (!take_name(p, "in")) return expected(p, "'in'");
    TRY(parse_tuple(p, (struct tuple_rules){.no_cond = true, .end = "recursive"}, &n->a));
    if (take_name(p, "if")) TRY(parse_expression(p, true, &n->test));
    n->recursive = take_name(p, "recursive");
    p->loops++;
    TRY(parse_block(p, (const char *const[]){"endfor", "else", NULL}, &n->b, &end));
    p->loops--;
    if (word_is(end, "else")) TRY(parse_block(p, (const char *const[]){"endfor", NULL}, &n->c, &end));
    return ST_OK;
}

static status parse_set(struct parser *p, struct node *n)
{
    struct word end;
    TRY(parse_target(p, true, NULL, &n->target));
    if (take_op(p, "=")) return parse_tuple(p, (struct tuple_rules){0}, &n->a);
    n->kind = N_SET_BLOCK;
    TRY(parse_filters(p, NULL, false, &n->a));
    return parse_block(p, (const char *const[]){"endset", NULL}, &n->b, &end);
}

static status parse_signature(struct parser *p, struct signature *s)
{
    int symbols[TPL_MAX_NESTING];
    struct node *otherwise[TPL_MAX_NESTING];
    TRY(need_op(p, "("));
    while (!at_op(p, ")")) {
        struct word name;
        if (s->n) TRY(need_op(p, ","));
        if (s->n == TPL_MAX_NESTING) return parse_fail(p, p->at->line, "too many parameters");
        TRY(need_name(p, &name));
        otherwise[s->n] = NULL;
        symbols[s->n] = parse_symbol(p, name);
        if (take_op(p, "="))
            TRY(parse_expression(p, true, &otherwise[s->n]));
        else if (s->n && otherwise[s->n - 1])
            return parse_fail(p, p->at->line, "a parameter without a default follows one that has one");
        s->n++;
    }
    p->at++;
    s->symbol = pool_take(&p->t->pool, s->n * sizeof *symbols + 1);
    s->otherwise = pool_take(&p->t->pool, s->n * sizeof *otherwise + 1);
    memcpy(s->symbol, symbols, s->n * sizeof *symbols);
    memcpy(s->otherwise, otherwise, s->n * sizeof *otherwise);
    return ST_OK;
}

static struct signature *signature_new(struct parser *p, struct word name)
{
    struct signature *s = pool_take(&p->t->pool, sizeof *s);
    *s = (struct signature){.name = name};
    return s;
}

/* The body of a macro or call block. `varargs` and the others are parameters where the body says them. */
static status parse_macro_body(struct parser *p, struct signature *s, const char *end, struct node **out)
{
    s->around = p->in;
    p->in = s;
    TRY(parse_closed_block(p, end, out));
    p->in = s->around;
    s->varargs = s->takes_varargs ? parse_symbol(p, WORD("varargs")) : -1;
    s->kwargs = s->takes_kwargs ? parse_symbol(p, WORD("kwargs")) : -1;
    s->caller = s->takes_caller ? parse_symbol(p, WORD("caller")) : -1;
    for (size_t i = 0; i < s->n; i++)
        if (s->symbol[i] == s->caller || s->symbol[i] == s->kwargs || s->symbol[i] == s->varargs)
            return parse_unbuilt(p, (*out)->line, "a parameter named caller, kwargs or varargs");
    return ST_OK;
}

static status parse_macro(struct parser *p, struct node *n)
{
    struct word name;
    TRY(need_name(p, &name));
    struct signature *s = signature_new(p, name);
    n->symbol = parse_symbol(p, name);
    n->signature = s;
    TRY(parse_signature(p, s));
    return parse_macro_body(p, s, "endmacro", &n->b);
}

static status parse_call_block(struct parser *p, struct node *n)
{
    struct signature *s = signature_new(p, WORD("caller"));
    n->signature = s;
    if (at_op(p, "(")) TRY(parse_signature(p, s));
    TRY(parse_expression(p, true, &n->a));
    if (n->a->kind != N_CALL) return parse_fail(p, n->line, "expected a call");
    return parse_macro_body(p, s, "endcall", &n->b);
}

static status parse_filter_block(struct parser *p, struct node *n)
{
    struct word end;
    TRY(parse_filters(p, NULL, true, &n->a));
    return parse_block(p, (const char *const[]){"endfilter", NULL}, &n->b, &end);
}

static status parse_with(struct parser *p, struct node *n)
{
    struct node_list l = {0};
    struct word end;
    while (p->at->kind != T_TAG_END) {
        struct node *part;
        if (l.n) TRY(need_op(p, ","));
        TRY(parse_target(p, false, NULL, &part));
        node_push(p, &l, part);
        TRY(need_op(p, "="));
        TRY(parse_expression(p, true, &part));
        node_push(p, &l, part);
    }
    n->v = l.v;
    n->n = l.n;
    return parse_block(p, (const char *const[]){"endwith", NULL}, &n->b, &end);
}

static status parse_generation(struct parser *p, struct node *n)
{
    p->t->marks_generation = true;
    return parse_closed_block(p, "endgeneration", &n->b);
}

static status parse_print(struct parser *p, struct node *n)
{
    struct node_list l = {0};
    n->kind = N_BODY;
    while (p->at->kind != T_TAG_END) {
        struct node *print = node_new(p, N_PRINT, n->line);
        if (l.n) TRY(need_op(p, ","));
        TRY(parse_expression(p, true, &print->a));
        TRY(node_done(p, print, &print));
        node_push(p, &l, print);
    }
    n->v = l.v;
    n->n = l.n;
    return ST_OK;
}

static status parse_leave(struct parser *p, struct node *n)
{
    if (!p->loops) return parse_fail(p, n->line, "'%s' outside of a loop", n->kind == N_BREAK ? "break" : "continue");
    return ST_OK;
}

static const struct {
    const char *tag;
    enum node_kind kind;
    status (*parse)(struct parser *p, struct node *n); /* NULL: Jinja's, not built */
} statements[] = {
    {"if", N_IF, parse_if},
    {"for", N_FOR, parse_for},
    {"set", N_SET, parse_set},
    {"macro", N_MACRO, parse_macro},
    {"call", N_CALL_BLOCK, parse_call_block},
    {"filter", N_FILTER_BLOCK, parse_filter_block},
    {"with", N_WITH, parse_with},
    {"generation", N_GENERATION, parse_generation},
    {"print", N_BODY, parse_print},
    {"break", N_BREAK, parse_leave},
    {"continue", N_CONTINUE, parse_leave},
    {"include", N_BODY, NULL},
    {"extends", N_BODY, NULL},
    {"import", N_BODY, NULL},
    {"from", N_BODY, NULL},
    {"block", N_BODY, NULL},
    {"autoescape", N_BODY, NULL},
};

static status parse_statement(struct parser *p, struct node **out)
{
    if (p->at->kind != T_NAME) return expected(p, "the name of a tag");
    const struct token *tag = p->at;
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!word_is(tag->word, statements[i].tag)) continue;
        if (!statements[i].parse) return parse_unbuilt(p, tag->line, "the tag '%s'", statements[i].tag);
        struct node *n = node_new(p, statements[i].kind, tag->line);
        p->at++;
        TRY(statements[i].parse(p, n));
        return node_done(p, n, out);
    }
    char got[48];
    return parse_fail(p, tag->line, "unknown tag %s", token_text(tag, got));
}

status tpl_parse(struct template *t, const struct tokens *tokens)
{
    struct parser p = {.t = t, .at = tokens->v};
    return parse_body(&p, NULL, &t->body);
}
