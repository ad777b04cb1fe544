/* load: traffic for a gateway, and what it cost.
 *
 * Closed loop (CONNECTIONS clients, each one request at a time) or open loop (RATE requests a second, latency counted
 * from when each was due, so that a stall is seen in all the requests it held up). One thread, one line of JSON.
 *
 * The window begins when the warm-up is over and every client has had an answer's head; at both its ends the CPU time
 * of the process tree below PID is read, at its end (and before the first connection) its memory, while the
 * connections are still there.
 *
 * usage: load [OPTIONS] HOST:PORT
 *   -k KIND     chat (default), messages, responses, gemini, embeddings, status
 *   -m MODEL    -b BYTES of body (1024)    -s stream    -f a connection a request
 *   -K KEY      or -F FILE of keys, one a line, used in turn
 *   -c N        connections (64)    -r RATE a second: open loop    -R N new connections a second at most (2000)
 *   -e N        each client stops after N requests and keeps its connection: the window is then idle
 *   -a N        hang up after N events
 *   -w SECONDS  warm-up (1)    -t SECONDS window (3)    -W SECONDS longest wait for the first answers (120)
 *   -d SECONDS  what is under way at the end may take so long (5)
 *   -p PID      whose tree is measured */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "proto/base/check.h"
#include "tools/bench/load.h"
#include "tools/bench/proc.h"

enum { EVENTS = 256, NS_A_MS = 1000000 };

static int usage(void) {
    fprintf(stderr, "usage: load [-k KIND] [-m MODEL] [-b BYTES] [-s] [-f] [-K KEY | -F FILE] [-c N] [-r RATE] [-R N]\n"
                    "            [-e N] [-a N] [-w S] [-t S] [-W S] [-d S] [-p PID] HOST:PORT\n");
    return 2;
}

static bool option(struct options *o, int name, const char *value) {
    switch (name) {
    case 'k': return (o->kind = kind_find(value)) != NULL;
    case 'm': o->model = value; return true;
    case 'b': o->body_bytes = (uint32_t)strtoul(value, NULL, 10); return o->body_bytes <= 64 << 20;
    case 's': o->stream = true; return true;
    case 'f': o->fresh = true; return true;
    case 'K': o->key = value; return true;
    case 'F': o->key_file = value; return true;
    case 'c': o->connections = (uint32_t)strtoul(value, NULL, 10); return o->connections > 0;
    case 'r': o->rate = strtod(value, NULL); return o->rate > 0;
    case 'R': o->ramp = (uint32_t)strtoul(value, NULL, 10); return o->ramp > 0;
    case 'e': o->each = (uint32_t)strtoul(value, NULL, 10); return o->each > 0;
    case 'a': o->abort_after = (uint32_t)strtoul(value, NULL, 10); return o->abort_after > 0;
    case 'w': o->warm_s = strtod(value, NULL); return true;
    case 't': o->seconds = strtod(value, NULL); return true;
    case 'W': o->wait_s = strtod(value, NULL); return true;
    case 'd': o->drain_s = strtod(value, NULL); return true;
    case 'p': o->root = (int)strtol(value, NULL, 10); return o->root > 0;
    default: return false;
    }
}

static bool options_read(struct options *o, int argc, char **argv) {
    *o = (struct options){ .host = "127.0.0.1", .model = "mock", .kind = kind_find("chat"), .connections = 64,
                           .body_bytes = 1024, .ramp = 2000, .warm_s = 1, .seconds = 3, .drain_s = 5, .wait_s = 120 };
    for (int c; (c = getopt(argc, argv, "k:m:b:sfK:F:c:r:R:e:a:w:t:W:d:p:")) != -1;)
        if (!option(o, c, optarg))
            return false;
    if (optind != argc - 1)
        return false;
    char *colon = strchr(argv[optind], ':');
    if (!colon)
        return false;
    *colon = '\0';
    o->host = argv[optind];
    o->port = (int)strtol(colon + 1, NULL, 10);
    return o->port > 0 && o->port < 65536;
}

void load_next(struct load *l, struct client *c) {
    if (l->o.each && c->made >= l->o.each) {
        l->finished++;
        return;
    }
    c->next_idle = NULL;
    *l->idle_tail = c;
    l->idle_tail = &c->next_idle;
}

