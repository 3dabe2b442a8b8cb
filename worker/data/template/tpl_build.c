/* Strings in the making: bytes, and who wrote each. */
#include <string.h>

#include <utf8proc.h>

#include "worker/data/template/tpl_value.h"

static status room(struct build *b, size_t more)
{
    if (b->n + more <= b->cap) return ST_OK;
    if (more > TPL_MAX_OUTPUT || b->n + more > TPL_MAX_OUTPUT)
        return tpl_fail(b->r, "the chat template makes a text of more than %s", text_bytes(TPL_MAX_OUTPUT));
    size_t cap = b->cap ? b->cap : 64;
    while (cap < b->n + more) cap *= 2;
    TRY(tpl_spend(b->r, cap * (1 + sizeof *b->o)));
    char *p = pool_take(&b->r->pool, cap);
    template_origin *o = pool_take(&b->r->pool, cap * sizeof *o);
    if (b->n) {
        memcpy(p, b->p, b->n);
        memcpy(o, b->o, b->n * sizeof *o);
    }
    b->p = p;
    b->o = o;
    b->cap = cap;
    return ST_OK;
}

status build_add(struct build *b, const char *text, size_t n, template_origin o)
{
    TRY(room(b, n));
    if (n) memcpy(b->p + b->n, text, n);
    for (size_t i = 0; i < n; i++) b->o[b->n + i] = o;
    b->n += n;
    return ST_OK;
}

status build_text(struct build *b, const char *text, template_origin o) { return build_add(b, text, strlen(text), o); }

status build_cut(struct build *b, struct value s, size_t from, size_t to)
{
    size_t n = to - from;
    if (!s.s->origins) return build_add(b, s.s->p + from, n, s.origin);
    TRY(room(b, n));
    if (n) {
        memcpy(b->p + b->n, s.s->p + from, n);
        memcpy(b->o + b->n, s.s->origins + from, n * sizeof *b->o);
    }
    b->n += n;
    return ST_OK;
}

status build_str(struct build *b, struct value s) { return build_cut(b, s, 0, s.s->n); }

status build_repeat(struct build *b, struct value s, int64_t times)
{
    if (times <= 0 || !s.s->n) return ST_OK;
    if (times > TPL_MAX_OUTPUT) times = TPL_MAX_OUTPUT + 1;
    TRY(room(b, s.s->n * (size_t)times));
    while (times--) TRY(build_str(b, s));
    return ST_OK;
}

status build_codepoint(struct build *b, int32_t c, template_origin o)
{
    utf8proc_uint8_t out[4];
    utf8proc_ssize_t n = utf8proc_encode_char(c, out);
    return build_add(b, (const char *)out, n > 0 ? (size_t)n : 0, o);
}

struct value build_done(struct build *b)
{
    struct value out = value_text(&b->r->pool, b->p ? b->p : "", b->n, b->n ? b->o[0] : TEMPLATE_ITSELF);
    ((struct str *)out.s)->origins = b->o;
    return out;
}

status str_concat(struct render *r, struct value a, struct value b, struct value *out)
{
    struct build text = {.r = r};
    TRY(room(&text, a.s->n + b.s->n));
    TRY(build_str(&text, a));
    TRY(build_str(&text, b));
    *out = build_done(&text);
    return ST_OK;
}

status str_escape(struct render *r, struct value s, struct value *out)
{
    static const struct {
        char c;
        const char *text;
    } entities[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
    struct build b = {.r = r};
    for (size_t at = 0; at < s.s->n; at++) {
        const char *text = NULL;
        for (size_t i = 0; i < sizeof entities / sizeof *entities; i++)
            if (s.s->p[at] == entities[i].c) text = entities[i].text;
        TRY(text ? build_text(&b, text, str_origin(s, at)) : build_cut(&b, s, at, at + 1));
    }
    *out = build_done(&b);
    out->markup = true;
    return ST_OK;
}
