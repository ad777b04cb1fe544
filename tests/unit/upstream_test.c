/* Upstream pools against a small server in the same loop: reuse, limits, waiting, addresses, reloads, circuit, keys,
 * health checks, TLS. */
#include "tests/unit/upstream_fixture.h"

struct wish {
    struct up_ticket ticket;
    struct upconn *u;
    enum up_error error;
    int answers;
    char got[100];
    size_t got_len;
    bool ended;
};

static bool within_call; /* an answer now would come from within the caller's own call */

static void wish_event(struct upconn *u, uint32_t events) {
    struct wish *x = u->owner;
    (void)events;
    for (;;) {
        ssize_t n = io_read(&u->io, x->got + x->got_len, sizeof x->got - x->got_len);
        if (n == IO_AGAIN)
            return;
        if (n < 0) {
            x->ended = true;
            return;
        }
        x->got_len += (size_t)n;
    }
}

static void take(struct wish *x, struct upconn *u) {
    x->u = u;
    u->owner = x;
    u->on_event = wish_event;
}

static void on_ready(struct up_ticket *t, struct upconn *u, enum up_error e) {
    struct wish *x = CONTAINER_OF(t, struct wish, ticket);
    assert_false(within_call);
    x->answers++;
    x->error = e;
    if (u)
        take(x, u);
}

static struct upconn *get(struct bench *b, struct wish *x, bool fresh) {
    memset(x, 0, sizeof *x);
    x->ticket.on_ready = on_ready;
    within_call = true;
    struct upconn *u = upstream_get(&b->w, &b->config->snap, &b->config->up[0], &x->ticket, fresh);
    within_call = false;
    if (u)
        take(x, u);
    return u;
}

static void put(struct upconn *u, bool reusable) {
    within_call = true;
    upstream_put(u, reusable);
    within_call = false;
}

