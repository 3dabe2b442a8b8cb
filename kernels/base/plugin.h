/* plugin.h — code that lies beside the program and is loaded when it is needed: MPI, a GPU's runtime. So one installed tree serves
 * machines with and without them. A plugin calls the program's functions (kernels/base and its own folder's) by name. */
#ifndef TRIMPOT_PLUGIN_H
#define TRIMPOT_PLUGIN_H

#include <stdbool.h>

#include "kernels/base/status.h"

/* Loads FILE of folder `dir` (NULL: the program's own) and finds a function in it; *function is a pointer to a function pointer.
 * ST_NOT_BUILT when it does not load: "WHAT does not load: why; REMEDY", or was compiled with other headers than the program. */
status plugin_function(const char *dir, const char *file, const char *symbol, const char *what, const char *remedy, void *function);

bool plugin_exists(const char *dir, const char *file);

#endif
