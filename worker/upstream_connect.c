/* Making connections to upstreams: addresses in turn, TCP, TLS, and the health checks that consist of just this.
 *
 * Addresses come from shared memory, in the resolver's order, rotated by one with each connection so that load
 * spreads; one that failed lately is tried last. connect_timeout bounds the whole, TLS included; of several
 * addresses each gets an equal share of what is left (at least 300 ms), so that one that swallows packets does not
 * cost the whole time. When all have failed the master is asked to resolve again.
 *
 * A TLS handshake costs milliseconds of CPU, so handshakes of a turn stand in a queue that is served at the turn's
 * end: steps are begun for 1 ms, the rest waits for the next turn. A storm of new connections then delays the
 * running streams by one step a turn, not by all. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "worker/upstream_pool.h"

static uint64_t ms_to_ns(uint64_t ms) {
    return ms * 1000000u;
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static void unqueue(struct connecting *c) {
    if (!c->queued)
        return;
    struct upstreams *us = c->pool->worker->upstreams;
    c->queued = false;
    *c->queue_prev = c->queue_next;
    if (c->queue_next)
        c->queue_next->queue_prev = c->queue_prev;
    else
        us->handshakes_tail = c->queue_prev;
}

void connect_abandon(struct connecting *c) {
    struct pool *p = c->pool;
    struct upconn *u = c->u;
    unqueue(c);
    loop_timer_off(&p->worker->loop, &c->timer);
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    free(c);
    if (u)
        pool_close_conn(u);
}

static void log_failure(struct pool *p, const char *what, const char *why) {
    uint64_t now = p->worker->loop.now_ns;
    if (p->logged_ns && now - p->logged_ns < ms_to_ns(5000))
        return;
    p->logged_ns = now;
    worker_log(p->worker, LOG_WARN, "upstream %s: %s:%u: %s%s%s", p->name, p->host, p->port, what, why ? ": " : "",
               why ? why : "");
}

static void ask_resolve(struct pool *p) {
    uint64_t now = p->worker->loop.now_ns;
    if (p->fixed || (p->asked_resolve_ns && now - p->asked_resolve_ns < ms_to_ns(1000)))
        return;
    p->asked_resolve_ns = now;
    worker_resolve_now(p->worker, p->upstream_id);
}

/* The attempt is over without a connection. */
static void fail(struct connecting *c, enum up_error e, const char *why) {
    struct pool *p = c->pool;
    struct up_ticket *t = c->ticket;
    log_failure(p, up_error_text(e), why);
    if (e == UP_NO_ADDRESS || e == UP_REFUSED || e == UP_CONNECT_TIMEOUT)
        ask_resolve(p);
    if (e != UP_NO_MEMORY) /* that is our own fault */
        circuit_unreachable(p, e == UP_REFUSED, c->probe);
    p->tickets++; /* the pool must outlive the connection's end */
    if (t)
        pool_ticket_fail(t, e);
    connect_abandon(c);
    p->tickets--;
    pool_release(p);
}

/* ---- TLS --------------------------------------------------------------------------------------------------------- */

static void queue_handshake(struct connecting *c) {
    struct upstreams *us = c->pool->worker->upstreams;
    if (c->queued)
        return;
    c->queued = true;
    c->queue_next = NULL;
    c->queue_prev = us->handshakes_tail;
    *us->handshakes_tail = c;
    us->handshakes_tail = &c->queue_next;
    loop_post(&c->pool->worker->loop, &us->handshake_task);
}

static void done(struct connecting *c) {
    circuit_connected(c->pool, c->probe);
    pool_ready(c);
}

static void handshake_step(struct connecting *c) {
    struct pool *p = c->pool;
    bool resumed = false;
    int r = tls_handshake(c->u->io.tls, &resumed);
    if (r == 0 && !c->hung_up)
        return;
    if (r != 1 || c->hung_up) {
        fail(c, UP_TLS, r == IO_ERROR ? tls_error(c->u->io.tls) : "closed by the peer");
        return;
    }
    if (resumed)
        COUNT(p->worker->counters, tls_resumed, 1);
    else
        COUNT(p->worker->counters, tls_full_handshakes, 1);
    done(c);
}

static uint64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void connect_handshakes(struct task *task) {
    struct upstreams *us = CONTAINER_OF(task, struct upstreams, handshake_task);
    uint64_t start = clock_ns();
    do {
        struct connecting *c = us->handshakes;
        if (!c)
            return;
        unqueue(c);
        handshake_step(c);
    } while (clock_ns() - start < POOL_TLS_TURN_NS);
    if (us->handshakes)
        loop_post(&us->worker->loop, task);
}

static void start_tls(struct connecting *c) {
    struct pool *p = c->pool;
    if (!p->tls && !p->tls_broken) {
        done(c);
        return;
    }
    if (p->tls_broken) {
        fail(c, UP_TLS, "no usable CA bundle");
        return;
    }
    c->phase = CONNECT_TLS;
    c->u->io.tls = tls_connect(p->tls, c->u->io.fd, slice_str(p->host), p->hash);
    if (!c->u->io.tls) {
        fail(c, UP_NO_MEMORY, NULL);
        return;
    }
    loop_timer(&p->worker->loop, &c->timer, c->deadline_ns > p->worker->loop.now_ns ?
               /* from now on the whole time that is left */
               (c->deadline_ns - p->worker->loop.now_ns) / 1000000 + 1 : 0);
    queue_handshake(c);
}

