#include "worker/session.h"

#include <fcntl.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "collectives/transport.h"
#include "collectives/watch.h"
#include "kernels/base/log.h"
#include "kernels/record.h"
#include "worker/adapter.h"
#include "worker/export.h"
#include "worker/merge.h"
#include "worker/start.h"

/* ---- streams ------------------------------------------------------------------------------------------------------------ */

/* What crosses ranks has a stream of its own where something can run meanwhile: not where tensors are the host's memory, whose ops are
 * over when their call returns, and not where the reduction of a gradient stands between it and its update. */
static bool crosses_apart(const struct session *x)
{
    return x->use == SESSION_TRAIN && x->comm->size > 1 && x->be->tensors_in == MEM_DEVICE && !grad_steps_at_once(x->cfg);
}

static status open_streams(struct session *x)
{
    int threads = omp_get_max_threads();
    TRY(x->be->dev.stream_open(&x->s, threads));
    TRY(x->be->dev.stream_open(&x->copy_in, 1));
    x->s->name = "compute";
    x->copy_in->name = "copy in";
    x->across = x->s;
    return ST_OK;
}

static status open_across(struct session *x)
{
    if (!crosses_apart(x)) return ST_OK;
    TRY(x->be->dev.stream_open(&x->across, omp_get_max_threads()));
    x->across->name = "communication";
    return ST_OK;
}

/* ---- what the configuration asks for ---------------------------------------------------------------------------------- */

static status choose_backend(struct session *x, const struct gpu *planned)
{
    const struct config *c = x->cfg;
    static const char *const plugin[] = {[DEVICE_CUDA] = "cuda", [DEVICE_EMU] = "emu", [DEVICE_CPU] = NULL};
    const struct backend_place place = {x->comm->local_rank, x->comm->local_size};
    enum device_kind kind = c->device != DEVICE_AUTO ? c->device : backend_has_gpu() ? DEVICE_CUDA : DEVICE_CPU;
    x->be = backend_host;
    if (planned)
        TRY(gpu_backend(planned, &x->be));
    else if (plugin[kind])
        TRY(backend_load(plugin[kind], &place, &x->be));
    if (x->use == SESSION_TRAIN && x->be->dev.event_elapsed) TRY(profile_open(&x->profile, c, x->comm->rank, &x->be));
    TRY(open_streams(x));
    TRY(batcher_init(&x->batcher, x->s, x->copy_in));
    return ST_OK;
}

/* ST_DEVICE on every rank, naming two of them, when they have one GPU between them. Every rank looks, also where it has no such
 * device: the others wait for what it has. */
static status check_devices(const struct session *x)
{
    struct device_of {
        char host[64], id[64];
    } mine = {0}, *all = mem_alloc((size_t)x->comm->size * sizeof *all);
    status st;
    gethostname(mine.host, sizeof mine.host - 1);
    if (x->be->identity) snprintf(mine.id, sizeof mine.id, "%s", x->be->identity());
    TRY_DONE(x->comm->fn->all_gather(x->comm, &mine, all, sizeof mine));
    for (int b = 1; b < x->comm->size; b++)
        for (int a = 0; a < b; a++)
            if (*all[a].id && !strcmp(all[a].id, all[b].id))
                FAIL_DONE(
                    ST_DEVICE,
                    "ranks %d and %d have the same GPU (%s of host %s): start at most one rank per GPU, and let every rank see all GPUs "
                    "of its host, or another one each (CUDA_VISIBLE_DEVICES)",
                    a, b, all[a].id, all[a].host);
done:
    free(all);
    return st;
}

/* The GPUs of all ranks, once every rank has its own: those of a plan for another machine are not here. */
static status join_devices(const struct session *x, status chosen, bool planned)
{
    if (x->use != SESSION_TRAIN || x->comm->size == 1) return chosen;
    TRY(comm_agree(x->comm, chosen));
    TRY(check_devices(x));
    bool fast = x->cfg->reduce == REDUCE_FAST;
    if (!planned) return transport_link(x->comm, x->be, fast);
    transport_imagine(x->comm, fast);
    return ST_OK;
}

