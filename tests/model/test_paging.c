/* Where optimizer states are, and who steps, never changes a bit: every way to train, with 32-bit and with 8-bit states, some windows away
 * or all, or the host's, in one update of the whole index and tensor by tensor; a step that is not usable leaves states alone; and states are read and written wherever they are. A
 * backend that says of the CPU that it has memory of its own makes them move. */
#include "tests/model/trainer.h"

enum { RUN = 4 };

static struct backend apart;
static int copies;

static status apart_stream_open(struct stream **out, int threads)
{
    TRY(backend_cpu.dev.stream_open(out, threads));
    (*out)->be = &apart;
    return ST_OK;
}

static status counted_copy(struct stream *s, void *dst, const void *src, size_t bytes)
{
    copies += s->name && (!strncmp(s->name, "states ", 7) || !strcmp(s->name, "gradients down") || !strcmp(s->name, "weights up"));
    return backend_cpu.dev.copy(s, dst, src, bytes);
}

/* paged_resident: −1 = the device has room. small: tensors below it stay; eight: codes of tensors from 300 elements on. */
struct technique {
    int64_t resident, window, small;
    bool in_bwd, eight, host;
};

static enum config_optim eight_of(enum config_optim kind) { return (enum config_optim)(kind - CONFIG_ADAMW + CONFIG_ADAMW_8BIT); }

static void open_with(struct tiny *t, const struct way *w, const struct technique *how, const struct corpus *c, dtype act, bool paged)
{
    static struct way way;
    way = *w;
    way.eight = how->eight;
    way.paging = paged ? &(struct tiny_paging){how->resident, how->window, how->small, how->host} : NULL;
    if (how->eight) way.optimizer = eight_of(way.optimizer);
    struct model_plan plan = plan_of(&way);
    tiny_open(t, &way, &plan, c, paged ? &apart : &backend_cpu, act, 1, how->in_bwd);
    t->way = w;
}

static struct optim *states_of(struct tiny *t) { return &t->trainer.optim; }

/* All states as a checkpoint has them; the caller frees. */
static char *states(struct tiny *t, size_t *bytes)
{
    struct optim *o = states_of(t);
    *bytes = 0;
    for (int k = 0; k < STATE_VECTORS; k++) *bytes += state_bytes(&o->vector[k]);
    char *all = mem_alloc(*bytes + 1), *to = all;
    for (int k = 0; k < STATE_VECTORS; k++) {
        int64_t n = o->vector[k].count / o->vector[k].per, first = n / 3;
        size_t element = dtype_bytes(o->vector[k].dt);
        if (!n) continue;
        MUST(optim_read(o, &t->stage, k, 0, first, to));
        MUST(optim_read(o, &t->stage, k, first, n - first, to + (size_t)first * element));
        to += state_bytes(&o->vector[k]);
    }
    return all;
}

static void put_states(struct tiny *t, const char *from)
{
    struct optim *o = states_of(t);
    for (int k = 0; k < STATE_VECTORS; k++) {
        int64_t n = o->vector[k].count / o->vector[k].per, first = n / 2;
        if (!n) continue;
        MUST(optim_write(o, &t->stage, k, 0, first, from));
        MUST(optim_write(o, &t->stage, k, first, n - first, from + (size_t)first * dtype_bytes(o->vector[k].dt)));
        from += state_bytes(&o->vector[k]);
    }
}

static void same_state(const char *what, struct tiny *a, struct tiny *b)
{
    size_t na, nb;
    char *x = states(a, &na), *y = states(b, &nb);
    if (na != nb || memcmp(x, y, na)) fail_msg("%s: %s: other states", a->way->name, what);
    if (memcmp(a->m.params.flat, b->m.params.flat, (size_t)a->m.params.flat_count * dtype_bytes(a->m.params.trained_dt)))
        fail_msg("%s: %s: other weights", a->way->name, what);
    free(x);
    free(y);
}

static void steps(struct tiny *t, int n)
{
    for (int k = 0; k < n; k++) {
        tiny_launch(t);
        tiny_collect(t);
    }
}

