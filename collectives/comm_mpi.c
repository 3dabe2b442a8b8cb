/* The plugin: the only file that calls MPI. MPI 3.1 counts are int, so that bulk transfers go in chunks. */
#include <fcntl.h>
#include <mpi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "collectives/comm.h"

enum { CHUNK = 1 << 30, TAG = 1, SHARED_MAX = 4 };

struct mpi_world {
    MPI_Comm world, host; /* all ranks; the ranks of this host */
    struct {
        void *base;
        size_t bytes;
    } shared[SHARED_MAX];
    int n_shared;
    pthread_t main;  /* the thread that MPI was opened by */
    bool any_thread; /* MPI lets other threads call it */
};

static struct mpi_world *impl(struct comm *c) { return c->impl; }

static status checked(int rc, const char *call)
{
    if (rc == MPI_SUCCESS) return ST_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    MPI_Error_string(rc, text, &n);
    return status_fail(ST_PEER, "%s: %s; a peer or the network between ranks failed", call, text);
}

#define MPI_TRY(name, args) TRY(checked(name args, #name))

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Waits until all ranks have come. Open MPI's own waits never sleep: a rank that is early, while another reads files or writes for all,
 * would take cores that that one needs. Here it soon does, each time for a sixteenth of what it has waited by then, a millisecond at
 * most. What collectives do after it is short. */
static status mpi_barrier(struct comm *c)
{
    enum { OFFERS_NS = 300000, LONGEST_NS = 1000000 };
    MPI_Request all_here;
    int here = 0;
    MPI_TRY(MPI_Ibarrier, (impl(c)->world, &all_here));
    for (int64_t began = clock_ns(); !here;) {
        MPI_TRY(MPI_Test, (&all_here, &here, MPI_STATUS_IGNORE)); /* offers the core where nothing has come */
        int64_t waited = clock_ns() - began, nap = waited / 16 < LONGEST_NS ? waited / 16 : LONGEST_NS;
        if (!here && waited > OFFERS_NS) nanosleep(&(struct timespec){.tv_nsec = nap}, NULL);
    }
    return ST_OK;
}

static int chunk_of(size_t left) { return left > CHUNK ? CHUNK : (int)left; }

static status mpi_bcast(struct comm *c, void *data, size_t bytes, int root)
{
    TRY(mpi_barrier(c));
    for (char *p = data; bytes > 0;) {
        int n = chunk_of(bytes);
        MPI_TRY(MPI_Bcast, (p, n, MPI_BYTE, root, impl(c)->world));
        p += n;
        bytes -= (size_t)n;
    }
    return ST_OK;
}

/* Sends to one rank and receives from another at the same time; either side may be empty. */
static status exchange(struct comm *c, const char *send, size_t send_bytes, int to, char *recv, size_t recv_bytes, int from)
{
    while (send_bytes || recv_bytes) {
        int out = chunk_of(send_bytes), in = chunk_of(recv_bytes);
        MPI_TRY(MPI_Sendrecv, (send, out, MPI_BYTE, out ? to : MPI_PROC_NULL, TAG, recv, in, MPI_BYTE, in ? from : MPI_PROC_NULL, TAG,
                               impl(c)->world, MPI_STATUS_IGNORE));
        send += out;
        recv += in;
        send_bytes -= (size_t)out;
        recv_bytes -= (size_t)in;
    }
    return ST_OK;
}

static status mpi_all_gather(struct comm *c, const void *mine, void *all, size_t bytes_each)
{
    char *own = (char *)all + bytes_each * (size_t)c->rank;
    if (own != mine) memmove(own, mine, bytes_each);
    TRY(mpi_barrier(c));
    if (bytes_each <= CHUNK / (size_t)c->size) {
        MPI_TRY(MPI_Allgather, (MPI_IN_PLACE, 0, MPI_BYTE, all, (int)bytes_each, MPI_BYTE, impl(c)->world));
        return ST_OK;
    }
    for (int k = 1; k < c->size; k++) {
        int to = (c->rank + k) % c->size, from = (c->rank - k + c->size) % c->size;
        TRY(exchange(c, own, bytes_each, to, (char *)all + bytes_each * (size_t)from, bytes_each, from));
    }
    return ST_OK;
}

