/* A worker without a master: loop, shared memory, a snapshot with a few upstreams, and a small server in the same
 * loop. */
#ifndef TG_UPSTREAM_FIXTURE_H
#define TG_UPSTREAM_FIXTURE_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/unit/shm_fixture.h"
#include "tests/unit/tls_fixture.h"
#include "worker/upstream_pool.h"

/* ---- a server ---------------------------------------------------------------------------------------------------- */

enum { SERVER_CONNS = 64 };

struct server_conn { struct watch watch; struct io io; struct server *server; };

struct server {
    struct watch watch;
    struct loop *loop;
    uint16_t port;
    unsigned accepted, open;
    struct tls_server *tls;     /* NULL: plain */
    bool silent;                /* accepts, and does not speak (no handshake) */
    struct server_conn conn[SERVER_CONNS];
};

static inline void server_hang_up(struct server *s, unsigned i) {
    if (s->conn[i].io.fd < 0)
        return;
    loop_forget(s->loop, &s->conn[i].watch);
    io_close(&s->conn[i].io);
    s->open--;
}

/* Answers each byte with itself in upper case; hangs up with its peer. */
static inline void server_conn_event(struct watch *w, uint32_t events) {
    struct server_conn *c = CONTAINER_OF(w, struct server_conn, watch);
    char got[100];
    (void)events;
    if (c->server->silent)
        return;
    if (c->io.tls && tls_handshake(c->io.tls, NULL) != 1)
        return;
    for (;;) {
        ssize_t n = io_read(&c->io, got, sizeof got);
        if (n == IO_AGAIN)
            return;
        if (n < 0) {
            server_hang_up(c->server, (unsigned)(c - c->server->conn));
            return;
        }
        for (ssize_t i = 0; i < n; i++)
            got[i] = (char)(got[i] - 'a' + 'A');
        struct iovec v = { got, (size_t)n };
        assert_int_equal(io_writev(&c->io, &v, 1), n);
    }
}

static inline void server_event(struct watch *w, uint32_t events) {
    struct server *s = CONTAINER_OF(w, struct server, watch);
    (void)events;
    int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct server_conn *c = s->conn;
    while (c->io.fd >= 0)
        assert_true(++c < s->conn + SERVER_CONNS);
    s->accepted++;
    s->open++;
    *c = (struct server_conn){ .watch = { server_conn_event, fd }, .server = s,
                               .io = { fd, s->tls ? tls_accept(s->tls, fd) : NULL } };
    assert_int_equal(loop_watch(s->loop, &c->watch, 0), 0);
}

static inline void server_start(struct server *s, struct loop *loop, const char *address, uint16_t port, int backlog) {
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
    socklen_t len = sizeof a;
    int one = 1;
    memset(s, 0, sizeof *s);
    for (unsigned i = 0; i < SERVER_CONNS; i++)
        s->conn[i].io.fd = -1;
    assert_int_equal(inet_pton(AF_INET, address, &a.sin_addr), 1);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, backlog), 0);
    getsockname(fd, (struct sockaddr *)&a, &len);
    s->port = ntohs(a.sin_port);
    s->loop = loop;
    s->watch = (struct watch){ server_event, fd };
    assert_int_equal(loop_watch(loop, &s->watch, EPOLLIN), 0);
}

static inline void server_stop(struct server *s) {
    for (unsigned i = 0; i < SERVER_CONNS; i++)
        server_hang_up(s, i);
    if (s->watch.fd >= 0) {
        loop_unwatch(s->loop, &s->watch);
        close(s->watch.fd);
    }
    s->watch.fd = -1;
}

/* ---- a worker ---------------------------------------------------------------------------------------------------- */

enum { UPSTREAM_ID = 5, TEXT_BYTES = 200000 };

struct config {
    struct snap snap;
    struct snap_upstream up[2];
    struct snap_ca ca;
    char text[TEXT_BYTES];
    uint32_t text_len;
};

struct bench {
    struct fixture *shm;
    struct worker w;
    struct pages master_pages;
    struct ipc master;          /* the other end of the worker's channel */
    struct config *config;
    struct server server;
};

static inline struct snap_str put_text(struct config *c, struct slice s) {
    assert_true(c->text_len + s.len < TEXT_BYTES);
    struct snap_str at = { (uint32_t)(offsetof(struct config, text) + c->text_len), (uint32_t)s.len };
    memcpy(c->text + c->text_len, s.ptr, s.len);
    c->text_len += (uint32_t)s.len + 1;
    return at;
}

/* One upstream at 127.0.0.1; what a test wants else it changes before upstream_snapshot. */
static inline struct config *config_new(uint64_t generation, const char *host, uint16_t port) {
    struct config *c = calloc(1, sizeof *c);
    c->snap.generation = generation;
    c->snap.upstreams = (struct snap_list){ offsetof(struct config, up), 1 };
    c->snap.cas = (struct snap_list){ offsetof(struct config, ca), 1 };
    c->up[0] = (struct snap_upstream){
        .id = UPSTREAM_ID, .name = put_text(c, SLICE("test")), .host = put_text(c, slice_str(host)), .port = port,
        .host_is_address = strspn(host, "0123456789.") == strlen(host), .tls_max = 13,
        .connect_timeout_ms = 3000, .max_connections = 10, .keepalive = 4, .cooldown_ms = 60,
    };
    return c;
}

static inline void worker_start(struct worker *w, struct shm *shm, uint32_t range) {
    static const struct snap quiet = { .log_level = LOG_ERROR }; /* failures are what is tested here */
    static struct snapshot snapshot = { .snap = &quiet, .refs = 1 };
    memset(w, 0, sizeof *w);
    w->snapshot = &snapshot;
    w->shm = *shm;
    w->heritage.range = range;
    w->counters = &shm->counters[range];
    memset(w->counters, 0, sizeof *w->counters);
    pages_init(&w->pages, 8);
    assert_int_equal(loop_init(&w->loop), 0);
    upstream_init(w);
}

static inline void worker_end(struct worker *w) {
    upstream_close_all(w);
    assert_null(w->upstreams); /* nothing was left in use */
    assert_int_equal(w->loop.timers, 0);
    assert_int_equal(w->counters->upstream_open, 0);
    assert_int_equal(w->counters->upstream_idle, 0);
    assert_int_equal(w->pages.in_use, 0);
    loop_close(&w->loop);
    pages_clear(&w->pages);
}

static inline int bench_setup(void **state) {
    struct bench *b = calloc(1, sizeof *b);
    int fds[2];
    fixture_setup((void **)&b->shm);
    memset(&b->shm->shm.upstreams[UPSTREAM_ID], 0, sizeof b->shm->shm.upstreams[0]);
    worker_start(&b->w, &b->shm->shm, 0);
    assert_int_equal(ipc_pair(fds), 0);
    pages_init(&b->master_pages, 4);
    ipc_open(&b->w.channel, fds[0], &b->w.pages, 100000);
    ipc_open(&b->master, fds[1], &b->master_pages, 100000);
    server_start(&b->server, &b->w.loop, "127.0.0.1", 0, 100);
    b->config = config_new(1, "127.0.0.1", b->server.port);
    upstream_snapshot(&b->w, &b->config->snap);
    *state = b;
    return 0;
}

static inline int bench_teardown(void **state) {
    struct bench *b = *state;
    server_stop(&b->server);
    ipc_close(&b->w.channel);
    ipc_close(&b->master);
    worker_end(&b->w);
    pages_clear(&b->master_pages);
    tls_server_free(b->server.tls);
    free(b->config);
    fixture_teardown((void **)&b->shm);
    free(b);
    return 0;
}

#endif
