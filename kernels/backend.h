/* backend.h — one place where arithmetic happens: a device (memory, streams, events) and its table of ops.
 *
 * Backends: cpu; for tests ref (float64), paranoid and fence; cuda and its emulated twin emu are plugins (kernels/cuda). The worker speaks only to this
 * table. Every call that takes a stream is asynchronous in contract, even where a backend (cpu) finishes before it returns:
 *   - its arguments are copied by the call; what they point to is memory of this table's alloc, which lives on;
 *   - the host touches MEM_DEVICE memory never, MEM_PINNED memory only when no copy queued on it can still run: after sync() or
 *     event_sync() of something recorded behind that copy;
 *   - one stream runs in order; across streams only events order anything. */
#ifndef TRIMPOT_BACKEND_H
#define TRIMPOT_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/ops.h"

enum mem_kind {
    MEM_HOST,   /* ordinary memory: no stream reads or writes it, but a host_call */
    MEM_PINNED, /* the host's, and copies on streams reach it */
    MEM_DEVICE, /* what ops work on; a backend whose tensors live in MEM_HOST has no other kind */
    MEM_KINDS,
};

struct event; /* opaque, the backend's */
struct graph;
struct recorder;

/* Backends embed this as the first member of their own stream. */
struct stream {
    const struct backend *be;
    const char *name;          /* "compute", …, for people */
    void *workspace;           /* private scratch of the ops on this stream, from the plan */
    size_t workspace_bytes;    /* by prepare */
    int threads;               /* CPU: OpenMP threads; results never depend on it */
    struct recorder *recorder; /* writes down what stretches of it queue (record.h); NULL: nobody does … */
    bool recorded;             /* … and is at it: `be` is the recorder's table, and nothing may be queued past it */
};

/* What the largest call will look like: from it a backend makes what it makes once (plans, descriptors, choices of algorithms)
 * and says exactly how much workspace its ops need. */
struct work_bounds {
    dtype dt;                                                   /* of activations */
    int64_t tokens;                                             /* largest micro-batch */
    int64_t docs;                                               /* most documents in one */
    int64_t doc_tokens;                                         /* longest document */
    int64_t window;                                             /* tokens that a sliding layer sees, 0 = none slides */
    float attn_cap;                                             /* soft cap of scores, 0 = none */
    int64_t ld_q, ld_k, ld_v, ld_o;                             /* from row to row of q, k, v, o, where they are apart; 0: dense */
    bool deterministic;                                         /* attention too, whose sums a GPU else adds in any order */
    size_t attn_workspace;                                      /* bytes of scores that it may then keep; 0: ATTN_WORKSPACE */
    int64_t width, ffn, heads, kv_heads, head_dim, vocab, rank; /* C F H K D V R */
    int64_t head_rows;                                          /* rows of a logits chunk */
    int threads;
};

enum { ATTN_WORKSPACE = 512 << 20 };

struct device {
    status (*alloc)(enum mem_kind kind, size_t bytes, void **out); /* 64-byte aligned; ST_OOM */
    void (*free)(enum mem_kind kind, void *p, size_t bytes);
    status (*stream_open)(struct stream **out, int threads); /* workspace is bound later by the caller */
    void (*stream_close)(struct stream *s);
    status (*event_open)(struct event **out);
    void (*event_close)(struct event *e);
    status (*event_record)(struct event *e, struct stream *s);
    status (*event_wait)(struct event *e, struct stream *s, const char *label); /* s waits for e; the host does not */
    bool (*event_done)(struct event *e);                                        /* or never recorded */
    status (*event_sync)(struct event *e, const char *label);                   /* the host waits for e; of one never recorded: at once */
    /* An event that tells when it came, by the device's clock; and the seconds between two such that are done. */
    status (*clock_open)(struct event **out);
    status (*event_elapsed)(struct event *from, struct event *to, double *seconds);
    /* Who watches (trace.h) hears of work that is queued on s past this table, by a library. NULL: nobody does. */
    status (*span)(struct stream *s, const char *what, bool begins);
    /* fn(arg) runs on the host when the stream gets there, and the stream goes on when it returns; the first failure of one is
     * what the next sync of the stream returns. It may call no function of this table. */
    status (*host_call)(struct stream *s, status (*fn)(void *arg), void *arg);
    status (*copy)(struct stream *s, void *dst, const void *src, size_t bytes); /* any kinds */
    status (*zero)(struct stream *s, void *dst, size_t bytes);
    status (*sync)(struct stream *s, const char *label); /* later faults are reported with the label */
    status (*mem_info)(enum mem_kind kind, size_t *free_bytes, size_t *total_bytes);
    /* What is queued on s between begin and end becomes a graph instead of running; so does what is queued on streams that wait for
     * an event recorded in between, and s waits for them before the end. Launched, all of it runs as one piece of work of s, with
     * the arguments of then. In between: ops, copies, zeros, calls of the host, records and waits only; events recorded there mean
     * nothing outside; and no op whose equal has not run before, which may make what it needs. Closed before its streams are; one
     * that runs still goes when it is over. NULL: the backend has no graphs. What an op queues on a backend that has: record.h. */
    status (*graph_begin)(struct stream *s);
    status (*graph_end)(struct stream *s, struct graph **out);
    status (*graph_launch)(struct graph *g, struct stream *s);
    void (*graph_close)(struct graph *g);
};

