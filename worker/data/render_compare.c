/* render_compare.c — torchtune's rendering beside templates: the model's own, for the person who configured the one and
 * has the other in the model directory; and the one that an export may carry. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "worker/data/render_parts.h"

enum { BEFORE = 24, SHOWN = 72 };

/* What a text says around byte `at`, on one line. Caller frees. */
static char *excerpt(const char *text, size_t n, size_t at)
{
    size_t begin = at > BEFORE ? at - BEFORE : 0, end = at + SHOWN < n ? at + SHOWN : n;
    struct buf tame = {0}, line = {0};
    while (begin > 0 && ((unsigned char)text[begin] & 0xC0) == 0x80) begin--;
    while (end < n && ((unsigned char)text[end] & 0xC0) == 0x80) end++;
    buf_tame(&tame, text + begin, end - begin);
    buf_text(&line, begin ? "…" : "");
    for (size_t i = 0; i < tame.len; i++) {
        if (tame.data[i] == '\n')
            buf_text(&line, "\\n");
        else
            buf_add(&line, &tame.data[i], 1);
    }
    buf_text(&line, end < n ? "…" : "");
    buf_release(&tame);
    return line.data;
}

static char *text_of(const struct rendering *r, const struct chat *c, struct render_work *work, size_t *n)
{
    struct rendered out = {0};
    char *text = NULL;
    if (!render_chat(r, c, work, &out) && out.n) {
        const struct rendered_document *d = &out.documents[out.n - 1];
        text = tokenizer_decode(r->tok, out.ids.v + d->at, d->n, false, n);
    }
    rendered_release(&out);
    return text;
}

void render_compare(const struct rendering *r, const struct chat *c, struct render_work *work)
{
    struct rendering model = *r;
    const struct chat_template *t = &r->format->templates[CHAT_DEFAULT];
    size_t n = 0, m = 0, at = 0;
    if (r->templated || !t->text) return;
    model.templated = true;
    char *theirs = text_of(&model, c, work, &m);
    if (!theirs) {
        log_note("data: %s is used; the model's own template (%s) does not render the first row: %s", r->name, t->name, status_message());
        return;
    }
    char *ours = text_of(r, c, work, &n);
    while (ours && at < n && at < m && ours[at] == theirs[at]) at++;
    if (ours && (at < n || at < m)) {
        char *a = excerpt(ours, n, at), *b = excerpt(theirs, m, at);
        log_note("data: %s is used; the model's own template (%s) gives other text, the first row from byte %zu:\n"
                 "      used:  %s\n      model: %s\n      chat_template=model trains on the model's",
                 r->name, t->name, at, a, b);
        free(a);
        free(b);
    }
    free(ours);
    free(theirs);
}

/* ---- what an export says --------------------------------------------------------------------------------------- */

/* Whether one text is the other, but for a last special token or white space: torchtune ends a row in its own way. */
static bool same_text(const struct tokenizer *tok, const char *a, size_t n, const char *b, size_t m)
{
    struct ids rest = {0};
    size_t less = n < m ? n : m;
    if (memcmp(a, b, less)) return false;
    bool same = !tokenizer_encode(tok, (n < m ? b : a) + less, (n < m ? m : n) - less, true, &rest);
    for (size_t i = 0; same && i < rest.n; i++) {
        size_t len;
        char *text = tokenizer_decode(tok, &rest.v[i], 1, false, &len);
        same = tokenizer_is_special(tok, rest.v[i]) || strspn(text, " \t\r\n") == len;
        free(text);
    }
    free(rest.v);
    return same;
}

static bool renders_alike(const struct rendering *r, const char *template, const struct chat *c, struct render_work *work)
{
    struct chat_format format = *r->format;
    struct rendering other = *r;
    struct chat_template *t = &format.templates[CHAT_DEFAULT];
    size_t n, m;
    *t = (struct chat_template){.name = r->name, .text = (char *)template, .n = strlen(template)};
    if (template_compile(t->name, t->text, t->n, &t->compiled)) return false;
    other.format = &format;
    other.templated = true;
    char *theirs = text_of(&other, c, work, &m), *ours = text_of(r, c, work, &n);
    bool same = theirs && ours && same_text(r->tok, ours, n, theirs, m);
    free(theirs);
    free(ours);
    template_free(t->compiled);
    return same;
}

char *render_template_text(const struct rendering *r, const struct chat *c, struct render_work *work)
{
    const char *own = r->format->templates[CHAT_DEFAULT].text;
    if (r->templated) return mem_strdup(own);
    const char *family = torchtune_family(r);
    if (own && renders_alike(r, own, c, work)) return mem_strdup(own);
    char *named = family ? chat_named(chat_named_for(family), r->tok) : NULL;
    if (named && renders_alike(r, named, c, work)) return named;
    free(named);
    return NULL;
}
