/* Calls on their way to the ledger: whose they are, and the way back for their answers.
 *
 * The master gives each an id of its own (callers' ids may collide) and stamps the origin, so no worker can speak as
 * the operator. An answer is matched by id alone; one whose owner is gone meets nobody and is dropped. When the
 * ledger dies every call under way is answered as unavailable: whether it was committed is then for the caller to
 * look up (credits have idempotency keys for that). */
#include <errno.h>
#include <stdlib.h>

#include "master/master.h"
#include "proto/base/check.h"

#define BUSY \
    SLICE("{\"error\":{\"code\":\"unavailable\",\"message\":" \
          "\"too many calls to the ledger are under way; try again in a moment\"}}")

static struct call **find(struct calls *calls, uint32_t id) {
    struct call **at = &calls->bucket[id % CALLS_BUCKETS];
    while (*at && (*at)->id != id) at = &(*at)->next;
    return at;
}

struct call *calls_send(struct master *m, uint32_t origin, struct slice json, void *owner, uint32_t their_id,
                        void (*done)(struct call *c, struct slice answer)) {
    if (!m->ledger.channel.open) return NULL;
    struct calls *calls = &m->calls;
    do calls->last_id++;
    while (calls->last_id == 0 || *find(calls, calls->last_id));
    struct ipc_header h = { .type = IPC_CALL, .id = calls->last_id, .origin = origin };
    if (wire_send(&m->ledger.channel, &h, json, NULL, 0) != 0) return NULL;
    struct call *c = calloc(1, sizeof *c);
    CHECK(c);
    *c = (struct call){ .id = h.id, .their_id = their_id, .owner = owner, .done = done };
    struct call **at = find(calls, c->id);
    *at = c;
    return c;
}

void calls_answered(struct master *m, const struct ipc_frame *f) {
    struct call **at = find(&m->calls, f->h.id), *c = *at;
    if (!c) return;
    *at = c->next;
    c->done(c, f->payload);
    free(c);
}

void calls_drop(struct master *m, void *owner) {
    for (unsigned i = 0; i < CALLS_BUCKETS; i++) {
        for (struct call **at = &m->calls.bucket[i]; *at;) {
            struct call *c = *at;
            if (c->owner != owner) {
                at = &c->next;
                continue;
            }
            *at = c->next;
            free(c);
        }
    }
}

void calls_fail_all(struct master *m) {
    /* Taken out first: done may start new calls. */
    struct call *all = NULL;
    for (unsigned i = 0; i < CALLS_BUCKETS; i++) {
        while (m->calls.bucket[i]) {
            struct call *c = m->calls.bucket[i];
            m->calls.bucket[i] = c->next;
            c->next = all;
            all = c;
        }
    }
    while (all) {
        struct call *c = all;
        all = c->next;
        c->done(c, CALLS_UNAVAILABLE);
        free(c);
    }
}

static void answer_worker(struct worker *w, uint32_t id, struct slice json) {
    struct ipc_header h = { .type = IPC_ANSWER, .id = id, .origin = IPC_FROM_WORKER + w->range };
    int rc = wire_send(&w->channel, &h, json, NULL, 0);
    if (rc != 0 && rc != -EPIPE && w->channel.open) spawn_worker_kill(w, "it does not read its answers");
}

static void worker_call_done(struct call *c, struct slice answer) {
    struct worker *w = c->owner;
    CHECK(w->calls > 0);
    w->calls--;
    answer_worker(w, c->their_id, answer);
}

void calls_from_worker(struct worker *w, const struct ipc_frame *f) {
    if (w->calls >= CALLS_PER_WORKER) {
        answer_worker(w, f->h.id, BUSY);
        return;
    }
    struct master *m = w->channel.m;
    if (calls_send(m, IPC_FROM_WORKER + w->range, f->payload, w, f->h.id, worker_call_done)) w->calls++;
    else answer_worker(w, f->h.id, CALLS_UNAVAILABLE);
}
