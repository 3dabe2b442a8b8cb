#include "tests/emu/settings.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <unistd.h>

#include <cuda_runtime_api.h>

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    if (!text || !*text) return otherwise;
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    if (*end == 'G')
        n <<= 30, end++;
    else if (*end == 'M')
        n <<= 20, end++;
    if (*end) {
        fprintf(stderr, "emu: %s is '%s', not a number\n", name, text);
        abort();
    }
    return n;
}

/* Index of the word at `text` (up to one of `ends`) in NAMES. A misspelt one must not pass for a test that holds. */
template <size_t N> static int word(const char *variable, const char *text, const char *ends, const char *const (&names)[N])
{
    size_t length = strcspn(text, ends);
    for (size_t i = 0; i < N; i++)
        if (strlen(names[i]) == length && !strncmp(names[i], text, length)) return (int)i;
    fprintf(stderr, "emu: %s: unknown '%s'\n", variable, text);
    abort();
}

static void read_failures(long (&fail)[FAILURES])
{
    static const char *const NAMES[FAILURES] = {"alloc", "pinned", "launch", "copy", "host", "stream", "nccl", "join"};
    for (const char *at = getenv("TRIMPOT_EMU_FAIL"); at && *at; at += *at == ',') {
        int what = word("TRIMPOT_EMU_FAIL", at, ":", NAMES);
        char *end;
        fail[what] = strtol(at + strlen(NAMES[what]) + 1, &end, 10);
        if (fail[what] < 1 || (*end && *end != ',')) {
            fprintf(stderr, "emu: TRIMPOT_EMU_FAIL: '%s' names no call\n", at);
            abort();
        }
        at = end;
    }
}

static struct emu_settings read()
{
    static const char *const ORDERS[] = {"any", "last", "first"};
    struct emu_settings s = {};
    const char *order = getenv("TRIMPOT_EMU_ORDER");
    s.order = order && *order ? (emu_order)word("TRIMPOT_EMU_ORDER", order, "", ORDERS) : ORDER_ANY;
    s.devices = (int)number("TRIMPOT_EMU_DEVICES", 16);
    if (s.devices > MAX_DEVICES) s.devices = MAX_DEVICES;
    s.sm = (int)number("TRIMPOT_EMU_SM", 90);
    s.driver = (int)number("TRIMPOT_EMU_DRIVER", CUDART_VERSION);
    s.memory = number("TRIMPOT_EMU_MEMORY", (size_t)8 << 30);
    read_failures(s.fail);
    return s;
}

const struct emu_settings &settings()
{
    static const struct emu_settings s = read();
    return s;
}

bool fails_now(enum emu_failure what)
{
    static std::atomic<long> calls[FAILURES];
    long call = ++calls[what];
    return call == settings().fail[what];
}

size_t page_bytes()
{
    static const size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    return bytes;
}
