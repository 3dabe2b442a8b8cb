/* render_torchtune.c — torchtune's built-in renderings: struct family_style of configs/families.h says what they differ in.
 * Special tokens are placed by id; the text between them is encoded apart from them. A tokenizer with none of its family's
 * specials gets the plain rendering, said once. */

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "configs/families.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "worker/data/render_parts.h"
#include "worker/data/render_prompt.h"

static const struct family_style plain = {.name = "plain", .cut_trained = true};

/* ---- which rendering ------------------------------------------------------------------------------------------- */

static const struct family_style *style_find(const char *family)
{
    const struct family_module *m = family_module(family);
    return m && m->speech ? m->speech->style : NULL;
}

/* The piece before a message of this role, where roles have pieces of their own. Caller frees. */
static char *role_piece(const struct family_style *s, enum role role)
{
    return mem_printf("%s%s%s", s->role_open, role_name(role), s->role_close);
}

/* Counts a piece that the style needs among those it wants, and those that the vocabulary has. */
static void want(const struct tokenizer *tok, const char *piece, int *wants, int *has, char **missing)
{
    if (!piece) return;
    bool there = tokenizer_id(tok, piece) >= 0;
    ++*wants;
    *has += there;
    if (there) return;
    free(*missing);
    *missing = mem_strdup(piece);
}

/* A style needs its marks: all there = itself, none = plain, some = a broken tokenizer. */
static status style_for(const struct tokenizer *tok, const char *family, const struct family_style **out)
{
    const struct family_style *s = style_find(family);
    *out = s ? s : &plain;
    if (!s) {
        log_note("data: %s%s has no built-in chat rendering: rows are BOS + texts + EOS", family ? "family " : "the model",
                 family ? family : "");
        return ST_OK;
    }
    const char *needed[3] = {s->start, s->middle, s->end};
    char *missing = NULL;
    int wants = 0, has = 0;
    for (int i = 0; i < 3; i++) want(tok, needed[i], &wants, &has, &missing);
    for (enum role role = ROLE_SYSTEM; s->role_open && role <= ROLE_ASSISTANT; role++) {
        char *piece = role_piece(s, role);
        want(tok, piece, &wants, &has, &missing);
        free(piece);
    }
    status st = ST_OK;
    if (has < wants && has > 0)
        st = status_fail(ST_DATA,
                         "the tokenizer (%s) lacks the special token %s of the %s chat rendering; use the model's own "
                         "tokenizer files",
                         tokenizer_describe(tok), missing, s->name);
    if (has < wants && !has) {
        log_note("data: the tokenizer has no %s chat tokens (%s): rows are BOS + texts + EOS", s->name, missing);
        *out = &plain;
    }
    free(missing);
    return st;
}

static status choose_prompt(struct torchtune *r, const struct config *c, const struct config_dataset *set)
{
    const char *name = set->prompt_template;
    if (!name && c->tokenizer.n_template_roles) {
        r->roles = c->tokenizer.template_roles;
        r->n_roles = c->tokenizer.n_template_roles;
        return ST_OK;
    }
    if (!name) name = c->tokenizer.prompt_template;
    if (!name) name = r->style->prompt_template;
    if (!name) return ST_OK;
    r->built_in = prompt_find(name);
    if (!r->built_in) {
        char *known = prompt_names();
        status st = status_fail(ST_CONFIG_RUNTIME,
                                "prompt_template: unknown template '%s'; use one of %s, or "
                                "{role: [prefix, suffix]}",
                                name, known);
        free(known);
        return st;
    }
    if (prompt_is_chatml(r->built_in) && r->style->end)
        FAIL(ST_CONFIG_RUNTIME,
             "prompt_template: ChatMLTemplate would mark every message twice: the %s rendering has "
             "marks of its own; remove prompt_template",
             r->style->name);
    return ST_OK;
}

