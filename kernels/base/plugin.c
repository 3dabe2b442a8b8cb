#include "kernels/base/plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/text.h"

const char *trimpot_interface(void); /* the program's; each plugin has its own (CMakeLists.txt) */

static char *beside_the_program(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
    return mem_strdup(slash ? path : ".");
}

static char *path_of(const char *dir, const char *file)
{
    char *own = dir ? NULL : beside_the_program(), *path = mem_printf("%s/%s", dir ? dir : own, file);
    free(own);
    return path;
}

bool plugin_exists(const char *dir, const char *file)
{
    char *path = path_of(dir, file);
    bool found = access(path, R_OK) == 0;
    free(path);
    return found;
}

status plugin_function(const char *dir, const char *file, const char *symbol, const char *what, const char *remedy, void *function)
{
    char *path = path_of(dir, file);
    void *plugin = dlopen(path, RTLD_NOW | RTLD_GLOBAL), *found = NULL;
    status st = ST_OK;
    if (!plugin) {
        const char *why = dlerror();
        FAIL_DONE(ST_NOT_BUILT, "%s does not load: %s; %s", what, why ? why : path, remedy);
    }
    const char *(*theirs)(void);
    *(void **)&theirs = dlsym(plugin, "trimpot_interface");
    if (!theirs || strcmp(theirs(), trimpot_interface()) != 0)
        FAIL_DONE(ST_NOT_BUILT, "%s: belongs to another build than this program: build, or install, both together", path);
    found = dlsym(plugin, symbol);
    if (!found) FAIL_DONE(ST_NOT_BUILT, "%s: has no %s", path, symbol);
    memcpy(function, &found, sizeof found);
done:
    free(path);
    return st;
}
