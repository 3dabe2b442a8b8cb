/* Making and reading values. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/template/tpl_tree.h"

/* ---- memory and limits ------------------------------------------------------------------------------------------- */

enum { CHUNK_BYTES = 1 << 16 };
struct pool_chunk {
    struct pool_chunk *next;
    size_t used, cap;
    _Alignas(16) char data[];
};

void *pool_take(struct pool *p, size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    struct pool_chunk *c = p->head;
    if (!c || c->cap - c->used < bytes) {
        size_t cap = bytes > CHUNK_BYTES / 4 ? bytes : CHUNK_BYTES;
        struct pool_chunk *fresh = mem_grow(NULL, sizeof *fresh + cap);
        *fresh = (struct pool_chunk){.cap = cap};
        p->total += cap;
        if (c && cap != CHUNK_BYTES) { /* a large piece of its own: the open chunk stays in front */
            fresh->next = c->next;
            c->next = fresh;
        } else {
            fresh->next = c;
            p->head = fresh;
        }
        c = fresh;
    }
    void *out = c->data + c->used;
    c->used += bytes;
    return out;
}

void pool_release(struct pool *p)
{
    for (struct pool_chunk *c = p->head, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    *p = (struct pool){0};
}

bool word_is(struct word w, const char *text) { return strlen(text) == w.n && !memcmp(text, w.p, w.n); }

static status fail_at(struct render *r, status code, const char *fmt, va_list ap)
{
    char what[1024];
    vsnprintf(what, sizeof what, fmt, ap);
    for (size_t n = strlen(what), bad; n && !text_is_utf8(what, n, &bad); n = bad) what[bad] = 0; /* cut within one */
    FAIL(code, "%s:%d: %s", r->t->name, r->line, what);
}

status tpl_fail(struct render *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    status st = fail_at(r, ST_DATA, fmt, ap);
    va_end(ap);
    return st;
}

status tpl_fail_unbuilt(struct render *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    status st = fail_at(r, ST_NOT_BUILT, fmt, ap);
    va_end(ap);
    return st;
}

status tpl_spend(struct render *r, size_t bytes)
{
    if (bytes > TPL_MAX_WORK || r->work + bytes > TPL_MAX_WORK)
        return tpl_fail(r, "the chat template works without end on this row; it was stopped");
    r->work += bytes;
    if (bytes > TPL_MAX_MEMORY || r->pool.total + bytes > TPL_MAX_MEMORY)
        return tpl_fail(r, "the chat template needs more than %s of memory on this row", text_bytes(TPL_MAX_MEMORY));
    return ST_OK;
}

status tpl_enter(struct render *r)
{
    if (r->depth == TPL_MAX_DEPTH) return tpl_fail(r, "nested too deeply (more than %d)", TPL_MAX_DEPTH);
    r->depth++;
    return ST_OK;
}

/* ---- strings ----------------------------------------------------------------------------------------------------- */

/* Bytes that do not continue a character, eight at a time. */
static size_t count_chars(const char *p, size_t n)
{
    size_t continued = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t w;
        memcpy(&w, p + i, 8);
        continued += (size_t)__builtin_popcountll(w >> 7 & ~w >> 6 & 0x0101010101010101u);
    }
    for (; i < n; i++) continued += ((unsigned char)p[i] & 0xC0) == 0x80;
    return n - continued;
}

struct value value_text(struct pool *p, const char *text, size_t n, template_origin o)
{
    struct str *s = pool_take(p, sizeof *s);
    *s = (struct str){.p = text, .n = n, .chars = count_chars(text, n)};
    return (struct value){.kind = V_STRING, .origin = o, .s = s};
}

struct value str_cut(struct render *r, struct value s, size_t from, size_t to)
{
    if (from == 0 && to == s.s->n) return s;
    struct value out = value_text(&r->pool, s.s->p + from, to - from, str_origin(s, from));
    struct str *cut = (struct str *)out.s;
    if (s.s->origins) cut->origins = s.s->origins + from;
    out.markup = s.markup;
    return out;
}

