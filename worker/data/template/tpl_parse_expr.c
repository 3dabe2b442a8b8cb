/* Tokens to expressions: Jinja's precedences, lowest first: if, or, and, not, comparisons, + -, ~, * / // %, **, signs,
 * then postfix, filters and tests. */
#include <string.h>

#include "worker/data/template/tpl_tree.h"

static status parse_or(struct parser *p, struct node **out);
static status parse_unary(struct parser *p, bool with_filters, struct node **out);

void node_push(struct parser *p, struct node_list *l, struct node *n)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 4;
        struct node **v = pool_take(&p->t->pool, cap * sizeof *v);
        if (l->n) memcpy(v, l->v, l->n * sizeof *v);
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = n;
}

static status finish(struct parser *p, enum node_kind kind, int line, struct node_list l, struct node **out)
{
    struct node *n = node_new(p, kind, line);
    n->v = l.v;
    n->n = l.n;
    return node_done(p, n, out);
}

static status join(struct parser *p, enum node_kind kind, int line, struct node *a, struct node *b, int op, struct node **out)
{
    struct node *n = node_new(p, kind, line);
    n->a = a;
    n->b = b;
    n->op = op;
    return node_done(p, n, out);
}

static struct value text_value(struct parser *p, struct word w) { return value_text(&p->t->pool, w.p, w.n, TEMPLATE_ITSELF); }

static void say(struct parser *p, struct word w)
{
    struct template *t = p->t;
    for (size_t i = 0; i < t->n_said; i++)
        if (t->said[i].n == w.n && !memcmp(t->said[i].p, w.p, w.n)) return;
    if (t->n_said == t->cap_said) {
        t->cap_said = t->cap_said ? t->cap_said * 2 : 64;
        t->said = mem_grow(t->said, t->cap_said * sizeof *t->said);
    }
    t->said[t->n_said++] = w;
}

/* ---- primaries --------------------------------------------------------------------------------------------------- */

static status parse_name(struct parser *p, bool namespaces, struct node **out)
{
    static const struct {
        const char *name;
        struct value value;
    } constants[] = {{"true", {.kind = V_BOOL, .b = true}},
                     {"True", {.kind = V_BOOL, .b = true}},
                     {"false", {.kind = V_BOOL}},
                     {"False", {.kind = V_BOOL}},
                     {"none", {.kind = V_NONE}},
                     {"None", {.kind = V_NONE}}};
    const struct token *t = p->at++;
    struct node *n = node_new(p, N_NAME, t->line);
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (word_is(t->word, constants[i].name)) {
            n->kind = N_CONST;
            n->value = constants[i].value;
            return node_done(p, n, out);
        }
    say(p, t->word);
    n->symbol = parse_symbol(p, t->word);
    if (namespaces && take_op(p, ".")) {
        struct word attr;
        TRY(need_name(p, &attr));
        n->kind = N_NAMESPACE_ATTR;
        n->value = text_value(p, attr);
    }
    return node_done(p, n, out);
}

/* Neighbouring literals are one string. */
static status parse_string(struct parser *p, struct node **out)
{
    struct node *n = node_new(p, N_CONST, p->at->line);
    size_t bytes = 0, to = 0;
    const struct token *end = p->at;
    for (; end->kind == T_STRING; end++) {
        bytes += end->word.n;
        say(p, end->word);
    }
    char *text = pool_take(&p->t->pool, bytes + 1);
    for (; p->at < end; p->at++) {
        memcpy(text + to, p->at->word.p, p->at->word.n);
        to += p->at->word.n;
    }
    n->value = text_value(p, (struct word){text, to});
    return node_done(p, n, out);
}

static status parse_number(struct parser *p, struct node **out)
{
    struct node *n = node_new(p, N_CONST, p->at->line);
    n->value = p->at->kind == T_INT ? value_int(p->at->i) : value_float(p->at->f);
    p->at++;
    return node_done(p, n, out);
}

static status parse_list(struct parser *p, struct node **out)
{
    int line = p->at++->line;
    struct node_list l = {0};
    while (!at_op(p, "]")) {
        struct node *item;
        if (l.n) TRY(need_op(p, ","));
        if (at_op(p, "]")) break;
        TRY(parse_expression(p, true, &item));
        node_push(p, &l, item);
    }
    p->at++;
    return finish(p, N_LIST, line, l, out);
}

