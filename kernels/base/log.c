#include "kernels/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/text.h"

static struct {
    int rank, ranks;
    enum log_level level;
    atomic_bool bar_open; /* warnings and errors come from other threads too */
    double bar_drawn;
} self = {.ranks = 1, .level = LOG_INFO};

double clock_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void log_init(int rank, int ranks, enum log_level level)
{
    self.rank = rank;
    self.ranks = ranks;
    self.level = level;
}

bool log_terminal(void) { return isatty(2); }
bool log_colour(void) { return isatty(2) && !getenv("NO_COLOR"); }

/* One write per line, so that lines of several ranks do not mix. What quotes outside data (`kind` is not empty: warnings
 * and errors) cannot steer the terminal. */
static void say(const char *kind, const char *fmt, va_list ap)
{
    char text[20000];
    struct buf line = {0};
    if (self.bar_open) buf_text(&line, "\r\033[K");
    self.bar_open = false;
    if (*kind && self.ranks > 1) buf_printf(&line, "[rank %d] ", self.rank);
    buf_text(&line, kind);
    vsnprintf(text, sizeof text, fmt, ap);
    if (*kind)
        buf_tame(&line, text, strlen(text));
    else
        buf_text(&line, text);
    buf_text(&line, "\n");
    ssize_t ignored = write(2, line.data, line.len);
    (void)ignored;
    buf_release(&line);
}

#define SAY(kind)                                                                                                                          \
    do {                                                                                                                                   \
        va_list ap;                                                                                                                        \
        va_start(ap, fmt);                                                                                                                 \
        say((kind), fmt, ap);                                                                                                              \
        va_end(ap);                                                                                                                        \
    } while (0)

void log_note(const char *fmt, ...)
{
    if (self.rank == 0 && self.level >= LOG_INFO) SAY("");
}

void log_debug(const char *fmt, ...)
{
    if (self.rank == 0 && self.level >= LOG_DEBUG) SAY("");
}

void log_warn(const char *fmt, ...) { SAY("warning: "); }
void log_error(const char *fmt, ...) { SAY("error: "); }

static int columns(void)
{
    struct winsize w;
    return ioctl(2, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

static void bar(int width, int64_t done, int64_t total)
{
    int full = (int)(done * width / total);
    fputc('[', stderr);
    for (int i = 0; i < width; i++) fputc(i < full ? '#' : '.', stderr);
    fputs("] ", stderr);
}

void log_status_line(const char *line, int64_t done, int64_t total)
{
    if (self.rank != 0 || self.level < LOG_INFO || total <= 0) return;
    double now = clock_s();
    if (done < total && now - self.bar_drawn < 0.1) return;
    self.bar_drawn = now;
    enum { WIDTH = 20 };
    int room = columns() - 1, length = (int)strlen(line);
    fputs("\r\033[K", stderr);
    if (room >= length + WIDTH + 3) bar(WIDTH, done, total);
    fprintf(stderr, "%.*s", room, line);
    if (done == total) fputc('\n', stderr);
    self.bar_open = done < total;
    fflush(stderr);
}

void log_progress(const char *what, int64_t done, int64_t total)
{
    if (self.rank != 0 || self.level < LOG_INFO || !log_terminal() || total <= 0) return;
    double now = clock_s();
    if (done < total && now - self.bar_drawn < 0.1) return;
    self.bar_drawn = now;
    enum { WIDTH = 30 };
    fprintf(stderr, "\r\033[K%-12s ", what);
    bar(WIDTH, done, total);
    fprintf(stderr, "%lld/%lld", (long long)done, (long long)total);
    self.bar_open = done < total;
    if (!self.bar_open) fputs("\r\033[K", stderr);
    fflush(stderr);
}
