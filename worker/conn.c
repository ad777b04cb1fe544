/* A client connection's life: handshake, head, body, answer, and again or not.
 *
 * Reading is edge-triggered and stops while an exchange runs, so that a pipelining client is held back by its socket;
 * bodies are conn_body.c's. Writing tries the socket first and queues the rest; past CONN_OUT_HIGH the exchange stops
 * producing until the queue fell below CONN_OUT_LOW. Failures: what the client does wrong is answered and the
 * connection closed; a socket error marks it dead, and the exchange hears of it. */
#include "worker/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/exchange.h"
#include "worker/listen.h"
#include "worker/proxy.h"

enum {
    CONN_MAGIC = 0x434f4e4e,
    LINGER_MS = 2000,
    DRAIN_IDLE_MS = 1000,
    LINGER_BYTES = 1 << 20,
    HEAD_LIKELY = 2048,        /* most heads are shorter */
    BODY_SLOWEST = 16384,      /* bytes a second below which a body is a slow sender's, beyond client_timeout */
    OUT_MAX = 256 << 20,       /* of one connection's queue: a whole answer and what back-pressure lets through */
    IN_MAX = HTTP_MAX_HEAD + 2 * PAGE_BYTES,
    UNSENT_MAX = 256 << 10     /* the kernel's queue for a slow reader, who would else get megabytes of it */
};

static void conn_process(struct conn *c);

static const struct snap *snap_of(const struct conn *c) { return worker_snap(c->worker); }

static void conn_free(struct conn *c) {
    struct worker *w = c->worker;
    loop_timer_off(&w->loop, &c->timer);
    loop_unpost(&w->loop, &c->again);
    loop_forget(&w->loop, &c->watch);
    io_close(&c->io);
    buf_release(&c->in);
    buf_release(&c->out);
    if (w->conn_hand == c)
        w->conn_hand = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    *c->prev = c->next;
    w->conn_count--;
    atomic_store_explicit(&w->shm.ranges[w->heritage.range].connections, w->conn_count, memory_order_relaxed);
    COUNT(w->counters, connections_open, -1);
    wipe(c->cached_key, sizeof c->cached_key);
    c->magic = 0;
    free(c);
}

