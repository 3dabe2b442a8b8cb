#include "worker/header.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>

#include "collectives/transport.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "worker/merge.h"

/* numerics.md 12.2: the share of host memory above which a warning is due. */
static const double MUCH_OF_HOST = 0.6;

static void counted(const struct session *x, int64_t *trained, int64_t *total)
{
    *trained = *total = 0;
    for (int i = 0; i < x->model.params.n; i++) {
        const struct param *p = &x->model.params.p[i];
        if (param_is_trained(p)) *trained += p->count;
        if (p->kind != PARAM_ADAPTER) *total += p->count;
    }
}

/* Weights that are quantised in their directory: which, and what of its configuration gives way. */
static void stored_lines(const struct session *x)
{
    int64_t stored = 0, plain = 0;
    if (!x->bnb.is) return;
    for (int i = 0; i < x->model.params.n; i++) {
        const struct param *p = &x->model.params.p[i];
        stored += p->stored;
        plain += p->kind == PARAM_FROZEN && p->rank == 2 && p->layer >= 0;
    }
    log_note("         NF4 as the directory has it%s: %lld linears, and %lld of the blocks as they were",
             x->bnb.nested ? ", with double quantisation" : "", (long long)stored, (long long)plain);
    if (x->bnb.compute != x->model.act)
        log_note("         computed in %s, as dtype says, where bnb_4bit_compute_dtype is %s", dtype_name(x->model.act),
                 dtype_name(x->bnb.compute));
}

/* "8b", "1_5b_instruct", "135m": parameters; 0: the word has no number of them ("mini"). */
static double size_said(const char *word)
{
    double n = 0, digit = 0;
    for (; isdigit((unsigned char)*word) || *word == '_'; word++) {
        if (*word == '_')
            digit = 1;
        else if (digit > 0)
            n += (double)(*word - '0') * (digit /= 10);
        else
            n = 10 * n + (double)(*word - '0');
    }
    return n * (*word == 'b' ? 1e9 : *word == 'm' ? 1e6 : 0);
}

/* What is trained is the directory's, whatever the component's name says: that is worth a word where they are far apart. */
static void warn_of_size(const struct session *x, int64_t total)
{
    const struct config *c = x->cfg;
    double said = size_said(c->model.size);
    if (said > 0 && ((double)total > 1.5 * said || (double)total < said / 1.5))
        log_warn("model._component_ speaks of %s, but the model in %s has %.4g million parameters: that one is trained", c->model.size,
                 c->checkpointer.checkpoint_dir, (double)total / 1e6);
}

static void model_lines(const struct session *x)
{
    const struct model_shape *m = &x->shape;
    int64_t trained, total;
    counted(x, &trained, &total);
    log_note("model    %s: %s, %lld layers, width %lld, %lld/%lld heads, %.1f M parameters, %.3g M trained (%s%s)",
             x->cfg->checkpointer.checkpoint_dir, m->family->model_type, (long long)m->layers, (long long)m->width, (long long)m->heads,
             (long long)m->kv_heads, (double)total / 1e6, (double)trained / 1e6,
             x->model.plan.full         ? "full"
             : x->model.plan.frozen.nf4 ? "QLoRA"
                                        : "LoRA",
             x->cfg->model.init == INIT_RANDOM ? ", random init" : "");
    warn_of_size(x, total);
    if (x->tok) log_note("         %s", tokenizer_describe(x->tok));
    if (x->model.plan.acts.every > m->layers)
        log_warn("ac_option: %lld: the model has %lld layers, so that no block is recomputed", (long long)x->model.plan.acts.every,
                 (long long)m->layers);
    stored_lines(x);
    merge_note(x);
}

static void warn_of_pinned(const struct session *x, size_t bytes, const char *what, const char *remedy)
{
    size_t host = plan_machine_bytes(x->be, MEM_HOST, x->comm->local_size);
    if ((double)bytes > MUCH_OF_HOST * (double)host)
        log_warn("pinned memory cannot be swapped, and %s take %s of the %s that a rank may have of the host; %s", what,
                 text_bytes((double)bytes), text_bytes((double)host), remedy);
}

/* What travels between forward and backward, or why nothing does. */
static void offload_line(const struct session *x)
{
    size_t away = arena_need(&x->plan.arena[PLAN_OFFLOADED]);
    if (!x->model.plan.acts.offload) return;
    if (x->be->tensors_in != MEM_DEVICE) {
        log_note("offload  nothing is moved: host and device are one memory here (enable_activation_offloading)");
        return;
    }
    log_note("offload  what %lld of %lld layers keep waits for the backward pass in pinned memory, %s per rank; copied %s",
             (long long)act_offloaded(&x->model.acts), (long long)x->shape.layers, text_bytes((double)away),
             x->model.plan.acts.apart ? "while other layers compute" : "between layers");
    warn_of_pinned(x, away, "offloaded activations", "enable_activation_checkpointing=true leaves less to offload");
}

/* States that wait in pinned memory, or why none do. */
static void paging_line(const struct session *x)
{
    const struct pager *p = &x->trainer.optim.pager;
    if (!optim_is_paged(&x->trainer.optim)) return;
    if (x->be->tensors_in != MEM_DEVICE)
        log_note("paging   nothing is moved: host and device are one memory here (optimizer.is_paged)");
    else if (!p->away)
        log_note(
            "paging   all optimizer states are on the device: there is room, or %d windows would take as much (optimizer.paged_window)",
            PAGER_PLACES);
    else
        log_note(
            "paging   %s of optimizer states per rank wait in pinned memory, in %d windows of which %d are on the device; %s stay there",
            text_bytes((double)pager_away_bytes(p)), p->away, PAGER_PLACES, text_bytes((double)pager_home_bytes(p)));
    warn_of_pinned(x, pager_away_bytes(p), "paged optimizer states",
                   "an 8-bit optimizer (bitsandbytes.optim.PagedAdamW8bit) has less of them");
}

