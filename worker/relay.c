/* The relay by pass: an answer goes to the client as it comes, tapped for its figures.
 *
 * A stream's events are forwarded in the loop turn that brought them, as slices of what was read: all events of one read leave in one
 * write. What of an event is incomplete waits in ex->reply. The head goes out with the first event, so that an error that comes first
 * can still be a status, or be tried elsewhere. When the stream has said all, the client is done with; the exchange may live on for
 * the last bytes of the upstream's framing (EX_DRAIN), for that keeps its connection. */
#include "worker/exchange.h"

#include <stdio.h>

enum { EVENT_MAX = 32 << 20, HEAD_BYTES = 6144, PIECES_LOW = 64 };

static struct pieces batch; /* one at a time: a worker is one thread */

/* The figures are final: price and settle before the bytes that show them go out. */
static void on_usage(void *arg, struct pass_answer *a, struct pass_cost *cost) {
    struct exchange *ex = arg;
    if (ex->status == 0)
        ex->status = 200;
    meter_settle(ex, !a->usage_seen);
    meter_cost(ex, &a->meters, cost);
}

static void begin_answer(struct exchange *ex) {
    struct pass_answer *a = &ex->answer;
    memset(a, 0, offsetof(struct pass_answer, ident));
    a->ident_len = 0;
    a->id_prefix = snap_text(ex->snapshot->snap, ex->snapshot->snap->id_prefix);
    a->wants_usage = ex->req.wants_usage;
    a->arg = ex;
    a->on_usage = on_usage;
    a->held = &ex->held;
}

/* ---- whole answers --------------------------------------------------------------------------------------------------------------------- */

static void provider_fault(struct exchange *ex, const struct pass_fault *f, int status) {
    struct slice text = f->message.len > 0 ? f->message : SLICE("The provider rejected the request.");
    struct reply_fault r = { .status = status, .code = status == 413 ? "body_too_large" : "invalid_value", .message = text,
                             .param = f->param.ptr, .provider_code = f->code };
    meter_release(ex);
    reply_fault(ex, &r);
}

void relay_upstream_error(struct exchange *ex, int status, struct slice body) {
    struct pass_fault f = { 0 };
    struct json j;
    if (json_parse(&j, &ex->arena, body.ptr, body.len))
        ex->pass->error(&j, &ex->arena, &f);
    if (f.param.ptr != NULL)
        f.param = arena_copy(&ex->arena, f.param);
    if (ex->conn == NULL)
        exchange_finish(ex);
    else
        provider_fault(ex, &f, status);
}

/* An error inside a 200, before anything went out: the request's fault is told, the rest is a failed attempt. */
static void early_error(struct exchange *ex, const struct pass_fault *f) {
    if (f->status == 400 || f->status == 413 || f->status == 422 || slice_is(f->type, "invalid_request_error")) {
        struct pass_fault copy = *f;
        copy.param = f->param.ptr != NULL ? arena_copy(&ex->arena, f->param) : f->param;
        attempt_abandon(ex);
        if (ex->conn == NULL)
            exchange_finish(ex);
        else
            provider_fault(ex, &copy, f->status ? f->status : 400);
        return;
    }
    bool limited = f->status == 429 || slice_starts(f->type, SLICE("rate_limit"));
    if (limited) {
        ex->try.retry_after_ms = 1000;
        upstream_cool_key(ex->worker, ex->try.up, ex->try.key, 1000);
        attempt_failed(ex, 429, "rate_limit_exceeded", "The provider is limiting requests. Please retry later.", false);
    } else {
        upstream_report(ex->worker, ex->try.up, false, 0);
        attempt_failed(ex, 502, "upstream_failed", "The provider reported an error.", false);
    }
}

void relay_body(struct exchange *ex, struct slice body) {
    struct pass_fault f = { 0 };
    struct json j;
    ex->status = 200;
    begin_answer(ex);
    if (ex->req.stream || !json_parse(&j, &ex->arena, body.ptr, body.len)) {
        attempt_failed(ex, 502, "upstream_failed", "The provider's answer could not be understood.", false);
        return;
    }
    pieces_reset(&batch);
    switch (ex->pass->whole(&ex->answer, &j, &ex->arena, &batch, &f)) {
    case PASS_ERROR: early_error(ex, &f); return;
    case PASS_BAD:
        if (!ex->settled) {
            attempt_failed(ex, 502, "upstream_failed", "The provider's answer could not be understood.", false);
            return;
        }
        reply_error(ex, 500, "internal", NULL, "The answer could not be prepared.");
        return;
    case PASS_OK: break;
    }
    if (ex->conn == NULL)
        exchange_finish(ex);
    else
        reply_pieces(ex, 200, &batch);
}

