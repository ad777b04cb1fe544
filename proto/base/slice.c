/* Comparisons and small conversions over slices. Pure: nothing here allocates, fails or keeps state. */
#include "proto/base/slice.h"

static inline unsigned char lower(unsigned char c) {
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

bool slice_ieq(struct slice a, struct slice b) {
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (a.ptr[i] != b.ptr[i] && lower((unsigned char)a.ptr[i]) != lower((unsigned char)b.ptr[i]))
            return false;
    return true;
}

struct slice slice_trim(struct slice a) {
    while (a.len > 0 && (a.ptr[0] == ' ' || a.ptr[0] == '\t'))
        a.ptr++, a.len--;
    while (a.len > 0 && (a.ptr[a.len - 1] == ' ' || a.ptr[a.len - 1] == '\t'))
        a.len--;
    return a;
}

bool slice_to_u64(struct slice a, uint64_t *out) {
    uint64_t v = 0;
    if (a.len == 0)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        unsigned d = (unsigned char)a.ptr[i] - (unsigned)'0';
        if (d > 9 || __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, d, &v))
            return false;
    }
    *out = v;
    return true;
}

/* Greedy with one point of return: only the last star seen can usefully take more, so the time is at most
 * glob × name and no pattern makes it exponential. */
bool slice_glob(struct slice glob, struct slice name) {
    size_t g = 0, n = 0, star = SIZE_MAX, star_at = 0;
    while (n < name.len) {
        if (g < glob.len && glob.ptr[g] == '*') {
            star = g++;
            star_at = n;
        } else if (g < glob.len && glob.ptr[g] == name.ptr[n]) {
            g++, n++;
        } else if (star != SIZE_MAX) {
            g = star + 1;
            n = ++star_at;
        } else {
            return false;
        }
    }
    while (g < glob.len && glob.ptr[g] == '*')
        g++;
    return g == glob.len;
}

bool slice_eq_secret(struct slice a, struct slice b) {
    if (a.len != b.len)
        return false;
    volatile unsigned char diff = 0;
    for (size_t i = 0; i < a.len; i++)
        diff |= (unsigned char)(a.ptr[i] ^ b.ptr[i]);
    return diff == 0;
}

void wipe(void *p, size_t n) {
    if (n > 0)
        memset(p, 0, n);
    __asm__ volatile("" : : "r"(p) : "memory"); /* the bytes count as read: the memset stays */
}
