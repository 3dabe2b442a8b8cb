/* Loading at any number of ranks: each reads and verifies its own share, then all exchange. */
#include <stdlib.h>
#include <string.h>

#include "checkpoints/ckpt.h"
#include "checkpoints/ckpt_shard.h"
#include "checkpoints/ckpt_vote.h"
#include "kernels/base/text.h"

enum { SHOWN_DIFFERENCES = 12 };

struct diff {
    struct buf lines;
    int n;
};

static bool differs(struct diff *d) { return ++d->n <= SHOWN_DIFFERENCES; }

static void compare_classes(const struct ckpt_manifest *m, const struct ckpt_state *s, struct diff *d)
{
    for (int k = 0; k < m->n_classes || k < s->n_classes; k++) {
        const struct ckpt_class *a = k < m->n_classes ? &m->classes[k] : NULL,
                                *b = k < s->n_classes ? &s->classes[k] : NULL;
        if (a && b && strcmp(a->name, b->name) == 0 && a->dt == b->dt && a->count == b->count) continue;
        if (!differs(d)) continue;
        buf_printf(&d->lines, "\n  class %d: ", k);
        if (a)
            buf_printf(&d->lines, "checkpoint has %s, %lld × %s; ", a->name, (long long)a->count, dtype_name(a->dt));
        else
            buf_text(&d->lines, "checkpoint has none; ");
        if (b)
            buf_printf(&d->lines, "this run has %s, %lld × %s", b->name, (long long)b->count, dtype_name(b->dt));
        else
            buf_text(&d->lines, "this run has none");
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
        const struct ckpt_tensor *a = i < m->n_tensors ? &m->tensors[i] : NULL,
                                 *b = i < s->n_tensors ? &s->tensors[i] : NULL;
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

/* Every rank reads its share of every class. */
static status read_shares(struct comm *comm, const struct ckpt_info *info, const struct ckpt_state *into)
{
    for (int k = 0; k < into->n_classes; k++) {
        const struct ckpt_class *c = &into->classes[k];
        int64_t lo = ckpt_bound(c->count, comm->rank, comm->size),
                hi = ckpt_bound(c->count, comm->rank + 1, comm->size);
        TRY(shard_read_range(info->dir, info->manifest, k, lo, hi, (char *)c->data + (size_t)lo * dtype_bytes(c->dt)));
    }
    return ST_OK;
}

static status exchange_shares(struct comm *comm, const struct ckpt_state *into)
{
    size_t *bytes = mem_alloc(2 * (size_t)comm->size * sizeof *bytes), *offset = bytes + comm->size;
    status st = ST_OK;
    for (int k = 0; k < into->n_classes && !st; k++) {
        const struct ckpt_class *c = &into->classes[k];
        for (int r = 0; r < comm->size; r++) {
            int64_t lo = ckpt_bound(c->count, r, comm->size), hi = ckpt_bound(c->count, r + 1, comm->size);
            offset[r] = (size_t)lo * dtype_bytes(c->dt);
            bytes[r] = (size_t)(hi - lo) * dtype_bytes(c->dt);
        }
        st = comm->fn->all_gather_in_place(comm, c->data, bytes, offset);
    }
    free(bytes);
    return st;
}

status ckpt_load(struct comm *comm, const struct ckpt_info *info, const struct ckpt_state *into)
{
    status st = check_same_layout(info, into);
    if (!st) st = read_shares(comm, info, into);
    TRY(vote_all(comm, st));
    return comm->size > 1 ? exchange_shares(comm, into) : ST_OK;
}
