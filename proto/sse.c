/* Server-sent events, incrementally. Two passes over an event: the first looks for its end and remembers how far it
 * came, so that a long event in a thousand pieces is searched once; the second, once it is whole, cuts it into fields.
 *
 * The bytes of an event include what precedes it and belongs to nobody: the byte order mark, and the LF of a CRLF whose
 * CR had already ended the event before. Neither counts towards max_bytes, nor does the LF of the blank line's own
 * CRLF, so the limit and all events come out the same however the input was cut. Failures: too long, which is also the
 * answer when the scratch arena is full. */
#include "proto/sse.h"

#include "proto/base/check.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

void sse_init(struct sse *s, size_t max_bytes) {
    *s = (struct sse){ .max_bytes = max_bytes };
}

/* The first CR or LF at or behind p, or end. */
static const char *line_end(const char *p, const char *end) {
#ifdef __SSE2__
    const __m128i cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n');
    while (end - p >= 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned mask = (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(x, cr), _mm_cmpeq_epi8(x, lf)));
        if (mask)
            return p + __builtin_ctz(mask);
        p += 16;
    }
#endif
    while (p < end && *p != '\r' && *p != '\n')
        p++;
    return p;
}

/* How many bytes stand before the event and are not of it: an LF left over, the mark. false: too little is there to
 * know. text is not empty. */
static bool skip_prefix(const struct sse *s, struct slice text, size_t *n) {
    static const char mark[] = "\xef\xbb\xbf";
    *n = s->skip_lf && text.ptr[0] == '\n';
    if (s->started)
        return true;
    size_t have = text.len < 3 ? text.len : 3;
    if (memcmp(text.ptr, mark, have) != 0)
        return true;
    *n = 3;
    return have == 3;
}

/* Looks for the event's end from where the last call stopped. *used: with the LF of a last CRLF if it is there. */
static enum sse_result find_end(struct sse *s, struct slice text, size_t start, size_t *used) {
    const char *begin = text.ptr, *end = text.ptr + text.len;
    size_t limit = s->max_bytes < SIZE_MAX - start ? start + s->max_bytes : SIZE_MAX;
    if (s->scanned < start)
        s->scanned = s->line_start = start;
    for (;;) {
        size_t at = (size_t)(line_end(begin + s->scanned, end) - begin);
        s->scanned = at;
        if (at >= limit)
            return SSE_TOO_LONG;
        if (at == text.len)
            return SSE_MORE;
        bool cr = begin[at] == '\r', last = at + 1 == text.len, blank = at == s->line_start;
        if (cr && last && !blank)
            return SSE_MORE; /* an LF may follow: this byte is looked at once more */
        size_t next = at + 1 + (cr && !last && begin[at + 1] == '\n');
        if (blank) {
            *used = next;
            s->skip_lf = cr && last;
            return SSE_EVENT;
        }
        s->scanned = s->line_start = next;
    }
}

struct fields {
    struct slice name, data; /* data: the only or first line */
    size_t lines, data_bytes;
};

/* Calls for each data line are gathered in f; with `to` they are copied there, joined by LF. */
static void read_fields(struct slice body, struct fields *f, char *to) {
    const char *p = body.ptr, *end = body.ptr + body.len;
    *f = (struct fields){ .name = SLICE_NONE };
    while (p < end) {
        const char *stop = line_end(p, end), *value = memchr(p, ':', (size_t)(stop - p));
        size_t field = (size_t)((value ? value : stop) - p);
        value = value ? value + 1 : stop;
        value += value < stop && *value == ' ';
        struct slice v = slice_of(value, (size_t)(stop - value));
        if (field == 4 && memcmp(p, "data", 4) == 0) {
            if (to && f->lines > 0)
                to[f->data_bytes] = '\n';
            f->data_bytes += f->lines > 0;
            if (to)
                memcpy(to + f->data_bytes, v.ptr, v.len);
            f->data_bytes += v.len;
            if (f->lines++ == 0)
                f->data = v;
        } else if (field == 5 && memcmp(p, "event", 5) == 0) {
            f->name = v;
        }
        p = stop + (stop < end);
        if (p < end && *stop == '\r' && *p == '\n')
            p++;
    }
}

/* What nearly every event is, whole and at once: one line of data and LF LF. */
static bool plain_event(const struct sse *s, struct slice text, struct sse_event *ev, size_t *used) {
    if (!s->started || s->skip_lf || s->scanned > 0 || text.len < 8 || memcmp(text.ptr, "data: ", 6) != 0)
        return false;
    const char *end = text.ptr + text.len, *stop = line_end(text.ptr + 6, end);
    if (end - stop < 2 || stop[0] != '\n' || stop[1] != '\n')
        return false;
    *used = (size_t)(stop + 2 - text.ptr);
    *ev = (struct sse_event){ .raw = slice_of(text.ptr, *used),
                              .data = slice_of(text.ptr + 6, (size_t)(stop - text.ptr) - 6),
                              .has_data = true };
    return *used <= s->max_bytes;
}

enum sse_result sse_next(struct sse *s, struct slice text, struct arena *scratch, struct sse_event *ev, size_t *used) {
    size_t start;
    if (plain_event(s, text, ev, used))
        return SSE_EVENT;
    *used = 0;
    if (text.len == 0 || !skip_prefix(s, text, &start))
        return SSE_MORE;
    enum sse_result result = find_end(s, text, start, used);
    if (result != SSE_EVENT)
        return result;
    s->started = true;
    s->scanned = s->line_start = 0;
    struct fields f;
    struct slice body = slice_of(text.ptr + start, *used - start);
    read_fields(body, &f, NULL);
    *ev =
        (struct sse_event){ .raw = slice_of(text.ptr, *used), .name = f.name, .data = f.data, .has_data = f.lines > 0 };
    if (f.lines > 1) {
        char *joined = arena_alloc(scratch, f.data_bytes);
        if (!joined)
            return SSE_TOO_LONG;
        read_fields(body, &f, joined);
        ev->data = slice_of(joined, f.data_bytes);
    }
    return SSE_EVENT;
}

bool sse_pending(const struct sse *s, struct slice rest) {
    size_t start;
    if (rest.len == 0 || !skip_prefix(s, rest, &start))
        return false; /* nothing, or the beginning of a byte order mark */
    const char *p = rest.ptr + start, *end = rest.ptr + rest.len;
    while (p < end) {
        const char *stop = line_end(p, end);
        if (stop > p && *p != ':')
            return true;
        p = stop + (stop < end);
    }
    return false;
}
