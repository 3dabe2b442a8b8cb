/* What can be seen without asking another process or another machine's disk. */
#include <dirent.h>
#include <errno.h>
#include <gnu/libc-version.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "kernels/backend.h"
#include "kernels/base/file.h"
#include "launcher/doctor.h"

#define COPY(to, text) copy((to), sizeof(to), (text))

static void copy(char *to, size_t bytes, const char *text) { snprintf(to, bytes, "%s", text ? text : ""); }

static int64_t number(const char *text)
{
    char *end;
    long long n = text ? strtoll(text, &end, 10) : -1;
    return text && end != text && n >= 0 ? (int64_t)n : -1;
}

static int64_t env_number(const char *name) { return number(getenv(name)); }

/* First line of a small file, without its end; "" where there is none. */
static const char *line_of(const char *path, char *line, int bytes)
{
    FILE *f = fopen(path, "re");
    if (!f || !fgets(line, bytes, f)) *line = 0;
    if (f) fclose(f);
    line[strcspn(line, "\n")] = 0;
    return line;
}

/* ---- launch ----------------------------------------------------------------------------------------------------- */

/* Launchers' variables in the order in which they decide. */
static const char *const launchers[] = {
    "OMPI_COMM_WORLD_SIZE", "PMIX_NAMESPACE",       "PMIX_RANK",           "PMI_RANK",   "PMI_SIZE", "PMI_ID", "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_RANK",  "SLURM_STEP_NUM_TASKS", "TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK",
};

/* A process's number among its siblings; SLURM_PROCID is 0 in every rank that mpirun starts, so it comes last. */
static const char *const numbers[] = {
    "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "PMI_ID", "MV2_COMM_WORLD_RANK", "RANK", "SLURM_PROCID",
};

static const char *environment(const char *name) { return getenv(name); }

static void probe_launch(const char *dist, struct doctor_record *r)
{
    struct launch l;
    size_t used = 0;
    if (launch_detect(dist, environment, &l) == ST_OK) {
        COPY(r->how, l.how);
        COPY(r->warning, l.warning);
        const char *value = l.promise && *l.promise ? getenv(l.promise) : NULL;
        if (value) snprintf(r->by, sizeof r->by, "%s=%s", l.promise, value);
    }
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        const char *value = getenv(launchers[i]);
        size_t n = strlen(launchers[i]);
        if (!value || (strncmp(r->by, launchers[i], n) == 0 && r->by[n] == '=')) continue;
        if (!*r->by)
            snprintf(r->by, sizeof r->by, "%s=%s", launchers[i], value);
        else if (used + n + 2 < sizeof r->others)
            used += (size_t)snprintf(r->others + used, sizeof r->others - used, "%s%s", used ? " " : "", launchers[i]);
    }
    r->number = -1;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && r->number < 0; i++) r->number = (int)env_number(numbers[i]);
    COPY(r->pmix, getenv("PMIX_NAMESPACE"));
}

static void probe_slurm(struct doctor_record *r)
{
    int64_t end = env_number("SLURM_JOB_END_TIME");
    COPY(r->job, getenv("SLURM_JOB_ID"));
    COPY(r->step, getenv("SLURM_STEP_ID"));
    COPY(r->partition, getenv("SLURM_JOB_PARTITION"));
    r->tasks = env_number("SLURM_NTASKS");
    r->step_tasks = env_number("SLURM_STEP_NUM_TASKS");
    r->cpus_per_task = env_number("SLURM_CPUS_PER_TASK");
    r->cpus_on_node = env_number("SLURM_CPUS_ON_NODE");
    r->time_left_s = end < 0 ? -1 : end > (int64_t)time(NULL) ? end - (int64_t)time(NULL) : 0;
}

static void probe_mpi(const char *program_dir, struct doctor_record *r)
{
    char words[512] = "";
    if (comm_library(program_dir, words, sizeof words)) COPY(r->mpi_refusal, status_message());
    words[strcspn(words, ",\n")] = 0;
    COPY(r->mpi, words);
}

/* ---- host ------------------------------------------------------------------------------------------------------- */

static void probe_cores(struct doctor_record *r)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (int i = 0; i < DOCTOR_CPUS && i < CPU_SETSIZE; i++)
            if (CPU_ISSET(i, &set)) {
                r->mask[i / 64] |= UINT64_C(1) << i % 64;
                r->cores++;
            }
    r->host_cores = sysconf(_SC_NPROCESSORS_ONLN);
    r->threads = omp_get_max_threads();
    COPY(r->omp, getenv("OMP_NUM_THREADS"));
}

