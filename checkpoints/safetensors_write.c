/* Writing safetensors: all bytes go to temporary files that reserve their space first; nothing carries
 * the final name before every byte is on disk. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "checkpoints/hf.h"
#include "checkpoints/jdoc.h"
#include "checkpoints/st_dtype.h"
#include "kernels/base/text.h"

struct shard {
    char *name, *tmp; /* file name; path of its temporary file */
    int first, count; /* in w->order */
    size_t data_bytes;
};

struct st_writer {
    char *dir, *stem;
    struct item {
        struct st_declare d;
        char *name;
        int index;
        size_t bytes;
        const char *type;
    } * order;
    int n, next;
    size_t written; /* of tensor `next` */
    struct shard *shards;
    int n_shards, open_shard; /* open_shard: whose file fd is, -1 none */
    int fd;
    bool failed;
};

static int by_width_then_name(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    size_t wx = dtype_bytes(x->d.dt), wy = dtype_bytes(y->d.dt);
    if (wx != wy) return wx > wy ? -1 : 1;
    return strcmp(x->name, y->name);
}

static const char *type_text(dtype dt)
{
    const struct st_dtype *t = st_dtypes;
    while (t->text && t->dt != (int)dt) t++;
    return t->text;
}

static status take_declarations(struct st_writer *w, const struct st_declare *tensors, int n)
{
    w->order = mem_alloc((size_t)(n + 1) * sizeof *w->order);
    for (int i = 0; i < n; i++) {
        struct item *it = &w->order[i];
        *it = (struct item){.d = tensors[i], .name = mem_strdup(tensors[i].name), .index = i, .type = type_text(tensors[i].dt)};
        w->n++;
        int64_t bytes = (int64_t)dtype_bytes(tensors[i].dt);
        for (int k = 0; k < tensors[i].rank; k++)
            if (tensors[i].dim[k] < 0 || __builtin_mul_overflow(bytes, tensors[i].dim[k], &bytes))
                FAIL(ST_FAIL, "tensor '%s' to be written has an impossible shape", it->name);
        it->bytes = (size_t)bytes;
    }
    qsort(w->order, (size_t)n, sizeof *w->order, by_width_then_name);
    return ST_OK;
}

/* Equal names would be neighbours only within one width, so they are looked for in name order. */
static int by_name_only(const void *a, const void *b) { return strcmp((*(struct item *const *)a)->name, (*(struct item *const *)b)->name); }

static status check_unique(const struct st_writer *w)
{
    struct item **p = mem_alloc((size_t)(w->n + 1) * sizeof *p);
    for (int i = 0; i < w->n; i++) p[i] = &w->order[i];
    qsort(p, (size_t)w->n, sizeof *p, by_name_only);
    status st = ST_OK;
    for (int i = 1; i < w->n && !st; i++)
        if (strcmp(p[i - 1]->name, p[i]->name) == 0) st = status_fail(ST_FAIL, "tensor '%s' would be written twice", p[i]->name);
    free(p);
    return st;
}

static void plan_shards(struct st_writer *w, size_t limit)
{
    w->shards = mem_alloc((size_t)(w->n + 1) * sizeof *w->shards);
    w->n_shards = 1;
    for (int i = 0; i < w->n; i++) {
        struct shard *s = &w->shards[w->n_shards - 1];
        if (limit && s->count && s->data_bytes + w->order[i].bytes > limit) {
            s = &w->shards[w->n_shards++];
            s->first = i;
        }
        s->count++;
        s->data_bytes += w->order[i].bytes;
    }
    for (int i = 0; i < w->n_shards; i++) {
        struct shard *s = &w->shards[i];
        s->name = w->n_shards == 1 ? mem_printf("%s.safetensors", w->stem)
                                   : mem_printf("%s-%05d-of-%05d.safetensors", w->stem, i + 1, w->n_shards);
        s->tmp = mem_printf("%s/%s.tmp", w->dir, s->name);
    }
}

