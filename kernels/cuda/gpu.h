/* gpu.h — which GPU this rank has (gpu.c; the checks of it are cuda_device_open's, device.h). */
#ifndef TRIMPOT_CUDA_GPU_H
#define TRIMPOT_CUDA_GPU_H

#include <stddef.h>

#define GPU_CONTEXT_BYTES ((size_t)512 << 20)

int gpu_index(void);        /* among the visible ones */
const char *gpu_name(void); /* "NVIDIA H100 80GB HBM3" */

#endif
