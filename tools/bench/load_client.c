/* One connection of load.c: a request at a time, its answer framed and its events counted as they come.
 *
 * A kept connection that the server closed before it answered is tried once more on a fresh one, as HTTP clients do;
 * everything else that goes wrong is counted and the client goes on with a new connection. */
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench/load.h"

enum { HEAD_MAX = 65536, READ_BYTES = 65536 };

uint64_t load_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void client_close(struct client *c) {
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->reused = false;
    buf_release(&c->head);
}

static void over(struct load *l, struct client *c) {
    c->state = CLIENT_OFF;
    c->made++;
    l->t.done++;
    load_next(l, c);
}

static void failed(struct load *l, struct client *c, uint64_t *counter) {
    bool again = c->reused && !c->retried && c->state != CLIENT_BODY && c->head.len == 0;
    client_close(c);
    if (again) {
        l->t.reconnects++;
        uint64_t start_ns = c->start_ns;
        client_start(l, c, start_ns);
        c->retried = true;
        l->t.started--;
        return;
    }
    ++*counter;
    over(l, c);
}

static void send_more(struct load *l, struct client *c) {
    struct slice all = l->requests.at[c->request % l->requests.count];
    c->state = CLIENT_SENDING;
    while (c->sent < all.len) {
        ssize_t n = send(c->fd, all.ptr + c->sent, all.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            failed(l, c, &l->t.cut);
            return;
        }
        c->sent += (size_t)n;
    }
    c->state = CLIENT_HEAD;
}

static bool open_socket(struct load *l, struct client *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return false;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    int rc = connect(c->fd, (struct sockaddr *)&l->address, sizeof l->address);
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c };
    if ((rc < 0 && errno != EINPROGRESS) || epoll_ctl(l->epfd, EPOLL_CTL_ADD, c->fd, &ev) < 0) {
        client_close(c);
        return false;
    }
    c->state = rc < 0 ? CLIENT_CONNECTING : CLIENT_SENDING;
    return true;
}

