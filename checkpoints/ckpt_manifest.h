/* ckpt_manifest.h — what a checkpoint says about itself, and the arithmetic of its layout. Internal to checkpoints/.
 *
 *   class (its stored elements)      |0          |lo(1)       |lo(2)       …   end|      shard r holds [lo(r), lo(r+1))
 *   one shard's part of it           |piece|piece|piece|…|rest|   4 MiB of bytes each; .sum holds a hash per piece
 *
 * manifest = JSON object, meta JSON object (verbatim), one line "xxh3-128 HEX" over every byte above it. */
#ifndef TRIMPOT_CKPT_MANIFEST_H
#define TRIMPOT_CKPT_MANIFEST_H

#include "checkpoints/ckpt.h"
#include "checkpoints/hash128.h"
#include "kernels/base/text.h"

enum { CKPT_PIECE = 4 << 20, CKPT_MAX_RANKS = 1 << 20 };

/* One rank's part of one class, in stored elements. Empty parts (lo == hi) have no data set. */
struct ckpt_part {
    int64_t lo, hi;
    int64_t offset; /* of its bytes in the shard file */
    hash128 hash;
};

struct ckpt_shard {
    int64_t bytes; /* of shard-%05d.h5 */
    hash128 hash, sum_hash;
    struct ckpt_part part[CKPT_MAX_CLASSES];
};

struct ckpt_manifest {
    int64_t step;
    int n_classes, n_tensors, n_shards;
    struct ckpt_class classes[CKPT_MAX_CLASSES]; /* without callbacks */
    struct ckpt_tensor *tensors;
    struct ckpt_shard *shards;
    char *meta_json;
};

/* Stored elements of a class: all of them; those that belong to what rank `rank` owns of the flat index. */
int64_t ckpt_stored(const struct ckpt_class *c);
bool ckpt_per_valid(int64_t per);
struct range ckpt_owned(const struct ckpt_class *c, int rank, int ranks);
int64_t ckpt_piece_elements(dtype dt);
int64_t ckpt_pieces(const struct ckpt_part *p, dtype dt);

/* Where class k's pieces begin in the .sum of a shard; k == n_classes gives their total. */
int64_t ckpt_first_piece(const struct ckpt_manifest *m, const struct ckpt_shard *s, int k);

void ckpt_shard_name(char out[32], int rank, const char *suffix); /* "shard-00003.h5" */

/* The complete text of a manifest. */
void ckpt_manifest_text(const struct ckpt_state *s, const struct ckpt_shard *shards, int n_shards, struct buf *out);

#endif
