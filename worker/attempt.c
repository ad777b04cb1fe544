/* An attempt: one try of an exchange at one upstream, and what follows when it fails before the client got a byte.
 *
 * Routes are tried by priority and, within one, by weight; a provider key that is limited or refused cools down and
 * another one is taken; a kept-alive connection that turns out dead is replaced without counting. Each failure notes
 * what the client shall hear if nothing is left. After the first byte to the client nothing is tried again. */
#include "worker/exchange.h"

#include <stdio.h>

#include "worker/seal.h"

enum { ERROR_BODY_MAX = 1 << 20, TRIES_MAX = 16, REUSE_FAILURES_MAX = 3, HEAD_MAX = 16384 };

static void on_upstream_event(struct upconn *u, uint32_t events);
static bool send_request(struct exchange *ex);

/* What the upstream speaks; echo speaks OpenAI's. */
static const struct dialect *dialect_of(const struct snap_upstream *up) {
    const struct dialect *d = dialect_find(up->dialect == DIALECT_ECHO ? DIALECT_OPENAI : up->dialect);
    CHECK(d != NULL);
    return d;
}

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

/* ---- the request ------------------------------------------------------------------------------------------------- */

static size_t put(char *out, size_t at, size_t cap, struct slice s) {
    if (at + s.len > cap)
        return cap + 1; /* sticky */
    memcpy(out + at, s.ptr, s.len);
    return at + s.len;
}

static size_t put_auth(const struct exchange *ex, char *out, size_t at, size_t cap) {
    static const struct slice names[] = { SLICE("Authorization: Bearer "), SLICE("api-key: "), SLICE("x-api-key: "),
                                          SLICE("x-goog-api-key: ") };
    const struct snap_upstream *up = ex->try.up;
    if (up->keys.count == 0)
        return at;
    at = put(out, at, cap, names[up->auth]);
    at = put(out, at, cap,
             snap_text(ex->snapshot->snap, *SNAP_AT(ex->snapshot->snap, up->keys, struct snap_str, ex->try.key)));
    return put(out, at, cap, SLICE("\r\n"));
}

static size_t put_query(const struct exchange *ex, char *out, size_t at, size_t cap, bool marked) {
    const struct snap *s = ex->snapshot->snap;
    SNAP_EACH(s, ex->try.up->query, struct snap_pair, q) {
        at = put(out, at, cap, marked ? SLICE("&") : SLICE("?"));
        at = put(out, at, cap, snap_text(s, q->name));
        at = put(out, at, cap, SLICE("="));
        at = put(out, at, cap, snap_text(s, q->value));
        marked = true;
    }
    return at;
}

static bool configured_header(const struct exchange *ex, struct slice name) {
    const struct snap *s = ex->snapshot->snap;
    SNAP_EACH(s, ex->try.up->headers, struct snap_pair, h)
        if (slice_ieq(snap_text(s, h->name), name))
            return true;
    return false;
}

/* The client's own, but what the configuration sets. A body that was written anew keeps the betas alone: its version is
 * the one it was written for. *version: the dialect's header was among them. */
static size_t put_forwarded(const struct exchange *ex, const char *header, char *out, size_t at, size_t cap,
                            bool *version) {
    struct slice rest = ex->forward;
    while (rest.len > 0) {
        const char *colon = memchr(rest.ptr, ':', rest.len), *end = memchr(rest.ptr, '\n', rest.len);
        struct slice name = slice_of(rest.ptr, (size_t)(colon - rest.ptr)),
                     line = slice_of(rest.ptr, (size_t)(end + 1 - rest.ptr));
        bool beta = name.len > 5 && slice_is(slice_from(name, name.len - 5), "-beta");
        rest = slice_from(rest, line.len);
        if (configured_header(ex, name) || (ex->plan == &plan_translate && !beta))
            continue;
        *version = *version || (header != NULL && slice_is(name, header));
        at = put(out, at, cap, line);
    }
    return at;
}

/* Versions and betas: the configuration's, else the client's where it speaks the same dialect, else what the dialect
 * needs. */