void client_start(struct load *l, struct client *c, uint64_t start_ns) {
    c->start_ns = start_ns;
    c->event_ns = 0;
    c->request = (uint32_t)l->t.started++;
    c->sent = c->head_scanned = 0;
    c->events = 0;
    c->begin_len = 0;
    c->retried = c->ended = c->newline = false;
    if (l->o.fresh)
        client_close(c);
    if (c->fd < 0 && !open_socket(l, c)) {
        l->t.refused++;
        over(l, c);
        return;
    }
    if (c->state != CLIENT_CONNECTING)
        send_more(l, c);
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

static void count_event(struct load *l, struct client *c, uint64_t now_ns) {
    c->events++;
    l->t.events++;
    if (l->measuring && c->event_ns)
        hist_add(&l->gap, now_ns - c->event_ns);
    c->event_ns = now_ns;
}

/* Counts blank lines, and looks at how each event begins. In a dialect whose mark stands within, that is looked for in
 * the bytes at hand: the generator's provider writes an event at a time. */
static void scan_events(struct load *l, struct client *c, struct slice s, uint64_t now_ns) {
    const char *mark = l->o.kind->end_mark;
    size_t mark_len = strlen(mark);
    if (l->o.kind->in_event && memmem(s.ptr, s.len, mark, mark_len))
        c->ended = true;
    for (const char *p = s.ptr, *end = s.ptr + s.len; p < end;) {
        if (c->newline && *p == '\r') { /* Gemini's lines end in both */
            p++;
            continue;
        }
        if (c->newline && *p == '\n') {
            count_event(l, c, now_ns);
            c->begin_len = 0;
            c->newline = false;
            p++;
            continue;
        }
        c->newline = false;
        while (p < end && c->begin_len < mark_len && c->begin_len < sizeof c->begin && *p != '\n')
            c->begin[c->begin_len++] = *p++;
        if (c->begin_len == mark_len && memcmp(c->begin, mark, mark_len) == 0)
            c->ended = true;
        const char *line = memchr(p, '\n', (size_t)(end - p));
        if (!line)
            return;
        c->begin_len = sizeof c->begin; /* the event's first line is over */
        c->newline = true;
        p = line + 1;
    }
}

/* True: the client may read on; false: the answer is over and the connection may be another's by now. */
static bool take_body(struct load *l, struct client *c, struct slice in, uint64_t now_ns) {
    while (in.len > 0 || c->reader.done || c->reader.kind == HTTP_BODY_NONE) {
        struct slice data = SLICE_NONE;
        size_t used = 0;
        enum http_result r = http_reader_next(&c->reader, in, &data, &used);
        l->t.bytes += data.len;
        if (c->event_stream && data.len > 0)
            scan_events(l, c, data, now_ns);
        if (r == HTTP_BAD) {
            failed(l, c, &l->t.garbled);
            return false;
        }
        if (l->o.abort_after && c->events >= l->o.abort_after) {
            client_close(c);
            l->t.aborted++;
            over(l, c);
            return false;
        }
        if (r == HTTP_OK) {
            l->t.ok += c->status == 200;
            l->t.status[c->status]++;
            if (l->measuring)
                hist_add(&l->latency, now_ns - c->start_ns);
            if (c->status == 200 && c->event_stream && !c->ended)
                l->t.unfinished++;
            if (!c->keep)
                client_close(c);
            else
                c->reused = true;
            over(l, c);
            return false;
        }
        in = slice_from(in, used);
        if (used == 0)
            break;
    }
    return true;
}

static bool take_head(struct load *l, struct client *c, struct slice in, uint64_t now_ns) {
    static struct http_head head;
    if (!buf_append_slice(&c->head, in)) {
        failed(l, c, &l->t.garbled);
        return false;
    }
    switch (http_parse_response(&head, buf_slice(&c->head), &c->head_scanned, false)) {
    case HTTP_MORE: return true;
    case HTTP_BAD: failed(l, c, &l->t.garbled); return false;
    case HTTP_OK: break;
    }
    if (l->measuring)
        hist_add(&l->first, now_ns - c->start_ns);
    if (!c->answered) {
        c->answered = true;
        l->answered++;
    }
    const struct http_header *type = http_find(&head, SLICE("content-type"));
    c->event_stream = type && slice_starts(type->value, SLICE("text/event-stream"));
    c->status = head.status < 600 ? head.status : 599;
    c->keep = head.keep_alive;
    c->state = CLIENT_BODY;
    http_reader_init(&c->reader, head.body, head.content_length);
    struct buf rest = c->head; /* the body may end the request and begin another on this client */
    buf_init(&c->head, &l->pages, HEAD_MAX);
    bool more = take_body(l, c, slice_from(buf_slice(&rest), head.bytes), now_ns);
    buf_release(&rest);
    return more;
}

/* hangup: the peer's end was signalled, so a short read is not the last. */
static void read_all(struct load *l, struct client *c, bool hangup) {
    static char bytes[READ_BYTES];
    for (;;) {
        ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            if (c->state == CLIENT_OFF)
                client_close(c);
            else
                failed(l, c, c->state == CLIENT_CONNECTING ? &l->t.refused : &l->t.cut);
            return;
        }
        struct slice in = slice_of(bytes, (size_t)n);
        uint64_t now_ns = load_now_ns();
        if (c->state == CLIENT_OFF) { /* nobody asked */
            l->t.garbled++;
            client_close(c);
            return;
        }
        bool more = c->state == CLIENT_BODY ? take_body(l, c, in, now_ns) : take_head(l, c, in, now_ns);
        if (!more || ((size_t)n < sizeof bytes && !hangup))
            return;
    }
}

void client_event(struct load *l, struct client *c, uint32_t events) {
    if (c->fd < 0)
        return;
    if (c->state == CLIENT_CONNECTING && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        int error = 0;
        socklen_t len = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error) {
            failed(l, c, &l->t.refused);
            return;
        }
        send_more(l, c);
    } else if (c->state == CLIENT_SENDING && (events & EPOLLOUT)) {
        send_more(l, c);
    }
    if (c->fd >= 0 && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        read_all(l, c, (events & ~(uint32_t)(EPOLLIN | EPOLLOUT)) != 0);
}
