/* Checkpoints: any P to any P', the same bytes twice, hostile and failing surroundings. Ranks are threads. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoints/ckpt_manifest.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "tests/checkpoints/ckpt_state.h"
#include "tests/checkpoints/fake_comm.h"

static char dir[256]; /* a fresh one per test */

static int setup(void **unused)
{
    (void)unused;
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/trimpot-ckpt-XXXXXX", base ? base : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **unused)
{
    (void)unused;
    return file_remove_tree(dir) ? -1 : 0;
}

/* ---- one call on all ranks ------------------------------------------------------------------------------------------
 */

struct call {
    const char *where;
    struct state *states; /* one per rank */
    int64_t keep;
    struct ckpt_guard guard; /* of retaining */
    status st[FAKE_MAX];
    char message[FAKE_MAX][2048];
    bool found;
    int64_t step;
    int rejected;
    char meta[256];
};

static void note(struct call *c, int rank, status st)
{
    c->st[rank] = st;
    snprintf(c->message[rank], sizeof c->message[rank], "%s", st ? status_message() : "");
}

static void do_save(struct comm *comm, void *arg)
{
    struct call *c = arg;
    note(c, comm->rank, ckpt_save(comm, c->where, &c->states[comm->rank].s));
}

static void do_load(struct comm *comm, void *arg)
{
    struct call *c = arg;
    struct ckpt_info info;
    bool found;
    status st = ckpt_find(comm, c->where, &info, &found);
    if (!st && found && c->states) st = ckpt_load(comm, &info, &c->states[comm->rank].s);
    note(c, comm->rank, st);
    if (comm->rank == 0) {
        c->found = found;
        c->step = info.step;
        c->rejected = info.rejected;
        snprintf(c->meta, sizeof c->meta, "%s", info.meta_json ? info.meta_json : "");
    }
    ckpt_info_free(&info);
}

static void do_retain(struct comm *comm, void *arg)
{
    struct call *c = arg;
    note(c, comm->rank, ckpt_retain(comm, c->where, c->keep, &c->guard));
}

/* All ranks must return the same; that is returned. */
static status agreed(struct call *c, int ranks)
{
    for (int r = 1; r < ranks; r++) {
        assert_int_equal(c->st[r], c->st[0]);
        assert_string_equal(c->message[r], c->message[0]);
    }
    return c->st[0];
}

static status save(const char *where, int ranks, int64_t count, uint64_t seed)
{
    struct state st;
    state_init(&st, count);
    state_fill(&st, seed);
    struct state states[FAKE_MAX];
    for (int r = 0; r < ranks; r++) states[r] = st; /* all ranks hold the same; they share the memory */
    for (int r = 0; r < ranks; r++) states[r].s.meta_json = st.meta, states[r].s.classes = st.classes, states[r].s.tensors = st.tensors;
    struct call c = {.where = where, .states = states};
    fake_run(ranks, NULL, do_save, &c);
    state_release(&st);
    status result = agreed(&c, ranks);
    if (result) print_message("save: %s\n", c.message[0]);
    return result;
}

/* Finds and loads at `ranks`; the step found, or -1; every rank's data are checked. */
static int64_t load(const char *where, int ranks, int64_t count, struct call *out)
{
    struct state states[FAKE_MAX];
    for (int r = 0; r < ranks; r++) state_init(&states[r], count);
    struct call c = {.where = where, .states = states};
    fake_run(ranks, NULL, do_load, &c);
    if (agreed(&c, ranks)) print_message("load: %s\n", c.message[0]);
    if (!c.st[0] && c.found)
        for (int r = 0; r < ranks; r++) assert_int_equal(state_differs(&states[r], (uint64_t)c.step), -1);
    for (int r = 0; r < ranks; r++) state_release(&states[r]);
    if (out) *out = c;
    assert_int_equal(c.st[0], ST_OK);
    return c.found ? c.step : -1;
}

static int64_t find_only(const char *where, int ranks, int *rejected)
{
    struct call c = {.where = where};
    fake_run(ranks, NULL, do_load, &c);
    assert_int_equal(agreed(&c, ranks), ST_OK);
    if (rejected) *rejected = c.rejected;
    return c.found ? c.step : -1;
}

static int count_entries(const char *where, const char *suffix)
{
    DIR *d = opendir(where);
    int n = 0;
    if (!d) return 0;
    for (struct dirent *e; (e = readdir(d));) {
        size_t a = strlen(e->d_name), b = strlen(suffix);
        n += e->d_name[0] != '.' && a >= b && strcmp(e->d_name + a - b, suffix) == 0;
    }
    closedir(d);
    return n;
}

/* ---- tests ----------------------------------------------------------------------------------------------------------
 */

/* Must be the first: HDF5 reads the variable once, when it starts. */
static void locking_variable(void **unused)
{
    (void)unused;
    static const char *const values[] = {"TRUE", "FALSE", "BEST_EFFORT", "nonsense"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        pid_t child = fork();
        if (child == 0) {
            setenv("HDF5_USE_FILE_LOCKING", values[i], 1);
            char where[300];
            snprintf(where, sizeof where, "%s/%zu", dir, i);
            _exit(save(where, 2, 70000, 3) || load(where, 1, 70000, NULL) != 3);
        }
        int rc;
        waitpid(child, &rc, 0);
        assert_int_equal(rc, 0);
    }
}

static void any_ranks_to_any_ranks(void **unused)
{
    (void)unused;
    static const int sizes[] = {1, 2, 3, 4, 8};
    const int64_t count = 2300001; /* pieces of every class end in the middle of some rank's share */
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char where[300];
        snprintf(where, sizeof where, "%s/p%d", dir, sizes[i]);
        assert_int_equal(save(where, sizes[i], count, 40 + i), ST_OK);
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            struct call c;
            assert_int_equal(load(where, sizes[j], count, &c), 40 + i);
            char want[128];
            snprintf(want, sizeof want, "{\"seed\": %zu,\n  \"lr\": 0.1, \"text\": \"a\\nb\"}", 40 + i);
            assert_string_equal(c.meta, want); /* verbatim */
        }
    }
}

