/* A bounded text that is written by hand: heads, log lines. Its room is chosen so that all fits; what does not is left
 * out rather than memory overrun. Inline, so that literals become a few moves. */
#ifndef TG_LINE_H
#define TG_LINE_H

#include "proto/base/slice.h"

struct line { char *at, *end; };

static inline void line_put(struct line *t, const char *p, size_t n) {
    if ((size_t)(t->end - t->at) < n || n == 0)
        return;
    memcpy(t->at, p, n);
    t->at += n;
}
static inline void line_slice(struct line *t, struct slice s) { line_put(t, s.ptr, s.len); }
#define LINE(t, lit) line_put(t, "" lit, sizeof(lit) - 1)

/* v in decimal, at the end of out. */
static inline struct slice line_digits(char out[20], uint64_t v) {
    size_t n = 20;
    for (; v >= 100; v /= 100) { /* two at a time: half the divisions */
        unsigned two = (unsigned)(v % 100);
        out[--n] = (char)('0' + two % 10);
        out[--n] = (char)('0' + two / 10);
    }
    out[--n] = (char)('0' + v % 10);
    if (v >= 10)
        out[--n] = (char)('0' + v / 10);
    return slice_of(out + n, 20 - n);
}
static inline void line_u64(struct line *t, uint64_t v) {
    char digits[20];
    line_slice(t, line_digits(digits, v));
}

#endif
