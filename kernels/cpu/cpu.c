/* cpu.c — the CPU backend's device part, and the choice of instruction set. */
#include "kernels/cpu/cpu.h"

#include <cpuid.h>
#include <malloc.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/base/team.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

/* ---- instruction set: resolved once, before oneDNN's first call --------------------------------------------- */

#define CPU_DECLARE_BOTH(name, args) op_##name##_fn name##_cpu_avx2, name##_cpu_avx512;
TRIMPOT_OPS(CPU_DECLARE_BOTH)
cpu_workspace_fn attn_fwd_workspace_cpu_avx2, attn_fwd_workspace_cpu_avx512;
cpu_workspace_fn attn_bwd_workspace_cpu_avx2, attn_bwd_workspace_cpu_avx512;

#define CPU_SLOT_AVX2(name, args)   .name = name##_cpu_avx2,
#define CPU_SLOT_AVX512(name, args) .name = name##_cpu_avx512,

static const struct isa {
    const char *name;      /* as in TRIMPOT_ISA */
    dnnl_cpu_isa_t onednn; /* what oneDNN may use when the person asked for this one */
    struct ops ops;
    cpu_workspace_fn *workspace[3];
} isas[] = {
    {"avx2",
     dnnl_cpu_isa_avx2,
     {TRIMPOT_OPS(CPU_SLOT_AVX2)},
     {gemm_cpu_workspace, attn_fwd_workspace_cpu_avx2, attn_bwd_workspace_cpu_avx2}},
    {"avx512",
     dnnl_cpu_isa_avx512_core,
     {TRIMPOT_OPS(CPU_SLOT_AVX512)},
     {gemm_cpu_workspace, attn_fwd_workspace_cpu_avx512, attn_bwd_workspace_cpu_avx512}},
    {"avx512_bf16",
     dnnl_cpu_isa_avx512_core_bf16,
     {TRIMPOT_OPS(CPU_SLOT_AVX512)},
     {gemm_cpu_workspace, attn_fwd_workspace_cpu_avx512, attn_bwd_workspace_cpu_avx512}},
};
enum { ISA_AVX2, ISA_AVX512, ISA_BF16, ISA_COUNT, ISA_NONE = -1 };

static struct {
    const struct isa *isa;
    bool bf16; /* products */
    bool vbmi; /* tables of bytes */
    status failure;
    char message[200];
    char text[128];
} chosen;

static bool has_amx_bf16(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 22 & 1;
}

/* What this machine has. */
static int best_isa(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return ISA_NONE;
    bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vl");
    if (!wide) return ISA_AVX2;
    return __builtin_cpu_supports("avx512bf16") ? ISA_BF16 : ISA_AVX512;
}

/* What of it is fastest (cpu.h). */
static int fast_isa(int best) { return best == ISA_BF16 && __builtin_cpu_is("intel") && !has_amx_bf16() ? ISA_AVX512 : best; }

static void refuse(status code, const char *fmt, const char *value)
{
    chosen.failure = code;
    snprintf(chosen.message, sizeof chosen.message, fmt, value);
}

/* oneDNN allocates its packing buffers anew in every product. Kept by the allocator they cost nothing; mapped and
 * unmapped, as large blocks are by default, clearing their pages takes a tenth of a step. */
static void keep_freed_memory(void)
{
    mallopt(M_MMAP_THRESHOLD, 1 << 28);
    mallopt(M_TRIM_THRESHOLD, -1);
    mallopt(M_TOP_PAD, 1 << 24);
}

