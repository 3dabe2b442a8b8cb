/* Reading safetensors: one file, or an index and its shards, checked whole before anything is used. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/hf.h"
#include "checkpoints/jdoc.h"
#include "checkpoints/st_dtype.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

enum { MAX_HEADER = 100000000, MAX_RANK = 8, MAX_NAME = 1024 };

const struct st_dtype st_dtypes[] = {
    {"BOOL", 8, -1},    {"F4", 4, -1},       {"F6_E2M3", 6, -1},    {"F6_E3M2", 6, -1},     {"U8", 8, DT_U8},       {"I8", 8, -1},
    {"F8_E5M2", 8, -1}, {"F8_E4M3", 8, -1},  {"F8_E8M0", 8, -1},    {"F8_E4M3FNUZ", 8, -1}, {"F8_E5M2FNUZ", 8, -1}, {"I16", 16, -1},
    {"U16", 16, -1},    {"F16", 16, DT_F16}, {"BF16", 16, DT_BF16}, {"I32", 32, DT_I32},    {"U32", 32, -1},        {"F32", 32, DT_F32},
    {"C64", 64, -1},    {"F64", 64, DT_F64}, {"I64", 64, DT_I64},   {"U64", 64, -1},        {NULL, 0, 0},
};

static status check_name(const char *path, const char *name)
{
    size_t n = strlen(name);
    if (n > MAX_NAME) FAIL(ST_CORRUPT, "%s: a tensor name has %zu bytes, at most %d are taken", path, n, MAX_NAME);
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            FAIL(ST_CORRUPT, "%s: a tensor name has a control character (byte 0x%02x)", path, (unsigned char)*p);
    return ST_OK;
}

static status parse_shape(const char *path, const char *name, const json_t *shape, struct st_entry *e)
{
    if (!json_is_array(shape)) FAIL(ST_CORRUPT, "%s: tensor '%s': shape is not a list", path, name);
    size_t rank = json_array_size(shape);
    if (rank > MAX_RANK) FAIL(ST_CORRUPT, "%s: tensor '%s' has %zu dimensions, at most %d are taken", path, name, rank, MAX_RANK);
    e->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            FAIL(ST_CORRUPT, "%s: tensor '%s': dimension %zu is %s, not a natural number", path, name, i, jdoc_show(d));
        e->dim[i] = json_integer_value(d);
    }
    return ST_OK;
}

/* Bytes of the shape × dtype, checked. */
static status shape_bytes(const char *path, const struct st_entry *e, int bits, uint64_t *bytes)
{
    uint64_t n = (uint64_t)bits;
    for (int i = 0; i < e->rank; i++)
        if (e->dim[i] == 0) n = 0;
    for (int i = 0; i < e->rank && n; i++)
        if (__builtin_mul_overflow(n, (uint64_t)e->dim[i], &n))
            FAIL(ST_CORRUPT, "%s: tensor '%s': the product of its dimensions overflows", path, e->name);
    if (n % 8) FAIL(ST_CORRUPT, "%s: tensor '%s': %llu bits are no whole bytes", path, e->name, (unsigned long long)n);
    *bytes = n / 8;
    return ST_OK;
}

/* Reads one header entry; the data pointer is set from its offsets into [buffer, buffer + buffer_bytes). */
static status parse_entry(const char *path, const char *name, json_t *v, const unsigned char *buffer, uint64_t buffer_bytes,
                          struct st_entry *e)
{
    TRY(check_name(path, name));
    e->name = mem_strdup(name);
    e->file = path;
    const json_t *dt = json_object_get(v, "dtype"), *span = json_object_get(v, "data_offsets");
    if (!json_is_object(v) || json_object_size(v) != 3 || !json_is_string(dt) || !json_object_get(v, "shape") || !span)
        FAIL(ST_CORRUPT, "%s: tensor '%s' must be {\"dtype\", \"shape\", \"data_offsets\"} but is %s", path, name, jdoc_show(v));
    const struct st_dtype *t = st_dtypes;
    while (t->text && strcmp(t->text, json_string_value(dt)) != 0) t++;
    if (!t->text) FAIL(ST_CORRUPT, "%s: tensor '%s' has the unknown dtype %s", path, name, jdoc_show(dt));
    e->known = t->dt >= 0;
    if (e->known) e->dt = (dtype)t->dt;
    strcpy(e->dtype_text, t->text);
    TRY(parse_shape(path, name, json_object_get(v, "shape"), e));

