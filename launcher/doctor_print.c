/* The report: what is equal on all ranks once, a table of the rest, then the findings; or all of it as JSON. */
/* clang-format off */
#include <inttypes.h>
#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "launcher/doctor.h"

void doctor_ranges(const int *ascending, int n, struct buf *out)
{
    for (int i = 0, last; i < n; i = last + 1) {
        for (last = i; last + 1 < n && ascending[last + 1] == ascending[last] + 1;) last++;
        buf_printf(out, last > i ? "%s%d-%d" : "%s%d", i ? "," : "", ascending[i], ascending[last]);
    }
}

/* ---- what is told of a rank ------------------------------------------------------------------------------------- */

typedef void text_fn(const struct doctor_world *w, const struct doctor_record *r, struct buf *b);

/* Numbers that wander while the report is made are told as the least of all ranks, so that they are equal. */
static int64_t least(const struct doctor_world *w, size_t member)
{
    int64_t value = INT64_MAX;
    for (int r = 0; r < w->size; r++) {
        int64_t one = *(const int64_t *)(const void *)((const char *)&w->of[r] + member);
        if (one < value) value = one;
    }
    return value;
}

static void add_bytes(struct buf *b, int64_t bytes, const char *unset) { buf_text(b, bytes < 0 ? unset : text_bytes((double)bytes)); }

static void launcher(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    (void)w;
    buf_text(b, *r->how ? r->how : "not usable");
    bool others = *r->others && r->failure_code; /* PMIX_… beside OMPI_… is as it should be */
    if (*r->by) buf_printf(b, " (%s%s%s)", r->by, others ? "; also set: " : "", others ? r->others : "");
}

static void mpi(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    (void)w;
    buf_text(b, *r->mpi ? r->mpi : "does not load");
    if (*r->pmix) buf_printf(b, ", PMIx namespace %s", r->pmix);
}

static void slurm(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    (void)w;
    if (!*r->job) {
        buf_text(b, "not in a job");
        return;
    }
    bool mpirun = strcmp(r->how, "mpirun") == 0; /* the step and its tasks are those of mpirun's daemons */
    buf_printf(b, "job %s", r->job);
    if (!mpirun) buf_printf(b, ", %s%s", *r->step ? "step " : "no step", r->step);
    if (*r->partition) buf_printf(b, ", partition %s", r->partition);
    if (r->tasks > 0 && !mpirun) buf_printf(b, ", %" PRId64 " task%s", r->tasks, r->tasks == 1 ? "" : "s");
    if (r->time_left_s >= 0) buf_printf(b, ", %" PRId64 " min left", r->time_left_s / 60);
}

static void program(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    (void)w;
    buf_printf(b, "%016" PRIx64, r->binary);
}

static void libc(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    (void)w;
    buf_text(b, r->libc);
}

static void isa(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    (void)w;
    buf_text(b, r->isa);
}

static void host_cores(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    (void)w;
    buf_printf(b, "%" PRId64, r->host_cores);
}

/* "4 (0-3)"; in large worlds, where bound ranks would each have a line of their own, "4". */
static void cores(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    enum { LISTED = 64 };
    int set[DOCTOR_CPUS], n = 0;
    for (int i = 0; i < DOCTOR_CPUS; i++)
        if (r->mask[i / 64] >> i % 64 & 1) set[n++] = i;
    buf_printf(b, "%d", n);
    if (w->size > LISTED) return;
    buf_text(b, " (");
    doctor_ranges(set, n, b);
    buf_text(b, ")");
}

static void threads(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    (void)w;
    buf_printf(b, *r->omp ? "%" PRId64 " (OMP_NUM_THREADS=%s)" : "%" PRId64, r->threads, r->omp);
}

static void gpu(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    (void)w;
    if (r->gpus > 0) buf_printf(b, "%" PRId64 " NVIDIA device%s", r->gpus, r->gpus == 1 ? "" : "s");
    else buf_text(b, "none");
    if (*r->gpus_chosen) buf_printf(b, ", CUDA_VISIBLE_DEVICES=%s", r->gpus_chosen);
    if (!r->cuda) buf_text(b, "; built without CUDA");
}

