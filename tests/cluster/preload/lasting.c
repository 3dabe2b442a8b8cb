/* lasting.c — preloaded into trimpot: a run that lasts until it is let go, however fast the machine. After LASTING_LINES lines of
 * metrics.jsonl, one per step, the next does not get there while the file LASTING_UNTIL exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int is_metrics(FILE *f)
{
    char link[64], path[4096];
    if (!f) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fileno(f));
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    const char *name = strrchr(path, '/');
    return name && strcmp(name, "/metrics.jsonl") == 0;
}

/* A line is one fwrite, which stays in the buffer, and this. */
int fflush(FILE *f)
{
    static int (*flush)(FILE *), lines;
    const char *most = getenv("LASTING_LINES"), *until = getenv("LASTING_UNTIL");
    if (!flush) *(void **)&flush = dlsym(RTLD_NEXT, "fflush");
    if (most && until && is_metrics(f) && ++lines > atoi(most))
        while (access(until, F_OK) == 0) nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    return flush(f);
}
