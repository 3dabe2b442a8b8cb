#include "worker/data/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "worker/data/tokenizer/parts.h"
#include "worker/data/tokenizer/segment.h"
#include "worker/data/tokenizer/utf8.h"

void ids_push(struct ids *a, int32_t id)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 64;
        a->v = mem_grow(a->v, a->cap * sizeof *a->v);
    }
    a->v[a->n++] = id;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t) return;
    tok_model_release(&t->model);
    tok_added_release(&t->added);
    struct tok_steps *const steps[] = {&t->normalizer, &t->pre_tokenizer, &t->decoder};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) tok_steps_release(steps[i]);
    tok_charsmap_release(&t->charsmap);
    free(t->prefix.v);
    free(t->suffix.v);
    free(t->path);
    free(t->describe);
    free(t);
}

/* ---- encoding ---- */

/* The caller's text is never copied whole unless somebody asks for origins or it is not UTF-8: `whole` then has it. */
struct call {
    const struct tokenizer *t;
    struct tok_pass pass;
    struct tok_work work;
    struct tok_spans whole, normalised; /* they outlive the pass's spans */
    const unsigned char *quoted;        /* per byte of the caller's text; NULL: nothing is quoted */
    struct buf quoted_form;             /* the same per byte of a text derived from it */
    bool specials;
    struct tok_sink out;
};

/* Which bytes of s->text stand for quoted ones. */
static struct tok_specials specials_in(struct call *c, const struct tok_spans *s)
{
    if (!c->quoted) return (struct tok_specials){.found = c->specials};
    buf_clear(&c->quoted_form);
    char quoted = 0;
    for (size_t i = 0; i < s->text.len; i++) {
        struct tok_origin o = s->origin[i], before = s->origin[i ? i - 1 : 0];
        if (i == 0 || o.from != before.from || o.to != before.to) {
            quoted = 0;
            for (size_t k = o.from; k < o.to && !quoted; k++) quoted = c->quoted[k] != 0;
        }
        buf_add(&c->quoted_form, &quoted, 1);
    }
    return (struct tok_specials){.found = c->specials, .quoted = (const unsigned char *)c->quoted_form.data};
}

/* Bytes [at, end) of the normalised text, which lie between added tokens, to ids. */
static status encode_normalised(struct call *c, size_t at, size_t end, bool first)
{
    const struct tok_model *m = &c->t->model;
    struct tok_spans *in = &c->pass.in;
    if (at == end) return ST_OK;
    tok_spans_clear(in);
    tok_span_push(in, 0, (uint32_t)(end - at), first && at == 0);
    tok_copy(in, &c->normalised, at, end - at);
    TRY(tok_steps_run(&c->t->pre_tokenizer, &c->pass));
    for (size_t i = 0; i < in->n; i++) {
        status st = m->segment(m, &c->work, in, in->v[i].at, in->v[i].n, &c->out);
        if (st) return status_prefix(st, "%s", c->t->path);
    }
    return ST_OK;
}

/* The one span of pass.in, which lies between added tokens of the text as it was written, to ids. */
static status encode_gap(struct call *c)
{
    const struct tokenizer *t = c->t;
    TRY(tok_steps_run(&t->normalizer, &c->pass));
    struct tok_spans swap = c->pass.in;
    c->pass.in = c->normalised;
    c->normalised = swap;
    c->pass.in.traced = swap.traced;
    bool first = c->normalised.v[0].first;
    const char *text = c->normalised.text.data;
    size_t n = c->normalised.text.len;
    struct tok_scan scan = {0};
    struct tok_specials specials = {0};
    if (t->added.normalized.nodes) specials = specials_in(c, &c->normalised);
    while (tok_added_next(&t->added, &t->added.normalized, text, n, specials, &scan)) {
        TRY(encode_normalised(c, scan.last, scan.start, first));
        tok_emit(&c->out, scan.token->id, &c->normalised, scan.at, scan.end);
    }
    return encode_normalised(c, scan.last, n, first);
}

/* Bytes [at, end) of the caller's text, or of `whole` where that is in use. */
static status encode_between(struct call *c, const char *text, size_t at, size_t end)
{
    struct tok_spans *in = &c->pass.in;
    if (at == end) return ST_OK;
    tok_spans_clear(in);
    in->traced = c->whole.traced;
    tok_span_push(in, 0, (uint32_t)(end - at), at == 0);
    if (in->traced)
        tok_copy(in, &c->whole, at, end - at);
    else
        buf_add(&in->text, text + at, end - at);
    return encode_gap(c);
}

/* Fills `whole`: UTF-8, each byte with its origin. */
static void copy_whole(struct call *c, const char *text, size_t n)
{
    struct tok_spans *s = &c->whole;
    s->traced = c->out.from != NULL;
    tok_spans_clear(s);
    for (size_t i = 0, good, bad; i < n; i += good + bad) {
        good = utf8_good(text + i, n - i, &bad);
        buf_add(&s->text, text + i, good);
        if (s->traced) tok_trace(s, good, (struct tok_origin){(uint32_t)i, (uint32_t)i + 1}, 1);
        if (bad) buf_text(&s->text, UTF8_REPLACEMENT);
        struct tok_origin mistake = {(uint32_t)(i + good), (uint32_t)(i + good + bad)};
        if (bad && s->traced) tok_trace(s, strlen(UTF8_REPLACEMENT), mistake, 0);
    }
}

