/* The search of explore.h. One search at a time; memory is kept between searches and freed by the process's end. */
#include "tests/model/explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

enum { NOT_RUNNING, FRESH, RUNNING };

static struct actor {
    int life;
    unsigned alternatives;  /* how many ways it can go on */
    const char *at;
    char *sp;               /* of its stack, when it yielded */
    ucontext_t context;
} actors[EXPLORE_ACTORS];
static _Alignas(64) char stacks[EXPLORE_ACTORS][EXPLORE_STACK];
static ucontext_t explorer, newborn; /* newborn: registers that every actor starts with, always the same */
static int current = -1;
static unsigned choice;
static struct explore *e;

/* ---- coroutines -------------------------------------------------------------------------------------------------- */

int explore_current(void) { return current; }
const char *explore_at(int i) { return actors[i].life == NOT_RUNNING ? NULL : actors[i].at; }

unsigned explore_choose(const char *name, unsigned n) {
    struct actor *a = &actors[current];
    char here;
    a->at = name;
    a->alternatives = n;
    a->sp = &here;
    swapcontext(&a->context, &explorer);
    return choice;
}

void explore_step(const char *name) {
    if (current >= 0) explore_choose(name, 1);
}

static void body(void) {
    e->actor(current);
    for (;;) explore_step("finished");
}

/* The lowest address of the stack that is in use. Elsewhere than on x86 all of it counts. */
static char *stack_pointer(int i) {
#ifdef __x86_64__
    return (char *)actors[i].context.uc_mcontext.gregs[REG_RSP];
#else
    return stacks[i];
#endif
}

