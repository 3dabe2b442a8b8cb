/* slow.c — preloaded by tests of whole jobs: as long as the file SLOW_WHILE exists, the gather that ends a step (a few losses and
 * the flags of each rank) first waits a quarter of a second, on all ranks at once. A step then takes as long as one of a large
 * model, and no processor. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

typedef int all_gather(const void *, int, void *, void *, int, void *, void *);

int MPI_Allgather(const void *in, int n, void *type, void *out, int each, void *out_type, void *comm)
{
    static all_gather *next;
    const char *file = getenv("SLOW_WHILE");
    bool ends_a_step = each >= 3 * 8 && each <= 9 * 8;
    if (file && ends_a_step && access(file, F_OK) == 0) nanosleep(&(struct timespec){.tv_nsec = 250000000}, NULL);
    if (!next) {
        void *mpi = dlopen("libmpi.so.40", RTLD_NOLOAD | RTLD_LAZY);
        *(void **)&next = mpi ? dlsym(mpi, "PMPI_Allgather") : NULL;
    }
    return next ? next(in, n, type, out, each, out_type, comm) : 1;
}
