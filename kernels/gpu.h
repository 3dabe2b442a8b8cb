/* gpu.h — GPUs that are not here: what is known of them, and a backend that only describes.
 *
 * A plan for a GPU needs the sizes that a run there would have, and nothing else of it. gpu_backend has the memory of the table's
 * row and the workspace formulas of the plugin that a run would load, asked through a second door that touches no driver; it
 * allocates nothing and computes nothing. */
#ifndef TRIMPOT_GPU_H
#define TRIMPOT_GPU_H

#include "kernels/backend.h"

struct gpu {
    const char *name, *full; /* as typed, as on the box */
    const char *device;      /* a part of the name that its driver says, which no other's has */
    double memory_gib;       /* that CUDA shows of it */
    double tflops;           /* of bf16 products summed in f32, dense, as published: what MFU is a share of */
    double gemm_tflops;      /* the best product that was measured; an estimate unless … */
    bool gemm_measured;
    double hbm_tb;    /* TB/s, as published */
    double pcie_gb;   /* GB/s each way to the host, as measured for that generation of PCIe */
    double nvlink_gb; /* GB/s each way to the host's other GPUs, as published; 0 = over PCIe */
};

extern const struct gpu gpu_table[];
extern const int gpu_count;

/* A micro-batch there has a multiple of so many tokens (token_unit of struct backend). */
enum { GPU_TOKEN_UNIT = 64 };
/* Rows of logits at a time (head_rows of struct backend): a product of fewer does not fill the GPU. */
enum { GPU_HEAD_ROWS = 4096 };

/* By its name here, or by its driver's. ST_USAGE with the names there are. */
status gpu_find(const char *name, const struct gpu **out);

/* The row of the device that a driver's name, or a text with it, stands for; NULL: it is not in the table. */
const struct gpu *gpu_known(const char *device);

/* The describing backend of one GPU; one at a time. */
status gpu_backend(const struct gpu *g, const struct backend **out);

/* NULL when the sizes are those of the CUDA backend; else why they are an estimate of ours. */
const char *gpu_estimated(void);

/* The plugin's second symbol, trimpot_backend_sizes: what prepare and library_bytes of a run would say. */
typedef void backend_sizes_fn(const struct work_bounds *w, size_t *workspace, size_t *library);

#endif
