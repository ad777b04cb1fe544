/* The relay: an answer goes to the client as it comes.
 *
 * A stream's events are worked off in the loop turn that brought them, and all that one read brought leaves in one
 * write. What of an event is incomplete waits in ex->reply. The head goes out with the first bytes, so that an error
 * that comes first can still be a status, or be tried elsewhere. When the answer is complete the client is done with;
 * the exchange may live on for the last bytes of the upstream's framing (EX_DRAIN), for that keeps its connection. What
 * is done with an event is the plan's affair: no dialect is known here. */
#include "worker/exchange.h"

#include <stdio.h>

#include "shm/steps.h"

enum { EVENT_MAX = 32 << 20, HEAD_BYTES = 6144, PIECES_LOW = 64, TRANSLATED_LOW = 64 << 10 };

static struct pieces batch; /* one at a time: a worker is one thread */

static void batch_reset(void) { pieces_reset(&batch); }

/* ---- whole answers ----------------------------------------------------------------------------------------------- */

static void answer_whole(struct exchange *ex) {
    upstream_report(ex->worker, ex->try.up, true, ex->try.first_byte_us);
}

static void not_understood(struct exchange *ex) {
    upstream_report(ex->worker, ex->try.up, false, 0);
    attempt_failed(ex, 502, "upstream_failed", "The provider's answer could not be understood.", false);
}

void relay_body(struct exchange *ex, struct slice body) {
    struct ir_fault f = { 0 };
    struct json j;
    ex->status = 200;
    batch_reset();
    if (!json_parse(&j, &ex->arena, body.ptr, body.len) || !ex->plan->begin(ex)) {
        not_understood(ex);
        return;
    }
    enum plan_result r = ex->plan->whole(ex, &j, &batch, &f);
    if (r == PLAN_DONE)
        answer_whole(ex);
    if (r == PLAN_DONE && ex->conn != NULL) {
        reply_pieces(ex, 200, &batch);
    } else if (r == PLAN_DONE) {
        exchange_finish(ex);
    } else if (ex->settled) {
        reply_error(ex, 500, "internal", NULL, "The answer could not be prepared.");
    } else if (r == PLAN_ERROR) {
        relay_fault(ex, &f);
    } else {
        not_understood(ex);
    }
}

/* ---- streams ----------------------------------------------------------------------------------------------------- */

/* The size line of a chunk. */
static size_t put_size(char out[24], size_t n) {
    static const char digits[] = "0123456789abcdef";
    size_t at = 0, shift = 60;
    while (shift > 0 && n >> shift == 0)
        shift -= 4;
    for (;; shift -= 4) {
        out[at++] = digits[n >> shift & 15];
        if (shift == 0)
            break;
    }
    out[at++] = '\r';
    out[at++] = '\n';
    return at;
}

static void on_ping(struct timer *t) {
    struct exchange *ex = CONTAINER_OF(t, struct exchange, ping);
    uint64_t every_ms = ex->snapshot->snap->stream_ping_ms,
             silent_ms = (ex->worker->loop.now_ns - ex->last_sent_ns) / 1000000;
    if (ex->conn == NULL || ex->state != EX_STREAM)
        return;
    if (silent_ms >= every_ms && !ex->paused && ex->conn->out.len == 0) {
        struct slice ping = ex->plan->ping(ex);
        char size[24];
        struct iovec iov[3] = { { size, ex->chunked ? put_size(size, ping.len) : 0 },
                                { (void *)(uintptr_t)ping.ptr, ping.len },
                                { (void *)(uintptr_t) "\r\n", ex->chunked ? 2 : 0 } };
        conn_send(ex->conn, iov, 3);
        ex->last_sent_ns = ex->worker->loop.now_ns;
        silent_ms = 0;
    }
    loop_timer(&ex->worker->loop, &ex->ping, every_ms - silent_ms);
}