/* Ends the connection; one that an exchange still has is freed when that has let go of it. */
static void conn_kill(struct conn *c) {
    c->dead = true;
    if (c->state == CONN_BUSY && c->exchange != NULL) {
        struct exchange *ex = c->exchange;
        c->exchange = NULL;
        exchange_client_gone(ex);
    }
    conn_free(c);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* The exchange hears of it in the next turn, not within its own call. */
static bool conn_fail(struct conn *c) {
    c->dead = true;
    loop_post(&c->worker->loop, &c->again);
    return false;
}

bool conn_send(struct conn *c, const struct iovec *iov, int n) {
    CHECK_MAGIC(c, CONN_MAGIC);
    if (c->dead)
        return false;
    ssize_t sent = 0;
    if (c->out.len == 0) {
        sent = io_writev(&c->io, iov, n);
        if (sent < 0 && sent != IO_AGAIN)
            return conn_fail(c);
        if (sent < 0)
            sent = 0;
    }
    COUNT(c->worker->counters, bytes_out, sent);
    for (int i = 0; i < n; i++) {
        if ((size_t)sent >= iov[i].iov_len) {
            sent -= (ssize_t)iov[i].iov_len;
            continue;
        }
        if (!buf_append(&c->out, (const char *)iov[i].iov_base + sent, iov[i].iov_len - (size_t)sent))
            return conn_fail(c);
        sent = 0;
    }
    if (c->out.len > 0) /* a reader that takes nothing for so long is gone */
        loop_timer(&c->worker->loop, &c->timer, snap_of(c)->client_timeout_ms);
    return true;
}

bool conn_backlogged(struct conn *c) {
    if (c->out.len < CONN_OUT_HIGH)
        return false;
    c->drained_wanted = true;
    return true;
}

/* Writes what is queued. false: dead. */
static bool conn_flush(struct conn *c) {
    if (io_unsent(&c->io) && io_flush(&c->io) == IO_ERROR)
        return false;
    bool moved = false;
    while (c->out.len > 0) {
        struct iovec iov = { buf_ptr(&c->out), c->out.len };
        ssize_t n = io_writev(&c->io, &iov, 1);
        if (n == IO_AGAIN)
            break;
        if (n < 0)
            return false;
        COUNT(c->worker->counters, bytes_out, n);
        buf_consume(&c->out, (size_t)n);
        moved = true;
    }
    if (c->out.len == 0)
        buf_release(&c->out);
    else if (moved)
        loop_timer(&c->worker->loop, &c->timer, snap_of(c)->client_timeout_ms);
    return true;
}

void conn_continue(struct conn *c) {
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (c->in.len > 0)
        return; /* the body is coming already */
    struct iovec iov = { (void *)(uintptr_t)text, sizeof text - 1 };
    conn_send(c, &iov, 1);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

ssize_t conn_read(struct conn *c, struct buf *b, size_t want, size_t most) {
    size_t room;
    char *p = buf_reserve(b, want, &room);
    if (p == NULL)
        return IO_ERROR;
    room = room < most ? room : most;
    ssize_t n = io_read(&c->io, p, room);
    if (n > 0) {
        buf_commit(b, (size_t)n);
        COUNT(c->worker->counters, bytes_in, n);
        if ((size_t)n < room && c->io.tls == NULL && !c->hangup)
            c->readable = false; /* a short read drained it: a new edge comes with new bytes */
    } else if (n == IO_AGAIN) {
        c->readable = false;
    }
    return n;
}

/* ---- heads ------------------------------------------------------------------------------------------------------- */

static int fault_status(enum http_fault f, const char **code) {
    switch (f) {
    case HTTP_FAULT_TARGET_LONG: *code = "uri_too_long"; return 414;
    case HTTP_FAULT_HEAD_LONG: case HTTP_FAULT_TRAILER_LONG: *code = "headers_too_large"; return 431;
    case HTTP_FAULT_VERSION: *code = "http_version"; return 505;
    case HTTP_FAULT_CODING: *code = "not_implemented"; return 501;
    default: *code = "invalid_value"; return 400;
    }
}

/* The request could not even be understood: an answer, and the end of the connection. */
static void refuse(struct conn *c, int status, const char *code, const char *text) {
    COUNT(c->worker->counters, requests_bad, 1);
    c->close_after = true;
    c->state = CONN_BUSY;
    exchange_refuse(c, status, code, text);
}

/* Looks for a head in what came. false: more must come, or the connection ended. */
static bool take_head(struct conn *c) {
    static struct http_head head; /* 3 KB that need not be on every stack or in every connection */
    struct http_head *h = &head;
    enum http_result r = http_parse_request(h, buf_slice(&c->in), &c->head_scanned);
    if (r == HTTP_MORE)
        return false;
    c->head_scanned = 0;
    if (r == HTTP_BAD) {
        const char *code;
        int status = fault_status(h->fault, &code);
        refuse(c, status, code, http_fault_text(h->fault));
        return false;
    }
    COUNT(c->worker->counters, requests, 1);
    c->requests++;
    c->state = CONN_BUSY;
    c->body_started_ns = c->worker->loop.now_ns;
    loop_timer(&c->worker->loop, &c->timer, snap_of(c)->client_timeout_ms);
    exchange_begin(c, h);
    return true;
}

/* In a drain only as long as a request may be on its way to us: it is answered, and told that the connection ends. */
static void conn_wait_request(struct conn *c) {
    buf_release(&c->in);
    loop_timer(&c->worker->loop, &c->timer,
               c->worker->draining ? DRAIN_IDLE_MS : snap_of(c)->keepalive_timeout_ms);
}

static bool server_ends(const struct worker *w) {
    return w->draining && atomic_load_explicit(&w->shm.header->draining, memory_order_relaxed);
}

/* Reads and throws away after the last answer, so that closing does not reset it away. */
static void conn_linger(struct conn *c) {
    char waste[16384];
    while (c->readable) {
        ssize_t n = io_read(&c->io, waste, sizeof waste);
        if (n == IO_AGAIN) {
            c->readable = false;
            return;
        }
        c->lingered += n > 0 ? (uint32_t)n : 0;
        if (n < 0 || c->lingered > LINGER_BYTES) {
            conn_free(c);
            return;
        }
    }
}

/* Everything that can be done with what is there. May free c. */
static void conn_process(struct conn *c) {
    struct worker *w = c->worker;
    while (c->state == CONN_OPEN || c->state == CONN_PROXY) {
        if (c->state == CONN_PROXY && c->in.len > 0) {
            int r = proxy_take(c);
            if (r < 0) {
                conn_kill(c);
                return;
            }
            if (r > 0)
                c->state = CONN_OPEN;
        }
        if (c->state == CONN_OPEN && c->in.len > 0 && take_head(c))
            return; /* the exchange calls conn_done, which comes back here by a posted turn or at once */
        if (c->state != CONN_OPEN && c->state != CONN_PROXY)
            return;
        if (!c->readable) {
            if (c->in.len == 0)
                buf_release(&c->in);
            return;
        }
        if (c->in.len == 0) /* the first byte of a request starts its clock */
            loop_timer(&w->loop, &c->timer, snap_of(c)->client_timeout_ms);
        ssize_t n = conn_read(c, &c->in, 1, c->long_bodies ? HEAD_LIKELY : SIZE_MAX);
        if (n == IO_AGAIN) {
            if (c->in.len == 0)
                conn_wait_request(c);
            return;
        }
        if (n < 0) {
            conn_kill(c);
            return;
        }
    }
}

static void conn_restart(struct conn *c) {
    c->state = CONN_OPEN;
    if (c->in.len == 0 && !c->readable)
        conn_wait_request(c);
    else
        loop_timer(&c->worker->loop, &c->timer, snap_of(c)->client_timeout_ms);
}

void conn_done(struct conn *c, bool keep) {
    CHECK_MAGIC(c, CONN_MAGIC);
    c->exchange = NULL;
    c->drained_wanted = false;
    if (!keep || server_ends(c->worker))
        c->close_after = true;
    if (c->dead) {
        conn_fail(c);
        return;
    }
    if (c->out.len > 0) { /* conn_event goes on when the queue is empty */
        loop_timer(&c->worker->loop, &c->timer, snap_of(c)->client_timeout_ms);
        return;
    }
    if (c->close_after) {
        if (c->hangup || (c->in.len == 0 && keep)) {
            conn_fail(c); /* freed in the next turn: callers may still look at it */
            return;
        }
        c->state = CONN_LINGER;
        shutdown(c->io.fd, SHUT_WR);
        loop_timer(&c->worker->loop, &c->timer, LINGER_MS);
        c->readable = true;
        loop_post(&c->worker->loop, &c->again);
        return;
    }
    conn_restart(c);
    if (c->in.len > 0 || c->readable || c->hangup)
        loop_post(&c->worker->loop, &c->again); /* in the next turn: a pipelining client must not starve the others */
}

static void conn_again(struct task *t) {
    struct conn *c = CONTAINER_OF(t, struct conn, again);
    CHECK_MAGIC(c, CONN_MAGIC);
    if (c->dead)
        conn_kill(c);
    else if (c->state == CONN_LINGER)
        conn_linger(c);
    else
        conn_process(c);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static bool conn_handshake(struct conn *c) {
    int r = tls_handshake(c->io.tls, NULL);
    if (r == IO_ERROR) {
        conn_free(c);
        return false;
    }
    if (r == 0)
        return false;
    c->state = CONN_OPEN;
    c->readable = true;
    return true;
}

static void conn_on_event(struct watch *watch, uint32_t events) {
    struct conn *c = CONTAINER_OF(watch, struct conn, watch);
    CHECK_MAGIC(c, CONN_MAGIC);
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        c->hangup = true;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        c->readable = true;
    if (c->state == CONN_HANDSHAKE && !conn_handshake(c))
        return;
    if (events & EPOLLOUT && (c->out.len > 0 || io_unsent(&c->io))) {
        if (!conn_flush(c)) {
            conn_kill(c);
            return;
        }
        if (c->state == CONN_BUSY && c->exchange == NULL && c->out.len == 0) {
            conn_done(c, !c->close_after); /* the answer is out */
            return;
        }
        if (c->drained_wanted && c->out.len < CONN_OUT_LOW) {
            c->drained_wanted = false;
            if (c->exchange != NULL) {
                exchange_drained(c->exchange);
                return;
            }
        }
    }
    if (c->state == CONN_LINGER) {
        conn_linger(c);
        return;
    }
    if (c->state == CONN_BUSY) {
        if (c->exchange != NULL && c->exchange->state == EX_BODY) {
            exchange_body(c->exchange);
            return;
        }
        if (c->hangup)
            conn_kill(c); /* whoever closes his side has given up, as with every proxy */
        return;
    }
    conn_process(c);
}

/* A body may take client_timeout, and longer as long as it comes at BODY_SLOWEST. */
static bool body_in_time(struct conn *c) {
    struct exchange *ex = c->exchange;
    uint64_t bytes = ex->body_buf.len, waited_ns = c->worker->loop.now_ns - c->body_started_ns;
    uint64_t allowed_ns = (uint64_t)snap_of(c)->client_timeout_ms * 1000000 + bytes * 1000000000 / BODY_SLOWEST;
    if (waited_ns >= allowed_ns)
        return false;
    loop_timer(&c->worker->loop, &c->timer, (allowed_ns - waited_ns) / 1000000 + 1);
    return true;
}

static void conn_on_timer(struct timer *t) {
    struct conn *c = CONTAINER_OF(t, struct conn, timer);
    CHECK_MAGIC(c, CONN_MAGIC);
    if (c->out.len > 0) { /* the reader takes nothing */
        conn_kill(c);
        return;
    }
    if (c->state == CONN_BUSY && c->exchange != NULL) {
        if (c->exchange->state == EX_BODY && !body_in_time(c)) {
            c->close_after = true;
            reply_error(c->exchange, 408, "request_timeout", NULL, "The request body did not come in time.");
        }
        return;
    }
    if (c->state == CONN_OPEN && c->in.len > 0) {
        refuse(c, 408, "request_timeout", "The request head did not come in time.");
        return;
    }
    conn_free(c);
}

/* ---- birth and the end ------------------------------------------------------------------------------------------- */

static void peer_text(char *out, size_t n, const struct sockaddr_storage *a) {
    out[0] = 0;
    if (a->ss_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)a)->sin_addr, out, (socklen_t)n);
    else if (a->ss_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, out, (socklen_t)n);
    else
        snprintf(out, n, "unix");
}

void conn_accept(struct worker *w, int fd, const struct snap_listen *listen, const struct sockaddr_storage *address) {
    struct conn *c = calloc(1, sizeof *c);
    int one = 1, unsent = UNSENT_MAX;
    if (c == NULL) {
        close(fd);
        return;
    }
    c->magic = CONN_MAGIC;
    c->worker = w;
    c->io.fd = fd;
    c->admin = listen->admin;
    c->watch = (struct watch){ conn_on_event, fd };
    c->timer.fn = conn_on_timer;
    c->again.fn = conn_again;
    buf_init(&c->in, &w->pages, IN_MAX);
    buf_init(&c->out, &w->pages, OUT_MAX);
    peer_text(c->peer, sizeof c->peer, address);
    if (address->ss_family != AF_UNIX) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
    }
    c->state = listen->proxy_protocol ? CONN_PROXY : CONN_OPEN;
    if (listen->tls) {
        struct tls_server *server = listeners_tls(w);
        c->io.tls = server != NULL ? tls_accept(server, fd) : NULL;
        c->state = CONN_HANDSHAKE;
    }
    if ((listen->tls && c->io.tls == NULL) || loop_watch(&w->loop, &c->watch, 0) != 0) {
        io_close(&c->io);
        free(c);
        return;
    }
    c->next = w->conns;
    c->prev = &w->conns;
    if (w->conns != NULL)
        w->conns->prev = &c->next;
    w->conns = c;
    w->conn_count++;
    atomic_store_explicit(&w->shm.ranges[w->heritage.range].connections, w->conn_count, memory_order_relaxed);
    COUNT(w->counters, connections_accepted, 1);
    COUNT(w->counters, connections_open, 1);
    loop_timer(&w->loop, &c->timer, w->draining ? DRAIN_IDLE_MS : snap_of(c)->client_timeout_ms);
}