/* ---- streams ---------------------------------------------------------------------------------------------------------------------------- */

static void on_ping(struct timer *t) {
    struct exchange *ex = CONTAINER_OF(t, struct exchange, ping);
    uint64_t every_ms = ex->snapshot->snap->stream_ping_ms, silent_ms = (ex->worker->loop.now_ns - ex->last_sent_ns) / 1000000;
    if (ex->conn == NULL || ex->state != EX_STREAM)
        return;
    if (silent_ms >= every_ms && !ex->paused && ex->conn->out.len == 0) {
        struct slice ping = ex->chunked ? SLICE("8\r\n: ping\n\n\r\n") : SLICE(": ping\n\n");
        struct iovec iov = { (void *)(uintptr_t)ping.ptr, ping.len };
        conn_send(ex->conn, &iov, 1);
        ex->last_sent_ns = ex->worker->loop.now_ns;
        silent_ms = 0;
    }
    loop_timer(&ex->worker->loop, &ex->ping, every_ms - silent_ms);
}

void relay_stream_begin(struct exchange *ex) {
    begin_answer(ex);
    sse_init(&ex->sse, EVENT_MAX);
    ex->ping.fn = on_ping;
}

/* Once bytes go out nothing is tried again, so the request's memory goes; its pieces and names were sent. */
static size_t open_stream(struct exchange *ex, char *head) {
    size_t n = reply_stream_head(ex, head, HEAD_BYTES);
    ex->dropped = SLICE("");
    if (ex->try.sent >= ex->try.head_len + (ex->pieces ? ex->pieces->bytes : 0))
        exchange_forget_request(ex);
    if (ex->snapshot->snap->stream_ping_ms > 0)
        loop_timer(&ex->worker->loop, &ex->ping, ex->snapshot->snap->stream_ping_ms);
    return n;
}

/* Writes the batch as one chunk; last: and the end of the body. */
static void send_batch(struct exchange *ex, bool last) {
    static struct iovec iov[PIECES_MAX + 8];
    static char head[HEAD_BYTES];
    char size[24];
    int n = 0;
    if (ex->conn == NULL) {
        pieces_reset(&batch);
        return;
    }
    if (batch.count == 0 && !last)
        return;
    if (ex->slot != NULL)
        money_delivered(ex->slot, ex->answer.text_bytes);
    ex->text_delivered = ex->answer.text_bytes;
    if (!ex->head_sent)
        iov[n++] = (struct iovec){ head, open_stream(ex, head) };
    if (ex->chunked && batch.bytes > 0)
        iov[n++] = (struct iovec){ size, (size_t)snprintf(size, sizeof size, "%zx\r\n", batch.bytes) };
    for (uint32_t i = 0; i < batch.count; i++)
        iov[n++] = (struct iovec){ (void *)(uintptr_t)batch.at[i].ptr, batch.at[i].len };
    struct slice end = !ex->chunked ? SLICE("") : batch.bytes == 0 ? SLICE("0\r\n\r\n") : last ? SLICE("\r\n0\r\n\r\n") : SLICE("\r\n");
    if (end.len > 0)
        iov[n++] = (struct iovec){ (void *)(uintptr_t)end.ptr, end.len };
    conn_send(ex->conn, iov, n);
    ex->last_sent_ns = ex->worker->loop.now_ns;
    pieces_reset(&batch);
}

/* The client has it all; the exchange stays for the upstream's last bytes. */
static void client_done(struct exchange *ex) {
    struct conn *c = ex->conn;
    loop_timer_off(&ex->worker->loop, &ex->ping);
    exchange_forget_request(ex);
    ex->state = EX_DRAIN;
    ex->paused = false;
    ex->conn = NULL;
    if (c != NULL) {
        c->exchange = NULL;
        conn_done(c, ex->keep);
    }
}

