#include "worker/data/render.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "worker/data/render_parts.h"

/* ---- documents ------------------------------------------------------------------------------------------------- */

void rendered_clear(struct rendered *r)
{
    r->ids.n = r->target.n = 0;
    r->n = 0;
    r->written_specials = 0;
}

void rendered_release(struct rendered *r)
{
    free(r->ids.v);
    free(r->target.v);
    free(r->documents);
    *r = (struct rendered){0};
}

void rendered_put(struct rendered *out, int32_t id, bool trained)
{
    if (id < 0) return;
    ids_push(&out->ids, id);
    ids_push(&out->target, trained ? id : -100);
}

void rendered_extend(struct rendered *out, bool trained)
{
    while (out->target.n < out->ids.n) ids_push(&out->target, trained ? out->ids.v[out->target.n] : -100);
}

size_t rendered_open(const struct rendered *out) { return out->n ? out->documents[out->n - 1].at + out->documents[out->n - 1].n : 0; }

void rendered_close(struct rendered *out, int64_t body, int64_t body_end)
{
    size_t at = rendered_open(out);
    if (out->n == out->cap) {
        out->cap = out->cap ? 2 * out->cap : 2;
        out->documents = mem_grow(out->documents, (size_t)out->cap * sizeof *out->documents);
    }
    out->documents[out->n++] = (struct rendered_document){.at = at, .n = out->ids.n - at, .body = body, .body_end = body_end};
}

void render_work_release(struct render_work *w)
{
    chat_release(&w->templated);
    template_text_release(&w->full);
    template_text_release(&w->turn);
    template_text_release(&w->prompt);
    free(w->from.v);
    free(w->to.v);
    buf_release(&w->quoted);
    *w = (struct render_work){0};
}

/* ---- which rendering ------------------------------------------------------------------------------------------- */

/* The model has no template: pairs of texts stay plain unless the tokenizer has a family's marks; chats become ChatML. */
static bool stays_plain(const struct chat_format *f, enum shape_kind kind)
{
    return f->built_in && !f->family && (kind == SHAPE_PAIR || kind == SHAPE_ALPACA);
}

static status use_template(struct rendering *r)
{
    const struct chat_template *t;
    TRY(chat_format_template(r->format, false, &t));
    r->templated = true;
    r->name = mem_strdup(t->name);
    if (r->format->built_in)
        log_warn("the model has no chat template: chats are rendered as %s; set chat_template to choose another", t->name);
    return ST_OK;
}

status rendering_init(struct rendering *r, const struct config *c, const struct config_dataset *set, const struct chat_format *format,
                      enum shape_kind kind)
{
    *r = (struct rendering){.tok = format->tok, .format = format, .specials = c->allow_special_in_text};
    bool wrapped = set->prompt_template || c->tokenizer.prompt_template || c->tokenizer.n_template_roles;
    bool torchtune = format->torchtune || (wrapped && !c->chat_template);
    status st = ST_OK;
    if (torchtune || (stays_plain(format, kind) && !c->chat_template))
        st = torchtune_init(r, c, set, torchtune ? format->family : NULL);
    else if (kind != SHAPE_TEXT)
        st = use_template(r);
    else
        r->templated = true;
    if (st) rendering_release(r);
    return st;
}

void rendering_release(struct rendering *r)
{
    free(r->torchtune.newline.v);
    free(r->name);
    *r = (struct rendering){0};
}

/* ---- dispatch -------------------------------------------------------------------------------------------------- */

status render_chat(const struct rendering *r, const struct chat *c, struct render_work *work, struct rendered *out)
{
    rendered_clear(out);
    return (r->templated ? template_chat : torchtune_chat)(r, c, work, out);
}

status render_prompt(const struct rendering *r, const struct chat *c, struct render_work *work, struct ids *out)
{
    struct rendered whole = {0};
    if (r->templated) return template_prompt(r, c, work, out);
    status st = torchtune_chat(r, c, work, &whole);
    for (int64_t i = 0; !st && i < whole.documents[0].body; i++) ids_push(out, whole.ids.v[i]);
    rendered_release(&whole);
    return st;
}

/* ---- text rows ------------------------------------------------------------------------------------------------- */

static bool begins_with(const struct ids *a, const struct ids *start)
{
    return a->n >= start->n && (!start->n || !memcmp(a->v, start->v, start->n * sizeof *a->v));
}

/* Whether the text ends with this token already, white space behind it not counted. */
static bool ends_with(const struct tokenizer *tok, const struct ids *a, int32_t id)
{
    for (size_t i = a->n; i-- > 0;) {
        if (a->v[i] == id) return true;
        size_t n;
        char *text = tokenizer_decode(tok, &a->v[i], 1, false, &n);
        bool blank = strspn(text, " \t\r\n") == n;
        free(text);
        if (!blank) return false;
    }
    return false;
}

/* A text row is its own rendering: special tokens in it are tokens; BOS and EOS come only where they are absent. */
static status plain_text(const struct rendering *r, const char *text, size_t n, bool add_eos, struct rendered *out)
{
    const struct ids *prefix, *suffix;
    struct ids ids = {0};
    status st = tokenizer_encode(r->tok, text, n, true, &ids);
    tokenizer_around(r->tok, &prefix, &suffix);
    bool bare = !st && !begins_with(&ids, prefix);
    for (size_t i = 0; bare && i < prefix->n; i++) rendered_put(out, prefix->v[i], true);
    int64_t body = (int64_t)out->ids.n;
    for (size_t i = 0; !st && i < ids.n; i++) {
        rendered_put(out, ids.v[i], true);
        out->written_specials += tokenizer_is_special(r->tok, ids.v[i]);
    }
    int64_t body_end = (int64_t)out->ids.n;
    int32_t eos = add_eos ? tokenizer_eos(r->tok) : -1;
    for (size_t i = 0; !st && i < suffix->n; i++) {
        if (!ends_with(r->tok, &ids, suffix->v[i])) rendered_put(out, suffix->v[i], true);
        if (suffix->v[i] == eos) eos = -1;
    }
    if (!st && eos >= 0 && !ends_with(r->tok, &ids, eos)) rendered_put(out, eos, true);
    rendered_close(out, body, body_end);
    free(ids.v);
    return st;
}

status render_text(const struct rendering *r, const char *text, size_t n, bool add_eos, struct rendered *out)
{
    rendered_clear(out);
    return (r->templated ? plain_text : torchtune_text)(r, text, n, add_eos, out);
}

/* ---- truncation ------------------------------------------------------------------------------------------------ */

static int64_t clamp(int64_t x, int64_t most) { return x < 0 ? 0 : x > most ? most : x; }

bool render_truncate(const struct rendering *r, bool is_chat, int64_t max, bool left, struct rendered *out, struct rendered_document *d)
{
    int64_t n = (int64_t)d->n, gone = left ? n - max : 0;
    if (n <= max || max < 1) return false;
    d->at += (size_t)gone;
    d->n = (size_t)max;
    d->body = clamp(d->body - gone, max);
    d->body_end = clamp(d->body_end - gone, max);
    if (is_chat && !r->templated) torchtune_end_cut(r, out, d);
    return true;
}
