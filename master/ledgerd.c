/* The ledger process as the master's child: started, restarted only after it was reaped, stopped last.
 *
 * While it is away nothing is lost: workers go on with what shared memory allows, records wait in the rings, and the
 * workers themselves shed new billable work when the oldest record is too old. Exit status 2 means that a restart
 * will not help: the master then sheds for good, says so loudly, and lets a raised pause fall, since nobody else can;
 * the workers go on serving what costs nothing. The same happens, until the next one is ready, when a pause stays
 * raised with no ledger for two seconds. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "master/master.h"
#include "proto/base/check.h"

enum { YOUNG_MS = 1000, STUCK_MS = 2000, START_ATTEMPTS = 5, STOP_ATTEMPTS = 3, STATUS_NO_RESTART = 2,
       QUEUE_BYTES = 80 << 20 };

static void shed_no_more(struct master *m) {
    uint32_t why = SHED_LEDGER_STUCK;
    m->ledger.stalled_ticks = 0;
    if (atomic_compare_exchange_strong(&m->shm.header->shed, &why, SHED_NO))
        master_log(LOG_WARN, "the ledger commits again: billable calls are served");
}

static void on_frame(struct wire *c, const struct ipc_frame *f) {
    struct master *m = c->m;
    uint32_t range;
    switch (f->h.type) {
    case IPC_LEDGER_READY:
        m->ledger.ready = m->ledger.ever_ready = true;
        m->ledger.young_deaths = 0;
        events_timer_clear(&m->events, &m->ledger.stuck);
        shed_no_more(m);
        master_log(LOG_INFO, "the ledger (pid %d) is ready", (int)m->ledger.pid);
        reload_ledger_ready(m);
        upgrade_ledger_ready(m);
        control_release(m);
        spawn_reconcile(m);
        return;
    case IPC_WORKER_HUNG:
        if (f->payload.len != sizeof range) break;
        memcpy(&range, f->payload.ptr, sizeof range);
        spawn_hung(m, range);
        return;
    case IPC_ALERT:
        master_log(LOG_ERROR, "ledger: %.*s", SLICE_ARG(f->payload));
        return;
    case IPC_ANSWER:
        calls_answered(m, f);
        return;
    }
    master_log(LOG_ERROR, "the ledger sent a frame of type %u, which no ledger sends", f->h.type);
}

static void on_gone(struct wire *c, int error) {
    struct master *m = c->m;
    if (error != -EPIPE) {
        master_log(LOG_ERROR, "the ledger's channel failed (%s): it is restarted", strerror(-error));
        if (m->ledger.pid > 0) kill(m->ledger.pid, SIGKILL);
    }
    calls_fail_all(m);
}

_Noreturn void ledgerd_be(struct master *m, int channel_fd) {
    struct ledger_heritage h = {
        .shm = &m->shm, .state_dir = m->state_dir, .channel_fd = channel_fd, .wake_fd = m->wake_fd,
            .master_pid = m->pid,
        .uid = m->uid, .gid = m->gid,
    };
    memcpy(h.pepper, m->pepper, sizeof h.pepper);
    ledger_main(&h);
}

static void restart(struct timer *t) {
    struct ledgerd *l = CONTAINER_OF(t, struct ledgerd, restart);
    ledgerd_start(l->m);
}

static void try_later(struct master *m, const char *what, int error) {
    master_log(LOG_ERROR, "cannot start the ledger: %s: %s", what, strerror(error));
    events_timer_set(&m->events, &m->ledger.restart, spawn_back_off(&m->ledger.back_off, true), restart);
}

void ledgerd_start(struct master *m) {
    struct ledgerd *l = &m->ledger;
    CHECK(l->pid == 0 && !l->channel.open); /* one at a time (rule 12) */
    l->m = m;
    l->ready = false;
    l->channel.on_frame = on_frame;
    l->channel.on_gone = on_gone;
    int fds[2], rc = ipc_pair(fds);
    if (rc != 0) {
        try_later(m, "socketpair", -rc);
        return;
    }
    int keep[] = { fds[1], m->wake_fd, m->lock_fd };
    pid_t pid = spawn_fork(m, keep, ARRAY_LEN(keep), "tg-ledger");
    if (pid == 0) ledgerd_be(m, fds[1]);
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        try_later(m, "fork", -pid);
        return;
    }
    l->pid = pid;
    l->started_ns = events_mono_ns();
    CHECK(wire_open(&l->channel, m, fds[0], QUEUE_BYTES) == 0);
    ledgerd_send_config(m);
    reload_ledger_up(m);
    if (l->stopping) ledgerd_stop(m);
}

