/* watch_link.h — the sockets under watch.h: fixed records over TCP between two ranks that know the job's nonce. Nothing
 * here waits and nothing fails loudly; all descriptors are closed on exec. Used by the watch's thread alone. */
#ifndef TRIMPOT_WATCH_LINK_H
#define TRIMPOT_WATCH_LINK_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WATCH_ADDRESSES = 16, WATCH_STRANGERS = 32, WATCH_HALL_SLOTS = 1 + WATCH_STRANGERS };

enum watch_record_kind {
    RECORD_HELLO = 1, /* both ways, before anything else */
    RECORD_BEAT,      /* I am alive, and here */
    RECORD_TOLD,      /* I end the job with this code, and have said why */
    RECORD_EXIT,      /* exit() was called with this code */
    RECORD_END,       /* the job ends with this code, and the cause is named */
    RECORD_BYE        /* I end in order */
};

struct watch_record {
    uint64_t nonce[2];
    int32_t kind, rank, code, asked_to_stop;
    int64_t place;
};

/* How the listening socket of a rank is reached from other ranks. */
struct watch_door {
    int32_t n, port;
    struct {
        uint8_t v6, bytes[16];
    } at[WATCH_ADDRESSES]; /* network order; IPv4 in the first four bytes */
};

struct watch_link {
    int fd;                /* −1: none */
    size_t in_n, out_left; /* bytes of `in` that have come; the last bytes of `out` that wait */
    unsigned char in[sizeof(struct watch_record)], out[sizeof(struct watch_record)];
};

enum watch_event {
    LINK_NOTHING, /* for now */
    LINK_RECORD,
    LINK_ENDED, /* the process at the other end is gone, or closed it */
    LINK_BROKEN /* the network says no: that is not the same */
};

/* A connection to be, address after address. It is made once the other side has answered with the nonce and its rank. */
struct watch_dial {
    struct watch_link link;
    struct watch_door door;
    int rank; /* whom it is for */
    enum { DIAL_IDLE, DIAL_CONNECTING, DIAL_GREETED, DIAL_MADE, DIAL_GIVEN_UP } state;
    int next; /* address */
    double until, give_up;
};

/* Who listens, and the callers who have not yet proved that they belong to the job. */
struct watch_hall {
    int fd; /* −1: nobody listens */
    double again;
    struct {
        struct watch_link link;
        double since;
    } strangers[WATCH_STRANGERS];
};

void watch_link_open(struct watch_link *l, int fd);
void watch_link_close(struct watch_link *l);

/* Where the other side does not read, records are dropped whole. */
void watch_link_send(struct watch_link *l, const struct watch_record *r);
enum watch_event watch_link_receive(struct watch_link *l, struct watch_record *out);

/* Listens on all addresses and names them in `out` (none where that is not possible); takes care that `ranks` callers find
 * descriptors. */
void watch_hall_open(struct watch_hall *h, int ranks, struct watch_door *out);
void watch_hall_close(struct watch_hall *h);

/* The WATCH_HALL_SLOTS that poll should look at. */
void watch_hall_poll(const struct watch_hall *h, struct pollfd *slots, double now);

/* One step after poll. A caller proves the nonce with HELLO, and with the first record after our answer `hello` that it
 * keeps this connection: then it is admitted, with that record. */
void watch_hall_step(struct watch_hall *h, const struct pollfd *slots, const struct watch_record *hello, double now,
                     void (*admit)(const struct watch_link *, const struct watch_record *, double now));

/* Puts the loopback addresses in front: for two ranks of one host. */
void watch_door_near(struct watch_door *d);

void watch_dial_open(struct watch_dial *d, const struct watch_door *door, int rank, double now);

/* What poll should look for. */
short watch_dial_events(const struct watch_dial *d);

/* One step, `ready` = what poll found. Greets with `hello`; true when the connection has just been made. */
bool watch_dial_step(struct watch_dial *d, short ready, const struct watch_record *hello, double now);

#endif