static status parse_dict(struct parser *p, struct node **out)
{
    int line = p->at++->line;
    struct node_list l = {0};
    while (!at_op(p, "}")) {
        struct node *item;
        if (l.n) TRY(need_op(p, ","));
        if (at_op(p, "}")) break;
        TRY(parse_expression(p, true, &item));
        node_push(p, &l, item);
        TRY(need_op(p, ":"));
        TRY(parse_expression(p, true, &item));
        node_push(p, &l, item);
    }
    p->at++;
    return finish(p, N_DICT, line, l, out);
}

static status parse_primary(struct parser *p, bool namespaces, struct node **out)
{
    switch (p->at->kind) {
    case T_NAME:
        return parse_name(p, namespaces, out);
    case T_STRING:
        return parse_string(p, out);
    case T_INT:
    case T_FLOAT:
        return parse_number(p, out);
    default:
        break;
    }
    if (at_op(p, "[")) return parse_list(p, out);
    if (at_op(p, "{")) return parse_dict(p, out);
    if (!at_op(p, "(")) {
        char got[48];
        return parse_fail(p, p->at->line, "unexpected %s", token_text(p->at, got));
    }
    p->at++;
    TRY(parse_tuple(p, (struct tuple_rules){.in_parentheses = true, .namespaces = namespaces}, out));
    return need_op(p, ")");
}

static bool tuple_ends(const struct parser *p, const struct tuple_rules *rules)
{
    return p->at->kind == T_PRINT_END || p->at->kind == T_TAG_END || at_op(p, ")") || (rules->end && at_name(p, rules->end));
}

status parse_tuple(struct parser *p, struct tuple_rules rules, struct node **out)
{
    struct node_list l = {0};
    int line = p->at->line;
    bool commas = false;
    TRY(parse_enter(p));
    for (;;) {
        struct node *item;
        if (l.n) TRY(need_op(p, ","));
        if (tuple_ends(p, &rules)) break;
        TRY(rules.simple ? parse_primary(p, rules.namespaces, &item) : parse_expression(p, !rules.no_cond, &item));
        node_push(p, &l, item);
        if (!at_op(p, ",")) break;
        commas = true;
    }
    p->depth--;
    if (!commas && l.n) {
        *out = l.v[0];
        return ST_OK;
    }
    if (!commas && !rules.in_parentheses) {
        char got[48];
        return parse_fail(p, p->at->line, "expected an expression, got %s", token_text(p->at, got));
    }
    return finish(p, N_TUPLE, line, l, out);
}

/* ---- what follows a primary -------------------------------------------------------------------------------------- */

static status parse_named_arg(struct parser *p, struct named_arg *a, size_t *n, int line)
{
    if (*n == TPL_MAX_NESTING) return parse_fail(p, line, "too many named arguments");
    a[*n].name = text_value(p, p->at->word);
    for (size_t i = 0; i < *n; i++)
        if (p->at->word.n == a[i].name.s->n && !memcmp(p->at->word.p, a[i].name.s->p, p->at->word.n))
            return parse_fail(p, line, "an argument is named twice");
    p->at += 2;
    TRY(parse_expression(p, true, &a[*n].node));
    ++*n;
    return ST_OK;
}

static status parse_arg(struct parser *p, struct call_args *a, struct node_list *l)
{
    int line = p->at->line;
    struct node *item;
    bool star = at_op(p, "*"), star_star = at_op(p, "**");
    bool named = p->at->kind == T_NAME && p->at[1].kind == T_OP && word_is(p->at[1].word, "=");
    if (a->star_star || (a->star && !star_star && !named) || (!star && !star_star && !named && a->n_named))
        return parse_fail(p, line, "invalid order of arguments in a call");
    if (named) return parse_named_arg(p, a->named, &a->n_named, line);
    if (star || star_star) p->at++;
    TRY(parse_expression(p, true, &item));
    if (star)
        a->star = item;
    else if (star_star)
        a->star_star = item;
    else
        node_push(p, l, item);
    return ST_OK;
}

