/* fuzz_yaml.c — a configuration file, and after a NUL byte the overrides of a command line, one a line.
 *
 * Besides not crashing: what is accepted must write an effective configuration that reads back to itself. */
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "kernels/base/text.h"

enum { OVERRIDES_MAX = 16 };

static void must_read_back(const struct config *c)
{
    char *text = config_text(c);
    struct config *again = NULL;
    if (config_parse_text("effective", text, strlen(text), NULL, &again)) abort();
    char *same = config_text(again);
    bool maths;
    char *diff = config_diff(text, again, &maths);
    if (strcmp(text, same) || diff) abort();
    free(text);
    free(same);
    config_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *override[OVERRIDES_MAX];
    struct config_args args = {.overrides = override};
    const uint8_t *nul = memchr(data, 0, size);
    size_t yaml = nul ? (size_t)(nul - data) : size;
    char *rest = mem_alloc(size - yaml + 1), *at = rest;
    if (nul) memcpy(rest, nul + 1, size - yaml - 1);
    for (char *line; at && args.n_overrides < OVERRIDES_MAX && (line = strsep(&at, "\n"));)
        if (*line) override[args.n_overrides++] = line;
    struct config *c = NULL;
    if (!config_parse_text("fuzz.yaml", (const char *)data, yaml, &args, &c)) must_read_back(c);
    config_free(c);
    free(rest);
    return 0;
}