void ledgerd_take_over(struct master *m, pid_t pid, int channel_fd) {
    struct ledgerd *l = &m->ledger;
    if (pid == 0) {
        ledgerd_start(m);
        return;
    }
    l->pid = pid;
    l->handing_over = true;
    l->started_ns = events_mono_ns();
    l->channel.on_frame = on_frame;
    l->channel.on_gone = on_gone;
    struct ipc_header stop = { .type = IPC_STOP };
    if (channel_fd >= 0 && wire_open(&l->channel, m, channel_fd, QUEUE_BYTES) == 0)
        wire_send(&l->channel, &stop, SLICE(""), NULL, 0);
}

static int tell(struct master *m, uint32_t type, struct slice payload, const int *fds, unsigned n) {
    struct ipc_header h = { .type = type };
    int rc = wire_send(&m->ledger.channel, &h, payload, fds, n);
    if (rc != 0 && rc != -EPIPE) master_log(LOG_ERROR, "the ledger does not read its channel: %s", strerror(-rc));
    return rc;
}

void ledgerd_send_config(struct master *m) {
    const struct config *c = m->config ? m->config : m->reload.next;
    if (!c || c->ledger_fd < 0) return; /* not built yet: sent when it is */
    uint64_t bytes = c->ledger_bytes;
    tell(m, IPC_LEDGER_CONF, slice_of((const char *)&bytes, sizeof bytes), &c->ledger_fd, 1);
}

/* Lost with a dead ledger: the next one finds the range DEAD by itself. */
void ledgerd_worker_dead(struct master *m, uint32_t range) {
    if (m->ledger.channel.open) tell(m, IPC_WORKER_DEAD, slice_of((const char *)&range, sizeof range), NULL, 0);
}

void ledgerd_stop(struct master *m) {
    m->ledger.stopping = true;
    if (m->ledger.channel.open) tell(m, IPC_STOP, SLICE(""), NULL, 0);
}

const char *ledgerd_state(const struct master *m) {
    return m->ledger.failed ? "failed" : m->ledger.pid == 0 ? "down" : m->ledger.ready ? "up" : "starting";
}

/* The ledger says itself when its disk is slow; one that is stopped, hangs or dies again and again cannot.
 * SHED_LEDGER_STUCK is the master's to set and to take back; where another reason stands, it stays. */
void ledgerd_watch(struct master *m, unsigned tick_ms) {
    struct ledgerd *l = &m->ledger;
    uint64_t tails = 0;
    bool waiting = false;
    for (uint32_t i = 0; i < m->shm.header->max_ranges; i++) {
        uint64_t tail = atomic_load(&m->shm.ranges[i].tail);
        tails += tail;
        waiting = waiting || atomic_load(&m->shm.ranges[i].head) != tail;
    }
    bool moves = !waiting || tails != l->seen_tails;
    l->seen_tails = tails;
    l->stalled_ticks = moves ? 0 : l->stalled_ticks + 1;
    uint32_t no = SHED_NO;
    if (moves && l->ready) shed_no_more(m);
    else if (l->stalled_ticks * tick_ms >= STUCK_MS &&
             atomic_compare_exchange_strong(&m->shm.header->shed, &no, SHED_LEDGER_STUCK))
        master_log(LOG_ERROR,
                   "nothing has been committed for two seconds though records wait: new billable calls get 503. Is the "
                   "disk slow, or the ledger (pid %d) stopped?", (int)l->pid);
}

