/* trimpot doctor's pure parts: every finding from an invented world, and no other; folding; the quoted lines. */
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "kernels/base/file.h"
#include "launcher/doctor.h"

enum { HOSTS = 2, EACH = 4, RANKS = HOSTS * EACH };

static struct doctor_record world[RANKS];

static void set_mask(struct doctor_record *r, int first, int n)
{
    memset(r->mask, 0, sizeof r->mask);
    for (int i = first; i < first + n; i++) r->mask[i / 64] |= UINT64_C(1) << i % 64;
    r->cores = n;
}

/* Two hosts of 16 cores, four ranks bound to four cores each, in a Slurm job by mpirun, and nothing wrong. */
static void healthy(void)
{
    for (int i = 0; i < RANKS; i++) {
        world[i] = (struct doctor_record){
            .how = "mpirun",
            .by = "OMPI_COMM_WORLD_SIZE=8",
            .rank = i,
            .size = RANKS,
            .local_rank = i % EACH,
            .local_size = EACH,
            .number = i,
            .mpi = "Open MPI v4.1.4",
            .tasks = -1,
            .step_tasks = -1,
            .cpus_per_task = -1,
            .cpus_on_node = -1,
            .time_left_s = -1,
            .host_cores = 16,
            .threads = 4,
            .isa = "cpu: AVX-512",
            .binary = 7,
            .libc = "2.36",
            .memory = INT64_C(64000000000),
            .memory_free = INT64_C(60000000000),
            .memory_limit = -1,
            .shm = INT64_C(32000000000),
            .shm_free = INT64_C(32000000000),
            .tmp = "/tmp",
            .nofile = 1024,
            .memlock = -1,
            .stack = 8 << 20,
            .address_space = -1,
            .file_size = -1,
            .core = 0,
            .files = {.asked = true,
                      .answered = true,
                      .exists = true,
                      .tried = i % EACH == 0,
                      .left = i == 0,
                      .found = true,
                      .path = "out",
                      .looked = "out",
                      .type = "nfs4",
                      .mount = "/data",
                      .source = "nas:/data",
                      .bytes = 1 << 30,
                      .free_bytes = INT64_C(500000000000)},
        };
        snprintf(world[i].host, sizeof world[i].host, "node%d", i / EACH);
        set_mask(&world[i], i % EACH * 4, 4);
    }
}

/* ---- one thing wrong with ranks [first, first + n) -------------------------------------------------------------- */

#define WRONG(name, ...)                                                                                                                   \
    static void name(struct doctor_record *r) { __VA_ARGS__; }
WRONG(launch, r->failure_code = ST_NOT_BUILT; strcpy(r->failure, "no plugin"))
WRONG(no_isa, r->isa_refusal = ST_DEVICE; strcpy(r->isa, "the CPU backend needs AVX2"))
WRONG(binary, r->binary = 8)
WRONG(silent, r->files.answered = false)
WRONG(read_only, r->files.refusal = EROFS; r->files.tried = true)
WRONG(not_shared, r->files.found = false)
WRONG(no_tmp, r->tmp_refusal = EACCES)
WRONG(allocation, strcpy(r->warning, "1 process in an allocation"); strcpy(r->job, "9"); r->tasks = 8)
WRONG(isa, strcpy(r->isa, "cpu: AVX2"))
WRONG(libc, strcpy(r->libc, "2.31"))
WRONG(per_task, strcpy(r->job, "9"); r->cpus_per_task = 8)
WRONG(bound, set_mask(r, 0, 4))
WRONG(bound_in_slurm, strcpy(r->job, "9"); r->cpus_on_node = 4; set_mask(r, 0, 4); r->threads = 1)
WRONG(crowded, r->threads = 16)
WRONG(names, r->local_size = EACH / 2)
WRONG(skew, r->clock_ns = INT64_C(-3000000000))
WRONG(locked, r->files.locked = true; strcpy(r->files.lock, "process 4 on node7"))
WRONG(old_lock, r->files.locked = true; r->files.lock_age_s = 3600; strcpy(r->files.lock, "process 4 on node7"))
WRONG(full, r->files.free_bytes = 1 << 20)
WRONG(in_memory, strcpy(r->files.type, "tmpfs"))
WRONG(no_links, r->files.tried = true; r->files.link_refusal = EPERM)
WRONG(group, r->memory_limit = INT64_C(4000000000))
WRONG(shm, r->shm_free = 1 << 24)
WRONG(nofile, r->nofile = 256)
WRONG(stack, r->stack = 64 << 10)
WRONG(address_space, r->address_space = INT64_C(8000000000))
WRONG(file_size, r->file_size = 1 << 20)
WRONG(memlock, r->infiniband = true; r->memlock = 64 << 10)
WRONG(soon, strcpy(r->job, "9"); r->time_left_s = 100)
WRONG(gpu, r->gpus = 8)
WRONG(no_mpi, *r->mpi = 0; strcpy(r->mpi_refusal, "libmpi.so.40: not found"))

