/* Connections to upstreams: a pool a worker for each upstream, connecting, TLS, keep-alive, circuit state and keys.
 * It knows nothing of requests: it hands out a connection that can carry one, and takes it back. */
#ifndef TG_UPSTREAM_H
#define TG_UPSTREAM_H

#include "proto/base/arena.h"
#include "shm/snapshot.h"
#include "worker/io.h"
#include "worker/loop.h"

struct worker;

struct upconn {
    struct watch watch;
    struct io io;
    struct buf in;             /* what was read and not yet consumed; released when idle */
    struct pool *pool;
    /* the exchange that uses it; set by upstream_get's caller through the ticket, cleared by upstream_put */
    void *owner;
    void (*on_event)(struct upconn *u, uint32_t events);
    /* carried a request before: a failure before the first byte may be retried on a fresh one */
    bool reused;
    uint32_t requests;
    bool idle, dead;           /* upstream.c's own */
    uint64_t idle_since_ns;
    struct upconn *next, **prev;
};
enum { UPCONN_IN_MAX = 1 << 20 }; /* ceiling of `in`; whoever uses the connection may set in.max to another */

enum up_error {
    UP_OK,
    UP_NO_ADDRESS,
    UP_REFUSED,
    UP_CONNECT_TIMEOUT, /* the handshake of TLS counts into it */
    UP_TLS,             /* why stands in the error log */
    UP_BUSY,            /* max_connections, and the queue is full: no failure of the upstream, do not report it */
    UP_NO_MEMORY        /* likewise */
};
const char *up_error_text(enum up_error e);

/* One wish for a connection; embedded in the exchange. */
struct up_ticket {
    /* u NULL: e says why. Called at most once, never from within upstream_get, upstream_put or upstream_cancel. */
    void (*on_ready)(struct up_ticket *t, struct upconn *u, enum up_error e);
    struct worker *worker;
    struct pool *pool;
    struct up_ticket *next, **prev;
    struct connecting *connecting;
    struct upconn *ready;      /* to be handed over at the end of this turn */
    enum up_error error;       /* likewise */
    bool waiting, posted, fresh;
};

/* An idle connection at once (returned, in use from now on), or NULL: on_ready will be called. fresh: never an idle
 * one. The caller sets t->on_ready; the rest of the ticket is set here. Whoever gets a connection sets its owner and
 * on_event before it returns to the loop. Not for the dialect echo, which has no connections. */
struct upconn *upstream_get(struct worker *w, const struct snap *snap, const struct snap_upstream *up,
                            struct up_ticket *t, bool fresh);
/* A wish withdrawn; a ticket that has been answered (or never went to upstream_get, all zero) is left alone. A
 * connection that is being made for it is finished and goes to another or to the pool. */
void upstream_cancel(struct up_ticket *t);
/* Done with it: back to the pool (reusable: the answer was read to its end and both sides keep alive) or closed.
 * Bytes left in `in` of a reusable one are a protocol fault: it is closed then. */
void upstream_put(struct upconn *u, bool reusable);

/* Circuit and keys (shared by all workers through shm). */
/* Whether a request may go there now (not drained, circuit closed, or this caller wins the half-open probe: one a
 * window of connect_timeout + 5 s over all workers, so ask only for an upstream that will be tried then). Echo:
 * unless drained, always. */
bool upstream_usable(struct worker *w, const struct snap_upstream *up);
/* The next provider key that is not cooling down (they rotate); -1: all are cooling; *until_ns then says when the
 * first is back, 0: it has no keys at all (nothing is to be sent then). until_ns may be NULL. */
int upstream_pick_key(struct worker *w, const struct snap_upstream *up, uint32_t *rotation, uint64_t *until_ns);
void upstream_cool_key(struct worker *w, const struct snap_upstream *up, int key, uint64_t for_ms);
/* How an attempt ended, in terms of the upstream's health: a whole answer that was understood is a success; no
 * connection (but see UP_BUSY), no first byte in time, a cut answer, a 5xx are failures. first_byte_us 0: unknown.
 * Five failures in a row open the circuit for `cooldown` (a refused connection counts twice). A success closes it. */
void upstream_report(struct worker *w, const struct snap_upstream *up, bool success, uint64_t first_byte_us);
/* A stream has begun: closes a circuit too, but forgets no failure. */
void upstream_begun(struct worker *w, const struct snap_upstream *up, uint64_t first_byte_us);

void upstream_init(struct worker *w);
/* a new one came: pools of vanished or changed upstreams are let go */
void upstream_snapshot(struct worker *w, const struct snap *snap);
void upstream_close_idle(struct worker *w);
/* For the worker's end: everything but connections in use, which their owners put back first. */
void upstream_close_all(struct worker *w);

/* entry.c: asks the master to resolve the upstream's name again (IPC_RESOLVE_NOW). At most once a second an upstream
 * from here. */
void worker_resolve_now(struct worker *w, uint32_t upstream_id);

#endif
