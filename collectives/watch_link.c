#include "collectives/watch_link.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static const double TRY_ALL_S = 10, TRY_ONE_S = 3, TRY_AGAIN_S = 0.2, NONCE_S = 5, /* for a stranger to say it */
    DOOR_AGAIN_S = 1;                                                              /* when no descriptor was left for who knocks */

/* ---- addresses ----------------------------------------------------------------------------------------------------- */

static void add_address(struct watch_door *d, bool v6, const void *bytes)
{
    if (d->n == WATCH_ADDRESSES) return;
    d->at[d->n].v6 = v6;
    memcpy(d->at[d->n++].bytes, bytes, v6 ? 16 : 4);
}

/* What other hosts may reach: neither loopback nor addresses that mean something on one wire only. */
static void add_interfaces(struct watch_door *d)
{
    struct ifaddrs *all = NULL;
    if (getifaddrs(&all)) return;
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (!i->ifa_addr || !(i->ifa_flags & IFF_UP) || i->ifa_flags & IFF_LOOPBACK) continue;
        const struct sockaddr_in *v4 = (const void *)i->ifa_addr;
        const struct sockaddr_in6 *v6 = (const void *)i->ifa_addr;
        if (i->ifa_addr->sa_family == AF_INET)
            add_address(d, false, &v4->sin_addr);
        else if (i->ifa_addr->sa_family == AF_INET6 && !IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr))
            add_address(d, true, &v6->sin6_addr);
    }
    freeifaddrs(all);
}

void watch_door_near(struct watch_door *d)
{
    const struct watch_door far = *d;
    const struct in_addr v4 = {htonl(INADDR_LOOPBACK)};
    d->n = 0;
    add_address(d, false, &v4);
    add_address(d, true, &in6addr_loopback);
    for (int i = 0; i < far.n; i++) add_address(d, far.at[i].v6, far.at[i].bytes);
}

/* ---- records ------------------------------------------------------------------------------------------------------- */

void watch_link_open(struct watch_link *l, int fd)
{
    int yes = 1;
    *l = (struct watch_link){.fd = fd};
    if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

/* What is unread is read first: closing over it would send a reset, which may overtake our last record. */
void watch_link_close(struct watch_link *l)
{
    enum { MOST = 64 };
    struct watch_record r;
    if (l->fd < 0) return;
    for (int i = 0; i < MOST && watch_link_receive(l, &r) == LINK_RECORD; i++) continue;
    close(l->fd);
    l->fd = -1;
}

static bool flush(struct watch_link *l)
{
    ssize_t n = send(l->fd, l->out + sizeof l->out - l->out_left, l->out_left, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) l->out_left -= (size_t)n;
    return l->out_left == 0;
}

void watch_link_send(struct watch_link *l, const struct watch_record *r)
{
    if (l->fd < 0 || (l->out_left && !flush(l))) return;
    memcpy(l->out, r, sizeof *r);
    l->out_left = sizeof *r;
    flush(l); /* that it fails, the receiver will see */
}

enum watch_event watch_link_receive(struct watch_link *l, struct watch_record *out)
{
    ssize_t n = recv(l->fd, l->in + l->in_n, sizeof l->in - l->in_n, MSG_DONTWAIT);
    if (n == 0) return LINK_ENDED;
    if (n < 0) return errno == EAGAIN || errno == EINTR ? LINK_NOTHING : errno == ECONNRESET ? LINK_ENDED : LINK_BROKEN;
    l->in_n += (size_t)n;
    if (l->in_n < sizeof l->in) return LINK_NOTHING;
    memcpy(out, l->in, sizeof *out);
    l->in_n = 0;
    return LINK_RECORD;
}

/* ---- listening ----------------------------------------------------------------------------------------------------- */

static int listen_on(int family, int *port)
{
    struct sockaddr_storage any = {.ss_family = (sa_family_t)family}, bound;
    socklen_t size = sizeof bound;
    int no = 0, fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    size_t any_size = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (bind(fd, (const void *)&any, (socklen_t)any_size) || listen(fd, 4096) || getsockname(fd, (void *)&bound, &size)) {
        close(fd);
        return -1;
    }
    *port = ntohs(family == AF_INET6 ? ((const struct sockaddr_in6 *)&bound)->sin6_port : ((const struct sockaddr_in *)&bound)->sin_port);
    return fd;
}

static void raise_descriptors(int ranks)
{
    enum { OTHERS = 512 };
    struct rlimit limit;
    rlim_t need = (rlim_t)ranks + OTHERS;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= need) return;
    limit.rlim_cur = limit.rlim_max < need ? limit.rlim_max : need;
    setrlimit(RLIMIT_NOFILE, &limit);
}

void watch_hall_open(struct watch_hall *h, int ranks, struct watch_door *out)
{
    int port = 0;
    *h = (struct watch_hall){0};
    *out = (struct watch_door){0};
    for (int i = 0; i < WATCH_STRANGERS; i++) h->strangers[i].link.fd = -1;
    raise_descriptors(ranks);
    h->fd = listen_on(AF_INET6, &port); /* takes IPv4 too */
    if (h->fd < 0) h->fd = listen_on(AF_INET, &port);
    out->port = port;
    if (h->fd >= 0) add_interfaces(out);
}

