#include "worker/data/tokenizer/tokenizer.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/file.h"
#include "worker/data/tokenizer/tok_utf8.h"
#include "worker/data/tokenizer/tokenizer_impl.h"

enum { FILE_LIMIT = 256 << 20 };

void ids_push(struct ids *a, int32_t id)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 64;
        a->v = mem_grow(a->v, a->cap * sizeof *a->v);
    }
    a->v[a->n++] = id;
}

/* ---- opening ---- */

static int32_t named_id(const struct tokenizer *t, const char *text) { return text ? tokenizer_id(t, text) : -1; }

/* bos, eos, pad: what the configuration names, else what the file says, else what the family uses. */
static void choose_specials(struct tokenizer *t, const struct tok_config *c, const struct tok_family *family)
{
    int32_t *const place[] = {&t->bos, &t->eos, &t->pad};
    const char *const key[] = {"bos_token", "eos_token", "pad_token"};
    const char *const usual[] = {family->bos, family->eos, family->pad};
    if (t->bos < 0 && t->has_template && t->prefix.n) t->bos = t->prefix.v[0];
    for (int i = 0; i < 3; i++) {
        int32_t id = named_id(t, tok_config_text(c, key[i]));
        if (id >= 0) *place[i] = id;
        if (*place[i] < 0) *place[i] = named_id(t, usual[i]);
    }
}

static void choose_document(struct tokenizer *t, const struct tok_config *c, const struct tok_family *family)
{
    if (t->has_template) return;
    int add_bos = tok_config_flag(c, "add_bos_token"), add_eos = tok_config_flag(c, "add_eos_token");
    if (add_bos < 0) add_bos = !t->by_pair && family->bos_added;
    if (add_bos && t->bos >= 0) ids_push(&t->prefix, t->bos);
    if (add_eos > 0 && t->eos >= 0) ids_push(&t->suffix, t->eos);
}

static status check_ids(const struct tokenizer *t, const struct ids *ids)
{
    for (size_t i = 0; i < ids->n; i++)
        if (!tokenizer_piece(t, ids->v[i]))
            FAIL(ST_CORRUPT, "post_processor: id %d is not in the vocabulary", (int)ids->v[i]);
    return ST_OK;
}

static status read_kind(struct tokenizer *t, const struct tok_source *s, const struct tok_config *c,
                        const struct tok_family *family)
{
    if (strcmp(s->kind, "tokenizer.json") == 0) return tok_read_json(t, s->data, s->n);
    if (strcmp(s->kind, "tiktoken") == 0) return tok_read_tiktoken(t, s->data, s->n, family);
    if (strcmp(s->kind, "sentencepiece") == 0) return tok_read_spm(t, (const unsigned char *)s->data, s->n);
    if (!s->merges) FAIL(ST_USAGE, "a vocab.json needs its merges.txt; give merges_file");
    return tok_read_gpt2(t, s->data, s->n, s->merges, s->merges_n, tok_config_flag(c, "add_prefix_space") > 0, family);
}

static status build(struct tokenizer *t, const struct tok_source *s, const struct tok_config *c)
{
    const char *family_name = s->family, *class_name = tok_config_text(c, "tokenizer_class");
    if (!family_name && strcmp(s->kind, "tiktoken") == 0) family_name = "llama3"; /* the one family with such files */
    const struct tok_family *family = tok_family_find(family_name, class_name);
    TRY(read_kind(t, s, c, family));
    tok_bpe_words(t);
    bool bare = strcmp(s->kind, "vocab.json") == 0 || strcmp(s->kind, "tiktoken") == 0;
    if (s->specials) TRY(tok_read_added(t, s->specials, strlen(s->specials)));
    TRY(tok_config_added(c, t));
    if (bare && t->n_added == 0 && family) TRY(tok_family_specials(t, family));
    TRY(tok_added_finish(t));
    if (!family) family = tok_family_guess(t);
    t->size = t->vocab.ids;
    for (int32_t i = 0; i < t->n_added; i++)
        if (t->added[i].id >= t->size) t->size = t->added[i].id + 1;
    choose_specials(t, c, family);
    choose_document(t, c, family);
    TRY(check_ids(t, &t->prefix));
    TRY(check_ids(t, &t->suffix));
    const char *base = strrchr(s->path, '/');
    t->describe = mem_printf("%s: %s, %d ids", base ? base + 1 : s->path, t->kind, (int)t->size);
    return ST_OK;
}

