/* Field lines and framing of an HTTP/1.1 head, for requests and responses alike.
 *
 * A head is parsed at once. If all of it came in one piece, as it nearly always does, it is looked at once; else the
 * next calls only search the new bytes for the blank line (or for a control byte that proves it broken, so that nobody
 * waits for more of a head that can never become right), and parse when it is there or the limit is. All that is
 * ambiguous is refused here or in http_head_framing. */
#include "proto/http/head.h"

#include "proto/http/chars.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum http_result http_head_bad(struct http_head *h, enum http_fault fault) {
    h->fault = fault;
    return HTTP_BAD;
}

const char *http_value_end(const char *p, const char *end) {
    for (;;) {
#ifdef __SSE2__
        const __m128i ctl = _mm_set1_epi8(0x1f), del = _mm_set1_epi8(0x7f);
        while (end - p >= 16) {
            __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
            unsigned mask = (unsigned)_mm_movemask_epi8(
                _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(x, ctl), x), _mm_cmpeq_epi8(x, del)));
            if (mask) {
                p += __builtin_ctz(mask);
                break;
            }
            p += 16;
        }
#endif
        while (p < end && http_is_value((uint8_t)*p) && *p != '\t')
            p++;
        if (p == end || *p != '\t')
            return p;
        p++;
    }
}

/* name is lower case letters and hyphens; p holds token characters, of which no other becomes one of these by setting
 * bit 5. */
static inline bool named(struct slice s, const char *name) {
    for (size_t i = 0; i < s.len; i++)
        if ((s.ptr[i] | 0x20) != name[i])
            return false;
    return true;
}

static void note_connection(struct http_seen *seen, struct slice v) {
    seen->close |= http_has_token(v, SLICE("close"));
    seen->keep |= http_has_token(v, SLICE("keep-alive"));
    seen->connection_upgrade |= http_has_token(v, SLICE("upgrade"));
}

/* The headers that matter here have a length each of their own. */
static inline void note(struct http_head *h, struct http_seen *seen, struct slice name, struct slice v) {
    switch (name.len) {
    case 4:
        if (named(name, "host") && seen->hosts++ == 0)
            h->host = v;
        break;
    case 6:
        if (named(name, "expect")) {
            if (slice_ieq(v, SLICE("100-continue")))
                h->expect_continue = true;
            else
                h->expect_other = true;
        }
        break;
    case 7:
        if (named(name, "upgrade"))
            seen->upgrade = true;
        break;
    case 10:
        if (named(name, "connection"))
            note_connection(seen, v);
        break;
    case 14:
        if (named(name, "content-length") &&
            (seen->lengths++ > 0 || !slice_to_u64(v, &h->content_length) || h->content_length > INT64_MAX))
            seen->length_bad = true;
        break;
    case 16:
        if (named(name, "content-encoding") && !h->content_encoding.ptr && !slice_ieq(v, SLICE("identity")))
            h->content_encoding = v;
        break;
    case 17:
        if (named(name, "transfer-encoding") && (seen->codings++ > 0 || !slice_ieq(v, SLICE("chunked"))))
            seen->coding_bad = true;
        break;
    }
}

/* One field line at *at. HTTP_OK with nothing added: it was the blank line. */
static enum http_result field_line(struct http_head *h, struct http_seen *seen, struct slice text, size_t *at,
                                   bool *blank) {
    const char *p = text.ptr + *at, *end = text.ptr + text.len, *name = p;
    *blank = p < end && *p == '\r';
    if (*blank) {
        *at += 2;
        return p + 1 == end ? HTTP_MORE : p[1] == '\n' ? HTTP_OK : http_head_bad(h, HTTP_FAULT_SYNTAX);
    }
    while (p < end && http_is_token((uint8_t)*p))
        p++;
    if (p == end)
        return HTTP_MORE;
    if (*p != ':' || p == name) /* so a fold, a space before the colon and an empty name are refused */
        return http_head_bad(h, HTTP_FAULT_SYNTAX);
    size_t name_len = (size_t)(p - name);
    const char *value = p + 1, *stop;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    stop = p = http_value_end(value, end);
    if (end - p < 2)
        return p == end || *p == '\r' ? HTTP_MORE : http_head_bad(h, HTTP_FAULT_SYNTAX);
    if (p[0] != '\r' || p[1] != '\n')
        return http_head_bad(h, HTTP_FAULT_SYNTAX);
    while (stop > value && (stop[-1] == ' ' || stop[-1] == '\t'))
        stop--;
    if (h->header_count == HTTP_MAX_HEADERS)
        return http_head_bad(h, HTTP_FAULT_HEAD_LONG);
    struct http_header *to = &h->headers[h->header_count++];
    to->name = slice_of(name, name_len);
    to->value = slice_of(value, (size_t)(stop - value));
    note(h, seen, to->name, to->value);
    *at = (size_t)(p + 2 - text.ptr);
    return HTTP_OK;
}

