/* watch.c — the watch's state, its thread, and who speaks for the job. The sockets: watch_link.c; what waits and ends this
 * process: watch_fuse.c; where the main thread stands: watch_place.c. */
#include "collectives/watch.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "collectives/watch_fuse.h"
#include "collectives/watch_link.h"
#include "collectives/watch_place.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "kernels/base/thread.h"

enum { CENTRES = 2 };

static const double BEAT_S = 1, SETTLE_S = 2, /* the start waits so long for connections … */
    TELL_S = 0.3,                             /* … and who ends the job for its word to be sent */
    WARN_S = 12,                              /* after that, who has not come is not watched */
    GAP_S = 1,                                /* a turn that took so much longer than asked: this process was not running */
    DEATH_GRACE_S = 1,                        /* a launcher that acts on the death itself ends the job with its own exit code … */
    MPIRUN_GRACE_S = 2,                       /* … and mpirun always does, so long it takes on one host */
    SILENCE_GRACE_S = 0.2, TOLD_GRACE_S = 3,  /* the rank that told ends the job itself */
    ENDED_GRACE_S = 2,                        /* who named the cause ends the job itself */
    ABORT_S = 1.5,                            /* for an abort to end this process */
    LAUNCHER_S = 6,                           /* for mpirun to end by itself */
    CONFIRM_S = 0.15,                         /* a launcher that ends all ranks kills this one too: nothing is to be said */
    DEPUTY_WAITS_S = 2,                       /* for a rank 0 that lives */
    OTHERS_WAIT_S = 2;                        /* where both centres are gone */

struct identity {
    char host[64];
    int64_t pid;
};

/* What is known of a rank, by whichever of its two connections. Who is no centre knows the centres only. */
struct peer {
    enum { PEER_UNKNOWN, PEER_HERE, PEER_LEFT, PEER_ENDED } state;
    int exit_code; /* of an exit() it announced, else 0 */
    bool asked_to_stop;
    double heard, ended;
    int64_t place;
};

static struct {
    struct comm comm;
    struct identity *who;
    int centre[CENTRES];
    bool running; /* main thread only */
    pthread_t thread;

    /* the main thread's word to the thread */
    int wake;
    atomic_bool closing;
    _Atomic double timeout;
    atomic_bool asked_to_stop;
    struct {
        atomic_int kind, code;
    } telling; /* kind 0: nothing */

    /* the thread's own */
    uint64_t nonce[2];
    double opened, beaten;
    int64_t beaten_place;
    bool warned;
    struct watch_dial dial[CENTRES];
    bool told[CENTRES + 1];      /* the centres, and itself if it is one */
    struct watch_hall hall;      /* centres only … */
    struct watch_link *accepted; /* … by rank */
    struct peer *peers;
    struct pollfd *polled;
    double end_at;
    bool end_aborts; /* else by _exit, for another rank aborts */

    /* the thread's word to all others */
    atomic_int blamed;   /* code with which the job ends: the cause is named, or is being named */
    atomic_bool settled; /* each centre is connected, or given up */
    atomic_bool told_all;
} w = {.timeout = 30};

void watch_timeout(double seconds) { atomic_store(&w.timeout, seconds); }
void watch_asked_to_stop(void) { atomic_store(&w.asked_to_stop, true); }

/* ---- the end ------------------------------------------------------------------------------------------------------- */

static bool is_centre(void) { return w.accepted != NULL; }

static struct watch_record record(enum watch_record_kind kind, int code)
{
    return (struct watch_record){.nonce = {w.nonce[0], w.nonce[1]},
                                 .kind = kind,
                                 .rank = w.comm.rank,
                                 .code = code,
                                 .asked_to_stop = atomic_load(&w.asked_to_stop),
                                 .place = watch_place_packed()};
}

static void send_to_centres(const struct watch_record *r)
{
    for (int i = 0; i < CENTRES; i++)
        if (w.dial[i].state == DIAL_MADE) watch_link_send(&w.dial[i].link, r);
}

static void send_to_accepted(const struct watch_record *r)
{
    for (int i = 0; is_centre() && i < w.comm.size; i++) watch_link_send(&w.accepted[i], r);
}