/* No ledger will let the pause fall: the workers would stand for ever. Shedding first, so that nothing billable is
 * admitted on words that may be wrong; the dead ranges stay DEAD, so the next ledger settles them and computes their
 * words again. */
static void let_pause_fall(struct master *m, enum shm_shed why) {
    atomic_store(&m->shm.header->shed, why);
    uint32_t epoch = atomic_load(&m->shm.header->pause);
    if ((epoch & 1) == 0) return;
    atomic_compare_exchange_strong(&m->shm.header->pause, &epoch, epoch + 1);
    syscall(SYS_futex, &m->shm.header->pause, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    master_log(LOG_ERROR,
               "the ledger died with the workers paused: they go on, new billable calls get 503 until there is one");
}

static void stuck(struct timer *t) {
    struct ledgerd *l = CONTAINER_OF(t, struct ledgerd, stuck);
    if (l->pid == 0 && !l->ready) let_pause_fall(l->m, SHED_LEDGER_STUCK);
    if (!l->ready && !l->failed) events_timer_set(&l->m->events, &l->stuck, STUCK_MS, stuck);
}

/* An end of all: there was never a ledger that worked. */
static void give_up(struct master *m, const char *why) {
    upgrade_back(m);
    master_log(LOG_ERROR, "the ledger cannot start (%s): see its messages above; giving up", why);
    m->exit_code = 1;
    stop_fast(m);
}

static void stopped(struct master *m, int status) {
    struct ledgerd *l = &m->ledger;
    char cause[96];
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        stop_progress(m);
        return;
    }
    master_log(LOG_ERROR, "the ledger ended before it had committed all: %s", spawn_cause(status, cause, sizeof cause));
    if (++l->stop_attempts >= STOP_ATTEMPTS || (WIFEXITED(status) && WEXITSTATUS(status) == STATUS_NO_RESTART)) {
        master_log(LOG_ERROR,
                   "what is not committed stays in shared memory (%s) until the next start: do not reboot before it",
                   m->shm_file);
        l->failed = true;
        m->exit_code = 1;
        stop_progress(m);
        return;
    }
    ledgerd_start(m);
}

void ledgerd_reaped(struct master *m, int status) {
    struct ledgerd *l = &m->ledger;
    char cause[96];
    uint64_t lived_ms = (events_mono_ns() - l->started_ns) / 1000000;
    wire_finish(&l->channel); /* why it ends is its last frame; and what it had done is answered */
    bool was_ready = l->ready;
    pid_t pid = l->pid;
    l->pid = 0;
    l->ready = false;
    calls_fail_all(m);
    if (l->stopping) {
        stopped(m, status);
        return;
    }
    if (l->handing_over) { /* whatever it left is in shared memory */
        l->handing_over = false;
        ledgerd_start(m);
        return;
    }
    bool for_good = WIFEXITED(status) && WEXITSTATUS(status) == STATUS_NO_RESTART;
    master_log(LOG_ERROR, "the ledger (pid %d) died after %llu ms: %s", (int)pid, (unsigned long long)lived_ms,
               spawn_cause(status, cause, sizeof cause));
    if (!l->ever_ready && (for_good || ++l->young_deaths >= START_ATTEMPTS)) {
        l->failed = true;
        give_up(m, cause);
        return;
    }
    if (for_good) {
        l->failed = true;
        master_log(LOG_ERROR,
                   "the ledger has stopped for good; every billable call gets 503. Look at its messages above, check "
                   "the disk, run `tollctl audit` after a restart; nothing that was delivered is lost: it waits in %s",
                       m->shm_file);
        let_pause_fall(m, SHED_LEDGER_FAILED);
        reload_ledger_gone(m, true);
        control_release(m);
        return;
    }
    reload_ledger_gone(m, false);
    bool young = lived_ms < YOUNG_MS && !(was_ready && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    uint32_t delay_ms = spawn_back_off(&l->back_off, young);
    events_timer_set(&m->events, &l->stuck, STUCK_MS, stuck);
    if (delay_ms == 0) ledgerd_start(m);
    else events_timer_set(&m->events, &l->restart, delay_ms, restart);
}
