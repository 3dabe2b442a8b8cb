/* session.h — one rank's run, opened: files, data, model, memory plan.
 *
 *   session_open    reads headers and data, numbers the parameters, measures every buffer; allocates none of them
 *   session_bind    allocates what was measured and loads the weights
 *
 * `trimpot plan` stops between the two: it prints what the run would bind, from the same code. */
#ifndef TRIMPOT_SESSION_H
#define TRIMPOT_SESSION_H

#include "collectives/comm.h"
#include "configs/config.h"
#include "kernels/gpu.h"
#include "worker/batch.h"
#include "worker/data/chat_format.h"
#include "worker/memory/plan.h"
#include "worker/profile.h"
#include "worker/trainer.h"

enum session_use { SESSION_TRAIN, SESSION_FORWARD };

/* What adapters start from, in host memory (start.h). */
struct start {
    double *room;
    float *pair, *kept;
    void *weight;
};

struct session {
    const struct config *cfg;
    struct comm *comm;
    enum session_use use;
    const struct backend *be;
    bool unordered;             /* its bits may differ from run to run, in what this run asks of it */
    struct stream *s, *copy_in; /* compute; micro-batches on their way to it */
    struct stream *across;      /* gradients on their way over the ranks; compute's own where nothing could run meanwhile */
    struct profile *profile;    /* what is traced; NULL: nothing is */
    struct recorder *recorder;  /* of what blocks queue on compute (kernels/record.h); NULL: none */

    struct hf_config hf;
    struct bnb_config bnb; /* the model directory's weights are quantised */
    struct model_shape shape;
    struct st_set files;
    struct peft_config peft; /* of a loaded adapter; else the patterns, and what is saved whole, of this run's */
    struct st_set adapter;
    struct st_set originals; /* what an adapter is merged into, where that is another directory (worker/merge.h) */
    bool has_adapter;

    struct tokenizer *tok;
    struct chat_format format; /* how chats become text */
    struct dataset *data, *val;

    struct model model;
    struct trainer trainer; /* SESSION_TRAIN */
    struct batcher batcher;
    struct stage stage;  /* what crosses to and from tensor memory, micro-batches aside */
    double *batch_loss;  /* f64 [1] where tensors live: of a batch that is evaluated … */
    double *rank_losses; /* pinned [ranks]: … and what the ranks have of one round */
    struct plan plan;
    void *wide, *narrow; /* tensor memory: a piece of a weight in f32, and as it leaves (export.c) … */
    void *lengths;       /* … and of its rows, where adapters have magnitudes */

    const char *chosen; /* what memory_budget came to, for the header; NULL: nothing was asked for */
    struct start start;

    uint64_t seed;
    bool again;            /* measured a second time: what was noted is not noted again */
    int64_t micro_batches; /* M of the checkpoint that is continued; 0: as configured */
    int64_t started;       /* seconds since 1970: the date that templates say */
    int64_t step_items;    /* batch_size · M */
    int64_t steps_per_epoch, total_steps;
};

/* Not collective: one rank's file may be missing, so the ranks agree on the result before anything else.
 * start: what a resumed checkpoint rules, or the ranks agreed on; NULL: as configured, now.
 * given: the sizes, instead of the data, which is then not opened: to generate, and to plan from a config.json alone, where neither
 * weights nor a tokenizer need be there either. NULL: the data says them. */
struct session_start {
    int64_t micro_batches; /* M; 0 = as configured */
    int64_t started;       /* when the run began, seconds since 1970; 0 = now */
    const struct gpu *gpu; /* plan for this one, which is not here; NULL: what is configured and here */
};
status session_open(struct session *x, const struct config *cfg, struct comm *comm, enum session_use use, const struct session_start *start,
                    const struct batch_bounds *given);
/* The same files, data and device, measured again as another configuration plans them: one that differs from the one it was opened
 * with in what is trained, or in keys of memory, batch or optimizer. Of sessions that train, before session_bind. cfg must outlive x. */
status session_replan(struct session *x, const struct config *cfg);
/* The run's seed: of the resumed checkpoint, as configured, or drawn by rank 0. Collective; before session_bind. */
status session_seed(struct session *x, const uint64_t *resumed);
/* ST_OOM when the plan exceeds memory_budget, or what this rank may have of the machine. */
status session_check_budget(const struct session *x);
status session_bind(struct session *x);
void session_close(struct session *x);

/* The tokenizer of a configuration and the format of its chats, as a session has them: for verbs that need no model.
 * model_type of config.json may be NULL. now: see chat_format_open. Close both. */
status session_tokenizer(const struct config *c, const char *model_type, int64_t now, struct tokenizer **tok, struct chat_format *format);

/* ST_SHAPE naming the token when an id has no row in the model's embedding. */
status session_check_ids(const struct session *x, const int32_t *ids, int64_t n);

#endif
