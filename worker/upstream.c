/* The pools of upstream connections: who gets one, who waits, what is kept.
 *
 * A pool belongs to one upstream as one configuration has it. Its key is the upstream's id and a hash of what
 * matters for a connection (host, port, TLS, CA, version limit): a reload that leaves these alone keeps the
 * connections; else the old pool retires and goes with its last user.
 *
 * Idle connections stay watched. An end or a byte that comes while one is idle closes it, so that a request is not
 * written into a connection that is known to be dead; what cannot be known (the peer closes in this very moment)
 * `reused` tells the caller, who may try again. The newest idle one is used first. None is kept for longer than 55
 * s: load balancers close at 60, servers at 75.
 *
 * An answer to a ticket never comes from within the caller's own call: what is known at once is posted to the end of
 * the turn. Taking an idle connection and putting it back makes no system call. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/upstream_pool.h"

const char *up_error_text(enum up_error e) {
    static const char *const text[] = {
        [UP_OK] = "ok", [UP_NO_ADDRESS] = "name not resolved", [UP_REFUSED] = "connection refused",
        [UP_CONNECT_TIMEOUT] = "connecting took too long", [UP_TLS] = "TLS handshake failed",
        [UP_BUSY] = "all connections are in use", [UP_NO_MEMORY] = "out of memory",
    };
    return (unsigned)e < ARRAY_LEN(text) ? text[e] : "?";
}

/* ---- one connection ---------------------------------------------------------------------------------------------- */

static void idle_unlink(struct upconn *u) {
    struct pool *p = u->pool;
    if (p->idle_oldest == u)
        p->idle_oldest = u->prev == &p->idle ? NULL : CONTAINER_OF(u->prev, struct upconn, next);
    *u->prev = u->next;
    if (u->next)
        u->next->prev = u->prev;
    u->next = NULL;
    u->prev = NULL;
    u->idle = false;
    p->idle_count--;
    COUNT(p->worker->counters, upstream_idle, -1);
}

static void serve_waiting(struct pool *p);

void pool_close_conn(struct upconn *u) {
    struct pool *p = u->pool;
    struct upstreams *us = p->worker->upstreams;
    if (u->idle)
        idle_unlink(u);
    loop_forget(&p->worker->loop, &u->watch);
    COUNT(p->worker->counters, upstream_open, -1);
    io_close(&u->io);
    buf_release(&u->in);
    CHECK(p->open > 0);
    p->open--;
    if (us->spare_count < POOL_SPARE_CONNS) {
        u->next = us->spare;
        us->spare = u;
        us->spare_count++;
    } else {
        free(u);
    }
    serve_waiting(p);
    pool_release(p);
}