static void small_and_empty(void **unused)
{
    (void)unused;
    static const int64_t counts[] = {0, 1, 65535, 65536, 65537, 131072};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char where[300];
        snprintf(where, sizeof where, "%s/%zu", dir, i);
        assert_int_equal(save(where, 4, counts[i], 7), ST_OK);
        assert_int_equal(load(where, 3, counts[i], NULL), 7);
    }
}

static void nothing_there(void **unused)
{
    (void)unused;
    char where[300];
    snprintf(where, sizeof where, "%s/absent", dir);
    assert_int_equal(find_only(where, 2, NULL), -1);
    assert_int_equal(find_only(dir, 2, NULL), -1);
}

/* Not inlined: gcc would take what strstr finds in its result for a pointer to its variable. */
__attribute__((noinline)) static char *slurp(const char *path, size_t *n)
{
    char *text;
    assert_int_equal(file_read(path, 1 << 30, &text, n), ST_OK);
    return text;
}

static void same_state_same_bytes(void **unused)
{
    (void)unused;
    static const char *const files[] = {"manifest", "shard-00000.h5", "shard-00001.h5", "shard-00000.sum", "shard-00001.sum"};
    char a[300], b[300];
    snprintf(a, sizeof a, "%s/a", dir);
    snprintf(b, sizeof b, "%s/b", dir);
    assert_int_equal(save(a, 2, 300000, 5), ST_OK);
    sleep(1); /* a time in a file would show */
    assert_int_equal(save(b, 2, 300000, 5), ST_OK);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char pa[400], pb[400];
        size_t na, nb;
        snprintf(pa, sizeof pa, "%s/step-0000005/%s", a, files[i]);
        snprintf(pb, sizeof pb, "%s/step-0000005/%s", b, files[i]);
        char *ta = slurp(pa, &na), *tb = slurp(pb, &nb);
        assert_int_equal(na, nb);
        assert_memory_equal(ta, tb, na);
        free(ta);
        free(tb);
    }
}

