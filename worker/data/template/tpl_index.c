/* a.b, a[b] and a[b:c:d], as Jinja's sandbox looks them up: `.` asks Python's attributes first and the items then, `[]`
 * the other way round. */
#include <stdlib.h>
#include <string.h>

#include "worker/data/template/tpl_tree.h"

/* ---- attributes -------------------------------------------------------------------------------------------------- */

static const struct builtin *const methods[N_KINDS] = {
    [V_STRING] = tpl_str_methods,  [V_LIST] = tpl_list_methods,     [V_TUPLE] = tpl_tuple_methods,
    [V_DICT] = tpl_dict_methods,   [V_INT] = tpl_number_methods,    [V_FLOAT] = tpl_number_methods,
    [V_BOOL] = tpl_number_methods, [V_CYCLER] = tpl_cycler_methods, [V_LOOP] = tpl_loop_methods,
};

/* What the sandbox does not show looks undefined, and says so when it is used. */
static struct value closed(struct render *r, struct value of, struct value name)
{
    struct value out = value_undefined(r, of, name);
    ((struct missing *)out.missing)->unsafe = true;
    return out;
}

/* __class__ and its kin: every object of Python has them. */
static bool is_inner(struct word w) { return w.n > 4 && !memcmp(w.p, "__", 2) && !memcmp(w.p + w.n - 2, "__", 2); }

static status bind(struct render *r, struct value of, struct value name, const struct builtin *b, struct value *out)
{
    if (b->unsafe) {
        *out = closed(r, of, name);
        return ST_OK;
    }
    if (!b->fn) return tpl_fail_unbuilt(r, "the attribute '%s' of a %s is not built here", b->name, kind_names[of.kind]);
    struct bound *m = pool_take(&r->pool, sizeof *m);
    *m = (struct bound){.what = b, .self = of};
    *out = (struct value){.kind = V_BOUND, .bound = m};
    return ST_OK;
}

/* A macro's name, or the names of its parameters. */
static status macro_attr(struct render *r, const struct signature *s, bool name, struct value *out)
{
    struct list l = {0};
    *out = value_text(&r->pool, s->name.p, s->name.n, TEMPLATE_ITSELF);
    if (name) return ST_OK;
    for (size_t i = 0; i < s->n; i++) {
        struct word w = r->t->symbol[s->symbol[i]];
        TRY(list_push(r, &l, value_text(&r->pool, w.p, w.n, TEMPLATE_ITSELF)));
    }
    *out = value_list(r, l, V_TUPLE, TEMPLATE_ITSELF);
    return ST_OK;
}

/* The attribute Python would find. */
static status python_attr(struct render *r, struct value of, struct value name, struct value *out, bool *found)
{
    struct word w = {name.s->p, name.s->n};
    *found = true;
    if (of.kind == V_UNDEFINED) return tpl_fail_undefined(r, of);
    if (is_inner(w)) {
        *out = closed(r, of, name);
        return ST_OK;
    }
    if (of.kind == V_NAMESPACE) {
        const struct value *v = dict_get_word(of.d, w);
        if (v) *out = *v;
        *found = v != NULL;
        return ST_OK;
    }
    if (of.kind == V_TUPLE && of.l->group && (word_is(w, "grouper") || word_is(w, "list"))) {
        *out = of.l->v[word_is(w, "list")];
        return ST_OK;
    }
    if (of.kind == V_MACRO && (word_is(w, "name") || word_is(w, "arguments")))
        return macro_attr(r, of.macro->signature, word_is(w, "name"), out);
    if (of.kind == V_LOOP) {
        TRY(tpl_loop_attr(r, of.loop, w, out, found));
        if (*found) return ST_OK;
    }
    const struct builtin *b = methods[of.kind] ? builtin_find(methods[of.kind], w) : NULL;
    *found = b != NULL;
    return b ? bind(r, of, name, b, out) : ST_OK;
}

/* obj[index] of Python; an index out of reach is not found. */
static status python_item(struct render *r, struct value of, struct value index, struct value *out, bool *found)
{
    size_t n;
    *found = false;
    if (of.kind == V_UNDEFINED) return tpl_fail_undefined(r, of);
    if (of.kind == V_DICT) {
        TRY(tpl_spend(r, of.d->n));
        const struct value *v = dict_get(r, of.d, index);
        if (v) *out = *v;
        *found = v != NULL;
        return ST_OK;
    }
    if (!is_integral(index) || of.kind == V_VIEW || !value_length(of, &n)) return ST_OK;
    int64_t i = value_integer(index);
    if (i < 0) i += (int64_t)n;
    if (i < 0 || i >= (int64_t)n) return ST_OK;
    *found = true;
    if (of.kind == V_RANGE) {
        *out = value_int(of.range->start + i * of.range->step);
    } else if (is_string(of)) {
        TRY(tpl_spend(r, of.s->chars == of.s->n ? 0 : of.s->n));
        *out = str_cut(r, of, str_offset(of.s, (size_t)i), str_offset(of.s, (size_t)i + 1));
    } else {
        *out = of.l->v[i];
    }
    return ST_OK;
}

status value_attr(struct render *r, struct value of, struct value name, struct value *out)
{
    bool found;
    TRY(python_attr(r, of, name, out, &found));
    if (!found) TRY(python_item(r, of, name, out, &found));
    if (!found) *out = value_undefined(r, of, name);
    return ST_OK;
}