/* One event. false: the exchange or attempt is over. */
static bool relay_event(struct exchange *ex, const struct sse_event *ev) {
    struct pass_fault f = { 0 };
    uint64_t before = ex->answer.events;
    enum pass_result r = ex->pass->event(&ex->answer, ev, &ex->worker->scratch, &batch, &f);
    COUNT(ex->worker->counters, stream_events, ex->answer.events - before);
    if (r == PASS_OK) {
        if (batch.count > PIECES_MAX - PIECES_LOW)
            send_batch(ex, false);
        return true;
    }
    if (r == PASS_ERROR && !ex->head_sent && batch.count == 0 && ex->answer.events == 0) {
        early_error(ex, &f);
        return false;
    }
    send_batch(ex, false);
    if (!ex->head_sent && !ex->settled) {
        attempt_failed(ex, 502, "upstream_failed", "The provider's stream could not be understood.", false);
        return false;
    }
    upstream_report(ex->worker, ex->try.up, false, 0);
    char text[200] = "The provider's stream could not be understood.";
    if (r == PASS_ERROR)
        snprintf(text, sizeof text, "The provider reported an error: %.*s", (int)(f.message.len < 150 ? f.message.len : 150),
                 f.message.ptr ? f.message.ptr : "");
    relay_stream_cut(ex, 502, "upstream_failed", text);
    return false;
}

/* Events out of text; *used: bytes worked off. false: over. */
static bool relay_events(struct exchange *ex, struct slice text, size_t *used) {
    *used = 0;
    while (!ex->answer.done) {
        struct sse_event ev;
        size_t n;
        enum sse_result r = sse_next(&ex->sse, slice_from(text, *used), &ex->worker->scratch, &ev, &n);
        if (r == SSE_MORE)
            return true;
        if (r == SSE_TOO_LONG) {
            send_batch(ex, false);
            if (ex->head_sent)
                relay_stream_cut(ex, 502, "upstream_failed", "The provider sent an event that is too large.");
            else
                attempt_failed(ex, 502, "upstream_failed", "The provider sent an event that is too large.", true);
            return false;
        }
        *used += n;
        if (!relay_event(ex, &ev))
            return false;
    }
    return true;
}

bool relay_stream_bytes(struct exchange *ex, struct slice bytes) {
    size_t used;
    bool carried = ex->reply.len > 0;
    arena_reset(&ex->worker->scratch);
    pieces_reset(&batch);
    if (carried) {
        if (!buf_append_slice(&ex->reply, bytes)) {
            relay_stream_cut(ex, 502, "upstream_failed", "The provider sent an event that is too large.");
            return false;
        }
        bytes = buf_slice(&ex->reply);
    }
    if (!relay_events(ex, bytes, &used))
        return false;
    send_batch(ex, ex->answer.done);
    if (carried)
        buf_consume(&ex->reply, used);
    else if (!ex->answer.done && !buf_append_slice(&ex->reply, slice_from(bytes, used)))
        return false;
    if (ex->reply.len == 0 || ex->answer.done)
        buf_release(&ex->reply);
    if (ex->answer.done)
        client_done(ex);
    else if (ex->conn != NULL && conn_backlogged(ex->conn))
        ex->paused = true;
    return true;
}

void relay_stream_end(struct exchange *ex) {
    bool cut = sse_pending(&ex->sse, buf_slice(&ex->reply));
    arena_reset(&ex->worker->scratch);
    pieces_reset(&batch);
    ex->try.complete = true;
    if (cut || ex->pass->end(&ex->answer, &ex->worker->scratch, &batch) != PASS_OK) {
        pieces_reset(&batch);
        upstream_report(ex->worker, ex->try.up, false, 0);
        if (ex->head_sent)
            relay_stream_cut(ex, 502, "upstream_failed", "The provider's answer was cut off.");
        else
            attempt_failed(ex, 502, "upstream_failed", "The provider's answer was cut off.", false);
        return;
    }
    send_batch(ex, true);
    exchange_finish(ex);
}

void relay_stream_cut(struct exchange *ex, int status, const char *code, const char *text) {
    struct reply_fault f = { .status = status == 502 ? (int)ex->snapshot->snap->upstream_error_status : status, .code = code,
                             .message = slice_str(text) };
    if (ex->answer.finished && !ex->answer.done) { /* only its last figures are missing: the answer itself is whole */
        ex->sse.scanned = 0;
        buf_release(&ex->reply);
        arena_reset(&ex->worker->scratch);
        pieces_reset(&batch);
        if (ex->pass->end(&ex->answer, &ex->worker->scratch, &batch) == PASS_OK) {
            send_batch(ex, true);
            exchange_finish(ex);
            return;
        }
    }
    ex->record_flags |= RECORD_UPSTREAM_FAILED;
    if (ex->answer.text_bytes > 0 || ex->answer.usage_seen)
        meter_settle(ex, !ex->answer.usage_seen);
    else
        meter_release(ex);
    if (!ex->answer.done) {
        arena_reset(&ex->worker->scratch);
        pieces_reset(&batch);
        pieces_add(&batch, reply_error_event(ex, &f, &ex->worker->scratch));
        send_batch(ex, true);
    }
    exchange_finish(ex);
}