/* The job's end is settled; the first to be heard of counts. All whom this rank reaches learn it. */
static bool settle_end(int code, double grace_s, bool aborts, double now)
{
    if (atomic_load(&w.blamed)) return false;
    w.end_at = now + grace_s;
    w.end_aborts = aborts;
    atomic_store(&w.blamed, code);
    watch_fuse(code, grace_s + ABORT_S);
    if (code == ST_WATCHDOG) watch_fuse_launcher(LAUNCHER_S);
    struct watch_record r = record(RECORD_END, code);
    send_to_centres(&r);
    send_to_accepted(&r);
    return true;
}

/* To who is connected only then. */
static void pass_on_end(struct watch_link *l)
{
    struct watch_record r = record(RECORD_END, atomic_load(&w.blamed));
    if (r.code) watch_link_send(l, &r);
}

/* One line, and what the launcher can see as well is left to it for a moment. */
static void name_cause(int rank, int code, const char *how, int others, double now)
{
    char place[WATCH_PLACE_BYTES], more[64] = "";
    bool ended = w.peers[rank].state == PEER_ENDED, mpirun = ended && getenv("OMPI_COMM_WORLD_SIZE");
    /* An abort would only add a page of its own to the one of mpirun, and wait for it. */
    if (!settle_end(code, mpirun ? MPIRUN_GRACE_S : ended ? DEATH_GRACE_S : SILENCE_GRACE_S, !mpirun, now)) return;
    watch_place_text(w.peers[rank].place, place);
    if (others > 0) snprintf(more, sizeof more, " (and %d more rank%s)", others, others > 1 ? "s" : "");
    log_error("rank %d (host %s, pid %lld) %s at %s%s; all ranks end", rank, w.who[rank].host, (long long)w.who[rank].pid, how, place,
              more);
}

static void end_now(void)
{
    int code = atomic_load(&w.blamed);
    if (w.end_aborts) w.comm.fn->abort(&w.comm, code);
    _exit(code);
}

/* ---- judging ------------------------------------------------------------------------------------------------------- */

/* A turn of the thread: one connection costs a centre a look at all, so that large worlds look less often. */
static double look_s(void) { return w.comm.size <= 64 ? 0.1 : w.comm.size < 640 ? 0.1 * w.comm.size / 64 : 1; }

static double timeout_s(void)
{
    double t = atomic_load(&w.timeout), least = 4 * look_s();
    return t <= 0 ? INFINITY : t < least ? least : t;
}

static double beat_s(void) { return fmin(BEAT_S, timeout_s() / 4); }

/* Since when a rank is given up; INFINITY: it is not. */
static double lost_since(int rank, double now)
{
    const struct peer *p = &w.peers[rank];
    if (p->state == PEER_ENDED) return p->ended;
    return p->state == PEER_HERE && now - p->heard > timeout_s() ? p->heard + timeout_s() : INFINITY;
}

/* How long this rank leaves it to those before it to name a cause: rank 0, then the deputy, then everyone. */
static double patience(double now)
{
    if (w.comm.rank == w.centre[0]) return CONFIRM_S;
    if (w.comm.rank == w.centre[1]) return isinf(lost_since(w.centre[0], now)) ? DEPUTY_WAITS_S : CONFIRM_S;
    for (int i = 0; i < CENTRES; i++) {
        const struct peer *p = &w.peers[w.centre[i]];
        if (p->state == PEER_LEFT || (p->state == PEER_HERE && isinf(lost_since(w.centre[i], now)))) return INFINITY;
    }
    return OTHERS_WAIT_S;
}

static int end_code(const struct peer *p) { return p->state != PEER_ENDED ? ST_WATCHDOG : p->exit_code ? p->exit_code : ST_PEER; }

static void name_lost(int rank, double now)
{
    const struct peer *lost = &w.peers[rank];
    char how[128] = "ended without a word (killed, crashed, or out of memory)";
    int others = 0;
    if (lost->asked_to_stop) snprintf(how, sizeof how, "was killed, some time after it had been asked to stop,");
    if (lost->exit_code) snprintf(how, sizeof how, "ended by itself with exit code %d", lost->exit_code);
    if (lost->state != PEER_ENDED)
        snprintf(how, sizeof how, "has not been heard of for %.0f s (stopped, or its host or the network is gone), last",
                 now - lost->heard);
    /* The last beats of ranks that went silent together are up to a beat apart. */
    for (int r = 0; r < w.comm.size; r++) {
        const struct peer *p = &w.peers[r];
        bool silent = p->state == PEER_HERE && now - p->heard > timeout_s() - 1.5 * beat_s();
        others += r != rank && (lost->state == PEER_ENDED ? p->state == PEER_ENDED : silent);
    }
    name_cause(rank, end_code(lost), how, others, now);
}

