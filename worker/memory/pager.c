#include "worker/memory/pager.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"

static size_t bytes_of(const struct pager *p, const struct pager_window *x, int k) { return (size_t)range_count(x->of[k]) * p->element[k]; }

static size_t aligned(size_t bytes) { return (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN; }

/* ---- who stays ----------------------------------------------------------------------------------------------------------- */

/* Windows from `first` on leave where they may. */
static void send_away(struct pager *p, int first)
{
    int before = -1, first_away = -1;
    p->away = 0;
    memset(p->home_bytes, 0, sizeof p->home_bytes);
    memset(p->pool_bytes, 0, sizeof p->pool_bytes);
    memset(p->place_bytes, 0, sizeof p->place_bytes);
    for (int i = 0; i < p->n; i++) {
        struct pager_window *x = &p->window[i];
        bool leaves = i >= first && x->may_leave;
        x->place = leaves ? p->away++ % PAGER_PLACES : -1;
        for (int k = 0; k < PAGER_VECTORS; k++) {
            size_t *end = leaves ? &p->pool_bytes[k] : &p->home_bytes[k], bytes = bytes_of(p, x, k);
            x->at[k] = aligned(*end);
            *end = x->at[k] + bytes;
            if (leaves && bytes > p->place_bytes[k]) p->place_bytes[k] = bytes;
        }
        if (!leaves) continue;
        if (before >= 0) p->next[before] = i;
        if (first_away < 0) first_away = i;
        before = i;
    }
    if (before >= 0) p->next[before] = first_away;
}

void pager_init(struct pager *p, struct stream *s, const size_t element[PAGER_VECTORS])
{
    *p = (struct pager){.be = s->be, .s = s, .current = -1, .last = -1};
    memcpy(p->element, element, sizeof p->element);
    for (int k = 0; k < PAGER_PLACES; k++) p->holds[k] = -1;
}

void pager_cut(struct pager *p, struct pager_window *windows, int n)
{
    free(p->window);
    p->window = windows;
    p->n = n;
    p->next = mem_grow(p->next, (size_t)(n + 1) * sizeof *p->next);
    send_away(p, n);
}

static status open_ways(struct pager *p)
{
    const struct device *dev = &p->be->dev;
    if (p->in) return ST_OK;
    TRY(dev->stream_open(&p->in, 1));
    p->in->name = "states in";
    TRY(dev->stream_open(&p->out, 1));
    p->out->name = "states out";
    for (int k = 0; k < PAGER_PLACES; k++) {
        TRY(dev->event_open(&p->here[k]));
        TRY(dev->event_open(&p->updated[k]));
        TRY(dev->event_open(&p->back[k]));
    }
    return ST_OK;
}

status pager_fit(struct pager *p, size_t bytes)
{
    send_away(p, p->n);
    size_t all = pager_device_bytes(p);
    for (int first = p->n - 1; first >= 0 && pager_device_bytes(p) > bytes; first--) send_away(p, first);
    if (pager_device_bytes(p) >= all) send_away(p, p->n);
    return p->away ? open_ways(p) : ST_OK;
}

void pager_release(struct pager *p)
{
    for (int k = 0; k < PAGER_PLACES; k++) {
        if (p->here[k]) p->be->dev.event_close(p->here[k]);
        if (p->updated[k]) p->be->dev.event_close(p->updated[k]);
        if (p->back[k]) p->be->dev.event_close(p->back[k]);
    }
    if (p->in) p->be->dev.stream_close(p->in);
    if (p->out) p->be->dev.stream_close(p->out);
    free(p->window);
    free(p->next);
    *p = (struct pager){0};
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

static size_t sum(const size_t bytes[PAGER_VECTORS])
{
    size_t all = 0;
    for (int k = 0; k < PAGER_VECTORS; k++) all += aligned(bytes[k]);
    return all;
}

size_t pager_home_bytes(const struct pager *p) { return sum(p->home_bytes); }

size_t pager_away_bytes(const struct pager *p) { return sum(p->pool_bytes); }

size_t pager_device_bytes(const struct pager *p) { return sum(p->home_bytes) + PAGER_PLACES * sum(p->place_bytes); }

void pager_layout(struct pager *p, struct arena *device, struct arena *pinned, const char *const row[PAGER_VECTORS])
{
    for (int k = 0; k < PAGER_VECTORS; k++) {
        if (p->home_bytes[k]) p->home[k] = arena_take(device, p->home_bytes[k], "%s", row[k]);
        for (int i = 0; i < PAGER_PLACES && p->place_bytes[k]; i++)
            p->place[i][k] = arena_take(device, p->place_bytes[k], "window of %s", row[k]);
        if (p->pool_bytes[k]) p->pool[k] = arena_take(pinned, p->pool_bytes[k], "%s", row[k]);
    }
}

status pager_zero(struct pager *p)
{
    for (int k = 0; k < PAGER_VECTORS; k++) {
        if (p->home_bytes[k]) TRY(p->be->dev.zero(p->s, p->home[k], p->home_bytes[k]));
        if (p->pool_bytes[k]) memset(p->pool[k], 0, p->pool_bytes[k]);
    }
    return ST_OK;
}

int pager_find(const struct pager *p, int64_t index)
{
    int low = 0, high = p->n;
    while (low < high) {
        int middle = (low + high) / 2;
        if (p->window[middle].index.hi > index)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* ---- on the way ---------------------------------------------------------------------------------------------------------- */

static status copy(const struct pager *p, struct stream *on, int w, bool out)
{
    const struct pager_window *x = &p->window[w];
    for (int k = 0; k < PAGER_VECTORS; k++) {
        size_t bytes = bytes_of(p, x, k);
        if (!bytes) continue;
        void *place = p->place[x->place][k], *pool = (char *)p->pool[k] + x->at[k];
        TRY(p->be->dev.copy(on, out ? pool : place, out ? place : pool, bytes));
    }
    return ST_OK;
}

/* It is in its place, or on its way. */
static status fetch(struct pager *p, int w)
{
    int place = p->window[w].place;
    if (p->holds[place] == w) return ST_OK;
    p->holds[place] = w;
    TRY(p->be->dev.event_wait(p->back[place], p->in, "states written back"));
    TRY(copy(p, p->in, w, false));
    return p->be->dev.event_record(p->here[place], p->in);
}

/* The window in use goes home, and stays in its place until another comes there. What is asked of s goes through s->be: a stretch of it
 * may be being recorded (kernels/record.h). */
static status leave(struct pager *p)
{
    if (p->current < 0) return ST_OK;
    int place = p->window[p->current].place;
    TRY(p->s->be->dev.event_record(p->updated[place], p->s));
    TRY(p->be->dev.event_wait(p->updated[place], p->out, "states updated"));
    TRY(copy(p, p->out, p->current, true));
    TRY(p->be->dev.event_record(p->back[place], p->out));
    p->last = p->current;
    p->current = -1;
    return ST_OK;
}

status pager_enter(struct pager *p, int w)
{
    const struct pager_window *x = &p->window[w];
    if (w == p->current) return ST_OK;
    TRY(leave(p));
    if (x->place < 0) return ST_OK;
    TRY(fetch(p, w));
    TRY(p->s->be->dev.event_wait(p->here[x->place], p->s, "states here"));
    if (p->last >= 0) p->next[p->last] = w;
    p->current = w;
    return p->window[p->next[w]].place == x->place ? ST_OK : fetch(p, p->next[w]);
}

status pager_rest(struct pager *p)
{
    TRY(leave(p));
    return p->last < 0 ? ST_OK : fetch(p, p->next[p->last]);
}

/* ---- between steps ------------------------------------------------------------------------------------------------------- */

static status settle(struct pager *p)
{
    if (!p->away) return ST_OK;
    assert(p->current < 0);
    TRY(p->be->dev.sync(p->s, "states"));
    TRY(p->be->dev.sync(p->out, "states out"));
    return p->be->dev.sync(p->in, "states in");
}

/* `to` or `from` is the host's side. */
static status move(struct pager *p, struct stage *g, int k, int64_t at, int64_t n, char *to, const char *from)
{
    size_t element = p->element[k];
    TRY(settle(p));
    for (int i = 0; i < p->n; i++) {
        const struct pager_window *x = &p->window[i];
        struct range r = range_meet(x->of[k], (struct range){at, at + n});
        if (!range_count(r)) continue;
        size_t host = (size_t)(r.lo - at) * element, bytes = (size_t)range_count(r) * element;
        char *there = (char *)(x->place < 0 ? p->home[k] : p->pool[k]) + x->at[k] + (size_t)(r.lo - x->of[k].lo) * element;
        if (x->place < 0)
            TRY(to ? stage_out(g, to + host, there, bytes) : stage_in(g, there, from + host, bytes));
        else
            memcpy(to ? to + host : there, to ? there : from + host, bytes);
    }
    return ST_OK;
}

status pager_read(struct pager *p, struct stage *g, int k, int64_t at, int64_t n, void *to_host)
{
    return move(p, g, k, at, n, to_host, NULL);
}

status pager_write(struct pager *p, struct stage *g, int k, int64_t at, int64_t n, const void *from_host)
{
    for (int i = 0; i < PAGER_PLACES; i++) p->holds[i] = -1;
    return move(p, g, k, at, n, NULL, from_host);
}
