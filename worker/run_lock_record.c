#include "worker/run_lock_record.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "checkpoints/jdoc.h"
#include "worker/run_lock.h"

/* ---- the line ---------------------------------------------------------------------------------------------------------- */

static const char VERSION_KEY[] = "trimpot_run_lock";
enum { VERSION = 1 };

#define TEXT(member)                                                                                                                       \
    {                                                                                                                                      \
#member, offsetof(struct lock_record, member), sizeof((struct lock_record *)0)->member                                             \
    }
static const struct text_member {
    const char *key;
    size_t at, cap;
} TEXTS[] = {
    TEXT(host), TEXT(boot), TEXT(pid_space), TEXT(cluster), TEXT(job), TEXT(began), TEXT(nonce),
};
enum { N_TEXTS = sizeof TEXTS / sizeof *TEXTS };

#define NUMBER(member, least, most)                                                                                                        \
    {                                                                                                                                      \
#member, offsetof(struct lock_record, member), least, most                                                                         \
    }
static const struct number_member {
    const char *key;
    size_t at;
    int64_t lo, hi;
} NUMBERS[] = {
    NUMBER(pid, 1, INT32_MAX),
    NUMBER(started, 0, INT64_MAX),
    NUMBER(restarts, 0, INT32_MAX),
};
enum { N_NUMBERS = sizeof NUMBERS / sizeof *NUMBERS };

void lock_record_text(const struct lock_record *r, struct buf *out, size_t *beat_at)
{
    size_t first = out->len;
    buf_printf(out, "{\"%s\":%d", VERSION_KEY, VERSION);
    for (int i = 0; i < N_TEXTS; i++) {
        buf_printf(out, ",\"%s\":", TEXTS[i].key);
        jdoc_quote(out, (const char *)r + TEXTS[i].at);
    }
    for (int i = 0; i < N_NUMBERS; i++) {
        const void *value = (const char *)r + NUMBERS[i].at;
        buf_printf(out, ",\"%s\":%" PRId64, NUMBERS[i].key, *(const int64_t *)value);
    }
    buf_text(out, ",\"beat\":");
    *beat_at = out->len - first;
    buf_printf(out, "%*" PRId64 "}\n", LOCK_BEAT_WIDTH, r->beat);
}

static status parse_text(const struct jdoc *d, const struct text_member *t, struct lock_record *out)
{
    char *s = (char *)out + t->at;
    TRY(jdoc_need(d, t->key));
    TRY(jdoc_string(d, t->key, s, t->cap));
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) FAIL(ST_CORRUPT, "%s: %s holds control characters", d->path, t->key);
    return ST_OK;
}

static status parse(const struct jdoc *d, struct lock_record *out)
{
    int64_t version = 0;
    TRY(jdoc_need(d, VERSION_KEY));
    TRY(jdoc_i64(d, VERSION_KEY, VERSION, VERSION, &version));
    for (int i = 0; i < N_TEXTS; i++) TRY(parse_text(d, &TEXTS[i], out));
    for (int i = 0; i < N_NUMBERS; i++) {
        void *value = (char *)out + NUMBERS[i].at;
        TRY(jdoc_need(d, NUMBERS[i].key));
        TRY(jdoc_i64(d, NUMBERS[i].key, NUMBERS[i].lo, NUMBERS[i].hi, value));
    }
    TRY(jdoc_need(d, "beat"));
    TRY(jdoc_i64(d, "beat", 0, INT64_MAX, &out->beat));
    if (strlen(out->nonce) != LOCK_NONCE) FAIL(ST_CORRUPT, "%s: nonce must have %d characters", d->path, LOCK_NONCE);
    return ST_OK;
}

status lock_record_parse(const char *path, const char *text, size_t n, struct lock_record *out)
{
    struct jdoc d = {.path = path, .in = ""};
    *out = (struct lock_record){0};
    TRY(jdoc_parse(path, text, n, &d.o, NULL));
    status st = parse(&d, out);
    json_decref(d.o);
    return st;
}

void lock_record_name(const struct lock_record *r, struct buf *out)
{
    buf_printf(out, "pid %" PRId64 " on %s", r->pid, *r->host ? r->host : "an unknown host");
    if (*r->job) buf_printf(out, " (job %s%s%s, start %" PRId64 ")", r->job, *r->cluster ? " of " : "", r->cluster, r->restarts + 1);
    buf_printf(out, ", since %s", r->began);
}

/* ---- the judgement ------------------------------------------------------------------------------------------------------- */

static bool known_equal(const char *a, const char *b) { return *a && strcmp(a, b) == 0; }

bool lock_same_host(const struct lock_record *a, const struct lock_record *b)
{
    return known_equal(a->host, b->host) && known_equal(a->boot, b->boot) && known_equal(a->pid_space, b->pid_space);
}

struct found {
    const struct lock_record *theirs, *mine;
    const struct lock_seen *seen;
    double watch_s;
};

static bool gone(const struct found *f) { return lock_same_host(f->theirs, f->mine) && !f->seen->lives; }
static bool lives(const struct found *f) { return lock_same_host(f->theirs, f->mine) && f->seen->lives; }
static bool predecessor(const struct found *f)
{
    return known_equal(f->theirs->job, f->mine->job) && strcmp(f->theirs->cluster, f->mine->cluster) == 0 &&
           f->theirs->restarts < f->mine->restarts;
}
static bool beats(const struct found *f) { return f->seen->beats; }
static bool fresh(const struct found *f) { return fabs(f->seen->age_s) < RUN_LOCK_FRESH_S; }
static bool still(const struct found *f) { return f->seen->still_s >= f->watch_s; }
static bool otherwise(const struct found *f) { return f != NULL; }

/* The first that holds. */
static const struct rule {
    bool (*holds)(const struct found *f);
    enum lock_verdict verdict;
    const char *why;
} RULES[] = {
    {gone, LOCK_TAKE, "its process is gone"},
    {lives, LOCK_REFUSE, "its process lives"},
    {predecessor, LOCK_TAKE, "it was this job before it was requeued"},
    {beats, LOCK_REFUSE, "it beats"},
    {fresh, LOCK_REFUSE, "it beat just now"},
    {still, LOCK_TAKE, "it has stopped beating"},
    {otherwise, LOCK_WATCH, "it may have stopped"},
};

/* An age is a difference of two clocks on file systems whose clients stamp their own writes: it shortens the watch, but
 * never replaces it. */
static double watch_s(double age_s) { return fmax(RUN_LOCK_FRESH_S, fmin(RUN_LOCK_STALE_S, RUN_LOCK_STALE_S - age_s)); }

struct lock_judgement lock_judge(const struct lock_record *found, const struct lock_record *mine, const struct lock_seen *seen)
{
    struct found f = {found, mine, seen, watch_s(seen->age_s)};
    const struct rule *r = RULES;
    while (!r->holds(&f)) r++;
    return (struct lock_judgement){r->verdict, r->why, f.watch_s};
}
