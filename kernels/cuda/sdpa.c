/* sdpa.c — cuDNN's plans for attention: found by its heuristics, kept by shape, run with pointers (sdpa.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/sdpa_graph.h"

enum { CONFIGS = 8, REASON = 640 };

struct entry {
    struct sdpa_plan plan;
    struct sdpa_graph graph; /* lives as long as what was made of it */
    cudnnBackendDescriptor_t made;
    char refused[REASON]; /* why there is no plan; "": there is */
    struct entry *next;
};

struct sdpa {
    const struct cudnn *nn;
    cudnnHandle_t handle;            /* NULL: */
    cudnnBackendDescriptor_t device; /* cuDNN's description of one */
    int major;
    struct entry *plans;
    char name[32];
};

/* ---- the library on a device -------------------------------------------------------------------------------------------------- */

static status open_device(struct sdpa *d, const char *json)
{
    TRY(cudnn_load(&d->nn));
    size_t version = d->nn->GetVersion();
    snprintf(d->name, sizeof d->name, "cuDNN %zu.%zu.%zu", version / 10000, version / 100 % 100, version % 100);
    if (version < 90600) FAIL(ST_NOT_BUILT, "%s is older than 9.6: packed documents with grouped heads came with that", d->name);
    if (!json) return cudnn_status(d->nn, ST_NOT_BUILT, d->nn->Create(&d->handle), "a handle");
    TRY(cudnn_status(d->nn, ST_NOT_BUILT, d->nn->BackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &d->device), "a device"));
    TRY(cudnn_status(d->nn, ST_NOT_BUILT,
                     d->nn->BackendSetAttribute(d->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                                (int64_t)strlen(json), json),
                     "a device's description"));
    return cudnn_status(d->nn, ST_NOT_BUILT, d->nn->BackendFinalize(d->device), "a device");
}

status sdpa_open(const char *device_json, int major, struct sdpa **out)
{
    const char *wish = getenv("TRIMPOT_CUDNN");
    if (wish && !strcmp(wish, "off")) FAIL(ST_NOT_BUILT, "cuDNN is off: TRIMPOT_CUDNN=off");
    struct sdpa *d = calloc(1, sizeof *d);
    if (!d) FAIL(ST_OOM, "no memory for cuDNN's plans");
    d->major = major;
    status st = open_device(d, device_json);
    if (st)
        sdpa_close(d);
    else
        *out = d;
    return st;
}

static void drop_entry(struct sdpa *d, struct entry *e)
{
    if (e->made) d->nn->BackendDestroyDescriptor(e->made);
    sdpa_graph_release(&e->graph);
    free(e);
}

void sdpa_close(struct sdpa *d)
{
    if (!d) return;
    for (struct entry *e = d->plans, *next; e; e = next) {
        next = e->next;
        drop_entry(d, e);
    }
    if (d->device) d->nn->BackendDestroyDescriptor(d->device);
    if (d->handle) d->nn->Destroy(d->handle);
    free(d);
}

const char *sdpa_describe(const struct sdpa *d) { return d->name; }

/* ---- plans -------------------------------------------------------------------------------------------------------------------- */

static status get(const struct sdpa *d, cudnnBackendDescriptor_t from, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                  int64_t n, int64_t *got, void *to)
{
    int64_t count = 0;
    TRY(cudnn_status(d->nn, ST_NOT_BUILT, d->nn->BackendGetAttribute(from, name, type, n, got ? got : &count, to), "an answer"));
    return ST_OK;
}