static void choose(void)
{
    keep_freed_memory();
    int best = best_isa(), pick = fast_isa(best);
    const char *asked = getenv("TRIMPOT_ISA");
    if (best == ISA_NONE) {
        refuse(ST_DEVICE, "the CPU backend needs AVX2 and FMA, which this processor lacks%s", "");
        return;
    }
    if (asked && *asked) {
        for (pick = 0; pick < ISA_COUNT && strcmp(asked, isas[pick].name); pick++) continue;
        if (pick == ISA_COUNT) {
            refuse(ST_USAGE, "environment variable TRIMPOT_ISA is '%s': known are avx2, avx512 and avx512_bf16", asked);
            return;
        }
        if (pick > best) {
            refuse(ST_USAGE, "environment variable TRIMPOT_ISA is '%s': this processor lacks that", asked);
            return;
        }
        dnnl_set_max_cpu_isa(isas[pick].onednn);
    }
    chosen.isa = &isas[pick];
    const dnnl_version_t *v = dnnl_version();
    dnnl_cpu_isa_t half = dnnl_cpu_isa_avx512_core_bf16;
    chosen.bf16 = pick == ISA_BF16 && (dnnl_get_effective_cpu_isa() & half) == half;
    chosen.vbmi = pick >= ISA_AVX512 && __builtin_cpu_supports("avx512vbmi") && !(asked && *asked && pick == ISA_AVX512);
    snprintf(chosen.text, sizeof chosen.text, "cpu: %s%s, oneDNN %d.%d.%d", pick == ISA_AVX2 ? "AVX2" : "AVX-512",
             chosen.bf16 ? " bf16" : "", v->major, v->minor, v->patch);
}

static status isa_resolve(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    if (chosen.failure) FAIL(chosen.failure, "%s", chosen.message);
    return ST_OK;
}

bool gemm_cpu_has_bf16(void) { return !isa_resolve() && chosen.bf16; }
bool cpu_has_vbmi(void) { return !isa_resolve() && chosen.vbmi; }

static const char *cpu_describe(void) { return isa_resolve() ? chosen.message : chosen.text; }

/* The table's ops are fixed at build time, the instruction set is not: each slot goes through `chosen`, which is set
 * before the first stream exists. */
#define CPU_DISPATCH(name, args)                                                                                                           \
    static status name##_cpu(struct stream *s, const struct args##_args *a) { return chosen.isa->ops.name(s, a); }
TRIMPOT_OPS(CPU_DISPATCH)
#define CPU_SLOT(name, args) .name = name##_cpu,

/* ---- memory ------------------------------------------------------------------------------------------------- */

enum { BIG_BYTES = 1 << 20, HUGE_PAGE = 2 << 20 };

/* Big blocks come from mmap (zero pages, given back to the system at free) and ask for huge pages. A block keeps its
 * own size class, so free() can tell the two kinds apart by `bytes` alone. */
static status cpu_alloc(enum mem_kind kind, size_t bytes, void **out)
{
    (void)kind;
    *out = NULL;
    if (bytes < BIG_BYTES) {
        *out = aligned_alloc(64, cpu_pad(bytes ? bytes : 1));
        if (!*out) FAIL(ST_OOM, "cannot allocate %s of host memory", text_bytes((double)bytes));
        return ST_OK;
    }
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) FAIL(ST_OOM, "cannot allocate %s of host memory", text_bytes((double)bytes));
    if (bytes >= 2 * (size_t)HUGE_PAGE) madvise(p, bytes, MADV_HUGEPAGE);
    *out = p;
    return ST_OK;
}

static void cpu_free(enum mem_kind kind, void *p, size_t bytes)
{
    (void)kind;
    if (!p) return;
    if (bytes < BIG_BYTES)
        free(p);
    else
        munmap(p, bytes);
}

static status cpu_mem_info(enum mem_kind kind, size_t *free_bytes, size_t *total_bytes)
{
    (void)kind;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *total_bytes = (size_t)sysconf(_SC_PHYS_PAGES) * page;
    *free_bytes = (size_t)sysconf(_SC_AVPHYS_PAGES) * page;
    FILE *f = fopen("/proc/meminfo", "r");
    if (!f) return ST_OK;
    char line[128];
    unsigned long long kb;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kb) == 1) *free_bytes = (size_t)kb * 1024;
    fclose(f);
    return ST_OK;
}

static status cpu_prepare(struct stream *s, const struct work_bounds *w)
{
    s->workspace_bytes = 0;
    TRY(isa_resolve());
    for (size_t i = 0; i < sizeof chosen.isa->workspace / sizeof *chosen.isa->workspace; i++) {
        size_t bytes = chosen.isa->workspace[i](w);
        if (bytes > s->workspace_bytes) s->workspace_bytes = bytes;
    }
    return ST_OK;
}

