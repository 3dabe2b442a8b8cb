/* The ranks by hosts, and the lines of the shipped batch scripts. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/file.h"
#include "launcher/doctor.h"

/* ---- the world, by hosts ---------------------------------------------------------------------------------------- */

static bool same_host(const struct doctor_record *a, const struct doctor_record *b)
{
    return strcmp(a->host, b->host) == 0 && strcmp(a->boot, b->boot) == 0;
}

static int host_of(struct doctor_world *w, int rank)
{
    /* Ranks of a host mostly follow each other. */
    for (int h = w->n_hosts - 1; h >= 0; h--)
        if (same_host(&w->of[w->hosts[h].first], &w->of[rank])) return h;
    w->hosts[w->n_hosts] = (struct doctor_host){.first = rank};
    return w->n_hosts++;
}

static int ones(uint64_t x) { return __builtin_popcountll(x); }

void doctor_world_init(struct doctor_world *w, const struct doctor_record *records, int size, const char *scripts)
{
    size_t n = (size_t)size;
    *w = (struct doctor_world){
        .of = records, .size = size, .scripts = scripts, .hosts = mem_alloc(n * sizeof *w->hosts), .host = mem_alloc(n * sizeof *w->host)};
    uint64_t(*used)[DOCTOR_CPUS / 64] = mem_alloc(n * sizeof *used);
    for (int r = 0; r < size; r++) {
        struct doctor_host *h = &w->hosts[w->host[r] = host_of(w, r)];
        h->ranks++;
        h->threads += records[r].threads;
        for (int i = 0; i < DOCTOR_CPUS / 64; i++) {
            h->cores += ones(records[r].mask[i] & ~used[w->host[r]][i]);
            used[w->host[r]][i] |= records[r].mask[i];
        }
    }
    free(used);
}

void doctor_world_release(struct doctor_world *w)
{
    free(w->hosts);
    free(w->host);
}

/* ---- lines of the batch scripts --------------------------------------------------------------------------------- */

static const char *const scripts[] = {[DOCTOR_SRUN] = "srun.sbatch", [DOCTOR_MPIRUN] = "mpirun.sbatch"};

/* Cuts the first line off, with the lines that a backslash ties to it; returns what follows. */
static char *next_line(char *line, int *lines)
{
    char *end = line + strcspn(line, "\n");
    for (*lines = 1; end > line && end[0] && end[-1] == '\\'; ++*lines) {
        char *next = end + 1 + strspn(end + 1, " \t"), *to = end - 1;
        while (to > line && to[-1] == ' ') to--;
        *to++ = ' ';
        memmove(to, next, strlen(next) + 1);
        end = to + strcspn(to, "\n");
    }
    if (*end) *end++ = 0;
    return end;
}

void doctor_quote(const struct doctor_world *w, enum doctor_script which, const char *start, const char *word, const char *otherwise,
                  struct buf *fix)
{
    char *path = mem_printf("%s/%s", w->scripts, scripts[which]), *text = NULL;
    int number = 1, lines = 0;
    const char *found = NULL;
    if (file_read(path, 1 << 16, &text, NULL) != ST_OK) text = NULL;
    for (char *line = text, *next; line && *line; line = next, number += lines) {
        next = next_line(line, &lines);
        line += strspn(line, " \t");
        if (strncmp(line, start, strlen(start)) != 0 || !strstr(line, word)) continue;
        found = line;
        break;
    }
    if (found) buf_printf(fix, "line %d of ", number);
    buf_printf(fix, "slurm/%s (trimpot cp slurm/%s FILE): %s", scripts[which], scripts[which], found ? found : otherwise);
    free(text);
    free(path);
}
