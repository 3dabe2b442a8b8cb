#include "worker/data/tokenizer/steps.h"

#include <stdlib.h>
#include <string.h>

struct tok_step *tok_steps_add(struct tok_steps *s, tok_step_run *run)
{
    s->v = mem_grow(s->v, (size_t)(s->n + 1) * sizeof *s->v);
    s->v[s->n] = (struct tok_step){.run = run};
    return &s->v[s->n++];
}

void tok_step_text(struct tok_step *s, const char *text, size_t n)
{
    s->text = mem_alloc(n + 1);
    memcpy(s->text, text, n);
    s->text_n = n;
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

void tok_pass_release(struct tok_pass *p)
{
    tok_spans_release(&p->in);
    tok_spans_release(&p->out);
    tok_matcher_release(&p->matcher);
}

status tok_steps_run(const struct tok_steps *s, struct tok_pass *p)
{
    enum { LIMIT = 1 << 30 }; /* offsets are 32 bits, and a step may grow the text */
    for (int i = 0; i < s->n; i++) {
        if (p->in.text.len > LIMIT) FAIL(ST_DATA, "text of %zu bytes is too long to tokenise in one piece; split the row", p->in.text.len);
        tok_spans_clear(&p->out);
        p->out.traced = p->in.traced;
        TRY(s->v[i].run(&s->v[i], &p->matcher, &p->in, &p->out));
        struct tok_spans swap = p->in;
        p->in = p->out;
        p->out = swap;
    }
    return ST_OK;
}