static int32_t mark(const struct tokenizer *tok, const char *piece, int32_t otherwise)
{
    if (!piece) return otherwise;
    if (!*piece) return -1;
    int32_t id = tokenizer_id(tok, piece);
    return id >= 0 ? id : otherwise;
}

/* SentencePiece puts a space in front of every text it is given. Texts inside a turn must not get one; it is cut off by
 * encoding "\n" + text and dropping the ids of "\n". */
static status probe_trim(const struct tokenizer *tok, struct torchtune *r)
{
    struct ids letter = {0}, both = {0};
    status st;
    TRY_DONE(tokenizer_encode(tok, "\n", 1, false, &r->newline));
    TRY_DONE(tokenizer_encode(tok, "a", 1, false, &letter));
    TRY_DONE(tokenizer_encode(tok, "\na", 2, false, &both));
    bool joins = both.n == r->newline.n + letter.n;
    for (size_t i = 0; joins && i < both.n; i++) joins = both.v[i] == (i < r->newline.n ? r->newline.v[i] : letter.v[i - r->newline.n]);
    r->trims = !joins;
done:
    free(letter.v);
    free(both.v);
    return st;
}

status torchtune_init(struct rendering *out, const struct config *c, const struct config_dataset *set, const char *family)
{
    struct torchtune *r = &out->torchtune;
    const struct tokenizer *tok = out->tok;
    TRY(style_for(tok, family, &r->style));
    const struct family_style *s = r->style;
    r->bos = mark(tok, s->bos, tokenizer_bos(tok));
    r->text_bos = s->text_bos ? mark(tok, s->text_bos, -1) : r->bos;
    r->eos = mark(tok, s->eos, tokenizer_eos(tok));
    r->text_eos = tokenizer_eos(tok) >= 0 ? tokenizer_eos(tok) : r->eos;
    for (enum role role = ROLE_SYSTEM; role < ROLE_COUNT; role++) {
        char *piece = s->role_open ? role_piece(s, role) : NULL;
        r->start[role] = mark(tok, piece ? piece : s->start, -1);
        free(piece);
    }
    r->middle = mark(tok, s->middle, -1);
    r->end = mark(tok, s->end, -1);
    r->end_more = mark(tok, s->end_more, r->end);
    TRY(choose_prompt(r, c, set));
    if (r->eos < 0) log_warn("the tokenizer has no end-of-text token: the model is not taught where to stop");
    out->name = s == &plain ? mem_strdup("plain text") : mem_printf("torchtune's %s rendering", s->name);
    return probe_trim(tok, r);
}

/* ---- ids ------------------------------------------------------------------------------------------------------- */

/* Python's str.strip(): what HF and torchtune call white space. */
static bool is_white(utf8proc_int32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static void strip(const char **text, size_t *n)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t len;
    while (*n && (len = utf8proc_iterate((const utf8proc_uint8_t *)*text, (utf8proc_ssize_t)*n, &c)) > 0 && is_white(c)) {
        *text += len;
        *n -= (size_t)len;
    }
    while (*n) {
        size_t at = *n - 1;
        while (at > 0 && ((unsigned char)(*text)[at] & 0xC0) == 0x80) at--;
        len = utf8proc_iterate((const utf8proc_uint8_t *)*text + at, (utf8proc_ssize_t)(*n - at), &c);
        if (len <= 0 || !is_white(c)) break;
        *n = at;
    }
}

static status put_text(const struct rendering *r, const char *text, size_t n, bool specials, bool trained, struct rendered *out)
{
    if (n) TRY(tokenizer_encode(r->tok, text, n, specials, &out->ids));
    rendered_extend(out, trained);
    return ST_OK;
}

static status put_words(const struct rendering *r, const char *text, bool trained, struct rendered *out)
{
    return put_text(r, text, strlen(text), false, trained, out);
}

