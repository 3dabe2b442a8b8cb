#include "worker/data/tokenizer/spans.h"

#include <stdlib.h>
#include <string.h>

void tok_spans_clear(struct tok_spans *s)
{
    buf_clear(&s->text);
    buf_add(&s->text, "", 0); /* a pointer even for no text */
    s->n = 0;
}

void tok_spans_release(struct tok_spans *s)
{
    buf_release(&s->text);
    free(s->v);
    free(s->origin);
    *s = (struct tok_spans){0};
}

void tok_span_push(struct tok_spans *s, uint32_t at, uint32_t n, bool first)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->v = mem_grow(s->v, s->cap * sizeof *s->v);
    }
    s->v[s->n++] = (struct tok_span){at, n, first};
}

void tok_span_end(struct tok_spans *s, size_t start, bool first)
{
    tok_span_push(s, (uint32_t)start, (uint32_t)(s->text.len - start), first);
}

void tok_span_add(struct tok_spans *s, const char *bytes, size_t n, bool first)
{
    size_t start = s->text.len;
    buf_add(&s->text, bytes, n);
    tok_span_end(s, start, first);
}

void tok_trace(struct tok_spans *s, size_t n, struct tok_origin o, uint32_t step)
{
    if (s->cap_origin < s->text.cap) {
        s->cap_origin = s->text.cap;
        s->origin = mem_grow(s->origin, s->cap_origin * sizeof *s->origin);
    }
    for (size_t i = s->text.len - n; i < s->text.len; i++, o.from += step, o.to += step) s->origin[i] = o;
}

void tok_trace_copy(struct tok_spans *s, const struct tok_spans *from, size_t at, size_t n)
{
    tok_trace(s, 0, from->origin[at], 0); /* makes room */
    memcpy(s->origin + s->text.len - n, from->origin + at, n * sizeof *s->origin);
}

void tok_emit_origin(struct tok_sink *sink, struct tok_origin o)
{
    const struct ids *from = sink->from, *to = sink->to;
    /* in order even where symbols are not: HF places an unknown character behind bytes that follow it */
    int32_t least = from->n > sink->from_n ? from->v[from->n - 1] : 0;
    int32_t end = to->n > sink->to_n ? to->v[to->n - 1] : 0;
    ids_push(sink->from, (int32_t)o.from > least ? (int32_t)o.from : least);
    ids_push(sink->to, (int32_t)o.to > end ? (int32_t)o.to : end);
}