    const json_t *b = json_array_get(span, 0), *end = json_array_get(span, 1);
    if (json_array_size(span) != 2 || !json_is_integer(b) || !json_is_integer(end))
        FAIL(ST_CORRUPT, "%s: tensor '%s': data_offsets is %s, not two integers", path, name, jdoc_show(span));
    int64_t lo = json_integer_value(b), hi = json_integer_value(end);
    if (lo < 0 || hi < lo || (uint64_t)hi > buffer_bytes)
        FAIL(ST_CORRUPT, "%s: tensor '%s': data_offsets [%lld, %lld] do not lie in the %llu data bytes of the file", path, name,
             (long long)lo, (long long)hi, (unsigned long long)buffer_bytes);
    uint64_t want = 0;
    TRY(shape_bytes(path, e, t->bits, &want));
    if (want != (uint64_t)(hi - lo))
        FAIL(ST_CORRUPT, "%s: tensor '%s': its shape needs %llu bytes but data_offsets span %lld", path, name, (unsigned long long)want,
             (long long)(hi - lo));
    e->data = buffer + lo;
    e->bytes = (size_t)want;
    return ST_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct st_entry *x = *(const struct st_entry *const *)a, *y = *(const struct st_entry *const *)b;
    if (x->data != y->data) return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b) { return strcmp(((const struct st_entry *)a)->name, ((const struct st_entry *)b)->name); }

/* Sorted by place the tensors must tile the buffer. */
static status check_tiling(const char *path, const struct st_entry *entries, int n, const unsigned char *buffer, uint64_t buffer_bytes)
{
    const struct st_entry **order = mem_alloc((size_t)(n + 1) * sizeof *order);
    for (int i = 0; i < n; i++) order[i] = &entries[i];
    qsort(order, (size_t)n, sizeof *order, by_place);
    const unsigned char *at = buffer;
    status st = ST_OK;
    for (int i = 0; i < n; i++) {
        const unsigned char *begin = order[i]->data;
        if (begin != at)
            FAIL_DONE(ST_CORRUPT, "%s: tensor '%s' begins at data byte %lld, but the bytes before it end at %lld (%s)", path,
                      order[i]->name, (long long)(begin - buffer), (long long)(at - buffer), begin < at ? "overlap" : "hole");
        at = begin + order[i]->bytes;
    }
    if ((uint64_t)(at - buffer) != buffer_bytes)
        FAIL_DONE(ST_CORRUPT, "%s: the tensors end at data byte %lld but the file has %llu; it is truncated or has a tail", path,
                  (long long)(at - buffer), (unsigned long long)buffer_bytes);
done:
    free(order);
    return st;
}

static status check_metadata(const char *path, json_t *meta)
{
    if (!json_is_object(meta)) FAIL(ST_CORRUPT, "%s: __metadata__ is not an object", path);
    const char *key;
    json_t *v;
    json_object_foreach(meta, key, v) if (!json_is_string(v))
        FAIL(ST_CORRUPT, "%s: __metadata__ holds %s where a string must be", path, jdoc_show(v));
    return ST_OK;
}

void st_entries_free(struct st_entry *entries, int n)
{
    for (int i = 0; i < n; i++) free(entries[i].name);
    free(entries);
}

status st_parse(const char *path, const unsigned char *data, size_t bytes, struct st_entry **entries, int *n)
{
    *entries = NULL;
    *n = 0;
    if (bytes < 8) FAIL(ST_CORRUPT, "%s: %zu bytes; a safetensors file has at least 8", path, bytes);
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--) header = header << 8 | data[i];
    if (header > MAX_HEADER || header > bytes - 8)
        FAIL(ST_CORRUPT, "%s: header length %llu is more than %s; not a safetensors file, or truncated", path, (unsigned long long)header,
             header > MAX_HEADER ? "the permitted 100000000" : "the file holds");
    if (header < 2 || data[8] != '{') FAIL(ST_CORRUPT, "%s: the header does not start with '{'; not a safetensors file", path);

    json_t *root = NULL;
    struct st_entry *list = NULL;
    int count = 0;
    const unsigned char *buffer = data + 8 + header;
    uint64_t buffer_bytes = bytes - 8 - header;
    status st;
    TRY_DONE(jdoc_parse(path, (const char *)data + 8, (size_t)header, &root, NULL));
    list = mem_alloc((json_object_size(root) + 1) * sizeof *list);
    const char *name;
    json_t *v;
    json_object_foreach(root, name, v)
    {
        if (strcmp(name, "__metadata__") == 0) {
            TRY_DONE(check_metadata(path, v));
            continue;
        }
        TRY_DONE(parse_entry(path, name, v, buffer, buffer_bytes, &list[count++]));
    }
    TRY_DONE(check_tiling(path, list, count, buffer, buffer_bytes));
    qsort(list, (size_t)count, sizeof *list, by_name);
    *entries = list;
    *n = count;
done:
    if (st) st_entries_free(list, count);
    json_decref(root);
    return st;
}

