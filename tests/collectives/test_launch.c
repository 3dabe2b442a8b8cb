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

#define SLURM            "SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=8 SLURM_NNODES=4"
#define STEP             SLURM " SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=8"
#define OMPI(size, rank) "OMPI_COMM_WORLD_SIZE=" #size " OMPI_COMM_WORLD_RANK=" #rank " PMIX_RANK=" #rank " PMIX_NAMESPACE=12345 "
#define SRUN(rank)       "PMIX_NAMESPACE=slurm.pmix.7.0 PMIX_RANK=" #rank " "
#define PMI(size, rank)  "PMI_SIZE=" #size " PMI_RANK=" #rank " "

static const struct row rows[] = {
    /* distributed.md §2.1, row by row */
    {"bare shell", "", NULL, ST_OK, false, 1, "bare", NULL},
    {"bare inside sbatch", SLURM, NULL, ST_OK, false, 1, "bare", "SLURM_NTASKS='8': 1 process inside an allocation of 8 tasks"},
    {"mpirun", OMPI(4, 1), NULL, ST_OK, true, 4, "mpirun", NULL},
    {"mpirun in sbatch, first node", OMPI(8, 3) SLURM, NULL, ST_OK, true, 8, "mpirun", NULL},
    {"mpirun in sbatch, other node", OMPI(8, 5) "SLURM_JOB_ID=7 SLURM_PROCID=1 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=3 SLURM_NTASKS=3", NULL,
     ST_OK, true, 8, "mpirun", NULL},
    {"the same, daemons under pmi2", OMPI(8, 5) PMI(3, 1) "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=3 SLURM_PROCID=1", NULL, ST_OK, true, 8,
     "mpirun", NULL},
    {"srun --mpi=pmix", SRUN(0) STEP, NULL, ST_OK, true, 8, "srun --mpi=pmix", NULL},
    {"srun --mpi=pmi2", PMI(8, 0) STEP, NULL, ST_USAGE, false, 0, NULL, "PMI_SIZE='8', PMI_RANK='0': srun --mpi=pmi2 started 8"},
    {"srun --mpi=none", STEP, NULL, ST_USAGE, false, 0, NULL,
     "SLURM_STEP_NUM_TASKS='8', SLURM_PROCID='0': srun without PMIx started 8 indep"},

    /* allocations and shells in them */
    {"bare, allocation of one task", "SLURM_JOB_ID=7 SLURM_NTASKS=1", NULL, ST_OK, false, 1, "bare", NULL},
    {"shell of salloc on the login node", "SLURM_JOB_ID=7 SLURM_NTASKS=2 SLURM_NNODES=1", NULL, ST_OK, false, 1, "bare", "mpirun trimpot"},
    {"shell of salloc as a step", SLURM " SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=1", NULL, ST_OK, false, 1, "bare", "SLURM_NTASKS"},
    {"the same with all tasks counted", SLURM " SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=8", NULL, ST_OK, false, 1, "bare",
     "srun --mpi=pmix trimpot"},
    {"mpirun from it", OMPI(8, 7) SLURM " SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=1", NULL, ST_OK, true, 8, "mpirun", NULL},
    {"mpirun in srun --pty", OMPI(4, 2) SLURM " SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1", NULL, ST_OK, true, 4, "mpirun", NULL},
    {"tasks outside of a job", "SLURM_NTASKS=8", NULL, ST_OK, false, 1, "bare", NULL},
    {"number of tasks is no number", "SLURM_JOB_ID=7 SLURM_NTASKS=many", NULL, ST_OK, false, 1, "bare", NULL},

    /* worlds of one */
    {"mpirun -n 1", OMPI(1, 0), NULL, ST_OK, false, 1, "mpirun", NULL},
    {"srun --mpi=pmix -n 1", SRUN(0) "SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1", NULL, ST_OK, false, 1, "srun --mpi=pmix",
     NULL},
    {"srun --mpi=pmi2 -n 1", PMI(1, 0) "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1", NULL, ST_OK, false, 1, "bare", NULL},
    {"srun --mpi=none -n 1", SLURM " SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1", NULL, ST_OK, false, 1, "bare", "SLURM_NTASKS"},
    {"MPICH's mpirun -n 1", PMI(1, 0) "MPI_LOCALNRANKS=1 MPI_LOCALRANKID=0", NULL, ST_OK, false, 1, "bare", NULL},
    {"torchrun with one process", "WORLD_SIZE=1 RANK=0 LOCAL_RANK=0", NULL, ST_OK, false, 1, "bare", NULL},
    {"mpirun -n 1 on a node of mpirun's srun", OMPI(1, 0) "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=3 SLURM_PROCID=2", NULL, ST_OK, true, 1,
     "mpirun", NULL},
    {"torchrun in srun -n 1", SRUN(0) "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 WORLD_SIZE=4 RANK=2", NULL, ST_USAGE, false, 0, NULL,
     "WORLD_SIZE='4', RANK='2'"},
    {"MPICH's mpirun in the shell of an mpirun -n 1", OMPI(1, 0) PMI(4, 0) "MPI_LOCALNRANKS=4", NULL, ST_USAGE, false, 0, NULL,
     "PMI_SIZE='4'"},

    /* one launcher in the environment of another: the inner one rules */
    {"srun in the shell of an ended mpirun", "OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=2 " SRUN(5) STEP, NULL, ST_OK, true, 8,
     "srun --mpi=pmix", NULL},
    {"mpirun in a pod that sets WORLD_SIZE", OMPI(4, 1) "WORLD_SIZE=2 RANK=1", NULL, ST_OK, true, 4, "mpirun", NULL},
    {"mpirun beside PMI variables", OMPI(4, 1) PMI(2, 1), NULL, ST_OK, true, 4, "mpirun", NULL},
    {"srun over two components", SRUN(9) STEP " SLURM_HET_SIZE=2", NULL, ST_OK, true, 0, "srun --mpi=pmix", NULL},
    {"PRRTE's mpirun", "OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=1 PMIX_RANK=1 PMIX_NAMESPACE=prterun-host-1@1", NULL, ST_OK, true, 2,
     "mpirun", NULL},
    {"another PMIx launcher", "PMIX_RANK=0 PMIX_NAMESPACE=prterun-host-1@1", NULL, ST_OK, true, 0, "a PMIx launcher", NULL},
    {"child of a program that is MPI alone", "PMIX_RANK=0 PMIX_NAMESPACE=77 OMPI_MCA_ess=singleton", NULL, ST_OK, false, 1, "bare", NULL},

    /* left over in a shell, whole or in part */
    {"PMIX_RANK of an earlier singleton", "PMIX_RANK=0", NULL, ST_OK, false, 1, "bare", NULL},
    {"PMIX_RANK above 0 alone", "PMIX_RANK=3", NULL, ST_USAGE, false, 0, NULL, "PMIX_RANK='3' with PMIX_NAMESPACE=''"},
    {"PMIX_RANK is no number", "PMIX_RANK=x PMIX_NAMESPACE=1", NULL, ST_USAGE, false, 0, NULL, "PMIX_RANK='x'"},
    {"PMIX_NAMESPACE alone", "PMIX_NAMESPACE=12345", NULL, ST_OK, false, 1, "bare", NULL},
    {"rank beyond the step", SRUN(8) STEP, NULL, ST_USAGE, false, 0, NULL, "PMIX_RANK='8' is no rank of SLURM_STEP_NUM_TASKS='8'"},
    {"OMPI size alone", "OMPI_COMM_WORLD_SIZE=4", NULL, ST_USAGE, false, 0, NULL,
     "OMPI_COMM_WORLD_SIZE='4', but OMPI_COMM_WORLD_RANK is not set"},
    {"OMPI rank alone", "OMPI_COMM_WORLD_RANK=1", NULL, ST_USAGE, false, 0, NULL,
     "OMPI_COMM_WORLD_RANK='1', but OMPI_COMM_WORLD_SIZE is not"},
    {"OMPI without PMIx", "OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=1", NULL, ST_USAGE, false, 0, NULL, "PMIX_RANK is not set"},
    {"OMPI with half of PMIx", "OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=1 PMIX_RANK=1", NULL, ST_USAGE, false, 0, NULL,
     "PMIX_NAMESPACE is not set"},
    {"OMPI size is no number", OMPI(four, 1), NULL, ST_USAGE, false, 0, NULL, "OMPI_COMM_WORLD_SIZE='four'"},
    {"OMPI size is zero", OMPI(0, 0), NULL, ST_USAGE, false, 0, NULL, "OMPI_COMM_WORLD_SIZE='0'"},
    {"OMPI size is negative", OMPI(-4, 0), NULL, ST_USAGE, false, 0, NULL, "'-4'"},
    {"OMPI size is huge", OMPI(99999999999999999999, 0), NULL, ST_USAGE, false, 0, NULL, "'99999999999999999999'"},
    {"OMPI rank beyond the size", OMPI(4, 4), NULL, ST_USAGE, false, 0, NULL, "OMPI_COMM_WORLD_RANK='4'"},
    {"OMPI of one rank alone", "OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_RANK=0", NULL, ST_OK, false, 1, "mpirun", NULL},
    {"step count is no number", "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=99999999999999999999", NULL, ST_OK, false, 1, "bare", NULL},
    {"PROCID without a step", "SLURM_JOB_ID=7 SLURM_NTASKS=8 SLURM_PROCID=3", NULL, ST_USAGE, false, 0, NULL, "SLURM_PROCID='3'"},
    {"step count without a step", "SLURM_STEP_NUM_TASKS=8", NULL, ST_USAGE, false, 0, NULL, "unset ${!SLURM_STEP*} SLURM_PROCID"},
    {"PMI_RANK alone", "PMI_RANK=3", NULL, ST_USAGE, false, 0, NULL, "PMI_RANK='3'"},
    {"PMI_RANK 0 alone", "PMI_RANK=0", NULL, ST_USAGE, false, 0, NULL, "several independent copies"},
    {"PMI size is no number", PMI(x, 0), NULL, ST_USAGE, false, 0, NULL, "PMI_SIZE='x', PMI_RANK='0'"},
    {"PMI rank beyond a size of one", PMI(1, 2), NULL, ST_USAGE, false, 0, NULL, "PMI_RANK='2'"},

    /* launchers that Open MPI does not join */
    {"MPICH's mpirun", PMI(4, 1) "MPI_LOCALNRANKS=2 MPI_LOCALRANKID=1", NULL, ST_USAGE, false, 0, NULL, "MPICH or Intel MPI started 4"},
    {"Intel's, local variables only", "MPI_LOCALNRANKS=2 MPI_LOCALRANKID=0", NULL, ST_USAGE, false, 0, NULL, "MPI_LOCALNRANKS='2'"},
    {"PMI of nobody known", PMI(4, 1), NULL, ST_USAGE, false, 0, NULL, "another MPI's launcher"},
    {"MVAPICH2", "MV2_COMM_WORLD_SIZE=4 MV2_COMM_WORLD_RANK=0", NULL, ST_USAGE, false, 0, NULL, "MV2_COMM_WORLD_SIZE='4'"},
    {"Cray PALS", PMI(4, 1) "PALS_RANKID=1", NULL, ST_USAGE, false, 0, NULL, "mpiexec --pmi=pmix"},
    {"aprun", "ALPS_APP_PE=0", NULL, ST_USAGE, false, 0, NULL, "ALPS_APP_PE='0': aprun"},
    {"Flux", PMI(4, 1) "FLUX_JOB_SIZE=4 FLUX_TASK_RANK=1", NULL, ST_USAGE, false, 0, NULL, "flux run -o pmi=pmix"},
    {"Flux with PMIx", "FLUX_JOB_SIZE=4 FLUX_TASK_RANK=1 PMIX_RANK=1 PMIX_NAMESPACE=f1", NULL, ST_OK, true, 0, "a PMIx launcher", NULL},
    {"jsrun", "JSM_NAMESPACE_SIZE=4 JSM_NAMESPACE_RANK=1", NULL, ST_USAGE, false, 0, NULL, "jsrun started 4"},
    {"horovodrun", "HOROVOD_SIZE=4 HOROVOD_RANK=0", NULL, ST_USAGE, false, 0, NULL, "HOROVOD_SIZE='4'"},
    {"torchrun", "WORLD_SIZE=4 RANK=0 LOCAL_RANK=0 TORCHELASTIC_RUN_ID=x", NULL, ST_USAGE, false, 0, NULL, "unset WORLD_SIZE RANK"},
    {"a RANK of somebody's", "RANK=3", NULL, ST_OK, false, 1, "bare", NULL},
    {"torchrun in srun --mpi=none", "WORLD_SIZE=8 RANK=1 " STEP, NULL, ST_USAGE, false, 0, NULL, "srun --mpi=pmix"},

    {"--dist self under mpirun", OMPI(4, 1), "self", ST_OK, false, 1, "--dist self", NULL},
    {"--dist self under pmi2", PMI(8, 0) STEP, "self", ST_OK, false, 1, "--dist self", NULL},
    {"--dist self where half is left over", "OMPI_COMM_WORLD_RANK=1 PMIX_RANK=x", "self", ST_OK, false, 1, "--dist self", NULL},
    {"--dist mpi in a shell", "", "mpi", ST_OK, true, 0, "--dist mpi", NULL},
    {"--dist mpi under mpirun", OMPI(4, 1), "mpi", ST_OK, true, 4, "--dist mpi", NULL},
    {"--dist mpi under srun", "OMPI_COMM_WORLD_SIZE=2 " SRUN(1) STEP, "mpi", ST_OK, true, 8, "--dist mpi", NULL},
    {"--dist mpi under MPICH's mpirun", PMI(4, 1), "mpi", ST_OK, true, 4, "--dist mpi", NULL},
    {"--dist misspelt", "", "mpj", ST_USAGE, false, 0, NULL, "--dist 'mpj'"},
};

static const char *environment;

static const char *lookup(const char *name)
{
    static char values[4][64]; /* as many as one message shows */
    static int next;
    char *value = values[next++ % 4];
    size_t n = strlen(name);
    for (const char *p = environment; *p; p += strcspn(p, " "), p += *p == ' ') {
        if (strncmp(p, name, n) != 0 || p[n] != '=') continue;
        size_t len = strcspn(p + n + 1, " ");
        assert_true(len < sizeof values[0]);
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
        if (!good)
            fail_msg("%s: code %d, mpi %d, world %d, how %s, warning %s, message %s", r->name, st, l.mpi, l.expected_world, l.how,
                     l.warning, status_message());
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_no_plugin), cmocka_unit_test(test_self)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
