/* memory.h — memory of the emulated device and pinned memory of its host (memory.cc).
 *
 *     │ no access │ canary … │ the allocation, at its end on a multiple of 256 │ canary │ no access │
 *
 * Fresh memory is 0xff, freed memory is out of reach. Device memory can be touched while work of the device runs only, as on a
 * machine with a GPU, where the host cannot touch it at all, and pinned memory not by kernels; what touches what it may not, or a
 * guard, dies by a signal and is told what it was. */
#ifndef TRIMPOT_EMU_MEMORY_H
#define TRIMPOT_EMU_MEMORY_H

#include <cstddef>

#include <cuda_runtime_api.h>

enum memory_kind { MEMORY_DEVICE, MEMORY_PINNED, MEMORY_HOST /* not of ours */ };

cudaError_t memory_start(int device); /* what a process takes by being there: its context */
cudaError_t memory_take(enum memory_kind kind, int device, size_t bytes, void **out);
cudaError_t memory_release(enum memory_kind kind, void *p); /* after everything that could use it has run */
void memory_info(int device, size_t *free_bytes, size_t *total_bytes);

/* What p points to; false with a line on stderr when the bytes from p are not all in one live allocation: WHAT names their use. */
bool memory_covers(const void *p, size_t bytes, const char *what);
bool memory_for_kernel(const void *p, const char *kernel); /* emu_argument's word */
enum memory_kind memory_kind_of(const void *p, int *device);

/* Who runs now, and may touch: what kernels may is device memory, copies both kinds, the host (calls of it too) pinned memory.
 * A change costs as much as there is memory, so a row of kernels makes one. When device memory goes out of reach what surrounds every
 * allocation is looked at: false, with a line on stderr, if something wrote there. */
enum memory_user { USER_HOST, USER_KERNEL, USER_COPY };
bool memory_reach(enum memory_user user, const char *what);
/* From now on work runs beside the host (emu_talk), which may be using pinned memory: that stays within reach. */
void memory_beside_host(void);

#endif
