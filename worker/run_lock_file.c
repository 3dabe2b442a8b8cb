#include "worker/run_lock_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/file.h"

/* ---- who this is ------------------------------------------------------------------------------------------------------- */

/* Names become part of a JSON line of bounded length and of messages: printable ASCII, cut. */
static void set(char *out, size_t cap, const char *text)
{
    size_t n = 0;
    for (; text && text[n] && text[n] != '\n' && n + 1 < cap; n++) out[n] = text[n] < 0x20 || text[n] > 0x7e ? '?' : text[n];
    out[n] = 0;
}

static void set_from_file(char *out, size_t cap, const char *path)
{
    char text[256];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = 0;
    set(out, cap, text);
}

/* State and start time (fields 3 and 22 of /proc/PID/stat); the name in front of them may hold anything. */
static bool process_stat(int64_t pid, char *state, int64_t *started)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *at = strrchr(text, ')');
    return at && sscanf(at, ") %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNd64, state, started) == 2;
}

bool lock_process_lives(const struct lock_record *r)
{
    char state;
    int64_t started;
    if (process_stat(r->pid, &state, &started)) return state != 'Z' && state != 'X' && started == r->started;
    return kill((pid_t)r->pid, 0) == 0 || errno == EPERM; /* /proc may hide the processes of others */
}