/* ( … ); *deep: of the deepest argument. */
static status parse_args(struct parser *p, const struct call_args **out, int *deep)
{
    struct named_arg named[TPL_MAX_NESTING];
    struct call_args a = {.named = named}, *kept;
    struct node_list l = {0};
    p->at++;
    for (bool first = true; !at_op(p, ")"); first = false) {
        if (!first) TRY(need_op(p, ","));
        if (at_op(p, ")")) break;
        TRY(parse_arg(p, &a, &l));
    }
    p->at++;
    a.v = l.v;
    a.n = l.n;
    *deep = 0;
    for (size_t i = 0; i < a.n; i++) *deep = a.v[i]->depth > *deep ? a.v[i]->depth : *deep;
    for (size_t i = 0; i < a.n_named; i++) *deep = named[i].node->depth > *deep ? named[i].node->depth : *deep;
    if (a.star && a.star->depth > *deep) *deep = a.star->depth;
    if (a.star_star && a.star_star->depth > *deep) *deep = a.star_star->depth;
    a.named = pool_take(&p->t->pool, a.n_named * sizeof *named);
    if (a.n_named) memcpy(a.named, named, a.n_named * sizeof *named);
    kept = pool_take(&p->t->pool, sizeof *kept);
    *kept = a;
    *out = kept;
    return ST_OK;
}

static const struct call_args no_args;

/* Methods that Python has and this engine has not: said before a row is rendered. */
static const char *const foreign_methods[] = {"encode", "translate", "maketrans", "format_map", NULL};

static status parse_call(struct parser *p, struct node *of, struct node **out)
{
    struct node *n = node_new(p, N_CALL, p->at->line);
    for (int i = 0; of->kind == N_ATTR && foreign_methods[i]; i++)
        if (str_is(of->value, foreign_methods[i])) return parse_unbuilt(p, n->line, "the method .%s()", foreign_methods[i]);
    n->a = of;
    TRY(parse_args(p, &n->args, &n->depth));
    return node_done(p, n, out);
}

/* a, a:b, a:b:c between brackets. */
static status parse_subscript(struct parser *p, struct node **out)
{
    struct node *bound[3] = {NULL};
    int line = p->at->line;
    if (!at_op(p, ":")) {
        TRY(parse_expression(p, true, &bound[0]));
        if (!at_op(p, ":")) {
            *out = bound[0];
            return ST_OK;
        }
    }
    for (int i = 1; i < 3 && take_op(p, ":"); i++)
        if (!at_op(p, ":") && !at_op(p, "]") && !at_op(p, ",")) TRY(parse_expression(p, true, &bound[i]));
    struct node_list l = {0};
    for (int i = 0; i < 3; i++) node_push(p, &l, bound[i]);
    return finish(p, N_SLICE, line, l, out);
}

static status parse_item(struct parser *p, struct node *of, struct node **out)
{
    int line = p->at++->line;
    struct node_list l = {0};
    while (!at_op(p, "]")) {
        struct node *item;
        if (l.n) TRY(need_op(p, ","));
        TRY(parse_subscript(p, &item));
        node_push(p, &l, item);
    }
    p->at++;
    struct node *index = l.n == 1 ? l.v[0] : NULL;
    if (!index) {
        for (size_t i = 0; i < l.n; i++)
            if (l.v[i]->kind == N_SLICE) return parse_unbuilt(p, line, "a slice of several dimensions");
        TRY(finish(p, N_TUPLE, line, l, &index));
    }
    if (index->kind == N_SLICE) {
        index->a = of;
        return node_done(p, index, out);
    }
    return join(p, N_ITEM, line, of, index, 0, out);
}

static status parse_attr(struct parser *p, struct node *of, struct node **out)
{
    int line = p->at++->line;
    const struct token *t = p->at++;
    if (t->kind == T_INT) {
        struct node *index = node_new(p, N_CONST, line);
        index->value = value_int(t->i);
        return join(p, N_ITEM, line, of, index, 0, out);
    }
    if (t->kind != T_NAME) return parse_fail(p, line, "expected a name or a number after '.'");
    say(p, t->word);
    struct node *n = node_new(p, N_ATTR, line);
    n->a = of;
    n->value = text_value(p, t->word);
    return node_done(p, n, out);
}

static status parse_postfix(struct parser *p, struct node **n)
{
    for (;;) {
        if (at_op(p, "."))
            TRY(parse_attr(p, *n, n));
        else if (at_op(p, "["))
            TRY(parse_item(p, *n, n));
        else if (at_op(p, "("))
            TRY(parse_call(p, *n, n));
        else
            return ST_OK;
    }
}

/* ---- filters and tests ------------------------------------------------------------------------------------------- */

