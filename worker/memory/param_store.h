/* param_store.h — where weights live: mapped from the file, copied, quantised to NF4, or trained. (param_store.c; param_layers.c: what
 * of frozen weights comes and goes; param_load.c)
 *
 * The model adds parameters by name and gets numbers; the block borrows them with param_acquire … param_done and never
 * knows how they are kept. Trained parameters have a place in the flat index, the one numbering that gradients,
 * optimizer states and checkpoints share:
 *
 *   |head……|norm|down L-1|up L-1|…………|q 0|norm1 0|embed……|      reverse execution order; tensors of ≥ 65,536 elements
 *   0      each starts a multiple of 65,536 or 256     flat_count   start on pages (multiples) of 65,536; smaller ones are
 *                                                                   packed, 256-aligned, and lie in one page, whole
 *
 * Pages are what ranks own (collectives/own.h): no small tensor is ever split between two.
 */
#ifndef TRIMPOT_PARAM_STORE_H
#define TRIMPOT_PARAM_STORE_H

#include "checkpoints/bnb.h"
#include "checkpoints/hf.h"
#include "configs/config.h"
#include "kernels/backend.h"
#include "kernels/base/arena.h"
#include "worker/memory/phase.h"
#include "worker/memory/stage.h"

enum param_kind {
    PARAM_FROZEN,  /* read only: mapped when the file's dtype is the model's, else a converted copy */
    PARAM_NF4,     /* read only, quantised while loading or before, dequantised per use into scratch, or a layer ahead (`ahead`) */
    PARAM_TRAINED, /* in the flat index */
    PARAM_ADAPTER, /* trained in f32; acquire gives a working copy, scaled and in the activations' dtype */
    PARAM_SAVED,   /* a weight of the base, trained and saved like an adapter (modules_to_save) */
};

enum param_init {
    PARAM_INIT_NORMAL,
    PARAM_INIT_UNIFORM,
    PARAM_INIT_ZERO,
    PARAM_INIT_ONE,
    PARAM_INIT_LENGTH, /* zero, until the model says the lengths of a weight's rows (model_start) */
};

struct param {
    char name[128]; /* as in the Hugging Face (or PEFT) file */
    enum param_kind kind;
    int rank;
    int64_t dim[2], count;
    int64_t layer;          /* that it is of, -1 = of none */
    int uses;               /* gradient contributions per micro-batch: 2 for tied embeddings */
    bool held;              /* its gradient stays open while those of others come and go: tied embeddings from the head to
                              * the first layer, the norm and adapters of the head from chunk to chunk, what a block walks tile
                              * by tile from tile to tile */
    int kept;               /* NF4, not ahead: 1 + the place where it stays dequantised until another takes it (param_keep); 0 none */
    float scale;            /* adapters: factor of the working copy */
    float lr_mult, wd_mult; /* trained: of the learning rate and of the weight decay */
    enum param_init init;
    float init_bound;
    unsigned written;              /* adapters: how often since it was added (refreshed or stepped) */
    int next;                      /* trained: of the same row (param_store_index), the one whose place follows; -1 = none */
    int64_t flat;                  /* trained: first element in the flat index */
    int64_t partial;               /* trained: first of its norm partials */
    const struct st_entry *source; /* NULL: initialised, not loaded */
    bool imagined;                 /* … but a plan's, which takes it for one in bf16 files */
    bool mapped;                   /* frozen: `value` points into the file */
    bool rewritten;                /* frozen: what is in memory is no longer what is in the file */
    tensor value;                  /* trained: the parameter; frozen: the weight; NF4 ahead: its place in the layer's buffer */
    tensor work;                   /* adapters: the working copy */
    tensor master;                 /* f32 master of a bf16 trained parameter; data NULL when none */
    struct nf4_args nf4;
    bool stored, once;               /* NF4: the directory has it quantised (param_stored.c); its scales are f32, not quantised again */
    struct bnb_tensor packed;        /* stored: where its parts are */
    const struct st_entry *original; /* what an adapter is merged into instead (worker/merge.h), NULL = `source` */
    int64_t beside, under;           /* frozen or NF4, joined: columns and rows of its memory that are its adapter's (param_join) */
    int joins;                       /* adapters: the weight beside (B) or under (A) which a second working copy lies, -1 = none … */
    int64_t column;                  /* … of B, from this column of `beside` on */
};