/* Turns until it is so; a second without it is a failure. */
#define UNTIL(b, condition) \
    do { \
        for (int until_i = 0; !(condition); until_i++) { \
            if (until_i > 300) \
                fail_msg("line %d: never %s", __LINE__, #condition); \
            loop_turn(&(b)->w.loop, 10); \
        } \
    } while (0)

static void settle(struct bench *b) {
    for (int i = 0; i < 5; i++)
        loop_turn(&b->w.loop, 1);
}

static void talk(struct bench *b, struct wish *x) {
    struct iovec v = { "hello", 5 };
    x->got_len = 0;
    assert_int_equal(io_writev(&x->u->io, &v, 1), 5);
    UNTIL(b, x->got_len == 5);
    assert_memory_equal(x->got, "HELLO", 5);
}

static struct pool *pool_of(struct bench *b) {
    return b->w.upstreams->by_index[0];
}

static struct shm_upstream *words(struct bench *b) {
    return &b->w.shm.upstreams[UPSTREAM_ID];
}

/* ---- reuse ------------------------------------------------------------------------------------------------------- */

static void test_reuse(void **state) {
    struct bench *b = *state;
    struct wish x, y;
    assert_null(get(b, &x, false));
    UNTIL(b, x.answers == 1);
    assert_non_null(x.u);
    assert_false(x.u->reused);
    talk(b, &x);
    struct upconn *u = x.u;
    put(u, true);
    settle(b);
    assert_ptr_equal(get(b, &y, false), u);
    assert_true(u->reused);
    assert_int_equal(u->requests, 2);
    talk(b, &y);
    put(u, true);
    assert_int_equal(b->server.accepted, 1);
    assert_int_equal(b->w.counters->upstream_connects, 1);
    assert_int_equal(b->w.counters->upstream_reuses, 1);
    assert_int_equal(b->w.counters->upstream_idle, 1);
    assert_int_equal(b->w.counters->upstream_open, 1);
    upstream_close_idle(&b->w);
    assert_int_equal(b->w.counters->upstream_open, 0);
    UNTIL(b, b->server.open == 0);
}

static void test_newest_first_and_keepalive(void **state) {
    struct bench *b = *state;
    struct wish x[6], y;
    struct upconn *u[6];
    for (int i = 0; i < 6; i++)
        assert_null(get(b, &x[i], false));
    for (int i = 0; i < 6; i++) {
        UNTIL(b, x[i].u);
        u[i] = x[i].u;
    }
    for (int i = 0; i < 6; i++)
        put(u[i], true);
    assert_int_equal(b->w.counters->upstream_idle, 4); /* keepalive; the oldest two went */
    for (int i = 5; i >= 2; i--)
        assert_ptr_equal(get(b, &y, false), u[i]);
    for (int i = 2; i < 6; i++)
        put(u[i], false);
    UNTIL(b, b->server.open == 0);
}

/* What the peer does to an idle connection is seen before a request is written into it. */
static void test_idle_ends(void **state) {
    struct bench *b = *state;
    struct wish x;
    get(b, &x, false);
    UNTIL(b, x.u);
    put(x.u, true);
    server_hang_up(&b->server, 0);
    UNTIL(b, b->w.counters->upstream_idle == 0);
    assert_null(get(b, &x, false));
    UNTIL(b, x.u);
    put(x.u, true);
    struct iovec v = { "unasked", 7 };
    assert_int_equal(io_writev(&b->server.conn[0].io, &v, 1), 7);
    UNTIL(b, b->w.counters->upstream_idle == 0);
    assert_null(get(b, &x, false));
    UNTIL(b, x.u);
    assert_true(buf_append(&x.u->in, "left over", 9)); /* of an answer that was longer than it said */
    put(x.u, true);
    assert_int_equal(b->w.counters->upstream_open, 0);
    UNTIL(b, b->server.open == 0);
}

static void test_idle_age(void **state) {
    struct bench *b = *state;
    struct wish x, y;
    get(b, &x, false), get(b, &y, false);
    UNTIL(b, x.u && y.u);
    put(x.u, true), put(y.u, true);
    struct pool *p = pool_of(b);
    assert_true(p->idle_timer.deadline_ns > 0);
    p->idle_oldest->idle_since_ns -= (POOL_IDLE_MAX_MS - 20) * 1000000ull; /* the other one stays */
    loop_timer(&b->w.loop, &p->idle_timer, 0);
    loop_turn(&b->w.loop, 0);
    assert_int_equal(p->idle_count, 2); /* not yet */
    UNTIL(b, p->idle_count == 1);
    assert_ptr_equal(p->idle, y.u);
    assert_true(p->idle_timer.deadline_ns > b->w.loop.now_ns + 50000000000ull);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static void test_waiting(void **state) {
    struct bench *b = *state;
    struct wish x[6];
    pool_of(b)->max_connections = 2;
    for (int i = 0; i < 6; i++)
        assert_null(get(b, &x[i], i == 4)); /* the fifth wants a fresh one */
    UNTIL(b, x[0].u && x[1].u);
    settle(b);
    for (int i = 2; i < 6; i++)
        assert_int_equal(x[i].answers, 0);
    upstream_cancel(&x[3].ticket);
    upstream_cancel(&x[3].ticket);
    struct upconn *u = x[0].u;
    put(u, true);
    assert_int_equal(x[2].answers, 0); /* not from within put */
    UNTIL(b, x[2].answers == 1);
    assert_ptr_equal(x[2].u, u); /* first come, first served */
    assert_true(u->reused);
    put(u, true); /* the fresh one is next: this connection makes place for it */
    UNTIL(b, x[4].u);
    assert_false(x[4].u->reused);
    assert_int_equal(b->server.accepted, 3);
    put(x[1].u, false); /* a place, and no connection: one is made */
    UNTIL(b, x[5].u);
    assert_int_equal(x[3].answers, 0);
    assert_int_equal(pool_of(b)->open, 2);
    put(x[4].u, true), put(x[5].u, true);
    assert_int_equal(b->w.counters->upstream_idle, 2);
    assert_null(get(b, &x[0], true)); /* fresh, with all places taken by idle ones: the oldest goes */
    UNTIL(b, x[0].u);
    assert_int_equal(pool_of(b)->open, 2);
    put(x[0].u, true);
}

static void test_queue_full(void **state) {
    struct bench *b = *state;
    static struct wish x[POOL_WAITING_MAX + 2];
    pool_of(b)->max_connections = 1;
    for (int i = 0; i < POOL_WAITING_MAX + 2; i++)
        assert_null(get(b, &x[i], false));
    UNTIL(b, x[0].u && x[POOL_WAITING_MAX + 1].answers);
    assert_int_equal(x[POOL_WAITING_MAX + 1].error, UP_BUSY);
    assert_int_equal(words(b)->failures, 0);
    for (int i = 0; i < 100; i++) { /* in order, over one connection */
        struct upconn *u = x[i].u;
        put(u, true);
        UNTIL(b, x[i + 1].answers);
        assert_ptr_equal(x[i + 1].u, u);
    }
    for (int i = 101; i <= POOL_WAITING_MAX; i++)
        upstream_cancel(&x[i].ticket);
    put(x[100].u, false);
}

/* Withdrawn at each stage; what was made for it serves others. */
static void test_cancel(void **state) {
    struct bench *b = *state;
    struct wish x, y;
    get(b, &x, false);
    upstream_cancel(&x.ticket);
    UNTIL(b, b->w.counters->upstream_idle == 1);
    assert_int_equal(x.answers, 0);
    assert_non_null(get(b, &y, false));
    assert_true(y.u->reused); /* as old as idle ones are: may be tried again */
    pool_of(b)->max_connections = 1;
    get(b, &x, false);
    put(y.u, true);              /* promised to x … */
    upstream_cancel(&x.ticket);  /* … who does not want it any more */
    assert_int_equal(b->w.counters->upstream_idle, 1);
    settle(b);
    assert_int_equal(x.answers, 0);
    struct up_ticket never = { 0 };
    upstream_cancel(&never);
}

/* A connection that dies between promise and delivery is not handed over. */
static void test_promised_dies(void **state) {
    struct bench *b = *state;
    struct wish x, y;
    pool_of(b)->max_connections = 1;
    get(b, &x, false);
    UNTIL(b, x.u);
    get(b, &y, false);
    server_hang_up(&b->server, 0);
    struct epoll_event e; /* the end is there before the turn that delivers begins */
    assert_int_equal(epoll_wait(b->w.loop.epfd, &e, 0 + 1, 1000), 1);
    struct upconn *u = x.u;
    put(u, true);
    u->watch.fn(&u->watch, EPOLLIN | EPOLLRDHUP);
    UNTIL(b, y.answers == 1);
    assert_non_null(y.u);
    assert_int_equal(b->server.accepted, 2);
    talk(b, &y);
    put(y.u, false);
}

/* ---- connecting -------------------------------------------------------------------------------------------------- */

static unsigned resolve_asked(struct bench *b) {
    struct ipc_frame f;
    unsigned n = 0;
    while (ipc_recv(&b->master, &f) == 1) {
        assert_int_equal(f.h.type, IPC_RESOLVE_NOW);
        uint32_t id;
        memcpy(&id, f.payload.ptr, sizeof id);
        assert_int_equal(id, UPSTREAM_ID);
        n++;
    }
    return n;
}

static void publish(struct bench *b, const char *const *list, uint32_t n) {
    struct shm_address a[4] = { { .family = 4 }, { .family = 4 }, { .family = 4 }, { .family = 4 } };
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(inet_pton(AF_INET, list[i], a[i].bytes), 1);
    shm_addresses_publish(&b->w.shm, UPSTREAM_ID, a, n, b->w.loop.now_ns);
}

static void use_config(struct bench *b, struct config *c) {
    upstream_snapshot(&b->w, &c->snap);
    free(b->config);
    b->config = c;
}

static void test_refused(void **state) {
    struct bench *b = *state;
    struct wish x;
    uint16_t port = b->server.port;
    server_stop(&b->server);
    use_config(b, config_new(2, "name.test", port));
    publish(b, (const char *const[]){ "127.0.0.1" }, 1);
    for (int i = 0; i < 3; i++) {
        assert_true(upstream_usable(&b->w, b->config->up));
        assert_null(get(b, &x, false));
        UNTIL(b, x.answers);
        assert_int_equal(x.error, UP_REFUSED);
        upstream_report(&b->w, b->config->up, false, 0);
    }
    assert_false(upstream_usable(&b->w, b->config->up)); /* three refusals are enough */
    assert_int_equal(resolve_asked(b), 1);               /* at most one a second */
    assert_int_equal(b->w.counters->upstream_open, 0);
}

static void test_next_address(void **state) {
    struct bench *b = *state;
    struct wish x[4];
    use_config(b, config_new(2, "name.test", b->server.port));
    publish(b, (const char *const[]){ "127.0.0.9", "127.0.0.8", "127.0.0.1" }, 3); /* only the last one listens */
    for (int i = 0; i < 4; i++) {
        get(b, &x[i], true);
        UNTIL(b, x[i].answers);
        assert_non_null(x[i].u);
    }
    struct pool *p = pool_of(b);
    assert_true(p->bad_until_ns[0] > b->w.loop.now_ns || p->bad_until_ns[1] > b->w.loop.now_ns);
    assert_true(p->bad_until_ns[2] == 0);
    assert_int_equal(resolve_asked(b), 0);
    for (int i = 0; i < 4; i++)
        put(x[i].u, false);
    assert_int_equal(words(b)->unreachable, 0);
}

/* A name that has no address yet is waited for; one that resolved to nothing fails at once. */
static void test_name(void **state) {
    struct bench *b = *state;
    struct wish x;
    memset(&b->w.shm.addresses[UPSTREAM_ID], 0, sizeof b->w.shm.addresses[0]);
    use_config(b, config_new(2, "name.test", b->server.port));
    get(b, &x, false);
    settle(b);
    assert_int_equal(x.answers, 0);
    assert_true(resolve_asked(b) <= 1); /* the process may have asked in an earlier test, within the second */
    publish(b, (const char *const[]){ "127.0.0.1" }, 1);
    UNTIL(b, x.u);
    put(x.u, false);
    publish(b, NULL, 0);
    get(b, &x, false);
    settle(b);
    assert_int_equal(x.answers, 1);
    assert_int_equal(x.error, UP_NO_ADDRESS);
}

static void test_connect_timeout(void **state) {
    struct bench *b = *state;
    struct wish x;
    struct server deaf; /* its queue of connections is full: SYNs are dropped */
    server_start(&deaf, &b->w.loop, "127.0.0.7", b->server.port, 0);
    loop_unwatch(&b->w.loop, &deaf.watch);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(deaf.port),
                             .sin_addr.s_addr = inet_addr("127.0.0.7") };
    int fill[2];
    for (int i = 0; i < 2; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(fill[i], (struct sockaddr *)&a, sizeof a);
    }
    struct config *c = config_new(2, "127.0.0.7", deaf.port);
    c->up[0].connect_timeout_ms = 60;
    use_config(b, c);
    get(b, &x, false);
    UNTIL(b, x.answers);
    assert_int_equal(x.error, UP_CONNECT_TIMEOUT);
    c = config_new(3, "name.test", b->server.port); /* of two addresses the deaf one costs its share, not all */
    c->up[0].connect_timeout_ms = 2000;
    use_config(b, c);
    pool_of(b)->rotation = 0;
    publish(b, (const char *const[]){ "127.0.0.7", "127.0.0.1" }, 2);
    get(b, &x, false);
    UNTIL(b, x.answers);
    assert_non_null(x.u);
    put(x.u, false);
    close(fill[0]), close(fill[1]);
    server_stop(&deaf);
}

/* ---- reload ------------------------------------------------------------------------------------------------------ */

static void test_reload(void **state) {
    struct bench *b = *state;
    struct wish idle, busy, wait;
    get(b, &idle, false), get(b, &busy, false);
    UNTIL(b, idle.u && busy.u);
    struct upconn *kept = idle.u;
    put(idle.u, true);
    struct config *c = config_new(2, "127.0.0.1", b->server.port);
    c->up[0].keepalive = 7;
    use_config(b, c);
    assert_int_equal(pool_of(b)->keepalive, 7);
    assert_ptr_equal(get(b, &idle, false), kept); /* nothing that matters for a connection changed */
    put(kept, true);
    struct config *old = b->config;
    b->config = NULL;
    use_config(b, config_new(3, "127.0.0.2", b->server.port)); /* another host */
    assert_int_equal(b->w.counters->upstream_idle, 0);
    assert_int_equal(b->w.counters->upstream_open, 1); /* the one in use goes with its request */
    talk(b, &busy);
    put(busy.u, true);
    assert_int_equal(b->w.counters->upstream_open, 0);
    /* An exchange of the old configuration may still want a connection. */
    memset(&wait, 0, sizeof wait);
    wait.ticket.on_ready = on_ready;
    assert_null(upstream_get(&b->w, &old->snap, &old->up[0], &wait.ticket, false));
    UNTIL(b, wait.u);
    talk(b, &wait);
    put(wait.u, true);
    assert_int_equal(b->w.counters->upstream_open, 0);
    assert_null(b->w.upstreams->pools->next); /* the old pool is gone */
    free(old);
}

/* ---- circuit and keys -------------------------------------------------------------------------------------------- */

static void wait_ms(struct bench *b, uint64_t ms) {
    uint64_t until = b->w.loop.now_ns + ms * 1000000;
    while (b->w.loop.now_ns < until)
        loop_turn(&b->w.loop, (int)((until - b->w.loop.now_ns) / 1000000 + 1));
}

static void test_circuit(void **state) {
    struct bench *b = *state;
    const struct snap_upstream *up = &b->config->up[0];
    for (int i = 0; i < 4; i++)
        upstream_report(&b->w, up, false, 0);
    upstream_report(&b->w, up, true, 900); /* in a row is what counts */
    assert_int_equal(words(b)->latency_us, 900);
    for (int i = 0; i < 4; i++)
        upstream_report(&b->w, up, false, 0);
    assert_true(upstream_usable(&b->w, up));
    upstream_report(&b->w, up, false, 0);
    assert_int_equal(words(b)->circuit, CIRCUIT_OPEN);
    assert_false(upstream_usable(&b->w, up));
    struct worker other = b->w; /* shares the words */
    wait_ms(b, 80);
    other.loop.now_ns = b->w.loop.now_ns;
    assert_true(upstream_usable(&b->w, up)); /* one may try */
    assert_false(upstream_usable(&other, up));
    assert_false(upstream_usable(&b->w, up));
    upstream_report(&b->w, up, false, 0);
    assert_int_equal(words(b)->circuit, CIRCUIT_OPEN);
    assert_false(upstream_usable(&b->w, up));
    wait_ms(b, 80);
    other.loop.now_ns = b->w.loop.now_ns;
    assert_true(upstream_usable(&other, up));
    upstream_report(&other, up, true, 1000);
    assert_int_equal(words(b)->circuit, CIRCUIT_CLOSED);
    assert_true(upstream_usable(&b->w, up) && upstream_usable(&b->w, up));
    words(b)->drained = 1;
    assert_false(upstream_usable(&b->w, up));
}

static void test_keys(void **state) {
    struct bench *b = *state;
    struct snap_upstream *up = &b->config->up[0];
    uint32_t rotation = 0;
    uint64_t until = 1;
    assert_int_equal(upstream_pick_key(&b->w, up, &rotation, &until), -1);
    assert_int_equal(until, 0); /* it has none */
    up->keys.count = 3;
    for (int i = 0; i < 6; i++)
        assert_int_equal(upstream_pick_key(&b->w, up, &rotation, &until), i % 3);
    upstream_cool_key(&b->w, up, 1, 1000);
    upstream_cool_key(&b->w, up, 1, 10); /* never shortened */
    assert_int_equal(upstream_pick_key(&b->w, up, &rotation, NULL), 0);
    assert_int_equal(upstream_pick_key(&b->w, up, &rotation, NULL), 2);
    upstream_cool_key(&b->w, up, 0, 500);
    upstream_cool_key(&b->w, up, 2, 2000);
    upstream_cool_key(&b->w, up, -1, 1), upstream_cool_key(&b->w, up, 99, 1);
    assert_int_equal(upstream_pick_key(&b->w, up, &rotation, &until), -1);
    assert_int_equal(until, b->w.loop.now_ns + 500000000ull);
}

/* Two workers, one check an interval; a check closes a circuit that was opened by failures to connect, and no other. */
static void test_probe(void **state) {
    struct bench *b = *state;
    struct worker second;
    worker_start(&second, &b->shm->shm, 1);
    struct config *c = config_new(2, "127.0.0.1", b->server.port);
    c->up[0].probe_ms = 40;
    use_config(b, c);
    upstream_snapshot(&second, &c->snap);
    uint64_t start = b->w.loop.now_ns;
    while (b->w.loop.now_ns < start + 300000000ull) {
        loop_turn(&b->w.loop, 2);
        loop_turn(&second.loop, 2);
    }
    uint64_t periods = (b->w.loop.now_ns - start) / 40000000ull;
    assert_true(b->server.accepted >= 3 && b->server.accepted <= periods + 1);
    assert_true(words(b)->last_success_ns > start);
    assert_true(b->w.counters->upstream_idle + second.counters->upstream_idle >= 1); /* kept warm */
    uint16_t port = b->server.port;
    server_stop(&b->server);
    for (int i = 0; i < 100 && words(b)->circuit != CIRCUIT_OPEN; i++) {
        loop_turn(&b->w.loop, 10);
        loop_turn(&second.loop, 10);
    }
    assert_int_equal(words(b)->circuit, CIRCUIT_OPEN); /* without one request */
    server_start(&b->server, &b->w.loop, "127.0.0.1", port, 10);
    UNTIL(b, words(b)->circuit == CIRCUIT_CLOSED);
    for (int i = 0; i < 5; i++) /* it answers 500s: connecting proves nothing */
        upstream_report(&b->w, b->config->up, false, 0);
    unsigned accepted = b->server.accepted;
    UNTIL(b, b->server.accepted > accepted);
    settle(b);
    assert_int_equal(words(b)->circuit, CIRCUIT_OPEN);
    worker_end(&second);
    wait_ms(b, 1); /* the server sees the ends */
}

/* ---- TLS --------------------------------------------------------------------------------------------------------- */

static void use_tls(struct bench *b, const char *ca, const char *cert, const char *host) {
    char err[200], name[20];
    snprintf(name, sizeof name, "%s.pem", cert);
    struct slice cert_pem = load_file(name), ca_pem = load_file(ca);
    snprintf(name, sizeof name, "%s.key", cert);
    struct slice key_pem = load_file(name);
    b->server.tls = tls_server_new(cert_pem, key_pem, err, sizeof err);
    assert_non_null(b->server.tls);
    struct config *c = config_new(b->config->snap.generation + 1, host, b->server.port);
    c->up[0].tls = 1;
    c->up[0].connect_timeout_ms = 2000;
    c->ca = (struct snap_ca){ .hash = 77, .pem = put_text(c, ca_pem) };
    publish(b, (const char *const[]){ "127.0.0.1" }, 1);
    use_config(b, c);
    free((char *)cert_pem.ptr), free((char *)ca_pem.ptr), free((char *)key_pem.ptr);
}

static void test_tls(void **state) {
    struct bench *b = *state;
    struct wish x[4];
    use_tls(b, "ca.pem", "ec", "good.test");
    for (int i = 0; i < 4; i++)
        get(b, &x[i], false);
    for (int i = 0; i < 4; i++) {
        UNTIL(b, x[i].answers);
        assert_non_null(x[i].u);
        talk(b, &x[i]);
    }
    for (int i = 0; i < 4; i++)
        put(x[i].u, i == 0);
    settle(b);
    assert_non_null(get(b, &x[0], false));
    talk(b, &x[0]);
    put(x[0].u, false);
    get(b, &x[1], false);
    UNTIL(b, x[1].u);
    talk(b, &x[1]);
    assert_int_equal(b->w.counters->tls_full_handshakes, 4);
    assert_int_equal(b->w.counters->tls_resumed, 1);
    put(x[1].u, true);
    server_hang_up(&b->server, 0); /* with close_notify */
    UNTIL(b, b->w.counters->upstream_idle == 0);
}

static void test_tls_failures(void **state) {
    struct bench *b = *state;
    struct wish x;
    use_tls(b, "ca.pem", "ec", "bad.test");
    get(b, &x, false);
    UNTIL(b, x.answers);
    assert_int_equal(x.error, UP_TLS);
    assert_int_equal(words(b)->unreachable, 1);
    tls_server_free(b->server.tls);
    use_tls(b, "other.pem", "ec", "good.test");
    get(b, &x, false);
    UNTIL(b, x.answers);
    assert_int_equal(x.error, UP_TLS);
    b->server.silent = true; /* connects, and says nothing: connect_timeout covers the handshake */
    struct config *c = config_new(9, "good.test", b->server.port);
    c->up[0].tls = 1;
    c->up[0].connect_timeout_ms = 50;
    c->ca = (struct snap_ca){ .hash = 78, .pem = put_text(c, snap_text(&b->config->snap, b->config->ca.pem)) };
    use_config(b, c);
    get(b, &x, false);
    UNTIL(b, x.answers);
    assert_int_equal(x.error, UP_CONNECT_TIMEOUT);
    get(b, &x, false);
    settle(b);
    for (unsigned i = 0; i < SERVER_CONNS; i++)
        server_hang_up(&b->server, i); /* hangs up in the middle */
    UNTIL(b, x.answers);
    assert_int_equal(x.error, UP_TLS);
    c = config_new(10, "good.test", b->server.port);
    c->up[0].tls = 1;
    c->ca = (struct snap_ca){ .hash = 79, .pem = put_text(c, SLICE("no bundle")) };
    use_config(b, c);
    get(b, &x, false);
    UNTIL(b, x.answers);
    assert_int_equal(x.error, UP_TLS);
}

static int group_setup(void **state) {
    (void)state;
    return make_certificate_dir() == 0 ? tls_init() : -1;
}

static int group_teardown(void **state) {
    (void)state;
    tls_exit();
    return drop_certificate_dir();
}

#define UP_TEST(f) cmocka_unit_test_setup_teardown(f, bench_setup, bench_teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        UP_TEST(test_reuse), UP_TEST(test_newest_first_and_keepalive), UP_TEST(test_idle_ends), UP_TEST(test_idle_age),
        UP_TEST(test_waiting), UP_TEST(test_queue_full), UP_TEST(test_cancel), UP_TEST(test_promised_dies),
        UP_TEST(test_refused), UP_TEST(test_next_address), UP_TEST(test_name), UP_TEST(test_connect_timeout),
        UP_TEST(test_reload), UP_TEST(test_circuit), UP_TEST(test_keys), UP_TEST(test_probe),
        UP_TEST(test_tls), UP_TEST(test_tls_failures),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
