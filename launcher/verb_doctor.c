/* trimpot doctor: what each process sees, what is wrong, what mends it. doctor.h has the way it goes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/philox.h"
#include "launcher/doctor.h"
#include "launcher/verbs.h"

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Every host writes and reads in the folder; rank 0 leaves a file that all must find in theirs. */
static status look_at_files(const struct cli *c, struct comm *comm, struct doctor_files *f)
{
    double seconds = (double)(c->timeout > 0 ? c->timeout : DOCTOR_SECONDS) / 4;
    uint64_t nonce = rng_mix((uint64_t)now_ns() ^ (uint64_t)getpid() << 40);
    bool left;
    TRY(comm->fn->bcast(comm, &nonce, sizeof nonce, 0));
    doctor_at(DOCTOR_FILES);
    doctor_files_look(c->output, nonce, comm->local_rank == 0, comm->rank == 0, seconds, f);
    left = f->left;
    doctor_at(DOCTOR_GATHER);
    TRY(comm->fn->bcast(comm, &left, sizeof left, 0));
    doctor_at(DOCTOR_FILES);
    if (left) doctor_files_find(nonce, seconds, f);
    doctor_at(DOCTOR_GATHER);
    status st = comm->fn->barrier(comm);
    if (comm->rank == 0) doctor_files_sweep(nonce, 1, f);
    return st;
}

/* All ranks read their clocks within a moment; a rank that was slow to leave the barrier gets another chance. */
static status gather(struct comm *comm, struct doctor_record *mine, struct doctor_record *all)
{
    enum { TRIES = 3, SLOW_NS = 500000000 };
    for (int i = 0; i < TRIES; i++) {
        int64_t first = INT64_MAX, last = 0;
        TRY(comm->fn->barrier(comm));
        mine->clock_ns = now_ns();
        TRY(comm->fn->all_gather(comm, mine, all, sizeof *mine));
        for (int r = 0; r < comm->size; r++) {
            if (all[r].clock_ns < first) first = all[r].clock_ns;
            if (all[r].clock_ns > last) last = all[r].clock_ns;
        }
        if (last - first < SLOW_NS) break;
    }
    return ST_OK;
}

static status print(const struct cli *c, const struct doctor_record *all, int size, int *code)
{
    char *scripts = mem_printf("%s/slurm", c->shipped_dir);
    struct doctor_world w;
    struct buf text = {0};
    int n = 0;
    doctor_world_init(&w, all, size, scripts);
    struct doctor_finding *f = doctor_judge(&w, &n);
    *code = doctor_code(f, n);
    if (all[0].failure_code && all[0].number > 0)
        doctor_lines(&w, f, n);
    else
        (c->json ? doctor_json : doctor_text)(&w, f, n, &text);
    if (text.len) fwrite(text.data, 1, text.len, stdout);
    buf_release(&text);
    doctor_spare(f, n);
    doctor_world_release(&w);
    free(scripts);
    if (fflush(stdout) != 0) FAIL(ST_IO, "standard output cannot be written; the report is incomplete");
    return ST_OK;
}

/* A peer was lost on the way: this rank alone remains to be told of. */
static status print_alone(const struct cli *c, struct doctor_record *mine, status st)
{
    int code;
    mine->failure_code = st;
    mine->number = mine->rank;
    snprintf(mine->failure, sizeof mine->failure, "%s", status_message());
    print(c, mine, 1, &code);
    doctor_reported();
    FAIL(st, "%s", mine->failure);
}

static status run_doctor(const struct cli *c, struct comm *comm)
{
    struct doctor_record *mine = doctor_mine(), *all = mem_alloc((size_t)comm->size * sizeof *all);
    int code = ST_OK;
    doctor_at(DOCTOR_GATHER);
    mine->rank = comm->rank;
    mine->size = comm->size;
    mine->local_rank = comm->local_rank;
    mine->local_size = comm->local_size;
    if (c->launch_failure) {
        mine->failure_code = c->launch_failure;
        snprintf(mine->failure, sizeof mine->failure, "%s", c->launch_message);
    }
    status st = look_at_files(c, comm, &mine->files);
    if (!st) st = gather(comm, mine, all);
    if (st) {
        free(all);
        return print_alone(c, mine, st);
    }
    if (comm->rank == 0) st = print(c, all, comm->size, &code);
    free(all);
    TRY(comm->fn->bcast(comm, &code, sizeof code, 0));
    doctor_reported();
    doctor_at(DOCTOR_END);
    if (!st && code) st = status_fail((status)code, "trimpot doctor found a fault; its report says what mends it");
    return comm_agree(comm, st);
}

const struct verb verb_doctor = {
    .name = "doctor",
    .line = "say what this launch, host and output folder look like, and what mends them",
    .arguments = "",
    .help = "Prints what every rank sees (launcher, cores, memory, limits, MPI, Slurm, the file system of --output), what is\n"
            "wrong with it, and the line that mends it. Start it exactly as the run is to be started. It ends by itself, also\n"
            "where MPI or a file system hangs. Exit code 0: nothing is wrong, or warnings only.\n"
            "\n"
            "examples:\n"
            "  trimpot doctor --output out\n"
            "  mpirun -n 8 trimpot doctor --output out\n"
            "  srun --mpi=pmix trimpot doctor --output out --json\n",
    .options = CLI_OUTPUT | CLI_JSON | CLI_TIMEOUT,
    .every_rank = true,
    .diagnoses = true,
    .guard = doctor_guard,
    .run = run_doctor,
};
