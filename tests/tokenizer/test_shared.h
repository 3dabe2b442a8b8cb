/* test_shared.h — files of the shared data folder, or a loud skip. */
#ifndef TRIMPOT_TEST_SHARED_H
#define TRIMPOT_TEST_SHARED_H

#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/file.h"
#include "kernels/base/text.h"

/* Caller frees; NULL (and a printed line) when the folder is not there. */
static inline char *shared_path(const char *name)
{
    const char *root = getenv("TRIMPOT_SHARED");
    char *path = mem_printf("%s/data/%s", root ? root : TRIMPOT_SOURCE_DIR "/../shared", name);
    if (file_exists(path)) return path;
    printf("SKIPPED: %s is not there (set TRIMPOT_SHARED)\n", path);
    free(path);
    return NULL;
}

#endif
