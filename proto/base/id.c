/* See id.h. */
#include "proto/base/id.h"

#include <string.h>

static const struct { const char *prefix; size_t width; } kinds[] = {
    [ID_ACCOUNT] = { "acct_", 8 },
    [ID_KEY] = { "key_", 8 },
    [ID_ENTRY] = { "ent_", 10 },
    [ID_USAGE] = { "use_", 10 },
};
enum { MOST_DIGITS = 13 }; /* of 64 bits */

size_t id_write(char out[ID_TEXT], enum id_kind kind, uint64_t id) {
    char digits[MOST_DIGITS];
    size_t n = 0, at = strlen(kinds[kind].prefix);
    do
        digits[n++] = "0123456789abcdefghijklmnopqrstuvwxyz"[id % 36];
    while ((id /= 36) != 0);
    memcpy(out, kinds[kind].prefix, at);
    for (size_t pad = n; pad < kinds[kind].width; pad++)
        out[at++] = '0';
    while (n > 0)
        out[at++] = digits[--n];
    out[at] = '\0';
    return at;
}

bool id_read(struct slice text, enum id_kind kind, uint64_t *id) {
    if (!slice_starts(text, slice_str(kinds[kind].prefix)))
        return false;
    text = slice_from(text, strlen(kinds[kind].prefix));
    uint64_t v = 0;
    if (text.len == 0 || text.len > MOST_DIGITS)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        unsigned d = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'a' && c <= 'z' ? (unsigned)(c - 'a') + 10 : 36;
        if (d == 36 || __builtin_mul_overflow(v, 36, &v) || __builtin_add_overflow(v, d, &v))
            return false;
    }
    *id = v;
    return true;
}