static void memory(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    add_bytes(b, r->memory, "unknown");
    buf_text(b, w->size > 1 ? ", at least " : ", ");
    add_bytes(b, least(w, offsetof(struct doctor_record, memory_free)), "unknown");
    buf_text(b, " available");
}

static void group(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    (void)w;
    add_bytes(b, r->memory_limit, "none");
}

static void shm(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    (void)w;
    add_bytes(b, r->shm, "none");
}

#define LIMIT(member)                                                                                   \
    static void member(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)      \
    {                                                                                                   \
        (void)w;                                                                                        \
        add_bytes(b, r->member, "unlimited");                                                           \
    }
LIMIT(memlock)
LIMIT(stack)
LIMIT(address_space)
LIMIT(file_size)
LIMIT(core)

static void nofile(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    (void)w;
    buf_printf(b, r->nofile < 0 ? "unlimited" : "%" PRId64, r->nofile);
}

static void clock_of(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    double skew = (double)(r->clock_ns - w->of[0].clock_ns) / 1e9;
    if (w->size == 1) return;
    if (skew > -1 && skew < 1) buf_text(b, "within 1 s of rank 0's");
    else buf_printf(b, "%+.0f s", skew);
}

static void output(const struct doctor_world *w, const struct doctor_record *r, struct buf *b)
{
    const struct doctor_files *f = &r->files;
    if (!f->asked) {
        buf_printf(b, *f->path ? "%s: not looked at, it did not come to that" : "not asked (--output DIR)", f->path);
        return;
    }
    buf_text(b, f->path);
    if (!f->answered) {
        buf_text(b, ": no answer");
        return;
    }
    if (f->exists) buf_text(b, ": exists");
    else buf_printf(b, ": would be made in %s", f->looked);
    if (f->refusal) {
        buf_printf(b, ", %s", strerror(f->refusal));
        return;
    }
    buf_printf(b, ", %s on %s from %s, ", f->type, f->mount, f->source);
    int64_t room = least(w, offsetof(struct doctor_record, files.free_bytes));
    add_bytes(b, room, "unknown");
    buf_text(b, " free");
    if (w->of[0].files.tried) buf_printf(b, ", hard links %s", w->of[0].files.link_refusal ? "refused" : "work");
    if (w->size > 1 && w->of[0].files.left) buf_text(b, f->found ? ", the same folder on all ranks" : ", NOT rank 0's folder");
    if (f->locked) buf_printf(b, ", run.lock of %s", f->lock);
}

