#include "worker/data/dataset_source.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "kernels/base/log.h"

static const char *extension(const char *path)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
    return dot ? dot + 1 : "";
}

status source_kind(const struct config_dataset *set, const char *path, enum rows_kind *kind)
{
    static const struct {
        const char *word; /* dataset.source, or a file's extension */
        int kind;         /* -1: known, no reader */
    } words[] = {{"json", ROWS_JSON}, {"jsonl", ROWS_JSON}, {"ndjson", ROWS_JSON}, {"text", ROWS_TEXT},
                 {"txt", ROWS_TEXT},  {"csv", ROWS_CSV},    {"tsv", ROWS_TSV},     {"parquet", -1},
                 {"arrow", -1},       {"gz", -1},           {"zst", -1},           {"xz", -1}};
    const char *named[2] = {set->source ? set->source : "", extension(path)};
    *kind = ROWS_JSON;
    for (int n = 0; n < 2; n++) {
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            if (strcasecmp(named[n], words[i].word)) continue;
            if (words[i].kind < 0) FAIL(ST_NOT_BUILT, "%s: %s files have no reader yet; convert it to JSONL", path, words[i].word);
            *kind = (enum rows_kind)words[i].kind;
            if (*kind == ROWS_CSV && !strcasecmp(named[1], "tsv")) *kind = ROWS_TSV; /* the loader's name for both */
            return ST_OK;
        }
    }
    return ST_OK;
}

const struct rows *source_locate(const struct source *s, int64_t i, int64_t *row)
{
    int64_t at = s->first + i;
    int f = 0;
    while (at >= s->files[f].n) at -= s->files[f++].n;
    *row = at;
    return &s->files[f];
}

static unsigned line_of(const struct rows *file, int64_t row) { return file->spans[row].line; }

char *source_place(const struct source *s, int64_t i)
{
    int64_t row;
    const struct rows *file = source_locate(s, i, &row);
    return mem_printf("%s:%u", file->name, line_of(file, row));
}

static status open_files(struct source *s)
{
    const struct config_dataset *set = s->set;
    int64_t total = 0;
    if (set->n_data_files == 0)
        FAIL(ST_CONFIG_RUNTIME,
             "dataset.source: '%s' is not on this machine and trimpot does not download; give local "
             "files with dataset.data_files (and dataset.source=json)",
             set->source ? set->source : "(none)");
    s->files = mem_alloc((size_t)set->n_data_files * sizeof *s->files);
    for (int f = 0; f < set->n_data_files; f++) {
        enum rows_kind kind;
        TRY(source_kind(set, set->data_files[f], &kind));
        TRY(rows_open(&s->files[f], set->data_files[f], kind));
        s->n_files++;
        total += s->files[f].n;
    }
    return rows_slice(set->split, total, &s->first, &s->end);
}

static status detect_row(struct source *s, int64_t i)
{
    int64_t row;
    const struct rows *file = source_locate(s, i, &row);
    json_t *json;
    TRY(rows_get(file, row, &json));
    status st = shape_detect(s->set, json, &s->shape);
    json_decref(json);
    return st ? status_prefix(st, "%s:%u", file->name, line_of(file, row)) : ST_OK;
}

/* Shapes are decided by the split's first row that has one; where none has, the first says why. */
static status detect(struct source *s)
{
    status st = ST_DATA;
    for (int64_t i = 0; st == ST_DATA && i < s->end - s->first; i++) st = detect_row(s, i);
    return st == ST_DATA ? detect_row(s, 0) : st;
}

/* What the first row tells: where the model's own template has other text, and which template an export may carry. */
static void look_at_first(struct source *s)
{
    int64_t row;
    const struct rows *file = source_locate(s, 0, &row);
    struct source_work work = {0};
    json_t *json = NULL;
    if (!rows_get(file, row, &json) && !shape_messages(&s->shape, json, &work.chat)) {
        render_compare(&s->rendering, &work.chat, &work.render);
        s->template_text = render_template_text(&s->rendering, &work.chat, &work.render);
    }
    json_decref(json);
    source_work_release(&work);
}

