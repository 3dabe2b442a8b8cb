#include "worker/data/pack.h"

#include <stddef.h>

#include "kernels/base/text.h"

void spans_push(struct spans *a, struct span s)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 256;
        a->v = mem_grow(a->v, (size_t)a->cap * sizeof *a->v);
    }
    a->v[a->n++] = s;
}

void starts_push(struct starts *a, int64_t first)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 256;
        a->v = mem_grow(a->v, (size_t)a->cap * sizeof *a->v);
    }
    a->v[a->n++] = first;
}

struct span span_part(const struct span *s, int64_t from, int64_t n) { return (struct span){.at = s->at + from, .n = n, .row = s->row}; }

void pack(const struct spans *documents, int64_t max, bool split, struct spans *out, struct starts *items)
{
    int64_t room = 0;
    for (int64_t i = 0; i < documents->n; i++) {
        const struct span *d = &documents->v[i];
        for (int64_t from = 0; from < d->n;) {
            int64_t left = d->n - from;
            if (room == 0 || (!split && left > room)) {
                starts_push(items, out->n);
                room = max;
            }
            int64_t take = left < room ? left : room;
            spans_push(out, span_part(d, from, take));
            room -= take;
            from += take;
        }
    }
}
