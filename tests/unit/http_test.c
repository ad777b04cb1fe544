/* HTTP/1.1 heads and bodies: a table of requests that must be refused, each by its fault (the shapes by which requests
 * are smuggled), tables of good ones, and every input once whole, cut at every byte, and a byte at a time, with one and
 * the same result. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/base/check.h"
#include "proto/http/chars.h"
#include "proto/http/http.h"

#define H "Host: a\r\n"

enum kind { REQUEST, RESPONSE, RESPONSE_TO_HEAD };

static enum http_result parse(struct http_head *h, enum kind kind, struct slice text, size_t *scanned) {
    return kind == REQUEST ? http_parse_request(h, text, scanned)
                           : http_parse_response(h, text, scanned, kind == RESPONSE_TO_HEAD);
}

/* Parses what comes in pieces of `step` bytes after a first piece of `first`; each time from an allocation of exactly
 * what is there. The last allocation is returned in *mem, for the head's slices point into it. */
static enum http_result feed(struct http_head *h, enum kind kind, struct slice text, size_t first, size_t step,
                             char **mem) {
    size_t scanned = 0;
    *mem = NULL;
    for (size_t have = first;; have = have + step < text.len ? have + step : text.len) {
        free(*mem);
        *mem = malloc(have ? have : 1);
        memcpy(*mem, text.ptr, have);
        enum http_result r = parse(h, kind, slice_of(*mem, have), &scanned);
        assert_true(scanned <= have);
        if (r != HTTP_MORE || have == text.len)
            return r;
    }
}

static struct http_head head; /* of the last good parse; its slices point into `text` */

static enum http_result parsed(enum kind kind, struct slice text) {
    struct http_head h;
    size_t scanned = 0;
    enum http_result whole = parse(&head, kind, text, &scanned);
    for (size_t cut = 0; cut <= text.len; cut += text.len > 4000 ? 997 : 1) {
        char *mem;
        enum http_result r = feed(&h, kind, text, cut, cut ? text.len : 1, &mem);
        if (r != whole)
            fail_msg("cut at %zu: %d, whole: %d: %.300s", cut, r, whole, text.ptr);
        if (whole == HTTP_BAD && h.fault != head.fault)
            fail_msg("cut at %zu: %s, whole: %s: %.300s", cut, http_fault_text(h.fault), http_fault_text(head.fault),
                     text.ptr);
        if (whole == HTTP_OK) {
            assert_int_equal(h.bytes, head.bytes);
            assert_int_equal(h.header_count, head.header_count);
            assert_int_equal(h.body, head.body);
            assert_int_equal(h.content_length, head.content_length);
            assert_true(slice_eq(h.target, head.target) && slice_eq(h.path, head.path) && slice_eq(h.host, head.host));
        }
        free(mem);
    }
    return whole;
}

