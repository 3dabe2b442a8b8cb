/* The flat index of every model that tests train, and of real ones: its pages are what ranks sum, update and save, so no small
 * tensor may straddle one, and every rank's part must begin and end on one. */
#include "collectives/own.h"
#include "tests/model/trainer.h"

enum { RANKS = 16, SMALL_ALIGN = 256 };

static int straddling(const struct param_store *ps)
{
    int n = 0;
    for (int i = 0; i < ps->n; i++) {
        const struct param *p = &ps->p[i];
        if (param_is_trained(p) && p->count < OWN_PAGE) n += p->flat / OWN_PAGE != (p->flat + p->count - 1) / OWN_PAGE;
    }
    return n;
}

static void check_ranks(const char *name, const struct param_store *ps, int size)
{
    for (int r = 0; r < size; r++) {
        struct range mine = own(ps->flat_count, r, size);
        assert_true(mine.lo % OWN_PAGE == 0 || mine.lo == ps->flat_count);
        for (int i = 0; i < ps->n; i++) {
            const struct param *p = &ps->p[i];
            struct range all = {p->flat, p->flat + p->count}, part = range_meet(all, mine);
            if (param_is_trained(p) && p->count < OWN_PAGE && range_count(part) && range_count(part) != p->count)
                fail_msg("%s: rank %d of %d owns a part of %s", name, r, size, p->name);
        }
    }
}

/* Is `id` in a row that another one begins? */
static bool follows(const struct param_store *ps, int id)
{
    for (int i = id + 1; i < ps->n; i++)
        if (ps->p[i].next == id) return true;
    return false;
}

/* Rows have no gap, and a small one lies in one page. Returns what it takes. */
static struct range check_row(const char *name, const struct param_store *ps, int first)
{
    int64_t start = ps->p[first].flat, end = start;
    for (int i = first; i >= 0; i = ps->p[i].next) {
        const struct param *p = &ps->p[i];
        if (p->flat != end) fail_msg("%s: %s lies at %lld, not at %lld", name, p->name, (long long)p->flat, (long long)end);
        if (p->count >= OWN_PAGE) assert_int_equal(p->flat % OWN_PAGE, 0);
        assert_int_equal(p->flat % SMALL_ALIGN, 0);
        end += p->count;
    }
    assert_true(end - start < OWN_PAGE ? start / OWN_PAGE == (end - 1) / OWN_PAGE : start % OWN_PAGE == 0);
    return (struct range){start, end};
}

/* The table holds every trained tensor once, in the order of the index, nothing over anything, and less than half of it
 * empty but for the ends of large tensors' pages. */
static void check_table(const char *name, const struct param_store *ps)
{
    int64_t at = 0, taken = 0, large = 0;
    for (int i = 0; i < ps->segs.n; i++) {
        const struct seg *seg = &ps->segs.host[i];
        if (seg->at < at) fail_msg("%s: a tensor at %lld begins before %lld", name, (long long)seg->at, (long long)at);
        at = seg->at + seg->count;
        taken += seg->count;
        large += seg->count >= OWN_PAGE;
    }
    assert_true(at <= ps->flat_count && ps->flat_count - at < SMALL_ALIGN);
    assert_true(ps->flat_count <= 2 * taken + (large + 1) * OWN_PAGE);
}

/* Last added first, but for what is in a row with a later one and for what fills what an earlier one has left of a page. */
static void check_index(const char *name, const struct param_store *ps)
{
    int64_t at = 0, trained = 0;
    assert_true(ps->flat_count > 0 && ps->flat_count % SMALL_ALIGN == 0);
    for (int i = ps->n - 1; i >= 0; i--) {
        const struct param *p = &ps->p[i];
        trained += param_is_trained(p);
        if (!param_is_trained(p) || follows(ps, i)) continue;
        struct range row = check_row(name, ps, i);
        bool fills = row.lo < at;
        if (fills && row.hi - row.lo >= OWN_PAGE)
            fail_msg("%s: %s lies at %lld after %lld", name, p->name, (long long)row.lo, (long long)at);
        assert_true(fills || row.lo - at < SMALL_ALIGN || row.lo % OWN_PAGE == 0);
        if (!fills) at = row.hi;
    }
    assert_int_equal(ps->segs.n, trained);
    check_table(name, ps);
    if (straddling(ps)) fail_msg("%s: %d small tensors straddle a page", name, straddling(ps));
    for (int size = 1; size <= RANKS; size++) check_ranks(name, ps, size);
}