/* A name, with dots. */
static status parse_dotted(struct parser *p, struct value *out)
{
    struct word w;
    TRY(need_name(p, &w));
    const char *end = w.p + w.n;
    while (take_op(p, ".")) {
        struct word more;
        TRY(need_name(p, &more));
        end = more.p + more.n;
    }
    *out = text_value(p, (struct word){w.p, (size_t)(end - w.p)});
    return ST_OK;
}

/* Finds n->value in the table. */
static status resolve(struct parser *p, struct node *n, const struct builtin *table, const char *what)
{
    struct word name = {n->value.s->p, n->value.s->n};
    n->builtin = builtin_find(table, name);
    if (n->builtin && !n->builtin->fn) return parse_unbuilt(p, n->line, "the %s '%s'", what, n->builtin->name);
    if (!n->builtin && !p->soft) return parse_fail(p, n->line, "no %s is named '%.*s'", what, name.n > 60 ? 60 : (int)name.n, name.p);
    return ST_OK;
}

status parse_filters(struct parser *p, struct node *of, bool first_without_bar, struct node **out)
{
    *out = of;
    while (first_without_bar || take_op(p, "|")) {
        struct node *n = node_new(p, N_FILTER, p->at->line);
        first_without_bar = false;
        TRY(parse_dotted(p, &n->value));
        TRY(resolve(p, n, tpl_filters, "filter"));
        n->a = *out;
        n->args = &no_args;
        if (at_op(p, "(")) TRY(parse_args(p, &n->args, &n->depth));
        TRY(node_done(p, n, out));
    }
    return ST_OK;
}

/* A test's argument may stand without brackets: is divisibleby 3. */
static status parse_bare_arg(struct parser *p, struct node *n)
{
    struct call_args *a;
    struct node *arg;
    bool begins = p->at->kind == T_NAME || p->at->kind == T_STRING || p->at->kind == T_INT || p->at->kind == T_FLOAT || at_op(p, "[") ||
                  at_op(p, "{");
    n->args = &no_args;
    if (!begins || at_name(p, "else") || at_name(p, "or") || at_name(p, "and")) return ST_OK;
    if (at_name(p, "is")) return parse_fail(p, n->line, "tests cannot be chained with 'is'");
    TRY(parse_primary(p, false, &arg));
    TRY(parse_postfix(p, &arg));
    a = pool_take(&p->t->pool, sizeof *a);
    *a = (struct call_args){.v = pool_take(&p->t->pool, sizeof *a->v), .n = 1};
    a->v[0] = arg;
    n->args = a;
    n->depth = arg->depth;
    return ST_OK;
}

static status parse_test(struct parser *p, struct node *of, struct node **out)
{
    struct node *n = node_new(p, N_TEST, p->at++->line);
    bool negated = take_name(p, "not");
    TRY(parse_dotted(p, &n->value));
    TRY(resolve(p, n, tpl_tests, "test"));
    n->a = of;
    if (at_op(p, "("))
        TRY(parse_args(p, &n->args, &n->depth));
    else
        TRY(parse_bare_arg(p, n));
    TRY(node_done(p, n, out));
    return negated ? join(p, N_NOT, n->line, *out, NULL, 0, out) : ST_OK;
}

/* ---- operators --------------------------------------------------------------------------------------------------- */

static status parse_unary(struct parser *p, bool with_filters, struct node **out)
{
    int line = p->at->line;
    bool neg = at_op(p, "-"), pos = at_op(p, "+");
    TRY(parse_enter(p));
    if (neg || pos) {
        p->at++;
        TRY(parse_unary(p, false, out));
        TRY(join(p, neg ? N_NEG : N_POS, line, *out, NULL, 0, out));
    } else {
        TRY(parse_primary(p, false, out));
    }
    TRY(parse_postfix(p, out));
    while (with_filters) {
        if (at_op(p, "|"))
            TRY(parse_filters(p, *out, false, out));
        else if (at_name(p, "is"))
            TRY(parse_test(p, *out, out));
        else if (at_op(p, "("))
            TRY(parse_call(p, *out, out));
        else
            break;
    }
    p->depth--;
    return ST_OK;
}

static status parse_operand(struct parser *p, struct node **out) { return parse_unary(p, true, out); }

/* Left-associative levels: operators, and what stands between them. */
struct level {
    struct {
        const char *op;
        enum binary is;
    } ops[5];
    status (*operand)(struct parser *p, struct node **out);
};

