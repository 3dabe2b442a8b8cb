/* A checkpoint survives what a machine does to it: kill -9 in the middle of a save, flipped bits, cut and missing
 * files. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "tests/checkpoints/ckpt_state.h"
#include "tests/checkpoints/fake_comm.h"

enum { RANKS = 2, ROUNDS = 30 };
static const int64_t count = 200000;
static char dir[256];

static int setup(void **unused)
{
    (void)unused;
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/trimpot-crash-XXXXXX", base ? base : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **unused)
{
    (void)unused;
    return file_remove_tree(dir) ? -1 : 0;
}

struct call {
    struct state states[RANKS];
    bool retain, reject;
    void (*between)(void); /* after find, before load */
    status st;
    bool found;
    int64_t step;
    int rejected;
};

static void do_save(struct comm *comm, void *arg)
{
    struct call *c = arg;
    status st = ckpt_save(comm, dir, &c->states[comm->rank].s);
    if (!st && c->retain) st = ckpt_retain(comm, dir, 2, NULL);
    if (comm->rank == 0) c->st = st;
    if (st) print_error("save: %s\n", status_message());
}

static void do_load(struct comm *comm, void *arg)
{
    struct call *c = arg;
    struct ckpt_info info;
    bool found;
    status st = ckpt_find(comm, dir, &info, &found);
    comm->fn->barrier(comm);
    if (comm->rank == 0 && c->between) c->between();
    comm->fn->barrier(comm);
    if (!st && found) st = ckpt_load(comm, &info, &c->states[comm->rank].s);
    if (comm->rank == 0) {
        c->st = st;
        c->found = found;
        c->step = info.step;
        c->rejected = info.rejected;
    }
    if (c->reject && st == ST_CORRUPT) ckpt_reject(comm, &info);
    ckpt_info_free(&info);
}

/* Finds and loads; the warnings it gives, hundreds in this test, are wanted but not to be read. */
static void load(struct call *c)
{
    fflush(stderr);
    int keep = dup(2), null = open("/dev/null", O_WRONLY);
    dup2(null, 2);
    fake_run(RANKS, NULL, do_load, c);
    fflush(stderr);
    dup2(keep, 2);
    close(keep);
    close(null);
}

static void call_init(struct call *c)
{
    *c = (struct call){0};
    for (int r = 0; r < RANKS; r++) state_init(&c->states[r], count);
}

static void call_release(struct call *c)
{
    for (int r = 0; r < RANKS; r++) state_release(&c->states[r]);
}

static status save(struct call *c, int64_t step)
{
    for (int r = 0; r < RANKS; r++) state_fill(&c->states[r], (uint64_t)step);
    fake_run(RANKS, NULL, do_save, c);
    return c->st;
}

/* ---- kill -9 --------------------------------------------------------------------------------------------------------
 */

static void save_for_ever(int64_t step, int report)
{
    struct call c;
    call_init(&c);
    c.retain = true;
    for (;; step++) {
        if (save(&c, step)) _exit(1);
        if (write(report, &step, sizeof step) != sizeof step) _exit(2);
    }
}

/* Microseconds of one save here and now. */
static unsigned time_one_save(void)
{
    struct call c;
    call_init(&c);
    double begin = clock_s();
    assert_int_equal(save(&c, 1), ST_OK);
    call_release(&c);
    return (unsigned)(1e6 * (clock_s() - begin));
}

static void killed_while_saving(void **unused)
{
    (void)unused;
    int64_t committed = 1;
    unsigned one_save = time_one_save();
    unsigned seed = 1;
    int progressed = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            save_for_ever(committed + 1, ends[1]);
        }
        close(ends[1]);
        seed = seed * 1103515245u + 12345u;
        usleep(one_save / 4 + seed / 65536u % 1000u * (one_save / 400u)); /* up to 2.75 saves */
        kill(child, SIGKILL);
        int rc;
        waitpid(child, &rc, 0);
        assert_true(WIFSIGNALED(rc));
        int64_t step, before = committed;
        while (read(ends[0], &step, sizeof step) == sizeof step) committed = step;
        close(ends[0]);
        progressed += committed > before;
        struct call c;
        call_init(&c);
        load(&c);
        assert_int_equal(c.st, ST_OK);
        assert_int_equal(c.rejected, 0); /* a kill never leaves a bad one under a good name */
        if (committed) assert_true(c.found && c.step >= committed);
        if (c.found) {
            for (int r = 0; r < RANKS; r++) assert_int_equal(state_differs(&c.states[r], (uint64_t)c.step), -1);
            committed = c.step;
        }
        call_release(&c);
    }
    print_message("%d of %d rounds committed something, newest step %lld\n", progressed, ROUNDS, (long long)committed);
    assert_true(progressed > 0);
}

/* ---- damage ---------------------------------------------------------------------------------------------------------
 */

static const char *const files[] = {"manifest", "shard-00000.h5", "shard-00000.sum", "shard-00001.h5", "shard-00001.sum"};
enum { N_FILES = sizeof files / sizeof *files };

static char *path_of(const char *file)
{
    static char path[400];
    snprintf(path, sizeof path, "%s/step-0000002/%s", dir, file);
    return path;
}

