/* epoll and deadlines. See events.h.
 *
 * A failing epoll_wait other than EINTR is a broken program (a bad descriptor): an assertion. */
#include "master/events.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/check.h"

uint64_t events_mono_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t events_wall_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

int events_open(struct events *l) {
    *l = (struct events){ .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
    if (l->epoll_fd < 0) return -errno;
    l->now_ns = events_mono_ns();
    return 0;
}

void events_close(struct events *l) {
    if (l->epoll_fd >= 0) close(l->epoll_fd);
    l->epoll_fd = -1;
    l->timers = NULL;
}

int events_watch(struct events *l, struct watch *w, int fd, uint32_t events, void (*fn)(struct watch *, uint32_t)) {
    *w = (struct watch){ .fd = fd, .events = events, .fn = fn };
    struct epoll_event e = { .events = events, .data.ptr = w };
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) == 0) return 0;
    w->fd = -1;
    return -errno;
}

void events_change(struct events *l, struct watch *w, uint32_t events) {
    if (w->fd < 0 || w->events == events) return;
    struct epoll_event e = { .events = events, .data.ptr = w };
    CHECK(epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, w->fd, &e) == 0);
    w->events = events;
}

void events_unwatch(struct events *l, struct watch *w) {
    if (!w->fn || w->fd < 0) return;
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    w->fd = -1;
}

void events_timer_clear(struct events *l, struct timer *t) {
    if (!t->armed) return;
    for (struct timer **at = &l->timers; *at; at = &(*at)->next) {
        if (*at != t) continue;
        *at = t->next;
        break;
    }
    t->armed = false;
}

void events_timer_set(struct events *l, struct timer *t, uint64_t delay_ms, void (*fn)(struct timer *)) {
    events_timer_clear(l, t);
    *t = (struct timer){ .next = l->timers, .armed = true, .at_ns = events_mono_ns() + delay_ms * 1000000u, .fn = fn };
    l->timers = t;
}

static struct timer *due(struct events *l) {
    for (struct timer *t = l->timers; t; t = t->next) {
        if (t->at_ns <= l->now_ns) return t;
    }
    return NULL;
}

/* Runs what is due, one by one, since a callback may clear any other timer. Those armed meanwhile wait for the next
 * turn. */
static void run_timers(struct events *l) {
    l->now_ns = events_mono_ns();
    struct timer *t;
    while (!l->stop && (t = due(l))) {
        events_timer_clear(l, t);
        t->fn(t);
    }
}

static int wait_ms(const struct events *l) {
    uint64_t first = UINT64_MAX;
    for (const struct timer *t = l->timers; t; t = t->next) {
        if (t->at_ns < first) first = t->at_ns;
    }
    if (first == UINT64_MAX) return -1;
    uint64_t now = events_mono_ns();
    if (first <= now) return 0;
    uint64_t ms = (first - now + 999999) / 1000000;
    return ms > 3600000 ? 3600000 : (int)ms;
}

void events_run(struct events *l) {
    while (!l->stop) {
        run_timers(l);
        if (l->stop) return;
        struct epoll_event e;
        int n = epoll_wait(l->epoll_fd, &e, 1, wait_ms(l));
        CHECK(n >= 0 || errno == EINTR);
        l->now_ns = events_mono_ns();
        if (n != 1) continue;
        struct watch *w = e.data.ptr;
        w->fn(w, e.events);
    }
}