status session_tokenizer(const struct config *c, const char *model_type, int64_t now, struct tokenizer **tok, struct chat_format *format)
{
    struct tokenizer_hint hint = {.merges_file = c->tokenizer.merges_file, .special_tokens_path = c->tokenizer.special_tokens_path};
    const char *component = c->tokenizer.component;
    const char *path = c->tokenizer.path ? c->tokenizer.path : c->checkpointer.checkpoint_dir;
    if (component) {
        const char *dot = strrchr(component, '.');
        hint.family = dot ? dot + 1 : component;
    } else
        hint.model_type = model_type;
    TRY(tokenizer_open(path, &hint, tok));
    const char *family = c->tokenizer.family ? c->tokenizer.family : chat_family_told(*tok);
    return chat_format_open(c, *tok, path, family, now, format);
}

status session_check_ids(const struct session *x, const int32_t *ids, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < x->shape.vocab) continue;
        const char *piece = tokenizer_piece(x->tok, ids[i]);
        FAIL(ST_SHAPE,
             "a row uses token %d ('%s'), but the model's vocab_size is %lld; take it out of the rows and the chat template, "
             "or use the tokenizer of this model",
             ids[i], piece ? piece : "", (long long)x->shape.vocab);
    }
    return ST_OK;
}

static status check_data(const struct session *x, const struct dataset *d)
{
    int64_t longest = dataset_longest_document(d), most = family_longest(&x->shape);
    for (int64_t i = 0; i < dataset_items(d); i++) {
        const struct document *docs;
        int64_t n = dataset_item(d, i, &docs);
        for (int64_t k = 0; k < n; k++) TRY(session_check_ids(x, docs[k].ids, docs[k].n));
    }
    if (most > 0 && longest > most && x->comm->rank == 0)
        log_warn("the longest row has %lld tokens, more than the %lld positions the model was made for (max_position_embeddings); "
                 "tokenizer.max_seq_len=%lld cuts it",
                 (long long)longest, (long long)most, (long long)most);
    return ST_OK;
}

static status open_data(struct session *x)
{
    const struct config *c = x->cfg;
    if (!c->n_dataset) return ST_OK;
    watch_at(WATCH_DATA, 0);
    TRY(dataset_open(c, c->dataset, c->n_dataset, &x->format, &x->data));
    TRY(check_data(x, x->data));
    if (x->use != SESSION_TRAIN) return ST_OK;
    if (!c->has_val) return isnan(c->val_fraction) ? ST_OK : dataset_split(x->data, c->val_fraction, &x->val);
    TRY(dataset_open(c, &c->dataset_val, 1, &x->format, &x->val));
    return check_data(x, x->val);
}

static struct model_plan plan_model(const struct session *x, const struct batch_bounds *bounds)
{
    const struct config *c = x->cfg;
    struct model_plan p = {.full = c->recipe == RECIPE_FULL && x->use == SESSION_TRAIN,
                           .frozen = param_policy_of(c, &x->bnb),
                           .acts = act_policy_of(c),
                           .head_rows = c->head_chunk_rows > 0 ? c->head_chunk_rows : x->be->head_rows};
    adapter_plan(x, &p);
    if (x->use != SESSION_TRAIN) p.acts.offload = false;
    if (x->use == SESSION_FORWARD) p.acts.rung = ACT_RUNG_FORWARD;
    if (p.head_rows > bounds->supervised) p.head_rows = bounds->supervised > 0 ? bounds->supervised : 1;
    return p;
}

/* ---- the step's arithmetic: M, V, items, steps ------------------------------------------------------------------------- */

static status divide_step(struct session *x, int64_t resumed, struct trainer_sizes *sizes)
{
    const struct config *c = x->cfg;
    TRY(grad_divide(c, x->comm->size, resumed, &sizes->micro_batches, &sizes->leaves));
    x->step_items = c->batch_size * sizes->micro_batches;
    int64_t items = x->data ? dataset_items(x->data) : 0;
    x->steps_per_epoch = (items + x->step_items - 1) / x->step_items;
    if (c->max_steps_per_epoch > 0 && c->max_steps_per_epoch < x->steps_per_epoch) x->steps_per_epoch = c->max_steps_per_epoch;
    x->total_steps = c->epochs * x->steps_per_epoch;
    return ST_OK;
}

status session_seed(struct session *x, const uint64_t *resumed)
{
    const struct config *c = x->cfg;
    uint64_t seed = resumed ? *resumed : (uint64_t)c->seed;
    if (!resumed && !c->seed_set) {
        int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
        uint32_t drawn = 0;
        if (fd < 0 || read(fd, &drawn, sizeof drawn) != sizeof drawn) drawn = (uint32_t)(clock_s() * 1e6);
        if (fd >= 0) close(fd);
        seed = drawn;
        TRY(x->comm->fn->bcast(x->comm, &seed, sizeof seed, 0));
    }
    x->seed = x->trainer.optim.seed = seed;
    return ST_OK;
}

