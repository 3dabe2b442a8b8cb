/* train.c — the step, as design.md draws it:
 *
 *   sampler → tokens → embed → blocks → head + loss → backward   per micro-batch, into grad_sink
 *   grad_sink reduces over ranks → clip → optimizer → schedule → metrics → checkpoint?
 *
 * Of each step the host only launches this; its numbers come one step later (worker/trainer.h). */
#include "worker/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "collectives/watch.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "worker/budget.h"
#include "worker/evaluate.h"
#include "worker/export.h"
#include "worker/header.h"
#include "worker/metrics.h"
#include "worker/run_lock.h"
#include "worker/snapshot.h"
#include "worker/train_step.h"

struct run {
    struct session x;
    struct resume resume;
    struct progress at;
    struct steps steps;
    struct metrics metrics;
    struct run_lock *lock; /* the folder is this run's */
    const struct train_hooks *hooks;
    struct choice_made choice; /* of memory_budget … */
    struct config *before;     /* … and of the run that is resumed */
    int64_t tried_at;          /* step of the last attempt to save, -1 none … */
    int64_t saved_at;          /* … and of the last committed checkpoint */
};

/* ---- when ---------------------------------------------------------------------------------------------------------------- */

static bool due_at(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

static bool save_due(const struct run *r)
{
    const struct config *c = r->x.cfg;
    return c->save_every_n_steps > 0 ? due_at(c->save_every_n_steps, r->at.step) : due_at(r->x.steps_per_epoch, r->at.step);
}

/* A failed save costs the interval, not the run: the disk may have room next time. Only another run's folder ends it. */
static status save(struct run *r)
{
    if (r->tried_at == r->at.step) return ST_OK;
    r->tried_at = r->at.step;
    watch_at(WATCH_SAVE, r->at.step);
    status st = snapshot_save(&r->x, &r->at, r->lock); /* the same on every rank */
    if (st == ST_USAGE) return comm_agree(r->x.comm, st);
    if (!st)
        r->saved_at = r->at.step;
    else if (r->x.comm->rank == 0 && !run_lock_lost(r->lock))
        log_warn("%s; training goes on", status_message());
    return ST_OK;
}

/* What this rank has to say to the others: what signals ask; and of rank 0, that the folder is no longer this run's. */
enum { LOST = 1 << 16 };
static unsigned requests(const struct run *r) { return r->hooks->requests() | (run_lock_lost(r->lock) ? LOST : 0u); }

/* ---- the loop ------------------------------------------------------------------------------------------------------------ */

static bool validate_due(const struct run *r, int64_t step) { return r->x.val && due_at(r->x.cfg->run_val_every_n_steps, step); }

/* The oldest step in flight is told, and written down. */
static status tell(struct run *r, unsigned *asked)
{
    struct session *x = &r->x;
    struct step_metrics m;
    TRY(step_collect(x, &r->steps, &r->at, &m, asked));
    if (validate_due(r, m.step)) { /* nothing was launched behind it */
        watch_at(WATCH_EVAL, m.step);
        TRY(evaluate(x, x->val, x->cfg->batch_size_val, &m.val_loss));
    }
    return x->comm->rank == 0 && !run_lock_lost(r->lock) ? metrics_put(&r->metrics, &m) : ST_OK;
}

/* Until at most so many steps are in flight. Whatever is done at a step boundary, and whatever ranks do together outside a step,
 * needs 0: their collectives must not meet those of a step that is queued (worker/trainer.h). */
static status drain(struct run *r, int64_t in_flight, unsigned *asked)
{
    while (trainer_in_flight(&r->x.trainer) > in_flight) TRY(tell(r, asked));
    return ST_OK;
}

static bool boundary_due(const struct run *r)
{
    return r->at.step == r->x.total_steps || save_due(r) || validate_due(r, r->at.step) || step_may_be_last(&r->x, &r->at);
}

/* One step is queued behind the one that runs; what that one came to, and what was asked meanwhile, is known one step late. */
static status loop(struct run *r)
{
    while (r->at.step < r->x.total_steps) {
        unsigned asked = 0;
        TRY(step_launch(&r->x, &r->steps, &r->at, requests(r)));
        TRY(drain(r, 1, &asked));
        if (asked || boundary_due(r)) TRY(drain(r, 0, &asked));
        if (asked & LOST) TRY(comm_agree(r->x.comm, run_lock_check(r->lock)));
        if (save_due(r) || asked) TRY(save(r));
        if (!(asked & TRAIN_STOP) || r->at.step == r->x.total_steps) continue;
        if (r->saved_at != r->at.step)
            FAIL(ST_NOT_SAVED, "stopped on request at step %lld, but its checkpoint could not be saved: %s", (long long)r->at.step,
                 status_message());
        FAIL(ST_STOPPED, "stopped on request at step %lld, checkpoint saved; continue with resume_from_checkpoint=true",
             (long long)r->at.step);
    }
    TRY(profile_finish(r->x.profile));
    return save(r);
}

static status export(struct run *r)
{
    watch_at(WATCH_EXPORT, r->at.step);
    if (r->x.comm->rank != 0) return ST_OK;
    TRY(run_lock_check(r->lock));
    return export_run(&r->x);
}

/* ---- opening --------------------------------------------------------------------------------------------------------------- */

/* An earlier run's checkpoints would mix with this run's: nothing is overwritten. */
static status refuse_leftovers(const struct config *c, struct comm *comm)
{
    struct ckpt_info info;
    bool found = false;
    if (c->resume) return ST_OK;
    char *dir = snapshot_dir(c);
    status st = ckpt_find(comm, dir, &info, &found);
    free(dir);
    if (st || !found) return st;
    st = status_fail(ST_USAGE,
                     "output_dir: %s holds the checkpoints of an earlier run (newest: step %lld); continue it with "
                     "resume_from_checkpoint=true, or choose another output_dir",
                     c->output_dir, (long long)info.step);
    ckpt_info_free(&info);
    return st;
}

static status write_config(const struct session *x)
{
    char *path = mem_printf("%s/config.resolved.yaml", x->cfg->output_dir), *text = config_text(x->cfg);
    status st = file_replace(path, text, strlen(text));
    free(path);
    free(text);
    return st;
}

static status save_skipped(const struct session *x)
{
    char *path = mem_printf("%s/skipped_rows.jsonl", x->cfg->output_dir);
    status st = dataset_save_skipped(x->data, x->val, path);
    free(path);
    return st;
}

/* A chat template may write the date: the ranks of a run, and the run that resumes it, write the same. */
static status agree_on_date(struct comm *comm, struct session_start *start)
{
    start->started = time(NULL);
    return comm->fn->bcast(comm, &start->started, sizeof start->started, 0);
}

/* memory_budget: what the run that is resumed chose is the configuration again; what is chosen then is only what that left open. */
static status as_chosen_before(struct run *r, const struct config **c)
{
    char *saved = plan_has_budget(*c) ? snapshot_config(&r->resume) : NULL;
    status st = saved ? budget_again(*c, saved, &r->before) : ST_OK;
    free(saved);
    if (r->before) *c = r->before;
    return st;
}

static status choose(struct run *r)
{
    struct session *x = &r->x;
    if (!plan_has_budget(x->cfg)) return ST_OK;
    TRY(comm_agree(x->comm, budget_choose(x, NULL, r->resume.found ? BUDGET_SAME_STEP : BUDGET_SMALLER, &r->choice)));
    x->chosen = r->choice.why;
    return ST_OK;
}

static status open_run(struct run *r, const struct config *c, struct comm *comm)
{
    struct session *x = &r->x;
    if (c->single_device && comm->size > 1)
        FAIL(ST_USAGE, "recipe: a _single_device recipe was started on %d ranks; use %s_distributed or %s", comm->size,
             c->recipe == RECIPE_FULL ? "full_finetune" : "lora_finetune", c->recipe == RECIPE_FULL ? "full_finetune" : "lora_finetune");
    TRY(run_lock_take(c->output_dir, comm, r->hooks->requests, &r->lock));
    TRY(refuse_leftovers(c, comm));
    TRY(snapshot_peek(c, comm, &r->resume));
    if (!r->resume.found) TRY(agree_on_date(comm, &r->resume.start));
    TRY(as_chosen_before(r, &c));
    TRY(comm_agree(comm, session_open(x, c, comm, SESSION_TRAIN, &r->resume.start, NULL)));
    TRY(session_seed(x, r->resume.found ? &r->resume.seed : NULL));
    TRY(comm_check_equal(comm, "the tokenised data set", dataset_hash(x->data)));
    TRY(choose(r));
    header_print(x);
    TRY(session_check_budget(x));
    if (comm->rank != 0) return ST_OK;
    TRY(run_lock_check(r->lock));
    return save_skipped(x);
}

static status begin(struct run *r)
{
    struct session *x = &r->x;
    TRY(comm_agree(x->comm, session_bind(x)));
    TRY(snapshot_load(x, &r->resume, &r->at));
    if (r->resume.found) {
        log_note("resumed from %s at step %lld", r->resume.info.dir, (long long)r->at.step);
        r->saved_at = r->tried_at = r->at.step;
    }
    if (x->comm->rank != 0) return ST_OK;
    if (x->cfg->resume && !r->resume.found)
        log_warn("resume_from_checkpoint: no usable checkpoint in %s; starting from the beginning", x->cfg->output_dir);
    TRY(run_lock_check(r->lock));
    TRY(write_config(x));
    TRY(metrics_open(&r->metrics, x->cfg->output_dir, r->at.step, x->cfg->log_every_n_steps));
    r->metrics.echo = r->hooks->json;
    return ST_OK;
}

status train(const struct config *c, struct comm *comm, const struct train_hooks *hooks)
{
    struct run r = {.hooks = hooks, .saved_at = -1, .tried_at = -1};
    status st;
    watch_timeout((double)c->peer_timeout);
    TRY_DONE(comm_agree(comm, open_run(&r, c, comm)));
    TRY_DONE(comm_agree(comm, begin(&r)));
    TRY_DONE(loop(&r));
    if (r.at.step > 0 && !r.at.applied) /* the same on every rank */
        TRY_DONE(comm_agree(comm, status_fail(ST_NONFINITE,
                                              "none of the %lld steps had a finite loss and gradient, so that no weight was "
                                              "changed and nothing is exported; lower the learning rate, or look at the data",
                                              (long long)r.at.step)));
    TRY_DONE(comm_agree(comm, export(&r)));
    header_farewell(&r.x, &r.at);
    if (r.saved_at != r.at.step)
        FAIL_DONE(ST_NOT_SAVED, "training and export are complete, but the final checkpoint could not be saved (see the warnings above)");
done:
    metrics_close(&r.metrics);
    ckpt_info_free(&r.resume.info);
    session_close(&r.x);
    choice_free(&r.choice);
    config_free(r.before);
    run_lock_release(r.lock);
    return st;
}
