/* Normalizer and pre-tokenizer steps: spans in, spans out. Text is valid UTF-8 throughout (tokenizer.c repairs it). */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "worker/data/tokenizer/tok_utf8.h"
#include "worker/data/tokenizer/tokenizer_impl.h"

void tok_span_push(struct tok_spans *s, uint32_t at, uint32_t n, bool first)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->v = mem_grow(s->v, s->cap * sizeof *s->v);
    }
    s->v[s->n++] = (struct tok_span){at, n, first};
}

void tok_span_add(struct tok_spans *s, const char *bytes, size_t n, bool first)
{
    tok_span_push(s, (uint32_t)s->text.len, (uint32_t)n, first);
    buf_add(&s->text, bytes, n);
}

static void spans_release(struct tok_spans *s)
{
    buf_release(&s->text);
    free(s->v);
}

void tok_work_release(struct tok_work *w)
{
    spans_release(&w->in);
    spans_release(&w->out);
    tok_matcher_release(&w->matcher);
    free(w->symbols);
    free(w->heap);
    free(w->best);
    *w = (struct tok_work){0};
}

struct tok_step *tok_steps_add(struct tok_steps *s, tok_step_run *run)
{
    s->v = mem_grow(s->v, (size_t)(s->n + 1) * sizeof *s->v);
    s->v[s->n] = (struct tok_step){.run = run};
    return &s->v[s->n++];
}

void tok_steps_release(struct tok_steps *s)
{
    for (int i = 0; i < s->n; i++) {
        tok_regex_close(s->v[i].regex);
        free(s->v[i].text);
    }
    free(s->v);
    *s = (struct tok_steps){0};
}

status tok_steps_run(const struct tok_steps *s, struct tok_work *w)
{
    enum { LIMIT = 1 << 30 }; /* offsets are 32 bits, and a step may grow the text */
    for (int i = 0; i < s->n; i++) {
        if (w->in.text.len > LIMIT)
            FAIL(ST_DATA, "text of %zu bytes is too long to tokenise in one piece; split the row", w->in.text.len);
        buf_clear(&w->out.text);
        buf_add(&w->out.text, "", 0); /* a pointer even for no text */
        w->out.n = 0;
        TRY(s->v[i].run(&s->v[i], w, &w->in, &w->out));
        struct tok_spans swap = w->in;
        w->in = w->out;
        w->out = swap;
    }
    return ST_OK;
}

struct part {
    const char *text;
    size_t n;
    bool first;
};

static struct part part_of(const struct tok_spans *s, size_t k)
{
    return (struct part){s->text.data + s->v[k].at, s->v[k].n, s->v[k].first};
}

size_t tok_spaces_ahead(const char *text, size_t n)
{
    size_t i = 0, len;
    while (i < n && tok_is_space(utf8_get(text + i, n - i, &len))) i += len;
    return i;
}

size_t tok_spaces_behind(const char *text, size_t n)
{
    size_t end = n;
    while (end > 0) {
        size_t i = utf8_before(text, end), len;
        if (!tok_is_space(utf8_get(text + i, end - i, &len))) break;
        end = i;
    }
    return n - end;
}

/* ---- normalizers ---- */

static const struct {
    utf8proc_option_t options;
    unsigned char plain_below;
} UNICODE[] = {
    /* a text of bytes below plain_below only is its own normal form: 0xcc leads U+0300, the first combining mark */
    [UNICODE_NFC] = {UTF8PROC_STABLE | UTF8PROC_COMPOSE, 0xcc},
    [UNICODE_NFD] = {UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, 0x80},
    [UNICODE_NFKC] = {UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT, 0x80},
    [UNICODE_NFKD] = {UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, 0x80},
};

