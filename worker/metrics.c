#include "worker/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

void metrics_number(double x, char *out, size_t n)
{
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, n, "%.*g", digits, x);
        if (strtod(out, NULL) == x || isnan(x)) break;
    }
    if (!isfinite(x)) snprintf(out, n, "null");
}

/* Called in every step: system calls and the stack only. */
int64_t metrics_resident_bytes(void)
{
    char text[4096];
    long long kb = 0;
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *line = strstr(text, "VmHWM:");
    if (line) sscanf(line, "VmHWM: %lld", &kb);
    return kb * 1024;
}

/* The steps after `done` were undone by resuming from an earlier checkpoint: their lines go. A torn last line goes too. The file
 * is another one afterwards: a run that was taken over in the middle of a line finishes it in the old one. */
static status keep_until(const char *path, int64_t done)
{
    char *text;
    size_t bytes;
    if (!file_exists(path)) return ST_OK;
    TRY(file_read(path, (size_t)1 << 32, &text, &bytes));
    struct buf kept = {0};
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        json_t *o = json_loads(line, 0, NULL);
        int64_t step = o ? json_integer_value(json_object_get(o, "step")) : 0;
        if (step > 0 && step <= done) buf_printf(&kept, "%s\n", line);
        json_decref(o);
    }
    free(text);
    status st = file_replace(path, kept.data ? kept.data : "", kept.len);
    buf_release(&kept);
    return st;
}

status metrics_open(struct metrics *m, const char *dir, int64_t done, int64_t every)
{
    *m = (struct metrics){.every = every > 0 ? every : 1, .path = mem_printf("%s/metrics.jsonl", dir)};
    TRY(keep_until(m->path, done));
    m->file = fopen(m->path, "ae");
    if (!m->file) FAIL(ST_IO, "%s: cannot open for writing: %s", m->path, strerror(errno));
    return ST_OK;
}

void metrics_close(struct metrics *m)
{
    if (m->file) fclose(m->file);
    free(m->path);
    *m = (struct metrics){0};
}

struct field {
    const char *key;
    double value;
    bool integer, optional;
};

static void show(struct metrics *m, const struct step_metrics *s)
{
    double left = (double)(s->total - s->step) * m->smoothed_s;
    char eta[32], val[40] = "";
    if (left >= 3600)
        snprintf(eta, sizeof eta, "%dh%02dm", (int)(left / 3600), (int)(left / 60) % 60);
    else
        snprintf(eta, sizeof eta, "%dm%02ds", (int)(left / 60), (int)left % 60);
    if (!isnan(s->val_loss)) snprintf(val, sizeof val, " val %.4f", s->val_loss);
    double rate = (double)s->tokens / s->step_s;
    char line[320];
    snprintf(line, sizeof line, "step %lld/%lld ep %.2f loss %.4f%s gnorm %.3g lr %.3g %.*f%s tok/s %.0f ms mem %s eta %s",
             (long long)s->step, (long long)s->total, s->epoch, s->loss, val, s->grad_norm, s->lr, rate < 1e4 ? 0 : 1,
             rate < 1e4 ? rate : rate / 1e3, rate < 1e4 ? "" : "k", 1e3 * s->step_s, text_bytes((double)metrics_resident_bytes()), eta);
    if (log_terminal())
        log_status_line(line, s->step, s->total);
    else if (s->step % m->every == 0 || s->step == s->total)
        log_note("%s", line);
}

status metrics_put(struct metrics *m, const struct step_metrics *s)
{
    m->smoothed_s = m->smoothed_s > 0 ? 0.9 * m->smoothed_s + 0.1 * s->step_s : s->step_s;
    const struct field fields[] = {
        {"step", (double)s->step, true},
        {"epoch", s->epoch, false},
        {"loss", s->loss, false},
        {"lr", s->lr, false},
        {"grad_norm", s->grad_norm, false},
        {"tokens", (double)s->tokens, true},
        {"supervised_tokens", (double)s->supervised, true},
        {"tokens_per_second", (double)s->tokens / s->step_s, false},
        {"step_ms", 1e3 * s->step_s, false},
        {"data_ms", 1e3 * s->data_s, false},
        {"comm_ms", 1e3 * s->comm_s, false},
        {"mem_peak", (double)metrics_resident_bytes(), true},
        {"skipped", (double)s->skipped, true},
        {"val_loss", s->val_loss, false, true},
    };
    char line[64 * (1 + sizeof fields / sizeof *fields)]; /* no heap: this is the step loop */
    size_t n = 0;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char number[40];
        if (fields[i].optional && isnan(fields[i].value)) continue;
        if (fields[i].integer)
            snprintf(number, sizeof number, "%.0f", fields[i].value);
        else
            metrics_number(fields[i].value, number, sizeof number);
        n += (size_t)snprintf(line + n, sizeof line - n, "%s\"%s\":%s", i ? "," : "{", fields[i].key, number);
    }
    n += (size_t)snprintf(line + n, sizeof line - n, "}\n");
    /* A full disk loses log lines, not the run: said once. */
    bool bad = fwrite(line, 1, n, m->file) != n || fflush(m->file);
    if (bad) {
        static bool said;
        if (!said) log_warn("%s: cannot write: %s; training goes on", m->path, file_error(errno));
        said = true;
        clearerr(m->file);
    }
    if (m->echo) bad = fwrite(line, 1, n, stdout) != n || fflush(stdout); /* whoever does not read it need not */
    show(m, s);
    return ST_OK;
}