/* An event of a connection that carries a request, or lies idle, or is about to be handed over. */
static void conn_event(struct watch *w, uint32_t events) {
    struct upconn *u = CONTAINER_OF(w, struct upconn, watch);
    CHECK_MAGIC(u->pool, POOL_MAGIC);
    if (u->on_event) {
        u->on_event(u, events);
        return;
    }
    if (!(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        return;
    /* The event may be older than the last read; and TLS may have had something to say that is no data (a session
     * ticket). */
    char byte;
    if (!(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && io_read(&u->io, &byte, 1) == IO_AGAIN)
        return;
    if (u->idle)
        pool_close_conn(u);
    else
        u->dead = true; /* promised to a ticket: it gets another one (post_answers) */
}

static void make_idle(struct upconn *u) {
    struct pool *p = u->pool;
    u->watch.fn = conn_event;
    u->owner = NULL;
    u->on_event = NULL;
    if (p->retired || p->worker->draining || p->keepalive == 0) {
        pool_close_conn(u);
        return;
    }
    if (p->idle_count >= p->keepalive)
        pool_close_conn(p->idle_oldest);
    u->idle = true;
    u->idle_since_ns = p->worker->loop.now_ns;
    u->next = p->idle;
    u->prev = &p->idle;
    if (u->next)
        u->next->prev = &u->next;
    else
        p->idle_oldest = u;
    p->idle = u;
    p->idle_count++;
    COUNT(p->worker->counters, upstream_idle, 1);
    if (!p->idle_timer.deadline_ns)
        loop_timer(&p->worker->loop, &p->idle_timer, POOL_IDLE_MAX_MS);
}

static void idle_timer(struct timer *t) {
    struct pool *p = CONTAINER_OF(t, struct pool, idle_timer);
    CHECK_MAGIC(p, POOL_MAGIC);
    struct loop *l = &p->worker->loop;
    const uint64_t max_ns = POOL_IDLE_MAX_MS * 1000000ull;
    while (p->idle_oldest && l->now_ns - p->idle_oldest->idle_since_ns >= max_ns) {
        bool last = p->idle_oldest == p->idle;
        pool_close_conn(p->idle_oldest);
        if (last)
            return; /* the pool may be gone */
    }
    if (p->idle_oldest)
        loop_timer(l, t, (p->idle_oldest->idle_since_ns + max_ns - l->now_ns) / 1000000 + 1);
}

/* ---- tickets ----------------------------------------------------------------------------------------------------- */

static void ticket_link(struct up_ticket ***tail, struct up_ticket *t) {
    t->next = NULL;
    t->prev = *tail;
    **tail = t;
    *tail = &t->next;
}

static void ticket_unlink(struct up_ticket ***tail, struct up_ticket *t) {
    *t->prev = t->next;
    if (t->next)
        t->next->prev = t->prev;
    else
        *tail = t->prev;
    t->next = NULL;
    t->prev = NULL;
}

static void ticket_wait(struct up_ticket *t) {
    t->waiting = true;
    t->pool->waiting_count++;
    ticket_link(&t->pool->waiting_tail, t);
}

static void ticket_unwait(struct up_ticket *t) {
    t->waiting = false;
    t->pool->waiting_count--;
    ticket_unlink(&t->pool->waiting_tail, t);
}

static void ticket_post(struct up_ticket *t) {
    struct upstreams *us = t->worker->upstreams;
    t->posted = true;
    ticket_link(&us->posted_tail, t);
    loop_post(&t->worker->loop, &us->posted_task);
}

void pool_ticket_fail(struct up_ticket *t, enum up_error e) {
    if (t->connecting) {
        t->connecting->ticket = NULL;
        t->connecting = NULL;
    }
    t->error = e;
    ticket_post(t);
}

/* The ticket is done with the pool; its memory may go in on_ready. */
static void ticket_answer(struct up_ticket *t, struct upconn *u, enum up_error e) {
    struct pool *p = t->pool;
    t->pool = NULL;
    t->connecting = NULL;
    t->ready = NULL;
    if (u) {
        u->watch.fn = conn_event;
        u->requests++;
        if (u->reused)
            COUNT(p->worker->counters, upstream_reuses, 1);
    }
    t->on_ready(t, u, e);
    if (p) {
        p->tickets--; /* only now: on_ready may close the pool's last connection */
        pool_release(p);
    }
}

static void begin(struct pool *p, struct up_ticket *t) {
    if (!connect_start(p, t, false))
        pool_ticket_fail(t, UP_NO_MEMORY);
}

static void post_answers(struct task *task) {
    struct upstreams *us = CONTAINER_OF(task, struct upstreams, posted_task);
    while (us->posted) {
        struct up_ticket *t = us->posted;
        ticket_unlink(&us->posted_tail, t);
        t->posted = false;
        struct upconn *u = t->ready;
        if (u && u->dead) { /* it died between promise and delivery */
            t->ready = NULL;
            ticket_wait(t);
            pool_close_conn(u); /* serves who waits */
            continue;
        }
        ticket_answer(t, u, u ? UP_OK : t->error);
    }
}

/* Places became free: connections for those who wait. */
static void serve_waiting(struct pool *p) {
    if (p->serving)
        return; /* from within begin, when an attempt failed at once: the loop below goes on */
    p->serving = true;
    while (p->waiting && p->open < p->max_connections) {
        struct up_ticket *t = p->waiting;
        ticket_unwait(t);
        begin(p, t);
    }
    p->serving = false;
}

void pool_ready(struct connecting *c) {
    struct upconn *u = c->u;
    struct pool *p = c->pool;
    struct up_ticket *t = c->ticket;
    if (t) {
        t->connecting = NULL;
    } else if (p->waiting) {
        t = p->waiting;
        ticket_unwait(t);
    }
    bool spare = c->probe && p->idle; /* a health check's is kept only where none lies ready */
    c->u = NULL;
    connect_abandon(c);
    if (t)
        ticket_answer(t, u, UP_OK);
    else if (spare)
        pool_close_conn(u);
    else
        make_idle(u);
}

static struct pool *pool_for(struct worker *w, const struct snap *snap, const struct snap_upstream *up);

struct upconn *upstream_get(struct worker *w, const struct snap *snap, const struct snap_upstream *up,
                            struct up_ticket *t, bool fresh) {
    struct pool *p = pool_for(w, snap, up);
    if (p && !fresh && p->idle) {
        struct upconn *u = p->idle;
        idle_unlink(u);
        u->reused = true;
        u->requests++;
        COUNT(w->counters, upstream_reuses, 1);
        return u;
    }
    CHECK(t->on_ready);
    t->worker = w;
    t->pool = p;
    t->connecting = NULL;
    t->ready = NULL;
    t->error = UP_OK;
    t->waiting = t->posted = false;
    t->fresh = fresh;
    if (!p) {
        pool_ticket_fail(t, UP_NO_MEMORY);
        return NULL;
    }
    p->tickets++;
    if (p->open >= p->max_connections && p->idle_oldest)
        pool_close_conn(p->idle_oldest); /* fresh, and the place is taken by an idle one */
    if (p->open < p->max_connections) {
        begin(p, t);
    } else if (p->waiting_count < POOL_WAITING_MAX) {
        ticket_wait(t);
    } else {
        pool_ticket_fail(t, UP_BUSY);
    }
    return NULL;
}

void upstream_cancel(struct up_ticket *t) {
    struct pool *p = t->pool;
    if (t->waiting)
        ticket_unwait(t);
    if (t->posted) {
        t->posted = false;
        ticket_unlink(&t->worker->upstreams->posted_tail, t);
    }
    if (t->connecting) {
        t->connecting->ticket = NULL;
        t->connecting = NULL;
    }
    struct upconn *u = t->ready;
    t->ready = NULL;
    t->pool = NULL;
    if (!p)
        return;
    p->tickets--;
    if (u)
        upstream_put(u, !u->dead);
    else
        pool_release(p);
}

void upstream_put(struct upconn *u, bool reusable) {
    struct pool *p = u->pool;
    CHECK_MAGIC(p, POOL_MAGIC);
    CHECK(!u->idle);
    u->owner = NULL;
    u->on_event = NULL;
    if (!reusable || u->in.len || io_more(&u->io) || io_unsent(&u->io) || p->retired || p->worker->draining) {
        pool_close_conn(u);
        return;
    }
    buf_release(&u->in);
    u->in.max = UPCONN_IN_MAX;
    struct up_ticket *t = p->waiting;
    if (t && t->fresh) { /* its place is what the first one needs */
        pool_close_conn(u);
    } else if (t) {
        ticket_unwait(t);
        u->reused = true;
        t->ready = u;
        ticket_post(t);
    } else {
        make_idle(u);
    }
}

/* ---- pools ------------------------------------------------------------------------------------------------------- */

static uint64_t connection_hash(const struct snap *snap, const struct snap_upstream *up) {
    struct slice host = snap_text(snap, up->host);
    const struct snap_ca *ca =
        up->tls && up->ca < snap->cas.count ? SNAP_AT(snap, snap->cas, struct snap_ca, up->ca) : NULL;
    uint64_t words[] = { up->port, up->tls, up->tls ? up->tls_max : 0, up->host_is_address, ca ? ca->hash : 0 };
    return hash64(words, sizeof words, hash64(host.ptr, host.len, 1));
}

static bool parse_address(const char *host, struct shm_address *out) {
    *out = (struct shm_address){ 0 };
    if (inet_pton(AF_INET, host, out->bytes) == 1)
        out->family = 4;
    else if (inet_pton(AF_INET6, host, out->bytes) == 1)
        out->family = 6;
    return out->family != 0;
}

/* What may change without another connection. */
static void pool_tune(struct pool *p, const struct snap *snap, const struct snap_upstream *up) {
    struct slice name = snap_text(snap, up->name);
    snprintf(p->name, sizeof p->name, "%.*s", SLICE_ARG(name));
    p->connect_timeout_ms = up->connect_timeout_ms ? up->connect_timeout_ms : 1;
    p->max_connections = up->max_connections ? up->max_connections : 1;
    p->keepalive = up->keepalive;
    p->cooldown_ms = up->cooldown_ms;
    p->probe_ms = up->probe_ms;
    p->retired = false;
    struct loop *l = &p->worker->loop;
    if (p->probe_ms && !p->probe_timer.deadline_ns)
        loop_timer(l, &p->probe_timer, p->probe_ms);
    else if (!p->probe_ms)
        loop_timer_off(l, &p->probe_timer);
}

static void pool_tls(struct pool *p, const struct snap *snap, const struct snap_upstream *up) {
    char err[200] = "no CA bundle";
    if (up->ca < snap->cas.count) {
        const struct snap_ca *ca = SNAP_AT(snap, snap->cas, struct snap_ca, up->ca);
        p->tls = tls_client_new(snap_text(snap, ca->pem), up->tls_max, err, sizeof err);
    }
    p->tls_broken = !p->tls;
    if (p->tls_broken)
        worker_log(p->worker, LOG_ERROR, "upstream %s: %s", p->name, err);
}

static struct pool *pool_new(struct worker *w, const struct snap *snap, const struct snap_upstream *up, uint64_t hash) {
    struct slice host = snap_text(snap, up->host);
    struct pool *p = calloc(1, sizeof *p);
    if (!p || host.len >= sizeof p->host) {
        free(p);
        return NULL;
    }
    p->magic = POOL_MAGIC;
    p->upstream_id = up->id;
    p->hash = hash;
    p->worker = w;
    memcpy(p->host, host.ptr, host.len);
    p->port = (uint16_t)up->port;
    p->waiting_tail = &p->waiting;
    p->idle_timer.fn = idle_timer;
    p->probe_timer.fn = connect_probe_timer;
    p->fixed = up->host_is_address && parse_address(p->host, &p->address);
    pool_tune(p, snap, up);
    if (up->tls)
        pool_tls(p, snap, up);
    p->next = w->upstreams->pools;
    w->upstreams->pools = p;
    return p;
}

void pool_release(struct pool *p) {
    if (!p->retired || p->open || p->tickets || p->connecting)
        return;
    struct upstreams *us = p->worker->upstreams;
    for (struct pool **q = &us->pools; *q; q = &(*q)->next)
        if (*q == p) {
            *q = p->next;
            break;
        }
    loop_timer_off(&p->worker->loop, &p->idle_timer);
    loop_timer_off(&p->worker->loop, &p->probe_timer);
    tls_client_free(p->tls);
    p->magic = 0;
    free(p);
}

static struct pool *pool_find(struct upstreams *us, uint32_t id, uint64_t hash) {
    for (struct pool *p = us->pools; p; p = p->next)
        if (p->upstream_id == id && p->hash == hash)
            return p;
    return NULL;
}

/* The current snapshot's by index; an older one's, which an exchange still holds, by its hash. NULL: no memory. */
static struct pool *pool_for(struct worker *w, const struct snap *snap, const struct snap_upstream *up) {
    struct upstreams *us = w->upstreams;
    size_t index = (size_t)(up - SNAP_AT(snap, snap->upstreams, struct snap_upstream, 0));
    bool current = snap == us->snap && snap->generation == us->generation && index < SHM_MAX_UPSTREAMS;
    if (current && us->by_index[index])
        return us->by_index[index];
    uint64_t hash = connection_hash(snap, up);
    struct pool *p = pool_find(us, up->id, hash);
    if (!p) {
        p = pool_new(w, snap, up, hash);
        if (p && !current)
            p->retired = true; /* goes with its last connection */
    }
    if (p && current)
        us->by_index[index] = p;
    return p;
}

static void close_idle(struct pool *p) {
    while (p->idle_oldest) {
        bool last = p->idle_oldest == p->idle;
        pool_close_conn(p->idle_oldest);
        if (last)
            return; /* the pool may be gone */
    }
}

static void retire(struct pool *p) {
    p->retired = true;
    loop_timer_off(&p->worker->loop, &p->probe_timer);
    if (p->idle)
        close_idle(p);
    else
        pool_release(p);
}

void upstream_init(struct worker *w) {
    struct upstreams *us = calloc(1, sizeof *us);
    CHECK(us);
    us->worker = w;
    us->posted_tail = &us->posted;
    us->posted_task.fn = post_answers;
    us->handshakes_tail = &us->handshakes;
    us->handshake_task.fn = connect_handshakes;
    w->upstreams = us;
}

void upstream_snapshot(struct worker *w, const struct snap *snap) {
    struct upstreams *us = w->upstreams;
    struct pool *now[SHM_MAX_UPSTREAMS] = { NULL };
    uint32_t n = snap->upstreams.count < SHM_MAX_UPSTREAMS ? snap->upstreams.count : SHM_MAX_UPSTREAMS;
    for (uint32_t i = 0; i < n; i++) {
        const struct snap_upstream *up = SNAP_AT(snap, snap->upstreams, struct snap_upstream, i);
        if (up->dialect == DIALECT_ECHO)
            continue;
        uint64_t hash = connection_hash(snap, up);
        now[i] = pool_find(us, up->id, hash);
        if (now[i])
            pool_tune(now[i], snap, up);
        else
            now[i] = pool_new(w, snap, up, hash);
    }
    for (struct pool *p = us->pools, *next; p; p = next) {
        next = p->next;
        bool kept = false;
        for (uint32_t i = 0; i < n && !kept; i++)
            kept = now[i] == p;
        if (!kept && !p->retired)
            retire(p);
    }
    memcpy(us->by_index, now, sizeof now);
    us->snap = snap;
    us->generation = snap->generation;
    for (uint32_t i = 0; i < n; i++)
        if (now[i])
            serve_waiting(now[i]); /* max_connections may have grown */
}

void upstream_close_idle(struct worker *w) {
    for (struct pool *p = w->upstreams->pools, *next; p; p = next) {
        next = p->next;
        close_idle(p);
    }
}

void upstream_close_all(struct worker *w) {
    struct upstreams *us = w->upstreams;
    memset(us->by_index, 0, sizeof us->by_index);
    us->snap = NULL;
    for (struct pool *p = us->pools, *next; p; p = next) {
        next = p->next;
        p->tickets++; /* it must not go while it is taken apart */
        p->retired = true;
        while (p->connecting)
            connect_abandon(p->connecting);
        close_idle(p);
        p->tickets--;
        pool_release(p);
    }
    if (us->pools)
        return; /* connections in use or wishes not withdrawn: the end of the process takes them */
    loop_unpost(&w->loop, &us->posted_task);
    loop_unpost(&w->loop, &us->handshake_task);
    for (struct upconn *u = us->spare, *next; u; u = next) {
        next = u->next;
        free(u);
    }
    free(us);
    w->upstreams = NULL;
}