status step_unicode(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    (void)w;
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        size_t i = 0;
        while (i < p.n && (unsigned char)p.text[i] < UNICODE[s->options].plain_below) i++;
        utf8proc_uint8_t *to = NULL;
        utf8proc_ssize_t len = 0;
        if (i < p.n)
            len =
                utf8proc_map((const utf8proc_uint8_t *)p.text, (utf8proc_ssize_t)p.n, &to, UNICODE[s->options].options);
        if (len < 0) FAIL(ST_DATA, "Unicode normalisation of %zu bytes failed: %s", p.n, utf8proc_errmsg(len));
        if (to)
            tok_span_add(out, (const char *)to, (size_t)len, p.first);
        else
            tok_span_add(out, p.text, p.n, p.first);
        free(to);
    }
    return ST_OK;
}

status step_lowercase(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    (void)s, (void)w;
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        tok_span_push(out, (uint32_t)out->text.len, 0, p.first);
        for (size_t i = 0, len; i < p.n; i += len) {
            int c = utf8_get(p.text + i, p.n - i, &len);
            char to[4];
            if (c == 0x130)
                buf_text(&out->text, "i\xcc\x87"); /* the one lower case of two characters */
            else
                buf_add(&out->text, to, utf8_put(to, utf8proc_tolower(c)));
        }
        out->v[out->n - 1].n = (uint32_t)out->text.len - out->v[out->n - 1].at;
    }
    return ST_OK;
}

status step_prepend(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    (void)w;
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        tok_span_push(out, (uint32_t)out->text.len, (uint32_t)(p.n ? p.n + s->text_n : 0), p.first);
        if (p.n) buf_add(&out->text, s->text, s->text_n);
        buf_add(&out->text, p.text, p.n);
    }
    return ST_OK;
}

status step_replace(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    struct buf repaired = {0};
    status st = ST_OK;
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        if (!text_is_utf8(p.text, p.n, NULL)) { /* as a decoder, behind ByteFallback */
            buf_clear(&repaired);
            utf8_repair(&repaired, p.text, p.n);
            p.text = repaired.data;
            p.n = repaired.len;
        }
        uint32_t start = (uint32_t)out->text.len;
        struct tok_match m = {0};
        size_t from = 0;
        do {
            if (s->regex) TRY_DONE(tok_regex_next(s->regex, &w->matcher, p.text, p.n, &m));
            buf_add(&out->text, p.text + from, (m.found ? m.start : p.n) - from);
            if (m.found) buf_add(&out->text, s->text, s->text_n);
            from = m.end;
            if (out->text.len > (size_t)1 << 30) FAIL_DONE(ST_DATA, "Replace makes the text longer than 1 GB");
        } while (m.found);
        tok_span_push(out, start, (uint32_t)out->text.len - start, p.first);
    }
done:
    buf_release(&repaired);
    return st;
}

status step_strip(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    (void)w;
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        size_t from = s->left ? tok_spaces_ahead(p.text, p.n) : 0;
        size_t less = s->right ? tok_spaces_behind(p.text + from, p.n - from) : 0;
        tok_span_add(out, p.text + from, p.n - from - less, p.first);
    }
    return ST_OK;
}

/* ---- SentencePiece's normalizer: characters mapped, runs of spaces joined, ▁ for space ----
 * The dummy prefix stands before the text, not before each part between special tokens: what HF calls legacy = false.
 */

struct spm_text {
    struct buf *b;
    int options;
    bool after_space; /* SPM_TRIM: leading and repeated spaces vanish */
};

static void spm_put(struct spm_text *o, const char *s, size_t n)
{
    while (o->after_space && n && *s == ' ') s++, n--;
    if (n == 0) return;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == ' ' && o->options & SPM_ESCAPE)
            buf_text(o->b, SPACE_MARK);
        else
            buf_add(o->b, s + i, 1);
    }
    o->after_space = o->options & SPM_TRIM && s[n - 1] == ' ';
}

