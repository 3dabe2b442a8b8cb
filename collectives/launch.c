/* launch.c — how this process was started, by its environment alone; tables, because every launcher has variables of its own.
 *
 *   1. srun with PMIx: PMIX_NAMESPACE=slurm.pmix.JOB.STEP. It replaces what an mpirun around it had said.
 *   2. mpirun (Open MPI, PRRTE): OMPI_COMM_WORLD_*. It replaces what a srun around it, or its daemons' srun, had said.
 *   3. any other PMIx launcher.
 *   4. launchers that Open MPI cannot join, and srun without PMIx: their processes would be copies of one rank.
 *   5. by hand.
 * A world of one needs no MPI: it is bare, and stays right when its launcher has gone. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collectives/comm.h"

typedef const char *env_fn(const char *);

/* A number from the environment; −1 when absent or not one. */
static int env_number(env_fn *env, const char *name)
{
    const char *text = name ? env(name) : NULL;
    if (!text || *text < '0' || *text > '9') return -1;
    char *end;
    long n = strtol(text, &end, 10);
    return *end == 0 && n <= 1 << 24 ? (int)n : -1;
}

/* ---- launchers whose processes trimpot's MPI cannot join ---------------------------------------------------------- */

enum { NEVER = INT_MAX };

static const struct other {
    const char *with;        /* another variable that must be there */
    const char *size, *rank; /* variables: how many processes, the number of this one */
    int lone;                /* a rank from here on counts though no size is told: the variable is nobody else's */
    const char *who, *remedy, *unset;
    bool slurm; /* mpirun's daemons on other nodes are such tasks too */
} others[] = {
    {NULL, "FLUX_JOB_SIZE", "FLUX_TASK_RANK", 0, "flux run started", "`flux run -o pmi=pmix`", "${!FLUX_*} ${!PMI_*}"},
    {NULL, "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK", 0, "jsrun started", "Open MPI's mpirun", "${!JSM_*}"},
    {"PALS_RANKID", "PMI_SIZE", "PMI_RANK", 0, "Cray PALS started", "`mpiexec --pmi=pmix`", "${!PALS_*} ${!PMI_*}"},
    {NULL, NULL, "ALPS_APP_PE", 0, "aprun started", "Open MPI's mpirun", "${!ALPS_*}"},
    {NULL, "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", 0, "MVAPICH2's launcher started", "Open MPI's mpirun", "${!MV2_COMM_*} ${!PMI_*}"},
    {"MPI_LOCALNRANKS", "PMI_SIZE", "PMI_RANK", 0, "the mpirun of MPICH or Intel MPI started",
     "Open MPI's (`mpirun --version` names its MPI)", "${!PMI_*} ${!MPI_LOCAL*}"},
    {"SLURM_STEP_ID", "PMI_SIZE", "PMI_RANK", 0, "srun --mpi=pmi2 started", "`srun --mpi=pmix` (`srun --mpi=list` must show it) or mpirun",
     "${!PMI_*}", true},
    {NULL, "PMI_SIZE", "PMI_RANK", 0, "another MPI's launcher, or PMI-2, started", "`srun --mpi=pmix` or Open MPI's own mpirun",
     "${!PMI_*}"},
    {NULL, "MPI_LOCALNRANKS", "MPI_LOCALRANKID", 0, "the mpirun of MPICH or Intel MPI started",
     "Open MPI's (`mpirun --version` names its MPI)", "${!MPI_LOCAL*}"},
    {NULL, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", 1, "srun without PMIx started",
     "`srun --mpi=pmix` (`srun --mpi=list` must show it) or mpirun", "${!SLURM_STEP*} SLURM_PROCID", true},
    {NULL, "HOROVOD_SIZE", "HOROVOD_RANK", 0, "horovodrun started", "mpirun", "${!HOROVOD_*}"},
    {NULL, "WORLD_SIZE", "RANK", NEVER, "torchrun, accelerate, deepspeed or a pod's settings speak of", "mpirun or `srun --mpi=pmix`",
     "WORLD_SIZE RANK"},
};
enum { OTHERS = sizeof others / sizeof *others };

/* Steps that Slurm makes for itself (4294967290: the shell of salloc) have one process, whatever they count. */
static bool is_shell_step(env_fn *env)
{
    const char *step = env("SLURM_STEP_ID");
    return step && strtoull(step, NULL, 10) >= 0xFFFFFFF0;
}