static void resume(int i, unsigned which) {
    struct actor *a = &actors[i];
    if (a->life == FRESH) {
        a->context = newborn;
#ifdef __x86_64__
        a->context.uc_mcontext.fpregs = &a->context.__fpregs_mem;
#endif
        a->context.uc_stack.ss_sp = stacks[i];
        a->context.uc_stack.ss_size = EXPLORE_STACK;
        a->context.uc_link = NULL;
        makecontext(&a->context, body, 0);
        a->life = RUNNING;
    }
    current = i;
    choice = which;
    swapcontext(&explorer, &a->context);
    current = -1;
    /* What lies below is garbage: cleared, so that it does not make equal states differ when later calls build on it. */
    if (memchr(stacks[i], 0, 64) != stacks[i]) abort(); /* EXPLORE_STACK is too small */
    memset(stacks[i], 0, (size_t)(stack_pointer(i) - stacks[i]));
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

uint64_t explore_hash(uint64_t seed, const void *p, size_t n) {
    const unsigned char *b = p;
    uint64_t h = seed ^ n * 0x9e3779b97f4a7c15ull, v, lane[4] = { h, h + 1, h + 2, h + 3 };
    for (; n >= 32; b += 32, n -= 32) { /* four at a time: the multiplications do not wait for each other */
        for (int i = 0; i < 4; i++) {
            memcpy(&v, b + i * 8, 8);
            lane[i] = (lane[i] ^ v) * 0xff51afd7ed558ccdull;
            lane[i] ^= lane[i] >> 32;
        }
    }
    for (int i = 0; i < 4; i++) h = (h ^ lane[i]) * 0x9e3779b97f4a7c15ull, h ^= h >> 32;
    for (; n >= 8; b += 8, n -= 8) {
        memcpy(&v, b, 8);
        h = (h ^ v) * 0xff51afd7ed558ccdull;
        h ^= h >> 32;
    }
    for (v = 0; n > 0; n--) v = v << 8 | b[n - 1];
    h = (h ^ v) * 0xc4ceb9fe1a85ec53ull;
    return h ^ h >> 29;
}

static uint64_t hash_state(void) {
    uint64_t h = e->hash(1);
    for (int i = 0; i < EXPLORE_ACTORS; i++) {
        struct actor *a = &actors[i];
        uint64_t head[3] = { (uint64_t)a->life, a->alternatives, (uint64_t)(uintptr_t)a->at };
        if (a->life != RUNNING) head[1] = head[2] = 0;
        h = explore_hash(h, head, sizeof head);
        if (a->life != RUNNING) continue;
        char *sp = stack_pointer(i);
        h = explore_hash(h, sp, (size_t)(stacks[i] + EXPLORE_STACK - sp));
#ifdef __x86_64__
        static const int kept[] = { REG_RBX, REG_RBP, REG_R12, REG_R13, REG_R14, REG_R15, REG_RSP, REG_RIP };
        for (size_t r = 0; r < sizeof kept / sizeof kept[0]; r++) h = explore_hash(h, &a->context.uc_mcontext.gregs[kept[r]], 8);
#endif
    }
    return h ? h : 1;
}

static char *put(char *to, const void *from, size_t n) {
    memcpy(to, from, n);
    return to + n;
}

static char *save(void) {
    size_t n = sizeof actors;
    for (int i = 0; i < e->regions; i++) n += e->region[i].bytes;
    for (int i = 0; i < EXPLORE_ACTORS; i++) n += actors[i].life == RUNNING ? (size_t)(stacks[i] + EXPLORE_STACK - stack_pointer(i)) : 0;
    char *s = malloc(n), *p = put(s, actors, sizeof actors);
    for (int i = 0; i < e->regions; i++) p = put(p, e->region[i].ptr, e->region[i].bytes);
    for (int i = 0; i < EXPLORE_ACTORS; i++) {
        if (actors[i].life != RUNNING) continue;
        char *sp = stack_pointer(i);
        p = put(p, sp, (size_t)(stacks[i] + EXPLORE_STACK - sp));
    }
    return s;
}

/* Below its pointer a stack is always zero: what an actor had in use further down is cleared. */
static void restore(const char *s) {
    char *low[EXPLORE_ACTORS];
    for (int i = 0; i < EXPLORE_ACTORS; i++) low[i] = actors[i].life == RUNNING ? stack_pointer(i) : stacks[i] + EXPLORE_STACK;
    memcpy(actors, s, sizeof actors);
    s += sizeof actors;
    for (int i = 0; i < e->regions; i++) {
        memcpy(e->region[i].ptr, s, e->region[i].bytes);
        s += e->region[i].bytes;
    }
    for (int i = 0; i < EXPLORE_ACTORS; i++) {
        char *sp = actors[i].life == RUNNING ? stack_pointer(i) : stacks[i] + EXPLORE_STACK;
        size_t n = (size_t)(stacks[i] + EXPLORE_STACK - sp);
        if (low[i] < sp) memset(low[i], 0, (size_t)(sp - low[i]));
        memcpy(sp, s, n);
        s += n;
    }
}

/* ---- the graph --------------------------------------------------------------------------------------------------- */

static struct {
    uint64_t *hash;              /* open-addressed; the state's number is in id[] */
    uint32_t *id, *from, *to;
    uint8_t *final;
    uint64_t mask, edges, edge_room, state_room;
} graph;

static void graph_reset(void) {
    if (!graph.hash) {
        graph.mask = (1 << 20) - 1;
        graph.hash = calloc(graph.mask + 1, sizeof *graph.hash);
        graph.id = calloc(graph.mask + 1, sizeof *graph.id);
        graph.state_room = graph.edge_room = 1 << 20;
        graph.final = malloc(graph.state_room);
        graph.from = malloc(graph.edge_room * sizeof *graph.from);
        graph.to = malloc(graph.edge_room * sizeof *graph.to);
    }
    memset(graph.hash, 0, (graph.mask + 1) * sizeof *graph.hash);
    graph.edges = 0;
}

static void graph_grow(void) {
    uint64_t *hash = graph.hash, was = graph.mask;
    uint32_t *id = graph.id;
    graph.mask = was * 2 + 1;
    graph.hash = calloc(graph.mask + 1, sizeof *graph.hash);
    graph.id = calloc(graph.mask + 1, sizeof *graph.id);
    for (uint64_t i = 0; i <= was; i++) {
        if (!hash[i]) continue;
        uint64_t at = hash[i] & graph.mask;
        while (graph.hash[at]) at = (at + 1) & graph.mask;
        graph.hash[at] = hash[i];
        graph.id[at] = id[i];
    }
    free(hash);
    free(id);
}

/* The number of the present state, and whether it is a new one. */
static uint32_t number(bool *fresh) {
    if (e->states * 2 > graph.mask) graph_grow();
    uint64_t h = hash_state(), at = h & graph.mask;
    while (graph.hash[at] && graph.hash[at] != h) at = (at + 1) & graph.mask;
    *fresh = graph.hash[at] == 0;
    if (!*fresh) return graph.id[at];
    if (e->states == graph.state_room) graph.final = realloc(graph.final, graph.state_room *= 2);
    graph.hash[at] = h;
    graph.final[e->states] = e->final();
    e->finals += graph.final[e->states];
    return graph.id[at] = (uint32_t)e->states++;
}

static void edge(uint32_t from, uint32_t to) {
    if (graph.edges == graph.edge_room) {
        graph.edge_room *= 2;
        graph.from = realloc(graph.from, graph.edge_room * sizeof *graph.from);
        graph.to = realloc(graph.to, graph.edge_room * sizeof *graph.to);
    }
    graph.from[graph.edges] = from;
    graph.to[graph.edges++] = to;
}

/* States from which no final state can be reached: something is stuck there, asleep or going round in circles. */
static uint64_t count_stuck(void) {
    uint8_t *good = malloc(e->states);
    memcpy(good, graph.final, e->states);
    for (bool more = true; more;) { /* edges mostly lead on to later states: few rounds from the end */
        more = false;
        for (uint64_t i = graph.edges; i-- > 0;) {
            if (good[graph.from[i]] || !good[graph.to[i]]) continue;
            good[graph.from[i]] = 1;
            more = true;
        }
    }
    uint64_t stuck = 0;
    for (uint64_t i = 0; i < e->states; i++) stuck += !good[i];
    free(good);
    return stuck;
}

/* ---- the search -------------------------------------------------------------------------------------------------- */

enum kind { GO, DIE, START };
struct move { enum kind kind; int actor; unsigned which; };

static unsigned moves_of_actor(struct move *m, int i) {
    unsigned n = 0;
    if (actors[i].life == NOT_RUNNING) {
        if (e->may_start(i)) m[n++] = (struct move){ START, i, 0 };
        return n;
    }
    unsigned ways = actors[i].life == FRESH ? 1 : actors[i].alternatives;
    for (unsigned w = 0; w < ways; w++) m[n++] = (struct move){ GO, i, w };
    if (e->may_die(i)) m[n++] = (struct move){ DIE, i, 0 };
    return n;
}

static unsigned moves(struct move *m) {
    unsigned n = 0;
    for (int i = 0; i < EXPLORE_ACTORS; i++) n += moves_of_actor(m + n, i);
    return n;
}

static void make(const struct move *m) {
    struct actor *a = &actors[m->actor];
    if (m->kind == GO) resume(m->actor, m->which);
    if (m->kind == DIE) {
        memset(a, 0, sizeof *a);
        memset(stacks[m->actor], 0, EXPLORE_STACK);
        e->died(m->actor);
    }
    if (m->kind == START) {
        memset(a, 0, sizeof *a);
        memset(stacks[m->actor], 0, EXPLORE_STACK);
        a->life = FRESH;
        a->at = "start";
        e->started(m->actor);
    }
}

static struct timespec began;
static bool out_of_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) / 1e9 > e->max_seconds;
}

