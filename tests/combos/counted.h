/* counted.h — a backend whose memory is counted: what lies where, at most. */
#ifndef TRIMPOT_COMBOS_COUNTED_H
#define TRIMPOT_COMBOS_COUNTED_H

#include "kernels/backend.h"

static struct {
    const struct backend *inner;
    struct backend outer;
    size_t now[MEM_KINDS], peak[MEM_KINDS];
} counted;

static inline status counted_alloc(enum mem_kind kind, size_t bytes, void **out)
{
    TRY(counted.inner->dev.alloc(kind, bytes, out));
    counted.now[kind] += bytes;
    if (counted.now[kind] > counted.peak[kind]) counted.peak[kind] = counted.now[kind];
    return ST_OK;
}

static inline void counted_free(enum mem_kind kind, void *p, size_t bytes)
{
    counted.now[kind] -= bytes;
    counted.inner->dev.free(kind, p, bytes);
}

static inline const struct backend *counted_wrap(const struct backend *inner)
{
    counted.inner = inner;
    counted.outer = *inner;
    counted.outer.dev.alloc = counted_alloc;
    counted.outer.dev.free = counted_free;
    return &counted.outer;
}

static inline void counted_begin(void)
{
    for (int i = 0; i < MEM_KINDS; i++) counted.now[i] = counted.peak[i] = 0;
}

#endif
