/* log.h — what the person sees while it runs. stderr carries notes and progress, stdout results.
 *
 * Only the rank that log_init made the speaker prints notes; warnings and errors of any rank are printed with its
 * number in front when there is more than one. */
#ifndef TRIMPOT_LOG_H
#define TRIMPOT_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_QUIET, LOG_INFO, LOG_DEBUG };

void log_init(int rank, int ranks, enum log_level level);
void log_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));  /* rank 0 */
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* rank 0, -v */
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));  /* every rank, "warning: " */
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* every rank, "error: " */

bool log_colour(void); /* stderr is a terminal, NO_COLOR is unset */
bool log_terminal(void);

/* A progress bar on a terminal, nothing elsewhere; at most 10 redraws a second. Ends with done == total. */
void log_progress(const char *what, int64_t done, int64_t total);

/* On a terminal: this line, redrawn in place with a bar in front when there is room (width-aware, ≤ 10 a second). */
void log_status_line(const char *line, int64_t done, int64_t total);

double clock_s(void); /* monotonic seconds */

#endif
