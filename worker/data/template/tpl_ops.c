/* Python's operators: truth, equality, order, membership, arithmetic, and sorting by them. */
#include <math.h>
#include <string.h>

#include "worker/data/template/tpl_value.h"

bool value_true(struct value v)
{
    size_t n;
    switch (v.kind) {
    case V_ABSENT:
    case V_NONE:
        return false;
    case V_BOOL:
        return v.b;
    case V_INT:
        return v.i != 0;
    case V_FLOAT:
        return v.f != 0;
    default:
        return !value_length(v, &n) || n > 0;
    }
}

/* ---- equality ---------------------------------------------------------------------------------------------------- */

static status equal_items(struct render *r, const struct list *a, const struct list *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) TRY(value_equal(r, a->v[i], b->v[i], out));
    return ST_OK;
}

static status equal_dicts(struct render *r, const struct dict *a, const struct dict *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        TRY(tpl_spend(r, b->n));
        const struct value *other = dict_get(r, b, a->v[i].key);
        *out = other != NULL;
        if (other) TRY(value_equal(r, a->v[i].value, *other, out));
    }
    return ST_OK;
}

static bool equal_ranges(const struct range *a, const struct range *b)
{
    return a->n == b->n && (!a->n || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

status value_equal(struct render *r, struct value a, struct value b, bool *out)
{
    if (is_number(a) && is_number(b)) {
        *out = is_integral(a) && is_integral(b) ? value_integer(a) == value_integer(b) : value_double(a) == value_double(b);
        return ST_OK;
    }
    *out = false;
    if (a.kind != b.kind) return ST_OK;
    TRY(tpl_enter(r));
    TRY(tpl_spend(r, TPL_NODE_WORK));
    switch (a.kind) {
    case V_UNDEFINED:
    case V_NONE:
        *out = true;
        break;
    case V_STRING:
        *out = a.s->n == b.s->n && !memcmp(a.s->p, b.s->p, a.s->n);
        break;
    case V_LIST:
    case V_TUPLE:
        TRY(equal_items(r, a.l, b.l, out));
        break;
    case V_DICT:
        TRY(equal_dicts(r, a.d, b.d, out));
        break;
    case V_RANGE:
        *out = equal_ranges(a.range, b.range);
        break;
    default:
        *out = a.d == b.d;
        break; /* the same object */
    }
    tpl_leave(r);
    return ST_OK;
}

/* ---- order ------------------------------------------------------------------------------------------------------- */

static status less_items(struct render *r, const struct list *a, const struct list *b, bool *out)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        bool same;
        TRY(value_equal(r, a->v[i], b->v[i], &same));
        if (!same) return value_less(r, a->v[i], b->v[i], out);
    }
    *out = a->n < b->n;
    return ST_OK;
}

status value_less(struct render *r, struct value a, struct value b, bool *out)
{
    if (is_integral(a) && is_integral(b)) {
        *out = value_integer(a) < value_integer(b);
    } else if (is_number(a) && is_number(b)) {
        *out = value_double(a) < value_double(b);
    } else if (is_string(a) && is_string(b)) { /* the order of bytes is that of code points */
        int c = memcmp(a.s->p, b.s->p, a.s->n < b.s->n ? a.s->n : b.s->n);
        *out = c ? c < 0 : a.s->n < b.s->n;
    } else if (is_sequence(a) && a.kind == b.kind) {
        TRY(tpl_enter(r));
        TRY(less_items(r, a.l, b.l, out));
        tpl_leave(r);
    } else if (a.kind == V_UNDEFINED || b.kind == V_UNDEFINED) {
        return tpl_fail_undefined(r, a.kind == V_UNDEFINED ? a : b);
    } else {
        return tpl_fail(r, "'%s' and '%s' cannot be compared", kind_names[a.kind], kind_names[b.kind]);
    }
    return tpl_spend(r, TPL_NODE_WORK);
}

