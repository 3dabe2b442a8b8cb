/* shipped.c — the files that are shipped: FOLDER/FILE below the place of their kind, all below one directory. */
#include "configs/shipped.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"

enum { FILES_MAX = 1000 };

struct shipped_kind {
    const char *what;  /* in messages */
    const char *place; /* holds the folders, below the directory of everything shipped */
    const char *suffix;
    bool suffix_named;   /* the suffix belongs to the name */
    const char *command; /* what an edited copy is for */
};

static const struct shipped_kind kinds[] = {
    {"recipe", "recipes", ".yaml", false, "trimpot validate"},
    {"batch script", ".", ".sbatch", true, "sbatch"},
};
static const struct shipped_kind *const recipe = &kinds[0];

struct list {
    struct shipped *files;
    int count;
};

static void scan_folder(struct list *l, const struct shipped_kind *kind, const char *place, const char *folder)
{
    char *path = mem_printf("%s/%s", place, folder);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir)) && l->count < FILES_MAX;) {
        size_t n = strlen(e->d_name), k = strlen(kind->suffix);
        if (e->d_name[0] == '.' || n <= k || strcmp(e->d_name + n - k, kind->suffix) != 0) continue;
        l->files = mem_grow(l->files, (size_t)(l->count + 1) * sizeof *l->files);
        l->files[l->count++] = (struct shipped){
            .name = mem_printf("%s/%.*s", folder, (int)(kind->suffix_named ? n : n - k), e->d_name),
            .path = mem_printf("%s/%s", path, e->d_name),
            .kind = kind,
        };
    }
    if (dir) closedir(dir);
    free(path);
}

static int by_kind_and_name(const void *a, const void *b)
{
    const struct shipped *x = a, *y = b;
    return x->kind != y->kind ? (x->kind < y->kind ? -1 : 1) : strcmp(x->name, y->name);
}

struct shipped *shipped_list(const char *shipped_dir, int *count)
{
    struct list l = {0};
    for (size_t k = 0; shipped_dir && k < sizeof kinds / sizeof *kinds; k++) {
        char *place = mem_printf("%s/%s", shipped_dir, kinds[k].place);
        DIR *dir = opendir(place);
        for (struct dirent *e; dir && (e = readdir(dir));)
            if (e->d_name[0] != '.') scan_folder(&l, &kinds[k], place, e->d_name);
        if (dir) closedir(dir);
        free(place);
    }
    if (l.files) qsort(l.files, (size_t)l.count, sizeof *l.files, by_kind_and_name);
    *count = l.count;
    return l.files;
}

void shipped_release(struct shipped *f)
{
    free(f->name);
    free(f->path);
    *f = (struct shipped){0};
}

void shipped_free(struct shipped *files, int count)
{
    for (int i = 0; i < count; i++) shipped_release(&files[i]);
    free(files);
}

static bool is_named(const struct shipped *f, const char *word)
{
    const char *suffix = f->kind->suffix;
    size_t stem = strlen(f->name) - (f->kind->suffix_named ? strlen(suffix) : 0);
    return strncmp(word, f->name, stem) == 0 && (word[stem] == 0 || strcmp(word + stem, suffix) == 0);
}

/* *out is empty where nothing has that name; *near, the nearest one or NULL, is the caller's to free. */
static bool look_up(const char *shipped_dir, const char *word, struct shipped *out, char **near)
{
    int n;
    struct shipped *files = shipped_list(shipped_dir, &n);
    const char **names = mem_alloc((size_t)(n + 1) * sizeof *names);
    *out = (struct shipped){0};
    for (int i = 0; i < n; i++) {
        names[i] = files[i].name;
        if (!out->name && is_named(&files[i], word))
            *out = (struct shipped){mem_strdup(files[i].name), mem_strdup(files[i].path), files[i].kind};
    }
    const char *nearest = text_nearest(word, names, n);
    *near = nearest ? mem_strdup(nearest) : NULL;
    free(names);
    shipped_free(files, n);
    return out->name != NULL;
}

static status no_such(const char *said, const char *what, const char *near)
{
    if (near) FAIL(ST_USAGE, "%s: %s; did you mean %s?", said, what, near);
    FAIL(ST_USAGE, "%s: %s (`trimpot ls` lists them)", said, what);
}

status shipped_find(const char *shipped_dir, const char *name, struct shipped *out)
{
    char *near;
    status st = look_up(shipped_dir, name, out, &near) ? ST_OK : no_such(name, "no recipe and no batch script of that name", near);
    free(near);
    return st;
}

status shipped_recipe(const char *shipped_dir, const char *name, char **path)
{
    struct shipped f;
    char *near, *said = mem_printf("--config %s", name);
    status st = ST_OK;
    *path = NULL;
    if (!look_up(shipped_dir, name, &f, &near))
        st = no_such(said, "no such file, and no recipe of that name", near);
    else if (f.kind != recipe)
        st = status_fail(ST_USAGE, "%s: a %s, no configuration; `trimpot cp %s FILE`, edit it, then: %s FILE", said, f.kind->what, f.name,
                         f.kind->command);
    else
        *path = mem_strdup(f.path);
    shipped_release(&f);
    free(near);
    free(said);
    return st;
}

const char *shipped_command(const struct shipped *f) { return f->kind->command; }