/* ---- streams and events: every op has finished when it returns ---------------------------------------------- */

struct event {
    double at; /* recorded, clock_s() */
};

static status cpu_stream_open(struct stream **out, int threads)
{
    *out = NULL;
    TRY(isa_resolve());
    struct stream *s = mem_alloc(sizeof *s);
    s->be = &backend_cpu;
    s->threads = threads > 0 ? threads : 1;
    *out = s;
    return ST_OK;
}

static void cpu_stream_close(struct stream *s) { free(s); }

static status cpu_event_open(struct event **out)
{
    *out = mem_alloc(sizeof **out);
    return ST_OK;
}

static void cpu_event_close(struct event *e) { free(e); }

static status cpu_event_record(struct event *e, struct stream *s)
{
    (void)s;
    e->at = clock_s();
    return ST_OK;
}

static status cpu_event_elapsed(struct event *from, struct event *to, double *seconds)
{
    *seconds = to->at - from->at;
    return ST_OK;
}

static status cpu_event_wait(struct event *e, struct stream *s, const char *label)
{
    (void)e, (void)s, (void)label;
    return ST_OK;
}

static bool cpu_event_done(struct event *e) { return (void)e, true; }

static status cpu_event_sync(struct event *e, const char *label)
{
    (void)e, (void)label;
    return ST_OK;
}

/* A failure need not wait for the next sync: everything before it is done. */
static status cpu_host_call(struct stream *s, status (*fn)(void *arg), void *arg)
{
    (void)s;
    return fn(arg);
}

static status cpu_sync(struct stream *s, const char *label)
{
    (void)s, (void)label;
    return ST_OK;
}

enum { MOVE_CHUNK = 1 << 20 };

struct move {
    char *dst;
    const char *src; /* NULL: zeros */
    size_t bytes;
};

static void move_chunk(const void *arg, int64_t i)
{
    const struct move *m = arg;
    size_t at = (size_t)i * MOVE_CHUNK, n = m->bytes - at < MOVE_CHUNK ? m->bytes - at : MOVE_CHUNK;
    if (m->src)
        memcpy(m->dst + at, m->src + at, n);
    else
        memset(m->dst + at, 0, n);
}

static status move(struct stream *s, struct move m)
{
    int64_t chunks = (int64_t)((m.bytes + MOVE_CHUNK - 1) / MOVE_CHUNK);
    team_for(chunks > 2 ? s->threads : 1, chunks, move_chunk, &m);
    return ST_OK;
}

static status cpu_copy(struct stream *s, void *dst, const void *src, size_t bytes)
{
    return dst == src ? ST_OK : move(s, (struct move){dst, src, bytes});
}

static status cpu_zero(struct stream *s, void *dst, size_t bytes) { return move(s, (struct move){dst, NULL, bytes}); }

const struct backend backend_cpu = {
    .name = "cpu",
    .tensors_in = MEM_HOST,
    .dev =
        {
            .alloc = cpu_alloc,
            .free = cpu_free,
            .stream_open = cpu_stream_open,
            .stream_close = cpu_stream_close,
            .event_open = cpu_event_open,
            .event_close = cpu_event_close,
            .event_record = cpu_event_record,
            .event_wait = cpu_event_wait,
            .event_done = cpu_event_done,
            .event_sync = cpu_event_sync,
            .clock_open = cpu_event_open,
            .event_elapsed = cpu_event_elapsed,
            .host_call = cpu_host_call,
            .copy = cpu_copy,
            .zero = cpu_zero,
            .sync = cpu_sync,
            .mem_info = cpu_mem_info,
        },
    .ops = {TRIMPOT_OPS(CPU_SLOT)},
    .prepare = cpu_prepare,
    .library_bytes = cpu_library_scratch_bytes,
    .head_rows = 512,
    .library = "packing buffers and kernels of oneDNN",
    .describe = cpu_describe,
};