/* Every shard holds what its rank owns of the flat index; of a class with one element for 256, the n/256th. */
static void shards_hold_what_ranks_own(void **unused)
{
    (void)unused;
    const int64_t count = 10 * OWN_PAGE + 1000;
    for (int ranks = 1; ranks <= 8; ranks++) {
        char where[300], path[400];
        size_t n;
        struct ckpt_manifest *m;
        struct state st;
        snprintf(where, sizeof where, "%s/p%d", dir, ranks);
        assert_int_equal(save(where, ranks, count, 9), ST_OK);
        snprintf(path, sizeof path, "%s/step-0000009/manifest", where);
        char *text = slurp(path, &n);
        assert_int_equal(ckpt_manifest_parse(path, text, n, &m), ST_OK);
        state_init(&st, count);
        state_fill(&st, 9);
        for (int r = 0; r < ranks; r++) {
            struct range mine = own(count, r, ranks);
            const struct ckpt_part *p = m->shards[r].part;
            assert_true(p[0].lo == mine.lo && p[0].hi == mine.hi);
            assert_true(p[4].lo == mine.lo / 256 && p[4].hi == (mine.hi + 255) / 256);
            if (p[4].lo == p[4].hi) continue;
            snprintf(path, sizeof path, "%s/step-0000009/shard-%05d.h5", where, r);
            char *image = slurp(path, &n);
            assert_memory_equal(image + p[4].offset, st.vectors[4].data + p[4].lo * 4, (size_t)(p[4].hi - p[4].lo) * 4);
            free(image);
        }
        state_release(&st);
        ckpt_manifest_free(m);
        free(text);
    }
}

/* A checkpoint of the format before this one, whole: it is neither read nor set aside, and the remedy is told. */
static void older_version(void **unused)
{
    (void)unused;
    assert_int_equal(save(dir, 1, 70000, 5), ST_OK);
    char path[400];
    size_t n;
    snprintf(path, sizeof path, "%s/step-0000005/manifest", dir);
    struct buf old = {0};
    char *text = slurp(path, &n), *version = strstr(text, "\"version\": 2");
    assert_non_null(version);
    version[strlen("\"version\": ")] = '1';
    buf_add(&old, text, n - strlen("xxh3-128 ") - 32 - 1);
    buf_printf(&old, "xxh3-128 %s\n", hash_text(hash_bytes(old.data, old.len)));
    assert_int_equal(file_replace(path, old.data, old.len), ST_OK);
    struct call c = {.where = dir};
    fake_run(2, NULL, do_load, &c);
    assert_int_equal(agreed(&c, 2), ST_NOT_BUILT);
    assert_non_null(strstr(c.message[0], "version 1 was written by an older build"));
    assert_non_null(strstr(c.message[0], "resume_from_checkpoint=false"));
    assert_int_equal(count_entries(dir, ".bad"), 0);
    buf_release(&old);
    free(text);
}

static void hdf5_users_can_read_it(void **unused)
{
    (void)unused;
    H5E_auto2_t before, after;
    void *x;
    H5Eget_auto2(H5E_DEFAULT, &before, &x);
    const int64_t count = 100000;
    assert_int_equal(save(dir, 1, count, 5), ST_OK);
    H5Eget_auto2(H5E_DEFAULT, &after, &x);
    assert_ptr_equal(before, after);
    assert_int_equal(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL), 0);

    char path[400], dt[16] = "";
    snprintf(path, sizeof path, "%s/step-0000005/shard-00000.h5", dir);
    hid_t f = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), d = H5Dopen2(f, "weights", H5P_DEFAULT);
    assert_true(f >= 0 && d >= 0);
    struct state st;
    state_init(&st, count);
    for (int k = 0; k < STATE_CLASSES; k++)
        if (k != 2) {
            hid_t one = H5Dopen2(f, st.classes[k].name, H5P_DEFAULT);
            hid_t type = k == 0 ? H5T_STD_U16LE : k == 3 ? H5T_STD_U8LE : H5T_IEEE_F32LE;
            assert_true(H5Dread(one, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, st.vectors[k].data) >= 0);
            H5Dclose(one);
        }
    assert_int_equal(state_differs(&st, 5), -1);
    hid_t a = H5Aopen(d, "dtype", H5P_DEFAULT), type = H5Aget_type(a);
    H5Aread(a, type, dt);
    assert_int_equal(H5Tget_size(type), 5); /* with its end */
    assert_string_equal(dt, "bf16");
    H5Tclose(type);
    H5Aclose(a);
    H5Dclose(d);
    H5Fclose(f);
    state_release(&st);
}

