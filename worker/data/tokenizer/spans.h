/* spans.h — text on its way through the steps: parts of it, and for each byte where it is from.
 *
 *   caller's text   H e l l o _ w          origin: what a byte stands for, kept through every step
 *                   │ │ │ │ │ │ │          only when somebody asks (`traced`)
 *   spans' text   ▁ H e l l o ▁ w          a prepended ▁ stands for the character that follows */
#ifndef TRIMPOT_TOK_SPANS_H
#define TRIMPOT_TOK_SPANS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/text.h"
#include "worker/data/tokenizer/tokenizer.h"

#define SPACE_MARK "\xe2\x96\x81" /* U+2581 ▁, SentencePiece's visible space */

struct tok_span {
    uint32_t at, n;
    bool first; /* begins where the caller's text begins, nothing was dropped in front (Metaspace "first") */
};

struct tok_origin { /* the bytes [from, to) of the caller's text */
    uint32_t from, to;
};

struct tok_spans {
    struct buf text;
    struct tok_span *v;
    size_t n, cap;
    bool traced;
    struct tok_origin *origin; /* traced: one per byte of text */
    size_t cap_origin;
};

void tok_spans_clear(struct tok_spans *s); /* keeps memory and `traced` */
void tok_spans_release(struct tok_spans *s);
void tok_span_push(struct tok_spans *s, uint32_t at, uint32_t n, bool first); /* of bytes already in s->text */
/* Ends the span that began at `start` of s->text: it is what was appended since. */
void tok_span_end(struct tok_spans *s, size_t start, bool first);
/* Appends the bytes as a span of their own; not traced. */
void tok_span_add(struct tok_spans *s, const char *bytes, size_t n, bool first);
/* The last n bytes of s->text: the first is from o, each other from `step` bytes behind the one before it. */
void tok_trace(struct tok_spans *s, size_t n, struct tok_origin o, uint32_t step);

/* The last n bytes of s->text are those of `from` at `at`. n > 0. */
void tok_trace_copy(struct tok_spans *s, const struct tok_spans *from, size_t at, size_t n);

/* Appends the n bytes of `from` at `at`, each with its own origin. */
static inline void tok_copy(struct tok_spans *s, const struct tok_spans *from, size_t at, size_t n)
{
    buf_add(&s->text, from->text.data + at, n);
    if (s->traced && n) tok_trace_copy(s, from, at, n);
}

/* Appends bytes that all stand for the bytes [at, end) of `from`, of which there is at least one. */
static inline void tok_put(struct tok_spans *s, const char *bytes, size_t n, const struct tok_spans *from, size_t at, size_t end)
{
    buf_add(&s->text, bytes, n);
    if (s->traced) tok_trace(s, n, (struct tok_origin){from->origin[at].from, from->origin[end - 1].to}, 0);
}

/* Where ids go. from == NULL: nobody asks for origins. */
struct tok_sink {
    struct ids *ids, *from, *to;
    size_t from_n, to_n; /* entries that were there before */
};
void tok_emit_origin(struct tok_sink *sink, struct tok_origin o);

/* The id of the bytes [at, end) of s->text; at least one. */
static inline void tok_emit(struct tok_sink *sink, int32_t id, const struct tok_spans *s, size_t at, size_t end)
{
    ids_push(sink->ids, id);
    if (sink->from) tok_emit_origin(sink, (struct tok_origin){s->origin[at].from, s->origin[end - 1].to});
}

/* A span seen by a step. */
struct tok_part {
    const char *text;
    size_t at, n; /* in the spans' text */
    bool first;
};
static inline struct tok_part tok_part_of(const struct tok_spans *s, size_t k)
{
    return (struct tok_part){s->text.data + s->v[k].at, s->v[k].at, s->v[k].n, s->v[k].first};
}

#endif
