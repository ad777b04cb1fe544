/* Explores every interleaving of a few actors, and every death of one of them at every step.
 *
 * An actor is a coroutine that runs real code on a small stack of its own and yields at each named step (shm/steps.h).
 * A state of the whole is plain memory: the registered regions and the used part of each stack. It is saved before each
 * alternative and put back for the next, and a state that was met before (by a 64-bit hash of all that) is not entered
 * again: depth-first search over the whole graph. What an actor waits for needs no modelling: a try that changes
 * nothing leads back to the same state. */
#ifndef TG_EXPLORE_H
#define TG_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXPLORE_ACTORS = 3, EXPLORE_STACK = 8 * 1024, EXPLORE_REGIONS = 8 };

struct explore {
    void (*actor)(int i);                     /* an actor's whole life */
    bool (*may_die)(int i);
    void (*died)(int i);                      /* changes the world accordingly */
    bool (*may_start)(int i);                 /* an actor that is not running */
    void (*started)(int i);
    const char *(*check)(void);               /* after every step: NULL, or what is wrong */
    bool (*final)(void); /* everything done, nothing left to do: must stay reachable from every state */
    uint64_t (*hash)(uint64_t seed);          /* of all regions, without what means nothing */
    struct { void *ptr; size_t bytes; } region[EXPLORE_REGIONS]; /* saved and restored */
    int regions;
    uint64_t max_states;                      /* more is a failure: the search is not exhaustive */
    double max_seconds;
    bool trace;                               /* prints the way to a violation */
    /* results */
    const char *violation;
    uint64_t states, transitions, finals, stuck;
    unsigned depth;
    bool complete;
};

/* Runs the search; e->violation tells. */
void explore_run(struct explore *e);
/* For actors: a step; and a choice among n alternatives, 0 to n - 1, which the explorer tries all. */
void explore_step(const char *name);
unsigned explore_choose(const char *name, unsigned n);
/* Which actor runs, -1: none (the explorer itself). Where one stands; NULL: it does not run. */
int explore_current(void);
const char *explore_at(int actor);
/* 64-bit hash of memory; not for anything that an adversary chooses. */
uint64_t explore_hash(uint64_t seed, const void *p, size_t n);

#endif
