/* Loading at any number of ranks: each reads and verifies its own share, then all exchange. */
#include <stdlib.h>
#include <string.h>

#include "checkpoints/ckpt.h"
#include "checkpoints/ckpt_shard.h"
#include "checkpoints/ckpt_vote.h"
#include "kernels/base/text.h"

enum { SHOWN_DIFFERENCES = 6 }; /* what ranks agree on is about 1 kB */

struct diff {
    struct buf lines;
    int n;
};

static bool differs(struct diff *d) { return ++d->n <= SHOWN_DIFFERENCES; }

static void class_line(struct buf *b, const struct ckpt_class *c)
{
    buf_printf(b, "%s, %lld × %s", c->name, (long long)c->count, dtype_name(c->dt));
    if (c->per > 1) buf_printf(b, " (one for %lld)", (long long)c->per);
}

static void compare_classes(const struct ckpt_manifest *m, const struct ckpt_state *s, struct diff *d)
{
    for (int k = 0; k < m->n_classes || k < s->n_classes; k++) {
        const struct ckpt_class *a = k < m->n_classes ? &m->classes[k] : NULL, *b = k < s->n_classes ? &s->classes[k] : NULL;
        if (a && b && strcmp(a->name, b->name) == 0 && a->dt == b->dt && a->count == b->count && a->per == b->per) continue;
        if (!differs(d)) continue;
        buf_printf(&d->lines, "\n  class %d: checkpoint has ", k);
        if (a)
            class_line(&d->lines, a);
        else
            buf_text(&d->lines, "none");
        buf_text(&d->lines, "; this run has ");
        if (b)
            class_line(&d->lines, b);
        else
            buf_text(&d->lines, "none");
    }
}

static void tensor_line(struct buf *b, const struct ckpt_tensor *t)
{
    buf_printf(b, "%s [", t->name);
    for (int k = 0; k < t->rank; k++) buf_printf(b, "%s%lld", k ? ", " : "", (long long)t->dim[k]);
    buf_printf(b, "] at %lld", (long long)t->offset);
}

static bool same_tensor(const struct ckpt_tensor *a, const struct ckpt_tensor *b)
{
    return strcmp(a->name, b->name) == 0 && a->rank == b->rank && a->offset == b->offset &&
           memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0;
}

static void compare_tensors(const struct ckpt_manifest *m, const struct ckpt_state *s, struct diff *d)
{
    for (int i = 0; i < m->n_tensors || i < s->n_tensors; i++) {
        const struct ckpt_tensor *a = i < m->n_tensors ? &m->tensors[i] : NULL, *b = i < s->n_tensors ? &s->tensors[i] : NULL;
        if (a && b && same_tensor(a, b)) continue;
        if (!differs(d)) continue;
        buf_printf(&d->lines, "\n  tensor %d: checkpoint has ", i);
        if (a)
            tensor_line(&d->lines, a);
        else
            buf_text(&d->lines, "none");
        buf_text(&d->lines, "; this run has ");
        if (b)
            tensor_line(&d->lines, b);
        else
            buf_text(&d->lines, "none");
    }
}

static status check_same_layout(const struct ckpt_info *info, const struct ckpt_state *s)
{
    struct diff d = {0};
    compare_classes(info->manifest, s, &d);
    compare_tensors(info->manifest, s, &d);
    if (d.n > SHOWN_DIFFERENCES) buf_printf(&d.lines, "\n  … %d more", d.n - SHOWN_DIFFERENCES);
    status st = ST_OK;
    if (d.n)
        st = status_fail(ST_SHAPE,
                         "%s: is the checkpoint of another model or recipe; resume with the configuration it was "
                         "saved under, or choose another output_dir:%s",
                         info->dir, d.lines.data);
    buf_release(&d.lines);
    return st;
}

/* ---- the state --------------------------------------------------------------------------------------------------------
 */

/* What all ranks exchange at a time: a slice of each one's share, `each` stored elements, rank r's at r·each of `buffer`. */
struct slices {
    int64_t each;
    char *buffer;
    size_t *bytes, *offset; /* [ranks] */
};

enum { EXCHANGED_BYTES = 32 << 20 };

static struct range slice_of(const struct ckpt_class *c, int rank, int ranks, int64_t each, int64_t round)
{
    struct range all = ckpt_owned(c, rank, ranks);
    return range_meet(all, (struct range){all.lo + round * each, all.lo + (round + 1) * each});
}

/* Slice `round` of every rank's share, from the disk to all ranks. A rank that fails goes on, so that no other waits for it. */
static status exchange_slice(struct comm *comm, struct shard_reader *from, const struct ckpt_class *c, struct slices *s, int64_t round,
                             status st)
{
    size_t size = dtype_bytes(c->dt);
    for (int r = 0; r < comm->size; r++) {
        s->bytes[r] = (size_t)range_count(slice_of(c, r, comm->size, s->each, round)) * size;
        s->offset[r] = (size_t)r * (size_t)s->each * size;
    }
    struct range mine = slice_of(c, comm->rank, comm->size, s->each, round);
    if (!st) st = shard_reader_read(from, mine.lo, mine.hi, s->buffer + s->offset[comm->rank]);
    if (comm->size > 1) TRY(comm->fn->all_gather_in_place(comm, s->buffer, s->bytes, s->offset));
    for (int r = 0; r < comm->size && !st; r++) {
        struct range got = slice_of(c, r, comm->size, s->each, round);
        if (range_count(got)) st = c->write(c->owner, got.lo, range_count(got), s->buffer + s->offset[r]);
    }
    return st;
}

static status load_class(struct comm *comm, const struct ckpt_info *info, const struct ckpt_class *c, int k)
{
    int64_t size = (int64_t)dtype_bytes(c->dt), ranks = comm->size, longest = 0;
    int64_t bytes = EXCHANGED_BYTES / ranks < CKPT_PIECE ? EXCHANGED_BYTES / ranks : CKPT_PIECE;
    struct slices s = {.each = bytes > size ? bytes / size : 1};
    struct shard_reader from = {.dir = info->dir, .m = info->manifest, .k = k};
    for (int r = 0; r < comm->size; r++) {
        int64_t n = range_count(ckpt_owned(c, r, comm->size));
        if (n > longest) longest = n;
    }
    if (s.each > longest) s.each = longest;
    s.buffer = mem_alloc((size_t)(ranks * s.each * size) + 1);
    s.bytes = mem_alloc(2 * (size_t)ranks * sizeof *s.bytes);
    s.offset = s.bytes + ranks;
    status st = ST_OK;
    for (int64_t round = 0; round * s.each < longest; round++) st = exchange_slice(comm, &from, c, &s, round, st);
    shard_reader_close(&from);
    free(s.bytes);
    free(s.buffer);
    return vote_all(comm, st);
}

status ckpt_load(struct comm *comm, const struct ckpt_info *info, const struct ckpt_state *into)
{
    TRY(vote_all(comm, check_same_layout(info, into)));
    for (int k = 0; k < into->n_classes; k++) TRY(load_class(comm, info, &into->classes[k], k));
    return ST_OK;
}
