/* waits.cc — the plugin's symbol, around cuda.c's: the device of TRIMPOT_EMU_WITHOUT's label is one whose text forgot that wait. (CUDA
 * knows no labels, so what leaves one out stands above it, in the device table.) */
#undef trimpot_backend_open /* a name of emu_runtime's own for cuda.c's: CMakeLists.txt */

#include <cstdlib>
#include <cstring>

extern "C" {
#include "kernels/backend.h"

backend_open_fn emu_backend_inside;   /* cuda.c's */
backend_open_fn trimpot_backend_open; /* what the program asks for */
}

static const char *without;
static struct device whole; /* as cuda.c has it */

static bool forgotten(const char *label) { return !strcmp(label, without); }

static status wait_on_stream(struct event *e, struct stream *s, const char *label)
{
    return forgotten(label) ? ST_OK : whole.event_wait(e, s, label);
}

static status wait_for_event(struct event *e, const char *label) { return forgotten(label) ? ST_OK : whole.event_sync(e, label); }

static status wait_for_stream(struct stream *s, const char *label) { return forgotten(label) ? ST_OK : whole.sync(s, label); }

status trimpot_backend_open(const struct backend_place *place, const struct backend **out)
{
    if (status st = emu_backend_inside(place, out)) return st;
    without = getenv("TRIMPOT_EMU_WITHOUT");
    if (!without || !*without) return ST_OK;
    struct device *table = &const_cast<struct backend *>(*out)->dev; /* cuda.c filled it just now */
    whole = *table;
    table->event_wait = wait_on_stream;
    table->event_sync = wait_for_event;
    table->sync = wait_for_stream;
    return ST_OK;
}