static void build_header(const struct st_writer *w, const struct shard *s, struct buf *b)
{
    char length[8] = {0};
    buf_add(b, length, sizeof length);
    buf_text(b, "{\"__metadata__\":{\"format\":\"pt\"}");
    size_t at = 0;
    for (int i = s->first; i < s->first + s->count; i++) {
        const struct item *it = &w->order[i];
        buf_text(b, ",");
        jdoc_quote(b, it->name);
        buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", it->type);
        for (int k = 0; k < it->d.rank; k++) buf_printf(b, "%s%lld", k ? "," : "", (long long)it->d.dim[k]);
        buf_printf(b, "],\"data_offsets\":[%zu,%zu]}", at, at + it->bytes);
        at += it->bytes;
    }
    buf_text(b, "}");
    while (b->len % 8) buf_text(b, " ");
    for (uint64_t n = b->len - 8, i = 0; i < 8; i++) b->data[i] = (char)(n >> (8 * i));
}

static status check_free_space(const struct st_writer *w)
{
    struct statvfs v;
    if (statvfs(w->dir, &v)) FAIL(ST_IO, "%s: cannot ask for free space: %s", w->dir, strerror(errno));
    double need = 65536, have = (double)v.f_bavail * (double)v.f_frsize;
    for (int i = 0; i < w->n; i++) need += (double)w->order[i].bytes + 256 + (double)strlen(w->order[i].name);
    if (need > have) FAIL(ST_IO, "%s: %s are needed to write %s but %s are free", w->dir, text_bytes(need), w->stem, text_bytes(have));
    return ST_OK;
}