static status mpi_all_reduce_i64(struct comm *c, int64_t *values, int n, enum comm_op op)
{
    const MPI_Op ops[] = {[COMM_MIN] = MPI_MIN, [COMM_MAX] = MPI_MAX, [COMM_SUM_I64] = MPI_SUM, [COMM_OR] = MPI_BOR};
    TRY(mpi_barrier(c));
    MPI_TRY(MPI_Allreduce, (MPI_IN_PLACE, values, n, MPI_INT64_T, ops[op], impl(c)->world));
    return ST_OK;
}

static status mpi_all_to_all(struct comm *c, const void *send, const size_t *send_bytes, const size_t *send_offset, void *recv,
                             const size_t *recv_bytes, const size_t *recv_offset)
{
    const char *from_me = send;
    char *to_me = recv;
    int me = c->rank;
    if (send_bytes[me]) memmove(to_me + recv_offset[me], from_me + send_offset[me], send_bytes[me]);
    for (int k = 1; k < c->size; k++) {
        int to = (me + k) % c->size, from = (me - k + c->size) % c->size;
        TRY(exchange(c, from_me + send_offset[to], send_bytes[to], to, to_me + recv_offset[from], recv_bytes[from], from));
    }
    return ST_OK;
}

static status mpi_all_gather_in_place(struct comm *c, void *data, const size_t *bytes, const size_t *offset)
{
    char *base = data;
    int me = c->rank;
    for (int k = 1; k < c->size; k++) {
        int to = (me + k) % c->size, from = (me - k + c->size) % c->size;
        TRY(exchange(c, base + offset[me], bytes[me], to, base + offset[from], bytes[from], from));
    }
    return ST_OK;
}

/* Memory without a name, so that a crash leaves nothing behind: local rank 0 makes it, the others open it through /proc.
 * The nonce stands at its beginning and proves that they have the right one (processes may be numbered apart). */
struct segment {
    int64_t pid, fd, bytes;
    uint64_t nonce;
};

static void *map_shared(int fd, size_t bytes)
{
    void *base = fd < 0 ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return base == MAP_FAILED ? NULL : base;
}

static void *make_segment(struct segment *g)
{
    struct timespec now;
    int fd = memfd_create("trimpot", MFD_CLOEXEC);
    bool room = fd >= 0 && posix_fallocate(fd, 0, g->bytes) == 0;
    uint64_t *base = room ? map_shared(fd, (size_t)g->bytes) : NULL;
    clock_gettime(CLOCK_REALTIME, &now);
    g->pid = getpid();
    g->fd = fd;
    g->nonce = ((uint64_t)now.tv_sec << 30 ^ (uint64_t)now.tv_nsec) * UINT64_C(0x9E3779B97F4A7C15) + (uint64_t)g->pid;
    if (base) *base = g->nonce;
    return base;
}

static void *open_segment(const struct segment *g)
{
    char path[64];
    struct stat about;
    snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)g->pid, (long long)g->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    bool sized = fd >= 0 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && about.st_size == g->bytes;
    uint64_t *base = sized ? map_shared(fd, (size_t)g->bytes) : NULL;
    if (fd >= 0) close(fd);
    if (base && *base != g->nonce) {
        munmap(base, (size_t)g->bytes);
        base = NULL;
    }
    return base;
}

/* Ends with a vote, so that all ranks take the same path. */
static status mpi_share(struct comm *c, size_t bytes, void **peers)
{
    struct mpi_world *w = impl(c);
    bytes = (bytes + 4095) / 4096 * 4096;
    struct segment g = {.fd = -1, .bytes = (int64_t)(bytes * (size_t)c->local_size)};
    bool possible = c->local_size == c->size && w->n_shared < SHARED_MAX;
    uint64_t *base = possible && c->local_rank == 0 ? make_segment(&g) : NULL;
    MPI_TRY(MPI_Bcast, (&g, (int)sizeof g, MPI_BYTE, 0, w->host));
    if (possible && c->local_rank != 0) base = open_segment(&g);
    int64_t mapped = base != NULL;
    status st = mpi_all_reduce_i64(c, &mapped, 1, COMM_MIN);
    if (c->local_rank == 0 && g.fd >= 0) close((int)g.fd);
    if (st || !mapped) {
        if (base) munmap(base, (size_t)g.bytes);
        TRY(st);
        FAIL(ST_NOT_BUILT, "no memory shared by all ranks: several hosts, or not enough memory");
    }
    if (c->local_rank == 0) *base = 0;
    w->shared[w->n_shared].base = base;
    w->shared[w->n_shared++].bytes = (size_t)g.bytes;
    for (int r = 0; r < c->local_size; r++) peers[r] = (char *)base + bytes * (size_t)r;
    return mpi_barrier(c);
}