/* Where both centres are gone, one rank of each host says it. */
static bool first_of_host(void)
{
    bool first = true;
    for (int r = 0; r < w.comm.rank; r++)
        first &= r == w.centre[0] || r == w.centre[1] || strcmp(w.who[r].host, w.who[w.comm.rank].host) != 0;
    return first;
}

static void judge(double now)
{
    if (atomic_load(&w.blamed)) {
        if (now >= w.end_at) end_now();
        return;
    }
    int first = -1;
    for (int r = 0; r < w.comm.size; r++)
        if (!isinf(lost_since(r, now)) && (first < 0 || lost_since(r, now) < lost_since(first, now))) first = r;
    if (first < 0 || now - lost_since(first, now) < patience(now)) return;
    if (is_centre() || first_of_host())
        name_lost(first, now);
    else
        settle_end(end_code(&w.peers[first]), DEATH_GRACE_S, true, now);
}

/* Time in which this process itself did not run (a suspended job, a laptop asleep) is nobody's silence. */
static void forgive(double gap)
{
    if (gap < GAP_S) return;
    for (int r = 0; r < w.comm.size; r++) w.peers[r].heard += gap;
}

static void warn_unwatched(double now)
{
    struct buf hosts = {0};
    const char *last = "";
    int missing = 0;
    if (w.warned || w.comm.rank != w.centre[0] || now - w.opened < WARN_S) return;
    w.warned = true;
    for (int r = 1; r < w.comm.size; r++) {
        if (w.peers[r].state != PEER_UNKNOWN) continue;
        missing++;
        if (strcmp(last, w.who[r].host) == 0 || hosts.len > 200) continue;
        last = w.who[r].host;
        buf_printf(&hosts, "%s%s", hosts.len ? ", " : "", last);
    }
    if (missing)
        log_warn("%d of %d ranks (on %s) do not reach rank 0 (on %s) over TCP: should one of them die or hang, the others may "
                 "wait for ever; open TCP between the nodes, or start with srun -K1",
                 missing, w.comm.size, hosts.data, w.who[0].host);
    buf_release(&hosts);
}

/* ---- listening ----------------------------------------------------------------------------------------------------- */

static void end_of(int rank, int exit_code, double now)
{
    struct peer *p = &w.peers[rank];
    if (p->state != PEER_HERE) return;
    p->state = PEER_ENDED;
    p->ended = now;
    p->exit_code = exit_code;
}

static void take_note(int rank, const struct watch_record *r, double now)
{
    struct peer *p = &w.peers[rank];
    p->heard = now;
    p->place = r->place;
    p->asked_to_stop |= r->asked_to_stop != 0;
    if (p->state == PEER_UNKNOWN) p->state = PEER_HERE;
    if (r->kind == RECORD_BYE) p->state = PEER_LEFT;
    if (r->kind == RECORD_EXIT) end_of(rank, r->code, now);
    if (r->kind == RECORD_TOLD) settle_end(r->code, TOLD_GRACE_S, true, now);
    if (r->kind == RECORD_END) settle_end(r->code, ENDED_GRACE_S, false, now);
}

static bool from(const struct watch_record *r, int rank) { return r->rank == rank && memcmp(r->nonce, w.nonce, sizeof w.nonce) == 0; }

static void hear(struct watch_link *l, int rank, double now)
{
    enum { MOST = 64 };
    struct watch_record r;
    enum watch_event event = LINK_RECORD;
    for (int i = 0; i < MOST && event == LINK_RECORD; i++) {
        event = watch_link_receive(l, &r);
        if (event == LINK_RECORD && !from(&r, rank)) event = LINK_BROKEN;
        if (event == LINK_RECORD) take_note(rank, &r, now);
    }
    if (event == LINK_ENDED) end_of(rank, 0, now);
    if (event == LINK_ENDED || event == LINK_BROKEN) watch_link_close(l);
}

static void admit(const struct watch_link *l, const struct watch_record *r, double now)
{
    if (r->rank < 0 || r->rank >= w.comm.size || r->rank == w.comm.rank) return;
    watch_link_close(&w.accepted[r->rank]);
    w.accepted[r->rank] = *l;
    pass_on_end(&w.accepted[r->rank]);
    take_note(r->rank, r, now);
}

/* ---- the thread ---------------------------------------------------------------------------------------------------- */

