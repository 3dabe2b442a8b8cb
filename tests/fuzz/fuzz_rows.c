/* Rows: scanner, shapes, messages, what stands beside them, and renderings over bytes from outside. The first two bytes
 * choose component, style, masking, template, family and container; the rest is the file. Whatever it is, the answer is
 * a status, and what was accepted keeps its invariants. */
#include <assert.h>
#include <stdint.h>

#include "kernels/base/log.h"
#include "tests/data/data_config.h"
#include "tests/data/fake_tokenizer.h"
#include "worker/data/dataset_source.h"

/* torchtune's renderings, and chat templates: by generation prompts, without them, and one that refuses roles. */
static const struct {
    const char *family, *template;
    const struct tokenizer *tok;
} kinds[] = {{"llama3", NULL, &fake_llama3}, {"qwen2", NULL, &fake_qwen},  {"llama2", NULL, &fake_spm}, {"mistral", NULL, &fake_spm},
             {NULL, NULL, &fake_tiny},       {NULL, "chatml", &fake_qwen}, {NULL, "llama2", &fake_spm}, {NULL, "vicuna", &fake_tiny}};
enum { KINDS = sizeof kinds / sizeof *kinds };
static struct chat_format formats[KINDS];

static void check(const struct rendered *r)
{
    assert(r->ids.n == r->target.n);
    for (int k = 0; k < r->n; k++) {
        const struct rendered_document *d = &r->documents[k];
        assert(d->at + d->n <= r->ids.n);
        assert(0 <= d->body && d->body <= d->body_end && d->body_end <= (int64_t)d->n);
    }
    for (size_t i = 0; i < r->ids.n; i++) assert(r->target.v[i] == -100 || r->target.v[i] == r->ids.v[i]);
}

/* Messages, parts and what a template sees belong together, whatever the row was. */
static void check_chat(const struct chat *c)
{
    assert(c->n > 0 && json_array_size(c->json) == (size_t)c->n && (!c->tools || json_array_size(c->tools)));
    for (int i = 0; i < c->n; i++) {
        const struct message *m = &c->messages[i];
        const json_t *seen = json_array_get(c->json, (size_t)i), *content = json_object_get(seen, "content");
        size_t n = 0;
        assert(0 <= m->first && m->first + m->n <= c->n_parts && json_is_string(json_object_get(seen, "role")));
        for (int k = m->first; k < m->first + m->n; k++) n += c->parts[k].n;
        assert(content && !json_is_null(content) ? json_string_length(content) == n : m->extras && !n);
        assert(!c->untrained || !m->trained);
    }
}

static void read_rows(const struct shape *s, const json_t *row, struct chat *c)
{
    const char *text;
    size_t n;
    status st = s->kind == SHAPE_TEXT ? shape_text(s, row, c, &text, &n) : shape_messages(s, row, c);
    if (!st && s->kind != SHAPE_TEXT) check_chat(c);
    if (st) assert(st == ST_DATA && *status_message());
    assert(c->unused.columns.n <= UNUSED_MOST && c->unused.in_messages.n <= UNUSED_MOST);
}

static void render_rows(struct source *s, const struct rows *file, const struct chat_format *format)
{
    struct source_work work = {0};
    struct rendered out = {0};
    bool detected = false;
    for (int64_t i = 0; i < file->n && i < 50; i++) {
        json_t *row;
        if (rows_get(file, i, &row)) continue;
        if (!detected && !shape_detect(s->set, row, &s->shape))
            detected = !rendering_init(&s->rendering, s->c, s->set, format, s->shape.kind);
        if (detected) read_rows(&s->shape, row, &work.chat);
        if (detected && !source_render(s, row, &work, &out)) {
            check(&out);
            for (int k = 0; k < out.n; k++) render_truncate(&s->rendering, source_is_chat(s), 7, i & 1, &out, &out.documents[k]);
            check(&out);
            for (int k = 0; k < out.n; k++) assert(out.documents[k].n <= 7);
        }
        json_decref(row);
    }
    rendering_release(&s->rendering);
    source_work_release(&work);
    rendered_release(&out);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_init(1, 1, LOG_QUIET);
    json_object_seed(1);
    for (int i = 0; i < KINDS; i++) {
        struct config c = config_defaults();
        c.torchtune_templates = !kinds[i].template;
        c.chat_template = (char *)kinds[i].template;
        status st = chat_format_open(&c, kinds[i].tok, ".", kinds[i].family, 0, &formats[i]);
        assert(!st);
        (void)st;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    unsigned choice = data[0] % KINDS;
    set.kind = (enum data_kind)(data[0] / KINDS % 6);
    set.masking = (enum masking)(data[1] % 4);
    set.conversation_style = (enum conversation)(data[0] / 30 % 3);
    set.new_system_prompt = data[1] & 8 ? "system" : NULL;
    c.tokenizer.prompt_template = data[1] & 16 && !kinds[choice].template ? "QuestionAnswerTemplate" : NULL;
    struct source s = {.c = &c, .set = &set};
    struct rows file;
    if (rows_scan(&file, "fuzz", data + 2, size - 2, (enum rows_kind)(data[1] >> 5 & 3))) return 0;
    for (int64_t i = 0; i < file.n; i++) assert(file.spans[i].at + file.spans[i].bytes <= size - 2);
    render_rows(&s, &file, &formats[choice]);
    rows_close(&file);
    return 0;
}