struct backend {
    const char *name;
    enum mem_kind tensors_in; /* where tensors of this backend live: MEM_HOST or MEM_DEVICE */
    struct device dev;
    struct ops ops; /* reached through the op_… front door of ops.h, which checks shapes */
    status (*prepare)(struct stream *s, const struct work_bounds *w); /* once, before memory is planned: sets s->workspace_bytes */
    size_t (*library_bytes)(const struct work_bounds *w);             /* held by its libraries outside our arenas: an estimate … */
    const char *library;                                              /* … and what that is, for the plan */
    const char *(*describe)(void);                                    /* "cpu: AVX-512 bf16, oneDNN 2.6.3" */
    const char *(*identity)(void);                                    /* of a device that one rank may use; NULL: any number may */
    bool (*unordered)(const struct work_bounds *w);                   /* two runs of one op may differ within these bounds; NULL: never */
    bool elsewhere;                                                   /* of a machine that is not here (gpu.h): sizes only */
    bool joins_products; /* A·B + A2·B2 is one product where a2 lies right behind a's columns and b2 right behind b's depth, and two
                          * passes elsewhere: the worker lays memory out for it */
    int64_t token_unit;  /* above 1: calls are dear to prepare and cheap to repeat, so that the worker makes few different ones:
                          * micro-batches are filled up to a multiple of so many tokens (worker/batch.h), and bounds of documents
                          * come in classes (struct docs) */
    int64_t head_rows;   /* of a chunk of logits, where nothing else is asked for: as few as products have their rate with */
    bool accepts_f64;    /* f64 tensors wherever ops.h says act or f32 (the float64 reference) */
};

/* Around what a library queues on s by itself: a trace shows it under this name. */
static inline status stream_span(struct stream *s, const char *what, bool begins)
{
    return s->be->dev.span ? s->be->dev.span(s, what, begins) : ST_OK;
}

/* Scratch of one op on its stream, from the plan, 64-byte aligned; ST_FAIL when the bounds that were planned with are too small for it. */
status stream_workspace(struct stream *s, size_t bytes, const char *op, void **out);

extern const struct backend backend_cpu;
extern const struct backend *backend_host; /* what `device: cpu` means: &backend_cpu, or what a test has put around it */

/* Who asks for a device: each rank of a host has one of its own. */
struct backend_place {
    int local_rank, local_size; /* on this host */
};

/* The backend of a plugin beside the program, trimpot_NAME.so: "cuda"; "emu", the emulated device, where tests are built.
 * ST_NOT_BUILT when there is no such plugin; ST_DEVICE when no device, driver or architecture serves. Once per process. */
status backend_load(const char *name, const struct backend_place *place, const struct backend **out);
bool backend_built(const char *name); /* there is such a plugin */
bool backend_has_gpu(void);           /* cuda is built, and its driver is here and shows a device: what `device: null` asks */
typedef status backend_open_fn(const struct backend_place *place, const struct backend **out); /* trimpot_backend_open */

#endif
