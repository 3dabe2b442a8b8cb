/* Saves or loads one checkpoint over the comm that the environment asks for: bare (as here under ctest) the world of
 * one, under mpirun (ckpt_ranks.sh) real ranks.   test_ckpt_mpi [save|load DIR STEP] */
#include <libgen.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "tests/checkpoints/ckpt_state.h"

enum { COUNT = 1500001 };

static status save(struct comm *comm, const char *dir, struct state *st)
{
    status result = ckpt_save(comm, dir, &st->s);
    return result ? result : ckpt_retain(comm, dir, 3, NULL);
}

static status load(struct comm *comm, const char *dir, struct state *st, int64_t step)
{
    struct ckpt_info info;
    bool found;
    TRY(ckpt_find(comm, dir, &info, &found));
    if (!found || info.step != step) FAIL(ST_FAIL, "found step %lld, wanted %lld", (long long)info.step, (long long)step);
    status result = ckpt_load(comm, &info, &st->s);
    if (!result && state_differs(st, (uint64_t)step) >= 0) result = status_fail(ST_FAIL, "loaded other values");
    ckpt_info_free(&info);
    return result;
}

static status bare(struct comm *comm, struct state *st)
{
    char dir[] = "/tmp/trimpot-ckpt-bare-XXXXXX";
    if (!mkdtemp(dir)) FAIL(ST_IO, "no temporary directory");
    state_fill(st, 4);
    status result = save(comm, dir, st);
    struct state fresh;
    state_init(&fresh, COUNT);
    if (!result) result = load(comm, dir, &fresh, 4);
    state_release(&fresh);
    file_remove_tree(dir);
    return result;
}

static const char *env(const char *name) { return getenv(name); }

int main(int argc, char **argv)
{
    struct launch launch;
    struct comm comm;
    struct state st;
    char self[4096] = {0};
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return 1;
    log_init(0, 1, LOG_QUIET);
    status result = launch_detect(NULL, env, &launch);
    if (!result) result = comm_open(&launch, dirname(self), &comm);
    if (result) {
        log_error("%s", status_message());
        return (int)result;
    }
    state_init(&st, COUNT);
    int64_t step = argc == 4 ? atoll(argv[3]) : 0;
    if (argc == 4 && strcmp(argv[1], "save") == 0) {
        state_fill(&st, (uint64_t)step);
        result = save(&comm, argv[2], &st);
    } else if (argc == 4) {
        result = load(&comm, argv[2], &st, step);
    } else {
        result = bare(&comm, &st);
    }
    if (result) log_error("%s", status_message());
    state_release(&st);
    comm.fn->close(&comm);
    return (int)result;
}
