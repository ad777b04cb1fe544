/* Numbers without floating point: exact integers and exact decimal fixed point, read and written. The interface is in
 * json.h.
 *
 * A value is digits × 10^exponent, its digits taken up to the last one that is not zero; it fits fixed point exactly if
 * that exponent, moved by the places wanted, is not negative and the product fits. Nothing is ever rounded: what does
 * not fit is false. */
#include "proto/json.h"

#include "proto/base/check.h"

struct decimal {
    uint64_t digits; /* its last digit is not 0, or it is 0 */
    int64_t exponent;
    bool negative;
};

/* Takes text that has a JSON number's characters. false: more digits than 64 bits hold. */
static bool decimal_read(struct slice text, struct decimal *d) {
    const char *p = text.ptr, *end = text.ptr + text.len;
    *d = (struct decimal){ .negative = p < end && *p == '-' };
    p += d->negative;
    bool fraction = false;
    int64_t zeros = 0; /* seen since the last digit that was not zero */
    for (; p < end && (*p | 0x20) != 'e'; p++) {
        if (*p == '.') {
            fraction = true;
            continue;
        }
        d->exponent -= fraction;
        zeros++;
        if (*p == '0')
            continue;
        for (; zeros > 0; zeros--)
            if (d->digits == 0)
                zeros = 1; /* leading ones mean nothing */
            else if (__builtin_mul_overflow(d->digits, 10, &d->digits))
                return false;
        if (__builtin_add_overflow(d->digits, (uint64_t)(*p - '0'), &d->digits))
            return false;
    }
    d->exponent += zeros;
    if (p == end)
        return true;
    bool minus = *++p == '-';
    int64_t e = 0;
    for (p += *p == '-' || *p == '+'; p < end; p++)
        e = e > 1000000000000 ? e
                              : e * 10 + (*p - '0'); /* past any length a text can have it only needs to stay past it */
    d->exponent += minus ? -e : e;
    return true;
}

/* digits × 10^(exponent + places), exact. */
static bool decimal_scale(const struct decimal *d, int places, uint64_t *out) {
    uint64_t v = d->digits;
    int64_t e = d->exponent + places;
    if (v != 0 && (e < 0 || e > 19))
        return false;
    for (; v != 0 && e > 0; e--)
        if (__builtin_mul_overflow(v, 10, &v))
            return false;
    *out = v;
    return true;
}

static bool with_sign(uint64_t v, bool negative, int64_t *out) {
    if (v > (uint64_t)INT64_MAX + negative)
        return false;
    *out = negative ? (int64_t)-v : (int64_t)v;
    return true;
}

static bool number_fixed(struct slice text, int places, int64_t *out) {
    struct decimal d;
    uint64_t v;
    return decimal_read(text, &d) && decimal_scale(&d, places, &v) && with_sign(v, d.negative, out);
}

/* A plain integer as nearly all are: no sign, point or exponent, and too short to overflow. */
static bool short_integer(struct slice text, uint64_t *out) {
    uint64_t v = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned d = (unsigned char)text.ptr[i] - (unsigned)'0';
        if (d > 9)
            return false;
        v = v * 10 + d;
    }
    *out = v;
    return true;
}

bool json_u64(const struct json *j, int t, uint64_t *out) {
    struct decimal d;
    uint64_t v;
    if (json_is(j, t, JSON_NUMBER) && j->tok[t].end - j->tok[t].start <= 18 && short_integer(json_raw(j, t), out))
        return true;
    if (!json_is(j, t, JSON_NUMBER) || !decimal_read(json_raw(j, t), &d) || !decimal_scale(&d, 0, &v) ||
        (d.negative && v != 0))
        return false;
    *out = v;
    return true;
}

bool json_i64(const struct json *j, int t, int64_t *out) {
    return json_fixed(j, t, 0, out);
}

bool json_fixed(const struct json *j, int t, int places, int64_t *out) {
    return json_is(j, t, JSON_NUMBER) && number_fixed(json_raw(j, t), places, out);
}

bool fixed_parse(struct slice text, int places, int64_t *out) {
    size_t digits = 0, point = SIZE_MAX;
    for (size_t i = text.len > 0 && text.ptr[0] == '-'; i < text.len; i++) {
        char c = text.ptr[i];
        if (c >= '0' && c <= '9')
            digits++;
        else if (c == '.' && point == SIZE_MAX && digits > 0)
            point = i;
        else
            return false;
    }
    return digits > 0 && point != text.len - 1 && number_fixed(text, places, out);
}

size_t fixed_format(char *out, int64_t value, int places) {
    CHECK(places >= 0 && places <= 18);
    uint64_t v = value < 0 ? -(uint64_t)value : (uint64_t)value;
    char text[24];
    char *end = text + sizeof text, *p = end;
    while (places > 0 && v % 10 == 0) { /* trailing zeros; all of them, for zero */
        v /= 10;
        places--;
    }
    for (int i = 0; i < places; i++, v /= 10)
        *--p = (char)('0' + v % 10);
    if (places > 0)
        *--p = '.';
    do
        *--p = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    if (value < 0)
        *--p = '-';
    memcpy(out, p, (size_t)(end - p));
    return (size_t)(end - p);
}
