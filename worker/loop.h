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
    int64_t wall_ms;  /* CLOCK_REALTIME, ditto */
    bool stop;
    struct timer *wheel[LOOP_WHEEL];
    uint64_t wheel_tick;
    uint32_t timers;
    struct task *tasks, **tasks_tail;
    /* hooks of the worker: before each turn's work (money_top), around a blocking wait */
    void (*on_top)(struct loop *l);
    void (*on_idle)(struct loop *l);
    void (*on_wake)(struct loop *l);
};

int loop_init(struct loop *l); /* 0 or -errno */
/* Registers once, edge-triggered for in, out and rdhup unless events says otherwise. 0 or -errno. */
int loop_watch(struct loop *l, struct watch *w, uint32_t events);
int loop_change(struct loop *l, struct watch *w, uint32_t events);
void loop_unwatch(struct loop *l, struct watch *w); /* events already fetched for it in this turn are not delivered */
void loop_timer(struct loop *l, struct timer *t, uint64_t in_ms); /* from now; 0: fires in the next turn */
void loop_timer_off(struct loop *l, struct timer *t);
void loop_post(struct loop *l, struct task *t);
void loop_unpost(struct loop *l, struct task *t);
/* Turns until stop is set: top hook, clock, events, due timers, tasks. */
void loop_run(struct loop *l);

#endif
