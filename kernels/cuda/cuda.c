/* cuda.c — the table of the CUDA backend, and its opening. The emulated device is the same table under another name. */
#include <string.h>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/stream.h"
#include "kernels/gpu.h"

#define CUDA_LAUNCHER(name, args) op_##name##_fn name##_cuda;
TRIMPOT_OPS(CUDA_LAUNCHER)
#define CUDA_SLOT(name, args) .name = name##_cuda,

/* Ops that need scratch; prepare takes the largest. */
#define CUDA_WORKSPACES(X)   X(gemm) X(attn_fwd) X(attn_bwd) X(rmsnorm_bwd) X(colsum) X(embed_bwd) X(rescale_bwd)
#define CUDA_WORKSPACE(name) cuda_workspace_fn name##_cuda_workspace;
CUDA_WORKSPACES(CUDA_WORKSPACE)

static size_t workspace_of(const struct work_bounds *w)
{
#define CUDA_WORKSPACE_SLOT(name) name##_cuda_workspace,
    cuda_workspace_fn *const needs[] = {CUDA_WORKSPACES(CUDA_WORKSPACE_SLOT)};
    size_t most = 0;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
        size_t bytes = needs[i](w);
        if (bytes > most) most = bytes;
    }
    return most;
}

static status prepare(struct stream *s, const struct work_bounds *w)
{
    s->workspace_bytes = workspace_of(w);
    return ST_OK;
}

/* The plugin's second symbol (kernels/gpu.h): for plans, before and without a device. */
backend_sizes_fn trimpot_backend_sizes;
void trimpot_backend_sizes(const struct work_bounds *w, size_t *workspace, size_t *library)
{
    *workspace = workspace_of(w);
    *library = cuda_library_bytes(w);
}

static struct backend backend = {
    .tensors_in = MEM_DEVICE,
    .joins_products = true,
    .token_unit = GPU_TOKEN_UNIT,
    .head_rows = GPU_HEAD_ROWS,
    .ops = {TRIMPOT_OPS(CUDA_SLOT)},
    .prepare = prepare,
    .library_bytes = cuda_library_bytes,
    .library = "CUDA context, cuBLASLt, cuDNN",
    .describe = cuda_describe,
    .unordered = attention_unordered,
    .identity = cuda_identity,
};

/* The plugin's one symbol (kernels/backend.h). */
status trimpot_backend_open(const struct backend_place *place, const struct backend **out);
status trimpot_backend_open(const struct backend_place *place, const struct backend **out)
{
    TRY(cuda_device_open(place));
    backend.name = TRIMPOT_CUDA_NAME;
    backend.dev = cuda_device;
    *out = &backend;
    cuda_backend = &backend;
    return ST_OK;
}
