#include "worker/snapshot.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "worker/start.h"

char *snapshot_dir(const struct config *c) { return mem_printf("%s/checkpoints", c->output_dir); }

/* ---- the state: flat classes and their tensor table ------------------------------------------------------------------- */

/* A vector in tensor memory, or the host's, and the way there. */
struct flat {
    struct stage *stage;
    char *data;
    size_t element;
};

static status read_flat(void *owner, int64_t at, int64_t n, void *to_host)
{
    const struct flat *f = owner;
    return stage_out(f->stage, to_host, f->data + (size_t)at * f->element, (size_t)n * f->element);
}

static status write_flat(void *owner, int64_t at, int64_t n, const void *from_host)
{
    const struct flat *f = owner;
    return stage_in(f->stage, f->data + (size_t)at * f->element, from_host, (size_t)n * f->element);
}

/* A vector of optimizer states, wherever they are. */
struct states {
    struct session *x;
    int vector;
};

static status read_states(void *owner, int64_t at, int64_t n, void *to_host)
{
    const struct states *f = owner;
    return optim_read(&f->x->trainer.optim, &f->x->stage, f->vector, at, n, to_host);
}

static status write_states(void *owner, int64_t at, int64_t n, const void *from_host)
{
    const struct states *f = owner;
    return optim_write(&f->x->trainer.optim, &f->x->stage, f->vector, at, n, from_host);
}

static status read_host(void *owner, int64_t at, int64_t n, void *to_host)
{
    const struct flat *f = owner;
    memcpy(to_host, f->data + (size_t)at * f->element, (size_t)n * f->element);
    return ST_OK;
}

static status write_host(void *owner, int64_t at, int64_t n, const void *from_host)
{
    const struct flat *f = owner;
    memcpy(f->data + (size_t)at * f->element, from_host, (size_t)n * f->element);
    return ST_OK;
}

/* Stays where it is while `s` is in use: the classes point into it. */
struct state {
    struct ckpt_class classes[CKPT_MAX_CLASSES];
    struct flat flats[CKPT_MAX_CLASSES];
    struct states states[STATE_VECTORS];
    struct ckpt_tensor *tensors;
    struct ckpt_state s;
};

static struct ckpt_class *add_flat(struct session *x, struct state *st, const char *name, dtype dt, void *data)
{
    if (!data) return NULL;
    int k = st->s.n_classes++;
    st->flats[k] = (struct flat){&x->stage, data, dtype_bytes(dt)};
    st->classes[k] = (struct ckpt_class){.name = name,
                                         .dt = dt,
                                         .count = x->model.params.flat_count,
                                         .per = 1,
                                         .owner = &st->flats[k],
                                         .read = read_flat,
                                         .write = write_flat};
    return &st->classes[k];
}

static void add_states(struct session *x, struct state *st, int vector)
{
    const struct state_vector *v = &x->trainer.optim.vector[vector];
    if (!v->count) return;
    st->states[vector] = (struct states){x, vector};
    st->classes[st->s.n_classes++] = (struct ckpt_class){.name = v->name,
                                                         .dt = v->dt,
                                                         .count = v->count,
                                                         .per = v->per,
                                                         .owner = &st->states[vector],
                                                         .read = read_states,
                                                         .write = write_states};
}

static void state_of(struct session *x, struct state *st)
{
    const struct param_store *ps = &x->model.params;
    *st = (struct state){0};
    add_flat(x, st, "parameters", ps->trained_dt, ps->flat);
    add_flat(x, st, "master", DT_F32, ps->flat_master);
    for (int k = 0; k < STATE_VECTORS; k++) add_states(x, st, k);
    if (start_kept(x)) {
        struct ckpt_class *kept = add_flat(x, st, "start", DT_F32, start_kept(x)); /* the host's */
        kept->read = read_host;
        kept->write = write_host;
    }
    st->tensors = mem_alloc((size_t)(ps->n + 1) * sizeof *st->tensors);
    for (int i = 0; i < ps->n; i++) {
        const struct param *p = &ps->p[i];
        if (!param_is_trained(p)) continue;
        st->tensors[st->s.n_tensors++] =
            (struct ckpt_tensor){.name = p->name, .rank = p->rank, .dim = {p->dim[0], p->dim[1]}, .offset = p->flat};
    }
    st->s.classes = st->classes;
    st->s.tensors = st->tensors;
}

/* Frozen weights are not in the checkpoint: names, shapes and first bytes of each tell whether the base is the same. */
static void base_hash(const struct session *x, char text[24])
{
    enum { SAMPLE_BYTES = 256 };
    uint64_t h = 0;
    for (int i = 0; i < x->model.params.n; i++) {
        const struct param *p = &x->model.params.p[i];
        const struct st_entry *e = p->source;
        if (param_is_trained(p) || !e) continue;
        h = XXH3_64bits_withSeed(p->name, strlen(p->name), h);
        h = XXH3_64bits_withSeed(e->dim, (size_t)e->rank * sizeof *e->dim, h);
        h = XXH3_64bits_withSeed(e->data, e->bytes < SAMPLE_BYTES ? e->bytes : SAMPLE_BYTES, h);
    }
    snprintf(text, 24, "%016" PRIx64, h);
}

