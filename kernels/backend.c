#include "kernels/backend.h"

#ifndef TRIMPOT_CUDA
const struct backend *backend_cuda(void) { return NULL; }
#endif

const struct backend *backend_host = &backend_cpu;