void watch_hall_close(struct watch_hall *h)
{
    for (int i = 0; i < WATCH_STRANGERS; i++) watch_link_close(&h->strangers[i].link);
    if (h->fd >= 0) close(h->fd);
    h->fd = -1;
}

void watch_hall_poll(const struct watch_hall *h, struct pollfd *slots, double now)
{
    slots[0] = (struct pollfd){now >= h->again ? h->fd : -1, POLLIN, 0};
    for (int i = 0; i < WATCH_STRANGERS; i++) slots[1 + i] = (struct pollfd){h->strangers[i].link.fd, POLLIN, 0};
}

/* Where too many wait, the oldest goes. */
static void let_in(struct watch_hall *h, double now)
{
    int fd;
    while ((fd = accept4(h->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int place = 0;
        for (int i = 0; i < WATCH_STRANGERS && h->strangers[place].link.fd >= 0; i++)
            if (h->strangers[i].link.fd < 0 || h->strangers[i].since < h->strangers[place].since) place = i;
        watch_link_close(&h->strangers[place].link);
        watch_link_open(&h->strangers[place].link, fd);
        h->strangers[place].since = now;
    }
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) h->again = now + DOOR_AGAIN_S;
}

void watch_hall_step(struct watch_hall *h, const struct pollfd *slots, const struct watch_record *hello, double now,
                     void (*admit)(const struct watch_link *, const struct watch_record *, double now))
{
    struct watch_record r;
    for (int i = 0; i < WATCH_STRANGERS; i++) {
        struct watch_link *l = &h->strangers[i].link;
        enum watch_event event = slots[1 + i].revents ? watch_link_receive(l, &r) : LINK_NOTHING;
        bool known = event == LINK_RECORD && memcmp(r.nonce, hello->nonce, sizeof r.nonce) == 0;
        if (known && r.kind == RECORD_HELLO)
            watch_link_send(l, hello);
        else if (known) {
            admit(l, &r, now);
            l->fd = -1;
        } else if (event != LINK_NOTHING || now - h->strangers[i].since > NONCE_S)
            watch_link_close(l);
    }
    if (slots[0].revents) let_in(h, now);
}

/* ---- dialling ------------------------------------------------------------------------------------------------------ */

void watch_dial_open(struct watch_dial *d, const struct watch_door *door, int rank, double now)
{
    *d = (struct watch_dial){.link = {.fd = -1}, .door = *door, .rank = rank, .give_up = now + TRY_ALL_S};
    if (d->door.n == 0) d->state = DIAL_GIVEN_UP;
}

short watch_dial_events(const struct watch_dial *d) { return d->state == DIAL_CONNECTING ? POLLOUT : POLLIN; }

static bool begin(struct watch_dial *d, double now)
{
    const struct watch_door *door = &d->door;
    bool v6 = door->at[d->next].v6;
    uint16_t port = htons((uint16_t)door->port);
    struct sockaddr_in to4 = {.sin_family = AF_INET, .sin_port = port};
    struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = port};
    memcpy(&to4.sin_addr, door->at[d->next].bytes, sizeof to4.sin_addr);
    memcpy(&to6.sin6_addr, door->at[d->next].bytes, sizeof to6.sin6_addr);
    d->next = (d->next + 1) % door->n;
    d->until = now + TRY_ONE_S;
    d->state = DIAL_CONNECTING;
    watch_link_open(&d->link, socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (d->link.fd < 0) return false;
    int rc = connect(d->link.fd, v6 ? (const void *)&to6 : (const void *)&to4, v6 ? sizeof to6 : sizeof to4);
    return rc == 0 || errno == EINPROGRESS;
}

static bool greet(struct watch_dial *d, const struct watch_record *hello)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(d->link.fd, SOL_SOCKET, SO_ERROR, &error, &size) || error) return false;
    watch_link_send(&d->link, hello);
    d->state = DIAL_GREETED;
    return true;
}

/* Whoever answers without the nonce is another program that listens on this port of this address. */
static bool answered(struct watch_dial *d, const struct watch_record *hello)
{
    struct watch_record r;
    enum watch_event event = watch_link_receive(&d->link, &r);
    if (event == LINK_NOTHING) return true;
    if (event != LINK_RECORD || r.kind != RECORD_HELLO || r.rank != d->rank) return false;
    if (memcmp(r.nonce, hello->nonce, sizeof r.nonce)) return false;
    d->state = DIAL_MADE;
    return true;
}

static void next_address(struct watch_dial *d, double now)
{
    watch_link_close(&d->link);
    d->state = now > d->give_up ? DIAL_GIVEN_UP : DIAL_IDLE;
    d->until = d->next == 0 ? now + TRY_AGAIN_S : now;
}

bool watch_dial_step(struct watch_dial *d, short ready, const struct watch_record *hello, double now)
{
    if (d->state == DIAL_MADE || d->state == DIAL_GIVEN_UP) return false;
    bool good = true;
    if (d->state == DIAL_IDLE)
        good = now < d->until || begin(d, now);
    else if (!ready)
        good = now < d->until;
    else
        good = d->state == DIAL_CONNECTING ? greet(d, hello) : answered(d, hello);
    if (!good) next_address(d, now);
    return d->state == DIAL_MADE;
}
