/* run_lock_file.h — the file run.lock, one system call after the other: read, put in place, beat. It decides nothing.
 * Internal to run_lock.c.
 *
 * A record is written to run.lock.NONCE first, synced, and linked or renamed from there: whoever reads run.lock finds all
 * of it or nothing. Beats rewrite their digits in place, in a file that was just read and found to be this run's: after a
 * takeover they can only land in the old one, which nobody reads. Every beat opens and closes: that is what makes NFS
 * clients show each other their writes. */
#ifndef TRIMPOT_RUN_LOCK_FILE_H
#define TRIMPOT_RUN_LOCK_FILE_H

#include <time.h>

#include "worker/run_lock_record.h"

struct lock_file {
    char *dir, *path, *temp;
    char text[LOCK_RECORD_BYTES]; /* this run's line */
    size_t bytes, beat_at;
};

/* Who this process is; every field that cannot be found out is "" or 0. */
status lock_record_self(struct lock_record *out);
bool lock_process_lives(const struct lock_record *r); /* on this host */

void lock_file_init(struct lock_file *f, const char *dir, const struct lock_record *mine);
void lock_file_free(struct lock_file *f);

/* What stands there, and when it changed. ST_CORRUPT, ST_IO with the remedy where that is no record. */
struct lock_sight {
    bool absent;
    struct lock_record record;
    struct timespec changed;
};
status lock_file_read(const struct lock_file *f, struct lock_sight *out);
bool lock_sight_equal(const struct lock_sight *a, const struct lock_sight *b);

status lock_file_now(const struct lock_file *f, struct timespec *now); /* the time by the folder's own clock */
status lock_file_place(const struct lock_file *f, bool *placed);       /* only where nothing is; *placed = false: something is */
status lock_file_put_over(const struct lock_file *f, const struct lock_sight *over, bool *put); /* only over what was seen */
void lock_file_sweep(const struct lock_file *f, double older_than_s); /* run.lock.NONCE of processes killed in between */
void lock_file_remove(const struct lock_file *f);

/* These three allocate nothing and write no message; errno tells about LOCK_UNREADABLE. */
enum lock_look { LOCK_OURS, LOCK_OTHERS, LOCK_ABSENT, LOCK_UNREADABLE };
enum lock_look lock_file_look(const struct lock_file *f);
enum lock_look lock_file_beat(const struct lock_file *f, int64_t beat);
enum lock_look lock_file_put_back(const struct lock_file *f); /* after LOCK_ABSENT; ours too where the folder itself is gone */

#endif
