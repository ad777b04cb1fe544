/* What the parser and the writer both do to a string's bytes: find the end of plain text, step over one UTF-8 sequence.
 * Internal to proto/json*.c. */
#ifndef TG_JSON_SCAN_H
#define TG_JSON_SCAN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __SSE2__
#include <emmintrin.h>

/* A bit for each of 16 bytes that is a quote, a backslash, a control byte or not ASCII. Compared as signed numbers
 * the last two are one test: below 0x20. */
static inline unsigned json_special16(const uint8_t *p) {
    __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i m =
        _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8('"')), _mm_cmpeq_epi8(x, _mm_set1_epi8('\\'))),
                     _mm_cmplt_epi8(x, _mm_set1_epi8(0x20)));
    return (unsigned)_mm_movemask_epi8(m);
}
#endif

static inline int json_is_special(uint8_t c) {
    return c < 0x20 || c >= 0x80 || c == '"' || c == '\\';
}

/* The first byte at or behind p that cannot stand plainly in a string or is not ASCII; end if there is none. */
static inline const uint8_t *json_plain_end(const uint8_t *p, const uint8_t *end) {
#ifdef __SSE2__
    while (end - p >= 16) {
        unsigned mask = json_special16(p);
        if (mask)
            return p + __builtin_ctz(mask);
        p += 16;
    }
#endif
    while (p < end && !json_is_special(*p))
        p++;
    return p;
}

/* Length of the well-formed UTF-8 sequence at p, whose first byte is not ASCII; 0 if it is not well-formed
 * (Unicode table 3-7: no overlong form, no surrogate, nothing past U+10FFFF). */
static inline unsigned json_utf8_sequence(const uint8_t *p, const uint8_t *end) {
    size_t room = (size_t)(end - p);
    uint8_t c = p[0];
    if (c < 0xe0)
        return c >= 0xc2 && room >= 2 && (p[1] & 0xc0) == 0x80 ? 2 : 0;
    if (c < 0xf0) {
        if (room < 3 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80)
            return 0;
        return (c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) ? 0 : 3;
    }
    if (c > 0xf4 || room < 4 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80 || (p[3] & 0xc0) != 0x80)
        return 0;
    return (c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] > 0x8f) ? 0 : 4;
}

#endif
