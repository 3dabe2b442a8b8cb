/* The verbs eval, generate and export: a model, forward only; and a checkpoint, out. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "launcher/verbs.h"
#include "worker/evaluate.h"
#include "worker/export.h"
#include "worker/generate.h"
#include "worker/merge.h"
#include "worker/metrics.h"
#include "worker/run_lock.h"
#include "worker/snapshot.h"

enum { SEQUENCES = 64, DEFAULT_NEW_TOKENS = 128 };

/* A configuration for looking at a model: the training schema, so that data is read as a run would read it. */
static status load(const struct cli *c, const char *data, struct config **out)
{
    if (!c->model) FAIL(ST_USAGE, "--model DIR is needed: the model directory");
    const struct config_setting adapter = {"checkpointer.adapter_checkpoint", c->adapter, "--adapter"};
    struct config_args args = {.recipe = c->adapter ? "lora_finetune" : "full_finetune",
                               .model = c->model,
                               .data = data,
                               .settings = &adapter,
                               .n_settings = 1,
                               .overrides = c->overrides,
                               .override_at = c->override_at,
                               .n_overrides = c->n_overrides,
                               .no_rows = !data,
                               .shipped_dir = c->shipped_dir};
    return config_load(&args, true, out);
}

/* ---- eval ------------------------------------------------------------------------------------------------------------ */

static status eval_session(const struct cli *c, struct session *x)
{
    double loss;
    char number[40];
    TRY(session_bind(x));
    TRY(evaluate(x, x->data, x->cfg->batch_size, &loss));
    if (x->comm->rank != 0) return ST_OK;
    const struct dataset_stats *d = dataset_stats(x->data);
    metrics_number(loss, number, sizeof number);
    if (c->json)
        printf("{\"loss\":%s,\"rows\":%lld,\"tokens\":%lld,\"supervised_tokens\":%lld}\n", number, (long long)d->kept, (long long)d->tokens,
               (long long)d->supervised);
    else
        printf("loss %.6f, perplexity %.3f, over %lld supervised of %lld tokens in %lld rows\n", loss, exp(loss), (long long)d->supervised,
               (long long)d->tokens, (long long)d->kept);
    return ST_OK;
}

static status run_eval(const struct cli *c, struct comm *comm)
{
    struct config *cfg = NULL;
    struct session x = {0};
    if (!c->data) FAIL(ST_USAGE, "--data FILE is needed: the rows to evaluate on");
    TRY(comm_agree(comm, load(c, c->data, &cfg)));
    status st = comm_agree(comm, session_open(&x, cfg, comm, SESSION_FORWARD, NULL, NULL));
    if (!st) st = comm_agree(comm, eval_session(c, &x));
    session_close(&x);
    config_free(cfg);
    return st;
}

/* ---- generate ---------------------------------------------------------------------------------------------------------- */

struct answers {
    const struct cli *cli;
    struct session *x;
    struct prompts p; /* the ids grow by the answers */
    size_t *prompt_length;
    int64_t matched, known;
};

static char *trimmed(char *s)
{
    size_t n = strlen(s);
    while (n && strchr(" \n\r\t", s[n - 1])) s[--n] = 0;
    while (*s && strchr(" \n\r\t", *s)) s++;
    return s;
}

/* What a person or a JSON reader can take: an answer may end inside a character. The caller frees. */
static char *decoded(const struct tokenizer *tok, const int32_t *ids, size_t n)
{
    size_t bytes;
    struct buf text = {0};
    char *raw = tokenizer_decode(tok, ids, n, true, &bytes);
    buf_tame(&text, raw, bytes);
    free(raw);
    return text.data;
}

static void print_answer(struct answers *a, int64_t i)
{
    const struct ids *s = &a->p.ids[i];
    size_t at = a->prompt_length[i];
    char *prompt = decoded(a->x->tok, s->v, at), *answer = decoded(a->x->tok, s->v + at, s->n - at), *expected = a->p.answers[i];
    bool match = expected && !strcmp(trimmed(answer), trimmed(expected));
    a->matched += match;
    a->known += expected != NULL;
    if (a->cli->prompt && !a->cli->json)
        puts(trimmed(answer));
    else {
        json_t *o = json_pack("{s:s, s:s}", "prompt", prompt, "answer", trimmed(answer));
        if (!a->cli->prompt && expected) {
            json_object_set_new(o, "expected", json_string(trimmed(expected)));
            json_object_set_new(o, "match", json_boolean(match));
        }
        char *text = json_dumps(o, JSON_COMPACT);
        puts(text);
        free(text);
        json_decref(o);
    }
    free(prompt);
    free(answer);
}

