#include "collectives/comm.h"

#include <stdlib.h>
#include <string.h>

typedef const char *env_fn(const char *);

/* A positive count from the environment; 0 when absent or not a number. */
static int env_count(env_fn *env, const char *name)
{
    const char *text = env(name);
    if (!text || *text < '0' || *text > '9') return 0;
    char *end;
    long n = strtol(text, &end, 10);
    return *end == 0 && n > 0 && n <= 1 << 24 ? (int)n : 0;
}

static int slurm_step_world(env_fn *env)
{
    const char *space = env("PMIX_NAMESPACE");
    return space && strncmp(space, "slurm.pmix.", 11) == 0 ? env_count(env, "SLURM_STEP_NUM_TASKS") : 0;
}

static bool by_mpirun(env_fn *env) { return env("OMPI_COMM_WORLD_SIZE") != NULL; }
static bool by_pmix(env_fn *env) { return env("PMIX_RANK") && env("PMIX_NAMESPACE"); }
static bool by_pmi2(env_fn *env) { return env("PMI_RANK") != NULL; }
static bool by_bare_srun(env_fn *env) { return env("SLURM_STEP_ID") && env_count(env, "SLURM_STEP_NUM_TASKS") > 1; }
static bool by_hand(env_fn *env) { return env != NULL; }

static status open_mpirun(env_fn *env, struct launch *l)
{
    *l = (struct launch){.mpi = true, .expected_world = env_count(env, "OMPI_COMM_WORLD_SIZE"), .how = "mpirun"};
    if (l->expected_world == 0)
        FAIL(ST_USAGE, "environment: OMPI_COMM_WORLD_SIZE='%s' is not a number of ranks; start with mpirun, or unset it",
             env("OMPI_COMM_WORLD_SIZE"));
    return ST_OK;
}

static status open_pmix(env_fn *env, struct launch *l)
{
    int world = slurm_step_world(env);
    *l = (struct launch){.mpi = true, .expected_world = world, .how = world ? "srun --mpi=pmix" : "a PMIx launcher"};
    return ST_OK;
}

static status refuse_pmi2(env_fn *env, struct launch *l)
{
    (void)l;
    FAIL(ST_USAGE, "environment: PMI_RANK='%s' says that this process was started through PMI-2 or by another MPI's "
         "launcher, which Open MPI cannot join; use `srun --mpi=pmix` or Open MPI's own mpirun (or --dist self)",
         env("PMI_RANK"));
}

static status refuse_copies(env_fn *env, struct launch *l)
{
    (void)l;
    FAIL(ST_USAGE, "environment: SLURM_STEP_NUM_TASKS=%d: srun started %d independent copies without PMIx; use "
         "`srun --mpi=pmix` (`srun --mpi=list` must show it) or mpirun", env_count(env, "SLURM_STEP_NUM_TASKS"),
         env_count(env, "SLURM_STEP_NUM_TASKS"));
}

static status open_bare(env_fn *env, struct launch *l)
{
    *l = (struct launch){.expected_world = 1, .how = "bare"};
    if (env("SLURM_JOB_ID") && env_count(env, "SLURM_NTASKS") > 1)
        l->warning = "1 process inside a Slurm allocation of several tasks; to use them all: mpirun or srun --mpi=pmix";
    return ST_OK;
}

/* The first row that applies decides. */
static const struct {
    bool (*applies)(env_fn *env);
    status (*decide)(env_fn *env, struct launch *l);
} rows[] = {
    {by_mpirun, open_mpirun}, {by_pmix, open_pmix}, {by_pmi2, refuse_pmi2}, {by_bare_srun, refuse_copies},
    {by_hand, open_bare},
};

status launch_detect(const char *dist, env_fn *getenv_fn, struct launch *out)
{
    *out = (struct launch){0};
    if (dist && strcmp(dist, "self") == 0) {
        *out = (struct launch){.expected_world = 1, .how = "--dist self"};
        return ST_OK;
    }
    if (dist && strcmp(dist, "mpi") == 0) {
        int world = env_count(getenv_fn, "OMPI_COMM_WORLD_SIZE");
        *out = (struct launch){.mpi = true, .expected_world = world ? world : slurm_step_world(getenv_fn),
                               .how = "--dist mpi"};
        return ST_OK;
    }
    if (dist) FAIL(ST_USAGE, "--dist '%s' is neither self nor mpi; leave it out to have the launcher detected", dist);
    size_t i = 0;
    while (!rows[i].applies(getenv_fn)) i++;
    return rows[i].decide(getenv_fn, out);
}
