/* The verbs run and plan: the same line, the same checks; plan stops before the first byte is allocated. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "launcher/signals.h"
#include "launcher/startup.h"
#include "launcher/verbs.h"
#include "worker/budget.h"
#include "worker/compare.h"
#include "worker/header.h"
#include "worker/predict.h"
#include "worker/train.h"

static status load(const struct cli *c, struct comm *comm, bool no_rows, struct config **out)
{
    const struct config_setting device = {"device", c->device, "--device"};
    struct config_args args = {.recipe = c->args[0],
                               .config = c->config,
                               .model = c->model,
                               .data = c->data,
                               .output = c->output,
                               .settings = &device,
                               .n_settings = 1,
                               .no_rows = no_rows,
                               .overrides = c->overrides,
                               .override_at = c->override_at,
                               .n_overrides = c->n_overrides,
                               .shipped_dir = c->shipped_dir};
    TRY(comm_agree(comm, config_load(&args, true, out)));
    return startup_check_config(comm, *out);
}

static unsigned requests(void)
{
    unsigned flags = signals_take();
    return (flags & SIGNAL_SAVE ? TRAIN_SAVE : 0u) | (flags & SIGNAL_STOP ? TRAIN_STOP : 0u);
}

/* ---- plan ------------------------------------------------------------------------------------------------------------ */

static status show_plan(const struct cli *c, const struct session *x, const struct gpu *gpu)
{
    struct comm *comm = x->comm;
    struct buf text = {0}, speed = {0};
    uint64_t mine = plan_total_bytes(&x->plan), *all = mem_alloc((size_t)comm->size * sizeof *all);
    status st = comm->fn->all_gather(comm, &mine, all, sizeof mine);
    if (!st && comm->rank == 0) {
        buf_text(&speed, "");
        if (gpu && x->model.act != DT_BF16) log_note("no prediction: its rates are those of bf16, and dtype is not");
        if (gpu && x->model.act == DT_BF16) {
            struct data_shape d = data_shape_of(x);
            struct prediction p = predict(x, gpu, &d);
            predict_text(&p, gpu, c->json, &speed);
        }
        plan_text(&x->plan, 0, c->json, speed.data, &text);
        fputs(text.data, stdout);
        for (int r = 1; r < comm->size && !c->json; r++) printf("rank %d: %s\n", r, text_bytes((double)all[r]));
        if (!c->json) fputs(speed.data, stdout);
    }
    buf_release(&speed);
    buf_release(&text);
    free(all);
    return st;
}

static status show_comparison(const struct cli *c, struct session *x, const struct gpu *gpu)
{
    struct buf text = {0};
    status st = compare(x, gpu, c->json, &text);
    if (!st && x->comm->rank == 0) fputs(text.data, stdout);
    buf_release(&text);
    return st;
}

/* What --fit found: settings as the command line takes them, one after another. */
struct fit {
    const struct choice_made *choice;
    size_t device, host;
    double tokens_per_s; /* NAN: no rates are known */
};

static void fit_json(const struct session *x, const struct fit *f, struct buf *out)
{
    char *settings = mem_strdup(f->choice->settings ? f->choice->settings : ""), *rest = settings, *word;
    json_t *o = json_pack("{s:s,s:[],s:s,s:I,s:I}", "device", x->be->describe(), "settings", "why", f->choice->why, "device_bytes",
                          (json_int_t)f->device, "host_bytes", (json_int_t)f->host);
    while ((word = strsep(&rest, " ")))
        if (*word) json_array_append_new(json_object_get(o, "settings"), json_string(word));
    json_object_set_new(o, "tokens_per_s", isnan(f->tokens_per_s) ? json_null() : json_real(f->tokens_per_s));
    char *line = json_dumps(o, JSON_COMPACT);
    buf_printf(out, "%s\n", line ? line : "{}");
    free(line);
    free(settings);
    json_decref(o);
}