static char *meta_text(const struct session *x, const struct progress *at)
{
    char hash[24], base[24], seed[24], states[64];
    char *config = config_text(x->cfg);
    snprintf(hash, sizeof hash, "%016" PRIx64, dataset_hash(x->data));
    snprintf(seed, sizeof seed, "%" PRIu64, x->seed);
    base_hash(x, base);
    optim_format(&x->trainer.optim, states);
    json_t *o = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:s, s:s}", "seed", seed, "step",
                          (json_int_t)at->step, "applied", (json_int_t)at->applied, "skipped", (json_int_t)at->skipped, "skipped_in_a_row",
                          (json_int_t)at->skipped_in_a_row, "micro_batches", (json_int_t)x->trainer.sizes.micro_batches, "leaves",
                          (json_int_t)x->trainer.sizes.leaves, "batch_size", (json_int_t)x->cfg->batch_size, "steps_per_epoch",
                          (json_int_t)x->steps_per_epoch, "started", (json_int_t)x->started, "dataset", hash, "base", base, "states",
                          states, "build", TRIMPOT_VERSION, "config", config);
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    free(config);
    return text ? text : mem_strdup("{}");
}

static status still_ours(void *lock) { return run_lock_check(lock); }

/* What cannot be removed is no loss: the checkpoint is committed. Only another run's folder is not this one's to tidy. */
static status tidy(struct session *x, const char *dir, const struct ckpt_guard *guard)
{
    status st = ckpt_retain(x->comm, dir, x->cfg->checkpointer.keep_last_n, guard);
    if (st == ST_USAGE) return st;
    if (st && x->comm->rank == 0) log_warn("%s; the checkpoint is saved, older ones stay", status_message());
    return ST_OK;
}

status snapshot_save(struct session *x, const struct progress *at, struct run_lock *lock)
{
    struct state st;
    state_of(x, &st);
    char *meta = meta_text(x, at), *dir = snapshot_dir(x->cfg);
    st.s.step = at->step;
    st.s.meta_json = meta;
    st.s.writer = run_lock_nonce(lock);
    st.s.guard = (struct ckpt_guard){still_ours, lock};
    status result = x->be->dev.sync(x->s, "checkpoint");
    if (!result) result = ckpt_save(x->comm, dir, &st.s);
    if (!result) result = tidy(x, dir, &st.s.guard);
    free(meta);
    free(dir);
    free(st.tensors);
    return result;
}

/* ---- back ---------------------------------------------------------------------------------------------------------------- */

static int64_t integer(const json_t *o, const char *key) { return json_integer_value(json_object_get(o, key)); }

/* Starting over would look like a resume that worked: only a directory that never had a checkpoint does that. */
static status none_left(const struct config *c, const struct ckpt_info *info)
{
    if (!info->rejected) return ST_OK;
    FAIL(ST_CORRUPT,
         "%s/checkpoints: none of its %d checkpoints verifies (they are set aside as .bad); start over with "
         "resume_from_checkpoint=false",
         c->output_dir, info->rejected);
}

status snapshot_peek(const struct config *c, struct comm *comm, struct resume *r)
{
    *r = (struct resume){0};
    if (!c->resume) return ST_OK;
    char *dir = snapshot_dir(c);
    status st = ckpt_find(comm, dir, &r->info, &r->found);
    free(dir);
    TRY(st);
    if (!r->found) return none_left(c, &r->info);
    json_t *o = json_loads(r->info.meta_json, 0, NULL);
    const char *seed = json_string_value(json_object_get(o, "seed"));
    r->start = (struct session_start){.micro_batches = integer(o, "micro_batches"), .started = integer(o, "started")};
    r->seed = seed ? strtoull(seed, NULL, 10) : 0;
    int64_t batch = integer(o, "batch_size");
    json_decref(o);
    if (batch != c->batch_size && (!plan_has_budget(c) || config_wrote(c, "batch_size"))) /* else it was chosen, and is again */
        FAIL(ST_CONFIG_RUNTIME, "%s was made with batch_size %lld, this run has %lld; the step would not be the same: set batch_size=%lld",
             r->info.dir, (long long)batch, (long long)c->batch_size, (long long)batch);
    int64_t m = r->start.micro_batches;
    if (m != grad_micro_batches(c, comm->size) && m % comm->size == 0)
        log_note("resume: the checkpoint's step has %lld micro-batches: gradient_accumulation_steps is %lld on %d ranks", (long long)m,
                 (long long)(m / comm->size), comm->size);
    return ST_OK;
}

char *snapshot_config(const struct resume *r)
{
    json_t *o = r->found ? json_loads(r->info.meta_json, 0, NULL) : NULL;
    const char *config = json_string_value(json_object_get(o, "config"));
    char *text = config ? mem_strdup(config) : NULL;
    json_decref(o);
    return text;
}

