#include "worker/evaluate.h"

#include <math.h>

/* Adds the token losses of one batch per rank, in rank order, to *total. p NULL: this rank has none. */
static status add_round(struct session *x, struct pass *p, double *total)
{
    double *mine = &x->rank_losses[x->comm->rank];
    *mine = 0;
    if (p) {
        TRY(model_run(p, tensor_1d(x->batch_loss, DT_F64, 1)));
        TRY(x->be->dev.copy(x->s, mine, x->batch_loss, sizeof *mine));
        TRY(x->be->dev.sync(x->s, "validation loss"));
    }
    TRY(x->comm->fn->all_gather(x->comm, mine, x->rank_losses, sizeof *mine));
    for (int r = 0; r < x->comm->size; r++) *total += x->rank_losses[r];
    return ST_OK;
}

status evaluate(struct session *x, const struct dataset *d, int64_t batch, double *loss)
{
    struct item_order order = {.data = d};
    int64_t items = dataset_items(d), batches = (items + batch - 1) / batch, tokens, supervised;
    double total = 0;
    batch_count(&order, 0, items, &tokens, &supervised);
    /* One batch per rank and round; a round's losses are added in batch order. */
    for (int64_t first = 0; first < batches; first += x->comm->size) {
        int64_t b = first + x->comm->rank;
        struct pass p = {.m = &x->model, .s = x->s, .batch = &x->batcher.batch};
        if (b < batches) TRY(batch_fill(&x->batcher, &order, b * batch, batch));
        TRY(add_round(x, b < batches ? &p : NULL, &total));
    }
    *loss = supervised ? total / (double)supervised : NAN;
    return ST_OK;
}
