/* recipes.c — the configurations that are shipped: FAMILY/NAME.yaml below one directory. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "kernels/base/file.h"
#include "kernels/base/text.h"

enum { RECIPES_MAX = 1000 };
static const char suffix[] = ".yaml";

static bool is_recipe(const char *name)
{
    size_t n = strlen(name), k = sizeof suffix - 1;
    return name[0] != '.' && n > k && !strcmp(name + n - k, suffix);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void scan_family(const char *root, const char *family, char ***names, int *count)
{
    char *path = mem_printf("%s/%s", root, family);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir)) && *count < RECIPES_MAX;) {
        if (!is_recipe(e->d_name)) continue;
        *names = mem_grow(*names, (size_t)(*count + 1) * sizeof **names);
        (*names)[(*count)++] = mem_printf("%s/%.*s", family, (int)(strlen(e->d_name) - sizeof suffix + 1), e->d_name);
    }
    if (dir) closedir(dir);
    free(path);
}

char **config_recipes(const char *recipes_dir, int *count)
{
    char **names = NULL;
    *count = 0;
    DIR *dir = recipes_dir ? opendir(recipes_dir) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (e->d_name[0] != '.') scan_family(recipes_dir, e->d_name, &names, count);
    if (dir) closedir(dir);
    if (names) qsort(names, (size_t)*count, sizeof *names, by_name);
    return names;
}

status config_recipe_path(const char *recipes_dir, const char *name, char **path)
{
    int n;
    char **names = config_recipes(recipes_dir, &n);
    char *bare = mem_strdup(name);
    if (is_recipe(bare)) bare[strlen(bare) - sizeof suffix + 1] = 0;
    *path = NULL;
    for (int i = 0; i < n && !*path; i++)
        if (!strcmp(names[i], bare)) *path = mem_printf("%s/%s%s", recipes_dir, names[i], suffix);
    status st = ST_OK;
    if (!*path) {
        const char *near = text_nearest(bare, (const char *const *)names, n);
        st = near
                 ? status_fail(ST_USAGE, "--config %s: no such file, and no recipe of that name; did you mean %s?",
                               name, near)
                 : status_fail(ST_USAGE,
                               "--config %s: no such file, and no recipe of that name (`trimpot ls` lists them)", name);
    }
    for (int i = 0; i < n; i++) free(names[i]);
    free(names);
    free(bare);
    return st;
}
