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

void tok_trace(struct tok_spans *s, size_t n, struct tok_origin o, uint32_t step)
{
    if (s->cap_origin < s->text.cap) {
        s->cap_origin = s->text.cap;
        s->origin = mem_grow(s->origin, s->cap_origin * sizeof *s->origin);
    }
    for (size_t i = s->text.len - n; i < s->text.len; i++, o.from += step, o.to += step) s->origin[i] = o;
}

void tok_copy(struct tok_spans *s, const struct tok_spans *from, size_t at, size_t n)
{
    buf_add(&s->text, from->text.data + at, n);
    if (!s->traced || n == 0) return;
    tok_trace(s, 0, from->origin[at], 0); /* makes room */
    memcpy(s->origin + s->text.len - n, from->origin + at, n * sizeof *s->origin);
}

void tok_emit_traced(struct tok_sink *sink, struct tok_origin o)
{
    const struct ids *from = sink->from, *to = sink->to;
    /* in order even where a pre-tokenizer's parts are not: HF places an unknown character behind bytes that follow it */
    int32_t least = from->n ? from->v[from->n - 1] : 0, end = to->n ? to->v[to->n - 1] : 0;
    ids_push(sink->from, (int32_t)o.from > least ? (int32_t)o.from : least);
    ids_push(sink->to, (int32_t)o.to > end ? (int32_t)o.to : end);
}

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

void tok_work_release(struct tok_work *w)
{
    tok_spans_release(&w->in);
    tok_spans_release(&w->out);
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
        tok_spans_clear(&w->out);
        w->out.traced = w->in.traced;
        TRY(s->v[i].run(&s->v[i], w, &w->in, &w->out));
        struct tok_spans swap = w->in;
        w->in = w->out;
        w->out = swap;
    }
    return ST_OK;
}

struct part {
    const char *text;
    size_t at, n; /* in the spans' text */
    bool first;
};

static struct part part_of(const struct tok_spans *s, size_t k)
{
    return (struct part){s->text.data + s->v[k].at, s->v[k].at, s->v[k].n, s->v[k].first};
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

/* A normal form of some text. */
struct form {
    char *text;
    size_t n;
};

static void form_release(struct form *f)
{
    free(f->text);
    *f = (struct form){0};
}

static status form_of(const struct tok_step *s, const char *text, size_t n, struct form *f)
{
    utf8proc_uint8_t *to = NULL;
    utf8proc_ssize_t len =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &to, UNICODE[s->options].options);
    if (len < 0) FAIL(ST_DATA, "Unicode normalisation of %zu bytes failed: %s", n, utf8proc_errmsg(len));
    *f = (struct form){(char *)to, (size_t)len};
    return ST_OK;
}

static bool form_is(const struct form *f, const char *text, size_t n)
{
    return f->n == n && memcmp(f->text, text, n) == 0;
}

/* A character and the marks behind it: its end. */
static size_t cluster_end(const char *text, size_t n, size_t at)
{
    size_t len;
    utf8_get(text + at, n - at, &len);
    for (at += len; at < n; at += len)
        if (utf8proc_get_property(utf8_get(text + at, n - at, &len))->combining_class == 0) break;
    return at;
}

/* The same for the normal form and for all that composes with it (Hangul, some vowel signs): two neighbours belong
 * together if their forms are not the form of both. */
enum { MAX_COMPOSED = 32 }; /* clusters; no script comes near, and time grows with the square */

static status composed_end(const struct tok_step *s, const char *text, size_t n, size_t at, size_t *end)
{
    status st = ST_OK;
    struct form a = {0}, b = {0}, both = {0};
    bool apart = false;
    *end = cluster_end(text, n, at);
    for (int clusters = 1; !apart && *end < n && clusters < MAX_COMPOSED; clusters++) {
        size_t next = cluster_end(text, n, *end);
        TRY_DONE(form_of(s, text + at, *end - at, &a));
        TRY_DONE(form_of(s, text + *end, next - *end, &b));
        TRY_DONE(form_of(s, text + at, next - at, &both));
        apart = both.n == a.n + b.n && memcmp(both.text, a.text, a.n) == 0 && memcmp(both.text + a.n, b.text, b.n) == 0;
        if (!apart) *end = next;
        form_release(&a);
        form_release(&b);
        form_release(&both);
    }
done:
    form_release(&a);
    form_release(&b);
    form_release(&both);
    return st;
}

/* Appends the form of a part piece by piece, so that each piece knows where it is from. False, and nothing appended, if
 * the pieces do not make the form of the whole. */
static bool trace_forms(const struct tok_step *s, const struct part *p, const struct form *whole,
                        const struct tok_spans *in, struct tok_spans *out)
{
    size_t start = out->text.len;
    struct form f = {0};
    for (size_t at = 0, end; at < p->n; at = end) {
        if (composed_end(s, p->text, p->n, at, &end) || form_of(s, p->text + at, end - at, &f)) break;
        if (form_is(&f, p->text + at, end - at))
            tok_copy(out, in, p->at + at, end - at);
        else
            tok_put(out, f.text, f.n, in, p->at + at, p->at + end);
        form_release(&f);
    }
    bool same = form_is(whole, out->text.data + start, out->text.len - start);
    if (!same) out->text.len = start;
    return same;
}

