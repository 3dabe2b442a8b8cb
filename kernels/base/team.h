/* team.h — the threads that compute: one call sets all of them to work and returns when the work is done.
 *
 *      team_for(threads, rows, norm_row, &args);       norm_row(&args, i) once for every i in [0, rows)
 *
 * A thread of our own team, and not OpenMP's, for the sake of machines that others use at the same moment. OpenMP gives
 * each thread its part and waits for all; where a core is busy elsewhere everybody waits for the one thread that is not
 * let in, spinning on the core it could have run on: a step of 16 ms then takes half a second to two. Here
 *
 *   - parts are taken, not given: who runs takes them, and a thread that comes too late finds nothing left. The caller
 *     waits only for threads that are inside a call of `fn` at that moment;
 *   - who waits gives its core away: a few looks, then looks between which the core is offered to others, then sleep.
 *     On a quiet machine nobody takes it, and the next call finds everyone awake (a sleeper takes some 50 µs to come,
 *     which costs a small model a third of its speed: that is why OMP_WAIT_POLICY=passive is no answer).
 *
 * What fn computes must not depend on which thread runs it, or when. A call inside fn, or while another thread has the
 * team, runs on its own thread alone. */
#ifndef TRIMPOT_TEAM_H
#define TRIMPOT_TEAM_H

#include <stdint.h>

enum { TEAM_MAX = 1024 };

typedef void team_fn(const void *arg, int64_t i);

/* On at most `threads` threads, the caller among them. Each begins in a part of [0, n) of its own, the same for the same
 * n and threads (what it wrote last time is in its cache), and then helps in the others'. */
void team_for(int threads, int64_t n, team_fn *fn, const void *arg);

/* One at a time in ascending order: for units that are large or unlike; the dearest come first. */
void team_each(int threads, int64_t n, team_fn *fn, const void *arg);

int team_rank(void); /* inside fn: which of the `threads` threads this is, 0 the caller: whose scratch it may use */
int team_size(void); /* threads this process is meant to use: OMP_NUM_THREADS, else the cores it may run on */

/* ---- waiting -----------------------------------------------------------------------------------------------------
 * Also for others that wait for a word in memory, of this process or shared: whoever changes the word calls
 * team_changed after. A waiter that has fallen asleep is counted in *asleep, where the other looks. */
#include <stdatomic.h>

struct team_word {
    _Atomic uint32_t value, asleep;
};

/* Returns another value of the word than `old`. */
uint32_t team_wait(struct team_word *word, uint32_t old);
/* After the word was changed (by any atomic operation). */
void team_changed(struct team_word *word);

#endif
