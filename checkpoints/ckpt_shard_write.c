#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/ckpt_shard.h"
#include "kernels/base/file.h"

struct writer {
    const char *path;
    const struct ckpt_state *s;
    struct ckpt_shard *out;
    hash128 *all_sums, *sums[CKPT_MAX_CLASSES]; /* of the pieces of each class, one after the other */
    int64_t n_sums;
};

/* The disk must have room for the whole file before its first byte is written. */
static status reserve(const char *path, int fd, int64_t bytes)
{
    if (fallocate(fd, 0, 0, bytes) == 0) return ST_OK;
    if ((errno == EOPNOTSUPP || errno == ENOSYS) && ftruncate(fd, bytes) == 0) return ST_OK;
    FAIL(ST_IO, "%s: cannot reserve %s: %s", path, text_bytes((double)bytes), file_error(errno));
}

/* All writing is by our own hand; first HDF5's own bytes … */
static status write_layout(const char *path, int fd, const struct h5_image *image)
{
    for (int i = 0; i < image->n; i++) {
        const struct h5_page *p = &image->pages[i];
        if (p->at >= image->bytes) continue;
        int64_t n = image->bytes - p->at < H5_PAGE ? image->bytes - p->at : H5_PAGE;
        if (lseek(fd, p->at, SEEK_SET) < 0) FAIL(ST_IO, "%s: cannot seek: %s", path, strerror(errno));
        TRY(file_write_all(fd, p->byte, (size_t)n, path));
    }
    return ST_OK;
}

/* … then the data, over the zeros of pages that reach into them, a piece at a time: hashed and written while it is in the
 * cache. */
static status write_data(const struct writer *w, int fd, int k, void *buffer)
{
    const struct ckpt_class *c = &w->s->classes[k];
    const struct ckpt_part *p = &w->out->part[k];
    int64_t size = (int64_t)dtype_bytes(c->dt), each = ckpt_piece_elements(c->dt);
    if (p->lo == p->hi) return ST_OK;
    if (lseek(fd, (off_t)p->offset, SEEK_SET) < 0) FAIL(ST_IO, "%s: cannot seek: %s", w->path, strerror(errno));
    for (int64_t i = 0, at = p->lo; at < p->hi; i++, at += each) {
        int64_t n = p->hi - at < each ? p->hi - at : each;
        TRY(c->read(c->owner, at, n, buffer));
        w->sums[k][i] = hash_bytes(buffer, (size_t)(n * size));
        TRY(file_write_all(fd, buffer, (size_t)(n * size), w->path));
        sync_file_range(fd, (off_t)(p->offset + (at - p->lo) * size), (off_t)(n * size), SYNC_FILE_RANGE_WRITE); /* the disk begins now */
    }
    return ST_OK;
}

/* Classes by place in the file; HDF5 puts small data sets into gaps before larger ones. Returns how many have bytes. */
static int by_place(const struct writer *w, int order[CKPT_MAX_CLASSES])
{
    const struct ckpt_part *p = w->out->part;
    int n = 0;
    for (int k = 0; k < w->s->n_classes; k++) {
        if (p[k].lo == p[k].hi) continue;
        int i = n++;
        for (; i > 0 && p[order[i - 1]].offset > p[k].offset; i--) order[i] = order[i - 1];
        order[i] = k;
    }
    return n;
}

/* What is on the disk, from first byte to last: HDF5's own bytes between the parts enter the hash of the file, the
 * parts also their own, and every piece must be what was hashed in memory. */
