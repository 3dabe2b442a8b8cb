/* transport_device.c — finds and loads what joins the ranks' devices. */
#include <stdio.h>

#include "collectives/transport.h"
#include "kernels/base/log.h"
#include "kernels/base/plugin.h"

status transport_link(struct comm *c, const struct backend *be, bool fast)
{
    char file[64];
    transport_link_fn *link = NULL;
    snprintf(file, sizeof file, "trimpot_%s_nccl.so", be->name);
    if (c->size == 1 || c->links || be->tensors_in != MEM_DEVICE) return ST_OK;
    int64_t built = plugin_exists(NULL, file);
    TRY(c->fn->all_reduce_i64(c, &built, 1, COMM_MIN));
    if (!built) {
        if (c->rank == 0) log_warn("this trimpot was built without NCCL: gradients go from GPU to GPU through the hosts, slowly");
        return ST_OK;
    }
    TRY(comm_agree(c, plugin_function(NULL, file, "trimpot_transport_link", "NCCL, which joins the GPUs of several ranks,",
                                      "install NCCL where the dynamic linker finds libnccl.so.2, or run one rank", &link)));
    TRY(comm_agree(c, link(c, &c->links)));
    c->links->fast = fast;
    log_debug("gradients cross ranks through %s", c->links->what);
    return ST_OK;
}

void transport_unlink(struct comm *c, bool well)
{
    if (c->links) c->links->close(c->links, well);
    c->links = NULL;
}
