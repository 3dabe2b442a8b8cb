/* The output folder, asked on a thread: a file system that does not answer costs its limit and no more. The thread that
 * waits for it is left behind, with what it works on, until the process ends. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "launcher/doctor.h"
#include "worker/run_lock_record.h"

struct job {
    void (*work)(struct job *j);
    uint64_t nonce;
    bool write, leave;
    double seconds;
    struct doctor_files files;
};

static void *work(void *job)
{
    ((struct job *)job)->work(job);
    return NULL;
}

/* What the thread found, or `files` with .answered = false. */
static void within(double seconds, const struct job *what, struct doctor_files *files)
{
    struct job *j = mem_alloc(sizeof *j);
    struct timespec until;
    pthread_t thread;
    *j = *what;
    j->files = *files;
    files->answered = false;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    if (pthread_create(&thread, NULL, work, j) != 0) {
        free(j);
        return;
    }
    if (pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &until) != 0) {
        pthread_detach(thread);
        return;
    }
    *files = j->files;
    files->answered = true;
    free(j);
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

/* The folder, or the nearest one above it that exists. */
static void find_existing(struct doctor_files *f)
{
    struct stat about;
    snprintf(f->looked, sizeof f->looked, "%s", *f->path ? f->path : ".");
    while (stat(f->looked, &about) != 0) {
        if (errno != ENOENT) {
            f->refusal = errno;
            return;
        }
        char *slash = strrchr(f->looked, '/');
        if (slash && !slash[1] && slash != f->looked) { /* DIR/ */
            *slash = 0;
            continue;
        }
        if (slash == f->looked)
            slash[1] = 0;
        else if (slash)
            *slash = 0;
        else
            snprintf(f->looked, sizeof f->looked, ".");
    }
    f->exists = strcmp(f->looked, *f->path ? f->path : ".") == 0;
    if (!S_ISDIR(about.st_mode)) f->refusal = ENOTDIR;
}

/* The last mount whose point is the longest beginning of the folder's real path. */
static void find_mount(struct doctor_files *f)
{
    char real[PATH_MAX], line[2048], point[512], type[64], source[512];
    size_t longest = 0;
    FILE *mounts = realpath(f->looked, real) ? fopen("/proc/self/mountinfo", "re") : NULL;
    while (mounts && fgets(line, sizeof line, mounts)) {
        const char *rest = strstr(line, " - ");
        if (!rest || sscanf(line, "%*s %*s %*s %*s %511s", point) != 1 || sscanf(rest, " - %63s %511s", type, source) != 2) continue;
        size_t n = strcmp(point, "/") == 0 ? 0 : strlen(point);
        if (strncmp(real, point, n) != 0 || (real[n] != '/' && real[n] != 0) || n < longest) continue;
        longest = n;
        snprintf(f->mount, sizeof f->mount, "%.127s", point);
        snprintf(f->type, sizeof f->type, "%.31s", type);
        snprintf(f->source, sizeof f->source, "%.127s", source);
    }
    if (mounts) fclose(mounts);
}

static char *probe_path(const struct doctor_files *f, uint64_t nonce, const char *suffix)
{
    return mem_printf("%s/.trimpot-doctor.%016" PRIx64 "%s", f->looked, nonce, suffix);
}

/* Writes a file and gives it a second name. With `leave` the file stays. */
static void try_writing(struct job *j)
{
    struct doctor_files *f = &j->files;
    char suffix[32] = "", *path, *second;
    if (!j->leave) snprintf(suffix, sizeof suffix, ".%ld", (long)getpid());
    path = probe_path(f, j->nonce, suffix);
    second = mem_printf("%s.link", path);
    f->tried = true;
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    bool written = fd >= 0 && write(fd, &j->nonce, sizeof j->nonce) == (ssize_t)sizeof j->nonce && fsync(fd) == 0;
    f->refusal = written ? 0 : errno ? errno : ENOSPC;
    f->link_refusal = !written || link(path, second) == 0 ? 0 : errno;
    struct stat mine, lock;
    char *held = mem_printf("%s/run.lock", f->looked);
    /* Both times are the file system's: no clock of this host is asked. */
    if (f->locked && written && fstat(fd, &mine) == 0 && stat(held, &lock) == 0) f->lock_age_s = mine.st_mtime - lock.st_mtime;
    if (fd >= 0) close(fd);
    unlink(second);
    f->left = j->leave && written;
    if (!f->left) unlink(path);
    free(held);
    free(path);
    free(second);
}

static void read_lock(struct doctor_files *f)
{
    char *path = mem_printf("%s/run.lock", f->looked), *text = NULL;
    size_t bytes = 0;
    struct lock_record holder;
    struct buf name = {0};
    f->lock_age_s = -1;
    f->locked = f->exists && file_exists(path);
    bool read =
        f->locked && file_read(path, LOCK_RECORD_BYTES, &text, &bytes) == ST_OK && lock_record_parse(path, text, bytes, &holder) == ST_OK;
    if (read) lock_record_name(&holder, &name);
    if (f->locked) snprintf(f->lock, sizeof f->lock, "%s", read ? name.data : "unreadable");
    buf_release(&name);
    free(text);
    free(path);
}

static void look(struct job *j)
{
    struct doctor_files *f = &j->files;
    struct statvfs fs;
    find_existing(f);
    if (f->refusal) return;
    find_mount(f);
    if (statvfs(f->looked, &fs) == 0) {
        f->bytes = (int64_t)(fs.f_blocks * fs.f_frsize);
        f->free_bytes = (int64_t)(fs.f_bavail * fs.f_frsize);
    }
    read_lock(f);
    if (j->write) try_writing(j);
}

void doctor_files_look(const char *path, uint64_t nonce, bool write, bool leave, double seconds, struct doctor_files *out)
{
    *out = (struct doctor_files){.asked = path != NULL, .bytes = -1, .free_bytes = -1, .lock_age_s = -1};
    if (!path) return;
    snprintf(out->path, sizeof out->path, "%s", path);
    if (strlen(path) >= sizeof out->path) {
        out->answered = true;
        out->refusal = ENAMETOOLONG;
        return;
    }
    within(seconds, &(struct job){.work = look, .nonce = nonce, .write = write, .leave = leave}, out);
}

/* ---- is it the same folder everywhere? -------------------------------------------------------------------------- */

/* A network file system may show a new file late: asked again until the time is over. */
static void find(struct job *j)
{
    char *path = probe_path(&j->files, j->nonce, "");
    double until = clock_s() + j->seconds;
    for (;;) {
        uint64_t seen = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            if (read(fd, &seen, sizeof seen) != (ssize_t)sizeof seen) seen = 0;
            close(fd);
        }
        j->files.found = seen == j->nonce;
        if (j->files.found || clock_s() >= until) break;
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    free(path);
}

void doctor_files_find(uint64_t nonce, double seconds, struct doctor_files *f)
{
    if (f->answered && !f->refusal) within(seconds + 1, &(struct job){.work = find, .nonce = nonce, .seconds = seconds}, f);
}

static void sweep(struct job *j)
{
    char *path = probe_path(&j->files, j->nonce, "");
    unlink(path);
    free(path);
}

void doctor_files_sweep(uint64_t nonce, double seconds, const struct doctor_files *f)
{
    struct doctor_files copy = *f;
    if (f->left) within(seconds, &(struct job){.work = sweep, .nonce = nonce}, &copy);
}