size_t str_offset(const struct str *s, size_t chars)
{
    if (chars >= s->chars) return s->n;
    if (s->chars == s->n) return chars;
    size_t at = 0;
    for (; chars; chars--) do
            at++;
        while (at < s->n && ((unsigned char)s->p[at] & 0xC0) == 0x80);
    return at;
}

/* ---- undefined --------------------------------------------------------------------------------------------------- */

struct value value_undefined(struct render *r, struct value of, struct value name)
{
    struct missing *m = pool_take(&r->pool, sizeof *m);
    *m = (struct missing){.of = of, .name = name};
    return (struct value){.kind = V_UNDEFINED, .missing = m};
}

struct value value_undefined_hint(struct render *r, const char *hint)
{
    struct missing *m = pool_take(&r->pool, sizeof *m);
    *m = (struct missing){.hint = hint};
    return (struct value){.kind = V_UNDEFINED, .missing = m};
}

status tpl_fail_undefined(struct render *r, struct value v)
{
    const struct missing *m = v.missing;
    if (m->hint) return tpl_fail(r, "%s", m->hint);
    struct build b = {.r = r};
    TRY(print_repr(&b, m->name));
    int n = b.n > 200 ? 200 : (int)b.n;
    if (m->unsafe) return tpl_fail(r, "the sandbox of chat templates forbids %.*s of a %s", n, b.p, kind_names[m->of.kind]);
    if (m->of.kind == V_ABSENT) return tpl_fail(r, "%.*s is undefined", n, b.p);
    return tpl_fail(r, "'%s object' has no %s %.*s", kind_names[m->of.kind], is_string(m->name) ? "attribute" : "element", n, b.p);
}

/* ---- lists and dicts --------------------------------------------------------------------------------------------- */

status list_push(struct render *r, struct list *l, struct value v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 8;
        TRY(tpl_spend(r, cap * sizeof *l->v));
        struct value *grown = pool_take(&r->pool, cap * sizeof *grown);
        if (l->n) memcpy(grown, l->v, l->n * sizeof *grown);
        l->v = grown;
        l->cap = cap;
    }
    l->v[l->n++] = v;
    return ST_OK;
}

struct value value_list(struct render *r, struct list l, enum kind kind, template_origin o)
{
    struct list *kept = pool_take(&r->pool, sizeof *kept);
    *kept = l;
    return (struct value){.kind = (uint8_t)kind, .origin = o, .l = kept};
}

struct value value_iter(struct render *r, struct list l, template_origin o)
{
    struct iter *it = pool_take(&r->pool, sizeof *it);
    *it = (struct iter){.v = l.v, .n = l.n};
    return (struct value){.kind = V_ITER, .origin = o, .iter = it};
}

struct value value_pair(struct render *r, struct value a, struct value b)
{
    struct list l = {.v = pool_take(&r->pool, 2 * sizeof *l.v), .n = 2, .cap = 2};
    l.v[0] = a;
    l.v[1] = b;
    return value_list(r, l, V_TUPLE, a.origin);
}

const struct value *dict_get_word(const struct dict *d, struct word key)
{
    for (size_t i = 0; i < d->n; i++) {
        const struct value *k = &d->v[i].key;
        if (k->kind == V_STRING && k->s->n == key.n && !memcmp(k->s->p, key.p, key.n)) return &d->v[i].value;
    }
    return NULL;
}

const struct value *dict_get(struct render *r, const struct dict *d, struct value key)
{
    if (is_string(key)) return dict_get_word(d, (struct word){key.s->p, key.s->n});
    for (size_t i = 0; i < d->n; i++) {
        bool same = false;
        if (d->v[i].key.kind != V_STRING && !value_equal(r, d->v[i].key, key, &same) && same) return &d->v[i].value;
    }
    return NULL;
}

status dict_check_key(struct render *r, struct value key)
{
    for (size_t i = 0; key.kind == V_TUPLE && i < key.l->n; i++)
        if (key.l->v[i].kind != V_TUPLE) TRY(dict_check_key(r, key.l->v[i]));
    if (key.kind == V_LIST || key.kind == V_DICT) return tpl_fail(r, "a '%s' cannot be the key of a dict", kind_names[key.kind]);
    return ST_OK;
}