static size_t put_headers(const struct exchange *ex, char *out, size_t at, size_t cap) {
    const struct snap *s = ex->snapshot->snap;
    const struct dialect *d = dialect_of(ex->try.up);
    bool same = ex->task != NULL ? d->id == ex->call.client : d->id == (enum ir_dialect)ex->dialect, has = false;
    if (same)
        at = put_forwarded(ex, d->header_name, out, at, cap, &has);
    if (d->header_name != NULL && !has && !configured_header(ex, slice_str(d->header_name))) {
        at = put(out, at, cap, slice_str(d->header_name));
        at = put(out, at, cap, SLICE(": "));
        at = put(out, at, cap, slice_str(d->header_value));
        at = put(out, at, cap, SLICE("\r\n"));
    }
    SNAP_EACH(s, ex->try.up->headers, struct snap_pair, h) {
        at = put(out, at, cap, snap_text(s, h->name));
        at = put(out, at, cap, SLICE(": "));
        at = put(out, at, cap, snap_text(s, h->value));
        at = put(out, at, cap, SLICE("\r\n"));
    }
    return at;
}

static size_t put_path(struct exchange *ex, char *out, size_t at, size_t cap) {
    const struct snap *s = ex->snapshot->snap;
    struct buf path;
    buf_init(&path, &ex->worker->pages, PAGE_BYTES);
    at = put(out, at, cap, snap_text(s, ex->try.up->base_path));
    const struct dialect *d = ex->legacy && ex->plan == &plan_pass ? &dialect_completions : dialect_of(ex->try.up);
    if (ex->task != NULL ? !buf_append_slice(&path, ex->task_path)
                         : !d->write_path(ex->target_model, ex->req.stream, &path))
        at = cap + 1;
    bool query = path.len > 0 && memchr(buf_ptr(&path), '?', path.len) != NULL;
    at = put(out, at, cap, buf_slice(&path));
    buf_release(&path);
    return put_query(ex, out, at, cap, query);
}

/* The head that goes upstream: nothing of the client's credentials or hops is in it, for it is made anew. */
static bool build_head(struct exchange *ex) {
    static char head[HEAD_MAX];
    const struct snap *s = ex->snapshot->snap;
    size_t cap = sizeof head, at = 0;
    char number[48];
    at = put(head, at, cap, SLICE("POST "));
    at = put_path(ex, head, at, cap);
    at = put(head, at, cap, SLICE(" HTTP/1.1\r\nHost: "));
    at = put(head, at, cap, snap_text(s, ex->try.up->host_header));
    at = put(head, at, cap, SLICE("\r\n"));
    at = put_auth(ex, head, at, cap);
    at = put(head, at, cap,
             ex->req.stream
                 ? SLICE("Content-Type: application/json\r\nAccept: text/event-stream\r\nUser-Agent: tollgate\r\n")
                 : SLICE("Content-Type: application/json\r\nAccept: application/json\r\nUser-Agent: tollgate\r\n"));
    at = put_headers(ex, head, at, cap);
    at = put(head, at, cap, SLICE("Content-Length: "));
    at = put(head, at, cap, slice_of(number, fixed_format(number, (int64_t)ex->body_out.bytes, 0)));
    at = put(head, at, cap, SLICE("\r\n\r\n"));
    if (at > cap)
        return false;
    ex->try.head = arena_copy(&ex->arena, slice_of(head, at));
    return ex->try.head.ptr != NULL;
}

/* The name under which that route's provider knows the model. */
static struct slice target_model(struct exchange *ex) {
    struct slice as = snap_text(ex->snapshot->snap, ex->try.route->as);
    const char *star = ex->model->flags & MODEL_FAMILY ? memchr(as.ptr, '*', as.len) : NULL;
    if (star == NULL)
        return as;
    size_t before = (size_t)(star - as.ptr);
    return ARENA_JOIN(&ex->arena, slice_of(as.ptr, before), ex->family_rest, slice_from(as, before + 1));
}