static const struct row {
    void (*wrong)(struct doctor_record *r);
    int first, n;
    const char *name, *who, *what; /* the only finding, its ranks, part of its words */
    status code;
    const char *fix;
} rows[] = {
    {launch, 2, 1, "launch", "2", "no plugin", ST_NOT_BUILT, "trimpot_mpi.so"},
    {no_isa, 4, 4, "isa", "4-7", "needs AVX2", ST_DEVICE, "--exclude"},
    {binary, 4, 4, "binary", "4-7", "0000000000000008) than rank 0 on node0", ST_CONFIG_RUNTIME, "share"},
    {silent, 4, 4, "folder-silent", "4-7", "does not answer", ST_IO, "dmesg"},
    {read_only, 4, 1, "folder", "4", "out cannot be written: Read-only", ST_IO, "mounted for writing"},
    {not_shared, 4, 4, "not-shared", "4-7", "not the folder that rank 0 sees on node0 (here: nfs4 from nas:/data)", ST_USAGE, "NFS"},
    {no_tmp, 0, 8, "tmp", "0-7", "/tmp cannot be written", ST_IO, "TMPDIR"},
    {allocation, 0, 1, "allocation", "0", "1 process inside an allocation of 8 tasks", ST_OK, "slurm/srun.sbatch"},
    {isa, 5, 2, "other-isa", "5-6", "cpu: AVX2, but rank 0 on node0 is cpu: AVX-512", ST_CONFIG_RUNTIME, "TRIMPOT_ISA=avx2"},
    {libc, 4, 4, "libc", "4-7", "C library 2.31, but rank 0 on node0 has 2.36", ST_CONFIG_RUNTIME, "container image"},
    {per_task, 3, 1, "cpus-per-task", "3", "4 cores, but the job asked for 8", ST_OK, "slurm/mpirun.sbatch"},
    {skew, 4, 4, "clock", "4-7", "3 s behind that of rank 0", ST_OK, "chronyc"},
    {names, 0, 8, "host-name", "0-3", "4 ranks say they are on node0, but 2 share", ST_OK, "hostname"},
    {locked, 0, 8, "lock", "0", "process 4 on node7; that run lives", ST_OK, "scancel"},
    {old_lock, 0, 8, "lock", "0", "the next one takes over", ST_OK, ""},
    {full, 0, 8, "full", "0-7", "less than 1 GB", ST_OK, "room"},
    {in_memory, 0, 8, "in-memory", "0-7", "tmpfs", ST_OK, "disk"},
    {no_links, 4, 1, "hard-links", "4", "Operation not permitted", ST_OK, "another file system"},
    {group, 4, 4, "memory", "4-7", "4.00 GB of the machine's 64.0 GB", ST_OK, "docker"},
    {shm, 4, 4, "shm", "4-7", "16.8 MB free for 4 ranks", ST_OK, "--shm-size"},
    {nofile, 0, 8, "nofile", "0-7", "at most 256 open files; 272 are wanted for 8 ranks", ST_OK, "ulimit -n 4096"},
    {stack, 7, 1, "stack", "7", "64 kB", ST_OK, "ulimit -s"},
    {address_space, 7, 1, "address-space", "7", "8.00 GB", ST_OK, "ulimit -v unlimited"},
    {file_size, 7, 1, "file-size", "7", "1.05 MB", ST_OK, "ulimit -f unlimited"},
    {memlock, 0, 4, "memlock", "0-3", "65.5 kB", ST_OK, "PropagateResourceLimitsExcept"},
    {soon, 0, 8, "time", "0-7", "five minutes", ST_OK, "#SBATCH --time"},
    {gpu, 0, 4, "gpu", "0-3", "8 NVIDIA devices", ST_OK, "device=cpu"},
    {no_mpi, 4, 4, "mpi", "4-7", "libmpi.so.40", ST_OK, "trimpot_mpi.so"},
};

