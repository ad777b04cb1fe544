/* What the two fuzzers of heads share: the input whole and in pieces must be understood alike; what was understood must
 * be free of all that is ambiguous; and written out again from the parsed head it must be understood the same. */
#ifndef TG_HEAD_FUZZ_H
#define TG_HEAD_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "proto/base/check.h"
#include "proto/http/http.h"

typedef enum http_result head_parser(struct http_head *h, struct slice text, size_t *scanned);

static inline void head_check_slice(struct slice s, struct slice text, size_t bytes) {
    CHECK(s.len == 0 || (s.ptr >= text.ptr && s.ptr + s.len <= text.ptr + bytes) || slice_is(s, "/"));
    for (size_t i = 0; i < s.len; i++)
        CHECK(s.ptr[i] == '\t' || ((unsigned char)s.ptr[i] >= 0x20 && s.ptr[i] != 0x7f));
}

static inline void head_check(const struct http_head *h, struct slice text) {
    unsigned lengths = 0, codings = 0;
    CHECK(h->bytes <= text.len && h->bytes <= HTTP_MAX_HEAD && h->bytes >= 4 &&
          memcmp(text.ptr + h->bytes - 4, "\r\n\r\n", 4) == 0);
    CHECK(h->header_count <= HTTP_MAX_HEADERS && h->fault == HTTP_FAULT_NONE);
    struct slice parts[] = { h->method, h->target, h->path, h->query, h->reason, h->content_encoding, h->host };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        head_check_slice(parts[i], text, h->bytes);
    for (uint32_t i = 0; i < h->header_count; i++) {
        struct slice name = h->headers[i].name, value = h->headers[i].value;
        CHECK(name.len > 0 && slice_eq(value, slice_trim(value)));
        head_check_slice(name, text, h->bytes);
        head_check_slice(value, text, h->bytes);
        lengths += slice_ieq(name, SLICE("content-length"));
        codings += slice_ieq(name, SLICE("transfer-encoding"));
        CHECK(http_find(h, name));
    }
    CHECK(lengths + codings <= 1);
    CHECK(h->body != HTTP_BODY_SIZED || lengths == 1);
    CHECK(h->body != HTTP_BODY_CHUNKED || codings == 1);
}

static inline enum http_result head_pieces(struct http_head *h, head_parser *parse, struct slice text, size_t step,
                                           char **mem) {
    size_t scanned = 0;
    *mem = NULL;
    for (size_t have = step;; have += step) {
        have = have < text.len ? have : text.len;
        free(*mem);
        *mem = malloc(have ? have : 1);
        memcpy(*mem, text.ptr, have);
        enum http_result r = parse(h, slice_of(*mem, have), &scanned);
        CHECK(scanned <= have);
        if (r != HTTP_MORE || have == text.len)
            return r;
    }
}

static inline bool head_same(const struct http_head *a, const struct http_head *b) {
    bool same = slice_eq(a->method, b->method) && slice_eq(a->target, b->target) && slice_eq(a->path, b->path) &&
                slice_eq(a->query, b->query) && slice_eq(a->host, b->host) && a->status == b->status &&
                a->minor == b->minor && slice_eq(a->reason, b->reason) && a->keep_alive == b->keep_alive &&
                a->body == b->body && a->upgrade == b->upgrade && a->expect_continue == b->expect_continue &&
                a->content_length == b->content_length && a->header_count == b->header_count;
    for (uint32_t i = 0; same && i < a->header_count; i++)
        same = slice_eq(a->headers[i].name, b->headers[i].name) && slice_eq(a->headers[i].value, b->headers[i].value);
    return same;
}

/* The head written out from what was parsed. */
static inline size_t head_print(const struct http_head *h, char *out) {
    int n = h->status ? sprintf(out, "HTTP/1.%d %d %.*s\r\n", h->minor, h->status, SLICE_ARG(h->reason))
                      : sprintf(out, "%.*s %.*s HTTP/1.%d\r\n", SLICE_ARG(h->method), SLICE_ARG(h->target), h->minor);
    for (uint32_t i = 0; i < h->header_count; i++)
        n += sprintf(out + n, "%.*s:%.*s\r\n", SLICE_ARG(h->headers[i].name), SLICE_ARG(h->headers[i].value));
    return (size_t)n + (size_t)sprintf(out + n, "\r\n");
}

static inline int head_fuzz(head_parser *parse, const uint8_t *data, size_t size) {
    static struct http_head whole, pieces;
    if (size < 1)
        return 0;
    struct slice text = slice_of((const char *)data + 1, size - 1);
    size_t scanned = 0;
    char *mem;
    enum http_result a = parse(&whole, text, &scanned), b = head_pieces(&pieces, parse, text, data[0] % 32 + 1, &mem);
    /* In pieces, a fault in a head whose end has not come may be seen later. */
    CHECK(a == b || (a == HTTP_BAD && b == HTTP_MORE));
    if (a == HTTP_BAD && b == HTTP_BAD)
        CHECK(whole.fault == pieces.fault && whole.fault != HTTP_FAULT_NONE);
    if (a == HTTP_OK) {
        head_check(&whole, text);
        CHECK(whole.bytes == pieces.bytes && head_same(&whole, &pieces));
        char *out = malloc(HTTP_MAX_HEAD + 64);
        size_t n = head_print(&whole, out);
        scanned = 0;
        CHECK(n > HTTP_MAX_HEAD || (parse(&pieces, slice_of(out, n), &scanned) == HTTP_OK && pieces.bytes == n &&
                                    head_same(&whole, &pieces)));
        free(out);
    }
    free(mem);
    return 0;
}

#endif
