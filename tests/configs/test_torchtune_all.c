/* test_torchtune_all.c — every configuration that torchtune ships validates unchanged but for paths and data, or is one of
 * torchtune_refused.txt and refused for the reason that stands there. TRIMPOT_TORCHTUNE names a checkout of torchtune. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "configs/schema.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"

enum { FILES_MAX = 1024 };

static char *folder, *files[FILES_MAX];
static int n_files;

static struct {
    char name[120];
    const char *reason; /* in `list` */
    bool met;
} refused[FILES_MAX];
static int n_refused;
static char *list;

/* Why a file is refused; NULL: it is not. Caller frees. */
static char *validate(const char *name)
{
    static const char *const overrides[] = {"checkpointer.checkpoint_dir=/models/base", "output_dir=/tmp/trimpot-test",
                                            "dataset.source=json", "dataset.data_files=rows.json"};
    struct config_args args = {.overrides = overrides, .n_overrides = 4};
    struct config *c = NULL;
    char *path = mem_printf("%s/%s", folder, name), *text = NULL;
    size_t n;
    assert_int_equal(file_read(path, YNODE_MAX_BYTES, &text, &n), ST_OK);
    status st = config_parse_text(name, text, n, &args, &c);
    config_free(c);
    free(path);
    free(text);
    if (st && st != ST_USAGE) fail_msg("%s: status %d", name, st);
    return st ? mem_strdup(status_message()) : NULL;
}

static const char *why_refused(const char *name)
{
    for (int i = 0; i < n_refused; i++) {
        if (strcmp(refused[i].name, name)) continue;
        refused[i].met = true;
        return refused[i].reason;
    }
    return NULL;
}

static void every_file(void **state)
{
    (void)state;
    int wrong = 0, good = 0;
    for (int i = 0; i < n_files; i++) {
        const char *reason = why_refused(files[i]);
        char *message = validate(files[i]);
        good += !message;
        bool as_listed = message ? reason && strstr(message, reason) : !reason;
        if (!as_listed) print_error("%s: listed: %s\ntold: %s\n\n", files[i], reason ? reason : "valid", message ? message : "nothing");
        wrong += !as_listed;
        free(message);
    }
    for (int i = 0; i < n_refused; i++) {
        if (!refused[i].met) print_error("%s is listed and is not there\n", refused[i].name);
        wrong += !refused[i].met;
    }
    print_message("%d configurations: %d valid, %d refused as listed\n", n_files, good, n_files - good);
    assert_int_equal(wrong, 0);
}

static void read_list(void)
{
    char *rest, *line;
    size_t n;
    if (file_read(TRIMPOT_SOURCE_DIR "/tests/configs/torchtune_refused.txt", 1 << 20, &list, &n)) exit(1);
    rest = list;
    while ((line = strsep(&rest, "\n"))) {
        size_t name = strcspn(line, " ");
        if (!*line || *line == '#') continue;
        if (n_refused == FILES_MAX || name >= sizeof refused[0].name || !line[name]) exit(1);
        memcpy(refused[n_refused].name, line, name);
        refused[n_refused++].reason = line + name + strspn(line + name, " ");
    }
}

static int add_file(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)at;
    const char *dot = strrchr(path, '.');
    if (type == FTW_F && dot && !strcmp(dot, ".yaml") && n_files < FILES_MAX) files[n_files++] = mem_strdup(path + strlen(folder) + 1);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_file)};
    const char *torchtune = getenv("TRIMPOT_TORCHTUNE");
    log_init(0, 1, LOG_QUIET);
    folder = mem_printf("%s/recipes/configs", torchtune ? torchtune : "");
    if (torchtune) nftw(folder, add_file, 16, FTW_PHYS);
    if (!n_files) {
        printf("SKIPPED: no configurations in '%s' (TRIMPOT_TORCHTUNE names a checkout of torchtune)\n", torchtune ? folder : "");
        free(folder);
        return 77;
    }
    read_list();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < n_files; i++) free(files[i]);
    free(list);
    free(folder);
    return failed;
}
