#include "tests/emu/memory.h"

#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>

#include <sys/mman.h>
#include <unistd.h>

#include "tests/emu/settings.h"

namespace
{

constexpr size_t ALIGNED = 256; /* as cudaMalloc's memory is */
constexpr size_t KEPT = 4096;   /* freed ranges that stay reserved, so that a late use is told from a new allocation's */
constexpr size_t CONTEXT_BYTES = (size_t)512 << 20;
constexpr unsigned char FRESH = 0xff, CANARY = 0xa5;

struct allocation {
    char *map; /* with a page without access at both ends */
    size_t map_bytes;
    char *at;
    size_t bytes;
    memory_kind kind;
    int device;
    int number;
    bool freed;
};

struct state {
    std::mutex lock;
    std::map<uintptr_t, allocation> all; /* by map */
    std::deque<uintptr_t> freed;
    size_t used[MAX_DEVICES] = {}; /* 0: no context yet */
    int numbers = 0;
    memory_user user = USER_HOST;
    bool beside_host = false;
    const char *work = "the host"; /* what that runs now */
    const char *last = "the host"; /* that touched device memory */
};

state &memory = *new state; /* outlives everything that runs at exit */

const char *name_of(memory_kind kind) { return kind == MEMORY_DEVICE ? "device" : "pinned"; }

char *inner(const allocation &a) { return a.map + page_bytes(); }
size_t inner_bytes(const allocation &a) { return a.map_bytes - 2 * page_bytes(); }

void protect(const allocation &a, int how)
{
    if (mprotect(inner(a), inner_bytes(a), how)) {
        perror("emu: mprotect");
        abort();
    }
}

/* The allocation whose map p lies in; guards are part of it. */
const allocation *at_or_near(const void *p)
{
    auto next = memory.all.upper_bound((uintptr_t)p);
    if (next == memory.all.begin()) return nullptr;
    const allocation &a = std::prev(next)->second;
    return (const char *)p < a.map + a.map_bytes ? &a : nullptr;
}

/* "byte 12 of device allocation 3 (1024 bytes)", "4 bytes past the end of …", "…, which was freed" */
void explain(const void *p, char *text, size_t size)
{
    const allocation *a = at_or_near(p);
    if (!a) {
        snprintf(text, size, "%p, which is in no allocation of the device or of pinned memory", p);
        return;
    }
    const char *c = (const char *)p;
    char where[64];
    if (c < a->at)
        snprintf(where, sizeof where, "%zd bytes before", a->at - c);
    else if (c < a->at + a->bytes)
        snprintf(where, sizeof where, "byte %zd of", c - a->at);
    else
        snprintf(where, sizeof where, "%zd bytes past the end of", c - (a->at + a->bytes));
    snprintf(text, size, "%s %s allocation %d (%zu bytes%s)", where, name_of(a->kind), a->number, a->bytes, a->freed ? ", freed" : "");
}

/* ---- who touches what it may not ------------------------------------------------------------------------------------------ */

struct sigaction before[2];

/* Says what was touched, and lets it happen again with the handler that was there before. */
void on_fault(int signal, siginfo_t *info, void *)
{
    char what[160], line[256];
    if (at_or_near(info->si_addr)) {
        explain(info->si_addr, what, sizeof what);
        int n = snprintf(line, sizeof line, "emu: '%s' touched %s\n", memory.work, what);
        if (write(STDERR_FILENO, line, (size_t)n) < 0) _exit(128 + signal);
    }
    sigaction(signal, &before[signal == SIGBUS], nullptr);
}

void watch_faults()
{
    static bool watched;
    if (watched) return;
    watched = true;
    struct sigaction a = {};
    a.sa_sigaction = on_fault;
    a.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &a, &before[0]);
    sigaction(SIGBUS, &a, &before[1]);
}

bool within(memory_kind kind, memory_user user)
{
    if (kind == MEMORY_PINNED) return user != USER_KERNEL || memory.beside_host;
    return user != USER_HOST;
}

/* ---- guards --------------------------------------------------------------------------------------------------------------- */

void fill_guards(const allocation &a)
{
    memset(inner(a), CANARY, (size_t)(a.at - inner(a)));
    memset(a.at + a.bytes, CANARY, inner_bytes(a) - a.bytes - (size_t)(a.at - inner(a)));
}

const char *first_written(const char *from, const char *to)
{
    while (from < to && *(const unsigned char *)from == CANARY) from++;
    return from < to ? from : nullptr;
}

/* What no page guards: less than a page before, less than 256 bytes behind. */
bool guards_whole(const allocation &a)
{
    const char *bad = first_written(inner(a), a.at);
    if (!bad) bad = first_written(a.at + a.bytes, inner(a) + inner_bytes(a));
    if (!bad) return true;
    char what[160];
    explain(bad, what, sizeof what);
    fprintf(stderr, "emu: something, at last '%s', wrote %s\n", memory.last, what);
    return false;
}

void forget_oldest()
{
    if (memory.freed.size() <= KEPT) return;
    auto it = memory.all.find(memory.freed.front());
    munmap(it->second.map, it->second.map_bytes);
    memory.all.erase(it);
    memory.freed.pop_front();
}

} // namespace