/* Buckets are all of the index, once. While gradients are completed from the last tensor to the first, each bucket is taken as soon as
 * all of its own are complete: none waits for another. */
static void check_buckets(const char *name, const struct param_store *ps, int64_t size)
{
    struct buckets b;
    buckets_init(&b, ps, size);
    int *lowest = mem_alloc((size_t)b.n * sizeof *lowest);
    int64_t covered = 0;
    int empty = 0; /* what is left of a page has no tensor to wait for */
    assert_int_equal(b.n, size ? (ps->flat_count + size - 1) / size : 1);
    for (int k = 0; k < b.n; k++) {
        struct range r = bucket_range(&b, k);
        covered += range_count(r);
        assert_true(r.lo % b.size == 0 && range_count(r) > 0 && !lowest[r.lo / b.size]);
        for (int i = ps->n - 1; i >= 0; i--)
            if (param_is_trained(&ps->p[i]) && range_count(range_meet(r, (struct range){ps->p[i].flat, ps->p[i].flat + ps->p[i].count})))
                lowest[r.lo / b.size] = i + 1;
        empty += !lowest[r.lo / b.size];
    }
    assert_int_equal(covered, ps->flat_count);
    for (int again = 0; again < 2; again++) {
        int due = empty;
        buckets_begin(&b);
        for (int i = ps->n - 1; i >= 0; i--) {
            if (param_is_trained(&ps->p[i])) buckets_complete(&b, &ps->p[i]);
            while (buckets_take(&b)) continue;
            for (int k = 0; k < b.n; k++) due += lowest[k] == i + 1;
            if (b.taken != due) fail_msg("%s: %d buckets taken, %d complete after %s", name, b.taken, due, ps->p[i].name);
        }
        assert_int_equal(b.taken, b.n);
    }
    free(lowest);
    buckets_release(&b);
}

/* Returns the length of the index. */
static int64_t check_model(const char *name, const struct model_shape *shape, const struct model_plan *plan)
{
    struct model m;
    struct batch_bounds bounds = {.tokens = 8, .docs = 1, .doc_tokens = 8, .supervised = 8};
    MUST(model_init(&m, &backend_cpu, shape, plan, &bounds, DT_F32, false));
    check_index(name, &m.params);
    check_buckets(name, &m.params, 0);
    check_buckets(name, &m.params, 8 << 20);
    if (m.params.flat_count < 100 * OWN_PAGE) check_buckets(name, &m.params, OWN_PAGE);
    if (m.params.flat_count < 100 * OWN_PAGE) check_buckets(name, &m.params, 4096);
    int64_t count = m.params.flat_count;
    model_release(&m);
    return count;
}

static void models_of_tests(void **state)
{
    (void)state;
    for (int i = 0; i < N_WAYS; i++) {
        struct model_plan plan = plan_of(&ways[i]);
        struct model_shape shape = shape_of(&ways[i]);
        if (ways[i].adapter) plan.adapted = LORA_ALL, plan.rank = 5;
        check_model(ways[i].name, &shape, &plan);
    }
}

