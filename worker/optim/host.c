#include "worker/optim/host.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"
#include "worker/optim/optim.h"

static status open_events(struct optim_host *h, const struct device *dev)
{
    TRY(dev->event_open(&h->final));
    TRY(dev->event_open(&h->taken));
    TRY(dev->event_open(&h->all_up));
    for (int i = 0; i < HOST_SLOTS; i++) {
        TRY(dev->event_open(&h->is_down[i]));
        TRY(dev->event_open(&h->updated[i]));
        TRY(dev->event_open(&h->free[i]));
    }
    return ST_OK;
}

/* A step has at most a part for each window, and one more for each tensor that steps by itself. */
status host_open(struct optim *o)
{
    struct optim_host *h = &o->host;
    const struct param_store *ps = o->params;
    int64_t most = o->cfg->optimizer.host_window > 0 ? o->cfg->optimizer.host_window : HOST_WINDOW;
    h->window = (most < ps->flat_count ? most : ps->flat_count) / STATE_BLOCK * STATE_BLOCK;
    if (h->window < STATE_BLOCK) h->window = STATE_BLOCK;
    h->n_updates = 2 * (ps->flat_count / h->window + 2 + ps->n);
    h->update = mem_alloc((size_t)h->n_updates * sizeof *h->update);
    TRY(ps->be->dev.stream_open(&h->down, 1));
    TRY(ps->be->dev.stream_open(&h->step, 1));
    TRY(ps->be->dev.stream_open(&h->up, 1));
    h->down->name = "gradients down";
    h->step->name = "step on the host";
    h->up->name = "weights up";
    TRY(backend_cpu.dev.stream_open(&h->cpu, omp_get_max_threads()));
    return open_events(h, &ps->be->dev);
}

void host_release(struct optim *o)
{
    struct optim_host *h = &o->host;
    struct event *const events[] = {h->final,      h->taken,      h->all_up,     h->is_down[0], h->is_down[1], h->is_down[2],
                                    h->updated[0], h->updated[1], h->updated[2], h->free[0],    h->free[1],    h->free[2]};
    struct stream *const streams[] = {h->down, h->step, h->up};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i]) o->params->be->dev.event_close(events[i]);
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        if (streams[i]) o->params->be->dev.stream_close(streams[i]);
    if (h->cpu) backend_cpu.dev.stream_close(h->cpu);
    free(h->update);
}

/* Before it is known where. */
static bool has_copies(const struct param_store *ps)
{
    for (int64_t i = 0; i < ps->segs.n; i++)
        if (ps->segs.host[i].scale != 0) return true;
    return false;
}

void host_layout(struct optim *o, struct arena *host, struct arena *pinned, const char *const row[PAGER_VECTORS])
{
    struct optim_host *h = &o->host;
    const struct param_store *ps = o->params;
    size_t n = (size_t)h->window;
    for (int k = 0; k < STATE_VECTORS; k++)
        if (o->vector[k].count) h->states[k] = arena_take(host, state_bytes(&o->vector[k]), "%s", row[k]);
    for (int i = 0; i < HOST_SLOTS; i++) {
        h->grad[i] = arena_take(pinned, n * sizeof(float), "window of gradients");
        h->weights[i] = arena_take(pinned, n * dtype_bytes(ps->trained_dt), "window of weights");
        if (has_copies(ps)) h->work[i] = arena_take(pinned, n * dtype_bytes(ps->act), "window of working copies");
        h->scalars[i] = arena_take(pinned, sizeof(struct step_scalars), "scalars of windows");
    }
}

void host_zero(struct optim *o)
{
    for (int k = 0; k < STATE_VECTORS; k++)
        if (o->vector[k].count) memset(o->host.states[k], 0, state_bytes(&o->vector[k]));
}

/* ---- one window ---------------------------------------------------------------------------------------------------------- */

/* Views of the range where the vector lies as the index does, else all of it: as the device's, of one window (optim.c). */
static tensor state(const struct optim *o, int k, struct range r)
{
    const struct state_vector *v = &o->vector[k];
    if (!v->count) return (tensor){0};
    if (o->coded) r = (struct range){0, v->count / v->per};
    return tensor_part(tensor_1d(o->host.states[k], v->dt, v->count / v->per), r.lo, range_count(r));
}