status tokenizer_from_memory(const struct tok_source *s, struct tokenizer **out)
{
    struct tokenizer *t = mem_alloc(sizeof *t);
    struct tok_config c = {0};
    t->unk = t->bos = t->eos = t->pad = -1;
    memset(t->byte_id, 0xff, sizeof t->byte_id);
    t->path = mem_strdup(s->path);
    status st = tok_config_open(&c, s->config, s->special_map);
    if (!st) st = build(t, s, &c);
    tok_config_close(&c);
    if (st) {
        status_prefix(st, "%s", s->path);
        tokenizer_close(t);
        return st;
    }
    *out = t;
    return ST_OK;
}

/* A source and the texts it points to. */
struct files {
    struct tok_source s;
    char *path, *data, *merges, *config, *special_map, *specials;
};

static char *beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    return slash ? mem_printf("%.*s/%s", (int)(slash - path), path, name) : mem_strdup(name);
}

/* A file that need not exist. */
static status read_optional(const char *path, const char *name, char **text)
{
    char *file = beside(path, name);
    status st = file_exists(file) ? file_read(file, FILE_LIMIT, text, NULL) : ST_OK;
    free(file);
    return st;
}

/* In a directory: the first of the names that exists. */
static status find_file(const char *path, char **file)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "vocab.json"};
    if (!file_is_dir(path)) {
        *file = mem_strdup(path);
        return ST_OK;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *file = mem_printf("%s/%s", path, names[i]);
        if (file_exists(*file)) return ST_OK;
        free(*file);
    }
    *file = NULL;
    FAIL(ST_IO, "%s: has no tokenizer.json, tokenizer.model or vocab.json; copy the model's tokenizer files there",
         path);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

/* JSON by its brace, protobuf by its first field (number 1, bytes), tiktoken by being neither. */
static const char *kind_of(const struct files *f, const struct tokenizer_hint *hint)
{
    if (f->data[strspn(f->data, " \t\r\n")] == '{')
        return hint->merges_file || ends_with(f->path, "vocab.json") ? "vocab.json" : "tokenizer.json";
    return f->s.n && f->data[0] == '\n' ? "sentencepiece" : "tiktoken";
}

static status read_merges(struct files *f, const struct tokenizer_hint *hint)
{
    char *path = hint->merges_file ? mem_strdup(hint->merges_file) : beside(f->path, "merges.txt");
    status st = file_read(path, FILE_LIMIT, &f->merges, &f->s.merges_n);
    free(path);
    return st;
}

status tokenizer_open(const char *path, const struct tokenizer_hint *hint, struct tokenizer **out)
{
    const struct tokenizer_hint none = {0};
    struct files f = {0};
    status st;
    if (!hint) hint = &none;
    TRY_DONE(find_file(path, &f.path));
    TRY_DONE(file_read(f.path, FILE_LIMIT, &f.data, &f.s.n));
    f.s.kind = kind_of(&f, hint);
    if (strcmp(f.s.kind, "vocab.json") == 0) TRY_DONE(read_merges(&f, hint));
    TRY_DONE(read_optional(f.path, "tokenizer_config.json", &f.config));
    TRY_DONE(read_optional(f.path, "special_tokens_map.json", &f.special_map));
    if (hint->special_tokens_path) TRY_DONE(file_read(hint->special_tokens_path, FILE_LIMIT, &f.specials, NULL));
    f.s.path = f.path;
    f.s.data = f.data;
    f.s.merges = f.merges;
    f.s.config = f.config;
    f.s.special_map = f.special_map;
    f.s.specials = f.specials;
    f.s.family = hint->family;
    TRY_DONE(tokenizer_from_memory(&f.s, out));
done:
    free(f.path);
    free(f.data);
    free(f.merges);
    free(f.config);
    free(f.special_map);
    free(f.specials);
    malloc_trim(
        0); /* the JSON tree was several times the file; the plan does not count it, so neither may the process */
    return st;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t) return;
    for (int32_t i = 0; i < t->n_added; i++) {
        free(t->added[i].text);
        free(t->added[i].form);
    }
    free(t->added);
    tok_vocab_release(&t->vocab);
    tok_map_release(&t->pairs);
    tok_map_release(&t->added_by_id);
    struct tok_trie *const tries[] = {&t->pieces, &t->user_defined, &t->added_raw, &t->added_normalized, &t->added_all};
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) tok_trie_release(tries[i]);
    struct tok_steps *const steps[] = {&t->normalizer, &t->pre_tokenizer, &t->decoder};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) tok_steps_release(steps[i]);
    free(t->charsmap.unit);
    free(t->charsmap.pool);
    free(t->rank);
    free(t->score);
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
    struct tok_work work;
    struct tok_spans whole, normalised; /* they outlive the work's spans */
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
    struct tok_work *w = &c->work;
    if (at == end) return ST_OK;
    tok_spans_clear(&w->in);
    tok_span_push(&w->in, 0, (uint32_t)(end - at), first && at == 0);
    tok_copy(&w->in, &c->normalised, at, end - at);
    TRY(tok_steps_run(&c->t->pre_tokenizer, w));
    for (size_t i = 0; i < w->in.n; i++)
        TRY(c->t->segment(c->t, w, w->in.text.data + w->in.v[i].at, w->in.v[i].n, &c->out));
    return ST_OK;
}

