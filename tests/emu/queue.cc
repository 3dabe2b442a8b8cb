/* queue.cc — in which order work runs: streams in theirs, events across, and otherwise as late and as mixed as is legal. Work runs on
 * the thread that has to wait for it; calls of the host run on a thread of their own, as the driver has one. */
#include "tests/emu/queue.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>

#include "tests/emu/capture.h"
#include "tests/emu/emu.h"
#include "tests/emu/memory.h"
#include "tests/emu/settings.h"

namespace
{

struct state {
    std::mutex running; /* whose thread runs work: taken first */
    std::mutex lock;    /* the queues */
    std::vector<CUstream_st *> streams;
    std::atomic<cudaError_t> sticky{cudaSuccess};
};

state &device = *new state; /* outlives everything that runs at exit */
thread_local cudaError_t last_error;
thread_local bool inside; /* this thread runs work: CUDA may not be called */

/* ---- the driver's thread --------------------------------------------------------------------------------------------------- */

struct driver {
    std::mutex lock;
    std::condition_variable changed;
    const std::function<cudaError_t()> *call = nullptr;
    cudaError_t result = cudaSuccess;
    bool started = false;

    void serve()
    {
        inside = true;
        std::unique_lock hold(lock);
        for (;;) {
            changed.wait(hold, [&] { return call != nullptr; });
            hold.unlock();
            cudaError_t e = (*call)();
            hold.lock();
            result = e;
            call = nullptr;
            changed.notify_all();
        }
    }

    void start()
    {
        sigset_t all, old; /* signals go to threads of the program */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        std::thread([this] { serve(); }).detach();
        pthread_sigmask(SIG_SETMASK, &old, nullptr);
        started = true;
    }

