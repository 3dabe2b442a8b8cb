/* queue.h — streams and events of the emulated device: what has been asked for and has not run yet (queue.cc). runtime.cc and graph.cc
 * are CUDA's functions over it. */
#ifndef TRIMPOT_EMU_QUEUE_H
#define TRIMPOT_EMU_QUEUE_H

#include <cstdint>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include <cuda_runtime_api.h>

#include "tests/emu/memory.h"

/* One record of an event: what waits for it waits for this one, whatever the event is used for later. */
struct mark {
    bool done = false;
    CUstream_st *stream;
    uint64_t number;                               /* of its work on that stream */
    std::chrono::steady_clock::time_point at = {}; /* when it was done */
};

struct graph_node;
struct capture;

enum work_kind { WORK_RUNS, WORK_RECORDS, WORK_WAITS, WORK_GRAPH };

struct work {
    work_kind kind;
    const char *what;
    std::function<cudaError_t()> run = {};
    memory_user user = USER_KERNEL;                            /* of run; USER_HOST: a call of the host, made on the driver's thread */
    bool talks = false;                                        /* run waits for other processes: not over at cudaErrorNotReady */
    std::shared_ptr<mark> event = {};                          /* of WORK_RECORDS and WORK_WAITS */
    std::shared_ptr<const std::vector<graph_node>> graph = {}; /* of WORK_GRAPH */
    std::vector<char> ran = {};                                /* which of its nodes have */
    bool faults = false;                                       /* injected */
};

struct graph_node {
    struct work work;
    std::vector<size_t> after;
};

struct CUstream_st {
    int device;
    uint64_t number = 0; /* work queued so far */
    std::deque<work> queue;
    std::shared_ptr<struct capture> capture; /* work becomes nodes of it */
    std::vector<size_t> tips;                /* the nodes that the next one comes after */
};

struct CUevent_st {
    int device;
    std::shared_ptr<mark> last;
    std::weak_ptr<struct capture> capture; /* it was recorded in one, behind these nodes */
    bool captured = false;
    std::vector<size_t> tips;
};

/* What every function of CUDA does first, and what it returns through: the error of this thread, for cudaGetLastError. */
cudaError_t queue_enter(void);
cudaError_t queue_give(cudaError_t e);
cudaError_t queue_last_error(bool forget);

CUstream_st *queue_open(int device);
void queue_close(CUstream_st *s);

cudaError_t queue_put(CUstream_st *s, work w); /* or into the capture */
cudaError_t queue_record(CUevent_st *e, CUstream_st *s);
cudaError_t queue_wait(CUevent_st *e, CUstream_st *s);
cudaError_t queue_elapsed(CUevent_st *from, CUevent_st *to, float *ms);

/* Run what they need to be done, in some legal order, with as much of the rest as the order says. */
cudaError_t queue_finish_stream(CUstream_st *s);
cudaError_t queue_finish_event(CUevent_st *e);
cudaError_t queue_finish_all(void);
/* cudaErrorNotReady, or cudaSuccess; every question lets the device get a little further. */
cudaError_t queue_ask_stream(CUstream_st *s);
cudaError_t queue_ask_event(CUevent_st *e);
/* Lets work that talks, and what stands before it, get a little further: others wait for it even if nobody here does. */
void queue_talk(void);

#endif
