/* The control socket: tollctl and whatever else the operator has speak JSON lines to it.
 *
 * Mode 0600, and the peer's user is checked besides (root or the server's own). One line is one command; the next
 * line of a connection is looked at when the answer is out, so answers come in order without numbers. A line that
 * never ends, or an answer that nobody reads, costs one bounded buffer. A caller that leaves early drops its answer,
 * not its command. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/check.h"
#include "proto/json.h"

enum { MAX_CALLERS = 64, LINE_BYTES = IPC_MAX_PAYLOAD, OUT_BYTES = IPC_MAX_PAYLOAD + (1 << 20), READ_BYTES = 65536,
       HOLD_MS = 10000 };

static void close_conn(struct control *c) {
    struct master *m = c->m;
    for (struct control **at = &m->controls; *at; at = &(*at)->next) {
        if (*at != c) continue;
        *at = c->next;
        break;
    }
    calls_drop(m, c);
    events_timer_clear(&m->events, &c->timeout);
    int fd = c->watch.fd;
    events_unwatch(&m->events, &c->watch);
    close(fd);
    if (c->in.mem) wipe(c->in.mem, c->in.cap);
    buf_release(&c->in);
    buf_release(&c->out);
    free(c);
}

/* False: the peer is gone. */
static bool flush(struct control *c) {
    while (c->out.len > 0) {
        ssize_t n = send(c->watch.fd, buf_ptr(&c->out), c->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN;
        buf_consume(&c->out, (size_t)n);
    }
    buf_release(&c->out);
    return true;
}

static bool fill(struct control *c) {
    for (;;) {
        size_t room;
        char *to = buf_reserve(&c->in, c->in.max - c->in.len < READ_BYTES ? 1 : READ_BYTES, &room);
        if (!to) return true; /* full: run_lines says so */
        ssize_t n = recv(c->watch.fd, to, room, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN;
        if (n == 0) {
            c->eof = true;
            return true;
        }
        buf_commit(&c->in, (size_t)n);
        if (memchr(to, '\n', (size_t)n)) return true;
    }
}

/* The length of the first line, LF not counted; false: it has not ended yet. */
static bool whole_line(struct control *c, size_t *len) {
    if (c->in.len == c->scanned) return false;
    const char *from = buf_ptr(&c->in) + c->scanned;
    const char *lf = memchr(from, '\n', c->in.len - c->scanned);
    if (!lf) {
        c->scanned = c->in.len;
        return false;
    }
    *len = (size_t)(lf - buf_ptr(&c->in));
    return true;
}

/* The first line is done with. It may have held whole keys. */
static void drop_line(struct control *c, size_t n) {
    wipe(buf_ptr(&c->in), n);
    buf_consume(&c->in, n + 1);
    c->scanned = 0;
}

static void run_lines(struct control *c) {
    size_t n;
    while (!c->busy && !c->gone && whole_line(c, &n)) {
        c->busy = true;
        struct slice line = slice_trim(slice_of(buf_ptr(&c->in), n > 0 && buf_ptr(&c->in)[n - 1] == '\r' ? n - 1 : n));
        if (line.len == 0) c->busy = false;
        else command_run(c, line);
        if (c->held) return;
        drop_line(c, n);
    }
    if (c->in.len == 0) buf_release(&c->in);
    if (c->busy || c->gone || c->in.len < c->in.max) return;
    c->busy = c->eof = true;
    control_error(c, "too_long", "a command has at most 32 MiB");
    c->scanned = c->in.len;
}

static bool has_line(struct control *c) {
    size_t n;
    return !c->busy && whole_line(c, &n);
}

static void turn(struct watch *w, uint32_t events) {
    struct control *c = CONTAINER_OF(w, struct control, watch);
    bool alive = !c->gone && flush(c);
    if (alive && !c->busy && !c->eof && (events & EPOLLIN)) alive = fill(c);
    if (alive) run_lines(c);
    if (alive && !c->gone) alive = flush(c);
    bool done = c->eof && !c->busy && c->out.len == 0 && !has_line(c);
    if (!alive || c->gone || done || (c->busy && (events & (EPOLLHUP | EPOLLERR)))) {
        close_conn(c);
        return;
    }
    events_change(&c->m->events, w, (c->busy || c->eof ? 0 : EPOLLIN) | (c->out.len > 0 ? EPOLLOUT : 0));
}

void control_answer(struct control *c, struct slice json) {
    CHECK(c->busy);
    c->busy = false;
    c->reload_wait = 0;
    events_timer_clear(&c->m->events, &c->timeout);
    c->gone = c->gone || !buf_append_slice(&c->out, json) || !buf_append(&c->out, "\n", 1);
    /* Sent, and the next line run, by the connection's own turn: it is writable now or soon. */
    events_change(&c->m->events, &c->watch, EPOLLIN | EPOLLOUT);
}

static void held_too_long(struct timer *t) {
    struct control *c = CONTAINER_OF(t, struct control, timeout);
    size_t n;
    c->held = false;
    if (whole_line(c, &n)) drop_line(c, n);
    control_answer(c, CALLS_UNAVAILABLE);
}

void control_hold(struct control *c) {
    CHECK(c->busy);
    c->held = true;
    events_timer_set(&c->m->events, &c->timeout, HOLD_MS, held_too_long);
}

void control_release(struct master *m) {
    for (struct control *c = m->controls; c; c = c->next) {
        if (!c->held) continue;
        c->held = c->busy = false;
        events_timer_clear(&m->events, &c->timeout);
        events_change(&m->events, &c->watch, EPOLLIN | EPOLLOUT); /* its turn runs the line again */
    }
}

void control_error(struct control *c, const char *code, const char *message) {
    struct buf b;
    struct json_writer w;
    buf_init(&b, &c->m->pages, 1 << 20);
    jw_init(&w, &b);
    ipc_write_error(&w, slice_str(code), slice_str(message));
    control_answer(c, w.failed ? SLICE("{\"error\":{\"code\":\"internal\",\"message\":\"out of memory\"}}")
                   : buf_slice(&b));
    buf_release(&b);
}

void control_reload_starts(struct master *m) {
    for (struct control *c = m->controls; c; c = c->next) {
        if (c->reload_wait == 2) c->reload_wait = 1;
    }
}

void control_reload_done(struct master *m, const char *errors) {
    char text[64];
    int n = snprintf(text, sizeof text, "{\"result\":{\"generation\":%llu}}",
                     (unsigned long long)(m->config ? m->config->generation : 0));
    for (struct control *c = m->controls; c; c = c->next) {
        if (c->reload_wait != 1) continue;
        if (errors) control_error(c, "invalid_configuration", errors);
        else control_answer(c, slice_of(text, (size_t)n));
    }
}

static void accept_one(struct watch *w, uint32_t events) {
    (void)events;
    struct master *m = CONTAINER_OF(w, struct master, control_watch);
    int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    struct ucred peer;
    socklen_t len = sizeof peer;
    unsigned callers = 0;
    for (const struct control *c = m->controls; c; c = c->next) callers++;
    bool allowed = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
        (peer.uid == 0 || peer.uid == geteuid());
    if (!allowed || callers >= MAX_CALLERS) {
        static const char no[] =
            "{\"error\":{\"code\":\"forbidden\",\"message\":\"another user, or too many connections\"}}\n";
        send(fd, no, sizeof no - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        close(fd);
        return;
    }
    struct control *c = calloc(1, sizeof *c);
    CHECK(c);
    c->m = m;
    buf_init(&c->in, &m->pages, LINE_BYTES);
    buf_init(&c->out, &m->pages, OUT_BYTES);
    if (events_watch(&m->events, &c->watch, fd, EPOLLIN, turn) != 0) {
        close(fd);
        free(c);
        return;
    }
    c->next = m->controls;
    m->controls = c;
}

int control_listen(struct master *m, const char *path, char *err, size_t err_len) {
    char address[256];
    snprintf(address, sizeof address, "unix:%s", path);
    m->control_fd = sockets_open(address, 0600, err, err_len);
    if (m->control_fd < 0) return m->control_fd;
    return control_adopt(m);
}

int control_adopt(struct master *m) {
    return events_watch(&m->events, &m->control_watch, m->control_fd, EPOLLIN, accept_one);
}

void control_close_listener(struct master *m) {
    if (m->control_fd < 0) return;
    events_unwatch(&m->events, &m->control_watch);
    close(m->control_fd);
    m->control_fd = -1;
    unlink(m->control_path);
}

void control_close_all(struct master *m) {
    while (m->controls) {
        flush(m->controls);
        close_conn(m->controls);
    }
}

void control_forget(struct master *m) {
    for (struct control *c = m->controls; c; c = c->next) {
        if (c->in.mem) wipe(c->in.mem, c->in.cap);
        if (c->out.mem) wipe(c->out.mem, c->out.cap);
    }
}
