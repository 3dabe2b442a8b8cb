/* The commit protocol:
 *
 *   rank 0: step-N.tmp/ made        all: shard written, re-read, fsynced        all: vote
 *   rank 0: fsync dir → manifest → fsync dir → rename to step-N → fsync parent      all: hear the outcome
 *
 * A kill anywhere before the last rename leaves a .tmp that nobody reads; after it, a whole checkpoint. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "checkpoints/ckpt.h"
#include "checkpoints/ckpt_dir.h"
#include "checkpoints/ckpt_shard.h"
#include "checkpoints/ckpt_vote.h"
#include "checkpoints/jdoc.h"
#include "kernels/base/file.h"

static status check_state(const struct ckpt_state *s)
{
    json_t *meta;
    for (int k = 0; k < s->n_classes && k < CKPT_MAX_CLASSES; k++)
        if (!ckpt_per_valid(s->classes[k].per))
            FAIL(ST_FAIL, "checkpoint: class %s has an element for %lld of the flat index; a power of two up to %d can be saved",
                 s->classes[k].name, (long long)s->classes[k].per, OWN_PAGE);
    if (s->n_classes < 1 || s->n_classes > CKPT_MAX_CLASSES || s->step < 0)
        FAIL(ST_FAIL, "checkpoint: %d classes at step %lld cannot be saved", s->n_classes, (long long)s->step);
    TRY(jdoc_parse("checkpoint meta", s->meta_json, strlen(s->meta_json), &meta, NULL));
    json_decref(meta);
    return ST_OK;
}

static status check_free_space(const char *dir, const struct ckpt_state *s)
{
    struct statvfs v;
    if (statvfs(dir, &v)) FAIL(ST_IO, "%s: cannot ask for free space: %s", dir, strerror(errno));
    double need = 0, have = (double)v.f_bavail * (double)v.f_frsize;
    for (int k = 0; k < s->n_classes; k++) need += (double)ckpt_stored(&s->classes[k]) * (double)dtype_bytes(s->classes[k].dt);
    need = 1.05 * need + (1 << 20);
    if (need > have) FAIL(ST_IO, "%s: %s are needed for a checkpoint but %s are free", dir, text_bytes(need), text_bytes(have));
    return ST_OK;
}

static status prepare(const char *checkpoints_dir, const char *tmp, const struct ckpt_state *s)
{
    TRY(check_state(s));
    TRY(ckpt_may_change(&s->guard));
    TRY(file_mkdirs(checkpoints_dir));
    TRY(file_remove_tree(tmp));
    TRY(check_free_space(checkpoints_dir, s));
    return file_mkdirs(tmp);
}

/* How a checkpoint got its name, so that it can be taken back: nothing was there; an older one of the same step changed
 * places with it, so that a whole one was there at every instant; or stepped aside first, where the file system has no
 * exchange. */
enum placing { FRESH, EXCHANGED, STEPPED_ASIDE };

static bool exchange(const char *a, const char *b) { return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0; }

static status put_in_place(const char *tmp, const char *final, const char *trash, enum placing *how)
{
    *how = FRESH;
    if (renameat2(AT_FDCWD, tmp, AT_FDCWD, final, RENAME_NOREPLACE) == 0) return ST_OK;
    *how = EXCHANGED;
    if (errno == EEXIST && exchange(tmp, final)) return ST_OK;
    *how = STEPPED_ASIDE;
    if (errno == EINVAL || errno == ENOSYS) {
        TRY(file_remove_tree(trash));
        bool aside = rename(final, trash) == 0;
        if (rename(tmp, final) == 0) return ST_OK;
        int error = errno;
        if (aside) rename(trash, final);
        errno = error;
    }
    FAIL(ST_IO, "%s: cannot rename to %s: %s", tmp, final, strerror(errno));
}

static void take_back(const char *tmp, const char *final, const char *trash, enum placing how)
{
    if (how == EXCHANGED) {
        exchange(tmp, final);
        return;
    }
    rename(final, tmp);
    if (how == STEPPED_ASIDE) rename(trash, final);
}

/* Gives tmp its final name for good, or leaves everything as it was. */
static status install(const char *checkpoints_dir, const char *tmp, const char *final)
{
    char *trash = mem_printf("%s.trash", final);
    enum placing how;
    status st;
    TRY_DONE(put_in_place(tmp, final, trash, &how));
    st = file_sync_dir(checkpoints_dir);
    if (st) {
        take_back(tmp, final, trash, how);
        goto done;
    }
    if (how == EXCHANGED) file_remove_tree(tmp); /* what fails here is a leftover for ckpt_retain */
    if (how == STEPPED_ASIDE) file_remove_tree(trash);
done:
    free(trash);
    return st;
}

static status commit(const char *checkpoints_dir, const char *tmp, const struct ckpt_state *s, const struct ckpt_shard *shards, int ranks)
{
    struct buf text = {0};
    char *manifest = mem_printf("%s/manifest", tmp), *final = ckpt_step_path(checkpoints_dir, s->step, "");
    status st;
    TRY_DONE(file_sync_dir(tmp));
    ckpt_manifest_text(s, shards, ranks, &text);
    TRY_DONE(file_replace(manifest, text.data, text.len));
    TRY_DONE(ckpt_may_change(&s->guard));
    TRY_DONE(install(checkpoints_dir, tmp, final));
done:
    buf_release(&text);
    free(manifest);
    free(final);
    return st;
}

/* Every rank's part of the tmp directory; all ranks return the same. */
static status write_shards(struct comm *comm, const char *tmp, const struct ckpt_state *s, struct ckpt_shard *all)
{
    struct ckpt_shard mine;
    TRY(vote_all(comm, shard_write(tmp, comm->rank, comm->size, s, &mine)));
    return comm->fn->all_gather(comm, &mine, all, sizeof mine);
}

status ckpt_save(struct comm *comm, const char *checkpoints_dir, const struct ckpt_state *s)
{
    char *suffix = s->writer ? mem_printf(".%s.tmp", s->writer) : mem_strdup(".tmp");
    char *tmp = ckpt_step_path(checkpoints_dir, s->step, suffix);
    struct ckpt_shard *all = mem_alloc((size_t)comm->size * sizeof *all);
    status st = vote_root(comm, comm->rank == 0 ? prepare(checkpoints_dir, tmp, s) : ST_OK);
    if (!st) st = write_shards(comm, tmp, s, all);
    if (!st) st = vote_root(comm, comm->rank == 0 ? commit(checkpoints_dir, tmp, s, all, comm->size) : ST_OK);
    if (st) {
        status_prefix(st, "the checkpoint of step %lld is not saved", (long long)s->step);
        if (comm->rank == 0) file_remove_tree(tmp);
        comm->fn->barrier(comm);
    }
    free(all);
    free(tmp);
    free(suffix);
    return st;
}
