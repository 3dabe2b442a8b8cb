/* cli_option.h — the rows of the option table, between the parser (cli.c) and the help text (help.c). */
#ifndef TRIMPOT_CLI_OPTION_H
#define TRIMPOT_CLI_OPTION_H

#include <stddef.h>

#include "launcher/cli.h"

enum cli_kind { OPTION_FLAG, OPTION_TEXT, OPTION_INT, OPTION_REAL }; /* members: bool, const char *, int64_t, double */

struct cli_option {
    const char *name;
    char letter;  /* 0 = none */
    unsigned bit; /* CLI_… */
    enum cli_kind kind;
    size_t member;     /* offset in struct cli */
    const char *value; /* what the help calls its value; NULL for a flag */
    const char *help;
    double least, most; /* of numbers */
};

extern const struct cli_option cli_options[];
extern const int cli_n_options;

#endif