/* What differs from the run that saved: another base is refused, other changes are told once. */
static status compare(const struct session *x, const struct ckpt_info *info, const json_t *saved)
{
    const char *dataset = json_string_value(json_object_get(saved, "dataset"));
    const char *base = json_string_value(json_object_get(saved, "base"));
    const char *config = json_string_value(json_object_get(saved, "config"));
    char now[24];
    bool changes = false;
    base_hash(x, now);
    if (base && strcmp(base, now))
        FAIL(ST_SHAPE,
             "%s was trained on another base model than %s; set checkpointer.checkpoint_dir to that one, or choose another "
             "output_dir",
             info->dir, x->cfg->checkpointer.checkpoint_dir);
    if (x->comm->rank != 0) return ST_OK;
    snprintf(now, sizeof now, "%016" PRIx64, dataset_hash(x->data));
    if (dataset && strcmp(dataset, now)) log_warn("resume: the data set is not the one of %s; bitwise continuity ends here", info->dir);
    char *diff = config ? config_diff(config, x->cfg, &changes) : NULL;
    if (diff && *diff) diff[strlen(diff) - 1] = 0; /* the last newline */
    if (diff && changes)
        log_warn("resume: the configuration changed; bitwise continuity ends here:\n%s", diff);
    else if (diff)
        log_note("resume: the configuration changed:\n%s", diff);
    free(diff);
    if (integer(saved, "leaves") != x->trainer.sizes.leaves)
        log_warn("resume: another reduction tree (virtual_ranks %lld, was %lld); bitwise continuity ends here",
                 (long long)x->trainer.sizes.leaves, (long long)integer(saved, "leaves"));
    return ST_OK;
}

static status restore(struct session *x, const struct ckpt_info *info, struct progress *at)
{
    json_t *o = json_loads(info->meta_json, 0, NULL);
    status st;
    TRY_DONE(compare(x, info, o));
    *at = (struct progress){.step = integer(o, "step"),
                            .applied = integer(o, "applied"),
                            .skipped = integer(o, "skipped"),
                            .skipped_in_a_row = integer(o, "skipped_in_a_row")};
    TRY_DONE(start_settle(x, true));
    TRY_DONE(trainer_set_applied(&x->trainer, at->applied));
    st = param_store_refresh_all(&x->model.params, x->s);
done:
    json_decref(o);
    return st;
}

/* States of another format are refused by name, before classes that differ are listed. */
static status same_states(const struct session *x, const struct ckpt_info *info)
{
    char now[64];
    json_t *o = json_loads(info->meta_json, 0, NULL);
    const char *then = json_string_value(json_object_get(o, "states"));
    status st = ST_OK;
    optim_format(&x->trainer.optim, now);
    if (then && strcmp(then, now))
        st = status_fail(ST_SHAPE,
                         "%s has optimizer states in %s, this run's are %s: go on with the optimizer that it was saved with (optimizer, "
                         "state_dtype), or start anew from what `trimpot export` makes of it",
                         info->dir, then, now);
    json_decref(o);
    return st;
}

/* What does not fit is told with the keys that made it so. */
static status with_changes(const struct session *x, const struct ckpt_info *info, status st)
{
    bool changes;
    if (st != ST_SHAPE) return st;
    json_t *o = json_loads(info->meta_json, 0, NULL);
    const char *config = json_string_value(json_object_get(o, "config"));
    char *message = mem_strdup(status_message()), *diff = config ? config_diff(config, x->cfg, &changes) : NULL;
    for (char *at = diff; at && (at = strchr(at, '\n'));) *at = at[1] ? ';' : 0;
    st = diff && *diff ? status_fail(st, "%s\nchanged since it was saved: %s", message, diff) : status_fail(st, "%s", message);
    free(message);
    free(diff);
    json_decref(o);
    return st;
}

status snapshot_load(struct session *x, struct resume *r, struct progress *at)
{
    char *dir = snapshot_dir(x->cfg);
    struct state into;
    state_of(x, &into);
    status st = ST_OK;
    while (r->found) {
        TRY_DONE(comm_agree(x->comm, with_changes(x, &r->info, same_states(x, &r->info))));
        st = comm_agree(x->comm, with_changes(x, &r->info, ckpt_load(x->comm, &r->info, &into.s)));
        if (st != ST_CORRUPT) break;
        log_warn("%s", status_message());
        TRY_DONE(ckpt_reject(x->comm, &r->info));
        int rejected = r->info.rejected + 1;
        ckpt_info_free(&r->info);
        TRY_DONE(ckpt_find(x->comm, dir, &r->info, &r->found));
        r->info.rejected += rejected;
    }
    TRY_DONE(st);
    if (!r->found && x->cfg->resume) TRY_DONE(none_left(x->cfg, &r->info));
    st = r->found ? restore(x, &r->info, at) : start_settle(x, false);
done:
    free(dir);
    free(into.tensors);
    return st;
}
