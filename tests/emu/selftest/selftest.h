/* selftest.h — tests of the emulated device itself: kernels that use one thing each, launched without streams. */
#ifndef TRIMPOT_EMU_SELFTEST_H
#define TRIMPOT_EMU_SELFTEST_H

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#include <cuda_bf16.h>
#include <cuda_runtime.h>

/* LAUNCH of these tests: no stream, and CUDA's own code as the result. */
enum no_stream { NO_STREAM };
static inline cudaStream_t cuda_on(enum no_stream) { return nullptr; }
static inline cudaError_t cuda_status(cudaError_t e, const char *) { return e; }

struct selftest {
    const char *name;
    void (*run)(void **);
};
std::vector<CMUnitTest> &selftests(void);

/* TEST(name) { … }: found by main. */
#define TEST(name)                                                                                                                         \
    static void name(void **);                                                                                                             \
    static const bool name##_is_listed = (selftests().push_back(cmocka_unit_test(name)), true);                                            \
    static void name([[maybe_unused]] void **state)

/* What a launch says on stderr, and its code. */
struct said {
    cudaError_t code;
    std::string text;
};
struct said said_by(const std::function<cudaError_t()> &launch);

#define assert_ok(launch)          assert_int_equal(launch, cudaSuccess)
#define assert_says(said, wanted)  assert_non_null(strstr((said).text.c_str(), wanted))
#define assert_fault(said, wanted) (assert_int_equal((said).code, cudaErrorLaunchFailure), assert_says(said, wanted))

/* The line after which something is expected to be told. */
static inline std::string here(const char *file, int line) { return std::string(file) + ":" + std::to_string(line); }

#endif
