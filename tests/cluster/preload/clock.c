/* clock.c — preloaded into trimpot by lock.sh: a host whose clock is wrong, on a file system whose clients stamp their own
 * writes (Lustre does). What this process writes to run.lock is dated CLOCK_OFFSET_S seconds from now. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void stamp(int fd)
{
    char link[64], path[4096];
    const char *offset = getenv("CLOCK_OFFSET_S");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    const char *name = strrchr(path, '/');
    if (!offset || !name || strncmp(name, "/run.lock", 9) != 0) return;
    struct timespec t[2];
    clock_gettime(CLOCK_REALTIME, &t[1]);
    t[1].tv_sec += atol(offset);
    t[0] = t[1];
    futimens(fd, t);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    ssize_t done = syscall(SYS_pwrite64, fd, data, n, at);
    stamp(fd);
    return done;
}

int fsync(int fd)
{
    int done = (int)syscall(SYS_fsync, fd);
    stamp(fd);
    return done;
}
