/* Answers on their way to the client: heads, whole bodies, errors in the shape of the dialect that was called.
 *
 * Heads are written by hand into a bounded text: this is on the path of every request. Error types and statuses come
 * from one table. */
#include "worker/exchange.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "proto/base/line.h"

/* ---- heads ------------------------------------------------------------------------------------------------------- */

#define PUT_HEADER(t, name, v) (LINE(t, name ": "), line_u64(t, v), LINE(t, "\r\n"))

/* RFC 9110 §5.6.7, made once a second. */
static void put_date(struct line *t, int64_t now_ms) {
    static int64_t made_s;
    static char date[48];
    static size_t len;
    if (now_ms / 1000 != made_s) {
        time_t s = (time_t)(now_ms / 1000);
        struct tm tm;
        gmtime_r(&s, &tm);
        len = strftime(date, sizeof date, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
        made_s = now_ms / 1000;
    }
    line_put(t, date, len);
}

/* The three headers of one limit; they stand under two names for requests. */
#define PUT_LIMIT(t, name, of)                                                                                         \
    (LINE(t, "X-RateLimit-Limit" name ": "), line_slice(t, (of)[0]), LINE(t, "\r\nX-RateLimit-Remaining" name ": "),   \
     line_slice(t, (of)[1]), LINE(t, "\r\nX-RateLimit-Reset" name ": "), line_slice(t, (of)[2]), LINE(t, "\r\n"))

static void put_limits(struct line *t, const struct exchange *ex) {
    const struct limit_view *r = &ex->rpm_view, *k = &ex->tpm_view;
    char digits[3][20];
    if (!ex->limits_shown)
        return;
    if (r->limit != SNAP_NO_LIMIT) {
        struct slice of[] = { line_digits(digits[0], r->limit), line_digits(digits[1], r->remaining),
                              line_digits(digits[2], r->reset_s) };
        PUT_LIMIT(t, "", of);
        PUT_LIMIT(t, "-Requests", of);
    }
    if (k->limit != SNAP_NO_LIMIT) {
        struct slice of[] = { line_digits(digits[0], k->limit), line_digits(digits[1], k->remaining),
                              line_digits(digits[2], k->reset_s) };
        PUT_LIMIT(t, "-Tokens", of);
    }
}

static void put_cors(struct line *t, const struct exchange *ex) {
    if (!ex->cors && !ex->cors_any)
        return;
    const struct snap *s = ex->snapshot->snap;
    LINE(t, "Access-Control-Allow-Origin: ");
    line_slice(t, ex->cors_any ? SLICE("*") : snap_text(s, s->cors_origin));
    LINE(t, "\r\nAccess-Control-Expose-Headers: X-Request-Id, request-id, Retry-After, X-RateLimit-Limit, "
           "X-RateLimit-Remaining, X-RateLimit-Reset, "
           "X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, X-RateLimit-Reset-Requests, "
           "X-RateLimit-Limit-Tokens, "
           "X-RateLimit-Remaining-Tokens, X-RateLimit-Reset-Tokens\r\n");
}

/* Names are the client's, who may put anything in them: what a header's list cannot hold becomes '?', and the tail of a
 * long one goes. */
void reply_dropped(struct exchange *ex, struct slice name) {
    enum { NAME_MAX_BYTES = 80 };
    char word[NAME_MAX_BYTES];
    int n = 0;
    for (size_t i = 0; i < name.len && n < NAME_MAX_BYTES; i++)
        word[n++] = name.ptr[i] > ' ' && name.ptr[i] < 0x7f && name.ptr[i] != ',' ? name.ptr[i] : '?';
    ex->dropped =
        arena_printf(&ex->arena, "%.*s%s%.*s", SLICE_ARG(ex->dropped), ex->dropped.len > 0 ? "," : "", n, word);
}

/* What every answer bears, up to the body's framing. */
static void put_common(struct line *t, struct exchange *ex, int status) {
    LINE(t, "HTTP/1.1 ");
    line_u64(t, (uint64_t)status);
    LINE(t, " ");
    line_slice(t, slice_str(http_reason(status)));
    LINE(t, "\r\n");
    put_date(t, ex->worker->loop.wall_ms);
    LINE(t, "X-Request-Id: ");
    line_put(t, ex->request_id, ex->request_id_len);
    LINE(t, "\r\n");
    if (ex->shape == SHAPE_ANTHROPIC) {
        LINE(t, "request-id: ");
        line_put(t, ex->request_id, ex->request_id_len);
        LINE(t, "\r\n");
    }
    put_limits(t, ex);
    put_cors(t, ex);
    if (ex->try.up != NULL) {
        LINE(t, "X-Tollgate-Upstream: ");
        line_slice(t, snap_text(ex->snapshot->snap, ex->try.up->name));
        LINE(t, "\r\n");
    }
    if (ex->limit_cut)
        PUT_HEADER(t, "X-Tollgate-Max-Tokens", ex->out_limit);
    if (ex->dropped.len > 0) {
        LINE(t, "X-Tollgate-Dropped: ");
        line_slice(t, ex->dropped);
        LINE(t, "\r\n");
    }
    if (!ex->keep || ex->worker->draining) {
        ex->keep = false;
        LINE(t, "Connection: close\r\n");
    } else if (ex->http10) {
        LINE(t, "Connection: keep-alive\r\n");
    }
}

static void put_cost(struct line *t, const struct exchange *ex) {
    char number[32];
    if (!ex->settled || !ex->snapshot->snap->usage_cost)
        return;
    LINE(t, "X-Tollgate-Cost: ");
    line_put(t, number, fixed_format(number, ex->cost_usd_nano, 9));
    LINE(t, "\r\n");
}

/* ---- whole answers ----------------------------------------------------------------------------------------------- */

enum { HEAD_BYTES = 6144, CHUNK_IOV = 64 };

static void mark_sent(struct exchange *ex, int status) {
    ex->status = status;
    ex->head_sent = true;
    if (ex->first_byte_ns == 0)
        ex->first_byte_ns = ex->worker->loop.now_ns;
}

/* Sends head and body and ends the exchange. */
static void send_whole(struct exchange *ex, int status, struct slice type, struct slice extra, const struct slice *body,
                       uint32_t count) {
    char head[HEAD_BYTES];
    struct line t = { head, head + sizeof head };
    struct iovec iov[CHUNK_IOV];
    size_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += body[i].len;
    mark_sent(ex, status);
    put_common(&t, ex, status);
    put_cost(&t, ex);
    line_slice(&t, extra);
    if (status != 204) {
        LINE(&t, "Content-Type: ");
        line_slice(&t, type);
        LINE(&t, "\r\nContent-Length: ");
        line_u64(&t, bytes);
        LINE(&t, "\r\n");
    }
    LINE(&t, "\r\n");
    iov[0] = (struct iovec){ head, (size_t)(t.at - head) };
    int n = 1;
    bool alive = ex->conn != NULL;
    for (uint32_t i = 0; i < count && !ex->head_request && alive; i++) {
        iov[n++] = (struct iovec){ (void *)(uintptr_t)body[i].ptr, body[i].len };
        if (n == CHUNK_IOV) {
            alive = conn_send(ex->conn, iov, n);
            n = 0;
        }
    }
    if (n > 0 && alive)
        conn_send(ex->conn, iov, n);
    exchange_finish(ex);
}

void reply_text(struct exchange *ex, int status, struct slice type, struct slice body) {
    send_whole(ex, status, type, SLICE(""), &body, 1);
}
void reply_json(struct exchange *ex, int status, struct slice body) {
    reply_text(ex, status, SLICE("application/json"), body);
}
void reply_pieces(struct exchange *ex, int status, const struct pieces *p) {
    send_whole(ex, status, SLICE("application/json"), SLICE(""), p->at, p->count);
}
void reply_empty(struct exchange *ex, int status, struct slice extra) {
    send_whole(ex, status, SLICE("text/plain"), extra, NULL, 0);
}

size_t reply_stream_head(struct exchange *ex, char *out, size_t cap) {
    struct line t = { out, out + cap };
    mark_sent(ex, 200);
    ex->chunked = !ex->http10;
    if (!ex->chunked)
        ex->keep = false;
    put_common(&t, ex, 200);
    LINE(&t, "Content-Type: ");
    line_slice(&t, slice_str(ex->plan->content_type(ex)));
    LINE(&t, "\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
    if (ex->chunked)
        LINE(&t, "Transfer-Encoding: chunked\r\n");
    LINE(&t, "\r\n");
    return (size_t)(t.at - out);
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/* brand.error_code with its %d replaced by the status. */
static void branded_code(struct slice pattern, int status, char *out, size_t n) {
    size_t at = 0;
    for (size_t i = 0; i < pattern.len && at + 1 < n; i++) {
        if (pattern.ptr[i] == '%' && i + 1 < pattern.len && pattern.ptr[i + 1] == 'd') {
            at += (size_t)snprintf(out + at, n - at, "%d", status);
            i++;
        } else {
            out[at++] = pattern.ptr[i];
        }
    }
    out[at < n ? at : n - 1] = 0;
}

static void write_openai(struct json_writer *w, const struct exchange *ex, const struct reply_fault *f) {
    const struct snap *s = ex->snapshot->snap;
    struct slice code = f->provider_code.len > 0 ? f->provider_code : slice_str(f->code),
                 brand = snap_text(s, s->error_code);
    char branded[80];
    jw_object(w);
    jw_key(w, "error");
    jw_object(w);
    jw_key(w, "message");
    jw_str(w, f->message);
    jw_key(w, "type");
    jw_cstr(w, dialect_status_of(f->status)->openai);
    jw_key(w, "param");
    jw_str(w, f->param);
    jw_key(w, "code");
    if (brand.len > 0) {
        branded_code(brand, f->status, branded, sizeof branded);
        jw_cstr(w, branded);
        jw_key(w, "reason");
    }
    jw_str(w, code);
    jw_end_object(w);
    if (s->error_detail) {
        jw_key(w, "detail");
        jw_str(w, f->message);
    }
    jw_end_object(w);
}

static void write_anthropic(struct json_writer *w, const struct exchange *ex, const struct reply_fault *f) {
    jw_object(w);
    jw_key(w, "type");
    jw_cstr(w, "error");
    jw_key(w, "error");
    jw_object(w);
    jw_key(w, "type");
    jw_cstr(w, dialect_status_of(f->status)->anthropic);
    jw_key(w, "message");
    jw_str(w, f->message);
    jw_key(w, "details");
    jw_object(w);
    jw_key(w, "error_code");
    jw_str(w, f->provider_code.len > 0 ? f->provider_code : slice_str(f->code));
    jw_end_object(w);
    jw_end_object(w);
    jw_key(w, "request_id");
    jw_str(w, exchange_request_id(ex));
    jw_end_object(w);
}

static void write_gemini(struct json_writer *w, const struct exchange *ex, const struct reply_fault *f) {
    (void)ex;
    jw_object(w);
    jw_key(w, "error");
    jw_object(w);
    jw_key(w, "code");
    jw_u64(w, (uint64_t)f->status);
    jw_key(w, "message");
    jw_str(w, f->message);
    jw_key(w, "status");
    jw_cstr(w, dialect_status_of(f->status)->gemini);
    jw_key(w, "details");
    jw_array(w);
    jw_object(w);
    jw_key(w, "@type");
    jw_cstr(w, "type.googleapis.com/google.rpc.ErrorInfo");
    jw_key(w, "reason");
    jw_str(w, f->provider_code.len > 0 ? f->provider_code : slice_str(f->code));
    jw_key(w, "domain");
    jw_cstr(w, "tollgate");
    jw_end_object(w);
    if (f->status == 429 && f->retry_after_ms > 0) {
        char delay[40];
        size_t n = fixed_format(delay, (int64_t)f->retry_after_ms, 3);
        delay[n++] = 's';
        jw_object(w);
        jw_key(w, "@type");
        jw_cstr(w, "type.googleapis.com/google.rpc.RetryInfo");
        jw_key(w, "retryDelay");
        jw_str(w, slice_of(delay, n));
        jw_end_object(w);
    }
    jw_end_array(w);
    jw_end_object(w);
    jw_end_object(w);
}

static void write_detail(struct json_writer *w, const struct reply_fault *f) {
    jw_object(w);
    jw_key(w, "detail");
    jw_str(w, f->message);
    jw_end_object(w);
}

static void write_fault(struct json_writer *w, const struct exchange *ex, const struct reply_fault *f) {
    switch (ex->shape) {
    case SHAPE_OPENAI: write_openai(w, ex, f); break;
    case SHAPE_ANTHROPIC: write_anthropic(w, ex, f); break;
    case SHAPE_GEMINI: write_gemini(w, ex, f); break;
    case SHAPE_DETAIL: write_detail(w, f); break;
    }
}

/* Whether and when to come again: whole seconds for everybody, milliseconds for the SDKs that read them. */
static struct slice retry_headers(const struct reply_fault *f, char *out, size_t cap) {
    struct line t = { out, out + cap };
    bool never = f->never || f->status == 401 || f->status == 402 || f->status == 403;
    uint64_t ms = f->retry_after_ms;
    if (f->status == 503 && ms == 0)
        ms = 1000;
    if (never) {
        LINE(&t, "x-should-retry: false\r\n");
    } else if ((f->status == 429 || f->status == 503) && ms > 0) {
        PUT_HEADER(&t, "Retry-After", (ms + 999) / 1000);
        PUT_HEADER(&t, "retry-after-ms", ms);
    }
    if (f->allow != NULL) {
        LINE(&t, "Allow: ");
        line_slice(&t, slice_str(f->allow));
        LINE(&t, "\r\n");
    }
    return slice_of(out, (size_t)(t.at - out));
}

void reply_fault(struct exchange *ex, const struct reply_fault *f) {
    struct buf body;
    struct json_writer w;
    char extra[160];
    buf_init(&body, &ex->worker->pages, 1 << 20);
    jw_init(&w, &body);
    write_fault(&w, ex, f);
    struct slice text = buf_slice(&body);
    send_whole(ex, f->status, SLICE("application/json"), retry_headers(f, extra, sizeof extra), &text, 1);
    buf_release(&body);
}

void reply_error(struct exchange *ex, int status, const char *code, const char *param, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct reply_fault f = { .status = status, .code = code, .param = slice_str(param), .message = slice_str(text) };
    reply_fault(ex, &f);
}

struct slice reply_error_body(struct exchange *ex, const struct reply_fault *f, struct arena *arena) {
    struct buf b;
    struct json_writer w;
    buf_init(&b, arena->pages, 1 << 20);
    jw_init(&w, &b);
    write_fault(&w, ex, f);
    struct slice text = arena_copy(arena, buf_slice(&b));
    buf_release(&b);
    return text;
}
