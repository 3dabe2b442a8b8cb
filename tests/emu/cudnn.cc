/* cudnn.cc — the part of cuDNN's backend API that kernels/cuda/sdpa.c speaks, on the CPU: any graph of pointwise operations, matrix
 * products, reductions and reshapes is computed operation by operation, as its words say. No engine is recognised, none is fast.
 *
 * It is there when TRIMPOT_EMU_CUDNN is 1 (or `say`: a line on stderr for every graph that is executed), since most runs on the
 * emulated device are to run our own kernels.
 *
 * What it is strict about: rows of ragged tensors behind a document's end are never read or written, and stand for NaN; lengths
 * given to a product cut its m, n or k, what is cut off is 0; tensors in memory have all the bytes they may touch; a plan's
 * workspace is 0xff before each call; every uid of a graph has a pointer and no other has. Values are f32, rounded where a tensor's
 * type says so; sums run in ascending order. */
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

extern "C" {
#include "kernels/base/tensor.h"
#include "kernels/cuda/cudnn.h"
}
#include "tests/emu/capture.h"
#include "tests/emu/emu.h"
#include "tests/emu/memory.h"

namespace
{

constexpr size_t PLAN_BYTES = 256; /* of workspace, the least a real one asks for; nothing uses it */

/* ---- descriptors: what has been set on them ---------------------------------------------------------------------------------- */

struct descriptor {
    cudnnBackendDescriptorType_t type;
    bool finished = false;
    std::map<int, std::vector<unsigned char>> set; /* attribute → values */

    bool has(int name) const { return set.count(name) != 0; }
    template <class T> std::vector<T> all(int name) const
    {
        std::vector<T> out;
        auto found = set.find(name);
        if (found == set.end()) return out;
        out.resize(found->second.size() / sizeof(T));
        memcpy(out.data(), found->second.data(), out.size() * sizeof(T));
        return out;
    }
    template <class T> T one(int name, T otherwise = T{}) const
    {
        if (has(name)) memcpy(&otherwise, set.at(name).data(), sizeof otherwise);
        return otherwise;
    }
    const descriptor *to(int name) const { return static_cast<const descriptor *>(one<void *>(name)); }
};

thread_local std::string last_error;

cudnnStatus_t refuse(const std::string &why)
{
    last_error = why;
    return CUDNN_STATUS_BAD_PARAM;
}

size_t size_of(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
        return sizeof(bool);
    case CUDNN_TYPE_CHAR:
        return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    default:
        return 4; /* enumerations, float */
    }
}

/* ---- values ------------------------------------------------------------------------------------------------------------------ */

/* A tensor's values, dense over its four dimensions. */
struct values {
    int64_t dim[4];
    std::vector<float> v;

    explicit values(const int64_t d[4]) : v((size_t)(d[0] * d[1] * d[2] * d[3]), NAN) { memcpy(dim, d, sizeof dim); }
    size_t at(int64_t b, int64_t h, int64_t i, int64_t j) const { return (size_t)(((b * dim[1] + h) * dim[2] + i) * dim[3] + j); }
    /* Spread over a larger shape: one stands for all, few heads each for a group. */
    float spread(const int64_t to[4], int64_t b, int64_t h, int64_t i, int64_t j) const
    {
        return v[at(dim[0] == 1 ? 0 : b, h * dim[1] / to[1], dim[2] == 1 ? 0 : i, dim[3] == 1 ? 0 : j)];
    }
};

struct tensor_words {
    int64_t uid, dim[4], stride[4];
    cudnnDataType_t type;
    bool is_virtual, by_value;
    const descriptor *offsets;

    explicit tensor_words(const descriptor *d)
        : uid(d->one<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID)), type(d->one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE)),
          is_virtual(d->one<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL)), by_value(d->one<bool>(CUDNN_ATTR_TENSOR_IS_BY_VALUE)),
          offsets(d->to(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC))
    {
        memcpy(dim, d->all<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS).data(), sizeof dim);
        memcpy(stride, d->all<int64_t>(CUDNN_ATTR_TENSOR_STRIDES).data(), sizeof stride);
    }
};

