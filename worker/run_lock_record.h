/* run_lock_record.h — what stands in a run.lock, and what follows from finding one. Pure functions: no file, no clock, no
 * process is looked at here. Internal to run_lock.c. */
#ifndef TRIMPOT_RUN_LOCK_RECORD_H
#define TRIMPOT_RUN_LOCK_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/base/text.h"

enum { LOCK_NONCE = 32, LOCK_RECORD_BYTES = 2048, LOCK_BEAT_WIDTH = 20 };

/* "" and 0 = not known. Whether two processes see each other's numbers takes host, boot and pid_space together. */
struct lock_record {
    char host[72], boot[48], pid_space[24];
    int64_t pid, started; /* start time of the process, in the kernel's ticks: a number that is used again has another one */
    char cluster[72], job[32];
    int64_t restarts; /* how often Slurm has started the job again */
    char began[32];   /* for people */
    char nonce[LOCK_NONCE + 8];
    int64_t beat; /* counts up */
};

/* One line of at most LOCK_RECORD_BYTES; the beat stands last, LOCK_BEAT_WIDTH wide, at *beat_at. */
void lock_record_text(const struct lock_record *r, struct buf *out, size_t *beat_at);

/* ST_CORRUPT naming path and what is wrong. Outside data; fuzz entry. */
status lock_record_parse(const char *path, const char *text, size_t n, struct lock_record *out);

/* "pid 4711 on node7 (job 77, start 2), since 2026-01-31T12:00:00Z": who that is. */
void lock_record_name(const struct lock_record *r, struct buf *out);

/* What is known beside the record. */
struct lock_seen {
    bool lives;     /* a process of that number and start time exists; says nothing about another host */
    bool beats;     /* the record changed while it was watched */
    double age_s;   /* since it last changed, at first sight, by the folder's clock; negative: from the future */
    double still_s; /* since first sight, by our own clock */
};

enum lock_verdict { LOCK_REFUSE, LOCK_WATCH, LOCK_TAKE };

struct lock_judgement {
    enum lock_verdict verdict;
    const char *why; /* "its process is gone" */
    double watch_s;  /* how long it must stay unchanged before our eyes, in all */
};

struct lock_judgement lock_judge(const struct lock_record *found, const struct lock_record *mine, const struct lock_seen *seen);

bool lock_same_host(const struct lock_record *a, const struct lock_record *b);

#endif