/* The watch's thread aborts while the main thread waits in MPI: the one call that needs MPI_THREAD_MULTIPLE. */
static void mpi_abort(struct comm *c, int code)
{
    if (!impl(c)->any_thread && !pthread_equal(pthread_self(), impl(c)->main)) _exit(code);
    fflush(NULL);
    MPI_Abort(impl(c)->world, code);
}

static void mpi_close(struct comm *c)
{
    struct mpi_world *w = impl(c);
    mpi_barrier(c);
    for (int i = 0; i < w->n_shared; i++) munmap(w->shared[i].base, w->shared[i].bytes);
    MPI_Comm_free(&w->host);
    MPI_Comm_free(&w->world);
    free(w);
    c->impl = NULL;
    MPI_Finalize();
}

/* Which kernel this is, and which of its containers. */
static void host_id(char *id, size_t bytes)
{
    memset(id, 0, bytes);
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f && !fgets(id, (int)bytes, f)) *id = 0;
    if (f) fclose(f);
    size_t n = strlen(id);
    gethostname(id + n, bytes - n - 1);
}

/* The ranks of this host. Not MPI_Comm_split_type: Open MPI 4.1 believes PMIX_HOSTNAME, which the daemons of an mpirun inside a
 * step of srun inherit from the first node, so that a rank on another one would count as local what does not count it. */
static status find_host(struct comm *c)
{
    enum { ID_BYTES = 128 };
    struct mpi_world *w = impl(c);
    char mine[ID_BYTES], *all = calloc((size_t)c->size, ID_BYTES);
    if (!all) FAIL(ST_OOM, "MPI: out of host memory");
    host_id(mine, sizeof mine);
    status st = mpi_all_gather(c, mine, all, ID_BYTES);
    int first = 0;
    while (!st && first < c->rank && memcmp(all + first * ID_BYTES, mine, ID_BYTES) != 0) first++;
    free(all);
    TRY(st);
    MPI_TRY(MPI_Comm_split, (w->world, first, c->rank, &w->host));
    MPI_TRY(MPI_Comm_rank, (w->host, &c->local_rank));
    MPI_TRY(MPI_Comm_size, (w->host, &c->local_size));
    return ST_OK;
}

static const struct comm_table mpi_table = {
    .name = "mpi",
    .barrier = mpi_barrier,
    .bcast = mpi_bcast,
    .all_gather = mpi_all_gather,
    .all_reduce_i64 = mpi_all_reduce_i64,
    .all_to_all = mpi_all_to_all,
    .all_gather_in_place = mpi_all_gather_in_place,
    .share = mpi_share,
    .abort = mpi_abort,
    .close = mpi_close,
};

status trimpot_comm_mpi_open(struct comm *out);

status trimpot_comm_mpi_open(struct comm *out)
{
    int granted;
    /* A rank that waits offers its core to others, as our own waits do (kernels/base/team.h): Open MPI by itself does so
     * only where ranks outnumber cores, and knows of neither their threads nor of other people's programs. */
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    MPI_TRY(MPI_Init_thread, (NULL, NULL, MPI_THREAD_MULTIPLE, &granted));
    struct mpi_world *w = calloc(1, sizeof *w);
    if (!w) FAIL(ST_OOM, "MPI: out of host memory");
    *out = (struct comm){.fn = &mpi_table, .impl = w};
    w->main = pthread_self();
    w->any_thread = granted >= MPI_THREAD_MULTIPLE;
    MPI_TRY(MPI_Comm_dup, (MPI_COMM_WORLD, &w->world));
    MPI_TRY(MPI_Comm_set_errhandler, (w->world, MPI_ERRORS_RETURN));
    MPI_TRY(MPI_Comm_rank, (w->world, &out->rank));
    MPI_TRY(MPI_Comm_size, (w->world, &out->size));
    return find_host(out);
}

void trimpot_comm_mpi_library(char *text, size_t bytes);

void trimpot_comm_mpi_library(char *text, size_t bytes)
{
    char words[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int n = 0;
    MPI_Get_library_version(words, &n); /* allowed before MPI_Init */
    snprintf(text, bytes, "%s", words);
}