static status open_shard(struct st_writer *w, int index)
{
    struct shard *s = &w->shards[index];
    struct buf header = {0};
    status st = ST_OK;
    build_header(w, s, &header);
    w->fd = open(s->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (w->fd < 0) FAIL_DONE(ST_IO, "%s: cannot create: %s", s->tmp, strerror(errno));
    w->open_shard = index;
    if (fallocate(w->fd, 0, 0, (off_t)(header.len + s->data_bytes)) && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        FAIL_DONE(ST_IO, "%s: cannot reserve %s: %s", s->tmp, text_bytes((double)(header.len + s->data_bytes)), file_error(errno));
    TRY_DONE(file_write_all(w->fd, header.data, header.len, s->tmp));
done:
    buf_release(&header);
    return st;
}

static status seal_shard(struct st_writer *w)
{
    if (w->open_shard < 0) return ST_OK;
    const char *tmp = w->shards[w->open_shard].tmp;
    w->open_shard = -1;
    int bad = fsync(w->fd), error = errno;
    if (close(w->fd) && !bad) bad = 1, error = errno;
    w->fd = -1;
    if (bad) FAIL(ST_IO, "%s: cannot fsync: %s", tmp, strerror(error));
    return ST_OK;
}

/* Opens shards until the next unwritten tensor belongs to the open one. */
static status advance(struct st_writer *w)
{
    int index = w->open_shard < 0 ? 0 : w->open_shard;
    if (w->open_shard < 0) return open_shard(w, index);
    struct shard *s = &w->shards[index];
    if (w->next < s->first + s->count || index + 1 == w->n_shards) return ST_OK;
    TRY(seal_shard(w));
    return open_shard(w, index + 1);
}

status st_writer_open(const char *dir, const char *stem, const struct st_declare *tensors, int n, size_t shard_bytes,
                      struct st_writer **out)
{
    *out = NULL;
    struct st_writer *w = mem_alloc(sizeof *w);
    *w = (struct st_writer){.dir = mem_strdup(dir), .stem = mem_strdup(stem), .open_shard = -1, .fd = -1};
    status st;
    TRY_DONE(file_mkdirs(dir));
    TRY_DONE(take_declarations(w, tensors, n));
    TRY_DONE(check_unique(w));
    plan_shards(w, shard_bytes);
    TRY_DONE(check_free_space(w));
    TRY_DONE(advance(w));
    *out = w;
    w = NULL;
done:
    if (w) st_writer_close(w, false);
    return st;
}

int st_writer_next(const struct st_writer *w) { return w->next < w->n ? w->order[w->next].index : -1; }

status st_writer_add(struct st_writer *w, const void *data, size_t bytes)
{
    if (w->next >= w->n || bytes > w->order[w->next].bytes - w->written) {
        w->failed = true;
        FAIL(ST_FAIL, "%s/%s: more is written than was declared", w->dir, w->stem);
    }
    status st = file_write_all(w->fd, data, bytes, w->shards[w->open_shard].tmp);
    w->written += bytes;
    if (w->written == w->order[w->next].bytes) {
        w->next++;
        w->written = 0;
        if (!st) st = advance(w);
    }
    if (st) w->failed = true;
    return st;
}

status st_writer_put(struct st_writer *w, const void *data)
{
    return st_writer_add(w, data, w->next < w->n ? w->order[w->next].bytes - w->written : 0);
}

static status write_index(const struct st_writer *w, const char *path)
{
    struct buf b = {0};
    size_t total = 0;
    for (int i = 0; i < w->n_shards; i++) total += w->shards[i].data_bytes;
    buf_printf(&b, "{\n  \"metadata\": {\n    \"total_size\": %zu\n  },\n  \"weight_map\": {", total);
    struct item **p = mem_alloc((size_t)(w->n + 1) * sizeof *p);
    for (int i = 0; i < w->n; i++) p[i] = &w->order[i];
    qsort(p, (size_t)w->n, sizeof *p, by_name_only);
    for (int i = 0; i < w->n; i++) {
        int s = 0;
        while (p[i] - w->order >= w->shards[s].first + w->shards[s].count) s++;
        buf_text(&b, i ? ",\n    " : "\n    ");
        jdoc_quote(&b, p[i]->name);
        buf_text(&b, ": ");
        jdoc_quote(&b, w->shards[s].name);
    }
    buf_text(&b, "\n  }\n}\n");
    status st = file_replace(path, b.data, b.len);
    free(p);
    buf_release(&b);
    return st;
}

/* Is `name` a weight file of this stem that the new set does not contain? */
static bool is_stale(const struct st_writer *w, const char *name)
{
    size_t n = strlen(w->stem);
    if (strncmp(name, w->stem, n) != 0) return false;
    for (int i = 0; i < w->n_shards; i++)
        if (strcmp(name, w->shards[i].name) == 0) return false;
    const char *rest = name + n;
    int a, b, used = 0;
    if (strcmp(rest, ".safetensors") == 0) return true;
    if (strcmp(rest, ".safetensors.index.json") == 0) return w->n_shards == 1;
    return sscanf(rest, "-%5d-of-%5d.safetensors%n", &a, &b, &used) == 2 && used && rest[used] == 0;
}

/* An older set of the same stem must not be mistaken for part of this one. */
static status remove_stale(const struct st_writer *w)
{
    DIR *d = opendir(w->dir);
    if (!d) FAIL(ST_IO, "%s: cannot read directory: %s", w->dir, strerror(errno));
    status st = ST_OK;
    for (struct dirent *e; (e = readdir(d)) && !st;)
        if (is_stale(w, e->d_name) && unlinkat(dirfd(d), e->d_name, 0))
            st = status_fail(ST_IO, "%s/%s: cannot remove the file of an older export: %s", w->dir, e->d_name, strerror(errno));
    closedir(d);
    return st;
}

static status commit_files(struct st_writer *w)
{
    if (w->failed || w->next != w->n)
        FAIL(ST_FAIL, "%s/%s: %d of %d tensors were written; nothing is committed", w->dir, w->stem, w->next, w->n);
    TRY(seal_shard(w));
    for (int i = 0; i < w->n_shards; i++) {
        char *path = mem_printf("%s/%s", w->dir, w->shards[i].name);
        status st = rename(w->shards[i].tmp, path)
                        ? status_fail(ST_IO, "%s: cannot rename to %s: %s", w->shards[i].tmp, path, strerror(errno))
                        : ST_OK;
        free(path);
        TRY(st);
    }
    if (w->n_shards > 1) {
        char *path = mem_printf("%s/%s.safetensors.index.json", w->dir, w->stem);
        status st = write_index(w, path);
        free(path);
        TRY(st);
    }
    TRY(remove_stale(w));
    return file_sync_dir(w->dir);
}

status st_writer_close(struct st_writer *w, bool commit)
{
    status st = commit ? commit_files(w) : ST_OK;
    if (w->fd >= 0) close(w->fd);
    for (int i = 0; i < w->n_shards; i++) {
        unlink(w->shards[i].tmp); /* gone already when it was renamed */
        free(w->shards[i].name);
        free(w->shards[i].tmp);
    }
    for (int i = 0; i < w->n; i++) free(w->order[i].name);
    free(w->order);
    free(w->shards);
    free(w->dir);
    free(w->stem);
    free(w);
    return st;
}