status value_contains(struct render *r, struct value all, struct value one, bool *out)
{
    *out = false;
    if (is_string(all)) {
        if (!is_string(one)) return tpl_fail(r, "'in <string>' needs a string on its left, not '%s'", kind_names[one.kind]);
        TRY(tpl_spend(r, all.s->n));
        *out = !one.s->n || memmem(all.s->p, all.s->n, one.s->p, one.s->n);
        return ST_OK;
    }
    if (all.kind == V_DICT) {
        TRY(dict_check_key(r, one));
        TRY(tpl_spend(r, all.d->n));
        *out = dict_get(r, all.d, one) != NULL;
        return ST_OK;
    }
    if (all.kind == V_NONE || is_number(all)) return tpl_fail(r, "argument of type '%s' is not iterable", kind_names[all.kind]);
    const struct value *items;
    size_t n;
    TRY(value_items(r, all, &items, &n));
    for (size_t i = 0; !*out && i < n; i++) TRY(value_equal(r, one, items[i], out));
    return ST_OK;
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

static const char *const op_text[OP_COUNT] = {"+", "-", "*", "/", "//", "%", "**"};

static status bad_operands(struct render *r, enum binary op, struct value a, struct value b)
{
    if (a.kind == V_UNDEFINED) return tpl_fail_undefined(r, a);
    if (b.kind == V_UNDEFINED) return tpl_fail_undefined(r, b);
    return tpl_fail(r, "unsupported operands for %s: '%s' and '%s'", op_text[op], kind_names[a.kind], kind_names[b.kind]);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    int64_t q = a / b;
    return a % b && (a < 0) != (b < 0) ? q - 1 : q;
}

static bool int_pow(int64_t a, int64_t n, int64_t *out) /* false: overflow */
{
    *out = 1;
    if (a == 0 || a == 1)
        *out = n ? a : 1;
    else if (a == -1)
        *out = n & 1 ? -1 : 1;
    else
        while (n-- > 0)
            if (__builtin_mul_overflow(*out, a, out)) return false;
    return true;
}

/* Integers; *done = false where the answer is a float. */
static status int_binary(struct render *r, enum binary op, int64_t a, int64_t b, int64_t *out, bool *done)
{
    bool over = false;
    *done = true;
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && !b) return tpl_fail(r, "division by zero");
    switch (op) {
    case OP_ADD:
        over = __builtin_add_overflow(a, b, out);
        break;
    case OP_SUB:
        over = __builtin_sub_overflow(a, b, out);
        break;
    case OP_MUL:
        over = __builtin_mul_overflow(a, b, out);
        break;
    case OP_FLOORDIV:
        over = b == -1 && a == INT64_MIN;
        if (!over) *out = floor_div(a, b);
        break;
    case OP_MOD:
        *out = b == -1 ? 0 : a - floor_div(a, b) * b;
        break;
    case OP_POW:
        *done = b >= 0;
        if (b >= 0) over = !int_pow(a, b, out);
        break;
    default:
        *done = false;
        break;
    }
    return over ? tpl_fail(r, "an integer beyond 64 bits") : ST_OK;
}

static status float_binary(struct render *r, enum binary op, double a, double b, double *out)
{
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && b == 0) return tpl_fail(r, "division by zero");
    double mod = op == OP_MOD || op == OP_FLOORDIV ? fmod(a, b) : 0;
    if (mod != 0 && (mod < 0) != (b < 0)) mod += b;
    switch (op) {
    case OP_ADD:
        *out = a + b;
        break;
    case OP_SUB:
        *out = a - b;
        break;
    case OP_MUL:
        *out = a * b;
        break;
    case OP_DIV:
        *out = a / b;
        break;
    case OP_FLOORDIV:
        *out = round((a - mod) / b);
        break;
    case OP_MOD:
        *out = mod == 0 ? copysign(0, b) : mod;
        break;
    default:
        if (a == 0 && b < 0) return tpl_fail(r, "0.0 cannot be raised to a negative power");
        if (a < 0 && b != floor(b)) return tpl_fail_unbuilt(r, "a complex number");
        *out = pow(a, b);
        if (isinf(*out) && !isinf(a) && !isinf(b)) return tpl_fail(r, "the result of ** is out of range");
        break;
    }
    return ST_OK;
}

static status numbers_binary(struct render *r, enum binary op, struct value a, struct value b, struct value *out)
{
    if (is_integral(a) && is_integral(b)) {
        bool done;
        *out = value_int(0);
        TRY(int_binary(r, op, value_integer(a), value_integer(b), &out->i, &done));
        if (done) return ST_OK;
    }
    *out = value_float(0);
    return float_binary(r, op, value_double(a), value_double(b), &out->f);
}

