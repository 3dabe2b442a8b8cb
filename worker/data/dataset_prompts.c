/* dataset_prompts.c — rows as questions: what `generate` gives the model, and the answer the row has. */
#include <stdlib.h>

#include "kernels/base/text.h"
#include "worker/data/dataset.h"
#include "worker/data/dataset_source.h"

static void take(struct prompts *p, int64_t n)
{
    p->ids = mem_alloc((size_t)(n + 1) * sizeof *p->ids);
    p->answers = mem_alloc((size_t)(n + 1) * sizeof *p->answers);
    p->n = n;
}

void prompts_release(struct prompts *p)
{
    for (int64_t i = 0; i < p->n; i++) {
        free(p->ids[i].v);
        free(p->answers[i]);
    }
    free(p->ids);
    free(p->answers);
    *p = (struct prompts){0};
}

status dataset_prompts(const struct config *c, const struct config_dataset *set, const struct chat_format *format, struct prompts *out)
{
    struct source s;
    struct source_work work = {0};
    *out = (struct prompts){0};
    TRY(source_open(&s, c, set, format));
    status st = ST_OK;
    take(out, s.end - s.first);
    for (int64_t i = 0; i < out->n && !st; i++) st = source_prompt(&s, i, &work, &out->ids[i], &out->answers[i]);
    source_work_release(&work);
    source_close(&s);
    if (st) prompts_release(out);
    return st;
}

/* The user's text as the first message of a conversation whose answer is still to come. */
status dataset_prompt(const struct config *c, const struct chat_format *format, const char *text, struct prompts *out)
{
    const struct config_dataset none = {0}, *set = c->n_dataset ? &c->dataset[0] : &none;
    struct source s = {.c = c,
                       .set = set,
                       .shape = {.kind = SHAPE_CHAT, .name = "--prompt", .columns = {"messages"}, .system = set->new_system_prompt}};
    struct source_work work = {0};
    json_t *row =
        json_pack("{s:[{s:s, s:s}, {s:s, s:s}]}", "messages", "role", "user", "content", text, "role", "assistant", "content", "");
    *out = (struct prompts){0};
    if (!row) FAIL(ST_USAGE, "--prompt: not valid UTF-8");
    take(out, 1);
    status st = rendering_init(&s.rendering, c, set, format, SHAPE_PAIR);
    if (!st) st = source_ask(&s, row, &work, &out->ids[0], &out->answers[0]);
    rendering_release(&s.rendering);
    source_work_release(&work);
    json_decref(row);
    if (st) prompts_release(out);
    return st;
}