static void check_row(const struct row *row, const struct doctor_finding *f, int n)
{
    struct buf who = {0};
    int at = -1;
    for (int i = 0; i < n && at < 0; i++)
        if (strcmp(f[i].name, row->name) == 0) at = i;
    for (int i = 0; i < n; i++)
        if (strcmp(f[i].name, row->name) != 0) fail_msg("%s: also found %s: %s", row->name, f[i].name, f[i].what.data);
    if (at < 0) fail_msg("%s: not found", row->name);
    doctor_ranges(f[at].ranks, f[at].n_ranks, &who);
    if (strcmp(who.data, row->who) || !strstr(f[at].what.data, row->what) || !strstr(f[at].fix.data, row->fix) || f[at].code != row->code)
        fail_msg("%s: ranks %s, code %d: %s\nfix %s", row->name, who.data, f[at].code, f[at].what.data, f[at].fix.data);
    assert_int_equal(doctor_code(f, n), row->code);
    buf_release(&who);
}

static void test_rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct doctor_world w;
        int n;
        healthy();
        for (int r = rows[i].first; r < rows[i].first + rows[i].n; r++) rows[i].wrong(&world[r]);
        doctor_world_init(&w, world, RANKS, "/nonexistent");
        struct doctor_finding *f = doctor_judge(&w, &n);
        check_row(&rows[i], f, n);
        doctor_spare(f, n);
        doctor_world_release(&w);
    }
}

/* The first finding's words; name "": there is none. */
static void cores_case(void (*wrong)(struct doctor_record *r), int n_wrong, const char *name, const char *what, const char *fix)
{
    struct doctor_world w;
    int n;
    healthy();
    for (int r = 0; r < n_wrong; r++) wrong(&world[r]);
    doctor_world_init(&w, world, RANKS, "/nonexistent");
    struct doctor_finding *f = doctor_judge(&w, &n);
    if (!*name && n) fail_msg("%s: %s", f[0].name, f[0].what.data);
    if (*name && (n == 0 || strcmp(f[0].name, name) || !strstr(f[0].what.data, what) || !strstr(f[0].fix.data, fix)))
        fail_msg("%s: %d findings, %s: %s: %s", name, n, n ? f[0].name : "", n ? f[0].what.data : "", n ? f[0].fix.data : "");
    assert_int_equal(doctor_code(f, n), ST_OK);
    doctor_spare(f, n);
    doctor_world_release(&w);
}

static void test_cores(void **state)
{
    (void)state;
    cores_case(bound, EACH, "idle-cores", "bound to 4 cores while 12 of the 16 of the host stay idle", "--bind-to none");
    cores_case(bound, EACH, "idle-cores", "bound to 4 cores", "ppr:4:node:PE=4 --bind-to core");
    cores_case(crowded, 1, "crowded-cores", "16 threads on 4 cores", "export OMP_NUM_THREADS=4");
    cores_case(bound_in_slurm, EACH, "", "", "");
}

static void test_healthy(void **state)
{
    (void)state;
    struct doctor_world w;
    struct buf text = {0};
    int n;
    healthy();
    doctor_world_init(&w, world, RANKS, "/nonexistent");
    struct doctor_finding *f = doctor_judge(&w, &n);
    if (n) fail_msg("%s: %s", f[0].name, f[0].what.data);
    assert_int_equal(w.n_hosts, HOSTS);
    assert_int_equal(w.hosts[1].cores, 16);
    doctor_text(&w, f, n, &text);
    assert_non_null(strstr(text.data, "8 ranks on 2 hosts"));
    assert_non_null(strstr(text.data, "\n0     node0  0           4 (0-3)\n"));
    assert_non_null(strstr(text.data, "\n7     node1  3           4 (12-15)\n"));
    assert_non_null(strstr(text.data, "the same folder on all ranks"));
    assert_non_null(strstr(text.data, "nothing is wrong"));
    buf_release(&text);
    doctor_spare(f, n);
    doctor_world_release(&w);
}