static bool says_several(env_fn *env, const struct other *o)
{
    if ((o->with && !env(o->with)) || (o->slurm && is_shell_step(env))) return false;
    int size = env_number(env, o->size), rank = env_number(env, o->rank);
    return size > 0 ? size > 1 || rank > 0 : rank >= o->lone;
}

/* The first launcher that started several processes, or NULL. */
static const struct other *find_other(env_fn *env)
{
    for (int i = 0; i < OTHERS; i++)
        if (says_several(env, &others[i])) return &others[i];
    return NULL;
}

static status refuse_copies(env_fn *env, const struct other *o)
{
    char rank[80] = "", many[16] = "several";
    int size = env_number(env, o->size);
    if (size > 1) snprintf(many, sizeof many, "%d", size);
    if (o->size && env(o->size) && env(o->rank)) snprintf(rank, sizeof rank, ", %s='%.20s'", o->rank, env(o->rank));
    const char *first = o->size && env(o->size) ? o->size : o->rank;
    FAIL(ST_USAGE,
         "environment: %s='%.20s'%s: %s %s independent copies, which trimpot's MPI cannot join and which would all write the "
         "same output; start with %s. If it is one process and these variables are left over: `unset %s`, or --dist self",
         first, env(first), rank, o->who, many, o->remedy, o->unset);
}

/* ---- launchers that it can join ------------------------------------------------------------------------------------ */

#define CLEAN "`unset ${!OMPI_*} ${!PMIX_*}` (bash), or a new shell, or --dist self for one process"

static const char *shown(env_fn *env, const char *name) { return env(name) ? env(name) : ""; }

/* A world of one: nothing else may say that there are more. Where mpirun's daemons may be meant, MPI_Init tells. */
static status open_world(env_fn *env, struct launch *l)
{
    const struct other *o = l->expected_world == 1 ? find_other(env) : NULL;
    if (o && !o->slurm) return refuse_copies(env, o);
    l->mpi = l->expected_world != 1 || o;
    return ST_OK;
}

static status open_srun(env_fn *env, struct launch *l)
{
    bool several_jobs = env_number(env, "SLURM_HET_SIZE") > 1; /* the counts are those of a component */
    int world = several_jobs ? 0 : env_number(env, "SLURM_STEP_NUM_TASKS");
    *l = (struct launch){.expected_world = world > 0 ? world : 0,
                         .rank = env_number(env, "PMIX_RANK"),
                         .how = "srun --mpi=pmix",
                         .promise = "SLURM_STEP_NUM_TASKS"};
    if (l->rank < 0 || (l->expected_world && l->rank >= l->expected_world))
        FAIL(ST_USAGE,
             "environment: PMIX_RANK='%.20s' is no rank of SLURM_STEP_NUM_TASKS='%.20s': they are left over from two steps; " CLEAN,
             shown(env, "PMIX_RANK"), shown(env, "SLURM_STEP_NUM_TASKS"));
    return open_world(env, l);
}

/* Every mpirun since Open MPI 2 sets all four. */
static status open_mpirun(env_fn *env, struct launch *l)
{
    int size = env_number(env, "OMPI_COMM_WORLD_SIZE"), rank = env_number(env, "OMPI_COMM_WORLD_RANK");
    *l = (struct launch){.expected_world = size, .rank = rank, .how = "mpirun", .promise = "OMPI_COMM_WORLD_SIZE"};
    if (!env("OMPI_COMM_WORLD_SIZE") || !env("OMPI_COMM_WORLD_RANK")) {
        bool alone = env("OMPI_COMM_WORLD_SIZE") != NULL;
        FAIL(ST_USAGE, "environment: OMPI_COMM_WORLD_%s='%.20s', but OMPI_COMM_WORLD_%s is not set: left over from an mpirun; " CLEAN,
             alone ? "SIZE" : "RANK", env(alone ? "OMPI_COMM_WORLD_SIZE" : "OMPI_COMM_WORLD_RANK"), alone ? "RANK" : "SIZE");
    }
    if (size < 1 || rank < 0 || rank >= size)
        FAIL(ST_USAGE,
             "environment: OMPI_COMM_WORLD_SIZE='%.20s' and OMPI_COMM_WORLD_RANK='%.20s' are not a number of ranks and a rank "
             "below it; start with mpirun, or: " CLEAN,
             env("OMPI_COMM_WORLD_SIZE"), env("OMPI_COMM_WORLD_RANK"));
    if (size > 1 && !(env("PMIX_RANK") && env("PMIX_NAMESPACE")))
        FAIL(ST_USAGE,
             "environment: OMPI_COMM_WORLD_SIZE='%d' promises %d ranks, but %s is not set, as every mpirun does: left over from "
             "an mpirun; " CLEAN,
             size, size, env("PMIX_RANK") ? "PMIX_NAMESPACE" : "PMIX_RANK");
    return open_world(env, l);
}

