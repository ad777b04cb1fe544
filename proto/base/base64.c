/* Base64 (RFC 4648 §4 and §5); the interface is in crypto.h. A failed decode leaves the buffer as it was. */
#include "proto/base/crypto.h"

static const char ALPHABET[2][65] = {
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
};

bool base64_encode(struct buf *out, const void *data, size_t n, bool url) {
    const uint8_t *p = data;
    const char *abc = ALPHABET[url];
    size_t tail = n % 3, size = n / 3 * 4 + (tail == 0 ? 0 : url ? tail + 1 : 4);
    char *start = n > SIZE_MAX / 2 ? NULL : buf_reserve(out, size, NULL), *q = start;
    if (!q)
        return false;
    for (; n >= 3; n -= 3, p += 3) {
        uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        *q++ = abc[v >> 18];
        *q++ = abc[v >> 12 & 63];
        *q++ = abc[v >> 6 & 63];
        *q++ = abc[v & 63];
    }
    if (tail) {
        uint32_t v = (uint32_t)p[0] << 16 | (tail == 2 ? (uint32_t)p[1] << 8 : 0);
        *q++ = abc[v >> 18];
        *q++ = abc[v >> 12 & 63];
        if (tail == 2)
            *q++ = abc[v >> 6 & 63];
        for (size_t pad = url ? 0 : 3 - tail; pad > 0; pad--)
            *q++ = '=';
    }
    buf_commit(out, size);
    return true;
}

static inline bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* What may follow the last character: nothing, or just the padding that its group lacks. */
static bool padding_fits(struct slice rest, bool loose, unsigned group) {
    unsigned pads = 0;
    for (size_t i = 0; i < rest.len; i++) {
        if (rest.ptr[i] == '=')
            pads++;
        else if (!(loose && is_space(rest.ptr[i])))
            return false;
    }
    return pads == 0 || (group >= 2 && group + pads == 4);
}

bool base64_decode(struct buf *out, struct slice text, bool loose) {
    char *start = buf_reserve(out, text.len / 4 * 3 + 3, NULL), *q = start;
    char exact[3];
    size_t len_was = out->len;
    uint32_t acc = 0;
    unsigned group = 0; /* characters of the current group of four */
    size_t i = 0;
    bool direct = start != NULL;
    for (; i < text.len; i++) {
        unsigned v = base64_sextet((unsigned char)text.ptr[i]);
        if (v > 63) {
            if (loose && is_space(text.ptr[i]))
                continue;
            break;
        }
        acc = acc << 6 | v;
        if (++group < 4)
            continue;
        if (!direct)
            q = exact; /* near the ceiling: three bytes at a time, so that only what does not fit fails */
        *q++ = (char)(acc >> 16);
        *q++ = (char)(acc >> 8);
        *q++ = (char)acc;
        if (!direct && !buf_append(out, exact, 3))
            goto fail;
        acc = group = 0;
    }
    if (group == 1 || !padding_fits(slice_from(text, i), loose, group))
        goto fail;
    if (!direct)
        q = exact;
    /* RFC 4648 §3.5: unused bits that are set would give two spellings to one value (a token's signature, say) */
    if (group > 1 && !loose && (acc & (group == 2 ? 15u : 3u)))
        goto fail;
    if (group > 1)
        *q++ = (char)(group == 2 ? acc >> 4 : acc >> 10);
    if (group == 3)
        *q++ = (char)(acc >> 2);
    if (!direct) {
        if (buf_append(out, exact, (size_t)(q - exact)))
            return true;
        goto fail;
    }
    buf_commit(out, (size_t)(q - start));
    return true;
fail:
    out->len = len_was;
    return false;
}