/* Whether the rest of the head has come: its blank line, or a control byte that makes it wrong. Looks at new bytes
 * only. */
static bool complete(struct slice text, size_t start, size_t *scanned) {
    const char *begin = text.ptr + start, *end = text.ptr + text.len;
    const char *p = *scanned > start ? text.ptr + *scanned : begin;
    while ((p = http_value_end(p, end)) < end) {
        if (*p == '\r' && p + 1 == end)
            break;
        if (*p != '\r' || p[1] != '\n' || (p > begin && p[-1] == '\n'))
            return true;
        p += 2;
    }
    *scanned = (size_t)(p - text.ptr);
    return false;
}

static enum http_result parse(struct http_head *h, struct slice text, size_t start, http_start_line *start_line,
                              struct http_seen *seen) {
    size_t at = start;
    bool blank = false;
    enum http_result result = start_line(h, text, &at);
    while (result == HTTP_OK && !blank)
        result = field_line(h, seen, text, &at, &blank);
    h->bytes = at;
    return result;
}

enum http_result http_head_parse(struct http_head *h, struct slice text, size_t *scanned, http_start_line *start_line,
                                 struct http_seen *seen) {
    bool over = text.len >= HTTP_MAX_HEAD;
    size_t start = 0;
    text.len = over ? HTTP_MAX_HEAD : text.len;
    if (text.len == 0)
        return HTTP_MORE;
    memset(h, 0, offsetof(struct http_head, headers)); /* the array is as long as header_count says */
    h->fault = HTTP_FAULT_NONE;
    *seen = (struct http_seen){ 0 };
    while (text.len - start >= 2 && text.ptr[start] == '\r' && text.ptr[start + 1] == '\n')
        start += 2;
    if (*scanned > 0 && !complete(text, start, scanned) && !over)
        return HTTP_MORE;
    enum http_result result = parse(h, text, start, start_line, seen);
    *scanned = text.len - (text.ptr[text.len - 1] == '\r'); /* a last CR is looked at again with what follows it */
    return result == HTTP_MORE && over ? http_head_bad(h, HTTP_FAULT_HEAD_LONG) : result;
}

bool http_head_framing(struct http_head *h, const struct http_seen *seen) {
    /* RFC 9112 §6.1: both, or a coding in 1.0, is how bodies are smuggled; a second length may be read by who stands
     * behind us */
    if (seen->length_bad || (seen->lengths > 0 && seen->codings > 0) || (seen->codings > 0 && h->minor == 0))
        h->fault = HTTP_FAULT_LENGTH;
    else if (seen->coding_bad)
        h->fault = HTTP_FAULT_CODING;
    h->body = seen->codings ? HTTP_BODY_CHUNKED : seen->lengths ? HTTP_BODY_SIZED : HTTP_BODY_NONE;
    h->keep_alive = !seen->close && (h->minor > 0 || seen->keep);
    h->upgrade = seen->upgrade && seen->connection_upgrade;
    return h->fault == HTTP_FAULT_NONE;
}

enum http_fault http_head_version(struct http_head *h, const char *p) {
    if (memcmp(p, "HTTP/", 5) != 0 || (unsigned)(p[5] - '0') > 9 || p[6] != '.' || (unsigned)(p[7] - '0') > 9)
        return HTTP_FAULT_SYNTAX;
    if (p[5] != '1')
        return HTTP_FAULT_VERSION;
    h->minor = p[7] > '0'; /* RFC 9110 §2.5: a higher minor is read as the highest known */
    return HTTP_FAULT_NONE;
}