static status encode(struct call *c, const char *text, size_t n)
{
    const struct tokenizer *t = c->t;
    struct tok_specials specials = {.found = c->specials};
    status st = ST_OK;
    if (n > INT32_MAX / 2) FAIL(ST_DATA, "text of %zu bytes is too long to tokenise in one piece; split the row", n);
    if (c->out.from || !text_is_utf8(text, n, NULL)) {
        copy_whole(c, text, n);
        text = c->whole.text.data;
        n = c->whole.text.len;
    }
    struct buf quoted = {0}; /* outlives quoted_form */
    if (c->quoted) {
        specials = specials_in(c, &c->whole);
        buf_add(&quoted, specials.quoted, n);
        specials.quoted = (const unsigned char *)quoted.data;
    }
    struct tok_scan scan = {0};
    while (tok_added_next(&t->added, &t->added.raw, text, n, specials, &scan)) {
        TRY_DONE(encode_between(c, text, scan.last, scan.start));
        tok_emit(&c->out, scan.token->id, &c->whole, scan.at, scan.end);
    }
    TRY_DONE(encode_between(c, text, scan.last, n));
done:
    tok_pass_release(&c->pass);
    tok_work_release(&c->work);
    tok_spans_release(&c->whole);
    tok_spans_release(&c->normalised);
    buf_release(&c->quoted_form);
    buf_release(&quoted);
    return st;
}

status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool specials, struct ids *out)
{
    struct call c = {.t = t, .specials = specials, .out = {.ids = out}};
    return encode(&c, text, n);
}

status tokenizer_encode_rendered(const struct tokenizer *t, const char *text, size_t n, const unsigned char *quoted, struct ids *out,
                                 struct ids *from, struct ids *to)
{
    struct ids unwanted[2] = {0};
    struct tok_sink sink = {out, from ? from : &unwanted[0], to ? to : &unwanted[1], 0, 0};
    sink.from_n = sink.from->n;
    sink.to_n = sink.to->n;
    struct call c = {.t = t, .specials = true, .quoted = quoted, .out = sink};
    status st = encode(&c, text, n);
    for (int i = 0; i < 2; i++) free(unwanted[i].v);
    return st;
}

void tokenizer_around(const struct tokenizer *t, const struct ids **prefix, const struct ids **suffix)
{
    *prefix = &t->prefix;
    *suffix = &t->suffix;
}

status tokenizer_encode_document(const struct tokenizer *t, const char *text, size_t n, struct ids *out)
{
    for (size_t i = 0; i < t->prefix.n; i++) ids_push(out, t->prefix.v[i]);
    TRY(tokenizer_encode(t, text, n, true, out));
    for (size_t i = 0; i < t->suffix.n; i++) ids_push(out, t->suffix.v[i]);
    return ST_OK;
}

/* ---- decoding and looking up ---- */

/* What decoding starts from. */
static const char *shown_piece(const struct tokenizer *t, int32_t id, size_t *n)
{
    const struct tok_added *a = tok_added_of_id(&t->added, id);
    if (!a) return tok_vocab_piece(&t->model.vocab, id, n);
    *n = a->form ? a->form_n : a->n;
    return a->form ? a->form : a->text;
}

char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_specials, size_t *bytes)
{
    struct tok_pass w = {0};
    struct buf out = {0};
    tok_spans_clear(&w.in);
    buf_add(&out, "", 0);
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *piece = shown_piece(t, ids[i], &len);
        if (piece && !(skip_specials && tokenizer_is_special(t, ids[i]))) tok_span_add(&w.in, piece, len, i == 0);
    }
    /* A decoder that fails (a pattern that gives up) leaves the pieces as they were before that step. */
    tok_steps_run(&t->decoder, &w);
    for (size_t i = 0; i < w.in.n; i++) {
        if (i > 0 && t->decoder.n == 0) buf_add(&out, " ", 1); /* as HF does for files without a decoder */
        buf_add(&out, w.in.text.data + w.in.v[i].at, w.in.v[i].n);
    }
    tok_pass_release(&w);
    if (bytes) *bytes = out.len;
    return out.data;
}

int32_t tokenizer_size(const struct tokenizer *t) { return t->size; }

int32_t tokenizer_id(const struct tokenizer *t, const char *piece)
{
    const struct tok_added *a = tok_added_find(&t->added, piece, strlen(piece));
    return a ? a->id : tok_vocab_id(&t->model.vocab, piece, strlen(piece));
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id)
{
    const struct tok_added *a = tok_added_of_id(&t->added, id);
    return a ? a->text : tok_vocab_piece(&t->model.vocab, id, NULL);
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    const struct tok_added *a = tok_added_of_id(&t->added, id);
    return a && a->special;
}

int32_t tokenizer_bos(const struct tokenizer *t) { return t->bos; }
int32_t tokenizer_eos(const struct tokenizer *t) { return t->eos; }
int32_t tokenizer_pad(const struct tokenizer *t) { return t->pad; }
const char *tokenizer_describe(const struct tokenizer *t) { return t->describe; }