static status repeat(struct render *r, struct value v, int64_t times, struct value *out)
{
    if (is_string(v)) {
        struct build b = {.r = r};
        TRY(build_repeat(&b, v, times));
        *out = build_done(&b);
        out->markup = v.markup;
        return ST_OK;
    }
    struct list l = {0};
    for (int64_t i = 0; v.l->n && i < times; i++)
        for (size_t j = 0; j < v.l->n; j++) TRY(list_push(r, &l, v.l->v[j]));
    *out = value_list(r, l, (enum kind)v.kind, v.origin);
    return ST_OK;
}

static status join_lists(struct render *r, struct value a, struct value b, struct value *out)
{
    struct list l = {0};
    for (size_t i = 0; i < a.l->n; i++) TRY(list_push(r, &l, a.l->v[i]));
    for (size_t i = 0; i < b.l->n; i++) TRY(list_push(r, &l, b.l->v[i]));
    *out = value_list(r, l, (enum kind)a.kind, a.origin);
    return ST_OK;
}

/* Text marked safe escapes what is added to it. */
static status add_strings(struct render *r, struct value a, struct value b, struct value *out)
{
    bool markup = a.markup || b.markup;
    if (markup && !a.markup) TRY(str_escape(r, a, &a));
    if (markup && !b.markup) TRY(str_escape(r, b, &b));
    TRY(str_concat(r, a, b, out));
    out->markup = markup;
    return ST_OK;
}

status value_binary(struct render *r, enum binary op, struct value a, struct value b, struct value *out)
{
    bool repeats = op == OP_MUL;
    if (is_number(a) && is_number(b)) return numbers_binary(r, op, a, b, out);
    if (op == OP_ADD && is_string(a) && is_string(b)) return add_strings(r, a, b, out);
    if (op == OP_ADD && is_sequence(a) && a.kind == b.kind) return join_lists(r, a, b, out);
    if (repeats && (is_string(a) || is_sequence(a)) && is_integral(b)) return repeat(r, a, value_integer(b), out);
    if (repeats && (is_string(b) || is_sequence(b)) && is_integral(a)) return repeat(r, b, value_integer(a), out);
    if (op == OP_MOD && is_string(a)) return tpl_percent(r, a, b, out);
    return bad_operands(r, op, a, b);
}

status value_negate(struct render *r, struct value v, struct value *out)
{
    if (v.kind == V_UNDEFINED) return tpl_fail_undefined(r, v);
    if (!is_number(v)) return tpl_fail(r, "bad operand for unary -: '%s'", kind_names[v.kind]);
    if (v.kind == V_FLOAT)
        *out = value_float(-v.f);
    else if (value_integer(v) == INT64_MIN)
        return tpl_fail(r, "an integer beyond 64 bits");
    else
        *out = value_int(-value_integer(v));
    return ST_OK;
}

/* ---- sorting ----------------------------------------------------------------------------------------------------- */

struct entry {
    struct value key, value;
};

/* Merges the sorted runs [a, m) and [m, z) of `from` into `to`. Reversed order keeps equal ones in place, as Python. */
static status merge(struct render *r, const struct entry *from, size_t a, size_t m, size_t z, bool reverse, struct entry *to)
{
    size_t i = a, j = m;
    for (size_t k = a; k < z; k++) {
        bool right = i == m;
        if (i < m && j < z) {
            struct value first = from[i].key, second = from[j].key;
            TRY(reverse ? value_less(r, first, second, &right) : value_less(r, second, first, &right));
        }
        to[k] = right ? from[j++] : from[i++];
    }
    return ST_OK;
}

status value_sort(struct render *r, struct value *v, struct value *keys, size_t n, bool reverse)
{
    TRY(tpl_spend(r, 2 * n * sizeof(struct entry)));
    struct entry *from = pool_take(&r->pool, n * sizeof *from), *to = pool_take(&r->pool, n * sizeof *to);
    for (size_t i = 0; i < n; i++) from[i] = (struct entry){keys[i], v[i]};
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t a = 0; a < n; a += 2 * width) {
            size_t m = a + width < n ? a + width : n, z = m + width < n ? m + width : n;
            TRY(merge(r, from, a, m, z, reverse, to));
        }
        struct entry *swap = from;
        from = to;
        to = swap;
    }
    for (size_t i = 0; i < n; i++) {
        v[i] = from[i].value;
        keys[i] = from[i].key;
    }
    return ST_OK;
}
