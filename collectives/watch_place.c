#include "collectives/watch_place.h"

#include <stdatomic.h>
#include <stdio.h>

#include "collectives/watch.h"

static const char *const PHASES[WATCH_PHASES] = {
    [WATCH_START] = "start",     [WATCH_DATA] = "data",        [WATCH_LOAD] = "load",
    [WATCH_COMPUTE] = "compute", [WATCH_REDUCE] = "reduction", [WATCH_UPDATE] = "update",
    [WATCH_EVAL] = "evaluation", [WATCH_SAVE] = "save",        [WATCH_EXPORT] = "export",
};

static struct {
    _Atomic int64_t place; /* step · 256 + phase */
    int rank, ranks;
    char host[64];
} here = {.ranks = 1};

void watch_at(enum watch_phase phase, int64_t step) { atomic_store_explicit(&here.place, step * 256 + phase, memory_order_relaxed); }

int64_t watch_place_packed(void) { return atomic_load_explicit(&here.place, memory_order_relaxed); }

void watch_place_text(int64_t packed, char text[WATCH_PLACE_BYTES])
{
    int64_t step = packed / 256, phase = packed % 256;
    const char *name = phase >= 0 && phase < WATCH_PHASES ? PHASES[phase] : "?";
    if (step > 0)
        snprintf(text, WATCH_PLACE_BYTES, "step %lld, %s", (long long)step, name);
    else
        snprintf(text, WATCH_PLACE_BYTES, "%s", name);
}

void watch_place_open(int rank, int ranks, const char *host)
{
    here.rank = rank;
    here.ranks = ranks;
    snprintf(here.host, sizeof here.host, "%s", host);
}

const char *watch_place(void)
{
    static _Thread_local char text[WATCH_PLACE_BYTES + 128];
    char place[WATCH_PLACE_BYTES];
    if (here.ranks == 1) return "";
    watch_place_text(watch_place_packed(), place);
    snprintf(text, sizeof text, " (rank %d of %d on %s, %s)", here.rank, here.ranks, here.host, place);
    return text;
}
