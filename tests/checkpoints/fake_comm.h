/* fake_comm.h — ranks as threads, for tests: the collectives of comm.h over shared memory. */
#ifndef TRIMPOT_FAKE_COMM_H
#define TRIMPOT_FAKE_COMM_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "collectives/comm.h"

enum { FAKE_MAX = 16 };

struct fake_world {
    int size;
    pthread_barrier_t gate;
    const void *slot[FAKE_MAX];
    void (*after_bcast)(int rank, int count); /* a test's saboteur; NULL = none */
};

struct fake_rank {
    struct fake_world *world;
    int bcasts;
};

static inline status fake_barrier(struct comm *c)
{
    pthread_barrier_wait(&((struct fake_rank *)c->impl)->world->gate);
    return ST_OK;
}

static inline status fake_bcast(struct comm *c, void *data, size_t bytes, int root)
{
    struct fake_rank *r = c->impl;
    struct fake_world *w = r->world;
    w->slot[c->rank] = data;
    pthread_barrier_wait(&w->gate);
    if (c->rank != root) memcpy(data, w->slot[root], bytes);
    pthread_barrier_wait(&w->gate);
    if (w->after_bcast) w->after_bcast(c->rank, ++r->bcasts);
    return ST_OK;
}

static inline status fake_all_gather(struct comm *c, const void *mine, void *all, size_t each)
{
    struct fake_world *w = ((struct fake_rank *)c->impl)->world;
    w->slot[c->rank] = mine;
    pthread_barrier_wait(&w->gate);
    for (int i = 0; i < c->size; i++) memmove((char *)all + (size_t)i * each, w->slot[i], each);
    pthread_barrier_wait(&w->gate);
    return ST_OK;
}

static inline status fake_gather_in_place(struct comm *c, void *data, const size_t *bytes, const size_t *offset)
{
    struct fake_world *w = ((struct fake_rank *)c->impl)->world;
    w->slot[c->rank] = data;
    pthread_barrier_wait(&w->gate);
    for (int i = 0; i < c->size; i++)
        if (i != c->rank && bytes[i]) memcpy((char *)data + offset[i], (const char *)w->slot[i] + offset[i], bytes[i]);
    pthread_barrier_wait(&w->gate);
    return ST_OK;
}

static const struct comm_table fake_table = {.name = "fake",
                                             .barrier = fake_barrier,
                                             .bcast = fake_bcast,
                                             .all_gather = fake_all_gather,
                                             .all_gather_in_place = fake_gather_in_place};

struct fake_job {
    struct comm comm;
    struct fake_rank rank;
    void (*body)(struct comm *c, void *arg);
    void *arg;
};

static inline void *fake_thread(void *p)
{
    struct fake_job *j = p;
    j->body(&j->comm, j->arg);
    return NULL;
}

/* Runs body(comm, arg) on `size` ranks at once. */
static inline void fake_run(int size, void (*after_bcast)(int, int), void (*body)(struct comm *, void *), void *arg)
{
    struct fake_world w = {.size = size, .after_bcast = after_bcast};
    struct fake_job jobs[FAKE_MAX];
    pthread_t threads[FAKE_MAX];
    pthread_barrier_init(&w.gate, NULL, (unsigned)size);
    for (int r = 0; r < size; r++) {
        jobs[r] = (struct fake_job){.comm = {.fn = &fake_table, .rank = r, .size = size, .local_rank = r, .local_size = size},
                                    .rank = {.world = &w},
                                    .body = body,
                                    .arg = arg};
        jobs[r].comm.impl = &jobs[r].rank;
        pthread_create(&threads[r], NULL, fake_thread, &jobs[r]);
    }
    for (int r = 0; r < size; r++) pthread_join(threads[r], NULL);
    pthread_barrier_destroy(&w.gate);
}

#endif
