/* file.h — files as the operating system gives them: mapped for reading, replaced atomically when written. */
#ifndef TRIMPOT_FILE_H
#define TRIMPOT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

/* A file mapped read-only (MAP_PRIVATE: pages stay in the page cache and are shared between ranks). */
struct file_map {
    const unsigned char *data;
    size_t bytes;
    char *path; /* owned, for messages */
};

status file_map_open(struct file_map *m, const char *path); /* ST_IO: missing, unreadable, not a regular file, or a Git
                                                             * LFS pointer in place of one */
void file_map_close(struct file_map *m);

/* Whole file as a NUL-terminated string (caller frees). ST_IO as above, or ST_CORRUPT if larger than `limit` bytes. */
status file_read(const char *path, size_t limit, char **text, size_t *bytes);

/* Writes path.tmp, fsyncs, renames over path, fsyncs the directory. On failure the old file is untouched and the
 * temporary one is gone. */
status file_replace(const char *path, const void *data, size_t bytes);

/* strerror for writes: with EFBIG also the limit that was met. Valid until the thread's next call. */
const char *file_error(int error);

/* Writes all bytes or fails; retries EINTR and short writes. `path` is for the message. */
status file_write_all(int fd, const void *data, size_t bytes, const char *path);

status file_mkdirs(const char *path);               /* like mkdir -p */
status file_sync_dir(const char *path);             /* fsync of the directory itself */
status file_remove_tree(const char *path);          /* like rm -rf; a missing path is fine */
status file_copy(const char *from, const char *to); /* through file_replace's protocol */
bool file_exists(const char *path);
bool file_is_dir(const char *path);

#endif