/* The one span of work.in, which lies between added tokens of the text as it was written, to ids. */
static status encode_gap(struct call *c)
{
    const struct tokenizer *t = c->t;
    bool first = c->work.in.v[0].first;
    TRY(tok_steps_run(&t->normalizer, &c->work));
    struct tok_spans swap = c->work.in;
    c->work.in = c->normalised;
    c->normalised = swap;
    c->work.in.traced = swap.traced;
    const char *text = c->normalised.text.data;
    size_t n = c->normalised.text.len;
    struct tok_scan scan = {0};
    struct tok_specials specials = {0};
    if (t->added_normalized.nodes) specials = specials_in(c, &c->normalised);
    for (tok_added_next(t, &t->added_normalized, text, n, specials, &scan); scan.token;
         tok_added_next(t, &t->added_normalized, text, n, specials, &scan)) {
        TRY(encode_normalised(c, scan.last, scan.start, first));
        tok_emit(&c->out, scan.token->id, &c->normalised, text + scan.at, text + scan.end);
    }
    return encode_normalised(c, scan.last, n, first);
}

/* Bytes [at, end) of the caller's text, or of `whole` where that is in use. */
static status encode_between(struct call *c, const char *text, size_t at, size_t end)
{
    struct tok_spans *in = &c->work.in;
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
    if (n > INT32_MAX / 2)
        FAIL(ST_DATA, "text of %zu bytes is too long to tokenise in one piece; split the row", n);
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
    for (tok_added_next(t, &t->added_raw, text, n, specials, &scan); scan.token;
         tok_added_next(t, &t->added_raw, text, n, specials, &scan)) {
        TRY_DONE(encode_between(c, text, scan.last, scan.start));
        tok_emit(&c->out, scan.token->id, &c->whole, text + scan.at, text + scan.end);
    }
    TRY_DONE(encode_between(c, text, scan.last, n));
done:
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

status tokenizer_encode_rendered(const struct tokenizer *t, const char *text, size_t n, const unsigned char *quoted,
                                 struct ids *out, struct ids *from, struct ids *to)
{
    struct call c = {.t = t, .specials = true, .quoted = quoted, .out = {out, from, to}};
    return encode(&c, text, n);
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
    const struct tok_added *a = tok_added_of_id(t, id);
    if (!a) return tok_vocab_piece(&t->vocab, id, n);
    *n = a->form ? a->form_n : a->n;
    return a->form ? a->form : a->text;
}

char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_specials, size_t *bytes)
{
    struct tok_work w = {0};
    struct buf out = {0};
    buf_add(&w.in.text, "", 0);
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
    tok_work_release(&w);
    if (bytes) *bytes = out.len;
    return out.data;
}

int32_t tokenizer_size(const struct tokenizer *t) { return t->size; }

int32_t tokenizer_id(const struct tokenizer *t, const char *piece)
{
    const struct tok_added *a = tok_added_find(t, piece, strlen(piece));
    return a ? a->id : tok_vocab_id(&t->vocab, piece, strlen(piece));
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id)
{
    const struct tok_added *a = tok_added_of_id(t, id);
    return a ? a->text : tok_vocab_piece(&t->vocab, id, NULL);
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    const struct tok_added *a = tok_added_of_id(t, id);
    return a && a->special;
}

int32_t tokenizer_bos(const struct tokenizer *t) { return t->bos; }
int32_t tokenizer_eos(const struct tokenizer *t) { return t->eos; }
int32_t tokenizer_pad(const struct tokenizer *t) { return t->pad; }
const char *tokenizer_describe(const struct tokenizer *t) { return t->describe; }