static void report_dropped(struct exchange *ex, struct slice name) {
    ex->dropped =
        arena_printf(&ex->arena, "%.*s%s%.*s", SLICE_ARG(ex->dropped), ex->dropped.len > 0 ? "," : "", SLICE_ARG(name));
}

static bool keep_pieces(struct exchange *ex, const struct pieces *p) {
    ex->body_out.at = arena_alloc(&ex->arena, p->count * sizeof *p->at);
    if (ex->body_out.at == NULL)
        return false;
    memcpy(ex->body_out.at, p->at, p->count * sizeof *p->at);
    ex->body_out.count = p->count;
    ex->body_out.bytes = p->bytes;
    return !ex->arena.overflow;
}

static uint32_t texts_of(const struct exchange *ex, struct snap_list list, struct slice *out, uint32_t max) {
    const struct snap *s = ex->snapshot->snap;
    uint32_t n = 0;
    SNAP_EACH(s, list, struct snap_str, text)
        if (n < max)
            out[n++] = snap_text(s, *text);
    return n;
}

/* The body as it came, with splices. */
static bool build_pass(struct exchange *ex, struct ir_fault *f) {
    static struct pieces pieces;
    struct slice strip[32];
    struct pass_edit e = { .model = ex->target_model,
                           .set_limit = ex->limit_cut,
                           .limit = ex->out_limit,
                           .limit_field = snap_text(ex->snapshot->snap, ex->model->limit_field),
                           .strip = strip,
                           .strip_count = texts_of(ex, ex->model->strip, strip, ARRAY_LEN(strip)),
                           .ask_usage = ex->req.stream,
                           .plain = ex->plain };
    if (slice_eq(e.model, ex->req.model))
        e.model = SLICE_NONE;
    if (ex->unsealed.ptr != NULL)
        return ir_refuse(f, "invalid_value", SLICE_NONE, seal_unknown(ex, ex->unsealed));
    pieces_reset(&pieces);
    if (!ex->pass->build(&ex->json, &ex->req, &e, &ex->arena, &pieces) || !keep_pieces(ex, &pieces))
        return false;
    for (uint32_t i = 0; i < e.strip_count; i++)
        if (e.stripped >> i & 1)
            report_dropped(ex, strip[i]);
    for (uint32_t i = 0; i < ex->req.drops; i++)
        report_dropped(ex, ex->req.drop_names[i]);
    return true;
}

/* Reads the request into the neutral form (once) and writes it for the target. 0 done; else ex was answered or the
 * route is out. */
static bool build_translation(struct exchange *ex, struct ir_fault *f) {
    struct slice strip[32], allow[32];
    struct ir_budget budgets[16];
    const struct snap *s = ex->snapshot->snap;
    struct ir_target t = { .model = ex->target_model,
                           .origin = ex->try.up->id,
                           .max_output = ex->model->max_output,
                           .set_limit = ex->limit_cut,
                           .limit = ex->out_limit,
                           .limit_field = snap_text(s, ex->model->limit_field),
                           .strip = strip,
                           .strip_count = texts_of(ex, ex->model->strip, strip, ARRAY_LEN(strip)),
                           .allow = allow,
                           .allow_count = texts_of(ex, ex->model->allow, allow, ARRAY_LEN(allow)),
                           .budgets = budgets,
                           .reasoning = ex->model->flags & MODEL_REASONING,
                           .no_reasoning = ex->model->capabilities.count > 0 && !(ex->model->flags & MODEL_REASONING) };
    SNAP_EACH(s, ex->model->budgets, struct snap_pair, b) {
        uint64_t tokens;
        if (t.budget_count < ARRAY_LEN(budgets) && slice_to_u64(snap_text(s, b->value), &tokens))
            budgets[t.budget_count++] = (struct ir_budget){ snap_text(s, b->name), tokens };
    }
    if (ex->ir == NULL) {
        struct dialect_path path = { .model = ex->path_model, .stream = ex->path_stream, .sse = !ex->as_array };
        ex->ir = arena_alloc(&ex->arena, sizeof *ex->ir);
        if (ex->ir == NULL || !translate_read(exchange_dialect(ex), &ex->json, &path, &ex->arena, ex->ir, f))
            return false;
    }
    struct ir_dropped dropped = { 0 };
    struct buf body;
    buf_init(&body, &ex->worker->pages, (size_t)s->max_body * 2);
    bool ok = dialect_of(ex->try.up)->write_request(ex->ir, &t, &dropped, &body, f);
    struct slice text = ok ? arena_copy(&ex->arena, buf_slice(&body)) : SLICE_NONE;
    buf_release(&body);
    if (!ok)
        return false;
    for (uint32_t i = 0; i < dropped.count; i++)
        report_dropped(ex, dropped.names[i]);
    ex->body_out = (struct body_pieces){ arena_alloc(&ex->arena, sizeof(struct slice)), 1, text.len };
    if (text.ptr == NULL || ex->body_out.at == NULL)
        return ir_refuse(f, "body_too_large", SLICE_NONE, SLICE("The request is too large."));
    ex->body_out.at[0] = text;
    return true;
}

