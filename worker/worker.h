/* The private header of the folder: what all parts of a worker share. */
#ifndef TG_WORKER_H
#define TG_WORKER_H

#include "proto/base/arena.h"
#include "proto/base/check.h"
#include "proto/base/crypto.h"
#include "shm/counters.h"
#include "shm/ipc_io.h"
#include "shm/money.h"
#include "shm/snapshot.h"
#include "worker/entry.h"
#include "worker/loop.h"

/* A mapped snapshot; exchanges that it admitted hold it. */
struct snapshot {
    const struct snap *snap;
    size_t bytes;
    uint32_t refs;
};
static inline struct snapshot *snapshot_hold(struct snapshot *s) { s->refs++; return s; }
void snapshot_release(struct snapshot *s); /* NULL is allowed */

struct worker {
    struct loop loop;
    struct worker_heritage heritage;
    struct shm shm;
    struct money money;
    struct pages pages;
    struct arena scratch;          /* of one batch of stream events: reset before each */
    struct snapshot *snapshot;     /* the current one */
    struct counters *counters;     /* this worker's stripe */
    struct series *series;
    struct hmac_key pepper, seal;
    struct ipc channel;
    struct watch channel_watch;
    struct upstreams *upstreams;   /* upstream.c */
    struct listeners *listeners;   /* listen.c */
    struct access_log *access_log; /* log.c */
    struct conn *conns;            /* list of client connections */
    struct conn *conn_hand;        /* where conn_make_room looks next; NULL: at the beginning */
    uint32_t conn_count, active;   /* exchanges with a slot */
    bool draining, quitting;
    uint64_t drain_deadline_ns;
    uint64_t ring_tail, ring_since_ns; /* when the ledger last took something from our ring, or it was empty */
    uint8_t random[4096]; size_t random_left; /* request ids and the like */
};

static inline const struct snap *worker_snap(const struct worker *w) { return w->snapshot->snap; }
void worker_random(struct worker *w, void *out, size_t n);
/* After a settle that asked for it: writes the eventfd. */
void worker_wake_ledger(struct worker *w);
/* One line to the error log (through its own descriptor; rate-limited per call site by the caller). */
void worker_log(struct worker *w, enum log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