static void flip(const char *path, int64_t at, unsigned char mask)
{
    unsigned char byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= mask;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* The damaged step 2 must be set aside and step 1 found; then it is put back for the next damage. */
static void expect_fall_back(const char *what, const char *file, int64_t at)
{
    struct call c;
    char bad[300], good[300];
    call_init(&c);
    load(&c);
    snprintf(good, sizeof good, "%s/step-0000002", dir);
    snprintf(bad, sizeof bad, "%s/step-0000002.bad", dir);
    if (c.st || !c.found || c.step != 1 || c.rejected != 1 || rename(bad, good) || state_differs(&c.states[1], 1) >= 0)
        fail_msg("%s in %s at %lld: status %d, found step %lld, %d rejected", what, file, (long long)at, c.st, (long long)c.step,
                 c.rejected);
    call_release(&c);
}

static int two_checkpoints(void **state)
{
    if (setup(state)) return -1;
    struct call c;
    call_init(&c);
    status st = save(&c, 1);
    if (!st) st = save(&c, 2);
    call_release(&c);
    return st ? -1 : 0;
}

static void every_flipped_bit_is_found(void **unused)
{
    (void)unused;
    unsigned seed = 7;
    for (int f = 0; f < N_FILES; f++) {
        struct stat info;
        assert_int_equal(stat(path_of(files[f]), &info), 0);
        for (int i = 0; i < 40; i++) {
            seed = seed * 1103515245u + 12345u;
            int64_t span = i < 20 && info.st_size > 4096 ? 4096 : info.st_size; /* heads are HDF5's own bytes: half the tries */
            int64_t at = i == 0 ? 0 : i == 1 ? info.st_size - 1 : (int64_t)(seed >> 8) * 131 % span;
            flip(path_of(files[f]), at, (unsigned char)(1 << i % 8));
            expect_fall_back("flipped bit", files[f], at);
            flip(path_of(files[f]), at, (unsigned char)(1 << i % 8));
        }
    }
    struct call c;
    call_init(&c);
    load(&c); /* and undamaged it is still the newest */
    assert_int_equal(c.step, 2);
    call_release(&c);
}

static void cut_grown_and_missing(void **unused)
{
    (void)unused;
    for (int f = 0; f < N_FILES; f++) {
        size_t n;
        char *image;
        assert_int_equal(file_read(path_of(files[f]), 1 << 30, &image, &n), ST_OK);
        const int64_t sizes[] = {0, 1, (int64_t)n / 2, (int64_t)n - 1, (int64_t)n + 1, (int64_t)n + 4096};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            assert_int_equal(truncate(path_of(files[f]), sizes[i]), 0);
            expect_fall_back("another size", files[f], sizes[i]);
        }
        unlink(path_of(files[f]));
        expect_fall_back("missing file", files[f], 0);
        assert_int_equal(mkdir(path_of(files[f]), 0755), 0);
        expect_fall_back("directory for a file", files[f], 0);
        rmdir(path_of(files[f]));
        assert_int_equal(file_replace(path_of(files[f]), image, n), ST_OK);
        free(image);
    }
}

/* A shard of another checkpoint has a valid look and the wrong hash. */
static void a_file_of_another_step(void **unused)
{
    (void)unused;
    for (int f = 0; f < N_FILES; f++) {
        char other[400];
        size_t n;
        char *image;
        snprintf(other, sizeof other, "%s/step-0000001/%s", dir, files[f]);
        assert_int_equal(file_read(path_of(files[f]), 1 << 30, &image, &n), ST_OK);
        assert_int_equal(file_copy(other, path_of(files[f])), ST_OK);
        expect_fall_back("swapped file", files[f], 0);
        assert_int_equal(file_replace(path_of(files[f]), image, n), ST_OK);
        free(image);
    }
}

static void damage_shard(void) { flip(path_of("shard-00001.h5"), 100000, 4); }

static void damage_between_find_and_load(void **unused)
{
    (void)unused;
    struct call c;
    call_init(&c);
    c.between = damage_shard;
    c.reject = true;
    load(&c);
    assert_int_equal(c.step, 2);
    assert_int_equal(c.st, ST_CORRUPT);
    c.between = NULL;
    load(&c);
    assert_int_equal(c.st, ST_OK);
    assert_int_equal(c.step, 1);
    call_release(&c);
}

static void none_left(void **unused)
{
    (void)unused;
    flip(path_of("manifest"), 10, 1);
    char first[400];
    snprintf(first, sizeof first, "%s/step-0000001/shard-00000.sum", dir);
    flip(first, 3, 1);
    struct call c;
    call_init(&c);
    load(&c);
    assert_int_equal(c.st, ST_OK);
    assert_false(c.found);
    assert_int_equal(c.rejected, 2);
    call_release(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(killed_while_saving, setup, teardown),
        cmocka_unit_test_setup_teardown(every_flipped_bit_is_found, two_checkpoints, teardown),
        cmocka_unit_test_setup_teardown(cut_grown_and_missing, two_checkpoints, teardown),
        cmocka_unit_test_setup_teardown(a_file_of_another_step, two_checkpoints, teardown),
        cmocka_unit_test_setup_teardown(damage_between_find_and_load, two_checkpoints, teardown),
        cmocka_unit_test_setup_teardown(none_left, two_checkpoints, teardown),
    };
    log_init(0, 1, LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
