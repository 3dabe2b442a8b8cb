/* Every system call of one save, in turn: it fails, the process dies at it, or the power goes at it.
 *
 * This program defines the calls that write files, so that those of the library and of HDF5 come here first; only calls
 * on paths under `dir` count. Power loss is the worst that a file system may do: data that were not fsynced are gone,
 * names made or changed since their directory was fsynced are as before. kill -9 alone would not test fsync, because
 * the page cache survives it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collectives/comm_self.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "tests/checkpoints/ckpt_state.h"

enum { COUNT = 3000, DIED = 99, TABLE = 256 };
enum mode { OFF, COUNTING, FAILING, FAILING_ON, DYING, POWER_LOSS };
enum { LOSE_DATA = 1, LOSE_NAMES = 2 };

static char dir[256];
static struct {
    enum mode mode;
    int calls, target, error; /* the target-th call (FAILING_ON: and all later ones) fails, or is the last */
    int fsyncs, skip_fsync;   /* the skip-th fsync is claimed but not done (−1: every one); 0 none */
    int lose;
} plan;

/* What would not survive a loss of power. */
static struct {
    ino_t ino;
} unsynced_data[TABLE];
static struct name {
    ino_t parent;
    char from[64], to[64];
    bool swapped;
} unsynced_names[TABLE]; /* from "": created */
static int n_data, n_names;

static bool under_dir(const char *path) { return strncmp(path, dir, strlen(dir)) == 0; }

static bool fd_under_dir(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = 0;
    return n > 0 && under_dir(path);
}

static ino_t inode(int fd)
{
    struct stat s;
    return fstat(fd, &s) ? 0 : s.st_ino;
}

static void forget_data(ino_t ino)
{
    for (int i = 0; i < n_data; i++)
        if (unsynced_data[i].ino == ino) unsynced_data[i--] = unsynced_data[--n_data];
}

static void note_data(int fd)
{
    forget_data(inode(fd));
    if (n_data < TABLE) unsynced_data[n_data++].ino = inode(fd);
}

static void note_name(const char *from, const char *to, bool swapped)
{
    char parent[512];
    const char *base = strrchr(to, '/') + 1, *old = from ? strrchr(from, '/') + 1 : "";
    struct stat s;
    snprintf(parent, sizeof parent, "%.*s", (int)(base - 1 - to), to);
    if (stat(parent, &s) || n_names == TABLE) return;
    struct name *n = &unsynced_names[n_names++];
    *n = (struct name){.parent = s.st_ino, .swapped = swapped};
    snprintf(n->to, sizeof n->to, "%.63s", base);
    snprintf(n->from, sizeof n->from, "%.63s", old);
}

static void forget_names(ino_t parent)
{
    int kept = 0;
    for (int i = 0; i < n_names; i++)
        if (unsynced_names[i].parent != parent) unsynced_names[kept++] = unsynced_names[i];
    n_names = kept;
}

/* Applies the loss to the tree below `path`; parents first, so that paths stay right. */
static void lose_power(const char *path)
{
    struct stat s;
    if (stat(path, &s)) return;
    if (S_ISREG(s.st_mode)) {
        for (int i = 0; i < n_data && plan.lose & LOSE_DATA; i++)
            if (unsynced_data[i].ino == s.st_ino && truncate(path, 0)) _exit(1);
        return;
    }
    for (int i = n_names - 1; i >= 0 && plan.lose & LOSE_NAMES; i--) {
        const struct name *n = &unsynced_names[i];
        char to[700], from[700];
        if (n->parent != s.st_ino) continue;
        snprintf(to, sizeof to, "%s/%s", path, n->to);
        snprintf(from, sizeof from, "%s/%s", path, n->from);
        if (n->from[0])
            syscall(SYS_renameat2, AT_FDCWD, to, AT_FDCWD, from, n->swapped ? RENAME_EXCHANGE : 0);
        else
            file_remove_tree(to);
    }
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        char below[700];
        snprintf(below, sizeof below, "%s/%s", path, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) lose_power(below);
    }
    if (d) closedir(d);
}

/* True: the call must fail now, errno is set. */
static bool hit(void)
{
    enum mode mode = plan.mode;
    if (mode == OFF || (++plan.calls != plan.target && !(mode == FAILING_ON && plan.calls > plan.target))) return false;
    if (mode != FAILING_ON) plan.mode = OFF;
    if (mode == POWER_LOSS) lose_power(dir);
    if (mode == POWER_LOSS || mode == DYING) syscall(SYS_exit_group, DIED);
    errno = plan.error;
    return mode == FAILING || mode == FAILING_ON;
}

