/* Reading shards without HDF5: bytes at recorded offsets, each piece hashed before anybody uses it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/ckpt_shard.h"
#include "kernels/base/file.h"

/* A file that is missing, shorter or unreadable on the disk is a damaged checkpoint; anything else is our environment.
 */
static status damage(int error) { return error == ENOENT || error == EIO || error == ENOTDIR ? ST_CORRUPT : ST_IO; }

static char *shard_path(const char *dir, int shard, const char *suffix)
{
    char name[32];
    ckpt_shard_name(name, shard, suffix);
    return mem_printf("%s/%s", dir, name);
}

static status open_shard(const char *path, int *fd)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) return status_fail(damage(errno), "%s: cannot open: %s", path, strerror(errno));
    return ST_OK;
}

static status read_at(int fd, const char *path, int64_t offset, int64_t n, void *out)
{
    for (int64_t done = 0; done < n;) {
        ssize_t got = pread(fd, (char *)out + done, (size_t)(n - done), (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return status_fail(damage(errno), "%s: cannot read: %s", path, strerror(errno));
        if (got == 0) FAIL(ST_CORRUPT, "%s: ends at byte %lld, too early", path, (long long)(offset + done));
        done += got;
    }
    return ST_OK;
}

/* In chunks that stay in the cache while up to three hashes take them up. */
status shard_hash_span(int fd, const char *path, int64_t offset, int64_t n, void *buffer, struct hash_stream *file,
                       struct hash_stream *part, const hash128 *pieces)
{
    enum { CHUNK = 256 << 10 };
    struct hash_stream piece;
    hash_stream_init(&piece);
    for (int64_t done = 0; done < n;) {
        int64_t bytes = n - done < CHUNK ? n - done : CHUNK;
        TRY(read_at(fd, path, offset + done, bytes, buffer));
        hash_stream_add(file, buffer, (size_t)bytes);
        if (part) hash_stream_add(part, buffer, (size_t)bytes);
        if (pieces) hash_stream_add(&piece, buffer, (size_t)bytes);
        int64_t begin = done / CKPT_PIECE;
        done += bytes;
        if (!pieces || (done % CKPT_PIECE && done != n)) continue;
        if (!hash_equal(hash_stream_end(&piece), pieces[begin]))
            FAIL(ST_CORRUPT, "%s: bytes before %lld read back differently from what was written; the disk or its driver fails", path,
                 (long long)(offset + done));
    }
    return ST_OK;
}

static int64_t sum_bytes(const struct ckpt_manifest *m, int shard)
{
    return ckpt_first_piece(m, &m->shards[shard], m->n_classes) * (int64_t)sizeof(hash128);
}

static status check_size(const char *path, int64_t want)
{
    struct stat s;
    if (stat(path, &s)) return status_fail(damage(errno), "%s: %s", path, strerror(errno));
    if (!S_ISREG(s.st_mode) || s.st_size != want)
        FAIL(ST_CORRUPT, "%s: has %lld bytes, the manifest says %lld", path, (long long)s.st_size, (long long)want);
    return ST_OK;
}

status shard_check_size(const char *dir, const struct ckpt_manifest *m, int shard)
{
    char *h5 = shard_path(dir, shard, "h5"), *sum = shard_path(dir, shard, "sum");
    status st = check_size(h5, m->shards[shard].bytes);
    if (!st) st = check_size(sum, sum_bytes(m, shard));
    free(h5);
    free(sum);
    return st;
}

/* The .sum of a shard, its own hash checked; *out is the caller's. */
static status read_sums(const char *dir, const struct ckpt_manifest *m, int shard, hash128 **out)
{
    char *path = shard_path(dir, shard, "sum");
    int64_t bytes = sum_bytes(m, shard);
    int fd = -1;
    *out = NULL;
    status st;
    TRY_DONE(check_size(path, bytes)); /* bounds the allocation by a real file */
    TRY_DONE(open_shard(path, &fd));
    *out = mem_alloc((size_t)bytes + 1);
    TRY_DONE(read_at(fd, path, 0, bytes, *out));
    if (!hash_equal(hash_bytes(*out, (size_t)bytes), m->shards[shard].sum_hash))
        FAIL_DONE(ST_CORRUPT, "%s: its hash differs from the manifest's", path);
done:
    if (fd >= 0) close(fd);
    if (st) {
        free(*out);
        *out = NULL;
    }
    free(path);
    return st;
}

status shard_check_hash(const char *dir, const struct ckpt_manifest *m, int shard)
{
    char *path = shard_path(dir, shard, "h5");
    struct hash_stream file;
    void *buffer = mem_alloc(CKPT_PIECE);
    hash128 *sums = NULL;
    int fd = -1;
    status st;
    hash_stream_init(&file);
    TRY_DONE(shard_check_size(dir, m, shard));
    TRY_DONE(read_sums(dir, m, shard, &sums));
    TRY_DONE(open_shard(path, &fd));
    TRY_DONE(shard_hash_span(fd, path, 0, m->shards[shard].bytes, buffer, &file, NULL, NULL));
    hash128 is = hash_stream_end(&file);
    if (!hash_equal(is, m->shards[shard].hash))
        FAIL_DONE(ST_CORRUPT, "%s: its hash is %s but the manifest says %s", path, hash_text(is), hash_text(m->shards[shard].hash));
done:
    if (fd >= 0) close(fd);
    free(sums);
    free(buffer);
    free(path);
    return st;
}

/* ---- one class in ascending order -----------------------------------------------------------------------------------
 */

struct shard_open {
    int shard, fd;
    char *path;
    hash128 *sums;      /* of the whole shard */
    struct range piece; /* stored elements now in the buffer, verified */
    char buffer[CKPT_PIECE];
};

void shard_reader_close(struct shard_reader *r)
{
    struct shard_open *o = r->now;
    r->now = NULL;
    if (!o) return;
    if (o->fd >= 0) close(o->fd);
    free(o->sums);
    free(o->path);
    free(o);
}

static status open_for(struct shard_reader *r, int shard)
{
    if (r->now && r->now->shard == shard) return ST_OK;
    shard_reader_close(r);
    struct shard_open *o = r->now = mem_alloc(sizeof *o);
    o->shard = shard;
    o->fd = -1;
    o->path = shard_path(r->dir, shard, "h5");
    TRY(read_sums(r->dir, r->m, shard, &o->sums));
    return open_shard(o->path, &o->fd);
}

/* The piece of the open shard that holds element `at`. */
static status load_piece(struct shard_reader *r, const struct ckpt_part *p, int64_t at)
{
    struct shard_open *o = r->now;
    dtype dt = r->m->classes[r->k].dt;
    int64_t each = ckpt_piece_elements(dt), size = (int64_t)dtype_bytes(dt), i = (at - p->lo) / each;
    if (at >= o->piece.lo && at < o->piece.hi) return ST_OK;
    struct range piece = {p->lo + i * each, p->hi - p->lo - i * each < each ? p->hi : p->lo + (i + 1) * each};
    int64_t bytes = range_count(piece) * size, offset = p->offset + i * each * size;
    o->piece = (struct range){0, 0};
    TRY(read_at(o->fd, o->path, offset, bytes, o->buffer));
    if (!hash_equal(hash_bytes(o->buffer, (size_t)bytes), o->sums[ckpt_first_piece(r->m, &r->m->shards[o->shard], r->k) + i]))
        FAIL(ST_CORRUPT, "%s: bytes %lld..%lld differ from what was saved", o->path, (long long)offset, (long long)(offset + bytes));
    o->piece = piece;
    return ST_OK;
}

status shard_reader_read(struct shard_reader *r, int64_t lo, int64_t hi, void *dst)
{
    size_t size = dtype_bytes(r->m->classes[r->k].dt);
    char *to = dst;
    for (int i = 0; i < r->m->n_shards && lo < hi; i++) {
        const struct ckpt_part *p = &r->m->shards[i].part[r->k];
        while (lo < hi && lo >= p->lo && lo < p->hi) {
            TRY(open_for(r, i));
            TRY(load_piece(r, p, lo));
            struct range got = range_meet(r->now->piece, (struct range){lo, hi});
            size_t bytes = (size_t)range_count(got) * size;
            memcpy(to, r->now->buffer + (size_t)(lo - r->now->piece.lo) * size, bytes);
            to += bytes;
            lo = got.hi;
        }
    }
    return ST_OK;
}
