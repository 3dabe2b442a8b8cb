/* cudnn.c — finds cuDNN's library (cudnn.h). */
#include "kernels/cuda/cudnn.h"

#include <dlfcn.h>
#include <string.h>

static struct cudnn library;

static const struct {
    const char *name;
    size_t at;
} calls[] = {
#define CUDNN_CALL(name) {"cudnn" #name, offsetof(struct cudnn, name)},
    CUDNN_CALLS(CUDNN_CALL)
#undef CUDNN_CALL
};

status cudnn_load(const struct cudnn **out)
{
    if (!library.BackendExecute) {
        /* The graph library alone: the others are loaded by it when an engine is one of theirs. */
        void *so = dlopen("libcudnn_graph.so.9", RTLD_NOW | RTLD_LOCAL);
        if (!so) FAIL(ST_NOT_BUILT, "no cuDNN 9: %s", dlerror());
        struct cudnn found;
        for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
            void *f = dlsym(so, calls[i].name);
            if (!f) FAIL(ST_NOT_BUILT, "no cuDNN 9: libcudnn_graph.so.9 has no %s", calls[i].name);
            memcpy((char *)&found + calls[i].at, &f, sizeof f);
        }
        library = found;
    }
    *out = &library;
    return ST_OK;
}