status lock_record_self(struct lock_record *out)
{
    char host[72] = "", space[64] = "", state;
    unsigned char random[LOCK_NONCE / 2];
    *out = (struct lock_record){.pid = getpid()};
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) FAIL(ST_FAIL, "run.lock: no random number: %s", strerror(errno));
    for (size_t i = 0; i < sizeof random; i++) snprintf(out->nonce + 2 * i, 3, "%02x", random[i]);

    gethostname(host, sizeof host - 1);
    set(out->host, sizeof out->host, host);
    set_from_file(out->boot, sizeof out->boot, "/proc/sys/kernel/random/boot_id");
    ssize_t n = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    set(out->pid_space, sizeof out->pid_space, n > 0 ? space : "");
    process_stat(out->pid, &state, &out->started);

    const char *restarts = getenv("SLURM_RESTART_COUNT");
    long count = restarts ? strtol(restarts, NULL, 10) : 0;
    set(out->cluster, sizeof out->cluster, getenv("SLURM_CLUSTER_NAME"));
    set(out->job, sizeof out->job, getenv("SLURM_JOB_ID"));
    out->restarts = count > 0 && count < INT32_MAX ? count : 0;

    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc)) strftime(out->began, sizeof out->began, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return ST_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

void lock_file_init(struct lock_file *f, const char *dir, const struct lock_record *mine)
{
    struct buf text = {0};
    lock_record_text(mine, &text, &f->beat_at);
    f->dir = mem_strdup(dir);
    f->path = mem_printf("%s/run.lock", dir);
    f->temp = mem_printf("%s/run.lock.%s", dir, mine->nonce);
    f->bytes = text.len < sizeof f->text ? text.len : 0; /* members are bounded: it always is */
    memcpy(f->text, text.data, f->bytes);
    buf_release(&text);
}

void lock_file_free(struct lock_file *f)
{
    free(f->dir);
    free(f->path);
    free(f->temp);
    *f = (struct lock_file){0};
}

/* Whatever stands there: no pipe is waited for, no link followed, no more read than a record can have. */
enum { OPEN_FLAGS = O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC };

static ssize_t read_some(int fd, char *text, size_t cap)
{
    ssize_t n;
    do n = pread(fd, text, cap, 0);
    while (n < 0 && errno == EINTR);
    return n;
}

static status read_record(const char *path, int fd, struct lock_sight *out)
{
    char text[LOCK_RECORD_BYTES + 1];
    struct stat s;
    if (fstat(fd, &s)) FAIL(ST_IO, "%s: cannot read: %s", path, strerror(errno));
    if (!S_ISREG(s.st_mode)) FAIL(ST_CORRUPT, "%s: not a regular file", path);
    ssize_t n = read_some(fd, text, sizeof text);
    if (n < 0) FAIL(ST_IO, "%s: cannot read: %s", path, strerror(errno));
    if (n == 0) FAIL(ST_CORRUPT, "%s: is empty", path);
    if (n > LOCK_RECORD_BYTES) FAIL(ST_CORRUPT, "%s: larger than a lock of a run", path);
    out->changed = s.st_mtim;
    return lock_record_parse(path, text, (size_t)n, &out->record);
}

static status read_once(const char *path, struct lock_sight *out)
{
    *out = (struct lock_sight){0};
    int fd = open(path, O_RDONLY | OPEN_FLAGS);
    out->absent = fd < 0 && errno == ENOENT;
    if (out->absent) return ST_OK;
    if (fd < 0 && errno == ELOOP) FAIL(ST_CORRUPT, "%s: a symbolic link", path);
    if (fd < 0 && errno == ENXIO) FAIL(ST_CORRUPT, "%s: not a regular file", path);
    if (fd < 0) FAIL(ST_IO, "%s: cannot open: %s", path, strerror(errno));
    status st = read_record(path, fd, out);
    close(fd);
    return st;
}

status lock_file_read(const struct lock_file *f, struct lock_sight *out)
{
    enum { TRIES = 5, PAUSE_MS = 60 };
    status st = read_once(f->path, out);
    /* Where there are no hard links, a record that is being written can be seen in part; and NFS loses sight of a file that
     * is being replaced (ESTALE). */
    for (int i = 1; st && i < TRIES; i++) {
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
        st = read_once(f->path, out);
    }
    if (!st) return ST_OK;
    FAIL(st, "output_dir: %s; so nothing tells whether a run uses %s: if none does, remove %s, or choose another output_dir",
         status_message(), f->dir, f->path);
}

bool lock_sight_equal(const struct lock_sight *a, const struct lock_sight *b)
{
    return a->absent == b->absent && strcmp(a->record.nonce, b->record.nonce) == 0 && a->record.beat == b->record.beat &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static status write_new(const struct lock_file *f, const char *path, int fd, struct timespec *changed)
{
    struct stat s;
    TRY(file_write_all(fd, f->text, f->bytes, path));
    if (fsync(fd)) FAIL(ST_IO, "%s: cannot fsync: %s", path, strerror(errno));
    if (fstat(fd, &s)) FAIL(ST_IO, "%s: cannot ask for its time: %s", path, strerror(errno));
    if (changed) *changed = s.st_mtim;
    return ST_OK;
}

/* A file that was not there before. *exists (may be NULL: an error then) tells that it was. */
static status create(const struct lock_file *f, const char *path, struct timespec *changed, bool *exists)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | OPEN_FLAGS, 0644);
    if (exists) *exists = fd < 0 && errno == EEXIST;
    if (exists && *exists) return ST_OK;
    if (fd < 0) FAIL(ST_IO, "%s: cannot create: %s", path, strerror(errno));
    status st = write_new(f, path, fd, changed);
    if (close(fd) && !st) st = status_fail(ST_IO, "%s: cannot close: %s", path, file_error(errno));
    if (st) unlink(path);
    return st;
}

status lock_file_now(const struct lock_file *f, struct timespec *now)
{
    TRY(create(f, f->temp, now, NULL));
    unlink(f->temp);
    return ST_OK;
}

status lock_file_place(const struct lock_file *f, bool *placed)
{
    bool exists = false;
    TRY(create(f, f->temp, NULL, NULL));
    int error = link(f->temp, f->path) ? errno : 0;
    unlink(f->temp);
    /* A lost answer makes NFS say EEXIST of the link that it has just made. */
    if (error == EEXIST)
        exists = lock_file_look(f) != LOCK_OURS;
    else if (error)
        TRY(create(f, f->path, NULL, &exists)); /* no hard links here; or the true reason */
    *placed = !exists;
    return ST_OK;
}

