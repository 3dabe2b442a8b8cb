#include "worker/data/tokenizer/normalise.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "worker/data/tokenizer/utf8.h"

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

/* Bytes at the beginning of text that are their own normal form. */
static size_t plain_bytes(const struct tok_step *s, const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && (unsigned char)text[i] < UNICODE[s->options].plain_below) i++;
    return i;
}

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
    utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &to, UNICODE[s->options].options);
    if (len < 0) FAIL(ST_DATA, "Unicode normalisation of %zu bytes failed: %s", n, utf8proc_errmsg(len));
    *f = (struct form){(char *)to, (size_t)len};
    return ST_OK;
}

static bool form_is(const struct form *f, const char *text, size_t n) { return f->n == n && memcmp(f->text, text, n) == 0; }

/* A character and the marks behind it: its end. */
static size_t cluster_end(const char *text, size_t n, size_t at)
{
    size_t len;
    utf8_get(text + at, n - at, &len);
    for (at += len; at < n; at += len)
        if (utf8proc_get_property(utf8_get(text + at, n - at, &len))->combining_class == 0) break;
    return at;
}

enum { MAX_COMPOSED = 32 }; /* clusters; no script comes near, and time grows with the square */

/* The same with all that composes with it (Hangul, some vowel signs): two neighbours belong together if their forms are
 * not the form of both. */
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
static bool trace_forms(const struct tok_step *s, const struct tok_part *p, const struct form *whole, const struct tok_spans *in,
                        struct tok_spans *out)
{
    size_t start = out->text.len;
    struct form f = {0};
    for (size_t at = 0, end; at < p->n; at = end) {
        end = at + plain_bytes(s, p->text + at, p->n - at);
        if (end < p->n && end > at) end = utf8_before(p->text, end); /* the last of them may compose with what follows */
        if (end > at) {
            tok_copy(out, in, p->at + at, end - at);
            continue;
        }
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

status step_unicode(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)matcher;
    struct form whole = {0};
    for (size_t k = 0; k < in->n; k++) {
        struct tok_part p = tok_part_of(in, k);
        uint32_t start = (uint32_t)out->text.len;
        bool plain = plain_bytes(s, p.text, p.n) == p.n;
        if (!plain) TRY(form_of(s, p.text, p.n, &whole));
        if (plain || form_is(&whole, p.text, p.n))
            tok_copy(out, in, p.at, p.n);
        else if (!out->traced || !trace_forms(s, &p, &whole, in, out))
            tok_put(out, whole.text, whole.n, in, p.at, p.at + p.n);
        tok_span_push(out, start, (uint32_t)out->text.len - start, p.first);
        form_release(&whole);
    }
    return ST_OK;
}

status step_lowercase(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)s, (void)matcher;
    for (size_t k = 0; k < in->n; k++) {
        struct tok_part p = tok_part_of(in, k);
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

status step_prepend(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)matcher;
    for (size_t k = 0; k < in->n; k++) {
        struct tok_part p = tok_part_of(in, k);
        tok_span_push(out, (uint32_t)out->text.len, (uint32_t)(p.n ? p.n + s->text_n : 0), p.first);
        if (p.n) tok_put(out, s->text, s->text_n, in, p.at, p.at + 1);
        tok_copy(out, in, p.at, p.n);
    }
    return ST_OK;
}

/* What replaces a match. An empty one has no bytes: what follows it, or at the end what precedes it, is its origin. */
static void put_match(struct tok_spans *out, const struct tok_step *s, const struct tok_spans *in, const struct tok_part *p,
                      const struct tok_match *m)
{
    size_t start = m->start < p->n ? m->start : p->n - 1, end = m->end > start ? m->end : start + 1;
    tok_put(out, s->text, s->text_n, in, p->at + start, p->at + end);
}

/* Whether a text whose first bytes are replaced still begins where the caller's does, in HF's eyes: what replaces
 * several characters stands for the last of them. */
static bool still_first(const struct tok_step *s, const struct tok_part *p, size_t replaced)
{
    size_t len = 0;
    if (replaced) utf8_get(p->text, p->n, &len);
    return replaced == 0 || (s->text_n > 0 && replaced <= len);
}

status step_replace(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    struct tok_spans repaired = {0};
    status st = ST_OK;
    for (size_t k = 0; k < in->n; k++) {
        struct tok_part p = tok_part_of(in, k);
        const struct tok_spans *source = in;
        if (!text_is_utf8(p.text, p.n, NULL)) { /* as a decoder, behind ByteFallback */
            tok_spans_clear(&repaired);
            utf8_repair(&repaired.text, p.text, p.n);
            p = (struct tok_part){repaired.text.data, 0, repaired.text.len, p.first};
            source = &repaired;
        }
        uint32_t start = (uint32_t)out->text.len;
        struct tok_match m = {0};
        size_t from = 0;
        bool first = p.first;
        do {
            if (s->regex) TRY_DONE(tok_regex_next(s->regex, matcher, p.text, p.n, &m));
            tok_copy(out, source, p.at + from, (m.found ? m.start : p.n) - from);
            if (m.found && p.n) put_match(out, s, source, &p, &m);
            if (m.found && !p.n) buf_add(&out->text, s->text, s->text_n);
            if (m.found && m.start == 0) first = first && still_first(s, &p, m.end);
            from = m.end;
            if (out->text.len > (size_t)1 << 30) FAIL_DONE(ST_DATA, "Replace makes the text longer than 1 GB");
        } while (m.found);
        tok_span_push(out, start, (uint32_t)out->text.len - start, first);
    }
done:
    tok_spans_release(&repaired);
    return st;
}

status step_strip(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)matcher;
    for (size_t k = 0; k < in->n; k++) {
        struct tok_part p = tok_part_of(in, k);
        size_t from = s->left ? tok_spaces_ahead(p.text, p.n) : 0;
        size_t less = s->right ? tok_spaces_behind(p.text + from, p.n - from) : 0;
        tok_span_push(out, (uint32_t)out->text.len, (uint32_t)(p.n - from - less), p.first && from == 0);
        tok_copy(out, in, p.at + from, p.n - from - less);
    }
    return ST_OK;
}