/* Maps and parses one file; the set owns the map, the caller the entries. */
static status open_file(struct st_set *set, const char *path, struct st_entry **entries, int *n)
{
    set->maps = mem_grow(set->maps, (size_t)(set->n_maps + 1) * sizeof *set->maps);
    struct file_map *m = &set->maps[set->n_maps];
    TRY(file_map_open(m, path));
    set->n_maps++;
    return st_parse(m->path, m->data, m->bytes, entries, n);
}

static status open_single(struct st_set *set, const char *path) { return open_file(set, path, &set->entries, &set->n); }

/* A shard must be a plain file name beside its index, so that an index cannot reach elsewhere. */
static bool plain_name(const char *s)
{
    size_t n = strlen(s);
    return n > 12 && n < 256 && s[0] != '.' && !strchr(s, '/') && strcmp(s + n - 12, ".safetensors") == 0;
}

/* Unique shard names of a checked weight_map in *files (borrowed strings). */
static status list_shards(const char *index, json_t *map, const char ***files, int *n)
{
    size_t count = json_object_size(map);
    json_t *seen = json_object();
    *files = mem_alloc((count + 1) * sizeof **files);
    status st = ST_OK;
    const char *name;
    json_t *file;
    json_object_foreach(map, name, file)
    {
        TRY_DONE(check_name(index, name));
        const char *f = json_string_value(file);
        if (!f || !plain_name(f))
            FAIL_DONE(ST_CORRUPT, "%s: weight_map sends '%s' to %s; it must be the plain name of a .safetensors file beside the index",
                      index, name, jdoc_show(file));
        if (json_object_get(seen, f)) continue;
        json_object_set_new(seen, f, json_true());
        (*files)[(*n)++] = f;
    }
done:
    json_decref(seen);
    return st;
}

static status check_shards_exist(const char *dir, const char *index, const char **files, int n)
{
    struct buf missing = {0};
    for (int i = 0; i < n; i++) {
        char *path = mem_printf("%s/%s", dir, files[i]);
        if (!file_exists(path)) buf_printf(&missing, " %s", files[i]);
        free(path);
    }
    status st = missing.len ? status_fail(ST_IO, "%s: these files of the index are missing from %s:%s", index, dir, missing.data) : ST_OK;
    buf_release(&missing);
    return st;
}

/* An index and its shards on the way to one set. An index is often older than its shards; but it is needed only to tell
 * copies of one tensor apart, and the tensors of all shards are the model (transformers reads them so). */
struct gathering {
    json_t *map;             /* the index's weight_map */
    struct st_entry *strays; /* not in the shard that the index says, or not in the index */
    int n_strays;
};

static void keep_assigned(struct st_set *set, struct gathering *g, const char *file, struct st_entry *entries, int n)
{
    set->entries = mem_grow(set->entries, (size_t)(set->n + n + 1) * sizeof *entries);
    g->strays = mem_grow(g->strays, (size_t)(g->n_strays + n + 1) * sizeof *entries);
    for (int i = 0; i < n; i++) {
        const char *want = json_string_value(json_object_get(g->map, entries[i].name));
        if (want && strcmp(want, file) == 0)
            set->entries[set->n++] = entries[i];
        else
            g->strays[g->n_strays++] = entries[i];
    }
    free(entries);
}

/* Strays of which there is no copy where the index says join the set; the set is sorted before and after. */
static status adopt_strays(const char *index, struct st_set *set, struct gathering *g)
{
    struct st_entry *all = mem_grow(set->entries, (size_t)(set->n + g->n_strays + 1) * sizeof *all);
    int n = set->n, copies = 0;
    status st = ST_OK;
    set->entries = all;
    if (g->n_strays) qsort(g->strays, (size_t)g->n_strays, sizeof *g->strays, by_name);
    for (int i = 0; i < g->n_strays; i++) {
        struct st_entry *e = &g->strays[i];
        if (st_find(set, e->name))
            copies++;
        else if (n > set->n && strcmp(all[n - 1].name, e->name) == 0)
            st = status_fail(ST_CORRUPT, "%s: it does not say which '%s' is meant, the one in %s or the one in %s", index, e->name,
                             all[n - 1].file, e->file);
        else {
            all[n++] = *e;
            e->name = NULL; /* it has moved */
        }
    }
    if (n > set->n) log_warn("%s: %d tensors are not in the file that it says; they are taken from where they are", index, n - set->n);
    if (copies) log_warn("%s: its files hold %d older copies of tensors; the ones that it names are taken", index, copies);
    set->n = n;
    qsort(all, (size_t)n, sizeof *all, by_name);
    return st;
}

/* Whether what is missing is needed is the model's to say: a tied lm_head is often still in the index. */
static void tell_missing(const char *index, const struct st_set *set, json_t *map)
{
    enum { SHOWN = 5 };
    struct buf missing = {0};
    int n = 0;
    const char *name;
    json_t *file;
    json_object_foreach(map, name, file) if (!st_find(set, name) && ++n <= SHOWN)
        buf_printf(&missing, "\n  %s (should be in %s)", name, json_string_value(file));
    if (n) log_warn("%s: %d of its tensors are in none of its files:%s%s", index, n, missing.data, n > SHOWN ? "\n  …" : "");
    buf_release(&missing);
}