static void probe_host(struct doctor_record *r)
{
    gethostname(r->host, sizeof r->host - 1);
    line_of("/proc/sys/kernel/random/boot_id", r->boot, sizeof r->boot);
    COPY(r->isa, backend_cpu.describe());
    COPY(r->libc, gnu_get_libc_version());
    struct stream *s = NULL;
    r->isa_refusal = backend_cpu.dev.stream_open(&s, 1);
    if (s) backend_cpu.dev.stream_close(s);
    struct file_map program;
    if (file_map_open(&program, "/proc/self/exe") == ST_OK) {
        r->binary = XXH3_64bits(program.data, program.bytes);
        file_map_close(&program);
    }
}

static int count_entries(const char *dir, const char *prefix)
{
    DIR *d = opendir(dir);
    int n = 0;
    size_t length = strlen(prefix);
    for (struct dirent *e; d && (e = readdir(d));)
        n += *prefix ? strncmp(e->d_name, prefix, length) == 0 && number(e->d_name + length) >= 0 : *e->d_name != '.';
    if (d) closedir(d);
    return n;
}

static void probe_devices(struct doctor_record *r)
{
    r->gpus = count_entries("/dev", "nvidia");
    r->cuda = backend_built("cuda");
    COPY(r->gpus_chosen, getenv("CUDA_VISIBLE_DEVICES"));
    r->infiniband = count_entries("/sys/class/infiniband", "") > 0;
}

/* ---- memory and limits ------------------------------------------------------------------------------------------ */

/* The least limit from this process's control group up to the root; both layouts of the hierarchy. */
static int64_t group_limit(void)
{
    static const struct {
        const char *mark, *root, *file;
    } kinds[] = {
        {"0::", "/sys/fs/cgroup", "memory.max"},
        {":memory:", "/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
    };
    char line[512], text[64];
    int64_t least = -1;
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f))
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            char *group = strstr(line, kinds[k].mark);
            if (!group) continue;
            group += strlen(kinds[k].mark);
            group[strcspn(group, "\n")] = 0;
            for (bool more = true; more;) {
                char *path = mem_printf("%s%s/%s", kinds[k].root, group, kinds[k].file);
                int64_t limit = number(line_of(path, text, sizeof text));
                if (limit >= 0 && limit < INT64_C(1) << 60 && (least < 0 || limit < least)) least = limit;
                free(path);
                char *slash = strrchr(group, '/');
                more = slash != NULL;
                if (slash) *slash = 0;
            }
        }
    if (f) fclose(f);
    return least;
}

static void probe_memory(struct doctor_record *r)
{
    size_t free_bytes = 0, bytes = 0;
    struct statvfs shm;
    r->memory = r->memory_free = r->shm = r->shm_free = -1;
    if (backend_cpu.dev.mem_info(MEM_HOST, &free_bytes, &bytes) == ST_OK) {
        r->memory = (int64_t)bytes;
        r->memory_free = (int64_t)free_bytes;
    }
    r->memory_limit = group_limit();
    if (statvfs("/dev/shm", &shm) == 0) {
        r->shm = (int64_t)(shm.f_blocks * shm.f_frsize);
        r->shm_free = (int64_t)(shm.f_bavail * shm.f_frsize);
    }
    const char *tmp = getenv("TMPDIR");
    COPY(r->tmp, tmp && *tmp ? tmp : "/tmp");
    r->tmp_refusal = access(r->tmp, W_OK | X_OK) == 0 ? 0 : errno;
}

static void probe_limits(struct doctor_record *r)
{
    const struct {
        int which;
        int64_t *to;
    } limits[] = {
        {RLIMIT_NOFILE, &r->nofile},    {RLIMIT_MEMLOCK, &r->memlock}, {RLIMIT_STACK, &r->stack},
        {RLIMIT_AS, &r->address_space}, {RLIMIT_FSIZE, &r->file_size}, {RLIMIT_CORE, &r->core},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit l;
        bool set = getrlimit((__rlimit_resource_t)limits[i].which, &l) == 0 && l.rlim_cur != RLIM_INFINITY;
        *limits[i].to = set ? (int64_t)l.rlim_cur : -1;
    }
}

void doctor_probe(const struct cli *c, struct doctor_record *r)
{
    *r = (struct doctor_record){.size = 1, .local_size = 1};
    COPY(r->files.path, c->output); /* looked at later: doctor_files.c */
    probe_launch(c->dist, r);
    probe_slurm(r);
    probe_cores(r);
    probe_host(r);
    probe_devices(r);
    probe_memory(r);
    probe_limits(r);
    probe_mpi(c->program_dir, r);
}
