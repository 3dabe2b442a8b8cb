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
            FAIL(ST_CORRUPT,
                 "%s: bytes before %lld read back differently from what was written; the disk or its driver fails",
                 path, (long long)(offset + done));
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
        FAIL_DONE(ST_CORRUPT, "%s: its hash is %s but the manifest says %s", path, hash_text(is),
                  hash_text(m->shards[shard].hash));
done:
    if (fd >= 0) close(fd);
    free(sums);
    free(buffer);
    free(path);
    return st;
}

struct span {
    int64_t lo, hi;
};

/* One piece of a part: wholly wanted ones are read in place, others through the buffer. `want` and `dst` describe the
 * caller's range: dst holds element want.lo first. */
static status read_piece(int fd, const char *path, const struct ckpt_part *p, size_t size, struct span piece,
                         hash128 sum, struct span want, char *dst, char *buffer)
{
    int64_t bytes = (piece.hi - piece.lo) * (int64_t)size, offset = p->offset + (piece.lo - p->lo) * (int64_t)size;
    bool whole = piece.lo >= want.lo && piece.hi <= want.hi;
    char *to = whole ? dst + (size_t)(piece.lo - want.lo) * size : buffer;
    TRY(read_at(fd, path, offset, bytes, to));
    if (!hash_equal(hash_bytes(to, (size_t)bytes), sum))
        FAIL(ST_CORRUPT, "%s: bytes %lld..%lld differ from what was saved", path, (long long)offset,
             (long long)(offset + bytes));
    if (whole) return ST_OK;
    int64_t lo = piece.lo > want.lo ? piece.lo : want.lo, hi = piece.hi < want.hi ? piece.hi : want.hi;
    memcpy(dst + (size_t)(lo - want.lo) * size, buffer + (size_t)(lo - piece.lo) * size, (size_t)(hi - lo) * size);
    return ST_OK;
}

static status read_shard(const char *dir, const struct ckpt_manifest *m, int shard, int k, struct span want, char *dst,
                         char *buffer)
{
    const struct ckpt_part *p = &m->shards[shard].part[k];
    int64_t each = ckpt_piece_elements(m->classes[k].dt), first = ckpt_first_piece(m, &m->shards[shard], k);
    char *path = shard_path(dir, shard, "h5");
    hash128 *sums = NULL;
    int fd = -1;
    status st;
    TRY_DONE(read_sums(dir, m, shard, &sums));
    TRY_DONE(open_shard(path, &fd));
    for (int64_t i = 0, n = ckpt_pieces(p, m->classes[k].dt); i < n; i++) {
        struct span piece = {p->lo + i * each, i + 1 == n ? p->hi : p->lo + (i + 1) * each};
        if (piece.hi <= want.lo || piece.lo >= want.hi) continue;
        TRY_DONE(read_piece(fd, path, p, dtype_bytes(m->classes[k].dt), piece, sums[first + i], want, dst, buffer));
    }
done:
    if (fd >= 0) close(fd);
    free(sums);
    free(path);
    return st;
}

status shard_read_range(const char *dir, const struct ckpt_manifest *m, int k, int64_t lo, int64_t hi, void *dst)
{
    char *buffer = mem_alloc(CKPT_PIECE);
    status st = ST_OK;
    for (int i = 0; i < m->n_shards && !st; i++) {
        const struct ckpt_part *p = &m->shards[i].part[k];
        if (p->hi > lo && p->lo < hi) st = read_shard(dir, m, i, k, (struct span){lo, hi}, dst, buffer);
    }
    free(buffer);
    return st;
}
