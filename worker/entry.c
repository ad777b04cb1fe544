/* A worker from fork to exit: privileges, shared memory, the channel to the master, the loop, drain and quit.
 *
 * Failures: what makes a worker unable to serve ends it with a message and status 1 (the master replaces it, ever more
 * slowly); the loss of the channel means that the master is gone, so the worker ends too. */
#include "worker/entry.h"

#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "worker/call.h"
#include "worker/listen.h"
#include "worker/sandbox.h"
#include "worker/upstream.h"

enum {
    KEEP_PAGES = 1024,
    KEEP_FREED = 16 << 20, /* as much as the pages that are kept */
    MAP_ALONE = 4 << 20,
    CHANNEL_QUEUE = 4 << 20,
    TICK_MS = 250,
    RESOLVE_EVERY_NS = 1000000000,
    ARENA_SCRATCH = 128 << 20
};

static struct worker *the_worker; /* for the hooks that bear no argument */

/* ---- services for the folder ------------------------------------------------------------------------------------- */

void worker_random(struct worker *w, void *out, size_t n) {
    CHECK(n <= sizeof w->random);
    if (w->random_left < n) {
        if (getrandom(w->random, sizeof w->random, 0) != (ssize_t)sizeof w->random)
            check_failed("getrandom", __FILE__, __LINE__);
        w->random_left = sizeof w->random;
    }
    w->random_left -= n;
    memcpy(out, w->random + w->random_left, n);
    wipe(w->random + w->random_left, n);
}

