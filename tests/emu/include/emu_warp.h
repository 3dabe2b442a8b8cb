/* emu_warp.h — where threads meet: barriers of the block, primitives of a warp.
 *
 * A meeting of a warp is described by a mask and the primitive. Every lane of the mask that has not exited brings a frame (its
 * operands and room for its result); the last one to come runs `finish` over all frames, then all go on in random order. */
#ifndef TRIMPOT_EMU_WARP_H
#define TRIMPOT_EMU_WARP_H

#include "tests/emu/include/emu_threads.h"

typedef void emu_finish(uint32_t members, void *const frames[32]);

/* what: the primitive's name, compared by address: one literal per primitive. */
void emu_meet(const char *what, uint32_t mask, emu_finish *finish, void *frame, emu_where where);

struct emu_counts {
    int threads, set; /* that came, and that came with a predicate that is not zero */
};
struct emu_counts emu_barrier(const char *what, bool predicate, emu_where where);

/* ---- barriers ---------------------------------------------------------------------------------------------------------------- */

static inline void __syncthreads(emu_where where = emu_where::current()) { emu_barrier("__syncthreads", false, where); }

static inline int __syncthreads_count(int predicate, emu_where where = emu_where::current())
{
    return emu_barrier("__syncthreads_count", predicate != 0, where).set;
}

static inline int __syncthreads_or(int predicate, emu_where where = emu_where::current())
{
    return emu_barrier("__syncthreads_or", predicate != 0, where).set > 0;
}

static inline int __syncthreads_and(int predicate, emu_where where = emu_where::current())
{
    struct emu_counts c = emu_barrier("__syncthreads_and", predicate != 0, where);
    return c.set == c.threads;
}

static inline void emu_finish_nothing(uint32_t, void *const *) {}

static inline void __syncwarp(uint32_t mask = 0xffffffffu, emu_where where = emu_where::current())
{
    emu_meet("__syncwarp", mask, emu_finish_nothing, nullptr, where);
}

/* ---- shuffles ---------------------------------------------------------------------------------------------------------------- */

/* What a lane gets that reads from a lane that is not there: undefined on a GPU, NaN and −1 here. */
enum : unsigned char { EMU_POISON = 0xff };

template <class T> struct emu_shuffle {
    T value;
    int from; /* lane */
};

template <class T> static void emu_finish_shuffle(uint32_t members, void *const *frames)
{
    T values[32];
    memset((void *)values, EMU_POISON, sizeof values);
    for (uint32_t left = members; left; left &= left - 1) {
        int lane = __builtin_ctz(left);
        values[lane] = ((const emu_shuffle<T> *)frames[lane])->value;
    }
    for (uint32_t left = members; left; left &= left - 1) {
        emu_shuffle<T> *frame = (emu_shuffle<T> *)frames[__builtin_ctz(left)];
        frame->value = values[frame->from];
    }
}

template <class T> static inline T emu_shuffled(const char *what, uint32_t mask, T value, int from, int width, emu_where where)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 2, "shuffles move 2, 4 or 8 bytes");
    if (width <= 0 || width > 32 || (width & (width - 1)))
        emu_fault(where, "%s with a width of %d: not a power of two up to 32", what, width);
    emu_shuffle<T> frame = {value, from};
    emu_meet(what, mask, emu_finish_shuffle<T>, &frame, where);
    return frame.value;
}

template <class T> static inline T __shfl_sync(uint32_t mask, T value, int source, int width = 32, emu_where where = emu_where::current())
{
    return emu_shuffled("__shfl_sync", mask, value, (emu_lane() & -width) | (source & (width - 1)), width, where);
}

template <class T>
static inline T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32, emu_where where = emu_where::current())
{
    int lane = emu_lane(), from = lane - (int)(delta & 31);
    return emu_shuffled("__shfl_up_sync", mask, value, from < (lane & -width) ? lane : from, width, where);
}

template <class T>
static inline T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32, emu_where where = emu_where::current())
{
    int lane = emu_lane(), from = lane + (int)(delta & 31);
    return emu_shuffled("__shfl_down_sync", mask, value, from > (lane | (width - 1)) ? lane : from, width, where);
}

template <class T>
static inline T __shfl_xor_sync(uint32_t mask, T value, int lanes, int width = 32, emu_where where = emu_where::current())
{
    int lane = emu_lane(), from = lane ^ (lanes & 31);
    return emu_shuffled("__shfl_xor_sync", mask, value, from > (lane | (width - 1)) ? lane : from, width, where);
}

/* ---- votes ------------------------------------------------------------------------------------------------------------------- */

struct emu_vote {
    uint32_t set, members;
};

static inline void emu_finish_vote(uint32_t members, void *const *frames)
{
    uint32_t set = 0;
    for (uint32_t left = members; left; left &= left - 1) {
        int lane = __builtin_ctz(left);
        set |= (uint32_t)(((const struct emu_vote *)frames[lane])->set != 0) << lane;
    }
    for (uint32_t left = members; left; left &= left - 1) *(struct emu_vote *)frames[__builtin_ctz(left)] = {set, members};
}

static inline struct emu_vote emu_voted(const char *what, uint32_t mask, int predicate, emu_where where)
{
    struct emu_vote frame = {predicate != 0, 0};
    emu_meet(what, mask, emu_finish_vote, &frame, where);
    return frame;
}

static inline uint32_t __ballot_sync(uint32_t mask, int predicate, emu_where where = emu_where::current())
{
    return emu_voted("__ballot_sync", mask, predicate, where).set;
}

static inline int __any_sync(uint32_t mask, int predicate, emu_where where = emu_where::current())
{
    return emu_voted("__any_sync", mask, predicate, where).set != 0;
}

static inline int __all_sync(uint32_t mask, int predicate, emu_where where = emu_where::current())
{
    struct emu_vote v = emu_voted("__all_sync", mask, predicate, where);
    return v.set == v.members;
}

static inline uint32_t __activemask(emu_where where = emu_where::current())
{
    emu_fault(where, "__activemask says which lanes happen to run together: no result may depend on it");
}

#endif
