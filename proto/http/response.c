/* Response heads. The body's framing follows RFC 9112 §6.3; a response without any runs to the end of its connection.
 */
#include "proto/http/head.h"

static enum http_result status_line(struct http_head *h, struct slice text, size_t *at) {
    const char *p = text.ptr + *at, *end = text.ptr + text.len;
    bool short_line = end - p < 14; /* the shortest: "HTTP/1.1 200" CRLF */
    if (short_line && !memchr(p, '\n', (size_t)(end - p)))
        return HTTP_MORE;
    enum http_fault fault = end - p < 8 ? HTTP_FAULT_SYNTAX : http_head_version(h, p);
    if (fault == HTTP_FAULT_NONE && short_line)
        fault = HTTP_FAULT_SYNTAX;
    if (fault != HTTP_FAULT_NONE)
        return http_head_bad(h, fault);
    for (int i = 9; i < 12; i++) {
        h->status = h->status * 10 + (p[i] - '0');
        if (p[i] < '0' || p[i] > '9')
            return http_head_bad(h, HTTP_FAULT_SYNTAX);
    }
    if (p[8] != ' ' || h->status < 100 || h->status > 599)
        return http_head_bad(h, HTTP_FAULT_SYNTAX);
    p += 12;
    if (*p == ' ') /* some leave the space out with the reason */
        p++;
    else if (*p != '\r')
        return http_head_bad(h, HTTP_FAULT_SYNTAX);
    const char *stop = http_value_end(p, end);
    h->reason = slice_of(p, (size_t)(stop - p));
    if (end - stop < 2)
        return stop == end || *stop == '\r' ? HTTP_MORE : http_head_bad(h, HTTP_FAULT_SYNTAX);
    if (stop[0] != '\r' || stop[1] != '\n')
        return http_head_bad(h, HTTP_FAULT_SYNTAX);
    *at = (size_t)(stop + 2 - text.ptr);
    return HTTP_OK;
}

enum http_result http_parse_response(struct http_head *h, struct slice text, size_t *scanned, bool head_request) {
    struct http_seen seen;
    enum http_result result = http_head_parse(h, text, scanned, status_line, &seen);
    if (result != HTTP_OK)
        return result;
    if (!http_head_framing(h, &seen))
        return HTTP_BAD;
    if (head_request || h->status < 200 || h->status == 204 || h->status == 304) {
        h->body = HTTP_BODY_NONE;
    } else if (h->body == HTTP_BODY_NONE) {
        h->body = HTTP_BODY_TO_EOF;
        h->keep_alive = false;
    }
    return HTTP_OK;
}
