/* What comes back in an attempt: the head, then a body that is collected or a stream whose runs go on to the relay as
 * they come. Failures: what breaks goes to attempt_broken, what cannot be understood is a failed attempt. */
#include "worker/attempt.h"

enum { ERROR_BODY_MAX = 1 << 20 };

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
        if (head.status != 101)
            return take_head(ex);
        attempt_broken(ex, "The provider's answer could not be understood.");
        return -1;
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
        attempt_broken(ex, "The provider's stream is damaged.");
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
    attempt_broken(ex, body ? "The provider's answer was cut off."
                            : "The provider closed the connection without an answer.");
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
