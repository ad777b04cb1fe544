/* A request's body off its connection: straight into the exchange's buffer, or left where it came with its head.
 * Failures: bad framing is a 400 (or 431), a body that is too large a 413, and too many large ones at once a 503. */
#include "worker/conn.h"
#include "worker/exchange.h"

enum { BODIES_MAX = 1 << 30 /* of all large buffers of a worker: beyond, bodies are refused */ };

static int body_fault(enum http_fault f, const char **text) {
    *text = http_fault_text(f);
    return f == HTTP_FAULT_TRAILER_LONG ? 431 : 400;
}

static int body_too_large(int *status, const char **text) {
    *status = 413;
    *text = "The request body is too large.";
    return -1;
}

/* Chunked: what came is decoded out of `in`. 1 done, 0 more, -1 fault. */
static int decode_body(struct conn *c, struct exchange *ex, int *status, const char **text) {
    while (c->in.len > 0 && !ex->body_reader.done) {
        struct slice data;
        size_t used;
        enum http_result r = http_reader_next(&ex->body_reader, buf_slice(&c->in), &data, &used);
        if (r == HTTP_BAD) {
            *status = body_fault(ex->body_reader.fault, text);
            return -1;
        }
        if (data.len > 0 && !buf_append_slice(&ex->body_buf, data))
            return body_too_large(status, text);
        buf_consume(&c->in, used);
        if (r == HTTP_OK)
            break;
        if (used == 0)
            break;
    }
    ex->body = buf_slice(&ex->body_buf);
    return ex->body_reader.done ? 1 : 0;
}

/* A body of known length goes to memory of its own, with a byte to spare: a read that ends before it has drained the
 * socket. If the spare byte comes it is the next request's. */
static int sized_body(struct conn *c, struct exchange *ex, int *status, const char **text) {
    size_t need = (size_t)ex->content_length;
    c->long_bodies = need > PAGE_BYTES;
    if (ex->body_buf.len == 0 && c->in.len >= need) { /* all of it came with the head: leave it there */
        ex->body = slice_of(need > 0 ? buf_ptr(&c->in) : "", need);
        ex->body_in_place = need;
        ex->body_reader.done = true;
        return 1;
    }
    if (c->in.len > 0) {
        size_t ahead = need < 1 << 20 ? need + 1 : 1 << 20; /* grows with what really comes beyond a megabyte */
        buf_init(&ex->body_buf, &c->worker->pages, need + 1);
        if (buf_reserve(&ex->body_buf, ahead, NULL) == NULL ||
            !buf_append(&ex->body_buf, buf_ptr(&c->in), c->in.len))
            return body_too_large(status, text);
        buf_release(&c->in);
    }
    if (ex->body_buf.len < need)
        return 0;
    if (ex->body_buf.len > need) {
        if (!buf_append(&c->in, buf_ptr(&ex->body_buf) + need, 1))
            return body_too_large(status, text);
        ex->body_buf.len = need;
    }
    ex->body = buf_slice(&ex->body_buf);
    ex->body_reader.done = true;
    return 1;
}

int conn_read_body(struct conn *c, int *status, const char **text) {
    struct exchange *ex = c->exchange;
    bool chunked = ex->body_reader.kind == HTTP_BODY_CHUNKED;
    for (;;) {
        if (c->worker->pages.big_bytes > BODIES_MAX) {
            *status = 503;
            *text = "The server holds too many large requests right now. Please try again shortly.";
            return -1;
        }
        int r = chunked ? decode_body(c, ex, status, text) : sized_body(c, ex, status, text);
        if (r != 0)
            return r;
        if (!c->readable)
            return 0;
        size_t left = chunked ? PAGE_BYTES : (size_t)ex->content_length - ex->body_buf.len;
        bool straight = !chunked && ex->body_buf.len > 0;
        if (straight && buf_reserve(&ex->body_buf, left < 65536 ? left : 65536, NULL) == NULL)
            return body_too_large(status, text);
        ssize_t n = straight ? conn_read(c, &ex->body_buf, 1, left + 1)
                             : conn_read(c, &c->in, chunked ? 4096 : 1, SIZE_MAX);
        if (n == IO_AGAIN)
            return 0;
        if (n < 0) {
            c->dead = true;
            *status = 0;
            return -1;
        }
    }
}