    cudaError_t make(const std::function<cudaError_t()> &f)
    {
        std::unique_lock hold(lock);
        if (!started) start();
        call = &f;
        changed.notify_all();
        changed.wait(hold, [&] { return call == nullptr; });
        return result;
    }
};

driver &the_driver = *new driver;

/* ---- one piece of work -------------------------------------------------------------------------------------------------------- */

void fail(cudaError_t e)
{
    device.sticky = e;
    for (CUstream_st *s : device.streams) {
        for (work &w : s->queue)
            if (w.event) w.event->done = true;
        s->queue.clear();
    }
}

cudaError_t run_work(const work &w)
{
    if (w.faults) return cudaErrorIllegalAddress;
    if (!memory_reach(w.user, w.what)) return cudaErrorIllegalAddress;
    return w.user == USER_HOST ? the_driver.make(w.run) : w.run();
}

/* Some node of the graph whose predecessors have run; true when that was the last. */
bool run_node(work &w, cudaError_t &e, std::unique_lock<std::mutex> &hold)
{
    const std::vector<graph_node> &nodes = *w.graph;
    std::vector<size_t> can;
    size_t left = 0;
    for (size_t i = 0; i < nodes.size(); i++) {
        if (w.ran[i]) continue;
        left++;
        if (std::all_of(nodes[i].after.begin(), nodes[i].after.end(), [&](size_t j) { return w.ran[j]; })) can.push_back(i);
    }
    if (!left) return true;
    size_t pick = can[emu_random(EMU_STREAMS) % can.size()];
    hold.unlock();
    e = run_work(nodes[pick].work);
    hold.lock();
    w.ran[pick] = 1;
    return left == 1;
}

bool ready(const CUstream_st *s) { return !s->queue.empty() && (s->queue.front().kind != WORK_WAITS || s->queue.front().event->done); }

/* The head of s; false: it waits for another process. Only the holder of `running` takes from a queue, so the head stays what it is
 * while it runs; others may add. */
bool run_head(CUstream_st *s, std::unique_lock<std::mutex> &hold)
{
    work &w = s->queue.front();
    cudaError_t e = cudaSuccess;
    bool over = true;
    if (w.kind == WORK_RUNS) {
        hold.unlock();
        e = run_work(w);
        hold.lock();
        if (w.talks && e == cudaErrorNotReady) return false;
    } else if (w.kind == WORK_GRAPH) {
        over = w.faults || run_node(w, e, hold);
        if (w.faults) e = cudaErrorIllegalAddress;
    } else if (w.kind == WORK_RECORDS) {
        w.event->done = true;
        w.event->at = std::chrono::steady_clock::now();
    }
    if (e)
        fail(e);
    else if (over)
        s->queue.pop_front();
    return true;
}

/* ---- which piece ------------------------------------------------------------------------------------------------------------- */

typedef std::map<CUstream_st *, uint64_t> goals; /* run streams until they have done so many pieces */

uint64_t done_of(const CUstream_st *s) { return s->number - s->queue.size(); }

void need(goals &g, CUstream_st *s, uint64_t until)
{
    auto [it, fresh] = g.try_emplace(s, done_of(s));
    uint64_t from = it->second;
    if (until <= from) return;
    it->second = until;
    for (uint64_t i = from; i < until; i++) {
        const work &w = s->queue[i - done_of(s)];
        if (w.kind == WORK_WAITS && !w.event->done) need(g, w.event->stream, w.event->number + 1);
    }
}

bool reached(const goals &g)
{
    return std::all_of(g.begin(), g.end(), [](auto &of) { return done_of(of.first) >= of.second; });
}

/* What may run now; nullptr: nothing. */
CUstream_st *choose(const goals *g, bool only_needed)
{
    std::vector<CUstream_st *> needed, others;
    for (CUstream_st *s : device.streams) {
        if (!ready(s)) continue;
        auto it = g ? g->find(s) : goals::const_iterator{};
        (g && it != g->end() && done_of(s) < it->second ? needed : others).push_back(s);
    }
    if (!only_needed || needed.empty()) needed.insert(needed.end(), others.begin(), others.end());
    return needed.empty() ? nullptr : needed[emu_random(EMU_STREAMS) % needed.size()];
}

/* Under `running` and `hold`: up to `most` pieces (< 0: as many as there are), until the goals (nullptr: none) are reached. Where another
 * process is waited for, that one may be waiting for what nobody here needs. */
void run_pieces(const goals *g, long most, bool only_needed, std::unique_lock<std::mutex> &hold)
{
    CUstream_st *s;
    inside = true;
    for (bool stalled = false; most && !device.sticky && !(g && reached(*g)); most--) {
        if (!(s = choose(g, only_needed && !stalled))) break;
        stalled = !run_head(s, hold);
        if (!stalled) continue;
        if (!g) break;
        hold.unlock();
        std::this_thread::sleep_for(std::chrono::microseconds(50));
        hold.lock();
    }
    if (!memory_reach(USER_HOST, "the host")) fail(cudaErrorIllegalAddress);
    inside = false;
}

/* What a device does by itself, while the host goes on: nothing mostly, so that its memory seldom changes hands. */
void run_ahead(int one_in)
{
    bool everything = settings().order == ORDER_FIRST;
    if (!everything && (settings().order == ORDER_LAST || emu_random(EMU_STREAMS) % one_in)) return;
    std::unique_lock run(device.running, std::try_to_lock);
    if (!run) return; /* another thread's wait runs something */
    std::unique_lock hold(device.lock);
    run_pieces(nullptr, everything ? -1 : 1 + (long)(emu_random(EMU_STREAMS) % 4), false, hold);
}

/* make_goals under the lock, as the queues are then. */
template <class F> cudaError_t run_until(F make_goals)
{
    run_ahead(2);
    std::lock_guard run(device.running);
    std::unique_lock hold(device.lock);
    goals g;
    make_goals(g);
    run_pieces(&g, -1, settings().order == ORDER_LAST || emu_random(EMU_STREAMS) % 2, hold);
    return device.sticky;
}

/* Asking lets the device get a little further, or not: it neither runs everything nor can be done for ever. */
template <class F> cudaError_t run_a_little(F make_goals)
{
    std::lock_guard run(device.running);
    std::unique_lock hold(device.lock);
    goals g;
    make_goals(g);
    run_pieces(&g, (long)(emu_random(EMU_STREAMS) % 3), true, hold);
    return device.sticky ? device.sticky.load() : reached(g) ? cudaSuccess : cudaErrorNotReady;
}

auto all_of(CUstream_st *s)
{
    return [s](goals &g) { need(g, s, s->number); };
}

auto all_before(CUevent_st *e)
{
    return [e](goals &g) {
        if (e->last && !e->last->done) need(g, e->last->stream, e->last->number + 1);
    };
}

} // namespace

