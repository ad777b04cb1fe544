/* The event loop of a worker: epoll (edge-triggered), timers, tasks for the end of the turn. */
#ifndef TG_LOOP_H
#define TG_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct watch { /* embedded in what it watches; must outlive its registration */
    void (*fn)(struct watch *w, uint32_t events);
    int fd;
};

/* A timer costs nothing to move later: setting it stores the deadline, and only a firing too early looks again. */
struct timer {
    void (*fn)(struct timer *t);
    uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: off */
    struct timer *next, **prev; /* place in the wheel */
    uint64_t placed_ns;
};

struct task { /* run once, at the end of the turn in which it was posted */
    void (*fn)(struct task *t);
    struct task *next;
    bool posted;
};

enum { LOOP_WHEEL = 1024, LOOP_TICK_NS = 8000000 };

struct loop {
    int epfd;
    uint64_t now_ns;  /* CLOCK_MONOTONIC, read once a turn */
    int64_t wall_us, wall_ms; /* CLOCK_REALTIME, ditto */
    bool stop;
    struct timer *wheel[LOOP_WHEEL];
    uint64_t wheel_bits[LOOP_WHEEL / 64]; /* places that may hold a timer */
    uint64_t wheel_tick;                  /* every place before this tick has been looked through */
    uint64_t next_ns;                     /* no timer is due before this; UINT64_MAX: none is set */
    uint32_t timers;
    struct task *tasks, **tasks_tail;     /* for the end of this turn */
    struct task *running;                 /* what is left of the turn's own, while they run */
    struct epoll_event *events;           /* fetched in this turn, for loop_unwatch; NULL outside of it */
    int event_at, event_count;
    /* hooks of the worker: before each turn's work (money_top; now_ns is already of this turn), around a blocking
     * wait (which on_idle may spare by stop) */
    void (*on_top)(struct loop *l);
    void (*on_idle)(struct loop *l);
    void (*on_wake)(struct loop *l);
};

int loop_init(struct loop *l); /* 0 or -errno */
/* Registers once, edge-triggered for in, out and rdhup unless events says otherwise. 0 or -errno. */
int loop_watch(struct loop *l, struct watch *w, uint32_t events);
int loop_change(struct loop *l, struct watch *w, uint32_t events);
void loop_unwatch(struct loop *l, struct watch *w); /* events already fetched for it in this turn are not delivered */
/* The same for a descriptor that is closed right after (which takes it out of epoll, unless it was duplicated):
 * saves the system call. */
void loop_forget(struct loop *l, struct watch *w);
void loop_timer(struct loop *l, struct timer *t, uint64_t in_ms); /* from now; 0: fires in the next turn */
void loop_timer_off(struct loop *l, struct timer *t);
void loop_post(struct loop *l, struct task *t);
void loop_unpost(struct loop *l, struct task *t);
/* Turns until stop is set: wait, clock, top hook, events, due timers, tasks. A task posted by a task, and a timer of
 * 0 ms set by a timer, belong to the next turn, so neither starves the descriptors. Only a turn without pending
 * tasks and due timers blocks. */
void loop_run(struct loop *l);
/* One turn that blocks at most so long (-1: until something happens): for tests. */
void loop_turn(struct loop *l, int timeout_ms);
void loop_close(struct loop *l);

#endif
