/* Loading: from files, or drawn. Pieces go through the stage, ops convert them; only what is quantised goes whole, since its
 * scales are quantised together. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "kernels/base/text.h"
#include "worker/memory/param_store.h"

enum { PIECE = 1 << 20 }; /* elements */

/* The pages of a source that was copied are clean and in the page cache: drop them from this process. */
void param_forget(const struct st_entry *e, size_t from, size_t to)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), data = (uintptr_t)e->data, lo = data + from, hi = data + to;
    lo = from ? lo / page * page : (lo + page - 1) / page * page;
    hi = hi / page * page;
    if (hi > lo) madvise((void *)lo, hi - lo, MADV_DONTNEED);
}

void param_source_forget(const struct param *p, int64_t first, int64_t count)
{
    size_t size = dtype_bytes(p->source->dt);
    param_forget(p->source, (size_t)first * size, (size_t)(first + count) * size);
}

bool param_load_widens(const struct param *p)
{
    if (p->stored) return false;
    bool drawn = !p->source && !p->imagined;
    return (p->kind == PARAM_NF4 && (drawn || (p->source && p->source->dt == DT_F16))) || (param_has_room(p) && drawn);
}

size_t param_load_bytes(const struct param_store *ps)
{
    size_t most = (size_t)PIECE * 4;
    for (int i = 0; i < ps->n; i++)
        if (ps->p[i].kind == PARAM_NF4 && !ps->p[i].stored) {
            const struct param *p = &ps->p[i];
            size_t bytes = p->source ? p->source->bytes : p->imagined ? (size_t)p->count * 2 : 0;
            if (bytes > most) most = bytes;
        }
    return most;
}

static status convert(struct stream *s, tensor from, tensor to) { return op_axpy(s, &(struct axpy_args){.x = from, .y = to, .scale = 1}); }

/* Elements of a tensor from the flat ones in `from`: whole rows, where rows are apart. */
static status convert_part(struct stream *s, tensor from, tensor to, int64_t first)
{
    if (to.rank == 1 || to.ld == to.dim[1]) return convert(s, from, tensor_part(to, first, from.dim[0]));
    from = tensor_2d(from.data, from.dt, from.dim[0] / to.dim[1], to.dim[1]);
    return convert(s, from, tensor_rows(&to, first / to.dim[1], from.dim[0]));
}

/* Elements of the source as ops can read them: the file promises no alignment, and ops know no f64. *owned is freed when
 * they have. */
static status source(struct stage *g, const struct st_entry *e, int64_t first, int64_t count, tensor *out, void **owned)
{
    const char *at = (const char *)e->data + (size_t)first * dtype_bytes(e->dt);
    *out = tensor_1d(NULL, e->dt == DT_F64 ? DT_F32 : e->dt, count);
    size_t bytes = (size_t)count * dtype_bytes(out->dt);
    *owned = NULL;
    if (e->dt == DT_F64) {
        float *narrow = *owned = mem_alloc(bytes);
        for (int64_t i = 0; i < count; i++) {
            double x;
            memcpy(&x, at + i * 8, sizeof x);
            narrow[i] = (float)x;
        }
    } else if ((uintptr_t)at % dtype_bytes(e->dt) && !g->apart)
        *owned = memcpy(mem_alloc(bytes), at, bytes);
    status st = stage_raw(g, *owned ? *owned : at, bytes, &out->data);
    if (st) free(*owned);
    return st;
}

static status put_piece(struct stage *g, const struct param *p, int64_t first, int64_t count)
{
    tensor from;
    void *owned;
    TRY(source(g, p->source, first, count, &from, &owned));
    status st = convert_part(g->s, from, p->value, first);
    if (!st && p->master.data) st = convert(g->s, from, tensor_part(p->master, first, count));
    free(owned);
    return st;
}

/* Straight where it lies there as it does in the file: the stage's room for raw bytes may be the memory that is filled here. */
status param_fetch(struct stage *g, const struct param *p, tensor to)
{
    if ((to.rank == 1 || to.ld == to.dim[1]) && p->source->dt == to.dt) {
        TRY(stage_in(g, to.data, p->source->data, p->source->bytes));
        param_source_forget(p, 0, p->count);
        return ST_OK;
    }
    int64_t step = to.rank == 1 || to.ld == to.dim[1] ? PIECE : p->dim[1] < PIECE ? PIECE / p->dim[1] * p->dim[1] : p->dim[1];
    for (int64_t first = 0, count; first < p->count; first += count) {
        tensor from;
        void *owned;
        count = p->count - first < step ? p->count - first : step;
        TRY(source(g, p->source, first, count, &from, &owned));
        status st = convert_part(g->s, from, to, first);
        free(owned);
        TRY(st);
        param_source_forget(p, first, count);
    }
    return ST_OK;
}

static status quantise(struct param_store *ps, struct stage *g, const struct param *p)
{
    tensor from;
    void *owned;
    TRY(source(g, p->source, 0, p->count, &from, &owned));
    struct nf4_args q = p->nf4;
    q.w = param_load_widens(p) ? tensor_part(ps->wide, 0, p->count) : from;
    status st = param_load_widens(p) ? convert(g->s, from, q.w) : ST_OK;
    if (!st) st = op_nf4_quantize(g->s, &q);
    free(owned);
    return st;
}