static status answer_all(struct answers *a, const struct generate_options *o)
{
    for (int64_t first = 0; first < a->p.n; first += SEQUENCES) {
        int64_t n = a->p.n - first < SEQUENCES ? a->p.n - first : SEQUENCES;
        struct generate_options mine = *o;
        mine.seed = o->seed + (uint64_t)first;
        TRY(generate(a->x, a->p.ids + first, n, &mine));
        for (int64_t i = first; i < first + n; i++) print_answer(a, i);
        fflush(stdout);
    }
    if (!a->cli->prompt)
        log_note("exact match %lld of %lld (%.1f %%)", (long long)a->matched, (long long)a->known,
                 a->known ? 100.0 * (double)a->matched / (double)a->known : 0.0);
    return ST_OK;
}

/* What is asked, as training would have shown it. The tokenizer is opened for this alone: how long the sequences are
 * decides how the model is opened. */
static status read_prompts(const struct cli *c, const struct config *cfg, struct prompts *p)
{
    struct tokenizer *tok = NULL;
    struct chat_format format = {0};
    char model_type[64];
    status st;
    TRY_DONE(hf_config_model_type(cfg->checkpointer.checkpoint_dir, model_type, sizeof model_type));
    TRY_DONE(session_tokenizer(cfg, model_type, time(NULL), &tok, &format));
    st = c->prompt ? dataset_prompt(cfg, &format, c->prompt, p) : dataset_prompts(cfg, &cfg->dataset[0], &format, p);
done:
    chat_format_close(&format);
    if (tok) tokenizer_close(tok);
    return st;
}

static status generate_rows(const struct cli *c, const struct config *cfg, struct comm *comm)
{
    struct session x = {0};
    struct answers a = {.cli = c, .x = &x};
    int64_t longest = 0, fresh = c->max_new_tokens > 0 ? c->max_new_tokens : DEFAULT_NEW_TOKENS;
    status st;
    TRY(read_prompts(c, cfg, &a.p));
    a.prompt_length = mem_alloc((size_t)a.p.n * sizeof *a.prompt_length);
    for (int64_t i = 0; i < a.p.n; i++) {
        a.prompt_length[i] = a.p.ids[i].n;
        if ((int64_t)a.p.ids[i].n > longest) longest = (int64_t)a.p.ids[i].n;
    }
    struct batch_bounds bounds = generate_bounds(a.p.n < SEQUENCES ? a.p.n : SEQUENCES, longest, fresh);
    TRY_DONE(session_open(&x, cfg, comm, SESSION_FORWARD, NULL, &bounds));
    for (int64_t i = 0; i < a.p.n; i++) TRY_DONE(session_check_ids(&x, a.p.ids[i].v, (int64_t)a.p.ids[i].n));
    TRY_DONE(session_bind(&x));
    struct generate_options o = {.max_new_tokens = fresh,
                                 .temperature = isnan(c->temperature) ? 0 : c->temperature,
                                 .top_k = c->top_k > 0 ? c->top_k : 0,
                                 .top_p = isnan(c->top_p) ? 1 : c->top_p,
                                 .seed = c->seed >= 0 ? (uint64_t)c->seed : 0};
    st = answer_all(&a, &o);
done:
    free(a.prompt_length);
    prompts_release(&a.p);
    session_close(&x);
    return st;
}

static status run_generate(const struct cli *c, struct comm *comm)
{
    struct config *cfg = NULL;
    if (!c->prompt == !c->data) FAIL(ST_USAGE, "either --prompt TEXT or --data FILE is needed: what to answer");
    TRY(load(c, c->data, &cfg));
    status st = generate_rows(c, cfg, comm);
    config_free(cfg);
    return st;
}

/* ---- export ------------------------------------------------------------------------------------------------------------- */

static status export_checkpoint(const struct cli *c, const struct config *cfg, struct comm *comm, struct session *x, struct resume *r)
{
    struct progress at;
    char *base = realpath(cfg->checkpointer.checkpoint_dir, NULL), *target = c->output ? realpath(c->output, NULL) : NULL;
    char *other = merge_other(cfg) ? realpath(merge_other(cfg), NULL) : NULL;
    bool itself = target && ((base && !strcmp(base, target)) || (other && !strcmp(other, target)));
    free(base);
    free(other);
    free(target);
    if (itself)
        FAIL(ST_USAGE, "--output %s: that is the base model itself, which an export never overwrites; choose another folder", c->output);
    TRY(snapshot_peek(cfg, comm, r));
    if (!r->found) FAIL(ST_CORRUPT, "%s/checkpoints: no usable checkpoint there", cfg->output_dir);
    TRY(session_open(x, cfg, comm, SESSION_TRAIN, &r->start, NULL));
    TRY(session_seed(x, &r->seed));
    TRY(session_bind(x));
    TRY(snapshot_load(x, r, &at));
    if (!r->found) FAIL(ST_CORRUPT, "%s/checkpoints: no usable checkpoint there", cfg->output_dir);
    merge_note(x);
    if (!c->output)
        TRY(export_run(x));
    else if (merge_is_declined(x))
        TRY(export_adapter(x, c->output));
    else
        TRY(export_model(x, c->output));
    log_note("exported step %lld to %s%s", (long long)at.step, c->output ? c->output : cfg->output_dir, c->output ? "" : "/export");
    return ST_OK;
}