/* ---- layout: run by session_open to measure, by session_bind to bind ------------------------------------------------------ */

/* For what no step uses. */
static void *between_steps(struct session *x, size_t bytes, const char *name)
{
    void *data = NULL;
    if (!bytes) return NULL;
    return model_spare(&x->model, bytes, &data) ? data : arena_take(&x->plan.arena[PLAN_SCRATCH], bytes, "%s", name);
}

static void layout(struct session *x)
{
    struct arena *a = x->plan.arena;
    model_layout(&x->model, &a[PLAN_FROZEN], &a[PLAN_TRAINED], &a[PLAN_ACTIVATIONS], &a[PLAN_SCRATCH], &a[PLAN_OFFLOADED]);
    batcher_layout(&x->batcher, &x->model.bounds, &a[PLAN_BATCH], &a[PLAN_STAGING]);
    void *raw;
    if (!param_store_lend(&x->model.params, x->stage.raw_bytes, &raw)) raw = between_steps(x, x->stage.raw_bytes, "bytes of files");
    stage_layout(&x->stage, raw, &a[PLAN_STAGING]);
    size_t piece = (size_t)export_piece(&x->model.params), narrow = x->model.act == DT_F32 ? 0 : dtype_bytes(x->model.act);
    x->wide = between_steps(x, piece * 4, "piece of a weight for export");
    x->narrow = narrow ? between_steps(x, piece * narrow, "piece of a weight for export") : x->wide;
    if (x->model.plan.dora)
        x->lengths = between_steps(x, (size_t)export_most_rows(&x->model.params) * 4, "row lengths of a piece for export");
    x->s->workspace = arena_take(&a[PLAN_WORKSPACE], x->s->workspace_bytes, "op workspace");
    x->batch_loss = arena_take(&a[PLAN_BATCH], sizeof *x->batch_loss, "loss of an evaluated batch");
    x->rank_losses = arena_take(&a[PLAN_STAGING], (size_t)x->comm->size * sizeof *x->rank_losses, "losses of evaluated batches");
    if (x->use == SESSION_TRAIN) trainer_layout(&x->trainer, a);
    start_layout(x, &a[PLAN_HOST]);
    if (x->recorder) record_layout(x->recorder, &a[PLAN_HOST]);
    profile_layout(x->profile, &a[PLAN_HOST]);
}

static struct work_bounds work_of(const struct session *x)
{
    const struct model_shape *m = &x->shape;
    const struct batch_bounds *b = &x->model.bounds;
    const struct step *attn = block_attention(x->model.block);
    return (struct work_bounds){.dt = x->model.act,
                                .tokens = b->tokens,
                                .docs = b->docs,
                                .doc_tokens = b->doc_tokens,
                                .window = m->window,
                                .attn_cap = m->attn_cap,
                                .ld_q = block_ld(x->model.block, attn->at.attn.q),
                                .ld_k = block_ld(x->model.block, attn->at.attn.k),
                                .ld_v = block_ld(x->model.block, attn->at.attn.v),
                                .ld_o = block_ld(x->model.block, attn->at.attn.o),
                                .deterministic = x->cfg->deterministic,
                                .attn_workspace = (size_t)x->cfg->attn_workspace,
                                .width = m->width,
                                .ffn = m->ffn,
                                .heads = m->heads,
                                .kv_heads = m->kv_heads,
                                .head_dim = m->head_dim,
                                .vocab = m->vocab,
                                .rank = x->model.lora_rank,
                                .head_rows = x->model.plan.head_rows,
                                .threads = x->s->threads};
}

static status open_training(struct session *x, int64_t micro_batches)
{
    const struct config *c = x->cfg;
    struct trainer_sizes sizes = {.bucket = c->reduce_bucket / 4 / 16 * 16,
                                  .state_dt = optim_state_dtype(c),
                                  .consume = grad_steps_at_once(c)};
    TRY(divide_step(x, micro_batches, &sizes));
    return trainer_init(&x->trainer, c, &x->model, x->comm, x->s, x->across, &sizes);
}

/* What comes again in every step is launched as graphs. Not where tensors step in the backward over several ranks: the reduction of
 * each may use the stream past its backend (NCCL), in the middle of a block. */