static status load_one(struct param_store *ps, struct stage *g, const struct param *p)
{
    int64_t step = p->kind == PARAM_NF4 ? p->count : PIECE;
    if (param_has_room(p)) step = p->dim[1] < PIECE ? PIECE / p->dim[1] * p->dim[1] : p->dim[1];
    for (int64_t first = 0; first < p->count; first += step) {
        int64_t count = p->count - first < step ? p->count - first : step;
        TRY(p->kind == PARAM_NF4 ? quantise(ps, g, p) : put_piece(g, p, first, count));
        param_source_forget(p, first, count);
    }
    return ST_OK;
}

static status fill_ones(struct stage *g, tensor to)
{
    float *ones = mem_alloc((size_t)to.dim[0] * sizeof *ones);
    void *raw;
    for (int64_t i = 0; i < to.dim[0]; i++) ones[i] = 1;
    status st = stage_raw(g, ones, (size_t)to.dim[0] * sizeof *ones, &raw);
    if (!st) st = convert(g->s, tensor_1d(raw, DT_F32, to.dim[0]), to);
    free(ones);
    return st;
}

static status draw(struct stage *g, const struct param *p, tensor to, uint64_t key)
{
    switch (p->init) {
    case PARAM_INIT_NORMAL:
    case PARAM_INIT_UNIFORM:
        return op_init(g->s, &(struct init_args){.w = to, .bound = p->init_bound, .normal = p->init == PARAM_INIT_NORMAL, .key = key});
    case PARAM_INIT_ZERO:
    case PARAM_INIT_LENGTH:
        return g->s->be->dev.zero(g->s, to.data, (size_t)to.dim[0] * dtype_bytes(to.dt));
    case PARAM_INIT_ONE:
        return fill_ones(g, to);
    }
    return ST_FAIL;
}

static status init_one(struct param_store *ps, struct stage *g, const struct param *p, int id, uint64_t seed)
{
    bool nf4 = p->kind == PARAM_NF4;
    tensor to = tensor_part(param_load_widens(p) ? ps->wide : p->master.data ? p->master : p->value, 0, p->count);
    TRY(draw(g, p, to, rng_key(seed, RNG_INIT, (uint32_t)id, 0)));
    if (p->master.data) return convert(g->s, to, tensor_part(p->value, 0, p->count));
    if (param_has_room(p)) return convert_part(g->s, to, p->value, 0);
    if (!nf4) return ST_OK;
    struct nf4_args q = p->nf4;
    q.w = to;
    return op_nf4_quantize(g->s, &q);
}

status param_store_load(struct param_store *ps, struct stage *g, uint64_t seed)
{
    if (ps->flat_count) {
        TRY(ps->be->dev.zero(g->s, ps->flat, (size_t)ps->flat_count * dtype_bytes(ps->trained_dt)));
        if (ps->flat_master) TRY(ps->be->dev.zero(g->s, ps->flat_master, (size_t)ps->flat_count * 4));
        if (ps->flat_work) TRY(ps->be->dev.zero(g->s, ps->flat_work, (size_t)ps->flat_count * dtype_bytes(ps->act)));
        TRY(stage_in(g, (void *)(uintptr_t)ps->segs.dev, ps->segs.host, (size_t)ps->segs.n * sizeof *ps->segs.host));
    }
    for (int i = 0; i < ps->n; i++) {
        struct param *p = &ps->p[i];
        log_progress("load", i + 1, ps->n);
        if (p->stored) TRY(param_stored_load(p, g));
        if (p->mapped || p->stored) continue;
        if (param_has_room(p)) TRY(ps->be->dev.zero(g->s, p->value.data, (size_t)param_extent(p) * dtype_bytes(ps->act)));
        TRY(p->source ? load_one(ps, g, p) : init_one(ps, g, p, i, seed));
    }
    TRY(param_layers_clear(ps, g->s));
    return param_store_refresh_all(ps, g->s);
}

status param_store_replace(struct param_store *ps, struct stage *g, const struct st_set *files)
{
    ps->replaced = g;
    if (ps->flat_count) TRY(ps->be->dev.zero(g->s, ps->flat, (size_t)ps->flat_count * dtype_bytes(ps->trained_dt)));
    if (ps->flat_work) TRY(ps->be->dev.zero(g->s, ps->flat_work, (size_t)ps->flat_count * dtype_bytes(ps->act)));
    for (int i = 0; i < ps->n; i++) {
        struct param *p = &ps->p[i];
        p->source = p->kind == PARAM_ADAPTER ? NULL : st_find(files, p->name);
        if (p->kind == PARAM_ADAPTER) continue;
        if (!p->source || !param_shape_agrees(p, p->source) || p->source->dt != ps->act)
            FAIL(ST_CORRUPT, "%s is not among the weights that were just written", p->name);
        if (p->mapped && p->kind == PARAM_FROZEN)
            p->value = param_shaped(p, (void *)(uintptr_t)p->source->data, ps->act);
        else if (p->kind != PARAM_NF4)
            TRY(param_fetch(g, p, p->value));
    }
    TRY(param_layers_clear(ps, g->s));
    return param_store_refresh_all(ps, g->s);
}
