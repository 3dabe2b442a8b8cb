/* nccl.cc — as much of NCCL as trimpot calls, between the processes of one host, on emulated streams.
 *
 *   segment  | who has joined, left, their GPUs | ring 0→1 | ring 0→2 | … |      memory without a name, the id says where it is
 *
 * A group of calls is one piece of work of its stream. When the stream gets there it moves what the rings take and have, and is tried
 * again until all is moved (queue_talk); groups of a communicator run in the order of their calls. Each message says its length, so
 * that calls that do not match are told. TRIMPOT_EMU_FAIL=nccl:n the n-th group never ends, and NCCL says so when it is asked;
 * join:1 a communicator that waits for ever. */
#include <nccl.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/emu/emu.h"
#include "tests/emu/memory.h"
#include "tests/emu/queue.h"
#include "tests/emu/settings.h"

namespace
{

constexpr int MAX_RANKS = 16;
constexpr uint64_t RING = 1 << 18, HEADER = sizeof(uint64_t);

struct ring {
    alignas(64) std::atomic<uint64_t> written;
    alignas(64) std::atomic<uint64_t> read;
    char data[RING];
};

struct segment {
    uint64_t nonce;
    std::atomic<int> joined, left;
    std::atomic<int> gpu[MAX_RANKS];  /* + 1 */
    ring rings[MAX_RANKS][MAX_RANKS]; /* from, to */
};

struct id {
    uint64_t nonce;
    int64_t pid, fd;
};
static_assert(sizeof(id) <= sizeof(ncclUniqueId));

thread_local char last_error[256];

ncclResult_t refuse(ncclResult_t r, const char *why)
{
    snprintf(last_error, sizeof last_error, "emu: %s", why);
    return r;
}

} // namespace

struct ncclComm {
    int rank, size;
    segment *shared;
    bool blocking, joins = true, parts = false, hangs = false;
    int asks = 0; /* how often ncclCommGetAsyncError still says that a call goes on */
    std::atomic<uint64_t> issued{0}, ended{0};
    std::atomic<bool> aborted{false}, broken{false};
};

