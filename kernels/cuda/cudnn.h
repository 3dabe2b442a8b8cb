/* cudnn.h — cuDNN as a library that may not be there: found when it is first asked for, by its functions. */
#ifndef TRIMPOT_CUDA_CUDNN_H
#define TRIMPOT_CUDA_CUDNN_H

#include <cudnn.h>

#include "kernels/base/status.h"

/* clang-format off */
#define CUDNN_CALLS(X)                                                                                  \
    X(GetVersion) X(GetErrorString) X(GetLastErrorString) X(Create) X(Destroy) X(SetStream)             \
    X(BackendCreateDescriptor) X(BackendDestroyDescriptor) X(BackendFinalize) X(BackendSetAttribute)    \
    X(BackendGetAttribute) X(BackendExecute)
/* clang-format on */

struct cudnn {
#define CUDNN_CALL(name) __typeof__(cudnn##name) *name;
    CUDNN_CALLS(CUDNN_CALL)
#undef CUDNN_CALL
};

/* The library, loaded once per process; ST_NOT_BUILT with the loader's words when there is none. cudnn.c, and for the emulated
 * device its twin in the tests. */
status cudnn_load(const struct cudnn **out);

#endif
