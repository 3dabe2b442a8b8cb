/* The table of GPUs. Sources, by column:
 *   memory    what cudaMemGetInfo and PyTorch's out-of-memory messages call the total capacity
 *   tflops, hbm, nvlink   NVIDIA's data sheets (A100, H100, H200, DGX B200, L40S) and architecture papers (GA102, Ada, Blackwell RTX);
 *             RTX cards: the rate with f32 sums, half of that with f16 sums
 *   gemm      H100: 798 at 8192³, random operands. A100, H200 (as H100), B200: stas00/ml-engineering, compute/accelerator, "MAMF".
 *             Others are estimates: data-centre cards 0.81 of the published rate as H100, RTX cards 0.92, since IST-DASLab/llmq
 *             reaches 0.75 of it in whole steps on a 4090 and 0.82 on a 5090
 *   pcie      54 of 63 GB/s on generation 5, 25 of 31 on generation 4 */
#include <string.h>
#include <strings.h>

#include "kernels/base/text.h"
#include "kernels/gpu.h"

/* clang-format off */
const struct gpu gpu_table[] = {
    /* name         full                    device              GiB   TFLOP/s   GEMM  measured  HBM  PCIe NVLink */
    {"h100",      "H100 SXM 80 GB",         "H100 80GB HBM3",  79.1,   989.4,  798.0,  true,  3.350,  54,  450},
    {"h100-pcie", "H100 PCIe 80 GB",        "H100 PCIe",       79.1,   756.0,  612.0,  false, 2.000,  54,    0},
    {"h200",      "H200 SXM 141 GB",        "H200",           139.8,   989.4,  794.5,  true,  4.800,  54,  450},
    {"b200",      "B200 SXM 180 GB",        "NVIDIA B200",    178.3,  2250.0, 1745.0,  true,  8.000,  54,  900},
    {"a100-80g",  "A100 SXM 80 GB",         "A100-SXM4-80GB",  79.2,   312.0,  271.2,  true,  2.039,  25,  300},
    {"a100-40g",  "A100 SXM 40 GB",         "A100-SXM4-40GB",  39.4,   312.0,  271.2,  true,  1.555,  25,  300},
    {"l40s",      "L40S 48 GB",             "L40S",            44.4,   362.0,  293.0,  false, 0.864,  25,    0},
    {"5090",      "GeForce RTX 5090",       "RTX 5090",        31.4,   209.5,  193.0,  false, 1.792,  54,    0},
    {"4090",      "GeForce RTX 4090",       "RTX 4090",        23.6,   165.2,  152.0,  false, 1.008,  25,    0},
    {"3090",      "GeForce RTX 3090",       "RTX 3090",        23.6,    71.0,   65.0,  false, 0.936,  25,    0},
};
/* clang-format on */
const int gpu_count = sizeof gpu_table / sizeof *gpu_table;

const struct gpu *gpu_known(const char *device)
{
    for (int i = 0; i < gpu_count; i++)
        if (strstr(device, gpu_table[i].device)) return &gpu_table[i];
    return NULL;
}

status gpu_find(const char *name, const struct gpu **out)
{
    struct buf names = {0};
    *out = gpu_known(name);
    for (int i = 0; i < gpu_count && !*out; i++) {
        if (strcasecmp(gpu_table[i].name, name) == 0) *out = &gpu_table[i];
        buf_printf(&names, "%s%s", i ? ", " : "", gpu_table[i].name);
    }
    status st = *out ? ST_OK : status_fail(ST_USAGE, "--gpu '%s': no such GPU in the table; there are %s", name, names.data);
    buf_release(&names);
    return st;
}
