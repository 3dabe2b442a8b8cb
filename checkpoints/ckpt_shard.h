/* ckpt_shard.h — one rank's file: written through HDF5, read back with pread. Internal to checkpoints/.
 *
 *   shard-00003.h5    HDF5 (V110), one contiguous data set per class, no filters: `h5dump` shows it, pread reads it
 *   shard-00003.sum   16 bytes per 4 MiB piece, classes in order, pieces in order */
#ifndef TRIMPOT_CKPT_SHARD_H
#define TRIMPOT_CKPT_SHARD_H

#include "checkpoints/ckpt_manifest.h"

/* Writes, re-reads and fsyncs both files of `rank` in `dir`, and fills `out`. What is left after a failure is the
 * caller's to remove. */
status shard_write(const char *dir, int rank, int ranks, const struct ckpt_state *s, struct ckpt_shard *out);

/* A shard file as HDF5 lays it out: every data set allocated, none written. Only pages that HDF5 wrote are there, in no
 * order; the rest of `bytes` is zero. */
enum { H5_PAGE = 4096 };
struct h5_image {
    struct h5_page {
        int64_t at;
        unsigned char byte[H5_PAGE];
    } * pages;
    int n;
    int64_t bytes;
};

/* Fills *image (zeroed by the caller, who releases it) and the offsets of out->part, whose ranges stand. */
status ckpt_h5_layout(const char *path, const struct ckpt_state *s, struct ckpt_shard *out, struct h5_image *image);
void h5_image_release(struct h5_image *m);

/* Both files have the size that the manifest says / also its hash. Missing or different: ST_CORRUPT. */
status shard_check_size(const char *dir, const struct ckpt_manifest *m, int shard);
status shard_check_hash(const char *dir, const struct ckpt_manifest *m, int shard);

/* One class read in ascending order, from whichever shards hold it: no byte is read twice, and none is given out before its
 * piece is verified. Starts zeroed but for dir, m and k. */
struct shard_reader {
    const char *dir;
    const struct ckpt_manifest *m;
    int k;
    struct shard_open *now; /* the shard read last, and its piece */
};
status shard_reader_read(struct shard_reader *r, int64_t lo, int64_t hi, void *dst); /* stored elements [lo, hi) */
void shard_reader_close(struct shard_reader *r);

/* Reads bytes [offset, offset + n) of an open file through `buffer` (CKPT_PIECE bytes) into the hash of the file, that
 * of the part (NULL: none), and against the hashes of its pieces (NULL: none; a difference is ST_CORRUPT). */
status shard_hash_span(int fd, const char *path, int64_t offset, int64_t n, void *buffer, struct hash_stream *file,
                       struct hash_stream *part, const hash128 *pieces);

#endif
