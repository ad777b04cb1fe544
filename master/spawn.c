/* Workers: forked, watched, replaced.
 *
 * A worker lives on a range of shared memory. Its range is LIVE before it is forked and DEAD after it was reaped,
 * nothing between (rule 12 of docs/recovery.md); the ledger alone makes it CLEAN again. A replacement does not wait
 * for that: it takes another clean range, of which there are spare ones.
 *
 * Three kinds of failure: a worker that dies is replaced at once; one that dies at birth (within a second) again and
 * again is replaced ever more slowly; one that does not turn, though it is not asleep, is killed. The heartbeat
 * counts ticks of its own timer, not seconds: a machine that was suspended must not look like a hung worker. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/check.h"
#include "shm/counters.h"
#include "worker/entry.h"

enum {
    YOUNG_MS = 1000, BACK_OFF_MIN_MS = 100, BACK_OFF_MAX_MS = 10000,
    TICK_MS = 500, TICKS_HUNG = 10, /* five seconds without a turn */
    RANGE_RETRY_MS = 20, NO_RANGE_SAY_MS = 5000, FORK_RETRY_MS = 1000,
    WORKER_QUEUE_BYTES = 40 << 20 /* a whole answer of IPC_MAX_PAYLOAD fits */
};

uint32_t spawn_back_off(struct back_off *b, bool died_young) {
    if (!died_young) b->ms = 0;
    else if (b->ms == 0) b->ms = BACK_OFF_MIN_MS;
    else b->ms = b->ms * 2 > BACK_OFF_MAX_MS ? BACK_OFF_MAX_MS : b->ms * 2;
    return b->ms;
}

unsigned spawn_count(const struct master *m, bool with_retiring) {
    unsigned n = 0;
    for (const struct worker *w = m->workers; w; w = w->next) n += with_retiring || (!w->retiring && !w->foreign);
    return n;
}

void spawn_worker_kill(struct worker *w, const char *why) {
    if (w->killed) return;
    w->killed = true;
    master_log(LOG_ERROR, "worker %u (pid %d) is killed: %s", w->range, (int)w->pid, why);
    kill(w->pid, SIGKILL);
}

static void tell(struct worker *w, uint32_t type, struct slice payload, const int *fds, unsigned n) {
    struct ipc_header h = { .type = type };
    int rc = wire_send(&w->channel, &h, payload, fds, n);
    if (rc == 0 || rc == -EPIPE) return; /* -EPIPE: it is ending and will be reaped */
    if (w->channel.open) spawn_worker_kill(w, rc == -ENOBUFS ? "it does not read its channel" : strerror(-rc));
}

void spawn_send_config(struct worker *w) {
    const struct config *c = w->channel.m->config;
    uint64_t bytes = c->worker_bytes;
    tell(w, IPC_SNAPSHOT, slice_of((const char *)&bytes, sizeof bytes), &c->worker_fd, 1);
}

void spawn_send_listeners(struct worker *w) {
    uint64_t ids[IPC_MAX_FDS];
    int fds[IPC_MAX_FDS];
    unsigned n = 0;
    for (const struct listener *l = w->channel.m->listeners; l; l = l->next, n++) {
        ids[n] = l->id;
        fds[n] = l->fd;
    }
    tell(w, IPC_LISTENERS, slice_of((const char *)ids, n * sizeof *ids), fds, n);
}

void spawn_send_logs(struct worker *w) {
    const struct master *m = w->channel.m;
    int fds[2];
    unsigned n = 0;
    if (m->access_log_fd >= 0) fds[n++] = m->access_log_fd;
    fds[n++] = m->error_log_fd;
    tell(w, IPC_REOPEN_LOGS, SLICE(""), fds, n);
}

static void on_frame(struct wire *c, const struct ipc_frame *f) {
    struct worker *w = (struct worker *)c;
    uint32_t upstream;
    switch (f->h.type) {
    case IPC_READY:
        w->ready = true;
        master_log(LOG_DEBUG, "worker %u (pid %d) serves", w->range, (int)w->pid);
        master_announce(c->m);
        return;
    case IPC_SNAPSHOT_DONE:
        return;
    case IPC_RESOLVE_NOW:
        if (f->payload.len != sizeof upstream) break;
        memcpy(&upstream, f->payload.ptr, sizeof upstream);
        resolve_now(c->m, upstream);
        return;
    case IPC_CALL:
        calls_from_worker(w, f);
        return;
    }
    spawn_worker_kill(w, "it sent what no worker sends");
}