cudaError_t memory_start(int device)
{
    std::lock_guard hold(memory.lock);
    if (settings().memory < CONTEXT_BYTES) return cudaErrorMemoryAllocation;
    if (!memory.used[device]) memory.used[device] = CONTEXT_BYTES;
    return cudaSuccess;
}

cudaError_t memory_take(memory_kind kind, int device, size_t bytes, void **out)
{
    std::lock_guard hold(memory.lock);
    *out = nullptr;
    watch_faults();
    if (kind == MEMORY_DEVICE && (bytes > settings().memory || memory.used[device] > settings().memory - bytes))
        return cudaErrorMemoryAllocation;
    size_t page = page_bytes(), body = (bytes + ALIGNED - 1) / ALIGNED * ALIGNED, whole = (body + page - 1) / page * page;
    char *map = (char *)mmap(nullptr, whole + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) return cudaErrorMemoryAllocation;
    madvise(map, whole + 2 * page, MADV_HUGEPAGE); /* its protection changes with every launch: the fewer pages the better */
    allocation a = {map, whole + 2 * page, map + page + whole - body, bytes, kind, device, ++memory.numbers, false};
    protect(a, PROT_READ | PROT_WRITE);
    memset(inner(a), FRESH, inner_bytes(a));
    fill_guards(a);
    if (kind == MEMORY_DEVICE) memory.used[device] += bytes;
    protect(a, within(kind, memory.user) ? PROT_READ | PROT_WRITE : PROT_NONE);
    memory.all[(uintptr_t)map] = a;
    *out = a.at;
    return cudaSuccess;
}

cudaError_t memory_release(memory_kind kind, void *p)
{
    std::lock_guard hold(memory.lock);
    const allocation *found = at_or_near(p);
    if (!found || found->at != p || found->freed || found->kind != kind) {
        char what[160];
        explain(p, what, sizeof what);
        fprintf(stderr, "emu: what is freed as %s memory is %s\n", name_of(kind), what);
        return cudaErrorInvalidValue;
    }
    allocation &a = memory.all[(uintptr_t)found->map];
    bool whole = kind == MEMORY_DEVICE || guards_whole(a);
    a.freed = true;
    if (kind == MEMORY_DEVICE) memory.used[a.device] -= a.bytes;
    if (mmap(a.map, a.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) abort();
    memory.freed.push_back((uintptr_t)a.map);
    forget_oldest();
    return whole ? cudaSuccess : cudaErrorIllegalAddress;
}

void memory_info(int device, size_t *free_bytes, size_t *total_bytes)
{
    std::lock_guard hold(memory.lock);
    *total_bytes = settings().memory;
    *free_bytes = settings().memory - memory.used[device];
}

bool memory_covers(const void *p, size_t bytes, const char *what)
{
    std::lock_guard hold(memory.lock);
    const allocation *a = at_or_near(p);
    const char *c = (const char *)p;
    if (a && !a->freed && c >= a->at && c + bytes <= a->at + a->bytes) return true;
    char text[160];
    bool runs_over = a && !a->freed && c >= a->at && c < a->at + a->bytes;
    explain(runs_over ? a->at + a->bytes : p, text, sizeof text);
    fprintf(stderr, "emu: %s (%zu bytes) %s %s\n", what, bytes, runs_over ? "reaches" : "is", text);
    return false;
}

bool memory_for_kernel(const void *p, const char *kernel)
{
    std::lock_guard hold(memory.lock);
    const allocation *a = at_or_near(p);
    if (!p || (a && !a->freed && a->kind == MEMORY_DEVICE)) return true;
    char what[160];
    explain(p, what, sizeof what);
    fprintf(stderr, "emu: kernel %s is given a pointer to %s\n", kernel, what);
    return false;
}

memory_kind memory_kind_of(const void *p, int *device)
{
    std::lock_guard hold(memory.lock);
    const allocation *a = at_or_near(p);
    if (!a || a->freed) return MEMORY_HOST;
    *device = a->device;
    return a->kind;
}

bool memory_reach(memory_user user, const char *what)
{
    std::lock_guard hold(memory.lock);
    memory_user was = memory.user;
    bool whole = true;
    memory.user = user;
    memory.work = what;
    if (user != USER_HOST) memory.last = what;
    if (user == was) return whole;
    for (auto &[map, a] : memory.all) {
        bool before = within(a.kind, was), now = within(a.kind, user);
        if (a.freed || before == now) continue;
        if (a.kind == MEMORY_DEVICE && before) whole = guards_whole(a) && whole;
        protect(a, now ? PROT_READ | PROT_WRITE : PROT_NONE);
    }
    return whole;
}

void memory_beside_host()
{
    std::lock_guard hold(memory.lock);
    if (memory.beside_host) return;
    memory.beside_host = true;
    for (auto &[map, a] : memory.all)
        if (!a.freed && a.kind == MEMORY_PINNED) protect(a, PROT_READ | PROT_WRITE);
}