static void host_line(const struct session *x)
{
    if (!optim_is_on_host(&x->trainer.optim)) return;
    if (x->be->tensors_in != MEM_DEVICE)
        log_note("optimizer is where it would be put: host and device are one memory here (optimizer.on_host)");
    else
        log_note("optimizer steps on the host, with %d threads: %s of states per rank are there, gradients come down and weights go up",
                 x->trainer.optim.host.cpu->threads, text_bytes((double)arena_need(&x->plan.arena[PLAN_HOSTED])));
}

static void budget_line(const struct session *x)
{
    if (x->chosen) log_note("budget   %s", x->chosen);
}

static void data_lines(const struct session *x)
{
    char *summary = dataset_summary(x->data);
    log_note("data     %s", summary);
    free(summary);
    if (x->val) log_note("         validation: %lld items", (long long)dataset_items(x->val));
    char *preview = dataset_preview(x->data, x->tok, log_colour());
    log_note("         first item%s:\n%s", log_colour() ? " (dimmed: not trained on)" : "", preview);
    free(preview);
}

void header_print(const struct session *x)
{
    const struct config *c = x->cfg;
    if (x->comm->rank != 0) return;
    log_note("trimpot %s (%s) on %s, %d rank%s × %d thread%s", TRIMPOT_VERSION, TRIMPOT_BUILD_ID, x->be->describe(), x->comm->size,
             x->comm->size > 1 ? "s" : "", x->s->threads, x->s->threads > 1 ? "s" : "");
    model_lines(x);
    offload_line(x);
    paging_line(x);
    host_line(x);
    if (!x->data) {
        budget_line(x);
        log_note("data     none is read: every micro-batch is taken as %lld rows of %lld tokens, all trained on", (long long)c->batch_size,
                 (long long)x->model.bounds.doc_tokens);
        return;
    }
    data_lines(x);
    log_note("batch    %lld = batch_size %lld × accumulation %lld × %d rank%s; %lld steps per epoch, %lld in all; seed %llu%s",
             (long long)x->step_items, (long long)c->batch_size, (long long)x->trainer.accumulation, x->comm->size,
             x->comm->size > 1 ? "s" : "", (long long)x->steps_per_epoch, (long long)x->total_steps, (unsigned long long)x->seed,
             c->seed_set ? "" : " (drawn)");
    log_note("memory   %s per rank planned, %s of it bound at start (`trimpot plan` lists every row)",
             text_bytes((double)plan_total_bytes(&x->plan)), text_bytes((double)plan_arena_bytes(&x->plan)));
    budget_line(x);
    int64_t leaves = x->trainer.sizes.leaves;
    if (x->comm->links && x->comm->links->fast)
        log_note("promise  NCCL adds (reduce=fast): the bits depend on the ranks, and may from run to run; reduce=tree has them the same");
    else if (x->unordered)
        log_note("promise  attention's gradients are summed in any order: bits may differ from run to run; deterministic=true has them the "
                 "same, on any number of ranks and across resume");
    else if (leaves > 1)
        log_note("promise  the same bits on every number of ranks that divides %lld, with every memory technique on or off, and "
                 "across resume",
                 (long long)leaves);
    else
        log_note(
            "promise  the same bits with every memory technique on or off, and across resume; gradient_accumulation_steps above 1 lets "
            "more ranks share the same step");
}

/* As a Python string: a JSON one is. */
static char *python(const char *text)
{
    json_t *o = json_string(text);
    char *out = o ? json_dumps(o, JSON_ENCODE_ANY) : NULL;
    json_decref(o);
    return out ? out : mem_strdup("…");
}

/* What to type next: what is printed works when it is pasted, whatever the folders are called. */
static void try_it(const struct session *x, const char *model, const char *adapter)
{
    struct buf line = {0};
    buf_text(&line, "trimpot generate --model ");
    buf_shell_path(&line, x->model.plan.full ? model : x->cfg->checkpointer.checkpoint_dir);
    if (!x->model.plan.full) {
        buf_text(&line, " --adapter ");
        buf_shell_path(&line, adapter);
    }
    log_note("try it   %s --prompt \"…\"", line.data);
    buf_release(&line);
}

void header_farewell(const struct session *x, const struct progress *at)
{
    const struct config *c = x->cfg;
    bool only = merge_is_adapter_only(x);
    if (x->comm->rank != 0) return;
    char *export = mem_printf("%s/%s", c->output_dir, only && !merge_is_declined(x) ? "adapter" : "export");
    char *adapter = only ? mem_strdup(export) : mem_printf("%s/adapter", c->output_dir), *quoted = python(export);
    log_note("done     %lld steps, %lld skipped", (long long)at->step, (long long)at->skipped);
    if (at->skipped_in_a_row)
        log_warn("the last %lld steps were skipped: what is exported may have diverged; lower optimizer.lr, or look at their rows",
                 (long long)at->skipped_in_a_row);
    log_note(only ? "export   %s is a PEFT adapter: PeftModel.from_pretrained(base, %s)"
                  : "export   %s is a Hugging Face model: AutoModelForCausalLM.from_pretrained(%s)",
             export, quoted);
    try_it(x, export, adapter);
    free(export);
    free(adapter);
    free(quoted);
}
