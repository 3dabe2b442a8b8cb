/* kv_cache.h — keys and values of tokens that earlier batches brought, for generation.
 *
 *   layer 0   k [rows, K·D]  v [rows, K·D]      a sequence has `doc_tokens` rows of its own, filled from the front;
 *   layer 1   k              v                  attention reads them in place (attn_fwd's key_start and docs->past)
 *   …
 * A cache of no rows (training, eval) takes no memory and changes nothing. */
#ifndef TRIMPOT_KV_CACHE_H
#define TRIMPOT_KV_CACHE_H

#include "kernels/backend.h"
#include "kernels/base/arena.h"

struct kv_cache {
    int64_t layers, rows, width; /* width: K·D */
    dtype dt;
    void **k, **v; /* [layers] */
};

void kv_cache_init(struct kv_cache *c, int64_t layers, int64_t rows, int64_t width, dtype dt);
void kv_cache_layout(struct kv_cache *c, struct arena *kept);
void kv_cache_release(struct kv_cache *c);

/* Puts k, v [n, width] of the batch at rows[n] of the layer's cache, and turns both into views of the whole cache.
 * Without rows in the cache, k and v stay what they are. */
status kv_cache_put(struct kv_cache *c, struct stream *s, int64_t layer, const int32_t *rows, tensor *k, tensor *v);

#endif
