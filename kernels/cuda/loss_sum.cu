/* loss_sum.cu — moves 4 bytes per loss. One thread adds, in f64 and in ascending order, as the contract says; the others fetch. */
#include "kernels/cuda/pack.h"

constexpr int LOSS_SUM_TILE = 4096;

static __global__ void loss_sum(const float *loss, int64_t n, double *out)
{
    __shared__ float tile[LOSS_SUM_TILE];
    double sum = 0;
    for (int64_t from = 0; from < n; from += LOSS_SUM_TILE) {
        int here = (int)(n - from < LOSS_SUM_TILE ? n - from : LOSS_SUM_TILE);
        for (int i = (int)threadIdx.x; i < here; i += (int)blockDim.x) tile[i] = loss[from + i];
        __syncthreads();
        for (int i = 0; threadIdx.x == 0 && i < here; i++) sum += (double)tile[i];
        __syncthreads();
    }
    if (threadIdx.x == 0) *out = sum;
}

status loss_sum_cuda(struct stream *s, const struct loss_sum_args *a)
{
    return LAUNCH(loss_sum, dim3(1), dim3(SHEET_THREADS), 0, s, (const float *)a->loss.data, a->loss.dim[0], (double *)a->out.data);
}