/* Whoever writes into the folder of a run holds its lock: a run that lives would export over it, or between its files. */
static status lock_folder(const struct config *cfg, struct comm *comm, struct run_lock **lock)
{
    if (!run_lock_take(cfg->output_dir, comm, NULL, lock)) return ST_OK;
    return status_prefix(ST_USAGE, "export writes into the folder of the run, unless --output DIR says where else");
}

static status run_export(const struct cli *c, struct comm *comm)
{
    struct config *cfg = NULL;
    struct session x = {0};
    struct resume r = {0};
    struct run_lock *lock = NULL;
    char *yaml = mem_printf("%s/config.resolved.yaml", c->args[0]);
    const struct config_setting settings[] = {{"output_dir", c->args[0], "OUTPUT_DIR"}, {"resume_from_checkpoint", "true", "export"}};
    struct config_args args = {.config = yaml,
                               .settings = settings,
                               .n_settings = sizeof settings / sizeof *settings,
                               .overrides = c->overrides,
                               .override_at = c->override_at,
                               .n_overrides = c->n_overrides,
                               .shipped_dir = c->shipped_dir};
    status st = file_exists(yaml)
                    ? config_load(&args, true, &cfg)
                    : status_fail(ST_USAGE, "argument 2 ('%s'): no config.resolved.yaml there; give the output_dir of a run", c->args[0]);
    if (!st && !c->output) st = lock_folder(cfg, comm, &lock);
    if (!st) st = export_checkpoint(c, cfg, comm, &x, &r);
    session_close(&x);
    run_lock_release(lock);
    ckpt_info_free(&r.info);
    config_free(cfg);
    free(yaml);
    return st;
}

const struct verb verb_eval = {
    .name = "eval",
    .line = "mean token loss of a model on a file",
    .arguments = "[key=value …]",
    .help = "Forward only, with an adapter if one is given; rows are read, rendered and masked as a run would.\n\n"
            "  trimpot eval --model DIR --data rows.jsonl\n"
            "  trimpot eval --model DIR --adapter OUTPUT/adapter --data rows.jsonl dtype=fp32\n",
    .options = CLI_MODEL | CLI_ADAPTER | CLI_DATA | CLI_JSON,
    .overrides = true,
    .every_rank = true,
    .run = run_eval,
};

const struct verb verb_generate = {
    .name = "generate",
    .line = "let a model answer a prompt, or the prompts of a file",
    .arguments = "[key=value …]",
    .help = "Greedy unless --temperature is given. With --data every row's prompt is answered, one JSON object per line with the expected\n"
            "answer beside it, and the exact-match rate at the end.\n\n"
            "  trimpot generate --model DIR --prompt \"Name three primes.\"\n"
            "  trimpot generate --model DIR --adapter OUTPUT/adapter --data heldout.jsonl --max-new-tokens 64\n"
            "  trimpot generate --model DIR --prompt \"Once\" --temperature 0.8 --top-p 0.95 --seed 7\n",
    .options = CLI_MODEL | CLI_ADAPTER | CLI_DATA | CLI_PROMPT | CLI_MAX_NEW_TOKENS | CLI_TEMPERATURE | CLI_TOP_K | CLI_TOP_P | CLI_SEED |
               CLI_JSON,
    .overrides = true,
    .run = run_generate,
};

const struct verb verb_export = {
    .name = "export",
    .line = "write the newest checkpoint of a run as a model directory",
    .arguments = "OUTPUT_DIR [key=value …]",
    .help = "Reads OUTPUT_DIR/config.resolved.yaml and the newest checkpoint that verifies.\n\n"
            "  trimpot export runs/a\n"
            "  trimpot export runs/a --output /data/model save_adapter_weights_only=true\n"
            "  trimpot export runs/a --output /data/model merge_base=/data/original\n",
    .options = CLI_OUTPUT,
    .min_args = 1,
    .max_args = 1,
    .overrides = true,
    .paths = true,
    .run = run_export,
};
