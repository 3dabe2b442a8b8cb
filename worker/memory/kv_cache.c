#include "worker/memory/kv_cache.h"

#include <stdlib.h>

#include "kernels/base/text.h"

void kv_cache_init(struct kv_cache *c, int64_t layers, int64_t rows, int64_t width, dtype dt)
{
    *c = (struct kv_cache){.layers = layers, .rows = rows, .width = width, .dt = dt};
    c->k = mem_alloc((size_t)layers * sizeof *c->k);
    c->v = mem_alloc((size_t)layers * sizeof *c->v);
}

void kv_cache_release(struct kv_cache *c)
{
    free(c->k);
    free(c->v);
    *c = (struct kv_cache){0};
}

void kv_cache_layout(struct kv_cache *c, struct arena *kept)
{
    size_t bytes = (size_t)(c->rows * c->width) * dtype_bytes(c->dt);
    for (int64_t l = 0; c->rows && l < c->layers; l++) {
        c->k[l] = arena_take(kept, bytes, "key cache");
        c->v[l] = arena_take(kept, bytes, "value cache");
    }
}

static status put(struct kv_cache *c, struct stream *s, void *layer, const int32_t *rows, tensor *t)
{
    tensor whole = tensor_2d(layer, c->dt, c->rows, c->width);
    TRY(op_scatter_rows(s, &(struct rows_args){.src = *t, .dst = whole, .rows = rows, .n = t->dim[0]}));
    *t = whole;
    return ST_OK;
}

status kv_cache_put(struct kv_cache *c, struct stream *s, int64_t layer, const int32_t *rows, tensor *k, tensor *v)
{
    if (!c->rows) return ST_OK;
    TRY(put(c, s, c->k[layer], rows, k));
    return put(c, s, c->v[layer], rows, v);
}
