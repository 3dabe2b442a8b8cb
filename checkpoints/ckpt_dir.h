/* ckpt_dir.h — the directory that holds the checkpoints of a run. Internal to checkpoints/. */
#ifndef TRIMPOT_CKPT_DIR_H
#define TRIMPOT_CKPT_DIR_H

#include "checkpoints/ckpt_manifest.h"

char *ckpt_step_path(const char *checkpoints_dir, int64_t step, const char *suffix); /* …/step-0000030SUFFIX; caller frees */

static inline status ckpt_may_change(const struct ckpt_guard *g) { return g && g->check ? g->check(g->arg) : ST_OK; }

/* Steps that have a directory of the final name, newest first; caller frees. A missing directory has none. */
status ckpt_list_steps(const char *checkpoints_dir, int64_t **steps, int *n);

/* Reads and parses DIR/manifest; `text` (caller frees) may be NULL. Missing: ST_CORRUPT. */
status ckpt_read_manifest(const char *dir, struct ckpt_manifest **m, char **text, size_t *bytes);

/* The quick check: the manifest parses, is that of `step`, and every file has its size. */
status ckpt_check_quick(const char *dir, int64_t step, struct ckpt_manifest **m, char **text, size_t *bytes);

#endif
