/* test_torchtune.c — torchtune's own files: they validate unchanged but for paths and data, and for every key of every
 * one of them a misspelling and a wrong type are refused with file, line and the right name. */
#include <ctype.h>
#include <dirent.h>
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

enum { FILES_MAX = 64, LINES_MAX = 512, KEYS_MAX = 128 };

static char *folder;
static char *files[FILES_MAX];
static int n_files;

static const char *const overrides[] = {"checkpointer.checkpoint_dir=/models/base", "output_dir=/tmp/trimpot-test", "dataset.source=json",
                                        "dataset.data_files=rows.json"};

static char *validate(const char *name, const char *text)
{
    struct config_args args = {.overrides = overrides, .n_overrides = 4};
    struct config *c = NULL;
    status st = config_parse_text(name, text, strlen(text), &args, &c);
    config_free(c);
    if (st && st != ST_USAGE) fail_msg("%s: status %d", name, st);
    return st ? mem_strdup(status_message()) : NULL;
}

static char *read_file(const char *name)
{
    char *path = mem_printf("%s/%s", folder, name), *text = NULL;
    size_t n;
    assert_int_equal(file_read(path, YNODE_MAX_BYTES, &text, &n), ST_OK);
    free(path);
    return text;
}

static void every_file_validates(void **state)
{
    (void)state;
    for (int f = 0; f < n_files; f++) {
        char *text = read_file(files[f]), *message = validate(files[f], text);
        if (message) fail_msg("%s is refused: %s", files[f], message);
        free(message);
        free(text);
    }
    print_message("%d files\n", n_files);
}

/* ---- every key ---- */

struct key {
    int line, indent; /* line from 0 */
    char name[64], section[64];
};

struct text {
    char *copy;
    char *line[LINES_MAX];
    int n;
    struct key key[KEYS_MAX];
    int n_keys;
};

static void split(struct text *t, char *text)
{
    t->copy = text;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n"))) {
        assert_true(t->n < LINES_MAX);
        t->line[t->n++] = line;
    }
    char section[64] = "";
    for (int i = 0; i < t->n; i++) {
        int indent = (int)strspn(t->line[i], " ");
        const char *word = t->line[i] + indent;
        size_t n = strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
        if (!n || n >= 64 || word[n] != ':' || (word[n + 1] && word[n + 1] != ' ')) continue;
        assert_true(t->n_keys < KEYS_MAX);
        struct key *k = &t->key[t->n_keys++];
        *k = (struct key){.line = i, .indent = indent};
        memcpy(k->name, word, n);
        if (indent == 0)
            snprintf(section, sizeof section, "%s", k->name);
        else
            strcpy(k->section, section);
    }
}

/* The file again with line i replaced and the lines after it, up to `until`, left out. */
static char *with_line(const struct text *t, int i, const char *replacement, int until)
{
    struct buf out = {0};
    for (int k = 0; k < t->n; k++) {
        if (k > i && k < until) continue;
        buf_text(&out, k == i ? replacement : t->line[k]);
        buf_text(&out, "\n");
    }
    return out.data;
}

/* Four ways to miss a letter; false if the result is a key after all. */
static bool misspell(const struct key *k, int way, char *out)
{
    size_t n = strlen(k->name), mid = n / 2;
    strcpy(out, k->name);
    switch (way) {
    case 0:
        memmove(out + mid, out + mid + 1, n - mid);
        break; /* left out */
    case 1:
        memmove(out + mid + 1, out + mid, n - mid + 1);
        break; /* doubled */
    case 2:
        out[mid] = out[mid] == 'x' ? 'z' : 'x';
        break; /* another */
    case 3:
        out[mid] = k->name[mid - 1], out[mid - 1] = k->name[mid];
        break; /* swapped */
    }
    if (!strcmp(out, k->name) || !*out) return false;
    return !schema_row(k->section, out) && !(!*k->section && schema_section(out));
}

static void check_misspelling(const char *file, const struct text *t, const struct key *k, int way)
{
    char bad[80];
    if (!misspell(k, way, bad)) return;
    const char *dot = *k->section ? "." : "";
    char *line = mem_printf("%*s%s%s", k->indent, "", bad, t->line[k->line] + k->indent + strlen(k->name));
    char *text = with_line(t, k->line, line, k->line + 1), *message = validate(file, text);
    char *told = mem_printf("%s:%d:%d: unknown key %s%s%s; did you mean %s%s%s?", file, k->line + 1, k->indent + 1, k->section, dot, bad,
                            k->section, dot, k->name);
    if (!message || !strstr(message, told)) fail_msg("expected: %s\ntold: %s", told, message ? message : "nothing");
    free(line);
    free(text);
    free(message);
    free(told);
}