static status open_pmix(env_fn *env, struct launch *l)
{
    *l = (struct launch){.mpi = true, .rank = env_number(env, "PMIX_RANK"), .how = "a PMIx launcher", .promise = "PMIX_RANK"};
    if (l->rank < 0 || !env("PMIX_NAMESPACE"))
        FAIL(ST_USAGE, "environment: PMIX_RANK='%.20s' with PMIX_NAMESPACE='%.60s' is no rank of a job: left over from a launcher; " CLEAN,
             shown(env, "PMIX_RANK"), shown(env, "PMIX_NAMESPACE"));
    return ST_OK;
}

static status open_bare(env_fn *env, struct launch *l)
{
    static _Thread_local char warning[200];
    const struct other *o = find_other(env);
    *l = (struct launch){.expected_world = 1, .rank = -1, .how = "bare", .promise = ""};
    if (o) return refuse_copies(env, o);
    int tasks = env("SLURM_JOB_ID") ? env_number(env, "SLURM_NTASKS") : 0;
    snprintf(warning, sizeof warning,
             "SLURM_NTASKS='%d': 1 process inside an allocation of %d tasks; to use them all: `mpirun trimpot …` "
             "or `srun --mpi=pmix trimpot …`",
             tasks, tasks);
    if (tasks > 1) l->warning = warning;
    return ST_OK;
}

static bool by_srun(env_fn *env) { return env("PMIX_RANK") && strncmp(shown(env, "PMIX_NAMESPACE"), "slurm.pmix.", 11) == 0; }
static bool by_mpirun(env_fn *env) { return env("OMPI_COMM_WORLD_SIZE") || env("OMPI_COMM_WORLD_RANK"); }

/* A program that called MPI_Init alone names itself rank 0 to its children, who are nobody's ranks. */
static bool by_pmix(env_fn *env)
{
    if (!env("PMIX_RANK") || strcmp(shown(env, "OMPI_MCA_ess"), "singleton") == 0) return false;
    return env("PMIX_NAMESPACE") || env_number(env, "PMIX_RANK") != 0;
}

static bool by_hand(env_fn *env) { return env != NULL; }

/* The first row that applies decides. */
static const struct {
    bool (*applies)(env_fn *env);
    status (*decide)(env_fn *env, struct launch *l);
} rows[] = {{by_srun, open_srun}, {by_mpirun, open_mpirun}, {by_pmix, open_pmix}, {by_hand, open_bare}};

/* Asked for: whatever the environment promises is checked after MPI_Init. */
static void open_asked(env_fn *env, struct launch *l)
{
    static const char *const promises[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"};
    *l = (struct launch){.mpi = true, .rank = -1, .how = "--dist mpi", .promise = by_srun(env) ? "SLURM_STEP_NUM_TASKS" : promises[0]};
    for (size_t i = 0; i < sizeof promises / sizeof *promises && !by_srun(env) && env_number(env, l->promise) < 1; i++)
        l->promise = promises[i];
    int world = env_number(env, l->promise);
    l->expected_world = world > 0 && env_number(env, "SLURM_HET_SIZE") <= 1 ? world : 0;
}

status launch_detect(const char *dist, env_fn *getenv_fn, struct launch *out)
{
    *out = (struct launch){.expected_world = 1, .rank = -1, .how = "--dist self", .promise = ""};
    if (dist && strcmp(dist, "self") == 0) return ST_OK;
    if (dist && strcmp(dist, "mpi") == 0) {
        open_asked(getenv_fn, out);
        return ST_OK;
    }
    if (dist) FAIL(ST_USAGE, "--dist '%s' is neither self nor mpi; leave it out to have the launcher detected", dist);
    size_t i = 0;
    while (!rows[i].applies(getenv_fn)) i++;
    return rows[i].decide(getenv_fn, out);
}
