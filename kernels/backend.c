#include "kernels/backend.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/plugin.h"
#include "kernels/base/text.h"

const struct backend *backend_host = &backend_cpu;

status stream_workspace(struct stream *s, size_t bytes, const char *op, void **out)
{
    *out = s->workspace;
    if (bytes > s->workspace_bytes)
        FAIL(ST_FAIL, "%s needs %zu bytes of workspace, the stream has %zu: the plan's work bounds were too small", op, bytes,
             s->workspace_bytes);
    return ST_OK;
}

struct plugin_file {
    char name[64];
};

static struct plugin_file plugin_file(const char *name)
{
    struct plugin_file f;
    snprintf(f.name, sizeof f.name, "trimpot_%s.so", name);
    return f;
}

status backend_load(const char *name, const struct backend_place *place, const struct backend **out)
{
    backend_open_fn *open = NULL;
    char what[96];
    snprintf(what, sizeof what, "device: %s: this trimpot's part for it", name);
    TRY(plugin_function(NULL, plugin_file(name).name, "trimpot_backend_open", what,
                        "use device=cpu, or build with the CUDA toolkit installed", &open));
    return open(place, out);
}

bool backend_built(const char *name) { return plugin_exists(NULL, plugin_file(name).name); }

/* The driver is asked, not the toolkit: its library is not there on machines without a GPU, and loads in an instant. */
bool backend_has_gpu(void)
{
    if (!backend_built("cuda")) return false;
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!driver) return false;
    int (*init)(unsigned) = NULL, (*count)(int *) = NULL, devices = 0;
    void *symbols[] = {dlsym(driver, "cuInit"), dlsym(driver, "cuDeviceGetCount")};
    memcpy(&init, &symbols[0], sizeof init);
    memcpy(&count, &symbols[1], sizeof count);
    return init && count && init(0) == 0 && count(&devices) == 0 && devices > 0;
}
