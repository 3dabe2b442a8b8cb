#include "checkpoints/ckpt_vote.h"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/text.h"

struct outcome {
    int32_t code;
    char message[2044];
};

static struct outcome outcome_of(status st)
{
    struct outcome o = {.code = (int32_t)st};
    if (st) snprintf(o.message, sizeof o.message, "%s", status_message());
    return o;
}

status vote_all(struct comm *c, status mine)
{
    struct outcome own = outcome_of(mine), *all = mem_alloc((size_t)c->size * sizeof *all);
    status st = c->fn->all_gather(c, &own, all, sizeof own);
    for (int r = 0; r < c->size && !st; r++) {
        if (!all[r].code) continue;
        st = status_fail((status)all[r].code, "%s", all[r].message);
        if (c->size > 1) status_prefix(st, "rank %d", r);
    }
    free(all);
    return st;
}

status vote_root(struct comm *c, status mine)
{
    struct outcome o = outcome_of(mine);
    TRY(c->fn->bcast(c, &o, sizeof o, 0));
    if (o.code) FAIL((status)o.code, "%s", o.message);
    return ST_OK;
}