void relay_stream_begin(struct exchange *ex) {
    sse_init(&ex->sse, EVENT_MAX);
    ex->ping.fn = on_ping;
    ex->answer_done = false;
    ex->stream_ready = ex->plan->begin(ex);
}

/* Once bytes go out nothing is tried again, so the request's memory goes (a translation still looks at it). */
static size_t open_stream(struct exchange *ex, char *head) {
    size_t n = reply_stream_head(ex, head, HEAD_BYTES);
    ex->dropped = SLICE("");
    if (ex->plan == &plan_pass && ex->try.sent >= ex->try.head.len + ex->body_out.bytes)
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
    pieces_add(&batch, buf_slice(&ex->tr_out));
    if (ex->conn != NULL && (batch.count > 0 || last)) {
        if (ex->slot != NULL)
            money_delivered(ex->slot, ex->answer.text_bytes);
        SHM_STEP("deliver.slot");
        ex->text_delivered = ex->answer.text_bytes;
        if (!ex->head_sent)
            iov[n++] = (struct iovec){ head, open_stream(ex, head) };
        if (ex->chunked && batch.bytes > 0)
            iov[n++] = (struct iovec){ size, put_size(size, batch.bytes) };
        for (uint32_t i = 0; i < batch.count; i++)
            iov[n++] = (struct iovec){ (void *)(uintptr_t)batch.at[i].ptr, batch.at[i].len };
        struct slice end = !ex->chunked       ? SLICE("")
                           : batch.bytes == 0 ? SLICE("0\r\n\r\n")
                           : last             ? SLICE("\r\n0\r\n\r\n")
                                              : SLICE("\r\n");
        if (end.len > 0)
            iov[n++] = (struct iovec){ (void *)(uintptr_t)end.ptr, end.len };
        conn_send(ex->conn, iov, n);
        SHM_STEP("deliver.client");
        ex->last_sent_ns = ex->worker->loop.now_ns;
    }
    buf_release(&ex->tr_out);
    batch_reset();
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

static void stream_ends_badly(struct exchange *ex, int status, const char *code, const char *text, bool lenient);

/* What an upstream did wrong in mid-stream. */
static void stream_fault(struct exchange *ex, const struct ir_fault *f, const char *text) {
    char said[240];
    snprintf(said, sizeof said, "%s", text);
    if (f != NULL && f->message.len > 0)
        snprintf(said, sizeof said, "The provider reported an error: %.*s",
                 (int)(f->message.len < 180 ? f->message.len : 180), f->message.ptr);
    upstream_report(ex->worker, ex->try.up, false, 0);
    if (ex->head_sent || ex->settled)
        stream_ends_badly(ex, 502, "upstream_failed", said, f == NULL || f->status == 0);
    else
        attempt_failed(ex, 502, "upstream_failed", text, false);
}

/* One event. false: the exchange or attempt is over. */
static bool relay_event(struct exchange *ex, const struct sse_event *ev) {
    struct ir_fault f = { 0 };
    COUNT(ex->worker->counters, stream_events, 1);
    enum plan_result r = ex->plan->event(ex, ev, &batch, &f);
    if (r == PLAN_DONE) {
        ex->answer_done = true;
        answer_whole(ex);
    }
    if (r == PLAN_OK || r == PLAN_DONE) {
        if (batch.count > PIECES_MAX - PIECES_LOW || ex->tr_out.len > TRANSLATED_LOW)
            send_batch(ex, false);
        return true;
    }
    if (r == PLAN_ERROR && !ex->head_sent && batch.count == 0 && ex->tr_out.len == 0 && !ex->settled) {
        relay_fault(ex, &f);
        return false;
    }
    send_batch(ex, false);
    stream_fault(ex, r == PLAN_ERROR ? &f : NULL, "The provider's stream could not be understood.");
    return false;
}

/* Events out of text; *used: bytes worked off. false: over. */
static bool relay_events(struct exchange *ex, struct slice text, size_t *used) {
    *used = 0;
    while (!ex->answer_done) {
        struct sse_event ev;
        size_t n;
        enum sse_result r = sse_next(&ex->sse, slice_from(text, *used), &ex->worker->scratch, &ev, &n);
        if (r == SSE_MORE)
            return true;
        if (r == SSE_TOO_LONG) {
            send_batch(ex, false);
            stream_fault(ex, NULL, "The provider sent an event that is too large.");
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
    batch_reset();
    if (!ex->stream_ready || (carried && !buf_append_slice(&ex->reply, bytes))) {
        stream_fault(ex, NULL, "The provider sent an event that is too large.");
        return false;
    }
    if (carried)
        bytes = buf_slice(&ex->reply);
    if (!relay_events(ex, bytes, &used))
        return false;
    bool done = ex->answer_done;
    send_batch(ex, done);
    if (carried)
        buf_consume(&ex->reply, used);
    else if (!done && !buf_append_slice(&ex->reply, slice_from(bytes, used))) {
        stream_fault(ex, NULL, "The provider sent an event that is too large.");
        return false;
    }
    if (ex->reply.len == 0 || done)
        buf_release(&ex->reply);
    if (done)
        client_done(ex);
    else if (ex->conn != NULL && conn_backlogged(ex->conn))
        ex->paused = true;
    return true;
}

void relay_stream_end(struct exchange *ex) {
    struct ir_fault f = { 0 };
    size_t used;
    arena_reset(&ex->worker->scratch);
    batch_reset();
    ex->try.complete = true;
    if (ex->stream_ready && sse_pending(&ex->sse, buf_slice(&ex->reply))) { /* a last event without its blank line */
        if (!buf_append(&ex->reply, "\n\n", 2)) {
            stream_fault(ex, NULL, "The provider sent an event that is too large.");
            return;
        }
        if (!relay_events(ex, buf_slice(&ex->reply), &used))
            return;
        if (ex->answer_done) {
            send_batch(ex, true);
            exchange_finish(ex);
            return;
        }
    }
    if (!ex->stream_ready || ex->plan->end(ex, &batch, &f) != PLAN_DONE) {
        batch_reset();
        stream_fault(ex, &f, "The provider's answer was cut off.");
        return;
    }
    if (!ex->answer_done)
        answer_whole(ex);
    send_batch(ex, true);
    exchange_finish(ex);
}

/* lenient: a stream that broke off behind its finish word is taken as whole; not so where the provider itself says
 * that it failed. */
static void stream_ends_badly(struct exchange *ex, int status, const char *code, const char *text, bool lenient) {
    struct ir_fault f = { .status = status == 502 ? (int)ex->snapshot->snap->upstream_error_status : status,
                          .code = slice_str(code),
                          .message = slice_str(text) };
    arena_reset(&ex->worker->scratch);
    batch_reset();
    buf_release(&ex->tr_out);
    if (lenient && !ex->answer_done &&
        ex->plan->finished(ex)) { /* only its last figures are missing: the answer itself is whole */
        struct ir_fault ignored = { 0 };
        if (ex->plan->end(ex, &batch, &ignored) == PLAN_DONE) {
            send_batch(ex, true);
            exchange_finish(ex);
            return;
        }
        batch_reset();
        buf_release(&ex->tr_out);
    }
    ex->record_flags |= RECORD_UPSTREAM_FAILED;
    if (ex->answer.text_bytes > 0 || ex->answer.usage_seen)
        meter_settle(ex, !ex->answer.usage_seen);
    else
        meter_release(ex);
    if (!ex->answer_done) {
        ex->plan->fail(ex, &f, &batch);
        send_batch(ex, true);
    }
    exchange_finish(ex);
}

void relay_stream_cut(struct exchange *ex, int status, const char *code, const char *text) {
    stream_ends_badly(ex, status, code, text, true);
}
