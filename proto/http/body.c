/* Body framing (RFC 9112 §6, §7): which of the bytes that came are body. In place; the reader holds counters, no bytes.
 *
 * One call passes over the framing in front, one run of data, and the framing behind it as far as it is there, so the
 * end of a body is seen in the call that takes its last byte. Chunk extensions and trailers are checked, bounded and
 * dropped. Lines end in CRLF only. */
#include "proto/http/http.h"

#include "proto/http/chars.h"

enum {
    MAX_SIZE_LINE = 256,   /* chunk size with its extensions */
    MAX_TRAILERS = 8192,
    MAX_SIZE_DIGITS = 15   /* 2^60 bytes is more than any body, and nothing can overflow */
};

enum state {
    SIZE_FIRST,
    SIZE,
    EXT_SPACE,
    EXT,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_FIRST,
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    END_LF
};

void http_reader_init(struct http_reader *r, enum http_body kind, uint64_t content_length) {
    *r = (struct http_reader){ .kind = kind, .state = SIZE_FIRST };
    if (kind == HTTP_BODY_SIZED)
        r->left = content_length;
    r->done = kind == HTTP_BODY_NONE || (kind == HTTP_BODY_SIZED && content_length == 0);
}

static enum http_result bad(struct http_reader *r, enum http_fault fault) {
    r->fault = fault;
    return HTTP_BAD;
}

static inline int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A byte of the size line. */
static bool size_byte(struct http_reader *r, uint8_t c) {
    int digit = hex_digit(c);
    if (++r->line_bytes > MAX_SIZE_LINE)
        return false;
    switch (r->state) {
    case SIZE_FIRST:
        if (digit < 0)
            return false;
        r->left = (uint64_t)digit;
        r->state = SIZE;
        return true;
    case SIZE:
        if (digit >= 0) {
            r->left = r->left << 4 | (uint64_t)digit;
            return r->line_bytes <= MAX_SIZE_DIGITS;
        }
        r->state = c == '\r' ? SIZE_LF : c == ';' ? EXT : EXT_SPACE;
        return c == '\r' || c == ';' || c == ' ' || c == '\t';
    case EXT_SPACE: /* only before a semicolon (RFC 9112 §7.1.1's BWS), never as padding */
        if (c == ';')
            r->state = EXT;
        return c == ';' || c == ' ' || c == '\t';
    case EXT:
        if (c == '\r')
            r->state = SIZE_LF;
        return c == '\r' || http_is_value(c);
    default: /* SIZE_LF */
        r->state = r->left > 0 ? DATA : TRAILER_FIRST;
        r->line_bytes = 0;
        return c == '\n';
    }
}

/* A byte of the trailers or of the empty line that ends them. */
static bool trailer_byte(struct http_reader *r, uint8_t c) {
    switch (r->state) {
    case TRAILER_FIRST:
        r->state = c == '\r' ? END_LF : TRAILER_NAME;
        return c == '\r' || http_is_token(c);
    case TRAILER_NAME:
        if (c == ':')
            r->state = TRAILER_VALUE;
        return c == ':' || http_is_token(c);
    case TRAILER_VALUE:
        if (c == '\r')
            r->state = TRAILER_LF;
        return c == '\r' || http_is_value(c);
    case TRAILER_LF:
        r->state = TRAILER_FIRST;
        return c == '\n';
    default: /* END_LF */
        r->done = c == '\n';
        return r->done;
    }
}

/* A size line that is there whole and has no extension, as nearly all: how many bytes it takes, 0: it is another. */
static size_t plain_size_line(struct http_reader *r, const char *p, size_t n) {
    uint64_t size = 0;
    size_t i = 0;
    int digit;
    for (; i < n && i < MAX_SIZE_DIGITS && (digit = hex_digit((uint8_t)p[i])) >= 0; i++)
        size = size << 4 | (uint64_t)digit;
    if (i == 0 || n - i < 2 || p[i] != '\r' || p[i + 1] != '\n')
        return 0;
    r->left = size;
    r->state = size > 0 ? DATA : TRAILER_FIRST;
    return i + 2;
}

static enum http_result next_chunked(struct http_reader *r, struct slice in, struct slice *data, size_t *used) {
    size_t i = 0;
    while (i < in.len && !r->done) {
        uint8_t c = (uint8_t)in.ptr[i];
        if (r->state == SIZE_FIRST) {
            size_t n = plain_size_line(r, in.ptr + i, in.len - i);
            i += n;
            if (n > 0)
                continue;
        }
        if (r->state == DATA) {
            if (data->len > 0)
                break; /* one run a call */
            *data = slice_of(in.ptr + i, r->left < in.len - i ? (size_t)r->left : in.len - i);
            r->left -= data->len;
            i += data->len;
            r->state = r->left > 0 ? DATA : DATA_CR;
            continue;
        }
        if (r->state < DATA) {
            if (!size_byte(r, c))
                return bad(r, HTTP_FAULT_CHUNK);
        } else if (r->state >= TRAILER_FIRST) {
            if (++r->line_bytes > MAX_TRAILERS)
                return bad(r, HTTP_FAULT_TRAILER_LONG);
            if (!trailer_byte(r, c))
                return bad(r, HTTP_FAULT_CHUNK);
        } else {
            if (c != (r->state == DATA_CR ? '\r' : '\n'))
                return bad(r, HTTP_FAULT_CHUNK);
            r->state = r->state == DATA_CR ? DATA_LF : SIZE_FIRST;
        }
        i++;
    }
    *used = i;
    return r->done ? HTTP_OK : HTTP_MORE;
}

enum http_result http_reader_next(struct http_reader *r, struct slice in, struct slice *data, size_t *used) {
    *data = slice_of(in.ptr, 0);
    *used = 0;
    if (r->fault)
        return HTTP_BAD;
    if (r->done)
        return HTTP_OK;
    if (r->kind == HTTP_BODY_CHUNKED)
        return next_chunked(r, in, data, used);
    size_t n = in.len;
    if (r->kind == HTTP_BODY_SIZED) {
        n = r->left < n ? (size_t)r->left : n;
        r->left -= n;
        r->done = r->left == 0;
    }
    *data = slice_of(in.ptr, n);
    *used = n;
    return r->done ? HTTP_OK : HTTP_MORE;
}
