/* {% for %} and its `loop`. Items are fetched one by one, so that a filter sees what earlier rounds have set. */
#include "worker/data/template/tpl_tree.h"

struct loop {
    const struct node *node;
    struct frame *around;
    const struct value *items;
    size_t n_items, at;             /* at: fetched so far */
    struct iter *source;            /* an iterator that is used up on the way */
    struct value before, now, next; /* V_ABSENT: none */
    bool peeked, filtered;          /* filtered: what is left in items has passed */
    int64_t index0, length;         /* length -1: not counted yet */
    int depth0;
    struct value changed; /* what loop.changed() saw last */
};

/* A frame with the targets set to v; body NULL: for the filter. */
static status frame_for(struct render *r, struct loop *l, struct value v, const struct node *body, struct frame **out)
{
    *out = frame_new(r, l->around, body);
    return tpl_assign(r, *out, l->node->target, v);
}

static status passes(struct render *r, struct loop *l, struct value v, bool *out)
{
    struct frame *f;
    struct value test;
    *out = true;
    if (!l->node->test || l->filtered) return ST_OK;
    TRY(frame_for(r, l, v, NULL, &f));
    TRY(tpl_eval(r, f, l->node->test, &test));
    *out = value_true(test);
    return ST_OK;
}

/* The next item that passes the filter; V_ABSENT at the end. */
static status fetch(struct render *r, struct loop *l, struct value *out)
{
    *out = (struct value){.kind = V_ABSENT};
    while (l->at < l->n_items) {
        struct value v = l->items[l->at++];
        bool good;
        if (l->source) l->source->at++;
        TRY(tpl_spend(r, TPL_NODE_WORK));
        TRY(passes(r, l, v, &good));
        if (!good) continue;
        *out = v;
        return ST_OK;
    }
    return ST_OK;
}

static status peek(struct render *r, struct loop *l)
{
    if (!l->peeked) TRY(fetch(r, l, &l->next));
    l->peeked = true;
    return ST_OK;
}

/* Without a filter it is known; with one the rest is filtered now. */
static status count(struct render *r, struct loop *l)
{
    if (l->length >= 0) return ST_OK;
    if (!l->node->test) {
        l->length = l->index0 + 1 + (l->peeked && l->next.kind != V_ABSENT) + (int64_t)(l->n_items - l->at);
        return ST_OK;
    }
    struct list rest = {0};
    struct value v;
    TRY(fetch(r, l, &v));
    while (v.kind != V_ABSENT) {
        TRY(list_push(r, &rest, v));
        TRY(fetch(r, l, &v));
    }
    l->length = l->index0 + 1 + (l->peeked && l->next.kind != V_ABSENT) + (int64_t)rest.n;
    l->items = rest.v;
    l->n_items = rest.n;
    l->at = 0;
    l->source = NULL;
    l->filtered = true;
    return ST_OK;
}

/* ---- loop.… ------------------------------------------------------------------------------------------------------ */

enum loop_attr {
    ATTR_INDEX,
    ATTR_INDEX0,
    ATTR_REVINDEX,
    ATTR_REVINDEX0,
    ATTR_FIRST,
    ATTR_LAST,
    ATTR_LENGTH,
    ATTR_PREVITEM,
    ATTR_NEXTITEM,
    ATTR_DEPTH,
    ATTR_DEPTH0,
    N_LOOP_ATTRS
};
static const char *const loop_attrs[N_LOOP_ATTRS] = {"index",  "index0",   "revindex", "revindex0", "first", "last",
                                                     "length", "previtem", "nextitem", "depth",     "depth0"};

static struct value item_or(struct render *r, struct value v, const char *hint)
{
    return v.kind == V_ABSENT ? value_undefined_hint(r, hint) : v;
}

