/* start.c — linked into trimpot_fence beside the whole program: `device: cpu` is the CPU behind the fence. */
#include "tests/ref/fence.h"

__attribute__((constructor)) static void put_the_fence_up(void) { backend_host = fence_wrap(&backend_cpu); }
