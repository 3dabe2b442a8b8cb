/* both.h — BOTH: a function of a header that loops call too, on the host and on the device. */
#ifndef TRIMPOT_BOTH_H
#define TRIMPOT_BOTH_H

#ifdef __CUDACC__
#define BOTH static __host__ __device__ inline
#else
#define BOTH static inline
#endif

#endif
