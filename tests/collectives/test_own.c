/* Who owns what: whole pages, even, nothing twice and nothing left over, for any number of elements and ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "collectives/own.h"

static const int64_t counts[] = {0, 1, 255, 65535, 65536, 65537, 131072, 524289, 10000019, 8030261248, (int64_t)1 << 56};
enum { N_COUNTS = sizeof counts / sizeof *counts };

static void check(int64_t count, int size)
{
    int64_t at = 0, pages = (count + OWN_PAGE - 1) / OWN_PAGE, least = INT64_MAX, most = 0;
    for (int r = 0; r < size; r++) {
        struct range mine = own(count, r, size);
        if (mine.lo != at || mine.hi < mine.lo || (mine.lo % OWN_PAGE && mine.lo != count))
            fail_msg("%lld over %d: rank %d has [%lld, %lld) after %lld", (long long)count, size, r, (long long)mine.lo, (long long)mine.hi,
                     (long long)at);
        int64_t n = (mine.hi - mine.lo + OWN_PAGE - 1) / OWN_PAGE;
        if (n < least) least = n;
        if (n > most) most = n;
        assert_true(mine.lo / OWN_PAGE == (int64_t)((__int128)pages * r / size) || mine.lo == count);
        at = mine.hi;
    }
    assert_true(at == count);
    assert_true(most - least <= 1);
}

static void covers_evenly(void **state)
{
    (void)state;
    for (int i = 0; i < N_COUNTS; i++) {
        for (int size = 1; size <= 16; size++) check(counts[i], size);
        check(counts[i], 61);
        check(counts[i], 4096);
    }
}

static void meeting(void **state)
{
    (void)state;
    struct range both = range_meet((struct range){0, 10}, (struct range){4, 20});
    struct range none = range_meet((struct range){0, 3}, (struct range){7, 9});
    assert_true(both.lo == 4 && both.hi == 10);
    assert_true(range_count(both) == 6 && range_count(none) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(covers_evenly), cmocka_unit_test(meeting)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
