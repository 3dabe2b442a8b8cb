/* graph.cc — capture of streams into graphs, and their replay as one piece of work whose nodes run in a random legal order. */
#include "tests/emu/capture.h"

#include <algorithm>
#include <cstdio>

#include "tests/emu/emu.h"

struct CUgraph_st {
    std::shared_ptr<const std::vector<graph_node>> nodes;
};

struct CUgraphExec_st {
    std::shared_ptr<const std::vector<graph_node>> nodes;
};

static void join_tips(std::vector<size_t> &to, const std::vector<size_t> &from)
{
    for (size_t tip : from)
        if (std::find(to.begin(), to.end(), tip) == to.end()) to.push_back(tip);
}

cudaError_t capture_node(CUstream_st *s, work w)
{
    struct capture &c = *s->capture;
    if (w.kind == WORK_GRAPH) return capture_broken(c); /* CUDA makes child graphs of it; nobody here needs one */
    c.nodes.push_back({std::move(w), s->tips});
    s->tips = {c.nodes.size() - 1};
    return cudaSuccess;
}

cudaError_t capture_join(CUevent_st *e, CUstream_st *s)
{
    std::shared_ptr<struct capture> c = e->capture.lock();
    if (!c) return cudaErrorCapturedEvent;
    if (s->capture && s->capture != c) return cudaErrorStreamCaptureMerge;
    if (!s->capture) {
        s->capture = c;
        s->tips.clear();
        c->streams.push_back(s);
    }
    join_tips(s->tips, e->tips);
    return cudaSuccess;
}

cudaError_t capture_broken(struct capture &c) { return c.broken = cudaErrorStreamCaptureUnsupported; }

static thread_local std::weak_ptr<struct capture> begun; /* by this thread */

cudaError_t capture_forbids(const char *what)
{
    std::shared_ptr<struct capture> c = begun.lock();
    if (!c) return cudaSuccess;
    fprintf(stderr, "emu: %s while this thread captures a stream\n", what);
    return capture_broken(*c);
}

/* Every node comes before the end of the stream that the capture began on. */
static bool joined(const struct capture &c)
{
    std::vector<char> before(c.nodes.size());
    std::vector<size_t> todo = c.origin->tips;
    while (!todo.empty()) {
        size_t i = todo.back();
        todo.pop_back();
        if (before[i]) continue;
        before[i] = 1;
        todo.insert(todo.end(), c.nodes[i].after.begin(), c.nodes[i].after.end());
    }
    return std::all_of(before.begin(), before.end(), [](char is) { return is; });
}

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    if (cudaError_t e = queue_enter()) return queue_give(e);
    if (!s || s->capture) return queue_give(cudaErrorIllegalState);
    s->capture = std::make_shared<struct capture>();
    s->capture->origin = s;
    s->capture->by = std::this_thread::get_id();
    begun = s->capture;
    s->capture->streams = {s};
    s->tips.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out)
{
    *out = nullptr;
    if (cudaError_t e = queue_enter()) return queue_give(e);
    if (!s || !s->capture || s->capture->origin != s) return queue_give(cudaErrorIllegalState);
    std::shared_ptr<struct capture> c = s->capture;
    if (c->by != std::this_thread::get_id()) return queue_give(cudaErrorStreamCaptureWrongThread);
    begun.reset();
    bool whole = joined(*c);
    for (CUstream_st *of : c->streams) of->capture.reset(), of->tips.clear();
    if (c->broken) return queue_give(cudaErrorStreamCaptureInvalidated);
    if (!whole) return queue_give(cudaErrorStreamCaptureUnjoined);
    *out = new CUgraph_st{std::make_shared<const std::vector<graph_node>>(std::move(c->nodes))};
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus *out)
{
    *out = !s || !s->capture    ? cudaStreamCaptureStatusNone
           : s->capture->broken ? cudaStreamCaptureStatusInvalidated
                                : cudaStreamCaptureStatusActive;
    return queue_give(queue_enter());
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long)
{
    *out = nullptr;
    if (cudaError_t e = queue_enter()) return queue_give(e);
    *out = new CUgraphExec_st{graph->nodes};
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t s)
{
    if (cudaError_t e = queue_enter()) return queue_give(e);
    work w = {.kind = WORK_GRAPH, .what = "graph", .graph = graph->nodes, .ran = std::vector<char>(graph->nodes->size())};
    return queue_give(queue_put(s, std::move(w)));
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    delete graph;
    return cudaSuccess;
}
}