static status parse_level(struct parser *p, const struct level *level, struct node **out)
{
    int line = p->at->line;
    TRY(level->operand(p, out));
    for (int i = 0; level->ops[i].op;) {
        struct node *right;
        if (!take_op(p, level->ops[i].op)) {
            i++;
            continue;
        }
        TRY(level->operand(p, &right));
        TRY(join(p, N_BINARY, line, *out, right, level->ops[i].is, out));
        line = p->at->line;
        i = 0;
    }
    return ST_OK;
}

static status parse_pow(struct parser *p, struct node **out)
{
    static const struct level level = {{{"**", OP_POW}}, parse_operand};
    return parse_level(p, &level, out);
}

static status parse_product(struct parser *p, struct node **out)
{
    static const struct level level = {{{"*", OP_MUL}, {"/", OP_DIV}, {"//", OP_FLOORDIV}, {"%", OP_MOD}}, parse_pow};
    return parse_level(p, &level, out);
}

static status parse_concat(struct parser *p, struct node **out)
{
    struct node_list l = {0};
    int line = p->at->line;
    do {
        TRY(parse_product(p, out));
        node_push(p, &l, *out);
    } while (take_op(p, "~"));
    return l.n == 1 ? ST_OK : finish(p, N_CONCAT, line, l, out);
}

static status parse_sum(struct parser *p, struct node **out)
{
    static const struct level level = {{{"+", OP_ADD}, {"-", OP_SUB}}, parse_concat};
    return parse_level(p, &level, out);
}

static bool take_comparison(struct parser *p, uint8_t *op)
{
    static const struct {
        const char *text;
        enum compare is;
    } ops[] = {{"==", CMP_EQ}, {"!=", CMP_NE}, {"<", CMP_LT}, {"<=", CMP_LE}, {">", CMP_GT}, {">=", CMP_GE}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (take_op(p, ops[i].text)) {
            *op = (uint8_t)ops[i].is;
            return true;
        }
    bool negated = at_name(p, "not") && p->at[1].kind == T_NAME && word_is(p->at[1].word, "in");
    *op = negated ? CMP_NOT_IN : CMP_IN;
    p->at += negated;
    return take_name(p, "in");
}

static status parse_comparison(struct parser *p, struct node **out)
{
    struct node_list l = {0};
    uint8_t ops[TPL_MAX_NESTING];
    int line = p->at->line;
    TRY(parse_sum(p, out));
    struct node *first = *out;
    while (l.n < TPL_MAX_NESTING && take_comparison(p, &ops[l.n])) {
        TRY(parse_sum(p, out));
        node_push(p, &l, *out);
    }
    if (!l.n) return ST_OK;
    struct node *n = node_new(p, N_COMPARE, line);
    n->a = first;
    n->v = l.v;
    n->n = l.n;
    n->ops = pool_take(&p->t->pool, l.n);
    memcpy(n->ops, ops, l.n);
    return node_done(p, n, out);
}

static status parse_not(struct parser *p, struct node **out)
{
    int line = p->at->line;
    if (!take_name(p, "not")) return parse_comparison(p, out);
    TRY(parse_enter(p));
    TRY(parse_not(p, out));
    p->depth--;
    return join(p, N_NOT, line, *out, NULL, 0, out);
}

static status parse_and(struct parser *p, struct node **out)
{
    int line = p->at->line;
    struct node *right;
    TRY(parse_not(p, out));
    while (take_name(p, "and")) {
        TRY(parse_not(p, &right));
        TRY(join(p, N_AND, line, *out, right, 0, out));
    }
    return ST_OK;
}

static status parse_or(struct parser *p, struct node **out)
{
    int line = p->at->line;
    struct node *right;
    TRY(parse_and(p, out));
    while (take_name(p, "or")) {
        TRY(parse_and(p, &right));
        TRY(join(p, N_OR, line, *out, right, 0, out));
    }
    return ST_OK;
}

status parse_expression(struct parser *p, bool with_cond, struct node **out)
{
    int line = p->at->line;
    TRY(parse_enter(p));
    TRY(parse_or(p, out));
    while (with_cond && take_name(p, "if")) {
        struct node *n = node_new(p, N_COND, line);
        n->b = *out;
        p->soft++;
        TRY(parse_or(p, &n->a));
        if (take_name(p, "else")) TRY(parse_expression(p, true, &n->c));
        p->soft--;
        TRY(node_done(p, n, out));
    }
    p->depth--;
    return ST_OK;
}
