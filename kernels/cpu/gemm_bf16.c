/* gemm_bf16.c — bf16 products by oneDNN's matmul primitives: one primitive per tile shape, made and run for one thread.
 *
 * Tile shapes repeat from step to step, so primitives are kept in a table. It is emptied when it is full: micro-batches
 * differ in length, and the shapes of the last rows with them. */
#include "kernels/cpu/gemm.h"

#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"

enum { ARG_A, ARG_B, ARG_C, ARG_SCRATCH, ARG_COUNT };
enum { BUCKETS = 512, ENTRIES_KEPT = 256 };

struct entry {
    struct entry *next;
    struct bf16_product shape;
    dnnl_primitive_t primitive;
    const dnnl_memory_desc_t *md[ARG_COUNT]; /* the primitive's own */
};

static struct {
    pthread_mutex_t lock;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int entries, users;
    struct entry *bucket[BUCKETS];
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void entry_free(struct entry *e)
{
    dnnl_primitive_destroy(e->primitive);
    free(e);
}

static void cache_empty(void)
{
    for (int b = 0; b < BUCKETS; b++)
        for (struct entry *e = cache.bucket[b], *next; e; e = next) {
            next = e->next;
            entry_free(e);
        }
    memset(cache.bucket, 0, sizeof cache.bucket);
    cache.entries = 0;
}

void gemm_bf16_enter(void)
{
    pthread_mutex_lock(&cache.lock);
    if (!cache.users && cache.entries > ENTRIES_KEPT) cache_empty();
    cache.users++;
    pthread_mutex_unlock(&cache.lock);
}

void gemm_bf16_leave(void)
{
    pthread_mutex_lock(&cache.lock);
    cache.users--;
    pthread_mutex_unlock(&cache.lock);
}

static bool same_shape(const struct bf16_product *a, const struct bf16_product *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->lda == b->lda && a->ldb == b->ldb && a->ldc == b->ldc && a->ta == b->ta &&
           a->tb == b->tb && a->accumulate == b->accumulate && a->alpha == b->alpha;
}

static unsigned hash_shape(const struct bf16_product *p)
{
    uint64_t part[] = {(uint64_t)p->m,
                       (uint64_t)p->n,
                       (uint64_t)p->k,
                       (uint64_t)p->lda,
                       (uint64_t)p->ldb,
                       (uint64_t)p->ldc,
                       (uint64_t)(p->ta | p->tb << 1 | p->accumulate << 2)};
    uint64_t h = f32_bits(p->alpha);
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) h = (h ^ part[i]) * 0x9E3779B97F4A7C15ull;
    return (unsigned)(h >> 40) % BUCKETS;
}

static int entry_make(struct entry *e)
{
    const struct bf16_product *p = &e->shape;
    dnnl_dims_t a_dims = {p->m, p->k}, b_dims = {p->k, p->n}, c_dims = {p->m, p->n};
    dnnl_dims_t a_strides = {p->ta ? 1 : p->lda, p->ta ? p->lda : 1}, c_strides = {p->ldc, 1};
    dnnl_dims_t b_strides = {p->tb ? 1 : p->ldb, p->tb ? p->ldb : 1};
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_primitive_desc_t pd = NULL;
    int failed = dnnl_memory_desc_init_by_strides(&a, 2, a_dims, dnnl_bf16, a_strides);
    if (!failed) failed = dnnl_memory_desc_init_by_strides(&b, 2, b_dims, dnnl_bf16, b_strides);
    if (!failed) failed = dnnl_memory_desc_init_by_strides(&c, 2, c_dims, dnnl_f32, c_strides);
    if (!failed) failed = dnnl_matmul_desc_init(&matmul, &a, &b, NULL, &c);
    if (!failed) failed = dnnl_primitive_attr_create(&attr);
    if (!failed) failed = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!failed && p->alpha != 1.0f) failed = dnnl_primitive_attr_set_output_scales(attr, 1, 0, &p->alpha);
    if (!failed && p->accumulate) {
        failed = dnnl_post_ops_create(&post);
        if (!failed) failed = dnnl_post_ops_append_sum(post, 1.0f);
        if (!failed) failed = dnnl_primitive_attr_set_post_ops(attr, post);
    }
    if (!failed) failed = dnnl_primitive_desc_create(&pd, &matmul, attr, cache.engine, NULL);
    if (!failed) failed = dnnl_primitive_create(&e->primitive, pd);
    dnnl_primitive_desc_destroy(pd);
    dnnl_post_ops_destroy(post);
    dnnl_primitive_attr_destroy(attr);
    if (failed) return failed;

    const_dnnl_primitive_desc_t own;
    failed = dnnl_primitive_get_primitive_desc(e->primitive, &own);
    if (failed) return failed;
    static const dnnl_query_t query[ARG_COUNT] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md, dnnl_query_scratchpad_md};
    for (int arg = 0; arg < ARG_COUNT; arg++) e->md[arg] = dnnl_primitive_desc_query_md(own, query[arg], 0);
    return dnnl_memory_desc_get_size(e->md[ARG_SCRATCH]) > GEMM_BF16_SCRATCH ? dnnl_out_of_memory : 0;
}

static int entry_find(const struct bf16_product *p, const struct entry **out)
{
    int failed = 0;
    pthread_mutex_lock(&cache.lock);
    if (!cache.engine) failed = dnnl_engine_create(&cache.engine, dnnl_cpu, 0);
    if (!failed && !cache.stream) {
        dnnl_set_primitive_cache_capacity(0); /* oneDNN would keep its own thousand beside ours */
        failed = dnnl_stream_create(&cache.stream, cache.engine, dnnl_stream_default_flags);
    }
    struct entry **list = &cache.bucket[hash_shape(p)], *e = *list;
    while (e && !same_shape(&e->shape, p)) e = e->next;
    if (!e && !failed) {
        e = mem_alloc(sizeof *e);
        e->shape = *p;
        failed = entry_make(e);
        if (failed) {
            entry_free(e);
            e = NULL;
        } else {
            e->next = *list;
            *list = e;
            cache.entries++;
        }
    }
    pthread_mutex_unlock(&cache.lock);
    *out = e;
    return failed;
}

int gemm_bf16_run(const struct bf16_product *p, const bf16 *a, const bf16 *b, float *c, void *scratch)
{
    static const int id[ARG_COUNT] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
    const void *data[ARG_COUNT] = {a, b, c, scratch};
    const struct entry *e;
    dnnl_exec_arg_t args[ARG_COUNT] = {0};
    int failed = entry_find(p, &e);
    for (int i = 0; i < ARG_COUNT && !failed; i++) {
        args[i].arg = id[i];
        failed = dnnl_memory_create(&args[i].memory, e->md[i], cache.engine, (void *)(uintptr_t)data[i]);
    }
    if (!failed) failed = dnnl_primitive_execute(e->primitive, cache.stream, ARG_COUNT, args);
    for (int i = 0; i < ARG_COUNT; i++) dnnl_memory_destroy(args[i].memory);
    return failed;
}