/* Lines to paste, with what they come to. */
static void fit_text(const struct session *x, const struct fit *f, struct buf *out)
{
    bool apart = x->be->tensors_in == MEM_DEVICE;
    buf_printf(out, "# %s: %s\n", x->be->describe(), f->choice->why);
    buf_printf(out, "# %s", text_bytes((double)(apart ? f->device : f->host)));
    if (apart) buf_printf(out, " on the device, %s on the host", text_bytes((double)f->host));
    buf_text(out, " per rank");
    if (!isnan(f->tokens_per_s)) buf_printf(out, "; %.0f tokens/s predicted", f->tokens_per_s);
    buf_text(out, "\n");
    if (f->choice->settings) settings_text(x->cfg, f->choice->settings, out);
}

static status show_fit(const struct cli *c, const struct session *x, const struct gpu *gpu, const struct choice_made *choice)
{
    struct buf lines = {0};
    struct data_shape data = data_shape_of(x);
    struct fit f = {.choice = choice, .tokens_per_s = NAN};
    if (x->comm->rank != 0) return ST_OK;
    if (gpu && x->model.act == DT_BF16) f.tokens_per_s = predict(x, predict_rates(x, gpu), &data).tokens_per_s;
    plan_kinds(&x->plan, &f.device, &f.host);
    if (c->json)
        fit_json(x, &f, &lines);
    else
        fit_text(x, &f, &lines);
    fputs(lines.data, stdout);
    buf_release(&lines);
    return ST_OK;
}

static status show(const struct cli *c, struct session *x, const struct gpu *gpu, const struct choice_made *choice)
{
    if (c->compare) return show_comparison(c, x, gpu);
    return c->fit && choice ? show_fit(c, x, gpu, choice) : show_plan(c, x, gpu);
}

static status choose(const struct cli *c, struct session *x, const struct gpu *gpu, struct choice_made *choice)
{
    if (c->compare || (!c->fit && !plan_has_budget(x->cfg))) return ST_OK;
    TRY(comm_agree(x->comm, budget_choose(x, gpu, c->fit ? BUDGET_OTHER_MATHS : BUDGET_SMALLER, choice)));
    if (!c->fit) x->chosen = choice->why;
    return ST_OK;
}

static bool has_rows(const struct config *cfg)
{
    for (int i = 0; i < cfg->n_dataset; i++)
        if (cfg->dataset[i].n_data_files) return true;
    return false;
}

static status plan_for(const struct cli *c, const struct config *cfg, struct comm *comm, const struct gpu *gpu)
{
    struct session x = {0};
    struct session_start start = {.gpu = gpu};
    struct choice_made choice = {0};
    struct batch_bounds bounds;
    bool rows = has_rows(cfg);
    if (!rows) TRY(comm_agree(comm, batch_bounds_told(cfg, &bounds)));
    status st = comm_agree(comm, session_open(&x, cfg, comm, SESSION_TRAIN, &start, rows ? NULL : &bounds));
    if (!st) st = session_seed(&x, NULL);
    if (!st) {
        status fits = choose(c, &x, gpu, &choice);
        char *why_not = fits ? mem_strdup(status_message()) : NULL;
        header_print(&x);
        if (gpu && gpu_estimated()) log_warn("workspace and library rows are estimates: %s", gpu_estimated());
        st = fits == ST_OOM || !fits ? show(c, &x, gpu, fits ? NULL : &choice) : ST_OK;
        if (!st && fits) st = status_fail(fits, "%s", why_not);
        free(why_not);
    }
    if (!st && !c->compare) st = session_check_budget(&x);
    session_close(&x);
    choice_free(&choice);
    return comm_agree(comm, st);
}

static status what_to_plan(const struct cli *c, const struct config *cfg, const struct gpu **gpu)
{
    if (c->compare && c->fit) FAIL(ST_USAGE, "--compare and --fit ask for two answers: leave one of them out");
    if (c->gpu && cfg->device != DEVICE_CUDA && cfg->device_set)
        FAIL(ST_USAGE, "--gpu %s: device is not cuda: leave one of them out", c->gpu);
    return c->gpu ? gpu_find(c->gpu, gpu) : ST_OK;
}

