#include "kernels/base/arena.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void arena_init(struct arena *a, const char *name) { *a = (struct arena){.name = name}; }

void arena_release(struct arena *a)
{
    free(a->rows);
    *a = (struct arena){.name = a->name};
}

static void record(struct arena *a, size_t bytes, const char *name, va_list ap)
{
    if (a->n_rows == a->cap_rows) {
        a->cap_rows = a->cap_rows ? 2 * a->cap_rows : 64;
        a->rows = realloc(a->rows, (size_t)a->cap_rows * sizeof *a->rows);
        if (!a->rows) {
            fprintf(stderr, "trimpot: out of memory while planning memory\n");
            exit(ST_OOM);
        }
    }
    struct arena_row *row = &a->rows[a->n_rows++];
    vsnprintf(row->name, sizeof row->name, name, ap);
    row->bytes = bytes;
    row->offset = a->used;
}

void *arena_take(struct arena *a, size_t bytes, const char *name, ...)
{
    size_t offset = a->used;
    if (!a->base) {
        va_list ap;
        va_start(ap, name);
        record(a, bytes, name, ap);
        va_end(ap);
    } else {
        assert(a->next_row < a->n_rows && a->rows[a->next_row].offset == offset && a->rows[a->next_row].bytes == bytes);
        a->next_row++;
    }
    a->used += (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    assert(!a->base || a->used <= a->size);
    return a->base ? a->base + offset : NULL;
}

void arena_bind(struct arena *a, void *base)
{
    a->size = a->used;
    a->base = base;
    a->used = 0;
    a->next_row = 0;
}

size_t arena_need(const struct arena *a) { return a->base ? a->size : a->used; }
