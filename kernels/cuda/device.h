/* device.h — the device part of the CUDA backend (device.c): which GPU this rank has, memory, streams, events. */
#ifndef TRIMPOT_CUDA_DEVICE_H
#define TRIMPOT_CUDA_DEVICE_H

#include "kernels/backend.h"

/* Picks this rank's GPU and looks whether it serves. Errors are ST_DEVICE and name what was found, what is needed, and the remedy:
 * no driver, driver too old, no GPU, fewer GPUs than ranks of this host, a compute capability below 8.0. Once per process. */
status cuda_device_open(const struct backend_place *place);

extern const struct device cuda_device;
extern const struct backend *cuda_backend; /* what a stream's `be` points to */

size_t cuda_library_bytes(const struct work_bounds *w); /* context, cuBLASLt, cuDNN: an estimate */
const char *cuda_identity(void);                        /* "GPU-4f6a…": the same for two processes on one GPU, and for no others */
const char *cuda_describe(void);                        /* "cuda: NVIDIA H100 80GB HBM3, sm_90, driver 13.0, cuBLASLt 13.0.2" */

#endif