status dict_put(struct render *r, struct dict *d, struct value key, struct value value)
{
    TRY(tpl_spend(r, d->n));
    struct value *there = (struct value *)dict_get(r, d, key);
    if (there) {
        *there = value;
        return ST_OK;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 8;
        TRY(tpl_spend(r, cap * sizeof *d->v));
        struct pair *grown = pool_take(&r->pool, cap * sizeof *grown);
        if (d->n) memcpy(grown, d->v, d->n * sizeof *grown);
        d->v = grown;
        d->cap = cap;
    }
    d->v[d->n++] = (struct pair){key, value};
    return ST_OK;
}

static status view_item(struct render *r, const struct view *v, size_t at, struct value *out)
{
    const struct pair *p = &v->dict->v[at];
    *out = v->what == VIEW_KEYS ? p->key : v->what == VIEW_VALUES ? p->value : value_pair(r, p->key, p->value);
    return ST_OK;
}

/* ---- what can be looped over ------------------------------------------------------------------------------------- */

static status push_chars(struct render *r, struct value s, struct list *l)
{
    TRY(tpl_spend(r, s.s->chars * (sizeof(struct str) + 16)));
    size_t len;
    s.markup = false;
    for (size_t at = 0; at < s.s->n; at += len) {
        char_at(s.s->p + at, s.s->n - at, &len);
        TRY(list_push(r, l, str_cut(r, s, at, at + len)));
    }
    return ST_OK;
}

static status push_pairs(struct render *r, const struct view *v, struct list *l)
{
    TRY(tpl_spend(r, v->dict->n * 64));
    for (size_t i = 0; i < v->dict->n; i++) {
        struct value item;
        TRY(view_item(r, v, i, &item));
        TRY(list_push(r, l, item));
    }
    return ST_OK;
}

status value_items(struct render *r, struct value v, const struct value **items, size_t *n)
{
    struct list l = {0};
    switch (v.kind) {
    case V_LIST:
    case V_TUPLE:
        l = *v.l;
        break;
    case V_ITER:
        l.n = v.iter->n - v.iter->at;
        if (l.n) l.v = (struct value *)v.iter->v + v.iter->at;
        v.iter->at = v.iter->n;
        break;
    case V_UNDEFINED:
        break;
    case V_STRING:
        TRY(push_chars(r, v, &l));
        break;
    case V_DICT:
        TRY(push_pairs(r, &(struct view){v.d, VIEW_KEYS}, &l));
        break;
    case V_VIEW:
        TRY(push_pairs(r, v.view, &l));
        break;
    case V_RANGE:
        for (size_t i = 0; i < v.range->n; i++) TRY(list_push(r, &l, value_int(v.range->start + (int64_t)i * v.range->step)));
        break;
    default:
        return tpl_fail(r, "'%s' object is not iterable", kind_names[v.kind]);
    }
    *items = l.v;
    *n = l.n;
    return tpl_spend(r, l.n);
}

bool value_length(struct value v, size_t *n)
{
    switch (v.kind) {
    case V_STRING:
        *n = v.s->chars;
        return true;
    case V_LIST:
    case V_TUPLE:
        *n = v.l->n;
        return true;
    case V_DICT:
        *n = v.d->n;
        return true;
    case V_VIEW:
        *n = v.view->dict->n;
        return true;
    case V_RANGE:
        *n = v.range->n;
        return true;
    case V_UNDEFINED:
        *n = 0;
        return true;
    default:
        return false;
    }
}

/* ---- from JSON --------------------------------------------------------------------------------------------------- */

static status from_object(struct render *r, const json_t *j, template_origin o, bool message, struct value *out);

static status from_array(struct render *r, const json_t *j, template_origin o, struct value *out)
{
    struct list l = {0};
    for (size_t i = 0; i < json_array_size(j); i++) {
        struct value item;
        TRY(value_from_json(r, json_array_get(j, i), o, &item));
        TRY(list_push(r, &l, item));
    }
    *out = value_list(r, l, V_LIST, o);
    return ST_OK;
}

