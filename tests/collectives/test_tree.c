/* The shape of the reduction tree, against its recursive definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "collectives/tree.h"

static const int sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 48, 63, 64, 96};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* The definition. */
static bool defined_node(int a, int b, int lo, int hi)
{
    if (a == lo && b == hi) return true;
    if (b - a == 1) return false;
    int p = 1;
    while (2 * p < b - a) p *= 2;
    return defined_node(a, a + p, lo, hi) || defined_node(a + p, b, lo, hi);
}

static void test_nodes(void **state)
{
    (void)state;
    for (int s = 0; s < SIZES; s++)
        for (int lo = -1; lo <= sizes[s]; lo++)
            for (int hi = lo; hi <= sizes[s] + 1; hi++)
                if (tree_is_node(sizes[s], lo, hi) != (lo >= 0 && lo < hi && hi <= sizes[s] && defined_node(0, sizes[s], lo, hi)))
                    fail_msg("V=%d [%d, %d)", sizes[s], lo, hi);
}

/* Covers are adjacent nodes, and no two neighbours could be one. */
static void test_cover(void **state)
{
    (void)state;
    for (int s = 0; s < SIZES; s++)
        for (int lo = 0; lo < sizes[s]; lo++)
            for (int hi = lo + 1; hi <= sizes[s]; hi++) {
                struct tree_node n[TREE_MAX_NODES];
                int count = tree_cover(sizes[s], lo, hi, n), at = lo;
                for (int i = 0; i < count; i++) {
                    assert_int_equal(n[i].lo, at);
                    assert_true(tree_is_node(sizes[s], n[i].lo, n[i].hi));
                    if (i) assert_false(tree_is_node(sizes[s], n[i - 1].lo, n[i].hi));
                    at = n[i].hi;
                }
                assert_int_equal(at, hi);
            }
    struct tree_node n[TREE_MAX_NODES];
    assert_int_equal(tree_cover(1 << 16, 1, (1 << 16) - 1, n), 30); /* the longest there is: fits */
}

/* Buffers by brute force: the least number with which the leaves of a node can be pushed in order, merging at once. */
static int buffers(int leaves)
{
    if (leaves == 1) return 1;
    int p = 1;
    while (2 * p < leaves) p *= 2;
    int left = buffers(p), right = leaves - p == 1 ? 0 : buffers(leaves - p);
    return left > right + 1 ? left : right + 1;
}

static void test_depth(void **state)
{
    (void)state;
    assert_int_equal(tree_depth(2, 0, 2), 1);
    assert_int_equal(tree_depth(4, 0, 4), 2);
    assert_int_equal(tree_depth(8, 0, 8), 3);
    assert_int_equal(tree_depth(16, 0, 16), 4);
    assert_int_equal(tree_depth(16, 8, 16), 3);
    assert_int_equal(tree_depth(48, 0, 24), 4); /* 4 for the first 16, then 1 + 3 */
    for (int s = 0; s < SIZES; s++)
        for (int lo = 0; lo < sizes[s]; lo++)
            for (int hi = lo + 1; hi <= sizes[s]; hi++) {
                struct tree_node n[TREE_MAX_NODES];
                int count = tree_cover(sizes[s], lo, hi, n), deepest = 0;
                for (int i = 0; i < count; i++) {
                    int here = i + buffers(n[i].hi - n[i].lo);
                    if (here > deepest) deepest = here;
                }
                if (tree_depth(sizes[s], lo, hi) != deepest)
                    fail_msg("V=%d [%d, %d): %d, expected %d", sizes[s], lo, hi, tree_depth(sizes[s], lo, hi), deepest);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nodes), cmocka_unit_test(test_cover), cmocka_unit_test(test_depth)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
