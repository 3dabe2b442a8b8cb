#include "collectives/comm.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "collectives/comm_self.h"
#include "collectives/watch.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

/* The plugin's one symbol (comm_mpi.c): MPI_Init and the table. */
typedef status mpi_open_fn(struct comm *out);
static const char PLUGIN[] = "trimpot_mpi.so", PLUGIN_SYMBOL[] = "trimpot_comm_mpi_open";

enum { START_S = 120, PEER_GRACE_S = 3, END_S = 10 };

static status load_plugin(const char *dir, const char *how, mpi_open_fn **open)
{
    char *path = mem_printf("%s/%s", dir, PLUGIN);
    void *plugin = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    status st = ST_OK;
    if (!plugin) {
        const char *why = dlerror();
        FAIL_DONE(ST_NOT_BUILT, "started by %s, but MPI support does not load: %s; build with libopenmpi-dev installed, "
                  "or run one process with --dist self", how, why ? why : path);
    }
    void *symbol = dlsym(plugin, PLUGIN_SYMBOL);
    if (!symbol) FAIL_DONE(ST_NOT_BUILT, "%s: has no %s; it belongs to another build: rebuild both", path, PLUGIN_SYMBOL);
    memcpy(open, &symbol, sizeof symbol);
done:
    free(path);
    return st;
}

status comm_open(const struct launch *l, const char *plugin_dir, struct comm *out)
{
    comm_self_open(out);
    if (!l->mpi) return ST_OK;
    mpi_open_fn *open = NULL;
    TRY(load_plugin(plugin_dir, l->how, &open));
    struct comm c = {0};
    watch_deadline("MPI_Init", START_S);
    status st = open(&c);
    watch_deadline(NULL, 0);
    TRY(st);
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

static bool peer_blamed(struct comm *c) { return c->size > 1 && watch_blamed(PEER_GRACE_S); }

void comm_fail(struct comm *c, int code)
{
    if (code == ST_PEER && peer_blamed(c)) sleep(END_S); /* the watch ends this process before */
    watch_tell(code);
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
    bool repeated = false, alone = true;
    for (int r = 1; r < c->size; r++)
        if (all[r].code > all[worst].code) worst = r;
    for (int r = 0; r < c->size; r++) {
        if (r == c->rank || all[r].code != vote.code || all[r].words != vote.words) continue;
        repeated |= r < c->rank;
        alone = false;
    }

    c->agreed.code = (status)all[worst].code;
    if (!passed_on) c->agreed.alone = mine && alone;
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

/* What one rank alone says is said with its place; what MPI says of a dead peer, only where the watch does not. */
static void say_end(struct comm *c, status st, bool voted, bool agreed)
{
    bool silent = voted ? c->agreed.silent : agreed ? c->rank != 0 : st == ST_PEER && peer_blamed(c);
    bool alone = voted ? c->agreed.alone && c->rank != 0 : !agreed;
    if (st == ST_STOPPED) log_note("%s", status_message());
    else if (!silent) log_error("%s%s", status_message(), alone ? watch_place() : "");
}

int comm_end(struct comm *c, status st)
{
    bool voted = st && c->agreed.mine == st && c->agreed.words == words(), agreed = !st || voted || is_common(st);
    int code = voted ? (int)c->agreed.code : (int)st;
    if (st) say_end(c, st, voted, agreed);
    if (!agreed) comm_fail(c, code);
    else if ((st = c->fn->barrier(c))) { /* nobody leaves before all have come: the watch sees who dies until then */
        say_end(c, st, false, false);
        comm_fail(c, st);
    }
    watch_close();
    c->fn->close(c);
    return code;
}
