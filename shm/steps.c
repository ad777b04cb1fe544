/* The hooks of a build with steps (steps.h says what the environment can ask for). Empty in any other build.
 *
 * Orders are read before main, once a program: how often a step was passed is counted in a page that every process
 * forked from here shares, so "the third time" means the third time at all. A program that an upgrade starts counts
 * from zero. */
#include "shm/steps.h"

#ifdef SHM_STEPS
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void (*shm_step_hook)(const char *name);
uint64_t (*shm_clock_hook)(void);
void (*shm_wait_hook)(_Atomic uint32_t *word, uint32_t value);
enum shm_mutation shm_mutation;

enum { ORDERS = 32, NAME = 40 };

struct order {
    char name[NAME], action; /* action: 'k'ill, '+' kill every at-th time, '~' stall for ms, '!' spin */
    uint64_t at, until;      /* passages, from 1; faults: first and last */
    int value;               /* ms, or an errno */
    _Atomic uint64_t *passed;
};
static struct order orders[ORDERS], faults[ORDERS];
static unsigned order_count, fault_count;

static void say(const char *what, const char *name) {
    char line[128];
    int n = snprintf(line, sizeof line, "steps: %s at %s\n", what, name);
    if (write(STDERR_FILENO, line, (size_t)n) < 0) { /* nobody listens */ }
}

static void follow(const struct order *o) {
    uint64_t n = atomic_fetch_add(o->passed, 1) + 1;
    bool kills = o->action == 'k' ? n == o->at : o->action == '+' && n % o->at == 0;
    if (kills) {
        say("killed", o->name);
        syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGKILL); /* a worker's sandbox refuses kill */
    }
    if (o->action == '~' && n >= o->at) nanosleep(&(struct timespec){ 0, o->value * 1000000L }, NULL);
    if (o->action != '!' || n != o->at) return;
    say("hangs", o->name);
    for (volatile bool for_ever = true; for_ever;) { }
}

static void obey(const char *name) {
    for (unsigned i = 0; i < order_count; i++)
        if (strcmp(name, orders[i].name) == 0) follow(&orders[i]);
}

int shm_fault(const char *name) {
    for (unsigned i = 0; i < fault_count; i++) {
        const struct order *f = &faults[i];
        if (strcmp(name, f->name) != 0) continue;
        uint64_t n = atomic_fetch_add(f->passed, 1) + 1;
        if (n < f->at || n > f->until) continue;
        if (n == f->at) say("fails", f->name);
        return f->value;
    }
    return 0;
}

static void wrong(const char *text) {
    fprintf(stderr, "steps: \"%s\" is not an order\n", text);
    exit(2);
}

/* step:N, step:N+, step:N~MS, step:N! */
static void take_order(const char *text, struct order *o) {
    unsigned long long at = 0;
    int n = sscanf(text, "%39[^:]:%llu%c%d", o->name, &at, &o->action, &o->value);
    if (n < 2 || at == 0 || (n > 2 && !strchr("+~!", o->action)) || (o->action == '~' && o->value <= 0)) wrong(text);
    if (n == 2) o->action = 'k';
    o->at = at;
}

/* point:ERRNO:FIRST-LAST */
static void take_fault(const char *text, struct order *o) {
    unsigned long long first = 0, last = 0;
    if (sscanf(text, "%39[^:]:%d:%llu-%llu", o->name, &o->value, &first, &last) != 4 || o->value <= 0) wrong(text);
    o->at = first;
    o->until = last;
}

static unsigned read_list(const char *variable, struct order *list, void (*take)(const char *, struct order *),
                          _Atomic uint64_t *counts) {
    const char *value = getenv(variable);
    char *copy = value ? strdup(value) : NULL, *rest = copy;
    unsigned n = 0;
    for (char *one; rest && (one = strsep(&rest, ",")) && n < ORDERS; n++) {
        list[n].passed = counts + n;
        take(one, &list[n]);
    }
    free(copy);
    return n;
}

__attribute__((constructor)) static void read_orders(void) {
    if (!getenv("TOLLGATE_STEPS") && !getenv("TOLLGATE_FAULTS")) return;
    _Atomic uint64_t *counts = mmap(NULL, 2 * ORDERS * sizeof *counts, PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED) exit(2);
    order_count = read_list("TOLLGATE_STEPS", orders, take_order, counts);
    fault_count = read_list("TOLLGATE_FAULTS", faults, take_fault, counts + ORDERS);
    if (order_count) shm_step_hook = obey;
}
#endif
