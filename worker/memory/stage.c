#include "worker/memory/stage.h"

#include <string.h>

enum { HALF = STAGE_BYTES / 2 };

status stage_init(struct stage *g, struct stream *s, size_t raw_bytes)
{
    *g = (struct stage){.s = s, .apart = s->be->tensors_in == MEM_DEVICE};
    if (!g->apart) return ST_OK;
    g->raw_bytes = raw_bytes;
    for (int i = 0; i < 2; i++) TRY(s->be->dev.event_open(&g->free[i]));
    return ST_OK;
}

void stage_layout(struct stage *g, void *raw, struct arena *pinned)
{
    if (!g->apart) return;
    for (int i = 0; i < 2; i++) g->half[i] = arena_take(pinned, HALF, "weights on their way");
    g->raw = raw;
}

void stage_release(struct stage *g)
{
    for (int i = 0; i < 2; i++)
        if (g->free[i]) g->s->be->dev.event_close(g->free[i]);
    *g = (struct stage){0};
}

static status next_half(struct stage *g)
{
    g->turn = !g->turn;
    return g->s->be->dev.event_sync(g->free[g->turn], "stage in");
}

status stage_in(struct stage *g, void *tensors, const void *host, size_t bytes)
{
    const struct device *dev = &g->s->be->dev;
    if (!g->apart) return dev->copy(g->s, tensors, host, bytes);
    for (size_t at = 0; at < bytes; at += HALF) {
        size_t n = bytes - at < HALF ? bytes - at : HALF;
        TRY(next_half(g));
        memcpy(g->half[g->turn], (const char *)host + at, n);
        TRY(dev->copy(g->s, (char *)tensors + at, g->half[g->turn], n));
        TRY(dev->event_record(g->free[g->turn], g->s));
    }
    return ST_OK;
}

/* Piece k + 1 is copied while the host takes piece k. What a half held before, the same stream has copied from it. */
status stage_out(struct stage *g, void *host, const void *tensors, size_t bytes)
{
    const struct device *dev = &g->s->be->dev;
    if (!g->apart) {
        TRY(dev->sync(g->s, "staging"));
        return dev->copy(g->s, host, tensors, bytes);
    }
    size_t pieces = (bytes + HALF - 1) / HALF;
    for (size_t k = 0; k <= pieces; k++) {
        int half = (int)(k & 1);
        if (k < pieces) {
            size_t at = k * HALF, n = bytes - at < HALF ? bytes - at : HALF;
            TRY(dev->copy(g->s, g->half[half], (const char *)tensors + at, n));
            TRY(dev->event_record(g->free[half], g->s));
        }
        if (k == 0) continue;
        size_t at = (k - 1) * HALF, n = bytes - at < HALF ? bytes - at : HALF;
        TRY(dev->event_sync(g->free[!half], "stage out"));
        memcpy((char *)host + at, g->half[!half], n);
    }
    return ST_OK;
}

status stage_raw(struct stage *g, const void *host, size_t bytes, void **tensors)
{
    *tensors = g->apart ? g->raw : (void *)(uintptr_t)host;
    if (!g->apart) return ST_OK;
    if (bytes > g->raw_bytes) FAIL(ST_FAIL, "staging: %zu bytes in one piece, planned are %zu", bytes, g->raw_bytes);
    return stage_in(g, g->raw, host, bytes);
}

status stage_look(struct stage *g, const void *tensors, size_t bytes, void *room, const void **host)
{
    *host = g->apart ? room : tensors;
    return g->apart ? stage_out(g, room, tensors, bytes) : g->s->be->dev.sync(g->s, "staging");
}
