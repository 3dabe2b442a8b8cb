#include "collectives/comm.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "collectives/comm_self.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

/* The plugin's symbols (comm_mpi.c): MPI_Init and the table; what the library says of itself. */
typedef status mpi_open_fn(struct comm *out);
typedef void mpi_library_fn(char *text, size_t bytes);
static const char PLUGIN[] = "trimpot_mpi.so", OPEN[] = "trimpot_comm_mpi_open", LIBRARY[] = "trimpot_comm_mpi_library";

/* *function: a pointer to the function of that name. */
static status plugin_function(const char *dir, const char *name, void *function)
{
    char *path = mem_printf("%s/%s", dir, PLUGIN);
    void *plugin = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    status st = ST_OK;
    if (!plugin) {
        const char *why = dlerror();
        FAIL_DONE(ST_NOT_BUILT, "MPI support does not load: %s; build with libopenmpi-dev installed, or run one process with "
                  "--dist self", why ? why : path);
    }
    void *symbol = dlsym(plugin, name);
    if (!symbol) FAIL_DONE(ST_NOT_BUILT, "%s: has no %s; it belongs to another build: rebuild both", path, name);
    memcpy(function, &symbol, sizeof symbol);
done:
    free(path);
    return st;
}

status comm_library(const char *plugin_dir, char *text, size_t bytes)
{
    mpi_library_fn *library = NULL;
    TRY(plugin_function(plugin_dir, LIBRARY, &library));
    library(text, bytes);
    return ST_OK;
}

status comm_open(const struct launch *l, const char *plugin_dir, struct comm *out)
{
    comm_self_open(out);
    if (!l->mpi) return ST_OK;
    mpi_open_fn *open = NULL;
    status loaded = plugin_function(plugin_dir, OPEN, &open);
    if (loaded) return status_prefix(loaded, "started by %s", l->how);
    struct comm c = {0};
    TRY(open(&c));
    if (l->expected_world && c.size != l->expected_world) {
        int world = c.size;
        c.fn->close(&c);
        FAIL(ST_USAGE, "started by %s: the environment promises %d ranks, MPI_COMM_WORLD has %d; the launcher belongs to "
             "another MPI, or its variables are left over in this shell (unset OMPI_COMM_WORLD_SIZE, or --dist self)",
             l->how, l->expected_world, world);
    }
    *out = c;
    return ST_OK;
}

void comm_fail(struct comm *c, int code)
{
    enum { PEER_GRACE_S = 3 };
    if (code == ST_PEER && c->size > 1) sleep(PEER_GRACE_S);
    c->fn->abort(c, code);
}

static uint64_t words(void)
{
    const char *text = status_message();
    return XXH3_64bits(text, strlen(text));
}

status comm_agree(struct comm *c, status mine)
{
    /* What was agreed on before and is only passed on keeps the job's code: a peer's failure is not one of this rank. */
    bool passed_on = mine && mine == c->agreed.mine && words() == c->agreed.words;
    struct vote { int64_t code; uint64_t words; } vote = {passed_on ? c->agreed.code : mine, mine ? words() : 0};
    bool silent = passed_on && c->agreed.silent;
    struct vote *all = mem_alloc((size_t)c->size * sizeof *all);
    status st = c->fn->all_gather(c, &vote, all, sizeof vote);
    if (st) goto done;

    int worst = 0;
    bool repeated = false;
    for (int r = 1; r < c->size; r++)
        if (all[r].code > all[worst].code) worst = r;
    for (int r = 0; r < c->rank; r++) repeated |= all[r].code == vote.code && all[r].words == vote.words;

    c->agreed.code = (status)all[worst].code;
    c->agreed.silent = passed_on ? silent : mine ? repeated : true;
    st = mine;
    if (!mine && c->agreed.code)
        st = status_fail(ST_PEER, "rank %d failed first: %s (code %d)", worst, status_name(c->agreed.code), c->agreed.code);
    c->agreed.mine = st;
    c->agreed.words = st ? words() : 0;
done:
    free(all);
    return st;
}

status comm_check_equal(struct comm *c, const char *what, uint64_t hash)
{
    uint64_t *all = mem_alloc((size_t)c->size * sizeof *all);
    status st = c->fn->all_gather(c, &hash, all, sizeof hash);
    int other = 0;
    for (int r = 1; !st && r < c->size && !other; r++) other = all[r] != all[0] ? r : 0;
    if (other)
        st = status_fail(ST_CONFIG_RUNTIME, "%s differs between ranks: rank 0 has %016llx, rank %d has %016llx; start all "
                         "ranks from the same binary, with the same arguments and files", what,
                         (unsigned long long)all[0], other, (unsigned long long)all[other]);
    free(all);
    return comm_agree(c, st);
}

/* Decided from values that all ranks share: where one rank returns such a code, all do. */
static bool is_common(status st) { return st == ST_STOPPED || st == ST_NOT_SAVED || st == ST_NONFINITE; }

int comm_end(struct comm *c, status st)
{
    bool voted = st && c->agreed.mine == st && c->agreed.words == words();
    bool agreed = voted || is_common(st), silent = voted ? c->agreed.silent : agreed && c->rank != 0;
    if (st == ST_STOPPED)
        log_note("%s", status_message());
    else if (st && !silent)
        log_error("%s", status_message());
    int code = voted ? (int)c->agreed.code : (int)st;
    if (st && !agreed) comm_fail(c, code);
    c->fn->close(c);
    return code;
}
