/* Which variables begin undefined in a scope. Jinja settles this from the text alone: where the first thing a scope
 * does with a name, outside of any `if`, is to set it, and no scope around it knows the name, then the name is the
 * scope's own from the start. What stands before the `set`, nested loops and macros included, sees it undefined, even
 * if the template was given a variable of that name.
 *
 * Scopes are entered after all of their surroundings have been read, so one count per name tells whether an open scope
 * knows it. */
#include <stdlib.h>
#include <string.h>

#include "worker/data/template/tpl_tree.h"

struct known {
    int symbol, before; /* before: `by` of the symbol until now */
};
struct scopes {
    struct template *t;
    int *by;            /* [symbols] the innermost open scope that knows it; 0: none */
    int now, made;      /* numbers of scopes */
    struct known *undo; /* what the open scopes have learned */
    size_t n, cap;
    struct symbols {
        int *v;
        size_t n, cap;
    } fresh; /* of the scope being read */
};

static void push_int(struct symbols *l, int i)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        l->v = mem_grow(l->v, l->cap * sizeof *l->v);
    }
    l->v[l->n++] = i;
}

enum mention { LOADS, STORES, STORES_PERHAPS, IS_GIVEN };

static void mention(struct scopes *s, int symbol, enum mention how)
{
    if (s->by[symbol] == s->now) return;
    if (!s->by[symbol] && how == STORES) push_int(&s->fresh, symbol);
    if (s->by[symbol] && how == LOADS) return; /* the outer one is meant */
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->undo = mem_grow(s->undo, s->cap * sizeof *s->undo);
    }
    s->undo[s->n++] = (struct known){symbol, s->by[symbol]};
    s->by[symbol] = s->now;
}

/* ---- one level: what a scope itself says ------------------------------------------------------------------------- */

static void read_expression(struct scopes *s, const struct node *n)
{
    if (!n) return;
    if (n->kind == N_NAME || n->kind == N_NAMESPACE_ATTR) mention(s, n->symbol, LOADS);
    const struct node *child[] = {n->a, n->b, n->c};
    for (size_t i = 0; i < sizeof child / sizeof *child; i++) read_expression(s, child[i]);
    for (size_t i = 0; i < n->n; i++) read_expression(s, n->v[i]);
    if (!n->args) return;
    for (size_t i = 0; i < n->args->n; i++) read_expression(s, n->args->v[i]);
    for (size_t i = 0; i < n->args->n_named; i++) read_expression(s, n->args->named[i].node);
    read_expression(s, n->args->star);
    read_expression(s, n->args->star_star);
}

static void read_target(struct scopes *s, const struct node *n, enum mention how)
{
    if (n->kind == N_NAME) mention(s, n->symbol, how);
    if (n->kind == N_NAMESPACE_ATTR) mention(s, n->symbol, LOADS);
    for (size_t i = 0; i < n->n; i++) read_target(s, n->v[i], how);
}

static void read_level(struct scopes *s, const struct node *n, enum mention stores)
{
    if (!n) return;
    switch (n->kind) {
    case N_BODY:
        for (size_t i = 0; i < n->n; i++) read_level(s, n->v[i], stores);
        break;
    case N_IF:
        for (size_t i = 0; i < n->n; i += 2) {
            read_expression(s, n->v[i]);
            read_level(s, n->v[i + 1], STORES_PERHAPS);
        }
        read_level(s, n->c, STORES_PERHAPS);
        break;
    case N_SET:
        read_expression(s, n->a);
        read_target(s, n->target, stores);
        break;
    case N_SET_BLOCK:
        read_target(s, n->target, stores);
        break;
    case N_MACRO:
        mention(s, n->symbol, stores);
        break;
    case N_WITH:
        for (size_t i = 1; i < n->n; i += 2) read_expression(s, n->v[i]);
        break;
    default:
        read_expression(s, n->a);
        break; /* what is printed, looped over, called, filtered by */
    }
}

/* ---- the scopes within ------------------------------------------------------------------------------------------- */

static void read_nested(struct scopes *s, const struct node *n);

static void keep_fresh(struct scopes *s, struct node *body)
{
    if (!s->fresh.n) return;
    int *kept = pool_take(&s->t->pool, s->fresh.n * sizeof *kept);
    memcpy(kept, s->fresh.v, s->fresh.n * sizeof *kept);
    body->fresh = kept;
    body->n_fresh = s->fresh.n;
}

/* The scope of `body`, which `n` opens with its targets or parameters. */
static void read_scope(struct scopes *s, const struct node *n, struct node *body)
{
    int around = s->now;
    size_t begin = s->n;
    if (!body) return;
    s->now = ++s->made;
    s->fresh.n = 0;
    if (n && n->kind == N_FOR && body == n->b) {
        read_target(s, n->target, IS_GIVEN);
        if (s->t->loop_symbol >= 0) mention(s, s->t->loop_symbol, IS_GIVEN);
    }
    for (size_t i = 0; n && n->kind == N_WITH && i < n->n; i += 2) read_target(s, n->v[i], IS_GIVEN);
    const struct signature *sig = n ? n->signature : NULL;
    for (size_t i = 0; sig && i < sig->n; i++) {
        mention(s, sig->symbol[i], IS_GIVEN);
        read_expression(s, sig->otherwise[i]);
    }
    const int special[] = {sig ? sig->varargs : -1, sig ? sig->kwargs : -1, sig ? sig->caller : -1};
    for (int i = 0; i < 3; i++)
        if (special[i] >= 0) mention(s, special[i], IS_GIVEN);
    read_level(s, body, STORES);
    keep_fresh(s, body);
    read_nested(s, body);
    while (s->n > begin) {
        s->n--;
        s->by[s->undo[s->n].symbol] = s->undo[s->n].before;
    }
    s->now = around;
}

static void read_nested(struct scopes *s, const struct node *n)
{
    if (!n) return;
    if (n->kind == N_BODY) {
        for (size_t i = 0; i < n->n; i++) read_nested(s, n->v[i]);
    } else if (n->kind == N_IF) {
        for (size_t i = 1; i < n->n; i += 2) read_nested(s, n->v[i]);
        read_nested(s, n->c);
    } else if (n->kind >= N_FOR && n->kind <= N_GENERATION && n->kind != N_SET) {
        read_scope(s, n, n->b);
        if (n->kind == N_FOR) read_scope(s, n, n->c);
    }
}

void tpl_find_fresh(struct template *t)
{
    struct scopes s = {.t = t, .by = mem_alloc((size_t)(t->n_symbols + 1) * sizeof *s.by)};
    read_scope(&s, NULL, t->body);
    free(s.by);
    free(s.undo);
    free(s.fresh.v);
}
