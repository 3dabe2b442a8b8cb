/* runtime.cc — CUDA's runtime functions over the emulated device: memory.cc, queue.cc, graph.cc. Those that trimpot does not use are
 * not here: a plugin that calls one does not load. There is no null stream. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <unistd.h>

#include "tests/emu/capture.h"
#include "tests/emu/emu.h"
#include "tests/emu/memory.h"
#include "tests/emu/queue.h"
#include "tests/emu/settings.h"

static thread_local int current; /* device of this thread */

#define ENTER()                                                                                                                            \
    do {                                                                                                                                   \
        if (cudaError_t entered_ = queue_enter()) return queue_give(entered_);                                                             \
    } while (0)

/* ---- devices --------------------------------------------------------------------------------------------------------------- */

/* The visible devices by the host's numbers; CUDA_VISIBLE_DEVICES ends at the first that is none. */
static int visible(int (&out)[MAX_DEVICES])
{
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    int n = 0;
    if (!list) {
        for (; n < settings().devices; n++) out[n] = n;
        return n;
    }
    for (char *end; *list && n < MAX_DEVICES; list = end + (*end == ',')) {
        long i = strtol(list, &end, 10);
        if (end == list || i < 0 || i >= settings().devices) break;
        out[n++] = (int)i;
    }
    return n;
}

static cudaError_t device_of_host(int device, int *out)
{
    int all[MAX_DEVICES], n = visible(all);
    if (device < 0 || device >= n) return cudaErrorInvalidDevice;
    *out = all[device];
    return cudaSuccess;
}

static const char *name_of(cudaError_t e);
static const char *text_of(cudaError_t e);