/* ---- SentencePiece's normalizer: characters mapped, runs of spaces joined, ▁ for space ----
 * The dummy prefix stands before the text, not before each part between special tokens: legacy = false in HF. */

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
    size_t i = 0, run;
    while (o->after_space && i < n && s[i] == ' ') i++;
    if (i == n) return;
    for (; i < n; i = run) {
        bool mark = s[i] == ' ' && o->options & SPM_ESCAPE;
        for (run = i + 1; !mark && run < n && s[run] != ' '; run++) continue;
        if (mark)
            tok_put(o->out, SPACE_MARK, strlen(SPACE_MARK), o->in, itself ? at + i : at, itself ? at + i + 1 : end);
        else if (itself)
            tok_copy(o->out, o->in, at + i, run - i);
        else
            tok_put(o->out, s + i, run - i, o->in, at, end);
    }
    o->after_space = o->options & SPM_TRIM && s[n - 1] == ' ';
}

/* Bytes at the beginning of text that nothing is done to: no spaces, no pieces to keep, nothing that is mapped. */
static size_t unmapped_bytes(const struct tok_step *s, const char *text, size_t n)
{
    size_t i = 0, len;
    int32_t piece;
    const char *to;
    for (; i < n && text[i] != ' '; i += len) {
        if (s->keep->starts[(unsigned char)text[i]] && tok_trie_longest(s->keep, text + i, n - i, &piece)) break;
        if (s->charsmap->units && tok_charsmap_match(s->charsmap, text + i, n - i, &to)) break;
        utf8_get(text + i, n - i, &len);
    }
    return i;
}

status step_spm(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)matcher;
    const char *mark = s->options & SPM_ESCAPE ? SPACE_MARK : " ";
    size_t mark_n = strlen(mark);
    for (size_t k = 0; k < in->n; k++) {
        struct tok_part p = tok_part_of(in, k);
        uint32_t start = (uint32_t)out->text.len;
        struct spm_text o = {out, in, s->options, s->options & SPM_TRIM};
        bool begun = false;
        for (size_t i = 0, len; i < p.n; i += len) {
            int32_t piece;
            const char *to = p.text + i;
            size_t to_n = len = unmapped_bytes(s, p.text + i, p.n - i);
            if (!len) to_n = len = tok_trie_longest(s->keep, p.text + i, p.n - i, &piece);
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
        if (begun && s->options & SPM_DUMMY_PREFIX && s->options & SPM_SUFFIX) tok_put(out, mark, mark_n, in, p.at + p.n - 1, p.at + p.n);
        tok_span_push(out, start, (uint32_t)out->text.len - start, p.first);
    }
    return ST_OK;
}