status source_open(struct source *s, const struct config *c, const struct config_dataset *set, const struct chat_format *format)
{
    *s = (struct source){.c = c, .set = set};
    status st;
    TRY_DONE(open_files(s));
    TRY_DONE(detect(s));
    TRY_DONE(rendering_init(&s->rendering, c, set, format, s->shape.kind));
    bool chat = source_is_chat(s);
    log_note("data: %s%s: %lld rows, %s%s%s%s%s", s->files[0].name, s->n_files > 1 ? ", …" : "", (long long)(s->end - s->first),
             s->shape.name, chat ? ", chats by " : ", completion", chat ? s->rendering.name : "", chat ? ", " : "",
             chat ? masking_name(s->shape.masking) : "");
    if (chat) look_at_first(s);
done:
    if (st) source_close(s);
    return st;
}

void source_close(struct source *s)
{
    for (int f = 0; f < s->n_files; f++) rows_close(&s->files[f]);
    free(s->files);
    rendering_release(&s->rendering);
    free(s->template_text);
    *s = (struct source){0};
}

bool source_is_chat(const struct source *s) { return s->shape.kind != SHAPE_TEXT; }

status source_render(const struct source *s, const json_t *row, struct source_work *work, struct rendered *out)
{
    if (source_is_chat(s)) {
        TRY(shape_messages(&s->shape, row, &work->chat));
        return render_chat(&s->rendering, &work->chat, &work->render, out);
    }
    const char *text;
    size_t n;
    TRY(shape_text(&s->shape, row, &work->chat, &text, &n));
    TRY(render_text(&s->rendering, text, n, s->set->add_eos, out));
    for (size_t i = 0; work->chat.untrained && i < out->target.n; i++) out->target.v[i] = -100;
    return ST_OK;
}

/* The words of the last message, if it is an assistant's. */
static char *last_answer(const struct chat *c)
{
    struct buf b = {0};
    const struct message *m = &c->messages[c->n - 1];
    if (m->role != ROLE_ASSISTANT) return NULL;
    buf_text(&b, "");
    for (int i = m->first; i < m->first + m->n; i++) buf_add(&b, c->parts[i].text, c->parts[i].n);
    return b.data;
}

status source_ask(const struct source *s, const json_t *row, struct source_work *work, struct ids *out, char **answer)
{
    *answer = NULL;
    if (!source_is_chat(s))
        FAIL(ST_DATA, "its rows are texts alone, with no prompt to answer; give rows of questions and answers, of instructions "
                      "and outputs, or of messages (`trimpot eval` measures texts)");
    TRY(shape_messages(&s->shape, row, &work->chat));
    TRY(render_prompt(&s->rendering, &work->chat, &work->render, out));
    *answer = last_answer(&work->chat);
    return ST_OK;
}

/* One row under the eye; errors carry its place. */
static status open_row(const struct source *s, int64_t i, const struct rows **file, int64_t *row, json_t **json)
{
    *file = source_locate(s, i, row);
    return rows_get(*file, *row, json);
}

status source_row(const struct source *s, int64_t i, struct source_work *work, struct rendered *out)
{
    int64_t row;
    const struct rows *file;
    json_t *json;
    TRY(open_row(s, i, &file, &row, &json));
    status st = source_render(s, json, work, out);
    json_decref(json);
    return st ? status_prefix(st, "%s:%u", file->name, line_of(file, row)) : ST_OK;
}

status source_prompt(const struct source *s, int64_t i, struct source_work *work, struct ids *out, char **answer)
{
    int64_t row;
    const struct rows *file;
    json_t *json;
    TRY(open_row(s, i, &file, &row, &json));
    status st = source_ask(s, json, work, out, answer);
    json_decref(json);
    return st ? status_prefix(st, "%s:%u", file->name, line_of(file, row)) : ST_OK;
}

void source_work_release(struct source_work *w)
{
    chat_release(&w->chat);
    render_work_release(&w->render);
}