/* ---- what the others call ---------------------------------------------------------------------------------------------------- */

cudaError_t queue_enter() { return inside ? cudaErrorNotPermitted : device.sticky.load(); }

cudaError_t queue_give(cudaError_t e)
{
    if (e && e != cudaErrorNotReady) last_error = e;
    return e;
}

cudaError_t queue_last_error(bool forget)
{
    cudaError_t e = device.sticky ? device.sticky.load() : last_error;
    if (forget) last_error = cudaSuccess;
    return e;
}

CUstream_st *queue_open(int on_device)
{
    std::lock_guard hold(device.lock);
    CUstream_st *s = new CUstream_st{on_device};
    device.streams.push_back(s);
    return s;
}

void queue_close(CUstream_st *s)
{
    queue_finish_stream(s);
    std::lock_guard run(device.running);
    std::lock_guard hold(device.lock);
    std::erase(device.streams, s);
    delete s;
}

/* Under `hold`, which it gives up. */
static cudaError_t add(CUstream_st *s, work w, std::unique_lock<std::mutex> &hold)
{
    s->queue.push_back(std::move(w));
    s->number++;
    hold.unlock();
    run_ahead(16);
    return cudaSuccess;
}

/* Kernels, copies, products, graphs: what a host spends its time on. */
static struct launches {
    std::atomic<long> all, graphs;
    ~launches()
    {
        if (getenv("TRIMPOT_EMU_COUNT")) fprintf(stderr, "emu: %ld launches, %ld of them of graphs\n", all.load(), graphs.load());
    }
} launches;

cudaError_t queue_put(CUstream_st *s, work w)
{
    std::unique_lock hold(device.lock);
    w.faults = fails_now(FAIL_STREAM);
    if (s->capture) return capture_node(s, std::move(w));
    launches.all++;
    launches.graphs += w.kind == WORK_GRAPH;
    return add(s, std::move(w), hold);
}

cudaError_t queue_record(CUevent_st *e, CUstream_st *s)
{
    std::unique_lock hold(device.lock);
    e->captured = s->capture != nullptr;
    e->capture = s->capture;
    e->tips = s->tips;
    if (e->captured) return cudaSuccess;
    e->last = std::make_shared<mark>(mark{.stream = s, .number = s->number});
    return add(s, work{.kind = WORK_RECORDS, .what = "event", .event = e->last}, hold);
}

cudaError_t queue_elapsed(CUevent_st *from, CUevent_st *to, float *ms)
{
    std::lock_guard hold(device.lock);
    if (!from->last || !to->last) return cudaErrorInvalidResourceHandle;
    if (!from->last->done || !to->last->done) return cudaErrorNotReady;
    *ms = std::chrono::duration<float, std::milli>(to->last->at - from->last->at).count();
    return cudaSuccess;
}

cudaError_t queue_wait(CUevent_st *e, CUstream_st *s)
{
    std::unique_lock hold(device.lock);
    if (e->captured) return capture_join(e, s);
    if (s->capture) return e->last ? cudaErrorStreamCaptureIsolation : cudaSuccess;
    if (!e->last || e->last->done) return cudaSuccess;
    return add(s, work{.kind = WORK_WAITS, .what = "wait", .event = e->last}, hold);
}

cudaError_t queue_finish_stream(CUstream_st *s) { return s->capture ? capture_broken(*s->capture) : run_until(all_of(s)); }
cudaError_t queue_finish_event(CUevent_st *e) { return e->captured ? cudaErrorCapturedEvent : run_until(all_before(e)); }
cudaError_t queue_ask_stream(CUstream_st *s) { return s->capture ? capture_broken(*s->capture) : run_a_little(all_of(s)); }
cudaError_t queue_ask_event(CUevent_st *e) { return e->captured ? cudaErrorCapturedEvent : run_a_little(all_before(e)); }

void queue_talk()
{
    run_a_little([](goals &g) {
        for (CUstream_st *s : device.streams)
            for (size_t i = s->queue.size(); i; i--)
                if (s->queue[i - 1].talks) {
                    need(g, s, done_of(s) + i);
                    break;
                }
    });
}

cudaError_t queue_finish_all()
{
    return run_until([](goals &g) {
        for (CUstream_st *s : device.streams) need(g, s, s->number);
    });
}
