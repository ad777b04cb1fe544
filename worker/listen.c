/* Accepting: all workers share each listener, and none takes more than its part.
 *
 * A listener is level-triggered and exclusive in each worker's epoll: the kernel wakes the first in its queue of
 * waiters. Left alone that is always the same one (measured: 1000 of 1000 trickled connections), so a worker takes
 * one connection, leaves the queue and joins at its end. On top of it stands a gate: a worker whose load (active
 * exchanges + connections / 16) is above the mean of the live ones by more than 1 stays out, and looks again after 2
 * ms (after 50 ms of staying out: every 20 ms), as long as some worker below the mean is awake or asleep in epoll; a
 * hung one does not count. At max_connections a worker stays out likewise while another has room; when all are full,
 * a connection that has said nothing for a second makes room (a crowd that only waits keeps nobody out); where there is
 * none, whoever comes is accepted and closed at once, and counted, so that clients see it instead of waiting in a queue
 * that nobody serves. The admin listener knows no gate and no limit,
 * and goes on while the server drains: who watches must not take a drain for a death.
 *
 * A listener that the current snapshot does not name (frames cross) is left alone until it does. Out of descriptors
 * or memory: nothing is accepted for 100 ms. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/conn.h"
#include "worker/listen.h"

enum {
    LISTENERS_MAX = IPC_MAX_FDS,
    CONNECTIONS_PER_ACTIVE = 16, /* load is counted in sixteenths of an exchange */
    SLACK = CONNECTIONS_PER_ACTIVE, /* 16 idle connections: a thousand spread over four workers within 20% */
    ALONE_BATCH = 16,            /* accepted in one turn when there is no other worker */
    RECHECK_MS = 2,
    RECHECK_LATER_MS = 20,
    RECHECK_SOON = 25,           /* times at RECHECK_MS */
    TROUBLE_MS = 100,
    HEALTHY_NS = 20000000
};

struct listener {
    struct watch watch;
    struct listeners *all;
    uint64_t id;
    bool armed;
};

struct listeners {
    struct worker *worker;
    struct listener *list[LISTENERS_MAX];
    unsigned count;
    struct timer recheck;
    unsigned rechecks;           /* in a row */
    uint64_t logged_ns;
    struct tls_server *tls;
    uint64_t tls_hash;
};

static const struct snap_listen *find_listen(const struct worker *w, uint64_t id) {
    const struct snap *s = w->snapshot ? w->snapshot->snap : NULL;
    for (uint32_t i = 0; s && i < s->listens.count; i++) {
        const struct snap_listen *l = SNAP_AT(s, s->listens, struct snap_listen, i);
        if (l->id == id)
            return l;
    }
    return NULL;
}

/* ---- the gate ---------------------------------------------------------------------------------------------------- */

enum gate { GATE_OPEN, GATE_ALONE /* no other live worker */, GATE_SHUT };

static bool range_counts(const struct shm_range *r) {
    return atomic_load_explicit(&r->state, memory_order_relaxed) == RANGE_LIVE &&
           !atomic_load_explicit(&r->retiring, memory_order_relaxed);
}

/* Asleep (an arriving connection wakes it) or turning. */
static bool range_healthy(const struct shm_range *r, uint64_t now_ns) {
    return atomic_load_explicit(&r->ack, memory_order_relaxed) == RANGE_IDLE ||
           now_ns < atomic_load_explicit(&r->turn_ns, memory_order_relaxed) + HEALTHY_NS;
}

static uint64_t range_load(const struct shm_range *r) {
    return (uint64_t)atomic_load_explicit(&r->active, memory_order_relaxed) * CONNECTIONS_PER_ACTIVE +
           atomic_load_explicit(&r->connections, memory_order_relaxed);
}

