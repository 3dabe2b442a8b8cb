/* What is wrong, one row per kind, and which line mends it. A rule looks at one rank, beside all others; its words for
 * several ranks are merged where they are equal. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/doctor.h"

#define MB INT64_C(1000000)

static void quote_start(const struct doctor_world *w, enum doctor_script which, struct buf *fix)
{
    static const struct {
        const char *start, *otherwise;
    } lines[] = {
        [DOCTOR_SRUN] = {"srun ", "srun --mpi=pmix -K1 … trimpot run …"},
        [DOCTOR_MPIRUN] = {"mpirun ", "mpirun --map-by ppr:N:node:PE=K --bind-to core trimpot run …"},
    };
    doctor_quote(w, which, lines[which].start, "trimpot run", lines[which].otherwise, fix);
}

/* Both forms of starting all ranks of a job. */
static void quote_both(const struct doctor_world *w, struct buf *fix)
{
    quote_start(w, DOCTOR_SRUN, fix);
    buf_text(fix, "\nor ");
    quote_start(w, DOCTOR_MPIRUN, fix);
}

static bool by_mpirun(const struct doctor_record *r) { return strcmp(r->how, "mpirun") == 0; }
static bool in_step(const struct doctor_record *r) { return *r->step && !by_mpirun(r); }

/* ---- launch ----------------------------------------------------------------------------------------------------- */

static const char LOAD_MPI[] = "load the MPI module that trimpot was built with (ldd trimpot_mpi.so shows what is missing), or install it";

/* Every process that was started reports for itself when the launch failed: it cannot know the others. */
static bool launch_failed(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (!r->failure_code) return false;
    buf_text(what, r->failure);
    if (r->failure_code == ST_WATCHDOG) return true;
    if (r->failure_code == ST_NOT_BUILT) {
        buf_text(fix, LOAD_MPI);
        return true;
    }
    if (r->step_tasks > 1 && !by_mpirun(r))
        buf_printf(what, " (this report is of one of the %" PRId64 " copies, which know nothing of each other)", r->step_tasks);
    if (*r->job) {
        quote_both(w, fix);
    } else {
        buf_text(fix, "several ranks: mpirun -n N trimpot run …");
        char *name = mem_strdup(r->by);
        name[strcspn(name, "=")] = 0;
        if (*name) buf_printf(fix, "\none process, if the variables are left over in this shell: unset %s %s", name, r->others);
        free(name);
    }
    return true;
}

static bool alone_in_allocation(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (!*r->warning) return false;
    if (r->tasks > 1)
        buf_printf(what, "1 process inside an allocation of %" PRId64 " tasks (SLURM_NTASKS): the others have none", r->tasks);
    else
        buf_text(what, r->warning);
    quote_both(w, fix);
    return true;
}

static bool no_plugin(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (*r->mpi || r->failure_code) return false;
    buf_printf(what, "this build runs one process only: %s", r->mpi_refusal);
    buf_text(fix, LOAD_MPI);
    return true;
}

static bool short_of_time(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    int64_t left = w->of[rank].time_left_s;
    if (left < 0 || left >= 300) return false;
    buf_text(what, "the job ends within five minutes");
    doctor_quote(w, DOCTOR_SRUN, "#SBATCH", "--time", "#SBATCH --time=…", fix);
    return true;
}

/* ---- equal programs and processors ------------------------------------------------------------------------------ */

static bool other_binary(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (r->binary == w->of[0].binary) return false;
    buf_printf(what, "another program (hash %016" PRIx64 ") than rank 0 on %s (%016" PRIx64 "): they would not train the same model",
               r->binary, w->of[0].host, w->of[0].binary);
    buf_text(fix, "start one file that all hosts share, or copy it to the same path on each");
    return true;
}

static bool isa_missing(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (!r->isa_refusal) return false;
    buf_text(what, r->isa);
    buf_text(fix, "unset TRIMPOT_ISA, or leave this host out: #SBATCH --exclude=HOST, mpirun --host …");
    return true;
}

static bool other_isa(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank], *first = &w->of[0];
    if (r->isa_refusal || first->isa_refusal || strcmp(r->isa, first->isa) == 0) return false;
    buf_printf(what, "%s, but rank 0 on %s is %s: they would compute other bits", r->isa, first->host, first->isa);
    buf_text(fix, "one instruction set for all ranks: export TRIMPOT_ISA=avx2 before srun, or mpirun -x TRIMPOT_ISA=avx2; or hosts of one "
                  "kind: #SBATCH --constraint=…");
    return true;
}