status tpl_loop_attr(struct render *r, struct loop *l, struct word name, struct value *out, bool *found)
{
    int attr = 0;
    while (attr < N_LOOP_ATTRS && !word_is(name, loop_attrs[attr])) attr++;
    *found = attr < N_LOOP_ATTRS;
    if (attr == ATTR_LAST || attr == ATTR_NEXTITEM) TRY(peek(r, l));
    if (attr == ATTR_REVINDEX || attr == ATTR_REVINDEX0 || attr == ATTR_LENGTH) TRY(count(r, l));
    switch (attr) {
    case ATTR_INDEX:
        *out = value_int(l->index0 + 1);
        break;
    case ATTR_INDEX0:
        *out = value_int(l->index0);
        break;
    case ATTR_REVINDEX:
        *out = value_int(l->length - l->index0);
        break;
    case ATTR_REVINDEX0:
        *out = value_int(l->length - l->index0 - 1);
        break;
    case ATTR_FIRST:
        *out = value_bool(l->index0 == 0);
        break;
    case ATTR_LAST:
        *out = value_bool(l->next.kind == V_ABSENT);
        break;
    case ATTR_LENGTH:
        *out = value_int(l->length);
        break;
    case ATTR_PREVITEM:
        *out = item_or(r, l->before, "there is no previous item");
        break;
    case ATTR_NEXTITEM:
        *out = item_or(r, l->next, "there is no next item");
        break;
    case ATTR_DEPTH:
        *out = value_int(l->depth0 + 1);
        break;
    case ATTR_DEPTH0:
        *out = value_int(l->depth0);
        break;
    default:
        break;
    }
    return ST_OK;
}

static status loop_cycle(struct call *c, struct value *out)
{
    if (!c->given->n) return tpl_fail(c->r, "loop.cycle() has nothing to choose from");
    *out = c->given->v[(size_t)c->self.loop->index0 % c->given->n];
    return ST_OK;
}

static status loop_changed(struct call *c, struct value *out)
{
    struct list given = {.v = (struct value *)c->given->v, .n = c->given->n};
    struct value now = value_list(c->r, given, V_TUPLE, TEMPLATE_ITSELF);
    bool same;
    TRY(value_equal(c->r, now, c->self.loop->changed, &same));
    c->self.loop->changed = now;
    *out = value_bool(!same);
    return ST_OK;
}

const struct builtin tpl_loop_methods[] = {
    {"cycle", NULL, loop_cycle, false},
    {"changed", NULL, loop_changed, false},
    {NULL, NULL, NULL, false},
};

/* ---- the statement ----------------------------------------------------------------------------------------------- */

static status run(struct render *r, struct loop *l, bool *any)
{
    const struct node *n = l->node;
    struct value self = {.kind = V_LOOP, .loop = l};
    *any = false;
    for (;;) {
        struct frame *f;
        struct value v = l->next;
        if (!l->peeked) TRY(fetch(r, l, &v));
        l->peeked = false;
        l->next = (struct value){.kind = V_ABSENT};
        if (v.kind == V_ABSENT) return ST_OK;
        l->index0++;
        l->before = l->now;
        l->now = v;
        TRY(frame_for(r, l, v, n->b, &f));
        if (r->t->loop_symbol >= 0) frame_set(r, f, r->t->loop_symbol, self);
        TRY(tpl_exec(r, f, n->b));
        enum flow flow = r->flow;
        r->flow = FLOW_ON;
        *any |= flow == FLOW_ON; /* as in Jinja: rounds that were left early do not keep `else` away */
        if (flow == FLOW_BREAK) return ST_OK;
    }
}

static status loop_over(struct render *r, struct frame *f, const struct node *n, struct value over, int depth0)
{
    struct loop *l = pool_take(&r->pool, sizeof *l);
    bool any;
    *l = (struct loop){.node = n, .around = f, .index0 = -1, .length = -1, .depth0 = depth0};
    size_t begin = over.kind == V_ITER ? over.iter->at : 0;
    TRY(value_items(r, over, &l->items, &l->n_items));
    if (over.kind == V_ITER) {
        l->source = over.iter;
        l->source->at = begin;
    }
    TRY(run(r, l, &any));
    return !any && n->c ? tpl_exec(r, frame_new(r, f, n->c), n->c) : ST_OK;
}

status tpl_exec_for(struct render *r, struct frame *f, const struct node *n)
{
    struct value over;
    TRY(tpl_eval(r, f, n->a, &over));
    r->line = n->line;
    return loop_over(r, f, n, over, 0);
}

/* loop(items) in a recursive loop: the same body over other items. */
status tpl_loop_again(struct render *r, struct loop *l, struct value over, struct value *out)
{
    struct build text = {.r = r}, *outer = r->out;
    if (!l->node->recursive) return tpl_fail(r, "the loop must be marked 'recursive' to be called");
    r->out = &text;
    TRY(loop_over(r, l->around, l->node, over, l->depth0 + 1));
    r->out = outer;
    *out = build_done(&text);
    return ST_OK;
}
