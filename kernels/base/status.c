#include "kernels/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 16384 };
static _Thread_local char message[MESSAGE_BYTES];

status status_fail(status code, const char *fmt, ...)
{
    /* Arguments may point into the old message: format aside first. */
    static _Thread_local char fresh[MESSAGE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(fresh, sizeof fresh, fmt, ap);
    va_end(ap);
    memcpy(message, fresh, sizeof message);
    return code;
}

status status_prefix(status code, const char *fmt, ...)
{
    static _Thread_local char fresh[MESSAGE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(fresh, sizeof fresh, fmt, ap);
    va_end(ap);
    if (n < 0) n = 0;
    if (n > MESSAGE_BYTES - 3) n = MESSAGE_BYTES - 3;
    snprintf(fresh + n, sizeof fresh - (size_t)n, ": %.*s", MESSAGE_BYTES - n - 3, message);
    memcpy(message, fresh, sizeof message);
    return code;
}

const char *status_message(void) { return message; }

const char *status_name(status code)
{
    switch (code) {
    case ST_OK:
        return "ok";
    case ST_FAIL:
        return "unexpected failure";
    case ST_USAGE:
        return "usage or configuration error";
    case ST_OOM:
        return "out of memory";
    case ST_SHAPE:
        return "model or shape mismatch";
    case ST_CONFIG_RUNTIME:
        return "configuration bad at run time";
    case ST_IO:
        return "I/O error";
    case ST_CORRUPT:
        return "corrupt input";
    case ST_DEVICE:
        return "device or driver fault";
    case ST_PEER:
        return "another rank failed";
    case ST_NOT_BUILT:
        return "feature not built in";
    case ST_NONFINITE:
        return "non-finite limit reached";
    case ST_DATA:
        return "data error";
    case ST_WATCHDOG:
        return "watchdog deadline";
    case ST_NOT_SAVED:
        return "final checkpoint not saved";
    case ST_STOPPED:
        return "stopped on request";
    }
    return "unknown status";
}
