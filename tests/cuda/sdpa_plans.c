/* sdpa_plans.c — plans of cuDNN for the attention of every supported model, on a described device: no GPU, no driver.
 *
 * sdpa_plans PART PARTS: prints engine and workspace of each plan beside sdpa_bytes_of; 1 when they differ by more than 256 bytes,
 * when cuDNN refuses what it should take, or takes what this list says goes to the own kernel; 77 without cuDNN. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/sdpa.h"

struct model {
    const char *name;
    int64_t heads, kv_heads, head_dim, window;
    int32_t capped, fused; /* soft cap of scores; q, k, v side by side in one buffer */
};

static const struct model models[] = {
    {"Llama 2 7B", 32, 32, 128, 0, 0, 0},
    {"Llama 3 8B, Qwen3 4B and 8B", 32, 8, 128, 0, 0, 0},
    {"Llama 3.2 1B", 32, 8, 64, 0, 0, 0},
    {"Llama 3.2 3B", 24, 8, 128, 0, 0, 0},
    {"Qwen2.5 0.5B", 14, 2, 64, 0, 0, 0},
    {"Qwen2.5 1.5B", 12, 2, 128, 0, 0, 0},
    {"Qwen2.5 3B", 16, 2, 128, 0, 0, 0},
    {"Qwen2.5 7B", 28, 4, 128, 0, 0, 0},
    {"Qwen3 0.6B and 1.7B", 16, 8, 128, 0, 0, 0},
    {"Gemma 2 2B, global", 8, 4, 256, 0, 1, 0},
    {"Gemma 2 2B, sliding", 8, 4, 256, 4096, 1, 0},
    {"Phi-3 mini", 32, 32, 96, 2047, 0, 1},
    {"Mistral 7B", 32, 8, 128, 4096, 0, 0},
};
enum { MODELS = sizeof models / sizeof *models };

struct device {
    const char *name;
    int major, minor, sms, shared;
};
static const struct device h100 = {"H100", 9, 0, 132, 232448}, a100 = {"A100", 8, 0, 108, 166912};

static void describe(const struct device *d, char *json, size_t size)
{
    snprintf(json, size,
             "{\"version\":1,\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],\"maxBlockDim\":[1024,1024,64],"
             "\"regsPerBlock\":65536,\"multiProcessorCount\":%d,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,"
             "\"maxSharedMemoryPerBlockOptin\":%d,\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,"
             "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,\"supportCoopLaunch\":1,"
             "\"smClockRateKHz\":1980000,\"memClockRateKHz\":2619000,\"l2CacheSize\":52428800,\"deviceName\":\"%s\",\"deviceVer\":%d,"
             "\"driverVer\":13000,\"cudaDeviceId\":0,\"totalGlobalMem\":85899345920}",
             d->sms, d->shared, d->name, d->major * 100 + d->minor * 10);
}

static struct sdpa_shape shape_of(const struct model *m, int64_t docs, int64_t tokens, enum sdpa_way way, bool ragged)
{
    int64_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim, all = q + 2 * kv;
    int64_t ldq = m->fused ? all : q, ldk = m->fused ? all : kv;
    return (struct sdpa_shape){.docs = docs,
                               .tokens = tokens,
                               .heads = m->heads,
                               .kv_heads = m->kv_heads,
                               .head_dim = m->head_dim,
                               .window = m->window,
                               .ld = {ldq, ldk, ldk, q, m->heads, q, ldq, ldk, ldk},
                               .way = way,
                               .ragged = ragged,
                               .capped = m->capped};
}

static const char *const ways[] = {"forward", "backward", "deterministic"};
static int failures, taken;

static void check(struct sdpa *d, const struct device *dev, const char *name, const struct sdpa_shape *s, bool refused)
{
    const struct sdpa_plan *p = NULL;
    status st = sdpa_plan(d, s, &p);
    printf("%-5s %-28s %2lld/%-2lld D%-3lld %2lld x %-5lld %-6s %-13s ", dev->name, name, (long long)s->heads, (long long)s->kv_heads,
           (long long)s->head_dim, (long long)s->docs, (long long)s->tokens, s->ragged ? "ragged" : "dense", ways[s->way]);
    if (st) {
        printf("own kernel: %s%s\n", status_message(), refused ? "" : "  FAIL: should have a plan");
        failures += !refused;
        return;
    }
    size_t formula = sdpa_bytes_of(s, s->docs * s->tokens, dev->major).engine, plan = p->bytes.engine;
    size_t off = formula > plan ? formula - plan : plan - formula;
    printf("engine %lld, %zu bytes, formula %zu%s%s\n", (long long)p->engine, plan, formula, off > 256 ? "  FAIL: off" : "",
           refused ? "  FAIL: cuDNN takes it" : "");
    failures += off > 256 || refused;
    taken++;
}

