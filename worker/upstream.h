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
    bool reused;               /* carried a request before: a failure before the first byte may be retried on a fresh one */
    uint32_t requests;
    uint64_t idle_since_ns;
    struct upconn *next, **prev;
};

enum up_error {
    UP_OK, UP_NO_ADDRESS, UP_REFUSED, UP_CONNECT_TIMEOUT, UP_TLS, UP_BUSY /* max_connections and the queue full */, UP_NO_MEMORY
};
const char *up_error_text(enum up_error e);

/* One wish for a connection; embedded in the exchange. */
struct up_ticket {
    void (*on_ready)(struct up_ticket *t, struct upconn *u, enum up_error e); /* u NULL: e says why; called at most once, never from within upstream_get */
    struct worker *worker;
    struct pool *pool;
    struct up_ticket *next, **prev;
    struct connecting *connecting;
    bool waiting;
};

/* An idle connection at once (returned, in use from now on), or NULL: on_ready will be called. fresh: never an idle one. */
struct upconn *upstream_get(struct worker *w, const struct snap *snap, const struct snap_upstream *up, struct up_ticket *t, bool fresh);
void upstream_cancel(struct up_ticket *t);
/* Done with it: back to the pool (reusable: the answer was read to its end and both sides keep alive) or closed. Bytes left in `in` of a
 * reusable one are a protocol fault: it is closed then. */
void upstream_put(struct upconn *u, bool reusable);

/* Circuit and keys (shared by all workers through shm). */
/* Whether a request may go there now (not drained, circuit closed, or this caller wins the half-open probe). */
bool upstream_usable(struct worker *w, const struct snap_upstream *up);
/* The next provider key that is not cooling down (they rotate); -1: all are cooling; *until_ns then says when the first is back. */
int upstream_pick_key(struct worker *w, const struct snap_upstream *up, uint32_t *rotation, uint64_t *until_ns);
void upstream_cool_key(struct worker *w, const struct snap_upstream *up, int key, uint64_t for_ms);
void upstream_report(struct worker *w, const struct snap_upstream *up, bool success, uint64_t first_byte_us);

void upstream_init(struct worker *w);
void upstream_snapshot(struct worker *w, const struct snap *snap); /* a new one came: pools of vanished or changed upstreams are let go */
void upstream_close_idle(struct worker *w);
void upstream_close_all(struct worker *w);

#endif