static void bits(const struct way *w, const struct technique *how, const struct corpus *c, dtype act)
{
    struct tiny base, x;
    char what[128];
    snprintf(what, sizeof what, "%s, windows of %lld, %lld stay, from %lld%s%s", dtype_name(act), (long long)how->window,
             (long long)how->resident, (long long)how->small, how->in_bwd ? ", in backward" : "", how->eight ? ", 8-bit" : "");
    if (how->host) snprintf(what + strlen(what), sizeof what - strlen(what), ", host");
    open_with(&base, w, how, c, act, false);
    open_with(&x, w, how, c, act, true);
    const struct pager *p = &states_of(&x)->pager;
    copies = 0;
    steps(&base, RUN);
    steps(&x, RUN);
    same_state(what, &base, &x);
    assert_true((copies > 0) == (p->away > 0 || how->host));
    if (how->resident == 0 && how->small == 1 && pager_home_bytes(p) + pager_away_bytes(p)) {
        assert_int_equal(p->away, p->n > PAGER_PLACES ? p->n : 0);
        assert_true(!p->away == (pager_home_bytes(p) > 0));
    }
    /* A step of an infinite loss leaves everything alone, and what comes after it is as if nothing had been. */
    struct corpus none = *c;
    none.supervised = 0;
    x.corpus = &none;
    tiny_launch(&x);
    assert_false(tiny_collect(&x).usable);
    x.corpus = c;
    same_state(what, &base, &x);
    /* Written anywhere, it goes on from there. */
    size_t bytes;
    char *all = states(&base, &bytes);
    steps(&base, 1);
    put_states(&x, all);
    x.step = base.step - 1;
    steps(&x, 1);
    same_state(what, &base, &x);
    free(all);
    tiny_close(&x);
    tiny_close(&base);
}

static void same_bits(void **state)
{
    (void)state;
    /* clang-format off */
    static const struct technique techniques[] = {
        {0, 256, 1, false, false}, {0, 768, 1, true, false}, {100000, 1000, 1, false, false}, {40000, 2048, 700, true, false},
        {0, 512, 1, false, true}, {0, 256, 1, true, true}, {20000, 1024, 300, false, true}, {-1, 1024, 1, false, false},
        {INT64_MAX, 256, 1, true, true},
        {-1, 1024, .host = true}, {-1, 700, .in_bwd = true, .host = true}, {-1, 512, .eight = true, .host = true},
        {-1, 256, .in_bwd = true, .eight = true, .host = true}};
    /* clang-format on */
    static struct corpus one, two;
    corpus_make(&one, 1);
    corpus_make(&two, 2);
    for (int i = 0; i < N_WAYS; i++)
        for (size_t k = 0; k < sizeof techniques / sizeof *techniques; k++) {
            const struct technique *how = &techniques[k];
            if (how->eight && (ways[i].optimizer == CONFIG_SGD && !(ways[i].momentum > 0))) continue; /* no states */
            if (how->host && ways[i].masters && (i + k) % 2) continue;                                /* refused: configs/rules.c */
            bits(&ways[i], how, how->in_bwd ? &one : &two, (i + k) % 2 ? DT_BF16 : DT_F32);
        }
}

/* As many stay as there is room for, places counted; what stays and what is away is all there is; all, where nothing is gained. */
static void fits(void **state)
{
    (void)state;
    static struct corpus c;
    struct tiny t;
    corpus_make(&c, 1);
    for (int eight = 0; eight < 2; eight++) {
        open_with(&t, &ways[0], &(struct technique){-1, 1024, 1, false, eight}, &c, DT_F32, true);
        struct optim *o = states_of(&t);
        struct pager *p = &o->pager;
        size_t all = pager_device_bytes(p), least, before = SIZE_MAX;
        assert_int_equal(p->away, 0);
        MUST(optim_fit(o, 0));
        least = pager_device_bytes(p);
        assert_true(p->away == p->n && !pager_home_bytes(p) && least < all);
        least += (size_t)o->n_seg_rows * sizeof *o->seg_rows;
        for (size_t room = least; room <= all; room += 512) {
            MUST(optim_fit(o, room));
            assert_true(pager_device_bytes(p) + (size_t)o->n_seg_rows * sizeof *o->seg_rows <= room && pager_away_bytes(p) <= before);
            assert_true(pager_home_bytes(p) + pager_away_bytes(p) >= all && p->away != 1);
            before = pager_away_bytes(p);
        }
        MUST(optim_fit(o, all));
        assert_true(!p->away && pager_device_bytes(p) == all);
        tiny_close(&t);
    }
}

int main(void)
{
    apart = backend_cpu;
    apart.tensors_in = MEM_DEVICE;
    apart.dev.stream_open = apart_stream_open;
    apart.dev.copy = counted_copy;
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_bits), cmocka_unit_test(fits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