static void on_gone(struct wire *c, int error) {
    struct worker *w = (struct worker *)c;
    if (error != -EPIPE) spawn_worker_kill(w, "it broke the protocol of its channel");
}

/* ---- birth ----------------------------------------------------------------------------------------------------- */

static bool clean_range(const struct master *m, uint32_t *out) {
    for (uint32_t i = 0; i < m->shm.header->max_ranges; i++) {
        if (atomic_load(&m->shm.ranges[i].state) != RANGE_CLEAN) continue;
        *out = i;
        return true;
    }
    return false;
}

unsigned spawn_clean_ranges(const struct master *m) {
    unsigned n = 0;
    for (uint32_t i = 0; i < m->shm.header->max_ranges; i++) n += atomic_load(&m->shm.ranges[i].state) == RANGE_CLEAN;
    return n;
}

/* Nobody else writes a clean range. head, tail and next_exchange_id go on from where they are (rule 4). */
static void prepare_range(struct master *m, uint32_t range, uint32_t generation) {
    struct shm_range *r = &m->shm.ranges[range];
    atomic_store(&r->pid, 0);
    atomic_store(&r->generation, generation);
    atomic_store(&r->retiring, 0);
    atomic_store(&r->ack, 0);
    atomic_store(&r->turn_ns, events_mono_ns());
    atomic_store(&r->connections, 0);
    atomic_store(&r->active, 0);
    memset(r->last_words, 0, sizeof r->last_words);
    struct counters *counters = &m->shm.counters[range];
    (void)counters;
    enum { COUNTER, GAUGE };
#define X(name, kind, text) if (kind == GAUGE) atomic_store_explicit(&counters->name, 0, memory_order_relaxed);
    COUNTERS(X)
#undef X
    atomic_store(&r->state, RANGE_LIVE);
}

static _Noreturn void be_worker(struct master *m, const struct worker *w, int channel_fd) {
    struct worker_heritage h = {
        .shm = m->shm, .shm_ro_fd = m->shm_ro_fd, .range = w->range, .generation = w->generation,
            .channel_fd = channel_fd,
        .ledger_wake_fd = m->wake_fd, .uid = m->uid, .gid = m->gid, .server_started_at_ms = m->started_wall_ms,
        .master_pid = m->pid, .allow_sandbox = true,
    };
    memcpy(h.pepper, m->pepper, sizeof h.pepper);
    memcpy(h.seal_key, m->seal_key, sizeof h.seal_key);
    worker_main(&h);
}

/* 0, or -errno: -EBUSY where no range is clean. */
static int worker_spawn(struct master *m) {
    uint32_t range;
    int fds[2], rc;
    if (!clean_range(m, &range)) return -EBUSY;
    if ((rc = ipc_pair(fds)) != 0) return rc;
    struct worker *w = calloc(1, sizeof *w);
    CHECK(w);
    *w = (struct worker){ .range = range, .generation = ++m->last_generation, .started_ns = events_mono_ns() };
    w->channel.on_frame = on_frame;
    w->channel.on_gone = on_gone;
    prepare_range(m, range, w->generation);
    int keep[] = { fds[1], m->shm_ro_fd, m->wake_fd, m->lock_fd };
    char title[24];
    snprintf(title, sizeof title, "tg-worker-%u", range);
    w->pid = spawn_fork(m, keep, ARRAY_LEN(keep), title);
    if (w->pid == 0) be_worker(m, w, fds[1]);
    close(fds[1]);
    rc = w->pid < 0 ? w->pid : wire_open(&w->channel, m, fds[0], WORKER_QUEUE_BYTES);
    if (w->pid < 0) {
        close(fds[0]);
        atomic_store(&m->shm.ranges[range].state, RANGE_CLEAN); /* nobody was there */
        free(w);
        return rc;
    }
    atomic_store(&m->shm.ranges[range].pid, (uint32_t)w->pid);
    w->next = m->workers;
    m->workers = w;
    if (rc != 0) {
        spawn_worker_kill(w, "its channel cannot be watched");
        return 0;
    }
    spawn_send_logs(w);
    spawn_send_config(w);
    spawn_send_listeners(w);
    master_log(LOG_INFO, "worker %u started: pid %d, generation %u", range, (int)w->pid, w->generation);
    return 0;
}