status value_item(struct render *r, struct value of, struct value index, struct value *out)
{
    bool found;
    TRY(python_item(r, of, index, out, &found));
    if (!found && is_string(index)) TRY(python_attr(r, of, index, out, &found));
    if (!found) *out = value_undefined(r, of, index);
    return ST_OK;
}

/* ---- slices ------------------------------------------------------------------------------------------------------ */

struct reach { /* indices start, start + step, … : count of them */
    int64_t start, stop, step;
    size_t count;
};

static status bound_of(struct render *r, struct value v, int64_t n, int64_t low, int64_t high, int64_t otherwise, int64_t *out)
{
    *out = otherwise;
    if (v.kind == V_ABSENT || v.kind == V_NONE) return ST_OK;
    if (v.kind == V_UNDEFINED) return tpl_fail_undefined(r, v);
    if (!is_integral(v)) return tpl_fail(r, "the bounds of a slice must be integers, not '%s'", kind_names[v.kind]);
    int64_t i = value_integer(v);
    if (i < 0) i = i < -n ? low : i + n;
    *out = i < low ? low : i > high ? high : i;
    return ST_OK;
}

static status reach_of(struct render *r, const struct value bounds[3], size_t length, struct reach *out)
{
    int64_t n = (int64_t)length, start, stop, step = 1;
    if (bounds[2].kind == V_UNDEFINED) return tpl_fail_undefined(r, bounds[2]);
    if (bounds[2].kind != V_ABSENT && bounds[2].kind != V_NONE) {
        if (!is_integral(bounds[2])) return tpl_fail(r, "the step of a slice must be an integer");
        step = value_integer(bounds[2]);
    }
    if (!step) return tpl_fail(r, "the step of a slice is zero");
    bool back = step < 0;
    int64_t low = back ? -1 : 0, high = back ? n - 1 : n;
    TRY(bound_of(r, bounds[0], n, low, high, back ? high : low, &start));
    TRY(bound_of(r, bounds[1], n, low, high, back ? low : high, &stop));
    int64_t span = back ? start - stop : stop - start;
    uint64_t size = back ? -(uint64_t)step : (uint64_t)step;
    if (size > (uint64_t)n) step = back ? -n - 1 : n + 1; /* one item at most; no overflow later */
    *out = (struct reach){start, stop, step, span > 0 ? (size_t)(((uint64_t)span - 1) / size + 1) : 0};
    return ST_OK;
}

static status slice_string(struct render *r, struct value s, struct reach reach, struct value *out)
{
    if (reach.step == 1) {
        TRY(tpl_spend(r, s.s->n / 16));
        size_t from = str_offset(s.s, (size_t)reach.start);
        size_t to = reach.count ? str_offset(s.s, (size_t)reach.start + reach.count) : from;
        *out = str_cut(r, s, from, to);
        return ST_OK;
    }
    bool ascii = s.s->chars == s.s->n;
    size_t *offset = NULL;
    if (!ascii) {
        TRY(tpl_spend(r, (s.s->chars + 1) * sizeof *offset));
        offset = pool_take(&r->pool, (s.s->chars + 1) * sizeof *offset);
        size_t at = 0, len;
        for (size_t i = 0; i <= s.s->chars; i++, at += len) {
            offset[i] = at;
            char_at(s.s->p + at, s.s->n - at, &len);
        }
    }
    struct build b = {.r = r};
    for (size_t k = 0; k < reach.count; k++) {
        size_t i = (size_t)(reach.start + (int64_t)k * reach.step);
        TRY(ascii ? build_cut(&b, s, i, i + 1) : build_cut(&b, s, offset[i], offset[i + 1]));
    }
    *out = build_done(&b);
    out->markup = s.markup;
    return ST_OK;
}

static struct value slice_range(struct render *r, const struct range *of, struct reach reach)
{
    struct range *made = pool_take(&r->pool, sizeof *made);
    uint64_t start = (uint64_t)of->start, step = (uint64_t)of->step, by = (uint64_t)reach.step;
    made->start = (int64_t)(start + (uint64_t)reach.start * step);
    made->stop = (int64_t)(start + (uint64_t)reach.stop * step);
    made->step = (int64_t)(step * by);
    made->n = reach.count;
    return (struct value){.kind = V_RANGE, .range = made};
}

status value_slice(struct render *r, struct value of, const struct value bounds[3], struct value *out)
{
    size_t n;
    struct reach reach = {0};
    if (of.kind == V_UNDEFINED) return tpl_fail_undefined(r, of);
    if (!is_string(of) && !is_sequence(of) && of.kind != V_RANGE) return tpl_fail(r, "a '%s' object cannot be sliced", kind_names[of.kind]);
    value_length(of, &n);
    TRY(reach_of(r, bounds, n, &reach));
    if (is_string(of)) return slice_string(r, of, reach, out);
    if (of.kind == V_RANGE) {
        *out = slice_range(r, of.range, reach);
        return ST_OK;
    }
    struct list l = {0};
    for (size_t k = 0; k < reach.count; k++) TRY(list_push(r, &l, of.l->v[reach.start + (int64_t)k * reach.step]));
    *out = value_list(r, l, (enum kind)of.kind, of.origin);
    return ST_OK;
}