/* Ranks that see the same are one line; what differs anywhere becomes a column. */
static void test_folding(void **state)
{
    (void)state;
    struct doctor_world w;
    struct buf text = {0};
    int n;
    healthy();
    for (int r = 0; r < RANKS; r++) set_mask(&world[r], 0, 16);
    strcpy(world[5].isa, "cpu: \033[31mAVX2");
    doctor_world_init(&w, world, RANKS, "/nonexistent");
    struct doctor_finding *f = doctor_judge(&w, &n);
    doctor_text(&w, f, n, &text);
    assert_non_null(strstr(text.data, "\nrank  host   local rank  processor"));
    assert_non_null(strstr(text.data, "\n0-3   node0  0-3         cpu: AVX-512"));
    assert_non_null(strstr(text.data, "\n4     node1  0           cpu: AVX-512"));
    assert_non_null(strstr(text.data, "\n5     node1  1           cpu: ?[31mAVX2"));
    assert_non_null(strstr(text.data, "\n6-7   node1  2-3         cpu: AVX-512"));
    assert_non_null(strstr(text.data, "\nfault: rank 5 on node1: cpu: ?[31mAVX2"));
    assert_null(strchr(text.data, '\033'));
    buf_clear(&text);
    doctor_json(&w, f, n, &text);
    json_t *o = json_loads(text.data, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(o);
    assert_int_equal(json_array_size(json_object_get(o, "ranks")), RANKS);
    assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(o, "ranks"), 7), "host")), "node1");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(json_array_get(json_object_get(o, "findings"), 0), "ranks"), 0)), 5);
    json_decref(o);
    buf_release(&text);
    doctor_spare(f, n);
    doctor_world_release(&w);
}

static void test_ranges(void **state)
{
    (void)state;
    static const struct {
        int n, values[8];
        const char *text;
    } cases[] = {
        {1, {0}, "0"},
        {2, {0, 1}, "0-1"},
        {3, {0, 2, 3}, "0,2-3"},
        {6, {1, 2, 3, 7, 9, 10}, "1-3,7,9-10"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b = {0};
        doctor_ranges(cases[i].values, cases[i].n, &b);
        assert_string_equal(b.data, cases[i].text);
        buf_release(&b);
    }
}

static void test_quote(void **state)
{
    (void)state;
    char dir[] = "/tmp/trimpot-test-doctor.XXXXXX";
    static const char script[] =
        "#!/bin/bash\n#SBATCH --nodes=2 \\\n  --x\n# srun is meant\n  srun --mpi=pmix \\\n      trimpot run x\nsrun again trimpot run\n";
    static const struct {
        const char *start, *word, *text;
    } cases[] = {
        {"srun ", "trimpot run", "line 5 of slurm/srun.sbatch (trimpot cp slurm/srun.sbatch FILE): srun --mpi=pmix trimpot run x"},
        {"srun ", "again", "line 7 of slurm/srun.sbatch (trimpot cp slurm/srun.sbatch FILE): srun again trimpot run"},
        {"#SBATCH", "--x", "line 2 of slurm/srun.sbatch (trimpot cp slurm/srun.sbatch FILE): #SBATCH --nodes=2 --x"},
        {"mpirun ", "", "slurm/srun.sbatch (trimpot cp slurm/srun.sbatch FILE): otherwise"},
    };
    assert_non_null(mkdtemp(dir));
    char *path = mem_printf("%s/srun.sbatch", dir);
    assert_int_equal(file_replace(path, script, sizeof script - 1), ST_OK);
    struct doctor_world w = {.scripts = dir};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b = {0};
        doctor_quote(&w, DOCTOR_SRUN, cases[i].start, cases[i].word, "otherwise", &b);
        assert_string_equal(b.data, cases[i].text);
        buf_release(&b);
    }
    free(path);
    assert_int_equal(file_remove_tree(dir), ST_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_healthy), cmocka_unit_test(test_rules),  cmocka_unit_test(test_cores),
        cmocka_unit_test(test_folding), cmocka_unit_test(test_ranges), cmocka_unit_test(test_quote),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
