/* gemm_choices.c — algorithms that were timed, in a file that a person names.
 *
 *     TRIMPOT_GEMM_TIME=FILE     this run times the first candidates of every shape that FILE lacks, and appends the fastest. It goes
 *                                on with the heuristic's first: its own numbers do not depend on the clock. Slower while shapes are
 *                                new, and needs memory for one more set of operands.
 *     TRIMPOT_GEMM_CHOICES=FILE  this run takes what FILE says, and never writes it: all ranks that read one file compute alike.
 *
 * Neither: the heuristic's first, always. So what a run computes is a function of GPU, driver, library and the file that it was told
 * to use, never of timing noise; who resumes a run and wants its bits names the file again. Algorithms are the library's own bytes,
 * good for one version of it on one GPU and driver: lines of others are passed over. */
#include "kernels/cuda/gemm_lt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "kernels/cuda/device.h"

struct gemm_choices {
    const char *append; /* file of TRIMPOT_GEMM_TIME, or NULL */
    uint64_t machine;
    struct gemm_choice *choice; /* to be taken, then those that the file of TRIMPOT_GEMM_TIME has */
    int n, n_taken, cap;
};

enum { LINE = 512, FILE_LIMIT = 64 << 20, ALGO = sizeof(cublasLtMatmulAlgo_t) };

static uint64_t hash_text(const char *text, size_t n)
{
    uint64_t hash = rng_mix(n);
    for (size_t i = 0; i < n; i++) hash = rng_mix(hash ^ (unsigned char)text[i]);
    return hash;
}

static const struct gemm_choice *find(const struct gemm_choices *c, int from, int to, const struct gemm_shape *q)
{
    for (int i = from; i < to; i++) {
        const struct gemm_shape *p = &c->choice[i].shape;
        if (p->m == q->m && p->n == q->n && p->k == q->k && p->traits == q->traits) return &c->choice[i];
    }
    return NULL;
}

static status add(struct gemm_choices *c, const struct gemm_choice *found)
{
    if (c->n == c->cap) {
        int cap = c->cap ? 2 * c->cap : 64;
        struct gemm_choice *more = realloc(c->choice, (size_t)cap * sizeof *more);
        if (!more) FAIL(ST_OOM, "gemm: no memory for %d choices of algorithms", cap);
        c->choice = more;
        c->cap = cap;
    }
    c->choice[c->n++] = *found;
    return ST_OK;
}

/* ---- a line ------------------------------------------------------------------------------------------------------------------ */

/* machine m n k traits algorithm µs µs check */
static int line_write(char *line, uint64_t machine, const struct gemm_choice *c)
{
    const struct gemm_shape *q = &c->shape;
    int at = snprintf(line, LINE, "%016llx %lld %lld %lld %llx ", (unsigned long long)machine, (long long)q->m, (long long)q->n,
                      (long long)q->k, (unsigned long long)q->traits);
    for (int i = 0; i < ALGO; i++) at += snprintf(line + at, LINE - (size_t)at, "%02x", ((const unsigned char *)&c->algo)[i]);
    at += snprintf(line + at, LINE - (size_t)at, " %.2f %.2f ", c->first_us, c->fastest_us);
    return at + snprintf(line + at, LINE - (size_t)at, "%016llx\n", (unsigned long long)hash_text(line, (size_t)at));
}

/* False when the line is torn. */
static bool line_read(const char *line, size_t n, uint64_t *machine, struct gemm_choice *c)
{
    char text[LINE], algo[2 * ALGO + 1];
    unsigned long long made_by, traits, check;
    long long m, nn, k;
    int body = 0;
    if (n >= sizeof text) return false;
    memcpy(text, line, n);
    text[n] = 0;
    _Static_assert(ALGO == 64, "the width of %128s");
    if (sscanf(text, "%llx %lld %lld %lld %llx %128s %lf %lf %n%llx", &made_by, &m, &nn, &k, &traits, algo, &c->first_us, &c->fastest_us,
               &body, &check) != 9)
        return false;
    if (strlen(algo) != 2 * ALGO || hash_text(text, (size_t)body) != check) return false;
    c->shape = (struct gemm_shape){m, nn, k, traits};
    for (int i = 0; i < ALGO; i++) {
        unsigned byte;
        if (sscanf(algo + 2 * i, "%2x", &byte) != 1) return false;
        ((unsigned char *)&c->algo)[i] = (unsigned char)byte;
    }
    *machine = made_by;
    return true;
}

/* ---- a file ------------------------------------------------------------------------------------------------------------------ */

static status read_choices(struct gemm_choices *c, const char *path)
{
    char *text;
    size_t bytes;
    int torn = 0, foreign = 0, before = c->n;
    TRY(file_read(path, FILE_LIMIT, &text, &bytes));
    status st = ST_OK;
    for (char *line = text, *end = text + bytes; line < end && !st;) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop) stop = end;
        struct gemm_choice found;
        uint64_t machine;
        if (!line_read(line, (size_t)(stop - line), &machine, &found))
            torn++;
        else if (machine != c->machine)
            foreign++;
        else if (!find(c, before, c->n, &found.shape)) /* the first line of a shape counts */
            st = add(c, &found);
        line = stop + 1;
    }
    free(text);
    if (torn) log_warn("%s: %d lines are no choices of algorithms; they are passed over", path, torn);
    if (c->n == before && foreign)
        log_warn("%s: none of its %d choices was made with this GPU, driver and library (%s)", path, foreign, cuda_describe());
    return st;
}

status gemm_choices_open(struct gemm_choices **out)
{
    const char *take = getenv("TRIMPOT_GEMM_CHOICES"), *append = getenv("TRIMPOT_GEMM_TIME");
    *out = NULL;
    if ((!take || !*take) && (!append || !*append)) return ST_OK;
    struct gemm_choices *c = calloc(1, sizeof *c);
    if (!c) FAIL(ST_OOM, "gemm: no memory for choices of algorithms");
    const char *machine = cuda_describe();
    c->machine = hash_text(machine, strlen(machine));
    status st = ST_OK;
    if (take && *take) TRY_DONE(read_choices(c, take));
    c->n_taken = c->n;
    if (append && *append) {
        c->append = append;
        if (file_exists(append)) TRY_DONE(read_choices(c, append));
    }
done:
    if (st)
        gemm_choices_close(c);
    else
        *out = c;
    return st;
}

void gemm_choices_close(struct gemm_choices *c)
{
    if (!c) return;
    free(c->choice);
    free(c);
}

const struct gemm_choice *gemm_choices_find(const struct gemm_choices *c, const struct gemm_shape *q)
{
    return c ? find(c, 0, c->n_taken, q) : NULL;
}

bool gemm_choices_wants(const struct gemm_choices *c, const struct gemm_shape *q)
{
    return c && c->append && !find(c, c->n_taken, c->n, q);
}

status gemm_choices_put(struct gemm_choices *c, const struct gemm_choice *found)
{
    char line[LINE];
    int n = line_write(line, c->machine, found);
    TRY(add(c, found));
    int fd = open(c->append, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) FAIL(ST_IO, "%s: %s", c->append, strerror(errno));
    status st = file_write_all(fd, line, (size_t)n, c->append); /* one write: lines of ranks do not mix */
    close(fd);
    return st;
}