status step_unicode(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    (void)w;
    struct form whole = {0};
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        uint32_t start = (uint32_t)out->text.len;
        size_t i = 0;
        while (i < p.n && (unsigned char)p.text[i] < UNICODE[s->options].plain_below) i++;
        if (i < p.n) TRY(form_of(s, p.text, p.n, &whole));
        if (i == p.n || form_is(&whole, p.text, p.n))
            tok_copy(out, in, p.at, p.n);
        else if (!out->traced || !trace_forms(s, &p, &whole, in, out))
            tok_put(out, whole.text, whole.n, in, p.at, p.at + p.n);
        tok_span_push(out, start, (uint32_t)out->text.len - start, p.first);
        form_release(&whole);
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
            bool two = c == 0x130; /* the one lower case of two characters */
            size_t to_n = two ? 3 : utf8_put(to, utf8proc_tolower(c));
            tok_put(out, two ? "i\xcc\x87" : to, to_n, in, p.at + i, p.at + i + len);
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
        if (p.n) tok_put(out, s->text, s->text_n, in, p.at, p.at + 1);
        tok_copy(out, in, p.at, p.n);
    }
    return ST_OK;
}

/* What replaces a match. An empty match has no bytes: what follows it, or at the end what precedes it, is its origin. */
static void put_match(struct tok_spans *out, const struct tok_step *s, const struct tok_spans *in, const struct part *p,
                      const struct tok_match *m)
{
    size_t start = m->start < p->n ? m->start : p->n - 1, end = m->end > start ? m->end : start + 1;
    tok_put(out, s->text, s->text_n, in, p->at + start, p->at + end);
}

status step_replace(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    struct tok_spans repaired = {0};
    status st = ST_OK;
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        const struct tok_spans *source = in;
        if (!text_is_utf8(p.text, p.n, NULL)) { /* as a decoder, behind ByteFallback */
            tok_spans_clear(&repaired);
            utf8_repair(&repaired.text, p.text, p.n);
            p = (struct part){repaired.text.data, 0, repaired.text.len, p.first};
            source = &repaired;
        }
        uint32_t start = (uint32_t)out->text.len;
        struct tok_match m = {0};
        size_t from = 0;
        do {
            if (s->regex) TRY_DONE(tok_regex_next(s->regex, &w->matcher, p.text, p.n, &m));
            tok_copy(out, source, p.at + from, (m.found ? m.start : p.n) - from);
            if (m.found && p.n) put_match(out, s, source, &p, &m);
            if (m.found && !p.n) buf_add(&out->text, s->text, s->text_n);
            from = m.end;
            if (out->text.len > (size_t)1 << 30) FAIL_DONE(ST_DATA, "Replace makes the text longer than 1 GB");
        } while (m.found);
        tok_span_push(out, start, (uint32_t)out->text.len - start, p.first);
    }
done:
    tok_spans_release(&repaired);
    return st;
}

status step_strip(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    (void)w;
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        size_t from = s->left ? tok_spaces_ahead(p.text, p.n) : 0;
        size_t less = s->right ? tok_spaces_behind(p.text + from, p.n - from) : 0;
        tok_span_push(out, (uint32_t)out->text.len, (uint32_t)(p.n - from - less), p.first);
        tok_copy(out, in, p.at + from, p.n - from - less);
    }
    return ST_OK;
}

/* ---- SentencePiece's normalizer: characters mapped, runs of spaces joined, ▁ for space ----
 * The dummy prefix stands before the text, not before each part between special tokens: what HF calls legacy = false.
 */

struct spm_text {
    struct tok_spans *out;
    const struct tok_spans *in;
    int options;
    bool after_space; /* SPM_TRIM: leading and repeated spaces vanish */
};

/* The bytes [at, end) of the input's text as they are after mapping. */
static void spm_put(struct spm_text *o, const char *s, size_t n, size_t at, size_t end)
{
    bool itself = s == o->in->text.data + at && n == end - at; /* not mapped: each byte is from one byte */
    size_t i = 0;
    while (o->after_space && i < n && s[i] == ' ') i++;
    if (i == n) return;
    for (; i < n; i++) {
        bool mark = s[i] == ' ' && o->options & SPM_ESCAPE;
        size_t from = itself ? at + i : at, to = itself ? at + i + 1 : end;
        tok_put(o->out, mark ? SPACE_MARK : s + i, mark ? strlen(SPACE_MARK) : 1, o->in, from, to);
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
        struct spm_text o = {out, in, s->options, s->options & SPM_TRIM};
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
                tok_put(out, mark, mark_n, in, p.at + i, p.at + i + 1);
            begun = true;
            spm_put(&o, to, to_n, p.at + i, p.at + i + len);
        }
        while (s->options & SPM_TRIM && out->text.len - start >= mark_n &&
               memcmp(out->text.data + out->text.len - mark_n, mark, mark_n) == 0)
            out->text.len -= mark_n;
        if (begun && s->options & SPM_DUMMY_PREFIX && s->options & SPM_SUFFIX)
            tok_put(out, mark, mark_n, in, p.at + p.n - 1, p.at + p.n);
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
    tok_copy(out, in, 0, in->text.len);
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

status step_bytes(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in, struct tok_spans *out)
{
    (void)s, (void)w;
    for (size_t k = 0; k < in->n; k++) {
        struct part p = part_of(in, k);
        uint32_t at = (uint32_t)out->text.len;
        for (size_t i = 0; i < p.n; i++) {
            char to[4];
            tok_put(out, to, utf8_put(to, alphabet_of_byte((unsigned char)p.text[i])), in, p.at + i, p.at + i + 1);
        }
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
            tok_put(out, s->text, s->text_n, in, p.at, p.at + 1);
        for (size_t i = 0; i < p.n; i++) {
            bool space = p.text[i] == ' ';
            tok_put(out, space ? s->text : p.text + i, space ? s->text_n : 1, in, p.at + i, p.at + i + 1);
        }
        tok_span_push(out, at, (uint32_t)out->text.len - at, p.first);
    }
    return ST_OK;
}
