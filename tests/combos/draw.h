/* draw.h — combinations of the table's values: first as few as cover every pair that is not refused, then any of the same numerics.
 *
 * The same seed draws the same ones, whatever their number: `--only N` finds the N-th again. */
#ifndef TRIMPOT_COMBOS_DRAW_H
#define TRIMPOT_COMBOS_DRAW_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"
#include "tests/combos/table.h"

enum { FREE = -1, CANDIDATES = 24, TRIES = 4000, FLAT = FACETS * MOST_VALUES };

struct combo {
    int v[FACETS];
    int number;
};

struct drawing {
    uint64_t random;
    const struct refusal *refused[FLAT][FLAT]; /* of two values, NULL: they work together */
    bool covered[FLAT][FLAT];
    struct combo *combo;
    int n, covering; /* the first `covering` cover every pair */
    int pairs, refused_pairs;
    char impossible[256]; /* a pair that goes with nothing, and is not refused */
};

static inline int values_of(int facet)
{
    int n = 0;
    while (n < MOST_VALUES && facets[facet].value[n].name) n++;
    return n;
}

static inline int flat_of(int facet, int value) { return facet * MOST_VALUES + value; }

static inline const struct value *value_of(const struct combo *c, int facet) { return &facets[facet].value[c->v[facet]]; }

static inline int facet_named(const char *name)
{
    for (int i = 0; i < FACETS; i++)
        if (!strcmp(facets[i].name, name)) return i;
    fprintf(stderr, "table.h: no facet %s\n", name);
    exit(1);
}

static inline bool says(const char *wanted, int facet, int value)
{
    return wanted ? !strcmp(wanted, facets[facet].value[value].name) : value > 0;
}

static inline uint64_t drawn(struct drawing *d)
{
    d->random ^= d->random << 13;
    d->random ^= d->random >> 7;
    d->random ^= d->random << 17;
    return d->random >> 11;
}

/* ---- the pairs ---------------------------------------------------------------------------------------------------------- */

static inline void refuse(struct drawing *d, int one, int other, const struct refusal *why)
{
    d->refused[one][other] = d->refused[other][one] = why;
}

static inline void refusals_of_the_table(struct drawing *d)
{
    for (int r = 0; r < REFUSALS; r++) {
        int a = facet_named(refusals[r].facet), b = facet_named(refusals[r].other), found = 0;
        for (int i = 0; i < values_of(a); i++)
            for (int k = 0; k < values_of(b); k++) {
                if (!says(refusals[r].value, a, i) || !says(refusals[r].other_value, b, k)) continue;
                refuse(d, flat_of(a, i), flat_of(b, k), &refusals[r]);
                found++;
            }
        if (!found) fprintf(stderr, "table.h: refusal %d is of no value\n", r), exit(1);
    }
}

/* Two that work with no value of a third facet in common are refused as well: the first leaves only values of it that refuse the
 * second. NULL: they have one in common. */
static inline const struct refusal *implied(const struct drawing *d, int one, int other)
{
    for (int f = 0; f < FACETS; f++) {
        const struct refusal *why = NULL;
        bool common = one / MOST_VALUES == f || other / MOST_VALUES == f;
        for (int i = 0; i < values_of(f) && !common; i++) {
            int third = flat_of(f, i);
            if (d->refused[one][third]) continue;
            why = d->refused[other][third];
            common = !why;
        }
        if (why && !common) return why;
    }
    return NULL;
}

static inline void list_refusals(struct drawing *d)
{
    refusals_of_the_table(d);
    for (int a = 0; a < FACETS; a++)
        for (int b = a + 1; b < FACETS; b++)
            for (int i = 0; i < values_of(a); i++)
                for (int k = 0; k < values_of(b); k++) {
                    int one = flat_of(a, i), other = flat_of(b, k);
                    const struct refusal *why = d->refused[one][other] ? NULL : implied(d, one, other);
                    if (why) refuse(d, one, other, why);
                    d->refused[one][other] ? d->refused_pairs++ : d->pairs++;
                }
}

static inline bool fits(const struct drawing *d, const int *v, int facet, int value)
{
    for (int i = 0; i < FACETS; i++)
        if (i != facet && v[i] != FREE && d->refused[flat_of(facet, value)][flat_of(i, v[i])]) return false;
    return true;
}

/* Values for what is free, in any order; false: there is none left for an facet. */
static inline bool complete(struct drawing *d, int *v)
{
    int order[FACETS];
    for (int i = 0; i < FACETS; i++) {
        int k = (int)(drawn(d) % (uint64_t)(i + 1));
        order[i] = order[k];
        order[k] = i;
    }
    for (int i = 0; i < FACETS; i++) {
        int facet = order[i], often = 0, at;
        if (v[facet] != FREE) continue;
        for (int k = 0; k < values_of(facet); k++)
            if (fits(d, v, facet, k)) often += facets[facet].value[k].often ? facets[facet].value[k].often : 1;
        if (!often) return false;
        at = (int)(drawn(d) % (uint64_t)often);
        for (int k = 0; k < values_of(facet) && v[facet] == FREE; k++) {
            if (!fits(d, v, facet, k)) continue;
            at -= facets[facet].value[k].often ? facets[facet].value[k].often : 1;
            if (at < 0) v[facet] = k;
        }
    }
    return true;
}

/* ---- the combinations --------------------------------------------------------------------------------------------------- */

static inline int ranks_of(const struct combo *c) { return atoi(value_of(c, F_RANKS)->name); }

static inline int micro_batches(const struct combo *c) { return ranks_of(c) * atoi(value_of(c, F_ACCUMULATION)->name); }