/* ---- TCP --------------------------------------------------------------------------------------------------------- */

static socklen_t to_sockaddr(const struct shm_address *a, uint16_t port, struct sockaddr_storage *out) {
    memset(out, 0, sizeof *out);
    if (a->family == 4) {
        struct sockaddr_in *in = (struct sockaddr_in *)(void *)out;
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, a->bytes, 4);
        return sizeof *in;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)out;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    memcpy(&in6->sin6_addr, a->bytes, 16);
    return sizeof *in6;
}

/* 0: under way; else errno. */
static int open_socket(struct connecting *c, const struct shm_address *a) {
    struct upconn *u = c->u;
    struct sockaddr_storage to;
    socklen_t len = to_sockaddr(a, c->pool->port, &to);
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, receive = POOL_RECEIVE_BYTES;
    if (fd < 0)
        return errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof receive);
    if (connect(fd, (struct sockaddr *)&to, len) != 0 && errno != EINPROGRESS && errno != EINTR) {
        int e = errno;
        close(fd);
        return e;
    }
    u->io.fd = u->watch.fd = fd;
    int r = loop_watch(&c->pool->worker->loop, &u->watch, 0);
    if (r != 0) {
        close(fd);
        u->io.fd = u->watch.fd = -1;
    }
    return -r;
}

static void drop_socket(struct connecting *c) {
    loop_forget(&c->pool->worker->loop, &c->u->watch);
    io_close(&c->u->io);
    c->u->watch.fd = -1;
}

/* This address did not answer, refused, …: it is tried last for a while. */
static void address_bad(struct connecting *c, enum up_error e) {
    struct pool *p = c->pool;
    c->error = e;
    if (p->resolved_at_ns == c->addresses.resolved_at_ns)
        p->bad_until_ns[c->order[c->at]] = p->worker->loop.now_ns + ms_to_ns(POOL_BAD_ADDRESS_MS);
    c->at++;
}

/* Starts on the next address that the kernel does not refuse at once; fails when there is none or no time. */
static void try_next(struct connecting *c) {
    struct loop *l = &c->pool->worker->loop;
    c->phase = CONNECT_TCP;
    for (; c->at < c->count && l->now_ns < c->deadline_ns;) {
        int e = open_socket(c, &c->addresses.address[c->order[c->at]]);
        if (e == 0) {
            uint64_t left = (c->deadline_ns - l->now_ns) / 1000000, share = left / (c->count - c->at);
            if (share < POOL_ADDRESS_MIN_MS)
                share = POOL_ADDRESS_MIN_MS;
            loop_timer(l, &c->timer, (share < left ? share : left) + 1);
            return;
        }
        if (e == EMFILE || e == ENFILE || e == ENOBUFS || e == ENOMEM) {
            fail(c, UP_NO_MEMORY, strerror(e));
            return;
        }
        address_bad(c, UP_REFUSED);
    }
    fail(c, c->error ? c->error : UP_CONNECT_TIMEOUT, NULL);
}

static void tcp_event(struct connecting *c, uint32_t events) {
    int e = 0;
    socklen_t len = sizeof e;
    if (!(events & (EPOLLOUT | EPOLLHUP | EPOLLERR)))
        return;
    if (getsockopt(c->u->io.fd, SOL_SOCKET, SO_ERROR, &e, &len) != 0)
        e = errno;
    if (e != 0) {
        drop_socket(c);
        address_bad(c, e == ETIMEDOUT ? UP_CONNECT_TIMEOUT : UP_REFUSED);
        try_next(c);
        return;
    }
    c->pool->bad_until_ns[c->order[c->at]] = 0;
    COUNT(c->pool->worker->counters, upstream_connects, 1);
    start_tls(c);
}

static void connecting_event(struct watch *w, uint32_t events) {
    struct upconn *u = CONTAINER_OF(w, struct upconn, watch);
    struct connecting *c = u->owner;
    CHECK_MAGIC(u->pool, POOL_MAGIC);
    if (c->phase == CONNECT_TCP) {
        tcp_event(c, events);
    } else {
        if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
            c->hung_up = true;
        queue_handshake(c);
    }
}

/* ---- start ------------------------------------------------------------------------------------------------------- */

/* Rotated by one with each connection; those that failed lately behind the others. */
static void order_addresses(struct connecting *c) {
    struct pool *p = c->pool;
    uint32_t n = c->addresses.count, at = 0;
    if (p->resolved_at_ns != c->addresses.resolved_at_ns) {
        memset(p->bad_until_ns, 0, sizeof p->bad_until_ns);
        p->resolved_at_ns = c->addresses.resolved_at_ns;
    }
    uint32_t first = p->rotation++ % n;
    for (int bad = 0; bad <= 1; bad++)
        for (uint32_t i = 0; i < n; i++) {
            uint32_t k = (first + i) % n;
            if ((p->bad_until_ns[k] > p->worker->loop.now_ns) == bad)
                c->order[at++] = (uint8_t)k;
        }
    c->at = 0;
    c->count = n;
}