/* One slot per thing that can be waited for; where it is not there, poll passes over −1. */
enum { SLOT_WAKE, SLOT_DIAL, SLOT_HALL = SLOT_DIAL + CENTRES, SLOT_ACCEPTED = SLOT_HALL + WATCH_HALL_SLOTS };

static int wait_for_something(void)
{
    int n = is_centre() ? SLOT_ACCEPTED + w.comm.size : SLOT_HALL, wait_ms = (int)(1000 * look_s());
    w.polled[SLOT_WAKE] = (struct pollfd){w.wake, POLLIN, 0};
    for (int i = 0; i < CENTRES; i++) {
        w.polled[SLOT_DIAL + i] = (struct pollfd){w.dial[i].link.fd, watch_dial_events(&w.dial[i]), 0};
        if (w.dial[i].state == DIAL_IDLE) wait_ms = 10;
    }
    if (is_centre()) watch_hall_poll(&w.hall, w.polled + SLOT_HALL, clock_s());
    for (int r = 0; is_centre() && r < w.comm.size; r++) w.polled[SLOT_ACCEPTED + r] = (struct pollfd){w.accepted[r].fd, POLLIN, 0};
    if (poll(w.polled, (nfds_t)n, wait_ms) <= 0)
        for (int i = 0; i < n; i++) w.polled[i].revents = 0;
    return wait_ms;
}

static void listen_to_all(double now)
{
    struct watch_record hello = record(RECORD_HELLO, 0), beat = record(RECORD_BEAT, 0);
    eventfd_t count;
    if (w.polled[SLOT_WAKE].revents) eventfd_read(w.wake, &count);
    for (int i = 0; i < CENTRES; i++) {
        struct watch_dial *d = &w.dial[i];
        short ready = w.polled[SLOT_DIAL + i].revents;
        if (d->state == DIAL_MADE) {
            if (ready) hear(&d->link, d->rank, now);
        } else if (watch_dial_step(d, ready, &hello, now)) {
            watch_link_send(&d->link, &beat);
            pass_on_end(&d->link);
            take_note(d->rank, &(struct watch_record){.kind = RECORD_HELLO, .place = w.peers[d->rank].place}, now);
        }
    }
    if (!is_centre()) return;
    for (int r = 0; r < w.comm.size; r++)
        if (w.polled[SLOT_ACCEPTED + r].revents) hear(&w.accepted[r], r, now);
    watch_hall_step(&w.hall, w.polled + SLOT_HALL, &hello, now, admit);
}

/* Who is connected later hears it then. */
static void tell_all(double now)
{
    int kind = atomic_load(&w.telling.kind);
    struct watch_record r = record((enum watch_record_kind)kind, atomic_load(&w.telling.code));
    bool all = true;
    for (int i = 0; i < CENTRES; i++) {
        if (w.dial[i].state == DIAL_MADE && !w.told[i]) watch_link_send(&w.dial[i].link, &r);
        w.told[i] = w.dial[i].state == DIAL_MADE;
        all &= w.told[i] || w.dial[i].state == DIAL_GIVEN_UP;
    }
    if (kind == RECORD_TOLD && is_centre() && !w.told[CENTRES]) take_note(w.comm.rank, &r, now);
    w.told[CENTRES] = true;
    atomic_store(&w.told_all, all);
}

static void speak(double now)
{
    struct watch_record beat = record(RECORD_BEAT, 0);
    bool due = now - w.beaten >= beat_s(), settled = true;
    for (int i = 0; i < CENTRES; i++) settled &= w.dial[i].state >= DIAL_MADE;
    atomic_store(&w.settled, settled);
    if (atomic_load(&w.telling.kind)) tell_all(now);
    if (due || beat.place != w.beaten_place) send_to_centres(&beat);
    if (due) send_to_accepted(&beat);
    if (due) w.beaten = now;
    w.beaten_place = beat.place;
}

static void *watch(void *unused)
{
    (void)unused;
    double last = clock_s();
    while (!atomic_load(&w.closing) || atomic_load(&w.blamed)) {
        double asked = 1e-3 * wait_for_something(), now = clock_s();
        forgive(now - last - asked);
        last = now;
        listen_to_all(now);
        speak(now);
        judge(now);
        warn_unwatched(now);
    }
    struct watch_record bye = record(RECORD_BYE, 0);
    send_to_centres(&bye);
    send_to_accepted(&bye);
    return NULL;
}

/* ---- opening and closing ------------------------------------------------------------------------------------------- */