status step_spm(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    (void)w;
    const char *mark = s->options & SPM_ESCAPE ? SPACE_MARK : " ";
    size_t mark_n = strlen(mark);
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        uint32_t start = (uint32_t)out->text.len;
        struct spm_text o = {&out->text, s->options, s->options & SPM_TRIM};
        bool begun = false;
        for (size_t i = 0, len; i < p.n; i += len) {
            int32_t piece;
            const char *to = p.text + i;
            size_t to_n = len = tok_trie_longest(s->keep, p.text + i, p.n - i, &piece);
            if (!len) {
                len = tok_charsmap_match(s->charsmap, p.text + i, p.n - i, &to);
                to_n = len ? strlen(to) : 0;
            }
            if (!len) {
                utf8_get(p.text + i, p.n - i, &len);
                to = p.text + i;
                to_n = len;
            }
            if (!begun && s->options & SPM_TRIM && to_n == 1 && *to == ' ') continue;
            if (!begun && p.first && s->options & SPM_DUMMY_PREFIX && !(s->options & SPM_SUFFIX))
                buf_text(&out->text, mark);
            begun = true;
            spm_put(&o, to, to_n);
        }
        while (s->options & SPM_TRIM && out->text.len - start >= mark_n &&
               memcmp(out->text.data + out->text.len - mark_n, mark, mark_n) == 0)
            out->text.len -= mark_n;
        if (begun && s->options & SPM_DUMMY_PREFIX && s->options & SPM_SUFFIX) buf_text(&out->text, mark);
        tok_span_push(out, start, (uint32_t)out->text.len - start, p.first);
    }
    return ST_OK;
}

/* ---- pre-tokenizers ---- */

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
static void split_part(struct tok_spans *out, const struct tok_step *s, size_t base, const struct tok_span *part,
                       bool match, bool previous)
{
    bool join = false;
    if (s->options == SPLIT_REMOVED && match) return;
    if (s->options == SPLIT_CONTIGUOUS) join = match == previous;
    if (s->options == SPLIT_MERGED_PREVIOUS) join = match && !previous;
    if (s->options == SPLIT_MERGED_NEXT) join = previous && !match;
    push_part(out, base, part->at, part->n, part->first, join);
}

status step_split(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    buf_add(&out->text, in->text.data, in->text.len);
    for (size_t k = 0; k < in->n; k++) {
        struct tok_span span = in->v[k];
        const char *text = in->text.data + span.at;
        struct tok_match m = {0};
        size_t from = 0, base = out->n;
        bool previous = false;
        do {
            if (s->regex) TRY(tok_regex_next(s->regex, &w->matcher, text, span.n, &m));
            size_t to = m.found ? m.start : span.n;
            if (to > from) {
                struct tok_span gap = {span.at + (uint32_t)from, (uint32_t)(to - from), span.first && from == 0};
                split_part(out, s, base, &gap, s->flag, previous);
                previous = s->flag;
            }
            if (!m.found) break;
            struct tok_span match = {span.at + (uint32_t)m.start, (uint32_t)(m.end - m.start),
                                     span.first && m.start == 0};
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

status step_prefix_space(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in,
                         struct tok_spans *out)
{
    (void)s, (void)w;
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        bool add = p.n && *p.text != ' ';
        tok_span_push(out, (uint32_t)out->text.len, (uint32_t)(p.n + add), p.first);
        buf_add(&out->text, " ", add);
        buf_add(&out->text, p.text, p.n);
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

status step_bytes(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    (void)s, (void)w;
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        uint32_t at = (uint32_t)out->text.len;
        tok_bytes_to_alphabet(&out->text, p.text, p.n);
        tok_span_push(out, at, (uint32_t)out->text.len - at, p.first);
    }
    return ST_OK;
}

status step_metaspace(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    (void)w;
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        uint32_t at = (uint32_t)out->text.len;
        bool marked = (p.n && *p.text == ' ') || (p.n >= s->text_n && memcmp(p.text, s->text, s->text_n) == 0);
        if (p.n && !marked && (s->options == PREPEND_ALWAYS || (s->options == PREPEND_FIRST && p.first)))
            buf_add(&out->text, s->text, s->text_n);
        for (size_t i = 0; i < p.n; i++) {
            if (p.text[i] == ' ')
                buf_add(&out->text, s->text, s->text_n);
            else
                buf_add(&out->text, p.text + i, 1);
        }
        tok_span_push(out, at, (uint32_t)out->text.len - at, p.first);
    }
    return ST_OK;
}