/* The plan for this route, and the body it sends. false: the exchange was answered. */
static bool build_body(struct exchange *ex) {
    struct ir_fault f = { .status = 500,
                          .code = SLICE("internal"),
                          .message = SLICE("The request could not be prepared.") };
    bool same = dialect_of(ex->try.up)->id == (enum ir_dialect)ex->dialect && !ir_has_carrier(&ex->json);
    ex->plan = same ? &plan_pass : &plan_translate;
    ex->target_model = target_model(ex);
    ex->dropped = SLICE("");
    enum task_go go = ex->task != NULL ? task_build(ex, &f) : TASK_REFUSED;
    if (go == TASK_ANSWERED)
        return false;
    if (ex->task != NULL ? go == TASK_GO : same ? build_pass(ex, &f) : build_translation(ex, &f))
        return true;
    struct reply_fault r = {
        .status = f.status, .code = dialect_status_of(f.status)->code, .param = f.param, .message = f.message,
        .provider_code = f.code
    };
    ex->status = r.status;
    meter_release(ex);
    reply_fault(ex, &r);
    return false;
}

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
    if (!build_body(ex))
        return;
    if (ex->try.up->dialect == DIALECT_ECHO) {
        echo_run(ex);
        return;
    }
    if (!build_head(ex)) {
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

/* The connection broke before the answer was whole. */
static void broken(struct exchange *ex, const char *text) {
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

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* Retry-After in seconds or as a date (RFC 9110 §10.2.3), or retry-after-ms, as milliseconds from now; at most an
 * hour. 0: none that is still to come. */
static uint64_t retry_after(const struct http_head *h, int64_t now_ms) {
    const struct http_header *ms = http_find(h, SLICE("retry-after-ms")), *s = http_find(h, SLICE("retry-after"));
    uint64_t v = 0;
    int64_t at_s;
    if (ms != NULL && slice_to_u64(ms->value, &v))
        return v < 3600000 ? v : 3600000;
    if (s != NULL && slice_to_u64(s->value, &v))
        return v < 3600 ? v * 1000 : 3600000;
    if (s == NULL || !http_date(s->value, &at_s) || at_s * 1000 <= now_ms)
        return 0;
    return at_s * 1000 - now_ms < 3600000 ? (uint64_t)(at_s * 1000 - now_ms) : 3600000;
}

/* The answer's head. 1 taken, 0 more must come, -1 the attempt is over. */
static int take_head(struct exchange *ex) {
    static struct http_head head;
    struct attempt *t = &ex->try;
    struct buf *in = &t->conn->in;
    enum http_result r = http_parse_response(&head, buf_slice(in), &t->head_scanned, false);
    if (r == HTTP_MORE)
        return 0;
    if (r == HTTP_BAD || head.content_encoding.ptr != NULL) {
        upstream_report(ex->worker, t->up, false, 0);
        attempt_failed(ex, 502, "upstream_failed", "The provider's answer could not be understood.", false);
        return -1;
    }
    t->head_scanned = 0;
    if (head.status < 200) {
        buf_consume(in, head.bytes);
        return head.status == 101 ? (broken(ex, "The provider's answer could not be understood."), -1) : take_head(ex);
    }
    const struct http_header *type = http_find(&head, SLICE("content-type"));
    t->status = head.status;
    t->keep_alive = head.keep_alive && t->sent == t->head.len + ex->body_out.bytes && !t->write_failed;
    t->retry_after_ms = retry_after(&head, (int64_t)ex->worker->loop.wall_ms);
    t->event_stream = type != NULL && slice_ieq(slice_of(type->value.ptr, type->value.len < 17 ? type->value.len : 17),
                                                SLICE("text/event-stream"));
    if (ex->req.stream && (type == NULL || slice_starts(type->value, SLICE("text/plain"))))
        t->event_stream = true; /* some servers do not say what they send, but a stream was asked for */
    t->body_length = head.body == HTTP_BODY_SIZED ? head.content_length : 0;
    http_reader_init(&t->reader, head.body, head.content_length);
    t->reader.done = head.body == HTTP_BODY_NONE;
    buf_consume(in, head.bytes);
    if (head.status < 300) {
        t->first_byte_us = (ex->worker->loop.now_ns - t->started_ns) / 1000;
        if (ex->first_byte_ns == 0)
            ex->first_byte_ns = ex->worker->loop.now_ns;
    }
    ex->state = head.status < 300 && t->event_stream ? EX_STREAM : EX_WHOLE;
    if (ex->state == EX_STREAM) {
        upstream_begun(ex->worker, t->up, t->first_byte_us);
        relay_stream_begin(ex);
    }
    loop_timer(&ex->worker->loop, &ex->timer, t->up->idle_timeout_ms);
    return 1;
}

/* A whole body is here: an answer, or an error. Ends the exchange or the attempt. */
static void whole_body(struct exchange *ex, struct slice body) {
    struct attempt *t = &ex->try;
    t->complete = true;
    if (t->status >= 200 && t->status < 300) {
        relay_body(ex, body);
        return;
    }
    struct ir_fault f = { 0 };
    dialect_read_error(t->status, body, t->retry_after_ms / 1000, &ex->arena, &f);
    if (f.param.ptr != NULL)
        f.param = arena_copy(&ex->arena, f.param);
    relay_fault(ex, &f);
}

/* Body bytes out of what was read, for a whole answer. false: the attempt is over. */
static bool read_whole(struct exchange *ex) {
    struct attempt *t = &ex->try;
    struct buf *in = &t->conn->in;
    if (t->reader.kind == HTTP_BODY_SIZED && ex->reply.len == 0 && in->len >= t->body_length && !t->reader.done) {
        struct slice body = slice_of(buf_ptr(in), (size_t)t->body_length); /* all of it in one place: no copy */
        ex->body_in_upconn = (size_t)t->body_length;
        whole_body(ex, body);
        return false;
    }
    while (!t->reader.done && in->len > 0) {
        struct slice data;
        size_t used;
        enum http_result r = http_reader_next(&t->reader, buf_slice(in), &data, &used);
        size_t max = t->status < 300 ? ex->reply.max : ERROR_BODY_MAX;
        if (r == HTTP_BAD || ex->reply.len + data.len > max || !buf_append_slice(&ex->reply, data)) {
            attempt_failed(ex, 502, "upstream_failed", "The provider's answer could not be understood.", true);
            return false;
        }
        buf_consume(in, used);
        if (used == 0)
            break;
    }
    if (t->reader.done) {
        whole_body(ex, buf_slice(&ex->reply));
        return false;
    }
    return true;
}

/* The body bytes of all that is there, moved together over the framing between them; *used: bytes worked off. A
 * provider makes each event a chunk, and a chunk by itself would be a write of its own. false: the framing is bad,
 * behind the run. */
static bool join_runs(struct http_reader *reader, const struct buf *in, struct slice *run, size_t *used) {
    char *base = buf_ptr(in);
    *run = slice_of(base, 0);
    *used = 0;
    while (!reader->done && *used < in->len) {
        struct slice data;
        size_t n;
        if (http_reader_next(reader, slice_of(base + *used, in->len - *used), &data, &n) == HTTP_BAD)
            return false;
        *used += n;
        if (run->len == 0) {
            *run = data;
        } else {
            memmove(base + (run->ptr - base) + run->len, data.ptr, data.len);
            run->len += data.len;
        }
        if (n == 0)
            break;
    }
    return true;
}

/* The same for a stream: what one read brought goes on at once, in one write. */
static bool read_stream(struct exchange *ex) {
    struct attempt *t = &ex->try;
    struct buf *in = &t->conn->in;
    struct slice run;
    size_t used;
    bool sound = join_runs(&t->reader, in, &run, &used);
    if (run.len > 0 && ex->state == EX_STREAM && !relay_stream_bytes(ex, run))
        return false;
    if (!sound) {
        broken(ex, "The provider's stream is damaged.");
        return false;
    }
    buf_consume(in, used);
    if (in->len == 0)
        buf_release(in);
    if (t->reader.done) {
        if (ex->state == EX_DRAIN) {
            attempt_release(ex, true);
            exchange_finish(ex);
        } else {
            relay_stream_end(ex);
        }
        return false;
    }
    return true;
}

/* What there is of the answer is worked off. false: the attempt is over, ex may be gone. */
static bool work_off(struct exchange *ex) {
    if (ex->state == EX_REQUEST || ex->state == EX_HEAD) {
        int r = ex->try.conn->in.len > 0 ? take_head(ex) : 0;
        if (r <= 0)
            return r == 0;
    }
    return ex->state == EX_WHOLE ? read_whole(ex) : read_stream(ex);
}

/* The other side has ended: that may be the proper end of the body. */
static void ended(struct exchange *ex, ssize_t how) {
    struct attempt *t = &ex->try;
    bool body = ex->state == EX_WHOLE || ex->state == EX_STREAM;
    if (how == IO_EOF && body && t->reader.kind == HTTP_BODY_TO_EOF) {
        t->keep_alive = false;
        if (ex->state == EX_WHOLE)
            whole_body(ex, buf_slice(&ex->reply));
        else
            relay_stream_end(ex);
        return;
    }
    broken(ex, body ? "The provider's answer was cut off." : "The provider closed the connection without an answer.");
}

void attempt_read(struct exchange *ex) {
    struct attempt *t = &ex->try;
    for (;;) {
        if (ex->paused)
            return; /* `readable` stays: exchange_drained comes back here */
        size_t room;
        char *p = buf_reserve(&t->conn->in, 1, &room);
        if (p == NULL) {
            attempt_failed(ex, 502, "upstream_failed", "The provider's answer could not be understood.", true);
            return;
        }
        ssize_t n = io_read(&t->conn->io, p, room);
        if (n == IO_AGAIN) {
            if (t->conn->in.len == 0)
                buf_release(&t->conn->in);
            return;
        }
        if (n < 0) {
            ended(ex, n);
            return;
        }
        buf_commit(&t->conn->in, (size_t)n);
        t->got_bytes = true;
        bool drained = (size_t)n < room && t->conn->io.tls == NULL && !t->hangup;
        if (!work_off(ex))
            return;
        if (ex->state == EX_STREAM || ex->state == EX_WHOLE || ex->state == EX_DRAIN)
            loop_timer(&ex->worker->loop, &ex->timer, ex->state == EX_DRAIN ? 1000 : t->up->idle_timeout_ms);
        if (drained)
            return;
    }
}

static void on_upstream_event(struct upconn *u, uint32_t events) {
    struct exchange *ex = u->owner;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        ex->try.hangup = true;
    if (io_unsent(&u->io) && io_flush(&u->io) == IO_ERROR) {
        broken(ex, "The connection to the provider broke.");
        return;
    }
    if (ex->state == EX_REQUEST && events & EPOLLOUT && !send_request(ex))
        return;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        attempt_read(ex);
}
