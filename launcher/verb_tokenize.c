/* The verb tokenize: what the model is shown, row by row. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "checkpoints/hf.h"
#include "configs/config.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "launcher/verbs.h"
#include "worker/data/dataset_source.h"
#include "worker/session.h"

struct job {
    const struct cli *cli;
    struct config *config;
    struct tokenizer *tok;
    struct chat_format format;
    enum rows_kind kind;
    struct buf input; /* standard input */
    struct rows rows;
    struct source source; /* shape and rendering of data rows, from the first of them */
    bool shaped;
    struct source_work work;
    struct rendered rendered;
};

static json_t *piece_text(const struct tokenizer *tok, int32_t id)
{
    const char *piece = tokenizer_piece(tok, id);
    if (!piece) return json_sprintf("<%d>", (int)id);
    json_t *text = json_string(piece);
    if (text) return text;
    struct buf escaped = {0}; /* bytes that are no UTF-8 by themselves */
    for (; *piece; piece++) buf_printf(&escaped, "<0x%02X>", (unsigned char)*piece);
    text = json_string(escaped.data ? escaped.data : "");
    buf_release(&escaped);
    return text;
}

static void print_document(const struct job *j, const struct rendered_document *d)
{
    const struct rendered *r = &j->rendered;
    json_t *ids = json_array(), *pieces = json_array(), *mask = json_array();
    for (size_t i = d->at; i < d->at + d->n; i++) {
        json_array_append_new(ids, json_integer(r->ids.v[i]));
        json_array_append_new(pieces, piece_text(j->tok, r->ids.v[i]));
        json_array_append_new(mask, json_boolean(r->target.v[i] == -100));
    }
    json_t *row = json_pack("{s:o, s:o, s:o}", "ids", ids, "pieces", pieces, "mask", mask);
    json_dumpf(row, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(row);
}

static status string_row(struct job *j, const json_t *row)
{
    struct rendered *out = &j->rendered;
    const char *text = json_string_value(row);
    size_t n = json_string_length(row);
    if (j->cli->no_special)
        TRY(tokenizer_encode(j->tok, text, n, true, &out->ids));
    else
        TRY(tokenizer_encode_document(j->tok, text, n, &out->ids));
    for (size_t i = 0; i < out->ids.n; i++) ids_push(&out->target, out->ids.v[i]);
    out->documents = mem_grow(out->documents, sizeof *out->documents);
    out->documents[0] = (struct rendered_document){.n = out->ids.n};
    out->n = out->cap = 1;
    return ST_OK;
}

static status data_row(struct job *j, const json_t *row)
{
    struct source *s = &j->source;
    if (j->cli->no_special) FAIL(ST_USAGE, "--no-special is for lines that are strings; this one is a data row");
    if (!j->shaped) {
        *s = (struct source){.c = j->config, .set = &j->config->dataset[0]};
        TRY(shape_detect(s->set, row, &s->shape));
        TRY(rendering_init(&s->rendering, s->c, s->set, &j->format, s->shape.kind));
        if (source_is_chat(s)) log_note("data: %s, chats by %s", s->shape.name, s->rendering.name);
        j->shaped = true;
    }
    TRY(source_render(s, row, &j->work, &j->rendered));
    int64_t most = j->config->tokenizer.max_seq_len;
    for (int k = 0; most > 0 && k < j->rendered.n; k++)
        render_truncate(&s->rendering, source_is_chat(s), most, j->config->tokenizer.truncate_left, &j->rendered,
                        &j->rendered.documents[k]);
    return ST_OK;
}

static status each_row(struct job *j)
{
    for (int64_t i = 0; i < j->rows.n; i++) {
        json_t *row = NULL;
        TRY(rows_get(&j->rows, i, &row));
        rendered_clear(&j->rendered);
        status st = json_is_string(row) ? string_row(j, row) : data_row(j, row);
        json_decref(row);
        if (st) return status_prefix(st, "%s:%u", j->rows.name, j->rows.spans[i].line);
        for (int k = 0; k < j->rendered.n; k++) print_document(j, &j->rendered.documents[k]);
    }
    return ST_OK;
}

static status read_input(struct buf *b)
{
    enum { LIMIT = 1 << 30 };
    char part[65536];
    for (;;) {
        ssize_t n = read(0, part, sizeof part);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) FAIL(ST_IO, "standard input: %s", strerror(errno));
        if (n == 0) return ST_OK;
        if (b->len + (size_t)n > LIMIT) FAIL(ST_DATA, "standard input: more than 1 GB; give the rows as a file");
        buf_add(b, part, (size_t)n);
    }
}

/* The rows' file, whichever way it is given; NULL: it is not. */
static const char *rows_file(const struct cli *c) { return c->n_args ? c->args[0] : c->data; }

