/* See call.h. Waiting exchanges stand in a list of the worker: there are few, for none of this is on the path of a
 * model call. */
#include "worker/call.h"

#include <errno.h>

enum { CALL_TIMEOUT_MS = 10000, CALLS_MAX = 256 };

static struct exchange *waiting;
static uint32_t waiting_count, last_id;

void call_forget(struct exchange *ex) {
    for (struct exchange **at = &waiting; *at != NULL; at = &(*at)->next_call)
        if (*at == ex) {
            *at = ex->next_call;
            waiting_count--;
            ex->call_id = 0;
            return;
        }
}

static void on_timeout(struct timer *t) {
    struct exchange *ex = CONTAINER_OF(t, struct exchange, timer);
    call_forget(ex);
    ex->on_answer(ex, NULL);
}

bool call_ledger(struct exchange *ex, struct slice json, void (*on_answer)(struct exchange *ex, const struct json *j)) {
    struct ipc_header h = { .type = IPC_CALL, .id = ++last_id ? last_id : ++last_id };
    int r = waiting_count >= CALLS_MAX ? -ENOBUFS : ipc_send(&ex->worker->channel, &h, json, NULL, 0);
    if (r != 0 && r != -EAGAIN) {
        reply_error(ex, 503, "overloaded", NULL,
                    "The server is temporarily unable to take this request. Please try again shortly.");
        return false;
    }
    ex->call_id = h.id;
    ex->on_answer = on_answer;
    ex->next_call = waiting;
    waiting = ex;
    waiting_count++;
    ex->timer.fn = on_timeout;
    loop_timer(&ex->worker->loop, &ex->timer, CALL_TIMEOUT_MS);
    return true;
}

void call_answered(struct worker *w, uint32_t id, struct slice payload) {
    (void)w;
    for (struct exchange *ex = waiting; ex != NULL; ex = ex->next_call) {
        if (ex->call_id != id)
            continue;
        struct json j;
        call_forget(ex);
        loop_timer_off(&ex->worker->loop, &ex->timer);
        bool ok = json_parse(&j, &ex->arena, payload.ptr, payload.len);
        ex->on_answer(ex, ok ? &j : NULL);
        return;
    }
}