/* The engines that cuDNN proposes for a graph, best first. */
static status propose(const struct sdpa *d, struct sdpa_graph *g, cudnnBackendDescriptor_t configs[CONFIGS], int64_t *n)
{
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    cudnnBackendDescriptor_t h = sdpa_make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    sdpa_set(g, h, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->graph);
    sdpa_set(g, h, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (d->device) sdpa_set(g, h, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &d->device);
    sdpa_finish(g, h, "engines for attention");
    for (int i = 0; i < CONFIGS; i++) configs[i] = sdpa_make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    TRY(g->st);
    TRY(get(d, h, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, CONFIGS, n, configs));
    if (!*n) FAIL(ST_NOT_BUILT, "%s has no engine for it", d->name);
    return ST_OK;
}

static status finalise(const struct sdpa *d, struct entry *e, cudnnBackendDescriptor_t config)
{
    const struct cudnn *nn = d->nn;
    struct sdpa_graph *g = &e->graph;
    cudnnBackendDescriptor_t engine = sdpa_make(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    TRY(g->st);
    TRY(get(d, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NULL, &engine));
    TRY(get(d, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, NULL, &e->plan.engine));
    TRY(cudnn_status(nn, ST_NOT_BUILT, nn->BackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &e->made), "a plan"));
    sdpa_set(g, e->made, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
    if (d->handle) sdpa_set(g, e->made, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &d->handle);
    if (d->device) sdpa_set(g, e->made, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &d->device);
    sdpa_finish(g, e->made, "a plan for attention");
    TRY(g->st);
    int64_t bytes = 0;
    TRY(get(d, e->made, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, NULL, &bytes));
    e->plan.bytes = sdpa_bytes_of(&e->plan.shape, 0, d->major);
    e->plan.bytes.engine = (size_t)bytes;
    return ST_OK;
}

/* What cuDNN would plan, but NVIDIA's frontend says must not be run. */
static status forbidden(const struct sdpa *d, const struct sdpa_shape *s)
{
    if (s->head_dim % 8 || s->head_dim > 256) FAIL(ST_NOT_BUILT, "heads of %lld channels", (long long)s->head_dim);
    bool ampere = d->major == 8 || d->major == 12;
    if (s->way != SDPA_FORWARD && s->ragged && ampere) FAIL(ST_NOT_BUILT, "packed documents backward on compute capability %d", d->major);
    if (s->way != SDPA_FORWARD && s->ragged && s->head_dim % 16)
        FAIL(ST_NOT_BUILT, "packed documents, heads of %lld channels", (long long)s->head_dim);
    if (s->way == SDPA_DETERMINISTIC && d->major > 9) FAIL(ST_NOT_BUILT, "deterministic attention on compute capability %d", d->major);
    if (s->way != SDPA_FORWARD && s->tokens == 1) FAIL(ST_NOT_BUILT, "documents of one token");
    return ST_OK;
}

static status build(const struct sdpa *d, struct entry *e)
{
    cudnnBackendDescriptor_t configs[CONFIGS];
    int64_t n = 0;
    TRY(forbidden(d, &e->plan.shape));
    TRY(sdpa_graph_build(&e->graph, d->nn, &e->plan.shape, d->handle));
    TRY(propose(d, &e->graph, configs, &n));
    status st = ST_OK;
    for (int64_t i = 0; i < n; i++) {
        e->graph.st = ST_OK;
        st = finalise(d, e, configs[i]);
        if (!st) break;
        if (e->made) d->nn->BackendDestroyDescriptor(e->made);
        e->made = NULL;
    }
    return st;
}

status sdpa_plan(struct sdpa *d, const struct sdpa_shape *s, const struct sdpa_plan **out)
{
    struct entry *e = d->plans;
    while (e && memcmp(&e->plan.shape, s, sizeof *s)) e = e->next;
    if (!e) {
        e = calloc(1, sizeof *e);
        if (!e) FAIL(ST_OOM, "no memory for a plan of attention");
        e->plan.shape = *s;
        e->next = d->plans;
        d->plans = e;
        if (build(d, e)) snprintf(e->refused, sizeof e->refused, "%s", status_message());
    }
    if (*e->refused) FAIL(ST_NOT_BUILT, "%s", e->refused);
    *out = &e->plan;
    return ST_OK;
}

/* ---- a call ------------------------------------------------------------------------------------------------------------------- */

struct host_values {
    float scale, lowest, one, window, cap;
};

static void carve(const struct sdpa_plan *p, const struct sdpa_call *c, void *at[UIDS])
{
    struct sdpa_bytes b = sdpa_bytes_of(&p->shape, c->rows, 0);
    char *next = (char *)c->workspace + sdpa_round(p->bytes.engine);
    const struct {
        enum sdpa_uid uid;
        size_t bytes;
    } parts[] = {{UID_ROW_SUM, b.row_sum}, {UID_DQ_SUM, b.dq_sum}, {UID_DK_ALL, b.dk_all}, {UID_DV_ALL, b.dv_all}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        at[parts[i].uid] = next;
        next += sdpa_round(parts[i].bytes);
    }
}

status sdpa_run(struct sdpa *d, const struct sdpa_plan *p, void *cuda_stream, const struct sdpa_call *c)
{
    const struct entry *e = (const struct entry *)(const void *)p; /* its first member */
    const struct cudnn *nn = d->nn;
    struct host_values v = {c->scale, -INFINITY, 1.0f, (float)p->shape.window, c->cap};
    void *at[UIDS] = {[UID_SCALE] = &v.scale, [UID_LOWEST] = &v.lowest, [UID_ONE] = &v.one, [UID_WINDOW] = &v.window, [UID_CAP] = &v.cap};
    at[UID_LENGTHS_Q] = at[UID_LENGTHS_K] = (void *)c->lengths;
    for (int i = 0; i < SDPA_OPERANDS; i++) at[UID_OPERANDS + i] = c->at[i], at[UID_OFFSETS + i] = (void *)c->offsets[i];
    carve(p, c, at);
    void *pointers[UIDS], *workspace = c->workspace;
    for (int i = 0; i < e->graph.n_uids; i++) pointers[i] = at[e->graph.uids[i]];

    cudnnBackendDescriptor_t pack = NULL;
    status st = cudnn_status(nn, ST_DEVICE, nn->SetStream(d->handle, cuda_stream), "attention's stream");
    if (!st)
        st = cudnn_status(nn, ST_DEVICE, nn->BackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack), "attention's pointers");
    struct sdpa_graph set = {.nn = nn, .st = st};
    sdpa_set(&set, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, e->graph.n_uids, e->graph.uids);
    sdpa_set(&set, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, e->graph.n_uids, pointers);
    sdpa_set(&set, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    sdpa_finish(&set, pack, "attention's pointers");
    st = set.st;
    if (!st) st = cudnn_status(nn, ST_DEVICE, nn->BackendExecute(d->handle, e->made, pack), "attention");
    if (pack) nn->BackendDestroyDescriptor(pack);
    return st ? ST_DEVICE : ST_OK;
}
