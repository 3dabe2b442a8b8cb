/* verbs.h — the verbs, each defined in its own verb_*.c; main.c lists them in the order of `trimpot --help`. */
#ifndef TRIMPOT_VERBS_H
#define TRIMPOT_VERBS_H

#include "launcher/cli.h"

extern const struct verb verb_run, verb_plan;                                     /* verb_run.c */
extern const struct verb verb_eval, verb_generate, verb_export;                   /* verb_model.c */
extern const struct verb verb_ls, verb_cp, verb_cat, verb_validate, verb_version; /* verb_configs.c */
extern const struct verb verb_tokenize;                                           /* verb_tokenize.c */
extern const struct verb verb_doctor;                                             /* verb_doctor.c */

#endif