static status plan(const struct cli *c, const struct config *cfg, struct comm *comm)
{
    const struct gpu *gpu = NULL;
    TRY(comm_agree(comm, what_to_plan(c, cfg, &gpu)));
    return plan_for(c, cfg, comm, gpu);
}

static status run_plan(const struct cli *c, struct comm *comm)
{
    struct config *cfg = NULL;
    status st = load(c, comm, true, &cfg);
    if (!st) st = plan(c, cfg, comm);
    config_free(cfg);
    return st;
}

/* ---- run ------------------------------------------------------------------------------------------------------------- */

static status run_run(const struct cli *c, struct comm *comm)
{
    struct config *cfg = NULL;
    const struct train_hooks hooks = {.requests = requests, .json = c->json};
    status st = load(c, comm, false, &cfg);
    if (st) {
        config_free(cfg);
        return st;
    }
    if (c->print_config) {
        char *text = config_text(cfg);
        if (comm->rank == 0) fputs(text, stdout);
        free(text);
    } else if (c->dry_run)
        st = plan(c, cfg, comm);
    else
        st = train(cfg, comm, &hooks);
    config_free(cfg);
    return st;
}

const struct verb verb_run = {
    .name = "run",
    .line = "fine-tune a model",
    .arguments = "RECIPE [key=value | ~key …]",
    .help = "Trains, saves checkpoints, and exports a Hugging Face or PEFT directory. RECIPE is full_finetune or lora_finetune, or one\n"
            "of torchtune's four names for them. Under mpirun or srun the same line shards the data over ranks.\n\n"
            "  trimpot run lora_finetune --model DIR --data rows.jsonl\n"
            "  trimpot run lora_finetune --config llama3_2/1B_lora_single_device checkpointer.checkpoint_dir=DIR\n"
            "  mpirun -n 8 trimpot run full_finetune --config my.yaml batch_size=4\n"
            "  trimpot run lora_finetune --config my.yaml resume_from_checkpoint=true\n",
    .keys = config_reference,
    .options = CLI_CONFIG | CLI_MODEL | CLI_DATA | CLI_OUTPUT | CLI_DRY_RUN | CLI_PRINT_CONFIG | CLI_JSON | CLI_DEVICE,
    .min_args = 1,
    .max_args = 1,
    .overrides = true,
    .every_rank = true,
    .signals = true,
    .run = run_run,
};

const struct verb verb_plan = {
    .name = "plan",
    .line = "print every buffer a run would hold, and allocate none",
    .arguments = "RECIPE [key=value | ~key …]",
    .help =
        "Takes the same line as `run`. Prints the memory of each rank by category, from the layout code that the run binds; refuses\n"
        "what does not fit, naming the largest rows and the keys that shrink them. With --gpu it plans for a GPU that need not be here\n"
        "and predicts the speed. Without rows, a tokenizer.max_seq_len and a folder with a config.json are enough. With --compare it\n"
        "prints a row per memory technique instead: what it saves, by category, and costs in time; with --fit the cheapest settings\n"
        "that fit, as lines to paste.\n\n"
        "  trimpot plan lora_finetune --model DIR --data rows.jsonl\n"
        "  trimpot plan full_finetune --config my.yaml memory_budget=16GB\n"
        "  trimpot plan lora_finetune --gpu h100 --model DIR tokenizer.max_seq_len=4096\n"
        "  trimpot plan full_finetune --gpu h100 --model DIR tokenizer.max_seq_len=4096 --compare\n"
        "  trimpot plan lora_finetune --gpu 4090 --model DIR tokenizer.max_seq_len=8192 --fit\n",
    .options = CLI_CONFIG | CLI_MODEL | CLI_DATA | CLI_OUTPUT | CLI_JSON | CLI_DEVICE | CLI_GPU | CLI_COMPARE | CLI_FIT,
    .min_args = 1,
    .max_args = 1,
    .overrides = true,
    .every_rank = true,
    .run = run_plan,
};
