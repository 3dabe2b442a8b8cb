/* scalar.h — one text, one value: strict readers, and writers whose output reads back to the same value. */
#ifndef TRIMPOT_SCALAR_H
#define TRIMPOT_SCALAR_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/text.h"

bool scalar_bool(const char *text, bool *out);                   /* true, false, yes, no, on, off, as YAML 1.1 spells them */
bool scalar_int(const char *text, int64_t *out);                 /* decimal */
bool scalar_float(const char *text, bool infinite, double *out); /* decimal, finite; inf too if `infinite` */
bool scalar_bytes(const char *text, int64_t *out);               /* 8GB, 1.5 GiB, 4096 */
void scalar_write_double(double x, struct buf *out);             /* the shortest text that reads back; NAN is null */
void scalar_quote(const char *text, struct buf *out);            /* as a YAML scalar on one line, references escaped */

#endif
