/* sdpa_graph.c — the graphs of attention forward and backward, operation by operation.
 *
 * Engines are found by pattern: the operations, their order and what is virtual are those of NVIDIA's own frontend
 * (cudnn-frontend, node/scaled_dot_product_flash_attention.h), the only description there is. Tensors have four dimensions,
 * [document, head, row, column]; K and V stand transposed where a product wants them so. Grouped heads: a tensor of fewer heads is
 * spread over those of the others. */
#include "kernels/cuda/sdpa_graph.h"

#include <string.h>

typedef cudnnBackendDescriptor_t node;

/* ---- descriptors ------------------------------------------------------------------------------------------------------------- */

status cudnn_status(const struct cudnn *nn, status code, cudnnStatus_t e, const char *what)
{
    if (e == CUDNN_STATUS_SUCCESS) return ST_OK;
    char reason[512] = "";
    nn->GetLastErrorString(reason, sizeof reason);
    FAIL(code, "cuDNN: %s: %s%s%s", what, nn->GetErrorString(e), *reason ? ": " : "", reason);
}

static void must(struct sdpa_graph *g, cudnnStatus_t e, const char *what)
{
    if (!g->st) g->st = cudnn_status(g->nn, ST_NOT_BUILT, e, what);
}

cudnnBackendDescriptor_t sdpa_make(struct sdpa_graph *g, cudnnBackendDescriptorType_t type)
{
    node d = NULL;
    if (g->st) return NULL;
    if (g->n_made == (int)(sizeof g->made / sizeof *g->made)) {
        g->st = status_fail(ST_FAIL, "attention: a graph of more than %d descriptors", g->n_made);
        return NULL;
    }
    must(g, g->nn->BackendCreateDescriptor(type, &d), "a descriptor");
    return g->made[g->n_made++] = d;
}

void sdpa_set(struct sdpa_graph *g, node d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n,
              const void *values)
{
    if (!g->st) must(g, g->nn->BackendSetAttribute(d, name, type, n, values), "an attribute");
}

void sdpa_finish(struct sdpa_graph *g, node d, const char *what)
{
    if (!g->st) must(g, g->nn->BackendFinalize(d), what);
}