static int opened(const char *path, int flags, mode_t mode)
{
    if (!under_dir(path) || !(flags & (O_WRONLY | O_RDWR))) return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (hit()) return -1;
    bool fresh = flags & O_CREAT && access(path, F_OK);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && fresh) note_name(NULL, path, false);
    if (fd >= 0 && flags & O_TRUNC) note_data(fd);
    return fd;
}

int open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = va_arg(ap, mode_t);
    va_end(ap);
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = va_arg(ap, mode_t);
    va_end(ap);
    return opened(path, flags, mode);
}

#define WRITING(fd)                                                                                                                        \
    if (fd_under_dir(fd)) {                                                                                                                \
        if (hit()) return -1;                                                                                                              \
        note_data(fd);                                                                                                                     \
    }

ssize_t write(int fd, const void *data, size_t n)
{
    WRITING(fd)
    return syscall(SYS_write, fd, data, n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    WRITING(fd)
    return syscall(SYS_pwrite64, fd, data, n, at);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) { return pwrite(fd, data, n, at); }

int ftruncate(int fd, off_t n)
{
    WRITING(fd)
    return (int)syscall(SYS_ftruncate, fd, n);
}

int ftruncate64(int fd, off_t n) { return ftruncate(fd, n); }

int fallocate(int fd, int how, off_t at, off_t n)
{
    WRITING(fd)
    return (int)syscall(SYS_fallocate, fd, how, at, n);
}

ssize_t pread(int fd, void *data, size_t n, off_t at)
{
    if (fd_under_dir(fd) && hit()) return -1;
    return syscall(SYS_pread64, fd, data, n, at);
}

ssize_t pread64(int fd, void *data, size_t n, off_t at) { return pread(fd, data, n, at); }

int fsync(int fd)
{
    if (!fd_under_dir(fd)) return (int)syscall(SYS_fsync, fd);
    if (hit()) return -1;
    plan.fsyncs++;
    if (plan.skip_fsync == -1 || plan.fsyncs == plan.skip_fsync) return 0;
    forget_data(inode(fd));
    forget_names(inode(fd));
    return 0; /* nobody pulls the plug: the disk itself need not be waited for */
}

int close(int fd)
{
    bool fails = plan.mode != FAILING_ON && fd_under_dir(fd) && hit(); /* a full disk lets files close */
    int error = errno, rc = (int)syscall(SYS_close, fd);
    errno = error;
    return fails ? -1 : rc;
}

int mkdir(const char *path, mode_t mode)
{
    if (under_dir(path) && hit()) return -1;
    int rc = (int)syscall(SYS_mkdir, path, mode);
    if (rc == 0 && under_dir(path)) note_name(NULL, path, false);
    return rc;
}

int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    if (under_dir(to) && hit()) return -1;
    int rc = (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
    if (rc == 0 && under_dir(to)) note_name(from, to, flags & RENAME_EXCHANGE);
    return rc;
}

/* ---- the cases ------------------------------------------------------------------------------------------------------
 */

static struct comm comm;
static struct state st;
static char where[300]; /* dir/checkpoints */

static status save(uint64_t seed)
{
    state_fill(&st, seed);
    return ckpt_save(&comm, where, &st.s);
}

/* The step found and loaded whole, 0 none, −1 wrong data or failure. */
static int64_t load(void)
{
    struct ckpt_info info;
    bool found;
    if (ckpt_find(&comm, where, &info, &found)) return -1;
    int64_t step = 0;
    if (found) {
        step = ckpt_load(&comm, &info, &st.s) || state_differs(&st, (uint64_t)info.step) >= 0 ? -1 : info.step;
        ckpt_info_free(&info);
    }
    return step;
}

static void fresh(void)
{
    plan.mode = OFF;
    plan.skip_fsync = plan.calls = 0;
    file_remove_tree(where);
    assert_int_equal(save(1), ST_OK);
    n_data = n_names = plan.fsyncs = 0;
}

/* Runs `body` in a child that may die at a call; its exit code. */
static int in_child(int (*body)(void))
{
    pid_t child = fork();
    if (child == 0) syscall(SYS_exit_group, body());
    int rc;
    assert_int_equal(waitpid(child, &rc, 0), child);
    assert_true(WIFEXITED(rc));
    return WEXITSTATUS(rc);
}

static int count_calls(void)
{
    fresh();
    plan.mode = COUNTING;
    plan.target = -1;
    assert_int_equal(save(2), ST_OK);
    plan.mode = OFF;
    print_message("%d calls in one save, %d of them fsync\n", plan.calls, plan.fsyncs);
    assert_true(plan.calls > 20 && plan.fsyncs >= 5);
    return plan.calls;
}

static int open_files(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

/* The save fails cleanly, or the call did not matter; nothing stays open; the next save works. */
static int failing_body(void)
{
    int files = open_files();
    enum mode mode = plan.mode;
    status result = save(2);
    plan.mode = OFF;
    if (result && !status_message()[0]) return 2;
    /* a save that failed only after its rename, and could not even rename back, leaves a whole checkpoint: no harm */
    int64_t step = load();
    if (step != (result ? 1 : 2) && !(mode == FAILING_ON && step == 2)) return 3;
    if (H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) || open_files() != files) return 4;
    return save(3) || load() != 3 ? 5 : 0;
}

static void every_call_fails(void **unused)
{
    (void)unused;
    static const struct {
        enum mode mode;
        int error;
    } kinds[] = {{FAILING, EIO}, {FAILING, ENOSPC}, {FAILING_ON, ENOSPC}};
    int n = count_calls();
    for (int i = 1; i <= n; i++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            fresh();
            plan.mode = kinds[k].mode;
            plan.target = i;
            plan.error = kinds[k].error;
            int rc = in_child(failing_body);
            plan.mode = OFF;
            if (rc) fail_msg("call %d failing, kind %zu: %d", i, k, rc);
        }
}

static int dying_body(void) { return save(2) ? 1 : 0; }

/* The process or the power goes at every call: what is found is whole, the old step or the new. */
static void dies_at_every_call(void **unused)
{
    (void)unused;
    static const struct {
        enum mode mode;
        int lose;
    } kinds[] = {{DYING, 0}, {POWER_LOSS, LOSE_DATA}, {POWER_LOSS, LOSE_NAMES}, {POWER_LOSS, LOSE_DATA | LOSE_NAMES}};
    int n = count_calls();
    for (int i = 1; i <= n; i++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            fresh();
            plan.mode = kinds[k].mode;
            plan.lose = kinds[k].lose;
            plan.target = i;
            int rc = in_child(dying_body);
            plan.mode = OFF;
            if (rc != DIED) fail_msg("call %d kind %zu: exit %d", i, k, rc);
            int64_t step = load();
            if (step != 1 && step != 2) fail_msg("call %d kind %zu: found %lld", i, k, (long long)step);
            assert_int_equal(save(3), ST_OK); /* and what is left over hinders nobody */
            assert_int_equal(load(), 3);
        }
}

/* The same step saved again: one of the two is there at every instant. */
static int again_body(void) { return save(1) ? 1 : 0; }

static void dies_while_replacing(void **unused)
{
    (void)unused;
    int n = count_calls();
    for (int i = 1; i <= n + 20; i++)
        for (int lose = 0; lose < 4; lose++) {
            fresh();
            plan.mode = lose ? POWER_LOSS : DYING;
            plan.lose = lose;
            plan.target = i;
            int rc = in_child(again_body);
            plan.mode = OFF;
            assert_true(rc == DIED || rc == 0);
            if (load() != 1) fail_msg("call %d, lose %d: not there", i, lose);
            if (rc == 0) return;
        }
}

/* A save that returned, and then the power goes: the new step must be there. */
static int saved_then_lost(void)
{
    plan.mode = COUNTING;
    plan.target = -1;
    if (save(2)) return 1;
    plan.mode = OFF;
    lose_power(dir);
    return 0;
}

static int64_t survivor(int skip, int lose)
{
    fresh();
    plan.skip_fsync = skip;
    plan.lose = lose;
    assert_int_equal(in_child(saved_then_lost), 0);
    plan.skip_fsync = 0;
    return load();
}

static void a_finished_save_survives_power_loss(void **unused)
{
    (void)unused;
    assert_int_equal(survivor(0, LOSE_DATA | LOSE_NAMES), 2);
    /* and the proof that this test would notice: without its fsyncs it does not */
    assert_int_equal(survivor(-1, LOSE_DATA), 1);
    assert_int_equal(survivor(-1, LOSE_NAMES), 1);
    fresh();
    plan.mode = COUNTING;
    plan.target = -1;
    assert_int_equal(save(2), ST_OK);
    plan.mode = OFF;
    int needed = 0, all = plan.fsyncs;
    for (int k = 1; k <= all; k++) needed += survivor(k, LOSE_DATA | LOSE_NAMES) != 2;
    print_message("%d of %d fsyncs are indispensable each by itself\n", needed, all);
    assert_true(needed >= all - 1); /* the directory is synced before and after the manifest */
}

int main(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/trimpot-faults-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(dir)) return 1;
    snprintf(where, sizeof where, "%s/checkpoints", dir);
    comm_self_open(&comm);
    state_init(&st, COUNT);
    log_init(0, 1, LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_fails),
        cmocka_unit_test(dies_at_every_call),
        cmocka_unit_test(dies_while_replacing),
        cmocka_unit_test(a_finished_save_survives_power_loss),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    plan.mode = OFF;
    file_remove_tree(dir);
    state_release(&st);
    return failed;
}