static status open_shards(struct st_set *set, struct gathering *g, const char *dir, const char *const *files, int n_files)
{
    for (int i = 0; i < n_files; i++) {
        char *path = mem_printf("%s/%s", dir, files[i]);
        struct st_entry *entries = NULL;
        int n = 0;
        status st = open_file(set, path, &entries, &n);
        free(path);
        TRY(st);
        keep_assigned(set, g, files[i], entries, n);
    }
    if (set->n) qsort(set->entries, (size_t)set->n, sizeof *set->entries, by_name);
    return ST_OK;
}

static status open_index(struct st_set *set, const char *dir, const char *index)
{
    char *text = NULL;
    size_t bytes;
    json_t *root = NULL;
    const char **files = NULL;
    struct gathering g = {0};
    int n_files = 0;
    status st;
    TRY_DONE(file_read(index, MAX_HEADER, &text, &bytes));
    TRY_DONE(jdoc_parse(index, text, bytes, &root, NULL));
    struct jdoc d = {index, "", root};
    TRY_DONE(jdoc_need(&d, "weight_map"));
    TRY_DONE(jdoc_object(&d, "weight_map", &g.map));
    TRY_DONE(list_shards(index, g.map, &files, &n_files));
    TRY_DONE(check_shards_exist(dir, index, files, n_files));
    TRY_DONE(open_shards(set, &g, dir, files, n_files));
    TRY_DONE(adopt_strays(index, set, &g));
    tell_missing(index, set, g.map);
done:
    st_entries_free(g.strays, g.n_strays);
    free(files);
    free(text);
    json_decref(root);
    return st;
}

/* Why a directory without safetensors cannot be read. */
static status nothing_to_read(const char *dir, const char *stem)
{
    static const char *const pickles[] = {".bin", ".pth", ".pt"};
    DIR *d = opendir(dir);
    if (!d) FAIL(ST_IO, "%s: cannot read directory: %s", dir, strerror(errno));
    char found[256] = "";
    for (struct dirent *e; (e = readdir(d)) && !found[0];)
        for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++) {
            size_t n = strlen(e->d_name), k = strlen(pickles[i]);
            if (n > k && strcmp(e->d_name + n - k, pickles[i]) == 0) memcpy(found, e->d_name, n + 1);
        }
    closedir(d);
    if (found[0])
        FAIL(ST_NOT_BUILT,
             "%s: has only PyTorch pickles (%s), which can run code when read and are refused; use the safetensors "
             "variant of the model (most hubs offer one, or save it again with safe_serialization=True)",
             dir, found);
    FAIL(ST_IO, "%s: has neither %s.safetensors nor %s.safetensors.index.json", dir, stem, stem);
}

bool st_exists(const char *dir, const char *stem)
{
    char *single = mem_printf("%s/%s.safetensors", dir, stem), *index = mem_printf("%s/%s.safetensors.index.json", dir, stem);
    bool found = file_exists(single) || file_exists(index);
    free(single);
    free(index);
    return found;
}

status st_open(const char *dir_or_file, const char *stem, struct st_set *out)
{
    *out = (struct st_set){0};
    char *single = mem_printf("%s/%s.safetensors", dir_or_file, stem);
    char *index = mem_printf("%s/%s.safetensors.index.json", dir_or_file, stem);
    status st;
    if (!file_exists(dir_or_file))
        st = status_fail(ST_IO, "%s: no such file or directory", dir_or_file);
    else if (!file_is_dir(dir_or_file))
        st = open_single(out, dir_or_file);
    else if (file_exists(single))
        st = open_single(out, single);
    else if (file_exists(index))
        st = open_index(out, dir_or_file, index);
    else
        st = nothing_to_read(dir_or_file, stem);
    if (!st && file_is_dir(dir_or_file) && file_exists(single) && file_exists(index))
        log_note("%s is read; the index beside it, which is for a model in several files, is not", single);
    for (int i = 0; i < out->n; i++) out->bytes += out->entries[i].bytes;
    free(single);
    free(index);
    if (st) st_close(out);
    return st;
}

void st_close(struct st_set *s)
{
    st_entries_free(s->entries, s->n);
    for (int i = 0; i < s->n_maps; i++) file_map_close(&s->maps[i]);
    free(s->maps);
    *s = (struct st_set){0};
}

const struct st_entry *st_find(const struct st_set *s, const char *name)
{
    struct st_entry key = {.name = (char *)(uintptr_t)name};
    return s->n ? bsearch(&key, s->entries, (size_t)s->n, sizeof key, by_name) : NULL;
}