static bool other_libc(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (strcmp(r->libc, w->of[0].libc) == 0) return false;
    buf_printf(what, "C library %s, but rank 0 on %s has %s: its mathematical functions differ in their last bits", r->libc, w->of[0].host,
               w->of[0].libc);
    buf_text(fix, "hosts with the same system, or one container image");
    return true;
}

/* ---- cores ------------------------------------------------------------------------------------------------------ */

/* Cores of the rank's host that this job may have: Slurm gives less than the machine has. */
static int64_t cores_to_have(const struct doctor_record *r)
{
    return *r->job && r->cpus_on_node > 0 && r->cpus_on_node < r->host_cores ? r->cpus_on_node : r->host_cores;
}

static void bind_wider(const struct doctor_world *w, const struct doctor_record *r, int64_t each, struct buf *fix)
{
    if (by_mpirun(r))
        buf_printf(fix, "mpirun --bind-to none …, or --map-by ppr:%d:node:PE=%" PRId64 " --bind-to core\n", r->local_size, each);
    if (by_mpirun(r) && *r->job)
        quote_start(w, DOCTOR_MPIRUN, fix);
    else if (in_step(r))
        quote_start(w, DOCTOR_SRUN, fix);
    else if (!by_mpirun(r))
        buf_text(fix, "start without taskset or numactl, or give it more cores");
}

static bool fewer_than_asked(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (!*r->job || r->cpus_per_task <= r->cores) return false;
    buf_printf(what,
               "%" PRId64 " core%s, but the job asked for %" PRId64 " per task (srun no longer takes --cpus-per-task from the "
               "job)",
               r->cores, r->cores == 1 ? "" : "s", r->cpus_per_task);
    quote_start(w, by_mpirun(r) ? DOCTOR_MPIRUN : DOCTOR_SRUN, fix);
    return true;
}

static bool idle_cores(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    const struct doctor_host *h = &w->hosts[w->host[rank]];
    int64_t have = cores_to_have(r);
    if (h->cores * 2 > have || r->failure_code) return false;
    buf_printf(what, "bound to %" PRId64 " core%s while %" PRId64 " of the %" PRId64 " of the host stay idle", r->cores,
               r->cores == 1 ? "" : "s", have - h->cores, have);
    bind_wider(w, r, have / h->ranks > 0 ? have / h->ranks : 1, fix);
    return true;
}

static bool crowded_cores(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    const struct doctor_host *h = &w->hosts[w->host[rank]];
    bool alone = r->threads > r->cores;
    if (!alone && h->threads <= h->cores) return false;
    int64_t each = h->cores / h->ranks;
    if (alone)
        buf_printf(what, "%" PRId64 " threads on %" PRId64 " core%s", r->threads, r->cores, r->cores == 1 ? "" : "s");
    else
        buf_printf(what, "%d ranks with %" PRId64 " threads in all share %" PRId64 " core%s", h->ranks, h->threads, h->cores,
                   h->cores == 1 ? "" : "s");
    if (each < 1)
        buf_printf(fix, "fewer ranks on each host: %" PRId64 " at most (mpirun --map-by ppr:%" PRId64 ":node, srun --ntasks-per-node)",
                   h->cores, h->cores);
    else
        buf_printf(fix, "export OMP_NUM_THREADS=%" PRId64 "%s, or %s", alone ? r->cores < each ? r->cores : each : each,
                   by_mpirun(r) ? " (mpirun -x OMP_NUM_THREADS)" : "",
                   in_step(r)     ? "srun --cpus-per-task=THREADS"
                   : by_mpirun(r) ? "fewer ranks on each host"
                                  : "unset it");
    return true;
}

static bool name_twice(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (w->hosts[w->host[rank]].ranks == r->local_size) return false;
    buf_printf(what, "%d ranks say they are on %s, but %d share its memory: hosts of one name, or containers",
               w->hosts[w->host[rank]].ranks, r->host, r->local_size);
    buf_text(fix, "give every host a name of its own: hostnamectl set-hostname NAME, docker run --hostname NAME");
    return true;
}

