/* The master's event loop: descriptors by epoll, signals by signalfd (a watch like any other), deadlines by a list.
 *
 * One event is taken from epoll at a time, so a callback may remove and free any watch without leaving a stale event
 * behind. Timers are few (tens): a list without order is scanned once a turn. One thread. */
#ifndef TG_EVENTS_H
#define TG_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

struct watch {
    int fd; /* -1: not watched */
    uint32_t events;
    void (*fn)(struct watch *w, uint32_t events);
};

struct timer {
    struct timer *next;
    bool armed;
    uint64_t at_ns;
    void (*fn)(struct timer *t);
};

struct events {
    int epoll_fd;
    bool stop;
    uint64_t now_ns; /* CLOCK_MONOTONIC, read once a turn */
    struct timer *timers;
};

/* 0 or -errno. */
int events_open(struct events *l);
void events_close(struct events *l);
/* Turns until l->stop. */
void events_run(struct events *l);

/* 0 or -errno. The watch does not own the descriptor. */
int events_watch(struct events *l, struct watch *w, int fd, uint32_t events, void (*fn)(struct watch *, uint32_t));
void events_change(struct events *l, struct watch *w, uint32_t events);
/* Before the descriptor is closed. Harmless when nothing is watched. */
void events_unwatch(struct events *l, struct watch *w);

/* (Re)arms: fn is called once, delay_ms from now. */
void events_timer_set(struct events *l, struct timer *t, uint64_t delay_ms, void (*fn)(struct timer *));
void events_timer_clear(struct events *l, struct timer *t);

uint64_t events_mono_ns(void);
uint64_t events_wall_ms(void);

#endif