/* How frozen weights are held. */
struct param_policy {
    bool nf4;                        /* the linears of blocks in 4 bits … */
    bool in_turn;                    /* … and dequantised one by one, also where a device could do it ahead */
    const struct bnb_config *stored; /* the directory has them so; NULL: all are quantised while they are loaded */
};
/* What a configuration asks for, of a directory that says this. */
struct param_policy param_policy_of(const struct config *c, const struct bnb_config *directory);

/* Room for one layer's NF4 weights as products read them: even layers have one, odd ones the other, so that a layer's weights always
 * lie in the same place. */
struct param_layer {
    void *data;
    int64_t layer; /* whose weights are there, or on their way; -1 none */
    bool current;  /* and its adapters' parts, as the last update left them */
    bool filling;  /* since the compute stream waited last */
    struct event *filled, *left;
};
enum { PARAM_LAYERS = 2, PARAM_KEPT = 4 };

struct param_store {
    const struct backend *be;
    const struct bnb_config *bnb; /* what the directory says of weights that it has quantised; NULL: none are */
    dtype act;                    /* of activations and frozen weights */
    dtype trained_dt;             /* of PARAM_TRAINED */
    bool masters;
    struct param *p;
    int n, cap;
    int64_t flat_count;
    size_t mapped_bytes;      /* of weight pages used in place: a row of the plan, but not allocated */
    void *flat, *flat_master; /* the trained vector and its master, flat_count elements each */
    void *flat_work;          /* working copies of adapters; NULL when they would equal them */
    struct seg *seg_table;    /* of `segs`, the host's */
    struct segs segs;         /* the trained tensors, ascending in the flat index */
    int64_t n_partials;       /* one per (trained tensor, page), by parameter number */
    struct stage *replaced;   /* NF4 weights are `source` in full, through here (param_store_replace); NULL: they are codes */
    tensor dequantised;       /* scratch: one linear at a time … */
    struct param_kept {
        void *data;
        int64_t count;  /* elements */
        int id;         /* that is there, -1 none */
    } kept[PARAM_KEPT]; /* … but for those that are read again and again before the next is */
    tensor wide;        /* scratch of loading alone: one that is quantised from neither f32 nor bf16 */
    int borrowed;       /* parameter now in `dequantised`, -1 none */

    /* The policy for NF4, said before block_build asks: layers of them are dequantised ahead, in memory for two layers, by a stream of
     * their own; else each linear when it is read, in memory for one. */
    bool ahead;
    bool joins; /* the backend joins products that lie side by side, and frozen weights can lie so (param_join) */
    struct param_layer buffer[PARAM_LAYERS];
    struct stream *decode;          /* NULL: nothing is dequantised ahead */
    struct event *updated;          /* what decoding reads was written … */
    bool behind;                    /* … and it has not waited for that yet */
    int *first_of;                  /* [layers + 1] parameters of a layer follow each other */
    int64_t layer_count;            /* elements of a buffer */
    int64_t layers, lowest, inside; /* lowest: layer with something trained, where backward ends; inside: between enter and leave, or -1 */
};

void param_store_init(struct param_store *ps, const struct backend *be, dtype act, dtype trained_dt, bool masters,
                      const struct param_policy *frozen);
void param_store_release(struct param_store *ps);

/* Returns the parameter's number. dim1 = 0 for a vector. */
int param_add(struct param_store *ps, enum param_kind kind, int64_t dim0, int64_t dim1, const char *name, ...)
    __attribute__((format(printf, 5, 6)));

/* The two ends that may be tied. */
#define PARAM_EMBED "model.embed_tokens.weight"
#define PARAM_HEAD  "lm_head.weight"

/* The file's tensor for a parameter's name: also without "model.", or with one more. NULL if absent. */
const struct st_entry *param_file_entry(const struct st_set *files, const char *name);

/* Finds every non-adapter parameter's tensor in the file set; all missing, misshapen, doubled and extra tensors are
 * listed in one ST_SHAPE message; weights that are quantised otherwise than `bnb` says are ST_NOT_BUILT, and the first of which a part
 * is missing or wrong ends it. `tied`: config.json ties embedding and
 * head, so that either tensor stands for both where the other is missing. `random`: nothing is looked up. */