/* The one that is free for the longest: an open loop uses all its connections in turn. */
static struct client *take_idle(struct load *l) {
    struct client *c = l->idle;
    if (c)
        l->idle = c->next_idle;
    if (!l->idle)
        l->idle_tail = &l->idle;
    return c;
}

/* Closed loop: whoever is free asks again; new clients come as fast as the ramp allows. */
static void start_closed(struct load *l, uint64_t begun_ns, uint64_t now_ns) {
    struct client *ready = l->idle;
    l->idle = NULL;
    l->idle_tail = &l->idle;
    while (ready) {
        struct client *c = ready;
        ready = c->next_idle;
        client_start(l, c, load_now_ns());
    }
    uint64_t allowed = 16 + (now_ns - begun_ns) / NS_A_MS * l->o.ramp / 1000;
    while (l->launched < l->o.connections && l->launched < allowed)
        client_start(l, &l->clients[l->launched++], load_now_ns());
}

/* Open loop: every arrival that is due, as long as there is a client for it. Gives back when the next one is. */
static uint64_t start_open(struct load *l, uint64_t begun_ns, uint64_t *arrivals) {
    for (;;) {
        uint64_t due_ns = begun_ns + (uint64_t)((double)*arrivals * 1e9 / l->o.rate);
        if (due_ns > load_now_ns())
            return due_ns;
        struct client *c = l->launched < l->o.connections ? &l->clients[l->launched++] : take_idle(l);
        if (!c)
            return load_now_ns() + NS_A_MS;
        ++*arrivals;
        client_start(l, c, due_ns);
    }
}

static void wait_events(struct load *l, uint64_t until_ns) {
    struct epoll_event events[EVENTS];
    uint64_t now_ns = load_now_ns(), wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    struct timespec t = { .tv_sec = (time_t)(wait_ns / 1000000000u), .tv_nsec = (long)(wait_ns % 1000000000u) };
    int n = epoll_pwait2(l->epfd, events, EVENTS, &t, NULL);
    if (n < 0 && errno == ENOSYS) /* Linux 5.10: arrivals are then up to a millisecond late */
        n = epoll_wait(l->epfd, events, EVENTS, (int)((wait_ns + NS_A_MS - 1) / NS_A_MS));
    for (int i = 0; i < n; i++)
        client_event(l, events[i].data.ptr, events[i].events);
}

struct window { struct tally begin, end; struct proc_use idle, cpu_begin, cpu_end, loaded; double seconds, ramp_s; };

static bool warm(const struct load *l, double passed_s) {
    if (passed_s < l->o.warm_s)
        return false;
    uint32_t ready = l->o.each ? l->finished : l->answered;
    return l->o.rate > 0 || ready == l->o.connections || passed_s >= l->o.wait_s;
}

static void run(struct load *l, struct window *w) {
    uint64_t begun_ns = load_now_ns(), from_ns = 0, to_ns = UINT64_MAX, arrivals = 0, wake_ns;
    for (uint64_t now_ns = begun_ns; now_ns < to_ns; now_ns = load_now_ns()) {
        double passed_s = (double)(now_ns - begun_ns) / 1e9;
        if (!l->measuring && warm(l, passed_s)) {
            proc_sample(&w->cpu_begin, l->o.root, 0);
            w->begin = l->t;
            w->ramp_s = passed_s;
            l->measuring = true;
            from_ns = load_now_ns();
            to_ns = from_ns + (uint64_t)(l->o.seconds * 1e9);
        }
        wake_ns = now_ns + 5 * NS_A_MS;
        if (l->o.rate > 0) {
            uint64_t due_ns = start_open(l, begun_ns, &arrivals);
            wake_ns = due_ns < wake_ns ? due_ns : wake_ns;
        } else {
            start_closed(l, begun_ns, now_ns);
        }
        wait_events(l, wake_ns < to_ns ? wake_ns : to_ns);
    }
    proc_sample(&w->cpu_end, l->o.root, 0);
    w->end = l->t;
    w->seconds = (double)(load_now_ns() - from_ns) / 1e9;
    l->measuring = false;
    proc_sample(&w->loaded, l->o.root, 1);
}

/* What is under way may end; how many did not. */
static uint32_t drain(struct load *l) {
    uint64_t until_ns = load_now_ns() + (uint64_t)(l->o.drain_s * 1e9);
    for (;;) {
        uint32_t busy = 0;
        for (uint32_t i = 0; i < l->launched; i++)
            busy += l->clients[i].state != CLIENT_OFF;
        if (busy == 0 || load_now_ns() >= until_ns)
            return busy;
        wait_events(l, load_now_ns() + 10 * NS_A_MS);
    }
}

