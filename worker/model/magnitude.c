/* magnitude.c — adapters that learn the lengths of their weight's rows beside A and B (DoRA, arXiv 2402.09353):
 *
 *     W' = (m / N) ⊙ (W + s·B·A) row by row,  N = ‖W + s·B·A‖ of each row, a constant to the backward pass
 *     N² = ‖W‖² + rowsum(b ⊙ (2·W·aᵀ + b·(a·aᵀ))),  a, b: the working copies of A and s·B
 *
 * B·A is never formed. ‖W‖² is computed once; N when it is asked for and A or B were written since: once per update, whatever the
 * micro-batches and recomputations. */
#include "kernels/base/text.h"
#include "worker/model/model.h"

static int64_t linears(const struct model *m) { return m->shape.layers * LINEAR_PER_LAYER + 1; }

static struct linear *linear_at(const struct model *m, int64_t i)
{
    if (i == linears(m) - 1) return (struct linear *)(uintptr_t)&m->head;
    return &m->layers[i / LINEAR_PER_LAYER].linear[i % LINEAR_PER_LAYER];
}

void magnitude_add(struct model *m, struct linear *l, const char *module)
{
    l->magnitude = param_add(&m->params, PARAM_ADAPTER, l->out, 0, "base_model.model.%s.lora_magnitude_vector", module);
    m->params.p[l->magnitude].init = PARAM_INIT_LENGTH;
}

void magnitude_open(struct model *m)
{
    m->lengths = mem_alloc((size_t)linears(m) * sizeof *m->lengths);
    for (int64_t i = 0; i < linears(m); i++) linear_at(m, i)->lengths = &m->lengths[i];
}

static tensor taken(struct arena *a, dtype dt, int64_t n, const char *name)
{
    return tensor_1d(arena_take(a, (size_t)n * dtype_bytes(dt), "%s", name), dt, n);
}

/* Nobody's while the head computes, unless the head has a magnitude itself. */
static void layout_rescaled(struct model *m, struct arena *scratch, int64_t count)
{
    size_t bytes = (size_t)count * dtype_bytes(m->act);
    if (m->head.magnitude >= 0 || !model_spare(m, bytes, &m->rescaled))
        m->rescaled = arena_take(scratch, bytes, "projection before its magnitude");
}

enum { ROOM = 64 };

void magnitude_layout(struct model *m, struct arena *scratch, bool backward)
{
    int64_t all = 0, products = 0, ranks = 0, rows = 0, at = 0;
    m->rescale_room = m->be->joins_products ? (m->lora_rank + ROOM - 1) / ROOM * ROOM : 0;
    for (int64_t i = 0; i < linears(m); i++) {
        const struct linear *l = linear_at(m, i);
        if (l->magnitude < 0) continue;
        int64_t tokens = l == &m->head ? m->plan.head_rows : l->tiled ? m->acts.tile : m->bounds.tokens;
        int64_t count = tokens * (l->out + m->rescale_room);
        all += l->out;
        if (l->out * l->rank > products) products = l->out * l->rank;
        if (l->rank > ranks) ranks = l->rank;
        if (count > rows) rows = count;
    }
    if (!all) return;
    tensor lengths = taken(scratch, m->stat, 2 * all, "row lengths of adapted weights");
    m->row_products = taken(scratch, m->stat, products, "row lengths, W·Aᵀ").data;
    m->row_gram = taken(scratch, m->stat, ranks * ranks, "row lengths, A·Aᵀ").data;
    if (backward) layout_rescaled(m, scratch, rows);
    for (int64_t i = 0; i < linears(m); i++) {
        struct linear *l = linear_at(m, i);
        if (l->magnitude < 0) continue;
        l->lengths->square = tensor_part(lengths, at, l->out);
        l->lengths->now = tensor_part(lengths, at + l->out, l->out);
        l->lengths->measured = false;
        at += 2 * l->out;
    }
}

static status measure(struct model *m, struct stream *s, const struct linear *l, tensor w, tensor a, tensor b)
{
    struct row_lengths *r = l->lengths;
    tensor gram = tensor_2d(m->row_gram, m->stat, l->rank, l->rank), sums = tensor_2d(m->row_products, m->stat, l->out, l->rank);
    if (!r->measured) TRY(op_row_dot(s, &(struct row_dot_args){.x = w, .y = w, .out = r->square}));
    r->measured = true;
    TRY(op_gemm(s, &(struct gemm_args){.a = a, .b = a, .c = gram, .tb = true, .alpha = 1}));
    TRY(op_gemm(s, &(struct gemm_args){.a = w, .b = a, .c = sums, .tb = true, .alpha = 2}));
    TRY(op_gemm(s, &(struct gemm_args){.a = b, .b = gram, .c = sums, .alpha = 1, .beta = 1}));
    return op_row_dot(s, &(struct row_dot_args){.x = b, .y = sums, .add = r->square, .out = r->now, .root = true});
}

status magnitude_lengths(struct model *m, struct stream *s, const struct linear *l)
{
    struct param_store *ps = &m->params;
    unsigned written = ps->p[l->a].written + ps->p[l->b].written;
    tensor w, a, b;
    if (l->lengths->measured && l->lengths->as_of == written) return ST_OK;
    TRY(param_acquire(ps, s, l->a, &a));
    TRY(param_acquire(ps, s, l->b, &b));
    TRY(param_acquire(ps, s, l->w, &w));
    TRY(measure(m, s, l, w, a, b));
    param_done(ps, l->w);
    param_done(ps, l->b);
    param_done(ps, l->a);
    l->lengths->as_of = written;
    return ST_OK;
}

void magnitude_forget(struct model *m)
{
    for (int64_t i = 0; i < linears(m); i++) m->lengths[i].measured = false;
}

static status start_one(struct model *m, struct stream *s, const struct linear *l)
{
    if (l->magnitude < 0 || m->params.p[l->magnitude].source) return ST_OK;
    TRY(magnitude_lengths(m, s, l));
    TRY(op_axpy(s, &(struct axpy_args){.x = l->lengths->now, .y = m->params.p[l->magnitude].value, .scale = 1}));
    return param_store_refresh(&m->params, s, l->magnitude);
}

status magnitude_start(struct model *m, struct stream *s)
{
    if (!m->row_gram) return ST_OK;
    for (int64_t layer = 0; layer < m->shape.layers; layer++) {
        TRY(param_enter(&m->params, s, layer, PHASE_FORWARD));
        for (int i = 0; i < LINEAR_PER_LAYER; i++) TRY(start_one(m, s, &m->layers[layer].linear[i]));
        TRY(param_leave(&m->params, s, layer, PHASE_FORWARD));
    }
    return start_one(m, s, &m->head);
}

tensor magnitude_room(const struct model *m, const struct linear *l, int64_t rows, tensor *behind)
{
    tensor all = tensor_2d(m->rescaled, m->act, rows, l->out + m->rescale_room);
    *behind = m->rescale_room ? tensor_columns(&all, l->out, l->rank) : (tensor){0};
    return tensor_columns(&all, 0, l->out);
}