status param_store_match(struct param_store *ps, const struct st_set *files, const char *dir, bool tied, bool random);
/* Instead, to plan a model whose files are not here. */
void param_store_imagine(struct param_store *ps);
/* Memory that loading may use, of dequantised weights; false: there is not so much. During layout. */
bool param_store_lend(const struct param_store *ps, size_t bytes, void **out);

bool param_shape_agrees(const struct param *p, const struct st_entry *e);
bool param_dtype_loads(const struct st_entry *e); /* F32, F16, BF16; adapters also F64 */

/* Gives trained parameters their places, last added first. What `next` chains, from its last added member to earlier ones, is
 * placed where the first of them comes up, as one row: without a gap, like a single tensor of their size. Where the rules above
 * would leave a gap between two, there is no row: each gets the place that it had without, and `next` becomes -1. A small one goes
 * into what a large one before it has left of a page, if it fits there. */
void param_store_index(struct param_store *ps);

/* Before the layout: the working copies of A [R, in] and s·B [out, R] of a frozen weight's adapter lie in the weight's own memory as
 * well, where a product reads them with it; `beside` is as wide as all adapters are that read one input, and zero but for its own:
 *
 *     │ W [out, in] │ 0 … s·B … 0 │ pad      rows in + whole(beside, 64) apart
 *     │ A [R, in]   │             │
 *
 * Of NF4 weights only those that are dequantised ahead can have that: their buffer is laid out so, and whoever fills it puts the
 * adapter's parts there too. */
void param_join(struct param_store *ps, int w, int a, int b, int64_t beside, int64_t column);
/* The two parts, data NULL where the weight is not joined. */
void param_joined(const struct param_store *ps, int w, tensor *beside, tensor *under);

/* Before the layout: an NF4 weight that is read many times in a row, between readings of others, stays dequantised in `place`, which
 * others may have in their turn. (Nothing to do where weights are ahead: they stay for as long as their layer is walked.) */
void param_keep(struct param_store *ps, int id, int place);

/* When all parameters are there: opens what dequantising ahead needs. */
status param_store_open(struct param_store *ps);

/* Layout, measured then bound: frozen copies and NF4 in `frozen`, the flat vectors in `trained`, scratch in `scratch`. */
void param_store_layout(struct param_store *ps, struct arena *frozen, struct arena *trained, struct arena *scratch);

/* param_load.c. Fills everything from the files, or by Philox from `seed` where there is no source. Source pages that were
 * copied or quantised are given back to the system at once, so that the file never is resident beside its copy. */
status param_store_load(struct param_store *ps, struct stage *g, uint64_t seed);
size_t param_load_bytes(const struct param_store *ps); /* what stage_raw will be asked for at most */
bool param_load_widens(const struct param *p);         /* it passes through `wide` on its way to NF4 */

/* All weights are those of `files` from now on, which has them by their names in the activations' dtype, and adapters are none: for a
 * look at what they compute. */
status param_store_replace(struct param_store *ps, struct stage *g, const struct st_set *files);
/* The source as it is in the file, converted. */
status param_fetch(struct stage *g, const struct param *p, tensor to);

/* Working copies follow the parameters: after load and resume (optimizer steps write both). */
status param_store_refresh(struct param_store *ps, struct stream *s, int id);
status param_store_refresh_all(struct param_store *ps, struct stream *s);
/* The second copies of what lies in this range of the index; whoever steps it calls this. */
status param_store_second_copies(struct param_store *ps, struct stream *s, int64_t lo, int64_t hi);