static status open_recorder(struct session *x)
{
    const struct config *c = x->cfg;
    if (x->use != SESSION_TRAIN || !c->cuda_graphs || !x->be->dev.graph_begin) return ST_OK;
    if (grad_steps_at_once(c) && x->comm->size > 1) return ST_OK;
    plan_extra(&x->plan, x->be->tensors_in, "library", "graphs of blocks: a guess", (size_t)RECORD_GRAPHS * RECORD_GRAPH_BYTES);
    return record_open(&x->recorder, x->s);
}

/* A model that is a config.json and no more can be planned. */
static bool weights_are_drawn(const struct session *x, bool imagined)
{
    const char *dir = x->cfg->checkpointer.checkpoint_dir;
    return x->cfg->model.init == INIT_RANDOM || (imagined && !st_exists(dir, "model"));
}

/* Whether weights are quantised, the model directory alone says: model.quantize_base asks for what is already. */
static status check_stored(const struct session *x)
{
    const struct config *c = x->cfg;
    const char *dir = c->checkpointer.checkpoint_dir;
    if (!x->bnb.is) return ST_OK;
    if (c->recipe == RECIPE_FULL && x->use == SESSION_TRAIN)
        FAIL(ST_CONFIG_RUNTIME,
             "%s/config.json: quantization_config: the weights are 4-bit codes, which cannot be trained; run lora_finetune, or give the "
             "original, unquantised model to full_finetune",
             dir);
    if (c->model.init == INIT_RANDOM)
        FAIL(ST_CONFIG_RUNTIME,
             "%s/config.json: quantization_config: model.init: random has no weights to read, quantised or not; delete the key from "
             "config.json (model.quantize_base=true quantises what is drawn)",
             dir);
    return ST_OK;
}

/* Paged states: what the plan lets them have on the device. Called when all of them are planned there. */
static status fit_states(struct session *x)
{
    int64_t excess = plan_excess(&x->plan, x->comm->local_size);
    int64_t room = (int64_t)pager_device_bytes(&x->trainer.optim.pager) - excess;
    if (!optim_is_paged(&x->trainer.optim) || excess <= 0) return ST_OK;
    TRY(optim_fit(&x->trainer.optim, room > 0 ? (size_t)room : 0));
    plan_again(&x->plan);
    layout(x);
    return ST_OK;
}

/* Everything that follows from the configuration, the files and the data: numbered, sized, laid out. */
static status measure(struct session *x, const struct batch_bounds *given)
{
    const struct config *cfg = x->cfg;
    const char *dir = cfg->checkpointer.checkpoint_dir;
    bool train = x->use == SESSION_TRAIN;
    TRY(open_across(x));
    struct batch_bounds bounds = given ? *given : batch_bounds_of(x->data, cfg->batch_size);
    if (x->val) bounds = batch_bounds_max(bounds, batch_bounds_of(x->val, cfg->batch_size_val));
    bounds = batch_bounds_filled(bounds, x->be->token_unit);
    struct model_plan plan = plan_model(x, &bounds);
    bool masters = plan.full && optim_has_masters(cfg);
    TRY(model_init(&x->model, x->be, &x->shape, &plan, &bounds, cfg->dtype == CONFIG_BF16 ? DT_BF16 : DT_F32, masters));
    TRY(param_store_match(&x->model.params, &x->files, dir, x->shape.tied || x->shape.untied, weights_are_drawn(x, train && given)));
    if (train && given && x->cfg->model.init != INIT_RANDOM && !x->files.n) param_store_imagine(&x->model.params);
    TRY(adapter_match(x));
    TRY(merge_open(x));
    TRY(start_check(x));
    if (train) TRY(open_training(x, x->micro_batches));
    size_t piece = (size_t)export_piece(&x->model.params) * 4, load = param_load_bytes(&x->model.params);
    TRY(stage_init(&x->stage, x->s, piece > load ? piece : load));
    struct work_bounds work = work_of(x);
    TRY(x->be->prepare(x->s, &work));
    x->unordered = train && x->be->unordered && x->be->unordered(&work);
    plan_init(&x->plan, x->be, plan_budget_of(cfg));
    TRY(open_recorder(x));
    layout(x);
    plan_extra(&x->plan, MEM_HOST, "mapped", "weights used in place from the files", x->model.params.mapped_bytes);
    plan_extra(&x->plan, x->be->tensors_in, "library", x->be->library, x->be->library_bytes(&work));
    plan_extra(&x->plan, MEM_DEVICE, "library", "buffers of NCCL", transport_library_bytes(x->comm));
    if (x->profile) plan_extra(&x->plan, MEM_HOST, "library", "events of the profiler: a guess", profile_library_bytes(x->profile));
    x->plan.held = transport_held_bytes(x->comm);
    if (x->data) plan_extra(&x->plan, MEM_HOST, "data", "tokenised rows", (size_t)dataset_stats(x->data)->tokens * 8);
    return train ? fit_states(x) : ST_OK;
}