/* On the host, in the stream `step`. */
static status update(void *arg)
{
    const struct host_update *x = arg;
    const struct optim *o = x->o;
    const struct optim_host *h = &o->host;
    const struct param_store *ps = o->params;
    int64_t n = range_count(x->r);
    struct update_args a = optim_args(o, x->step, x->r);
    a.w = tensor_1d(h->weights[x->slot], ps->trained_dt, n);
    a.g = tensor_1d(h->grad[x->slot], x->grad_dt, n);
    if (h->work[x->slot]) a.work = tensor_1d(h->work[x->slot], ps->act, n);
    a.scalars = tensor_1d(h->scalars[x->slot], DT_F64, STEP_SCALARS);
    a.m = state(o, STATE_M, x->r);
    a.v = state(o, STATE_V, x->r);
    a.m8 = state(o, STATE_M8, x->r);
    a.v8 = state(o, STATE_V8, x->r);
    a.m_absmax = state(o, STATE_M_ABSMAX, x->r);
    a.v_absmax = state(o, STATE_V_ABSMAX, x->r);
    a.segs = (struct segs){.host = ps->segs.host, .dev = ps->segs.host, .n = ps->segs.n};
    return op_update(h->cpu, &a);
}

/* Bytes of the vectors that go both ways. */
static status copy(const struct optim *o, const struct host_update *x, bool down)
{
    const struct optim_host *h = &o->host;
    const struct param_store *ps = o->params;
    size_t lo = (size_t)x->r.lo, n = (size_t)range_count(x->r), weight = dtype_bytes(ps->trained_dt), work = dtype_bytes(ps->act);
    struct stream *on = down ? h->down : h->up;
    char *weights = (char *)ps->flat + lo * weight, *copies = (char *)ps->flat_work + lo * work;
    TRY(ps->be->dev.copy(on, down ? h->weights[x->slot] : weights, down ? weights : h->weights[x->slot], n * weight));
    if (!h->work[x->slot]) return ST_OK;
    return ps->be->dev.copy(on, down ? h->work[x->slot] : copies, down ? copies : h->work[x->slot], n * work);
}

static status window(struct optim *o, tensor grad, tensor scalars, int64_t step, struct range r)
{
    struct optim_host *h = &o->host;
    const struct device *dev = &o->params->be->dev;
    int slot = (int)(h->next % HOST_SLOTS);
    struct host_update *x = &h->update[h->next++ % h->n_updates];
    *x = (struct host_update){.o = o, .r = r, .grad_dt = grad.dt, .step = step, .slot = slot};
    TRY(dev->event_wait(h->free[slot], h->down, "slot free"));
    TRY(dev->copy(h->down, h->grad[slot], grad.data, (size_t)tensor_count(&grad) * dtype_bytes(grad.dt)));
    TRY(dev->copy(h->down, h->scalars[slot], scalars.data, sizeof(struct step_scalars)));
    TRY(copy(o, x, true));
    TRY(dev->event_record(h->is_down[slot], h->down));
    TRY(dev->event_wait(h->is_down[slot], h->step, "gradients down"));
    TRY(dev->host_call(h->step, update, x));
    TRY(dev->event_record(h->updated[slot], h->step));
    TRY(dev->event_wait(h->updated[slot], h->up, "weights updated"));
    TRY(copy(o, x, false));
    return dev->event_record(h->free[slot], h->up);
}

/* What is asked of s goes through s->be: a stretch of it may be being recorded (kernels/record.h). */
status host_range(struct optim *o, tensor grad, tensor scalars, int64_t step, struct range r)
{
    struct optim_host *h = &o->host;
    TRY(o->s->be->dev.event_record(h->final, o->s));
    TRY(o->params->be->dev.event_wait(h->final, h->down, "gradients final"));
    for (int64_t lo = r.lo, hi; lo < r.hi; lo = hi) {
        hi = (lo / h->window + 1) * h->window < r.hi ? (lo / h->window + 1) * h->window : r.hi;
        TRY(window(o, tensor_part(grad, lo - r.lo, hi - lo), scalars, step, (struct range){lo, hi}));
    }
    TRY(o->params->be->dev.event_record(h->taken, h->down));
    return o->s->be->dev.event_wait(h->taken, o->s, "gradients taken");
}

status host_rest(struct optim *o)
{
    TRY(o->params->be->dev.event_record(o->host.all_up, o->host.up));
    TRY(o->s->be->dev.event_wait(o->host.all_up, o->s, "weights up"));
    return param_store_second_copies(o->params, o->s, 0, o->params->flat_count);
}

status host_states(struct optim *o, int vector, int64_t at, void **out)
{
    const struct optim_host *h = &o->host;
    struct stream *const streams[] = {o->s, h->down, h->step, h->up};
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) TRY(o->params->be->dev.sync(streams[i], "step on the host"));
    *out = (char *)h->states[vector] + (size_t)at * dtype_bytes(o->vector[vector].dt);
    return ST_OK;
}
