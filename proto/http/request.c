/* Request heads. Targets are taken in origin-form and in absolute-form (RFC 9112 §3.2), whose authority then is the
 * host; asterisk-form and authority-form ask for what a gateway to models does not do and are refused as malformed. */
#include "proto/http/chars.h"
#include "proto/http/head.h"

/* A target's path and query; an absolute-form's authority becomes the host. */
static bool split_target(struct http_head *h, struct slice *authority) {
    struct slice t = h->target;
    *authority = SLICE_NONE;
    if (t.ptr[0] != '/') {
        size_t scheme = t.len > 7 && slice_ieq(slice_of(t.ptr, 7), SLICE("http://")) ? 7
                      : t.len > 8 && slice_ieq(slice_of(t.ptr, 8), SLICE("https://")) ? 8 : 0;
        if (scheme == 0)
            return false;
        t = slice_from(t, scheme);
        size_t n = 0;
        while (n < t.len && t.ptr[n] != '/' && t.ptr[n] != '?')
            n++;
        *authority = slice_of(t.ptr, n);
        t = slice_from(t, n);
        if (n == 0)
            return false;
    }
    const char *mark = t.len ? memchr(t.ptr, '?', t.len) : NULL;
    h->path = mark ? slice_of(t.ptr, (size_t)(mark - t.ptr)) : t;
    h->query = mark ? slice_of(mark + 1, t.len - h->path.len - 1) : SLICE_NONE;
    if (h->path.len == 0)
        h->path = SLICE("/");
    return true;
}

static enum http_result request_line(struct http_head *h, struct slice text, size_t *at) {
    const char *p = text.ptr + *at, *end = text.ptr + text.len, *method = p;
    if (p < end && *p == '\r') /* half of an empty line, or a bare CR */
        return p + 1 == end ? HTTP_MORE : http_head_bad(h, HTTP_FAULT_SYNTAX);
    while (p < end && http_is_token((uint8_t)*p))
        p++;
    if (p == end)
        return HTTP_MORE;
    if (*p != ' ' || p == method)
        return http_head_bad(h, HTTP_FAULT_SYNTAX);
    h->method = slice_of(method, (size_t)(p - method));
    const char *target = ++p;
    while (p < end && http_is_target((uint8_t)*p))
        p++;
    h->target = slice_of(target, (size_t)(p - target));
    if (h->target.len > HTTP_MAX_TARGET)
        return http_head_bad(h, HTTP_FAULT_TARGET_LONG);
    if (p == end)
        return HTTP_MORE;
    if (*p != ' ' || p == target)
        return http_head_bad(h, HTTP_FAULT_SYNTAX);
    p++;
    bool short_line = end - p < 10; /* "HTTP/1.1" CRLF */
    if (short_line && !memchr(p, '\n', (size_t)(end - p)))
        return HTTP_MORE;
    enum http_fault fault = end - p < 8 ? HTTP_FAULT_SYNTAX : http_head_version(h, p);
    if (fault == HTTP_FAULT_NONE && (short_line || p[8] != '\r' || p[9] != '\n'))
        fault = HTTP_FAULT_SYNTAX;
    if (fault != HTTP_FAULT_NONE)
        return http_head_bad(h, fault);
    *at = (size_t)(p + 10 - text.ptr);
    return HTTP_OK;
}

static bool host_ok(struct slice host) {
    for (size_t i = 0; i < host.len; i++)
        if (!http_is_host((uint8_t)host.ptr[i]))
            return false;
    return true;
}

enum http_result http_parse_request(struct http_head *h, struct slice text, size_t *scanned) {
    struct http_seen seen;
    struct slice authority;
    enum http_result result = http_head_parse(h, text, scanned, request_line, &seen);
    if (result != HTTP_OK)
        return result;
    if (!split_target(h, &authority))
        return http_head_bad(h, HTTP_FAULT_SYNTAX);
    if (!http_head_framing(h, &seen))
        return HTTP_BAD;
    /* RFC 9112 §3.2: exactly one Host in 1.1, at most one before it. In absolute-form its value does not count, its
     * presence does. */
    if (seen.hosts > 1 || (h->minor > 0 && h->host.len == 0) || !host_ok(h->host) || !host_ok(authority))
        return http_head_bad(h, HTTP_FAULT_HOST);
    if (authority.ptr)
        h->host = authority;
    if (h->minor == 0) /* RFC 9110 §10.1.1: a 1.0 client would take the interim answer for the answer */
        h->expect_continue = false;
    return HTTP_OK;
}