static void another_layout_is_refused(void **unused)
{
    (void)unused;
    assert_int_equal(save(dir, 2, 100000, 5), ST_OK);
    struct state st;
    state_init(&st, 100008);
    st.tensors[1].name = "model.other.weight";
    struct call c = {.where = dir, .states = &st};
    fake_run(1, NULL, do_load, &c);
    assert_int_equal(c.st[0], ST_SHAPE);
    static const char *const parts[] = {"weights, 100000 × bf16", "100008 × bf16", "model.other.weight", "[12501, 4]", "codes"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(c.message[0], parts[i])) fail_msg("'%s' is not in: %s", parts[i], c.message[0]);
    state_release(&st);
}

static void same_step_again(void **unused)
{
    (void)unused;
    assert_int_equal(save(dir, 2, 100000, 5), ST_OK);
    assert_int_equal(save(dir, 1, 100000, 5), ST_OK);
    assert_int_equal(load(dir, 1, 100000, NULL), 5);
    assert_int_equal(count_entries(dir, ""), 1);
}

static void retention(void **unused)
{
    (void)unused;
    for (uint64_t i = 1; i <= 5; i++) assert_int_equal(save(dir, 2, 70000, i), ST_OK);
    char path[400];
    snprintf(path, sizeof path, "%s/step-0000009.tmp", dir);
    assert_int_equal(file_mkdirs(path), ST_OK);
    snprintf(path, sizeof path, "%s/step-0000001.trash/x", dir);
    assert_int_equal(file_mkdirs(path), ST_OK);
    snprintf(path, sizeof path, "%s/step-0000005/shard-00001.sum", dir); /* the newest is bad: it must not count */
    assert_int_equal(unlink(path), 0);
    struct call c = {.where = dir, .keep = 2};
    fake_run(2, NULL, do_retain, &c);
    assert_int_equal(agreed(&c, 2), ST_OK);
    assert_int_equal(count_entries(dir, ""), 3);
    int rejected;
    assert_int_equal(find_only(dir, 2, &rejected), 4);
    assert_int_equal(rejected, 1);
    assert_int_equal(count_entries(dir, ".bad"), 1);
    snprintf(path, sizeof path, "%s/step-0000009.0123456789abcdef0123456789abcdef.tmp/x", dir); /* of a run that was killed */
    assert_int_equal(file_mkdirs(path), ST_OK);
    c.keep = 0;
    fake_run(1, NULL, do_retain, &c);
    assert_int_equal(count_entries(dir, ".tmp"), 0);
    assert_int_equal(load(dir, 1, 70000, NULL), 4);
    assert_int_equal(find_only(dir, 1, NULL), 4);
}

static void names_that_are_no_steps(void **unused)
{
    (void)unused;
    static const char *const names[] = {
        "step-12", "step-0000012x",   "step--000001", "step-", "step-00000012", "step-+000012", "step-99999999999999999999",
        "latest",  "step-0000012.old"};
    assert_int_equal(save(dir, 1, 70000, 3), ST_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_int_equal(file_mkdirs(path), ST_OK);
    }
    int rejected;
    assert_int_equal(find_only(dir, 1, &rejected), 3);
    assert_int_equal(rejected, 0);
}

/* ---- failing surroundings -------------------------------------------------------------------------------------------
 */

static void block_rank_1(int rank, int count)
{
    if (rank != 1 || count != 1) return;
    char path[400];
    snprintf(path, sizeof path, "%s/step-0000006.tmp/shard-00001.h5", dir);
    file_mkdirs(path);
}

