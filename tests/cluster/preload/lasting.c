/* lasting.c — preloaded into trimpot by lock.sh: a run that lasts until it is let go, however fast the machine. After
 * LASTING_LINES lines of metrics.jsonl, one per step, the next is not written while the file LASTING_UNTIL exists. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int is_metrics(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    const char *name = strrchr(path, '/');
    return name && strcmp(name, "/metrics.jsonl") == 0;
}

ssize_t write(int fd, const void *data, size_t n)
{
    static int lines;
    const char *most = getenv("LASTING_LINES"), *until = getenv("LASTING_UNTIL");
    if (most && until && is_metrics(fd) && ++lines > atoi(most))
        while (access(until, F_OK) == 0) nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    return syscall(SYS_write, fd, data, n);
}
