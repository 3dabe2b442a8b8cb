/* capture.h — work that becomes a graph instead of running (graph.cc). Under the lock of the queues. */
#ifndef TRIMPOT_EMU_CAPTURE_H
#define TRIMPOT_EMU_CAPTURE_H

#include <thread>

#include "tests/emu/queue.h"

struct capture {
    CUstream_st *origin;
    std::thread::id by; /* cudaStreamCaptureModeThreadLocal: this thread begins it, ends it, and must not do what waits or allocates */
    std::vector<graph_node> nodes;
    std::vector<CUstream_st *> streams;
    cudaError_t broken = cudaSuccess; /* something forbidden was called */
};

cudaError_t capture_node(CUstream_st *s, work w);
cudaError_t capture_join(CUevent_st *e, CUstream_st *s); /* s goes on behind what e was recorded behind */
cudaError_t capture_broken(struct capture &c);           /* what waits is called in a capture */
/* What allocates, or makes what later calls only use: breaks the capture that this thread has begun, after saying so. */
cudaError_t capture_forbids(const char *what);

#endif