status value_from_json(struct render *r, const json_t *j, template_origin o, struct value *out)
{
    switch (json_typeof(j)) {
    case JSON_STRING:
        *out = value_text(&r->pool, json_string_value(j), json_string_length(j), o);
        return ST_OK;
    case JSON_INTEGER:
        *out = value_int(json_integer_value(j));
        break;
    case JSON_REAL:
        *out = value_float(json_real_value(j));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = value_bool(json_is_true(j));
        break;
    case JSON_NULL:
        *out = value_none();
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        TRY(tpl_enter(r));
        TRY(json_is_array(j) ? from_array(r, j, o, out) : from_object(r, j, o, false, out));
        tpl_leave(r);
        return ST_OK;
    }
    out->origin = o;
    return ST_OK;
}

static const struct {
    const char *key;
    enum template_field field;
} fields[] = {{"content", MESSAGE_CONTENT},
              {"reasoning_content", MESSAGE_REASONING},
              {"reasoning", MESSAGE_REASONING},
              {"thinking", MESSAGE_REASONING},
              {"tool_calls", MESSAGE_CALLS},
              {"function_call", MESSAGE_CALLS},
              {"role", MESSAGE_ROLE}};

static template_origin field_of(const char *key, template_origin message)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!strcmp(key, fields[i].key)) return (message & ~(template_origin)7) | fields[i].field;
    return message;
}

static status from_object(struct render *r, const json_t *j, template_origin o, bool message, struct value *out)
{
    struct dict *d = pool_take(&r->pool, sizeof *d);
    size_t n = json_object_size(j);
    *d = (struct dict){.cap = n};
    TRY(tpl_spend(r, n * sizeof *d->v));
    d->v = pool_take(&r->pool, n * sizeof *d->v);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)j, key, value)
    {
        struct pair *p = &d->v[d->n++];
        p->key = value_text(&r->pool, key, strlen(key), o);
        TRY(value_from_json(r, value, message ? field_of(key, o) : o, &p->value));
    }
    *out = (struct value){.kind = V_DICT, .origin = o, .d = d};
    return ST_OK;
}

/* What transformers does to a message before a template sees it: keys without a value go, and reasoning is found under
 * the names that templates read, `thinking` (in front where it is new) and `reasoning_content`. */
static status as_transformers(struct render *r, struct value *message, template_origin o)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    const struct value *found = NULL;
    struct dict *kept = pool_take(&r->pool, sizeof *kept), *given = message->d;
    size_t n = 0;
    *kept = (struct dict){0};
    for (size_t i = 0; i < given->n; i++)
        if (given->v[i].value.kind != V_NONE) given->v[n++] = given->v[i];
    given->n = n;
    for (int i = 0; i < 3 && !found; i++) found = dict_get_word(given, (struct word){names[i], strlen(names[i])});
    if (!found) return ST_OK;
    struct value keys[2]; /* reasoning_content, thinking */
    for (int i = 0; i < 2; i++) keys[i] = value_text(&r->pool, names[i], strlen(names[i]), o);
    TRY(dict_put(r, kept, keys[1], *found));
    for (size_t i = 0; i < n; i++) TRY(dict_put(r, kept, given->v[i].key, given->v[i].value));
    TRY(dict_put(r, kept, keys[0], *found));
    message->d = kept;
    return ST_OK;
}

status value_from_messages(struct render *r, const json_t *messages, size_t n, struct value *out)
{
    struct list l = {0};
    for (size_t i = 0; i < n && i < json_array_size(messages); i++) {
        const json_t *m = json_array_get(messages, i);
        template_origin o = (template_origin)i << 3 | MESSAGE_OTHER;
        struct value item;
        if (!json_is_object(m)) return tpl_fail(r, "message %zu is not an object", i);
        TRY(from_object(r, m, o, true, &item));
        TRY(as_transformers(r, &item, o));
        TRY(list_push(r, &l, item));
    }
    *out = value_list(r, l, V_LIST, TEMPLATE_ITSELF);
    return ST_OK;
}
