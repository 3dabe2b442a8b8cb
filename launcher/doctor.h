/* doctor.h — what each process sees of its launch, its host and the output folder; what is wrong with it; what mends it.
 *
 *      started process ──fork──▶ this one goes on
 *        waits; at the deadline    probe    doctor_probe.c   into memory that both see
 *        it reports what there     open     comm_open: MPI_Init may hang, or end the process: the first one remains
 *        is (doctor_guard.c)       files    doctor_files.c   on a thread with a limit of its own
 *                                  gather   the records of all ranks (verb_doctor.c)
 *                                  judge    doctor_rules.c   one row per finding
 *                                  print    doctor_print.c   one table for all ranks, or JSON
 *
 * A record is plain bytes, so that it can be shared and gathered. Numbers that are not known are −1, limits that are not
 * set too; a text that is not known is "". */
#ifndef TRIMPOT_DOCTOR_H
#define TRIMPOT_DOCTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/text.h"
#include "launcher/cli.h"

enum { DOCTOR_CPUS = 1024, DOCTOR_SECONDS = 20 };

/* Where the process is; the guard names it, with likely causes, when it stays there (doctor_guard.c). */
enum doctor_stage { DOCTOR_PROBE, DOCTOR_OPEN, DOCTOR_GATHER, DOCTOR_FILES, DOCTOR_END, DOCTOR_STAGES };

struct doctor_files {
    bool asked, answered; /* --output was given; the file system answered in time */
    bool exists, tried;   /* tried: this rank wrote there (one rank of each host does) */
    int refusal;          /* errno of looking, or of writing: 0 = fine */
    int link_refusal;     /* errno of a hard link */
    bool left, found;     /* rank 0 left a file for the others; this rank sees it */
    bool locked;
    int64_t lock_age_s;
    char path[256];   /* as given */
    char looked[256]; /* it, or the nearest folder above it that exists */
    char type[32], mount[128], source[128];
    int64_t bytes, free_bytes;
    char lock[160]; /* who holds run.lock, in its own words */
};

struct doctor_record {
    /* launch */
    char how[32], by[96]; /* "mpirun", "OMPI_COMM_WORLD_SIZE=4" */
    char others[160];     /* other launchers' variables that are set */
    char warning[200];    /* launch_detect's */
    char failure[480];    /* of launch_detect or comm_open, or what the guard saw */
    int failure_code;
    int rank, size, local_rank, local_size;
    int number; /* this process's rank or task by the environment alone; −1 = it says none */
    char mpi[128], mpi_refusal[256];
    char pmix[64]; /* namespace */
    char job[24], step[24], partition[32];
    int64_t tasks, step_tasks, cpus_per_task, cpus_on_node, time_left_s;
    /* host */
    char host[64], boot[40];
    int64_t cores, host_cores, threads; /* affinity mask, machine, OpenMP */
    uint64_t mask[DOCTOR_CPUS / 64];
    char omp[16];    /* OMP_NUM_THREADS */
    char isa[96];    /* what computes, or why nothing does */
    int isa_refusal; /* status */
    uint64_t binary; /* hash of the program */
    char libc[16];
    int64_t gpus;         /* NVIDIA devices visible here */
    int64_t cuda;         /* 1: this version is built for them */
    char gpus_chosen[64]; /* CUDA_VISIBLE_DEVICES */
    bool infiniband;
    int64_t memory, memory_free, memory_limit; /* limit: of the control group */
    int64_t shm, shm_free;
    char tmp[128]; /* TMPDIR */
    int tmp_refusal;
    int64_t nofile, memlock, stack, address_space, file_size, core;
    int64_t clock_ns; /* at one moment of all ranks */
    struct doctor_files files;
};

/* ---- doctor_guard.c --------------------------------------------------------------------------------------------- */

/* A verb's guard. The other process's record is *doctor_mine(); it says with doctor_at where it is. */
bool doctor_guard(const struct cli *c, int *code);
struct doctor_record *doctor_mine(void);
void doctor_at(enum doctor_stage stage);
void doctor_reported(void); /* the report is out: the guard adds only what happens from here on */

/* ---- doctor_probe.c --------------------------------------------------------------------------------------------- */

void doctor_probe(const struct cli *c, struct doctor_record *r);

/* ---- doctor_files.c --------------------------------------------------------------------------------------------- */

/* Looks at the folder for at most `seconds`. nonce: names the files it writes; leave: one stays, for doctor_files_find. */
void doctor_files_look(const char *path, uint64_t nonce, bool write, bool leave, double seconds, struct doctor_files *out);
void doctor_files_find(uint64_t nonce, double seconds, struct doctor_files *f);
void doctor_files_sweep(uint64_t nonce, double seconds, const struct doctor_files *f); /* removes what was left */

/* ---- doctor_world.c --------------------------------------------------------------------------------------------- */

/* Ranks of one host, by host name and boot id. */
struct doctor_host {
    int first, ranks;
    int64_t cores, threads;
}; /* cores: of all its ranks' masks together */

struct doctor_world {
    const struct doctor_record *of; /* by rank */
    int size;
    const char *scripts; /* folder of the batch scripts whose lines are quoted */
    struct doctor_host *hosts;
    int *host; /* of rank r: hosts[host[r]] */
    int n_hosts;
};

void doctor_world_init(struct doctor_world *w, const struct doctor_record *records, int size, const char *scripts);
void doctor_world_release(struct doctor_world *w);

/* "line 31 of slurm/srun.sbatch (trimpot cp slurm/srun.sbatch FILE): srun --mpi=pmix …": the script's first line that begins
 * with `start` and has `word`, as it stands there; `otherwise` where there is none. */
enum doctor_script { DOCTOR_SRUN, DOCTOR_MPIRUN };
void doctor_quote(const struct doctor_world *w, enum doctor_script which, const char *start, const char *word, const char *otherwise,
                  struct buf *fix);

/* ---- doctor_rules.c --------------------------------------------------------------------------------------------- */

enum doctor_weight { DOCTOR_REMARK, DOCTOR_WARNING, DOCTOR_FAULT };

struct doctor_finding {
    const char *name;
    enum doctor_weight weight;
    status code;          /* of a fault */
    int *ranks, n_ranks;  /* ascending */
    struct buf what, fix; /* fix may be empty */
};

/* Everything that is wrong, in the order of the rules; equal words of several ranks are one finding. Free with doctor_spare. */
struct doctor_finding *doctor_judge(const struct doctor_world *w, int *n);
void doctor_spare(struct doctor_finding *f, int n);
status doctor_code(const struct doctor_finding *f, int n); /* of the first fault; ST_OK without one */

/* ---- doctor_print.c --------------------------------------------------------------------------------------------- */

void doctor_ranges(const int *ascending, int n, struct buf *out); /* "0-3,7" */
void doctor_text(const struct doctor_world *w, const struct doctor_finding *f, int n, struct buf *out);
void doctor_json(const struct doctor_world *w, const struct doctor_finding *f, int n, struct buf *out);
/* The findings of one process that is not the first, a line each, to stderr. */
void doctor_lines(const struct doctor_world *w, const struct doctor_finding *f, int n);

#endif