/* Who walks a layer says so, forward and backward; between the two the layer's parameters are borrowed, what is done with them
 * is enqueued on `s`, and nothing in between waits for another stream. A store that keeps weights elsewhere (NF4; host memory, shards
 * of other ranks) fills one of two layer buffers ahead, on a stream of its own, and tags it with the layer that it holds:
 *
 *   enter(l)   s waits for the event of l's buffer; the next layer in the phase's direction (phase.h) starts filling the other
 *              one, after the event that the layer which had it left behind
 *   leave(l)   event on s: the buffer may be filled again
 *
 *   s        [ l−1 ]▪left    [ l: reads buffer 0 ]▪left [ l+1: reads buffer 1 ]
 *                   ╰──────╮ ▲ filled            │      ▲ filled
 *   decode   …[ l → buf 0 ]▪ ╰[ l+1 → buf 1 ]▪───┼──────╯
 *                                                ╰▶[ l+2 → buf 0 ]▪
 *
 * What is there is not fetched again: at the turn both the last layer and the one before it are, and so are the first two when the
 * next micro-batch begins. An update of a layer's adapters leaves its weights there: only the adapters' parts are put again, behind the
 * update. Every layer that was begun ahead is entered before the next update, so that no update overtakes what reads working copies.
 * Parameters outside of layers (embedding, final norm, head) know only acquire and done. */
status param_enter(struct param_store *ps, struct stream *s, int64_t layer, enum phase phase);
status param_leave(struct param_store *ps, struct stream *s, int64_t layer, enum phase phase);

/* Borrow a parameter for reading, one of a layer between enter and leave. NF4 that is not ahead is dequantised into the one scratch
 * buffer: give it back before the next. */
status param_acquire(struct param_store *ps, struct stream *s, int id, tensor *out);
void param_done(struct param_store *ps, int id);

/* Borrow the row that begins with adapter `first` as the one matrix that it is, [Σ dim 0, dim 1]; param_done(first). */
status param_acquire_row(struct param_store *ps, struct stream *s, int first, tensor *out);

/* param_load.c. `count` elements of the source from `first` on were read for the last time: their pages leave this process. */
void param_source_forget(const struct param *p, int64_t first, int64_t count);

/* Pages of the flat index that it touches: its norm partials. */
static inline int64_t param_pages(const struct param *p) { return (p->flat + p->count - 1) / FLAT_PAGE - p->flat / FLAT_PAGE + 1; }

/* From row to row where it lies joined, and all of its elements then, rooms included; else dense. */
static inline int64_t param_ld(const struct param *p) { return p->dim[1] + (p->beside + 63) / 64 * 64; }
static inline int64_t param_extent(const struct param *p) { return (p->dim[0] + p->under) * param_ld(p); }

static inline tensor param_shaped(const struct param *p, void *data, dtype dt)
{
    if (p->rank == 1) return tensor_1d(data, dt, p->count);
    tensor t = tensor_2d(data, dt, p->dim[0], p->dim[1]);
    t.ld = param_ld(p);
    return t;
}

/* Its own memory has room for its adapter. */
static inline bool param_has_room(const struct param *p) { return p->kind == PARAM_FROZEN && p->beside; }

/* Dequantised a layer ahead, into its layer's buffer. */
static inline bool param_is_ahead(const struct param_store *ps, const struct param *p)
{
    return ps->ahead && p->kind == PARAM_NF4 && p->layer >= 0;
}

/* param_stored.c: NF4 weights that are used as the directory has them. What it says of which parameter; where the parts lie, in the
 * files where tensors are host memory, else in `a`; and how they get there. */
status param_stored_find(struct param_store *ps, struct param *p, const struct st_set *files, const struct st_entry *e, bool *taken);
bool param_stored_map(struct param_store *ps, struct param *p); /* false: it needs memory */
status param_stored_load(struct param *p, struct stage *g);
void param_forget(const struct st_entry *e, size_t lo, size_t hi); /* bytes [lo, hi) were read for the last time */

/* For the store's own files (param_layers.c). */
void param_layers_layout(struct param_store *ps, struct arena *scratch);
status param_layers_clear(struct param_store *ps, struct stream *s); /* when codes are loaded: nothing is in the buffers */
void param_layers_release(struct param_store *ps);

/* Is what is read a copy of it? An adapter's is scaled; that of others differs in its dtype, if it does. */
static inline bool param_is_copied(const struct param_store *ps, const struct param *p)
{
    return ps->flat_work && (p->kind == PARAM_ADAPTER || (p->kind == PARAM_SAVED && ps->act != ps->trained_dt));
}

static inline bool param_is_trained(const struct param *p) { return p->kind >= PARAM_TRAINED; }

#endif
