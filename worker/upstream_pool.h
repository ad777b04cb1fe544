/* Private to upstream*.c: pools, connections that are being made, and what their parts call of each other. */
#ifndef TG_UPSTREAM_POOL_H
#define TG_UPSTREAM_POOL_H

#include "worker/upstream.h"
#include "worker/worker.h"

enum {
    POOL_MAGIC = 0x6c6f6f70,
    POOL_WAITING_MAX = 1024,    /* tickets that may wait for one of max_connections */
    POOL_IDLE_MAX_MS = 55000,   /* below the 60 s after which the common load balancers drop an idle connection */
    POOL_SPARE_CONNS = 256,     /* unused struct upconn kept for reuse */
    POOL_RESOLVE_WAIT_MS = 2000,/* a name that was never resolved yet (start-up) is waited for so long */
    POOL_RESOLVE_POLL_MS = 20,
    POOL_BAD_ADDRESS_MS = 30000,/* an address that failed is tried last for so long */
    POOL_ADDRESS_MIN_MS = 300,  /* one address gets at least so much of connect_timeout */
    POOL_RECEIVE_BYTES = 512 << 10, /* a stream whose reader is slow may take so much of the kernel, not tens of MB */
    POOL_TLS_TURN_NS = 1000000  /* handshakes of one turn stop being begun after this */
};

/* The connections to one upstream, as one configuration of it has it. */
struct pool {
    uint32_t magic;
    uint32_t upstream_id;
    uint64_t hash;              /* of what matters for a connection: another hash is another pool */
    struct worker *worker;
    struct pool *next;
    bool retired;               /* the configuration has it no more: nothing becomes idle, freed with its last user */
    char name[64];              /* for logs (cut) */
    char host[256];
    uint16_t port;
    struct tls_client *tls;     /* NULL: plain */
    bool tls_broken;            /* TLS is wanted and its configuration could not be made: every attempt fails */
    bool fixed;                 /* host is an address: `address` */
    struct shm_address address;
    uint32_t connect_timeout_ms, max_connections, keepalive, cooldown_ms, probe_ms;

    struct upconn *idle, *idle_oldest; /* newest first */
    uint32_t idle_count;
    uint32_t open;              /* connections: in use, idle, being made */
    uint32_t tickets;           /* that point here */
    struct connecting *connecting;
    struct up_ticket *waiting, **waiting_tail;
    uint32_t waiting_count;
    bool serving;               /* them, just now */
    struct timer idle_timer, probe_timer;

    uint32_t rotation;          /* of addresses */
    uint64_t resolved_at_ns;    /* of the addresses that bad_until_ns speaks of */
    uint64_t bad_until_ns[SHM_MAX_ADDRESSES];
    uint64_t asked_resolve_ns, logged_ns;
};

enum connect_phase { CONNECT_NAME, CONNECT_TCP, CONNECT_TLS };

/* A connection that is being made. */
struct connecting {
    struct upconn *u;
    struct pool *pool;
    struct up_ticket *ticket;   /* whose wish it is; NULL: withdrawn, or a health check */
    bool probe;
    enum connect_phase phase;
    bool queued;                /* in the queue of handshakes */
    bool hung_up;               /* the peer's end came while it was made */
    struct connecting *queue_next, **queue_prev;
    struct connecting *next, **prev;
    struct timer timer;
    uint64_t deadline_ns;       /* of the whole */
    enum up_error error;        /* of the last address that failed */
    struct shm_addresses addresses;
    uint8_t order[SHM_MAX_ADDRESSES];
    uint32_t at, count;         /* in order */
};

struct upstreams {
    struct worker *worker;
    struct pool *pools;
    const struct snap *snap;    /* the current one, and its upstreams' pools by index */
    uint64_t generation;
    struct pool *by_index[SHM_MAX_UPSTREAMS];
    struct upconn *spare;
    uint32_t spare_count;
    struct up_ticket *posted, **posted_tail; /* answered at the end of this turn */
    struct task posted_task;
    struct connecting *handshakes, **handshakes_tail;
    struct task handshake_task;
};

/* upstream.c */
void pool_ticket_fail(struct up_ticket *t, enum up_error e); /* posted */
/* its connection is made: hands it over or keeps it; frees c */
void pool_ready(struct connecting *c);
void pool_close_conn(struct upconn *u);                      /* closes and frees, makes place for who waits */
void pool_release(struct pool *p);                           /* frees it if retired and unused */

/* upstream_connect.c */
bool connect_start(struct pool *p, struct up_ticket *t, bool probe); /* false: no memory */
void connect_abandon(struct connecting *c);                          /* closes and frees, without a word */
void connect_handshakes(struct task *t);
void connect_probe_timer(struct timer *t);

/* upstream_circuit.c */
void circuit_report(struct pool *p, bool success, uint64_t first_byte_us);
void circuit_connected(struct pool *p, bool probe);
void circuit_unreachable(struct pool *p, bool refused, bool probe);

#endif
