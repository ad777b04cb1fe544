/* The event loop: epoll, a wheel of timers, tasks for the end of a turn.
 *
 * Nothing here allocates. A watch is the user's own memory; it is registered once, edge-triggered, and stays
 * registered. Taking one out while events that were fetched together are still being delivered also takes its own
 * out of that batch, so its memory may go at once.
 *
 * Timers are lazy. A wheel of 1,024 places of 8 ms covers 8 s; what is due later waits in the last place and is
 * placed anew when its turn comes. Moving a timer later only stores the deadline: when its place is reached too
 * early, it is placed anew. So a timeout that every byte pushes back costs a store. `next_ns` is a lower bound of
 * the first deadline: until it passes the wheel is not touched at all.
 *
 * Failures: loop_init and loop_watch hand out -errno; a failing epoll_ctl on a descriptor that we know is a broken
 * promise (CHECK). */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/check.h"
#include "worker/loop.h"

enum { EVENTS_A_TURN = 128, LOOK_AT_MOST = 64 };

static void read_clock(struct loop *l) {
    struct timespec mono, wall;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_REALTIME, &wall);
    l->now_ns = (uint64_t)mono.tv_sec * 1000000000u + (uint64_t)mono.tv_nsec;
    l->wall_us = (int64_t)wall.tv_sec * 1000000 + wall.tv_nsec / 1000;
    l->wall_ms = l->wall_us / 1000;
}

int loop_init(struct loop *l) {
    memset(l, 0, sizeof *l);
    l->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epfd < 0)
        return -errno;
    l->tasks_tail = &l->tasks;
    l->next_ns = UINT64_MAX;
    read_clock(l);
    l->wheel_tick = l->now_ns / LOOP_TICK_NS;
    return 0;
}

void loop_close(struct loop *l) {
    close(l->epfd);
    l->epfd = -1;
}

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

static int control(struct loop *l, int op, struct watch *w, uint32_t events) {
    struct epoll_event ev = { .events = events ? events : EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = w };
    return epoll_ctl(l->epfd, op, w->fd, &ev) == 0 ? 0 : -errno;
}

int loop_watch(struct loop *l, struct watch *w, uint32_t events) {
    CHECK(w->fn && w->fd >= 0);
    return control(l, EPOLL_CTL_ADD, w, events);
}

int loop_change(struct loop *l, struct watch *w, uint32_t events) {
    return control(l, EPOLL_CTL_MOD, w, events);
}

void loop_forget(struct loop *l, struct watch *w) {
    for (int i = l->event_at; i < l->event_count; i++)
        if (l->events[i].data.ptr == w)
            l->events[i].data.ptr = NULL;
}

void loop_unwatch(struct loop *l, struct watch *w) {
    if (w->fd >= 0)
        epoll_ctl(l->epfd, EPOLL_CTL_DEL, w->fd, NULL); /* ENOENT: it never came in, or its descriptor was closed */
    loop_forget(l, w);
}

/* ---- timers ------------------------------------------------------------------------------------------------------ */

static void timer_link(struct timer **head, struct timer *t) {
    t->next = *head;
    if (t->next)
        t->next->prev = &t->next;
    t->prev = head;
    *head = t;
}

static void timer_unlink(struct timer *t) {
    *t->prev = t->next;
    if (t->next)
        t->next->prev = t->prev;
    t->next = NULL;
    t->prev = NULL;
}

static void timer_place(struct loop *l, struct timer *t) {
    uint64_t tick = t->deadline_ns / LOOP_TICK_NS, now_tick = l->now_ns / LOOP_TICK_NS;
    if (now_tick < l->wheel_tick)
        now_tick = l->wheel_tick; /* a place that was passed would be reached only after a whole round */
    if (tick < now_tick)
        tick = now_tick;
    if (tick > now_tick + LOOP_WHEEL - 1)
        tick = now_tick + LOOP_WHEEL - 1;
    t->placed_ns = tick * LOOP_TICK_NS;
    unsigned at = tick % LOOP_WHEEL;
    timer_link(&l->wheel[at], t);
    l->wheel_bits[at / 64] |= 1ull << (at % 64);
}

void loop_timer(struct loop *l, struct timer *t, uint64_t in_ms) {
    CHECK(t->fn);
    t->deadline_ns = l->now_ns + in_ms * 1000000u;
    if (t->deadline_ns < l->next_ns)
        l->next_ns = t->deadline_ns;
    if (t->prev && t->placed_ns <= t->deadline_ns)
        return; /* its place comes early enough */
    if (t->prev)
        timer_unlink(t);
    else
        l->timers++;
    timer_place(l, t);
}

void loop_timer_off(struct loop *l, struct timer *t) {
    t->deadline_ns = 0;
    if (!t->prev)
        return;
    timer_unlink(t);
    l->timers--;
}

/* The first tick from `from` on, before `to`, whose place may hold timers; `to`: none. */
static uint64_t next_place(const struct loop *l, uint64_t from, uint64_t to) {
    while (from < to) {
        unsigned at = from % LOOP_WHEEL;
        uint64_t word = l->wheel_bits[at / 64] >> (at % 64);
        if (word) {
            uint64_t tick = from + (unsigned)__builtin_ctzll(word);
            return tick < to ? tick : to;
        }
        from += 64 - at % 64;
    }
    return to;
}