static bool uneven_ranks(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    int mine = w->hosts[w->host[rank]].ranks, first = w->hosts[0].ranks;
    if (mine == first) return false;
    buf_printf(what, "%d rank%s on this host, %d on %s", mine, mine == 1 ? "" : "s", first, w->of[0].host);
    buf_text(fix, "as many on each: mpirun --map-by ppr:N:node, srun --ntasks-per-node=N\n");
    doctor_quote(w, DOCTOR_SRUN, "#SBATCH", "--ntasks-per-node", "#SBATCH --ntasks-per-node=N", fix);
    return true;
}

static bool gpu_unused(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (r->gpus <= 0 || r->cuda) return false;
    buf_printf(what, "%" PRId64 " NVIDIA device%s here, but this version is built without CUDA", r->gpus, r->gpus == 1 ? "" : "s");
    buf_text(fix, "device=cpu trains on the processor; a job on CPU nodes does not hold the GPUs: leave #SBATCH --gpus… out");
    return true;
}

/* ---- memory and limits ------------------------------------------------------------------------------------------ */

static bool small_group(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (r->memory_limit < 0 || r->memory <= 0 || r->memory_limit > r->memory / 2) return false;
    buf_printf(what, "the control group gives %s of the machine's %s to all ranks of this host", text_bytes((double)r->memory_limit),
               text_bytes((double)r->memory));
    buf_text(fix, *r->job ? "all memory of the node: #SBATCH --mem=0" : "docker run --memory=…, systemd-run -p MemoryMax=…");
    return true;
}

static bool small_shm(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    enum { EACH_MB = 8 }; /* what Open MPI's shared memory takes per rank, with room */
    const struct doctor_record *r = &w->of[rank];
    if (w->size == 1 || r->local_size < 2 || r->shm_free < 0 || r->shm_free >= EACH_MB * MB * r->local_size) return false;
    buf_printf(what, "/dev/shm has %s free for %d ranks: MPI_Init or the first message may end with a bus error",
               text_bytes((double)r->shm_free), r->local_size);
    buf_text(fix, "docker run --shm-size=1g, mount -o remount,size=50% /dev/shm");
    return true;
}

static bool no_tmp(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (!r->tmp_refusal) return false;
    buf_printf(what, "%s cannot be written (%s): Open MPI keeps its session there", r->tmp, strerror(r->tmp_refusal));
    buf_text(fix, "export TMPDIR=/tmp, or another local folder that exists on every host");
    return true;
}

static bool few_files(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    int64_t need = 256 + 2 * (int64_t)w->size; /* model and checkpoint files; connections to the other ranks */
    if (r->nofile < 0 || r->nofile >= need) return false;
    buf_printf(what, "at most %" PRId64 " open files; %" PRId64 " are wanted for %d rank%s", r->nofile, need, w->size,
               w->size == 1 ? "" : "s");
    buf_printf(fix, "ulimit -n %" PRId64 " before the start%s", need < 4096 ? 4096 : need,
               *r->job ? " (in the batch script, before srun or mpirun)" : "");
    return true;
}

static bool small_stack(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (r->stack < 0 || r->stack >= 1024 * 1024) return false;
    buf_printf(what, "a stack of %" PRId64 " kB", r->stack / 1024);
    buf_text(fix, "ulimit -s 8192 before the start");
    return true;
}

static bool limited_address_space(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (r->address_space < 0) return false;
    buf_printf(what, "an address space of %s: model files are mapped into it whole, beside all buffers",
               text_bytes((double)r->address_space));
    buf_text(fix, "ulimit -v unlimited before the start");
    return true;
}

static bool limited_files(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (r->file_size < 0) return false;
    buf_printf(what, "files of at most %s: a larger checkpoint is not saved", text_bytes((double)r->file_size));
    buf_text(fix, "ulimit -f unlimited before the start");
    return true;
}

static bool locked_memory(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_record *r = &w->of[rank];
    if (!r->infiniband || r->memlock < 0 || r->memlock >= 64 * MB) return false;
    buf_printf(what, "at most %s of locked memory: MPI falls back from InfiniBand to TCP", text_bytes((double)r->memlock));
    buf_text(fix, "ulimit -l unlimited before the start; for Slurm in slurm.conf: PropagateResourceLimitsExcept=MEMLOCK");
    return true;
}

static bool wrong_clock(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    double skew = (double)(w->of[rank].clock_ns - w->of[0].clock_ns) / 1e9;
    if (skew > -1 && skew < 1) return false;
    buf_printf(what, "its clock is %.0f s %s that of rank 0 on %s: logs and file times mislead", skew < 0 ? -skew : skew,
               skew < 0 ? "behind" : "ahead of", w->of[0].host);
    buf_text(fix, "start a time service on every host: chronyc tracking, timedatectl set-ntp true");
    return true;
}

