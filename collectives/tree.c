#include "collectives/tree.h"

#include <assert.h>

/* Leaves of the left child of a node of n > 1 leaves: the largest power of two below n. */
static int left_leaves(int n)
{
    int p = 1;
    while (2 * p < n) p *= 2;
    return p;
}

static int cover(struct tree_node node, int lo, int hi, struct tree_node *out, int n)
{
    if (node.hi <= lo || hi <= node.lo) return n;
    if (lo <= node.lo && node.hi <= hi) {
        assert(n < TREE_MAX_NODES);
        out[n] = node;
        return n + 1;
    }
    int middle = node.lo + left_leaves(node.hi - node.lo);
    n = cover((struct tree_node){node.lo, middle}, lo, hi, out, n);
    return cover((struct tree_node){middle, node.hi}, lo, hi, out, n);
}

int tree_cover(int leaves, int lo, int hi, struct tree_node *out)
{
    assert(0 <= lo && lo <= hi && hi <= leaves);
    return cover((struct tree_node){0, leaves}, lo, hi, out, 0);
}

bool tree_is_node(int leaves, int lo, int hi)
{
    struct tree_node node = {0, leaves};
    if (lo < 0 || hi > leaves || lo >= hi) return false;
    while (node.lo != lo || node.hi != hi) {
        if (node.hi - node.lo == 1) return false;
        int middle = node.lo + left_leaves(node.hi - node.lo);
        if (hi <= middle)
            node.hi = middle;
        else if (lo >= middle)
            node.lo = middle;
        else
            return false;
    }
    return true;
}

int tree_depth(int leaves, int lo, int hi)
{
    struct tree_node stack[TREE_MAX_NODES];
    int n = 0, deepest = 0;
    for (int leaf = lo; leaf < hi; leaf++) {
        if (n > 0 && tree_is_node(leaves, stack[n - 1].lo, leaf + 1)) {
            stack[n - 1].hi = leaf + 1; /* added straight into its left sibling */
        } else {
            assert(n < TREE_MAX_NODES);
            stack[n++] = (struct tree_node){leaf, leaf + 1};
            if (n > deepest) deepest = n;
        }
        while (n > 1 && tree_is_node(leaves, stack[n - 2].lo, stack[n - 1].hi)) {
            stack[n - 2].hi = stack[n - 1].hi;
            n--;
        }
    }
    return deepest;
}
