/* A child's socket pair in the event loop: frames in, frames out, and what is queued sent when there is room.
 *
 * The other end closing is no event of its own: the child is about to be reaped, and what follows is decided then. A
 * child that breaks the protocol is reported through on_gone with -EPROTO. */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/check.h"

enum { FRAMES_A_TURN = 64 }; /* the others' turn comes then; what is left wakes the loop again */

static void gone(struct wire *c, int error) {
    wire_close(c);
    if (c->on_gone) c->on_gone(c, error);
}

static void close_fds(const struct ipc_frame *f) {
    for (unsigned i = 0; i < f->fd_count; i++) close(f->fds[i]);
}

static void watch_for(struct wire *c, bool writable) {
    events_change(&c->m->events, &c->watch, (c->paused ? 0 : EPOLLIN) | (writable ? EPOLLOUT : 0));
}

static void turn(struct watch *w, uint32_t events) {
    struct wire *c = CONTAINER_OF(w, struct wire, watch);
    if (events & EPOLLOUT) {
        int rc = ipc_flush(&c->ipc);
        if (rc == 0) watch_for(c, false);
        else if (rc != -EAGAIN) {
            gone(c, rc);
            return;
        }
    }
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    for (int i = 0; i < FRAMES_A_TURN && c->open; i++) {
        struct ipc_frame f;
        int rc = ipc_recv(&c->ipc, &f);
        if (rc == 0) return;
        if (rc < 0) {
            gone(c, rc);
            return;
        }
        close_fds(&f); /* no child has a descriptor to give us */
        c->on_frame(c, &f);
    }
}

int wire_open(struct wire *c, struct master *m, int fd, size_t out_max) {
    c->m = m;
    ipc_open(&c->ipc, fd, &m->pages, out_max);
    c->open = true;
    c->paused = false;
    int rc = events_watch(&m->events, &c->watch, fd, EPOLLIN, turn);
    if (rc != 0) wire_close(c);
    return rc;
}

void wire_close(struct wire *c) {
    if (!c->open) return;
    c->open = false;
    events_unwatch(&c->m->events, &c->watch);
    ipc_close(&c->ipc);
}

void wire_finish(struct wire *c) {
    struct ipc_frame f;
    while (c->open && ipc_recv(&c->ipc, &f) == 1) {
        close_fds(&f);
        c->on_frame(c, &f);
    }
    wire_close(c);
}

int wire_send(struct wire *c, const struct ipc_header *h, struct slice payload, const int *fds, unsigned n) {
    if (!c->open) return -EPIPE;
    int rc = ipc_send(&c->ipc, h, payload, fds, n);
    if (rc == -EAGAIN) {
        watch_for(c, true);
        return 0;
    }
    return rc;
}

void wire_pause(struct wire *c, bool paused) {
    c->paused = paused;
    if (c->open) watch_for(c, c->ipc.out_first != NULL);
}