void worker_wake_ledger(struct worker *w) {
    uint64_t one = 1;
    if (write(w->heritage.ledger_wake_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        worker_log(w, LOG_ERROR, "the ledger cannot be woken: %s", strerror(errno));
}

void worker_resolve_now(struct worker *w, uint32_t upstream_id) {
    static uint64_t asked_ns[SHM_MAX_UPSTREAMS];
    struct ipc_header h = { .type = IPC_RESOLVE_NOW };
    if (upstream_id >= SHM_MAX_UPSTREAMS || w->loop.now_ns < asked_ns[upstream_id] + RESOLVE_EVERY_NS)
        return;
    asked_ns[upstream_id] = w->loop.now_ns;
    ipc_send(&w->channel, &h, slice_of((const char *)&upstream_id, sizeof upstream_id), NULL, 0);
}

/* The ledger's own word, and what a stuck ledger cannot say: our ring holds records and its tail has not moved for too
 * long. */
enum shm_shed worker_shed(struct worker *w) {
    enum { STUCK_NS = 2000000000 };
    const struct shm_header *h = w->shm.header;
    const struct shm_range *r = &w->shm.ranges[w->heritage.range];
    uint32_t shed = atomic_load_explicit(&h->shed, memory_order_relaxed);
    if (shed != SHED_NO)
        return (enum shm_shed)shed;
    uint64_t oldest = atomic_load_explicit(&h->oldest_pending_ns, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    if (tail != w->ring_tail || tail == atomic_load_explicit(&r->head, memory_order_relaxed)) {
        w->ring_tail = tail;
        w->ring_since_ns = w->loop.now_ns;
    }
    bool stuck = (oldest != 0 && w->loop.now_ns > oldest + STUCK_NS) || w->loop.now_ns > w->ring_since_ns + STUCK_NS;
    return stuck ? SHED_LEDGER_STUCK : SHED_NO;
}

/* ---- snapshots --------------------------------------------------------------------------------------------------- */

void snapshot_release(struct snapshot *s) {
    if (s == NULL || --s->refs > 0)
        return;
    munmap((void *)(uintptr_t)s->snap, s->bytes);
    free(s);
}

static void send_done(struct worker *w, uint64_t generation) {
    struct ipc_header h = { .type = IPC_SNAPSHOT_DONE };
    ipc_send(&w->channel, &h, slice_of((const char *)&generation, sizeof generation), NULL, 0);
}

static void take_snapshot(struct worker *w, const struct ipc_frame *f) {
    uint64_t bytes;
    CHECK(f->fd_count == 1 && f->payload.len == sizeof bytes);
    memcpy(&bytes, f->payload.ptr, sizeof bytes);
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, f->fds[0], 0);
    close(f->fds[0]);
    struct snapshot *s = calloc(1, sizeof *s);
    if (map == MAP_FAILED || s == NULL || !snap_valid(map, bytes)) {
        worker_log(w, LOG_ERROR, "a configuration snapshot could not be used; the worker goes on with the old one");
        free(s);
        return;
    }
    *s = (struct snapshot){ .snap = map, .bytes = bytes, .refs = 1 };
    struct snapshot *old = w->snapshot;
    w->snapshot = s;
    upstream_snapshot(w, s->snap);
    listeners_snapshot(w);
    snapshot_release(old);
    send_done(w, s->snap->generation);
}

/* ---- drain and end ----------------------------------------------------------------------------------------------- */

static void end_if_drained(struct worker *w) {
    if (!w->draining || w->loop.stop)
        return;
    if (w->conn_count == 0 && w->active == 0)
        w->loop.stop = true;
    else if (w->loop.now_ns >= w->drain_deadline_ns) {
        w->quitting = true;
        conn_close_all(w); /* what was delivered is settled on the way */
        w->loop.stop = true;
    }
}

static void drain(struct worker *w, uint32_t deadline_ms) {
    w->draining = true;
    w->drain_deadline_ns = w->loop.now_ns + (uint64_t)deadline_ms * 1000000;
    listeners_drain(w);
    conn_drain_all(w);
    upstream_close_idle(w);
}

/* ---- the channel ------------------------------------------------------------------------------------------------- */

static void on_frame(struct worker *w, const struct ipc_frame *f) {
    uint32_t deadline_ms;
    switch (f->h.type) {
    case IPC_SNAPSHOT: take_snapshot(w, f); break;
    case IPC_LISTENERS: listeners_set(w, (const uint64_t *)(const void *)f->payload.ptr, f->fds, f->fd_count); break;
    case IPC_DRAIN:
        CHECK(f->payload.len == sizeof deadline_ms);
        memcpy(&deadline_ms, f->payload.ptr, sizeof deadline_ms);
        drain(w, deadline_ms);
        break;
    case IPC_QUIT:
        w->quitting = true;
        conn_close_all(w);
        w->loop.stop = true;
        break;
    case IPC_REOPEN_LOGS: /* the access log first, if there is one; the error log last */
        CHECK(f->fd_count == 1 || f->fd_count == 2);
        access_log_reopen(w, f->fd_count == 2 ? f->fds[0] : -1, f->fds[f->fd_count - 1]);
        break;
    case IPC_ANSWER: call_answered(w, f->h.id, f->payload); break;
    default:
        for (unsigned i = 0; i < f->fd_count; i++)
            close(f->fds[i]);
        break;
    }
}

static void read_channel(struct worker *w) {
    for (;;) {
        struct ipc_frame f;
        int r = ipc_recv(&w->channel, &f);
        if (r == 0)
            break;
        if (r < 0) {
            conn_close_all(w);
            access_log_flush(w);
            exit(1); /* without a master there is nobody to serve for */
        }
        on_frame(w, &f);
    }
    ipc_flush(&w->channel);
}

static void on_channel(struct watch *watch, uint32_t events) {
    (void)events;
    read_channel(CONTAINER_OF(watch, struct worker, channel_watch));
}

/* ---- the loop's hooks -------------------------------------------------------------------------------------------- */

static void on_top(struct loop *l) {
    struct worker *w = the_worker;
    money_top(&w->money, l->now_ns);
    COUNT(w->counters, loop_turns, 1);
    end_if_drained(w);
}

static void on_idle(struct loop *l) {
    (void)l;
    end_if_drained(the_worker); /* after what the last turn let go of: the end does not wait for a tick */
    money_idle(&the_worker->money);
}

static void on_wake(struct loop *l) {
    (void)l;
    money_wake(&the_worker->money);
}

static struct timer tick;

/* Heartbeat of an idle worker, gauges, buffered log lines. */
static void on_tick(struct timer *t) {
    struct worker *w = the_worker;
    atomic_store_explicit(&w->counters->memory_pages, w->pages.in_use, memory_order_relaxed);
    worker_shed(w); /* looks at the ring, so that "since when" is never older than a tick */
    access_log_flush(w);
    loop_timer(&w->loop, t, TICK_MS);
}

static void last_words(const char *text) {
    struct worker *w = the_worker;
    if (w != NULL)
        snprintf(w->shm.ranges[w->heritage.range].last_words, sizeof w->shm.ranges[0].last_words, "%s", text);
}

/* ---- birth ------------------------------------------------------------------------------------------------------- */

static void fail(const char *what, int error) {
    fprintf(stderr, "worker: %s: %s\n", what, strerror(error < 0 ? -error : error));
    exit(1);
}

static void open_shared(struct worker *w) {
    const struct worker_heritage *h = &w->heritage;
    w->shm = h->shm;
    int r = shm_drop_writable(&w->shm, h->shm_ro_fd);
    if (r != 0)
        fail("shared memory cannot be mapped read-only", r);
    close(h->shm_ro_fd);
    w->counters = &w->shm.counters[h->range];
    w->series = w->shm.series + (size_t)h->range * SHM_MAX_SERIES;
    atomic_store(&w->counters->connections_open, 0); /* gauges of a predecessor */
    atomic_store(&w->counters->exchanges_active, 0);
    atomic_store(&w->counters->streams_active, 0);
    atomic_store(&w->counters->holds_nano, 0);
    atomic_store(&w->counters->upstream_open, 0);
    atomic_store(&w->counters->upstream_idle, 0);
    atomic_store(&w->shm.ranges[h->range].connections, 0);
    atomic_store(&w->shm.ranges[h->range].active, 0);
    r = money_attach(&w->money, &w->shm, h->range);
    if (r != 0)
        fail("no memory for the slots", r);
    money_idle(&w->money); /* until there is a configuration it moves no word, and a pause need not wait for it */
}

/* Blocks for what the master sends first: log files and the configuration. */
static void await_config(struct worker *w) {
    w->loop.now_ns = 0;
    while (w->snapshot == NULL) {
        struct ipc_frame f;
        int r = ipc_recv(&w->channel, &f);
        if (r < 0)
            exit(1);
        if (r > 0) {
            on_frame(w, &f);
            continue;
        }
        struct epoll_event e;
        if (epoll_wait(w->loop.epfd, &e, 1, 1000) < 0 && errno != EINTR)
            fail("epoll_wait", errno);
    }
}

/* Memory of large bodies comes and goes with each call: it is asked of the kernel, and given back, only in large steps,
 * for a page that comes back must be cleared and faulted in. */
static void keep_freed_memory(void) {
    mallopt(M_MMAP_THRESHOLD, MAP_ALONE);
    mallopt(M_TRIM_THRESHOLD, KEEP_FREED);
}

_Noreturn void worker_main(const struct worker_heritage *h) {
    struct worker *w = calloc(1, sizeof *w);
    if (w == NULL)
        fail("no memory", ENOMEM);
    the_worker = w;
    keep_freed_memory();
    w->heritage = *h;
    open_shared(w);
    check_last_words = last_words;
    pages_init(&w->pages, KEEP_PAGES);
    arena_init(&w->scratch, &w->pages, ARENA_SCRATCH);
    hmac_key_init(&w->pepper, h->pepper, sizeof h->pepper);
    hmac_key_init(&w->seal, h->seal_key, sizeof h->seal_key);
    wipe(w->heritage.pepper, sizeof w->heritage.pepper);
    wipe(w->heritage.seal_key, sizeof w->heritage.seal_key);
    int r = loop_init(&w->loop);
    if (r != 0 || tls_init() != 0)
        fail("event loop or random generator", r);
    w->ring_since_ns = w->loop.now_ns; /* what a predecessor left in the ring waits from now on, for this one */
    ipc_open(&w->channel, h->channel_fd, &w->pages, CHANNEL_QUEUE);
    w->channel_watch = (struct watch){ on_channel, h->channel_fd };
    w->access_log = access_log_new(w);
    upstream_init(w);
    listeners_init(w);
    if (loop_watch(&w->loop, &w->channel_watch, 0) != 0 || w->access_log == NULL)
        fail("the channel to the master", errno);
    r = worker_sandbox(w);
    if (r != 0)
        fail("privileges cannot be dropped", r);
    await_config(w);
    money_wake(&w->money);
    w->loop.on_top = on_top;
    w->loop.on_idle = on_idle;
    w->loop.on_wake = on_wake;
    tick.fn = on_tick;
    loop_timer(&w->loop, &tick, TICK_MS);
    struct ipc_header ready = { .type = IPC_READY };
    ipc_send(&w->channel, &ready, SLICE(""), NULL, 0);
    read_channel(w); /* edges seen while waiting are gone */
    loop_run(&w->loop);
    upstream_close_all(w);
    access_log_flush(w);
    money_detach(&w->money);
    exit(0);
}