/* Rows with room for adapters behind them, as where products are joined: of all but lse and dO. */
static void leave_room(struct sdpa_shape *s)
{
    for (int i = 0; i < SDPA_OPERANDS; i++)
        if (i != SDPA_LSE && i != SDPA_DO) s->ld[i] += 64;
}

/* Everything of one model: dense and packed, forward, backward and deterministic. */
static void check_model(struct sdpa *d, const struct model *m, bool rooms)
{
    int64_t tokens = m->window && m->window < 4096 ? 4096 : m->window ? 8192 : 4096;
    for (int way = 0; way < SDPA_WAYS; way++) {
        struct sdpa_shape dense = shape_of(m, 2, way == SDPA_DETERMINISTIC ? 1000 : tokens, way, false);
        struct sdpa_shape packed = shape_of(m, way == SDPA_DETERMINISTIC ? 4 : 16, tokens, way, true);
        if (rooms) leave_room(&dense), leave_room(&packed);
        check(d, &h100, m->name, &dense, false);
        check(d, &h100, m->name, &packed, false);
    }
}

/* What goes to the own kernels, and slices of heads that deterministic attention makes. */
static void check_edges(struct sdpa *d, struct sdpa *ampere)
{
    struct model llama = models[1], one_group = llama, odd = llama, wide = llama;
    one_group.heads = 4, one_group.kv_heads = 1;
    odd.head_dim = 20, wide.head_dim = 320;
    struct sdpa_shape slice = shape_of(&one_group, 1, 4096, SDPA_DETERMINISTIC, true);
    slice.ld[SDPA_Q] = slice.ld[SDPA_DQ] = slice.ld[SDPA_O] = slice.ld[SDPA_DO] = 4096;
    slice.ld[SDPA_K] = slice.ld[SDPA_V] = slice.ld[SDPA_DK] = slice.ld[SDPA_DV] = 1024, slice.ld[SDPA_LSE] = 32;
    check(d, &h100, "one group of Llama 3 8B", &slice, false);
    struct sdpa_shape few = shape_of(&llama, 2, 1024, SDPA_BACKWARD, true);
    check(d, &h100, "Llama 3 8B, two documents", &few, false);
    struct sdpa_shape none[] = {shape_of(&odd, 1, 512, SDPA_FORWARD, false), shape_of(&wide, 1, 512, SDPA_FORWARD, false),
                                shape_of(&llama, 4, 1, SDPA_BACKWARD, false)};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) check(d, &h100, "none of ours", &none[i], true);
    for (int way = 0; way < SDPA_WAYS; way++) {
        struct sdpa_shape dense = shape_of(&llama, 2, 2048, way, false), mha = shape_of(&models[0], 2, 2048, way, false);
        struct sdpa_shape packed = shape_of(&llama, 16, 2048, way, true), gemma = shape_of(&models[9], 2, 2048, way, false);
        check(ampere, &a100, llama.name, &dense, false);
        check(ampere, &a100, models[0].name, &mha, false);
        check(ampere, &a100, llama.name, &packed, way != SDPA_FORWARD);
        check(ampere, &a100, models[9].name, &gemma, way != SDPA_FORWARD);
    }
}

int main(int argc, char **argv)
{
    int part = argc > 2 ? atoi(argv[1]) : 0, parts = argc > 2 ? atoi(argv[2]) : 1;
    char json[2048];
    struct sdpa *hopper = NULL, *ampere = NULL;
    describe(&h100, json, sizeof json);
    status st = sdpa_open(json, h100.major, &hopper);
    describe(&a100, json, sizeof json);
    if (!st) st = sdpa_open(json, a100.major, &ampere);
    if (st) {
        printf("SKIP: %s\n", status_message());
        return 77;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < MODELS; i++)
        if (i % parts == part) check_model(hopper, &models[i], false);
    for (int i = 1; i < MODELS; i += 8) /* grouped heads; a window and a cap */
        if (i / 8 % parts == part) printf("with room:\n"), check_model(hopper, &models[i], true);
    if (part == parts - 1) check_edges(hopper, ampere);
    printf("%s, part %d of %d: %d plans, %d failures\n", sdpa_describe(hopper), part + 1, parts, taken, failures);
    sdpa_close(ampere), sdpa_close(hopper);
    return failures || !taken;
}