/* Without the tokenizer's leading space. */
static status put_trimmed(const struct rendering *r, const char *text, size_t n, bool specials, bool trained, struct rendered *out)
{
    const struct ids *newline = &r->torchtune.newline;
    struct buf b = {0};
    struct ids ids = {0};
    buf_add(&b, "\n", 1);
    buf_add(&b, text, n);
    status st = tokenizer_encode(r->tok, b.data, b.len, specials, &ids);
    if (!st && ids.n >= newline->n && !memcmp(ids.v, newline->v, newline->n * sizeof *ids.v)) {
        for (size_t i = newline->n; i < ids.n; i++) rendered_put(out, ids.v[i], trained);
    } else if (!st) {
        st = put_text(r, text, n, specials, trained, out); /* the newline joined the text */
    }
    free(ids.v);
    buf_release(&b);
    return st;
}

/* Where the last assistant's own words lie. */
struct words {
    int64_t begin, end;
};

/* The parts of a message, noting where an assistant's own words lie. */
static status put_parts(const struct rendering *r, const struct chat *c, const struct message *m, bool trim, struct words *words,
                        struct rendered *out)
{
    const struct torchtune *t = &r->torchtune;
    bool literal_specials = t->n_roles || prompt_has_specials(t->built_in), seen = false;
    for (int i = m->first; i < m->first + m->n; i++) {
        const struct part *p = &c->parts[i];
        const char *text = p->text;
        size_t n = p->n, before = out->ids.n;
        if (t->style->strip) strip(&text, &n);
        while (t->style->rstrip && n && text[n - 1] == ' ') n--;
        bool specials = p->literal ? literal_specials : r->specials;
        TRY((trim && n ? put_trimmed : put_text)(r, text, n, specials, m->trained, out));
        if (m->role != ROLE_ASSISTANT || p->literal) continue;
        if (!seen) words->begin = (int64_t)before;
        words->end = (int64_t)out->ids.n;
        seen = true;
    }
    return ST_OK;
}

static status put_header(const struct rendering *r, enum role role, bool trained, struct rendered *out)
{
    const struct family_style *s = r->torchtune.style;
    char words[16];
    const char *name = role_name(s->tool_open && role == ROLE_TOOL ? ROLE_USER : role);
    size_t n = strlen(name), more = strlen(s->after_role);
    memcpy(words, name, n);
    memcpy(words + n, s->after_role, more);
    rendered_put(out, r->torchtune.start[role], trained);
    TRY(put_text(r, words, n + more, false, trained, out));
    rendered_put(out, r->torchtune.middle, trained);
    return put_words(r, s->after_header, trained, out);
}

static status render_headed(const struct rendering *r, const struct chat *c, struct words *words, struct rendered *out)
{
    const struct torchtune *t = &r->torchtune;
    const struct family_style *s = t->style;
    rendered_put(out, t->bos, false);
    for (int i = 0; i < c->n; i++) {
        const struct message *m = &c->messages[i];
        bool wrapped = s->tool_open && m->role == ROLE_TOOL;
        bool after_tool = i > 0 && m[-1].role == ROLE_TOOL, before_tool = i + 1 < c->n && m[1].role == ROLE_TOOL;
        if (!wrapped || !after_tool) TRY(put_header(r, m->role, m->trained, out));
        if (wrapped && after_tool) TRY(put_words(r, "\n", m->trained, out));
        if (wrapped) TRY(put_words(r, s->tool_open, m->trained, out));
        TRY(put_parts(r, c, m, false, words, out));
        if (wrapped) TRY(put_words(r, s->tool_close, m->trained, out));
        if (wrapped && before_tool) continue;
        if (s->open_last && m->role == ROLE_ASSISTANT && i == c->n - 1) continue;
        rendered_put(out, m->ends_turn ? t->end : t->end_more, m->trained);
        TRY(put_words(r, s->after_end, m->trained, out));
    }
    rendered_put(out, t->eos, s->open_last && c->n && c->messages[c->n - 1].trained);
    return ST_OK;
}

