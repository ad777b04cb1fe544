/* The JSON writer: appends to a bounded buffer and puts the commas. The interface is in json.h.
 *
 * A buffer at its ceiling turns w->failed on and everything after it does nothing; what was appended until then stays
 * in the buffer and is no JSON. Strings need not be valid UTF-8 (they may be a provider's error text): what is not
 * becomes U+FFFD. */
#include "proto/json.h"

#include "proto/json_scan.h"

void jw_init(struct json_writer *w, struct buf *out) {
    *w = (struct json_writer){ .out = out };
}

/* Appends; where there is room, as nearly always, without a call. */
static inline void put(struct json_writer *w, const char *p, size_t n) {
    struct buf *b = w->out;
    if (__builtin_expect(!w->failed && n < b->cap - b->off - b->len, 1)) {
        memcpy(b->mem + b->off + b->len, p, n);
        b->len += n;
    } else if (!w->failed && !buf_append(b, p, n)) {
        w->failed = true;
    }
}

static inline void begin_value(struct json_writer *w) {
    if (w->comma)
        put(w, ",", 1);
    w->comma = true;
}

void jw_object(struct json_writer *w) {
    begin_value(w);
    put(w, "{", 1);
    w->comma = false;
}

void jw_end_object(struct json_writer *w) {
    put(w, "}", 1);
    w->comma = true;
}

void jw_array(struct json_writer *w) {
    begin_value(w);
    put(w, "[", 1);
    w->comma = false;
}

void jw_end_array(struct json_writer *w) {
    put(w, "]", 1);
    w->comma = true;
}

/* Line ends can only be white space in a JSON text: each becomes a space, so that a value fits into a line of SSE
 * however its sender laid it out. */
void jw_raw(struct json_writer *w, struct slice json) {
    if (json.len == 0) /* no value at all would spoil what is around it */
        json = SLICE("null");
    begin_value(w);
    while (json.len > 0) {
        const char *lf = memchr(json.ptr, '\n', json.len), *cr = memchr(json.ptr, '\r', json.len);
        const char *end = lf == NULL || (cr != NULL && cr < lf) ? cr : lf;
        size_t n = end != NULL ? (size_t)(end - json.ptr) : json.len;
        put(w, json.ptr, n);
        if (end == NULL)
            break;
        put(w, " ", 1);
        json = slice_from(json, n + 1);
    }
}

void jw_null(struct json_writer *w) {
    jw_raw(w, SLICE("null"));
}

void jw_bool(struct json_writer *w, bool v) {
    jw_raw(w, v ? SLICE("true") : SLICE("false"));
}

void jw_u64(struct json_writer *w, uint64_t v) {
    char text[20];
    char *end = text + sizeof text, *p = end;
    do
        *--p = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    jw_raw(w, slice_of(p, (size_t)(end - p)));
}

void jw_i64(struct json_writer *w, int64_t v) {
    jw_fixed(w, v, 0, false);
}

void jw_fixed(struct json_writer *w, int64_t value, int places, bool quoted) {
    char text[26] = "\"";
    size_t n = 1 + fixed_format(text + 1, value, places);
    text[n] = '"';
    jw_raw(w, quoted ? slice_of(text, n + 1) : slice_of(text + 1, n - 1));
}

/* What a byte that cannot stand plainly is written as (escaped, or a whole UTF-8 sequence); returns the bytes of text
 * it took. */
static size_t put_special(struct json_writer *w, const uint8_t *p, const uint8_t *end) {
    static const char hex[] = "0123456789abcdef";
    static const char short_form[0x20] = { ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't' };
    uint8_t c = *p;
    if (c >= 0x80) {
        unsigned n = json_utf8_sequence(p, end);
        put(w, n ? (const char *)p : "\xef\xbf\xbd", n ? n : 3);
        return n ? n : 1;
    }
    if (c >= 0x20)
        put(w, (char[]){ '\\', (char)c }, 2);
    else if (short_form[c])
        put(w, (char[]){ '\\', short_form[c] }, 2);
    else
        put(w, (char[]){ '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] }, 6);
    return 1;
}

void jw_str_part(struct json_writer *w, struct slice s) {
    const uint8_t *p = (const uint8_t *)s.ptr, *end;
    if (s.len == 0)
        return;
    for (end = p + s.len; p < end && !w->failed;) {
        const uint8_t *plain = json_plain_end(p, end);
        /* sequences beyond ASCII that are well-formed go out together with the plain text around them */
        while (plain < end && *plain >= 0x80) {
            unsigned n = json_utf8_sequence(plain, end);
            if (n == 0)
                break;
            plain = json_plain_end(plain + n, end);
        }
        put(w, (const char *)p, (size_t)(plain - p));
        p = plain;
        if (p < end)
            p += put_special(w, p, end);
    }
}

bool json_plain(struct slice s) {
    const uint8_t *p = (const uint8_t *)s.ptr;
    return s.len == 0 || json_plain_end(p, p + s.len) == p + s.len;
}

void jw_str_begin(struct json_writer *w) {
    begin_value(w);
    put(w, "\"", 1);
}

void jw_str_end(struct json_writer *w) {
    put(w, "\"", 1);
}

void jw_str(struct json_writer *w, struct slice s) {
    if (!s.ptr) {
        jw_null(w);
        return;
    }
    jw_str_begin(w);
    jw_str_part(w, s);
    jw_str_end(w);
}

void jw_cstr(struct json_writer *w, const char *s) {
    jw_str(w, slice_str(s));
}

void jw_key_slice(struct json_writer *w, struct slice name) {
    jw_str_begin(w);
    jw_str_part(w, name);
    put(w, "\":", 2);
    w->comma = false;
}

void jw_key_plain(struct json_writer *w, struct slice name) {
    begin_value(w);
    put(w, "\"", 1);
    put(w, name.ptr, name.len);
    put(w, "\":", 2);
    w->comma = false;
}
