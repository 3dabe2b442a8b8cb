#include "worker/data/tokenizer/pretokenise.h"

#include <string.h>

#include "worker/data/tokenizer/utf8.h"

const char TOK_PATTERN_GPT2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* Pushes a part; joins it to the last one of this span when `join`. */
static void push_part(struct tok_spans *out, size_t base, uint32_t at, uint32_t n, bool first, bool join)
{
    if (join && out->n > base)
        out->v[out->n - 1].n += n;
    else
        tok_span_push(out, at, n, first);
}

/* A part of a span, a match or what lies between two, added as the behaviour wants. `previous`: the part before was a
 * match. MERGED_NEXT looks ahead instead: a match joins what follows unless that is a match too. */
static void split_part(struct tok_spans *out, const struct tok_step *s, size_t base, const struct tok_span *part, bool match, bool previous)
{
    bool join = false;
    if (s->options == SPLIT_REMOVED && match) return;
    if (s->options == SPLIT_CONTIGUOUS) join = match == previous;
    if (s->options == SPLIT_MERGED_PREVIOUS) join = match && !previous;
    if (s->options == SPLIT_MERGED_NEXT) join = previous && !match;
    push_part(out, base, part->at, part->n, part->first, join);
}

status step_split(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    tok_copy(out, in, 0, in->text.len);
    for (size_t k = 0; k < in->n; k++) {
        struct tok_span span = in->v[k];
        const char *text = in->text.data + span.at;
        struct tok_match m = {0};
        size_t from = 0, base = out->n;
        bool previous = false;
        do {
            if (s->regex) TRY(tok_regex_next(s->regex, matcher, text, span.n, &m));
            size_t to = m.found ? m.start : span.n;
            if (to > from) {
                struct tok_span gap = {span.at + (uint32_t)from, (uint32_t)(to - from), span.first && from == 0};
                split_part(out, s, base, &gap, s->flag, previous);
                previous = s->flag;
            }
            if (!m.found) break;
            struct tok_span match = {span.at + (uint32_t)m.start, (uint32_t)(m.end - m.start), span.first && m.start == 0};
            split_part(out, s, base, &match, !s->flag, previous);
            previous = !s->flag;
            from = m.end;
        } while (true);
        size_t kept = base;
        for (size_t i = base; i < out->n; i++)
            if (out->v[i].n) out->v[kept++] = out->v[i];
        out->n = kept;
    }
    return ST_OK;
}

status step_prefix_space(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)s, (void)matcher;
    for (size_t k = 0; k < in->n; k++) {
        struct tok_part p = tok_part_of(in, k);
        bool add = p.n && *p.text != ' ';
        tok_span_push(out, (uint32_t)out->text.len, (uint32_t)(p.n + add), p.first);
        if (add) tok_put(out, " ", 1, in, p.at, p.at + 1);
        tok_copy(out, in, p.at, p.n);
    }
    return ST_OK;
}

void tok_bytes_to_alphabet(struct buf *b, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char to[4];
        buf_add(b, to, utf8_put(to, alphabet_of_byte((unsigned char)bytes[i])));
    }
}

status step_bytes(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)s, (void)matcher;
    for (size_t k = 0; k < in->n; k++) {
        struct tok_part p = tok_part_of(in, k);
        uint32_t at = (uint32_t)out->text.len;
        for (size_t i = 0, run; i < p.n; i = run) {
            for (run = i; run < p.n && p.text[run] > ' ' && p.text[run] < 0x7f;) run++; /* themselves */
            if (run > i) tok_copy(out, in, p.at + i, run - i);
            if (run == p.n) break;
            char to[4];
            tok_put(out, to, utf8_put(to, alphabet_of_byte((unsigned char)p.text[run])), in, p.at + run, p.at + run + 1);
            run++;
        }
        tok_span_push(out, at, (uint32_t)out->text.len - at, p.first);
    }
    return ST_OK;
}

status step_metaspace(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)matcher;
    for (size_t k = 0; k < in->n; k++) {
        struct tok_part p = tok_part_of(in, k);
        uint32_t at = (uint32_t)out->text.len;
        bool marked = (p.n && *p.text == ' ') || (p.n >= s->text_n && memcmp(p.text, s->text, s->text_n) == 0);
        if (p.n && !marked && (s->options == PREPEND_ALWAYS || (s->options == PREPEND_FIRST && p.first)))
            tok_put(out, s->text, s->text_n, in, p.at, p.at + 1);
        for (size_t i = 0, run; i < p.n; i = run + 1) {
            const char *space = memchr(p.text + i, ' ', p.n - i);
            run = space ? (size_t)(space - p.text) : p.n;
            tok_copy(out, in, p.at + i, run - i);
            if (space) tok_put(out, s->text, s->text_n, in, p.at + run, p.at + run + 1);
        }
        tok_span_push(out, at, (uint32_t)out->text.len - at, p.first);
    }
    return ST_OK;
}