extern "C" {

cudaError_t cudaDriverGetVersion(int *out)
{
    *out = settings().driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *out)
{
    *out = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *out)
{
    int all[MAX_DEVICES];
    *out = 0;
    ENTER();
    if (settings().driver / 1000 < CUDART_VERSION / 1000) return queue_give(cudaErrorInsufficientDriver);
    *out = visible(all);
    return queue_give(*out ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device)
{
    int host;
    ENTER();
    if (cudaError_t e = device_of_host(device, &host)) return queue_give(e);
    current = device;
    return queue_give(memory_start(device));
}

cudaError_t cudaGetDevice(int *out)
{
    *out = current;
    return queue_give(queue_enter());
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    int host;
    ENTER();
    if (cudaError_t e = device_of_host(device, &host)) return queue_give(e);
    *p = cudaDeviceProp{};
    snprintf(p->name, sizeof p->name, "emulated GPU");
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    const size_t id[2] = {std::hash<std::string>()(name), (size_t)host};
    memcpy(p->uuid.bytes, id, sizeof id);
    p->totalGlobalMem = settings().memory;
    p->major = settings().sm / 10;
    p->minor = settings().sm % 10;
    p->multiProcessorCount = 132;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->sharedMemPerBlock = 48 << 10;
    p->sharedMemPerBlockOptin = 227 << 10;
    p->sharedMemPerMultiprocessor = 228 << 10;
    p->regsPerBlock = 65536;
    p->l2CacheSize = 50 << 20;
    p->pciBusID = host + 1;
    p->unifiedAddressing = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *out, cudaDeviceAttr what, int device)
{
    cudaDeviceProp p;
    if (cudaError_t e = cudaGetDeviceProperties(&p, device)) return e;
    const struct {
        cudaDeviceAttr what;
        int value;
    } known[] = {
        {cudaDevAttrComputeCapabilityMajor, p.major},
        {cudaDevAttrComputeCapabilityMinor, p.minor},
        {cudaDevAttrMultiProcessorCount, p.multiProcessorCount},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, (int)p.sharedMemPerBlockOptin},
        {cudaDevAttrMaxThreadsPerBlock, p.maxThreadsPerBlock},
        {cudaDevAttrL2CacheSize, p.l2CacheSize},
        {cudaDevAttrWarpSize, p.warpSize},
    };
    for (auto &k : known)
        if (k.what == what) {
            *out = k.value;
            return cudaSuccess;
        }
    fprintf(stderr, "emu: cudaDeviceGetAttribute: nobody has asked for attribute %d before\n", (int)what);
    return queue_give(cudaErrorInvalidValue);
}

/* ---- errors ---------------------------------------------------------------------------------------------------------------- */

cudaError_t cudaGetLastError() { return queue_last_error(true); }
cudaError_t cudaPeekAtLastError() { return queue_last_error(false); }
const char *cudaGetErrorName(cudaError_t e) { return name_of(e); }
const char *cudaGetErrorString(cudaError_t e) { return text_of(e); }

/* ---- memory ---------------------------------------------------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    *out = nullptr;
    ENTER();
    if (cudaError_t e = capture_forbids("cudaMalloc")) return queue_give(e);
    if (fails_now(FAIL_ALLOC)) return queue_give(cudaErrorMemoryAllocation);
    return queue_give(bytes ? memory_take(MEMORY_DEVICE, current, bytes, out) : cudaSuccess);
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    *out = nullptr;
    ENTER();
    if (cudaError_t e = capture_forbids("cudaMallocHost")) return queue_give(e);
    if (fails_now(FAIL_PINNED)) return queue_give(cudaErrorMemoryAllocation);
    return queue_give(bytes ? memory_take(MEMORY_PINNED, current, bytes, out) : cudaSuccess);
}

/* CUDA finishes what is queued before it frees. After an error nothing runs, and memory goes all the same. */
static cudaError_t release(memory_kind kind, void *p)
{
    cudaError_t e = queue_enter();
    if (e == cudaErrorNotPermitted || !p) return queue_give(e);
    if (cudaError_t forbidden = capture_forbids("freeing memory")) return queue_give(forbidden);
    e = queue_finish_all();
    cudaError_t released = memory_release(kind, p);
    return queue_give(e ? e : released);
}

cudaError_t cudaFree(void *p) { return release(MEMORY_DEVICE, p); }
cudaError_t cudaFreeHost(void *p) { return release(MEMORY_PINNED, p); }

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    ENTER();
    memory_info(current, free_bytes, total_bytes);
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *out, const void *p)
{
    ENTER();
    *out = cudaPointerAttributes{};
    memory_kind kind = memory_kind_of(p, &out->device);
    out->type = kind == MEMORY_DEVICE ? cudaMemoryTypeDevice : kind == MEMORY_PINNED ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    return cudaSuccess;
}

/* ---- streams --------------------------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned)
{
    *out = nullptr;
    ENTER();
    *out = queue_open(current);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    if (queue_enter() == cudaErrorNotPermitted) return queue_give(cudaErrorNotPermitted);
    queue_close(s);
    return cudaSuccess;
}
}

/* Work is queued by threads whose device is the stream's. */
static cudaError_t on_stream(cudaStream_t s)
{
    if (cudaError_t e = queue_enter()) return e;
    if (s && s->device == current) return cudaSuccess;
    fprintf(stderr, s ? "emu: this thread's device is not the stream's: cudaSetDevice\n" : "emu: work for the null stream\n");
    return cudaErrorInvalidResourceHandle;
}

static cudaError_t queue(cudaStream_t s, emu_failure failure, cudaError_t code, work w)
{
    if (cudaError_t e = on_stream(s)) return queue_give(e);
    if (fails_now(failure)) return queue_give(code);
    return queue_give(queue_put(s, std::move(w)));
}