/* False: not yet, or none. */
static bool have_addresses(struct connecting *c) {
    struct pool *p = c->pool;
    if (p->fixed) {
        c->addresses.count = 1;
        c->addresses.address[0] = p->address;
    } else if (!shm_addresses_read(&p->worker->shm, p->upstream_id, &c->addresses)) {
        c->addresses.count = 0;
    }
    if (c->addresses.count == 0)
        return false;
    if (c->addresses.count > SHM_MAX_ADDRESSES)
        c->addresses.count = SHM_MAX_ADDRESSES;
    order_addresses(c);
    return true;
}

/* A name without addresses: at start-up the answer may be on its way. A name that was resolved to nothing fails at
 * once. */
static void try_name(struct connecting *c) {
    struct loop *l = &c->pool->worker->loop;
    if (have_addresses(c)) {
        try_next(c);
        return;
    }
    ask_resolve(c->pool);
    uint64_t begun_ns = c->deadline_ns - ms_to_ns(c->pool->connect_timeout_ms);
    bool late = l->now_ns >= c->deadline_ns || l->now_ns - begun_ns >= ms_to_ns(POOL_RESOLVE_WAIT_MS);
    if (c->addresses.resolved_at_ns || late) {
        fail(c, UP_NO_ADDRESS, NULL);
        return;
    }
    loop_timer(l, &c->timer, POOL_RESOLVE_POLL_MS);
}

static void connecting_timer(struct timer *t) {
    struct connecting *c = CONTAINER_OF(t, struct connecting, timer);
    CHECK_MAGIC(c->pool, POOL_MAGIC);
    if (c->phase == CONNECT_NAME) {
        try_name(c);
    } else if (c->phase == CONNECT_TCP) {
        drop_socket(c);
        address_bad(c, UP_CONNECT_TIMEOUT);
        try_next(c);
    } else {
        fail(c, UP_CONNECT_TIMEOUT, "in the TLS handshake");
    }
}

static struct upconn *conn_new(struct pool *p) {
    struct upstreams *us = p->worker->upstreams;
    struct upconn *u = us->spare;
    if (u) {
        us->spare = u->next;
        us->spare_count--;
        memset(u, 0, sizeof *u);
    } else {
        u = calloc(1, sizeof *u);
        if (!u)
            return NULL;
    }
    u->pool = p;
    u->io.fd = u->watch.fd = -1;
    buf_init(&u->in, &p->worker->pages, UPCONN_IN_MAX);
    return u;
}

bool connect_start(struct pool *p, struct up_ticket *t, bool probe) {
    struct connecting *c = calloc(1, sizeof *c);
    struct upconn *u = c ? conn_new(p) : NULL;
    if (!u) {
        free(c);
        return false;
    }
    p->open++;
    COUNT(p->worker->counters, upstream_open, 1);
    u->owner = c;
    u->watch.fn = connecting_event;
    c->u = u;
    c->pool = p;
    c->ticket = t;
    c->probe = probe;
    c->timer.fn = connecting_timer;
    c->deadline_ns = p->worker->loop.now_ns + ms_to_ns(p->connect_timeout_ms);
    c->next = p->connecting;
    c->prev = &p->connecting;
    if (c->next)
        c->next->prev = &c->next;
    p->connecting = c;
    if (t)
        t->connecting = c;
    try_name(c);
    return true;
}

/* ---- health checks ----------------------------------------------------------------------------------------------- */

/* In each worker; whoever moves probe_ns on makes the check. Not while there is traffic, and not of an upstream the
 * operator drained. */
void connect_probe_timer(struct timer *t) {
    struct pool *p = CONTAINER_OF(t, struct pool, probe_timer);
    CHECK_MAGIC(p, POOL_MAGIC);
    struct worker *w = p->worker;
    struct shm_upstream *s = &w->shm.upstreams[p->upstream_id];
    uint64_t now = w->loop.now_ns, every = ms_to_ns(p->probe_ms);
    uint64_t last = atomic_load_explicit(&s->last_success_ns, memory_order_relaxed);
    uint64_t failure = atomic_load_explicit(&s->last_failure_ns, memory_order_relaxed);
    uint64_t probe = atomic_load_explicit(&s->probe_ns, memory_order_relaxed);
    last = last > failure ? last : failure;
    last = last > probe ? last : probe;
    if (w->draining || p->retired)
        return;
    if (now < last + every) {
        loop_timer(&w->loop, t, (last + every - now) / 1000000 + 1);
        return;
    }
    loop_timer(&w->loop, t, p->probe_ms);
    if (!atomic_load_explicit(&s->drained, memory_order_relaxed) && p->open < p->max_connections &&
        atomic_compare_exchange_strong(&s->probe_ns, &probe, now))
        connect_start(p, NULL, true);
}