enum { LONGEST_TRACE = 4096 };
static struct { struct move move; const char *at; } path[LONGEST_TRACE];

static void print_trace(unsigned depth) {
    static const char *kinds[] = { "", "DIES", "starts" };
    printf("violation: %s\n", e->violation);
    for (unsigned i = 0; i <= depth && i < LONGEST_TRACE; i++)
        printf("  %3u  actor %d %s%s\n", i, path[i].move.actor, kinds[path[i].move.kind], path[i].move.kind == GO ? path[i].at : "");
}

/* Everything that can come after the present state, whose number is `from`. False: stop. */
static bool visit(uint32_t from, unsigned depth) {
    struct move m[32];
    unsigned n = moves(m);
    char *saved = n > 1 ? save() : NULL;
    if (depth > e->depth) e->depth = depth;
    bool go_on = e->states < e->max_states && !(e->states % 1024 == 0 && out_of_time());
    if (!go_on) e->complete = false;
    for (unsigned i = 0; i < n && go_on; i++) {
        bool fresh;
        if (i > 0) restore(saved);
        make(&m[i]);
        e->transitions++;
        if (depth < LONGEST_TRACE) {
            path[depth].move = m[i];
            path[depth].at = actors[m[i].actor].at;
        }
        if ((e->violation = e->check()) != NULL) {
            if (e->trace) print_trace(depth);
            go_on = false;
            break;
        }
        uint32_t to = number(&fresh);
        edge(from, to);
        if (fresh) go_on = visit(to, depth + 1);
    }
    free(saved);
    return go_on;
}

void explore_run(struct explore *search) {
    bool fresh;
    e = search;
    e->violation = NULL;
    e->states = e->transitions = e->finals = e->stuck = 0;
    e->depth = 0;
    e->complete = true;
    memset(actors, 0, sizeof actors);
    memset(stacks, 0, sizeof stacks);
    clock_gettime(CLOCK_MONOTONIC, &began);
    getcontext(&newborn);
    graph_reset();
    visit(number(&fresh), 0);
    if (e->violation || !e->complete) return;
    e->stuck = count_stuck();
    if (e->stuck) e->violation = "stuck: a state from which the end cannot be reached";
}