void spawn_adopt(struct worker *w, struct master *m, int channel_fd) {
    w->channel.on_frame = on_frame;
    w->channel.on_gone = on_gone;
    w->channel.m = m;
    if (channel_fd >= 0 && wire_open(&w->channel, m, channel_fd, WORKER_QUEUE_BYTES) != 0)
        spawn_worker_kill(w, "its channel cannot be watched");
}

static void retire_one(struct master *m) {
    struct worker *newest = NULL;
    for (struct worker *w = m->workers; w; w = w->next) {
        if (!w->retiring && !w->foreign && (!newest || w->generation > newest->generation)) newest = w;
    }
    CHECK(newest);
    spawn_retire(newest);
}

void spawn_retire(struct worker *w) {
    struct master *m = w->channel.m;
    uint32_t deadline_ms = master_drain_ms(m);
    w->retiring = true;
    atomic_store(&m->shm.ranges[w->range].retiring, 1);
    tell(w, IPC_DRAIN, slice_of((const char *)&deadline_ms, sizeof deadline_ms), NULL, 0);
}

void spawn_quit(struct worker *w) {
    w->retiring = true;
    tell(w, IPC_QUIT, SLICE(""), NULL, 0);
}

/* A range becomes clean within milliseconds, unless the ledger is away or earlier workers drain for long. */
static void note_no_range(struct master *m) {
    uint64_t now = events_mono_ns();
    if (m->no_range_since_ns == 0) m->no_range_since_ns = now;
    if (now - m->no_range_since_ns < (uint64_t)NO_RANGE_SAY_MS * 1000000u) return;
    m->no_range_since_ns = now;
    master_log(LOG_WARN, "a worker waits for room in shared memory: %u still drain, the ledger is %s",
               spawn_count(m, true) - spawn_count(m, false), ledgerd_state(m));
}

static void respawn(struct timer *t) {
    spawn_reconcile(CONTAINER_OF(t, struct master, respawn));
}

void spawn_reconcile(struct master *m) {
    if (m->stopping != STOP_NO || !m->config || !m->ledger.ever_ready) return;
    while (spawn_count(m, false) > m->workers_wanted) retire_one(m);
    while (spawn_count(m, false) < m->workers_wanted) {
        uint64_t now = events_mono_ns();
        uint64_t wait_ms = 0;
        if (now < m->spawn_not_before_ns) {
            wait_ms = (m->spawn_not_before_ns - now) / 1000000 + 1;
        } else {
            int rc = worker_spawn(m);
            if (rc == -EBUSY) note_no_range(m);
            else m->no_range_since_ns = 0;
            if (rc == 0) continue;
            wait_ms = rc == -EBUSY ? RANGE_RETRY_MS : FORK_RETRY_MS;
            if (rc == -EBUSY && !m->ledger.ready) wait_ms = TICK_MS; /* nobody cleans */
            if (rc != -EBUSY) master_log(LOG_ERROR, "cannot start a worker: %s (limit of processes or memory?)",
                                         strerror(-rc));
        }
        events_timer_set(&m->events, &m->respawn, wait_ms, respawn);
        return;
    }
}

/* ---- death ----------------------------------------------------------------------------------------------------- */

/* "killed by signal 11 (Segmentation fault)", "exit status 3" */
const char *spawn_cause(int status, char *out, size_t n) {
    if (WIFSIGNALED(status)) {
        snprintf(out, n, "killed by signal %d (%s)%s", WTERMSIG(status), strsignal(WTERMSIG(status)),
                 WCOREDUMP(status) ? ", core dumped" : "");
    } else {
        snprintf(out, n, "exit status %d", WEXITSTATUS(status));
    }
    return out;
}

static void log_death(const struct master *m, const struct worker *w, int status, uint64_t lived_ms) {
    char cause[96], words[257] = "";
    memcpy(words, m->shm.ranges[w->range].last_words, 256);
    bool clean = WIFEXITED(status) && WEXITSTATUS(status) == 0 && w->retiring;
    if (clean) {
        master_log(LOG_INFO, "worker %u (pid %d) has drained", w->range, (int)w->pid);
        return;
    }
    master_log(LOG_ERROR,
               "worker %u (pid %d) died after %llu ms: %s%s%s; its calls under way are settled by what they delivered",
               w->range, (int)w->pid, (unsigned long long)lived_ms, spawn_cause(status, cause, sizeof cause),
               words[0] ? "; its last words: " : "", words);
}

