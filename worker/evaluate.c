#include "worker/evaluate.h"

#include <math.h>

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
        TRY(trainer_evaluate(&x->trainer, b < batches ? &p : NULL, &total));
    }
    *loss = supervised ? total / (double)supervised : NAN;
    return ST_OK;
}