static enum gate gate(const struct worker *w) {
    const struct shm_range *ranges = w->shm.ranges, *own = &ranges[w->heritage.range];
    uint64_t n = 0, sum = 0, max = worker_snap(w)->max_connections;
    for (uint32_t i = 0; i < w->shm.header->max_ranges; i++)
        if (&ranges[i] == own || range_counts(&ranges[i])) {
            n++;
            sum += range_load(&ranges[i]);
        }
    if (n == 1)
        return GATE_ALONE;
    bool full = w->conn_count >= max, heavy = range_load(own) * n > sum + SLACK * n;
    if (!full && !heavy)
        return GATE_OPEN;
    for (uint32_t i = 0; i < w->shm.header->max_ranges; i++) {
        const struct shm_range *r = &ranges[i];
        if (r == own || !range_counts(r) || !range_healthy(r, w->loop.now_ns))
            continue;
        bool room = atomic_load_explicit(&r->connections, memory_order_relaxed) < max;
        if (room && (full || range_load(r) * n <= sum))
            return GATE_SHUT; /* this one takes them */
    }
    return GATE_OPEN;
}

/* ---- in and out of epoll ----------------------------------------------------------------------------------------- */

static void disarm(struct listener *l) {
    if (l->armed)
        loop_unwatch(&l->all->worker->loop, &l->watch);
    l->armed = false;
}

static void arm(struct listener *l) {
    if (!l->armed)
        l->armed = loop_watch(&l->all->worker->loop, &l->watch, EPOLLIN | EPOLLEXCLUSIVE) == 0;
    if (!l->armed)
        loop_timer(&l->all->worker->loop, &l->all->recheck, TROUBLE_MS);
}

static void stay_out(struct listeners *ls) {
    if (ls->recheck.deadline_ns)
        return;
    uint64_t ms = ls->rechecks++ < RECHECK_SOON ? RECHECK_MS : RECHECK_LATER_MS;
    loop_timer(&ls->worker->loop, &ls->recheck, ms);
}

/* Joins where this worker should listen. */
static void join(struct listeners *ls) {
    if (ls->count == 0)
        return;
    enum gate g = gate(ls->worker);
    if (g != GATE_SHUT)
        ls->rechecks = 0;
    for (unsigned i = 0; i < ls->count; i++) {
        struct listener *l = ls->list[i];
        const struct snap_listen *s = find_listen(ls->worker, l->id);
        if (!s)
            disarm(l); /* listeners_snapshot or listeners_set brings it back */
        else if (s->admin || g != GATE_SHUT)
            arm(l);
        else if (!l->armed)
            stay_out(ls);
    }
}

static void recheck(struct timer *t) {
    join(CONTAINER_OF(t, struct listeners, recheck));
}

/* ---- accepting --------------------------------------------------------------------------------------------------- */

static void refuse(struct worker *w, int fd) {
    struct linger reset = { .l_onoff = 1, .l_linger = 0 };
    COUNT(w->counters, connections_refused, 1);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset); /* no TIME_WAIT for those we did not serve */
    close(fd);
}

static void trouble(struct listener *l, int error) {
    struct listeners *ls = l->all;
    struct worker *w = ls->worker;
    disarm(l);
    loop_timer(&w->loop, &ls->recheck, TROUBLE_MS);
    if (ls->logged_ns && w->loop.now_ns - ls->logged_ns < 5000000000ull)
        return;
    ls->logged_ns = w->loop.now_ns;
    worker_log(w, LOG_ERROR, "connections cannot be accepted: %s", strerror(error));
}

/* 1: one was taken; 0: none there. */
static int accept_one(struct listener *l, const struct snap_listen *s) {
    struct worker *w = l->all->worker;
    struct sockaddr_storage from = { 0 };
    socklen_t len = sizeof from;
    int fd = accept4(l->watch.fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM || errno == EINVAL)
            trouble(l, errno);
        return errno == ECONNABORTED || errno == EINTR; /* else: another worker had it, or it went away */
    }
    if (len < sizeof from.ss_family)
        from.ss_family = AF_UNIX; /* an unnamed peer */
    if (!s->admin && w->conn_count >= worker_snap(w)->max_connections && !conn_make_room(w))
        refuse(w, fd);
    else
        conn_accept(w, fd, s, &from);
    return 1;
}

static void listener_event(struct watch *watch, uint32_t events) {
    struct listener *l = CONTAINER_OF(watch, struct listener, watch);
    struct listeners *ls = l->all;
    (void)events;
    const struct snap_listen *s = find_listen(ls->worker, l->id);
    if (!s) {
        disarm(l);
        return;
    }
    enum gate g = gate(ls->worker);
    if (g == GATE_ALONE) {
        for (int i = 0; i < ALONE_BATCH && l->armed && accept_one(l, s) == 1; i++) {
        }
        return;
    }
    if (accept_one(l, s) == 0)
        return; /* still in its place in the queue */
    disarm(l);
    join(ls);
}