status lock_file_put_over(const struct lock_file *f, const struct lock_sight *over, bool *put)
{
    struct lock_sight now;
    *put = false;
    TRY(create(f, f->temp, NULL, NULL));
    status st = lock_file_read(f, &now); /* the last look, after all that may take time */
    if (!st && lock_sight_equal(&now, over)) {
        *put = rename(f->temp, f->path) == 0;
        if (!*put) st = status_fail(ST_IO, "%s: cannot replace the lock of a run that is gone: %s", f->path, strerror(errno));
    }
    if (!*put) unlink(f->temp);
    return st;
}

static bool is_temp(const char *name)
{
    static const char prefix[] = "run.lock.";
    size_t n = sizeof prefix - 1;
    return strncmp(name, prefix, n) == 0 && strlen(name) == n + LOCK_NONCE && strspn(name + n, "0123456789abcdef") == LOCK_NONCE;
}

void lock_file_sweep(const struct lock_file *f, double older_than_s)
{
    struct stat lock, s;
    DIR *d = opendir(f->dir);
    if (!d) return;
    bool dated = stat(f->path, &lock) == 0;
    for (struct dirent *e; dated && (e = readdir(d));) {
        if (!is_temp(e->d_name)) continue;
        if (fstatat(dirfd(d), e->d_name, &s, AT_SYMLINK_NOFOLLOW) || !S_ISREG(s.st_mode)) continue;
        if (difftime(lock.st_mtim.tv_sec, s.st_mtim.tv_sec) > older_than_s) unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
}

void lock_file_remove(const struct lock_file *f)
{
    if (lock_file_look(f) == LOCK_OURS) unlink(f->path);
}

/* ---- beating --------------------------------------------------------------------------------------------------------------- */

static enum lock_look look_into(const struct lock_file *f, int fd)
{
    char text[LOCK_RECORD_BYTES + 1];
    ssize_t n = read_some(fd, text, sizeof text);
    if (n < 0) return errno == EISDIR || errno == ESPIPE ? LOCK_OTHERS : LOCK_UNREADABLE;
    return (size_t)n == f->bytes && memcmp(text, f->text, f->beat_at) == 0 ? LOCK_OURS : LOCK_OTHERS;
}

static enum lock_look look(const struct lock_file *f, int flags, int *fd)
{
    *fd = open(f->path, flags | OPEN_FLAGS);
    if (*fd >= 0) return look_into(f, *fd);
    switch (errno) {
    case ENOENT:
    case ENOTDIR:
        return LOCK_ABSENT;
    case EISDIR:
    case ELOOP:
    case ENXIO:
        return LOCK_OTHERS; /* a folder, a link, a pipe: this run put none there */
    default:
        return LOCK_UNREADABLE;
    }
}

enum lock_look lock_file_look(const struct lock_file *f)
{
    int fd;
    enum lock_look found = look(f, O_RDONLY, &fd);
    int error = errno;
    if (fd >= 0) close(fd);
    errno = error;
    return found;
}

enum lock_look lock_file_beat(const struct lock_file *f, int64_t beat)
{
    int fd;
    char digits[LOCK_BEAT_WIDTH + 1];
    snprintf(digits, sizeof digits, "%*" PRId64, LOCK_BEAT_WIDTH, beat);
    enum lock_look found = look(f, O_RDWR, &fd);
    if (found == LOCK_OURS && pwrite(fd, digits, LOCK_BEAT_WIDTH, (off_t)f->beat_at) != LOCK_BEAT_WIDTH) found = LOCK_UNREADABLE;
    if (fd >= 0) close(fd);
    return found;
}

enum lock_look lock_file_put_back(const struct lock_file *f)
{
    int fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | OPEN_FLAGS, 0644);
    if (fd < 0) return errno == ENOENT ? LOCK_OURS : LOCK_UNREADABLE;
    bool whole = write(fd, f->text, f->bytes) == (ssize_t)f->bytes;
    close(fd);
    if (!whole) unlink(f->path);
    return whole ? LOCK_OURS : LOCK_UNREADABLE;
}
