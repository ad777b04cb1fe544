/* mock: a provider that answers at once, for load tests. It speaks chat completions, Messages, Responses, Gemini and
 * embeddings, plain and over TLS; what a call gets stands in its model's name (mock.h). GET /stats says what it did, so
 * that both ends of a test can be compared.
 *
 * It runs on the worker's own loop and byte layer: what is measured stands between two such programs, not in them. One
 * thread. A connection's answer is a list of rendered pieces; each is one write.
 *
 * usage: mock PORT [TLS_PORT CERTIFICATE KEY] */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/check.h"
#include "proto/http/http.h"
#include "tools/bench/mock.h"
#include "worker/io.h"
#include "worker/loop.h"

enum { IN_MAX = 64 << 20, READ_AHEAD = 8192 };

static struct loop loop;
static struct pages pages;
static struct { uint64_t connections, requests, completed, cut, tokens; } stats;

struct listener { struct watch watch; struct tls_server *tls; };

struct peer {
    struct watch watch;
    struct io io;
    struct buf in;
    size_t scanned;
    bool shaking, readable, hangup, hanging;
    const struct script *script; /* under way; NULL: a request is awaited */
    uint32_t piece;
    size_t sent;                 /* of the piece */
    struct timer timer;          /* before the next piece */
    bool waiting;
    uint32_t own_len, own_sent;  /* an answer that is not from a script (stats) */
    char own[512];
};

static void peer_close(struct peer *p) {
    stats.cut += p->script != NULL;
    loop_timer_off(&loop, &p->timer);
    loop_forget(&loop, &p->watch);
    io_close(&p->io);
    buf_release(&p->in);
    free(p);
}