/* ---- output folder ---------------------------------------------------------------------------------------------- */

static bool folder_silent(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_files *f = &w->of[rank].files;
    if (!f->asked || f->answered) return false;
    buf_printf(what, "--output %s: the file system does not answer", f->path);
    buf_text(fix, "look at the mount on that host (mount, dmesg), or leave the host out: #SBATCH --exclude=HOST");
    return true;
}

static bool folder_refused(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    static const struct {
        int error;
        const char *fix;
    } fixes[] = {
        {ENOSPC, "make room there, or choose another --output"},
        {EDQUOT, "make room in your quota there, or choose another --output"},
        {EROFS, "choose an --output on a file system that is mounted for writing"},
        {ENOTDIR, "a file stands where the folder should be: choose another --output"},
        {EACCES, "choose an --output of your own, or have it given to you: chown, chmod u+wx"},
    };
    const struct doctor_files *f = &w->of[rank].files;
    if (!f->asked || !f->answered || !f->refusal) return false;
    buf_printf(what, "--output %s: %s%s%s", f->path, *f->looked ? f->looked : f->path, f->tried ? " cannot be written: " : ": ",
               strerror(f->refusal));
    const char *text = "choose another --output";
    for (size_t i = 0; i < sizeof fixes / sizeof *fixes; i++)
        if (fixes[i].error == f->refusal) text = fixes[i].fix;
    buf_text(fix, text);
    return true;
}

static bool usable(const struct doctor_files *f) { return f->asked && f->answered && !f->refusal; }

static bool folder_not_shared(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_files *f = &w->of[rank].files;
    if (!usable(f) || !w->of[0].files.left || f->found) return false;
    buf_printf(what, "--output %s is not the folder that rank 0 sees on %s (here: %s from %s)", f->path, w->of[0].host, f->type, f->source);
    buf_text(fix, "an --output on a file system that all hosts share (NFS, Lustre, …), given as an absolute path");
    return true;
}

static bool folder_full(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_files *f = &w->of[rank].files;
    if (!usable(f) || f->free_bytes < 0 || f->free_bytes >= 1000 * MB) return false;
    buf_printf(what, "--output %s: less than 1 GB free", f->path);
    buf_text(fix, "two checkpoints and the export must fit: make room there, or choose another --output");
    return true;
}

static bool folder_in_memory(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_files *f = &w->of[rank].files;
    if (!usable(f) || (strcmp(f->type, "tmpfs") != 0 && strcmp(f->type, "ramfs") != 0)) return false;
    buf_printf(what, "--output %s lies in memory (%s): it takes from the training's and is gone with the host", f->path, f->type);
    buf_text(fix, "an --output on a disk");
    return true;
}

static bool no_hard_links(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_files *f = &w->of[rank].files;
    if (!usable(f) || !f->tried || !f->link_refusal) return false;
    buf_printf(what,
               "--output %s: no hard links there (%s): of two runs that start on it at once, both may take it on old network "
               "file systems",
               f->path, strerror(f->link_refusal));
    buf_text(fix, "an --output on another file system, or one run at a time");
    return true;
}

static bool folder_taken(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix)
{
    const struct doctor_files *f = &w->of[rank].files;
    enum { FRESH_S = 60 }; /* a living holder writes every few seconds */
    if (!usable(f) || !f->locked || rank != 0) return false;
    bool fresh = f->lock_age_s < FRESH_S;
    buf_printf(what, "--output %s: run.lock is held by %s; %s", f->path, f->lock,
               fresh ? "that run lives, a second one is refused" : "that run has not been heard of for a minute, the next one takes over");
    if (fresh) buf_text(fix, "wait for that run, stop it (scancel, kill), or choose another --output");
    return true;
}

/* ---- all of them ------------------------------------------------------------------------------------------------ */

typedef bool rule_fn(const struct doctor_world *w, int rank, struct buf *what, struct buf *fix);

enum { AS_RECORDED = -1 }; /* the code is the record's */