static void set_node(struct sdpa_graph *g, node d, cudnnBackendAttributeName_t name, node value)
{
    if (value) sdpa_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void set_type(struct sdpa_graph *g, node d, cudnnBackendAttributeName_t name, cudnnDataType_t type)
{
    sdpa_set(g, d, name, CUDNN_TYPE_DATA_TYPE, 1, &type);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------------ */

struct spread {
    int64_t dim[4], stride[4];
};

/* uid 0: virtual. */
static node tensor_of(struct sdpa_graph *g, int64_t uid, cudnnDataType_t type, struct spread at, node offsets)
{
    bool is_virtual = !uid, by_value = uid >= UID_SCALE && uid < UIDS;
    int64_t align = by_value || uid == UID_OPERANDS + SDPA_LSE ? 4 : 16; /* slices of heads begin anywhere in a row of lse */
    if (is_virtual)
        uid = UID_VIRTUAL + g->next_virtual++;
    else
        g->uids[g->n_uids++] = uid;
    node d = sdpa_make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set_type(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    sdpa_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, at.dim);
    sdpa_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, at.stride);
    sdpa_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    sdpa_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    sdpa_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    if (by_value) sdpa_set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
    set_node(g, d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, offsets);
    sdpa_finish(g, d, "a tensor");
    return d;
}

static node value(struct sdpa_graph *g, enum sdpa_uid uid)
{
    return tensor_of(g, uid, CUDNN_DATA_FLOAT, (struct spread){{1, 1, 1, 1}, {1, 1, 1, 1}}, NULL);
}

static int64_t heads_of(const struct sdpa_shape *s, enum sdpa_operand which)
{
    bool of_keys = which == SDPA_K || which == SDPA_V || which == SDPA_DK || which == SDPA_DV;
    return of_keys ? s->kv_heads : s->heads;
}

static struct spread operand_spread(const struct sdpa_shape *s, enum sdpa_operand which)
{
    int64_t width = which == SDPA_LSE ? 1 : s->head_dim, ld = s->ld[which];
    return (struct spread){{s->docs, heads_of(s, which), s->tokens, width}, {s->tokens * ld, width, ld, 1}};
}

static struct spread turned(struct spread a)
{
    return (struct spread){{a.dim[0], a.dim[1], a.dim[3], a.dim[2]}, {a.stride[0], a.stride[1], a.stride[3], a.stride[2]}};
}

/* dq lies as q does, dk as k, dv as v: one array of offsets serves both, as the frontend has it. */
static enum sdpa_operand offsets_of(enum sdpa_operand which) { return which >= SDPA_DQ ? which - SDPA_DQ + SDPA_Q : which; }

static node operand(struct sdpa_graph *g, enum sdpa_operand which, bool transposed)
{
    struct spread at = operand_spread(g->shape, which);
    return tensor_of(g, UID_OPERANDS + which, which == SDPA_LSE ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16, transposed ? turned(at) : at,
                     g->offsets[offsets_of(which)]);
}

static node scores(struct sdpa_graph *g, cudnnDataType_t type)
{
    int64_t h = g->shape->heads, t = g->shape->tokens;
    return tensor_of(g, 0, type, (struct spread){{g->shape->docs, h, t, t}, {h * t * t, t * t, t, 1}}, NULL);
}

static node row_values(struct sdpa_graph *g)
{
    int64_t h = g->shape->heads, t = g->shape->tokens;
    return tensor_of(g, 0, CUDNN_DATA_FLOAT, (struct spread){{g->shape->docs, h, t, 1}, {h * t, t, 1, 1}}, NULL);
}

static void add_lengths(struct sdpa_graph *g)
{
    int64_t slots = g->shape->docs;
    struct spread each = {{slots, 1, 1, 1}, {1, 1, 1, 1}}, ends = {{slots + 1, 1, 1, 1}, {1, 1, 1, 1}};
    if (!g->shape->ragged) return;
    g->lengths_q = tensor_of(g, UID_LENGTHS_Q, CUDNN_DATA_INT32, each, NULL);
    g->lengths_k = tensor_of(g, UID_LENGTHS_K, CUDNN_DATA_INT32, each, NULL);
    for (int i = SDPA_Q; i <= (g->shape->way == SDPA_FORWARD ? SDPA_LSE : SDPA_DO); i++)
        g->offsets[i] = tensor_of(g, UID_OFFSETS + i, CUDNN_DATA_INT64, ends, NULL);
}

/* ---- operations --------------------------------------------------------------------------------------------------------------- */

static void add_op(struct sdpa_graph *g, node op, const char *what)
{
    sdpa_finish(g, op, what);
    if (!g->st) g->ops[g->n_ops++] = op;
}

struct point {
    cudnnPointwiseMode_t mode;
    node x, b, t, y; /* y = mode(x, b, t); of a derivative: x, and b = dy */
    int64_t axis;    /* of an index */
};

static void point(struct sdpa_graph *g, struct point p)
{
    bool truth = p.mode == CUDNN_POINTWISE_CMP_GE || p.mode == CUDNN_POINTWISE_CMP_GT || p.mode == CUDNN_POINTWISE_CMP_LT ||
                 p.mode == CUDNN_POINTWISE_LOGICAL_AND;
    bool derivative = p.mode == CUDNN_POINTWISE_TANH_BWD;
    node d = sdpa_make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    sdpa_set(g, d, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &p.mode);
    set_type(g, d, CUDNN_ATTR_POINTWISE_MATH_PREC, truth ? CUDNN_DATA_BOOLEAN : CUDNN_DATA_FLOAT);
    if (p.mode == CUDNN_POINTWISE_GEN_INDEX) sdpa_set(g, d, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &p.axis);
    sdpa_finish(g, d, "pointwise");
    node op = sdpa_make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_node(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, d);
    set_node(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, p.x);
    set_node(g, op, derivative ? CUDNN_ATTR_OPERATION_POINTWISE_DYDESC : CUDNN_ATTR_OPERATION_POINTWISE_BDESC, p.b);
    set_node(g, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, p.t);
    set_node(g, op, derivative ? CUDNN_ATTR_OPERATION_POINTWISE_DXDESC : CUDNN_ATTR_OPERATION_POINTWISE_YDESC, p.y);
    add_op(g, op, "a pointwise operation");
}

/* Of every score: mode(x, b), of the given type. */
static node each_as(struct sdpa_graph *g, cudnnDataType_t type, cudnnPointwiseMode_t mode, node x, node b)
{
    node y = scores(g, type);
    point(g, (struct point){mode, x, b, NULL, y, 0});
    return y;
}

static node each(struct sdpa_graph *g, cudnnPointwiseMode_t mode, node x, node b) { return each_as(g, CUDNN_DATA_FLOAT, mode, x, b); }

static node index_of(struct sdpa_graph *g, node x, int64_t axis)
{
    node y = scores(g, CUDNN_DATA_INT32);
    point(g, (struct point){CUDNN_POINTWISE_GEN_INDEX, x, NULL, NULL, y, axis});
    return y;
}

/* x where `seen`, −∞ elsewhere. */
static node only(struct sdpa_graph *g, node x, node seen, node lowest)
{
    node y = scores(g, CUDNN_DATA_FLOAT);
    point(g, (struct point){CUDNN_POINTWISE_BINARY_SELECT, x, lowest, seen, y, 0});
    return y;
}

/* c [.., m, n] = a [.., m, k]·b [.., k, n]; lengths shorten m, n or k where given. */
static void product(struct sdpa_graph *g, node a, node b, node c, node m, node n, node k)
{
    node d = sdpa_make(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set_type(g, d, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
    sdpa_finish(g, d, "matmul");
    node op = sdpa_make(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_node(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    set_node(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    set_node(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    set_node(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, d);
    set_node(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, m);
    set_node(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, n);
    set_node(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, k);
    add_op(g, op, "a matrix product");
}

static void reduce(struct sdpa_graph *g, cudnnReduceTensorOp_t how, node x, node y)
{
    node d = sdpa_make(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    sdpa_set(g, d, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &how);
    set_type(g, d, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    sdpa_finish(g, d, "reduction");
    node op = sdpa_make(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_node(g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_node(g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    set_node(g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, d);
    add_op(g, op, "a reduction");
}

static node reshaped(struct sdpa_graph *g, node x, node y)
{
    node op = sdpa_make(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_node(g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    set_node(g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    add_op(g, op, "a reshape");
    return y;
}

/* ---- what both ways do to scores ---------------------------------------------------------------------------------------------- */

struct masks {
    node scale, lowest, window, cap;
    node before_tanh; /* set by capped(), for its derivative */
};

static struct masks masks_of(struct sdpa_graph *g)
{
    return (struct masks){
        .scale = value(g, UID_SCALE),
        .lowest = value(g, UID_LOWEST),
        .window = g->shape->window ? value(g, UID_WINDOW) : NULL,
        .cap = g->shape->capped ? value(g, UID_CAP) : NULL,
    };
}

/* scale·Q·Kᵀ, soft-capped, and −∞ outside the document. */
static node scores_of(struct sdpa_graph *g, struct masks *m, node q, node kt)
{
    node s = scores(g, CUDNN_DATA_FLOAT);
    product(g, q, kt, s, g->lengths_q, g->lengths_k, NULL);
    s = each(g, CUDNN_POINTWISE_MUL, s, m->scale);
    if (m->cap) {
        m->before_tanh = each(g, CUDNN_POINTWISE_DIV, s, m->cap);
        s = each(g, CUDNN_POINTWISE_MUL, each(g, CUDNN_POINTWISE_TANH_FWD, m->before_tanh, NULL), m->cap);
    }
    if (g->shape->ragged) {
        node row = index_of(g, s, 2), column = index_of(g, s, 3);
        row = each_as(g, CUDNN_DATA_BOOLEAN, CUDNN_POINTWISE_CMP_LT, row, g->lengths_q);
        column = each_as(g, CUDNN_DATA_BOOLEAN, CUDNN_POINTWISE_CMP_LT, column, g->lengths_k);
        s = only(g, s, each_as(g, CUDNN_DATA_BOOLEAN, CUDNN_POINTWISE_LOGICAL_AND, row, column), m->lowest);
    }
    return s;
}

/* −∞ for keys behind the query, and for those the window has left. */
static node banded(struct sdpa_graph *g, const struct masks *m, node s)
{
    node row = index_of(g, s, 2), column = index_of(g, s, 3);
    s = only(g, s, each_as(g, CUDNN_DATA_BOOLEAN, CUDNN_POINTWISE_CMP_GE, row, column), m->lowest);
    if (!m->window) return s;
    row = index_of(g, s, 2), column = index_of(g, s, 3);
    column = each(g, CUDNN_POINTWISE_ADD, column, m->window);
    return only(g, s, each_as(g, CUDNN_DATA_BOOLEAN, CUDNN_POINTWISE_CMP_GT, column, row), m->lowest);
}

/* ---- the two graphs ----------------------------------------------------------------------------------------------------------- */

static void forward(struct sdpa_graph *g)
{
    node q = operand(g, SDPA_Q, false), kt = operand(g, SDPA_K, true), v = operand(g, SDPA_V, false);
    node o = operand(g, SDPA_O, false), lse = operand(g, SDPA_LSE, false);
    struct masks m = masks_of(g);
    node s = banded(g, &m, scores_of(g, &m, q, kt));
    node max = row_values(g), sum = row_values(g), log = row_values(g);
    reduce(g, CUDNN_REDUCE_TENSOR_MAX, s, max);
    node e = each(g, CUDNN_POINTWISE_EXP, each(g, CUDNN_POINTWISE_SUB, s, max), NULL);
    reduce(g, CUDNN_REDUCE_TENSOR_ADD, e, sum);
    point(g, (struct point){CUDNN_POINTWISE_LOG, sum, NULL, NULL, log, 0});
    point(g, (struct point){CUDNN_POINTWISE_ADD, max, log, NULL, lse, 0});
    node p = each_as(g, CUDNN_DATA_BFLOAT16, CUDNN_POINTWISE_DIV, e, sum);
    product(g, p, v, o, g->lengths_q, NULL, g->lengths_k);
}

/* Σ_d dO∘O of every row, where lse has its own. */
static node row_sums(struct sdpa_graph *g, node d_o, node o)
{
    const struct sdpa_shape *s = g->shape;
    int64_t h = s->heads, t = s->tokens, d = s->head_dim;
    node one = value(g, UID_ONE), sum = row_values(g);
    node both = tensor_of(g, 0, CUDNN_DATA_FLOAT, (struct spread){{s->docs, h, t, d}, {h * t * d, t * d, h * d, 1}}, NULL);
    struct spread at = {{s->docs, h, t, 1}, {h * t, t, 1, 1}};
    node out = tensor_of(g, UID_ROW_SUM, CUDNN_DATA_FLOAT, s->ragged ? operand_spread(s, SDPA_LSE) : at, g->offsets[SDPA_LSE]);
    point(g, (struct point){CUDNN_POINTWISE_MUL, d_o, o, NULL, both, 0});
    reduce(g, CUDNN_REDUCE_TENSOR_ADD, both, sum);
    point(g, (struct point){CUDNN_POINTWISE_MUL, sum, one, NULL, out, 0});
    return out;
}

/* dk = dSᵀ·Q or dv = Pᵀ·dO: for each query head, then summed over those of a group. */
static void to_keys(struct sdpa_graph *g, node p, node x, enum sdpa_operand which)
{
    const struct sdpa_shape *s = g->shape;
    int64_t h = s->heads, t = s->tokens, d = s->head_dim, group = s->heads / s->kv_heads;
    struct spread square = {{s->docs, h, t, t}, {h * t * t, t * t, 1, t}};
    node pt = reshaped(g, p, tensor_of(g, 0, CUDNN_DATA_BFLOAT16, square, NULL)), out = operand(g, which, false);
    if (group == 1) {
        product(g, pt, x, out, g->lengths_k, NULL, g->lengths_q);
        return;
    }
    /* Ragged: in memory, laid as dk or dv but for `group` times the heads; the engine multiplies the offsets itself. */
    struct spread all = {{s->docs, h, t, d}, {h * t * d, t * d, d, 1}}, rows = operand_spread(s, which);
    struct spread laid = {{s->docs, h, t, d}, {rows.stride[0] * group, d, rows.stride[2] * group, 1}};
    int64_t uid = which == SDPA_DK ? UID_DK_ALL : UID_DV_ALL;
    node each_head = tensor_of(g, s->ragged ? uid : 0, CUDNN_DATA_BFLOAT16, s->ragged ? laid : all, g->offsets[offsets_of(which)]);
    product(g, pt, x, each_head, g->lengths_k, NULL, g->lengths_q);
    reduce(g, CUDNN_REDUCE_TENSOR_ADD, each_head, out);
}

/* dq = dS·K. By atomics into f32, or, deterministic, at once. */
static void to_queries(struct sdpa_graph *g, node ds, node kt)
{
    const struct sdpa_shape *s = g->shape;
    int64_t h = s->heads, t = s->tokens, d = s->head_dim;
    node k = reshaped(g, kt, tensor_of(g, 0, CUDNN_DATA_BFLOAT16, operand_spread(s, SDPA_K), g->offsets[SDPA_K]));
    node dq = operand(g, SDPA_DQ, false), sum = NULL;
    if (s->way == SDPA_BACKWARD) {
        struct spread all = {{s->docs, h, t, d}, {h * t * d, t * d, d, 1}};
        sum = tensor_of(g, UID_DQ_SUM, CUDNN_DATA_FLOAT, s->ragged ? operand_spread(s, SDPA_DQ) : all, g->offsets[SDPA_Q]);
    }
    product(g, ds, k, sum ? sum : dq, g->lengths_q, NULL, g->lengths_k);
    if (sum) point(g, (struct point){CUDNN_POINTWISE_IDENTITY, sum, NULL, NULL, dq, 0});
}

static void backward(struct sdpa_graph *g)
{
    node q = operand(g, SDPA_Q, false), kt = operand(g, SDPA_K, true), vt = operand(g, SDPA_V, true);
    node o = operand(g, SDPA_O, false), lse = operand(g, SDPA_LSE, false), d_o = operand(g, SDPA_DO, false);
    node delta = row_sums(g, d_o, o);
    struct masks m = masks_of(g);
    node s = each(g, CUDNN_POINTWISE_SUB, scores_of(g, &m, q, kt), lse);
    node p = each(g, CUDNN_POINTWISE_EXP, banded(g, &m, s), NULL);
    to_keys(g, p, d_o, SDPA_DV);
    node dp = scores(g, CUDNN_DATA_FLOAT);
    product(g, d_o, vt, dp, g->lengths_q, g->lengths_k, NULL);
    node ds = each(g, CUDNN_POINTWISE_MUL, each(g, CUDNN_POINTWISE_SUB, dp, delta), p);
    if (m.cap) {
        node slope = scores(g, CUDNN_DATA_FLOAT);
        ds = each(g, CUDNN_POINTWISE_MUL, ds, m.cap);
        point(g, (struct point){CUDNN_POINTWISE_TANH_BWD, m.before_tanh, ds, NULL, slope, 0});
        ds = each(g, CUDNN_POINTWISE_DIV, slope, m.cap);
    }
    ds = each_as(g, CUDNN_DATA_BFLOAT16, CUDNN_POINTWISE_MUL, ds, m.scale);
    to_keys(g, ds, q, SDPA_DK);
    to_queries(g, ds, kt);
}

status sdpa_graph_build(struct sdpa_graph *g, const struct cudnn *nn, const struct sdpa_shape *shape, cudnnHandle_t handle)
{
    *g = (struct sdpa_graph){.nn = nn, .shape = shape};
    add_lengths(g);
    if (shape->way == SDPA_FORWARD)
        forward(g);
    else
        backward(g);
    node graph = sdpa_make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (handle) sdpa_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    sdpa_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->n_ops, g->ops);
    sdpa_finish(g, graph, "the graph of attention");
    g->graph = graph;
    return g->st;
}

void sdpa_graph_release(struct sdpa_graph *g)
{
    while (g->n_made > 0) g->nn->BackendDestroyDescriptor(g->made[--g->n_made]);
}
