/* ckpt.h — sharded HDF5 checkpoints: one file per rank, a manifest, and a commit that a kill cannot tear
 *
 *
 *   OUTPUT/checkpoints/step-0000030/shard-00000.h5  shard-00000.sum  …  manifest
 *
 * State is a few flat vectors ("classes": weights, m, v, master …) over one global flat index that is the same on any
 * number of ranks; rank r of P writes what it owns of that index (collectives/own.h), and any P' reads any ranges back.
 *
 *   flat index     |page|page|page|page|pa|            count elements; a rank owns whole pages
 *   m, per 1       |----|----|----|----|--|            one stored element for each
 *   absmax, 256    |-|-|-|-|.|                         one for 256, beside what it belongs to: element n lies with n·256
 *
 * Nothing but the final rename makes a checkpoint exist; nothing but the manifest is trusted. While it is
 * written it is step-0000030.tmp, or step-0000030.WRITER.tmp. */
#ifndef TRIMPOT_CKPT_H
#define TRIMPOT_CKPT_H

#include <stdbool.h>
#include <stdint.h>

#include "collectives/comm.h"
#include "collectives/own.h"
#include "kernels/base/status.h"
#include "kernels/base/tensor.h"

enum { CKPT_MAX_CLASSES = 8 };

/* One flat vector, reached through callbacks, so that a checkpoint knows no device: `read` brings stored elements
 * [at, at + n) to the host, `write` takes them back, n·bytes ≤ 4 MiB. A save reads only what the rank owns, in ascending
 * order, each element once; a load writes everything, in any order. bf16 is stored as U16 with attribute dtype = "bf16". */
struct ckpt_class {
    const char *name;
    dtype dt;
    int64_t count; /* of the flat index */
    int64_t per;   /* its elements for each stored one: a power of two ≤ OWN_PAGE; ⌈count / per⌉ are stored */
    void *owner;   /* of the callbacks */
    status (*read)(void *owner, int64_t at, int64_t n, void *to_host);
    status (*write)(void *owner, int64_t at, int64_t n, const void *from_host);
};

struct ckpt_tensor {
    const char *name;
    int rank;
    int64_t dim[4];
    int64_t offset;
}; /* where it lies in every class */

/* Rank 0 asks it before anything is written, right before the rename, and before each removal: may this run still
 * change the directory? What it returns if not is the outcome on every rank. NULL, or no check: it may. */
struct ckpt_guard {
    status (*check)(void *arg);
    void *arg;
};

/* Small things every rank agrees on; text is JSON, kept verbatim in the manifest. */
struct ckpt_state {
    int64_t step; /* optimizer steps done */
    const struct ckpt_class *classes;
    int n_classes;
    const struct ckpt_tensor *tensors;
    int n_tensors;
    const char *meta_json; /* object: seed, epoch, cursor, M, V, optimizer t, skip counters, hashes, config … */
    const char *writer;    /* two runs that both believe the directory to be theirs write to two .tmp; may be NULL */
    struct ckpt_guard guard;
};

/* Collective. Returns ST_OK when committed; otherwise every rank returns the same failure, nothing exists, and
 * training may go on (the message names rank, file and errno). */
status ckpt_save(struct comm *comm, const char *checkpoints_dir, const struct ckpt_state *s);

/* What a valid checkpoint says before its bytes are read. `rejected`: how many newer ones were renamed .bad. */
struct ckpt_manifest;
struct ckpt_info {
    int64_t step;
    int rejected;
    char *dir;
    char *meta_json;
    struct ckpt_manifest *manifest;
};

/* Collective: rank 0 scans, newest first; every file of the candidate is hashed, the ranks sharing the work. A
 * directory that does not verify is renamed .bad with a loud warning and the next older one is tried. *found = false
 * when there is none (then only out->rejected says anything). */
status ckpt_find(struct comm *comm, const char *checkpoints_dir, struct ckpt_info *out, bool *found);
/* Writes all of every class (verified piece by piece), each rank reading its share from the disk, in some 36 MB of memory.
 * Names, dtypes, counts and the tensor table must agree: else ST_SHAPE listing the differences, and nothing was written.
 * ST_CORRUPT: the classes hold nothing of use; the caller may ckpt_reject and ckpt_find again. Collective. */
status ckpt_load(struct comm *comm, const struct ckpt_info *info, const struct ckpt_state *into);
status ckpt_reject(struct comm *comm, const struct ckpt_info *info); /* rename to .bad, loudly */
void ckpt_info_free(struct ckpt_info *i);

/* Removes all but the newest `keep` checkpoints that verify, by rename to .trash first; keep < 1: none. Clears leftovers of
 * dead saves (*.tmp) in any case: a killed run leaves one under its own name. Rank 0 works, all call. */
status ckpt_retain(struct comm *comm, const char *checkpoints_dir, int64_t keep, const struct ckpt_guard *guard);

/* Parses a manifest image; fuzz entry. */
status ckpt_manifest_parse(const char *path, const char *text, size_t n, struct ckpt_manifest **manifest);
void ckpt_manifest_free(struct ckpt_manifest *manifest);

#endif
