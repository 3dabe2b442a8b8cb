/* settings.h — what the environment says of the emulated machine, and what it makes fail.
 *
 *     TRIMPOT_EMU_ORDER=any|last|first  of streams: any that is legal; everything as late as can be, or at once
 *     TRIMPOT_EMU_DEVICES=n         GPUs of this host (16); CUDA_VISIBLE_DEVICES chooses among them
 *     TRIMPOT_EMU_SM=90             their compute capability
 *     TRIMPOT_EMU_DRIVER=13000      CUDA version of the driver; 0: there is none
 *     TRIMPOT_EMU_MEMORY=bytes      of each GPU (8 GiB; 16G and 500M are understood), 512 MiB of it the context
 *     TRIMPOT_EMU_COUNT=1           in the end, how many pieces of work the host has launched (queue.cc)
 *     TRIMPOT_EMU_WITHOUT=label     of a wait (event_wait, event_sync, sync of kernels/backend.h) that is left out (waits.cc)
 *     TRIMPOT_EMU_FAIL=what:n,…     the n-th such call of this process fails:
 *         alloc    cudaMalloc: out of memory          pinned  cudaMallocHost: out of memory
 *         launch   a kernel is not launched           copy    a copy or memset is not queued
 *         host     a call of the host is not queued   stream  the n-th piece of work faults when it runs: a later sync tells
 *         nccl     a group of NCCL never ends         join    a communicator of NCCL waits for ever (nccl.cc) */
#ifndef TRIMPOT_EMU_SETTINGS_H
#define TRIMPOT_EMU_SETTINGS_H

#include <cstddef>
#include <cstdint>

constexpr int MAX_DEVICES = 64;

enum emu_order { ORDER_ANY, ORDER_LAST, ORDER_FIRST };
enum emu_failure { FAIL_ALLOC, FAIL_PINNED, FAIL_LAUNCH, FAIL_COPY, FAIL_HOST, FAIL_STREAM, FAIL_NCCL, FAIL_JOIN, FAILURES };

struct emu_settings {
    emu_order order;
    int devices, sm, driver;
    size_t memory;
    long fail[FAILURES]; /* which call; 0: none */
};

const struct emu_settings &settings(void); /* read once */

bool fails_now(enum emu_failure what); /* counts this call */
size_t page_bytes(void);

#endif