/* When the wheel must be looked at again. It looks at a bounded number of timers; beyond them it takes the place's
 * own time. */
static uint64_t next_deadline(struct loop *l) {
    uint64_t now_tick = l->now_ns / LOOP_TICK_NS, end = now_tick + LOOP_WHEEL, first = UINT64_MAX;
    unsigned looked = 0;
    for (uint64_t tick = next_place(l, now_tick, end); tick < end && tick * LOOP_TICK_NS < first;
         tick = next_place(l, tick + 1, end)) {
        unsigned at = tick % LOOP_WHEEL;
        if (!l->wheel[at])
            l->wheel_bits[at / 64] &= ~(1ull << (at % 64));
        for (const struct timer *t = l->wheel[at]; t; t = t->next) {
            if (looked++ == LOOK_AT_MOST)
                return first < tick * LOOP_TICK_NS ? first : tick * LOOP_TICK_NS;
            if (t->deadline_ns < first)
                first = t->deadline_ns;
        }
    }
    return first;
}

static void run_place(struct loop *l, unsigned at) {
    struct timer *due = l->wheel[at];
    l->wheel[at] = NULL;
    l->wheel_bits[at / 64] &= ~(1ull << (at % 64));
    if (due)
        due->prev = &due;
    while (due) { /* a callback may take any other timer out, of this list too */
        struct timer *t = due;
        timer_unlink(t);
        if (t->deadline_ns > l->now_ns) {
            timer_place(l, t);
            continue;
        }
        l->timers--;
        t->deadline_ns = 0;
        t->fn(t);
    }
}

static void run_timers(struct loop *l) {
    if (l->now_ns < l->next_ns)
        return;
    uint64_t now_tick = l->now_ns / LOOP_TICK_NS, end = now_tick + 1, from = l->wheel_tick;
    if (end - from > LOOP_WHEEL)
        from = end - LOOP_WHEEL;
    for (uint64_t tick = next_place(l, from, end); tick < end; tick = next_place(l, tick + 1, end))
        run_place(l, tick % LOOP_WHEEL);
    l->wheel_tick = now_tick;
    l->next_ns = l->timers ? next_deadline(l) : UINT64_MAX;
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

void loop_post(struct loop *l, struct task *t) {
    if (t->posted)
        return;
    t->posted = true;
    t->next = NULL;
    *l->tasks_tail = t;
    l->tasks_tail = &t->next;
}

void loop_unpost(struct loop *l, struct task *t) {
    if (!t->posted)
        return;
    t->posted = false;
    for (struct task **p = &l->running; *p; p = &(*p)->next)
        if (*p == t) {
            *p = t->next;
            return;
        }
    for (struct task **p = &l->tasks; *p; p = &(*p)->next)
        if (*p == t) {
            *p = t->next;
            if (l->tasks_tail == &t->next)
                l->tasks_tail = p;
            return;
        }
    CHECK(!"a posted task is in one of the lists");
}

static void run_tasks(struct loop *l) {
    l->running = l->tasks;
    l->tasks = NULL;
    l->tasks_tail = &l->tasks;
    while (l->running) {
        struct task *t = l->running;
        l->running = t->next;
        t->posted = false;
        t->fn(t);
    }
}

/* ---- a turn ------------------------------------------------------------------------------------------------------ */

/* In ms, rounded up, for epoll_wait; -1: for ever. now_ns is the last turn's: what passed since only makes a timer
 * fire that much later. */
static int wait_ms(const struct loop *l, int at_most_ms) {
    if (l->tasks)
        return 0;
    if (l->next_ns == UINT64_MAX)
        return at_most_ms;
    if (l->next_ns <= l->now_ns)
        return 0;
    uint64_t ms = (l->next_ns - l->now_ns + 999999) / 1000000;
    if (ms > 3600000)
        ms = 3600000;
    return at_most_ms >= 0 && (uint64_t)at_most_ms < ms ? at_most_ms : (int)ms;
}

static void deliver(struct loop *l, struct epoll_event *events, int n) {
    l->events = events;
    l->event_count = n;
    for (l->event_at = 0; l->event_at < l->event_count;) {
        struct epoll_event ev = events[l->event_at++];
        struct watch *w = ev.data.ptr;
        if (w)
            w->fn(w, ev.events);
    }
    l->events = NULL;
    l->event_at = l->event_count = 0;
}

void loop_turn(struct loop *l, int timeout_ms) {
    struct epoll_event events[EVENTS_A_TURN];
    int wait = wait_ms(l, timeout_ms);
    if (wait && l->on_idle)
        l->on_idle(l);
    int n = epoll_wait(l->epfd, events, EVENTS_A_TURN, l->stop ? 0 : wait);
    CHECK(n >= 0 || errno == EINTR);
    if (wait && l->on_wake)
        l->on_wake(l);
    read_clock(l);
    if (l->on_top)
        l->on_top(l);
    deliver(l, events, n > 0 ? n : 0);
    run_timers(l);
    run_tasks(l);
}

void loop_run(struct loop *l) {
    while (!l->stop)
        loop_turn(l, -1);
}