static void misspelt(void **state)
{
    (void)state;
    int tried = 0;
    for (int f = 0; f < n_files; f++) {
        struct text t = {0};
        split(&t, read_file(files[f]));
        assert_true(t.n_keys > 30);
        for (int k = 0; k < t.n_keys; k++)
            for (int way = 0; way < 4; way++, tried++) check_misspelling(files[f], &t, &t.key[k], way);
        free(t.copy);
    }
    print_message("%d misspelt keys\n", tried);
}

/* Values that do not fit, by what the schema says of the key; each must be refused. */
static int wrong_values(const struct key *k, const char *out[4])
{
    int n = 0;
    if (!*k->section && schema_section(k->name)) {
        out[n++] = "7";
        if (strcmp(k->name, "dataset")) out[n++] = "[a, b]";
        return n;
    }
    out[n++] = "{not: this}";
    if (!strcmp(k->name, "_component_")) {
        out[n++] = "no.such.component";
        return n;
    }
    const struct row *row = schema_row(k->section, k->name);
    assert_non_null(row);
    bool text = row->type == T_TEXT || row->type == T_TEXTS || row->type == T_TEMPLATE;
    if (row->type == T_FILES || row->type == T_FLAGS)
        out[n++] = "banana";
    else if (row->type != T_TEXTS)
        out[n++] = "[1, 2, x]";
    if (!text && row->type != T_FILES && row->type != T_FLAGS) out[n++] = "banana";
    if (row->type == T_INT) out[n++] = "1.5";
    return n;
}

static void check_wrong_type(const char *file, const struct text *t, int index, const char *value)
{
    const struct key *k = &t->key[index];
    int until = k->line + 1;
    if (strchr(t->line[k->line], '[') && !strchr(t->line[k->line], ']')) { /* a list over several lines */
        while (until < t->n && !strchr(t->line[until], ']')) until++;
        until++;
    } else if (!*k->section && schema_section(k->name)) { /* a group */
        while (until < t->n && (!t->line[until][0] || isspace((unsigned char)t->line[until][0]) || t->line[until][0] == '#')) until++;
    }
    char *line = mem_printf("%*s%s: %s", k->indent, "", k->name, value);
    char *text = with_line(t, k->line, line, until), *message = validate(file, text);
    char *place = mem_printf("%s:%d:", file, k->line + 1);
    const char *at = message ? strstr(message, place) : NULL;
    size_t n = at ? strcspn(at, "\n") : 0;
    char *told = at ? strndup(at, n) : NULL;
    if (!told || !strstr(told, k->name)) fail_msg("%s '%s' is not refused there; told: %s", place, line, message ? message : "nothing");
    free(told);
    free(line);
    free(text);
    free(message);
    free(place);
}

static bool is_overridden(const struct key *k)
{
    char *path = mem_printf("%s%s%s=", k->section, *k->section ? "." : "", k->name);
    bool found = false;
    for (int i = 0; i < 4; i++) found = found || !strncmp(overrides[i], path, strlen(path));
    free(path);
    return found;
}

static void wrong_type(void **state)
{
    (void)state;
    int tried = 0;
    for (int f = 0; f < n_files; f++) {
        struct text t = {0};
        split(&t, read_file(files[f]));
        for (int k = 0; k < t.n_keys; k++) {
            const char *values[4];
            int n = is_overridden(&t.key[k]) ? 0 : wrong_values(&t.key[k], values);
            /* an override reaches into a group, so its scalar stand-in is reported at the argument: tested elsewhere */
            if (!*t.key[k].section && (!strcmp(t.key[k].name, "dataset") || !strcmp(t.key[k].name, "checkpointer"))) n = 0;
            for (int i = 0; i < n; i++, tried++) check_wrong_type(files[f], &t, k, values[i]);
        }
        free(t.copy);
    }
    print_message("%d wrong values\n", tried);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void find_files(void)
{
    DIR *top = opendir(folder);
    for (struct dirent *family; top && (family = readdir(top));) {
        char *path = mem_printf("%s/%s", folder, family->d_name);
        DIR *dir = family->d_name[0] == '.' ? NULL : opendir(path);
        for (struct dirent *e; dir && (e = readdir(dir)) && n_files < FILES_MAX;)
            if (strstr(e->d_name, ".yaml")) files[n_files++] = mem_printf("%s/%s", family->d_name, e->d_name);
        if (dir) closedir(dir);
        free(path);
    }
    if (top) closedir(top);
    qsort(files, (size_t)n_files, sizeof *files, by_name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file_validates),
        cmocka_unit_test(misspelt),
        cmocka_unit_test(wrong_type),
    };
    const char *shared = getenv("TRIMPOT_SHARED");
    folder = mem_printf("%s/data/torchtune-configs", shared ? shared : TRIMPOT_SOURCE_DIR "/../shared");
    find_files();
    if (!n_files) {
        printf("SKIPPED: no torchtune configurations in %s (set TRIMPOT_SHARED)\n", folder);
        free(folder);
        return 77;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < n_files; i++) free(files[i]);
    free(folder);
    return failed;
}
