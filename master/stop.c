/* The end, in order: workers (by draining or at once), then the ledger, then the master.
 *
 * Draining has a deadline in each worker; the master's own is a little later and turns the drain into a quick end. A
 * quick end that a worker does not follow is a kill; nothing is lost by it, since its ring and slots outlive it. The
 * ledger is given as long as it needs: it commits what the rings hold. */
#include <signal.h>

#include "master/master.h"
#include "proto/base/check.h"

enum { DRAIN_GRACE_MS = 5000, QUIT_GRACE_MS = 3000, LEDGER_PATIENCE_MS = 30000 };

static void deadline(struct timer *t) {
    struct master *m = CONTAINER_OF(t, struct master, stop_deadline);
    if (m->stopping == STOP_DRAINING) {
        master_log(LOG_WARN, "drain_timeout is over and %u workers still have work: it is cut off",
                   spawn_count(m, true));
        stop_fast(m);
    } else if (m->stopping == STOP_QUITTING) {
        for (struct worker *w = m->workers; w; w = w->next) spawn_worker_kill(w, "it was told to end and did not");
        events_timer_set(&m->events, &m->stop_deadline, QUIT_GRACE_MS, deadline);
    } else if (m->stopping == STOP_LEDGER) {
        master_log(LOG_WARN, "still waiting for the ledger to commit: is the disk slow or full?");
        events_timer_set(&m->events, &m->stop_deadline, LEDGER_PATIENCE_MS, deadline);
    }
}

/* The sockets close when the last worker has left them; what waits in their queues until then is still served. */
static void leave_listeners(struct master *m) {
    sockets_close(m->listeners, NULL);
    m->listeners = NULL;
}

uint32_t master_drain_ms(const struct master *m) {
    const struct config *c = m->config ? m->config : m->reload.next;
    return c ? conf_server(c->conf)->drain_timeout_ms : 0;
}

void stop_graceful(struct master *m) {
    if (m->stopping == STOP_DRAINING) {
        master_log(LOG_WARN, "told to stop again: ending now");
        stop_fast(m);
    }
    if (m->stopping != STOP_NO) return;
    m->stopping = STOP_DRAINING;
    notify("STOPPING=1\nSTATUS=Draining\n");
    atomic_store(&m->shm.header->draining, 1);
    uint64_t drain_ms = master_drain_ms(m);
    master_log(LOG_INFO, "stopping: calls under way have %llu s to end", (unsigned long long)(drain_ms / 1000));
    for (struct worker *w = m->workers; w; w = w->next) spawn_retire(w);
    leave_listeners(m);
    events_timer_set(&m->events, &m->stop_deadline, drain_ms + DRAIN_GRACE_MS, deadline);
    stop_progress(m);
}

void stop_fast(struct master *m) {
    if (m->stopping >= STOP_QUITTING) return;
    m->stopping = STOP_QUITTING;
    notify("STOPPING=1\nSTATUS=Ending\n");
    if (m->shm.header) atomic_store(&m->shm.header->draining, 1);
    master_log(LOG_INFO, "ending now: calls under way are cut off, what they delivered is billed");
    for (struct worker *w = m->workers; w; w = w->next) spawn_quit(w);
    leave_listeners(m);
    events_timer_set(&m->events, &m->stop_deadline, QUIT_GRACE_MS, deadline);
    stop_progress(m);
}

void stop_progress(struct master *m) {
    if (m->stopping == STOP_NO || m->workers) return;
    if (m->stopping != STOP_LEDGER) {
        m->stopping = STOP_LEDGER;
        events_timer_set(&m->events, &m->stop_deadline, LEDGER_PATIENCE_MS, deadline);
        ledgerd_stop(m);
        if (m->ledger.pid == 0 && !m->ledger.failed) {
            events_timer_clear(&m->events, &m->ledger.restart);
            ledgerd_start(m); /* it died, and what the rings hold is not committed */
            return;
        }
    }
    if (m->ledger.failed) m->exit_code = 1; /* something may be uncommitted */
    if (m->ledger.pid == 0) m->events.stop = true;
}