static const struct rule {
    const char *name;
    rule_fn *finds;
    enum doctor_weight weight;
    int code;
} rules[] = {
    {"launch", launch_failed, DOCTOR_FAULT, AS_RECORDED},
    {"isa", isa_missing, DOCTOR_FAULT, ST_DEVICE},
    {"binary", other_binary, DOCTOR_FAULT, ST_CONFIG_RUNTIME},
    {"other-isa", other_isa, DOCTOR_FAULT, ST_CONFIG_RUNTIME},
    {"libc", other_libc, DOCTOR_FAULT, ST_CONFIG_RUNTIME},
    {"folder-silent", folder_silent, DOCTOR_FAULT, ST_IO},
    {"folder", folder_refused, DOCTOR_FAULT, ST_IO},
    {"not-shared", folder_not_shared, DOCTOR_FAULT, ST_USAGE},
    {"tmp", no_tmp, DOCTOR_FAULT, ST_IO},
    {"allocation", alone_in_allocation, DOCTOR_WARNING, ST_OK},
    {"cpus-per-task", fewer_than_asked, DOCTOR_WARNING, ST_OK},
    {"idle-cores", idle_cores, DOCTOR_WARNING, ST_OK},
    {"crowded-cores", crowded_cores, DOCTOR_WARNING, ST_OK},
    {"host-name", name_twice, DOCTOR_WARNING, ST_OK},
    {"clock", wrong_clock, DOCTOR_WARNING, ST_OK},
    {"lock", folder_taken, DOCTOR_WARNING, ST_OK},
    {"full", folder_full, DOCTOR_WARNING, ST_OK},
    {"in-memory", folder_in_memory, DOCTOR_WARNING, ST_OK},
    {"hard-links", no_hard_links, DOCTOR_REMARK, ST_OK},
    {"memory", small_group, DOCTOR_WARNING, ST_OK},
    {"shm", small_shm, DOCTOR_WARNING, ST_OK},
    {"nofile", few_files, DOCTOR_WARNING, ST_OK},
    {"stack", small_stack, DOCTOR_WARNING, ST_OK},
    {"address-space", limited_address_space, DOCTOR_WARNING, ST_OK},
    {"file-size", limited_files, DOCTOR_WARNING, ST_OK},
    {"memlock", locked_memory, DOCTOR_WARNING, ST_OK},
    {"time", short_of_time, DOCTOR_WARNING, ST_OK},
    {"uneven", uneven_ranks, DOCTOR_REMARK, ST_OK},
    {"gpu", gpu_unused, DOCTOR_REMARK, ST_OK},
    {"mpi", no_plugin, DOCTOR_REMARK, ST_OK},
};

static bool same_words(const struct doctor_finding *f, const struct buf *what, const struct buf *fix)
{
    return strcmp(f->what.data, what->data) == 0 && strcmp(f->fix.data, fix->data) == 0;
}

/* Findings [from, *n) are the rule's own. */
static void judge_one(const struct doctor_world *w, const struct rule *rule, struct doctor_finding **all, int *n)
{
    int from = *n;
    for (int r = 0; r < w->size; r++) {
        struct buf what = {0}, fix = {0};
        buf_text(&what, "");
        buf_text(&fix, "");
        bool finds = rule->finds(w, r, &what, &fix);
        int k = from;
        while (finds && k < *n && !same_words(&(*all)[k], &what, &fix)) k++;
        if (finds && k == *n) {
            *all = mem_grow(*all, (size_t)++ * n * sizeof **all);
            (*all)[k] = (struct doctor_finding){.name = rule->name,
                                                .weight = rule->weight,
                                                .what = what,
                                                .fix = fix,
                                                .code = rule->code == AS_RECORDED ? (status)w->of[r].failure_code : (status)rule->code,
                                                .ranks = mem_alloc((size_t)w->size * sizeof(int))};
            what = fix = (struct buf){0};
        }
        if (finds) (*all)[k].ranks[(*all)[k].n_ranks++] = r;
        buf_release(&what);
        buf_release(&fix);
    }
}

struct doctor_finding *doctor_judge(const struct doctor_world *w, int *n)
{
    struct doctor_finding *all = NULL;
    *n = 0;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) judge_one(w, &rules[i], &all, n);
    return all;
}

void doctor_spare(struct doctor_finding *f, int n)
{
    for (int i = 0; i < n; i++) {
        free(f[i].ranks);
        buf_release(&f[i].what);
        buf_release(&f[i].fix);
    }
    free(f);
}

status doctor_code(const struct doctor_finding *f, int n)
{
    for (int i = 0; i < n; i++)
        if (f[i].weight == DOCTOR_FAULT) return f[i].code;
    return ST_OK;
}
