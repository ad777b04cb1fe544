/* An attempt: one try of an exchange at one upstream, and what follows when it fails before the client got a byte.
 *
 * Routes are tried by priority and, within one, by weight; a provider key that is limited or refused cools down and
 * another one is taken; a kept-alive connection that turns out dead is replaced without counting. Each failure notes
 * what the client shall hear if nothing is left. After the first byte to the client nothing is tried again.
 * What is sent is made in attempt_request.c, what comes back is read in attempt_answer.c. */
#include "worker/attempt.h"

#include <stdio.h>

enum { TRIES_MAX = 16, REUSE_FAILURES_MAX = 3 };

static void on_upstream_event(struct upconn *u, uint32_t events);
static bool send_request(struct exchange *ex);

/* ---- letting go -------------------------------------------------------------------------------------------------- */

void attempt_release(struct exchange *ex, bool reusable) {
    struct upconn *u = ex->try.conn;
    if (ex->try.waiting) {
        upstream_cancel(&ex->try.ticket);
        ex->try.waiting = false;
    }
    if (u == NULL)
        return;
    ex->try.conn = NULL;
    upstream_put(u, reusable && ex->try.keep_alive && !ex->try.hangup);
}

void attempt_abandon(struct exchange *ex) {
    loop_timer_off(&ex->worker->loop, &ex->timer);
    if (ex->try.conn != NULL && ex->body_in_upconn > 0)
        buf_consume(&ex->try.conn->in, ex->body_in_upconn);
    ex->body_in_upconn = 0;
    attempt_release(ex, ex->try.complete);
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

static const struct snap_route *route_at(const struct exchange *ex, uint32_t i) {
    return SNAP_AT(ex->snapshot->snap, ex->model->routes, struct snap_route, i);
}
static const struct snap_upstream *upstream_of(const struct exchange *ex, const struct snap_route *r) {
    return SNAP_AT(ex->snapshot->snap, ex->snapshot->snap->upstreams, struct snap_upstream, r->upstream);
}

/* Of the routes in `open`, one of the best priority, by weight. */
static int choose(struct exchange *ex, uint64_t open) {
    uint32_t best = UINT32_MAX, total = 0, random;
    for (uint32_t i = 0; i < ex->model->routes.count && i < 64; i++)
        if (open >> i & 1 && route_at(ex, i)->priority < best)
            best = route_at(ex, i)->priority;
    for (uint32_t i = 0; i < ex->model->routes.count && i < 64; i++) {
        if (!(open >> i & 1) || route_at(ex, i)->priority != best)
            open &= ~(1ull << i);
        else
            total += route_at(ex, i)->weight;
    }
    if (open == 0)
        return -1;
    if ((open & (open - 1)) == 0 || total == 0)
        return __builtin_ctzll(open);
    worker_random(ex->worker, &random, sizeof random);
    random %= total;
    for (uint32_t i = 0; i < 64; i++) {
        if (!(open >> i & 1))
            continue;
        if (random < route_at(ex, i)->weight)
            return (int)i;
        random -= route_at(ex, i)->weight;
    }
    return -1;
}

static bool drained(const struct worker *w, const struct snap_upstream *up) {
    return up->id < SHM_MAX_UPSTREAMS && atomic_load_explicit(&w->shm.upstreams[up->id].drained, memory_order_relaxed);
}

/* Sets try.route, up and key. false: no route is left that could serve. Where there is but one route (and one key) its
 * circuit and cool-down are not asked: refusing on its behalf would help nobody, and the provider's own answer says
 * more. */
static bool pick(struct exchange *ex) {
    uint64_t open = 0, until_ns = 0;
    bool only = ex->model->routes.count == 1;
    for (uint32_t i = 0; i < ex->model->routes.count && i < 64; i++)
        if (!(ex->tried_routes >> i & 1))
            open |= 1ull << i;
    for (int i; (i = choose(ex, open)) >= 0; open &= ~(1ull << i)) {
        const struct snap_upstream *up = upstream_of(ex, route_at(ex, (uint32_t)i));
        if (!upstream_usable(ex->worker, up) && (!only || drained(ex->worker, up)))
            continue;
        int key = 0;
        if (ex->pinned_key >= 0) {
            key = ex->pinned_key;
        } else if (up->keys.count > (only ? 1 : 0)) {
            key = upstream_pick_key(ex->worker, up, &ex->key_rotation, &until_ns);
            if (key < 0) {
                if (ex->last_status == 0) { /* all its keys are limited: the client hears when to come again */
                    uint64_t now = ex->worker->loop.now_ns;
                    ex->last_status = 429;
                    ex->last_code = "rate_limit_exceeded";
                    snprintf(ex->last_text, sizeof ex->last_text,
                             "The provider is limiting requests. Please retry later.");
                    ex->last_retry_after_ms = until_ns > now ? (until_ns - now) / 1000000 + 1 : 1000;
                }
                continue;
            }
        }
        ex->try.route = route_at(ex, (uint32_t)i);
        ex->try.up = up;
        ex->try.key = key;
        ex->try.route_index = (uint32_t)i;
        return true;
    }
    return false;
}

static void give_up(struct exchange *ex) {
    if (task_guess(ex))
        return;
    struct reply_fault f = { .status = ex->last_status, .code = ex->last_code, .message = slice_str(ex->last_text),
                             .retry_after_ms = ex->last_retry_after_ms };
    if (f.status == 0)
        f = (struct reply_fault){ .status = 503,
                                  .code = "no_upstream",
                                  .message = SLICE("No provider is available for this model right now."),
                                  .retry_after_ms = 1000 };
    if (f.status == 502)
        f.status = (int)ex->snapshot->snap->upstream_error_status;
    ex->status = f.status; /* for the record */
    meter_release(ex);
    if (ex->conn == NULL)
        exchange_finish(ex);
    else
        reply_fault(ex, &f);
}

/* ---- going out --------------------------------------------------------------------------------------------------- */

static void on_timer(struct timer *timer) {
    struct exchange *ex = CONTAINER_OF(timer, struct exchange, timer);
    const struct snap_upstream *up = ex->try.up;
    if (ex->state == EX_DRAIN) { /* the terminator of a finished stream did not come */
        exchange_finish(ex);
        return;
    }
    if (ex->paused) { /* we are not reading: the silence is ours */
        loop_timer(&ex->worker->loop, &ex->timer, up->idle_timeout_ms);
        return;
    }
    upstream_report(ex->worker, up, false, 0);
    if (ex->head_sent)
        relay_stream_cut(ex, 504, "upstream_timeout", "The provider stopped answering.");
    else
        attempt_failed(ex, 504, "upstream_timeout", "The provider did not answer in time.", true);
}

static void on_ticket(struct up_ticket *t, struct upconn *u, enum up_error e) {
    struct exchange *ex = CONTAINER_OF(t, struct exchange, try.ticket);
    ex->try.waiting = false;
    if (u == NULL) {
        snprintf(ex->up_text, sizeof ex->up_text, "The provider could not be reached (%s).", up_error_text(e));
        if (e == UP_BUSY)
            attempt_failed(ex, 503, "overloaded", "Too many requests to the provider at the same time.", true);
        else if (e == UP_CONNECT_TIMEOUT)
            attempt_failed(ex, 504, "upstream_timeout", ex->up_text, false);
        else
            attempt_failed(ex, 502, "upstream_failed", ex->up_text, false);
        return;
    }
    ex->try.conn = u;
    send_request(ex);
}

static void connect_to(struct exchange *ex, bool fresh) {
    struct attempt *t = &ex->try;
    t->sent = 0;
    t->head_scanned = 0;
    t->got_bytes = false;
    t->event_stream = t->complete = t->write_failed = t->hangup = false;
    t->retry_after_ms = 0;
    t->started_ns = ex->worker->loop.now_ns;
    t->ticket = (struct up_ticket){ .on_ready = on_ticket, .worker = ex->worker };
    ex->timer.fn = on_timer;
    ex->state = EX_CONNECT;
    buf_release(&ex->reply);
    loop_timer(&ex->worker->loop, &ex->timer, t->up->first_byte_timeout_ms);
    t->waiting = true;
    t->conn = upstream_get(ex->worker, ex->snapshot->snap, t->up, &t->ticket, fresh);
    if (t->conn != NULL) {
        t->waiting = false;
        send_request(ex);
    }
}

void attempt_start(struct exchange *ex) {
    if (ex->tries >= TRIES_MAX || !pick(ex)) {
        give_up(ex);
        return;
    }
    if (ex->tries++ > 0)
        COUNT(ex->worker->counters, upstream_retries, 1);
    if (ex->slot != NULL)
        ex->slot->usage.upstream_id = ex->try.up->id;
    if (!attempt_body(ex))
        return;
    if (ex->try.up->dialect == DIALECT_ECHO) {
        echo_run(ex);
        return;
    }
    if (!attempt_head(ex)) {
        reply_error(ex, 500, "internal", NULL, "The provider's configured headers are too long.");
        return;
    }
    connect_to(ex, false);
}

/* The rest of head and body into the socket. false: the attempt is over, ex may be gone. */
static bool send_request(struct exchange *ex) {
    struct attempt *t = &ex->try;
    struct upconn *u = t->conn;
    u->owner = ex;
    u->on_event = on_upstream_event;
    ex->state = EX_REQUEST;
    size_t all = t->head.len + ex->body_out.bytes;
    while (t->sent < all) {
        struct iovec iov[64];
        int n = 0;
        size_t skip = t->sent;
        if (skip < t->head.len) {
            iov[n++] = (struct iovec){ (void *)(uintptr_t)(t->head.ptr + skip), t->head.len - skip };
            skip = 0;
        } else {
            skip -= t->head.len;
        }
        for (uint32_t i = 0; i < ex->body_out.count && n < (int)ARRAY_LEN(iov); i++) {
            struct slice p = ex->body_out.at[i];
            if (skip >= p.len) {
                skip -= p.len;
                continue;
            }
            iov[n++] = (struct iovec){ (void *)(uintptr_t)(p.ptr + skip), p.len - skip };
            skip = 0;
        }
        ssize_t r = io_writev(&u->io, iov, n);
        if (r == IO_AGAIN) {
            loop_timer(&ex->worker->loop, &ex->timer, t->up->idle_timeout_ms);
            return true;
        }
        if (r < 0) { /* it may have answered before it closed: look first */
            t->sent = all;
            t->write_failed = true;
            ex->state = EX_HEAD;
            attempt_read(ex);
            return false;
        }
        t->sent += (size_t)r;
    }
    ex->state = EX_HEAD;
    http_reader_init(&t->reader, HTTP_BODY_NONE, 0);
    loop_timer(&ex->worker->loop, &ex->timer, t->up->first_byte_timeout_ms);
    return true;
}

/* ---- failing ----------------------------------------------------------------------------------------------------- */

void attempt_failed(struct exchange *ex, int status, const char *code, const char *text, bool other_upstream_only) {
    struct worker *w = ex->worker;
    COUNT(w->counters, upstream_failures, 1);
    ex->last_status = status;
    ex->last_code = code;
    ex->last_retry_after_ms = ex->try.retry_after_ms;
    snprintf(ex->last_text, sizeof ex->last_text, "%s", text);
    attempt_abandon(ex);
    if (ex->conn == NULL) { /* nobody waits for another try */
        exchange_finish(ex);
        return;
    }
    if (other_upstream_only || ex->model->routes.count > 1)
        ex->tried_routes |= 1ull << ex->try.route_index;
    uint64_t all = ex->model->routes.count >= 64 ? UINT64_MAX : (1ull << ex->model->routes.count) - 1;
    if ((ex->tried_routes & all) == all && !other_upstream_only)
        ex->tried_routes &= ~(1ull << ex->try.route_index); /* all have failed once: this one may be asked again */
    if (ex->tries > ex->try.up->retries || (ex->tried_routes & all) == all) {
        give_up(ex);
        return;
    }
    attempt_start(ex);
}

/* A provider's error before anything went out to the client: the request's fault is told, the rest is a failed attempt.
 */
void relay_fault(struct exchange *ex, const struct ir_fault *f) {
    struct attempt *t = &ex->try;
    struct slice up = snap_text(ex->snapshot->snap, t->up->name);
    uint32_t rotation = ex->key_rotation;
    bool keys_left;
    switch (f->blame) {
    case IR_BLAME_CLIENT: {
        struct reply_fault r = { .status = f->status, .code = dialect_status_of(f->status)->code, .param = f->param,
                                 .message = f->message, .provider_code = f->code };
        ex->status = r.status;
        meter_release(ex);
        if (ex->conn == NULL)
            exchange_finish(ex);
        else
            reply_fault(ex, &r);
        return;
    }
    case IR_BLAME_KEY:
        worker_log(ex->worker, LOG_ERROR,
                   "upstream %.*s refuses its API key number %d (%.*s): check the key and the account at the provider",
                   SLICE_ARG(up), t->key + 1, (int)(f->detail.len < 200 ? f->detail.len : 200),
                   f->detail.ptr ? f->detail.ptr : "");
        upstream_cool_key(ex->worker, t->up, t->key, t->up->cooldown_ms);
        keys_left = t->up->keys.count > 1 && upstream_pick_key(ex->worker, t->up, &rotation, NULL) >= 0;
        if (f->status == 429) { /* out of quota: as long as nothing else can serve, a limit to the client */
            t->retry_after_ms = t->retry_after_ms > 0 ? t->retry_after_ms : t->up->cooldown_ms;
            attempt_failed(ex, 429, "rate_limit_exceeded", "The provider is limiting requests. Please retry later.",
                           !keys_left);
            return;
        }
        attempt_failed(ex, 502, "upstream_failed", "The provider refused the gateway's credentials.", !keys_left);
        return;
    case IR_BLAME_RATE:
        t->retry_after_ms = t->retry_after_ms > 0   ? t->retry_after_ms
                            : f->retry_after_ms > 0 ? f->retry_after_ms
                                                    : 1000;
        upstream_cool_key(ex->worker, t->up, t->key, t->retry_after_ms);
        keys_left = t->up->keys.count > 1 && upstream_pick_key(ex->worker, t->up, &rotation, NULL) >= 0;
        attempt_failed(ex, 429, "rate_limit_exceeded", "The provider is limiting requests. Please retry later.",
                       !keys_left);
        return;
    case IR_BLAME_ROUTE:
        worker_log(
            ex->worker, LOG_ERROR,
            "upstream %.*s does not accept a request for model %.*s (%.*s): check base_url and the model's route",
            SLICE_ARG(up), SLICE_ARG(ex->target_model), (int)(f->detail.len < 200 ? f->detail.len : 200),
            f->detail.ptr ? f->detail.ptr : "");
        attempt_failed(ex, t->status == 400 ? 400 : 404, "model_not_found", "The provider does not know this model.",
                       true);
        return;
    case IR_BLAME_UPSTREAM: break;
    }
    upstream_report(ex->worker, t->up, false, 0);
    t->retry_after_ms = 0;
    attempt_failed(ex, f->status == 504 ? 504 : 502, f->status == 504 ? "upstream_timeout" : "upstream_failed",
                   "The provider reported an error.", false);
}

void attempt_broken(struct exchange *ex, const char *text) {
    struct attempt *t = &ex->try;
    if (ex->state == EX_DRAIN) {
        exchange_finish(ex);
        return;
    }
    if (ex->head_sent) {
        upstream_report(ex->worker, t->up, false, 0);
        relay_stream_cut(ex, 502, "upstream_failed", text);
        return;
    }
    if (t->conn->reused && !t->got_bytes && ex->reuse_failures++ < REUSE_FAILURES_MAX && ex->conn != NULL) {
        attempt_abandon(ex); /* it was closed while idle: not the upstream's failure */
        connect_to(ex, true);
        return;
    }
    upstream_report(ex->worker, t->up, false, 0);
    attempt_failed(ex, 502, "upstream_failed", text, false);
}

static void on_upstream_event(struct upconn *u, uint32_t events) {
    struct exchange *ex = u->owner;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        ex->try.hangup = true;
    if (io_unsent(&u->io) && io_flush(&u->io) == IO_ERROR) {
        attempt_broken(ex, "The connection to the provider broke.");
        return;
    }
    if (ex->state == EX_REQUEST && events & EPOLLOUT && !send_request(ex))
        return;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        attempt_read(ex);
}
