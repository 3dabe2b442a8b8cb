/* gpu.c — which GPU this rank has, whether it serves, and what there is to say of it. */
#include "kernels/cuda/gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "kernels/base/log.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/stream.h"

/* What CMakeLists.txt builds code for: machine code of 8.0 runs on every 8.x, that of 9.0a on 9.0 alone, and what the driver makes
 * of compute_80 on everything newer. */
enum { OLDEST_MAJOR = 8, HOPPER_MAJOR = 9 };
enum { CUDA_MAJOR = CUDART_VERSION / 1000, CUDA_MINOR = CUDART_VERSION % 1000 / 10 };

static struct {
    int index;
    char name[320]; /* of messages */
    char text[512]; /* of describe */
    char uuid[48];
} gpu = {.name = "no GPU", .text = "no GPU"};

int gpu_index(void) { return gpu.index; }
const char *gpu_name(void) { return gpu.name; }
const char *cuda_describe(void)
{
    static char text[sizeof gpu.text + 64];
    snprintf(text, sizeof text, "%s, %s", gpu.text, attention_describe());
    return text;
}
const char *cuda_identity(void) { return gpu.uuid; }

/* ---- the driver ---------------------------------------------------------------------------------------------------------- */

/* The oldest driver of each CUDA, by NVIDIA's table of minor version compatibility. */
static int driver_needed(void) { return CUDA_MAJOR >= 13 ? 580 : CUDA_MAJOR == 12 ? 525 : 450; }

/* "580.65.06 (CUDA 13.0)"; the kernel's module knows its release, the library only CUDA's version. */
static const char *driver_text(int cuda)
{
    static char text[96];
    char line[256] = "", release[32] = "";
    FILE *f = fopen("/proc/driver/nvidia/version", "r");
    if (f) {
        const char *at = fgets(line, sizeof line, f) ? strstr(line, "  ") : NULL;
        if (at) sscanf(at, " %31[0-9.]", release);
        fclose(f);
    }
    snprintf(text, sizeof text, "%s%sCUDA %d.%d%s", release, *release ? " (" : "", cuda / 1000, cuda % 1000 / 10, *release ? ")" : "");
    return text;
}

static status need_driver(int *cuda)
{
    if (cudaDriverGetVersion(cuda) || !*cuda)
        FAIL(ST_DEVICE,
             "device: %s: there is no NVIDIA driver here; one of release %d or newer is needed (CUDA %d.%d): install it, or use device=cpu",
             TRIMPOT_CUDA_NAME, driver_needed(), CUDA_MAJOR, CUDA_MINOR);
    if (*cuda / 1000 < CUDA_MAJOR)
        FAIL(ST_DEVICE,
             "device: %s: the NVIDIA driver here is %s, and this trimpot needs release %d or newer (CUDA %d.%d): update the driver, or use "
             "device=cpu",
             TRIMPOT_CUDA_NAME, driver_text(*cuda), driver_needed(), CUDA_MAJOR, CUDA_MINOR);
    return ST_OK;
}

/* ---- which one ----------------------------------------------------------------------------------------------------------- */

static const char *visibility(void)
{
    static char text[160];
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (!list) return "";
    snprintf(text, sizeof text, " (CUDA_VISIBLE_DEVICES is '%s')", list);
    return text;
}

/* One rank per GPU: rank i of a host has its GPU i. A launcher that has shown each rank one GPU only has chosen already; whether it
 * showed the same one twice, this rank cannot see: the ranks compare what they have (struct backend's `identity`). */
static status choose(const struct backend_place *place)
{
    int visible = 0;
    cudaError_t e = cudaGetDeviceCount(&visible);
    if (e == cudaErrorNoDevice || (!e && !visible)) {
        cudaGetLastError();
        FAIL(ST_DEVICE, "device: %s: the driver shows no GPU%s; one per rank is needed: make it visible, or use device=cpu",
             TRIMPOT_CUDA_NAME, visibility());
    }
    TRY(cuda_status(e, "device: " TRIMPOT_CUDA_NAME ": asking the driver for GPUs"));
    if (visible == 1 && place->local_size > 1) {
        if (place->local_rank == 0)
            log_warn("each of the %d ranks of this host sees one GPU%s: GPUs then cannot read each other's memory; let every rank see all",
                     place->local_size, visibility());
        return ST_OK;
    }
    if (visible < place->local_size)
        FAIL(ST_DEVICE, "device: %s: %d ranks on this host, but %d GPUs are visible%s: start at most one rank per GPU, or use device=cpu",
             TRIMPOT_CUDA_NAME, place->local_size, visible, visibility());
    gpu.index = place->local_rank;
    return ST_OK;
}

/* ---- whether it serves --------------------------------------------------------------------------------------------------- */

static status inspect(const struct cudaDeviceProp *p)
{
    snprintf(gpu.name, sizeof gpu.name, "%s", p->name);
    if (p->major < OLDEST_MAJOR)
        FAIL(ST_DEVICE,
             "device: %s: %s has compute capability %d.%d; %d.0 or newer is needed (A100, RTX 30 and later): choose another through "
             "CUDA_VISIBLE_DEVICES, or use device=cpu",
             TRIMPOT_CUDA_NAME, gpu.name, p->major, p->minor, OLDEST_MAJOR);
    return ST_OK;
}

static void describe(const struct cudaDeviceProp *p, int driver)
{
    const unsigned char *u = (const unsigned char *)p->uuid.bytes;
    int n = snprintf(gpu.uuid, sizeof gpu.uuid, "GPU");
    for (int i = 0; i < 16; i++)
        n += snprintf(gpu.uuid + n, sizeof gpu.uuid - (size_t)n, "%s%02x", !(i % 2) && i < 12 && i != 2 ? "-" : "", u[i]);
    bool own_code = p->major == OLDEST_MAJOR || (p->major == HOPPER_MAJOR && p->minor == 0);
    snprintf(gpu.text, sizeof gpu.text, "%s: %s, sm_%d%d%s, driver %s", TRIMPOT_CUDA_NAME, p->name, p->major, p->minor,
             own_code ? "" : " running through JIT", driver_text(driver));
}

/* Makes the context now, so that a GPU which others fill or have for themselves is refused here. */
static status start(void)
{
    cudaError_t e = cudaSetDevice(gpu.index);
    if (!e) e = cudaFree(NULL);
    if (!e) return ST_OK;
    cudaGetLastError();
    if (e == cudaErrorMemoryAllocation)
        FAIL(ST_OOM, "device: %s: %s has no room for this process: others use its memory (nvidia-smi shows them)", TRIMPOT_CUDA_NAME,
             gpu.name);
    return cuda_status(e, "device: " TRIMPOT_CUDA_NAME ": starting on the GPU");
}

status cuda_device_open(const struct backend_place *place)
{
    int driver = 0;
    struct cudaDeviceProp p;
    TRY(need_driver(&driver));
    TRY(choose(place));
    TRY(cuda_status(cudaGetDeviceProperties(&p, gpu.index), "asking for the GPU's properties"));
    TRY(inspect(&p));
    TRY(start());
    describe(&p, driver);
    return ST_OK;
}

/* The context; code of our kernels, cuBLASLt's and cuDNN's (loaded when first used), and their handles. Estimates from NVIDIA's
 * sizes: a GPU run has yet to confirm them. */
size_t cuda_library_bytes(const struct work_bounds *w)
{
    (void)w;
    return GPU_CONTEXT_BYTES + ((size_t)384 << 20);
}