size_t bytes_of(cudnnDataType_t type) { return type == CUDNN_DATA_BFLOAT16 ? 2 : type == CUDNN_DATA_INT64 ? 8 : 4; }

float load(cudnnDataType_t type, const void *p, int64_t at)
{
    switch (type) {
    case CUDNN_DATA_BFLOAT16:
        return bf16_widen(((const bf16 *)p)[at]);
    case CUDNN_DATA_INT32:
        return (float)((const int32_t *)p)[at];
    default:
        return ((const float *)p)[at];
    }
}

float rounded(cudnnDataType_t type, float x) { return type == CUDNN_DATA_BFLOAT16 ? bf16_widen(bf16_round(x)) : x; }

void store(cudnnDataType_t type, void *p, int64_t at, float x)
{
    if (type == CUDNN_DATA_BFLOAT16)
        ((bf16 *)p)[at] = bf16_round(x);
    else
        ((float *)p)[at] = x;
}

/* ---- one execution ----------------------------------------------------------------------------------------------------------- */

struct execution {
    std::vector<const descriptor *> ops;
    std::map<int64_t, void *> pointer;
    std::map<int64_t, float> scalar;      /* by value, read when the call was made */
    std::map<int64_t, int64_t> offset_ld; /* of an array of offsets: the row its elements are counted in */
    std::map<int64_t, std::shared_ptr<values>> made;
    std::vector<std::shared_ptr<values>> read; /* references to them are about */
    bool wrong = false;

    void complain(const char *what, int64_t uid)
    {
        if (!wrong) fprintf(stderr, "emu: cuDNN: %s (tensor %lld)\n", what, (long long)uid);
        wrong = true;
    }

    /* Elements before document b, and the rows it has. Which axis the rows are is what the stride says: the larger of the two. */
    void document(const tensor_words &t, int64_t b, int64_t *first, int64_t *rows, int *axis)
    {
        *axis = t.dim[3] > 1 && t.stride[3] > t.stride[2] ? 3 : 2;
        *first = b * t.stride[0], *rows = t.dim[*axis];
        if (!t.offsets) return;
        tensor_words o(t.offsets);
        const int64_t *at = (const int64_t *)pointer[o.uid];
        int64_t ld = offset_ld[o.uid], times = t.stride[*axis] / ld; /* what has a group of heads where its like has one */
        if (t.stride[*axis] % ld || (at[b + 1] - at[b]) % ld) complain("offsets are not rows", t.uid);
        *first = at[b] * times, *rows = (at[b + 1] - at[b]) / ld;
        if (*rows > t.dim[*axis]) complain("a document is longer than the plan", t.uid);
    }

    template <class F> void each(const tensor_words &t, F f)
    {
        char *p = (char *)pointer[t.uid];
        for (int64_t b = 0; b < t.dim[0]; b++) {
            int64_t first, rows, n[2] = {t.dim[2], t.dim[3]};
            int axis;
            document(t, b, &first, &rows, &axis);
            n[axis - 2] = rows < n[axis - 2] ? rows : n[axis - 2];
            if (!n[0] || !n[1] || wrong) continue;
            int64_t last = first + (t.dim[1] - 1) * t.stride[1] + (n[0] - 1) * t.stride[2] + (n[1] - 1) * t.stride[3];
            size_t size = bytes_of(t.type);
            if (!memory_covers(p + (size_t)first * size, (size_t)(last - first + 1) * size, "cuDNN")) complain("is not all memory", t.uid);
            for (int64_t h = 0; h < t.dim[1] && !wrong; h++)
                for (int64_t i = 0; i < n[0]; i++)
                    for (int64_t j = 0; j < n[1]; j++) f(p, first + h * t.stride[1] + i * t.stride[2] + j * t.stride[3], b, h, i, j);
        }
    }