static void peer_reset(struct peer *p) {
    struct linger now = { .l_onoff = 1 };
    setsockopt(p->io.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    peer_close(p);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static enum mock_dialect dialect_of(struct slice path) {
    static const struct { const char *part; enum mock_dialect dialect; } paths[] = {
        { "/chat/completions", MOCK_CHAT }, { "/messages", MOCK_MESSAGES }, { "/responses", MOCK_RESPONSES },
        { "enerateContent", MOCK_GEMINI },  { "/embeddings", MOCK_EMBEDDINGS },
    };
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        if (memmem(path.ptr, path.len, paths[i].part, strlen(paths[i].part)))
            return paths[i].dialect;
    return MOCK_NOTHING;
}

/* From behind `begin` to the next `end`. */
static struct slice between(struct slice in, const char *begin, char end) {
    const char *p = memmem(in.ptr, in.len, begin, strlen(begin));
    if (!p)
        return SLICE("mock");
    p += strlen(begin);
    const char *stop = memchr(p, end, (size_t)(in.ptr + in.len - p));
    return stop ? slice_of(p, (size_t)(stop - p)) : SLICE("mock");
}

static void answer_stats(struct peer *p) {
    char body[200];
    int n = snprintf(body, sizeof body,
                     "{\"connections\":%llu,\"requests\":%llu,\"completed\":%llu,\"cut\":%llu,\"tokens\":%llu}",
                     (unsigned long long)stats.connections, (unsigned long long)stats.requests,
                     (unsigned long long)stats.completed, (unsigned long long)stats.cut,
                     (unsigned long long)stats.tokens);
    p->own_len = (uint32_t)snprintf(p->own, sizeof p->own,
                                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                                    n, body);
    p->own_sent = 0;
}

static void request(struct peer *p, const struct http_head *head, struct slice body) {
    if (slice_is(head->path, "/stats")) {
        answer_stats(p);
        return;
    }
    enum mock_dialect dialect = dialect_of(head->path);
    bool in_path = dialect == MOCK_GEMINI;
    struct slice model = in_path ? between(head->path, "/models/", ':') : between(body, "\"model\":\"", '"');
    bool stream = in_path ? memmem(head->path.ptr, head->path.len, ":stream", 7) != NULL
                          : memmem(body.ptr, body.len, "\"stream\":true", 13) != NULL;
    struct spec spec;
    spec_parse(&spec, model);
    static uint64_t faulty; /* requests whose model fails now and then */
    bool failing = spec.fault != FAULT_NONE && ++faulty % spec.every == 0;
    stats.requests++;
    p->script = script_find(&pages, dialect, stream, failing, model);
    CHECK(p->script);
    p->piece = 0;
    p->sent = 0;
    p->hanging = failing && spec.fault == FAULT_HANG;
    if (spec.first_ms > 0) {
        p->waiting = true;
        loop_timer(&loop, &p->timer, spec.first_ms);
    }
}

/* Takes one request out of what came; false: it is not all there. */
static bool next_request(struct peer *p) {
    static struct http_head head;
    enum http_result r = p->in.len ? http_parse_request(&head, buf_slice(&p->in), &p->scanned) : HTTP_MORE;
    size_t length = r == HTTP_OK && head.body == HTTP_BODY_SIZED ? (size_t)head.content_length : 0;
    if (r == HTTP_BAD || (r == HTTP_OK && (head.body == HTTP_BODY_CHUNKED || length > IN_MAX))) {
        fprintf(stderr, "mock: a request that is not understood: %s\n", http_fault_text(head.fault));
        p->hangup = true;
        return false;
    }
    if (r != HTTP_OK || p->in.len < head.bytes + length)
        return false;
    request(p, &head, slice_of(buf_ptr(&p->in) + head.bytes, length));
    buf_consume(&p->in, head.bytes + length);
    p->scanned = 0;
    if (p->in.len == 0)
        buf_release(&p->in);
    return true;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

enum step { STEP_ON, STEP_WAIT, STEP_GONE };

/* Some bytes of one run: how many went, or IO_AGAIN, or IO_ERROR. */
static ssize_t put(struct peer *p, const char *bytes, size_t len) {
    if (io_unsent(&p->io)) {
        int rc = io_flush(&p->io);
        if (rc < 0)
            return rc;
    }
    struct iovec iov = { (void *)(uintptr_t)bytes, len };
    return io_writev(&p->io, &iov, 1);
}

static enum step send_own(struct peer *p) {
    ssize_t n = put(p, p->own + p->own_sent, p->own_len - p->own_sent);
    if (n == IO_AGAIN)
        return STEP_WAIT;
    if (n < 0)
        return STEP_GONE;
    p->own_sent += (uint32_t)n;
    if (p->own_sent == p->own_len)
        p->own_len = 0;
    return STEP_ON;
}

/* The next write of the answer. A fault in the middle strikes at half of its pieces, or of its only one. */
static enum step send_piece(struct peer *p) {
    const struct script *s = p->script;
    struct slice piece = s->pieces[p->piece];
    bool breaks = s->failing && (s->spec.fault == FAULT_RESET || s->spec.fault == FAULT_CLOSE);
    if (p->hanging || p->waiting)
        return STEP_WAIT;
    if (breaks && p->piece >= s->count / 2) {
        if (s->count == 1)
            put(p, piece.ptr, piece.len / 2);
        return STEP_GONE;
    }
    ssize_t n = put(p, piece.ptr + p->sent, piece.len - p->sent);
    if (n == IO_AGAIN)
        return STEP_WAIT;
    if (n < 0)
        return STEP_GONE;
    p->sent += (size_t)n;
    if (p->sent < piece.len)
        return STEP_ON;
    p->sent = 0;
    if (++p->piece == s->count) {
        stats.completed++;
        stats.tokens += s->tokens;
        p->script = NULL;
    } else if (s->spec.delay_ms > 0) {
        p->waiting = true;
        loop_timer(&loop, &p->timer, s->spec.delay_ms);
    }
    return STEP_ON;
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

static enum step read_more(struct peer *p) {
    size_t room;
    char *at = buf_reserve(&p->in, READ_AHEAD, &room);
    if (!at)
        return STEP_GONE;
    ssize_t n = io_read(&p->io, at, room);
    if (n == IO_AGAIN) {
        p->readable = false;
        if (p->in.len == 0)
            buf_release(&p->in);
        return STEP_WAIT;
    }
    if (n < 0)
        return STEP_GONE;
    buf_commit(&p->in, (size_t)n);
    if ((size_t)n < room && !io_more(&p->io) && !p->hangup)
        p->readable = false;
    return STEP_ON;
}

static enum step step(struct peer *p) {
    if (p->own_len > 0)
        return send_own(p);
    if (p->script) /* a client that leaves shows itself when it is written to, or below where nothing is */
        return p->hangup && (p->hanging || p->waiting) ? STEP_GONE : send_piece(p);
    if (next_request(p))
        return STEP_ON;
    if (io_unsent(&p->io))
        (void)io_flush(&p->io);
    return p->readable ? read_more(p) : STEP_WAIT;
}

static void pump(struct peer *p) {
    if (p->shaking) {
        int rc = tls_handshake(p->io.tls, NULL);
        if (rc < 0)
            peer_close(p);
        if (rc <= 0)
            return;
        p->shaking = false;
        p->readable = true; /* bytes may have come with the handshake's last */
    }
    for (;;) {
        bool fault = p->script && p->script->failing && p->script->spec.fault == FAULT_RESET;
        switch (step(p)) {
        case STEP_ON: break;
        case STEP_WAIT:
            if (p->hangup && !p->script)
                peer_close(p);
            return;
        case STEP_GONE:
            if (fault)
                peer_reset(p);
            else
                peer_close(p);
            return;
        }
    }
}

static void peer_event(struct watch *w, uint32_t events) {
    struct peer *p = CONTAINER_OF(w, struct peer, watch);
    p->readable |= (events & EPOLLIN) != 0;
    p->hangup |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    pump(p);
}

static void peer_timer(struct timer *t) {
    struct peer *p = CONTAINER_OF(t, struct peer, timer);
    p->waiting = false;
    pump(p);
}

static void accept_some(struct watch *w, uint32_t events) {
    struct listener *l = CONTAINER_OF(w, struct listener, watch);
    (void)events;
    for (int i = 0; i < 64; i++) {
        int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
        if (fd < 0)
            return;
        struct peer *p = calloc(1, sizeof *p);
        CHECK(p);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        p->watch = (struct watch){ .fn = peer_event, .fd = fd };
        p->timer.fn = peer_timer;
        p->io = (struct io){ .fd = fd, .tls = l->tls ? tls_accept(l->tls, fd) : NULL };
        p->shaking = l->tls != NULL;
        buf_init(&p->in, &pages, IN_MAX);
        stats.connections++;
        CHECK((!l->tls || p->io.tls) && loop_watch(&loop, &p->watch, 0) == 0);
    }
}

static void listen_on(struct listener *l, const char *port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 4096) < 0) {
        fprintf(stderr, "mock: port %s: %s\n", port, strerror(errno));
        exit(1);
    }
    l->watch = (struct watch){ .fn = accept_some, .fd = fd };
    CHECK(loop_watch(&loop, &l->watch, EPOLLIN) == 0);
}

static struct slice file(const char *path) {
    FILE *f = fopen(path, "r");
    char *text = malloc(65536);
    size_t n = f && text ? fread(text, 1, 65535, f) : 0;
    if (n == 0) {
        fprintf(stderr, "mock: cannot read %s\n", path);
        exit(1);
    }
    fclose(f);
    text[n] = '\0';
    return slice_of(text, n);
}

int main(int argc, char **argv) {
    static struct listener plain, tls;
    char err[200] = "";
    if (argc != 2 && argc != 5) {
        fprintf(stderr, "usage: mock PORT [TLS_PORT CERTIFICATE KEY]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    pages_init(&pages, 1024);
    CHECK(loop_init(&loop) == 0);
    listen_on(&plain, argv[1]);
    if (argc == 5) {
        CHECK(tls_init() == 0);
        tls.tls = tls_server_new(file(argv[3]), file(argv[4]), err, sizeof err);
        if (!tls.tls) {
            fprintf(stderr, "mock: %s\n", err);
            return 1;
        }
        listen_on(&tls, argv[2]);
    }
    loop_run(&loop);
    return 0;
}