static void one_rank_fails(void **unused)
{
    (void)unused;
    assert_int_equal(save(dir, 3, 300000, 5), ST_OK);
    struct state st;
    state_init(&st, 300000);
    state_fill(&st, 6);
    struct state states[3] = {st, st, st};
    struct call c = {.where = dir, .states = states};
    fake_run(3, block_rank_1, do_save, &c);
    assert_int_equal(agreed(&c, 3), ST_IO);
    assert_non_null(strstr(c.message[0], "rank 1"));
    assert_non_null(strstr(c.message[0], "shard-00001.h5"));
    assert_int_equal(count_entries(dir, ""), 1);
    fake_run(3, NULL, do_save, &c); /* the cause is gone: the next save works */
    assert_int_equal(agreed(&c, 3), ST_OK);
    assert_int_equal(load(dir, 2, 300000, NULL), 6);
    state_release(&st);
}

/* What brings the state to the host, or takes it back, fails on one rank: all ranks say so, and nothing is left behind. */
static status device_lost(void *owner, int64_t at, int64_t n, void *to_host)
{
    (void)owner, (void)at, (void)n, (void)to_host;
    FAIL(ST_DEVICE, "the device is lost");
}

static status device_full(void *owner, int64_t at, int64_t n, const void *from_host)
{
    return device_lost(owner, at, n, (void *)(uintptr_t)from_host);
}

static void one_callback_fails(void **unused)
{
    (void)unused;
    struct state st;
    state_init(&st, 300000);
    state_fill(&st, 6);
    struct state states[3] = {st, st, st};
    for (int r = 0; r < 3; r++) states[r].s.classes = states[r].classes;
    struct call c = {.where = dir, .states = states};
    states[1].classes[1].read = device_lost;
    fake_run(3, NULL, do_save, &c);
    assert_int_equal(agreed(&c, 3), ST_DEVICE);
    assert_non_null(strstr(c.message[0], "rank 1"));
    assert_int_equal(count_entries(dir, ""), 0);
    states[1].classes[1].read = state_read;
    fake_run(3, NULL, do_save, &c);
    assert_int_equal(agreed(&c, 3), ST_OK);
    states[2].classes[0].write = device_full;
    fake_run(3, NULL, do_load, &c);
    assert_int_equal(agreed(&c, 3), ST_DEVICE);
    assert_non_null(strstr(c.message[0], "rank 2"));
    assert_int_equal(count_entries(dir, ""), 1);
    state_release(&st);
}

/* The directory becomes another run's: at once, or between the shards and the commit. Nothing of it is touched. */
static int guard_calls;
static status refuse_from(void *nth) { return ++guard_calls >= *(int *)nth ? status_fail(ST_USAGE, "another run has it") : ST_OK; }

static void guarded(void **unused)
{
    (void)unused;
    char others[400];
    snprintf(others, sizeof others, "%s/step-0000006.other.tmp", dir);
    assert_int_equal(save(dir, 2, 70000, 4), ST_OK);
    assert_int_equal(save(dir, 2, 70000, 5), ST_OK);
    assert_int_equal(file_mkdirs(others), ST_OK);
    struct state st;
    state_init(&st, 70000);
    state_fill(&st, 6);
    st.s.writer = "mine";
    for (int nth = 1; nth <= 2; nth++) {
        guard_calls = 0;
        st.s.guard = (struct ckpt_guard){refuse_from, &nth};
        struct state states[2] = {st, st};
        struct call c = {.where = dir, .states = states, .keep = 1, .guard = st.s.guard};
        fake_run(2, NULL, do_save, &c);
        assert_int_equal(agreed(&c, 2), ST_USAGE);
        assert_non_null(strstr(c.message[0], "another run has it"));
        assert_int_equal(guard_calls, nth);
        fake_run(2, NULL, do_retain, &c);
        assert_int_equal(agreed(&c, 2), ST_USAGE);
        assert_int_equal(count_entries(dir, ""), 3);
        assert_true(file_is_dir(others));
    }
    int never = 100;
    st.s.guard = (struct ckpt_guard){refuse_from, &never};
    struct state states[2] = {st, st};
    struct call c = {.where = dir, .states = states, .keep = 1, .guard = st.s.guard};
    fake_run(2, NULL, do_save, &c);
    assert_int_equal(agreed(&c, 2), ST_OK);
    assert_int_equal(load(dir, 1, 70000, NULL), 6);
    assert_true(file_is_dir(others));
    fake_run(2, NULL, do_retain, &c);
    assert_int_equal(agreed(&c, 2), ST_OK);
    assert_int_equal(count_entries(dir, ""), 1);
    state_release(&st);
}

