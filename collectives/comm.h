/* comm.h — what crosses ranks. One table, implementations `self` (a bare run: no MPI symbol is touched) and `mpi`
 * (a plugin, trimpot_mpi.so beside the binary, loaded only when a launcher is detected). What moves between the ranks'
 * GPUs is a transport's (transport.h). All calls are collective and made in one program order on every rank: by the main
 * thread, or by host calls of one stream. While such a call may be queued the main thread makes none: it first waits for
 * the stream (worker/trainer.h). */
#ifndef TRIMPOT_COMM_H
#define TRIMPOT_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

enum comm_op { COMM_MIN, COMM_MAX, COMM_SUM_I64, COMM_OR };

struct comm;
struct device_links;
struct comm_table {
    const char *name;
    status (*barrier)(struct comm *c);
    status (*bcast)(struct comm *c, void *data, size_t bytes, int root);
    status (*all_gather)(struct comm *c, const void *mine, void *all, size_t bytes_each); /* all = mine + offset allowed */
    status (*all_reduce_i64)(struct comm *c, int64_t *values, int n, enum comm_op op);    /* exact integers only */
    /* Rank r sends bytes [send_offset[j], +send_bytes[j]) to every rank j and receives likewise; the reduction's and
     * the checkpoint's only bulk primitive. */
    status (*all_to_all)(struct comm *c, const void *send, const size_t *send_bytes, const size_t *send_offset, void *recv,
                         const size_t *recv_bytes, const size_t *recv_offset);
    /* Every rank r contributes bytes [offset[r], +bytes[r]) of `data` in place; afterwards all ranks hold all. */
    status (*all_gather_in_place)(struct comm *c, void *data, const size_t *bytes, const size_t *offset);
    /* Memory that all ranks share, `bytes` of it for each: peers[r] = rank r's part, zero at first. ST_NOT_BUILT on every
     * rank where there is none (ranks on several hosts, no room, or self). Freed by close. */
    status (*share)(struct comm *c, size_t bytes, void **peers);
    void (*abort)(struct comm *c, int code); /* ends every rank with this exit code; does not return */
    void (*close)(struct comm *c);           /* barrier, MPI_Finalize */
};

struct comm {
    const struct comm_table *fn;
    int rank, size;
    int local_rank, local_size; /* ranks sharing this host's memory */
    struct {                    /* what the last comm_agree found */
        status code, mine;      /* the job's code, this rank's; ST_OK = all is well */
        uint64_t words;         /* hash of the message then: a later failure has other words */
        bool silent;            /* a lower rank prints it in the same words */
        bool alone;             /* no other rank says it */
    } agreed;
    struct device_links *links; /* between the ranks' devices (transport.h); NULL: through the hosts */
    void *impl;
};

/* How this process was started, read from the environment before any MPI call. */
struct launch {
    bool mpi;            /* load the plugin and call MPI_Init */
    int expected_world;  /* 0 = unknown */
    int rank;            /* as the environment has it, −1 = unknown; the true one is MPI's */
    const char *how;     /* "bare", "mpirun", "srun --mpi=pmix", … for the header */
    const char *promise; /* the variable that says so, for messages */
    const char *warning; /* NULL, or one line to print */
    bool echo;           /* the launch was refused, and another process of it says so */
};

/* dist: NULL, "self" or "mpi" (overrides detection). ST_USAGE for launches that would start N independent copies.
 * Pure function of the environment, unit-tested with invented environments through `getenv_fn`. */
status launch_detect(const char *dist, const char *(*getenv_fn)(const char *), struct launch *out);

/* launch_detect for this process, and what its environment cannot tell: is the launcher that it names still there? ST_USAGE
 * where nothing listens at the address of its server any more: MPI_Init would end the process with pages of text. */
status launch_find(const char *dist, struct launch *out);

/* Around comm_open: MPI_Init may end the process, or wait for ever for a rank that never comes. Then one line says what
 * happened, and after TRIMPOT_INIT_TIMEOUT seconds (120; 0 = never) the process ends with ST_WATCHDOG. */
status launch_guard(const struct launch *l);
void launch_guarded(void);

/* Opens self or mpi as detected; world ≠ expected is ST_USAGE. plugin_dir: folder of the binary. */
status comm_open(const struct launch *l, const char *plugin_dir, struct comm *out);

/* Loads the plugin only, whatever the launch: the MPI library's own words of itself ("Open MPI v4.1.4, package: …"), or
 * ST_NOT_BUILT with the reason. */
status comm_library(const char *plugin_dir, char *text, size_t bytes);

/* After a failure that only this rank knows: ends all ranks with `code` (self: returns). A rank that failed only because
 * of a peer (ST_PEER) first gives that peer time to end the job with the true code. */
void comm_fail(struct comm *c, int code);

/* Agreement on a status: every rank calls it at the same place, so that no rank is left in a later collective. Returns
 * `mine`, or ST_PEER with a message naming the rank and its code where only others failed. The largest code becomes the
 * exit code of every rank (comm_end). */
status comm_agree(struct comm *c, status mine);

/* Do all ranks hold the same? ST_CONFIG_RUNTIME on every rank, if not, with the hosts of two ranks that differ, the first line
 * in which they do, and the remedy. One gather of 8 bytes a row where all is well. */
struct comm_same {
    const char *what, *text, *remedy;
};
status comm_check_same(struct comm *c, const struct comm_same *rows, int n);
status comm_check_equal(struct comm *c, const char *what, uint64_t hash);

/* The end of a process, with the status its work ended with; returns the exit code. Prints the message, once where all
 * ranks say the same. Success, or a failure that all ranks agreed on: barrier, MPI_Finalize, the same code everywhere.
 * ST_STOPPED, ST_NOT_SAVED and ST_NONFINITE count as agreed: a rank returns them only where all do. A failure that the
 * peers do not know of: comm_fail. */
int comm_end(struct comm *c, status st);

#endif
