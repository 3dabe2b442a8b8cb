/* sdpa_graph.h — attention in cuDNN's words: a shape as a graph of operations that its engines recognise. */
#ifndef TRIMPOT_CUDA_SDPA_GRAPH_H
#define TRIMPOT_CUDA_SDPA_GRAPH_H

#include "kernels/cuda/cudnn.h"
#include "kernels/cuda/sdpa.h"

/* Numbers of the tensors that a call gives pointers for. */
enum sdpa_uid {
    UID_OPERANDS = 1,                            /* + enum sdpa_operand */
    UID_OFFSETS = UID_OPERANDS + SDPA_OPERANDS,  /* + enum sdpa_operand */
    UID_LENGTHS_Q = UID_OFFSETS + SDPA_OPERANDS, /* of queries and of keys: one array */
    UID_LENGTHS_K,
    UID_ROW_SUM,
    UID_DQ_SUM,
    UID_DK_ALL,
    UID_DV_ALL,
    UID_SCALE, /* by value, on the host: */
    UID_LOWEST,
    UID_ONE,
    UID_WINDOW,
    UID_CAP,
    UIDS,
    UID_VIRTUAL = 100, /* from here on: what never leaves the chip */
};

/* Every call below is a no-op after the first that cuDNN refused; st and the recorded message are that one's. */
struct sdpa_graph {
    const struct cudnn *nn;
    const struct sdpa_shape *shape;
    status st;
    cudnnBackendDescriptor_t graph, lengths_q, lengths_k, offsets[SDPA_OPERANDS];
    cudnnBackendDescriptor_t made[256], ops[48];
    int n_made, n_ops;
    int64_t uids[UIDS]; /* those the graph has, by-value ones too */
    int n_uids;
    int64_t next_virtual;
};

status sdpa_graph_build(struct sdpa_graph *g, const struct cudnn *nn, const struct sdpa_shape *shape, cudnnHandle_t handle);
void sdpa_graph_release(struct sdpa_graph *g);

cudnnBackendDescriptor_t sdpa_make(struct sdpa_graph *g, cudnnBackendDescriptorType_t type);
void sdpa_set(struct sdpa_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
              int64_t n, const void *values);
void sdpa_finish(struct sdpa_graph *g, cudnnBackendDescriptor_t d, const char *what);

/* ST_OK, or `code` with cuDNN's own words. */
status cudnn_status(const struct cudnn *nn, status code, cudnnStatus_t e, const char *what);

#endif