static void open_centre(struct watch_door *door)
{
    w.accepted = mem_alloc((size_t)w.comm.size * sizeof *w.accepted);
    for (int r = 0; r < w.comm.size; r++) w.accepted[r].fd = -1;
    watch_hall_open(&w.hall, w.comm.size, door);
}

/* Who everyone is, how the centres are reached, and what proves that one belongs to this job. */
static status introduce(struct comm *c, struct watch_door door[CENTRES])
{
    struct identity me = {.pid = getpid()};
    gethostname(me.host, sizeof me.host - 1);
    if (getrandom(w.nonce, sizeof w.nonce, GRND_NONBLOCK) != sizeof w.nonce)
        w.nonce[0] = (uint64_t)(clock_s() * 1e9), w.nonce[1] = (uint64_t)me.pid;
    TRY(c->fn->bcast(c, w.nonce, sizeof w.nonce, 0));
    TRY(c->fn->all_gather(c, &me, w.who, sizeof me));
    watch_place_open(c->rank, c->size, me.host);
    w.centre[1] = 1;
    for (int r = c->size - 1; r > 0; r--)
        if (strcmp(w.who[r].host, w.who[0].host)) w.centre[1] = r;
    for (int i = 0; i < CENTRES; i++) {
        if (c->rank == w.centre[i]) open_centre(&door[i]);
        TRY(c->fn->bcast(c, &door[i], sizeof door[i], w.centre[i]));
    }
    return ST_OK;
}

/* Until the thread has done it, within reason. */
static void wait_for(atomic_bool *done, double most_s)
{
    double until = clock_s() + most_s;
    while (!atomic_load(done) && clock_s() < until) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void tell(enum watch_record_kind kind, int code)
{
    if (!w.running || atomic_load(&w.blamed)) return;
    atomic_store(&w.telling.code, code ? code : ST_PEER);
    atomic_store(&w.telling.kind, (int)kind);
    eventfd_write(w.wake, 1);
    wait_for(&w.told_all, TELL_S);
}

/* exit() in a library, or for want of memory: its code is kept. */
static void at_exit(int code, void *unused)
{
    (void)unused;
    tell(RECORD_EXIT, code);
}

void watch_tell(int code) { tell(RECORD_TOLD, code); }

static void release(void)
{
    for (int i = 0; i < CENTRES; i++) watch_link_close(&w.dial[i].link);
    for (int r = 0; is_centre() && r < w.comm.size; r++) watch_link_close(&w.accepted[r]);
    if (is_centre()) watch_hall_close(&w.hall);
    if (w.wake >= 0) close(w.wake);
    free(w.accepted);
    free(w.peers);
    free(w.polled);
    w.accepted = NULL;
    w.running = false;
}

void watch_open(struct comm *c)
{
    struct watch_door door[CENTRES] = {0};
    if (c->size == 1) return;
    w.comm = *c;
    w.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w.who = mem_alloc((size_t)c->size * sizeof *w.who);
    w.peers = mem_alloc((size_t)c->size * sizeof *w.peers);
    w.polled = mem_alloc((size_t)(SLOT_ACCEPTED + c->size) * sizeof *w.polled);
    w.opened = clock_s();
    status st = introduce(c, door);
    for (int i = 0; i < CENTRES; i++) {
        if (strcmp(w.who[w.centre[i]].host, w.who[c->rank].host) == 0) watch_door_near(&door[i]);
        if (c->rank == w.centre[i]) door[i].n = 0;
        watch_dial_open(&w.dial[i], &door[i], w.centre[i], w.opened);
    }
    w.running = !st && w.wake >= 0 && thread_start(&w.thread, watch, NULL);
    if (w.running) {
        on_exit(at_exit, NULL);
        wait_for(&w.settled, SETTLE_S); /* so that who dies from now on is missed */
    } else {
        log_warn("this rank is not watched: %s", st ? status_message() : strerror(errno));
        release();
    }
}

void watch_close(void)
{
    if (!w.running) return;
    atomic_store(&w.closing, true);
    eventfd_write(w.wake, 1);
    pthread_join(w.thread, NULL);
    release();
}

bool watch_blamed(double wait_s)
{
    enum { TURN_MS = 20 };
    for (double waited = 0; !atomic_load(&w.blamed) && waited < wait_s; waited += 1e-3 * TURN_MS)
        nanosleep(&(struct timespec){.tv_nsec = 1000000 * TURN_MS}, NULL);
    return atomic_load(&w.blamed);
}
