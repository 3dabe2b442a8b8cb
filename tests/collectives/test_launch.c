/* launch_detect over invented environments: every start there is, and hostile ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "collectives/comm.h"

struct row {
    const char *name;
    const char *environment; /* "NAME=value NAME=value …" */
    const char *dist;
    status st;
    bool mpi;
    int world;
    const char *how, *text; /* text: part of the message or warning */
};

#define SLURM "SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=8 SLURM_NNODES=4"
#define STEP SLURM " SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=8"

static const struct row rows[] = {
    {"bare shell", "", NULL, ST_OK, false, 1, "bare", NULL},
    {"bare inside sbatch", SLURM, NULL, ST_OK, false, 1, "bare", "several tasks"},
    {"bare, allocation of one task", "SLURM_JOB_ID=7 SLURM_NTASKS=1", NULL, ST_OK, false, 1, "bare", NULL},
    {"mpirun", "OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=1 PMIX_RANK=1 PMIX_NAMESPACE=12345", NULL, ST_OK, true, 4,
     "mpirun", NULL},
    {"mpirun in sbatch, first node", "OMPI_COMM_WORLD_SIZE=8 PMIX_RANK=3 PMIX_NAMESPACE=99 " SLURM, NULL, ST_OK, true, 8,
     "mpirun", NULL},
    {"mpirun in sbatch, other node", "OMPI_COMM_WORLD_SIZE=8 PMIX_RANK=5 PMIX_NAMESPACE=99 SLURM_JOB_ID=7 SLURM_STEP_ID=0 "
     "SLURM_STEP_NUM_TASKS=3 SLURM_NTASKS=3", NULL, ST_OK, true, 8, "mpirun", NULL},
    {"srun --mpi=pmix", "PMIX_RANK=0 PMIX_NAMESPACE=slurm.pmix.7.0 " STEP, NULL, ST_OK, true, 8, "srun --mpi=pmix", NULL},
    {"srun --mpi=pmix, one task", "PMIX_RANK=0 PMIX_NAMESPACE=slurm.pmix.7.0 SLURM_JOB_ID=7 SLURM_STEP_ID=0 "
     "SLURM_STEP_NUM_TASKS=1", NULL, ST_OK, true, 1, "srun --mpi=pmix", NULL},
    {"another PMIx launcher", "PMIX_RANK=0 PMIX_NAMESPACE=prterun-host-1@1", NULL, ST_OK, true, 0, "a PMIx launcher", NULL},
    {"srun --mpi=pmi2", "PMI_RANK=0 PMI_SIZE=8 " STEP, NULL, ST_USAGE, false, 0, NULL, "srun --mpi=pmix"},
    {"srun --mpi=none", STEP, NULL, ST_USAGE, false, 0, NULL, "8 independent copies"},
    {"srun of one task", SLURM " SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1", NULL, ST_OK, false, 1, "bare", "several tasks"},
    {"another MPI's PMI_RANK", "PMI_RANK=3", NULL, ST_USAGE, false, 0, NULL, "PMI_RANK='3'"},
    {"PMIX_RANK of an earlier singleton", "PMIX_RANK=0", NULL, ST_OK, false, 1, "bare", NULL},
    {"OMPI size is no number", "OMPI_COMM_WORLD_SIZE=four", NULL, ST_USAGE, false, 0, NULL, "'four'"},
    {"OMPI size is zero", "OMPI_COMM_WORLD_SIZE=0", NULL, ST_USAGE, false, 0, NULL, "OMPI_COMM_WORLD_SIZE"},
    {"OMPI size is negative", "OMPI_COMM_WORLD_SIZE=-4", NULL, ST_USAGE, false, 0, NULL, "'-4'"},
    {"step count is no number", "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=99999999999999999999", NULL, ST_OK, false, 1, "bare",
     NULL},
    {"--dist self under mpirun", "OMPI_COMM_WORLD_SIZE=4", "self", ST_OK, false, 1, "--dist self", NULL},
    {"--dist self under pmi2", "PMI_RANK=0 " STEP, "self", ST_OK, false, 1, "--dist self", NULL},
    {"--dist mpi in a shell", "", "mpi", ST_OK, true, 0, "--dist mpi", NULL},
    {"--dist mpi under mpirun", "OMPI_COMM_WORLD_SIZE=4", "mpi", ST_OK, true, 4, "--dist mpi", NULL},
    {"--dist misspelt", "", "mpj", ST_USAGE, false, 0, NULL, "--dist 'mpj'"},
};

static const char *environment;

static const char *lookup(const char *name)
{
    static char value[64];
    size_t n = strlen(name);
    for (const char *p = environment; *p; p += strcspn(p, " "), p += *p == ' ') {
        if (strncmp(p, name, n) != 0 || p[n] != '=') continue;
        size_t len = strcspn(p + n + 1, " ");
        assert_true(len < sizeof value);
        memcpy(value, p + n + 1, len);
        value[len] = 0;
        return value;
    }
    return NULL;
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        struct launch l;
        environment = r->environment;
        status st = launch_detect(r->dist, lookup, &l);
        bool good = st == r->st;
        if (good && st == ST_OK)
            good = l.mpi == r->mpi && l.expected_world == r->world && strcmp(l.how, r->how) == 0 &&
                   (r->text ? l.warning && strstr(l.warning, r->text) : !l.warning);
        else if (good)
            good = strstr(status_message(), r->text) != NULL;
        if (!good) fail_msg("%s: code %d, mpi %d, world %d, how %s, warning %s, message %s", r->name, st, l.mpi,
                            l.expected_world, l.how, l.warning, status_message());
    }
}

static void test_no_plugin(void **state)
{
    (void)state;
    struct launch l = {.mpi = true, .expected_world = 2, .how = "mpirun"};
    struct comm c;
    assert_int_equal(comm_open(&l, "/nonexistent", &c), ST_NOT_BUILT);
    assert_non_null(strstr(status_message(), "/nonexistent/trimpot_mpi.so"));
}

static void test_self(void **state)
{
    (void)state;
    struct launch l = {.how = "bare"};
    struct comm c;
    assert_int_equal(comm_open(&l, "/nonexistent", &c), ST_OK);
    int64_t values[2] = {5, -7}, all = 0;
    assert_int_equal(c.fn->all_reduce_i64(&c, values, 2, COMM_SUM_I64), ST_OK);
    assert_int_equal(values[1], -7);
    assert_int_equal(c.fn->all_gather(&c, values, &all, sizeof all), ST_OK);
    assert_int_equal(all, 5);
    assert_int_equal(comm_agree(&c, ST_OK), ST_OK);
    assert_int_equal(comm_check_equal(&c, "build", 1), ST_OK);
    assert_int_equal(comm_agree(&c, status_fail(ST_IO, "disk")), ST_IO);
    assert_string_equal(status_message(), "disk");
    assert_int_equal(comm_end(&c, ST_IO), ST_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_no_plugin),
                                       cmocka_unit_test(test_self)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