/* Writes fail at every possible size of file: nothing may remain and no later save may be hurt. */
static void file_size_limit(void **unused)
{
    (void)unused;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit old, tight;
        getrlimit(RLIMIT_FSIZE, &old);
        int bad = save(dir, 2, 300000, 1) != ST_OK;
        static const rlim_t limits[] = {0, 100, 2000, 5000, 100000, 700000, 1000000};
        for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
            tight = (struct rlimit){limits[i], old.rlim_max};
            setrlimit(RLIMIT_FSIZE, &tight);
            status st = save(dir, 2, 300000, 2);
            setrlimit(RLIMIT_FSIZE, &old);
            bad |= st != ST_IO || count_entries(dir, "") != 1;
        }
        bad |= save(dir, 2, 300000, 2) != ST_OK || load(dir, 2, 300000, NULL) != 2;
        _exit(bad);
    }
    int rc;
    waitpid(child, &rc, 0);
    assert_int_equal(rc, 0);
}

static void fill_disk(int rank, int count)
{
    if (rank != 0 || count != 1) return;
    char path[400], zeros[4096] = {0};
    snprintf(path, sizeof path, "%s/filler", dir);
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    while (write(fd, zeros, sizeof zeros) > 0) {}
    close(fd);
}

/* In a name space of its own: exit 0 good, 1 bad, 77 not permitted. */
static int full_disk_child(void)
{
    if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS)) return 77;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("tmpfs", dir, "tmpfs", 0, "size=8m")) return 77;
    char where[300], filler[300];
    snprintf(where, sizeof where, "%s/ckpt", dir);
    snprintf(filler, sizeof filler, "%s/filler", dir);
    if (save(where, 2, 300000, 1)) return 1;
    int fds = count_entries("/proc/self/fd", "");
    struct state st;
    state_init(&st, 300000);
    state_fill(&st, 2);
    struct state states[2] = {st, st};
    struct call c = {.where = where, .states = states};
    fake_run(2, fill_disk, do_save, &c); /* full after the check for free space */
    if (c.st[0] != ST_IO || c.st[1] != ST_IO || !strstr(c.message[0], "No space left") || count_entries(where, "") != 1) return 1;
    fake_run(2, NULL, do_save, &c); /* full before it */
    if (c.st[0] != ST_IO || !strstr(c.message[0], "are free") || count_entries(where, "") != 1) return 1;
    if (load(where, 2, 300000, NULL) != 1) return 1;
    if (H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) || count_entries("/proc/self/fd", "") != fds) return 1;
    unlink(filler);
    fake_run(2, NULL, do_save, &c);
    return c.st[0] || load(where, 1, 300000, NULL) != 2;
}

static void full_disk(void **unused)
{
    (void)unused;
    pid_t child = fork();
    if (child == 0) _exit(full_disk_child());
    int rc;
    waitpid(child, &rc, 0);
    if (WEXITSTATUS(rc) == 77) {
        print_message("SKIPPED: full_disk needs the right to mount a tmpfs (root, or user name spaces)\n");
        skip();
    }
    assert_int_equal(rc, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(locking_variable, setup, teardown),
        cmocka_unit_test_setup_teardown(any_ranks_to_any_ranks, setup, teardown),
        cmocka_unit_test_setup_teardown(small_and_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_there, setup, teardown),
        cmocka_unit_test_setup_teardown(same_state_same_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(shards_hold_what_ranks_own, setup, teardown),
        cmocka_unit_test_setup_teardown(older_version, setup, teardown),
        cmocka_unit_test_setup_teardown(one_callback_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(hdf5_users_can_read_it, setup, teardown),
        cmocka_unit_test_setup_teardown(another_layout_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(same_step_again, setup, teardown),
        cmocka_unit_test_setup_teardown(retention, setup, teardown),
        cmocka_unit_test_setup_teardown(names_that_are_no_steps, setup, teardown),
        cmocka_unit_test_setup_teardown(one_rank_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(guarded, setup, teardown),
        cmocka_unit_test_setup_teardown(file_size_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(full_disk, setup, teardown),
    };
    log_init(0, 1, LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