static const struct { const char *text; enum http_fault fault;
} BAD_REQUESTS[] = {
    /* Content-Length and Transfer-Encoding: CL.TE, TE.CL, TE.TE */
    { "POST / HTTP/1.1\r\n" H "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED",
      HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: cow\r\nTransfer-encoding: chunked\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunkedx\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, identity\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity, chunked\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked,\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: ,chunked\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked;a=b\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: \"chunked\"\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n", HTTP_FAULT_CODING },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\x0b\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding:\x0b"
      "chunked\r\n\r\n",
      HTTP_FAULT_SYNTAX },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding\t: chunked\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "POST / HTTP/1.1\r\n" H " Transfer-Encoding: chunked\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "POST / HTTP/1.1\r\n" H "X: y\r\n Transfer-Encoding: chunked\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "POST / HTTP/1.1\r\n" H "X: y\nTransfer-Encoding: chunked\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "POST / HTTP/1.1\r\n" H "X: y\rTransfer-Encoding: chunked\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n chunked\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n", HTTP_FAULT_LENGTH },
    /* Content-Length */
    { "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 4\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\ncontent-length: 3\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: 3, 3\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: +3\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: -3\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: 0x3\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: 3 3\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: 3;\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: 3.0\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: 1e1\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: \"3\"\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: \xef\xbc\x93\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551616\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551615\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999999999\r\n\r\n", HTTP_FAULT_LENGTH },
    { "POST / HTTP/1.1\r\n" H "Content-Length : 3\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n 4\r\n\r\n", HTTP_FAULT_SYNTAX },
    /* line ends, folds, names, controls */
    { "GET / HTTP/1.1\nHost: a\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\n\n", HTTP_FAULT_SYNTAX },
    { "\nGET / HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "\rGET / HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\nHost: a\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\nHost: a\r\n\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\nHost: a\r\n\rX", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\n" H "X: a\r\n\tb\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\n X: a\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\n" H ": a\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\n" H "X\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\n" H "X Y: a\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\n" H "X\x80: a\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\n" H "X(: a\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\n" H "X: a\x01\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\n" H "X: a\x7f\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\n" H "X: a\x7f" "b0123456789abcdef0123456789\r\n\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1\r\n" H "X: 0123456789abcdef0123456789\x1b\r\n\r\n", HTTP_FAULT_SYNTAX },
    /* start line */
    { "GET  / HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET /  HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.1 \r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET\t/ HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { " GET / HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET /\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET / \r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET / http/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1.10\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/1,1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/11\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTPS/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET / HTTP/2.0\r\n" H "\r\n", HTTP_FAULT_VERSION },
    { "GET / HTTP/0.9\r\n" H "\r\n", HTTP_FAULT_VERSION },
    { "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP_FAULT_VERSION },
    { "G@T / HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "G\xc3T / HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET /a b HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET /a\tb HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET /\x7f HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET /a#b HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "\x16\x03\x01\x02", HTTP_FAULT_SYNTAX }, /* a TLS hello on a plain port */
    /* targets */
    { "OPTIONS * HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "CONNECT a:443 HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET a HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET ftp://a/ HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET http:/a HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET http:///a HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET http://u:p@a/ HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_HOST },
    { "GET ?a HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    { "GET \\ HTTP/1.1\r\n" H "\r\n", HTTP_FAULT_SYNTAX },
    /* Host */
    { "GET / HTTP/1.1\r\n\r\n", HTTP_FAULT_HOST },
    { "GET / HTTP/1.1\r\nHost:\r\n\r\n", HTTP_FAULT_HOST },
    { "GET / HTTP/1.1\r\n" H H "\r\n", HTTP_FAULT_HOST },
    { "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", HTTP_FAULT_HOST },
    { "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", HTTP_FAULT_HOST },
    { "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", HTTP_FAULT_HOST },
    { "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HTTP_FAULT_HOST },
    { "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", HTTP_FAULT_HOST },
    { "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", HTTP_FAULT_HOST },
    { "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", HTTP_FAULT_HOST },
    { "GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n", HTTP_FAULT_HOST },
    { "GET http://a/ HTTP/1.1\r\n\r\n", HTTP_FAULT_HOST },
};

static void bad_requests(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(BAD_REQUESTS); i++) {
        enum http_result r = parsed(REQUEST, slice_str(BAD_REQUESTS[i].text));
        if (r != HTTP_BAD || head.fault != BAD_REQUESTS[i].fault)
            fail_msg("got %d, %s; want %s: %s", r, http_fault_text(head.fault), http_fault_text(BAD_REQUESTS[i].fault),
                     BAD_REQUESTS[i].text);
    }
    static const char nul[] = "GET / HTTP/1.1\r\n" H "X: y\r\n\r\n";
    for (size_t at = 0; at + 4 < sizeof nul; at++) { /* a NUL has no place anywhere */
        char with[sizeof nul];
        memcpy(with, nul, sizeof nul - 1);
        with[at] = '\0';
        assert_int_equal(parsed(REQUEST, slice_of(with, sizeof nul - 1)), HTTP_BAD);
    }
}

static bool is(struct slice s, const char *text) {
    return text ? s.ptr && slice_is(s, text) : !s.ptr;
}

static void good_requests(void **state) {
    (void)state;
    static const struct {
        const char *text, *method, *path, *query, *host;
        int minor;
        bool keep_alive;
        enum http_body body;
        uint64_t length;
        uint32_t headers;
    } good[] = {
        { "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/", NULL, "a", 1, true, HTTP_BODY_NONE, 0, 1 },
        { "\r\n\r\nGET /x?y=1?2 HTTP/1.1\r\nHost:a:80\r\n\r\n", "GET", "/x", "y=1?2", "a:80", 1, true, HTTP_BODY_NONE,
          0, 1 },
        { "GET /? HTTP/1.0\r\n\r\n", "GET", "/", "", NULL, 0, false, HTTP_BODY_NONE, 0, 0 },
        { "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET", "/", NULL, NULL, 0, true, HTTP_BODY_NONE, 0, 1 },
        { "GET / HTTP/1.1\r\nConnection: foo , CLOSE\r\nHost: [::1]:8080\r\n\r\n", "GET", "/", NULL, "[::1]:8080", 1,
          false, HTTP_BODY_NONE, 0, 2 },
        { "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", "GET", "/", NULL, "a", 1,
          false, HTTP_BODY_NONE, 0, 3 },
        { "GET / HTTP/1.1\r\nHost: a\r\nConnection: closed, xclose\r\n\r\n", "GET", "/", NULL, "a", 1, true,
          HTTP_BODY_NONE, 0, 2 },
        { "GET / HTTP/1.7\r\nHost: a\r\n\r\n", "GET", "/", NULL, "a", 1, true, HTTP_BODY_NONE, 0, 1 },
        { "POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0012 \t\r\n\r\nbody", "POST", "/v1", NULL, "a", 1, true,
          HTTP_BODY_SIZED, 12, 2 },
        { "POST /v1 HTTP/1.1\r\nHost: a\r\nCONTENT-LENGTH:0\r\n\r\n", "POST", "/v1", NULL, "a", 1, true,
          HTTP_BODY_SIZED, 0, 2 },
        { "POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n", "POST", "/v1", NULL, "a", 1,
          true, HTTP_BODY_SIZED, INT64_MAX, 2 },
        { "POST /v1 HTTP/1.1\r\nHost: a\r\ntransfer-encoding: \tChunked\r\n\r\n", "POST", "/v1", NULL, "a", 1, true,
          HTTP_BODY_CHUNKED, 0, 2 },
        { "GET http://b:1/p?q HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/p", "q", "b:1", 1, true, HTTP_BODY_NONE, 0, 1 },
        { "GET HTTPS://b HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/", NULL, "b", 1, true, HTTP_BODY_NONE, 0, 1 },
        { "GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/", "q", "b", 1, true, HTTP_BODY_NONE, 0, 1 },
        { "M-SEARCH //x HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t \r\nZ: a\tb \xc3\xa9 ~!\r\n\r\n", "M-SEARCH", "//x", NULL,
          "a", 1, true, HTTP_BODY_NONE, 0, 4 },
        { "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\n", "GET", "/", NULL, "a", 1, true, HTTP_BODY_NONE, 0,
          1 },
        { "GET /v1beta/models/a%2Fb:streamGenerateContent?alt=sse HTTP/1.1\r\nHost: a\r\nHost2: b\r\n\r\n", "GET",
          "/v1beta/models/a%2Fb:streamGenerateContent", "alt=sse", "a", 1, true, HTTP_BODY_NONE, 0, 2 },
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct slice text = slice_str(good[i].text);
        if (parsed(REQUEST, text) != HTTP_OK)
            fail_msg("refused (%s): %s", http_fault_text(head.fault), good[i].text);
        assert_int_equal(head.bytes, (size_t)(strstr(good[i].text + (*good[i].text == '\r' ? 4 : 0), "\r\n\r\n") + 4 -
                                              good[i].text));
        assert_true(is(head.method, good[i].method) && is(head.path, good[i].path) && is(head.query, good[i].query) &&
                    is(head.host, good[i].host));
        assert_int_equal(head.minor, good[i].minor);
        assert_int_equal(head.keep_alive, good[i].keep_alive);
        assert_int_equal(head.body, good[i].body);
        if (head.body == HTTP_BODY_SIZED)
            assert_int_equal(head.content_length, good[i].length);
        assert_int_equal(head.header_count, good[i].headers);
    }
    assert_int_equal(parsed(REQUEST, SLICE("GET / HTTP/1.1\r\nHost: a\r\nX: \t b c\t \r\nY:d\r\nx: second\r\n\r\n")),
                     HTTP_OK);
    assert_true(slice_is(http_find(&head, SLICE("x"))->value, "b c"));
    assert_true(slice_is(http_find(&head, SLICE("Y"))->value, "d"));
    assert_null(http_find(&head, SLICE("z")));
}

static void request_flags(void **state) {
    (void)state;
    assert_int_equal(
        parsed(
            REQUEST,
            SLICE(
                "GET / HTTP/1.1\r\n" H
                "Expect: 100-Continue\r\nContent-Encoding: gzip\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")),
        HTTP_OK);
    assert_true(head.expect_continue && !head.expect_other && head.upgrade && slice_is(head.content_encoding, "gzip"));
    assert_int_equal(
        parsed(REQUEST, SLICE("GET / HTTP/1.1\r\n" H
                              "Expect: the-unexpected\r\nContent-Encoding: Identity\r\nUpgrade: h2c\r\n\r\n")),
        HTTP_OK);
    assert_true(!head.expect_continue && head.expect_other && !head.upgrade && !head.content_encoding.ptr);
    assert_int_equal(parsed(REQUEST, SLICE("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n")), HTTP_OK);
    assert_false(head.expect_continue || head.expect_other);
    assert_int_equal(
        parsed(REQUEST, SLICE("GET / HTTP/1.1\r\n" H "Content-Encoding: identity\r\nContent-Encoding: br\r\n\r\n")),
        HTTP_OK);
    assert_true(slice_is(head.content_encoding, "br"));
}

/* Every prefix of a good head asks for more, and none of it reads past its end. */
static void incomplete(void **state) {
    (void)state;
    static const char text[] = "\r\nPOST /v1/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nX: y z\r\n\r\n";
    for (size_t n = 0; n < sizeof text - 1; n++)
        assert_int_equal(parsed(REQUEST, slice_of(text, n)), HTTP_MORE);
    assert_int_equal(parsed(REQUEST, SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r")), HTTP_MORE);
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX: y z\r\n\r\n";
    for (size_t n = 0; n < sizeof answer - 1; n++)
        assert_int_equal(parsed(RESPONSE, slice_of(answer, n)), HTTP_MORE);
}

static struct slice padded(char *to, const char *front, size_t fill, const char *back) {
    size_t n = strlen(front);
    memcpy(to, front, n);
    memset(to + n, 'x', fill);
    memcpy(to + n + fill, back, strlen(back));
    return slice_of(to, n + fill + strlen(back));
}

static void limits(void **state) {
    (void)state;
    char *text = malloc(3 * HTTP_MAX_HEAD);
    size_t rest = strlen("GET / HTTP/1.1\r\n" H "X: \r\n\r\n");
    assert_int_equal(parsed(REQUEST, padded(text, "GET / HTTP/1.1\r\n" H "X: ", HTTP_MAX_HEAD - rest, "\r\n\r\n")),
                     HTTP_OK);
    assert_int_equal(parsed(REQUEST, padded(text, "GET / HTTP/1.1\r\n" H "X: ", HTTP_MAX_HEAD - rest + 1, "\r\n\r\n")),
                     HTTP_BAD);
    assert_int_equal(head.fault, HTTP_FAULT_HEAD_LONG);
    assert_int_equal(parsed(REQUEST, padded(text, "GET / HTTP/1.1\r\n" H "X: ", 2 * HTTP_MAX_HEAD, "")), HTTP_BAD);
    assert_int_equal(head.fault, HTTP_FAULT_HEAD_LONG);
    assert_int_equal(parsed(REQUEST, padded(text, "GET /", HTTP_MAX_TARGET - 1, " HTTP/1.1\r\n" H "\r\n")), HTTP_OK);
    assert_int_equal(parsed(REQUEST, padded(text, "GET /", HTTP_MAX_TARGET, " HTTP/1.1\r\n" H "\r\n")), HTTP_BAD);
    assert_int_equal(head.fault, HTTP_FAULT_TARGET_LONG);
    assert_int_equal(parsed(REQUEST, padded(text, "GET /", 2 * HTTP_MAX_HEAD, "")), HTTP_BAD);
    assert_int_equal(head.fault, HTTP_FAULT_TARGET_LONG);
    for (int count = HTTP_MAX_HEADERS; count <= HTTP_MAX_HEADERS + 1; count++) {
        size_t n = (size_t)sprintf(text, "GET / HTTP/1.1\r\n" H);
        for (int i = 1; i < count; i++)
            n += (size_t)sprintf(text + n, "X%d: y\r\n", i);
        n += (size_t)sprintf(text + n, "\r\n");
        assert_int_equal(parsed(REQUEST, slice_of(text, n)), count > HTTP_MAX_HEADERS ? HTTP_BAD : HTTP_OK);
        assert_int_equal(head.fault, count > HTTP_MAX_HEADERS ? HTTP_FAULT_HEAD_LONG : HTTP_FAULT_NONE);
    }
    for (size_t i = 0; i < HTTP_MAX_HEAD; i += 2) /* empty lines are skipped, but not for ever */
        memcpy(text + i, "\r\n", 2);
    size_t scanned = 0;
    assert_int_equal(http_parse_request(&head, slice_of(text, HTTP_MAX_HEAD), &scanned), HTTP_BAD);
    free(text);
}

/* A head that trickles in is searched once: what was seen is not looked at again until it is whole. */
static void searched_once(void **state) {
    (void)state;
    char *text = malloc(HTTP_MAX_HEAD);
    padded(text, "GET / HTTP/1.1\r\n" H "X: ", 20000, "\r\n\r\n");
    size_t scanned = 0;
    for (size_t have = 100; have < 20000; have += 100) {
        assert_int_equal(http_parse_request(&head, slice_of(text, have), &scanned), HTTP_MORE);
        assert_int_equal(scanned, have);
        if (have > 200)
            text[have - 50] = '\n'; /* a second look would refuse this */
    }
    free(text);
}

static void responses(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum kind kind;
        int status;
        const char *reason;
        enum http_body body;
        uint64_t length;
        bool keep_alive;
    } good[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", RESPONSE, 200, "OK", HTTP_BODY_SIZED, 5, true },
        { "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n", RESPONSE, 200, "", HTTP_BODY_SIZED, 5, true },
        { "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", RESPONSE, 200, "", HTTP_BODY_SIZED, 5, true },
        { "HTTP/1.1 429 Too Many Requests\r\nTransfer-Encoding: chunked\r\n\r\n", RESPONSE, 429, "Too Many Requests",
          HTTP_BODY_CHUNKED, 0, true },
        { "HTTP/1.1 200 OK\r\n\r\n", RESPONSE, 200, "OK", HTTP_BODY_TO_EOF, 0, false },
        { "HTTP/1.0 200 OK\r\n\r\n", RESPONSE, 200, "OK", HTTP_BODY_TO_EOF, 0, false },
        { "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", RESPONSE, 200, "OK", HTTP_BODY_SIZED, 0, false },
        { "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", RESPONSE, 200, "OK",
          HTTP_BODY_SIZED, 0, true },
        { "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", RESPONSE, 200, "OK", HTTP_BODY_SIZED, 0,
          false },
        { "HTTP/1.1 100 Continue\r\n\r\n", RESPONSE, 100, "Continue", HTTP_BODY_NONE, 0, true },
        { "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", RESPONSE, 204, "No Content", HTTP_BODY_NONE,
          0, true },
        { "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", RESPONSE, 304, "Not Modified", HTTP_BODY_NONE, 0,
          true },
        { "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", RESPONSE_TO_HEAD, 200, "OK", HTTP_BODY_NONE, 0, true },
        { "HTTP/1.1 200 OK\r\n\r\n", RESPONSE_TO_HEAD, 200, "OK", HTTP_BODY_NONE, 0, true },
        { "HTTP/1.1 599 \xc3\xa9t\xc3\xa9 \t!\r\nContent-Length: 1\r\n\r\n", RESPONSE, 599, "\xc3\xa9t\xc3\xa9 \t!",
          HTTP_BODY_SIZED, 1, true },
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        if (parsed(good[i].kind, slice_str(good[i].text)) != HTTP_OK)
            fail_msg("refused (%s): %s", http_fault_text(head.fault), good[i].text);
        assert_int_equal(head.status, good[i].status);
        assert_true(is(head.reason, good[i].reason));
        assert_int_equal(head.body, good[i].body);
        assert_int_equal(head.keep_alive, good[i].keep_alive);
        if (head.body == HTTP_BODY_SIZED)
            assert_int_equal(head.content_length, good[i].length);
    }
    static const struct { const char *text; enum http_fault fault; } bad[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_FAULT_LENGTH },
        { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", HTTP_FAULT_LENGTH },
        { "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", HTTP_FAULT_LENGTH },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", HTTP_FAULT_CODING },
        { "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_FAULT_LENGTH },
        { "HTTP/2.0 200 OK\r\n\r\n", HTTP_FAULT_VERSION },
        { "HTTP/1.1 20 OK\r\n\r\n", HTTP_FAULT_SYNTAX },
        { "HTTP/1.1 2000 OK\r\n\r\n", HTTP_FAULT_SYNTAX },
        { "HTTP/1.1 099 OK\r\n\r\n", HTTP_FAULT_SYNTAX },
        { "HTTP/1.1 600 OK\r\n\r\n", HTTP_FAULT_SYNTAX },
        { "HTTP/1.1 2x0 OK\r\n\r\n", HTTP_FAULT_SYNTAX },
        { "HTTP/1.1  200 OK\r\n\r\n", HTTP_FAULT_SYNTAX },
        { "HTTP/1.1\t200 OK\r\n\r\n", HTTP_FAULT_SYNTAX },
        { "HTTP/1.1 200 O\x01K\r\n\r\n", HTTP_FAULT_SYNTAX },
        { "HTTP/1.1 200 OK\n\r\n", HTTP_FAULT_SYNTAX },
        { "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", HTTP_FAULT_SYNTAX },
        { "ICY 200 OK\r\n\r\n\r\n", HTTP_FAULT_SYNTAX },
        { "<html>\r\n<body>\r\n\r\n", HTTP_FAULT_SYNTAX },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        enum http_result r = parsed(RESPONSE, slice_str(bad[i].text));
        if (r != HTTP_BAD || head.fault != bad[i].fault)
            fail_msg("got %d, %s: %s", r, http_fault_text(head.fault), bad[i].text);
    }
}

/* Reads a chunked body that comes in pieces; the data into out. Returns the last result, *rest: bytes not consumed. */
static enum http_result body_of(struct http_reader *r, struct slice in, size_t first, size_t step, char *out, size_t *n,
                                size_t *rest) {
    size_t at = 0;
    *n = 0;
    for (size_t have = first;; have = have + step < in.len ? have + step : in.len) {
        for (;;) {
            size_t len = have - at, used;
            char *exact = malloc(len ? len : 1);
            memcpy(exact, in.ptr + at, len);
            struct slice data;
            enum http_result result = http_reader_next(r, slice_of(exact, len), &data, &used);
            if (result != HTTP_BAD) {
                assert_true(used <= len && data.len <= used && data.ptr >= exact && data.ptr + data.len <= exact + len);
                memcpy(out + *n, data.ptr, data.len);
                *n += data.len;
            }
            free(exact);
            at += used;
            *rest = in.len - at;
            if (result != HTTP_MORE)
                return result;
            if (used == 0)
                break;
        }
        if (have == in.len)
            return HTTP_MORE;
    }
}

static void check_body(enum http_body kind, uint64_t length, struct slice in, enum http_result want,
                       enum http_fault fault, const char *data, size_t rest) {
    char *out = malloc(in.len + 1);
    for (size_t cut = 0; cut <= in.len; cut += in.len > 4000 ? 997 : 1) {
        struct http_reader r;
        size_t n, left;
        http_reader_init(&r, kind, length);
        enum http_result got = body_of(&r, in, cut, cut ? in.len : 1, out, &n, &left);
        if (got != want || r.fault != fault)
            fail_msg("cut at %zu: got %d, %s: %.200s", cut, got, http_fault_text(r.fault), in.ptr);
        if (want == HTTP_OK)
            assert_int_equal(left, rest);
        if (want != HTTP_BAD) {
            assert_int_equal(n, strlen(data));
            assert_memory_equal(out, data, n);
        }
        if (want == HTTP_BAD) { /* it stays bad */
            struct slice d;
            assert_int_equal(http_reader_next(&r, SLICE("0\r\n\r\n"), &d, &n), HTTP_BAD);
        }
    }
    free(out);
}

static void chunked_bodies(void **state) {
    (void)state;
    static const struct { const char *in, *data; size_t rest; } good[] = {
        { "0\r\n\r\n", "", 0 },
        { "5\r\nhello\r\n0\r\n\r\n", "hello", 0 },
        { "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nNEXT", "hello world", 4 },
        { "00005\r\nhello\r\n000\r\n\r\n", "hello", 0 },
        { "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", 0 },
        { "5;a\r\nhello\r\n0;b=c;d=\"e\"\r\n\r\n", "hello", 0 },
        { "5 ;a\r\nhello\r\n0\t;\r\n\r\n", "hello", 0 },
        { "2\r\n\r\n\r\n0\r\n\r\n", "\r\n", 0 },
        { "0\r\nX: y\r\nZ:\r\n\r\nG", "", 1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        check_body(HTTP_BODY_CHUNKED, 0, slice_str(good[i].in), HTTP_OK, HTTP_FAULT_NONE, good[i].data, good[i].rest);
    static const char *const bad[] = {
        "\r\n",
        "g\r\n",
        " 5\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "-5\r\n",
        "+5\r\n",
        "5 \r\nhello\r\n",
        "5\t\r\n",
        "5\nhello\r\n",
        "5\r\rhello",
        "5\rhello",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello!\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "5,a\r\n",
        "5;a\nhello\r\n",
        "5;a\x01\r\n",
        "5;\x7f\r\n",
        "5 a\r\n",
        "5; a\r\rhello",
        "fffffffffffffffff\r\n",
        "10000000000000000\r\n",
        "8000000000000000\r\n",
        "0000000000000005\r\nhello\r\n",
        "FFFFFFFFFFFFFFFF5\r\n",
        "0\r\nX y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\r\n\n",
        "0\r\n\n",
        "0\r\n\rX",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: a\r\n b\r\n\r\n",
        "0\r\nX: a\x01\r\n\r\n",
        "0\n\n",
        "5;\"a\r\n\nhello\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        check_body(HTTP_BODY_CHUNKED, 0, slice_str(bad[i]), HTTP_BAD, HTTP_FAULT_CHUNK, "", 0);
    check_body(HTTP_BODY_CHUNKED, 0, slice_of("\0", 1), HTTP_BAD, HTTP_FAULT_CHUNK, "", 0);
    static const char *const more[] = { "",        "5",      "5\r",           "5\r\n",          "5;", "5 ", "0\r\n",
                                        "0\r\n\r", "0\r\nX", "0\r\nX: y\r\n", "0\r\nX: y\r\n\r" };
    for (size_t i = 0; i < ARRAY_LEN(more); i++)
        check_body(HTTP_BODY_CHUNKED, 0, slice_str(more[i]), HTTP_MORE, HTTP_FAULT_NONE, "", 0);
    check_body(HTTP_BODY_CHUNKED, 0, SLICE("5\r\nhel"), HTTP_MORE, HTTP_FAULT_NONE, "hel", 0);
    check_body(HTTP_BODY_CHUNKED, 0, SLICE("5\r\nhello\r\n0\r\n\r"), HTTP_MORE, HTTP_FAULT_NONE, "hello", 0);
    char *text = malloc(20000);
    check_body(HTTP_BODY_CHUNKED, 0, padded(text, "5;", 200, "\r\nhello\r\n0\r\n\r\n"), HTTP_OK, HTTP_FAULT_NONE,
               "hello", 0);
    check_body(HTTP_BODY_CHUNKED, 0, padded(text, "5;", 300, "\r\nhello\r\n0\r\n\r\n"), HTTP_BAD, HTTP_FAULT_CHUNK, "",
               0);
    check_body(HTTP_BODY_CHUNKED, 0, padded(text, "0\r\nX: ", 8000, "\r\n\r\n"), HTTP_OK, HTTP_FAULT_NONE, "", 0);
    check_body(HTTP_BODY_CHUNKED, 0, padded(text, "0\r\nX: ", 9000, "\r\n\r\n"), HTTP_BAD, HTTP_FAULT_TRAILER_LONG, "",
               0);
    free(text);
}

static void other_bodies(void **state) {
    (void)state;
    check_body(HTTP_BODY_NONE, 0, SLICE("next"), HTTP_OK, HTTP_FAULT_NONE, "", 4);
    check_body(HTTP_BODY_SIZED, 0, SLICE("next"), HTTP_OK, HTTP_FAULT_NONE, "", 4);
    check_body(HTTP_BODY_SIZED, 5, SLICE("hello"), HTTP_OK, HTTP_FAULT_NONE, "hello", 0);
    check_body(HTTP_BODY_SIZED, 5, SLICE("hellonext"), HTTP_OK, HTTP_FAULT_NONE, "hello", 4);
    check_body(HTTP_BODY_SIZED, 6, SLICE("hello"), HTTP_MORE, HTTP_FAULT_NONE, "hello", 0);
    check_body(HTTP_BODY_TO_EOF, 0, SLICE("hello"), HTTP_MORE, HTTP_FAULT_NONE, "hello", 0);
    /* the end is seen in the call that takes the last data */
    struct http_reader r;
    struct slice data;
    size_t used;
    http_reader_init(&r, HTTP_BODY_CHUNKED, 0);
    assert_int_equal(http_reader_next(&r, SLICE("5\r\nhello\r\n0\r\n\r\nX"), &data, &used), HTTP_OK);
    assert_true(slice_is(data, "hello") && used == 15 && r.done);
}

static void utilities(void **state) {
    (void)state;
    assert_true(http_has_token(SLICE("a, B ,c"), SLICE("b")) && http_has_token(SLICE("a"), SLICE("A")) &&
                http_has_token(SLICE(",, a"), SLICE("a")));
    assert_false(http_has_token(SLICE("ab, c"), SLICE("a")) || http_has_token(SLICE(""), SLICE("a")) ||
                 http_has_token(SLICE("a b"), SLICE("a")) || http_has_token(SLICE_NONE, SLICE("a")));
    char out[8];
    size_t n;
    static const struct { const char *query, *name, *value;
    } params[] = {
        { "a=1&b=2", "b", "2" },
        { "a=1&a=2", "a", "1" },
        { "a", "a", "" },
        { "a=", "a", "" },
        { "ab=1&a=2", "a", "2" },
        { "key=a%20b+c", "key", "a b c" },
        { "k%65y=x", "key", "x" },
        { "a=b=c", "a", "b=c" },
        { "&&a=1", "a", "1" },
        { "a=%2B%25", "a", "+%" },
        { "a=12345678", "a", "12345678" },
        { "", "a", NULL },
        { "b=1", "a", NULL },
        { "a=%", "a", NULL },
        { "a=%1", "a", NULL },
        { "a=%zz", "a", NULL },
        { "a=%00", "a", NULL },
        { "a=123456789", "a", NULL },
        { "A=1", "a", NULL },
        { "=1", "", NULL },
        { "a=%&a=2", "a", NULL },
        { "%=1&a=2", "a", "2" },
    };
    for (size_t i = 0; i < ARRAY_LEN(params); i++) {
        bool ok = http_query_get(slice_str(params[i].query), slice_str(params[i].name), out, sizeof out, &n);
        if (ok != !!params[i].value || (ok && !slice_is(slice_of(out, n), params[i].value)))
            fail_msg("%s in %s: %d %.*s", params[i].name, params[i].query, ok, ok ? (int)n : 0, out);
    }
    assert_false(http_query_get(SLICE_NONE, SLICE("a"), out, sizeof out, &n));
    assert_true(http_percent_decode(SLICE("a+b%2fc"), false, out, sizeof out, &n) &&
                slice_is(slice_of(out, n), "a+b/c"));
    assert_false(http_percent_decode(SLICE("a%0"), false, out, sizeof out, &n) ||
                 http_percent_decode(SLICE("%0g"), false, out, sizeof out, &n) ||
                 http_percent_decode(slice_of("a\0", 2), false, out, sizeof out, &n));
    assert_false(http_percent_decode(slice_of("a%2f", 3), false, out, sizeof out, &n));
    assert_string_equal(http_reason(200), "OK");
    assert_string_equal(http_reason(429), "Too Many Requests");
    assert_string_equal(http_reason(598), "Server Error");
    for (int f = HTTP_FAULT_NONE; f <= HTTP_FAULT_TRAILER_LONG; f++)
        assert_true(strlen(http_fault_text((enum http_fault)f)) > 0);
}

static void dates(void **state) {
    (void)state;
    static const struct { const char *text; int64_t s; /* -1: none */
    } cases[] = {
        { "Sun, 06 Nov 1994 08:49:37 GMT", 784111777 },  { "Sunday, 06-Nov-94 08:49:37 GMT", 784111777 },
        { "Sun Nov  6 08:49:37 1994", 784111777 },       { "Thu, 01 Jan 1970 00:00:00 GMT", 0 },
        { "Tue, 29 Feb 2028 23:59:60 GMT", 1835481600 }, { "Fri, 01 Mar 2069 00:00:00 GMT", 3129321600 },
        { "06-NOV-26 08:49:37", 1793954977 },            { "", -1 },
        { "tomorrow", -1 },                              { "Sun, 06 Nov 1994", -1 },
        { "Sun, 32 Nov 1994 08:49:37 GMT", -1 },         { "Sun, 06 Nob 1994 08:49:37 GMT", -1 },
        { "Sun, 06 Nov 1994 24:49:37 GMT", -1 },         { "Sun, 06 Nov 1494 08:49:37 GMT", -1 },
        { "Sun, 06 Nov 1994 8:49:37 GMT", -1 },          { "120", -1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t s = -1;
        if (http_date(slice_str(cases[i].text), &s) != (cases[i].s >= 0) || s != cases[i].s)
            fail_msg("%s: %lld", cases[i].text, (long long)s);
    }
}

static void character_classes(void **state) {
    (void)state;
    for (int c = 0; c < 256; c++) {
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        assert_int_equal(http_is_token((uint8_t)c), alnum || (c && strchr("!#$%&'*+-.^_`|~", c)));
        assert_int_equal(http_is_value((uint8_t)c), c == '\t' || (c >= ' ' && c != 0x7f));
        assert_int_equal(http_is_target((uint8_t)c), c > ' ' && c < 0x7f && c != '#');
        assert_int_equal(http_is_host((uint8_t)c), alnum || (c && strchr("-._~%!$&'()*+;=:[]", c)));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_requests),
        cmocka_unit_test(good_requests),
        cmocka_unit_test(request_flags),
        cmocka_unit_test(incomplete),
        cmocka_unit_test(limits),
        cmocka_unit_test(searched_once),
        cmocka_unit_test(responses),
        cmocka_unit_test(chunked_bodies),
        cmocka_unit_test(other_bodies),
        cmocka_unit_test(utilities),
        cmocka_unit_test(dates),
        cmocka_unit_test(character_classes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
