/* param_stored.c — NF4 weights as a directory has them (checkpoints/bnb.h): its codes and scales are what trains. Nothing is quantised
 * here, and of scales only those whose code book is not ours are decoded, to the f32 numbers that bitsandbytes decodes them to. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"
#include "kernels/quant_maps.h"
#include "worker/memory/param_store.h"

enum { PIECE = 1 << 14 }; /* scales decoded at a time */

status param_stored_find(struct param_store *ps, struct param *p, const struct st_set *files, const struct st_entry *e, bool *taken)
{
    TRY(bnb_find(ps->bnb, files, e, p->dim[0], p->dim[1], taken, &p->packed));
    dtype was = p->packed.state.dt;
    p->once = !p->packed.nested || p->packed.map;
    p->nf4.through = was == ps->act ? DT_F32 : was;
    return ST_OK;
}

static bool aligned(const struct st_entry *e) { return !e || (uintptr_t)e->data % 4 == 0; }

static tensor in_file(struct param_store *ps, const struct st_entry *e, dtype dt, int64_t count)
{
    ps->mapped_bytes += (size_t)count * dtype_bytes(dt);
    return tensor_1d((void *)(uintptr_t)e->data, dt, count);
}

bool param_stored_map(struct param_store *ps, struct param *p)
{
    const struct bnb_tensor *t = &p->packed;
    struct nf4_sizes n = nf4_sizes(p->count);
    p->mapped = ps->be->tensors_in == MEM_HOST && t->codes && !t->map && aligned(t->nested ? t->nested : t->absmax);
    if (!p->mapped) return false;
    p->nf4.codes = in_file(ps, t->codes, DT_U8, n.codes);
    if (p->once) {
        p->nf4.absmax = in_file(ps, t->absmax, DT_F32, n.blocks);
        return true;
    }
    p->nf4.absmax_q = in_file(ps, t->absmax, DT_U8, n.blocks);
    p->nf4.nested = in_file(ps, t->nested, DT_F32, n.nested);
    return true;
}

static status copy(struct stage *g, const struct st_entry *e, tensor to)
{
    TRY(stage_in(g, to.data, e->data, e->bytes));
    param_forget(e, 0, e->bytes);
    return ST_OK;
}

static float number(const struct st_entry *e, int64_t i)
{
    float x;
    memcpy(&x, (const char *)e->data + i * 4, sizeof x);
    return x;
}

/* Product and sum are rounded each, as in bitsandbytes. */
static status decode_scales(struct stage *g, const struct bnb_tensor *t, tensor to)
{
    const uint8_t *codes = t->absmax->data;
    float *scale = mem_alloc(PIECE * sizeof *scale);
    status st = ST_OK;
    for (int64_t at = 0; at < to.dim[0] && !st; at += PIECE) {
        int64_t n = to.dim[0] - at < PIECE ? to.dim[0] - at : PIECE;
        for (int64_t i = 0; i < n; i++)
            scale[i] = number(t->map, codes[at + i]) * number(t->nested, (at + i) / NF4_NESTED_BLOCK) + t->state.offset;
        st = stage_in(g, (float *)to.data + at, scale, (size_t)n * sizeof *scale);
    }
    free(scale);
    return st;
}

status param_stored_load(struct param *p, struct stage *g)
{
    const struct bnb_tensor *t = &p->packed;
    TRY(bnb_check_scales(t));
    if (!p->once) TRY(stage_in(g, p->nf4.offset.data, &t->state.offset, sizeof t->state.offset));
    if (p->mapped) return ST_OK;
    TRY(copy(g, t->codes, p->nf4.codes));
    if (t->map) return decode_scales(g, t, p->nf4.absmax);
    if (p->once) return copy(g, t->absmax, p->nf4.absmax);
    TRY(copy(g, t->absmax, p->nf4.absmax_q));
    return copy(g, t->nested, p->nf4.nested);
}
