/* main.cc — runs the tests of this folder; with the name of an accident, only has that (test_faults.cc). */
#include "tests/emu/selftest/selftest.h"

#include <cstdlib>
#include <unistd.h>

std::vector<CMUnitTest> &selftests(void)
{
    static std::vector<CMUnitTest> list;
    return list;
}

/* Streams are tested elsewhere: here work is done as soon as it is queued. */
cudaError_t emu_enqueue(cudaStream_t, const char *, std::function<cudaError_t()> run) { return run(); }

struct said said_by(const std::function<cudaError_t()> &launch)
{
    struct said s = {};
    FILE *f = tmpfile();
    int kept = dup(STDERR_FILENO);
    assert_non_null(f);
    fflush(stderr);
    dup2(fileno(f), STDERR_FILENO);
    s.code = launch();
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(f);
    for (int c; (c = fgetc(f)) != EOF;) s.text += (char)c;
    fclose(f);
    return s;
}

void have_accident(void) __attribute__((weak));

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "accident") && have_accident) {
        have_accident();
        return 0;
    }
    setenv("EMU_SELFTEST", argv[0], 1);
    std::vector<CMUnitTest> &list = selftests();
    return _cmocka_run_group_tests("emu", list.data(), list.size(), nullptr, nullptr);
}