static void worker_reaped(struct master *m, struct worker *w, int status) {
    uint64_t lived_ms = (events_mono_ns() - w->started_ns) / 1000000;
    log_death(m, w, status, lived_ms);
    for (struct worker **at = &m->workers; *at; at = &(*at)->next) {
        if (*at != w) continue;
        *at = w->next;
        break;
    }
    atomic_store(&m->shm.ranges[w->range].pid, 0);
    atomic_store(&m->shm.ranges[w->range].state, RANGE_DEAD);
    ledgerd_worker_dead(m, w->range);
    calls_drop(m, w);
    wire_close(&w->channel);
    /* A kill from outside after it had served is no failure to start. */
    bool young = lived_ms < YOUNG_MS && !(w->ready && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    /* Several that die together are one failure: the delay does not grow while it runs. */
    if (!w->retiring && !w->foreign && !(young && events_mono_ns() < m->spawn_not_before_ns)) {
        uint32_t delay_ms = spawn_back_off(&m->back_off, young);
        m->spawn_not_before_ns = events_mono_ns() + (uint64_t)delay_ms * 1000000u;
        if (delay_ms >= 1000) {
            master_log(LOG_ERROR,
                       "workers die as they start; the next one starts in %u ms: see the lines above for why",
                           delay_ms);
        }
    }
    if (young && !w->retiring && !w->foreign) upgrade_worker_died_young(m);
    free(w);
    spawn_reconcile(m);
    stop_progress(m);
}

static struct worker *worker_of(const struct master *m, pid_t pid) {
    struct worker *w = m->workers;
    while (w && w->pid != pid) w = w->next;
    return w;
}

/* Children are reaped here alone. WUNTRACED: a stopped worker stops every other one at the next pause. */
void spawn_children_changed(struct master *m) {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED)) > 0;) {
        struct worker *w = worker_of(m, pid);
        if (WIFSTOPPED(status) || WIFCONTINUED(status)) {
            if (w) w->stopped = WIFSTOPPED(status);
            master_log(LOG_WARN, "%s (pid %d) was %s by a signal",
                       w ? "a worker" : pid == m->ledger.pid ? "the ledger" : "the resolver",
                       (int)pid, WIFSTOPPED(status) ? "stopped" : "continued");
        } else if (w) {
            worker_reaped(m, w, status);
        } else if (pid == m->ledger.pid) {
            ledgerd_reaped(m, status);
        } else if (pid == m->resolver.pid) {
            resolve_reaped(m, status);
        } else {
            upgrade_reaped(m, pid, status);
        }
    }
}

/* ---- heartbeat ------------------------------------------------------------------------------------------------- */

static void check_worker(struct worker *w) {
    const struct shm_range *r = &w->channel.m->shm.ranges[w->range];
    uint64_t turn_ns = atomic_load(&r->turn_ns);
    bool turns = turn_ns != w->seen_turn_ns || atomic_load(&r->ack) == RANGE_IDLE;
    w->seen_turn_ns = turn_ns;
    if (turns && !w->stopped && w->channel.open) {
        w->missed = 0;
        return;
    }
    if (++w->missed < TICKS_HUNG) return;
    w->killed = false; /* say it again, and kill again, where one kill was not enough */
    spawn_worker_kill(w, w->stopped ? "it has been stopped (SIGSTOP) for 5 s"
                        : !w->channel.open ? "it closed its channel and did not end" : "it has not turned for 5 s");
    w->missed = 0;
}

static void tick(struct timer *t) {
    struct master *m = CONTAINER_OF(t, struct master, heartbeat);
    for (struct worker *w = m->workers; w; w = w->next) check_worker(w);
    ledgerd_watch(m, TICK_MS);
    events_timer_set(&m->events, &m->heartbeat, TICK_MS, tick);
}

void spawn_heartbeat_start(struct master *m) {
    events_timer_set(&m->events, &m->heartbeat, TICK_MS, tick);
}

void spawn_hung(struct master *m, uint32_t range) {
    for (struct worker *w = m->workers; w; w = w->next) {
        if (w->range == range) spawn_worker_kill(w, "the ledger waits for it to turn, and it does not");
    }
}
