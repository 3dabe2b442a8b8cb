#include "checkpoints/ckpt_dir.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoints/ckpt_shard.h"
#include "checkpoints/ckpt_vote.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"

enum { MANIFEST_BYTES = 1 << 29 };

char *ckpt_step_path(const char *checkpoints_dir, int64_t step, const char *suffix)
{
    return mem_printf("%s/step-%07lld%s", checkpoints_dir, (long long)step, suffix);
}

/* Accepts exactly what ckpt_step_path writes. */
static bool step_name(const char *name, int64_t *step)
{
    long long value;
    char again[40];
    if (sscanf(name, "step-%18lld", &value) != 1 || value < 0) return false;
    snprintf(again, sizeof again, "step-%07lld", value);
    *step = value;
    return strcmp(again, name) == 0;
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

status ckpt_list_steps(const char *checkpoints_dir, int64_t **steps, int *n)
{
    *steps = NULL;
    *n = 0;
    DIR *d = opendir(checkpoints_dir);
    if (!d && errno == ENOENT) return ST_OK;
    if (!d) FAIL(ST_IO, "%s: cannot read directory: %s", checkpoints_dir, strerror(errno));
    int64_t step;
    for (struct dirent *e; (e = readdir(d));) {
        if (!step_name(e->d_name, &step)) continue;
        *steps = mem_grow(*steps, (size_t)(*n + 1) * sizeof **steps);
        (*steps)[(*n)++] = step;
    }
    closedir(d);
    if (*n) qsort(*steps, (size_t)*n, sizeof **steps, newest_first);
    return ST_OK;
}

status ckpt_read_manifest(const char *dir, struct ckpt_manifest **m, char **text, size_t *bytes)
{
    char *path = mem_printf("%s/manifest", dir), *image = NULL;
    size_t n;
    status st;
    *m = NULL;
    struct stat info;
    if (stat(path, &info) ? errno == ENOENT : !S_ISREG(info.st_mode))
        FAIL_DONE(ST_CORRUPT, "%s: is missing, so this is no complete checkpoint", path);
    TRY_DONE(file_read(path, MANIFEST_BYTES, &image, &n));
    TRY_DONE(ckpt_manifest_parse(path, image, n, m));
    if (text) {
        *text = image;
        *bytes = n;
        image = NULL;
    }
done:
    free(image);
    free(path);
    return st;
}

status ckpt_check_quick(const char *dir, int64_t step, struct ckpt_manifest **m, char **text, size_t *bytes)
{
    TRY(ckpt_read_manifest(dir, m, text, bytes));
    status st = ST_OK;
    if ((*m)->step != step) st = status_fail(ST_CORRUPT, "%s/manifest: says it is of step %lld", dir, (long long)(*m)->step);
    for (int i = 0; i < (*m)->n_shards && !st; i++) st = shard_check_size(dir, *m, i);
    if (!st) return ST_OK;
    ckpt_manifest_free(*m);
    *m = NULL;
    if (text) {
        free(*text);
        *text = NULL;
    }
    return st;
}

/* ---- quarantine ---------------------------------------------------------------------------------------------------
 */

/* Renames DIR to DIR.bad (.bad2, … if taken), so that it is never tried again and somebody may look at it. */
static void quarantine(const char *dir, const char *why)
{
    char *bad = NULL;
    for (int i = 1; i < 1000; i++) {
        free(bad);
        bad = i == 1 ? mem_printf("%s.bad", dir) : mem_printf("%s.bad%d", dir, i);
        if (!file_exists(bad)) break;
    }
    if (rename(dir, bad) == 0)
        log_warn("checkpoint %s does not verify and is now %s: %s", dir, bad, why);
    else
        log_warn("checkpoint %s does not verify and is passed over (renaming it failed: %s): %s", dir, strerror(errno), why);
    free(bad);
}

status ckpt_reject(struct comm *comm, const struct ckpt_info *info)
{
    if (comm->rank == 0) quarantine(info->dir, status_message());
    return comm->fn->barrier(comm);
}

/* ---- find ---------------------------------------------------------------------------------------------------------
 */

struct candidate {
    int64_t step, rejected, bytes; /* step < 0: none */
};

/* Rank 0: the newest directory older than `below` that passes the quick check. */
static status next_candidate(const char *checkpoints_dir, int64_t below, struct candidate *c, struct ckpt_manifest **m, char **text)
{
    int64_t *steps;
    int n;
    c->step = -1;
    TRY(ckpt_list_steps(checkpoints_dir, &steps, &n));
    status st = ST_OK;
    for (int i = 0; i < n && c->step < 0; i++) {
        if (steps[i] >= below) continue;
        char *dir = ckpt_step_path(checkpoints_dir, steps[i], "");
        size_t bytes;
        st = ckpt_check_quick(dir, steps[i], m, text, &bytes);
        if (!st) {
            c->step = steps[i];
            c->bytes = (int64_t)bytes;
        } else if (st == ST_CORRUPT) {
            quarantine(dir, status_message());
            c->rejected++;
            st = ST_OK;
        }
        free(dir);
        if (st) break;
    }
    free(steps);
    return st;
}

/* Gives every rank the manifest that rank 0 read; other ranks parse the same text. */
static status share_manifest(struct comm *comm, const char *dir, int64_t bytes, char **text, struct ckpt_manifest **m)
{
    if (comm->rank != 0) *text = mem_alloc((size_t)bytes + 1);
    TRY(comm->fn->bcast(comm, *text, (size_t)bytes, 0));
    return *m ? ST_OK : ckpt_manifest_parse(dir, *text, (size_t)bytes, m);
}

static status hash_my_files(struct comm *comm, const char *dir, const struct ckpt_manifest *m)
{
    status st = ST_OK;
    for (int i = comm->rank; i < m->n_shards && !st; i += comm->size) st = shard_check_hash(dir, m, i);
    return st;
}

/* One round: the next candidate, judged by all ranks. *good says whether it stands in `out`. */
static status try_candidate(struct comm *comm, const char *checkpoints_dir, int64_t below, struct candidate *c, struct ckpt_info *out,
                            bool *good)
{
    struct ckpt_manifest *m = NULL;
    char *text = NULL, *dir = NULL;
    status st = comm->rank == 0 ? next_candidate(checkpoints_dir, below, c, &m, &text) : ST_OK;
    TRY_DONE(vote_root(comm, st));
    TRY_DONE(comm->fn->bcast(comm, c, sizeof *c, 0));
    if (c->step < 0) goto done;
    dir = ckpt_step_path(checkpoints_dir, c->step, "");
    st = share_manifest(comm, dir, c->bytes, &text, &m);
    if (!st) st = hash_my_files(comm, dir, m);
    st = vote_all(comm, st);
    if (st == ST_CORRUPT) {
        if (comm->rank == 0) quarantine(dir, status_message());
        c->rejected++;
        st = ST_OK;
    } else if (!st) {
        *out = (struct ckpt_info){.step = c->step, .dir = dir, .meta_json = mem_strdup(m->meta_json), .manifest = m};
        *good = true;
        dir = NULL;
        m = NULL;
    }
done:
    ckpt_manifest_free(m);
    free(text);
    free(dir);
    return st;
}

status ckpt_find(struct comm *comm, const char *checkpoints_dir, struct ckpt_info *out, bool *found)
{
    struct candidate c = {0};
    *out = (struct ckpt_info){0};
    *found = false;
    int64_t below = INT64_MAX;
    do {
        TRY(try_candidate(comm, checkpoints_dir, below, &c, out, found));
        below = c.step;
    } while (!*found && c.step >= 0);
    out->rejected = (int)c.rejected;
    return ST_OK;
}

void ckpt_info_free(struct ckpt_info *i)
{
    free(i->dir);
    free(i->meta_json);
    ckpt_manifest_free(i->manifest);
    *i = (struct ckpt_info){0};
}

/* ---- retention ----------------------------------------------------------------------------------------------------
 */

/* By rename first: a removal that a kill interrupts must not leave half a checkpoint under a good name. */
static status throw_away(const char *checkpoints_dir, int64_t step)
{
    char *dir = ckpt_step_path(checkpoints_dir, step, ""), *trash = ckpt_step_path(checkpoints_dir, step, ".trash");
    status st = file_remove_tree(trash);
    if (!st && rename(dir, trash)) st = status_fail(ST_IO, "%s: cannot rename to %s: %s", dir, trash, strerror(errno));
    if (!st) st = file_remove_tree(trash);
    free(dir);
    free(trash);
    return st;
}

static bool is_leftover(const char *name)
{
    const char *dot = strrchr(name, '.');
    return strncmp(name, "step-", 5) == 0 && dot && (strcmp(dot, ".tmp") == 0 || strcmp(dot, ".trash") == 0);
}

static status remove_leftovers(const char *checkpoints_dir, const struct ckpt_guard *guard)
{
    DIR *d = opendir(checkpoints_dir);
    if (!d && errno == ENOENT) return ST_OK;
    if (!d) FAIL(ST_IO, "%s: cannot read directory: %s", checkpoints_dir, strerror(errno));
    status st = ST_OK;
    for (struct dirent *e; !st && (e = readdir(d));) {
        if (!is_leftover(e->d_name)) continue;
        char *path = mem_printf("%s/%s", checkpoints_dir, e->d_name);
        st = ckpt_may_change(guard);
        if (!st) st = file_remove_tree(path);
        free(path);
    }
    closedir(d);
    return st;
}

static status remove_older(const char *checkpoints_dir, int64_t keep, const struct ckpt_guard *guard)
{
    int64_t *steps, kept = 0;
    int n;
    TRY(ckpt_list_steps(checkpoints_dir, &steps, &n));
    status st = ST_OK;
    for (int i = 0; i < n && !st; i++) {
        char *dir = ckpt_step_path(checkpoints_dir, steps[i], "");
        struct ckpt_manifest *m = NULL;
        bool good = ckpt_check_quick(dir, steps[i], &m, NULL, NULL) == ST_OK;
        ckpt_manifest_free(m);
        free(dir);
        if (!good || kept++ < keep) continue;
        st = ckpt_may_change(guard);
        if (!st) st = throw_away(checkpoints_dir, steps[i]);
    }
    free(steps);
    return st;
}

static status retain(const char *checkpoints_dir, int64_t keep, const struct ckpt_guard *guard)
{
    if (keep > 0) TRY(remove_older(checkpoints_dir, keep, guard));
    return remove_leftovers(checkpoints_dir, guard);
}

status ckpt_retain(struct comm *comm, const char *checkpoints_dir, int64_t keep, const struct ckpt_guard *guard)
{
    return vote_root(comm, comm->rank == 0 ? retain(checkpoints_dir, keep, guard) : ST_OK);
}
