/* lasting.c — preloaded into trimpot by lock.sh: a run that lasts, however fast the machine. Each line written to metrics.jsonl,
 * one per step, takes STEP_MS longer. */
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
    const char *ms = getenv("STEP_MS");
    if (ms && is_metrics(fd)) nanosleep(&(struct timespec){.tv_nsec = atol(ms) * 1000000L}, NULL);
    return syscall(SYS_write, fd, data, n);
}
