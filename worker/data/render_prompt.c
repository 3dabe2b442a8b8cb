#include "worker/data/render_prompt.h"

#include <string.h>

struct prompt_template {
    const char *name;
    const char *wrap[ROLE_COUNT][2]; /* text before and after; NULL = none */
    bool nests_system;               /* the system message is repeated inside every user message */
    bool refuses_system;
    bool specials;
};

static const struct prompt_template templates[] = {
    {.name = "Llama2ChatTemplate",
     .wrap = {[ROLE_SYSTEM] = {"<<SYS>>\n", "\n<</SYS>>\n\n"}, [ROLE_USER] = {"[INST] ", " [/INST] "}},
     .nests_system = true},
    {.name = "MistralChatTemplate", .wrap = {[ROLE_USER] = {"[INST] ", " [/INST] "}}, .refuses_system = true},
    {.name = "ChatMLTemplate",
     .wrap = {[ROLE_SYSTEM] = {"<|im_start|>system\n", "<|im_end|>\n"},
              [ROLE_USER] = {"<|im_start|>user\n", "<|im_end|>\n"},
              [ROLE_ASSISTANT] = {"<|im_start|>assistant\n", "<|im_end|>\n"}},
     .specials = true},
    {.name = "GrammarErrorCorrectionTemplate", .wrap = {[ROLE_USER] = {"Correct this to standard English: ", "\n---\nCorrected: "}}},
    {.name = "SummarizeTemplate", .wrap = {[ROLE_USER] = {"Summarize this dialogue:\n", "\n---\nSummary:\n"}}},
    {.name = "QuestionAnswerTemplate", .wrap = {[ROLE_USER] = {"Question: ", "\n\nAnswer: "}}},
};
enum { N_TEMPLATES = sizeof templates / sizeof *templates };

const struct prompt_template *prompt_find(const char *name)
{
    const char *dot = strrchr(name, '.');
    for (int i = 0; i < N_TEMPLATES; i++)
        if (!strcmp(templates[i].name, dot ? dot + 1 : name)) return &templates[i];
    return NULL;
}

bool prompt_is_chatml(const struct prompt_template *t) { return t && !strcmp(t->name, "ChatMLTemplate"); }
bool prompt_has_specials(const struct prompt_template *t) { return t && t->specials; }

char *prompt_names(void)
{
    struct buf b = {0};
    for (int i = 0; i < N_TEMPLATES; i++) buf_printf(&b, "%s%s", i ? ", " : "", templates[i].name);
    return b.data;
}

/* The text before (side 0) or after (side 1) a role's message; "" if none. A configured pair's value holds both, each
 * with its NUL. */
static const char *wrap_of(const struct torchtune *r, enum role role, int side)
{
    if (r->built_in) return r->built_in->wrap[role][side] ? r->built_in->wrap[role][side] : "";
    for (int i = 0; i < r->n_roles; i++) {
        const char *key = r->roles[i].key, *value = r->roles[i].value;
        if (strcmp(key, role_name(role)) && (role != ROLE_TOOL || strcmp(key, "tool"))) continue;
        return side ? value + strlen(value) + 1 : value;
    }
    return "";
}

static void add_literal(struct chat *out, const char *text)
{
    if (*text) chat_part(out, text, strlen(text), true);
}

static void add_wrapped(const struct torchtune *r, const struct chat *in, const struct message *m, const struct message *system,
                        struct chat *out)
{
    add_literal(out, wrap_of(r, m->role, 0));
    if (system) add_wrapped(r, in, system, NULL, out);
    for (int i = m->first; i < m->first + m->n; i++) chat_part(out, in->parts[i].text, in->parts[i].n, in->parts[i].literal);
    add_literal(out, wrap_of(r, m->role, 1));
}

status prompt_apply(const struct torchtune *r, const struct chat *in, struct chat *out)
{
    const struct prompt_template *t = r->built_in;
    const struct message *system = NULL;
    chat_clear(out);
    for (int i = 0; i < in->n; i++) {
        const struct message *m = &in->messages[i];
        if (m->role == ROLE_SYSTEM && t && t->refuses_system)
            FAIL(ST_DATA, "%s has no place for a system message; remove it, or set tokenizer.prompt_template", t->name);
        if (m->role == ROLE_SYSTEM && t && t->nests_system) {
            system = m;
            continue;
        }
        chat_begin(out, m->role, m->trained, m->ends_turn);
        add_wrapped(r, in, m, m->role == ROLE_USER ? system : NULL, out);
    }
    return ST_OK;
}
