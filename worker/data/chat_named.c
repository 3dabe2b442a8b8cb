/* chat_named.c — built-in chat templates by name (configs/families.c): for chat_template=NAME and for models that have none. */
#include <string.h>

#include "configs/families.h"
#include "kernels/base/text.h"
#include "worker/data/chat_format.h"

static const struct family_template *find(const char *name)
{
    for (int i = 0; name && i < family_templates_n; i++)
        if (!strcmp(family_templates[i].name, name)) return &family_templates[i];
    return NULL;
}

char *chat_named(const char *name, const struct tokenizer *tok)
{
    const struct ids *prefix, *suffix;
    const struct family_template *t = find(name);
    if (!t) return NULL;
    tokenizer_around(tok, &prefix, &suffix);
    bool bos = (t->bos || prefix->n) && tokenizer_bos(tok) >= 0, has_end = t->end && tokenizer_id(tok, t->end) >= 0;
    const char *quote = has_end ? "'" : "", *end = has_end ? t->end : "eos_token";
    return mem_printf("{%%- set end = %s%s%s %%}%s%s", quote, end, quote, bos ? "{{- bos_token }}" : "", t->text);
}

const char *chat_named_for(const char *family)
{
    const struct family_module *m = family_module(family);
    return m && m->speech ? m->speech->template : family_templates[0].name;
}

char *chat_named_list(void)
{
    struct buf b = {0};
    for (int i = 0; i < family_templates_n; i++) buf_printf(&b, "%s%s", i ? ", " : "", family_templates[i].name);
    return b.data;
}

const char *chat_family_told(const struct tokenizer *t)
{
    const struct family_module *m = NULL;
    while ((m = family_module_next(m)))
        if (m->speech && m->speech->told_by && tokenizer_id(t, m->speech->told_by) >= 0 &&
            !(m->speech->not_by && tokenizer_id(t, m->speech->not_by) >= 0))
            return m->name;
    bool plain = tokenizer_size(t) >= 32000 && tokenizer_id(t, "<s>") == 1 && tokenizer_id(t, "</s>") == 2;
    while (plain && (m = family_module_next(m)))
        if (m->speech && m->speech->plain) return m->name;
    return NULL;
}
