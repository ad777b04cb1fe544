/* One client connection: bytes in, bytes out, heads and bodies framed; one exchange at a time. It knows nothing of
 * models or money. */
#ifndef TG_CONN_H
#define TG_CONN_H

#include <sys/socket.h>
#include "proto/http/http.h"
#include "worker/io.h"
#include "worker/worker.h"

struct exchange;

enum conn_state {
    CONN_HANDSHAKE, /* TLS */
    CONN_PROXY,     /* the PROXY protocol's line is awaited */
    CONN_OPEN,      /* between requests, or a head is coming in */
    CONN_BUSY,      /* an exchange has it */
    CONN_LINGER     /* answered; what still comes is read and thrown away, so that the answer is not lost to a reset */
};

enum { CONN_OUT_HIGH = 256 << 10, CONN_OUT_LOW = 64 << 10, CONN_KEY_CACHE = 128 };

struct conn {
    uint32_t magic;
    enum conn_state state;
    struct worker *worker;
    struct watch watch;
    struct io io;
    struct conn *next, **prev;
    struct buf in;              /* what came and is not consumed; holds no memory while idle */
    struct buf out;             /* what the socket did not take yet */
    size_t head_scanned;
    struct timer timer;         /* head, body, keep-alive, write stall: whichever holds now */
    struct exchange *exchange;  /* while BUSY */
    bool readable;              /* an edge said so and the socket was not drained since */
    bool hangup;                /* the peer closed its side */
    bool dead;                  /* error: nothing can be written any more */
    bool close_after;           /* this answer is the last */
    bool admin;                 /* of the admin listener */
    bool long_bodies;           /* the last one was: little of the next one is read, and copied, with its head */
    bool drained_wanted;        /* the exchange waits for the out queue to fall */
    struct task again;          /* goes on in the next turn: more requests may have come, or it died */
    uint32_t requests, lingered;
    uint64_t body_started_ns;
    char peer[48];              /* the client's address, text */
    /* the key that the last request on this connection brought: the same one needs no HMAC again */
    uint32_t cached_key_index;
    uint16_t cached_key_len;    /* 0: none */
    uint8_t cached_key_hash[32];
    char cached_key[CONN_KEY_CACHE];
};

/* From the listener. address: of the peer. */
struct snap_listen;
void conn_accept(struct worker *w, int fd, const struct snap_listen *listen, const struct sockaddr_storage *address);

/* For the exchange: */

/* Writes, or queues what the socket does not take. false: the connection is dead (the exchange is told by
 * exchange_client_gone later). */
bool conn_send(struct conn *c, const struct iovec *iov, int n);
/* Whether the peer reads too slowly for more: then stop producing until exchange_drained. */
bool conn_backlogged(struct conn *c);
/* Reads the rest of the request's body. 1 done, 0 more must come (exchange_body is called on progress), -1 the framing
 * is bad or too large (*status, *fault say which). */
int conn_read_body(struct conn *c, int *status, const char **text);
/* The exchange has ended, its answer is in the queue (or cannot be). keep: the framing allows another request. */
void conn_done(struct conn *c, bool keep);
/* Sends `100 Continue` if that is still of use. */
void conn_continue(struct conn *c);

/* For conn_body.c: reads once into b, which gets room for `want` bytes, and at most `most`. > 0, or an IO_ result;
 * clears `readable` when the socket is drained. */
ssize_t conn_read(struct conn *c, struct buf *b, size_t want, size_t most);

/* For the worker: drain (closes idle ones), quit. */
/* At max_connections: closes one that has said nothing for a second. false: there is none among those looked at. */
bool conn_make_room(struct worker *w);
void conn_drain_all(struct worker *w);
void conn_close_all(struct worker *w);

#endif