/* ---- the set ----------------------------------------------------------------------------------------------------- */

void listeners_init(struct worker *w) {
    struct listeners *ls = calloc(1, sizeof *ls);
    CHECK(ls);
    ls->worker = w;
    ls->recheck.fn = recheck;
    w->listeners = ls;
}

static void listener_free(struct listener *l) {
    disarm(l);
    close(l->watch.fd);
    free(l);
}

static bool same_socket(int a, int b) {
    struct stat x, y;
    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The one with that id out of the old set, if it is the same socket still. */
static struct listener *take_old(struct listeners *ls, uint64_t id, int fd) {
    for (unsigned i = 0; i < ls->count; i++) {
        struct listener *l = ls->list[i];
        if (l && l->id == id && same_socket(l->watch.fd, fd)) {
            ls->list[i] = NULL;
            return l;
        }
    }
    return NULL;
}

static struct listener *listener_new(struct listeners *ls, uint64_t id, int fd) {
    struct listener *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    *l = (struct listener){ .watch = { .fn = listener_event, .fd = fd }, .all = ls, .id = id };
    return l;
}

void listeners_set(struct worker *w, const uint64_t *ids, const int *fds, unsigned n) {
    struct listeners *ls = w->listeners;
    struct listener *now[LISTENERS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t id;
        memcpy(&id, (const char *)ids + i * sizeof id, sizeof id);
        struct listener *l = count < LISTENERS_MAX && !w->draining ? take_old(ls, id, fds[i]) : NULL;
        if (l)
            close(fds[i]);
        else if (count < LISTENERS_MAX && !w->draining)
            l = listener_new(ls, id, fds[i]);
        if (l)
            now[count++] = l;
        else
            close(fds[i]);
    }
    for (unsigned i = 0; i < ls->count; i++)
        if (ls->list[i])
            listener_free(ls->list[i]);
    memcpy(ls->list, now, count * sizeof now[0]);
    ls->count = count;
    if (w->snapshot)
        join(ls);
}

void listeners_drain(struct worker *w) {
    struct listeners *ls = w->listeners;
    unsigned kept = 0;
    for (unsigned i = 0; i < ls->count; i++) {
        const struct snap_listen *s = find_listen(w, ls->list[i]->id);
        if (s && s->admin && atomic_load_explicit(&w->shm.header->draining, memory_order_relaxed))
            ls->list[kept++] = ls->list[i];
        else
            listener_free(ls->list[i]);
    }
    ls->count = kept;
    join(ls);
}

void listeners_close(struct worker *w) {
    struct listeners *ls = w->listeners;
    for (unsigned i = 0; i < ls->count; i++)
        listener_free(ls->list[i]);
    ls->count = 0;
    loop_timer_off(&w->loop, &ls->recheck);
}

/* ---- the certificate --------------------------------------------------------------------------------------------- */

struct tls_server *listeners_tls(struct worker *w) {
    return w->listeners->tls;
}

static void renew_certificate(struct listeners *ls, const struct snap *s) {
    struct slice cert = snap_text(s, s->certificate_pem), key = snap_text(s, s->certificate_key_pem);
    uint64_t hash = hash64(key.ptr, key.len, hash64(cert.ptr, cert.len, 1));
    char err[200];
    if (cert.len == 0 || (ls->tls && hash == ls->tls_hash))
        return;
    struct tls_server *fresh = tls_server_new(cert, key, err, sizeof err);
    if (!fresh) {
        const char *then = ls->tls ? "; the old certificate stays in use" : "";
        worker_log(ls->worker, LOG_ERROR, "listen … tls: %s%s", err, then);
        return;
    }
    tls_server_free(ls->tls);
    ls->tls = fresh;
    ls->tls_hash = hash;
}

void listeners_snapshot(struct worker *w) {
    renew_certificate(w->listeners, worker_snap(w));
    join(w->listeners);
}

void listeners_free(struct worker *w) {
    listeners_close(w);
    tls_server_free(w->listeners->tls);
    free(w->listeners);
    w->listeners = NULL;
}
