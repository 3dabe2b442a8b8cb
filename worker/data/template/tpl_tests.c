/* What may follow `is`. */
#include <math.h>
#include <string.h>

#include "worker/data/template/tpl_methods.h"

static status answer(struct value *out, bool yes)
{
    *out = value_bool(yes);
    return ST_OK;
}

static status is_defined(struct call *c, struct value *out) { return answer(out, c->self.kind != V_UNDEFINED); }
static status is_undefined(struct call *c, struct value *out) { return answer(out, c->self.kind == V_UNDEFINED); }
static status is_none(struct call *c, struct value *out) { return answer(out, c->self.kind == V_NONE); }
static status is_boolean(struct call *c, struct value *out) { return answer(out, c->self.kind == V_BOOL); }
static status is_true(struct call *c, struct value *out) { return answer(out, c->self.kind == V_BOOL && c->self.b); }
static status is_false(struct call *c, struct value *out) { return answer(out, c->self.kind == V_BOOL && !c->self.b); }
static status is_integer(struct call *c, struct value *out) { return answer(out, c->self.kind == V_INT); }
static status is_float(struct call *c, struct value *out) { return answer(out, c->self.kind == V_FLOAT); }
static status is_number_test(struct call *c, struct value *out) { return answer(out, is_number(c->self)); }
static status is_string_test(struct call *c, struct value *out) { return answer(out, is_string(c->self)); }
static status is_mapping(struct call *c, struct value *out) { return answer(out, c->self.kind == V_DICT); }
static status is_escaped(struct call *c, struct value *out) { return answer(out, c->self.markup); }

static status is_sequence_test(struct call *c, struct value *out)
{
    size_t n;
    return answer(out, c->self.kind != V_VIEW && value_length(c->self, &n));
}

static status is_iterable(struct call *c, struct value *out)
{
    size_t n;
    return answer(out, c->self.kind == V_ITER || c->self.kind == V_LOOP || value_length(c->self, &n));
}

static status is_callable(struct call *c, struct value *out)
{
    static const uint8_t callable[N_KINDS] = {[V_UNDEFINED] = 1, [V_MACRO] = 1, [V_BOUND] = 1, [V_LOOP] = 1, [V_JOINER] = 1};
    return answer(out, callable[c->self.kind]);
}

/* value % by == remainder */
static status leaves(struct call *c, int64_t by, int64_t remainder, struct value *out)
{
    struct value rest;
    bool same;
    TRY(value_binary(c->r, OP_MOD, c->self, value_int(by), &rest));
    TRY(value_equal(c->r, rest, value_int(remainder), &same));
    return answer(out, same);
}

static status is_even(struct call *c, struct value *out) { return leaves(c, 2, 0, out); }
static status is_odd(struct call *c, struct value *out) { return leaves(c, 2, 1, out); }

static status is_divisibleby(struct call *c, struct value *out)
{
    struct value rest;
    bool same;
    TRY(value_binary(c->r, OP_MOD, c->self, c->arg[0], &rest));
    TRY(value_equal(c->r, rest, value_int(0), &same));
    return answer(out, same);
}

static status case_test(struct call *c, builtin_fn *is, struct value *out)
{
    TRY(value_to_str(c->r, c->self, &c->self));
    return is(c, out);
}

static status is_lower(struct call *c, struct value *out) { return case_test(c, str_islower, out); }
static status is_upper(struct call *c, struct value *out) { return case_test(c, str_isupper, out); }

static status is_eq(struct call *c, struct value *out)
{
    bool same;
    TRY(value_equal(c->r, c->self, c->arg[0], &same));
    return answer(out, same);
}

static status is_ne(struct call *c, struct value *out)
{
    TRY(is_eq(c, out));
    return answer(out, !out->b);
}

/* a < b, or with `swapped` b < a; or equal */
static status order(struct call *c, bool swapped, bool or_equal, struct value *out)
{
    bool less, same = false;
    struct value a = swapped ? c->arg[0] : c->self, b = swapped ? c->self : c->arg[0];
    TRY(value_less(c->r, a, b, &less));
    if (!less && or_equal) TRY(value_equal(c->r, a, b, &same));
    return answer(out, less || same);
}

static status is_lt(struct call *c, struct value *out) { return order(c, false, false, out); }
static status is_le(struct call *c, struct value *out) { return order(c, false, true, out); }
static status is_gt(struct call *c, struct value *out) { return order(c, true, false, out); }
static status is_ge(struct call *c, struct value *out) { return order(c, true, true, out); }

static status is_in(struct call *c, struct value *out)
{
    bool in;
    TRY(value_contains(c->r, c->arg[0], c->self, &in));
    return answer(out, in);
}

/* Python's `is`: the same object; of small things, the same value. */
static status is_sameas(struct call *c, struct value *out)
{
    struct value a = c->self, b = c->arg[0];
    if (a.kind != b.kind) return answer(out, false);
    switch (a.kind) {
    case V_NONE:
        return answer(out, true);
    case V_BOOL:
        return answer(out, a.b == b.b);
    case V_INT:
        return answer(out, a.i == b.i);
    case V_FLOAT:
        return answer(out, a.f == b.f);
    case V_STRING:
        return answer(out, a.s->n == b.s->n && !memcmp(a.s->p, b.s->p, a.s->n));
    default:
        return answer(out, a.d == b.d);
    }
}

static status is_in_table(struct call *c, const struct builtin *table, struct value *out)
{
    if (!is_string(c->self)) return answer(out, false);
    const struct builtin *b = builtin_find(table, (struct word){c->self.s->p, c->self.s->n});
    return answer(out, b && b->fn);
}

static status is_filter(struct call *c, struct value *out) { return is_in_table(c, tpl_filters, out); }
static status is_test(struct call *c, struct value *out) { return is_in_table(c, tpl_tests, out); }

const struct builtin tpl_tests[] = {
    {"defined", "", is_defined, false},
    {"undefined", "", is_undefined, false},
    {"none", "", is_none, false},
    {"boolean", "", is_boolean, false},
    {"true", "", is_true, false},
    {"false", "", is_false, false},
    {"integer", "", is_integer, false},
    {"float", "", is_float, false},
    {"number", "", is_number_test, false},
    {"string", "", is_string_test, false},
    {"mapping", "", is_mapping, false},
    {"sequence", "", is_sequence_test, false},
    {"iterable", "", is_iterable, false},
    {"callable", "/", is_callable, false},
    {"escaped", "", is_escaped, false},
    {"even", "", is_even, false},
    {"odd", "", is_odd, false},
    {"divisibleby", "num", is_divisibleby, false},
    {"lower", "", is_lower, false},
    {"upper", "", is_upper, false},
    {"eq", "/ other", is_eq, false},
    {"equalto", "/ other", is_eq, false},
    {"==", "/ other", is_eq, false},
    {"ne", "/ other", is_ne, false},
    {"!=", "/ other", is_ne, false},
    {"lt", "/ other", is_lt, false},
    {"lessthan", "/ other", is_lt, false},
    {"<", "/ other", is_lt, false},
    {"le", "/ other", is_le, false},
    {"<=", "/ other", is_le, false},
    {"gt", "/ other", is_gt, false},
    {"greaterthan", "/ other", is_gt, false},
    {">", "/ other", is_gt, false},
    {"ge", "/ other", is_ge, false},
    {">=", "/ other", is_ge, false},
    {"in", "seq", is_in, false},
    {"sameas", "other", is_sameas, false},
    {"filter", "", is_filter, false},
    {"test", "", is_test, false},
    {NULL, NULL, NULL, false},
};