namespace
{

/* ---- messages -------------------------------------------------------------------------------------------------------------- */

struct message {
    int peer;
    char *data;
    uint64_t bytes, done = 0, header = 0; /* done: of header and data */
};

size_t bytes_of(ncclDataType_t t)
{
    switch (t) {
    case ncclInt8:
    case ncclUint8:
        return 1;
    case ncclBfloat16:
    case ncclHalf:
        return 2;
    case ncclFloat:
    case ncclInt32:
    case ncclUint32:
        return 4;
    default:
        return 8;
    }
}

/* Up to `most` bytes of m that lie together, from where it has come to. */
char *part_of(message &m, uint64_t &most)
{
    bool head = m.done < HEADER;
    uint64_t left = head ? HEADER - m.done : m.bytes + HEADER - m.done;
    if (most > left) most = left;
    return head ? (char *)&m.header + m.done : m.data + (m.done - HEADER);
}

void push(ring &r, message &m)
{
    m.header = m.bytes;
    while (m.done < m.bytes + HEADER) {
        uint64_t at = r.written.load(std::memory_order_relaxed), room = RING - (at - r.read.load(std::memory_order_acquire));
        uint64_t n = std::min(room, RING - at % RING);
        if (!n) return;
        char *from = part_of(m, n);
        memcpy(r.data + at % RING, from, n);
        m.done += n;
        r.written.store(at + n, std::memory_order_release);
    }
}

/* false: another length was sent. */
bool pull(ring &r, message &m)
{
    while (m.done < m.bytes + HEADER) {
        uint64_t at = r.read.load(std::memory_order_relaxed), have = r.written.load(std::memory_order_acquire) - at;
        uint64_t n = std::min(have, RING - at % RING);
        if (!n) return true;
        char *to = part_of(m, n);
        memcpy(to, r.data + at % RING, n);
        m.done += n;
        r.read.store(at + n, std::memory_order_release);
        if (m.done == HEADER && m.header != m.bytes) return false;
    }
    return true;
}

/* ---- groups ---------------------------------------------------------------------------------------------------------------- */

struct group {
    ncclComm *comm;
    cudaStream_t on;
    uint64_t number;
    bool hangs = false;
    std::vector<message> out, in;
    std::vector<std::function<void()>> after; /* when all has arrived */
};

bool whole(const std::vector<message> &all)
{
    for (auto &m : all)
        if (m.done < m.bytes + HEADER) return false;
    return true;
}

/* Messages to or from one rank keep their order. */
template <class F> bool move(std::vector<message> &all, F step)
{
    bool held[MAX_RANKS] = {};
    for (auto &m : all) {
        if (held[m.peer]) continue;
        if (!step(m)) return false;
        held[m.peer] = m.done < m.bytes + HEADER;
    }
    return true;
}

cudaError_t advance(group &g)
{
    ncclComm *c = g.comm;
    if (c->aborted) return cudaSuccess; /* what was to come never does */
    if (g.hangs) c->broken = true;
    if (c->broken || g.number != c->ended) return cudaErrorNotReady;
    move(g.out, [&](message &m) {
        push(c->shared->rings[c->rank][m.peer], m);
        return true;
    });
    bool match = move(g.in, [&](message &m) { return pull(c->shared->rings[m.peer][c->rank], m); });
    if (!match) {
        fprintf(stderr, "emu: NCCL: rank %d and a peer call with different counts\n", c->rank);
        return cudaErrorLaunchFailure;
    }
    if (!whole(g.out) || !whole(g.in)) return cudaErrorNotReady;
    for (auto &f : g.after) f();
    c->ended++;
    return cudaSuccess;
}

thread_local int depth;
thread_local std::vector<std::shared_ptr<group>> open_groups;
thread_local ncclResult_t group_error;

std::shared_ptr<group> group_of(ncclComm *c, cudaStream_t on)
{
    for (auto &g : open_groups)
        if (g->comm == c && g->on == on) return g;
    open_groups.push_back(std::make_shared<group>(group{.comm = c, .on = on}));
    return open_groups.back();
}

/* A call that does not block says at times that it goes on. */
ncclResult_t goes_on(ncclComm *c)
{
    if (c->blocking) return ncclSuccess;
    c->asks = (int)(emu_random(EMU_SUMS) % 3);
    return c->asks ? ncclInProgress : ncclSuccess;
}

ncclResult_t launch()
{
    ncclResult_t r = group_error;
    for (auto &g : open_groups) {
        if (r != ncclSuccess && r != ncclInProgress) break;
        g->number = g->comm->issued++;
        g->hangs = fails_now(FAIL_NCCL);
        if (emu_talk(g->on, "NCCL", [g] { return advance(*g); })) r = ncclUnhandledCudaError;
        if (r == ncclSuccess) r = goes_on(g->comm);
    }
    open_groups.clear();
    group_error = ncclSuccess;
    return r;
}

/* One call: `add` puts its messages into the group. */
template <class F> ncclResult_t call(ncclComm *c, cudaStream_t on, F add)
{
    ncclResult_t r = ncclSuccess;
    if (c->joins || c->parts || c->asks) r = refuse(ncclInvalidUsage, "a call while another one goes on");
    if (r == ncclSuccess) r = add(*group_of(c, on));
    if (r != ncclSuccess) group_error = r;
    if (!depth) r = launch();
    return r;
}

ncclResult_t check(const void *p, size_t bytes, const char *what)
{
    int device;
    if (bytes && (!memory_covers(p, bytes, what) || memory_kind_of(p, &device) != MEMORY_DEVICE))
        return refuse(ncclInvalidArgument, "a buffer that is no device memory");
    return ncclSuccess;
}

ncclResult_t add_message(std::vector<message> &to, const ncclComm *c, const void *data, size_t bytes, int peer, const char *what)
{
    if (peer < 0 || peer >= c->size || peer == c->rank) return refuse(ncclInvalidArgument, "a peer that is none");
    to.push_back({.peer = peer, .data = (char *)data, .bytes = bytes});
    return check(data, bytes, what);
}

#define CHECK(expr)                                                                                                                        \
    do {                                                                                                                                   \
        if (ncclResult_t r_ = (expr)) return r_;                                                                                           \
    } while (0)

/* ---- joining ----------------------------------------------------------------------------------------------------------------- */

segment *map(int fd)
{
    void *at = fd < 0 ? MAP_FAILED : mmap(nullptr, sizeof(segment), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? nullptr : (segment *)at;
}

segment *find(const id &where)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)where.pid, (long long)where.fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    segment *s = map(fd);
    if (fd >= 0) close(fd);
    return s && s->nonce == where.nonce ? s : nullptr;
}