/* A request may be on its way on a connection that looks idle: it is served as the last one if it comes within a
 * moment, and always where the server as a whole goes on (another binary, fewer workers). */
void conn_drain_all(struct worker *w) {
    for (struct conn *c = w->conns, *next; c != NULL; c = next) {
        next = c->next;
        bool idle = c->state == CONN_OPEN && c->in.len == 0 && !c->readable;
        if (idle && server_ends(w) && c->requests > 0)
            conn_free(c);
        else if (idle)
            loop_timer(&w->loop, &c->timer, DRAIN_IDLE_MS);
    }
}

/* Whether nothing came of it for so long, and nothing is owed to it. Its timer runs since it fell silent. */
static bool conn_silent(const struct conn *c) {
    enum { SILENT_MS = 1000 };
    const struct snap *s = snap_of(c);
    bool waits = c->state == CONN_OPEN || c->state == CONN_HANDSHAKE || c->state == CONN_PROXY;
    uint64_t patience_ms =
        c->requests > 0 && c->in.len == 0 ? s->keepalive_timeout_ms : s->client_timeout_ms;
    uint64_t since_ns = c->timer.deadline_ns - patience_ms * 1000000;
    return waits && !c->readable && !c->dead && !c->admin && c->out.len == 0 && c->timer.deadline_ns > 0 &&
           c->worker->loop.now_ns > since_ns + (uint64_t)SILENT_MS * 1000000;
}

bool conn_make_room(struct worker *w) {
    enum { LOOKS = 256 };
    for (int i = 0; i < LOOKS; i++) {
        struct conn *c = w->conn_hand != NULL ? w->conn_hand : w->conns;
        if (c == NULL)
            return false;
        w->conn_hand = c->next;
        if (conn_silent(c)) {
            conn_free(c);
            return true;
        }
    }
    return false;
}

void conn_close_all(struct worker *w) {
    for (struct conn *c = w->conns, *next; c != NULL; c = next) {
        next = c->next;
        conn_kill(c);
    }
}
