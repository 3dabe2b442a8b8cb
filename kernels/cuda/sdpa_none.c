/* sdpa_none.c — in place of sdpa.c where this trimpot was built without cuDNN's header. */
#include "kernels/cuda/sdpa.h"

status sdpa_open(const char *device_json, int major, struct sdpa **out)
{
    (void)device_json, (void)major, (void)out;
    FAIL(ST_NOT_BUILT, "no cuDNN: this trimpot was built without its header");
}

/* Never reached: there is no struct sdpa. */
void sdpa_close(struct sdpa *d) { (void)d; }
const char *sdpa_describe(const struct sdpa *d) { return (void)d, ""; }
status sdpa_plan(struct sdpa *d, const struct sdpa_shape *s, const struct sdpa_plan **out)
{
    (void)d, (void)s, (void)out;
    FAIL(ST_NOT_BUILT, "no cuDNN");
}
status sdpa_run(struct sdpa *d, const struct sdpa_plan *p, void *cuda_stream, const struct sdpa_call *c)
{
    (void)d, (void)p, (void)cuda_stream, (void)c;
    FAIL(ST_NOT_BUILT, "no cuDNN");
}
