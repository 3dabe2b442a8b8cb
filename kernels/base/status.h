/* status.h — how a failure travels.
 *
 * The first function to detect a failure writes the message (what, where, value, remedy) with FAIL and returns its
 * code; every caller only passes the code on with TRY. Codes are the process's exit codes, so main() returns them
 * unchanged. `assert` is for our own bugs, `status` is for the world. */
#ifndef TRIMPOT_STATUS_H
#define TRIMPOT_STATUS_H

typedef enum {
    ST_OK = 0,
    ST_FAIL = 1,            /* unexpected failure */
    ST_USAGE = 2,           /* usage or configuration error */
    ST_OOM = 11,            /* out of memory, host or device */
    ST_SHAPE = 12,          /* model / shape mismatch */
    ST_CONFIG_RUNTIME = 13, /* configuration found bad at run time */
    ST_IO = 14,             /* the operating system refused a file operation */
    ST_CORRUPT = 15,        /* corrupt input */
    ST_DEVICE = 16,         /* device or driver fault */
    ST_PEER = 17,           /* another rank failed first */
    ST_NOT_BUILT = 18,      /* feature not built in */
    ST_NONFINITE = 19,      /* too many non-finite steps */
    ST_DATA = 20,           /* data error */
    ST_WATCHDOG = 21,       /* deadline passed */
    ST_NOT_SAVED = 22,      /* final checkpoint not saved */
    ST_STOPPED = 85,        /* stopped on request, checkpoint committed */
} status;

/* Records the message for this thread and returns `code`. One message: a later call replaces an earlier one. */
status status_fail(status code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " in front of the recorded message; for callers that know the file or row a callee cannot know. */
status status_prefix(status code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The message recorded by the last status_fail of this thread; "" if none. Valid until the next one. */
const char *status_message(void);

/* Short name of a code ("data error"), for logs. */
const char *status_name(status code);

#define FAIL(code, ...) return status_fail((code), __VA_ARGS__)

#define TRY(expr)                                                                                                                          \
    do {                                                                                                                                   \
        status try_status_ = (expr);                                                                                                       \
        if (try_status_) return try_status_;                                                                                               \
    } while (0)

/* For functions that own something: needs a variable `status st` and a label `done`. */
#define TRY_DONE(expr)                                                                                                                     \
    do {                                                                                                                                   \
        st = (expr);                                                                                                                       \
        if (st) goto done;                                                                                                                 \
    } while (0)

#define FAIL_DONE(code, ...)                                                                                                               \
    do {                                                                                                                                   \
        st = status_fail((code), __VA_ARGS__);                                                                                             \
        goto done;                                                                                                                         \
    } while (0)

#endif
