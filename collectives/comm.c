#include "collectives/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "collectives/comm_self.h"
#include "collectives/transport.h"
#include "collectives/watch.h"
#include "kernels/base/log.h"
#include "kernels/base/plugin.h"
#include "kernels/base/text.h"

/* The plugin's symbols (comm_mpi.c): MPI_Init and the table; what the library says of itself. */
typedef status mpi_open_fn(struct comm *out);
typedef void mpi_library_fn(char *text, size_t bytes);
static const char PLUGIN[] = "trimpot_mpi.so", OPEN[] = "trimpot_comm_mpi_open", LIBRARY[] = "trimpot_comm_mpi_library";

enum { PEER_GRACE_S = 3, END_S = 10 };

/* *function: a pointer to the function of that name. */
static status mpi_function(const char *dir, const char *name, void *function)
{
    return plugin_function(dir, PLUGIN, name, "MPI support", "build with libopenmpi-dev installed, or run one process with --dist self",
                           function);
}

status comm_library(const char *plugin_dir, char *text, size_t bytes)
{
    mpi_library_fn *library = NULL;
    TRY(mpi_function(plugin_dir, LIBRARY, &library));
    library(text, bytes);
    return ST_OK;
}

status comm_open(const struct launch *l, const char *plugin_dir, struct comm *out)
{
    comm_self_open(out);
    if (!l->mpi) return ST_OK;
    mpi_open_fn *open = NULL;
    status loaded = mpi_function(plugin_dir, OPEN, &open);
    if (loaded) return status_prefix(loaded, "started by %s", l->how);
    struct comm c = {0};
    TRY(open(&c));
    int promised = l->expected_world ? l->expected_world : l->rank + 1;
    if (l->expected_world ? c.size != promised : c.size < promised) {
        int world = c.size;
        c.fn->close(&c);
        FAIL(ST_USAGE,
             "started by %s: %s promises %d ranks%s, MPI_COMM_WORLD has %d; the launcher belongs to another MPI, or its "
             "variables are left over in this shell (`unset ${!OMPI_*} ${!PMIX_*}`, or --dist self)",
             l->how, l->promise, promised, l->expected_world ? "" : " or more", world);
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
    struct vote {
        int64_t code;
        uint64_t words;
    } vote = {passed_on ? c->agreed.code : mine, mine ? words() : 0};
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

/* Rank `root`'s text on all ranks; the caller frees. */
static status share_text(struct comm *c, const char *mine, int root, char **out)
{
    int64_t bytes = (int64_t)strlen(mine) + 1;
    *out = NULL;
    TRY(c->fn->bcast(c, &bytes, sizeof bytes, root));
    *out = mem_alloc((size_t)bytes);
    if (c->rank == root) memcpy(*out, mine, (size_t)bytes);
    return c->fn->bcast(c, *out, (size_t)bytes, root);
}

static size_t line_length(const char *s) { return strcspn(s, "\n"); }

/* Both move to the first line in which they differ; false = in none. */
static bool find_difference(const char **a, const char **b)
{
    while (strcmp(*a, *b) != 0) {
        size_t n = line_length(*a), m = line_length(*b);
        if (n != m || memcmp(*a, *b, n) != 0) return true;
        *a += n + (*a)[n] != 0;
        *b += m + (*b)[m] != 0;
    }
    return false;
}

static status refuse_difference(struct comm *c, const struct comm_same *row, int other)
{
    char host[65] = "", *text[2] = {0}, *hosts[2] = {0};
    status st = ST_OK;
    gethostname(host, sizeof host - 1);
    for (int i = 0; i < 2 && !st; i++) {
        st = share_text(c, row->text, i ? other : 0, &text[i]);
        if (!st) st = share_text(c, host, i ? other : 0, &hosts[i]);
    }
    const char *a = text[0], *b = text[1];
    if (!st && find_difference(&a, &b)) {
        a += strspn(a, " ");
        b += strspn(b, " ");
        st = status_fail(ST_CONFIG_RUNTIME, "%s differs between ranks: rank 0 on %s has '%.*s', rank %d on %s has '%.*s'; %s", row->what,
                         hosts[0], (int)line_length(a), a, other, hosts[1], (int)line_length(b), b, row->remedy);
    }
    for (int i = 0; i < 2; i++) free(text[i]), free(hosts[i]);
    return st;
}

status comm_check_same(struct comm *c, const struct comm_same *rows, int n)
{
    uint64_t *all = mem_alloc((size_t)c->size * (size_t)n * sizeof *all), *mine = mem_alloc((size_t)n * sizeof *mine);
    for (int i = 0; i < n; i++) mine[i] = XXH3_64bits(rows[i].text, strlen(rows[i].text));
    status st = c->fn->all_gather(c, mine, all, (size_t)n * sizeof *mine);
    for (int i = 0; !st && i < n; i++)
        for (int r = 1; !st && r < c->size; r++)
            if (all[r * n + i] != all[i]) st = refuse_difference(c, &rows[i], r);
    free(all);
    free(mine);
    return comm_agree(c, st);
}

status comm_check_equal(struct comm *c, const char *what, uint64_t hash)
{
    char text[20];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    const struct comm_same row = {what, text, "start all ranks from the same binary, with the same arguments and files"};
    return comm_check_same(c, &row, 1);
}

/* Decided from values that all ranks share: where one rank returns such a code, all do. */
static bool is_common(status st) { return st == ST_STOPPED || st == ST_NOT_SAVED || st == ST_NONFINITE; }

/* What one rank alone says is said with its place; what MPI says of a dead peer, only where the watch does not. */
static void say_end(struct comm *c, status st, bool voted, bool agreed)
{
    bool silent = voted ? c->agreed.silent : agreed ? c->rank != 0 : st == ST_PEER && peer_blamed(c);
    bool alone = voted ? c->agreed.alone && c->rank != 0 : !agreed;
    if (st == ST_STOPPED)
        log_note("%s", status_message());
    else if (!silent)
        log_error("%s%s", status_message(), alone ? watch_place() : "");
}

int comm_end(struct comm *c, status st)
{
    bool voted = st && c->agreed.mine == st && c->agreed.words == words(), agreed = !st || voted || is_common(st);
    int code = voted ? (int)c->agreed.code : (int)st;
    if (st) say_end(c, st, voted, agreed);
    if (!agreed)
        comm_fail(c, code);
    else if ((st = c->fn->barrier(c))) { /* nobody leaves before all have come: the watch sees who dies until then */
        say_end(c, st, false, false);
        comm_fail(c, st);
    }
    transport_unlink(c, !code || is_common((status)code));
    watch_close();
    c->fn->close(c);
    return code;
}