/* Qwen2.5-0.5B, Llama 3.2 1B, Llama 3.1 8B and one that nothing divides. */
static void real_models(void **state)
{
    (void)state;
    static const struct hf_config sizes[] = {
        {.model_type = "qwen2",
         .vocab_size = 151936,
         .hidden_size = 896,
         .intermediate_size = 4864,
         .layers = 24,
         .heads = 14,
         .kv_heads = 2,
         .head_dim = 64,
         .tie_word_embeddings = true},
        {.model_type = "llama",
         .vocab_size = 128256,
         .hidden_size = 2048,
         .intermediate_size = 8192,
         .layers = 16,
         .heads = 32,
         .kv_heads = 8,
         .head_dim = 64,
         .tie_word_embeddings = true},
        {.model_type = "llama",
         .vocab_size = 128256,
         .hidden_size = 4096,
         .intermediate_size = 14336,
         .layers = 32,
         .heads = 32,
         .kv_heads = 8,
         .head_dim = 128},
        {.model_type = "qwen2",
         .vocab_size = 1009,
         .hidden_size = 298,
         .intermediate_size = 331,
         .layers = 5,
         .heads = 2,
         .kv_heads = 1,
         .head_dim = 150},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int64_t rank = 0; rank <= 64; rank = rank ? 4 * rank : 1) {
            struct hf_config hf = sizes[i];
            struct model_shape shape;
            char name[64];
            snprintf(hf.hidden_act, sizeof hf.hidden_act, "silu");
            hf.max_positions = 64;
            hf.rms_norm_eps = 1e-5;
            hf.rope[0] = (struct hf_rope){.type = ROPE_DEFAULT, .theta = 1e4, .factor = 1, .partial = 1, .attention = 1};
            MUST(family_shape("(test)", &hf, &shape));
            struct model_plan plan = {.full = rank == 0, .lora = rank > 0, .adapted = LORA_ALL, .rank = rank, .alpha = 16, .head_rows = 8};
            snprintf(name, sizeof name, "%s %lld, rank %lld", hf.model_type, (long long)hf.hidden_size, (long long)rank);
            int64_t count = check_model(name, &shape, &plan);
            /* A layer's three tensors of 77,824 elements begin a page each; all that is small lies behind them in the second ones, but
             * for what comes before the first of all. */
            if (hf.hidden_size == 896 && rank == 16) assert_in_range(count, 1, (24 * 6 + 1) * OWN_PAGE);
        }
}

/* What is asked to lie in a row, does where no gap is needed within. */
static void rows(void **state)
{
    static const struct {
        int64_t dim, count[3];
        bool row;
    } cases[] = {
        {896, {16, 16, 16}, true},                               /* 43,008 elements: in one page, where it would not fit in what is left */
        {896, {16, 8, 24}, true},    {896, {64, 64, 64}, false}, /* the second would straddle */
        {2048, {16, 16, 16}, true},                              /* the third begins a page */
        {4096, {16, 16, 16}, true},                              /* a page each */
        {4096, {16, 24, 16}, false},                             /* the third would not begin one */
        {4096, {8, 8, 16}, true},    {4096, {8, 16, 8}, false},  {32, {8, 8, 3}, true}, {32, {8, 4, 8}, false}, /* not 256-aligned */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct param_store ps;
        int id[3];
        param_store_init(&ps, &backend_cpu, DT_F32, DT_F32, false, &(struct param_policy){0});
        for (int k = 2; k >= 0; k--) { /* what is placed first is added last */
            id[k] = param_add(&ps, PARAM_ADAPTER, cases[i].count[k], cases[i].dim, "row %d.%d", (int)i, k);
            if (k < 2) ps.p[id[k]].next = id[k + 1];
            param_add(&ps, PARAM_ADAPTER, 100, 300, "between");
        }
        param_add(&ps, PARAM_ADAPTER, 10, 4096, "before");
        param_store_index(&ps);
        check_index("rows", &ps);
        for (int k = 0; k < 2; k++) assert_int_equal(ps.p[id[k]].next, cases[i].row ? id[k + 1] : -1);
        param_store_release(&ps);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(models_of_tests), cmocka_unit_test(real_models), cmocka_unit_test(rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
