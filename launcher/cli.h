/* cli.h — what the person types.
 *
 *   trimpot VERB [arguments] [--option value | --option=value | -q] [key=value | ~key …]
 *
 * Arguments and the values of options are taken byte for byte; only the value of key=value is YAML. After -- nothing is an
 * option, and arguments come before key=value.
 *
 * A verb is one `struct verb` in its own verb_*.c: its words, the options it takes, its function. All options of all
 * verbs are rows of one table in cli.c; a verb names those it takes by their bits. main.c lists the verbs. */
#ifndef TRIMPOT_CLI_H
#define TRIMPOT_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "collectives/comm.h"

enum cli_bit {
    CLI_CONFIG = 1 << 0,
    CLI_MODEL = 1 << 1,
    CLI_DATA = 1 << 2,
    CLI_OUTPUT = 1 << 3,
    CLI_ADAPTER = 1 << 4,
    CLI_TOKENIZER = 1 << 5,
    CLI_PROMPT = 1 << 6,
    CLI_MAX_NEW_TOKENS = 1 << 7,
    CLI_TEMPERATURE = 1 << 8,
    CLI_TOP_K = 1 << 9,
    CLI_TOP_P = 1 << 10,
    CLI_SEED = 1 << 11,
    CLI_NO_SPECIAL = 1 << 12,
    CLI_JSON = 1 << 13,
    CLI_DRY_RUN = 1 << 14,
    CLI_FORCE = 1 << 15,
    CLI_PRINT_CONFIG = 1 << 16,
    CLI_MAX_SEQ_LEN = 1 << 17,
    CLI_CHECKPOINT = 1 << 18,
    CLI_TIMEOUT = 1 << 19,
    CLI_DEVICE = 1 << 20,
    CLI_GPU = 1 << 21,
    CLI_COMPARE = 1 << 22,
    CLI_FIT = 1 << 23,
    CLI_COMMON = 1 << 30, /* --help -q -v --dist: every verb */
};

/* A parsed command line. Options not given: NULL, −1, NAN, false. Strings belong to argv. */
struct cli {
    const struct verb *verb;
    const char *config, *model, *data, *output, *adapter, *tokenizer, *prompt, *checkpoint, *device, *gpu, *dist;
    int64_t max_new_tokens, top_k, seed, max_seq_len, timeout;
    double temperature, top_p;
    bool no_special, json, dry_run, force, print_config, compare, fit, help, quiet, verbose;

    const char **args; /* positional arguments */
    int n_args;
    const char **overrides; /* key=value, ~key, in order; only for verbs with .overrides */
    int *override_at;       /* the number of each on the command line, VERB = 1 */
    int n_overrides;

    char *program_dir; /* folder of the binary: the plugin is there */
    char *shipped_dir; /* configs of the source tree, else <program_dir>/../share/trimpot */

    struct launch launch;  /* as detected; filled in before the verb runs, as are the next two */
    status launch_failure; /* of launch_detect or comm_open: only a verb that diagnoses lives to see one */
    char *launch_message;
};

struct verb {
    const char *name;
    const char *line;      /* one line for `trimpot --help` */
    const char *arguments; /* "RECIPE [key=value …]": what stands after the verb, options aside */
    const char *help;      /* what it does, then examples; printed after the usage line */
    char *(*keys)(void);   /* optional: more of `--help` (the configuration keys); the caller frees */
    unsigned options;      /* CLI_… bits beside CLI_COMMON */
    int min_args, max_args;
    bool overrides;  /* takes key=value and ~key */
    bool paths;      /* its arguments are paths: one that exists is none of these two, whatever its name */
    bool every_rank; /* runs on all ranks; other verbs run on rank 0, as a world of one, while the others wait */
    bool diagnoses;  /* launches are its subject: where the ranks cannot be opened it runs alone and is told why */
    /* Optional, before the launch is looked at: true ends this process with *code (another one, forked, goes on). */
    bool (*guard)(const struct cli *c, int *code);
    bool signals; /* answers USR1, USR2, TERM, HUP and INT (signals.h) from the first moment on */
    status (*run)(const struct cli *c, struct comm *comm);
};

/* Parses, opens the ranks (comm_open), runs the verb, prints its error once, ends all ranks with one code. Returns the
 * process's exit code. A verb that runs on every rank must pass failures that peers do not share through comm_agree,
 * or they end the whole job at once (comm_end). */
int cli_main(int argc, char **argv, const struct verb *const *verbs, int n_verbs);

/* The parser alone, for tests. argv[0] is the program. On ST_USAGE `out` holds what was understood so far (out->help
 * and out->dist are valid). Release with cli_release. */
status cli_parse(int argc, char **argv, const struct verb *const *verbs, int n_verbs, struct cli *out);
void cli_release(struct cli *c);

/* Text of `trimpot --help` (verb NULL) or of one verb; the caller frees. */
char *cli_help(const struct verb *verb, const struct verb *const *verbs, int n_verbs);

#endif
