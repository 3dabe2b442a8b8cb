#include "collectives/own.h"

static int64_t bound(int64_t count, int rank, int size)
{
    int64_t pages = (count + OWN_PAGE - 1) / OWN_PAGE;
    /* ⌊pages · rank / size⌋ without the product, which may not fit */
    int64_t first = pages / size * rank + pages % size * rank / size;
    return rank == size || first * OWN_PAGE > count ? count : first * OWN_PAGE;
}

struct range own(int64_t count, int rank, int size) { return (struct range){bound(count, rank, size), bound(count, rank + 1, size)}; }

struct range range_meet(struct range a, struct range b)
{
    int64_t lo = a.lo > b.lo ? a.lo : b.lo, hi = a.hi < b.hi ? a.hi : b.hi;
    return (struct range){lo, hi > lo ? hi : lo};
}