/* Columns with one group are one line where they are equal on all ranks. `table`: stands in the table even then. */
static const struct column { const char *group, *title; text_fn *text; bool table; } columns[] = {
    {"launcher", "launcher", launcher}, {"MPI", "MPI", mpi}, {"Slurm", "Slurm", slurm}, {"program", "hash", program}, {"program", "C library", libc},
    {"processor", "processor", isa}, {"cores", "cores", cores, true},
    {"cores", "host's cores", host_cores}, {"cores", "threads", threads}, {"GPU", "GPU", gpu}, {"memory", "memory", memory}, {"memory", "control group's limit", group},
    {"memory", "/dev/shm", shm}, {"limits", "open files", nofile}, {"limits", "stack", stack}, {"limits", "locked memory", memlock},
    {"limits", "address space", address_space}, {"limits", "file size", file_size}, {"limits", "core file", core},
    {"clock", "clock", clock_of}, {"output", "output", output},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

/* ---- the table -------------------------------------------------------------------------------------------------- */

/* cells[rank × COLUMNS + column] */
static char **fill(const struct doctor_world *w)
{
    char **cells = mem_alloc((size_t)w->size * COLUMNS * sizeof *cells);
    for (int r = 0; r < w->size; r++)
        for (int c = 0; c < COLUMNS; c++) {
            struct buf b = {0}, tame = {0};
            columns[c].text(w, &w->of[r], &b);
            if (!b.data) buf_text(&b, "");
            buf_tame(&tame, b.data, b.len);
            buf_release(&b);
            cells[r * COLUMNS + c] = tame.data;
        }
    return cells;
}

static bool everywhere(const struct doctor_world *w, char **cells, int c)
{
    for (int r = 1; r < w->size; r++)
        if (strcmp(cells[r * COLUMNS + c], cells[c]) != 0) return false;
    return true;
}

static void equal_lines(const struct doctor_world *w, char **cells, struct buf *out)
{
    const char *group_now = "";
    for (int c = 0; c < COLUMNS; c++) {
        if (!everywhere(w, cells, c) || !*cells[c] || (columns[c].table && w->size > 1)) continue;
        bool first = strcmp(group_now, columns[c].group) != 0;
        if (first) buf_printf(out, "%s%-10s ", *group_now ? "\n" : "", columns[c].group);
        else buf_text(out, ", ");
        group_now = columns[c].group;
        if (strcmp(columns[c].title, columns[c].group) != 0) buf_printf(out, "%s ", columns[c].title);
        buf_text(out, cells[c]);
    }
    buf_text(out, "\n");
}

/* Characters, not bytes. */
static int width(const char *text)
{
    int n = 0;
    for (; *text; text++) n += (*text & 0xC0) != 0x80;
    return n;
}

static void add_cell(struct buf *out, const char *text, int wide, bool last)
{
    buf_printf(out, "%s%*s", text, last ? 0 : wide - width(text) + 2, "");
}

struct table { char **cell; int rows, columns; }; /* row 0: titles */

static void print_table(const struct table *t, struct buf *out)
{
    int *wide = mem_alloc((size_t)t->columns * sizeof *wide);
    for (int r = 0; r < t->rows; r++)
        for (int c = 0; c < t->columns; c++) {
            int n = width(t->cell[r * t->columns + c]);
            if (n > wide[c]) wide[c] = n;
        }
    for (int r = 0; r < t->rows; r++) {
        for (int c = 0; c < t->columns; c++) add_cell(out, t->cell[r * t->columns + c], wide[c], c + 1 == t->columns);
        buf_text(out, "\n");
    }
    free(wide);
}

/* Do ranks a and a + 1 stand in one line? */
static bool one_line(const struct doctor_world *w, char **cells, int a)
{
    if (w->host[a] != w->host[a + 1] || w->of[a].local_rank + 1 != w->of[a + 1].local_rank) return false;
    for (int c = 0; c < COLUMNS; c++)
        if (strcmp(cells[a * COLUMNS + c], cells[(a + 1) * COLUMNS + c]) != 0) return false;
    return true;
}

static char *span(int from, int to) { return to > from ? mem_printf("%d-%d", from, to) : mem_printf("%d", from); }

static void rank_table(const struct doctor_world *w, char **cells, struct buf *out)
{
    enum { FIXED = 3 };
    static const char *const titles[FIXED] = {"rank", "host", "local rank"};
    int shown[COLUMNS], n = 0;
    for (int c = 0; c < COLUMNS; c++)
        if (columns[c].table || !everywhere(w, cells, c)) shown[n++] = c;
    struct table t = {.columns = FIXED + n, .rows = 1};
    t.cell = mem_alloc((size_t)(w->size + 1) * (size_t)t.columns * sizeof *t.cell);
    for (int i = 0; i < t.columns; i++) t.cell[i] = mem_strdup(i < FIXED ? titles[i] : columns[shown[i - FIXED]].title);
    for (int r = 0, last; r < w->size; r = last + 1) {
        for (last = r; last + 1 < w->size && one_line(w, cells, last);) last++;
        char **row = &t.cell[t.rows++ * t.columns];
        row[0] = span(r, last);
        row[1] = mem_strdup(w->of[r].host);
        row[2] = span(w->of[r].local_rank, w->of[last].local_rank);
        for (int i = 0; i < n; i++) row[FIXED + i] = mem_strdup(cells[r * COLUMNS + shown[i]]);
    }
    buf_text(out, "\n");
    print_table(&t, out);
    for (int i = 0; i < t.rows * t.columns; i++) free(t.cell[i]);
    free(t.cell);
}

/* ---- findings --------------------------------------------------------------------------------------------------- */

static const char *const weights[] = {[DOCTOR_REMARK] = "remark", [DOCTOR_WARNING] = "warning", [DOCTOR_FAULT] = "fault"};

/* "ranks 4-7 on tpn3: " */
static void add_who(const struct doctor_world *w, const struct doctor_finding *f, struct buf *out)
{
    if (w->size == 1) return;
    if (f->n_ranks == w->size) {
        buf_text(out, "all ranks: ");
        return;
    }
    buf_text(out, f->n_ranks == 1 ? "rank " : "ranks ");
    doctor_ranges(f->ranks, f->n_ranks, out);
    enum { NAMED = 4 };
    int hosts = 0;
    for (int i = 0; i < f->n_ranks; i++) {
        int host = w->host[f->ranks[i]];
        if (i && host == w->host[f->ranks[i - 1]]) continue;
        if (hosts++ < NAMED) buf_printf(out, "%s%s", hosts == 1 ? " on " : ", ", w->of[f->ranks[i]].host);
    }
    if (hosts > NAMED) buf_text(out, ", …");
    buf_text(out, ": ");
}

static void add_indented(struct buf *out, const char *head, const char *text)
{
    for (const char *end; *text; text = *end ? end + 1 : end, head = "      ") {
        end = text + strcspn(text, "\n");
        buf_printf(out, "%s%.*s\n", head, (int)(end - text), text);
    }
}

static void add_findings(const struct doctor_world *w, const struct doctor_finding *f, int n, struct buf *out)
{
    if (n == 0) buf_text(out, "\nnothing is wrong\n");
    for (int i = 0; i < n; i++) {
        struct buf line = {0};
        add_who(w, &f[i], &line);
        buf_tame(&line, f[i].what.data, f[i].what.len);
        buf_printf(out, "\n%s: %s\n", weights[f[i].weight], line.data);
        add_indented(out, "  fix ", f[i].fix.data);
        buf_release(&line);
    }
}

void doctor_text(const struct doctor_world *w, const struct doctor_finding *f, int n, struct buf *out)
{
    const char *build = *TRIMPOT_BUILD_ID ? TRIMPOT_BUILD_ID : "unknown";
    char **cells = fill(w);
    buf_printf(out, "trimpot %s (build %s): %d rank%s on %d host%s", TRIMPOT_VERSION, build, w->size, w->size == 1 ? "" : "s",
               w->n_hosts, w->n_hosts == 1 ? "" : "s");
    buf_printf(out, w->size == 1 ? " (%s)\n\n" : "\n\n", w->of[0].host);
    equal_lines(w, cells, out);
    if (w->size > 1) rank_table(w, cells, out);
    add_findings(w, f, n, out);
    for (int i = 0; i < w->size * COLUMNS; i++) free(cells[i]);
    free(cells);
}

void doctor_lines(const struct doctor_world *w, const struct doctor_finding *f, int n)
{
    for (int i = 0; i < n; i++) {
        struct buf line = {0};
        const struct doctor_record *r = &w->of[0];
        if (r->number >= 0) buf_printf(&line, "rank %d on %s: ", r->number, r->host);
        buf_tame(&line, f[i].what.data, f[i].what.len);
        if (f[i].weight == DOCTOR_FAULT) log_error("%s", line.data);
        buf_release(&line);
    }
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

enum kind { TEXT, INT, INT64, BOOL, HASH };
#define FIELD(kind, name) {#name, kind, offsetof(struct doctor_record, name)}
#define FILES(kind, name) {"output_" #name, kind, offsetof(struct doctor_record, files.name)}

static const struct { const char *key; enum kind kind; size_t member; } fields[] = {
    FIELD(INT, rank), FIELD(INT, local_rank), FIELD(INT, local_size), FIELD(TEXT, host), FIELD(TEXT, how), FIELD(TEXT, by),
    FIELD(TEXT, others), FIELD(TEXT, failure), FIELD(INT, failure_code), FIELD(TEXT, mpi), FIELD(TEXT, mpi_refusal), FIELD(TEXT, pmix),
    FIELD(TEXT, job), FIELD(TEXT, step), FIELD(TEXT, partition), FIELD(INT64, tasks), FIELD(INT64, step_tasks),
    FIELD(INT64, cpus_per_task), FIELD(INT64, cpus_on_node), FIELD(INT64, time_left_s), FIELD(INT64, cores), FIELD(INT64, host_cores),
    FIELD(INT64, threads), FIELD(TEXT, omp), FIELD(TEXT, isa), FIELD(HASH, binary), FIELD(TEXT, libc), FIELD(INT64, gpus), FIELD(INT64, cuda), FIELD(TEXT, gpus_chosen),
    FIELD(BOOL, infiniband), FIELD(INT64, memory), FIELD(INT64, memory_free), FIELD(INT64, memory_limit), FIELD(INT64, shm),
    FIELD(INT64, shm_free), FIELD(TEXT, tmp), FIELD(INT64, nofile), FIELD(INT64, memlock), FIELD(INT64, stack),
    FIELD(INT64, address_space), FIELD(INT64, file_size), FIELD(INT64, core), FIELD(INT64, clock_ns), FILES(BOOL, asked),
    FILES(BOOL, answered), FILES(BOOL, exists), FILES(INT, refusal), FILES(INT, link_refusal), FILES(BOOL, found), FILES(TEXT, path),
    FILES(TEXT, type), FILES(TEXT, mount), FILES(TEXT, source), FILES(INT64, bytes), FILES(INT64, free_bytes), FILES(BOOL, locked),
    FILES(TEXT, lock), FILES(INT64, lock_age_s),
};

/* Text from outside may be no UTF-8, which JSON cannot hold. */
static json_t *tame_json(const char *text)
{
    struct buf b = {0};
    buf_tame(&b, text, strlen(text));
    json_t *o = json_string(b.data);
    buf_release(&b);
    return o;
}

static json_t *value(enum kind kind, const void *at)
{
    char hash[24];
    switch (kind) {
    case TEXT: return tame_json(at);
    case INT: return json_integer(*(const int *)at);
    case INT64: return json_integer(*(const int64_t *)at);
    case BOOL: return json_boolean(*(const bool *)at);
    case HASH: break;
    }
    snprintf(hash, sizeof hash, "%016" PRIx64, *(const uint64_t *)at);
    return json_string(hash);
}

static json_t *json_finding(const struct doctor_finding *f)
{
    json_t *o = json_object(), *ranks = json_array();
    json_object_set_new(o, "name", json_string(f->name));
    json_object_set_new(o, "weight", json_string(weights[f->weight]));
    json_object_set_new(o, "code", json_integer(f->code));
    for (int i = 0; i < f->n_ranks; i++) json_array_append_new(ranks, json_integer(f->ranks[i]));
    json_object_set_new(o, "ranks", ranks);
    json_object_set_new(o, "what", tame_json(f->what.data));
    json_object_set_new(o, "fix", tame_json(f->fix.data));
    return o;
}

void doctor_json(const struct doctor_world *w, const struct doctor_finding *f, int n, struct buf *out)
{
    json_t *o = json_object(), *ranks = json_array(), *findings = json_array();
    json_object_set_new(o, "version", json_string(TRIMPOT_VERSION));
    json_object_set_new(o, "build", json_string(TRIMPOT_BUILD_ID));
    json_object_set_new(o, "size", json_integer(w->size));
    json_object_set_new(o, "hosts", json_integer(w->n_hosts));
    json_object_set_new(o, "code", json_integer(doctor_code(f, n)));
    for (int r = 0; r < w->size; r++) {
        json_t *one = json_object();
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
            json_object_set_new(one, fields[i].key, value(fields[i].kind, (const char *)&w->of[r] + fields[i].member));
        json_array_append_new(ranks, one);
    }
    for (int i = 0; i < n; i++) json_array_append_new(findings, json_finding(&f[i]));
    json_object_set_new(o, "ranks", ranks);
    json_object_set_new(o, "findings", findings);
    char *text = json_dumps(o, JSON_COMPACT);
    buf_printf(out, "%s\n", text ? text : "{}");
    free(text);
    json_decref(o);
}