/* The marks around a message whose role has a piece of its own; between them no text gets the tokenizer's space. */
static status put_marked(const struct rendering *r, const struct chat *c, const struct message *m, struct words *words,
                         struct rendered *out)
{
    const struct family_style *s = r->torchtune.style;
    if (r->torchtune.start[m->role] < 0)
        FAIL(ST_DATA, "%s has no place for a message of the role %s; remove it", r->name, role_name(m->role));
    rendered_put(out, r->torchtune.start[m->role], m->trained);
    TRY(put_words(r, s->after_header, m->trained, out));
    TRY(put_parts(r, c, m, true, words, out));
    rendered_put(out, r->torchtune.end, m->trained);
    return put_words(r, s->after_end, m->trained, out);
}

static status render_turns(const struct rendering *r, const struct chat *c, struct words *words, struct rendered *out)
{
    const struct torchtune *t = &r->torchtune;
    bool starts = true, spaced = false;
    for (int i = 0; i < c->n; i++) {
        const struct message *m = &c->messages[i];
        if (starts) rendered_put(out, t->bos, m->trained);
        if (t->style->role_open)
            TRY(put_marked(r, c, m, words, out));
        else
            TRY(put_parts(r, c, m, t->trims && !starts && !spaced, words, out));
        const struct part *last = m->n ? &c->parts[m->first + m->n - 1] : NULL;
        spaced = last && last->n && last->text[last->n - 1] == ' ';
        starts = m->role == ROLE_ASSISTANT;
        if (starts) rendered_put(out, t->eos, m->trained);
    }
    return ST_OK;
}

/* What only a chat template could render. */
static status refuse_extras(const struct rendering *r, const struct chat *c)
{
    if (c->tools)
        FAIL(ST_DATA,
             "tools: %s does not render tool descriptions; render by a chat template that does (chat_template=model), "
             "or write them into the system message",
             r->name);
    for (int i = 0; i < c->n; i++)
        if (c->messages[i].extras)
            FAIL(ST_DATA,
                 "message %d (%s): %s renders neither reasoning nor tool calls; render by a chat template that does "
                 "(chat_template=model), or write them into the content",
                 i + 1, role_name(c->messages[i].role), r->name);
    return ST_OK;
}

status torchtune_chat(const struct rendering *r, const struct chat *c, struct render_work *work, struct rendered *out)
{
    const struct torchtune *t = &r->torchtune;
    struct words words = {0};
    TRY(refuse_extras(r, c));
    TRY(chat_check_order(c));
    if (t->built_in || t->n_roles) {
        TRY(prompt_apply(t, c, &work->templated));
        c = &work->templated;
    }
    TRY((t->style->start ? render_headed : render_turns)(r, c, &words, out));
    if (!words.end) words.begin = words.end = (int64_t)out->ids.n;
    rendered_close(out, words.begin, words.end);
    return ST_OK;
}

status torchtune_text(const struct rendering *r, const char *text, size_t n, bool add_eos, struct rendered *out)
{
    rendered_put(out, r->torchtune.text_bos, true);
    int64_t body = (int64_t)out->ids.n;
    TRY(put_text(r, text, n, r->specials, true, out));
    int64_t body_end = (int64_t)out->ids.n;
    if (add_eos) rendered_put(out, r->torchtune.text_eos, true);
    rendered_close(out, body, body_end);
    return ST_OK;
}

const char *torchtune_family(const struct rendering *r) { return r->torchtune.style == &plain ? NULL : r->torchtune.style->name; }

/* The last id that a cut left becomes EOS, trained on if it was and the style does so. */
void torchtune_end_cut(const struct rendering *r, struct rendered *out, const struct rendered_document *d)
{
    const struct torchtune *t = &r->torchtune;
    size_t last = d->at + d->n - 1;
    if (t->eos < 0) return;
    bool whole = out->ids.v[last] == t->eos; /* the cut left a turn's own end in place */
    bool trained = (whole || t->style->cut_trained) && out->target.v[last] >= 0;
    out->ids.v[last] = t->eos;
    out->target.v[last] = trained ? t->eos : -100;
}