static void print_times(const char *name, const struct hist *h) {
    printf(",\"%s\":{\"count\":%llu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f}", name,
           (unsigned long long)h->count, (double)hist_quantile(h, 500) / 1e3, (double)hist_quantile(h, 900) / 1e3,
           (double)hist_quantile(h, 990) / 1e3, (double)h->max / 1e3);
}

static void print_tally(const char *name, const struct tally *a, const struct tally *b) {
#define NUMBER(field) (unsigned long long)(b->field - a->field)
    printf(",\"%s\":{\"requests\":%llu,\"ok\":%llu,\"events\":%llu,\"bytes\":%llu,\"refused\":%llu,\"cut\":%llu,"
           "\"garbled\":%llu,\"unfinished\":%llu,\"aborted\":%llu,\"reconnects\":%llu,\"status\":{",
           name, NUMBER(done), NUMBER(ok), NUMBER(events), NUMBER(bytes), NUMBER(refused), NUMBER(cut), NUMBER(garbled),
           NUMBER(unfinished), NUMBER(aborted), NUMBER(reconnects));
    const char *comma = "";
    for (int i = 0; i < 600; i++)
        if (NUMBER(status[i]) > 0) {
            printf("%s\"%d\":%llu", comma, i, NUMBER(status[i]));
            comma = ",";
        }
    printf("}}");
#undef NUMBER
}

static void report(const struct load *l, const struct window *w, uint32_t left) {
    static const struct tally zero;
    double cpu_us = (double)(w->cpu_end.cpu_ns - w->cpu_begin.cpu_ns) / 1e3;
    uint64_t requests = w->end.done - w->begin.done, events = w->end.events - w->begin.events;
    printf("{\"connections\":%u,\"seconds\":%.3f,\"ramp_seconds\":%.2f,\"left\":%u", l->o.connections, w->seconds,
           w->ramp_s, left);
    print_tally("window", &w->begin, &w->end);
    print_tally("all", &zero, &l->t);
    print_times("latency_us", &l->latency);
    print_times("first_us", &l->first);
    print_times("gap_us", &l->gap);
    if (l->o.root) {
        printf(",\"cpu_us\":%.0f,\"util\":%.3f,\"cpu_us_per_request\":%.3f,\"cpu_us_per_event\":%.3f", cpu_us,
               cpu_us / 1e6 / w->seconds, requests ? cpu_us / (double)requests : 0,
               events ? cpu_us / (double)events : 0);
        printf(",\"memory\":{\"idle_kb\":%llu,\"loaded_kb\":%llu,\"idle_anon_kb\":%llu,\"loaded_anon_kb\":%llu,"
               "\"processes\":%u,\"descriptors\":%u}",
               (unsigned long long)w->idle.pss_kb, (unsigned long long)w->loaded.pss_kb,
               (unsigned long long)w->idle.anon_kb, (unsigned long long)w->loaded.anon_kb, w->loaded.processes,
               w->loaded.descriptors);
    }
    printf("}\n");
}

int main(int argc, char **argv) {
    static struct load l;
    static struct window w;
    signal(SIGPIPE, SIG_IGN);
    if (!options_read(&l.o, argc, argv))
        return usage();
    if (!requests_make(&l.requests, &l.o))
        return 1;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    pages_init(&l.pages, 256);
    l.address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)l.o.port) };
    if (inet_pton(AF_INET, l.o.host, &l.address.sin_addr) != 1) {
        fprintf(stderr, "load: %s is no IPv4 address\n", l.o.host);
        return 2;
    }
    l.idle_tail = &l.idle;
    l.epfd = epoll_create1(EPOLL_CLOEXEC);
    l.clients = calloc(l.o.connections, sizeof *l.clients);
    CHECK(l.epfd >= 0 && l.clients);
    for (uint32_t i = 0; i < l.o.connections; i++) {
        l.clients[i].fd = -1;
        buf_init(&l.clients[i].head, &l.pages, 65536);
    }
    proc_sample(&w.idle, l.o.root, 1);
    run(&l, &w);
    report(&l, &w, drain(&l));
    return 0;
}