    const values &get(const descriptor *d)
    {
        tensor_words t(d);
        auto &there = made[t.uid];
        if (there && (t.is_virtual || t.by_value)) return *there;
        there = std::make_shared<values>(t.dim); /* what is in memory is read there, also what this call has put there */
        read.push_back(there);
        if (t.by_value)
            there->v[0] = scalar[t.uid];
        else if (t.is_virtual)
            complain("is read before it is made", t.uid);
        else
            each(t, [&](const char *p, int64_t at, int64_t b, int64_t h, int64_t i, int64_t j) {
                there->v[there->at(b, h, i, j)] = load(t.type, p, at);
            });
        return *there;
    }

    void put(const descriptor *d, std::shared_ptr<values> v)
    {
        tensor_words t(d);
        for (float &x : v->v) x = rounded(t.type, x);
        made[t.uid] = v;
        if (!t.is_virtual)
            each(t,
                 [&](char *p, int64_t at, int64_t b, int64_t h, int64_t i, int64_t j) { store(t.type, p, at, v->v[v->at(b, h, i, j)]); });
    }

    std::shared_ptr<values> like(const descriptor *d) { return std::make_shared<values>(tensor_words(d).dim); }

    template <class F> void fill(values &y, F f)
    {
        for (int64_t b = 0; b < y.dim[0]; b++)
            for (int64_t h = 0; h < y.dim[1]; h++)
                for (int64_t i = 0; i < y.dim[2]; i++)
                    for (int64_t j = 0; j < y.dim[3]; j++) y.v[y.at(b, h, i, j)] = f(b, h, i, j);
    }

    void pointwise(const descriptor *op);
    void product(const descriptor *op);
    void reduction(const descriptor *op);
    void reshape(const descriptor *op);
    cudnnStatus_t run();
};

float point(cudnnPointwiseMode_t mode, float x, float b, float t)
{
    switch (mode) {
    case CUDNN_POINTWISE_ADD:
        return x + b;
    case CUDNN_POINTWISE_SUB:
        return x - b;
    case CUDNN_POINTWISE_MUL:
        return x * b;
    case CUDNN_POINTWISE_DIV:
        return x / b;
    case CUDNN_POINTWISE_EXP:
        return expf(x);
    case CUDNN_POINTWISE_LOG:
        return logf(x);
    case CUDNN_POINTWISE_TANH_FWD:
        return tanhf(x);
    case CUDNN_POINTWISE_TANH_BWD:
        return b * (1 - tanhf(x) * tanhf(x));
    case CUDNN_POINTWISE_IDENTITY:
        return x;
    case CUDNN_POINTWISE_CMP_GE:
        return x >= b;
    case CUDNN_POINTWISE_CMP_GT:
        return x > b;
    case CUDNN_POINTWISE_CMP_LT:
        return x < b;
    case CUDNN_POINTWISE_LOGICAL_AND:
        return x != 0 && b != 0;
    case CUDNN_POINTWISE_BINARY_SELECT:
        return t != 0 ? x : b;
    default:
        return NAN;
    }
}