/* Data rows are read and rendered as a run with these keys would. The configuration is given a name for them that has an
 * ending it knows: JSON where the file has none, or is standard input. The file itself is opened here. */
static status load_config(struct job *j)
{
    static const char *const names[] = {
        [ROWS_JSON] = "rows.jsonl", [ROWS_TEXT] = "rows.txt", [ROWS_CSV] = "rows.csv", [ROWS_TSV] = "rows.tsv"};
    const struct cli *c = j->cli;
    const struct config_dataset unsaid = {0};
    TRY(source_kind(&unsaid, rows_file(c), &j->kind));
    char *longest = c->max_seq_len > 0 ? mem_printf("%lld", (long long)c->max_seq_len) : NULL;
    const struct config_setting settings[] = {{"checkpointer.checkpoint_dir", c->model ? NULL : c->tokenizer, "--tokenizer"},
                                              {"tokenizer.path", c->model || c->config ? c->tokenizer : NULL, "--tokenizer"},
                                              {"tokenizer.max_seq_len", longest, "--max-seq-len"}};
    struct config_args args = {.recipe = "lora_finetune",
                               .config = c->config,
                               .model = c->model,
                               .data = names[j->kind],
                               .output = "/unused",
                               .settings = settings,
                               .n_settings = sizeof settings / sizeof *settings,
                               .overrides = c->overrides,
                               .override_at = c->override_at,
                               .n_overrides = c->n_overrides,
                               .shipped_dir = c->shipped_dir};
    status st = config_load(&args, false, &j->config);
    free(longest);
    if (!st) st = source_kind(&j->config->dataset[0], names[j->kind], &j->kind);
    return st;
}

static status open_tokenizer(struct job *j)
{
    const struct config *c = j->config;
    char model_type[64];
    bool model = hf_config_model_type(c->checkpointer.checkpoint_dir, model_type, sizeof model_type) == ST_OK;
    return session_tokenizer(c, model ? model_type : NULL, time(NULL), &j->tok, &j->format); /* it helps where it is */
}

static status run_tokenize(const struct cli *c, struct comm *comm)
{
    (void)comm;
    struct job j = {.cli = c};
    const char *path = rows_file(c);
    status st;
    if (!path) FAIL(ST_USAGE, "trimpot tokenize: its arguments are missing; usage: trimpot tokenize ROWS [key=value …]");
    if (c->n_args && c->data) FAIL(ST_USAGE, "trimpot tokenize: rows are given twice, as '%s' and with --data; leave one out", c->args[0]);
    bool piped = strcmp(path, "-") == 0;
    if (!c->tokenizer && !c->model && !c->config)
        FAIL(ST_USAGE, "trimpot tokenize: --tokenizer DIR_OR_FILE is missing (or --model DIR, or --config FILE that names one)");
    TRY_DONE(load_config(&j));
    TRY_DONE(open_tokenizer(&j));
    if (piped) {
        TRY_DONE(read_input(&j.input));
        TRY_DONE(rows_scan(&j.rows, "standard input", j.input.data, j.input.len, j.kind));
    } else {
        TRY_DONE(rows_open(&j.rows, path, j.kind));
    }
    TRY_DONE(each_row(&j));
    unused_report(piped ? "standard input" : path, &j.work.chat.unused);
done:
    if (j.shaped) rendering_release(&j.source.rendering);
    rendered_release(&j.rendered);
    source_work_release(&j.work);
    rows_close(&j.rows);
    buf_release(&j.input);
    chat_format_close(&j.format);
    if (j.tok) tokenizer_close(j.tok);
    if (j.config) config_free(j.config);
    return st;
}

const struct verb verb_tokenize = {
    .name = "tokenize",
    .line = "show rows as the ids and pieces that are trained on",
    .arguments = "ROWS [key=value …]",
    .help = "The rows are those of a JSON, JSONL, CSV, TSV or text file as `run` reads it (- for standard input: JSONL, or as\n"
            "dataset.source says); a JSON string is a row as well. Prints one object per line: ids, pieces, and mask: true where a\n"
            "token is seen but not trained on.\n"
            "\n"
            "examples:\n"
            "  trimpot tokenize --tokenizer DIR rows.jsonl\n"
            "  echo '\"Hello world\"' | trimpot tokenize --tokenizer DIR/tokenizer.json --no-special -\n"
            "  trimpot tokenize --tokenizer DIR rows.jsonl dataset.train_on_input=true\n"
            "  trimpot tokenize --config my.yaml rows.jsonl\n"
            "  trimpot tokenize --model DIR --data rows.jsonl\n",
    .options = CLI_TOKENIZER | CLI_MODEL | CLI_DATA | CLI_CONFIG | CLI_NO_SPECIAL | CLI_MAX_SEQ_LEN,
    .min_args = 0,
    .max_args = 1,
    .overrides = true,
    .paths = true,
    .run = run_tokenize,
};