/* Talk goes on whether or not this process waits for it. */
void talk()
{
    static std::atomic<bool> started{false};
    if (started.exchange(true)) return;
    sigset_t all, old; /* signals go to threads of the program */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    std::thread([] {
        for (;;) {
            queue_talk();
            usleep(500);
        }
    }).detach();
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

int this_gpu()
{
    int device = 0;
    cudaDeviceProp p = {};
    cudaGetDevice(&device);
    cudaGetDeviceProperties(&p, device);
    return p.pciBusID;
}

/* Ranks that share a GPU are refused when all are there. */
ncclResult_t joined(ncclComm *c)
{
    if (c->hangs || c->shared->joined < c->size) return ncclInProgress;
    for (int r = 0; r < c->size; r++)
        if (r != c->rank && c->shared->gpu[r] == c->shared->gpu[c->rank]) return refuse(ncclInvalidUsage, "Duplicate GPU detected");
    c->joins = false;
    return ncclSuccess;
}

} // namespace

extern "C" {

const char *ncclGetErrorString(ncclResult_t r)
{
    static const char *const TEXTS[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return r >= 0 && (size_t)r < sizeof TEXTS / sizeof *TEXTS ? TEXTS[r] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t) { return last_error; }

ncclResult_t ncclGetVersion(int *out)
{
    *out = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *out)
{
    int fd = memfd_create("emulated nccl", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, sizeof(segment))) return refuse(ncclSystemError, "no shared memory");
    segment *s = map(fd);
    if (!s) return refuse(ncclSystemError, "no shared memory");
    id mine = {(uint64_t)getpid() << 32 ^ (uint64_t)(uintptr_t)s, getpid(), fd};
    s->nonce = mine.nonce;
    munmap(s, sizeof *s);
    memset(out, 0, sizeof *out);
    memcpy(out, &mine, sizeof mine);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId where, int rank, ncclConfig_t *config)
{
    id there;
    memcpy(&there, &where, sizeof there);
    *out = nullptr;
    if (size > MAX_RANKS || rank < 0 || rank >= size) return refuse(ncclInvalidArgument, "too many ranks");
    segment *s = find(there);
    if (!s) return refuse(ncclSystemError, "the id leads nowhere");
    ncclComm *c = *out = new ncclComm{.rank = rank, .size = size, .shared = s, .blocking = config->blocking != 0};
    c->hangs = fails_now(FAIL_JOIN);
    s->gpu[rank] = this_gpu() + 1;
    if (!c->hangs) s->joined++;
    talk();
    ncclResult_t r = joined(c);
    while (c->blocking && r == ncclInProgress) usleep(100), r = joined(c);
    return r;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *out)
{
    *out = ncclSuccess;
    if (c->broken)
        *out = ncclRemoteError;
    else if (c->joins)
        *out = joined(c);
    else if (c->parts)
        *out = c->shared->left < c->size ? ncclInProgress : ncclSuccess;
    else if (c->asks)
        *out = --c->asks ? ncclInProgress : ncclSuccess;
    return ncclSuccess;
}

/* All that was called has run, on every rank. */
ncclResult_t ncclCommFinalize(ncclComm_t c)
{
    if (c->issued != c->ended) return refuse(ncclInvalidUsage, "parting while something is queued");
    c->parts = true;
    return ++c->shared->left < c->size ? ncclInProgress : ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
    munmap(c->shared, sizeof *c->shared);
    delete c;
    return ncclSuccess;
}

/* Its groups may still be queued: it stays. */
ncclResult_t ncclCommAbort(ncclComm_t c)
{
    c->aborted = true;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart()
{
    depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd() { return --depth ? ncclSuccess : launch(); }

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t on)
{
    return call(c, on, [&](group &g) { return add_message(g.out, c, from, count * bytes_of(t), peer, "what NCCL sends"); });
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t on)
{
    return call(c, on, [&](group &g) { return add_message(g.in, c, to, count * bytes_of(t), peer, "what NCCL receives"); });
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t t, int root, ncclComm_t c, cudaStream_t on)
{
    size_t bytes = count * bytes_of(t);
    return call(c, on, [&](group &g) -> ncclResult_t {
        if (c->rank != root) return add_message(g.in, c, to, bytes, root, "what NCCL receives");
        CHECK(check(to, bytes, "what NCCL receives"));
        for (int r = 0; r < c->size; r++)
            if (r != root) CHECK(add_message(g.out, c, from, bytes, r, "what NCCL sends"));
        if (from != to) g.after.push_back([=] { memcpy(to, from, bytes); });
        return ncclSuccess;
    });
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t t, ncclComm_t c, cudaStream_t on)
{
    size_t bytes = count * bytes_of(t);
    return call(c, on, [&](group &g) -> ncclResult_t {
        char *mine = (char *)to + bytes * (size_t)c->rank;
        CHECK(check(to, bytes * (size_t)c->size, "what NCCL gathers"));
        for (int r = 0; r < c->size; r++) {
            if (r == c->rank) continue;
            CHECK(add_message(g.out, c, from, bytes, r, "what NCCL sends"));
            CHECK(add_message(g.in, c, (char *)to + bytes * (size_t)r, bytes, r, "what NCCL gathers"));
        }
        if (from != mine) g.after.push_back([=] { memcpy(mine, from, bytes); });
        return ncclSuccess;
    });
}

/* Sums of floats, the same on all ranks, in an order that the seed and the number of the call decide. */
ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t t, ncclRedOp_t op, ncclComm_t c, cudaStream_t on)
{
    if (t != ncclFloat || op != ncclSum) return refuse(ncclInvalidArgument, "sums of floats only");
    size_t bytes = count * sizeof(float);
    return call(c, on, [&](group &g) -> ncclResult_t {
        auto theirs = std::make_shared<std::vector<std::vector<float>>>(c->size, std::vector<float>(count));
        CHECK(check(to, bytes, "what NCCL adds"));
        for (int r = 0; r < c->size; r++) {
            if (r == c->rank) continue;
            CHECK(add_message(g.out, c, from, bytes, r, "what NCCL sends"));
            g.in.push_back({.peer = r, .data = (char *)(*theirs)[r].data(), .bytes = bytes});
        }
        const char *seed = getenv("TRIMPOT_EMU_SEED");
        uint64_t first = (seed ? strtoull(seed, nullptr, 10) : 1) + c->issued;
        g.after.push_back([=] {
            memcpy((*theirs)[c->rank].data(), from, bytes);
            for (size_t i = 0; i < count; i++) {
                float sum = (*theirs)[first % c->size][i];
                for (int k = 1; k < c->size; k++) sum += (*theirs)[(first + k) % c->size][i];
                ((float *)to)[i] = sum;
            }
        });
        return ncclSuccess;
    });
}
}
