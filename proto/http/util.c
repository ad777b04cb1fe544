/* Lookups in heads, list values, query parameters, percent-encoding, and the fixed texts. Nothing here allocates. */
#include "proto/http/http.h"

#include "proto/base/check.h"

const struct http_header *http_find(const struct http_head *h, struct slice name) {
    for (uint32_t i = 0; i < h->header_count; i++)
        if (h->headers[i].name.len == name.len && slice_ieq(h->headers[i].name, name))
            return &h->headers[i];
    return NULL;
}

bool http_has_token(struct slice list, struct slice token) {
    while (list.len > 0) {
        const char *comma = memchr(list.ptr, ',', list.len);
        size_t n = comma ? (size_t)(comma - list.ptr) : list.len;
        if (slice_ieq(slice_trim(slice_of(list.ptr, n)), token))
            return true;
        list = slice_from(list, n + 1);
    }
    return false;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool http_percent_decode(struct slice in, bool plus, char *out, size_t cap, size_t *len) {
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++) {
        char c = in.ptr[i];
        if (c == '%') {
            int hi = in.len - i > 2 ? hex_digit(in.ptr[i + 1]) : -1, lo = hi < 0 ? -1 : hex_digit(in.ptr[i + 2]);
            if (lo < 0)
                return false;
            c = (char)(hi << 4 | lo);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c == '\0' || n == cap)
            return false;
        out[n++] = c;
    }
    *len = n;
    return true;
}

/* Names are compared decoded, for `%6bey` is `key` to everyone else; one that does not fit is none we look for. */
static bool name_is(struct slice raw, struct slice name) {
    char decoded[64];
    size_t n;
    return slice_eq(raw, name) ||
           (memchr(raw.ptr, '%', raw.len) && http_percent_decode(raw, true, decoded, sizeof decoded, &n) &&
            slice_eq(slice_of(decoded, n), name));
}

bool http_query_get(struct slice query, struct slice name, char *out, size_t cap, size_t *len) {
    while (query.len > 0) {
        const char *amp = memchr(query.ptr, '&', query.len);
        size_t n = amp ? (size_t)(amp - query.ptr) : query.len;
        const char *eq = memchr(query.ptr, '=', n);
        size_t name_len = eq ? (size_t)(eq - query.ptr) : n;
        if (name_len > 0 && name_is(slice_of(query.ptr, name_len), name)) {
            size_t skip = eq ? name_len + 1 : n;
            return http_percent_decode(slice_of(query.ptr + skip, n - skip), true, out, cap, len);
        }
        query = slice_from(query, n + 1);
    }
    return false;
}

/* ---- dates ------------------------------------------------------------------------------------------------------- */

static bool date_number(struct slice t, size_t min, size_t max, int *out) {
    int v = 0;
    if (t.len < min || t.len > max)
        return false;
    for (size_t i = 0; i < t.len; i++) {
        if (t.ptr[i] < '0' || t.ptr[i] > '9')
            return false;
        v = v * 10 + (t.ptr[i] - '0');
    }
    *out = v;
    return true;
}

static bool date_clock(struct slice t, int *seconds) {
    int h, m, s;
    if (t.len != 8 || t.ptr[2] != ':' || t.ptr[5] != ':' || !date_number(slice_of(t.ptr, 2), 2, 2, &h) ||
        !date_number(slice_of(t.ptr + 3, 2), 2, 2, &m) || !date_number(slice_of(t.ptr + 6, 2), 2, 2, &s) || h > 23 ||
        m > 59 || s > 60)
        return false;
    *seconds = h * 3600 + m * 60 + s;
    return true;
}

/* 0: none of them. */
static int date_month(struct slice t) {
    static const char names[] = "janfebmaraprmayjunjulaugsepoctnovdec";
    for (int m = 0; t.len == 3 && m < 12; m++)
        if (slice_ieq(t, slice_of(names + m * 3, 3)))
            return m + 1;
    return 0;
}

/* Days from 1970-01-01 in the Gregorian calendar, counted in years that begin with March. */
static int64_t date_days(int year, int month, int day) {
    int64_t y = month <= 2 ? year - 1 : year, era = y / 400, of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

bool http_date(struct slice text, int64_t *epoch_s) {
    int day = 0, month = 0, year = -1, seconds = -1, n;
    while (text.len > 0) { /* the three forms differ in order and separators only: each part is told by its look */
        size_t len = 0;
        while (len < text.len && !memchr(" ,-", text.ptr[len], 3))
            len++;
        struct slice part = slice_of(text.ptr, len);
        text = slice_from(text, len < text.len ? len + 1 : len);
        if (seconds < 0 && date_clock(part, &seconds))
            continue;
        if (month == 0 && (n = date_month(part)) > 0)
            month = n;
        else if (day == 0 && date_number(part, 1, 2, &n))
            day = n;
        else if (year < 0 && date_number(part, 4, 4, &n))
            year = n;
        else if (year < 0 && date_number(part, 2, 2, &n)) /* RFC 850's: never far in the future */
            year = n < 70 ? 2000 + n : 1900 + n;
    }
    if (day < 1 || day > 31 || month == 0 || year < 1970 || seconds < 0)
        return false;
    *epoch_s = date_days(year, month, day) * 86400 + seconds;
    return true;
}

const char *http_fault_text(enum http_fault f) {
    static const char *const texts[] = {
        [HTTP_FAULT_NONE] = "no fault",
        [HTTP_FAULT_SYNTAX] = "The request is not well-formed HTTP/1.1.",
        [HTTP_FAULT_TARGET_LONG] = "The request target is too long.",
        [HTTP_FAULT_HEAD_LONG] = "The request headers are too large or too many.",
        [HTTP_FAULT_VERSION] = "This HTTP version is not supported.",
        [HTTP_FAULT_LENGTH] = "The length of the body is malformed, stated twice or contradictory.",
        [HTTP_FAULT_CODING] = "This transfer coding is not implemented; only chunked is.",
        [HTTP_FAULT_HOST] = "The Host header is missing, malformed or stated twice.",
        [HTTP_FAULT_CHUNK] = "The chunked body is malformed.",
        [HTTP_FAULT_TRAILER_LONG] = "The trailers are too large.",
    };
    return (unsigned)f < ARRAY_LEN(texts) ? texts[f] : "unknown fault";
}

const char *http_reason(int status) {
    static const struct { int status; const char *text;
    } reasons[] = {
        { 100, "Continue" },
        { 101, "Switching Protocols" },
        { 200, "OK" },
        { 201, "Created" },
        { 202, "Accepted" },
        { 204, "No Content" },
        { 206, "Partial Content" },
        { 301, "Moved Permanently" },
        { 302, "Found" },
        { 303, "See Other" },
        { 304, "Not Modified" },
        { 307, "Temporary Redirect" },
        { 308, "Permanent Redirect" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 402, "Payment Required" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 406, "Not Acceptable" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 410, "Gone" },
        { 411, "Length Required" },
        { 412, "Precondition Failed" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 415, "Unsupported Media Type" },
        { 416, "Range Not Satisfiable" },
        { 417, "Expectation Failed" },
        { 422, "Unprocessable Content" },
        { 424, "Failed Dependency" },
        { 425, "Too Early" },
        { 426, "Upgrade Required" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 451, "Unavailable For Legal Reasons" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
        { 529, "Overloaded" },
    };
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return status < 200   ? "Informational"
           : status < 300 ? "Success"
           : status < 400 ? "Redirection"
           : status < 500 ? "Client Error"
                          : "Server Error";
}
