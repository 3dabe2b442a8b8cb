/* each_isa.h — runs a test program once per instruction set of the CPU backend: itself, then again under TRIMPOT_ISA.
 * A set this machine lacks is skipped aloud. */
#ifndef TRIMPOT_TESTS_EACH_ISA_H
#define TRIMPOT_TESTS_EACH_ISA_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/backend.h"

/* In place of the cmocka group's result: 0 when the group passes here and under each instruction set. */
static int each_isa(char **argv, int (*group)(void))
{
    static const char *const sets[] = {"avx2", "avx512", "avx512_bf16"};
    if (getenv("TRIMPOT_ISA")) return group();
    printf("== %s\n", backend_cpu.describe());
    fflush(stdout);
    int failed = group();
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        bool has = i == 0 || (i == 1 ? __builtin_cpu_supports("avx512bw") : __builtin_cpu_supports("avx512bf16"));
        if (!has) {
            printf("SKIPPED under TRIMPOT_ISA=%s: this machine lacks it\n", sets[i]);
            continue;
        }
        printf("== TRIMPOT_ISA=%s\n", sets[i]);
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            setenv("TRIMPOT_ISA", sets[i], 1);
            execv("/proc/self/exe", argv);
            _exit(127);
        }
        int code = 0;
        if (child < 0 || waitpid(child, &code, 0) < 0 || code) failed++;
    }
    return failed;
}

#endif
