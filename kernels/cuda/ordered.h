/* ordered.h — a sum in f64 of many numbers, one after the other: all warps of a block but the first fetch, one thread adds.
 *
 *   stage 0 |fetch tile 0|add tile 0  |fetch tile 2|…
 *   stage 1 |            |fetch tile 1|add tile 1  |… */
#ifndef TRIMPOT_CUDA_ORDERED_H
#define TRIMPOT_CUDA_ORDERED_H

#include "kernels/cuda/cuda.h"

enum { ORDERED_THREADS = 256, ORDERED_FETCHERS = ORDERED_THREADS - (int)WARP, ORDERED_TILE = 1024 };

/* Σ at(i), i < n, in thread 0; the other threads get nothing. stage: 2·ORDERED_TILE of shared memory. */
template <class At> static __device__ inline double ordered_sum(int64_t n, double *stage, At at)
{
    double sum = 0;
    for (int64_t begin = 0, turn = 0; begin < n + ORDERED_TILE; begin += ORDERED_TILE, turn ^= 1) {
        double *fetched = stage + turn * ORDERED_TILE, *ready = stage + (turn ^ 1) * ORDERED_TILE;
        int count = ORDERED_TILE - (begin > n ? (int)(begin - n) : 0); /* of the tile before */
        for (int i = (int)threadIdx.x - WARP; i >= 0 && i < ORDERED_TILE && begin + i < n; i += ORDERED_FETCHERS)
            fetched[i] = at(begin + i);
        if (threadIdx.x == 0 && begin > 0) {
#pragma unroll 8
            for (int i = 0; i < count; i++) sum += ready[i];
        }
        __syncthreads();
    }
    return sum;
}

#endif