static inline bool on_emu(const struct combo *c) { return !strcmp(value_of(c, F_DEVICE)->name, "emu"); }

/* How many pairs it covers that nothing did. The emulated device is slow: there a step of many micro-batches has to be worth it. */
static inline int worth(const struct drawing *d, const struct combo *c)
{
    int n = on_emu(c) && micro_batches(c) > 2 ? -3 : 0;
    for (int a = 0; a < FACETS; a++)
        for (int b = a + 1; b < FACETS; b++) n += !d->covered[flat_of(a, c->v[a])][flat_of(b, c->v[b])];
    return n;
}

static inline void add(struct drawing *d, struct combo *c)
{
    c->number = d->n;
    for (int a = 0; a < FACETS; a++)
        for (int b = a + 1; b < FACETS; b++) d->covered[flat_of(a, c->v[a])][flat_of(b, c->v[b])] = true;
    d->combo = mem_grow(d->combo, (size_t)(d->n + 1) * sizeof *d->combo);
    d->combo[d->n++] = *c;
}

static inline bool complete_from(struct drawing *d, const struct combo *given, struct combo *out)
{
    for (int i = 0; i < TRIES; i++) {
        *out = *given;
        if (complete(d, out->v)) return true;
    }
    return false;
}

static inline struct combo free_combo(void)
{
    struct combo c = {.number = FREE};
    for (int i = 0; i < FACETS; i++) c.v[i] = FREE;
    return c;
}

static inline bool cover(struct drawing *d, int a, int i, int b, int k)
{
    struct combo given = free_combo(), best, next;
    int most = -1000;
    given.v[a] = i;
    given.v[b] = k;
    for (int n = 0; n < CANDIDATES; n++) {
        if (!complete_from(d, &given, &next)) break;
        if (worth(d, &next) <= most) continue;
        most = worth(d, &next);
        best = next;
    }
    if (most > -1000)
        add(d, &best);
    else
        snprintf(d->impossible, sizeof d->impossible, "%s=%s with %s=%s", facets[a].name, facets[a].value[i].name, facets[b].name,
                 facets[b].value[k].name);
    return most > -1000;
}

static inline void cover_all(struct drawing *d)
{
    for (int a = 0; a < FACETS; a++)
        for (int b = a + 1; b < FACETS; b++)
            for (int i = 0; i < values_of(a); i++)
                for (int k = 0; k < values_of(b); k++) {
                    if (d->refused[flat_of(a, i)][flat_of(b, k)] || d->covered[flat_of(a, i)][flat_of(b, k)]) continue;
                    if (!cover(d, a, i, b, k)) return;
                }
    d->covering = d->n;
}

static inline bool known(const struct drawing *d, const struct combo *c)
{
    for (int i = 0; i < d->n; i++)
        if (!memcmp(d->combo[i].v, c->v, sizeof c->v)) return true;
    return false;
}

/* Its numerics are those of one that is there: so that plain runs are shared. */
static inline struct combo like_another(struct drawing *d)
{
    struct combo c = free_combo();
    const struct combo *other = &d->combo[drawn(d) % (uint64_t)d->covering];
    for (int i = 0; i < FACETS; i++)
        if (facets[i].effect == NUMERICS) c.v[i] = other->v[i];
    return c;
}

/* At least so many, and as many as the pairs need. */
static inline void draw_combos(struct drawing *d, uint64_t seed, int count)
{
    struct combo given, next;
    *d = (struct drawing){.random = 0x9e3779b97f4a7c15u * (seed + 1)};
    list_refusals(d);
    cover_all(d);
    while (!*d->impossible && d->n < count) {
        given = like_another(d);
        if (complete_from(d, &given, &next) && !(on_emu(&next) && micro_batches(&next) > 2) && !known(d, &next)) add(d, &next);
    }
}

/* The same numerics, and nothing else: what a combination is compared with. On one rank, whose step has all micro-batches. Devices whose
 * sums have another order have a plain run of their own. */
static inline void plain_of(const struct combo *c, struct combo *out)
{
    *out = *c;
    for (int i = 0; i < FACETS; i++)
        if (facets[i].effect == SAME_BITS && i != F_DEVICE) out->v[i] = 0;
    const char *environment = value_of(c, F_DEVICE)->environment;
    bool joins = environment && strstr(environment, "JOINS");
    if (!on_emu(c) && !joins) out->v[F_DEVICE] = 0;
}

static inline bool same_plain(const struct combo *a, const struct combo *b)
{
    struct combo x, y;
    plain_of(a, &x);
    plain_of(b, &y);
    return micro_batches(a) == micro_batches(b) && !memcmp(x.v, y.v, sizeof x.v);
}

/* The first combination with the same plain run: its number names that run. */
static inline int plain_number(const struct drawing *d, const struct combo *c)
{
    int i = 0;
    while (!same_plain(&d->combo[i], c)) i++;
    return i;
}

/* Every third is resumed without its techniques: what they saved is anybody's. */
static inline bool resumes_plainly(const struct combo *c) { return c->number % 3 == 2; }

/* Another number of ranks that its checkpoint can go on with: the numbers are tried in turn. A step in the backward pass needs one
 * micro-batch a rank. */
static inline int ranks_resuming(const struct combo *c)
{
    int m = micro_batches(c), ranks = ranks_of(c), fitting[3], n = 0;
    for (int p = 1; p <= 4; p *= 2)
        if (p != ranks && m % p == 0) fitting[n++] = p;
    return (c->v[F_IN_BWD] && !resumes_plainly(c)) || !n ? ranks : fitting[c->number % n];
}

#endif
