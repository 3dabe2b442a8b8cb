/* transport_device.c — finds and loads what joins the ranks' devices. */
#include <stdio.h>
#include <stdlib.h>

#include "collectives/transport.h"
#include "kernels/base/log.h"
#include "kernels/base/plugin.h"
#include "kernels/base/text.h"

/* Every way of every call once, with an element or two: connections are made and their memory is taken here, not in the first step. */
static status warm_up(struct comm *c, const struct backend *be, struct stream *s, float *memory)
{
    struct device_links *l = c->links;
    int64_t P = c->size;
    struct tree_rank *ranks = mem_alloc((size_t)P * sizeof *ranks);
    int64_t *at = mem_alloc(2 * (size_t)P * sizeof *at), *count = at + P;
    struct transport x = {
        .fn = l->fn, .comm = c, .ranks = ranks, .n_nodes = (int)P, .max_nodes = 1, .each = 1, .landing = memory, .links = l, .stream = s};
    struct round r = {.at = at, .count = count};
    void *mine = memory + P;
    for (int i = 0; i < c->size; i++) ranks[i] = (struct tree_rank){i, 1}, at[i] = i, count[i] = 1;
    status st = be->dev.zero(s, memory, (size_t)(4 * P) * sizeof *memory);
    if (!st) st = l->fn->exchange(&x, &r, &mine);
    if (!st) st = l->fn->gather(&x, &r, mine);
    for (int i = 0; i < c->size; i++) at[i] = 2 * i;
    if (!st) st = l->fn->gather(&x, &r, mine); /* none behind the other */
    if (!st && l->fast) st = l->fn->add(&x, memory, P);
    if (!st) st = be->dev.sync(s, "joining the GPUs of all ranks");
    free(ranks);
    free(at);
    return st;
}

static status try_links(struct comm *c, const struct backend *be)
{
    struct stream *s = NULL;
    void *memory = NULL;
    size_t bytes = 4 * (size_t)c->size * sizeof(float);
    status st = be->dev.stream_open(&s, 1);
    if (!st) st = be->dev.alloc(MEM_DEVICE, bytes, &memory);
    st = comm_agree(c, st); /* all ranks warm up, or none */
    if (!st) st = comm_agree(c, warm_up(c, be, s, memory));
    if (memory) be->dev.free(MEM_DEVICE, memory, bytes);
    if (s) be->dev.stream_close(s);
    return st;
}

/* What NCCL 2.28 takes: 512 MiB for messages over the network even where there is none (NVIDIA/nccl#2363); of each of its 16 channels
 * (transport_nccl.c) what a ring's neighbour writes to, by three protocols; and 4 MiB of each channel for each peer that sends within the
 * host. A run on GPUs has yet to confirm it. */
size_t transport_library_bytes(const struct comm *c)
{
    const size_t network = (size_t)512 << 20, ring = 16 * ((size_t)6 << 20), peer = 16 * ((size_t)4 << 20);
    return c->links ? network + ring + peer * (size_t)(c->local_size - 1) : 0;
}

size_t transport_held_bytes(const struct comm *c) { return c->links ? c->links->held_bytes : 0; }

status transport_link(struct comm *c, const struct backend *be, bool fast)
{
    size_t before = 0, after = 0, all;
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
    TRY(comm_agree(c, be->dev.mem_info(MEM_DEVICE, &before, &all)));
    TRY(comm_agree(c, link(c, &c->links)));
    c->links->fast = fast;
    TRY(try_links(c, be));
    TRY(comm_agree(c, be->dev.mem_info(MEM_DEVICE, &after, &all)));
    c->links->held_bytes = before > after ? before - after : 0;
    log_debug("gradients cross ranks through %s", c->links->what);
    return ST_OK;
}

static void nothing_to_part(struct device_links *l, bool well) { (void)l, (void)well; }

void transport_imagine(struct comm *c, bool fast)
{
    static const struct transport_table queued = {.name = "NCCL", .piece = TRANSPORT_QUEUED_PIECE, .queued = true};
    static struct device_links links = {.fn = &queued, .what = "NCCL", .close = nothing_to_part};
    links.fast = fast;
    if (c->size > 1 && !c->links) c->links = &links;
}

void transport_unlink(struct comm *c, bool well)
{
    if (c->links) c->links->close(c->links, well);
    c->links = NULL;
}
