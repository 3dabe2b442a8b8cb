/* ill.c — preloaded by doctor.sh: something that a doctor must survive, by ILL; where ILL_RANK is set, on that rank only.
 *
 *   init-hang   MPI_Init does not return         init-exit   it ends the process       init-crash   it is a segmentation fault
 *   init-stop   the rank is stopped there        end-hang    MPI_Finalize does not return
 *   folder      statvfs of a path with "dead" in it does not return
 *   late        this process's clock is 100 s ahead */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static int has(const char *what)
{
    const char *ill = getenv("ILL"), *on = getenv("ILL_RANK"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!rank) rank = getenv("PMIX_RANK");
    return ill && strcmp(ill, what) == 0 && (!on || (rank && strcmp(on, rank) == 0));
}

static void hang(void)
{
    for (;;) pause();
}

int MPI_Init_thread(int *argc, char ***argv, int wanted, int *granted)
{
    int (*next)(int *, char ***, int, int *) = (int (*)(int *, char ***, int, int *))dlsym(RTLD_NEXT, "MPI_Init_thread");
    if (!next) { /* libmpi came with the plugin, after this library */
        void *mpi = dlopen("libmpi.so.40", RTLD_NOW | RTLD_NOLOAD);
        next = mpi ? (int (*)(int *, char ***, int, int *))dlsym(mpi, "MPI_Init_thread") : 0;
    }
    if (has("init-hang")) hang();
    if (has("init-exit")) _exit(3);
    if (has("init-crash")) raise(SIGSEGV);
    if (has("init-stop")) { /* all of the rank: who waits for it too */
        kill(getppid(), SIGSTOP);
        raise(SIGSTOP);
    }
    return next(argc, argv, wanted, granted);
}

int MPI_Finalize(void)
{
    void *mpi = dlopen("libmpi.so.40", RTLD_NOW | RTLD_NOLOAD);
    int (*next)(void) = (int (*)(void))dlsym(mpi, "MPI_Finalize");
    if (has("end-hang")) hang();
    return next();
}

int statvfs(const char *path, struct statvfs *out)
{
    int (*next)(const char *, struct statvfs *) = (int (*)(const char *, struct statvfs *))dlsym(RTLD_NEXT, "statvfs");
    if (has("folder") && strstr(path, "dead")) hang();
    return next(path, out);
}

int clock_gettime(clockid_t id, struct timespec *out)
{
    int (*next)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int rc = next(id, out);
    if (rc == 0 && id == CLOCK_REALTIME && has("late")) out->tv_sec += 100;
    return rc;
}