/* What measure opened, in any part. */
static void unmeasure(struct session *x)
{
    record_close(x->recorder);
    x->recorder = NULL;
    trainer_release(&x->trainer);
    if (x->model.layers) model_release(&x->model);
    plan_release(&x->plan);
    if (x->s) stage_release(&x->stage);
    if (x->across && x->across != x->s) x->be->dev.stream_close(x->across);
    x->across = x->s;
}

status session_open(struct session *x, const struct config *cfg, struct comm *comm, enum session_use use, const struct session_start *start,
                    const struct batch_bounds *given)
{
    *x = (struct session){.cfg = cfg, .comm = comm, .use = use, .started = start && start->started ? start->started : time(NULL)};
    const char *dir = cfg->checkpointer.checkpoint_dir;
    bool imagined = use == SESSION_TRAIN && given;
    x->micro_batches = start ? start->micro_batches : 0;
    TRY(join_devices(x, choose_backend(x, start ? start->gpu : NULL), start && start->gpu));
    TRY(family_open(dir, &x->hf, &x->shape));
    TRY(family_agrees(dir, &x->shape, cfg->model.family, cfg->checkpointer.model_type));
    TRY(bnb_config_read(dir, &x->bnb));
    TRY(check_stored(x));
    if (use == SESSION_TRAIN && comm->rank == 0) hf_config_warn(dir, &x->hf);
    if (!weights_are_drawn(x, imagined)) TRY(st_open(dir, "model", &x->files));
    family_settle_head(dir, &x->files, &x->shape);
    if (!imagined) TRY(session_tokenizer(cfg, x->hf.model_type, x->started, &x->tok, &x->format));
    TRY(adapter_open(x));
    if (!given) TRY(open_data(x));
    return measure(x, given);
}

status session_replan(struct session *x, const struct config *cfg)
{
    struct batch_bounds told;
    unmeasure(x);
    x->cfg = cfg;
    x->again = true;
    if (!x->data) TRY(batch_bounds_told(cfg, &told));
    TRY(measure(x, x->data ? NULL : &told));
    x->trainer.optim.seed = x->seed;
    return ST_OK;
}

status session_check_budget(const struct session *x) { return plan_check(&x->plan, x->comm->local_size); }

status session_bind(struct session *x)
{
    watch_at(WATCH_LOAD, 0);
    TRY(plan_bind(&x->plan));
    layout(x);
    TRY(profile_ready(x->profile));
    TRY(model_prepare(&x->model, &x->stage));
    TRY(param_store_load(&x->model.params, &x->stage, x->seed));
    TRY(model_start(&x->model, x->s));
    if (x->use == SESSION_TRAIN) TRY(optim_zero(&x->trainer.optim, &x->stage));
    if (x->use == SESSION_TRAIN) TRY(trainer_set_applied(&x->trainer, 0));
    return x->be->dev.sync(x->s, "load");
}

/* After a failure work may be queued still, calls of the host too, and use what is about to be released. What comes of it is told to
 * nobody: the message is that of the failure. */
static void settle(struct session *x)
{
    char *message = mem_strdup(status_message());
    struct stream *const streams[] = {x->copy_in, x->across, x->model.params.decode, x->model.acts.ring.out, x->model.acts.ring.in, x->s};
    optim_settle(&x->trainer.optim);
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        if (streams[i]) (void)x->be->dev.sync(streams[i], "end");
    (void)status_fail(ST_OK, "%s", message);
    free(message);
}

void session_close(struct session *x)
{
    settle(x);
    profile_close(x->profile);
    unmeasure(x);
    batcher_release(&x->batcher);
    if (x->copy_in) x->be->dev.stream_close(x->copy_in);
    if (x->s) x->be->dev.stream_close(x->s);
    profile_release(x->profile);
    if (x->val) dataset_close(x->val);
    if (x->data) dataset_close(x->data);
    chat_format_close(&x->format);
    if (x->tok) tokenizer_close(x->tok);
    st_close(&x->files);
    st_close(&x->adapter);
    st_close(&x->originals);
    peft_config_free(&x->peft);
    bnb_config_free(&x->bnb);
    *x = (struct session){0};
}