void execution::pointwise(const descriptor *op)
{
    const descriptor *words = op->to(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    auto mode = words->one<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
    bool back = mode == CUDNN_POINTWISE_TANH_BWD;
    const descriptor *xd = op->to(CUDNN_ATTR_OPERATION_POINTWISE_XDESC), *td = op->to(CUDNN_ATTR_OPERATION_POINTWISE_TDESC);
    const descriptor *bd = op->to(back ? CUDNN_ATTR_OPERATION_POINTWISE_DYDESC : CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    const descriptor *yd = op->to(back ? CUDNN_ATTR_OPERATION_POINTWISE_DXDESC : CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    auto y = like(yd);
    if (mode == CUDNN_POINTWISE_GEN_INDEX) {
        int64_t axis = words->one<int64_t>(CUDNN_ATTR_POINTWISE_AXIS, -1);
        fill(*y, [&](int64_t b, int64_t h, int64_t i, int64_t j) { return (float)(axis == 3 ? j : axis == 2 ? i : axis == 1 ? h : b); });
    } else {
        const values &x = get(xd), &b2 = get(bd ? bd : xd), &t = get(td ? td : xd);
        fill(*y, [&](int64_t b, int64_t h, int64_t i, int64_t j) {
            return point(mode, x.spread(y->dim, b, h, i, j), b2.spread(y->dim, b, h, i, j), t.spread(y->dim, b, h, i, j));
        });
    }
    put(yd, y);
}

void execution::product(const descriptor *op)
{
    const descriptor *cd = op->to(CUDNN_ATTR_OPERATION_MATMUL_CDESC);
    const values &a = get(op->to(CUDNN_ATTR_OPERATION_MATMUL_ADESC)), &b2 = get(op->to(CUDNN_ATTR_OPERATION_MATMUL_BDESC));
    auto c = like(cd);
    int64_t k = a.dim[3];
    if (b2.dim[2] != k || a.dim[2] != c->dim[2] || b2.dim[3] != c->dim[3])
        return complain("is a product of other sizes", tensor_words(cd).uid);
    auto length = [&](int name, int64_t b, int64_t whole) {
        const descriptor *d = op->to(name);
        return d ? (int64_t)get(d).v[(size_t)b] : whole;
    };
    fill(*c, [&](int64_t b, int64_t h, int64_t i, int64_t j) {
        if (i >= length(CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, b, c->dim[2])) return 0.0f;
        if (j >= length(CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, b, c->dim[3])) return 0.0f;
        int64_t n = length(CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, b, k);
        float sum = 0;
        for (int64_t l = 0; l < n; l++)
            sum = fmaf(a.v[a.at(b, h * a.dim[1] / c->dim[1], i, l)], b2.v[b2.at(b, h * b2.dim[1] / c->dim[1], l, j)], sum);
        return sum;
    });
    put(cd, c);
}

void execution::reduction(const descriptor *op)
{
    const descriptor *yd = op->to(CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
    auto how = op->to(CUDNN_ATTR_OPERATION_REDUCTION_DESC)->one<cudnnReduceTensorOp_t>(CUDNN_ATTR_REDUCTION_OPERATOR);
    const values &x = get(op->to(CUDNN_ATTR_OPERATION_REDUCTION_XDESC));
    auto y = like(yd);
    bool max = how == CUDNN_REDUCE_TENSOR_MAX;
    int64_t group = x.dim[1] / y->dim[1], rows = x.dim[2] / y->dim[2], columns = x.dim[3] / y->dim[3];
    fill(*y, [&](int64_t b, int64_t h, int64_t i, int64_t j) {
        float out = max ? -INFINITY : 0;
        for (int64_t g = 0; g < group; g++)
            for (int64_t r = 0; r < rows; r++)
                for (int64_t l = 0; l < columns; l++) {
                    float v = x.v[x.at(b, h * group + g, i * rows + r, j * columns + l)];
                    out = max ? (v > out || std::isnan(v) ? v : out) : out + v;
                }
        return out;
    });
    put(yd, y);
}

/* In attention: a transposition of the last two dimensions, or of their strides alone. */
void execution::reshape(const descriptor *op)
{
    const descriptor *xd = op->to(CUDNN_ATTR_OPERATION_RESHAPE_XDESC), *yd = op->to(CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
    const values &x = get(xd);
    tensor_words from(xd), to(yd);
    auto y = like(yd);
    if (from.dim[2] != to.dim[3] || from.dim[3] != to.dim[2] || (from.stride[2] > from.stride[3]) == (to.stride[2] > to.stride[3]))
        if (from.dim[2] != 1 || from.dim[3] != 1) complain("is not a transposition", to.uid);
    if (!wrong) fill(*y, [&](int64_t b, int64_t h, int64_t i, int64_t j) { return x.v[x.at(b, h, j, i)]; });
    put(yd, y);
}

cudnnStatus_t execution::run()
{
    for (const descriptor *op : ops) {
        switch (op->type) {
        case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
            pointwise(op);
            break;
        case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
            product(op);
            break;
        case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
            reduction(op);
            break;
        case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
            reshape(op);
            break;
        default:
            complain("an operation that is not emulated", op->type);
        }
        if (wrong) return CUDNN_STATUS_EXECUTION_FAILED;
    }
    return CUDNN_STATUS_SUCCESS;
}

/* ---- the functions ------------------------------------------------------------------------------------------------------------- */

struct handle {
    cudaStream_t on;
};

descriptor *of(void *d) { return static_cast<descriptor *>(d); }

const descriptor *graph_of(const descriptor *plan)
{
    return plan->to(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->to(CUDNN_ATTR_ENGINECFG_ENGINE);
}

/* Tensors of an operation, by any of the names it has for them. */
const int tensor_names[] = {
    CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
    CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
    CUDNN_ATTR_OPERATION_POINTWISE_TDESC,
    CUDNN_ATTR_OPERATION_POINTWISE_YDESC,
    CUDNN_ATTR_OPERATION_POINTWISE_DXDESC,
    CUDNN_ATTR_OPERATION_POINTWISE_DYDESC,
    CUDNN_ATTR_OPERATION_MATMUL_ADESC,
    CUDNN_ATTR_OPERATION_MATMUL_BDESC,
    CUDNN_ATTR_OPERATION_MATMUL_CDESC,
    CUDNN_ATTR_OPERATION_REDUCTION_XDESC,
    CUDNN_ATTR_OPERATION_REDUCTION_YDESC,
    CUDNN_ATTR_OPERATION_RESHAPE_XDESC,
    CUDNN_ATTR_OPERATION_RESHAPE_YDESC,
    CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC,
    CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC,
    CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC,
};

/* Every tensor of the graph that a call must bring, checked against what it did bring. */
cudnnStatus_t bind(execution &e, const descriptor *pack)
{
    auto uids = pack->all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    auto pointers = pack->all<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    if (uids.size() != pointers.size()) return refuse("uids and pointers are not as many");
    std::map<int64_t, void *> given;
    for (size_t i = 0; i < uids.size(); i++)
        if (!given.emplace(uids[i], pointers[i]).second) return refuse("a uid is there twice");
    std::map<int64_t, const descriptor *> needed;
    for (const descriptor *op : e.ops)
        for (int name : tensor_names)
            if (const descriptor *d = op->to(name)) {
                tensor_words t(d);
                if (!t.is_virtual) needed[t.uid] = d;
                if (!t.offsets) continue;
                int64_t o = tensor_words(t.offsets).uid, rows = std::max(t.stride[2], t.dim[3] > 1 ? t.stride[3] : 0);
                needed[o] = t.offsets;
                int64_t &ld = e.offset_ld[o];
                ld = ld && ld < rows ? ld : rows;
            }
    if (needed.size() != given.size()) return refuse("a uid too many or too few");
    for (auto &[uid, d] : needed) {
        auto at = given.find(uid);
        if (at == given.end() || !at->second) return refuse("no pointer for tensor " + std::to_string(uid));
        if ((uintptr_t)at->second % (size_t)d->one<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT))
            return refuse("misaligned: tensor " + std::to_string(uid));
        e.pointer[uid] = at->second;
        if (tensor_words(d).by_value) e.scalar[uid] = *(const float *)at->second;
    }
    return CUDNN_STATUS_SUCCESS;
}

size_t version() { return CUDNN_VERSION; }
const char *error_string(cudnnStatus_t e)
{
    return e == CUDNN_STATUS_BAD_PARAM ? "CUDNN_STATUS_BAD_PARAM" : "CUDNN_STATUS_EXECUTION_FAILED";
}
void last_error_string(char *to, size_t size) { snprintf(to, size, "%s", last_error.c_str()); }

cudnnStatus_t create(cudnnHandle_t *out)
{
    if (capture_forbids("cudnnCreate")) return refuse("while capturing");
    *out = reinterpret_cast<cudnnHandle_t>(new handle());
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t destroy(cudnnHandle_t h)
{
    delete reinterpret_cast<handle *>(h);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t set_stream(cudnnHandle_t h, cudaStream_t on)
{
    reinterpret_cast<handle *>(h)->on = on;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t create_descriptor(cudnnBackendDescriptorType_t type, void **out)
{
    *out = new descriptor{type};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t destroy_descriptor(void *d)
{
    delete of(d);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize(void *d)
{
    if (of(d)->finished) return refuse("finalised twice");
    if (of(d)->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && capture_forbids("cuDNN makes a plan")) return refuse("while capturing");
    of(d)->finished = true;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t set_attribute(void *d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n, const void *values)
{
    if (!d || of(d)->finished) return refuse("an attribute of no descriptor, or of a finalised one");
    const unsigned char *bytes = static_cast<const unsigned char *>(values);
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        for (int64_t i = 0; i < n; i++) {
            const descriptor *value = static_cast<void *const *>(values)[i] ? of(static_cast<void *const *>(values)[i]) : nullptr;
            if (!value || (!value->finished && value->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR))
                return refuse("a descriptor that is not finalised");
        }
    of(d)->set[name].assign(bytes, bytes + (size_t)n * size_of(type));
    return CUDNN_STATUS_SUCCESS;
}

template <class T> cudnnStatus_t answer(int64_t *count, void *to, T value)
{
    *count = 1;
    memcpy(to, &value, sizeof value);
    return CUDNN_STATUS_SUCCESS;
}

/* A descriptor that the caller made is filled in: of an engine it is all one, the graph. */
cudnnStatus_t get_attribute(void *const from, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t, int64_t, int64_t *count,
                            void *to)
{
    descriptor *d = of(from);
    switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
        of(*static_cast<void **>(to))->set[CUDNN_ATTR_ENGINECFG_ENGINE] = d->set[CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH];
        *count = 1;
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINECFG_ENGINE:
        *count = 1;
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
        return answer(count, to, (int64_t)0);
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        return answer(count, to, (int64_t)PLAN_BYTES);
    default:
        return refuse("an attribute nobody asks for");
    }
}

cudnnStatus_t execute(cudnnHandle_t h, void *plan, void *pack)
{
    auto e = std::make_shared<execution>();
    for (void *op : graph_of(of(plan))->all<void *>(CUDNN_ATTR_OPERATIONGRAPH_OPS)) e->ops.push_back(of(op));
    if (cudnnStatus_t st = bind(*e, of(pack))) return st;
    void *workspace = of(pack)->one<void *>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    if (!workspace || (uintptr_t)workspace % 256) return refuse("no workspace, or misaligned");
    const char *wish = getenv("TRIMPOT_EMU_CUDNN");
    if (wish && !strcmp(wish, "say")) fprintf(stderr, "emu: cuDNN: a graph of %zu operations\n", e->ops.size());
    auto run = [e, workspace]() -> cudaError_t {
        if (!memory_covers(workspace, PLAN_BYTES, "cuDNN's workspace")) return cudaErrorIllegalAddress;
        memset(workspace, 0xff, PLAN_BYTES);
        execution once = *e; /* a graph of CUDA's runs it again */
        return once.run() ? cudaErrorLaunchFailure : cudaSuccess;
    };
    return emu_enqueue(reinterpret_cast<handle *>(h)->on, "cuDNN attention", run) ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}

} // namespace

extern "C" status cudnn_load(const struct cudnn **out)
{
    static const struct cudnn here = {version,           error_string,       last_error_string, create,        destroy,       set_stream,
                                      create_descriptor, destroy_descriptor, finalize,          set_attribute, get_attribute, execute};
    const char *wish = getenv("TRIMPOT_EMU_CUDNN");
    if (!wish || (strcmp(wish, "1") && strcmp(wish, "say"))) FAIL(ST_NOT_BUILT, "no cuDNN on the emulated device");
    *out = &here;
    return ST_OK;
}
