#include "kernels/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/text.h"

static status open_regular(const char *path, int *fd, size_t *bytes)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) FAIL(ST_IO, "%s: cannot open: %s", path, strerror(errno));
    struct stat s;
    if (fstat(*fd, &s) || !S_ISREG(s.st_mode)) {
        close(*fd);
        FAIL(ST_IO, "%s: not a regular file", path);
    }
    *bytes = (size_t)s.st_size;
    return ST_OK;
}

/* A clone without Git LFS holds these few lines in place of every large file: no reader could make sense of them. */
static status refuse_lfs_pointer(const char *path, const void *data, size_t bytes)
{
    static const char first[] = "version https://git-lfs.github.com/spec/";
    if (bytes < sizeof first - 1 || memcmp(data, first, sizeof first - 1) != 0) return ST_OK;
    FAIL(ST_IO, "%s: a Git LFS pointer, not the file itself; run `git lfs pull` in its folder, or download the file", path);
}

status file_map_open(struct file_map *m, const char *path)
{
    *m = (struct file_map){0};
    int fd;
    size_t bytes;
    TRY(open_regular(path, &fd, &bytes));
    void *p = NULL;
    if (bytes) {
        p = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            int error = errno;
            close(fd);
            FAIL(ST_IO, "%s: cannot map %zu bytes: %s", path, bytes, strerror(error));
        }
    }
    close(fd);
    *m = (struct file_map){.data = p, .bytes = bytes, .path = mem_strdup(path)};
    status st = refuse_lfs_pointer(path, p, bytes);
    if (st) file_map_close(m);
    return st;
}

void file_map_close(struct file_map *m)
{
    if (m->data) munmap((void *)(uintptr_t)m->data, m->bytes);
    free(m->path);
    *m = (struct file_map){0};
}

status file_read(const char *path, size_t limit, char **text, size_t *bytes)
{
    int fd;
    size_t n, at = 0;
    *text = NULL;
    TRY(open_regular(path, &fd, &n));
    if (n > limit) {
        close(fd);
        FAIL(ST_CORRUPT, "%s: %zu bytes, but such a file has at most %zu; is it the right file?", path, n, limit);
    }
    char *p = mem_alloc(n + 1);
    while (at < n) {
        ssize_t got = read(fd, p + at, n - at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            int error = errno;
            close(fd);
            free(p);
            FAIL(ST_IO, "%s: cannot read: %s", path, strerror(error));
        }
        if (got == 0) break;
        at += (size_t)got;
    }
    close(fd);
    p[at] = 0;
    status st = refuse_lfs_pointer(path, p, at);
    if (st) {
        free(p);
        return st;
    }
    *text = p;
    if (bytes) *bytes = at;
    return ST_OK;
}

const char *file_error(int error)
{
    static _Thread_local char text[128];
    struct rlimit limit;
    if (error != EFBIG || getrlimit(RLIMIT_FSIZE, &limit) || limit.rlim_cur == RLIM_INFINITY) return strerror(error);
    snprintf(text, sizeof text, "%s: the limit on file sizes is %s (ulimit -f)", strerror(error), text_bytes((double)limit.rlim_cur));
    return text;
}

status file_write_all(int fd, const void *data, size_t bytes, const char *path)
{
    const char *p = data;
    while (bytes) {
        ssize_t n = write(fd, p, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) FAIL(ST_IO, "%s: cannot write: %s", path, file_error(errno));
        p += n;
        bytes -= (size_t)n;
    }
    return ST_OK;
}

status file_sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) FAIL(ST_IO, "%s: cannot open directory: %s", path, strerror(errno));
    int bad = fsync(fd) && errno != EINVAL;
    int error = errno;
    close(fd);
    if (bad) FAIL(ST_IO, "%s: cannot fsync directory: %s", path, strerror(error));
    return ST_OK;
}

static status sync_parent(const char *path)
{
    char *copy = mem_strdup(path), *slash = strrchr(copy, '/');
    const char *parent = ".";
    if (slash == copy)
        parent = "/";
    else if (slash) {
        *slash = 0;
        parent = copy;
    }
    status st = file_sync_dir(parent);
    free(copy);
    return st;
}

status file_replace(const char *path, const void *data, size_t bytes)
{
    status st = ST_OK;
    char *tmp = mem_printf("%s.tmp", path);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) FAIL_DONE(ST_IO, "%s: cannot create: %s", tmp, strerror(errno));
    TRY_DONE(file_write_all(fd, data, bytes, tmp));
    if (fsync(fd)) FAIL_DONE(ST_IO, "%s: cannot fsync: %s", tmp, strerror(errno));
    int bad = close(fd);
    fd = -1;
    if (bad) FAIL_DONE(ST_IO, "%s: cannot close: %s", tmp, strerror(errno));
    if (rename(tmp, path)) FAIL_DONE(ST_IO, "%s: cannot rename to %s: %s", tmp, path, strerror(errno));
    TRY_DONE(sync_parent(path));
done:
    if (fd >= 0) close(fd);
    if (st) unlink(tmp);
    free(tmp);
    return st;
}

status file_mkdirs(const char *path)
{
    char *copy = mem_strdup(path);
    for (char *p = copy + 1;; p++) {
        if (*p != '/' && *p) continue;
        char was = *p;
        *p = 0;
        if (mkdir(copy, 0755) && errno != EEXIST) {
            int error = errno;
            status st = status_fail(ST_IO, "%s: cannot create directory: %s", copy, strerror(error));
            free(copy);
            return st;
        }
        *p = was;
        if (!was) break;
    }
    bool is_dir = file_is_dir(copy);
    free(copy);
    if (!is_dir) FAIL(ST_IO, "%s: exists and is not a directory", path);
    return ST_OK;
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *ftw)
{
    (void)s, (void)flag, (void)ftw;
    return remove(path);
}

status file_remove_tree(const char *path)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT) FAIL(ST_IO, "%s: cannot remove: %s", path, strerror(errno));
    return ST_OK;
}

status file_copy(const char *from, const char *to)
{
    struct file_map m;
    TRY(file_map_open(&m, from));
    status st = file_replace(to, m.data, m.bytes);
    file_map_close(&m);
    return st;
}

bool file_exists(const char *path) { return access(path, F_OK) == 0; }

bool file_is_dir(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}
