/* Whether a plan fits: what a device has free, and what of the plan it has given already; and what is said where it does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "worker/memory/plan.h"

static status a_thousand_free(enum mem_kind kind, size_t *free_bytes, size_t *total_bytes)
{
    (void)kind;
    *free_bytes = *total_bytes = 1000;
    return ST_OK;
}

static void library_memory_counts_once(void **state)
{
    (void)state;
    const struct backend be = {.tensors_in = MEM_DEVICE, .dev.mem_info = a_thousand_free};
    struct plan p;
    plan_init(&p, &be, BUDGET_NONE);
    plan_extra(&p, MEM_DEVICE, "library", "buffers of NCCL", 1200);
    assert_int_equal(plan_check(&p, 1), ST_OOM);
    p.held = 199;
    assert_int_equal(plan_check(&p, 1), ST_OOM);
    p.held = 200;
    assert_int_equal(plan_check(&p, 1), ST_OK);
    p.budget = 1199; /* a person's budget is of the whole plan */
    assert_int_equal(plan_check(&p, 1), ST_OOM);
    p.budget = 1200;
    assert_int_equal(plan_check(&p, 1), ST_OK);
    plan_release(&p);
}

static void hints_are_of_the_device(void **state)
{
    (void)state;
    for (int device = 0; device < 2; device++) {
        const struct backend be = {.tensors_in = device ? MEM_DEVICE : MEM_HOST, .dev.mem_info = a_thousand_free};
        struct plan p;
        plan_init(&p, &be, 1);
        arena_take(&p.arena[PLAN_WORKSPACE], 5000, "op workspace");
        assert_int_equal(plan_check(&p, 1), ST_OOM);
        assert_int_equal(strstr(status_message(), "OMP_NUM_THREADS") != NULL, !device);
        assert_int_equal(strstr(status_message(), "attn_workspace") != NULL, device);
        plan_release(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(library_memory_counts_once), cmocka_unit_test(hints_are_of_the_device)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