static status reread(const struct writer *w, int fd, void *buffer)
{
    struct hash_stream file, part;
    hash_stream_init(&file);
    hash_stream_init(&part);
    int order[CKPT_MAX_CLASSES], n = by_place(w, order);
    int64_t at = 0;
    for (int k = 0; k < w->s->n_classes; k++) w->out->part[k].hash = hash_bytes("", 0);
    for (int i = 0; i < n; i++) {
        struct ckpt_part *p = &w->out->part[order[i]];
        int64_t bytes = (p->hi - p->lo) * (int64_t)dtype_bytes(w->s->classes[order[i]].dt);
        if (p->offset < at) FAIL(ST_IO, "%s: HDF5 laid two data sets over each other", w->path);
        TRY(shard_hash_span(fd, w->path, at, p->offset - at, buffer, &file, NULL, NULL));
        TRY(shard_hash_span(fd, w->path, p->offset, bytes, buffer, &file, &part, w->sums[order[i]]));
        p->hash = hash_stream_end(&part);
        at = p->offset + bytes;
    }
    if (w->out->bytes < at) FAIL(ST_IO, "%s: is shorter than its data sets", w->path);
    TRY(shard_hash_span(fd, w->path, at, w->out->bytes - at, buffer, &file, NULL, NULL));
    w->out->hash = hash_stream_end(&file);
    return ST_OK;
}

/* Reserve, write, re-read, fsync. A difference found now is a failing disk, not a corrupt input. */
static status write_h5(const struct writer *w)
{
    struct h5_image image = {0};
    void *buffer = mem_alloc(CKPT_PIECE);
    int fd = -1;
    status st;
    TRY_DONE(ckpt_h5_layout(w->path, w->s, w->out, &image));
    w->out->bytes = image.bytes;
    fd = open(w->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) FAIL_DONE(ST_IO, "%s: cannot create: %s", w->path, strerror(errno));
    TRY_DONE(reserve(w->path, fd, image.bytes));
    TRY_DONE(write_layout(w->path, fd, &image));
    for (int k = 0; k < w->s->n_classes; k++) TRY_DONE(write_data(w, fd, k, buffer));
    if (reread(w, fd, buffer)) FAIL_DONE(ST_IO, "%s", status_message());
    if (fsync(fd)) FAIL_DONE(ST_IO, "%s: cannot fsync: %s", w->path, strerror(errno));
done:
    if (fd >= 0 && close(fd) && !st) st = status_fail(ST_IO, "%s: cannot close: %s", w->path, strerror(errno));
    h5_image_release(&image);
    free(buffer);
    return st;
}

static status write_sums(const struct writer *w, const char *path)
{
    size_t bytes = (size_t)w->n_sums * sizeof *w->all_sums;
    status st = ST_OK;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) FAIL(ST_IO, "%s: cannot create: %s", path, strerror(errno));
    st = file_write_all(fd, w->all_sums, bytes, path);
    if (!st && fsync(fd)) st = status_fail(ST_IO, "%s: cannot fsync: %s", path, strerror(errno));
    if (close(fd) && !st) st = status_fail(ST_IO, "%s: cannot close: %s", path, strerror(errno));
    w->out->sum_hash = hash_bytes(w->all_sums, bytes);
    return st;
}

status shard_write(const char *dir, int rank, int ranks, const struct ckpt_state *s, struct ckpt_shard *out)
{
    char h5[32], sum[32];
    ckpt_shard_name(h5, rank, "h5");
    ckpt_shard_name(sum, rank, "sum");
    char *h5_path = mem_printf("%s/%s", dir, h5), *sum_path = mem_printf("%s/%s", dir, sum);
    struct writer w = {.path = h5_path, .s = s, .out = out};
    *out = (struct ckpt_shard){0};
    for (int k = 0; k < s->n_classes; k++) {
        struct range mine = ckpt_owned(&s->classes[k], rank, ranks);
        out->part[k] = (struct ckpt_part){.lo = mine.lo, .hi = mine.hi};
        w.n_sums += ckpt_pieces(&out->part[k], s->classes[k].dt);
    }
    w.all_sums = mem_alloc((size_t)(w.n_sums + 1) * sizeof *w.all_sums);
    hash128 *next = w.all_sums;
    for (int k = 0; k < s->n_classes; k++) {
        w.sums[k] = next;
        next += ckpt_pieces(&out->part[k], s->classes[k].dt);
    }
    status st;
    TRY_DONE(write_h5(&w));
    TRY_DONE(write_sums(&w, sum_path));
done:
    free(w.all_sums);
    free(h5_path);
    free(sum_path);
    return st;
}