cudaError_t emu_argument(const char *kernel, const void *pointer)
{
    return memory_for_kernel(pointer, kernel) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t emu_enqueue(cudaStream_t on, const char *what, std::function<cudaError_t()> run)
{
    return queue(on, FAIL_LAUNCH, cudaErrorLaunchOutOfResources, {.kind = WORK_RUNS, .what = what, .run = std::move(run)});
}

cudaError_t emu_talk(cudaStream_t on, const char *what, std::function<cudaError_t()> run)
{
    memory_beside_host();
    return queue(on, FAIL_LAUNCH, cudaErrorLaunchOutOfResources, {.kind = WORK_RUNS, .what = what, .run = std::move(run), .talks = true});
}

extern "C" {

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    ENTER();
    return queue_give(queue_finish_stream(s));
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    ENTER();
    return queue_give(queue_ask_stream(s));
}

cudaError_t cudaDeviceSynchronize()
{
    ENTER();
    return queue_give(queue_finish_all());
}

/* Copies read and write when they run. The program stages everything through pinned memory; CUDA's rules for other host memory
 * (which may wait, or not) are nobody's business here. */
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t s)
{
    ENTER();
    if (!bytes) return cudaSuccess;
    if (kind != cudaMemcpyDefault || !memory_covers(dst, bytes, "the target of a copy") ||
        !memory_covers(src, bytes, "the source of a copy"))
        return queue_give(cudaErrorInvalidValue);
    auto run = [=] { return memmove(dst, src, bytes), cudaSuccess; };
    return queue(s, FAIL_COPY, cudaErrorInvalidValue, {.kind = WORK_RUNS, .what = "copy", .run = run, .user = USER_COPY});
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t s)
{
    ENTER();
    if (!bytes) return cudaSuccess;
    if (!memory_covers(dst, bytes, "the target of a memset")) return queue_give(cudaErrorInvalidValue);
    auto run = [=] { return memset(dst, value, bytes), cudaSuccess; };
    return queue(s, FAIL_COPY, cudaErrorInvalidValue, {.kind = WORK_RUNS, .what = "memset", .run = run, .user = USER_COPY});
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void *arg)
{
    auto run = [=] { return fn(arg), cudaSuccess; };
    return queue(s, FAIL_HOST, cudaErrorMemoryAllocation, {.kind = WORK_RUNS, .what = "call of the host", .run = run, .user = USER_HOST});
}

/* ---- events ---------------------------------------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned)
{
    *out = nullptr;
    ENTER();
    *out = new CUevent_st{current};
    return cudaSuccess;
}

/* What waits for a record of it goes on waiting for that. */
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    if (queue_enter() == cudaErrorNotPermitted) return queue_give(cudaErrorNotPermitted);
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    if (cudaError_t error = on_stream(s)) return queue_give(error);
    return queue_give(queue_record(e, s));
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    if (cudaError_t error = on_stream(s)) return queue_give(error);
    return queue_give(queue_wait(e, s));
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    ENTER();
    return queue_give(queue_ask_event(e));
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    ENTER();
    return queue_give(queue_finish_event(e));
}
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    ENTER();
    return queue_give(queue_elapsed(from, to, ms));
}

/* ---- names ----------------------------------------------------------------------------------------------------------------- */

static const struct {
    cudaError_t code;
    const char *name, *text;
} NAMES[] = {
#define NAME(code, text)                                                                                                                   \
    {                                                                                                                                      \
        code, #code, text                                                                                                                  \
    }
    NAME(cudaSuccess, "no error"),
    NAME(cudaErrorInvalidValue, "invalid argument"),
    NAME(cudaErrorMemoryAllocation, "out of memory"),
    NAME(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    NAME(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    NAME(cudaErrorInvalidDevice, "invalid device ordinal"),
    NAME(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    NAME(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    NAME(cudaErrorNotReady, "device not ready"),
    NAME(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    NAME(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    NAME(cudaErrorLaunchFailure, "unspecified launch failure"),
    NAME(cudaErrorNotPermitted, "operation not permitted"),
    NAME(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    NAME(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    NAME(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences"),
    NAME(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    NAME(cudaErrorStreamCaptureWrongThread, "attempt to terminate a thread-local capture sequence from another thread"),
    NAME(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    NAME(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream"),
#undef NAME
};

static const char *name_of(cudaError_t e)
{
    for (auto &n : NAMES)
        if (n.code == e) return n.name;
    return "unrecognized error code";
}

static const char *text_of(cudaError_t e)
{
    for (auto &n : NAMES)
        if (n.code == e) return n.text;
    return "unrecognized error code";
}
